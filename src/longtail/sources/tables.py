"""A column of a table -> its classes and how often each stands: .csv, .tsv and Parquet, near and far.

One engine, DuckDB, reads and counts. It is told everything that it would guess, and what it cannot read by
these rules is refused: no row is skipped.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import gzip
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, TextIO

from longtail import _checks
from longtail.sources.counted import Counted, in_order, needs

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_CLASSES = 1 << 22  # more distinct labels than any classifier has, and few enough to hold
_NESTED = "nested"
# what pandas.read_csv takes for a missing value
_MISSING = re.compile(r"#N/A( N/A)?|#NA|-?1\.#(IND|QNAN)|-?(NaN|nan)|<NA>|N/A|n/a|NA|NULL|null|None")
_NUMBER = re.compile(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*")
_CODE = re.compile(r"\s*[-+]?0[0-9]")
_RAGGED = re.compile(r"on Line: (\d+)\n.*Expected Number of Columns: (\d+) Found: (\d+)", re.DOTALL)


def connect(what: str, *, remote: bool = False) -> DuckDBPyConnection:
    """Open a database of our own in memory: no file, no cache, nothing fetched or installed unasked.

    Raises:
        ModuleNotFoundError: DuckDB is not installed; ``what`` says what needs it.
        ValueError: its extension for object stores is not installed.
    """
    duckdb = needs("duckdb", f"{what} needs", "counts")
    database: DuckDBPyConnection = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "enable_external_file_cache": False,  # would keep what is read once
            "python_enable_replacements": False,
            "temp_directory": "",
            "allow_persistent_secrets": remote,  # the user's keys to object stores
        },
    )
    database.execute("SET enable_progress_bar = false")  # it is printed into what the command line prints
    # enough for a column of classes, where one of file names would need everything
    cores = os.cpu_count() or 1
    database.execute(f"SET memory_limit = '{256 + 64 * cores}MB'")
    if remote:
        try:
            database.execute("LOAD httpfs")
        except duckdb.Error as error:
            raise ValueError(
                f"{what} needs DuckDB's extension httpfs, which is not installed. Install it once, "
                "with a connection: python -c \"import duckdb; duckdb.execute('INSTALL httpfs')\""
            ) from error
    return database


def matches(database: DuckDBPyConnection, pattern: str) -> list[str]:
    """Return the files of an object store that a pattern names."""
    found = _ask(database, "SELECT file FROM glob(?) ORDER BY file", [pattern], pattern)
    if not found:
        raise ValueError(f"source {pattern!r} matches no file; check the pattern")
    return [path for (path,) in found]


# ---- tables of text


@dataclass(frozen=True)
class _Table:
    """A table of text and how it is written.

    Attributes:
        path: the file.
        header: the names in its first line.
        delimiter: what parts its fields.
        quoted: whether quotes hold a field together. Tab-separated text has none, as its first line shows:
            there a quote is a character like any other.
        remote: whether DuckDB alone reaches it.
    """

    path: str
    header: list[str]
    delimiter: str
    quoted: bool
    remote: bool

    def position(self, column: str) -> int | None:
        """Return where a column stands; blanks around a name do not matter where it is the only one."""
        if column in self.header:
            return self.header.index(column)
        alike = [i for i, name in enumerate(self.header) if name.strip() == column.strip()]
        return alike[0] if len(alike) == 1 else None

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield line and fields of each row, to say where something is; counting is DuckDB's part."""
        with _open(self.path) as file:
            rows = _fields(file, self.delimiter, self.quoted)
            for row in rows:
                yield rows.line_num, row

    def query(self, columns: list[int], width: int, pad: bool) -> tuple[str, list[str]]:
        """Write the query for some columns of ``width``, and what is to be put into it."""
        names = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(width))
        extra = ", ".join(f"c{i}" for i in range(len(self.header), width))
        long = f"coalesce({extra}, NULL) IS NOT NULL" if extra else "false"
        names_of = ("a", "b", *(f"x{i}" for i in range(2, len(columns))))
        wanted = [f"c{i} AS {name}" for i, name in zip(columns, names_of, strict=False)] + [f"{long} AS long"]
        table = (
            f"(SELECT {', '.join(wanted)} FROM read_csv(?, auto_detect = false, header = true, "
            f"columns = {{{names}}}, delim = ?, quote = ?, escape = ?, comment = '', nullstr = '', "
            f"encoding = ?, null_padding = {str(pad).lower()}))"
        )
        quote = '"' if self.quoted else ""
        return table, [self.path, self.delimiter, quote, quote, _encoding(self.path)]


