"""Evaluation against scikit-learn, SciPy, hand-computed values and plain loops over the definitions."""

import itertools
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import special, stats
from sklearn import metrics

from longtail.counts import class_counts
from longtail.evaluation import (
    Curve,
    Evaluation,
    Evaluator,
    bonferroni,
    evaluate,
    paired_difference,
    paired_on_test,
    summarize,
)

PROBABILITIES = {
    "softmax": lambda z: special.softmax(z, axis=1),
    "sigmoid": special.expit,
    "identity": lambda z: z,
}


def sample(n=400, classes=8, seed=0):
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, classes, n)
    scores = generator.normal(size=(n, classes))
    scores[np.arange(n), targets] += 1
    return scores, targets, [500, 200, 101, 100, 50, 20, 19, 3][:classes]


def calibration_by_loop(confidence, correct, bins):
    total = 0.0
    for m in range(1, bins + 1):
        inside = [
            i for i, c in enumerate(confidence) if (m - 1) / bins < c <= m / bins or (m == 1 and c == 0)
        ]
        if inside:
            accuracy = sum(correct[i] for i in inside) / len(inside)
            total += (
                len(inside)
                / len(confidence)
                * abs(accuracy - sum(confidence[i] for i in inside) / len(inside))
            )
    return total


def test_by_hand():
    # class 0 is many-shot, 1 medium, 2 and 3 few; 3 has no test sample
    predictions = [0, 0, 1, 0, 2, 1]
    targets = [0, 0, 0, 1, 2, 2]
    result = evaluate(predictions, targets, [101, 100, 19, 5])
    assert result.num_samples == 6
    assert result.error == 0.5
    assert result.per_class_error == (pytest.approx(1 / 3), 1.0, 0.5, None)
    assert result.balanced_error == pytest.approx((1 / 3 + 1 + 1 / 2) / 3)
    assert (result.many_error, result.medium_error, result.few_error) == (pytest.approx(1 / 3), 1.0, 0.5)
    assert result.group_sizes == (1, 1, 2)
    assert result.thresholds == (100, 20)
    assert (result.worst_class, result.worst_class_error) == (1, 1.0)
    assert result.confusion == ((2, 1, 0, 0), (1, 0, 0, 0), (0, 1, 1, 0), (0, 0, 0, 0))
    assert result.class_counts == (101, 100, 19, 5)
    assert result.top5_error is None
    assert result.expected_calibration_error is None


def test_thresholds_and_empty_groups():
    result = evaluate([0, 1], [0, 0], [20, 100])
    assert (result.many_error, result.medium_error, result.few_error) == (None, 0.5, None)
    assert result.group_sizes == (0, 2, 0)
    result = evaluate([0, 1], [0, 0], [20, 100], many=50, few=50)
    # the many-shot class has no test sample
    assert (result.many_error, result.medium_error, result.few_error) == (None, None, 0.5)
    assert result.group_sizes == (1, 0, 1)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "identity"])
def test_against_scikit_learn_and_the_definition_of_calibration(activation):
    scores, targets, counts = sample()
    if activation == "identity":
        scores = special.softmax(scores, axis=1)
    result = evaluate(scores, targets, counts, activation=activation, bins=12)
    predicted = scores.argmax(axis=1)
    assert result.error == pytest.approx(1 - metrics.accuracy_score(targets, predicted))
    assert result.balanced_error == pytest.approx(1 - metrics.balanced_accuracy_score(targets, predicted))
    assert result.macro_f1 == pytest.approx(metrics.f1_score(targets, predicted, average="macro"))
    assert result.top5_error == pytest.approx(1 - metrics.top_k_accuracy_score(targets, scores, k=5))
    np.testing.assert_array_equal(result.confusion, metrics.confusion_matrix(targets, predicted))
    np.testing.assert_allclose(
        result.per_class_error, 1 - metrics.recall_score(targets, predicted, average=None)
    )
    confidence = PROBABILITIES[activation](scores).max(axis=1)
    assert result.expected_calibration_error == pytest.approx(
        calibration_by_loop(confidence, predicted == targets, 12), abs=1e-12
    )


