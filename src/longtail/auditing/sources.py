"""What may be audited -> samples: folders, data sets, features, tables, labels alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longtail import _checks
from longtail.auditing.samples import Samples, of_arrays, of_dataset, of_images, read_npz
from longtail.counts import encode
from longtail.datasets import DATASETS, Dataset, load
from longtail.datasets.images import list_images
from longtail.sources import hub

_TABLES = (".csv", ".tsv", ".parquet", ".pq", ".csv.gz", ".tsv.gz")


def read(
    source: Any, *, label: str | None, test: Any, columns: Sequence[str] | None, group: str | None
) -> Samples:
    """Read what is to be audited; see `longtail.audit`."""
    if isinstance(source, Dataset):
        return of_dataset(source)
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
    arrays = read_npz(path)
    if test is not None:
        other = read_npz(test)
        arrays |= {f"{name}_test": other[name] for name in ("X", "y") if name in other}
    missing = [name for name in ("X", "y") if name not in arrays]
    if missing:
        raise ValueError(f"{path!r} has no array {missing[0]}; it has {_checks.shorten(arrays)}")
    names = ["", "_test"] if {"X_test", "y_test"} <= set(arrays) else [""]
    names_of, codes = _encoded([arrays[f"y{end}"] for end in names], path)
    inputs = tuple(arrays[f"X{end}"] for end in names)
    for end, x, y in zip(names, inputs, codes, strict=True):
        if len(x) != len(y):
            raise ValueError(
                f"{path!r}: X{end} has {len(x)} rows for {len(y)} labels in y{end}; give as many"
            )
    return of_arrays(Path(path).name, names_of, inputs, codes, columns=_sided(arrays, names))


def _sided(arrays: dict[str, Any], ends: list[str]) -> dict[str, Any]:
    """Arrays that have a value a sample in every part, the parts joined."""
    found: dict[str, Any] = {}
    for name, values in arrays.items():
        parts = [arrays[name + end] for end in ends if name + end in arrays]
        sizes = [len(arrays["y" + end]) for end in ends]
        if values.ndim == 1 and [len(part) for part in parts] == sizes:
            found[name] = np.concatenate(parts)
    return found


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
