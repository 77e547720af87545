"""The effective number: exact, its limits, its inverse, every kind of array, every bad input."""

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracles
from longtail import ClassCounts, ClassWeights, effective_number
from longtail.effective import beta_to_volume, inverse_effective_number, volume_to_beta

COUNTS = [0, *(int(10**k) + d for k in range(13) for d in (0, 1)), *(0.1, 0.5, 1.5, math.pi, 1234.5678, 1e-6)]
COUNTS += [9.99e11, 3.3e7, 2.5e-3, 10**12 - 1]
VOLUMES = [1, 1 + 2**-52, 1 + 1e-9, 1.001, 1.5, 2 - 1e-15, 2, 2.5, 3, 10]
VOLUMES += [c * 10.0**k for k in range(1, 19) for c in (1, 1.7, 4.9) if c * 10.0**k <= 1e18]
BETAS = [
    5e-324,
    1e-300,
    1e-17,
    1e-3,
    0.1,
    0.5,
    0.9,
    0.99,
    0.999,
    0.9999,
    0.99999,
    1 - 1e-8,
    1 - 1e-12,
    1 - 2**-53,
]


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize(("name", "choices"), [("volume", VOLUMES), ("beta", BETAS)])
def test_relative_error_is_at_most_2e_15(kind, name, choices):
    n = np.array(COUNTS, dtype=np.float64)
    worst = 0.0
    for choice in choices:
        got = effective_number(n if kind == "numpy" else torch.from_numpy(n), **{name: choice})
        worst = max(
            worst, oracles.relative_error(got, [oracles.effective_number(x, **{name: choice}) for x in n])
        )
    assert worst <= 2e-15


def test_relative_error_on_random_reals(rng):
    n = np.concatenate([10 ** rng.uniform(-3, 12, 300), np.floor(10 ** rng.uniform(0, 12, 300))])
    volume = 10 ** rng.uniform(0, 18, 600)
    want = [oracles.effective_number(a, volume=v) for a, v in zip(n, volume, strict=True)]
    assert oracles.relative_error(effective_number(n, volume=volume), want) <= 2e-15


def test_the_oracle_can_fail():
    """Counter-test: the naive formula does not pass the bound that ours does."""
    n = [1, 1000, 10**6]
    naive = [(1 - (1 - 1e-12) ** x) / (1 - (1 - 1e-12)) for x in n]
    assert oracles.relative_error(naive, [oracles.effective_number(x, volume=1e12) for x in n]) > 1e-10
    assert oracles.relative_error([1e-30], [0]) == math.inf


def test_tiny_counts_and_enormous_volumes_do_not_underflow():
    n = [1e-300, 1e-200, 0.1, 1.0]
    for volume in (1e18, 1e150, 1e300):
        assert oracles.relative_error(effective_number(n, volume=volume), n) <= 2e-15
        np.testing.assert_allclose(inverse_effective_number(n, volume=volume), n, rtol=2e-15)
    assert effective_number(1.7e308, volume=1e300) == pytest.approx(1e300, rel=1e-15)


def test_limits_are_exact():
    n = [0, 0.25, 1, 7, 10**12, 1e300]
    for one in ({"beta": 0}, {"beta": 0.0}, {"volume": 1}):
        assert effective_number(n, **one).tolist() == [0, 1, 1, 1, 1, 1]
    for limit in ({"beta": 1}, {"volume": math.inf}):
        assert effective_number(n, **limit).tolist() == n
        assert inverse_effective_number(n, **limit).tolist() == n
    for beta in BETAS:
        assert effective_number(1, beta=beta) == pytest.approx(1.0, rel=1e-15)
        assert effective_number(0, beta=beta) == 0.0


def test_agrees_with_the_expected_number_of_distinct_prototypes():
    """Section 3.2: the same formula counts the distinct outcomes of n uniform draws from N."""
    for n, volume in [(1, 5), (10, 7), (300, 50), (2000, 1e6)]:
        assert effective_number(n, volume=volume) == pytest.approx(
            oracles.expected_distinct(n, volume), rel=1e-12
        )
    draws = np.random.default_rng(0).integers(0, 100, (2000, 150))
    distinct = np.mean([len(set(row)) for row in draws.tolist()])
    assert effective_number(150, volume=100) == pytest.approx(distinct, abs=0.5)


@given(n=st.integers(1, 10**12), beta=st.floats(0, 1))
def test_recurrence(n, beta):
    """E_n = 1 + beta * E_{n-1}."""
    now, before = effective_number(n, beta=beta), effective_number(n - 1, beta=beta)
    assert now == pytest.approx(1 + beta * before, rel=4e-15)


@given(n=st.floats(0, 1e12), volume=st.floats(1, 1e18))
def test_bounds(n, volume):
    e = effective_number(n, volume=volume)
    slack = 1 + 1e-14
    assert 0 <= e <= volume * slack
    if n >= 1:
        assert 1 / slack <= e <= n * slack


