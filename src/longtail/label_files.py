"""Labels in files -> class names and counts: tables, image folders, annotations. Read as streams.

Tables of text are read by the standard library; Parquet files and object stores by DuckDB, an optional extra.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import gzip
import json
import math
import os
import re
import zlib
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import numpy as np

from longtail import _checks

Counted = tuple[list[Any], list[Any]]
# torchvision's
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp"))
SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))
_STORES = ("s3", "gs", "gcs", "r2", "hf", "http", "https")
_KINDS = "a .csv, .tsv or .parquet file, a .json file of annotations, or a folder of images"
_BLOCK = 1 << 20
_CLASSES = 1 << 22  # more distinct labels than any classifier has, and few enough to hold
_NESTED = "nested"


def read_counts(source: str, label: str | None) -> Counted:
    """Return the classes' names and counts that ``source`` holds; see ``longtail.class_counts``.

    Raises:
        TypeError: missing or mixed labels.
        ValueError: nothing there, another kind of file, an unreadable one, no such column.
        ModuleNotFoundError: DuckDB is needed and not installed.
    """
    store = re.match(r"(\w\w+)://", source)
    if store:
        _checks.choice("the scheme of a remote source", store[1].lower(), _STORES)
        return _count_remote(source, label)
    if os.path.isdir(source):
        if label is not None:
            raise TypeError(f"label={label!r} names a column of a file, but source {source!r} is a folder")
        folders = class_folders(source)
        return list(folders), _count_images(source, folders)
    found = [source] if os.path.isfile(source) else glob.glob(source, recursive=True)
    paths = sorted(filter(os.path.isfile, found))
    if not paths:
        if glob.has_magic(source):
            raise ValueError(f"source {source!r} matches no file; check the pattern")
        raise ValueError(f"source {source!r} is no file and no folder; check the path")
    kinds = {_kind(path) for path in paths}
    if len(kinds) > 1:
        raise ValueError(f"source {source!r} matches files of the kinds {', '.join(sorted(kinds))}; give one")
    kind = kinds.pop()
    if kind == "json":
        if len(paths) > 1:
            raise ValueError(f"source {source!r} matches {len(paths)} files of annotations; give one")
        return read_annotations(paths[0], label)
    if kind == "parquet":
        return _count_parquet(_connect(), [glob.escape(path) for path in paths], source, label)
    if label is None:
        if len(paths) > 1:
            raise ValueError(f"source {source!r} matches {len(paths)} files; name their label column")
        return _read_table(paths[0])
    counted: Counter[str] = Counter()
    for path in paths:
        counted += _count_column(path, label)
    if not counted:
        raise ValueError(f"source {source!r} has no rows below its header")
    return _sorted(zip(_integers(counted), counted.values(), strict=True))


def _kind(path: str) -> str:
    suffix = Path(path.lower().removesuffix(".gz")).suffix
    kind = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".pq": "parquet", ".json": "json"}.get(
        suffix
    )
    if kind is None or (kind in ("parquet", "json") and path.lower().endswith(".gz")):
        raise ValueError(f"source must be {_KINDS}, got {path!r}; read other formats into a list or Series")
    return kind


def _sorted(pairs: Iterable[tuple[Any, int]]) -> Counted:
    by_name = dict(sorted(pairs))
    return list(by_name), list(by_name.values())


# ---- tables of text


@contextlib.contextmanager
def _rows(path: str) -> Iterator[tuple[list[str], Any]]:
    """Give a table's header and the reader of its rows; say what is wrong with an unreadable one."""
    opened = gzip.open if path.lower().endswith(".gz") else open
    try:
        with opened(path, "rt", newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file, delimiter="\t" if _kind(path) == "tsv" else ",")
            header = next(rows, None)
            if not header:
                raise ValueError(f"source {path!r} is empty; it needs a header line")
            yield header, rows
    except UnicodeDecodeError as error:
        raise ValueError(f"source {path!r} is not UTF-8 text ({error.reason}); convert it") from error
    except (csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"source {path!r} is not a readable table ({error}); check the file") from error


