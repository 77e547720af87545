"""Checkpoints and other files that a kill, a full disk or a flipped bit cannot turn into silent damage."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from longtail import _checks
from longtail.training.files import RunFolderError, parse_json, write_atomic

__all__ = ["Checkpoint", "damage", "load_latest", "save"]

FORMAT: Final = 1
_KEY: Final = "longtail"  # the one metadata entry, JSON, so that its checksum covers all of it


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint.

    Attributes:
        path: the file it came from.
        epoch: epochs completed.
        tensors: by name, on the CPU, contiguous.
        extra: what was stored beside them, as JSON gives it back.
    """

    path: Path
    epoch: int
    tensors: dict[str, Tensor]
    extra: dict[str, Any]


def save(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    *,
    epoch: int,
    recipe_hash: str,
    extra: Mapping[str, object] | None = None,
    keep: int = 2,
) -> Path:
    """Write ``checkpoint-<epoch>.safetensors``, remove all but the newest `keep`, and return its path.

    Tensors are of any device, dtype and memory format, `extra` is whatever JSON can hold, and two files that
    are kept let a damaged one fall back.

    Raises:
        RunFolderError: the file cannot be written; earlier checkpoints are intact.
    """
    folder = Path(folder)
    stored = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    meta = {"format": FORMAT, "epoch": epoch, "recipe_hash": recipe_hash, "extra": dict(extra or {})}
    meta["sha256"] = _digest(stored, meta)
    path = folder / f"checkpoint-{epoch:06d}.safetensors"
    write_atomic(path, to_safetensors(stored, metadata={_KEY: json.dumps(meta)}))
    for old in [p for p in _newest_first(folder) if p != path][max(keep, 1) - 1 :]:
        old.unlink(missing_ok=True)
    for left in folder.glob(".*.tmp"):  # what a kill in the middle of a write left behind
        left.unlink(missing_ok=True)
    return path


def load_latest(folder: str | os.PathLike[str], recipe_hash: str) -> Checkpoint | None:
    """Return the newest usable checkpoint, or None where there is none at all.

    A file that is truncated, damaged or not a checkpoint is passed over with a `UserWarning` that names it.

    Raises:
        ValueError: the newest usable checkpoint is of another recipe.
        RunFolderError: there are checkpoints, and none of them is usable.
    """
    refused = []
    for path in _newest_first(Path(folder)):
        try:
            found, owner = _read(path)
        except (_Unusable, SafetensorError, OSError) as error:
            refused.append(path)
            _checks.warn(f"checkpoint {path} cannot be used ({error}); trying the one before")
            continue
        if owner != recipe_hash:
            raise ValueError(
                f"run folder {Path(folder).parent} holds recipe {owner[:12]}, this run is recipe "
                f"{recipe_hash[:12]}; choose another folder, or delete this one to start anew"
            )
        return found
    if refused:
        raise RunFolderError(
            f"none of the {len(refused)} checkpoints in {folder} can be used, "
            f"the newest is {refused[0].name}; "
            "delete that folder to train from the start"
        )
    return None


def damage(path: Path) -> str | None:
    """Say why a file is no checkpoint that can be trusted, or None."""
    try:
        _read(path)
    except (_Unusable, SafetensorError, OSError) as error:
        return f"cannot be used: {error}"
    return None


class _Unusable(Exception):
    """Why a file is not a checkpoint that can be trusted."""


def _read(path: Path) -> tuple[Checkpoint, str]:
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(_KEY)
        if text is None:
            raise _Unusable("it is a safetensors file that longtail did not write")
        try:
            meta = parse_json(text, "its description")
            version, claimed = meta["format"], meta.pop("sha256")
            epoch, owner, extra = int(meta["epoch"]), str(meta["recipe_hash"]), dict(meta["extra"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _Unusable("its description is damaged") from None
        if version != FORMAT:
            raise _Unusable(f"its format is {version}, this version of longtail reads {FORMAT}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    if _digest(tensors, meta) != claimed:
        raise _Unusable("its content does not match its checksum")
    return Checkpoint(path, epoch, tensors, extra), owner


def _digest(tensors: Mapping[str, Tensor], meta: Mapping[str, object]) -> str:
    digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _newest_first(folder: Path) -> list[Path]:
    found = [
        p for p in folder.glob("checkpoint-*.safetensors") if p.stem.removeprefix("checkpoint-").isdecimal()
    ]
    return sorted(found, key=lambda p: int(p.stem.removeprefix("checkpoint-")), reverse=True)
