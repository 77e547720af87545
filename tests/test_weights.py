"""Class weights, sample weights and class_weight: exact, finite for any counts, in kind."""

import copy
import inspect
import math
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

import oracles
from longtail import (
    ClassCounts,
    ClassWeights,
    class_counts,
    class_weight_dict,
    class_weights,
    effective_number,
    sample_weights,
)
from longtail.weights import SCHEMES

NORMALIZE = ("classes", "samples", None)
SETS = {
    "cifar10_if50": [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100],
    "two": [4, 1],
    "with_empty": [0, 12, 0, 900_000, 3],
    "huge": [10**12, 10**6, 1],
    "reals": [0.5, 2.25, 1e-6, 1234.5678],
    "one": [7],
    "equal": [30, 30, 30],
}

# classes of 0, of 1 to 1e300 samples, whole or not
any_counts = st.lists(
    st.one_of(st.just(0.0), st.floats(1, 1e300), st.integers(1, 10**12).map(float)), min_size=1, max_size=12
).filter(any)
any_beta = st.one_of(st.sampled_from([0.0, 0.9, 0.999, 0.9999, 1 - 2**-53, 1.0]), st.floats(0, 1))
options = st.fixed_dictionaries(
    {"scheme": st.sampled_from(SCHEMES), "beta": any_beta, "normalize": st.sampled_from(NORMALIZE)}
)


