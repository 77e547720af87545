"""Formulas of the softmax losses, p = softmax(z): one value a sample.

With a float target t they are sums over classes, weighed inside the sum as torch does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from longtail.losses.batch import Batch, check_offset, check_values, explain
from longtail.losses.fast import SOFTMAX_FROM
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


class ShortWay:
    """Torch's kernel at once, for the mean of a small batch on a CPU that needs nothing else.

    What was found out about a weight and an offset stays known for the next batch. It is kept with their
    values: a tensor that shares its memory with an array may change, and nothing else tells.
    """

    def __init__(self) -> None:
        self._weight: tuple[Tensor, bool, int, Tensor] | None = None  # all > 0, over so many samples
        self._offset: Tensor | None = None
        self._looked = False

    def mean(
        self,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        offset: Tensor | None,
        normalizer: str,
        ignore_index: int,
        look: bool = True,
    ) -> Tensor | None:
        """Return the mean loss, the same as :func:`reduced_cross_entropy`; None where there is more to do.

        Args:
            input: what the caller gave, as all that follow.
            target: likewise.
            weight: likewise, or None.
            offset: likewise, or None.
            normalizer: "samples" | "weights".
            ignore_index: likewise.
            look: whether each batch is searched for ignored labels; with the normalizer "weights" a look at
                the first may do.

        Raises:
            ValueError: labels out of range; a weight or an offset of unfit values.
        """
        if (
            torch.compiler.is_compiling()
            or type(input) is not Tensor
            or type(target) is not Tensor
            or type(ignore_index) is not int
            or ignore_index >= 0
        ):
            return None
        shape, labels, dtype = input.shape, target.shape, input.dtype
        if len(shape) == 2:
            fits = len(labels) == 1 and labels[0] == shape[0]
        else:
            fits = len(shape) > 3 and labels == shape[:1] + shape[2:] and labels != shape[:-1]
        if not (
            fits
            and shape[1] > 1
            and target.dtype is torch.int64
            and (dtype is torch.float32 or dtype is torch.float64)
            and input.is_cpu
            and target.is_cpu
            and 0 < input.numel() < SOFTMAX_FROM
            and (weight is None or _suits(weight, shape[1], dtype))
            and (offset is None or _suits(offset, shape[1], dtype))
            and not torch._C._are_functorch_transforms_active()
        ):
            return None
        if look or normalizer == "samples" or not self._looked:
            self._looked = True
            if target.min().item() < 0:
                return None
        kind = "mean"
        if weight is not None:
            positive, share = self._known(weight, target.numel())
            if normalizer == "samples":
                kind, weight = "sum", share
            elif not positive:  # a weight of 0 could make torch's mean 0 / 0
                return None
        if offset is not None:
            if (known := self._offset) is None or not _same(known, offset):
                check_offset(offset, "softmax", 0.0)
                self._offset = offset.detach().clone()
            input = input + (offset if len(shape) == 2 else offset.view(-1, *[1] * (len(shape) - 2)))
        try:
            return F.cross_entropy(input, target, weight, None, ignore_index, None, kind)
        except (IndexError, RuntimeError) as error:
            explain(target, shape[1], ignore_index, error)

    def _known(self, weight: Tensor, samples: int) -> tuple[bool, Tensor]:
        """Whether all are above 0, and the weights over a number of samples."""
        known = self._weight
        if known is None or known[2] != samples or not _same(known[0], weight):
            check_values("weight", weight)
            with torch.inference_mode(False):  # or no gradient could be taken later
                known = weight.clone(), float(weight.min()) > 0.0, samples, weight / samples
            self._weight = known
        return known[1], known[3]


def _suits(vector: Tensor, classes: int, dtype: torch.dtype) -> bool:
    """Whether a weight or an offset needs no check of its kind."""
    return (
        type(vector) is Tensor
        and vector.dtype is dtype
        and vector.is_cpu
        and vector.shape == (classes,)
        and not vector.requires_grad
    )


def _same(known: Tensor, values: Tensor) -> bool:
    return known.dtype is values.dtype and torch.equal(known, values)
