"""Adapters: what a framework asks of its members, and that they say what the library says alone."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold, cross_val_score
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import check_estimator

import longtail
from longtail.adapters.sklearn import ClassBalancedClassifier, PriorAdjustedClassifier

TABLES = Path(__file__).parents[1].parent / "shared" / "data" / "tabular"


@pytest.fixture
def tail(rng):
    """Three overlapping classes of 300, 60 and 12 samples, with text as labels, out of order."""
    y = np.repeat(["lynx", "cat", "ape"], [300, 60, 12])
    centres = {"lynx": [0, 0], "cat": [1.5, 0], "ape": [0, 1.5]}
    X = np.stack([rng.normal(centres[label]) for label in y])
    order = rng.permutation(len(y))
    return X[order], y[order]


def logistic(**options):
    return LogisticRegression(max_iter=1000, **options)


# ---- scikit-learn's own checks


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize(
    "model",
    [
        ClassBalancedClassifier(logistic()),
        ClassBalancedClassifier(DecisionTreeClassifier(random_state=0), scheme="inverse"),
        PriorAdjustedClassifier(logistic()),
        PriorAdjustedClassifier(logistic(class_weight="balanced")),
        PriorAdjustedClassifier(LinearSVC(random_state=0, tol=1e-12, max_iter=100_000)),
        PriorAdjustedClassifier(GaussianNB()),
        PriorAdjustedClassifier(logistic(), tau="tune", cv=2),
        PriorAdjustedClassifier(ClassBalancedClassifier(logistic())),
    ],
    ids=lambda value: repr(value)[:60],
)
@pytest.mark.filterwarnings("ignore")  # what the checks give estimators is to make them warn
def test_scikit_learns_checks(model, routing):
    with config_context(enable_metadata_routing=routing):
        done = check_estimator(model, on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in done if r["status"] not in ("passed", "skipped")] == []
    assert {r["check_name"] for r in done if r["status"] == "skipped"} <= {"check_array_api_input"}
    assert len(done) > 50


# ---- class-balanced


def test_it_is_the_estimator_with_our_sample_weights(tail):
    X, y = tail
    for options in ({}, {"beta": 0.9}, {"volume": 50}, {"scheme": "inverse_sqrt"}):
        model = ClassBalancedClassifier(logistic(), **options).fit(X, y)
        known = logistic().fit(X, y, sample_weight=longtail.sample_weights(y, **options))
        np.testing.assert_array_equal(model.predict_proba(X), known.predict_proba(X))
        np.testing.assert_array_equal(model.decision_function(X), known.decision_function(X))
        assert model.classes_.tolist() == ["ape", "cat", "lynx"]
        weights = longtail.class_weights(longtail.class_counts(y), normalize="samples", **options)
        assert dict(zip(model.classes_, model.class_weight_, strict=True)) == pytest.approx(dict(weights))


def test_a_weight_of_the_callers_is_multiplied_and_counts_samples(tail):
    X, y = tail
    own = np.where(y == "ape", 3.0, 1.0)
    model = ClassBalancedClassifier(logistic(), beta=0.99).fit(X, y, sample_weight=own)
    counts = {"ape": 36, "cat": 60, "lynx": 300}
    weights = longtail.class_weights(counts, beta=0.99, normalize="samples")
    known = logistic().fit(X, y, sample_weight=own * np.array([weights[label] for label in y]))
    np.testing.assert_allclose(model.predict_proba(X), known.predict_proba(X), rtol=1e-12)


class Recorder(ClassifierMixin, BaseEstimator):
    """Keeps what each fit got, in a list that clones share."""

    seen = []  # noqa: RUF012

    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        self.seen.append((X, y, sample_weight))
        return self

    def predict_proba(self, X):
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))

    def predict(self, X):
        return np.repeat(self.classes_[:1], len(X))


def test_the_weights_of_a_fold_come_from_its_own_labels(tail):
    X, y = tail
    Recorder.seen.clear()
    folds = StratifiedKFold(3)
    cross_val_score(ClassBalancedClassifier(Recorder(), beta=0.99), X, y, cv=folds)
    assert len(Recorder.seen) == 3
    for (train, _), (inputs, labels, weights) in zip(folds.split(X, y), Recorder.seen, strict=True):
        np.testing.assert_array_equal(inputs, X[train])
        np.testing.assert_array_equal(weights, longtail.sample_weights(y[train], beta=0.99))
        np.testing.assert_array_equal(labels, y[train])
        leaked = longtail.sample_weights(y, beta=0.99)[train]
        assert not np.allclose(weights, leaked, rtol=0.01)


@pytest.mark.parametrize(
    ("estimator", "error", "message"),
    [
        (logistic(class_weight="balanced"), ValueError, "class_weight='balanced'.*twice; leave it out"),
        (SVC(class_weight={0: 2}), ValueError, "weighed twice"),
        (CalibratedClassifierCV(logistic(class_weight="balanced")), ValueError, "estimator__class_weight"),
        (make_pipeline(StandardScaler(), logistic()), ValueError, "put this classifier there: make_pipeline"),
        (KNeighborsClassifier(), TypeError, "takes no sample_weight; wrap the classifier inside it"),
        (
            GridSearchCV(logistic(), {"C": [1]}),
            TypeError,
            "takes no sample_weight; wrap the classifier inside",
        ),
    ],
)
def test_estimators_that_cannot_be_weighed_are_refused(estimator, error, message, tail):
    with pytest.raises(error, match=message):
        ClassBalancedClassifier(estimator).fit(*tail)


@pytest.mark.parametrize("model", [ClassBalancedClassifier, PriorAdjustedClassifier])
def test_several_outputs_are_refused(model, tail):
    with pytest.raises(ValueError, match=r"one label a sample, got several outputs.*MultiOutputClassifier"):
        model(logistic()).fit([[0], [1], [2]], [[0, 1], [1, 0], [1, 1]])
    with pytest.raises(ValueError, match="sample_weight must not be zero for every sample"):
        model(DecisionTreeClassifier()).fit(*tail, sample_weight=np.zeros(len(tail[1])))


def test_options_of_the_weights_are_checked_when_fitted(tail):
    with pytest.raises(ValueError, match="both given"):
        ClassBalancedClassifier(logistic(), beta=0.9, volume=10).fit(*tail)
    with pytest.raises(ValueError, match="scheme must be one of"):
        ClassBalancedClassifier(logistic(), scheme="efective").fit(*tail)


# ---- adjusted to a prior


def test_the_training_target_gives_probabilities_back_after_weighting(tail, rng):
    X, y = tail
    fresh = np.stack(
        [rng.normal([[0, 0], [1.5, 0], [0, 1.5]][k]) for k in np.repeat([0, 1, 2], [3000, 600, 120])]
    )
    truth = np.repeat(["lynx", "cat", "ape"], [3000, 600, 120])
    plain = logistic().fit(X, y)
    weighted = logistic(class_weight="balanced")
    back = PriorAdjustedClassifier(weighted, target="training").fit(X, y)
    losses = [log_loss(truth, m.predict_proba(fresh)) for m in (plain, back, clone(weighted).fit(X, y))]
    assert losses[1] < losses[0] + 0.02 < losses[2] - 0.1


@pytest.mark.parametrize("own", [None, "balanced", {"lynx": 1, "cat": 2, "ape": 7}])
@pytest.mark.parametrize("target", ["uniform", "training", {"lynx": 0.2, "cat": 0.3, "ape": 0.5}])
def test_decisions_are_those_of_adjust_logits_by_hand(own, target, tail):
    X, y = tail
    inner = logistic(class_weight=own)
    model = PriorAdjustedClassifier(inner, target=target).fit(X, y)
    counts, weights = [12, 60, 300], [7, 2, 1]
    if own is None:
        weights = None
    elif own == "balanced":
        weights = [1 / 12, 1 / 60, 1 / 300]
    wanted = [0.5, 0.3, 0.2] if isinstance(target, dict) else target
    logits = clone(inner).fit(X, y).decision_function(X)
    adjusted = longtail.adjust_logits(logits, counts, weight=weights, target=wanted)
    assert model.predict(X).tolist() == model.classes_[adjusted.argmax(1)].tolist()
    powers = np.exp(adjusted - adjusted.max(1, keepdims=True))
    np.testing.assert_allclose(model.predict_proba(X), powers / powers.sum(1, keepdims=True), rtol=1e-9)


@pytest.mark.parametrize(
    "inner",
    [
        logistic(class_weight="balanced"),
        RandomForestClassifier(20, min_samples_leaf=20, class_weight="balanced", random_state=0),
        HistGradientBoostingClassifier(max_iter=5, class_weight="balanced", random_state=0),
        SVC(class_weight="balanced"),
        LinearSVC(class_weight="balanced", random_state=0),
        RidgeClassifier(class_weight="balanced"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_which_samples_an_estimators_balanced_counts(inner, tail):
    """Weights of a class given to fit do, or do not, go into "balanced": both as the estimator has it."""
    X, y = tail[0], np.unique(tail[1], return_inverse=True)[1]
    own = np.where(y == 0, 4.0, 1.0)
    model = PriorAdjustedClassifier(inner).fit(X, y, sample_weight=own)
    assert model.class_count_.tolist() == [12, 60, 300]
    seen = model.class_weight_ * model.class_count_
    by_samples = {label: 372 / (3 * n) for label, n in enumerate([12, 60, 300])}
    explicit = clone(inner).set_params(class_weight=by_samples).fit(X, y, sample_weight=own)
    output = "predict_proba" if hasattr(explicit, "predict_proba") else "decision_function"
    same = np.allclose(getattr(explicit, output)(X), getattr(model.estimator_, output)(X), atol=1e-3)
    np.testing.assert_allclose(seen / seen[2], [4, 1, 1] if same else [1, 1, 1])


def test_weights_given_to_fit_and_those_of_an_inner_balancing_count_as_seen(tail):
    X, y = tail
    own = longtail.sample_weights(y, "inverse")
    for model in (
        PriorAdjustedClassifier(logistic()).fit(X, y, sample_weight=own),
        PriorAdjustedClassifier(ClassBalancedClassifier(logistic(), scheme="inverse")).fit(X, y),
    ):
        known = logistic().fit(X, y, sample_weight=own)
        np.testing.assert_allclose(model.predict_proba(X), known.predict_proba(X), rtol=1e-9)


def test_two_classes_by_scores_and_by_probabilities(tail):
    X, y = tail
    X, y = X[y != "cat"], y[y != "cat"] == "ape"
    linear = logistic().fit(X, y)
    known = longtail.adjust_logits(linear.decision_function(X), [300, 12]) > 0
    assert PriorAdjustedClassifier(logistic()).fit(X, y).predict(X).tolist() == known.tolist()
    ridge = PriorAdjustedClassifier(RidgeClassifier()).fit(X, y)
    scores = ridge.estimator_.decision_function(X) + np.log(25)
    np.testing.assert_allclose(ridge.predict_proba(X)[:, 1], 1 / (1 + np.exp(-scores)))


def test_costs_move_the_decision_and_not_the_probabilities(tail):
    X, y = tail
    cost = np.array([[0, 9, 9], [1, 0, 1], [1, 1, 0]])  # an ape missed
    plain = PriorAdjustedClassifier(logistic()).fit(X, y)
    model = PriorAdjustedClassifier(logistic(), cost=cost).fit(X, y)
    shares = model.predict_proba(X)
    np.testing.assert_array_equal(shares, plain.predict_proba(X))
    assert model.predict(X).tolist() == model.classes_[(shares @ cost).argmin(1)].tolist()
    assert (model.predict(X) == "ape").sum() > (plain.predict(X) == "ape").sum()


class Unsorted(GaussianNB):
    """Has its columns in another order."""

    def fit(self, X, y, sample_weight=None):
        super().fit(X, y, sample_weight)
        self.classes_ = self.classes_[::-1]
        return self

    def predict_proba(self, X):
        return super().predict_proba(X)[:, ::-1]


def test_columns_in_another_order(tail):
    X, y = tail
    one, other = (
        PriorAdjustedClassifier(inner, tau="tune").fit(X, y) for inner in (GaussianNB(), Unsorted())
    )
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    assert one.tau_ == other.tau_
    balanced = ClassBalancedClassifier(Unsorted(), scheme="inverse").fit(X, y)
    assert balanced.class_weight_[0] < balanced.class_weight_[2]


# ---- tuned


def test_tau_is_chosen_by_predictions_out_of_fold(tail):
    X, y = tail
    model = PriorAdjustedClassifier(logistic(), tau="tune", cv=4).fit(X, y)
    logits = np.empty((len(y), 3))
    for train, test in StratifiedKFold(4).split(X, y):
        logits[test] = np.log(logistic().fit(X[train], y[train]).predict_proba(X[test]))
    codes = np.searchsorted(["ape", "cat", "lynx"], y)
    known = longtail.tune_adjustment(logits, codes, [12, 60, 300])
    assert model.adjustment_ == known
    assert model.tau_ == known.tau > 0
    fixed = PriorAdjustedClassifier(logistic(), tau=known.tau).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), fixed.predict_proba(X))
    assert fixed.adjustment_ is None


def test_labels_as_noise_are_left_alone(rng):
    X, y = rng.normal(size=(200, 2)), np.repeat([0, 1], [190, 10])
    noise = PriorAdjustedClassifier(GaussianNB(), tau="tune").fit(X, y)
    assert not noise.adjustment_.distinguishable
    assert "Not distinguishable" in noise.adjustment_.verdict


def test_a_class_that_folds_lack(tail):
    X, y = tail
    X, y = (
        np.concatenate([X, [[9.0, 9.0]]]),
        np.append(y, "yak"),
    )  # one sample: the fold that tests it lacks it
    model = PriorAdjustedClassifier(GaussianNB(var_smoothing=0.1), tau="tune")
    model.fit(X, y)
    assert model.adjustment_.thin == (3,)
    assert model.classes_.tolist() == ["ape", "cat", "lynx", "yak"]
    X, y = X[:20], np.array(["a"] * 19 + ["b"])  # the rest of a fold is one class
    assert PriorAdjustedClassifier(logistic(), tau="tune").fit(X, y).adjustment_.thin == (1,)


def test_groups_stay_together_with_routing_and_without(tail):
    X, y = tail
    groups = np.arange(len(y)) // 4
    seen = []

    class Watched(GroupKFold):
        def split(self, X, y=None, groups=None):
            for train, test in super().split(X, y, groups):
                seen.append(set(groups[train]) & set(groups[test]))
                yield train, test

    for routing in (False, True):
        with config_context(enable_metadata_routing=routing):
            default = PriorAdjustedClassifier(logistic(), tau="tune").fit(X, y, groups=groups)
            PriorAdjustedClassifier(logistic(), tau="tune", cv=Watched(3)).fit(X, y, groups=groups)
    assert seen == [set()] * 6
    assert default.adjustment_ != PriorAdjustedClassifier(logistic(), tau="tune").fit(X, y).adjustment_


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": "tuned"}, "tau must be one of 'tune' or a number >= 0.*did you mean 'tune'"),
        ({"tau": -1}, "tau must be in"),
        ({"tau": "tune", "target": "training"}, "chooses for balanced error.*give tau=1.0"),
        ({"tau": "tune", "cost": np.eye(3)}, "chooses for balanced error"),
        ({"target": "balanced"}, "target must be one of"),
        ({"target": [0.5, 0.5]}, "target must be 3 numbers"),
        ({"target": {"lynx": 1.0}}, "target lacks a value for .*; give every class its share"),
        ({"cost": np.eye(2)}, "cost must be finite of shape"),
    ],
)
def test_wrong_options_are_refused_when_fitted(options, message, tail):
    with pytest.raises(ValueError, match=message):
        PriorAdjustedClassifier(logistic(), **options).fit(*tail)


@pytest.mark.parametrize("called", [None, (3, 5, 7)])
def test_a_frame_of_costs_in_another_order_is_refused(called, tail):
    X, y = tail
    if called is not None:  # whole numbers that are no places of columns
        y = np.take(called, np.unique(y, return_inverse=True)[1])
    names = sorted({*y.tolist()})
    cost = pd.DataFrame(1 - np.eye(3), names, names)
    PriorAdjustedClassifier(logistic(), cost=cost).fit(X, y)
    with pytest.raises(ValueError, match=r"columns of cost are .*in this order; give cost\["):
        PriorAdjustedClassifier(logistic(), cost=cost[names[::-1]]).fit(X, y)


def test_estimators_whose_prior_cannot_be_told_are_refused(tail):
    X, y = tail
    with pytest.raises(ValueError, match=r"priors=.*leave it out"):
        PriorAdjustedClassifier(GaussianNB(priors=[0.2, 0.2, 0.6])).fit(X, y)
    pairs = PriorAdjustedClassifier(SVC(decision_function_shape="ovo"))
    with pytest.raises(ValueError, match=r"one a class \(decision_function_shape='ovr'\)"):
        pairs.fit(X, np.arange(len(y)) % 4).predict(X)
    with pytest.raises(TypeError, match="the fit of KNeighborsClassifier takes none"):
        PriorAdjustedClassifier(KNeighborsClassifier()).fit(X, y, sample_weight=np.ones(len(y)))


def test_zeros_warn_once_a_call(tail):
    X, y = tail
    model = PriorAdjustedClassifier(DecisionTreeClassifier(random_state=0)).fit(X, y)
    with pytest.warns(UserWarning, match="are exactly 0") as caught:
        model.predict(X)
    assert len(caught) == 1


# ---- among others


def test_in_pipelines_searches_and_calibration(tail):
    X, y = tail
    scaled = make_pipeline(StandardScaler(), ClassBalancedClassifier(logistic()))
    search = GridSearchCV(
        scaled, {"classbalancedclassifier__beta": [0.0, 0.9, 0.999]}, scoring="balanced_accuracy"
    )
    assert search.fit(X, y).best_params_ != {"classbalancedclassifier__beta": 0.0}
    around = PriorAdjustedClassifier(search).fit(X, y)
    inner = search.best_estimator_[-1]
    np.testing.assert_allclose(around.class_weight_, inner.class_weight_)

    for model in (ClassBalancedClassifier(logistic()), PriorAdjustedClassifier(logistic(), tau="tune")):
        calibrated = CalibratedClassifierCV(model, cv=3).fit(X, y)
        assert calibrated.predict_proba(X).shape == (len(y), 3)
    inside = PriorAdjustedClassifier(CalibratedClassifierCV(logistic(class_weight="balanced"), cv=3)).fit(
        X, y
    )
    np.testing.assert_array_equal(inside.class_weight_, 1)  # calibration has undone the weights


def test_weights_reach_the_last_step_of_a_pipeline(tail):
    X, y = tail
    own = longtail.sample_weights(y, "inverse")
    known = make_pipeline(StandardScaler(), logistic()).fit(X, y, logisticregression__sample_weight=own)
    model = PriorAdjustedClassifier(make_pipeline(StandardScaler(), logistic()))
    np.testing.assert_allclose(model.fit(X, y, sample_weight=own).predict_proba(X), known.predict_proba(X))
    with config_context(enable_metadata_routing=True):
        steps = (
            StandardScaler().set_fit_request(sample_weight=False),
            logistic().set_fit_request(sample_weight=True),
        )
        model = PriorAdjustedClassifier(make_pipeline(*steps)).fit(X, y, sample_weight=own)
    np.testing.assert_allclose(model.predict_proba(X), known.predict_proba(X))


def test_boosted_trees_cloned_and_pickled(tail):
    X, y = tail
    trees = HistGradientBoostingClassifier(max_iter=10, random_state=0)
    for model in (
        ClassBalancedClassifier(trees, volume=50),
        PriorAdjustedClassifier(trees, tau="tune", cv=3),
    ):
        fitted = clone(model).fit(X, y)
        again = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
        assert (
            balanced_accuracy_score(y, fitted.predict(X))
            > balanced_accuracy_score(y, clone(trees).fit(X, y).predict(X)) - 0.01
        )


@pytest.mark.skipif(not (TABLES / "page-blocks.npz").exists(), reason="the table page-blocks is not here")
def test_on_page_blocks_a_tuned_prior_beats_plain_boosted_trees():
    with np.load(TABLES / "page-blocks.npz") as data:
        X, y = data["X"], data["y"]
    train, test = next(StratifiedKFold(2, shuffle=True, random_state=0).split(X, y))
    trees = HistGradientBoostingClassifier(max_iter=30, random_state=0)
    plain = trees.fit(X[train], y[train]).predict(X[test])
    tuned = PriorAdjustedClassifier(trees, tau="tune", cv=3).fit(X[train], y[train]).predict(X[test])
    assert balanced_accuracy_score(y[test], tuned) > balanced_accuracy_score(y[test], plain) + 0.03


def test_boosting_looks_its_class_weight_up_by_the_places_of_the_labels(rng):
    y = np.repeat([1, 2], [90, 30])
    x = rng.normal(size=(120, 2))
    trees = HistGradientBoostingClassifier(max_iter=1, learning_rate=1e-9, class_weight={0: 1.0, 1: 10.0})
    model = PriorAdjustedClassifier(trees, target="training").fit(x, y)
    assert model.class_weight_.tolist() == [1.0, 10.0]
    # trees that learn nothing say the prior that they saw; the right one comes back
    assert model.estimator_.predict_proba(x[:1])[0] == pytest.approx([90 / 390, 300 / 390])
    assert model.predict_proba(x[:1])[0] == pytest.approx([0.75, 0.25])


def test_weights_behind_a_sampler_of_imbalanced_learn_are_one(rng):
    pipeline = pytest.importorskip("imblearn.pipeline")
    over = pytest.importorskip("imblearn.over_sampling").RandomOverSampler(random_state=0)
    y = np.repeat(["cat", "lynx"], [60, 12])
    x = rng.normal(size=(72, 2)) + (y == "lynx")[:, None]
    made = pipeline.make_pipeline(over, ClassBalancedClassifier(LogisticRegression(), scheme="inverse"))
    assert made.fit(x, y).steps[-1][1].class_weight_ == pytest.approx([1.0, 1.0])


# ---- what hides the prior


def hiding():
    balanced = logistic(class_weight="balanced")
    return [
        ("a flag", Flagged(is_unbalance=True), "has is_unbalance=True, which hides"),
        ("bagging", BaggingClassifier(balanced, 3), "has estimator__class_weight='balanced' inside"),
        (
            "voting",
            VotingClassifier([("a", balanced)], voting="soft"),
            "has a__class_weight='balanced' inside",
        ),
        (
            "weights",
            BaggingClassifier(ClassBalancedClassifier(logistic()), 3),
            "has ClassBalancedClassifier inside",
        ),
        (
            "the last of a stack",
            StackingClassifier([("a", logistic())], final_estimator=balanced),
            "has final_estimator__class_weight='balanced' inside",
        ),
        ("no prior", MultinomialNB(fit_prior=False), "has fit_prior=False"),
        (
            "a sampler",
            Pipeline([("twice", Twice()), ("last", logistic())]),
            "has the step Twice, which changes how",
        ),
    ]


class Flagged(LogisticRegression):
    """As LightGBM's, with a switch that weighs classes."""

    def __init__(self, is_unbalance=False):
        super().__init__()
        self.is_unbalance = is_unbalance


