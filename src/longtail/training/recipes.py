"""Recipes to start from: functions that return one, with any of its fields changed."""

from __future__ import annotations

from typing import Any

from longtail._registry import added
from longtail.training.recipe import ImageRecipe, Recipe, learning_rate_at
from longtail.training.registries import DEFAULTS

__all__ = [
    "RESNETS",
    "ImageRecipe",
    "Recipe",
    "default",
    "digits",
    "gtsrb",
    "images",
    "learning_rate_at",
    "small_images",
]

RESNETS = ("resnet50", "resnet101", "resnet152")  # from scratch


def digits(**changes: Any) -> Recipe:
    """Return the recipe for long-tailed 8x8 digits: about a second on one CPU core.

    Its beta of 0.99 (N = 100) is of the order of the largest class, 124 samples, beyond which effective
    numbers and inverse frequencies say the same; it is not the winner of a search.

    Args:
        **changes: any fields of `Recipe` to set otherwise.

    Raises:
        ValueError: as `Recipe`.
    """
    start = Recipe(
        dataset="digits",
        imbalance_factor=50.0,
        input_scale=8.0,
        model="small_cnn",
        beta=0.99,
        learning_rate=0.1,
        weight_decay=5e-4,
        schedule="cosine",
        warmup_epochs=5,
        epochs=100,
        batch_size=64,
        augmentation="shift",
        eval_every=10,
    )
    return start.replace(**changes)


def default(dataset: str) -> Recipe:
    """Return the recipe of a data set by name.

    Raises:
        ValueError: a data set without a recipe.
    """
    recipe: Recipe = DEFAULTS[dataset]()
    return recipe


def gtsrb(**changes: Any) -> Recipe:
    """Return the recipe for traffic signs of 32x32 pixels: a minute or two on one CPU core.

    Images are moved, never mirrored: a sign that is mirrored is another sign. The network was chosen on
    tracks held out of the training set; beta was not chosen by any result: 0.99 is N = 100, of the order of
    the smallest class.

    Args:
        **changes: any fields of `Recipe` to set otherwise.

    Raises:
        ValueError: as `Recipe`.
    """
    return small_images("gtsrb", **{"epochs": 8, "eval_every": 8, **changes})


def small_images(dataset: str, **changes: Any) -> Recipe:
    """Return a recipe for a folder of pictures brought to 32x32 pixels, for a first look on a CPU.

    Args:
        dataset: the name of the data set that `longtail.datasets.images.in_memory` made.
        **changes: any other fields of `Recipe` to set otherwise.

    Raises:
        ValueError: as `Recipe`.
    """
    start = Recipe(
        dataset=dataset,
        model="strided_cnn",
        beta=0.99,
        gamma=0.5,
        learning_rate=0.1,
        weight_decay=5e-4,
        schedule="cosine",
        warmup_epochs=1,
        epochs=30,
        batch_size=64,
        augmentation="shift",
        eval_every=10,
    )
    return start.replace(**changes)


def images(dataset: str, model: str = "resnet50", **changes: Any) -> ImageRecipe:
    """Return a recipe for your own images: a start, not the winner of a search.

    SGD with a cosine after a warm-up, 30 epochs of batches of 64. The learning rate follows the batch: 0.1
    per 256 samples for "resnet50" and its like (Goyal et al., 2017), a tenth of it for all other models,
    which mostly come with weights.

    Args:
        dataset: what to call the data in tables; `longtail.training.finetune` is given where they are.
        model: as in `ImageRecipe`.
        **changes: any other fields of `ImageRecipe` to set otherwise.

    Raises:
        ValueError: as `Recipe`.
    """
    start: dict[str, Any] = {
        "weight_decay": 1e-4,
        "schedule": "cosine",
        "warmup_epochs": 3,
        "epochs": 30,
        "batch_size": 64,
        "augmentation": "crop_flip",
    }
    recipe = ImageRecipe(dataset=dataset, model=model, **start)
    if "epochs" in changes:
        recipe = recipe.with_epochs(changes["epochs"])
    recipe = recipe.replace(**changes)
    if "learning_rate" in changes:
        return recipe
    base = 0.1 if model in RESNETS else 0.01
    return recipe.replace(learning_rate=base * recipe.batch_size / 256)


def __getattr__(name: str) -> Any:
    return added(__name__, name)
