"""Predictions -> `Evaluation`: what a long tail hides in the mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail import _checks
from longtail.evaluation.curves import Curve
from longtail.evaluation.intervals import (
    THIN,
    Interval,
    checked_confidence,
    in_groups_text,
    mean_interval,
    units_text,
    wilson_interval,
)
from longtail.evaluation.multi_label import (
    LabelSums,
    MultiLabelEvaluation,
    evaluate_multi_label,
    is_multi_label,
    one_hot,
)
from longtail.evaluation.reading import (
    ACTIVATIONS,
    SUM,
    Batch,
    Classes,
    columns_of,
    group_ids,
    read_batch,
    read_labels,
    shape_of,
    side_by_side,
    sigmoid,
)

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Bins = tuple[tuple[int, float, float], ...]

TASKS = ("multiclass", "multilabel")
_CHUNK = 1 << 17  # scores held in float64 at a time: 1 MiB, which a processor keeps beside it
_ROWS = 1 << 17  # after so many the sums in units of 2**-45 are absorbed, below 2**63
_UNIT = 45
_MASK = (1 << _UNIT) - 1
_CONFUSION_CLASSES = 1000
_EPSILON = float(np.finfo(np.float64).eps)  # below which a probability counts as this, as in scikit-learn
_CALIBRATED = 30  # test samples of a class from which its calibration says something
_RESAMPLES = 1000


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
            evaluations stored before this was kept, like all that follow.
        test_counts: Test samples of every class.
        predicted_counts: Test samples taken for every class.
        units: Independent test samples of every class: the samples, or where groups were given
            ``(sum of sizes)^2 / (sum of squares)`` of its groups, which is their number where they are of
            one size.
        activation: How scores were read: "softmax", "sigmoid", or "identity" for probabilities; None for
            hard predictions.
        log_loss: Mean of -log of the true class's probability, probabilities below 2.2e-16 counting as
            that; None where no probabilities that sum to 1 were given.
        brier_score: Mean squared distance of the probabilities to the truth, from 0 to 2; for two classes
            of class 1 alone, from 0 to 1, as in scikit-learn.
        per_class_calibration: Calibration error of each class's own probability over all samples; None for a
            class with fewer than 30 test samples.
        group_reliability: `reliability` of the samples taken for a class that is many-, medium-, few-shot.
        rare_class: For two classes, the one with fewer training samples (1 if they have as many).
        rare_recall: Share of the rare class's samples found.
        rare_precision: Share of the samples taken for the rare class that are of it; None where none is.
        rare_average_precision: Area under precision by recall, as a sum; None without scores.
        rare_roc_auc: Probability that a sample of the rare class scores above another one.
        confidence: Of the intervals.
        macro_f1_ends: Ends of `macro_f1_interval` where groups were given.
        one_hot: Whether targets of shape (N, C) were read as one label, as each row had one 1.
        num_groups: How many groups the test samples come in, which every interval then counts in their place;
            None where no groups were given.
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
    reliability: Bins | None = None
    test_counts: tuple[int, ...] | None = None
    predicted_counts: tuple[int, ...] | None = None
    units: tuple[float, ...] | None = None
    activation: str | None = None
    log_loss: float | None = None
    brier_score: float | None = None
    per_class_calibration: tuple[float | None, ...] | None = None
    group_reliability: tuple[Bins, Bins, Bins] | None = None
    rare_class: int | None = None
    rare_recall: float | None = None
    rare_precision: float | None = None
    rare_average_precision: float | None = None
    rare_roc_auc: float | None = None
    confidence: float = 0.95
    macro_f1_ends: tuple[float, float] | None = None
    one_hot: bool = False
    num_groups: int | None = None

    @property
    def units_text(self) -> str:
        """Say what the intervals count: "the test samples", or their groups, and how many."""
        return units_text(self.num_groups)

    def in_groups(self, predicted: object, targets: object, groups: object) -> Evaluation:
        """Return the same with groups of its test samples in the place of samples in every interval.

        Args:
            predicted: Predicted classes, integers of shape (N,).
            targets: True classes, integers of shape (N,).
            groups: One a sample, as for `evaluate`.

        Returns:
            What `evaluate` gives with ``groups``; all that is no interval stays as it is.

        Raises:
            TypeError: Classes that are no integers.
            ValueError: Another number of predictions or groups, or other test samples than these.

        Example:
            >>> found = evaluate([0, 0, 1, 0], [0, 0, 1, 1], [500, 10])
            >>> found.in_groups([0, 0, 1, 0], [0, 0, 1, 1], ["a", "a", "b", "b"]).num_groups
            2
        """
        classes = len(self.class_counts)
        truth, said = (
            read_labels(name, x, classes) for name, x in (("targets", targets), ("predicted", predicted))
        )
        of_class = np.bincount(truth, minlength=classes)
        if len(said) != len(truth) or self.test_counts not in (None, tuple(of_class.tolist())):
            raise ValueError(
                f"predicted and targets must be those of the {self.num_samples} test samples, got "
                f"{len(said)} and {len(truth)}; give what this was evaluated on"
            )
        cells = Counter(zip(group_ids(groups, len(truth)), truth.tolist(), said.tolist(), strict=True))
        return replace(self, **_in_groups(cells, classes, self.confidence))

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

    @property
    def per_class_interval(self) -> tuple[Interval | None, ...]:
        """Wilson's interval of each class's error; None for a class without test samples."""
        units = self._units()
        if units is None:
            return (None,) * len(self.per_class_error)
        return tuple(
            None if error is None else wilson_interval(error * unit, unit, self.confidence)
            for error, unit in zip(self.per_class_error, units, strict=True)
        )

    @property
    def balanced_error_interval(self) -> Interval | None:
        """The interval of the balanced error, as `mean_interval` combines the classes'; needs SciPy."""
        return self._mean_interval([1.0] * len(self.class_counts))

    @property
    def natural_error_interval(self) -> Interval | None:
        """The interval of `natural_error`; needs SciPy."""
        tested = [n for n, e in zip(self.class_counts, self.per_class_error, strict=True) if e is not None]
        return self._mean_interval(self.class_counts) if any(tested) else self.balanced_error_interval

    def error_under(self, prior: Sequence[float] | npt.ArrayLike) -> float:
        """Return the error to expect where the classes have these shares; untested classes are left out.

        Raises:
            ValueError: not one share >= 0 a class, or all of them on classes without test samples.
        """
        shares = self._shares(prior)
        pairs = [(p, e) for p, e in zip(shares, self.per_class_error, strict=True) if e is not None]
        return sum(p * e for p, e in pairs) / sum(p for p, _ in pairs)

    def interval_under(self, prior: Sequence[float] | npt.ArrayLike) -> Interval | None:
        """Return the interval of `error_under`; needs SciPy.

        Raises:
            ValueError: as `error_under`.
        """
        return self._mean_interval(self._shares(prior))

    @cached_property
    def macro_f1_interval(self) -> Interval | None:
        """Percentiles of macro-F1 over 1,000 bootstrap samples, of the test samples or of their groups.

        A class without a test sample in one of them is left out of its mean there. None beyond 1,000 classes,
        where no confusion is kept.
        """
        if self.macro_f1_ends is not None:
            return Interval(*self.macro_f1_ends, self.confidence)
        if self.confusion is None:
            return None
        table = np.asarray(self.confusion)
        true, said = np.nonzero(table)
        return _f1_ends(true, said, table[true, said], None, self.confidence)

    @property
    def thin_classes(self) -> tuple[int, ...]:
        """Classes with fewer than 5 test samples, or groups of them."""
        units = self._units()
        return () if units is None else tuple(c for c, unit in enumerate(units) if unit < THIN)

    @property
    def thin_text(self) -> str:
        """Say how many classes have fewer than 5 test samples; empty where none has."""
        thin, units = self.thin_classes, self._units()
        if not thin or units is None:
            return ""
        grouped = self.num_groups is not None or self.units not in (None, self.test_counts)
        what = "independent groups of test samples" if grouped else "test samples"
        have = "has" if len(thin) == 1 else "have"
        none = sum(1 for c in thin if not units[c])
        text = f"{len(thin):,} of {len(units):,} classes {have} fewer than {THIN} {what}"
        return f"{text}, {none} of them none" if none else text

    def to_dict(self) -> dict[str, object]:
        """Return the fields as JSON knows them: numbers, lists and None; no number of groups without any."""
        found = {field.name: _listed(getattr(self, field.name)) for field in fields(self)}
        if self.num_groups is None:  # evaluations of samples are written as before there were groups
            del found["num_groups"]
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Evaluation:
        """Rebuild what `to_dict` gave, also after a trip through JSON.

        Raises:
            ValueError: A field is missing or unknown.
        """
        # what has a default is not in files of earlier versions
        values = {f.name: f.default for f in fields(cls) if f.default is not MISSING} | dict(values)
        names = {field.name for field in fields(cls)}
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
        read = ", scores read as probabilities" if self.activation == "identity" else ""
        read += ", one-hot targets read as one label" if self.one_hot else ""
        samples = f"{self.num_samples} samples" + in_groups_text(self.num_groups)
        return f"{text}, macro-F1 {self.macro_f1:.3f}, {samples}{read}"

    def _units(self) -> tuple[float, ...] | None:
        if self.units is not None:
            return self.units
        if self.test_counts is not None:
            return self.test_counts
        return None if self.confusion is None else tuple(map(sum, self.confusion))

    def _mean_interval(self, weights: Sequence[float]) -> Interval | None:
        units = self._units()
        if units is None:
            return None
        errors = [0.0 if error is None else error for error in self.per_class_error]
        tested = [
            unit if error is not None else 0 for unit, error in zip(units, self.per_class_error, strict=True)
        ]
        return mean_interval(errors, tested, weights, self.confidence)

    def _shares(self, prior: Sequence[float] | npt.ArrayLike) -> list[float]:
        shares = np.asarray(prior, dtype=np.float64)
        if shares.shape != (len(self.class_counts),) or not (np.isfinite(shares) & (shares >= 0)).all():
            raise ValueError(
                f"prior must be {len(self.class_counts)} shares >= 0, one a class, got "
                f"{_checks.describe(shares)}"
            )
        tested = np.asarray([error is not None for error in self.per_class_error])
        if not shares[tested].sum():
            raise ValueError("prior is 0 for every class that has test samples; nothing says their error")
        found: list[float] = shares.tolist()
        return found


