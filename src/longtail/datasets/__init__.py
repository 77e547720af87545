"""Data sets and their long tails: arrays in memory, reproducible to the last index on every machine.

Importing this package needs NumPy alone; a data set imports what it reads with when it is loaded.
"""

import os
from collections.abc import Callable
from functools import partial

from longtail import _checks
from longtail.datasets.cifar import cifar10, cifar20, cifar100, download
from longtail.datasets.digits import digits
from longtail.datasets.fetch import DownloadError
from longtail.datasets.images import ImageList, gtsrb, load_images
from longtail.datasets.long_tail import Dataset, Split, long_tail_counts, long_tail_subset, subset_sha256
from longtail.datasets.skeletons import jhmdb, shrec

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
    "jhmdb",
    "shrec",
    "gtsrb",
    "ImageList",
    "load_images",
    "load",
    "download",
    "DownloadError",
]

_BUILT_IN: dict[str, Callable[[], Dataset]] = {"digits": digits}
_FROM_FILES: dict[str, Callable[[str | os.PathLike[str] | None], Dataset]] = {
    "cifar10": cifar10,
    "cifar20": cifar20,
    "cifar100": cifar100,
    **{
        f"jhmdb{classes}-{split}": partial(jhmdb, classes=classes, split=split)
        for classes in (14, 21)
        for split in (1, 2, 3)
    },
    "shrec14": partial(shrec, gestures=14),
    "shrec28": partial(shrec, gestures=28),
    "gtsrb": gtsrb,
}
NAMES = (*_BUILT_IN, *_FROM_FILES)


def load(name: str, root: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set by its name.

    Args:
        name: ``"digits"``; ``"cifar10"``, ``"cifar20"`` or ``"cifar100"``; ``"jhmdb14-1"`` to ``"jhmdb21-3"``
            (classes and split), ``"shrec14"``, ``"shrec28"`` or ``"gtsrb"``.
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
    _checks.choice("name", name, NAMES)
    if name in _FROM_FILES:
        return _FROM_FILES[name](root)
    if root is not None:
        raise ValueError(f"root is {str(root)!r}, but {name!r} is built in and reads no files; leave it out")
    return _BUILT_IN[name]()
