"""The decision after training, against Bayes' rule on distributions that are known exactly."""

import itertools
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import longtail
from longtail import (
    ClassBalancedLoss,
    adjust_logits,
    adjust_probabilities,
    class_counts,
    class_weights,
    methods,
    tune_adjustment,
)
from longtail.adjust import effective_prior, logit_shift
from longtail.methods import Method, Rule
from longtail.models.cosine import CosineLinear
from longtail.sampling import ClassAwareSampler

COUNTS = np.array([900.0, 90.0, 10.0])


def softmax(z):
    powers = np.exp(z - z.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def world(rng, values=7, classes=3):
    """p(x | y) of a discrete x, shape (values, classes): each column sums to 1."""
    return rng.dirichlet(np.ones(values), size=classes).T


def posterior(likelihood, prior):
    joint = likelihood * prior
    return joint / joint.sum(1, keepdims=True)


def trained(likelihood, counts, weight, offset, drawn):
    """The logits at which the population's weighted cross-entropy has no slope, and that slope, by hand."""
    seen = counts * weight * drawn
    logits = np.log(likelihood * seen) - offset
    joint = likelihood * (counts * drawn) / (counts * drawn).sum()  # of (x, y) as the sampler draws them
    residual = softmax(logits + offset)[:, None, :] - np.eye(len(counts))[None]  # (x, y, class)
    return logits, np.einsum("xy,y,xyc->xc", joint, weight, residual)


# ---- Bayes' rule


positive = st.lists(st.floats(0.01, 100), min_size=3, max_size=3).map(np.array)


@given(
    weight=positive, drawn=positive, offset=st.lists(st.floats(-5, 5), min_size=3, max_size=3), aim=positive
)
def test_whatever_the_optimiser_saw_the_adjusted_posterior_is_bayes(weight, drawn, offset, aim):
    rng = np.random.default_rng(0)
    likelihood, offset, target = world(rng), np.array(offset), aim / aim.sum()
    logits, slope = trained(likelihood, COUNTS, weight, offset, drawn)
    assert abs(slope).max() < 1e-12 * weight.max()
    given = {"weight": weight, "offset": offset, "sampling": drawn}
    np.testing.assert_allclose(
        softmax(adjust_logits(logits, COUNTS, target=target, **given)),
        posterior(likelihood, target),
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        softmax(adjust_logits(logits, COUNTS, target="training", **given)),
        posterior(likelihood, COUNTS / COUNTS.sum()),
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        softmax(adjust_logits(logits, COUNTS, **given)), posterior(likelihood, np.full(3, 1 / 3)), rtol=1e-12
    )


@pytest.mark.parametrize("scheme", ["none", "inverse", "inverse_sqrt", "effective"])
def test_probabilities_likewise(rng, scheme):
    likelihood, weight = world(rng), np.asarray(class_weights(COUNTS, scheme))
    seen = posterior(likelihood, COUNTS * weight / (COUNTS * weight).sum())
    ours = adjust_probabilities(seen, COUNTS, weight=weight, target="training")
    np.testing.assert_allclose(ours, posterior(likelihood, COUNTS / 1000), rtol=1e-12)
    np.testing.assert_allclose(ours.sum(1), 1, rtol=1e-14)
    offset = np.log(COUNTS)  # a network that was trained with it says its bare logits' probabilities
    bare = seen / np.exp(offset)
    bare /= bare.sum(1, keepdims=True)
    ours = adjust_probabilities(bare, COUNTS, weight=weight, offset=offset, target="training")
    np.testing.assert_allclose(ours, posterior(likelihood, COUNTS / 1000), rtol=1e-12)
    binary = adjust_probabilities(seen[:, 0], [100.0, 900.0], weight=[1.0, 0.5], target="training")
    two = np.stack([1 - seen[:, 0], seen[:, 0]], 1) / [1.0, 0.5]
    np.testing.assert_allclose(binary, (two / two.sum(1, keepdims=True))[:, 1], rtol=1e-12)


def test_one_against_the_rest(rng):
    """A sigmoid output knows odds: its positives' weight over that of all others together."""
    likelihood, weight = world(rng), np.array([0.2, 1.0, 5.0])
    seen = COUNTS * weight
    aim = np.array([0.5, 0.3, 0.2])
    logits, wanted = np.empty((7, 3)), np.empty((7, 3))
    for c in range(3):
        others = [j for j in range(3) if j != c]
        logits[:, c] = np.log(likelihood[:, c])
        wanted[:, c] = np.log(likelihood[:, c])
        # the two classes that are "no" have one likelihood here, so that only the prior of "yes" moves
        logits[:, c] += np.log(seen[c] / seen[others].sum())
        wanted[:, c] += np.log(aim[c] / aim[others].sum())
    ours = adjust_logits(logits, COUNTS, weight=weight, target=aim, activation="sigmoid")
    np.testing.assert_allclose(ours, wanted, rtol=1e-12, atol=1e-12)


def test_many_labels(rng):
    positives, total, weight = np.array([50.0, 3.0, 97.0]), 100, np.array([1.0, 8.0, 0.5])
    logits = rng.normal(size=(5, 3))
    odds = np.log(positives * weight / (total - positives))
    ours = adjust_logits(logits, positives, weight=weight, activation="sigmoid", num_samples=total)
    np.testing.assert_allclose(ours, logits - odds, rtol=1e-12)
    back = adjust_logits(
        logits, positives, weight=weight, activation="sigmoid", num_samples=total, target="training"
    )
    np.testing.assert_allclose(back, logits - np.log(weight), rtol=1e-12, atol=1e-15)
    aimed = adjust_logits(logits, positives, activation="sigmoid", num_samples=total, target=[0.1, 0.5, 0.9])
    shares = positives / total
    np.testing.assert_allclose(
        aimed, logits + np.log([1 / 9, 1, 9]) - np.log(shares / (1 - shares)), rtol=1e-12
    )


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_one_logit_is_the_difference_of_two(rng, shape, activation):
    logits, counts, weight = rng.normal(size=shape), [900, 100], [0.5, 2.0]
    ours = adjust_logits(logits, counts, weight=weight, activation=activation, target="training")
    assert ours.shape == shape
    np.testing.assert_allclose(ours, logits - math.log(2.0 / 0.5), rtol=1e-12)
    two = np.stack([np.zeros(6), logits.reshape(-1)], 1)
    both = adjust_logits(two, counts, weight=weight, target="training")
    np.testing.assert_allclose((both[:, 1] - both[:, 0]).reshape(shape), ours, rtol=1e-9)


# ---- what is documented of it


def test_the_formula_to_the_letter():
    z, prior = np.array([[1.0, -2.0, 0.5]]), COUNTS / 1000
    for tau in (0.0, 0.5, 1.0, 2.0):
        np.testing.assert_allclose(
            adjust_logits(z, COUNTS, tau=tau), z + np.log(1 / 3) - tau * np.log(prior), rtol=1e-14
        )
    assert np.array_equal(logit_shift([7, 7]), [0, 0])


def test_an_empty_class_is_treated_as_the_smallest():
    assert effective_prior([90, 0, 10])[1] == effective_prior([90, 0, 10])[2]
    weight = class_weights([90, 0, 10], "inverse")  # 0 for the empty class
    np.testing.assert_allclose(effective_prior([90, 0, 10], weight=weight), 1 / 3)


@given(factor=st.floats(1e-3, 1e3))
def test_common_factors_change_nothing(factor):
    weight = np.array([0.2, 1.0, 5.0])
    for name in ("weight", "sampling"):
        np.testing.assert_allclose(
            logit_shift(COUNTS, **{name: factor * weight}), logit_shift(COUNTS, **{name: weight}), rtol=1e-9
        )
    np.testing.assert_allclose(logit_shift(factor * COUNTS), logit_shift(COUNTS), rtol=1e-9, atol=1e-12)


def test_names_find_their_class():
    by_name = {"lynx": 10, "cat": 90}
    counts = longtail.class_counts(["cat"] * 90 + ["lynx"] * 10)
    shift = logit_shift(counts, target={"lynx": 0.2, "cat": 0.8}, weight=by_name)
    np.testing.assert_allclose(shift, np.log([0.8, 0.2]) - np.log(np.array([8100, 100]) / 8200))


NAMED = {"lynx": 90, "cat": 10}
WORTH = {"lynx": 0.2, "cat": 3.0}


@pytest.mark.parametrize("kind", [dict, Counter, pd.Series])
@pytest.mark.parametrize("given", [WORTH, dict(reversed(WORTH.items())), pd.Series(WORTH)])
@pytest.mark.parametrize("numbers", [False, True])
def test_names_of_every_kind_find_their_class(kind, given, numbers):
    """Counters and Series are in the order of the labels, dictionaries in their own, numbers are indices."""
    place = {"lynx": 1, "cat": 0}
    counts = kind({place[name]: n for name, n in NAMED.items()} if numbers else NAMED)
    values = pd.Series({place[k]: v for k, v in dict(given).items()}) if numbers else given
    values = values if isinstance(given, pd.Series) else dict(values.items())
    ordered = ["lynx", "cat"] if kind is dict and not numbers else ["cat", "lynx"]
    seen = np.array([NAMED[name] * WORTH[name] for name in ordered])
    np.testing.assert_allclose(effective_prior(counts, weight=values), seen / seen.sum())
    np.testing.assert_allclose(effective_prior(counts, sampling=values), seen / seen.sum())
    offset = effective_prior(counts, offset=values)
    np.testing.assert_allclose(offset, effective_prior(counts, offset=[WORTH[name] for name in ordered]))
    share = {key: value / 3.2 for key, value in dict(values).items()}
    aim = np.array([WORTH[name] / 3.2 for name in ordered])
    np.testing.assert_allclose(logit_shift(counts, target=share), logit_shift(counts, target=aim))
    criterion = ClassBalancedLoss(counts, weight=values, offset=values, scale=values, margin=values)
    for vector in (criterion.weight, criterion.offset, criterion.scale, criterion.margin):
        np.testing.assert_allclose(vector, [WORTH[name] for name in ordered])


def test_indices_of_text_and_of_counts_with_names():
    for counts in ([90, 10], {1: 10, 0: 90}, {"lynx": 90, "cat": 10}):
        np.testing.assert_allclose(effective_prior(counts, weight={1: 9.0, 0: 1.0}), [0.5, 0.5])
    np.testing.assert_allclose(effective_prior({0: 90, 1: 10}, weight={"1": 9.0, "0": 1.0}), [0.5, 0.5])
    named = ClassBalancedLoss(weight=pd.Series(WORTH), offset=pd.Series({"cat": 1.0, "lynx": 2.0}))
    np.testing.assert_allclose(named.weight, [3.0, 0.2])
    np.testing.assert_allclose(named.offset, [1.0, 2.0])


@pytest.mark.parametrize("name", ["weight", "offset", "sampling", "target"])
def test_names_that_are_not_those_of_the_counts_are_refused(name):
    for counts, values, error, message in [
        (NAMED, {"lynx": 0.5, "cow": 0.5}, ValueError, "lacks a value for 'cat'; give one for each class"),
        (NAMED, {"lynx": 0.5}, ValueError, "lacks a value for 'cat'"),
        (
            NAMED,
            {**WORTH, "cow": 1.0},
            ValueError,
            "has a value for 'cow', which counts does not name; it names",
        ),
        ([90, 10], WORTH, TypeError, "names such as 'lynx', but counts has no names; give .* as a list"),
    ]:
        with pytest.raises(error, match=f"{name} .*{message}"):
            logit_shift(counts, **{name: values})


def test_a_cost_matrix_decides_by_expected_cost(rng):
    z = rng.normal(size=(200, 3))
    equal = adjust_logits(z, COUNTS, cost=1 - np.eye(3))
    np.testing.assert_array_equal(adjust_logits(z, COUNTS, cost=~np.eye(3, dtype=bool)), equal)
    assert np.array_equal(equal.argmax(1), adjust_logits(z, COUNTS).argmax(1))
    p = rng.uniform(0.01, 0.99, size=500)
    cost = np.array([[0.0, 1.0], [4.0, 0.0]])  # a missed positive costs four false alarms
    decided = adjust_probabilities(np.stack([1 - p, p], 1), [1, 1], cost=cost).argmax(1)
    assert np.array_equal(decided, (p > 1 / 5).astype(int))  # Elkan: c10 / (c10 + c01)


def test_zeros_are_floored_and_said():
    with pytest.warns(UserWarning, match="2 of 6 probabilities are exactly 0 and are taken for 1e-06"):
        ours = adjust_probabilities(np.array([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]]), COUNTS)
    assert (ours > 0).all()
    np.testing.assert_allclose(ours.sum(1), 1)


