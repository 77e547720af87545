"""A run's folder: what it holds, whose it is, and how a finished run is read back."""

from __future__ import annotations

import functools
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from longtail import _checks, models
from longtail.evaluation import Evaluation, MultiLabelEvaluation, read_evaluation
from longtail.methods import Rule
from longtail.models.cosine import CosineLinear, with_cosine_head
from longtail.models.image_classifiers import head_of, read_classifier
from longtail.training import manifest
from longtail.training.adapting import with_cosine_classifier
from longtail.training.files import RunFolderError, parse_json, read_json, write_atomic
from longtail.training.recipe import ImageRecipe, Recipe

__all__ = ["EpochMetrics", "RunFolder", "RunResult", "as_decided", "check_run", "environment_of", "load_run"]


@dataclass(frozen=True)
class EpochMetrics:
    """One line of metrics.jsonl; no times, so that a resumed run writes the same bytes.

    Attributes:
        epoch: from 1.
        loss: mean over the epoch's samples, as it was when each was trained on.
        learning_rate: at the epoch's last step.
        test_error: share of the test samples misclassified; None where it was not measured.
    """

    epoch: int
    loss: float
    learning_rate: float
    test_error: float | None


@dataclass(frozen=True, eq=False)
class RunResult:
    """A finished run.

    Attributes:
        recipe: what was trained.
        evaluation: of the last epoch's weights on the test split.
        history: one entry an epoch.
        seconds: wall-clock time of training and evaluation, summed over interruptions.
        run_dir: its folder; None if it was not given one.
        model: the trained network on the CPU, in evaluation mode.
    """

    recipe: Recipe
    evaluation: Evaluation | MultiLabelEvaluation
    history: tuple[EpochMetrics, ...]
    seconds: float
    run_dir: Path | None
    model: nn.Module


@dataclass(frozen=True)
class RunFolder:
    """Writes the files of one run; evaluation.json, written last, marks the run as finished."""

    path: Path

    def finished(self, recipe: Recipe) -> bool:
        """Say whether this recipe's run is finished here; the folder may be new or empty.

        Raises:
            ValueError: it belongs to another recipe, or holds files that are no run.
        """
        file = self.path / "recipe.json"
        if file.exists():
            try:
                owner = Recipe.from_json(file.read_bytes())
            except ValueError as error:
                raise ValueError(
                    f"{file} is not a recipe that this version reads ({error}); choose another folder"
                ) from error
            if owner != recipe:
                raise ValueError(
                    f"run folder {self.path} holds recipe {owner.short_hash}, this run is recipe "
                    f"{recipe.short_hash} (they differ in {', '.join(_differences(owner, recipe))}); "
                    "choose another folder, or delete this one to start anew"
                )
            return (self.path / "evaluation.json").exists()
        strange = sorted(p.name for p in self.path.glob("*") if not p.name.startswith("."))
        if strange:
            raise ValueError(
                f"run folder {self.path} has no recipe.json, but holds {strange[0]!r}; "
                "choose a new or empty folder"
            )
        return False

    def claim(self, recipe: Recipe) -> None:
        """Make the folder this recipe's.

        Raises:
            RunFolderError: it cannot be written.
        """
        if not (self.path / "recipe.json").exists():
            write_atomic(self.path / "recipe.json", recipe.to_json().encode())

    def write_environment(self, about: Mapping[str, object]) -> None:
        """Write environment.json, which also says that the finished run has a manifest."""
        write_atomic(self.path / "environment.json", _json(dict(about) | {"manifest": manifest.FORMAT}))

    def finish(self, evaluation: Evaluation | MultiLabelEvaluation, names: Iterable[str]) -> None:
        """Write the manifest of the run's files, and evaluation.json, which ends the run.

        Args:
            evaluation: of the trained network.
            names: the files of the network, beside those that every run has.

        Raises:
            RunFolderError: they cannot be written.
        """
        for left in self.path.glob(".*.tmp"):  # what a kill in the middle of a write left behind
            left.unlink(missing_ok=True)
        last = {"evaluation.json": _json(evaluation.to_dict())}
        manifest.seal(self.path, {"recipe.json", "environment.json", "metrics.jsonl", *names}, last)
        for name, content in last.items():
            write_atomic(self.path / name, content)

    def write_metrics(self, history: Sequence[EpochMetrics]) -> None:
        """Write metrics.jsonl anew, dropping lines of epochs that will be trained again."""
        lines = "".join(json.dumps(asdict(m)) + "\n" for m in history)
        write_atomic(self.path / "metrics.jsonl", lines.encode())

    def append_metrics(self, metrics: EpochMetrics) -> None:
        """Add a line for those who watch; if a kill cuts it short, the next start writes the file anew."""
        path = self.path / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(metrics)) + "\n")
        except OSError as error:
            raise RunFolderError(
                f"cannot write {path}: {error.strerror}; free some space, then start the same run again: "
                "it resumes"
            ) from error

    def take_files(self, save: Callable[[Path], object]) -> list[str]:
        """Let `save` write files into a folder of their own, and move them here when it is done.

        Returns:
            Their names.

        Raises:
            RunFolderError: they cannot be written.
        """
        staging = self.path / ".model"
        try:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
            save(staging)
            names = sorted(p.name for p in staging.iterdir() if p.is_file())
            for name in names:
                os.replace(staging / name, self.path / name)  # never through a link that lies there
            shutil.rmtree(staging, ignore_errors=True)
        except OSError as error:
            raise RunFolderError(
                f"cannot write the network into {self.path}: {error.strerror or error}; free some space, "
                "then start the same run again: it goes on from its last checkpoint"
            ) from error
        return names

    def write_model(self, model: nn.Module, shape: Mapping[str, int]) -> None:
        """Write model.safetensors, with what `longtail.models.build` needs to make the network."""
        weights = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
        content = to_safetensors(weights, metadata={"longtail": json.dumps(dict(shape))})
        write_atomic(self.path / "model.safetensors", content)


