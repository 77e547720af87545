"""Two methods on one test set: how sure the test samples are of their difference, beside the seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from longtail import _arrays
from longtail._arrays import as_numpy
from longtail.evaluation.intervals import Interval, checked_confidence
from longtail.evaluation.reading import group_numbers, read_labels
from longtail.evaluation.statistics import PairedDifference

__all__ = ["TestDifference", "paired_on_test"]


@dataclass(frozen=True)
class TestDifference:
    """The difference of two errors on the same test samples.

    Attributes:
        difference: of the first less the second; negative where the first errs less.
        standard_error: from the test samples, class by class.
        interval: of the difference, from the test samples alone.
        per_class: for each class how many samples only the first, and only the second, got wrong; of several
            runs each, how many the first, and the second, got wrong more often.
        per_class_samples: test samples of each class.
        per_class_moments: of each class its independent samples (groups, where there are some), the sum of
            their differences, and that of the squares.
        num_samples: of many labels, where there is nothing by class: test samples.
    """

    difference: float
    standard_error: float
    interval: Interval
    per_class: tuple[tuple[int, int], ...]
    per_class_samples: tuple[int, ...]
    per_class_moments: tuple[tuple[int, float, float], ...] = ()
    num_samples: int | None = None

    __test__ = False  # no test of pytest's

    @cached_property
    def per_class_p(self) -> tuple[float | None, ...]:
        """McNemar's exact test of each class; None for one without test samples."""
        pairs = zip(self.per_class, self.per_class_samples, strict=True)
        return tuple(_mcnemar(*pair) if samples else None for pair, samples in pairs)

    @property
    def samples(self) -> int:
        """Test samples."""
        return sum(self.per_class_samples) if self.num_samples is None else self.num_samples

    @classmethod
    def of_draws(
        cls, difference: float, draws: npt.ArrayLike, samples: int, confidence: float = 0.95
    ) -> TestDifference:
        """Return what test samples drawn anew say of a difference, by their standard deviation.

        Args:
            difference: on the test samples as they are.
            draws: of the samples drawn anew, shape (R,).
            samples: in the test set.
            confidence: of the interval.
        """
        found = np.asarray(draws, dtype=np.float64)
        spread = float(np.nanstd(found, ddof=1))
        return cls(difference, spread, Interval(0.0, 0.0, confidence), (), (), num_samples=samples).at(
            confidence
        )

    def at(self, confidence: float) -> TestDifference:
        """Return the same with an interval of another confidence."""
        half = NormalDist().inv_cdf((1 + checked_confidence(confidence)) / 2) * self.standard_error
        sides = Interval(self.difference - half, self.difference + half, confidence)
        return replace(self, interval=sides)

    @property
    def per_class_interval(self) -> tuple[Interval | None, ...]:
        """The interval of each class's difference, from its test samples alone; None without any.

        Agresti and Min's (Statistics in Medicine 2005): half a sample is added to each of the four ways in
        which two methods can be right or wrong, so that three samples that all agree do not look sure.
        """
        confidence = self.interval.confidence
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        found: list[Interval | None] = []
        for units, total, squares in self.per_class_moments:
            middle = total / (units + 2)
            half = z * math.sqrt(max(0.0, (squares + 1) / (units + 2) - middle**2) / (units + 2))
            sides = Interval(max(-1.0, middle - half), min(1.0, middle + half), confidence)
            found.append(sides if units else None)
        return tuple(found)

    def with_seeds(self, seeds: PairedDifference) -> Interval | None:
        """Return the interval with both doubts, of the seeds and of the test samples; None for one seed."""
        if seeds.sd is None or seeds.low is None or seeds.high is None:
            return None
        test = NormalDist().inv_cdf((1 + self.interval.confidence) / 2) * self.standard_error
        half = math.hypot((seeds.high - seeds.low) / 2, test)
        return Interval(seeds.mean - half, seeds.mean + half, self.interval.confidence)


