"""Class-balanced losses as functions: check, elementwise, weigh, reduce.

Shared arguments, told once:

``input``
    logits, floating point, (N, C) or (N, C, d1, ...). Half precision is computed in float32.
``target``
    class indices, any integer dtype, (N) or (N, d1, ...), in 0..C-1 or ``ignore_index``; or floating
    point of ``input``'s shape: soft labels, or multi-hot for the sigmoid losses, in [0, 1].
``weight``
    one weight a class, (C), from :func:`longtail.class_weights`; None for 1 each. A sample weighs as its
    class; with a float target as the target-weighted mean of its classes' weights (1 where no class is
    positive), except that the softmax losses weigh inside the sum over classes, as torch does. Index and
    one-hot targets agree.
``label_smoothing``
    epsilon in [0, 1): the target becomes (1 - epsilon) * target + epsilon / C. The sample's class weight
    stays that of the unsmoothed target (torch weighs the smoothed classes by their own).
``reduction``, ``normalizer``, ``denominator``
    see :mod:`longtail.losses.reduction`.
``backend``
    "torch" is the formula in torch's operators; "fused" (:mod:`longtail.losses.fused`) computes loss and
    gradient in one pass over the logits, for class indices, on the CPU and, with Triton, on CUDA devices;
    "auto" takes the fused path where it applies and pays. The values are the same up to rounding.
``inplace_backward``
    True saves the gradient's memory: the fused path writes it over ``input``, which must not be used after
    the loss nor be a leaf of the graph, and allows one backward pass. The plain path ignores it.

All functions return per-sample losses of shape (N) or (N, d1, ...) for ``reduction="none"`` and a 0-d
tensor otherwise, in float32, or float64 for float64 logits. All raise TypeError for dtypes and ValueError
for shapes, options and, on the CPU outside ``torch.compile``, labels out of range; on CUDA such labels
trip torch's device-side assertion, since checking them first would stall the device.

Every loss is written in the margin m, negative where the prediction is right: the cross-entropy of one
output is softplus(m) and its focal modulator (1 - p_t)^gamma is exp(gamma * log_sigmoid(m)). Both, and
their derivatives, are finite and accurate for every m and every gamma >= 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from longtail import _checks
from longtail.losses import fused
from longtail.losses.fused import Form
from longtail.losses.reduction import check_options, divisor, mean_divisor, reduce

_INTEGERS = (
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
)
GAMMA = "0 is the cross-entropy, 0.5 to 5 are usual"
SMOOTHING = "0 switches it off, 0.1 is usual"


def class_balanced_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    normalizer: str = "samples",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    denominator: Tensor | float | None = None,
    backend: str = "auto",
    inplace_backward: bool = False,
) -> Tensor:
    """Class-balanced softmax cross-entropy: ``w_y * -log softmax(z)_y``.

    Args:
        input: logits, (N, C) or (N, C, d1, ...).
        target: class indices, or class probabilities of ``input``'s shape.
        weight: one weight a class, (C), or None.
        reduction: "none" | "mean" | "sum".
        normalizer: what a mean divides by: "samples" | "weights".
        ignore_index: index targets of this value have loss 0 and are not counted.
        label_smoothing: epsilon in [0, 1).
        denominator: replaces the mean's divisor.
        backend: "auto" | "torch" | "fused".
        inplace_backward: let the fused path write the gradient over ``input``.

    Returns:
        The loss, natural logarithm: see the module's docstring.

    Raises:
        TypeError: logits that are not floating point, targets of an unfit dtype.
        ValueError: shapes that do not fit, unknown options, labels out of range, inputs that
            ``backend="fused"`` cannot take.

    Example:
        >>> logits, target = torch.zeros(2, 4), torch.tensor([0, 1])
        >>> class_balanced_cross_entropy(logits, target, torch.tensor([1.0, 3.0, 1.0, 1.0]))  # 2 log 4
        tensor(2.7726)

    Source: Cui et al. (CVPR 2019), section 4.1. ``torch.nn.functional.cross_entropy`` with index targets
    divides by the sum of the weights instead (``normalizer="weights"``).
    """
    b = check(input, target, weight, reduction, normalizer, ignore_index, label_smoothing, denominator)
    form = Form("softmax", 0.0, label_smoothing, ignore_index, b.valid is not None)
    return _run(_cross_entropy, b, form, reduction, normalizer, denominator, backend, inplace_backward)


def class_balanced_binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    normalizer: str = "samples",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    denominator: Tensor | float | None = None,
    backend: str = "auto",
    inplace_backward: bool = False,
) -> Tensor:
    """Class-balanced sigmoid cross-entropy, summed over the C one-vs-all outputs of a sample.

    ``w_y * sum_c softplus(m_c)`` with ``m_c = -z_c`` for the true class and ``z_c`` for the others; for a
    float target t, ``t_c softplus(-z_c) + (1 - t_c) softplus(z_c)``. Start the last layer's bias with
    :func:`longtail.init_prior_bias_`.

    Args:
        input: logits, (N, C) or (N, C, d1, ...).
        target: class indices, or multi-hot / soft labels of ``input``'s shape.
        weight: one weight a class, (C), or None; weighs all C terms of a sample.
        reduction: "none" | "mean" | "sum".
        normalizer: what a mean divides by: "samples" (never N * C) | "weights".
        ignore_index: index targets of this value have loss 0 and are not counted.
        label_smoothing: epsilon in [0, 1).
        denominator: replaces the mean's divisor.
        backend: "auto" | "torch" | "fused".
        inplace_backward: let the fused path write the gradient over ``input``.

    Returns:
        The loss, natural logarithm: see the module's docstring.

    Raises:
        TypeError: logits that are not floating point, targets of an unfit dtype.
        ValueError: shapes that do not fit, unknown options, labels out of range, inputs that
            ``backend="fused"`` cannot take.

    Example:
        >>> class_balanced_binary_cross_entropy(torch.zeros(1, 2), torch.tensor([0]))  # 2 log 2
        tensor(1.3863)

    Source: Cui et al. (CVPR 2019), section 4.2.
    """
    b = check(input, target, weight, reduction, normalizer, ignore_index, label_smoothing, denominator)
    form = Form("sigmoid", 0.0, label_smoothing, ignore_index, b.valid is not None)
    return _run(_sigmoid, b, form, reduction, normalizer, denominator, backend, inplace_backward)


def class_balanced_focal_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    gamma: float = 2.0,
    reduction: str = "mean",
    normalizer: str = "samples",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    denominator: Tensor | float | None = None,
    backend: str = "auto",
    inplace_backward: bool = False,
) -> Tensor:
    """Class-balanced focal loss, sigmoid form, summed over the C one-vs-all outputs of a sample.

    ``w_y * sum_c (1 - p_t)^gamma * -log p_t`` with p_t the probability that output c gives its right
    answer. For soft labels ``p_t = p t + (1 - p)(1 - t)``. The weight applies after p_t is taken.

    Args:
        input: logits, (N, C) or (N, C, d1, ...).
        target: class indices, or multi-hot / soft labels of ``input``'s shape.
        weight: one weight a class, (C), or None; weighs all C terms of a sample.
        gamma: >= 0; 0 is the sigmoid cross-entropy.
        reduction: "none" | "mean" | "sum".
        normalizer: what a mean divides by: "samples" (never N * C) | "weights".
        ignore_index: index targets of this value have loss 0 and are not counted.
        label_smoothing: epsilon in [0, 1).
        denominator: replaces the mean's divisor.
        backend: "auto" | "torch" | "fused".
        inplace_backward: let the fused path write the gradient over ``input``.

    Returns:
        The loss, natural logarithm: see the module's docstring.

    Raises:
        TypeError: logits that are not floating point, targets of an unfit dtype.
        ValueError: ``gamma`` < 0, shapes that do not fit, unknown options, labels out of range, inputs that
            ``backend="fused"`` cannot take.

    Example:
        >>> class_balanced_focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=1.0)  # log 2
        tensor(0.6931)

    Source: Cui et al. (CVPR 2019), section 4.3; Lin et al. (ICCV 2017). The official code's modulator,
    ``exp(-gamma y z - gamma log(1 + exp(-z)))``, overflows for z <= -89 in float32; this one does not.
    """
    b = check(input, target, weight, reduction, normalizer, ignore_index, label_smoothing, denominator)
    form = Form("sigmoid", check_gamma(gamma), label_smoothing, ignore_index, b.valid is not None)
    return _run(_sigmoid, b, form, reduction, normalizer, denominator, backend, inplace_backward)


def class_balanced_softmax_focal_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    gamma: float = 2.0,
    reduction: str = "mean",
    normalizer: str = "samples",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    denominator: Tensor | float | None = None,
    backend: str = "auto",
    inplace_backward: bool = False,
) -> Tensor:
    """Class-balanced focal loss over a softmax: ``w_y * (1 - p_y)^gamma * -log p_y``.

    For a float target t, ``sum_c t_c w_c (1 - p_c)^gamma * -log p_c``.

    Args:
        input: logits, (N, C) or (N, C, d1, ...).
        target: class indices, or class probabilities of ``input``'s shape.
        weight: one weight a class, (C), or None.
        gamma: >= 0; 0 is the softmax cross-entropy.
        reduction: "none" | "mean" | "sum".
        normalizer: what a mean divides by: "samples" | "weights".
        ignore_index: index targets of this value have loss 0 and are not counted.
        label_smoothing: epsilon in [0, 1).
        denominator: replaces the mean's divisor.
        backend: "auto" | "torch" | "fused".
        inplace_backward: let the fused path write the gradient over ``input``.

    Returns:
        The loss, natural logarithm: see the module's docstring.

    Raises:
        TypeError: logits that are not floating point, targets of an unfit dtype.
        ValueError: ``gamma`` < 0, shapes that do not fit, unknown options, labels out of range, inputs that
            ``backend="fused"`` cannot take.

    Example:
        >>> class_balanced_softmax_focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=1.0)  # log(2) / 2
        tensor(0.3466)

    Source: the multi-class form of Lin et al. (ICCV 2017); not in Cui et al., whose focal loss is sigmoid.
    """
    b = check(input, target, weight, reduction, normalizer, ignore_index, label_smoothing, denominator)
    form = Form("softmax", check_gamma(gamma), label_smoothing, ignore_index, b.valid is not None)
    return _run(_softmax_focal, b, form, reduction, normalizer, denominator, backend, inplace_backward)


def class_balanced_callable(
    loss: Callable[[Tensor, Tensor], Tensor],
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    normalizer: str = "samples",
    ignore_index: int = -100,
    denominator: Tensor | float | None = None,
) -> Tensor:
    """Balance any per-sample loss: ``w_y * loss(input, target)``.

    Args:
        loss: takes ``input`` and ``target`` (ignored indices replaced by 0) and returns one value a sample,
            (N) or (N, d1, ...).
        input: what ``loss`` takes, (N, C) or (N, C, d1, ...).
        target: class indices, or float labels of ``input``'s shape.
        weight: one weight a class, (C), or None.
        reduction: "none" | "mean" | "sum".
        normalizer: what a mean divides by: "samples" | "weights".
        ignore_index: index targets of this value have loss 0 and are not counted.
        denominator: replaces the mean's divisor.

    Returns:
        The loss: see the module's docstring.

    Raises:
        TypeError: ``loss`` does not return a tensor.
        ValueError: ``loss`` returns another shape than one value a sample.

    Example:
        >>> def error(input, target):
        ...     return (input.argmax(1) != target).float()
        >>> class_balanced_callable(error, torch.eye(2), torch.tensor([0, 0]), torch.tensor([4.0, 1.0]))
        tensor(2.)

    Source: Cui et al. (CVPR 2019), equation 12: the term multiplies any loss.
    """
    b = check(input, target, weight, reduction, normalizer, ignore_index, 0.0, denominator)
    try:
        value = loss(input, target if b.index is None else b.safe_index())
        shape = input.select(1, 0).shape
        if not isinstance(value, Tensor):
            raise TypeError(f"loss must return a tensor, got {_checks.describe(value)}")
        if value.shape != shape:
            hint = (
                "return one value a sample (reduction='none')"
                if value.ndim == 0
                else "reduce over the classes, not the samples"
            )
            raise ValueError(f"loss must return shape {tuple(shape)}, got {tuple(value.shape)}; {hint}")
        value = value if value.dtype == torch.float64 else value.float()
        return _weigh_and_reduce(b, value, reduction, normalizer, denominator)
    except (IndexError, RuntimeError) as error:
        explain(b.index, b.logits.shape[1], ignore_index, error)


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
    check_options("mean", normalizer)
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
        b = _Batch(soft, None, soft, weight, None)
        return divisor(soft.select(1, 0), b.sample_weight, None, normalizer)
    index = as_index(target)
    valid = index != ignore_index
    if normalizer == "samples" or weight is None:
        return divisor(index, lambda: None, valid, normalizer)
    b = _Batch(weight, index, None, weight, valid)
    try:
        return divisor(index, b.sample_weight, valid, normalizer)
    except (IndexError, RuntimeError) as error:
        explain(index, weight.shape[0], ignore_index, error)


@dataclass(slots=True)
class _Batch:
    """Checked arguments; one of ``index`` and ``soft`` is None.

    All but the logits, which a fused loss reads as they are, have the dtype of the computation.
    """

    logits: Tensor
    index: Tensor | None
    soft: Tensor | None
    weight: Tensor | None
    valid: Tensor | None

    def safe_index(self) -> Tensor:
        """Class indices, 0 where ignored."""
        assert self.index is not None
        return self.index if self.valid is None else self.index.masked_fill(~self.valid, 0)

    def one_hot(self) -> Tensor:
        hot = torch.zeros(self.logits.shape, dtype=torch.bool, device=self.logits.device)
        return hot.scatter(1, self.safe_index().unsqueeze(1), True)  # in place, vmap could not batch it

    def labels(self) -> Tensor:
        """The target as floats of the logits' shape."""
        return self.soft if self.soft is not None else self.one_hot().to(self.logits.dtype)

    def sample_weight(self) -> Tensor | None:
        if self.weight is None:
            return None
        if self.soft is not None:
            return _soft_weight(self.soft, self.weight)
        index = self.safe_index()
        return self.weight.index_select(0, index.reshape(-1)).reshape(index.shape)


