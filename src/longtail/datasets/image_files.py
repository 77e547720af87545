"""Labelled image files in the layouts that people have them in: what each file and each class is called.

Nothing is decoded here. Every reader answers the same `Listing`, so that what follows is one path.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from longtail import _checks
from longtail.label_files import IMAGE_SUFFIXES, image_files

Targets = npt.NDArray[np.int64]
Files = npt.NDArray[np.bytes_]

TESTS: Final = ("val", "validation", "test")
_SOLUTION: Final = "LOC_val_solution.csv"
_ANNOTATIONS: Final = re.compile(r"train(20\d\d)\.json")
_PROBES: Final = 1000  # files looked for before anything starts


@dataclass(frozen=True)
class Listing:
    """Files and classes of a training set and, where the source has one, of a test set.

    Attributes:
        root: the folder that file names start from.
        class_names: by target.
        train: file names, as `names_array` has them, and targets.
        test: the same, or None.
    """

    root: Path
    class_names: tuple[str, ...]
    train: tuple[Files, Targets]
    test: tuple[Files, Targets] | None


def names_array(names: Iterable[str]) -> Files:
    """Return file names in one block of bytes.

    A list of a million texts costs ten times the memory, and every worker process that counts references to
    them gets a copy of its own.
    """
    return np.array([os.fsencode(name) for name in names], dtype=np.bytes_)


def read_folder(root: Path) -> Listing:
    """Read a folder in any layout that `longtail.datasets.images.load_images` names.

    Raises:
        FileNotFoundError: it is not there, or lacks a file that it names.
        ValueError: no class folders, one class, a class of the test set that is not in training, ...
    """
    if not root.is_dir():
        raise FileNotFoundError(f"image folder {root} is not there; check the path")
    annotations = sorted(p.name for p in root.glob("train20[0-9][0-9].json"))
    if len(annotations) > 1:
        raise ValueError(
            f"{root} has {' and '.join(annotations)}; name the one you mean, such as {root / annotations[-1]}"
        )
    if annotations:
        return read_inaturalist(root / annotations[0])
    data = root / "ILSVRC" / "Data" / "CLS-LOC"
    data = data if data.is_dir() else root
    train = data / "train"
    if not (train.is_dir() and _subfolders(train)):
        return _of_classes(root, root, _class_folders(root, root), None)
    classes = _class_folders(data, train)
    for name in TESTS:
        if _subfolders(data / name):
            return _of_classes(data, train, classes, _class_folders(data, data / name))
    if (data / "val").is_dir():
        return _of_classes(data, train, classes, _flat_val(root, data, classes))
    return _of_classes(data, train, classes, None)


def read_inaturalist(train: Path) -> Listing:
    """Read the official iNaturalist layout: ``train2018.json``, ``val2018.json`` and the images they name.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: annotation files of two years, or a broken one.
    """
    found = _ANNOTATIONS.fullmatch(train.name)
    if found is None:
        raise ValueError(f"annotation file {train} is none of train2017.json, train2018.json and so on")
    if not train.is_file():
        raise FileNotFoundError(f"annotation file {train} is not there; check the path")
    year, root = found[1], train.parent
    val = root / f"val{year}.json"
    if not val.is_file():
        others = sorted(p.name for p in root.glob("val20[0-9][0-9].json"))
        if others:
            raise ValueError(f"{root} has {train.name} but {others[0]}, of another year; get {val.name}")
        raise FileNotFoundError(f"{root} has {train.name} but no {val.name}; get it, too")
    (names, *train_part), (val_names, *val_part) = (_annotations(path, year) for path in (train, val))
    if names != val_names:
        raise ValueError(
            f"{train} has {len(names)} categories and {val} {len(val_names)}, or other ones; they are not of "
            "one data set: get both again"
        )
    ids, titles = list(names), list(names.values())
    twice = len(set(titles)) < len(titles)
    classes = tuple(f"{title} ({i})" if twice else title for i, title in names.items())
    parts = []
    for path, (files, categories) in ((train, train_part), (val, val_part)):
        place = {i: target for target, i in enumerate(ids)}
        unknown = [c for c in categories if c not in place]
        if unknown:
            raise ValueError(f"{path}: category_id {unknown[0]!r} is in no category; get the file again")
        parts.append((names_array(files), np.array([place[c] for c in categories], np.int64)))
    return _listing(root, classes, parts[0], parts[1], str(train))


def read_lists(train: Path, test: Path, root: Path | None) -> Listing:
    """Read list files of ImageNet-LT, Places-LT and the like: a path and a label on every line.

    Raises:
        FileNotFoundError: a list or an image that it names is missing.
        ValueError: a broken line, labels that do not run from 0, one that training lacks.
    """
    (files, labels), (test_files, test_labels) = _list_file(train), _list_file(test)
    counts = np.bincount(labels)
    if not counts.all():
        raise ValueError(
            f"{train}: labels go up to {len(counts) - 1}, but {int(np.argmin(counts))} has no image; number "
            "the classes from 0 without gaps"
        )
    folders = [Path(name).parent.name for name in files]
    of_label = dict(zip(labels.tolist(), folders, strict=True))
    one_each = all(folders) and len(set(folders)) == len(counts) == len(set(of_label.values()))
    alike = one_each and all(of_label[label] == f for label, f in zip(labels.tolist(), folders, strict=True))
    names = tuple(of_label[i] if alike else str(i) for i in range(len(counts)))
    start = train.parent if root is None else root
    parts = (names_array(files), labels), (names_array(test_files), test_labels)
    return _listing(start, names, *parts, str(train))


def partner(train: Path) -> Path:
    """Return the list file that holds the test images: ``..._val.txt`` or ``..._test.txt``."""
    if "train" not in train.name:
        raise ValueError(f"list file {train.name!r} has no 'train' in its name; give the pair (train, test)")
    head, _, tail = train.name.rpartition("train")
    for word in TESTS:
        if (path := train.with_name(f"{head}{word}{tail}")).is_file():
            return path
    raise FileNotFoundError(
        f"{train} has no partner {head}val{tail} or {head}test{tail} beside it; give the pair (train, test)"
    )


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
        raise ValueError(
            f"{source}: {len(bare)} classes have no training image: {_checks.shorten(bare)}; add some or "
            "leave those classes out"
        )


def refuse_unseen(classes: list[str], source: str) -> None:
    """Refuse classes of the test images that training lacks, if there are any."""
    if classes:
        raise ValueError(
            f"{source}: the test images have {len(classes)} classes that no training image has: "
            f"{_checks.shorten(classes)}; add training images or leave those classes out"
        )


def _listing(
    root: Path,
    names: tuple[str, ...],
    train: tuple[Files, Targets],
    test: tuple[Files, Targets] | None,
    source: str,
) -> Listing:
    """Check what is true of every source of files."""
    check_classes(names, train[1], None if test is None else test[1], source)
    for files, _ in filter(None, (train, test)):
        for i in np.unique(np.linspace(0, len(files) - 1, _PROBES).astype(int)):
            if not (root / os.fsdecode(files[i])).is_file():
                raise FileNotFoundError(
                    f"{source} names {os.fsdecode(files[i])}, which is not in {root}; is that the folder of "
                    "its images?"
                )
    return Listing(root, names, train, test)


def _subfolders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith((".", "__MACOSX")))


def _class_folders(root: Path, folder: Path) -> dict[str, list[str]]:
    """Map each class folder's name to its images at any depth, by their names from ``root``."""
    return {
        name: sorted(os.path.relpath(path, root) for path in image_files(folder / name))
        for name in _subfolders(folder)
    }