def read_evaluation(values: Mapping[str, Any]) -> Evaluation | MultiLabelEvaluation:
    """Rebuild what `to_dict` of either kind of evaluation gave.

    Args:
        values: Of `Evaluation` or `MultiLabelEvaluation`.

    Raises:
        ValueError: A field is missing or unknown.

    Example:
        >>> read_evaluation(evaluate([0, 1], [0, 0], [9, 1]).to_dict()).error
        0.5
    """
    if "per_class_average_precision" in values:
        return MultiLabelEvaluation.from_dict(values)
    return Evaluation.from_dict(values)


def evaluate(
    logits_or_predictions: object,
    targets: object,
    class_counts: object,
    *,
    activation: str | None = None,
    many: int | None = None,
    few: int | None = None,
    bins: int = 15,
    groups: object = None,
    ignore_index: object = None,
    threshold: object = 0.5,
    confidence: float = 0.95,
    resamples: int = 200,
    task: str | None = None,
) -> Any:
    """Evaluate a classifier on a test set, overall and along the tail.

    Args:
        logits_or_predictions: Scores of shape (N, C), floating point, the highest being the prediction; or
            predicted classes of shape (N,), which leave out calibration and all that needs scores. Also
            (N, C, d1, ...) with targets (N, d1, ...), or with the classes last. With two counts one score a
            sample, of class 1: (N,) or (N, 1). Lists, NumPy arrays and tensors on any device, bfloat16 too. A
            score of -inf masks a class.
        targets: True classes, integers of shape (N,), 0 .. C-1; labels by the names of `class_counts`; with
            two classes bool or 0.0 and 1.0, too, and NaN, which is left out, beside one score a sample. Or
            many labels: 0 and 1 of shape (N, C), beside scores, or decisions, of the same shape; NaN or -100
            there leaves an element out. With one 1 in every row that is one label, see ``task``.
        class_counts: Training samples of each of the C classes, which decide the shot groups: an array, a
            `ClassCounts`, or a mapping or Series from class to count. Integer names are class indices 0..C-1
            in any order, False, True and 1.0 too, and beside scores some may be missing, which had no
            samples; other names are taken in their order.
        activation: What turns scores into probabilities: ``"softmax"``, ``"sigmoid"`` (the largest of C
            independent ones) or ``"identity"`` (they are probabilities already). None looks: rows that are
            not negative and sum to 1 are probabilities, one score a sample or many labels are where all lie
            in [0, 1], and anything else is logits; the result says which.
        many: Classes with more training samples than this are many-shot; None: 100, or a tenth of the largest
            class where all classes have more than 100, and 100 would separate nothing.
        few: Classes with fewer training samples than this are few-shot, at most ``many``; None: 20, or a
            fiftieth of the largest class likewise.
        bins: Equal bins of confidence for the calibration error; a confidence between two bins belongs to
            the lower.
        groups: One a sample, of any kind: samples of one group (a patient, a track) count as one in the
            intervals.
        ignore_index: Samples with this target are left out.
        threshold: For many labels: from which probability on a label is given; a number or one a class, as
            `tune_thresholds` chooses them.
        confidence: Of the intervals, strictly between 0 and 1.
        resamples: For many labels: bootstrap samples for the intervals of the means; 0 leaves them out.
        task: "multiclass", one label a sample, or "multilabel". None looks at targets of shape (N, C): one 1
            in every row is one label, which the result says, unless the scores are probabilities that do not
            sum to 1; anything else is many labels.

    Returns:
        The `Evaluation`; for many labels the `MultiLabelEvaluation`.

    Raises:
        TypeError: Scores of no floating point type, or predictions or targets that are no classes.
        ValueError: Wrong shapes or ranges, NaN or infinite scores, a row without a finite score,
            probabilities outside [0, 1] or that do not sum to 1, labels that `class_counts` does not name, or
            another number of groups.

    Example:
        >>> result = evaluate([0, 0, 1, 0], [0, 0, 1, 1], [500, 10])
        >>> result.error, result.many_error, result.medium_error, result.few_error
        (0.25, 0.0, None, 0.5)
        >>> result.per_class_interval[1]
        Interval(0.0945312, 0.905469, confidence=0.95)

    Source:
        Shot groups: Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019.
        Calibration: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3; of single
        classes: Kull et al., "Beyond temperature scaling", NeurIPS 2019.
    """
    if task is not None:
        _checks.choice("task", task, TASKS)
    many_labels = task != "multiclass" and is_multi_label(logits_or_predictions, targets)
    if task == "multilabel" and not many_labels:
        raise ValueError(
            "targets must be 0 and 1 of the shape of the scores, (N, C), for task='multilabel', got shape "
            f"{shape_of(targets)} beside {shape_of(logits_or_predictions)}"
        )
    if many_labels and (task == "multilabel" or one_hot(logits_or_predictions, targets) is None):
        return evaluate_multi_label(
            logits_or_predictions,
            targets,
            class_counts,
            activation=activation,
            many=many,
            few=few,
            groups=groups,
            ignore_index=ignore_index,
            threshold=threshold,
            confidence=confidence,
            resamples=resamples,
        )
    evaluator = Evaluator(
        class_counts,
        activation=activation,
        many=many,
        few=few,
        bins=bins,
        ignore_index=ignore_index,
        confidence=confidence,
        task="multiclass",
    )
    evaluator.add(logits_or_predictions, targets, groups=groups)
    return evaluator.result()


