"""Your own images: a folder, an official layout, list files or a Hugging Face data set, as one list.

Importing this module needs NumPy alone; Pillow, datasets and torch are loaded by what uses them.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks
from longtail._random import draws
from longtail.counts import ClassCounts
from longtail.datasets.decoding import (
    BROKEN,
    IMAGENET_MEAN,
    IMAGENET_STD,
    INATURALIST_MEAN,
    INATURALIST_STD,
    MARGIN,
    EvalTransform,
    TrainTransform,
    cut,
    load,
    opened,
    upright_size,
)
from longtail.datasets.fetch import data_root
from longtail.datasets.long_tail import Dataset, Split, hold_out, long_tail_counts, long_tail_subset
from longtail.labels import encode
from longtail.sources import coco, folders, hub, lists, pictures
from longtail.sources.counted import needs
from longtail.sources.listing import Files, Listing, Targets, check_classes, refuse_unseen

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "INATURALIST_MEAN",
    "INATURALIST_STD",
    "EvalTransform",
    "ImageList",
    "TorchDataset",
    "TrainTransform",
    "UnreadableImageError",
    "gtsrb",
    "in_memory",
    "list_images",
    "load_images",
]

_Paths = tuple[int, Callable[[int], str], Callable[[int], str]]
Transform = Callable[["Image", np.random.Generator], npt.NDArray[np.float32]]
_ON_ERROR = ("raise", "skip")
_NAMED = 20  # unreadable images that a message names


class UnreadableImageError(OSError):
    """An image cannot be decoded; the message names it and says why."""


@dataclass(frozen=True, eq=False)
class ImageList:
    """Labelled images on the disk, or in rows of a Hugging Face data set, none of them decoded yet.

    Attributes:
        targets: classes, int64 of shape (N,), 0 or more.
        class_names: one name per class.
        root: the folder that file names start from; None for rows.
        files: file names in bytes, of shape (N,); None for rows.
        rows: a `datasets.Dataset` whose column `column` holds undecoded images; None for files.
        column: the image column of the rows.
        groups: one a sample, or None: what belongs together, such as a patient.
        arguments: what `load_images` was given, where it was a path: a finished run finds its images by it.
        folder: of the part below the root, such as ``train``, with the classes' folders in it; "" for the
            root itself, and None where it is not known: then the paths are asked.

    Example:
        >>> images = ImageList(np.array([0, 0, 1]), ("cat", "lynx"), Path("photos"), np.array([b"a.jpg"] * 3))
        >>> len(images), images.class_counts
        (3, ClassCounts({'cat': 2, 'lynx': 1}))
    """

    targets: Targets
    class_names: tuple[str, ...]
    root: Path | None = None
    files: Files | None = None
    rows: Any = None
    column: str = "image"
    groups: npt.NDArray[np.str_] | None = None
    arguments: Mapping[str, str | float] | None = None
    folder: str | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.class_names)

    @property
    def class_counts(self) -> ClassCounts:
        """Images of every class, under the classes' names."""
        return ClassCounts(self.class_names, np.bincount(self.targets, minlength=self.num_classes))

    def name(self, index: int) -> str:
        """Return the path of an image; for a row, its number and the path that it carries, if any."""
        if self.files is not None:
            return str((self.root or Path()) / os.fsdecode(self.files[index]))
        path = self.rows[int(index)][self.column].get("path")
        return f"row {index}" + (f" ({path})" if path else "")

    def open(self, index: int) -> Image:
        """Open an image; its pixels are decoded when they are asked for.

        Raises:
            UnreadableImageError: no such file, or no image.
        """
        with self._naming(index):
            if self.files is not None:
                return opened(self.name(index))
            cell = self.rows[int(index)][self.column]
            return opened(io.BytesIO(cell["bytes"]) if cell.get("bytes") else cell["path"])

    def read(self, index: int) -> bytes:
        """Return the bytes of an image's file.

        Raises:
            UnreadableImageError: no such file.
        """
        with self._naming(index):
            if self.files is not None:
                return Path(self.name(index)).read_bytes()
            cell = self.rows[int(index)][self.column]
            return bytes(cell["bytes"]) if cell.get("bytes") else Path(cell["path"]).read_bytes()

    def decode(self, index: int, transform: Transform, draw: np.random.Generator) -> npt.NDArray[np.float32]:
        """Open an image and apply a transform.

        Raises:
            UnreadableImageError: no such file, no image, or a truncated one.
        """
        with self.open(index) as image, self._naming(index):
            return transform(image, draw)

    def select(self, indices: npt.ArrayLike) -> ImageList:
        """Return the images at these places, in this order."""
        places = np.asarray(indices, np.int64)
        return replace(
            self,
            targets=self.targets[places],
            files=None if self.files is None else self.files[places],
            rows=None if self.rows is None else self.rows.select(places),
            groups=None if self.groups is None else self.groups[places],
        )

    def path(self, index: int) -> str:
        """Return the path of an image below the root, with "/"; for a row as `name`."""
        if self.files is not None:
            return Path(os.fsdecode(self.files[index])).as_posix()
        return self.name(index)

    def with_groups(self, groups_from: str) -> ImageList:
        """Return these images with the groups that their paths name.

        Args:
            groups_from: a regular expression that finds an image's group in its path below the folder of its
                part, such as ``train``: what its parentheses match, or all of it where there are none. What
                it does not find there in every image, it is to find in the paths below the root, but not in
                the folder of the part. `load_images` decides so for training and test images together.

        Raises:
            ValueError: no regular expression, or one that finds nothing, or an empty text, in a path; or
                groups that hold the part's folder, so that no other part could have them.
        """
        return with_groups([self], groups_from, alone=bool(self.folder))[0]

    def long_tailed(
        self,
        imbalance_factor: float,
        *,
        profile: str = "exponential",
        seed: int = 0,
        max_count: int | None = None,
    ) -> tuple[ImageList, npt.NDArray[np.int64]]:
        """Cut a long tail, as `Dataset.long_tailed` does, and return the indices kept, too."""
        largest = int(self.class_counts.counts.min()) if max_count is None else max_count
        counts = long_tail_counts(self.num_classes, largest, imbalance_factor, profile)
        kept = long_tail_subset(self.targets, counts, seed)
        return self.select(kept), kept

    def checked(self, on_error: str = "raise") -> ImageList:
        """Look at every image before hours are spent: what is no image, or broken off, is found.

        Headers are read, and the end of JPEG and PNG files, a fraction of a millisecond each; images of
        other kinds, and those without the usual end, are decoded.

        Args:
            on_error: "raise" refuses the first image that cannot be read; "skip" leaves all such out, with
                one warning that counts and names them.

        Raises:
            UnreadableImageError: an image cannot be read, or a class has no other.
        """
        _checks.choice("on_error", on_error, _ON_ERROR)
        kept = self._readable(_look, on_error)
        return self if len(kept) == len(self) else self.select(kept)

    def _readable(self, read: Callable[[int, Image], object], on_error: str) -> Targets:
        """Read every image; return the places of those that can be read, and say which cannot."""
        bad: dict[int, UnreadableImageError] = {}
        for index in range(len(self)):
            try:
                with self.open(index) as image, self._naming(index):
                    read(index, image)
            except UnreadableImageError as error:
                bad[index] = error
        kept = np.setdiff1d(np.arange(len(self)), list(bad))
        if not bad:
            return kept
        if on_error == "raise":
            first = next(iter(bad.values()))
            if len(bad) == 1:
                raise first
            raise UnreadableImageError(
                f"{len(bad)} of {len(self)} images cannot be read; replace or remove them, or leave them out "
                f"by on_error='skip': {_first(bad, _NAMED)}"
            ) from first
        left = self.select(kept)
        lost = np.flatnonzero((left.class_counts.counts == 0) & (self.class_counts.counts > 0))
        first = next(iter(bad.values()))
        if len(lost):
            raise UnreadableImageError(
                f"class {self.class_names[lost[0]]!r} has no readable image: {first}"
                "; replace its images, or remove its folder"
            )
        _checks.warn(f"{len(bad)} of {len(self)} images are left out, they cannot be read: {_first(bad)}")
        return kept

    @contextlib.contextmanager
    def _naming(self, index: int) -> Iterator[None]:
        """Turn what Pillow raises on broken files into one error that names the file."""
        pillow = needs("PIL.Image", "images need", "images")
        try:
            yield
        except (*BROKEN, pillow.DecompressionBombError) as error:
            if isinstance(error, UnreadableImageError):
                raise
            raise UnreadableImageError(
                f"image {self.name(index)} cannot be read: {error}; replace or remove it"
            ) from error


