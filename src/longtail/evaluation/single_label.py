"""Predictions -> `Evaluation`: what a long tail hides in the mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks
from longtail._arrays import as_numpy

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_ACTIVATIONS = ("softmax", "sigmoid", "identity")
_CHUNK = 1 << 22  # scores held in float64 at a time: 32 MiB, whatever the size of the test set
_CONFUSION_CLASSES = 1000


@dataclass(frozen=True)
class Evaluation:
    """How well predictions match targets, class by class.

    Errors are fractions from 0 to 1; None stands for "not applicable".

    Attributes:
        num_samples: Samples evaluated.
        error: Share of the samples misclassified.
        top5_error: Share of the samples whose class is not among the five highest scores (ties: the lower
            class ranks higher); None for hard predictions and for five classes or fewer.
        balanced_error: Mean of the per-class errors over the classes that occur in the targets.
        per_class_error: Share of each class's samples misclassified; None for a class without any.
        many_error: Share of the test samples misclassified, of classes with more than ``thresholds[0]``
            training samples; None where there are no such test samples.
        medium_error: The same for classes in between, both ends included.
        few_error: The same for classes with fewer than ``thresholds[1]`` training samples.
        group_sizes: Number of classes in the groups many, medium and few.
        thresholds: Training samples that separate the groups: ``(many, few)``.
        macro_f1: Unweighted mean of the F1 scores of all classes in targets or predictions.
        worst_class: Class with the largest error, the first of several.
        worst_class_error: Its error.
        expected_calibration_error: Mean distance of confidence and accuracy over equal bins of
            confidence, weighted by samples; None for hard predictions.
        confusion: Sample counts, ``confusion[true][predicted]``; None beyond 1000 classes, where it
            would outgrow everything else.
        class_counts: Training samples of every class.
        reliability: What the calibration error is made of, ``(samples, mean confidence, accuracy)`` of
            each bin that is not empty, from low to high confidence; None for hard predictions, and in
            evaluations stored before this was kept.
    """

    num_samples: int
    error: float
    top5_error: float | None
    balanced_error: float
    per_class_error: tuple[float | None, ...]
    many_error: float | None
    medium_error: float | None
    few_error: float | None
    group_sizes: tuple[int, int, int]
    thresholds: tuple[int, int]
    macro_f1: float
    worst_class: int
    worst_class_error: float
    expected_calibration_error: float | None
    confusion: tuple[tuple[int, ...], ...] | None
    class_counts: tuple[int, ...]
    reliability: tuple[tuple[int, float, float], ...] | None = None

    @property
    def natural_error(self) -> float:
        """The error to expect where the test data have the training set's class proportions.

        The mean of the per-class errors weighted by the training samples; classes without test samples are
        left out. Equal to `balanced_error` where no tested class has training samples.
        """
        pairs = [
            (n, e) for n, e in zip(self.class_counts, self.per_class_error, strict=True) if e is not None
        ]
        total = sum(n for n, _ in pairs)
        return sum(n * e for n, e in pairs) / total if total else self.balanced_error

    def to_dict(self) -> dict[str, object]:
        """Return the fields as JSON knows them: numbers, lists and None."""
        return {field.name: _listed(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Evaluation:
        """Rebuild what `to_dict` gave, also after a trip through JSON.

        Raises:
            ValueError: A field is missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        values = {"reliability": None, **values}  # not in files of earlier versions
        if wrong := sorted(names.symmetric_difference(values)):
            raise ValueError(
                f"values has missing or unknown fields: {_checks.shorten(wrong)}; give what to_dict returned"
            )
        return cls(**{name: _tupled(values[name]) for name in names})

    def __str__(self) -> str:
        shares = {
            "error": self.error,
            "top-5 error": self.top5_error,
            "balanced error": self.balanced_error,
            "many": self.many_error,
            "medium": self.medium_error,
            "few": self.few_error,
            f"worst class {self.worst_class}": self.worst_class_error,
            "calibration error": self.expected_calibration_error,
        }
        text = ", ".join(f"{name} {_percent(share)}" for name, share in shares.items())
        return f"{text}, macro-F1 {self.macro_f1:.3f}, {self.num_samples} samples"