# ---- kinds of arrays


def test_tensors_stay_tensors_and_keep_their_gradient(rng):
    z = rng.normal(size=(4, 3))
    tensor = torch.tensor(z, dtype=torch.float32, requires_grad=True)
    ours = adjust_logits(tensor, torch.tensor([900, 90, 10]))
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours.detach(), adjust_logits(z, COUNTS), rtol=1e-6, atol=1e-6)
    ours.sum().backward()
    assert torch.equal(tensor.grad, torch.ones(4, 3))
    half = adjust_logits(tensor.detach().half(), COUNTS)
    assert half.dtype == torch.float16
    probabilities = adjust_probabilities(torch.tensor(softmax(z)), COUNTS)
    np.testing.assert_allclose(probabilities, adjust_probabilities(softmax(z), COUNTS), rtol=1e-12)


def test_any_array_api_library(rng):
    xp = pytest.importorskip("array_api_strict")
    z = rng.normal(size=(4, 3))
    ours = adjust_logits(xp.asarray(z), COUNTS)
    assert type(ours) is type(xp.asarray(z))
    np.testing.assert_allclose(np.asarray(ours), adjust_logits(z, COUNTS))
    p = adjust_probabilities(xp.asarray(softmax(z)), COUNTS)
    np.testing.assert_allclose(np.asarray(p), adjust_probabilities(softmax(z), COUNTS))