def load_images(
    source: object,
    *,
    image: str | None = None,
    label: str | None = None,
    root: str | os.PathLike[str] | None = None,
    groups: str | None = None,
    groups_from: str | None = None,
    validation: float = 0.2,
    seed: int = 0,
) -> tuple[ImageList, ImageList]:
    """List the images of a training set and a test set, and their classes; nothing is decoded.

    Args:
        source: One of

            - a folder with ``train`` (or training) and one of ``val``, valid, validation, dev, ``test``,
              testing, eval and evaluation (the first of them that holds class folders), in any case and
              perhaps behind a common word as in ``seg_train``, each with a folder of images for every class;
            - a folder with a folder of images for every class: a share is held out;
            - ImageNet's: ``train/nXXXXXXXX`` and ``val``, either in class folders or flat with
              ``LOC_val_solution.csv`` beside it, which comes with ILSVRC's files (whose
              ``ILSVRC/Data/CLS-LOC`` is found, too);
            - iNaturalist's: a folder with ``train2018.json``, ``val2018.json`` (2017, ...) and the images
              that they name, or the path of the former;
            - lists of ``path label`` lines, such as ``ImageNet_LT_train.txt``, whose partner ``_val`` or
              ``_test`` lies beside it, or a pair (train, test) of such;
            - a table (.csv, .tsv, .parquet) with a column of image files, with or without their folders and
              endings, and one of labels, or a folder with such a ``metadata.csv``; a column ``split`` of
              train and test says what is for which;
            - a Hugging Face data set: a ``datasets.Dataset`` or ``DatasetDict``, a folder where one was
              saved by ``save_to_disk``, or ``"hf:NAME"`` for whatever ``datasets.load_dataset(NAME)`` reads.
        image: The image column of a Hugging Face data set, None for the only one; of a table, None for one of
            a usual name, such as ``"image_id"``.
        label: Its label column; None takes the only one that names classes, else one of a usual name.
        root: The folder that paths in list files and tables start from; None is the list's own.
        groups: A column of a table or of a Hugging Face data set: what belongs together, such as a patient. A
            group is held out whole or not at all, and intervals of the test error count groups.
        groups_from: In its place a regular expression that finds an image's group in its path, as
            `ImageList.with_groups` says: what its parentheses match, or all of it where there are none.
        validation: The share of every class that is held out where the source has no test set, between 0
            and 1; at least one image or group, if there are two.
        seed: Of what is held out, as in `long_tail_subset`: the same images on every machine.

    Returns:
        Training and test images with the same classes, numbered in the order of the folders' names, of the
        category ids, or of the labels.

    Raises:
        FileNotFoundError: The source is not there, or a file that it names (of files in lists, a thousand
            are looked for).
        ValueError: There are no classes or only one, a class has no training image, annotations are of
            another year or broken, a column is missing; an expression that finds no group in a path.
        ModuleNotFoundError: A Hugging Face data set without the library ``datasets``.

    Example:
        >>> train, test = load_images("photos")  # doctest: +SKIP
        >>> train.class_counts  # doctest: +SKIP
        ClassCounts({'cat': 320, 'lynx': 8})
        >>> load_images("no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: image folder no/such/folder is not there; check the path
    """
    share = _checks.number("validation", validation, low=0, high=1, open_low=True, open_high=True)
    seed = _checks.integer("seed", seed, low=0)
    train, test = list_images(
        source, image=image, label=label, root=root, groups=groups, groups_from=groups_from
    )
    return (train, test) if test is not None else parted(train, share, seed)


