"""Folders of images: one walker, and one reading of what they mean, for counting and for loading alike.

A class is a folder, its name the class's. Hidden names (a dot before them) and ``__MACOSX`` are left out at
every depth, links are followed but not in circles, and an empty folder is a class without images. A link that
leads nowhere is an image that cannot be read where images are loaded, and none where they are counted.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from pathlib import Path

import numpy as np

from longtail import _arrays, _checks
from longtail.sources import coco, lists
from longtail.sources.counted import Counted
from longtail.sources.listing import TESTS, Files, Listing, Targets, names_array, refuse_unseen

# what Pillow opens and what people have pictures in
IMAGE_SUFFIXES = frozenset(
    (
        *(
            ".jpg",
            ".jpeg",
            ".jpe",
            ".jfif",
            ".png",
            ".apng",
            ".gif",
            ".bmp",
            ".dib",
            ".tif",
            ".tiff",
            ".webp",
        ),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".avifs", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".tga"),
    )
)
_HEIF = frozenset((".heic", ".heif", ".hif"))
# pictures of other kinds, which are left out with a word; what else lies in a folder is no picture
_OTHERS = _HEIF | frozenset(
    (
        *(
            ".dng",
            ".cr2",
            ".cr3",
            ".nef",
            ".arw",
            ".orf",
            ".rw2",
            ".raf",
            ".raw",
            ".jxl",
            ".svg",
            ".exr",
            ".hdr",
        ),
        *(".dcm", ".nii", ".npy", ".psd", ".ico", ".dds", ".mp4", ".avi", ".mov", ""),
    )
)
_COMMON = frozenset((".jpg", ".png", ".JPG", ".PNG", ".bmp", ".tif"))  # to be told fast
_LAST_4 = itemgetter(slice(-4, None))
_TRAINS = ("train", "training", "trn")
_FOLDS = 10  # as many splits as anybody makes
_TABLES = (".parquet", ".csv", ".tsv")
_WORDS = re.compile(
    rf"(|.*[ _.-])({'|'.join(sorted((*_TRAINS, *TESTS), key=len, reverse=True))})(|[ _.-].*)", re.IGNORECASE
)
_DETECTION = frozenset(("images", "labels", "annotations", "jpegimages", "imagesets"))


# ---- the walker


@dataclass
class Folder:
    """What a folder holds, from one walk through it.

    Attributes:
        path: the folder.
        names: of the image files in it, as they came.
        folders: what its folders hold, by name, sorted.
        left_out: endings of its files that are no images, and how many of each.
        dead: links that lead nowhere and are called as images are: images that cannot be read.
        astray: links that lead nowhere and are called otherwise, perhaps as a folder is.
    """

    path: str
    names: list[str] = field(default_factory=list)
    folders: dict[str, Folder] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    dead: list[str] = field(default_factory=list)
    astray: list[str] = field(default_factory=list)

    @cached_property
    def images(self) -> list[str]:
        """Names of the image files in it, sorted, which counting does not need."""
        return sorted(self.names)

    def files(self, start: str = "") -> Iterator[str]:
        """Yield the names of all images below, from here; those that cannot be read, too."""
        for name in sorted((*self.names, *self.dead)) if self.dead else self.images:
            yield start + name
        for name, inner in self.folders.items():
            yield from inner.files(f"{start}{name}{os.sep}")

    def links(self, *, images: bool, start: str = "") -> Iterator[str]:
        """Yield the names of the links below that lead nowhere; with ``images`` those of images, too."""
        for name in sorted((*self.astray, *self.dead) if images else self.astray):
            yield start + name
        for name, inner in self.folders.items():
            yield from inner.links(images=images, start=f"{start}{name}{os.sep}")

    def __len__(self) -> int:
        """Return the number of images below, without those that cannot be read."""
        return len(self.names) + sum(map(len, self.folders.values()))

    def lost(self) -> Counter[str]:
        """Count the pictures below that are left out, by their ending."""
        found = Counter({e: n for e, n in self.left_out.items() if e in _OTHERS})
        for inner in self.folders.values():
            found += inner.lost()
        return found

    def inner(self) -> Folder:
        """Return what a folder wraps that holds one folder alone, else itself."""
        here = self
        while not here.names and len(here.folders) == 1:
            here = next(iter(here.folders.values()))
        return here if here.folders else self


def hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's pictures."""
    return name.startswith(".") or name == "__MACOSX"


