"""Labels in files of other kinds: JSON lines, Arrow, NumPy, Excel, ARFF, and the boxes of YOLO and VOC.

Each kind is read by the library that is kept for it; all of them answer by the rules of `counted`.
"""

from __future__ import annotations

import contextlib
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks
from longtail.sources import tables
from longtail.sources.counted import Counted, Wanted, finish, needs, with_missing

_LABELS = ("y", "labels", "label", "targets", "target", "y_train", "train_labels")
_TAGS = "\x1f"


@dataclass(frozen=True)
class Sheet:
    """Columns by name, and how often each value of one stands in it."""

    columns: list[str]
    counts: Callable[[str], Iterable[tuple[Any, int]]]
    classes: Callable[[str], list[str] | None] = lambda _: None  # names in an order of the file's own


def count(path: str, kind: str, wanted: Wanted) -> Counted:
    """Count a column of a file, or columns of 0 and 1.

    Raises:
        ModuleNotFoundError: the library that reads this kind is not installed.
        TypeError: missing or mixed labels.
        ValueError: no such column, or an unreadable file.
    """
    sheet = _SHEETS[kind](path, wanted)
    if wanted.labels:
        found = tables.marked(wanted.labels, sheet.columns, path)
        marks = {name: _ones(name, sheet.counts(sheet.columns[at]), path) for name, at in found.items()}
        return Counted(list(marks), [n for n, _ in marks.values()], max(n for _, n in marks.values()))
    label = wanted.label
    if label is None:
        if len(sheet.columns) != 1:
            has = _checks.shorten(sheet.columns, 20)
            raise ValueError(f"label= is missing for {path!r}; name the label column, one of {has}")
        label = sheet.columns[0]
    if label not in sheet.columns:
        _checks.column("label", label, sheet.columns, repr(path))
    counted = list(sheet.counts(label))
    if wanted.separator is None and any(isinstance(value, list) for value, _ in counted):
        joined = [(_TAGS.join(map(str, v)) if isinstance(v, list) else v, n) for v, n in counted]
        return finish(joined, f"source {path!r}", Wanted(label, separator=_TAGS))
    names = sheet.classes(label)
    if names is None:
        return finish(counted, f"source {path!r}", wanted)
    known: Counter[Any] = Counter(dict(counted))
    missing = sum(n for value, n in known.items() if _arrays.is_missing(value))
    if missing and not wanted.missing_as_class:
        raise TypeError(
            f"labels are missing (?) for {missing} samples of source {path!r}; drop or name them, or count "
            "them by missing_as_class=True"
        )
    return with_missing(Counted(names, [known[name] for name in names]), missing)


def _ones(name: str, counted: Iterable[tuple[Any, int]], path: str) -> tuple[int, int]:
    found: Counter[Any] = Counter()
    for value, n in counted:
        found[value] += n
    told = {value: str(value).strip().lower() for value in found}
    odd = [value for value, text in told.items() if text not in ("0", "1", "0.0", "1.0", "true", "false")]
    if odd:
        raise ValueError(
            f"labels: column {name!r} of {path!r} holds {odd[0]!r}, and 0 and 1 alone are counted; write 0 "
            "or 1, or leave this column out"
        )
    ones = sum(n for value, n in found.items() if told[value] in ("1", "1.0", "true"))
    return ones, sum(found.values())


# ---- one kind each


def _json(path: str, _: Wanted) -> Sheet:
    """Objects, one a line or in one list; DuckDB counts them."""
    database = tables.connect("a file of JSON lines")
    with tables.open_text(path) as file:
        lines = [line for line in tables.first_lines(file, path) if line.strip()]
    form = "array" if lines and lines[0].lstrip().startswith("[") else "newline_delimited"
    columns: dict[str, None] = {}
    if form == "array":
        query = "SELECT DISTINCT unnest(json_keys(json)) FROM read_json_objects(?, format = 'array')"
        columns |= dict.fromkeys(key for (key,) in tables.ask(database, query, [path], path))
    else:
        for number, line in enumerate(lines, start=1):
            try:
                columns |= dict.fromkeys(_checks.parse_json(line, "it"))
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"line {number} of {path!r} is no JSON object ({error}); a line must hold one each"
                ) from error

    def counts(column: str) -> Iterator[tuple[Any, int]]:
        name = column.replace("'", "''")
        query = (
            f"SELECT x, count(*) FROM (SELECT {tables.quote(column)} AS x FROM read_json(?, "
            f"format = '{form}', columns = {{'{name}': 'JSON'}})) GROUP BY 1"
        )
        for text, number in tables.ask(database, query, [path], path):
            yield None if text is None else _checks.parse_json(text, f"column {column!r} of {path!r}"), number

    return Sheet(list(columns), counts)


