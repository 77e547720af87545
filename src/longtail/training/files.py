"""What outlives a kill, and what must not: whole files, folders that one process holds, workers; no torch."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any, TypeVar

from longtail import _checks

__all__ = [
    "InUseError",
    "RunFolderError",
    "in_parallel",
    "locked",
    "parse_json",
    "read_json",
    "write_atomic",
    "writing",
]

_T = TypeVar("_T")
WORKER_ENDED = (
    "its worker process was ended three times, the last time alone, as for want of memory; make room, then "
    "start the same command again"
)


class RunFolderError(RuntimeError):
    """A run folder cannot be written, is in use, or holds no usable checkpoint; the text says what to do."""


class InUseError(RunFolderError):
    """Another process, or another thread of this one, holds the folder."""


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader, also after a power cut, finds the old content or all of the new.

    Its folder is made if need be.

    Raises:
        RunFolderError: no space, no permission, or a file stands where a folder should be; the old content
            is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if os.name == "posix":
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # the new name, too, must survive a power cut
            finally:
                os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise RunFolderError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose a folder that can "
            "be written, then start the same run again: what was already written is intact"
        ) from error


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say in one way what other libraries raise, each in its own, where there is no space to write.

    Raises:
        RunFolderError: no space, or a disk that lets nobody write.
    """
    try:
        yield
    except Exception as error:
        code = error.errno if isinstance(error, OSError) else None
        said = str(error)
        if isinstance(error, RunFolderError) or not (
            code in _FULL or any(word in said for word in _NO_SPACE)
        ):
            raise
        raise RunFolderError(
            f"cannot write into {folder}: {os.strerror(code or errno.ENOSPC)}; free some space, then start "
            "the same run again: it goes on from its last whole checkpoint"
        ) from error


# what full disks are called by the system, and by safetensors and torch.save
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_NO_SPACE = ("No space left on device", "inline_container.cc", "iostream error")


def read_json(path: Path) -> Any:
    """Read a file of JSON that anyone may have written.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or nested deeper than any file of longtail.
    """
    return parse_json(path.read_bytes(), str(path))


def parse_json(text: str | bytes, name: str) -> Any:
    """Read JSON that anyone may have written; errors call it `name`.

    Raises:
        ValueError: as `read_json`.
    """
    return _checks.parse_json(text, name, what="JSON that longtail wrote")


@contextlib.contextmanager
def locked(folder: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Hold a folder, made if need be, for this process, however it ends; wait some seconds for another one.

    Raises:
        RunFolderError: the folder cannot be made.
        InUseError: another process holds it.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=wait, poll_interval=0.05)
    except Timeout:
        raise InUseError(
            f"run folder {folder} is in use by another run; wait for it or choose another folder"
        ) from None
    except OSError as error:
        raise RunFolderError(
            f"cannot use {folder} as a run folder: {error.strerror or error}; "
            "choose a folder that can be made and written"
        ) from error
    try:
        yield
    finally:
        lock.release()


def in_parallel(
    run: Callable[..., _T],
    tasks: Iterable[tuple[Any, ...]],
    jobs: int,
    *,
    prefer: str | None = None,
    lost: Callable[..., _T] | None = None,
) -> Iterator[_T]:
    """Run tasks side by side; a worker process ends soon after this one, however that ended.

    Where a worker ends before this one, as for want of memory, what is not done is started again, in the end
    one by one.

    Args:
        run: called as ``run(*task)``.
        tasks: the most wanted first.
        jobs: tasks at a time.
        prefer: "threads" | "processes"; a joblib backend chosen by the caller is used.
        lost: called as ``lost(WORKER_ENDED, *task)`` for a task whose worker ended although it ran alone.

    Yields:
        What each call returned, as it ends.

    Raises:
        RuntimeError: a worker ended, and nobody says what is lost with it.
    """
    from joblib import Parallel, delayed

    left = dict(enumerate(tasks))
    for alone in (False, False, True):
        for batch in [{i: task} for i, task in left.items()] if alone else [dict(left)]:
            side = max(2, jobs) if alone else jobs  # this process survives what runs beside it
            pool = Parallel(n_jobs=side, prefer=prefer, return_as="generator_unordered", batch_size=1)
            work = (delayed(_work)(os.getpid(), run, i, task) for i, task in batch.items())
            try:
                for i, found in pool(work):
                    del left[i]
                    yield found
            except BrokenExecutor:
                if not alone:
                    _checks.warn("a worker process was ended; what is not done is started again")
                    time.sleep(1.0)  # until the others, which end with it, have left their folders
                elif lost is None:
                    raise RuntimeError(WORKER_ENDED) from None
                else:
                    (i,) = batch
                    yield lost(WORKER_ENDED, *left.pop(i))
        if not left:
            return


def _work(owner: int, run: Callable[..., _T], i: int, task: tuple[object, ...]) -> tuple[int, _T]:
    if os.getpid() != owner:
        _end_with(os.getppid())
    return i, run(*task)


@functools.cache  # one watch a worker
def _end_with(parent: int) -> None:
    """End this process once it has another parent, or what a kill leaves at work bars the next start."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
