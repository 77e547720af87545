"""Class counts -> class weights, sample weights and scikit-learn's ``class_weight``.

One rule for every scheme: a raw weight a class, scaled by ``normalize``. Empty classes weigh 0 and
take no part in the scaling, so no count can produce a NaN or an infinity.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Hashable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks, effective

SCHEMES = ("none", "inverse", "inverse_sqrt", "effective")
EVERY_SCHEME = (*SCHEMES, "power")


class Default(float):
    """A default that can be told from the same number given by the caller, also after a copy or a pickle."""


DEFAULT_BETA = Default(0.999)
_SPAN = 1e-300  # ratios of counts below this are subnormal in float64


def class_weights(
    counts: object,
    scheme: str = "effective",
    *,
    beta: object = DEFAULT_BETA,
    volume: object = None,
    normalize: str | None = "classes",
    empty: str = "zero",
    power: float = 0.5,
    max_weight: float | None = None,
) -> Any:
    """Return one weight a class, larger for rarer classes.

    Args:
        counts: training samples per class, real, >= 0, 1-D: a list, an array of any array-API library
            (NumPy, torch, JAX, CuPy), or a mapping name -> count (dict, pandas Series, ClassCounts).
            Counts of the whole training set, never of a batch.
        scheme: "effective" 1 / E_n (the paper); "inverse" 1 / n; "inverse_sqrt" 1 / sqrt(n); "power"
            1 / n^power; "none" 1.
        beta: for "effective", in [0, 1], one for all classes or one per class.
        volume: N = 1 / (1 - beta), in [1, inf], instead of ``beta``.
        normalize: "classes": the weights sum to the number of non-empty classes (the paper's rule);
            "samples": the count-weighted mean is 1, which leaves the mean loss and boosted trees' leaf
            sizes at their usual scale; None: raw weights, 1 / E_n.
        empty: classes without samples: "zero" gives them weight 0, "one" weight 1, for classes that appear
            later; "error" refuses them.
        power: the exponent of scheme "power", >= 0: 0 is "none", 1 is "inverse".
        max_weight: no weight exceeds it; what it cuts off is not given to other classes.

    Returns:
        Weights in float64 of ``counts``' kind: a list or NumPy array gives a NumPy array, a tensor a
        tensor on the same device, a mapping the same mapping (ClassCounts gives ClassWeights).

    Raises:
        TypeError: ``counts`` are no numbers, or :class:`longtail.ClassWeights`.
        ValueError: negative, NaN or infinite counts, not 1-D, no class with samples, frequencies, weights or
            labels in place of counts (no value of 1 or more, or none whole), an unknown option,
            ``beta`` or ``volume`` out of range, of another length, or both given.

    Warns:
        UserWarning: the counts differ but the effective numbers agree within 1 %, so that the weights
            do nothing; the message names a volume that would matter.

    Example:
        >>> class_weights([4, 1], beta=0.5).round(3).tolist()
        [0.696, 1.304]
        >>> class_weights({"cat": 90, "lynx": 10}, "inverse", normalize="samples")
        {'cat': 0.555..., 'lynx': 5.0...}

    Source: section 4 (weights normalised to sum to C); "inverse" and "inverse_sqrt" are its baselines.
    """
    return weigh("counts", counts, scheme, beta, volume, normalize, empty, power, max_weight)


def weigh(
    name: str,
    counts: object,
    scheme: str,
    beta: object,
    volume: object,
    normalize: str | None,
    empty: str,
    power: float = 0.5,
    max_weight: float | None = None,
) -> Any:
    """:func:`class_weights` for counts that the caller knows under another ``name``."""
    _checks.choice("scheme", scheme, EVERY_SCHEME)
    _checks.choice("empty", empty, ("zero", "one", "error"))
    power = _checks.number("power", power, low=0.0, high=100.0, remedy="0.5 and 0.25 are usual, 1 is 1 / n")
    if max_weight is not None:
        max_weight = _checks.number("max_weight", max_weight, low=0.0, open_low=True, remedy="None is no cap")
    if normalize is not None:
        _checks.choice("normalize", normalize, ("classes", "samples"), also=" or None")
    if volume is not None:
        if beta is not None and not isinstance(beta, Default):
            raise ValueError(
                f"beta={_given(beta)} and volume={_given(volume)} are both given; "
                "they say the same thing, give one"
            )
        beta = None
    elif beta is None:
        beta = DEFAULT_BETA

    values, answer = _arrays.unwrap(name, counts)
    xp = _arrays.namespace(values)
    if values.ndim != 1:
        raise ValueError(
            f"{name} must be 1-D, one number a class, got shape {tuple(values.shape)}; "
            "count the samples of each class"
        )
    if values.shape[0] == 0:
        raise ValueError(f"{name} must name at least one class, got none; give one number a class")
    _arrays.check_real(name, values, low=0.0, remedy="give the number of training samples per class")
    _arrays.check_counts(name, counts, values)
    filled = values > 0.0
    if not bool(xp.any(filled)):
        raise ValueError(
            f"{name} must have a class with samples, got {values.shape[0]} classes of 0; check the labels"
        )
    if empty == "error" and not bool(xp.all(filled)):
        names = _arrays.names_of(counts, values.shape[0])
        none = [name for i, name in enumerate(names) if not bool(filled[i])]
        raise ValueError(f"{name} are 0 for classes {_checks.shorten(none)}; drop them or pass empty='zero'")
    nothing = _arrays.like(math.inf, values)  # an empty class weighs 1 / inf
    low, high = float(xp.min(xp.where(filled, values, nothing))), float(xp.max(values))
    if low < _SPAN * max(high, 1.0):
        raise ValueError(
            f"{name} must lie within a factor of {1 / _SPAN:g} of each other, got {low:g} to {high:g}; "
            "float64 cannot hold the ratio of their weights; drop the smallest or set it to 0"
        )
    beta, volume = _arrays.align("beta", beta, counts), _arrays.align("volume", volume, counts)
    log_beta, gap = effective.parameters(values, beta, volume)

    # every scheme is 1 / size; dividing by the smallest size first keeps all that follows within (0, 1]
    size = values
    if scheme == "none":
        size = xp.ones_like(values)
    elif scheme == "inverse_sqrt":
        size = xp.sqrt(values)
    elif scheme == "power":  # of the ratio to the smallest, since n^power may leave float64
        size = xp.where(filled, values / low, nothing) ** power
        size = xp.where(filled, size, xp.zeros_like(values))
    elif scheme == "effective":
        size = effective.evaluate(values, log_beta, gap)
    largest = xp.max(size)  # before the empty classes' size, which is 0 here, becomes infinite
    size = xp.where(filled, size, nothing)
    smallest = xp.min(size)
    if scheme == "effective":
        _warn_if_useless((low, high), (float(smallest), float(largest)), beta, volume)
    if normalize is None:
        weights = 1.0 / size * (low**-power if scheme == "power" else 1.0)
    else:
        ratio = smallest / size
        if normalize == "classes":
            scale = xp.sum(xp.astype(filled, ratio.dtype)) / xp.sum(ratio)
        else:
            share = values / xp.max(values)
            scale = xp.sum(share) / xp.sum(share * ratio)
        weights = ratio * scale
    if empty == "one":
        weights = xp.where(filled, weights, xp.ones_like(weights))
    if max_weight is not None:
        weights = xp.where(weights > max_weight, _arrays.like(max_weight, weights), weights)
    return answer(weights)


def positive_weights(
    counts: object,
    num_samples: int | None = None,
    beta: object = DEFAULT_BETA,
    *,
    volume: object = None,
    scheme: str = "effective",
    power: float = 0.5,
    max_weight: float | None = None,
    empty: str = "zero",
) -> Any:
    """Return what the positive terms of multi-label losses weigh: torch's ``pos_weight``.

    ``E(N - n) / E(n)``, with E the effective number: as many times as a label's negatives cover more than its
    positives. It is 1 for beta 0 and ``(N - n) / n`` for beta 1.

    Args:
        counts: how many samples have each label, as for :func:`class_weights`.
        num_samples: N, of the training set; default: what ``counts`` carry, if they are of multi-hot labels.
        beta: see :func:`class_weights`; likewise volume, power and max_weight.
        volume: see :func:`class_weights`.
        scheme: "effective"; "inverse" (N - n) / n, "inverse_sqrt" its root, "power" its ``power``; "none" 1.
        power: see :func:`class_weights`.
        max_weight: see :func:`class_weights`.
        empty: labels that no sample has: "zero" | "one" | "error".

    Returns:
        Weights in float64 of ``counts``' kind. A label that every sample has weighs 0, as in torch's formula.

    Raises:
        TypeError: as :func:`class_weights`.
        ValueError: as :func:`class_weights`; no ``num_samples``, or fewer than a label has.

    Example:
        >>> positive_weights([10, 50], 100, beta=1.0).tolist()
        [9.0, 1.0]

    Source: the ratio of :func:`effective_number` to itself; ``pos_weight`` of torch's BCEWithLogitsLoss.
    """
    _checks.choice("scheme", scheme, EVERY_SCHEME)
    _checks.choice("empty", empty, ("zero", "one", "error"))
    power = _checks.number("power", power, low=0.0, high=100.0, remedy="0.5 is the root, 1 is (N - n) / n")
    if max_weight is not None:
        max_weight = _checks.number("max_weight", max_weight, low=0.0, open_low=True, remedy="None is no cap")
    if num_samples is None:
        num_samples = getattr(counts, "num_samples", None)
        if num_samples is None:
            raise ValueError(
                "num_samples is not known; pass the number of training samples, or counts of multi-hot "
                "labels, class_counts(labels)"
            )
    total = _checks.integer("num_samples", num_samples, low=1)
    if volume is not None:
        if beta is not None and not isinstance(beta, Default):
            raise ValueError(f"beta={_given(beta)} and volume={_given(volume)} are both given; give one")
        beta = None
    elif beta is None:
        beta = DEFAULT_BETA
    values, answer = _arrays.unwrap("counts", counts)
    xp = _arrays.namespace(values)
    if values.ndim != 1 or values.shape[0] == 0:
        raise ValueError(
            f"counts must be 1-D, one number a label, got shape {tuple(values.shape)}; count each label's "
            "samples"
        )
    _arrays.check_real(
        "counts", values, low=0.0, remedy="give the number of training samples with each label"
    )
    _arrays.check_counts("counts", counts, values)
    if (high := float(xp.max(values))) > total:
        raise ValueError(
            f"num_samples must be at least the largest count, {high:g}, got {total}; it counts samples, "
            "not labels"
        )
    filled = values > 0.0
    if empty == "error" and not bool(xp.all(filled)):
        names = _arrays.names_of(counts, values.shape[0])
        none = [name for i, name in enumerate(names) if not bool(filled[i])]
        raise ValueError(f"counts are 0 for labels {_checks.shorten(none)}; drop them or pass empty='zero'")
    beta, volume = _arrays.align("beta", beta, counts), _arrays.align("volume", volume, counts)
    log_beta, gap = effective.parameters(values, beta, volume)
    one = xp.ones_like(values)
    positive, negative = xp.where(filled, values, one), total - values
    if scheme == "effective":
        positive, negative = (effective.evaluate(x, log_beta, gap) for x in (positive, negative))
    weights = one if scheme == "none" else negative / positive
    if scheme in ("power", "inverse_sqrt"):
        weights = weights ** (0.5 if scheme == "inverse_sqrt" else power)
    weights = xp.where(filled, weights, one if empty == "one" else xp.zeros_like(one))
    if max_weight is not None:
        weights = xp.where(weights > max_weight, _arrays.like(max_weight, weights), weights)
    return answer(weights)


def sample_weights(
    labels: object,
    scheme: str = "effective",
    *,
    beta: object = DEFAULT_BETA,
    volume: object = None,
    normalize: str | None = "samples",
    empty: str = "zero",
    power: float = 0.5,
    max_weight: float | None = None,
    counts: object = None,
) -> Any:
    """Return one weight a sample, for ``sample_weight`` of scikit-learn, XGBoost, LightGBM and CatBoost.

    Args:
        labels: one label a sample, 1-D: a list, NumPy array, pandas Series or tensor.
        scheme: see :func:`class_weights`; likewise ``beta``, ``volume`` and ``empty``.
        beta: see :func:`class_weights`.
        volume: see :func:`class_weights`.
        normalize: "samples" (mean weight 1) by default: boosted trees compare sums of weights with
            absolute thresholds (``min_child_weight``), so that raw 1/n weights starve them.
        empty: see :func:`class_weights`; likewise power and max_weight.
        power: see :func:`class_weights`.
        max_weight: see :func:`class_weights`.
        counts: counts per label, a mapping such as :func:`class_counts` returns, where they are not
            those of ``labels`` (a Series as ``value_counts`` gives is one, too): the whole training
            set's for a part of it. Weigh validation folds by
            the training fold's counts, or information leaks.

    Returns:
        Float64 weights in ``labels``' order and kind: a Series keeps its index, a tensor its device.

    Raises:
        TypeError: labels that are no labels (None, NaN, nested lists), ``counts`` without names.
        ValueError: as :func:`class_weights`, or a label that ``counts`` does not name.

    Example:
        >>> sample_weights(["cat", "cat", "cat", "lynx"], "inverse").round(3).tolist()
        [0.667, 0.667, 0.667, 2.0]
    """
    from longtail.counts import ClassCounts, class_counts
    from longtail.labels import encode

    names, codes = encode(labels)
    if len(codes) == 0:
        raise ValueError("labels must hold at least one label, got none; pass one label a sample")
    if counts is None:
        _refuse_counts(names, codes)
        known = ClassCounts(names, np.bincount(codes, minlength=len(names)))
    elif isinstance(counts, Mapping):
        known = class_counts(counts)
    elif _arrays.is_series(counts):
        known = ClassCounts(counts.index, counts)
    else:
        raise TypeError(
            f"counts must be a mapping label -> count, got {_checks.describe(counts)}; "
            "class_counts(training_labels) makes one"
        )
    options: dict[str, Any] = {"beta": beta, "volume": volume, "normalize": normalize, "empty": empty}
    weights = class_weights(known, scheme, **options, power=power, max_weight=max_weight)
    unknown = [name for name in names if name not in weights]
    if unknown:
        raise ValueError(
            f"labels hold {_checks.shorten(unknown)}, which counts does not name; "
            "count the whole training set's labels"
        )
    out = np.array([weights[name] for name in names])[codes]
    if _arrays.is_array(labels) and not isinstance(labels, np.ndarray):
        xp = _arrays.namespace(labels)
        return xp.asarray(out, device=labels.device)
    if _arrays.is_series(labels):
        return type(labels)(out, index=labels.index, name="sample_weight")
    return out


def class_weight_dict(
    labels: object,
    scheme: str = "effective",
    *,
    beta: object = DEFAULT_BETA,
    volume: object = None,
    normalize: str | None = "samples",
    empty: str = "zero",
    power: float = 0.5,
    max_weight: float | None = None,
) -> dict[Hashable, float]:
    """Return ``{label: weight}`` for scikit-learn's and LightGBM's ``class_weight`` argument.

    Args:
        labels: one label a sample (see :func:`class_counts`), or a mapping label -> count.
        scheme: see :func:`class_weights`; likewise the other arguments.
        beta: see :func:`class_weights`.
        volume: see :func:`class_weights`.
        normalize: "samples" by default, as scikit-learn's own "balanced".
        empty: see :func:`class_weights`.
        power: see :func:`class_weights`.
        max_weight: see :func:`class_weights`.

    Returns:
        Python floats by label, in the labels' sorted order.

    Raises:
        ValueError: labels that the receivers look up under another key and so weigh silently wrong:
            text of digits ("1") and floats that are not whole (0.5, NaN).

    Example:
        >>> class_weight_dict([0, 0, 0, 1], "inverse")
        {0: 0.666..., 1: 2.0}
    """
    from longtail.counts import class_counts
    from longtail.labels import encode

    known = class_counts(labels)
    if not isinstance(labels, Mapping) and getattr(labels, "ndim", 1) == 1:
        with contextlib.suppress(TypeError):  # a data set, a path: no sequence of labels
            _refuse_counts(*encode(labels))
    for name in known.names:
        if isinstance(name, (str, bytes)) and _reads_as_integer(name):
            raise ValueError(
                f"labels hold the digit string {name!r}, which scikit-learn looks up as an integer; "
                "convert them with int() or to words"
            )
        if isinstance(name, float) and not name.is_integer():
            found = f"looks up as {int(name)}" if math.isfinite(name) else "cannot look up"
            raise ValueError(
                f"labels hold {name!r}, which scikit-learn {found}; number the classes with integers"
            )
    options: dict[str, Any] = {"beta": beta, "volume": volume, "normalize": normalize, "empty": empty}
    weight = class_weights(known, scheme, **options, power=power, max_weight=max_weight)
    return dict(weight)


def _refuse_counts(names: Sequence[Hashable], codes: npt.NDArray[np.intp]) -> None:
    """Refuse numbers that are counts, given one a class where labels are expected, one a sample.

    Such are few and large, and they differ or fall: as labels, nearly all would weigh the same.
    """
    size = len(codes)
    if size < 2 or not all(isinstance(name, Integral) and not isinstance(name, bool) for name in names):
        return
    largest = max(int(name) for name in names)  # type: ignore[call-overload]
    falls = bool((np.diff(codes) <= 0).all())
    if (len(names) == size and largest >= 2 * size) or (falls and len(names) > 1 and largest >= 10 * size):
        raise ValueError(
            f"labels must be one a sample, got {size} numbers up to {largest}, as counts are; "
            "class_weights(counts) weighs counts; give the labels here, or a mapping label -> count"
        )


def _reads_as_integer(text: str | bytes) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True


def _given(value: object) -> str:
    return repr(value) if isinstance(value, (int, float)) else _checks.describe(value)


def _warn_if_useless(
    counts: tuple[float, float], sizes: tuple[float, float], beta: object, volume: object
) -> None:
    (low, high), (e_low, e_high) = counts, sizes
    # sizes of exactly 1 mean beta = 0, which asks for equal weights
    if high <= 1.01 * low or e_high > 1.01 * e_low or e_high == 1.0:
        return
    name, value = ("volume", volume) if beta is None else ("beta", beta)
    one_for_all = not isinstance(value, (list, tuple)) and getattr(value, "ndim", 0) == 0
    given = f"{name}={_given(_checks.number(name, value) if one_for_all else value)}"
    useful = max(low, 2.0)
    beta_of_it = f" (beta = {1.0 - 1.0 / useful:.10g})" if useful <= 1e10 else ""  # beyond, it reads as 1
    _checks.warn(
        f"{given} does nothing for counts from {low:g} to {high:g}: all effective numbers equal "
        f"{_checks.short(e_high)} within 1 %. A volume matters from about N = {useful:g}"
        f"{beta_of_it} upwards; try volume={useful:g} to {high:g}"
    )
