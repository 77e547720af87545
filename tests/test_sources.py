"""Labels in files: Parquet, patterns, object stores, Hugging Face data, folders, annotations; every bad one.

What a file answers is what ``class_counts`` answers of the same labels in memory.
"""

import csv
import datetime
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import datasets as hugging_face
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail import _arrays, class_counts
from longtail.datasets import load_images
from longtail.sources import coco, read_counts, tables
from longtail.sources.counted import Wanted

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4).filter(
    lambda text: not _arrays.is_missing(text)
)
# normalised, as every name is; and what a column of several labels has, tests below
TEXT = TEXT.map(_arrays.one_form).filter(lambda text: not set("|;, ") & set(text))

KINDS = (
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.binary(max_size=3),
    TEXT,
)
LABELS = st.one_of(*(st.lists(kind, min_size=1, max_size=30) for kind in KINDS))


def parquet(path, labels, type=None, **more):
    pq.write_table(
        pa.table({"file": pa.array(range(len(labels))), "label": pa.array(labels, type), **more}), path
    )
    return path


# ---- the same answer as in memory


@settings(max_examples=25)
@given(LABELS)
def test_a_parquet_column_counts_as_the_same_labels_in_memory(labels):
    in_memory = class_counts(labels)
    with tempfile.TemporaryDirectory() as folder:
        counted = class_counts(parquet(Path(folder) / "x.parquet", labels), label="label")
        half = len(labels) // 2
        for part, piece in enumerate((labels[:half], labels[half:])):  # the first may have no rows
            parquet(Path(folder) / f"part {part}.parquet", piece, pa.array(labels).type)
        assert class_counts(f"{folder}/part *.parquet", label="label") == in_memory
    assert counted.names == in_memory.names
    assert [type(name) for name in counted] == [type(name) for name in in_memory]
    assert counted.counts.tolist() == in_memory.counts.tolist()


@given(LABELS)
def test_a_hugging_face_column_counts_as_the_same_labels_in_memory(labels):
    data = hugging_face.Dataset.from_dict({"label": labels})
    for same in (data, data.select(range(len(labels) - 1, -1, -1)), data.to_iterable_dataset()):
        assert class_counts(same, label="label") == class_counts(labels)


CELLS = st.text(st.sampled_from(list("ab01 ,\"'\t;|#\nÄ")), min_size=1, max_size=4).filter(str.strip)


def as_numbers(labels):
    """What is a number is one, as pandas reads it, but for codes such as 007; else text stays text."""
    if all(re.fullmatch(" *([1-9][0-9]*|0) *", label, re.ASCII) for label in labels):
        return [int(label) for label in labels]
    return labels


