"""Class counts: every kind of label, tables and files, data sets, real benchmarks, every bad input."""

import copy
import math
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longtail import ClassCounts, ClassWeights, class_counts, class_weight_dict, class_weights, sample_weights
from longtail.effective import effective_number
from longtail.sampling import ClassAwareSampler
from longtail.suggest import suggest_beta

REAL = Path(__file__).parent / "data" / "class_counts"


@pytest.mark.parametrize(
    ("labels", "names", "counts"),
    [
        (["lynx", "cat", "cat"], ("cat", "lynx"), [2, 1]),
        ((2, 0, 2), (0, 2), [1, 2]),
        (np.array([2, 0, 2], dtype=np.uint8), (0, 2), [1, 2]),
        (np.array(["b", "a", "b"]), ("a", "b"), [1, 2]),
        (np.array(["b", "a", "b"], dtype=object), ("a", "b"), [1, 2]),
        (np.array([1.0, 2.0, 1.0]), (1.0, 2.0), [2, 1]),
        ([True, False, True], (False, True), [1, 2]),
        (np.array([True, True]), (True,), [2]),
        (torch.tensor([True, False]), (False, True), [1, 1]),
        (torch.tensor([3, 3, 0], dtype=torch.int32), (0, 3), [1, 2]),
        (torch.tensor([1.0, 1.0], requires_grad=True), (1.0,), [2]),
        (torch.tensor([1.0, 0.0, 1.0], dtype=torch.bfloat16), (0.0, 1.0), [1, 2]),
        (pd.Series([3, 3, 0], index=[7, 8, 9]), (0, 3), [1, 2]),
        (pd.Series(["b", "a", "b"]), ("a", "b"), [1, 2]),
        (pd.Series(["b", "a", "b"], dtype="string"), ("a", "b"), [1, 2]),
        (pd.Series([3, 3, 0], dtype="Int64"), (0, 3), [1, 2]),
        (pd.Index(["b", "a", "b"]), ("a", "b"), [1, 2]),
        (range(3), (0, 1, 2), [1, 1, 1]),
        ((label for label in "aab"), ("a", "b"), [2, 1]),
        ([-5, -5, 3], (-5, 3), [2, 1]),
        ([b"a", b"b", b"a"], (b"a", b"b"), [2, 1]),
    ],
)
def test_labels_of_every_kind(labels, names, counts):
    counted = class_counts(labels)
    assert counted.names == names
    assert [type(name) for name in counted.names] == [type(name) for name in names]
    assert counted.counts.tolist() == counts
    assert counted.counts.dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([10**18, 10**18 + 1, 10**18], (10**18, 10**18 + 1)),
        ([2**70, 2**70 + 1, 2**70], (2**70, 2**70 + 1)),
        ([2**63, 2**63 + 1, 2**63], (2**63, 2**63 + 1)),
        ([5, 2**63 + 1, 5], (5, 2**63 + 1)),
    ],
)
def test_huge_integer_labels_stay_apart_and_allocate_nothing(labels, names):
    assert class_counts(labels) == dict(zip(names, [2, 1], strict=True))


def test_negative_and_beyond_int64_labels_do_not_become_floats():
    assert class_counts([-1, 2**63, 2**63 + 1]) == {-1: 1, 2**63: 1, 2**63 + 1: 1}


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=40))
def test_counts_are_a_counter(labels):
    counted = class_counts(labels)
    assert counted == Counter(labels)
    assert list(counted) == sorted(set(labels))
    assert counted.total == len(labels)
    for same in (np.array(labels), torch.tensor(labels), pd.Series(labels), Counter(labels)):
        assert class_counts(same) == counted


@pytest.mark.parametrize("wrap", [pd.Series, lambda c: c, pd.Index])
def test_a_categorical_keeps_its_categories_and_their_order(wrap):
    labels = wrap(pd.Categorical(["b", "a", "b"], categories=["c", "b", "a"]))
    counted = class_counts(labels)
    assert counted.names == ("c", "b", "a")
    assert counted.counts.tolist() == [0, 2, 1]
    assert class_weights(counted)["c"] == 0.0
    with pytest.raises(TypeError, match=r"labels are missing \(NaN\) for 1 samples; drop or name them"):
        class_counts(wrap(pd.Categorical(["b", None], categories=["b"])))


