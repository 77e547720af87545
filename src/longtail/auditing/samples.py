"""What is audited: labelled samples of one or two parts, and how one looks at each of them."""

from __future__ import annotations

import hashlib
import math
import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from longtail import _checks
from longtail._arrays import NUMBER, is_missing
from longtail.counts import ClassCounts
from longtail.datasets.decoding import cut, load, orientation, upright_size
from longtail.datasets.features import Features
from longtail.datasets.images import ImageList, UnreadableImageError, below_folder, part_folders
from longtail.datasets.long_tail import Dataset
from longtail.sources.counted import needs

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["UnreadableImageError"]

SIDE = 8  # of the small picture by which pictures are compared
_LEVELS = 8.0  # of 255: contrast below which a picture counts as plain
_BRIGHTNESS = 64.0
_ALPHA = ("P", "PA", "LA", "La", "RGBA", "RGBa")
_DIGEST = 16  # bytes: two of a thousand million samples share one by chance with 1e-21

Small = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Look:
    """One sample, seen once.

    Attributes:
        fine: digest of what lies on the disk.
        coarse: digest of what a model sees of it; samples alike in `fine` are alike in it.
        small: a picture of 8 x 8 pixels and three channels; None for what is no picture.
    """

    fine: bytes
    coarse: bytes
    small: Small | None = None


class Content(Protocol):
    """What samples hold beside their labels."""

    @property
    def kinds(self) -> tuple[str, str]:
        """In what samples with one `fine` digest are duplicates, and those with one `coarse` digest."""

    @property
    def pictures(self) -> bool:
        """Whether samples are pictures."""

    def look(self, index: int) -> Look:
        """Look at a sample; raises UnreadableImageError."""

    def picture(self, index: int) -> Image | None:
        """Return a sample as a picture, or None."""

    def text(self, index: int) -> str:
        """Return a sample as text to be read beside its name, or nothing."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled samples, those of the training part first.

    Attributes:
        title: what the page calls them.
        class_names: by label.
        parts: names of the parts, "train" first.
        part: the part of each sample.
        labels: the class of each sample.
        name: what a sample is called.
        content: what can be compared; None for labels alone.
        vectors: features of each sample, or None.
        columns: what groups may be taken from, by name.
        notes: what was left out or taken for something.
        paths: the name of each sample's file below its part's folder; None where samples are no files.
    """

    title: str
    class_names: tuple[str, ...]
    parts: tuple[str, ...]
    part: npt.NDArray[np.int8]
    labels: npt.NDArray[np.int64]
    name: Callable[[int], str]
    content: Content | None = None
    vectors: npt.NDArray[Any] | None = None
    columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    paths: Callable[[int], str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self, part: int) -> ClassCounts:
        """Return the samples of each class in a part."""
        labels = self.labels[self.part == part]
        return ClassCounts(self.class_names, np.bincount(labels, minlength=len(self.class_names)))