class Twice(BaseEstimator):
    """As imbalanced-learn's samplers, in a Pipeline."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X

    def fit_resample(self, X, y):
        return X, y


@pytest.mark.parametrize("place", range(7))
def test_an_ensemble_or_a_sampler_that_hides_the_prior_is_refused(place):
    name, estimator, message = hiding()[place]
    X, y = np.abs(np.random.default_rng(0).normal(size=(60, 2))), ["a"] * 45 + ["b"] * 15
    with pytest.raises(ValueError, match=message):
        PriorAdjustedClassifier(estimator).fit(X, y)
    if name == "a flag":
        with pytest.raises(ValueError, match="has is_unbalance=True, and classes would be weighed twice"):
            ClassBalancedClassifier(estimator).fit(X, y)
        PriorAdjustedClassifier(Flagged()).fit(X, y)


def test_what_is_fitted_to_the_shares_of_the_labels_hides_nothing():
    balanced = logistic(class_weight="balanced")
    X, y = np.random.default_rng(0).normal(size=(60, 2)), ["a"] * 45 + ["b"] * 15
    for estimator in (
        CalibratedClassifierCV(balanced, cv=3),
        StackingClassifier([("a", balanced)], final_estimator=logistic()),
    ):
        assert PriorAdjustedClassifier(estimator).fit(X, y).class_weight_.tolist() == [1, 1]


def test_what_weighs_nothing_inside_an_ensemble_hides_nothing():
    balanced = logistic(class_weight="balanced")
    X, y = np.random.default_rng(0).normal(size=(60, 2)), [0] * 45 + [1] * 15
    calibrated = CalibratedClassifierCV(balanced, cv=3)
    stacked = StackingClassifier([("b", balanced)], final_estimator=logistic())
    ones = logistic(class_weight={0: 1, 1: 1.0})
    for part in (
        calibrated,
        stacked,
        ones,
        logistic(class_weight={1: 1}),
        make_pipeline(StandardScaler(), calibrated),
    ):
        model = PriorAdjustedClassifier(VotingClassifier([("a", part)], voting="soft"))
        assert model.fit(X, y).class_weight_.tolist() == [1, 1]
    ClassBalancedClassifier(ones).fit(X, y)
    tempered = CalibratedClassifierCV(balanced, cv=3)
    tempered.method = "temperature"  # which keeps the shares that the inner one saw
    over = StackingClassifier([("b", logistic())], final_estimator=balanced)
    tenfold = logistic(class_weight={1: 10})  # the other class weighs 1
    for parts in ([("a", tempered)], [("a", over)], [("a", tenfold)], [("a", calibrated), ("ab", balanced)]):
        with pytest.raises(ValueError, match=r"has .*class_weight=.* inside, which hides the prior"):
            PriorAdjustedClassifier(VotingClassifier(parts, voting="soft")).fit(X, y)


def test_weights_that_pass_by_the_adjustment_are_refused():
    X, y = np.random.default_rng(0).normal(size=(60, 2)), ["a"] * 45 + ["b"] * 15
    weights = np.where(np.array(y) == "b", 9.0, 1.0)
    model = PriorAdjustedClassifier(make_pipeline(StandardScaler(), logistic()))
    with pytest.raises(ValueError, match=r"logisticregression__sample_weight weighs .*; give sample_weight"):
        model.fit(X, y, logisticregression__sample_weight=weights)
    assert model.fit(X, y, sample_weight=weights).class_weight_.tolist() == [1, 9]
