"""Prediction sets: several classes where one would be a guess, with a promise that holds for rare ones, too.

A set takes every class whose score is not stranger than those of the true classes of held-out samples. Which
score decides who is covered: the plain one covers 90 % of all samples and, on a long tail, hardly any of the
rare classes.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks
from longtail._arrays import as_numpy
from longtail.evaluation.reading import ACTIVATIONS, Classes, group_numbers, read_labels, reading_of

__all__ = ["METHODS", "PredictionSets", "SetEvaluation", "SetRule", "fit_sets", "prediction_sets"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

METHODS = ("adjusted", "prevalence", "class", "interpolated", "marginal")


@dataclass(frozen=True)
class SetEvaluation:
    """How well prediction sets hold on labelled samples. Shares from 0 to 1.

    Attributes:
        marginal_coverage: Share of the samples whose set has their class.
        macro_coverage: Mean of the classes' coverages, over the classes that occur.
        worst_coverage: The lowest of them.
        worst_class: Whose it is, the first of several.
        mean_size: Classes in a set, on average.
        below_half: Share of the classes that occur whose coverage is below one half.
        empty: Share of the sets without a class.
        per_class_coverage: Of each class; None for one without samples.
        natural_coverage: Coverage where the classes have the shares of the training; None without counts.
        natural_size: Mean size likewise.
        num_samples: Samples evaluated.
    """

    marginal_coverage: float
    macro_coverage: float
    worst_coverage: float
    worst_class: int
    mean_size: float
    below_half: float
    empty: float
    per_class_coverage: tuple[float | None, ...]
    natural_coverage: float | None
    natural_size: float | None
    num_samples: int

    def __str__(self) -> str:
        return (
            f"coverage {100 * self.marginal_coverage:.1f} % of the samples, "
            f"{100 * self.macro_coverage:.1f} % on average over classes, "
            f"{100 * self.worst_coverage:.1f} % in the worst class {self.worst_class}; "
            f"{self.mean_size:.2f} classes a set; {100 * self.below_half:.1f} % of the classes below half; "
            f"{self.num_samples} samples"
        )


@dataclass(frozen=True, eq=False)
class PredictionSets:
    """Sets of classes, one a sample: ``sets[i]`` are the class indices of sample i, the likeliest first.

    Attributes:
        contains: bool of shape (N, C).
        rule: what made them, with what it cannot promise in ``rule.note``.
        order: the classes of each sample, the likeliest first, shape (N, C).
    """

    contains: Flags
    rule: SetRule
    order: npt.NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.contains)

    def __getitem__(self, i: int) -> npt.NDArray[np.intp]:
        row = self.order[i]
        chosen: npt.NDArray[np.intp] = row[self.contains[i][row]]
        return chosen

    def __iter__(self) -> Iterator[npt.NDArray[np.intp]]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.contains, dtype=dtype)

    @property
    def sizes(self) -> npt.NDArray[np.intp]:
        """Classes in each set, shape (N,)."""
        return np.asarray(self.contains.sum(axis=1))

    @property
    def note(self) -> str:
        """What is not promised, in words."""
        return self.rule.note

    def evaluate(self, labels: object) -> SetEvaluation:
        """Compare the sets with the true classes of the same samples, given as ``held_out_labels`` are.

        Raises:
            TypeError: labels that are no integers, and no names of the counts.
            ValueError: another number of labels, or labels outside 0..C-1 or that the counts do not name.
        """
        samples, classes = self.contains.shape
        names, taker = self.rule.class_names, "prediction_sets or fit_sets"
        truth = read_labels("labels", labels, classes, names=names, called="counts", taker=taker)
        if len(truth) != samples:
            raise ValueError(f"labels must be one a set, {samples}, got {len(truth)}")
        held = self.contains[np.arange(samples), truth]
        of_class = np.bincount(truth, minlength=classes)
        here = of_class > 0
        covered = np.bincount(truth[held], minlength=classes)[here] / of_class[here]
        sizes = self.sizes
        natural: tuple[float | None, float | None] = (None, None)
        if self.rule.prior is not None and self.rule.prior[here].sum() > 0:
            weight = self.rule.prior[here] / self.rule.prior[here].sum()
            size = np.bincount(truth, weights=sizes, minlength=classes)[here] / of_class[here]
            natural = float(weight @ covered), float(weight @ size)
        by_class: list[float | None] = [None] * classes
        for c, share in zip(np.flatnonzero(here), covered, strict=True):
            by_class[c] = float(share)
        return SetEvaluation(
            marginal_coverage=float(held.mean()),
            macro_coverage=float(covered.mean()),
            worst_coverage=float(covered.min()),
            worst_class=int(np.flatnonzero(here)[covered.argmin()]),
            mean_size=float(sizes.mean()),
            below_half=float((covered < 0.5).mean()),
            empty=float((sizes == 0).mean()),
            per_class_coverage=tuple(by_class),
            natural_coverage=natural[0],
            natural_size=natural[1],
            num_samples=samples,
        )


@dataclass(frozen=True, eq=False)
class SetRule:
    """Which classes enter a set; made by `fit_sets` from held-out samples, called with scores.

    Attributes:
        method: how it scores.
        alpha: share of the samples whose set may lack their class.
        limits: a class enters where its score is at most this, shape (C,); infinite where it always does.
        prior: the shares of the classes in training, or of the held-out samples; shape (C,).
        held_out: held-out samples of each class, or groups of them.
        activation: how scores are read; None looks each time.
        note: what is not promised, in words; empty where all is.
        class_names: of the counts; None where they have none.
    """

    method: str
    alpha: float
    limits: Floats
    prior: Floats
    held_out: tuple[int, ...]
    activation: str | None
    note: str
    class_names: tuple[Hashable, ...] | None = None

    def __call__(self, scores: object) -> PredictionSets:
        """Make the sets of new samples.

        Raises:
            TypeError: scores of no floating point type.
            ValueError: another number of classes, NaN, or probabilities that do not sum to 1.
        """
        shares, log_shares = _probabilities("scores", scores, len(self.limits), self.activation)
        strange = _strangeness(self.method, shares, log_shares, self.prior)
        return PredictionSets(strange <= self.limits, self, np.argsort(strange, axis=1, kind="stable"))


def prediction_sets(
    held_out_scores: object,
    held_out_labels: object,
    scores: object,
    *,
    alpha: float = 0.1,
    method: str = "adjusted",
    counts: object = None,
    groups: object = None,
    activation: str | None = None,
    interpolation: float = 0.5,
) -> PredictionSets:
    """Return sets of classes that hold the true one with a promised share, for rare classes, too.

    Args:
        held_out_scores: Logits or probabilities, shape (N, C), of samples that the model was not trained on:
            a validation part, or out-of-fold ones. Drawn as the samples to predict are, for the promise.
        held_out_labels: Their classes, integers of shape (N,), or labels by the names of ``counts``.
        scores: Of the samples to predict, shape (M, C).
        alpha: Share of the samples whose set may lack their class, in (0, 1): 0.1 covers 90 %.
        method: All but "class" and "interpolated" have one limit for all classes, so that no class needs many
            held-out samples. "adjusted": 1 - p of the uniform prior, as `adjust_logits` gives it;
            "prevalence": -p / prior; "marginal": 1 - p, the usual sets, which leave rare classes out;
            "class": 1 - p with a limit of each class's own, which is infinite where the class has too few
            held-out samples, fewer than 9 for 90 %: then it is in every set, and the note says so;
            "interpolated": between the limits of "marginal" and "class".
        counts: Training samples per class, whose shares are the prior; None takes the held-out samples'.
        groups: One a held-out sample: those of one group (a patient, a track) count as one.
        activation: "softmax", "sigmoid" or "identity" for probabilities; None looks, as `evaluate` does.
        interpolation: For "interpolated": 0 is "marginal", 1 "class".

    Returns:
        The sets; ``sets.evaluate(labels)`` says how well they hold.

    Raises:
        TypeError: Scores of no floating point type, or labels that are neither integers nor names of counts.
        ValueError: alpha outside (0, 1), an unknown method, lengths that differ, probabilities that do not
            sum to 1, NaN, or a class without held-out samples where the method needs some.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.repeat([0, 1], [180, 20])
        >>> logits = rng.normal(size=(200, 2)) + np.log([0.9, 0.1]) + 2 * np.eye(2)[labels]
        >>> sets = prediction_sets(logits, labels, logits[:3], counts=[900, 100])
        >>> [s.tolist() for s in sets]
        [[0], [0], [0]]

    Source:
        Vovk, "Conditional validity of inductive conformal predictors", ACML 2012 (class-wise); Ding,
        Fermanian, Salmon, "Conformal prediction for long-tailed classification", 2025 (prevalence-adjusted
        and interpolated).
    """
    for name, given in (("held_out_scores", held_out_scores), ("scores", scores)):
        held = getattr(held_out_scores, "columns", None)
        named = counts if counts is not None or held is None else dict.fromkeys(map(str, held))
        if named is not None:
            called = "counts" if counts is not None else "held_out_scores.columns"
            _arrays.check_columns(name, given, named, called)
    _arrays.check_index(
        {"held_out_scores": held_out_scores, "held_out_labels": held_out_labels, "groups": groups}
    )
    rule = fit_sets(
        held_out_scores,
        held_out_labels,
        alpha=alpha,
        method=method,
        counts=counts,
        groups=groups,
        activation=activation,
        interpolation=interpolation,
    )
    return rule(scores)


def fit_sets(
    held_out_scores: object,
    held_out_labels: object,
    *,
    alpha: float = 0.1,
    method: str = "adjusted",
    counts: object = None,
    groups: object = None,
    activation: str | None = None,
    interpolation: float = 0.5,
) -> SetRule:
    """Return the rule that makes `prediction_sets`, to be kept and called with scores as they come.

    Args:
        held_out_scores: as for `prediction_sets`, and so are all others.
        held_out_labels: see `prediction_sets`.
        alpha: see `prediction_sets`.
        method: see `prediction_sets`.
        counts: see `prediction_sets`.
        groups: see `prediction_sets`.
        activation: see `prediction_sets`.
        interpolation: see `prediction_sets`.

    Returns:
        The rule.

    Raises:
        TypeError: as `prediction_sets`.
        ValueError: as `prediction_sets`.

    Example:
        >>> rule = fit_sets([[0.8, 0.2], [0.6, 0.4]], [0, 1], alpha=0.5, method="marginal")
        >>> rule([[0.7, 0.3]]).contains.tolist()
        [[True, False]]
    """
    alpha = _checks.number(
        "alpha", alpha, low=0, high=1, open_low=True, open_high=True, remedy="0.1 covers 90 %"
    )
    _checks.choice("method", method, METHODS)
    interpolation = _checks.number("interpolation", interpolation, low=0, high=1)
    given = as_numpy("held_out_scores", held_out_scores)
    if given.ndim != 2 or not given.size:
        raise ValueError(
            f"held_out_scores must have shape (N, C), got {given.shape}; of one logit z a sample give both "
            "classes', numpy.stack([0 * z, z], 1)"
        )
    size = given.shape[1]
    shares, log_shares = _probabilities("held_out_scores", given, size, activation)
    classes = None if counts is None else _counted(counts, size)
    names = None if classes is None else classes.names
    truth = read_labels("held_out_labels", held_out_labels, size, names=names, called="counts")
    if len(truth) != len(given):
        raise ValueError(
            f"held_out_labels must be one a row of held_out_scores, {len(given)}, got {len(truth)}"
        )
    of_class = np.bincount(truth, minlength=size)
    prior = _prior(classes, of_class, method)
    own = _strangeness(method, shares, log_shares, prior)[np.arange(len(truth)), truth]
    ids = np.arange(len(truth)) if groups is None else group_numbers(groups, len(truth))
    limit = _limit(own, ids, alpha)
    limits = np.full(size, limit)
    held = [len(np.unique(ids[truth == c])) for c in range(size)]
    if method in ("class", "interpolated"):
        limits = np.asarray([_limit(own[truth == c], ids[truth == c], alpha) for c in range(size)])
    missing = [c for c in range(size) if not held[c]]
    if method == "class" and missing:
        raise ValueError(
            f"method 'class' needs held-out samples of every class, but {_checks.shorten(missing)} have "
            "none; hold some out, or take 'adjusted' or 'prevalence', which have one limit for all classes"
        )
    always = [c for c in range(size) if math.isinf(limits[c])]
    if method == "interpolated":  # 1 - p reaches 1 at most
        limits = interpolation * np.minimum(limits, 1.0) + (1 - interpolation) * limit
    least = math.ceil(1 / alpha - 1 - 1e-9)
    note = _note(method, alpha, always, missing, math.isinf(limit), sum(held), least, groups is not None)
    return SetRule(method, alpha, limits, prior, tuple(held), activation, note, names)


def _limit(strange: Floats, ids: npt.NDArray[np.intp], alpha: float) -> float:
    """The ceil((m + 1)(1 - alpha))-th of m scores, each of m groups having the weight of one sample."""
    if not len(strange):
        return math.inf
    _, group, sizes = np.unique(ids, return_inverse=True, return_counts=True)
    order = np.argsort(strange, kind="stable")
    reached = np.cumsum(1 / sizes[group.reshape(-1)[order]])
    # ties of the sums are rounding: a whole number is meant
    place = int(np.searchsorted(reached, math.ceil((len(sizes) + 1) * (1 - alpha) - 1e-9) - 1e-9))
    return float(strange[order[place]]) if place < len(strange) else math.inf


def _counted(counts: object, columns: int) -> Classes:
    classes = Classes.read(counts, columns)
    if len(classes) != columns:
        raise ValueError(
            f"counts must have {columns} elements, one per column of the scores, got {len(classes)}"
        )
    return classes


def _prior(classes: Classes | None, of_class: npt.NDArray[np.intp], method: str) -> Floats:
    if classes is None:
        if method in ("adjusted", "prevalence") and not of_class.all():
            missing = _checks.shorten(np.flatnonzero(of_class == 0).tolist())
            raise ValueError(
                f"classes {missing} have no held-out samples, so their shares are not known; "
                "give the training samples per class as counts"
            )
        return np.asarray(of_class / of_class.sum())
    sizes = classes.counts.astype(np.float64)
    sizes = np.where(sizes > 0, sizes, sizes[sizes > 0].min())  # as adjust_logits takes it
    return np.asarray(sizes / sizes.sum())


def _probabilities(name: str, scores: object, size: int, activation: str | None) -> tuple[Floats, Floats]:
    """Probabilities and their logarithms, which know what underflows."""
    values = as_numpy(name, scores)
    if values.ndim != 2 or values.shape[1] != size:
        raise ValueError(f"{name} must have shape (N, {size}), one column a class, got {values.shape}")
    if values.dtype.kind != "f":
        raise TypeError(f"{name} must be floating point, got {values.dtype}; give logits or probabilities")
    read = (
        reading_of(values, name)
        if activation is None
        else _checks.choice("activation", activation, ACTIVATIONS)
    )
    values = values.astype(np.float64)
    if bad := int((~np.isfinite(values.max(axis=1, initial=-np.inf))).sum()) or int(
        np.isnan(values).any(axis=1).sum()
    ):
        raise ValueError(
            f"{name} has NaN, +inf or no finite score in {bad} of {len(values)} rows; leave them out"
        )
    if read == "identity":
        if ((values < 0) | (values > 1)).any():
            raise ValueError(f"{name} lies outside [0, 1]; for logits use activation='softmax'")
        with np.errstate(divide="ignore"):
            return values, np.log(values)
    if read == "sigmoid":
        log_shares = -np.logaddexp(0, -values)
    else:
        top = values.max(axis=1, keepdims=True)
        log_shares = values - top - np.log(np.exp(values - top).sum(axis=1, keepdims=True))
    return np.exp(log_shares), log_shares


def _strangeness(method: str, shares: Floats, log_shares: Floats, prior: Floats) -> Floats:
    if method == "prevalence":
        return -shares / prior
    if method == "adjusted":
        moved = log_shares - np.log(prior)
        top = moved.max(axis=1, keepdims=True)
        odds = np.exp(moved - top)
        return np.asarray(1 - odds / odds.sum(axis=1, keepdims=True))
    return 1 - shares


def _note(
    method: str,
    alpha: float,
    always: Sequence[int],
    missing: Sequence[int],
    all_infinite: bool,
    held: int,
    least: int,
    grouped: bool,
) -> str:
    what, cover = "groups of held-out samples" if grouped else "held-out samples", f"{100 * (1 - alpha):g} %"
    told = []
    if all_infinite:
        told.append(
            f"{held} {what} are fewer than the {least} that {cover} needs, so every set has every class"
        )
    elif method == "class" and always:
        told.append(
            f"{len(always)} of the classes have fewer than the {least} {what} that {cover} needs and are in "
            f"every set: {_checks.shorten(always)}"
        )
    elif method == "interpolated" and always:
        told.append(
            f"{len(always)} of the classes have fewer than the {least} {what} that {cover} needs, so their "
            f"own limit counts as the largest there is: {_checks.shorten(always)}"
        )
    elif method != "class" and missing:
        told.append(f"nothing held out says how well these classes are covered: {_checks.shorten(missing)}")
    return "; ".join(told)
