"""Class-balanced training for long-tailed data.

labels -> class counts -> class weights -> loss -> training -> evaluation -> report

Public names load on first use, so that importing the package costs nothing and the weights need
NumPy alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longtail import adapters as adapters
    from longtail import compare as compare
    from longtail import datasets as datasets
    from longtail import functional as functional
    from longtail import methods as methods
    from longtail.adjust import adjust_logits as adjust_logits
    from longtail.adjust import adjust_probabilities as adjust_probabilities
    from longtail.adjust import tune_adjustment as tune_adjustment
    from longtail.auditing import Audit as Audit
    from longtail.auditing import audit as audit
    from longtail.compare.problem import Problem as Problem
    from longtail.counts import ClassCounts as ClassCounts
    from longtail.counts import ClassWeights as ClassWeights
    from longtail.counts import class_counts as class_counts
    from longtail.effective import effective_number as effective_number
    from longtail.evaluation import Evaluation as Evaluation
    from longtail.evaluation import estimate_prior as estimate_prior
    from longtail.evaluation import evaluate as evaluate
    from longtail.evaluation import prediction_sets as prediction_sets
    from longtail.head import init_prior_bias_ as init_prior_bias_
    from longtail.head import parameter_groups as parameter_groups
    from longtail.head import with_prior as with_prior
    from longtail.losses.module import ClassBalancedLoss as ClassBalancedLoss
    from longtail.suggest import suggest_beta as suggest_beta
    from longtail.training import recipes as recipes
    from longtail.training.embedding import embed as embed
    from longtail.weights import class_weight_dict as class_weight_dict
    from longtail.weights import class_weights as class_weights
    from longtail.weights import positive_weights as positive_weights
    from longtail.weights import sample_weights as sample_weights

_NAMES = {
    "class_counts": "longtail.counts",
    "ClassCounts": "longtail.counts",
    "ClassWeights": "longtail.counts",
    "effective_number": "longtail.effective",
    "class_weights": "longtail.weights",
    "sample_weights": "longtail.weights",
    "class_weight_dict": "longtail.weights",
    "positive_weights": "longtail.weights",
    "ClassBalancedLoss": "longtail.losses.module",
    "init_prior_bias_": "longtail.head",
    "parameter_groups": "longtail.head",
    "with_prior": "longtail.head",
    "Evaluation": "longtail.evaluation",
    "evaluate": "longtail.evaluation",
    "estimate_prior": "longtail.evaluation",
    "prediction_sets": "longtail.evaluation",
    "adjust_logits": "longtail.adjust",
    "adjust_probabilities": "longtail.adjust",
    "tune_adjustment": "longtail.adjust",
    "suggest_beta": "longtail.suggest",
    "embed": "longtail.training.embedding",
    "audit": "longtail.auditing",
    "Audit": "longtail.auditing",
    "Problem": "longtail.compare.problem",
}
_MODULES = {
    "functional": "longtail.functional",
    "datasets": "longtail.datasets",
    "recipes": "longtail.training.recipes",
    "methods": "longtail.methods",
    "adapters": "longtail.adapters",
    "compare": "longtail.compare",
}

__all__ = [*_NAMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("longtail")
    if name not in _NAMES and name not in _MODULES:
        raise AttributeError(f"module 'longtail' has no attribute {name!r}")
    try:
        module = importlib.import_module(_NAMES.get(name) or _MODULES[name])
    except ModuleNotFoundError as error:
        if (error.name or "longtail").startswith("longtail"):
            raise
        extra = "torch" if error.name == "torch" else "train"
        raise ModuleNotFoundError(
            f"longtail.{name} needs {error.name}; pip install 'longtail[{extra}]'", name=error.name
        ) from error
    value = getattr(module, name) if name in _NAMES else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