def _open(path: str) -> TextIO:
    opened = gzip.open if path.lower().endswith(".gz") else open
    encoding = "utf-16" if _encoding(path) == "utf-16" else "utf-8-sig"
    return opened(path, "rt", newline="", encoding=encoding, errors="replace")


def _encoding(path: str) -> str:
    """Return DuckDB's name of a file's encoding, as the mark at its start shows it."""
    if not os.path.isfile(path):
        return "utf-8"
    with open(path, "rb") as file:
        return "utf-16" if file.read(2) == b"\xff\xfe" else "utf-8"


def _fields(lines: Iterable[str], delimiter: str, quoted: bool) -> Any:
    return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)


def _table(database: DuckDBPyConnection, path: str, column: str, remote: bool) -> _Table:
    """Read a table's header; the delimiter is the first that makes ``column`` one of its names.

    Raises:
        ValueError: an empty or unreadable file.
    """
    if remote:
        options = "auto_detect = false, header = false, delim = ?, quote = '', escape = '', comment = ''"
        query = f"SELECT x FROM read_csv(?, {options}, columns = {{'x': 'VARCHAR'}}) LIMIT 1"
        lines = [row[0] or "" for row in _ask(database, query, [path, "\x01"], path)]
    else:
        try:
            with _open(path) as file:
                lines = list(islice(file, 100))  # a name may go over lines
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"source {path!r} is not a readable table ({error}); check the file") from error
    if not lines or not lines[0].strip():
        raise ValueError(f"source {path!r} is empty; it needs a header line")
    tables = []
    for delimiter in "\t" if re.search(r"\.tsv(\.gz)?(\?|$)", path.lower()) else ",;\t|":
        quoted = delimiter != "\t" or '"' in lines[0]
        header = next(_fields(lines, delimiter, quoted))
        tables.append(_Table(path, header, delimiter, quoted, remote))
        if tables[-1].position(column) is not None:
            return tables[-1]
    return max(tables, key=lambda table: len(table.header))


def _position(table: _Table, label: str | None) -> int:
    header, wanted = table.header, "count" if label is None else label
    if (at := table.position(wanted)) is not None:
        return at
    has = _checks.shorten(header, 20)
    if len(header) > 20:
        has = f"{', '.join(map(repr, header[:10]))}, ... {', '.join(map(repr, header[-10:]))}"
    near = difflib.get_close_matches(wanted, header, n=1)
    hint = f"; did you mean {near[0]!r}?" if near and label is not None else ""
    if any(_NUMBER.fullmatch(name) for name in header):
        hint += "; its first line looks like a row, and a table needs a header line"
    raise ValueError(
        f"label {wanted!r} is no column of {table.path!r}; it has {has}{hint}"
        + ("; name the label column" if label is None else "")
    )


def _read(
    database: DuckDBPyConnection, table: _Table, columns: list[int], select: str, keep: str = ""
) -> list[Any]:
    """Ask for columns of a table, kept under a name if one is given; rows may go on with empty fields."""
    width, pad, line = len(table.header), False, ""
    while True:
        source, given = table.query(columns, width, pad)
        try:
            if keep:
                _ask(database, f"CREATE TABLE {keep} AS SELECT * FROM {source}", given, table.path)
                source, given = keep, []
            found = _group(database, select, source, given, table.path)
            break
        except _Unreadable as error:
            ragged = _RAGGED.search(str(error.__cause__))
            # wider once, padded once: what is refused then stays refused
            if ragged is None or (pad and int(ragged[3]) <= width):
                raise
            line = line or ragged[1]
            width, pad = max(width, int(ragged[3])), True
    if any(row[-1] for row in found):
        raise ValueError(
            f"line {line} of {table.path!r} has more fields than its header, which has {len(table.header)}; "
            "quote the fields that hold the delimiter"
        )
    return found


