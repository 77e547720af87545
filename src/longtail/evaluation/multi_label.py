"""Many labels a sample: average precision and F1 of every class, along the tail."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks
from longtail._arrays import as_numpy
from longtail.evaluation.curves import Curve
from longtail.evaluation.intervals import THIN, Interval, checked_confidence, in_groups_text, units_text
from longtail.evaluation.reading import ACTIVATIONS, SUM, Classes, group_ids, side_by_side, sigmoid

__all__ = [
    "LabelSums",
    "MultiLabelEvaluation",
    "drawn_average_precision",
    "evaluate_multi_label",
    "is_multi_label",
    "one_hot",
    "read_multi_label",
]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Shares = tuple[float | None, ...]

_BINS_A_UNIT = 32  # of a logit
_BINS = 2 * 16 * _BINS_A_UNIT + 2  # from -16 to 16, and one beyond each end
LEFT_OUT = -100  # what stands beside NaN for an element that nobody labelled
_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class MultiLabelEvaluation:
    """How well labels are found, class by class. Shares from 0 to 1; None stands for "not applicable".

    Attributes:
        num_samples: Samples evaluated.
        num_ignored: Elements left out, whose target was NaN or -100.
        positives: Test samples that have each label.
        per_class_average_precision: Area under precision by recall, as a sum; None for a class without a
            positive, and everywhere for hard decisions.
        per_class_f1: At the threshold; None for a class without a positive.
        per_class_precision: None for a class that was never given.
        per_class_recall: None for a class without a positive.
        macro_average_precision: Mean over the classes with a positive.
        macro_f1: Mean over the classes with a positive.
        micro_f1: Of all decisions together; None where nothing is positive or given.
        many_average_precision: Mean over the classes with a positive and more than ``thresholds[0]``
            positives in training; None where there are none.
        medium_average_precision: The same for classes in between, both ends included.
        few_average_precision: The same for classes with fewer than ``thresholds[1]``.
        many_f1: Mean F1 likewise.
        medium_f1: Of those in between.
        few_f1: Of those with fewer.
        group_sizes: Number of classes in the groups many, medium and few.
        thresholds: Training samples that separate the groups: ``(many, few)``.
        threshold: The probability from which a label was given, of every class.
        activation: How scores were read: "sigmoid", or "identity" for probabilities; None for decisions.
        class_counts: Training samples that have each label.
        macro_average_precision_interval: Percentiles over bootstrap samples, of samples or of their groups.
        macro_f1_interval: Likewise; None without resamples.
        num_groups: How many groups the test samples come in, which the intervals then count in their place;
            None where no groups were given, and in evaluations stored before this was kept.
    """

    num_samples: int
    num_ignored: int
    positives: tuple[int, ...]
    per_class_average_precision: Shares
    per_class_f1: Shares
    per_class_precision: Shares
    per_class_recall: Shares
    macro_average_precision: float | None
    macro_f1: float | None
    micro_f1: float | None
    many_average_precision: float | None
    medium_average_precision: float | None
    few_average_precision: float | None
    many_f1: float | None
    medium_f1: float | None
    few_f1: float | None
    group_sizes: tuple[int, int, int]
    thresholds: tuple[int, int]
    threshold: tuple[float, ...]
    activation: str | None
    class_counts: tuple[int, ...]
    macro_average_precision_interval: Interval | None
    macro_f1_interval: Interval | None
    num_groups: int | None = None

    @property
    def units_text(self) -> str:
        """Say what the intervals count: "the test samples", or their groups, and how many."""
        return units_text(self.num_groups)

    @property
    def thin_classes(self) -> tuple[int, ...]:
        """Classes with fewer than 5 positives in the test set."""
        return tuple(c for c, n in enumerate(self.positives) if n < THIN)

    @property
    def thin_text(self) -> str:
        """Say how many classes have fewer than 5 positives in the test set; empty where none has."""
        thin = self.thin_classes
        if not thin:
            return ""
        have, none = ("has" if len(thin) == 1 else "have"), sum(1 for c in thin if not self.positives[c])
        text = f"{len(thin)} of {len(self.positives)} classes {have} fewer than {THIN} test samples"
        return f"{text}, {none} of them none" if none else text

    def with_intervals(
        self,
        scores: object,
        decisions: object,
        targets: object,
        groups: object = None,
        *,
        confidence: float = 0.95,
        resamples: int = 200,
    ) -> MultiLabelEvaluation:
        """Return the same with the intervals of its means, from what was said of its test samples.

        Args:
            scores: Logits or probabilities, shape (N, C); None leaves out the interval of average precision.
            decisions: The labels given, 0 and 1 of shape (N, C).
            targets: 0, 1 and -100 where not known, of shape (N, C).
            groups: One a sample, as for `longtail.evaluate`: the intervals then count groups.
            confidence: Of the intervals.
            resamples: Bootstrap samples.

        Raises:
            ValueError: Arrays of another shape than the test samples and labels, or as `longtail.evaluate`.
        """
        truth, given = as_numpy("targets", targets), as_numpy("decisions", decisions)
        shape = (self.num_samples, len(self.class_counts))
        read = None if scores is None else as_numpy("scores", scores).astype(np.float64)
        for name, array in (("targets", truth), ("decisions", given), ("scores", read)):
            if array is not None and array.shape != shape:
                raise ValueError(
                    f"{name} must be those of the test samples, of shape {shape}, got {array.shape}; give "
                    "what this was evaluated on"
                )
        known = (truth == truth) & (truth != LEFT_OUT)
        labelled = Labelled(read, given == 1, known & (truth == 1), known, self.activation)
        ids = None if groups is None else group_ids(groups, len(truth))
        ends = _bootstrap(
            labelled,
            (given == 1) & known,
            ids,
            _checks.integer("resamples", resamples, low=1),
            checked_confidence(confidence),
        )
        return replace(
            self,
            macro_average_precision_interval=ends[0],
            macro_f1_interval=ends[1],
            num_groups=None if ids is None else len({*ids}),
        )

    def to_dict(self) -> dict[str, object]:
        """Return the fields as JSON knows them: numbers, lists and None; no number of groups without any."""
        found: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Interval):
                value = [*value, value.confidence]
            found[field.name] = list(value) if isinstance(value, tuple) else value
        if self.num_groups is None:  # as before there were groups
            del found["num_groups"]
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MultiLabelEvaluation:
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
        read: dict[str, Any] = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in values.items()}
        for name in ("macro_average_precision_interval", "macro_f1_interval"):
            read[name] = None if read[name] is None else Interval(*read[name])
        return cls(**read)

    def __str__(self) -> str:
        parts = {
            "macro average precision": self.macro_average_precision,
            "many": self.many_average_precision,
            "medium": self.medium_average_precision,
            "few": self.few_average_precision,
            "macro-F1": self.macro_f1,
            "micro-F1": self.micro_f1,
        }
        text = ", ".join(f"{k} {'n/a' if v is None else f'{v:.3f}'}" for k, v in parts.items())
        read = ", scores read as probabilities" if self.activation == "identity" else ""
        return f"{text}, {self.num_samples} samples{in_groups_text(self.num_groups)}{read}"


@dataclass(frozen=True, eq=False)
class Labelled:
    """Scores, or decisions, and truth of many labels; every array of shape (N, C).

    Attributes:
        scores: logits or probabilities; None for decisions.
        given: the decisions, or None.
        truth: what is there.
        known: False where nobody labelled the element.
        activation: how scores are read.
    """

    scores: Floats | None
    given: Flags | None
    truth: Flags
    known: Flags
    activation: str | None

    @property
    def probabilities(self) -> Floats | None:
        """The scores as probabilities."""
        if self.scores is None or self.activation == "identity":
            return self.scores
        return sigmoid(self.scores)


def is_multi_label(scores: object, targets: object) -> bool:
    """Tell targets of 0 and 1 a column, beside scores or decisions of the same shape."""
    if len(getattr(targets, "shape", np.shape(targets) if isinstance(targets, (list, tuple)) else ())) != 2:
        return False
    truth, values = as_numpy("targets", targets), as_numpy("logits_or_predictions", scores)
    if truth.shape != values.shape or truth.shape[1] < 2 or not truth.size or truth.dtype.kind not in "biuf":
        return False
    if not (np.isin(truth, (0, 1, LEFT_OUT)) | (truth != truth)).all():
        return False
    return values.dtype.kind in "fb" or (values.dtype.kind in "iu" and bool(np.isin(values, (0, 1)).all()))


def one_hot(scores: object, targets: object) -> tuple[object, npt.NDArray[np.int64]] | None:
    """Read targets of `is_multi_label` with one 1 in each row as class indices, beside scores or classes.

    None where they are many labels: other rows, elements that are left out, decisions of which a row has
    another number, or probabilities that do not sum to 1.
    """
    truth, values = as_numpy("targets", targets), as_numpy("logits_or_predictions", scores)
    if not (np.isin(truth, (0, 1)).all() and (truth.sum(axis=1) == 1).all()):
        return None
    if values.dtype.kind != "f":
        alone = bool((values.astype(np.int64).sum(axis=1) == 1).all())
        return (values.argmax(axis=1), truth.argmax(axis=1)) if alone else None
    inside = bool(((values >= 0) & (values <= 1)).all())
    if inside and (np.abs(values.sum(axis=1, dtype=np.float64) - 1) > SUM).any():
        return None
    return scores, truth.argmax(axis=1)


def read_multi_label(
    scores: object, targets: object, activation: str | None = None, ignore_index: object = None
) -> Labelled:
    """Read what `is_multi_label` told.

    Raises:
        ValueError: NaN or infinite scores, probabilities outside [0, 1], or an unknown activation.
    """
    name = "logits_or_predictions"
    truth, values = as_numpy("targets", targets), as_numpy(name, scores)
    known = (truth == truth) & (truth != LEFT_OUT)
    if ignore_index is not None:
        known &= truth != ignore_index
    there = np.where(known, truth, 0) == 1
    if values.dtype.kind != "f":
        return Labelled(None, values == 1, there, known, None)
    values = values.astype(np.float64)
    if bad := int((~(values < np.inf)).any(axis=1).sum()):
        raise ValueError(
            f"{name} has NaN or +inf in {bad} of {len(values)} rows; find where training diverged"
        )
    inside = bool(((values >= 0) & (values <= 1)).all())
    if activation is None:
        activation = "identity" if inside else "sigmoid"
    if _checks.choice("activation", activation, ACTIVATIONS) == "softmax":
        raise ValueError("activation must be 'sigmoid' or 'identity' for many labels a sample, got 'softmax'")
    if activation == "identity" and not inside:
        raise ValueError(f"{name} lies outside [0, 1]; for logits use activation='sigmoid'")
    return Labelled(values, None, there, known, activation)


def evaluate_multi_label(
    scores: object,
    targets: object,
    class_counts: object,
    *,
    activation: str | None = None,
    many: int | None = None,
    few: int | None = None,
    groups: object = None,
    ignore_index: object = None,
    threshold: object = 0.5,
    confidence: float = 0.95,
    resamples: int = 200,
) -> MultiLabelEvaluation:
    """Evaluate many labels a sample; the arguments are those of `longtail.evaluate`, which calls it.

    Raises:
        TypeError: As `longtail.evaluate`.
        ValueError: As `longtail.evaluate`.
    """
    side_by_side(scores, targets, class_counts, groups)
    read = read_multi_label(scores, targets, activation, ignore_index)
    size = read.truth.shape[1]
    classes = Classes.read(class_counts, size)
    if len(classes) != size:
        raise ValueError(
            f"class_counts must have {size} elements, one per column of logits_or_predictions, got "
            f"{len(classes)}; the order is evaluate(logits_or_predictions, targets, class_counts)"
        )
    confidence = checked_confidence(confidence)
    resamples = _checks.integer("resamples", resamples, low=0)
    cuts = read_threshold(threshold, size, class_counts)
    decided = _decided(read, cuts)
    curves = [Curve.of(s, t) if len(s) else None for s, t in _columns(read)]
    ids = None if groups is None else group_ids(groups, len(read.truth))
    ends = _bootstrap(read, decided, ids, resamples, confidence) if resamples else (None, None)
    found = _made(
        classes,
        classes.shots(many, few),
        samples=len(read.truth),
        ignored=int((~read.known).sum()),
        positives=read.truth.sum(axis=0),
        taken=decided.sum(axis=0),
        right=(decided & read.truth).sum(axis=0),
        precision=tuple(None if c is None else c.average_precision for c in curves) or (None,) * size,
        cuts=cuts,
        activation=read.activation,
        ends=ends,
    )
    return found if ids is None else replace(found, num_groups=len({*ids}))


def _decided(read: Labelled, cuts: Floats) -> Flags:
    """Which labels are given, of the elements that are known."""
    probabilities = read.probabilities
    given = read.given if probabilities is None else probabilities >= cuts
    assert given is not None
    return np.asarray(given & read.known)


def _made(
    classes: Classes,
    limits: tuple[int, int],
    *,
    samples: int,
    ignored: int,
    positives: Array,
    taken: Array,
    right: Array,
    precision: Shares,
    cuts: Floats,
    activation: str | None,
    ends: tuple[Interval | None, Interval | None],
) -> MultiLabelEvaluation:
    f1 = _ratio(2 * right, positives + taken, positives > 0)
    decided = int(positives.sum() + taken.sum())
    shot = classes.groups(limits)
    by_shot: dict[str, Any] = {
        f"{name}_{what}": _mean(v for v, g in zip(values, shot, strict=True) if g == i)
        for what, values in (("average_precision", precision), ("f1", f1))
        for i, name in enumerate(("many", "medium", "few"))
    }
    return MultiLabelEvaluation(
        num_samples=samples,
        num_ignored=ignored,
        positives=tuple(positives.tolist()),
        per_class_average_precision=precision,
        per_class_f1=f1,
        per_class_precision=_ratio(right, taken, taken > 0),
        per_class_recall=_ratio(right, positives, positives > 0),
        macro_average_precision=_mean(precision),
        macro_f1=_mean(f1),
        micro_f1=float(2 * right.sum() / decided) if decided else None,
        **by_shot,
        group_sizes=(int((shot == 0).sum()), int((shot == 1).sum()), int((shot == 2).sum())),
        thresholds=limits,
        threshold=tuple(cuts.tolist()),
        activation=activation,
        class_counts=tuple(classes.counts.tolist()),
        macro_average_precision_interval=ends[0],
        macro_f1_interval=ends[1],
    )


class LabelSums:
    """Many labels a sample that come in batches: sums of a fixed size, for `longtail.evaluation.Evaluator`.

    Scores are counted in 1,026 bins of their logit, 1/32 wide from -16 to 16, so that average precision is
    that of scores rounded down to them.
    """

    def __init__(
        self,
        class_counts: object,
        activation: str | None,
        shots: tuple[int | None, int | None],
        threshold: object,
        ignore_index: object,
    ) -> None:
        self.settings = (class_counts, activation, shots, threshold, ignore_index)
        self.classes: Classes | None = None
        self.activation, self.samples, self.ignored = activation, 0, 0

    def add(self, scores: object, targets: object) -> None:
        """Count one batch.

        Raises:
            ValueError: shapes that differ, scores after decisions, or what `read_multi_label` refuses.
        """
        counts, told, _, _, ignore_index = self.settings
        side_by_side(scores, targets, counts)
        if not is_multi_label(scores, targets):
            shapes = [as_numpy("x", x).shape for x in (scores, targets)]
            raise ValueError(
                "for many labels a sample, logits_or_predictions and targets must have one shape (N, C), and "
                f"targets hold 0 and 1, got shapes {shapes[0]} and {shapes[1]}"
            )
        read = read_multi_label(scores, targets, self.activation if self.samples else told, ignore_index)
        if self.classes is None:
            self._start(Classes.read(counts, read.truth.shape[1]))
        assert self.classes is not None
        if read.truth.shape[1] != len(self.classes):
            raise ValueError(
                f"class_counts must have {read.truth.shape[1]} elements, one per column of "
                f"logits_or_predictions, got {len(self.classes)}"
            )
        if self.samples and (read.scores is None) != (self.activation is None):
            raise ValueError("scores follow decisions, or the other way round; give one kind in all batches")
        self.activation = read.activation
        decided = _decided(read, self.cuts)
        self.samples += len(read.truth)
        self.ignored += int((~read.known).sum())
        self.positives += read.truth.sum(axis=0)
        self.taken += decided.sum(axis=0)
        self.right += (decided & read.truth).sum(axis=0)
        if read.scores is not None:
            row, column = np.nonzero(read.known)
            logits = read.scores[row, column]
            if read.activation == "identity":
                with np.errstate(divide="ignore"):
                    logits = np.log(logits) - np.log1p(-logits)
            place = np.floor(np.clip(logits, -17, 17) * _BINS_A_UNIT) + _BINS // 2
            place = np.clip(place, 0, _BINS - 1).astype(np.int64)
            np.add.at(self.bins, (read.truth[row, column].astype(np.int64), column, place), 1)

    def absorb(self, other: LabelSums) -> None:
        """Add what another one has counted.

        Raises:
            ValueError: it has other classes, settings or kinds of scores.
        """
        if other.classes is None or not other.samples:
            return
        if self.classes is None:
            self._start(other.classes)
        assert self.classes is not None
        if not np.array_equal(self.classes.counts, other.classes.counts):
            raise ValueError("evaluators must have the same class_counts; these differ")
        if self.limits != other.limits or not np.array_equal(self.cuts, other.cuts):
            raise ValueError("evaluators must have the same many, few and threshold; these differ")
        if self.samples and self.activation != other.activation:
            kinds = [one.activation or "decisions" for one in (self, other)]
            raise ValueError(
                f"evaluators must have read the same kind of scores, got {kinds[0]} and {kinds[1]}; say "
                "activation= to both"
            )
        self.activation = other.activation
        self.samples += other.samples
        self.ignored += other.ignored
        for name in ("positives", "taken", "right", "bins"):
            getattr(self, name).__iadd__(getattr(other, name))

    def result(self) -> MultiLabelEvaluation:
        """Evaluate all batches together."""
        assert self.classes is not None
        precision: Shares = (None,) * len(self.classes)
        if self.activation is not None:
            precision = tuple(curve.average_precision for curve in self.curves())
        return _made(
            self.classes,
            self.limits,
            samples=self.samples,
            ignored=self.ignored,
            positives=self.positives,
            taken=self.taken,
            right=self.right,
            precision=precision,
            cuts=self.cuts,
            activation=self.activation,
            ends=(None, None),
        )

    def curves(self) -> list[Curve]:
        """Return what becomes of each class at every threshold, a logit."""
        edges = (np.arange(_BINS) - _BINS // 2) / _BINS_A_UNIT
        edges[0] = -np.inf
        found = []
        for others, own in zip(*self.bins, strict=True):
            here = np.flatnonzero(others + own)[::-1]
            hits, taken = np.cumsum(own[here]), np.cumsum((others + own)[here])
            found.append(Curve(edges[here], hits, taken, int(own.sum()), int((others + own).sum())))
        return found

    def _start(self, classes: Classes) -> None:
        size = len(classes)
        self.classes, self.limits = classes, classes.shots(*self.settings[2])
        self.cuts = read_threshold(self.settings[3], size, self.settings[0])
        self.positives, self.taken, self.right = (np.zeros(size, dtype=np.int64) for _ in range(3))
        self.bins = np.zeros((2, size, _BINS), dtype=np.int64)


def read_threshold(threshold: object, classes: int, counts: object) -> Floats:
    """Read one probability, or one a class, which names may tell.

    Raises:
        ValueError: another number of them, or one outside [0, 1].
    """
    given = getattr(threshold, "thresholds", threshold)
    if isinstance(given, Mapping) or _arrays.is_series(given):
        given = _arrays.beside("threshold", given, counts, "class_counts")
    values = as_numpy("threshold", given)
    if values.dtype.kind not in "fiu" or values.shape not in ((), (classes,)):
        raise ValueError(
            f"threshold must be a number or {classes}, one a class, got {_checks.describe(threshold)}"
        )
    cuts = np.broadcast_to(values.astype(np.float64), (classes,))
    if len(outside := cuts[~((cuts >= 0) & (cuts <= 1))]):
        raise ValueError(f"threshold must lie in [0, 1], as probabilities do, got {outside[0]:g}")
    return cuts


def _columns(read: Labelled) -> list[tuple[Floats, Flags]]:
    """Scores and truth of each class, of the elements that are known; nothing for decisions."""
    if read.scores is None:
        return []
    return [(read.scores[known, c], read.truth[known, c]) for c, known in enumerate(read.known.T)]


def drawn_average_precision(
    scores: Floats, truth: Array, groups: object = None, resamples: int = 200
) -> Floats:
    """Return macro average precision over samples, or whole groups, drawn anew: shape (resamples,).

    The draws hang on the number of samples and on the groups alone, so that those of two methods on one test
    set are pairs.

    Args:
        scores: Logits of shape (N, C).
        truth: 0, 1 and -100 where not known, of shape (N, C).
        groups: One a sample, or None.
        resamples: How many.
    """
    read = read_multi_label(scores, truth, "sigmoid")
    ids = None if groups is None else group_ids(groups, len(read.truth))
    found, _ = _drawn(read, read.truth, ids, resamples)
    assert found is not None
    return found


def _bootstrap(
    read: Labelled, given: Flags, ids: list[Any] | None, resamples: int, confidence: float
) -> tuple[Interval | None, Interval | None]:
    """Percentiles of macro average precision and macro-F1, of samples or groups drawn anew."""
    precision, f1s = _drawn(read, given, ids, resamples)
    return None if precision is None else _ends(precision, confidence), _ends(f1s, confidence)


def _drawn(
    read: Labelled, given: Flags, ids: list[Any] | None, resamples: int
) -> tuple[Floats | None, Floats]:
    """Macro average precision, where there are scores, and macro-F1 of samples or groups drawn anew."""
    rng = np.random.default_rng(0)
    samples, size = read.truth.shape
    unit = np.arange(samples)
    if ids is not None:
        place = {group: i for i, group in enumerate(dict.fromkeys(ids))}
        unit = np.asarray([place[group] for group in ids])
    units = int(unit.max()) + 1
    sums, classes, f1s = np.zeros(resamples), np.zeros(resamples), np.empty(resamples)
    step = max(1, _AT_ONCE // samples)
    order = None if read.scores is None else np.argsort(-read.scores, axis=0, kind="stable")
    for start in range(0, resamples, step):
        now = slice(start, min(start + step, resamples))
        drawn = rng.multinomial(units, np.full(units, 1 / units), size=now.stop - now.start)[:, unit]
        weight = drawn.astype(np.float64)
        positives = weight @ read.truth
        right, taken = weight @ (given & read.truth), weight @ given
        here = positives > 0
        f1 = np.where(here, 2 * right / np.maximum(positives + taken, 1), 0)
        with np.errstate(invalid="ignore"):
            f1s[now] = f1.sum(axis=1) / here.sum(axis=1)
        if order is None:
            continue
        assert read.scores is not None
        for c in range(size):
            if not read.truth[:, c].any():
                continue
            rows = order[:, c][read.known[order[:, c], c]]
            falling = read.scores[rows, c]
            ends = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(rows) - 1)
            mine = weight[:, rows]
            taken_at = np.cumsum(mine, axis=1)[:, ends]
            found_at = np.cumsum(mine * read.truth[rows, c], axis=1)[:, ends]
            steps = np.diff(found_at, axis=1, prepend=0)
            with np.errstate(invalid="ignore"):
                area = np.where(steps > 0, steps * found_at / taken_at, 0).sum(axis=1) / found_at[:, -1]
            sums[now] += np.where(found_at[:, -1] > 0, area, 0)
            classes[now] += found_at[:, -1] > 0
    with np.errstate(invalid="ignore"):
        return None if order is None else sums / classes, f1s


def _ends(values: Floats, confidence: float) -> Interval | None:
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, ((1 - confidence) / 2, (1 + confidence) / 2))
    return Interval(float(low), float(high), confidence)


def _ratio(part: Array, whole: Array, here: Array) -> Shares:
    return tuple(float(p / w) if h else None for p, w, h in zip(part, whole, here, strict=True))


def _mean(values: Any) -> float | None:
    known = [v for v in values if v is not None]
    return math.fsum(known) / len(known) if known else None
