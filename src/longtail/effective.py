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
from collections.abc import Mapping
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_array_api_obj, to_device

from longtail import _checks


def effective_number(n: Any, beta: Any = None, *, volume: Any = None) -> Any:
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
    values, answer = unwrap("n", n)
    check_real("n", values, low=0.0, remedy="sample counts cannot be negative or infinite")
    return answer(evaluate(values, *parameters(values, align("beta", beta, n), align("volume", volume, n))))


def inverse_effective_number(effective: Any, beta: Any = None, *, volume: Any = None) -> Any:
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
    values, answer = unwrap("effective", effective)
    check_real("effective", values, low=0.0, remedy="effective numbers cannot be negative or infinite")
    log_beta, gap = parameters(values, align("beta", beta, effective), align("volume", volume, effective))
    xp = array_namespace(values)
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


def parameters(values: Any, beta: Any, volume: Any) -> tuple[Any, Any]:
    """Return log(beta) and 1 - beta, each accurate to rounding: 0-d, or of ``values``' shape."""
    xp = array_namespace(values)
    if beta is not None:
        b = _parameter("beta", beta, values, 0.0, 1.0, "a volume N = 1 / (1 - beta) goes to volume=")
        zero, gap = b == 0.0, 1.0 - b
        log_beta = xp.log(xp.where(zero, xp.ones_like(b), b))
    else:
        v = _parameter("volume", volume, values, 1.0, math.inf, "a beta in [0, 1] goes to beta=")
        zero, gap = v == 1.0, 1.0 / v
        # below 2, 1 - 1/N would cancel, while N - 1 is exact
        small = v < 2.0
        low = xp.where(small & ~zero, v, xp.full_like(v, 1.5))
        log_beta = xp.log1p(-xp.where(small, xp.zeros_like(gap), gap))
        log_beta = xp.where(small, xp.log((low - 1.0) / low), log_beta)
    return xp.where(zero, xp.full_like(log_beta, -math.inf), log_beta), gap


def evaluate(values: Any, log_beta: Any, gap: Any) -> Any:
    """Return E_n from :func:`parameters`; the limits beta = 0 and beta = 1 are exact."""
    xp = array_namespace(values)
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
        covered = xp.where(lowest, xp.astype(values > 0.0, values.dtype), covered)
    return covered


def unwrap(name: str, source: Any) -> tuple[Any, Any]:
    """Return ``source`` as a float64 array and the function that answers in ``source``'s kind."""
    if is_array_api_obj(source):
        return _to_float64(name, source), _unbox if source.ndim == 0 else _same
    if is_series(source):
        return to_numpy(name, source.to_numpy()), lambda out: type(source)(
            out, index=source.index, name=source.name
        )
    if isinstance(source, Mapping):
        keys = list(source)
        values = to_numpy(name, [source[key] for key in keys])
        if hasattr(source, "answer"):
            return values, source.answer
        return values, lambda out: dict(zip(keys, out.tolist(), strict=True))
    array = to_numpy(name, source)
    return array, _unbox if array.ndim == 0 else _same


def align(name: str, value: Any, source: Any) -> Any:
    """Return a mapping of parameters as a list in ``source``'s order; anything else as it is."""
    if not isinstance(value, Mapping) and not is_series(value):
        return value
    if not isinstance(source, Mapping) and not is_series(source):
        raise TypeError(
            f"{name} is a {type(value).__name__} but the counts have no names; give {name} as a list"
        )
    keys = names_of(source, 0)
    missing = [key for key in keys if key not in value]
    if missing:
        raise ValueError(
            f"{name} lacks a value for {_checks.shorten(missing)}; name every class or give a scalar"
        )
    return [value[key] for key in keys]


def names_of(source: Any, size: int) -> list[Any]:
    """Return the names of a mapping or Series, or else the positions 0..size-1."""
    if is_series(source):
        return list(source.index)
    return list(source) if isinstance(source, Mapping) else list(range(size))


def in_output_order(name: str, source: Any) -> Any:
    """Return values by class, a mapping or Series, as a dict in the order of a model's outputs.

    Whole numbers, and so False, True and 1.0, are class indices; other names keep their order. Anything
    without names is returned as it is.

    Raises:
        ValueError: integer names that are not 0..C-1, or a name that stands twice.
    """
    if not isinstance(source, Mapping) and not is_series(source):
        return source
    pairs = dict(source.items())
    if len(pairs) < len(source):
        raise ValueError(f"{name} has {len(source)} names of which {len(pairs)} differ; name each class once")
    if not all(map(_is_whole, pairs)):
        return pairs
    outputs = range(len(pairs))
    if missing := sorted(set(outputs).difference(pairs)):
        raise ValueError(
            f"{name} has {len(pairs)} integer names, but not {_checks.shorten(missing)} of the model's "
            f"outputs 0..{len(pairs) - 1}; count with num_classes= or pass a list"
        )
    return {key: pairs[key] for key in outputs}