def count_text(
    database: DuckDBPyConnection, paths: Iterable[str], source: str, label: str, *, remote: bool = False
) -> Counted:
    """Count a column of tables of text.

    Raises:
        ValueError: no such column, a missing label, rows that do not fit the header, an unreadable file.
    """
    counted: Counter[str] = Counter()
    for path in paths:
        table = _table(database, path, label, remote)
        at = _position(table, label)
        rows = _read(database, table, [at], "SELECT a, count(*), bool_or(long) FROM {} GROUP BY 1")
        for name, count, _ in rows:
            if name is None or not name.strip() or _MISSING.fullmatch(name.strip()):
                _refuse_missing(table, at, name, count, label)
            else:
                counted[name] += count
    if not counted:
        raise ValueError(f"source {source!r} has no rows below its header")
    return _classes(counted)


def _refuse_missing(table: _Table, at: int, name: str | None, count: int, label: str) -> None:
    """Refuse a missing label, by its line where the file is at hand; blank lines at the end are no rows."""
    if name is not None and name.strip():
        where = "" if table.remote else f", first in line {_line(table, at, name)}"
        raise ValueError(
            f"label {label!r} is missing ({name.strip()}) in {count} rows of {table.path!r}{where}; drop "
            "these rows or rename the class"
        )
    if table.remote:
        raise ValueError(f"label {label!r} is empty in {count} rows of {table.path!r}; fill them")
    _check_filled(table, [at])


def _line(table: _Table, at: int, value: str) -> int:
    return next((line for line, row in table.rows() if len(row) > at and row[at].strip() == value.strip()), 0)


def _check_filled(table: _Table, columns: list[int]) -> None:
    """Find the first row that lacks a value, and refuse it."""
    blank = 0
    for line, row in table.rows():
        if not row:
            blank = blank or line
            continue
        if blank and len(table.header) == 1:
            line, row = blank, [""]
        for at in columns:
            if at >= len(row):
                raise ValueError(
                    f"line {line} of {table.path!r} has {len(row)} fields, fewer than its header"
                )
            if not row[at].strip():
                raise ValueError(
                    f"line {line} of {table.path!r} has an empty field where a value is needed; fill it"
                )


def read_counts(database: DuckDBPyConnection, path: str) -> Counted:
    """Read counts that stand in a column ``count``, with the classes' names in the first other named one.

    Raises:
        ValueError: no such column, a count that is no number, a class that stands twice, an empty field.
    """
    table = _table(database, path, "count", False)
    at = _position(table, None)
    others = [i for i in range(len(table.header)) if i != at]
    # pandas writes its index into a first column without a name
    named = next((i for i in others if table.header[i].strip()), others[0] if others else at)
    counts: dict[str, float] = {}
    for name, text, _ in _read(database, table, [named, at], "SELECT a, b, long FROM {}"):
        if text is None or name is None or not text.strip() or not name.strip():
            _check_filled(table, [at, named])
            continue
        try:
            value = float(text)
        except ValueError:
            line = _line(table, at, text)
            raise ValueError(f"count {text!r} in line {line} of {path!r} is no number") from None
        name = name if others else str(len(counts))
        if name in counts:
            lines = [line for line, row in table.rows() if len(row) > named and row[named] == name]
            raise ValueError(f"class {name!r} stands twice in {path!r} (line {lines[-1]})")
        counts[name] = value
    if not counts:
        raise ValueError(f"source {path!r} has no rows below its header")
    return _numbers(list(counts)), list(counts.values())


def _numbers(names: list[str]) -> list[Any]:
    """Return names that are numbers as such, where every one is: 3 of "3", " 3" and "3.0"; "03" is a code."""
    if not all(map(_NUMBER.fullmatch, names)) or any(map(_CODE.match, names)):
        return names
    values = [float(name) if re.search(r"[.eE]", name) else int(name) for name in names]
    return [int(x) for x in values] if all(x == int(x) for x in values) else [float(x) for x in values]


def _classes(counted: Counter[str]) -> Counted:
    """Sort classes as numbers where all are numbers, else as text; what is one number is one class."""
    merged: Counter[Any] = Counter()
    for name, count in zip(_numbers(list(counted)), counted.values(), strict=True):
        merged[name] += count
    codes = all(isinstance(name, str) and _NUMBER.fullmatch(name) for name in merged)
    names = sorted(merged, key=lambda name: (float(name), name)) if codes else sorted(merged)
    return names, [merged[name] for name in names]


