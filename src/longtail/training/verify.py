"""Which file of a run is damaged."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from longtail.training import checkpoint, manifest
from longtail.training.folder import check_run, load_run
from longtail.training.manifest import FileCheck

__all__ = ["verify_run"]


def verify_run(run_dir: str | os.PathLike[str]) -> list[FileCheck]:
    """Compare every file of a run, and of its checkpoints, with what was written.

    Args:
        run_dir: a run's folder; the run may be unfinished. A finished run of an earlier version has no
            checksums: that it can be read is all that is known of it.

    Returns:
        One check a file.

    Raises:
        ValueError: there is no such folder, or it holds no run.
    """
    folder = Path(run_dir)
    if not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is not a folder; give a run's")
    if not any((folder / name).exists() for name in ("recipe.json", "evaluation.json", manifest.MANIFEST)):
        raise ValueError(f"{str(folder)!r} holds no run; give the folder with its recipe.json")
    found = _checkpoints(folder / "checkpoints")
    try:
        return manifest.verify(folder) + found
    except FileNotFoundError:
        pass
    if not (folder / "evaluation.json").exists():
        return found
    try:
        check_run(folder)
        load_run(folder)
    except manifest.DamagedError:
        return [FileCheck(manifest.MANIFEST, "is missing"), *found]
    except ValueError as error:
        if "network of your own" not in str(error):
            return [FileCheck("evaluation.json", f"is of a run that cannot be read: {error}"), *found]
    names = ("recipe.json", "environment.json", "metrics.jsonl", "model.safetensors", "evaluation.json")
    return [FileCheck(name, None) for name in names if (folder / name).is_file()] + found


def _checkpoints(folder: Path) -> list[FileCheck]:
    found = []
    for path in sorted(folder.glob("checkpoint-*")):
        name = f"{folder.name}/{path.name}"
        if path.is_dir():
            try:
                checks = manifest.verify(path)
            except FileNotFoundError:
                found.append(FileCheck(name, "was not written to its end, or is of an earlier version"))
                continue
            found += [dataclasses.replace(one, name=f"{name}/{one.name}") for one in checks]
        else:
            found.append(FileCheck(name, checkpoint.damage(path)))
    return found
