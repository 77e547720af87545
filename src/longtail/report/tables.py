"""A comparison as tables: for the terminal, the page, and papers (Markdown, CSV, LaTeX)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.table import Table

from longtail.compare.columns import Column, View, columns
from longtail.compare.verdict import interval_text
from longtail.evaluation import Summary

if TYPE_CHECKING:
    from longtail.compare import ComparisonTable, Row
    from longtail.large_scale import Measured, Plan
    from longtail.reproduce import Accuracy, PaperCell, SignErrors


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


def method_sheet(table: ComparisonTable, view: View = "wide") -> Sheet:
    """Return all methods as a sheet: what has room in a terminal ("table"), or all there is ("wide")."""
    shown = columns(view)
    empty = "-" if view == "wide" else ""
    rows = [[_cell(column, row, empty) for column in shown] for row in table.rows]
    return Sheet([c.title for c in shown], rows, [i for i, row in enumerate(table.rows) if row.best])


def methods_csv(table: ComparisonTable) -> str:
    """Return one line a method with every mean, deviation and difference, as fractions."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    names, ends = [c.name for c in columns("methods")], ("mean", "low", "high", "p_value")
    writer.writerow(
        [
            *("dataset", "imbalance_factor", "loss", "weights", "seeds"),
            *(f"{name}_{statistic}" for name in names for statistic in ("mean", "sd")),
            *(f"difference_to_none_{end}" for end in ends),
            "better_than_none",
        ]
    )
    factor = table.recipe.imbalance_factor
    for row in table.rows:
        summaries, d = [row[name].summary for name in names], row["error"].difference
        values = [v for s in summaries for v in ((None, None) if s is None else (s.mean, s.sd))]
        values += [None if d is None else getattr(d, end) for end in ends]
        writer.writerow(
            [
                *(table.recipe.dataset, "" if factor is None else f"{factor:g}"),
                *(row.loss, row.weights, len(row.seeds)),
                *("" if v is None else f"{v:.6g}" for v in values),
                int(row["error"].better),
            ]
        )
    return lines.getvalue()


def class_sheet(table: ComparisonTable) -> Sheet:
    """Return one line a class, head to tail: every method's error in percent, mean over seeds."""
    counts, names = table.class_counts, table.class_names
    errors = [row.class_errors.mean for row in table.shown]
    return Sheet(
        ["class", "training samples", *(f"{row.loss} {row.weights}" for row in table.shown)],
        [
            [
                Cell(names[i]),
                Cell(f"{counts[i]:,}", float(counts[i])),
                *(percent(None if np.isnan(e[i]) else float(e[i])) for e in errors),
            ]
            for i in table.order
        ],
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


def percent(share: float | None) -> Cell:
    """Write a share in percent."""
    return Cell("n/a") if share is None else Cell(f"{100 * share:.1f}", 100 * share)


def terminal_table(table: ComparisonTable) -> Table:
    """Return the comparison for the terminal, within 80 columns."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns("table"):
        drawn.add_column(column.title, justify="left" if column.kind == "text" else "right", no_wrap=True)
    last = None
    for cells, row in zip(method_sheet(table, "table").rows, table.rows, strict=True):
        if last is not None and row.loss != last:
            drawn.add_section()
        last = row.loss
        texts = [cell.text for cell in cells]
        if texts[-1].endswith("]"):
            texts[-1] += " "  # where others have a mark
        drawn.add_row(*texts, style="bold green" if row.best else "")
    return drawn


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


def _latex(text: str) -> str:
    special = {c: rf"\{c}" for c in "&%$#_{}"}
    words = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    signs = {"±": r"$\pm$", "<": r"$<$", ">": r"$>$", "γ": r"$\gamma$", "β": r"$\beta$", "|": r"$|$"}
    return "".join({**special, **words, **signs}.get(c, c) for c in text)


def _cell(column: Column, row: Row, empty: str) -> Cell:
    """Write one column of one row; * marks a difference that is significant after the correction."""
    if column.kind == "text":
        best = " (best)" if row.best and column.name == "weights" else ""
        return Cell(f"{getattr(row, column.name)}{best}")
    if column.kind == "count":
        return Cell(str(len(row.seeds)), float(len(row.seeds)))
    if column.kind == "difference":
        measure = row["error"]
        text = interval_text(measure.difference) + "*" * measure.better
        return Cell(text or empty, None if measure.difference is None else 100 * measure.difference.mean)
    summary = row[column.name].summary
    if summary is None:
        return Cell("n/a")
    if column.kind == "number":
        return Cell(f"{summary.mean:.3f}", summary.mean)
    spread = f" ± {100 * summary.sd:.1f}" if column.spread and summary.sd is not None else ""
    return Cell(f"{100 * summary.mean:.1f}{spread}", 100 * summary.mean)
