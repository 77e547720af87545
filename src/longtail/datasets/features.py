"""Features: what a pretrained network makes of each sample, as vectors, in one .npz file.

The file holds ``X`` (N, D), ``y`` (N,) and ``class_names``, and where they are known ``paths``, ``groups``,
and ``X_test``, ``y_test``, ``paths_test``, ``groups_test``. ``about`` is a JSON text that says where they are
from. It has no pickles, so that it runs nothing where it is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail import _checks
from longtail.sources.arrays import read_arrays

__all__ = ["Features"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Features:
    """Vectors and their classes: what `longtail embed` writes and `longtail compare` reads.

    Attributes:
        X: float16 or float32 of shape (N, D), finite.
        y: classes, int64 of shape (N,), 0 or more.
        class_names: one name per class.
        paths: where each row is from, text of shape (N,); or None.
        groups: of each row, such as its animal or track, text of shape (N,); or None.
        X_test: of shape (M, D), where there is a test set.
        y_test: of shape (M,).
        paths_test: of shape (M,), or None.
        groups_test: of shape (M,), or None.
        about: of the model that made them, its pooling, and the number of training rows.

    Raises:
        ValueError: rows that do not fit each other, features that are not finite, a class without a name.

    Example:
        >>> features = Features(np.eye(3, dtype=np.float32), np.array([0, 0, 1]), ("cat", "lynx"))
        >>> features.X.shape, features.num_classes
        ((3, 3), 2)
    """

    X: Array
    y: Array
    class_names: tuple[str, ...]
    paths: Array | None = None
    groups: Array | None = None
    X_test: Array | None = None
    y_test: Array | None = None
    paths_test: Array | None = None
    groups_test: Array | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.X_test is None) != (self.y_test is None):
            raise ValueError("X_test and y_test belong together; give both, or neither")
        parts = [("X", self.X, self.y, self.paths, self.groups)]
        if self.X_test is not None and self.y_test is not None:
            parts.append(("X_test", self.X_test, self.y_test, self.paths_test, self.groups_test))
        for name, x, y, *others in parts:
            end = name[1:]
            if x.ndim != 2 or x.dtype.kind != "f" or not x.size:
                raise ValueError(
                    f"{name} must hold floats of shape (N, D), got {_checks.describe(x)}; give a row a sample"
                )
            for what, values in zip(("y", "paths", "groups"), (y, *others), strict=True):
                if values is not None and values.shape != (len(x),):
                    raise ValueError(
                        f"{what}{end} has shape {values.shape} for {len(x)} rows of {name}; give one a row"
                    )
            if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= self.num_classes:
                raise ValueError(
                    f"y{end} must hold integers from 0 to {self.num_classes - 1}, one for each of the "
                    f"class_names, got {y.dtype} from {y.min()} to {y.max()}"
                )
            finite = np.isfinite(x).all(1)
            if not finite.all():
                bad = np.flatnonzero(~finite)
                raise ValueError(
                    f"{name} has NaN or infinite features in {len(bad)} of {len(x)} rows, first in row "
                    f"{bad[0]}; leave those rows out or make them anew"
                )
            if x.shape[1] != self.X.shape[1]:
                raise ValueError(
                    f"{name} has {x.shape[1]} features and X {self.X.shape[1]}; make both by one model"
                )

    def __len__(self) -> int:
        return len(self.X)

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.class_names)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write an .npz file at once or not at all; return its path.

        Raises:
            OSError: it cannot be written.
        """
        target = Path(path)
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(
                    file,
                    allow_pickle=False,
                    class_names=np.array(self.class_names),
                    about=np.array(json.dumps(dict(self.about))),
                    **arrays,
                )
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Features:
        """Read an .npz file with ``X`` and ``y``; all else may be missing. A Parquet file is read, too.

        Classes in ``y`` may be names; without ``class_names`` they are those of the training rows, in order.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no such file, or its arrays do not fit each other.
        """
        source = os.fspath(path)
        found = read_arrays(source)
        for part in sorted({"y", "y_test"} & found.keys()):
            if found[part].dtype.kind not in "biuUS":
                raise ValueError(
                    f"features {source}: {part} must hold whole numbers or names, got {found[part].dtype}; "
                    "give the class of each row"
                )
        names = found.pop("class_names", None)
        if names is None:
            names, found["y"] = _named(found["y"])
            if "y_test" in found:
                found["y_test"] = _codes(names, found["y_test"])
        elif found["y"].dtype.kind in "US":
            for part in sorted({"y", "y_test"} & found.keys()):
                found[part] = _codes(names, found[part])
        known = {name: found[name] for name in cls.__dataclass_fields__ if name in found and name != "about"}
        about = (
            _checks.parse_json(str(found["about"]), f"features {source}: about") if "about" in found else {}
        )
        try:
            return cls(**known, class_names=tuple(map(str, names.tolist())), about=about)
        except ValueError as error:
            raise ValueError(f"features {source}: {error}") from None


def _named(y: Array) -> tuple[Array, Array]:
    names, codes = np.unique(y, return_inverse=True)
    return names, codes.astype(np.int64)


def _codes(names: Array, y: Array) -> Array:
    """Return the place of each class among the names, which may stand in any order."""
    order = np.argsort(names)
    places = np.searchsorted(names[order], y).clip(max=len(names) - 1)
    codes: Array = order[places]
    strange = names[codes] != y
    if strange.any():
        first, *_ = y[strange].tolist()
        raise ValueError(
            f"class {first!r} is none of the {len(names)} classes {_checks.shorten(names.tolist())}; name "
            "every class in class_names, or leave those rows out"
        )
    return codes
