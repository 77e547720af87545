"""Labels in any form -> class counts, with the classes' names."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks
from longtail.sources import hub, read_counts

_DENSE = "; of masks or tags say what one sample is: per='image', 'pixel', 'token' or 'span'"


class _PerClass(Mapping[Hashable, Any]):
    """Values by class name, in a fixed order; also an array and a mapping."""

    __slots__ = ("_array", "_place", "names")

    def __init__(self, names: Iterable[Hashable], values: npt.ArrayLike) -> None:
        self.names: tuple[Hashable, ...] = tuple(names)
        self._array = np.array(values)
        self._array.setflags(write=False)
        if self._array.ndim != 1 or len(self.names) != len(self._array):
            raise ValueError(
                f"{type(self).__name__} needs one value a name, got {len(self.names)} names and "
                f"values of shape {self._array.shape}"
            )
        self._place = {name: i for i, name in enumerate(self.names)}
        if len(self._place) != len(self.names):
            twice = [name for name, k in Counter(self.names).items() if k > 1]
            raise ValueError(f"names must differ, got {_checks.shorten(twice)} more than once")

    def __getitem__(self, name: Hashable) -> Any:
        return self._array[self._place[name]].item()

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self._array, dtype=dtype)

    # without these two, torch.tensor would read the names as if they were the values
    def __dlpack__(self, **options: Any) -> object:
        return np.array(self._array).__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.names, self._array)

    def __repr__(self) -> str:
        inside = ", ".join(f"{name!r}: {self[name]:.6g}" for name in self.names[:10])
        more = f", ... {len(self) - 10} more" if len(self) > 10 else ""
        return f"{type(self).__name__}({{{inside}{more}}})"


class ClassWeights(_PerClass):
    """Class weights by name: what ``class_weights`` answers to :class:`ClassCounts`.

    Attributes:
        names: the classes, in order.
        weights: float64 array, one weight a class.
    """

    __slots__ = ()
    holds_weights = True

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """The weights as an array."""
        return self._array


class ClassCounts(_PerClass):
    """Training samples per class: a mapping name -> count with array semantics.

    Attributes:
        names: the classes, in order.
        counts: array of counts (int64 where they are whole, float64 otherwise), read-only.
        num_samples: how many samples were counted, where one may have several classes or none; else None.

    Raises:
        ValueError: a count is negative, NaN or infinite, a name stands twice, or the lengths differ.

    Example:
        >>> counts = ClassCounts(["cat", "lynx"], [90, 10])
        >>> counts["lynx"], counts.total, counts.imbalance_factor
        (10, 100, 9.0)
    """

    __slots__ = ("num_samples",)

    def __init__(
        self, names: Iterable[Hashable], counts: npt.ArrayLike, num_samples: int | None = None
    ) -> None:
        values = _arrays.to_numpy("counts", counts)
        if values.size:
            _arrays.check_real("counts", values, low=0.0, remedy="give the number of samples per class")
        whole = bool(np.all(values == np.floor(values))) and float(values.sum()) < 2.0**62
        super().__init__(names, np.asarray(counts).astype(np.int64) if whole else values)
        self.num_samples = num_samples
        if num_samples is not None:
            remedy = "it counts samples, of which each class has no more"
            low = math.ceil(values.max()) if values.size else 0
            self.num_samples = _checks.integer("num_samples", num_samples, low=low, remedy=remedy)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.names, self._array, self.num_samples)

    @property
    def counts(self) -> npt.NDArray[Any]:
        """The counts as an array."""
        return self._array

    @property
    def total(self) -> Any:
        """The number of samples."""
        return self._array.sum().item()

    @property
    def imbalance_factor(self) -> float:
        """Largest count over smallest non-zero count; NaN where no class has samples."""
        filled = self._array[self._array > 0]
        return float(filled.max() / filled.min()) if len(filled) else math.nan

    def answer(self, values: npt.ArrayLike) -> ClassWeights:
        """Return per-class ``values`` under these names."""
        return ClassWeights(self.names, values)


def class_counts(
    source: object,
    *,
    label: str | None = None,
    num_classes: int | None = None,
    ignore_index: int | None = None,
    per: str | None = None,
) -> ClassCounts:
    """Count the samples of each class.

    Args:
        source: one of

            - labels, one a sample: a list, NumPy array, pandas Series or tensor of integers, text,
              booleans or floats. A pandas Categorical keeps its categories and their order, with
              0 for those that no sample has.
            - a two-dimensional array of 0 and 1 (multi-hot labels, N x C, C > 1): samples per column.
            - a data set with ``targets`` or ``labels`` (and, where it has them, ``classes``), or a
              ``torch.utils.data.Subset`` of one.
            - a mapping name -> count, ``ClassCounts`` or ``Counter``: taken as counted.
            - a Hugging Face ``datasets.Dataset`` (or a streamed one) with a label column. Classes are the
              names of a ``ClassLabel``, in its order, with 0 for those without samples.
            - the path of a table, or a pattern for several (``"data/*.csv"``, ``**`` for any depth): .csv,
              .tsv, also with .gz, or .parquet (through DuckDB, ``pip install 'longtail[counts]'``), or any of
              them in an object store (``s3://``, ``gs://``, ``https://`` ...). A stream: see ``label``.
            - the path of a folder of images, a folder a class: image files at any depth, in the order of the
              folders' names as text.
            - the path of a .json file of annotations, as COCO, LVIS and iNaturalist have them: annotations
              (not images) of each category, in the order of the categories' ids.
            - masks or sequences of tags, with ``per``: an array (N, H, W) or (B, T), or anything that gives
              one mask or one sequence after the other, in sizes of their own.
        label: the column that holds the label. A CSV file needs none where it has a column ``count``: then it
            is a table of counts, named by its first other column. Names in a CSV file become numbers where
            all of them are numbers; a Parquet column keeps its type. A Hugging Face data set needs
            none where it has one ``ClassLabel``. Of a .json file: the field of the categories that names the
            classes, such as ``"supercategory"`` or ``"id"``; default ``"name"``.
        num_classes: for integer labels 0..C-1: count all C classes, with 0 for those without samples.
        ignore_index: labels of this value are left out, such as 255 (void pixels) or -100 (parts of words).
        per: what one sample is, of masks or tags. "image": the masks that hold a class; "pixel" or "token":
            every label; "span": runs of the same tag, of which each "B-" tag begins one. Pixels and tokens
            come in millions, where effective numbers no longer tell classes apart (they saturate at
            1 / (1 - beta)); images and spans are what differs from one sample to the next.

    Returns:
        The counts by class name, sorted by name (a mapping, a table of counts and a data set's classes
        keep their order).

    Raises:
        TypeError: ``source`` is none of these, a single column of shape (N, 1) included, or its labels are
            missing (None, NaN, null) or mixed; masks that hold no integers.
        ValueError: labels outside 0..num_classes-1, a missing column, an empty field of a CSV file, an
            unreadable count, a file that is not there, empty or unreadable; void that is not named.
        ModuleNotFoundError: DuckDB (for tables) or ijson (for annotations) is needed and not installed.

    Example:
        >>> class_counts(["lynx", "cat", "cat"])
        ClassCounts({'cat': 2, 'lynx': 1})
        >>> class_counts([0, 2, 2], num_classes=4).counts.tolist()
        [1, 0, 2, 0]
        >>> masks = [[[0, 0, 0], [0, 1, 255]], [[0, 0], [0, 0]]]
        >>> [class_counts(masks, ignore_index=255, per=per) for per in ("image", "pixel")]
        [ClassCounts({0: 2, 1: 1}), ClassCounts({0: 8, 1: 1})]
    """
    _arrays.refuse_weights("source", source)
    if per is not None or ignore_index is not None:
        return _resize(_from_dense(source, per, ignore_index, num_classes), num_classes)
    if isinstance(source, (str, os.PathLike)):
        return _resize(ClassCounts(*read_counts(os.fspath(source), label)), num_classes)
    if hub.is_data_set(source):
        return _resize(ClassCounts(*hub.count(source, label)), num_classes)
    if label is not None:
        raise TypeError(f"label={label!r} names a column of a file, but source is {_checks.describe(source)}")
    if isinstance(source, ClassCounts):
        return _resize(source, num_classes)
    if isinstance(source, Mapping):
        if not source:
            raise ValueError("source must name at least one class, got an empty mapping")
        return _resize(ClassCounts(list(source), list(source.values())), num_classes)
    if getattr(source, "ndim", 1) == 2:
        return _from_multi_hot(source, num_classes)
    if not (_arrays.is_array(source) or _arrays.is_series(source)):
        found = _targets_of(source)
        if found is not None:
            return _from_dataset(*found, num_classes)
    names, codes = encode(source)
    if len(codes) == 0:
        raise ValueError("source must hold at least one label, got none")
    return _resize(ClassCounts(names, np.bincount(codes, minlength=len(names))), num_classes)


def encode(labels: object) -> tuple[tuple[Hashable, ...], npt.NDArray[np.intp]]:
    """Return the distinct labels, sorted, and each sample's position among them.

    Raises:
        TypeError: labels that are no sequence, not one-dimensional, missing or mixed.
    """
    if isinstance(labels, (str, bytes, Mapping, set, frozenset)):
        raise TypeError(f"labels must be a sequence with one label a sample, got {_checks.describe(labels)}")
    categorical: Any = getattr(labels, "cat", labels) if _arrays.is_series(labels) else labels
    categories = getattr(categorical, "categories", None)
    if categories is not None:
        codes = np.asarray(categorical.codes)
        if (codes < 0).any():
            raise TypeError(
                f"labels are missing (NaN) for {int((codes < 0).sum())} samples; drop or name them"
            )
        return tuple(categories.tolist()), codes.astype(np.intp)
    try:
        if _arrays.is_series(labels):
            array = labels.to_numpy()
        elif _arrays.is_array(labels) or getattr(labels, "ndim", 1) != 1:  # a list of a frame is its columns
            array = _host(labels)
        else:
            array = _label_array(labels)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"labels must be a sequence with one label a sample, got {_checks.describe(labels)}{_DENSE}"
        ) from error
    if array.ndim != 1:
        raise TypeError(
            f"labels must be one-dimensional, one label a sample, got shape {array.shape}; give one column, "
            f"as df['y'] or labels[:, 0]{_DENSE}"
        )
    if array.dtype.kind in "OMm":
        missing = sum(map(_is_missing, array)) if array.dtype.kind == "O" else int(np.isnat(array).sum())
        if missing:
            raise TypeError(f"labels are missing (None or NaN) for {missing} samples; drop or name them")
    elif array.dtype.kind == "c":
        raise TypeError(f"labels must be integers, text, booleans or floats, got {array.dtype}")
    elif array.dtype.kind == "f" and not np.isfinite(array).all():
        raise TypeError(
            f"labels are NaN or infinite for {int((~np.isfinite(array)).sum())} samples; drop or name them"
        )
    if array.dtype.kind == "O" and len({type(x) for x in array}) > 1:
        kinds = sorted({type(x).__name__ for x in array})
        raise TypeError(f"labels mix the types {', '.join(kinds)}; convert them to one")
    try:
        names, codes = np.unique(array, return_inverse=True)
    except TypeError as error:
        raise TypeError(f"labels cannot be sorted: {error}") from error
    return tuple(names.tolist()), codes.reshape(-1)


def _host(array: Any) -> npt.NDArray[Any]:
    """Return an array or tensor, on any device, as NumPy."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = array.double() if array.is_floating_point() else array  # NumPy has no bfloat16
    return np.asarray(array)


def _label_array(labels: Any) -> npt.NDArray[Any]:
    # a column of a Hugging Face data set would decode row by row
    items = list(labels[:] if type(labels).__module__.split(".")[0] == "datasets" else labels)
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


def _is_missing(label: object) -> bool:
    if type(label).__name__ in ("NAType", "NaTType"):  # pandas' own, which do not compare
        return True
    return label is None or (isinstance(label, (float, np.floating)) and bool(label != label))


def _targets_of(source: Any) -> tuple[Any, Any] | None:
    """Return a data set's labels and, where it has them, its classes' names."""
    for attribute in ("targets", "labels"):
        if hasattr(source, attribute):
            return getattr(source, attribute), getattr(source, "classes", None)
    if hasattr(source, "dataset") and hasattr(source, "indices"):  # torch.utils.data.Subset, also nested
        whole = _targets_of(source.dataset)
        if whole is not None:
            targets, classes = whole
            if not hasattr(targets, "ndim"):
                return [targets[i] for i in source.indices], classes
            rows = getattr(targets, "iloc", targets)  # a Series' own brackets look up by label
            return rows[np.asarray(source.indices, dtype=np.intp)], classes
    return None


def _from_dataset(
    targets: object, classes: Sequence[Hashable] | None, num_classes: int | None
) -> ClassCounts:
    if classes is None:
        return class_counts(targets, num_classes=num_classes)
    counted = class_counts(targets)
    if all(isinstance(name, Integral) for name in counted.names):  # positions in classes
        known = ClassCounts(classes, _resize(counted, len(classes)).counts, counted.num_samples)
    else:
        unknown = [name for name in counted.names if name not in set(classes)]
        if unknown:
            raise ValueError(f"labels hold {_checks.shorten(unknown)}, which the data set's classes lack")
        known = ClassCounts(classes, [counted.get(name, 0) for name in classes], counted.num_samples)
    return _resize(known, num_classes)


def _from_multi_hot(source: object, num_classes: int | None) -> ClassCounts:
    array = _host(source)
    if array.shape[1] == 1:
        raise TypeError(
            f"source has shape {array.shape}, one column, which may be labels or multi-hot for one class; "
            "give labels as df['y'] or labels[:, 0]"
        )
    if array.dtype.kind not in "buif" or not np.isin(array, (0, 1)).all():
        raise TypeError(
            "source is two-dimensional but not multi-hot (0 and 1 alone); give one label a sample" + _DENSE
        )
    names = tuple(getattr(source, "columns", range(array.shape[1])))
    return _resize(ClassCounts(names, array.astype(np.int64).sum(axis=0), len(array)), num_classes)


def _from_dense(
    source: Any, per: str | None, ignore_index: int | None, num_classes: int | None
) -> ClassCounts:
    """Count masks and tags, one image or sequence at a time; without ``per``, labels but for one value."""
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
    for part in () if per is None else _host(source) if whole else source:
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
    order, _ = encode(list(found))
    return ClassCounts(order, [found[name] for name in order])


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
        array = _host(part)
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
        )
    return array.reshape(-1)


def _resize(known: ClassCounts, num_classes: int | None) -> ClassCounts:
    if num_classes is None:
        return known
    size = _checks.integer("num_classes", num_classes, low=1)
    names: tuple[Any, ...] = known.names
    if not all(isinstance(name, Integral) and not isinstance(name, bool) for name in names):
        if len(known) == size:
            return known
        raise ValueError(
            f"num_classes={size} needs integer labels 0..{size - 1}, got {_checks.shorten(names)}"
        )
    outside = [name for name in names if not 0 <= name < size]
    if outside:
        raise ValueError(
            f"labels must be in 0..{size - 1} for num_classes={size}, got {_checks.shorten(outside)}"
        )
    return ClassCounts(range(size), [known.get(i, 0) for i in range(size)], known.num_samples)