def parted(images: ImageList, validation: float = 0.2, seed: int = 0) -> tuple[ImageList, ImageList]:
    """Hold a share of every class out of images without a test set, as `load_images` does."""
    out = hold_out(images.targets, validation, seed, images.groups)
    if images.arguments is not None:
        images = replace(images, arguments={**images.arguments, "validation": validation, "seed": seed})
    return images.select(np.setdiff1d(np.arange(len(images)), out)), images.select(out)


def load_again(
    arguments: Mapping[str, str | float], source: str | os.PathLike[str] | None = None
) -> tuple[ImageList, ImageList]:
    """Load images by what `load_images` was given before, perhaps from where they have been moved to."""
    given: dict[str, Any] = dict(arguments)
    if source is None:
        return load_images(**given)
    before, now = Path(given.pop("source", "")), Path(source)
    if now.is_dir() and not before.is_dir() and before.suffix:  # pictures in place of their table
        given = {k: v for k, v in given.items() if k not in ("image", "label", "root", "groups")}
    elif "root" in given:
        moved = now.resolve().parent / os.path.relpath(given["root"], before.parent)
        given["root"] = str(moved) if moved.is_dir() else given["root"]
    return load_images(source, **given)


def _absolute(source: str | os.PathLike[str]) -> str:
    path = os.fspath(source)
    return path if path.startswith("hf:") else str(Path(path).resolve())


