"""Two classifiers around another of scikit-learn: one weighs its training, one adjusts its decisions.

Both are estimators: they are cloned, searched, calibrated and put into pipelines like others.
"""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks
from longtail.adjust import TunedAdjustment, adjust_probabilities, cost_matrix, logit_shift, tune_adjustment
from longtail.counts import ClassCounts
from longtail.weights import DEFAULT_BETA, class_weights

try:
    from scipy.special import softmax
    from sklearn import get_config
    from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
    from sklearn.model_selection import StratifiedGroupKFold, check_cv
    from sklearn.model_selection._search import BaseSearchCV
    from sklearn.pipeline import Pipeline
    from sklearn.utils import check_consistent_length, column_or_1d, indexable
    from sklearn.utils.class_weight import compute_class_weight
    from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
    from sklearn.utils.metaestimators import _safe_split, available_if
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import (
        _check_method_params,
        _check_sample_weight,
        check_is_fitted,
        has_fit_parameter,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"longtail.adapters.sklearn needs {error.name}; pip install 'longtail[sklearn]'", name=error.name
    ) from error

__all__ = ["ClassBalancedClassifier", "PriorAdjustedClassifier"]

Array = npt.NDArray[Any]

# by which estimators of scikit-learn, LightGBM, XGBoost and CatBoost weigh classes themselves
_WEIGHING = (
    *("class_weight", "class_weights", "auto_class_weights", "scale_pos_weight", "is_unbalance"),
    *("unbalance", "unbalanced_sets"),
)
# what else hides the shares of the labels
_HIDING = (*_WEIGHING[1:], "priors", "class_prior")
_FLOOR = 1e-6  # as adjust_probabilities takes a probability of 0
_NEVER = -1e9  # the logit of a class that a fold's training did not see


class _Around(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """What both have in common: labels and weights checked, metadata routed, the inner one's tags."""

    estimator: Any
    estimator_: Any

    def __sklearn_tags__(self) -> Any:  # asked from scikit-learn 1.6 on
        from sklearn.utils import get_tags

        tags, inner = super().__sklearn_tags__(), get_tags(self.estimator)
        tags.input_tags = inner.input_tags
        if inner.classifier_tags is not None:
            tags.classifier_tags = dataclasses.replace(inner.classifier_tags, multi_label=False)
        tags.non_deterministic = inner.non_deterministic
        return tags

    def get_metadata_routing(self) -> Any:
        """Return who takes what of the arguments of ``fit``, with scikit-learn's metadata routing on."""
        router = MetadataRouter(owner=self).add_self_request(self)
        return router.add(
            estimator=self.estimator, method_mapping=MethodMapping().add(caller="fit", callee="fit")
        )

    def _routed(self, params: dict[str, object]) -> tuple[dict[str, object], dict[str, object]]:
        """What of the further arguments of ``fit`` the estimator gets, and what the folds get."""
        if not params:
            return {}, {}
        if get_config()["enable_metadata_routing"]:
            routed = process_routing(self, "fit", **params)
            return dict(routed["estimator"]["fit"]), dict(routed.get("splitter", {}).get("split", {}))
        folds = [name for name in params if name == "groups" and hasattr(self, "cv")]
        return params, {name: params.pop(name) for name in folds}

    def _take_over(self) -> None:
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))


def _labels(owner: Any, X: Any, y: Any, sample_weight: Any) -> tuple[Array, Array]:
    """Check what ``fit`` gets; the labels and the weights of its samples as arrays."""
    name = type(owner).__name__
    if y is None:
        raise ValueError(
            f"{name} requires y to be passed, but the target y is None; fit it with the samples' labels"
        )
    check_classification_targets(y)
    if (kind := type_of_target(y)).startswith("multi") and kind != "multiclass":
        raise ValueError(
            f"y must be one label a sample, got several outputs ({kind}); wrap this classifier in "
            "sklearn.multioutput.MultiOutputClassifier, which fits one a column"
        )
    labels = column_or_1d(y, warn=True)
    check_consistent_length(X, labels)
    if sample_weight is not None and not np.any(np.asarray(sample_weight)):
        raise ValueError("sample_weight must not be zero for every sample; leave it out for equal weights")
    return labels, _check_sample_weight(sample_weight, X)


