"""CIFAR-10, CIFAR-100 and CIFAR-20 from the files that their authors publish, in either layout.

Nothing is downloaded while loading. Every batch is checked for size, labels and, where the official content
is known, its checksum; a pickled batch is read by a loader that can make arrays, numbers, text and
containers, and can call nothing.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from longtail import _checks
from longtail.datasets.fetch import Archive, data_root, fetch
from longtail.datasets.long_tail import Dataset, Split
from longtail.datasets.pickles import read_pickle, text

_PIXELS = 3 * 32 * 32


def cifar10(root: str | os.PathLike[str] | None = None, *, verify: bool = True) -> Dataset:
    """Load CIFAR-10: 60,000 colour photographs of 32x32 pixels in 10 classes.

    Args:
        root: The folder ``cifar-10-batches-py`` or ``cifar-10-batches-bin``, or the one it lies in. If None,
            the environment variable ``LONGTAIL_DATA``, else ``longtail`` in the user's cache folder
            (``$XDG_CACHE_HOME`` or ``~/.cache``).
        verify: Require the official number of images and the official content of every batch. False takes
            batches of any length, for excerpts and tests; pickles are never trusted either way.

    Returns:
        Images as uint8 of shape (N, 3, 32, 32), red, green, blue, from 0 to 255; targets as int64; 50,000 to
        train on, in the order of the files, and 10,000 to test.

    Raises:
        FileNotFoundError: The data set is not there, or a file of it is missing.
        ValueError: A file is damaged, of the wrong size, not a CIFAR batch, or a pickle that asks for more
            than data; or a folder's ``~`` stands for no home folder.

    Example:
        >>> cifar10().train.inputs.shape  # doctest: +SKIP
        (50000, 3, 32, 32)
        >>> cifar10("no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: root is no/such/folder, which is not there; ...

    Source:
        A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009;
        https://www.cs.toronto.edu/~kriz/cifar.html. The checksums are those of the binary batches; content
        is compared, so a batch that was pickled anew passes.
    """
    return _load("cifar10", _CIFAR10, "labels", root, verify)


def cifar100(root: str | os.PathLike[str] | None = None, *, verify: bool = True) -> Dataset:
    """Load CIFAR-100 with its 100 fine classes.

    Args:
        root: The folder ``cifar-100-python`` or ``cifar-100-binary``, or the one it lies in; otherwise as in
            `cifar10`.
        verify: As in `cifar10`, with the sizes of all classes and of their groups in place of checksums of
            the content. In the python layout a file with another MD5 than the official one is a warning,
            since pickling anew changes it.

    Returns:
        As `cifar10`: 50,000 training and 10,000 test images, 500 and 100 of every class.

    Raises:
        FileNotFoundError: As in `cifar10`.
        ValueError: As in `cifar10`.

    Example:
        >>> cifar100().num_classes  # doctest: +SKIP
        100

    Source:
        As `cifar10`. The MD5 of the python files are those that torchvision checks.
    """
    return _load("cifar100", _CIFAR100, "fine_labels", root, verify)


def cifar20(root: str | os.PathLike[str] | None = None, *, verify: bool = True) -> Dataset:
    """Load CIFAR-20: the images of CIFAR-100 with their 20 coarse classes, the name that of Cui et al., 2019.

    Args:
        root: As in `cifar100`.
        verify: As in `cifar100`.

    Returns:
        As `cifar10`: 50,000 training and 10,000 test images, 2500 and 500 of every class.

    Raises:
        FileNotFoundError: As in `cifar10`.
        ValueError: As in `cifar10`.

    Example:
        >>> cifar20().num_classes  # doctest: +SKIP
        20
    """
    return _load("cifar20", _CIFAR100, "coarse_labels", root, verify)


def download(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    url: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Download a data set into the folder where its loader looks; what is there already is kept.

    An interrupted download goes on where it stopped. Offline, put the archive into the folder by hand and
    call this to check and unpack it. About 170 MB to fetch, and 190 MB unpacked.

    Args:
        name: ``"cifar10"``, ``"cifar100"`` or ``"cifar20"``, the last two being one archive.
        root: The folder to put it in; None as in `cifar10`.
        url: Another address of the same archive; the official one if None. The content must be the same.
        progress: Called as ``progress(bytes_done, bytes_total)``.

    Returns:
        The folder of the unpacked files, of which the loaders take this one or its parent.

    Raises:
        DownloadError: No connection, a wrong size or checksum, no room, or another process is at it; one line
            says what to fetch and where to put it.
        ValueError: The name is unknown, or ``url`` no web address.

    Example:
        >>> download("cifar11")
        Traceback (most recent call last):
        ValueError: name must be one of ..., got 'cifar11'; did you mean 'cifar10'?

    Source:
        Size and MD5 from https://www.cs.toronto.edu/~kriz/cifar.html, SHA-256 from Keras, which downloads the
        same archives.
    """
    family = _FAMILIES[_checks.choice("name", name, _FAMILIES)]
    return fetch(family.archive, data_root(root)[0], url=url, progress=progress)


@dataclass(frozen=True)
class _Batch:
    """One file; ``sha256`` is that of its records, ``md5`` that of the file in the python layout."""

    name: str
    train: bool
    images: int
    sha256: str | None = None
    md5: str | None = None


@dataclass(frozen=True)
class _Labels:
    """A label byte of every record: its key in a pickled batch, and where its class names are."""

    key: str
    classes: int
    names_key: str
    names_file: str


@dataclass(frozen=True)
class _Family:
    title: str
    python_folder: str
    binary_folder: str
    batches: tuple[_Batch, ...]
    meta: str
    labels: tuple[_Labels, ...]  # in the order of their bytes in a binary record
    archive: Archive

    def files(self, binary: bool) -> list[str]:
        """The names of all files of a layout."""
        if binary:
            return [f"{b.name}.bin" for b in self.batches] + [x.names_file for x in self.labels]
        return [b.name for b in self.batches] + [self.meta]


def _load(name: str, family: _Family, key: str, root: str | os.PathLike[str] | None, verify: bool) -> Dataset:
    folder, binary = _locate(name, family, root)
    records: dict[bool, list[npt.NDArray[np.uint8]]] = {True: [], False: []}
    for batch in family.batches:
        path = folder / (f"{batch.name}.bin" if binary else batch.name)
        found = _binary(path, family) if binary else _python(path, family)
        for largest, known in zip(found[:, : len(family.labels)].max(0), family.labels, strict=True):
            if largest >= known.classes:
                raise ValueError(
                    f"{path} has a label {largest} in {known.key!r}, {family.title} has 0 to "
                    f"{known.classes - 1}; the file is damaged: {_AGAIN}"
                )
        if verify:
            _verify(path, batch, found, family.title, binary)
        records[batch.train].append(found)

    width = len(family.labels)
    labels = {part: np.concatenate([r[:, :width] for r in found]) for part, found in records.items()}
    if verify:
        _verify_classes(family, folder, labels[True], labels[False])
    column = [x.key for x in family.labels].index(key)

    def split(train: bool) -> Split:
        pixels = np.concatenate([r[:, width:] for r in records[train]])
        return Split(pixels.reshape(-1, 3, 32, 32), labels[train][:, column].astype(np.int64))

    names = _class_names(folder, family, family.labels[column], binary)
    return Dataset(name=name, train=split(True), test=split(False), class_names=names)


# where the files are


def _locate(name: str, family: _Family, root: str | os.PathLike[str] | None) -> tuple[Path, bool]:
    """The folder to read, and whether it is in the binary layout; a complete one first."""
    start, origin = data_root(root)
    partial: list[tuple[Path, list[str]]] = []
    for folder in (start / family.python_folder, start / family.binary_folder, start):
        for binary in (False, True):
            files = family.files(binary)
            missing = [file for file in files if not (folder / file).is_file()]
            if not missing:
                return folder, binary
            if len(missing) < len(files):
                partial.append((folder, missing))
    where = name if origin != "root" else f"{name}', '{start}"
    get = f"get it with longtail.datasets.download('{where}')"
    if partial:
        folder, missing = min(partial, key=lambda found: len(found[1]))
        raise FileNotFoundError(
            f"{folder} has a part of {family.title}, but not {_checks.shorten(missing)}; {get}"
        )
    state = f"has no {family.python_folder} or {family.binary_folder}" if start.is_dir() else "is not there"
    raise FileNotFoundError(
        f"{origin} is {start}, which {state}; {get}, or name the folder that holds it with root= or the "
        "environment variable LONGTAIL_DATA"
    )


# what a file holds: records of label bytes and pixels, as the binary layout has them


def _binary(path: Path, family: _Family) -> npt.NDArray[np.uint8]:
    width = len(family.labels) + _PIXELS
    raw = np.fromfile(path, np.uint8)
    if not raw.size or raw.size % width:
        raise ValueError(
            f"{path} has {raw.size} bytes, not a whole number of {width}-byte records; it was cut "
            f"short or is no {family.title} batch: {_AGAIN}"
        )
    return raw.reshape(-1, width)


def _python(path: Path, family: _Family) -> npt.NDArray[np.uint8]:
    content = read_pickle(path)
    pixels = content.get("data")
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.shape[1:] != (_PIXELS,)
        or not len(pixels)
    ):
        raise ValueError(
            f"{path} has no 'data' of uint8 and shape (N, {_PIXELS}), so it is no {family.title} batch; "
            f"{_AGAIN}"
        )
    records = np.empty((len(pixels), len(family.labels) + _PIXELS), np.uint8)
    for column, labels in enumerate(family.labels):
        values = content.get(labels.key)
        if isinstance(values, list) and all(type(label) is int for label in values):
            values = np.array(values)
        if (
            not isinstance(values, np.ndarray)
            or values.dtype.kind not in "iu"
            or values.shape != (len(pixels),)
            or not 0 <= values.min() <= values.max() <= 255
        ):
            raise ValueError(
                f"{path} has no {labels.key!r} of {len(pixels)} integers from 0 to {labels.classes - 1}, "
                f"one for each image, so it is damaged or no {family.title} batch; {_AGAIN}"
            )
        records[:, column] = values
    records[:, len(family.labels) :] = pixels
    return records


