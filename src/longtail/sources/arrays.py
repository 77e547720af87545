"""Features with their labels: .npz files, of which large ones are mapped and not read, and Parquet."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail import _checks
from longtail._arrays import check_headers
from longtail.sources.frames import matrix, parquet_columns, read_frame, vectors_of

__all__ = ["ARRAYS", "check_headers", "read_arrays"]

Array = npt.NDArray[Any]
# what a file of features may hold
_PART = ("X", "y", "groups", "paths")
ARRAYS = (*_PART, *(f"{name}_test" for name in _PART), "class_names", "about")
_DAMAGED = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, AttributeError)
_FEW = 20  # rows below which values that are all distinct say nothing
_ROWS = 1 << 14  # of a table that are turned at a time
_MAPPED = 1 << 26  # bytes from which an array stays on the disk


def read_arrays(path: str, label: str = "y") -> dict[str, Array]:
    """Read a file of features.

    Args:
        path: .npz with ``X`` and ``y``, and any other of `ARRAYS`; or .parquet.
        label: in a Parquet file, the column of the labels. All others are features, but for ``groups`` and
            ``paths``; or one of them holds lists of numbers, which are.

    Returns:
        The arrays by name; large ones of an .npz that is not compressed, or of Parquet, are memory maps.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another kind of file, one that cannot be read, or one without ``X`` and ``y``.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"features {path} is not there; longtail embed makes such a file")
    suffix = Path(path).suffix.lower()
    if suffix in (".parquet", ".pq"):
        return _of_parquet(path, label)
    if suffix != ".npz":
        raise ValueError(f"features must be a .npz or .parquet file, got {path!r}")
    try:
        check_headers(path)
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            names = file.files
            found = {name: _mapped(path, name) for name in names if name in ARRAYS}
            read_now = {name: file[name] for name, array in found.items() if array is None}
    except (OSError, ValueError, EOFError, KeyError, TypeError, *_DAMAGED) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"features {path} cannot be read ({why}); give an .npz file of plain arrays, X and y"
        ) from error
    arrays = {name: array for name, array in found.items() if array is not None} | read_now
    if missing := [name for name in ("X", "y") if name not in arrays]:
        raise ValueError(
            f"features {path} has no {' and no '.join(missing)}, only {_checks.shorten(names)}; name the "
            "features X (N, D) and their classes y (N,)"
        )
    if ("X_test" in arrays) != ("y_test" in arrays):
        raise ValueError(f"features {path}: X_test and y_test belong together; give both, or neither")
    return arrays


def _of_parquet(path: str, label: str) -> dict[str, Array]:
    kinds = parquet_columns(path)
    if label not in kinds:
        raise ValueError(
            f"features {path} has no column {label!r}, only {_checks.shorten([*kinds])}; name the labels y, "
            "or compare it as a table, by label=COLUMN"
        )
    together = "groups" if "groups" in kinds and label != "groups" else None
    vectors = [name for name, kind in kinds.items() if kind.endswith("]") and name != label]
    # pandas reads such a column as the numbering of rows, and not as one of the table
    index = [name for name in kinds if name.startswith("__index_level_")]
    drop = [name for name in kinds if name in ("paths", *vectors, *index) and name != label]
    if len(vectors) == 1:
        drop = [name for name in kinds if name not in (label, together)]
    read = read_frame(path, label=label, groups=together, drop=drop)
    found = {"y": read.labels} | ({} if read.groups is None else {"groups": read.groups})
    if len(vectors) == 1:
        return found | {"X": vectors_of(path, vectors[0])}
    for column in read.columns:
        if (said := column.parts) is not None:
            raise ValueError(
                f"column {column.name!r} of {path!r} says which rows are for training and which for testing "
                f"({said[0]!r}, {said[1]!r}), and is no feature; write a .npz file with X, y, X_test and "
                "y_test, leave the column out of the file, or give it another name if it is a feature"
            )
    if text := [*vectors, *(c.name for c in read.columns if c.kind != "number")]:
        raise ValueError(
            f"{path!r} has columns that are no numbers: {_checks.shorten(text)}; features are numbers alone, "
            "or one column of lists of them; a table is compared by label=COLUMN"
        )
    different = [
        column
        for column in read.columns
        if column.whole and len(read) >= _FEW and len(np.unique(column.values)) == len(read)
    ]
    for column in different:
        first, last = column.values.min(), column.values.max()
        if first in (0, 1) and last - first == len(read) - 1:
            raise ValueError(
                f"column {column.name!r} of {path!r} is an identifier, as it numbers the rows, and no "
                "feature; leave it out of the file, or compare it as a table, by label=COLUMN"
            )
    if different:
        _checks.warn(
            f"features {path}: every row has another whole number in "
            f"{_checks.shorten([c.name for c in different])}; leave out of the file what is an identifier"
        )
    whole = [c.name for c in read.columns if c.whole and len(np.unique(c.values[:_ROWS])) > _FEW]
    odd = [name for name in whole if name not in {c.name for c in different}]
    if odd and len(whole) < len(read.columns) / 2:
        _checks.warn(
            f"features {path}: whole numbers in {_checks.shorten(odd)}, beside others that are not, are "
            "taken as features; call groups what belongs together, and leave out what is no feature"
        )
    if not read.columns:
        raise ValueError(f"features {path} has no column beside {label!r}; give a column a feature")
    rows, columns = read.matrix.shape
    features = matrix(rows, columns, np.float32)
    for start in range(0, len(features), _ROWS):
        features[start : start + _ROWS] = read.matrix[start : start + _ROWS]
    return found | {"X": features}


def _mapped(path: str, name: str) -> Array | None:
    """Return a large array of an .npz as a memory map; None where it is small or compressed."""
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        about = archive.getinfo(f"{name}.npy")
        if about.compress_type != zipfile.ZIP_STORED or about.file_size < _MAPPED:
            return None
        file.seek(about.header_offset)
        # a local header says the lengths of its own name and extra field, which need not be the index's
        header = file.read(30)
        file.seek(about.header_offset + 30 + sum(struct.unpack("<HH", header[26:30])))
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            return None
        at = file.tell()
    flat: Array = np.memmap(path, dtype=dtype, mode="r", offset=at, shape=(int(np.prod(shape)),))
    return flat.reshape(shape, order="F" if fortran else "C")