def test_lists_float32_and_masked_logits(rng):
    assert adjust_logits([[0.0, 3.0, -1.0]], COUNTS).shape == (1, 3)
    assert adjust_logits(np.zeros((2, 3), np.float32), COUNTS).dtype == np.float32
    masked = adjust_logits(np.array([[-np.inf, 0.0, 1.0]]), COUNTS)
    assert masked[0, 0] == -np.inf
    assert np.isfinite(masked[0, 1:]).all()
    many = rng.normal(size=(2, 5, 3))
    np.testing.assert_array_equal(adjust_logits(many, COUNTS)[1], adjust_logits(many[1], COUNTS))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("classes", [3, 40])
def test_half_precision(rng, dtype, classes):
    """Rows of bfloat16 miss the sum of 1 by up to 0.4 %: they are probabilities all the same."""
    counts, z = np.arange(1, classes + 1) * 10, 2 * rng.normal(size=(200, classes))
    shares = torch.tensor(softmax(z)).to(dtype)
    with pytest.raises(ValueError, match="adjust_probabilities takes probabilities"):
        adjust_logits(shares, counts)
    ours, exact = adjust_probabilities(shares, counts), shares.double() / torch.tensor(counts)
    assert ours.dtype == dtype
    exact /= exact.sum(1, keepdim=True)
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(ours.double(), exact, rtol=max(rounding, 1e-12), atol=6e-8)
    truth = torch.tensor(np.arange(200) % classes)
    tuned = tune_adjustment(torch.tensor(z).to(dtype), truth, counts)
    assert tuned == tune_adjustment(torch.tensor(z).to(dtype).double(), truth, counts)


def test_batched_by_vmap(rng):
    z = torch.tensor(rng.normal(size=(4, 3)))
    for function, values in ((adjust_logits, z), (adjust_probabilities, z.softmax(1))):
        one_by_one = torch.func.vmap(lambda row, f=function: f(row[None], COUNTS)[0])(values)
        torch.testing.assert_close(one_by_one, function(values, COUNTS))


@pytest.mark.parametrize("scheme", ["none", "inverse", "inverse_sqrt", "effective"])
def test_the_rates_of_a_sampler_are_taken_and_its_shares_refused(scheme):
    labels = np.repeat([0, 1, 3], [90, 20, 4])
    sampler = ClassAwareSampler(labels, scheme, seed=1)
    counts = class_counts(labels, num_classes=4)
    seen = effective_prior(counts, sampling=sampler.class_rates)[[0, 1, 3]]
    np.testing.assert_allclose(seen / seen.sum(), sampler.class_shares, rtol=1e-12)
    with pytest.raises(ValueError, match=r"sum to 1 as shares of the draws do; divide them .* class_rates"):
        effective_prior([90, 20, 4], sampling=sampler.class_shares)
    equal = ClassAwareSampler(np.repeat([0, 1], 5), scheme)
    np.testing.assert_allclose(effective_prior([5, 5], sampling=equal.class_shares), 0.5)  # it is all one


def test_counts_of_many_labels_tell_their_number_of_samples(rng):
    z = rng.normal(size=(5, 3))
    told = adjust_logits(z, MANY, activation="sigmoid")
    np.testing.assert_allclose(told, z - ODDS, rtol=1e-12, atol=1e-12)
    layer = torch.nn.Linear(4, 3)
    moved = longtail.with_prior(layer, MANY, activation="sigmoid").bias - layer.bias
    np.testing.assert_allclose(moved.detach(), -ODDS, rtol=1e-5, atol=1e-6)
    one = longtail.ClassCounts(["a"], [10], 100)
    moved = longtail.with_prior(torch.nn.Linear(4, 1, bias=False), one, activation="sigmoid").bias
    assert moved.item() == pytest.approx(np.log(9), rel=1e-6)
    for call in (
        lambda: adjust_logits(z, MANY),
        lambda: adjust_probabilities(softmax(z), MANY),
        lambda: effective_prior(MANY),
        lambda: longtail.with_prior(layer, MANY),
    ):
        with pytest.raises(ValueError, match="counts are of many labels a sample, 109 samples"):
            call()


def test_cost_of_columns_that_are_yes_or_no(rng):
    """Two columns of log-odds say the same as one: the cost is that of their probabilities."""
    p = rng.uniform(0.01, 0.99, size=50)
    odds, cost = np.log(p / (1 - p)), np.array([[0.0, 1.0], [4.0, 0.0]])
    ours = adjust_logits(np.stack([-odds, odds], 1), [7, 7], activation="sigmoid", cost=cost)
    np.testing.assert_allclose(ours, -np.stack([4 * p, 1 - p], 1), rtol=1e-12)
    with pytest.raises(ValueError, match=r"cost is of one class a sample.*tune_thresholds"):
        adjust_logits(np.zeros((2, 3)), MANY, activation="sigmoid", cost=1 - np.eye(3))


def test_a_cost_of_names_in_another_order_is_refused():
    cost = pd.DataFrame([[0.0, 1.0], [9.0, 0.0]], ["cat", "lynx"], ["cat", "lynx"])
    counts, z = {"cat": 90, "lynx": 10}, np.array([[1.0, 2.0]])
    adjust_logits(z, counts, cost=cost)
    for turned in (cost[["lynx", "cat"]], cost.loc[["lynx", "cat"]]):
        with pytest.raises(ValueError, match=r"columns of cost(\.T)? are .*in this order; give cost"):
            adjust_logits(z, counts, cost=turned)


def test_log_odds_that_look_like_probabilities_are_told():
    with pytest.warns(UserWarning, match=r"logits are all in \[0, 1\], as probabilities are; give what"):
        adjust_logits(np.linspace(0, 1, 20), [90, 10])
    with pytest.warns(UserWarning, match="as probabilities are"):
        adjust_logits(np.linspace(0, 1, 60).reshape(20, 3), MANY, activation="sigmoid")
    adjust_logits(np.linspace(0, 1.01, 20), [90, 10])
    adjust_logits(np.linspace(0, 1, 19), [90, 10])
    adjust_logits(np.zeros((20, 3)), COUNTS, activation="sigmoid")  # of a layer that starts with zeros


