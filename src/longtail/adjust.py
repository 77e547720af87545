"""After training: the decision, and the probabilities, that a training on a long tail leaves to be made.

A network that saw classes with shares q answers as if they had those shares for ever. Its logits z become
those of another prior p by ``z + log p - log q``, without any training. What the optimiser *saw* is its
effective prior: the class counts, times the class weights, times how often a sampler drew each class, and
less what an offset in the loss has paid for already.

NumPy arrays give NumPy arrays; arrays of another array-API library (torch, JAX, CuPy) stay what they are. A
package of your own adds an adjustment of methods by ``ADJUSTMENTS.register``: a function
``(logits, counts, prior, *, settings) -> logits`` of NumPy arrays, prior being the effective one. One that
takes ``activation`` is told how the loss reads logits; for the sigmoid and an offset, prior is each output's
own share, as for many labels, and need not sum to 1. One that takes ``num_samples`` is for many labels a
sample, too: it is then told their number, and prior is each label's own share.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks
from longtail._registry import Registry

__all__ = [
    "ADJUSTMENTS",
    "Adjustment",
    "TunedAdjustment",
    "adjust_logits",
    "adjust_probabilities",
    "effective_prior",
    "logit_shift",
    "tune_adjustment",
]

Adjustment = Callable[..., npt.NDArray[np.floating]]
Vector = npt.NDArray[np.float64]

ADJUSTMENTS: Final = Registry[Adjustment]("adjustment")

_SUM = 1e-3  # by which rows of probabilities may miss 1
_TAUS: Final = tuple(round(0.1 * i, 1) for i in range(21))
_FEW: Final = 20  # logits up to which nothing is said of how they look
_THIN: Final = 5  # held-out samples of a class below which it is named


def adjust_logits(
    logits: object,
    counts: object,
    *,
    target: object = "uniform",
    weight: object = None,
    offset: object = None,
    sampling: object = None,
    tau: float = 1.0,
    cost: object = None,
    activation: str = "softmax",
    num_samples: int | None = None,
) -> Any:
    """Return a trained model's logits for another class prior: ``z + log target - tau * log(prior it saw)``.

    Say how the model was trained, and nothing is corrected twice: the prior it saw is proportional to
    ``counts * weight * sampling * exp(-offset)``. A model trained with logit adjustment (an offset of the log
    prior) therefore stays as it is under the uniform target.

    Args:
        logits: floats of shape (N, C), or (..., C). With two counts also of class 1 alone: (N,), (N, 1),
            (N, 1, d1, ...) or (..., 1).
        counts: training samples per class, in the order of the outputs, as for `longtail.class_weights`. A
            class without samples is treated as the smallest one with samples.
        target: the prior to decide for. "uniform": every class counts the same, for balanced error;
            "training": the shares of the counts, which gives the right probabilities back after any weighting
            or sampling; or an array or mapping of shares that sum to 1.
        weight: the class weights of the training's loss, shape (C,) or a mapping; None for none.
        offset: what the training's loss added to the logits, likewise.
        sampling: how many times as often as in the data each class was drawn, likewise, up to a factor;
            ``class_rates`` of a `longtail.sampling.ClassAwareSampler`.
        tau: how much of the prior to take away, >= 0.
        cost: what it costs to predict column j where row i is true, shape (C, C); then the result is minus
            the expected cost of each prediction, and its largest entry is the decision (Elkan, IJCAI 2001).
        activation: "softmax" | "sigmoid": with "sigmoid" each column is a yes or no of its own, and odds take
            the place of shares. A column's negatives are the other classes' samples.
        num_samples: for multi-label data (with "sigmoid"): how many samples there were; default: what
            `counts` carry. `counts` are then the positives of each label, `weight` acts as torch's
            ``pos_weight``, and the uniform target is 1/2.

    Returns:
        Logits of the same shape, dtype, kind and device.

    Raises:
        TypeError: logits or counts that are no numbers.
        ValueError: logits that are probabilities or NaN, vectors of another length, a target with a value
            that is not positive or a sum that is not 1, tau < 0 or NaN, fewer than two classes.

    Example:
        >>> adjust_logits(np.array([[2.0, 0.0]]), [90, 10]).round(3).tolist()
        [[1.412, 1.609]]
        >>> adjust_logits(np.array([[2.0, 0.0]]), [90, 10], weight=[0.2, 1.8], target="training").round(3)
        array([[ 2.588, -1.609]])

    Source: Saerens et al. (2002), equation 2.4; Menon et al. (ICLR 2021), equation 9.
    """
    values, xp = _floats("logits", logits)
    _checks.choice("activation", activation, ("softmax", "sigmoid"))
    sizes, num_samples = class_sizes(counts), _many_labels(counts, num_samples, activation)
    _arrays.check_columns("logits", logits, counts)
    one = num_samples is None and _one_logit(values, len(sizes))
    bare = values.detach() if hasattr(values, "detach") else values  # looking is no part of a gradient
    if not one:
        _check_shape("logits", values, len(sizes))
    seen = _has_values(bare)
    if seen:
        _check_numbers("logits", bare, xp, rows=not one)
    if seen and (one or activation == "sigmoid"):
        _notice_shares(bare, xp)
    elif seen and len(sizes) > 1 and _are_probabilities(bare, xp):
        raise ValueError(
            "logits must be what comes before the softmax, got rows that are not negative and sum to 1; "
            "adjust_probabilities takes probabilities"
        )
    shift = logit_shift(
        counts,
        target=target,
        weight=weight,
        offset=offset,
        sampling=sampling,
        tau=tau,
        activation="softmax" if one else activation,  # of one logit they are the same
        num_samples=num_samples,
    )
    if one:
        if cost is not None:
            raise ValueError("cost needs one column a class, got one logit; give both classes' logits")
        return values + _like(shift[1] - shift[0], values, xp)
    adjusted = values + _like(shift, values, xp)
    if cost is None:
        return adjusted
    if num_samples is not None:
        raise ValueError(
            "cost is of one class a sample, and these are many labels; leave it out, and choose a threshold "
            "for each label by longtail.evaluation.tune_thresholds"
        )
    matrix = cost_matrix(cost, counts, len(sizes))
    if activation == "sigmoid":  # the log of each column's probability, whose sum need not be 1
        adjusted = -xp.log1p(xp.exp(-abs(adjusted))) + xp.where(
            adjusted < 0, adjusted, xp.zeros_like(adjusted)
        )
    return -(_softmax(adjusted, xp) @ _like(matrix, values, xp))


def adjust_probabilities(
    probabilities: object,
    counts: object,
    *,
    target: object = "uniform",
    weight: object = None,
    offset: object = None,
    sampling: object = None,
    tau: float = 1.0,
    cost: object = None,
    floor: float = 1e-6,
) -> Any:
    """Return a model's probabilities for another class prior: `adjust_logits` for models without logits.

    Args:
        probabilities: shape (N, C), rows that sum to 1, such as ``predict_proba`` of trees gives; or shape
            (N,) or (N, 1) with two counts: the probability of class 1.
        counts: as for `adjust_logits`, and so are target, weight, offset, sampling, tau and cost.
        target: see `adjust_logits`.
        weight: see `adjust_logits`; ``sample_weight`` and ``class_weight`` of the training count here.
        offset: see `adjust_logits`; the probabilities being those of the logits without it.
        sampling: see `adjust_logits`.
        tau: see `adjust_logits`.
        cost: see `adjust_logits`; then the result is minus the expected cost.
        floor: what a probability of exactly 0 is taken for, in (0, 0.01]; otherwise nothing brings it back.

    Returns:
        Probabilities of the same shape and kind; rows sum to 1.

    Raises:
        TypeError: probabilities that are no numbers.
        ValueError: rows that do not sum to 1, and as `adjust_logits`.

    Warns:
        UserWarning: some probabilities are exactly 0 (or 1, where one column is given).

    Example:
        >>> adjust_probabilities(np.array([[0.9, 0.1]]), [90, 10]).round(3).tolist()
        [[0.5, 0.5]]
    """
    floor = _checks.number("floor", floor, low=0.0, high=0.01, open_low=True)
    values, xp = _floats("probabilities", probabilities)
    kind, values = values.dtype, _wide(values, xp)
    sizes = class_sizes(counts)
    _many_labels(counts, None, "softmax")
    _arrays.check_columns("probabilities", probabilities, counts)
    if not hasattr(probabilities, "columns"):
        _arrays.notice_text_numbers("probabilities", counts)
    one, shape = _one_logit(values, len(sizes)), tuple(values.shape)
    if one:
        if cost is not None:
            raise ValueError("cost needs a column for each class, got one; give both classes' probabilities")
        values = xp.reshape(values, (-1,))
        values = xp.stack([1 - values, values], axis=-1)
    _check_shape("probabilities", values, len(sizes))
    bare = values.detach() if hasattr(values, "detach") else values
    seen = _has_values(bare)
    if seen:
        _check_numbers("probabilities", bare, xp)
    if seen and values.shape[0] and not _are_probabilities(bare, xp, _tolerance(kind, xp)):
        raise ValueError(
            "probabilities must be rows that are not negative and sum to 1, got others; adjust_logits takes "
            "logits, or divide each row by its sum"
        )
    zeros = int(xp.count_nonzero(values <= 0)) if seen else 0
    if zeros:
        _checks.warn(
            f"{zeros} of {math.prod(values.shape)} probabilities are exactly 0 and are taken for {floor:g}; "
            "a model that smooths its leaves or is calibrated gives better ones"
        )
    if zeros or not seen:
        values = xp.where(values <= 0, _like(np.float64(floor), values, xp), values)
    shift = logit_shift(counts, target=target, weight=weight, offset=offset, sampling=sampling, tau=tau)
    shares = _softmax(xp.log(values) + _like(shift, values, xp), xp)
    if cost is not None:
        shares = -(shares @ _like(cost_matrix(cost, counts, len(sizes)), values, xp))
    elif one:
        shares = xp.reshape(shares[:, 1], shape)
    return shares if shares.dtype == kind else xp.astype(shares, kind)


def effective_prior(
    counts: object, *, weight: object = None, offset: object = None, sampling: object = None
) -> Vector:
    """Return the class shares that the optimiser saw, ``counts * weight * sampling * exp(-offset)``.

    Args:
        counts: training samples per class; one without samples is treated as the smallest with samples.
        weight: class weights of the loss, shape (C,) or a mapping; None for none.
        offset: what the loss added to the logits, likewise.
        sampling: how many times as often as in the data each class was drawn, likewise, up to a factor.

    Returns:
        float64 of shape (C,), positive, with the sum 1.

    Raises:
        TypeError: no numbers.
        ValueError: vectors of another length, negative or infinite values, no class with samples.

    Example:
        >>> effective_prior([90, 10], weight=[0.2, 1.8]).round(3).tolist()
        [0.5, 0.5]
    """
    _many_labels(counts, None, "softmax")
    log_prior = _log_prior(class_sizes(counts), counts, weight, offset, sampling)
    shares: Vector = np.exp(log_prior)
    return shares


def logit_shift(
    counts: object,
    *,
    target: object = "uniform",
    weight: object = None,
    offset: object = None,
    sampling: object = None,
    tau: float = 1.0,
    activation: str = "softmax",
    num_samples: int | None = None,
) -> Vector:
    """Return what `adjust_logits` adds to the logits of each class.

    Args:
        counts: see `adjust_logits`, and so are all others.
        target: see `adjust_logits`.
        weight: see `adjust_logits`.
        offset: see `adjust_logits`.
        sampling: see `adjust_logits`.
        tau: see `adjust_logits`.
        activation: see `adjust_logits`.
        num_samples: see `adjust_logits`.

    Returns:
        float64 of shape (C,).

    Raises:
        TypeError: as `adjust_logits`.
        ValueError: as `adjust_logits`.

    Example:
        >>> logit_shift([90, 10]).round(3).tolist()
        [-0.588, 1.609]
    """
    remedy = "1 takes the whole prior away, 0 none of it"
    tau = _checks.number("tau", tau, low=0.0, open_high=True, remedy=remedy)
    _checks.choice("activation", activation, ("softmax", "sigmoid"))
    sizes, num_samples = class_sizes(counts), _many_labels(counts, num_samples, activation)
    if num_samples is not None:
        return _label_shift(sizes, counts, target, weight, offset, sampling, tau, num_samples)
    if len(sizes) < 2:
        raise ValueError(
            "counts must name at least two classes, got one: there is no prior to change; a single label of "
            "multi-label data needs activation='sigmoid' and num_samples"
        )
    saw = _log_prior(sizes, counts, weight, None, sampling)
    paid = _vector("offset", offset, counts, 0.0, finite_only=True)
    aim = _target(target, sizes, counts)
    if activation == "sigmoid":
        return aim - _log_not(aim) - tau * (saw - _log_not(saw) - paid)
    saw = saw - paid
    return aim - tau * (saw - _log_sum(saw))


def _label_shift(
    sizes: Vector,
    counts: object,
    target: object,
    weight: object,
    offset: object,
    sampling: object,
    tau: float,
    num_samples: object,
) -> Vector:
    """The shift of each label of multi-label data, from its odds."""
    total = _checks.integer("num_samples", num_samples, low=1)
    if sizes.max() > total:
        raise ValueError(
            f"num_samples must be at least the largest count, {sizes.max():g}, got {total}; it counts "
            "samples, not labels"
        )
    positive = np.where(sizes > 0, sizes, 0.5)  # of a label that no sample has, or every one
    odds = np.log(positive) - np.log(np.where(sizes < total, total - sizes, 0.5))
    for name, values in (("weight", weight), ("sampling", sampling)):
        odds = odds + np.log(_vector(name, values, counts, 1.0, positive_where=sizes > 0))
    odds = odds - _vector("offset", offset, counts, 0.0, finite_only=True)
    if isinstance(target, str):
        _checks.choice("target", target, ("uniform", "training"), also=" or an array of shares")
        aim = (
            np.zeros(len(sizes))
            if target == "uniform"
            else np.log(positive) - np.log(np.where(sizes < total, total - sizes, 0.5))
        )
    else:
        shares = _vector("target", target, counts, 1.0)
        if not ((shares > 0) & (shares < 1)).all():
            raise ValueError("target must give each label a share in (0, 1); give the share of its positives")
        aim = np.log(shares) - np.log1p(-shares)
    shift: Vector = aim - tau * odds
    return shift


# ---- the choice of tau


@dataclass(frozen=True)
class TunedAdjustment:
    """What out-of-fold logits say of how much of the prior to take away.

    Attributes:
        tau: the choice: the smallest one whose error is within one standard error of the lowest.
        training: which of several trainings was chosen; "" if there was one.
        error: the metric (by default balanced error) of the choice, estimated on what it was chosen by.
        plain_error: that of the first training without any adjustment.
        difference: error - plain_error.
        standard_error: of the difference, from the spread within each class, or of all samples.
        distinguishable: whether the difference is more than chance explains (95 %).
        errors: the metric of every training at every tau: (training, tau, error, standard error of its
            difference to the lowest).
        thin: classes with fewer than 5 held-out samples, on which little rests.
        verdict: all that in a sentence.
    """

    tau: float
    training: str
    error: float
    plain_error: float
    difference: float
    standard_error: float
    distinguishable: bool
    errors: tuple[tuple[str, float, float, float], ...]
    thin: tuple[int, ...]
    verdict: str


def tune_adjustment(
    logits: Any,
    labels: Any,
    counts: Any,
    *,
    groups: Any = None,
    metric: str = "balanced_error",
    weight: Any = None,
    offset: Any = None,
    sampling: Any = None,
    taus: Sequence[float] = _TAUS,
    activation: str = "softmax",
) -> TunedAdjustment:
    """Choose how much of the prior to take away, by held-out or out-of-fold logits; never by the test set.

    One number is chosen, never one offset a class, which would fit the noise of the thin classes. Among
    choices that one standard error cannot tell apart, the one that changes the least is taken.

    Args:
        logits: shape (N, C), each from a model that was not trained on it; with two counts also of class 1
            alone, (N,) or (N, 1). Or a mapping from the name of a training to its logits, of which the first
            is the plain one: then the training is chosen, too, and weight, offset and sampling may be
            mappings by the same names.
        labels: class indices, int of shape (N,) or (N, 1), or labels by the names of ``counts``; of two
            classes bool or 0.0 and 1.0, too.
        counts: training samples per class.
        groups: one a sample, of any kind: samples of one group (a patient, a track) are counted as one draw.
        metric: what decides: "balanced_error", in which every class counts the same, or "error", in which
            every held-out sample does.
        weight: as for `adjust_logits`, and so are offset and sampling.
        offset: see `adjust_logits`.
        sampling: see `adjust_logits`.
        taus: what to choose from, >= 0.
        activation: see `adjust_logits`.

    Returns:
        The choice, and how sure it is.

    Raises:
        TypeError: logits or counts that are no numbers, labels that are neither numbers nor names of counts.
        ValueError: lengths that differ, labels outside 0..C-1 or that ``counts`` does not name, no taus, and
            as `adjust_logits`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.repeat([0, 1], [180, 20])
        >>> logits = rng.normal(size=(200, 2)) + np.log([0.9, 0.1]) + 2 * np.eye(2)[labels]
        >>> tune_adjustment(logits, labels, [900, 100]).distinguishable
        True
    """
    if isinstance(taus, (str, int, float)) or not hasattr(taus, "__len__"):
        raise TypeError(
            f"taus must be numbers to choose from, got {_checks.describe(taus)}; give [0, 0.5, 1], or leave "
            "it out for 0 to 2"
        )
    if not len(taus):
        raise ValueError("taus must name at least one value, got none; leave it out for 0 to 2")
    balanced = _checks.choice("metric", metric, ("balanced_error", "error")) == "balanced_error"
    chosen = [_checks.number("taus", tau, low=0.0, open_high=True) for tau in taus]
    named = isinstance(logits, Mapping)
    trainings = dict(logits) if named else {"": logits}
    if not trainings:
        raise ValueError("logits must name at least one training, got none")
    sizes = class_sizes(counts)
    truth = _to_numpy("labels", labels)
    if truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth[:, 0]
    if truth.ndim == 1 and len(truth):
        names = _arrays.output_names(_arrays.in_output_order("counts", counts))
        truth = _arrays.class_numbers("labels", truth, names, "counts")
    if len(sizes) == 2 and truth.dtype.kind in "bf" and np.isin(truth, (0, 1)).all():
        truth = truth.astype(np.int64)  # labels of one output
    if truth.ndim != 1 or truth.dtype.kind not in "iu":
        raise TypeError(
            f"labels must be class indices of shape (N,), got {_checks.describe(truth)}; give integers from "
            "0 on, or names that counts have"
        )
    if not len(truth):
        raise ValueError("labels must hold at least one held-out sample, got none")
    if truth.min() < 0 or truth.max() >= len(sizes):
        raise ValueError(
            f"labels must be in 0..{len(sizes) - 1}, one a count, got {truth.min()} to {truth.max()}; counts "
            "name every class"
        )
    units = None
    if groups is not None:
        units = _arrays.group_numbers(groups, len(truth))

    wrong: dict[tuple[str, float], npt.NDArray[np.bool_]] = {}
    for name, given in trainings.items():
        _arrays.check_columns("logits", given, counts)
        _arrays.check_index({"logits": given, "labels": labels, "groups": groups})
        values = _to_numpy("logits", _floats("logits", given)[0])
        if len(values) != len(truth):
            raise ValueError(f"logits have {len(values)} rows and labels {len(truth)}; give one row a sample")
        if _one_logit(values, len(sizes)):
            flat = values.reshape(-1)
            values = np.stack([np.zeros_like(flat), flat], axis=1)
        if values.ndim != 2:
            raise ValueError(
                f"logits must have shape (N, {len(sizes)}), got {values.shape}; give one row a label, "
                f"logits.reshape(-1, {len(sizes)}), and labels.reshape(-1)"
            )
        trained: dict[str, Any] = {
            key: part.get(name) if named and isinstance(part, Mapping) and {*part} <= {*trainings} else part
            for key, part in (("weight", weight), ("offset", offset), ("sampling", sampling))
        }
        for tau in dict.fromkeys([0.0, *chosen]):
            # tau scales what is taken away; at 0 nothing is done at all
            moved = adjust_logits(values, counts, tau=tau, activation=activation, **trained)
            wrong[name, tau] = moved.argmax(1) != truth
    options = [(name, tau) for name in trainings for tau in chosen]
    # as if of one class, every sample counts the same
    spread = _Spread(truth if balanced else np.zeros_like(truth), len(sizes), units)
    plain = (next(iter(trainings)), 0.0)
    best = min(options, key=lambda o: (spread.mean(wrong[o]), o[1]))
    table = [(o, spread.mean(wrong[o]), spread.standard_error(wrong[o], wrong[best])) for o in options]
    lowest = spread.mean(wrong[best])
    near = [o for o, error, doubt in table if error <= lowest + doubt]
    order = {name: i for i, name in enumerate(trainings)}
    choice = min(near, key=lambda o: (o[1], order[o[0]]))
    error, plain_error = spread.mean(wrong[choice]), spread.mean(wrong[plain])
    doubt = spread.standard_error(wrong[choice], wrong[plain])
    sure = abs(error - plain_error) > 1.96 * doubt
    thin = tuple(int(c) for c in np.flatnonzero(np.bincount(truth, minlength=len(sizes)) < _THIN))
    return TunedAdjustment(
        tau=choice[1],
        training=choice[0],
        error=error,
        plain_error=plain_error,
        difference=error - plain_error,
        standard_error=doubt,
        distinguishable=sure,
        errors=tuple((o[0], o[1], e, d) for o, e, d in table),
        thin=thin,
        verdict=_verdict(metric, choice, error, plain_error, doubt, sure, thin),
    )


def _verdict(
    metric: str,
    choice: tuple[str, float],
    error: float,
    plain: float,
    doubt: float,
    sure: bool,
    thin: tuple[int, ...],
) -> str:
    name, tau = choice
    what = f"tau = {tau:g}" + (f" with {name}" if name else "")
    change = f"{metric.replace('_', ' ')} {100 * plain:.1f} % becomes {100 * error:.1f} % with {what}"
    margin = f"difference {100 * (error - plain):+.1f} points, standard error {100 * doubt:.1f}"
    text = f"{change} ({margin})"
    text = text[0].upper() + text[1:] if sure else f"Not distinguishable from doing nothing: {text}"
    if thin:
        text += f"; fewer than {_THIN} held-out samples in {len(thin)} classes: {_checks.shorten(thin)}"
    return text + "."


class _Spread:
    """Mean error of held-out samples, over classes, and the standard error of a difference of two such."""

    def __init__(self, truth: npt.NDArray[Any], classes: int, units: npt.NDArray[Any] | None) -> None:
        self.truth, self.samples = truth, np.bincount(truth, minlength=classes)
        self.present = np.flatnonzero(self.samples)
        self.units = np.arange(len(truth)) if units is None else units

    def mean(self, wrong: npt.NDArray[np.bool_]) -> float:
        sums = np.bincount(self.truth, weights=wrong, minlength=len(self.samples))
        return float((sums[self.present] / self.samples[self.present]).mean())

    def standard_error(self, one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
        """Of the difference of two balanced errors on the same samples; a class of one unit adds nothing."""
        differences = one.astype(np.float64) - other
        variance = 0.0
        for c in self.present:
            mine = self.truth == c
            _, unit = np.unique(self.units[mine], return_inverse=True)
            sums = np.bincount(unit, weights=differences[mine])
            held = np.bincount(unit)
            if len(sums) > 1:
                rest = sums - held * differences[mine].mean()
                n = len(sums)
                variance += n / (n - 1) * float((rest**2).sum()) / self.samples[c] ** 2
        return math.sqrt(variance) / len(self.present)


# ---- arguments


def class_sizes(counts: object) -> Vector:
    """Check counts, and return them as float64 of shape (C,), in the order of the outputs."""
    _arrays.refuse_weights("counts", counts)
    values, _ = _arrays.unwrap("counts", _arrays.in_output_order("counts", counts))
    sizes = _to_numpy("counts", values).astype(np.float64)
    if sizes.ndim != 1 or not len(sizes):
        raise ValueError(
            f"counts must be one number a class, got shape {sizes.shape}; class_counts(labels) makes them"
        )
    if not np.isfinite(sizes).all() or (sizes < 0).any():
        raise ValueError("counts must be finite and >= 0; give the number of training samples per class")
    filled = int((sizes > 0).sum())
    if filled > 1 and abs(sizes.sum() - filled) < 1e-5 * filled and (sizes != np.floor(sizes)).any():
        raise ValueError(
            f"counts must be numbers of training samples, got values that sum to the number of classes, "
            f"{filled}, as class weights do; give the counts, and weights as weight="
        )
    if not filled:
        raise ValueError(
            f"counts must have a class with samples, got {len(sizes)} classes of 0; count the training labels"
        )
    return sizes


def _vector(
    name: str,
    given: object,
    counts: object,
    default: float,
    *,
    finite_only: bool = False,
    positive_where: npt.NDArray[np.bool_] | None = None,
) -> Vector:
    """Check one number a class, given in the order of the counts or by their names."""
    size = len(class_sizes(counts))
    if given is None:
        return np.full(size, default)
    if isinstance(given, str):
        raise TypeError(
            f"{name} must be one number a class, got {given!r}; longtail.class_weights makes weights"
        )
    values, _ = _arrays.unwrap(name, _arrays.beside(name, given, counts))
    vector = _to_numpy(name, values).astype(np.float64)
    if vector.shape != (size,):
        raise ValueError(
            f"{name} must be {size} numbers, one a class, got shape {vector.shape}; give one for each class "
            "of counts, in their order"
        )
    if not np.isfinite(vector).all():
        raise ValueError(
            f"{name} must be finite, got {vector[~np.isfinite(vector)][0]:g}; give the value that was used"
        )
    if finite_only:
        return vector
    if (vector < 0).any():
        raise ValueError(f"{name} must be >= 0, got {vector.min():g}; give the value that was used")
    if positive_where is not None:
        if (vector[positive_where] <= 0).any():
            raise ValueError(
                f"{name} is 0 for a class with samples, which the training therefore never saw; leave that "
                "class out, or give the value that was used"
            )
        vector = np.where(vector > 0, vector, 1.0)
    return vector


def _log_prior(sizes: Vector, counts: object, weight: object, offset: object, sampling: object) -> Vector:
    """The logarithm of the shares that the optimiser saw."""
    seen = sizes > 0
    log_seen = np.log(np.where(seen, sizes, 1.0))
    for name, values in (("weight", weight), ("sampling", sampling)):
        vector = _vector(name, values, counts, 1.0, positive_where=seen)
        if name == "sampling" and values is not None:
            _check_rates(vector[seen], sizes[seen])
        log_seen = log_seen + np.log(vector)
    log_seen = log_seen - _vector("offset", offset, counts, 0.0, finite_only=True)
    log_seen = np.where(seen, log_seen, log_seen[seen].min())
    return np.asarray(log_seen - _log_sum(log_seen))


def _check_rates(rates: Vector, sizes: Vector) -> None:
    """Refuse shares of the draws: they sum to 1, and no smaller class has a larger one."""
    rising = np.diff(rates[np.lexsort((rates, sizes))]) >= -1e-9
    if abs(rates.sum() - 1) < 1e-6 and rising.all() and len({*sizes.tolist()}) > 1:
        raise ValueError(
            "sampling must be how many times as often as in the data each class was drawn, got values that "
            "sum to 1 as shares of the draws do; divide them by the shares of the counts, or give the "
            "sampler's class_rates"
        )


def _target(target: object, sizes: Vector, counts: object) -> Vector:
    if isinstance(target, str):
        _checks.choice("target", target, ("uniform", "training"), also=" or an array or mapping of shares")
        if target == "uniform":
            return np.full(len(sizes), -math.log(len(sizes)))
        return _log_prior(sizes, counts, None, None, None)
    if target is None:
        raise TypeError(
            "target must be one of 'uniform', 'training' or an array or mapping of shares, got None; leave "
            "it out for 'uniform'"
        )
    shares = _vector("target", target, counts, 1.0)
    if (shares <= 0).any():
        raise ValueError(
            "target must give every class a share above 0, got 0 for some; give a small one to classes "
            "that cannot occur"
        )
    if abs(shares.sum() - 1) > 1e-6:
        raise ValueError(
            f"target must sum to 1, got {shares.sum():g}; divide it by its sum if it holds counts or weights"
        )
    return np.asarray(np.log(shares) - math.log(shares.sum()))


def cost_matrix(cost: object, counts: object, classes: int) -> Vector:
    """Check a cost matrix, which a frame may have by names: in the order of the counts'."""
    for turned in (cost, getattr(cost, "T", None)):  # a frame has the names of the classes twice
        _arrays.check_columns("cost" if turned is cost else "cost.T", turned, counts)
    matrix = _arrays.as_numpy("cost", cost)
    if matrix.shape != (classes, classes) or matrix.dtype.kind not in "biuf" or not np.isfinite(matrix).all():
        raise ValueError(
            f"cost must be finite of shape ({classes}, {classes}), rows the true class and columns the "
            f"predicted one, got {_checks.describe(matrix)}"
        )
    return matrix.astype(np.float64)


