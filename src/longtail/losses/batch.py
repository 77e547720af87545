"""Input and target of any kind and layout -> one checked batch, which all formulas read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from longtail import _checks
from longtail.losses.reduction import Reduction
from longtail.losses.reduction import count as count_samples

_INTEGERS = (
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
)
GAMMA = "0 is the cross-entropy, 0.5 to 5 are usual"
SMOOTHING = "0 switches it off, 0.1 is usual"


@dataclass(slots=True)
class Batch:
    """Checked arguments; one of ``index`` and ``soft`` is None.

    All but the logits, which a fused loss reads as they are, have the dtype of the computation.
    """

    logits: Tensor  # (N, C) or (N, C, d1, ...)
    index: Tensor | None  # class indices, (N) or (N, d1, ...)
    soft: Tensor | None  # labels in [0, 1], of the logits' shape
    weight: Tensor | None  # (C)
    valid: Tensor | None  # of index's shape; None where nothing is ignored
    ignore_index: int = -100
    smoothing: float = 0.0
    offset: Tensor | None = None  # (C)

    def shift(self, logits: Tensor) -> Tensor:
        """Return logits in the dtype of the computation, with the offset."""
        z = upcast(logits)
        return z if self.offset is None else z + self.offset.view(-1, *[1] * (z.ndim - 2))

    def safe_index(self) -> Tensor:
        """Class indices, 0 where ignored."""
        assert self.index is not None
        return self.index if self.valid is None else self.index.masked_fill(~self.valid, 0)

    def one_hot(self) -> Tensor:
        """Whether a logit is that of its sample's class."""
        hot = torch.zeros(self.logits.shape, dtype=torch.bool, device=self.logits.device)
        return hot.scatter(1, self.safe_index().unsqueeze(1), True)  # in place, vmap could not batch it

    def labels(self) -> Tensor:
        """The target as floats of the logits' shape, not smoothed."""
        return self.soft if self.soft is not None else self.one_hot().to(self.logits.dtype)

    def smooth_labels(self) -> Tensor:
        """(1 - epsilon) * target + epsilon / C."""
        t = self.labels()
        return t if self.smoothing == 0.0 else (1.0 - self.smoothing) * t + self.smoothing / t.shape[1]

    def sample_weight(self) -> Tensor | None:
        """Each sample's class weight; for soft labels the mean of its classes' weights."""
        if self.weight is None:
            return None
        if self.soft is not None:
            return _mean_weight(self.soft, self.weight)
        index = self.safe_index()
        return self.weight.index_select(0, index.reshape(-1)).reshape(index.shape)

    def weigh(self, loss: Tensor) -> Tensor:
        """Multiply per-sample losses by their samples' weights."""
        weights = self.sample_weight()
        return loss if weights is None else loss * weights

    def weigh_classes(self, per_class: Tensor) -> Tensor:
        """Sum target * weight * loss over classes; smoothing's uniform part takes the sample's weight."""
        t = self.labels()
        w = None if self.weight is None else self.weight.reshape(-1, *[1] * (t.ndim - 2))
        loss = (per_class * t if w is None else per_class * t * w).sum(dim=1)
        if self.smoothing == 0.0:
            return loss
        return (1.0 - self.smoothing) * loss + self.smoothing * self.weigh(per_class.mean(dim=1))

    def mask(self, loss: Tensor) -> Tensor:
        """Set ignored samples' losses to 0."""
        return loss if self.valid is None else loss.masked_fill(~self.valid, 0.0)


def check(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    offset: Tensor | None = None,
) -> Batch:
    """Check the arguments that all losses share."""
    if type(label_smoothing) is not float or not 0.0 <= label_smoothing < 1.0:
        check_smoothing(label_smoothing)
    if type(ignore_index) is not int:
        check_ignore_index(ignore_index)
    if not isinstance(input, Tensor) or not isinstance(target, Tensor):
        name, value = ("input", input) if not isinstance(input, Tensor) else ("target", target)
        raise TypeError(f"{name} must be a tensor, got {_checks.describe(value)}; use torch.as_tensor")
    dtype = input.dtype
    if not dtype.is_floating_point:
        swapped = (
            "; are input and target swapped?" if target.is_floating_point() else "; pass logits, not labels"
        )
        raise TypeError(f"input must be floating-point logits, got {dtype}{swapped}")
    shape, target_shape, device = input.shape, target.shape, input.device
    if len(shape) < 2 or shape[1] == 0:
        raise ValueError(f"input must have shape (N, C) or (N, C, d1, ...), got {tuple(shape)}")
    if target.device != device:
        raise ValueError(
            f"target is on {target.device} but input on {device}; move it with target.to(input.device)"
        )
    if len(shape) > 2:
        _check_layout(shape, target)
    if dtype is not torch.float64:
        dtype = torch.float32
    if weight is not None:
        _check_vector("weight", weight, input)
        if weight.dtype is not dtype:
            weight = weight.to(dtype)
    if offset is not None:
        _check_vector("offset", offset, input)
        if offset.dtype is not dtype:
            offset = offset.to(dtype)
    if target.dtype.is_floating_point:
        if target_shape != shape:
            raise ValueError(
                f"target is {target.dtype} of shape {tuple(target_shape)}, but must have input's "
                f"shape {tuple(shape)}; class indices must be integers, target.long()"
            )
        _check_probabilities(target)
        soft = target if target.dtype is dtype else target.to(dtype)
        return Batch(input, None, soft, weight, None, ignore_index, label_smoothing, offset)
    index = target if target.dtype is torch.int64 else as_index(target)
    if target_shape != shape[:1] + shape[2:]:
        hint = "; one-hot and multi-hot targets must be floating point, target.float()"
        raise ValueError(
            f"target must have shape {tuple(shape[:1] + shape[2:])} for input of shape {tuple(shape)}, "
            f"got {tuple(target_shape)}{hint if target_shape == shape else ''}"
        )
    valid = valid_labels(index, ignore_index)
    return Batch(input, index, None, weight, valid, ignore_index, label_smoothing, offset)