def walk(path: str | os.PathLike[str]) -> Folder:
    """Walk through a folder once: each folder below is listed, and no file is looked at.

    Raises:
        OSError: a folder that may not be read.
    """
    suffixes = IMAGE_SUFFIXES
    if importlib.util.find_spec("pillow_heif"):
        suffixes |= _HEIF
    start = os.fspath(path)
    return _walk(start, (), suffixes)


def _walk(path: str, above: tuple[str, ...], suffixes: frozenset[str]) -> Folder:
    here = Folder(path)
    inside: list[tuple[str, str, bool]] = []
    others: list[os.DirEntry[str]] = []
    aside: Callable[[os.DirEntry[str]], object] = others.append
    try:
        with os.scandir(path) as entries:  # a loop of C: a folder may hold millions
            images = [entry.name for entry in entries if entry.is_file() or aside(entry)]
    except PermissionError as error:
        raise PermissionError(
            f"folder {path!r} may not be read; change its permissions or move it"
        ) from error
    except OSError:  # a link to itself
        others.clear()
        with os.scandir(path) as entries:
            images = [entry.name for entry in entries if _leads_to_a_file(entry) or aside(entry)]
    for entry in others:
        if hidden(entry.name):
            continue
        if _leads_to_a_folder(entry):
            inside.append((entry.name, entry.path, entry.is_symlink()))
        else:  # a link to nothing or to itself, a pipe
            here.left_out["broken links"] += 1
            if entry.is_symlink() and not os.path.exists(entry.path):
                as_image = os.path.splitext(entry.name)[1].lower() in suffixes
                (here.dead if as_image else here.astray).append(entry.name)
    if not _COMMON.issuperset(map(_LAST_4, images)):  # not pictures of common kinds alone
        found, images = images, []
        for name in found:
            ending = os.path.splitext(name)[1].lower()
            if ending in suffixes:
                images.append(name)
            elif not hidden(name):
                here.left_out[ending] += 1
    if min(images, default="/") < "/":  # a hidden one begins with "."
        images = [name for name in images if not hidden(name)]
    here.names = images
    around = (*above, path)
    for name, inner, link in sorted(inside):
        if not link or not _around(inner, around):
            here.folders[name] = _walk(inner, around, suffixes)
    return here


def _leads_to_a_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _leads_to_a_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _around(link: str, above: tuple[str, ...]) -> bool:
    """Whether a link leads to a folder that it lies in."""
    here = os.path.realpath(link)
    outer = os.path.realpath(above[-1])
    return (
        outer == here
        or outer.startswith(here.rstrip(os.sep) + os.sep)
        or any(os.path.realpath(path) == here for path in above)
    )


def say_left_out(folder: Folder, source: str, *, links: bool) -> None:
    """Warn of pictures that are left out, with what reads them; with ``links`` of links to images, too."""
    if lost := list(folder.links(images=links)):
        lead, it = ("link of {} leads", "it") if len(lost) == 1 else ("links of {} lead", "them")
        _checks.warn(
            f"{len(lost)} {lead.format(source)} nowhere, left out: {_checks.shorten(lost)}; put back what is "
            f"linked, or remove {it}"
        )
    if found := folder.lost():
        kinds = ", ".join(f"{n} {ending or 'without an ending'}" for ending, n in found.most_common())
        total = sum(found.values())
        remedy = "; pip install pillow-heif" if _HEIF & set(found) else "; convert them to .png to have them"
        _checks.warn(f"{total} file{'s' * (total > 1)} of {source} left out: {kinds}{remedy}")


# ---- what the folders are


@dataclass(frozen=True)
class Splits:
    """Folders of splits: the one to train on, if there, and the others, the most wanted first."""

    train: str | None
    tests: tuple[str, ...]


def splits(root: Folder) -> Splits | None:
    """Return the splits that a folder holds, or None where its folders are classes.

    They are called train or training, and val, valid, validation, dev, test, testing, eval or evaluation, in
    any case, perhaps between common words as in ``seg_train`` and ``seg_test`` or ``train_set`` and
    ``test_set``. A folder called train is a class beside others unless it holds folders and no other folder
    than those of splits holds images.

    Raises:
        ValueError: folders that all hold the same folders, so that they are or hold splits.
    """
    names = list(root.folders)
    words = {name: found for name in names if (found := _WORDS.fullmatch(name))}
    for name, found in words.items():
        if found[2].lower() not in _TRAINS:
            continue
        around = (found[1].lower(), found[3].lower())
        beside = {f[2].lower(): n for n, f in words.items() if (f[1].lower(), f[3].lower()) == around}
        tests = tuple(beside[word] for word in TESTS if word in beside)
        others = [other for other in names if other != name and other not in tests]
        inner = root.folders[name].inner().folders
        if (inner and tests) or not others:
            return Splits(name, tests)
        if inner and around == ("", "") and not any(len(root.folders[other]) for other in others):
            return Splits(name, ())
    if names and all(name.lower() in TESTS for name in names):
        return Splits(None, tuple(names))
    _refuse_others(root)
    return None