def _many_labels(counts: object, num_samples: int | None, activation: str) -> int | None:
    """Return the number of samples of many labels a sample, given or carried by the counts; else None."""
    carried = getattr(counts, "num_samples", None)
    if activation == "sigmoid":
        return carried if num_samples is None else num_samples
    if num_samples is not None:
        raise ValueError("num_samples is for multi-label data, with activation='sigmoid'; leave it out")
    if carried is not None:
        raise ValueError(
            f"counts are of many labels a sample, {carried} samples, which are no shares of classes; use "
            "adjust_logits with activation='sigmoid', or count one label a sample"
        )
    return None


def _log_sum(values: Vector) -> float:
    top = values.max()
    return float(top + np.log(np.exp(values - top).sum()))


def _log_not(log_shares: Vector) -> Vector:
    """log(1 - p) of shares that sum to 1; of the largest from the others' sum, exact where p is near 1."""
    shares = np.exp(log_shares)
    top = int(shares.argmax())
    rest = np.log1p(-np.minimum(shares, 0.5))
    rest[top] = _log_sum(np.delete(log_shares, top))
    return np.asarray(rest)


def _floats(name: str, given: object) -> tuple[Any, Any]:
    """Return values and their array namespace."""
    if isinstance(given, (list, tuple, np.ndarray)):
        try:
            values = np.asarray(given)
        except ValueError:
            raise ValueError(
                f"{name} must be a rectangular array, got {_checks.describe(given)}; give rows of one length"
            ) from None
        if values.dtype.kind not in "fiu":
            raise TypeError(f"{name} must be numbers, got {_checks.describe(values)}; convert them first")
        return (values if values.dtype.kind == "f" else values.astype(np.float64)), np
    if _arrays.is_series(given) or hasattr(given, "to_numpy"):
        try:
            return np.asarray(given.to_numpy(), dtype=np.float64), np
        except (TypeError, ValueError):
            raise TypeError(
                f"{name} must be numbers, got {_checks.describe(given)}; leave out columns of text"
            ) from None
    if not _arrays.is_array(given):
        raise TypeError(
            f"{name} must be an array of numbers, got {_checks.describe(given)}; give what the model returns"
        )
    xp = _arrays.namespace(given)
    if not xp.isdtype(given.dtype, "real floating"):
        raise TypeError(f"{name} must be floats, got {_checks.describe(given)}; convert them first")
    return given, xp


