"""Labels in any form -> class counts, with the classes' names."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks
from longtail.labels import encode, encode_missing, of_data_set, of_masks, several
from longtail.sources import formats, hub, read_counts
from longtail.sources.counted import (
    Counted,
    Wanted,
    notice_alike,
    notice_alone,
    notice_joined,
    split,
    with_missing,
)
from longtail.sources.tables import marked


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
                "; give as many values as names"
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
        num_samples: how many samples there are, where a sample may have several labels or none; else None.

    Raises:
        ValueError: a count is negative, NaN or infinite, or larger than ``num_samples``, a name stands twice,
            or the lengths differ.

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
            most = float(values.max()) if values.size else 0.0
            self.num_samples = _checks.integer(
                "num_samples", num_samples, low=0, remedy="give the number of samples"
            )
            if most > self.num_samples:
                raise ValueError(
                    f"num_samples must be no less than the largest count, {most:g}, got {num_samples}; give "
                    "the number of samples"
                )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.names, self._array, self.num_samples)

    @property
    def counts(self) -> npt.NDArray[Any]:
        """The counts as an array."""
        return self._array

    @property
    def total(self) -> Any:
        """The sum of the counts: the number of samples, where each has one label."""
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
    label: str | int | None = None,
    num_classes: int | None = None,
    labels: str | Sequence[str] | None = None,
    separator: str | None = None,
    header: bool = True,
    missing_as_class: bool = False,
    order: str | Iterable[Hashable] | None = None,
    ignore_index: int | None = None,
    per: str | None = None,
) -> ClassCounts:
    """Count the samples of each class.

    Args:
        source: one of

            - labels, one a sample: a list, NumPy array, pandas or polars Series, pyarrow array or tensor of
              integers, text, booleans or floats. A pandas Categorical, and an Enum of polars, keeps its
              categories and their order, with 0 for those that no sample has.
            - several labels a sample: a two-dimensional array or frame of 0 and 1 (N x C, C > 1), also sparse
              ones of SciPy and torch, or a list of sets or of lists of text. The answer has ``num_samples``.
            - a data set: with ``targets``, ``labels`` or ``samples`` (and, where it has them, ``classes``), a
              ``TensorDataset``, ``Subset``, ``ConcatDataset`` or ``DataLoader`` of torch, a ``Bunch`` of
              scikit-learn. Nothing is loaded; where it would have to be, it is refused.
            - a mapping name -> count, ``ClassCounts`` or ``Counter``, or what ``value_counts`` gives: a
              Series or a frame's column called count. Taken as counted.
            - a Hugging Face ``datasets.Dataset`` (or a streamed one) with a label column. Classes are the
              names of a ``ClassLabel``, in its order, with 0 for those without samples.
            - the path of a table, or a pattern for several (``"data/*.csv"``, ``**`` for any depth): .csv,
              .tsv, also packed (.gz, .zst, .zip), or .parquet (through DuckDB,
              ``pip install 'longtail[counts]'``), or any of
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
        labels: columns of 0 and 1, one a class: a list, ``"A,B,C"``, or patterns such as ``"is_*"``.
        separator: what parts several labels in one field or text, such as ``"|"``; ``" "`` is any blanks.
        header: False where the first line of a table is a row: then ``label`` is the number of the column,
            from 1 on, or from -1 on from the end.
        missing_as_class: count the samples without a label as a class, called missing, in place of refusing
            them. Missing are None, NaN, null, empty text, and text such as NA, null, None or ?.
        order: the classes' names in the order of the model's outputs, a list or ``"A,B,C"``.
        ignore_index: labels of this value are left out, such as 255 (void pixels) or -100 (parts of words).
        per: what one sample is, of masks or tags. "image": the masks that hold a class; "pixel" or "token":
            every label; "span": runs of the same tag, of which each "B-" tag begins one. Pixels and tokens
            come in millions, where effective numbers no longer tell classes apart (they saturate at
            1 / (1 - beta)); images and spans are what differs from one sample to the next.

    Returns:
        The counts by class name, in the order of scikit-learn's ``LabelEncoder``, and text of numbers as
        numbers. Only ``order``, a mapping, a table of counts, a folder, categories and a data set's classes
        have an order of their own.

    Raises:
        TypeError: ``source`` is none of these, a single column of shape (N, 1) included, or its labels are
            missing (None, NaN, null, empty, NA) or mixed; masks that hold no integers.
        ValueError: labels outside 0..num_classes-1 or not in ``order``, a missing column, an empty field of a
            CSV file, an unreadable count, a file that is not there, empty or unreadable; void that is not
            named.
        ModuleNotFoundError: DuckDB (for tables) or ijson (for annotations) is needed and not installed.

    Example:
        >>> class_counts(["lynx", "cat", "cat"])
        ClassCounts({'cat': 2, 'lynx': 1})
        >>> class_counts([0, 2, 2], num_classes=4).counts.tolist()
        [1, 0, 2, 0]
        >>> class_counts(["rust|dent", "rust"], separator="|")
        ClassCounts({'dent': 1, 'rust': 2})
        >>> masks = [[[0, 0, 0], [0, 1, 255]], [[0, 0], [0, 0]]]
        >>> [class_counts(masks, ignore_index=255, per=per) for per in ("image", "pixel")]
        [ClassCounts({0: 2, 1: 1}), ClassCounts({0: 8, 1: 1})]
    """
    _arrays.refuse_weights("source", source)
    if per is not None or ignore_index is not None:
        dense = _resize(ClassCounts(*of_masks(source, per, ignore_index, num_classes)), num_classes)
        return dense if order is None else _ordered(dense, order)
    counted = _counted(
        source,
        Wanted(
            None if label is None else str(label),
            tuple(_checks.listed(labels) if labels and isinstance(labels, str) else labels or ()),
            separator,
            header,
            missing_as_class,
        ),
        num_classes,
    )
    return counted if order is None else _ordered(counted, order)


def _counted(source: object, wanted: Wanted, num_classes: int | None) -> ClassCounts:
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if path.lower().endswith((".npy", ".npz")) and os.path.isfile(path):
            labels, classes = formats.array(path, wanted.label)
            return _from_dataset(labels, classes, replace(wanted, label=None), num_classes)
        return _resize(_named(read_counts(path, wanted)), num_classes)
    if hub.is_data_set(source):
        return _resize(_named(hub.count(source, wanted)), num_classes)
    if hasattr(source, "columns") and (wanted.label is not None or wanted.labels):
        source = _columns(source, wanted)
    elif wanted.label is not None or wanted.labels or not wanted.header:
        name, value = ("label", wanted.label) if wanted.label is not None else ("labels", wanted.labels)
        raise TypeError(
            f"{name}={value!r} names a column of a file, but source is {_checks.describe(source)}"
            "; leave it out, or give the file's path"
        )
    if isinstance(source, ClassCounts):
        return _resize(source, num_classes)
    if isinstance(source, Mapping):
        if type(source).__name__ == "Bunch" and "target" in source:  # scikit-learn's
            return _from_dataset(source["target"], source.get("target_names"), wanted, num_classes)
        return _resize(_from_mapping(source), num_classes)
    if _is_counted(source):
        return _resize(_from_mapping(source), num_classes)
    table = _table_of_counts(source)
    if table is not None:
        return _resize(table, num_classes)
    tags = several(source)
    if tags is not None:
        names, counts, samples = tags
        return _resize(ClassCounts(names, counts, num_samples=samples), num_classes)
    found = of_data_set(source)
    if found is not None:
        return _from_dataset(*found, wanted, num_classes)
    return _resize(_of_labels(source, wanted), num_classes)


def _of_labels(source: Any, wanted: Wanted) -> ClassCounts:
    source = list(source) if isinstance(source, Iterator) else source
    names, codes = encode_missing(source) if wanted.missing_as_class or wanted.separator else encode(source)
    if len(codes) == 0:
        raise ValueError("source must hold at least one label, got none")
    missing = int((codes < 0).sum())
    counts = np.bincount(codes[codes >= 0], minlength=len(names)).tolist()
    if wanted.separator is not None:
        return _named(split(dict(zip(names, counts, strict=True)), missing, wanted.separator, "the labels"))
    notice_joined(names, "the source")
    notice_alike(names, "the source")
    notice_alone(counts, "the source", "give the class of each sample")
    return _named(with_missing(Counted(names, counts), missing))


def _named(counted: Counted) -> ClassCounts:
    return ClassCounts(counted.names, counted.counts, num_samples=counted.num_samples)


def _ordered(counted: ClassCounts, given: str | Iterable[Hashable]) -> ClassCounts:
    """Put counts into an order of the caller's; classes that it alone names have no samples."""
    order = list(given)
    if isinstance(given, str):  # as on the command line; names that are no text are written as text there
        known = {str(name): name for name in counted.names}
        order = [known.get(name, name) for name in _checks.listed(given)]
    lost = [name for name in counted.names if name not in set(order)]
    if lost:
        quoted = next((name for name in map(str, lost) if "," in name and isinstance(given, str)), None)
        remedy = "" if quoted is None else f', those with a comma in quotes, as "{quoted}"'
        raise ValueError(
            f"order lacks {_checks.shorten(lost)}, which the labels hold; name every class once{remedy}"
        )
    return ClassCounts(order, [counted.get(name, 0) for name in order], num_samples=counted.num_samples)