def _refuse_others(root: Folder) -> None:
    """Refuse folders that all hold the same folders: the inner ones are the classes."""
    parts = list(root.folders.values())
    inner = set(parts[0].folders) if parts else set()
    few = len(parts) <= max(_FOLDS, len(inner))  # else many classes of one structure, such as front and back
    if (
        not few
        or len(parts) < 2
        or len(inner) < 2
        or any(part.images or set(part.folders) != inner for part in parts)
    ):
        return
    names, classes = _checks.shorten(root.folders), _checks.shorten(sorted(inner))
    if all(_WORDS.fullmatch(name) for name in inner):
        raise ValueError(
            f"the folders {names} of {root.path!r} hold the splits {classes} each; turn them around, so that "
            "a folder train holds the classes"
        )
    raise ValueError(
        f"the folders {names} of {root.path!r} all hold {classes}, so that they seem to be splits and no "
        f"classes; give one, such as {parts[0].path!r}, or call them train and test"
    )


def _data(root: Path) -> Path:
    """Return where ImageNet's files have their splits, else the folder itself."""
    inside = root / "ILSVRC" / "Data" / "CLS-LOC"
    return inside if inside.is_dir() else root


def _annotated(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("train20[0-9][0-9].json"))


def _refuse_wrapping(root: Folder) -> None:
    """Refuse a folder of which one folder holds everything, namely the classes."""
    filled = [inner for inner in root.folders.values() if len(inner)] or list(root.folders.values())
    if len(filled) != 1 or not filled[0].folders or filled[0].images:
        return
    if len(root.folders) > 1 and len(filled[0].folders) < 2:
        return
    name = os.path.basename(filled[0].path)
    raise ValueError(
        f"{root.path!r} holds one folder{' with images' * (len(root.folders) > 1)}, {name!r}, with folders "
        f"inside; give {filled[0].path!r}"
    )


def _refuse_detection(folder: Folder) -> None:
    """Refuse the folders of a data set of boxes, whose names are no classes."""
    names = {name.lower() for name in folder.folders}
    if "images" in names and names <= _DETECTION:
        raise ValueError(
            f"{folder.path!r} holds {_checks.shorten(folder.folders)}, which are no classes but pictures and "
            "boxes; a classifier needs a folder of images a class"
        )


# ---- counting


def count(source: str) -> Counted:
    """Count the images of each class folder.

    Raises:
        ValueError: no class folders, no image, or the folders are not those of classes.
    """
    path = _data(Path(source))
    if found := _annotated(path):
        raise ValueError(f"source {source!r} holds the annotations {', '.join(found)}; give one, such as "
                         f"{str(path / found[0])!r}")  # fmt: skip
    root = walk(path)
    parts = splits(root)
    if parts is not None:
        named = sorted(filter(None, (parts.train, *parts.tests)))
        one = path / (parts.train or named[0])
        raise ValueError(f"source {source!r} holds the splits {', '.join(named)}; give one, such as '{one}'")
    if not root.folders:
        raise ValueError(f"source {source!r} has no class folders; {_hint(root)}")
    _refuse_wrapping(root)
    _refuse_detection(root)
    if not len(root) - len(root.images):
        raise ValueError(
            f"source {source!r} has {len(root.folders)} folders and no image in them; check the folder"
            + _told(_all_left_out(root))
        )
    say_left_out(root, f"source {source!r}", links=True)
    counts: Counter[str] = Counter()
    for name, inner in root.folders.items():
        counts[_arrays.one_form(name)] += len(inner)
    return Counted(sorted(counts), [counts[name] for name in sorted(counts)])


def _hint(folder: Folder, before: str = "") -> str:
    """Say what to give in place of a folder without class folders."""
    beside: list[str] = []
    for place in (folder.path, os.path.dirname(os.path.abspath(folder.path))):
        with contextlib.suppress(OSError), os.scandir(place) as entries:
            beside += sorted(
                e.path for e in entries if e.name.lower().endswith(_TABLES) and not hidden(e.name)
            )
    here = [path for path in beside if os.path.dirname(path) == folder.path]
    if here and not folder.images:
        return f"{before}for its tables give '{folder.path}/*{os.path.splitext(here[0])[1]}'"
    if beside and folder.images:
        return f"{before}its labels may be in {beside[0]!r}: give that table with its label column"
    return "" if before else "it needs a folder of images a class"


