"""Learners of tables: scikit-learn's, and LightGBM, XGBoost and CatBoost where they are installed.

A learner is a preparation of the columns and a classifier, both fitted on a run's training samples alone.
Another package adds one by ``LEARNERS.register``.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from longtail._registry import Registry
from longtail.evaluation.multi_label import LEFT_OUT
from longtail.methods import SYNTHESES, Method
from longtail.sampling import SAMPLING

__all__ = ["DEFAULT", "LEARNERS", "Learner", "learner", "missing_part"]

Array = npt.NDArray[Any]
_CATEGORIES = 100  # of one column that are told apart where each is an input
_BINS = 254  # of one column of HistGradientBoosting
_LEAST: Final = 1e-12  # of one label: what is ranked by its score should not be cut to one value
FLOOR: Final = 1e-6  # what a probability of 0 is taken for, as in longtail.adjust_probabilities


@dataclass(frozen=True)
class Learner:
    """How a table is learned.

    Attributes:
        model: makes a classifier of scikit-learn's kind, whose ``fit`` takes ``sample_weight``, from a seed
            and the number of inputs that are categories, which come first.
        prepare: makes a transformer from the kind of each column; see `encoded` and `ordinal`.
        module: what must be installed.
        classes: with more than these a training would take hours; None for any number.
    """

    model: Callable[[int, int], Any]
    prepare: Callable[[Sequence[str]], Any]
    module: str = "sklearn"
    classes: int | None = 200


LEARNERS: Final = Registry[Learner]("learner")
DEFAULT: Final = "hist_gradient_boosting"


def learner(name: str) -> Learner:
    """Return a learner by its name.

    Raises:
        ValueError: no such learner.
        ModuleNotFoundError: its library is not installed.
    """
    found = LEARNERS[name]
    if importlib.util.find_spec(found.module) is None:
        raise ModuleNotFoundError(
            f"learner {name!r} needs {found.module}; pip install {found.module}, or choose {DEFAULT!r}",
            name=found.module,
        )
    return found


def missing_part(method: Method) -> str:
    """Return what a method needs that no learner of tables has; "" where it has all."""
    if method.loss != "softmax":
        return f"the loss {method.loss!r}"
    for part in ("offset", "scale", "margin", "schedule", "refit", "mixing", "reweighting"):
        if getattr(method, part) is not None:
            return f"a rule of {part} in a training by epochs"
    if method.cosine or method.label_smoothing:
        return "a cosine head" if method.cosine else "label smoothing"
    if method.sampling is not None:
        shares, counts = method.sampling.of(SAMPLING), np.array([3.0, 2.0, 1.0])
        if not np.allclose(shares(counts, 0.0), shares(counts, 0.5)):
            return "sampling that changes from epoch to epoch"
    return ""


def fit(
    how: Learner,
    kinds: Sequence[str],
    inputs: Array,
    targets: npt.NDArray[np.int64],
    method: Method,
    seed: int,
    classes: int,
) -> Callable[[Array], npt.NDArray[np.float64]]:
    """Train, and return a function that gives log-probabilities of shape (N, classes).

    A class that these training samples lack gets the floor.
    """
    counts = np.bincount(targets, minlength=classes)
    if method.sampling is not None:
        present = counts[counts > 0]
        # a table is sampled once: to the size that the scheme is named for, or to its own
        whole = {"oversampling": present.max(), "undersampling": present.min()}
        size = int(whole.get(method.sampling.name, 0)) * len(present) or None
        rows = np.sort(method.sampler(targets, num_samples=size, seed=seed).order(0))
        inputs, targets = inputs[rows], targets[rows]
    if method.synthesis is not None:
        inputs, targets = method.synthesis.of(SYNTHESES)(inputs, targets, kinds, seed=seed)
    found, local = np.unique(targets, return_inverse=True)
    if len(found) == 1:
        constant = np.full(classes, np.log(FLOOR))
        constant[found] = 0.0
        return lambda given: np.tile(constant, (len(given), 1))
    weight = None
    if method.weighs:
        per_class = _weights(method, counts)
        weight = per_class[targets]
        weight = weight / weight.mean()
    with warnings.catch_warnings():
        _hush()
        prepared = how.prepare(kinds)
        ready = prepared.fit_transform(inputs)
        del inputs  # a large table is there once, not twice, while the model learns
        model = how.model(seed, sum(kind == "category" for kind in kinds))
        model.fit(ready, local.reshape(-1), sample_weight=weight)
        del ready  # or the function below would hold it

    def say(given: Array) -> npt.NDArray[np.float64]:
        scores = np.full((len(given), classes), np.log(FLOOR))
        with warnings.catch_warnings():
            _hush()
            shares = np.asarray(model.predict_proba(prepared.transform(given)), dtype=np.float64)
        scores[:, found] = np.log(np.maximum(shares, FLOOR))
        return scores

    return say


def fit_labels(
    how: Learner,
    kinds: Sequence[str],
    inputs: Array,
    truth: npt.NDArray[np.int64],
    method: Method,
    seed: int,
) -> Callable[[Array], npt.NDArray[np.float64]]:
    """Train a model for each label alone, and return a function that gives log-odds of shape (N, L).

    With ``weighting="positive"`` a label weighs as two classes do, its negatives and its positives; with
    "sample" all labels share the weights of the samples. They are scaled to a mean of 1. A label that has one
    value in these samples keeps it.

    Args:
        how: the learner.
        kinds: of the columns.
        inputs: shape (N, D).
        truth: 0, 1 and -100 where not known, shape (N, L).
        method: with a form for many labels.
        seed: of the models.
    """
    shared = _of_samples(method, truth) if method.weighs and method.weighting == "sample" else None
    fitted: list[Any] = []
    with warnings.catch_warnings():
        _hush()
        prepared = how.prepare(kinds)
        ready = prepared.fit_transform(inputs)
        del inputs  # a large table is there once, not twice, while the models learn
        for labels in truth.T:
            rows = np.flatnonzero(labels != LEFT_OUT)
            y = labels[rows]
            if len(found := np.unique(y)) < 2:
                sign = 0.0 if not len(found) else 1.0 if found[0] else -1.0
                fitted.append(sign * (np.log1p(-FLOOR) - np.log(FLOOR)))
                continue
            weight = None if shared is None else shared[rows]
            if method.weighs and shared is None:
                weight = _weights(method, np.bincount(y))[y]
            weight = None if weight is None else weight / weight.mean()
            model = how.model(seed, sum(kind == "category" for kind in kinds))
            part = ready if len(rows) == len(labels) else ready[rows]
            fitted.append(model.fit(part, y, sample_weight=weight))
        del ready

    def say(given: Array) -> npt.NDArray[np.float64]:
        scores = np.empty((len(given), len(fitted)))
        with warnings.catch_warnings():
            _hush()
            there = prepared.transform(given)
            for c, model in enumerate(fitted):
                if isinstance(model, float):
                    scores[:, c] = model
                    continue
                share = np.asarray(model.predict_proba(there), dtype=np.float64).clip(_LEAST)
                scores[:, c] = np.log(share[:, 1]) - np.log(share[:, 0])
        return scores

    return say


def _of_samples(method: Method, truth: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return what each sample weighs: the mean of its labels' weights, 1 without any."""
    there = truth == 1
    weights, number = _weights(method, there.sum(axis=0)), there.sum(axis=1)
    return np.where(number > 0, there @ weights / np.maximum(number, 1), 1.0)


