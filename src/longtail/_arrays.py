"""Numbers by class in whatever the caller holds: lists, arrays of any library, mappings, pandas Series.

Arrays follow the array API. NumPy's own do so from 2.1 on. array_api_compat speaks it for older ones and for
other libraries; it brings much of NumPy that nobody else needs, so it is imported when such an array comes.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt

from longtail import _checks

_NUMPY = (np.ndarray, np.generic)
_PLAIN = hasattr(np, "astype")  # NumPy 2.1
_T = TypeVar("_T")
NUMBER = re.compile(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*", re.ASCII)
# what pandas.read_csv takes for a missing value, and "?"
_MISSING = re.compile(
    r"\s*(|\?|#N/A( N/A)?|#NA|-?1\.#(IND|QNAN)|-?(NaN|nan)|<NA>|N/A|n/a|NA|NULL|null|None)\s*"
)


def check_headers(path: str | os.PathLike[str]) -> None:
    """Refuse an .npy or .npz file whose header promises more than follows it, before room is made for it.

    Raises:
        OSError: it cannot be read.
        ValueError: a header that lies, or is none.
        zipfile.BadZipFile: a damaged .npz file.
    """
    import zipfile

    with open(path, "rb") as file:
        packed = zipfile.is_zipfile(file)
        file.seek(0)
        if not packed:
            _check_header(file, os.fstat(file.fileno()).st_size, os.fspath(path))
            return
        with zipfile.ZipFile(file) as archive:
            for about in archive.infolist():
                if about.filename.endswith(".npy"):
                    with archive.open(about) as member:
                        _check_header(member, about.file_size, about.filename.removesuffix(".npy"))


def _check_header(file: Any, size: int, name: str) -> None:
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        return
    one = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    promised, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if not dtype.hasobject and (promised > there or min(shape, default=0) < 0):
        raise ValueError(
            f"{name} says that it has shape {shape} of {dtype}, {promised:,} bytes, and {there:,} follow; "
            "get the file again"
        )


def label_order(names: Iterable[Any]) -> list[Any]:
    """Return names of classes in the order of scikit-learn's LabelEncoder, text of numbers as numbers.

    It is the order of the classes wherever the caller has not fixed another one.
    """
    found = list(names)
    if found and all(isinstance(name, str) and NUMBER.fullmatch(name) for name in found):
        return sorted(found, key=lambda name: (float(name), name))
    return sorted(found)


def is_missing(label: object) -> bool:
    """Whether a label is none: None, NaN, pandas' NA and NaT, empty text, and text such as NA, null or ?."""
    if isinstance(label, str):
        return bool(_MISSING.fullmatch(label))
    if type(label).__name__ in ("NAType", "NaTType"):  # pandas' own, which do not compare
        return True
    if isinstance(label, (np.datetime64, np.timedelta64)):
        return bool(np.isnat(label))
    return label is None or (isinstance(label, (float, np.floating)) and math.isnan(label))


def one_form(name: object) -> Any:
    """Return text in Unicode's composed form: a Mac writes file names decomposed, and they look alike."""
    if not isinstance(name, str) or name.isascii():
        return name
    import unicodedata

    return unicodedata.normalize("NFC", name)


def is_array(source: object) -> TypeGuard[Any]:
    """Tell an array of any library that follows the array API; a list or a mapping is none."""
    if isinstance(source, _NUMPY):
        return True
    if isinstance(source, (list, tuple, Mapping, int, float, str, bytes)):
        return False
    import array_api_compat

    return bool(array_api_compat.is_array_api_obj(source))


def namespace(array: object) -> Any:
    """Return the functions of an array's library, under the array API's names."""
    if _PLAIN and isinstance(array, _NUMPY):
        return np
    import array_api_compat

    return array_api_compat.array_namespace(array)


def like(value: object, array: Any) -> Any:
    """Return numbers, or an array of the same library, on ``array``'s device and in its dtype."""
    if isinstance(array, _NUMPY):
        return np.asarray(value, dtype=array.dtype)
    import array_api_compat

    device = array_api_compat.device(array)
    if array_api_compat.is_array_api_obj(value) and not isinstance(value, _NUMPY):
        return array_api_compat.to_device(value, device)
    return namespace(array).asarray(value, dtype=array.dtype, device=device)


