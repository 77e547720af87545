"""From when a method's weights and sampling act.

A schedule is a function ``(progress, *, settings) -> bool``: progress is the share of the training that lies
before an epoch, in [0, 1). A package of your own adds one by ``SCHEDULES.register(name, function)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from longtail import _checks
from longtail._registry import Registry

__all__ = ["SCHEDULES", "Schedule", "deferred"]

Schedule = Callable[..., bool]

SCHEDULES: Final = Registry[Schedule]("schedule")


def deferred(progress: float, *, start: float = 0.8) -> bool:
    """Return whether the share `start` of the training is over.

    Source: deferred re-weighting (DRW) of Cao et al. (NeurIPS 2019): from epoch 160 of 200 on.
    """
    return progress >= _checks.number("start", start, low=0.0, high=1.0, remedy="0.8 is usual")


SCHEDULES.register("deferred", deferred)
