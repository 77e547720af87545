"""Accelerators by name: other packages register what trains a network faster than plain PyTorch."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, Protocol

from longtail._registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import nn

    from longtail.training.recipe import Recipe

__all__ = ["ACCELERATORS", "Accelerator"]


class Accelerator(Protocol):
    """What runs a network by kernels of its own, on the same parameters."""

    def applies(self, recipe: Recipe, model: nn.Module, device: torch.device) -> str | None:
        """Return None where it can run this network, otherwise why not: "needs a CPU, but ..."."""

    def running(self, model: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Return a context in which calls of the network, to train or to evaluate it, are accelerated."""


ACCELERATORS: Final = Registry[Accelerator]("acceleration")
