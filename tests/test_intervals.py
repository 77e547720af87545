"""Intervals of a test set against SciPy, and how often they hold what is true, simulated at fixed seeds."""

import json
import pickle

import numpy as np
import pytest
from scipy import stats

from longtail.evaluation import (
    Evaluation,
    Interval,
    evaluate,
    jeffreys_interval,
    mean_interval,
    wilson_interval,
)
from longtail.evaluation.reading import group_numbers

# classes, their test samples and their true recall: what the choice in mean_interval rests on
SETTINGS = {
    "10 classes, recall falling": (np.geomspace(500, 5, 10), np.linspace(0.95, 0.5, 10)),
    "10 classes, recall equal": (np.geomspace(500, 5, 10), np.full(10, 0.95)),
    "100 classes": (np.geomspace(50, 2, 100), np.linspace(0.9, 0.3, 100)),
    "5 classes": (np.array([300, 40, 10, 5, 3]), np.linspace(0.95, 0.5, 5)),
}
# nearly perfect classifiers of many classes, of which the standard error alone held 86 to 92 %
NEARLY_PERFECT = {
    "43 classes at .97": (np.geomspace(100, 3, 43), np.full(43, 0.97)),
    "100 classes at .99": (np.geomspace(50, 2, 100), np.full(100, 0.99)),
    "100 classes at .97": (np.geomspace(50, 2, 100), np.full(100, 0.97)),
    "100 classes of 10 at .995": (np.full(100, 10), np.full(100, 0.995)),
    "1000 classes of 10 at .999": (np.full(1000, 10), np.full(1000, 0.999)),
    "300 classes, recall falling": (np.geomspace(100, 2, 300), np.linspace(0.999, 0.5, 300)),
}


def coverage(setting, interval, runs=1500):
    return held(*(SETTINGS | NEARLY_PERFECT)[setting], interval, runs)


def held(samples, recall, interval, runs):
    samples = np.rint(samples).astype(int)
    rng = np.random.default_rng(21)
    errors = rng.binomial(samples, 1 - recall, size=(runs, len(samples))) / samples
    ends = np.array([interval(e, samples) for e in errors])
    return np.mean((ends[:, 0] <= 1 - recall.mean()) & (1 - recall.mean() <= ends[:, 1]))


def test_the_interval_of_balanced_error_holds_what_it_promises():
    found = [coverage(setting, mean_interval) for setting in SETTINGS]
    assert min(found) >= 0.87
    assert np.mean(found) >= 0.91


@pytest.mark.parametrize("setting", NEARLY_PERFECT)
def test_nearly_perfect_classifiers_of_many_classes_have_honest_intervals(setting):
    found = coverage(setting, mean_interval, runs=600)
    assert found >= 0.93
    assert coverage(setting, lambda e, m: standard_error(e, m), runs=600) <= found


def standard_error(errors, samples):
    half = 1.959964 * np.sqrt((errors * (1 - errors) / np.maximum(samples - 1, 1)).sum()) / len(errors)
    return errors.mean() - half, errors.mean() + half


def test_errors_and_recalls_have_the_same_interval_the_other_way_round():
    rng = np.random.default_rng(0)
    for classes in (4, 60):
        samples = rng.integers(2, 40, classes)
        shares = rng.binomial(samples, 0.1) / samples
        low, high = mean_interval(shares, samples)
        assert mean_interval(1 - shares, samples) == pytest.approx((1 - high, 1 - low))


def test_neither_of_the_two_rules_would_do_alone(monkeypatch):
    samples, errors = [300, 40, 10, 5, 3], [0.05, 0.2, 0.3, 0.4, 1 / 3]
    mover, width = coverage("5 classes", mean_interval), np.diff(mean_interval(errors, samples))
    monkeypatch.setattr("longtail.evaluation.intervals.FEW_CLASSES", 0)  # the beta distribution everywhere
    assert coverage("5 classes", mean_interval) < mover + 0.01  # no better, and far wider
    assert np.diff(mean_interval(errors, samples)) > 1.2 * width
    monkeypatch.setattr("longtail.evaluation.intervals.FEW_CLASSES", 1000)  # MOVER everywhere
    assert coverage("100 classes", mean_interval) < 0.91
    assert coverage("100 classes at .99", mean_interval) < 0.91