@pytest.mark.filterwarnings("ignore:labels of .* differ only in capitals or blanks")
@settings(max_examples=25)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=12), st.sampled_from([",", "\t", ";"]))
def test_a_text_table_counts_as_the_same_labels_in_memory_near_and_far(rows, delimiter):
    """Those in object stores are read by the same engine; here it reads a local one in that way."""
    quoting = csv.QUOTE_MINIMAL
    if delimiter == "\t":  # which has no quoting: a line is a row
        rows = [[cell.strip("\t\n").translate({9: 32, 10: 32}) for cell in row] for row in rows]
        rows, quoting = [row for row in rows if all(map(str.strip, row))] or [["a", "b"]], csv.QUOTE_NONE
    frame = pd.DataFrame(rows, columns=["the label", "Other"])
    wanted = class_counts(as_numbers(frame["the label"].tolist()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("x.tsv" if delimiter == "\t" else "x.csv")
        frame.to_csv(path, sep=delimiter, index=False, lineterminator="\n", quoting=quoting, quotechar='"')
        assert class_counts(path, label="the label") == wanted
        far = tables.count_text(tables.connect("it"), [str(path)], "x", Wanted("the label"), remote=True)
    assert dict(zip(far.names, far.counts, strict=True)) == wanted


FIELDS = st.sampled_from(
    ["a", "b", "", '"a"', '"a,b"', '"a""b"', '"a\nb"', "a'b", 'a"b', " a", '"a" ', "#", '"']
)


@settings(max_examples=60)
@given(
    st.lists(st.lists(FIELDS, min_size=1, max_size=3), min_size=1, max_size=5),
    st.sampled_from(["\n", "\r\n"]),
)
def test_any_text_is_read_as_pandas_reads_it_or_refused(rows, newline):
    """Never otherwise; blanks around quotes are left out, and what Python's reader refuses may be refused."""
    text = newline.join(["f,l", *(",".join(row) for row in rows)]) + newline
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        path.write_bytes(text.encode())
        try:
            counted = class_counts(path, label="l")
        except ValueError:
            return
        parsed = [row for row in csv.reader(text.splitlines(keepends=True)) if row][1:]
        assert all(not any(row[2:]) for row in parsed)
        labels = [row[1].strip(' "') for row in parsed]
        assert Counter(labels) == stripped(counted)
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=[0, 1], index_col=False)
        assert frame["l"].str.strip(' "').value_counts().to_dict() == stripped(counted)


def stripped(counted):
    merged = Counter()
    for name, n in counted.items():
        merged[name.strip(' "')] += n
    return merged


# ---- Parquet


def test_types_of_one_family_are_one_label_and_types_of_two_are_not(tmp_path):
    parquet(tmp_path / "a.parquet", [1, 2], pa.int8())
    parquet(tmp_path / "b.parquet", [1, -(2**40)], pa.int64())
    parquet(tmp_path / "c.parquet", [2**64 - 1], pa.uint64())
    assert class_counts(tmp_path / "*.parquet", label="label") == {-(2**40): 1, 1: 2, 2: 1, 2**64 - 1: 1}
    parquet(tmp_path / "d.parquet", ["1"])
    with pytest.raises(
        TypeError, match=r"labels mix the types .*BIGINT in '.*b\.parquet'.*VARCHAR in .*d\.parq"
    ):
        class_counts(tmp_path / "*.parquet", label="label")


def test_text_that_looks_like_numbers_stays_text_and_categories_are_text(tmp_path):
    counted = class_counts(parquet(tmp_path / "a.parquet", ["2", "10"]), label="label")
    assert counted.names == ("2", "10") == class_counts(["10", "2"]).names  # in the order of numbers
    codes = pa.array(["b", "a", "b"]).dictionary_encode()
    path = parquet(tmp_path / "b.parquet", [0, 1, 2], kind=codes)
    assert class_counts(str(path), label="kind") == {"a": 1, "b": 2}


def test_dates_and_bytes_are_labels_too(tmp_path):
    day = datetime.date(2020, 1, 1)
    assert class_counts(parquet(tmp_path / "a.parquet", [day, day]), label="label") == {day: 2}
    assert class_counts(parquet(tmp_path / "b.parquet", [b"x"]), label="label") == {b"x": 1}


def test_names_that_are_patterns_themselves(tmp_path):
    parquet(tmp_path / "a[1]*'\".parquet", ["a"])
    parquet(tmp_path / "a1.parquet", ["b"])
    assert class_counts(tmp_path / "a[1]*'\".parquet", label="label") == {"a": 1}
    assert class_counts(tmp_path / "a*.parquet", label="label") == {"a": 1, "b": 1}
    quoted = parquet(tmp_path / "q.parquet", [0], **{'a "b"': pa.array(["x"])})
    assert class_counts(quoted, label='a "b"') == {"x": 1}


@pytest.mark.parametrize(
    ("labels", "column", "error", "message"),
    [
        (
            ["a"],
            "species",
            ValueError,
            r"label='species' is no column of '.*x\.parquet'; it has 'file', 'label'",
        ),
        (["a"], "LABEL", ValueError, r"label='LABEL' is no column of .*; it has 'file', 'label'"),
        (
            ["a"],
            None,
            ValueError,
            r"label= is missing for '.*'; name the label column, one of 'file', 'label'",
        ),
        (
            ["a", None],
            "label",
            TypeError,
            r"labels are missing \(null\) for 1 samples of source '.*x\.parquet'",
        ),
        ([None], "label", TypeError, r"labels are missing \(null\) for 1 samples"),
        ([1.0, float("nan")], "label", TypeError, r"labels are NaN or infinite for 1 samples of source"),
        ([[1], [2]], "label", TypeError, r"label 'label' of '.*' holds lists or fields; one value a sample"),
        ([{"label": 1}], "label", TypeError, r"label 'label' of '.*' holds lists or fields; one value"),
        ([], "label", ValueError, r"source '.*x\.parquet' has no rows"),
    ],
)
def test_bad_columns(tmp_path, labels, column, error, message):
    with pytest.raises(error, match=message):
        class_counts(parquet(tmp_path / "x.parquet", labels), label=column)


def test_columns_that_differ_in_case_alone(tmp_path):
    path = parquet(tmp_path / "x.parquet", [1], Label=pa.array([2]))
    with pytest.raises(ValueError, match=r"columns of .* differ from 'label' in case alone; rename them"):
        class_counts(path, label="label")


def test_a_file_that_is_none_and_one_that_is_cut_short(tmp_path):
    whole = parquet(tmp_path / "whole.parquet", ["a"] * 100).read_bytes()
    for content in (b"", b"label\na\n" * 9, whole[:-20]):
        (tmp_path / "x.parquet").write_bytes(content)
        with pytest.raises(ValueError, match=r"source '.*x\.parquet' is not readable \(.*\); check the file"):
            class_counts(tmp_path / "x.parquet", label="label")


def test_row_groups_beyond_the_limit_are_read_and_a_column_of_names_is_refused(tmp_path, monkeypatch):
    """One distinct label a row would need memory without end; a large row group is read whole by DuckDB."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"label": [f"{i:064}" for i in range(200_000)]}), path)

    def count():
        database = tables.connect("it")
        database.execute("SET memory_limit = '16MB'")
        return tables.count_parquet(database, [str(path)], str(path), Wanted("label"))

    assert count()[1] == [1] * 200_000
    monkeypatch.setattr(tables, "_CLASSES", 100_000)
    with pytest.raises(
        ValueError,
        match=r"label 'label' of '.*' has about [\d,]+ distinct values, too many to be classes; name",
    ):
        count()


ALONE = """
import os, sys
import longtail
print(longtail.class_counts(sys.argv[1], label="label"))
import duckdb
query = "SELECT value FROM duckdb_settings() WHERE name = 'autoload_known_extensions'"
assert duckdb.execute(query).fetchall() == [("true",)], "the user's own connection is not ours"
assert os.listdir(os.environ["HOME"]) == [] == os.listdir(".")
"""


def test_nothing_is_left_behind(tmp_path):
    """No extension, cache or temporary folder in the home or the working directory."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    path = parquet(tmp_path / "x.parquet", ["a", "b", "a"])
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(path)],
        cwd=work,
        env=os.environ | {"HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "ClassCounts({'a': 2, 'b': 1})\n", done.stderr
    assert done.returncode == 0, done.stderr


def test_no_progress_bar_gets_into_the_output():
    """DuckDB prints one on standard output after two seconds, and so into the command line's JSON."""
    query = "SELECT current_setting('enable_progress_bar')"
    assert tables.connect("it").execute(query).fetchall() == [(False,)]


# ---- object stores


@pytest.mark.parametrize(
    "source", ["s3://bucket/x.parquet", "gs://bucket/*.csv", "https://host/x.parquet?key=1"]
)
def test_an_object_store_without_its_extension_is_one_clear_line(source, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # where an extension might be
    with pytest.raises(
        ValueError, match=r"reading .* needs DuckDB's extension httpfs, .*INSTALL httpfs"
    ) as caught:
        class_counts(source, label="label")
    assert source in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "label", "message"),
    [
        ("ftp://host/x.parquet", "label", r"scheme of a remote source must be one of 's3', .*, got 'ftp'"),
        ("s3://bucket/x.parquet", None, r"label= is missing for source 's3://.*'; name the label column"),
        (
            "s3://bucket/x.json",
            None,
            r"source 's3://.*': annotations are read from a local file; copy it here",
        ),
        ("s3://bucket/x.xls", "label", r"source must be a \.csv, .* got 's3://bucket/x.xls'"),
    ],
)
def test_bad_object_stores(source, label, message):
    with pytest.raises(ValueError, match=message):
        class_counts(source, label=label)