def _one_logit(values: Any, classes: int) -> bool:
    """Whether values are of class 1 alone: (N), (N, 1), maps (N, 1, H, W) or tokens (B, T, 1)."""
    if classes != 2 or values.ndim < 2:
        return bool(classes == 2 and values.ndim == 1)
    return bool(values.shape[-1] == 1 or (values.shape[1] == 1 and values.shape[-1] != 2))


def _check_shape(name: str, values: Any, classes: int) -> None:
    if values.ndim < 2 or values.shape[-1] != classes:
        raise ValueError(
            f"{name} must have one column a class, {classes} as counts has, got shape {tuple(values.shape)}; "
            "give the counts of this model's classes, the classes in the last dimension"
        )
    if values.ndim > 2 and values.shape[1] == classes:
        _checks.warn(
            f"{name} of shape {tuple(values.shape)} are read with the classes in the last dimension; if they "
            "are in dimension 1, as those of maps, move it to the end"
        )


def _has_values(values: Any) -> bool:
    """Whether an array has values to look at: in jax.jit, torch.compile and vmap it stands for any."""
    if "torch" in sys.modules and type(values).__module__.partition(".")[0] == "torch":
        torch = sys.modules["torch"]
        return not (torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(values))
    return not type(values).__name__.endswith("Tracer")