def check(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    normalizer: str,
    ignore_index: int,
    label_smoothing: float,
    denominator: Tensor | float | None,
) -> _Batch:
    """Check the arguments that all losses share."""
    check_options(reduction, normalizer, denominator)
    if type(label_smoothing) is not float or not 0.0 <= label_smoothing < 1.0:
        _checks.number(
            "label_smoothing", label_smoothing, low=0.0, high=1.0, open_high=True, remedy=SMOOTHING
        )
    if type(ignore_index) is not int:
        _checks.integer("ignore_index", ignore_index, low=-(2**63))
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
    if dtype is not torch.float64:
        dtype = torch.float32
    if weight is not None:
        if not isinstance(weight, Tensor) or not weight.dtype.is_floating_point:
            raise TypeError(
                f"weight must be a floating-point tensor or None, got {_checks.describe(weight)}; "
                "use torch.as_tensor(weight, dtype=torch.float32)"
            )
        if weight.shape != shape[1:2]:
            raise ValueError(
                f"weight must have one entry for each of input's {shape[1]} classes (dimension 1), "
                f"got shape {tuple(weight.shape)} for input of shape {tuple(shape)}; "
                "count as many classes as the model has outputs"
            )
        if weight.device != device:
            raise ValueError(f"weight is on {weight.device} but input on {device}; move the loss with .to()")
        if weight.dtype is not dtype:
            weight = weight.to(dtype)
    if target.dtype.is_floating_point:
        if target_shape != shape:
            raise ValueError(
                f"target is {target.dtype} of shape {tuple(target_shape)}, but must have input's "
                f"shape {tuple(shape)}; class indices must be integers, target.long()"
            )
        _check_probabilities(target)
        return _Batch(input, None, target if target.dtype is dtype else target.to(dtype), weight, None)
    index = target if target.dtype is torch.int64 else as_index(target)
    if target_shape != shape[:1] + shape[2:]:
        hint = "; one-hot and multi-hot targets must be floating point, target.float()"
        raise ValueError(
            f"target must have shape {tuple(shape[:1] + shape[2:])} for input of shape {tuple(shape)}, "
            f"got {tuple(target_shape)}{hint if target_shape == shape else ''}"
        )
    return _Batch(input, index, None, weight, valid_labels(index, ignore_index))


