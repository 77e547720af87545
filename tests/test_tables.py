"""Tables of labels as people have them: pandas is the standard, and what is unlike it is said."""

import bz2
import csv
import gzip
import io
import lzma
import re
import tempfile
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail import ClassBalancedLoss, class_counts, class_weights, cli
from longtail.sources import Wanted, tables

CASES = Path(__file__).parent / "data" / "tables"
TWELVE = [(k, 2 * (k + 1)) for k in range(12)]


def table(folder, text, name="x.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture
def read(capsys, monkeypatch):
    """Counts, and what is said, of the command line."""

    def weights(path, *options):
        arguments = ["longtail", "weights", str(path), *options, "--format", "csv", "--beta", "0.9"]
        monkeypatch.setattr("sys.argv", arguments)
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, said = capsys.readouterr()
        rows = list(csv.DictReader(io.StringIO(out)))
        assert end.value.code == (0 if rows else 2), said
        return {row["class"]: int(float(row["count"])) for row in rows}, said

    return weights


# ---- several labels a sample


JOINED = {"dent": 20, "none": 19, "paint": 15, "rust": 20, "scratch": 20}


def test_joined_labels_are_counted_each_and_noticed_where_nobody_asks(read):
    path = CASES / "joined_labels.csv"
    counted = class_counts(path, label="findings", separator="|")
    assert list(counted.items()) == list(JOINED.items())
    assert counted.num_samples == 60
    assert read(path, "--label", "findings", "--separator", "|")[0] == JOINED
    frame = pd.read_csv(path)
    assert frame["findings"].str.get_dummies("|").sum().to_dict() == JOINED
    assert class_counts(frame["findings"], separator="|") == counted
    said = r"\d+ of the \d+ labels of .* look like several in one, such as '[a-z|]+'; count each by "
    for source, label in ((path, "findings"), (frame["findings"], None)):
        with pytest.warns(UserWarning, match=said + r"separator='\|'"):
            class_counts(source, label=label)
    assert re.search(said + r"--separator '\|'", read(path, "--label", "findings")[1])


@pytest.mark.parametrize(
    ("labels", "separator"),
    [
        (["rust,dent", "dent", "rust"], ","),
        (["rust; dent", "dent", "rust"], ";"),
        (["rust dent", "dent", "rust"], " "),
        (["rust|dent", "paint"], "|"),
        (["['rust', 'dent']", "['dent']", "[]"], ","),
        (["0|3", "3|5", "0|5", "5|7", "7|0", "1"], "|"),
        (["147 616 813", "616", "147", "813"], " "),
    ],
)
def test_every_separator_is_noticed(tmp_path, labels, separator):
    path = table(tmp_path, "x;y\n" + "".join(f'1;"{x}"\n' for x in labels))
    with pytest.warns(UserWarning, match=re.escape(f"count each by separator={separator!r}")):
        class_counts(labels)
    with pytest.warns(UserWarning, match="look like several in one"):
        class_counts(path, label="y")


@pytest.mark.parametrize(
    "labels",
    [
        ["red car", "blue car", "green bike"],  # blanks stand in names
        ["Boston, MA", "Salem, OR"],
        ["a|b", "c"],  # one character each
        ["Felis catus", "Felis silvestris"],
        ["x;", "x"],
    ],
)
def test_names_that_hold_a_separator_by_chance_raise_no_alarm(labels):
    assert class_counts(labels).total == len(labels)


def test_a_sample_without_a_label_counts_as_a_sample(tmp_path):
    path = table(tmp_path, "f,y\n1,a|b|a\n2,\n3,a\n4,NA\n\n")
    with pytest.warns(UserWarning, match=r"2 samples of source .* have no label"):
        counted = class_counts(path, label="y", separator="|")
    assert (dict(counted), counted.num_samples) == ({"a": 2, "b": 1}, 4)
    dummies = pd.read_csv(path)["y"].str.get_dummies("|")
    assert (dummies.sum().to_dict(), len(dummies)) == ({"a": 2, "b": 1}, 4)
    numbers = class_counts(["10 9", "9", "2"], separator=" ")
    assert list(numbers) == ["2", "9", "10"]


def test_one_hot_columns(tmp_path, read):
    path = CASES / "one_hot.csv"
    wanted = {"bent": 6, "cracked": 6, "fine": 12}
    for labels in ("bent,cracked,fine", ["bent", "cracked", "fine"], "b*,cracked,fin*"):
        counted = class_counts(path, labels=labels)
        assert list(counted.items()) == list(wanted.items())
        assert counted.num_samples == 24
    assert read(path, "--labels", "bent,cracked,fine")[0] == wanted
    with pytest.raises(ValueError, match=r"count columns of 0 and 1 by labels='bent,cracked,fine'"):
        class_counts(path)
    assert "--labels 'bent,cracked,fine'" in read(path)[1]
    frame = pd.read_csv(path, skipinitialspace=True)
    assert class_counts(frame, labels="bent,fine") == {"bent": 6, "fine": 12}
    pq.write_table(pa.Table.from_pandas(frame.assign(sure=frame["fine"] == 1)), tmp_path / "x.parquet")
    counted = class_counts(tmp_path / "x.parquet", labels=["fine", "sure", "b*"])
    assert (dict(counted), counted.num_samples) == ({"fine": 12, "sure": 12, "bent": 6}, 24)


@pytest.mark.parametrize(
    ("text", "labels", "message"),
    [
        ("a,b\n1,0\n-1,1\n", "a,b", r"labels: column 'a' of '.*' holds '-1', and 0 and 1 alone are counted"),
        ("a,b\n1,\n0,1\n", "a,b", r"labels: column 'b' of '.*' holds '', and 0 and 1 alone"),
        ("a,b\n1,0\n", "a,c", r"labels: 'c' is no column of '.*'; it has 'a', 'b'"),
        ("a,b\n1,0\n", "z*", r"labels: 'z\*' is no column of"),
        ("a,b\n", "a,b", r"source '.*' has no rows below its header"),
    ],
)
def test_bad_columns_of_0_and_1(tmp_path, text, labels, message):
    with pytest.raises(ValueError, match=message):
        class_counts(table(tmp_path, text), labels=labels)


# ---- missing labels: one rule


GONE = ["NaN", "NA", "null", "None", "?", "", "nan", "N/A", "<NA>", "NULL", " "]


@pytest.mark.parametrize("gone", GONE)
def test_a_missing_label_is_refused_everywhere_and_a_class_where_asked(tmp_path, gone):
    texts = ["cat"] * 3 + [gone] + ["lynx"] * 2
    path = table(tmp_path, "f,y\n" + "".join(f"1,{x}\n" for x in texts))
    pq.write_table(pa.table({"y": texts}), tmp_path / "x.parquet")
    nulls = [None if x == gone else x for x in texts]
    pq.write_table(pa.table({"y": nulls}), tmp_path / "n.parquet")
    for source, label in (
        *((path, "y"), (tmp_path / "x.parquet", "y"), (tmp_path / "n.parquet", "y")),
        *((texts, None), (pd.Series(texts), None), (np.array(texts), None)),
        *((nulls, None), (pd.Series(nulls), None), (pd.Categorical(nulls), None), (pa.array(nulls), None)),
    ):
        with pytest.raises((TypeError, ValueError), match=r"missing|empty"):
            class_counts(source, label=label)
        counted = class_counts(source, label=label, missing_as_class=True)
        assert list(counted.items()) == [("cat", 3), ("lynx", 2), ("missing", 1)]


def test_a_stray_missing_label_leaves_integers_integers(read):
    path = CASES / "twelve_classes_na.csv"
    counted = class_counts(path, label="y", missing_as_class=True)
    assert list(counted.items()) == [*TWELVE, ("missing", 1)]
    assert read(path, "--label", "y", "--missing-as-class")[0] == {str(k): n for k, n in counted.items()}
    assert "--missing-as-class" in read(path, "--label", "y")[1]
    with pytest.raises(ValueError, match="a class is called 'missing' already; rename it"):
        class_counts(["missing", None], missing_as_class=True)
    with pytest.raises(TypeError, match=r"labels are missing \(nan\) for 2 samples"):
        class_counts(pd.Series(["a", None, None]).value_counts(dropna=False))


# ---- headers


@pytest.mark.parametrize("label", ["kind", "a", "b", None])
def test_a_table_without_a_header_is_noticed_and_read_by_number(label, read):
    path = CASES / "no_header.csv"
    options = [] if label is None else ["--label", label]
    counted, said = read(path, *options)
    assert counted == {}
    assert "header" in said
    assert "--no-header" in said
    assert "--label '3'" in said
    for number in (3, "3", -1, "-1"):
        assert class_counts(path, label=number, header=False) == {"a": 10, "b": 10, "c": 10}
    assert read(path, "--no-header", "--label", "3")[0] == {"a": 10, "b": 10, "c": 10}
    for wrong in (4, 0, -4):
        with pytest.raises(ValueError, match=rf"label='{wrong}' is no column .* without a header are 1 to 3"):
            class_counts(path, label=wrong, header=False)
    with pytest.warns(UserWarning, match=r"each of the 30 labels .* occurs once; is '2' the column"):
        class_counts(path, label=2, header=False)


def test_a_headerless_list_of_pictures_is_noticed(tmp_path):
    path = table(tmp_path, "a.jpg,cat\nb.jpg,dog\nc.jpg,cat\n")
    with pytest.raises(ValueError, match=r"first line looks like a row"):
        class_counts(path, label="label")
    with pytest.raises(ValueError, match=r"header=False and label='2'"):
        class_counts(path, label="cat")
    assert class_counts(path, label=2, header=False) == {"cat": 2, "dog": 1}


def test_numbers_may_be_names_of_columns(tmp_path):
    assert class_counts(table(tmp_path, "0,1,2\n5,6,a\n5,6,b\n"), label=2) == {"a": 1, "b": 1}
    with pytest.raises(ValueError, match=r"header=False needs the label column"):
        class_counts(tmp_path / "x.csv", header=False)


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\nf;y\n1;a\n2;b\n3;a\n",
        "# made by hand\n# twice, really\nf,y\n1,a\n# no row\n2,b\n3,a\n",
        "#\nf\ty\n1\ta\n2\tb\n3\ta\n",
        '"sep=,"\nf,y\n1,a\n2,b\n3,a\n',
    ],
)
def test_lines_before_the_header(tmp_path, text):
    path = table(tmp_path, text)
    assert class_counts(path, label="y") == {"a": 2, "b": 1}
    with pytest.raises(ValueError, match=rf"line {text.count(chr(10)) + 1} of .* has an empty field"):
        class_counts(table(tmp_path, text + re.search("[;,\t]", text.splitlines()[-1])[0] + "\n"), label="y")


