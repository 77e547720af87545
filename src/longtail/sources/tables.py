"""A column of a table -> its classes and how often each stands: .csv, .tsv and Parquet, near and far.

One engine, DuckDB, reads and counts. It is told everything that it would guess, and what it cannot read by
these rules is refused: no row is skipped.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import csv
import fnmatch
import glob
import gzip
import lzma
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, cast

from longtail import _arrays, _checks
from longtail.sources.counted import (
    MISSING,
    Counted,
    Wanted,
    finish,
    needs,
    notice_alike,
    notice_alone,
    notice_joined,
    split,
    with_missing,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_CLASSES = 1 << 22  # more distinct labels than any classifier has, and few enough to hold
_NESTED = "nested"
_CODE = re.compile(r"\s*[-+]?0[0-9]")
_THOUSANDS = re.compile(r"\s*[-+]?[1-9][0-9]{0,2},[0-9]{3}\s*", re.ASCII)
_COMMA = re.compile(r"\s*[-+]?[0-9]+(,[0-9]+)?\s*", re.ASCII)
TRAIN = ("train", "training")  # what a column calls the rows for training
# how a column of 0 and 1 is called that says what is for training or testing, and how else 0 and 1 are said
PARTS = re.compile(
    r"(is|in)_?(train|test|val|valid|validation)(ing)?(_?(set|image|img|sample))?"
    r"|(train|test|valid)(ing)?_?set|split"
)
YES = (("0", "1"), ("no", "yes"), ("false", "true"), ("n", "y"), ("f", "t"))
_SEPARATOR = re.compile(r'\ufeff?"?sep=(.)"?\s*', re.IGNORECASE)  # of spreadsheets, for themselves
_PICTURE = re.compile(r".*\.(jpe?g|png|gif|bmp|tiff?|webp)\s*", re.IGNORECASE)
_BOMB, _BOMB_FROM = 200, 1 << 30  # times its packed size, from that many bytes on: text packs to a twentieth
_LINE = 1 << 27  # letters: longer than any line of a table
LARGER_DISK = "set TMPDIR to a folder on a larger disk"
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
    found = ask(database, "SELECT file FROM glob(?) ORDER BY file", [pattern], pattern)
    if not found:
        raise ValueError(f"source {pattern!r} matches no file; check the pattern")
    return [path for (path,) in found]


# ---- tables of text


@dataclass(frozen=True)
class _Table:
    """A table of text and how it is written.

    Attributes:
        path: the file, for messages.
        file: the same as DuckDB can read it.
        header: the names in its first line, or without one the columns' numbers from 1 on.
        delimiter: what parts its fields.
        quoted: whether quotes hold a field together. Tab-separated text has none, unless its first line shows
            some: there a quote is a character like any other.
        far: whether DuckDB alone reads it.
        skip: lines before the header, or before the rows.
        comments: whether lines that begin with # are none of its rows, as those before the header.
        named: whether it has a header.
    """

    path: str
    file: str
    header: list[str]
    delimiter: str
    quoted: bool
    far: bool
    skip: int = 0
    comments: bool = False
    named: bool = True

    def position(self, column: str) -> int | None:
        """Return where a column stands; blanks around a name do not matter where it is the only one."""
        if not self.named and re.fullmatch(r"-[0-9]+", column):
            return max(len(self.header) + int(column), -1) if -int(column) <= len(self.header) else None
        if column in self.header:
            return self.header.index(column)
        wanted = _arrays.one_form(column.strip())
        alike = [i for i, name in enumerate(self.header) if _arrays.one_form(name.strip()) == wanted]
        return alike[0] if len(alike) == 1 else None

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield line and fields of each row, to say where something is; counting is DuckDB's part."""
        if self.far:
            return
        with open_text(self.file) as file:
            rows = _fields(islice(file, self.skip, None), self.delimiter, self.quoted)
            for place, row in enumerate(rows):
                if place or not self.named:
                    yield self.skip + rows.line_num, row

    def query(
        self, columns: list[int], width: int, pad: bool, blank: bool = False
    ) -> tuple[str, list[object]]:
        """Write the query for some columns of ``width``, and what is to be put into it."""
        names = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(width))
        extra = ", ".join(f"c{i}" for i in range(len(self.header), width))
        long = f"coalesce({extra}, NULL) IS NOT NULL" if extra else "false"
        wanted = [f"c{i} AS {name}" for i, name in zip(columns, _names(len(columns)), strict=True)]
        wanted.append(f"{long} AS long")
        if blank:
            wanted.append(f"coalesce({', '.join(f'c{i}' for i in range(width))}, NULL) IS NULL AS blank")
        table = (
            f"(SELECT {', '.join(wanted)} FROM read_csv(?, auto_detect = false, "
            f"header = {str(self.named).lower()}, skip = {self.skip}, columns = {{{names}}}, delim = ?, "
            f"quote = ?, escape = ?, comment = '', nullstr = '', null_padding = {str(pad).lower()})"
            + (" WHERE c0 IS NULL OR NOT starts_with(c0, '#'))" if self.comments else ")")
        )
        quote = '"' if self.quoted else ""
        return table, [self.file, self.delimiter, quote, quote]


