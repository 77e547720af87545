"""Image files of any number, on one process or many machines: a thin layer over the transformers Trainer.

Its pieces fit a Trainer or a loop of your own: `longtail.adapters.transformers`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader

from longtail import _checks
from longtail._arrays import as_numpy
from longtail.adapters.transformers import TrainerMetrics, logits_of, trainer_loss
from longtail.datasets.images import (
    EvalTransform,
    ImageList,
    TorchDataset,
    TrainTransform,
    load_again,
    load_images,
)
from longtail.evaluation import Evaluation, Evaluator
from longtail.head import init_prior_bias_, parameter_groups
from longtail.methods import Rule
from longtail.methods.refits import REFITS
from longtail.models.image_classifiers import build_classifier, head_of, transformers_library
from longtail.sampling import ClassAwareSampler
from longtail.training import adapting, manifest
from longtail.training.data import derive_seed
from longtail.training.device import DivergedError, autocast, select_device
from longtail.training.files import RunFolderError, locked, read_json, writing
from longtail.training.folder import (
    EpochMetrics,
    RunFolder,
    RunResult,
    environment,
    environment_of,
    load_run,
)
from longtail.training.predictions import PREDICTIONS, Collected, groups_of
from longtail.training.progress import progress_bar
from longtail.training.recipe import ImageRecipe, Recipe, learning_rate_at

_T = TypeVar("_T")

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState

__all__ = ["ImagesChangedError", "evaluate_images", "finetune", "image_outputs", "split_batch"]

_ASIDE = "set-aside-"  # and the step of a checkpoint that cannot be used
_FEW = 1000  # images that are decoded before worker processes have started
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
_FROM_RECIPE = (
    *("output_dir", "num_train_epochs", "max_steps", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "average_tokens_across_devices", "seed", "bf16", "use_cpu"),
    *("learning_rate", "weight_decay", "max_grad_norm", "label_smoothing_factor", "dataloader_drop_last"),
    "save_only_model",  # which keeps nothing to go on from
)

Images = tuple[ImageList, ImageList]
Data = str | os.PathLike[str] | Images


def finetune(
    recipe: ImageRecipe,
    data: Data,
    run_dir: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    device: str | torch.device = "auto",
    device_batch: int | None = None,
    workers: int | None = None,
    on_error: str = "raise",
    progress: bool = False,
    tensorboard: bool = False,
    arguments: Mapping[str, object] | None = None,
) -> RunResult:
    """Train an image classifier on files, or go on where it was killed, or return it if it is finished.

    Called in every process that ``torchrun`` or ``accelerate launch`` starts, it divides the recipe's batch
    among them: the samples of each update, their augmentation and the loss are those of one process. Networks
    with batch norm normalise over each process's part, as is usual.

    Args:
        recipe: what to train.
        data: where the images are, as for `longtail.datasets.images.load_images`; or training and test
            images. The recipe's tail is cut here.
        run_dir: folder for recipe.json, environment.json, metrics.jsonl, checkpoints, the trained model
            (config.json and model.safetensors, as ``from_pretrained`` reads them), predictions.npz (what it
            says of each test image) and evaluation.json, which marks a finished run. All processes see it.
        model: a network to train instead of `recipe.model`: it takes ``pixel_values`` and returns logits, one
            a class. Without a ``save_pretrained`` of its own, only its weights are kept.
        device: "auto" takes CUDA where there is one, else the CPU; of several GPUs the first that
            CUDA_VISIBLE_DEVICES shows, or each process's own under ``torchrun``.
        device_batch: samples that a process holds at a time; a larger batch is accumulated. None takes all of
            its part at once.
        workers: processes that decode images for each training process; None takes the cores, at most 8, and
            none for fewer than 1000 images.
        on_error: "raise" refuses an image that cannot be read, before training; "skip" leaves it out.
        progress: draw a bar.
        tensorboard: also write TensorBoard events into `run_dir`.
        arguments: further ``transformers.TrainingArguments``, such as ``{"save_steps": 500}``.

    Returns:
        The finished run.

    Raises:
        ValueError: data, model and recipe that do not fit together; an unknown device; a folder that holds
            another recipe or other images.
        FileNotFoundError: images or lists that are not there.
        UnreadableImageError: an image that cannot be read.
        DivergedError: the loss became infinite or NaN.
        RunFolderError: `run_dir` cannot be written, is in use, or has only damaged checkpoints.
        ModuleNotFoundError: transformers is not installed.
    """
    if not isinstance(recipe, ImageRecipe):
        raise TypeError(
            f"recipe must be an ImageRecipe, got {_checks.describe(recipe)}; recipes.images makes one"
        )
    if recipe.normalizer != "samples":
        raise ValueError(
            f"normalizer must be 'samples' for image files, got {recipe.normalizer!r}; change it"
        )
    method = recipe.method
    if method.is_tuned:
        raise ValueError(
            f"method {method.label!r} chooses by held-out predictions, which image files do not have; give "
            "posthoc_logit_adjusted, or compare it on features: longtail embed, then longtail compare"
        )
    if method.mixing is not None or method.reweighting is not None or method.synthesis is not None:
        raise ValueError(
            f"method {method.label!r} mixes, weighs or makes samples, which image files do not take; give "
            "another, such as label_aware_smoothing (the second stage of mislas), or compare it on features: "
            "longtail embed, then longtail compare"
        )
    library = transformers_library()
    target, folder, world = select_device(device), RunFolder(Path(run_dir)), _World.here()
    if target.index and world.size == 1:
        raise ValueError(
            f"device is {str(target)!r}, but the Trainer takes the first GPU it sees; give 'cuda', and set "
            f"CUDA_VISIBLE_DEVICES={target.index} in the environment"
        )
    given = split_batch(recipe, world.size, device_batch)
    reserved = sorted({*(arguments or {})} & {*_FROM_RECIPE})
    if reserved:
        raise ValueError(
            f"arguments must not have {_checks.shorten(reserved)}; the recipe and finetune() say it"
        )
    with contextlib.ExitStack() as stack:
        if library.utils.logging.is_progress_bar_enabled():
            library.utils.logging.disable_progress_bar()  # one for each file that is read or written
            stack.callback(library.utils.logging.enable_progress_bar)
        # what is wrong with the images is said before a folder is made, which may lie among them
        images = None if folder.path.exists() else _images(recipe, data, on_error, world)
        if world.rank == 0:
            stack.enter_context(locked(folder.path))
        if folder.finished(recipe):
            return load_run(folder.path, model=model)
        train, test = images or _images(recipe, data, on_error, world)
        about = _about(train, test, recipe, world, given)
        network = _network(recipe, train, model)
        if world.rank == 0:
            _same_images(folder, about)
            folder.claim(recipe)
        run = _ImageRun(
            recipe, train, test, network, folder, target, world, given, workers, on_error, arguments
        )
        if progress and world.rank == 0:
            title = f"{recipe.dataset} {Path(recipe.model).name} {recipe.method.label}"
            run.report = stack.enter_context(progress_bar(title))
        with writing(folder.path):
            return run.finish(about, tensorboard)


def evaluate_images(
    run: RunResult,
    *,
    data: Data | None = None,
    device: str | torch.device = "auto",
) -> Evaluation:
    """Evaluate a finished run's model on its test images again.

    Args:
        run: from `longtail.training.load_run`.
        data: where the images are; None takes the place they were in when it was trained.
        device: "auto" takes CUDA where there is one, else the CPU.

    Raises:
        ValueError: the classes are not those of the run, or nothing says where the images are.
        FileNotFoundError: the images are not there.
    """
    counts = run.evaluation.class_counts
    evaluator = Evaluator(counts, activation=run.recipe.activation)
    said = []
    for logits, labels in image_outputs(run, data=data, device=device):
        decided = as_numpy("logits", _decided(run.recipe, counts, logits))
        evaluator.add(decided, labels)
        said.append((decided.argmax(axis=1), labels.numpy()))
    found: Evaluation = evaluator.result()
    predicted, truth = (np.concatenate(part) for part in zip(*said, strict=True))
    groups = groups_of(run.run_dir, truth)
    return found if groups is None else found.in_groups(predicted, truth, groups)


def _decided(recipe: Recipe, counts: Any, logits: torch.Tensor) -> torch.Tensor:
    """The logits that decide, where the recipe's method adjusts them."""
    if recipe.method.adjustment is None:
        return logits
    decided = recipe.method.adjust(logits.float().cpu().numpy(), counts, epochs=recipe.epochs)
    return torch.from_numpy(decided).to(logits.device)


