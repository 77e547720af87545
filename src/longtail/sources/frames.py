"""A whole table -> columns of numbers: .csv, .tsv, Parquet, and data frames in memory.

Numbers and dates are floats, a category is the place of its text in a list; what is missing is NaN. That is
storage, as Arrow's dictionaries are: encoding and imputation are the learners' part. A file is read column by
column into one matrix; beyond a gigabyte or two the matrix lies in a file of its own, that is mapped.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import glob
import os
import re
import shutil
import tempfile
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks
from longtail.sources import tables
from longtail.sources.counted import Wanted, finish, notice_alike, parts_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = [
    "READ",
    "Column",
    "Frame",
    "check_label",
    "classes_of",
    "matrix",
    "parquet_columns",
    "read_frame",
    "vectors_of",
]

Array = npt.NDArray[Any]
_Mark = Literal["", ",", "."]
_PARQUET = (".parquet", ".pq")
_PACKED = (".gz", ".zst", ".zip", ".bz2", ".xz")
READ = f"a .csv, .tsv, .tab or .data file, also packed ({', '.join(_PACKED)}), or a .parquet or .pq file"
# what would be read as odd text
_OTHER = (
    *(".arff", ".arrow", ".feather", ".ipc", ".json", ".jsonl", ".ndjson", ".npy", ".npz", ".pkl"),
    *(".xls", ".xlsm", ".xlsx"),
)
_MIXED = 50  # distinct values beyond which a column of numbers and text is no list of categories
_CONTINUOUS = 20  # distinct numbers that are not whole, beyond which a label is a measure
# what a column calls the rows for testing
_TEST = ("test", "testing", *("val", "valid", "validation", "dev", "eval", "evaluation", "holdout"))
# a day alone or with a time: 2020-01-31-07 is a name, which Python would read as seven o'clock
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([ T].*)?", re.ASCII)
# how pandas calls an index without a name in Parquet, and in a CSV file that was written twice or more often
_INDEX = re.compile(r"__index_level_[0-9]+__|Unnamed: 0(\.[0-9]+)*")
# a number with a decimal comma, and with points between thousands
_COMMA = r"[-+]?([0-9]+|[1-9][0-9]{0,2}(\.[0-9]{3})+)(,[0-9]+)?([eE][-+]?[0-9]+)?"
# such numbers that may be meant otherwise: whole ones, and 1,250 or 1.250 with a mark that may part thousands
_EITHER = r"[-+]?([0-9]+([eE][-+]?[0-9]+)?|[1-9][0-9]{0,2}[.,][0-9]{3})"
_DAY = 86_400.0
_IN_MEMORY = 1 << 31  # bytes up to which a matrix is held
_VALUES = 1 << 22  # of lists that are taken at a time
# bytes that DuckDB may hold, at least, and for each core that reads; what is more goes to a file
_SORTER, _PER_CORE = 1 << 31, 1 << 27
_LISTS = (list, tuple, set, frozenset, np.ndarray)


@dataclass(frozen=True, eq=False)
class Column:
    """One column.

    Attributes:
        name: as the table heads it.
        kind: "number" | "date" (days since 1970) | "category".
        values: float64 of shape (N,), NaN where missing; of a category its place in `categories`.
        categories: the texts, sorted.
        whole: whether every value is a whole number, or text: what an identifier is made of.
        mark: what fractions are written with in text between semicolons or tabs, "," or "."; empty where no
            value tells, and of all other tables.
        index: whether it is the numbering of rows that pandas writes beside them.
    """

    name: str
    kind: Literal["number", "date", "category"]
    values: npt.NDArray[np.float64]
    categories: tuple[str, ...] = ()
    whole: bool = False
    mark: _Mark = ""
    index: bool = False

    @property
    def parts(self) -> tuple[str, str] | None:
        """What the column calls training and test rows, where it says which are which; else None."""
        named = tables.PARTS.fullmatch(self.name.strip().lower())
        if self.kind == "category":
            if len(self.categories) > _MIXED:  # no part has as many names, and there may be millions
                return None
            said = {text.strip().lower(): text for text in self.categories}
            ours, theirs = (
                next((said[w] for w in words if w in said), None) for words in (tables.TRAIN, _TEST)
            )
            if ours is not None and theirs is not None and said.keys() <= {*tables.TRAIN, *_TEST}:
                return ours, theirs
            if named is None or len(self.categories) != 2:
                return None
            if (
                named[0] == "split"
                and (*sorted(said),) not in tables.YES
                and not said.keys() & {*tables.TRAIN, *_TEST}
            ):
                return None  # such as of bananas
            no, yes = self.categories  # such as False and True, no and yes
        elif named is None or self.kind != "number" or {*np.unique(self.values).tolist()} != {0.0, 1.0}:
            return None
        else:
            no, yes = "0", "1"
        return (yes, no) if "train" in named[0] else (no, yes)


@dataclass(frozen=True, eq=False)
class _Coded:
    """A column of text: its distinct values, sorted, and the place of each row's; -1 where it has none."""

    texts: list[str]
    codes: npt.NDArray[np.int32]

    def rows(self) -> Array:
        """Return one text a row, None where there is none; rows share the texts."""
        return np.asarray([*self.texts, None], dtype=object)[self.codes]