def _weighing(params: Mapping[str, object], names: tuple[str, ...] = _WEIGHING) -> str:
    """The first parameter that weighs classes, at any depth, as ``name=value``; "" if none does."""
    for name, value in params.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        off = value is None or value is False or (number and value in (0, 1))
        if isinstance(value, Mapping):  # of classes, and those that it lacks weigh 1
            off = all(weight == 1 for weight in value.values())
        if name.rsplit("__")[-1] in names and not off:
            return f"{name}={_checks.shorten([value])}"
    return ""


def _inner_has(name: str) -> Any:
    def check(self: Any) -> bool:
        return hasattr(self.estimator_ if hasattr(self, "estimator_") else self.estimator, name)

    return available_if(check)


class ClassBalancedClassifier(_Around):
    """A classifier whose training weighs rare classes more.

    The weights come from the labels that ``fit`` gets, so that in a cross-validation each fold has its own
    and none knows of the held-out samples. They are multiplied with the caller's ``sample_weight``, which
    counts samples: one of weight 2 is two of them, in the counts of the classes, too.

    Args:
        estimator: a classifier whose ``fit`` takes ``sample_weight``, without class weights of its own.
        scheme: see `longtail.class_weights`: "effective" | "inverse" | "inverse_sqrt" | "none".
        beta: for "effective", in [0, 1], one for all classes, or one a class in sorted order or by label.
        volume: N = 1 / (1 - beta) instead of ``beta``.

    Attributes:
        estimator_: the fitted estimator.
        classes_: the labels, in the estimator's order.
        class_weight_: the weight of each; over the samples their mean is 1.

    Example:
        >>> from sklearn.tree import DecisionTreeClassifier
        >>> model = ClassBalancedClassifier(DecisionTreeClassifier(), scheme="inverse")
        >>> model.fit([[0], [1], [2], [3]], ["cat", "cat", "cat", "lynx"]).class_weight_.round(3)
        array([0.667, 2.   ])

    Source: Cui et al. (CVPR 2019), equation 4; weights normalised as boosted trees need them.
    """

    def __init__(
        self, estimator: Any, *, scheme: str = "effective", beta: Any = 0.999, volume: Any = None
    ) -> None:
        self.estimator = estimator
        self.scheme = scheme
        self.beta = beta
        self.volume = volume

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> ClassBalancedClassifier:
        """Fit the estimator with ``sample_weight`` times the weights of the classes.

        Args:
            X: the samples, as the estimator takes them.
            y: one label a sample, of any kind.
            sample_weight: one a sample, or None for equal ones.
            **params: further arguments of the estimator's ``fit``.

        Raises:
            TypeError: an estimator that takes no ``sample_weight``.
            ValueError: an estimator with class weights of its own, or that is a Pipeline; labels of several
                outputs; and as `longtail.class_weights`.
        """
        name = type(self.estimator).__name__
        if isinstance(self.estimator, Pipeline):
            raise ValueError(
                "estimator is a Pipeline, which hands no weights to its last step; put this classifier "
                "there: make_pipeline(StandardScaler(), ClassBalancedClassifier(LogisticRegression()))"
            )
        if not has_fit_parameter(self.estimator, "sample_weight"):
            raise TypeError(
                f"estimator is {name}, whose fit takes no sample_weight; wrap the classifier inside it, or "
                "use PriorAdjustedClassifier, which needs none"
            )
        if own := _weighing(self.estimator.get_params(deep=True)):
            raise ValueError(f"estimator {name} has {own}, and classes would be weighed twice; leave it out")
        labels, weights = _labels(self, X, y, sample_weight)
        classes, codes = np.unique(labels, return_inverse=True)
        beta = DEFAULT_BETA if isinstance(self.beta, float) and self.beta == DEFAULT_BETA else self.beta
        balance = class_weights(
            ClassCounts(classes.tolist(), np.bincount(codes, weights=weights)),
            self.scheme,
            beta=beta,
            volume=self.volume,
            normalize="samples",
        ).weights
        given, _ = self._routed(params)
        given["sample_weight"] = weights * balance[codes]
        self.estimator_ = clone(self.estimator).fit(X, labels, **given)
        self.classes_ = self.estimator_.classes_
        self.class_weight_ = balance[np.searchsorted(classes, self.classes_)]
        self._take_over()
        return self

    def predict(self, X: Any) -> Array:
        """Return the estimator's labels, shape (N,)."""
        check_is_fitted(self)
        return np.asarray(self.estimator_.predict(X))

    @_inner_has("predict_proba")
    def predict_proba(self, X: Any) -> Array:
        """Return the estimator's probabilities, shape (N, C)."""
        check_is_fitted(self)
        return np.asarray(self.estimator_.predict_proba(X))

    @_inner_has("predict_log_proba")
    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of the estimator's probabilities, shape (N, C)."""
        check_is_fitted(self)
        return np.asarray(self.estimator_.predict_log_proba(X))

    @_inner_has("decision_function")
    def decision_function(self, X: Any) -> Array:
        """Return the estimator's scores, shape (N, C), or (N,) for two classes."""
        check_is_fitted(self)
        return np.asarray(self.estimator_.decision_function(X))