def _is_counted(source: object) -> bool:
    """Whether a Series holds counts: one named count, as ``value_counts`` gives it.

    Raises:
        ValueError: a Series that is hardly labels, and may be counts or shares under another name.
    """
    if not _arrays.is_series(source):
        return False
    if source.name == "count":
        return True
    kind, index = getattr(source.dtype, "kind", "O"), source.index
    if source.name == "proportion" and kind == "f" and len(source):
        raise ValueError(
            "source are proportions, as value_counts(normalize=True) gives them, not labels; leave normalize "
            "out"
        )
    # of groupby(...).size() or .count(): whole numbers beside the classes' own name, most of which differ
    named = getattr(index, "name", None) is not None
    if not named or kind not in "iu" or not index.is_unique or len(source) < 2:
        return False
    # a column of its own name may be labels beside an index, whose numbers are then no more than the rows
    large = source.name is None or source.max() > len(source)
    if large and 2 * source.nunique() > len(source):
        raise ValueError(
            f"source is a Series of {len(source)} numbers beside {index.name!r}, of which most differ, as "
            "counts do; give source.rename('count') if they are counts, source.to_numpy() if they are labels"
        )
    return False


def _from_mapping(source: Any) -> ClassCounts:
    if not len(source):
        raise ValueError("source must name at least one class, got an empty mapping")
    if _arrays.is_series(source):
        if hasattr(source.index, "levels"):  # of a frame's value_counts
            names = [key[0] if len(key) == 1 else key for key in source.index]
            source = type(source)(source.to_numpy(), index=names, name=source.name)
        pairs = dict(source.items())
    else:
        pairs = dict(source)
    if not isinstance(source, Counter) and not _arrays.is_series(source):
        return ClassCounts(list(pairs), list(pairs.values()))
    bare = [name for name in pairs if not isinstance(name, str) and _arrays.is_missing(name)]
    if bare:
        raise TypeError(f"labels are missing ({bare[0]}) for {pairs[bare[0]]} samples; drop or name them")
    order = _arrays.series_order(source)
    return ClassCounts(list(order), [pairs[name] for name in order])


