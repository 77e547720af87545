"""How sure a test set is of an error, class by class and in the mean, where a class has three samples."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from statistics import NormalDist
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail import _checks

__all__ = ["Interval", "jeffreys_interval", "mean_interval", "wilson_interval"]

Floats = npt.NDArray[np.float64]

FEW_CLASSES = 30  # up to here MOVER covers better, beyond it one beta distribution; tests/test_intervals.py
THIN = 5  # test samples of a class below which nothing is sure


class Interval(tuple[float, float]):
    """Both ends of an interval, and how sure it is: ``low, high = interval``.

    Attributes:
        low: the lower end.
        high: the upper end.
        confidence: how often such intervals hold what is true.

    Example:
        >>> low, high = Interval(0.1, 0.4)
        >>> low, high, Interval(0.1, 0.4).confidence
        (0.1, 0.4, 0.95)
    """

    confidence: float

    def __new__(cls, low: float, high: float, confidence: float = 0.95) -> Interval:
        """Make one of its ends."""
        made = super().__new__(cls, (float(low), float(high)))
        made.confidence = float(confidence)
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (*self, self.confidence)

    @property
    def low(self) -> float:
        """The lower end."""
        return self[0]

    @property
    def high(self) -> float:
        """The upper end."""
        return self[1]

    def __repr__(self) -> str:
        return f"Interval({self.low:.6g}, {self.high:.6g}, confidence={self.confidence:g})"


def units_text(groups: int | None) -> str:
    """Say what intervals count: "the test samples", or how many groups of them."""
    return "the test samples" if groups is None else f"{_of_groups(groups)} of test samples"


def in_groups_text(groups: int | None) -> str:
    """Say in how many groups samples come, behind their number; empty where there are none."""
    return "" if groups is None else f" in {_of_groups(groups)}"


def in_independent_text(units: float) -> str:
    """Say how many independent groups some samples come in, behind their number."""
    number = f"{units:.3g}"
    return f" in {number} independent group{'s' * (number != '1')}"


def _of_groups(groups: int) -> str:
    return f"{groups:,} {'group' if groups == 1 else 'groups'}"


def wilson_interval(k: float, m: float, confidence: float = 0.95) -> Interval | None:
    """Return Wilson's score interval of a share: k of m.

    Args:
        k: how many, from 0 to m; a fraction where samples count in part.
        m: of how many; 0 gives None.
        confidence: of the interval, strictly between 0 and 1.

    Returns:
        Both ends, within 0 and 1; None for m = 0.

    Raises:
        ValueError: k outside 0..m, or a confidence out of range.

    Example:
        >>> wilson_interval(0, 3)
        Interval(0, 0.561497, confidence=0.95)

    Source:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    z = NormalDist().inv_cdf((1 + checked_confidence(confidence)) / 2)
    m = _checks.number("m", m, low=0, open_high=True)
    k = _checks.number("k", k, low=0, high=m)
    if m == 0:
        return None
    share, spread = k / m, z * z / m
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    low = 0.0 if k == 0 else max(0.0, middle - half)
    high = 1.0 if k == m else min(1.0, middle + half)
    return Interval(low, high, confidence)


def jeffreys_interval(k: float, m: float, confidence: float = 0.95) -> Interval | None:
    """Return Jeffreys' interval of a share: quantiles of Beta(k + 1/2, m - k + 1/2); 0 and 1 where k is.

    Args:
        k: as for `wilson_interval`, and so are m and confidence.
        m: see `wilson_interval`.
        confidence: see `wilson_interval`.

    Returns:
        Both ends; None for m = 0.

    Raises:
        ValueError: as `wilson_interval`.
        ModuleNotFoundError: SciPy is not installed.

    Example:
        >>> jeffreys_interval(0, 3)
        Interval(0, 0.535583, confidence=0.95)

    Source:
        Brown, Cai, DasGupta, "Interval Estimation for a Binomial Proportion", Statistical Science 2001.
    """
    confidence = checked_confidence(confidence)
    m = _checks.number("m", m, low=0, open_high=True)
    k = _checks.number("k", k, low=0, high=m)
    if m == 0:
        return None
    low, high = _jeffreys(np.array([k / m]), np.array([m]), confidence)
    return Interval(float(low[0]), float(high[0]), confidence)