# ---- pictures


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images on the disk or in rows, one list a part."""

    lists: tuple[ImageList, ...]
    kinds = ("bytes", "pixels")
    pictures = True

    def at(self, index: int) -> tuple[ImageList, int]:
        """Return the list of an image, and its place there."""
        for images in self.lists:
            if index < len(images):
                return images, index
            index -= len(images)
        raise IndexError(index)

    def look(self, index: int) -> Look:
        """Read and decode an image once."""
        images, place = self.at(index)
        fine = digest(images.read(place))
        coarse = [fine]

        def take(image: Image, _: np.random.Generator) -> npt.NDArray[np.float32]:
            if getattr(image, "n_frames", 1) == 1:  # of more, a network sees the first alone, people all
                load(image)
                coarse[0] = _pixels(image)
            return np.asarray(_whole(image, SIDE), np.float32)

        small = images.decode(place, take, _NO_DRAW)
        return Look(fine, coarse[0], small.astype(np.uint8))

    def picture(self, index: int) -> Image | None:
        """Return an image as the page shows it."""
        images, place = self.at(index)

        def take(image: Image, _: np.random.Generator) -> npt.NDArray[np.float32]:
            return np.asarray(_whole(image, 0), np.float32)

        try:
            pixels = images.decode(place, take, _NO_DRAW)
        except UnreadableImageError:  # it was there a moment ago
            return None
        image: Image = needs("PIL.Image", "pictures need", "images").fromarray(pixels.astype(np.uint8))
        return image

    def text(self, index: int) -> str:
        """Say nothing: the picture is shown."""
        return ""


_NO_DRAW = np.random.default_rng(0)


def _whole(image: Image, side: int) -> Image:
    """Return a whole picture, upright and in RGB: as a square, or with side 0 as it is, within 160 pixels."""
    width, height = upright_size(image)
    size = side or min(160, max(width, height))
    square = cut(image, (0, 0, width, height), size, math.inf if side else 1.0)
    if side:
        return square
    scale = size / max(width, height)
    return square.resize((max(1, round(scale * width)), max(1, round(scale * height))))


def _pixels(image: Image) -> bytes:
    """Digest what a picture shows: its size, orientation and pixels, however its file holds them."""
    turn = orientation(image)
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() == (255, 255):
            image = image.convert("RGB")
    elif image.mode in ("1", "L"):
        image = image.convert("RGB")
    return digest(image.tobytes(), f"{image.mode} {image.size} {turn}")


def digest(data: bytes, kind: str = "") -> bytes:
    """Return a digest of some bytes that no other bytes have, as far as anybody can tell."""
    return hashlib.blake2b(
        data, digest_size=_DIGEST, person=hashlib.blake2b(kind.encode(), digest_size=16).digest()
    ).digest()


def of_images(lists: tuple[ImageList, ...], parts: tuple[str, ...], title: str) -> Samples:
    """Return images as samples, one list a part."""
    content = Pictures(lists)
    below = [below_folder(*part) for part in zip(lists, part_folders(lists), strict=True)]

    def path(index: int) -> str:
        images, place = content.at(index)
        return below[lists.index(images)](place)

    def name(index: int) -> str:
        images, place = content.at(index)
        return os.fsdecode(images.files[place]) if images.files is not None else images.name(place)

    return Samples(
        title,
        lists[0].class_names,
        parts,
        np.repeat(np.arange(len(lists), dtype=np.int8), [len(images) for images in lists]),
        np.concatenate([images.targets for images in lists]),
        name,
        content,
        columns=_Columns(lists),
        paths=path,
    )


class _Columns(Mapping[str, Any]):
    """The columns of a Hugging Face data set, all parts in a row; none where images are files."""

    def __init__(self, lists: tuple[ImageList, ...]) -> None:
        self._rows = [images.rows for images in lists]

    def __getitem__(self, name: str) -> Any:
        if name not in list(self):
            raise KeyError(name)
        return [
            value for rows in self._rows for value in rows.with_format(None).select_columns([name])[name][:]
        ]

    def __iter__(self) -> Any:
        return iter([] if self._rows[0] is None else self._rows[0].column_names)

    def __len__(self) -> int:
        return len(list(iter(self)))


# ---- arrays


@dataclass(frozen=True, eq=False)
class Arrays:
    """Samples in arrays, one a part; pictures where they have channels, height and width, white is `top`."""

    inputs: tuple[npt.NDArray[Any], ...]
    pictures: bool
    top: float = 255.0
    kinds = ("values", "values")

    def _at(self, index: int) -> npt.NDArray[Any]:
        for part in self.inputs:
            if index < len(part):
                return np.asarray(part[index])
            index -= len(part)
        raise IndexError(index)

    def look(self, index: int) -> Look:
        """Digest a sample's values; 0 and -0 are one."""
        values = self._at(index)
        found = digest((values + values.dtype.type(0)).tobytes(), f"{values.dtype} {values.shape}")
        image = self.picture(index)
        small = None if image is None else np.asarray(image.resize((SIDE, SIDE), 2), np.uint8)
        return Look(found, found, small)

    def picture(self, index: int) -> Image | None:
        """Return a sample of a data set of images as one."""
        if not self.pictures:
            return None
        values = self._at(index).transpose(1, 2, 0)
        if values.dtype != np.uint8:
            values = np.clip(255 * values / self.top, 0, 255).astype(np.uint8)
        image: Image = needs("PIL.Image", "pictures need", "images").fromarray(
            np.ascontiguousarray(values[..., 0] if values.shape[2] == 1 else values[..., :3])
        )
        return image.convert("RGB")

    def text(self, index: int) -> str:
        """Return the first few values of what is no picture."""
        if self.pictures:
            return ""
        values = self._at(index).reshape(-1)
        more = ", ..." if len(values) > 6 else ""
        return ", ".join(f"{value:.4g}" for value in values[:6].tolist()) + more


def of_dataset(data: Dataset) -> Samples:
    """Return a data set in memory as samples."""
    splits = (data.train, data.test)
    inputs = tuple(split.inputs for split in splits)
    channels = inputs[0].shape[1] if inputs[0].ndim == 4 else 0
    return of_arrays(
        data.name,
        tuple(map(str, data.class_names or range(data.num_classes))),
        inputs,
        tuple(np.asarray(split.targets, np.int64) for split in splits),
        pictures=data.kind == "images" and channels in (1, 3, 4),
    )


def of_arrays(
    title: str,
    class_names: tuple[str, ...],
    inputs: tuple[npt.NDArray[Any], ...],
    targets: tuple[npt.NDArray[np.int64], ...],
    *,
    pictures: bool = False,
    columns: Mapping[str, Any] | None = None,
    paths: npt.NDArray[Any] | None = None,
) -> Samples:
    """Return arrays as samples, one array a part."""
    sizes = [len(t) for t in targets]
    parts = ("train", "test")[: len(sizes)]

    def name(index: int) -> str:
        if paths is not None:
            return str(paths[index])
        return f"{parts[index >= sizes[0]]} {index - sizes[0] * (index >= sizes[0])}"

    flat = all(part.ndim == 2 and part.dtype.kind == "f" for part in inputs)
    return Samples(
        title,
        class_names,
        parts,
        np.repeat(np.arange(len(sizes), dtype=np.int8), sizes),
        np.concatenate(targets),
        name,
        Arrays(inputs, pictures, max(float(part.max()) for part in inputs) or 1.0 if pictures else 1.0),
        vectors=np.concatenate(inputs) if flat and not pictures else None,
        columns=columns or {},
        paths=None if paths is None else name,
    )