_Raw = Array | _Coded
_Reader = Callable[[], _Raw]  # reads one column, once it is wanted


@dataclass(frozen=True, eq=False)
class Frame:
    """A table.

    Attributes:
        columns: all but the label and the groups; their values are the columns of `matrix`, in this order.
        labels: one a row, text or numbers as `longtail.class_counts` names them; of many labels a row, 0, 1
            and NaN where it is empty, float64 of shape (N, L).
        classes: the labels that there are, in the order of `longtail.class_counts`; None for a table in
            memory or in Parquet, whose labels sort themselves. Always there of many labels.
        groups: one a row, or None.
        matrix: float64 of shape (N, columns), column by column.
        moved: not empty once `of` has moved the columns, whose values are then others'.
    """

    columns: tuple[Column, ...]
    labels: Array
    groups: Array | None
    classes: tuple[Any, ...] | None = None
    matrix: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    moved: list[bool] = field(default_factory=list, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, columns: Sequence[Column]) -> npt.NDArray[np.float64]:
        """Return the matrix of some of the columns, moved together in place: the last use of this table.

        Args:
            columns: some of this table's, in the order that they have in it.

        Raises:
            RuntimeError: columns were moved before.
        """
        if self.moved:
            raise RuntimeError("the columns of this table were moved; read it again")
        names = [c.name for c in self.columns]
        kept = [names.index(c.name) for c in columns]
        assert kept == sorted(kept)
        self.moved.append(True)
        for to, at in enumerate(kept):
            if to != at:
                self.matrix[:, to] = self.matrix[:, at]
        return self.matrix[:, : len(kept)]


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
        source: a .csv, .tsv or Parquet file; a data frame of pandas or polars, a table of pyarrow; or a
            mapping from names to columns.
        label: the column of the class, of the labels that `separator` parts, or of lists of labels.
        labels: in its place columns of 0 and 1, one a label; ``*`` in a name stands for any text.
        separator: what parts several labels in one field.
        groups: a column whose equal values belong together, such as a customer.
        drop: columns to leave out.
        keep: columns to read whatever they hold: text among numbers makes a category.
        like: a table with the same columns, which says of what kind each is, and which have decimal commas;
            groups may be missing beside it.

    Raises:
        ValueError: no such column, an unreadable file, a column of numbers and text, an infinite number.
        TypeError: missing or mixed labels, columns that hold lists.
        OSError: a disk without room for a large table.
        MemoryError: the memory does not do.
        ModuleNotFoundError: DuckDB is not installed.
    """
    with contextlib.ExitStack() as stack:
        return _read_frame(stack, source, label, labels, separator, groups, drop, keep, like)


def _read_frame(
    stack: contextlib.ExitStack,
    source: object,
    label: str | None,
    labels: Sequence[str],
    separator: str | None,
    groups: str | None,
    drop: Sequence[str],
    keep: Sequence[str],
    like: Frame | None,
) -> Frame:
    """Read a table whose file is open as long as `stack` is."""
    if hasattr(source, "collect_schema") and not hasattr(source, "to_numpy"):
        raise TypeError("a table must be in memory, got a LazyFrame of polars; give table.collect()")
    texts = set() if like is None else {c.name for c in like.columns if c.kind == "category"}
    keep = [*keep, *(texts if isinstance(source, Mapping) or hasattr(source, "columns") else ())]
    if isinstance(source, str | os.PathLike):
        if separator is not None and label is not None:
            texts = {*texts, label}
        known = {} if like is None else {c.name: c.mark for c in like.columns}
        several = labels if separator is None else [label or ""]
        read, classes, marks, bare = _from_file(stack, os.fspath(source), label, texts, several, drop, known)
    else:
        read, classes, marks, bare = _from_memory(source, label, drop), None, {}, set()
    name = f"{str(source)!r}" if isinstance(source, str | os.PathLike) else "the table"
    if like is not None and groups not in read:
        groups = None
    for argument, one in (("label", label), ("groups", groups)):
        if one is not None:
            _checks.column(argument, one, read, name)
    for argument, several in (("drop", drop), ("keep", keep)):
        for one in several:
            if like is None:
                _checks.column(argument, one, read, name)
    found = [*tables.marked(tuple(labels), tuple(read), str(source))] if labels else [label]
    if wrong := [one for one in (*found, groups) if one in drop]:
        raise ValueError(f"drop={wrong[0]!r} is the column of label= or groups=; leave it out of drop=")
    if groups in found:
        raise ValueError(f"groups={groups!r} is a label; name another column, or leave it out")
    raw = None if label is None else _each(read.pop(label)())
    if raw is not None and raw.dtype.kind == "O" and any(isinstance(x, _LISTS) for x in raw):
        assert label is not None
        if separator is not None:
            raise ValueError(
                f"separator={separator!r} is for text, and {label!r} of {name} holds lists; leave it out"
            )
        truth, classes = _tags(label, raw, name)
    elif separator is not None:
        assert label is not None
        assert raw is not None
        truth, classes = _parted(label, raw, separator, name)
    elif raw is None:
        truth = np.column_stack([_marks(str(one), _each(read.pop(str(one))()), name) for one in found])
        classes = tuple(found)
    else:
        truth = raw
    together = None if groups is None else _each(read.pop(groups)())
    if together is not None and (missing := sum(map(_arrays.is_missing, together.tolist()))):
        raise ValueError(f"groups={groups!r} is empty in {missing} rows of {name}; fill or drop these rows")
    wanted = [n for n in read if n not in drop]
    values, columns = matrix(len(truth), len(wanted)), []
    for i, n in enumerate(wanted):  # one at a time, or all would be held twice
        column = _column(n, read[n](), n in keep, n in texts, name)
        values[:, i] = column.values
        index = column.kind == "number" and column.whole and (n in bare or _INDEX.fullmatch(n) is not None)
        columns.append(replace(column, values=values[:, i], mark=marks.get(n, ""), index=index))
    together = None if together is None else together.astype(str)
    return Frame(tuple(columns), truth, together, classes, values)


def matrix(rows: int, columns: int, dtype: type[np.floating[Any]] = np.float64) -> Array:
    """Return room for a table, column by column: in memory, or of gigabytes in a file that goes with it.

    Args:
        rows: how many.
        columns: how many.
        dtype: float64 of a table; float32 of features, which lie row by row.

    Raises:
        OSError: the disk has no room for the file.
    """
    size = np.dtype(dtype).itemsize * rows * columns
    order: Literal["F", "C"] = "F" if dtype is np.float64 else "C"
    if size <= _IN_MEMORY:
        return np.empty((rows, columns), dtype, order)
    folder = tempfile.gettempdir()
    free, made = shutil.disk_usage(folder).free, tempfile.mkdtemp(prefix="longtail-table-", dir=folder)
    path = os.path.join(made, "matrix")
    try:
        if size > free:
            raise OSError(errno.ENOSPC, "")
        with open(path, "wb") as file:
            if hasattr(os, "posix_fallocate"):  # a disk that fills up later would end the process
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
    except OSError as error:
        shutil.rmtree(made, ignore_errors=True)
        raise OSError(
            f"the table takes {size / 2**30:.1f} GiB, and {folder} has {free / 2**30:.1f} free; "
            f"{tables.LARGER_DISK}, or leave columns out by drop=NAME"
        ) from error
    mapped: Array = np.memmap(path, dtype, "r+", shape=(rows, columns), order=order)
    weakref.finalize(mapped, _remove, made, os.getpid())
    return mapped


def _remove(folder: str, maker: int) -> None:
    """Remove a matrix, unless this is a fork of the process that made it and may still read it."""
    if os.getpid() == maker:
        shutil.rmtree(folder, ignore_errors=True)


def _each(raw: _Raw) -> Array:
    return raw.rows() if isinstance(raw, _Coded) else raw


def _from_file(
    stack: contextlib.ExitStack,
    path: str,
    label: str | None,
    texts: Collection[str],
    several: Sequence[str] = (),
    drop: Collection[str] = (),
    known: Mapping[str, _Mark] = MappingProxyType({}),
) -> tuple[dict[str, _Reader], tuple[Any, ...] | None, dict[str, _Mark], set[str]]:
    endings = [ending for ending in Path(path.lower()).suffixes if ending not in _PACKED]
    other = bool(endings) and endings[-1] in _OTHER
    if other or not os.path.isfile(path):
        what = "a folder" if os.path.isdir(path) else "no file"
        what = f"a {endings[-1]} file, no table" if other else what
        raise ValueError(f"source {path!r} is {what}; give {READ}")
    database = _opened(stack)
    if Path(path).suffix.lower() in _PARQUET:
        return _from_parquet(database, path, label, drop), None, {}, set()
    return _from_text(database, path, label, texts, several, known)


def _opened(stack: contextlib.ExitStack) -> DuckDBPyConnection:
    """Open a database that holds a part of what it reads, and puts the rest into files."""
    spilled = stack.enter_context(tempfile.TemporaryDirectory(prefix="longtail-table-"))
    database = stack.enter_context(tables.connect("a table"))  # is closed before its files go
    spilled = spilled.replace("'", "''")
    database.execute(f"SET temp_directory = '{spilled}'")
    database.execute(f"SET memory_limit = '{max(_SORTER, _PER_CORE * (os.cpu_count() or 1))}B'")
    return database


def _from_text(
    database: DuckDBPyConnection,
    path: str,
    label: str | None,
    as_text: Collection[str],
    several: Sequence[str] = (),
    known: Mapping[str, _Mark] = MappingProxyType({}),
) -> tuple[dict[str, _Reader], tuple[Any, ...] | None, dict[str, _Mark], set[str]]:
    """Read text; a column is numbers, or dates, where every value that is there is one.

    Of many labels a row, whose columns are named by `several`, the labels are columns as all others. A comma
    is decimal where one value of the column proves it, as 1,250 may be a thousand, or another table has.
    """
    with contextlib.ExitStack() as stack:
        file = tables._readable(path, stack)
        known_by = label if label is not None else tables._plain(tuple(several))
        table = tables._table(database, path, file, known_by, False)
        at = -1 if several else tables._position(table, label)
        header = [str(label) if i == at else name.strip() for i, name in enumerate(table.header)]
        if twice := [name for name in header if name and header.count(name) > 1]:
            raise ValueError(f"columns of {path!r} are named twice: {twice[0]!r}; rename one")
        # an index that pandas wrote has no name, and stands first
        first = next((i for i, name in enumerate(header) if name), len(header))
        bare = {f"column {i + 1}" for i in range(first)}
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
    marks: dict[str, _Mark] = {}

    def in_commas(rows: str) -> tuple[bool, bool]:
        """Whether all values may have decimal commas, and whether one proves it."""
        odd, sure = _asked(
            database,
            f"SELECT count(*) FILTER (NOT regexp_full_match(v, '{_COMMA}')), "
            f"count(*) FILTER (NOT regexp_full_match(v, '{_EITHER}')) FROM {rows}",
            path,
        ).fetchall()[0]
        return not odd, bool(sure)

    @functools.cache
    def has_decimal_commas() -> bool:
        return any(all(in_commas(f"({filled(alias)})")) for i, alias in enumerate(aliases) if i != at)

    def of_thousands(name: str, mixed: bool) -> bool:
        """Whether the points of w part thousands: what looks so does, where the table has decimal commas."""
        pointed = "FROM w WHERE contains(v, '.')"  # one other is enough, and mostly among the first rows
        others = database.execute(
            f"SELECT 1 {pointed} AND NOT regexp_full_match(v, '{_checks.THOUSAND}') LIMIT 1"
        ).fetchall()
        if not others and has_decimal_commas():
            return True
        if not others and mixed:
            shown = database.execute(f"SELECT min(v) {pointed}").fetchall()[0][0]
            whole = shown.replace(".", "")
            _checks.warn(
                f"column {name!r} of {path!r}: {shown} is read as {float(shown):g} and may be {whole}, since "
                f"all its points stand before three digits; write {whole} if it is that"
            )
        return False

    def filled(alias: str) -> str:
        text = f"CASE WHEN regexp_full_match({alias}, '{missing}') THEN NULL ELSE trim({alias}) END"
        return f"SELECT {text} AS v FROM t"

    def of_commas(name: str) -> Array:
        marks[name] = ","
        number = "TRY_CAST(replace(replace(v, '.', ''), ',', '.') AS DOUBLE)"
        return _fetch(database, f"SELECT {number} AS v FROM w", path)

    def column(name: str, alias: str) -> _Raw:
        _asked(database, f"CREATE OR REPLACE TEMP TABLE w AS {filled(alias)}", path)
        # between 00 and 0: stands what begins with 0 and another digit
        code = " OR ".join(f"(v >= '{sign}00' AND v < '{sign}0:')" for sign in ("", "-", "+"))
        there, numbers, codes, points = database.execute(
            f"SELECT count(v), count(TRY_CAST(v AS DOUBLE)), count(*) FILTER ({code}), "
            "count(*) FILTER (contains(v, '.')) FROM w"
        ).fetchall()[0]
        if name in as_text:
            return _texts(database, "SELECT v FROM w", path)
        as_comma = known.get(name) == ","
        if table.delimiter != "," and not codes and (as_comma or numbers < there):
            fits, sure = in_commas("w")
            if fits and (sure or as_comma):
                return of_commas(name)
        if numbers == there and not codes:
            marks[name] = "." if points and table.delimiter != "," else ""
            if marks[name] and known.get(name) != "." and of_thousands(name, points < there):
                return of_commas(name)
            return _fetch(database, "SELECT TRY_CAST(v AS DOUBLE) AS v FROM w", path)
        dates = "SELECT count(TRY_CAST(v AS TIMESTAMP)) FROM w"
        if database.execute(dates).fetchall()[0][0] == there:
            return _fetch(database, "SELECT TRY_CAST(v AS TIMESTAMP) AS v FROM w", path)
        return _texts(database, "SELECT v FROM w", path)

    def classes_in(alias: str) -> Array:
        found = _texts(database, f"SELECT {alias} AS v FROM t", path)
        bare = [tables._unquoted(text, table, [(text,) for text in found.texts]) for text in found.texts]
        named = [_arrays.one_form(x) for x in tables._numbers(bare, table.delimiter != ",")]
        if isinstance(named[0], str):
            return np.asarray(named, dtype=object)[found.codes]
        return np.asarray(named)[found.codes]

    read: dict[str, _Reader] = {
        name: partial(classes_in, alias) if i == at else partial(column, name, alias)
        for i, (name, alias) in enumerate(zip(header, aliases, strict=True))
    }
    return read, classes, marks, bare


def _parted(name: str, raw: Array, separator: str, table: str) -> tuple[Array, tuple[Any, ...]]:
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
    return _of_tags(rows, table)


def _tags(name: str, raw: Array, table: str) -> tuple[Array, tuple[Any, ...]]:
    """Read lists of labels, one list a row; a row without a list, or with an empty one, has none of them."""
    rows = []
    for at, row in enumerate(raw.tolist()):
        if not isinstance(row, _LISTS) and not _arrays.is_missing(row):
            raise TypeError(
                f"labels: {name!r} of {table} holds lists, and {row!r} in row {at}; make it a list"
            )
        rows.append(
            [_arrays.one_form(x) for x in row if not _arrays.is_missing(x)] if isinstance(row, _LISTS) else []
        )
    try:
        return _of_tags(rows, table)
    except TypeError as error:
        raise TypeError(
            f"labels: the lists of {name!r} of {table} mix types; make all of them text"
        ) from error


def _of_tags(rows: Sequence[Collection[Any]], table: str) -> tuple[Array, tuple[Any, ...]]:
    names = _arrays.label_order({part for row in rows for part in row})
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
        text = str(error).replace(", or count them by missing_as_class=True", "")
        if label in text:
            raise ValueError(text) from error
        raise ValueError(f"label {label!r}: {text}; or leave such rows out") from error


def _from_parquet(
    database: DuckDBPyConnection, path: str, label: str | None, drop: Collection[str]
) -> dict[str, _Reader]:
    given = [glob.escape(path)]
    about = tables.ask(database, "DESCRIBE SELECT * FROM read_parquet(?)", given, path)
    read: dict[str, _Reader] = {}
    for name, kind, *_ in about:
        column = '"' + name.replace('"', '""') + '"'
        if name in drop:
            read[name] = partial(np.empty, 0)
            continue
        if kind.startswith(("STRUCT", "MAP", "BLOB")) or (kind.endswith("]") and name != label):
            raise TypeError(
                f"column {name!r} of {path!r} holds {kind}; give one value a row, or drop it by drop={name!r}"
            )
        if kind.startswith(("DECIMAL", "HUGEINT", "UHUGEINT")):
            column = f"{column}::DOUBLE"
        elif kind.startswith(("TIMESTAMP", "DATE")):
            column = f"{column}::TIMESTAMP"
        elif kind.startswith(("TIME", "ENUM", "UUID", "INTERVAL")):
            column, kind = f"{column}::VARCHAR", "VARCHAR"
        how = _texts if kind == "VARCHAR" else _fetch
        read[name] = partial(how, database, f"SELECT {column} AS v FROM read_parquet(?)", path, given)
    return read


def parquet_columns(path: str) -> dict[str, str]:
    """Return the columns of a Parquet file, and of what type DuckDB takes each."""
    about = tables.ask(
        tables.connect("a table"), "DESCRIBE SELECT * FROM read_parquet(?)", [glob.escape(path)], path
    )
    return {name: kind for name, kind, *_ in about}


def vectors_of(path: str, name: str) -> npt.NDArray[np.float32]:
    """Return a column of lists of numbers in a Parquet file, all of one length, as rows.

    Raises:
        TypeError: lists of other things.
        ValueError: a row without a list, or lists of several lengths.
    """
    given, column = [glob.escape(path)], '"' + name.replace('"', '""') + '"'
    with contextlib.ExitStack() as stack:
        database = _opened(stack)
        _asked(database, f"CREATE TEMP TABLE q AS SELECT {column} AS v FROM read_parquet(?)", path, given)
        about = "count(*), count(v), coalesce(min(len(v)), 0), coalesce(max(len(v)), 0)"
        rows, there, least, most = _asked(database, f"SELECT {about} FROM q", path).fetchall()[0]
        if there < rows or least < most or not least:
            raise ValueError(
                f"column {name!r} of {path!r} must hold lists of one length, got lengths from "
                f"{least if there == rows else 0} to {most}; leave the other rows out"
            )
        found = matrix(rows, most, np.float32)
        for start in range(0, rows, step := max(1, _VALUES // most)):
            part = f"SELECT unnest(v) AS v FROM q WHERE rowid >= {start} AND rowid < {start + step}"
            values = _fetch(database, part, path)
            if values.dtype.kind not in "biuf":
                raise TypeError(
                    f"column {name!r} of {path!r} must hold lists of numbers, got {values.dtype}; leave it "
                    "out"
                )
            found[start : start + step] = values.reshape(-1, most)
    return found


def _fetch(database: DuckDBPyConnection, query: str, path: str, given: Sequence[Any] = ()) -> Array:
    """Return the column that a query gives; a missing number is NaN, other things None, a date NaT."""
    values = next(iter(_asked(database, query, path, given).fetchnumpy().values()))
    if not isinstance(values, np.ma.MaskedArray):
        return np.asarray(values)
    hidden, plain = np.ma.getmaskarray(values), values.data
    if hidden.any():
        nothing: object = None
        if plain.dtype.kind in "biuf":
            plain, nothing = plain.astype(np.float64), np.nan
        elif plain.dtype.kind == "M":
            nothing = np.datetime64("NaT")
        plain = plain.copy()
        plain[hidden] = nothing
    return np.asarray(plain)


def _texts(database: DuckDBPyConnection, query: str, path: str, given: Sequence[Any] = ()) -> _Coded:
    """Return the column of text that a query gives; each distinct one is held once."""
    _asked(database, f"CREATE OR REPLACE TEMP TABLE q AS {query}", path, given)
    distinct = "SELECT DISTINCT v FROM q WHERE v IS NOT NULL ORDER BY v"
    _asked(database, f"CREATE OR REPLACE TEMP TABLE d AS {distinct}", path)
    texts = _fetch(database, "SELECT v FROM d", path).tolist()
    if not texts:
        (rows,) = database.execute("SELECT count(*) FROM q").fetchall()[0]
        return _Coded([], np.full(rows, -1, dtype=np.int32))
    database.execute("DROP TYPE IF EXISTS distinct_texts")
    _asked(database, "CREATE TYPE distinct_texts AS ENUM (SELECT v FROM d)", path)
    place = "coalesce(enum_code(v::distinct_texts)::INTEGER, -1)"
    return _Coded(texts, _fetch(database, f"SELECT {place} AS v FROM q", path))


def _asked(
    database: DuckDBPyConnection, query: str, path: str, given: Sequence[Any] = ()
) -> DuckDBPyConnection:
    import duckdb

    try:
        return database.execute(query, list(given))
    except duckdb.OutOfMemoryException as error:
        tables.refuse_full_disk(path, error)
        raise MemoryError(
            f"source {path!r} needs more memory than there is"
            "; give fewer columns or rows, or close other programs"
        ) from error
    except duckdb.Error as error:
        raise ValueError(
            f"source {path!r} is not readable ({str(error).splitlines()[0]}); save it again"
        ) from error


def _from_memory(source: Any, label: str | None, drop: Collection[str]) -> dict[str, _Reader]:
    names = source.keys() if isinstance(source, Mapping) else getattr(source, "columns", None)
    if hasattr(source, "column_names"):  # of pyarrow, whose columns have no names themselves
        names = source.column_names
    if names is None:
        raise TypeError(
            "a table must be a path, a data frame or a mapping of columns, got "
            f"{_checks.describe(source)}; pandas.DataFrame(table) makes one of rows or of a record array"
        )
    if isinstance(source, Mapping):
        _arrays.check_index({f"column {name!r}": values for name, values in source.items()})
    read = {}
    for name in names:
        if str(name) in drop:
            read[str(name)] = np.empty(0)
            continue
        values = source[name]
        if str(name) == label and (lists := _lists(values)) is not None:
            read[str(name)] = lists
            continue
        array = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
        if array.ndim != 1:
            raise TypeError(f"column {name!r} must be one value a row, got shape {array.shape}")
        read[str(name)] = array
    sizes = {name: len(values) for name, values in read.items() if name not in drop}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"columns differ in length: {sizes}; give as many values in each")
    return {name: partial(np.asarray, values) for name, values in read.items()}


def _lists(values: Any) -> Array | None:
    """Return a column of lists, one a row, as objects; None of any other."""
    rows = values.to_list() if hasattr(values, "to_list") else values
    rows = rows.to_pylist() if hasattr(rows, "to_pylist") else rows
    if not isinstance(rows, list) or not any(isinstance(row, _LISTS) for row in rows):
        return None
    objects = np.empty(len(rows), dtype=object)
    objects[:] = rows
    return objects


def _column(name: str, raw: _Raw, keep: bool, text: bool, table: str) -> Column:
    """Make a column of what was read; as text if another table has it so."""
    if isinstance(raw, _Coded):
        known_texts = [i for i, x in enumerate(raw.texts) if not _arrays.is_missing(x)]
        places = np.full(len(raw.texts) + 1, np.nan)  # the last is that of a row without text
        places[known_texts] = np.arange(len(known_texts))
        return _category(name, [raw.texts[i] for i in known_texts], places[raw.codes], keep or text, table)
    if text and raw.dtype.kind != "O":
        known = raw.tolist()
        raw = np.asarray([None if _arrays.is_missing(x) else x for x in known], dtype=object)
    if raw.dtype.kind in "biuf":
        values = raw.astype(np.float64, copy=False)
        if np.isinf(values).any():
            raise ValueError(
                f"column {name!r} of {table} holds {int(np.isinf(values).sum())} infinite values; "
                f"mend them, or leave the column out by drop={name!r}"
            )
        there = values[~np.isnan(values)]
        return Column(name, "number", values, whole=bool((there == np.floor(there)).all()))
    if raw.dtype.kind == "M":
        seconds = raw.astype("datetime64[ms]").astype(np.float64) / 1000
        return Column(name, "date", np.where(np.isnat(raw), np.nan, seconds / _DAY))
    if raw.dtype.kind == "c":
        raise TypeError(
            f"column {name!r} of {table} holds complex numbers; give two columns, or leave it out by "
            f"drop={name!r}"
        )
    if raw.dtype.kind == "m":
        raise TypeError(
            f"column {name!r} of {table} holds durations; give numbers, or leave it out by drop={name!r}"
        )
    values = np.full(len(raw), np.nan)
    there_at = np.asarray([not _arrays.is_missing(x) for x in raw.tolist()], dtype=bool)
    found = raw[there_at].tolist()
    kinds = {type(x) for x in found}
    if not text and kinds and all(issubclass(kind, int | float | bool | np.number) for kind in kinds):
        values[there_at] = found
        return _column(name, values, keep, text, table)
    if not text and kinds and all(hasattr(kind, "isoformat") and hasattr(kind, "year") for kind in kinds):
        stamps = np.full(len(raw), np.datetime64("NaT"), dtype="datetime64[ms]")
        stamps[there_at] = np.asarray([_utc(x).isoformat()[:23] for x in found], dtype="datetime64[ms]")
        return _column(name, stamps, keep, text, table)
    if any(isinstance(x, (*_LISTS, dict)) for x in found):
        raise TypeError(
            f"column {name!r} of {table} holds lists; give one value a row, or leave it out by drop={name!r}"
        )
    if len(kinds) > 1 and not keep:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise TypeError(
            f"column {name!r} of {table} mixes the types {names}; convert it, leave it out by drop={name!r}, "
            f"or take it as categories by keep={name!r}"
        )
    texts = np.asarray([str(x) for x in found], dtype=object)
    distinct, codes = np.unique(texts, return_inverse=True)
    values[there_at] = codes.reshape(-1)
    return _category(name, distinct.tolist(), values, keep, table)


def _category(
    name: str, distinct: Sequence[str], values: npt.NDArray[np.float64], keep: bool, table: str
) -> Column:
    """Make a column of text; one of numbers and some text is refused.

    Args:
        name: of the column.
        distinct: the texts, sorted.
        values: the place of each row's, float64 of shape (N,), NaN where there is none.
        keep: take it whatever it holds.
        table: for the message.
    """
    if not keep and distinct and (days := _days(distinct)) is not None:
        known = ~np.isnan(values)
        values[known] = days[values[known].astype(np.int64)]
        return Column(name, "date", values)
    numeric = np.asarray([_arrays.NUMBER.fullmatch(x) is not None for x in distinct], dtype=bool)
    if not keep and len(distinct) > _MIXED and numeric.any() and not numeric.all():
        codes = values[~np.isnan(values)].astype(np.int64)
        count = int((~numeric[codes]).sum())
        if 0.5 < 1 - count / len(codes) < 1:
            odd = distinct[int(np.argmin(numeric))]
            raise ValueError(
                f"column {name!r} of {table} holds numbers and {count} other values such as {odd!r}; clear "
                f"these, leave the column out by drop={name!r}, or take it as categories by keep={name!r}"
            )
    return Column(name, "category", values, tuple(distinct), whole=True)


def _days(texts: Sequence[str]) -> npt.NDArray[np.float64] | None:
    """Read texts such as 2020-01-31 and 2020-01-31 12:00 as days since 1970; None if one is no such."""
    try:
        moments = [
            _utc(datetime.datetime.fromisoformat(text)) for text in texts if _DATE.fullmatch(text) is not None
        ]
        if len(moments) < len(texts):
            return None
        stamps = np.asarray([moment.isoformat()[:23] for moment in moments], dtype="datetime64[ms]")
    except ValueError:
        return None
    days: npt.NDArray[np.float64] = stamps.astype(np.float64) / 1000 / _DAY
    return days


def _utc(moment: Any) -> Any:
    """Return a date, or a time as that of Greenwich, without its zone."""
    if getattr(moment, "tzinfo", None) is None:
        return moment
    return moment.astimezone(datetime.UTC).replace(tzinfo=None)


def classes_of(labels: Array, source: str) -> Array:
    """Refuse labels that are missing; whole floats become integers, and text takes one form of Unicode."""
    try:
        finish(Counter(labels.tolist()).items(), source, Wanted("label"))
    except TypeError as error:  # of remedies those that are there
        raise TypeError(str(error).replace(", or count them by missing_as_class=True", "")) from error
    if labels.dtype.kind == "f" and (labels == np.floor(labels)).all():
        return labels.astype(np.int64)
    values = labels.tolist()
    forms = {value: _arrays.one_form(value) for value in {*values}}
    if any(value != form for value, form in forms.items()):
        labels = np.empty(len(values), dtype=object)
        labels[:] = [forms[value] for value in values]
    return labels


def check_label(label: str, labels: Array, source: str) -> None:
    """Refuse labels that are constant, continuous or tell rows apart.

    Raises:
        ValueError: so.
    """
    distinct = len({*labels.tolist()}) if labels.dtype.kind == "O" else len(np.unique(labels))
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
