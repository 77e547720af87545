"""What recipes name and applications add to; importing this needs neither torch nor pydantic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from longtail._registry import Registry, later

__all__ = ["AUGMENTATIONS", "DEFAULTS", "Augmentation"]


@dataclass(frozen=True)
class Augmentation:
    """How training samples are varied.

    Attributes:
        make: returns the samples of a run: a `longtail.training.augment.Samples` of its inputs.
        kind: of inputs that it varies; None for any.
    """

    make: Callable[..., Any]
    kind: str | None = None


AUGMENTATIONS = Registry[Augmentation]("augmentation")
AUGMENTATIONS.register("none", Augmentation(later("longtail.training.augment:Samples")))
AUGMENTATIONS.register("shift", Augmentation(later("longtail.training.augment:Crops", pad=1), "images"))
AUGMENTATIONS.register(
    "crop_flip", Augmentation(later("longtail.training.augment:Crops", pad=4, flip=True), "images")
)

# the recipe that a data set's name stands for
DEFAULTS = Registry[Callable[[], Any]]("dataset")
DEFAULTS.register("digits", later("longtail.training.recipes:digits"))
DEFAULTS.register("gtsrb", later("longtail.training.recipes:gtsrb"))
