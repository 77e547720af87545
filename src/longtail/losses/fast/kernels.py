"""Triton kernels of the losses: the logits are read, the gradient is written, and nothing between is stored.

One program computes some samples: their losses, their gradient, or both, in float32, in a fixed order, so
that equal inputs give equal bits. The logits are addressed as sample (outer, inner) and class by three
strides, so that (N, C, d1, ...) needs no copy; what lies densest in memory lies along the tile.

The sigmoid losses read a sample once. The softmax losses need the whole sample before its gradient: up to
``ON_CHIP`` classes stay in registers and are read once; more are read twice, the second time backwards, while
the end is still in the cache.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from longtail.losses.fast import check_kind

ON_CHIP = 32768  # classes of a softmax that one program holds in registers
TILE = 8192  # elements of a tile otherwise
LOWEST = tl.constexpr(-3.4028234663852886e38)


@triton.jit
def _log1p(e):
    """log(1 + e) for e in [0, 1], 2 atanh(e / (2 + e)) by its series: exact where 1 + e would round to 1."""
    s = e / (2.0 + e)
    q = s * s
    return (
        2.0 * s * (1.0 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11 + q * (1 / 13)))))))
    )


@triton.jit
def _focal(m, gamma, GAMMA: tl.constexpr):
    """Loss sigmoid(m)^gamma * softplus(m) of a margin, and its derivative."""
    e = tl.exp(-tl.abs(m))
    large = 1.0 / (1.0 + e)
    small = e * large
    wrong = tl.where(m >= 0, large, small)
    right = tl.where(m >= 0, small, large)
    log1p = _log1p(e)
    softplus = tl.maximum(m, 0.0) + log1p
    if GAMMA == 0:
        return softplus, wrong
    if GAMMA == 1:
        modulator = wrong
    elif GAMMA == 2:
        modulator = wrong * wrong
    else:
        modulator = tl.exp(gamma * (tl.minimum(m, 0.0) - log1p))
    return modulator * softplus, modulator * (gamma * right * softplus + wrong)


@triton.jit
def _soft_focal(z, t, not_t, gamma, GAMMA: tl.constexpr):
    """Loss of logit z against the probability t, not_t = 1 - t, and its derivative."""
    e = tl.exp(-tl.abs(z))
    large = 1.0 / (1.0 + e)
    small = e * large
    p = tl.where(z >= 0, large, small)
    not_p = tl.where(z >= 0, small, large)
    loss = tl.where(z >= 0, z * not_t, -z * t) + _log1p(e)
    if GAMMA == 0:
        return loss, p - t
    miss = tl.maximum(p * not_t + not_p * t, 1e-19)
    modulator = tl.exp(gamma * tl.log(miss))
    return modulator * loss, modulator * ((p - t) + gamma * (p * not_p) * (not_t - t) * loss / miss)


@triton.jit
def _rows(
    x_ptr,
    gradient_ptr,
    loss_ptr,
    target_ptr,
    weight_ptr,
    offset_ptr,
    factor_ptr,
    samples,
    classes,
    inner,
    x_outer,
    x_inner,
    x_class,
    g_outer,
    g_inner,
    g_class,
    factor_stride,
    ignore_index,
    gamma,
    hot_t,
    hot_u,
    cold_t,
    cold_u,
    SOFTMAX: tl.constexpr,
    GAMMA: tl.constexpr,
    SMOOTH: tl.constexpr,
    WEIGHED: tl.constexpr,
    SHIFTED: tl.constexpr,
    GRADIENT: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    WHOLE: tl.constexpr,
    WIDE: tl.constexpr,
    EVEN: tl.constexpr,
):
    """Losses and gradient of ROWS samples, COLS classes at a time, WHOLE where that is all of them.

    classes, x_outer and g_outer come divided by EVEN; factor_stride is 0 where one factor serves all samples.
    hot_t and cold_t are the smoothed labels of the true class and of the others, hot_u and cold_u what they
    lack to 1.
    """
    classes *= EVEN  # told so, the compiler makes accesses of that many elements
    x_outer *= EVEN
    g_outer *= EVEN
    r = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    here = r < samples
    label = tl.load(target_ptr + r, mask=here, other=0)
    live = here & (label != ignore_index)
    known = (label >= 0) & (label < classes)
    tl.device_assert(known | (live == 0), "target must be in 0..C-1 or ignore_index")
    live = live & known
    label = tl.where(live, label, 0)
    factor = tl.load(factor_ptr + r * factor_stride, mask=here, other=0.0)
    if WEIGHED:
        factor = factor * tl.load(weight_ptr + label, mask=live, other=0.0)
    x_row = x_ptr + (r // inner) * x_outer + (r % inner) * x_inner
    g_row = gradient_ptr + (r // inner) * g_outer + (r % inner) * g_inner
    columns = tl.arange(0, COLS).to(tl.int64) if WIDE else tl.arange(0, COLS)  # offsets within a sample

    if SOFTMAX and SMOOTH and GAMMA != 0:  # every class counts, so each needs its own 1 - p
        c = columns[None, :]
        inside = (c < classes) & live[:, None]
        z = tl.load(x_row[:, None] + c * x_class, mask=inside, other=LOWEST).to(tl.float32)
        if SHIFTED:
            z += tl.load(offset_ptr + c, mask=c < classes, other=0.0)
        largest = tl.max(z, 1)[:, None]
        top = c == tl.argmax(z, 1)[:, None]
        share = tl.where(inside & (top == 0), tl.exp(z - largest), 0.0)
        others = tl.sum(share, 1)[
            :, None
        ]  # summed without the largest: 1 - p would cancel for that one alone
        total = 1.0 + others
        log_total = tl.where(others <= 1.0, _log1p(tl.minimum(others, 1.0)), tl.log(total))
        p = tl.where(top, 1.0, share) / total
        miss = tl.maximum(tl.where(top, others / total, 1.0 - p), 1e-30)
        minus_log_p = (largest - z) + log_total
        modulator = tl.exp(gamma * tl.log(miss))
        part = tl.where(c == label[:, None], hot_t, cold_t) * factor[:, None] * modulator
        loss = tl.sum(tl.where(inside, part * minus_log_p, 0.0), 1)
        tl.store(loss_ptr + r, tl.where(live, loss, 0.0), mask=here)
        if GRADIENT:
            h = tl.where(inside, part * (gamma * p * minus_log_p / miss + 1.0), 0.0)
            g = tl.where(inside, p * tl.sum(h, 1)[:, None] - h, 0.0)
            out = here[:, None] & (c < classes)
            tl.store(g_row[:, None] + c * g_class, g.to(gradient_ptr.dtype.element_ty), mask=out)
    elif SOFTMAX:
        own = tl.load(x_row + label * x_class, mask=live, other=0.0).to(tl.float32)
        if SHIFTED:
            own += tl.load(offset_ptr + label, mask=live, other=0.0)
        largest = tl.full([ROWS], LOWEST, tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        lead = tl.zeros([ROWS], tl.float32)  # sum of z - z_y, for smoothing
        if WHOLE:
            c = columns[None, :]
            inside = (c < classes) & live[:, None]
            rival = inside & (c != label[:, None])
            z = tl.load(x_row[:, None] + c * x_class, mask=inside, other=0.0).to(tl.float32)
            if SHIFTED:
                z += tl.load(offset_ptr + c, mask=c < classes, other=0.0)
            largest = tl.maximum(tl.max(tl.where(rival, z, LOWEST), 1), LOWEST)  # -inf, or it would be 0 / 0
            share = tl.where(rival, tl.exp(z - largest[:, None]), 0.0)
            total = tl.sum(share, 1)
            if SMOOTH:
                lead = tl.sum(tl.where(inside, z - own[:, None], 0.0), 1)
        else:
            for start in range(0, classes, COLS):
                c = (start + columns)[None, :]
                inside = (c < classes) & live[:, None]
                rival = inside & (c != label[:, None])
                z = tl.load(x_row[:, None] + c * x_class, mask=inside, other=0.0).to(tl.float32)
                if SHIFTED:
                    z += tl.load(offset_ptr + c, mask=c < classes, other=0.0)
                before = largest
                largest = tl.maximum(largest, tl.max(tl.where(rival, z, LOWEST), 1))
                share = tl.where(rival, tl.exp(z - largest[:, None]), 0.0)
                total = total * tl.exp(before - largest) + tl.sum(share, 1)
                if SMOOTH:
                    lead += tl.sum(tl.where(inside, z - own[:, None], 0.0), 1)
        some = tl.where(total < 1e-37, 1e-37, total)  # maximum() of a GPU would drop a NaN
        loss, slope = _focal((largest - own) + tl.log(some), gamma, GAMMA)
        if SMOOTH:
            loss = loss - cold_t * lead
        tl.store(loss_ptr + r, tl.where(live, loss * factor, 0.0), mask=here)
        if GRADIENT:
            slope = slope * factor
            scale = (slope / tl.where(total > 0.0, total, 1.0))[:, None]
            if SMOOTH:
                own_slope, even = (hot_u * factor - slope)[:, None], (cold_t * factor)[:, None]
            else:
                own_slope, even = (0.0 - slope)[:, None], 0.0
            if WHOLE:
                g = tl.where(live[:, None], tl.where(rival, share * scale - even, own_slope), 0.0)
                out = here[:, None] & (c < classes)
                tl.store(g_row[:, None] + c * g_class, g.to(gradient_ptr.dtype.element_ty), mask=out)
            else:
                last = (classes - 1) // COLS * COLS
                for back in range(0, classes, COLS):
                    c = (last - back + columns)[None, :]
                    inside = (c < classes) & live[:, None]
                    z = tl.load(x_row[:, None] + c * x_class, mask=inside, other=0.0).to(tl.float32)
                    if SHIFTED:
                        z += tl.load(offset_ptr + c, mask=c < classes, other=0.0)
                    g = tl.exp(z - largest[:, None]) * scale - even
                    g = tl.where(live[:, None], tl.where(c != label[:, None], g, own_slope), 0.0)
                    out = here[:, None] & (c < classes)
                    tl.store(g_row[:, None] + c * g_class, g.to(gradient_ptr.dtype.element_ty), mask=out)
    else:
        losses = tl.zeros([ROWS, COLS], tl.float32)
        for start in range(0, classes, COLS):
            c = (start + columns)[None, :]
            inside = (c < classes) & live[:, None]
            hot = c == label[:, None]
            z = tl.load(x_row[:, None] + c * x_class, mask=inside, other=0.0).to(tl.float32)
            if SHIFTED:
                z += tl.load(offset_ptr + c, mask=c < classes, other=0.0)
            if SMOOTH:
                t, u = tl.where(hot, hot_t, cold_t), tl.where(hot, hot_u, cold_u)
                loss, slope = _soft_focal(z, t, u, gamma, GAMMA)
            else:
                loss, slope = _focal(tl.where(hot, -z, z), gamma, GAMMA)
                slope = tl.where(hot, -slope, slope)
            losses += tl.where(inside, loss, 0.0)
            if GRADIENT:
                g = tl.where(live[:, None], slope * factor[:, None], 0.0)
                out = here[:, None] & (c < classes)
                tl.store(g_row[:, None] + c * g_class, g.to(gradient_ptr.dtype.element_ty), mask=out)
        tl.store(loss_ptr + r, tl.where(live, tl.sum(losses, 1) * factor, 0.0), mask=here)


@triton.jit
def _scale(x_ptr, factor_ptr, size, BLOCK: tl.constexpr):
    """Multiply by one number that only the device knows; a 1 costs no memory traffic."""
    factor = tl.load(factor_ptr).to(tl.float32)
    if factor != 1.0:
        i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + i, mask=i < size, other=0.0).to(tl.float32)
        tl.store(x_ptr + i, (x * factor).to(x_ptr.dtype.element_ty), mask=i < size)


INTERPRETED = not isinstance(_rows, triton.JITFunction)  # TRITON_INTERPRET=1: the kernels run on the CPU
_ASSERTS = {} if INTERPRETED else {"debug": True, "sanitize_overflow": False}  # for device_assert alone


def rows(
    x: Tensor,
    index: Tensor,
    weight: Tensor | None,
    factor: Tensor,
    ignore_index: int | None,
    kind: str,
    gamma: float,
    smoothing: float,
    *,
    offset: Tensor | None = None,
    gradient: bool,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return per-sample losses, of ``index``'s shape, and the gradient of their sum where it is wanted.

    Args:
        x: logits, (N, C) or (N, C, d1, ...), float32, bfloat16 or float16.
        index: int64 class indices, (N) or (N, d1, ...).
        weight: float32, (C), or None.
        factor: float32, 0-d or of ``index``'s shape; multiplies loss and gradient.
        ignore_index: samples with this index have loss and gradient 0; None where there are none.
        kind: "softmax" | "sigmoid".
        gamma: of the focal modulator.
        smoothing: epsilon of label smoothing.
        offset: float32, (C), added to the logits; or None.
        gradient: whether to compute the gradient.
        out: what to write it into, of ``x``'s shape and dtype; may be ``x`` itself.

    Raises:
        ValueError: another kind.
    """
    check_kind(kind)
    losses = torch.empty(index.shape, dtype=torch.float32, device=x.device)
    out = torch.empty_like(x) if gradient and out is None else out
    samples, classes = index.numel(), x.shape[1]
    if samples == 0:
        return losses, out
    x, source = _addressable(x)
    target = source
    if out is not None:
        out, target = _addressable(out)
    index, factor = index.contiguous(), factor.contiguous()
    weight = weight if weight is None else weight.contiguous()
    offset = offset if offset is None else offset.contiguous()
    softmax = kind == "softmax"
    tile_rows, cols, warps = tile(classes, softmax, pixels=source[1] < source[2])
    even, uniform = math.gcd(16, classes, source[0], target[0]), smoothing / classes
    with torch.cuda.device_of(x):
        _rows[(triton.cdiv(samples, tile_rows),)](
            x,
            factor if out is None else out,  # for the pointers that are not followed, any
            losses,
            index,
            factor if weight is None else weight,
            factor if offset is None else offset,
            factor,
            samples,
            classes // even,
            samples // x.shape[0],
            source[0] // even,
            *source[1:],
            target[0] // even,
            *target[1:],
            int(factor.ndim > 0),
            -1 if ignore_index is None else ignore_index,
            gamma,
            1.0 - smoothing + uniform,
            smoothing - uniform,
            uniform,
            1.0 - uniform,
            SOFTMAX=softmax,
            GAMMA=int(gamma) if gamma in (0.0, 1.0, 2.0) else -1,
            SMOOTH=smoothing > 0.0,
            WEIGHED=weight is not None,
            SHIFTED=offset is not None,
            GRADIENT=gradient,
            ROWS=tile_rows,
            COLS=cols,
            WHOLE=cols >= classes,
            WIDE=classes * max(source[2], target[2]) >= 2**31,
            EVEN=even,
            num_warps=warps,
            **_ASSERTS,
        )
    return losses, out


