"""The result files: one row a run, written from its folder, and read back where the folder is gone."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from longtail.evaluation import Evaluation
from longtail.training import manifest
from longtail.training.files import locked, read_json, write_atomic
from longtail.training.recipes import Recipe

_ORIGIN = ("recipe_hash", "subset_sha256", "epochs", "precision", "device")
_VERSIONS = ("longtail", "torch", "numpy", "commit", "seconds")
_CIFAR = ("dataset", "imbalance_factor", "loss", "gamma", "beta", "seed", "error_percent")
_SKELETONS = (
    *("dataset", "classes", "split", "filters", "seed", "loss", "beta", "imbalance_factor"),
    "accuracy_percent",
)
_SIGNS = ("loss", "scheme", "beta", "gamma", "seed", "error_percent", "balanced_error_percent")
_LARGE = (
    *("dataset", "network", "input_size", "loss", "beta", "gamma", "seed"),
    *("top1_error_percent", "top5_error_percent"),
)
_SMALL_RUN = (*_ORIGIN, *_VERSIONS, "per_class_error_percent")
_RIVALS = ("dataset", "imbalance_factor", "method", "seed", "error_percent")
_BETA = (
    *("domain", "data", "network", "imbalance_factor", "loss", "method", "run", "folds"),
    *("balanced_error_percent", "error_percent", "class_counts"),
    *("recipe_hash", "subset_sha256", "epochs", "device", *_VERSIONS),
)
_OF_TABLES = {
    "beta": _BETA,
    "rivals": (*_RIVALS, *_SMALL_RUN),
    "ddnet": (*_SKELETONS, *_SMALL_RUN),
    "gtsrb": (*_SIGNS, *_SMALL_RUN),
    "table3": (*_LARGE, *_ORIGIN, "processes", *_VERSIONS),
}
_LOCK_SECONDS = 60.0


def columns_of(table: str) -> tuple[str, ...]:
    """Return the columns of a table's result file."""
    return _OF_TABLES.get(table, (*_CIFAR, *_SMALL_RUN))


def read_rows(path: Path, table: str) -> list[dict[str, str]]:
    """Return the rows of a table's result file; none where there is no file yet.

    Raises:
        ValueError: its columns are not this version's, or a row is broken.
    """
    if not path.exists():
        return []
    text, columns = path.read_text(encoding="utf-8"), columns_of(table)
    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ()) != columns:
        raise ValueError(
            f"results file {path} has other columns than this version writes ({', '.join(columns)}); "
            "move it away or name another file"
        )
    rows = list(reader)
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ValueError(
                f"results file {path} has a broken row in line {number}; repair or delete that line"
            )
    if not text.endswith("\n"):  # a last value may be cut short and still read as one
        raise ValueError(f"results file {path} is cut short in its last line; repair or delete that line")
    return rows


def add_rows(path: Path, table: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Add the rows whose recipes the file lacks; safe against other processes on the same file.

    Raises:
        ValueError: as `read_rows`.
        RunFolderError: the file cannot be written.
        InUseError: it is locked for longer than a minute.
    """
    with locked(path.parent, wait=_LOCK_SECONDS):
        old: list[Mapping[str, object]] = [*read_rows(path, table)]
        new = {row["recipe_hash"]: row for row in rows}
        for row in old:
            new.pop(row["recipe_hash"], None)
        if not new:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, columns_of(table), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*old, *new.values()])
        write_atomic(path, text.getvalue().encode())


def row_of(table: str, recipe: Recipe, folder: Path) -> dict[str, object] | None:
    """Return the row of a run from its folder; None where it is not finished, or damaged."""
    try:
        manifest.check(folder)
        evaluation = Evaluation.from_dict(read_json(folder / "evaluation.json"))
        made = read_json(folder / "environment.json")
        seconds = f"{made['seconds']:.1f}"
    except (OSError, ValueError, KeyError, TypeError):
        return None
    known = {**_setting(recipe), **_measured(evaluation), "recipe_hash": recipe.short_hash}
    known |= {"epochs": recipe.epochs, "precision": recipe.precision, "seconds": seconds}
    columns = columns_of(table)
    if "scheme" in columns and recipe.scheme != "effective":
        known["beta"] = ""  # that column tells plain from inverse
    found = {name: known.get(name, made.get(name)) for name in columns}
    return {name: "" if value is None else value for name, value in found.items()}


def _setting(recipe: Recipe) -> dict[str, object]:
    data, _, split = recipe.dataset.partition("-")
    return {
        "dataset": "jhmdb" if split else data,
        "classes": data.removeprefix("jhmdb"),
        "split": split,
        "imbalance_factor": f"{recipe.imbalance_factor or 1:g}",
        "method": recipe.method.name or "plain",
        "network": recipe.model,
        "filters": recipe.model.removeprefix("ddnet"),
        "input_size": getattr(recipe, "size", None),
        "loss": recipe.loss,
        "scheme": recipe.scheme,
        "gamma": f"{recipe.gamma:g}" if "focal" in recipe.loss else "",
        "beta": "0" if recipe.scheme == "none" else f"{recipe.beta:g}",
        "seed": recipe.seed,
    }


def _measured(evaluation: Evaluation) -> dict[str, str | None]:
    def percent(share: float | None) -> str | None:
        return None if share is None else f"{100.0 * share:.2f}"

    per_class = (percent(error) or "" for error in evaluation.per_class_error)
    return {
        "error_percent": percent(evaluation.error),
        "accuracy_percent": f"{100.0 - 100.0 * evaluation.error:.2f}",
        "balanced_error_percent": percent(evaluation.balanced_error),
        "top1_error_percent": percent(evaluation.error),
        "top5_error_percent": percent(evaluation.top5_error),
        "per_class_error_percent": " ".join(per_class),
    }
