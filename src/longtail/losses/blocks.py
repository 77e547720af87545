"""The losses on the CPU: loss and gradient together, some samples at a time, so that temporaries stay cached.

A block of samples goes through torch's own kernels, into buffers that are used again; that needs no compiler.
The sigmoid losses spend their time in exponentials and logarithms: where the input is large and a C++
compiler is found, torch.compile makes one loop of the whole formula, at the first such call.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

BLOCK = 1 << 17  # elements a thread has in a block: the buffers stay small, and in cache
UNBUFFERED = 1 << 19  # likewise, where every pass can write into the gradient itself
COMPILED = 1 << 20  # elements from which on a compiled loop repays the compiler's seconds
_COMPILED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def rows(
    x: Tensor,
    index: Tensor,
    weight: Tensor | None,
    factor: Tensor,
    ignore_index: int,
    kind: str,
    gamma: float,
    smoothing: float,
    *,
    losses: Tensor | None,
    gradient: Tensor | None,
) -> None:
    """Fill ``losses`` and ``gradient``, each unless None.

    Args:
        x: logits, (N, C), of any floating dtype.
        index: int64 class indices, (N).
        weight: float32, or float64 for float64 logits, (C), or None.
        factor: of the same dtype, one for all samples or one each; multiplies loss and gradient.
        ignore_index: samples with this index have loss and gradient 0.
        kind: "softmax" | "sigmoid".
        gamma: of the focal modulator.
        smoothing: epsilon of label smoothing.
        losses: (N), of ``factor``'s dtype.
        gradient: (N, C), of ``x``'s dtype; may be ``x`` itself.

    Raises:
        IndexError: an index out of range.
    """
    samples, classes = x.shape
    ignored = index == ignore_index
    index = index.masked_fill(ignored, 0)
    if samples and (int(index.min()) < 0 or int(index.max()) >= classes):
        raise IndexError("class index out of range")
    if weight is not None:
        factor = factor * weight.index_select(0, index)
    factor = factor.expand(samples).masked_fill(ignored, 0.0)
    losses = factor.new_empty(samples) if losses is None else losses
    inplace = gradient is not None and gradient.data_ptr() == x.data_ptr()
    if kind == "sigmoid" and smoothing == 0.0 and gradient is not None and not inplace:
        large = x.numel() >= COMPILED and x.dtype in _COMPILED_DTYPES and classes < 1 << 24
        if large and _run_compiled(x, index, factor, gamma, losses, gradient):
            return
    direct = gradient is not None and not inplace and gradient.dtype == factor.dtype
    unbuffered = kind == "softmax" and direct
    share = UNBUFFERED if unbuffered else BLOCK
    size = max(1, min(samples, share * min(torch.get_num_threads(), 8) // classes))
    spare = factor.new_empty(0 if unbuffered else 1 if kind == "softmax" else 4, size, classes)
    block: Callable[..., None] = _softmax if kind == "softmax" else _sigmoid
    if smoothing:
        block = functools.partial(
            _smooth_sigmoid if kind == "sigmoid" else _smooth_focal if gamma else _smooth, smoothing
        )
    for start in range(0, samples, size):
        part = slice(start, start + size)
        z = x[part].to(factor.dtype)
        f, out, buffers = factor[part].unsqueeze(1), losses[part], spare[:, : len(z)]
        g = None
        if gradient is not None:
            g = gradient[part] if direct else buffers[0]
        block(z, index[part].unsqueeze(1), f, gamma, out, g, buffers)
        if g is not None and gradient is not None and not direct:
            gradient[part] = g
    if bool(ignored.any()):  # 0 * NaN is not 0
        losses.masked_fill_(ignored, 0.0)
        if gradient is not None:
            gradient[ignored] = 0.0


def _of_margin(m: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Loss sigmoid(m)^gamma * softplus(m) of a margin, and its derivative."""
    wrong, softplus = torch.sigmoid(m), -torch.nn.functional.logsigmoid(-m)
    if gamma == 0.0:
        return softplus, wrong
    modulator = wrong**gamma
    return modulator * softplus, modulator * (gamma * torch.sigmoid(-m) * softplus + wrong)


def _softmax(
    z: Tensor, index: Tensor, f: Tensor, gamma: float, losses: Tensor, g: Tensor | None, spare: Tensor
) -> None:
    p = spare[0] if g is None else g
    torch.softmax(z, 1, out=p)
    own = p.gather(1, index)
    rivals = p.scatter_(1, index, 0.0).sum(1, keepdim=True)  # 1 - p of the true class, without cancelling
    tiny = torch.finfo(p.dtype).tiny * 1e8
    if bool(
        (torch.minimum(own, rivals) < tiny).any()
    ):  # beyond exp's range: again, apart from the true class
        true = z.gather(1, index)
        others = z.scatter(1, index, torch.finfo(z.dtype).min)
        largest = others.amax(1, keepdim=True)
        margin = (largest - true) + (others - largest).logsumexp(1, keepdim=True)
        torch.softmax(others, 1, out=p)
        rivals = torch.ones_like(rivals)
    else:
        margin = rivals.log() - own.log()
    loss, slope = _of_margin(margin, gamma)
    torch.mul(loss, f, out=losses.unsqueeze(1))
    if g is not None:
        slope *= f
        g.mul_(slope / rivals).scatter_(1, index, -slope)


