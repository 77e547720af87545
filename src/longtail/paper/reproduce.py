"""The papers' tables by one resumable command: expand the grid, run what is missing, one row a run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

from longtail import datasets
from longtail.datasets import Dataset
from longtail.evaluation import Evaluation
from longtail.extend import integer, number
from longtail.paper.results import add_rows, read_rows, row_of
from longtail.paper.settings import Setting
from longtail.training.files import InUseError, in_parallel
from longtail.training.recipes import Recipe


@dataclass(frozen=True)
class Job:
    """One run of a setting.

    Attributes:
        setting: what it is a run of.
        recipe: what is trained.
        folder: where the run keeps its checkpoints.
    """

    setting: Setting
    recipe: Recipe
    folder: Path

    def __str__(self) -> str:
        return f"{replace(self.setting, recipes=(self.recipe,))} seed {self.recipe.seed}"


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
        return f"{self.job}: {self.state} {outcome}"


def jobs_for(
    settings: Sequence[Setting], seeds: int, runs: str | os.PathLike[str], *, precision: str = "fp32"
) -> list[Job]:
    """Return the runs of settings, seed by seed: each of them once before any of them twice.

    Args:
        settings: of one table.
        seeds: runs of each, seeds 0, 1, ...
        runs: folder for the run folders.
        precision: "fp32" | "bf16".
    """
    integer("seeds", seeds, low=1)
    jobs = []
    for seed in range(seeds):
        for setting in settings:
            for recipe in setting.recipes:
                recipe = recipe.replace(seed=seed, precision=precision)
                jobs.append(Job(setting, recipe, Path(runs) / recipe.short_hash))
    return jobs


def missing(jobs: Sequence[Job], results: Path) -> list[Job]:
    """Return the jobs that the results file lacks, once those whose folder is finished got their row.

    Raises:
        ValueError: a results file of another layout.
    """
    keep(jobs, results)
    rows = read_rows(results, jobs[0].setting.table) if jobs else []
    finished = {row["recipe_hash"] for row in rows}
    return [job for job in jobs if job.recipe.short_hash not in finished]


def keep(jobs: Sequence[Job], results: Path) -> None:
    """Give each of some jobs of one table whose folder is finished its row in the results file.

    Raises:
        ValueError: a results file of another layout.
    """
    rows = [row_of(job.setting.table, job.recipe, job.folder) for job in jobs]
    if found := [row for row in rows if row is not None]:
        add_rows(results, jobs[0].setting.table, found)


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
    parallel = integer("jobs", parallel, low=1)
    if budget_minutes is not None:
        budget_minutes = number("budget", budget_minutes, low=0.0, open_low=True)
    path = Path(results)
    todo = missing(jobs, path)
    deadline = None if budget_minutes is None else time.time() + 60.0 * budget_minutes
    tasks = ((job, data, device, deadline, parallel) for job in todo)
    ended: list[Result] = []
    prefer = "threads" if _on_gpu(device) else "processes"
    for result in in_parallel(_run, tasks, parallel, prefer=prefer, lost=_lost):
        if result.state == "done":
            keep([result.job], path)
        ended.append(result)
        if progress is not None:
            progress(len(ended), len(todo), result)
    return ended


@lru_cache(maxsize=4)
def _load(name: str, root: str | os.PathLike[str] | None, environment: str | None) -> Dataset:
    """Load a data set once a process, not once a run; again where $LONGTAIL_DATA (`environment`) changes."""
    return datasets.load(name, root)


def _trained_before(job: Job) -> Recipe:
    """Return what a method with a later stage trains: the table's own recipe where it has it."""
    wanted, recipe = job.recipe.method.training, job.recipe
    for plain in job.setting.plain:
        if plain.method == wanted:
            return plain.replace(seed=recipe.seed, precision=recipe.precision)
    return recipe.replace(method=wanted)


def _on_gpu(device: str) -> bool:
    import torch

    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())


def _lost(why: str, job: Job, *_: object) -> Result:
    return Result(job, "failed", None, why)


def _run(job: Job, data: object, device: str, deadline: float | None, parallel: int) -> Result:
    from joblib import cpu_count

    from longtail.training.loop import PausedError, train

    if deadline is not None and time.time() >= deadline:
        return Result(job, "waiting", None, "the budget was used up before it began")
    try:
        dataset = (
            data
            if isinstance(data, Dataset)
            else _load(job.recipe.dataset, data or None, os.environ.get("LONGTAIL_DATA"))
        )
        threads = None if parallel == 1 or _on_gpu(device) else max(1, cpu_count() // parallel)
        run_in = partial(train, dataset=dataset, device=device, threads=threads, deadline=deadline)
        trained = None
        if job.recipe.method != job.recipe.method.training:  # what differs afterwards alone shares a run
            before = _trained_before(job)
            trained = run_in(before, job.folder.parent / before.short_hash).run_dir
        run = run_in(job.recipe, job.folder, trained=trained)
    except InUseError:
        return Result(job, "waiting", None, "another process runs it")
    except PausedError as pause:
        return Result(job, "paused", None, str(pause))
    except Exception as error:  # one failing run must not cost the others
        return Result(job, "failed", None, f"{type(error).__name__}: {error}")
    assert isinstance(run.evaluation, Evaluation)  # of one class a sample
    return Result(job, "done", round(100.0 * run.evaluation.error, 2), "")
