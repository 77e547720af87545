"""A loss of logits that are scaled and shifted by class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from longtail.losses.module import ClassBalancedLoss

__all__ = ["ShiftedLoss"]


class ShiftedLoss(nn.Module):
    """A class-balanced loss of logits that are scaled and shifted by class while training.

    In evaluation mode the logits stay as they are: the vectors are a tool of the training, and a
    validation loss is that of the bare network.

    Args:
        base: the loss.
        offset: a, float of shape (C,), or None.
        scale: s, likewise.
        margin: m, likewise.

    Attributes:
        base: the loss.
    """

    offset: Tensor | None
    scale: Tensor | None
    margin: Tensor | None

    def __init__(
        self,
        base: ClassBalancedLoss,
        *,
        offset: Any = None,
        scale: Any = None,
        margin: Any = None,
    ) -> None:
        super().__init__()
        self.base = base
        for name, values in (("offset", offset), ("scale", scale), ("margin", margin)):
            tensor = None if values is None else torch.as_tensor(values, dtype=torch.float32)
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, input: Tensor, target: Tensor, *, denominator: Tensor | float | None = None) -> Tensor:
        """Return the loss of a batch; arguments as for `longtail.ClassBalancedLoss`."""
        shifted = self.shift(input, target) if self.training else input
        loss: Tensor = self.base(shifted, target, denominator=denominator)
        return loss

    def shift(self, input: Tensor, target: Tensor) -> Tensor:
        """Return ``s * z + a - m_y * onehot_y`` in the shape of the logits (N, C) or (N, C, d1, ...)."""
        per_class = (-1, *[1] * (input.ndim - 2))
        if self.scale is not None:
            input = input * self.scale.to(input.dtype).view(per_class)
        if self.offset is not None:
            input = input + self.offset.to(input.dtype).view(per_class)
        if self.margin is not None:
            margin = self.margin.to(input.dtype).view(per_class)
            if target.is_floating_point():
                input = input - margin * target
            else:
                classes = torch.arange(input.shape[1], device=input.device).view(per_class)
                input = input - margin * (classes == target.unsqueeze(1))
        return input

    def count(self, target: Tensor) -> Tensor:
        """Return what a mean over these targets divides by, as `longtail.ClassBalancedLoss.count`."""
        return self.base.count(target)

    @property
    def weight(self) -> Tensor:
        """Class weights, float32 of shape (C,)."""
        return self.base.weight

    @property
    def reduction(self) -> str:
        """As of the loss below."""
        return self.base.reduction

    @property
    def normalizer(self) -> str:
        """As of the loss below."""
        return self.base.normalizer

    @property
    def ignore_index(self) -> int:
        """As of the loss below."""
        return self.base.ignore_index
