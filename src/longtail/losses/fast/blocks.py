"""The losses on the CPU: loss and gradient together, some samples at a time, so that temporaries stay cached.

A block of samples goes through torch's own kernels, into buffers that are used again; that needs no compiler.
The sigmoid losses spend their time in exponentials and logarithms: where the input is large and a C++
compiler is found, torch.compile makes one loop of the whole formula, at the first such call.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from longtail.losses.fast import check_kind

BLOCK = 1 << 17  # elements a thread has in a block: the buffers stay small, and in cache
COMPILED = 1 << 20  # elements from which on a compiled loop repays the compiler's seconds
_softplus: Any = torch.nn.functional.softplus  # takes out=, though its stub does not say so
_COMPILED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


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
    """Return per-sample losses (N), and the gradient (N, C) of their sum where it is wanted.

    Args:
        x: logits, (N, C), of any floating dtype.
        index: int64 class indices, (N).
        weight: float32, or float64 for float64 logits, (C), or None.
        factor: of the same dtype, 0-d or (N); multiplies loss and gradient.
        ignore_index: samples with this index have loss and gradient 0; None where there are none.
        kind: "softmax" | "sigmoid".
        gamma: of the focal modulator.
        smoothing: epsilon of label smoothing.
        offset: of factor's dtype, (C), added to the logits; or None.
        gradient: whether to compute the gradient.
        out: what to write it into, of ``x``'s shape and dtype; may be ``x`` itself.

    Raises:
        IndexError: an index out of range.
        ValueError: another kind.
    """
    check_kind(kind)
    samples, classes = x.shape
    large, inplace = x.numel() >= COMPILED, out is not None and out.data_ptr() == x.data_ptr()
    ignored = None if ignore_index is None else index == ignore_index
    if ignored is not None:
        index = index.masked_fill(ignored, 0)
    if large or inplace:  # before anything is overwritten; otherwise torch.gather looks in time
        _check_range(index, classes)
    if weight is not None:
        factor = factor * weight.index_select(0, index)
    factor = factor.expand(samples) if ignored is None else factor.expand(samples).masked_fill(ignored, 0.0)
    wanted = gradient
    block: Callable[..., tuple[Tensor, Tensor | None]] = _softmax if kind == "softmax" else _sigmoid
    if smoothing:
        smooth = _smooth_sigmoid if kind == "sigmoid" else _smooth_focal if gamma else _smooth
        block = functools.partial(smooth, smoothing)
    # a softmax needs no buffers, where it may write into the gradient
    free = kind == "softmax" and gradient and not inplace and x.dtype is factor.dtype
    size = max(1, samples if free else BLOCK * min(torch.get_num_threads(), 8) // classes)
    done: tuple[Tensor, Tensor | None] | None = None
    if block is _sigmoid and large and gradient and not inplace and x.dtype in _COMPILED_DTYPES:
        done = _compiled_rows(x, index, factor, gamma, offset, out)
    if done is None and size >= samples:
        z = x if x.dtype is factor.dtype else x.to(factor.dtype)
        done = block(z, offset, index.unsqueeze(1), factor, gamma, wanted, out if free else None, _ALLOCATE)
    if done is None:
        losses, g = factor.new_empty(samples), torch.empty_like(x) if gradient and out is None else out
        spare = factor.new_empty(4, size, classes)
        direct = free and g is not None and g.is_contiguous()
        for start in range(0, samples, size):
            part = slice(start, start + size)
            z, f, i = x[part], factor[part], index[part].unsqueeze(1)
            into, buffers = g[part] if direct and g is not None else None, spare[:, : len(z)].unbind()
            losses[part], slope = block(z.to(factor.dtype), offset, i, f, gamma, wanted, into, buffers)
            if g is not None and slope is not None and into is None:
                g[part] = slope
        done = losses, g
    losses, g = done
    if ignored is not None:  # a factor of 0 leaves NaN as it is
        losses = losses.masked_fill_(ignored, 0.0)
        g = g if g is None else g.masked_fill_(ignored.unsqueeze(1), 0.0)
    if g is not None and out is not None and g is not out:
        g = out.copy_(g)
    return losses, g if g is None or g.dtype is x.dtype else g.to(x.dtype)


_ALLOCATE = (None,) * 4  # as out=, for inputs so small that buffers do not pay
_Buffers = Sequence[Tensor] | tuple[None, ...]


def _check_range(index: Tensor, classes: int) -> None:
    if index.numel() and (int(index.min()) < 0 or int(index.max()) >= classes):
        raise IndexError("class index out of range")


def _shifted(x: Tensor, offset: Tensor | None) -> Tensor:
    return x if offset is None else x + offset


def _over_itself(function: Any, x: Tensor, offset: Tensor | None, out: Tensor | None) -> Tensor:
    """Take a (log_)softmax into ``out``; of logits with an offset over the sum, which is then still in cache.

    torch's kernels have read a row before they write it.
    """
    z = x if offset is None else torch.add(x, offset, out=out)
    answer: Tensor = function(z, 1, out=out if offset is None else z)
    return answer


def _softmax(
    x: Tensor,
    offset: Tensor | None,
    index: Tensor,
    f: Tensor,
    gamma: float,
    wanted: bool,
    out: Tensor | None,
    spare: _Buffers,
) -> tuple[Tensor, Tensor | None]:
    p = _over_itself(torch.softmax, x, offset, spare[0] if out is None else out)
    own = p.gather(1, index)
    tiny = torch.finfo(p.dtype).tiny * 1e8
    if gamma == 0.0:
        log_p = own.log().squeeze(1)
        lost = (own < tiny).squeeze(1)  # beyond exp's range
        if bool(lost.any()):
            log_p[lost] = torch.log_softmax(_shifted(x[lost], offset), 1).gather(1, index[lost]).squeeze(1)
        if wanted:
            column = f.unsqueeze(1)
            p.mul_(column).scatter_add_(1, index, -column)
        return log_p.mul_(-f), p if wanted else None
    rivals = p.scatter_(1, index, 0.0).sum(1, keepdim=True)  # 1 - p of the true class, without cancelling
    if bool((torch.minimum(own, rivals) < tiny).any()):  # again, apart from the true class
        z = _shifted(x, offset)
        true = z.gather(1, index)
        others = z.scatter(1, index, torch.finfo(z.dtype).min)
        largest = others.amax(1, keepdim=True)
        margin = (largest - true) + (others - largest).logsumexp(1, keepdim=True)
        torch.softmax(others, 1, out=p)
        rivals = torch.ones_like(rivals)
    else:
        margin = rivals.log() - own.log()
    wrong, softplus = torch.sigmoid(margin), -torch.nn.functional.logsigmoid(-margin)
    modulator = wrong**gamma
    if wanted:
        slope = modulator * (gamma * torch.sigmoid(-margin) * softplus + wrong) * f.unsqueeze(1)
        p.mul_(slope / rivals).scatter_(1, index, -slope)
    return (modulator * softplus).squeeze(1) * f, p if wanted else None


def _sigmoid(
    x: Tensor,
    offset: Tensor | None,
    index: Tensor,
    f: Tensor,
    gamma: float,
    wanted: bool,
    out: Tensor | None,
    spare: _Buffers,
) -> tuple[Tensor, Tensor | None]:
    if offset is None:
        m = torch.scatter(x, 1, index, -x.gather(1, index), out=spare[0])
    else:
        m = torch.add(x, offset, out=spare[0])
        m.scatter_(1, index, -m.gather(1, index))
    softplus = _softplus(m, 1, 40, out=spare[1])
    if gamma == 0.0:
        g = torch.sigmoid(m, out=m) if wanted else None
    else:
        wrong = torch.sigmoid(m, out=spare[2])
        modulator = torch.pow(wrong, gamma, out=spare[3])
        g = None
        if wanted:
            g = torch.sub(1.0, wrong, out=m).mul_(softplus)
            g = torch.add(wrong, g, alpha=gamma, out=g).mul_(modulator)
        softplus.mul_(modulator)
    if g is not None:
        g.mul_(f.unsqueeze(1)).scatter_(1, index, -g.gather(1, index))
    return softplus.sum(1).mul_(f), g


def _smooth(
    epsilon: float,
    x: Tensor,
    offset: Tensor | None,
    index: Tensor,
    f: Tensor,
    gamma: float,
    wanted: bool,
    out: Tensor | None,
    spare: _Buffers,
) -> tuple[Tensor, Tensor | None]:
    log_p = _over_itself(torch.log_softmax, x, offset, spare[0] if out is None else out)
    loss = (1.0 - epsilon) * log_p.gather(1, index).squeeze(1) + epsilon * log_p.mean(1)
    if wanted:
        column = f.unsqueeze(1)
        log_p.exp_().sub_(epsilon / x.shape[1]).mul_(column).scatter_add_(1, index, (epsilon - 1.0) * column)
    return loss.mul_(-f), log_p if wanted else None


def _smooth_focal(
    epsilon: float,
    x: Tensor,
    offset: Tensor | None,
    index: Tensor,
    f: Tensor,
    gamma: float,
    wanted: bool,
    out: Tensor | None,
    spare: _Buffers,
) -> tuple[Tensor, Tensor | None]:
    z = _shifted(x, offset)
    largest, top = z.max(1, keepdim=True)
    share = torch.sub(z, largest, out=out).exp_().scatter_(1, top, 0.0)
    others = share.sum(1, keepdim=True)  # without the largest: 1 - p would cancel for that one alone
    p = share.scatter_(1, top, 1.0).div_(1.0 + others)
    miss = (1.0 - p).scatter_(1, top, others / (1.0 + others)).clamp_(min=torch.finfo(z.dtype).tiny)
    minus_log_p = (largest - z).add_(torch.log1p(others))
    part = miss**gamma
    part.mul_(torch.full_like(z, epsilon / z.shape[1]).scatter_(1, index, _hot(epsilon, z)))
    loss = (part * minus_log_p).sum(1).mul_(f)
    if wanted:
        h = part.mul_(minus_log_p.mul_(p).div_(miss).mul_(gamma).add_(1.0)).mul_(f.unsqueeze(1))
        p.mul_(h.sum(1, keepdim=True)).sub_(h)
    return loss, p if wanted else None


def _smooth_sigmoid(
    epsilon: float,
    x: Tensor,
    offset: Tensor | None,
    index: Tensor,
    f: Tensor,
    gamma: float,
    wanted: bool,
    out: Tensor | None,
    spare: _Buffers,
) -> tuple[Tensor, Tensor | None]:
    z = _shifted(x, offset)
    uniform = epsilon / z.shape[1]
    t = torch.full_like(z, uniform).scatter_(1, index, _hot(epsilon, z))
    not_t = torch.full_like(z, 1.0 - uniform).scatter_(1, index, epsilon - uniform)
    p, not_p = torch.sigmoid(z), torch.sigmoid(-z)
    loss = torch.where(z >= 0, z * not_t, -z * t).add_(z.abs().neg_().exp_().log1p_())
    slope = p - t
    if gamma:
        miss = (p * not_t).addcmul_(not_p, t).clamp_(min=torch.finfo(z.dtype).tiny ** 0.5)
        slope.add_((not_t - t).mul_(p).mul_(not_p).mul_(loss).div_(miss), alpha=gamma)
        modulator = miss.pow_(gamma)
        loss.mul_(modulator)
        slope.mul_(modulator)
    return loss.sum(1).mul_(f), slope.mul_(f.unsqueeze(1)) if wanted else None


def _hot(epsilon: float, z: Tensor) -> float:
    return 1.0 - epsilon + epsilon / z.shape[1]


# ---- one loop, by torch.compile


def _loop(
    x: Tensor,
    label: Tensor,
    columns: Tensor,
    factor: Tensor,
    gamma: Tensor,
    power: int,
    losses: Tensor,
    gradient: Tensor,
) -> None:
    if not torch.compiler.is_compiling():
        raise RuntimeError("the compiler is switched off")  # run as it stands, this would fill the memory
    z = x.float()
    hot = columns == label.unsqueeze(1)  # floats: compared eight at a time, 64-bit integers are not
    m = torch.where(hot, -z, z)
    e = torch.exp(-m.abs())
    large = 1.0 / (1.0 + e)
    small = e * large
    wrong, right = torch.where(m >= 0, large, small), torch.where(m >= 0, small, large)
    s = e / (2.0 + e)  # log1p(e) = 2 atanh(s), by its series
    q = s * s
    series = 1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11 + q * (1 / 13)))))
    log1p = 2.0 * s * (1.0 + q * series)
    softplus = m.clamp(min=0.0) + log1p
    if power == 0:
        loss, slope = softplus, wrong
    else:
        if power == 1:
            modulator = wrong
        elif power == 2:
            modulator = wrong * wrong
        else:
            modulator = torch.exp(gamma * (m.clamp(max=0.0) - log1p))
        loss, slope = modulator * softplus, modulator * (gamma * right * softplus + wrong)
    losses.copy_(loss.sum(1) * factor)
    slope = slope * factor.unsqueeze(1)
    gradient.copy_(torch.where(hot, -slope, slope))


def _shifted_loop(x: Tensor, offset: Tensor, *rest: Any) -> None:
    _loop(x.float() + offset, *rest)


@functools.cache
def _compiled(loop: Callable[..., None]) -> Callable[..., None]:
    return torch.compile(loop, dynamic=True, fullgraph=True)


_compiles = True


def _compiled_rows(
    x: Tensor, index: Tensor, factor: Tensor, gamma: float, offset: Tensor | None, out: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Run the compiled loop; None where it cannot be had, now and for good."""
    global _compiles
    if not _compiles or x.shape[1] >= 1 << 24:
        return None
    losses, gradient = factor.new_empty(len(x)), torch.empty_like(x) if out is None else out
    columns = torch.arange(x.shape[1], dtype=torch.float32)
    power = int(gamma) if gamma in (0.0, 1.0, 2.0) else -1  # an exp less
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about its own parts
            rest = index.float(), columns, factor, torch.tensor(gamma), power, losses, gradient
            if offset is None:
                _compiled(_loop)(x, *rest)
            else:
                _compiled(_shifted_loop)(x, offset, *rest)
    except Exception:  # no compiler, no place for its files, ...: the blocks give the same values
        _compiles = False
        return None
    return losses, gradient
