"""Samples that are made up: every class is brought to the size of the largest before training.

A rule is a function ``(inputs, targets, kinds, *, seed, settings) -> (inputs, targets)`` of NumPy arrays: the
training samples, float of shape (N, D), their classes, and the kind of each column ("category" for one whose
numbers are codes); it returns them with the new samples behind. A package of your own adds one by
``SYNTHESES.register``.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from longtail import _checks
from longtail._registry import Registry

__all__ = ["SYNTHESES", "Synthesis", "needs_imbalanced_learn", "smote"]

Array = npt.NDArray[Any]
Synthesis = Callable[..., tuple[Array, Array]]

SYNTHESES: Final = Registry[Synthesis]("synthesis")


def needs_imbalanced_learn(what: str) -> None:
    """Refuse where imbalanced-learn is not installed.

    Raises:
        ModuleNotFoundError: it is not.
    """
    if importlib.util.find_spec("imblearn") is None:
        raise ModuleNotFoundError(
            f"{what} needs imbalanced-learn; pip install imbalanced-learn, or leave the method out",
            name="imblearn",
        )


def smote(
    inputs: Array, targets: Array, kinds: Sequence[str] = (), *, seed: int = 0, k_neighbors: int = 5
) -> tuple[Array, Array]:
    """Put new samples between a sample and one of its nearest neighbours of the same class.

    Neighbours are sought among columns of mean 0 and variance 1. A class with n <= `k_neighbors` samples has
    n - 1 neighbours, a class of one sample is copied. A missing number counts as the column's median, in new
    samples too; the category of a new sample is the commonest of its neighbours'.

    Args:
        inputs: float of shape (N, D).
        targets: classes of shape (N,), indices or names.
        kinds: of the columns; "category" for codes, anything else for numbers; empty: all are numbers.
        seed: of the draws.
        k_neighbors: how many neighbours a sample has.

    Returns:
        Inputs and targets, the given ones first and as they are.

    Raises:
        ValueError: `k_neighbors` below 1.
        ModuleNotFoundError: imbalanced-learn is not installed.

    Source: Chawla et al. (JAIR 2002): SMOTE, with SMOTE-NC where there are categories; computed by
    imbalanced-learn.
    """
    most = _checks.integer("k_neighbors", k_neighbors, low=1, remedy="5 is usual")
    needs_imbalanced_learn("smote")
    found, sizes = np.unique(targets, return_counts=True)
    largest = int(sizes.max())
    if (sizes == largest).all():
        return inputs, targets
    categories = np.array([kind == "category" for kind in kinds] or [False] * inputs.shape[1])
    x = np.array(inputs, dtype=np.float64 if inputs.dtype == np.float64 else np.float32)
    middle, spread = _scale_of(x, categories)
    missing = np.isnan(x)
    x[missing] = np.broadcast_to(np.where(categories, -1.0, middle), x.shape)[missing]
    x = (x - np.where(categories, 0.0, middle)) / spread
    new, classes = [], []
    for near in np.unique(np.minimum(most, sizes - 1)).tolist():
        wanted = {
            c: largest
            for c, n in zip(found.tolist(), sizes, strict=True)
            if min(most, n - 1) == near and n < largest
        }
        if not wanted:
            continue
        with warnings.catch_warnings():  # of class sizes, which are wanted so
            warnings.simplefilter("ignore")
            made, labels = _sampler(near, categories, wanted, seed).fit_resample(x, targets)
        new.append(np.asarray(made)[len(x) :])
        classes.append(np.asarray(labels)[len(x) :])
    rows = np.concatenate(new).astype(x.dtype) * spread + np.where(categories, 0.0, middle)
    rows[:, categories] = np.where(rows[:, categories] == -1.0, np.nan, rows[:, categories])
    return (
        np.concatenate([inputs, rows.astype(inputs.dtype)]),
        np.concatenate([targets, *classes]).astype(targets.dtype),
    )


def _scale_of(x: Array, categories: Array) -> tuple[Array, Array]:
    """Return each column's median and standard deviation; 1 for categories and constant columns."""
    with warnings.catch_warnings():  # of columns without a value
        warnings.simplefilter("ignore", RuntimeWarning)
        middle = np.nan_to_num(np.nanmedian(x, axis=0))
        spread = np.nan_to_num(np.nanstd(x, axis=0))
    spread[(spread == 0) | categories] = 1.0
    return middle, spread


def _sampler(near: int, categories: Array, wanted: dict[Any, int], seed: int) -> Any:
    from imblearn.over_sampling import SMOTE, SMOTEN, SMOTENC, RandomOverSampler

    given: dict[str, object] = {"sampling_strategy": wanted, "random_state": seed % 2**32}
    if near == 0:
        return RandomOverSampler(**given)
    given["k_neighbors"] = near
    if categories.all():
        return SMOTEN(**given)
    if categories.any():
        return SMOTENC(categorical_features=np.flatnonzero(categories), **given)
    return SMOTE(**given)


SYNTHESES.register("smote", smote)
