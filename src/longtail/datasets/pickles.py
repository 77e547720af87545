"""Pickles without trust: containers, text, numbers and integer arrays are made, and nothing is called.

The few names that a pickled NumPy array needs are answered by stand-ins of our own; others are refused.
"""

import pickle
import re
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt


def read_pickle(path: Path) -> dict[str, object]:
    """Read a dict of plain data from a pickle, as Python 2 or 3 wrote it, without running anything in it.

    Returns:
        Its entries by name; arrays as read-only NumPy arrays of integers, the strings of Python 2 as bytes.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no pickle of a dict, is damaged, or asks for more than data; the message names the
            file and what it asks for.
    """
    try:
        with path.open("rb") as file:
            content = _DataOnly(file, encoding="bytes").load()
    except _Refused as error:
        raise ValueError(
            f"{path} is refused: {error}, and data alone needs no such thing; do not unpickle it elsewhere, "
            "remove it and fetch the official file"
        ) from None
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(
            f"{path} is no pickle or a damaged one ({type(error).__name__}: {error}); "
            "remove it and fetch the official file"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__} in place of a dict; fetch the official file"
        )
    return {
        text(key): value.values if isinstance(value, _Array) else value
        for key, value in content.items()
        if isinstance(key, str | bytes)
    }


def text(value: object) -> str:
    """Return the text of a string, whether Python 2 or 3 wrote it."""
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


class _Refused(Exception):
    """A pickle asks for something other than data."""


class _Dtype:
    """Stands in for numpy.dtype: one of the plain integer types, by its code."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = text(code)
        if not re.fullmatch(r"[<>|=]?[biu][1248]", self.code):
            raise _Refused(f"it holds an array of type {self.code!r}")

    def __setstate__(self, state: Any) -> None:
        self.code = {"<": "<", ">": ">"}.get(text(state[1]), "") + self.code[-2:]


class _Array:
    """Stands in for numpy.ndarray and what rebuilds one: bytes, seen as integers in a shape."""

    values: npt.NDArray[np.integer] | None = None

    def __init__(self, *made: object) -> None:
        if len(made) == 4:  # protocol 5: bytes, type, shape, order
            self.__setstate__((made[2], made[1], text(made[3]) == "F", made[0]))

    def __setstate__(self, state: Any) -> None:
        shape, dtype, fortran, raw = state[-4:]
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes | bytearray):
            raise _Refused("it holds an array of objects")
        self.values = np.frombuffer(raw, np.dtype(dtype.code)).reshape(shape, order="F" if fortran else "C")


# The unpickler written in Python: the one in C fills memory up to any index that a damaged file names.
class _DataOnly(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module.replace('numpy._core', 'numpy.core')}.{name}"
        if asked in ("numpy.ndarray", "numpy.core.multiarray._reconstruct", "numpy.core.numeric._frombuffer"):
            return _Array
        if asked == "numpy.dtype":
            return _Dtype
        if asked == "_codecs.encode":  # by which protocol 2 writes the bytes of Python 3
            return lambda text, _: text.encode("latin1")  # a new one each time: a pickle may change it
        raise _Refused(f"it asks for {module}.{name}")

    def get_extension(self, code: int) -> NoReturn:  # a name by number, which find_class would not see
        raise _Refused(f"it asks for the registered extension {code}")

    def persistent_load(self, pid: object) -> NoReturn:
        raise _Refused("it refers to an object outside the file")