def test_num_classes_fills_the_classes_without_samples():
    for labels in ([0, 2, 2], torch.tensor([0, 2, 2]), {0: 1, 2: 2}, Counter(np.array([0, 2, 2]))):
        counted = class_counts(labels, num_classes=4)
        assert counted.names == (0, 1, 2, 3)
        assert counted.counts.tolist() == [1, 0, 2, 0]
    assert class_counts(["a", "b"], num_classes=2).names == ("a", "b")


def test_multi_hot_labels_count_per_column():
    array = np.array([[1, 0, 1], [1, 0, 0]])
    for labels in (array, array.astype(bool), array.astype(np.float32), torch.tensor(array).bfloat16()):
        counted = class_counts(labels)
        assert counted == {0: 2, 1: 0, 2: 1}
    assert class_counts(pd.DataFrame(array, columns=["x", "labels", "z"])) == {"x": 2, "labels": 0, "z": 1}
    with pytest.raises(
        TypeError, match=r"source is two-dimensional but not multi-hot \(0 and 1 alone\); give one"
    ):
        class_counts(np.array([[0.5, 0.5]]))


@pytest.mark.parametrize(
    "labels",
    [pd.DataFrame({"y": [0, 0, 1]}), np.array([[0], [0], [1]]), torch.tensor([[0], [0], [1]])],
    ids=["frame", "array", "tensor"],
)
def test_one_column_of_labels_is_refused_and_not_taken_for_something_else(labels):
    for count in (class_counts, class_weight_dict):
        with pytest.raises(TypeError, match=r"source has shape \(3, 1\), one column, .*; give labels as df"):
            count(labels)
    for read in (sample_weights, ClassAwareSampler):
        with pytest.raises(TypeError, match=r"labels must be one-dim.* got shape \(3, 1\); give one column"):
            read(labels)


def test_a_mapping_is_taken_as_counted_and_in_its_order():
    counted = class_counts({"lynx": 10, "cat": 90})
    assert counted.names == ("lynx", "cat")
    assert class_counts(counted) is counted
    assert class_counts({"a": 0.5, "b": 2}).counts.tolist() == [0.5, 2.0]


# ---- data sets


class Labelled(torch.utils.data.Dataset):
    def __init__(self, targets, classes=None):
        self.targets = targets
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        raise AssertionError("counting must not load a sample")


def test_torch_data_sets():
    for targets in ([2, 0, 2], np.array([2, 0, 2]), torch.tensor([2, 0, 2])):
        assert class_counts(Labelled(targets)) == {0: 1, 2: 2}
        assert class_counts(Labelled(targets, ["cat", "dog", "lynx"])) == {"cat": 1, "dog": 0, "lynx": 2}
        subset = torch.utils.data.Subset(Labelled(targets, ["cat", "dog", "lynx"]), [0, 2])
        assert class_counts(subset) == {"cat": 0, "dog": 0, "lynx": 2}
        assert class_counts(torch.utils.data.Subset(subset, [1])) == {"cat": 0, "dog": 0, "lynx": 1}


def test_a_subset_takes_its_labels_by_position():
    subset = torch.utils.data.Subset
    for index in ([3, 2, 1, 0], [5, 6, 7, 8]):
        targets = pd.Series([0, 0, 0, 1], index=index)
        assert class_counts(subset(Labelled(targets), [0, 1])) == {0: 2}
        assert class_counts(subset(Labelled(targets.astype("category")), range(2))) == {0: 2, 1: 0}
    rows = [[1, 0], [1, 1], [0, 1]]
    for multi_hot in (np.array(rows), torch.tensor(rows), pd.DataFrame(rows, index=[2, 1, 0])):
        assert class_counts(subset(Labelled(multi_hot, ["cat", "dog"]), torch.tensor([0, 1]))) == {
            "cat": 2,
            "dog": 1,
        }
    with pytest.raises(TypeError, match="labels mix the types int, str"):
        class_counts(subset(Labelled([1, "a", 2]), [0, 1]))