def unwrap(name: str, source: object) -> tuple[Any, Callable[[Any], Any]]:
    """Return ``source`` as a float64 array and the function that answers in ``source``'s kind."""
    if is_array(source):
        return _to_float64(name, source), _unbox if source.ndim == 0 else _same
    if is_series(source):
        return to_numpy(name, source.to_numpy()), lambda out: type(source)(
            out, index=source.index, name=source.name
        )
    if isinstance(source, Mapping):
        keys = list(source)
        values = to_numpy(name, [source[key] for key in keys])
        if hasattr(source, "answer"):
            return values, source.answer
        return values, lambda out: dict(zip(keys, out.tolist(), strict=True))
    array = to_numpy(name, source)
    return array, _unbox if array.ndim == 0 else _same


def to_numpy(name: str, source: object) -> npt.NDArray[np.float64]:
    """Return ``source`` as a float64 NumPy array; text, objects and ragged lists are refused."""
    try:
        array = np.asarray(source)
    except (ValueError, TypeError) as error:
        raise TypeError(f"{name} must be numbers, got {_checks.describe(source)}") from error
    if array.dtype == object:  # Python ints beyond 64 bits, Decimal, Fraction; or anything at all
        try:
            if any(isinstance(x, (str, bytes, bool)) or x is None for x in array.ravel()):
                raise TypeError
            return array.astype(np.float64)
        except OverflowError as error:
            raise ValueError(
                f"{name} must be finite in float64 (below 1.8e308), got {_checks.describe(source)}"
            ) from error
        except (TypeError, ValueError):
            pass
    if array.dtype.kind not in "iuf":
        words = [x for x in array.ravel()[:100].tolist() if isinstance(x, str) and not NUMBER.fullmatch(x)]
        labels = words and name in ("counts", "class_counts")
        remedy = "count them, class_counts(labels)" if labels else "convert them first"
        raise TypeError(f"{name} must be numbers, got {_checks.describe(source)}; {remedy}")
    return array.astype(np.float64)


def as_numpy(name: str, values: object) -> npt.NDArray[Any]:
    """Anything array-like as NumPy; half precision becomes float32, which NumPy can always read."""
    if hasattr(values, "detach"):
        tensor = values.detach().cpu()
        values = tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor
    try:
        array = np.asarray(values)
    except ValueError as error:
        told = _checks.describe(values)
        raise ValueError(f"{name} must be a rectangular array, got {told}: {error}") from None
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array


def _to_float64(name: str, array: Any) -> Any:
    if isinstance(array, _NUMPY):
        return to_numpy(name, array)
    xp = namespace(array)
    if not xp.isdtype(array.dtype, ("integral", "real floating")):
        raise TypeError(f"{name} must be numbers, got {_checks.describe(array)}; convert them first")
    try:
        return xp.astype(array, xp.float64)
    except (TypeError, RuntimeError):  # a device without float64, such as MPS
        return xp.astype(array, xp.float32)


def check_real(name: str, values: Any, *, low: float, remedy: str) -> None:
    """Refuse NaN, infinities and values below ``low``, naming the first and its position."""
    xp = namespace(values)
    bad = ~(xp.isfinite(values) & (values >= low))
    if bool(xp.any(bad)):
        flat = xp.reshape(values, (-1,))
        at = int(xp.argmax(xp.astype(xp.reshape(bad, (-1,)), xp.int64)))
        where = f" at position {at}" if values.ndim else ""
        raise ValueError(f"{name} must be finite and >= {low:g}, got {float(flat[at])!r}{where}; {remedy}")


