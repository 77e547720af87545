"""3x3 convolution, and batch norm with ReLU, for training on the CPU: C++ built at first use.

`conv_norm_relu` is three of torch's operations, `residual_block` is two of those with a shortcut. Inside
`native` they run ``convolution.cpp`` where it applies: Winograd's algorithm takes a quarter of the
multiplications; norm, shortcut and ReLU share its ways through memory. Results differ from torch's by
rounding. Elsewhere they are torch's.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import math
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad, relu

from longtail import _checks

__all__ = ["BuildError", "conv_norm_relu", "native", "residual_block"]

_SOURCE: Final = Path(__file__).with_suffix(".cpp")
_FLAGS: Final = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared")
_CHANNELS: Final = 16  # the kernels' channels come in multiples of this
_state = threading.local()


class BuildError(RuntimeError):
    """The kernels could not be built: no compiler, or it failed."""


@contextlib.contextmanager
def native() -> Iterator[None]:
    """Let `conv_norm_relu` and `residual_block` run the C++ kernels where they apply, in this thread.

    Raises:
        BuildError: they cannot be built.
    """
    library()
    before, _state.on = getattr(_state, "on", False), True
    try:
        yield
    finally:
        _state.on = before


def conv_norm_relu(
    conv: nn.Conv2d, norm: nn.BatchNorm2d, input: Tensor, residual: Tensor | None = None
) -> Tensor:
    """Return ``relu(norm(conv(input)) + residual)``.

    Args:
        conv: any convolution; the kernels' own is 3x3 with stride 1, padding 1, no bias, and channels in
            multiples of 16.
        norm: batch norm; the kernels' own has scale, shift and running statistics.
        input: (N, C, H, W); the kernels take float32, channels last in memory.
        residual: of the output's shape; None for nothing.

    Modules with hooks, and subclasses of the two, are called as torch would.

    Raises:
        RuntimeError: in backward with ``create_graph=True``, where the kernels ran.
        ValueError: one value a channel, while training.
    """
    if not (_on() and _normalises(norm) and (residual is None or _fits(residual))):
        return _plain(norm, conv(input), residual)
    whole = _convolves(conv, input) and conv.out_channels == norm.num_features
    hidden = None if whole else conv(input)
    shape = _output_shape(input, conv.weight) if hidden is None else hidden.shape
    fits = whole if hidden is None else _fits(hidden) and hidden.shape[1] == norm.num_features
    differentiable = torch.is_grad_enabled() and not norm.training  # ours is only while training
    if not fits or (residual is not None and residual.shape != shape) or differentiable:
        return _plain(norm, conv(input) if hidden is None else hidden, residual)
    output: Tensor
    if norm.training:
        own = _count_batch(norm, shape)
        if hidden is None:
            output = _ConvNormReLU.apply(input, conv.weight, residual, *own)  # type: ignore[no-untyped-call]
        else:
            output = _NormReLU.apply(hidden, residual, *own)  # type: ignore[no-untyped-call]
        return output
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    if hidden is None:
        hidden = _convolve(input, conv.weight)
    return _norm_relu(hidden, residual, scale, norm.bias - norm.running_mean * scale)


def residual_block(
    conv1: nn.Conv2d, norm1: nn.BatchNorm2d, conv2: nn.Conv2d, norm2: nn.BatchNorm2d, input: Tensor
) -> Tensor:
    """Return ``relu(norm2(conv2(relu(norm1(conv1(input))))) + shortcut)``.

    The shortcut is `input`; where `conv1` has more channels and a stride of 2, the means of 2x2 pixels of it,
    between equal numbers of zero channels.

    Arguments and errors are those of `conv_norm_relu`.
    """
    inputs, channels = conv1.in_channels, conv1.out_channels
    if (
        _on()
        and norm1.training
        and norm2.training
        and all(map(_normalises, (norm1, norm2)))
        and (_convolves(conv1, input) if inputs == channels else _halves(conv1, input))
        and _is_ours(conv2, channels, (1, 1))
        and channels == conv2.out_channels == norm1.num_features == norm2.num_features
    ):
        height, width = (size // conv1.stride[0] for size in input.shape[2:])
        shape = (len(input), channels, height, width)
        own = [_count_batch(norm, shape) for norm in (norm1, norm2)]
        output: Tensor = _ResidualBlock.apply(input, conv1.weight, *own[0], conv2.weight, *own[1])  # type: ignore[no-untyped-call]
        return output
    shortcut = input
    if inputs != channels:
        zeros = (channels - inputs) // 2
        # ceil_mode keeps the last row and column of an odd image, as the strided convolution does
        shortcut = pad(avg_pool2d(input, 2, ceil_mode=True), (0, 0, 0, 0, zeros, zeros))
    return conv_norm_relu(conv2, norm2, conv_norm_relu(conv1, norm1, input), shortcut)


def _on() -> bool:
    return getattr(_state, "on", False) and not torch.compiler.is_compiling()


def _plain(norm: nn.BatchNorm2d, hidden: Tensor, residual: Tensor | None) -> Tensor:
    normed = norm(hidden)
    if residual is None:
        return relu(normed, inplace=not _hooked(norm))
    return relu(normed + residual, inplace=True)


def _count_batch(norm: nn.BatchNorm2d, shape: Sequence[int]) -> tuple[Any, ...]:
    """Count a batch of that shape, and return what a norm's forward pass needs."""
    if math.prod(shape) == shape[1]:
        raise ValueError(f"batch norm needs over one value a channel to train, got {list(shape)}")
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    torch.autograd.graph.increment_version((norm.running_mean, norm.running_var))  # type: ignore[arg-type]
    return norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.momentum, norm.eps


