"""Prediction sets: what they promise, simulated; limits by hand; what they say where they cannot promise."""

import numpy as np
import pytest
from scipy import special

from longtail import adjust_logits, prediction_sets
from longtail.evaluation import fit_sets
from longtail.evaluation.sets import METHODS

COUNTS = np.rint(np.geomspace(2000, 40, 6)).astype(int)


SHARES = COUNTS / COUNTS.sum()


def draw(rng, n, shares=SHARES):
    labels = rng.choice(6, n, p=shares)
    return 2 * (rng.normal(size=(n, 6)) + 2 * np.eye(6)[labels]) + np.log(SHARES), labels


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    return draw(rng, 3000), draw(rng, 20000), draw(rng, 20000, np.full(6, 1 / 6))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_covers_as_it_promises_and_most_cover_rare_classes(data, method):
    (held, labels), (new, truth), (even, classes) = data
    found = prediction_sets(held, labels, new, method=method, counts=COUNTS).evaluate(truth)
    assert found.marginal_coverage == pytest.approx(0.9, abs=0.02)
    assert found.natural_coverage == pytest.approx(found.marginal_coverage, abs=0.01)
    balanced = prediction_sets(held, labels, even, method=method, counts=COUNTS).evaluate(classes)
    if method in ("adjusted", "prevalence", "class"):
        assert balanced.worst_coverage > 0.7
        assert balanced.below_half == 0
    elif method == "marginal":
        assert balanced.worst_coverage < 0.5  # why the others exist
        assert balanced.below_half > 0
    if method == "class":
        assert all(abs(c - 0.9) < 0.06 for c in balanced.per_class_coverage)
    assert f"{100 * balanced.worst_coverage:.1f} % in the worst class {balanced.worst_class}" in str(balanced)


def test_evaluation_by_hand(data):
    (held, labels), _, (even, classes) = data
    sets = prediction_sets(held, labels, even[:200], counts=COUNTS)
    found = sets.evaluate(classes[:200])
    inside = [c in s for s, c in zip(sets, classes[:200], strict=True)]
    by_class = [np.mean([i for i, c in zip(inside, classes, strict=False) if c == k]) for k in range(6)]
    assert found.marginal_coverage == np.mean(inside)
    assert found.per_class_coverage == pytest.approx(by_class)
    assert (found.worst_coverage, found.worst_class) == (min(by_class), int(np.argmin(by_class)))
    assert found.macro_coverage == pytest.approx(np.mean(by_class))
    assert found.mean_size == np.mean([len(s) for s in sets]) == sets.sizes.mean()
    shares = COUNTS / COUNTS.sum()
    assert found.natural_coverage == pytest.approx(shares @ by_class)
    assert np.asarray(sets).shape == (200, 6)
    adjusted = special.softmax(adjust_logits(even[:200], COUNTS), axis=1)
    for chosen, p in zip(sets, adjusted, strict=True):
        np.testing.assert_array_equal(chosen, np.argsort(-p, kind="stable")[: len(chosen)])


def test_the_limit_is_the_right_one_of_the_held_out_scores():
    shares = np.linspace(0.05, 0.95, 19)
    scores = np.stack([shares, 1 - shares], axis=1)
    rule = fit_sets(scores, np.zeros(19, int), method="marginal", counts=[5, 5])
    assert rule.limits[0] == pytest.approx(1 - shares[1])  # the ceil(20 * 0.9) = 18th smallest of 1 - p
    pairs = np.tile(scores, (3, 1))
    grouped = fit_sets(
        pairs, np.zeros(57, int), method="marginal", counts=[5, 5], groups=np.tile(np.arange(19), 3)
    )
    assert grouped.limits[0] == rule.limits[0]
    tracks = np.repeat(np.arange(19), 3)  # the highest three are one track: as if nothing were held out of it
    by_track = fit_sets(
        np.repeat(scores, 3, axis=0)[:27],
        np.zeros(27, int),
        method="marginal",
        counts=[5, 5],
        groups=tracks[:27],
    )
    assert by_track.limits[0] == pytest.approx(1 - shares[0])  # 9 tracks: the highest of all
    assert np.isinf(
        fit_sets(scores[:8].repeat(3, 0), np.zeros(24, int), counts=[5, 5], groups=tracks[:24]).limits[0]
    )


@pytest.mark.parametrize(("samples", "infinite"), [(8, True), (9, False)])
def test_a_class_with_too_few_samples_is_in_every_set_and_said(samples, infinite):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [200, samples])
    logits = rng.normal(size=(len(labels), 2)) + 3 * np.eye(2)[labels]
    sets = prediction_sets(logits, labels, np.array([[9.0, -9.0]]), method="class")
    assert np.isinf(sets.rule.limits[1]) == infinite == (1 in sets[0])
    told = "1 of the classes have fewer than the 9 held-out samples that 90 % needs and are in every set: 1"
    assert (sets.note == told) == infinite
    mixed = prediction_sets(logits, labels, logits, method="interpolated", interpolation=1)
    assert sets.rule.limits[0] == mixed.rule.limits[0]
    assert (mixed.rule.limits[1] == 1) == infinite
    assert "fewer than the 9 held-out samples" in mixed.note or not infinite
    everything = prediction_sets(logits[:8], labels[:8], logits, method="marginal", counts=[5, 5])
    assert everything.sizes.min() == 2
    assert everything.note.startswith("8 held-out samples are fewer than the 9 that 90 % needs")


