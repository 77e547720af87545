"""DD-Net: skeletons in, classes out, through distances between joints and motions on two time scales."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, interpolate, leaky_relu, linear, pad

from longtail.extend import integer

_SLOPE, _DROP = 0.2, 0.1


def joint_collection_distances(clips: Tensor) -> Tensor:
    """Return the distances between all pairs of joints, frame by frame (the JCD feature).

    They do not change when a frame is rotated, mirrored or moved: they cannot see the body move as a whole.

    Args:
        clips: joint positions, floating point, of shape (..., J, D), as (B, T, J, D); J at least 2.

    Returns:
        Euclidean distances in the clips' unit, of shape (..., J(J-1)/2), pairs in the order (0, 1), (0, 2),
        ..., (1, 2), ..., which is the order of ``scipy.spatial.distance.pdist``. Where two joints coincide
        the distance is 0 and so is its gradient.

    Raises:
        ValueError: fewer than 2 axes or fewer than 2 joints.

    Source:
        Yang et al., "Make Skeleton-based Action Recognition Model Smaller, Faster and Better", 2019,
        section 3.1.
    """
    if clips.ndim < 2 or clips.shape[-2] < 2:
        raise ValueError(
            f"clips must have shape (..., joints, dimensions) with 2 joints or more, got {tuple(clips.shape)}"
        )
    first, second = torch.triu_indices(clips.shape[-2], clips.shape[-2], 1, device=clips.device)
    between = clips.index_select(-2, first) - clips.index_select(-2, second)
    # not the square root of a sum: at 0 its gradient is infinite, this one's is 0
    distances: Tensor = torch.linalg.vector_norm(between, dim=-1)
    return distances


def two_scale_motion(clips: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far every joint moves from frame to frame, slowly and fast sampled.

    Slow motion is the difference of neighbouring frames; fast motion that of neighbours among every other
    frame. Both are stretched linearly in time, first and last difference staying first and last
    ("align corners"): from T-1 to T and from ceil(T/2)-1 to ceil(T/2).

    Args:
        clips: joint positions, floating point, of shape (B, T, J, D); T at least 3.

    Returns:
        Slow motion of shape (B, T, J D) and fast motion of shape (B, ceil(T/2), J D).

    Raises:
        ValueError: another number of axes, or fewer than 3 frames.

    Source:
        Yang et al. 2019, section 3.2. Their code takes the nearest difference instead of a linear mix.
    """
    if clips.ndim != 4 or clips.shape[1] < 3:
        raise ValueError(
            "clips must have shape (batch, frames, joints, dimensions) with 3 frames or more, "
            f"got {tuple(clips.shape)}"
        )
    poses = clips.flatten(2)
    return _differences(poses), _differences(poses[:, ::2])


