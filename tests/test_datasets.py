"""Long-tailed profiles, hash-ordered subsets, the data set they are cut from, and the digits."""

import hashlib
import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail import class_counts, datasets
from longtail.datasets import Dataset, Split, long_tail_counts, long_tail_subset, subset_sha256

PROFILES = ("exponential", "step", "pareto")


def tiny(**changes):
    split = Split(np.zeros((6, 2), np.float32), np.array([0, 0, 0, 1, 1, 1]))
    return Dataset(**({"name": "tiny", "train": split, "test": split, "class_names": ("a", "b")} | changes))


# profiles


@pytest.mark.parametrize(
    ("num_classes", "max_count", "totals"),
    [(10, 5000, (11203, 12406, 13996, 17023, 20431)), (100, 500, (9502, 10847, 12608, 15907, 19573))],
)
def test_published_totals(num_classes, max_count, totals):
    factors = (200, 100, 50, 20, 10)
    assert tuple(long_tail_counts(num_classes, max_count, factor).sum() for factor in factors) == totals


def test_published_list_and_the_truncated_tail():
    counts = long_tail_counts(10, 5000, 50)
    assert counts.dtype == np.int64
    assert counts.tolist() == [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100]
    assert long_tail_counts(100, 500, 200)[-1] == 2


def test_step_and_pareto_by_hand():
    assert long_tail_counts(4, 100, 10, "step").tolist() == [100, 100, 10, 10]
    assert long_tail_counts(5, 100, 3, "step").tolist() == [100, 100, 100, 33, 33]
    # a = log 16 / log 4 = 2
    assert long_tail_counts(4, 144, 16, "pareto").tolist() == [144, 36, 16, 9]


@given(base=st.integers(2, 12), steps=st.integers(1, 8))
def test_exact_integers_survive_float_rounding(base, steps):
    sizes = [base ** (steps - i) for i in range(steps + 1)]
    assert long_tail_counts(steps + 1, sizes[0], sizes[0]).tolist() == sizes


@given(
    st.integers(1, 60),
    st.integers(1, 10**9),
    st.floats(0, 1),
    st.sampled_from(PROFILES),
)
def test_profiles_fall_from_max_to_max_over_factor(num_classes, max_count, position, profile):
    factor = min(max_count**position, max_count)
    counts = long_tail_counts(num_classes, max_count, factor, profile)
    assert counts.shape == (num_classes,)
    assert counts[0] == max_count
    assert (np.diff(counts) <= 0).all()
    if num_classes > 1:
        assert counts[-1] in (math.floor(max_count / factor), round(max_count / factor))


@pytest.mark.parametrize("profile", PROFILES)
def test_one_class_and_factor_one(profile):
    assert long_tail_counts(1, 7, 5, profile).tolist() == [7]
    assert long_tail_counts(3, 7, 1, profile).tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 10, 2), ValueError, "num_classes .*1.* got 0"),
        ((2.5, 10, 2), ValueError, "num_classes must be a whole number, got 2.5"),
        (("ten", 10, 2), TypeError, "num_classes must be a number"),
        ((True, 10, 2), TypeError, "num_classes must be a number"),
        ((3, 0, 2), ValueError, "max_count .* got 0; give the size of class 0"),
        ((3, 2**63, 10), ValueError, "max_count .* got 9223372036854775808; give the size of class 0"),
        ((3, 10**19, 1), ValueError, "max_count .* got 10000000000000000000"),
        ((3, 10, 0.5), ValueError, "imbalance_factor .* got 0.5; give the largest class size over"),
        ((3, 10, float("nan")), ValueError, "imbalance_factor .* got nan"),
        ((3, 10, float("inf")), ValueError, "imbalance_factor .* got inf"),
        ((3, 10, None), TypeError, "imbalance_factor must be a number"),
        ((3, 10, 2, "exponental"), ValueError, "profile .*'exponental'; did you mean 'exponential'"),
        (
            (3, 10, 11),
            ValueError,
            "11 leaves class 2 without samples; the largest that keeps it is max_count, 10",
        ),
    ],
)
def test_profile_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        long_tail_counts(*arguments)


# subsets


