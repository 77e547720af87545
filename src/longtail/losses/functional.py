"""Class-balanced losses as functions: check, elementwise, weigh, reduce.

Shared arguments, told once:

``input``
    logits, floating point, (N, C) or (N, C, d1, ...). Half precision is computed in float32. One output,
    (N), (N, 1) or (N, 1, d1, ...), is binary, the log-odds of label 1: then weight and offset have two
    entries, those of the labels 0 and 1, the target holds 0 and 1 (any dtype, of input's shape or without its
    dimension of 1) or shares between them, the offset's difference is added, and the softmax losses are the
    sigmoid ones.
``target``
    class indices, any integer dtype, (N) or (N, d1, ...), in 0..C-1 or ``ignore_index``; or floating
    point of ``input``'s shape: soft labels, or multi-hot for the sigmoid losses, in [0, 1]. Labels of a
    sigmoid loss that are NaN or ``ignore_index`` leave their output out; a sample without any is ignored.
``weight``
    one weight a class, (C), from :func:`longtail.class_weights`; None for 1 each. A sample weighs as its
    class; with a float target as the target-weighted mean of its classes' weights (what the labels lack to a
    sum of 1 weighs 1), except that the softmax losses weigh inside the sum over classes, as torch does, and
    so does one output. Index and one-hot targets agree.
``weighting``
    how the sigmoid losses weigh: "sample" as above (the paper's); "class": each output's terms by the weight
    of its class; "positive": each output's positive term alone (torch's ``pos_weight``, for
    :func:`longtail.positive_weights`).
``sample_weight``
    one number a sample, >= 0, (N) or (N, d1, ...). It multiplies the loss; in a mean a sample of weight 2
    counts as two samples, one of weight 0 as none.
``offset``
    one number a class, (C), added to the logits: with the log of the classes' shares the softmax losses are
    balanced softmax, or logit-adjusted (Menon et al., ICLR 2021; Ren et al., NeurIPS 2020). It belongs to the
    training alone: a network that was trained with it decides by its bare logits. Functions have no mode, so
    leave it out of a validation loss. Label smoothing that outweighs it is refused on the CPU
    (:func:`longtail.losses.forms.smoothing_limit`).
``label_smoothing``
    epsilon in [0, 1): the target becomes (1 - epsilon) * target + epsilon / C; where each output is a label
    of its own, in float targets of the sigmoid losses and with one output, + epsilon / 2. The sample's class
    weight stays that of the unsmoothed target (torch weighs the smoothed classes by their own).
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

All functions return per-sample losses of shape (N) or (N, d1, ...) for ``reduction="none"`` (of the target's
shape with one output), the sigmoid losses' terms in the logits' shape for "elements", and a 0-d tensor
otherwise, in float32, or float64 for float64 logits. All raise TypeError for dtypes and ValueError
for shapes, options and, on the CPU outside ``torch.compile``, labels out of range; on CUDA such labels
trip torch's device-side assertion, since checking them first would stall the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from longtail import _checks
from longtail.losses import sigmoid, softmax
from longtail.losses.batch import Batch, check, check_gamma, check_offset, check_values, explain, upcast
from longtail.losses.batch import count as count
from longtail.losses.fast import Setting, fused
from longtail.losses.forms import (
    ASYMMETRIC,
    DISTRIBUTION_BALANCED,
    FOCAL,
    SIGMOID,
    SOFTMAX,
    SOFTMAX_FOCAL,
    Form,
)
from longtail.losses.reduction import NORMALIZERS, Reduction

_SHORT = softmax.ShortWay()


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
    sample_weight: Tensor | None = None,
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
        sample_weight: one number a sample, or None.

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
    if (
        reduction == "mean"
        and denominator is None
        and sample_weight is None
        and type(label_smoothing) is float
        and label_smoothing == 0.0
        and backend in ("auto", "torch")
        and normalizer in NORMALIZERS
    ):
        loss = _SHORT.mean(input, target, weight, offset, normalizer, ignore_index)
        if loss is not None:
            return loss
    options = reduction, normalizer, ignore_index, label_smoothing, denominator, backend, inplace_backward
    _checked("weight", weight)
    return class_balanced(
        SOFTMAX, softmax.cross_entropy, None, input, target, weight, *options, offset, sample_weight, "sample"
    )


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
    sample_weight: Tensor | None = None,
    weighting: str = "sample",
) -> Tensor:
    """Class-balanced sigmoid cross-entropy, summed over the C one-vs-all outputs of a sample.

    ``w_y * sum_c softplus(m_c)`` with ``m_c = -z_c`` for the true class and ``z_c`` for the others; for a
    float target t, ``t_c softplus(-z_c) + (1 - t_c) softplus(z_c)``. Start the last layer's bias with
    :func:`longtail.init_prior_bias_`.

    Args:
        input: logits, (N, C) or (N, C, d1, ...).
        target: class indices, or multi-hot / soft labels of ``input``'s shape.
        weight: one weight a class, (C), or None; weighs all C terms of a sample.
        reduction: "none" | "elements" | "mean" | "sum".
        normalizer: what a mean divides by: "samples" (never N * C) | "weights".
        ignore_index: index targets of this value have loss 0 and are not counted.
        label_smoothing: epsilon in [0, 1).
        offset: added to each output's logit (its log-odds), (C), or None.
        denominator: replaces the mean's divisor.
        backend: "auto" | "torch" | "fused".
        inplace_backward: let the fused path write the gradient over ``input``.
        sample_weight: one number a sample, or None.
        weighting: "sample" | "class" | "positive".

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
    _checked("weight", weight)
    return class_balanced(
        SIGMOID,
        sigmoid.cross_entropy,
        None,
        input,
        target,
        weight,
        *options,
        offset,
        sample_weight,
        weighting,
    )


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
    sample_weight: Tensor | None = None,
    weighting: str = "sample",
) -> Tensor:
    """Class-balanced focal loss, sigmoid form, summed over the C one-vs-all outputs of a sample.

    ``w_y * sum_c (1 - p_t)^gamma * -log p_t`` with p_t the probability that output c gives its right
    answer. For soft labels ``p_t = p t + (1 - p)(1 - t)``. The weight applies after p_t is taken.

    Args:
        input: logits, (N, C) or (N, C, d1, ...).
        target: class indices, or multi-hot / soft labels of ``input``'s shape.
        weight: one weight a class, (C), or None; weighs all C terms of a sample.
        gamma: >= 0; 0 is the sigmoid cross-entropy.
        reduction: "none" | "elements" | "mean" | "sum".
        normalizer: what a mean divides by: "samples" (never N * C) | "weights".
        ignore_index: index targets of this value have loss 0 and are not counted.
        label_smoothing: epsilon in [0, 1).
        offset: added to each output's logit (its log-odds), (C), or None.
        denominator: replaces the mean's divisor.
        backend: "auto" | "torch" | "fused".
        inplace_backward: let the fused path write the gradient over ``input``.
        sample_weight: one number a sample, or None.
        weighting: "sample" | "class" | "positive".

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
    _checked("weight", weight)
    return class_balanced(
        FOCAL, sigmoid.focal, gamma, input, target, weight, *options, offset, sample_weight, weighting
    )


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
    sample_weight: Tensor | None = None,
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
        sample_weight: one number a sample, or None.

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
    _checked("weight", weight)
    return class_balanced(
        SOFTMAX_FOCAL, softmax.focal, gamma, input, target, weight, *options, offset, sample_weight, "sample"
    )


def class_balanced_asymmetric_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    gamma_neg: float = 4.0,
    gamma_pos: float = 1.0,
    clip: float = 0.05,
    reduction: str = "mean",
    normalizer: str = "samples",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    offset: Tensor | None = None,
    denominator: Tensor | float | None = None,
    sample_weight: Tensor | None = None,
    weighting: str = "sample",
) -> Tensor:
    """Asymmetric loss for many labels, summed over the C outputs of a sample.

    A positive costs ``(1 - p)^gamma_pos * -log p``, a negative ``q^gamma_neg * -log(1 - q)`` with
    ``q = max(p - clip, 0)``: easy negatives, of which rare labels have most, cost nothing.

    Args:
        input: logits, (N, C) or (N, C, d1, ...).
        target: class indices, or multi-hot / soft labels of ``input``'s shape.
        weight: one weight a class, (C), or None.
        gamma_neg: exponent of the negatives, >= 0.
        gamma_pos: exponent of the positives, >= 0.
        clip: probability below which a negative costs nothing, in [0, 1).
        reduction: "none" | "elements" | "mean" | "sum".
        normalizer: what a mean divides by: "samples" (never N * C) | "weights".
        ignore_index: targets of this value are left out.
        label_smoothing: epsilon in [0, 1).
        offset: added to each output's logit, (C), or None.
        denominator: replaces the mean's divisor.
        sample_weight: one number a sample, or None.
        weighting: "sample" | "class" | "positive".

    Returns:
        The loss, natural logarithm: see the module's docstring.

    Raises:
        TypeError: as :func:`class_balanced_binary_cross_entropy`.
        ValueError: likewise, and a setting out of range.

    Example:
        >>> class_balanced_asymmetric_loss(torch.zeros(1, 1), torch.ones(1, 1))  # log(2) / 2
        tensor(0.3466)

    Source: Ridnik et al. (ICCV 2021), "Asymmetric Loss For Multi-Label Classification", equations 4 to 7.
    """
    settings: dict[str, Any] = check_settings(
        ASYMMETRIC, {"gamma_neg": gamma_neg, "gamma_pos": gamma_pos, "clip": clip}
    )
    formula = partial(sigmoid.asymmetric, **settings)
    options = reduction, normalizer, ignore_index, label_smoothing, denominator, "torch", False
    _checked("weight", weight)
    rest = offset, sample_weight, weighting
    return class_balanced(ASYMMETRIC, formula, None, input, target, weight, *options, *rest)


def class_balanced_distribution_balanced_loss(
    input: Tensor,
    target: Tensor,
    class_counts: Tensor,
    num_samples: float,
    *,
    gamma: float = 2.0,
    map_alpha: float = 0.1,
    map_beta: float = 10.0,
    map_mu: float = 0.2,
    neg_scale: float = 2.0,
    init_bias: float = 0.05,
    focal_balance: float = 2.0,
    reduction: str = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    denominator: Tensor | float | None = None,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Distribution-balanced loss for many labels, summed over the C outputs of a sample.

    A sigmoid (focal) loss whose terms weigh ``map_alpha + sigmoid(map_beta * (r - map_mu))``, r being 1 / n_c
    over the sum of 1 / n of the sample's labels; negatives see ``neg_scale`` times the logit and weigh one
    ``neg_scale``-th; all logits are shifted by the labels' prior.

    Args:
        input: logits, (N, C) or (N, C, d1, ...).
        target: class indices, or multi-hot / soft labels of ``input``'s shape.
        class_counts: how many training samples have each label, (C), floating point, on input's device.
        num_samples: number of training samples.
        gamma: exponent of the focal modulator, >= 0; at 0 there is no ``focal_balance`` either.
        map_alpha: least weight of a term.
        map_beta: how sharply the weight rises with r.
        map_mu: r of the middle of the rise.
        neg_scale: lambda, > 0.
        init_bias: kappa, the part of the prior's log-odds that shifts the logits.
        focal_balance: factor of the focal loss.
        reduction: "none" | "elements" | "mean" | "sum".
        ignore_index: targets of this value are left out.
        label_smoothing: epsilon in [0, 1).
        denominator: replaces the mean's divisor.
        sample_weight: one number a sample, or None.

    Returns:
        The loss, natural logarithm: see the module's docstring.

    Raises:
        TypeError: as :func:`class_balanced_binary_cross_entropy`.
        ValueError: likewise, and a setting out of range.

    Example:
        >>> counts, target = torch.tensor([10.0, 90.0]), torch.tensor([[1.0, 0.0]])
        >>> class_balanced_distribution_balanced_loss(torch.zeros(1, 2), target, counts, 100)
        tensor(0.5001)

    Source: Wu et al. (ECCV 2020), "Distribution-Balanced Loss for Multi-Label Classification in Long-Tailed
    Datasets", equations 4 to 9, with the focal term of its code.
    """
    given = {"map_alpha": map_alpha, "map_beta": map_beta, "map_mu": map_mu, "neg_scale": neg_scale}
    settings: dict[str, Any] = check_settings(
        DISTRIBUTION_BALANCED, given | {"init_bias": init_bias, "focal_balance": focal_balance}
    )
    _checked("class_counts", class_counts)
    _checks.number("num_samples", num_samples, low=1.0, remedy="it is the number of training samples")
    formula = partial(
        sigmoid.distribution_balanced, counts=class_counts, num_samples=float(num_samples), **settings
    )
    options = reduction, "samples", ignore_index, label_smoothing, denominator, "torch", False
    if not isinstance(class_counts, Tensor) or class_counts.shape != input.shape[1:2]:
        raise ValueError(
            f"class_counts must be a tensor with one entry for each of input's {input.shape[1:2].numel()} "
            f"outputs, got {_checks.describe(class_counts)}; count each label's samples"
        )
    rest = None, sample_weight, "sample"
    return class_balanced(DISTRIBUTION_BALANCED, formula, gamma, input, target, None, *options, *rest)


