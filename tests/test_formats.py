"""Labels in files of other kinds: the same counts as of the same labels in memory, or one clear line."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pytest

from longtail import class_counts

LABELS = ["lynx", "cat", "cat", "owl", "cat"]
WANTED = [("cat", 3), ("lynx", 1), ("owl", 1)]


def write(folder, kind, labels, **more):
    frame = pd.DataFrame({"file": [f"{i}.jpg" for i in range(len(labels))], "kind": labels, **more})
    path = folder / f"x.{kind}"
    if kind == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif kind == "json":
        frame.to_json(path, orient="records")
    elif kind == "feather":
        pa.feather.write_feather(frame, path)
    elif kind == "arrow":
        with pa.ipc.new_stream(path, (table := pa.Table.from_pandas(frame)).schema) as writer:
            writer.write_table(table)
    else:
        pytest.importorskip("openpyxl")
        frame.to_excel(path, index=False)
    return path


KINDS = ["jsonl", "json", "feather", "arrow", "xlsx"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_counts_as_the_same_labels_in_memory(tmp_path, kind):
    path = write(tmp_path, kind, LABELS, a=[1, 0, 1, 1, 1], b=[0, 1, 0, 0, 0])
    assert list(class_counts(path, label="kind").items()) == WANTED
    counted = class_counts(path, labels="b,a")
    assert (list(counted.items()), counted.num_samples) == ([("b", 1), ("a", 4)], 5)
    with pytest.raises(ValueError, match=r"label='kid' is no column of .*; it has .*; did you mean 'kind'\?"):
        class_counts(path, label="kid")
    numbers = [str(k) for k in (10, 9, 2, 10)]
    assert list(class_counts(write(tmp_path, kind, numbers), label="kind")) == ["2", "9", "10"]
    assert class_counts(write(tmp_path, kind, [3, 1, 3]), label="kind") == {1: 1, 3: 2}
    path = write(tmp_path, kind, ["a", None, "b", "NA"])
    with pytest.raises(TypeError, match="labels are missing"):
        class_counts(path, label="kind")
    assert class_counts(path, label="kind", missing_as_class=True) == {"a": 1, "b": 1, "missing": 2}
    path = write(tmp_path, kind, ["rust|dent", "rust"])
    assert class_counts(path, label="kind", separator="|") == {"dent": 1, "rust": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_none_are_one_line(tmp_path, kind):
    if kind == "xlsx":
        pytest.importorskip("openpyxl")
    path = tmp_path / f"x.{kind}"
    for content in (b"[nothing", b"", b"\x00\xff" * 20):
        path.write_bytes(content)
        with pytest.raises(ValueError) as caught:
            class_counts(path, label="kind")
        assert "\n" not in str(caught.value)
        assert "x." in str(caught.value)


def test_lists_of_tags_in_json_lines(tmp_path):
    rows = [{"tags": ["rust", "dent"]}, {"tags": ["rust"]}, {"tags": ["paint", "rust"]}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    counted = class_counts(tmp_path / "x.jsonl", label="tags")
    assert (dict(counted), counted.num_samples) == ({"dent": 1, "paint": 1, "rust": 3}, 3)


def test_arrays(tmp_path):
    np.save(tmp_path / "y.npy", np.array([2, 0, 2]))
    assert class_counts(tmp_path / "y.npy") == {0: 1, 2: 2}
    assert class_counts(tmp_path / "y.npy", num_classes=4).counts.tolist() == [1, 0, 2, 0]
    np.save(tmp_path / "m.npy", np.array([[1, 0], [1, 1]]))
    assert class_counts(tmp_path / "m.npy").num_samples == 2
    np.savez(
        tmp_path / "f.npz", X=np.zeros((3, 2)), y=np.array([1, 0, 1]), class_names=np.array(["a", "b", "c"])
    )
    assert class_counts(tmp_path / "f.npz") == {"a": 1, "b": 2, "c": 0}
    np.savez(tmp_path / "g.npz", ids=np.array(["a", "b"]), kinds=np.array(["u", "v"]), X=np.zeros((2, 2)))
    assert class_counts(tmp_path / "g.npz", label="kinds") == {"u": 1, "v": 1}
    for label in (None, "nope"):
        with pytest.raises(
            ValueError, match=r"is no array of .*; name the labels' one, of 'ids', 'kinds', 'X'"
        ):
            class_counts(tmp_path / "g.npz", label=label)
    (tmp_path / "y.npy").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"y\.npy"):
        class_counts(tmp_path / "y.npy")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        class_counts(tmp_path / "o.npy")


def test_arff_keeps_the_order_that_it_declares(tmp_path):
    path = tmp_path / "x.arff"
    path.write_text(
        "@relation r\n@attribute n numeric\n@attribute c {no,maybe,yes}\n@data\n1,yes\n2,no\n2,yes\n"
    )
    assert list(class_counts(path, label="c").items()) == [("no", 1), ("maybe", 0), ("yes", 2)]
    assert class_counts(path, label="n") == {1.0: 1, 2.0: 2}
    path.write_text(path.read_text() + "3,?\n")
    with pytest.raises(TypeError, match=r"labels are missing \(\?\) for 1 samples"):
        class_counts(path, label="c")
    assert class_counts(path, label="c", missing_as_class=True)["missing"] == 1
    path.write_text("@relation r\n@attribute s string\n@data\nx\n")
    with pytest.raises(ValueError, match=r"is not readable .*; save it as \.csv"):
        class_counts(path, label="s")


def test_list_files_count_under_the_names_of_training(tmp_path):
    (tmp_path / "x_train.txt").write_text("cat/a.jpg 1\nant/b.jpg 0\ncat/c.jpg 1\n")
    assert class_counts(tmp_path / "x_train.txt") == {"ant": 1, "cat": 2}
    (tmp_path / "n.txt").write_text("a.jpg 1\nb.jpg 0\nc.jpg 1\n")
    assert class_counts(tmp_path / "n.txt") == {"0": 1, "1": 2}
    (tmp_path / "t.txt").write_text("file\tkind\na\tx\n")
    assert class_counts(tmp_path / "t.txt", label="kind") == {"x": 1}


def test_boxes_of_yolo_and_voc_are_counted_as_objects(tmp_path):
    yolo = tmp_path / "yolo"
    for part, lines in (
        ("train", ["0 .1 .1 .2 .2\n2 .5 .5 .1 .1\n", "2 .1 .1 .1 .1\n"]),
        ("valid", ["1 0 0 1 1"]),
    ):
        (yolo / part / "labels").mkdir(parents=True)
        (yolo / part / "images").mkdir()
        for i, text in enumerate(lines):
            (yolo / part / "labels" / f"{i}.txt").write_text(text)
    for train in ("../train/images", "train/images", "./train/images"):
        (yolo / "data.yaml").write_text(
            f"train: {train}\nval: ../valid/images\nnc: 3\nnames: ['a', 'b', 'c']\n"
        )
        assert list(class_counts(yolo).items()) == [("a", 1), ("b", 0), ("c", 2)]
        assert class_counts(yolo / "data.yaml") == class_counts(yolo)
    (yolo / "train" / "labels" / "1.txt").write_text("7 .1 .1 .1 .1\n")
    with pytest.raises(ValueError, match=r"line 1 of '.*1\.txt' begins with '7', no number of a name"):
        class_counts(yolo)
    voc = tmp_path / "voc" / "Annotations"
    voc.mkdir(parents=True)
    for i, names in enumerate((["cat", "dog"], ["cat"])):
        objects = "".join(f"<object><name>{name}</name></object>" for name in names)
        (voc / f"{i}.xml").write_text(f"<annotation>{objects}</annotation>")
    assert class_counts(voc) == class_counts(voc.parent) == {"cat": 2, "dog": 1}
    (voc / "2.xml").write_text("<annotation>")
    with pytest.raises(ValueError, match=r"2\.xml' is no XML"):
        class_counts(voc)


def test_an_array_of_objects_is_refused_with_a_remedy(tmp_path):
    path = tmp_path / "f.npz"
    np.savez(path, X=np.zeros((4, 2)), y=np.array(["a", "b"] * 2, dtype=object))
    with pytest.raises(
        ValueError, match=r"source '.*f\.npz' holds an array of Python objects, .*y\.astype\(str\)"
    ):
        class_counts(path)