class PriorAdjustedClassifier(_Around):
    """A classifier that is trained as it is, and decides for another prior than the one it saw.

    It saw the shares of the labels, times the estimator's ``class_weight`` and the ``sample_weight`` of
    ``fit``; so nothing is corrected twice. Probabilities of the estimator are used, and where it has none
    the values of its ``decision_function`` as logits.

    Args:
        estimator: a classifier with ``predict_proba`` or ``decision_function``; also a Pipeline or a search.
        target: the prior to decide for. "uniform": every class counts the same, for balanced error;
            "training": the shares of y, which gives the right probabilities back after any weighting; or
            shares that sum to 1, in the order of ``classes_`` or by label.
        tau: how much of the prior to take away, >= 0; or "tune": chosen by out-of-fold predictions for
            balanced error (`longtail.tune_adjustment`), which may answer 0.
        cost: what it costs to predict column j where row i is true, shape (C, C) in the order of
            ``classes_``; then ``predict`` takes the class of the lowest expected cost under the target's
            shares: where classes are as frequent as in y, give target="training", too.
        cv: folds for "tune": a number of stratified ones (of whole groups, if ``fit`` gets ``groups``), or
            what scikit-learn takes as ``cv``.

    Attributes:
        estimator_: the estimator, fitted on all samples.
        classes_: the labels, sorted.
        class_count_: samples of each; those of weight 0 are none.
        class_weight_: with how much weight the estimator saw a sample of each.
        tau_: how much of the prior is taken away.
        adjustment_: the `longtail.adjust.TunedAdjustment` of "tune", with how sure it is; else None.

    Example:
        >>> from sklearn.naive_bayes import GaussianNB
        >>> X = np.random.default_rng(0).normal(size=(100, 1))
        >>> model = PriorAdjustedClassifier(GaussianNB()).fit(X, ["cat"] * 90 + ["lynx"] * 10)
        >>> model.class_count_, bool((model.predict(X) == "lynx").sum() > 10)
        (array([90, 10]), True)

    Source: see `longtail.adjust_logits`; cost: Elkan (IJCAI 2001).
    """

    def __init__(
        self, estimator: Any, *, target: Any = "uniform", tau: Any = 1.0, cost: Any = None, cv: Any = 5
    ) -> None:
        self.estimator = estimator
        self.target = target
        self.tau = tau
        self.cost = cost
        self.cv = cv

    def get_metadata_routing(self) -> Any:
        """Return who takes what of the arguments of ``fit``, with scikit-learn's metadata routing on."""
        splitter = StratifiedGroupKFold(self.cv) if isinstance(self.cv, int) else self.cv
        mapping = MethodMapping().add(caller="fit", callee="split")
        return super().get_metadata_routing().add(splitter=splitter, method_mapping=mapping)

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> PriorAdjustedClassifier:
        """Fit the estimator, and for ``tau="tune"`` once more a fold.

        Args:
            X: the samples, as the estimator takes them.
            y: one label a sample, of any kind.
            sample_weight: one a sample, for the estimator's ``fit``; in a Pipeline for that of its last step.
            **params: ``groups`` for the folds, and further arguments of the estimator's ``fit``.

        Raises:
            TypeError: ``sample_weight`` for an estimator that takes none; no probabilities and no scores.
            ValueError: an option that is none; an estimator that weighs classes by another parameter than
                ``class_weight``; labels of several outputs; and as `longtail.adjust_logits`.
        """
        tune = isinstance(self.tau, str)
        if tune:
            _checks.choice("tau", self.tau, ("tune",), also=" or a number >= 0")
            if self.cost is not None or not isinstance(self.target, str) or self.target != "uniform":
                raise ValueError(
                    "tau='tune' chooses for balanced error, which is target='uniform' and no cost; leave "
                    "these out, or give tau=1.0"
                )
        labels, weights = _labels(self, X, y, sample_weight)
        classes = np.unique(labels)
        if len(classes) > 1:  # wrong options are told before all work
            even, once = np.full((1, len(classes)), 1 / len(classes)), np.ones(len(classes))
            tau = 1.0 if tune else self.tau
            adjust_probabilities(even, once, target=self._target(classes), tau=tau)
            if self.cost is not None:
                cost_matrix(self.cost, dict.fromkeys(map(str, classes.tolist()), 1), len(classes))
        if told := [key for key in params if key.endswith("__sample_weight")]:
            raise ValueError(
                f"{told[0]} weighs samples where this classifier does not see it, and so hides the prior; "
                "give sample_weight, which goes to the last step of a Pipeline"
            )
        given, folds = self._routed(params)
        if sample_weight is not None:
            given[_weight_name(self.estimator)] = weights
        self.estimator_ = clone(self.estimator).fit(X, labels, **given)
        self.classes_ = np.sort(self.estimator_.classes_)
        self._take_over()
        known = np.isin(labels, self.classes_) & (weights > 0)
        codes, size = np.searchsorted(self.classes_, labels), len(self.classes_)
        self.class_count_ = np.bincount(codes[known], minlength=size)
        seen = np.bincount(codes[known], weights=weights[known], minlength=size)
        mean = np.divide(seen, self.class_count_, out=np.ones(size), where=self.class_count_ > 0)
        self.class_weight_ = mean * _own_weights(self.estimator_, self.classes_, labels, weights)
        self.adjustment_: TunedAdjustment | None = None
        self.tau_ = 1.0 if tune else self.tau
        if tune and size > 1:
            self.adjustment_ = self._tuned(X, labels, codes, known, given, folds)
            self.tau_ = self.adjustment_.tau
        return self

    def predict(self, X: object) -> Array:
        """Return the most likely labels under the target, or those of the lowest expected cost."""
        shares = self.predict_proba(X)
        scores = shares if self.cost is None else -(shares @ np.asarray(self.cost, dtype=np.float64))
        return np.asarray(self.classes_[scores.argmax(axis=1)])

    def predict_proba(self, X: object) -> Array:
        """Return probabilities under the target prior, shape (N, C).

        Warns:
            UserWarning: the estimator gives probabilities of exactly 0, see `longtail.adjust_probabilities`.
        """
        check_is_fitted(self)
        values, probable = _outputs(self.estimator_, X)
        if len(self.classes_) < 2:
            return np.ones((len(values), 1))
        options = {"target": self._target(self.classes_), "weight": self.class_weight_, "tau": self.tau_}
        if probable:
            return np.asarray(adjust_probabilities(values, self.class_count_, **options))
        return np.asarray(softmax(values + logit_shift(self.class_count_, **options), axis=1))

    def _target(self, classes: Array) -> Any:
        names = dict.fromkeys(classes.tolist())
        return _arrays.align("target", self.target, names, remedy="give every class its share")

    def _tuned(
        self,
        X: object,
        labels: Array,
        codes: Array,
        known: Array,
        given: dict[str, object],
        folds: dict[str, object],
    ) -> TunedAdjustment:
        """Choose tau by predictions of models that did not see the sample."""
        X, groups = indexable(X, folds.get("groups"))
        grouped = groups is not None and isinstance(self.cv, int)
        cv = StratifiedGroupKFold(self.cv) if grouped else check_cv(self.cv, labels, classifier=True)
        with warnings.catch_warnings():  # of classes with fewer samples than folds: the verdict names them
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            parts = list(cv.split(X, labels, **folds))
        logits = np.full((len(labels), len(self.classes_)), _NEVER)
        held = np.zeros(len(labels), dtype=bool)
        for train, test in parts:
            model = clone(self.estimator)
            inputs, targets = _safe_split(model, X, labels, train)
            found = np.unique(targets)
            if len(found) > 1:
                model.fit(inputs, targets, **_check_method_params(X, given, train))
                values, probable = _outputs(model, _safe_split(model, X, labels, test, train)[0])
                found = np.sort(model.classes_)
                values = np.log(np.maximum(values, _FLOOR)) if probable else values
            else:
                values = np.zeros((len(test), 1))
            logits[np.ix_(test, np.searchsorted(self.classes_, found))] = values
            held[test] = True
        held &= known
        return tune_adjustment(
            logits[held],
            codes[held],
            self.class_count_,
            weight=self.class_weight_,
            groups=None if groups is None else np.asarray(groups)[held],
        )


