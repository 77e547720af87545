"""A comparison as tables: for the terminal, the page, and papers (Markdown, CSV, LaTeX)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.table import Table

from longtail.compare.answer import ESTIMATORS
from longtail.compare.columns import GROUPS, Column, View, as_csv, columns, named, usual_metric
from longtail.evaluation import interval_text
from longtail.evaluation.statistics import signed

if TYPE_CHECKING:
    from longtail.compare import ComparisonTable, Row

__all__ = ["Cell", "Sheet"]

_TESTS = {
    "balanced": "balanced test set",
    "as in training": "test set with the class shares of the training set",
    "other": "test set",
}
_COUNTS = 12  # classes whose sizes are all said below a table


@dataclass(frozen=True)
class Cell:
    """One entry of a sheet.

    Attributes:
        text: as it is read.
        value: as it is sorted and exported where it is a number; None sorts last.
    """

    text: str
    value: float | None = None

    @property
    def in_full(self) -> str:
        """The number in full where there is one; n/a is nothing."""
        if self.value is not None:
            return f"{self.value:.10g}"
        return "" if self.text == "n/a" else self.text


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
        return as_csv([self.head, *([cell.in_full for cell in row] for row in self.rows)])

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
        title = [rf"\caption{{{_latex(caption)}}}"] if caption else []
        above = [r"\begin{table}", r"\centering", *title, rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
        below = [r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
        return "\n".join([*above, texts[0], r"\midrule", *texts[1:], *below])


def method_sheet(table: ComparisonTable, view: View = "wide") -> Sheet:
    """Return all methods as a sheet: what has room in a terminal ("table"), or all there is ("wide")."""
    many = table.many_labels
    shown = columns(view, table.metric, many)
    if view == "wide":
        there = {c.name for c in shown}
        kept = [
            c for c in columns("scores", many_labels=many) if any(row[c.name].summary for row in table.shown)
        ]
        at = len(shown) - 1  # before the number of seeds
        shown[at:at] = [c for c in kept if c.name not in there and table.recipe.metric != "error"]
        if not any(row[table.metric].on_test for row in table.shown):  # the difference has the one doubt
            shown = [c for c in shown if c.kind != "interval"]
    empty = "-" if view == "wide" else ""
    rows = [[_cell(column, row, empty, table.metric) for column in shown] for row in table.rows]
    return Sheet([c.title for c in shown], rows, [i for i, row in enumerate(table.rows) if row.best])


def methods_csv(table: ComparisonTable) -> str:
    """Return one line a method with every mean, deviation and difference, as fractions."""
    metric = table.metric
    names = [c.name for c in columns("methods", many_labels=table.many_labels)]
    ends = ("mean", "low", "high", "p_value")
    doubts = "test_low", "test_high", "in_all_low", "in_all_high"
    head = [
        *("dataset", "imbalance_factor", "loss", "weights", "seeds"),
        *(f"{name}_{statistic}" for name in names for statistic in ("mean", "sd")),
        *(f"difference_to_none_{end}" for end in (*ends, *doubts)),
        "better_than_none",
    ]
    factor = table.recipe.imbalance_factor
    about = table.recipe.dataset, "" if factor is None else f"{factor:g}"
    lines = []
    for row in table.rows:
        summaries, d = [row[name].summary for name in names], row[metric].difference
        values = [v for s in summaries for v in ((None, None) if s is None else (s.mean, s.sd))]
        values += [None if d is None else getattr(d, end) for end in ends]
        on_test, total = row[metric].on_test, row[metric].total
        values += [None, None] if on_test is None else list(on_test.interval)
        values += [None, None] if on_test is None or total is None else [total.low, total.high]
        texts = ("" if v is None else f"{v:.6g}" for v in values)
        lines.append([*about, row.loss, row.weights, len(row.seeds), *texts, int(row[metric].better)])
    return as_csv([head, *lines])


def class_sheet(table: ComparisonTable) -> Sheet:
    """Return one line a class, head to tail: every method's error in percent, mean over seeds.

    Of many labels it is the average precision in percent.
    """
    counts, names = table.class_counts, table.class_names
    errors = [row.by_class.mean for row in table.shown]
    about = ("label", "positives") if table.many_labels else ("class", "training samples")
    head = [*about, *(f"{row.loss} {row.weights}" for row in table.shown)]
    lines = []
    for i in table.order:
        shares = (percent(None if np.isnan(e[i]) else float(e[i])) for e in errors)
        lines.append([Cell(names[i]), Cell(f"{counts[i]:,}", float(counts[i])), *shares])
    return Sheet(head, lines)


def legend(table: ComparisonTable) -> str:
    """Say how the columns of a comparison are to be read."""
    if table.many_labels:
        return _reading_of_labels(table).strip()
    doubts = any(row[table.metric].on_test for row in table.shown)
    alone = " seeds alone, test samples alone: the same with one of both doubts." if doubts else ""
    return (
        f"{_columns(table)}{alone} natural prior: the error to expect where test data have the training "
        "set's class proportions. calibration: expected calibration error, %."
        f"{_of_scores(table)}"
    )


def _of_scores(table: ComparisonTable) -> str:
    there = [
        n for n in ("average_precision", "rare_average_precision") if any(r[n].summary for r in table.shown)
    ]
    if not there or table.recipe.metric == "error":
        return ""
    text = " average precision: the area under precision by recall of each class, mean over the classes"
    return f"{text}; rare AP: that of the rarer of the two." if len(there) > 1 else f"{text}."


def reading(table: ComparisonTable) -> str:
    """Say how a comparison is to be read, below the terminal's table."""
    if table.many_labels:
        return _reading_of_labels(table)
    return f"\n{_columns(table)}{_budget(table)}"