def test_messages_show_near_names_and_the_last_columns(tmp_path):
    names = [*(f"x{i}" for i in range(40)), "Finding Labels"]
    path = table(tmp_path, ",".join(names) + "\n" + ",".join("1" * 41) + "\n")
    pq.write_table(pa.table({name: [1] for name in names}), tmp_path / "x.parquet")
    for file in (path, tmp_path / "x.parquet"):
        with pytest.raises(
            ValueError, match=r"'x0', .*, \.\.\. .*'x39', 'Finding Labels'; did you mean 'Finding Labels'\?"
        ):
            class_counts(file, label="finding_labels")


# ---- encodings, and packed


SWEETS = "name,kind\nmüsli,süß\nbrot,herb\nkäse,herb\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_unicode_encoding_is_read(tmp_path, encoding, mark):
    mark = "" if encoding in ("utf-8-sig", "utf-16", "utf-32") else mark
    for packed in ("", ".gz"):
        content = (mark + SWEETS).encode(encoding)
        path = table(tmp_path, gzip.compress(content) if packed else content, "x.csv" + packed)
        assert class_counts(path, label="kind") == {"herb": 2, "süß": 1}


def zipped(content, *names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["x.csv.gz", "x.csv.bz2", "x.csv.xz", "x.csv.zip", "x.zip", "x.csv.zst"])
def test_packed_tables_are_read_as_pandas_reads_them(tmp_path, name):
    content = SWEETS.encode()
    pack = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "zip": lambda c: zipped(c, "a.csv"),
    }
    path = tmp_path / name
    if name.endswith("zst"):
        (tmp_path / "plain.csv").write_bytes(content)
        duckdb.sql(f"COPY (FROM read_csv('{tmp_path}/plain.csv')) TO '{path}' (COMPRESSION zstd)")
    else:
        path.write_bytes(pack[name.rpartition(".")[2]](content))
        assert pd.read_csv(path)["kind"].value_counts().to_dict() == class_counts(path, label="kind")
    assert class_counts(path, label="kind") == {"herb": 2, "süß": 1}
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"source '.*' is not (a readable|readable|UTF-8)"):
        class_counts(path, label="kind")


