"""Predictions -> `Evaluation`, and its mean and spread over seeds."""

from longtail.evaluation.curves import Curve
from longtail.evaluation.intervals import Interval, jeffreys_interval, mean_interval, wilson_interval
from longtail.evaluation.multi_label import MultiLabelEvaluation
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
    "Curve",
    "Evaluation",
    "Evaluator",
    "Interval",
    "MultiLabelEvaluation",
    "PairedDifference",
    "Summary",
    "bonferroni",
    "evaluate",
    "interval_text",
    "jeffreys_interval",
    "mean_interval",
    "paired_difference",
    "summarize",
    "wilson_interval",
]
