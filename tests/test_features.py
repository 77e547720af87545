"""The file of features: what comes back, and what is refused in one line."""

import zipfile

import numpy as np
import pytest

from longtail.compare.problem import Problem
from longtail.datasets.features import Features
from longtail.sources import arrays, frames


def features(**changes):
    given = {
        "X": np.arange(12, dtype=np.float32).reshape(4, 3),
        "y": np.array([0, 0, 1, 1]),
        "class_names": ("cat", "lynx"),
        "paths": np.array(["a.jpg", "b.jpg", "ü.jpg", "d.jpg"]),
        "groups": np.array(["1", "1", "2", "3"]),
        "X_test": np.ones((2, 3), np.float32),
        "y_test": np.array([1, 0]),
        "about": {"model": "vit", "pooling": "mean over tokens"},
    }
    return Features(**{**given, **changes})


@pytest.mark.parametrize("changes", [{}, {"X_test": None, "y_test": None}, {"paths": None, "groups": None}])
def test_what_is_saved_is_loaded(changes, tmp_path):
    before = features(**changes)
    after = Features.load(before.save(tmp_path / "new" / "features.npz"))
    for name, value in vars(before).items():
        if isinstance(value, np.ndarray):
            assert getattr(after, name).dtype == value.dtype
            np.testing.assert_array_equal(getattr(after, name), value)
        else:
            assert getattr(after, name) == value
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["features.npz"]


@pytest.mark.parametrize(
    ("arrays", "names", "y", "y_test"),
    [
        ({"y": ["b", "a", "b"], "y_test": ["a"]}, ("a", "b"), [1, 0, 1], [0]),
        ({"y": ["b", "a", "b"], "y_test": ["a"], "class_names": ["b", "a"]}, ("b", "a"), [0, 1, 0], [1]),
        ({"y": [7, 3, 7], "y_test": [3]}, ("3", "7"), [1, 0, 1], [0]),
        ({"y": [1, 0, 1], "y_test": [0], "class_names": ["x", "y"]}, ("x", "y"), [1, 0, 1], [0]),
    ],
)
def test_classes_are_names_or_numbers(arrays, names, y, y_test, tmp_path):
    path = tmp_path / "f.npz"
    np.savez(path, X=np.ones((3, 2)), X_test=np.ones((1, 2)), **{k: np.array(v) for k, v in arrays.items()})
    loaded = Features.load(path)
    assert loaded.class_names == names
    assert loaded.y.tolist() == y
    assert loaded.y_test.tolist() == y_test