def test_a_data_set_with_labels_by_name_is_aligned_by_name():
    data = Labelled(["b", "a", "a"], classes=["b", "a", "c"])
    assert list(class_counts(data).items()) == [("b", 1), ("a", 2), ("c", 0)]
    with pytest.raises(ValueError, match="labels hold 'z', which the data set's classes lack"):
        class_counts(Labelled(["z"], classes=["b", "a"]))


def test_an_attribute_called_labels():
    class Svhn:
        labels = np.array([1, 1, 0])

    assert class_counts(Svhn()) == {0: 1, 1: 2}


def test_a_data_sets_label_beyond_its_classes():
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.1 for num_classes=2, got 5"):
        class_counts(Labelled([0, 5], classes=["a", "b"]))


# ---- files


def written(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def test_a_label_column_is_counted(tmp_path):
    path = written(tmp_path, "train.csv", 'image,label\na.png,lynx\nb.png,cat\n\n"c,1.png",cat\n')
    assert list(class_counts(path, label="label").items()) == [("cat", 2), ("lynx", 1)]
    assert class_counts(str(path), label="label") == class_counts(path, label="label")
    path = written(tmp_path, "one.csv", 'y\ncat\n"lynx\n2"\ncat\n\n\n')  # lines at its end are no rows
    assert class_counts(path, label="y") == {"cat": 2, "lynx\n2": 1}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_tsv_byte_order_mark_and_line_ends(tmp_path, newline, bom):
    text = bom + newline.join(["label\timage", "b\t1", "a\t2", "b\t3"])
    assert class_counts(written(tmp_path, "x.TSV", text), label="label") == {"a": 1, "b": 2}


def test_a_table_of_counts_keeps_its_order(tmp_path):
    path = written(tmp_path, "counts.csv", "name,species,count\nlynx,4,10\ncat,2,90\nnone,1,0\n")
    counted = class_counts(path)
    assert list(counted.items()) == [("lynx", 10), ("cat", 90), ("none", 0)]
    assert class_counts(written(tmp_path, "only.csv", "count\n5\n2.5\n\n")) == {0: 5.0, 1: 2.5}
    assert class_counts(written(tmp_path, "sql.csv", "count,name\n10,a\n5,b\n")) == {"a": 10, "b": 5}


def test_integer_names_in_a_file_are_integers_in_their_order(tmp_path):
    text = "label\n" + "\n".join(map(str, [10, 9, 2, 10]))
    counted = class_counts(written(tmp_path, "x.csv", text), label="label")
    assert list(counted.items()) == [(2, 1), (9, 1), (10, 2)]
    assert class_counts(tmp_path / "x.csv", label="label", num_classes=11).counts.sum() == 4
    # codes that are not integers keep their text
    assert class_counts(written(tmp_path, "z.csv", "label\n01\n1\n"), label="label") == {"01": 1, "1": 1}
    assert class_counts(written(tmp_path, "t.csv", "id,count\n1,5\n0,7\n")) == {1: 5, 0: 7}


def test_a_long_file_is_streamed(tmp_path):
    path = written(tmp_path, "long.csv", "label\n" + "a\n" * 150_000 + "b\n" * 50_000)
    assert class_counts(path, label="label") == {"a": 150_000, "b": 50_000}


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [
        ("image,label\n1,a\n", "lable", r"label='lable' is no column of .*x\.csv'; it has 'image', 'label'"),
        (
            "image,label\n1,a\n",
            None,
            r"label 'count' is no column of .*; it has 'image', 'label'; name the label column",
        ),
        (
            "name;count\na;980\nb;12,000\n",
            None,
            r"count '12,000' in line 3 of .* may be decimal .*; write 12000 if",
        ),
        (
            "name,count\na,980\nb,12.000\n",
            None,
            r"count '12.000' in line 3 of .* a point .*; write 12000, or 12",
        ),
        ("name,count\na,many\n", None, r"count 'many' in line 2 of .*x\.csv' is no number"),
        ("name,count\na,-1\n", None, r"counts must be finite and >= 0, got -1\.0 at position 0; give"),
        ("name,count\na,inf\n", None, r"counts must be finite and >= 0, got inf at position 0; give"),
        ("name,count\na,1\nb,2\na,3\n", None, r"class 'a' occurs twice in .*x\.csv' \(line 4\)"),
        ("name,count\na,1\nb\n", None, r"line 3 of .*x\.csv' has 1 fields, fewer than its header"),
        (
            "name,count\na,\n",
            None,
            r"line 2 of .*x\.csv' has an empty field where a value is needed; fill it",
        ),
        (
            "image,label\n1,a\n2,\n",
            "label",
            r"line 3 of .*x\.csv' has an empty field where a value is needed; fill it",
        ),
        ("name,count\n,10\nb,5\n", None, r"line 2 of .*x\.csv' has an empty field where a value is needed"),
        ("name,count\na,10\n  ,5\n", None, r"line 3 of .*x\.csv' has an empty field where a value is needed"),
        ("count,name\n10,a\n5,\n", None, r"line 3 of .*x\.csv' has an empty field where a value is needed"),
        ("count\n10\n\n5\n", None, r"line 3 of .*x\.csv' has an empty field where a value is needed"),
        ("y\ncat\n\ndog\n", "y", r"line 3 of .*x\.csv' has an empty field where a value is needed"),
        ("name,count\n", None, r"source .*x\.csv' has no rows below its header"),
        ("label\n", "label", r"source .*x\.csv' has no rows below its header"),
        ("", "label", r"source .*x\.csv' is empty; it needs a header line"),
    ],
)
def test_bad_files(tmp_path, text, label, message):
    with pytest.raises(ValueError, match=message):
        class_counts(written(tmp_path, "x.csv", text), label=label)