def scale_(x: Tensor, factor: Tensor) -> None:
    """Multiply a dense tensor by a 0-d one of the same device, in place and without asking for its value."""
    if x.numel():
        with torch.cuda.device_of(x):
            _scale[(triton.cdiv(x.numel(), 4096),)](x, factor, x.numel(), BLOCK=4096, num_warps=8)


def tile(classes: int, softmax: bool, *, pixels: bool) -> tuple[int, int, int]:
    """Return samples and classes of a program's tile, and its warps."""
    cols = triton.next_power_of_2(classes)
    if pixels:
        cols = min(cols, 64)
        return 4096 // max(cols, 16), cols, 8
    cols = min(cols, (ON_CHIP if cols <= ON_CHIP else TILE) if softmax else TILE // 2)
    rows = max(1, 1024 // cols)
    return rows, cols, min(32, max(4, rows * cols // (1024 if cols > TILE else 512)))


def _addressable(x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """Return ``x``, copied where d1, ... have no single stride, and its strides by sample and class."""
    size, stride = 1, 1
    for n, s in zip(reversed(x.shape[2:]), reversed(x.stride()[2:]), strict=True):
        if n > 1:
            stride = s if size == 1 else stride
            if s != stride * size:
                return _addressable(x.contiguous())
            size *= n
    return x, (x.stride(0), stride, x.stride(1))
