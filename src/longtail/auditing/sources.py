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
from longtail.sources import hub

_TABLES = (".csv", ".tsv", ".parquet", ".pq", ".csv.gz", ".tsv.gz")


def read(
    source: Any, *, label: str | None, test: Any, columns: Sequence[str] | None, group: str | None
) -> Samples:
    """Read what is to be audited; see `longtail.audit`."""
    if isinstance(source, Dataset):
        return of_dataset(source)
    lists = source if isinstance(source, tuple) else (source,)
    if all(isinstance(images, ImageList) for images in lists) and len(lists) in (1, 2):
        return of_images(lists[0], lists[1] if len(lists) > 1 else None, "the images")
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        if name in DATASETS and not os.path.exists(name):
            return of_dataset(load(name))
        if name.lower().endswith(".npz"):
            return _features(name, test)
        return of_images(*list_images(source, label=label), Path(name).resolve().name)
    if hub.is_data_set(source):
        return of_images(*list_images(source, label=label), "the data set")
    return _labels(source, test)


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