def check_counts(name: str, source: object, values: Any, *, strict: bool = False) -> None:
    """Refuse numbers that are no counts of samples: class weights, frequencies, or one label a sample.

    Args:
        name: of the argument.
        source: what the caller gave; names in a dict or `longtail.ClassCounts` say that it counts something.
        values: its numbers as an array, finite and >= 0.
        strict: one number has to be whole; otherwise only where some are below 1 and all below 1000.
    """
    own = "weights of your own are ClassBalancedLoss(weight=...)"
    refuse_weights(name, source)
    xp = namespace(values)
    if not values.shape[0]:
        return
    whole = values == xp.floor(values)
    high, seen = float(xp.max(values)), bool(xp.any(values > 0.0))
    some = seen and bool(xp.any((values > 0.0) & (values < 1.0)))
    if seen and (
        high < 1.0 or ((strict or (some and high < 1000.0)) and not bool(xp.any(whole & (values > 0.0))))
    ):
        what = "below 1" if high < 1.0 else "no whole numbers"
        raise ValueError(
            f"{name} must be numbers of training samples, got values that are all {what}, as frequencies or "
            f"weights are; multiply frequencies by the number of samples; {own}"
        )
    # one label a sample: many values, all small, from 0 on; a class rarely has none and never all so few
    size = int(values.shape[0])
    named = isinstance(source, Mapping) or (is_series(source) and source.name == "count")
    if named or size < 20 or size < 10 * (high + 1.0) or not bool(xp.all(whole)):
        return
    if float(xp.min(values)) == 0.0 and 2 * int(xp.unique_values(values).shape[0]) > high + 1.0 and high:
        raise ValueError(
            f"{name} must be one number a class, got {size} numbers from 0 to {high:g}, as labels are; count "
            f"them, class_counts(labels); if they are counts, give them names, dict(enumerate(counts))"
        )


def refuse_weights(name: str, source: object) -> None:
    """Refuse what `longtail.class_weights` answers where the counts are asked for."""
    if getattr(source, "holds_weights", False):
        raise TypeError(
            f"{name} must be numbers of training samples, got {type(source).__name__}, which are weights "
            "already; give the counts that they were made of, or ClassBalancedLoss(weight=...)"
        )


def parameter(name: str, value: object, values: Any, low: float, high: float, remedy: str) -> Any:
    """Return a number, or one a class, as an array beside ``values``; all within ``low`` and ``high``."""
    if not isinstance(value, (list, tuple)) and not (is_array(value) and value.ndim):
        return like(_checks.number(name, value, low=low, high=high, remedy=remedy), values)
    array, _ = unwrap(name, value)
    if tuple(array.shape) != tuple(values.shape):
        raise ValueError(
            f"{name} must be a scalar or have one value per class, shape {tuple(values.shape)}, "
            f"got shape {tuple(array.shape)}"
        )
    xp = namespace(values)
    array = like(array if namespace(array) is xp else np.asarray(array), values)
    bad = ~((array >= low) & (array <= high))
    if bool(xp.any(bad)):
        at = int(xp.argmax(xp.astype(xp.reshape(bad, (-1,)), xp.int64)))
        worst = float(xp.reshape(array, (-1,))[at])
        raise ValueError(
            f"{name} must be in {_checks.interval(low, high)}, got {worst!r} at position {at}; {remedy}"
        )
    return array


def align(
    name: str, value: object, source: object, *, remedy: str = "name every class or give a scalar"
) -> object:
    """Return a mapping of parameters as a list in ``source``'s order; anything else as it is."""
    if not isinstance(value, Mapping) and not is_series(value):
        return value
    if not isinstance(source, Mapping) and not is_series(source):
        raise TypeError(
            f"{name} is a {type(value).__name__} but the counts have no names; give {name} as a list"
        )
    keys = names_of(source, 0)
    missing = [key for key in keys if key not in value]
    if missing:
        raise ValueError(f"{name} lacks a value for {_checks.shorten(missing)}; {remedy}")
    return [value[key] for key in keys]


def names_of(source: object, size: int) -> list[Hashable]:
    """Return the names of a mapping or Series, or else the positions 0..size-1."""
    if is_series(source):
        return list(source.index)
    return list(source) if isinstance(source, Mapping) else list(range(size))


