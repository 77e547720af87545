"""Input and target of any kind and layout -> one checked batch, which all formulas read."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from longtail import _checks
from longtail.losses.forms import WEIGHTINGS, smoothing_limit
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

    All but the logits, which a fused loss reads as they are, have the dtype of the computation. One output is
    always ``soft``: logits and labels have shape (N, 1, ...); it is ``binary`` where weight and offset have
    two entries, those of the labels 0 and 1.
    """

    logits: Tensor  # (N, C) or (N, C, d1, ...)
    index: Tensor | None  # class indices, (N) or (N, d1, ...)
    soft: Tensor | None  # labels in [0, 1], of the logits' shape; 0 where they are ignored
    weight: Tensor | None  # (C)
    valid: Tensor | None  # of index's shape; None where nothing is ignored
    ignore_index: int = -100
    smoothing: float = 0.0
    offset: Tensor | None = None  # (C)
    binary: bool = False
    known: Tensor | None = None  # of soft's shape: which labels are not ignored; None where all are
    own: Tensor | None = None  # the caller's weight of each sample, of index's shape
    weighting: str = "sample"  # one of WEIGHTINGS
    apart: bool = False  # whether the terms of a sample stay apart
    towards: Tensor | None = None  # (C), shares that smoothing moves labels to, in place of 1 / C or 1 / 2

    def shift(self, logits: Tensor) -> Tensor:
        """Return logits in the dtype of the computation, with the offset; 0 where the label is ignored."""
        z = upcast(logits)
        if self.offset is not None:
            z = z + (
                self.offset[1] - self.offset[0] if self.binary else self.offset.view(-1, *[1] * (z.ndim - 2))
            )
        if self.known is not None:  # a NaN there would reach the gradient, though times 0
            return z.masked_fill(~self.known, 0.0)
        return z if self.valid is None else z.masked_fill(~self.valid.unsqueeze(1), 0.0)

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
        """(1 - epsilon) * target + epsilon / C of class indices, + epsilon / 2 of labels of their own."""
        t = self.labels()
        if self.smoothing == 0.0:
            return t
        if self.towards is not None:
            share = self.towards[1:] if self.binary else self.towards
            return (1.0 - self.smoothing) * t + self.smoothing * share.view(-1, *[1] * (t.ndim - 2))
        return (1.0 - self.smoothing) * t + self.smoothing / (t.shape[1] if self.soft is None else 2)

    def sample_weight(self) -> Tensor | None:
        """Each sample's class weight; for soft labels the mean of its classes' weights."""
        if self.weight is None or self.weighting != "sample":
            return None
        if self.soft is not None and self.binary:
            w = self.weight.to(self.soft.dtype)
            return torch.lerp(w[0], w[1], self.soft).squeeze(1)
        if self.soft is not None:
            return _mean_weight(self.soft, self.weight)
        index = self.safe_index()
        return self.weight.index_select(0, index.reshape(-1)).reshape(index.shape)

    def weigh(self, loss: Tensor) -> Tensor:
        """Multiply per-sample losses by their samples' weights."""
        weights = self.sample_weight()
        return loss if weights is None else loss * weights

    def total(self, terms: Tensor) -> Tensor:
        """Weigh the terms of the outputs, (N, C, ...), and sum them over the classes."""
        if self.weighting == "class" and self.weight is not None:
            terms = terms * self.weight.view(-1, *[1] * (terms.ndim - 2))
        if self.known is not None:
            terms = terms.masked_fill(~self.known, 0.0)
        weights = None if self.binary else self.sample_weight()  # of one output, sides() has done it
        if self.apart:
            return terms if weights is None else terms * weights.unsqueeze(1)
        loss = terms.sum(dim=1)
        return loss if weights is None else loss * weights

    def sides(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What multiplies -log p and -log(1 - p) of each output; of several, but for the sample's weight."""
        positive, negative, w = labels, 1.0 - labels, self.weight
        if w is None or (self.weighting == "sample" and not self.binary):
            return positive, negative
        if not self.binary:
            column = w.view(-1, *[1] * (labels.ndim - 2))
            return (positive * column, negative) if self.weighting == "positive" else (positive, negative)
        if self.weighting == "positive" or self.smoothing == 0.0:
            return positive * w[1], negative * w[0]
        assert self.soft is not None
        even = self.smoothing * torch.lerp(w[0], w[1], self.soft)
        share, rest = 0.5 if self.towards is None else self.towards[1], 1.0 - self.smoothing
        yes, no = rest * self.soft * w[1] + share * even, rest * (1.0 - self.soft) * w[0]
        return yes, no + (1.0 - share) * even

    def weigh_classes(self, per_class: Tensor) -> Tensor:
        """Sum target * weight * loss over classes; smoothing's uniform part takes the sample's weight."""
        t = self.labels()
        if self.smoothing == 0.0:  # a class masked by -inf that is no part of the target
            per_class = per_class.masked_fill((t == 0.0) & (self.logits == -math.inf), 0.0)
        w = None if self.weight is None else self.weight.reshape(-1, *[1] * (t.ndim - 2))
        loss = (per_class * t if w is None else per_class * t * w).sum(dim=1)
        if self.smoothing == 0.0:
            return loss
        if self.towards is None:
            even = per_class.mean(dim=1)
        else:
            even = (per_class * self.towards.view(-1, *[1] * (t.ndim - 2))).sum(dim=1)
        return (1.0 - self.smoothing) * loss + self.smoothing * self.weigh(even)

    def counted(self) -> Tensor | None:
        """What each sample counts in a mean: the caller's weight, times the known share of its labels.

        Several labels of which a half is known are half a sample, as in the Trainer, which counts labels.
        """
        if self.known is None or self.known.shape[1] == 1:
            return self.own
        share = self.known.to(self.logits.dtype if self.logits.dtype == torch.float64 else torch.float32)
        return share.mean(dim=1) if self.own is None else self.own * share.mean(dim=1)

    def mask(self, loss: Tensor) -> Tensor:
        """Set ignored samples' losses to 0, and multiply the others by the caller's weights."""
        if self.own is not None:
            loss = loss * (self.own.unsqueeze(1) if self.apart else self.own)
        if self.valid is None:
            return loss
        return loss.masked_fill(~(self.valid.unsqueeze(1) if self.apart else self.valid), 0.0)


def check(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    offset: Tensor | None = None,
    *,
    sample_weight: Tensor | None = None,
    weighting: str = "sample",
    apart: bool = False,
    activation: str = "",
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
    one = len(shape) == 1 or (len(shape) > 1 and shape[1] == 1)
    if len(shape) == 0 or (len(shape) > 1 and shape[1] == 0):
        raise ValueError(
            f"input must have shape (N, C) or (N, C, d1, ...), or (N) for one output, got {tuple(shape)}"
        )
    if target.device != device:
        raise ValueError(
            f"target is on {target.device} but input on {device}; move it with target.to(input.device)"
        )
    if len(shape) > 2 and shape[1] != 1:
        _check_layout(input, target)
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
    if weighting != "sample":
        _checks.choice("weighting", weighting, WEIGHTINGS)
        if activation == "softmax":
            raise ValueError(
                f"weighting={weighting!r} is for the sigmoid losses, whose outputs are labels of their own; "
                "a softmax has one class a sample, pass weighting='sample'"
            )
    batch = Batch(
        *(input, None, None, weight, None, ignore_index, label_smoothing, offset),
        weighting=weighting,
        apart=apart,
    )
    if one:
        _one_output(batch, target, dtype, activation)
    elif target.dtype.is_floating_point:
        if target_shape != shape:
            raise ValueError(_unfit_floats(input, target))
        if activation == "softmax" and ignore_index >= 0:
            raise ValueError(
                f"ignore_index={ignore_index} has no meaning for probabilities, target is {target.dtype}; "
                "pass class indices, or leave ignore_index out"
            )
        _read_labels(batch, target if target.dtype is dtype else target.to(dtype), activation)
    else:
        batch.index = target if target.dtype is torch.int64 else as_index(target)
        if target_shape != shape[:1] + shape[2:]:
            raise ValueError(_unfit_indices(input, target))
        batch.valid = valid_labels(batch.index, ignore_index)
    if apart and batch.index is None and activation == "softmax":
        raise ValueError("reduction='elements' is for the sigmoid losses; pass reduction='none'")
    if sample_weight is not None:
        batch.own = _check_sample_weight(sample_weight, batch, dtype)
    return batch


def _one_output(batch: Batch, target: Tensor, dtype: torch.dtype, activation: str) -> None:
    """Read a batch of one output: its labels are 0 and 1, in any dtype, or shares between them."""
    input = batch.logits
    vectors = [vector for vector in (batch.weight, batch.offset) if vector is not None]
    if input.ndim == 1 and activation != "softmax" and target.shape not in (input.shape, (len(input), 1)):
        raise ValueError(
            "input must have shape (N, C) or (N, C, d1, ...), or target's shape for one output, got "
            f"{tuple(input.shape)} beside a target of shape {tuple(target.shape)}"
        )
    if len({len(vector) for vector in vectors}) > 1:
        raise ValueError(
            f"weight and offset must be as long as each other, got {len(vectors[0])} and {len(vectors[1])} "
            "entries for one output; give both classes' values, of label 0 first"
        )
    batch.binary = bool(vectors) and len(vectors[0]) == 2
    if activation == "softmax" and not batch.binary:
        raise ValueError(
            "input must have shape (N, C) or (N, C, d1, ...) with C > 1 for a softmax, which of one output "
            f"is always 1, got {tuple(input.shape)}; for two classes give both weights, of label 0 first "
            "(both counts to ClassBalancedLoss), or take a sigmoid loss"
        )
    if input.ndim == 1:
        batch.logits = input.unsqueeze(1)
    shape = batch.logits.shape
    if target.shape not in (shape, shape[:1] + shape[2:]):
        raise ValueError(
            f"target must have shape {tuple(shape[:1] + shape[2:])} or {tuple(shape)} for one output, input "
            f"of shape {tuple(input.shape)}, got {tuple(target.shape)}"
        )
    if target.is_complex():
        raise TypeError(f"target must hold labels 0 and 1, got {target.dtype}; convert with target.float()")
    if batch.binary and batch.weighting == "class":
        raise ValueError(
            "weighting='class' weighs columns, and one output has one; pass weighting='sample' or 'positive'"
        )
    _read_labels(batch, target.to(dtype).reshape(shape), "sigmoid")


def _read_labels(batch: Batch, labels: Tensor, activation: str) -> None:
    """Set labels of the logits' shape; those of a sigmoid loss that are NaN or ignore_index are left out."""
    batch.soft = labels
    if 0 <= batch.ignore_index <= 1:
        raise ValueError(
            f"ignore_index={batch.ignore_index} is a label of its own where each output is 0 or 1; leave it "
            "out"
        )
    looks = type(labels) is Tensor and labels.is_cpu and not torch.compiler.is_compiling()
    low = high = 0.0
    if looks and labels.numel():
        try:
            low, high = (float(x) for x in torch.aminmax(labels.detach()))
        except RuntimeError:  # torch.func.vmap has no single smallest label
            looks = False
    inside = low >= 0.0 and high <= 1.001  # a sum of rounded shares may exceed 1 by a little
    if looks and inside:
        return
    if activation != "softmax":
        known = (labels == labels) & (labels != batch.ignore_index)
        batch.soft = labels.masked_fill(~known, 0.0)
        if looks and bool(labels.isnan().all()):
            raise ValueError(
                "target must be in [0, 1] where it is floating point, got nan alone; pass -100 for labels "
                "that are unknown"
            )
        if looks:
            low, high = (float(x) for x in torch.aminmax(batch.soft.detach()))
        batch.known, batch.valid = known, known.any(dim=1)
    if looks and not (low >= 0.0 and high <= 1.001):
        left_out = "" if activation == "softmax" else f" (NaN or {batch.ignore_index} where it is unknown)"
        what = "for one output" if labels.shape[1] == 1 else "where it is floating point"
        raise ValueError(
            f"target must be in [0, 1] {what}{left_out}, got values from {low:g} to {high:g}; pass "
            "probabilities or multi-hot labels (are input and target swapped?)"
        )


def _check_sample_weight(values: Tensor, batch: Batch, dtype: torch.dtype) -> Tensor:
    """Return the caller's weights in the shape of the samples."""
    logits = batch.logits
    shape = logits.shape[:1] + logits.shape[2:]
    if not isinstance(values, Tensor) or values.is_complex():
        raise TypeError(
            f"sample_weight must be a real tensor, got {_checks.describe(values)}; use torch.as_tensor"
        )
    if values.shape == logits.shape and logits.shape[1] == 1:
        values = values.squeeze(1)
    if values.shape not in (shape, shape[:1]):
        raise ValueError(
            f"sample_weight must have shape {tuple(shape)}, one number a sample, for input of shape "
            f"{tuple(logits.shape)}, got {tuple(values.shape)}"
        )
    if values.device != logits.device:
        raise ValueError(
            f"sample_weight is on {values.device} but input on {logits.device}; move it with .to()"
        )
    check_values("sample_weight", values)
    return values.to(dtype).reshape(values.shape + (1,) * (len(shape) - values.ndim)).expand(shape)


def check_values(name: str, values: Tensor) -> None:
    """Refuse weights that are NaN, infinite or negative, where looking is free: on the CPU, not traced."""
    if not (type(values) is Tensor and values.is_cpu and values.numel()) or torch.compiler.is_compiling():
        return
    try:
        low, high = (float(x) for x in torch.aminmax(values.detach()))
    except RuntimeError:  # torch.func.vmap has no single smallest weight
        return
    if not (low >= 0.0 and high < math.inf):
        bad = low if not low >= 0.0 else high
        raise ValueError(f"{name} must be finite and >= 0, got {bad:g}; 0 leaves out what it weighs")


def _unfit_floats(input: Tensor, target: Tensor) -> str:
    shape, found = tuple(input.shape), tuple(target.shape)
    text = f"target is {target.dtype} of shape {found}, but must have input's shape {shape}; "
    squeezed = ".squeeze(1)" if found == (*shape[:1], 1, *shape[2:]) else ""
    if found != shape[:1] + shape[2:] and not squeezed:
        return text + f"class indices must be integers of shape {shape[:1] + shape[2:]}, target.long()"
    whole = True
    if not torch.compiler.is_compiling():
        with contextlib.suppress(RuntimeError):  # torch.func.vmap has no single answer
            whole = bool((target.detach() == target.detach().round()).all())
    if whole:
        return text + f"class indices must be integers, target{squeezed}.long()"
    if shape[1] == 2:
        both = "torch.cat" if squeezed else "torch.stack"
        return text + f"for shares of class 1 pass both classes', {both}([1 - target, target], 1)"
    return text + "for soft labels pass the share of every class"


def _unfit_indices(input: Tensor, target: Tensor) -> str:
    shape, found = tuple(input.shape), tuple(target.shape)
    wanted = shape[:1] + shape[2:]
    hint = ""
    if found == shape:
        hint = "; one-hot and multi-hot targets must be floating point, target.float()"
    elif found == (*shape[:1], 1, *shape[2:]):
        hint = "; drop its dimension of 1, target.squeeze(1)"
    return f"target must have shape {wanted} for input of shape {shape}, got {found}{hint}"


def count(
    target: Tensor,
    weight: Tensor | None,
    *,
    normalizer: str = "samples",
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Return what a mean over this batch divides by, to be summed over batches or processes.

    Args:
        target: as for the losses.
        weight: one weight a class, (C); needed for float targets and ``normalizer="weights"``.
        normalizer: "samples" | "weights".
        ignore_index: index targets of this value are not counted; of several labels a sample, float targets,
            each that is unknown takes 1 / C off its sample's count.
        sample_weight: the weight of each sample, as for the losses: a sample of weight 2 counts as two.

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
    two = weight is not None and weight.shape == (2,)
    lone = weight is not None and weight.shape == (1,)  # one label, weighed by weighting="positive"
    if (lone and target.dtype in (torch.bool, *_INTEGERS)) or (
        two and (target.dtype is torch.bool or (target.ndim > 1 and target.shape[1] == 1))
    ):
        target = target.to(torch.float32)  # labels of one output
    if target.is_floating_point():
        classes = target.shape[1:2] if weight is None else weight.shape
        one = lone or (two and (target.ndim == 1 or target.shape[1] == 1 or target.shape[1] != 2))
        if one and target.ndim > 0 and target.shape[1:2] != (1,):
            target = target.unsqueeze(1)
        if not one and (target.ndim < 2 or target.shape[1:2] != classes):
            wanted = "(N, C) or (N, C, d1, ...)" + ("" if weight is None else f" with C = {weight.shape[0]}")
            raise ValueError(
                f"target is {target.dtype} and must have shape {wanted}, got {tuple(target.shape)}; "
                "class indices must be integers, target.long()"
            )
        soft = target if target.dtype == torch.float64 else target.float()  # as the losses compute
        batch = Batch(soft, None, soft, weight, None, ignore_index, binary=one and two)
        _read_labels(batch, soft, "sigmoid")
        samples = soft.select(1, 0)
        if sample_weight is not None:
            batch.own = _check_sample_weight(sample_weight, batch, soft.dtype)
        return count_samples(samples, batch.sample_weight, batch.valid, normalizer, batch.counted())
    index = as_index(target)
    valid = index != ignore_index
    batch = Batch(index, index, None, weight, valid)
    if sample_weight is not None:
        batch.logits = index.unsqueeze(1)
        dtype = torch.float32 if weight is None else weight.dtype
        batch.own = _check_sample_weight(sample_weight, batch, dtype)
    try:
        return count_samples(index, batch.sample_weight, valid, normalizer, batch.own)
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
        if target.dtype is torch.bool:
            raise TypeError(
                "target must hold integer class indices or floats of input's shape, got torch.bool; convert "
                "with " + ("target.long()" if target.ndim == 1 else "target.float() if it has input's shape")
            )
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
            f"{smoothing:g}: the class of the largest offset could never be predicted; smooth less, or not, "
            "or smooth_to='prior', which ClassBalancedLoss and methods have"
        )


def _check_layout(input: Tensor, target: Tensor) -> None:
    """Refuse (B, T, C) logits where the labels' shape tells them; say how they are read where it cannot."""
    shape = input.shape
    if torch.compiler.is_compiling():
        return
    same = target.shape == shape and target.is_floating_point() and shape[1] == shape[-1]
    if target.shape != shape[:-1] and not same:
        return
    if not same and target.shape != shape[:1] + shape[2:]:
        raise ValueError(
            f"target must have shape {tuple(shape[:1] + shape[2:])} for input of shape {tuple(shape)}, got "
            f"{tuple(target.shape)}; classes are in input's last dimension, give logits.movedim(-1, 1)"
        )
    if len(shape) == 3 and not 1 == input.stride(1) < input.stride(2):  # of what movedim(-1, 1) returned
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
    outputs = 1 if input.ndim == 1 else input.shape[1]
    if vector.shape != (outputs,) and not (outputs == 1 and vector.shape == (2,)):
        if input.ndim > 2 and vector.shape == input.shape[-1:]:
            raise ValueError(
                f"{name} has {vector.numel()} entries, as the last dimension of input of shape "
                f"{tuple(input.shape)}, but classes are in dimension 1; give logits.movedim(-1, 1), and "
                "float targets likewise"
            )
        wanted = (
            f"must have one entry for each of input's {outputs} classes (dimension 1)"
            if outputs > 1
            else "must have two entries for one output, of label 0 and label 1"
        )
        remedy = "count as many classes as the model has outputs" if outputs > 1 else "count both classes"
        raise ValueError(
            f"{name} {wanted}, got shape {tuple(vector.shape)} for input of shape {tuple(input.shape)}; "
            f"{remedy}"
        )
    if vector.device != input.device:
        raise ValueError(
            f"{name} is on {vector.device} but input on {input.device}; move the loss with .to()"
        )


def _mean_weight(target: Tensor, weight: Tensor) -> Tensor:
    """The target-weighted mean of the classes' weights; what labels lack to a sum of 1/2 weighs 1.

    So a sample without a positive weighs 1, the mean of class weights that sum to C, and nothing jumps there.
    """
    w = weight.reshape(-1, *[1] * (target.ndim - 2)).to(target.dtype)
    mass = target.sum(dim=1)
    lacking = (0.5 - mass).clamp(min=0.0)
    return ((target * w).sum(dim=1) + lacking) / (mass + lacking)