def _fits(input: Tensor) -> bool:
    return (
        type(input) is Tensor
        and input.is_cpu
        and input.dtype == torch.float32
        and input.ndim == 4
        and input.shape[1] % _CHANNELS == 0
        and input.numel() > 0
        and input.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
    )


def _convolves(conv: nn.Conv2d, input: Tensor) -> bool:
    return _fits(input) and _is_ours(conv, input.shape[1], (1, 1))


def _halves(conv: nn.Conv2d, input: Tensor) -> bool:
    """Whether it makes a block's image smaller in the way of the kernels' shortcut."""
    return (
        _fits(input)
        and _is_ours(conv, input.shape[1], (2, 2))
        and conv.out_channels > input.shape[1]
        and input.shape[2] % 2 == input.shape[3] % 2 == 0
    )


def _is_ours(conv: nn.Conv2d, channels: int, stride: tuple[int, int]) -> bool:
    return (
        type(conv) is nn.Conv2d
        and conv.in_channels == channels
        and conv.kernel_size == (3, 3)
        and conv.stride == stride
        and conv.dilation == (1, 1)
        and conv.padding == (1, 1)
        and conv.padding_mode == "zeros"
        and conv.groups == 1
        and conv.bias is None
        and conv.out_channels % _CHANNELS == 0
        and _is_plain(conv.weight)
        and not _hooked(conv)
    )


def _normalises(norm: nn.BatchNorm2d) -> bool:
    return (
        type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and norm.eps > 0
        and all(map(_is_plain, (norm.weight, norm.bias, norm.running_mean, norm.running_var)))
        and not _hooked(norm)
    )


def _is_plain(tensor: Tensor | None) -> bool:
    return (
        type(tensor) in (nn.Parameter, Tensor)
        and tensor is not None
        and tensor.is_cpu
        and tensor.dtype == torch.float32
        and (tensor.ndim > 1 or tensor.is_contiguous())
    )


def _hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def _refuse_second_derivative() -> None:
    if torch.is_grad_enabled():  # create_graph=True
        raise RuntimeError("the CPU kernels have no second derivative; compute it outside of native()")


def _last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _filter(weight: Tensor, turned: bool = False) -> Tensor:
    """Return the weights as 36 matrices from I to O channels, the turned ones from O to I."""
    outputs, inputs = weight.shape[:2]
    so, si, sy, sx = weight.stride()
    if turned:
        outputs, inputs, so, si = inputs, outputs, si, so
    matrices = weight.new_empty(36, inputs, outputs)
    library().longtail_filter(
        weight.data_ptr(),
        so,
        si,
        sy,
        sx,
        matrices.data_ptr(),
        inputs,
        outputs,
        turned,
        torch.get_num_threads(),
    )
    return matrices


