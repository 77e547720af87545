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

__all__ = [
    "Cell",
    "Sheet",
    "class_table",
    "comparison_cells",
    "comparison_markdown",
    "comparison_table",
    "interval_text",
    "legend",
    "markdown",
    "method_table",
    "methods_csv",
    "percent",
]

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
