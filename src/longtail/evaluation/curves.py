"""Precision by recall and ROC of one class against the rest, ties of scores counted as one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Curve"]

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
    def of(cls, scores: npt.NDArray[Any], positive: npt.NDArray[Any]) -> Curve:
        """Count along the scores, none of which is NaN."""
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