def count(
    target: Tensor,
    weight: Tensor | None,
    *,
    normalizer: str = "samples",
    ignore_index: int = -100,
) -> Tensor:
    """Return what a mean over this batch divides by, to be summed over batches or processes.

    Args:
        target: as for the losses.
        weight: one weight a class, (C); needed for float targets and ``normalizer="weights"``.
        normalizer: "samples" | "weights".
        ignore_index: index targets of this value are not counted.

    Returns:
        A 0-d tensor on ``target``'s device.

    Raises:
        ValueError: an unknown normalizer, float targets of an unfit shape, labels out of range.
        TypeError: a target of an unfit dtype.

    Example:
        >>> count(torch.tensor([0, 1, -100]), None)
        tensor(2)
    """
    Reduction("mean", normalizer).check()
    if not isinstance(target, Tensor):
        raise TypeError(f"target must be a tensor, got {_checks.describe(target)}; use torch.as_tensor")
    if target.is_floating_point():
        classes = target.shape[1:2] if weight is None else weight.shape
        if target.ndim < 2 or target.shape[1:2] != classes:
            wanted = "(N, C) or (N, C, d1, ...)" + ("" if weight is None else f" with C = {weight.shape[0]}")
            raise ValueError(
                f"target is {target.dtype} and must have shape {wanted}, got {tuple(target.shape)}; "
                "class indices must be integers, target.long()"
            )
        soft = target if target.dtype == torch.float64 else target.float()  # as the losses compute
        batch = Batch(soft, None, soft, weight, None)
        return count_samples(soft.select(1, 0), batch.sample_weight, None, normalizer)
    index = as_index(target)
    valid = index != ignore_index
    batch = Batch(index, index, None, weight, valid)
    try:
        return count_samples(index, batch.sample_weight, valid, normalizer)
    except (IndexError, RuntimeError) as error:
        explain(index, 0 if weight is None else weight.shape[0], ignore_index, error)


def valid_labels(index: Tensor, ignore_index: int) -> Tensor | None:
    """Return which labels count, or None where all do.

    On the CPU one look at the smallest label saves the masks; a GPU would have to stop for it.
    """
    if ignore_index < 0 and type(index) is Tensor and index.is_cpu and not torch.compiler.is_compiling():
        try:
            if index.numel() and index.min().item() >= 0:
                return None
        except RuntimeError:  # torch.func.vmap has no single smallest label
            pass
    return index != ignore_index


def as_index(target: Tensor) -> Tensor:
    """Return class indices as int64; refuse what is no index."""
    if target.dtype == torch.int64:
        return target
    if target.dtype not in _INTEGERS:
        raise TypeError(
            f"target must hold integer class indices or floats of input's shape, got {target.dtype}; "
            "convert with target.long() or target.float()"
        )
    return target.long()


def upcast(logits: Tensor) -> Tensor:
    """Return logits in the dtype of the computation."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()


def explain(index: Tensor | None, classes: int, ignore_index: int, error: Exception) -> NoReturn:
    """Turn torch's indexing error into one that names the label; anything else goes on as it is."""
    if index is not None and index.device.type == "cpu":
        try:
            bad = index[(index != ignore_index) & ((index < 0) | (index >= classes))]
        except RuntimeError:  # torch.func.vmap cannot select
            raise error from None
        if bad.numel():
            raise ValueError(
                f"target must be in 0..{classes - 1} or ignore_index={ignore_index}, got {int(bad[0])} "
                f"({bad.numel()} such); "
                + (
                    "if it marks pixels of no class, pass ignore_index=255, or "
                    "labels.long().masked_fill(labels == 255, -100)"
                    if int(bad[0]) == 255
                    else "count the model's outputs"
                )
            ) from None
    raise error


def check_gamma(gamma: float) -> float:
    """Return gamma as a float >= 0."""
    if type(gamma) is float and 0.0 <= gamma < torch.inf:
        return gamma
    return _checks.number("gamma", gamma, low=0.0, open_high=True, remedy=GAMMA)