def group_pattern(groups_from: str) -> re.Pattern[str]:
    """Return the expression that finds an image's group in its path.

    Raises:
        ValueError: no regular expression.
    """
    try:
        return re.compile(groups_from)
    except re.error as error:
        raise ValueError(f"groups_from must be a regular expression, got {groups_from!r}: {error}") from None


def groups_in_paths(pattern: re.Pattern[str], *lists: _Paths, alone: bool = False) -> list[str]:
    """Return the group of every image of all lists in a row, as `ImageList.with_groups` says.

    The path below the part's folder decides if every image of all lists has a group there, else the whole
    path. A group of whole paths may not hold the folder of its part: no other part would have it.

    Args:
        pattern: what finds a group.
        lists: of each part, how many images it has, and what writes their paths below the part's folder and
            whole.
        alone: whether there may be parts that are not given.

    Raises:
        ValueError: neither of the paths has a group in every image, or groups would hold their part's folder.
    """
    groups: list[str] = []
    for text in (below(index) for number, below, _ in lists for index in range(number)):
        if not (group := _group(pattern.search(text))):
            lacks = text
            break
        groups.append(group)
    else:
        return groups
    groups, folders, inside = [], set(), None
    for number, below, whole in lists:
        for index in range(number):
            found = pattern.search(text := whole(index))
            if found is None or not (group := _group(found)):
                what = "nothing" if found is None else "an empty text"
                raise ValueError(
                    f"groups_from {pattern.pattern!r} finds {what} in {text!r}; give an expression that "
                    "finds the group in every image's path"
                )
            groups.append(group)
            folders.add(folder := text[: len(text) - len(below(index))])
            if inside is None and _reaches(found, folder):
                inside = group, text
    if inside and (alone or len(folders) > 1):
        group, text = inside
        raise ValueError(
            f"groups_from {pattern.pattern!r} finds no group in {lacks!r}, below the folder of the part, and "
            f"in the whole path {text!r} it finds {group!r}, which holds that folder, so that groups in two "
            "parts would not be seen; give an expression that finds the group below that folder in every "
            "image's path"
        )
    return groups


def _group(found: re.Match[str] | None) -> str:
    """Return the group that a match names; empty where there is none."""
    parts = () if found is None else found.groups("") or (found[0],)
    return "/".join(parts) if any(parts) else ""


def _reaches(found: re.Match[str], folder: str) -> bool:
    """Whether the group that a match names holds some of the folder that the path begins with."""
    spans = found.regs[1:] or found.regs
    return any(folder[begin:end].strip("/") for begin, end in spans if 0 <= begin < end)