def _names(number: int) -> list[str]:
    """Return names for columns of a query: a, b, and then x2, x3, ..."""
    return ["a", "b", *(f"x{i}" for i in range(2, number))][:number]


# ---- text in other encodings, and packed


def open_text(path: str) -> TextIO:
    """Open a local text file, also a packed one, as UTF-8."""
    opened = gzip.open if path.lower().endswith(".gz") else open
    return opened(path, "rt", newline="", encoding="utf-8-sig", errors="replace")


def first_lines(text: TextIO, path: str) -> list[str]:
    """Return at most 100 lines of a file, but no line that fills the memory.

    Raises:
        ValueError: a line longer than that of any table.
    """
    lines: list[str] = []
    while len(lines) < 100 and (line := text.readline(_LINE)):
        if len(line) == _LINE:
            raise ValueError(
                f"source {path!r} has a line of {_LINE:,} letters or more; it is no table, or packed text of "
                "another kind: check the file"
            )
        lines.append(line)
    return lines


def _encoding(start: bytes) -> str | None:
    """Return the encoding that a file's first bytes show; None for UTF-8 and its like."""
    for mark, name in ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32")):
        if start.startswith(mark):
            return name
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    even, odd = start[0::2].count(0), start[1::2].count(0)
    if max(even, odd) < len(start) / 8:  # text of Latin letters has a zero in nearly every second byte
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _unpack(path: str) -> BinaryIO:
    """Open a packed file that DuckDB does not read."""
    ending = Path(path.lower()).suffix
    if ending == ".zip":
        archive = zipfile.ZipFile(path)
        inside = [n for n in archive.namelist() if not n.endswith("/") and not n.startswith("__MACOSX")]
        if len(inside) != 1:
            raise ValueError(
                f"source {path!r} holds {len(inside)} files ({_checks.shorten(inside)}); unpack it, give one"
            )
        return cast(BinaryIO, archive.open(inside[0]))
    opened: Any = {".bz2": bz2.open, ".xz": lzma.open, ".gz": gzip.open}.get(ending, open)
    return cast(BinaryIO, opened(path, "rb"))


def _copy(file: Any, out: Any, path: str) -> None:
    """Copy a packed file's text, unless it is a bomb or would fill the disk."""
    folder, written = tempfile.gettempdir(), 0
    room, packed = shutil.disk_usage(folder).free // 2, os.path.getsize(path)
    while part := file.read(1 << 20):
        written += len(part)
        if written > max(_BOMB_FROM, _BOMB * packed):
            raise ValueError(
                f"source {path!r} unpacks to more than {_BOMB} times its size, as no table does; if it is "
                "one, unpack it and give that file"
            )
        if written > room:
            raise ValueError(
                f"source {path!r} unpacks to more than {room:,} bytes, half of what is free in {folder}; "
                "unpack it where there is room, and give that file"
            )
        out.write(part)


