"""Run folders -> comparisons: what is finished is read, what is not is named, nothing is trained."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longtail.compare import LOSSES, SCHEMES, Comparison, Outcome, Row
from longtail.evaluation import Evaluation, summarize
from longtail.paper.tables import Cell, published
from longtail.reproduce import PaperCell
from longtail.training.recipe import Recipe, paper_cifar

_DATA = ("dataset", "imbalance_factor", "profile")
_FILES = ("recipe.json", "evaluation.json")


@dataclass(frozen=True)
class LeftOut:
    """A run that is no part of a report.

    Attributes:
        folder: where it is.
        why: in one line.
    """

    folder: Path
    why: str


@dataclass(frozen=True)
class Epoch:
    """One line of a run's history, as :class:`longtail.training.folder.EpochMetrics`, read without torch.

    Attributes:
        epoch: from 1.
        loss: mean over the epoch's samples.
        test_error: None where it was not measured.
    """

    epoch: int
    loss: float
    test_error: float | None


def find_runs(paths: Iterable[str | os.PathLike[str]]) -> tuple[list[Outcome], list[LeftOut]]:
    """Read every finished run in some folders and below them.

    Args:
        paths: run folders, or folders that hold some at any depth.

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
        found = {file.parent for name in _FILES for file in path.rglob(name)}
        places |= dict.fromkeys(sorted(found))
    if not places:
        raise ValueError(
            f"no runs found in {', '.join(repr(str(path)) for path in given) or 'nothing'}; "
            "longtail compare and longtail train make some"
        )
    finished: dict[str, Outcome] = {}  # by what decides the result: a beta without effect makes no new run
    left_out = []
    for place in places:
        try:
            outcome = _read(place)
        except (OSError, ValueError, TypeError, KeyError) as error:
            left_out.append(LeftOut(place, f"damaged: {error}" if str(error) else "damaged"))
            continue
        if isinstance(outcome, str):
            left_out.append(LeftOut(place, outcome))
            continue
        fields = {
            **{name: getattr(outcome.recipe, name) for name in ("seed", *_DATA)},
            **_method(outcome.recipe),
        }
        if (first := finished.setdefault(repr(sorted(fields.items())), outcome)) is not outcome:
            left_out.append(LeftOut(place, f"the same settings and seed as {first.folder}"))
    return list(finished.values()), left_out


def comparisons(outcomes: Sequence[Outcome]) -> list[Comparison]:
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
        assert outcome.evaluation is not None
        key = (outcome.recipe.dataset, outcome.evaluation.class_counts)
        groups.setdefault(key, []).append(outcome)
    return [_compared(group) for group in groups.values()]


def title_of(comparison: Comparison) -> str:
    """Name the training set of a comparison."""
    factor = comparison.recipe.imbalance_factor
    return comparison.recipe.dataset + ("" if factor is None else f", imbalance {factor:g}")


