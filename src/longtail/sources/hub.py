"""Hugging Face data sets: by object, from where they were saved, by name; counting and loading alike."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from longtail import _checks
from longtail.sources.counted import MISSING, Counted, Wanted, finish, needs, with_missing
from longtail.sources.listing import TESTS


def is_data_set(source: object) -> TypeGuard[Any]:
    """Tell a ``datasets.Dataset``, also streamed or a dict of splits, without importing its package."""
    return type(source).__module__.split(".")[0] == "datasets" and hasattr(source, "select_columns")


def is_saved(path: str | os.PathLike[str]) -> bool:
    """Whether ``save_to_disk`` wrote a folder."""
    return any((Path(path) / name).is_file() for name in ("dataset_dict.json", "state.json"))


def load_saved(path: str) -> Any:
    """Open what ``save_to_disk`` wrote; nothing of it is read yet.

    Raises:
        ModuleNotFoundError: datasets is not installed.
    """
    return needs("datasets", "a saved data set needs", "images").load_from_disk(path)


# ---- counting


def count(source: Any, wanted: Wanted, path: str | None = None) -> Counted:
    """Count a column of a ``datasets.Dataset``, batch by batch in Arrow; nothing else of it is read.

    Raises:
        TypeError: a dict of splits, missing labels, several values a sample.
        ValueError: no such column, no rows, a label that its ``ClassLabel`` has no name for.
    """
    if hasattr(source, "keys"):
        names = list(source)
        one = f"source[{names[0]!r}]" if path is None else f"'{path}/{names[0]}'"
        raise TypeError(f"source holds the splits {', '.join(names)}; give one, such as {one}")
    label, features = wanted.label, source.features or {}  # a streamed one may not know them
    named = [column for column, feature in features.items() if hasattr(feature, "int2str")]
    if label is None and len(named) != 1:
        has = _checks.shorten(features, 20) or "unknown columns"
        raise ValueError(
            f"the data set has {len(named)} ClassLabel columns; name the label column; it has {has}"
        )
    column = named[0] if label is None else label
    if features:
        _checks.column("label", column, features, "the data set")
    feature = features.get(column)
    if feature is not None and getattr(feature, "pa_type", None) is None:
        raise TypeError(f"label {column!r} of the data set is a {feature}; one value a sample is needed")
    try:
        counted = finish(_arrow_counts(source, column), "the data set", wanted)
    except KeyError as error:  # from a streamed one that did not know its columns
        raise ValueError(f"label={column!r} is no column of the data set; name one of its columns") from error
    if column not in named:
        return counted
    known: dict[Any, Any] = dict(zip(counted.names, counted.counts, strict=True))
    missing = known.pop(MISSING, 0)
    classes = features[column].names
    unknown = [name for name in known if not 0 <= name < len(classes)]
    if unknown:
        raise ValueError(
            f"label {column!r} must be in 0..{len(classes) - 1}, got {_checks.shorten(unknown)}; "
            "drop the samples without a class"
        )
    return with_missing(Counted(list(classes), [known.get(i, 0) for i in range(len(classes))]), missing)


def _arrow_counts(source: Any, column: str) -> Iterator[tuple[Any, int]]:
    rows = getattr(source, "_indices", None)
    if rows is None:
        for table in source.select_columns([column]).with_format("arrow").iter(batch_size=1 << 16):
            for entry in table.column(column).value_counts().to_pylist():
                yield entry["values"], entry["counts"]
        return
    # selected or shuffled: the data set's own way to such rows takes ten microseconds for each
    encoded = source.data.column(column).dictionary_encode().unify_dictionaries()
    codes = np.concatenate([chunk.indices.fill_null(-1).to_numpy() for chunk in encoded.chunks])
    values = [*encoded.chunk(0).dictionary.to_pylist(), None]
    for chunk in rows.column(0).chunks:
        found, counts = np.unique(codes[chunk.to_numpy()], return_counts=True)
        for code, count in zip(found.tolist(), counts.tolist(), strict=True):
            yield values[code], count


# ---- loading


def splits(source: Any) -> dict[str, Any] | None:
    """Return the splits of a data set, or None if the source is none.

    Raises:
        ModuleNotFoundError: datasets is not installed.
        TypeError: neither a data set nor anything else that images are read from.
        ValueError: a name that cannot be loaded.
    """
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        if is_saved(name):
            source = load_saved(name)
        elif not name.startswith("hf:"):
            return None
        else:
            try:
                source = needs("datasets", "a data set of Hugging Face needs", "images").load_dataset(
                    name[3:]
                )
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"{name!r} cannot be loaded by datasets.load_dataset: {error}; check the name and the "
                    "connection, or give a folder where the data set was saved by save_to_disk"
                ) from error
    if hasattr(source, "features") and hasattr(source, "select"):
        return {"train": source}
    if isinstance(source, dict) and source and all(hasattr(rows, "features") for rows in source.values()):
        return dict(source)
    if isinstance(source, (str, os.PathLike, Sequence)):
        return None
    raise TypeError(f"source must be a folder, list files or a data set, got {_checks.describe(source)}")


def images(
    parts: dict[str, Any], image: str | None, label: str | None, source: str
) -> tuple[str, list[tuple[Any, Any]], tuple[str, ...] | None]:
    """Return the image column, each split's rows and labels, and the classes' names where labels have them.

    The first split is the training one, a second the test one; images stay undecoded.

    Raises:
        ModuleNotFoundError: datasets is not installed.
        ValueError: no training split, a missing or unsuited column, rows without a label.
    """
    if "train" not in parts:
        raise ValueError(f"{source} has the splits {', '.join(parts)}, but no 'train'; rename one")
    library = needs("datasets", "a data set of Hugging Face needs", "images")
    features = parts["train"].features
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    image = _column("image", image, kinds, "Image", source)
    label = _column("label", label, kinds, "ClassLabel", source)
    test = next((parts[name] for name in TESTS if name in parts), None)
    found = []
    for rows in (parts["train"],) if test is None else (parts["train"], test):
        for column in (image, label):
            if column not in rows.features:
                raise ValueError(
                    f"{source}: a split lacks the column {column!r} of the training split"
                    "; save the splits with the same columns"
                )
        labels = np.asarray(rows.with_format("numpy", columns=[label])[label][:])
        if kinds[label] == "ClassLabel" and (labels < 0).any():
            raise ValueError(f"{source}: column {label!r} has rows without a label (-1); leave them out")
        found.append((rows.cast_column(image, library.Image(decode=False)), labels))
    return image, found, tuple(features[label].names) if kinds[label] == "ClassLabel" else None


def column(rows: Any, name: str, source: str) -> np.ndarray[Any, np.dtype[np.str_]]:
    """Return a column as texts.

    Raises:
        ValueError: no such column, or a value is missing.
    """
    _checks.column("groups", name, rows.features, source)
    values = rows.select_columns([name])[name][:]
    if lacking := sum(value is None for value in values):
        raise ValueError(f"{lacking} rows of {source} lack a group ({name!r}); fill them")
    return np.array([str(value) for value in values])


def _column(name: str, given: str | None, kinds: dict[str, str], kind: str, source: str) -> str:
    """Return the column that is meant."""
    columns = ", ".join(f"{column!r} ({k})" for column, k in kinds.items())
    if given is not None:
        if given not in kinds:
            raise ValueError(f"{name}={given!r} is no column of {source}; it has {columns}")
        if name == "image" and kinds[given] != kind:
            raise ValueError(
                f"image={given!r} is a column of {kinds[given]}s, not of images; it has {columns}"
            )
        return given
    fitting = [column for column, k in kinds.items() if k == kind] or [c for c in kinds if c == name]
    if len(fitting) != 1:
        found = "no" if not fitting else "more than one"
        raise ValueError(f"{source} has {found} {name} column; name it by {name}=; it has {columns}")
    return fitting[0]