def _count_column(path: str, label: str) -> Counter[str]:
    with _rows(path) as (header, rows):
        at = _position(path, header, label)
        try:
            # no step of it in Python, which makes it three times as fast
            counted = Counter(map(itemgetter(at), filter(None, rows)))
        except IndexError:
            counted = Counter()
        blank = len(header) == 1 and rows.line_num > counted.total() + 1
    if counted and all(map(str.strip, counted)) and not blank:
        return counted
    with _rows(path) as (_, rows):  # once more, for the line of what is wrong, if anything is
        for row in _filled(path, header, rows):
            _field(path, rows.line_num, row, at)
    return counted


def _read_table(path: str) -> Counted:
    """Read counts that stand in a column ``count``, with the classes' names in the first other one."""
    table: dict[str, float] = {}
    with _rows(path) as (header, rows):
        at = _position(path, header, None)
        for row in _filled(path, header, rows):
            text, line = _field(path, rows.line_num, row, at), rows.line_num
            try:
                value = float(text)
            except ValueError:
                raise ValueError(f"count {text!r} in line {line} of {path!r} is no number") from None
            name = str(len(table)) if len(header) == 1 else _field(path, line, row, 0 if at else 1)
            if name in table:
                raise ValueError(f"class {name!r} stands twice in {path!r} (line {line})")
            table[name] = value
    if not table:
        raise ValueError(f"source {path!r} has no rows below its header")
    return _integers(table), list(table.values())


def _position(path: str, header: list[str], label: str | None) -> int:
    column = "count" if label is None else label
    if column not in header:
        raise ValueError(
            f"label {column!r} is no column of {path!r}; it has {_checks.shorten(header, 20)}"
            + ("; name the label column" if label is None else "")
        )
    return header.index(column)


def _integers(names: Iterable[str]) -> list[Any]:
    """Return the names as integers where every one is written as an integer is; ``"01"`` is not."""
    names = list(names)
    try:
        numbers = [int(name) for name in names]
    except ValueError:
        return names
    return numbers if [str(x) for x in numbers] == names else names


def _filled(path: str, header: list[str], rows: Any) -> Iterator[list[str]]:
    """Yield the rows that are not blank; a blank one before them lacks its value where that is all it has."""
    blank = 0
    for row in rows:
        if row and blank and len(header) == 1:
            _field(path, blank, [""], 0)
        if row:
            yield row
        else:
            blank = blank or rows.line_num


def _field(path: str, line: int, row: list[str], at: int) -> str:
    if at >= len(row):
        raise ValueError(f"line {line} of {path!r} has {len(row)} fields, fewer than its header")
    if not row[at].strip():
        raise ValueError(f"line {line} of {path!r} has an empty field where a value is needed; fill it")
    return row[at]


# ---- Parquet files and object stores, through DuckDB


def _connect(*, remote: str = "") -> Any:
    """Open a database of our own in memory: no file, no cache, nothing fetched or installed unasked."""
    try:
        import duckdb
    except ModuleNotFoundError as error:
        if error.name != "duckdb":
            raise
        what = f"reading {remote}" if remote else "a Parquet file"
        raise ModuleNotFoundError(
            f"{what} needs duckdb; pip install 'longtail[counts]'", name="duckdb"
        ) from error
    database = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "enable_external_file_cache": False,  # would keep what is read once
            "python_enable_replacements": False,
            "temp_directory": "",
            "allow_persistent_secrets": bool(remote),  # the user's keys to object stores
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
                f"reading {remote} needs DuckDB's extension httpfs, which is not installed. Install it once, "
                "with a connection: python -c \"import duckdb; duckdb.execute('INSTALL httpfs')\""
            ) from error
    return database


def _count_remote(source: str, label: str | None) -> Counted:
    kind = _kind(source.partition("?")[0] if source.startswith("http") else source)
    if kind == "json":
        raise ValueError(f"source {source!r}: annotations are read from a local file; copy it here")
    if label is None:
        raise ValueError(f"label is missing for source {source!r}; name the label column")
    database = _connect(remote=source)
    if kind == "parquet":
        return _count_parquet(database, [source], source, label)
    return _count_remote_table(database, source, label, "\t" if kind == "tsv" else ",")