def _class_names(folder: Path, family: _Family, labels: _Labels, binary: bool) -> tuple[str, ...]:
    if binary:
        path = folder / labels.names_file
        names: object = path.read_text(encoding="latin1").split()
    else:
        path = folder / family.meta
        names = read_pickle(path).get(labels.names_key)
    texts = tuple(map(text, names)) if isinstance(names, list) else ()
    if len(set(texts)) != labels.classes or len(texts) != labels.classes:
        raise ValueError(f"{path} does not name the {labels.classes} classes of {family.title}; {_AGAIN}")
    return texts


def _verify(path: Path, batch: _Batch, records: npt.NDArray[np.uint8], title: str, binary: bool) -> None:
    if len(records) != batch.images:
        raise ValueError(
            f"{path} has {len(records)} images, the official file {batch.images}; {_AGAIN}, "
            "or give verify=False for an excerpt"
        )
    if batch.sha256 is not None:
        found = hashlib.sha256(records.data).hexdigest()
        if found != batch.sha256:
            raise ValueError(
                f"{path} is damaged: the sha256 of its images and labels is {found}, "
                f"the official batch's {batch.sha256}; {_AGAIN}"
            )
    elif batch.md5 is not None and not binary:
        with path.open("rb") as file:
            found_md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found_md5 != batch.md5:
            _checks.warn(
                f"{path} has md5 {found_md5}, the official file {batch.md5}; unless somebody "
                f"pickled it anew, it is damaged: {_AGAIN}"
            )


