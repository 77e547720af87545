"""Two methods on one test set: how sure the test samples are of their difference, beside the seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from longtail._arrays import as_numpy
from longtail.evaluation.intervals import Interval, checked_confidence
from longtail.evaluation.reading import group_ids, read_labels
from longtail.evaluation.statistics import PairedDifference

__all__ = ["TestDifference", "paired_on_test"]


@dataclass(frozen=True)
class TestDifference:
    """The difference of two balanced errors on the same test samples.

    Attributes:
        difference: of the first less the second; negative where the first errs less.
        standard_error: from the test samples, class by class.
        interval: of the difference, from the test samples alone.
        per_class: for each class how many samples only the first, and only the second, got wrong.
        per_class_p: McNemar's exact test of each class; None for one without test samples.
    """

    difference: float
    standard_error: float
    interval: Interval
    per_class: tuple[tuple[int, int], ...]
    per_class_p: tuple[float | None, ...]

    __test__ = False  # no test of pytest's

    def with_seeds(self, seeds: PairedDifference) -> Interval | None:
        """Return the interval with both doubts, of the seeds and of the test samples; None for one seed."""
        if seeds.sd is None or seeds.low is None or seeds.high is None:
            return None
        test = NormalDist().inv_cdf((1 + self.interval.confidence) / 2) * self.standard_error
        half = math.hypot((seeds.high - seeds.low) / 2, test)
        return Interval(seeds.mean - half, seeds.mean + half, self.interval.confidence)


def paired_on_test(
    first: object, second: object, targets: object, *, groups: object = None, confidence: float = 0.95
) -> TestDifference:
    """Compare the predictions of two methods on one test set.

    Args:
        first: Predicted classes, integers of shape (N,).
        second: Of the other method, for the same samples in the same order.
        targets: True classes, integers of shape (N,).
        groups: One a sample: samples of one group (a patient, a track) count as one.
        confidence: Of the interval, strictly between 0 and 1.

    Returns:
        The difference of their balanced errors, and how sure the test samples are of it. A class with one
        sample, or group, shows no spread; it is taken to have that of a class where the two differ half the
        time.

    Raises:
        TypeError: Classes that are no integers.
        ValueError: Lengths that differ.

    Example:
        >>> found = paired_on_test([0, 0, 1, 1], [0, 1, 1, 0], [0, 0, 1, 1])
        >>> found.difference, found.per_class
        (-0.5, ((0, 1), (0, 1)))

    Source:
        McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika
        1947.
    """
    confidence = checked_confidence(confidence)
    size = 1 + max(int(as_numpy("predictions", x).max(initial=0)) for x in (first, second, targets))
    truth = read_labels("targets", targets, size)
    one, other = read_labels("first", first, size), read_labels("second", second, size)
    for name, values in (("first", one), ("second", other)):
        if len(values) != len(truth):
            raise ValueError(f"{name} must be one a target, {len(truth)}, got {len(values)}")
    ids = np.arange(len(truth))
    if groups is not None:
        names = np.asarray(group_ids(groups, len(truth)), dtype=str)
        ids = np.unique(names, return_inverse=True)[1].reshape(-1)
    gaps = (one != truth).astype(np.float64) - (other != truth)
    means, variance, pairs, p_values = [], 0.0, [], []
    for c in range(size):
        mine = truth == c
        lost, won = int((gaps[mine] > 0).sum()), int((gaps[mine] < 0).sum())
        pairs.append((lost, won))
        p_values.append(_mcnemar(lost, won) if mine.any() else None)
        if not mine.any():
            continue
        mean, of_unit = float(gaps[mine].mean()), np.unique(ids[mine], return_inverse=True)[1].reshape(-1)
        units = int(of_unit.max()) + 1
        rest = np.bincount(of_unit, weights=gaps[mine] - mean)
        spread = units / (units - 1) * float((rest**2).sum()) / mine.sum() ** 2 if units > 1 else 0.5
        means.append(mean)
        variance += spread
    error = math.sqrt(variance) / len(means)
    difference = float(np.mean(means))
    half = NormalDist().inv_cdf((1 + confidence) / 2) * error
    sides = Interval(difference - half, difference + half, confidence)
    return TestDifference(difference, error, sides, tuple(pairs), tuple(p_values))


def _mcnemar(lost: int, won: int) -> float:
    """Two-sided exact p-value of as many discordant pairs, a fair coin deciding each."""
    n, few = lost + won, min(lost, won)
    tail: int = sum(math.comb(n, k) for k in range(few + 1))
    p_value: float = 2 * tail / 2**n
    return min(1.0, p_value)