def remote_table(path, label="label"):
    return tables.count_text(tables.connect("it"), [str(path)], str(path), Wanted(label), remote=True)[:2]


def test_a_text_table_in_a_store_is_read_by_the_rules_of_a_local_one(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('file,label\na,"1"\n\nb,10\nc,1\n')
    assert remote_table(path) == ([1, 10], [2, 1]) == read_counts(str(path), Wanted("label"))[:2]
    path.write_text("file,label\na,01\nb,1\n")
    assert remote_table(path) == (["01", "1"], [1, 1]) == read_counts(str(path), Wanted("label"))[:2]
    for text, message in (
        ("file,label\na,\nb,x\n", "label 'label' is empty in 1 rows of .*; fill them"),
        ("file,label\na, \nb,x\n", "label 'label' is empty in 1 rows of .*; fill them"),
        ("file,Label\na,x\n", "label='label' is no column of .*; it has 'file', 'Label'"),
        ("file,label\n", "source .* has no rows below its header"),
        ("file,label\na,x\nb,x,y,z\n", "line 3 of .* has more fields than its header, which has 2; quote"),
        (
            "file,label\na,NA\nb,x\n",
            r"label 'label' is missing \(NA\) in 1 rows of .*; drop these rows or rename",
        ),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            remote_table(path)


@pytest.mark.skipif(sys.platform == "win32", reason="compares paths")
def test_without_its_library_each_kind_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    monkeypatch.setitem(sys.modules, "ijson", None)
    (tmp_path / "x.csv").write_text("label\na\n")
    path = parquet(tmp_path / "x.parquet", ["a"])
    with pytest.raises(
        ModuleNotFoundError, match=r"^a Parquet file needs duckdb; pip install 'longtail\[counts\]'$"
    ):
        class_counts(path, label="label")
    with pytest.raises(
        ModuleNotFoundError, match=r"^a table needs duckdb; pip install 'longtail\[counts\]'$"
    ):
        class_counts(tmp_path / "*.csv", label="label")
    with pytest.raises(ModuleNotFoundError, match=r"^reading s3://b/x.csv needs duckdb; pip install"):
        class_counts("s3://b/x.csv", label="label")
    with pytest.raises(ModuleNotFoundError, match=r"^an annotation file needs ijson; pip install"):
        class_counts(annotated(tmp_path, [1]))
    touch(tmp_path, "cat/a.jpg")  # folders need nothing
    (tmp_path / "x.csv").unlink()
    (tmp_path / "train2018.json").unlink()
    assert class_counts(tmp_path) == {"cat": 1}


# ---- tables as people have them; pandas is the standard where it reads them right

TABLES = Path(__file__).parent / "data" / "tables"
TWELVE = [(k, 2 * (k + 1)) for k in range(12)]


@pytest.mark.parametrize(
    ("name", "label", "wanted"),
    [
        ("stray_quotes.tsv", "quality", [(0, 14), (1, 26)]),  # a line is a row: pandas makes 35 of these 40
        ("trailing_commas.csv", "label", [("ham", 2), ("spam", 1)]),
        ("twelve_classes_float.csv", "y", TWELVE),
        ("twelve_classes_blank.csv", "y", TWELVE),
        ("counts_with_index.csv", None, [("gull", 120), ("tern", 60), ("auk", 12), ("skua", 3)]),
        ("semicolons.csv", "Class", [("no", 16), ("yes", 4)]),
        ("utf16.csv", "kind", [("herb", 2), ("süß", 1)]),
    ],
)
def test_tables_of_all_kinds(name, label, wanted):
    counted = class_counts(TABLES / name, label=label)
    assert list(counted.items()) == wanted
    assert all(type(a) is type(b) for a, (b, _) in zip(counted, wanted, strict=True))


@pytest.mark.parametrize(
    ("name", "label", "message"),
    [
        (
            "long_rows.csv",
            "label",
            r"line 3 of '.*long_rows.csv' has more fields than its header, which has 2",
        ),
        (
            "twelve_classes_na.csv",
            "y",
            r"label 'y' is missing \(NA\) in 1 rows of .*, first in line 158; drop these rows or rename",
        ),
        ("no_header.csv", "kind", r"it has '0.0', '0.00', 'a'; its first line looks like a row, and a table"),
        ("semicolons.csv", "class", r"'x9', \.\.\. 'x21', .*'x29', 'Class'; did you mean 'Class'\?"),
        ("latin1.csv", "kind", r"latin1.csv' is not UTF-8 text \(line 2\); convert it, as iconv -f latin1"),
    ],
)
def test_tables_that_cannot_be_counted_say_what_they_are(name, label, message):
    with pytest.raises(ValueError, match=message) as caught:
        class_counts(TABLES / name, label=label)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("y\n10\n9\n 3\n3.0\n", [(3, 2), (9, 1), (10, 1)]),
        ("y\n0.5\n10\n9.5\n", [(0.5, 1), (9.5, 1), (10.0, 1)]),
        ("y\n010\n009\n1\n", [("1", 1), ("009", 1), ("010", 1)]),  # codes, in the order of numbers
        ("y\n10\n9\nx\n", [("10", 1), ("9", 1), ("x", 1)]),
        ("a,y,b\n1,p\n2,q,r\n", [("p", 1), ("q", 1)]),  # short, but the label is there
        ("a,y\n1,p,,\n2,q\n3,q,\n", [("p", 1), ("q", 2)]),  # longer by empty fields
        ('a,y\r\n"x\ny",p\r\n', [("p", 1)]),
        ("y|a\np|1\n", [("p", 1)]),
    ],
)
def test_numbers_are_ordered_as_numbers_and_rows_may_be_short(tmp_path, text, wanted):
    (tmp_path / "x.csv").write_bytes(text.encode())
    counted = class_counts(tmp_path / "x.csv", label="y")
    assert list(counted.items()) == wanted
    assert all(type(a) is type(b) for a, (b, _) in zip(counted, wanted, strict=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('f,y\n1,a\n"never closed,b\n' + "2,c\n" * 1000, "is not readable"),
        ('y,f\na,1\nb,"never closed\n' + "c,2\n" * 1000, "is not readable"),
        ("y,f\na,1\r\nb,2\n", "its lines end in more than one way"),
        ("\ny\na\n", "is empty; it needs a header line"),
    ],
)
def test_no_row_is_lost_in_silence(tmp_path, text, message):
    (tmp_path / "x.csv").write_bytes(text.encode())
    with pytest.raises(ValueError, match=message):
        class_counts(tmp_path / "x.csv", label="y")


