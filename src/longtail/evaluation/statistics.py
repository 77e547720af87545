"""Statistics of runs: spread over seeds, differences paired by seed, the correction for many tests."""

from __future__ import annotations

import importlib
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy.typing as npt

from longtail import _checks
from longtail._arrays import as_numpy


def bonferroni(confidence: float, tests: int) -> float:
    """Return the confidence that each of several tests needs, so that all hold together with `confidence`.

    Args:
        confidence: Of all tests together, strictly between 0 and 1.
        tests: Their number, at least 1.

    Returns:
        The confidence of one interval.

    Raises:
        ValueError: A confidence or number out of range.

    Example:
        >>> round(bonferroni(0.95, 5), 4)
        0.99

    Source:
        Dunn, "Multiple Comparisons Among Means", JASA 1961.
    """
    return 1.0 - (1.0 - _confidence(confidence)) / _checks.integer("tests", tests, low=1)


@dataclass(frozen=True)
class Summary:
    """Mean and spread of one number over seeds.

    Attributes:
        mean: Mean.
        sd: Sample standard deviation (divisor n - 1); None for one value.
        n: Number of values.
        low: Lower end of the t interval of the mean; None for one value.
        high: Upper end.
        confidence: Confidence of the interval.
    """

    mean: float
    sd: float | None
    n: int
    low: float | None
    high: float | None
    confidence: float = 0.95


@dataclass(frozen=True)
class PairedDifference:
    """Mean and spread over seeds of values minus baseline, each pair from one seed.

    Attributes:
        mean: Mean difference; negative where the values are smaller than the baseline.
        sd: Sample standard deviation of the differences; None for one pair.
        n: Number of pairs.
        low: Lower end of the t interval of the mean difference; None for one pair.
        high: Upper end.
        p_value: Of the two-sided paired t test; None for one pair.
        confidence: Confidence of the interval.
    """

    mean: float
    sd: float | None
    n: int
    low: float | None
    high: float | None
    p_value: float | None
    confidence: float = 0.95

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0; never for one pair."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def summarize(
    values: Sequence[float] | npt.ArrayLike, confidence: float = 0.95, *, test_to_train: float = 0.0
) -> Summary:
    """Mean, standard deviation and t interval of one number measured over seeds or folds.

    Args:
        values: Finite numbers of shape (n,), one per seed or fold.
        confidence: Of the interval, strictly between 0 and 1.
        test_to_train: As in `paired_difference`.

    Returns:
        The summary; without spread and interval for one value, and with an interval of length 0 for equal
        values.

    Raises:
        TypeError: A value is no number.
        ValueError: No values, None or a non-finite number among them, or a confidence out of range.
        ModuleNotFoundError: SciPy, which comes with scikit-learn, is not installed.

    Example:
        >>> result = summarize([0.2, 0.3, 0.4])
        >>> round(result.mean, 3), round(result.sd, 3), round(result.low, 3), round(result.high, 3)
        (0.3, 0.1, 0.052, 0.548)
    """
    confidence = _confidence(confidence)
    numbers = _finite("values", values)
    mean, sd, low, high = _interval(numbers, confidence, _ratio(test_to_train))
    return Summary(mean, sd, len(numbers), low, high, confidence)


def paired_difference(
    values: Sequence[float] | npt.ArrayLike,
    baseline: Sequence[float] | npt.ArrayLike,
    confidence: float = 0.95,
    *,
    test_to_train: float = 0.0,
) -> PairedDifference:
    """Compare two methods over the same seeds, or folds, by the paired t test.

    Args:
        values: Finite numbers of shape (n,), one per seed or fold.
        baseline: The baseline's numbers for the same seeds in the same order.
        confidence: Of the interval, strictly between 0 and 1.
        test_to_train: For folds of one data set: test samples over training samples of a fold, 1 / (K - 1)
            for K folds, however often they are repeated. The trainings share samples, so that the plain t
            test is far too sure; the variance of the mean is the values' own times 1 / n + test_to_train. 0
            for runs that share nothing.

    Returns:
        Statistics of values - baseline. A difference within the rounding of its operands counts as 0. If
        all differences are equal the interval has length 0 and the p-value is 0, or 1 if they are 0.

    Raises:
        TypeError: A value is no number.
        ValueError: As in `summarize`, or different lengths.
        ModuleNotFoundError: SciPy, which comes with scikit-learn, is not installed.

    Example:
        >>> paired_difference([0.2, 0.3, 0.2], [0.4, 0.4, 0.5]).significant
        False

    Source:
        Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003: the corrected
        resampled t test.
    """
    confidence = _confidence(confidence)
    ours, theirs = _finite("values", values), _finite("baseline", baseline)
    if len(ours) != len(theirs):
        raise ValueError(
            f"baseline must have the {len(ours)} elements of values, got {len(theirs)}; pair them by seed"
        )
    differences = [
        0.0 if abs(a - b) <= 4 * math.ulp(max(abs(a), abs(b))) else a - b
        for a, b in zip(ours, theirs, strict=True)
    ]
    ratio = _ratio(test_to_train)
    mean, sd, low, high = _interval(differences, confidence, ratio)
    return PairedDifference(mean, sd, len(ours), low, high, _p_value(mean, sd, len(ours), ratio), confidence)


