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
    if batch.index is not None and batch.smoothing == 0.0:
        elements = focal_of_margin(torch.where(batch.one_hot(), -z, z), gamma)
    else:
        t = batch.smooth_labels()
        log_not_p, log_p = F.logsigmoid(-z), F.logsigmoid(z)
        elements = -(t * log_p + (1.0 - t) * log_not_p)
        if gamma != 0.0:
            miss = torch.sigmoid(z) * (1.0 - t) + torch.sigmoid(-z) * t  # 1 - p_t
            miss = miss.clamp(min=torch.finfo(t.dtype).tiny ** 0.5)  # below it the loss is 0 anyway
            elements = torch.exp(gamma * torch.log(miss)) * elements
    return batch.weigh(elements.sum(dim=1))


def focal_of_margin(margin: Tensor, gamma: float) -> Tensor:
    """``(1 - p)^gamma * -log p`` for p = sigmoid(-margin)."""
    loss = -F.logsigmoid(-margin)
    # log(1 - p) is margin - loss, too, and cheaper so, but then 1e4 - 1e4 cancels in the gradient
    return loss if gamma == 0.0 else torch.exp(gamma * F.logsigmoid(margin)) * loss