class DDNet(nn.Module):
    """Double-feature double-motion network: three small 1-D convolutional stems, a trunk, two dense layers.

    Distances between joints, slow and fast motion each pass convolutions of width 1, 3 and 1 (2f, f and f
    filters); all but the fast motion, which is half as long already, are pooled by 2 in time. Their
    concatenation passes three pairs of width-3 convolutions (2f, 4f, 8f filters) with a pooling by 2 after
    the first two, a maximum over time, and two dense layers of 128. Batch norm over channels and leaky ReLU
    of slope 0.2 follow every layer; no layer but the classifier has a bias. Whole channels are dropped with
    probability 0.1 behind each stem layer and each pair, units with 0.5 behind the dense layers.

    Args:
        joints: J, at least 2.
        dimensions: D, coordinates of a joint, at least 1.
        num_classes: number of logits, at least 1.
        filters: f, at least 1; 64 gives 1,819,278 parameters for SHREC's 22 joints in space and 14 gestures.

    Input is float ``(N, T, J, D)``, T at least 3, any T in any call; output is ``(N, num_classes)``. The last
    linear layer is `head`.

    Raises:
        TypeError: an argument is no number.
        ValueError: an argument is out of range.

    Source:
        Yang et al., "Make Skeleton-based Action Recognition Model Smaller, Faster and Better", 2019; sizes,
        dropout and slope as in the authors' code. Odd lengths round up where that code rounds down.
    """

    def __init__(self, joints: int, dimensions: int, num_classes: int, filters: int = 64) -> None:
        super().__init__()
        self.joints = integer("joints", joints, low=2)
        self.dimensions = integer("dimensions", dimensions, low=1)
        num_classes = integer("num_classes", num_classes, low=1)
        f = integer("filters", filters, low=1)
        pairs, moves = self.joints * (self.joints - 1) // 2, self.joints * self.dimensions
        self.distances, self.slow, self.fast = _stem(pairs, f), _stem(moves, f), _stem(moves, f)
        self.pairs = nn.ModuleList(_pair(before * f, after * f) for before, after in ((3, 2), (2, 4), (4, 8)))
        self.dense = nn.Sequential(_Layer(8 * f, 128), nn.Dropout(0.5), _Layer(128, 128), nn.Dropout(0.5))
        self.head = nn.Linear(128, num_classes)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits."""
        if input.shape[2:] != (self.joints, self.dimensions):
            raise ValueError(
                f"input must have shape (N, T, {self.joints}, {self.dimensions}), got {tuple(input.shape)}"
            )
        slow, fast = two_scale_motion(input)
        distances = self.distances(joint_collection_distances(input))
        first, second, third = self.pairs
        x = torch.cat((_halve(distances), _halve(self.slow(slow)), self.fast(fast)), 2)
        x = third(_halve(second(_halve(first(x))))).amax(1)
        logits: Tensor = self.head(self.dense(x))
        return logits


def build(*, joints: int, in_channels: int, num_classes: int, filters: int) -> DDNet:
    """Return a `DDNet` by the names of `longtail.models.build`."""
    return DDNet(joints, in_channels, num_classes, filters)


class _Layer(nn.Module):
    """Convolution in time, or a dense layer, then batch norm over channels and leaky ReLU.

    All along the network memory holds (batch, time, channels), and a convolution is a matrix product with
    the neighbouring frames side by side: for few frames of many channels torch's own takes half as long
    again on a CPU.
    """

    def __init__(self, before: int, after: int, width: int = 1) -> None:
        super().__init__()
        self.width = width
        bound = (6 / (width * (before + after))) ** 0.5  # Glorot's, as of a convolution
        self.weight = nn.Parameter(torch.empty(after, width * before).uniform_(-bound, bound))
        self.norm = nn.BatchNorm1d(after)

    def forward(self, x: Tensor) -> Tensor:
        if self.width > 1:
            frames, edge = x.shape[1], self.width // 2
            x = pad(x, (0, 0, edge, edge))
            x = torch.cat([x[:, i : i + frames] for i in range(self.width)], -1)
        x = linear(x, self.weight)
        rows = x.flatten(0, -2)
        if len(rows) > 1 or not self.training:
            rows = self.norm(rows)
        else:  # an epoch's last batch may be one clip, which has no spread of its own
            norm = self.norm
            rows = batch_norm(rows, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        return leaky_relu(rows, _SLOPE, inplace=True).view(x.shape)


class _DropChannels(nn.Dropout):
    """Dropout of whole channels of (batch, time, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * super().forward(x.new_ones(len(x), 1, x.shape[2]))


def _differences(poses: Tensor) -> Tensor:
    moved = (poses[:, 1:] - poses[:, :-1]).transpose(1, 2)
    return interpolate(moved, poses.shape[1], mode="linear", align_corners=True).transpose(1, 2)


def _halve(x: Tensor) -> Tensor:
    """Maximum of neighbouring frames; the last of an odd number stands alone."""
    if x.shape[1] % 2:
        x = torch.cat((x, x[:, -1:]), 1)
    return torch.maximum(x[:, ::2], x[:, 1::2])


def _stem(before: int, f: int) -> nn.Sequential:
    sizes = ((before, 2 * f, 1), (2 * f, f, 3), (f, f, 1))
    return nn.Sequential(*(layer for size in sizes for layer in (_Layer(*size), _DropChannels(_DROP))))


def _pair(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(_Layer(before, after, 3), _Layer(after, after, 3), _DropChannels(_DROP))
