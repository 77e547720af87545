"""Labels in whatever holds them in memory: one a sample, several a sample, or those of a data set."""

from __future__ import annotations

import operator
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks

_REMEDY = "drop or name them"
_DENSE = "; of masks or tags say what one sample is: per='image', 'pixel', 'token' or 'span'"
_SEVERAL = f"; several labels a sample are a set each, or an array of 0 and 1{_DENSE}"


# ---- one label a sample


def encode(labels: object) -> tuple[tuple[Hashable, ...], npt.NDArray[np.intp]]:
    """Return the distinct labels, in `longtail._arrays.label_order`, and each sample's position among them.

    Raises:
        TypeError: labels that are no sequence, not one-dimensional, missing or mixed.
    """
    names, codes = encode_missing(labels)
    if missing := int((codes < 0).sum()):
        raise TypeError(f"labels are {_told(labels)} for {missing} samples; {_REMEDY}")
    return names, codes


def encode_missing(labels: object) -> tuple[tuple[Hashable, ...], npt.NDArray[np.intp]]:
    """Do as `encode`, with the position -1 for samples whose label is missing.

    Raises:
        TypeError: labels that are no sequence, not one-dimensional, infinite or mixed.
    """
    if isinstance(labels, (str, bytes, Mapping, set, frozenset)):
        raise TypeError(f"labels must be a sequence with one label a sample, got {_checks.describe(labels)}")
    known = _categories_of(labels)
    if known is not None:
        return known
    try:
        array = _as_array(labels)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"labels must be a sequence with one label a sample, got {_checks.describe(labels)}{_SEVERAL}"
        ) from error
    if array.ndim != 1:
        raise TypeError(
            f"labels must be one-dimensional, one label a sample, got shape {array.shape}; give one column, "
            f"as df['y'] or labels[:, 0]{_SEVERAL}"
        )
    if array.dtype.kind == "c":
        raise TypeError(f"labels must be integers, text, booleans or floats, got {array.dtype}")
    present = ~_missing(array)
    if array.dtype.kind == "f" and np.isinf(array).any():
        wild = int((~np.isfinite(array)).sum())
        raise TypeError(f"labels are NaN or infinite for {wild} samples; {_REMEDY}")
    kept = array[present]
    if kept.dtype.kind == "O" and len({type(x) for x in kept}) > 1:
        kinds = sorted({type(x).__name__ for x in kept})
        raise TypeError(f"labels mix the types {', '.join(kinds)}; convert them to one")
    try:
        found, inverse = np.unique(kept, return_inverse=True)
    except TypeError as error:
        raise TypeError(
            f"labels cannot be sorted: {error}; give labels of one kind, all text or all numbers"
        ) from error
    raw = found.tolist()
    bare = [isinstance(name, str) and _arrays.is_missing(name) for name in raw]
    names = _arrays.label_order(
        {_arrays.one_form(n): None for n, gone in zip(raw, bare, strict=True) if not gone}
    )
    place = {name: i for i, name in enumerate(names)}
    places = np.array(
        [-1 if gone else place[_arrays.one_form(n)] for n, gone in zip(raw, bare, strict=True)], np.intp
    )
    codes = np.full(len(array), -1, np.intp)
    codes[present] = places[inverse.reshape(-1)] if len(places) else -1
    return tuple(names), codes


def _told(labels: object) -> str:
    dtype = getattr(labels, "dtype", None)
    if getattr(dtype, "name", None) == "category":
        return "missing (NaN)"
    kind = getattr(dtype, "kind", "")
    floats = kind == "f" or bool(getattr(dtype, "is_floating_point", False))
    if isinstance(labels, (list, tuple)):
        floats = all(isinstance(x, float) for x in labels)
        texts = sorted({x for x in labels if isinstance(x, str) and _arrays.is_missing(x)})
        if texts:
            return f"missing ({_checks.shorten(texts)})"
    return "NaN or infinite" if floats else "missing (None or NaN)"


