"""Loss and gradient in one pass over the logits, where the inputs qualify; the same values as the plain path.

A mean or a sum computes its gradient together with the loss, and backward hands it over, scaled by whatever
comes from above. Where the gradient cannot be known yet (``reduction="none"``) or would underflow before a
trainer's loss scale reaches it (float16), backward computes it instead, from the logits. Either way no other
tensor of the logits' size exists. On CUDA the passes are Triton kernels (``kernels.py``), on the CPU blocks
of torch's own operators (``blocks.py``).

Derivatives of the gradient (double backward) are taken through the plain path.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from longtail import _checks
from longtail.losses import fast
from longtail.losses.fast import Setting, blocks

BACKENDS = ("auto", "torch", "fused")
CUDA_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SMOOTH_FOCAL_TO = 1 << 14  # classes that stay in a program's registers three passes long
TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # the kernels run on the CPU, slowly: for tests


def reason_against(
    input: Tensor,
    soft: bool,
    weight: Tensor | None,
    denominator: object,
    form: Setting,
    offset: Tensor | None = None,
) -> str | None:
    """Say why these inputs cannot take the fused path, or None where they can."""
    if form.kind not in fast.KINDS:
        return f"it does not know the loss {form.name!r}"
    if soft:
        return "it takes class indices, not floating-point targets"
    if input.device.type not in ("cpu", "cuda"):
        return f"it runs on the CPU and on CUDA devices, not on {input.device.type}"
    if type(input) not in (Tensor, torch.nn.Parameter):
        return f"it takes plain tensors, not {type(input).__name__}"
    for name, other in (("weight", weight), ("offset", offset), ("denominator", denominator)):
        if isinstance(other, Tensor) and other.requires_grad:
            return f"it has no gradient for {name}"
    if not torch.compiler.is_compiling() and _transformed(input):
        return "it knows no torch.func transforms and no forward-mode derivatives"
    if input.is_cuda or INTERPRETED:
        if input.dtype not in CUDA_DTYPES:
            return f"on CUDA it computes float32, bfloat16 and float16, not {str(input.dtype)[6:]}"
        if not TRITON:
            return "on CUDA it needs triton (pip install triton)"
        smooth_focal = form.kind == "softmax" and form.gamma and form.smoothing
        if smooth_focal and input.shape[1] > SMOOTH_FOCAL_TO:
            return f"on CUDA it smooths the softmax focal loss of up to {SMOOTH_FOCAL_TO} classes"
    return None


def worthwhile(input: Tensor, form: Setting) -> bool:
    """Whether "auto" prefers the fused path for inputs that could take it."""
    if torch.compiler.is_compiling() or (INTERPRETED and input.is_cpu):
        return False  # torch.compile fuses the plain formula by itself
    gpu = gpu_name(input.device) if input.is_cuda else ""
    return fast.pays(form, input.numel(), input.ndim, input.device.type, gpu)


@functools.cache
def gpu_name(device: torch.device) -> str:
    """Return what kind of GPU a CUDA device is."""
    return torch.cuda.get_device_name(device)


def losses(
    input: Tensor,
    index: Tensor,
    weight: Tensor | None,
    factor: Tensor,
    form: Setting,
    *,
    offset: Tensor | None = None,
    total: bool,
    inplace: bool,
    plain: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return per-sample losses times ``factor``, or their total.

    Args:
        input: logits as the caller gave them, (N, C) or (N, C, d1, ...).
        index: int64 class indices, (N) or (N, d1, ...).
        weight: one weight a class in the dtype of the computation, or None.
        factor: 0-d, in that dtype.
        form: which loss.
        offset: one number a class in that dtype, added to the logits, or None.
        total: whether to sum.
        inplace: whether the gradient may overwrite ``input``.
        plain: the same loss by the plain path, for derivatives of the gradient.

    Raises:
        IndexError: on the CPU, an index out of range.
        ValueError: ``inplace`` for logits that are a leaf of the graph.
    """
    if torch.compiler.is_compiling():
        each: Tensor = per_sample(input, index, weight, factor, *form[:4], offset)
        return each.sum() if total else each
    if not (torch.is_grad_enabled() and input.requires_grad):
        each = compute(input.detach(), index, weight, factor, form, offset=offset, gradient=False)[0]
        return each.sum() if total else each
    if inplace and input.is_leaf:
        raise ValueError(
            "inplace_backward=True needs logits that a model computed, got a leaf of the graph"
            "; leave it out for tensors of your own"
        )
    tensors = input, index, weight, factor, offset
    loss: Tensor = _Fused.apply(*tensors, form, total, inplace, plain)  # type: ignore[no-untyped-call]
    return loss