def _check_numbers(name: str, values: Any, xp: Any, *, rows: bool = False) -> None:
    # a sum is one read of the memory; only where it is not finite is a second look worth its time
    if math.isfinite(float(xp.sum(values))):
        return
    if bool(xp.any(xp.isnan(values))):
        raise ValueError(f"{name} hold NaN; look at the training, or leave those samples out")
    if bool(xp.any(values == math.inf)):
        raise ValueError(f"{name} hold infinity; clip them, or leave those samples out")
    if rows and bool(xp.any(xp.all(values == -math.inf, axis=-1))):
        raise ValueError(f"{name} have a row of -inf alone, which decides nothing; leave those samples out")


def _tolerance(dtype: Any, xp: Any) -> float:
    """By how much rows of probabilities may miss 1: half precision rounds each."""
    return max(_SUM, float(xp.finfo(dtype).eps))


def _wide(values: Any, xp: Any) -> Any:
    """Return values in single precision at least, in which a sum of many is not lost."""
    return xp.astype(values, xp.float32) if float(xp.finfo(values.dtype).eps) > 1e-6 else values


def _are_probabilities(values: Any, xp: Any, miss: float | None = None) -> bool:
    if 0 in values.shape:
        return False
    miss = _tolerance(values.dtype, xp) if miss is None else miss
    first = _wide(xp.reshape(values, (-1, values.shape[-1]))[0, :], xp)  # enough to tell most logits
    if bool(xp.any(first < 0)) or abs(float(xp.sum(first)) - 1) > miss:
        return False
    sums = xp.sum(_wide(values, xp), axis=-1)
    return not bool(xp.any(values < 0)) and bool(xp.all(abs(sums - 1) <= miss))