def test_bad_paths(tmp_path):
    with pytest.raises(ValueError, match=r"source .*gone\.csv' is no file and no folder; check the path"):
        class_counts(tmp_path / "gone.csv")
    with pytest.raises(ValueError, match=r"source 'cat' is no file and no folder; check the path"):
        class_counts("cat")
    with pytest.raises(
        ValueError, match=r"source must be a \.csv, .*x\.docx'; read other formats into a list"
    ):
        class_counts(written(tmp_path, "x.docx", "label\n1\n"), label="label")
    with pytest.raises(ValueError, match=r"source .*latin\.csv' is not UTF-8 text"):
        class_counts(written(tmp_path, "latin.csv", "label\nmüll\n", "latin-1"), label="label")


@pytest.mark.parametrize("path", sorted(REAL.glob("*.csv")), ids=lambda path: path.stem)
def test_real_benchmarks(path):
    """Class counts of published long-tailed benchmarks; SOURCES.md beside them says where they are from."""
    counted, table = class_counts(path), pd.read_csv(path)
    assert counted.total == table["count"].sum()
    assert list(counted.names) == table.iloc[:, 0].tolist()
    assert counted.imbalance_factor == table["count"].max() / table["count"].min()
    weights = class_weights(counted, volume=float(max(2, table["count"].min())))
    assert sum(weights.values()) == pytest.approx(len(table), rel=1e-12)
    order = np.argsort(counted.counts, kind="stable")
    assert (np.diff(weights.weights[order]) <= 1e-15 * weights.weights.max()).all()


# ---- the type


def test_class_counts_are_a_mapping_an_array_and_plain_data():
    counts = ClassCounts(["cat", "lynx", "none"], [90, 10, 0])
    assert dict(counts) == {"cat": 90, "lynx": 10, "none": 0}
    assert type(counts["cat"]) is int
    assert np.asarray(counts).tolist() == [90, 10, 0]
    assert (counts.total, counts.imbalance_factor) == (100, 9.0)
    assert math.isnan(ClassCounts(["a"], [0]).imbalance_factor)
    assert repr(counts) == "ClassCounts({'cat': 90, 'lynx': 10, 'none': 0})"
    assert repr(ClassCounts(range(12), range(12))).endswith("9: 9, ... 2 more})")
    for twin in (copy.deepcopy(counts), pickle.loads(pickle.dumps(counts))):
        assert twin == counts
        assert twin.names == counts.names
    with pytest.raises(ValueError, match="read-only"):
        counts.counts[0] = 1
    with pytest.raises(KeyError):
        counts["puma"]
    weights = class_weights(counts)
    assert pickle.loads(pickle.dumps(weights)) == weights
    assert isinstance(copy.deepcopy(weights), ClassWeights)