def part_folders(lists: Sequence[ImageList]) -> list[str]:
    """Return the folder of each part, such as ``train``, below the root; "" where it has none.

    Where `ImageList.folder` does not say it, it is the folder that holds all images of the part, up to that
    of their class where they are of one class. One folder that directly holds them all may also be a class
    of another name, or say nothing: it is read as that of the other parts, if they have one.
    """
    found = [_common_folder(images) for images in lists]
    depths = [len(parts) for parts, certain in found if certain]
    depth = min(depths) if depths else 0
    if not depths and len({parts for parts, _ in found}) > 1:
        depth = max(len(parts) for parts, _ in found)
    return [
        Path(*(parts if certain else parts[:depth])).as_posix() if parts and (certain or depth) else ""
        for parts, certain in found
    ]


def _common_folder(images: ImageList) -> tuple[tuple[str, ...], bool]:
    """Return the parts of the folder of all images, and whether that is certainly the part's own."""
    if images.files is None or images.folder is not None:
        return Path(images.folder or "").parts, True
    folders = {os.path.dirname(os.fsdecode(file)) for file in np.unique(images.files)}
    parts = Path(os.path.commonpath(folders)).parts if folders and all(folders) else ()
    if len(classes := np.unique(images.targets)) == 1:
        name = images.class_names[classes[0]]
        at = [i for i, part in enumerate(parts) if _arrays.one_form(part) == name]
        if at:
            return parts[: at[-1]], True
    return parts, len(folders) != 1 or not parts


def below_folder(images: ImageList, folder: str) -> Callable[[int], str]:
    """Return the function that writes an image's path below the folder of its part."""
    start = len(folder.rstrip("/")) + 1 if folder else 0
    return lambda index: images.path(index)[start:]


def with_groups(lists: Sequence[ImageList], groups_from: str, *, alone: bool = False) -> list[ImageList]:
    """Return the parts of one source with the groups that their paths name, in all parts by one rule.

    Raises:
        ValueError: as `ImageList.with_groups`.
    """
    below = [below_folder(*part) for part in zip(lists, part_folders(lists), strict=True)]
    paths = [(len(images), path, images.path) for images, path in zip(lists, below, strict=True)]
    groups = groups_in_paths(group_pattern(groups_from), *paths, alone=alone)
    found = []
    for images in lists:
        own, groups = groups[: len(images)], groups[len(images) :]
        names, codes = np.unique(own, return_inverse=True)
        if numbering_restarts(names.tolist(), codes, images.targets, images.path):
            _checks.warn(
                f"groups_from {groups_from!r} finds numbers such as {own[0]!r}, which may begin anew in "
                f"every class; if they do, let it find the class's folder, too: ([^/]+)/[^/]*?{groups_from}"
            )
        found.append(replace(images, groups=np.array(own)))
    return found


def numbering_restarts(
    names: Sequence[str], codes: npt.NDArray[np.int64], targets: Targets, path: Callable[[int], str]
) -> bool:
    """Whether the numbers of groups begin anew in every class, as those of GTSRB's tracks do.

    Then groups are numbers, files of several classes have one name, and the highest number differs much from
    class to class; numbered patients with files in every class have the same highest number there. In every
    class most numbers up to the highest are there; of patients a rare class has a few, of any number.
    """
    if not all(name.isdecimal() for name in names):
        return False
    numbers = np.array([int(name) for name in names])
    found = [np.unique(numbers[codes[targets == c]]) for c in np.unique(targets)]
    tops = [int(own.max()) for own in found]
    if max(tops) < 2 * max(1, min(tops)) or any(
        top >= 2 * len(own) for top, own in zip(tops, found, strict=True)
    ):
        return False
    files: dict[str, int] = {}
    for index, c in enumerate(targets.tolist()):
        if files.setdefault(os.path.basename(path(index)), c) != c:
            return True
    return False


def tell_shared(groups: npt.NDArray[Any] | None, tested: npt.NDArray[Any] | None) -> None:
    """Warn of groups that are in both training and test."""
    if groups is None or tested is None:
        return
    if shared := {*groups.tolist()} & {*tested.tolist()}:
        _checks.warn(
            f"{len(shared)} groups are in both training and test, such as {min(shared)!r}: the test error "
            "will look better than it is"
        )