def _columns(table: ComparisonTable) -> str:
    """Say what the columns of terminal and page hold."""
    many, few = table.evaluation.thresholds
    title = table.decides.title.removesuffix(" %")
    tests = "test folds" if table.recipe.folds else _TESTS[table.test_prior]
    folds = (
        " Folds share training samples, which the intervals allow for (Nadeau and Bengio)."
        if table.recipe.folds
        else ""
    )
    return (
        f"{title}: mean ± standard deviation over {table.unit}s, {tests}. "
        f"many / medium / few: classes with > {many}, {few} to {many}, < {few} training samples (here "
        f"{_sizes(table)}). {_scores(table)}vs none: paired difference to the same loss without "
        f"re-weighting, {table.decides.side} is better, {_doubts(table)}.{folds}"
    )


def _reading_of_labels(table: ComparisonTable) -> str:
    """Say how a comparison of many labels is to be read."""
    many, few = table.evaluation.thresholds
    folds = (
        " Folds share training samples, which the intervals allow for (Nadeau and Bengio)."
        if table.recipe.folds
        else ""
    )
    shifted = [r.short_name for r in table.shown if r.method.offset is not None or r.method.adjustment]
    shifts = ""
    if shifted:
        shifts = f" {', '.join(shifted)}: shifts whole labels, which leaves their rankings as they are."
    return (
        "\nmAP: average precision of each label, mean over the labels with a positive in the test part, "
        f"higher is better; mean ± standard deviation over {table.unit}s. many / medium / few: the same over "
        f"labels with > {many}, {few} to {many}, < {few} positives (here {_sizes(table)}). macro-F1: at "
        "thresholds that held-out predictions of training samples chose; no test sample chose anything. vs "
        f"none: paired difference to the same loss without re-weighting, {table.decides.side} is better, "
        f"{_doubts(table)}.{folds}{shifts}"
    )


def _sizes(table: ComparisonTable) -> str:
    sizes = sorted(table.class_counts, reverse=True)
    every = " in all folds together" if table.recipe.folds else ""
    if len(sizes) > _COUNTS:
        kind = "labels" if table.many_labels else "classes"
        return f"{len(sizes)} {kind} of {sizes[0]:,} down to {sizes[-1]:,}{every}"
    return ", ".join(f"{n:,}" if n >= 10_000 else str(n) for n in table.class_counts) + every


def _scores(table: ComparisonTable) -> str:
    """Say what decides, where its name does not."""
    said = {
        "average_precision": "of each class, mean over the classes that have test samples",
        "rare_average_precision": "of the rarer of two classes",
    }
    told = said.get(table.metric)
    return "" if told is None else f"{table.decides.title}: the area under precision by recall {told}. "


def _doubts(table: ComparisonTable) -> str:
    """Say what the intervals of differences hold: seeds, test samples, or both; and what the mark means."""
    end = "; * significant after Bonferroni's correction"
    doubts, measures = table.doubts, [row[table.metric] for row in table.shown]
    there = [m for m in measures if m.difference is not None]
    samples = table.tested(table.evaluation.num_samples)
    if doubts == "seeds" and there and not any(m.sure for m in there):
        return "without an interval and a mark, as there is one run of each"
    if doubts == "test samples":
        return f"with its 95 % interval over the {samples} alone, and without a mark, as there is one seed"
    over = {
        "both": f" over seeds and {samples} together",
        "some": f" over seeds and {samples} together, and over seeds alone where a run kept no predictions",
        "seeds": " over seeds alone: no run kept predictions, by which the doubt over test samples is known",
        "folds": "",
    }[doubts]
    if doubts == "seeds" and not there:
        over = ""
    elif doubts == "seeds" and not table.has_test_doubt:
        over = " over seeds alone"
    return f"with its 95 % interval{over}{end}"