def test_calibration_on_bin_edges():
    confidence = np.array([0.0, 0.2, 0.4, 0.6, 0.6, 1.0])
    targets = np.array([0, 0, 0, 1, 1, 1])
    scores = np.stack([np.zeros(6), confidence], axis=1)
    result = evaluate(scores, targets, [1, 1], activation="identity", bins=5)
    expected = calibration_by_loop(confidence, scores.argmax(axis=1) == targets, 5)
    assert result.expected_calibration_error == pytest.approx(expected)


def test_extreme_scores():
    scores = np.array([[1e4, -1e4], [-1e4, 1e4], [1e308, -1e308], [-1e4, -np.inf]])
    for activation in ("softmax", "sigmoid"):
        result = evaluate(scores, [0, 1, 0, 0], [5, 5], activation=activation)
        assert result.error == 0
        # the sigmoid of -1e4 is 0 confidence in a right answer
        assert result.expected_calibration_error == (0.25 if activation == "sigmoid" else 0)


def test_top5_breaks_ties_by_class():
    result = evaluate(np.zeros((6, 6)), range(6), [1] * 6)
    assert result.top5_error == pytest.approx(1 / 6)


def test_large_inputs_are_read_in_parts(monkeypatch):
    scores, targets, counts = sample()
    whole = evaluate(scores, targets, counts)
    monkeypatch.setattr("longtail.evaluation.single_label._CHUNK", 24)
    assert evaluate(scores, targets, counts) == whole


@settings(max_examples=30)
@given(st.lists(st.integers(1, 400), max_size=4), st.sampled_from(["softmax", "sigmoid"]), st.booleans())
def test_batches_are_evaluated_as_one(cuts, activation, hard):
    scores, targets, counts = sample()
    given_ = scores.argmax(axis=1) if hard else scores
    evaluator = Evaluator(counts, activation=activation, many=60, few=10, bins=7)
    edges = sorted({0, *cuts, 400})
    for start, end in itertools.pairwise(edges):
        evaluator.add(given_[start:end], targets[start:end])
    whole = evaluate(given_, targets, counts, activation=activation, many=60, few=10, bins=7)
    assert evaluator.result() == whole


def test_batches_that_do_not_belong_together():
    evaluator = Evaluator([5, 3])
    with pytest.raises(ValueError, match="no batch was added"):
        evaluator.result()
    evaluator.add([[1.0, 0.0]], [0])
    with pytest.raises(ValueError, match=r"shape \(1,\) follows batches of the other kind"):
        evaluator.add([1], [0])
    with pytest.raises(ValueError, match="give at least one"):
        evaluator.add(np.zeros((0, 2)), [])
    assert evaluator.result().num_samples == 1


def test_confusion_is_left_out_beyond_a_thousand_classes():
    assert evaluate([0], [0], [1] * 1000).confusion is not None
    assert evaluate([0], [0], [1] * 1001).confusion is None


def test_counts_of_every_kind():
    pandas = pytest.importorskip("pandas")
    torch = pytest.importorskip("torch")
    labels = [2] * 120 + [0] * 30 + [1] * 5
    _, targets, _ = sample(classes=3)
    predicted = np.roll(targets, 1)
    expected = evaluate(predicted, targets, [30, 5, 120])
    kinds = [
        Counter(labels),
        class_counts(Counter(labels)),
        {2: 120, 0: 30, 1: 5},
        {"cat": 30, "dog": 5, "eel": 120},
        pandas.Series(labels).value_counts(),
        torch.tensor([30.0, 5.0, 120.0]),
    ]
    for kind in kinds:
        assert evaluate(predicted, targets, kind) == expected
    booleans = Counter([True] * 30 + [False] * 5)
    for kind in (booleans, class_counts(booleans), pandas.Series(booleans)):
        assert evaluate([0, 1], [0, 1], kind).class_counts == (5, 30)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_tensors(dtype):
    torch = pytest.importorskip("torch")
    scores, targets, counts = sample()
    logits = torch.tensor(scores, dtype=getattr(torch, dtype), requires_grad=True)
    result = evaluate(logits, torch.tensor(targets), torch.tensor(counts))
    assert result == evaluate(logits.detach().double().numpy(), targets, counts)
    assert evaluate(logits.argmax(1), torch.tensor(targets), counts).error == result.error


