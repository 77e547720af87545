"""Networks made quicker for single samples, where the number of calls is what takes the time."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, linear

from longtail.models import ddnet


def folded(model: nn.Module) -> nn.Module:
    """Return a copy for inference: DD-Net's batch norm becomes part of its weights, and dropout goes.

    Args:
        model: any network; another one than DD-Net is only copied.

    Returns:
        A network in evaluation mode with the same outputs but for rounding. It cannot be trained.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ddnet._Layer):
                setattr(parent, name, _Folded(child))
            elif isinstance(parent, nn.Sequential) and isinstance(child, nn.Dropout):
                delattr(parent, name)
    return model


class _Folded(nn.Module):
    """A DD-Net layer with its batch norm in weight and bias."""

    def __init__(self, layer: ddnet._Layer) -> None:
        super().__init__()
        norm = layer.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = layer.weight * gain.unsqueeze(1)
        self.width = layer.width
        # the neighbours of one channel side by side, which is how unfold lays them out
        self.weight = nn.Buffer(weight.view(len(weight), layer.width, -1).transpose(1, 2).flatten(1))
        self.bias = nn.Buffer(norm.bias - gain * norm.running_mean)

    def forward(self, x: Tensor) -> Tensor:
        if self.width > 1:
            zero = x.new_zeros(len(x), self.width // 2, x.shape[2])
            x = torch.cat((zero, x, zero), 1).unfold(1, self.width, 1).flatten(2)
        return leaky_relu(linear(x, self.weight, self.bias), ddnet._SLOPE, inplace=True)