def test_maps_as_wide_as_there_are_classes_are_told():
    with pytest.warns(UserWarning, match=r"of shape \(2, 3, 5, 3\) are read with the classes in the last"):
        adjust_logits(np.zeros((2, 3, 5, 3)), COUNTS)
    adjust_logits(np.zeros((2, 5, 3, 3)), COUNTS)


def test_tuning_reads_logits_as_they_are_decided(rng):
    logits, labels, counts = held_out(rng, (400, 20))
    odds = np.log(counts / counts[::-1])
    found = {r[1]: r[2] for r in tune_adjustment(logits, labels, counts, activation="sigmoid").errors}
    for tau in (0.5, 1.0):
        wrong = (logits - tau * odds).argmax(1) != labels
        assert found[tau] == pytest.approx(np.mean([wrong[labels == c].mean() for c in (0, 1)]))


# ---- bad input


Z = np.array([[1.0, 2.0, 3.0]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: adjust_logits(softmax(Z), COUNTS), ValueError, "adjust_probabilities takes probabilities"),
        (lambda: adjust_probabilities(Z, COUNTS), ValueError, "sum to 1, got others; adjust_logits takes"),
        (lambda: adjust_logits(Z, [900, 100]), ValueError, r"one column a class, 2 as counts has, got shape"),
        (lambda: adjust_logits(Z[0], COUNTS), ValueError, r"one column a class, 3 as counts has, got shape"),
        (lambda: adjust_logits(Z * np.nan, COUNTS), ValueError, "logits hold NaN"),
        (lambda: adjust_logits(Z * np.inf, COUNTS), ValueError, "logits hold infinity"),
        (lambda: adjust_logits(Z, COUNTS, tau=-1), ValueError, r"tau must be in \[0, inf\), got -1; 1 takes"),
        (lambda: adjust_logits(Z, COUNTS, tau=np.nan), ValueError, "tau must be in"),
        (
            lambda: adjust_logits(Z, COUNTS, target=[0.5, 0.5, 0]),
            ValueError,
            "a share above 0, got 0 for some",
        ),
        (lambda: adjust_logits(Z, COUNTS, target=[5, 3, 2]), ValueError, "must sum to 1, got 10; divide it"),
        (lambda: adjust_logits(Z, COUNTS, target="natural"), ValueError, "target must be one of 'uniform'"),
        (lambda: adjust_logits(Z, COUNTS, target=[0.5, 0.5]), ValueError, "target must be 3 numbers, one a"),
        (
            lambda: adjust_logits(Z, COUNTS, weight=[1, 2]),
            ValueError,
            "weight must be 3 numbers, one a class",
        ),
        (lambda: adjust_logits(Z, COUNTS, weight=[1, -2, 1]), ValueError, "weight must be >= 0, got -2"),
        (
            lambda: adjust_logits(Z, COUNTS, weight=[1, 0, 1]),
            ValueError,
            "weight is 0 for a class with samples",
        ),
        (
            lambda: adjust_logits(Z, COUNTS, weight="inverse"),
            TypeError,
            "longtail.class_weights makes weights",
        ),
        (
            lambda: adjust_logits(Z, COUNTS, offset=[0, np.inf, 0]),
            ValueError,
            "offset must be finite, got inf;",
        ),
        (lambda: adjust_logits(Z[:, :1], [5]), ValueError, "at least two classes, got one"),
        (lambda: adjust_logits(Z, [0, 0, 0]), ValueError, "counts must have a class with samples"),
        (
            lambda: adjust_logits(Z, COUNTS, cost=np.eye(2)),
            ValueError,
            r"cost must be finite of shape \(3, 3\)",
        ),
        (lambda: adjust_logits([["a"]], COUNTS), TypeError, "logits must be numbers.*convert them first"),
        (lambda: adjust_logits([[1, 2, 3], [1]], COUNTS), ValueError, "logits must be a rectangular array"),
        (lambda: adjust_logits(torch.ones(1, 3).int(), COUNTS), TypeError, "must be floats.*convert them"),
        (lambda: adjust_logits(pd.DataFrame([["a"] * 3]), COUNTS), TypeError, "leave out columns of text"),
        (lambda: adjust_logits(-Z * np.inf, COUNTS), ValueError, "logits have a row of -inf alone"),
        (
            lambda: adjust_logits(Z, COUNTS, target=None),
            TypeError,
            "target must be one of 'uniform'.*got None",
        ),
        (lambda: adjust_logits(Z, COUNTS, cost="x"), ValueError, r"cost must be finite of shape \(3, 3\)"),
        (lambda: adjust_logits(Z, [COUNTS]), ValueError, r"got shape \(1, 3\); class_counts\(labels\) makes"),
        (
            lambda: adjust_logits(Z, COUNTS, num_samples=1000),
            ValueError,
            "num_samples is for multi-label data",
        ),
        (
            lambda: adjust_logits(Z, COUNTS, num_samples=500, activation="sigmoid"),
            ValueError,
            "num_samples must be at least the largest count, 900, got 500",
        ),
        (
            lambda: adjust_probabilities(softmax(Z), COUNTS, floor=0.5),
            ValueError,
            r"floor must be in \(0, 0.01\]",
        ),
    ],
)
def test_bad_input_is_refused_with_a_remedy(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- methods


def test_a_logit_adjusted_method_is_the_published_loss(rng):
    z, target = rng.normal(size=(6, 3)), np.array([0, 1, 2, 0, 0, 1])
    for tau in (1.0, 0.5):
        shifted = z + tau * np.log(COUNTS / 1000)
        wanted = -np.log(softmax(shifted))[np.arange(6), target].mean()
        criterion = methods.get("logit_adjusted", tau=tau).criterion(COUNTS)
        assert criterion(torch.tensor(z), torch.tensor(target)).item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, method in ((name, methods.get(name)) for name in methods.NAMES)
        # a scale or margin leaves no probabilities, and weights that are learned no known prior
        if not (method.scale or method.margin or method.reweighting or method.many_labels)
        and name not in ("tau_norm", "ncm")
    ],
)
def test_no_method_corrects_twice(rng, name):
    """Adjusted afterwards, every way of training answers for classes that are all as frequent."""
    method = methods.get(name).replace(adjustment=Rule("logit"))
    weight = np.asarray(class_weights(COUNTS, "effective")) if "effective" in name else np.ones(3)
    if name in ("inverse", "inverse_sqrt"):
        weight = np.asarray(class_weights(COUNTS, name))
    if name == "complementary":
        weight = np.asarray(class_weights(COUNTS, "effective"))
    evenly = {"class_aware", "deferred_sampling", "progressive_sampling"}
    evenly |= {"oversampling", "undersampling", "smote", "crt", "label_aware_smoothing", "mislas"}
    rate = 1 / COUNTS if name in evenly else COUNTS**-0.5 if name == "sqrt_sampling" else np.ones(3)
    offset = {
        "logit_adjusted": np.log(COUNTS),
        "balanced_softmax": np.log(COUNTS),
        "complementary": np.log(COUNTS * weight),
    }.get(name, np.zeros(3))
    likelihood = world(rng)
    logits, _ = trained(likelihood, COUNTS, weight, offset, rate)
    decided = softmax(method.adjust(logits, COUNTS))
    np.testing.assert_allclose(decided, posterior(likelihood, np.full(3, 1 / 3)), rtol=1e-6)


