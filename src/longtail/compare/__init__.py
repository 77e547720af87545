"""The main job: methods side by side over several seeds or folds, in one table that is computed once.

``longtail.compare(problem, methods)`` calls `longtail.compare.compare`: this module is called as a function.
"""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import Any

from longtail.compare.columns import COLUMNS, GROUPS, Column
from longtail.compare.learners import LEARNERS, Learner
from longtail.compare.outcome import Outcome
from longtail.compare.problem import Problem
from longtail.compare.row import Measure, Row
from longtail.compare.running import (
    LABEL_HEADS,
    LABELS,
    MAIN,
    TABLES,
    compare,
    estimate,
    few_neighbours,
    key,
    left_out,
    prepare,
    usual_methods,
    with_betas,
)
from longtail.compare.table import CONFIDENCE, LOSSES, ComparisonTable
from longtail.weights import SCHEMES

__all__ = [
    "COLUMNS",
    "CONFIDENCE",
    "GROUPS",
    "LABELS",
    "LABEL_HEADS",
    "LEARNERS",
    "LOSSES",
    "MAIN",
    "SCHEMES",
    "TABLES",
    "Column",
    "ComparisonTable",
    "Learner",
    "Measure",
    "Outcome",
    "Problem",
    "Row",
    "compare",
    "estimate",
    "few_neighbours",
    "key",
    "left_out",
    "prepare",
    "usual_methods",
    "with_betas",
]


class _Called(ModuleType):
    """A module that is called as its function of the same name."""

    __signature__ = inspect.signature(compare)

    def __call__(self, *args: Any, **options: Any) -> ComparisonTable:
        return compare(*args, **options)


sys.modules[__name__].__class__ = _Called