def _categories_of(labels: Any) -> tuple[tuple[Hashable, ...], npt.NDArray[np.intp]] | None:
    """Return categories, also those without samples, and codes: of pandas and of polars' Enum."""
    categorical = getattr(labels, "cat", labels) if _arrays.is_series(labels) else labels
    categories = getattr(categorical, "categories", None)
    if categories is not None and hasattr(categorical, "codes"):
        return tuple(categories.tolist()), np.asarray(categorical.codes).astype(np.intp)
    if (
        type(labels).__module__.startswith("polars")
        and type(getattr(labels, "dtype", None)).__name__ == "Enum"
    ):
        names = labels.dtype.categories.to_list()
        place = {name: i for i, name in enumerate(names)} | {None: -1}
        return tuple(names), np.array([place[x] for x in labels.to_list()], np.intp)
    return None


def _as_array(labels: Any) -> npt.NDArray[Any]:
    if isinstance(labels, np.ma.MaskedArray):
        if not np.any(labels.mask):
            return np.asarray(labels.data)
        plain = np.array(labels.data, dtype=object)
        plain[np.ma.getmaskarray(labels)] = None
        return plain
    if type(labels).__module__.startswith(("pyarrow", "polars")):
        values = labels.to_pylist() if hasattr(labels, "to_pylist") else labels.to_list()
        return _label_array(values)
    if _arrays.is_series(labels):
        return np.asarray(labels.to_numpy())
    if _arrays.is_array(labels) or getattr(labels, "ndim", 1) != 1:  # a list of a frame is its columns
        return host(labels)
    return _label_array(labels)


def _missing(array: npt.NDArray[Any]) -> Any:
    if array.dtype.kind == "O":
        return np.fromiter(
            (not isinstance(x, str) and _arrays.is_missing(x) for x in array), bool, len(array)
        )
    if array.dtype.kind in "Mm":
        return np.isnat(array)
    return np.isnan(array) if array.dtype.kind == "f" else np.zeros(len(array), np.bool_)