def _notice_shares(values: Any, xp: Any) -> None:
    """Warn where log-odds look like probabilities: a score of its own has no sum that tells."""
    flat = xp.reshape(values, (-1,))
    for part in (flat[:_FEW], flat):
        if part.shape[0] < _FEW or not bool(xp.all((part >= 0) & (part <= 1))):
            return
    if not bool(xp.any(flat > 0)):  # as of a layer that starts with zeros
        return
    _checks.warn(
        "logits are all in [0, 1], as probabilities are; give what comes before the sigmoid, "
        "log(p) - log(1 - p)"
    )


def _softmax(values: Any, xp: Any) -> Any:
    top = xp.max(values, axis=-1, keepdims=True)
    powers = xp.exp(values - top)
    return powers / xp.sum(powers, axis=-1, keepdims=True)


def _like(vector: Any, values: Any, xp: Any) -> Any:
    """Float64 numbers as an array of the same dtype, kind and device as `values`."""
    if xp is np:
        return np.asarray(vector, dtype=values.dtype)
    from array_api_compat import device

    return xp.asarray(np.asarray(vector).tolist(), dtype=values.dtype, device=device(values))


def _to_numpy(name: str, values: object) -> npt.NDArray[Any]:
    return values if isinstance(values, np.ndarray) else _arrays.as_numpy(name, values)


