"""Label shift: known shares are found, thin classes are named, and no shift is told where there is none."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import optimize, special, stats

from longtail import adjust_logits, estimate_prior
from longtail.evaluation import fit_calibration
from longtail.evaluation.label_shift import _em, _shift_test

COUNTS = np.rint(np.geomspace(2000, 40, 6)).astype(int)
TRAINED = COUNTS / COUNTS.sum()


def draw(rng, n, shares):
    """Exact logits of Gaussian classes, made three times too sure and biased, as networks do."""
    labels = rng.choice(6, n, p=shares)
    x = rng.normal(size=(n, 6)) + 2 * np.eye(6)[labels]
    return 3 * (2 * x + np.log(TRAINED)) + np.linspace(-1, 1, 6), labels


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(5)
    return draw(rng, 4000, TRAINED), draw(rng, 3000, TRAINED[::-1])


def test_the_shares_of_a_tilted_set_are_found(data):
    (held, labels), (new, truth) = data
    found = estimate_prior(new, COUNTS, held_out_logits=held, held_out_labels=labels, resamples=20)
    shares = np.bincount(truth, minlength=6) / len(truth)
    assert np.abs(found.prior - shares).sum() < 0.1
    assert found.prior.sum() == pytest.approx(1)
    assert found.calibration.temperature == pytest.approx(3, rel=0.1)
    assert found.source_prior == pytest.approx(np.bincount(labels, minlength=6) / len(labels), abs=1e-3)
    assert found.shifted
    assert found.p_value < 1e-6
    assert all(low <= p <= high for (low, high), p in zip(found.interval, found.prior, strict=True))
    assert (
        sum(low - 0.02 <= s <= high + 0.02 for (low, high), s in zip(found.interval, shares, strict=True))
        >= 5
    )
    error = {
        "plain": np.mean(new.argmax(1) != truth),
        "uniform": np.mean(adjust_logits(new, COUNTS).argmax(1) != truth),
        "estimated": np.mean(found.adjust(new).argmax(1) != truth),
    }
    assert error["estimated"] < error["uniform"] < error["plain"]
    assert "other class shares than the held-out samples (p < 0.0001); most for class" in found.verdict
    np.testing.assert_array_equal(np.asarray(found), found.prior)
    shares_of = estimate_prior(
        special.softmax(new, axis=1),
        COUNTS,
        held_out_logits=special.softmax(held, axis=1),
        held_out_labels=labels,
        resamples=0,
    )
    assert shares_of.prior == pytest.approx(found.prior, abs=5e-3)
    assert shares_of.interval is None


def test_no_shift_is_told_where_there_is_none():
    rng = np.random.default_rng(0)
    (held, labels), (same, _) = draw(rng, 4000, TRAINED), draw(rng, 3000, TRAINED)
    found = estimate_prior(same, COUNTS, held_out_logits=held, held_out_labels=labels, resamples=0)
    assert found.shifted is False
    assert np.abs(found.prior - TRAINED).sum() < 0.1
    assert found.verdict.startswith("No shift of the class shares can be told from chance (p = ")


def test_false_alarms_are_one_in_twenty():
    rng = np.random.default_rng(0)
    alarms = [_shift_test(*(rng.choice(6, n, p=TRAINED) for n in (400, 300)), 6) < 0.05 for _ in range(600)]
    assert 0.02 < np.mean(alarms) < 0.08


def test_thin_classes_are_drawn_to_the_training_and_named(data):
    (held, labels), (new, _) = data
    few = np.flatnonzero(labels == 5)
    for left in (0, 2):
        kept = np.setdiff1d(np.arange(len(labels)), few[left:])
        found = estimate_prior(
            new, COUNTS, held_out_logits=held[kept], held_out_labels=labels[kept], resamples=0
        )
        assert found.thin == (5,)
        assert (
            "fewer than 5 held-out samples in 1 classes, whose shares are drawn to the training's: 5"
            in found.verdict
        )
        if not left:
            assert found.prior[5] == pytest.approx(TRAINED[5])
        else:  # two of the five that would be trusted
            whole = estimate_prior(new, COUNTS, held_out_logits=held, held_out_labels=labels, resamples=0)
            assert TRAINED[5] + 0.05 < found.prior[5] < 0.6 * whole.prior[5]
        assert found.prior.sum() == pytest.approx(1)


def test_without_held_out_samples_it_says_so(data):
    _, (new, _) = data
    found = estimate_prior(new, COUNTS, resamples=5)
    assert (found.shifted, found.p_value, found.calibration) == (None, None, None)
    assert len(found.interval) == 6
    assert "nothing was calibrated" in found.verdict
    np.testing.assert_allclose(found.adjust(new), new + np.log(found.prior) - np.log(TRAINED))


def test_em_is_the_largest_likelihood():
    rng = np.random.default_rng(1)
    shares, source = rng.dirichlet(np.ones(3), 200), np.array([0.5, 0.3, 0.2])
    ours = _em(shares, source, np.ones(200), source)

    def loss(z):
        return -np.log(shares / source @ special.softmax(z)).sum()

    best = optimize.minimize(loss, np.zeros(3), tol=1e-12)
    assert ours == pytest.approx(special.softmax(best.x), abs=1e-4)
    twice = _em(np.repeat(shares, 2, axis=0), source, np.tile([1.0, 0.0], 200), source)
    assert twice == pytest.approx(ours)


def test_the_calibration_is_the_lowest_log_loss(data):
    (held, labels), _ = data
    found = fit_calibration(held, labels)

    def loss(x):
        moved = held * x[0] + x[1:]
        return (special.logsumexp(moved, axis=1) - moved[np.arange(len(labels)), labels]).sum() + (
            x[1:] ** 2
        ).sum() / 2

    best = optimize.minimize(loss, np.append(1.0, np.zeros(6)), tol=1e-10)
    assert 1 / found.temperature == pytest.approx(best.x[0], rel=1e-3)
    assert found.bias == pytest.approx(best.x[1:] - best.x[1:].mean(), abs=2e-2)
    alone = fit_calibration(held, labels, biases=False)
    assert not alone.bias.any()
    half = fit_calibration(held, labels, weight=np.ones(len(labels)) / 2)
    assert half.temperature == pytest.approx(found.temperature, rel=0.02)


def test_groups_are_drawn_together_and_count_once(data):
    (held, labels), (new, _) = (tuple(part[:600] for part in pair) for pair in data)
    known = {"held_out_logits": held, "held_out_labels": labels, "seed": 3}
    plain = estimate_prior(new, COUNTS, **known)
    alone = estimate_prior(
        new, COUNTS, **known, groups=np.arange(600), held_out_groups=[f"a{i}" for i in range(600)]
    )
    assert alone.prior.tolist() == plain.prior.tolist()
    assert alone.p_value == plain.p_value
    # each sample ten times in a group of its own says what it says once
    tenfold = {name: np.repeat(values, 10, axis=0) for name, values in known.items() if name != "seed"}
    ids = np.repeat(np.arange(600), 10)
    grouped = estimate_prior(np.repeat(new, 10, axis=0), COUNTS, **tenfold, groups=ids, held_out_groups=ids)
    assert grouped.p_value == pytest.approx(plain.p_value)
    assert grouped.thin == plain.thin
    naive = estimate_prior(np.repeat(new, 10, axis=0), COUNTS, **tenfold)
    widths = [np.array([high - low for low, high in found.interval]) for found in (plain, grouped, naive)]
    assert widths[1].sum() == pytest.approx(widths[0].sum(), rel=0.25)
    assert widths[2].sum() < 0.5 * widths[1].sum()
    without = [estimate_prior(np.repeat(new, 10, axis=0), COUNTS, groups=g) for g in (ids, None)]
    wide, narrow = (np.sum([high - low for low, high in found.interval]) for found in without)
    assert narrow < 0.5 * wide
    # two groups of a class are few, however many samples they have
    few = np.where(labels == 0, np.arange(600) % 2, np.arange(600))
    assert 0 in estimate_prior(new, COUNTS, **known, held_out_groups=few, resamples=0).thin
    for wrong, message in (
        ({"groups": [1, 2]}, "groups must be one a sample, 600, got 2"),
        ({"held_out_groups": [1]}, "held_out_groups must be one a sample, 600, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            estimate_prior(new, COUNTS, **known, **wrong)
    with pytest.raises(ValueError, match="held_out_groups are given without held_out_logits"):
        estimate_prior(new, COUNTS, held_out_groups=np.arange(600))


def test_the_test_of_a_shift_is_scipys():
    rng = np.random.default_rng(0)
    old, new = rng.choice(4, 500, p=[0.4, 0.3, 0.2, 0.1]), rng.choice(4, 300, p=[0.3, 0.3, 0.2, 0.2])
    table = np.stack([np.bincount(old, minlength=4), np.bincount(new, minlength=4)])
    assert _shift_test(old, new, 6) == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue)
    assert _shift_test(np.zeros(9, int), np.zeros(9, int), 3) == 1


GOOD = {"held_out_logits": np.eye(3) * 2 - 0.5, "held_out_labels": [0, 1, 2]}


@pytest.mark.parametrize(
    ("logits", "counts", "change", "error", "message"),
    [
        (np.eye(3) * np.nan, [5, 4, 3], {}, ValueError, "logits has NaN"),
        (np.zeros((2, 4)) - 1, [5, 4, 3], {}, ValueError, "counts must have 4 elements, .* same classes"),
        (np.zeros((2, 4)) - 1, [5, 4, 3, 2], {}, ValueError, "held_out_logits have 3 columns and logits 4"),
        (np.eye(3, dtype=int), [5, 4, 3], {}, TypeError, "logits must be floating point"),
        (np.full((2, 3), 0.2), [5, 4, 3], {}, ValueError, "logits lie in .* row 0 sums to 0.6"),
        (
            np.eye(3) - 1,
            [5, 4, 3],
            {"held_out_labels": [1, 1, 1]},
            ValueError,
            "held_out_labels are all of class 1",
        ),
        (
            np.eye(3) - 1,
            [5, 4, 3],
            {"held_out_labels": [0, 1]},
            ValueError,
            "one a row of held_out_logits, 3, got 2",
        ),
        (np.eye(3) - 1, [5, 4, 3], {"held_out_labels": None}, ValueError, "go together; give both or none"),
        (np.eye(3) - 1, [5, 4, 3], {"confidence": 95}, ValueError, r"confidence must be in \(0, 1\)"),
        (np.zeros((2, 1)), [5], {}, ValueError, "two classes or more"),
        (np.full((2, 2), 0.3), [5, 4, 3], {}, ValueError, "counts must have 2 elements"),
    ],
)
def test_errors(logits, counts, change, error, message):
    with pytest.raises(error, match=message):
        estimate_prior(logits, counts, **(GOOD | change))


def test_labels_go_by_the_names_of_the_counts():
    rng = np.random.default_rng(0)
    labels, new = rng.choice(3, 300, p=[0.7, 0.2, 0.1]), rng.normal(size=(50, 3))
    held = rng.normal(size=(300, 3)) + 2 * np.eye(3)[labels]
    names = np.array(["owl", "fox", "yak"])  # a mapping is in the order of the outputs
    told = {"owl": 700, "fox": 200, "yak": 100}
    given = {"held_out_logits": held, "resamples": 3}
    found = estimate_prior(new, told, held_out_labels=names[labels].tolist(), **given)
    assert found.to_dict() == estimate_prior(new, [700, 200, 100], held_out_labels=labels, **given).to_dict()
    with pytest.raises(
        TypeError, match=r"held_out_labels are names such as .*, but counts names no class; give"
    ):
        estimate_prior(new, [700, 200, 100], held_out_labels=names[labels], **given)
    with pytest.raises(ValueError, match="held_out_labels have 'bear', which counts does not name; it names"):
        estimate_prior(new, told, held_out_labels=["bear"] * 300, **given)
    with pytest.raises(ValueError, match="held_out_labels are all of class yak;"):
        estimate_prior(new, told, held_out_labels=["yak"] * 300, **given)


def test_without_scipy_the_remedy_is_named():
    code = (
        "import sys; sys.modules['scipy'] = None; sys.modules['scipy.optimize'] = None\n"
        "import numpy as np, longtail\n"
        "z = np.eye(2) - 1; longtail.estimate_prior(z, [5, 3], held_out_logits=z, held_out_labels=[0, 1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "need SciPy; install it with: pip install 'longtail[train]'" in done.stderr
