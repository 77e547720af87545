"""What may be audited -> samples: folders, data sets, features, tables, labels alone."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longtail import _checks
from longtail.auditing.samples import Rows, Samples, is_number_of_row, of_arrays, of_dataset, of_images
from longtail.datasets import DATASETS, Dataset, load
from longtail.datasets.features import Features
from longtail.datasets.images import ImageList, list_images
from longtail.labels import encode, encode_missing
from longtail.sources import TABLES, folders, hub, read_rows
from longtail.sources.counted import MISSING, Wanted
from longtail.sources.listing import names_array, refuse_unseen


def read(source: Any, wanted: Wanted, *, test: Any, drop: Sequence[str], group: str | None) -> Samples:
    """Read what is to be audited; see `longtail.audit`."""
    table, label = _is_table(source), wanted.label
    for option, value in (("test", test), ("drop", drop or None)):
        fits = table or (option == "test" and not isinstance(source, (str, os.PathLike, Dataset)))
        if value is not None and not fits:
            raise ValueError(f"{option}={value!r} belongs to a table; leave it out for {source!r}")
    if table:
        if label is None:
            raise ValueError(f"{_title(source)} is a table; name its label column, such as label='class'")
        return _table(source, wanted, test, drop, group)
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
            return _features(name)
        return _images(source, label, Path(name).resolve().name)
    if hub.is_data_set(source):
        return _images(source, label, "the data set")
    return _labels(source, test)


def _is_table(source: object) -> bool:
    if isinstance(source, (str, os.PathLike)):
        plain = re.sub(r"\.(gz|zst|zip|bz2|xz)$", "", os.fspath(source).lower())
        return plain.endswith(TABLES) and not os.path.isdir(source)
    return isinstance(source, Mapping) or (hasattr(source, "columns") and not hub.is_data_set(source))


def _title(source: object) -> str:
    return repr(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else "source"


def _images(source: Any, label: str | None, title: str) -> Samples:
    """Read images of all parts: those that training uses, and what other parts a folder has beside them."""
    train, test = list_images(source, label=label)
    if test is None:
        return of_images((train,), ("train",), title)
    lists, names = [train, test], ["train", "test"]
    folder = isinstance(source, (str, os.PathLike)) and os.path.isdir(source)
    found = folders.every_test(Path(source)) if folder else {}
    for place, (name, (inner, classes)) in enumerate(found.items(), start=1):
        if place > 1:
            lists.append(_part(Path(source), inner, classes, train.class_names))
        names[place:] = [name]
    return of_images(tuple(lists), tuple(names), title)


def _part(root: Path, inner: str, classes: dict[str, list[str]], names: tuple[str, ...]) -> ImageList:
    refuse_unseen([folder for folder in classes if folder not in names], str(root / inner))
    files = [file for of_class in classes.values() for file in of_class]
    targets = [names.index(folder) for folder, of_class in classes.items() for _ in of_class]
    return ImageList(np.array(targets, np.int64), names, root, names_array(files), folder=inner)


def _table(source: Any, wanted: Wanted, test: Any, drop: Sequence[str], group: str | None) -> Samples:
    """Read one or two tables; rows are compared in all columns but label, group and those left out."""
    title = Path(source).name if isinstance(source, (str, os.PathLike)) else "the table"
    label = str(wanted.label)
    read = [_columns(table, wanted) for table in ([source] if test is None else [source, test])]
    columns, classes = read[0]
    for other, known in read[1:]:
        if set(other) != set(columns):
            odd = sorted(set(other) ^ set(columns))
            raise ValueError(
                f"test has other columns than {title}: {_checks.shorten(odd)} are in one of them only"
                "; give both parts the same columns"
            )
        refuse_unseen([str(name) for name in known if name not in classes], f"the test part of {title}")
    place = {name: i for i, name in enumerate(classes)}
    codes = [np.array([place[name] for name in part[label]], np.int64) for part, _ in read]
    for argument, given in (("drop", drop), ("group", [group] if group is not None else [])):
        for one in given:
            _checks.column(argument, one, columns, title)
    joined = {name: [cell for part, _ in read for cell in part[name]] for name in columns}
    rest = [name for name in columns if name not in {label, group, *drop}]
    numbering = [name for name in rest if is_number_of_row(joined[name])]
    compared = [name for name in rest if name not in numbering]
    notes = []
    if numbering:
        named = ", ".join(map(repr, numbering))
        notes.append(f"Rows are compared without {named}, whose values are all distinct and tell rows apart.")
    if not compared:
        notes.append("No column is left in which rows could be compared.")
    sizes = [len(c) for c in codes]
    parts = ("train", "test")[: len(sizes)]

    def name(index: int) -> str:
        return f"{parts[index >= sizes[0]]} row {index - sizes[0] * (index >= sizes[0]) + 1}"

    return Samples(
        title,
        tuple(map(str, classes)),
        parts,
        np.repeat(np.arange(len(sizes), dtype=np.int8), sizes),
        np.concatenate(codes),
        name,
        Rows(tuple(joined[name] for name in compared)) if compared else None,
        columns=joined,
        notes=tuple(notes),
    )


def _columns(table: Any, wanted: Wanted) -> tuple[dict[str, Any], list[Any]]:
    """Return the columns of a table by name, the label's as the classes are named, and the classes."""
    if isinstance(table, (str, os.PathLike)):
        columns, counted = read_rows(os.fspath(table), wanted)
        return columns, list(counted.names)
    label, given = str(wanted.label), table.keys() if isinstance(table, Mapping) else table.columns
    found = {str(name): table[name] for name in given}
    _checks.choice("label", label, tuple(found))
    names, codes = (encode_missing if wanted.missing_as_class else encode)(found[label])
    known = [*names, *([MISSING] if (codes < 0).any() else [])]
    plain = {name: v.tolist() if hasattr(v, "tolist") else list(v) for name, v in found.items()}
    plain[label] = [known[code] for code in codes.tolist()]
    if len({len(values) for values in plain.values()}) > 1:
        raise ValueError("the columns of the table differ in length; give as many values in each")
    return plain, known


def _features(path: str) -> Samples:
    file = Features.load(path)
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
