"""A whole table -> columns of numbers: .csv, .tsv, Parquet, and data frames in memory.

Numbers and dates are floats, a category is the place of its text in a list; what is missing is NaN. That is
storage, as Arrow's dictionaries are: encoding and imputation are the learners' part.
"""

from __future__ import annotations

import contextlib
import glob
import os
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks
from longtail.sources import tables
from longtail.sources.counted import Wanted, finish, notice_alike, parts_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["Column", "Frame", "check_label", "classes_of", "read_frame"]

Array = npt.NDArray[Any]
_PARQUET = (".parquet", ".pq")
_MIXED = 50  # distinct values beyond which a column of numbers and text is no list of categories
_CONTINUOUS = 20  # distinct numbers that are not whole, beyond which a label is a measure
_DAY = 86_400.0


@dataclass(frozen=True, eq=False)
class Column:
    """One column.

    Attributes:
        name: as the table heads it.
        kind: "number" | "date" (days since 1970) | "category".
        values: float64 of shape (N,), NaN where missing; of a category its place in `categories`.
        categories: the texts, sorted.
        whole: whether every value is a whole number, or text: what an identifier is made of.
    """

    name: str
    kind: Literal["number", "date", "category"]
    values: npt.NDArray[np.float64]
    categories: tuple[str, ...] = ()
    whole: bool = False


@dataclass(frozen=True, eq=False)
class Frame:
    """A table.

    Attributes:
        columns: all but the label and the groups.
        labels: one a row, text or numbers as `longtail.class_counts` names them; of many labels a row, 0, 1
            and NaN where it is empty, float64 of shape (N, L).
        classes: the labels that there are, in the order of `longtail.class_counts`; None for a table in
            memory or in Parquet, whose labels sort themselves. Always there of many labels.
        groups: one a row, or None.
    """

    columns: tuple[Column, ...]
    labels: Array
    groups: Array | None
    classes: tuple[Any, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)


def read_frame(
    source: object,
    *,
    label: str | None,
    labels: Sequence[str] = (),
    separator: str | None = None,
    groups: str | None = None,
    drop: Sequence[str] = (),
    keep: Sequence[str] = (),
    like: Frame | None = None,
) -> Frame:
    """Read a table.

    Args:
        source: a .csv, .tsv or Parquet file; a data frame of pandas or polars; or a mapping from names to
            columns.
        label: the column of the class, or of the labels that `separator` parts.
        labels: in its place columns of 0 and 1, one a label; ``*`` in a name stands for any text.
        separator: what parts several labels in one field.
        groups: a column whose equal values belong together, such as a customer.
        drop: columns to leave out.
        keep: columns to read whatever they hold: text among numbers makes a category.
        like: a table with the same columns, which says of what kind each is; groups may be missing beside it.

    Raises:
        ValueError: no such column, an unreadable file, a column of numbers and text, an infinite number.
        TypeError: missing or mixed labels, columns that hold lists.
        ModuleNotFoundError: DuckDB is not installed.
    """
    texts = set() if like is None else {c.name for c in like.columns if c.kind == "category"}
    keep = [*keep, *(texts if isinstance(source, Mapping) or hasattr(source, "columns") else ())]
    if isinstance(source, str | os.PathLike):
        if separator is not None and label is not None:
            texts = {*texts, label}
        read, classes = _from_file(
            os.fspath(source), label, texts, labels if separator is None else [label or ""]
        )
    else:
        read, classes = _from_memory(source), None
    name = f"{str(source)!r}" if isinstance(source, str | os.PathLike) else "the table"
    if like is not None and groups not in read:
        groups = None
    for argument, one in (("label", label), ("groups", groups)):
        if one is not None:
            _is_there(argument, one, read, name)
    for argument, several in (("drop", drop), ("keep", keep)):
        for one in several:
            if like is None:
                _is_there(argument, one, read, name)
    found = [*tables.marked(tuple(labels), tuple(read), str(source))] if labels else [label]
    if wrong := [one for one in (*found, groups) if one in drop]:
        raise ValueError(f"drop names {wrong[0]!r}, which is the label or groups; take it out of drop")
    if groups in found:
        raise ValueError(f"groups names {groups!r}, which is a label; name another column, or leave it out")
    if separator is not None:
        assert label is not None
        truth, classes = _parted(label, read.pop(label), separator, name)
    elif labels:
        truth = np.column_stack([_marks(str(one), read.pop(str(one)), name) for one in found])
        classes = tuple(found)
    else:
        truth = read.pop(str(label))
    together = None if groups is None else read.pop(groups)
    if together is not None and (missing := sum(map(_arrays.is_missing, together.tolist()))):
        raise ValueError(f"groups {groups!r} is empty in {missing} rows of {name}; fill or drop these rows")
    # what was read of a column goes as the column is made, or both would be held whole
    columns = [_column(n, read.pop(n), n in keep, n in texts, name) for n in [*read] if n not in drop]
    together = None if together is None else together.astype(str)
    return Frame(tuple(columns), truth, together, classes)