def _output_shape(input: Tensor, weight: Tensor) -> tuple[int, ...]:
    n, _, height, width = input.shape
    return n, weight.shape[0], height, width


def _like_output(input: Tensor, weight: Tensor) -> Tensor:
    shape = _output_shape(input, weight)
    return torch.empty(shape, dtype=torch.float32, device="cpu", memory_format=torch.channels_last)


def _sizes(input: Tensor, weight: Tensor) -> tuple[int, ...]:
    n, inputs, height, width = input.shape
    return n, height, width, inputs, weight.shape[0], torch.get_num_threads()


def _pixels(hidden: Tensor) -> tuple[int, ...]:
    return hidden.numel() // hidden.shape[1], hidden.shape[1], torch.get_num_threads()


def _convolve(input: Tensor, weight: Tensor) -> Tensor:
    output, matrices = _like_output(input, weight), _filter(weight)
    library().longtail_convolve(
        input.data_ptr(), matrices.data_ptr(), output.data_ptr(), *_sizes(input, weight)
    )
    return output


def _norm_relu(hidden: Tensor, shortcut: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
    """Return relu(hidden scale + shift + shortcut), for a larger shortcut that of `residual_block`."""
    output = torch.empty_like(hidden)
    if shortcut is None or shortcut.shape == hidden.shape:
        library().longtail_norm_relu(
            hidden.data_ptr(),
            _address(shortcut),
            scale.data_ptr(),
            shift.data_ptr(),
            output.data_ptr(),
            *_pixels(hidden),
        )
    else:
        n, channels, height, width = hidden.shape
        library().longtail_norm_relu_pooled(
            hidden.data_ptr(),
            shortcut.data_ptr(),
            scale.data_ptr(),
            shift.data_ptr(),
            output.data_ptr(),
            *(n, height, width, shortcut.shape[1], channels),
            torch.get_num_threads(),
        )
    return output


def _statistics(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> Tensor:
    """Count a batch in, and return what its norm keeps: mean, 1 / deviation, scale and shift."""
    kept = weight.new_empty(4, len(weight))
    library().longtail_norm_train(
        hidden.data_ptr(),
        weight.data_ptr(),
        bias.data_ptr(),
        running_mean.data_ptr(),
        running_var.data_ptr(),
        momentum,
        eps,
        kept.data_ptr(),
        *_pixels(hidden),
    )
    return kept


def _norm_back(
    grad: Tensor, output: Tensor | None, hidden: Tensor, kept: Tensor, of_residual: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `hidden` and of norm's weight and bias."""
    of_hidden, of_norm = torch.empty_like(hidden), kept.new_empty(2, hidden.shape[1])
    library().longtail_norm_back(
        grad.data_ptr(),
        _address(output),
        hidden.data_ptr(),
        kept.data_ptr(),
        of_hidden.data_ptr(),
        _address(of_residual),
        of_norm[0].data_ptr(),
        of_norm[1].data_ptr(),
        *_pixels(hidden),
    )
    return of_hidden, of_norm[0], of_norm[1]


def _halve_back(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    hidden: Tensor,
    kept: Tensor,
    sums: Tensor,
    of_shortcut: Tensor,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return the gradients of `input`, and of weight and norm's weight and bias."""
    of_input, of_weight = torch.empty_like(input), torch.empty_like(weight)
    of_norm = weight.new_empty(2, len(weight))
    library().longtail_halve_back(
        input.data_ptr(),
        grad.data_ptr(),
        hidden.data_ptr(),
        kept.data_ptr(),
        sums.data_ptr(),
        of_shortcut.data_ptr(),
        weight.data_ptr(),
        of_input.data_ptr(),
        of_weight.data_ptr(),
        *of_weight.stride(),
        of_norm[0].data_ptr(),
        of_norm[1].data_ptr(),
        *_sizes(input, weight),
    )
    return of_input, (of_weight, of_norm[0], of_norm[1])


def _forward(
    input: Tensor,
    before: Tensor | None,
    weight: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Convolve, and return the outcome and what its norm keeps: mean, 1 / deviation, scale and shift.

    `before` is what another norm kept: relu of that norm of `input` is convolved.
    """
    hidden, kept, matrices = _like_output(input, weight), weight.new_empty(4, len(weight)), _filter(weight)
    library().longtail_convolve_train(
        input.data_ptr(),
        _address(before),
        matrices.data_ptr(),
        hidden.data_ptr(),
        norm_weight.data_ptr(),
        norm_bias.data_ptr(),
        running_mean.data_ptr(),
        running_var.data_ptr(),
        momentum,
        eps,
        kept.data_ptr(),
        *_sizes(input, weight),
    )
    return hidden, kept


def _backward(
    grad: Tensor,
    input: Tensor,
    before: Tensor | None,
    weight: Tensor,
    hidden: Tensor,
    kept: Tensor,
    *,
    output: Tensor | None = None,
    of_residual: Tensor | None = None,
    of_input: Tensor | None,
    add: bool = False,
    sums: Tensor | None = None,
    before_sums: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of weight and norm's weight and bias; fill or add to what else is given."""
    grad, matrices = _last(grad), _filter(weight, turned=True)
    of_weight, of_norm = torch.empty_like(weight), weight.new_empty(2, len(weight))
    library().longtail_convolve_back(
        input.data_ptr(),
        _address(before),
        grad.data_ptr(),
        _address(output),
        hidden.data_ptr(),
        kept.data_ptr(),
        _address(sums),
        matrices.data_ptr(),
        _address(of_input),
        add,
        _address(of_residual),
        of_weight.data_ptr(),
        *of_weight.stride(),
        of_norm[0].data_ptr(),
        of_norm[1].data_ptr(),
        _address(before_sums),
        *_sizes(input, weight),
    )
    return of_weight, of_norm[0], of_norm[1]


class _ConvNormReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, residual: Tensor | None, *own: Any) -> Tensor:
        hidden, kept = _forward(input, None, weight, *own)
        output = _norm_relu(hidden, residual, kept[2], kept[3])
        ctx.save_for_backward(input, weight, hidden, kept, None if residual is None else output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        input, weight, hidden, kept, output = ctx.saved_tensors
        of_input = torch.empty_like(input) if ctx.needs_input_grad[0] else None
        of_residual = None if output is None else torch.empty_like(output)
        of_weight, scale, shift = _backward(
            grad, input, None, weight, hidden, kept, output=output, of_residual=of_residual, of_input=of_input
        )
        return of_input, of_weight, of_residual, scale, shift, None, None, None, None


class _ResidualBlock(torch.autograd.Function):
    """The activation between the convolutions is never stored: the second one makes it from `hidden1`."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight1: Tensor, *rest: Any) -> Tensor:
        own1, weight2, own2 = rest[:6], rest[6], rest[7:]
        halved = weight1.shape[0] != weight1.shape[1]
        if halved:
            hidden1 = _last(torch.conv2d(input, weight1, stride=2, padding=1))
            kept1 = _statistics(hidden1, *own1)
        else:
            hidden1, kept1 = _forward(input, None, weight1, *own1)
        hidden2, kept2 = _forward(hidden1, kept1, weight2, *own2)
        output = _norm_relu(hidden2, input, kept2[2], kept2[3])
        ctx.save_for_backward(input, weight1, hidden1, kept1, weight2, hidden2, kept2, output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        input, weight1, hidden1, kept1, weight2, hidden2, kept2, output = ctx.saved_tensors
        inner, of_shortcut = torch.empty_like(hidden1), torch.empty_like(output)
        sums = weight1.new_empty(2, len(weight1), dtype=torch.float64)
        second = _backward(
            grad,
            hidden1,
            kept1,
            weight2,
            hidden2,
            kept2,
            output=output,
            of_residual=of_shortcut,
            of_input=inner,
            before_sums=sums,
        )
        first: tuple[Tensor, ...]
        if weight1.shape[0] == weight1.shape[1]:
            of_input = of_shortcut  # the convolution adds its own
            first = _backward(
                inner, input, None, weight1, hidden1, kept1, of_input=of_input, add=True, sums=sums
            )
        else:
            of_input, first = _halve_back(inner, input, weight1, hidden1, kept1, sums, of_shortcut)
        unneeded = (None,) * 4
        return of_input, *first, *unneeded, *second, *unneeded


class _NormReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, residual: Tensor | None, *own: Any) -> Tensor:
        kept = _statistics(hidden, *own)
        output = _norm_relu(hidden, residual, kept[2], kept[3])
        ctx.save_for_backward(hidden, kept, None if residual is None else output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        hidden, kept, output = ctx.saved_tensors
        of_residual = None if output is None else torch.empty_like(output)
        of_hidden, scale, shift = _norm_back(_last(grad), output, hidden, kept, of_residual)
        return of_hidden, of_residual, scale, shift, None, None, None, None


@functools.cache
def library() -> ctypes.CDLL:
    """Build the kernels for this machine, or find them built in the user's cache, and load them.

    Raises:
        BuildError: there is no compiler, or it failed, or the cache cannot be written.
    """
    return _load(_build(_FLAGS))


def _build(flags: tuple[str, ...]) -> Path:
    try:
        named = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise BuildError(f"CXX={os.environ['CXX']!r} is no command: {error}; mend or unset it") from error
    compiler = named or [c for c in ("c++", "g++", "clang++") if shutil.which(c)][:1]
    if not compiler or shutil.which(compiler[0]) is None:
        what = f"CXX={shlex.join(named)!r} is not there" if named else "there is no C++ compiler"
        raise BuildError(f"{what}; install g++ or clang++, or name one by the variable CXX")
    # the macros name the compiler's version and the machine's instructions
    macros = _run([*compiler, *flags, "-dM", "-E", "-x", "c++", os.devnull])
    try:
        root = _checks.cache_folder()
        key = hashlib.sha256(_SOURCE.read_bytes() + macros + repr(flags).encode()).hexdigest()[:16]
        target = root / f"convolution-{key}.so"
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        if target.exists() and _belongs_to_us(target):
            return target
        with tempfile.TemporaryDirectory(dir=root) as folder:
            built = Path(folder) / target.name
            _run([*compiler, *flags, "-o", str(built), str(_SOURCE)])
            built.replace(target)
    except (OSError, ValueError) as error:
        remedy = "set XDG_CACHE_HOME to a folder of yours that can be written"
        raise BuildError(f"cannot keep the kernels: {error}; {remedy}") from error
    return target


def _belongs_to_us(path: Path) -> bool:
    """Whether nobody else can have put it there."""
    return not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()


def _load(target: Path) -> ctypes.CDLL:
    try:
        loaded = ctypes.CDLL(str(target))
    except OSError as error:
        remedy = "delete it, or set XDG_CACHE_HOME to a folder that programs may be loaded from"
        raise BuildError(f"cannot load {target}: {error}; {remedy}") from error
    pointer, size, number, real = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_double
    for name, types in {
        "filter": [pointer, *[size] * 4, pointer, size, size, number, number],
        "convolve": [*[pointer] * 3, *[size] * 5, number],
        "convolve_train": [*[pointer] * 8, real, real, pointer, *[size] * 5, number],
        "convolve_back": [
            *[pointer] * 9,
            number,
            *[pointer] * 2,
            *[size] * 4,
            *[pointer] * 3,
            *[size] * 5,
            number,
        ],
        "norm_relu": [*[pointer] * 5, size, size, number],
        "norm_relu_pooled": [*[pointer] * 5, *[size] * 5, number],
        "halve_back": [*[pointer] * 9, *[size] * 4, pointer, pointer, *[size] * 5, number],
        "norm_train": [*[pointer] * 5, real, real, pointer, size, size, number],
        "norm_back": [*[pointer] * 8, size, size, number],
    }.items():
        function = getattr(loaded, f"longtail_{name}")
        function.argtypes, function.restype = types, None
    return loaded


def _run(command: list[str]) -> bytes:
    try:
        return subprocess.run(command, check=True, capture_output=True, timeout=300).stdout
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip().splitlines()[-5:]
        raise BuildError(f"{command[0]} failed:\n" + "\n".join(last)) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]} failed: {error}") from error
