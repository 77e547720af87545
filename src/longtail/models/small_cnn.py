"""Convolutional nets small enough to train on one CPU core, in a second and in a minute."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, linear, pad


class SmallCNN(nn.Module):
    """One strided 3x3 convolution, one hidden layer, one classifier.

    The shape was chosen by time per step on a CPU, where pooling and a second small convolution cost more
    than all the arithmetic of this net: on 8x8 digits a step of 64 images took 1.0 ms, with a second 3x3
    convolution 1.9 ms, with the usual conv-pool-conv 2.8 ms, at the same error. For the same reason the
    convolution is a matrix product with the image's patches: torch's own takes longer to set up than to run.

    Args:
        in_channels: channels of the input.
        num_classes: number of logits.
        width: filters of the convolution; the hidden layer has four times as many units.

    Input is float ``(N, in_channels, H, W)`` with H and W at least 7; larger than 8x8 is averaged down to a
    4x4 map behind the convolution. Output is ``(N, num_classes)``.
    """

    def __init__(self, in_channels: int, num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, stride=2, padding=1)
        self.hidden = nn.Linear(16 * width, 4 * width)
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits."""
        patches = pad(input, (1, 1, 1, 1)).unfold(2, 3, 2).unfold(3, 3, 2)  # (N, C, h, w, 3, 3), a view
        rows = patches.permute(0, 2, 3, 1, 4, 5).flatten(3)
        x = linear(rows, self.conv.weight.flatten(1), self.conv.bias)  # (N, h, w, width)
        if x.shape[1:3] != (4, 4):
            x = adaptive_avg_pool2d(x.relu().permute(0, 3, 1, 2), 4).permute(0, 2, 3, 1)
        logits: Tensor = self.head(self.hidden(x.flatten(1).relu()).relu())
        return logits


class StridedCNN(nn.Module):
    """Three strided 3x3 convolutions with batch norm, one hidden layer, one classifier.

    For coloured images of about 32x32 pixels, where `SmallCNN` sees too little: every convolution halves the
    image, which costs a fraction of what pooling behind full ones does.

    Args:
        in_channels: channels of the input.
        num_classes: number of logits.
        width: filters of the first convolution; the second has twice, the third four times as many.

    Input is float ``(N, in_channels, H, W)`` with H and W at least 25; larger than 32x32 is averaged down to
    a 4x4 map behind the convolutions. Output is ``(N, num_classes)``.
    """

    def __init__(self, in_channels: int, num_classes: int, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((in_channels, width), (width, 2 * width), (2 * width, 4 * width)):
            conv = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(after), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Linear(64 * width, 8 * width)
        self.head = nn.Linear(8 * width, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits."""
        x = self.features(input)
        if x.shape[2:] != (4, 4):
            x = adaptive_avg_pool2d(x, 4)
        logits: Tensor = self.head(self.hidden(x.flatten(1)).relu())
        return logits