def _weights(method: Method, counts: Array) -> npt.NDArray[np.float64]:
    from longtail.vectors import WEIGHTS

    return np.asarray(method.weight.of(WEIGHTS)(counts.astype(np.float64)), dtype=np.float64)


def _hush() -> None:
    """What the libraries say of names that arrays have not, and of steps that were not enough."""
    for text in ("X does not have valid feature names", "lbfgs failed to converge", "Skipping features"):
        warnings.filterwarnings("ignore", text)
    warnings.filterwarnings("ignore", "Found unknown categories", UserWarning)


# ---- columns


def encoded(kinds: Sequence[str]) -> Any:
    """Numbers filled with the median and scaled, each category an input: for linear models."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    filled = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    numbers = make_pipeline(filled, StandardScaler())
    return ColumnTransformer(
        [("numbers", numbers, _of(kinds, False)), ("categories", _one_hot(), _of(kinds, True))]
    )


def one_hot(kinds: Sequence[str]) -> Any:
    """Numbers as they are, each category an input: for trees that know no categories."""
    if "category" not in kinds:
        return _as_it_is()
    from sklearn.compose import ColumnTransformer

    return ColumnTransformer(
        [
            ("numbers", "passthrough", _of(kinds, False)),
            ("categories", _one_hot(dense=True), _of(kinds, True)),
        ]
    )


def ordinal(kinds: Sequence[str]) -> Any:
    """Numbers as they are, categories as numbers before them: for trees that know categories."""
    if "category" not in kinds:
        return _as_it_is()
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OrdinalEncoder

    places = OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
        encoded_missing_value=np.nan,
        max_categories=_BINS,
    )
    return ColumnTransformer(
        [("categories", places, _of(kinds, True)), ("numbers", "passthrough", _of(kinds, False))]
    )


def _as_it_is() -> Any:
    """Numbers alone, not copied."""
    from sklearn.preprocessing import FunctionTransformer

    return FunctionTransformer()


def _one_hot(dense: bool = False) -> Any:
    from sklearn.preprocessing import OneHotEncoder

    return OneHotEncoder(
        handle_unknown="infrequent_if_exist", max_categories=_CATEGORIES, sparse_output=not dense
    )


def _of(kinds: Sequence[str], categories: bool) -> list[int]:
    return [i for i, kind in enumerate(kinds) if (kind == "category") == categories]


# ---- classifiers, at their libraries' defaults but for L2, one thread, and no samples held out inside

# of scikit-learn's boosting and LightGBM's, as XGBoost has it: at 0 leaves of a thin class grow without bound
L2 = 1.0


def _logistic(seed: int, categories: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000)


def _hist(seed: int, categories: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        l2_regularization=L2,
        early_stopping=False,
        random_state=seed,
        categorical_features=list(range(categories)) or None,
    )


def _lightgbm(seed: int, categories: int) -> Any:
    from lightgbm import LGBMClassifier

    quiet: dict[str, Any] = {"n_jobs": 1, "verbose": -1, "deterministic": True, "force_col_wise": True}
    return LGBMClassifier(reg_lambda=L2, random_state=seed, **quiet)


def _xgboost(seed: int, categories: int) -> Any:
    from xgboost import XGBClassifier

    return XGBClassifier(n_jobs=1, random_state=seed)


def _catboost(seed: int, categories: int) -> Any:
    from catboost import CatBoostClassifier

    return CatBoostClassifier(
        iterations=200, thread_count=1, verbose=False, allow_writing_files=False, random_seed=seed
    )


LEARNERS.register("logistic_regression", Learner(_logistic, encoded, classes=None))
LEARNERS.register("hist_gradient_boosting", Learner(_hist, ordinal))
LEARNERS.register("lightgbm", Learner(_lightgbm, one_hot, "lightgbm"))
LEARNERS.register("xgboost", Learner(_xgboost, one_hot, "xgboost"))
LEARNERS.register("catboost", Learner(_catboost, one_hot, "catboost"))
