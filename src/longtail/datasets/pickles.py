"""Pickles without trust: a loader that makes containers, text, numbers and integer arrays, and nothing else.

The few names that a pickled NumPy array needs are answered by stand-ins of our own, so a file can call
neither NumPy nor anything else; any other name is refused.
"""

import pickle
import re
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

__all__ = ["read_pickle"]


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a dict of plain data from a pickle, as Python 2 or 3 wrote it, without running anything in it.

    Args:
        path: The file, of any pickle protocol.

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

    values: npt.NDArray[Any] | None = None

    def __init__(self, *_: object) -> None:
        """Take what an empty array is made with, and ignore it."""

    def __setstate__(self, state: Any) -> None:
        shape, dtype, fortran, raw = state[-4:]
        self._fill(raw, dtype, shape, "F" if fortran else "C")

    def _fill(self, raw: Any, dtype: Any, shape: Any, order: Any) -> None:
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes | bytearray):
            raise _Refused("it holds an array of objects")
        self.values = np.frombuffer(raw, np.dtype(dtype.code)).reshape(
            shape, order="F" if text(order) == "F" else "C"
        )


class _Buffer(_Array):
    """Stands in for NumPy's function that rebuilds an array since pickle protocol 5."""

    def __init__(self, raw: Any, dtype: Any, shape: Any, order: Any) -> None:
        self._fill(raw, dtype, shape, order)


class _Bytes:
    """Stands in for the function by which protocol 2 writes the bytes of Python 3."""

    def __new__(cls, text: str, _encoding: object) -> bytes:  # type: ignore[misc]
        """Return real bytes."""
        return text.encode("latin1")

    def __setstate__(self, _state: object) -> NoReturn:
        raise _Refused("it sets the state of bytes")


_STAND_INS: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _Buffer,
    ("numpy._core.numeric", "_frombuffer"): _Buffer,
    ("_codecs", "encode"): _Bytes,
}


# The unpickler written in Python: the one in C fills memory up to any index that a damaged file names.
class _DataOnly(pickle._Unpickler):
    """Finds the stand-ins and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a name, or refuse it."""
        if (module, name) not in _STAND_INS:
            raise _Refused(f"it asks for {module}.{name}")
        return _STAND_INS[module, name]

    def get_extension(self, code: int) -> NoReturn:
        """Refuse names by number, which would be looked up past `find_class`."""
        raise _Refused(f"it asks for the registered extension {code}")

    def persistent_load(self, pid: object) -> NoReturn:
        """Refuse references to objects outside the file."""
        raise _Refused("it refers to an object outside the file")