def _count_remote_table(database: Any, source: str, label: str, delimiter: str) -> Counted:
    """Count a column of text that the standard library cannot reach, by the same rules."""
    table = (
        "read_csv(?, header = true, all_varchar = true, delim = ?, quote = '\"', escape = '\"', "
        "comment = '', skip = 0, nullstr = '', union_by_name = true)"
    )
    given = [source, delimiter]
    columns = [row[0] for row in _ask(database, f"DESCRIBE SELECT * FROM {table}", given, source)]
    _position(source, columns, label)
    counted = dict(_group(database, label, table, given, source))
    missing = sum(n for name, n in counted.items() if name is None or not name.strip())
    if missing:
        raise ValueError(f"label {label!r} is empty in {missing} rows of {source!r}; fill them")
    if not counted:
        raise ValueError(f"source {source!r} has no rows below its header")
    return _sorted(zip(_integers(counted), counted.values(), strict=True))


def _count_parquet(database: Any, paths: list[str], source: str, label: str | None) -> Counted:
    """Count one column of Parquet files, as ``class_counts`` counts the same values in memory."""
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
    table = "read_parquet(?, union_by_name = true, hive_partitioning = false)"
    return _checked(_group(database, str(label), table, [paths], source), f"source {source!r}")


def _checked(counted: Iterable[tuple[Any, int]], source: str) -> Counted:
    """Refuse labels that are missing, as ``class_counts`` does of labels in memory, and sort the others."""
    known: Counter[Any] = Counter()
    missing = wild = 0
    for name, count in counted:
        if name is None:
            missing += count
        elif isinstance(name, float) and not math.isfinite(name):
            wild += count
        else:
            known[name] += count
    if missing:
        raise TypeError(f"labels are missing (null) for {missing} samples of {source}; drop or name them")
    if wild:
        raise TypeError(f"labels are NaN or infinite for {wild} samples of {source}; drop or name them")
    if not known:
        raise ValueError(f"{source} has no rows")
    return _sorted(known.items())


def _group(database: Any, label: str, table: str, given: list[Any], source: str) -> list[Any]:
    """Count the rows of each label."""
    column = '"' + label.replace('"', '""') + '"'
    query = f"SELECT {column}, count(*) FROM {table} GROUP BY 1"
    with contextlib.suppress(MemoryError):
        return _ask(database, query, given, source)
    # either huge row groups, which DuckDB reads whole, or a column of something else than classes
    database.execute("RESET memory_limit")
    (about,) = _ask(database, f"SELECT approx_count_distinct({column}) FROM {table}", given, source)[0]
    if about > _CLASSES:
        raise ValueError(
            f"label {label!r} of {source!r} has about {about:,} distinct values, too many to be classes; "
            "name the column of the class"
        )
    return _ask(database, query, given, source)


def _ask(database: Any, query: str, given: list[Any], source: str) -> list[Any]:
    import duckdb

    try:
        return list(database.execute(query, given).fetchall())
    except duckdb.OutOfMemoryException as error:
        raise MemoryError(f"source {source!r} needs more memory than there is") from error
    except duckdb.Error as error:
        why = str(error).strip().splitlines()[0]
        raise ValueError(f"source {source!r} is not readable ({why}); check the file") from error


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


# ---- Hugging Face data sets, which are Arrow files


