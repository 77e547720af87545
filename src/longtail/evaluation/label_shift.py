"""The class shares of data without labels, and whether they differ from those of the data with labels."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks
from longtail._arrays import as_numpy
from longtail.evaluation.intervals import THIN, Interval, checked_confidence
from longtail.evaluation.reading import Classes, group_numbers, read_labels, reading_of, softmax

__all__ = ["Calibration", "PriorEstimate", "estimate_prior", "fit_calibration"]

Floats = npt.NDArray[np.float64]

_STEPS = 2000
_CLOSE = 1e-7  # of the shares' sum of absolute changes
_RIDGE = 1.0  # on the biases: as much as one held-out sample says


@dataclass(frozen=True, eq=False)
class Calibration:
    """Held-out logits made probabilities: ``softmax(logits / temperature + bias)``.

    Attributes:
        temperature: above 1 where the model is too sure.
        bias: float64 of shape (C,), with the mean 0.
    """

    temperature: float
    bias: Floats

    def __call__(self, logits: object) -> Floats:
        """Return calibrated logits of shape (N, C), float64."""
        return np.asarray(as_numpy("logits", logits).astype(np.float64) / self.temperature + self.bias)


@dataclass(frozen=True, eq=False)
class PriorEstimate:
    """Class shares of unlabelled data, as `estimate_prior` finds them.

    Attributes:
        prior: float64 of shape (C,), positive, with the sum 1: a ``target`` of `adjust_logits`.
        interval: of each share, an `Interval` from bootstrap samples; None without resamples.
        source_prior: the shares that the model answers for: the held-out samples', or the training's.
        shifted: whether the unlabelled data have other shares than the held-out samples (95 %); None where
            there are no held-out samples to compare with.
        p_value: of that test.
        thin: classes with fewer than 5 held-out samples, whose share is drawn to that of the training.
        calibration: what was applied to logits; None without held-out samples.
        num_samples: unlabelled samples.
        verdict: all that in a sentence.
    """

    prior: Floats
    interval: tuple[Interval, ...] | None
    source_prior: Floats
    shifted: bool | None
    p_value: float | None
    thin: tuple[int, ...]
    calibration: Calibration | None
    num_samples: int
    verdict: str

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.prior, dtype=dtype)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON knows them."""
        pair = self.calibration and [self.calibration.temperature, self.calibration.bias.tolist()]
        ends = self.interval and [[*one, one.confidence] for one in self.interval]
        arrays = {"prior": self.prior.tolist(), "source_prior": self.source_prior.tolist()}
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        return kept | arrays | {"interval": ends, "calibration": pair, "thin": list(self.thin)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PriorEstimate:
        """Rebuild what `to_dict` gave, also after a trip through JSON.

        Raises:
            ValueError: A field is missing or unknown.
        """
        if wrong := sorted({f.name for f in fields(cls)}.symmetric_difference(values)):
            raise ValueError(
                f"values has missing or unknown fields: {_checks.shorten(wrong)}; give what to_dict returned"
            )
        pair, ends = values["calibration"], values["interval"]
        arrays = {name: np.asarray(values[name]) for name in ("prior", "source_prior")}
        read = {
            "interval": None if ends is None else tuple(Interval(*one) for one in ends),
            "calibration": None if pair is None else Calibration(pair[0], np.asarray(pair[1])),
            "thin": tuple(values["thin"]),
        }
        return cls(**{**values, **arrays, **read})

    def adjust(self, logits: object) -> Floats:
        """Return logits for the estimated prior: calibrated, and moved from the source prior to it."""
        given = as_numpy("logits", logits)
        if reading_of(given, "logits") == "identity":
            given = np.log(np.maximum(given.astype(np.float64), 1e-12))
        values = given.astype(np.float64) if self.calibration is None else self.calibration(given)
        return np.asarray(values + np.log(self.prior) - np.log(self.source_prior))


def estimate_prior(
    logits: object,
    counts: object,
    *,
    held_out_logits: object = None,
    held_out_labels: object = None,
    groups: object = None,
    held_out_groups: object = None,
    resamples: int = 100,
    confidence: float = 0.95,
    seed: int = 0,
) -> PriorEstimate:
    """Estimate the class shares of unlabelled data, where nothing but the shares differs from the labelled.

    A temperature and one bias a class are fitted to held-out samples; then EM finds the shares under which
    the unlabelled data are likeliest. A class with fewer than 5 held-out samples is drawn to its training
    share, the more the fewer it has, and is named.

    Args:
        logits: Of the unlabelled samples, floating point of shape (N, C); or probabilities.
        counts: Training samples per class, whose shares the model answers for unless held-out samples say
            more; as for `longtail.class_weights`.
        held_out_logits: Of labelled samples that the model was not trained on, shape (M, C): a validation
            part, or out-of-fold ones. Without them, the model's own probabilities are taken as they are.
        held_out_labels: Their classes, integers of shape (M,), or labels by the names of ``counts``.
        groups: One an unlabelled sample, of any kind: samples of one group (a patient, a track) are drawn
            together for the interval, and count in the test of a shift as if all said the same.
        held_out_groups: The same of the held-out samples, whose groups are then what a class has fewer than 5
            of.
        resamples: Bootstrap samples of both sets for the interval; 0 leaves it out.
        confidence: Of the interval, strictly between 0 and 1.
        seed: Of the bootstrap.

    Returns:
        The shares, how sure they are, and whether there is a shift at all.

    Raises:
        TypeError: Logits of no floating point type, or labels that are neither integers nor names of counts.
        ValueError: Other classes than the counts', NaN, probabilities that do not sum to 1, labels without
            their logits, fewer than two held-out classes, groups of another number.
        ModuleNotFoundError: SciPy is not installed.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> def draw(shares, n):
        ...     y = rng.choice(2, n, p=shares)
        ...     return 2 * rng.normal(size=(n, 2)) / 2 + 2 * np.eye(2)[y] + np.log([0.9, 0.1]), y
        >>> held_out, labels = draw([0.9, 0.1], 2000)
        >>> new, _ = draw([0.3, 0.7], 2000)
        >>> found = estimate_prior(new, [900, 100], held_out_logits=held_out, held_out_labels=labels)
        >>> found.prior.round(1).tolist(), found.shifted
        ([0.3, 0.7], True)

    Source:
        Saerens, Latinne, Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities",
        Neural Computation 2002 (EM); Alexandari, Kundaje, Shrikumar, "Maximum likelihood with bias-corrected
        calibration is hard-to-beat at label shift adaptation", ICML 2020; the test: Rabanser, Günnemann,
        Lipton, "Failing loudly", NeurIPS 2019.
    """
    for name, given in (("logits", logits), ("held_out_logits", held_out_logits)):
        _arrays.check_columns(name, given, counts)
    _arrays.check_index({"logits": logits, "groups": groups})
    labelled = {"held_out_logits": held_out_logits, "held_out_labels": held_out_labels}
    _arrays.check_index(labelled | {"held_out_groups": held_out_groups})
    shape = as_numpy("logits", logits).shape
    if len(shape) == 2:
        _check_classes(Classes.read(counts, shape[1]), shape[1])
    new = _read("logits", logits)
    size = new.shape[1]
    if size < 2:
        raise ValueError("logits must have two classes or more, one column each; got one")
    classes = Classes.read(counts, size)
    confidence = checked_confidence(confidence)
    resamples = _checks.integer("resamples", resamples, low=0)
    if (held_out_logits is None) != (held_out_labels is None):
        raise ValueError("held_out_logits and held_out_labels go together; give both or none")
    trained = classes.counts.astype(np.float64)
    trained = np.where(trained > 0, trained, trained[trained > 0].min())
    trained /= trained.sum()
    together = np.arange(len(new)) if groups is None else group_numbers(groups, len(new))
    if held_out_logits is None:
        if held_out_groups is not None:
            raise ValueError(
                "held_out_groups are given without held_out_logits; give both, or leave them out"
            )
        return _without_labels(new, together, trained, resamples, confidence, seed)
    old = _read("held_out_logits", held_out_logits)
    if old.shape[1] != size:
        raise ValueError(
            f"held_out_logits have {old.shape[1]} columns and logits {size}; give those of one model"
        )
    truth = read_labels("held_out_labels", held_out_labels, size, names=classes.names, called="counts")
    if len(truth) != len(old):
        raise ValueError(
            f"held_out_labels must be one a row of held_out_logits, {len(old)}, got {len(truth)}"
        )
    held = np.bincount(truth, minlength=size)
    if (held > 0).sum() < 2:
        one = truth[0] if classes.names is None else classes.names[truth[0]]
        raise ValueError(
            f"held_out_labels are all of class {one}; the other classes' logits cannot be calibrated by "
            "them: hold out samples of more classes"
        )
    units = np.arange(len(truth))  # what chance drew
    if held_out_groups is not None:
        units = group_numbers(held_out_groups, len(old), "held_out_groups")
        held = np.bincount(np.unique(np.stack([truth, units]), axis=1)[0], minlength=size)
    calibration = fit_calibration(old, truth)
    prior, source = _estimated(new, old, held, trained, calibration, np.ones(len(new)), np.ones(len(old)))
    interval = None
    if resamples:
        rng, found = np.random.default_rng(seed), np.empty((resamples, size))
        of_class = [np.flatnonzero(truth == c) for c in np.flatnonzero(held)]
        places = [np.unique(units[own], return_inverse=True)[1].reshape(-1) for own in of_class]
        for i in range(resamples):
            weight = _weights(rng, together)
            # every class keeps its held-out samples: which ones they are is what chance decides
            times = np.zeros(len(truth))
            for own, place in zip(of_class, places, strict=True):
                n = int(place.max()) + 1
                times[own] = np.bincount(rng.integers(n, size=n), minlength=n)[place]
            drawn, seen = np.flatnonzero(times), np.flatnonzero(weight)
            refit = fit_calibration(old[drawn], truth[drawn], weight=times[drawn], start=calibration, steps=8)
            parts = new[seen], old[drawn], held, trained, refit, weight[seen], times[drawn]
            found[i] = _estimated(*parts, start=prior)[0]
        interval = _ends(found, confidence)
    shares = _independent(units), _independent(together)
    p_value = _shift_test(old.argmax(axis=1), new.argmax(axis=1), size, *shares)
    thin = tuple(int(c) for c in np.flatnonzero(held < THIN))
    shifted = p_value < 0.05
    return PriorEstimate(
        prior,
        interval,
        source,
        shifted,
        p_value,
        thin,
        calibration,
        len(new),
        _verdict(shifted, p_value, prior, source, thin),
    )


def fit_calibration(
    logits: object,
    labels: object,
    *,
    weight: Floats | None = None,
    start: Calibration | None = None,
    steps: int = 200,
    biases: bool = True,
) -> Calibration:
    """Fit a temperature and one bias a class to held-out samples by their log-loss.

    Args:
        logits: Floating point of shape (N, C), of samples that the model was not trained on; or
            probabilities.
        labels: Class indices, integers of shape (N,).
        weight: How often each sample counts, shape (N,); None for once.
        start: Where to start from.
        steps: At most so many steps.
        biases: False fits the temperature alone.

    Returns:
        The calibration. Biases are drawn to 0 by what one sample says, so that a class without samples keeps
        its own.

    Raises:
        TypeError: Logits of no floating point type, or labels that are no integers.
        ValueError: Lengths that differ, or labels out of range.
        ModuleNotFoundError: SciPy is not installed.

    Example:
        >>> logits = np.array([[3.0, 0.0], [0.0, 3.0], [3.0, 0.0], [0.0, 3.0]])
        >>> fit_calibration(logits, [0, 1, 1, 0], biases=False).temperature > 10
        True

    Source:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; Alexandari et al., ICML 2020.
    """
    values = _read("logits", logits)
    truth = read_labels("labels", labels, values.shape[1])
    if len(truth) != len(values):
        raise ValueError(f"labels must be one a row of logits, {len(values)}, got {len(truth)}")
    times = np.ones(len(truth)) if weight is None else weight
    total, rows = times.sum(), np.arange(len(truth))
    values = np.maximum(values, values[np.isfinite(values)].min() - 100)  # masked classes: as good as never

    def loss(x: Floats) -> tuple[float, Floats]:
        moved = values * x[0] + x[1:]
        moved -= moved.max(axis=1, keepdims=True)
        own = moved[rows, truth]
        shares = np.exp(moved)
        sums = shares.sum(axis=1)
        lost = float(times @ (np.log(sums) - own)) + _RIDGE / 2 * float(x[1:] @ x[1:])
        shares /= sums[:, np.newaxis]
        shares[rows, truth] -= 1
        shares *= times[:, np.newaxis]
        slope = np.empty(len(x))
        slope[0] = (shares * values).sum()
        slope[1:] = shares.sum(axis=0) + _RIDGE * x[1:] if biases else 0
        return lost / total, slope / total

    first = np.zeros(values.shape[1] + 1)
    first[0] = 1.0
    if start is not None:
        first[0], first[1:] = 1 / start.temperature, start.bias
    bounds = [(1e-3, 1e3), *[(None, None)] * values.shape[1]]
    found = (
        _optimize()
        .minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps})
        .x
    )
    return Calibration(float(1 / found[0]), found[1:] - found[1:].mean())


