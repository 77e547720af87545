"""What a comparison recommends, for a balanced and for a natural test prior, and never more than it shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from longtail.compare import CONFIDENCE, Comparison, Row
from longtail.evaluation import PairedDifference, paired_difference
from longtail.report import tables


@dataclass(frozen=True)
class Advice:
    """The recommendation for one kind of test data.

    Attributes:
        prior: "balanced" | "natural".
        when: which test data are meant.
        rule: what holds for such data in general.
        finding: what these runs say.
        code: the line of Python that makes the recommended loss.
        folder: the run to keep.
        seeds: how many runs of it there are.
    """

    prior: str
    when: str
    rule: str
    finding: str
    code: str
    folder: Path
    seeds: int


_KINDS = (
    (
        "balanced",
        "balanced_error",
        "every class counts the same, however rare",
        "Re-weighting is made for this. Choose N on a balanced split held out of the training data.",
    ),
    (
        "natural",
        "natural_error",
        "test data are as long-tailed as the training data",
        "The plain loss already fits this prior. Expect re-weighting to trade the head for the tail, so that "
        "the plain error rises while the tail gains; do it only if the tail is worth that.",
    ),
)


def advise(comparison: Comparison) -> list[Advice]:
    """Return the advice for each test prior; the lowest mean is recommended only if it beats its baseline."""
    found = []
    for prior, field, when, rule in _KINDS:
        best = comparison.lowest(field)
        if best is None:
            continue
        row, finding = _choose(comparison, best, field)
        found.append(Advice(prior, when, rule, finding, code(row), row.outcomes[0].folder, len(row.outcomes)))
    return found


def code(row: Row) -> str:
    """Return the line of Python that makes a row's loss."""
    recipe = row.outcomes[0].recipe
    words = [f'loss="{recipe.loss}"', f'scheme="{recipe.scheme}"']
    if recipe.scheme == "effective":
        words.append(f"beta={recipe.beta!r}")
    if "focal" in recipe.loss:
        words.append(f"gamma={recipe.gamma!r}")
    if recipe.normalizer != "samples":
        words.append(f'normalizer="{recipe.normalizer}"')
    if recipe.label_smoothing:
        words.append(f"label_smoothing={recipe.label_smoothing!r}")
    return f"criterion = longtail.ClassBalancedLoss(longtail.class_counts(labels), {', '.join(words)})"


def paired(one: Row, other: Row, field: str) -> PairedDifference | None:
    """Return one row minus another over the seeds that both have; None where the field does not apply."""
    shared = sorted(set(one.seeds) & set(other.seeds))
    ours, theirs = one.values(field, shared), other.values(field, shared)
    return None if ours is None or theirs is None else paired_difference(ours, theirs, CONFIDENCE)


def _choose(comparison: Comparison, best: Row, field: str) -> tuple[Row, str]:
    name, summary = f"{best.loss}, {best.weights} weights", best.summary(field)
    assert summary is not None
    lowest = f"{100 * summary.mean:.1f} %"
    plain = [row for row in comparison.rows if row.scheme == "none" and row.outcomes]
    if best.scheme == "none":
        only = len([row for row in comparison.rows if row.outcomes]) == 1
        what = "The only method here is" if only else "The lowest mean has"
        return best, f"{what} {best.loss} without re-weighting, {lowest}."
    if (d := comparison.difference(best, field)) is None:
        return (
            best,
            f"The lowest mean has {name}, {lowest}; no run without re-weighting says whether it helped.",
        )
    simplest = comparison.lowest(field, plain)
    assert simplest is not None
    if comparison.beats_none(best, field):
        against = ""
        if simplest is not comparison.baseline(best) and (e := paired(best, simplest, field)) is not None:
            sure = "an interval without 0" if e.significant else "which may be chance"
            lowest_plain = f"{simplest.loss}, the lowest of the plain losses"
            against = f" Against {lowest_plain}: {tables.interval_text(e)}, {sure}."
        return best, (
            f"Use {name}: {lowest}, {tables.interval_text(d)} points against the same loss without "
            f"re-weighting, beyond chance after correction for {comparison.comparisons} tests.{against}"
        )
    return simplest, (
        f"The lowest mean has {name}, {lowest}, but its difference to the same loss without re-weighting, "
        f"{tables.interval_text(d)} points, "
        f"{'rests on one seed' if d.low is None else 'may be chance'}: keep the simplest, {simplest.loss} "
        "without re-weighting, until more seeds say otherwise."
    )
