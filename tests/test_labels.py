"""Labels in objects of every library: counted without loading a sample, or refused at once."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
import torch
from sklearn.datasets import load_iris
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from longtail import class_counts

pl = pytest.importorskip("polars")

LABELS = [2, 0, 2, 1, 2]
WANTED = {0: 1, 1: 1, 2: 3}


class Data(torch.utils.data.Dataset):
    """A data set that must not be read."""

    def __init__(self, **attributes):
        vars(self).update(attributes)

    def __len__(self):
        return 10**9

    def __getitem__(self, index):
        raise AssertionError("counting must not load a sample")


class Stream(IterableDataset):
    def __iter__(self):
        raise AssertionError("counting must not load a sample")


@pytest.mark.parametrize(
    "source",
    [
        *(
            Data(targets=LABELS),
            Data(labels=np.array(LABELS)),
            Data(_labels=LABELS),
            Data(y=torch.tensor(LABELS)),
        ),
        *(Data(samples=[(f"{y}.jpg", y) for y in LABELS]), Data(_samples=[("a", y) for y in LABELS])),
        Data(img_labels=pd.DataFrame({"file": list("abcde"), "y": LABELS})),
        TensorDataset(torch.zeros(5, 3), torch.tensor(LABELS)),
        Subset(TensorDataset(torch.zeros(6, 3), torch.tensor([1, *LABELS])), range(1, 6)),
        ConcatDataset([Data(targets=LABELS[:2]), TensorDataset(torch.zeros(3), torch.tensor(LABELS[2:]))]),
        Subset(ConcatDataset([Data(targets=[0, 0]), Data(targets=LABELS)]), [2, 3, 4, 5, 6]),
        DataLoader(TensorDataset(torch.zeros(5), torch.tensor(LABELS)), batch_size=2),
        DataLoader(Data(targets=[1, *LABELS]), sampler=SubsetRandomSampler([1, 2, 3, 4, 5])),
        *(pl.Series(LABELS), pa.array(LABELS), pa.chunked_array([LABELS[:2], LABELS[2:]])),
        np.ma.masked_array(LABELS, mask=False),
        [torch.tensor(y) for y in LABELS],
        [np.int64(y) for y in LABELS],
    ],
    ids=lambda source: type(source).__name__,
)
def test_labels_are_found_and_nothing_is_loaded(source):
    assert class_counts(source) == WANTED


@pytest.mark.parametrize(
    "source", [Data(), Stream(), Subset(Data(), [0]), DataLoader(Data()), Data(targets=None)]
)
def test_what_would_have_to_be_loaded_is_refused_at_once(source):
    with pytest.raises(
        TypeError, match=r"without targets, labels or samples; .* give the labels alone, as a list"
    ):
        class_counts(source)


def test_classes_of_data_sets_name_the_counts():
    data = Data(samples=[("a", 1), ("b", 1)], class_to_idx={"dog": 1, "cat": 0})
    assert list(class_counts(data).items()) == [("cat", 0), ("dog", 2)]
    both = ConcatDataset([Data(targets=[0], classes=["a", "b"]), Data(targets=[1, 1], classes=["a", "b"])])
    assert class_counts(both) == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match="the data sets inside have other classes"):
        class_counts(ConcatDataset([Data(targets=[0], classes=["a"]), Data(targets=[0], classes=["b"])]))
    assert class_counts(load_iris()) == {"setosa": 50, "versicolor": 50, "virginica": 50}


MULTI = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 0], [1, 0, 1]])


@pytest.mark.parametrize(
    "source",
    [
        *(MULTI, pd.DataFrame(MULTI), torch.tensor(MULTI).float()),
        *(f(MULTI) for f in (scipy.sparse.csr_matrix, scipy.sparse.coo_array, scipy.sparse.lil_matrix)),
        *(torch.tensor(MULTI).to_sparse(), Data(targets=MULTI)),
        TensorDataset(torch.zeros(4), torch.tensor(MULTI)),
    ],
    ids=lambda source: type(source).__name__,
)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_rows_of_0_and_1_dense_and_sparse(source):
    counted = class_counts(source)
    assert counted == {0: 3, 1: 0, 2: 2}
    assert counted.num_samples == 4


def test_sparse_rows_of_something_else_are_refused_and_never_made_dense():
    with pytest.raises(TypeError, match=r"is sparse, of shape .*, but not multi-hot"):
        class_counts(scipy.sparse.csr_matrix([[2, 0], [0, 1]]))
    huge = scipy.sparse.coo_array(([1, 1], ([0, 10**8], [0, 9_999])), shape=(10**9, 10**4))
    assert class_counts(huge).num_samples == 10**9


@pytest.mark.parametrize("kind", [list, set, tuple, frozenset])
def test_tags_of_a_sample(kind):
    tags = [kind(["rust", "dent"]), kind(["rust"]), kind([])]
    for source in (tags, pd.Series(tags)):
        counted = class_counts(source)
        assert list(counted.items()) == [("dent", 1), ("rust", 2)]
        assert counted.num_samples == 3
    assert class_counts([{3, 10}, {3}]) == {3: 2, 10: 1}
    with pytest.raises(TypeError, match=r"several labels a sample are a set each, or an array of 0 and 1"):
        class_counts([[3, 10], [3, 4]])  # may be one-hot, or two labels a sample
    with pytest.raises(TypeError, match="missing"):
        class_counts([{"a", None}, {"b"}])


def test_missing_labels_in_objects():
    for source in (
        *(pl.Series(["a", None]), pa.array(["a", None]), np.ma.masked_array([1, 2], mask=[False, True])),
        *(pl.Series(["a", None], dtype=pl.Enum(["b", "a"])), pd.Series([1, None], dtype="Int64")),
        *(Data(targets=["a", "NA"]), Data(targets=np.array([1.0, np.nan]))),
    ):
        with pytest.raises(TypeError, match=r"labels are (missing|NaN)"):
            class_counts(source)
        counted = class_counts(source, missing_as_class=True)
        assert counted["missing"] == 1
        assert counted.names[-1] == "missing"


def test_frames_and_categories():
    enum = pl.Series(["b", "b"], dtype=pl.Enum(["c", "b", "a"]))
    assert list(class_counts(enum).items()) == [("c", 0), ("b", 2), ("a", 0)]
    assert class_counts(enum.value_counts()) == {"b": 2}
    frame = {"f": ["x", "y", "z"], "kind": ["b", "a", "b"], "s": [1, 0, 1], "t": [0, 0, 1]}
    for source in (pd.DataFrame(frame), pl.DataFrame(frame), pa.table(frame)):
        assert list(class_counts(source, label="kind").items()) == [("a", 1), ("b", 2)]
        with pytest.raises(ValueError, match=r"label='knd' is no column of source; .*did you mean 'kind'\?"):
            class_counts(source, label="knd")
    for source in (pd.DataFrame(frame), pl.DataFrame(frame)):
        assert class_counts(source, labels="t,s") == {"t": 1, "s": 2}
    assert class_counts(pa.array(["b", "a", "b"]).dictionary_encode()) == {"a": 1, "b": 2}
