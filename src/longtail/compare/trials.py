"""Runs on a table: a learner trained on a fold's training samples, its scores kept, every method decided.

Methods that differ in what they do afterwards share a training. Nothing but the last evaluation sees a test
sample: what a tuned adjustment chooses by are predictions of models trained inside the training samples.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from longtail import _checks
from longtail.compare.folds import fold, inner_folds
from longtail.compare.learners import FLOOR, Learner, fit, fit_labels
from longtail.compare.many_labels import INNER, judge
from longtail.compare.outcome import Outcome
from longtail.evaluation import Evaluation, MultiLabelEvaluation, evaluate, read_evaluation
from longtail.methods import Method
from longtail.sources.arrays import check_headers
from longtail.training.files import locked, read_json, write_atomic
from longtail.training.manifest import FORMAT, MANIFEST, DamagedError, check, seal
from longtail.training.predictions import PREDICTIONS, Predictions

if TYPE_CHECKING:
    from longtail.compare.problem import Problem
    from longtail.training.recipe import Recipe

__all__ = [
    *("already", "finished", "jobs_for", "measures", "memory_there", "run_training", "split", "versions"),
]

Integers = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

WAIT: Final = 86_400.0  # seconds for another process that has a run of this comparison in hand
_CHUNK = 1 << 16  # rows that are scored at a time
_COPIES: Final = 3  # of a table while its categories are encoded, which is the most
_LOOK, _PART = 2000, 0.05  # training samples that are looked at, and what each gives to the shares


def memory_there() -> float:
    """Return the bytes of memory that this machine has; infinity where it does not say."""
    if not hasattr(os, "sysconf"):
        return math.inf
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def jobs_for(problem: Problem, jobs: int | None, trainings: int) -> int:
    """Return how many models learn a table side by side, as each holds its training rows.

    Args:
        problem: the table.
        jobs: as asked for; None takes the number of cores, or fewer where memory does not hold so many.
        trainings: that are left to do.

    Raises:
        ValueError: the rows of one are more than the machine's memory.
    """
    from joblib import cpu_count

    assert problem.inputs is not None
    if jobs is not None:
        jobs = _checks.integer("jobs", jobs, low=1)
    if not trainings:
        return jobs or 1
    there, size = memory_there(), float(problem.inputs.nbytes)
    if size > there:
        raise ValueError(
            f"a model holds its training rows, {size / 2**30:.1f} GiB with all of them, and this machine has "
            f"{there / 2**30:.1f}; leave columns out by drop=NAME, or give fewer rows"
        )
    if jobs is not None:
        return jobs
    jobs = min(cpu_count(), trainings)
    fit = max(1, int(min(jobs, there // (_COPIES * size + 1))))
    if fit < jobs:
        _checks.warn(
            f"{fit} {'model learns' if fit == 1 else 'models learn'} at a time, not {jobs}: each may hold "
            f"{_COPIES * size / 2**30:.1f} GiB of this machine's {there / 2**30:.1f}; jobs={jobs} overrules"
        )
    return fit


def split(problem: Problem, recipe: Recipe) -> tuple[Integers, Integers | None]:
    """Return the training samples of a run, and its test samples; None where a test set is given."""
    assert problem.targets is not None
    if recipe.folds == 0:
        return np.arange(len(problem.targets)), None
    return fold(problem.strata, problem.groups, recipe.folds, recipe.seed)


def run_training(
    problem: Problem,
    how: Learner,
    recipes: Sequence[Recipe],
    places: Sequence[Path],
    made_with: dict[str, object],
) -> list[Outcome]:
    """Run one training and decide every method that shares it; what is finished already is read.

    Args:
        problem: the table.
        how: the learner.
        recipes: of methods that share a training and a fold.
        places: their folders.
        made_with: versions and machine, for environment.json.
    """
    try:
        with locked(places[0], wait=WAIT):  # what another process makes meanwhile is read
            return _run(problem, how, recipes, places, made_with)
    except Exception as error:  # one failing run must not cost the others
        why = f"{type(error).__name__}: {error}"
        return [Outcome(r, None, 0.0, why, p) for r, p in zip(recipes, places, strict=True)]


def _run(
    problem: Problem,
    how: Learner,
    recipes: Sequence[Recipe],
    places: Sequence[Path],
    made_with: dict[str, object],
) -> list[Outcome]:
    assert problem.inputs is not None
    assert problem.targets is not None
    started = time.perf_counter()
    about = problem.about
    done = already(recipes, places, about)
    if len(done) == len(places):
        return [done[p] for p in places]
    train, test = split(problem, recipes[0])
    x, y = problem.inputs, problem.targets
    if test is None:
        assert problem.test is not None
        (tested, truth), rows = problem.test, np.arange(len(problem.test[1]))
        asked = rows
    else:
        tested, truth, rows, asked = x, y[test], test, test
    groups = None if problem.groups is None else problem.groups[train]
    kinds = [kind for _, kind in problem.columns] or ["number"] * x.shape[1]
    method, seed, classes = recipes[0].method.training, recipes[0].seed, len(problem.class_names)

    def fitted(samples: Integers) -> Callable[[npt.NDArray[Any]], Scores]:
        # what is gathered here goes as soon as the learner has prepared it
        if problem.many_labels:
            return fit_labels(how, kinds, x[samples], y[samples], method, seed)
        return fit(how, kinds, x[samples], y[samples], method, seed, classes)

    def trained(inside: Integers, asked: Integers) -> Scores:
        return _scores(fitted(train[inside]), x, train[asked])

    kept = places[0] / "scores.npz"  # everything out of fold: later adjustments need no training
    scores = _kept(kept)
    if "test" not in scores:
        say = fitted(train)
        scores |= {"test": _scores(say, tested, asked), "rows": rows}
        if not problem.many_labels and method == Method():
            look = np.sort(np.random.default_rng(seed).permutation(len(train))[:_LOOK])
            if undone(say(x[train[look]]), y[train[look]]):
                scores["undone"] = np.array(True)
    asks = problem.many_labels or any(r.method.is_tuned for r in recipes)
    if asks and "held_out" not in scores:
        scores |= _held_out(trained, problem.strata[train], groups, classes, problem.many_labels)
    buffer = io.BytesIO()
    np.savez(buffer, **scores)  # type: ignore[arg-type]
    write_atomic(kept, buffer.getvalue())
    outcomes = []
    for recipe, place in zip(recipes, places, strict=True):
        if place in done:
            outcomes.append(done[place])
            continue
        inner = (scores["held_out"], y[train][scores["held_out_rows"]]) if asks else None
        together = problem.test_groups
        if test is not None:
            together = None if problem.groups is None else problem.groups[test]
        evaluation: Evaluation | MultiLabelEvaluation
        if problem.many_labels:
            assert inner is not None
            judged = judge(
                recipe.method,
                scores["test"],
                truth,
                y[train],
                inner,
                problem.class_counts,
                together,
                drawn=test is None,
            )
            evaluation, more, said = judged
        else:
            counts = np.bincount(y[train], minlength=classes)
            decided = recipe.method.adjust(scores["test"], counts, held_out=inner)
            said = Predictions.of(decided, truth, together)
            evaluation = evaluate(
                decided, truth, problem.class_counts, activation="softmax", groups=said.groups
            )
            more = measures(decided, truth)
        seconds = time.perf_counter() - started
        environment = made_with | about | {"seconds": seconds, "measures": more}
        environment |= {"manifest": FORMAT} | ({"undone": True} if "undone" in scores else {})
        files = {"recipe.json": recipe.to_dict(), "environment.json": environment}
        for name, content in files.items():
            write_atomic(place / name, _as_json(content))
        last = {"evaluation.json": _as_json(evaluation.to_dict())}  # it says that the run is finished
        said.write(place)
        seal(place, [*files, PREDICTIONS], last)
        write_atomic(place / "evaluation.json", last["evaluation.json"])
        outcomes.append(Outcome(recipe, evaluation, seconds, None, place))
    return outcomes


def undone(logits: Scores, truth: Integers) -> bool:
    """Whether a training without weights is no fit of its own samples: probabilities that are sure and wrong.

    What lowers the log-loss of its own samples cannot be improved there by giving a part of every probability
    to the shares of the classes. Where that takes a fifth of the log-loss away, the training undid itself, as
    boosting does whose leaves of a thin class grow without bound.

    Args:
        logits: of training samples, log-probabilities of shape (n, C).
        truth: class indices.
    """
    shares = np.bincount(truth, minlength=logits.shape[1]) / len(truth)
    own = np.exp(logits[np.arange(len(truth)), truth])
    mixed = (1 - _PART) * own + _PART * shares[truth]
    return bool(np.log(np.maximum(own, FLOOR)).sum() < 1.25 * np.log(mixed).sum())


def measures(logits: Scores, truth: Integers) -> dict[str, float]:
    """Return what an evaluation of the scores lacks: each class counts the same.

    Args:
        logits: of a softmax, shape (N, C).
        truth: class indices.

    Returns:
        ``balanced_log_loss``: mean over the classes of their mean -log p; ``average_precision``: mean over
        the classes of the area under precision by recall, one class against the others.
    """
    from scipy.special import log_softmax
    from sklearn.metrics import average_precision_score

    log_p = log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    present = np.unique(truth)
    losses = [-log_p[truth == c, c].mean() for c in present]
    areas = [average_precision_score(truth == c, log_p[:, c]) for c in present]
    return {"balanced_log_loss": float(np.mean(losses)), "average_precision": float(np.mean(areas))}


def versions() -> dict[str, object]:
    """Return what runs are made with: libraries, machine and commit."""
    import torch

    from longtail.training.folder import environment

    found = environment(torch.device("cpu")) | {"torch": ""}  # which a table does not need
    for name in ("scikit-learn", "lightgbm", "xgboost", "xgboost-cpu", "catboost", "imbalanced-learn"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _scores(say: Callable[[npt.NDArray[Any]], Scores], inputs: npt.NDArray[Any], rows: Integers) -> Scores:
    """Return scores of some rows, which are taken a part at a time: a table may be larger than memory."""
    parts = np.array_split(rows, max(1, -(-len(rows) // _CHUNK)))
    return np.concatenate([say(inputs[part]) for part in parts])


def _held_out(
    trained: Callable[[Integers, Integers], Scores],
    strata: Integers,
    groups: Integers | None,
    classes: int,
    many_labels: bool,
) -> dict[str, npt.NDArray[Any]]:
    """Return out-of-fold scores of the training samples, and of which: a class of one sample is in none."""
    scores, held = np.full((len(strata), classes), np.log(FLOOR)), np.zeros(len(strata), dtype=bool)
    for inside, outside in inner_folds(strata, groups, INNER if many_labels else None):
        scores[outside], held[outside] = trained(inside, outside), True
    rows = np.flatnonzero(held)
    return {"held_out": scores[rows], "held_out_rows": rows}


def _as_json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def already(
    recipes: Sequence[Recipe], places: Sequence[Path], about: dict[str, object]
) -> dict[Path, Outcome]:
    """Return the runs that are there, by their folders; what cannot be taken is a failed one."""
    done = {}
    for recipe, place in zip(recipes, places, strict=True):
        try:
            if found := finished(recipe, place, about):
                done[place] = found
        except Exception as error:  # one failing run must not cost the others
            done[place] = Outcome(recipe, None, 0.0, f"{type(error).__name__}: {error}", place)
    return done


def finished(recipe: Recipe, place: Path, about: dict[str, object]) -> Outcome | None:
    """Return a run that is there already, or None.

    Raises:
        ValueError: it is on other data, or damaged, or was edited.
    """
    if not (place / "environment.json").is_file() or not (place / "evaluation.json").is_file():
        return None
    try:
        environment = read_json(place / "environment.json")
        if not check(place) and "manifest" in environment:
            raise DamagedError(f"{MANIFEST} is missing")
        evaluation = read_evaluation(read_json(place / "evaluation.json"))
        seconds = float(environment.get("seconds", 0.0))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the run in {place} is damaged ({error}); put back a copy of what is damaged, or delete the "
            "folder and start again"
        ) from error
    if other := [key for key, value in about.items() if environment.get(key, value) != value]:
        raise ValueError(
            f"run folder {place} holds a run on other data ({', '.join(other)} differ); choose another "
            "folder (--out), or delete this one to start anew"
        )
    return Outcome(recipe, evaluation, seconds, None, place)


def _kept(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the scores that an earlier start left; none where there are none, or damaged ones."""
    if not path.is_file():
        return {}
    try:
        check_headers(path)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        _checks.warn(f"{path} cannot be read ({error}); what it held is computed again")
        return {}
