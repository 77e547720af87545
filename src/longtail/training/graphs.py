"""Steps of a small network as CUDA graphs: the host launches one thing where there were hundreds."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from longtail.training.data import TrainingData

__all__ = ["CAPTURE", "DeviceEpochs"]

_WARM_UP: Final = 3  # steps of a size before its capture: libraries set themselves up in the first ones
CAPTURE: Final = threading.Lock()  # to capture, for which the device is synchronised, and to destroy graphs


class DeviceEpochs:
    """Plays epochs whose every input is on the device: draws, learning rates, and the number of the step.

    The first steps of each batch size run eagerly; then one is captured, and from there on replayed. A
    replay runs the same kernels on the same values, so capturing changes no bit of the result.

    Args:
        update: ``update(inputs, targets, rate, stop) -> loss``: one step of training that never waits for
            the device; the learning rate is a 0-d tensor, and `stop` a 0-d flag that it raises.
        data: on a CUDA device.
        steps: in an epoch.
        capture: False runs every step eagerly.

    Attributes:
        captured: number of graphs so far.
    """

    def __init__(
        self,
        update: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
        data: TrainingData,
        steps: int,
        *,
        capture: bool,
    ) -> None:
        device, batch = data.targets.device, data.recipe.batch_size
        self._update, self._data, self._capture = update, data, capture
        self._sizes = [batch] * (steps - 1) + [len(data) - batch * (steps - 1)]
        self._draws = [drawn.to(device) for drawn in data.draw(1)]
        self._rates = torch.zeros(steps, device=device)
        self._losses, self._stopped = torch.zeros(steps, device=device), torch.zeros(steps, device=device)
        self._stop = torch.zeros((), device=device)
        self._rate = torch.zeros((), device=device)
        self._first = torch.zeros((), dtype=torch.int64, device=device)  # sample of the step
        self._step = torch.zeros(1, dtype=torch.int64, device=device)
        self._range = torch.arange(batch, device=device)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._seen: Counter[int] = Counter()

    @property
    def captured(self) -> int:
        """Number of graphs so far."""
        return len(self._graphs)

    def play(self, epoch: int, rates: Tensor) -> tuple[Tensor, Tensor]:
        """Train one epoch.

        Args:
            epoch: from 1.
            rates: learning rates, float32 of shape (steps,).

        Returns:
            The loss of each step and the flag after it, on the device.
        """
        for tensor, drawn in zip(self._draws, self._data.draw(epoch), strict=True):
            tensor.copy_(drawn)
        self._rates.copy_(rates)
        for tensor in (self._stop, self._first, self._step):
            tensor.zero_()
        for size in self._sizes:
            self._play_step(size)
        return self._losses.clone(), self._stopped.clone()

    def _play_step(self, size: int) -> None:
        if size in self._graphs:
            self._graphs[size].replay()
        elif not self._capture or self._seen[size] < _WARM_UP:
            self._seen[size] += 1
            self._one(size)
        else:
            graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._step.device)
            with (
                CAPTURE,
                torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
            ):
                self._one(size)
            self._graphs[size] = graph
            graph.replay()

    def _one(self, size: int) -> None:
        now = self._range[:size] + self._first
        inputs, targets = self._data.gather([drawn[now] for drawn in self._draws])
        self._rate.copy_(self._rates[self._step][0])
        loss = self._update(inputs, targets, self._rate, self._stop)
        self._losses.index_copy_(0, self._step, loss.view(1))
        self._stopped.index_copy_(0, self._step, self._stop.view(1))
        self._first += size
        self._step += 1