# ---- patterns of text tables


def test_a_pattern_of_text_tables_is_their_sum(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.csv").write_text("label,file\n1,x\n1,y\n")
    (tmp_path / "deep" / "b.csv").write_text("file,label\nx,10\n")
    with gzip.open(tmp_path / "c.csv.gz", "wt") as file:
        file.write("label\n2\n")
    assert class_counts(tmp_path / "**" / "*.csv*", label="label") == {1: 2, 2: 1, 10: 1}
    (tmp_path / "d.csv").write_text("label\nx\n")  # one name that is no integer makes all of them text
    assert class_counts(tmp_path / "*.csv", label="label") == {"1": 2, "x": 1}
    (tmp_path / "e.csv").write_text("other\nx\n")
    with pytest.raises(ValueError, match=r"label='label' is no column of '.*e\.csv'; it has 'other'"):
        class_counts(tmp_path / "*.csv", label="label")
    with pytest.raises(ValueError, match=r"source '.*' matches 3 files; name their label column"):
        class_counts(tmp_path / "*.csv")


def test_patterns_that_match_nothing_or_too_much(tmp_path):
    with pytest.raises(ValueError, match=r"source '.*\*\.parquet' matches no file; check the pattern"):
        class_counts(tmp_path / "*.parquet", label="label")
    (tmp_path / "a.csv").write_text("label\nx\n")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ValueError, match=r"matches files of the kinds csv, json; give one"):
        class_counts(tmp_path / "a.*", label="label")
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(ValueError, match=r"matches 2 files of annotations; give one"):
        class_counts(tmp_path / "*.json")
    (tmp_path / "b.csv.gz").write_bytes(b"label\nx\n")
    with pytest.raises(
        ValueError, match=r"source '.*b\.csv\.gz' is not a readable table \(Not a gzipped file"
    ):
        class_counts(tmp_path / "b.csv.gz", label="label")
    with gzip.open(tmp_path / "c.csv.gz", "wt") as file:
        file.write("label\n" + "".join(f"{i}\n" for i in range(10_000)))
    (tmp_path / "c.csv.gz").write_bytes((tmp_path / "c.csv.gz").read_bytes()[:-900])
    with pytest.raises(ValueError, match=r"source '.*c\.csv\.gz' is not readable \(.*Unexpected end of GZIP"):
        class_counts(tmp_path / "c.csv.gz", label="label")


