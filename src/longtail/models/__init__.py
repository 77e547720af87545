"""Networks by name; they know nothing of losses, devices or data sets.

Importing this package needs no torch; a network imports it when it is built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longtail import _checks
from longtail._registry import NAMES, Registry, added, later

if TYPE_CHECKING:
    from torch import nn

    from longtail.models.fast_cnn import FastCNN as FastCNN
    from longtail.models.resnet_cifar import CifarResNet as CifarResNet
    from longtail.models.small_cnn import SmallCNN as SmallCNN
    from longtail.models.small_cnn import StridedCNN as StridedCNN

__all__ = ["CifarResNet", "FastCNN", "Network", "NETWORKS", "SmallCNN", "StridedCNN", "build"]


@dataclass(frozen=True)
class Network:
    """A network that recipes name.

    Attributes:
        make: returns it, freshly initialised, from ``num_classes`` and the arguments of `shape`; it draws its
            randomness from torch's default generator, and uses torch.nn's dropout modules rather than the
            function: the training loop seeds those. The last linear layer is its attribute ``head``.
        kind: of inputs that it takes: "images", or one that an application adds.
        shape: arguments that a network of this kind wants to know of the inputs.
    """

    make: Callable[..., nn.Module]
    kind: str = "images"
    shape: tuple[str, ...] = ("in_channels",)


NETWORKS = Registry[Network]("model")
NETWORKS.register("small_cnn", Network(later("longtail.models.small_cnn:SmallCNN")))
NETWORKS.register("strided_cnn", Network(later("longtail.models.small_cnn:StridedCNN")))
NETWORKS.register("fast_cnn", Network(later("longtail.models.fast_cnn:FastCNN")))
NETWORKS.register("linear", Network(later("longtail.models.heads:LinearHead"), "vectors"))
NETWORKS.register("mlp", Network(later("longtail.models.heads:MLPHead"), "vectors"))
for _depth in (20, 32, 44, 56, 110):
    NETWORKS.register(
        f"resnet{_depth}", Network(later("longtail.models.resnet_cifar:CifarResNet", depth=_depth))
    )
NAMES.register("longtail.models.FastCNN", "longtail.models.fast_cnn:FastCNN")
NAMES.register("longtail.models.CifarResNet", "longtail.models.resnet_cifar:CifarResNet")
NAMES.register("longtail.models.SmallCNN", "longtail.models.small_cnn:SmallCNN")
NAMES.register("longtail.models.StridedCNN", "longtail.models.small_cnn:StridedCNN")


def build(name: str, *, num_classes: int, **shape: int | None) -> nn.Module:
    """Make a freshly initialised network.

    Args:
        name: for images ``"small_cnn"``, ``"strided_cnn"``, ``"fast_cnn"``, ``"resnet20"``, ``"resnet32"``,
            ``"resnet44"``, ``"resnet56"`` or ``"resnet110"``; applications add others, such as ``"ddnet16"``
            for skeletons.
        num_classes: number of outputs, at least 1.
        **shape: what a network of its kind wants to know of the inputs: for images ``in_channels``, at least
            1; for skeletons ``joints`` and ``in_channels``, coordinates of a joint. None counts as not given.

    Returns:
        A module from float inputs, for images ``(N, in_channels, H, W)``, to logits ``(N, num_classes)``. The
        last linear layer is its attribute ``head``.

    Raises:
        ValueError: for an unknown name, a number below 1, or a network for another kind of input.
    """
    network = NETWORKS[name]
    given = {key: value for key, value in shape.items() if value is not None}
    if given.keys() != set(network.shape):
        fitting = {n: other for n in NETWORKS if given.keys() == set((other := NETWORKS[n]).shape)}
        if not fitting:
            raise ValueError(
                f"model {name!r} is not for inputs of {', '.join(given)}; no network that is installed is"
            )
        kind = next(iter(fitting.values())).kind
        raise ValueError(f"model {name!r} is not for {kind}; choose one of {', '.join(fitting)}")
    sizes = {key: _checks.integer(key, value, low=1) for key, value in given.items()}
    return network.make(num_classes=_checks.integer("num_classes", num_classes, low=1), **sizes)


def __getattr__(name: str) -> Any:
    return added(__name__, name)