def splitmix64(seed, index):
    """The published algorithm in Python's unbounded integers."""
    word, golden = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & word
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & word
        return z ^ (z >> 31)

    return mix((mix((seed + golden) & word) + (index + 1) * golden) & word)


def test_golden_subsets():
    labels = np.arange(40) % 2
    assert long_tail_subset(labels, [5, 3], 7).tolist() == [5, 9, 12, 13, 18, 20, 32, 36]
    assert long_tail_subset([0, 1, 0, 1, 0, 1], [3, 1], 0).tolist() == [0, 2, 4, 5]
    labels = np.repeat(np.arange(10), 5000)
    subset = long_tail_subset(labels, long_tail_counts(10, 5000, 100), 0)
    assert subset_sha256(subset) == "9ae82016b9ba4b45ef19eaf13bbfdb55b111cfa827c4a3bbfe4ffba48d335dcc"


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.integers(0, 2**64 - 1),
    st.lists(st.integers(0, 10), min_size=4, max_size=4),
    st.data(),
)
def test_subset_follows_its_definition_and_nests(labels, seed, wanted, data):
    flat = [min(n, labels.count(c)) for c, n in enumerate(wanted)]
    expected = []
    for c, n in enumerate(flat):
        members = [i for i, label in enumerate(labels) if label == c]
        expected += sorted(members, key=lambda i: splitmix64(seed, i))[:n]
    subset = long_tail_subset(labels, flat, seed)
    assert subset.dtype == np.int64
    assert subset.tolist() == sorted(expected)

    steep = [data.draw(st.integers(0, n)) for n in flat]
    assert set(long_tail_subset(labels, steep, seed)) <= set(subset)


def test_seeds_choose_differently_and_evenly():
    labels = np.zeros(1000, np.uint8)
    chosen = [long_tail_subset(labels, [100], seed) for seed in range(50)]
    assert len({subset_sha256(subset) for subset in chosen}) == 50
    # binomial(50, .1) per index: mean 5, variance 4.5
    frequency = np.bincount(np.concatenate(chosen), minlength=1000)
    assert frequency.var() == pytest.approx(4.5, rel=0.25)


def test_labels_of_every_kind():
    torch = pytest.importorskip("torch")
    labels = [0, 1, 2, 1, 0, 2, 2]
    kinds = (labels, np.array(labels, np.int8), np.array(labels, ">u8"), torch.tensor(labels))
    results = {tuple(long_tail_subset(kind, np.array([1, 1, 2]), 3).tolist()) for kind in kinds}
    assert len(results) == 1


def test_counts_by_class_are_taken_in_the_order_of_the_classes():
    pandas = pytest.importorskip("pandas")
    labels = np.repeat([0, 1, 2], 9)
    counted = Counter({2: 1, 0: 5, 1: 3})
    for counts in (counted, class_counts(counted), pandas.Series(counted), {"a": 5, "b": 3, "c": 1}):
        assert np.bincount(labels[long_tail_subset(labels, counts, 0)]).tolist() == [5, 3, 1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0, 0, 1], [1, 2], 0), ValueError, "2 samples of class 1, but labels has 1; ask for at most 1"),
        (
            ([0, 2], [1, 1], 0),
            ValueError,
            "labels holds 2, but counts has 2 classes; number the classes 0 to 1",
        ),
        (([0, -1], [1, 1], 0), ValueError, "labels holds -1"),
        (([0, 1], [1, -1], 0), ValueError, "counts holds -1 for class 1"),
        (([], [1], 0), ValueError, r"labels has shape \(0,\)"),
        (([[0]], [1], 0), ValueError, r"labels has shape \(1, 1\)"),
        (([0.0], [1], 0), TypeError, "labels must hold integers, got float64"),
        (([True], [1], 0), TypeError, "labels must hold integers, got bool"),
        (([0], [1.0], 0), TypeError, "counts must hold integers"),
        (([0, 2], {0: 1, 2: 1}, 0), ValueError, "counts has 2 integer names, but not 1 of"),
        (([0], [1], -1), ValueError, "seed .* got -1; give a whole number from 0"),
        (([0], [1], 2**64), ValueError, r"seed must be below 2\*\*64"),
        (([0], [1], None), TypeError, "seed must be a number"),
        ((np.array([2**63], np.uint64), [1], 0), ValueError, "labels holds 9223372036854775808"),
    ],
)
def test_subset_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        long_tail_subset(*arguments)


