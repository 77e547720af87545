"""Argument checks: every message names the argument, the value and the remedy."""

from __future__ import annotations

import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

# all control characters but tab and newline; marks that change the direction of what follows
_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def choice(name: str, value: object, options: Iterable[str], *, also: str = "", hint: str = "") -> str:
    """Return ``value`` if it is one of ``options``; suggest the nearest one otherwise.

    ``also`` names what the caller accepts beside them, ``hint`` the option that is surely meant.
    """
    options = tuple(options)
    if isinstance(value, str) and value in options:
        return value
    import difflib

    near = difflib.get_close_matches(str(value), options, n=1)
    hint = hint or (f"; did you mean {near[0]!r}?" if near else "")
    raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}{also}, got {value!r}{hint}")


# a number whose point may part thousands, for DuckDB, too
THOUSAND = r"[-+]?[1-9][0-9]{0,2}\.[0-9]{3}"


def refuse_thousands(texts: Iterable[str], place: Callable[[str], str] = lambda _: "") -> None:
    """Refuse counts whose points may part thousands, as in 1.250, unless one proves the point decimal.

    ``place`` says where a count stands.
    """
    pointed = [text for text in texts if "." in text]
    if pointed and all(re.fullmatch(THOUSAND, text.strip(), re.ASCII) for text in pointed):
        text = pointed[0]
        raise ValueError(
            f"count {text!r}{place(text)} has a point that may be decimal or part thousands; write "
            f"{text.strip().replace('.', '')}, or {float(text):g}"
        )


def column(argument: str, wanted: object, columns: Iterable[str], where: str) -> None:
    """Refuse a column that is not there; say which there are and which may be meant."""
    columns = tuple(columns)
    if wanted not in columns:
        raise ValueError(
            f"{argument}={wanted!r} is no column of {where}; it has {columns_near(wanted, columns)}"
        )


def columns_near(wanted: object, columns: Sequence[str]) -> str:
    """Write which columns there are, the last ones as well, and which may be meant."""
    import difflib

    text = shorten(columns, 20)
    if len(columns) > 20:
        text = f"{', '.join(map(repr, columns[:10]))}, ... {', '.join(map(repr, columns[-10:]))}"
    folded = {name.strip().lower(): name for name in columns}
    near = difflib.get_close_matches(str(wanted).strip().lower(), folded, n=3, cutoff=0.65)
    return text + (f"; did you mean {' or '.join(repr(folded[n]) for n in near)}?" if near else "")


def folder(name: str, value: str | os.PathLike[str]) -> Path:
    """Return ``value`` as a path, a leading ``~`` replaced by the home folder."""
    try:
        return Path(value).expanduser()
    except RuntimeError as error:  # no such user, or a user without a home, as in some containers
        raise ValueError(
            f"{name} must be a folder, got {str(value)!r}, and there is no such home folder; "
            "give its path without '~'"
        ) from error


def cache_folder() -> Path:
    """Return the user's folder for what can be fetched or built again."""
    return folder("XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "longtail"


def number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
    remedy: str = "",
) -> float:
    """Return ``value`` as a float inside the interval; bool, text, NaN and arrays are refused."""
    wanted = interval(low, high, open_low=open_low, open_high=open_high)
    remedy = f"; {remedy}" if remedy else ""
    # NumPy and torch scalars have .item(); a 0-d array is as good as a number
    if not isinstance(value, Real) and getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number in {wanted}, got {describe(value)}{remedy}")
    try:
        x = float(value)
    except OverflowError as error:
        raise ValueError(f"{name} must be in {wanted}, got a number beyond float64{remedy}") from error
    if math.isnan(x) or x < low or x > high or (open_low and x == low) or (open_high and x == high):
        raise ValueError(f"{name} must be in {wanted}, got {value!r}{remedy}")
    return x


def integer(name: str, value: Any, *, low: int, high: float = math.inf, remedy: str = "") -> int:
    """Return ``value`` as an int from ``low`` to ``high``; a float is accepted only when it is whole."""
    x = number(name, value, low=low, high=high, remedy=remedy)
    if not math.isfinite(x) or x != int(x):
        raise ValueError(f"{name} must be a whole number, got {value!r}" + (f"; {remedy}" if remedy else ""))
    return int(value)


def interval(low: float, high: float, *, open_low: bool = False, open_high: bool = False) -> str:
    """Write an interval as mathematics does: ``[0, 1)``."""
    left = "(" if open_low or low == -math.inf else "["
    right = ")" if open_high else "]"
    return f"{left}{low:g}, {high:g}{right}"


def short(value: float) -> str:
    """Write a number in four digits, and without an exponent where a reader expects none."""
    text = f"{value:.4g}"
    return f"{value:.0f}" if "e+" in text and abs(value) < 1e9 else text


def describe(value: object, limit: int = 60) -> str:
    """Say a value's type and, where it is short, the value."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"{type(value).__name__} of shape {tuple(shape)} and dtype {getattr(value, 'dtype', '?')}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= limit else text[: limit - 3] + '...'}"


def listed(text: str) -> list[str]:
    """Part names at commas, ``A,B,C``; one with a comma of its own stands in quotes, ``"c,d",A``."""
    import csv

    (row,) = csv.reader([text.replace("\n", " ")], skipinitialspace=True) if text.strip() else [[""]]
    return [name.strip() for name in row]


def shorten(items: Iterable[object], limit: int = 5) -> str:
    """Write the first few items, and how many more there are."""
    items = list(items)
    text = ", ".join(repr(x) for x in items[:limit])
    return text if len(items) <= limit else f"{text} and {len(items) - limit} more"


def parse_json(text: str | bytes, name: str, *, what: str = "JSON") -> Any:
    """Read JSON that anyone may have written; errors call it `name`, and say that it is no `what`.

    Raises:
        ValueError: it is none, or nested deeper than anything that is meant.
    """
    import json

    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise ValueError(f"{name} is no {what} ({why}); check the file") from None


def printable(text: str) -> str:
    """Return text that cannot steer a terminal: a control character or change of direction becomes �."""
    return _STEERS.sub("\N{REPLACEMENT CHARACTER}", text)


def in_one_line(text: str) -> str:
    """Return a message in one line that cannot steer a terminal, whatever names it holds."""
    return printable(" ".join(text.splitlines()))


def inert(cell: object) -> object:
    """Return a cell of CSV that no spreadsheet takes for a formula: such a text gets a ' in front."""
    if not isinstance(cell, str) or not cell.lstrip().startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def warn(message: str) -> None:
    """Warn at the line outside the package that led here."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("longtail"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)