def quietly(counts, **kwargs):
    """The weights, whether or not this beta does anything for these counts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does nothing for counts", category=UserWarning)
        return class_weights(counts, **kwargs)


# ---- exact


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("counts", SETS.values(), ids=SETS)
def test_relative_error_is_at_most_1e_14(counts, scheme, normalize, kind):
    array = np.array(counts) if kind == "numpy" else torch.tensor(counts, dtype=torch.float64)
    for parameter in (
        {"beta": 0},
        {"beta": 0.9},
        {"beta": 0.9999},
        {"beta": 1},
        {"volume": 1e4},
        {"volume": 1e18},
    ):
        got = quietly(array, scheme=scheme, normalize=normalize, **parameter)
        want = oracles.class_weights(counts, scheme, normalize=normalize, **parameter)
        assert oracles.relative_error(got, want) <= 1e-14


def test_agrees_with_the_line_that_everyone_copies():
    counts = SETS["cifar10_if50"]
    for beta in (0.9, 0.99, 0.999, 0.9999):
        np.testing.assert_allclose(
            quietly(counts, beta=beta), oracles.naive_class_weights(counts, beta), rtol=1e-11
        )


def test_the_default_is_the_papers_rule():
    counts = SETS["cifar10_if50"]
    np.testing.assert_array_equal(
        class_weights(counts),
        class_weights(counts, "effective", beta=0.999, normalize="classes", empty="zero"),
    )
    assert class_weights(counts).sum() == pytest.approx(10, rel=1e-15)
    np.testing.assert_array_equal(class_weights(counts, beta=None), class_weights(counts))


def test_limits_are_the_other_schemes():
    counts = SETS["with_empty"]
    for normalize in NORMALIZE:
        rest = {"normalize": normalize}
        inverse, none = class_weights(counts, "inverse", **rest), class_weights(counts, "none", **rest)
        np.testing.assert_array_equal(class_weights(counts, beta=1, **rest), inverse)
        np.testing.assert_array_equal(class_weights(counts, volume=math.inf, **rest), inverse)
        np.testing.assert_array_equal(class_weights(counts, beta=0, **rest), none)
        np.testing.assert_array_equal(class_weights(counts, volume=1, **rest), none)
        assert none.tolist() == [0, 1, 0, 1, 1]
        assert inverse[[0, 2]].tolist() == [0, 0]


def test_raw_weights_are_one_over_the_effective_number():
    counts = [1, 10, 100]
    np.testing.assert_array_equal(
        class_weights(counts, volume=50, normalize=None), 1 / effective_number(counts, volume=50)
    )
    assert class_weights([4, 16], "inverse_sqrt", normalize=None).tolist() == [0.5, 0.25]


def test_huge_volumes_keep_their_precision():
    """PEERS.md, defect 7: float32 counts give NaN at beta = 0.99999999; no float64 beta is N = 1e18."""
    counts = [10**12, 10**6, 1000]
    for parameter in ({"beta": 0.99999999}, {"volume": 1e18}):
        want = oracles.class_weights(counts, "effective", **parameter)
        got = class_weights(torch.tensor(counts).to(torch.int64), **parameter)
        assert oracles.relative_error(got, want) <= 1e-14


def test_an_empty_class_weighs_zero_and_takes_no_part():
    """PEERS.md, defect 5: a class without samples gives NaN elsewhere."""
    for scheme in SCHEMES:
        with_empty = class_weights([0, 90, 0, 10], scheme)
        assert with_empty[[0, 2]].tolist() == [0, 0]
        np.testing.assert_array_equal(with_empty[[1, 3]], class_weights([90, 10], scheme))
        assert with_empty.sum() == pytest.approx(2, rel=1e-15)


# ---- properties


@given(any_counts, options)
def test_finite_and_not_negative_for_any_counts(counts, kwargs):
    weights = quietly(counts, **kwargs)
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    assert ((weights > 0) >= (np.array(counts) > 0)).all() or max(counts) > 1e290


@given(any_counts, options)
def test_normalisations(counts, kwargs):
    n = np.array(counts)
    total = quietly(counts, **{**kwargs, "normalize": "classes"}).sum()
    assert total == pytest.approx((n > 0).sum(), rel=1e-13)
    share = n / n.max()
    mean = (share * quietly(counts, **{**kwargs, "normalize": "samples"})).sum() / share.sum()
    assert mean == pytest.approx(1, rel=1e-13)


@given(any_counts, options, st.randoms(use_true_random=False))
def test_permuting_the_classes_permutes_the_weights(counts, kwargs, random):
    order = list(range(len(counts)))
    random.shuffle(order)
    weights = quietly(counts, **kwargs)
    permuted = quietly([counts[i] for i in order], **kwargs)
    np.testing.assert_allclose(permuted, weights[order], rtol=1e-14)


@given(any_counts, options)
def test_a_rarer_class_never_weighs_less(counts, kwargs):
    n = np.array(counts)
    weights = quietly(counts, **kwargs)[n > 0]
    ordered = weights[np.argsort(n[n > 0], kind="stable")]
    assert (ordered[1:] <= ordered[:-1] * (1 + 1e-14)).all()


@given(
    st.lists(st.floats(1, 1e12), min_size=1, max_size=9),
    st.floats(1, 1e6),
    st.sampled_from(["classes", "samples"]),
)
def test_scaling_the_counts_changes_nothing_without_a_beta(counts, factor, normalize):
    for scheme in ("inverse", "inverse_sqrt", "none"):
        np.testing.assert_allclose(
            class_weights(np.array(counts) * factor, scheme, normalize=normalize),
            class_weights(counts, scheme, normalize=normalize),
            rtol=1e-13,
        )
    np.testing.assert_allclose(
        class_weights(np.array(counts) * factor, beta=1, normalize=normalize),
        class_weights(counts, beta=1, normalize=normalize),
        rtol=1e-13,
    )


@given(any_counts.filter(lambda c: max(c) < 1e15), options)
def test_torch_and_numpy_agree(counts, kwargs):
    got = quietly(torch.tensor(counts, dtype=torch.float64), **kwargs)
    np.testing.assert_allclose(got.numpy(), quietly(np.array(counts), **kwargs), rtol=1e-14)


# ---- every kind answered in kind


@pytest.mark.parametrize(
    "dtype", [torch.int32, torch.int64, torch.uint8, torch.float16, torch.float32, torch.float64]
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_torch(dtype, scheme):
    counts = torch.tensor([90, 10, 0], dtype=dtype)
    weights = class_weights(counts, scheme)
    assert isinstance(weights, torch.Tensor)
    assert weights.dtype == torch.float64
    assert weights.device == counts.device
    np.testing.assert_allclose(weights.numpy(), class_weights([90, 10, 0], scheme), rtol=1e-15)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_torch_on_a_gpu_stays_there():
    counts = torch.tensor([90, 10, 0], device="cuda")
    for scheme in SCHEMES:
        weights = class_weights(counts, scheme, beta=[0.9, 0.99, 0.999])
        assert weights.device == counts.device
        np.testing.assert_allclose(
            weights.cpu().numpy(), class_weights([90, 10, 0], scheme, beta=[0.9, 0.99, 0.999]), rtol=1e-14
        )
    assert sample_weights(torch.tensor([0, 0, 1], device="cuda")).device == counts.device


def test_lists_arrays_and_mappings():
    want = class_weights(np.array([90, 10]))
    assert isinstance(want, np.ndarray)
    assert want.dtype == np.float64
    for counts in (
        [90, 10],
        (90, 10),
        np.array([90.0, 10.0], dtype=np.float32),
        np.array([90, 10], dtype=np.uint8),
    ):
        np.testing.assert_array_equal(class_weights(counts), want)
    answer = class_weights({"cat": 90, "lynx": 10})
    assert type(answer) is dict
    assert answer == dict(zip(["cat", "lynx"], want.tolist(), strict=True))
    assert all(type(w) is float for w in answer.values())
    series = class_weights(pd.Series([90, 10], index=["cat", "lynx"], name="n"))
    pd.testing.assert_series_equal(series, pd.Series(want, index=["cat", "lynx"], name="n"))
    named = class_weights(ClassCounts(["cat", "lynx"], [90, 10]))
    assert isinstance(named, ClassWeights)
    assert named.names == ("cat", "lynx")
    np.testing.assert_array_equal(named.weights, want)
    np.testing.assert_array_equal(np.asarray(named), want)
    assert named["lynx"] == want[1]


def test_a_value_counts_series():
    labels = pd.Series(["cat"] * 9 + ["lynx"])
    weights = class_weights(labels.value_counts(), "inverse", normalize="samples")
    assert weights.to_dict() == pytest.approx({"cat": 10 / 18, "lynx": 5.0})


DEFAULT = inspect.signature(class_weights).parameters["beta"].default


class Weighs(BaseEstimator):
    """An estimator that passes its own defaults on to `class_weights`."""

    def __init__(self, beta=DEFAULT, volume=None):
        self.beta, self.volume = beta, volume


def through_joblib_and_back(value):
    return pickle.loads(pickle.dumps(value, protocol=2))


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, through_joblib_and_back, clone], ids=lambda f: f.__name__
)
def test_a_copied_default_beta_gives_way_to_a_volume(copied):
    estimator = copied(Weighs(volume=50))
    got = class_weights([90, 9], beta=estimator.beta, volume=estimator.volume)
    np.testing.assert_array_equal(got, class_weights([90, 9], volume=50))
    plain = copied(Weighs()).beta
    assert repr(plain) == "0.999"
    np.testing.assert_array_equal(class_weights([90, 9], beta=plain), class_weights([90, 9], beta=0.999))
    with pytest.raises(ValueError, match=r"beta=0\.999 and volume=50 are both given"):
        class_weights([90, 9], beta=0.999, volume=50)


@pytest.mark.skipif(not hasattr(np, "astype"), reason="NumPy speaks the array API itself from 2.1 on")
@pytest.mark.parametrize("counts", ["[900, 90, 10]", "numpy.array([900, 90, 10])", "{'a': 90, 'b': 9}"])
def test_weights_of_numpy_load_no_more_than_numpy(counts):
    script = (
        f"import sys, numpy, longtail; longtail.class_weights({counts}); longtail.effective_number(3, 0.5)\n"
        "unwanted = {'numpy.f2py', 'numpy.testing', 'array_api_compat'} & set(sys.modules)\n"
        "assert not unwanted, unwanted"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_one_beta_or_volume_per_class():
    counts, volumes = [5000, 500, 50], [1e5, 1e3, 1e2]
    raw = [1 / oracles.effective_number(n, volume=v) for n, v in zip(counts, volumes, strict=True)]
    want = [w * 3 / sum(raw) for w in raw]
    for kind in (list, np.array, torch.tensor):
        assert oracles.relative_error(class_weights(counts, volume=kind(volumes)), want) <= 1e-14
        assert (
            oracles.relative_error(class_weights(torch.tensor(counts), volume=kind(volumes)), want) <= 1e-14
        )
    named = dict(zip("abc", counts, strict=True))
    by_name = {"c": 1e2, "a": 1e5, "b": 1e3, "unused": 7}
    for source in (named, pd.Series(named), ClassCounts("abc", counts)):
        for volume in (by_name, pd.Series(by_name), volumes):
            assert (
                oracles.relative_error(
                    list(class_weights(source, volume=volume).values())
                    if isinstance(source, (dict, ClassCounts))
                    else class_weights(source, volume=volume),
                    want,
                )
                <= 1e-14
            )
    labels = ["a"] * 3 + ["b"] * 2 + ["c"]
    assert class_weight_dict(labels, beta={"a": 0, "b": 0.5, "c": 1}, normalize=None) == {
        "a": 1,
        "b": 1 / 1.5,
        "c": 1,
    }
    assert sample_weights(labels, beta={"a": 0, "b": 0.5, "c": 1}, normalize=None)[3] == 1 / 1.5


def test_array_api_strict():
    xp = pytest.importorskip("array_api_strict")
    for scheme in SCHEMES:
        for normalize in NORMALIZE:
            weights = class_weights(xp.asarray([90, 10, 0]), scheme, normalize=normalize)
            assert weights.dtype == xp.float64
            want = class_weights([90, 10, 0], scheme, normalize=normalize)
            assert [float(w) for w in weights] == pytest.approx(want.tolist(), rel=1e-15)
    with pytest.raises(ValueError, match="counts are 0 for classes 2"):
        class_weights(xp.asarray([90, 10, 0]), empty="error")


def test_jax():
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        weights = class_weights(jax.numpy.asarray([90, 10, 0]))
        assert isinstance(weights, jax.Array)
        np.testing.assert_allclose(np.asarray(weights), class_weights([90, 10, 0]), rtol=1e-14)
        per_sample = sample_weights(jax.numpy.asarray([0, 0, 1]), "inverse")
        assert isinstance(per_sample, jax.Array)
        assert per_sample.tolist() == [0.75, 0.75, 1.5]


# ---- a beta that does nothing


@pytest.mark.parametrize(
    "parameter",
    [
        {"beta": 0.9999},
        {"volume": 1e4},
        {"beta": np.float64(0.9999)},
        {"volume": [1e4] * 3},
        {},
        {"beta": 0.5},
    ],
)
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda c: dict(zip("abc", c, strict=True))])
def test_a_useless_beta_says_so_and_names_a_volume_that_matters(parameter, kind):
    """PEERS.md, defect 8 (richardaecn/class-balanced-loss#17, #3)."""
    counts = [900_000, 700_000, 60_000]
    message = (
        r"does nothing for counts from 60000 to 900000: all effective numbers equal .* within 1 %. "
        r"A volume matters from about N = 60000 \(beta = 0\.99998\d+\) upwards; try volume=60000 to 900000"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        class_weights(kind(counts), **parameter)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    if "volume" in parameter and not isinstance(parameter["volume"], list):
        assert "volume=10000.0 does nothing" in str(caught[0].message)
    with pytest.warns(UserWarning, match=r"matters from about N = 1e\+11 upwards; try volume=1e\+11"):
        class_weights(kind([1e12, 1e12, 1e11]), **parameter)  # no beta: in ten digits it would be 1
    # the named volumes do matter, and pass in silence
    for volume in (60_000, 900_000):
        weights = class_weights(counts, volume=volume)
        assert weights.max() / weights.min() > 1.5


@given(st.lists(st.floats(1, 1e9), min_size=2, max_size=6), st.floats(1, 1e5))
def test_every_volume_that_the_warning_names_matters(counts, volume):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        class_weights(counts, volume=volume)
    if not caught:
        return
    named = float(str(caught[0].message).split("N = ")[1].split(" ")[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert class_weights(counts, volume=named).std() > 0


@pytest.mark.parametrize("off", [0, 0.0, np.float32(0), torch.tensor(0.0), [0, 0, 0]])
def test_beta_zero_is_a_choice_not_a_mistake(off):
    assert class_weights([900_000, 700_000, 60_000], beta=off).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("counts", "kwargs"),
    [
        ([900_000, 700_000, 60_000], {"volume": 1}),
        ([900_000, 700_000, 60_000], {"scheme": "inverse"}),
        ([900_000, 700_000, 60_000], {"scheme": "none"}),
        ([900_000, 700_000, 60_000], {"beta": 0.99999}),
        ([900_000, 700_000, 60_000], {"beta": 1}),
        ([900_000, 900_000, 0], {"beta": 0.9999}),
        ([10**6, 10**6 + 1], {"beta": 0.9999}),
        ([900_000], {"beta": 0.9999}),
        (SETS["cifar10_if50"], {}),
        (SETS["cifar10_if50"], {"beta": 0.99}),
        ([2, 1], {"beta": 0.1}),
    ],
)
def test_no_warning_where_there_is_nothing_to_warn_of(counts, kwargs):
    class_weights(counts, **kwargs)  # warnings are errors


# ---- bad input


@pytest.mark.parametrize(
    ("counts", "kwargs", "error", "message"),
    [
        (
            [1, -2],
            {},
            ValueError,
            r"counts must be finite and >= 0, got -2\.0 at position 1; give the number of training samples",
        ),
        ([1, math.nan], {}, ValueError, r"counts must be finite and >= 0, got nan at position 1; give"),
        ([1, math.inf], {}, ValueError, r"counts must be finite and >= 0, got inf at position 1; give"),
        (["1", "2"], {}, TypeError, r"counts must be numbers, got list \['1', '2'\]; convert them first"),
        ("12", {}, TypeError, r"counts must be numbers, got str '12'; convert them first"),
        (None, {}, TypeError, "counts must be numbers, got NoneType None; convert them first"),
        ([1, None], {}, TypeError, r"counts must be numbers, got list \[1, None\]; convert"),
        ({"a": "3"}, {}, TypeError, r"counts must be numbers, got list \['3'\]; convert"),
        ([[1, 2], [3, 4]], {}, ValueError, r"counts must be 1-D, one number a class, got shape \(2, 2\)"),
        (5, {}, ValueError, r"counts must be 1-D, one number a class, got shape \(\)"),
        (
            pd.DataFrame([[1, 2]]),
            {},
            ValueError,
            r"counts must be 1-D, one number a class, got shape \(1, 2\)",
        ),
        ([], {}, ValueError, "counts must name at least one class, got none"),
        ({}, {}, ValueError, "counts must name at least one class, got none"),
        (
            [0, 0],
            {},
            ValueError,
            "counts must have a class with samples, got 2 classes of 0; check the labels",
        ),
        (
            [1e-300, 1e300],
            {},
            ValueError,
            r"counts must lie within a factor of 1e\+300 .* got 1e-300 to 1e\+300; .* drop",
        ),
        ([5e-324, 1], {"normalize": None}, ValueError, "counts must lie within a factor of"),
        (
            [1, 2],
            {"beta": 1.5},
            ValueError,
            r"beta must be in \[0, 1\], got 1\.5; a volume N = .* goes to volume=",
        ),
        ([1, 2], {"beta": -1e-9}, ValueError, r"beta must be in \[0, 1\], got -1e-09; a volume"),
        ([1, 2], {"beta": math.nan}, ValueError, r"beta must be in \[0, 1\], got nan; a volume"),
        ([1, 2], {"beta": "high"}, TypeError, r"beta must be a number in \[0, 1\], got str 'high'; a volume"),
        ([1, 2], {"beta": 7, "scheme": "inverse"}, ValueError, r"beta must be in \[0, 1\], got 7"),
        (
            [1, 2],
            {"volume": 0.5},
            ValueError,
            r"volume must be in \[1, inf\], got 0\.5; a beta in \[0, 1\] goes to beta=",
        ),
        ([1, 2], {"volume": math.nan}, ValueError, r"volume must be in \[1, inf\], got nan; a beta"),
        (
            [1, 2],
            {"beta": 0.9, "volume": 5},
            ValueError,
            r"beta=0\.9 and volume=5 are both given; .* give one",
        ),
        (
            [1, 2],
            {"beta": 0.999, "volume": 5},
            ValueError,
            r"beta=0\.999 and volume=5 are both given; .* give one",
        ),
        (
            [1, 2],
            {"beta": np.full(40, 0.9), "volume": 5},  # one line, however long the array
            ValueError,
            r"beta=ndarray of shape \(40,\) and dtype float64 and volume=5 are both given; .* give one",
        ),
        (
            [1, 2],
            {"beta": [0.9]},
            ValueError,
            r"beta must be a scalar or have one value per class, shape \(2,\), got shape \(1,\)",
        ),
        (
            [1, 2],
            {"beta": torch.tensor([0.9])},
            ValueError,
            r"beta must be a scalar or have one value per class",
        ),
        (
            [1, 2],
            {"volume": [5, 0]},
            ValueError,
            r"volume must be in \[1, inf\], got 0\.0 at position 1; a beta",
        ),
        (
            [1, 2],
            {"beta": {"a": 0.9}},
            TypeError,
            "beta is a dict but the counts have no names; give beta as a list",
        ),
        (
            {"a": 1, "b": 2},
            {"beta": {"a": 0.9}},
            ValueError,
            "beta lacks a value for 'b'; name every class or give a scalar",
        ),
        (
            [1, 2],
            {"scheme": "effectve"},
            ValueError,
            "scheme must be one of .* got 'effectve'; did you mean 'effective'",
        ),
        ([1, 2], {"scheme": None}, ValueError, "scheme must be one of 'none', 'inverse', .* got None"),
        (
            [1, 2],
            {"normalize": "sample"},
            ValueError,
            "normalize must be one of .* got 'sample'; did you mean 'samples'",
        ),
        (
            [1, 2],
            {"normalize": 1},
            ValueError,
            "normalize must be one of 'classes', 'samples' or None, got 1",
        ),
        ([1, 2], {"empty": "drop"}, ValueError, "empty must be one of 'zero', 'one', 'error', got 'drop'"),
        (
            [0, 2, 0],
            {"empty": "error"},
            ValueError,
            "counts are 0 for classes 0, 2; drop them or pass empty='zero'",
        ),
        ({"cat": 0, "lynx": 2}, {"empty": "error"}, ValueError, "counts are 0 for classes 'cat'; drop them"),
        (torch.tensor([0, 2]), {"empty": "error"}, ValueError, "counts are 0 for classes 0; drop them"),
        (torch.tensor([1, -2]), {}, ValueError, r"counts must be finite and >= 0, got -2\.0 at position 1"),
        (
            torch.tensor([True]),
            {},
            TypeError,
            "counts must be numbers, got Tensor of shape .* torch.bool; convert",
        ),
    ],
)
def test_bad_input(counts, kwargs, error, message):
    with pytest.raises(error, match=message):
        class_weights(counts, **kwargs)


# ---- sample weights and class_weight


def labels_of(kind):
    generator = np.random.default_rng(7)
    y = generator.choice(4, size=300, p=[0.7, 0.2, 0.07, 0.03])
    return {
        "integers": y,
        "text": np.array(["w", "z", "x", "y"])[y],
        "floats": y.astype(float),
        "bool": y > 0,
    }[kind]


@pytest.mark.parametrize("kind", ["integers", "text", "floats", "bool"])
def test_inverse_is_scikit_learns_balanced(kind):
    y = labels_of(kind)
    want = compute_sample_weight("balanced", y)
    np.testing.assert_allclose(sample_weights(y, "inverse"), want, rtol=1e-14)
    np.testing.assert_allclose(sample_weights(y, beta=1), want, rtol=1e-14)
    assert sample_weights(y).mean() == pytest.approx(1, rel=1e-14)
    classes = np.unique(y)
    balanced = compute_class_weight("balanced", classes=classes, y=y)
    assert class_weight_dict(y, "inverse") == pytest.approx(
        dict(zip(classes.tolist(), balanced, strict=True))
    )


@pytest.mark.parametrize("kind", ["integers", "text", "floats", "bool"])
def test_scikit_learn_looks_our_class_weight_up_as_meant(kind):
    """The receiver's own expansion of class_weight gives our sample weights, in every kind of label."""
    y = labels_of(kind)
    np.testing.assert_allclose(
        compute_sample_weight(class_weight_dict(y, beta=0.99), y), sample_weights(y, beta=0.99), rtol=1e-15
    )


def test_sample_weights_answer_in_kind():
    y = labels_of("integers")
    want = sample_weights(y)
    assert isinstance(want, np.ndarray)
    assert want.dtype == np.float64
    np.testing.assert_array_equal(sample_weights(y.tolist()), want)
    np.testing.assert_array_equal(sample_weights(label for label in y.tolist()), want)
    tensor = sample_weights(torch.tensor(y))
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == torch.float64
    np.testing.assert_array_equal(tensor.numpy(), want)
    index = np.arange(300)[::-1]
    series = sample_weights(pd.Series(y, index=index, name="label"))
    pd.testing.assert_series_equal(series, pd.Series(want, index=index, name="sample_weight"))
    categorical = pd.Series(labels_of("text"), dtype=pd.CategoricalDtype(["z", "y", "x", "w", "none"]))
    np.testing.assert_array_equal(sample_weights(categorical).to_numpy(), sample_weights(labels_of("text")))


def test_weights_of_a_fold_come_from_the_training_labels():
    training, fold = ["cat"] * 90 + ["lynx"] * 10, ["lynx", "cat", "lynx"]
    whole = class_weight_dict(training, beta=0.99)
    want = [whole["lynx"], whole["cat"], whole["lynx"]]
    for counts in (class_counts(training), {"lynx": 10, "cat": 90}, pd.Series(training).value_counts()):
        np.testing.assert_allclose(sample_weights(fold, beta=0.99, counts=counts), want, rtol=1e-15)
    with pytest.raises(ValueError, match="labels hold 'puma', which counts does not name; count the whole"):
        sample_weights(["puma"], counts={"cat": 90})
    for unnamed in ([90, 10], np.array([90, 10]), torch.tensor([90, 10]), 90):
        with pytest.raises(TypeError, match=r"counts must be a mapping label -> count, got .*; class_counts"):
            sample_weights([0, 1], counts=unnamed)


def test_class_weight_dict_answers_python_numbers_in_order():
    answer = class_weight_dict(np.array([2, 0, 0, 1, 0, 2]), beta=0.9)
    assert list(answer) == [0, 1, 2]
    assert all(type(key) is int and type(value) is float for key, value in answer.items())
    assert class_weight_dict({"lynx": 10, "cat": 90}) == class_weight_dict(["lynx"] * 10 + ["cat"] * 90)
    assert class_weight_dict({"lynx": 10, "cat": 90, "none": 0})["none"] == 0.0


@pytest.mark.parametrize(
    "labels", [["1", "2"], ["a", "-3"], [" 4 ", "b"], ["1_0", "x"], ["+1", "x"], [b"1", b"2"], {"7": 3}]
)
def test_digit_strings_are_refused(labels):
    with pytest.raises(
        ValueError,
        match=r"labels hold the digit string .* which scikit-learn looks up as an integer; convert",
    ):
        class_weight_dict(labels)


def test_labels_that_are_not_whole_are_refused():
    with pytest.raises(
        ValueError, match=r"labels hold 0\.5, which scikit-learn looks up as 0; number the classes"
    ):
        class_weight_dict([0.5, 1.0, 0.5])
    for name in (math.nan, math.inf):
        with pytest.raises(
            ValueError, match=f"labels hold {name}, which scikit-learn cannot look up; number"
        ):
            class_weight_dict({name: 1, 2.0: 1})
    assert list(class_weight_dict([2.0, 1.0])) == [1.0, 2.0]


@pytest.mark.parametrize("function", [sample_weights, class_weight_dict])
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([1, None], TypeError, r"labels are missing \(None or NaN\) for 1 samples; drop or name them"),
        ([0.0, math.nan], TypeError, "labels are NaN or infinite for 1 samples; drop or name them"),
        ([1, "a"], TypeError, "labels mix the types int, str; convert them to one"),
        ([], ValueError, "must (not be empty|hold at least one label)"),
        (
            [[1, 0], [0, 1]],
            TypeError,
            r"labels must be one-dimensional, one label a sample, got shape \(2, 2\)",
        ),
        (5, TypeError, "labels must be a sequence with one label a sample, got int 5"),
    ],
)
def test_bad_labels(function, labels, error, message):
    with pytest.raises(error, match=message):
        function(labels)


def test_bad_options_reach_the_caller():
    with pytest.raises(ValueError, match="scheme must be one of"):
        sample_weights([0, 1], "efective")
    with pytest.raises(ValueError, match=r"beta must be in \[0, 1\], got 2"):
        class_weight_dict([0, 1], beta=2)
    with pytest.raises(ValueError, match="both given"):
        sample_weights([0, 1], beta=0.5, volume=2)
    with pytest.raises(ValueError, match="counts are 0 for classes 'b'"):
        class_weight_dict({"a": 1, "b": 0}, empty="error")


def long_tailed_digits():
    x, y = load_digits(return_X_y=True)
    keep = np.concatenate([np.flatnonzero(y == c)[: 120 // (2 * c + 1)] for c in range(10)])
    rest = np.setdiff1d(np.arange(len(y)), keep)
    return x[keep], y[keep], x[rest], y[rest]


@pytest.mark.parametrize("text", [False, True])
def test_scikit_learn_trains_with_our_weights_on_real_digits(text):
    x, y, x_test, y_test = long_tailed_digits()
    if text:
        names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
        y, y_test = names[y], names[y_test]
    model = {"max_iter": 400, "C": 1e-4}
    plain = LogisticRegression(**model).fit(x, y)
    weighted = LogisticRegression(class_weight=class_weight_dict(y, beta=0.99), **model).fit(x, y)
    sampled = LogisticRegression(**model).fit(x, y, sample_weight=sample_weights(y, beta=0.99))
    np.testing.assert_allclose(weighted.coef_, sampled.coef_, rtol=1e-4, atol=1e-6)
    recall = [recall_score(y_test, m.predict(x_test), average="macro") for m in (plain, weighted)]
    assert recall[1] > recall[0] + 0.05