# ---- Hugging Face data sets


def named(labels, names=("cat", "dog", "lynx"), **more):
    features = hugging_face.Features({"label": hugging_face.ClassLabel(names=list(names))})
    features |= {column: hugging_face.Value("string") for column in more}
    return hugging_face.Dataset.from_dict({"label": labels, **more}, features=features)


def test_a_class_label_gives_its_names_in_their_order_and_needs_no_column():
    data = named([2, 0, 2, 2], names=("z", "b", "a"), text=["x", "y", "x", "x"])
    assert list(class_counts(data).items()) == [("z", 1), ("b", 0), ("a", 3)]
    assert list(class_counts(data.select([0, 0, 1])).items()) == [("z", 1), ("b", 0), ("a", 2)]
    assert list(class_counts(data.to_iterable_dataset()).items()) == [("z", 1), ("b", 0), ("a", 3)]
    assert class_counts(data, label="text") == {"x": 3, "y": 1}
    assert class_counts(data["label"]) == {0: 1, 2: 3}  # as its list


def test_no_row_is_loaded_or_transformed_to_count():
    data = named([0, 1, 1], text=["a", "b", "c"]).with_transform(lambda batch: 1 / 0)
    assert class_counts(data) == {"cat": 1, "dog": 2, "lynx": 0}