def image_outputs(
    run: RunResult, *, data: Data | None = None, device: str | torch.device = "auto"
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the network's logits, not adjusted, and labels of a finished run's test images, by batches.

    Args:
        run: as for `evaluate_images`, and so are all others.
        data: see `evaluate_images`.
        device: see `evaluate_images`.

    Raises:
        ValueError: as `evaluate_images`.
        FileNotFoundError: as `evaluate_images`.
    """
    recipe, target = run.recipe, select_device(device)
    assert isinstance(recipe, ImageRecipe)
    about = environment_of(run.run_dir or ".")
    source = about["source"] if data is None else data
    if source is None:
        raise ValueError(f"{run.run_dir} does not know where its images are; give their folder as data=")
    if isinstance(source, (str, os.PathLike)):
        before = about.get("arguments", {}) | {"source": about["source"] or ""}
        _, test = load_again(before, None if data is None else source)
    else:
        _, test = source
    if list(test.class_names) != about["class_names"]:
        raise ValueError(
            f"the images in {source} have other classes than the run; give those it was trained on"
        )
    known = about.get("test_sha256")  # runs of earlier versions have none
    if known is not None and known != _digest(test):
        test = test.checked("skip")  # as the run may have done
        if known != _digest(test):
            raise ValueError(
                f"the test images in {source} have other names or labels than the run's, and some may have "
                "been trained on; give those it was tested on"
            )
    rows: Any = TorchDataset(test, EvalTransform(recipe.size, recipe.mean, recipe.std), on_error="skip")
    workers = _cores(1) if len(test) >= _FEW else 0
    loader: DataLoader[Any] = DataLoader(rows, batch_size=64, num_workers=workers)
    model = run.model.to(target).eval()
    for batch in loader:
        known = batch["labels"] != -100  # what could not be read
        if known.any():
            with torch.inference_mode(), autocast(recipe.precision, target):
                logits = logits_of(model(pixel_values=batch["pixel_values"].to(target)))
            yield logits[known], batch["labels"][known]


@dataclass(frozen=True)
class _World:
    """Which process this is, and of how many: what torchrun and accelerate say in the environment."""

    rank: int
    size: int
    local: int

    @classmethod
    def here(cls) -> _World:
        size = int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_WORLD_SIZE", size))
        return cls(int(os.environ.get("RANK", "0")), size, local)


def split_batch(recipe: ImageRecipe, processes: int, device_batch: int | None) -> tuple[int, int]:
    """Divide the recipe's batch: samples that a process holds at a time, and how often it does.

    Raises:
        ValueError: it cannot be divided so.
    """
    part, rest = divmod(recipe.batch_size, processes)
    if rest:
        raise ValueError(
            f"batch_size={recipe.batch_size} is no multiple of the {processes} processes; change one of them"
        )
    if device_batch is None or device_batch >= part:
        return part, 1
    steps, rest = divmod(part, _checks.integer("device_batch", device_batch, low=1))
    if rest:
        raise ValueError(
            f"device_batch={device_batch} does not divide the {part} samples that each process has of a "
            "batch; change it"
        )
    return device_batch, steps


def _images(recipe: ImageRecipe, data: Data, on_error: str, world: _World) -> Images:
    """List the images, look at each, cut the tail, and refuse what would fail hours later."""
    train, test = load_images(data) if isinstance(data, (str, os.PathLike)) else data
    if train.class_names != test.class_names:
        raise ValueError(
            f"training images have {train.num_classes} classes ({_checks.shorten(train.class_names)}), test "
            f"images other {test.num_classes} ({_checks.shorten(test.class_names)}); load them together"
        )
    if recipe.imbalance_factor is not None:
        seed = recipe.seed if recipe.subset_seed is None else recipe.subset_seed
        train, _ = train.long_tailed(recipe.imbalance_factor, profile=recipe.profile, seed=seed)
    counts = train.class_counts.counts
    unseen = [train.class_names[c] for c in np.unique(test.targets) if not counts[c]]
    if unseen:
        raise ValueError(
            f"{len(unseen)} classes of the test images have no training image: {_checks.shorten(unseen)}; "
            "add some, or leave those classes out"
        )
    if on_error == "raise":  # one process's find ends all: each looks at its share
        for images in (train, test):
            images.select(np.arange(world.rank, len(images), world.size)).checked()
    else:
        train, test = train.checked(on_error), test.checked(on_error)
    if len(train) < recipe.batch_size:
        raise ValueError(
            f"batch_size={recipe.batch_size} is more than the {len(train)} training images; lower it"
        )
    return train, test


def _digest(*parts: ImageList) -> str:
    """Of labels and names, not of what is in the files."""
    digest = hashlib.sha256()
    for images in parts:
        digest.update(np.ascontiguousarray(images.targets).tobytes())
        if images.files is not None:
            names = "\n".join(os.fsdecode(name) for name in images.files)
            digest.update(names.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _about(
    train: ImageList, test: ImageList, recipe: ImageRecipe, world: _World, given: tuple[int, int]
) -> dict[str, object]:
    arguments = dict(train.arguments or {})
    return {
        "source": arguments.pop("source", None),
        "arguments": arguments,
        "subset_sha256": _digest(train, test),
        "test_sha256": _digest(test),
        "class_names": list(train.class_names),
        "inputs": {"kind": "image files", "shape": [3, recipe.size, recipe.size], "dtype": "float32"},
        "processes": world.size,
        "device_batch": given[0],
        "accumulated": given[1],
    }


def _same_images(folder: RunFolder, about: dict[str, object]) -> None:
    """Refuse to go on with other images than those a run began with."""
    with contextlib.suppress(OSError):
        before = environment_of(folder.path).get("subset_sha256")
        if before not in (None, about["subset_sha256"]):
            raise ImagesChangedError(
                f"run folder {folder.path} began with other images (names or labels differ); choose another "
                "folder for these, or delete this one to start anew"
            )


class ImagesChangedError(RuntimeError):
    """A run folder holds a run on other images."""


def _network(recipe: ImageRecipe, train: ImageList, model: nn.Module | None) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(recipe.seed, 0, "weights"))
        if model is None:
            model = build_classifier(recipe.model, train.class_names)
            if recipe.frozen:
                _check_trained(recipe.model)
    head = head_of(model)
    outputs = head.weight.shape[0]
    if outputs != train.num_classes:
        raise ValueError(
            f"the model's head {type(head).__name__} has {outputs} outputs, but the data have "
            f"{train.num_classes} classes; give a model with one output a class"
        )
    refitted = isinstance(head, nn.Linear) and head.bias is not None
    if recipe.method.refit is not None and not refitted:
        raise ValueError(
            f"method {recipe.method.label!r} makes the last layer anew, which must be Linear with a bias, "
            f"but the model's is {head}; give another model or method"
        )
    if recipe.uses_prior_bias:
        init_prior_bias_(head)
    seed = derive_seed(recipe.seed, 0, "weights")
    if recipe.method.cosine:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed + 1)
            adapting.with_cosine_classifier(model, recipe.method.cosine)
    if recipe.frozen:
        adapting.train_little(model, lora_rank=recipe.lora_rank if recipe.lora else None, seed=seed + 2)
    return model


def _check_trained(name: str) -> None:
    folder = Path(name)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"model {name!r} has no weights (no .safetensors), and frozen random ones are of no use; give a "
            "trained model"
        )


class _ImageRun:
    """One process's part of a run."""

    def __init__(
        self,
        recipe: ImageRecipe,
        train: ImageList,
        test: ImageList,
        network: nn.Module,
        folder: RunFolder,
        device: torch.device,
        world: _World,
        given: tuple[int, int],
        workers: int | None,
        on_error: str,
        arguments: Mapping[str, object] | None,
    ) -> None:
        self.started, self.earlier = time.perf_counter(), 0.0
        self.about: dict[str, object] = {}
        self.recipe, self.folder, self.world, self.device = recipe, folder, world, device
        self.counts = train.class_counts.counts
        self.report: Callable[[int, int, float, float | None], None] | None = None
        self.steps = len(train) // recipe.batch_size
        self.sampler = recipe.method.sampler(
            train.targets,
            epochs=recipe.epochs,
            num_samples=self.steps * recipe.batch_size,
            seed=derive_seed(recipe.seed, 0, "order"),
        )
        self.loss = self._loss(1)
        middle = EvalTransform(recipe.size, recipe.mean, recipe.std)
        cropped = TrainTransform(recipe.size, recipe.mean, recipe.std, flip=0.5 if recipe.flip else 0.0)
        transform = middle if recipe.augmentation == "none" else cropped
        self.train = TorchDataset(
            train, transform, seed=derive_seed(recipe.seed, 0, "images"), on_error=on_error
        )
        self.test = TorchDataset(test, middle, on_error=on_error)
        self.metrics = _Metrics(self.counts, recipe.activation, test, keep=world.rank == 0)
        self.trainer = self._trainer(network, given, workers, dict(arguments or {}))

    def finish(self, about: dict[str, object], tensorboard: bool) -> RunResult:
        """Train what is left, evaluate, write the results."""
        folder, main, trainer = self.folder, self.world.rank == 0, self.trainer
        found = _agreed(self._go_on_from() if main else None)
        self.about = environment(self.device) | about
        if self.recipe.frozen:
            trained, whole = adapting.trained_share(trainer.model)
            self.about |= {"trained_parameters": trained, "parameters": whole}
        if main:
            folder.write_environment(self.about | {"seconds": self.earlier})
            if tensorboard:
                _log_to_tensorboard(trainer, folder.path, int(found.rpartition("-")[2]) if found else 0)
        if self.recipe.head_start == "class_means" and found is None:
            adapting.start_at_class_means(trainer.model, self._in_order(), trainer.args.device)
        try:
            trainer.train(resume_from_checkpoint=found)
        except torch.OutOfMemoryError as error:
            held = trainer.args.per_device_train_batch_size
            raise RuntimeError(
                f"the device has not enough memory for {held} samples of this network at a time; give a "
                "smaller device_batch: the rest of the batch is accumulated"
            ) from error
        except RuntimeError as error:
            if self.world.size == 1:
                raise
            raise RuntimeError(
                f"process {self.world.rank} of {self.world.size} stopped; if another one was killed, start "
                "the same command again: it goes on from the last checkpoint in "
                f"{folder.path / 'checkpoints'}. What this one saw: {error}"
            ) from error
        if self.metrics.last is None:  # the last checkpoint was the end of training
            trainer.evaluate()
        history, method = self.history(), self.recipe.method
        if method.refit is not None:
            self._refit(method.refit)
        if method.training != method:  # what decides from here on
            trainer.preprocess_logits_for_metrics = lambda logits, labels: _decided(
                self.recipe, self.counts, logits_of(logits)
            )
            trainer.evaluate()
        evaluation = self.metrics.last
        assert evaluation is not None
        assert self.metrics.said is not None
        if not (seen := self.metrics.said.seen).all():
            raise RuntimeError(
                f"{seen.sum()} of {len(seen)} test images were evaluated; leave out what arguments say of "
                "batches and loaders"
            )
        said = self.metrics.said.result() if main else None
        if self.test.images.groups is not None:  # process 0 alone has the predictions
            counted = None if said is None else evaluation.in_groups(said.predicted, said.labels, said.groups)
            evaluation = _agreed(counted) or evaluation
        seconds = self.seconds()
        model = adapting.merge_adapters(trainer.accelerator.unwrap_model(trainer.model))
        if main:
            names = ["model.safetensors"]
            with adapting.as_plain_linear(model):
                if callable(save := getattr(model, "save_pretrained", None)):
                    names = folder.take_files(save)
                else:
                    folder.write_model(model, {})
            folder.write_metrics(history)
            folder.write_environment(self.about | {"seconds": seconds})
            assert said is not None
            said.write(folder.path)
            folder.finish(evaluation, [*names, PREDICTIONS])
        _wait()
        return RunResult(self.recipe, evaluation, history, seconds, folder.path, model.to("cpu").eval())

    def _refit(self, rule: Rule) -> None:
        """Make the last layer anew from the features of all training images, alike in every process."""
        model, device = self.trainer.accelerator.unwrap_model(self.trainer.model), self.trainer.args.device
        with torch.no_grad(), autocast(self.recipe.precision, device):
            seen = [
                (x.float().cpu(), y.cpu()) for x, y in adapting.head_inputs(model, self._in_order(), device)
            ]
        features, labels = (torch.cat(part) for part in zip(*seen, strict=True))
        rank, size = self.world.rank, self.world.size
        head = head_of(model)
        assert isinstance(head, nn.Linear)
        parts: list[Any] = [(features, labels)] * size
        if size > 1:
            dist.gather_object((features, labels), parts if rank == 0 else None)
        if rank == 0:
            count = sum(len(part) for _, part in parts)
            features, labels = features.new_empty(count, features.shape[1]), labels.new_empty(count)
            for first, (x, y) in enumerate(parts):  # in the order of the images, however many had a part
                features[first::size], labels[first::size] = x, y
            known = labels >= 0  # the others could not be read
            old = (head.weight.detach().float(), head.bias.detach().float())
            given = features[known].to(device), labels[known].to(device)
            seed = derive_seed(self.recipe.seed, 0, "refit")
            made = rule.of(REFITS)(*given, *old, seed=seed)
            with torch.no_grad():
                for tensor, new in zip((head.weight, head.bias), made, strict=True):
                    tensor.copy_(new)
        if size > 1:
            for tensor in (head.weight, head.bias):
                dist.broadcast(tensor.detach(), src=0)

    def _in_order(self) -> DataLoader[Any]:
        """This process's part of the training images, as evaluation sees them."""
        recipe, images = self.recipe, self.train.images
        part = images.select(np.arange(self.world.rank, len(images), self.world.size))
        rows: Any = TorchDataset(
            part, EvalTransform(recipe.size, recipe.mean, recipe.std), on_error=self.train.on_error
        )
        return DataLoader(rows, batch_size=64, num_workers=self.trainer.args.dataloader_num_workers)

    def _go_on_from(self) -> str | None:
        """The checkpoint to go on from, where there is one, and how long the run took before."""
        before: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            before = environment_of(self.folder.path)
        with contextlib.suppress(KeyError, TypeError, ValueError):
            self.earlier = float(before["seconds"])
        return _last_checkpoint(self.folder.path / "checkpoints", sealed="manifest" in before or not before)

    def seconds(self) -> float:
        """How long the run took, with its earlier starts up to their last checkpoints."""
        return self.earlier + time.perf_counter() - self.started

    def saved(self, checkpoint: Path, keep: int | None, best: str | None) -> None:
        """Seal a checkpoint whose files all processes have written, and remove those that it outdates."""
        manifest.seal(checkpoint, _files(checkpoint))
        self.folder.write_metrics(self.history())
        self.folder.write_environment(self.about | {"seconds": self.seconds()})
        kept = [p for p in _by_step(checkpoint.parent) if best is None or p.name != Path(best).name]
        for old in kept[max(keep, 1) :] if keep else ():
            _remove(old)
        for left in checkpoint.parent.glob(f"{_ASIDE}*"):  # training has passed that step again
            if _step(left) <= _step(checkpoint):
                _remove(left)

    def _loss(self, epoch: int) -> Callable[..., torch.Tensor]:
        """Return the loss that is in force in an epoch, as the Trainer wants it."""
        method = self.recipe.method.at(epoch, self.recipe.epochs)
        return trainer_loss(method.criterion(self.counts))

    def history(self) -> tuple[EpochMetrics, ...]:
        """Sum the Trainer's log up to lines of whole epochs."""
        losses: dict[int, list[tuple[int, float]]] = {}
        errors: dict[int, float] = {}
        last = self.trainer.state.global_step - self.trainer.state.global_step % self.steps
        before = 0
        for line in self.trainer.state.log_history:
            step = int(line["step"])
            if "loss" in line:
                losses.setdefault(-(-step // self.steps), []).append((step - before, float(line["loss"])))
                before = step
            elif "eval_error" in line:
                errors[step // self.steps] = float(line["eval_error"])
        return tuple(
            EpochMetrics(
                epoch,
                sum(n * loss for n, loss in losses[epoch]) / sum(n for n, _ in losses[epoch]),
                learning_rate_at(self.recipe, epoch * self.steps - 1, self.steps),
                errors.get(epoch),
            )
            for epoch in sorted(losses)
            if epoch * self.steps <= last
        )

    def _trainer(
        self, network: nn.Module, given: tuple[int, int], workers: int | None, arguments: dict[str, object]
    ) -> Trainer:
        import transformers

        recipe, run = self.recipe, self
        if workers is None:
            workers = _cores(self.world.local) if len(self.train) >= _FEW else 0
        workers = _checks.integer("workers", workers, low=0)
        chosen: dict[str, Any] = {
            "logging_steps": max(1, self.steps // 10),
            "save_strategy": "epoch",
            "save_total_limit": 2,
            "report_to": "none",
            "dataloader_num_workers": workers,
            "dataloader_persistent_workers": workers > 0,
            "dataloader_pin_memory": self.device.type == "cuda",
            "ddp_find_unused_parameters": False,
            **arguments,
            "output_dir": str(self.folder.path / "checkpoints"),
            "num_train_epochs": recipe.epochs,
            "per_device_train_batch_size": given[0],
            "per_device_eval_batch_size": arguments.get("per_device_eval_batch_size", given[0]),
            "gradient_accumulation_steps": given[1],
            "average_tokens_across_devices": True,
            "batch_eval_metrics": True,  # not the logits of the whole test set in every process
            "max_grad_norm": 0.0,
            "seed": derive_seed(recipe.seed, 0, "trainer") % 2**32,
            "bf16": recipe.precision == "bf16",
            "use_cpu": self.device.type == "cpu",
            "remove_unused_columns": False,
            "label_names": ["labels"],
            "logging_nan_inf_filter": False,
            "disable_tqdm": True,
            "log_level": "error",
        }
        keep = _checks.integer("save_total_limit", chosen.pop("save_total_limit") or 0, low=0)
        options = transformers.TrainingArguments(**chosen)
        # without torchrun the Trainer would use all GPUs by DataParallel, with another batch than asked for
        _, options._n_gpu = options.device, min(1, options.n_gpu)

        class Epochwise(transformers.Trainer):
            def _get_train_sampler(self, train_dataset: object = None) -> ClassAwareSampler:
                return run.sampler

            def prediction_step(
                self, model: nn.Module, inputs: dict[str, Any], *given: Any, **more: Any
            ) -> tuple[Any, Any, Any]:
                places = inputs["places"]
                inputs = {name: value for name, value in inputs.items() if name != "places"}
                loss, logits, labels = super().prediction_step(model, inputs, *given, **more)
                return loss, logits, (labels, places.to(labels.device))

            def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
                self.optimizer = _optimizer(recipe, self.model if model is None else model)
                return self.optimizer

            def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
                self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                    self.optimizer if optimizer is None else optimizer,
                    lambda step: learning_rate_at(recipe, step, run.steps) / recipe.learning_rate,
                )
                return self.lr_scheduler

            def _save(
                self, output_dir: str | None = None, state_dict: dict[str, object] | None = None
            ) -> None:
                with _names_as_they_are(self.accelerator.unwrap_model(self.model)):
                    super()._save(output_dir, state_dict)

            def _load_from_checkpoint(self, checkpoint: str, model: nn.Module | None = None) -> None:
                if self.is_fsdp_enabled or not Path(checkpoint, "model.safetensors").is_file():
                    super()._load_from_checkpoint(checkpoint, model)
                else:
                    _load_weights(self.accelerator.unwrap_model(model or self.model), Path(checkpoint))

            def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
                checkpoint = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
                if run.world.rank == 0 and os.path.lexists(checkpoint):  # what an earlier start left
                    _remove(checkpoint)
                _wait()
                super()._save_checkpoint(model, trial)
                _wait()  # each process writes the state of its own random numbers
                if run.world.rank == 0:
                    run.saved(checkpoint, keep, self.state.best_model_checkpoint)
                _wait()

        class Epochs(transformers.TrainerCallback):
            def on_epoch_begin(
                self, args: object, state: TrainerState, control: TrainerControl, **kwargs: object
            ) -> None:
                # accelerate tells its wrappers' sampler or the data set, but not both
                epoch = state.global_step // run.steps
                run.sampler.set_epoch(epoch)
                run.train.set_epoch(epoch)
                if recipe.method.schedule is not None:
                    run.loss = run._loss(epoch + 1)

            def on_epoch_end(
                self, args: object, state: TrainerState, control: TrainerControl, **kwargs: object
            ) -> None:
                epoch = state.global_step // run.steps
                control.should_log = True
                control.should_evaluate = epoch % recipe.eval_every == 0 or epoch == recipe.epochs

            def on_log(
                self,
                args: object,
                state: TrainerState,
                control: object,
                logs: Mapping[str, float] | None = None,
                **kwargs: object,
            ) -> None:
                run.check(logs or {}, state)

            def on_step_end(
                self, args: object, state: TrainerState, control: TrainerControl, **kwargs: object
            ) -> None:
                run.show(state)

        trainer = Epochwise(
            model=network,
            args=options,
            train_dataset=self.train,
            eval_dataset=_Placed(self.test),
            data_collator=transformers.default_data_collator,
            compute_loss_func=lambda *batch, **counted: run.loss(*batch, **counted),
            compute_metrics=self.metrics,
            callbacks=[Epochs],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        return trainer

    def check(self, logs: Mapping[str, float], state: TrainerState) -> None:
        """Stop where the loss that is logged is not finite; nothing was saved since the last one that was."""
        if not math.isfinite(logs.get("loss", 0.0)):
            recipe, (epochs, step) = self.recipe, divmod(state.global_step - 1, self.steps)
            raise DivergedError(
                f"the loss is not finite at step {step + 1} of {self.steps} in epoch {epochs + 1} of "
                f"{recipe.epochs}, or a little before; training stopped, nothing damaged was saved; lower "
                f"learning_rate (now {recipe.learning_rate:g}) or raise warmup_epochs (now "
                f"{recipe.warmup_epochs})",
                epoch=epochs + 1,
                step=step + 1,
            )

    def show(self, state: TrainerState) -> None:
        """Move the bar."""
        if self.report is not None:
            loss = next((x["loss"] for x in reversed(state.log_history) if "loss" in x), math.nan)
            error = next((x["eval_error"] for x in reversed(state.log_history) if "eval_error" in x), None)
            self.report(state.global_step, state.max_steps, loss, error)


class _Placed:
    """Test images that say which they are."""

    def __init__(self, images: TorchDataset) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, object]:
        return self.images[index] | {"places": index}


class _Metrics:
    """`TrainerMetrics` that counts each test image once, whatever pads the batches, and keeps what was said.

    Attributes:
        last: the last evaluation; None before the first.
        said: what it was made of: the predictions in process 0, in others which images were seen.
    """

    def __init__(self, counts: Any, activation: str, test: ImageList, *, keep: bool) -> None:
        self._metrics = TrainerMetrics(counts, activation=activation)
        self._test, self._keep = test, keep
        self._now: Collected | None = None
        self.said: Collected | None = None

    @property
    def last(self) -> Evaluation | None:
        return self._metrics.last

    def __call__(self, predictions: Any, compute_result: bool = True) -> dict[str, float]:
        given, (truth, at) = predictions
        scores, labels, places = (as_numpy("logits", x) for x in (logits_of(given), truth, at))
        said = self._now or Collected(self._test.targets, self._test.groups)
        self._now = None if compute_result else said
        new = said.first_time(places)
        if not new.all():
            scores, labels, places = scores[new], labels[new], places[new]
        known = labels != -100
        if self._keep and known.any():
            said.add(places[known], scores[known])
        if compute_result:
            self.said = said
        return self._metrics((scores, labels), compute_result=compute_result)


def _optimizer(recipe: ImageRecipe, model: nn.Module) -> torch.optim.Optimizer:
    exempt: list[nn.Module | nn.Parameter] = [
        module for module in model.modules() if isinstance(module, _NORMS) and [*module.parameters()]
    ]
    if recipe.uses_prior_bias and isinstance(bias := head_of(model).bias, nn.Parameter):
        exempt.append(bias)
    groups = parameter_groups(model, weight_decay=recipe.weight_decay, no_decay=exempt)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=recipe.learning_rate)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)


@contextlib.contextmanager
def _names_as_they_are(network: nn.Module) -> Iterator[None]:
    """Let save_pretrained keep the names of the network's tensors, or its Trainer does not find them again.

    By default it writes the names of earlier versions of transformers, which from_pretrained alone reads.
    """
    save = getattr(network, "save_pretrained", None)
    if not isinstance(network, transformers_library().PreTrainedModel) or save is None:
        yield
        return
    network.__dict__["save_pretrained"] = functools.partial(save, save_original_format=False)
    try:
        yield
    finally:
        del network.__dict__["save_pretrained"]


def _load_weights(network: nn.Module, checkpoint: Path) -> None:
    """Load a checkpoint's weights, all of them; names of earlier versions of transformers are understood.

    Raises:
        RunFolderError: they are not those of the network.
    """
    if _fits(network, load_file(checkpoint / "model.safetensors")):
        return
    if isinstance(network, transformers_library().PreTrainedModel) and not any(
        hasattr(module, "base_layer") for module in network.modules()
    ):
        read = type(network).from_pretrained(checkpoint, local_files_only=True, use_safetensors=True)
        if _fits(network, read.state_dict()):
            return
    raise RunFolderError(
        f"checkpoint {checkpoint} has other tensors than the network; delete the run's folder to train from "
        "the start"
    )


def _fits(network: nn.Module, weights: Mapping[str, torch.Tensor]) -> bool:
    """Load weights if they are all that the network has; tensors that share their memory count as one."""
    wanted = network.state_dict()
    there = {wanted[name].data_ptr() for name in weights if name in wanted}
    if any(name not in weights and t.data_ptr() not in there for name, t in wanted.items()):
        return False
    return not network.load_state_dict(dict(weights), strict=False).unexpected_keys


def _last_checkpoint(folder: Path, *, sealed: bool) -> str | None:
    """The newest whole checkpoint; later ones are set aside, with a warning that names each.

    Args:
        folder: of the checkpoints.
        sealed: whether a whole checkpoint has a manifest; those of earlier versions get theirs here.

    Raises:
        RunFolderError: there are finished checkpoints, and all are damaged.
    """
    found = _by_step(folder)
    refused: list[tuple[Path, Exception]] = []
    for path in found:
        try:
            if not manifest.check(path):
                if sealed:
                    raise _UnfinishedError("it was not written to its end")
                _check_unsealed(path)
                manifest.seal(path, _files(path))
        except (OSError, ValueError, SafetensorError) as error:
            refused.append((path, error))
            continue
        for one, why in refused:
            _set_aside(one, why, "trying the one before")
        for old in (p for p in found if _step(p) < _step(path) and not (p / manifest.MANIFEST).exists()):
            if sealed:  # a kill came while it was removed
                _remove(old)
            else:
                with contextlib.suppress(OSError, ValueError, SafetensorError):
                    _check_unsealed(old)
                    manifest.seal(old, _files(old))
        return str(path)
    if not all(isinstance(why, _UnfinishedError) for _, why in refused):
        for path, why in refused:
            _checks.warn(f"checkpoint {path} cannot be used ({why})")
        raise RunFolderError(
            f"none of the {len(found)} checkpoints in {folder} can be used; delete that folder to train from "
            "the start"
        )
    for path, why in refused:
        _set_aside(path, why, "training starts anew")
    return None


class _UnfinishedError(ValueError):
    """A kill came while the checkpoint was written."""


def _check_unsealed(path: Path) -> None:
    """Refuse a checkpoint of an earlier version that is not whole; trainer_state.json is its last file."""
    if not (path / "trainer_state.json").is_file():
        raise _UnfinishedError("it was not written to its end")
    read_json(path / "trainer_state.json")
    if (path / "config.json").exists():
        read_json(path / "config.json")
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt"):
        if not (path / name).is_file() and not (name[0] == "m" and any(path.glob("*.safetensors"))):
            raise ValueError(f"{name} is missing")
    for file in path.glob("*.safetensors"):
        with safe_open(file, framework="pt"):  # refuses a file that is shorter than it says
            pass
    for file in path.glob("*.pt*"):
        if file.is_file():
            _check_archive(file)


def _check_archive(file: Path) -> None:
    """Refuse a file of torch.save whose parts do not match their checksums."""
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file.name} is cut short or damaged ({error})") from None
    if broken is not None:
        raise ValueError(f"{file.name} is damaged")


def _by_step(folder: Path) -> list[Path]:
    """The checkpoints of a folder, those of most steps first; no clock has a say in it."""
    return sorted((p for p in folder.glob("checkpoint-*") if _step(p) >= 0), key=_step, reverse=True)


def _step(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _files(checkpoint: Path) -> list[str]:
    return [p.relative_to(checkpoint).as_posix() for p in checkpoint.rglob("*") if p.is_file()]


def _set_aside(path: Path, why: Exception, then: str) -> None:
    place = path.with_name(f"{_ASIDE}{_step(path)}")
    try:
        if os.path.lexists(place):
            _remove(place)
        path.rename(place)
    except OSError as error:
        raise RunFolderError(
            f"checkpoint {path} cannot be used ({why}), nor moved away ({error.strerror}); delete it"
        ) from error
    _checks.warn(f"checkpoint {path} cannot be used ({why}); it is set aside as {place.name}, {then}")


def _remove(path: Path) -> None:
    """Remove a checkpoint; first what makes it one, so that a kill leaves nothing that looks whole."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    (path / manifest.MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _wait() -> None:
    """Let all processes come to this point."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()


def _agreed(value: _T | None) -> _T | None:
    """What process 0 has found, for all: file systems of many machines lag."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def _log_to_tensorboard(trainer: Trainer, folder: Path, first: int) -> None:
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    trainer.add_callback(TensorBoardCallback(SummaryWriter(folder, purge_step=first + 1)))


def _cores(processes: int) -> int:
    return min(8, max(1, (os.cpu_count() or 1) // processes))
