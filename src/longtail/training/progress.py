"""Who is told about each epoch: a bar, a function, TensorBoard."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

__all__ = ["Progress", "counted", "progress_bar", "tensorboard_log"]

Progress = Callable[[int, int, float, float | None], None]
"""Called as ``(epoch, epochs, loss, test_error)``; the error is the last one measured, None before that."""


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Draw a bar with loss, error and time left on standard error while the context lasts."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, numbers="")

        def report(epoch: int, epochs: int, loss: float, error: float | None) -> None:
            numbers = f"loss {loss:.4f}" + ("" if error is None else f"  error {100 * error:.2f} %")
            bar.update(task, completed=epoch, total=epochs, numbers=numbers)

        yield report


@contextlib.contextmanager
def tensorboard_log(folder: str | os.PathLike[str], first_epoch: int) -> Iterator[Progress]:
    """Write TensorBoard events; those of `first_epoch` and later that an earlier start left are hidden."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder, purge_step=first_epoch)

    def report(epoch: int, epochs: int, loss: float, error: float | None) -> None:
        writer.add_scalar("train/loss", loss, epoch)
        if error is not None:
            writer.add_scalar("test/error", error, epoch)

    try:
        yield report
    finally:
        writer.close()


@contextlib.contextmanager
def counted(title: str, *, every: float = 30.0) -> Iterator[Callable[[int, int], None]]:
    """Show how many of how many are done: a bar in a terminal, else a line every half minute.

    Yields:
        To be called as ``(done, total)``.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        said = started = time.monotonic()
        first = -1

        def line(done: int, total: int) -> None:
            nonlocal said, first
            first, now = done if first < 0 else first, time.monotonic()
            if now - said >= every:
                left = (now - started) / max(1, done - first) * (total - done)
                console.print(f"{title}: {done:,} of {total:,}, about {left:.0f} s left", soft_wrap=True)
                said = now

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
