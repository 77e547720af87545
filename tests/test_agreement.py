"""`evaluate` and `Evaluator` against torchmetrics and scikit-learn, where they define the same: to 1e-12.

torchmetrics is asked in float64. Its calibration error has confidences in float32, whatever it is asked for.
"""

import numpy as np
import pytest
import torch
from sklearn import metrics
from torchmetrics import classification as theirs

from longtail.evaluation import Evaluator, class_curves, evaluate, macro_curves

CLOSE = {"rel": 0, "abs": 1e-12}
COUNTS = [500, 60, 8, 3]


def softmax(logits):
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def one_label(n=400, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.choice(4, n, p=[0.6, 0.25, 0.1, 0.05])
    return rng.normal(size=(n, 4)) + 1.5 * np.eye(4)[truth], truth


def many_labels(n=600, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random((n, 4)) < [0.5, 0.2, 0.05, 0.01]
    return rng.normal(size=(n, 4)) + 2 * truth - 1, truth.astype(int)


def torchs(name, scores, targets, **options):
    """What torchmetrics says in float64: sums of samples by `set_dtype`, areas by torch's default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        metric = getattr(theirs, name)(4, **options).set_dtype(torch.float64)
        return metric(torch.from_numpy(scores), torch.from_numpy(targets)).numpy()
    finally:
        torch.set_default_dtype(before)


def in_batches(scores, targets, parts=7, **options):
    evaluators = [Evaluator(COUNTS, **options) for _ in range(3)]
    for i, (s, t) in enumerate(
        zip(np.array_split(scores, parts), np.array_split(targets, parts), strict=True)
    ):
        evaluators[i % 3].add(s, t)
    return sum(evaluators).result()


def test_one_label_a_sample():
    logits, truth = one_label()
    said, shares = logits.argmax(1), softmax(logits)
    for found in (evaluate(logits, truth, COUNTS), in_batches(logits, truth)):
        assert found.error == pytest.approx(1 - metrics.accuracy_score(truth, said), **CLOSE)
        assert found.balanced_error == pytest.approx(
            1 - metrics.balanced_accuracy_score(truth, said), **CLOSE
        )
        assert found.macro_f1 == pytest.approx(metrics.f1_score(truth, said, average="macro"), **CLOSE)
        assert found.log_loss == pytest.approx(metrics.log_loss(truth, shares), **CLOSE)
        np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(truth, said))
        recall = torchs("MulticlassRecall", logits, truth, average=None)
        np.testing.assert_allclose(1 - np.array(found.per_class_error), recall, rtol=0, atol=1e-12)
        for mine, name, average in (
            (1 - found.error, "Accuracy", "micro"),
            (1 - found.balanced_error, "Accuracy", "macro"),
            (found.macro_f1, "F1Score", "macro"),
        ):
            told = torchs(f"Multiclass{name}", logits, truth, average=average)
            assert mine == pytest.approx(float(told), **CLOSE)
        error = torchs("MulticlassCalibrationError", shares, truth, n_bins=15)
        assert found.expected_calibration_error == pytest.approx(float(error), abs=1e-7)
        assert error.dtype == np.float32  # or the docs' exception is one no more
    for rare in (0, 1):
        counts = [5, 50] if rare == 0 else [50, 5]
        two = evaluate(logits[:, :2], truth % 2, counts)
        score, there = logits[:, rare] - logits[:, 1 - rare], truth % 2 == rare
        assert two.rare_roc_auc == pytest.approx(metrics.roc_auc_score(there, score), **CLOSE)
        assert two.rare_average_precision == pytest.approx(
            metrics.average_precision_score(there, score), **CLOSE
        )


def test_many_labels_a_sample():
    logits, truth = many_labels()
    said = logits >= 0
    streamed, whole = in_batches(logits, truth, task="multilabel"), evaluate(logits, truth, COUNTS)
    for found in (whole, streamed):
        for name in ("f1", "precision", "recall"):
            scikit = getattr(metrics, f"{name}_score")(truth, said, average=None, zero_division=0)
            mine = [0.0 if v is None else v for v in getattr(found, f"per_class_{name}")]
            np.testing.assert_allclose(mine, scikit, rtol=0, atol=1e-12)
            title = "Multilabel" + ("F1Score" if name == "f1" else name.title())
            told = torchs(title, 1 / (1 + np.exp(-logits)), truth, average=None)
            np.testing.assert_allclose(mine, told, rtol=0, atol=1e-12)
        assert found.micro_f1 == pytest.approx(metrics.f1_score(truth, said, average="micro"), **CLOSE)
        assert found.macro_f1 == pytest.approx(metrics.f1_score(truth, said, average="macro"), **CLOSE)
    exact = metrics.average_precision_score(truth, logits, average=None)
    np.testing.assert_allclose(whole.per_class_average_precision, exact, rtol=0, atol=1e-12)
    binned = metrics.average_precision_score(truth, np.floor(logits * 32), average=None)
    np.testing.assert_allclose(streamed.per_class_average_precision, binned, rtol=0, atol=1e-12)
    np.testing.assert_allclose(streamed.per_class_average_precision, exact, atol=0.01)
    edges = torch.from_numpy(1 / (1 + np.exp(-np.arange(-512, 513) / 32)))
    areas = {"average": None, "thresholds": None}
    told = torchs("MultilabelAveragePrecision", 1 / (1 + np.exp(-logits)), truth, **areas)
    np.testing.assert_allclose(whole.per_class_average_precision, told, rtol=0, atol=1e-12)
    areas["thresholds"] = edges
    told = torchs("MultilabelAveragePrecision", 1 / (1 + np.exp(-logits)), truth, **areas)
    np.testing.assert_allclose(streamed.per_class_average_precision, told, rtol=0, atol=1e-12)


def test_a_stream_of_many_labels_is_the_whole_in_any_order():
    logits, truth = many_labels()
    holes = truth.astype(float)
    holes[::3, 1] = np.nan
    for scores, kind in ((logits, "sigmoid"), (1 / (1 + np.exp(-logits)), "identity"), (logits > 0, None)):
        one = Evaluator(COUNTS, task="multilabel", threshold=[0.5, 0.5, 0.3, 0.1])
        one.add(scores, holes)
        parts = in_batches(scores, holes, task="multilabel", threshold=[0.5, 0.5, 0.3, 0.1])
        assert parts == one.result()
        assert parts.activation == kind
        whole = evaluate(scores, holes, COUNTS, threshold=[0.5, 0.5, 0.3, 0.1])
        for name in ("positives", "per_class_f1", "num_ignored", "few_f1", "group_sizes", "micro_f1"):
            assert getattr(parts, name) == getattr(whole, name)
        assert parts.macro_f1_interval is None
    streamed = Evaluator(COUNTS, task="multilabel")
    streamed.add(logits, truth)
    for c, curve in enumerate(streamed._labels.curves()):
        assert curve.thresholds.tolist() == sorted({*(np.floor(logits[:, c] * 32) / 32)}, reverse=True)
    held = one._labels
    before = held.bins.nbytes
    one.add(logits > 0, holes)
    assert held.bins.nbytes == before  # nothing grows


def test_extreme_probabilities_have_a_bin():
    scores = np.array([[0.0, 1.0], [1.0, 0.0], [0.2, 1e-300]])
    truth = np.array([[0, 1], [1, 0], [0, 1]])
    one = Evaluator([5, 3], task="multilabel")
    one.add(scores, truth)
    assert one.result().per_class_average_precision == (1.0, pytest.approx(5 / 6))


def test_errors_of_a_stream_of_many_labels():
    logits, truth = many_labels(20)
    one = Evaluator(COUNTS, task="multilabel")
    with pytest.raises(ValueError, match="must have one shape"):
        one.add(logits, truth[:, 0])
    with pytest.raises(ValueError, match="class_counts must have 4 elements"):
        Evaluator([5, 3], task="multilabel").add(logits, truth)
    with pytest.raises(ValueError, match="leave them out here"):
        one.add(logits, truth, groups=range(20))
    with pytest.raises(ValueError, match="no batch was added"):
        one.result()
    one.add(logits, truth)
    with pytest.raises(ValueError, match="scores follow decisions"):
        one.add(logits > 0, truth)
    with pytest.raises(ValueError, match="give task='multilabel' for many labels"):
        Evaluator(COUNTS).add(logits, truth)
    other = Evaluator(COUNTS, task="multilabel", threshold=0.1)
    other.add(logits, truth)
    with pytest.raises(ValueError, match="same many, few and threshold"):
        one + other
    with pytest.raises(ValueError, match="same task"):
        one + Evaluator(COUNTS)
    with pytest.raises(ValueError, match="task must be one of 'multiclass', 'multilabel'"):
        Evaluator(COUNTS, task="many")


def test_one_hot_targets_are_one_label_and_the_result_says_so():
    logits, truth = one_label()
    hot = np.eye(4, dtype=int)[truth]
    plain = evaluate(logits, truth, COUNTS)
    for targets in (hot, hot.astype(bool), hot.astype(np.float32), torch.from_numpy(hot)):
        found = evaluate(logits, targets, COUNTS)
        assert found.one_hot
        assert "one-hot targets read as one label" in str(found)
        assert found.error == plain.error
        assert found.log_loss == plain.log_loss
    assert not plain.one_hot
    assert evaluate(np.eye(4, dtype=int)[logits.argmax(1)], hot, COUNTS).error == plain.error
    one = Evaluator(COUNTS)
    one.add(logits[:100], hot[:100])
    one.add(logits[100:], truth[100:])
    assert one.result().error == plain.error
    # what speaks against it: more than one, an unknown one, independent probabilities, decisions; or task=
    assert hasattr(evaluate(logits, hot, COUNTS, task="multilabel"), "macro_average_precision")
    two = hot.copy()
    two[7] = 1
    assert hasattr(evaluate(logits, two, COUNTS), "macro_average_precision")
    unknown = hot.astype(float)
    unknown[3, 0] = np.nan
    assert hasattr(evaluate(logits, unknown, COUNTS), "macro_average_precision")
    assert hasattr(evaluate(1 / (1 + np.exp(-logits)), hot, COUNTS), "macro_average_precision")
    assert hasattr(evaluate(logits > 0, hot, COUNTS), "macro_average_precision")
    with pytest.raises(ValueError, match="targets must be 0 and 1 of the shape of the scores"):
        evaluate(logits, truth, COUNTS, task="multilabel")
    with pytest.raises(ValueError, match="or one class index per sample"):
        evaluate(logits, two, COUNTS, task="multiclass")


def test_columns_of_tokens_are_no_classes():
    one = Evaluator([50, 5])
    one.add([[0, 1, 0], [1, 0, 0]], [[0, 1, 0], [1, 0, 1]])  # predictions of two classes, three tokens a row
    assert one.result().num_samples == 6


def test_curves_are_scikits_and_their_means_are_means():
    logits, truth = one_label()
    shares, curves = softmax(logits), class_curves(logits, truth)
    for c, curve in enumerate(curves):
        precision, recall, _ = metrics.precision_recall_curve(truth == c, shares[:, c])
        np.testing.assert_allclose(curve.precision, precision[:-1][::-1][: len(curve.precision)], atol=1e-12)
        np.testing.assert_allclose(curve.recall, recall[:-1][::-1][: len(curve.recall)], atol=1e-12)
        false, true, _ = metrics.roc_curve(truth == c, shares[:, c], drop_intermediate=False)
        np.testing.assert_allclose(curve.false_positive_rate, false[1:], atol=1e-12)
        np.testing.assert_allclose(curve.recall, true[1:], atol=1e-12)
        assert curve.average_precision == pytest.approx(
            metrics.average_precision_score(truth == c, shares[:, c]), **CLOSE
        )
        assert curve.roc_auc == pytest.approx(metrics.roc_auc_score(truth == c, shares[:, c]), **CLOSE)
    for name, title in (("average_precision", "AveragePrecision"), ("roc_auc", "AUROC")):
        told = torchs(f"Multiclass{title}", shares, truth, average=None)
        np.testing.assert_allclose([getattr(k, name) for k in curves], told, rtol=0, atol=1e-12)
    mean = macro_curves(curves, points=20001)
    assert mean.classes == 4
    assert mean.average_precision == pytest.approx(np.mean([k.average_precision for k in curves]))
    assert mean.roc_auc == pytest.approx(
        metrics.roc_auc_score(truth, shares, multi_class="ovr", average="macro"), **CLOSE
    )
    # the areas under the mean curves are the means of the areas
    assert mean.precision[1:].mean() == pytest.approx(mean.average_precision, abs=1e-3)
    assert np.trapezoid(mean.recall, mean.grid) == pytest.approx(mean.roc_auc, abs=1e-3)
    assert macro_curves(curves[:1]).precision[50] == curves[0].precision_at(0.5)
    scores, labels = many_labels()
    holes = labels.astype(float)
    holes[::2, 0] = np.nan
    found = class_curves(scores, holes)
    assert found[0].average_precision == pytest.approx(
        metrics.average_precision_score(labels[1::2, 0], scores[1::2, 0]), **CLOSE
    )
    assert [k.samples for k in found] == [300, 600, 600, 600]


def test_a_class_without_samples_has_no_curve_and_is_left_out_of_the_mean():
    found = class_curves([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], [0, 1])
    assert found[2].average_precision is None
    assert np.isnan(found[2].precision_at([0.5])).all()
    assert np.isnan(found[2].recall_at([0.5])).all()
    assert macro_curves(found).classes == 2
    nothing = macro_curves(found[2:])
    assert (nothing.average_precision, nothing.roc_auc, nothing.classes) == (None, None, 0)
    with pytest.raises(ValueError, match="points must be at least 2"):
        macro_curves(found, points=1)
    with pytest.raises(ValueError, match="targets must be one a row of scores, 2, got 1"):
        class_curves([[0.7, 0.3], [0.2, 0.8]], [0])
    with pytest.raises(ValueError, match=r"scores must be floating point of shape \(N, C\)"):
        class_curves([1, 0], [1, 0])
    with pytest.raises(ValueError, match="scores hold NaN"):
        class_curves([[np.nan, 0.3], [0.2, 0.8]], [0, 1])
