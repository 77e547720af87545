"""What may be audited -> samples: folders, data sets, features, tables, labels alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longtail import _checks
from longtail.auditing.samples import Samples, of_arrays, of_dataset, of_images
from longtail.datasets import DATASETS, Dataset, load
from longtail.datasets.features import Features
from longtail.datasets.images import ImageList, list_images
from longtail.labels import encode
from longtail.sources import folders, hub
from longtail.sources.listing import names_array, refuse_unseen


def read(
    source: Any, *, label: str | None, test: Any, columns: Sequence[str] | None, group: str | None
) -> Samples:
    """Read what is to be audited; see `longtail.audit`."""
    if isinstance(source, Dataset):
        return of_dataset(source)
    lists = source if isinstance(source, tuple) else (source,)
    if all(isinstance(images, ImageList) for images in lists) and len(lists) in (1, 2):
        return of_images(lists, ("train", "test")[: len(lists)], "the images")
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        if name in DATASETS and not os.path.exists(name):
            return of_dataset(load(name))
        if name.lower().endswith(".npz"):
            return _features(name, test)
        return _images(source, label, Path(name).resolve().name)
    if hub.is_data_set(source):
        return _images(source, label, "the data set")
    return _labels(source, test)


def _images(source: Any, label: str | None, title: str) -> Samples:
    """Read images of all parts: those that training uses, and what other parts a folder has beside them."""
    train, test = list_images(source, label=label)
    if test is None:
        return of_images((train,), ("train",), title)
    lists, names = [train, test], ["train", "test"]
    found = (
        folders.splits(source) if isinstance(source, (str, os.PathLike)) and os.path.isdir(source) else None
    )
    if found is not None:
        used, *others = [name for name in found.tests if folders.subfolders(Path(source, name))] or ["test"]
        names[1] = used
        for name in others:
            lists.append(_part(Path(source), name, train.class_names))
            names.append(name)
    return of_images(tuple(lists), tuple(names), title)


def _part(root: Path, name: str, classes: tuple[str, ...]) -> ImageList:
    files, targets = [], []
    for folder in folders.subfolders(root / name):
        refuse_unseen([] if folder in classes else [folder], str(root / name))
        of_class = sorted(os.path.relpath(path, root) for path in folders.image_files(root / name / folder))
        files += of_class
        targets += [classes.index(folder)] * len(of_class)
    return ImageList(np.array(targets, np.int64), classes, root, names_array(files))


def _features(path: str, test: Any) -> Samples:
    file = Features.load(path)
    if test is not None:
        raise ValueError(
            f"test={str(test)!r} belongs to tables and labels; put X_test and y_test into {path!r}"
        )
    pairs = [(file.X, file.y)]
    if file.X_test is not None and file.y_test is not None:
        pairs.append((file.X_test, file.y_test))

    def joined(*parts: Any) -> Any:
        given = parts[: len(pairs)]
        return None if any(part is None for part in given) else np.concatenate(given)

    groups = joined(file.groups, file.groups_test)
    return of_arrays(
        Path(path).name,
        file.class_names,
        tuple(x for x, _ in pairs),
        tuple(y.astype(np.int64) for _, y in pairs),
        columns={} if groups is None else {"groups": groups},
        paths=joined(file.paths, file.paths_test),
    )


def _labels(source: Any, test: Any) -> Samples:
    names, codes = _encoded([source] if test is None else [source, test], "source")
    empty = tuple(np.empty((len(c), 0)) for c in codes)
    made = of_arrays("the labels", names, empty, codes)
    return Samples(made.title, made.class_names, made.parts, made.part, made.labels, made.name)


def _encoded(parts: list[Any], source: str) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Return the classes of the training labels, and each part's labels as numbers."""
    names, first = encode(parts[0])
    codes = [first.astype(np.int64)]
    place = {name: i for i, name in enumerate(names)}
    for part in parts[1:]:
        known, other = encode(part)
        unseen = [name for name in known if name not in place]
        if unseen:
            raise ValueError(
                f"{source}: the test labels have {len(unseen)} classes that no training sample has: "
                f"{_checks.shorten(unseen)}; add training samples or leave those classes out"
            )
        codes.append(np.array([place[name] for name in known], np.int64)[other])
    return tuple(map(str, names)), tuple(codes)