def logit(
    logits: npt.NDArray[Any],
    counts: object,
    prior: object,
    *,
    tau: float = 1.0,
    activation: str = "softmax",
    num_samples: int | None = None,
) -> npt.NDArray[np.floating]:
    """Take the prior that the optimiser saw away, for the uniform target.

    Of many labels a sample, whose number of samples is given, these are the log-odds of each label.

    Source: Menon et al. (ICLR 2021), equation 9: post-hoc logit adjustment.
    """
    adjusted: npt.NDArray[np.floating]
    shares = np.asarray(prior)
    # each output may have a share of its own, as counts of one sample: of many labels, or after an offset
    if num_samples is None and (activation == "softmax" or abs(shares.sum() - 1) < 1e-9):
        adjusted = adjust_logits(logits, prior, tau=tau, activation=activation)
    else:
        adjusted = adjust_logits(logits, prior, tau=tau, activation=activation, num_samples=1)
        if num_samples is None:  # for equal shares of the classes, not for one half
            adjusted = adjusted - np.asarray(math.log(len(shares) - 1), dtype=adjusted.dtype)
    return adjusted


def tuned_logit(
    logits: npt.NDArray[Any],
    counts: object,
    prior: object,
    *,
    held_out: tuple[Any, Any] | None = None,
    activation: str = "softmax",
) -> npt.NDArray[np.floating]:
    """Take as much of the prior away as held-out logits and labels say: see `tune_adjustment`.

    Source: of this house, not published: `logit` with tau chosen out of fold by the one-standard-error rule.
    """
    if held_out is None:
        raise ValueError(
            "adjustment 'tuned_logit' chooses by held-out predictions; give held_out=(logits, labels), or "
            "compare it on a table or on features, where they are made"
        )
    tau = tune_adjustment(*held_out, prior, activation=activation).tau
    return logit(logits, counts, prior, tau=tau, activation=activation)


ADJUSTMENTS.register("logit", logit)
ADJUSTMENTS.register("tuned_logit", tuned_logit)
