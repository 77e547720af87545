"""What a comparison says of each method: the one list that every table, file and page reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from longtail import _checks

View = Literal["table", "wide", "json", "runs", "methods", "scores"]

GROUPS: Final = ("many", "medium", "few")


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: of a field of `longtail.Evaluation`, or of what a row says of itself.
        title: as tables head it.
        kind: "text" | "percent" (an error, written times 100) | "number" (a score) | "difference" |
            "interval" (one doubt of it) | "count".
        views: where it stands. "table": terminal and Markdown, within 80 columns, and all wider tables;
            "wide": the page and papers; "json": compare.json; "runs": compare.csv, a line a run; "methods":
            the CSV of a line a method; "scores": where probabilities were kept, the page
            and compare.json.
        spread: whether tables write the standard deviation beside the mean.
        falls: whether less is better; errors and log-losses fall, scores rise.
    """

    name: str
    title: str
    kind: Literal["text", "percent", "number", "difference", "interval", "count"]
    views: tuple[View, ...]
    spread: bool = False
    falls: bool | None = None

    @property
    def lower_is_better(self) -> bool:
        """Whether less is better: errors fall, scores rise."""
        return self.kind == "percent" if self.falls is None else self.falls

    @property
    def in_words(self) -> str:
        """The name as a sentence has it."""
        return self.name.replace("_", " ").replace("f1", "F1")

    @property
    def measured(self) -> bool:
        """Whether it is a number of every run."""
        return self.kind in ("percent", "number")

    def is_better(self, difference: float) -> bool:
        """Whether a difference is for the better."""
        return difference < 0 if self.lower_is_better else difference > 0


COLUMNS: Final = (
    Column("loss", "loss", "text", ("table",)),
    Column("weights", "weights", "text", ("table",)),
    Column("error", "error %", "percent", ("table", "json", "runs", "methods"), spread=True),
    Column("balanced_error", "balanced", "percent", ("wide", "json", "runs", "methods")),
    Column("natural_error", "natural prior", "percent", ("wide", "methods")),
    *(Column(f"{g}_error", g, "percent", ("table", "json", "runs", "methods")) for g in GROUPS),
    Column("macro_f1", "macro-F1", "number", ("wide", "json", "runs", "methods")),
    Column("worst_class_error", "worst class", "percent", ("runs",)),
    Column("expected_calibration_error", "calibration", "percent", ("wide", "json", "runs", "methods")),
    Column("log_loss", "log-loss", "number", ("scores",), falls=True),
    Column("balanced_log_loss", "balanced log-loss", "number", ("scores",), falls=True),
    Column("average_precision", "average precision", "number", ("scores",)),
    Column("difference", "vs none [95 %]", "difference", ("table",)),
    Column("over_seeds", "seeds alone", "interval", ("wide",)),
    Column("over_test", "test samples alone", "interval", ("wide",)),
    Column("seeds", "seeds", "count", ("wide",)),
)


def columns(view: View, metric: str = "error") -> list[Column]:
    """Return the columns of a view in their order; the wide one begins with those of the table.

    Args:
        view: see `Column`.
        metric: what decides; another one than the error stands before it in the table.
    """
    chosen = [c for c in COLUMNS if view in c.views]
    if view == "table" and metric != "error":
        at = next(i for i, c in enumerate(chosen) if c.name == "error")
        decides = replace(named(metric), spread=True)
        chosen[at : at + 1] = [decides, replace(chosen[at], title="error", spread=False)]
    if view == "wide":
        table = columns("table", metric) + [c for c in chosen if c.kind == "interval"]
        return [*table, *(c for c in chosen if c.name not in {t.name for t in table})]
    return chosen


def named(name: str) -> Column:
    """Return a column by its name.

    Raises:
        ValueError: no measured column has it.
    """
    found = {c.name: c for c in COLUMNS if c.measured}
    return found[_checks.choice("metric", name, tuple(found))]


def as_csv(rows: Iterable[Sequence[object]]) -> str:
    """Return rows, the head first, as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([*map(_checks.inert, row)] for row in rows)
    return text.getvalue()