def evaluate(
    logits_or_predictions: object,
    targets: object,
    class_counts: object,
    *,
    activation: str = "softmax",
    many: int = 100,
    few: int = 20,
    bins: int = 15,
) -> Evaluation:
    """Evaluate a classifier on a test set, overall and along the tail.

    Args:
        logits_or_predictions: Scores of shape (N, C), floating point, the highest being the prediction; or
            predicted classes of shape (N,), integers, which leave calibration and top-5 out. Lists, NumPy
            arrays and tensors on any device, bfloat16 too. A score of -inf masks a class.
        targets: True classes, integers of shape (N,), 0 .. C-1.
        class_counts: Training samples of each of the C classes, which decide the shot groups: an array, a
            `ClassCounts`, or a mapping or Series from class to count. Integer names are class indices 0..C-1
            in any order, False, True and 1.0 too; other names are taken in their order.
        activation: What turns scores into confidence: ``"softmax"``, ``"sigmoid"`` (the largest of C
            independent ones) or ``"identity"`` (they are probabilities already).
        many: Classes with more training samples than this are many-shot.
        few: Classes with fewer training samples than this are few-shot; at most ``many``.
        bins: Equal bins of confidence for the calibration error; a confidence between two bins belongs to
            the lower.

    Returns:
        The evaluation.

    Raises:
        TypeError: Scores of no floating point type, or predictions or targets that are no integers.
        ValueError: Wrong shapes or ranges, NaN or infinite scores, a row without a finite score, or
            probabilities outside [0, 1].

    Example:
        >>> result = evaluate([0, 0, 1, 0], [0, 0, 1, 1], [500, 10])
        >>> result.error, result.many_error, result.medium_error, result.few_error
        (0.25, 0.0, None, 0.5)

    Source:
        Shot groups: Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019.
        Calibration: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    evaluator = Evaluator(class_counts, activation=activation, many=many, few=few, bins=bins)
    evaluator.add(logits_or_predictions, targets)
    return evaluator.result()


class Evaluator:
    """`evaluate` for a test set that comes in batches: of a sample it keeps a few numbers, not its C scores.

    Args:
        class_counts: As for `evaluate`, like all others.

    Raises:
        TypeError: As `evaluate`.
        ValueError: As `evaluate`; the batches are checked as they come.

    Example:
        >>> evaluator = Evaluator([500, 10])
        >>> for predictions, targets in (([0, 0], [0, 0]), ([1, 0], [1, 1])):
        ...     evaluator.add(predictions, targets)
        >>> evaluator.result().error
        0.25
    """

    def __init__(
        self,
        class_counts: object,
        *,
        activation: str = "softmax",
        many: int = 100,
        few: int = 20,
        bins: int = 15,
    ) -> None:
        self._activation = _checks.choice("activation", activation, _ACTIVATIONS)
        self._many = _checks.integer("many", many, low=0)
        self._few = _checks.integer("few", few, low=0)
        self._bins = _checks.integer("bins", bins, low=1)
        if self._few > self._many:
            raise ValueError(
                f"few must be at most many, got few={few} and many={many}; groups must not overlap"
            )
        self._counts = _training_counts(class_counts)
        self._batches: list[tuple[Array, ...]] = []

    def add(self, logits_or_predictions: object, targets: object) -> None:
        """Read one batch; all batches have scores, or all have predictions."""
        scores = as_numpy("logits_or_predictions", logits_or_predictions)
        truth = as_numpy("targets", targets)
        _check_shapes(scores, truth, self._counts)
        truth = _classes("targets", truth, len(self._counts))
        batch: tuple[Array, ...]
        if scores.ndim == 2:
            batch = (truth, *_read_scores(scores, truth, self._activation))
        else:
            batch = (truth, _classes("logits_or_predictions", scores, len(self._counts)))
        if self._batches and len(batch) != len(self._batches[0]):
            raise ValueError(
                f"logits_or_predictions of shape {scores.shape} follows batches of the other kind; give "
                "scores of shape (N, C) in all batches, or predictions of shape (N,) in all"
            )
        self._batches.append(batch)

    def result(self) -> Evaluation:
        """Evaluate all batches together.

        Raises:
            ValueError: No batch was added.
        """
        if not self._batches:
            raise ValueError("no batch was added, so there is nothing to evaluate; call add first")
        counts, many, few = self._counts, self._many, self._few
        truth, predicted, *read = map(np.concatenate, zip(*self._batches, strict=True))
        top5: float | None = None
        calibration: float | None = None
        reliability: tuple[tuple[int, float, float], ...] | None = None
        if read:
            confidence, in_top5 = read
            calibration, reliability = _calibration(confidence, predicted == truth, self._bins)
            if len(counts) > 5:
                top5 = _share(~in_top5)
        wrong = predicted != truth
        of_class = np.bincount(truth, minlength=len(counts))
        wrong_of_class = np.bincount(truth[wrong], minlength=len(counts))
        said = np.bincount(predicted, minlength=len(counts))
        present = of_class > 0
        errors = np.divide(wrong_of_class, of_class, out=np.full(len(counts), -1.0), where=present)
        worst = int(np.argmax(errors))
        groups = (counts > many, (counts >= few) & (counts <= many), counts < few)
        many_error, medium_error, few_error = (_share(wrong[group[truth]]) for group in groups)
        sizes = [int(group.sum()) for group in groups]
        return Evaluation(
            num_samples=len(truth),
            error=float(wrong.mean()),
            top5_error=top5,
            balanced_error=float(errors[present].mean()),
            per_class_error=tuple(
                float(error) if here else None for error, here in zip(errors, present, strict=True)
            ),
            many_error=many_error,
            medium_error=medium_error,
            few_error=few_error,
            group_sizes=(sizes[0], sizes[1], sizes[2]),
            thresholds=(many, few),
            macro_f1=_macro_f1(of_class, said, of_class - wrong_of_class),
            worst_class=worst,
            worst_class_error=float(errors[worst]),
            expected_calibration_error=calibration,
            confusion=_confusion(truth, predicted, len(counts)),
            class_counts=tuple(counts.tolist()),
            reliability=reliability,
        )


def _training_counts(class_counts: object) -> Integers:
    name = "class_counts"
    source = _arrays.in_output_order(name, class_counts)
    counts = as_numpy(name, list(source.values()) if isinstance(source, dict) else source)
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
    return counts.astype(np.int64)


def _check_shapes(scores: Array, truth: Array, counts: Integers) -> None:
    order = "the order is evaluate(logits_or_predictions, targets, class_counts)"
    if truth.ndim == 2 and scores.ndim == 1:
        raise ValueError(
            f"targets has shape {truth.shape} and logits_or_predictions {scores.shape}: swapped? {order}"
        )
    if scores.ndim not in (1, 2):
        raise ValueError(
            f"logits_or_predictions must have shape (N, C) or (N,), got {scores.shape}; flatten it to that"
        )
    if truth.ndim != 1:
        raise ValueError(f"targets must have shape (N,), got {truth.shape}; give one class index per sample")
    if not len(scores):
        raise ValueError(f"logits_or_predictions has shape {scores.shape}, no sample; give at least one")
    if len(truth) != len(scores):
        hint = (
            f"swapped with class_counts? {order}"
            if len(counts) == len(scores)
            else "give one target per sample"
        )
        raise ValueError(
            f"targets must have {len(scores)} elements like logits_or_predictions, got {len(truth)}; {hint}"
        )
    if scores.ndim == 1:
        return
    if scores.dtype.kind != "f":
        raise TypeError(
            f"logits_or_predictions of shape {scores.shape} must be floating point, got {scores.dtype}; "
            "convert scores to float, or give class indices of shape (N,)"
        )
    if scores.shape[1] != len(counts):
        raise ValueError(
            f"class_counts must have {scores.shape[1]} elements, one per column of logits_or_predictions, "
            f"got {len(counts)}; {order}"
        )


def _classes(name: str, classes: Array, num_classes: int) -> Integers:
    if classes.dtype.kind not in "iu":
        raise TypeError(
            f"{name} of shape {classes.shape} must hold integers, got {classes.dtype}; give class indices"
        )
    for value in (classes.min(), classes.max()):
        if not 0 <= value < num_classes:
            raise ValueError(
                f"{name} must lie in 0 to {num_classes - 1} as class_counts has {num_classes} elements; "
                f"got {value}; drop ignored samples and number the classes from 0"
            )
    return classes.astype(np.int64)


def _read_scores(scores: Array, truth: Integers, activation: str) -> tuple[Integers, Floats, Flags]:
    """Prediction, its confidence, and whether the true class is among the five highest, for every row."""
    predicted = np.empty(len(scores), dtype=np.int64)
    confidence = np.empty(len(scores))
    in_top5 = np.empty(len(scores), dtype=np.bool_)
    bad_rows = outside = 0
    rows = max(1, _CHUNK // scores.shape[1])
    for start in range(0, len(scores), rows):
        part = slice(start, start + rows)
        chunk = scores[part].astype(np.float64)
        best = chunk.argmax(axis=1)
        highest = chunk[np.arange(len(chunk)), best]
        # argmax stops at NaN: this is finite exactly where no score is NaN or +inf and at least one is finite
        readable = np.isfinite(highest)
        bad_rows += int((~readable).sum())
        if activation == "identity":
            outside += int(((chunk < 0) | (chunk > 1)).any(axis=1).sum())
        if bad_rows or outside:
            continue
        own = chunk[np.arange(len(chunk)), truth[part]][:, np.newaxis]
        before = (chunk == own) & (np.arange(chunk.shape[1]) < truth[part][:, np.newaxis])
        predicted[part] = best
        in_top5[part] = ((chunk > own) | before).sum(axis=1) < 5
        if activation == "softmax":
            with np.errstate(over="ignore"):  # a gap beyond float64 is -inf, whose exp is rightly 0
                confidence[part] = 1 / np.exp(chunk - highest[:, np.newaxis]).sum(axis=1)
        elif activation == "sigmoid":
            small = np.exp(-np.abs(highest))
            confidence[part] = np.where(highest >= 0, 1, small) / (1 + small)
        else:
            confidence[part] = highest
    if bad_rows:
        raise ValueError(
            f"logits_or_predictions has NaN, +inf or no finite score in {bad_rows} of {len(scores)} rows; "
            "find where training diverged"
        )
    if outside:
        raise ValueError(
            f"logits_or_predictions lies outside [0, 1] in {outside} of {len(scores)} rows; for logits use "
            "activation='softmax' or 'sigmoid'"
        )
    return predicted, confidence, in_top5


def _calibration(
    confidence: Floats, correct: Flags, bins: int
) -> tuple[float, tuple[tuple[int, float, float], ...]]:
    inner_edges = np.arange(1, bins) / bins
    bin_of = np.searchsorted(inner_edges, confidence, side="left")
    samples = np.bincount(bin_of)
    right, claimed = np.bincount(bin_of, weights=correct), np.bincount(bin_of, weights=confidence)
    reliability = tuple(
        (int(n), float(c / n), float(r / n)) for n, c, r in zip(samples, claimed, right, strict=True) if n
    )
    return float(np.abs(right - claimed).sum() / len(confidence)), reliability


def _macro_f1(of_class: Integers, predicted: Integers, right: Integers) -> float:
    """The mean of 2 TP / (2 TP + FP + FN) over the classes that are true or predicted anywhere."""
    seen = of_class + predicted
    return float((2 * right[seen > 0] / seen[seen > 0]).mean())


def _confusion(truth: Integers, predicted: Integers, num_classes: int) -> tuple[tuple[int, ...], ...] | None:
    if num_classes > _CONFUSION_CLASSES:
        return None
    table = np.bincount(truth * num_classes + predicted, minlength=num_classes**2)
    return tuple(tuple(row) for row in table.reshape(num_classes, num_classes).tolist())


def _share(flags: Flags) -> float | None:
    return float(flags.mean()) if flags.size else None


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{100 * share:.1f} %"


def _listed(value: object) -> object:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _tupled(value: object) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list | tuple) else value