# ---- Parquet


def count_parquet(database: DuckDBPyConnection, paths: list[str], source: str, label: str | None) -> Counted:
    """Count one column of Parquet files, as ``class_counts`` counts the same values in memory.

    Raises:
        TypeError: labels that are missing, of several types, or no single values.
        ValueError: no such column, or an unreadable file.
    """
    query = "SELECT file_name, name, num_children, duckdb_type FROM parquet_schema(?)"
    types: dict[str, str] = {}  # of the label column, with the first file that has it so
    for path, rows in groupby(_ask(database, query, [paths], source), key=lambda row: row[0]):
        columns = list(_top_level(rows))
        has = _checks.shorten([name for name, _ in columns], 20)
        if label is None:
            raise ValueError(f"label is missing for {path!r}; name the label column, one of {has}")
        kind = dict(columns).get(label)
        if kind is None:
            raise ValueError(f"label {label!r} is no column of {path!r}; it has {has}")
        if sum(name.lower() == label.lower() for name, _ in columns) > 1:
            raise ValueError(f"columns of {path!r} differ from {label!r} in case alone; rename them")
        if kind == _NESTED:
            raise TypeError(
                f"label {label!r} of {path!r} holds lists or fields; one value a sample is needed"
            )
        types.setdefault(kind, path)
    if len({_family(kind) for kind in types}) > 1:
        found = ", ".join(f"{kind} in {path!r}" for kind, path in types.items())
        raise TypeError(f"labels mix the types {found}; convert them to one")
    column = '"' + str(label).replace('"', '""') + '"'
    table = f"(SELECT {column} AS a FROM read_parquet(?, union_by_name = true, hive_partitioning = false))"
    return in_order(
        _group(database, "SELECT a, count(*) FROM {} GROUP BY 1", table, [paths], source, str(label)),
        f"source {source!r}",
    )


def _top_level(rows: Iterable[tuple[str, str, int | None, str]]) -> Iterator[tuple[str, str]]:
    """Yield the columns and their types of a schema, which lists the fields inside a column below it."""
    inside = 0
    for place, (_, name, children, kind) in enumerate(rows):
        if place == 0:  # the root
            continue
        if inside:
            inside += (children or 0) - 1
            continue
        inside = children or 0
        yield name, _NESTED if inside else kind


def _family(kind: str) -> str:
    if kind.endswith(("INT", "INTEGER")):
        return "INTEGER"
    return "FLOAT" if kind == "DOUBLE" else kind


# ---- the database


class _Unreadable(ValueError):
    """DuckDB cannot read a file by our rules; its own error is the cause."""


def _group(
    database: DuckDBPyConnection,
    select: str,
    table: str,
    given: Sequence[object],
    source: str,
    label: str = "label",
) -> list[Any]:
    """Ask for classes; a column of something else is refused before it fills the memory."""
    with contextlib.suppress(MemoryError):
        return _ask(database, select.format(table), given, source)
    # either huge row groups, which DuckDB reads whole, or a column of something else than classes
    database.execute("RESET memory_limit")
    (about,) = _ask(database, f"SELECT approx_count_distinct(a) FROM {table}", given, source)[0]
    if about > _CLASSES:
        raise ValueError(
            f"label {label!r} of {source!r} has about {about:,} distinct values, too many to be classes; "
            "name the column of the class"
        )
    return _ask(database, select.format(table), given, source)


def _ask(database: DuckDBPyConnection, query: str, given: Sequence[object], source: str) -> list[Any]:
    import duckdb

    try:
        return list(database.execute(query, given).fetchall())
    except duckdb.OutOfMemoryException as error:
        raise MemoryError(f"source {source!r} needs more memory than there is") from error
    except duckdb.Error as error:
        why, line = str(error).strip().splitlines()[0], re.search(r"on Line: (\d+)", str(error))
        if "not utf-8" in str(error):
            where = f" (line {line[1]})" if line else ""
            raise ValueError(
                f"source {source!r} is not UTF-8 text{where}; convert it, as iconv -f latin1 -t utf-8 does"
            ) from error
        if "state machine" in why:
            why = "its lines end in more than one way, or something stands behind a closing quote"
        raise _Unreadable(f"source {source!r} is not readable ({why}); check the file") from error
