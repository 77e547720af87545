"""The main job: train with and without class balancing over several seeds, and say honestly what it did."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longtail import _checks
from longtail.datasets import DATASETS, Dataset, load
from longtail.evaluation import Evaluation, PairedDifference, Summary, paired_difference, summarize
from longtail.training.files import in_parallel, write_atomic
from longtail.training.recipe import Recipe
from longtail.weights import SCHEMES

__all__ = ["LOSSES", "SCHEMES", "Comparison", "Outcome", "Row", "compare"]

LOSSES = ("softmax", "sigmoid", "focal")
GROUPS = ("many", "medium", "few")
CONFIDENCE = 0.95

Progress = Callable[[int, int, "Outcome"], None]


@dataclass(frozen=True)
class Outcome:
    """One run of a comparison.

    Attributes:
        recipe: what was trained.
        evaluation: None where the run failed.
        seconds: of training and evaluation.
        failure: why it failed, in one line, or None.
        folder: where its files are.
    """

    recipe: Recipe
    evaluation: Evaluation | None
    seconds: float
    failure: str | None
    folder: Path


@dataclass(frozen=True)
class Row:
    """One method: a loss and a weighting, over its seeds.

    Attributes:
        loss: name of the loss.
        scheme: name of the weighting.
        outcomes: its finished runs, by seed.
        settings: recipe fields that tell it from other rows of the same loss and weighting.
    """

    loss: str
    scheme: str
    outcomes: tuple[Outcome, ...]
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def weights(self) -> str:
        """The weighting with its settings, as tables name it."""
        return " ".join([self.scheme, *(f"{name}={_plain(value)}" for name, value in self.settings)])

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that finished."""
        return tuple(outcome.recipe.seed for outcome in self.outcomes)

    def values(self, field: str, seeds: Sequence[int] | None = None) -> list[float] | None:
        """Return a field of the evaluations, seed by seed; None where it does not apply."""
        chosen = [o for o in self.outcomes if seeds is None or o.recipe.seed in seeds]
        values = [getattr(o.evaluation, field) for o in chosen]
        return None if not values or any(v is None for v in values) else values

    def summary(self, field: str = "error") -> Summary | None:
        """Return mean and spread of a field over the seeds; None where it does not apply."""
        values = self.values(field)
        return None if values is None else summarize(values, CONFIDENCE)


