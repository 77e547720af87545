"""Networks by name; they know nothing of losses, devices or data sets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from torch import nn

from longtail import _checks
from longtail.models.ddnet import DDNet, joint_collection_distances, two_scale_motion
from longtail.models.resnet_cifar import CifarResNet
from longtail.models.small_cnn import SmallCNN, StridedCNN

__all__ = [
    "CifarResNet",
    "DDNet",
    "SmallCNN",
    "StridedCNN",
    "build",
    "joint_collection_distances",
    "two_scale_motion",
]

# Every entry takes (in_channels, num_classes), for skeletons (joints, in_channels, num_classes), draws its
# randomness from torch's default generator, and uses torch.nn's dropout modules rather than the function:
# the training loop seeds those.
_SKELETONS: Final[dict[str, Callable[[int, int, int], nn.Module]]] = {
    f"ddnet{filters}": partial(DDNet, filters=filters) for filters in (16, 32, 64)
}
_IMAGES: Final[dict[str, Callable[[int, int], nn.Module]]] = {
    "small_cnn": SmallCNN,
    "strided_cnn": StridedCNN,
    **{f"resnet{depth}": partial(CifarResNet, depth) for depth in (20, 32, 44, 56, 110)},
}


def build(name: str, *, in_channels: int, num_classes: int, joints: int | None = None) -> nn.Module:
    """Make a freshly initialised network.

    Args:
        name: for images ``"small_cnn"``, ``"strided_cnn"``, ``"resnet20"``, ``"resnet32"``, ``"resnet44"``,
            ``"resnet56"`` or ``"resnet110"``; for skeletons ``"ddnet16"``, ``"ddnet32"`` or ``"ddnet64"``.
        in_channels: channels of the input images, or coordinates of a joint, at least 1.
        num_classes: number of outputs, at least 1.
        joints: joints of a skeleton, at least 2; None for images.

    Returns:
        A module from float ``(N, in_channels, H, W)``, or ``(N, frames, joints, in_channels)``, to logits
        ``(N, num_classes)``. The last linear layer is its attribute ``head``.

    Raises:
        ValueError: for an unknown name, a number below 1, or a network for the other kind of input.
    """
    _checks.choice("model", name, (*_IMAGES, *_SKELETONS))
    in_channels = _checks.integer("in_channels", in_channels, low=1)
    num_classes = _checks.integer("num_classes", num_classes, low=1)
    if (joints is None) != (name in _IMAGES):
        given, fitting = ("images", _IMAGES) if joints is None else ("skeletons", _SKELETONS)
        raise ValueError(f"model {name!r} is not for {given}; choose one of {', '.join(fitting)}")
    if joints is None:
        return _IMAGES[name](in_channels, num_classes)
    return _SKELETONS[name](joints, in_channels, num_classes)