def host(array: Any) -> npt.NDArray[Any]:
    """Return an array or tensor, on any device, as NumPy."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = array.double() if array.is_floating_point() else array  # NumPy has no bfloat16
    return np.asarray(array)


def _label_array(labels: Any) -> npt.NDArray[Any]:
    # a column of a Hugging Face data set would decode row by row
    items = list(labels[:] if type(labels).__module__.split(".")[0] == "datasets" else labels)
    kinds = {type(x) for x in items if not _arrays.is_missing(x) or isinstance(x, str)}
    # tensors of one number each, as a data loader gives them
    if kinds and all(getattr(kind, "ndim", None) is not None and hasattr(kind, "item") for kind in kinds):
        items = [x.item() if getattr(x, "ndim", None) == 0 else x for x in items]
    # np.asarray turns [1, "a"] into text and [True, 2] into integers: keep what was given instead
    if len({type(x) for x in items}) > 1 and not all(
        isinstance(x, (int, np.integer)) and not isinstance(x, bool) for x in items
    ):
        array = np.empty(len(items), dtype=object)
        array[:] = items
        return array
    array = np.asarray(items)
    # integers that no one integer type holds would become floats, and distinct labels one
    lossy = array.dtype.kind == "f" and items and isinstance(items[0], Integral)
    return np.array(items, dtype=object) if lossy else array


# ---- several labels a sample

Columns = tuple[tuple[Hashable, ...], npt.NDArray[Any], int]


def several(source: object) -> Columns | None:
    """Return names, samples of each class and the number of samples, where a sample has several labels.

    They are rows of 0 and 1 (dense, or sparse of SciPy or torch), or a collection of tags a sample.

    Raises:
        TypeError: one column, or rows that are neither.
    """
    if (
        hasattr(source, "tocsc")
        or getattr(source, "is_sparse", False)
        or "sparse" in str(getattr(source, "layout", ""))
    ):
        return _sparse(source)
    frame = type(source).__module__.startswith("polars") and hasattr(source, "columns")
    if frame or getattr(source, "ndim", 1) == 2:
        return _multi_hot(source)
    if not isinstance(source, (list, tuple)) and not _arrays.is_series(source):
        return None
    items = list(source)
    if not items or not all(isinstance(x, (list, tuple, set, frozenset)) for x in items):
        return None
    tags = Counter(chain.from_iterable(dict.fromkeys(x) for x in items))
    sets = all(isinstance(x, (set, frozenset)) for x in items)
    if not sets and not all(isinstance(tag, str) for tag in tags):  # rows of numbers may be one-hot
        return None
    if not tags:
        raise ValueError("source must hold at least one label, got none")
    if any(map(_arrays.is_missing, tags)):
        raise TypeError(f"labels are missing (None or NaN) among the tags of a sample; {_REMEDY}")
    try:
        names = _arrays.label_order(tags)
    except TypeError as error:
        raise TypeError(
            f"labels cannot be sorted: {error}; give labels of one kind, all text or all numbers"
        ) from error
    return tuple(names), np.array([tags[name] for name in names]), len(items)


def _multi_hot(source: Any) -> Columns:
    if type(source).__module__.startswith("polars"):
        array, names = source.to_numpy(), tuple(source.columns)
    else:
        array = host(source)
        names = tuple(getattr(source, "columns", range(array.shape[1])))
    if array.shape[1] == 1:
        raise TypeError(
            f"source has shape {array.shape}, one column, which may be labels or multi-hot for one class; "
            "give labels as df['y'] or labels[:, 0]"
        )
    if array.dtype.kind not in "buif" or not np.isin(array, (0, 1)).all():
        raise TypeError(
            "source is two-dimensional but not multi-hot (0 and 1 alone); give one label a sample" + _DENSE
        )
    return names, array.astype(np.int64).sum(axis=0), len(array)


def _sparse(source: Any) -> Columns:
    """Sum the columns of a sparse matrix; it is never made dense."""
    if hasattr(source, "tocsc"):
        columns = source.tocsc(copy=True)
        columns.sum_duplicates()
        values, places, shape = (
            columns.data,
            np.repeat(np.arange(columns.shape[1]), np.diff(columns.indptr)),
            source.shape,
        )
    else:
        entries = source.detach().cpu().to_sparse_coo().coalesce()
        values, places, shape = entries.values().numpy(), entries.indices()[1].numpy(), tuple(source.shape)
    if len(shape) != 2 or not np.isin(values, (0, 1)).all():
        raise TypeError(
            f"source is sparse, of shape {shape}, but not multi-hot (two-dimensional, of 0 and 1 alone)"
            "; give .toarray(), or one label a sample"
        )
    ones = np.bincount(places, weights=np.asarray(values, float), minlength=shape[1])
    return tuple(range(shape[1])), ones.astype(np.int64), shape[0]


# ---- masks and tags


def of_masks(
    source: object, per: str | None, ignore_index: int | None, num_classes: int | None
) -> tuple[list[Hashable], list[int]]:
    """Count masks and tags, one image or sequence at a time; without ``per``, labels but for one value.

    Raises:
        TypeError: a source of something else, masks that hold no integers.
        ValueError: no labels, another shape, a negative or void value that is not ignored.
    """
    ignored = None if ignore_index is None else _checks.integer("ignore_index", ignore_index, low=-(2**63))
    if per is not None:
        _checks.choice("per", per, ("image", "pixel", "token", "span"))
    if isinstance(source, (str, bytes, os.PathLike, Mapping)) or not hasattr(source, "__iter__"):
        raise TypeError(
            f"per and ignore_index are for labels, masks and tags, but source is {_checks.describe(source)}; "
            "give those"
        )
    found: Counter[Hashable] = Counter()
    whole = _arrays.is_array(source)
    if per is None:
        known, codes = encode(source)
        found.update(dict(zip(known, np.bincount(codes, minlength=len(known)).tolist(), strict=True)))
        found.pop(ignored, None)
    for part in () if per is None else host(source) if whole else source:
        labels = _dense_labels(part, per, whole)
        labels = labels if ignored is None or labels.dtype.kind == "U" else labels[labels != ignored]
        if per == "span":
            begins = np.ones(len(labels), dtype=bool)
            begins[1:] = labels[1:] != labels[:-1]
            if labels.dtype.kind == "U":
                begins |= np.char.startswith(labels, "B-")
            labels = labels[begins]
        names, times = _tally(labels)
        found.update(dict(zip(names, times if per != "image" else [1] * len(names), strict=True)))
    if not found:
        raise ValueError("source must hold at least one label, got none")
    if negative := [name for name in found if isinstance(name, Integral) and name < 0]:
        raise ValueError(
            f"labels hold {_checks.shorten(negative)}, which is no class; leave it out by "
            f"ignore_index={negative[0]}"
        )
    if per in ("image", "pixel") and (num_classes or 0) < 256 and 255 in found and 254 not in found:
        raise ValueError(
            "masks hold 255, which often marks pixels of no class; leave it out by ignore_index=255, or pass "
            "num_classes=256 where it is a class"
        )
    order = _arrays.label_order(found)
    return order, [found[name] for name in order]


def _tally(labels: npt.NDArray[Any]) -> tuple[list[Any], list[int]]:
    """The distinct labels, and how often each occurs; of small integers in one pass."""
    if labels.dtype.kind in "iu" and labels.size and labels.min() >= 0 and labels.max() < 2**16:
        dense = np.bincount(labels)
        return np.flatnonzero(dense).tolist(), dense[dense > 0].tolist()
    names, times = np.unique(labels, return_counts=True)
    return names.tolist(), times.tolist()


def _dense_labels(part: Any, per: str | None, whole: bool) -> npt.NDArray[Any]:
    """Return the labels of one mask or sequence, flat."""
    try:
        array = host(part)
    except ValueError:  # a pair of image and mask, say
        array = np.empty(len(part), dtype=object)
    if array.dtype.kind == "b" or array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iuU":
        raise TypeError(
            f"masks and tags must hold integers (tags also text), got {_checks.describe(array)}; read masks "
            "without scaling them, and give masks alone, (mask for _, mask in data)"
        )
    if per == "image" and (array.ndim < 2 or (array.ndim > 2 and not whole and array.shape[0] != 1)):
        raise ValueError(
            f"per='image' needs masks of shape (H, W), one after the other, got shape {array.shape}; of "
            "batches give (mask for batch in batches for mask in batch), of one mask [mask]"
        )
    if per != "span" and array.ndim > 2 and array.shape[0] > 1 and array.shape[-1] in (3, 4):
        raise ValueError(
            f"a mask has shape {array.shape}, which seems to be colours; turn colours into class indices"
        )
    if per == "span" and array.ndim != 1:
        raise ValueError(
            f"per='span' needs sequences of tags, one after the other, got one of shape {array.shape}"
            "; of one sentence give [tags]"
        )
    return array.reshape(-1)


# ---- data sets

_TARGETS = ("targets", "labels", "_labels", "_targets", "target", "img_labels", "y")
_SAMPLES = ("samples", "_samples", "imgs")


def of_data_set(source: object) -> tuple[Any, Sequence[Hashable] | None] | None:
    """Return a data set's labels and, where it has them, its classes' names; nothing is loaded.

    Looked for: targets and their like, (file, label) samples, a ``TensorDataset``'s last tensor, and what is
    inside a ``Subset``, a ``ConcatDataset`` or a ``DataLoader``.

    Raises:
        TypeError: a data set without any of them, which would have to be loaded whole.
    """
    if isinstance(source, (Sequence, Iterator, set, frozenset, np.ndarray)) or _arrays.is_array(source):
        return None
    if type(source).__module__.split(".")[0] in ("pandas", "polars", "pyarrow", "datasets"):
        return None
    whole = _inside(source)
    if whole is not None:
        return whole
    data_set = any(kind.__module__.startswith("torch.utils.data") for kind in type(source).__mro__)
    if data_set or (hasattr(source, "__getitem__") and not hasattr(source, "dtype")):
        raise TypeError(
            f"source is a {type(source).__name__} without targets, labels or samples; counting would load "
            "all of it; give the labels alone, as a list, or set its attribute targets"
        )
    return None


def _inside(source: object) -> tuple[Any, Sequence[Hashable] | None] | None:
    classes = _classes_of(source)
    for attribute in _TARGETS:
        found = getattr(source, attribute, None)
        if found is not None and not callable(found) and not isinstance(found, str):
            return _column(found), classes
    for attribute in _SAMPLES:
        found = getattr(source, attribute, None)
        if isinstance(found, Sequence) and found and isinstance(found[0], tuple) and len(found[0]) == 2:
            return [label for _, label in found], classes
    tensors = getattr(source, "tensors", None)
    if isinstance(tensors, tuple) and len(tensors) > 1:
        _only_one_holds_labels(tensors)
        return tensors[-1], classes
    parts = getattr(source, "datasets", None)
    if isinstance(parts, (list, tuple)):  # torch.utils.data.ConcatDataset
        return _joined([_inside(part) for part in parts])
    if not hasattr(source, "dataset"):
        images = getattr(source, "images", None)  # longtail's own TorchDataset
        return None if images is None or not hasattr(images, "targets") else _inside(images)
    whole = _inside(source.dataset)
    indices = getattr(source, "indices", None)  # of a Subset, also nested
    if indices is None:  # of a DataLoader, whose sampler may draw from a part
        indices = getattr(getattr(source, "sampler", None), "indices", None)
    if whole is None or indices is None:
        return whole
    targets, classes = whole
    if not hasattr(targets, "ndim"):
        return [targets[i] for i in indices], classes
    rows = getattr(targets, "iloc", targets)  # a Series' own brackets look up by label
    return rows[np.asarray(indices, dtype=np.intp)], classes


def _only_one_holds_labels(tensors: tuple[Any, ...]) -> None:
    """Refuse a last tensor that may be something else than labels, such as a weight a sample.

    Raises:
        TypeError: fractions, or another tensor with one value a sample.
    """
    if len(tensors) == 2:
        return
    last = tensors[-1]
    alone = [i for i, tensor in enumerate(tensors) if tensor.ndim == 1]
    fractions = last.is_floating_point() and last.ndim == 1 and bool((last != last.floor()).any())
    if fractions or (last.ndim == 1 and len(alone) > 1):
        why = "the last one holds fractions" if fractions else f"{len(alone)} of them have one value a sample"
        raise TypeError(
            f"source holds {len(tensors)} tensors, and {why}, so that it does not say which are the labels; "
            f"give them, {' or '.join(f'dataset.tensors[{i}]' for i in alone)}"
        )


def _classes_of(source: object) -> Sequence[Hashable] | None:
    for attribute in ("classes", "class_names", "target_names"):
        found = getattr(source, attribute, None)
        if isinstance(found, (list, tuple, np.ndarray)):
            return list(found)
    places = getattr(source, "class_to_idx", None)
    if isinstance(places, Mapping):
        return [name for name, _ in sorted(places.items(), key=operator.itemgetter(1))]
    return None


def _column(found: Any) -> Any:
    """Return the labels of a table of files and labels, as in PyTorch's own tutorial."""
    if hasattr(found, "iloc") and getattr(found, "ndim", 1) == 2 and found.shape[1] == 2:
        first = found.iloc[:, 0]
        if not all(isinstance(x, (int, np.integer, bool)) for x in first):
            return found.iloc[:, 1]
    return found


def _joined(parts: Iterable[tuple[Any, Any] | None]) -> tuple[Any, Any] | None:
    parts = list(parts)
    found = [part for part in parts if part is not None]
    if not parts or len(found) < len(parts):
        return None
    named = [None if classes is None else list(classes) for _, classes in found]
    if any(classes != named[0] for classes in named):
        raise ValueError(
            f"the data sets inside have other classes: {_checks.shorten(named, 2)}; count them one by one"
        )
    if all(getattr(t, "ndim", 1) > 1 for t, _ in found):  # rows of 0 and 1, or maps
        shapes = list(dict.fromkeys(tuple(t.shape[1:]) for t, _ in found))
        if len(shapes) > 1:
            raise ValueError(
                f"the data sets inside have targets of other shapes: {_checks.shorten(shapes, 2)}; count "
                "them one by one"
            )
        return np.concatenate([host(t) for t, _ in found]), named[0]
    targets = [t.tolist() if hasattr(t, "tolist") else list(t) for t, _ in found]
    return list(chain.from_iterable(targets)), named[0]