class Evaluator:
    """`evaluate` for a test set that comes in batches, on one process or many: sums of a fixed size.

    The sums are exact, so the order of the batches changes nothing, and neither does the division among
    processes: ``evaluator + evaluator``, and ``sum(evaluators)``, give the bits of one that saw all. Beyond
    sums it keeps one score a sample of two classes, for the average precision of the rare one, and the groups
    where they are given.

    Many labels a sample need ``task="multilabel"``; the result is a `MultiLabelEvaluation`. Its counts are
    those of `evaluate`; average precision is that of scores in 1,026 bins of the logit, 1/32 wide, and there
    are no bootstrap intervals.

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
        >>> (evaluator + evaluator).result().num_samples
        8
    """

    def __init__(
        self,
        class_counts: object,
        *,
        activation: str | None = None,
        many: int | None = None,
        few: int | None = None,
        bins: int = 15,
        ignore_index: object = None,
        confidence: float = 0.95,
        threshold: object = 0.5,
        task: str | None = None,
    ) -> None:
        if task is not None:
            _checks.choice("task", task, TASKS)
        self._task, self._threshold, self._one_hot = task, threshold, False
        self._labels = (
            LabelSums(class_counts, activation, (many, few), threshold, ignore_index)
            if task == "multilabel"
            else None
        )
        if activation is not None:
            _checks.choice("activation", activation, ACTIVATIONS)
        self._told = self._activation = activation
        self._edges = np.arange(1, _checks.integer("bins", bins, low=1)) / bins
        self._ignored, self._confidence = ignore_index, checked_confidence(confidence)
        self._given, self._shots = class_counts, (many, few)
        self._classes: Classes | None = None
        self._cells: Counter[tuple[Hashable, int, int]] | None = None
        if not isinstance(class_counts, Mapping):  # a mapping may lack classes, which the columns tell
            self._start(Classes.read(class_counts))
        elif many is not None or few is not None:
            Classes(np.ones(1, dtype=np.int64)).shots(many, few)

    def add(self, logits_or_predictions: object, targets: object, *, groups: object = None) -> None:
        """Read one batch; all batches have scores, or all have predictions; all have groups, or none."""
        if self._labels is not None:
            if groups is not None:
                raise ValueError("groups are for the bootstrap of longtail.evaluate; leave them out here")
            self._labels.add(logits_or_predictions, targets)
            return
        side_by_side(logits_or_predictions, targets, self._given, groups)
        named = self._classes if self._classes is not None else self._given
        columns = len(named) if isinstance(named, Classes | Mapping) else 0
        wide = shape_of(targets)[1:] == (columns,)
        if wide and is_multi_label(logits_or_predictions, targets):  # else a token a column
            if (read := one_hot(logits_or_predictions, targets)) is None:
                raise ValueError(
                    "targets hold 0 and 1 of the shape of the scores, and not one 1 in every row; give "
                    "task='multilabel' for many labels a sample, or one class index per sample"
                )
            logits_or_predictions, targets = read
            self._one_hot = True
        classes = self._classes
        if classes is None:
            classes = Classes.read(self._given, columns_of(logits_or_predictions))
            self._start(classes)
        told = self._told if self._told is not None or not self._samples else self._activation
        batch = read_batch(logits_or_predictions, targets, classes, told, self._ignored)
        if self._samples and (batch.scores is None) != (self._activation is None):
            raise ValueError(
                f"logits_or_predictions of shape {shape_of(logits_or_predictions)} follows batches of the "
                "other kind; give scores of shape (N, C) in all batches, or predictions of shape (N,) in all"
            )
        ids = None if groups is None else group_ids(groups, len(batch.kept))
        if self._samples and (ids is None) != (self._cells is None):
            raise ValueError("groups must be given with all batches or with none; add them to each")
        if not len(batch.truth):
            return
        if batch.scores is None:
            assert batch.predicted is not None
            self._activation, predicted = None, batch.predicted
        else:
            self._activation = batch.activation
            predicted = self._read(batch)
        self._count(batch.truth, predicted)
        if ids is not None:
            kept = [ids[i] for i in np.flatnonzero(batch.kept)]
            cells = zip(kept, batch.truth.tolist(), predicted.tolist(), strict=True)
            self._cells = self._cells or Counter()
            self._cells.update(cells)

    def __add__(self, other: Evaluator) -> Evaluator:
        """Return one that has seen what both have.

        Raises:
            ValueError: The two have other classes or settings, or one has scores and the other predictions.
        """
        if not isinstance(other, Evaluator):
            return NotImplemented
        if self._task != other._task:
            raise ValueError(f"evaluators must have the same task, got {self._task!r} and {other._task!r}")
        merged = self._empty()
        for one in (self, other):
            if merged._labels is not None and one._labels is not None:
                merged._labels.absorb(one._labels)
            if one._classes is not None and one._samples:
                merged._absorb(one)
        return merged

    def __radd__(self, other: object) -> Evaluator:
        """Let ``sum`` begin with 0."""
        return self + self._empty() if other == 0 else NotImplemented

    def result(self) -> Any:
        """Return the `Evaluation` of all batches together, or the `MultiLabelEvaluation`.

        Raises:
            ValueError: No batch was added, or all samples were ignored.
        """
        if self._labels is not None and self._labels.samples:
            return self._labels.result()
        if self._classes is None or not self._samples:
            raise ValueError(
                "no batch was added, or all its targets were ignored, so there is nothing to evaluate; give "
                "samples whose targets count"
            )
        counts, (many, few), total = self._classes.counts, self._shots_at, self._samples
        of_class, right, said = self._of_class, self._right, self._said
        wrong, present = of_class - right, of_class > 0
        errors = np.divide(wrong, of_class, out=np.full(len(counts), -1.0), where=present)
        worst = int(np.argmax(errors))
        groups = [self._group == g for g in range(3)]
        shot = [_share(int(wrong[g].sum()), int(of_class[g].sum())) for g in groups]
        sizes = [int(g.sum()) for g in groups]
        scored = self._activation is not None
        claimed = self._claimed.value()
        group_bins = [_bins(self._binned[g], claimed[g], self._binned_right[g]) for g in range(3)]
        binned, right_in = self._binned.sum(axis=0), self._binned_right.sum(axis=0)
        claims = claimed.sum(axis=0)
        return Evaluation(
            num_samples=total,
            error=int(wrong.sum()) / total,
            top5_error=(total - self._in_top5) / total if scored and len(counts) > 5 else None,
            balanced_error=float(errors[present].mean()),
            per_class_error=tuple(
                float(error) if here else None for error, here in zip(errors, present, strict=True)
            ),
            many_error=shot[0],
            medium_error=shot[1],
            few_error=shot[2],
            group_sizes=(sizes[0], sizes[1], sizes[2]),
            thresholds=(many, few),
            macro_f1=_macro_f1(of_class, said, right),
            worst_class=worst,
            worst_class_error=float(errors[worst]),
            expected_calibration_error=float(np.abs(right_in - claims).sum() / total) if scored else None,
            confusion=None if self._confusion is None else tuple(map(tuple, self._confusion.tolist())),
            class_counts=tuple(counts.tolist()),
            reliability=_bins(binned, claims, right_in) if scored else None,
            test_counts=tuple(of_class.tolist()),
            predicted_counts=tuple(said.tolist()),
            activation=self._activation,
            log_loss=float(self._log.value()) / total if scored and self._proper else None,
            brier_score=float(self._brier.value()) / total if scored and self._proper else None,
            per_class_calibration=self._class_calibration() if scored else None,
            group_reliability=(group_bins[0], group_bins[1], group_bins[2]) if scored else None,
            confidence=self._confidence,
            one_hot=self._one_hot,
            **self._rare(),
            **({} if self._cells is None else _in_groups(self._cells, len(counts), self._confidence)),
        )

    # ---- sums

    def _start(self, classes: Classes) -> None:
        size, bins = len(classes), len(self._edges) + 1
        self._classes, self._shots_at = classes, classes.shots(*self._shots)
        self._group = classes.groups(self._shots_at)
        self._rare_class = (0 if classes.counts[0] < classes.counts[1] else 1) if size == 2 else None
        self._samples = self._in_top5 = 0
        self._of_class, self._right, self._said = (np.zeros(size, dtype=np.int64) for _ in range(3))
        small = size <= _CONFUSION_CLASSES
        self._confusion = np.zeros((size, size), dtype=np.int64) if small else None
        self._binned, self._binned_right = (np.zeros((3, bins), dtype=np.int64) for _ in range(2))
        self._claimed, self._class = _Exact((3, bins)), _Exact((size, bins))
        self._log, self._brier, self._proper = _Exact(()), _Exact(()), True
        self._rare_scores: list[tuple[Floats, Flags]] = []

    def _empty(self) -> Evaluator:
        many, few = self._shots
        made = Evaluator(
            self._given if self._classes is None else self._classes.counts,
            activation=self._told,
            many=many,
            few=few,
            bins=len(self._edges) + 1,
            ignore_index=self._ignored,
            confidence=self._confidence,
            threshold=self._threshold,
            task=self._task,
        )
        if self._classes is not None:
            made._start(self._classes)
        return made

    def _absorb(self, other: Evaluator) -> None:
        assert other._classes is not None
        if self._classes is None:
            self._start(other._classes)
        assert self._classes is not None
        if not np.array_equal(self._classes.counts, other._classes.counts):
            raise ValueError("evaluators must have the same class_counts; these differ")
        if (self._shots_at, len(self._edges)) != (other._shots_at, len(other._edges)):
            raise ValueError("evaluators must have the same many, few and bins; these differ")
        if self._samples and self._activation != other._activation:
            kinds = [one._activation or "predictions" for one in (self, other)]
            raise ValueError(
                f"evaluators must have read the same kind of scores, got {kinds[0]} and {kinds[1]}; say "
                "activation= to both"
            )
        if self._samples and (self._cells is None) != (other._cells is None):
            raise ValueError("evaluators must both have groups, or none; one has some")
        self._activation, self._proper = other._activation, self._proper and other._proper
        self._samples += other._samples
        self._one_hot = self._one_hot or other._one_hot
        self._in_top5 += other._in_top5
        for name in ("_of_class", "_right", "_said", "_binned", "_binned_right", "_confusion"):
            mine = getattr(self, name)
            if mine is not None:
                mine += getattr(other, name)
        for name in ("_claimed", "_class", "_log", "_brier"):
            getattr(self, name).absorb(getattr(other, name))
        self._rare_scores += other._rare_scores
        if other._cells is not None:
            self._cells = (self._cells or Counter()) + other._cells

    def _count(self, truth: Integers, predicted: Integers) -> None:
        size = len(self._of_class)
        self._samples += len(truth)
        self._of_class += np.bincount(truth, minlength=size)
        self._said += np.bincount(predicted, minlength=size)
        self._right += np.bincount(truth[truth == predicted], minlength=size)
        if self._confusion is not None:
            np.add.at(self._confusion, (truth, predicted), 1)

    def _read(self, batch: Batch) -> Integers:
        """Add up what scores say beyond the predictions, which are returned."""
        scores, truth, activation = batch.scores, batch.truth, batch.activation
        assert scores is not None
        predicted = np.empty(len(scores), dtype=np.int64)
        bad_rows = outside = 0
        rows = min(_ROWS, max(1, _CHUNK // scores.shape[1]))
        parts = [slice(start, start + rows) for start in range(0, len(scores), rows)]
        for part in parts:  # a batch is counted whole or not at all
            chunk = scores[part]
            best = chunk.argmax(axis=1)
            # argmax stops at NaN: this is finite exactly where no score is NaN or +inf and one is finite
            bad_rows += int((~np.isfinite(chunk[np.arange(len(chunk)), best])).sum())
            if activation == "identity":
                outside += int(((chunk < 0) | (chunk > 1)).any(axis=1).sum())
            predicted[part] = best
        if bad_rows:
            raise ValueError(
                f"logits_or_predictions has NaN, +inf or no finite score in {bad_rows} of {len(scores)} "
                "rows; find where training diverged"
            )
        if outside:
            raise ValueError(
                f"logits_or_predictions lies outside [0, 1] in {outside} of {len(scores)} rows; for logits "
                "use activation='softmax' or 'sigmoid'"
            )
        # of each class by bin, absorbed once in many chunks: of many classes they are larger than a chunk
        sums, summed = np.zeros((scores.shape[1], len(self._edges) + 1), dtype=np.int64), 0
        room = _Room(min(rows, len(scores)), scores.shape[1])
        for part in parts:
            if summed + rows > _ROWS:
                self._class.absorb_units(sums)
                sums, summed = np.zeros_like(sums), 0
            self._read_chunk(scores[part], truth[part], predicted[part], str(activation), sums, room)
            summed += rows
        self._class.absorb_units(sums)
        return predicted

    def _read_chunk(
        self, given: Array, truth: Integers, best: Integers, activation: str, sums: Integers, room: _Room
    ) -> None:
        here = np.arange(len(given))
        if given.shape[1] > 5:
            self._in_top5 += _in_top5(given, truth)
        chunk = room.floats[: len(given)]
        np.copyto(chunk, given)
        own = chunk[here, truth][:, np.newaxis]
        highest = chunk[here, best]
        if (rare := self._rare_class) is not None:
            with np.errstate(over="ignore"):
                score = chunk[:, rare] - (0.0 if activation == "identity" else chunk[:, 1 - rare])
            self._rare_scores.append((score, truth == rare))
        if activation == "softmax":
            with np.errstate(over="ignore"):  # a gap beyond float64 is -inf, whose exp is rightly 0
                shares = chunk
                shares -= highest[:, np.newaxis]
                np.exp(shares, out=shares)
                total = shares.sum(axis=1)
                log_own = own[:, 0] - highest - np.log(total)
            confidence = 1 / total
            shares *= confidence[:, np.newaxis]
        elif activation == "sigmoid":
            shares = sigmoid(chunk)
            confidence, self._proper = shares[here, best], False
        else:
            shares, confidence = chunk, highest
            self._proper = self._proper and bool((np.abs(shares.sum(axis=1) - 1) <= SUM).all())
            log_own = np.log(np.maximum(own[:, 0], _EPSILON))
        bin_of = np.searchsorted(self._edges, confidence, side="left")
        shot = self._group[best]
        np.add.at(self._binned, (shot, bin_of), 1)
        np.add.at(self._binned_right, (shot, bin_of), (best == truth).astype(np.int64))
        self._claimed.add_at((shot, bin_of), confidence)
        self._class_sums(shares, truth, sums, room)
        if self._proper:
            self._log.add(np.minimum(-log_own, -np.log(_EPSILON)))
            own_share = shares[here, truth]
            if shares.shape[1] == 2:
                squares = (shares[:, 1] - (truth == 1)) ** 2
            else:
                np.square(shares, out=shares)
                squares = shares.sum(axis=1) - 2 * own_share + 1
            self._brier.add(np.maximum(squares, 0))

    def _class_sums(self, shares: Floats, truth: Integers, sums: Integers, room: _Room) -> None:
        """Claimed less happened of each class, by the bin of its own probability.

        Few probabilities of a row are above the lowest bin; that one gets what is left of the sums.
        """
        scaled, units = room.more[: len(shares)], room.whole[: len(shares)]
        np.multiply(shares, 2.0**_UNIT, out=scaled)
        np.copyto(units, np.rint(scaled, out=scaled), casting="unsafe")
        sums[:, 0] += units.sum(axis=0)
        if len(self._edges):
            place = np.flatnonzero(shares > self._edges[0])
            column, above = place % shares.shape[1], units.reshape(-1)[place]
            bin_of = np.searchsorted(self._edges, shares.reshape(-1)[place], side="left")
            np.add.at(sums, (column, bin_of), above)
            np.subtract.at(sums, (column, 0), above)
        own = np.searchsorted(self._edges, shares[np.arange(len(truth)), truth], side="left")
        np.add.at(sums, (truth, own), -(1 << _UNIT))

    # ---- results

    def _class_calibration(self) -> tuple[float | None, ...]:
        distances = np.abs(self._class.value()).sum(axis=1) / self._samples
        return tuple(
            float(distance) if n >= _CALIBRATED else None
            for distance, n in zip(distances, self._of_class, strict=True)
        )

    def _rare(self) -> dict[str, Any]:
        rare = self._rare_class
        if rare is None:
            return {}
        found: dict[str, Any] = {
            "rare_class": rare,
            "rare_recall": _share(int(self._right[rare]), int(self._of_class[rare])),
            "rare_precision": _share(int(self._right[rare]), int(self._said[rare])),
        }
        if self._activation is not None and 0 < self._of_class[rare] < self._samples:
            scores, positive = (np.concatenate(part) for part in zip(*self._rare_scores, strict=True))
            curve = Curve.of(scores, positive)
            found |= {"rare_average_precision": curve.average_precision, "rare_roc_auc": curve.roc_auc}
        return found


class _Exact:
    """Sums of numbers in units of 2**-45, exact and so in any order the same."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.whole, self.part = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)

    def add(self, values: Floats) -> None:
        units = _units_of(values)
        self.whole = self.whole + (units >> _UNIT).sum()
        self.absorb_units((units & _MASK).sum())

    def add_at(self, place: tuple[Integers, ...], values: Floats) -> None:
        sums = np.zeros(self.part.shape, dtype=np.int64)
        np.add.at(sums, place, _units_of(values))
        self.absorb_units(sums)

    def absorb_units(self, units: Any) -> None:
        part = self.part + units
        self.whole, self.part = self.whole + (part >> _UNIT), part & _MASK

    def absorb(self, other: _Exact) -> None:
        self.whole = self.whole + other.whole
        self.absorb_units(other.part)

    def value(self) -> Any:
        return self.whole + self.part * 2.0**-_UNIT


def _in_groups(
    counted: Counter[tuple[Hashable, int, int]], classes: int, confidence: float
) -> dict[str, Any]:
    """What an `Evaluation` says of groups, from the samples of each group, true and predicted class."""
    cells = sorted(counted, key=lambda cell: (str(cell[0]), *cell[1:]))
    place = {group: i for i, group in enumerate(dict.fromkeys(group for group, _, _ in cells))}
    unit, true, said = (np.asarray(x) for x in zip(*((place[g], t, s) for g, t, s in cells), strict=True))
    times = np.asarray([counted[cell] for cell in cells])
    both, back = np.unique(unit * classes + true, return_inverse=True)
    sizes = np.bincount(back.reshape(-1), weights=times)
    total, squares = (np.bincount(both % classes, weights=sizes**k, minlength=classes) for k in (1, 2))
    low, high = _f1_ends(true, said, times, unit, confidence)
    return {
        "units": tuple((total**2 / np.maximum(squares, 1)).tolist()),
        "macro_f1_ends": (low, high),
        "num_groups": len(place),
    }


def _units_of(values: Floats) -> Integers:
    return np.rint(values * 2.0**_UNIT).astype(np.int64)


class _Room:
    """Arrays for a chunk, made once: new ones for each chunk cost more than what is computed in them."""

    def __init__(self, rows: int, columns: int) -> None:
        self.floats, self.more = np.empty((rows, columns)), np.empty((rows, columns))
        self.whole = np.empty((rows, columns), dtype=np.int64)


def _in_top5(scores: Array, truth: Integers) -> int:
    """How many rows have fewer than five scores above the true class's, or as high and before it."""
    own = scores[np.arange(len(scores)), truth][:, np.newaxis]
    above = np.count_nonzero(scores > own, axis=1)
    level = np.count_nonzero(scores == own, axis=1)
    for row in np.flatnonzero((level > 1) & (above < 5)):
        above[row] += np.count_nonzero(scores[row, : truth[row]] == own[row, 0])
    return int(np.count_nonzero(above < 5))


def _bins(samples: Integers, claimed: Floats, right: Integers) -> Bins:
    return tuple(
        (int(n), float(c / n), float(r / n)) for n, c, r in zip(samples, claimed, right, strict=True) if n
    )


def _f1_ends(
    true: Integers, said: Integers, times: Integers, unit: Integers | None, confidence: float
) -> Interval:
    """Percentiles of macro-F1 where samples, or units of them, are drawn anew."""
    rng = np.random.default_rng(0)
    size = int(max(true.max(), said.max())) + 1
    hit = true == said
    values = np.empty(_RESAMPLES)
    for i in range(_RESAMPLES):
        if unit is None:
            weight = rng.multinomial(int(times.sum()), times / times.sum())
        else:
            units = int(unit.max()) + 1
            weight = rng.multinomial(units, np.full(units, 1 / units))[unit] * times
        of_class, predicted, right = (
            np.bincount(classes, weights=w, minlength=size)
            for classes, w in ((true, weight), (said, weight), (true[hit], weight[hit]))
        )
        values[i] = _macro_f1(of_class, predicted, right)
    low, high = np.quantile(values, ((1 - confidence) / 2, (1 + confidence) / 2))
    return Interval(float(low), float(high), confidence)


def _macro_f1(of_class: Array, predicted: Array, right: Array) -> float:
    """The mean of 2 TP / (2 TP + FP + FN) over the classes that are true or predicted anywhere."""
    seen = of_class + predicted
    return float((2 * right[seen > 0] / seen[seen > 0]).mean())


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{100 * share:.1f} %"


def _listed(value: object) -> object:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _tupled(value: object) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list | tuple) else value