def in_output_order(name: str, source: object) -> object:
    """Return values by class, a mapping or Series, as a dict in the order of a model's outputs.

    Whole numbers, and so False, True and 1.0, are class indices. Other names of a Series or a Counter, which
    come by frequency or by chance, are put into `label_order`, unless the Series' index is categorical; other
    mappings keep the order that the caller gave them. Anything without names is returned as it is.

    Raises:
        ValueError: integer names that are not 0..C-1, or a name that stands twice.
    """
    if not isinstance(source, Mapping) and not is_series(source):
        return source
    pairs = dict(source.items())
    if isinstance(source, Counter) or is_series(source):
        pairs = {key: pairs[key] for key in series_order(source)}
    if len(pairs) < len(source):
        raise ValueError(f"{name} has {len(source)} names of which {len(pairs)} differ; name each class once")
    if not all(map(_is_whole, pairs)):
        return pairs
    outputs = range(len(pairs))
    if missing := sorted(set(outputs).difference(pairs)):
        raise ValueError(
            f"{name} has {len(pairs)} integer names, but not {_checks.shorten(missing)} of the model's "
            f"outputs 0..{len(pairs) - 1}; count with num_classes= or pass a list"
        )
    return {key: pairs[key] for key in outputs}


def beside(name: str, given: object, counts: object, called: str = "counts") -> object:
    """Return values by class as a list in the order of the outputs: names find theirs in the counts.

    Whole numbers are class indices. Anything without names is returned as it is.

    Args:
        name: of the values in messages.
        given: one value a class.
        counts: of the classes, as for `in_output_order`.
        called: the argument that has the names of the classes.

    Raises:
        TypeError: names, where the counts have none.
        ValueError: a class without a value, or a name that is none of the counts'.
    """
    ordered = in_output_order(name, given)
    if not isinstance(ordered, dict):
        return given
    if all(map(_is_whole, ordered)):
        return list(ordered.values())
    order = in_output_order("counts", counts)
    if not isinstance(order, dict):
        raise TypeError(
            f"{name} is a {type(given).__name__} with names such as {next(iter(ordered))!r}, but {called} "
            f"has no names; give {name} as a list in the order of the classes, or {called} with these names"
        )
    forms = Counter(one_form(str(key)) for key in ordered)
    alike = {text: key for key in ordered if forms[text := one_form(str(key))] == 1}
    found = {key: key if key in ordered else alike.get(one_form(str(key))) for key in order}
    if missing := [key for key, own in found.items() if own is None]:
        raise ValueError(
            f"{name} lacks a value for {_checks.shorten(missing)}; give one for each class of {called}"
        )
    if extra := [key for key in ordered if key not in {*found.values()}]:
        raise ValueError(
            f"{name} has a value for {_checks.shorten(extra)}, which {called} does not name; it names "
            f"{_checks.shorten(order)}"
        )
    return [ordered[own] for own in found.values()]


def output_names(order: object) -> tuple[Hashable, ...] | None:
    """Return the names of classes that `in_output_order` has ordered; None where they are numbers."""
    if not isinstance(order, dict):
        return None
    numbers = all(isinstance(key, (bool, int, float, np.number, np.bool_)) for key in order)
    return None if numbers else tuple(order)