def _readable(path: str, stack: contextlib.ExitStack) -> str:
    """Return a file that DuckDB reads: the file itself, or its text in UTF-8 for as long as it is needed.

    Raises:
        ValueError: a broken archive, or bytes that are not of the encoding they seem to be.
    """
    packed = path.lower().endswith((".zip", ".bz2", ".xz"))
    try:
        with _unpack(path) as file:
            encoding = _encoding(file.read(4096))
        if encoding is None and not packed:
            return path
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        copy = os.path.join(folder, "text")
        with _unpack(path) as file, open(copy, "wb") as out:
            if encoding is None:
                _copy(file, out, path)
            else:
                with codecs.getreader(encoding)(file) as text:
                    _copy(text, codecs.getwriter("utf-8")(out), path)
    except (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"source {path!r} is not a readable table ({error}); check the file") from error
    except UnicodeError as error:
        raise ValueError(
            f"source {path!r} seems to be {encoding}, but is not ({error}); convert it"
        ) from error
    return copy


# ---- the header


def _fields(lines: Iterable[str], delimiter: str, quoted: bool) -> Any:
    return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)


def _table(
    database: DuckDBPyConnection, path: str, file: str, column: str, remote: bool, header: bool = True
) -> _Table:
    """Read a table's header; the delimiter is the first that makes ``column`` one of its names.

    Raises:
        ValueError: an empty or unreadable file.
    """
    far = remote or file.lower().endswith(".zst")
    if far:
        options = "auto_detect = false, header = false, delim = ?, quote = '', escape = '', comment = ''"
        query = f"SELECT x FROM read_csv(?, {options}, columns = {{'x': 'VARCHAR'}}) LIMIT 100"
        lines = [row[0] or "" for row in ask(database, query, [file, "\x01"], path)]
    else:
        try:
            with open_text(file) as text:
                lines = first_lines(text, path)  # a name may go over lines
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"source {path!r} is not a readable table ({error}); check the file") from error
    told = _SEPARATOR.fullmatch(lines[0]) if lines else None
    skips = [int(told is not None)]
    comments = next((i for i, line in enumerate(lines[skips[0] :]) if not line.startswith("#")), 0)
    if comments:
        skips.append(skips[0] + comments)
    if len(lines) <= skips[0] or not lines[skips[0]].strip():
        raise ValueError(f"source {path!r} is empty; it needs a header line")
    tabbed = re.search(r"\.(tsv|tab)(\.\w+)?(\?|$)", path.lower())
    tables = []
    for skip in skips if header else skips[-1:]:
        for delimiter in told[1] if told else "\t" if tabbed else ",;\t|":
            quoted = delimiter != "\t" or '"' in lines[skip]
            names = next(_fields(lines[skip:], delimiter, quoted))
            if not header:
                names = [str(i + 1) for i in range(len(names))]
            hashes = skip > skips[0]
            tables.append(_Table(path, file, names, delimiter, quoted, far, skip, hashes, header))
            if header and tables[-1].position(column) is not None:
                return tables[-1]
    return max(tables, key=lambda table: (table.comments, len(table.header)))


def _position(table: _Table, label: str | None) -> int:
    header, wanted = table.header, "count" if label is None else label
    if (at := table.position(wanted)) is not None:
        return at
    asked = f"label {wanted!r}" if label is None else f"label={wanted!r}"
    if not table.named:
        raise ValueError(
            f"{asked} is no column of {table.path!r}, whose columns without a header are 1 to "
            f"{len(header)}; give its number"
        )
    hint = ""
    if _like_a_row(table):
        hint = (
            "; its first line looks like a row, and a table needs a header line, or else header=False and "
            f"the number of the column, such as label={str(len(header))!r}"
        )
    elif label is None:
        hint = f"; name the label column{_hint_of_one_hot(table)}"
    there = _checks.columns_near(wanted, header)
    raise ValueError(f"{asked} is no column of {table.path!r}; it has {there}{hint}")


def _like_a_row(table: _Table) -> bool:
    """Whether a first line holds what names of columns do not: numbers, pictures, or what stands below it."""
    cells = [name.strip() for name in table.header]
    if any(_arrays.NUMBER.fullmatch(c) or _PICTURE.fullmatch(c) for c in cells):
        return True
    rows = [row for _, row in islice(table.rows(), 100)]
    return any(
        cell and any(len(row) > i and row[i].strip() == cell for row in rows) for i, cell in enumerate(cells)
    )


