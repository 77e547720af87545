"""Labels and pictures as they lie on disk: what is there, what it is called, how often each class stands.

One file a kind: `folders` (the one walker), `lists`, `coco`, `tables` (DuckDB), `hub` (Hugging Face).
All of them know `counted` alone; the file below tells the kinds apart.
"""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from typing import Any

from longtail import _checks
from longtail.sources import coco, folders, formats, hub, lists, tables
from longtail.sources.counted import Counted, Wanted

_STORES = ("s3", "gs", "gcs", "r2", "hf", "http", "https")
_KINDS = (
    "a .csv, .tsv, .parquet, .jsonl, .arrow, .npy, .npz, .xlsx or .arff file, a .json file of annotations, "
    "a .txt list, or a folder of images"
)
_SUFFIXES = {
    **dict.fromkeys((".csv", ".data"), "csv"),
    **dict.fromkeys((".tsv", ".tab"), "tsv"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    ".json": "json",
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys((".arrow", ".feather", ".ipc"), "arrow"),
    **dict.fromkeys((".xlsx", ".xlsm"), "xlsx"),
    ".arff": "arff",
    **dict.fromkeys((".yaml", ".yml"), "yaml"),
    ".xml": "xml",
    ".txt": "list",
}
TABLES = tuple(ending for ending, kind in _SUFFIXES.items() if kind != "json")
_SINGLE = frozenset(("jsonl", "arrow", "xlsx", "arff", "list", "yaml"))
_PACKED = (".gz", ".zst", ".zip", ".bz2", ".xz")


def read_counts(source: str, wanted: Wanted) -> Counted:
    """Return the classes' names and counts that ``source`` holds; see ``longtail.class_counts``.

    Raises:
        TypeError: missing or mixed labels.
        ValueError: nothing there, another kind of file, an unreadable one, no such column.
        ModuleNotFoundError: the library that reads this kind is not installed.
    """
    label = wanted.label
    if wanted.labels and (label is not None or wanted.separator is not None):
        other = "label" if label is not None else "separator"
        raise ValueError(f"labels={','.join(wanted.labels)!r} and {other}= are given; leave one of them out")
    if label is None and not wanted.labels and (wanted.separator is not None or not wanted.header):
        what = "separator=" if wanted.header else "header=False"
        raise ValueError(f"{what} needs the label column of {source!r}; give it, such as label='2'")
    store = re.match(r"(\w\w+)://", source)
    if store:
        _checks.choice("the scheme of a remote source", store[1].lower(), _STORES)
        return _count_remote(source, wanted)
    if os.path.isdir(source):
        if hub.is_saved(source):
            return hub.count(hub.load_saved(source), wanted, source)
        if (yaml := formats.is_yolo(source)) and label is None:
            return formats.count_yolo(yaml)
        if label is None and (files := formats.voc_files(source)):
            return formats.count_voc(files)
        if label is not None:
            raise TypeError(
                f"label={label!r} names a column of a file, but source {source!r} is a folder"
                "; leave it out: the names of its folders are the labels"
            )
        return folders.count(source)
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
    if kind == "list" and label is not None:
        kind = "csv"  # a table of text by another name
    if kind == "xml":
        return formats.count_voc([Path(path) for path in paths])
    if kind in _SINGLE and len(paths) > 1:
        raise ValueError(f"source {source!r} matches {len(paths)} files of the kind {kind}; give one")
    if kind == "list":
        return lists.count(Path(paths[0]))
    if kind == "yaml":
        return formats.count_yolo(paths[0])
    if kind in _SINGLE or (kind == "json" and (label is not None or wanted.labels) and _is_rows(paths[0])):
        return formats.count(paths[0], "jsonl" if kind == "json" else kind, wanted)
    if kind == "json":
        if len(paths) > 1:
            raise ValueError(f"source {source!r} matches {len(paths)} files of annotations; give one")
        return coco.count(paths[0], label)
    if kind == "parquet":
        database = tables.connect("a Parquet file")
        return tables.count_parquet(database, [glob.escape(path) for path in paths], source, wanted)
    database = tables.connect("a table")
    if label is None and not wanted.labels:
        if len(paths) > 1:
            raise ValueError(f"source {source!r} matches {len(paths)} files; name their label column")
        return tables.read_counts(database, paths[0])
    return tables.count_text(database, paths, source, wanted)


def read_rows(path: str, wanted: Wanted) -> tuple[dict[str, list[Any]], Counted]:
    """Return all columns of one table, that of the label as the classes are named, and the classes.

    Raises:
        TypeError: missing or mixed labels.
        ValueError: no such file, another kind of file, an unreadable one, no such column.
        ModuleNotFoundError: DuckDB is not installed.
    """
    if not os.path.isfile(path):
        raise ValueError(f"source {path!r} is no file; check the path")
    kind = _kind(path)
    if kind == "json":
        raise ValueError(f"source {path!r} holds annotations, which have no rows; give a table")
    database = tables.connect("a table")
    return (tables.read_parquet if kind == "parquet" else tables.read_text)(database, path, wanted)


def _is_rows(path: str) -> bool:
    """Whether a .json file holds a list of rows, and no annotations."""
    with open(path, "rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"[")


def _kind(path: str) -> str:
    plain = path.lower()
    plain = plain[: -len(Path(plain).suffix)] if plain.endswith(_PACKED) else plain
    kind = _SUFFIXES.get(Path(plain).suffix)
    if kind is None and path.lower().endswith(".zip"):  # its table may have any name
        kind = "csv"
    if kind is None or (kind in ("parquet", "json") and path.lower().endswith(_PACKED)):
        raise ValueError(f"source must be {_KINDS}, got {path!r}; read other formats into a list or Series")
    return kind


def _count_remote(source: str, wanted: Wanted) -> Counted:
    kind = _kind(source.partition("?")[0] if source.startswith("http") else source)
    if kind not in ("csv", "tsv", "parquet"):
        raise ValueError(f"source {source!r}: annotations are read from a local file; copy it here")
    if wanted.label is None and not wanted.labels:
        raise ValueError(f"label= is missing for source {source!r}; name the label column")
    database = tables.connect(f"reading {source}", remote=True)
    if kind == "parquet":
        return tables.count_parquet(database, [source], source, wanted)
    paths = [source] if source.startswith("http") else tables.matches(database, source)
    return tables.count_text(database, paths, source, wanted, remote=True)
