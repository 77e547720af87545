"""What every reader of labels answers, and what it refuses alike."""

from __future__ import annotations

import importlib
import math
import re
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from longtail import _arrays, _checks

_ALONE = 20  # labels that stand once each: from here on it is worth a word
MISSING: Final = "missing"  # the class of samples without a label, where it is asked for


class Counted(NamedTuple):
    """The classes' names and counts, in order; of several labels a sample, how many samples there are."""

    names: Sequence[Hashable]
    counts: Sequence[float]
    num_samples: int | None = None


@dataclass(frozen=True)
class Wanted:
    """What a caller says about labels in a file.

    Attributes:
        label: the column; where there is no header, its number from 1 on, or from -1 on from the end.
        labels: columns of 0 and 1, one a class; ``*`` in a name stands for any text.
        separator: what parts several labels in one field.
        header: whether the first line of a table of text names its columns.
        missing_as_class: whether samples without a label are a class, called missing.
    """

    label: str | None = None
    labels: tuple[str, ...] = ()
    separator: str | None = None
    header: bool = True
    missing_as_class: bool = False


def finish(counted: Iterable[tuple[Any, int]], source: str, wanted: Wanted) -> Counted:
    """Turn labels and how often each stands into classes: refuse missing ones, split joined ones, sort.

    Raises:
        TypeError: labels that are missing, infinite, or of types that nothing orders.
        ValueError: no labels.
    """
    known: Counter[Any] = Counter()
    bare: Counter[str] = Counter()
    wild = 0
    for name, count in counted:
        if _arrays.is_missing(name):
            bare[_told(name)] += count
        elif isinstance(name, float) and math.isinf(name):
            wild += count
        else:
            known[_arrays.one_form(name)] += count
    missing = sum(bare.values())
    if wild:
        raise TypeError(f"labels are NaN or infinite for {wild} samples of {source}; drop or name them")
    if wanted.separator is not None:
        return split(known, missing, wanted.separator, source)
    if missing and not wanted.missing_as_class:
        told = "NaN or infinite" if set(bare) == {"NaN"} else f"missing ({', '.join(bare)})"
        raise TypeError(
            f"labels are {told} for {missing} samples of {source}; drop or name them, or count them by "
            "missing_as_class=True"
        )
    if not known and not missing:
        raise ValueError(f"{source} has no rows; check that it is the file you mean")
    notice_joined(known, source)
    notice_alike(known, source)
    try:
        names = _arrays.label_order(known)
    except TypeError as error:
        kinds = sorted({type(name).__name__ for name in known})
        raise TypeError(
            f"labels of {source} mix the types {', '.join(kinds)}; convert them to one"
        ) from error
    return with_missing(Counted(names, [known[name] for name in names]), missing)


def with_missing(counted: Counted, missing: int) -> Counted:
    """Add the class of the samples without a label, the last one."""
    if not missing:
        return counted
    if MISSING in counted.names:
        raise ValueError(f"a class is called {MISSING!r} already; rename it to count missing labels as one")
    return Counted([*counted.names, MISSING], [*counted.counts, missing])


def _told(name: object) -> str:
    """Write a missing label as it stands in the source."""
    if name is None:
        return "null"
    text = str(name).strip() if isinstance(name, str) else "NaN" if name != name else str(name)
    return text or "empty"


# ---- several labels in one field

_MANY = 5
_BRACKETS = re.compile(r"\s*[\[{]([^\[\]{}]*)[\]}]\s*")


def parts_of(text: str, separator: str) -> list[str]:
    """Part a field at a separator: blanks, quotes and brackets around, and empty parts, do not matter."""
    inside = _BRACKETS.fullmatch(text)
    pieces = (inside[1] if inside else text).split(None if separator.isspace() else separator)
    return [piece for piece in (raw.strip().strip("'\"").strip() for raw in pieces) if piece]


def split(known: Mapping[Any, int], empty: int, separator: str, source: str) -> Counted:
    """Count labels that stand in one field; a sample counts once for each of its labels.

    Raises:
        TypeError: labels that are no text.
        ValueError: no labels, or an empty separator.
    """
    if not separator:
        raise ValueError("separator must be text such as '|', got ''; leave it out for one label a sample")
    classes: Counter[str] = Counter()
    bare = empty
    for text, count in known.items():
        labels = dict.fromkeys(parts_of(str(text), separator))
        bare += count * (not labels)
        for name in labels:
            classes[name] += count
    if not classes:
        raise ValueError(
            f"{source} has no rows with a label; check that it is the file, and the column, you mean"
        )
    if bare:
        _checks.warn(f"{bare} samples of {source} have no label; they count as samples of no class")
    names = _arrays.label_order(classes)
    return Counted(names, [classes[name] for name in names], sum(known.values()) + empty)


def notice_alike(names: Iterable[object], source: str) -> None:
    """Warn where names differ in nothing but capitals and blanks: one class may be counted as two."""
    forms: dict[str, list[str]] = {}
    for text in names:
        if isinstance(text, str):
            forms.setdefault("".join(text.split()).casefold(), []).append(text)
    alike = [found for found in forms.values() if len(found) > 1]
    if alike:
        _checks.warn(
            f"labels of {source} differ only in capitals or blanks, such as "
            f"{' and '.join(map(repr, alike[0][:3]))}; each counts as a class of its own: write them alike "
            "where they are one"
        )


def notice_joined(names: Iterable[object], source: str) -> None:
    """Warn where names look as if several labels were joined to one."""
    texts = [name for name in names if isinstance(name, str)]
    for separator in ("|", ";", ",", " "):
        parts = {text: parts_of(text, separator) for text in texts}
        joined = {text: found for text, found in parts.items() if len(found) > 1}
        alone = {found[0] for found in parts.values() if len(found) == 1}
        uses = Counter(part for found in joined.values() for part in set(found))
        if separator == " ":  # blanks stand in names, too
            shared = [text for text, found in joined.items() if alone.issuperset(found)]
        else:
            sure = separator == "|"
            shared = [t for t, ps in joined.items() if sure or any(p in alone or uses[p] > 1 for p in ps)]
        # parts of one character may be anything, until there are many
        if len(shared) >= _MANY or any(all(len(p) > 1 for p in joined[text]) for text in shared):
            _checks.warn(
                f"{len(joined)} of the {len(texts)} labels of {source} look like several in one, such as "
                f"{shared[0]!r}; count each by separator={separator!r}"
            )
            return


def notice_alone(counts: Collection[int], source: str, remedy: str) -> None:
    """Warn where every label stands once, as measures and names of samples do."""
    if len(counts) >= _ALONE and max(counts) == 1:
        _checks.warn(f"each of the {len(counts)} labels of {source} occurs once; {remedy}")


def needs(module: str, what: str, extra: str) -> Any:
    """Import a library, or say which extra brings it: ``what`` is such as "a table needs"."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != name:
            raise
        raise ModuleNotFoundError(f"{what} {name}; pip install 'longtail[{extra}]'", name=name) from error
