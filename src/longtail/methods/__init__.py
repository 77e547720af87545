"""Ways of balancing as data: a method is a frozen object, and a published one is a row of the catalogue.

``methods.get("effective", beta=0.99)`` makes one, ``methods.NAMES`` are those that there are.
"""

from __future__ import annotations

from typing import Any

from longtail.methods.batches import MIXINGS, REWEIGHTINGS
from longtail.methods.catalogue import ABOUT, CATALOGUE, About, code, get, grid, needs
from longtail.methods.method import Method, Rule
from longtail.methods.refits import REFITS
from longtail.methods.schedules import SCHEDULES
from longtail.methods.synthesis import SYNTHESES

__all__ = [
    "ABOUT",
    "CATALOGUE",
    "MIXINGS",
    "NAMES",
    "REFITS",
    "REWEIGHTINGS",
    "SCHEDULES",
    "SYNTHESES",
    "About",
    "Method",
    "Rule",
    "code",
    "get",
    "grid",
    "needs",
]

NAMES: tuple[str, ...]


def __getattr__(name: str) -> Any:
    if name == "NAMES":  # asked for each time: other packages add methods, too
        return CATALOGUE.names
    raise AttributeError(f"module 'longtail.methods' has no attribute {name!r}")
