"""DD-Net for one clip at a time, in NumPy: torch would spend its time between its calls."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from longtail.skeletons import ddnet

Array = npt.NDArray[np.float32]


class SingleClip:
    """A trained DD-Net, folded: batch norm is part of the weights, and dropout is gone.

    Its logits are those of the network in evaluation mode but for rounding, in a fraction of the time for
    few filters, where a layer is less work than the calls around it.

    Args:
        model: the network, on the CPU; later changes to it are not seen.
    """

    def __init__(self, model: ddnet.DDNet) -> None:
        self.stems = [_layers(stem) for stem in (model.distances, model.slow, model.fast)]
        self.pairs = [_layers(pair) for pair in model.pairs]
        self.dense = _layers(model.dense)
        self.head = _array(model.head.weight.T), _array(model.head.bias)
        self.joints = np.triu_indices(model.joints, 1)

    def __call__(self, clip: Array) -> Array:
        """Return the logits, float32 of shape (C,), of a float32 clip of shape (T, J, D); T at least 3."""
        apart = clip[:, self.joints[0]] - clip[:, self.joints[1]]
        distances = np.sqrt(np.einsum("tpd,tpd->tp", apart, apart))
        slow, fast = (m @ clip.reshape(len(clip), -1) for m in _motions(len(clip)))
        a, b, c = (_run(s, x) for s, x in zip(self.stems, (distances, slow, fast), strict=True))
        x = np.concatenate((_halve(a), _halve(b), c), 1)
        first, second, third = self.pairs
        x = _run(third, _halve(_run(second, _halve(_run(first, x))))).max(0, keepdims=True)
        weight, bias = self.head
        logits: Array = (_run(self.dense, x) @ weight + bias)[0]
        return logits


class _Layer:
    def __init__(self, layer: ddnet._Layer) -> None:
        norm = layer.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        self.width = layer.width
        self.weight = _array((layer.weight * gain.unsqueeze(1)).T)
        self.bias = _array(norm.bias - gain * norm.running_mean)

    def __call__(self, x: Array) -> Array:
        if self.width > 1:
            frames, channels = x.shape
            edge = self.width // 2
            padded = np.zeros((frames + 2 * edge, channels), np.float32)
            padded[edge:-edge] = x
            # rows of neighbouring frames overlap in memory
            x = np.lib.stride_tricks.as_strided(padded, (frames, self.width * channels), padded.strides)
        x = x @ self.weight
        x += self.bias
        np.maximum(x, ddnet._SLOPE * x, out=x)
        return x


def _layers(modules: nn.Module) -> list[_Layer]:
    return [_Layer(m) for m in modules.modules() if isinstance(m, ddnet._Layer)]


def _run(layers: Sequence[_Layer], x: Array) -> Array:
    for layer in layers:
        x = layer(x)
    return x


def _halve(x: Array) -> Array:
    if len(x) % 2:
        x = np.concatenate((x, x[-1:]))
    return np.maximum(x[::2], x[1::2])


@cache
def _motions(frames: int) -> list[Array]:
    """Both motions are linear in the positions: what to multiply these by."""
    single = torch.eye(frames).view(1, frames, frames, 1)
    return [_array(motion[0]) for motion in ddnet.two_scale_motion(single)]


def _array(x: torch.Tensor) -> Array:
    return np.ascontiguousarray(x.detach().float().numpy())