def list_images(
    source: Any,
    *,
    image: str | None = None,
    label: str | None = None,
    root: str | os.PathLike[str] | None = None,
    groups: str | None = None,
    groups_from: str | None = None,
) -> tuple[ImageList, ImageList | None]:
    """List the images of a source as `load_images` does, but hold none out: without a test set it is None."""
    if groups is not None and groups_from is not None:
        raise ValueError("groups= is given beside groups_from=; leave one of the two out")
    train, test = _listed(source, image, label, root, groups)
    if groups_from is not None:
        train, *rest = with_groups([train] if test is None else [train, test], groups_from)
        test = rest[0] if rest else None
    if test is not None:
        tell_shared(train.groups, test.groups)
    if not isinstance(source, (str, os.PathLike)):
        return train, test
    columns = {"image": image, "label": label, "groups": groups, "groups_from": groups_from}
    given: dict[str, str | float] = {name: text for name, text in columns.items() if text is not None}
    given |= {"root": _absolute(root)} if root is not None else {}
    given["source"] = _absolute(source)
    return replace(train, arguments=given), test and replace(test, arguments=given)


def _listed(
    source: Any,
    image: str | None,
    label: str | None,
    root: str | os.PathLike[str] | None,
    groups: str | None,
) -> tuple[ImageList, ImageList | None]:
    folder = Path(source) if isinstance(source, (str, os.PathLike)) and os.path.isdir(source) else None
    if folder is not None and (inside := pictures.in_folder(folder)):
        source = inside
    if pictures.is_table(source):
        found = pictures.read(Path(source), image, label, None if root is None else Path(root))
        together = None if groups is None else pictures.column(Path(source), image, groups)
        files, targets = found.train
        whole = ImageList(targets, found.class_names, found.root, files, groups=together)
        said = pictures.parts(Path(source), image, label)
        if said is None:
            return whole, None
        ours, theirs = (whole.select(np.flatnonzero(rows)) for rows in said)
        check_classes(whole.class_names, ours.targets, theirs.targets, str(source))
        return ours, theirs
    rows = hub.splits(source)
    given = {"image": image, "label": label, "groups": groups, "root": root}
    for name, value in given.items():
        if value is not None and (rows is None) != (name == "root"):
            other = "list files and tables" if name == "root" else "a Hugging Face data set or a table"
            instead = " (groups_from finds groups in paths)" if name == "groups" else ""
            raise ValueError(
                f"{name}={value!r} belongs to {other}; leave it out for {str(source)!r}{instead}"
            )
    if rows is not None:
        title = str(source) if isinstance(source, str) else "source"
        train, test = _of_rows(rows, image, label, groups, title)
    else:
        found = _listing(source, None if root is None else Path(root))
        train, *rest = (
            ImageList(part[1], found.class_names, found.root, part[0], folder=folder)
            for part, folder in zip((found.train, found.test), found.folders, strict=True)
            if part is not None
        )
        test = rest[0] if rest else None
    return train, test