def _budget(table: ComparisonTable) -> str:
    """Say what each method saw of the data, and which cost no training of their own."""
    if table.recipe.folds or len(table.shown) < 2:
        return ""
    epochs = {row.recipe.epochs for row in table.shown}
    text = ""
    if len(epochs) == 1 and table.recipe.model not in ESTIMATORS:  # which have no epochs
        seen, times = sum(table.class_counts), epochs.pop()
        text = f" Every method saw {times} epoch{'s' * (times > 1)} of {seen:,} samples."
    there = {row.method for row in table.shown}
    shares = [row for row in table.shown if row.method.training != row.method]
    free = [row.short_name for row in shares if row.method.training in there]
    if free:
        text += f" Without a training of their own, from a run of another row: {', '.join(free)}."
    return text


def percent(share: float | None) -> Cell:
    """Write a share in percent."""
    return Cell("n/a") if share is None else Cell(f"{100 * share:.1f}", 100 * share)


def terminal_table(table: ComparisonTable) -> Table:
    """Return the comparison for the terminal, within 80 columns."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    named = any(row.method.name for row in table.rows)  # one name tells more than loss and weights
    # where two numbers stand beside the groups, there is no room for all of these
    left_out = {"loss"} if named else set()
    if table.many_labels or table.metric != usual_metric():
        end = "average_precision" if table.many_labels else "error"
        groups = [f"{g}_{end}" for g in GROUPS]
        empty = {name for name in groups if not any(row[name].summary for row in table.shown)}
        left_out |= empty or {f"medium_{end}"}
    every = columns("table", table.metric, table.many_labels)
    shown = [c for c in every if c.name not in left_out]
    for column in shown:
        title = {"weights": "method", "medium_error": "med."}.get(column.name) if named else None
        drawn.add_column(
            title or column.title, justify="left" if column.kind == "text" else "right", no_wrap=True
        )
    last = None
    for row in table.rows:
        if not named and last is not None and row.loss != last:
            drawn.add_section()
        last = row.loss
        texts = [_cell(column, row, "", table.metric).text for column in shown]
        if named:
            texts[0] = row.short_name
        if texts[-1].endswith("]"):
            texts[-1] += " "  # where others have a mark
        drawn.add_row(*texts, style="bold green" if row.best else "")
    return drawn


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; bars, tags and links inside cells are escaped."""
    lines = [head, ["---"] * len(head), *body]
    return "".join(
        "| " + " | ".join(plain(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def plain(text: str) -> str:
    """Return a text for Markdown in one line, in which a name makes no tag and no link."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", " ".join(text.split())).replace("](", "]\\(")


def _latex(text: str) -> str:
    special = {c: rf"\{c}" for c in "&%$#_{}"}
    words = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    signs = {"±": r"$\pm$", "<": r"$<$", ">": r"$>$", "γ": r"$\gamma$", "β": r"$\beta$", "|": r"$|$"}
    return "".join({**special, **words, **signs}.get(c, c) for c in text)


def _cell(column: Column, row: Row, empty: str, metric: str) -> Cell:
    """Write one column of one row; * marks a difference that is significant after the correction."""
    if column.kind == "text":
        best = " (best)" if row.best and column.name == "weights" else ""
        return Cell(f"{getattr(row, column.name)}{best}")
    if column.kind == "count":
        return Cell(str(len(row.seeds)), float(len(row.seeds)))
    if column.kind == "difference":
        measure = row[metric]
        decides = named(metric, row.recipe.many_labels)
        scale, digits = decides.scale, decides.digits
        d, on_test = measure.total, measure.on_test
        if d is not None and d.low is None and on_test is not None:  # one seed: the test samples' doubt
            d = replace(d, low=on_test.interval.low, high=on_test.interval.high)
        text = interval_text(d, scale, digits) + "*" * measure.better
        return Cell(text or empty, None if d is None else scale * d.mean)
    if column.kind == "interval":
        return _interval_cell(column, row, metric)
    summary = row[column.name].summary
    if summary is None:
        return Cell("n/a")
    if column.kind == "number":
        return Cell(f"{summary.mean:.3f}", summary.mean)
    spread = f" ± {100 * summary.sd:.1f}" if column.spread and summary.sd is not None else ""
    return Cell(f"{100 * summary.mean:.1f}{spread}", 100 * summary.mean)


def _interval_cell(column: Column, row: Row, metric: str) -> Cell:
    """Write both ends of one doubt, in points; sorted by its width."""
    measure = row[metric]
    d, on_test = measure.difference, measure.on_test
    ends = None if on_test is None else tuple(on_test.interval)
    if column.name == "over_seeds":
        ends = None if d is None or d.low is None or d.high is None else (d.low, d.high)
    if ends is None:
        return Cell("-" if d is None else "n/a")
    low, high = ends
    return Cell(f"[{signed(100 * low)}, {signed(100 * high)}]", 100 * (high - low))
