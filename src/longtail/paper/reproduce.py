"""The paper's tables by one resumable command: expand the grid, run what is missing, one row a run."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from longtail import _checks, datasets, recipes
from longtail.datasets import Dataset
from longtail.evaluation import Evaluation, PairedDifference, Summary, paired_difference, summarize
from longtail.paper.recipes import paper_cifar
from longtail.paper.tables import ACCURACIES, SPLITS, Cell, SignCell, SkeletonCell, published
from longtail.training.files import InUseError, in_parallel, locked, write_atomic
from longtail.training.recipes import Recipe, gtsrb

AnyCell = Cell | SkeletonCell | SignCell

_PROVENANCE = (
    *(
        "recipe_hash",
        "subset_sha256",
        "epochs",
        "precision",
        "device",
        "longtail",
        "torch",
        "numpy",
        "commit",
    ),
    *("seconds", "per_class_error_percent"),
)
COLUMNS = (
    *("dataset", "imbalance_factor", "loss", "gamma", "beta", "seed", "error_percent"),
    *_PROVENANCE,
)
SKELETON_COLUMNS = (
    *("dataset", "classes", "split", "filters", "seed", "loss", "beta", "imbalance_factor"),
    *("accuracy_percent", *_PROVENANCE),
)
SIGN_COLUMNS = (
    *("loss", "scheme", "beta", "gamma", "seed", "error_percent", "balanced_error_percent"),
    *_PROVENANCE,
)
_LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Job:
    """One run of one cell.

    Attributes:
        cell: the setting.
        recipe: what is trained.
        folder: where the run keeps its checkpoints.
    """

    cell: AnyCell
    recipe: Recipe
    folder: Path


@dataclass(frozen=True)
class Result:
    """How a job ended.

    Attributes:
        job: the run.
        state: "done" | "failed" | "paused" (out of budget, checkpoint kept) | "waiting" (out of budget before
            it began, or another process runs it).
        error_percent: of a run that is done.
        why: of a run that is not done, in one line.
    """

    job: Job
    state: str
    error_percent: float | None
    why: str

    def __str__(self) -> str:
        outcome = self.why if self.error_percent is None else f"error {self.error_percent:.2f} %"
        return f"{self.job.cell} seed {self.job.recipe.seed}: {self.state} {outcome}"


def jobs_for(
    cells: Sequence[AnyCell],
    seeds: int,
    runs: Path,
    *,
    epochs: int | None = None,
    precision: str = "fp32",
) -> list[Job]:
    """Return every cell's runs, seed by seed: all cells once before any cell twice.

    Args:
        cells: from :func:`longtail.paper.tables.cells`, `skeleton_cells` or `sign_cells`.
        seeds: runs of each cell, seeds 0, 1, ...
        runs: folder for the run folders.
        epochs: for a trial, fewer than the recipe's: the schedule shrinks with them.
        precision: "fp32" | "bf16".
    """
    _checks.integer("seeds", seeds, low=1)
    jobs = []
    for seed in range(seeds):
        for cell in cells:
            recipe = _recipe(cell, epochs).replace(seed=seed, precision=precision)
            jobs.append(Job(cell, recipe, runs / recipe.short_hash))
    return jobs


def reproduce(
    jobs: Sequence[Job],
    results: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | Dataset | None = None,
    parallel: int = 1,
    budget_minutes: float | None = None,
    device: str = "auto",
    progress: Callable[[int, int, Result], None] | None = None,
) -> list[Result]:
    """Run the jobs that the results file lacks, and add a row for each as it ends.

    Args:
        jobs: from :func:`jobs_for`, the most wanted first.
        results: the CSV file; rows of other jobs in it are kept.
        data: the folder with the data set's files, or the data set itself; None as in
            :func:`longtail.datasets.cifar10`.
        parallel: runs at a time: in threads on a GPU, where each run has its own stream, in processes on the
            CPU; a joblib backend chosen by the caller is used.
        budget_minutes: stop then; a run that is not finished keeps a checkpoint and goes on the next time.
        device: "auto" | "cpu" | "cuda".
        progress: called after each job as ``progress(done, total, result)``.

    Returns:
        How each job that was not finished before ended.

    Raises:
        ValueError: a results file of another layout, or an option out of range.
    """
    parallel = _checks.integer("jobs", parallel, low=1)
    if budget_minutes is not None:
        budget_minutes = _checks.number("budget", budget_minutes, low=0.0, open_low=True)
    path = Path(results)
    kinds = {SkeletonCell: SKELETON_COLUMNS, SignCell: SIGN_COLUMNS}
    columns = kinds.get(type(jobs[0].cell), COLUMNS) if jobs else COLUMNS
    finished = {row["recipe_hash"] for row in read_rows(path, columns)}
    todo = [job for job in jobs if job.recipe.short_hash not in finished]
    deadline = None if budget_minutes is None else time.time() + 60.0 * budget_minutes
    tasks = ((job, path, data, device, deadline, parallel) for job in todo)
    ended: list[Result] = []
    prefer = "threads" if _on_gpu(device) else "processes"
    for result in in_parallel(_run, tasks, parallel, prefer=prefer):
        ended.append(result)
        if progress is not None:
            progress(len(ended), len(todo), result)
    return ended


def read_rows(path: Path, columns: Sequence[str] = COLUMNS) -> list[dict[str, str]]:
    """Return the rows of a results file; none where there is no file yet.

    Args:
        path: the CSV file.
        columns: `COLUMNS`, `SKELETON_COLUMNS` for DD-Net's, `SIGN_COLUMNS` for GTSRB's.

    Raises:
        ValueError: its columns are not this version's, or a row is broken.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ()) != tuple(columns):
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


