"""Folders of images: one walker, and one reading of what they mean, for counting and for loading alike.

A class is a folder, its name the class's. Hidden names (a dot before them) and ``__MACOSX`` are left out at
every depth, links are followed but not in circles, and an empty folder is a class without images.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from longtail.sources import coco, lists
from longtail.sources.counted import Counted
from longtail.sources.listing import TESTS, Files, Listing, Targets, names_array, refuse_unseen

# torchvision's
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp"))
_TRAINS = ("train", "training")
_TABLES = (".parquet", ".csv", ".tsv")
_Ids = frozenset[tuple[int, int]]


# ---- the walker


def hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's pictures."""
    return name.startswith(".") or name == "__MACOSX"


def subfolders(folder: str | os.PathLike[str]) -> list[str]:
    """Return the names of the folders in a folder, sorted as text; none where there is no such folder."""
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not hidden(entry.name) and entry.is_dir())


def image_files(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the image files below a folder, at any depth, in a fixed order."""
    start = os.path.realpath(folder)
    around = {start, *map(str, Path(start).parents)}
    return _walk(os.fspath(folder), frozenset(map(_id, around)))


def _walk(folder: str, above: _Ids) -> Iterator[str]:
    with os.scandir(folder) as found:
        entries = sorted((e for e in found if not hidden(e.name)), key=lambda entry: entry.name)
    inside = []
    for entry in entries:
        if entry.is_dir():
            inside.append(entry.path)
        elif _suffix(entry.name) in IMAGE_SUFFIXES:
            yield entry.path
    for path in inside:
        here = _id(path)
        if here not in above:  # a link to a folder that it lies in
            yield from _walk(path, above | {here})


def _suffix(name: str) -> str:
    return name[name.rfind(".") :].lower()


def _id(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


# ---- what the folders are


@dataclass(frozen=True)
class Splits:
    """Folders of splits: the one to train on, if there, and the others, the most wanted first."""

    train: str | None
    tests: tuple[str, ...]


def splits(root: str | os.PathLike[str]) -> Splits | None:
    """Return the splits that a folder holds, or None where its folders are classes.

    They are called train or training, and val, valid, validation, dev, test, testing, eval or evaluation, in
    any case, perhaps behind a common word as in ``seg_train`` and ``seg_test``. A folder called train is a
    class beside others unless it holds folders and no other folder than those of splits holds images.
    """
    names = subfolders(root)
    known = {name.lower(): name for name in names}
    for name in names:
        word = next((w for w in _TRAINS if name.lower().endswith(w)), "")
        prefix = name.lower().removesuffix(word)
        if not word or (prefix and prefix[-1] not in "_-. "):
            continue
        tests = tuple(known[prefix + w] for w in TESTS if prefix + w in known)
        others = [os.path.join(root, other) for other in names if other != name and other not in tests]
        inner = subfolders(os.path.join(root, name))
        if (inner and tests) or (tests and not others):
            return Splits(name, tests)
        if inner and not prefix and not any(next(image_files(other), None) for other in others):
            return Splits(name, ())
    if names and all(name.lower() in TESTS for name in names):
        return Splits(None, tuple(names))
    return None


def _data(root: Path) -> Path:
    """Return where ImageNet's files have their splits, else the folder itself."""
    inside = root / "ILSVRC" / "Data" / "CLS-LOC"
    return inside if inside.is_dir() else root


def _annotated(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("train20[0-9][0-9].json"))


def _refuse_wrapping(root: Path, names: list[str]) -> None:
    """Refuse a folder whose one folder holds the classes."""
    if len(names) != 1 or not subfolders(root / names[0]):
        return
    with os.scandir(root / names[0]) as entries:
        if any(_suffix(entry.name) in IMAGE_SUFFIXES for entry in entries):
            return
    raise ValueError(
        f"{str(root)!r} holds one folder, {names[0]!r}, with folders inside; give {str(root / names[0])!r}"
    )


# ---- counting


def count(source: str) -> Counted:
    """Count the images of each class folder.

    Raises:
        ValueError: no class folders, no image, or the folders are not those of classes.
    """
    root = _data(Path(source))
    if found := _annotated(root):
        raise ValueError(f"source {source!r} holds the annotations {', '.join(found)}; give one, such as "
                         f"{str(root / found[0])!r}")  # fmt: skip
    parts = splits(root)
    if parts is not None:
        named = sorted(filter(None, (parts.train, *parts.tests)))
        one = root / (parts.train or named[0])
        raise ValueError(f"source {source!r} holds the splits {', '.join(named)}; give one, such as '{one}'")
    names = subfolders(root)
    if not names:
        with os.scandir(root) as entries:
            endings = {os.path.splitext(e.name)[1] for e in entries if not hidden(e.name)}
        tables = sorted(ending for ending in endings if ending.lower() in _TABLES)
        hint = (
            f"for its tables give '{root}/*{tables[0]}'" if tables else "it needs a folder of images a class"
        )
        raise ValueError(f"source {source!r} has no class folders; {hint}")
    _refuse_wrapping(root, names)
    counts = [sum(1 for _ in image_files(root / name)) for name in names]
    if not any(counts):
        raise ValueError(f"source {source!r} has {len(names)} folders and no image in them; check the folder")
    return Counted(list(names), counts)


# ---- loading


def read(root: Path) -> Listing:
    """Read a folder in any layout that `longtail.datasets.images.load_images` names.

    Raises:
        FileNotFoundError: it is not there, or lacks a file that it names.
        ValueError: no class folders, one class, a class of the test set that is not in training, ...
    """
    if not root.is_dir():
        raise FileNotFoundError(f"image folder {root} is not there; check the path")
    annotated = _annotated(root)
    if len(annotated) > 1:
        raise ValueError(
            f"{root} has {' and '.join(annotated)}; name the one you mean, such as {root / annotated[-1]}"
        )
    if annotated:
        return coco.read(root / annotated[0])
    data = _data(root)
    parts = splits(data)
    if parts is None:
        names = subfolders(root)
        _refuse_wrapping(root, names)
        return _of_classes(root, root, _classes(root, root), None)
    if parts.train is None:
        raise ValueError(
            f"{root} holds the splits {', '.join(parts.tests)}, but none to train on; name one train"
        )
    train = data / parts.train
    classes = _classes(data, train)
    for name in parts.tests:
        if subfolders(data / name):
            return _of_classes(data, train, classes, _classes(data, data / name))
    flat = next((name for name in parts.tests if name.lower() == "val" and any(classes.values())), None)
    return _of_classes(data, train, classes, None if flat is None else _solved(root, data, flat))


def _classes(root: Path, folder: Path) -> dict[str, list[str]]:
    """Map each class folder's name to its images, by their names from ``root``."""
    return {
        name: sorted(os.path.relpath(path, root) for path in image_files(folder / name))
        for name in subfolders(folder)
    }


def _solved(root: Path, data: Path, val: str) -> dict[str, list[str]]:
    """Sort ImageNet's flat ``val`` into classes by the solution that comes with it."""
    path = next((p for p in (root / lists.SOLUTION, data / lists.SOLUTION) if p.is_file()), None)
    if path is None:
        raise ValueError(
            f"{data / val} has no class folders, and there is no {lists.SOLUTION} beside it that says which "
            "image is of which class; move the images into class folders, or put that file there"
        )
    return {name: sorted(f"{val}/{file}" for file in files) for name, files in lists.solution(path).items()}


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
    held = None if test is None else _numbered(test, names)
    return Listing(root, names, _numbered(classes, names), held, str(train))


def _numbered(classes: dict[str, list[str]], names: tuple[str, ...]) -> tuple[Files, Targets]:
    files = [file for name in names for file in classes.get(name, ())]
    sizes = [len(classes.get(name, ())) for name in names]
    return names_array(files), np.repeat(np.arange(len(names), dtype=np.int64), sizes)