def _is_there(argument: str, wanted: object, read: Mapping[str, Array], name: str) -> None:
    if wanted not in read:
        _checks.choice(f"{argument} of {name}", wanted, tuple(read))


def _from_file(
    path: str, label: str | None, texts: Collection[str], several: Sequence[str] = ()
) -> tuple[dict[str, Array], tuple[Any, ...] | None]:
    if not os.path.isfile(path):
        what = "a folder" if os.path.isdir(path) else "no file"
        raise ValueError(f"source {path!r} is {what}; give a .csv, .tsv or .parquet file")
    database = tables.connect("a table")
    database.execute("RESET memory_limit")  # columns are wanted whole
    if Path(path).suffix.lower() in _PARQUET:
        return _from_parquet(database, path), None
    return _from_text(database, path, label, texts, several)


def _from_text(
    database: DuckDBPyConnection,
    path: str,
    label: str | None,
    as_text: Collection[str],
    several: Sequence[str] = (),
) -> tuple[dict[str, Array], tuple[Any, ...] | None]:
    """Read text; a column is numbers, or dates, where every value that is there is one.

    Of many labels a row, whose columns are named by `several`, the labels are columns as all others.
    """
    with contextlib.ExitStack() as stack:
        file = tables._readable(path, stack)
        known_by = label if label is not None else tables._plain(tuple(several))
        table = tables._table(database, path, file, known_by, False)
        at = -1 if several else tables._position(table, label)
        header = [str(label) if i == at else name.strip() for i, name in enumerate(table.header)]
        if twice := [name for name in header if name and header.count(name) > 1]:
            raise ValueError(f"columns of {path!r} are named twice: {twice[0]!r}; rename one")
        # an index that pandas wrote has no name
        header = [name or f"column {i + 1}" for i, name in enumerate(header)]
        aliases = tables._names(len(header))
        classes = None if several else _classes(database, path, str(label))
        tables._read(
            database, table, [*range(len(header))], "SELECT count(*), bool_or(long) FROM {}", keep="t"
        )
    # blank lines are no rows; a label that is missing is refused before
    told = f"concat({', '.join(aliases)})" if several else aliases[at]
    database.execute(f"DELETE FROM t WHERE {told} IS NULL OR trim({told}) = ''")
    missing = _arrays._MISSING.pattern.replace("'", "''")
    read: dict[str, Array] = {}
    for i, (name, alias) in enumerate(zip(header, aliases, strict=True)):
        if i == at:
            (texts,) = _fetch(database, f"SELECT {alias} AS v FROM t", path)
            distinct, codes = np.unique(texts.astype(str), return_inverse=True)
            rows = [(text,) for text in distinct.tolist()]
            bare = [tables._unquoted(text, table, rows) for (text,) in rows]
            named = [_arrays.one_form(x) for x in tables._numbers(bare, table.delimiter != ",")]
            read[name] = np.asarray(named)[codes]
            continue
        text = f"CASE WHEN regexp_full_match({alias}, '{missing}') THEN NULL ELSE trim({alias}) END"
        database.execute(f"CREATE OR REPLACE TEMP VIEW w AS SELECT {text} AS v FROM t")
        there, numbers, dates, codes_ = database.execute(
            "SELECT count(v), count(TRY_CAST(v AS DOUBLE)), count(TRY_CAST(v AS TIMESTAMP)), "
            "count(*) FILTER (regexp_matches(v, '^[-+]?0[0-9]')) FROM w"
        ).fetchall()[0]
        if name in as_text:
            read[name] = _fetch(database, "SELECT v FROM w", path)[0]
        elif numbers == there and not codes_:
            read[name] = _fetch(database, "SELECT TRY_CAST(v AS DOUBLE) AS v FROM w", path)[0]
        elif dates == there:
            read[name] = _fetch(database, "SELECT TRY_CAST(v AS TIMESTAMP) AS v FROM w", path)[0]
        else:
            read[name] = _fetch(database, "SELECT v FROM w", path)[0]
    return read, classes