def count_hugging_face(source: Any, label: str | None) -> Counted:
    """Count a column of a ``datasets.Dataset``, batch by batch in Arrow; nothing else of it is read.

    Raises:
        TypeError: a dict of splits, missing labels, several values a sample.
        ValueError: no such column, no rows, a label that its ``ClassLabel`` has no name for.
    """
    if hasattr(source, "keys"):
        splits = list(source)
        raise TypeError(
            f"source holds the splits {', '.join(splits)}; give one, such as source[{splits[0]!r}]"
        )
    features = source.features or {}  # a streamed one may not know them
    named = [column for column, feature in features.items() if hasattr(feature, "int2str")]
    if label is None and len(named) != 1:
        has = _checks.shorten(features, 20) or "unknown columns"
        raise ValueError(
            f"the data set has {len(named)} ClassLabel columns; name the label column; it has {has}"
        )
    column = named[0] if label is None else label
    if features and column not in features:
        raise ValueError(
            f"label {column!r} is no column of the data set; it has {_checks.shorten(features, 20)}"
        )
    feature = features.get(column)
    if feature is not None and getattr(feature, "pa_type", None) is None:
        raise TypeError(f"label {column!r} of the data set is a {feature}; one value a sample is needed")
    try:
        names, counts = _checked(_arrow_counts(source, column), "the data set")
    except KeyError as error:  # from a streamed one that did not know its columns
        raise ValueError(f"label {column!r} is no column of the data set") from error
    if column not in named:
        return names, counts
    known, classes = dict(zip(names, counts, strict=True)), features[column].names
    unknown = [name for name in names if not 0 <= name < len(classes)]
    if unknown:
        raise ValueError(
            f"label {column!r} must be in 0..{len(classes) - 1}, got {_checks.shorten(unknown)}; "
            "drop the samples without a class"
        )
    return list(classes), [known.get(i, 0) for i in range(len(classes))]


def _arrow_counts(source: Any, column: str) -> Iterator[tuple[Any, int]]:
    rows = getattr(source, "_indices", None)
    if rows is None:
        for table in source.select_columns([column]).with_format("arrow").iter(batch_size=1 << 16):
            for entry in table.column(column).value_counts().to_pylist():
                yield entry["values"], entry["counts"]
        return
    # selected or shuffled: the data set's own way to such rows takes ten microseconds for each
    encoded = source.data.column(column).dictionary_encode().unify_dictionaries()
    codes = np.concatenate([chunk.indices.fill_null(-1).to_numpy() for chunk in encoded.chunks])
    values = [*encoded.chunk(0).dictionary.to_pylist(), None]
    for chunk in rows.column(0).chunks:
        found, counts = np.unique(codes[chunk.to_numpy()], return_counts=True)
        for code, count in zip(found.tolist(), counts.tolist(), strict=True):
            yield values[code], count


# ---- folders of images


def class_folders(root: str | os.PathLike[str]) -> dict[str, Path]:
    """Return the class folders of an image folder by name, sorted as text; hidden ones are left out.

    Raises:
        ValueError: there is none, or the folders are those of splits.
    """
    seen = (entry for entry in Path(root).iterdir() if not entry.name.startswith((".", "__")))
    entries = sorted(seen, key=lambda entry: entry.name)
    folders = {entry.name: entry for entry in entries if entry.is_dir()}
    if not folders:
        tables = sorted({e.suffix for e in entries if e.suffix.lower() in (".parquet", ".csv", ".tsv")})
        hint = (
            f"for its tables give '{root}/*{tables[0]}'" if tables else "it needs a folder of images a class"
        )
        raise ValueError(f"source {str(root)!r} has no class folders; {hint}")
    if SPLITS.issuperset(map(str.lower, folders)):
        one = next((name for name in folders if name.lower().startswith("train")), next(iter(folders)))
        raise ValueError(
            f"source {str(root)!r} holds the splits {', '.join(folders)}; give one, such as '{root}/{one}'"
        )
    return folders