def _outputs(model: Any, X: Any) -> tuple[Array, bool]:
    """What a fitted classifier says, one column a class in sorted order, and whether it is probabilities."""
    size, probable = len(model.classes_), hasattr(model, "predict_proba")
    if not probable and not hasattr(model, "decision_function"):
        raise TypeError(
            f"estimator is {type(model).__name__}, which has neither predict_proba nor decision_function; "
            "wrap it in sklearn.calibration.CalibratedClassifierCV"
        )
    values = np.asarray(model.predict_proba(X) if probable else model.decision_function(X), dtype=np.float64)
    if values.ndim == 1 and size <= 2:
        values = np.stack([np.zeros_like(values), values], axis=1)[:, -size:]
    if values.ndim != 2 or values.shape[1] != size:
        raise ValueError(
            f"estimator {type(model).__name__} gives scores of shape {values.shape} for {size} classes; it "
            "must give one a class (decision_function_shape='ovr')"
        )
    return values[:, np.argsort(model.classes_)], probable


def _weight_name(estimator: object) -> str:
    """Under which name the estimator's ``fit`` takes ``sample_weight``."""
    inner = estimator.estimator if isinstance(estimator, BaseSearchCV) else estimator
    steps = []
    while isinstance(inner, Pipeline):
        step, inner = inner.steps[-1]
        steps.append(step)
    if not has_fit_parameter(inner, "sample_weight"):
        raise TypeError(
            f"sample_weight is given, but the fit of {type(inner).__name__} takes none; leave it out"
        )
    return (
        "sample_weight" if get_config()["enable_metadata_routing"] else "__".join([*steps, "sample_weight"])
    )