def class_numbers(
    name: str,
    labels: npt.NDArray[Any],
    names: tuple[Hashable, ...] | None,
    called: str,
    taker: str | None = None,
) -> npt.NDArray[Any]:
    """Return labels as class indices; text (of either Unicode form) and other names by the counts'.

    Args:
        name: of the labels in messages.
        labels: of any shape; numbers are class indices already.
        names: of the classes, in the order of the outputs; None where the counts have none.
        called: the argument that has the names.
        taker: the function that takes it, where it is not the one that takes the labels.

    Raises:
        TypeError: names, where the counts have none; bytes beyond ASCII that are no name.
        ValueError: a label that the counts do not name.
    """
    if labels.dtype.kind == "O" and all(isinstance(x, (int, np.integer)) for x in labels.flat):
        return labels.astype(np.int64)
    if labels.dtype.kind not in "USO":
        return labels
    if labels.dtype.kind == "O":
        texts = [_as_text(label) for label in labels.reshape(-1).tolist()]
        found = sorted(set(texts), key=str)
        at = {text: i for i, text in enumerate(found)}
        back = np.array([at[text] for text in texts], np.int64)
    else:
        distinct, back = np.unique(labels, return_inverse=True)
        found = [_as_text(label) for label in distinct.tolist()]
    if names is None:
        raise TypeError(_unnamed(name, labels, found, called, taker))
    place = {_as_text(label): i for i, label in enumerate(names)}
    forms = Counter(map(one_form, place))
    alike = {one_form(text): i for text, i in place.items() if forms[one_form(text)] == 1}
    codes = {text: place.get(text, alike.get(one_form(text))) for text in found}
    unknown = [text for text, code in codes.items() if code is None]
    if coded := [text for text in unknown if isinstance(text, bytes)]:
        raise TypeError(
            f"{name} are bytes such as {coded[0]!r}, which no name in {called} is; decode them, as in "
            f"[label.decode() for label in {name}] of UTF-8"
        )
    if unknown:
        raise ValueError(
            f"{name} have {_checks.shorten(unknown)}, which {called} does not name; it names "
            f"{_checks.shorten(names)}"
        )
    return np.asarray([codes[text] for text in found])[back].reshape(labels.shape)


def _as_text(label: object) -> str | bytes:
    """Return the text of a label or name; bytes beyond ASCII, whose encoding is not known, as they are."""
    if isinstance(label, bytes):
        return label.decode("ascii") if label.isascii() else label
    return str(label)


def _unnamed(
    name: str, labels: npt.NDArray[Any], found: list[str | bytes], called: str, taker: str | None
) -> str:
    """Say what to give in place of names where the counts have none."""
    counts = f"{called} as" if taker is None else f"{called}= to {taker} as"
    first = str(labels.flat[0])
    if {"True", "False"}.issuperset(found):  # class_counts(booleans) names no text
        return (
            f"{name} are text such as {first!r}, but {called} names no class by text; give booleans, or "
            f"{counts} longtail.class_counts makes them of this text"
        )
    return (
        f"{name} are names such as {first!r}, but {called} names no class; give {counts} "
        "longtail.class_counts(labels) makes them, or class indices"
    )


def series_order(source: Any) -> list[Hashable]:
    """Return the names of a Series or Counter of counts in the order of the classes."""
    categories = getattr(getattr(source, "index", None), "categories", None)
    names = list(dict.fromkeys(source.index if is_series(source) else source))
    if categories is not None:
        return [name for name in categories if name in set(names)]
    try:
        return label_order(names)
    except TypeError:  # of several types, which nothing orders
        return names


def check_columns(name: str, values: object, counts: object, called: str = "counts") -> None:
    """Refuse a frame of scores whose columns are the classes of the counts in another order.

    Columns with other names say nothing: they are then the classes by position.

    Args:
        name: of the frame in messages.
        values: the frame; anything else has no columns.
        counts: of the classes, as for `in_output_order`.
        called: what the caller has the names of the classes by.
    """
    columns = getattr(values, "columns", None)
    if columns is None or getattr(values, "ndim", 2) != 2:
        return
    found = [str(column) for column in columns]
    try:
        order = in_output_order("counts", counts)
    except ValueError:  # said elsewhere, where it matters
        return
    names = [str(key) for key in (order if isinstance(order, dict) else range(len(found)))]
    if found != names and sorted(found) == sorted(names):
        own = dict(zip(found, columns, strict=True))  # 0 is a column where "0" is none
        raise ValueError(
            f"columns of {name} are {_checks.shorten(found)}, and the classes are {_checks.shorten(names)}, "
            f"in this order; give {name}[{_written(name, [own[key] for key in names], counts, called)}]"
        )


