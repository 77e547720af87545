"""Which beta: the rule against the published grids, and advice by evaluations."""

import csv
import warnings
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail import class_weights, suggest_beta
from longtail.datasets.long_tail import long_tail_counts
from longtail.paper.beta import kish
from longtail.suggest import BETAS, SHARE, effective_share

COUNTS = [5000, 500, 50]


def test_weights_by_name_find_their_class():
    counts = {"cat": 90, "ant": 10}
    for weights in ({"ant": 9.0, "cat": 1.0}, {"cat": 1.0, "ant": 9.0}, pd.Series({"ant": 9.0, "cat": 1.0})):
        assert effective_share(counts, weights) == effective_share([90, 10], [1.0, 9.0])
    with pytest.raises(ValueError, match=r"weights lacks a value for 'ant'; give one for each class"):
        effective_share(counts, {"cat": 1.0, "bee": 9.0})


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=30), st.sampled_from(["inverse", "inverse_sqrt"]))
def test_the_share_is_kishs_over_samples(counts, scheme):
    weights = class_weights(counts, scheme)
    n = np.minimum(counts, 50)  # the formula over single samples, written out
    each = np.repeat(class_weights(n, scheme), n)
    assert effective_share(n, class_weights(n, scheme)) == pytest.approx(
        each.sum() ** 2 / ((each**2).sum() * len(each)), rel=1e-12
    )
    assert 0 < effective_share(counts, weights) <= 1 + 1e-12
    assert effective_share(counts, 1e6 * weights) == pytest.approx(
        effective_share(counts, weights), rel=1e-12
    )


def test_the_rule_of_the_share_on_the_grids_that_it_was_fitted_to():
    """Its regret there is small by construction; elsewhere it is not, see tests/test_beta.py."""
    regrets, always = [], []
    for figure, classes, most in (("fig9", 20, 2500), ("fig10", 100, 500)):
        rows = list(csv.DictReader((files("longtail") / "paper" / f"{figure}.csv").read_text().splitlines()))
        for factor in (200, 100, 50, 20, 10):
            errors: dict = {}
            for row in rows:
                if int(row["imbalance_factor"]) == factor:
                    loss = errors.setdefault((row["loss"], row["gamma"]), {})
                    loss[float(row["beta"])] = float(row["error_percent"])
            chosen = kish(long_tail_counts(classes, most, float(factor)))
            for of in errors.values():  # each of the five losses against its own best
                regrets.append(of[chosen] - min(of.values()))
                always.append(of[0.9999] - min(of.values()))
    assert len(regrets) == 50
    assert np.mean(regrets) == pytest.approx(0.1172)
    assert np.mean(always) == pytest.approx(4.0736)


