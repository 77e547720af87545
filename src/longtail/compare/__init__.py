"""The main job: methods side by side over several seeds, in one table that is computed once."""

from longtail.compare.columns import COLUMNS, GROUPS, Column
from longtail.compare.outcome import Outcome
from longtail.compare.row import Measure, Row
from longtail.compare.running import compare, prepare
from longtail.compare.table import CONFIDENCE, LOSSES, ComparisonTable
from longtail.weights import SCHEMES

__all__ = [
    "COLUMNS",
    "CONFIDENCE",
    "GROUPS",
    "LOSSES",
    "SCHEMES",
    "Column",
    "ComparisonTable",
    "Measure",
    "Outcome",
    "Row",
    "compare",
    "prepare",
]
