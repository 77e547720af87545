"""Files that survive: written whole or not at all, in folders that one process holds. Needs no torch."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["RunFolderError", "locked", "write_atomic"]


class RunFolderError(RuntimeError):
    """A run folder cannot be written, is in use, or holds no usable checkpoint; the text says what to do."""


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file so that a reader finds the old content or all of the new, never a part.

    Args:
        path: the file; its folder is made if need be.
        data: the content.
        durable: also wait until the disk holds it, so that it survives a power cut.

    Raises:
        RunFolderError: no space, no permission, or a file stands where a folder should be; the old content
            is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable and os.name == "posix":
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
def locked(folder: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Hold a folder for this process; where the system has no file locks, do nothing.

    Args:
        folder: made if need be.
        wait: seconds to wait for another process that holds it.

    Raises:
        RunFolderError: the folder cannot be made, or another process holds it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("ab")
    except OSError as error:
        raise RunFolderError(
            f"cannot use {folder} as a run folder: {error.strerror or error}; "
            "choose a folder that can be made and written"
        ) from error
    with file:
        end = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= end:
                    raise RunFolderError(
                        f"run folder {folder} is in use by another run; wait for it or choose another folder"
                    ) from None
                time.sleep(0.05)
        yield