def _hint_of_one_hot(table: _Table) -> str:
    rows = [row for _, row in islice(table.rows(), 100)]
    columns = [
        name.strip()
        for i, name in enumerate(table.header)
        if rows and all(len(row) > i and row[i].strip() in ("0", "1", "0.0", "1.0") for row in rows)
    ]
    return f", or count columns of 0 and 1 by labels={','.join(columns)!r}" if len(columns) > 1 else ""


# ---- the rows


def _read(
    database: DuckDBPyConnection,
    table: _Table,
    columns: list[int],
    select: str,
    blank: bool = False,
    keep: str = "",
) -> list[Any]:
    """Ask for columns of a table, and keep them under a name; rows may go on with empty fields.

    Raises:
        ValueError: an unreadable file, or rows longer than the header.
    """
    width, pad, line = len(table.header), False, ""
    while True:
        source, given = table.query(columns, width, pad, blank)
        try:
            if keep:
                ask(database, f"CREATE TABLE {keep} AS SELECT * FROM {source}", given, table.path)
                source, given = keep, []
            found = _group(database, select, source, given, table.path)
            break
        except _Unreadable as error:
            if (
                table.delimiter == "\t" and not table.quoted
            ):  # does every row fit if quotes hold fields together?
                with contextlib.suppress(_Unreadable):
                    source, given = replace(table, quoted=True).query(
                        columns, len(table.header), False, blank
                    )
                    return _group(database, select, source, given, table.path)
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
    database: DuckDBPyConnection, paths: Iterable[str], source: str, wanted: Wanted, *, remote: bool = False
) -> Counted:
    """Count a column of tables of text, or columns of 0 and 1.

    Raises:
        ValueError: no such column, a missing label, rows that do not fit the header, an unreadable file.
    """
    counted: Counter[str] = Counter()
    marked: Counter[str] = Counter()
    samples = missing = 0
    comma = True
    for path in paths:
        with contextlib.ExitStack() as stack:
            file = path if remote else _readable(path, stack)
            if wanted.labels:
                table = _table(database, path, file, _plain(wanted.labels), remote, wanted.header)
                ones, rows = _count_marks(database, table, wanted.labels)
                samples += rows
                marked.update(ones)
                continue
            label = wanted.label or ""
            table = _table(database, path, file, label, remote, wanted.header)
            at = _position(table, label)
            bare = wanted.missing_as_class or wanted.separator is not None
            select = "SELECT a, count(*), {} bool_or(long) FROM {{}} GROUP BY 1{}"
            select = select.format("blank,", ", blank") if bare else select.format("", "")
            comma = comma and table.delimiter != ","
            found = _read(database, table, [at], select, bare)
            for name, count, *rest in found:
                if name is not None and not _arrays.is_missing(name):
                    counted[_unquoted(name, table, found)] += count
                elif bare:
                    missing += count * (not rest[0])
                else:
                    _refuse_missing(table, at, name, count, label)
            if table.named and table.header[at].strip() in map(str.strip, counted):
                raise ValueError(
                    f"{table.header[at]!r} is a column of {table.path!r} and a label in it. If it "
                    f"has no header, give header=False and label={str(at + 1)!r}; if its header stands in "
                    "it twice, remove that line; else rename the column"
                )
    if wanted.labels:
        return Counted(list(marked), list(marked.values()), samples)
    if wanted.separator is not None:
        return split(counted, missing, wanted.separator, f"source {source!r}")
    if not counted and not missing:
        raise ValueError(
            f"source {source!r} has no rows below its header; check that it is the file you mean"
        )
    notice_joined(counted, f"source {source!r}")
    classes = _classes(counted, comma)
    notice_alike(classes.names, f"source {source!r}")
    notice_alone(counted.values(), f"source {source!r}", f"is {wanted.label!r} the column of the class?")
    return with_missing(classes, missing)


def _unquoted(name: str, table: _Table, found: list[Any]) -> str:
    """Return a label of tab-separated text without its quotes, where every label has some."""
    if table.quoted or not all(re.fullmatch('".*"', row[0] or '""') for row in found):
        return name
    return name[1:-1].replace('""', '"')


