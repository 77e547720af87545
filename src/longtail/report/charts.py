"""Parts of chart specifications: colours of the methods, axes of the classes, texts as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from longtail.compare import ComparisonTable, Row

__all__ = ["COLOURS", "Part", "inert"]

COLOURS: Final = {"none": "#000000", "inverse": "#D55E00", "inverse_sqrt": "#56B4E9", "effective": "#009E73"}
OTHERS: Final = ("#E69F00", "#CC79A7", "#0072B2", "#8C6D31", "#7F7F7F")
GROUP_COLOURS: Final = {"many": "#0072B2", "medium": "#E69F00", "few": "#D55E00"}
_DASHES: Final = ("solid", "dash", "dot", "dashdot")
_SYMBOLS: Final = ("circle", "square", "diamond", "triangle-up")
_PATTERNS: Final = ("", "/", ".", "x")

Floats = npt.NDArray[np.float64]
Numbers = Sequence[float | None]
Part = dict[str, object]  # of a Plotly chart, as JSON knows it


@dataclass(frozen=True)
class Look:
    """How a method is drawn: colour by weighting, dash and mark by loss.

    Attributes:
        row: its place among those shown.
        name: as Plotly may read it.
        colour: "@fg" for plain losses.
        dash: of lines.
        symbol: of marks.
        pattern: of bars.
    """

    row: int
    name: str
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

    def trace(self, x: Sequence[object], y: Numbers, **more: object) -> Part:
        """Return a trace that is drawn while the reader has the method chosen."""
        return {"row": self.row, "name": self.name, "x": x, "y": y, **more}

    def line(
        self, x: Sequence[object], y: Numbers, *, marks: bool = True, size: int = 7, **more: object
    ) -> Part:
        """Return the method's line, with or without its marks."""
        return self.trace(x, y, **more) | {
            **{"type": "scatter", "mode": "lines+markers" if marks else "lines"},
            **{
                "line": {"color": self.colour, "dash": self.dash},
                "marker": {"symbol": self.symbol, "size": size},
            },
        }


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
        Look(i, inert(row.name), colour(row), _DASHES[place], _SYMBOLS[place], _PATTERNS[place])
        for i, (row, place) in enumerate(zip(rows, places, strict=True))
    ]


def error_bars(above: Iterable[float], below: Iterable[float] | None = None, thickness: float = 2) -> Part:
    """Return error bars of some shares, in percent; of one length to both sides where `below` is None."""
    ends = {} if below is None else {"symmetric": False, "arrayminus": numbers(below, 100)}
    return {"type": "data", "array": numbers(above, 100), "color": "@dim", "thickness": thickness, **ends}


def inert(text: str) -> str:
    """Write a name as it is: Plotly reads a few tags, and templates, in texts."""
    marks = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;", "%{": "%\u200b{"}  # "$" begins a formula
    for mark, written in marks.items():
        text = text.replace(mark, written)
    return text


def cut(text: str, length: int) -> str:
    """Shorten a name in the middle: long names often differ at their end."""
    if len(text) <= length:
        return text
    head = length // 2
    return text[:head] + "…" + text[len(text) - (length - 1 - head) :]


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


def class_axis(names: Sequence[str], one: str = "class") -> Part:
    """Return the axis of the classes: names where they have room, logarithmic where there are many."""
    size = len(names)
    if size > 24:
        return {"title": f"{one}, head to tail (rank)", "type": "log" if size > 1000 else "linear"}
    return {
        "title": f"{one}, head to tail",
        "tickvals": list(range(1, size + 1)),
        "ticktext": [inert(cut(name, 14)) for name in names],
        "tickangle": -60 if size > 12 else "auto",
        "range": [0.4, size + 0.6],
    }


def log_axis(title: str, values: Iterable[float] = ()) -> Part:
    """Return an axis with decades as ticks, and their 2 and 5 where the values span few decades."""
    known = [v for v in values if v > 0]
    few = bool(known) and max(known) < 300 * min(known)
    ticks = {"dtick": "D2" if few else 1, "exponentformat": "power", "minexponent": 4}
    return {"title": title, "type": "log", **ticks}
