"""What a method does with a batch: mix its samples, or weigh each of them anew.

A mixing is a function ``(random, size, *, settings) -> shares``: NumPy's generator, and the share that each
of `size` samples keeps of itself, in [0, 1]; the rest is another sample of the epoch. A reweighting is a
function ``(model, loss, batch, part, *, per_class, settings) -> weights`` of torch tensors: the network, the
losses of each sample as a function of logits and targets, a batch, a balanced part of the training set with
`per_class` samples of each class, and the weights of the batch's samples. A package of your own adds one by
``MIXINGS.register`` or ``REWEIGHTINGS.register``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from longtail import _checks
from longtail._registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["MIXINGS", "REWEIGHTINGS", "Mixing", "Reweighting", "learning_to_reweight", "mixup"]

Mixing = Callable[..., npt.NDArray[np.float64]]
Reweighting = Callable[..., "Tensor"]

MIXINGS: Final = Registry[Mixing]("mixing")
REWEIGHTINGS: Final = Registry[Reweighting]("reweighting")


def mixup(random: np.random.Generator, size: int, *, alpha: float = 1.0) -> npt.NDArray[np.float64]:
    """Return shares drawn from Beta(alpha, alpha), one a sample.

    Source: Zhang et al. (ICLR 2018): mixup; inputs and targets are mixed alike.
    """
    alpha = _checks.number("alpha", alpha, low=0.0, open_low=True, open_high=True, remedy="1 is usual")
    return random.beta(alpha, alpha, size)


def learning_to_reweight(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    batch: tuple[Tensor, Tensor],
    part: tuple[Tensor, Tensor],
    *,
    per_class: int = 10,
) -> Tensor:
    """Return weights that sum to 1: how far a step on a sample would lower the loss of the balanced part.

    The weight is max(0, <gradient of the sample's loss, gradient of the part's mean loss>), which is what a
    step of gradient descent on the weights themselves, started at 0, gives. All zero where no sample helps.

    Source: Ren et al. (ICML 2018), "Learning to reweight examples for robust deep learning", equation 12.
    """
    import torch
    from torch.func import functional_call

    del per_class  # the caller has drawn the part
    values = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    every = list(values.values())

    def logits(inputs: Tensor) -> Tensor:
        # running statistics of norms follow the batches that are trained on, not these looks
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        out: Tensor = functional_call(model, (values, buffers), (inputs,))
        return out

    with torch.enable_grad():
        slopes = torch.autograd.grad(loss(logits(part[0]), part[1]).mean(), every, materialize_grads=True)
        outputs = logits(batch[0])
        # how the logits move along these slopes: the derivative of a backward pass by what it is given
        given = torch.zeros_like(outputs, requires_grad=True)
        back = torch.autograd.grad(outputs, every, given, create_graph=True, materialize_grads=True)
        along = sum(((one * slope).sum() for one, slope in zip(back, slopes, strict=True)), given.sum() * 0)
        (moved,) = torch.autograd.grad(along, given)
        leaf = outputs.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(leaf, batch[1]).sum(), leaf)
    gains = (slope * moved).sum(1).clamp(min=0)
    total = gains.sum()
    weights: Tensor = torch.where(total > 0, gains / total.clamp(min=torch.finfo(gains.dtype).tiny), 0.0)
    return weights


MIXINGS.register("mixup", mixup)
REWEIGHTINGS.register("learning_to_reweight", learning_to_reweight)