def _refuse_missing(table: _Table, at: int, name: str | None, count: int, label: str) -> None:
    """Refuse a missing label, by its line where the file is at hand; blank lines at the end are no rows."""
    remedy = "count them by missing_as_class=True"
    if name is not None and name.strip():
        where = "" if table.far else f", first in line {_line(table, at, name)}"
        raise ValueError(
            f"label {label!r} is missing ({name.strip()}) in {count} rows of {table.path!r}{where}; drop "
            f"these rows or rename the class, or {remedy}"
        )
    if table.far:
        raise ValueError(
            f"label {label!r} is empty in {count} rows of {table.path!r}; fill them, or {remedy}"
        )
    _check_filled(table, [at], f", or {remedy}")


def _line(table: _Table, at: int, value: str) -> int:
    return next((line for line, row in table.rows() if len(row) > at and row[at].strip() == value.strip()), 0)


def _check_filled(table: _Table, columns: list[int], remedy: str = "") -> None:
    """Find the first row that lacks a value, and refuse it."""
    blank = 0
    for line, row in table.rows():
        if not row:
            blank = blank or line
            continue
        if table.comments and row[0].startswith("#"):
            continue
        if blank and len(table.header) == 1:
            line, row = blank, [""]
        for at in columns:
            if at >= len(row):
                raise ValueError(
                    f"line {line} of {table.path!r} has {len(row)} fields, fewer than its header"
                    "; complete the line or remove it"
                )
            if not row[at].strip():
                raise ValueError(
                    f"line {line} of {table.path!r} has an empty field where a value is needed; "
                    f"fill it{remedy}"
                )


def read_counts(database: DuckDBPyConnection, path: str) -> Counted:
    """Read counts that stand in a column ``count``, with the classes' names in the first other named one.

    Raises:
        ValueError: no such column, a count that is no number, a class that stands twice, an empty field.
    """
    with contextlib.ExitStack() as stack:
        table = _table(database, path, _readable(path, stack), "count", False)
        at = _position(table, None)
        others = [i for i in range(len(table.header)) if i != at]
        # pandas writes its index into a first column without a name
        named = next((i for i in others if table.header[i].strip()), others[0] if others else at)
        counts: dict[str, float] = {}
        texts = []
        for name, text, _ in _read(database, table, [named, at], "SELECT a, b, long FROM {}"):
            if text is None or name is None or not text.strip() or not name.strip():
                _check_filled(table, [at, named])
                continue
            if _THOUSANDS.fullmatch(text):
                whole = text.strip().replace(",", "")
                raise ValueError(
                    f"count {text!r} in line {_line(table, at, text)} of {path!r} has a comma that may be "
                    f"decimal or part thousands; write {whole} if it is that"
                )
            plain = text.replace(",", ".") if table.delimiter != "," and _COMMA.fullmatch(text) else text
            try:
                value = float(plain)
            except ValueError:
                line = _line(table, at, text)
                raise ValueError(
                    f"count {text!r} in line {line} of {path!r} is no number; give a whole number"
                ) from None
            name = name if others else str(len(counts))
            if name in counts:
                lines = [line for line, row in table.rows() if len(row) > named and row[named] == name]
                raise ValueError(
                    f"class {name!r} occurs twice in {path!r} (line {lines[-1]})"
                    "; add its counts up into one line"
                )
            counts[name] = value
            texts.append(text)
        _checks.refuse_thousands(texts, lambda text: f" in line {_line(table, at, text)} of {path!r}")
    if not counts:
        raise ValueError(f"source {path!r} has no rows below its header; check that it is the file you mean")
    return Counted(_numbers(list(counts), table.delimiter != ","), list(counts.values()))


def _numbers(names: list[str], comma: bool) -> list[Any]:
    """Return names as pandas reads a column of them: as numbers or truth values, where every one is.

    "3", " 3", "3.0" and a stray "03" are 3. Names of which half begin with 0, or some where all have one
    length, are codes, such as 007, and stay text.
    """
    # 1,000 may be a thousand, and beside 1 be another class: another name must prove the comma
    commas = [name for name in names if "," in name] if comma else []
    if not all(map(_THOUSANDS.fullmatch, commas)) and all(map(_COMMA.fullmatch, names)):
        names = [name.replace(",", ".") for name in names]
    if names and all(name.lower() in ("true", "false") for name in names):
        return [name.lower() == "true" for name in names]
    if not all(map(_arrays.NUMBER.fullmatch, names)):
        return names
    codes = sum(bool(_CODE.match(name)) for name in names)
    if codes and (2 * codes >= len(names) or len(set(map(len, names))) == 1):
        return names
    values = [float(name) if re.search(r"[.eE]", name) else int(name) for name in names]
    return [int(x) for x in values] if all(x == int(x) for x in values) else [float(x) for x in values]