def _check_classes(classes: Classes, columns: int) -> None:
    if len(classes) != columns:
        raise ValueError(
            f"counts must have {columns} elements, one per column of logits, got {len(classes)}; the model "
            "and the counts must have the same classes"
        )


def _read(name: str, given: object) -> Floats:
    values = as_numpy(name, given)
    if values.ndim != 2 or not values.size:
        raise ValueError(
            f"{name} must have shape (N, C), one row a sample, got {values.shape}; of one logit z a sample "
            "give both classes', numpy.stack([0 * z, z], 1)"
        )
    if values.dtype.kind != "f":
        raise TypeError(f"{name} must be floating point, got {values.dtype}; give logits or probabilities")
    if bad := int((~np.isfinite(values.max(axis=1))).sum()):
        raise ValueError(
            f"{name} has NaN, +inf or no finite score in {bad} of {len(values)} rows; leave them out"
        )
    read = reading_of(values, name)
    values = values.astype(np.float64)
    return values if read == "softmax" else np.log(np.maximum(values, 1e-12))


def _estimated(
    new: Floats,
    old: Floats,
    held: npt.NDArray[np.intp],
    trained: Floats,
    calibration: Calibration,
    weight: Floats,
    times: Floats,
    start: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Shares of the new data, and those that the calibrated model answers for."""
    source = np.maximum(times @ softmax(calibration(old)) / times.sum(), 1e-12)
    source /= source.sum()
    found = _em(softmax(calibration(new)), source, weight, source if start is None else start)
    trust = np.minimum(held / THIN, 1.0)
    mixed = trust * found + (1 - trust) * trained
    thin = trust < 1
    if thin.any() and not thin.all():  # the others keep their proportions
        mixed[~thin] *= max(1 - mixed[thin].sum(), 1e-12) / max(mixed[~thin].sum(), 1e-12)
    mixed = np.maximum(mixed, 1e-9)
    return mixed / mixed.sum(), source


def _em(shares: Floats, source: Floats, weight: Floats, start: Floats) -> Floats:
    ratios, total = shares / source, weight.sum()
    prior = start.copy()
    for _ in range(_STEPS):
        mixed = ratios @ prior
        moved = prior * ((weight / mixed) @ ratios) / total
        done = np.abs(moved - prior).sum() < _CLOSE
        prior = moved
        if done:
            break
    return prior


def _weights(rng: np.random.Generator, groups: npt.NDArray[np.int64]) -> Floats:
    """How often each sample is drawn, with all of its group."""
    units = int(groups.max()) + 1
    often: Floats = rng.multinomial(units, np.full(units, 1 / units)).astype(np.float64)
    return often[groups]


def _independent(groups: npt.NDArray[np.int64]) -> float:
    """The share of some samples that would say as much, if those of one group all said the same."""
    sizes = np.bincount(groups).astype(np.float64)
    return float(sizes.sum() / (sizes**2).sum())


def _without_labels(
    new: Floats,
    groups: npt.NDArray[np.int64],
    trained: Floats,
    resamples: int,
    confidence: float,
    seed: int,
) -> PriorEstimate:
    shares = softmax(new)
    prior = np.maximum(_em(shares, trained, np.ones(len(new)), trained), 1e-9)
    prior /= prior.sum()
    interval = None
    if resamples:
        rng, found = np.random.default_rng(seed), np.empty((resamples, len(prior)))
        for i in range(resamples):
            found[i] = _em(shares, trained, _weights(rng, groups), prior)
        interval = _ends(found, confidence)
    text = (
        "Without held-out samples nothing was calibrated, and no shift can be told from the model's errors; "
        f"largest share {100 * prior.max():.1f} % for class {int(prior.argmax())}."
    )
    return PriorEstimate(prior, interval, trained, None, None, (), None, len(new), text)


def _ends(found: Floats, confidence: float) -> tuple[Interval, ...]:
    low, high = np.quantile(found, ((1 - confidence) / 2, (1 + confidence) / 2), axis=0)
    return tuple(Interval(a, b, confidence) for a, b in zip(low, high, strict=True))


def _shift_test(
    old: npt.NDArray[np.intp],
    new: npt.NDArray[np.intp],
    size: int,
    old_share: float = 1.0,
    new_share: float = 1.0,
) -> float:
    """Of a chi-square test whether predictions on both sets have the same shares; rare ones together.

    Of each set a share counts, as if it had so many samples: groups say less than their samples apart.
    """
    table = np.stack(
        [old_share * np.bincount(old, minlength=size), new_share * np.bincount(new, minlength=size)]
    )
    expected = table.sum(axis=0) * table.sum(axis=1).min() / table.sum()
    rare = expected < THIN
    if rare.any():
        table = np.concatenate([table[:, ~rare], table[:, rare].sum(axis=1, keepdims=True)], axis=1)
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    return float(_special().gammaincc((table.shape[1] - 1) / 2, statistic / 2))


def _verdict(shifted: bool, p_value: float, prior: Floats, source: Floats, thin: tuple[int, ...]) -> str:
    sure = f"p = {p_value:.2g}" if p_value >= 1e-4 else "p < 0.0001"
    if shifted:
        most = int(np.abs(prior - source).argmax())
        text = (
            f"The unlabelled data have other class shares than the held-out samples ({sure}); most for class "
            f"{most}: {100 * source[most]:.1f} % becomes {100 * prior[most]:.1f} %"
        )
    else:
        text = f"No shift of the class shares can be told from chance ({sure}); keep the prior you have"
    if thin:
        text += (
            f"; fewer than {THIN} held-out samples in {len(thin)} classes, whose shares are drawn to the "
            f"training's: {_checks.shorten(thin)}"
        )
    return text + "."


def _optimize() -> Any:
    return _scipy("scipy.optimize")


def _special() -> Any:
    return _scipy("scipy.special")


def _scipy(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "calibration and the test of a shift need SciPy; install it with: pip install 'longtail[train]'",
            name=error.name,
        ) from error
