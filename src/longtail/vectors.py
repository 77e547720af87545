"""Class counts -> the per-class vectors of a method: weights, offsets, scales and margins.

For a sample of class y with logits z, losses for long tails are ``w_y * loss(s * z + a - m_y * onehot_y)``.
Each rule is a function ``(counts, *, settings) -> float64 of shape (C,)``, an offset's also of the weights,
``(counts, weight, *, settings)``. It is registered under the name that methods, recipes and the command line
use; a package of your own adds one by ``WEIGHTS.register``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from longtail import _checks
from longtail._registry import Registry
from longtail.adjust import class_sizes, effective_prior, logit_shift
from longtail.weights import DEFAULT_BETA, class_weights

__all__ = ["MARGINS", "OFFSETS", "SCALES", "WEIGHTS", "Vector", "VectorRule"]

Vector = npt.NDArray[np.float64]
VectorRule = Callable[..., Vector]

WEIGHTS: Final = Registry[VectorRule]("weight")
OFFSETS: Final = Registry[VectorRule]("offset")
SCALES: Final = Registry[VectorRule]("scale")
MARGINS: Final = Registry[VectorRule]("margin")


def none(counts: object) -> Vector:
    """Return 1 for every class with samples."""
    return np.asarray(class_weights(counts, "none"))


def inverse(counts: object) -> Vector:
    """Return weights proportional to 1 / n that sum to the number of classes with samples."""
    return np.asarray(class_weights(counts, "inverse"))


def inverse_sqrt(counts: object) -> Vector:
    """Return weights proportional to 1 / sqrt(n) that sum to the number of classes with samples."""
    return np.asarray(class_weights(counts, "inverse_sqrt"))


def effective(counts: object, *, beta: float = float(DEFAULT_BETA)) -> Vector:
    """Return weights proportional to 1 / E_n, as `longtail.class_weights` does.

    Source: Cui et al. (CVPR 2019), section 4.
    """
    return np.asarray(class_weights(counts, "effective", beta=beta))


def power(counts: object, *, power: float = 0.5) -> Vector:
    """Return weights proportional to 1 / n^power that sum to the number of classes with samples."""
    return np.asarray(class_weights(counts, "power", power=power))


def log_prior(
    counts: object,
    weight: object,
    *,
    tau: float = 1.0,
    num_samples: int | None = None,
    activation: str = "softmax",
) -> Vector:
    """Return ``tau * log(n / N)``; an empty class has the offset of the smallest one with samples.

    For the sigmoid losses, where each class has an output of its own, it is ``tau * log(n / (N - n))``. Two
    classes keep the former, whose difference is the log-odds of one output.

    Of many labels a sample, whose number of samples is given, it is ``tau * log(n / (N - n))``: each label's
    own log-odds.

    With the softmax loss and tau 1 this is balanced softmax, and the logits of the trained network answer for
    classes that are all as frequent.

    Source: Menon et al. (ICLR 2021), equation 10; Ren et al. (NeurIPS 2020), "balanced softmax".
    """
    tau = _checks.number("tau", tau, low=0.0, open_high=True, remedy="1 is balanced softmax, 0 does nothing")
    if num_samples is not None:
        return -logit_shift(counts, activation="sigmoid", num_samples=num_samples, tau=tau)
    return tau * _of_outputs(effective_prior(counts), activation)


def log_weighted_prior(counts: Any, weight: Any, *, activation: str = "softmax") -> Vector:
    """Return ``log(w n)`` up to a constant: with it any weight leads to the same decisions in the end.

    For the sigmoid losses it is the log-odds of these shares, as in `log_prior`.

    A wrong weight then costs variance, not bias. Of this house, not published.
    """
    return _of_outputs(effective_prior(counts, weight=weight), activation)


def _of_outputs(shares: Vector, activation: str) -> Vector:
    """What shares add to outputs that compete, or that are a yes or no each."""
    if activation == "softmax" or len(shares) < 3:
        return np.log(shares)
    return np.log(shares) - np.log1p(-shares)


def class_dependent_temperature(counts: object, *, gamma: float = 0.2) -> Vector:
    """Return ``(n / n_max)^gamma``: the logits of rare classes are made smaller while training.

    Source: Ye et al. (2020), "class-dependent temperatures"; Kini et al. (NeurIPS 2021), vector scaling.
    """
    gamma = _checks.number("gamma", gamma, low=0.0, open_high=True, remedy="0.2 is usual")
    sizes = _filled(counts)
    scale: Vector = (sizes / sizes.max()) ** gamma
    return scale


def _filled(counts: object) -> Vector:
    """Counts of the classes, of an empty one those of the smallest with samples."""
    sizes = class_sizes(counts)
    return np.where(sizes > 0, sizes, sizes[sizes > 0].min())


def ldam(counts: object, *, top: float = 0.5) -> Vector:
    """Return margins proportional to n^(-1/4), the largest one being `top`.

    Source: Cao et al. (NeurIPS 2019); there the logits are cosines, scaled by 30 afterwards.
    """
    top = _checks.number("top", top, low=0.0, open_high=True, remedy="0.5 is usual")
    sizes = _filled(counts)
    margin: Vector = top * (sizes.min() / sizes) ** 0.25
    return margin


OFFSETS.register("log_prior", log_prior)
OFFSETS.register("log_weighted_prior", log_weighted_prior)
SCALES.register("class_dependent_temperature", class_dependent_temperature)
MARGINS.register("ldam", ldam)

for _rule in (none, inverse, inverse_sqrt, effective, power):
    WEIGHTS.register(_rule.__name__, _rule)
