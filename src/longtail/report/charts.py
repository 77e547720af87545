"""Parts of chart specifications: colours of the methods, axes of the classes, texts as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from longtail.compare import ComparisonTable, Row

__all__ = ["COLOURS", "Look", "averaged", "class_axis", "inert", "log_axis", "looks", "numbers", "points_of"]

COLOURS: Final = {"none": "#000000", "inverse": "#D55E00", "inverse_sqrt": "#56B4E9", "effective": "#009E73"}
OTHERS: Final = ("#E69F00", "#CC79A7", "#0072B2", "#8C6D31", "#7F7F7F")
GROUP_COLOURS: Final = {"many": "#0072B2", "medium": "#E69F00", "few": "#D55E00"}
_DASHES: Final = ("solid", "dash", "dot", "dashdot")
_SYMBOLS: Final = ("circle", "square", "diamond", "triangle-up")
_PATTERNS: Final = ("", "/", ".", "x")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """How a method is drawn: colour by weighting, dash and mark by loss.

    Attributes:
        colour: "@fg" for plain losses.
        dash: of lines.
        symbol: of marks.
        pattern: of bars.
    """

    colour: str
    dash: str
    symbol: str
    pattern: str

    @property
    def pale(self) -> str:
        """The colour of a band."""
        if self.colour.startswith("@"):
            return "@pale"
        r, g, b = (int(self.colour[k : k + 2], 16) for k in (1, 3, 5))
        return f"rgba({r},{g},{b},0.15)"


def looks(table: ComparisonTable) -> list[Look]:
    """Return the look of every shown row."""
    rows = table.shown
    losses = list(dict.fromkeys(row.loss for row in rows))
    unnamed = list(dict.fromkeys(r.weights for r in rows if not r.is_plain and r.weights not in COLOURS))

    def colour(row: Row) -> str:
        if row.is_plain:
            return "@fg"
        return COLOURS.get(row.weights) or OTHERS[unnamed.index(row.weights) % len(OTHERS)]

    places = [losses.index(row.loss) % len(_DASHES) for row in rows]
    return [
        Look(colour(row), _DASHES[place], _SYMBOLS[place], _PATTERNS[place])
        for row, place in zip(rows, places, strict=True)
    ]


def inert(text: str) -> str:
    """Write a name as it is: Plotly reads a few tags, and templates, in texts."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%{", "%\u200b{")


def cut(text: str, length: int) -> str:
    """Shorten a name for a tick."""
    return text if len(text) <= length else text[: length - 1] + "…"


def numbers(values: Iterable[float | None], scale: float = 1.0) -> list[float | None]:
    """Return six digits of each value, more than a picture shows; None where one does not apply."""
    return [None if v is None or not np.isfinite(v) else float(f"{scale * v:.6g}") for v in values]


def points_of(size: int) -> list[int]:
    """Return the ranks to draw: of thousands of classes enough for a line, denser at the head."""
    if size <= 1500:
        return list(range(size))
    chosen = {0, size - 1}
    for k in range(251):
        chosen |= {round((size - 1) * k / 250), round(size ** (k / 250)) - 1}
    return sorted(chosen)


def averaged(values: Floats, points: Sequence[int]) -> list[float | None]:
    """Return what scatters from class to class, averaged up to the next point."""
    if len(points) == len(values):
        return numbers(values)
    parts = np.split(values, points[1:])
    return numbers(np.nan if np.isnan(part).all() else float(np.nanmean(part)) for part in parts)


def class_axis(names: Sequence[str]) -> dict[str, Any]:
    """Return the axis of the classes: names where they have room, logarithmic where there are many."""
    size = len(names)
    if size > 24:
        return {"title": "class, head to tail (rank)", "type": "log" if size > 1000 else "linear"}
    return {
        "title": "class, head to tail",
        "tickvals": list(range(1, size + 1)),
        "ticktext": [inert(cut(name, 14)) for name in names],
        "tickangle": -60 if size > 12 else "auto",
    }


def log_axis(title: str, values: Iterable[float] = ()) -> dict[str, Any]:
    """Return an axis with decades as ticks, and their 2 and 5 where the values span few decades."""
    known = [v for v in values if v > 0]
    few = bool(known) and max(known) < 300 * min(known)
    return {
        "title": title,
        "type": "log",
        "dtick": "D2" if few else 1,
        "exponentformat": "power",
        "minexponent": 4,
    }