@given(share=st.floats(0, 0.999), log_volume=st.floats(1e-3, 18))
def test_inverse_round_trip(share, log_volume):
    """n -> E -> n; close to E = N the number of samples is lost, as it must be."""
    volume = 10**log_volume
    n = inverse_effective_number(share * volume, volume=volume)
    assert n >= 0
    assert effective_number(n, volume=volume) == pytest.approx(share * volume, rel=1e-12, abs=1e-300)


def test_beta_and_volume_convert_both_ways():
    assert volume_to_beta(1) == 0.0
    assert volume_to_beta(math.inf) == 1.0
    assert beta_to_volume(1) == math.inf
    assert beta_to_volume(0) == 1.0
    for volume in (1.5, 2, 10, 1000, 1e4, 1e12):
        beta = volume_to_beta(volume)
        assert beta == float(oracles.beta_of(volume))
        assert beta_to_volume(beta) == pytest.approx(volume, rel=2e-16 * volume)
        assert effective_number(50, volume=volume) == pytest.approx(effective_number(50, beta=beta), rel=1e-3)
    with pytest.raises(ValueError, match=r"volume must be in \[1, inf\], got 0\.5"):
        volume_to_beta(0.5)
    with pytest.raises(ValueError, match=r"beta must be in \[0, 1\], got -1"):
        beta_to_volume(-1)


# ---- every kind answered in kind


@pytest.mark.parametrize(
    "dtype",
    [
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    ],
)
def test_torch(dtype):
    n = torch.tensor([[0, 1], [2, 3]], dtype=dtype)
    e = effective_number(n, beta=0.5)
    assert isinstance(e, torch.Tensor)
    assert e.dtype == torch.float64
    assert e.device == n.device
    assert e.tolist() == [[0, 1], [1.5, 1.75]]
    assert effective_number(torch.tensor(2), beta=0.5).shape == ()


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "u8", "i8", "f2", "f4", "f8"])
def test_numpy(dtype):
    n = np.array([[0, 1], [2, 3]], dtype=dtype)
    e = effective_number(n, beta=0.5)
    assert isinstance(e, np.ndarray)
    assert e.dtype == np.float64
    assert e.tolist() == [[0, 1], [1.5, 1.75]]
    assert n.dtype == dtype


def test_the_input_is_not_written_to():
    n = np.array([1.0, 2.0])
    n.setflags(write=False)
    out = effective_number(n, beta=1)
    assert not np.shares_memory(out, n)


@pytest.mark.parametrize("scalar", [2, 2.0, np.int64(2), np.float32(2), np.array(2), Fraction(2)])
def test_a_scalar_gives_a_float(scalar):
    e = effective_number(scalar, beta=0.5)
    assert type(e) is float
    assert e == 1.5


def test_mappings_and_series_answer_in_kind():
    assert effective_number({"b": 2, "a": 1}, beta=0.5) == {"b": 1.5, "a": 1.0}
    series = effective_number(pd.Series([2, 1], index=["b", "a"], name="samples"), beta=0.5)
    pd.testing.assert_series_equal(series, pd.Series([1.5, 1.0], index=["b", "a"], name="samples"))
    answer = effective_number(ClassCounts(["b", "a"], [2, 1]), beta=0.5)
    assert isinstance(answer, ClassWeights)
    assert dict(answer) == {"b": 1.5, "a": 1.0}
    assert effective_number([], beta=0.5).tolist() == []
    assert effective_number((1, 2), beta=0.5).tolist() == [1, 1.5]


def test_one_beta_or_volume_per_class():
    want = [1.5, 2.0, 1.0]
    for n in ([2, 2, 2], np.array([2, 2, 2]), torch.tensor([2, 2, 2])):
        for beta in ([0.5, 1, 0], (0.5, 1.0, 0.0), np.array([0.5, 1, 0]), torch.tensor([0.5, 1, 0])):
            e = effective_number(n, beta=beta)
            assert np.asarray(e).tolist() == want
            assert isinstance(e, torch.Tensor) == isinstance(n, torch.Tensor)
        assert np.asarray(effective_number(n, volume=[2, math.inf, 1])).tolist() == want
    named = {"a": 2, "b": 2, "c": 2}
    assert list(effective_number(named, beta={"c": 0, "a": 0.5, "b": 1}).values()) == want
    series = pd.Series(named)
    assert effective_number(series, beta=pd.Series({"c": 0, "a": 0.5, "b": 1})).tolist() == want
    assert (
        effective_number(
            ClassCounts("abc", [2, 2, 2]), volume={"c": 1, "a": 2, "b": math.inf}
        ).weights.tolist()
        == want
    )


def test_array_api_strict():
    xp = pytest.importorskip("array_api_strict")
    e = effective_number(xp.asarray([0, 1, 2]), beta=0.5)
    assert type(e) is type(xp.asarray(0))
    assert e.dtype == xp.float64
    assert [float(x) for x in e] == [0, 1, 1.5]


def test_jax():
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        n = jax.numpy.asarray([0, 1, 10**6])
        e = effective_number(n, volume=1e9)
        assert isinstance(e, jax.Array)
        assert e.dtype == np.float64
        assert (
            oracles.relative_error(e, [oracles.effective_number(x, volume=1e9) for x in (0, 1, 10**6)])
            <= 2e-15
        )


