"""Comparisons as tables: for the terminal, the page, and papers (Markdown, CSV, LaTeX)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from longtail.evaluation import PairedDifference, Summary

if TYPE_CHECKING:
    from longtail.compare import Comparison, Row
    from longtail.large_scale import Measured, Plan
    from longtail.reproduce import Accuracy, PaperCell, SignErrors

GROUPS = ("many", "medium", "few")
_HEAD = ("loss", "weights", "error %", "many", "medium", "few", "vs none [95 %]")


@dataclass(frozen=True)
class Cell:
    """One entry of a sheet.

    Attributes:
        text: as it is read.
        value: as it is sorted and exported where it is a number; None sorts last.
    """

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Sheet:
    """A table before it has a format.

    Attributes:
        head: names of the columns.
        rows: one cell a column.
        mark: rows to set off, by position.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    mark: Sequence[int] = ()

    def markdown(self) -> str:
        """Return the sheet as a Markdown table."""
        return markdown(self.head, [[cell.text for cell in row] for row in self.rows])

    def csv(self) -> str:
        """Return the sheet as CSV: numbers in full where a cell has one, n/a as nothing."""
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(self.head)
        for row in self.rows:
            texts = ("" if cell.text == "n/a" else cell.text for cell in row)
            writer.writerow(
                t if c.value is None else f"{c.value:.10g}" for t, c in zip(texts, row, strict=True)
            )
        return lines.getvalue()

    def latex(self, caption: str = "") -> str:
        """Return the sheet as a LaTeX table for the booktabs package."""
        columns = "".join(
            "l" if all(r[i].value is None for r in self.rows) else "r" for i in range(len(self.head))
        )
        lines = [self.head, *([cell.text for cell in row] for row in self.rows)]
        texts = []
        for i, line in enumerate(lines):
            cells = [_latex(text.strip()) for text in line]
            if i - 1 in self.mark:
                cells = [rf"\textbf{{{cell}}}" for cell in cells]
            texts.append(" & ".join(cells) + r" \\")
        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                *([rf"\caption{{{_latex(caption)}}}"] if caption else []),
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                texts[0],
                r"\midrule",
                *texts[1:],
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )


def method_table(comparison: Comparison) -> Sheet:
    """Return all methods as a sheet: what :func:`comparison_table` shows, and what has no room there."""
    head = (*_HEAD, "natural prior", "macro-F1", "calibration", "seeds")
    rows = []
    for texts, row in zip(comparison_cells(comparison), comparison.rows, strict=True):
        d = comparison.difference(row)
        fields = ("error", *(f"{group}_error" for group in GROUPS))
        values = [None if (s := row.summary(field)) is None else 100 * s.mean for field in fields]
        values.append(None if d is None else 100 * d.mean)
        cells = [Cell(text.strip() or "-", value) for text, value in zip(texts[2:], values, strict=True)]
        f1, calibration = row.summary("macro_f1"), row.summary("expected_calibration_error")
        natural = row.summary("natural_error")
        rows.append(
            [
                *(Cell(text) for text in texts[:2]),
                *cells,
                Cell(_mean(natural), None if natural is None else 100 * natural.mean),
                Cell("n/a") if f1 is None else Cell(f"{f1.mean:.3f}", f1.mean),
                Cell(_mean(calibration), None if calibration is None else 100 * calibration.mean),
                Cell(str(len(row.seeds)), float(len(row.seeds))),
            ]
        )
    return Sheet(head, rows, [i for i, row in enumerate(comparison.rows) if row is comparison.winner])


def methods_csv(comparison: Comparison) -> str:
    """Return one line a method with every mean, deviation and difference, as fractions."""
    fields = (
        *("error", "balanced_error", "natural_error", *(f"{group}_error" for group in GROUPS)),
        *("macro_f1", "expected_calibration_error"),
    )
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    difference = [f"difference_to_none_{name}" for name in ("mean", "low", "high", "p_value")]
    statistics = [f"{field}_{name}" for field in fields for name in ("mean", "sd")]
    writer.writerow(
        [
            "dataset",
            "imbalance_factor",
            "loss",
            "weights",
            "seeds",
            *statistics,
            *difference,
            "better_than_none",
        ]
    )
    for row in comparison.rows:
        values: list[float | None] = []
        for field in fields:
            s = row.summary(field)
            values += [None, None] if s is None else [s.mean, s.sd]
        d = comparison.difference(row)
        values += [None] * 4 if d is None else [d.mean, d.low, d.high, d.p_value]
        factor = comparison.recipe.imbalance_factor
        writer.writerow(
            [
                comparison.recipe.dataset,
                "" if factor is None else f"{factor:g}",
                row.loss,
                row.weights,
                len(row.seeds),
                *("" if v is None else f"{v:.6g}" for v in values),
                int(comparison.beats_none(row)),
            ]
        )
    return lines.getvalue()