def _all_left_out(folder: Folder) -> Counter[str]:
    return sum((_all_left_out(inner) for inner in folder.folders.values()), folder.left_out)


def _told(found: Counter[str]) -> str:
    kinds = ", ".join(f"{n} {ending or 'without an ending'}" for ending, n in found.most_common(3))
    return f"; it has {kinds}" if kinds else ""


# ---- loading


def read(path: Path) -> Listing:
    """Read a folder in any layout that `longtail.datasets.images.load_images` names.

    Raises:
        FileNotFoundError: it is not there, or lacks a file that it names.
        ValueError: no class folders, one class, a class of the test set that is not in training, ...
    """
    if not path.is_dir():
        raise FileNotFoundError(f"image folder {path} is not there; check the path")
    annotated = _annotated(path)
    if len(annotated) > 1:
        raise ValueError(
            f"{path} has {' and '.join(annotated)}; name the one you mean, such as {path / annotated[-1]}"
        )
    if annotated:
        return coco.read(path / annotated[0])
    data = _data(path)
    root = walk(data)
    parts = splits(root)
    if parts is None:
        _refuse_wrapping(root)
        _refuse_detection(root)
        return _of_classes(root, root, _classes(root, root))
    if parts.train is None:
        raise ValueError(
            f"{path} holds the splits {', '.join(parts.tests)}, but none to train on; name one train"
        )
    train = root.folders[parts.train].inner()
    _refuse_detection(train)
    classes = _classes(root, train)
    for name in parts.tests:
        if (test := root.folders[name].inner()).folders:
            return _of_classes(root, train, classes, _classes(root, test), _below(root, test))
    if any(classes.values()):
        flat = next((name for name in parts.tests if name.lower() == "val"), None)
        if flat is not None:
            return _of_classes(root, train, classes, _solved(path, data, flat), flat)
        for name in parts.tests:
            _checks.warn(
                f"{os.path.join(root.path, name)} has no class folders and is left out; a share of the "
                "training images is held out in its place"
            )
    return _of_classes(root, train, classes)


def _below(root: Folder, folder: Folder) -> str:
    """Return the path of a folder from another one; empty where they are one."""
    path = Path(folder.path).relative_to(root.path).as_posix()
    return "" if path == "." else path


def every_test(path: Path) -> dict[str, tuple[str, dict[str, list[str]]]]:
    """Map each split beside the training one to its folder of classes, and to each class's images."""
    root = walk(path)
    parts = splits(root)
    found = {} if parts is None else {name: root.folders[name].inner() for name in parts.tests}
    return {
        name: (_below(root, folder), _classes(root, folder))
        for name, folder in found.items()
        if folder.folders
    }


def _classes(root: Folder, folder: Folder) -> dict[str, list[str]]:
    """Map each class folder's name to its images, by their names from ``root``."""
    found: dict[str, list[str]] = {}
    for name, inner in folder.folders.items():
        start = os.path.relpath(inner.path, root.path) + os.sep
        found.setdefault(_arrays.one_form(name), []).extend(inner.files(start))
    return {name: sorted(found[name]) for name in sorted(found)}


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
    root: Folder,
    train: Folder,
    classes: dict[str, list[str]],
    test: dict[str, list[str]] | None = None,
    tested: str | None = None,
) -> Listing:
    """Make a listing of what folders hold; ``tested`` is the folder of the test images, from the root."""
    if len(train) == len(train.names):
        raise ValueError(
            f"{train.path} has no class folders with images ({len(train.images)} images lie in it directly); "
            "give a folder with one folder of images for each class, or with train and val that hold such"
            f"{_hint(train, '; or ')}{_told(_all_left_out(train))}"
        )
    names = tuple(classes)
    if test is not None:
        refuse_unseen(sorted(n for n, files in test.items() if files and n not in classes), root.path)
        if not any(test.values()):
            raise ValueError(
                f"{root.path}: the class folders of the test images are empty; fill or remove them"
            )
    say_left_out(root, root.path, links=False)
    held = None if test is None else _numbered(test, names)
    places = _below(root, train), tested
    return Listing(Path(root.path), names, _numbered(classes, names), held, train.path, places)


def _numbered(classes: dict[str, list[str]], names: tuple[str, ...]) -> tuple[Files, Targets]:
    files = [file for name in names for file in classes.get(name, ())]
    sizes = [len(classes.get(name, ())) for name in names]
    return names_array(files), np.repeat(np.arange(len(names), dtype=np.int64), sizes)
