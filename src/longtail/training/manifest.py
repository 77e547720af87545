"""What a finished run or a checkpoint holds, with checksums: written last, verified first; no torch.

A folder of an earlier version has no manifest, and is read without one.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import stat
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from longtail.training.files import read_json, write_atomic

__all__ = ["FORMAT", "MANIFEST", "DamagedError", "FileCheck", "check", "seal", "verify"]

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1


class DamagedError(ValueError):
    """A file is not what its folder's manifest says."""


@dataclass(frozen=True)
class FileCheck:
    """What the manifest says of one file.

    Attributes:
        name: of the file, relative to its folder.
        damage: what is wrong with it, or None.
    """

    name: str
    damage: str | None

    @property
    def ok(self) -> bool:
        """Whether the file is what was written."""
        return self.damage is None


def seal(folder: Path, names: Iterable[str], coming: Mapping[str, bytes] | None = None) -> None:
    """Write a folder's manifest, once the files are on the disk.

    Args:
        folder: of a run or a checkpoint.
        names: files that are there.
        coming: files that are written next, and their content; the last of them ends what is sealed.

    Raises:
        RunFolderError: the manifest cannot be written.
    """
    entries: dict[str, dict[str, object]] = {}
    for name in sorted(names):
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())  # a power cut must not leave a manifest without its files
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            entries[name] = {"bytes": os.fstat(file.fileno()).st_size, "sha256": digest}
    for name, data in (coming or {}).items():
        entries[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    content = {"format": FORMAT, "files": entries, "sha256": _of_entries(entries)}
    write_atomic(folder / MANIFEST, (json.dumps(content, indent=1) + "\n").encode())


def verify(folder: Path, *, hashed: float = float("inf"), whole: Container[str] = ()) -> list[FileCheck]:
    """Compare every file of a folder with its manifest.

    Args:
        folder: of a run or a checkpoint.
        hashed: files of more bytes are compared by their size alone.
        whole: names of files that are hashed whatever their size.

    Returns:
        One check a file; the manifest's own comes first, and alone if it is damaged.

    Raises:
        FileNotFoundError: there is no manifest.
    """
    try:
        entries = _entries(folder)
    except DamagedError as error:
        return [FileCheck(MANIFEST, str(error))]
    return [FileCheck(MANIFEST, None)] + [
        FileCheck(name, _damage(folder, name, size, digest if size <= hashed or name in whole else None))
        for name, (size, digest) in entries.items()
    ]


def check(folder: Path, *, hashed: float = float("inf"), whole: Container[str] = ()) -> bool:
    """Refuse a folder with a file that is not what was written; without a manifest, return False.

    Args:
        folder: of a run or a checkpoint.
        hashed: as for `verify`.
        whole: as for `verify`.

    Raises:
        DamagedError: a file is damaged, missing, or a link out of the folder.
    """
    try:
        found = verify(folder, hashed=hashed, whole=whole)
    except FileNotFoundError:
        return False
    bad = [one for one in found if not one.ok]
    if bad:
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise DamagedError(f"{bad[0].name} {bad[0].damage}{more}")
    return True


def _entries(folder: Path) -> dict[str, tuple[int, str]]:
    path = folder / MANIFEST
    if not os.path.lexists(path):
        raise FileNotFoundError(f"{path} is not there")
    try:
        found = read_json(path)
        version, entries = found["format"], found["files"]
        sound = found["sha256"] == _of_entries(entries)
        read = {str(name): (int(one["bytes"]), str(one["sha256"])) for name, one in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DamagedError("cannot be read") from None
    if version != FORMAT:
        raise DamagedError(f"has format {version!r}, this version of longtail reads {FORMAT}")
    if not sound:
        raise DamagedError("does not match its checksum")
    return read


def _damage(folder: Path, name: str, size: int, digest: str | None) -> str | None:
    path = folder / name
    try:
        real = path.resolve()
        if not real.is_relative_to(folder.resolve()):
            return "is a link out of the folder"
        found = real.stat()
        if not stat.S_ISREG(found.st_mode):
            return "is no file"
        if found.st_size != size:
            return f"has {found.st_size:,} bytes instead of {size:,}"
        if digest is not None and digest != _sha256(
            str(real), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
        ):
            return "does not match its checksum"
    except FileNotFoundError:
        return "is missing"
    except (OSError, ValueError, RuntimeError) as error:  # no permission, a zero in a name, a circle of links
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    return None


@functools.lru_cache(maxsize=100_000)
def _sha256(path: str, *_: int) -> str:
    """Hash a file once a process; again if its size, times or place change."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _of_entries(entries: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()
