"""The last layer and its loss as one function, for heads so wide that the logits do not fit.

``loss(features @ weight.T + bias, target)`` needs several tensors of samples x classes. Here some samples at
a time become logits, those become their gradient, and that is multiplied into the gradients of features,
weight and bias, which are all that is kept for backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from longtail import _checks
from longtail.losses import sigmoid, softmax
from longtail.losses.batch import (
    Batch,
    as_index,
    check,
    check_gamma,
    check_offset,
    check_values,
    explain,
    valid_labels,
)
from longtail.losses.fast import Setting, fused
from longtail.losses.reduction import Reduction

CHUNK = 1 << 24  # logits at a time


def class_balanced_linear_cross_entropy(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    normalizer: str = "samples",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    offset: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> Tensor:
    """Class-balanced softmax cross-entropy of a linear layer, without ever holding all logits.

    Equals ``class_balanced_cross_entropy(F.linear(features, weight, bias), target, class_weight)``, with
    gradients of features, weight and bias. Under autocast the layer multiplies in autocast's dtype.

    Args:
        features: what the layer takes, (N, D) or (B, T, D), ....
        weight: the layer's weight, (C, D).
        bias: the layer's bias, (C), or None.
        target: class indices, (N) or (B, T), ....
        class_weight: one weight a class, (C), or None.
        reduction: "mean" | "sum".
        normalizer: what a mean divides by: "samples" | "weights".
        ignore_index: targets of this value have loss 0 and are not counted.
        label_smoothing: epsilon in [0, 1).
        offset: added to the logits, one a class, (C), or None.
        denominator: replaces the mean's divisor.

    Returns:
        A 0-d tensor, float32, or float64 for float64 features.

    Raises:
        TypeError: tensors of an unfit dtype.
        ValueError: shapes that do not fit, unknown options, labels out of range.

    Example:
        >>> features, head = torch.zeros(2, 5), torch.nn.Linear(5, 4, bias=False)
        >>> loss = class_balanced_linear_cross_entropy(features, head.weight, None, torch.tensor([0, 1]))
        >>> loss.detach()  # log 4
        tensor(1.3863)

    Source: Cui et al. (CVPR 2019), section 4.1, for the loss.
    """
    form = Setting("softmax", 0.0, label_smoothing, ignore_index, name="softmax")
    how = reduction, normalizer, denominator
    return _linear(features, weight, bias, target, class_weight, offset, form, *how)


def class_balanced_linear_focal_loss(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None = None,
    *,
    gamma: float = 2.0,
    reduction: str = "mean",
    normalizer: str = "samples",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    offset: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> Tensor:
    """Class-balanced focal loss, sigmoid form, of a linear layer, without ever holding all logits.

    Equals ``class_balanced_focal_loss(F.linear(features, weight, bias), target, class_weight)``; with
    ``gamma=0`` that is the sigmoid cross-entropy. The rest is as in
    :func:`class_balanced_linear_cross_entropy`.

    Args:
        features: what the layer takes, (N, D) or (B, T, D), ....
        weight: the layer's weight, (C, D).
        bias: the layer's bias, (C), or None.
        target: class indices, (N) or (B, T), ....
        class_weight: one weight a class, (C), or None.
        gamma: >= 0; 0 is the sigmoid cross-entropy.
        reduction: "mean" | "sum".
        normalizer: what a mean divides by: "samples" | "weights".
        ignore_index: targets of this value have loss 0 and are not counted.
        label_smoothing: epsilon in [0, 1).
        offset: added to the logits, one a class, (C), or None.
        denominator: replaces the mean's divisor.

    Returns:
        A 0-d tensor, float32, or float64 for float64 features.

    Raises:
        TypeError: tensors of an unfit dtype.
        ValueError: ``gamma`` < 0, shapes that do not fit, unknown options, labels out of range.

    Example:
        >>> features, head = torch.zeros(1, 5), torch.nn.Linear(5, 2, bias=False)
        >>> loss = class_balanced_linear_focal_loss(features, head.weight, None, torch.tensor([0]), gamma=0.0)
        >>> loss.detach()  # 2 log 2
        tensor(1.3863)

    Source: Cui et al. (CVPR 2019), section 4.3, for the loss.
    """
    name = "focal" if check_gamma(gamma) else "sigmoid"
    form = Setting("sigmoid", check_gamma(gamma), label_smoothing, ignore_index, name=name)
    how = reduction, normalizer, denominator
    return _linear(features, weight, bias, target, class_weight, offset, form, *how)


def _compute(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None,
    offset: Tensor | None,
    form: Setting,
    reduction: str,
    normalizer: str,
    denominator: Tensor | float | None,
) -> Tensor:
    how = Reduction(reduction, normalizer, denominator)
    how.check()
    if reduction == "none":
        raise ValueError("reduction must be 'mean' or 'sum', got 'none': a fused head keeps no samples apart")
    index = _check(features, weight, bias, target, class_weight)
    autocast = torch.is_autocast_enabled(features.device.type)
    dtype = torch.get_autocast_dtype(features.device.type) if autocast else features.dtype
    probe = features.new_empty(0, weight.shape[0], dtype=dtype)  # the logits, but for their number
    if weight.shape[0] == 1:
        raise ValueError(
            "weight must have a row a class, got one row: one output needs no fused head; apply the layer, "
            "then the loss"
        )
    if class_weight is not None:
        check_values("class_weight", class_weight)
    batch = check(probe, index[:0], class_weight, form.ignore_index, form.smoothing, offset)
    if offset is not None:
        check_offset(offset, form.kind, form.smoothing)
    batch.index, batch.valid = index, valid_labels(index, form.ignore_index)
    whole = form._replace(ignores=batch.valid is not None)
    reason = fused.reason_against(probe, False, batch.weight, denominator, whole, batch.offset)
    if reason:
        raise ValueError(f"a fused head cannot take this input: {reason}; apply the layer, then the loss")
    rows = features.reshape(-1, features.shape[-1])
    try:
        divisor = how.divisor(index, batch.sample_weight, batch.valid)
        vectors = batch.weight, batch.offset
        total: Tensor = _Linear.apply(rows, weight, bias, index, *vectors, whole, dtype)  # type: ignore[no-untyped-call]
    except (IndexError, RuntimeError) as error:
        explain(index, weight.shape[0], form.ignore_index, error)
    return total / divisor if reduction == "mean" else total


# traced, every chunk would become a part of the graph
_linear: Callable[..., Tensor] = torch.compiler.disable(_compute)  # type: ignore[no-untyped-call]


def _check(
    features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, class_weight: Tensor | None
) -> Tensor:
    tensors = {"features": features, "weight": weight, "bias": bias, "target": target}
    for name, value in tensors.items():
        if not isinstance(value, Tensor) and not (name == "bias" and value is None):
            raise TypeError(f"{name} must be a tensor, got {_checks.describe(value)}; use torch.as_tensor")
        if name != "target" and isinstance(value, Tensor) and not value.dtype.is_floating_point:
            raise TypeError(f"{name} must be floating point, got {value.dtype}; are arguments swapped?")
        if isinstance(value, Tensor) and value.device != features.device:
            raise ValueError(
                f"{name} is on {value.device} but features on {features.device}; move it with .to()"
            )
    if features.ndim < 2:
        raise ValueError(f"features must have shape (N, D) or (B, T, D), ..., got {tuple(features.shape)}")
    if weight.ndim != 2 or weight.shape[1] != features.shape[-1]:
        raise ValueError(
            f"weight must have shape (C, {features.shape[-1]}) for features of shape "
            f"{tuple(features.shape)}, got {tuple(weight.shape)}; pass torch.nn.Linear's weight"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape ({weight.shape[0]},), got {tuple(bias.shape)}; or pass None")
    if target.shape != features.shape[:-1]:
        raise ValueError(
            f"target must have shape {tuple(features.shape[:-1])} for features of shape "
            f"{tuple(features.shape)}, got {tuple(target.shape)}; it holds one class index a sample"
        )
    return as_index(target).reshape(-1)


class _Linear(torch.autograd.Function):
    """Sum of the losses; its gradients are known at once, but for what comes from above."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        index: Tensor,
        class_weight: Tensor | None,
        offset: Tensor | None,
        form: Setting,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.form, ctx.dtype, ctx.gradients = form, dtype, None
        ctx.save_for_backward(features, weight, bias, index, class_weight, offset)
        with torch.autocast(features.device.type, enabled=False):
            total, ctx.gradients = _pass(
                features, weight, bias, index, class_weight, offset, form, dtype, ctx.needs_input_grad[:3]
            )
        return total

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        (upstream,) = upstreams
        if torch.is_grad_enabled():
            raise RuntimeError("a fused head has no second derivatives; apply the layer, then the loss")
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:  # handed over by an earlier backward, retain_graph=True
            features, weight, bias, index, class_weight, offset = ctx.saved_tensors
            vectors, how = (class_weight, offset), (ctx.form, ctx.dtype, ctx.needs_input_grad[:3])
            with torch.autocast(features.device.type, enabled=False):
                gradients = _pass(features, weight, bias, index, *vectors, *how)[1]
        inputs = ctx.saved_tensors[:3]
        scaled = [
            None if gradient is None else gradient.mul_(upstream).to(x.dtype)
            for gradient, x in zip(gradients, inputs, strict=True)
        ]
        return *scaled, None, None, None, None, None