# ---- bad input


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({}, ValueError, "exactly one of beta and volume, got neither; give one"),
        (
            {"beta": 0.5, "volume": 2},
            ValueError,
            "exactly one of beta and volume, got both, float 0.5 and int 2; leave one out",
        ),
        ({"beta": 1.5}, ValueError, r"beta must be in \[0, 1\], got 1\.5; a volume .* goes to volume="),
        ({"beta": -0.1}, ValueError, r"beta must be in \[0, 1\], got -0\.1"),
        ({"beta": math.nan}, ValueError, r"beta must be in \[0, 1\], got nan"),
        ({"beta": "0.9"}, TypeError, r"beta must be a number in \[0, 1\], got str '0\.9'"),
        ({"beta": True}, TypeError, r"beta must be a number in \[0, 1\], got bool True"),
        ({"beta": np.array("x")}, TypeError, r"beta must be a number in \[0, 1\]"),
        ({"volume": 0.99}, ValueError, r"volume must be in \[1, inf\], got 0\.99; a beta .* goes to beta="),
        ({"volume": math.nan}, ValueError, r"volume must be in \[1, inf\], got nan"),
        ({"volume": -math.inf}, ValueError, r"volume must be in \[1, inf\], got -inf"),
        ({"volume": 10**400}, ValueError, r"volume must be in \[1, inf\], got a number beyond float64"),
        (
            {"beta": [0.5]},
            ValueError,
            r"beta must be a scalar or have one value per class, shape \(2,\), got shape \(1,\)",
        ),
        ({"beta": [[0.5, 0.5]]}, ValueError, r"beta must be a scalar .* got shape \(1, 2\)"),
        ({"beta": [0.5, 1.5]}, ValueError, r"beta must be in \[0, 1\], got 1\.5 at position 1; a volume"),
        (
            {"volume": [0.5, math.nan]},
            ValueError,
            r"volume must be in \[1, inf\], got 0\.5 at position 0; a beta",
        ),
        ({"volume": [2, math.nan]}, ValueError, r"volume must be in \[1, inf\], got nan at position 1"),
        ({"beta": ["a", "b"]}, TypeError, r"beta must be numbers, got list \['a', 'b'\]; convert them first"),
        ({"beta": {"a": 0.5}}, TypeError, "beta is a dict but the counts have no names; give beta as a list"),
    ],
)
def test_bad_parameters(kwargs, error, message):
    for n in ([1, 2], torch.tensor([1, 2])):
        with pytest.raises(error, match=message):
            effective_number(n, **kwargs)


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (
            [1, -2],
            ValueError,
            r"n must be finite and >= 0, got -2\.0 at position 1; sample counts cannot be negative",
        ),
        ([math.nan], ValueError, r"n must be finite and >= 0, got nan at position 0"),
        (math.inf, ValueError, r"n must be finite and >= 0, got inf; sample"),
        ("12", TypeError, r"n must be numbers, got str '12'; convert them first"),
        (["1", "2"], TypeError, r"n must be numbers, got list \['1', '2'\]"),
        (None, TypeError, "n must be numbers, got NoneType None"),
        ([1, None], TypeError, r"n must be numbers, got list \[1, None\]"),
        ([[1], [1, 2]], TypeError, r"n must be numbers, got list \[\[1\], \[1, 2\]\]"),
        ([True, False], TypeError, r"n must be numbers, got list \[True, False\]"),
        (np.array([1j]), TypeError, "n must be numbers, got ndarray of shape .* dtype complex128"),
        (torch.tensor([True]), TypeError, "n must be numbers, got Tensor of shape .* dtype torch.bool"),
        ({"a": "x"}, TypeError, r"n must be numbers, got list \['x'\]"),
        ([10**400], ValueError, r"n must be finite in float64 .* got list \[1000"),
        (
            pd.Series([1, None], dtype="Int64"),
            ValueError,
            r"n must be finite and >= 0, got nan at position 1",
        ),
    ],
)
def test_bad_counts(n, error, message):
    with pytest.raises(error, match=message):
        effective_number(n, beta=0.5)


def test_bad_names():
    with pytest.raises(ValueError, match="beta lacks a value for 'b'; name every class or give a scalar"):
        effective_number({"a": 1, "b": 2}, beta={"a": 0.5})


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((1,), {}, ValueError, "inverse_effective_number needs exactly one of beta and volume, got neither"),
        ((1,), {"beta": 0.5, "volume": 2}, ValueError, "got both"),
        (
            ([1, 5],),
            {"beta": 0.5},
            ValueError,
            r"effective must be below the volume .* got up to 5\.0; give a larger",
        ),
        ((2,), {"volume": 2}, ValueError, "effective must be below the volume"),
        ((-1,), {"volume": 2}, ValueError, r"effective must be finite and >= 0, got -1\.0"),
    ],
)
def test_bad_input_to_the_inverse(args, kwargs, error, message):
    with pytest.raises(error, match=message):
        inverse_effective_number(*args, **kwargs)
