"""The forward of a CIFAR ResNet and its blocks by C++ kernels: convolution, batch norm, ReLU, shortcut.

`running` puts it in the place of a network's own for a while. The kernels run where `conv_norm_relu` says
they can; elsewhere it is torch. Winograd's algorithm takes a quarter of the multiplications; norm, shortcut
and ReLU share its ways through memory. Results differ from torch's by rounding.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from longtail.models.resnet_cifar import BasicBlock, CifarResNet
from longtail_cifar_cpu.build import library

__all__ = ["conv_norm_relu", "residual_block", "residual_blocks", "running"]

_CHANNELS: Final = 16  # the kernels' channels come in multiples of this


@contextlib.contextmanager
def running(module: nn.Module) -> Iterator[None]:
    """Let the kernels compute the forward of a network, or of blocks, while the context lasts.

    Modules of other kinds, subclasses, and modules with a forward of their own keep theirs.

    Raises:
        BuildError: there are no kernels for this machine.
    """
    library()
    kinds: dict[type[nn.Module], Callable[..., Tensor]] = {CifarResNet: _network, BasicBlock: residual_block}
    replaced = [m for m in module.modules() if type(m) in kinds and "forward" not in vars(m)]
    for m in replaced:
        vars(m)["forward"] = functools.partial(kinds[type(m)], m)
    try:
        yield
    finally:
        for m in replaced:
            del vars(m)["forward"]


def conv_norm_relu(
    conv: nn.Conv2d, norm: nn.BatchNorm2d, input: Tensor, residual: Tensor | None = None
) -> Tensor:
    """Return ``relu(norm(conv(input)) + residual)``.

    Args:
        conv: any convolution; the kernels' own is 3x3 with stride 1, padding 1, no bias, and channels in
            multiples of 16.
        norm: batch norm; the kernels' own has scale, shift and running statistics.
        input: (N, C, H, W); the kernels take float32, channels last in memory. Images without a gradient may
            have fewer than 16 channels.
        residual: of the output's shape; None for nothing.

    Modules with hooks, and subclasses of the two, are called as torch would.

    Raises:
        RuntimeError: in backward with ``create_graph=True``, where the kernels ran.
        ValueError: one value a channel, while training.
    """
    if not (_normalises(norm) and (residual is None or _fits(residual))):
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
        _count_batch([norm], [shape])
        own = norm.weight, norm.bias, norm
        if hidden is None:
            output = _ConvNormReLU.apply(input, residual, conv.weight, *own)  # type: ignore[no-untyped-call]
        else:
            output = _NormReLU.apply(hidden, residual, *own)  # type: ignore[no-untyped-call]
        return output
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    if hidden is None:
        hidden = _convolve(input, conv.weight)
    return _norm_relu(hidden, residual, scale, norm.bias - norm.running_mean * scale)


def residual_block(block: BasicBlock, input: Tensor) -> Tensor:
    """Return what the forward of a block does; its layers, `input` and the errors are `conv_norm_relu`'s."""
    output = _run_blocks([block], input)
    if output is not None:
        return output
    shortcut = block.shortcut(input)
    inner = conv_norm_relu(block.conv1, block.norm1, input)
    return conv_norm_relu(block.conv2, block.norm2, inner, shortcut)


def residual_blocks(blocks: nn.Sequential, input: Tensor) -> Tensor:
    """Return ``blocks(input)``.

    The kernels run all of them at once if they can: in training, without hooks, and of no other kind.
    """
    modules = list(blocks)
    if not (_is_called(blocks, nn.Sequential) and all(_is_called(m, BasicBlock) for m in modules)):
        outcome: Tensor = blocks(input)
        return outcome
    # one by one what has no way back, for which all at once would keep its memory
    while modules and not _has_way_back(modules[0], input):
        input = modules.pop(0)(input)
    output = _run_blocks(modules, input)
    for module in modules if output is None else ():
        input = module(input)
    return input if output is None else output


def _network(model: CifarResNet, input: Tensor) -> Tensor:
    x = residual_blocks(model.blocks, conv_norm_relu(model.conv, model.norm, input))
    logits: Tensor = model.head(x.mean((2, 3)))
    return logits


