"""Clips played faster or slower, seen from elsewhere, of another body."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from longtail.training.augment import Samples

_SHORTEST: Final = 0.9  # of a clip's frames are left
_TURN, _STRETCH, _BODY = math.radians(15), 0.2, 0.05  # at most, at most, standard deviation


class Played(Samples):
    """90 to 100 % of a clip's frames, in a row or with gaps, over its whole length: "temporal"."""

    def draw(self, generator: torch.Generator) -> Sequence[Tensor]:
        """Return the frames that each clip keeps, and how many."""
        clips, frames = self.inputs.shape[:2]
        return keep_frames(clips, frames, generator)

    def gather(self, rows: Tensor, drawn: Sequence[Tensor]) -> Tensor:
        """Return the clips of some rows, played."""
        frames, kept = drawn
        return play(self.inputs[rows], frames, kept)


class Seen(Played):
    """Clips that are played, mirrored, turned and stretched, of a body changed: "skeleton"."""

    def __init__(self, inputs: Tensor, images: bool, device: torch.device) -> None:
        super().__init__(inputs, images, device)
        self.spread = self.inputs.std()

    def draw(self, generator: torch.Generator) -> Sequence[Tensor]:
        """Return frames, how many, and the view of each clip."""
        clips, _, joints, dimensions = self.inputs.shape
        return *super().draw(generator), *change_view(clips, joints, dimensions, generator)

    def gather(self, rows: Tensor, drawn: Sequence[Tensor]) -> Tensor:
        """Return the clips of some rows, played and seen in their view."""
        *frames, maps, moves = drawn
        return super().gather(rows, frames) @ maps[:, None] + moves[:, None] * self.spread


def keep_frames(clips: int, frames: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw which frames each clip keeps: 90 to 100 % of them, in a row or with gaps, half of the clips each.

    Args:
        clips: how many clips.
        frames: T, of every clip.
        draw: a CPU generator.

    Returns:
        The frames kept, int64 of shape (clips, T), rising along each row, of which only the first ones of a
        row count; and how many those are, int64 of shape (clips,).
    """
    kept = torch.randint(math.ceil(_SHORTEST * frames), frames + 1, (clips,), generator=draw)
    frame = torch.arange(frames)
    first = (torch.rand(clips, generator=draw) * (frames - kept + 1)).long()
    place = torch.rand(clips, frames, generator=draw).argsort(1).argsort(1)
    gaps = torch.where(place < kept[:, None], frame, frames - 1).sort(1).values
    row = torch.minimum(first[:, None] + frame, torch.tensor(frames - 1))
    return torch.where(torch.rand(clips, 1, generator=draw) < 0.5, row, gaps), kept


def play(clips: Tensor, frames: Tensor, kept: Tensor) -> Tensor:
    """Play the frames that each clip keeps at the speed that fills its length again.

    Args:
        clips: floating point, of shape (n, T, J, D).
        frames: as `keep_frames` returns them, int64 of shape (n, T).
        kept: int64 of shape (n,), 2 .. T.

    Returns:
        Shape (n, T, J, D): linear between kept frames, the first and last of them first and last.
    """
    length = clips.shape[1]
    place = torch.arange(length, device=clips.device) * (kept[:, None] - 1) / (length - 1)
    before = torch.minimum(place.long(), kept[:, None] - 2)
    clip = torch.arange(len(clips), device=clips.device)[:, None]
    start, end = (clips[clip, frames.gather(1, i)] for i in (before, before + 1))
    return torch.lerp(start, end, (place - before)[:, :, None, None].to(clips.dtype))


def change_view(clips: int, joints: int, dimensions: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw another view of each clip, and another body in it.

    The first coordinate of half of the clips is mirrored; all turn by up to 15 degrees in the plane of the
    first two coordinates; then each coordinate is stretched or shrunk by up to 20 %; each joint is moved for
    the whole clip.

    Args:
        clips: how many clips.
        joints: J.
        dimensions: D.
        draw: a CPU generator.

    Returns:
        The maps M, float of shape (clips, D, D), and moves m of shape (clips, J, D) with a standard deviation
        of 0.05: a clip X becomes X M + m s, with s the spread of the data set's coordinates.
    """
    maps = torch.eye(dimensions).repeat(clips, 1, 1)
    if dimensions > 1:
        angle = _TURN * (2 * torch.rand(clips, generator=draw) - 1)
        maps[:, 0, 0] = maps[:, 1, 1] = angle.cos()
        maps[:, 1, 0] = angle.sin()
        maps[:, 0, 1] = -angle.sin()
    maps[:, 0] *= 1.0 - 2 * torch.randint(0, 2, (clips, 1), generator=draw)
    maps *= 1 + _STRETCH * (2 * torch.rand(clips, 1, dimensions, generator=draw) - 1)
    return maps, _BODY * torch.randn(clips, joints, dimensions, generator=draw)