def _written(name: str, columns: list[Any], counts: object, called: str) -> str:
    """How to write columns in a line of code: whole where they are few, else by what makes them."""
    if len(columns) < 8:
        return str(columns)
    if isinstance(counts, Mapping) and list(counts) == columns:
        return f"list({called})"
    if columns == list(range(len(columns))):
        return f"list(range({len(columns)}))"
    if all(isinstance(key, str) for key in columns) and columns == sorted(columns):
        return f"sorted({name}.columns)"
    return str(columns)


def notice_text_numbers(name: str, counts: object) -> None:
    """Warn where text of numbers stands in the order of numbers where scikit-learn has that of text."""
    names = list(counts) if isinstance(counts, Mapping) else []
    if all(isinstance(key, str) for key in names) and names == label_order(names) != sorted(names):
        first, then = next((a, b) for a, b in itertools.pairwise(names) if a > b)
        _checks.warn(
            f"classes are text of numbers in the order of numbers, {first!r} before {then!r}; scikit-learn "
            f"has them in the order of text: if {name} are of its predict_proba, count by "
            "class_counts(y, order=model.classes_)"
        )


def group_ids(name: str, groups: object, samples: int) -> list[Hashable]:
    """Read one group a sample, of any kind that can be told apart; 3.0 is the group 3.

    Raises:
        ValueError: another number of them, or a sample without one.
    """
    values = as_numpy(name, groups).reshape(-1)
    if len(values) != samples:
        raise ValueError(f"{name} must be one a sample, {samples}, got {len(values)}; name each sample's")
    found: list[Any] = values.tolist()
    if missing := sum(not isinstance(x, str) and is_missing(x) for x in found):
        raise ValueError(
            f"{name} are missing (None or NaN) for {missing} of {samples} samples, which are no group of "
            "their own; name each sample's, or leave these samples out"
        )
    if values.dtype.kind in "fO":
        found = [int(x) if isinstance(x, float) and x.is_integer() else x for x in found]
    return found


def group_numbers(groups: object, samples: int, name: str = "groups") -> npt.NDArray[np.int64]:
    """Number the groups of samples from 0, in the order of their names as text: int64 of shape (N,).

    Raises:
        ValueError: another number of them, or a sample without one.
    """
    names = np.asarray(list(map(str, group_ids(name, groups, samples))))
    return np.unique(names, return_inverse=True)[1].reshape(-1).astype(np.int64)


def check_index(given: Mapping[str, object]) -> None:
    """Refuse Series and frames of the same rows in other orders: what stands beside what would be chance.

    Rows are paired by position. Nothing is said where indexes do not name the same rows: where they differ in
    more than their order, where one is the default 0..n-1, which names places, or has a label twice.

    Args:
        given: what is read side by side, by its name in messages.
    """
    first: tuple[str, Any] | None = None
    for name, values in given.items():
        index = getattr(values, "index", None)
        if type(values).__module__.split(".")[0] != "pandas" or index is None:
            continue
        if (type(index).__name__ == "RangeIndex" and index.start == 0 and index.step == 1) or (
            not index.is_unique
        ):
            continue
        if first is None:
            first = name, index
            continue
        other = first[1]
        if len(other) == len(index) and not other.equals(index) and index.isin(other).all():
            raise ValueError(
                f"{first[0]} and {name} have the same rows in another order, as their indexes say, and are "
                "read by position; give both as .to_numpy() if their positions are right, or put one into "
                "the other's order by .loc[other.index], only if the indexes name the same rows"
            )


def is_series(source: object) -> TypeGuard[Any]:
    """Tell a pandas Series without importing pandas."""
    module = type(source).__module__  # "pandas.core.series" up to pandas 2, "pandas" from 3 on
    return module.split(".")[0] == "pandas" and hasattr(source, "index") and getattr(source, "ndim", 0) == 1


def _is_whole(name: object) -> bool:
    if isinstance(name, (float, np.floating)):  # what pandas makes of integers beside a missing one
        return float(name).is_integer()
    return isinstance(name, (int, np.integer, np.bool_))


def _same(out: _T) -> _T:
    return out


def _unbox(out: object) -> Any:
    return float(out) if isinstance(out, _NUMPY) else out
