"""Archives from the internet: resumed where they stopped, checked before use, unpacked without trust."""

import hashlib
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from longtail import _checks

__all__ = ["Archive", "DownloadError", "data_root", "fetch"]

_BLOCK = 1 << 18
_TIMEOUT = 30  # seconds without a single byte


class DownloadError(RuntimeError):
    """An archive could not be fetched, checked or unpacked.

    Args:
        message: One line that says what to fetch, where to put it, or what else to do.
    """


def data_root(root: str | os.PathLike[str] | None) -> tuple[Path, str]:
    """The folder to look in, and what it was named by."""
    if root is not None:
        if not isinstance(root, str | os.PathLike):
            raise TypeError(f"root must be a path, got {_checks.describe(root)}; give a folder, or None")
        return _checks.folder("root", root), "root"
    if named := os.environ.get("LONGTAIL_DATA"):
        return _checks.folder("LONGTAIL_DATA", named), "LONGTAIL_DATA"
    return _checks.cache_folder(), "the cache folder"


@dataclass(frozen=True)
class Archive:
    """A published ``.tar.gz``: where it is, how to recognise it, and which of its files are wanted.

    Args:
        url: The official address; its last part is the file's name.
        size: In bytes.
        md5: As its publisher states it.
        sha256: As found independently of the publisher; hexadecimal like ``md5``.
        folder: The one folder inside.
        members: File names in that folder; whatever else is inside is left there.
    """

    url: str
    size: int
    md5: str
    sha256: str
    folder: str
    members: tuple[str, ...]

    @property
    def file(self) -> str:
        """The archive's file name."""
        return self.url.rpartition("/")[2]


def fetch(
    archive: Archive,
    root: Path,
    *,
    url: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Bring an archive's files under a folder, by the cheapest way that leads there.

    Files that are there already are left alone. An archive that somebody put there is checked and unpacked.
    Otherwise the archive is downloaded; what arrived before an interruption is kept in ``<file>.part`` and
    continued by the next call, and nothing is unpacked before size and checksums agree.

    Args:
        archive: What to fetch.
        root: The folder that will hold ``archive.folder``; made if need be.
        url: Another address of the same file, ``http`` or ``https``; the official one if None.
        progress: Called as ``progress(bytes_done, bytes_total)`` while downloading.

    Returns:
        ``root / archive.folder``.

    Raises:
        DownloadError: No connection, another file than expected, no room, or another process at work.
        ValueError: ``url`` is no ``http`` or ``https`` address.
    """
    address = archive.url if url is None else url
    if not address.startswith(("https://", "http://")):
        raise ValueError(f"url must start with https:// or http://, got {address!r}; give a web address")
    folder = root / archive.folder
    if all((folder / member).is_file() for member in archive.members):
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        given = root / archive.file
        if given.is_file():
            with given.open("rb") as file:
                _check(archive, file, given)
                _unpack(archive, file, root)
            return folder
        part = root / f"{archive.file}.part"
        with _claimed(part) as file:
            _receive(archive, address, file, root, progress)
            try:
                _check(archive, file, part)
            except DownloadError:
                part.unlink()  # continuing it would end in the same checksum
                raise
            _unpack(archive, file, root)
            part.unlink()
    except OSError as error:
        raise DownloadError(
            f"cannot write {archive.file} under {root}: {error.strerror or error}; free some space or choose "
            "a folder that can be written, then run this again: it goes on where it stopped"
        ) from error
    return folder


@contextmanager
def _claimed(part: Path) -> Iterator[BinaryIO]:
    """Open a partial file for this process alone; where the system has no file locks, just open it."""
    with part.open("a+b") as file:
        try:
            import fcntl
        except ImportError:
            yield file
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DownloadError(
                f"{part} is being downloaded by another process; wait for it, then run this again"
            ) from None
        yield file


def _receive(
    archive: Archive, url: str, file: BinaryIO, root: Path, progress: Callable[[int, int], None] | None
) -> None:
    """Append to ``file`` what is missing of the archive."""
    import http.client  # here, since they take longer to import than the rest of the data sets
    import urllib.error
    import urllib.request

    done = file.seek(0, os.SEEK_END)
    if done > archive.size:
        done = file.truncate(0)
    if done == archive.size:
        return
    headers = {"User-Agent": "longtail", "Range": f"bytes={done}-"}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except (OSError, http.client.HTTPException) as error:
        # HTTPError and URLError are OSErrors
        reason = getattr(error, "reason", None) or error
        code = f"{error.code} " if isinstance(error, urllib.error.HTTPError) else ""
        raise DownloadError(
            f"cannot reach {url} ({code}{reason}); on a machine with a connection fetch {archive.url} "
            f"({archive.size} bytes, md5 {archive.md5}), put it into {root}, and run this again"
        ) from error
    with answer:
        if done and not (answer.headers.get("Content-Range") or "").startswith(f"bytes {done}-"):
            done = file.truncate(0)  # the server sends the whole file again
        length = answer.headers.get("Content-Length")
        if length is not None and done + int(length) != archive.size:
            raise DownloadError(
                f"{url} has {done + int(length)} bytes, {archive.file} has {archive.size}; "
                "give the address of the official file"
            )
        while done <= archive.size:
            try:
                block = answer.read(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _broken(archive, done, str(error) or type(error).__name__) from error
            if not block:
                break
            done += file.write(block)
            if progress is not None:
                progress(done, archive.size)
    file.flush()
    if done < archive.size:
        raise _broken(archive, done, "the connection was closed")


def _broken(archive: Archive, done: int, why: str) -> DownloadError:
    return DownloadError(
        f"the download of {archive.file} stopped at {done} of {archive.size} bytes ({why}); "
        "run this again: it goes on from there"
    )


def _check(archive: Archive, file: BinaryIO, path: Path) -> None:
    file.seek(0)
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    while block := file.read(_BLOCK):
        md5.update(block)
        sha256.update(block)
        size += len(block)
    found = {"size": str(size), "md5": md5.hexdigest(), "sha256": sha256.hexdigest()}
    wanted = {"size": str(archive.size), "md5": archive.md5, "sha256": archive.sha256}
    for name, value in found.items():
        if value != wanted[name]:
            raise DownloadError(
                f"{path} has {name} {value}, the official {archive.file} {wanted[name]}; "
                f"it is damaged or another file: remove it if it is still there and fetch {archive.url}"
            )


def _unpack(archive: Archive, file: BinaryIO, root: Path) -> None:
    """Write the wanted files under names of our own choosing, each in one step, whatever else is inside."""
    file.seek(0)
    wanted = {f"{archive.folder}/{member}": member for member in archive.members}
    # beside its final place, where a rename is atomic
    with tempfile.TemporaryDirectory(prefix=f".{archive.folder}.", dir=root) as scratch:
        try:
            with tarfile.open(fileobj=file, mode="r:gz") as tar:
                for entry in tar:
                    content = tar.extractfile(entry) if entry.isreg() and entry.name in wanted else None
                    if content is not None:
                        with (Path(scratch) / wanted.pop(entry.name)).open("wb") as copy:
                            shutil.copyfileobj(content, copy, _BLOCK)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise DownloadError(
                f"{archive.file} in {root} cannot be unpacked ({error}); remove it and fetch {archive.url}"
            ) from error
        if wanted:
            raise DownloadError(
                f"{archive.file} in {root} lacks {', '.join(sorted(wanted))}; remove it and fetch "
                f"{archive.url}"
            )
        (root / archive.folder).mkdir(exist_ok=True)
        for member in archive.members:
            os.replace(Path(scratch) / member, root / archive.folder / member)
