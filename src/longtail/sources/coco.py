"""Annotations of COCO, LVIS and iNaturalist: .json files with categories, images and annotations, as streams.

ijson decodes them element by element, so that memory holds a block of text and its elements.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import TextIO

import numpy as np

from longtail import _checks
from longtail.sources.counted import Counted, needs
from longtail.sources.listing import Listing, names_array

Id = int | str

_DEEP = 1000  # more levels opened in a block than any annotation has
_BLOCK = 1 << 16
_TRAIN = re.compile(r"train(20\d\d)\.json")


def count(path: str, label: str | None = None) -> Counted:
    """Count the annotations of each category, in the order of their ids.

    ``label`` is the field of the categories that names the classes, and categories that share it are one
    class; without it each category is one, and where two share a name the ids stand behind the names.

    Raises:
        ModuleNotFoundError: ijson is not installed.
        ValueError: no such lists, an annotation without a known category, a file that is cut short.
    """
    seen: Counter[Id] = Counter()
    categories: dict[Id, object] = {}
    for key, element in elements(path, "annotations", "categories"):
        if key == "annotations":
            seen[_member(path, key, element, "category_id")] += 1
        else:
            categories[_member(path, key, element, "id")] = element
    _check_there(path, annotations=seen, categories=categories)
    unknown = [number for number in seen if number not in categories]
    if unknown:
        raise ValueError(
            f"category_id {_checks.shorten(unknown)} in {path!r} is none of its categories"
            "; get the file again, or add these to its categories"
        )
    merged: Counter[Id] = Counter()
    for number, name in _names(path, categories, label).items():
        merged[name] += seen[number]
    return Counted(list(merged), list(merged.values()))


def read(train: Path) -> Listing:
    """Read the official iNaturalist layout: ``train2018.json``, ``val2018.json`` and the images they name.

    Raises:
        FileNotFoundError: a file is missing.
        ModuleNotFoundError: ijson is not installed.
        ValueError: annotation files of two years, or a broken one.
    """
    dated = _TRAIN.fullmatch(train.name)
    if dated is None:
        raise ValueError(
            f"annotation file {train} is none of train2017.json, train2018.json and so on"
            "; give iNaturalist's file under its own name"
        )
    if not train.is_file():
        raise FileNotFoundError(f"annotation file {train} is not there; check the path")
    year, root = dated[1], train.parent
    val = root / f"val{year}.json"
    if not val.is_file():
        if theirs := sorted(p.name for p in root.glob("val20[0-9][0-9].json")):
            raise ValueError(f"{root} has {train.name} but {theirs[0]}, of another year; get {val.name}")
        raise FileNotFoundError(f"{root} has {train.name} but no {val.name}; get it, too")
    found = {path: _images(str(path), year) for path in (train, val)}
    names, others = found[train][0], found[val][0]
    if names != others:
        raise ValueError(
            f"{train} has {len(names)} categories and {val} {len(others)}, or other ones; they are not of "
            "one data set: get both again"
        )
    place = {number: target for target, number in enumerate(names)}
    parts = []
    for path, (_, files, numbers) in found.items():
        unknown = [number for number in numbers if number not in place]
        if unknown:
            raise ValueError(f"{path}: category_id {unknown[0]!r} is in no category; get the file again")
        parts.append((names_array(files), np.array([place[number] for number in numbers], np.int64)))
    return Listing(root, tuple(map(str, names.values())), parts[0], parts[1], str(train))


def _images(path: str, year: str) -> tuple[dict[Id, Id], list[str], list[Id]]:
    """Return the categories' names by id, and file name and category of each image."""
    categories: dict[Id, object] = {}
    files: dict[Id, str] = {}
    labels: dict[Id, Id] = {}
    for key, element in elements(path, "info", "categories", "images", "annotations"):
        if key == "info":
            stated = element.get("year", year) if isinstance(element, dict) else year
            if str(stated) != year:
                raise ValueError(
                    f"{path} says that it is of the year {stated}, not {year}; get the right one"
                )
        elif key == "categories":
            categories[_member(path, key, element, "id")] = element
        elif key == "images":
            files[_member(path, key, element, "id")] = str(_member(path, key, element, "file_name"))
        else:
            labels[_member(path, key, element, "image_id")] = _member(path, key, element, "category_id")
    _check_there(path, categories=categories, images=files, annotations=labels)
    if labels.keys() != files.keys():
        alone = next(iter(labels.keys() ^ files.keys()))
        raise ValueError(
            f"{path}: image {alone!r} is not in both images and annotations; the file is damaged or has no "
            "labels (a test set's has none)"
        )
    return _names(path, categories, None), list(files.values()), [labels[i] for i in files]


def _names(path: str, categories: dict[Id, object], label: str | None) -> dict[Id, Id]:
    """Return the classes' names by category id, in the order of the ids."""
    order = sorted(categories, key=lambda number: (isinstance(number, str), number))
    names = {number: _member(path, "categories", categories[number], label or "name") for number in order}
    if label is None and len(set(names.values())) < len(names):  # two species may have one name
        return {number: f"{name} ({number})" for number, name in names.items()}
    return names


def _check_there(path: str, **parts: Sized) -> None:
    for wanted, found in parts.items():
        if not found:
            keys = [key for key, _ in elements(path)]
            raise ValueError(
                f"source {path!r} has no {wanted}; it has {_checks.shorten(keys, 20) or 'no object'}; "
                "give a file with annotations and categories as COCO and iNaturalist have them"
            )


def elements(path: str, *keys: str) -> Iterator[tuple[str, object]]:
    """Yield the elements of some lists of a JSON object, and its object ``info``, under their keys.

    Each key is a pass through the file: C code that skips the others is faster than Python that sorts them.
    Without keys, yield every key of the object with None.

    Raises:
        ModuleNotFoundError: ijson is not installed.
        ValueError: no UTF-8 text, or no JSON.
    """
    ijson = needs("ijson", "an annotation file needs", "counts")
    try:
        with open(path, encoding="utf-8-sig") as file:
            for key in keys or ("",):
                file.seek(0)
                if not file.read(_BLOCK).strip():  # blank, which ijson refuses
                    return
                file.seek(0)
                options = {"buf_size": _BLOCK, "use_float": True}
                if keys:
                    prefix = key if key == "info" else f"{key}.item"
                    yield from ((key, item) for item in ijson.items(_Utf8(file), prefix, **options))
                else:
                    events = ijson.parse(_Utf8(file), **options)
                    yield from ((name, None) for at, event, name in events if (at, event) == ("", "map_key"))
    except UnicodeDecodeError as error:
        raise ValueError(f"source {path!r} is not UTF-8 text ({error.reason}); convert it") from error
    except ijson.JSONError as error:
        why = str(error).strip().splitlines()[0]
        raise ValueError(f"source {path!r} is cut short or no JSON ({why}); check the file") from error


class _Utf8:
    """Gives ijson the text of a file as it wants it: bytes, without a byte order mark."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def read(self, size: int) -> bytes:
        block = self.file.read(size).encode()
        depth = block.count(b"[") + block.count(b"{") - block.count(b"]") - block.count(b"}")
        if depth > _DEEP:  # the parser keeps a path for each level: their lengths add up
            raise ValueError(
                f"source {self.file.name!r} is no annotation file (it is nested too deep); check the file"
            )
        return block


def _member(path: str, key: str, element: object, name: str) -> Id:
    value = element.get(name) if isinstance(element, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"{key} of {path!r} must hold a {name!r} each, got {_checks.describe(element)}")
    return value
