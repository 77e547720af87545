"""`evaluate` for one score a sample, probabilities, many labels, pixels and tokens, text; and its merges."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn import metrics

from longtail.counts import class_counts
from longtail.evaluation import Curve, Evaluator, MultiLabelEvaluation, evaluate
from longtail.weights import class_weights


def rows(n=500, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.choice(classes, n, p=np.arange(classes, 0, -1) / np.arange(1, classes + 1).sum())
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[targets]
    return logits, targets, [400, 120, 30, 5][:classes]


# ---- probabilities


def test_probabilities_are_not_taken_for_logits():
    logits, targets, counts = rows()
    shares = special.softmax(logits, axis=1)
    plain, seen = evaluate(logits, targets, counts), evaluate(shares, targets, counts)
    assert seen.activation == "identity"
    assert plain.activation == "softmax"
    assert seen.expected_calibration_error == pytest.approx(plain.expected_calibration_error)
    assert "scores read as probabilities" in str(seen)
    assert "read as" not in str(plain)
    overruled = evaluate(shares, targets, counts, activation="softmax")
    assert overruled.expected_calibration_error > seen.expected_calibration_error + 0.1
    assert evaluate(shares.astype(np.float16), targets, counts).activation == "identity"
    with pytest.raises(ValueError, match=r"row 0 sums to 0.98; divide each row by its sum"):
        evaluate(0.98 * shares, targets, counts)
    assert evaluate(np.abs(logits) + 1, targets, counts).activation == "softmax"
    with pytest.raises(ValueError, match="NaN"):
        evaluate(np.where(shares > 0.9, np.nan, shares), targets, counts)


@pytest.mark.parametrize("classes", [2, 4])
def test_proper_scores_are_scikit_learns(classes):
    logits, targets, counts = rows(classes=classes)
    shares = special.softmax(logits, axis=1)
    for given_ in (logits, shares):
        result = evaluate(given_, targets, counts)
        assert result.log_loss == pytest.approx(metrics.log_loss(targets, shares), rel=1e-12)
        squares = ((shares - np.eye(classes)[targets]) ** 2).sum(axis=1).mean()
        if classes == 2:
            squares = metrics.brier_score_loss(targets, shares[:, 1])
        assert result.brier_score == pytest.approx(squares, rel=1e-12)
    certain = np.array([[1000.0, 0.0], [0.0, 1000.0]])
    assert evaluate(certain, [0, 0], [5, 5]).log_loss == pytest.approx(
        metrics.log_loss([0, 0], special.softmax(certain, axis=1), labels=[0, 1])
    )
    assert evaluate(logits, targets, counts, activation="sigmoid").log_loss is None
    assert evaluate(targets, targets, counts).log_loss is None


def test_calibration_of_each_class_and_of_shot_groups():
    logits, targets, counts = rows(n=800)
    result = evaluate(logits, targets, counts, bins=10)
    shares = special.softmax(logits, axis=1)
    for c in range(4):
        bin_of = np.clip(np.ceil(shares[:, c] * 10) - 1, 0, 9)
        gaps = [((shares[:, c] - (targets == c)) * (bin_of == b)).sum() for b in range(10)]
        assert result.per_class_calibration[c] == pytest.approx(np.abs(gaps).sum() / 800, abs=1e-12)
    few = evaluate(logits[targets != 2], targets[targets != 2], counts)
    assert few.per_class_calibration[2] is None
    assert few.per_class_calibration[0] is not None
    taken = shares.argmax(axis=1)
    for bins, classes in zip(result.group_reliability, ([0, 1], [2], [3]), strict=True):
        assert sum(n for n, _, _ in bins) == np.isin(taken, classes).sum()
    assert sum(n for bins in result.group_reliability for n, _, _ in bins) == 800


# ---- one score a sample


@pytest.mark.parametrize("kind", [bool, int, float, np.float32])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_score_a_sample_is_binary(kind, shape):
    rng = np.random.default_rng(1)
    truth = rng.random(400) < 0.1
    logit = rng.normal(size=400) + 2 * truth - 1
    result = evaluate(logit.reshape(shape), truth.astype(kind), [900, 100])
    both = evaluate(np.stack([np.zeros(400), logit], axis=1), truth.astype(int), [900, 100])
    assert result == both
    assert result.balanced_error == pytest.approx(1 - metrics.balanced_accuracy_score(truth, logit > 0))
    assert result.rare_class == 1
    assert result.rare_recall == pytest.approx(metrics.recall_score(truth, logit > 0))
    assert result.rare_precision == pytest.approx(metrics.precision_score(truth, logit > 0))
    assert result.rare_average_precision == pytest.approx(
        metrics.average_precision_score(truth, logit), rel=1e-12
    )
    assert result.rare_roc_auc == pytest.approx(metrics.roc_auc_score(truth, logit), rel=1e-12)
    shares = evaluate(special.expit(logit).reshape(shape), truth.astype(kind).reshape(shape), [900, 100])
    assert shares.activation == "identity"
    assert shares.error == result.error
    assert shares.expected_calibration_error == pytest.approx(result.expected_calibration_error)
    assert shares.log_loss == pytest.approx(result.log_loss)
    swapped = evaluate(-logit, 1 - truth.astype(int), [100, 900])
    assert swapped.rare_class == 0
    assert swapped.rare_average_precision == pytest.approx(result.rare_average_precision)
    # one threshold for all: predictions of these kinds are read, too
    hard = evaluate((logit > 0), truth.astype(kind), [900, 100])
    assert (hard.error, hard.rare_average_precision) == (result.error, None)


def test_one_score_a_pixel():
    rng = np.random.default_rng(0)
    scores, truth = rng.normal(size=(2, 1, 3, 4)), rng.integers(0, 2, (2, 3, 4))
    flat = evaluate(scores.reshape(-1), truth.reshape(-1), [900, 100])
    for targets in (truth, truth[:, None], truth[:, None].astype(float)):
        assert evaluate(scores, targets, [900, 100]) == flat
    with pytest.raises(ValueError, match="NaN"):
        evaluate(np.where(scores > 0, np.nan, scores), truth, [900, 100])
    with pytest.raises(TypeError, match=r"targets .* must hold integers, got float64"):
        evaluate(scores, truth + 0.5, [900, 100])
    with pytest.raises(TypeError, match=r"one score a sample two counts.* class_counts has 1"):
        evaluate([0.3, -0.4], [1, 0], [100])


# ---- pixels, tokens, ignored, text


def test_classes_first_or_last_and_ignored():
    logits, targets, counts = rows(n=240)
    flat = evaluate(logits, targets, counts)
    first = np.moveaxis(logits.reshape(6, 8, 5, 4), -1, 1)
    assert evaluate(first, targets.reshape(6, 8, 5), counts) == flat
    assert evaluate(logits.reshape(6, 40, 4), targets.reshape(6, 40), counts) == flat
    assert evaluate(logits.argmax(1).reshape(6, 40), targets.reshape(6, 40), counts).error == flat.error
    void = targets.copy()
    void[::3] = 255
    kept = void != 255
    groups = np.arange(240)
    part = evaluate(logits, void, counts, ignore_index=255, groups=groups)
    assert part == evaluate(logits[kept], targets[kept], counts, groups=groups[kept])
    assert evaluate(logits.argmax(1), void, counts, ignore_index=255).num_samples == kept.sum()
    with pytest.raises(ValueError, match="all its targets were ignored"):
        evaluate(logits, np.full(240, 255), counts, ignore_index=255)
    with pytest.raises(ValueError, match=r"do not fit targets \(6, 8, 5\)"):
        evaluate(np.zeros((6, 3, 8, 5)), targets.reshape(6, 8, 5), counts)


def test_text_labels_go_by_the_names_of_the_counts():
    names = np.array(["fox", "lynx", "owl", "yak"])
    logits, targets, counts = rows()
    told = class_counts(np.repeat(names, counts).tolist())
    assert list(told) == list(names)
    expected = evaluate(logits, targets, counts)
    for truth in (names[targets], names[targets].tolist(), names[targets].astype(object)):
        assert evaluate(logits, truth, told) == expected
    assert evaluate(names[logits.argmax(1)], names[targets], told).error == expected.error
    with pytest.raises(ValueError, match="targets have 'bear', which class_counts does not name"):
        evaluate(logits[:1], ["bear"], told)
    with pytest.raises(TypeError, match="targets are names such as 'fox', but class_counts names no class"):
        evaluate(logits[:1], ["fox"], counts)
    assert evaluate(logits, targets, {0: 400, 1: 120, 3: 5}).class_counts == (400, 120, 0, 5)


@pytest.mark.parametrize("kind", [list, np.asarray, lambda x: np.asarray(x, object)])
def test_a_label_is_found_in_either_form_of_unicode_and_in_bytes(kind):
    scores, truth = np.eye(2), np.array([1, 0])
    for told, labels in (
        ({"owl": 7, "caf\u00e9": 3}, ["cafe\u0301", "owl"]),
        ({"owl": 7, "cafe\u0301": 3}, ["caf\u00e9", "owl"]),
        ({"owl": 7, "fox": 3}, [b"fox", b"owl"]),
        ({b"owl": 7, "caf\u00e9".encode(): 3}, ["caf\u00e9".encode(), b"owl"]),
    ):
        assert evaluate(scores, kind(labels), told).error == evaluate(scores, truth, [7, 3]).error == 1
    both = {"caf\u00e9": 7, "cafe\u0301": 3}  # two classes that look alike: each label is its own
    assert evaluate(scores, kind(["caf\u00e9", "cafe\u0301"]), both).error == 0
    with pytest.raises(
        TypeError, match=r"targets are bytes such as b'caf.*', which no name in class_counts is; decode"
    ):
        evaluate(scores, kind(["caf\u00e9".encode(), b"owl"]), {"owl": 7, "caf\u00e9": 3})


def test_booleans_as_text_are_told_from_booleans():
    told = class_counts([True, False, False])
    scores = np.eye(2)
    with pytest.raises(
        TypeError, match="targets are text such as 'True', but class_counts names no class by text; give bool"
    ):
        evaluate(scores, ["True", "False"], told)
    named = class_counts(["True", "False", "False"])
    assert (
        evaluate(scores, ["True", "False"], named).error == evaluate(scores, [True, False], told).error == 1
    )


# ---- many labels


def labelled(n=300, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random((n, classes)) < np.array([0.5, 0.3, 0.1, 0.03, 0.0])[:classes]
    return rng.normal(size=(n, classes)).round(1) + truth, truth, [500, 300, 90, 15, 2][:classes]


def test_many_labels_against_scikit_learn():
    scores, truth, counts = labelled()
    result = evaluate(scores, truth, counts)
    assert isinstance(result, MultiLabelEvaluation)
    here = truth.any(axis=0)
    for c in np.flatnonzero(here):
        assert result.per_class_average_precision[c] == pytest.approx(
            metrics.average_precision_score(truth[:, c], scores[:, c]), rel=1e-12
        )
        assert result.per_class_f1[c] == pytest.approx(metrics.f1_score(truth[:, c], scores[:, c] >= 0))
        assert result.per_class_recall[c] == pytest.approx(
            metrics.recall_score(truth[:, c], scores[:, c] >= 0)
        )
    assert result.per_class_average_precision[4] is result.per_class_f1[4] is None
    assert result.macro_average_precision == pytest.approx(
        metrics.average_precision_score(truth[:, here], scores[:, here], average="macro")
    )
    assert result.macro_f1 == pytest.approx(
        metrics.f1_score(truth[:, here], scores[:, here] >= 0, average="macro")
    )
    assert result.micro_f1 == pytest.approx(metrics.f1_score(truth, scores >= 0, average="micro"))
    assert result.many_average_precision == pytest.approx(np.mean(result.per_class_average_precision[:2]))
    assert result.medium_f1 == result.per_class_f1[2]
    assert result.few_f1 == result.per_class_f1[3]
    assert result.group_sizes == (2, 1, 2)
    assert evaluate(scores, truth, [500] * 5, many=600).many_f1 is None
    for name in ("macro_average_precision", "macro_f1"):
        low, high = getattr(result, f"{name}_interval")
        assert low < getattr(result, name) < high
    assert result.thin_text == "1 of 5 classes has fewer than 5 test samples, 1 of them none"
    assert MultiLabelEvaluation.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    assert "macro average precision" in str(result)


def test_many_labels_of_every_kind():
    torch = pytest.importorskip("torch")
    scores, truth, counts = labelled()
    result = evaluate(scores, truth, counts)
    for kind in (int, float, np.uint8):
        assert evaluate(scores, truth.astype(kind), counts) == result
    assert evaluate(torch.tensor(scores), torch.tensor(truth), counts) == result
    shares = evaluate(special.expit(scores), truth, counts)
    assert (shares.activation, result.activation) == ("identity", "sigmoid")
    assert shares.macro_f1 == result.macro_f1
    hard = evaluate(scores >= 0, truth, counts)
    assert hard.macro_f1 == result.macro_f1
    assert (hard.macro_average_precision, hard.macro_average_precision_interval) == (None, None)
    higher = evaluate(scores, truth, counts, threshold=[0.5, 0.5, 0.9, 0.5, 0.5])
    assert higher.per_class_f1[2] != result.per_class_f1[2]
    assert higher.per_class_f1[:2] == result.per_class_f1[:2]
    named = dict(zip("edcba", counts, strict=True))
    cuts = dict(sorted(zip("edcba", [0.5, 0.5, 0.9, 0.5, 0.1], strict=True)))
    for given_cuts in (cuts, pd.Series(cuts)):
        assert evaluate(scores, truth, named, threshold=given_cuts).threshold == (0.5, 0.5, 0.9, 0.5, 0.1)
    with pytest.raises(
        ValueError, match=r"threshold lacks a value for 'a'; give one for each class of class_"
    ):
        evaluate(scores, truth, named, threshold={k: cuts[k] for k in "bcde"})
    copies = evaluate(
        *(np.repeat(x, 4, axis=0) for x in (scores, truth)), counts, groups=np.repeat(np.arange(300), 4)
    )
    assert copies.macro_f1 == pytest.approx(result.macro_f1)
    assert copies.macro_f1_interval == pytest.approx(result.macro_f1_interval)


@pytest.mark.parametrize("missing", [np.nan, -100])
def test_elements_that_nobody_labelled_are_left_out(missing):
    scores, truth, counts = labelled()
    holes = truth.astype(float)
    holes[::2, 0] = missing
    result = evaluate(scores, holes, counts)
    assert result.num_ignored == 150
    assert result.positives[0] == truth[1::2, 0].sum()
    assert result.per_class_average_precision[0] == pytest.approx(
        metrics.average_precision_score(truth[1::2, 0], scores[1::2, 0])
    )
    assert result.per_class_f1[0] == pytest.approx(metrics.f1_score(truth[1::2, 0], scores[1::2, 0] >= 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 1.5}, r"threshold must lie in \[0, 1\].* got 1.5"),
        ({"threshold": [0.5]}, "threshold must be a number or 5, one a class"),
        ({"activation": "softmax"}, "activation must be 'sigmoid' or 'identity' for many labels"),
        ({"activation": "identity"}, r"lies outside \[0, 1\]; for logits use activation='sigmoid'"),
        ({"groups": [1]}, "groups must be one a sample, 300, got 1"),
    ],
)
def test_errors_of_many_labels(change, message):
    scores, truth, counts = labelled()
    with pytest.raises(ValueError, match=message):
        evaluate(scores, truth, counts, **change)


def test_more_errors_of_many_labels():
    scores, truth, counts = labelled()
    with pytest.raises(ValueError, match="class_counts must have 5 elements"):
        evaluate(scores, truth, counts[:3])
    with pytest.raises(ValueError, match=r"NaN or \+inf in 1 of 300 rows"):
        evaluate(np.where(np.arange(300)[:, None] == 7, np.nan, scores), truth, counts)
    with pytest.raises(ValueError, match="0 and 1 a column for many labels"):
        evaluate(scores, truth * 0.7, counts)


# ---- curves


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30))
def test_curves_are_scikit_learns(pairs):
    scores, positive = (np.array(part) for part in zip(*pairs, strict=True))
    curve = Curve.of(scores.astype(float), positive)
    assert (curve.roc_auc is None) == (len(set(positive)) == 1)
    assert (curve.average_precision is None) == (not positive.any())
    if curve.roc_auc is not None:
        assert curve.roc_auc == pytest.approx(metrics.roc_auc_score(positive, scores))
        assert curve.average_precision == pytest.approx(metrics.average_precision_score(positive, scores))
        precision, recall, _ = metrics.precision_recall_curve(positive, scores)
        np.testing.assert_allclose(curve.precision, precision[:-1][::-1])
        np.testing.assert_allclose(curve.recall, recall[:-1][::-1])
        np.testing.assert_allclose(
            curve.f1, [metrics.f1_score(positive, scores >= t) for t in curve.thresholds]
        )
        wrong, _, _ = metrics.roc_curve(positive, scores, drop_intermediate=False)
        np.testing.assert_allclose(curve.false_positive_rate, wrong[1:])


# ---- merges


@pytest.mark.parametrize("kind", ["logits", "probabilities", "predictions", "binary"])
def test_evaluators_merge_to_the_bit(kind):
    logits, targets, counts = rows(n=300, classes=2 if kind == "binary" else 4)
    given_ = {
        "logits": logits,
        "probabilities": special.softmax(logits, axis=1),
        "predictions": logits.argmax(axis=1),
        "binary": logits[:, 0],
    }[kind]
    groups = np.arange(300) // 7
    whole = evaluate(given_, targets, counts, groups=groups)
    parts = []
    for i in (2, 0, 1):
        evaluator = Evaluator(counts)
        for j in range(4):
            mine = slice(100 * i + 25 * j, 100 * i + 25 * (j + 1))
            evaluator.add(given_[mine], targets[mine], groups=groups[mine])
        parts.append(pickle.loads(pickle.dumps(evaluator)))
    before = parts[0].result()
    assert sum(parts).result() == whole
    assert (parts[0] + parts[1] + parts[2]).result() == (parts[2] + (parts[1] + parts[0])).result() == whole
    assert parts[0].result() == before  # a sum changes nothing that went into it
    assert (Evaluator(counts) + parts[0]).result() == before


def test_evaluators_that_do_not_belong_together():
    one, other = Evaluator([5, 3]), Evaluator([5, 3])
    one.add([[2.0, -1.0]], [0])
    other.add([1], [0])
    with pytest.raises(ValueError, match="same kind of scores, got softmax and predictions"):
        one + other
    different = Evaluator([5, 4])
    different.add([1], [0])
    with pytest.raises(ValueError, match="same class_counts"):
        other + different
    settings_ = Evaluator([5, 3], many=4)
    settings_.add([1], [0])
    with pytest.raises(ValueError, match="same many, few and bins"):
        other + settings_
    grouped = Evaluator([5, 3])
    grouped.add([1], [0], groups=["a"])
    with pytest.raises(ValueError, match="both have groups, or none"):
        other + grouped
    with pytest.raises(ValueError, match="groups must be given with all batches or with none"):
        grouped.add([1], [0])
    with pytest.raises(TypeError):
        one + 1


def test_an_evaluator_does_not_grow():
    logits, targets, counts = rows()
    evaluator = Evaluator(counts)
    sizes = set()
    for _ in range(3):
        evaluator.add(logits, targets)
        sizes.add(len(pickle.dumps(evaluator)) // 64)
    assert len(sizes) == 1


# ---- shot groups


def test_relative_shot_groups_where_absolute_ones_say_nothing():
    fraud = evaluate([0, 1], [0, 1], [280_000, 217])
    assert fraud.thresholds == (28_000, 5_600)
    assert fraud.group_sizes == (1, 0, 1)
    assert evaluate([0, 1], [0, 1], [280_000, 217], many=100, few=20).group_sizes == (2, 0, 0)
    assert evaluate([0, 1], [0, 1], [5000, 50]).thresholds == (100, 20)
    assert evaluate([0, 1], [0, 1], [5000, 4000]).thresholds == (100, 20)  # nothing to tell apart
    assert evaluate([0, 1], [0, 1], [15, 3]).thresholds == (100, 20)
    assert evaluate([0, 1], [0, 1], [5000, 0]).thresholds == (100, 20)


def test_unknown_labels_of_one_score_are_left_out():
    rng = np.random.default_rng(2)
    scores, labels = rng.normal(size=60), rng.integers(0, 2, 60).astype(float)
    labels[::7] = np.nan
    known = ~np.isnan(labels)
    for shape in ((60,), (60, 1), (5, 1, 12)):
        found = evaluate(scores.reshape(shape), labels.reshape(shape), [90, 10])
        assert found.num_samples == known.sum()
        assert found.error == pytest.approx(np.mean((scores > 0)[known] != labels[known]))


def test_void_is_named_and_weights_are_refused():
    scores = np.random.default_rng(2).normal(size=(2, 3, 4))
    labels = np.array([[0, 1, 2, 255], [0, 1, 2, 255]])
    with pytest.raises(ValueError, match="pass ignore_index=255 if it marks what is left out"):
        evaluate(scores, labels, [9, 9, 9])
    assert evaluate(scores, labels, [9, 9, 9], ignore_index=255).num_samples == 6
    with pytest.raises(TypeError, match=r"class_counts must be numbers .* got ClassWeights"):
        evaluate([0, 1], [0, 1], class_weights(class_counts([0, 1]), "none"))
