"""What happens to logits after training, before a class is chosen.

An adjustment is a function ``(logits, counts, *, settings) -> logits`` of NumPy arrays, of shapes (N, C) and
(C,), registered under the name that methods use; a package of your own adds one by
``ADJUSTMENTS.register(name, function)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from longtail._registry import Registry

__all__ = ["ADJUSTMENTS", "Adjustment"]

Adjustment = Callable[..., npt.NDArray[np.floating[Any]]]

ADJUSTMENTS: Final = Registry[Adjustment]("adjustment")
