"""Predictions -> `Evaluation`, and its mean and spread over seeds."""

from longtail.evaluation.single_label import Evaluation, Evaluator, evaluate
from longtail.evaluation.statistics import (
    PairedDifference,
    Summary,
    bonferroni,
    interval_text,
    paired_difference,
    summarize,
)

__all__ = [
    "Evaluation",
    "Evaluator",
    "PairedDifference",
    "Summary",
    "bonferroni",
    "evaluate",
    "interval_text",
    "paired_difference",
    "summarize",
]
