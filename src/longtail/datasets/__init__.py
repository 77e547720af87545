"""Data sets and their long tails: arrays in memory, reproducible to the last index on every machine.

Importing this package needs NumPy alone; a data set imports what it reads with when it is loaded.
"""

from collections.abc import Callable

from longtail import _checks
from longtail.datasets.digits import digits
from longtail.datasets.long_tail import Dataset, Split, long_tail_counts, long_tail_subset, subset_sha256

__all__ = [
    "long_tail_counts",
    "long_tail_subset",
    "subset_sha256",
    "Split",
    "Dataset",
    "digits",
    "load",
]

_LOADERS: dict[str, Callable[[], Dataset]] = {"digits": digits}


def load(name: str) -> Dataset:
    """Load a data set by its name.

    Args:
        name: One of the known names; at present ``"digits"``.

    Returns:
        The whole data set, as balanced as its source has it; see `Dataset.long_tailed` for its tail.

    Raises:
        ValueError: No data set has that name; the message lists those that exist.

    Example:
        >>> load("digits").num_classes
        10
    """
    return _LOADERS[_checks.choice("name", name, _LOADERS)]()