def fp32_last(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Order rows so that, where the last row of a seed counts, that is the fp32 run if there is one."""
    return sorted(rows, key=lambda row: row["precision"] == "fp32")


def add_row(path: Path, row: dict[str, Any]) -> bool:
    """Add a row unless its recipe is there already; safe against other processes on the same file.

    Args:
        path: the CSV file.
        row: a value for each column, in their order.

    Returns:
        Whether the row was added.

    Raises:
        ValueError: as :func:`read_rows`.
        RunFolderError: the file cannot be written.
        InUseError: it is locked for longer than a minute.
    """
    with locked(path.parent, wait=_LOCK_SECONDS):
        rows = read_rows(path, tuple(row))
        if any(old["recipe_hash"] == row["recipe_hash"] for old in rows):
            return False
        text = io.StringIO()
        writer = csv.DictWriter(text, tuple(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows, row])
        write_atomic(path, text.getvalue().encode())
        return True


@dataclass(frozen=True)
class PaperCell:
    """A cell's published error beside the measured ones, in percent.

    Attributes:
        cell: the setting.
        paper: None where the paper gives no number.
        measured: over seeds; None where it was not run.
        against_plain: measured minus plain softmax on the same data, paired by seed, which draws the images;
            None for that itself, or where no seed has both.
    """

    cell: Cell
    paper: float | None
    measured: Summary | None
    against_plain: PairedDifference | None = None

    @property
    def difference(self) -> float | None:
        """Measured mean minus published error, in points."""
        return None if self.paper is None or self.measured is None else self.measured.mean - self.paper


def compare_with_paper(
    cells: Sequence[Cell], rows: Sequence[dict[str, str]], *, epochs: int = 200
) -> list[PaperCell]:
    """Set measured rows beside the published errors.

    Args:
        cells: from :func:`longtail.paper.tables.cells`.
        rows: from :func:`read_rows`. A seed counts once a cell, by its fp32 run where it has one; rows of
            another number of epochs are left out.
        epochs: of the rows that count.
    """
    known = published()
    errors: dict[Cell, dict[int, float]] = {}
    for row in fp32_last(rows):
        if int(row["epochs"]) == epochs:
            gamma = float(row["gamma"]) if row["gamma"] else None
            cell = Cell(row["dataset"], int(row["imbalance_factor"]), row["loss"], gamma, float(row["beta"]))
            errors.setdefault(cell, {})[int(row["seed"])] = float(row["error_percent"])
    compared = []
    for cell in cells:
        plain_cell = replace(cell, loss="softmax", gamma=None, beta=0.0)
        ours, plain = errors.get(cell, {}), errors.get(plain_cell, {})
        measured = summarize(list(ours.values())) if ours else None
        change = None if cell == plain_cell else _by_seed(ours, plain)
        compared.append(PaperCell(cell, known.get(cell), measured, change))
    return compared


def _by_seed(ours: Mapping[int, float], base: Mapping[int, float]) -> PairedDifference | None:
    """Return ours minus base, paired by the seeds that both have; None where they share none."""
    both = sorted(ours.keys() & base.keys())
    return paired_difference([ours[s] for s in both], [base[s] for s in both]) if both else None


@lru_cache(maxsize=4)
def _load(name: str, root: str | os.PathLike[str] | None, environment: str | None) -> Dataset:
    """Load a data set once a process, not once a run; again where $LONGTAIL_DATA (`environment`) changes."""
    return datasets.load(name, root)


def _on_gpu(device: str) -> bool:
    import torch

    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())


@dataclass(frozen=True)
class Accuracy:
    """A skeleton setting's published accuracy beside the measured ones, in percent.

    Attributes:
        cell: the setting, its split None: a seed counts by its mean over the three splits.
        published: None where the authors give no number.
        measured: over seeds; None where it was not run.
        gain: over the same loss without weights on the same tail, paired by seed; None on whole sets.
    """

    cell: SkeletonCell
    published: float | None
    measured: Summary | None
    gain: PairedDifference | None

    @property
    def difference(self) -> float | None:
        """Measured mean minus published accuracy, in points."""
        if self.published is None or self.measured is None:
            return None
        return self.measured.mean - self.published


def compare_accuracies(
    cells: Sequence[SkeletonCell], rows: Sequence[dict[str, str]], *, epochs: int | None = None
) -> list[Accuracy]:
    """Set measured accuracies beside the published ones, splits taken together.

    Args:
        cells: of any splits; the result has one entry for all splits of a setting.
        rows: from :func:`read_rows`. A seed counts once a setting, by its fp32 runs where it has all splits
            in that; rows of another number of epochs, or of a seed that lacks a split, are left out.
        epochs: of the rows that count; None for the recipe's.
    """
    found: dict[SkeletonCell, dict[tuple[str, int], dict[int, float]]] = {}
    for row in fp32_last(rows):
        cell = SkeletonCell(
            int(row["classes"]),
            None,
            int(row["filters"]),
            row["loss"],
            float(row["beta"]),
            int(row["imbalance_factor"]),
        )
        if int(row["epochs"]) == _recipe(cell, epochs).epochs:
            splits = found.setdefault(cell, {}).setdefault((row["precision"], int(row["seed"])), {})
            splits[int(row["split"])] = float(row["accuracy_percent"])
    means = {
        cell: {seed: sum(s.values()) / len(s) for (_, seed), s in runs.items() if len(s) == len(SPLITS)}
        for cell, runs in found.items()
    }
    compared = []
    for cell in dict.fromkeys(replace(c, split=None) for c in cells):
        ours, plain = means.get(cell, {}), means.get(replace(cell, beta=0.0), {})
        gain = _by_seed(ours, plain) if cell.beta else None
        measured = summarize(list(ours.values())) if ours else None
        compared.append(Accuracy(cell, ACCURACIES.get(cell), measured, gain))
    return compared


@dataclass(frozen=True)
class SignErrors:
    """A setting's errors on traffic signs, in percent.

    Attributes:
        cell: the setting.
        error: over all test images; None where it was not run.
        balanced: the mean over the classes.
        difference: of the error to that of the plain softmax loss, paired by seed; None for that itself.
        balanced_difference: the same of the balanced error.
    """

    cell: SignCell
    error: Summary | None
    balanced: Summary | None
    difference: PairedDifference | None
    balanced_difference: PairedDifference | None


def compare_signs(
    cells: Sequence[SignCell], rows: Sequence[dict[str, str]], *, epochs: int | None = None
) -> list[SignErrors]:
    """Set the measured errors of all settings beside those of the plain softmax loss.

    Args:
        cells: from :func:`longtail.paper.tables.sign_cells`.
        rows: from :func:`read_rows`. A seed counts once a setting, by its fp32 run where it has one; rows of
            another number of epochs are left out.
        epochs: of the rows that count; None for the recipe's.
    """
    plain = SignCell("softmax", "none")
    found: dict[SignCell, dict[int, tuple[float, float]]] = {}
    for row in fp32_last(rows):
        beta, gamma = (float(row[name]) if row[name] else None for name in ("beta", "gamma"))
        cell = SignCell(row["loss"], row["scheme"], beta, gamma)
        if int(row["epochs"]) == _recipe(cell, epochs).epochs:
            pair = float(row["error_percent"]), float(row["balanced_error_percent"])
            found.setdefault(cell, {})[int(row["seed"])] = pair
    compared = []
    for cell in cells:
        ours, base = found.get(cell, {}), found.get(plain, {})
        error, balanced = (summarize([pair[i] for pair in ours.values()]) if ours else None for i in (0, 1))
        change, balanced_change = (
            None
            if cell == plain
            else _by_seed({s: pair[i] for s, pair in ours.items()}, {s: pair[i] for s, pair in base.items()})
            for i in (0, 1)
        )
        compared.append(SignErrors(cell, error, balanced, change, balanced_change))
    return compared


def _recipe(cell: AnyCell, epochs: int | None) -> Recipe:
    """The cell's recipe for seed 0."""
    recipe = _full_recipe(cell)
    return recipe if epochs is None else recipe.with_epochs(epochs)


def _full_recipe(cell: AnyCell) -> Recipe:
    if isinstance(cell, SignCell):
        given = {"beta": cell.beta, "gamma": cell.gamma}
        chosen = {name: value for name, value in given.items() if value is not None}
        return gtsrb(loss=cell.loss, scheme=cell.scheme, **chosen)
    scheme = "none" if cell.beta == 0.0 else "effective"
    if isinstance(cell, SkeletonCell):
        recipe: Recipe = recipes.ddnet(
            f"jhmdb{cell.classes}-{cell.split or SPLITS[0]}",
            cell.filters,
            loss=cell.loss,
            scheme=scheme,
            beta=cell.beta,
        )
        if cell.imbalance_factor != 1:
            # a third of the clips makes a third of the updates in an epoch: twice the epochs
            recipe = recipe.replace(imbalance_factor=float(cell.imbalance_factor), epochs=2 * recipe.epochs)
        return recipe
    return paper_cifar(
        cell.dataset,
        float(cell.imbalance_factor),
        cell.loss,
        scheme=scheme,
        beta=cell.beta,
        gamma=1.0 if cell.gamma is None else cell.gamma,
    )


def _setting(cell: AnyCell, seed: int, evaluation: Evaluation) -> dict[str, Any]:
    """The columns of a row before its provenance."""
    error_percent = 100.0 * evaluation.error
    if isinstance(cell, SignCell):
        return {
            "loss": cell.loss,
            "scheme": cell.scheme,
            "beta": "" if cell.beta is None else f"{cell.beta:g}",
            "gamma": "" if cell.gamma is None else f"{cell.gamma:g}",
            "seed": seed,
            "error_percent": f"{error_percent:.2f}",
            "balanced_error_percent": f"{100.0 * evaluation.balanced_error:.2f}",
        }
    if isinstance(cell, SkeletonCell):
        return {
            "dataset": "jhmdb",
            "classes": cell.classes,
            "split": cell.split,
            "filters": cell.filters,
            "seed": seed,
            "loss": cell.loss,
            "beta": f"{cell.beta:g}",
            "imbalance_factor": cell.imbalance_factor,
            "accuracy_percent": f"{100.0 - error_percent:.2f}",
        }
    return {
        "dataset": cell.dataset,
        "imbalance_factor": cell.imbalance_factor,
        "loss": cell.loss,
        "gamma": "" if cell.gamma is None else f"{cell.gamma:g}",
        "beta": f"{cell.beta:g}",
        "seed": seed,
        "error_percent": f"{error_percent:.2f}",
    }


def _run(job: Job, results: Path, data: Any, device: str, deadline: float | None, parallel: int) -> Result:
    from joblib import cpu_count

    from longtail.training.folder import environment_of
    from longtail.training.loop import PausedError, train

    if deadline is not None and time.time() >= deadline:
        return Result(job, "waiting", None, "the budget was used up before it began")
    try:
        dataset = (
            data
            if isinstance(data, datasets.Dataset)
            else _load(job.recipe.dataset, data or None, os.environ.get("LONGTAIL_DATA"))
        )
        threads = None if parallel == 1 or _on_gpu(device) else max(1, cpu_count() // parallel)
        try:
            run = train(
                job.recipe, job.folder, dataset=dataset, device=device, threads=threads, deadline=deadline
            )
        except InUseError:
            return Result(job, "waiting", None, "another process runs it")
        about = environment_of(job.folder)
        percent = 100.0 * run.evaluation.error
        per_class = ("" if e is None else f"{100.0 * e:.2f}" for e in run.evaluation.per_class_error)
        known = {
            "recipe_hash": job.recipe.short_hash,
            "epochs": job.recipe.epochs,
            "precision": job.recipe.precision,
            "seconds": f"{run.seconds:.1f}",
            "per_class_error_percent": " ".join(per_class),
        }
        provenance = {key: known.get(key, about.get(key)) for key in _PROVENANCE}
        add_row(
            results,
            _setting(job.cell, job.recipe.seed, run.evaluation)
            | {key: "" if value is None else value for key, value in provenance.items()},
        )
    except PausedError as pause:
        return Result(job, "paused", None, str(pause))
    except Exception as error:  # one failing cell must not cost the others
        return Result(job, "failed", None, f"{type(error).__name__}: {error}")
    return Result(job, "done", round(percent, 2), "")
