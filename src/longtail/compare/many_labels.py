"""Many labels a sample: rows of 0 and 1 read and checked, which methods fit them, and how a run is judged.

A label is 1 where it is there, 0 where it is not, and -100 where nobody said.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from longtail import _checks
from longtail._arrays import is_missing
from longtail.counts import ClassCounts
from longtail.evaluation import MultiLabelEvaluation, tune_thresholds
from longtail.evaluation.multi_label import LEFT_OUT, drawn_average_precision, evaluate_multi_label
from longtail.evaluation.reading import sigmoid
from longtail.labels import host
from longtail.methods import Method
from longtail.training.predictions import Predictions

__all__ = [
    "INNER",
    "LEFT_OUT",
    "HeldOut",
    "alone",
    "check",
    "judge",
    "label_counts",
    "read",
    "strata",
    "without_form",
]

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
HeldOut = tuple[Floats, Integers]

INNER: Final = 3  # folds inside the training samples, by which thresholds are chosen
_MOST: Final = {"table": 1_000, "features": 20_000}  # labels beyond which a comparison takes days


def read(what: str, given: Any, called: Sequence[object] | None = None) -> tuple[Integers, tuple[str, ...]]:
    """Read rows of 0 and 1, dense or sparse, or a frame of them; NaN and -100 are not known.

    Args:
        what: their name in messages.
        given: of shape (N, L).
        called: names of the labels, where `given` has none.

    Returns:
        int64 of shape (N, L) with -100 where not known, and the names of the labels: those of a frame's
        columns, else their numbers.

    Raises:
        ValueError: other values than 0 and 1, or one column.
    """
    columns = getattr(given, "columns", called)
    if hasattr(given, "toarray"):
        given = given.toarray()
    elif hasattr(given, "to_numpy"):
        given = given.to_numpy()
    values = host(given)
    if values.ndim != 2:
        raise ValueError(f"{what} must be rows of 0 and 1, one column a label, got shape {values.shape}")
    if values.dtype.kind == "O":
        with contextlib.suppress(TypeError, ValueError):
            values = np.asarray(
                [[np.nan if is_missing(x) else x for x in row] for row in values.tolist()], float
            )
    if values.dtype.kind not in "biuf":
        raise ValueError(
            f"{what} of shape {values.shape} must be 0 and 1, got {_checks.describe(values)}; one column a "
            "label, made by sklearn.preprocessing.MultiLabelBinarizer of lists of names"
        )
    names = tuple(map(str, range(values.shape[1]) if columns is None else columns))
    if len(names) < 2:
        raise ValueError(
            f"{what} has shape {values.shape}, one column: give it as {what}[:, 0], a class a sample"
        )
    known = (values == values) & (values != LEFT_OUT)
    wrong = np.argwhere(known & (values != 0) & (values != 1))
    if len(wrong):
        row, column = map(int, wrong[0])
        value = values[row, column].item()
        remedy = "write 1 where the label is there, 0 where it is not, NaN where it is not known"
        there = values[known]
        if 0 < value < 1 and there.min() >= 0 and there.max() <= 1:
            remedy = f"these look like probabilities, so cut them: {what} >= 0.5"
        raise ValueError(
            f"{what} must be 0 and 1, got {value:g}, first in row {row}, label {names[column]!r}; {remedy}"
        )
    return np.where(known, np.where(known, values, 0), LEFT_OUT).astype(np.int64), names


def check(
    truth: Integers,
    names: Sequence[str],
    *,
    kind: str,
    source: str,
    groups: Integers | None,
    tested: bool,
) -> list[str]:
    """Refuse labels that nothing can be learned of; return what is good to know, a line each.

    Args:
        truth: as `read` gives it.
        names: of the labels.
        kind: "table" | "features".
        source: what they are of, in messages.
        groups: one a sample, or None.
        tested: whether a test set is given.

    Raises:
        ValueError: a label without a known positive or negative, or with one alone where folds are cut; rows
            of which nothing is known; too many labels.
    """
    if len(names) > _MOST[kind]:
        what, other = "features", ""
        if kind == "table":
            what, other = "a table", ", or compare heads on features, which learn them together"
        raise ValueError(
            f"labels of {source} are {len(names):,}, and a comparison on {what} takes at most "
            f"{_MOST[kind]:,}; leave out the rarest{other}"
        )
    known = truth != LEFT_OUT
    bare = np.flatnonzero(~known.any(axis=1))
    if len(bare):
        raise ValueError(
            f"labels of {source}: in {len(bare)} rows no label is known, first in row {bare[0]}; write 0 "
            "where a label is not there, or leave such rows out"
        )
    sizes = {1: (truth == 1).sum(axis=0), 0: (truth == 0).sum(axis=0)}
    unknown = [n for n, some in zip(names, known.any(axis=0), strict=True) if not some]
    if unknown:
        raise ValueError(f"labels {_checks.shorten(unknown)} of {source} are known in no row; leave them out")
    for value, word in ((1, "positive"), (0, "negative")):
        if empty := [n for n, size in zip(names, sizes[value], strict=True) if not size]:
            raise ValueError(
                f"labels {_checks.shorten(empty)} of {source} have no {word} row, and there is nothing to "
                "learn of them; leave them out"
            )
        if not tested and (
            alone := [n for n, u in zip(names, _units(truth, value, groups), strict=True) if u < 2]
        ):
            where = f"one {word} row" if groups is None else f"all {word} rows in one group"
            raise ValueError(
                f"labels {_checks.shorten(alone)} of {source} have {where}, and cannot be both learned and "
                "tested; leave them out, or give a test set"
            )
    notes = []
    if known.all() and (truth.sum(axis=1) == 1).all():
        notes.append(
            "every row has exactly one label: if they exclude one another, compare them as classes, by one "
            "column with the name of the class"
        )
    if without := int((known.all(axis=1) & ~(truth == 1).any(axis=1)).sum()):
        notes.append(f"{without:,} of {len(truth):,} rows have none of the labels, and count as such")
    if unsaid := int((~known).sum()):
        notes.append(
            f"{unsaid:,} of {truth.size:,} labels are not known and take no part, in training and in testing"
        )
    return notes


def alone(truth: Integers, groups: Integers | None) -> npt.NDArray[np.bool_]:
    """Return which labels have their positives in one row, or in one group, alone."""
    return np.asarray(_units(truth, 1, groups) < 2)


def _units(truth: Integers, value: int, groups: Integers | None) -> Integers:
    """In how many rows, or groups, each label has a value."""
    here = truth == value
    if groups is None:
        return np.asarray(here.sum(axis=0))
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order[0]] - 1))
    return np.asarray((np.add.reduceat(here[order].astype(np.int64), starts, axis=0) > 0).sum(axis=0))


def strata(truth: Integers) -> Integers:
    """Return the rarest label of each sample, by which folds are stratified; those without any are one more.

    A fold then has its share of each label's positives but for those that stand beside a rarer label.
    """
    here = truth == 1
    order = np.argsort(here.sum(axis=0), kind="stable")
    rarest = order[here[:, order].argmax(axis=1)]
    return np.asarray(np.where(here.any(axis=1), rarest, truth.shape[1]), dtype=np.int64)


def label_counts(truth: Integers) -> ClassCounts:
    """Return positives and the number of samples, by which losses weigh.

    Of a label that is not known everywhere, the positives are what as many samples as there are would have.
    """
    known, positives = (truth != LEFT_OUT).sum(axis=0), (truth == 1).sum(axis=0)
    total = len(truth)
    raised = np.rint(positives * total / np.maximum(known, 1)).astype(np.int64)
    # neither nothing nor everything, as far as there is both
    low, high = np.minimum(positives, 1), total - np.minimum(known - positives, 1)
    return ClassCounts(range(truth.shape[1]), np.clip(raised, low, high), total)


def without_form(method: Method, kind: str) -> str:
    """Return what of a method has no form for many labels; "" where all has.

    Args:
        method: with a sigmoid loss where it has a form.
        kind: "table" | "features".
    """
    for part, why in (
        ("margin", "a margin of the sample's one class"),
        ("scale", "a temperature of the sample's one class"),
        ("sampling", "draws by the sample's one class"),
        ("synthesis", "new samples of one class"),
        ("mixing", "mixed samples"),
        ("reweighting", "a balanced part of each class"),
        ("refit", "a last layer by class"),
    ):
        if getattr(method, part) is not None:
            return why
    if method.activation != "sigmoid":
        return f"loss {method.loss!r}, which decides for one class"
    if method.cosine or method.label_smoothing:
        return "a cosine head" if method.cosine else "label smoothing"
    if method.offset is not None and method.offset.name != "log_prior":
        return f"offset {method.offset.name!r}"
    if method.adjustment is not None and (method.adjustment.name != "logit" or method.weighs):
        return "one tau by held-out classes" if method.is_tuned else "an adjustment beside weights"
    if kind == "features":
        return ""
    if method.loss != "sigmoid":
        return f"the loss {method.loss!r}, in a training by epochs"
    if method.offset is not None or method.schedule is not None:
        return f"a rule of {'offset' if method.offset is not None else 'schedule'} in a training by epochs"
    if method.weighs and method.weighting == "class":
        return "a weight of a whole label, which a model of that label alone does not feel"
    return ""


def judge(
    method: Method,
    logits: Floats,
    truth: Integers,
    training: Integers,
    held_out: HeldOut,
    class_counts: Integers,
    groups: Integers | None,
    *,
    drawn: bool = False,
    epochs: int | None = None,
) -> tuple[MultiLabelEvaluation, dict[str, float], Predictions]:
    """Decide and evaluate one run; the test part chooses nothing.

    Args:
        method: its adjustment acts here.
        logits: of the test samples, shape (N, L).
        truth: what is there, shape (N, L).
        training: labels of the run's training samples.
        held_out: logits and labels of training samples, from models that did not learn them: they choose the
            thresholds.
        class_counts: positives of each label in the data, for the shot groups.
        groups: of the test samples, or None.
        drawn: whether the doubt of the test samples is wanted, as of one test set for all runs.
        epochs: of the training.

    Returns:
        The evaluation at those thresholds; what it lacks: ``log_loss``, the mean over known labels of
        -log p, and ``macro_f1_at_half``, at 0.5; and what was said of each
        sample.
    """
    counts = label_counts(training)
    decided, inner = (
        np.asarray(method.adjust(z, counts, epochs=epochs), dtype=np.float64) for z in (logits, held_out[0])
    )
    tuned = tune_thresholds(inner, held_out[1], folds=2, activation="sigmoid")
    options: dict[str, Any] = {"activation": "sigmoid", "resamples": 0, "groups": groups}
    found = evaluate_multi_label(decided, truth, class_counts, threshold=tuned, **options)
    at_half = evaluate_multi_label(decided, truth, class_counts, **options)
    known = truth != LEFT_OUT
    losses = np.logaddexp(0, np.where(truth == 1, -decided, decided))[known]
    measures = {"log_loss": float(losses.mean())}
    if at_half.macro_f1 is not None:
        measures["macro_f1_at_half"] = at_half.macro_f1
    again = drawn_average_precision(decided, truth, groups) if drawn else None
    given = sigmoid(decided) >= np.asarray(found.threshold)
    return found, measures, Predictions.of_labels(decided, truth, given, groups, again)
