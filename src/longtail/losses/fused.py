"""Loss and gradient in one pass over the logits, where the inputs qualify; the same values as the plain path.

A mean or a sum computes its gradient together with the loss, and backward hands it over, scaled by whatever
comes from above. Where the gradient cannot be known yet (``reduction="none"``) or would underflow before a
trainer's loss scale reaches it (float16), backward computes it instead, from the logits. Either way no other
tensor of the logits' size exists. On CUDA the passes are Triton kernels (:mod:`longtail.losses.kernels`), on
the CPU blocks of torch's own (:mod:`longtail.losses.blocks`).

Derivatives of the gradient (double backward) are taken through the plain path.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from longtail import _checks
from longtail.losses import blocks

BACKENDS = ("auto", "torch", "fused")
CUDA_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SMOOTH_FOCAL_TO = 1 << 14  # classes that stay in a program's registers three passes long
TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # the kernels run on the CPU, slowly: for tests
# below this many elements F.cross_entropy's few kernels cost less than our bookkeeping
SOFTMAX_FROM = 1 << 18


class Form(NamedTuple):
    """Which loss: what the kernels need to know besides tensors."""

    kind: str
    gamma: float
    smoothing: float
    ignore_index: int

    @property
    def options(self) -> tuple[int, str, float, float]:
        """In the order of the kernels' arguments."""
        return self.ignore_index, self.kind, self.gamma, self.smoothing


def reason_against(
    input: Tensor, soft: bool, weight: Tensor | None, denominator: Any, form: Form
) -> str | None:
    """Say why these inputs cannot take the fused path, or None where they can."""
    if soft:
        return "it takes class indices, not floating-point targets"
    if input.device.type not in ("cpu", "cuda"):
        return f"it runs on the CPU and on CUDA devices, not on {input.device.type}"
    if type(input) not in (Tensor, torch.nn.Parameter):
        return f"it takes plain tensors, not {type(input).__name__}"
    for name, other in (("weight", weight), ("denominator", denominator)):
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


def worthwhile(input: Tensor, form: Form) -> bool:
    """Whether "auto" prefers the fused path for inputs that could take it."""
    if input.is_cuda:
        return True
    if (
        INTERPRETED or input.ndim != 2 or torch.compiler.is_compiling()
    ):  # torch.compile fuses the plain formula by itself
        return False
    return not (form.kind == "softmax" and form.gamma == 0.0) or input.numel() >= SOFTMAX_FROM


def losses(
    input: Tensor,
    index: Tensor,
    weight: Tensor | None,
    factor: Tensor,
    form: Form,
    *,
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
        total: whether to sum.
        inplace: whether the gradient may overwrite ``input``.
        plain: the same loss by the plain path, for derivatives of the gradient.

    Raises:
        IndexError: on the CPU, an index out of range.
        ValueError: ``inplace`` for logits that are a leaf of the graph.
    """
    if torch.compiler.is_compiling():
        each = per_sample(input, index, weight, factor, *form.options)
        return each.sum() if total else each
    if not (torch.is_grad_enabled() and input.requires_grad):
        each = _compute(input, index, weight, factor, form)
        return each.sum() if total else each
    if inplace and input.is_leaf:
        raise ValueError("inplace_backward=True needs logits that a model computed, got a leaf of the graph")
    return _Fused.apply(input, index, weight, factor, form, total, inplace, plain)  # type: ignore[no-any-return,no-untyped-call]


class _Fused(torch.autograd.Function):
    """Eager only: it hands its gradient over without a copy, which a traced graph could not express."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        index: Tensor,
        weight: Tensor | None,
        factor: Tensor,
        form: Form,
        total: bool,
        inplace: bool,
        plain: Callable[[Tensor], Tensor],
    ) -> Tensor:
        ctx.form, ctx.inplace, ctx.plain, ctx.gradient = form, inplace, plain, None
        known = total and input.dtype != torch.float16
        if known:
            ctx.gradient = input.detach() if inplace else torch.empty_like(input)
        each = _compute(input.detach(), index, weight, factor, form, ctx.gradient)
        if known and inplace:
            torch.autograd.graph.increment_version(input)  # whoever saved these logits shall notice
        ctx.save_for_backward(None if known and inplace else input, index, weight, factor)
        return each.sum() if total else each

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        (upstream,) = upstreams
        input, index, weight, factor = ctx.saved_tensors
        gradient, ctx.gradient = ctx.gradient, None
        nothing = (None,) * 7
        if torch.is_grad_enabled():  # create_graph=True
            if ctx.inplace:
                raise RuntimeError("inplace_backward=True leaves no logits to differentiate the gradient by")
            loss = ctx.plain(input)
            return torch.autograd.grad(loss, input, upstream, create_graph=True)[0], *nothing
        if gradient is not None:
            _scale_(gradient, upstream)
            return gradient, *nothing
        if input is None:
            raise RuntimeError("inplace_backward=True allows one backward pass")
        gradient = input.detach() if ctx.inplace else torch.empty_like(input)
        factor = (factor * upstream.to(factor.dtype)).contiguous()
        _compute(input.detach(), index, weight, factor, ctx.form, gradient, losses=False)
        return gradient, *nothing