def image_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the image files below a class folder, at any depth, in a fixed order; links are followed."""
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not _circle(place, f))
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield Path(place, name)


def _circle(place: str, name: str) -> bool:
    """Whether a folder is a link to one that it lies in."""
    path = os.path.join(place, name)
    inside = os.path.join(os.path.realpath(place), "")
    return os.path.islink(path) and inside.startswith(os.path.join(os.path.realpath(path), ""))


def _count_images(root: str, folders: dict[str, Path]) -> list[int]:
    counts = [sum(1 for _ in image_files(folder)) for folder in folders.values()]
    if not any(counts):
        raise ValueError(f"source {root!r} has {len(folders)} folders and no image in them; check the folder")
    return counts


def _refuse(error: OSError) -> None:
    raise error  # os.walk's own choice is to go on without the folder


# ---- annotations


def read_annotations(path: str, label: str | None = None) -> Counted:
    """Count the annotations of each category of a COCO, LVIS or iNaturalist file, in the order of their ids.

    The file is decoded element by element, so that memory holds one annotation at a time. ``label`` is the
    field of the categories that names the classes, and categories that share it are one class; without it
    each category is one, and where two share a name the ids stand behind the names.

    Raises:
        ValueError: no such lists, an annotation without a known category, a file that is cut short.
    """
    seen: Counter[Hashable] = Counter()
    categories: dict[Hashable, dict[str, Any]] = {}
    keys: list[str] = []
    try:
        with open(path, encoding="utf-8-sig") as file:
            for key, element in _elements(file, keys):
                if key == "annotations":
                    seen[_member(path, key, element, "category_id")] += 1
                elif key == "categories":
                    categories[_member(path, key, element, "id")] = element
    except UnicodeDecodeError as error:
        raise ValueError(f"source {path!r} is not UTF-8 text ({error.reason}); convert it") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"source {path!r} is cut short or no JSON ({error.msg}); check the file") from error
    for wanted, found in (("annotations", seen), ("categories", categories)):
        if not found:
            raise ValueError(
                f"source {path!r} has no {wanted}; it has {_checks.shorten(keys, 20) or 'no object'}; "
                "give a file with annotations and categories as COCO and iNaturalist have them"
            )
    unknown = [number for number in seen if number not in categories]
    if unknown:
        raise ValueError(f"category_id {_checks.shorten(unknown)} in {path!r} is none of its categories")
    ordered = [
        (categories[number], seen[number])
        for number in sorted(categories, key=lambda i: (isinstance(i, str), i))
    ]
    names = [(_member(path, "categories", category, label or "name"), count) for category, count in ordered]
    if label is None and len({name for name, _ in names}) < len(names):
        # two species may have one name
        names = [(f"{category['name']} ({category['id']})", count) for category, count in ordered]
    merged: Counter[Any] = Counter()
    for name, count in names:
        merged[name] += count
    return list(merged), list(merged.values())


def _elements(file: IO[str], keys: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield the elements of each list in a JSON object, under its key; ``keys`` collects all keys."""
    stream = _Stream(file)
    if stream.ahead() != "{":
        return
    stream.mark("{")
    end = stream.mark("}") if stream.ahead() == "}" else ","
    while end == ",":
        keys.append(stream.value())
        stream.mark(":")
        if stream.ahead() == "[":
            stream.mark("[")
            stop = stream.mark("]") if stream.ahead() == "]" else ","
            while stop == ",":
                yield keys[-1], stream.value()
                stop = stream.mark(",]")
        else:
            stream.value()
        end = stream.mark(",}")


class _Stream:
    """JSON read from a file as far as it is asked for; memory holds one value and a block of text."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._text, self._at = file, "", 0
        self._scan = json.JSONDecoder().raw_decode
        self._blank, self._of_number = re.compile(r"[ \t\n\r]*"), re.compile(r"[-+.eE0-9]*")

    def _more(self) -> bool:
        # twice what is held, so that a long value is not scanned again for every block
        block = self._file.read(max(_BLOCK, len(self._text) - self._at))
        self._text, self._at = self._text[self._at :] + block, 0
        return bool(block)

    def ahead(self) -> str:
        """Return the next mark, or nothing at the end."""
        while True:
            found = self._blank.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def mark(self, expected: str) -> str:
        """Step over the next mark, one of the expected ones."""
        found = self.ahead()
        if not found or found not in expected:
            wanted = " or ".join(expected)
            raise json.JSONDecodeError(f"expected {wanted}, found {found or 'the end'}", self._text, self._at)
        self._at += 1
        return found

    def value(self) -> Any:
        """Decode the next value."""
        self.ahead()
        while True:
            try:
                found, end = self._scan(self._text, self._at)
            except json.JSONDecodeError:
                if not self._more():
                    raise
                continue
            if self._of_number.fullmatch(self._text, end) and self._more():  # a number may go on
                continue
            self._at = end
            return found


def _member(path: str, key: str, element: Any, name: str) -> Any:
    value = element.get(name) if isinstance(element, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"{key} of {path!r} must hold a {name!r} each, got {_checks.describe(element)}")
    return value
