"""A column of text with its classes, and its features by the frequency of words (TF-IDF)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from longtail import _checks
from longtail.labels import encode
from longtail.sources import read_rows
from longtail.sources.counted import Wanted, needs
from longtail.sources.frames import check_label

__all__ = ["Texts", "read_texts", "tfidf"]

_WIDEST: Final = 256  # features that TF-IDF leaves

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Texts:
    """One table.

    Attributes:
        texts: one a row, never empty.
        labels: their classes, int64 of shape (N,).
        class_names: one a class.
        groups: one a row, text, or None.
    """

    texts: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    groups: Array | None


def read_texts(
    table: Any,
    text: str,
    label: str,
    *,
    groups: str | None = None,
    on_error: str = "raise",
    like: Texts | None = None,
) -> Texts:
    """Read a table.

    Args:
        table: a .csv, .tsv or Parquet file, a data frame, or a mapping from names to columns.
        text: the column of the texts.
        label: the column of the class.
        groups: a column whose equal values belong together.
        on_error: "skip" leaves rows without text out, with one warning.
        like: the training table, whose classes are those of this one.

    Raises:
        ValueError: no such column, a row without text, a label that is no class, a class that `like` lacks,
            an unreadable file.
        TypeError: missing or mixed labels, a column that holds no text.
    """
    where = repr(str(table)) if isinstance(table, str | os.PathLike) else "the table"
    columns, names = _columns(table, label, where)
    for argument, one in (("text", text), ("label", label), ("groups", groups)):
        if one is not None:
            _checks.column(argument, one, columns, where)
    if text in (label, groups):
        raise ValueError(f"text {text!r} is the label's or the groups' column, too; name another")
    kinds = (list, tuple, dict, set, bytes, np.ndarray)
    if strange := [cell for cell in columns[text] if isinstance(cell, kinds)]:
        raise TypeError(f"text {text!r} of {where} holds {_checks.describe(strange[0])}; give one text a row")
    found = [*map(_text, columns[text])]
    kept = np.flatnonzero([cell != "" for cell in found])
    if len(kept) < len(found):
        first = next(i for i, cell in enumerate(found) if not cell)
        told = f"text {text!r} of {where} is empty in {len(found) - len(kept)} of {len(found)} rows, first in"
        if on_error == "raise" or not len(kept):
            raise ValueError(f"{told} row {first + 1}; fill them, or leave them out by on_error='skip'")
        _checks.warn(f"{told} row {first + 1}; they are left out")
    labels = [columns[label][i] for i in kept]
    if like is None:
        check_label(label, np.asarray(labels), where)
        there = {*labels}
        names = [name for name in names if name in there]
    else:
        known = {str(name) for name in labels}
        if unseen := sorted(known - {*like.class_names}):
            raise ValueError(
                f"{where} has classes without a training row: {_checks.shorten(unseen)}; leave these rows out"
            )
    class_names = tuple(map(str, names)) if like is None else like.class_names
    places = {name: i for i, name in enumerate(class_names)}
    return Texts(
        tuple(found[i] for i in kept),
        np.array([places[str(name)] for name in labels], np.int64),
        class_names,
        None if groups is None else np.array([str(columns[groups][i]) for i in kept]),
    )


def tfidf(train: Texts, test: Texts | None) -> tuple[list[npt.NDArray[np.float32]], str]:
    """Return features of training and test texts, and in words what they are.

    Words and their weights are those of the training texts (scikit-learn's ``TfidfVectorizer``). Beyond 256
    words a truncated SVD, fitted to the training texts, makes 256 numbers of them.

    Raises:
        ValueError: texts without words.
        ModuleNotFoundError: scikit-learn is not installed.
    """
    needs("sklearn", "TF-IDF needs", "train")
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(dtype=np.float32)
    try:
        counted = words.fit_transform(train.texts)
    except ValueError as error:
        raise ValueError(
            "no text has a word of two letters; name another column by text=, or give model="
        ) from error
    parts = [counted] if test is None else [counted, words.transform(test.texts)]
    told, number = f"TF-IDF of {counted.shape[1]:,} words", min(_WIDEST, counted.shape[0])
    if counted.shape[1] <= _WIDEST:
        return [np.asarray(part.toarray(), np.float32) for part in parts], told
    svd = TruncatedSVD(number, random_state=0).fit(counted)
    told += f", reduced to {number} numbers by SVD, {svd.explained_variance_ratio_.sum():.0%} of the variance"
    return [np.asarray(svd.transform(part), np.float32) for part in parts], told


def _columns(table: Any, label: str, where: str) -> tuple[dict[str, list[Any]], list[Any]]:
    """Return all columns, that of the label as classes are named, and the classes in their order."""
    if isinstance(table, str | os.PathLike):
        columns, counted = read_rows(os.fspath(table), Wanted(label))
        return columns, list(counted.names)
    names = table.keys() if isinstance(table, Mapping) else getattr(table, "columns", None)
    if names is None:
        raise TypeError(
            f"with text=, source must be a table: a path, a data frame or a mapping of columns, got "
            f"{_checks.describe(table)}"
        )
    found = {str(name): table[name] for name in names}
    _checks.column("label", label, found, where)
    classes, codes = encode(found[label])
    columns = {name: v.tolist() if hasattr(v, "tolist") else [*v] for name, v in found.items()}
    columns[label] = [classes[code] for code in codes.tolist()]
    if len({len(values) for values in columns.values()}) > 1:
        raise ValueError(f"the columns of {where} differ in length; give as many values in each")
    return columns, [*classes]


def _text(cell: object) -> str:
    """Return a cell as text; what is missing or blank is empty."""
    gone = cell is None or type(cell).__name__ in ("NAType", "NaTType") or cell != cell
    return "" if gone else str(cell).strip()