@pytest.mark.parametrize(("k", "m"), [(0, 3), (3, 3), (1, 4), (40, 43), (499, 500), (0, 1)])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_intervals_of_a_share_are_scipys(k, m, confidence):
    theirs = stats.binomtest(k, m).proportion_ci(confidence, method="wilson")
    assert wilson_interval(k, m, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-14)
    low, high = stats.beta(k + 0.5, m - k + 0.5).interval(confidence)
    ours = jeffreys_interval(k, m, confidence)
    assert ours == pytest.approx((0 if k == 0 else low, 1 if k == m else high))
    assert ours.confidence == confidence


def test_the_mean_of_one_class_is_its_own_interval_and_extremes_have_width():
    assert mean_interval([0.25], [4]) == pytest.approx(jeffreys_interval(1, 4))
    assert mean_interval([0.25, 0.9], [4, 0]) == pytest.approx(jeffreys_interval(1, 4))
    assert mean_interval([0.25, 0.9], [4, 8], [1, 0]) == pytest.approx(jeffreys_interval(1, 4))
    assert mean_interval([0.5], [0]) is None
    low, high = mean_interval([0.0] * 100, [3] * 100)
    assert low == 0 < high
    low, high = mean_interval([0.25] * 40, [4] * 40)  # the variance of a class with m - 1
    half = 1.959964 * np.sqrt(40 * 0.25 * 0.75 / 3) / 40
    assert 1 < (high - low) / 2 / half < 1.05  # nearly normal, and one sample more at each end
    # one sample a class: as 40 of 100, whose exact interval (Clopper and Pearson) has one more, too
    exact = stats.binomtest(40, 100).proportion_ci(method="exact")
    assert mean_interval([0.0] * 60 + [1.0] * 40, [1] * 100) == pytest.approx(tuple(exact), abs=0.002)


def test_an_interval_is_a_pair_that_knows_its_confidence():
    pair = pickle.loads(pickle.dumps(Interval(0.1, 0.3, 0.9)))
    assert (pair, pair.low, pair.high, pair.confidence) == ((0.1, 0.3), 0.1, 0.3, 0.9)


def test_an_evaluation_says_how_sure_it_is():
    result = evaluate([0, 0, 0, 1, 0, 1], [0, 0, 0, 0, 1, 1], [500, 10, 3], confidence=0.9)
    assert result.per_class_interval[0] == wilson_interval(1, 4, 0.9)
    assert result.per_class_interval[1] == wilson_interval(1, 2, 0.9)
    assert result.per_class_interval[2] is None
    assert result.balanced_error_interval == mean_interval([0.25, 0.5], [4, 2], confidence=0.9)
    assert result.natural_error_interval == mean_interval([0.25, 0.5], [4, 2], [500, 10], 0.9)
    assert result.error_under([0.2, 0.8, 0]) == pytest.approx(0.2 * 0.25 + 0.8 * 0.5)
    assert result.interval_under([0.2, 0.8, 0]) == mean_interval([0.25, 0.5], [4, 2], [0.2, 0.8], 0.9)
    assert result.balanced_error_interval.confidence == 0.9
    assert result.macro_f1_interval.low <= result.macro_f1 <= result.macro_f1_interval.high
    assert result.thin_text == "3 of 3 classes have fewer than 5 test samples, 1 of them none"
    assert evaluate([0] * 5, [0] * 5, [3]).thin_text == ""
    with pytest.raises(ValueError, match="prior must be 3 shares"):
        result.error_under([0.5, 0.5])
    with pytest.raises(ValueError, match="prior is 0 for every class that has test samples"):
        result.error_under([0, 0, 1])


