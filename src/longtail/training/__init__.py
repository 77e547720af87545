"""Training: recipes say what, the in-memory loop does it, checkpoints survive what happens meanwhile.

Names load on first use: whoever only reads recipes or starts worker processes does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from longtail._registry import added

if TYPE_CHECKING:
    from longtail.adapters.transformers import TrainerMetrics as TrainerMetrics
    from longtail.adapters.transformers import step_denominator as step_denominator
    from longtail.adapters.transformers import trainer_loss as trainer_loss
    from longtail.training.data import derive_seed as derive_seed
    from longtail.training.device import DivergedError as DivergedError
    from longtail.training.evaluate import evaluate_run as evaluate_run
    from longtail.training.files import RunFolderError as RunFolderError
    from longtail.training.folder import EpochMetrics as EpochMetrics
    from longtail.training.folder import RunResult as RunResult
    from longtail.training.folder import load_run as load_run
    from longtail.training.loop import PausedError as PausedError
    from longtail.training.loop import train as train
    from longtail.training.manifest import FileCheck as FileCheck
    from longtail.training.recipe import ImageRecipe as ImageRecipe
    from longtail.training.recipe import Recipe as Recipe
    from longtail.training.recipe import learning_rate_at as learning_rate_at
    from longtail.training.recipes import default as default
    from longtail.training.recipes import digits as digits
    from longtail.training.recipes import fast_cifar as fast_cifar
    from longtail.training.recipes import gtsrb as gtsrb
    from longtail.training.recipes import images as images
    from longtail.training.recipes import small_images as small_images
    from longtail.training.verify import verify_run as verify_run

_ROOMS = {
    ".recipe": ("ImageRecipe", "Recipe", "learning_rate_at"),
    ".recipes": ("default", "digits", "fast_cifar", "gtsrb", "images", "small_images"),
    "longtail.adapters.transformers": ("TrainerMetrics", "step_denominator", "trainer_loss"),
    ".loop": ("PausedError", "train"),
    ".device": ("DivergedError",),
    ".evaluate": ("evaluate_run",),
    ".folder": ("EpochMetrics", "RunResult", "load_run"),
    ".files": ("RunFolderError",),
    ".manifest": ("FileCheck",),
    ".verify": ("verify_run",),
    ".data": ("derive_seed",),
}
_NAMES = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [*_NAMES]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        return added(__name__, name)
    value = getattr(importlib.import_module(_NAMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
