"""Residual networks for 32x32 images, as the paper trains them on long-tailed CIFAR."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad, relu

from longtail import _checks

_WIDTHS = (16, 32, 64)


class CifarResNet(nn.Module):
    """A residual network of 6n+2 layers: one convolution, three stages of n basic blocks, one classifier.

    The stages have 16, 32 and 64 filters; the second and third halve height and width. Activation comes
    after the addition, and no shortcut has parameters. ResNet-20, -32, -44, -56 and -110 are n = 3, 5, 7, 9
    and 18; ResNet-32 has 464,154 parameters for 10 classes.

    Args:
        depth: 6n+2 for a whole n of at least 1, such as 32.
        in_channels: channels of the input, at least 1.
        num_classes: number of logits, at least 1.

    Input is float ``(N, in_channels, H, W)``, for the paper ``(N, 3, 32, 32)`` with pixels as x/128 - 1; any
    H and W of at least 1 will do. Output is ``(N, num_classes)``. The last linear layer is `head`.

    Raises:
        TypeError: an argument is no number.
        ValueError: an argument is out of range, or ``depth`` is not 6n+2.

    Source:
        Read in the official code of Cui et al., CVPR 2019 (github.com/richardaecn/class-balanced-loss,
        ``src/cifar_model.py``, ``model_base.py``, ``cifar_main.py``): the layers and their order; no bias in
        convolutions; one pixel of zeros on each side of every 3x3 convolution, the strided ones too; batch
        norm with scale and shift, decay 0.9 (torch's momentum 0.1) and epsilon 1e-5; the shortcut, a 2x2
        average pool of stride 2 between equal numbers of zero channels before and after; the bias of the
        classifier 0 for softmax (`longtail.init_prior_bias_` sets it for the other losses).

        That code names no initialiser, for which TensorFlow 1's documentation gives Glorot's uniform one, in
        convolutions and classifier alike: neither He's nor torch's default. Assumed: that the authors' runs
        used these defaults.

        The architecture is that of section 4.2 of He et al., "Deep residual learning for image recognition",
        CVPR 2016, where the shortcut takes every other pixel in place of the average.
    """

    def __init__(self, depth: int, in_channels: int = 3, num_classes: int = 10) -> None:
        super().__init__()
        depth = _checks.integer("depth", depth, low=8, remedy="give 6n+2, such as 20, 32, 44, 56 or 110")
        if depth % 6 != 2:
            raise ValueError(f"depth must be 6n+2, got {depth}; give {6 * round((depth - 2) / 6) + 2}")
        in_channels = _checks.integer("in_channels", in_channels, low=1)
        num_classes = _checks.integer("num_classes", num_classes, low=1)
        self.conv = _conv(in_channels, _WIDTHS[0], stride=1)
        self.norm = _norm(_WIDTHS[0])
        blocks, before = [], _WIDTHS[0]
        for width in _WIDTHS:
            for _ in range((depth - 2) // 6):
                blocks.append(BasicBlock(before, width))
                before = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits."""
        x = relu(self.norm(self.conv(input)))
        x = self.blocks(x)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; where the width grows, height and width of the image halve.

    Args:
        in_channels: channels of the input.
        channels: channels of the output, as many or larger by an even number.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, channels, stride=1 if channels == in_channels else 2)
        self.norm1 = _norm(channels)
        self.conv2 = _conv(channels, channels, stride=1)
        self.norm2 = _norm(channels)

    def forward(self, input: Tensor) -> Tensor:
        """Return ``relu(convolutions(input) + shortcut(input))``."""
        x = relu(self.norm1(self.conv1(input)))
        x = self.norm2(self.conv2(x))
        return relu(x + self.shortcut(input))

    def shortcut(self, input: Tensor) -> Tensor:
        """Return the input; where the block halves it, the means of 2x2 pixels between channels of zeros."""
        zeros = (self.conv1.out_channels - self.conv1.in_channels) // 2
        if zeros == 0:
            return input
        # ceil_mode keeps the last row and column of an odd image, as the strided convolution does
        return pad(avg_pool2d(input, 2, ceil_mode=True), (0, 0, 0, 0, zeros, zeros))


def _conv(in_channels: int, channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.1)