def check_settings(form: Form, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a form's own settings, with its defaults, each within its range."""
    settings: dict[str, float] = {**form.settings, **given}
    for name, value in settings.items():
        _checks.choice(f"a setting of loss {form.name!r}", name, form.settings)
        open_low = name == "neg_scale"
        high = 1.0 if name == "clip" else math.inf
        settings[name] = _checks.number(
            name,
            value,
            low=0.0,
            high=high,
            open_low=open_low,
            open_high=True,
            remedy=f"{form.settings[name]:g} is usual",
        )
    return settings


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
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Balance any per-sample loss: ``w_y * loss(input, target)``.

    Args:
        loss: takes ``input`` and ``target`` (ignored indices replaced by 0; floats of ``input``'s shape where
            there is one output) and returns one value a sample, (N) or (N, d1, ...).
        input: what ``loss`` takes, (N, C) or (N, C, d1, ...).
        target: class indices, or float labels of ``input``'s shape.
        weight: one weight a class, (C), or None.
        reduction: "none" | "mean" | "sum".
        normalizer: what a mean divides by: "samples" | "weights".
        ignore_index: index targets of this value have loss 0 and are not counted.
        denominator: replaces the mean's divisor.
        sample_weight: one number a sample, or None.

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
    if reduction == "elements":
        raise ValueError("reduction='elements' needs a named sigmoid loss; pass reduction='none'")
    batch = check(input, target, weight, ignore_index, sample_weight=sample_weight)
    shape = batch.logits.shape[:1] + batch.logits.shape[2:]
    try:
        if batch.soft is not None and batch.logits.shape[1] == 1:
            value = loss(input, batch.soft.reshape(input.shape))
            if isinstance(value, Tensor) and value.shape == input.shape:
                value = value.reshape(shape)
        else:
            value = loss(input, target if batch.index is None else batch.safe_index())
        _check_answer(value, shape)
        each = batch.mask(batch.weigh(upcast(value)))
        answer = how.reduce(each, batch.sample_weight, batch.valid, batch.counted())
        return answer.reshape(target.shape) if how.kind == "none" and batch.logits.shape[1] == 1 else answer
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
    sample_weight: Tensor | None = None,
    weighting: str = "sample",
    towards: Tensor | None = None,
) -> Tensor:
    """Check, then compute a loss of any form by the backend asked for."""
    how = Reduction(reduction, normalizer, denominator)
    how.check()
    batch = check(
        *(input, target, weight, ignore_index, label_smoothing, offset),
        sample_weight=sample_weight,
        weighting=weighting,
        apart=reduction == "elements",
        activation=form.activation,
    )
    one = batch.logits.shape[1] == 1
    if towards is not None and label_smoothing:
        batch.towards = towards.to(torch.float64 if input.dtype is torch.float64 else torch.float32)
    elif offset is not None:
        check_offset(offset, "softmax" if batch.binary else form.activation, label_smoothing)
    power = check_gamma(gamma) if form.takes_gamma and gamma is not None else None
    try:
        if backend != "torch":
            setting = _setting(form, power, batch)
            if backend != "auto" or (form.fused and not one and fused.worthwhile(input, setting)):
                fused.check_backend(backend)
                reason = _reason_against(batch, denominator, setting)
                if reason is None:
                    return _fused(formula, power, batch, how, setting, inplace_backward)
                if backend == "fused":
                    raise ValueError(f"backend='fused' cannot take this input: {reason}; pass backend='auto'")
        batch.logits = batch.shift(batch.logits)
        if one and form.activation == "softmax":
            if formula not in (softmax.cross_entropy, softmax.focal):
                raise ValueError(f"loss {form.name!r} needs two outputs for two classes; give the model two")
            formula = sigmoid.cross_entropy if power is None else sigmoid.focal
        loss = plain(formula, power, batch, how)
    except (IndexError, RuntimeError) as error:
        explain(batch.index, batch.logits.shape[1], ignore_index, error)
    if one and loss.ndim:
        return loss.reshape(input.shape if how.kind == "elements" else target.shape)
    return loss


