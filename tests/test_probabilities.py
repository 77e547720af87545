"""Thresholds out of fold, probabilities before and after a temperature, two methods on one test set."""

import numpy as np
import pytest
from scipy import stats

from longtail.evaluation import (
    check_probabilities,
    evaluate,
    paired_difference,
    paired_on_test,
    tune_thresholds,
)


def labelled(n=2000, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random((n, 3)) < [0.3, 0.05, 0.001]
    return rng.normal(size=(n, 3)) + 2 * truth - 3, truth


def test_thresholds_by_f1_are_worth_more_and_honestly_told():
    logits, truth = labelled()
    found = tune_thresholds(logits, truth)
    assert found.thin == (2,)
    assert found.thresholds[2] == 0.5
    assert found.macro_f1 > found.plain_macro_f1 + 0.1
    assert found.plain_macro_f1 == pytest.approx(evaluate(logits, truth, [600, 100, 2]).macro_f1)
    same = evaluate(logits, truth, [600, 100, 2], threshold=found)
    assert same.threshold == tuple(found.thresholds)
    assert same.per_class_f1[0] == pytest.approx(found.f1[0], abs=0.02)
    new, answers = labelled(seed=1)
    fresh = evaluate(new, answers, [600, 100, 2], threshold=found)
    assert fresh.per_class_f1[:2] == pytest.approx(found.f1[:2], abs=0.08)
    rng = np.random.default_rng(0)  # noise: what looks good in sample is worth nothing out of fold
    noise, coin = rng.random(60), rng.random(60) < 0.2
    tuned = tune_thresholds(noise, coin)
    inside = evaluate(
        np.stack([noise, noise], 1), np.stack([coin, coin], 1), [5, 5], threshold=tuned.thresholds[0]
    )
    assert tuned.f1[0] < inside.per_class_f1[0]


def test_thresholds_by_precision_and_by_cost():
    logits, truth = labelled()
    found = tune_thresholds(logits[:, 0], truth[:, 0], by="precision", floor=0.95)
    assert found.precision[0] == pytest.approx(0.95, abs=0.03)
    assert 0.1 < found.recall[0] < 0.9
    shares = 1 / (1 + np.exp(-logits[:, 0]))

    def cost(cut, alarm, miss):
        return alarm * ((shares >= cut) & ~truth[:, 0]).sum() + miss * ((shares < cut) & truth[:, 0]).sum()

    for alarm, miss in ((1, 1), (1, 20), (30, 1)):
        best = tune_thresholds(logits[:, 0], truth[:, 0], by="cost", cost=(alarm, miss)).thresholds[0]
        lowest = min(cost(cut, alarm, miss) for cut in np.append(shares, 1.1))
        assert cost(best, alarm, miss) == pytest.approx(lowest)
        tuned = tune_thresholds(logits[:, 0], truth[:, 0], by="cost", cost=(alarm, miss))
        assert tuned.plain_cost[0] == pytest.approx(cost(0.5, alarm, miss) / 2000)
        assert cost(best, alarm, miss) / 2000 <= tuned.cost[0] < 1.2 * cost(best, alarm, miss) / 2000
    assert found.cost == found.plain_cost == ()
    half = truth.astype(float)
    half[::2, 0] = np.nan  # what is not known costs nothing, and is no sample
    assert tune_thresholds(logits, half, by="cost").plain_cost[0] == pytest.approx(
        ((shares >= 0.5) != truth[:, 0])[1::2].mean()
    )
    groups = np.arange(2000) // 50
    assert tune_thresholds(logits, truth, groups=groups).macro_f1 > found.plain_macro_f1 * 0.5
    holes = truth.astype(float)
    holes[::2, 0] = np.nan
    assert tune_thresholds(logits, holes).thresholds[0] == pytest.approx(
        tune_thresholds(logits[1::2], truth[1::2]).thresholds[0]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by": "recall"}, "by must be one of 'f1', 'precision', 'cost'"),
        ({"floor": 0}, r"floor must be in \(0, 1\]"),
        ({"cost": (1, 0)}, r"cost must be in \(0, inf\)"),
        ({"folds": 1}, r"folds must be in \[2, inf\], got 1"),
        ({"groups": ["a"] * 2000}, "folds must be at most the 1 samples or groups, got 5"),
    ],
)
def test_errors_of_thresholds(change, message):
    with pytest.raises(ValueError, match=message):
        tune_thresholds(*labelled(), **change)
    with pytest.raises(ValueError, match="targets must hold 0 and 1"):
        tune_thresholds([0.1, 0.2], [1, 2])
    with pytest.raises(ValueError, match="scores must be floating point of the shape of targets"):
        tune_thresholds([[0.1, 0.2]], [[1, 0, 1]])