@pytest.mark.parametrize("name", ["learning_to_reweight", "vs", "cdt", "ldam", "tau_norm", "ncm"])
def test_what_leaves_no_known_prior_is_not_corrected(name):
    with pytest.raises(ValueError, match="leaves no prior that is known; leave one out"):
        methods.get(name).replace(adjustment=Rule("logit"))


MANY = class_counts(np.repeat([[1, 0, 0], [1, 1, 0], [0, 0, 1]], [90, 15, 4], axis=0))
ODDS = np.log([105 / 4, 15 / 94, 4 / 105])


@pytest.mark.parametrize("tau", [0.5, 1.0])
@pytest.mark.parametrize("offset", [None, Rule("log_prior"), Rule("log_prior", tau=0.5)])
@pytest.mark.parametrize(
    ("weight", "weighting"), [("none", "sample"), ("inverse", "positive"), ("inverse", "class")]
)
def test_no_method_of_many_labels_corrects_twice(tau, offset, weight, weighting):
    method = Method(
        loss="sigmoid",
        weight=Rule(weight),
        weighting=weighting,
        offset=offset,
        adjustment=Rule("logit", tau=tau),
    )
    saw = ODDS - ODDS if weighting == "positive" else ODDS  # (N - n) / n is what the inverse weighs
    if offset is not None:
        saw = saw - dict(offset.settings).get("tau", 1.0) * ODDS
    np.testing.assert_allclose(method.adjust(np.zeros((1, 3)), MANY)[0], -tau * saw, atol=1e-12)


@pytest.mark.parametrize("tau", [0.5, 1.0])
@pytest.mark.parametrize("name", ["logit_adjusted", "logit_adjusted:tau=0.5", "complementary"])
def test_outputs_that_are_a_yes_or_no_each_are_offset_by_their_odds(rng, tau, name):
    """A sample that says nothing is decided by no prior, and an adjustment takes what is left of it."""
    method = methods.get(name, loss="sigmoid")
    seen = COUNTS * (np.asarray(class_weights(COUNTS, "effective")) if name == "complementary" else 1)
    odds = np.log(seen / (seen.sum() - seen))
    paid = 0.5 if "0.5" in name else 1.0
    np.testing.assert_allclose(method.criterion(COUNTS).offset, paid * odds, rtol=1e-6)
    evidence = rng.normal(size=(4, 3))
    adjusted = method.replace(adjustment=Rule("logit", tau=tau)).adjust(evidence + (1 - paid) * odds, COUNTS)
    left = (1 - paid) * (1 - tau) * odds
    np.testing.assert_allclose(adjusted, evidence + left - np.log(2), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(method.prior(COUNTS).sum(), 1)
    two = methods.get(name, loss="sigmoid").criterion([90, 10]).offset
    np.testing.assert_allclose(two, methods.get(name).criterion([90, 10]).offset)  # its difference counts


def test_samples_that_weigh_by_their_labels_are_not_corrected():
    method = Method(loss="sigmoid", weight=Rule("effective"), adjustment=Rule("logit"))
    with pytest.raises(ValueError, match="set weighting='positive' or 'class', or leave adjustment out"):
        method.adjust(np.zeros((1, 3)), MANY)


@pytest.mark.parametrize(("activation", "loss"), [("softmax", "softmax"), ("sigmoid", "sigmoid")])
@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_smoothing_that_outweighs_an_adjustment_is_refused(activation, loss, tau):
    """Of a sample that is of the largest class for certain, the smoothed optimum is adjusted."""
    method = methods.get("posthoc_logit_adjusted", loss=loss, tau=tau)

    def decided(epsilon):
        target = np.full(3, epsilon / 3) + (1 - epsilon) * np.eye(3)[0]
        z = np.log(target) if loss == "softmax" else np.log(target / (1 - target))
        return method.adjust(z[None], COUNTS)[0].argmax()

    low, high = 0.0001, 0.9
    while high - low > 1e-7:  # where the largest class is lost
        middle = (low + high) / 2
        low, high = (middle, high) if decided(middle) == 0 else (low, middle)
    method.replace(label_smoothing=low * 0.999).criterion(COUNTS)
    too_much = method.replace(label_smoothing=high * 1.001)
    with pytest.raises(ValueError, match=r"must be below 0\.\d+ beside .* smooth less, or not, or smooth_to"):
        too_much.criterion(COUNTS)
    assert too_much.replace(smooth_to="prior").criterion(COUNTS).smooth_to == "prior"


@pytest.mark.parametrize(
    ("method", "shares"),
    [
        (Method(), COUNTS / 1000),
        (methods.get("mixup"), COUNTS / 1000),
        (methods.get("inverse_sqrt"), COUNTS**0.5 / (COUNTS**0.5).sum()),
        (methods.get("logit_adjusted", tau=0.5), COUNTS**0.5 / (COUNTS**0.5).sum()),
        (methods.get("posthoc_logit_adjusted", tau=0.5), COUNTS**0.5 / (COUNTS**0.5).sum()),
        (methods.get("class_aware"), np.full(3, 1 / 3)),
        (methods.get("crt"), np.full(3, 1 / 3)),
        (methods.get("ldam"), None),
        (methods.get("ncm"), None),
        (methods.get("tuned_adjustment"), None),
    ],
)
def test_what_the_logits_answer_for(method, shares):
    found = method.answered(COUNTS)
    if shares is None:
        assert found is None
    else:
        np.testing.assert_allclose(found, shares, rtol=1e-12)


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 1, 4, 5), (6, 1, 7), (6, 7, 1)])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_one_logit_of_any_layout(rng, shape, kind):
    """0 and z as two columns."""
    z = rng.normal(size=shape)
    two = np.stack([0 * z, z], axis=-1)
    moved = np.diff(adjust_logits(two, [900, 100], tau=0.7), axis=-1)[..., 0]
    np.testing.assert_allclose(np.asarray(adjust_logits(kind(z), [900, 100], tau=0.7)), moved, rtol=1e-12)
    shares = softmax(two)
    got = adjust_probabilities(kind(shares[..., 1]), [900, 100], weight=[0.5, 2.0])
    assert got.shape == shape
    want = adjust_probabilities(shares.reshape(-1, 2), [900, 100], weight=[0.5, 2.0])[:, 1]
    np.testing.assert_allclose(np.asarray(got).ravel(), want, rtol=1e-12)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize("dtype", [np.int64, bool, np.float32])