class TorchDataset:
    """Images as a map-style data set for `torch.utils.data.DataLoader` and the Hugging Face Trainer.

    An item is ``{"pixel_values": float32 (3, size, size), "labels": int}``. What an image looks like depends
    on (seed, epoch, index) alone, not on workers, order or processes. `set_epoch` reaches the workers of a
    loader, persistent ones too.

    Args:
        images: What to read.
        transform: `TrainTransform`, `EvalTransform` or a function (image, draw) -> float32 array.
        seed: Of the random numbers.
        on_error: "raise", or "skip": an image that cannot be read becomes zeros with the label -100, which
            `ClassBalancedLoss` and torch's losses ignore; `skipped` names them.

    Example:
        >>> train, test = load_images("photos")  # doctest: +SKIP
        >>> TorchDataset(train, TrainTransform(224))[0]["pixel_values"].shape  # doctest: +SKIP
        torch.Size([3, 224, 224])
    """

    def __init__(
        self, images: ImageList, transform: Transform, *, seed: int = 0, on_error: str = "raise"
    ) -> None:
        torch = needs("torch", "images need", "torch")
        self.images, self.transform = images, transform
        self.seed = _checks.integer("seed", seed, low=0)
        self.on_error = _checks.choice("on_error", on_error, _ON_ERROR)
        # in shared memory: one number for all worker processes
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._skipped = torch.zeros(len(images), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.images)

    def set_epoch(self, epoch: int) -> None:
        """Change the random numbers; call it before each epoch."""
        self._epoch.fill_(_checks.integer("epoch", epoch, low=0))

    @property
    def skipped(self) -> tuple[str, ...]:
        """The images that could not be read so far, in any worker."""
        return tuple(self.images.name(i) for i in self._skipped.nonzero().flatten().tolist())

    def __getitem__(self, index: int) -> dict[str, object]:
        torch = needs("torch", "images need", "torch")
        index = range(len(self))[index]
        draw = draws(self.seed, int(self._epoch), index)
        try:
            pixels = self.images.decode(index, self.transform, draw)
        except UnreadableImageError as error:
            if self.on_error == "raise":
                raise
            if not self._skipped[index]:
                self._skipped[index] = True
                _checks.warn(f"skipped: {error}")
            size = getattr(self.transform, "size", 1)
            return {"pixel_values": torch.zeros(3, size, size), "labels": -100}
        return {"pixel_values": torch.from_numpy(pixels), "labels": int(self.images.targets[index])}


def in_memory(train: ImageList, test: ImageList, size: int, *, name: str, on_error: str = "raise") -> Dataset:
    """Decode all images into one array, for the in-memory loop: folders of small pictures.

    Args:
        train: The training images.
        test: The test images, of the same classes.
        size: Height and width: the middle square of each image is resized to it.
        name: What to call the data set in tables and files.
        on_error: "raise", or "skip": images that cannot be read are left out, with one warning.

    Returns:
        Images as uint8 of shape (N, 3, size, size), kind ``"images"``.

    Raises:
        UnreadableImageError: An image cannot be read, or with "skip" no image of a class can.
        ValueError: The classes differ.

    Example:
        >>> data = in_memory(*load_images("photos"), 32, name="photos")  # doctest: +SKIP
        >>> in_memory(*load_images("no/such/folder"), 32, name="photos")
        Traceback (most recent call last):
        FileNotFoundError: image folder no/such/folder is not there; check the path
    """
    _checks.integer("size", size, low=1)
    _checks.choice("on_error", on_error, _ON_ERROR)
    if train.class_names != test.class_names:
        raise ValueError("train and test have other class_names; load them together")
    parts = []
    for images in (train, test):
        pixels = np.empty((len(images), 3, size, size), np.uint8)
        kept = images._readable(partial(_put_square, pixels), on_error)
        whole = len(kept) == len(images)
        together = None if images.groups is None else images.groups[kept]
        parts.append(Split(pixels if whole else pixels[kept], images.targets[kept], together))
    return Dataset(name, parts[0], parts[1], train.class_names, "images", train.arguments)


def gtsrb(root: str | os.PathLike[str] | None = None) -> Dataset:
    """Load traffic signs: 43 classes of small pictures, naturally imbalanced.

    Thirty pictures in a row, ``TRACK_FRAME``, are one sign from one passing car: a class has as many
    prototypes as it has tracks, and training and test images must not share any. Tracks are the groups that
    intervals of the test error count.

    Args:
        root: The folder with ``train/CLASS/TRACK_FRAME.jpg`` and the same under ``test``, perhaps in a
            folder ``gtsrb``; None as in `longtail.datasets.cifar10`.

    Returns:
        Images as uint8 of shape (N, 3, 32, 32).

    Raises:
        FileNotFoundError: The folders are not there.
        ValueError: There are not 43 classes, or a track is in both training and test.

    Example:
        >>> gtsrb().num_classes  # doctest: +SKIP
        43
        >>> gtsrb("no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: root is no/such/folder, which has no train and test; ...

    Source:
        Stallkamp et al., "The German traffic sign recognition benchmark", IJCNN 2011.
    """
    start, origin = data_root(root)
    places = (start, start / "gtsrb")
    folder = next((f for f in places if all((f / part).is_dir() for part in ("train", "test"))), None)
    if folder is None:
        raise FileNotFoundError(
            f"{origin} is {start}, which has no train and test; put GTSRB's class folders there, tracks "
            "apart, or name another folder with root= or the environment variable LONGTAIL_DATA"
        )
    train, test = load_images(folder)
    if train.num_classes != 43:
        raise ValueError(f"{folder} has {train.num_classes} classes, GTSRB has 43; name its folder")
    tracks, tested = _tracks(train), _tracks(test)
    if shared := {*tracks.tolist()} & {*tested.tolist()}:
        raise ValueError(f"{folder}: track {min(shared)} is in both train and test; split by track")
    train, test = replace(train, groups=tracks), replace(test, groups=tested)
    return replace(in_memory(train, test, 32, name="gtsrb"), arguments=None)


