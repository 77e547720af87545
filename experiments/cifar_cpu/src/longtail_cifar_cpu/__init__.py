"""CIFAR ResNets trained on the CPU by C++ kernels, which `longtail.training.train` takes as "native"."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

    from longtail.training import Recipe

__all__ = ["NATIVE", "register"]


class _Native:
    """The accelerator; what needs torch is imported when it is asked."""

    def applies(self, recipe: Recipe, model: nn.Module, device: torch.device) -> str | None:
        """Return None where the kernels are built and can train this network, otherwise what is missing."""
        from longtail.models import CifarResNet
        from longtail_cifar_cpu.build import BuildError, library

        why = None
        if device.type != "cpu":
            why = f"the device is {device}"
        elif recipe.precision != "fp32":
            why = f"the precision is {recipe.precision!r}"
        elif not isinstance(model, CifarResNet):
            why = f"the model is {recipe.model!r}"
        elif sys.platform != "linux":
            # compilers bring an OpenMP of their own there, and two of them in one process may not agree
            why = f"the system is {sys.platform}, not Linux"
        if why is not None:
            return f"needs a CPU, fp32 and a CIFAR ResNet, but {why}"
        try:
            library()
        except BuildError as error:
            return f"needs its kernels, but {error}"
        return None

    def running(self, model: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the kernels compute the network's forward."""
        from longtail_cifar_cpu import convolution

        return convolution.running(model)


NATIVE = _Native()


def register() -> None:
    """Tell longtail; the entry point of this distribution."""
    from longtail.training.acceleration import ACCELERATORS

    ACCELERATORS.register("native", NATIVE)
