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
``offset``
    one number a class, (C), added to the logits: with the log of the classes' shares the softmax losses are
    balanced softmax, or logit-adjusted (Menon et al., ICLR 2021; Ren et al., NeurIPS 2020). It belongs to the
    training alone: a network that was trained with it decides by its bare logits. Functions have no mode, so
    leave it out of a validation loss. Label smoothing that outweighs it is refused on the CPU
    (:func:`longtail.losses.batch.smoothing_limit`).
``label_smoothing``
    epsilon in [0, 1): the target becomes (1 - epsilon) * target + epsilon / C. The sample's class weight
    stays that of the unsmoothed target (torch weighs the smoothed classes by their own).
``reduction``, ``normalizer``, ``denominator``
    see :mod:`longtail.losses.reduction`.
``backend``
    "torch" is the formula in torch's operators; "fused" (:mod:`longtail.losses.fast`) computes loss and
    gradient in one pass over the logits, for class indices, on the CPU and, with Triton, on CUDA devices;
    "auto" takes the fused path where it applies and was measured to pay (:mod:`longtail.losses.fast`). The
    values are the same up to rounding.
``inplace_backward``
    True saves the gradient's memory: the fused path writes it over ``input``, which must not be used after
    the loss nor be a leaf of the graph, and allows one backward pass. The plain path ignores it.

All functions return per-sample losses of shape (N) or (N, d1, ...) for ``reduction="none"`` and a 0-d
tensor otherwise, in float32, or float64 for float64 logits. All raise TypeError for dtypes and ValueError
for shapes, options and, on the CPU outside ``torch.compile``, labels out of range; on CUDA such labels
trip torch's device-side assertion, since checking them first would stall the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from longtail import _checks
from longtail.losses import sigmoid, softmax
from longtail.losses.batch import Batch, check, check_gamma, check_offset, explain, upcast
from longtail.losses.batch import count as count
from longtail.losses.fast import Setting, fused
from longtail.losses.forms import FOCAL, SIGMOID, SOFTMAX, SOFTMAX_FOCAL, Form
from longtail.losses.reduction import Reduction


def class_balanced_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    normalizer: str = "samples",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    offset: Tensor | None = None,
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
        offset: added to the logits, one a class, (C), or None.
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
    options = reduction, normalizer, ignore_index, label_smoothing, denominator, backend, inplace_backward
    return class_balanced(SOFTMAX, softmax.cross_entropy, None, input, target, weight, *options, offset)


def class_balanced_binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    normalizer: str = "samples",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    offset: Tensor | None = None,
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
        offset: added to each output's logit (its log-odds), (C), or None.
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
    options = reduction, normalizer, ignore_index, label_smoothing, denominator, backend, inplace_backward
    return class_balanced(SIGMOID, sigmoid.cross_entropy, None, input, target, weight, *options, offset)


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
    offset: Tensor | None = None,
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
        offset: added to each output's logit (its log-odds), (C), or None.
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
    options = reduction, normalizer, ignore_index, label_smoothing, denominator, backend, inplace_backward
    return class_balanced(FOCAL, sigmoid.focal, gamma, input, target, weight, *options, offset)


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
    offset: Tensor | None = None,
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
        offset: added to the logits, one a class, (C), or None.
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
    options = reduction, normalizer, ignore_index, label_smoothing, denominator, backend, inplace_backward
    return class_balanced(SOFTMAX_FOCAL, softmax.focal, gamma, input, target, weight, *options, offset)


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
    how = Reduction(reduction, normalizer, denominator)
    how.check()
    batch = check(input, target, weight, ignore_index)
    try:
        value = loss(input, target if batch.index is None else batch.safe_index())
        _check_answer(value, input.select(1, 0).shape)
        return how.reduce(batch.mask(batch.weigh(upcast(value))), batch.sample_weight, batch.valid)
    except (IndexError, RuntimeError) as error:
        explain(batch.index, input.shape[1], ignore_index, error)


def class_balanced(
    form: Form,
    formula: Callable[..., Tensor],
    gamma: float | None,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    normalizer: str,
    ignore_index: int,
    label_smoothing: float,
    denominator: Tensor | float | None,
    backend: str,
    inplace_backward: bool,
    offset: Tensor | None = None,
) -> Tensor:
    """Check, then compute a loss of any form by the backend asked for."""
    how = Reduction(reduction, normalizer, denominator)
    how.check()
    batch = check(input, target, weight, ignore_index, label_smoothing, offset)
    if offset is not None:
        check_offset(offset, form.activation, label_smoothing)
    power = check_gamma(gamma) if form.takes_gamma and gamma is not None else None
    try:
        if backend != "torch":
            setting = _setting(form, power, batch)
            if backend != "auto" or (form.fused and fused.worthwhile(input, setting)):
                fused.check_backend(backend)
                reason = fused.reason_against(
                    input, batch.index is None, batch.weight, denominator, setting, batch.offset
                )
                if reason is None:
                    return _fused(formula, power, batch, how, setting, inplace_backward)
                if backend == "fused":
                    raise ValueError(f"backend='fused' cannot take this input: {reason}; pass backend='auto'")
        batch.logits = batch.shift(input)
        return plain(formula, power, batch, how)
    except (IndexError, RuntimeError) as error:
        explain(batch.index, input.shape[1], ignore_index, error)


def plain(formula: Callable[..., Tensor], gamma: float | None, batch: Batch, how: Reduction) -> Tensor:
    """The loss in torch's operators: elements, weigh, reduce."""
    if formula is softmax.cross_entropy and batch.index is not None and batch.smoothing == 0.0:
        return softmax.reduced_cross_entropy(batch, how)
    loss = formula(batch) if gamma is None else formula(batch, gamma)
    return how.reduce(batch.mask(loss), batch.sample_weight, batch.valid)


def _setting(form: Form, gamma: float | None, batch: Batch) -> Setting:
    kind = form.activation if form.fused else form.name
    ignores = batch.valid is not None
    return Setting(kind, gamma or 0.0, batch.smoothing, batch.ignore_index, ignores, form.name)


def _fused(
    formula: Callable[..., Tensor],
    gamma: float | None,
    batch: Batch,
    how: Reduction,
    setting: Setting,
    inplace: bool,
) -> Tensor:
    assert batch.index is not None
    divisor: Tensor | float = 1.0
    if how.kind == "mean":
        divisor = how.divisor(batch.index, batch.sample_weight, batch.valid)
    dtype = torch.float64 if batch.logits.dtype is torch.float64 else torch.float32
    if isinstance(divisor, Tensor):
        factor = divisor.to(dtype).reciprocal()
    else:
        factor = torch.full((), 1.0 / divisor, device=batch.logits.device, dtype=dtype)

    def again(logits: Tensor) -> Tensor:
        return plain(formula, gamma, replace(batch, logits=batch.shift(logits)), how)

    return fused.losses(
        batch.logits,
        batch.index,
        batch.weight,
        factor,
        setting,
        offset=batch.offset,
        total=how.kind != "none",
        inplace=inplace,
        plain=again,
    )


def _check_answer(value: Any, shape: torch.Size) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"loss must return a tensor, got {_checks.describe(value)}")
    if value.shape != shape:
        hint = (
            "return one value a sample (reduction='none')"
            if value.ndim == 0
            else "reduce over the classes, not the samples"
        )
        raise ValueError(f"loss must return shape {tuple(shape)}, got {tuple(value.shape)}; {hint}")