NAN = np.full((4, 3), np.nan, np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": NAN}, "^X has NaN or infinite features in 4 of 4 rows, first in row 0; leave"),
        ({"X_test": np.full((2, 3), np.inf, np.float32)}, "^X_test has NaN or infinite .* of 2 rows"),
        ({"X": np.ones((3, 3), np.float32)}, r"^y has shape \(4,\) for 3 rows of X"),
        ({"X": np.ones((4, 3), int)}, "^X must hold floats of shape .N, D., got ndarray"),
        ({"X": np.ones((4, 5), np.float32)}, "^X_test has 3 features and X 5; make both by one model"),
        ({"y": np.array([0, 1, 2, 0])}, "^y must hold integers from 0 to 1, .* got int64 from 0 to 2"),
        ({"y": np.array([0, -1, 1, 0])}, "got int64 from -1 to 1"),
        ({"y_test": np.array([1])}, r"^y_test has shape \(1,\) for 2 rows of X_test"),
        ({"y_test": None}, "^X_test and y_test belong together"),
        ({"groups": np.array(["1"])}, r"^groups has shape \(1,\) for 4 rows of X"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        features(**changes)


def written(tmp_path, **arrays):
    np.savez(tmp_path / "f.npz", **arrays)
    return tmp_path / "f.npz"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": [0]}, "has no X, only 'y'; name the features X"),
        ({"a": [0]}, "has no X and no y"),
        ({"X": np.ones((1, 2)), "y": np.array([None])}, "cannot be read .*plain arrays"),
        ({"X": np.ones((2, 2)), "y": ["a", "b"], "class_names": ["a"]}, "class 'b' is none of the 1 classes"),
        (
            {"X": np.ones((1, 2)), "y": [0.5], "class_names": ["a"]},
            "y must hold whole numbers or names, got fl",
        ),
        ({"X": np.ones((1, 2)), "y": [2], "class_names": ["a"]}, "y must hold integers from 0 to 0"),
        ({"X": np.ones((1, 2)), "y": 2}, "y"),
        ({"X": np.ones((1, 2)), "y": ["a"], "X_test": np.ones((1, 2)), "y_test": [1]}, "class 1 is none"),
        ({"X": np.full((1, 2), np.nan), "y": [0]}, "f.npz: X has NaN"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(arrays, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        Features.load(written(tmp_path, **arrays))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not there"):
        Features.load(tmp_path / "none.npz")
    for content in (b"", b"PK\x03\x04 cut", b"text"):
        (tmp_path / "f.npz").write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read"):
            Features.load(tmp_path / "f.npz")
    np.save(tmp_path / "f.npy", np.ones(3))
    with pytest.raises(ValueError, match=r"must be a .npz or .parquet file"):
        Features.load(tmp_path / "f.npy")
    (tmp_path / "f.npy").rename(tmp_path / "f.npz")
    with pytest.raises(ValueError, match="cannot be read"):
        Features.load(tmp_path / "f.npz")


def test_a_damaged_file_is_one_line(tmp_path):
    np.savez_compressed(tmp_path / "f.npz", X=np.random.default_rng(0).normal(size=(50, 4)), y=np.arange(50))
    whole = (tmp_path / "f.npz").read_bytes()
    for at in (60, 400, len(whole) // 2):
        (tmp_path / "f.npz").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF] * 8) + whole[at + 8 :])
        for read in (Features.load, Problem.from_features):
            with pytest.raises(ValueError, match=r"f.npz cannot be read .*give an .npz file") as caught:
                read(tmp_path / "f.npz")
            assert "\n" not in str(caught.value)
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as file:
        file.writestr("X", "no array")
    with pytest.raises(ValueError, match="cannot be read"):
        Features.load(tmp_path / "f.npz")
    for read in (Features.load, Problem.from_features):
        with pytest.raises(FileNotFoundError, match=r"features .*none.npz is not there; longtail"):
            read(tmp_path / "none.npz")


# ---- files of others


def test_whole_numbers_in_parquet_are_features(tmp_path):
    polars = pytest.importorskip("polars")
    whole, y, path = np.arange(60).reshape(30, 2) % 7, ["a", "b"] * 15, tmp_path / "f.parquet"
    for values in (whole.tolist(), (whole > 2).tolist()):
        polars.DataFrame({"v": values, "y": y}).write_parquet(path)
        np.testing.assert_array_equal(Problem.from_features(path).inputs, values)
    polars.DataFrame({"v": [[1, None]] + [[1, 2]] * 29, "y": y}).write_parquet(path)
    with pytest.raises(ValueError, match="hold NaN or infinity, first in row 0"):
        Problem.from_features(path)
    income = [20_000 + 31 * i for i in range(30)]
    polars.DataFrame({"income": income, "few": whole[:, 0], "y": y}).write_parquet(path)
    with pytest.warns(UserWarning, match="every row has another whole number in 'income'; leave out"):
        problem = Problem.from_features(path)
    assert problem.inputs[:, 0].tolist() == income
    polars.DataFrame({"year": range(1990, 2020), "y": y}).write_parquet(path)
    with pytest.warns(UserWarning, match="every row has another whole number in 'year'"):
        Problem.from_features(path)


@pytest.mark.parametrize("held", [True, False])
def test_features_in_parquet_are_columns_or_one_column_of_lists(held, tmp_path, monkeypatch, rng):
    if not held:  # as of files of gigabytes, in parts of two rows
        monkeypatch.setattr(frames, "_IN_MEMORY", 100)
        monkeypatch.setattr(frames, "_VALUES", 6)
        monkeypatch.setattr(arrays, "_ROWS", 2)
    polars = pytest.importorskip("polars")
    X, y = rng.normal(size=(30, 3)).astype(np.float32), ["a", "b"] * 15
    more = {"y": y, "groups": [i // 3 for i in range(30)], "paths": [f"{i}.jpg" for i in range(30)]}
    wide = {f"f{i}": X[:, i] for i in range(3)}
    lists = {"v": polars.Series(X.tolist(), dtype=polars.List(polars.Float32))}
    for columns in (wide, lists):
        polars.DataFrame(columns | more).write_parquet(tmp_path / "f.parquet")
        problem = Problem.from_features(tmp_path / "f.parquet")
        np.testing.assert_array_equal(problem.inputs, X)
        assert isinstance(problem.inputs, np.memmap) is not held
        assert len(np.unique(problem.groups)) == 10
    for columns, message in (
        (wide | {"id": range(30)}, "column 'id' of .* is an identifier"),
        (wide | {"id": [1 + i * 7 % 30 for i in range(30)]}, "column 'id' of .* is an identifier"),
        (
            {"v": [[1.0, 2.0]] * 29 + [[1.0]]},
            "column 'v' of .* must hold lists of one length, got lengths from 1",
        ),
        ({"v": [["a"]] * 30}, "column 'v' of .* must hold lists of numbers"),
        ({"z": y}, "columns that are no numbers: 'z'"),
    ):
        polars.DataFrame(columns | {"y": y}).write_parquet(tmp_path / "bad.parquet")
        with pytest.raises((TypeError, ValueError), match=message):
            Problem.from_features(tmp_path / "bad.parquet")
    polars.DataFrame(wide | {"kind": y}).write_parquet(tmp_path / "bad.parquet")
    with pytest.raises(ValueError, match=r"has no column 'y', only 'f0', .*; .* by label=COLUMN"):
        Problem.from_features(tmp_path / "bad.parquet")
    assert Problem.from_features(tmp_path / "bad.parquet", label="kind").inputs.shape == (30, 3)


@pytest.mark.parametrize(
    ("y", "names", "message"),
    [
        ([1, 2], ["cat", "lynx"], "class_names 'cat', 'lynx' do not fit the labels 1, 2"),
        ([0, 1], ["cat"], "class_names 'cat' do not fit the labels 0, 1"),
        (["cat", "lynx"], ["cat", "ape"], "class_names 'cat', 'ape' do not fit the labels 'cat', 'lynx'"),
        ([0, 1], ["cat", "lynx", "ape"], "classes 'ape' have no training sample"),
    ],
)
def test_class_names_that_do_not_fit_the_labels_are_refused(y, names, message, tmp_path, rng):
    path = tmp_path / "f.npz"
    np.savez(path, X=rng.normal(size=(20, 3)), y=np.array(y * 10), class_names=names)
    with pytest.raises(ValueError, match=message):
        Problem.from_features(path)


def test_class_names_fix_the_order_of_labels_that_are_names(tmp_path, rng):
    path = tmp_path / "f.npz"
    np.savez(path, X=rng.normal(size=(20, 3)), y=np.array(["cat", "ape"] * 10), class_names=["cat", "ape"])
    problem = Problem.from_features(path)
    assert problem.class_names == ("cat", "ape")
    assert problem.targets.tolist() == [0, 1] * 10