def test_round_trip_through_json():
    scores, targets, counts = sample()
    for result in (evaluate(scores, targets, counts), evaluate([0], [0], [5, 500])):
        values = json.loads(json.dumps(result.to_dict()))
        assert values == result.to_dict()
        assert Evaluation.from_dict(values) == result
    with pytest.raises(ValueError, match=r"missing or unknown fields: 'colour'; give what to_dict returned"):
        Evaluation.from_dict(values | {"colour": 1})
    del values["error"]
    with pytest.raises(ValueError, match=r"missing or unknown fields: 'error'"):
        Evaluation.from_dict(values)


def test_one_readable_line():
    assert str(evaluate([0, 0, 1, 0], [0, 0, 1, 1], [500, 10])) == (
        "error 25.0 %, top-5 error n/a, balanced error 25.0 %, many 0.0 %, medium n/a, few 50.0 %, "
        "worst class 1 50.0 %, calibration error n/a, macro-F1 0.733, 4 samples"
    )


@st.composite
def problems(draw):
    classes, n = draw(st.integers(1, 7)), draw(st.integers(1, 20))
    # distinct scores in each row, so that no tie is broken by the class index
    scores = np.array([draw(st.permutations(range(classes))) for _ in range(n)], dtype=np.float64)
    targets = draw(npst.arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    counts = draw(npst.arrays(np.int64, classes, elements=st.integers(1, 200)))
    return scores, targets, counts


APART = ("per_class_error", "reliability", "group_reliability", "activation", "per_class_calibration")


@settings(max_examples=50)
@given(problems())
def test_shares_are_shares_and_copies_change_nothing(problem):
    scores, targets, counts = problem
    result = evaluate(scores, targets, counts)
    shares = [result.error, result.balanced_error, result.macro_f1, result.worst_class_error]
    shares += [result.many_error, result.medium_error, result.few_error, result.top5_error]
    shares += [result.expected_calibration_error, *result.per_class_error]
    assert all(share is None or 0 <= share <= 1 for share in shares)
    assert sum(result.group_sizes) == len(counts)
    assert np.sum(result.confusion) == result.num_samples == len(targets)
    assert (result.top5_error is None) == (len(counts) <= 5)

    twice = evaluate(np.tile(scores, (2, 1)), np.tile(targets, 2), counts).to_dict()
    for name, value in result.to_dict().items():
        if name in ("num_samples", "confusion", "test_counts", "predicted_counts"):
            np.testing.assert_array_equal(twice[name], 2 * np.array(value))
        elif value is not None and name not in APART:
            assert twice[name] == pytest.approx(value)


@settings(max_examples=50)
@given(problems(), st.data())
def test_permuting_classes_permutes_results(problem, data):
    scores, targets, counts = problem
    order = np.array(data.draw(st.permutations(range(len(counts)))))
    before = evaluate(scores, targets, counts)
    after = evaluate(scores[:, order], np.argsort(order)[targets], counts[order])
    assert after.per_class_error == tuple(before.per_class_error[c] for c in order)
    np.testing.assert_array_equal(after.confusion, np.array(before.confusion)[np.ix_(order, order)])
    for name in ("error", "many_error", "medium_error", "few_error", "top5_error", "worst_class_error"):
        assert getattr(after, name) == getattr(before, name)
    for name in ("balanced_error", "macro_f1", "expected_calibration_error"):
        assert getattr(after, name) == pytest.approx(getattr(before, name))


LOGITS = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
WRONG_CALLS = [
    (
        (np.array([[1, np.nan], [0, 1]]), [0, 0], [1, 1]),
        {},
        ValueError,
        "logits_or_predictions has NaN.* 1 of 2 rows",
    ),
    (
        (np.array([[1, np.inf], [0, 1]]), [0, 0], [1, 1]),
        {},
        ValueError,
        "logits_or_predictions has .* 1 of 2 rows",
    ),
    ((np.full((2, 2), -np.inf), [0, 0], [1, 1]), {}, ValueError, "no finite score in 2 of 2 rows"),
    (
        (LOGITS, [0, 1], [1, 1, 1]),
        {"activation": "identity"},
        ValueError,
        r"outside \[0, 1\] in 2 of 2 rows; for logits",
    ),
    (
        (LOGITS, [0, 1], [1, 1, 1]),
        {"activation": "relu"},
        ValueError,
        "activation must be one of 'softmax', .*'relu'",
    ),
    (
        (LOGITS, [0, 1], [1, 1, 1]),
        {"many": 5, "few": 6},
        ValueError,
        "few must be at most many, got few=6 and many=5",
    ),
    ((LOGITS, [0, 1], [1, 1, 1]), {"bins": 0}, ValueError, "bins .* got 0"),
    (
        (LOGITS, [0, 3], [1, 1, 1]),
        {},
        ValueError,
        "targets must lie in 0 to 2 .* got 3; drop ignored samples",
    ),
    ((LOGITS, [0, -100], [1, 1, 1]), {}, ValueError, "targets must lie in 0 to 2 .* got -100"),
    ((LOGITS, [0.0, 1.0], [1, 1, 1]), {}, TypeError, "targets .* must hold integers, got float64"),
    (
        (LOGITS, [0, 1, 2], [1, 1, 1]),
        {},
        ValueError,
        "targets must have 2 elements .*, got 3; give one target",
    ),
    (
        (LOGITS, [1, 1, 1], [0, 1]),
        {},
        ValueError,
        "targets must have 2 elements .* swapped with class_counts",
    ),
    ((LOGITS, [[0], [1]], [1, 1, 1]), {}, ValueError, r"targets must have shape \(N,\), got \(2, 1\)"),
    ((LOGITS, [0, 1], [1, 1]), {}, ValueError, "class_counts must have 3 elements, .* got 2"),
    (
        ([0, 1], LOGITS, [1, 1, 1]),
        {},
        ValueError,
        "swapped.*evaluate.logits_or_predictions, targets, class_counts",
    ),
    (
        (LOGITS.astype(int), [0, 1], [1, 1, 1]),
        {},
        TypeError,
        "must be floating point, got int64; convert scores",
    ),
    (
        ([0.0, 1.0], [0, 1], [1, 1, 1]),
        {},
        TypeError,
        "logits_or_predictions .* must hold integers, got float64",
    ),
    (([0, 2], [0, 1], [1, 1]), {}, ValueError, "logits_or_predictions must lie in 0 to 1 .* got 2"),
    ((LOGITS[None], [0], [1, 1, 1]), {}, ValueError, r"must have shape \(N, C\) or \(N,\), got \(1, 2, 3\)"),
    (([], [], [1]), {}, ValueError, "no sample; give at least one"),
    (([[1.0], [1.0, 2.0]], [0, 1], [1]), {}, ValueError, "logits_or_predictions must be a rectangular array"),
    (
        ([0], [0], [1.5]),
        {},
        ValueError,
        "class_counts must hold whole numbers from 0 to 2\\*\\*53, got 1.5 for class 0",
    ),
    (([0], [0], [3, -1]), {}, ValueError, "class_counts .* got -1 for class 1"),
    (([0], [0], [3, np.nan]), {}, ValueError, "class_counts .* got nan for class 1"),
    (([0], [0], [0, 0]), {}, ValueError, "class_counts is 0 for all 2 classes"),
    (([0], [0], ["many"]), {}, TypeError, "class_counts must hold whole numbers"),
    (([0], [0], []), {}, ValueError, r"class_counts must have shape \(C,\), got \(0,\)"),
    (([0], [0], 5), {}, ValueError, r"class_counts must have shape \(C,\), got \(\)"),
    (
        ([0], [0], {1: 5, 2: 6}),
        {},
        ValueError,
        "class_counts has 2 integer names, but not 0 of the model's outputs 0..1; count with num_classes=",
    ),
    (([0], [0], class_counts([0, 2])), {}, ValueError, "class_counts has 2 integer names, but not 1 of"),
    (
        ([0], [0], [1e19, 1]),
        {},
        ValueError,
        "class_counts must .* to 2\\*\\*53, got 1e\\+19 for class 0",
    ),
]


@pytest.mark.parametrize(("arguments", "options", "error", "message"), WRONG_CALLS)
def test_errors(arguments, options, error, message):
    with pytest.raises(error, match=message) as caught:
        evaluate(*arguments, **options)
    assert "\n" not in str(caught.value)


# statistics over seeds


def test_summary_against_scipy():
    values = [0.31, 0.28, 0.35, 0.30, 0.33]
    result = summarize(values, confidence=0.9)
    low, high = stats.t.interval(0.9, 4, loc=np.mean(values), scale=stats.sem(values))
    assert result.mean == pytest.approx(np.mean(values))
    assert result.sd == pytest.approx(np.std(values, ddof=1))
    assert (result.low, result.high) == (pytest.approx(low), pytest.approx(high))
    assert (result.n, result.confidence) == (5, 0.9)


def test_paired_difference_against_scipy():
    values, baseline = [0.31, 0.28, 0.35, 0.30, 0.33], [0.36, 0.30, 0.35, 0.36, 0.38]
    result = paired_difference(values, baseline)
    test = stats.ttest_rel(values, baseline)
    interval = test.confidence_interval(0.95)
    assert result.mean == pytest.approx(np.mean(values) - np.mean(baseline))
    assert result.sd == pytest.approx(np.std(np.subtract(values, baseline), ddof=1))
    assert (result.low, result.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert result.p_value == pytest.approx(test.pvalue)
    assert result.significant
    assert not paired_difference(values, baseline, confidence=0.99).significant
    assert not paired_difference(values, sorted(values)).significant


def test_one_seed_has_no_interval():
    assert (summarize([0.5]).sd, summarize([0.5]).low, summarize([0.5]).high) == (None, None, None)
    result = paired_difference([0.1], [0.9])
    assert (result.mean, result.sd, result.low, result.p_value) == (pytest.approx(-0.8), None, None, None)
    assert not result.significant


def test_equal_values_collapse_the_interval():
    result = summarize([0.1] * 3)
    assert (result.mean, result.sd, result.low, result.high) == (0.1, 0, 0.1, 0.1)
    result = paired_difference([0.5, 0.75], [0.25, 0.5])
    assert (result.mean, result.low, result.high, result.p_value) == (0.25, 0.25, 0.25, 0)
    assert result.significant


def test_rounding_is_no_difference():
    result = paired_difference([0.1 + 0.2] * 3, [0.3] * 3)
    assert (result.mean, result.sd, result.p_value) == (0, 0, 1)
    assert not result.significant


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6), st.floats(0.5, 0.999))
def test_interval_and_p_value_agree(pairs, confidence):
    values, baseline = zip(*pairs, strict=True)
    result = paired_difference(values, baseline, confidence)
    mirrored = paired_difference(baseline, values, confidence)
    assert result.low <= result.mean <= result.high
    assert (mirrored.mean, mirrored.low, mirrored.high) == (-result.mean, -result.high, -result.low)
    assert mirrored.significant == result.significant
    if abs(result.p_value - (1 - confidence)) > 1e-9:
        assert result.significant == (result.p_value < 1 - confidence)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ([], ValueError, r"values must have shape \(n,\) with n at least 1, got \(0,\)"),
        (0.5, ValueError, r"values must have shape \(n,\)"),
        ([[0.5]], ValueError, r"values must have shape \(n,\)"),
        ([0.5, None], ValueError, r"values holds None \(n/a\) at position 1; leave out"),
        ([0.5, float("nan")], ValueError, "values holds nan at position 1; leave out the seed that failed"),
        (["high"], TypeError, "values holds 'high' at position 0"),
        ([True], TypeError, "values holds True at position 0"),
    ],
)
def test_summary_errors(values, error, message):
    with pytest.raises(error, match=message):
        summarize(values)