def valid_labels(index: Tensor, ignore_index: int) -> Tensor | None:
    """Return which labels count, or None where all do.

    On the CPU one look at the smallest label saves the masks; a GPU would have to stop for it.
    """
    if ignore_index < 0 and type(index) is Tensor and index.is_cpu and not torch.compiler.is_compiling():
        try:
            if index.numel() and int(index.min()) >= 0:
                return None
        except RuntimeError:  # torch.func.vmap has no single smallest label
            pass
    return index != ignore_index


def _plain_mean(b: _Batch) -> bool:
    """Whether torch's weighted mean is ours: nothing is ignored, and no weight of 0 makes it 0 / 0."""
    try:
        return b.valid is None and b.weight is not None and float(b.weight.min()) > 0.0
    except RuntimeError:  # torch.func.vmap has no single smallest weight
        return False


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


def check_gamma(gamma: float) -> float:
    """Return gamma as a float >= 0."""
    return (
        gamma
        if type(gamma) is float and 0.0 <= gamma < torch.inf
        else _checks.number("gamma", gamma, low=0.0, open_high=True, remedy=GAMMA)
    )


def _run(
    plain: Callable[..., Tensor],
    b: _Batch,
    form: Form,
    reduction: str,
    normalizer: str,
    denominator: Tensor | float | None,
    backend: str,
    inplace_backward: bool,
) -> Tensor:
    """Compute a checked loss by the backend asked for."""
    try:
        wanted = fused.worthwhile(b.logits, form) if backend == "auto" else backend != "torch"
        if wanted and _fusible(b, form, denominator, backend):
            return _run_fused(plain, b, form, reduction, normalizer, denominator, inplace_backward)
        b.logits = _upcast(b.logits)
        return plain(b, form, reduction, normalizer, denominator)
    except (IndexError, RuntimeError) as error:
        explain(b.index, b.logits.shape[1], form.ignore_index, error)