def test_tuning_takes_the_labels_of_one_output(rng, shape, dtype):
    logits, labels, counts = held_out(rng, counts=(200, 40))
    wanted = tune_adjustment(logits, labels, counts)
    margin = logits[:, 1] - logits[:, 0]
    found = tune_adjustment(margin.reshape(shape), labels.astype(dtype).reshape(shape), counts)
    assert found.tau == wanted.tau
    assert found.error == pytest.approx(wanted.error, abs=1e-12)


def test_a_schedule_that_never_acts_leaves_the_plain_prior():
    never = Method(weight=Rule("inverse"), schedule=Rule("deferred", start=1.0))
    np.testing.assert_allclose(never.prior(COUNTS), COUNTS / 1000)
    np.testing.assert_allclose(Method(weight=Rule("inverse")).prior(COUNTS), 1 / 3)


# ---- the choice of tau


def held_out(rng, counts=(400, 100, 40), pull=2.0, prior=True):
    labels = np.repeat(np.arange(len(counts)), counts)
    logits = rng.normal(size=(len(labels), len(counts))) + pull * np.eye(len(counts))[labels]
    return logits + (np.log(np.array(counts) / sum(counts)) if prior else 0), labels, np.array(counts)


def test_tuning_finds_the_prior_where_it_is_and_leaves_it_where_it_is_not(rng):
    logits, labels, counts = held_out(rng)
    found = tune_adjustment(logits, labels, counts)
    assert 0.4 <= found.tau <= 1.2
    assert found.distinguishable
    assert found.difference < -3 * found.standard_error
    assert found.verdict.startswith("Balanced error")
    logits, labels, counts = held_out(rng, prior=False)
    found = tune_adjustment(logits, labels, counts)
    assert found.tau <= 0.4
    assert not found.distinguishable or found.tau == 0
    assert "Not distinguishable from doing nothing" in found.verdict


def test_the_smallest_tau_within_one_standard_error(rng):
    logits, labels, counts = held_out(rng)
    found = tune_adjustment(logits, labels, counts)
    lowest = min(error for _, _, error, _ in found.errors)
    near = [tau for _, tau, error, doubt in found.errors if error <= lowest + doubt]
    assert found.tau == min(near)
    for _, tau, error, _ in found.errors:
        wrong = adjust_logits(logits, counts, tau=tau).argmax(1) != labels
        assert error == pytest.approx(np.mean([wrong[labels == c].mean() for c in range(3)]), abs=1e-12)


def test_the_standard_error_is_that_of_a_bootstrap(rng):
    logits, labels, counts = held_out(rng, (300, 60, 30))
    found = tune_adjustment(logits, labels, counts, taus=[1.0])
    plain = logits.argmax(1) != labels
    adjusted = adjust_logits(logits, counts).argmax(1) != labels
    difference = adjusted.astype(float) - plain
    draws = [
        np.mean([rng.choice(difference[labels == c], (labels == c).sum()).mean() for c in range(3)])
        for _ in range(4000)
    ]
    assert found.standard_error == pytest.approx(np.std(draws), rel=0.05)


def test_the_error_over_samples_may_decide(rng):
    logits, labels, counts = held_out(rng, (900, 60, 6))
    found = tune_adjustment(logits, labels, counts, metric="error")
    wrong = {tau: adjust_logits(logits, counts, tau=tau).argmax(1) != labels for _, tau, _, _ in found.errors}
    assert {tau: error for _, tau, error, _ in found.errors} == pytest.approx(
        {tau: w.mean() for tau, w in wrong.items()}, abs=1e-12
    )
    assert (
        found.tau < tune_adjustment(logits, labels, counts).tau
    )  # what few classes gain costs the large one
    assert found.thin == ()
    one = tune_adjustment(logits, labels, counts, taus=[1.0], metric="error")
    difference = wrong[1.0].astype(float) - wrong[0.0]
    assert one.standard_error == pytest.approx(difference.std(ddof=1) / math.sqrt(len(labels)), rel=1e-12)
    assert one.verdict.startswith("Error ")
    assert tune_adjustment(logits[:-4], labels[:-4], counts, metric="error").thin == (2,)
    with pytest.raises(ValueError, match="metric must be one of 'balanced_error', 'error', got 'f1'"):
        tune_adjustment(logits, labels, counts, metric="f1")


def test_copies_in_a_group_prove_nothing_more(rng):
    logits, labels, counts = held_out(rng, (60, 30, 15))
    once = tune_adjustment(logits, labels, counts)
    four = [np.repeat(x, 4, axis=0) for x in (logits, labels, np.arange(len(labels)))]
    grouped = tune_adjustment(four[0], four[1], counts, groups=four[2])
    assert (grouped.tau, grouped.error) == (once.tau, once.error)
    assert grouped.standard_error == pytest.approx(once.standard_error, rel=1e-12)
    assert grouped.standard_error > 0
    one, copied = (
        tune_adjustment(*data, counts, taus=[1.0]).standard_error for data in ((logits, labels), four[:2])
    )
    assert copied == pytest.approx(one / 2, rel=0.05)


def test_the_training_is_chosen_too(rng):
    logits, labels, counts = held_out(rng)
    weight = np.asarray(class_weights(counts, "inverse"))
    good = logits + np.log(weight)  # what weights make of the same logits
    bad = rng.normal(size=logits.shape)
    found = tune_adjustment(
        {"plain": logits, "noise": bad, "inverse": good}, labels, counts, weight={"inverse": weight}
    )
    assert found.training in ("plain", "inverse")
    assert {name for name, *_ in found.errors} == {"plain", "noise", "inverse"}
    ours = {(n, t): e for n, t, e, _ in found.errors}
    assert ours["plain", 1.0] == ours["inverse", 1.0]  # the same decisions, whatever the weights were
    assert ours["plain", 0.0] > ours["inverse", 0.0]


def test_thin_classes_are_named_and_empty_ones_left_out(rng):
    logits, labels, _ = held_out(rng, (50, 20, 3, 4))
    keep = labels != 3
    found = tune_adjustment(logits[keep], labels[keep], [50, 20, 3, 4])
    assert found.thin == (2, 3)
    assert "fewer than 5 held-out samples in 2 classes: 2, 3" in found.verdict
    assert math.isfinite(found.error)


