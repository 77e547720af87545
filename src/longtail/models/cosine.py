"""A last layer whose logits are cosines: what margins between classes are measured in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["CosineLinear", "with_cosine_head"]


class CosineLinear(nn.Linear):
    """Logits ``scale * cos(angle between feature and class vector)``, without bias until one is put in.

    Args:
        in_features: D.
        out_features: C.
        scale: of the cosines, > 0; 30 is usual.

    Source: the normalised classifier of Cao et al. (NeurIPS 2019, LDAM) and of Liu et al. (CVPR 2019).
    """

    def __init__(self, in_features: int, out_features: int, scale: float) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.scale = scale
        self.had_bias = True  # whether the linear layer in whose place it stands had one

    def forward(self, input: Tensor) -> Tensor:
        """Return logits of shape (N, C) for features of shape (N, D)."""
        directions = nn.functional.normalize(input, dim=-1), nn.functional.normalize(self.weight, dim=-1)
        logits = self.scale * nn.functional.linear(*directions)
        return logits if self.bias is None else logits + self.bias

    def extra_repr(self) -> str:
        """Name the sizes and the scale."""
        return f"{super().extra_repr()}, scale={self.scale:g}"


def with_cosine_head(model: nn.Module, scale: float) -> nn.Module:
    """Give a network a cosine head in place of its attribute ``head``, a linear layer, and return it."""
    head = model.head
    if not isinstance(head, nn.Linear):
        raise TypeError(
            f"the network's head is a {type(head).__name__}; a cosine head replaces a Linear layer"
        )
    with torch.device(head.weight.device):
        model.head = CosineLinear(head.in_features, head.out_features, scale)
    return model
