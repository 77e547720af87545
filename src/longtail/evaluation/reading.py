"""What comes in: scores, predictions and targets of any layout, one row a sample afterwards."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks
from longtail._arrays import as_numpy, group_numbers

__all__ = [
    "ACTIVATIONS",
    "Batch",
    "Classes",
    "group_ids",
    "group_numbers",
    "read_batch",
    "read_labels",
    "reading_of",
    "sigmoid",
    "softmax",
]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

ACTIVATIONS = ("softmax", "sigmoid", "identity")
SUM = 1e-3  # by which rows of probabilities may miss 1
_ORDER = "the order is evaluate(logits_or_predictions, targets, class_counts)"
_VOID = (-100, -1, 255)  # what usually marks what has no class
_RELATIVE = (10, 50)  # many: more than a tenth of the largest class; few: less than a fiftieth


@dataclass(frozen=True, eq=False)
class Classes:
    """Training samples of the classes, and their names where they have some.

    Attributes:
        counts: int64 of shape (C,).
        names: text or other labels in the order of the outputs; None where classes are numbers.
    """

    counts: Integers
    names: tuple[Hashable, ...] | None = None

    def __len__(self) -> int:
        return len(self.counts)

    @classmethod
    def read(cls, given: object, columns: int | None = None) -> Classes:
        """Read counts of any kind; of integer names with gaps, where the columns say how many there are.

        Raises:
            TypeError: no numbers.
            ValueError: no counts, or names that are not the outputs'.
        """
        name = "class_counts"
        _arrays.refuse_weights(name, given)
        source = _arrays.in_output_order(name, _filled(given, columns))
        names = _arrays.output_names(source)
        if isinstance(source, dict):
            source = list(source.values())
        counts = as_numpy(name, source)
        if counts.ndim != 1 or not counts.size:
            raise ValueError(
                f"{name} must have shape (C,), got {counts.shape}; give the training samples of each class"
            )
        if counts.dtype.kind not in "iuf":
            raise TypeError(
                f"{name} must hold whole numbers, got {counts.dtype}; give the training samples of each class"
            )
        bad = ~((counts >= 0) & (counts <= 2**53) & (np.floor(counts) == counts))
        if bad.any():
            first = int(np.argmax(bad))
            raise ValueError(
                f"{name} must hold whole numbers from 0 to 2**53, got {counts[first]} for class {first}; "
                "give the training samples of each class"
            )
        if not counts.any():
            raise ValueError(
                f"{name} is 0 for all {len(counts)} classes; give the training samples of each class"
            )
        return cls(counts.astype(np.int64), names)

    def shots(self, many: int | None, few: int | None) -> tuple[int, int]:
        """Return what separates many, medium and few shots: 100 and 20 where nothing else is said.

        Where all classes have more than 100 samples, and so all are many-shot, shares of the largest class
        separate them: a tenth and a fiftieth.

        Raises:
            ValueError: few > many.
        """
        if many is None and few is None:
            trained = self.counts[self.counts > 0]
            top = int(trained.max())
            relative = top // _RELATIVE[0], top // _RELATIVE[1]
            if trained.min() > 100 and trained.min() <= relative[0]:
                return relative
        many = 100 if many is None else _checks.integer("many", many, low=0)
        few = min(20, many) if few is None else _checks.integer("few", few, low=0)
        if few > many:
            raise ValueError(
                f"few must be at most many, got few={few} and many={many}; groups must not overlap"
            )
        return many, few

    def groups(self, limits: tuple[int, int]) -> Integers:
        """Return 0 for a many-shot, 1 for a medium-shot and 2 for a few-shot class, shape (C,)."""
        many, few = limits
        return np.where(self.counts > many, 0, np.where(self.counts >= few, 1, 2))

    def numbers(self, name: str, values: Array) -> Array:
        """Return labels as class indices; text and other names by the names of the counts.

        Raises:
            TypeError: names, where the counts have none.
            ValueError: a label that the counts do not name.
        """
        return _arrays.class_numbers(name, values, self.names, "class_counts")


def _filled(given: object, columns: int | None) -> object:
    if columns is None or not isinstance(given, Mapping) or not 0 < len(given) < columns:
        return given
    pairs = dict(given.items())
    whole = all(isinstance(k, (int, np.integer)) and not isinstance(k, bool) for k in pairs)
    if not whole or not all(0 <= int(k) < columns for k in pairs):
        return given
    return {c: 0 for c in range(columns)} | {int(k): n for k, n in pairs.items()}


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples as rows.

    Attributes:
        truth: class indices, shape (n,).
        scores: shape (n, C), or None where predictions were given.
        predicted: class indices of shape (n,), or None where scores were given.
        activation: what makes probabilities of the scores; None for predictions.
        kept: which of the given samples, flattened, these are.
    """

    truth: Integers
    scores: Array | None
    predicted: Integers | None
    activation: str | None
    kept: Flags