def _sigmoid(
    z: Tensor, index: Tensor, f: Tensor, gamma: float, losses: Tensor, g: Tensor | None, spare: Tensor
) -> None:
    wrong, softplus, t, modulator = spare
    loss, slope = _of_margin(-z.gather(1, index), gamma)  # of the true class; the passes take all for absent
    torch.ops.aten.softplus.out(z, 1, 40, out=softplus)
    if gamma == 0.0:
        if g is not None:
            torch.sigmoid(z, out=g).mul_(f)
    else:
        torch.sigmoid(z, out=wrong)
        torch.pow(wrong, gamma, out=modulator)
        if g is not None:
            torch.sub(1.0, wrong, out=t)
            torch.add(wrong, t.mul_(softplus), alpha=gamma, out=t)
            torch.mul(t.mul_(f), modulator, out=g)
        softplus.mul_(modulator)
    if g is not None:
        g.scatter_(1, index, -slope * f)
    total = softplus.scatter_(1, index, loss).sum(1)
    torch.mul(total, f.squeeze(1), out=losses)


def _smooth(
    epsilon: float,
    z: Tensor,
    index: Tensor,
    f: Tensor,
    gamma: float,
    losses: Tensor,
    g: Tensor | None,
    spare: Tensor,
) -> None:
    log_p = torch.log_softmax(z, 1, out=spare[0] if g is None else g)
    loss = (1.0 - epsilon) * log_p.gather(1, index) + epsilon * log_p.mean(1, keepdim=True)
    torch.mul(loss, -f, out=losses.unsqueeze(1))
    if g is not None:
        g.exp_().sub_(epsilon / z.shape[1]).mul_(f)
        g.scatter_add_(1, index, (epsilon - 1.0) * f)


def _smooth_focal(
    epsilon: float,
    z: Tensor,
    index: Tensor,
    f: Tensor,
    gamma: float,
    losses: Tensor,
    g: Tensor | None,
    spare: Tensor,
) -> None:
    largest, top = z.max(1, keepdim=True)
    share = (z - largest).exp_().scatter_(1, top, 0.0)
    others = share.sum(1, keepdim=True)  # without the largest: 1 - p would cancel for that one alone
    p = share.scatter_(1, top, 1.0).div_(1.0 + others)
    miss = (1.0 - p).scatter_(1, top, others / (1.0 + others)).clamp_(min=torch.finfo(z.dtype).tiny)
    minus_log_p = (largest - z).add_(torch.log1p(others))
    part = miss**gamma
    part.mul_(torch.full_like(z, epsilon / z.shape[1]).scatter_(1, index, _hot(epsilon, z)))
    torch.mul((part * minus_log_p).sum(1, keepdim=True), f, out=losses.unsqueeze(1))
    if g is not None:
        h = part.mul_(minus_log_p.mul_(p).div_(miss).mul_(gamma).add_(1.0)).mul_(f)
        torch.mul(p, h.sum(1, keepdim=True), out=g).sub_(h)


def _smooth_sigmoid(
    epsilon: float,
    z: Tensor,
    index: Tensor,
    f: Tensor,
    gamma: float,
    losses: Tensor,
    g: Tensor | None,
    spare: Tensor,
) -> None:
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
    torch.mul(loss.sum(1), f.squeeze(1), out=losses)
    if g is not None:
        torch.mul(slope, f, out=g)


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


@functools.cache
def _compiled() -> Callable[..., None]:
    return torch.compile(_loop, dynamic=True, fullgraph=True)


_compiles = True


def _run_compiled(
    x: Tensor, index: Tensor, factor: Tensor, gamma: float, losses: Tensor, gradient: Tensor
) -> bool:
    """Run the compiled loop; say False where it cannot be had, now and for good."""
    global _compiles
    if not _compiles:
        return False
    columns = torch.arange(x.shape[1], dtype=torch.float32)
    power = int(gamma) if gamma in (0.0, 1.0, 2.0) else -1  # an exp less
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about its own parts
            _compiled()(x, index.float(), columns, factor, torch.tensor(gamma), power, losses, gradient)
    except Exception:  # no compiler, no place for its files, ...: the blocks give the same values
        _compiles = False
    return _compiles
