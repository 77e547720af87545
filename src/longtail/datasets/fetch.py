"""Archives from the internet: resumed where they stopped, checked before use, unpacked without trust."""

import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urljoin, urlsplit

from longtail import _checks
from longtail.sources.counted import needs

__all__ = ["Archive", "DownloadError", "data_root", "fetch"]

_BLOCK = 1 << 18
_CHUNK = 10_000  # an interruption loses less than this
_TIMEOUT = 30  # seconds without a single byte
_Progress = Callable[[int, int], None]


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
    progress: _Progress | None = None,
) -> Path:
    """Bring an archive's files under a folder, by the cheapest way that leads there; return their folder.

    Files that are there already are left alone. An archive that somebody put there is checked and unpacked.
    Otherwise it is downloaded, from ``url`` if given; what arrived before an interruption is kept in
    ``<file>.part`` and continued by the next call, and nothing is unpacked before size and checksums agree.

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
                _check(archive, given)
                _unpack(archive, file, root)
            return folder
        part = root / f"{archive.file}.part"
        with _claimed(part) as file:
            _receive(archive, address, file, root, progress)
            try:
                _check(archive, part)
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
    """Open a partial file for this process alone."""
    filelock = needs("filelock", "a download needs", "train")
    beside = part.with_suffix(".lock")
    try:
        with filelock.FileLock(beside, timeout=0), part.open("a+b") as file:
            try:
                yield file
            finally:
                with suppress(OSError):
                    beside.unlink()  # nobody waits for it, so that none is left with a file that is gone
    except filelock.Timeout:
        raise DownloadError(
            f"{part} is being downloaded by another process; wait for it, then run this again"
        ) from None


class _Part:
    """Where pooch writes an archive: behind what is there already."""

    def __init__(self, archive: Archive, url: str, file: BinaryIO, progress: _Progress | None) -> None:
        self.archive, self.url, self.file, self.progress = archive, url, file, progress
        self.done = file.seek(0, os.SEEK_END)
        if self.done > archive.size:
            self.done = file.truncate(0)
        self.started = False
        self.answers: list[Any] = []

    def start(self, answer: Any, **_: object) -> None:
        """Look at what the server is about to send; requests calls this, at every redirect, too."""
        self.answers.append(answer)
        if answer.is_redirect:
            target = urljoin(answer.url, answer.headers["Location"])
            if urlsplit(target).scheme not in {"https", urlsplit(self.url).scheme}:
                raise DownloadError(
                    f"{self.url} leads to {target}, without the encryption of https; give an address that "
                    "stays with it"
                )
            return
        if not answer.ok:
            return
        if self.done and not (answer.headers.get("Content-Range") or "").startswith(f"bytes {self.done}-"):
            self.done = self.file.truncate(0)  # the server sends the whole file again
        length = answer.headers.get("Content-Length")
        if length is not None and self.done + int(length) != self.archive.size:
            raise DownloadError(
                f"{self.url} has {self.done + int(length)} bytes, {self.archive.file} has "
                f"{self.archive.size}; give the address of the official file"
            )
        self.started = True

    def write(self, block: bytes) -> None:
        if self.done + len(block) > self.archive.size:
            raise DownloadError(
                f"{self.url} sends more than the {self.archive.size} bytes of {self.archive.file}; give the "
                "address of the official file"
            )
        self.done += self.file.write(block)
        if self.progress is not None:
            self.progress(self.done, self.archive.size)

    def flush(self) -> None:
        self.file.flush()


def _receive(archive: Archive, url: str, file: BinaryIO, root: Path, progress: _Progress | None) -> None:
    """Append to ``file`` what is missing of the archive."""
    pooch = needs("pooch", "a download needs", "train")
    part = _Part(archive, url, file, progress)
    if part.done == archive.size:
        return
    headers = {"User-Agent": "longtail", "Range": f"bytes={part.done}-", "Accept-Encoding": "identity"}
    download = pooch.HTTPDownloader(
        chunk_size=_CHUNK, timeout=_TIMEOUT, headers=headers, hooks={"response": part.start}
    )
    why = "the connection was closed"
    try:
        download(url, part, None)
    except OSError as error:  # as all errors of requests are
        if not part.started:
            raise DownloadError(
                f"cannot reach {url} ({error}); on a machine with a connection fetch {archive.url} "
                f"({archive.size} bytes, md5 {archive.md5}), put it into {root}, and run this again"
            ) from error
        if error.errno is not None:  # the disk's
            raise
        why = str(error)
    finally:
        for answer in part.answers:  # pooch leaves open what was refused or cut short
            answer.close()
    file.flush()
    if part.done < archive.size:
        raise DownloadError(
            f"the download of {archive.file} stopped at {part.done} of {archive.size} bytes ({why}); "
            "run this again: it goes on from there"
        )


def _check(archive: Archive, path: Path) -> None:
    hashed = needs("pooch", "a download needs", "train").file_hash
    wanted = {"size": str(archive.size), "md5": archive.md5, "sha256": archive.sha256}
    for name, value in wanted.items():
        found = str(path.stat().st_size) if name == "size" else hashed(str(path), alg=name)
        if found != value:
            raise DownloadError(
                f"{path} has {name} {found}, the official {archive.file} {value}; "
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
