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
        return self.name.replace("_", " ").replace("f1", "F1").replace("at half", "at 0.5")

    @property
    def scale(self) -> int:
        """What it is written times: 100 for shares."""
        return 100 if self.kind == "percent" else 1

    @property
    def digits(self) -> int:
        """Behind the point."""
        return 1 if self.kind == "percent" else 3

    def text(self, value: float) -> str:
        """Write a value, shares in percent."""
        return f"{self.scale * value:.{self.digits}f}{' %' if self.kind == 'percent' else ''}"

    @property
    def side(self) -> str:
        """Which differences are better."""
        return "negative" if self.lower_is_better else "positive"

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
    Column("rare_average_precision", "rare AP", "number", ("scores",)),
    Column("difference", "vs none [95 %]", "difference", ("table",)),
    Column("over_seeds", "seeds alone", "interval", ("wide",)),
    Column("over_test", "test samples alone", "interval", ("wide",)),
    Column("seeds", "seeds", "count", ("wide",)),
)
# of many labels a sample
LABEL_COLUMNS: Final = (
    Column("loss", "loss", "text", ("table",)),
    Column("weights", "weights", "text", ("table",)),
    Column(
        *("macro_average_precision", "mAP %", "percent", ("table", "json", "runs", "methods")),
        spread=True,
        falls=False,
    ),
    *(
        Column(f"{g}_average_precision", g, "percent", ("table", "json", "runs", "methods"), falls=False)
        for g in GROUPS
    ),
    Column("macro_f1", "macro-F1", "number", ("table", "json", "runs", "methods")),
    Column("micro_f1", "micro-F1", "number", ("wide", "json", "runs", "methods")),
    Column("macro_f1_at_half", "macro-F1 at 0.5", "number", ("wide", "json", "runs", "methods")),
    Column("log_loss", "log-loss", "number", ("wide", "json", "runs", "methods"), falls=True),
    Column("difference", "vs none [95 %]", "difference", ("table",)),
    Column("over_seeds", "seeds alone", "interval", ("wide",)),
    Column("over_test", "test samples alone", "interval", ("wide",)),
    Column("seeds", "seeds", "count", ("wide",)),
)


def every_column(many_labels: bool = False) -> tuple[Column, ...]:
    """Return all columns, of one class or of many labels a sample."""
    return LABEL_COLUMNS if many_labels else COLUMNS


def usual_metric(many_labels: bool = False) -> str:
    """Return what decides where nothing else is asked for."""
    return "macro_average_precision" if many_labels else "error"


def columns(view: View, metric: str = "error", many_labels: bool = False) -> list[Column]:
    """Return the columns of a view in their order; the wide one begins with those of the table.

    Args:
        view: see `Column`.
        metric: what decides; another one than the usual stands before that in the table.
        many_labels: whether a sample may have several labels.
    """
    usual = usual_metric(many_labels)
    chosen = [c for c in every_column(many_labels) if view in c.views]
    if view == "table" and metric != usual:
        chosen = [c for c in chosen if c.name != metric]
        at = next(i for i, c in enumerate(chosen) if c.name == usual)
        decides = replace(named(metric, many_labels), spread=True)
        title = chosen[at].title.removesuffix(" %")
        chosen[at : at + 1] = [decides, replace(chosen[at], title=title, spread=False)]
    if view == "wide":
        table = columns("table", metric, many_labels) + [c for c in chosen if c.kind == "interval"]
        return [*table, *(c for c in chosen if c.name not in {t.name for t in table})]
    return chosen


def named(name: str, many_labels: bool = False) -> Column:
    """Return a column by its name.

    Raises:
        ValueError: no measured column has it.
    """
    found = {c.name: c for c in every_column(many_labels) if c.measured}
    if name not in found and any(c.name == name for c in every_column(not many_labels) if c.measured):
        kinds = ("one class a sample", "many labels a sample")
        raise ValueError(
            f"metric={name!r} is for {kinds[not many_labels]}, and these data have {kinds[many_labels]}; "
            f"choose one of {', '.join(map(repr, found))}"
        )
    return found[_checks.choice("metric", name, tuple(found))]


def as_csv(rows: Iterable[Sequence[object]]) -> str:
    """Return rows, the head first, as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([*map(_checks.inert, row)] for row in rows)
    return text.getvalue()
