"""Lists, arrays and tensors as NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from longtail import _checks


def as_numpy(name: str, values: Any) -> npt.NDArray[Any]:
    """Anything array-like as NumPy; half precision becomes float32, which NumPy can always read."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if values.is_floating_point() and values.element_size() < 4:
            values = values.float()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(
            f"{name} must be a rectangular array, got {_checks.describe(values)}: {error}"
        ) from None
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array
