"""A finished run, evaluated again: by the loop for data in memory, or as the Trainer does.

A comparison's run on a table or on features is evaluated by what it kept: nothing leads back to its data.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from longtail import _checks
from longtail.datasets import DATASETS, Dataset, load
from longtail.evaluation import Evaluation, MultiLabelEvaluation, read_evaluation
from longtail.training.data import TrainingData
from longtail.training.device import select_device
from longtail.training.files import read_json
from longtail.training.folder import (
    RunResult,
    as_decided,
    check_run,
    environment_of,
    keeps_its_evaluation,
    load_run,
)
from longtail.training.loop import measured, test_logits
from longtail.training.predictions import PREDICTIONS, Predictions, groups_of
from longtail.training.recipe import ImageRecipe, Recipe

__all__ = ["HeldOut", "evaluate_run", "held_out"]


def evaluate_run(
    run_dir: str | os.PathLike[str],
    data: str | os.PathLike[str] | Dataset | None = None,
    *,
    device: str | torch.device = "auto",
) -> Evaluation | MultiLabelEvaluation:
    """Load a finished run's model and evaluate it on its test split again.

    A comparison's run on a table or on features is evaluated by what it kept of its test samples. Where a
    run was given groups, they are what the intervals count.

    Args:
        run_dir: the folder of a finished run.
        data: what it was trained on, where its recipe's name does not lead there: the folder of the files or
            images; a `Dataset` if it was given one. Of a run on a table or on features it is left out.
        device: "auto" takes CUDA where there is one, else the CPU.

    Returns:
        The evaluation; on the machine that trained the run, the one it stored. Of many labels the
        `MultiLabelEvaluation` that it stored, with intervals.

    Raises:
        ValueError: the folder holds no finished run, or a damaged one; the data are not the run's, or it does
            not say where they are.
        FileNotFoundError: the data are not there.
    """
    if (stored := _stored(Path(run_dir), data)) is not None:
        return stored
    run, target = load_run(run_dir), select_device(device)
    if isinstance(run.recipe, ImageRecipe):
        from longtail.training.finetune import evaluate_images  # transformers, which others need not have

        if isinstance(data, Dataset):
            raise TypeError(f"data must be the folder of the images, got {_checks.describe(data)}")
        return evaluate_images(run, data=data, device=device)
    logits, samples = _test_logits(run, data, target)
    found = measured(logits, samples, run.recipe)
    truth = samples.test_targets.cpu().numpy()
    if found.num_groups is not None or (groups := groups_of(run.run_dir, truth)) is None:
        return found
    outputs = logits.float().cpu().numpy()
    decided = run.recipe.method.adjust(outputs, samples.counts, epochs=run.recipe.epochs)
    return found.in_groups(decided.argmax(axis=1), truth, groups)


def _stored(
    folder: Path, data: str | os.PathLike[str] | Dataset | None
) -> Evaluation | MultiLabelEvaluation | None:
    """Read the evaluation of a comparison's run on a table or on features; None of other runs.

    What an earlier version did not store, groups as units and intervals of many labels, is made of what the
    run kept of its test samples.

    Raises:
        ValueError: the run is damaged, or data are given.
    """
    if not (folder / "evaluation.json").is_file():
        return None
    try:
        about = environment_of(folder)
        many_labels = Recipe.from_json((folder / "recipe.json").read_bytes()).many_labels
    except (OSError, ValueError, TypeError):
        return None  # who loads the run says what is damaged
    if not keeps_its_evaluation(about) or (isinstance(data, Dataset) and not many_labels):
        return None
    if data is not None:
        told = data.name if isinstance(data, Dataset) else os.fspath(data)
        raise ValueError(
            f"data={told!r} is given for a run on a table or on features, which is evaluated by what "
            f"{folder} kept of its test samples; leave it out"
        )
    try:
        check_run(folder)
        found = read_evaluation(read_json(folder / "evaluation.json"))
        said = Predictions.read(folder)
        if said is None:
            return found
        if isinstance(found, MultiLabelEvaluation):
            return found.with_intervals(said.logits, said.predicted, said.labels, said.groups)
        if said.groups is None or found.num_groups is not None:
            return found
        return found.in_groups(said.predicted, said.labels, said.groups)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"the run in {folder} is damaged ({error}); put back a copy of what is damaged, or delete the "
            "folder and run again"
        ) from error


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What a finished run's network says of its test split, which it was not trained on.

    Attributes:
        logits: as its method decides by them, float64 of shape (N, C).
        labels: class indices, int64 of shape (N,).
        counts: the shares that the logits answer for, as counts: those of the training, what its method made
            the network see, or one a class where that is not known.
        activation: how the loss reads logits.
        class_counts: training samples of each class.
        groups: one a sample where the run was given groups, else None.
    """

    logits: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    counts: tuple[int, ...]
    activation: str
    class_counts: tuple[int, ...]
    groups: npt.NDArray[np.int64] | None = None


