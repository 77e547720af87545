"""Class counts -> the per-class vectors of a method: weights, offsets, scales and margins.

For a sample of class y with logits z, losses for long tails are ``w_y * loss(s * z + a - m_y * onehot_y)``.
Each rule is a function ``(counts, *, settings) -> float64 of shape (C,)``, registered under the name that
methods, recipes and the command line use; a package of your own adds one by ``WEIGHTS.register``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from longtail._registry import Registry
from longtail.weights import DEFAULT_BETA, class_weights

__all__ = ["MARGINS", "OFFSETS", "SCALES", "WEIGHTS", "Vector", "VectorRule"]

Vector = npt.NDArray[np.float64]
VectorRule = Callable[..., Vector]

WEIGHTS: Final = Registry[VectorRule]("weight")
OFFSETS: Final = Registry[VectorRule]("offset")
SCALES: Final = Registry[VectorRule]("scale")
MARGINS: Final = Registry[VectorRule]("margin")


def none(counts: Any) -> Vector:
    """Return 1 for every class with samples."""
    return np.asarray(class_weights(counts, "none"))


def inverse(counts: Any) -> Vector:
    """Return weights proportional to 1 / n that sum to the number of classes with samples."""
    return np.asarray(class_weights(counts, "inverse"))


def inverse_sqrt(counts: Any) -> Vector:
    """Return weights proportional to 1 / sqrt(n) that sum to the number of classes with samples."""
    return np.asarray(class_weights(counts, "inverse_sqrt"))


def effective(counts: Any, *, beta: float = float(DEFAULT_BETA)) -> Vector:
    """Return weights proportional to 1 / E_n, as `longtail.class_weights` does.

    Source: Cui et al. (CVPR 2019), section 4.
    """
    return np.asarray(class_weights(counts, "effective", beta=beta))


for _rule in (none, inverse, inverse_sqrt, effective):
    WEIGHTS.register(_rule.__name__, _rule)