class _Fused(torch.autograd.Function):
    """Eager only: it hands its gradient over without a copy, which a traced graph could not express."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        index: Tensor,
        weight: Tensor | None,
        factor: Tensor,
        offset: Tensor | None,
        form: Setting,
        total: bool,
        inplace: bool,
        plain: Callable[[Tensor], Tensor],
    ) -> Tensor:
        known = total and input.dtype is not torch.float16
        out = input.detach() if inplace and known else None
        tensors = index, weight, factor
        each, gradient = compute(input, *tensors, form, offset=offset, gradient=known, out=out)
        ctx.form, ctx.inplace, ctx.plain, ctx.gradient = form, inplace, plain, gradient
        if out is None:
            ctx.save_for_backward(input, *tensors, offset)
        else:
            ctx.save_for_backward(None, *tensors, offset)
            torch.autograd.graph.increment_version(input)  # whoever saved these logits shall notice
        if total:
            return each.sum()
        return each.clone() if each._is_view() else each  # a trainer may not scale a view in place

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        (upstream,) = upstreams
        input, index, weight, factor, offset = ctx.saved_tensors
        gradient, ctx.gradient = ctx.gradient, None
        if torch.is_grad_enabled():  # create_graph=True
            if ctx.inplace:
                raise RuntimeError(
                    "inplace_backward=True leaves no logits to differentiate the gradient by"
                    "; leave it out where the gradient is differentiated"
                )
            (gradient,) = torch.autograd.grad(ctx.plain(input), input, upstream, create_graph=True)
        elif gradient is not None:
            _scale_(gradient, upstream)
        elif input is None:
            raise RuntimeError("inplace_backward=True allows one backward pass; leave it out for more")
        else:
            out = input.detach() if ctx.inplace else None
            factor = factor * upstream.to(factor.dtype)
            tensors = index, weight, factor
            _, gradient = compute(input, *tensors, ctx.form, offset=offset, gradient=True, out=out)
        return gradient, *(None,) * 8


def compute(
    input: Tensor,
    index: Tensor,
    weight: Tensor | None,
    factor: Tensor,
    form: Setting,
    *,
    offset: Tensor | None = None,
    gradient: bool,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return losses of ``index``'s shape and, where wanted, the gradient of ``input``'s, into ``out``."""
    if input.is_cuda or INTERPRETED:
        done: tuple[Tensor, Tensor | None] = _kernels().rows(
            input, index, weight, factor, *_options(form), offset=offset, gradient=gradient, out=out
        )
        return done
    if input.ndim == 2:
        return blocks.rows(
            input, index, weight, factor, *_options(form), offset=offset, gradient=gradient, out=out
        )
    moved = input.movedim(1, -1)
    flat, labels = moved.reshape(-1, input.shape[1]), index.reshape(-1)
    factor = factor.reshape(-1) if factor.ndim else factor
    tensors = flat, labels, weight, factor
    each, part = blocks.rows(*tensors, *_options(form), offset=offset, gradient=gradient)
    if part is not None:
        out = torch.empty_like(input) if out is None else out
        out.movedim(1, -1).copy_(part.view(moved.shape))
    return each.view(index.shape), out


def _options(form: Setting) -> tuple[int | None, str, float, float]:
    return form.ignore_index if form.ignores else None, form.kind, form.gamma, form.smoothing


def _scale_(gradient: Tensor, upstream: Tensor) -> None:
    if (gradient.is_cuda or INTERPRETED) and gradient.is_contiguous():
        _kernels().scale_(gradient, upstream)
    elif gradient.is_cuda or float(upstream) != 1.0:
        gradient.mul_(upstream)


# ---- for torch.compile: two operators, gradient always from the logits


@torch.library.custom_op("longtail::fused_loss", mutates_args=())
def per_sample(
    input: Tensor,
    index: Tensor,
    weight: Tensor | None,
    factor: Tensor,
    kind: str,
    gamma: float,
    smoothing: float,
    ignore_index: int,
    offset: Tensor | None = None,
) -> Tensor:
    """Per-sample losses times ``factor``: see :func:`losses`."""
    form = Setting(kind, gamma, smoothing, ignore_index)
    return compute(input, index, weight, factor, form, offset=offset, gradient=False)[0]


@per_sample.register_fake
def _(input, index, weight, factor, kind, gamma, smoothing, ignore_index, offset=None):  # type: ignore[no-untyped-def]
    return factor.new_empty(index.shape)


@torch.library.custom_op("longtail::fused_gradient", mutates_args=())
def _gradient(
    input: Tensor,
    index: Tensor,
    weight: Tensor | None,
    factor: Tensor,
    kind: str,
    gamma: float,
    smoothing: float,
    ignore_index: int,
    offset: Tensor | None = None,
) -> Tensor:
    form, out = Setting(kind, gamma, smoothing, ignore_index), torch.empty_like(input)
    compute(input, index, weight, factor, form, offset=offset, gradient=True, out=out)
    return out


@_gradient.register_fake
def _(input, index, weight, factor, kind, gamma, smoothing, ignore_index, offset=None):  # type: ignore[no-untyped-def]
    return torch.empty_like(input)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.kind, ctx.gamma, ctx.smoothing, ctx.ignore_index, offset = inputs
    ctx.save_for_backward(*tensors, offset)


def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    input, index, weight, factor, offset = ctx.saved_tensors
    options = ctx.kind, ctx.gamma, ctx.smoothing, ctx.ignore_index
    return _gradient(input, index, weight, factor * upstream, *options, offset), *(None,) * 8


per_sample.register_autograd(_backward, setup_context=_keep)


# ---- what there is


@functools.cache
def _kernels() -> Any:
    return importlib.import_module("longtail.losses.fast.kernels")


def _transformed(input: Tensor) -> bool:
    """Whether torch.func or forward-mode differentiation looks on, which needs the plain formula."""
    tangent = forward_ad.unpack_dual(input).tangent  # type: ignore[no-untyped-call]
    return tangent is not None or torch._C._are_functorch_transforms_active()


def check_backend(backend: str) -> None:
    """Refuse an unknown backend."""
    if backend not in BACKENDS:
        _checks.choice("backend", backend, BACKENDS)