def test_counts_alone_give_a_table_and_a_warning_never_a_number():
    advice = suggest_beta(COUNTS)
    assert (advice.answer, advice.beta) == ("not known from counts", None)
    assert [row.beta for row in advice.rows] == [0.0, *BETAS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in advice.rows:
            weights = class_weights(COUNTS, "effective", beta=row.beta)
            assert row.share == pytest.approx(effective_share(COUNTS, weights))
            assert row.ratio == pytest.approx(weights.max() / weights.min())
    assert str(advice).count("\n") >= 6
    assert "<" not in str(advice)
    assert "Counts alone do not say which beta" in advice.reason
    assert [row.share < SHARE for row in advice.rows] == [False, False, False, True, True]
    assert "beta 0.999, 0.9999 leave less than 0.6 of the sample's worth" in advice.reason
    assert "beta 0.999 leaves less" in suggest_beta(COUNTS, betas=[0.99, 0.999]).reason
    assert "Mind" not in suggest_beta(COUNTS, betas=[0.99]).reason
    nothing = suggest_beta([100, 99], betas=[0.5])
    assert (nothing.answer, nothing.beta) == ("no weights", None)
    assert "does nothing" in nothing.reason
    named = suggest_beta({"cat": 5000, "dog": 500, "lynx": 50})
    assert named.rows == advice.rows
    empty = suggest_beta([5000, 500, 50, 0])
    assert [row.share for row in empty.rows] == pytest.approx([row.share for row in advice.rows])


def test_evaluations_decide(rng):
    plain = rng.normal(0.3, 0.02, 6)
    noise = lambda: rng.normal(0, 0.004, 6)  # noqa: E731
    better = {"plain": plain, 0.99: plain - 0.03 + noise(), 0.999: plain - 0.001 + noise()}
    advice = suggest_beta(COUNTS, better)
    assert (advice.answer, advice.beta) == ("beta", 0.99)
    row = next(row for row in advice.rows if row.beta == 0.99)
    assert row.error.mean == pytest.approx(np.mean(better[0.99]))
    assert row.versus_plain.mean == pytest.approx(np.mean(better[0.99] - plain))
    assert row.versus_plain.confidence == pytest.approx(0.975)  # two betas were tried
    assert next(r for r in advice.rows if r.beta == 0.9).error is None
    alike = suggest_beta(COUNTS, {"none": plain, 0.99: plain - 0.001 + noise()})
    assert (alike.answer, alike.beta) == ("not distinguishable", None)
    worse = suggest_beta(COUNTS, {0.0: plain, 0.99: plain + 0.05 + noise()})
    assert worse.answer == "not distinguishable"
    instead = suggest_beta(COUNTS, {**better, "logit_adjusted": plain - 0.06 + noise()})
    assert (instead.answer, instead.beta) == ("logit adjustment instead", None)
    assert "Logit adjustment instead: it has" in str(instead)
    kept = suggest_beta(COUNTS, {**better, "logit_adjusted": plain - 0.01 + noise()})
    assert kept.beta == 0.99
    # as good as the best beta, which had to be looked for
    equal = suggest_beta(COUNTS, {**better, "logit_adjusted": better[0.99] + 0.001 + noise()})
    assert (equal.answer, equal.beta) == ("logit adjustment instead", None)
    alone = suggest_beta(COUNTS, {"plain": plain, "logit_adjusted": plain - 0.06 + noise()})
    assert alone.answer == "logit adjustment instead"
    useless = suggest_beta(COUNTS, {"plain": plain, "logit_adjusted": plain + noise()})
    assert useless.answer == "not distinguishable"
    # folds share their training samples: the same numbers say less
    both = {"plain": plain, 0.99: plain - 0.008 + noise()}
    folds, seeds = suggest_beta(COUNTS, both, test_to_train=0.25), suggest_beta(COUNTS, both)
    width = [a.rows[2].versus_plain.high - a.rows[2].versus_plain.low for a in (folds, seeds)]
    assert width[0] == pytest.approx(np.sqrt(1 + 6 * 0.25) * width[1])


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"evaluations": [0.1]}, TypeError, "evaluations must map a beta to its errors"),
        ({"evaluations": {0.99: [0.1, 0.2]}}, ValueError, "add 'plain' with the same seeds"),
        ({"evaluations": {"plain": [0.1], 0.9: [0.1, 0.2]}}, ValueError, "must be of the same seeds"),
        ({"evaluations": {"plain": [31.2]}}, ValueError, "divide percentages by 100"),
        ({"evaluations": {"plain": [float("nan")]}}, ValueError, "must be errors in"),
        ({"evaluations": {"plain": [0.1], "focal": [0.1]}}, ValueError, "got 'focal'; rename it"),
        ({"evaluations": {"plain": [0.1], 1.5: [0.1]}}, ValueError, "a key of evaluations must be"),
        ({"betas": []}, ValueError, "betas must name one beta above 0"),
        ({"betas": [2.0]}, ValueError, "beta must be"),
        ({"confidence": 1.0}, ValueError, "confidence must be"),
    ],
)
def test_bad_input(given, kind, message):
    with pytest.raises(kind, match=message):
        suggest_beta(COUNTS, **given)


def test_shares_of_bad_weights():
    with pytest.raises(ValueError, match="weights must be one a class, 3, got shape"):
        effective_share(COUNTS, [1.0, 2.0])
    for bad in ([0.0] * 3, [1.0, -1.0, 1.0], [1.0, float("nan"), 1.0]):
        with pytest.raises(ValueError, match="weights must be >= 0 and not all zero"):
            effective_share(COUNTS, bad)