def _upcast(logits: Tensor) -> Tensor:
    return logits if logits.dtype is torch.float32 or logits.dtype is torch.float64 else logits.float()


def _fusible(b: _Batch, form: Form, denominator: Tensor | float | None, backend: str) -> bool:
    fused.check_backend(backend)
    reason = fused.reason_against(b.logits, b.index is None, b.weight, denominator, form)
    if reason and backend == "fused":
        raise ValueError(f"backend='fused' cannot take this input: {reason}; pass backend='auto'")
    return not reason


def _run_fused(
    plain: Callable[..., Tensor],
    b: _Batch,
    form: Form,
    reduction: str,
    normalizer: str,
    denominator: Tensor | float | None,
    inplace_backward: bool,
) -> Tensor:
    assert b.index is not None
    divisor: Tensor | float = 1.0
    if reduction == "mean":
        divisor = mean_divisor(b.index, b.sample_weight, b.valid, normalizer, denominator)
    dtype = torch.float64 if b.logits.dtype is torch.float64 else torch.float32
    if isinstance(divisor, Tensor):
        factor = divisor.to(dtype).reciprocal()
    else:
        factor = torch.full((), 1.0 / divisor, device=b.logits.device, dtype=dtype)

    def formula(logits: Tensor) -> Tensor:
        return plain(replace(b, logits=_upcast(logits)), form, reduction, normalizer, denominator)

    return fused.losses(
        b.logits,
        b.index,
        b.weight,
        factor,
        form,
        total=reduction != "none",
        inplace=inplace_backward,
        plain=formula,
    )