def _is_called(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether calling a module is its kind's forward, or ours of it, and nothing else."""
    own = vars(module).get("forward")
    ours = own is None or getattr(own, "func", None) is residual_block
    return type(module) is kind and ours and not _hooked(module)


def _has_way_back(module: nn.Module, input: Tensor) -> bool:
    needed = input.requires_grad or any(parameter.requires_grad for parameter in module.parameters())
    return needed and torch.is_grad_enabled()


def _run_blocks(blocks: Sequence[Any], input: Tensor) -> Tensor | None:
    """Return the outcome of residual blocks, or None where the kernels cannot run all of them in training."""
    if not blocks or not _fits(input):
        return None
    shapes = [tuple(input.shape)]
    for block in blocks:
        shape = _outcome(block, shapes[-1])
        if shape is None:
            return None
        shapes.append(shape)
    layers = [pair for block in blocks for pair in ((block.conv1, block.norm1), (block.conv2, block.norm2))]
    norms = [norm for _, norm in layers]
    _count_batch(norms, shapes[1:])
    parameters = [tensor for conv, norm in layers for tensor in (conv.weight, norm.weight, norm.bias)]
    output: Tensor = _ResidualBlocks.apply(input, shapes, norms, *parameters)  # type: ignore[no-untyped-call]
    return output


def _plain(norm: nn.BatchNorm2d, hidden: Tensor, residual: Tensor | None) -> Tensor:
    normed = norm(hidden)
    if residual is None:
        return relu(normed, inplace=not _hooked(norm))
    return relu(normed + residual, inplace=True)


def _count_batch(norms: Sequence[nn.BatchNorm2d], shapes: Sequence[Sequence[int]]) -> None:
    """Count a batch, of these shapes, into norms."""
    for shape in shapes:
        if math.prod(shape) == shape[1]:
            raise ValueError(f"batch norm needs over one value a channel to train, got {list(shape)}")
    if counts := [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]:
        torch._foreach_add_(counts, 1)
    running = [tensor for norm in norms for tensor in (norm.running_mean, norm.running_var)]
    torch.autograd.graph.increment_version(running)  # type: ignore[arg-type]


def _outcome(block: Any, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of a block's outcome, if the kernels run it on an input of this shape."""
    conv1, norm1, conv2, norm2 = block.conv1, block.norm1, block.conv2, block.norm2
    n, inputs, height, width = shape
    channels = conv1.out_channels
    stride = 1 if channels == inputs else 2
    runs = (
        norm1.training
        and norm2.training
        and _normalises(norm1)
        and _normalises(norm2)
        and _is_ours(conv1, inputs, (stride, stride))
        and _is_ours(conv2, channels, (1, 1))
        and channels == conv2.out_channels == norm1.num_features == norm2.num_features
        # what becomes smaller does so in the way of the kernels' shortcut
        and (stride == 1 or (channels > inputs and height % 2 == width % 2 == 0))
    )
    return (n, channels, height // stride, width // stride) if runs else None


def _fits(input: Tensor, few: bool = False) -> bool:
    return (
        type(input) is Tensor
        and input.is_cpu
        and input.dtype == torch.float32
        and input.ndim == 4
        and (input.shape[1] % _CHANNELS == 0 or (few and input.shape[1] < _CHANNELS))
        and input.numel() > 0
        and input.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def _convolves(conv: nn.Conv2d, input: Tensor) -> bool:
    image = not (input.requires_grad and torch.is_grad_enabled())
    return _fits(input, few=image) and _is_ours(conv, input.shape[1], (1, 1))


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
        and _is_plain(conv.weight, (conv.out_channels, channels, 3, 3))
        and not _hooked(conv)
    )


def _normalises(norm: nn.BatchNorm2d) -> bool:
    return (
        type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and norm.eps > 0
        and all(
            _is_plain(tensor, (norm.num_features,))
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        )
        and not _hooked(norm)
    )


def _is_plain(tensor: Tensor | None, shape: tuple[int, ...]) -> bool:
    return (
        type(tensor) in (nn.Parameter, Tensor)
        and tensor is not None
        and tensor.is_cpu
        and tensor.dtype == torch.float32
        and tensor.shape == shape
        and (tensor.ndim > 1 or tensor.is_contiguous())
    )


def _hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or nn.modules.module._has_any_global_hook()  # type: ignore[no-untyped-call]
    )


def _refuse_second_derivative() -> None:
    if torch.is_grad_enabled():  # create_graph=True
        raise RuntimeError("the CPU kernels have no second derivative; compute it outside of running()")


def _last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


class _Parameters(ctypes.Structure):
    """Of a convolution and its norm, or their gradients."""

    _fields_ = (
        ("weight", ctypes.c_void_p),
        *((f"stride{axis}", ctypes.c_long) for axis in range(4)),
        ("scale", ctypes.c_void_p),
        ("shift", ctypes.c_void_p),
    )


class _Statistics(ctypes.Structure):
    _fields_ = (
        ("mean", ctypes.c_void_p),
        ("var", ctypes.c_void_p),
        ("momentum", ctypes.c_double),
        ("eps", ctypes.c_double),
    )


class _Block(ctypes.Structure):
    _fields_ = (
        *((name, _Parameters) for name in ("first", "second")),
        *((name, _Statistics) for name in ("running1", "running2")),
        *((name, ctypes.c_void_p) for name in ("hidden1", "hidden2", "kept", "out")),
        *((name, ctypes.c_long) for name in ("height", "width", "inputs", "channels")),
    )


class _BlockBack(ctypes.Structure):
    """A block's gradients, and memory of its outcome's size."""

    _fields_ = (
        *((name, _Parameters) for name in ("first", "second")),
        *((name, ctypes.c_void_p) for name in ("inner", "passed")),
    )


def _parameters(
    weight: Tensor | None, scale: Tensor | None = None, shift: Tensor | None = None
) -> _Parameters:
    strides = (0, 0, 0, 0) if weight is None else weight.stride()
    return _Parameters(_address(weight), *strides, _address(scale), _address(shift))


def _statistics(norm: nn.BatchNorm2d) -> _Statistics:
    return _Statistics(_address(norm.running_mean), _address(norm.running_var), norm.momentum, norm.eps)


def _gradients(*parameters: Tensor) -> list[Tensor]:
    return [torch.empty_like(parameter) for parameter in parameters]


def _output_shape(input: Tensor, weight: Tensor) -> tuple[int, ...]:
    n, _, height, width = input.shape
    return n, weight.shape[0], height, width


def _new(shape: Sequence[int]) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device="cpu", memory_format=torch.channels_last)


def _sizes(input: Tensor, weight: Tensor) -> tuple[int, ...]:
    n, inputs, height, width = input.shape
    return n, height, width, inputs, weight.shape[0], torch.get_num_threads()


def _pixels(hidden: Tensor) -> tuple[int, ...]:
    return hidden.numel() // hidden.shape[1], hidden.shape[1], torch.get_num_threads()


def _convolve(input: Tensor, weight: Tensor) -> Tensor:
    output = _new(_output_shape(input, weight))
    library().longtail_convolve(
        input.data_ptr(),
        ctypes.byref(_parameters(weight)),
        None,
        output.data_ptr(),
        None,
        *_sizes(input, weight),
    )
    return output


def _norm_relu(hidden: Tensor, residual: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
    output = torch.empty_like(hidden)
    library().longtail_norm_relu(
        hidden.data_ptr(),
        _address(residual),
        scale.data_ptr(),
        shift.data_ptr(),
        output.data_ptr(),
        *_pixels(hidden),
    )
    return output


class _ConvNormReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        residual: Tensor | None,
        weight: Tensor,
        scale: Tensor,
        shift: Tensor,
        norm: nn.BatchNorm2d,
    ) -> Tensor:
        hidden, kept = _new(_output_shape(input, weight)), weight.new_empty(4, len(weight))
        library().longtail_convolve(
            input.data_ptr(),
            ctypes.byref(_parameters(weight, scale, shift)),
            ctypes.byref(_statistics(norm)),
            hidden.data_ptr(),
            kept.data_ptr(),
            *_sizes(input, weight),
        )
        output = _norm_relu(hidden, residual, kept[2], kept[3])
        ctx.save_for_backward(input, weight, scale, hidden, kept, None if residual is None else output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        input, weight, scale, hidden, kept, output = ctx.saved_tensors
        grad = _last(grad)
        of_input = torch.empty_like(input) if ctx.needs_input_grad[0] else None
        of_residual = None if output is None else torch.empty_like(output)
        gradients = _gradients(weight, scale, scale)
        library().longtail_convolve_back(
            grad.data_ptr(),
            input.data_ptr(),
            ctypes.byref(_parameters(weight)),
            _address(output),
            hidden.data_ptr(),
            kept.data_ptr(),
            _address(of_input),
            _address(of_residual),
            ctypes.byref(_parameters(*gradients)),
            *_sizes(input, weight),
        )
        return of_input, of_residual, *gradients, None


class _ResidualBlocks(torch.autograd.Function):
    """The activation between two convolutions is never stored: the second one makes it from `hidden1`."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        shapes: list[tuple[int, ...]],
        norms: list[nn.BatchNorm2d],
        *parameters: Tensor,
    ) -> Tensor:
        count = len(shapes) - 1
        memory = [_new(shape) for shape in shapes[1:] for _ in range(3)]
        kept = [input.new_empty(2, 4, shape[1]) for shape in shapes[1:]]
        blocks = _blocks(shapes, parameters, memory, kept, norms)
        library().longtail_blocks(input.data_ptr(), blocks, count, len(input), torch.get_num_threads())
        ctx.shapes = shapes
        ctx.save_for_backward(input, *parameters, *memory, *kept)
        return memory[-1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        shapes, count = ctx.shapes, len(ctx.shapes) - 1
        input, *saved = ctx.saved_tensors
        parameters, memory, kept = saved[: 6 * count], saved[6 * count : 9 * count], saved[9 * count :]
        grad, of_input = _last(grad), torch.empty_like(input)
        gradients, outcomes = _gradients(*parameters), set(shapes[1:])
        backs = (_BlockBack * count)()
        inner = {shape: _new(shape) for shape in outcomes}
        passed = {shape: _new(shape) for shape in outcomes - {shapes[0]}} | {shapes[0]: of_input}
        for i, shape in enumerate(shapes[1:]):
            first, second = (_parameters(*gradients[k : k + 3]) for k in (6 * i, 6 * i + 3))
            backs[i] = _BlockBack(first, second, inner[shape].data_ptr(), passed[shape].data_ptr())
        library().longtail_blocks_back(
            grad.data_ptr(),
            input.data_ptr(),
            _blocks(shapes, parameters, memory, kept),
            backs,
            of_input.data_ptr(),
            count,
            len(input),
            torch.get_num_threads(),
        )
        return of_input, None, None, *gradients


def _blocks(
    shapes: Sequence[tuple[int, ...]],
    parameters: Sequence[Tensor],
    memory: Sequence[Tensor],
    kept: Sequence[Tensor],
    norms: Sequence[nn.BatchNorm2d] | None = None,
) -> ctypes.Array[_Block]:
    blocks = (_Block * len(kept))()
    for i, (before, after) in enumerate(itertools.pairwise(shapes)):
        _, inputs, height, width = before
        running = [_statistics(norm) for norm in norms[2 * i : 2 * i + 2]] if norms else [_Statistics()] * 2
        hidden1, hidden2, output = (tensor.data_ptr() for tensor in memory[3 * i : 3 * i + 3])
        blocks[i] = _Block(
            *(_parameters(*parameters[k : k + 3]) for k in (6 * i, 6 * i + 3)),
            *running,
            hidden1,
            hidden2,
            kept[i].data_ptr(),
            output,
            *(height, width, inputs, after[1]),
        )
    return blocks


class _NormReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, residual: Tensor | None, scale: Tensor, shift: Tensor, norm: nn.BatchNorm2d
    ) -> Tensor:
        kept = scale.new_empty(4, len(scale))
        library().longtail_norm(
            hidden.data_ptr(),
            ctypes.byref(_parameters(None, scale, shift)),
            ctypes.byref(_statistics(norm)),
            kept.data_ptr(),
            *_pixels(hidden),
        )
        output = _norm_relu(hidden, residual, kept[2], kept[3])
        ctx.save_for_backward(hidden, scale, kept, None if residual is None else output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        hidden, scale, kept, output = ctx.saved_tensors
        grad, of_hidden = _last(grad), torch.empty_like(hidden)
        of_residual = None if output is None else torch.empty_like(output)
        of_scale, of_shift = _gradients(scale, scale)
        library().longtail_norm_back(
            grad.data_ptr(),
            _address(output),
            hidden.data_ptr(),
            kept.data_ptr(),
            of_hidden.data_ptr(),
            _address(of_residual),
            ctypes.byref(_parameters(None, of_scale, of_shift)),
            *_pixels(hidden),
        )
        return of_hidden, of_residual, of_scale, of_shift, None