def _parted(name: str, raw: Array, separator: str, table: str) -> tuple[Array, tuple[str, ...]]:
    """Part the labels of each row; one without any has none of them."""
    if not separator:
        raise ValueError("separator must be text such as '|', got ''; leave it out for one label a row")
    texts = ["" if _arrays.is_missing(x) else str(x) for x in raw.tolist()]
    rows = [dict.fromkeys(map(_arrays.one_form, parts_of(text, separator))) for text in texts]
    if max(map(len, rows), default=0) < 2 and not any(separator in text for text in texts):
        shown = next(filter(None, texts), "")
        raise ValueError(
            f"separator must be what parts several labels, got {separator!r}, which is in no row of {name!r} "
            f"of {table}, such as {shown!r}; give that, or leave it out for one class a row"
        )
    names = _arrays.label_order(dict.fromkeys(part for row in rows for part in row))
    notice_alike(names, table)
    places = {part: i for i, part in enumerate(names)}
    truth = np.zeros((len(rows), len(names)))
    for i, row in enumerate(rows):
        truth[i, [places[part] for part in row]] = 1
    return truth, tuple(names)


_MARKS = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0, "-100": np.nan}


def _marks(name: str, raw: Array, table: str) -> Array:
    """Read one column of 0 and 1, as numbers or text; what is empty is not known."""
    if raw.dtype.kind in "biuf":
        return raw.astype(np.float64)
    values = np.full(len(raw), np.nan)
    for i, text in enumerate(raw.tolist()):
        if _arrays.is_missing(text):
            continue
        if (mark := _MARKS.get(str(text).strip().lower())) is None:
            raise ValueError(
                f"labels: column {name!r} of {table} holds {text!r}; write 1 or 0, nothing where it is not "
                "known, or leave this column out"
            )
        values[i] = mark
    return values


