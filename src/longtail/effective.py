"""The effective number of samples, exact for any count, beta and volume.

Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019, section 3:
n samples of a class whose possible data fill a volume N cover, in expectation,
``E_n = (1 - beta**n) / (1 - beta)`` with ``beta = (N - 1) / N``.

Computed as written, ``1 - beta**n`` and ``1 - beta`` cancel for beta near 1. Here everything is
``-expm1(n * log(beta)) / (1 - beta)`` in float64, with the logarithm taken from whichever of
beta and N the caller gave.
"""

from __future__ import annotations

import math
from typing import Any

from longtail import _arrays, _checks


def effective_number(n: object, beta: object = None, *, volume: object = None) -> Any:
    """Return the effective number of samples ``E_n``: how much of a class ``n`` samples cover.

    ``E_n = (1 - beta**n) / (1 - beta) = N * (1 - (1 - 1/N)**n)``; it grows from 0 at n = 0 through 1
    at n = 1 towards the volume N = 1 / (1 - beta).

    Args:
        n: number of samples, real, >= 0 and finite: a scalar, a list, an array of any shape from a
            library that follows the array API (NumPy, torch, JAX, CuPy), or a mapping name -> number
            (dict, pandas Series, ClassCounts).
        beta: in [0, 1], a scalar or one value per entry of ``n``. 0 gives E_n = 1, 1 gives E_n = n.
        volume: N in [1, inf], instead of ``beta``; keeps its precision where beta would round to 1
            (N > 1e16). inf gives E_n = n.

    Returns:
        E_n in float64, of ``n``'s kind, shape and device; a float for a scalar, the same mapping for
        a mapping. (Where the array library has no float64 its widest float is used.)

    Raises:
        TypeError: ``n``, ``beta`` or ``volume`` is no number or array of numbers.
        ValueError: neither or both of ``beta`` and ``volume`` are given, a value is outside its range or
            NaN, or the lengths differ.

    Example:
        >>> effective_number([0, 1, 2, 3], beta=0.5).tolist()
        [0.0, 1.0, 1.5, 1.75]
        >>> effective_number(1000, volume=1e4)
        951.671064414...

    Source: section 3.2, proposition 3.1.
    """
    _check_exactly_one("effective_number", beta, volume)
    _arrays.refuse_weights("n", n)
    values, answer = _arrays.unwrap("n", n)
    _arrays.check_real("n", values, low=0.0, remedy="sample counts cannot be negative or infinite")
    beta, volume = _arrays.align("beta", beta, n), _arrays.align("volume", volume, n)
    return answer(evaluate(values, *parameters(values, beta, volume)))


def inverse_effective_number(effective: object, beta: object = None, *, volume: object = None) -> Any:
    """Return the number of samples ``n`` whose effective number is ``effective``.

    Args:
        effective: E_n, real, in [0, N); kinds as in :func:`effective_number`.
        beta: in (0, 1], scalar or one per entry.
        volume: N in (1, inf], instead of ``beta``.

    Returns:
        ``n = log(1 - effective / N) / log(beta)`` in float64, of ``effective``'s kind.

    Raises:
        TypeError: as in :func:`effective_number`.
        ValueError: ``effective`` is not below the volume, which no number of samples reaches.

    Example:
        >>> inverse_effective_number(1.75, beta=0.5)
        3.0
    """
    _check_exactly_one("inverse_effective_number", beta, volume)
    values, answer = _arrays.unwrap("effective", effective)
    _arrays.check_real(
        "effective", values, low=0.0, remedy="effective numbers cannot be negative or infinite"
    )
    beta, volume = _arrays.align("beta", beta, effective), _arrays.align("volume", volume, effective)
    log_beta, gap = parameters(values, beta, volume)
    xp = _arrays.namespace(values)
    share = values * gap
    if bool(xp.any(share >= 1.0)):
        worst = float(xp.max(values))
        raise ValueError(
            f"effective must be below the volume N = 1 / (1 - beta), which no number of samples reaches, "
            f"got up to {worst!r}; give a larger beta or volume"
        )
    limit = gap == 0.0
    safe = xp.where(limit, -xp.ones_like(log_beta), log_beta)
    number = xp.where(share < 1e-17, values * (-gap / safe), xp.log1p(-share) / safe)
    return answer(xp.where(limit, values, number))


def beta_to_volume(beta: float) -> float:
    """Return N = 1 / (1 - beta), in [1, inf], for beta in [0, 1].

    >>> beta_to_volume(0.75)
    4.0
    """
    beta = _checks.number("beta", beta, low=0.0, high=1.0)
    return math.inf if beta == 1.0 else 1.0 / (1.0 - beta)


def volume_to_beta(volume: float) -> float:
    """Return beta = (N - 1) / N, in [0, 1], for a volume N in [1, inf].

    >>> volume_to_beta(4.0)
    0.75
    """
    volume = _checks.number("volume", volume, low=1.0)
    return 1.0 if math.isinf(volume) else (volume - 1.0) / volume


def parameters(values: object, beta: object, volume: object) -> tuple[Any, Any]:
    """Return log(beta) and 1 - beta, each accurate to rounding: 0-d, or of ``values``' shape."""
    xp = _arrays.namespace(values)
    if beta is not None:
        b = _arrays.parameter("beta", beta, values, 0.0, 1.0, "a volume N = 1 / (1 - beta) goes to volume=")
        zero, gap = b == 0.0, 1.0 - b
        log_beta = xp.log(xp.where(zero, xp.ones_like(b), b))
    else:
        v = _arrays.parameter("volume", volume, values, 1.0, math.inf, "a beta in [0, 1] goes to beta=")
        zero, gap = v == 1.0, 1.0 / v
        # below 2, 1 - 1/N would cancel, while N - 1 is exact
        small = v < 2.0
        low = xp.where(small & ~zero, v, xp.full_like(v, 1.5))
        log_beta = xp.log1p(-xp.where(small, xp.zeros_like(gap), gap))
        log_beta = xp.where(small, xp.log((low - 1.0) / low), log_beta)
    return xp.where(zero, xp.full_like(log_beta, -math.inf), log_beta), gap


def evaluate(values: Any, log_beta: Any, gap: Any) -> Any:
    """Return E_n from :func:`parameters`; the limits beta = 0 and beta = 1 are exact."""
    xp = _arrays.namespace(values)
    lowest, limit = xp.isinf(log_beta), gap == 0.0
    rate = xp.where(lowest, -xp.ones_like(log_beta), log_beta)
    safe = xp.where(limit, xp.ones_like(gap), gap)
    exponent = values * rate
    covered = -xp.expm1(exponent) / safe
    tiny = exponent > -1e-17  # there expm1(x) is x, and x may underflow where the quotient does not
    if bool(xp.any(tiny)):
        covered = xp.where(tiny, values * (-rate / safe), covered)
    if bool(xp.any(limit)):
        covered = xp.where(limit, values, covered)
    if bool(xp.any(lowest)):
        one = xp.where(values > 0.0, xp.ones_like(values), xp.zeros_like(values))
        covered = xp.where(lowest, one, covered)
    return covered


def _check_exactly_one(function: str, beta: object, volume: object) -> None:
    if (beta is None) == (volume is None):
        both = f"both, {_checks.describe(beta)} and {_checks.describe(volume)}; leave one out"
        given = "neither; give one" if beta is None else both
        raise ValueError(
            f"{function} needs exactly one of beta and volume, got {given}; leave one out, or give beta=0.999"
        )