def test_a_streamed_data_set_that_does_not_know_its_columns():
    stream = named([0, 1, 1]).to_iterable_dataset().map(lambda row: {"kind": "ab"[row["label"]]})
    assert class_counts(stream, label="kind") == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match="label='nope' is no column of the data set"):
        class_counts(stream, label="nope")
    with pytest.raises(
        ValueError, match="has 0 ClassLabel columns; name the label column; it has unknown columns"
    ):
        class_counts(stream)


@pytest.mark.parametrize(
    ("data", "label", "error", "message"),
    [
        (
            lambda: named([0], text=["x"]),
            "nope",
            ValueError,
            "label='nope' is no column of .*; it has 'label', 'text'",
        ),
        (
            lambda: named([0], text=["x"]).remove_columns("label"),
            None,
            ValueError,
            "has 0 ClassLabel columns; name the label column; it has 'text'",
        ),
        (
            lambda: hugging_face.DatasetDict(train=named([0]), test=named([0])),
            None,
            TypeError,
            r"source holds the splits train, test; give one, such as source\['train'\]",
        ),
        (
            lambda: named([0, -1]),
            None,
            ValueError,
            r"label 'label' must be in 0\.\.2, got -1; drop the samples",
        ),
        (
            lambda: named([0, None]),
            None,
            TypeError,
            r"labels are missing \(null\) for 1 samples of the data set",
        ),
        (lambda: named([0, None]).select([1]), None, TypeError, r"labels are missing \(null\) for 1 samples"),
        (lambda: named([]), None, ValueError, "the data set has no rows"),
        (lambda: named([0]).select([]), None, ValueError, "the data set has no rows"),
        (
            lambda: hugging_face.Dataset.from_dict({"label": [[1, 2], [3]]}),
            "label",
            TypeError,
            "label 'label' of the data set is a List.*; one value a sample is needed",
        ),
    ],
)
def test_bad_hugging_face_data(data, label, error, message):
    with pytest.raises(error, match=message):
        class_counts(data(), label=label)


# ---- folders of images


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_a_folder_of_class_folders(tmp_path):
    touch(tmp_path, "10/a.jpg", "10/deep/b.PNG", "9/c.webp", "9/notes.txt", "9/.d.jpg", "stray.jpg")
    touch(tmp_path, ".cache/e.jpg", "__MACOSX/f.jpg")
    (tmp_path / "empty").mkdir()
    assert list(class_counts(tmp_path).items()) == [("10", 2), ("9", 1), ("empty", 0)]
    assert class_counts(str(tmp_path), num_classes=3) == class_counts(tmp_path)


def test_links_are_followed_and_one_back_up_ends(tmp_path):
    touch(tmp_path / "real", "cat/a.jpg", "cat/b.jpg")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "real" / "cat")
    touch(tmp_path / "set", "dog/c.jpg")
    (tmp_path / "set" / "dog" / "d.jpg").symlink_to(tmp_path / "real" / "cat" / "a.jpg")
    (tmp_path / "set" / "dog" / "up").symlink_to(tmp_path / "set" / "dog")
    assert class_counts(tmp_path / "set") == {"cat": 2, "dog": 2}


@pytest.mark.parametrize(
    ("files", "label", "error", "message"),
    [
        (
            ["a.jpg"],
            None,
            ValueError,
            "source '.*' has no class folders; it needs a folder of images a class",
        ),
        (["part-0.parquet"], None, ValueError, r"has no class folders; for its tables give '.*/\*\.parquet'"),
        (
            ["train/cat/a.jpg", "val/cat/a.jpg"],
            None,
            ValueError,
            "holds the splits train, val; give one, such as '.*/train'",
        ),
        (["cat/a.txt"], None, ValueError, "source '.*' has 1 folders and no image in them; check the folder"),
        (
            ["cat/a.jpg"],
            "species",
            TypeError,
            "label='species' names a column of a file, but source '.*' is a folder",
        ),
    ],
)
def test_bad_folders(tmp_path, files, label, error, message):
    touch(tmp_path, *files)
    with pytest.raises(error, match=message):
        class_counts(tmp_path, label=label)


