"""Small heads on features of a frozen network: what most photographs are classified by today.

Each sample's features are brought to mean 0 and one length first, so that one learning rate fits features of
any network, and no sample knows of another.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import layer_norm

__all__ = ["HIDDEN", "LinearHead", "MLPHead", "standardised"]

HIDDEN = 256


def standardised(features: Tensor, unit: bool = True) -> Tensor:
    """Return features (N, D) in float32, each row of mean 0 and of length 1, or else of variance 1."""
    even = layer_norm(features.float(), features.shape[-1:])
    return even * features.shape[-1] ** -0.5 if unit else even


class LinearHead(nn.Module):
    """One linear layer.

    Args:
        in_channels: D.
        num_classes: number of logits.

    Input is float ``(N, D)``, output ``(N, num_classes)``.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(in_channels, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(standardised(input.flatten(1)))
        return logits


class MLPHead(nn.Module):
    """One hidden layer of 256 rectified units.

    Args:
        in_channels: D.
        num_classes: number of logits.

    Input is float ``(N, D)``, output ``(N, num_classes)``.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(in_channels, HIDDEN)
        self.head = nn.Linear(HIDDEN, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(self.hidden(standardised(input.flatten(1), unit=False)).relu())
        return logits