def load_run(run_dir: str | os.PathLike[str], *, model: nn.Module | None = None) -> RunResult:
    """Read a finished run back from its folder.

    A method that chose its adjustment by held-out predictions comes back with what it chose.

    Args:
        run_dir: the folder.
        model: for a run on a network of your own, that network; it gets the run's weights.

    Raises:
        ValueError: the folder holds no finished run, or one on a network that is not given, or a file in it
            is damaged.
    """
    folder = Path(run_dir)
    if not (folder / "evaluation.json").is_file():
        raise ValueError(f"{folder} holds no finished run; train into that folder until it is finished")
    try:
        check_run(folder)
        recipe = _recipe_of(folder)
        about = environment_of(folder)
        if is_of_table(about):
            raise _UnknownHereError(
                f"the run in {folder} is of a table, by the learner {about['learner']!r}, of which no model "
                "is kept; fit it anew by the line Code of the comparison's answer"
            )
        evaluation = read_evaluation(read_json(folder / "evaluation.json"))
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        history = tuple(EpochMetrics(**parse_json(line, "metrics.jsonl")) for line in lines)
        seconds = float(about["seconds"])
        recipe = as_decided(recipe, about)
        if (folder / "config.json").is_file():
            model = _with_its_head(read_classifier(folder, about["class_names"]), recipe)
        elif not (folder / "model.safetensors").is_file():
            raise ValueError("model.safetensors is missing")
        else:
            weights, shape = _read_model(folder / "model.safetensors")
            if model is not None:
                model.load_state_dict(weights)
                model = _with_its_head(model, recipe)
            elif not isinstance(recipe, ImageRecipe):
                with torch.device("meta"):  # the weights come from the file; none are drawn
                    model = models.build(recipe.model, **shape)
                    if recipe.method.cosine:
                        model = with_cosine_head(model, recipe.method.cosine)
                model.load_state_dict(weights, assign=True)
    except _UnknownHereError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        kind = "" if type(error) in (ValueError, manifest.DamagedError) else f"{type(error).__name__}: "
        why = " ".join(str(error).split()) or "no reason given"
        raise ValueError(
            f"the run in {folder} is damaged ({kind}{why}); put back a copy of what is damaged, or "
            "delete the folder and train again"
        ) from error
    if model is None:
        raise ValueError(f"the run in {folder} is on a network of your own; give that as load_run(model=)")
    return RunResult(recipe, evaluation, history, seconds, folder, model.eval())