def test_probabilities_are_told_from_logits(data):
    (held, labels), (new, _), _ = data
    shares = special.softmax(held, axis=1), special.softmax(new, axis=1)
    for method in METHODS:
        by_logits = prediction_sets(held, labels, new, method=method)
        by_shares = prediction_sets(shares[0], labels, shares[1], method=method)
        assert (by_logits.contains != by_shares.contains).mean() < 1e-4


LOGITS, LABELS = np.array([[2.0, -1.0, 0.0], [0.0, 1.5, -1.0], [-1.0, 0.0, 3.0]]), [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "change", "message"),
    [
        ((LOGITS, LABELS, LOGITS), {"alpha": 0}, r"alpha must be in \(0, 1\), got 0; 0.1 covers 90 %"),
        ((LOGITS, LABELS, LOGITS), {"alpha": 90}, r"alpha must be in \(0, 1\), got 90"),
        ((LOGITS, LABELS, LOGITS), {"method": "mondrian"}, "method must be one of 'adjusted'"),
        ((LOGITS, LABELS[:2], LOGITS), {}, "held_out_labels must be one a row of held_out_scores, 3, got 2"),
        ((LOGITS, [0, 1, 3], LOGITS), {}, "held_out_labels must lie in 0 to 2"),
        ((LOGITS, LABELS, LOGITS[:, :2]), {}, r"scores must have shape \(N, 3\)"),
        ((LOGITS * np.nan, LABELS, LOGITS), {}, "held_out_scores has NaN"),
        ((LOGITS, LABELS, LOGITS * np.nan), {}, "scores has NaN"),
        ((np.full((3, 3), 0.3), LABELS, LOGITS), {}, "held_out_scores lie in .* row 0 sums to 0.9"),
        ((LOGITS, [0, 1, 1], LOGITS), {}, r"classes 2 have no held-out samples.* give the training samples"),
        (
            (LOGITS, [0, 1, 1], LOGITS),
            {"method": "class"},
            "needs held-out samples of every class, but 2 have",
        ),
        ((LOGITS, LABELS, LOGITS), {"groups": [1]}, "groups must be one a sample, 3, got 1"),
        ((LOGITS, LABELS, LOGITS), {"counts": [5, 5]}, "counts must have 3 elements"),
    ],
)
def test_errors(arguments, change, message):
    with pytest.raises(ValueError, match=message):
        prediction_sets(*arguments, **change)


def test_labels_go_by_the_names_of_the_counts(data):
    (held, labels), (new, truth), _ = data
    names = np.array(list("zyxwvu"))  # a mapping is in the order of the outputs
    told = dict(zip(names.tolist(), COUNTS.tolist(), strict=True))
    for method in METHODS:
        expected = prediction_sets(held, labels, new, counts=COUNTS, method=method)
        found = prediction_sets(held, names[labels], new, counts=told, method=method)
        assert (found.contains == expected.contains).all()
        assert found.evaluate(names[truth].tolist()) == found.evaluate(truth) == expected.evaluate(truth)
    with pytest.raises(ValueError, match="labels have 'a', which counts does not name; it names 'z', 'y'"):
        found.evaluate(["a"] * len(new))
    unnamed = prediction_sets(held, labels, new)
    with pytest.raises(
        TypeError, match="but counts names no class; give counts= to prediction_sets or fit_s"
    ):
        unnamed.evaluate(names[truth])
    for counts in (None, COUNTS):
        with pytest.raises(
            TypeError, match=r"held_out_labels are names such as .*, but counts names no class; give"
        ):
            prediction_sets(held, names[labels], new, counts=counts)
    with pytest.raises(ValueError, match="counts must have 6 elements, one per column of the scores, got 7"):
        prediction_sets(held, names[labels], new, counts=told | {"a": 1})


def test_more_errors():
    with pytest.raises(TypeError, match="scores must be floating point, got int64"):
        prediction_sets(LOGITS, LABELS, LOGITS.astype(int))
    with pytest.raises(ValueError, match="labels must be one a set, 3, got 1"):
        prediction_sets(LOGITS, LABELS, LOGITS).evaluate([0])
    rule = fit_sets(LOGITS, [0, 1, 1], counts=[5, 4, 3], alpha=0.5)
    assert "nothing held out says how well these classes are covered: 2" in rule.note