def _arrow(path: str, _: Wanted) -> Sheet:
    arrow = needs("pyarrow", "an Arrow file needs", "images")
    with open(path, "rb") as file:
        stream = file.read(6) != b"ARROW1"

    def batches() -> Iterator[Any]:
        if stream:  # which is read once
            yield from arrow.ipc.open_stream(path)
            return
        opened = arrow.ipc.open_file(arrow.memory_map(path))
        yield from (opened.get_batch(i) for i in range(opened.num_record_batches))

    try:
        opened = arrow.ipc.open_stream(path) if stream else arrow.ipc.open_file(arrow.memory_map(path))
        names = list(opened.schema.names)
    except (arrow.ArrowInvalid, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        why = str(error).splitlines()[0]
        raise ValueError(f"source {path!r} is no Arrow file ({why}); check it") from error

    def counts(column: str) -> Iterator[tuple[Any, int]]:
        for batch in batches():
            values = batch.column(column)
            if isinstance(values, arrow.DictionaryArray):
                values = values.dictionary_decode()
            for entry in values.value_counts().to_pylist():
                yield entry["values"], entry["counts"]

    return Sheet(names, counts)


def _excel(path: str, wanted: Wanted) -> Sheet:
    excel = needs("openpyxl", "an Excel file needs", "counts")
    try:
        book = excel.load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # of zip, of XML, of its own
        raise ValueError(f"source {path!r} is no .xlsx file ({error}); save it as .xlsx or .csv") from error
    rows = [row for row in book.worksheets[0].iter_rows(values_only=True) if any(x is not None for x in row)]
    book.close()
    if not rows:
        raise ValueError(f"source {path!r} is empty; it needs a header line")
    names = [str(i + 1) if not wanted.header else str(cell or "") for i, cell in enumerate(rows[0])]
    body = rows[1:] if wanted.header else rows
    return Sheet(names, lambda column: Counter(row[names.index(column)] for row in body).items())


def _arff(path: str, _: Wanted) -> Sheet:
    arff = needs("scipy.io.arff", "an ARFF file needs", "report")
    try:
        data, about = arff.loadarff(path)
    except (ValueError, NotImplementedError, StopIteration, UnicodeDecodeError, arff.ArffError) as error:
        raise ValueError(f"source {path!r} is not readable ({error}); save it as .csv") from error

    def counts(column: str) -> Iterator[tuple[Any, int]]:
        values, numbers = np.unique(data[column], return_counts=True)
        for value, number in zip(values.tolist(), numbers.tolist(), strict=True):
            yield value.decode() if isinstance(value, bytes) else value, number

    def classes(column: str) -> list[str] | None:
        kind, values = about[column]
        return list(values) if kind == "nominal" else None

    return Sheet(about.names(), counts, classes)


_SHEETS: dict[str, Callable[[str, Wanted], Sheet]] = {
    "jsonl": _json,
    "arrow": _arrow,
    "xlsx": _excel,
    "arff": _arff,
}


def array(path: str, label: str | None) -> tuple[npt.NDArray[Any], list[str] | None]:
    """Read the labels of an .npy or .npz file, and the names of their classes where it holds some.

    Raises:
        ValueError: another kind of file, no such array, or several that may be meant.
    """
    try:
        try:
            _arrays.check_headers(path)
            loaded = np.load(path, allow_pickle=False)
        except ValueError as error:
            raise ValueError(
                f"source {path!r} holds no plain array ({str(error).splitlines()[0]}); save it by "
                "numpy.save(path, array) as numbers or text"
            ) from error
        if isinstance(loaded, np.ndarray):
            if label is not None:
                raise ValueError(f"label={label!r} names an array of an .npz file; leave it out")
            return loaded, None
        with loaded, _plain(path):
            key = label or next((name for name in _LABELS if name in loaded), None)
            flat = [
                name for name in loaded.files if loaded[name].ndim == 1 and loaded[name].dtype.kind in "iubU"
            ]
            key = key or (flat[0] if len(flat) == 1 else None)
            if key is None or key not in loaded:
                has = _checks.shorten(loaded.files, 20)
                raise ValueError(f"label {key!r} is no array of {path!r}; name the labels' one, of {has}")
            names = next((loaded[n].tolist() for n in ("class_names", "classes") if n in loaded), None)
            return loaded[key], names
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"source {path!r} is not readable ({error}); check the file") from error


