"""Devices: which one, what it computes in, and what is shared by all threads of a process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import nn

__all__ = ["DRAWS", "DivergedError", "autocast", "exact_cudnn", "has_dropout", "seeded", "select_device"]

DRAWS: Final = threading.Lock()  # torch's default generators are shared by all threads


class DivergedError(ArithmeticError):
    """The loss or the gradient of a step was not finite; that update was not made.

    Attributes:
        epoch: from 1.
        step: within the epoch, from 1.
    """

    def __init__(self, message: str, *, epoch: int, step: int) -> None:
        super().__init__(message)
        self.epoch, self.step = epoch, step


def select_device(name: str | torch.device) -> torch.device:
    """Turn a name into a device that is there; "auto" takes CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:<number>', got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:<number>', got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name!r} is not there, {torch.cuda.device_count()} CUDA devices are; use 'cpu'"
        )
    return device


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which a network computes: "fp32" as it is, "bf16" in torch's mixed precision."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def has_dropout(model: nn.Module) -> bool:
    """Whether a network draws random numbers while training."""
    return any(isinstance(m, nn.modules.dropout._DropoutNd) for m in model.modules())


_CUDNN: Final = threading.Lock()
_cudnn_users: list[list[Any]] = []


@contextlib.contextmanager
def exact_cudnn() -> Iterator[None]:
    """Keep cuDNN to kernels that add in a fixed order, or resumes would differ, and fp32 to fp32, not TF32.

    The settings are of the whole process: they stay while any thread is in here.
    """
    cudnn: Any = torch.backends.cudnn
    wanted: list[tuple[Any, str, Any]] = [(cudnn, "deterministic", True), (cudnn, "benchmark", False)]
    new = hasattr(cudnn, "conv")  # since torch 2.9, which refuses to read the old setting once this was used
    wanted.append((cudnn.conv, "fp32_precision", "ieee") if new else (cudnn, "allow_tf32", False))
    with _CUDNN:
        before = [getattr(place, name) for place, name, _ in wanted]
        _cudnn_users.append(_cudnn_users[0] if _cudnn_users else before)
        for place, name, value in wanted:
            setattr(place, name, value)
    try:
        yield
    finally:
        with _CUDNN:
            before = _cudnn_users.pop()
            if not _cudnn_users:
                for (place, name, _), value in zip(wanted, before, strict=True):
                    setattr(place, name, value)


@contextlib.contextmanager
def seeded(model: nn.Module, seed: int, device: torch.device) -> Iterator[None]:
    """Seed what dropout draws from, and leave the caller's generators as they were."""
    if not has_dropout(model):
        yield
        return
    cuda = device.type == "cuda"
    with DRAWS, torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