@dataclass(frozen=True)
class Comparison:
    """All methods side by side.

    Attributes:
        recipe: what the methods share; its loss, scheme and seed are those of the first.
        rows: one a method, losses outermost, "none" first among the weightings.
        failures: the runs that did not finish.
        folder: where everything was written.
    """

    recipe: Recipe
    rows: tuple[Row, ...]
    failures: tuple[Outcome, ...]
    folder: Path

    def baseline(self, row: Row) -> Row | None:
        """Return the row of the same loss and settings without re-weighting, if it is another with seeds."""
        alike = [(name, value) for name, value in row.settings if name != "beta"]  # which "none" has not
        found = [r for r in self.rows if (r.loss, r.scheme, list(r.settings)) == (row.loss, "none", alike)]
        return found[0] if found and found[0] is not row and found[0].outcomes else None

    def difference(
        self, row: Row, field: str = "error", confidence: float = CONFIDENCE
    ) -> PairedDifference | None:
        """Return row minus its baseline over the seeds that both have; None without a baseline."""
        base = self.baseline(row)
        if base is None:
            return None
        shared = sorted(set(row.seeds) & set(base.seeds))
        ours, theirs = row.values(field, shared), base.values(field, shared)
        return None if ours is None or theirs is None else paired_difference(ours, theirs, confidence)

    @property
    def comparisons(self) -> int:
        """The number of differences that are tested."""
        return sum(self.baseline(row) is not None for row in self.rows)

    def lowest(self, field: str = "error", rows: Sequence[Row] | None = None) -> Row | None:
        """Return the row (of all, or of some) with the lowest mean of a field; None where none has it."""
        ranked = [
            (s.mean, i)
            for i, row in enumerate(self.rows if rows is None else rows)
            if (s := row.summary(field)) is not None
        ]
        return (self.rows if rows is None else rows)[min(ranked)[1]] if ranked else None

    @property
    def best(self) -> Row | None:
        """The row of the lowest mean error."""
        return self.lowest()

    def beats_none(self, row: Row, field: str = "error") -> bool:
        """Whether a row is lower in a field than its baseline after Bonferroni's correction for all rows."""
        if self.baseline(row) is None:
            return False
        corrected = self.difference(row, field, confidence=1.0 - (1.0 - CONFIDENCE) / self.comparisons)
        return corrected is not None and corrected.significant and corrected.mean < 0

    @property
    def winner(self) -> Row | None:
        """The row of the lowest mean error, if it significantly beats its baseline."""
        return self.best if self.best is not None and self.beats_none(self.best) else None

    def verdict(self) -> str:
        """Say what was found, and never more than the intervals allow."""
        best, summary = self.best, self.best.summary() if self.best else None
        if best is None or summary is None:
            return "No run finished, so there is nothing to compare."
        lowest = f"{best.loss}, {best.weights} weights, {100 * summary.mean:.1f} %"
        if best.scheme == "none":
            text = f"Lowest mean error: {best.loss} without re-weighting, {100 * summary.mean:.1f} %."
        elif (d := self.difference(best)) is None:
            text = f"Lowest mean error: {lowest}; there is no run without re-weighting to compare it with."
        elif d.low is None or d.high is None:
            text = f"Lowest error: {lowest}, {_points(d)}; a single seed proves nothing."
        else:
            interval = f"95 % interval {100 * d.low:+.1f} to {100 * d.high:+.1f}, {d.n} seeds"
            if self.winner is not None:
                tests = f"significant after correction for {self.comparisons} tests"
                return f"Best: {lowest}, {_points(d)} ({interval}; {tests})."
            text = (
                f"Lowest mean error: {lowest}, {_points(d)} ({interval}); after correction for "
                f"{self.comparisons} tests that may be chance, so no method is marked best."
            )
        others = [f"{row.loss} {row.weights}" for row in self.rows if self.beats_none(row)]
        if others:
            text += f" Significantly better than their own baseline: {', '.join(others)}."
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return everything that was measured, as JSON knows it."""
        rows = []
        for row in self.rows:
            d = self.difference(row)
            fields = (
                "error",
                "balanced_error",
                *(f"{g}_error" for g in GROUPS),
                "macro_f1",
                "expected_calibration_error",
            )
            rows.append(
                {
                    "loss": row.loss,
                    "scheme": row.scheme,
                    "seeds": list(row.seeds),
                    **{
                        f: None if (s := row.summary(f)) is None else {"mean": s.mean, "sd": s.sd}
                        for f in fields
                    },
                    "difference_to_none": None
                    if d is None
                    else {
                        "mean": d.mean,
                        "low": d.low,
                        "high": d.high,
                        "p_value": d.p_value,
                        "confidence": d.confidence,
                    },
                    "significantly_better": self.beats_none(row),
                    "best": row is self.winner,
                }
            )
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "rows": rows,
            "verdict": self.verdict(),
            "comparisons": self.comparisons,
            "failures": [{"folder": str(o.folder), "why": o.failure} for o in self.failures],
        }

    def to_csv(self) -> str:
        """Return one line a run, with its provenance."""
        from longtail.training.folder import environment_of

        lines = io.StringIO()
        groups = (f"{group}_error" for group in GROUPS)
        names = [
            "error",
            "balanced_error",
            *groups,
            "macro_f1",
            "worst_class_error",
            "expected_calibration_error",
        ]
        writer = csv.writer(lines, lineterminator="\n")
        origin = ("subset_sha256", "device", "longtail", "torch", "numpy", "commit")
        method = ("dataset", "imbalance_factor", "loss", "scheme", "beta", "gamma", "seed")
        writer.writerow([*method, *names, "seconds", "recipe_hash", *origin])
        for outcome in (o for row in self.rows for o in row.outcomes):
            r, e = outcome.recipe, outcome.evaluation
            made = environment_of(outcome.folder)
            values = [getattr(e, name) for name in names]
            writer.writerow(
                [
                    *(getattr(r, name) for name in method),
                    *("" if v is None else f"{v:.6g}" for v in values),
                    f"{outcome.seconds:.2f}",
                    r.short_hash,
                    *(made.get(key) or "" for key in origin),
                ]
            )
        return lines.getvalue()


def compare(
    recipe: Recipe,
    *,
    losses: Sequence[str] = LOSSES,
    schemes: Sequence[str] = SCHEMES,
    seeds: int | Sequence[int] = 5,
    dataset: Dataset | None = None,
    out: str | os.PathLike[str] = "runs/compare",
    jobs: int | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Comparison:
    """Train every loss with every weighting over several seeds, and set them side by side.

    The seed chooses the long-tailed subset, the initial weights and the order of the batches, the same
    for all methods, so that differences between methods are paired. Finished runs are kept: the same call
    goes on where it was stopped. A run that fails is reported and the others go on.

    Args:
        recipe: what all runs share; its loss, scheme and seed are replaced.
        losses: any of "softmax", "sigmoid", "focal", "softmax_focal".
        schemes: any of "none", "inverse", "inverse_sqrt", "effective".
        seeds: how many (0, 1, ...), or which.
        dataset: the data that the recipe names, if they are none of longtail's own.
        out: folder for the runs and for compare.json and compare.csv.
        jobs: runs at a time, in processes; default: one per available core on a CPU. A joblib backend
            chosen by the caller (``joblib.parallel_config``), such as Dask's or Ray's, is used.
        device: "auto" | "cpu" | "cuda".
        progress: called after each run as ``progress(done, total, outcome)``.

    Returns:
        The comparison.

    Raises:
        ValueError: no loss, scheme or seed, or unknown ones; a folder with runs of another recipe; data that
            are unknown or too few for the recipe's tail.
        OSError: ``out`` cannot be written, or the data are not there.

    Source: the comparison of Cui et al. (CVPR 2019), Table 2, with the seeds and spread that it lacks.
    """
    methods, chosen = plan(losses, schemes, seeds, device)
    folder = Path(out)
    recipes = [recipe.replace(loss=loss, scheme=scheme, seed=s) for s in chosen for loss, scheme in methods]
    places = [folder / f"{r.loss}-{r.scheme}" / f"seed{r.seed}" for r in recipes]
    for r, place in zip(recipes, places, strict=True):
        _refuse_other_recipe(r, place)
    if not all((place / "evaluation.json").is_file() for place in places):
        _check_data(recipe, dataset)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"out={str(out)!r} cannot be made a folder ({error.strerror}); choose another"
        ) from error
    outcomes = list(_run_all(recipes, places, dataset, jobs, device, progress))
    rows = []
    for loss, scheme in methods:
        mine = [o for o in outcomes if (o.recipe.loss, o.recipe.scheme) == (loss, scheme) and o.evaluation]
        rows.append(Row(loss, scheme, tuple(sorted(mine, key=lambda o: o.recipe.seed))))
    result = Comparison(recipes[0], tuple(rows), tuple(o for o in outcomes if o.failure), folder)
    write_atomic(folder / "compare.json", (json.dumps(result.to_dict(), indent=2) + "\n").encode())
    write_atomic(folder / "compare.csv", result.to_csv().encode())
    return result


def plan(
    losses: Sequence[str], schemes: Sequence[str], seeds: int | Sequence[int], device: str = "auto"
) -> tuple[list[tuple[str, str]], list[int]]:
    """Check what is to be compared, and return the methods and the seeds.

    Raises:
        ValueError: no loss, scheme or seed, unknown ones, one named twice, or an unknown device.
        TypeError: a name in place of a list of names.
    """
    if device.partition(":")[0] not in ("auto", "cpu", "cuda"):
        _checks.choice("device", device, ("auto", "cpu", "cuda"))
    methods = itertools.product(_distinct("losses", losses), _distinct("schemes", schemes))
    return list(methods), _seeds(seeds)


def _run_all(
    recipes: list[Recipe],
    places: list[Path],
    dataset: Dataset | None,
    jobs: int | None,
    device: str,
    progress: Progress | None,
) -> Iterator[Outcome]:
    from joblib import cpu_count

    jobs = _checks.integer("jobs", jobs, low=1) if jobs is not None else cpu_count()
    jobs = min(jobs, len(recipes))
    threads = 1 if jobs > 1 else None
    todo = ((r, p, dataset, device, threads) for r, p in zip(recipes, places, strict=True))
    for done, outcome in enumerate(in_parallel(_run_one, todo, jobs), start=1):
        if progress is not None:
            progress(done, len(recipes), outcome)
        yield outcome


def _run_one(
    recipe: Recipe, place: Path, dataset: Dataset | None, device: str, threads: int | None
) -> Outcome:
    from longtail.training.loop import train  # in the worker: the parent never needs torch

    try:
        result = train(recipe, place, dataset=dataset, device=device, threads=threads)
    except Exception as error:  # one failing cell must not cost the others
        return Outcome(recipe, None, 0.0, f"{type(error).__name__}: {error}", place)
    return Outcome(recipe, result.evaluation, result.seconds, None, place)


def _refuse_other_recipe(recipe: Recipe, place: Path) -> None:
    # found now rather than after an hour of other runs
    file = place / "recipe.json"
    if file.is_file() and Recipe.from_json(file.read_bytes()) != recipe:
        raise ValueError(
            f"out={str(place.parent.parent)!r} holds runs of another recipe; choose another folder"
        )


def _check_data(recipe: Recipe, dataset: Dataset | None) -> None:
    # found now rather than by every run
    if dataset is None:
        dataset = load(_checks.choice("dataset", recipe.dataset, DATASETS.names))
    if recipe.imbalance_factor is not None:
        dataset.long_tailed(recipe.imbalance_factor, profile=recipe.profile)


def _distinct(name: str, values: Sequence[str]) -> list[str]:
    if isinstance(values, str):
        raise TypeError(f"{name} must be a list of names, got {values!r}; write [{values!r}]")
    values = list(values)
    if not values or len(set(values)) != len(values):
        raise ValueError(f"{name} must name at least one, each once, got {values}")
    options = SCHEMES if name == "schemes" else (*LOSSES, "softmax_focal")
    return [_checks.choice(name, value, options) for value in values]


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    if isinstance(seeds, int):
        return list(range(_checks.integer("seeds", seeds, low=1, remedy="five seeds give a usable interval")))
    chosen = [_checks.integer("seeds", s, low=0) for s in seeds]
    if not chosen or len(set(chosen)) != len(chosen):
        raise ValueError(f"seeds must name at least one, each once, got {chosen}")
    return chosen


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _points(d: PairedDifference) -> str:
    side = "below" if d.mean < 0 else "above"
    return f"{abs(100 * d.mean):.1f} points {side} the same loss without re-weighting"