def held_out(
    run_dir: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device = "auto",
) -> HeldOut:
    """Return what a finished run's network says of its test split.

    Where the run kept its predictions, and no data are given, they are read; else the network is asked again.

    Args:
        run_dir: as for `evaluate_run`, and so are all others.
        data: see `evaluate_run`.
        device: see `evaluate_run`.

    Raises:
        ValueError: as `evaluate_run`.
        FileNotFoundError: as `evaluate_run`.
    """
    if data is None and (kept := _kept(Path(run_dir))) is not None:
        return kept
    run, target = load_run(run_dir), select_device(device)
    _refuse_many_labels(run.recipe, run_dir)
    recipe, counts = run.recipe, run.evaluation.class_counts
    if isinstance(recipe, ImageRecipe):
        from longtail.training.finetune import image_outputs

        found = [(z.float().cpu(), y.cpu()) for z, y in image_outputs(run, data=data, device=device)]
        logits, labels = (torch.cat(part).numpy() for part in zip(*found, strict=True))
    else:
        outputs, samples = _test_logits(run, data, target)
        logits, labels = outputs.float().cpu().numpy(), samples.test_targets.cpu().numpy()
    decided = recipe.method.adjust(logits, counts, epochs=recipe.epochs).astype(np.float64)
    groups = groups_of(run.run_dir, labels)
    return _held_out(recipe, decided, labels.astype(np.int64), counts, groups)


def _kept(folder: Path) -> HeldOut | None:
    """Read what a finished run kept of its test split; None where it kept no scores."""
    if not (folder / "evaluation.json").is_file() or not (folder / PREDICTIONS).is_file():
        return None
    check_run(folder)
    recipe = Recipe.from_json((folder / "recipe.json").read_bytes())
    _refuse_many_labels(recipe, folder)
    said = Predictions.read(folder)
    if said is None or said.logits is None:
        return None
    counts = Evaluation.from_dict(read_json(folder / "evaluation.json")).class_counts
    recipe = as_decided(recipe, environment_of(folder))
    return _held_out(recipe, said.logits.astype(np.float64), said.labels, counts, said.groups)


def _refuse_many_labels(recipe: Recipe, run_dir: str | os.PathLike[str]) -> None:
    if recipe.many_labels:
        raise ValueError(
            f"the run in {run_dir} has many labels a sample, which this does not take; longtail evaluate "
            f"{run_dir} shows its labels, and its scores are in {PREDICTIONS}"
        )


def _held_out(
    recipe: Recipe | ImageRecipe,
    logits: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    counts: tuple[int, ...],
    groups: npt.NDArray[np.int64] | None = None,
) -> HeldOut:
    shares = recipe.method.answered(counts, epochs=recipe.epochs)
    seen = (1,) * len(counts) if shares is None else _as_counts(shares, counts)
    return HeldOut(logits, labels, seen, recipe.activation, counts, groups)


def _as_counts(shares: npt.NDArray[np.float64], counts: tuple[int, ...]) -> tuple[int, ...]:
    """Return shares as whole numbers of samples; those of the data as they are."""
    own = np.asarray(counts, dtype=np.float64)
    if np.allclose(shares * own.sum(), own, rtol=1e-9, atol=0):
        return counts
    return tuple(np.rint(shares * 10**12).astype(np.int64).clip(1).tolist())


def _test_logits(
    run: RunResult, data: str | os.PathLike[str] | Dataset | None, target: torch.device
) -> tuple[torch.Tensor, TrainingData]:
    about = environment_of(run.run_dir or ".")
    samples = TrainingData(run.recipe, _trained_on(run, about, data), target)
    if other := samples.other_than(about | {"class_counts": list(run.evaluation.class_counts)}):
        raise ValueError(
            f"data are not those that {run.run_dir} was trained and tested on ({', '.join(other)} differ); "
            "give those"
        )
    return test_logits(run, samples, target, about.get("acceleration", "none")), samples


def _trained_on(
    run: RunResult, about: dict[str, Any], data: str | os.PathLike[str] | Dataset | None
) -> Dataset:
    if isinstance(data, Dataset):
        return data
    name, inputs = run.recipe.dataset, about.get("inputs", {})
    if name in DATASETS:
        return load(name, data)
    given = about.get("arguments", {})  # those of `load_images`, where it was a path
    if (data is None and "source" not in given) or inputs.get("kind") != "images":
        remedy = "the folder of its images" if inputs.get("kind") == "images" else "its Dataset, in Python,"
        raise ValueError(
            f"{run.run_dir} was trained on {name!r}, which is none of longtail's own data sets; give "
            f"{remedy} as data="
        )
    from longtail.datasets.images import in_memory, load_again

    # what could not be read was left out before; whether all else is the same is seen later
    return in_memory(*load_again(given, data), inputs["shape"][-1], name=name, on_error="skip")
