"""The one place that turns weighted per-sample losses into what ``reduction`` asks for.

With a class weight w_i a sample, losses l_i (already multiplied by w_i) and "valid" samples those
whose target is not ``ignore_index``:

==========  ============  =====================================================================
reduction   normalizer    result
==========  ============  =====================================================================
"none"      -             l_i, of the target's shape without classes; 0 where ignored
"elements"  -             the terms of l_i, of the logits' shape: for the sigmoid losses
"sum"       -             sum of l_i
"mean"      "samples"     sum of l_i / number of valid samples (the paper's rule)
"mean"      "weights"     sum of l_i / sum of valid samples' w_i (torch's rule for index targets)
==========  ============  =====================================================================

A sample is one target position: in (N, C, d1, ...) there are N * d1 * ... of them. A ``sample_weight`` of
the caller's multiplies l_i, w_i and the number of its sample: one of weight 2 counts as two, one of weight
0 as ignored. Where some of a sample's several labels are unknown, w_i and its number are multiplied by the
share that is known: a mean has one scale however many are, and the Trainer's, which counts labels, is the
same. A mean over no samples is 0, with zero gradients, not NaN. ``denominator`` replaces the mean's divisor:
under gradient accumulation or data parallelism only the caller knows how many samples share the step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from longtail import _checks

REDUCTIONS = ("none", "mean", "sum", "elements")
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
        elif (value := _look(denominator)) is not None and value < 0.0:
            raise ValueError(f"denominator must be >= 0, got {value:g}; pass the sum of .count()")

    def reduce(
        self, loss: Tensor, weights: Weights, valid: Tensor | None, own: Tensor | None = None
    ) -> Tensor:
        """Reduce weighted per-sample losses, 0 where ignored: to themselves for "none", else 0-d."""
        if self.kind in ("none", "elements"):
            return loss
        total = loss.sum()
        return total if self.kind == "sum" else total / self.divisor(loss, weights, valid, own)

    def divisor(
        self, samples: Tensor, weights: Weights, valid: Tensor | None, own: Tensor | None = None
    ) -> Tensor | float:
        """Return a mean's divisor, the caller's or this batch's, made safe: 1 where it would be 0."""
        d = self.denominator
        if d is None:
            if valid is None and own is None and self.normalizer == "samples":
                return samples.numel() or 1
            d = count(samples, weights, valid, self.normalizer, own)
            if not d.is_floating_point():
                return d.clamp(min=1)
        elif (_look(d) if isinstance(d, Tensor) else d) == 0 and _look(
            count(samples, weights, valid, "samples", own)
        ):
            raise ValueError(
                "denominator is 0, but the batch has samples that count; pass the sum of .count() over "
                "all batches"
            )
        if isinstance(d, Tensor):
            d = d.to(samples.device).reshape(())
            return torch.where(d == 0, torch.ones_like(d), d)  # NaN stays NaN, to be seen
        return d or 1.0


def _look(number: Tensor) -> float | None:
    """Return the value of a tensor, where looking is free: on the CPU, outside tracing."""
    if type(number) is not Tensor or not number.is_cpu or torch.compiler.is_compiling():
        return None
    try:
        return float(number.detach())
    except RuntimeError:  # torch.func.vmap has no single value
        return None


def count(
    samples: Tensor, weights: Weights, valid: Tensor | None, normalizer: str, own: Tensor | None = None
) -> Tensor:
    """Return how many samples are valid, or the sum of their weights.

    Args:
        samples: any per-sample tensor; gives shape and device.
        weights: see :data:`Weights`.
        valid: per-sample booleans, or None where nothing is ignored.
        normalizer: "samples" or "weights".
        own: the caller's weight of each sample, or None.

    Returns:
        A 0-d tensor: int64 for samples, floating point for weights.
    """
    w = weights() if normalizer == "weights" else None
    if own is not None:
        w = own if w is None else w * own
    if w is not None:
        return w.sum() if valid is None else w.masked_fill(~valid, 0.0).sum()
    if valid is None:
        return torch.full((), samples.numel(), device=samples.device)
    return valid.count_nonzero()