def _compute(
    input: Tensor,
    index: Tensor,
    weight: Tensor | None,
    factor: Tensor,
    form: Form,
    gradient: Tensor | None = None,
    *,
    losses: bool = True,
) -> Tensor:
    """Return losses of ``index``'s shape (unless told that nobody looks), and fill ``gradient``."""
    each = torch.empty(index.shape if losses else (0,), dtype=factor.dtype, device=input.device)
    if input.is_cuda or INTERPRETED:
        _kernels().rows(
            *(input, index, weight, factor, *form.options),
            losses=each if losses else None,
            gradient=gradient,
        )
    elif input.ndim == 2:
        blocks.rows(
            *(input, index, weight, factor.reshape(-1), *form.options),
            losses=each if losses else None,
            gradient=gradient,
        )
    else:
        flat = input.movedim(1, -1).reshape(-1, input.shape[1])
        part = None if gradient is None else torch.empty_like(flat)
        factor = factor.reshape(-1)
        blocks.rows(
            *(flat, index.reshape(-1), weight, factor, *form.options),
            losses=each.view(-1) if losses else None,
            gradient=part,
        )
        if gradient is not None and part is not None:
            gradient.movedim(1, -1).copy_(part.reshape(gradient.movedim(1, -1).shape))
    return each


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
    ignore_index: int,
    kind: str,
    gamma: float,
    smoothing: float,
) -> Tensor:
    """Per-sample losses times ``factor``: see :func:`losses`."""
    return _compute(input, index, weight, factor, Form(kind, gamma, smoothing, ignore_index))


@per_sample.register_fake
def _(input, index, weight, factor, ignore_index, kind, gamma, smoothing):  # type: ignore[no-untyped-def]
    return factor.new_empty(index.shape)


@torch.library.custom_op("longtail::fused_gradient", mutates_args=())
def _gradient(
    input: Tensor,
    index: Tensor,
    weight: Tensor | None,
    factor: Tensor,
    ignore_index: int,
    kind: str,
    gamma: float,
    smoothing: float,
) -> Tensor:
    gradient = torch.empty_like(input)
    form = Form(kind, gamma, smoothing, ignore_index)
    _compute(input, index, weight, factor.contiguous(), form, gradient, losses=False)
    return gradient


@_gradient.register_fake
def _(input, index, weight, factor, ignore_index, kind, gamma, smoothing):  # type: ignore[no-untyped-def]
    return torch.empty_like(input)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.ignore_index, ctx.kind, ctx.gamma, ctx.smoothing = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    input, index, weight, factor = ctx.saved_tensors
    options = (ctx.ignore_index, ctx.kind, ctx.gamma, ctx.smoothing)
    return _gradient(input, index, weight, factor * upstream, *options), *(None,) * 7


per_sample.register_autograd(_backward, setup_context=_keep)


# ---- what there is


@functools.cache
def _kernels() -> Any:
    return importlib.import_module("longtail.losses.kernels")


def _transformed(input: Tensor) -> bool:
    """Whether torch.func or forward-mode differentiation looks on, which needs the plain formula."""
    return torch._C._are_functorch_transforms_active() or forward_ad.unpack_dual(input).tangent is not None


def check_backend(backend: str) -> None:
    """Refuse an unknown backend."""
    if backend not in BACKENDS:
        _checks.choice("backend", backend, BACKENDS)
