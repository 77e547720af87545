"""Predictions -> `Evaluation`, and its mean and spread over seeds."""

from longtail.evaluation.curves import Curve, MacroCurves, macro_curves
from longtail.evaluation.intervals import Interval, jeffreys_interval, mean_interval, wilson_interval
from longtail.evaluation.label_shift import Calibration, PriorEstimate, estimate_prior, fit_calibration
from longtail.evaluation.multi_label import MultiLabelEvaluation
from longtail.evaluation.paired import TestDifference, paired_on_test
from longtail.evaluation.probabilities import check_probabilities
from longtail.evaluation.sets import PredictionSets, SetEvaluation, SetRule, fit_sets, prediction_sets
from longtail.evaluation.single_label import Evaluation, Evaluator, evaluate, read_evaluation
from longtail.evaluation.statistics import (
    PairedDifference,
    Summary,
    bonferroni,
    interval_text,
    paired_difference,
    summarize,
)
from longtail.evaluation.thresholds import TunedThresholds, class_curves, tune_thresholds

__all__ = [
    "Calibration",
    "Curve",
    "Evaluation",
    "Evaluator",
    "Interval",
    "MacroCurves",
    "MultiLabelEvaluation",
    "PairedDifference",
    "PredictionSets",
    "PriorEstimate",
    "SetEvaluation",
    "SetRule",
    "Summary",
    "TestDifference",
    "TunedThresholds",
    "bonferroni",
    "check_probabilities",
    "class_curves",
    "estimate_prior",
    "evaluate",
    "fit_calibration",
    "fit_sets",
    "interval_text",
    "jeffreys_interval",
    "macro_curves",
    "mean_interval",
    "paired_difference",
    "paired_on_test",
    "prediction_sets",
    "read_evaluation",
    "summarize",
    "tune_thresholds",
    "wilson_interval",
]