def check_smoothing(epsilon: float) -> float:
    """Return epsilon as a float in [0, 1)."""
    return _checks.number("label_smoothing", epsilon, low=0.0, high=1.0, open_high=True, remedy=SMOOTHING)


def check_ignore_index(value: int) -> int:
    """Return a label to ignore, any 64-bit integer."""
    return _checks.integer("ignore_index", value, low=-(2**63))


def check_offset(offset: Tensor, activation: str, smoothing: float) -> None:
    """Refuse values that cannot be learned, where looking is free: on the CPU, outside tracing."""
    if not (type(offset) is Tensor and offset.is_cpu and offset.numel()) or torch.compiler.is_compiling():
        return
    low, high = (float(x) for x in torch.aminmax(offset.detach()))
    if not math.isfinite(high - low):
        bad = low if math.isfinite(high) else high
        raise ValueError(f"offset must be finite, got {bad}; give an empty class a small count")
    if smoothing and smoothing >= (limit := smoothing_limit(activation, high - low, offset.numel())):
        raise ValueError(
            f"label_smoothing must be below {limit:.3g} with an offset from {low:.4g} to {high:.4g}, got "
            f"{smoothing:g}: the class of the largest offset could never be predicted; smooth less, or not"
        )


def smoothing_limit(activation: str, span: float, classes: int) -> float:
    """Return from which label smoothing on the class of the largest offset can no longer be predicted.

    Where a sample is of class k for certain, cross-entropy is least with probability h = 1 - e + e / C for k
    and l = e / C for the others, so that the logits without the offset are log h - a_k and log l - a_j (their
    log-odds, for a sigmoid). k stays the largest if h / l (the ratio of the odds) is above exp(a_k - a_j).

    Args:
        activation: "softmax" | "sigmoid".
        span: of the offset: its largest value less its smallest.
        classes: C.
    """
    over = math.expm1(min(span, 700.0)) / classes
    if activation == "softmax":
        return 1.0 / (1.0 + over)
    return 2.0 / (1.0 + math.sqrt(1.0 + 4.0 * over * (classes - 1) / classes))


def _check_layout(shape: torch.Size, target: Tensor) -> None:
    """Refuse (B, T, C) logits where the labels' shape tells them; say how they are read where it cannot."""
    if target.shape != shape[:-1] or torch.compiler.is_compiling():
        return
    if target.shape != shape[:1] + shape[2:]:
        raise ValueError(
            f"target must have shape {tuple(shape[:1] + shape[2:])} for input of shape {tuple(shape)}, got "
            f"{tuple(target.shape)}; classes are in input's last dimension, give logits.movedim(-1, 1)"
        )
    if len(shape) == 3:
        _checks.warn(
            f"input of shape {tuple(shape)} is read as (N, C, d1), its classes in dimension 1; if they are "
            "in the last, as those of token classifiers, give logits.movedim(-1, 1)"
        )


def _check_vector(name: str, vector: Tensor, input: Tensor) -> None:
    if not isinstance(vector, Tensor) or not vector.dtype.is_floating_point:
        raise TypeError(
            f"{name} must be a floating-point tensor or None, got {_checks.describe(vector)}; "
            f"use torch.as_tensor({name}, dtype=torch.float32)"
        )
    if vector.shape != input.shape[1:2]:
        if input.ndim > 2 and vector.shape == input.shape[-1:]:
            raise ValueError(
                f"{name} has {vector.numel()} entries, as the last dimension of input of shape "
                f"{tuple(input.shape)}, but classes are in dimension 1; give logits.movedim(-1, 1), and "
                "float targets likewise"
            )
        raise ValueError(
            f"{name} must have one entry for each of input's {input.shape[1]} classes (dimension 1), "
            f"got shape {tuple(vector.shape)} for input of shape {tuple(input.shape)}; "
            "count as many classes as the model has outputs"
        )
    if vector.device != input.device:
        raise ValueError(
            f"{name} is on {vector.device} but input on {input.device}; move the loss with .to()"
        )


def _check_probabilities(target: Tensor) -> None:
    """Refuse soft labels outside [0, 1], where looking is free: on the CPU, outside tracing."""
    if not (type(target) is Tensor and target.is_cpu and target.numel()) or torch.compiler.is_compiling():
        return
    try:
        low, high = (float(x) for x in torch.aminmax(target.detach()))
    except RuntimeError:  # torch.func.vmap has no single smallest label
        return
    if not (low >= 0.0 and high <= 1.001):  # a sum of rounded shares may exceed 1 by a little
        raise ValueError(
            f"target must be in [0, 1] where it is floating point, got values from {low:g} to {high:g}; "
            "pass probabilities or multi-hot labels (are input and target swapped?)"
        )


def _mean_weight(target: Tensor, weight: Tensor) -> Tensor:
    """The target-weighted mean of the classes' weights, 1 where no class is positive."""
    w = weight.reshape(-1, *[1] * (target.ndim - 2)).to(target.dtype)
    mass = target.sum(dim=1)
    positive = mass > 0
    mean = (target * w).sum(dim=1) / torch.where(positive, mass, torch.ones_like(mass))
    return torch.where(positive, mean, torch.ones_like(mean))