def _classes(counted: Counter[str], comma: bool) -> Counted:
    """Sort classes; what is one number is one class."""
    merged: Counter[Any] = Counter()
    for name, count in zip(_numbers(list(counted), comma), counted.values(), strict=True):
        merged[_arrays.one_form(name)] += count
    names = _arrays.label_order(merged)
    return Counted(names, [merged[name] for name in names])


def read_text(
    database: DuckDBPyConnection, path: str, wanted: Wanted
) -> tuple[dict[str, list[Any]], Counted]:
    """Read all columns of a table of text, that of the label as `count_text` counts it, and its classes.

    Raises:
        ValueError: as `count_text`, or two columns of one name.
    """
    counted, label = count_text(database, [path], path, wanted), wanted.label or ""
    database.execute("RESET memory_limit")  # columns are wanted whole
    with contextlib.ExitStack() as stack:
        table = _table(database, path, _readable(path, stack), label, False, wanted.header)
        at, places = _position(table, label), list(range(len(table.header)))
        rows = _read(database, table, places, f"SELECT {', '.join(_names(len(places)))}, long FROM {{}}")
    # blank lines are no rows
    rows = [row for row in rows if any(cell is not None for cell in row[:-1])]
    names = [name.strip() or f"column {i + 1}" for i, name in enumerate(table.header)]
    names[at] = label
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"columns of {path!r} are named twice: {twice[0]!r}; rename one")
    columns: dict[str, list[Any]] = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    distinct = sorted({text for text in columns[label] if not _arrays.is_missing(text)})
    found = [(text,) for text in distinct]
    plain = _numbers([_unquoted(text, table, found) for text in distinct], table.delimiter != ",")
    named = dict(zip(distinct, map(_arrays.one_form, plain), strict=True))
    columns[label] = [named.get(text, MISSING) for text in columns[label]]
    return columns, counted


# ---- two columns of a table, row by row


def columns_of(path: str, column: str) -> list[str]:
    """Return the names of a table's columns; ``column`` is one of them, if it is known.

    Raises:
        ValueError: an unreadable file.
    """
    database = connect("a table")
    if path.lower().endswith(".parquet"):
        return [row[0] for row in ask(database, "DESCRIBE SELECT * FROM read_parquet(?)", [path], path)]
    with contextlib.ExitStack() as stack:
        return _table(database, path, _readable(path, stack), column, False).header


def read_pairs(path: str, first: str, label: str, *, blank: bool = False) -> tuple[list[str], list[Any]]:
    """Return a column of names and one of labels, as `count_text` and `count_parquet` read them.

    Args:
        path: the table.
        first: the column of names.
        label: the column of labels.
        blank: whether a label may be missing; it is empty text then.

    Raises:
        ValueError: no such column, a missing name or label, an unreadable file.
    """
    database = connect("a table")
    if path.lower().endswith(".parquet"):
        known = columns_of(path, label)
        for column in (first, label):
            _checks.column("label" if column == label else "image", column, known, repr(path))
        query = f"SELECT {quote(first)}, {quote(label)} FROM read_parquet(?)"
        rows = ask(database, query, [path], path)
    else:
        with contextlib.ExitStack() as stack:
            table = _table(database, path, _readable(path, stack), label, False)
            at = [_position(table, first), _position(table, label)]
            rows = [row[:2] for row in _read(database, table, at, "SELECT a, b, long FROM {}")]
            while rows and rows[-1] == (None, None):  # blank lines at the end
                rows.pop()
            names = list(dict.fromkeys(row[1] for row in rows if not _arrays.is_missing(row[1])))
            typed = dict(zip(names, _numbers(names, table.delimiter != ","), strict=True))
            rows = [(row[0], typed.get(row[1])) for row in rows]
    if blank:
        rows = [(row[0], "" if _arrays.is_missing(row[1]) else row[1]) for row in rows]
    bare = sum((not blank and _arrays.is_missing(row[1])) or row[0] is None for row in rows)
    if bare:
        raise ValueError(f"{bare} rows of {path!r} lack a name or a label ({label!r}); drop or fill them")
    if not rows:
        raise ValueError(f"source {path!r} has no rows below its header; check that it is the file you mean")
    return [str(row[0]) for row in rows], [_arrays.one_form(row[1]) for row in rows]