def _cross_entropy(
    b: _Batch,
    form: Form,
    reduction: str,
    normalizer: str,
    denominator: Tensor | float | None,
) -> Tensor:
    if b.index is None:
        loss = _weighted_sum(b, -F.log_softmax(b.logits, dim=1), form.smoothing)
        return _reduce_valid(b, loss, reduction, normalizer, denominator)
    if form.smoothing == 0.0:
        # torch's kernel weighs and sums on the way, and dividing C weights instead of the loss keeps
        # the division out of the graph: the same values in half the time for small batches
        weight, partial = b.weight, "none" if reduction == "none" else "sum"
        if reduction == "mean" and normalizer == "weights" and denominator is None and _plain_mean(b):
            partial = "mean"
        elif reduction == "mean":
            weight = b.logits.new_ones(b.logits.shape[1]) if weight is None else weight
            weight = weight / mean_divisor(b.index, b.sample_weight, b.valid, normalizer, denominator)
        return F.cross_entropy(b.logits, b.index, weight, None, form.ignore_index, None, partial)
    loss = F.cross_entropy(
        b.logits, b.index, reduction="none", ignore_index=form.ignore_index, label_smoothing=form.smoothing
    )
    return _weigh_and_reduce(b, loss, reduction, normalizer, denominator)