def test_one_logit_is_tuned_as_two(rng):
    logits, labels, counts = held_out(rng, (200, 30))
    one = tune_adjustment(logits[:, 1] - logits[:, 0], labels, counts)
    assert one == tune_adjustment(logits, labels, counts)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": [0, 1, 5]}, ValueError, r"labels must be in 0..2, one a count, got 0 to 5"),
        ({"labels": [0, 1]}, ValueError, "logits have 3 rows and labels 2"),
        (
            {"labels": ["a", "b", "c"]},
            TypeError,
            "labels are names such as 'a', but counts names no class; give",
        ),
        ({"labels": [0.5, 1.0, 2.0]}, TypeError, "labels must be class indices"),
        (
            {"labels": ["a", "b", "x"], "counts": dict(zip("abc", COUNTS, strict=True))},
            ValueError,
            "labels have 'x', which counts does not name; it names 'a', 'b', 'c'",
        ),
        ({"labels": []}, ValueError, "at least one held-out sample"),
        ({"taus": []}, ValueError, "taus must name at least one value"),
        (
            {"logits": np.zeros((3, 3, 3))},
            ValueError,
            r"shape \(N, 3\), got \(3, 3, 3\); give one row a label",
        ),
        ({"taus": 1.0}, TypeError, "taus must be numbers to choose from, got float 1.0; give"),
        ({"labels": np.eye(3)}, TypeError, "class indices of shape .* give integers from 0 on, or names"),
        ({"taus": [-1]}, ValueError, "taus must be in"),
        ({"groups": [1]}, ValueError, "groups must be one a sample, 3, got 1"),
        ({"logits": {}}, ValueError, "logits must name at least one training"),
    ],
)
def test_bad_tuning_is_refused(change, error, message):
    given = {"logits": np.eye(3), "labels": np.arange(3), "counts": COUNTS, **change}
    if isinstance(given["labels"], list):
        given["labels"] = np.array(given["labels"], dtype=None if given["labels"] else int)
    with pytest.raises(error, match=message):
        tune_adjustment(**given)


@pytest.mark.parametrize(
    "kind", [np.asarray, list, lambda x: x.astype(object), pd.Series, lambda x: x[:, None]]
)
def test_tuning_takes_labels_by_the_names_of_the_counts(rng, kind):
    logits, labels, counts = held_out(rng, (120, 30, 10))
    names = np.array(["owl", "fox", "yak"])  # a mapping is in the order of the outputs
    mapping = dict(zip(names.tolist(), counts.tolist(), strict=True))
    assert tune_adjustment(logits, kind(names[labels]), mapping) == tune_adjustment(logits, labels, counts)
    two, truth, sizes = held_out(rng, (60, 20))
    told = class_counts(np.repeat(["no", "yes"], sizes).tolist())
    assert tune_adjustment(two, np.array(["no", "yes"])[truth], told) == tune_adjustment(two, truth, sizes)


def test_labels_of_every_order_give_the_same(rng):
    logits, labels, counts = held_out(rng, (30, 20, 10))
    first = tune_adjustment(logits, labels, counts)
    for order in itertools.islice(itertools.permutations(range(3)), 2, 5):
        shuffle = rng.permutation(len(labels))
        place = np.argsort(order)
        moved = tune_adjustment(logits[shuffle][:, list(order)], place[labels[shuffle]], counts[list(order)])
        assert moved.tau == first.tau
        assert moved.error == pytest.approx(first.error, rel=1e-12)


# ---- in the model itself


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("target", ["uniform", "training"])
def test_a_bias_holds_the_adjustment(bias, target):
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3, bias=bias))
    inputs, weight = torch.randn(20, 5), class_weights(COUNTS, "inverse")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ours = longtail.with_prior(model, COUNTS, target=target, weight=weight)
    with torch.no_grad():
        wanted = adjust_logits(model(inputs), COUNTS, target=target, weight=weight)
        assert (ours(inputs) - wanted).abs().max() <= 1e-6
        exported = torch.export.export(ours, (inputs,)).module()
        assert (exported(inputs) - wanted).abs().max() <= 1e-6
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_cosine_head_takes_the_adjustment():
    head, inputs = CosineLinear(5, 3, 30.0), torch.randn(20, 5)
    with torch.no_grad():
        wanted = adjust_logits(head(inputs), COUNTS)
        assert (longtail.with_prior(head, COUNTS)(inputs) - wanted).abs().max() <= 1e-5


def test_a_bias_of_one_output():
    layer, inputs = torch.nn.Linear(4, 1), torch.randn(9, 4)
    with torch.no_grad():
        wanted = adjust_logits(layer(inputs), [900, 100])
        for activation in ("softmax", "sigmoid"):
            ours = longtail.with_prior(layer, [900, 100], activation=activation)
            assert (ours(inputs) - wanted).abs().max() <= 1e-6


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("resnet50", TypeError, "model must be a torch.nn.Module"),
        (torch.nn.ReLU(), ValueError, "model has no Linear or Conv layer"),
        (torch.nn.Linear(2, 4), ValueError, "last layer has 4 outputs, but counts are 3"),
    ],
)
def test_models_without_a_fitting_head_are_refused(model, error, message):
    with pytest.raises(error, match=message):
        longtail.with_prior(model, COUNTS)


def test_frames_with_the_classes_in_another_order_are_refused(rng):
    pandas = pytest.importorskip("pandas")
    counts = longtail.class_counts(["a"] * 30 + ["b"] * 6 + ["c"] * 4)
    labels = np.repeat([0, 1, 2], [30, 6, 4])
    frame = pandas.DataFrame(rng.dirichlet([1, 1, 1], 40), columns=["b", "a", "c"])
    ordered, logits = frame[["a", "b", "c"]], np.log(frame)
    for call in (
        lambda: longtail.adjust_probabilities(frame, counts),
        lambda: longtail.adjust_logits(logits, counts),
        lambda: longtail.tune_adjustment(logits, labels, counts),
        lambda: longtail.evaluate(frame, labels, counts),
        lambda: longtail.evaluate(ordered, pandas.DataFrame(np.eye(3)[labels], columns=[*"bac"]), counts),
        lambda: longtail.estimate_prior(frame, counts),
        lambda: longtail.estimate_prior(ordered, counts, held_out_logits=frame, held_out_labels=labels),
        lambda: longtail.prediction_sets(frame, labels, ordered, counts=counts),
        lambda: longtail.prediction_sets(ordered, labels, frame, method="marginal"),
        lambda: longtail.evaluation.check_probabilities(logits, labels, counts),
    ):
        with pytest.raises(
            ValueError, match=r"columns of \w+ are .*, and the classes are 'a', 'b', 'c', in this"
        ):
            call()
    same = longtail.adjust_probabilities(ordered.to_numpy(), counts)
    np.testing.assert_array_equal(longtail.adjust_probabilities(ordered, counts), same)
    positions = ordered.set_axis(["p0", "p1", "p2"], axis=1)  # names that are no classes: by position
    np.testing.assert_array_equal(longtail.adjust_probabilities(positions, counts), same)