# ---- columns of 0 and 1


def _plain(labels: tuple[str, ...]) -> str:
    """Return a column to know the delimiter by."""
    return next((label for label in labels if "*" not in label), "")


def marked(wanted: tuple[str, ...], columns: Sequence[str], source: str) -> dict[str, int]:
    """Return names and places of the columns that are asked for, in the order asked for.

    Raises:
        ValueError: a name or a pattern that fits no column.
    """
    found: dict[str, int] = {}
    names = [name.strip() for name in columns]
    for label in wanted:
        fits = [i for i, name in enumerate(names) if name == label.strip()]
        if "*" in label and not fits:
            fits = [i for i, name in enumerate(names) if fnmatch.fnmatchcase(name, label.strip())]
        if not fits:
            there = _checks.columns_near(label, columns)
            raise ValueError(f"labels: {label!r} is no column of {source!r}; it has {there}")
        found |= {names[i]: i for i in fits}
    return found


def _mark_query(columns: Sequence[str]) -> str:
    """Write what counts the rows, and of each column the ones and an example of neither 0 nor 1."""
    parts = ["count(*)"]
    for name in columns:
        text = f"lower(trim(CAST({name} AS VARCHAR)))"
        value = f"CASE {text} WHEN 'true' THEN 1 WHEN 'false' THEN 0 ELSE try_cast({text} AS DOUBLE) END"
        parts.append(f"count(*) FILTER (({value}) = 1)")
        parts.append(
            f"first(coalesce(CAST({name} AS VARCHAR), '')) FILTER (coalesce({value}, 2) NOT IN (0, 1))"
        )
    return f"SELECT {', '.join(parts)}"


def _read_marks(row: Sequence[Any], found: Mapping[str, int], source: str) -> tuple[dict[str, int], int]:
    """Return the ones of each column and the number of rows.

    Raises:
        ValueError: no rows, or a value that is neither 0 nor 1.
    """
    if not row[0]:
        raise ValueError(
            f"source {source!r} has no rows below its header; check that it is the file you mean"
        )
    for place, name in enumerate(found):
        other = row[2 + 2 * place]
        if other is not None:
            raise ValueError(
                f"labels: column {name!r} of {source!r} holds {other!r}, and 0 and 1 alone are counted; "
                "write 0 or 1, or leave this column out"
            )
    return {name: row[1 + 2 * place] for place, name in enumerate(found)}, row[0]


def _count_marks(
    database: DuckDBPyConnection, table: _Table, labels: tuple[str, ...]
) -> tuple[dict[str, int], int]:
    found = marked(labels, table.header, table.path)
    select = _mark_query(_names(len(found))) + ", bool_or(long) FROM {}"
    if len(table.header) > 1:
        select += " WHERE NOT blank"
    return _read_marks(_read(database, table, list(found.values()), select, True)[0], found, table.path)


# ---- Parquet


