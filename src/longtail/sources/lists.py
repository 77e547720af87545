"""Lists of image files and their classes: ImageNet-LT's and Places-LT's lines, ImageNet's solution."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from longtail.sources.counted import Counted
from longtail.sources.listing import TESTS, Listing, Targets, names_array, notice_twice

SOLUTION = "LOC_val_solution.csv"


def read(train: Path, test: Path, root: Path | None) -> Listing:
    """Read list files of ImageNet-LT, Places-LT and the like: a path and a label on every line.

    Raises:
        FileNotFoundError: a list or an image that it names is missing.
        ValueError: a broken line, labels that do not run from 0, one that training lacks.
    """
    (files, labels), (test_files, test_labels) = _lines(train), _lines(test)
    counts = np.bincount(labels)
    if not counts.all():
        raise ValueError(
            f"{train}: labels go up to {len(counts) - 1}, but {int(np.argmin(counts))} has no image; number "
            "the classes from 0 without gaps"
        )
    names = _names(files, labels, len(counts))
    start = train.parent if root is None else root
    parts = (names_array(files), labels), (names_array(test_files), test_labels)
    found = Listing(start, names, *parts, str(train))
    notice_twice(train.name, *parts)
    return found


def count(path: Path) -> Counted:
    """Count the labels of a list of files, under the names that training gives them.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: a broken line.
    """
    files, labels = _lines(path)
    counts = np.bincount(labels)
    return Counted(_names(files, labels, len(counts)), counts.tolist())


def _names(files: list[str], labels: Targets, size: int) -> tuple[str, ...]:
    """Name classes by their folder, where each has one of its own, else by their number."""
    folders = [Path(name).parent.name for name in files]
    of_label = dict(zip(labels.tolist(), folders, strict=True))
    one_each = all(folders) and len(set(folders)) == size == len(set(of_label.values()))
    alike = one_each and all(of_label[label] == f for label, f in zip(labels.tolist(), folders, strict=True))
    return tuple(of_label[i] if alike else str(i) for i in range(size))


def partner(train: Path) -> Path:
    """Return the list file that holds the test images: ``..._val.txt`` or ``..._test.txt``."""
    if "train" not in train.name:
        raise ValueError(
            f"list file {train.name!r} has no 'train' in its name; call it {train.stem}_train{train.suffix}, "
            f"and the list of its test images {train.stem}_test{train.suffix}"
        )
    head, _, tail = train.name.rpartition("train")
    for word in TESTS:
        if (path := train.with_name(f"{head}{word}{tail}")).is_file():
            return path
    raise FileNotFoundError(
        f"{train} has no partner {head}val{tail} or {head}test{tail} beside it; write the test images there"
    )


def solution(path: Path) -> dict[str, list[str]]:
    """Read which of ImageNet's validation images are of which class.

    Raises:
        ValueError: another file, or a broken line.
    """
    found: dict[str, list[str]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        if next(rows, None) != ["ImageId", "PredictionString"]:
            raise ValueError(f"{path} does not begin with ImageId,PredictionString; get it again")
        for row in rows:
            if len(row) != 2 or not row[1].split():
                raise ValueError(f"{path}: line {rows.line_num} is broken; get the file again")
            found.setdefault(row[1].split()[0], []).append(f"{row[0]}.JPEG")
    return found


def _lines(path: Path) -> tuple[list[str], Targets]:
    if not path.is_file():
        raise FileNotFoundError(f"list file {path} is not there; check the path")
    files, labels = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        name, _, label = line.rstrip().rpartition(" ")
        if not name or not label.isdecimal():
            raise ValueError(
                f"{path}: line {number} is {line!r}; it needs a path, a space and a label 0, 1, ..."
            )
        files.append(name)
        labels.append(int(label))
    if not files:
        raise ValueError(f"{path} is empty; it needs a path and a label on every line")
    return files, np.array(labels, np.int64)