def _is_whole(name: Any) -> bool:
    if isinstance(name, (float, np.floating)):  # what pandas makes of integers beside a missing one
        return float(name).is_integer()
    return isinstance(name, (int, np.integer, np.bool_))


def to_numpy(name: str, source: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return ``source`` as a float64 NumPy array; text, objects and ragged lists are refused."""
    try:
        array = np.asarray(source)
    except (ValueError, TypeError) as error:
        raise TypeError(f"{name} must be numbers, got {_checks.describe(source)}") from error
    if array.dtype == object:  # Python ints beyond 64 bits, Decimal, Fraction; or anything at all
        try:
            if any(isinstance(x, (str, bytes, bool)) or x is None for x in array.ravel()):
                raise TypeError
            return array.astype(np.float64)
        except OverflowError as error:
            raise ValueError(
                f"{name} must be finite in float64 (below 1.8e308), got {_checks.describe(source)}"
            ) from error
        except (TypeError, ValueError):
            pass
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be numbers, got {_checks.describe(source)}; convert them first")
    return array.astype(np.float64)


def check_real(name: str, values: Any, *, low: float, remedy: str) -> None:
    """Refuse NaN, infinities and values below ``low``, naming the first and its position."""
    xp = array_namespace(values)
    bad = ~(xp.isfinite(values) & (values >= low))
    if bool(xp.any(bad)):
        flat = xp.reshape(values, (-1,))
        at = int(xp.argmax(xp.astype(xp.reshape(bad, (-1,)), xp.int64)))
        where = f" at position {at}" if values.ndim else ""
        raise ValueError(f"{name} must be finite and >= {low:g}, got {float(flat[at])!r}{where}; {remedy}")


def _check_exactly_one(function: str, beta: Any, volume: Any) -> None:
    if (beta is None) == (volume is None):
        both = f"both, {_checks.describe(beta)} and {_checks.describe(volume)}; leave one out"
        given = "neither; give one" if beta is None else both
        raise ValueError(f"{function} needs exactly one of beta and volume, got {given}")


def _parameter(name: str, value: Any, like: Any, low: float, high: float, remedy: str) -> Any:
    xp = array_namespace(like)
    if not isinstance(value, (list, tuple)) and not (is_array_api_obj(value) and value.ndim):
        value = _checks.number(name, value, low=low, high=high, remedy=remedy)
        return xp.asarray(value, dtype=like.dtype, device=device(like))
    array, _ = unwrap(name, value)
    if tuple(array.shape) != tuple(like.shape):
        raise ValueError(
            f"{name} must be a scalar or have one value per class, shape {tuple(like.shape)}, "
            f"got shape {tuple(array.shape)}"
        )
    if array_namespace(array) is xp:
        array = to_device(array, device(like))
    else:
        array = xp.asarray(np.asarray(array), dtype=like.dtype, device=device(like))
    bad = ~((array >= low) & (array <= high))
    if bool(xp.any(bad)):
        at = int(xp.argmax(xp.astype(xp.reshape(bad, (-1,)), xp.int64)))
        worst = float(xp.reshape(array, (-1,))[at])
        raise ValueError(
            f"{name} must be in {_checks.interval(low, high)}, got {worst!r} at position {at}; {remedy}"
        )
    return array


def _to_float64(name: str, array: Any) -> Any:
    xp = array_namespace(array)
    if isinstance(array, (np.ndarray, np.generic)):
        return to_numpy(name, array)
    if not xp.isdtype(array.dtype, ("integral", "real floating")):
        raise TypeError(f"{name} must be numbers, got {_checks.describe(array)}; convert them first")
    try:
        return xp.astype(array, xp.float64)
    except (TypeError, RuntimeError):  # a device without float64, such as MPS
        return xp.astype(array, xp.float32)


def is_series(source: object) -> bool:
    """Tell a pandas Series without importing pandas."""
    module = type(source).__module__  # "pandas.core.series" up to pandas 2, "pandas" from 3 on
    return module.split(".")[0] == "pandas" and hasattr(source, "index") and getattr(source, "ndim", 0) == 1


def _same(out: Any) -> Any:
    return out


def _unbox(out: Any) -> Any:
    return float(out) if isinstance(out, (np.ndarray, np.generic)) else out