def interval_text(d: PairedDifference | None, scale: float = 100, digits: int = 1) -> str:
    """Write a paired difference in points, with its interval where there is one.

    Args:
        d: the difference; None is written as nothing.
        scale: what it is multiplied by: 100 for shares, 1 for what is in percent already.
        digits: behind the point.

    Returns:
        The text.

    Example:
        >>> interval_text(paired_difference([0.2, 0.3, 0.2], [0.4, 0.4, 0.5]))
        '-20.0 [-44.8, +4.8]'
    """
    if d is None:
        return ""
    mean, low, high = ("" if x is None else signed(scale * x, digits) for x in (d.mean, d.low, d.high))
    return f"{mean} [{low}, {high}]" if low and high else mean


def signed(value: float, digits: int = 1) -> str:
    """Write a number with its sign; what would round to zero gets up to two digits more, never "-0.0".

    Args:
        value: the number.
        digits: behind the point.

    Example:
        >>> signed(-0.04), signed(-0.0), signed(12.34), signed(-1e-9)
        ('-0.04', '+0.0', '+12.3', '+0.0')
    """
    for more in range(digits, digits + 3):
        if float(text := f"{value:+.{more}f}"):
            return text
    return f"{0.0:+.{digits}f}"


def _confidence(confidence: float) -> float:
    return _checks.number(
        "confidence", confidence, low=0, high=1, open_low=True, open_high=True, remedy="0.95 is customary"
    )


def _finite(name: str, values: object) -> list[float]:
    array = as_numpy(name, values)
    if array.ndim != 1 or not array.size:
        raise ValueError(
            f"{name} must have shape (n,) with n at least 1, got {array.shape}; give one number per seed"
        )
    for position, value in enumerate(array.tolist()):
        if value is None:
            raise ValueError(f"{name} holds None (n/a) at position {position}; leave out what is n/a")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} holds {value!r} at position {position}; give one number per seed")
        if not math.isfinite(value):
            raise ValueError(f"{name} holds {value} at position {position}; leave out the seed that failed")
    return [float(value) for value in array.tolist()]


def _ratio(test_to_train: float) -> float:
    remedy = "1 / (K - 1) for K folds, 0 for runs that share nothing"
    return _checks.number("test_to_train", test_to_train, low=0.0, open_high=True, remedy=remedy)


def _interval(
    values: list[float], confidence: float, ratio: float
) -> tuple[float, float | None, float | None, float | None]:
    """Mean, standard deviation, and both ends of the t interval of the mean."""
    # statistics computes in exact fractions: equal values give their own mean and a deviation of exactly 0
    mean = statistics.mean(values)
    if len(values) == 1:
        return mean, None, None, None
    sd = statistics.stdev(values)
    n = len(values)
    half = float(_special().stdtrit(n - 1, (1 + confidence) / 2)) * sd / math.sqrt(_effective(n, ratio))
    return mean, sd, mean - half, mean + half


def _effective(n: int, ratio: float) -> float:
    """How many runs that share nothing would say as much; n itself, to the last bit, where none do."""
    return n / (1 + n * ratio)


def _p_value(mean: float, sd: float | None, n: int, ratio: float) -> float | None:
    if sd is None:
        return None
    if sd == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * _special().stdtr(n - 1, -abs(mean) / sd * math.sqrt(_effective(n, ratio))))


def _special() -> ModuleType:
    # Student's t from scipy.special: scipy.stats gives the same bits, a thousand times slower with its import
    try:
        return importlib.import_module("scipy.special")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "statistics over seeds need SciPy; install it with: pip install 'longtail[train]'",
            name=error.name,
        ) from error