def test_more_summary_errors():
    with pytest.raises(
        ValueError, match=r"baseline must have the 2 elements of values, got 1; pair them by seed"
    ):
        paired_difference([0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match=r"baseline holds None"):
        paired_difference([0.1], [None])
    for confidence in (0, 1, 95, float("nan")):
        with pytest.raises(ValueError, match=r"confidence must be in \(0, 1\)"):
            summarize([0.1], confidence)


def test_importing_needs_numpy_only():
    heavy = ["torch", "sklearn", "scipy", "pandas"]
    code = f"import sys, longtail.evaluation; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_macro_f1_is_scikit_learns(classes, samples, seed):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, classes, (2, samples))
    ours = evaluate(predicted, truth, np.ones(classes)).macro_f1
    theirs = metrics.f1_score(truth, predicted, average="macro", zero_division=0)
    assert ours == pytest.approx(theirs, rel=0, abs=1e-12)


def test_macro_f1_counts_a_class_that_is_predicted_and_never_true():
    assert evaluate([0, 0, 1, 2], [0, 0, 1, 1], [9, 9, 9, 9]).macro_f1 == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_an_evaluation_needs_numpy_only():
    code = (
        "import sys; sys.modules['sklearn'] = sys.modules['scipy'] = None\n"
        "from longtail.evaluation import evaluate\n"
        "print(evaluate([0, 0, 1, 0], [0, 0, 1, 1], [500, 10]).macro_f1)"
    )
    assert float(subprocess.check_output([sys.executable, "-c", code], text=True)) == pytest.approx(11 / 15)


def test_bonferroni_splits_what_may_go_wrong():
    assert bonferroni(0.95, 1) == 0.95
    assert 1 - bonferroni(0.95, 9) == pytest.approx(0.05 / 9)
    with pytest.raises(ValueError, match=r"tests must be in \[1, inf\], got 0"):
        bonferroni(0.95, 0)


def test_a_curve_takes_what_is_one_number_a_sample():
    pandas = pytest.importorskip("pandas")
    scores, positive = [0.9, 0.8, 0.3, 0.2], [1, 0, 1, 0]
    wanted = Curve.of(np.array(scores), np.array(positive, dtype=bool)).average_precision
    index = [3, 2, 1, 0]  # which a Series would be sorted by
    for give in (list, np.array, lambda x: pandas.Series(x, index=index)):
        assert Curve.of(give(scores), give(positive)).average_precision == wanted
    for bad, message in (
        ((scores, [1, 2, 1, 2]), "positive must be 0 and 1, or bool; give labels == the class"),
        ((scores, [*"nyny"]), "positive must be 0 and 1, or bool"),
        ((scores, [1, 0]), r"one number a sample, none of them NaN, got shapes .4,. and .2,."),
        (([0.1, np.nan, 0.2, 0.3], positive), "none of them NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            Curve.of(*bad)


def test_predictions_that_are_names_are_refused_with_a_remedy():
    with pytest.raises(TypeError, match=r"first must be class indices, got <U1; number the classes"):
        paired_on_test(np.array(["a", "b"]), np.array(["a", "a"]), np.array(["a", "b"]))