def plain(formula: Callable[..., Tensor], gamma: float | None, batch: Batch, how: Reduction) -> Tensor:
    """The loss in torch's operators: elements, weigh, reduce."""
    fast = batch.index is not None and batch.smoothing == 0.0 and batch.own is None
    if formula is softmax.cross_entropy and fast:
        return softmax.reduced_cross_entropy(batch, how)
    loss = formula(batch) if gamma is None else formula(batch, gamma)
    return how.reduce(batch.mask(loss), batch.sample_weight, batch.valid, batch.counted())


def _checked(name: str, weight: Tensor | None) -> None:
    if isinstance(weight, Tensor):
        check_values(name, weight)


def _reason_against(batch: Batch, denominator: object, setting: Setting) -> str | None:
    if batch.logits.shape[1] == 1:
        return "it takes one output a class"
    if batch.apart or batch.weighting != "sample":
        return "it keeps no terms apart, reduction='elements', and weighs samples alone, weighting='sample'"
    if batch.towards is not None:
        return "it smooths evenly, not towards a prior"
    if batch.own is not None and batch.own.requires_grad:
        return "it has no gradient for sample_weight"
    vectors = batch.weight, denominator, setting, batch.offset
    return fused.reason_against(batch.logits, batch.index is None, *vectors)


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
        divisor = how.divisor(batch.index, batch.sample_weight, batch.valid, batch.own)
    dtype = torch.float64 if batch.logits.dtype is torch.float64 else torch.float32
    if isinstance(divisor, Tensor):
        factor = divisor.to(dtype).reciprocal()
    else:
        factor = torch.full((), 1.0 / divisor, device=batch.logits.device, dtype=dtype)
    if batch.own is not None:
        factor = factor * batch.own

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


def _check_answer(value: object, shape: torch.Size) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"loss must return a tensor, got {_checks.describe(value)}")
    if value.shape != shape:
        hint = (
            "return one value a sample (reduction='none')"
            if value.ndim == 0
            else "reduce over the classes, not the samples"
        )
        raise ValueError(f"loss must return shape {tuple(shape)}, got {tuple(value.shape)}; {hint}")
