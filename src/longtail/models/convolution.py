"""3x3 convolution, and batch norm with ReLU, for training on the CPU: C++ built at first use.

`conv` and `norm_relu` are torch's operations, in words of a network. Inside `native` they run
``convolution.cpp`` where it applies: Winograd's algorithm takes a quarter of the multiplications, and norm,
shortcut and ReLU go over memory once. Sums are taken in another order, so results differ from torch's by
rounding. Elsewhere, and where the kernels do not apply, they are torch's.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import relu

__all__ = ["BuildError", "conv", "native", "norm_relu"]

_SOURCE: Final = Path(__file__).with_suffix(".cpp")
_FLAGS: Final = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared")
_CHANNELS: Final = 16  # the kernels' channels come in multiples of this
_state = threading.local()


class BuildError(RuntimeError):
    """The kernels could not be built: no compiler, or it failed."""


@contextlib.contextmanager
def native() -> Iterator[None]:
    """Let `conv` and `norm_relu` of this thread run the C++ kernels where they apply.

    Raises:
        BuildError: they cannot be built.
    """
    library()
    before, _state.on = getattr(_state, "on", False), True
    try:
        yield
    finally:
        _state.on = before


def conv(module: nn.Conv2d, input: Tensor) -> Tensor:
    """Return ``module(input)``.

    The kernels apply to 3x3, stride 1, padding 1, no bias, channels in multiples of 16, and float32 of shape
    (N, C, H, W), channels last in memory. Their derivative cannot be differentiated again.
    """
    if _applies(input) and _convolves(module):
        output: Tensor = _Convolution.apply(input, module.weight)  # type: ignore[no-untyped-call]
        return output
    found: Tensor = module(input)
    return found


def norm_relu(module: nn.BatchNorm2d, input: Tensor, residual: Tensor | None = None) -> Tensor:
    """Return ``relu(module(input) + residual)``.

    Args:
        module: batch norm with scale, shift and running statistics.
        input: (N, C, H, W).
        residual: of the input's shape; None for nothing.

    The kernels apply to float32, channels last in memory, channels in multiples of 16.
    """
    tracked = module.affine and module.track_running_stats and module.momentum is not None
    fits = _applies(input) and (residual is None or (_applies(residual) and residual.shape == input.shape))
    if fits and tracked and (module.training or not torch.is_grad_enabled()):
        arguments = (input, module.weight, module.bias, residual)
        output: Tensor
        if module.training:
            pixels = input.numel() // input.shape[1]
            if pixels == 1:
                raise ValueError(
                    f"batch norm needs over one value a channel to train, got {list(input.shape)}"
                )
            assert module.num_batches_tracked is not None
            module.num_batches_tracked.add_(1)
            running = (module.running_mean, module.running_var)
            output = _NormReLU.apply(*arguments, *running, module.momentum, module.eps)  # type: ignore[no-untyped-call]
            return output
        assert module.running_mean is not None
        assert module.running_var is not None
        scale = module.weight * torch.rsqrt(module.running_var + module.eps)
        output = _apply_norm(input, residual, scale, module.bias - module.running_mean * scale)
        return output
    normed = module(input)
    return relu(normed if residual is None else normed + residual, inplace=True)


def _applies(input: Tensor) -> bool:
    return (
        getattr(_state, "on", False)
        and input.is_cpu
        and input.dtype == torch.float32
        and input.ndim == 4
        and input.shape[1] % _CHANNELS == 0
        and input.numel() > 0
        and input.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
        and type(input) is Tensor
    )


def _convolves(module: nn.Conv2d) -> bool:
    return (
        module.kernel_size == (3, 3)
        and module.stride == module.dilation == (1, 1)
        and module.padding == (1, 1)
        and module.padding_mode == "zeros"
        and module.groups == 1
        and module.bias is None
        and module.out_channels % _CHANNELS == 0
        and module.weight.dtype == torch.float32
    )


def _last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


def _filter(weight: Tensor, turned: bool) -> Tensor:
    """Return the weights as 36 matrices from I to O channels, the turned ones from O to I."""
    outputs, inputs = weight.shape[:2]
    so, si, sy, sx = weight.stride()
    if turned:
        outputs, inputs, so, si = inputs, outputs, si, so
    matrices = torch.empty(36, inputs, outputs)
    library().longtail_filter(weight.data_ptr(), so, si, sy, sx, matrices.data_ptr(), inputs, outputs, turned)
    return matrices


def _convolve(input: Tensor, matrices: Tensor) -> Tensor:
    n, inputs, height, width = input.shape
    outputs = matrices.shape[2]
    output = torch.empty((n, outputs, height, width), memory_format=torch.channels_last)
    library().longtail_convolve(
        input.data_ptr(),
        matrices.data_ptr(),
        output.data_ptr(),
        n,
        height,
        width,
        inputs,
        outputs,
        torch.get_num_threads(),
    )
    return output


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(input, weight)
        return _convolve(input, _filter(weight, turned=False))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        input, weight = ctx.saved_tensors
        grad, of_input, of_weight = _last(grad), None, None
        if ctx.needs_input_grad[0]:
            of_input = _convolve(grad, _filter(weight, turned=True))
        if ctx.needs_input_grad[1]:
            n, inputs, height, width = input.shape
            of_weight = torch.empty_like(weight)
            library().longtail_correlate(
                input.data_ptr(),
                grad.data_ptr(),
                of_weight.data_ptr(),
                *of_weight.stride(),
                n,
                height,
                width,
                inputs,
                weight.shape[0],
                torch.get_num_threads(),
            )
        return of_input, of_weight


def _apply_norm(input: Tensor, residual: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
    output = torch.empty_like(input)
    channels = input.shape[1]
    library().longtail_norm_relu(
        input.data_ptr(),
        None if residual is None else residual.data_ptr(),
        scale.data_ptr(),
        shift.data_ptr(),
        output.data_ptr(),
        input.numel() // channels,
        channels,
        torch.get_num_threads(),
    )
    return output


class _NormReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        channels = input.shape[1]
        output, kept = torch.empty_like(input), torch.empty(4, channels)
        library().longtail_norm_relu_train(
            input.data_ptr(),
            None if residual is None else residual.data_ptr(),
            weight.data_ptr(),
            bias.data_ptr(),
            running_mean.data_ptr(),
            running_var.data_ptr(),
            momentum,
            eps,
            output.data_ptr(),
            kept.data_ptr(),
            input.numel() // channels,
            channels,
            torch.get_num_threads(),
        )
        ctx.save_for_backward(input, output, kept)
        ctx.residual = residual is not None
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, output, kept = ctx.saved_tensors
        grad, channels = _last(grad), input.shape[1]
        of_input, of_weight, of_bias = torch.empty_like(input), torch.empty(channels), torch.empty(channels)
        of_residual = torch.empty_like(input) if ctx.residual else None
        library().longtail_norm_relu_back(
            grad.data_ptr(),
            output.data_ptr(),
            input.data_ptr(),
            kept.data_ptr(),
            of_input.data_ptr(),
            None if of_residual is None else of_residual.data_ptr(),
            of_weight.data_ptr(),
            of_bias.data_ptr(),
            input.numel() // channels,
            channels,
            torch.get_num_threads(),
        )
        return of_input, of_weight, of_bias, of_residual, None, None, None, None


@functools.cache
def library() -> ctypes.CDLL:
    """Build the kernels for this machine, or find them built in the user's cache, and load them.

    Raises:
        BuildError: there is no compiler, or it failed.
    """
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++"))), None)
    if compiler is None:
        raise BuildError("no C++ compiler found; install g++ or clang++, or name one by the variable CXX")
    # the macros name the compiler's version and the machine's instructions
    macros = _run([compiler, *_FLAGS[:-1], "-dM", "-E", "-x", "c++", os.devnull])
    key = hashlib.sha256(_SOURCE.read_bytes() + macros + repr(_FLAGS).encode()).hexdigest()[:16]
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "longtail"
    target = root / f"convolution-{key}.so"
    if not target.exists():
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root) as folder:
                built = Path(folder) / target.name
                _run([compiler, *_FLAGS, "-o", str(built), str(_SOURCE)])
                built.replace(target)
        except OSError as error:
            raise BuildError(
                f"cannot write {target}: {error}; set XDG_CACHE_HOME to a writable folder"
            ) from error
    try:
        loaded = ctypes.CDLL(str(target))
    except OSError as error:
        raise BuildError(f"cannot load {target}: {error}; delete it to build it again") from error
    pointer, size, number, real = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_double
    for name, types in {
        "filter": [pointer, *[size] * 4, pointer, size, size, number],
        "convolve": [*[pointer] * 3, *[size] * 5, number],
        "correlate": [*[pointer] * 3, *[size] * 9, number],
        "norm_relu": [*[pointer] * 5, size, size, number],
        "norm_relu_train": [*[pointer] * 6, real, real, pointer, pointer, size, size, number],
        "norm_relu_back": [*[pointer] * 8, size, size, number],
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
