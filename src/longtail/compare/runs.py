"""Run folders -> comparisons: what is finished is read, what is not is named, nothing is trained."""

from __future__ import annotations

import contextlib
import csv
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Final

from longtail import _checks
from longtail.compare.columns import GROUPS
from longtail.compare.outcome import Outcome
from longtail.compare.table import ComparisonTable, identity, rows_of
from longtail.evaluation import Evaluation, MultiLabelEvaluation, read_evaluation
from longtail.training.files import read_json
from longtail.training.manifest import MANIFEST, DamagedError, check
from longtail.training.predictions import PREDICTIONS
from longtail.training.recipe import Recipe

__all__ = ["LeftOut", "TABLE", "comparisons", "find_runs", "gone", "one_run", "runs_below"]


TABLE: Final = "compare.csv"  # of a comparison: a line a run

# of larger files the size alone is compared: a report reads none of them but the predictions
_HASHED = 2**26
_MARKS = ("recipe.json", "evaluation.json")  # of a run's folder


@dataclass(frozen=True)
class LeftOut:
    """A run that is no part of a report.

    Attributes:
        folder: where it is.
        why: in one line.
    """

    folder: Path
    why: str


def find_runs(
    paths: Iterable[str | os.PathLike[str]], *, progress: Callable[[int, int], object] | None = None
) -> tuple[list[Outcome], list[LeftOut]]:
    """Read every finished run in some folders and below them.

    Args:
        paths: run folders, or folders that hold some at any depth.
        progress: called as ``progress(done, total)`` before each run is read, and at the end.

    Returns:
        The finished runs in the order of their folders, and those left out: unfinished, damaged, or the
        same recipe a second time.

    Raises:
        ValueError: a path is no folder, or no run was found at all.
    """
    places: dict[Path, None] = {}
    given = [Path(path) for path in paths]
    for path in given:
        if not path.is_dir():
            raise ValueError(f"{str(path)!r} is not a folder; give a run's folder or one that holds runs")
        places |= dict.fromkeys(sorted(runs_below(path)))
    if not places:
        raise ValueError(
            f"no runs found in {', '.join(repr(str(path)) for path in given) or 'nothing'}; "
            "longtail compare and longtail train make some"
        )
    finished: dict[str, Outcome] = {}  # by what decides the result: a beta without effect makes no new run
    left_out = []
    for done, place in enumerate(places):
        if progress is not None:
            progress(done, len(places))
        try:
            found = _read(place)
        except (OSError, ValueError, TypeError, KeyError) as error:
            found = f"damaged: {error}" if str(error) else "damaged"
        if isinstance(found, Outcome):
            if (first := finished.setdefault(identity(found.recipe), found)) is found:
                continue
            found = f"the same settings and seed as {first.folder}"
        left_out.append(LeftOut(place, found))
    if progress is not None:
        progress(len(places), len(places))
    return list(finished.values()), left_out


def comparisons(outcomes: Sequence[Outcome]) -> list[ComparisonTable]:
    """Set runs side by side that were trained on the same classes and counts.

    Runs of one row differ in nothing but the seed. Rows that differ in more than loss and weighting say in
    what; beta counts for effective weights alone, gamma for focal losses alone.

    Args:
        outcomes: finished runs.

    Returns:
        One comparison a training set, in the order of the first run of each.
    """
    groups: dict[tuple[str, tuple[int, ...]], list[Outcome]] = {}
    for outcome in outcomes:
        key = (outcome.recipe.dataset, _trained_on(outcome))
        groups.setdefault(key, []).append(outcome)
    found = []
    for group in groups.values():
        rows = rows_of(group)
        folder = Path(os.path.commonpath([o.folder for o in group]))
        found.append(ComparisonTable(rows[0].outcomes[0].recipe, rows, (), folder))
    return found


def _trained_on(outcome: Outcome) -> tuple[int, ...]:
    """Samples of each class; of a fold those of all folds, where an earlier version evaluated by its own."""
    every = outcome.environment.get("class_counts") if outcome.recipe.folds else None
    return tuple(every) if isinstance(every, list) else outcome.found.class_counts


def runs_below(path: Path, marks: Iterable[str] = _MARKS) -> Iterator[Path]:
    """Yield the folders that hold a run, which one of some files marks; their checkpoints are left out."""
    for folder, inner, files in os.walk(path):
        if {*marks} & {*files}:
            yield Path(folder)
            inner[:] = [name for name in inner if name != "checkpoints"]