def _inside(model: Any) -> str:
    """What an ensemble's members weigh classes by, which its own parameters do not tell; "" if nothing."""
    params = model.get_params(deep=True)
    for place, part in [("", model), *params.items()]:  # what is fitted to the shares of the labels
        name, below = type(part).__name__, f"{place}__" if place else ""
        if name == "CalibratedClassifierCV" and part.method in ("sigmoid", "isotonic"):
            kept = "no parameter"
        elif name.startswith("Stacking"):  # whose last classifier alone decides
            kept = f"{below}final_estimator"
        else:
            continue
        params = {k: v for k, v in params.items() if not k.startswith(below) or k.startswith(kept)}
    inner = {key: value for key, value in params.items() if "__" in key}
    for value in params.values():
        if (
            isinstance(value, _Around)
            or hasattr(value, "fit_resample")
            or hasattr(value, "sampling_strategy")
        ):
            return type(value).__name__
    return _weighing(inner, (*_HIDING, "class_weight"))


def _own_weights(model: Any, classes: Array, labels: Array, weights: Array) -> Array:
    """The class weights that a fitted classifier trained with, in the order of the sorted classes."""
    while hasattr(model, "best_estimator_") or isinstance(model, Pipeline):
        steps = [step for _, step in model.steps] if isinstance(model, Pipeline) else []
        if samplers := [step for step in steps if hasattr(step, "fit_resample")]:
            raise ValueError(
                f"estimator has the step {type(samplers[0]).__name__}, which changes how often a class is "
                "seen and so hides the prior; leave it out"
            )
        model = model.steps[-1][1] if isinstance(model, Pipeline) else model.best_estimator_
    fitted: Any = getattr(model, "class_weight_", None)  # of ClassBalancedClassifier and SVC
    if np.shape(fitted) == classes.shape:
        return np.asarray(fitted, dtype=np.float64)[np.argsort(model.classes_)]
    params = model.get_params(deep=False)
    if other := _weighing(params, _HIDING) or ("fit_prior=False" if params.get("fit_prior") is False else ""):
        raise ValueError(
            f"estimator {type(model).__name__} has {other}, which hides the prior that it saw; leave it out, "
            "or pass sample_weight to fit"
        )
    if "sampling_strategy" in params:  # of imbalanced-learn
        raise ValueError(
            f"estimator {type(model).__name__} draws classes anew, which hides the prior that it saw; use it "
            "alone, as it decides for equal shares already"
        )
    if other := _inside(model):
        raise ValueError(
            f"estimator {type(model).__name__} has {other} inside, which hides the prior that it saw; leave "
            "it out, or put PriorAdjustedClassifier around the inner classifier alone"
        )
    own = params.get("class_weight")
    if isinstance(own, Mapping) and type(model).__module__.startswith("sklearn.ensemble._hist"):
        # HistGradientBoosting looks its dict up by the places of the labels: {1: 10.0} weighs the second
        return np.asarray([float(own.get(place, 1.0)) for place in range(len(classes))])
    if isinstance(own, str):  # "balanced", or "balanced_subsample" of forests
        # some count weights of samples for it since compute_class_weight can; the others count samples
        counting = ("sklearn.linear_model._logistic", "sklearn.svm", "sklearn.ensemble._forest")
        weighted = (
            type(model).__module__.startswith(counting)
            and "sample_weight" in inspect.signature(compute_class_weight).parameters
        )
        here = np.isin(labels, classes)
        codes = np.searchsorted(classes, labels[here])
        sizes = np.bincount(codes, weights=weights[here] if weighted else None, minlength=len(classes))
        share = len(classes) * sizes / sizes.sum()
        return np.asarray(np.divide(1.0, share, out=np.ones(len(classes)), where=share > 0))
    return np.asarray(compute_class_weight(own, classes=classes, y=labels))