def _pass(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    index: Tensor,
    class_weight: Tensor | None,
    offset: Tensor | None,
    form: Setting,
    dtype: torch.dtype,
    wanted: tuple[bool, ...],
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Return the summed loss, and the gradients of it that are wanted."""
    classes = weight.shape[0]
    exact = torch.promote_types(dtype, torch.float32)
    whole = weight.dtype == dtype  # otherwise it is cast a part at a time
    # sums over many chunks: in half precision, what comes late would round to nothing
    of_weight, of_bias = (
        torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
        if x is not None and w
        else None
        for x, w in zip((weight, bias), wanted[1:], strict=True)
    )
    summed = features.dtype if whole else torch.promote_types(features.dtype, torch.float32)
    of_features = torch.zeros_like(features, dtype=summed) if wanted[0] else None
    one = torch.ones((), dtype=exact, device=features.device)
    total = torch.zeros((), dtype=exact, device=features.device)
    size = max(1, CHUNK // classes)
    logits = features.new_empty(min(size, len(features)), classes, dtype=dtype)
    slopes = logits if logits.is_cuda or not any(wanted) else torch.empty_like(logits)  # the CPU is faster so
    for part in _slices(len(features), size):
        x, labels = features[part].to(dtype), index[part]
        z = logits[: len(x)]
        for some in _slices(classes, classes if whole else 8192):
            torch.mm(x, weight[some].to(dtype).t(), out=z[:, some])
        if bias is not None:
            z += bias.to(dtype)
        if z.is_cpu or fused.worthwhile(z, form):
            losses, g = fused.compute(
                z, labels, class_weight, one, form, offset=offset, gradient=any(wanted), out=slopes[: len(x)]
            )
        else:
            losses, g = _by_torch(z, labels, class_weight, offset, form, any(wanted))
        total += losses.sum()
        if g is None:
            continue
        for some in _slices(classes, classes if whole else 8192):
            if of_features is not None:
                _add_product(of_features[part], g[:, some], weight[some].to(dtype))
            if of_weight is not None:
                _add_product(of_weight[some], g[:, some].t(), x)
        if of_bias is not None:
            of_bias += g.sum(0, dtype=exact)
    return total, (of_features, of_weight, of_bias)


def _by_torch(
    z: Tensor, index: Tensor, weight: Tensor | None, offset: Tensor | None, form: Setting, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """Return losses and gradient as the fused path does, by torch's operators: for GPUs not measured."""
    with torch.enable_grad():
        logits = z.detach().requires_grad_(wanted)
        valid = index != form.ignore_index
        batch = Batch(logits, index, None, weight, valid, form.ignore_index, form.smoothing, offset)
        batch.logits = batch.shift(logits)
        loss = softmax.cross_entropy(batch) if form.kind == "softmax" else sigmoid.focal(batch, form.gamma)
        losses = batch.mask(loss)
        gradient = torch.autograd.grad(losses.sum(), logits)[0] if wanted else None
    return losses.detach(), gradient


def _add_product(sum: Tensor, a: Tensor, b: Tensor) -> None:
    if sum.dtype == a.dtype:
        sum.addmm_(a, b)
    else:
        sum += a @ b


def _slices(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))