def _verify_classes(
    family: _Family, folder: Path, train: npt.NDArray[np.uint8], test: npt.NDArray[np.uint8]
) -> None:
    """Every class has its equal share of the images, and every fine class lies in one coarse class."""
    for column, labels in enumerate(family.labels):
        for part, found in (("training", train), ("test", test)):
            counts = np.bincount(found[:, column], minlength=labels.classes)
            share = len(found) // labels.classes
            if (counts != share).any():
                odd = int(np.argmax(counts != share))
                raise ValueError(
                    f"{folder} has {counts[odd]} {part} images of class {odd} in {labels.key!r}, "
                    f"{family.title} has {share}; {_AGAIN}"
                )
    pairs = np.unique(np.concatenate([train, test]), axis=0)
    if len(pairs) != family.labels[-1].classes:
        raise ValueError(
            f"{folder} has a fine class in more than one coarse class, {family.title} has none; {_AGAIN}"
        )


# the official files

_AGAIN = "remove it and fetch the official file again, as longtail.datasets.download does"
_HOME = "https://www.cs.toronto.edu/~kriz"

_CIFAR10_SHA256 = {
    "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
_CIFAR10 = _Family(
    title="CIFAR-10",
    python_folder="cifar-10-batches-py",
    binary_folder="cifar-10-batches-bin",
    batches=tuple(
        _Batch(name, name != "test_batch", 10000, sha256) for name, sha256 in _CIFAR10_SHA256.items()
    ),
    meta="batches.meta",
    labels=(_Labels("labels", 10, "label_names", "batches.meta.txt"),),
    archive=Archive(
        url=f"{_HOME}/cifar-10-python.tar.gz",
        size=170498071,
        md5="c58f30108f718f92721af3b95e74349a",
        sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        folder="cifar-10-batches-py",
        members=(*_CIFAR10_SHA256, "batches.meta"),
    ),
)

_CIFAR100 = _Family(
    title="CIFAR-100",
    python_folder="cifar-100-python",
    binary_folder="cifar-100-binary",
    batches=(
        _Batch("train", True, 50000, md5="16019d7e3df5f24257cddd939b257f8d"),
        _Batch("test", False, 10000, md5="f0ef6b0ae62326f3e7ffdfab6717acfc"),
    ),
    meta="meta",
    labels=(
        _Labels("coarse_labels", 20, "coarse_label_names", "coarse_label_names.txt"),
        _Labels("fine_labels", 100, "fine_label_names", "fine_label_names.txt"),
    ),
    archive=Archive(
        url=f"{_HOME}/cifar-100-python.tar.gz",
        size=169001437,
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        folder="cifar-100-python",
        members=("train", "test", "meta"),
    ),
)

_FAMILIES = {"cifar10": _CIFAR10, "cifar100": _CIFAR100, "cifar20": _CIFAR100}