def test_a_temperature_mends_overconfidence_and_is_fitted_out_of_fold():
    rng = np.random.default_rng(0)
    shares = np.array([0.8, 0.15, 0.05])
    truth = rng.choice(3, 3000, p=shares)
    right = 2 * (rng.normal(size=(3000, 3)) + 2 * np.eye(3)[truth]) + np.log(shares)
    found = check_probabilities(3 * right, truth, 1000 * shares)
    exact = evaluate(right, truth, 1000 * shares)
    assert found["temperature"].log_loss == pytest.approx(exact.log_loss, abs=0.002)
    assert found["as they are"].log_loss > exact.log_loss + 0.1
    assert found["temperature"].error == found["as they are"].error
    assert found["temperature, adjusted"].balanced_error < exact.balanced_error
    assert set(found) == {"as they are", "temperature", "adjusted", "temperature, adjusted"}
    tracks = np.arange(3000) // 10
    for name, grouped in check_probabilities(3 * right, truth, 1000 * shares, groups=tracks).items():
        assert (grouped.num_groups, found[name].num_groups) == (300, None)
        assert grouped.units == evaluate(right, truth, 1000 * shares, groups=tracks).units
    few = check_probabilities(rng.normal(size=(12, 3)), np.arange(12) % 3, [5, 5, 5], folds=2)
    assert few["temperature"].log_loss > 1.0  # out of fold, noise gains nothing
    with pytest.raises(ValueError, match="targets must be one a row of logits, 3000, got 2"):
        check_probabilities(right, [0, 1], [5, 5, 5])
    with pytest.raises(ValueError, match="folds must be at most the 1 samples or groups"):
        check_probabilities(right, truth, [5, 5, 5], groups=["a"] * 3000)


def test_two_methods_on_one_test_set():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [100, 20, 5])
    first, second = (np.where(rng.random(125) < share, truth, (truth + 1) % 3) for share in (0.9, 0.7))
    found = paired_on_test(first, second, truth)
    errors = [evaluate(x, truth, [5, 5, 5]).balanced_error for x in (first, second)]
    assert found.difference == pytest.approx(errors[0] - errors[1])
    for c in range(3):
        mine = truth == c
        lost = ((first != truth) & (second == truth) & mine).sum()
        won = ((first == truth) & (second != truth) & mine).sum()
        assert found.per_class[c] == (lost, won)
        if lost + won:
            assert found.per_class_p[c] == pytest.approx(stats.binomtest(int(lost), int(lost + won)).pvalue)
    gaps = (first != truth).astype(float) - (second != truth)
    variance = sum(gaps[truth == c].var(ddof=1) / (truth == c).sum() for c in range(3))
    assert found.standard_error == pytest.approx(np.sqrt(variance) / 3)
    copies = paired_on_test(
        *(np.repeat(x, 4) for x in (first, second, truth)), groups=np.repeat(np.arange(125), 4)
    )
    assert copies.interval == pytest.approx(found.interval)
    seeds = paired_difference([0.3, 0.35, 0.32], [0.4, 0.41, 0.45])
    np.testing.assert_allclose(copies.per_class_interval, found.per_class_interval)
    both = found.with_seeds(seeds)
    assert np.diff(both)[0] == pytest.approx(np.hypot(seeds.high - seeds.low, np.diff(found.interval)[0]))
    assert found.with_seeds(paired_difference([0.3], [0.4])) is None
    with pytest.raises(ValueError, match="second must be one a target, 125, got 1"):
        paired_on_test(first, [0], truth)