def test_rows_in_another_order_and_samples_without_a_group_are_refused(rng):
    pandas = pytest.importorskip("pandas")
    rows = [f"row {i}" for i in range(40)]
    counts, labels = [30, 10], pandas.Series(np.repeat([0, 1], [30, 10]), rows)
    logits = pandas.DataFrame(rng.normal(size=(40, 2)), rows)
    turned = labels.sample(frac=1, random_state=0)
    for call in (
        lambda: longtail.tune_adjustment(logits, turned, counts),
        lambda: longtail.evaluate(logits, turned, counts),
        lambda: longtail.evaluate(logits, labels, counts, groups=turned),
        lambda: longtail.estimate_prior(logits, counts, held_out_logits=logits, held_out_labels=turned),
        lambda: longtail.evaluation.check_probabilities(logits, turned, counts),
    ):
        with pytest.raises(ValueError, match="have the same rows in another order, as their indexes say"):
            call()
    assert longtail.evaluate(logits, turned.reset_index(drop=True), counts).num_samples == 40
    groups = [float("nan")] * 10 + [*range(30)]
    for call in (longtail.tune_adjustment, longtail.evaluate):
        with pytest.raises(ValueError, match=r"groups are missing .* for 10 of 40 samples"):
            call(logits, labels, counts, groups=groups)


@pytest.mark.parametrize("turned", range(1, 12))
def test_rows_in_another_order_are_refused_wherever_they_stand_side_by_side(turned, rng):
    pandas = pytest.importorskip("pandas")
    rows = [f"row {i}" for i in range(60)]

    def series(values, place):
        return pandas.Series(values, rows)[::-1] if place == turned else pandas.Series(values, rows)

    y, together = np.arange(60) % 2, np.arange(60) // 2
    many = pandas.DataFrame(np.stack([y, 1 - y], axis=1), rows)
    scores = pandas.DataFrame(rng.normal(size=(60, 2)), rows)
    tested = scores, series(y, 1)
    options = {"held_out_labels": series(y, 4), "held_out_groups": series(together, 5), "resamples": 0}
    calls = (
        lambda: longtail.Problem.from_features(
            scores.to_numpy(), y, test=tested, test_groups=series(together, 2)
        ),
        lambda: longtail.estimate_prior(
            scores, [30, 30], groups=series(together, 3), held_out_logits=scores, **options
        ),
        lambda: longtail.evaluation.tune_thresholds(
            scores, many[::-1] if turned == 6 else many, groups=series(together, 7)
        ),
        lambda: longtail.evaluation.class_curves(scores, series(y, 8)),
        lambda: longtail.evaluation.paired_on_test(
            series(y, 0), series(1 - y, 9), series(y, 10), groups=series(together, 11)
        ),
    )
    said = []
    for call in calls:
        try:
            call()
        except ValueError as error:
            said.append(str(error))
    (told,) = said
    assert "have the same rows in another order, as their indexes say" in told


def test_indexes_that_do_not_name_the_same_rows_pair_by_position(rng):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"y": np.repeat([0, 1], [30, 10])}).sample(frac=1, random_state=0)
    assert sorted(table.index) == list(range(40)) != list(table.index)
    scores, counts = rng.normal(size=(40, 2)), [30, 10]
    right = longtail.evaluate(scores, table.y.to_numpy(), counts)
    assert longtail.evaluate(pandas.DataFrame(scores), table.y, counts) == right
    table["g"] = np.arange(40) // 2
    longtail.evaluate(scores, table.y, counts, groups=pandas.Series(table.g.to_numpy()))
    longtail.evaluate(scores, table.y.reset_index(drop=True), counts, groups=table.g)
    with pytest.raises(ValueError, match="targets and groups have the same rows in another order"):
        longtail.evaluate(
            pandas.DataFrame(scores), table.y, counts, groups=table.g[::-1]
        )  # behind the default
    twice = pandas.Index(np.repeat(np.arange(20), 2))  # says of no row which it is
    again = pandas.DataFrame(scores, twice)
    assert longtail.evaluate(again, pandas.Series(table.y.to_numpy(), twice[::-1]), counts) == right
    other = pandas.Series(table.y.to_numpy(), np.arange(40) * 2)
    assert longtail.evaluate(pandas.DataFrame(scores, table.index), other, counts) == right
    with pytest.raises(ValueError, match=r"\.to_numpy\(\) if .*\.loc.*, only if the indexes name"):
        longtail.evaluate(pandas.DataFrame(scores, table.index), table.y.sort_index(), counts)


def test_columns_in_another_order_are_told_as_they_are_written(rng):
    pandas = pytest.importorskip("pandas")
    for size, order, counts in (
        (3, [2, 0, 1], [5, 4, 3]),
        (12, list(range(12))[::-1], list(range(12, 0, -1))),
        (12, [*"lkjihgfedcba"], dict(zip("abcdefghijkl", range(12, 0, -1), strict=True))),
        (12, [str(i) for i in range(12)][::-1], list(range(12, 0, -1))),
        (12, [*"lkjihgfedcba"], pandas.Series(range(12, 0, -1), [*"abcdefghijkl"])),
    ):
        logits = pandas.DataFrame(rng.normal(size=(6, size)), columns=order)
        with pytest.raises(ValueError, match="in this order; give logits") as told:
            longtail.adjust_logits(logits, counts)
        remedy = eval(str(told.value).split("; give ")[1], {"logits": logits, "counts": counts})
        assert list(remedy.columns) == sorted(order, key=lambda name: (len(str(name)), name))
        longtail.adjust_logits(remedy, counts)  # is taken
    names = [*"lkbihgfedcaj"]
    held = pandas.DataFrame(rng.dirichlet(np.ones(12), 40), columns=names)
    with pytest.raises(ValueError, match=r"give scores\[list\(held_out_scores\.columns\)\]"):
        longtail.prediction_sets(held, np.arange(40) % 12, held[names[::-1]])


def test_text_of_numbers_is_told_where_scikit_learn_orders_it_otherwise(recwarn):
    labels = [str(i) for i in range(1, 11)]
    shares = np.full((1, 10), 0.1)
    with pytest.warns(
        UserWarning, match="order of numbers, .* count by class_counts.y, order=model.classes_"
    ):
        longtail.adjust_probabilities(shares, longtail.class_counts(labels))
    for counts in (
        longtail.class_counts(labels, order=sorted(labels)),
        longtail.class_counts(range(10)),
        [5] * 10,
    ):
        longtail.adjust_probabilities(shares, counts)
    assert not recwarn