def test_fingerprint():
    expected = hashlib.sha256(bytes([1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0])).hexdigest()
    assert subset_sha256([1, 256]) == expected
    assert subset_sha256(np.array([1, 256], ">i4")) == expected
    with pytest.raises(TypeError, match="indices must hold integers"):
        subset_sha256([0.5])


# data sets


def test_digits():
    data = datasets.load("digits")
    assert data.name == "digits"
    assert data.class_names == tuple("0123456789")
    assert data.train.inputs.dtype == np.uint8
    assert data.train.inputs.shape == (1297, 1, 8, 8)
    assert data.train.inputs.max() == 16
    assert np.bincount(data.test.targets).tolist() == [50] * 10
    assert data.class_counts.tolist() == [128, 132, 127, 133, 131, 132, 131, 129, 124, 130]
    assert (
        hashlib.sha256(data.test.inputs.tobytes()).hexdigest()
        == "51479f6a26cad6715dc73fbbfe962ae9b08a76aca281f0b37ccfd60d29ad3a09"
    )


def test_digits_splits_are_disjoint_and_complete():
    source = pytest.importorskip("sklearn.datasets").load_digits()
    data = datasets.digits(test_per_class=173)
    assert data.class_counts.min() == 1
    both = np.concatenate([data.train.inputs, data.test.inputs]).reshape(-1, 64)
    assert sorted(map(bytes, both)) == sorted(map(bytes, source.data.astype(np.uint8)))


@pytest.mark.parametrize(("value", "message"), [(0, "got 0"), (174, "below 174, .* got 174; leave some")])
def test_digits_errors(value, message):
    with pytest.raises(ValueError, match=f"test_per_class must be .*{message}"):
        datasets.digits(value)


def test_unknown_data_set():
    with pytest.raises(
        ValueError, match=r"name must be one of 'digits'.*, got 'digit'; did you mean 'digits'"
    ):
        datasets.load("digit")


def test_long_tailed():
    data = datasets.digits()
    tail, kept = data.long_tailed(50)
    assert tail.name == "digits-lt50"
    assert tail.class_counts.tolist() == long_tail_counts(10, 124, 50).tolist()
    assert tail.test is data.test
    np.testing.assert_array_equal(tail.train.inputs, data.train.inputs[kept])
    np.testing.assert_array_equal(tail.train.targets, data.train.targets[kept])
    assert subset_sha256(kept) == "0c294f7a4d1014e2179740d72ea936f512d9ff80c8a884290086ee396bc1e2ae"

    flatter, more = data.long_tailed(10)
    assert len(flatter.train) == len(more) > len(kept)
    assert set(kept) <= set(more)
    assert set(kept) != set(data.long_tailed(50, seed=1)[1])

    step, _ = data.long_tailed(2.5, profile="step", max_count=100)
    assert step.name == "digits-step2.5"
    assert step.class_counts.tolist() == [100] * 5 + [40] * 5


def test_missing_classes_are_counted():
    assert tiny(class_names=("a", "b", "c")).class_counts.tolist() == [3, 3, 0]


def test_split_and_data_set_errors():
    inputs, targets = np.zeros((2, 3)), np.array([0, 1])
    with pytest.raises(TypeError, match="inputs must be a NumPy array, got list"):
        Split([0, 1], targets)
    with pytest.raises(TypeError, match="targets must hold integers, got float64"):
        Split(inputs, np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"inputs has shape \(2, 3\) for 1 targets"):
        Split(inputs, targets[:1])
    with pytest.raises(ValueError, match="targets holds -1; number the classes from 0"):
        Split(inputs, -targets)
    with pytest.raises(ValueError, match=r"test inputs have shape \(3,\) per sample, train inputs \(2,\)"):
        tiny(test=Split(inputs, targets))
    with pytest.raises(ValueError, match=r"train targets holds 1, but 1 class_names"):
        tiny(class_names=("a",))
    with pytest.raises(ValueError, match=r"class_names .*each once"):
        tiny(class_names=("a", "a"))


def test_importing_needs_numpy_only():
    heavy = ["torch", "sklearn", "scipy", "pandas", "PIL"]
    code = f"import sys, longtail.datasets; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