LAYOUTS = {
    "hidden and odd names": (
        *("__old/a.jpg", "__old/b.jpg", "b/c.JPEG", "b/d.webp", "b/e.txt", "b/__g/h.png"),
        *(".git/a.jpg", "__MACOSX/a.jpg", "b/.a.jpg", "b/__MACOSX/c.jpg", "b/.thumbs/f.jpg"),
    ),
    "a class called train": ("train/a.jpg", "train/b.jpg", "plane/a.jpg", "plane/b.jpg"),
    "a class called train, with folders": ("train/x/a.jpg", "train/y/b.jpg", "plane/a.jpg", "plane/b.jpg"),
    "a table beside the classes": ("a/a.jpg", "a/b.jpg", "b/c.jpg", "b/d.jpg", "labels.csv"),
}


@pytest.mark.parametrize("files", LAYOUTS.values(), ids=LAYOUTS)
def test_what_is_counted_is_what_is_loaded(tmp_path, files):
    touch(tmp_path, *files)
    train, test = load_images(tmp_path, validation=0.5)
    loaded = np.bincount(np.concatenate([train.targets, test.targets]))
    assert class_counts(tmp_path) == dict(zip(train.class_names, loaded.tolist(), strict=True))


@pytest.mark.parametrize(
    ("folders", "chosen"),
    [
        (("Training", "Testing"), "Testing"),
        (("train", "valid", "test"), "valid"),
        (("TRAIN", "VAL"), "VAL"),
        (("seg_train", "seg_test"), "seg_test"),
        (("training", "validation"), "validation"),
        (("train", "dev", "eval", "models"), "dev"),
    ],
)
def test_splits_are_no_classes(tmp_path, folders, chosen):
    touch(tmp_path, *(f"{folder}/{name}/{folder}.jpg" for folder in folders for name in ("cat", "dog")))
    train, test = load_images(tmp_path)
    assert train.class_names == ("cat", "dog")
    assert [Path(test.name(i)).parts[-3] for i in range(2)] == [chosen] * 2
    assert {Path(train.name(i)).parts[-3] for i in range(2)} == {folders[0]}
    with pytest.raises(ValueError, match=rf"holds the splits .*; give one, such as '.*/{folders[0]}'"):
        class_counts(tmp_path)
    assert class_counts(tmp_path / folders[0]) == {"cat": 1, "dog": 1}


def test_folders_that_are_no_classes_are_refused_by_both(tmp_path):
    touch(tmp_path, "TRAIN/a.jpg", "VAL/b.jpg")  # splits without classes
    with pytest.raises(ValueError, match="holds the splits TRAIN, VAL; give one"):
        class_counts(tmp_path)
    with pytest.raises(ValueError, match=r"TRAIN has no class folders with images \(1 images lie in it"):
        load_images(tmp_path)
    touch(tmp_path, "wrapped/photos/cat/a.jpg", "wrapped/photos/dog/b.jpg", "tests/val/cat/a.jpg")
    for read in (class_counts, load_images):
        with pytest.raises(
            ValueError, match=r"holds one folder, 'photos', with folders inside; give '.*/photos'"
        ):
            read(tmp_path / "wrapped")
        with pytest.raises(ValueError, match="holds the splits val"):
            read(tmp_path / "tests")


def test_links_in_a_circle_end(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "x").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "y").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    assert class_counts(tmp_path) == {"a": 2, "b": 2}


def test_annotations_and_saved_data_sets_in_a_folder_are_not_counted_as_folders(tmp_path):
    touch(tmp_path, "train_val2018/Aves/1/a.jpg")
    annotated(tmp_path, [1])
    with pytest.raises(ValueError, match=r"holds the annotations train2018.json; give one, such as '.*json'"):
        class_counts(tmp_path)
    named([0, 1, 1]).save_to_disk(tmp_path / "saved")
    assert class_counts(tmp_path / "saved") == {"cat": 1, "dog": 2, "lynx": 0}
    hugging_face.DatasetDict(train=named([0])).save_to_disk(tmp_path / "both")
    with pytest.raises(TypeError, match=r"source holds the splits train; give one, such as '.*/both/train'"):
        class_counts(tmp_path / "both")