def mean_interval(
    shares: Sequence[float] | npt.ArrayLike,
    samples: Sequence[float] | npt.ArrayLike,
    weights: Sequence[float] | npt.ArrayLike | None = None,
    confidence: float = 0.95,
) -> Interval | None:
    """Return the interval of a mean of classes' shares, such as balanced error, each from its own samples.

    Up to 30 classes, Jeffreys' intervals of the classes are combined by MOVER: the squares of their distances
    to the shares add up, below and above apart. With more classes their skewness adds up too, and quantiles
    of one beta distribution cover better: its variance is the classes' with m - 1, and each end allows for
    one more sample, right or wrong, of average weight, without which a nearly perfect classifier looks too
    sure. Where that variance is 0, MOVER answers. The bootstrap of samples covers less: a class without a
    wrong sample never gets one.

    Args:
        shares: of each class, from 0 to 1, shape (C,).
        samples: independent ones of each class, such as samples, or patients; classes of 0 are left out.
        weights: of each class, >= 0, in any scale; None weighs them all the same. Thirty classes are counted
            as ``(sum of weights)^2 / (sum of squares)``.
        confidence: of the interval, strictly between 0 and 1.

    Returns:
        Both ends, within 0 and 1; None where no class with weight has samples.

    Raises:
        ValueError: lengths that differ, values out of range, or a confidence out of range.
        ModuleNotFoundError: SciPy is not installed.

    Example:
        >>> mean_interval([0.02, 0.5], [500, 4])
        Interval(0.071315, 0.448776, confidence=0.95)

    Source:
        Zou and Donner, "Construction of confidence limits about effect measures", Statistics in Medicine
        2008 (MOVER). Fay and Feuer, "Confidence intervals for directly standardized rates", Statistics in
        Medicine 1997: one more event for the upper end, there of a gamma distribution.
    """
    confidence = checked_confidence(confidence)
    share = np.asarray(shares, dtype=np.float64)
    size = np.asarray(samples, dtype=np.float64)
    weight = np.ones(share.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    if share.ndim != 1 or size.shape != share.shape or weight.shape != share.shape:
        raise ValueError(
            f"shares, samples and weights must be one number a class, got shapes {share.shape}, {size.shape} "
            f"and {weight.shape}"
        )
    here = (size > 0) & (weight > 0)
    share, size, weight = share[here], size[here], weight[here]
    if not ((share >= 0) & (share <= 1)).all() or not np.isfinite(weight).all():
        raise ValueError("shares must lie in [0, 1] and weights be finite; leave out what is n/a")
    if not len(share):
        return None
    weight = weight / weight.sum()
    mean = float(weight @ share)
    if 1 / float((weight**2).sum()) > FEW_CLASSES:
        variance = share * (1 - share) / np.maximum(size - 1, 1)
        variance[size <= 1] = mean * (1 - mean)  # one sample shows no spread: that of a class of the mean
        spread, one = float((weight**2 * variance).sum()), float((weight / size).mean())
        if spread:
            down, up = one * mean, one * (1 - mean)
            return Interval(
                _beta_quantile(mean - down, spread + down**2, (1 - confidence) / 2),
                _beta_quantile(mean + up, spread + up**2, (1 + confidence) / 2),
                confidence,
            )
    low, high = _jeffreys(share, size, confidence)
    below = math.sqrt(float((weight**2 * (share - low) ** 2).sum()))
    above = math.sqrt(float((weight**2 * (high - share) ** 2).sum()))
    return Interval(max(0.0, mean - below), min(1.0, mean + above), confidence)


def checked_confidence(confidence: float) -> float:
    """Refuse a confidence outside (0, 1)."""
    return _checks.number(
        "confidence", confidence, low=0, high=1, open_low=True, open_high=True, remedy="0.95 is customary"
    )


def _jeffreys(share: Floats, size: Floats, confidence: float) -> tuple[Floats, Floats]:
    right, rest = share * size + 0.5, (1 - share) * size + 0.5
    tail = (1 - confidence) / 2
    quantile = _special().betaincinv
    low = np.where(share <= 0, 0.0, quantile(right, rest, tail))
    high = np.where(share >= 1, 1.0, quantile(right, rest, 1 - tail))
    return low, high


def _beta_quantile(mean: float, variance: float, at: float) -> float:
    """Quantile of the beta distribution of this mean and variance; an end of [0, 1] where there is none."""
    if not 0 < mean < 1 or (size := mean * (1 - mean) / variance - 1) <= 0:
        return 0.0 if at < 0.5 else 1.0
    return float(_special().betaincinv(mean * size, (1 - mean) * size, at))


def _special() -> ModuleType:
    try:
        return importlib.import_module("scipy.special")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the interval of balanced error needs SciPy; install it with: pip install 'longtail[train]'; "
            "intervals of single classes (Wilson's) need none",
            name=error.name,
        ) from error
