"""The papers' tables: for the terminal, the page and documents."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from longtail.evaluation import Summary, interval_text
from longtail.paper.large_scale import Measured, Plan
from longtail.paper.reproduce import Accuracy, PaperCell, SignErrors
from longtail.report.tables import Cell, Sheet, markdown


def paper_sheet(compared: Sequence[PaperCell]) -> Sheet:
    """Return published and measured errors side by side as a sheet."""
    head = (
        "data",
        "imbalance",
        "loss",
        "gamma",
        "beta",
        "paper",
        "measured",
        "seeds",
        "difference",
        "vs plain",
    )
    rows = []
    for row in compared:
        cell, m, plain = row.cell, row.measured, row.against_plain
        sd = "" if m is None or m.sd is None else f" ± {m.sd:.2f}"
        rows.append(
            [
                Cell(cell.dataset),
                Cell(str(cell.imbalance_factor), float(cell.imbalance_factor)),
                Cell(cell.loss),
                Cell("") if cell.gamma is None else Cell(f"{cell.gamma:g}", cell.gamma),
                Cell(f"{cell.beta:g}", cell.beta),
                Cell("-") if row.paper is None else Cell(f"{row.paper:.2f}", row.paper),
                Cell("not run") if m is None else Cell(f"{m.mean:.2f}{sd}", m.mean),
                Cell("0", 0.0) if m is None else Cell(str(m.n), float(m.n)),
                Cell("") if row.difference is None else Cell(f"{row.difference:+.2f}", row.difference),
                Cell("") if plain is None else Cell(interval_text(plain, scale=1, digits=2), plain.mean),
            ]
        )
    return Sheet(head, rows)


def paper_table(compared: Sequence[PaperCell]) -> Table:
    """Return published and measured errors side by side, for the terminal, within 80 columns."""
    title = (
        "test error in %, paper and measured (mean ± standard deviation over n seeds); IF: imbalance factor; "
        "vs plain: to softmax without weights, over the seeds that both have"
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, caption=title)
    sheet = paper_sheet(compared)
    for name in sheet.head:
        short = {"imbalance": "IF", "difference": "diff", "seeds": "n"}.get(name, name)
        table.add_column(short, justify="left" if name in ("data", "loss") else "right", no_wrap=True)
    for row in sheet.rows:
        *others, plain = row
        mean = "" if plain.value is None else f"{plain.value:+.2f}"  # its interval is too wide
        table.add_row(*(cell.text for cell in others), mean)
    return table


_ACCURACY_HEAD = ("data", "f", "loss", "weights", "paper", "measured", "seeds", "difference")


def accuracy_cells(compared: Sequence[Accuracy]) -> list[tuple[str, ...]]:
    """Return published and measured accuracies on skeletons as text, one row a setting."""
    cells: list[tuple[str, ...]] = []
    for row in compared:
        cell, measured, gain = row.cell, row.measured, row.gain
        sd = "" if measured is None or measured.sd is None else f" ± {measured.sd:.1f}"
        change = "" if row.difference is None else f"{row.difference:+.1f}"
        if gain is not None:
            change = interval_text(gain, scale=1)
        cells.append(
            (
                f"jhmdb{cell.classes}"
                + ("" if cell.imbalance_factor == 1 else f"-lt{cell.imbalance_factor}"),
                str(cell.filters),
                cell.loss,
                {0.0: "none", 1.0: "inverse"}.get(cell.beta, f"beta {cell.beta:g}"),
                "-" if row.published is None else f"{row.published:.1f}",
                "not run" if measured is None else f"{measured.mean:.1f}{sd}",
                "0" if measured is None else str(measured.n),
                change,
            )
        )
    return cells


def accuracy_sheet(compared: Sequence[Accuracy]) -> Sheet:
    """Return published and measured accuracies on skeletons as a sheet."""
    numbers = [
        (c.cell.filters, c.published, None if c.measured is None else c.measured.mean) for c in compared
    ]
    rows = []
    for texts, (filters, published, measured) in zip(accuracy_cells(compared), numbers, strict=True):
        values = (None, filters, None, None, published, measured, None, None)
        rows.append([Cell(text, value) for text, value in zip(texts, values, strict=True)])
    return Sheet(_ACCURACY_HEAD, rows)


def accuracy_table(compared: Sequence[Accuracy]) -> Table:
    """Return published and measured accuracies on skeletons for the terminal, within 80 columns."""
    title = (
        "test accuracy in %, mean of three splits; lt: long tail; f: filters; measured: mean ± standard "
        "deviation over seeds; difference: to the paper, or on a long tail to the same loss without weights, "
        "paired, with its 95 % interval"
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, caption=title)
    for name in _ACCURACY_HEAD:
        left = name in ("data", "loss", "weights")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for cells in accuracy_cells(compared):
        table.add_row(*cells)
    return table


def accuracy_markdown(compared: Sequence[Accuracy]) -> str:
    """Return published and measured accuracies on skeletons as a Markdown table."""
    return markdown(_ACCURACY_HEAD, accuracy_cells(compared))


_SIGN_HEAD = ("loss", "weights", "error", "vs plain", "balanced error", "vs plain (balanced)", "seeds")


def sign_texts(compared: Sequence[SignErrors]) -> list[tuple[str, ...]]:
    """Return the errors on traffic signs as text, one row a setting."""

    def percent(summary: Summary | None) -> str:
        if summary is None:
            return "not run"
        return f"{summary.mean:.1f}" + ("" if summary.sd is None else f" ± {summary.sd:.1f}")

    return [
        (
            row.cell.loss,
            row.cell.weights,
            percent(row.error),
            interval_text(row.difference, scale=1),
            percent(row.balanced),
            interval_text(row.balanced_difference, scale=1),
            "0" if row.error is None else str(row.error.n),
        )
        for row in compared
    ]


def large_table(compared: Sequence[Measured]) -> Table:
    """Return the paper's Table 3 beside what was measured, for the terminal, within 80 columns."""
    title = "top-1 and top-5 error in %, paper and measured (mean ± standard deviation over seeds)"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, caption=title)
    for name in ("data", "network", "size", "loss", "paper", "measured", "top-5", "measured", "seeds"):
        left = name in ("data", "network", "loss")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for row in compared:
        cell = row.cell
        table.add_row(
            cell.dataset.replace("inaturalist", "iNat ").replace("ilsvrc2012", "ILSVRC"),
            cell.network,
            str(cell.size),
            "softmax" if cell.loss == "softmax" else "CB focal",
            f"{cell.top1:.2f}",
            _spread(row.top1),
            f"{cell.top5:.2f}",
            _spread(row.top5),
            str(row.top1.n if row.top1 else 0),
        )
    return table