def test_the_interval_of_a_class_allows_for_what_few_samples_cannot_show():
    found = paired_on_test([0, 0, 0, 2], [1, 1, 1, 2], [0, 0, 0, 2])  # three that all agree
    one, none, two = found.per_class_interval
    assert none is None
    middle, half = -3 / 5, stats.norm.ppf(0.975) * np.sqrt((4 / 5 - 9 / 25) / 5)  # by hand
    assert one == pytest.approx((max(-1.0, middle - half), middle + half))
    assert two == pytest.approx((-0.6533, 0.6533), abs=1e-4)  # 1.96 * sqrt(1 / 9)
    rng = np.random.default_rng(0)
    for samples, shares in ((3, (0.3, 0.1)), (5, (0.9, 0.2)), (10, (0.5, 0.5)), (50, (0.05, 0.3))):
        held = 0
        for _ in range(400):
            draw = rng.random(samples)
            first, second = draw < shares[0], np.where(rng.random(samples) < 0.7, draw, 1 - draw) < shares[1]
            (ends,) = paired_on_test(
                first.astype(int), second.astype(int), np.zeros(samples, int), weights=[1, 0]
            ).per_class_interval[:1]
            held += ends.low - 1e-9 <= shares[0] - shares[1] <= ends.high + 1e-9
        assert held / 400 > 0.88  # in a longer simulation 0.906 to 1.0 from 3 samples on


def test_runs_of_two_methods_count_each_sample_once():
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1, 2], [60, 20, 8])
    first, second = (np.where(rng.random((4, 88)) < share, truth, (truth + 1) % 3) for share in (0.9, 0.7))
    found = paired_on_test(first, second, truth, weights=[60, 20, 8])
    gaps = (first != truth).mean(0) - (second != truth).mean(0)
    assert found.difference == pytest.approx(gaps.mean())  # by their samples: the plain error
    variance = sum(gaps[truth == c].var(ddof=1) * (truth == c).sum() for c in range(3))
    assert found.standard_error == pytest.approx(np.sqrt(variance) / 88)
    same = paired_on_test(first[:1], second[:1], truth)
    assert same == paired_on_test(first[0], second[0], truth)
    twice = paired_on_test(np.repeat(first[:1], 5, 0), np.repeat(second[:1], 5, 0), truth)
    assert twice.standard_error == pytest.approx(same.standard_error)  # runs add no test samples
    alone = paired_on_test(first, second, truth, weights=[0, 1, 0])
    assert alone.difference == pytest.approx(gaps[truth == 1].mean())
    assert found.at(0.5).interval == pytest.approx(
        found.difference + found.standard_error * np.array([-1, 1]) * stats.norm.ppf(0.75)
    )
    with pytest.raises(ValueError, match="second must have the runs of first, 4, got 3"):
        paired_on_test(first, second[:3], truth)
    with pytest.raises(ValueError, match="weights are 0 for every class that has test samples"):
        paired_on_test(first, second, truth, weights=[0, 0, 0, 1])
    with pytest.raises(ValueError, match="weights must be one number >= 0 for each of 3 classes"):
        paired_on_test(first, second, truth, weights=[1, 2])


def test_the_interval_of_a_difference_holds_what_it_promises():
    # two methods of equal worth on one test set, three runs each; what they are on all data is known
    rng, sizes = np.random.default_rng(3), np.array([200, 40, 12])
    truth, held = np.repeat(np.arange(3), sizes), 0
    for _ in range(400):
        hard = rng.random(sizes.sum()) * np.array([0.2, 0.5, 0.8])[truth]
        one, other = (np.where(rng.random((3, len(hard))) < hard, (truth + 1) % 3, truth) for _ in range(2))
        low, high = paired_on_test(one, other, truth).interval
        held += low <= 0 <= high
    assert held / 400 >= 0.91


def test_targets_go_by_the_names_of_the_counts():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [60, 30, 10])
    logits, names = rng.normal(size=(100, 3)) + 2 * np.eye(3)[truth], np.array(["owl", "fox", "yak"])
    told = {"owl": 600, "fox": 300, "yak": 100}
    assert check_probabilities(logits, names[truth], told) == check_probabilities(
        logits, truth, [600, 300, 100]
    )
    with pytest.raises(TypeError, match="targets are names such as 'owl', but class_counts names no class"):
        check_probabilities(logits, names[truth], [600, 300, 100])
