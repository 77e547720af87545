"""Training: recipes say what, the in-memory loop does it, checkpoints survive what happens meanwhile.

Names load on first use: whoever only reads recipes or starts worker processes does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longtail.training.data import derive_seed as derive_seed
    from longtail.training.device import DivergedError as DivergedError
    from longtail.training.evaluate import evaluate_run as evaluate_run
    from longtail.training.files import RunFolderError as RunFolderError
    from longtail.training.folder import EpochMetrics as EpochMetrics
    from longtail.training.folder import RunResult as RunResult
    from longtail.training.folder import load_run as load_run
    from longtail.training.loop import PausedError as PausedError
    from longtail.training.loop import train as train
    from longtail.training.recipe import ImageRecipe as ImageRecipe
    from longtail.training.recipe import Recipe as Recipe
    from longtail.training.recipe import ddnet as ddnet
    from longtail.training.recipe import default as default
    from longtail.training.recipe import digits as digits
    from longtail.training.recipe import gtsrb as gtsrb
    from longtail.training.recipe import images as images
    from longtail.training.recipe import learning_rate_at as learning_rate_at
    from longtail.training.recipe import paper_cifar as paper_cifar
    from longtail.training.recipe import paper_large as paper_large
    from longtail.training.recipe import small_images as small_images
    from longtail.training.trainers import TrainerMetrics as TrainerMetrics
    from longtail.training.trainers import step_denominator as step_denominator
    from longtail.training.trainers import trainer_loss as trainer_loss

_ROOMS = {
    "recipe": (
        *("ImageRecipe", "Recipe", "ddnet", "default", "digits", "gtsrb", "images", "learning_rate_at"),
        *("paper_cifar", "paper_large", "small_images"),
    ),
    "trainers": ("TrainerMetrics", "step_denominator", "trainer_loss"),
    "loop": ("PausedError", "train"),
    "device": ("DivergedError",),
    "evaluate": ("evaluate_run",),
    "folder": ("EpochMetrics", "RunResult", "load_run"),
    "files": ("RunFolderError",),
    "data": ("derive_seed",),
}
_NAMES = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [*_NAMES]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'longtail.training' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"longtail.training.{_NAMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
