"""Data sets and their long tails: arrays in memory, reproducible to the last index on every machine.

Importing this package needs NumPy alone; a data set imports what it reads with when it is loaded.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from longtail._registry import Registry, added
from longtail.datasets.cifar import cifar10, cifar20, cifar100, download
from longtail.datasets.digits import digits
from longtail.datasets.fetch import DownloadError
from longtail.datasets.images import ImageList, gtsrb, load_images
from longtail.datasets.long_tail import Dataset, Split, long_tail_counts, long_tail_subset, subset_sha256

__all__ = [
    "long_tail_counts",
    "long_tail_subset",
    "subset_sha256",
    "Split",
    "Dataset",
    "digits",
    "cifar10",
    "cifar20",
    "cifar100",
    "gtsrb",
    "ImageList",
    "load_images",
    "DATASETS",
    "Source",
    "load",
    "download",
    "DownloadError",
]


@dataclass(frozen=True)
class Source:
    """Where a data set of a name comes from.

    Attributes:
        load: returns it; takes ``root``, the folder of its files, unless it is built in.
        built_in: whether it reads no files.
    """

    load: Callable[..., Dataset]
    built_in: bool = False


DATASETS = Registry[Source]("name")
DATASETS.register("digits", Source(digits, built_in=True))
DATASETS.register("cifar10", Source(cifar10))
DATASETS.register("cifar20", Source(cifar20))
DATASETS.register("cifar100", Source(cifar100))
DATASETS.register("gtsrb", Source(gtsrb))


def __getattr__(name: str) -> Any:
    return DATASETS.names if name == "NAMES" else added(__name__, name)


def load(name: str, root: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set by its name.

    Args:
        name: ``"digits"``; ``"cifar10"``, ``"cifar20"`` or ``"cifar100"``; ``"gtsrb"``; or what an
            application adds, such as ``"jhmdb14-1"`` to ``"jhmdb21-3"`` (classes and split), ``"shrec14"``
            and ``"shrec28"``.
        root: The folder that holds the files of a data set which is not built in; None as in `cifar10`.

    Returns:
        The whole data set, as balanced as its source has it; see `Dataset.long_tailed` for its tail.

    Raises:
        FileNotFoundError: The files of the data set are not there; the message says how to get them.
        ValueError: No data set has that name, ``root`` is given for one that has no files, or a file is
            damaged.

    Example:
        >>> load("digits").num_classes
        10
    """
    source = DATASETS[name]
    if not source.built_in:
        return source.load(root)
    if root is not None:
        raise ValueError(f"root is {str(root)!r}, but {name!r} is built in and reads no files; leave it out")
    return source.load()
