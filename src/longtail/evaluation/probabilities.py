"""Can the probabilities be trusted? As they are, with a temperature, and moved to another prior."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from longtail import _arrays, _checks
from longtail._arrays import as_numpy
from longtail.adjust import adjust_logits
from longtail.evaluation.label_shift import fit_calibration
from longtail.evaluation.reading import Classes, group_numbers, read_labels
from longtail.evaluation.single_label import Evaluation, Evaluator

__all__ = ["check_probabilities", "reliability_gap"]


def reliability_gap(bins: Sequence[tuple[int, float, float]]) -> float | None:
    """Return how far confidence is from accuracy, on average over the samples of bins; None without samples.

    Args:
        bins: samples, mean confidence and accuracy of each, as in `Evaluation.reliability`.
    """
    samples = sum(n for n, _, _ in bins)
    return sum(n * abs(c - a) for n, c, a in bins) / samples if samples else None


def check_probabilities(
    logits: object,
    targets: object,
    class_counts: object,
    *,
    source: object = None,
    target: object = "uniform",
    groups: object = None,
    folds: int = 5,
    seed: int = 0,
) -> dict[str, Evaluation]:
    """Evaluate probabilities before and after a temperature and a change of the prior.

    The temperature is fitted out of fold: each sample's by the samples of the other folds.

    Args:
        logits: Shape (N, C), of samples that the model was not trained on.
        targets: Class indices, integers of shape (N,), or labels by the names of ``class_counts``.
        class_counts: Training samples per class.
        source: The class shares that the probabilities answer for, as counts; None: ``class_counts``, as
            after plain training. Ones for a model that balances, which then has nothing to adjust.
        target: The prior to move to, as for `longtail.adjust_logits`.
        groups: One a sample: those of one group (a patient, a track) stay in one fold.
        folds: At least 2.
        seed: Of the folds.

    Returns:
        Evaluations by name: "as they are", "temperature", "adjusted", "temperature, adjusted"; their
        ``log_loss``, ``brier_score``, ``per_class_calibration`` and ``group_reliability`` tell them apart.
        An adjusted model's probabilities are right where the classes have the target's shares.

    Raises:
        TypeError: Logits of no floating point type, or targets that are no integers and no names.
        ValueError: Lengths that differ, values out of range, NaN, or fewer groups than folds.
        ModuleNotFoundError: SciPy is not installed.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> targets = np.repeat([0, 1], [360, 40])
        >>> logits = 4 * (rng.normal(size=(400, 2)) + 2 * np.eye(2)[targets])
        >>> found = check_probabilities(logits, targets, [900, 100])
        >>> found["temperature"].log_loss < found["as they are"].log_loss
        True
    """
    _arrays.check_columns("logits", logits, class_counts)
    _arrays.check_index({"logits": logits, "targets": targets, "groups": groups})
    values = as_numpy("logits", logits)
    if values.ndim != 2 or values.dtype.kind != "f":
        raise ValueError(f"logits must be floating point of shape (N, C), got {_checks.describe(values)}")
    names = Classes.read(class_counts, values.shape[1]).names
    truth = read_labels("targets", targets, values.shape[1], names=names, called="class_counts")
    if len(truth) != len(values):
        raise ValueError(f"targets must be one a row of logits, {len(values)}, got {len(truth)}")
    folds = _checks.integer("folds", folds, low=2)
    ids = np.arange(len(truth)) if groups is None else group_numbers(groups, len(truth))
    units = int(ids.max()) + 1
    if units < folds:
        raise ValueError(f"folds must be at most the {units} samples or groups, got {folds}")
    fold = np.random.default_rng(seed).permutation(units)[ids] % folds
    cooled = values.astype(np.float64)
    for k in range(folds):
        rest = fold != k
        cooled[~rest] /= fit_calibration(values[rest], truth[rest], biases=False).temperature
    found = {"as they are": values.astype(np.float64), "temperature": cooled}
    answered = class_counts if source is None else source
    found |= {
        "adjusted": adjust_logits(found["as they are"], answered, target=target),
        "temperature, adjusted": adjust_logits(cooled, answered, target=target),
    }
    evaluations = {}
    for name, scores in found.items():
        evaluator = Evaluator(class_counts, activation="softmax")
        evaluator.add(scores, truth, groups=None if groups is None else ids)
        evaluations[name] = evaluator.result()
    return evaluations