def test_a_tensor_of_them_holds_the_values_and_not_the_names():
    counts = ClassCounts([0, 1, 2], [90, 10, 5])
    weights = class_weights(counts)
    for convert in (torch.tensor, torch.as_tensor, torch.asarray):
        assert convert(counts).tolist() == [90, 10, 5]
        assert convert(weights, dtype=torch.float64).tolist() == weights.weights.tolist()
    torch.as_tensor(counts)[0] = 7  # a copy
    assert counts[0] == 90


def test_whole_counts_are_integers_and_sums_do_not_wrap_around():
    assert ClassCounts("ab", [1.0, 2.0]).counts.dtype == np.int64
    assert ClassCounts("ab", [1.5, 2.0]).counts.dtype == np.float64
    assert ClassCounts("ab", torch.tensor([1, 2])) == {"a": 1, "b": 2}
    big = 2**53 + 1
    assert ClassCounts("a", [big])["a"] == big
    assert ClassCounts("abc", [2**61] * 3).total == 3 * 2**61
    assert ClassCounts("ab", [1e300, 1]).total == 1e300


def test_the_array_given_is_not_held():
    given_counts = np.array([1, 2])
    counts = ClassCounts("ab", given_counts)
    given_counts[0] = 9
    assert counts["a"] == 1


@pytest.mark.parametrize(
    ("names", "counts", "error", "message"),
    [
        (
            "ab",
            [1],
            ValueError,
            r"ClassCounts needs one value a name, got 2 names and values of shape \(1,\)",
        ),
        ("aa", [1, 2], ValueError, "names must differ, got 'a' more than once"),
        (
            "ab",
            [1, -2],
            ValueError,
            r"counts must be finite and >= 0, got -2\.0 at position 1; give the number",
        ),
        ("ab", [1, math.nan], ValueError, "counts must be finite and >= 0, got nan at position 1"),
        ("ab", ["1", "2"], TypeError, r"counts must be numbers, got list \['1', '2'\]; convert them first"),
        ("ab", [[1, 2]], ValueError, r"got 2 names and values of shape \(1, 2\)"),
    ],
)
def test_bad_class_counts(names, counts, error, message):
    with pytest.raises(error, match=message):
        ClassCounts(names, counts)


# ---- bad labels


