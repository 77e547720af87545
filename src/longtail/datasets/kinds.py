"""Kinds of inputs: how they are laid out, and what networks and predictions have to know of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from longtail._registry import Registry

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True)
class Kind:
    """What the inputs of a data set are.

    Attributes:
        layout: the axes of the inputs, the first of which counts the samples.
        axes: how many there are; None for any number.
        network: arguments of a network of this kind, each the length of an axis of one input.
        sample: makes what `longtail.predict` prepares a single sample with, in place of
            `longtail.predict.Arrays`, which takes arrays as they are.
    """

    layout: str
    axes: int | None
    network: Mapping[str, int]
    sample: Callable[..., Any] | None = None


KINDS = Registry[Kind]("kind")
KINDS.register("images", Kind("(N, C, H, W)", 4, {"in_channels": 0}))
KINDS.register("vectors", Kind("(N, ...)", None, {"in_channels": 0}))