def test_groups_replace_samples():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], [40, 12])
    said = np.where(rng.random(52) < 0.7, truth, 1 - truth)
    single = evaluate(said, truth, [500, 10])
    # ten copies of each sample, a track: nothing more is known
    copies = evaluate(
        np.repeat(said, 10), np.repeat(truth, 10), [500, 10], groups=np.repeat(np.arange(52), 10)
    )
    np.testing.assert_allclose(copies.per_class_interval, single.per_class_interval)
    assert copies.balanced_error_interval == pytest.approx(single.balanced_error_interval)
    assert copies.macro_f1_interval == pytest.approx(single.macro_f1_interval, abs=0.02)
    without = evaluate(np.repeat(said, 10), np.repeat(truth, 10), [500, 10])
    assert np.diff(without.macro_f1_interval) < 0.5 * np.diff(copies.macro_f1_interval)
    assert "groups of test samples" in evaluate([0, 0], [0, 0], [5, 3], groups=["a", "a"]).thin_text
    assert (single.num_groups, copies.num_groups) == (None, 52)
    assert (single.units_text, copies.units_text) == ("the test samples", "52 groups of test samples")
    assert str(copies).endswith("520 samples in 52 groups")
    assert (
        without.in_groups(np.repeat(said, 10), np.repeat(truth, 10), np.repeat(np.arange(52), 10)) == copies
    )
    with pytest.raises(ValueError, match="groups must be one a sample, 52, got 3"):
        evaluate(said, truth, [500, 10], groups=[1, 2, 3])
    with pytest.raises(ValueError, match="must be those of the 52 test samples, got 520 and 520; give what"):
        single.in_groups(np.repeat(said, 10), np.repeat(truth, 10), np.repeat(np.arange(52), 10))


def test_an_evaluation_of_samples_is_written_as_before_there_were_groups():
    one = evaluate([0, 1, 0], [0, 1, 1], [5, 3])
    assert "num_groups" not in one.to_dict()
    grouped = evaluate([0, 1, 0], [0, 1, 1], [5, 3], groups=["a", "b", "b"])
    for found in (one, grouped):
        assert Evaluation.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert {name for name, value in grouped.to_dict().items() if value != one.to_dict().get(name)} == {
        *("units", "macro_f1_ends", "num_groups")
    }


def test_groups_have_one_numbering():
    assert group_numbers(["b", "a", "b", "c"], 4).tolist() == [1, 0, 1, 2]
    assert group_numbers(np.array([[10], [9], [10]]), 3).tolist() == [0, 1, 0]  # in the order of text
    with pytest.raises(ValueError, match="test_groups must be one a sample, 3, got 2; name each sample's"):
        group_numbers([1, 2], 3, "test_groups")


@pytest.mark.parametrize("confidence", [0, 1, 95, float("nan")])
def test_errors(confidence):
    with pytest.raises(ValueError, match=r"confidence must be in \(0, 1\)"):
        evaluate([0], [0], [5], confidence=confidence)
    with pytest.raises(ValueError, match=r"confidence must be in \(0, 1\)"):
        wilson_interval(1, 2, confidence)
    with pytest.raises(ValueError, match=r"k must be in \[0, 2\], got 3"):
        wilson_interval(3, 2)
    with pytest.raises(ValueError, match="one number a class"):
        mean_interval([0.5], [1, 2])


def test_numbers_of_groups_in_words():
    from longtail.evaluation.intervals import in_groups_text, in_independent_text

    assert [in_groups_text(n) for n in (None, 1, 4080)] == ["", " in 1 group", " in 4,080 groups"]
    said = [in_independent_text(units) for units in (1.0, 1.004, 1.6, 12.34)]
    assert said == [
        f" in {told}"
        for told in ("1 independent group",) * 2 + ("1.6 independent groups", "12.3 independent groups")
    ]