def _focal(margin: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma * -log p for p = sigmoid(-margin)."""
    loss = -F.logsigmoid(-margin)
    # log(1 - p) is margin - loss, too, and cheaper so, but then 1e4 - 1e4 cancels in the gradient
    return loss if gamma == 0.0 else torch.exp(gamma * F.logsigmoid(margin)) * loss


def _log_odds_against(one: Tensor, x: Tensor, of_one: Tensor) -> Tensor:
    """Log of (1 - p) / p for one class, (N, 1, d1, ...); hugely negative where it has no rival."""
    rivals = x.masked_fill(one, torch.finfo(x.dtype).min)  # finite: logsumexp has no gradient at -inf
    largest = rivals.amax(dim=1, keepdim=True).detach()  # taken out, or logsumexp rounds at its magnitude
    return (rivals - largest).logsumexp(dim=1, keepdim=True) - (of_one - largest)


def _sigmoid(b: _Batch, form: Form, *reducing: Any) -> Tensor:
    gamma, label_smoothing = form.gamma, form.smoothing
    if b.index is not None and label_smoothing == 0.0:
        elements = _focal(torch.where(b.one_hot(), -b.logits, b.logits), gamma)
    else:
        t = b.labels()
        t = t if label_smoothing == 0.0 else (1.0 - label_smoothing) * t + label_smoothing / t.shape[1]
        absent, present = F.logsigmoid(-b.logits), F.logsigmoid(b.logits)  # log(1 - p), log p
        elements = -(t * present + (1.0 - t) * absent)
        if gamma != 0.0:  # 1 - p_t, with p_t = p t + (1 - p)(1 - t); below the clamp the loss is 0 anyway
            miss = torch.sigmoid(b.logits) * (1.0 - t) + torch.sigmoid(-b.logits) * t
            miss = miss.clamp(min=torch.finfo(t.dtype).tiny ** 0.5)
            elements = torch.exp(gamma * torch.log(miss)) * elements
    return _weigh_and_reduce(b, elements.sum(dim=1), *reducing)


def _softmax_focal(b: _Batch, form: Form, *reducing: Any) -> Tensor:
    if b.index is not None and form.smoothing == 0.0:
        true = b.logits.gather(1, b.safe_index().unsqueeze(1))
        margin = _log_odds_against(b.one_hot(), b.logits, true)
        return _weigh_and_reduce(b, _focal(margin, form.gamma).squeeze(1), *reducing)
    loss = _weighted_sum(b, _softmax_focal_per_class(b.logits, form.gamma), form.smoothing)
    return _reduce_valid(b, loss, *reducing)


def _softmax_focal_per_class(x: Tensor, gamma: float) -> Tensor:
    """(1 - p_c)^gamma * -log p_c for every class.

    Only the largest probability can round to 1, where 1 - p cancels: for that class alone the odds
    against it are summed from the other classes; for the rest p <= 1/2 and 1 - p is exact.
    """
    top = x.argmax(dim=1, keepdim=True)
    is_top = torch.zeros_like(x, dtype=torch.bool).scatter(1, top, True)
    margin = _log_odds_against(is_top, x, x.gather(1, top))
    log_p = F.log_softmax(x, dim=1).masked_fill(is_top, -1.0)
    rest = -log_p if gamma == 0.0 else torch.exp(gamma * torch.log1p(-torch.exp(log_p))) * -log_p
    return torch.where(is_top, _focal(margin, gamma), rest)


def _weighted_sum(b: _Batch, per_class: Tensor, label_smoothing: float) -> Tensor:
    """Sum of target * weight * loss over classes; smoothing's uniform part takes the sample's weight."""
    t = b.labels()
    w = None if b.weight is None else b.weight.reshape(-1, *[1] * (t.ndim - 2))
    loss = (per_class * t if w is None else per_class * t * w).sum(dim=1)
    if label_smoothing == 0.0:
        return loss
    uniform = per_class.mean(dim=1)
    weights = b.sample_weight()
    uniform = uniform if weights is None else uniform * weights
    return (1.0 - label_smoothing) * loss + label_smoothing * uniform


def _soft_weight(target: Tensor, weight: Tensor) -> Tensor:
    w = weight.reshape(-1, *[1] * (target.ndim - 2)).to(target.dtype)
    mass = target.sum(dim=1)
    positive = mass > 0
    mean = (target * w).sum(dim=1) / torch.where(positive, mass, torch.ones_like(mass))
    return torch.where(positive, mean, torch.ones_like(mean))


def _weigh_and_reduce(
    b: _Batch, loss: Tensor, reduction: str, normalizer: str, denominator: Tensor | float | None
) -> Tensor:
    weights = b.sample_weight()
    loss = loss if weights is None else loss * weights
    loss = loss if b.valid is None else loss.masked_fill(~b.valid, 0.0)
    return reduce(loss, lambda: weights, b.valid, reduction, normalizer, denominator)


def _reduce_valid(
    b: _Batch, loss: Tensor, reduction: str, normalizer: str, denominator: Tensor | float | None
) -> Tensor:
    loss = loss if b.valid is None else loss.masked_fill(~b.valid, 0.0)
    return reduce(loss, b.sample_weight, b.valid, reduction, normalizer, denominator)


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
                f"({bad.numel()} such); count the model's outputs"
            ) from None
    raise error