def class_table(comparison: Comparison, names: Sequence[str]) -> Sheet:
    """Return one line a class, head to tail: every method's error in percent, mean over seeds."""
    rows = [row for row in comparison.rows if row.outcomes]
    counts = _class_counts(comparison)
    errors = [[_class_error(row, i) for row in rows] for i in range(len(counts))]
    order = sorted(range(len(counts)), key=lambda i: -counts[i])
    return Sheet(
        ["class", "training samples", *(f"{row.loss} {row.weights}" for row in rows)],
        [[Cell(names[i]), Cell(f"{counts[i]:,}", float(counts[i])), *map(percent, errors[i])] for i in order],
    )


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


def legend(thresholds: tuple[int, int]) -> str:
    """Say how the columns of a comparison are to be read."""
    many, few = thresholds
    return (
        "error: mean ± standard deviation over seeds, on the test set. many / medium / few: classes with "
        f"> {many}, {few} to {many}, < {few} training samples. vs none: paired difference to the same loss "
        "without re-weighting, negative is better, with its 95 % interval; * significant after Bonferroni's "
        "correction. natural prior: the error to expect where test data have the training set's class "
        "proportions. calibration: expected calibration error, %."
    )


def interval_text(d: PairedDifference | None, scale: float = 100, digits: int = 1) -> str:
    """Write a paired difference, times `scale`, in points with its interval."""
    if d is None:
        return ""
    mean, low, high = ("" if x is None else f"{scale * x:+.{digits}f}" for x in (d.mean, d.low, d.high))
    return f"{mean} [{low}, {high}]" if low and high else mean


def percent(share: float | None) -> Cell:
    """Write a share in percent."""
    return Cell("n/a") if share is None else Cell(f"{100 * share:.1f}", 100 * share)


def comparison_cells(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return the table's body as text: one row a method, * where it significantly beats its baseline."""
    cells = []
    for row in comparison.rows:
        mark = " (best)" if row is comparison.winner else ""
        d = comparison.difference(row)
        change = interval_text(d)
        if d is not None and d.low is not None:
            change += "*" if comparison.beats_none(row) else " "
        groups = [_mean(row.summary(f"{group}_error")) for group in GROUPS]
        cells.append((row.loss, row.weights + mark, _mean_sd(row.summary()), *groups, change))
    return cells


def comparison_table(comparison: Comparison) -> Table:
    """Return the comparison for the terminal, within 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in _HEAD:
        table.add_column(name, justify="left" if name in ("loss", "weights") else "right", no_wrap=True)
    last = None
    for cells, row in zip(comparison_cells(comparison), comparison.rows, strict=True):
        if last is not None and row.loss != last:
            table.add_section()
        last = row.loss
        table.add_row(*cells, style="bold green" if row is comparison.winner else "")
    return table


def comparison_markdown(comparison: Comparison) -> str:
    """Return the comparison as a Markdown table."""
    return markdown(_HEAD, comparison_cells(comparison))


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


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; bars inside cells are escaped."""
    lines = [head, ["---"] * len(head), *body]
    return "".join(
        "| " + " | ".join(cell.strip().replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def _class_counts(comparison: Comparison) -> tuple[int, ...]:
    return next(o.evaluation.class_counts for row in comparison.rows for o in row.outcomes if o.evaluation)


def _class_error(row: Row, i: int) -> float | None:
    errors = [o.evaluation.per_class_error[i] for o in row.outcomes if o.evaluation]
    known = [e for e in errors if e is not None]
    return sum(known) / len(known) if known and len(known) == len(errors) else None


def _latex(text: str) -> str:
    special = {c: rf"\{c}" for c in "&%$#_{}"}
    words = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    signs = {"±": r"$\pm$", "<": r"$<$", ">": r"$>$", "γ": r"$\gamma$", "β": r"$\beta$", "|": r"$|$"}
    return "".join({**special, **words, **signs}.get(c, c) for c in text)


def _mean(summary: Summary | None) -> str:
    return "n/a" if summary is None else f"{100 * summary.mean:.1f}"


def _mean_sd(summary: Summary | None) -> str:
    if summary is None:
        return "n/a"
    spread = "" if summary.sd is None else f" ± {100 * summary.sd:.1f}"
    return f"{100 * summary.mean:.1f}{spread}"