# ---- annotations

CATEGORIES = [
    {"id": 3, "name": "lynx", "supercategory": "wild"},
    {"id": 1, "name": "cat", "supercategory": "home"},
    {"id": 90, "name": "puma", "supercategory": "wild"},
]


def annotated(
    folder, ids, categories=CATEGORIES, order=("info", "images", "annotations", "categories"), **layout
):
    parts = {
        "info": {"year": 2018, "annotations": [1]},
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(3)],
        "annotations": [
            {"id": i, "image_id": 0, "category_id": c, "bbox": [1.5] * 4} for i, c in enumerate(ids)
        ],
        "categories": categories,
    }
    path = folder / "train2018.json"
    path.write_text(json.dumps({key: parts[key] for key in order}, **layout))
    return path


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
@pytest.mark.parametrize("layout", [{}, {"indent": 1}, {"separators": (",", ":")}])
@pytest.mark.parametrize(
    "order", [("info", "images", "annotations", "categories"), ("categories", "annotations")]
)
def test_annotations_are_counted_by_category_wherever_a_block_ends(
    tmp_path, monkeypatch, block, layout, order
):
    monkeypatch.setattr(coco, "_BLOCK", block)
    path = annotated(tmp_path, [1, 3, 3, 1, 3], order=order, **layout)
    assert list(class_counts(path).items()) == [("cat", 2), ("lynx", 3), ("puma", 0)]
    assert class_counts(path, label="supercategory") == {"home": 2, "wild": 3}
    assert class_counts(path, label="id") == {1: 2, 3: 3, 90: 0}


def test_categories_of_one_name_keep_their_ids(tmp_path):
    twins = [{"id": 2, "name": "crane"}, {"id": 1, "name": "crane"}]
    counted = class_counts(annotated(tmp_path, [1, 2, 2], categories=twins))
    assert list(counted.items()) == [("crane (1)", 1), ("crane (2)", 2)]


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False)
        | st.text(max_size=3),
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3),
        max_leaves=12,
    ),
    st.integers(1, 9),
)
def test_a_stream_gives_what_json_gives(value, block):
    text = json.dumps(
        {"before": value, "list": [value, value], "none": [], "info": value}, indent=block % 3 or None
    )
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco, "_BLOCK", block)
        path = Path(folder) / "x.json"
        path.write_text(text)
        found = list(coco.elements(str(path), "list", "info", "none"))
        keys = [key for key, _ in coco.elements(str(path))]
    assert found == [("list", value), ("list", value), ("info", value)]
    assert keys == ["before", "list", "none", "info"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"images": [], "info": {}}',
            "has no annotations; it has 'images', 'info'; give a file with annotations",
        ),
        ('{"annotations": [{"category_id": 1}]}', "has no categories; it has 'annotations'; give"),
        ("[1, 2]", "has no annotations; it has no object; give"),
        ("", "has no annotations; it has no object; give"),
        ("{}", "has no annotations; it has no object; give"),
        ('{"annotations": [{"category_id": 1}, {"cat', r"is cut short or no JSON \(.*\); check the file"),
        (
            '{"annotations": [{"category_id": 1} {"category_id": 1}]}',
            r"is cut short or no JSON \(parse error: after array element, I expect ',' or '\]'\)",
        ),
        (
            '{"annotations": [{"id": 1}]}',
            "annotations of '.*' must hold a 'category_id' each, got dict {'id': 1}",
        ),
        ('{"annotations": [7]}', "annotations of '.*' must hold a 'category_id' each, got int 7"),
        (
            '{"annotations": [{"category_id": [1]}]}',
            "annotations of '.*' must hold a 'category_id' each, got",
        ),
        (
            '{"annotations": [{"category_id": 5}], "categories": [{"id": 1, "name": "x"}]}',
            "category_id 5 in '.*' is none of its categories",
        ),
        (
            '{"annotations": [{"category_id": 1}], "categories": [{"id": 1}]}',
            "categories of '.*' must hold a 'name' each, got dict {'id': 1}",
        ),
        (b'{"annotations": ["\xff"]}', r"is not UTF-8 text \(invalid start byte\); convert it"),
    ],
)
def test_bad_annotations(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        class_counts(path)
