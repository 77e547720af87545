"""What a comparison recommends, for a balanced and for a natural test prior: never more than it shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from longtail.compare.answer import ESTIMATORS, code_for, more_runs
from longtail.compare.row import Row
from longtail.compare.table import ComparisonTable
from longtail.evaluation import interval_text


@dataclass(frozen=True)
class Advice:
    """The recommendation for one kind of test data.

    Attributes:
        prior: "balanced" | "natural" | "labels", of many a sample.
        when: which test data are meant.
        rule: what holds for such data in general.
        finding: what these runs say.
        code: the line of Python that makes the recommended loss.
        folder: the run to keep; None where runs keep no model, as those of a table.
        seeds: how many runs of it there are.
    """

    prior: str
    when: str
    rule: str
    finding: str
    code: str
    folder: Path | None
    seeds: int


_KINDS: Final = {
    "balanced": (
        "every class counts the same, however rare",
        "Re-weighting is made for this. Choose beta on a balanced split held out of the training data.",
    ),
    "natural": (
        "test data are as long-tailed as the training data",
        "The plain loss fits such data already. Re-weighting lowers the errors of rare classes and raises "
        "those of frequent ones, so the plain error rises. Do it only if the rare classes are worth that.",
    ),
}


def advise(table: ComparisonTable) -> list[Advice]:
    """Return the advice for each test prior; the lowest mean is recommended only if it beats its baseline.

    Of many labels there is one, for the column that decides.
    """
    if table.many_labels:
        return [] if table.best is None else [_of_labels(table)]
    found = []
    for prior, (when, rule) in _KINDS.items():
        if (best := table.lowest(f"{prior}_error")) is not None:
            row, finding = _choose(table, best, f"{prior}_error")
            found.append(Advice(prior, when, rule, finding, code_for(row), _kept(row), len(row.outcomes)))
    return found


def _kept(row: Row) -> Path | None:
    return None if row.recipe.model in ESTIMATORS else row.outcomes[0].folder


def _plain(row: Row) -> str:
    return f"plain {row.recipe.model if row.recipe.model in ESTIMATORS else row.loss}"


def _of_labels(table: ComparisonTable) -> Advice:
    best, title = table.surest(table.metric), table.decides.in_words
    plain = table.plainest(table.metric)
    use = best or plain or table.best
    assert use is not None
    finding = f"No method differs from the plain loss in {title} by more than chance: keep it, the simplest."
    if best is not None:
        finding = f"Use {best.short_name}: it beats the plain loss in {title} by more than chance explains."
    elif not table.tests or plain is None:
        finding = "There is no plain run to compare with."
    rule = (
        "Weights of the positives move probabilities, not so much rankings: choose the thresholds by "
        "held-out predictions, whatever the loss."
    )
    when = "many labels a sample"
    return Advice("labels", when, rule, finding, code_for(use), _kept(use), len(use.outcomes))


def _choose(table: ComparisonTable, best: Row, column: str) -> tuple[Row, str]:
    name = best.short_name if best.method.name else f"{best.loss} with {best.weights} weights"
    summary = best[column].summary
    assert summary is not None
    lowest = f"{100 * summary.mean:.1f} %"
    if best.is_plain:
        if len(table.shown) == 1:
            return best, f"{_plain(best).capitalize()} is the only method here; its mean error is {lowest}."
        return best, f"{_plain(best).capitalize()} has the lowest mean error, {lowest}."
    leads = f"Lowest mean error: {name}, {lowest}"
    if (d := best[column].total) is None:
        return best, f"{leads}. No run without re-weighting says whether it helped."
    simplest = table.lowest(column, [row for row in table.shown if row.is_plain])
    assert simplest is not None
    if best[column].better:
        text = (
            f"Use {name}: {lowest}, {interval_text(d)} points against the same loss without re-weighting. "
            f"That is more than chance explains{table.corrected(', ')}."
        )
        if simplest is not table.baseline(best) and (e := table.paired(best, simplest, column)) is not None:
            sure = "more than chance explains" if e.significant else "which may be chance"
            text += f" Against {_plain(simplest)}, the best plain one: {interval_text(e)} points, {sure}."
        return best, text
    doubt = "rests on one run" if d.low is None else "may be chance"
    if (surest := table.surest(column)) is not None and (e := surest[column].total) is not None:
        return surest, (
            f"{leads}, but its difference to the same loss without re-weighting, {interval_text(d)} points, "
            f"{doubt}. Use {surest.short_name}, {interval_text(e)} points: that is more than chance "
            f"explains{table.corrected(', ')}."
        )
    until = "more seeds say otherwise"
    if d.low is None or simplest.recipe.model in ESTIMATORS:
        until = f"more is known; {more_runs(table)}" if d.low is None else "more data say otherwise"
    simplest = table.plainest(column) or simplest
    return simplest, (
        f"{leads}. Its difference to the same loss without re-weighting, {interval_text(d)} points, {doubt}: "
        f"keep {_plain(simplest)}, the simplest, until {until}."
    )