def _table_of_counts(source: object) -> ClassCounts | None:
    """Read a frame with a column of labels and a column count, as polars' ``value_counts`` gives it."""
    columns = list(getattr(source, "columns", ()))
    if len(columns) != 2 or "count" not in columns or not hasattr(source, "__getitem__"):
        return None
    other = next((name for name in columns if name != "count"), None)
    names, counts = list(source[other]), list(source["count"])
    if any(map(_arrays.is_missing, names)):
        raise TypeError(f"labels are missing in the column {other!r}; drop or name them")
    try:
        order = _arrays.label_order(names)
    except TypeError:
        order = names
    return ClassCounts(order, [dict(zip(names, counts, strict=True))[name] for name in order])


def _columns(source: Any, wanted: Wanted) -> Any:
    """Return what a frame's column or columns hold."""
    known = [str(name) for name in getattr(source, "column_names", source.columns)]
    if wanted.labels:
        places = marked(wanted.labels, known, "source")
        chosen = source[[list(source.columns)[i] for i in places.values()]]
        return chosen if len(places) > 1 else chosen[next(iter(chosen.columns))]
    _checks.column("label", wanted.label, known, "source")
    at = known.index(str(wanted.label))
    if hasattr(source, "column_names"):  # a table of pyarrow
        return source.column(at)
    return source[list(source.columns)[at]]


def _from_dataset(
    targets: object, classes: Sequence[Hashable] | None, wanted: Wanted, num_classes: int | None
) -> ClassCounts:
    counted = _counted(targets, wanted, num_classes if classes is None else None)
    if classes is None or len(classes) == 0:
        return counted
    if counted.num_samples is not None and len(counted) == len(classes):  # columns of 0 and 1
        return _resize(ClassCounts(classes, counted.counts, num_samples=counted.num_samples), num_classes)
    if all(isinstance(name, Integral) for name in counted.names):  # positions in classes
        known = ClassCounts(classes, _resize(counted, len(classes)).counts)
    else:
        unknown = [name for name in counted.names if name not in set(classes)]
        if unknown:
            raise ValueError(
                f"labels hold {_checks.shorten(unknown)}, which the data set's classes lack"
                "; leave those samples out, or add these names to its classes"
            )
        known = ClassCounts(classes, [counted.get(name, 0) for name in classes])
    return _resize(known, num_classes)


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
            "; leave num_classes out, or number the classes from 0"
        )
    outside = [name for name in names if not 0 <= name < size]
    if outside:
        raise ValueError(
            f"labels must be in 0..{size - 1} for num_classes={size}, got {_checks.shorten(outside)}"
        )
    return ClassCounts(range(size), [known.get(i, 0) for i in range(size)])