def _spread(summary: Summary | None) -> str:
    if summary is None:
        return "not run"
    return f"{summary.mean:.2f}" + ("" if summary.sd is None else f" ± {summary.sd:.2f}")


def plan_table(plan: Plan) -> Table:
    """Return what a run on image files will take, for the terminal."""
    recipe, giga = plan.recipe, 1e9
    weighting = "" if recipe.scheme == "none" else f", {recipe.scheme} weights, beta {recipe.beta:g}"
    focal = f", gamma {recipe.gamma:g}" if "focal" in recipe.loss else ""
    marks = ", ".join(map(str, recipe.milestones))
    rate = f"learning rate {recipe.learning_rate:g} after {recipe.warmup_epochs} epochs"
    needed = f"{plan.memory / giga:.1f} GB a process, and the kernels' workspace"
    length = f"{plan.step_seconds:.3g} s an update, {plan.hours:,.0f} hours in all"
    how = f"from measured steps of this network on this device in {recipe.precision}"
    speed = f"{1 / plan.decode_seconds:,.0f} images a second and core, measured"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    lines = {
        "data": f"{recipe.dataset}, {recipe.size} x {recipe.size}",
        "network": f"{recipe.model}, {plan.parameters:,} parameters",
        "loss": f"{recipe.loss}{weighting or ', no weights'}{focal}",
        "schedule": f"{recipe.epochs} epochs, batch {recipe.batch_size}, {rate}, "
        f"x {recipe.decay_factor:g} at {marks}",
        "optimizer": f"SGD, momentum {recipe.momentum:g}, weight decay {recipe.weight_decay:g}",
        "updates": f"{plan.steps:,} an epoch, {plan.steps * recipe.epochs:,} in all",
        "division": f"{plan.processes} x {plan.device_batch} samples, {plan.accumulated} times accumulated",
        "memory": needed,
        "time": f"{length}, {how}, if there are {plan.processes} such",
        "decoding": f"{speed}; {plan.cores:.2g} cores keep up with training",
    }
    for name, text in lines.items():
        table.add_row(name, text)
    return table


def sign_table(compared: Sequence[SignErrors]) -> Table:
    """Return the errors on traffic signs for the terminal, within 80 columns."""
    title = (
        "test error in %, over images and as the mean over classes: mean ± standard deviation over n seeds; "
        "vs plain: difference to softmax without weights, paired by seed, with its 95 % interval"
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, caption=title)
    for name in ("loss", "weights", "error", "vs plain", "balanced", "vs plain", "n"):
        left = name in ("loss", "weights")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for loss, weights, *rest in sign_texts(compared):
        # the interval on a line of its own
        table.add_row(loss, weights, *(text.replace(" [", "\n[") for text in rest))
    return table


def sign_markdown(compared: Sequence[SignErrors]) -> str:
    """Return the errors on traffic signs as a Markdown table."""
    return markdown(_SIGN_HEAD, sign_texts(compared))