# ---- rows of a table


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a table, all parts one after the other.

    Rows are one in `kinds[1]` if their cells agree after normalisation: numbers by their value, text in one
    Unicode form (NFKC), without case and with single blanks.
    """

    cells: tuple[Sequence[Any], ...]
    kinds = ("row", "text")
    pictures = False

    def look(self, index: int) -> Look:
        """Digest a row as it stands, and after normalisation."""
        row = [column[index] for column in self.cells]
        fine = [f"{type(cell).__name__} {cell!r}" for cell in row]
        return Look(digest("\0".join(fine).encode("utf-8", "surrogatepass")),
                    digest("\0".join(map(normal, row)).encode("utf-8", "surrogatepass")))  # fmt: skip

    def picture(self, index: int) -> Image | None:
        """Return nothing: a row is no picture."""
        return None

    def text(self, index: int) -> str:
        """Return the cells."""
        return " | ".join("" if is_missing(cell) else str(cell) for cell in (c[index] for c in self.cells))


def normal(cell: object) -> str:
    """Return a cell in the form in which cells are compared."""
    if is_missing(cell):
        return "missing"
    if isinstance(cell, (int, float, np.number)) and not isinstance(cell, bool):
        cell = str(cell)
    if isinstance(cell, str) and NUMBER.fullmatch(cell) and not re.match(r"\s*[-+]?0[0-9]", cell):  # no code
        whole = cell.strip().lstrip("+-").isdecimal()  # of any length, where a float would round
        return f"number {int(cell) if whole else float(cell) + 0.0:}".removesuffix(".0")
    return f"text {' '.join(unicodedata.normalize('NFKC', str(cell)).casefold().split())}"


def is_number_of_row(cells: Sequence[Any]) -> bool:
    """Whether a column only numbers the rows, or names each: whole numbers or single words, all distinct."""
    if len(cells) < 3 or any(is_missing(cell) for cell in cells):
        return False
    texts = list(map(normal, cells))
    if len(set(texts)) < len(texts):
        return False
    return all(re.fullmatch(r"number -?[0-9]+|text [^ ]*", text) for text in texts)


# ---- features beside the samples


def signature(small: Small) -> npt.NDArray[np.float32]:
    """Return small pictures, (N, 8, 8, 3), as vectors whose distance says how alike they look.

    Each is taken less its mean, over its contrast, which leaves plain pictures short; the mean itself stands
    beside it, so that a change of brightness by 13 of 255 levels parts two pictures.
    """
    flat = small.reshape(len(small), -1).astype(np.float32)
    mean, contrast = flat.mean(1, keepdims=True), flat.std(1, keepdims=True)
    shape = (flat - mean) / ((contrast + _LEVELS) * math.sqrt(flat.shape[1]))
    return np.concatenate([shape, mean / _BRIGHTNESS], axis=1, dtype=np.float32)


def unit(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return vectors of length 1; what is 0 stays so."""
    v = np.asarray(vectors, np.float32)
    length = np.linalg.norm(v, axis=1, keepdims=True)
    return np.asarray(v / np.where(length > 0, length, 1), np.float32)


def beside(given: object, samples: Samples) -> npt.NDArray[Any]:
    """Return one vector a sample: an array as it is, or the rows of a features file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another number of rows than samples, rows of other classes, or an unreadable file.
    """
    if isinstance(given, (str, os.PathLike)):
        file = Features.load(given)
        title = f"features {os.fspath(given)!r}"
        rows, labels = (
            np.concatenate([a for a in pair if a is not None])
            for pair in ((file.X, file.X_test), (file.y, file.y_test))
        )
        if len(rows) == len(samples) and file.class_names == samples.class_names:
            other = np.flatnonzero(labels != samples.labels)
            if len(other):
                raise ValueError(
                    f"{title}: row {other[0]} is of class {file.class_names[labels[other[0]]]!r}, but sample "
                    f"{samples.name(int(other[0]))!r} is not; give rows in the samples' order"
                )
    else:
        rows, title = np.asarray(given), "features"
    if rows.ndim != 2 or rows.dtype.kind not in "fiu":
        raise ValueError(f"{title} must hold numbers of shape (N, D), got {_checks.describe(rows)}")
    if len(rows) != len(samples):
        sizes = " + ".join(str(int((samples.part == k).sum())) for k in range(len(samples.parts)))
        raise ValueError(
            f"{title} has {len(rows)} rows for {len(samples)} samples ({sizes}); give one row a sample, "
            "in the samples' order"
        )
    return rows