def gone(path: Path) -> dict[Path, list[str]]:
    """Return the runs that a comparison's compare.csv lists and no folder below it holds, by its folder.

    A run is known by its recipe's hash. Where a recipe below cannot be read, which may be any of the listed
    ones, none is called gone.
    """
    found: dict[Path, list[str]] = {}
    for table in sorted(Path(folder) / TABLE for folder, _, files in os.walk(path) if TABLE in files):
        listed = _listed(table)
        with contextlib.suppress(OSError, ValueError, KeyError):
            there = {
                Recipe.from_json((run / "recipe.json").read_bytes()).short_hash
                for run in runs_below(table.parent, (*_MARKS, MANIFEST))
            }
            if lost := [name for key, name in listed.items() if key not in there]:
                found[table.parent] = lost
    return found


def _listed(table: Path) -> dict[str, str]:
    """Return the names of the runs of a compare.csv by their recipes' hashes; none of another table."""
    folds = False
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        folds = bool(read_json(table.with_name("compare.json"))["recipe"].get("folds"))
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("recipe_hash") and row.get("seed")]
    except (OSError, ValueError, csv.Error):
        return {}
    names = {}
    for row in rows:
        settings = ("model", "method") if row.get("method") else ("model", "loss", "scheme")
        told = " ".join(filter(None, map(row.get, settings)))
        names[row["recipe_hash"]] = f"{told}, {'fold' if folds else 'seed'} {row['seed']}"
    return names


def one_run(folder: str | os.PathLike[str]) -> Path:
    """Return a run's folder; of a comparison's folder, the run of the method with the lowest balanced error.

    Of many labels, it is the method that is best by what decides.

    Args:
        folder: of a run, or with the runs of one comparison below it; of several seeds the first is taken.

    Raises:
        ValueError: no finished run, or runs on several training sets.
    """
    place = Path(folder)
    if not place.is_dir() or (place / "recipe.json").is_file() or (place / "evaluation.json").is_file():
        return place
    found, _ = find_runs([place])
    compared = comparisons(found)
    if len(compared) > 1:
        places = _checks.shorten([str(one.folder) for one in compared])
        raise ValueError(f"{place} holds runs on {len(compared)} training sets: {places}; give one of them")
    if not compared:
        raise ValueError(f"{place} holds no finished run; start the same command again: it goes on")
    rows = [row for row in compared[0].rows if row.outcomes]
    if (lead := compared[0].best) is not None and compared[0].many_labels:
        return min(lead.outcomes, key=lambda o: o.recipe.seed).folder
    best = min(rows, key=lambda row: fmean(o.result.balanced_error for o in row.outcomes))
    return min(best.outcomes, key=lambda o: o.recipe.seed).folder


def _read(place: Path) -> Outcome | str:
    if not (place / "recipe.json").is_file():
        return "damaged: it has no recipe.json"
    recipe = Recipe.from_json((place / "recipe.json").read_bytes())
    unread = Outcome(recipe, None, 0.0, None, place)
    if not (place / "evaluation.json").is_file():
        done = max((epoch.epoch for epoch in unread.history), default=0)
        return f"unfinished: {done} of {recipe.epochs} epochs; the same longtail train goes on from there"
    if not check(place, hashed=_HASHED, whole={PREDICTIONS}) and "manifest" in unread.environment:
        raise DamagedError(f"{MANIFEST} is missing")
    values = read_json(place / "evaluation.json")
    if not isinstance(values, dict):
        raise TypeError("evaluation.json is no object")
    evaluation = read_evaluation(values)
    _check(evaluation)
    seconds = unread.environment.get("seconds", math.nan)
    return replace(unread, evaluation=evaluation, seconds=float(str(seconds)))


def _check(evaluation: Evaluation | MultiLabelEvaluation) -> None:
    """Refuse what no evaluation can hold, before it breaks a page halfway."""
    classes, what = len(evaluation.class_counts), "error"
    needed: list[float] = []
    table: Sequence[Sequence[int]] | None = None
    if isinstance(evaluation, MultiLabelEvaluation):
        what, each = "average_precision", evaluation.per_class_average_precision
        where_known = [evaluation.macro_average_precision, evaluation.macro_f1, evaluation.micro_f1]
    else:
        needed += [evaluation.error, evaluation.balanced_error, evaluation.macro_f1]
        where_known, each, table = [], evaluation.per_class_error, evaluation.confusion
    where_known += [*each, *(getattr(evaluation, f"{group}_{what}") for group in GROUPS)]
    numbers = [*needed, *evaluation.class_counts, *(x for x in where_known if x is not None)]
    if any(isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x) for x in numbers):
        raise ValueError("evaluation.json holds a value that is no finite number")
    if not classes or len(each) != classes:
        raise ValueError("evaluation.json has not one error a class")
    if table is not None and {len(table), *map(len, table)} != {classes}:
        raise ValueError("evaluation.json has a confusion matrix of another shape")
