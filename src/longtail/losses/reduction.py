"""The one place that turns weighted per-sample losses into what ``reduction`` asks for.

With a class weight w_i a sample, losses l_i (already multiplied by w_i) and "valid" samples those
whose target is not ``ignore_index``:

==========  ============  =====================================================================
reduction   normalizer    result
==========  ============  =====================================================================
"none"      -             l_i, of the target's shape without classes; 0 where ignored
"sum"       -             sum of l_i
"mean"      "samples"     sum of l_i / number of valid samples (the paper's rule)
"mean"      "weights"     sum of l_i / sum of valid samples' w_i (torch's rule for index targets)
==========  ============  =====================================================================

A sample is one target position: in (N, C, d1, ...) there are N * d1 * ... of them. A mean over no
samples is 0, with zero gradients, not NaN. ``denominator`` replaces the mean's divisor: under
gradient accumulation or data parallelism only the caller knows how many samples share the step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from longtail import _checks

REDUCTIONS = ("none", "mean", "sum")
NORMALIZERS = ("samples", "weights")

Weights = Callable[[], Tensor | None]  # per-sample weights, None for 1 each; called only where needed


class Reduction(NamedTuple):
    """How the losses of a batch become one number, as the module's table says."""

    kind: str = "mean"
    normalizer: str = "samples"
    denominator: Tensor | float | None = None

    def check(self) -> None:
        """Refuse unknown options, and a denominator where nothing is divided."""
        if self.kind not in REDUCTIONS:
            _checks.choice("reduction", self.kind, REDUCTIONS)
        if self.normalizer not in NORMALIZERS:
            _checks.choice("normalizer", self.normalizer, NORMALIZERS)
        denominator = self.denominator
        if denominator is None:
            return
        if self.kind != "mean":
            raise ValueError(
                f"denominator divides a mean, but reduction is {self.kind!r}; pass reduction='mean'"
            )
        if not isinstance(denominator, Tensor):
            remedy = "pass the sum of .count()"
            _checks.number("denominator", denominator, low=0.0, open_high=True, remedy=remedy)
        elif denominator.numel() != 1:
            raise ValueError(
                f"denominator must be one number, got shape {tuple(denominator.shape)}; sum the counts"
            )

    def reduce(self, loss: Tensor, weights: Weights, valid: Tensor | None) -> Tensor:
        """Reduce weighted per-sample losses, 0 where ignored: to themselves for "none", else 0-d."""
        if self.kind == "none":
            return loss
        total = loss.sum()
        return total if self.kind == "sum" else total / self.divisor(loss, weights, valid)

    def divisor(self, samples: Tensor, weights: Weights, valid: Tensor | None) -> Tensor | float:
        """Return a mean's divisor, the caller's or this batch's, made safe: 1 where it would be 0."""
        d = self.denominator
        if d is None:
            if valid is None and self.normalizer == "samples":
                return max(samples.numel(), 1)
            d = count(samples, weights, valid, self.normalizer)
            if not d.is_floating_point():
                return d.clamp(min=1)
        if isinstance(d, Tensor):
            d = d.to(samples.device).reshape(())
            return torch.where(d == 0, torch.ones_like(d), d)  # NaN stays NaN, to be seen
        return d or 1.0


def count(samples: Tensor, weights: Weights, valid: Tensor | None, normalizer: str) -> Tensor:
    """Return how many samples are valid, or the sum of their weights.

    Args:
        samples: any per-sample tensor; gives shape and device.
        weights: see :data:`Weights`.
        valid: per-sample booleans, or None where nothing is ignored.
        normalizer: "samples" or "weights".

    Returns:
        A 0-d tensor: int64 for samples, floating point for weights.
    """
    if normalizer == "weights" and (w := weights()) is not None:
        return w.sum() if valid is None else w.masked_fill(~valid, 0.0).sum()
    if valid is None:
        return torch.full((), samples.numel(), device=samples.device)
    return valid.count_nonzero()
