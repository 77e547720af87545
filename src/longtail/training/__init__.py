"""Training: recipes say what, the in-memory loop does it, checkpoints survive what happens meanwhile."""

from __future__ import annotations

from longtail.training.checkpoint import RunFolderError
from longtail.training.data import derive_seed
from longtail.training.folder import EpochMetrics, RunResult, load_run
from longtail.training.loop import DivergedError, evaluate_run, train
from longtail.training.recipe import Recipe, default, digits, learning_rate_at, paper_cifar

__all__ = [
    "DivergedError",
    "EpochMetrics",
    "Recipe",
    "RunFolderError",
    "RunResult",
    "default",
    "derive_seed",
    "digits",
    "evaluate_run",
    "learning_rate_at",
    "load_run",
    "paper_cifar",
    "train",
]