def paired_on_test(
    first: object,
    second: object,
    targets: object,
    *,
    groups: object = None,
    weights: Sequence[float] | npt.ArrayLike | None = None,
    confidence: float = 0.95,
) -> TestDifference:
    """Compare the predictions of two methods on one test set.

    Args:
        first: Predicted classes, integers of shape (N,); of several runs, such as seeds, shape (R, N).
        second: Of the other method, for the same samples in the same order; of as many runs.
        targets: True classes, integers of shape (N,).
        groups: One a sample: samples of one group (a patient, a track) count as one.
        weights: Of each class in the error, >= 0, in any scale; None weighs them all the same, which makes
            it the balanced error.
        confidence: Of the interval, strictly between 0 and 1.

    Returns:
        The difference of their errors, and how sure the test samples are of it. A class with one sample, or
        group, shows no spread; it is taken to have that of a class where the two differ half the time. Of
        several runs each sample counts with its mean, so that the interval is that of the test samples, and
        the runs' own spread is for `paired_difference`.

    Raises:
        TypeError: Classes that are no integers.
        ValueError: Lengths that differ, or no class with weight that has samples.

    Example:
        >>> found = paired_on_test([0, 0, 1, 1], [0, 1, 1, 0], [0, 0, 1, 1])
        >>> found.difference, found.per_class
        (-0.5, ((0, 1), (0, 1)))

    Source:
        McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika
        1947.
    """
    confidence = checked_confidence(confidence)
    _arrays.check_index({"first": first, "second": second, "targets": targets, "groups": groups})
    for name, given in (("first", first), ("second", second), ("targets", targets)):
        if (kind := as_numpy(name, given).dtype).kind not in "biuf":
            raise TypeError(
                f"{name} must be class indices, got {kind}; number the classes: logits.argmax(1), or "
                "numpy.unique(labels, return_inverse=True)[1]"
            )
    size = 1 + max(int(as_numpy("predictions", x).max(initial=0)) for x in (first, second, targets))
    shares = None if weights is None else np.asarray(weights, dtype=np.float64)
    if shares is not None:
        if shares.ndim != 1 or len(shares) < size or not (np.isfinite(shares) & (shares >= 0)).all():
            raise ValueError(f"weights must be one number >= 0 for each of {size} classes, got {weights!r}")
        size = len(shares)
    truth = read_labels("targets", targets, size)
    one, other = _runs("first", first, truth, size), _runs("second", second, truth, size)
    if one.shape != other.shape:
        raise ValueError(
            f"second must have the runs of first, {len(one)}, got {len(other)}; pair them by seed"
        )
    ids = np.arange(len(truth)) if groups is None else group_numbers(groups, len(truth))
    gaps = ((one != truth).sum(axis=0) - (other != truth).sum(axis=0, dtype=np.float64)) / len(one)
    samples = np.bincount(truth, minlength=size)
    present = samples > 0
    share = present.astype(np.float64) if shares is None else shares * present
    if not share.sum():
        raise ValueError("weights are 0 for every class that has test samples; nothing says their error")
    share /= share.sum()
    means = np.bincount(truth, weights=gaps, minlength=size) / np.maximum(samples, 1)
    # what the samples of one group differ from their class's mean adds up before it is squared
    cells, of_cell = np.unique(truth * (ids.max() + 1) + ids, return_inverse=True)
    rest = np.bincount(of_cell.reshape(-1), weights=gaps - means[truth])
    classes = cells // (ids.max() + 1)
    units = np.bincount(classes, minlength=size)
    whole = np.bincount(of_cell.reshape(-1), weights=gaps) * (units / np.maximum(samples, 1))[classes]
    moments = (units, *(np.bincount(classes, weights=whole**k, minlength=size) for k in (1, 2)))
    squares = np.bincount(classes, weights=rest**2, minlength=size)
    spread = units / np.maximum(units - 1, 1) * squares / np.maximum(samples, 1) ** 2
    variance = np.where(units > 1, spread, 0.5)
    lost = np.bincount(truth[gaps > 0], minlength=size)
    won = np.bincount(truth[gaps < 0], minlength=size)
    found = TestDifference(
        float(share @ means),
        math.sqrt(float(share**2 @ variance)),
        Interval(0.0, 0.0, confidence),
        tuple(zip(lost.tolist(), won.tolist(), strict=True)),
        tuple(samples.tolist()),
        tuple(zip(*(column.tolist() for column in moments), strict=True)),
    )
    return found.at(confidence)


def _runs(name: str, given: object, truth: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    values = as_numpy(name, given)
    runs = values[np.newaxis] if values.ndim == 1 else values
    if runs.ndim != 2 or runs.shape[1] != len(truth) or not len(runs):
        raise ValueError(
            f"{name} must be one a target, {len(truth)}, got "
            f"{values.shape[0] if values.ndim == 1 else values.shape}"
        )
    return read_labels(name, runs.reshape(-1), size).reshape(runs.shape)


def _mcnemar(lost: int, won: int) -> float:
    """Two-sided exact p-value of as many discordant pairs, a fair coin deciding each."""
    n, few = lost + won, min(lost, won)
    tail: int = sum(math.comb(n, k) for k in range(few + 1))
    p_value: float = 2 * tail / 2**n
    return min(1.0, p_value)
