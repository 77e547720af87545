"""What every reader of labelled image files answers: the files, their classes, and what is true of both."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from longtail import _checks

Targets = npt.NDArray[np.int64]
Files = npt.NDArray[np.bytes_]

# the words for a split that is not trained on, the most wanted first
TESTS: Final = ("val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation")
_PROBES: Final = 1000  # files looked for before anything starts


@dataclass(frozen=True)
class Listing:
    """Files and classes of a training set and, where the source has one, of a test set.

    Attributes:
        root: the folder that file names start from.
        class_names: by target.
        train: file names, as `names_array` has them, and targets.
        test: the same, or None.
        source: what messages call it.
        folders: that of the training and of the test images below the root, which holds the classes' folders;
            None where that is not known.

    Raises:
        FileNotFoundError: a file that it names is missing.
        ValueError: as in `check_classes`.
    """

    root: Path
    class_names: tuple[str, ...]
    train: tuple[Files, Targets]
    test: tuple[Files, Targets] | None
    source: str
    folders: tuple[str | None, str | None] = (None, None)

    def __post_init__(self) -> None:
        check_classes(self.class_names, self.train[1], self.test and self.test[1], self.source)
        for files, _ in filter(None, (self.train, self.test)):
            for i in np.unique(np.linspace(0, len(files) - 1, _PROBES).astype(int)):
                place = self.root / os.fsdecode(files[i])
                if not place.is_file() and not place.is_symlink():  # a dead link is there, and unreadable
                    raise FileNotFoundError(
                        f"{self.source} names {os.fsdecode(files[i])}, which is not in {self.root}; is that "
                        "the folder of its images?"
                    )


def notice_twice(
    source: str, train: tuple[Files, Targets], test: tuple[Files, Targets] | None = None
) -> None:
    """Warn of pictures that a list names more than once: each counts as often, and copies leak into tests."""
    parts = [train] if test is None else [train, test]
    files, labels = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    names, at, times = np.unique(files, return_inverse=True, return_counts=True)
    if (times < 2).all():
        return
    order = np.lexsort((labels, at))
    same = at[order][1:] == at[order][:-1]
    other = len(np.unique(at[order][1:][same & (labels[order][1:] != labels[order][:-1])]))
    both = 0 if test is None else len(np.intersect1d(train[0], test[0]))
    told = f"{source} names {int((times > 1).sum()):,} images more than once, such as "
    told += repr(os.fsdecode(names[int(np.argmax(times > 1))]))
    told += f"; {other:,} of them with different classes" * bool(other)
    told += f"; {both:,} are in both parts" * bool(both)
    _checks.warn(f"{told}. Each row counts, and a copy may be learned from and tested on: leave copies out")


def names_array(names: Iterable[str]) -> Files:
    """Return file names in one block of bytes.

    A list of a million texts costs ten times the memory, and every worker process that counts references to
    them gets a copy of its own.
    """
    return np.array([os.fsencode(name) for name in names], dtype=np.bytes_)


def check_classes(names: tuple[str, ...], train: Targets, test: Targets | None, source: str) -> None:
    """Refuse a single class, and classes that no training image has."""
    if len(names) < 2:
        raise ValueError(f"{source} has one class, {names[0]!r}; a classifier needs two or more")
    counts = np.bincount(train, minlength=len(names))
    if test is not None:
        seen = np.bincount(test, minlength=len(names))[: len(names)].astype(bool)
        unseen = [names[i] for i in np.flatnonzero(seen & (counts == 0))]
        refuse_unseen([*unseen, *sorted({str(t) for t in test[test >= len(names)]})], source)
    if not counts.all():
        bare = [names[i] for i in np.flatnonzero(counts == 0)]
        what = ("class has", "that class") if len(bare) == 1 else ("classes have", "those classes")
        raise ValueError(
            f"{source}: {len(bare)} {what[0]} no training image: {_checks.shorten(bare)}; add some or leave "
            f"{what[1]} out"
        )


def refuse_unseen(classes: list[str], source: str) -> None:
    """Refuse classes of the test images that training lacks, if there are any."""
    if classes:
        raise ValueError(
            f"{source}: the test images have {len(classes)} classes that no training image has: "
            f"{_checks.shorten(classes)}; add training images or leave those classes out"
        )