def _classes(database: DuckDBPyConnection, path: str, label: str) -> tuple[Any, ...]:
    """Return the classes in the order of the weights; missing labels are refused by their line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of identifiers, which are refused later
            return tuple(tables.count_text(database, [path], path, Wanted(label)).names)
    except ValueError as error:
        raise ValueError(str(error).replace(", or count them by missing_as_class=True", "")) from error


def _from_parquet(database: DuckDBPyConnection, path: str) -> dict[str, Array]:
    given = [glob.escape(path)]
    about = tables.ask(database, "DESCRIBE SELECT * FROM read_parquet(?)", given, path)
    read: dict[str, Array] = {}
    for name, kind, *_ in about:
        column = '"' + name.replace('"', '""') + '"'
        if kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "BLOB")):
            raise TypeError(f"column {name!r} of {path!r} holds {kind}; give one value a row, or drop it")
        if kind.startswith(("DECIMAL", "HUGEINT", "UHUGEINT")):
            column = f"{column}::DOUBLE"
        elif kind.startswith(("TIMESTAMP", "DATE")):
            column = f"{column}::TIMESTAMP"
        elif kind.startswith(("TIME", "ENUM", "UUID", "INTERVAL")):
            column = f"{column}::VARCHAR"
        (read[name],) = _fetch(database, f"SELECT {column} AS v FROM read_parquet(?)", path, given)
    return read


def _fetch(database: DuckDBPyConnection, query: str, path: str, given: Sequence[Any] = ()) -> list[Array]:
    """Return columns; a missing number is NaN, a missing text None, a missing date NaT."""
    import duckdb

    try:
        found = database.execute(query, list(given)).fetchnumpy()
    except duckdb.OutOfMemoryException as error:
        raise MemoryError(
            f"source {path!r} needs more memory than there is"
            "; give fewer columns or rows, or close other programs"
        ) from error
    except duckdb.Error as error:
        raise ValueError(
            f"source {path!r} is not readable ({str(error).splitlines()[0]}); save it again"
        ) from error
    columns = []
    for values in found.values():
        if isinstance(values, np.ma.MaskedArray):
            hidden = np.ma.getmaskarray(values)
            plain = values.data
            if hidden.any():
                nothing: object = None
                if plain.dtype.kind in "biuf":
                    plain, nothing = plain.astype(np.float64), np.nan
                elif plain.dtype.kind == "M":
                    nothing = np.datetime64("NaT")
                plain = plain.copy()
                plain[hidden] = nothing
            values = plain
        columns.append(np.asarray(values))
    return columns


def _from_memory(source: Any) -> dict[str, Array]:
    names = source.keys() if isinstance(source, Mapping) else getattr(source, "columns", None)
    if names is None:
        raise TypeError(
            f"a table must be a path, a data frame or a mapping of columns, got {_checks.describe(source)}"
        )
    read = {}
    for name in names:
        values = source[name]
        array = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
        if array.ndim != 1:
            raise TypeError(f"column {name!r} must be one value a row, got shape {array.shape}")
        read[str(name)] = array
    sizes = {name: len(values) for name, values in read.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"columns differ in length: {sizes}; give as many values in each")
    return read


def _column(name: str, raw: Array, keep: bool, text: bool, table: str) -> Column:
    """Make a column of what was read; as text if another table has it so."""
    if text and raw.dtype.kind != "O":
        known = raw.tolist()
        raw = np.asarray([None if _arrays.is_missing(x) else x for x in known], dtype=object)
    if raw.dtype.kind in "biuf":
        values = raw.astype(np.float64, copy=False)
        if np.isinf(values).any():
            raise ValueError(
                f"column {name!r} of {table} holds {int(np.isinf(values).sum())} infinite values; "
                "mend them, or drop the column"
            )
        there = values[~np.isnan(values)]
        return Column(name, "number", values, whole=bool((there == np.floor(there)).all()))
    if raw.dtype.kind == "M":
        seconds = raw.astype("datetime64[ms]").astype(np.float64) / 1000
        return Column(name, "date", np.where(np.isnat(raw), np.nan, seconds / _DAY))
    if raw.dtype.kind == "m":
        raise TypeError(f"column {name!r} of {table} holds durations; give numbers, or drop it")
    values = np.full(len(raw), np.nan)
    there_at = np.asarray([not _arrays.is_missing(x) for x in raw.tolist()], dtype=bool)
    found = raw[there_at].tolist()
    kinds = {type(x) for x in found}
    if not text and kinds and all(issubclass(kind, int | float | bool | np.number) for kind in kinds):
        values[there_at] = found
        return _column(name, values, keep, text, table)
    if not text and kinds and all(hasattr(kind, "isoformat") and hasattr(kind, "year") for kind in kinds):
        stamps = np.full(len(raw), np.datetime64("NaT"), dtype="datetime64[ms]")
        stamps[there_at] = np.asarray([x.isoformat()[:23] for x in found], dtype="datetime64[ms]")
        return _column(name, stamps, keep, text, table)
    if any(isinstance(x, list | tuple | dict | set | np.ndarray) for x in found):
        raise TypeError(f"column {name!r} of {table} holds lists; give one value a row, or drop the column")
    if len(kinds) > 1 and not keep:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise TypeError(
            f"column {name!r} of {table} mixes the types {names}; convert it, drop it (--drop), or keep it "
            "as categories (--keep)"
        )
    texts = np.asarray([str(x) for x in found], dtype=object)
    distinct, codes = np.unique(texts, return_inverse=True)
    numeric = np.asarray([_arrays.NUMBER.fullmatch(x) is not None for x in distinct.tolist()], dtype=bool)
    share = float(numeric[codes].mean()) if len(codes) else 0.0
    if not keep and 0.5 < share < 1 and len(distinct) > _MIXED:
        odd = distinct[~numeric][0]
        count = int((~numeric[codes]).sum())
        raise ValueError(
            f"column {name!r} of {table} holds numbers and {count} other values such as {odd!r}; clear "
            "these, drop the column (--drop), or keep it as categories (--keep)"
        )
    values[there_at] = codes.reshape(-1)
    return Column(name, "category", values, tuple(distinct.tolist()), whole=True)


def classes_of(labels: Array, source: str) -> Array:
    """Refuse labels that are missing; whole floats become the integers that they are."""
    try:
        finish(Counter(labels.tolist()).items(), source, Wanted("label"))
    except TypeError as error:  # of remedies those that are there
        raise TypeError(str(error).replace(", or count them by missing_as_class=True", "")) from error
    if labels.dtype.kind == "f" and (labels == np.floor(labels)).all():
        return labels.astype(np.int64)
    return labels


def check_label(label: str, labels: Array, source: str) -> None:
    """Refuse labels that are constant, continuous or tell rows apart.

    Raises:
        ValueError: so.
    """
    distinct = len(np.unique(labels))
    if distinct == 1:
        raise ValueError(
            f"label {label!r} of {source} has one value, {str(labels[0])!r}; there is nothing to learn"
        )
    if labels.dtype.kind == "f" and distinct > _CONTINUOUS:
        raise ValueError(
            f"label {label!r} of {source} is continuous: {distinct} values that are not whole; name a column "
            "of classes, or cut it into classes first"
        )
    if distinct == len(labels) or (distinct > 50 and distinct > len(labels) / 2):
        raise ValueError(
            f"label {label!r} of {source} looks like an identifier: {distinct} values in {len(labels)} rows; "
            "name the column of the class"
        )
