"""A second stage: the last layer made anew from the features of a trained network, in seconds.

A refit is a function ``(features, targets, weight, bias, *, seed, settings) -> (weight, bias)`` of tensors:
features (N, D) of the training samples as they are, class indices (N), and the last layer's weight (C, D)
and bias (C). A package of your own adds one by ``REFITS.register``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from longtail import _checks
from longtail._registry import Registry
from longtail.sampling import ClassAwareSampler

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "EVEN",
    "REFITS",
    "Refit",
    "classifier_retraining",
    "label_aware_retraining",
    "nearest_class_mean",
    "tau_normalisation",
]

Refit = Callable[..., "tuple[Tensor, Tensor]"]

REFITS: Final = Registry[Refit]("refit")

# refits that draw every class as often: their logits answer for equal shares, whatever was trained before
EVEN: Final = {"classifier_retraining", "label_aware_retraining"}


def tau_normalisation(
    features: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, *, seed: int = 0, tau: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Divide each class's weight vector by its length to the power tau; the bias goes.

    Source: Kang et al. (ICLR 2020), section 4, "tau-normalized classifier".
    """
    tau = _checks.number("tau", tau, low=0.0, open_high=True, remedy="0.7 to 1 are usual")
    lengths = weight.norm(dim=1, keepdim=True)
    lengths = lengths.where(lengths > 0, 1.0)  # a vector of zeros says nothing, whatever its length
    return weight / lengths**tau, bias.new_zeros(bias.shape)


def nearest_class_mean(
    features: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, *, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Decide for the class whose mean feature is nearest, as a linear layer: w = m, b = -|m|^2 / 2.

    A class without training samples keeps no chance: its bias is the lowest of all, less the largest length.

    Source: Kang et al. (ICLR 2020), section 4, "nearest class mean", with the Euclidean distance.
    """
    classes = len(weight)
    sums = features.double().new_zeros(classes, features.shape[1]).index_add_(0, targets, features.double())
    counts = targets.bincount(minlength=classes).double()
    means = sums / counts.clamp(min=1)[:, None]
    offset = -0.5 * (means**2).sum(1)
    offset[counts == 0] = offset.min() - (features.double() ** 2).sum(1).max()
    return means.to(weight.dtype), offset.to(bias.dtype)


def classifier_retraining(
    features: Tensor,
    targets: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    seed: int = 0,
    epochs: int = 20,
    learning_rate: float = 0.1,
    batch_size: int = 64,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Train a new last layer on the features, by batches in which every class is as frequent.

    SGD with momentum 0.9 and a cosine; the new layer starts at zero.

    Source: Kang et al. (ICLR 2020), section 4, "classifier re-training".
    """
    from torch.nn.functional import cross_entropy

    smoothing = _checks.number(
        "label_smoothing", label_smoothing, low=0.0, high=1.0, open_high=True, remedy="0 is none"
    )
    told = (epochs, learning_rate, batch_size)
    return _retrained(
        features, targets, weight, bias, partial(cross_entropy, label_smoothing=smoothing), seed, *told
    )


def label_aware_retraining(
    features: Tensor,
    targets: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    seed: int = 0,
    epochs: int = 20,
    learning_rate: float = 0.1,
    batch_size: int = 64,
    head_smoothing: float = 0.3,
    tail_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Train a new last layer as `classifier_retraining` does, with targets smoothed more for larger classes.

    A sample of class y has the target 1 - e of y and e / (C - 1) of the others; e is `head_smoothing` for the
    largest class and falls to `tail_smoothing` for the smallest, e_t + (e_h - e_t) sin(pi/2 (n - n_min) /
    (n_max - n_min)).

    Source: Zhong et al. (CVPR 2021), "Improving calibration for long-tailed recognition" (MiSLAS), equations
    5 and 6, the concave form; their second stage scales the old layer where this one makes a new one.
    """
    import torch

    head = _checks.number(
        "head_smoothing", head_smoothing, low=0.0, high=1.0, open_high=True, remedy="0.3 is usual"
    )
    tail = _checks.number(
        "tail_smoothing", tail_smoothing, low=0.0, high=1.0, open_high=True, remedy="0 is usual"
    )
    counts = targets.bincount(minlength=len(weight)).double()
    low, high = counts[counts > 0].min(), counts.max()
    place = ((counts - low) / (high - low).clamp(min=1)).clamp(min=0)
    epsilon = (tail + (head - tail) * torch.sin(0.5 * torch.pi * place)).to(features.dtype)
    others = max(1, len(weight) - 1)

    def loss(logits: Tensor, wanted: Tensor) -> Tensor:
        log_p, eps = logits.log_softmax(1), epsilon[wanted]
        own = log_p.gather(1, wanted[:, None])[:, 0]
        return -((1 - eps) * own + eps / others * (log_p.sum(1) - own)).mean()

    return _retrained(features, targets, weight, bias, loss, seed, epochs, learning_rate, batch_size)


def _retrained(
    features: Tensor,
    targets: Tensor,
    weight: Tensor,
    bias: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    seed: int,
    epochs: int,
    learning_rate: float,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    import torch

    epochs = _checks.integer("epochs", epochs, low=1, remedy="20 is usual")
    batch_size = _checks.integer("batch_size", batch_size, low=1, remedy="64 is usual")
    remedy = "0.1 is usual"
    rate = _checks.number(
        "learning_rate", learning_rate, low=0.0, open_low=True, open_high=True, remedy=remedy
    )
    sampler = ClassAwareSampler(np.asarray(targets.cpu()), "inverse", seed=seed)
    # features of one scale whatever the network, or one learning rate would not fit all
    scale = features.std().clamp(min=1e-6)
    inputs = features / scale
    new = [torch.zeros_like(weight, requires_grad=True), torch.zeros_like(bias, requires_grad=True)]
    optimizer = torch.optim.SGD(new, lr=rate, momentum=0.9)
    steps = epochs * -(-len(targets) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with torch.enable_grad():
        for epoch in range(epochs):
            order = torch.from_numpy(sampler.order(epoch)).to(targets.device)
            for rows in torch.split(order, batch_size):
                value = loss(torch.nn.functional.linear(inputs[rows], *new), targets[rows])
                for tensor, slope in zip(new, torch.autograd.grad(value, new), strict=True):
                    tensor.grad = slope
                optimizer.step()
                schedule.step()
    return new[0].detach() / scale, new[1].detach()


REFITS.register("classifier_retraining", classifier_retraining)
REFITS.register("label_aware_retraining", label_aware_retraining)
REFITS.register("nearest_class_mean", nearest_class_mean)
REFITS.register("tau_normalisation", tau_normalisation)