def history(outcome: Outcome) -> list[Epoch]:
    """Read a run's metrics.jsonl; lines that are no metrics, and a missing file, count as nothing."""
    try:
        lines = (outcome.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    read = []
    for line in lines:
        try:
            row = json.loads(line)
            read.append(Epoch(int(row["epoch"]), float(row["loss"]), row["test_error"]))
        except (ValueError, KeyError, TypeError):  # a kill can cut the last line short
            continue
    return read


def origin(outcome: Outcome) -> dict[str, Any]:
    """Read what a run was made with, from its environment.json; empty where there is none."""
    try:
        found = json.loads((outcome.folder / "environment.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def class_names(outcomes: Iterable[Outcome], size: int) -> list[str]:
    """Return the names that the first run with names has; the numbers of the classes where none has."""
    for outcome in outcomes:
        names = origin(outcome).get("class_names")
        if isinstance(names, list) and len(names) == size:
            return [str(name) for name in names]
    return [str(i) for i in range(size)]


def paper_cells(outcomes: Sequence[Outcome]) -> list[PaperCell]:
    """Turn runs with and without effective weights into the cells of the paper's grids.

    The published error stands beside a cell only where its runs followed the paper's recipe.
    """
    known = published()
    errors: dict[Cell, list[float]] = {}
    alike: dict[Cell, bool] = {}
    for outcome in outcomes:
        recipe, evaluation = outcome.recipe, outcome.evaluation
        if recipe.scheme not in ("none", "effective") or evaluation is None:
            continue
        beta = recipe.beta if recipe.scheme == "effective" else 0.0
        gamma = recipe.gamma if "focal" in recipe.loss else None
        cell = Cell(recipe.dataset, round(recipe.imbalance_factor or 1), recipe.loss, gamma, beta)
        errors.setdefault(cell, []).append(100.0 * evaluation.error)
        alike[cell] = alike.get(cell, True) and _follows_the_paper(recipe)
    return [
        PaperCell(cell, known.get(cell) if alike[cell] else None, summarize(values))
        for cell, values in errors.items()
    ]


def _follows_the_paper(recipe: Recipe) -> bool:
    if not recipe.dataset.startswith("cifar"):
        return False
    settings = {name: getattr(recipe, name) for name in ("scheme", "beta", "gamma", "seed", "precision")}
    return recipe == paper_cifar(recipe.dataset, recipe.imbalance_factor, recipe.loss, **settings)


def _read(place: Path) -> Outcome | str:
    if not (place / "recipe.json").is_file():
        return "damaged: it has no recipe.json"
    recipe = Recipe.from_json((place / "recipe.json").read_bytes())
    unread = Outcome(recipe, None, 0.0, None, place)
    if not (place / "evaluation.json").is_file():
        done = max((epoch.epoch for epoch in history(unread)), default=0)
        return f"unfinished: {done} of {recipe.epochs} epochs; the same longtail train goes on from there"
    values = json.loads((place / "evaluation.json").read_bytes())
    if not isinstance(values, dict):
        raise TypeError("evaluation.json is no object")
    evaluation = Evaluation.from_dict(values)
    _check(evaluation)
    seconds = origin(unread).get("seconds", math.nan)
    return Outcome(recipe, evaluation, float(seconds), None, place)


def _check(evaluation: Evaluation) -> None:
    """Refuse what no evaluation can hold, before it breaks a page halfway."""
    classes = len(evaluation.class_counts)
    numbers = [evaluation.error, evaluation.balanced_error, evaluation.macro_f1, *evaluation.class_counts]
    numbers += [e for e in evaluation.per_class_error if e is not None]
    numbers += [
        s for s in (evaluation.many_error, evaluation.medium_error, evaluation.few_error) if s is not None
    ]
    if any(isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x) for x in numbers):
        raise ValueError("evaluation.json holds a value that is no finite number")
    if not classes or len(evaluation.per_class_error) != classes:
        raise ValueError("evaluation.json has not one error a class")
    table = evaluation.confusion
    if table is not None and {len(table), *map(len, table)} != {classes}:
        raise ValueError("evaluation.json has a confusion matrix of another shape")


def _compared(outcomes: Sequence[Outcome]) -> Comparison:
    fields = [_method(outcome.recipe) for outcome in outcomes]
    names = sorted({name for field in fields for name in field} - {"loss", "scheme"})
    # a setting is worth a word where runs that have it differ in it
    telling = [n for n in names if len({field[n] for field in fields if n in field}) > 1]
    rows: dict[tuple[str, str, tuple[tuple[str, Any], ...]], list[Outcome]] = {}
    for outcome, field in zip(outcomes, fields, strict=True):
        settings = tuple((name, field[name]) for name in telling if name in field)
        rows.setdefault((outcome.recipe.loss, outcome.recipe.scheme, settings), []).append(outcome)
    order = (*LOSSES, "softmax_focal")
    ranked = sorted(rows, key=lambda key: (order.index(key[0]), SCHEMES.index(key[1]), _ordered(key[2])))
    made = tuple(
        Row(loss, scheme, tuple(sorted(rows[key], key=lambda o: o.recipe.seed)), settings)
        for key in ranked
        for loss, scheme, settings in [key]
    )
    return Comparison(
        made[0].outcomes[0].recipe, made, (), Path(os.path.commonpath([o.folder for o in outcomes]))
    )


def _method(recipe: Recipe) -> dict[str, Any]:
    """Everything of a recipe that makes it another method, in the order of the recipe's fields."""
    idle = {"seed", *_DATA}
    if recipe.scheme != "effective":
        idle.add("beta")
    if "focal" not in recipe.loss:
        idle.add("gamma")
    told = {name: getattr(recipe, name) for name in recipe.to_dict() if name not in idle}
    return told | ({"method": recipe.method.label} if "method" in told else {})


def _ordered(settings: tuple[tuple[str, Any], ...]) -> list[tuple[str, float, str]]:
    return [(n, float(v) if isinstance(v, int | float) else math.inf, str(v)) for n, v in settings]