def as_decided(recipe: Recipe, about: Mapping[str, Any]) -> Recipe:
    """Return a run's recipe with what its tuned adjustment chose, where the run says it."""
    if not (recipe.method.is_tuned and "tau" in about):
        return recipe
    chosen = Rule("logit", tau=float(about["tau"]))
    return recipe.replace(method=recipe.method.replace(adjustment=chosen))


def _with_its_head(model: nn.Module, recipe: Recipe) -> nn.Module:
    """Make the linear layer that a cosine head was written as a cosine head again."""
    if not recipe.method.cosine or isinstance(head_of(model), CosineLinear):
        return model
    return with_cosine_classifier(model, recipe.method.cosine, keep=True)


def check_run(folder: Path, *, hashed: float = float("inf")) -> None:
    """Refuse a finished run's folder with a file that is not what was written.

    Args:
        folder: of a finished run; one of an earlier version has no manifest, and passes.
        hashed: files of more bytes are compared by their size alone.

    Raises:
        DamagedError: a file is damaged or missing.
    """
    if manifest.check(folder, hashed=hashed):
        return
    try:
        sealed = "manifest" in environment_of(folder)
    except (OSError, ValueError):
        return  # whoever reads that file says what is wrong with it
    if sealed:
        raise manifest.DamagedError(f"{manifest.MANIFEST} is missing")


class _UnknownHereError(ValueError):
    """The run may be whole: its recipe names what nothing here registers, or it has no network."""


def _recipe_of(folder: Path) -> Recipe:
    text = (folder / "recipe.json").read_bytes()
    try:
        return Recipe.from_json(text)
    except (ValueError, TypeError) as error:
        if not isinstance(parse_json(text, "recipe.json"), dict):
            raise
        raise _UnknownHereError(
            f"{folder / 'recipe.json'} cannot be read here: {error}. If another package or a file of yours "
            "registers that, install or import it; the run itself may be whole"
        ) from None


def environment_of(run_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a run was made with: device, versions, commit, seconds, subset's hash, inputs, classes.

    Raises:
        OSError: environment.json cannot be read.
        ValueError: it is damaged.
    """
    path = Path(run_dir) / "environment.json"
    try:
        found = read_json(path)
        if not isinstance(found, dict):
            raise ValueError(f"{path} must hold a JSON object, got {_checks.describe(found)}")
    except ValueError as error:
        raise ValueError(f"{error}; put back a copy of it, or train into another folder") from None
    return found


def is_of_table(about: Mapping[str, Any]) -> bool:
    """Whether an environment is that of a comparison's run on a table, which keeps no model."""
    return "learner" in about


def keeps_its_evaluation(about: Mapping[str, Any]) -> bool:
    """Whether an environment is that of a comparison's run on a table or on features.

    Nothing in its folder leads back to such data. What it said of the test samples is kept.
    """
    return is_of_table(about) or "measures" in about


def environment(device: torch.device) -> dict[str, object]:
    """Say what a run is made with: versions, device, threads and commit."""
    return {
        "longtail": _version(),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
    }


def _json(content: Mapping[str, object]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _read_model(path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    with safe_open(path, framework="pt") as file:
        about = (file.metadata() or {}).get("longtail")
        if about is None:
            raise ValueError(
                f"{path.name} is of a network that longtail did not build, and config.json is missing"
            )
        shape = parse_json(about, path.name)
        return {name: file.get_tensor(name) for name in file.keys()}, shape  # noqa: SIM118  (not a mapping)


def _differences(one: Recipe, other: Recipe) -> list[str]:
    ours, theirs = one.to_dict(), other.to_dict()
    return [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]


def _version() -> str | None:
    try:
        return version("longtail")
    except PackageNotFoundError:  # run from a checkout that is not installed; the commit says which
        return None


@functools.cache
def _commit() -> str | None:
    """The last commit that touched this package, where it runs from a git checkout.

    Elsewhere LONGTAIL_COMMIT says it, for a copy of the files without their history.
    """
    command = ["git", "log", "-1", "--format=%H", "--", "."]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        done = None
    found = "" if done is None else done.stdout.strip()
    return found or os.environ.get("LONGTAIL_COMMIT") or None
