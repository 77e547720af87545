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
from typing import Any

import torch
from torch import Tensor

from longtail import _checks

REDUCTIONS = ("none", "mean", "sum")
NORMALIZERS = ("samples", "weights")


def check_options(reduction: str, normalizer: str, denominator: Any = None) -> None:
    """Refuse unknown options, and a denominator where nothing is divided."""
    if reduction not in REDUCTIONS:
        _checks.choice("reduction", reduction, REDUCTIONS)
    if normalizer not in NORMALIZERS:
        _checks.choice("normalizer", normalizer, NORMALIZERS)
    if denominator is None:
        return
    if reduction != "mean":
        raise ValueError(f"denominator divides a mean, but reduction is {reduction!r}; pass reduction='mean'")
    if isinstance(denominator, Tensor):
        if denominator.numel() != 1:
            raise ValueError(
                f"denominator must be one number, got shape {tuple(denominator.shape)}; sum the counts"
            )
    else:
        _checks.number("denominator", denominator, low=0.0, open_high=True, remedy="pass the sum of .count()")


def divisor(
    like: Tensor, weights: Callable[[], Tensor | None], valid: Tensor | None, normalizer: str
) -> Tensor:
    """Return what a mean divides by: valid samples, or the sum of their weights.

    Args:
        like: any per-sample tensor; gives shape and device.
        weights: gives the per-sample weights, or None for 1 each; called only when needed.
        valid: per-sample booleans, or None where nothing can be ignored.
        normalizer: "samples" or "weights".

    Returns:
        A 0-d tensor on ``like``'s device: int64 for samples, floating point for weights.
    """
    if normalizer == "weights":
        w = weights()
        if w is not None:
            return w.sum() if valid is None else w.masked_fill(~valid, 0.0).sum()
    if valid is None:
        return torch.full((), like.numel(), device=like.device)
    return valid.count_nonzero()


def mean_divisor(
    like: Tensor,
    weights: Callable[[], Tensor | None],
    valid: Tensor | None,
    normalizer: str,
    denominator: Tensor | float | None,
) -> Tensor | float:
    """Return a mean's divisor, the caller's or this batch's, made safe: 1 where it would be 0."""
    if denominator is None:
        if valid is None and normalizer == "samples":
            return max(like.numel(), 1)
        denominator = divisor(like, weights, valid, normalizer)
        if not denominator.is_floating_point():
            return denominator.clamp(min=1)
    if isinstance(denominator, Tensor):
        d = denominator.to(like.device).reshape(())
        return torch.where(d == 0, torch.ones_like(d), d)  # NaN stays NaN, to be seen
    return denominator or 1.0


def reduce(
    loss: Tensor,
    weights: Callable[[], Tensor | None],
    valid: Tensor | None,
    reduction: str,
    normalizer: str,
    denominator: Tensor | float | None = None,
) -> Tensor:
    """Reduce weighted per-sample losses as the module's table says.

    Args:
        loss: weighted per-sample losses, 0 where ignored.
        weights: gives the per-sample weights; called only for ``normalizer="weights"``.
        valid: per-sample booleans, or None where nothing can be ignored.
        reduction: "none" | "mean" | "sum".
        normalizer: "samples" | "weights".
        denominator: replaces the mean's divisor.

    Returns:
        ``loss`` itself for "none", a 0-d tensor otherwise.
    """
    if reduction == "none":
        return loss
    total = loss.sum()
    if reduction == "sum":
        return total
    return total / mean_divisor(loss, weights, valid, normalizer, denominator)