def test_an_archive_of_several_files_names_them(tmp_path):
    path = table(tmp_path, zipped(b"y\na\n", "a.csv", "b.csv"), "x.zip")
    with pytest.raises(ValueError, match=r"holds 2 files \('a.csv', 'b.csv'\); unpack it, give one"):
        class_counts(path, label="y")


# ---- what pandas makes of it

WRITTEN = st.sampled_from(
    [
        *("0", "1", "2", "10", "11", " 3", "3 ", "3.0", "03", "1e1", "+1", "-1", ".5", "1.5", "5."),
        "007",
        "010",
    ]
)
WORDS = st.sampled_from(["a", "b", " a", "A", "True", "true", "FALSE", "no", "Yes", "1x", "0-1", "Ä", "x y"])


@settings(max_examples=50, deadline=None)
@given(
    st.one_of(
        st.lists(WRITTEN, min_size=1, max_size=25),
        st.lists(WORDS, min_size=1, max_size=12),
        st.lists(st.sampled_from(["True", "False", "TRUE", "false"]), min_size=1, max_size=9),
        st.lists(st.integers(0, 12).map(str), min_size=1, max_size=25),
    ),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_a_column_counts_as_pandas_counts_it(labels, delimiter, newline):
    rows = ["i" + delimiter + "y", *(f"{i}{delimiter}{x}" for i, x in enumerate(labels))]
    text = newline.join(rows) + newline
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "x.csv"
        path.write_bytes(text.encode())
        counted = class_counts(path, label="y")
        expected = pd.read_csv(path, sep=delimiter)["y"].value_counts()
    codes = [x for x in set(labels) if re.match(r"[ +-]*0\d", x)]
    if codes and all(isinstance(name, str) for name in counted):  # codes, which pandas strips of their zeros
        numbers = Counter()
        for name, n in counted.items():
            numbers[float(name)] += n
        assert numbers == expected.to_dict()
    else:
        assert counted == expected.to_dict()
    if all(isinstance(name, (int, float)) or _number(name) for name in counted):
        assert list(map(float, counted)) == sorted(map(float, counted))
    else:
        assert list(counted) == sorted(counted)


def _number(text):
    return re.fullmatch(r"\s*[-+]?[0-9.]+(e[0-9]+)?\s*", text)


@pytest.mark.parametrize("stray", ["3.0", " 3", "03", "3 ", "+3", "3."])
def test_a_stray_writing_of_a_number_gives_every_output_its_own_weight(tmp_path, stray):
    rows = [str(k) for k, n in TWELVE for _ in range(n)]
    rows[rows.index("3")] = stray
    counted = class_counts(table(tmp_path, "id,y\n" + "".join(f"1,{x}\n" for x in rows)), label="y")
    assert list(counted.items()) == TWELVE
    loss = ClassBalancedLoss(counted, scheme="inverse")
    weights = class_weights([n for _, n in TWELVE], "inverse")
    np.testing.assert_allclose(loss.weight.numpy(), weights, rtol=1e-6)


def test_decimal_commas_are_numbers(tmp_path):
    path = table(tmp_path, "f;y\n" + "".join(f"1;{x}\n" for x in ("10,0", "2,0", "0,5", "2,0")))
    assert list(class_counts(path, label="y").items()) == [(0.5, 1), (2.0, 2), (10.0, 1)]
    assert class_counts(table(tmp_path, "name;count\na;1,5\nb;3\n")) == {"a": 1.5, "b": 3}
    assert class_counts(table(tmp_path, "name;count\na;3.000\nb;1234.000\n")) == {"a": 3, "b": 1234}
    text = "x;label\n1;1,000\n2;1\n3;1\n"  # a thousand, perhaps
    assert class_counts(table(tmp_path, text), label="label") == {"1": 2, "1,000": 1}
    assert class_counts(table(tmp_path, text + "4;1,5\n"), label="label") == {1: 3, 1.5: 1}


def test_codes_keep_their_zeros_in_the_order_of_numbers(tmp_path):
    path = table(tmp_path, "y\n" + "".join(f"{k:02}\n" * 2 for k in (11, 1, 10, 2)))
    assert list(class_counts(path, label="y")) == ["01", "02", "10", "11"]


def test_tab_separated_text_with_quotes_that_hold_fields_together(tmp_path):
    frame = pd.DataFrame({"y": ["a", "b", "a"], "text": ["one\ntwo", "with\ttab", 'a "word"']})
    frame.to_csv(tmp_path / "x.tsv", sep="\t", index=False)
    assert class_counts(tmp_path / "x.tsv", label="y") == {"a": 2, "b": 1}
    path = table(tmp_path, 'y\tx\n"yes"\t1\n"no"\t2\n"yes"\t3\n', "q.tsv")
    assert class_counts(path, label="y") == {"no": 1, "yes": 2}
    path = table(tmp_path, 'y\tx\nyes\t"1\nno\t2\nyes\t3 inch"\n', "s.tsv")
    assert class_counts(path, label="y") == {"no": 1, "yes": 2}


# ---- the order of names


def test_counts_by_frequency_are_put_into_the_order_of_the_outputs():
    labels = pd.Series(["no"] * 50 + ["maybe"] * 5 + ["yes"] * 20)
    by_hand = [5, 50, 20]  # maybe, no, yes: as scikit-learn's LabelEncoder numbers them
    weights = class_weights(by_hand, "inverse")
    frame = labels.to_frame("answer")
    for source in (
        *(labels, labels.value_counts(), Counter(labels), Counter(labels.iloc[::-1])),
        *(frame.value_counts(), labels.value_counts().rename_axis("a").reset_index()),
    ):
        assert list(class_counts(source).items()) == [("maybe", 5), ("no", 50), ("yes", 20)]
    for source in (labels.value_counts(), Counter(labels), class_counts(labels)):
        loss = ClassBalancedLoss(source, scheme="inverse")
        np.testing.assert_allclose(loss.weight.numpy(), weights, rtol=1e-6)
    fixed = {"yes": 20, "no": 50, "maybe": 5}  # the caller's own order
    assert list(class_counts(fixed)) == ["yes", "no", "maybe"]
    assert ClassBalancedLoss(fixed).class_counts.tolist() == [20, 50, 5]
    kinds = pd.Series(pd.Categorical(labels, categories=["yes", "no", "maybe"]))
    assert list(class_counts(kinds.value_counts())) == ["yes", "no", "maybe"]
    assert list(class_counts(labels, order=["yes", "no", "maybe", "never"]).items()) == [
        *(("yes", 20), ("no", 50), ("maybe", 5), ("never", 0)),
    ]
    with pytest.raises(ValueError, match="order lacks 'maybe', which the labels hold"):
        class_counts(labels, order="yes,no")


def test_text_of_digits_is_in_the_order_of_numbers(tmp_path, read):
    labels = [str(k) for k, n in TWELVE for _ in range(n)]
    for source in (
        labels,
        np.array(labels),
        pd.Series(labels),
        Counter(labels),
        pd.Series(labels).value_counts(),
    ):
        assert list(class_counts(source).items()) == [(str(k), n) for k, n in TWELVE]
    assert list(class_counts(labels, order=",".join(map(str, range(11, -1, -1))))) == [
        str(k) for k in range(11, -1, -1)
    ]
    path = table(tmp_path, "id,y\n" + "".join(f"1,{x}\n" for x in labels))
    assert list(read(path, "--label", "y", "--order", "11,10,9,8,7,6,5,4,3,2,1,0")[0]) == [
        str(k) for k in range(11, -1, -1)
    ]


def test_composed_and_decomposed_names_are_one_class(tmp_path):
    names = ["gru\u0308n", "gr\u00fcn"]
    assert class_counts(names) == {"gr\u00fcn": 2}
    assert class_counts(table(tmp_path, "y\n" + "\n".join(names) + "\n"), label="y") == {"gr\u00fcn": 2}
    assert class_counts(table(tmp_path, "gru\u0308n\na\n"), label="gr\u00fcn") == {"a": 1}


def test_the_engine_alone_reads_by_the_same_options(tmp_path):
    """Tables in a store, and those packed by zstd: no Python looks at them."""
    text = "sep=;\n# by hand\nf;y\n" + "".join(f"1;{k}\n" for k, n in TWELVE for _ in range(n)) + "1;\n"
    path = table(tmp_path, text)
    far = tables.count_text(
        tables.connect("it"), [str(path)], "x", Wanted("y", missing_as_class=True), remote=True
    )
    assert list(zip(far.names, far.counts, strict=True)) == [*TWELVE, ("missing", 1)]


def test_no_name_of_a_class_writes_to_the_terminal(tmp_path, read):
    path = table(tmp_path, 'y\n"red\x1b[31m\nline"\nb\n')
    with pytest.raises(ValueError, match="is no column"):
        class_counts(path, label="\x1b[31m")
    assert "\x1b" not in read(path, "--label", "\x1b[31m")[1]