def shape_of(values: object) -> tuple[int, ...]:
    """The shape of anything array-like."""
    return tuple(getattr(values, "shape", None) or as_numpy("logits_or_predictions", values).shape)


def columns_of(scores: object) -> int | None:
    """How many classes scores have; None for one score or prediction a sample."""
    shape = shape_of(scores)
    return shape[1] if len(shape) > 1 and shape[1] > 1 else None


def read_batch(
    given: object, targets: object, classes: Classes, activation: str | None, ignore_index: object = None
) -> Batch:
    """Read scores or predictions, and targets, of one label a sample.

    Raises:
        TypeError: kinds of values that are none of these.
        ValueError: shapes or values that do not fit together.
    """
    name = "logits_or_predictions"
    scores, truth = as_numpy(name, given), as_numpy("targets", targets)
    truth = _squeezed(scores, truth, len(classes))
    scores, one = _rows(scores, truth, len(classes))
    truth = truth.reshape(-1)
    kept = np.ones(len(truth), dtype=np.bool_) if ignore_index is None else truth != ignore_index
    if one and truth.dtype.kind == "f":
        kept &= ~np.isnan(truth)  # unknown, as for the loss
    if not kept.all():
        scores, truth = scores[kept], truth[kept]
    truth = _classes("targets", classes.numbers("targets", truth), len(classes))
    if one:
        scores, activation = _two_columns(scores, activation)
        return Batch(truth, scores, None, activation, kept)
    if scores.ndim == 1:
        return Batch(truth, None, _classes(name, classes.numbers(name, scores), len(classes)), None, kept)
    return Batch(truth, scores, None, activation or reading_of(scores), kept)


def read_labels(
    name: str,
    labels: object,
    classes: int,
    *,
    names: tuple[Hashable, ...] | None = None,
    called: str | None = None,
    taker: str | None = None,
) -> Integers:
    """Read class indices of shape (N,), or labels by the names of the counts.

    Args:
        name: of the labels in messages.
        labels: one a sample.
        classes: how many there are.
        names: of the classes; None where the counts have none.
        called: the argument that may have the names; None where there is none, and names are no integers.
        taker: the function that takes it, where it is not the one that takes the labels.

    Raises:
        TypeError: no integers, and no names of the counts.
        ValueError: another shape, none, out of range, or a label that the counts do not name.
    """
    values = as_numpy(name, labels)
    if called is not None and values.ndim == 1 and len(values):
        values = _arrays.class_numbers(name, values, names, called, taker)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{name} must be class indices of shape (N,), got shape {values.shape}")
    return _classes(name, values, classes)


def side_by_side(scores: object, targets: object, counts: object, groups: object = None) -> None:
    """Refuse frames whose columns are the classes, or whose rows are the samples, in another order.

    Raises:
        ValueError: so.
    """
    name = "logits_or_predictions"
    for what, given in ((name, scores), ("targets", targets)):
        _arrays.check_columns(what, given, counts)
    _arrays.check_index({name: scores, "targets": targets, "groups": groups})


def group_ids(groups: object, samples: int) -> list[Hashable]:
    """Read one group a sample, as `longtail._arrays.group_ids` does.

    Raises:
        ValueError: another number of them, or a sample without one.
    """
    return _arrays.group_ids("groups", groups, samples)


def _squeezed(scores: Array, truth: Array, classes: int) -> Array:
    """Targets (N, 1, ...) beside one score a sample (N, 1, ...) or (N, ...)."""
    if classes != 2 or scores.dtype.kind != "f" or truth.ndim < 2 or truth.shape[1] != 1:
        return truth
    without = truth.shape[:1] + truth.shape[2:]
    return truth.reshape(without) if scores.shape in (truth.shape, without) else truth


