"""Training samples on the device, as they are or varied; all random numbers are drawn on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Crops", "Samples", "crop"]


class Samples:
    """Inputs on the device, in their own type, handed out as they are.

    An augmentation is a subclass: `draw` gives what is random in an epoch, `gather` what the inputs become.

    Args:
        inputs: of all samples, on the CPU.
        images: whether they are images (N, C, H, W).
        device: where they wait.
        pad: zeros around images.

    Attributes:
        inputs: images as (N, H + 2 pad, W + 2 pad, C), so that a gather moves whole pixels and its result is
            channels-last already; others as given.
        images: as given.
    """

    def __init__(self, inputs: Tensor, images: bool, device: torch.device, pad: int = 0) -> None:
        self.images = images
        if images:
            inputs = nn.functional.pad(inputs, (pad,) * 4).permute(0, 2, 3, 1).contiguous()
        self.inputs = inputs.to(device)

    def draw(self, generator: torch.Generator) -> Sequence[Tensor]:
        """Return an epoch's random numbers, on the CPU, each tensor of shape (N, ...).

        They are for the samples in the order of the epoch, not of `inputs`.
        """
        return ()

    def gather(self, rows: Tensor, drawn: Sequence[Tensor]) -> Tensor:
        """Return the inputs of some rows, int64 of shape (n,), with what `draw` gave for them, (n, ...)."""
        return self.planes(self.inputs[rows])

    def planes(self, stored: Tensor) -> Tensor:
        """Return some of `inputs` with the axes that networks take."""
        return stored.permute(0, 3, 1, 2) if self.images else stored


class Crops(Samples):
    """Images moved by up to `pad` pixels, and perhaps half of them mirrored; outside the image are zeros."""

    def __init__(
        self, inputs: Tensor, images: bool, device: torch.device, pad: int = 1, flip: bool = False
    ) -> None:
        super().__init__(inputs, images, device, pad)
        self.size, self.pad, self.flip = inputs.shape[2:], pad, flip

    def draw(self, generator: torch.Generator) -> Sequence[Tensor]:
        """Return the corner of each crop, and whether it is mirrored."""
        n = len(self.inputs)
        drawn = [torch.randint(0, 2 * self.pad + 1, (2, n), generator=generator).T]
        if self.flip:
            drawn.append(torch.randint(0, 2, (n,), generator=generator).bool())
        return drawn

    def gather(self, rows: Tensor, drawn: Sequence[Tensor]) -> Tensor:
        """Return the crops of some rows."""
        shifts, *flips = drawn
        return crop(self.inputs, rows, shifts.T, self.size, flips[0] if flips else None)


def crop(images: Tensor, rows: Tensor, shifts: Tensor, size: Sequence[int], flips: Tensor | None) -> Tensor:
    """Cut one window out of each image, and mirror some.

    Args:
        images: padded images, any dtype, of shape (N, H + 2 pad, W + 2 pad, C).
        rows: which images, int64 of shape (n,).
        shifts: top and left corner of each window, int64 of shape (2, n), in 0 .. 2 pad.
        size: H and W.
        flips: which windows to mirror left to right, bool of shape (n,); None for none.

    Returns:
        Shape (n, C, H, W), channels last in memory.
    """
    # a view of every window of every image: one gather copies whole windows, not single pixels
    windows = images.unfold(1, size[0], 1).unfold(2, size[1], 1)[rows, shifts[0], shifts[1]]
    if flips is None:
        return windows
    return torch.where(flips[:, None, None, None], windows.flip(3), windows)
