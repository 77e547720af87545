"""Networks by name; they know nothing of losses, devices or data sets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from torch import nn

from longtail import _checks
from longtail.models.resnet_cifar import CifarResNet
from longtail.models.small_cnn import SmallCNN

__all__ = ["CifarResNet", "SmallCNN", "build"]

# Every entry takes (in_channels, num_classes), draws its randomness from torch's default generator, and
# uses torch.nn's dropout modules rather than the function: the training loop seeds those.
_MODELS: Final[dict[str, Callable[[int, int], nn.Module]]] = {
    "small_cnn": SmallCNN,
    **{f"resnet{depth}": partial(CifarResNet, depth) for depth in (20, 32, 44, 56, 110)},
}


def build(name: str, *, in_channels: int, num_classes: int) -> nn.Module:
    """Make a freshly initialised network.

    Args:
        name: ``"small_cnn"``, or ``"resnet20"``, ``"resnet32"``, ``"resnet44"``, ``"resnet56"`` or
            ``"resnet110"``.
        in_channels: channels of the input images, at least 1.
        num_classes: number of outputs, at least 1.

    Returns:
        A module from float ``(N, in_channels, H, W)`` to logits ``(N, num_classes)``. The last linear layer
        is its attribute ``head``.

    Raises:
        ValueError: for an unknown name, or a number below 1.
    """
    _checks.choice("model", name, _MODELS)
    in_channels = _checks.integer("in_channels", in_channels, low=1)
    num_classes = _checks.integer("num_classes", num_classes, low=1)
    return _MODELS[name](in_channels, num_classes)