@contextlib.contextmanager
def _plain(path: str) -> Iterator[None]:
    """Say of arrays of Python objects what to do; reading them would run what the file holds."""
    try:
        yield
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise ValueError(
            f"source {path!r} holds an array of Python objects, which is not read; save numbers or text: "
            "numpy.savez(path, X=X, y=y.astype(str))"
        ) from error


# ---- boxes: objects are counted, not pictures


def is_yolo(path: str) -> str | None:
    """Return the .yaml file of a folder of YOLO's boxes."""
    names = ("data.yaml", "data.yml", "dataset.yaml")
    return next(
        (os.path.join(path, name) for name in names if os.path.isfile(os.path.join(path, name))), None
    )


def count_yolo(path: str) -> Counted:
    """Count the boxes of each class in the training part that a data.yaml names.

    Raises:
        ModuleNotFoundError: PyYAML is not installed.
        ValueError: no names or no training part, or a broken line.
    """
    yaml = needs("yaml", "a data.yaml needs", "images")
    try:
        about = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        raise ValueError(f"source {path!r} is no YAML ({why}); check the file") from error
    names = about.get("names") if isinstance(about, dict) else None
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names)]
    if not isinstance(names, list) or not about.get("train"):
        raise ValueError(f"source {path!r} has no names and train; give YOLO's data.yaml")
    start = Path(path).parent
    given = about["train"] if isinstance(about["train"], list) else [about["train"]]
    counts = [0] * len(names)
    files: list[Path] = []
    for part in map(str, given):
        bases = (start / str(about.get("path", "")) / part, start / re.sub(r"^(\.\./)+", "", part))
        folders = [Path(re.sub(r"images(?!.*images)", "labels", os.fspath(base))) for base in bases]
        folder = next((f for f in folders if f.is_dir()), None)
        if folder is None:
            raise ValueError(
                f"source {path!r} names {part}, but {str(folders[-1])!r} is not there; check train"
            )
        files += sorted(folder.rglob("*.txt"))
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            first = line.split()[0]
            if not first.isdecimal() or int(first) >= len(names):
                raise ValueError(
                    f"line {number} of {str(file)!r} begins with {first!r}, no number of a name"
                    "; a line is the number of a class and its box, such as 0 0.5 0.5 0.2 0.2"
                )
            counts[int(first)] += 1
    if not any(counts):
        raise ValueError(f"source {path!r} has no boxes to train on; check train")
    return Counted(list(map(str, names)), counts)


def voc_files(path: str) -> list[Path]:
    """Return the files of annotations in a folder of VOC's kind."""
    place = Path(path) if Path(path).name == "Annotations" else Path(path, "Annotations")
    return sorted(place.glob("*.xml")) if place.is_dir() else []


def count_voc(files: list[Path]) -> Counted:
    """Count the objects of each class in VOC's files, one a picture.

    Raises:
        ValueError: a broken file, or no objects.
    """
    counts: Counter[str] = Counter()
    for file in files:
        try:
            root = ElementTree.parse(file).getroot()
        except ElementTree.ParseError as error:
            raise ValueError(f"{str(file)!r} is no XML ({error}); check the file") from error
        counts.update((found.findtext("name") or "").strip() for found in root.iter("object"))
    return finish(list(counts.items()), f"the files in {str(files[0].parent)!r}", Wanted())