def _rows(scores: Array, truth: Array, classes: int) -> tuple[Array, bool]:
    """Scores as (n, C), or as (n,): one score or one prediction a sample; and whether it is one score."""
    name = "logits_or_predictions"
    if truth.ndim == 2 and scores.ndim == 1:
        raise ValueError(f"targets has shape {truth.shape} and {name} {scores.shape}: swapped? {_ORDER}")
    if not scores.ndim:
        raise ValueError(f"{name} must have shape (N, C) or (N,), got (); give one row a sample")
    if not len(scores):
        raise ValueError(f"{name} has shape {scores.shape}, no sample; give at least one")
    if classes == 2 and scores.dtype.kind == "f":
        without = scores.shape[:1] + scores.shape[2:] if scores.ndim > 1 and scores.shape[1] == 1 else None
        if scores.shape == truth.shape or without == truth.shape:
            return scores.reshape(-1), True
    if scores.ndim == 1 and scores.dtype.kind == "f":
        raise TypeError(
            f"{name} of shape {scores.shape} must hold integers, got {scores.dtype}; give class indices, or "
            f"for one score a sample two counts, of negatives and positives: class_counts has {classes}"
        )
    if scores.shape == truth.shape:
        if scores.ndim > 1 and scores.dtype.kind == "f":
            raise ValueError(
                f"targets must have shape {scores.shape[:1]}, got {truth.shape}; give one class index per "
                "sample, or 0 and 1 a column for many labels"
            )
        return scores.reshape(-1), False
    if scores.ndim == 1:
        _check_length(len(scores), truth, classes)
    if scores.ndim == 2 or truth.ndim + 1 != scores.ndim:
        if truth.ndim != 1:
            remedy = "; targets.squeeze(1) may be meant" if truth.ndim > 1 and truth.shape[1] == 1 else ""
            raise ValueError(
                f"targets must have shape (N,), got {truth.shape} beside {name} {scores.shape}; give one "
                f"class index per sample{remedy}"
            )
        if scores.ndim != 2:
            raise ValueError(
                f"{name} must have shape (N, C) or (N,), got {scores.shape} beside targets of shape "
                f"{truth.shape}; scores (N, C, ...) go with targets (N, ...)"
            )
        _check_length(len(scores), truth, classes)
    if scores.dtype.kind != "f":
        raise TypeError(
            f"{name} of shape {scores.shape} must be floating point, got {scores.dtype}; "
            "convert scores to float, or give class indices of shape (N,)"
        )
    if scores.shape[1] == classes and scores.shape[:1] + scores.shape[2:] == truth.shape:
        return np.moveaxis(scores, 1, -1).reshape(-1, classes), False
    if scores.shape[-1] == classes and scores.shape[:-1] == truth.shape:
        return scores.reshape(-1, classes), False
    if scores.ndim > 2:
        raise ValueError(
            f"{name} {scores.shape} do not fit targets {truth.shape} and {classes} classes; scores are "
            "(N, C, ...) or (N, ..., C), targets (N, ...)"
        )
    raise ValueError(
        f"class_counts must have {scores.shape[1]} elements, one per column of {name}, "
        f"got {classes}; {_ORDER}"
    )


def _check_length(samples: int, truth: Array, classes: int) -> None:
    if truth.ndim == 1 and len(truth) != samples:
        hint = f"swapped with class_counts? {_ORDER}" if classes == samples else "give one target per sample"
        raise ValueError(
            f"targets must have {samples} elements like logits_or_predictions, got {len(truth)}; {hint}"
        )


def _two_columns(scores: Array, activation: str | None) -> tuple[Array, str]:
    """One score a sample as two columns: a logit beside 0, or a probability beside the rest."""
    values = scores.astype(np.float64)
    if activation is None:
        inside = len(values) > 0 and bool(((values >= 0) & (values <= 1)).all())
        activation = "identity" if inside else "sigmoid"
    if activation == "identity":
        return np.stack([1 - values, values], axis=1), activation
    return np.stack([np.zeros_like(values), values], axis=1), "softmax"


def reading_of(scores: Array, name: str = "logits_or_predictions") -> str:
    """Tell logits, "softmax", from probabilities, "identity".

    Raises:
        ValueError: they lie in [0, 1] and do not sum to 1.
    """
    if not len(scores) or (scores[0] < 0).any() or not (scores >= 0).all():
        return "softmax"
    off = np.abs(scores.sum(axis=1, dtype=np.float64) - 1)
    if (off <= SUM).all():
        return "identity"
    if (scores <= 1).all() and ((scores > 0) & (scores < 1)).any():
        first = int(np.argmax(off > SUM))
        raise ValueError(
            f"{name} lie in [0, 1] as probabilities do, but row {first} sums to "
            f"{scores[first].sum(dtype=np.float64):.4g}; divide each row by its sum, or give "
            "activation='softmax' for logits, 'identity' for probabilities of independent classes"
        )
    return "softmax"


def _classes(name: str, classes: Array, num_classes: int) -> Integers:
    if num_classes == 2 and classes.dtype.kind in "bf" and np.isin(classes, (0, 1)).all():
        return classes.astype(np.int64)
    if classes.dtype.kind not in "iu":
        raise TypeError(
            f"{name} of shape {classes.shape} must hold integers, got {classes.dtype}; give class indices"
        )
    for value in (classes.min(), classes.max()) if classes.size else ():
        if not 0 <= value < num_classes:
            ignored = f"pass ignore_index={value} if it marks what is left out, or "
            raise ValueError(
                f"{name} must lie in 0 to {num_classes - 1} as class_counts has {num_classes} elements; "
                f"got {value}; {ignored if name == 'targets' and value in _VOID else ''}drop ignored samples "
                "and number the classes from 0"
            )
    return classes.astype(np.int64)


def sigmoid(values: Floats) -> Floats:
    """Return 1 / (1 + exp(-z)) of each logit; no logit overflows."""
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1, small) / (1 + small))


def softmax(values: Floats) -> Floats:
    """Return exp(z) / sum exp(z) of each row of logits, (N, C); no logit overflows."""
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
