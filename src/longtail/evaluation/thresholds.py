"""Where to cut a score: thresholds of classes by F1, a floor of precision or cost, chosen out of fold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks
from longtail._arrays import as_numpy
from longtail.evaluation.curves import Curve
from longtail.evaluation.intervals import THIN
from longtail.evaluation.multi_label import Labelled, read_multi_label
from longtail.evaluation.reading import ACTIVATIONS, group_numbers, read_labels, reading_of, sigmoid, softmax

__all__ = ["TunedThresholds", "class_curves", "tune_thresholds"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Shares = tuple[float | None, ...]

_RULES = ("f1", "precision", "cost")


@dataclass(frozen=True, eq=False)
class TunedThresholds:
    """Thresholds of probabilities, and how good they are on samples that did not choose them.

    Attributes:
        thresholds: float64 of shape (C,): a label is given from this probability on; a ``threshold`` of
            `longtail.evaluate`.
        f1: of each class, each sample decided by thresholds of the other folds; None without positives.
        precision: likewise; None where nothing was given.
        recall: likewise; None without positives.
        macro_f1: mean of `f1` over the classes with a positive.
        plain_macro_f1: the same at 0.5 everywhere.
        thin: classes with fewer than 5 positives, which keep 0.5, or the threshold that cost says.
        cost: of each class, the mean cost of a sample, decided as for `f1`; empty unless chosen by cost.
        plain_cost: the same at 0.5.
    """

    thresholds: Floats
    f1: Shares
    precision: Shares
    recall: Shares
    macro_f1: float | None
    plain_macro_f1: float | None
    thin: tuple[int, ...]
    cost: Shares = ()
    plain_cost: Shares = ()


def class_curves(scores: object, targets: object, *, activation: str | None = None) -> tuple[Curve, ...]:
    """Return each class's curve against the rest: precision, recall and ROC at every threshold.

    Args:
        scores: Logits or probabilities of shape (N, C).
        targets: Class indices of shape (N,); or many labels, 0 and 1 of shape (N, C), where NaN or -100
            leaves an element out.
        activation: "softmax", "sigmoid" or "identity", probabilities; None looks, as `evaluate` does.

    Returns:
        C curves, whose thresholds are probabilities; `macro_curves` averages them.

    Raises:
        TypeError: Targets that are no classes.
        ValueError: Shapes that do not fit, or NaN.

    Example:
        >>> curves = class_curves([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]], [0, 1, 1])
        >>> [round(curve.average_precision, 2) for curve in curves]
        [1.0, 1.0]
    """
    _arrays.check_index({"scores": scores, "targets": targets})
    given, truth = as_numpy("scores", scores), as_numpy("targets", targets)
    if given.ndim != 2 or given.dtype.kind != "f" or not len(given):
        raise ValueError(f"scores must be floating point of shape (N, C), got {_checks.describe(given)}")
    if truth.shape == given.shape:
        read = read_multi_label(given, truth, activation)
        shares = read.probabilities
        assert shares is not None
        pairs = [(shares[k, c], read.truth[k, c]) for c, k in enumerate(read.known.T)]
    else:
        labels = read_labels("targets", targets, given.shape[1])
        if len(labels) != len(given):
            raise ValueError(f"targets must be one a row of scores, {len(given)}, got {len(labels)}")
        if not np.isfinite(given).all():
            raise ValueError("scores hold NaN or infinity; find where training diverged")
        shares = class_shares(given, activation)
        pairs = [(shares[:, c], labels == c) for c in range(given.shape[1])]
    none = np.zeros(0, dtype=np.int64)
    return tuple(Curve.of(s, t) if len(s) else Curve(np.zeros(0), none, none, 0, 0) for s, t in pairs)


def class_shares(scores: Array, activation: str | None = None) -> Floats:
    """Return the probability of each class; None looks whether they are some already."""
    values = scores.astype(np.float64)
    kind = _checks.choice("activation", activation or reading_of(scores, "scores"), ACTIVATIONS)
    if kind == "identity":
        return np.asarray(values)
    if kind == "sigmoid":
        return sigmoid(values)
    return softmax(values)


def tune_thresholds(
    scores: object,
    targets: object,
    *,
    by: str = "f1",
    floor: float = 0.9,
    cost: tuple[float, float] = (1.0, 1.0),
    groups: object = None,
    folds: int = 5,
    seed: int = 0,
    activation: str | None = None,
) -> TunedThresholds:
    """Choose a threshold for each class by held-out samples, and tell what it is worth out of fold.

    Args:
        scores: Logits or probabilities of shape (N, C), of samples that the model was not trained on; for one
            class against the rest also (N,).
        targets: 0 and 1 of the same shape; NaN or -100 leaves an element out.
        by: "f1": the highest F1; "precision": the highest recall with at least ``floor`` precision; "cost":
            the lowest cost.
        floor: For "precision", in (0, 1].
        cost: For "cost": of a false alarm, and of a miss; both > 0.
        groups: One a sample: those of one group (a patient, a track) stay in one fold.
        folds: At least 2.
        seed: Of the folds.
        activation: "sigmoid" for logits, "identity" for probabilities; None looks, as `evaluate` does.

    Returns:
        The thresholds, chosen by all samples, and their worth on samples that did not choose them.

    Raises:
        ValueError: Shapes that differ, values out of range, NaN, or fewer groups than folds.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> truth = rng.random((500, 2)) < [0.3, 0.05]
        >>> logits = rng.normal(size=(500, 2)) + 2 * truth - 3
        >>> found = tune_thresholds(logits, truth)
        >>> bool((found.thresholds < 0.5).all()), found.macro_f1 > found.plain_macro_f1
        (True, True)
    """
    _checks.choice("by", by, _RULES)
    floor = _checks.number("floor", floor, low=0, high=1, open_low=True)
    alarm, miss = (_checks.number("cost", c, low=0, open_low=True, open_high=True) for c in cost)
    folds = _checks.integer("folds", folds, low=2)
    _arrays.check_index({"scores": scores, "targets": targets, "groups": groups})
    given, truth = as_numpy("scores", scores), as_numpy("targets", targets)
    if given.ndim == 1:
        given, truth = given[:, np.newaxis], truth.reshape(-1, 1)
    if given.shape != truth.shape or given.ndim != 2 or given.dtype.kind != "f":
        raise ValueError(
            f"scores must be floating point of the shape of targets, (N, C) or (N,), got {given.shape} of "
            f"{given.dtype} and {truth.shape}"
        )
    if not (np.isin(truth, (0, 1, -100)) | (truth != truth)).all():
        raise ValueError("targets must hold 0 and 1, one column a class; NaN or -100 leaves an element out")
    read = read_multi_label(given, truth, activation)
    shares = read.probabilities
    assert shares is not None
    ids = np.arange(len(truth)) if groups is None else group_numbers(groups, len(truth))
    units = int(ids.max()) + 1
    if units < folds:
        raise ValueError(f"folds must be at most the {units} samples or groups, got {folds}")
    fold = np.random.default_rng(seed).permutation(units)[ids] % folds
    fallback = alarm / (alarm + miss) if by == "cost" else 0.5

    def chosen(rows: Flags) -> Floats:
        return np.asarray(
            [
                _threshold(shares[here, c], read.truth[here, c], by, floor, alarm, miss, fallback)
                for c, here in enumerate((read.known & rows[:, np.newaxis]).T)
            ]
        )

    decided = np.zeros(truth.shape, dtype=np.bool_)
    for k in range(folds):
        decided[fold == k] = shares[fold == k] >= chosen(fold != k)
    positives = read.truth.sum(axis=0)
    f1, precision, recall = _scores(decided, read)
    plain, _, _ = _scores(shares >= 0.5, read)
    costs: list[Shares] = [(), ()]
    if by == "cost":
        costs = [_costs(given, read, alarm, miss) for given in (decided, shares >= 0.5)]
    return TunedThresholds(
        thresholds=chosen(np.ones(len(truth), dtype=np.bool_)),
        f1=f1,
        precision=precision,
        recall=recall,
        macro_f1=_mean(f1),
        plain_macro_f1=_mean(plain),
        thin=tuple(int(c) for c in np.flatnonzero(positives < THIN)),
        cost=costs[0],
        plain_cost=costs[1],
    )


def _costs(decided: Flags, read: Labelled, alarm: float, miss: float) -> Shares:
    """The mean cost of a known sample, of each class."""
    alarms = (decided & ~read.truth & read.known).sum(axis=0)
    misses = (~decided & read.truth & read.known).sum(axis=0)
    known = read.known.sum(axis=0)
    return _ratio(alarm * alarms + miss * misses, known, known)


def _threshold(
    shares: Floats, truth: Flags, by: str, floor: float, alarm: float, miss: float, fallback: float
) -> float:
    """The best threshold of one class, in the middle between two probabilities."""
    if truth.sum() < THIN:
        return fallback
    curve = Curve.of(shares, truth)
    if by == "precision":
        enough = np.flatnonzero(curve.precision >= floor)
        if not len(enough):
            return 1.0
        best = int(enough[-1])
    else:
        cost = alarm * (curve.taken - curve.found) + miss * (curve.positives - curve.found)
        best = int(np.argmax(curve.f1)) if by == "f1" else int(np.argmin(cost))
        if by == "cost" and miss * curve.positives < cost[best]:
            return 1.0
    below = curve.thresholds[best + 1] if best + 1 < len(curve.thresholds) else 0.0
    return float((curve.thresholds[best] + below) / 2)


def _scores(decided: Flags, read: Labelled) -> tuple[Shares, Shares, Shares]:
    given = decided & read.known
    right, taken = (given & read.truth).sum(axis=0), given.sum(axis=0)
    positives = read.truth.sum(axis=0)
    return (
        _ratio(2 * right, positives + taken, positives),
        _ratio(right, taken, taken),
        _ratio(right, positives, positives),
    )


def _ratio(part: Any, whole: Any, here: Any) -> Shares:
    return tuple(float(p / w) if h else None for p, w, h in zip(part, whole, here, strict=True))


def _mean(values: Shares) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None
