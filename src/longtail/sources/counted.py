"""What every reader of labels answers, and what it refuses alike."""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

# the classes' names and their counts, in order
Counted = tuple[Sequence[Hashable], Sequence[float]]


def in_order(counted: Iterable[tuple[Any, int]], source: str) -> tuple[list[Any], list[int]]:
    """Sort labels by name; refuse missing ones, as ``class_counts`` does of labels in memory.

    Raises:
        TypeError: labels that are null, NaN or infinite.
        ValueError: no labels.
    """
    known: Counter[Any] = Counter()
    missing = wild = 0
    for name, count in counted:
        if name is None:
            missing += count
        elif isinstance(name, float) and not math.isfinite(name):
            wild += count
        else:
            known[name] += count
    if missing:
        raise TypeError(f"labels are missing (null) for {missing} samples of {source}; drop or name them")
    if wild:
        raise TypeError(f"labels are NaN or infinite for {wild} samples of {source}; drop or name them")
    if not known:
        raise ValueError(f"{source} has no rows")
    by_name = dict(sorted(known.items()))
    return list(by_name), list(by_name.values())


def needs(module: str, what: str, extra: str) -> Any:
    """Import a library, or say which extra brings it: ``what`` is such as "a table needs"."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != name:
            raise
        raise ModuleNotFoundError(f"{what} {name}; pip install 'longtail[{extra}]'", name=name) from error