@pytest.mark.parametrize(
    ("source", "kwargs", "error", "message"),
    [
        ([1, None], {}, TypeError, r"labels are missing \(None or NaN\) for 1 samples; drop or name them"),
        (["a", None, math.nan], {}, TypeError, r"labels are missing \(None or NaN\) for 2 samples; drop"),
        ([0.0, math.nan], {}, TypeError, "labels are NaN or infinite for 1 samples; drop or name them"),
        (torch.tensor([0.0, math.inf]), {}, TypeError, "labels are NaN or infinite for 1 samples; drop"),
        (
            pd.Series([1, None], dtype="Int64"),
            {},
            TypeError,
            "labels are .* for 1 samples; drop or name them",
        ),
        (pd.Series(["a", None], dtype="string"), {}, TypeError, r"labels are missing .* for 1 samples; drop"),
        (pd.Series(["a", None]), {}, TypeError, r"labels are missing .* for 1 samples; drop"),
        (pd.to_datetime(["2024-01-01", None]), {}, TypeError, r"labels are missing .* for 1 samples; drop"),
        ([1, "a"], {}, TypeError, "labels mix the types int, str; convert them to one"),
        ([True, 2], {}, TypeError, "labels mix the types bool, int; convert them to one"),
        ([1, 2.0], {}, TypeError, "labels mix the types float, int; convert them to one"),
        (
            pd.Series([1, "a"], dtype=object),
            {},
            TypeError,
            "labels mix the types int, str; convert them to one",
        ),
        ([1j, 2j], {}, TypeError, "labels must be .* got .*complex128"),
        ([], {}, ValueError, "source must hold at least one label, got none"),
        (np.array([], dtype=np.int64), {}, ValueError, "source must hold at least one label, got none"),
        ({}, {}, ValueError, "source must name at least one class, got an empty mapping"),
        ({"a": "3"}, {}, TypeError, r"counts must be numbers, got list \['3'\]"),
        ({"a": -3}, {}, ValueError, r"counts must be finite and >= 0, got -3\.0 at position 0"),
        (None, {}, TypeError, "labels must be a sequence with one label a sample, got NoneType None"),
        (5, {}, TypeError, "labels must be a sequence with one label a sample, got int 5"),
        ({1, 2}, {}, TypeError, r"labels must be a sequence with one label a sample, got set \{1, 2\}"),
        (
            [[1, 2], [3, 4]],
            {},
            TypeError,
            r"labels must be one-dimensional, one label a sample, got shape \(2, 2\)",
        ),
        ([[1], [3, 4]], {}, TypeError, "labels must be a sequence with one label a sample, got list"),
        (np.zeros((2, 2, 2)), {}, TypeError, r"labels must be one-dimensional, .* got shape \(2, 2, 2\)"),
        (np.array(3), {}, TypeError, r"labels must be one-dimensional, one label a sample, got shape \(\)"),
        ([0, 7], {"num_classes": 3}, ValueError, r"labels must be in 0\.\.2 for num_classes=3, got 7"),
        ([0, -100], {"num_classes": 3}, ValueError, r"labels must be in 0\.\.2 for num_classes=3, got -100"),
        (["a"], {"num_classes": 3}, ValueError, r"num_classes=3 needs integer labels 0\.\.2, got 'a'"),
        ([0, 1], {"num_classes": 0}, ValueError, r"num_classes must be in \[1, inf\], got 0"),
        ([0, 1], {"num_classes": 2.5}, ValueError, r"num_classes must be a whole number, got 2\.5"),
        ([0, 1], {"num_classes": "2"}, TypeError, r"num_classes must be a number in \[1, inf\], got str '2'"),
        (
            [0, 1],
            {"label": "y"},
            TypeError,
            r"label='y' names a column of a file, but source is list \[0, 1\]",
        ),
    ],
)
def test_bad_input(source, kwargs, error, message):
    with pytest.raises(error, match=message):
        class_counts(source, **kwargs)


# ---- masks and tags


@pytest.mark.parametrize("kind", ["array", "list", "tensors", "generator", "pictures"])
def test_masks_by_image_and_by_pixel(kind, rng):
    masks = rng.integers(0, 4, (6, 8, 5)).astype(np.uint8)
    masks[0], masks[1:, :3], masks[3:][masks[3:] == 2] = 255, 0, 0

    def source():
        if kind == "array":
            return masks
        if kind == "tensors":
            return pytest.importorskip("torch").from_numpy(masks)[
                :, None
            ]  # (1, H, W), as torchvision has them
        if kind == "pictures":
            image = pytest.importorskip("PIL.Image")
            return [image.fromarray(mask) for mask in masks]
        return list(masks) if kind == "list" else (mask for mask in masks)

    known = masks[masks != 255]
    pixels = class_counts(source(), ignore_index=255, per="pixel", num_classes=5)
    assert pixels.counts.tolist() == np.bincount(known, minlength=5).tolist()
    images = class_counts(source(), ignore_index=255, per="image", num_classes=5)
    assert images.counts.tolist() == [int((masks == c).any((1, 2)).sum()) for c in range(5)]
    assert images.counts[2] == 2
    with pytest.raises(ValueError, match=r"masks hold 255.*ignore_index=255, or pass num_classes=256"):
        class_counts(source(), per="image", num_classes=5)