def _of_classes(
    root: Path, train: Path, classes: dict[str, list[str]], test: dict[str, list[str]] | None
) -> Listing:
    if not any(classes.values()):
        loose = sum(p.suffix.lower() in IMAGE_SUFFIXES for p in train.iterdir())
        raise ValueError(
            f"{train} has no class folders with images ({loose} images lie in it directly); give a folder "
            "with one folder of images for each class, or with train and val that hold such"
        )
    names = tuple(classes)
    if test is not None:
        refuse_unseen(sorted(n for n, files in test.items() if files and n not in classes), str(root))
        if not any(test.values()):
            raise ValueError(f"{root}: the class folders of the test images are empty; fill or remove them")
    parts = [None if c is None else _numbered(c, names) for c in (classes, test)]
    assert parts[0] is not None
    return _listing(root, names, parts[0], parts[1], str(train))


def _numbered(classes: dict[str, list[str]], names: tuple[str, ...]) -> tuple[Files, Targets]:
    files = [file for name in names for file in classes.get(name, ())]
    sizes = [len(classes.get(name, ())) for name in names]
    return names_array(files), np.repeat(np.arange(len(names), dtype=np.int64), sizes)


def _flat_val(root: Path, data: Path, classes: dict[str, list[str]]) -> dict[str, list[str]]:
    """Sort ImageNet's flat ``val`` into classes by the solution that comes with it."""
    solution = next((p for p in (root / _SOLUTION, data / _SOLUTION) if p.is_file()), None)
    if solution is None:
        raise ValueError(
            f"{data / 'val'} has no class folders, and there is no {_SOLUTION} beside it that says which "
            "image is of which class; move the images into class folders, or put that file there"
        )
    sorted_in: dict[str, list[str]] = {}
    with solution.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        if next(rows, None) != ["ImageId", "PredictionString"]:
            raise ValueError(f"{solution} does not begin with ImageId,PredictionString; get it again")
        for row in rows:
            if len(row) != 2 or not row[1].split():
                raise ValueError(f"{solution}: line {rows.line_num} is broken; get the file again")
            sorted_in.setdefault(row[1].split()[0], []).append(f"val/{row[0]}.JPEG")
    return {name: sorted(files) for name, files in sorted_in.items()}


def _annotations(path: Path, year: str) -> tuple[dict[Any, str], list[str], list[Any]]:
    """Return an annotation file's categories (id -> name), and file name and category id of each image."""
    try:
        content = json.loads(path.read_bytes())
        stated = content.get("info", {}).get("year", year)
        names = {c["id"]: str(c["name"]) for c in sorted(content["categories"], key=lambda c: c["id"])}
        files = {i["id"]: str(i["file_name"]) for i in content["images"]}
        labels = {a["image_id"]: a["category_id"] for a in content["annotations"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{path} is no annotation file with categories, images and annotations ({why}); get it again"
        ) from error
    if str(stated) != year:
        raise ValueError(f"{path} says that it is of the year {stated}, not {year}; get the right one")
    if labels.keys() != files.keys():
        alone = next(iter(labels.keys() ^ files.keys()))
        raise ValueError(
            f"{path}: image {alone!r} is not in both images and annotations; the file is damaged or has no "
            "labels (a test set's has none)"
        )
    return names, list(files.values()), [labels[i] for i in files]


def _list_file(path: Path) -> tuple[list[str], Targets]:
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