def _tracks(images: ImageList) -> npt.NDArray[np.str_]:
    """Class and track of each image."""
    paths = [Path(images.name(i)) for i in range(len(images))]
    return np.array([f"{path.parent.name}/{path.name.rpartition('_')[0]}" for path in paths])


def middle_square(image: Image, size: int) -> npt.NDArray[np.uint8]:
    """Return the middle square of an image as `in_memory` has it, uint8 of shape (3, size, size)."""
    width, height = upright_size(image)
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = cut(image, (left, top, left + side, top + side), size, MARGIN)
    return np.asarray(square).transpose(2, 0, 1)


def _put_square(pixels: npt.NDArray[np.uint8], index: int, image: Image) -> None:
    pixels[index] = middle_square(image, pixels.shape[-1])


def _listing(source: Any, root: Path | None) -> Listing:
    if isinstance(source, Sequence) and not isinstance(source, (str, bytes)):
        if len(source) != 2:
            raise ValueError(f"source must be a pair (train, test) of list files, got {len(source)} names")
        return lists.read(Path(source[0]), Path(source[1]), root)
    path = Path(source)
    if path.suffix == ".txt":
        return lists.read(path, lists.partner(path), root)
    if root is not None:
        raise ValueError(f"root={str(root)!r} belongs to list files; leave it out for {str(source)!r}")
    return coco.read(path) if path.suffix == ".json" else folders.read(path)


def _of_rows(
    parts: dict[str, Any], image: str | None, label: str | None, groups: str | None, source: str
) -> tuple[ImageList, ImageList | None]:
    column, found, named = hub.images(parts, image, label, source)
    if named is not None:
        names = named
        codes = [labels.astype(np.int64) for _, labels in found]
    else:
        known, first = encode(found[0][1])
        names, codes = tuple(map(str, known)), [first.astype(np.int64)]
        for _, labels in found[1:]:
            refuse_unseen(sorted({str(x) for x in labels.tolist()} - set(names)), source)
            codes.append(np.searchsorted(np.array(known), labels).astype(np.int64))
    check_classes(names, codes[0], codes[1] if len(codes) > 1 else None, source)
    made = []
    for (rows, _), targets in zip(found, codes, strict=True):
        together = None if groups is None else hub.column(rows, groups, source)
        made.append(ImageList(targets, names, rows=rows, column=column, groups=together))
    return made[0], made[1] if len(made) > 1 else None


def _look(_: int, image: Image) -> None:
    if not _ends_well(image):
        load(image)


def _ends_well(image: Image) -> bool:
    """Whether a JPEG or PNG file ends as it should; False for other kinds, which say nothing by their end."""
    end = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}.get(image.format or "")
    file = getattr(image, "fp", None)
    if end is None or file is None:
        return False
    place = file.tell()
    file.seek(-len(end), os.SEEK_END)
    found = file.read() == end
    file.seek(place)
    return bool(found)


def _first(bad: dict[int, UnreadableImageError], limit: int = _NAMED) -> str:
    more = len(bad) - limit
    text = "; ".join(
        str(error).removesuffix("; replace or remove it") for error in list(bad.values())[:limit]
    )
    return text if more <= 0 else f"{text}; and {more} more"