def test_tags_by_token_and_by_span():
    text = [["O", "O", "B-PER", "I-PER", "I-PER", "B-PER", "B-PER", "O"], ["B-LOC"], []]
    ids = [["O", "B-PER", "I-PER", "B-LOC"].index(tag) for tag in text[0]]
    assert class_counts(text, per="token") == {"B-LOC": 1, "B-PER": 3, "I-PER": 2, "O": 3}
    assert class_counts(text, per="span") == {"B-LOC": 1, "B-PER": 3, "I-PER": 1, "O": 2}
    padded = np.array([[*ids, -100], [3] + [-100] * 8])
    padded[0, 4] = -100  # the second part of a word
    found = class_counts(padded, per="span", ignore_index=-100)
    assert found.counts.tolist() == [2, 2, 1, 1]  # by ids two entities side by side are one run
    with pytest.raises(ValueError, match="labels hold -100, which is no class; leave it out by"):
        class_counts(padded, per="token")
    assert class_counts([0, 1, 1, -100], ignore_index=-100) == {0: 1, 1: 2}


@pytest.mark.parametrize(
    ("source", "per", "message"),
    [
        (np.zeros((2, 4, 4), int), None, "of masks or tags say what one sample is: per='image'"),
        ([[0, 1, 2], [0]], None, "of masks or tags say what one sample is: per='image'"),
        (np.arange(6).reshape(2, 3), None, "not multi-hot.*of masks or tags say what"),
        (np.zeros((2, 4, 4)), "pixel", "must hold integers.*read masks without scaling them"),
        (
            [(np.zeros((3, 4, 4)), np.zeros((4, 4), int))],
            "pixel",
            r"give masks alone, \(mask for _,",
        ),
        (np.zeros((2, 4, 4, 3), int), "pixel", "seems to be colours"),
        (np.zeros((4, 4), int), "image", r"one after the other, got shape \(4,\); .* of one mask \[mask\]"),
        ([np.zeros((2, 4, 4), int)], "image", "for mask in batch"),
        (["O", "B-PER"], "span", "needs sequences of tags"),
        (np.zeros((1, 4, 4), int), "imag", "did you mean 'image'"),
        ("masks", "image", "but source is str 'masks'"),
        ([np.full((2, 2), -1)], "pixel", "leave it out by ignore_index=-1"),
    ],
)
def test_masks_that_cannot_be_counted_are_refused(source, per, message):
    with pytest.raises((TypeError, ValueError), match=message):
        class_counts(source, per=per)


def test_a_series_of_counts_or_shares_is_not_counted_as_labels():
    labels = pd.Series(["cat"] * 5 + ["ant"] * 2 + ["dog"] * 9, name="y")
    for sizes in (labels.groupby(labels).size().rename(None), labels.to_frame().groupby("y").size()):
        with pytest.raises(ValueError, match=r"source\.rename\('count'\) if they are counts"):
            class_counts(sizes)
        assert dict(class_counts(sizes.rename("count"))) == {"ant": 2, "cat": 5, "dog": 9}
        assert dict(class_counts(sizes.to_numpy())) == {2: 1, 5: 1, 9: 1}
    with pytest.raises(ValueError, match=r"are proportions, .*leave normalize out"):
        class_counts(labels.value_counts(normalize=True))
    with pytest.raises(ValueError, match=r"source\.rename\('count'\) if they are counts"):
        class_counts(labels.to_frame().assign(x=1).groupby("y")["x"].count())  # more than 3 in 3 rows
    with pytest.raises(ValueError, match="beside 'y', of which most differ"):  # of no name, however few
        class_counts(pd.Series([1, 2, 3], index=pd.Index(list("abc"), name="y")))
    column = pd.DataFrame({"id": range(10), "label": [0, 0, 1, 1, 2, 2, 3, 3, 4, 5]}).set_index("id")["label"]
    assert dict(class_counts(column)) == {0: 2, 1: 2, 2: 2, 3: 2, 4: 1, 5: 1}
    files = pd.Index([f"{i}.jpg" for i in range(16)], name="file")
    assert dict(class_counts(pd.Series([0] * 12 + [1] * 4, index=files))) == {0: 12, 1: 4}  # labels by file


def test_weights_are_no_number_of_samples():
    with pytest.raises(TypeError, match="n must be numbers of training samples, got ClassWeights"):
        effective_number(class_weights(class_counts([0, 0, 1])), 0.9)
    with pytest.raises(TypeError, match="counts must be numbers of training samples, got ClassWeights"):
        suggest_beta(class_weights(class_counts([0, 0, 1]), "none"))


