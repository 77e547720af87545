"""Folds: which samples train and which test, run by run, the same for all methods."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from longtail import _checks

__all__ = ["fold", "inner_folds", "label_folds", "most_folds", "small_classes", "thin_labels"]

Integers = npt.NDArray[np.int64]
MOST = 5


def most_folds(targets: Integers, groups: Integers | None, names: Sequence[str], folds: int | None) -> int:
    """Return the number of folds: min(5, samples of the smallest class), or its groups where they are given.

    Args:
        targets: class indices, int of shape (N,).
        groups: one a sample, or None.
        names: of the classes.
        folds: what the user asks for, or None.

    Raises:
        ValueError: a class that cannot be both learned and tested, or more folds than it has samples.
    """
    if groups is None:
        sizes, what = np.bincount(targets, minlength=len(names)), "sample"
    else:
        pairs = np.unique(np.stack([targets, groups]), axis=1)
        sizes, what = np.bincount(pairs[0], minlength=len(names)), "group"
    smallest = int(sizes.argmin())
    if sizes[smallest] < 2:
        alone = [names[c] for c in np.flatnonzero(sizes < 2).tolist()]
        where = "one sample" if what == "sample" else "all their samples in one group"
        raise ValueError(
            f"groups or label: {_checks.shorten(alone)} {'has' if len(alone) == 1 else 'have'} {where}, and "
            "cannot be both learned and tested; add samples, merge or leave out the class, or give a test set"
        )
    if folds is None:
        return min(MOST, int(sizes[smallest]))
    folds = _checks.integer("folds", folds, low=2, remedy="leave it out for min(5, smallest class)")
    if folds > sizes[smallest]:
        raise ValueError(
            f"folds must be at most {sizes[smallest]}, the {what}s of the smallest class "
            f"{names[smallest]!r}, got {folds}; lower it"
        )
    return folds


def label_folds(strata: Integers, groups: Integers | None, folds: int | None) -> int:
    """Return the number of folds of many labels: 5, or as many as there are samples or groups.

    Args:
        strata: the rarest label of each sample, int of shape (N,).
        groups: one a sample, or None.
        folds: what the user asks for, or None.

    Raises:
        ValueError: more folds than samples or groups.
    """
    units, what = (len(strata), "samples") if groups is None else (len(np.unique(groups)), "groups")
    if folds is None:
        return min(MOST, units)
    folds = _checks.integer("folds", folds, low=2, remedy="leave it out for five")
    if folds > units:
        raise ValueError(f"folds must be at most {units}, the {what}, got {folds}; lower it")
    return folds


def thin_labels(
    there: npt.NDArray[np.bool_],
    strata: Integers,
    groups: Integers | None,
    names: Sequence[str],
    folds: int,
) -> list[str]:
    """Say which labels are so rare that folds lack them, in the first repetition.

    Args:
        there: which samples have which labels, shape (N, L).
        strata: the rarest label of each sample.
        groups: one a sample, or None.
        names: of the labels.
        folds: their number.
    """
    parts = [fold(strata, groups, folds, run) for run in range(folds)]
    unlearned = np.any([~there[train].any(axis=0) for train, _ in parts], axis=0)
    untested = np.any([~there[test].any(axis=0) for _, test in parts], axis=0) & ~unlearned
    notes = []
    if away := [n for n, out in zip(names, unlearned, strict=True) if out]:
        notes.append(
            f"{_checks.shorten(away)} {'has' if len(away) == 1 else 'have'} no positive in the training part "
            "of a fold, which then tests what nothing was learned of"
        )
    if away := [n for n, out in zip(names, untested, strict=True) if out]:
        notes.append(
            f"{_checks.shorten(away)} {'has' if len(away) == 1 else 'have'} too few positives to be in every "
            "fold; a fold without any says nothing of the label"
        )
    return notes


def small_classes(targets: Integers, groups: Integers | None, names: Sequence[str], folds: int) -> list[str]:
    """Say which classes are so small that their error rests on little."""
    sizes = np.bincount(targets, minlength=len(names))
    notes = []
    for c in np.flatnonzero(sizes == 2).tolist():
        notes.append(
            f"class {names[c]!r} has two samples: each fold learns it from one and tests it on the other, so "
            "its error is 0, 50 or 100 % and says next to nothing"
        )
    if groups is not None:
        runs = [fold(targets, groups, folds, run)[1] for run in range(folds)]
        away = [names[c] for c in range(len(names)) if any((targets[test] == c).sum() == 0 for test in runs)]
        if away:
            notes.append(
                f"{_checks.shorten(away)} {'is' if len(away) == 1 else 'are'} in too few groups to be in "
                "every fold; a fold without the class says nothing of it"
            )
    return notes


def fold(targets: Integers, groups: Integers | None, folds: int, run: int) -> tuple[Integers, Integers]:
    """Return the training and the test samples of a run, ascending: fold ``run % folds`` of a shuffle.

    Stratified, of whole groups where they are given; each repetition shuffles anew.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if np.bincount(targets).max() < folds:  # then nothing can be spread evenly
        targets = np.zeros_like(targets)
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = kind(folds, shuffle=True, random_state=run // folds)
    with warnings.catch_warnings():  # of classes with fewer samples than folds, which are named elsewhere
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        parts = list(splitter.split(np.zeros((len(targets), 1)), targets, groups))
    train, test = parts[run % folds]
    return np.sort(train).astype(np.int64), np.sort(test).astype(np.int64)


def inner_folds(
    targets: Integers, groups: Integers | None, folds: int | None = None
) -> Iterator[tuple[Integers, Integers]]:
    """Yield the folds of a run's training samples: what is learned from, and what is held out.

    By default at least two, at most five; with fewer samples of a class than folds some hold none of it.
    """
    sizes = np.unique(targets, return_counts=True)[1]
    inner = min(MOST, max(2, int(sizes.min()))) if folds is None else folds
    for run in range(inner):
        inside, outside = fold(targets, groups, inner, run)
        if len(inside) and len(outside):
            yield inside, outside
