"""Formulas of the softmax losses, p = softmax(z): one value a sample.

With a float target t they are sums over classes, weighed inside the sum as torch does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from longtail.losses.batch import Batch
from longtail.losses.reduction import Reduction
from longtail.losses.sigmoid import focal_of_margin


def cross_entropy(batch: Batch) -> Tensor:
    """``-log p_y``; for a float target, ``sum_c t_c w_c * -log p_c``."""
    if batch.index is None or (batch.towards is not None and batch.smoothing != 0.0):
        return batch.weigh_classes(-F.log_softmax(batch.logits, dim=1))
    ignored, epsilon = batch.ignore_index, batch.smoothing
    return batch.weigh(F.cross_entropy(batch.logits, batch.index, None, None, ignored, None, "none", epsilon))


def focal(batch: Batch, gamma: float) -> Tensor:
    """``(1 - p_y)^gamma * -log p_y``; for a float target, ``sum_c t_c w_c (1 - p_c)^gamma * -log p_c``."""
    if batch.index is None or batch.smoothing != 0.0:
        z = batch.logits
        if batch.smoothing == 0.0:  # as any finite number: its part of the target is 0
            z = z.masked_fill((batch.labels() == 0.0) & (z == -torch.inf), torch.finfo(z.dtype).min / 4)
        return batch.weigh_classes(_focal_of_every_class(z, gamma))
    true = batch.logits.gather(1, batch.safe_index().unsqueeze(1))
    margin = _log_odds_against(batch.one_hot(), batch.logits, true)
    return batch.weigh(focal_of_margin(margin, gamma).squeeze(1))


def _focal_of_every_class(z: Tensor, gamma: float) -> Tensor:
    """``(1 - p_c)^gamma * -log p_c`` for every class c.

    Only the largest probability can round to 1, where 1 - p cancels: for that class alone the odds
    against it are summed from the other classes; for the rest p <= 1/2 and 1 - p is exact.
    """
    top = z.argmax(dim=1, keepdim=True)
    is_top = torch.zeros_like(z, dtype=torch.bool).scatter(1, top, True)
    margin = _log_odds_against(is_top, z, z.gather(1, top))
    log_p = F.log_softmax(z, dim=1).masked_fill(is_top, -1.0)
    rest = -log_p if gamma == 0.0 else torch.exp(gamma * torch.log1p(-torch.exp(log_p))) * -log_p
    return torch.where(is_top, focal_of_margin(margin, gamma), rest)


def _log_odds_against(one: Tensor, z: Tensor, of_one: Tensor) -> Tensor:
    """Log of (1 - p) / p for one class, (N, 1, d1, ...); hugely negative where it has no rival."""
    rivals = z.masked_fill(one, torch.finfo(z.dtype).min)  # finite: logsumexp has no gradient at -inf
    largest = rivals.amax(dim=1, keepdim=True).detach()  # taken out, or logsumexp rounds at its magnitude
    return (rivals - largest).logsumexp(dim=1, keepdim=True) - (of_one - largest)


def reduced_cross_entropy(batch: Batch, reduction: Reduction) -> Tensor:
    """:func:`cross_entropy` of class indices, weighed and reduced by torch's own kernel.

    Dividing C weights instead of the loss keeps the division out of the graph: the same values in half
    the time for small batches.
    """
    assert batch.index is not None
    weight, kind = batch.weight, reduction.kind
    by_weights = kind == "mean" and reduction.normalizer == "weights" and reduction.denominator is None
    if kind == "mean" and not (by_weights and _torch_mean_is_ours(batch)):
        kind = "sum"
        weight = batch.logits.new_ones(batch.logits.shape[1]) if weight is None else weight
        weight = weight / reduction.divisor(batch.index, batch.sample_weight, batch.valid)
    return F.cross_entropy(batch.logits, batch.index, weight, None, batch.ignore_index, None, kind)


def _torch_mean_is_ours(batch: Batch) -> bool:
    """Whether nothing is ignored, and no weight of 0 makes torch's mean 0 / 0."""
    try:
        return batch.valid is None and batch.weight is not None and float(batch.weight.min()) > 0.0
    except RuntimeError:  # torch.func.vmap has no single smallest weight
        return False