@pytest.mark.parametrize("names", [["Cat", "cat"], ["dog", "d og", "bird"], ["Straße", "STRASSE"]])
def test_names_that_differ_only_in_capitals_or_blanks_are_told(names):
    with pytest.warns(UserWarning, match="differ only in capitals or blanks"):
        counts = class_counts(names + names[:1])
    assert list(map(counts.get, names[:2])) == [2, 1]  # told, not changed


def test_names_that_differ_in_letters_are_not_told():
    class_counts(["Cat", "Bat", "cats", "1", "11"])  # a warning is an error here


def test_names_with_commas_stand_in_quotes():
    labels = ["a b", "c,d", "9", "10"]
    assert class_counts(labels, order='9, 10,"c,d",a b').names == ("9", "10", "c,d", "a b")
    with pytest.raises(
        ValueError, match=r"order lacks 'c,d', .* once, those with a comma in quotes, as \"c,d\""
    ):
        class_counts(labels, order="9,10,a b,c,d")
    pandas = pytest.importorskip("pandas")
    marks = pandas.DataFrame({"c,d": [1, 0], "a": [1, 1]})
    assert class_counts(marks, labels='"c,d",a') == {"c,d": 1, "a": 2}


def test_a_last_tensor_that_may_be_no_labels_is_refused():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset
    x, y = torch.zeros(6, 2), torch.tensor([0, 0, 0, 0, 1, 1])
    weights = torch.tensor([0.5, 1.0, 2.0, 0.1, 0.2, 0.3])
    told = r"dataset.tensors\[1\] or dataset.tensors\[2\]$"  # of lengths and labels it is the last
    for last, why in ((weights, "holds fractions"), (torch.arange(6), "2 of them have one value a sample")):
        for source in (data(x, y, last), torch.utils.data.DataLoader(data(x, y, last))):
            with pytest.raises(TypeError, match=rf"holds 3 tensors, and .*{why}.*; give them, {told}"):
                class_counts(source)
    assert class_counts(data(x, x, y)) == {0: 4, 1: 2}  # as of ids, their mask and labels
    assert class_counts(data(x, x, y.float())) == {0.0: 4, 1.0: 2}


def test_rows_of_many_labels_in_parts_are_counted():
    torch = pytest.importorskip("torch")
    x, y = torch.zeros(6, 2), torch.tensor([[0, 1, 1], [1, 0, 1], [0, 0, 1]] * 2).float()
    whole = torch.utils.data.TensorDataset(x, y)
    parts = torch.utils.data.ConcatDataset([torch.utils.data.Subset(whole, [0, 1]), whole])
    counts = class_counts(torch.utils.data.DataLoader(parts))
    assert (counts.counts.tolist(), counts.num_samples) == ([3, 3, 8], 8)
    narrow = torch.utils.data.TensorDataset(torch.zeros(2, 2), torch.ones(2, 7))
    with pytest.raises(ValueError, match=r"targets of other shapes: .*\(7,\); count them one by one"):
        class_counts(torch.utils.data.ConcatDataset([whole, narrow]))
    maps = torch.utils.data.TensorDataset(torch.zeros(2, 2), torch.ones(2, 4, 4))
    with pytest.raises(TypeError, match=r"got shape \(4, 4, 4\).*of masks or tags"):  # as of one of them
        class_counts(torch.utils.data.ConcatDataset([maps, maps]))


def test_labels_that_occur_once_each_are_told(rng):
    for labels in (rng.random(50), [f"s{i}" for i in range(20)]):
        with pytest.warns(
            UserWarning, match="labels of the source occurs once; give the class of each sample"
        ):
            class_counts(labels)
    class_counts([f"s{i}" for i in range(19)])


def test_labels_where_counts_belong_say_how_to_count():
    for labels in (["no"] * 9 + ["yes"], np.array(["no", "yes"], dtype=object)):
        with pytest.raises(
            TypeError, match=r"counts must be numbers, got .*; count them, class_counts\(labels\)"
        ):
            class_weights(labels)
