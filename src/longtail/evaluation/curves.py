"""Precision by recall and ROC of one class against the rest, ties of scores counted as one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail import _arrays

__all__ = ["Curve", "MacroCurves", "macro_curves"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Curve:
    """What becomes of one class at every threshold, from the highest score down.

    Attributes:
        thresholds: shape (k,), falling: a sample is taken for the class from this score on.
        found: samples of the class among those taken, shape (k,).
        taken: samples taken, shape (k,).
        positives: samples of the class.
        samples: all of them.

    Example:
        >>> import numpy as np
        >>> curve = Curve.of(np.array([0.9, 0.8, 0.3]), np.array([True, False, True]))
        >>> curve.precision.round(2).tolist(), curve.recall.tolist()
        ([1.0, 0.5, 0.67], [0.5, 0.5, 1.0])
        >>> round(curve.average_precision, 3), curve.roc_auc
        (0.833, 0.5)
    """

    thresholds: Floats
    found: Integers
    taken: Integers
    positives: int
    samples: int

    @classmethod
    def of(cls, scores: Any, positive: Any) -> Curve:
        """Count along the scores.

        Args:
            scores: numbers of shape (N,), none of which is NaN, and one at least.
            positive: of which samples the class is true: bool, or 0 and 1, of shape (N,).

        Raises:
            TypeError: scores that are no numbers.
            ValueError: other values or shapes.
        """
        _arrays.check_index({"scores": scores, "positive": positive})
        scores, positive = _arrays.as_numpy("scores", scores), _arrays.as_numpy("positive", positive)
        if scores.dtype.kind not in "biuf":
            raise TypeError(f"scores must be numbers, got {scores.dtype}; give a score a sample")
        if scores.ndim != 1 or scores.shape != positive.shape or not len(scores) or np.isnan(scores).any():
            raise ValueError(
                f"scores and positive must be one number a sample, none of them NaN, got shapes "
                f"{scores.shape} and {positive.shape}; give one class's column"
            )
        if positive.dtype.kind != "b" and not np.isin(positive, (0, 1)).all():
            raise ValueError("positive must be 0 and 1, or bool; give labels == the class")
        scores = scores.astype(np.int64) if scores.dtype.kind in "bu" else scores  # which have no minus
        order = np.argsort(-scores, kind="stable")
        falling = scores[order]
        ends = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(falling) - 1)
        found = np.cumsum(positive[order].astype(np.int64))
        return cls(falling[ends], found[ends], ends + 1, int(found[-1]), len(scores))

    @property
    def precision(self) -> Floats:
        """Share of those taken that are of the class."""
        return np.asarray(self.found / self.taken)

    @property
    def recall(self) -> Floats:
        """Share of the class that is taken; NaN where the class has no sample."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.found / np.float64(self.positives))

    @property
    def false_positive_rate(self) -> Floats:
        """Share of the rest that is taken; NaN where there is no rest."""
        with np.errstate(invalid="ignore"):
            return np.asarray((self.taken - self.found) / np.float64(self.samples - self.positives))

    @property
    def f1(self) -> Floats:
        """Harmonic mean of precision and recall."""
        return np.asarray(2 * self.found / (self.taken + self.positives))

    @property
    def average_precision(self) -> float | None:
        """Sum of precision times the step of recall, as in scikit-learn; None for a class without samples."""
        if not self.positives:
            return None
        steps = np.diff(self.found, prepend=0)
        return float((steps * self.precision).sum() / self.positives)

    @property
    def roc_auc(self) -> float | None:
        """Area under the ROC curve, ties half; None where all samples are of one kind."""
        rest = self.samples - self.positives
        if not self.positives or not rest:
            return None
        steps = np.diff(self.found, prepend=0)
        others = self.taken - self.found
        before = np.concatenate([[0], others[:-1]])
        # pairs in which the class's sample does not score above the other
        lost = float((steps * before).sum() + (steps * (others - before)).sum() / 2)
        return 1 - lost / (self.positives * rest)

    def precision_at(self, recall: npt.ArrayLike) -> Floats:
        """Return the precision where recalls are first reached; NaN for a class without samples."""
        wanted = np.asarray(recall, dtype=np.float64)
        if not self.positives:
            return np.full(wanted.shape, np.nan)
        needed = np.clip(np.ceil(wanted * self.positives - 1e-9), 1, self.positives)
        return np.asarray(self.precision[np.searchsorted(self.found, needed)])

    def recall_at(self, false_positive_rate: npt.ArrayLike) -> Floats:
        """Return the recall at shares of the rest, linear between steps; NaN where one kind is missing."""
        wanted = np.asarray(false_positive_rate, dtype=np.float64)
        if not 0 < self.positives < self.samples:
            return np.full(wanted.shape, np.nan)
        x = np.concatenate([[0.0], self.false_positive_rate])
        y = np.concatenate([[0.0], self.recall])
        before = np.searchsorted(x, wanted, side="right") - 1
        after = np.minimum(before + 1, len(x) - 1)
        step = np.where(x[after] > x[before], x[after] - x[before], 1)
        return np.asarray(y[before] + (y[after] - y[before]) * (wanted - x[before]) / step)


@dataclass(frozen=True, eq=False)
class MacroCurves:
    """Mean curves of some classes, each of which counts the same.

    Attributes:
        grid: recalls of `precision`, and shares of the rest of `recall`, from 0 to 1.
        precision: mean of the classes' precision where a recall is first reached.
        recall: mean of the classes' recall at a share of the rest that is taken: the ROC curve.
        average_precision: mean over the classes with samples; None without any.
        roc_auc: mean over the classes for which it is known; None without any.
        classes: how many have samples.
    """

    grid: Floats
    precision: Floats
    recall: Floats
    average_precision: float | None
    roc_auc: float | None
    classes: int


def macro_curves(curves: Sequence[Curve], points: int = 101) -> MacroCurves:
    """Average curves of classes: precision at each recall, and recall at each share of the rest.

    Args:
        curves: one a class, as `class_curves` makes them; those without samples are left out.
        points: of the grid.

    Returns:
        The mean curves; NaN where no class has samples.

    Raises:
        ValueError: fewer than 2 points.

    Example:
        >>> import numpy as np
        >>> scores, truth = np.array([0.9, 0.8, 0.3]), np.array([True, False, True])
        >>> found = macro_curves([Curve.of(scores, truth), Curve.of(-scores, ~truth)], points=3)
        >>> found.precision.round(2).tolist(), found.recall.tolist(), found.classes
        ([0.75, 0.75, 0.58], [0.25, 0.75, 1.0], 2)
    """
    if points < 2:
        raise ValueError(f"points must be at least 2, got {points}")
    grid = np.linspace(0.0, 1.0, points)
    here = [curve for curve in curves if curve.positives]
    both = [curve for curve in here if curve.positives < curve.samples]
    nothing = np.full(points, np.nan)
    areas = [a for curve in here if (a := curve.average_precision) is not None]
    ranks = [a for curve in both if (a := curve.roc_auc) is not None]
    return MacroCurves(
        grid,
        np.mean([curve.precision_at(grid) for curve in here], axis=0) if here else nothing,
        np.mean([curve.recall_at(grid) for curve in both], axis=0) if both else nothing,
        float(np.mean(areas)) if areas else None,
        float(np.mean(ranks)) if ranks else None,
        len(here),
    )
