"""Formulas of the sigmoid losses: one-vs-all over C outputs, summed, one value a sample.

Every loss is written in the margin m, negative where the prediction is right: the cross-entropy of one output
is softplus(m) and its focal modulator (1 - p_t)^gamma is exp(gamma * log_sigmoid(m)). Both, and their
derivatives, are finite and accurate for every m and every gamma >= 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from longtail.losses.batch import Batch


def cross_entropy(batch: Batch) -> Tensor:
    """``sum_c softplus(m_c)``, m_c = -z_c for the true class and z_c for the others."""
    return focal(batch, 0.0)


def focal(batch: Batch, gamma: float) -> Tensor:
    """``sum_c (1 - p_t)^gamma * -log p_t``; for soft labels t, ``p_t = p t + (1 - p)(1 - t)``."""
    z = batch.logits
    if batch.index is not None and batch.smoothing == 0.0 and batch.weighting != "positive":
        return batch.total(focal_of_margin(torch.where(batch.one_hot(), -z, z), gamma))
    t = batch.smooth_labels()
    terms = _both_sides(batch, t, -F.logsigmoid(z), -F.logsigmoid(-z))
    if gamma != 0.0:
        terms = _power(torch.sigmoid(z) * (1.0 - t) + torch.sigmoid(-z) * t, gamma) * terms  # of 1 - p_t
    return batch.total(terms)


def asymmetric(batch: Batch, *, gamma_neg: float, gamma_pos: float, clip: float) -> Tensor:
    """``sum_c (1 - p)^gamma_pos * -log p`` of the positives, ``q^gamma_neg * -log(1 - q)`` of the negatives.

    q = max(p - clip, 0). For soft labels t both are mixed as in Ridnik et al.'s code: the terms, the powers'
    bases and their exponents.
    """
    z, t = batch.logits, batch.smooth_labels()
    not_p = torch.sigmoid(-z)
    if clip:
        not_q = (not_p + clip).clamp(max=1.0)
        minus_log_not_q = -torch.log(not_q)
        q = (torch.sigmoid(z) - clip).clamp(min=0.0)
    else:
        minus_log_not_q, q = -F.logsigmoid(-z), torch.sigmoid(z)
    terms = _both_sides(batch, t, -F.logsigmoid(z), minus_log_not_q)
    if gamma_pos or gamma_neg:
        terms = _power(not_p * t + q * (1.0 - t), gamma_pos * t + gamma_neg * (1.0 - t)) * terms
    return batch.total(terms)


def distribution_balanced(
    batch: Batch,
    gamma: float,
    *,
    counts: Tensor,
    num_samples: float,
    map_alpha: float,
    map_beta: float,
    map_mu: float,
    neg_scale: float,
    init_bias: float,
    focal_balance: float,
) -> Tensor:
    """Sigmoid losses, each term weighed by how rare its class is beside the classes of its sample.

    Negatives see ``neg_scale`` times the logit and count 1 / ``neg_scale``, and all logits are shifted by a
    part of their prior log-odds. Counts are held within 1 and ``num_samples`` - 1.
    """
    per_class = (-1, *[1] * (batch.logits.ndim - 2))
    n = counts.clamp(min=1.0, max=max(num_samples - 1.0, 1.0)).view(per_class)
    sampled = (batch.labels() / n).sum(dim=1, keepdim=True)  # how often such a sample is drawn
    ratio = 1.0 / (n * sampled).clamp(min=torch.finfo(n.dtype).tiny ** 0.5)
    rarity = torch.sigmoid(map_beta * (ratio - map_mu)) + map_alpha
    z, t = batch.logits - torch.log(num_samples / n - 1.0) * (init_bias / neg_scale), batch.smooth_labels()
    positive, negative = -F.logsigmoid(z), -F.logsigmoid(-neg_scale * z) / neg_scale
    if gamma != 0.0:
        positive = focal_balance * focal_of_margin(-z, gamma)
        negative = focal_balance * focal_of_margin(neg_scale * z, gamma) / neg_scale
    return batch.total(rarity * _both_sides(batch, t, positive, negative))


def _both_sides(batch: Batch, labels: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Each output's loss where it should say yes, and where it should say no, times how much it should."""
    yes, no = batch.sides(labels)
    # 0 times the infinite loss of an output that is masked by -inf would be NaN
    return yes * positive.masked_fill((yes == 0.0) & (positive == torch.inf), 0.0) + no * negative


def _power(miss: Tensor, gamma: float | Tensor) -> Tensor:
    """``miss^gamma`` with a finite gradient: where it is held back, the loss is 0 anyway."""
    return torch.exp(gamma * torch.log(miss.clamp(min=torch.finfo(miss.dtype).tiny ** 0.5)))


def focal_of_margin(margin: Tensor, gamma: float) -> Tensor:
    """``(1 - p)^gamma * -log p`` for p = sigmoid(-margin)."""
    loss = -F.logsigmoid(-margin)
    # log(1 - p) is margin - loss, too, and cheaper so, but then 1e4 - 1e4 cancels in the gradient
    return loss if gamma == 0.0 else torch.exp(gamma * F.logsigmoid(margin)) * loss