def count_parquet(database: DuckDBPyConnection, paths: list[str], source: str, wanted: Wanted) -> Counted:
    """Count one column of Parquet files, as ``class_counts`` counts it in memory, or several of 0 and 1.

    Raises:
        TypeError: labels that are missing, of several types, or no single values.
        ValueError: no such column, or an unreadable file.
    """
    query = "SELECT file_name, name, num_children, duckdb_type FROM parquet_schema(?)"
    label = wanted.label
    types: dict[str, str] = {}  # of the label column, with the first file that has it so
    for path, rows in groupby(ask(database, query, [paths], source), key=lambda row: row[0]):
        columns = list(_top_level(rows))
        names = [name for name, _ in columns]
        if wanted.labels:
            types = dict.fromkeys(marked(wanted.labels, names, path), path)
            continue
        if label is None:
            raise ValueError(
                f"label= is missing for {path!r}; name the label column, one of {_checks.shorten(names, 20)}"
            )
        _checks.column("label", label, names, repr(path))
        kind = dict(columns)[label]
        if sum(name.lower() == label.lower() for name, _ in columns) > 1:
            raise ValueError(f"columns of {path!r} differ from {label!r} in case alone; rename them")
        if kind == _NESTED:
            raise TypeError(
                f"label {label!r} of {path!r} holds lists or fields; one value a sample is needed"
            )
        types.setdefault(kind, path)
    read = "read_parquet(?, union_by_name = true, hive_partitioning = false)"
    if wanted.labels:
        select = f"{_mark_query([quote(name) for name in types])} FROM {read}"
        ones, rows_read = _read_marks(
            ask(database, select, [paths], source)[0], dict.fromkeys(types, 0), source
        )
        return Counted(list(ones), list(ones.values()), rows_read)
    if len({_family(kind) for kind in types}) > 1:
        found = ", ".join(f"{kind} in {path!r}" for kind, path in types.items())
        raise TypeError(f"labels mix the types {found}; convert them to one")
    table = f"(SELECT {quote(str(label))} AS a FROM {read})"
    counted = _group(database, "SELECT a, count(*) FROM {} GROUP BY 1", table, [paths], source, str(label))
    return finish(counted, f"source {source!r}", wanted)


def read_parquet(
    database: DuckDBPyConnection, path: str, wanted: Wanted
) -> tuple[dict[str, list[Any]], Counted]:
    """Read all columns of a Parquet file, and the classes of one as `count_parquet` counts it.

    Raises:
        TypeError: as `count_parquet`.
        ValueError: as `count_parquet`.
    """
    given = [glob.escape(path)]
    counted, label = count_parquet(database, given, path, wanted), str(wanted.label)
    database.execute("RESET memory_limit")
    about = ask(database, "DESCRIBE SELECT * FROM read_parquet(?)", given, path)
    rows = ask(database, "SELECT * FROM read_parquet(?, hive_partitioning = false)", given, path)
    columns: dict[str, list[Any]] = {name: [row[i] for row in rows] for i, (name, *_) in enumerate(about)}
    labels = columns[label]
    columns[label] = [MISSING if _arrays.is_missing(x) else _arrays.one_form(x) for x in labels]
    return columns, counted


def quote(column: str) -> str:
    """Write a column's name for a query."""
    return '"' + column.replace('"', '""') + '"'


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
        return ask(database, select.format(table), given, source)
    # either huge row groups, which DuckDB reads whole, or a column of something else than classes
    database.execute("RESET memory_limit")
    (about,) = ask(database, f"SELECT approx_count_distinct(a) FROM {table}", given, source)[0]
    if about > _CLASSES:
        raise ValueError(
            f"label {label!r} of {source!r} has about {about:,} distinct values, too many to be classes; "
            "name the column of the class"
        )
    return ask(database, select.format(table), given, source)


def refuse_full_disk(source: str, error: Exception) -> None:
    """Raise what DuckDB calls want of memory as want of room on the disk, where it is that."""
    if "max_temp_directory_size" in str(error):
        raise OSError(
            f"source {source!r} needs more room than {tempfile.gettempdir()} has, where a part of it lies "
            f"while it is read; {LARGER_DISK}"
        ) from error


def ask(database: DuckDBPyConnection, query: str, given: Sequence[object], source: str) -> list[Any]:
    """Return the rows that a query gives.

    Raises:
        MemoryError: it needs more than there is.
        ValueError: DuckDB cannot read ``source``.
    """
    import duckdb

    try:
        return list(database.execute(query, given).fetchall())
    except duckdb.OutOfMemoryException as error:
        refuse_full_disk(source, error)
        raise MemoryError(
            f"source {source!r} needs more memory than there is"
            "; close other programs, or count it on a machine with more"
        ) from error
    except duckdb.Error as error:
        why, line = str(error).strip().splitlines()[0], re.search(r"on Line: (\d+)", str(error))
        if "not utf-8" in str(error):
            where = f" (line {line[1]})" if line else ""
            raise ValueError(
                f"source {source!r} is not UTF-8 text{where}; convert it, as iconv -f latin1 -t utf-8 does"
            ) from error
        if "state machine" in why:
            why = "its lines end in more than one way, or something follows a closing quote"
        raise _Unreadable(f"source {source!r} is not readable ({why}); check the file") from error
