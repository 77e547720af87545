"""The fast loop for data sets that fit in memory: everything lives on the device, nothing in a step waits.

Every random number is a function of (seed, epoch, purpose), so an epoch does not depend on how many times
the process was killed before it; checkpoints between epochs are all that a bit-exact resume needs.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from longtail import _checks, _measured, models
from longtail.datasets import Dataset
from longtail.evaluation import Evaluation, evaluate
from longtail.head import init_prior_bias_, parameter_groups
from longtail.methods import REFITS, REWEIGHTINGS, Rule
from longtail.models.cosine import with_cosine_head
from longtail.training import checkpoint
from longtail.training.acceleration import ACCELERATORS, Accelerator
from longtail.training.data import TrainingData, derive_seed
from longtail.training.device import (
    DRAWS,
    DivergedError,
    autocast,
    exact_cudnn,
    has_dropout,
    seeded,
    select_device,
)
from longtail.training.files import locked
from longtail.training.folder import (
    EpochMetrics,
    RunFolder,
    RunResult,
    environment,
    environment_of,
    load_run,
)
from longtail.training.graphs import CAPTURE, DeviceEpochs
from longtail.training.predictions import PREDICTIONS, Predictions
from longtail.training.progress import Progress, progress_bar, tensorboard_log
from longtail.training.recipe import Recipe, learning_rate_at

__all__ = ["ACCELERATIONS", "PausedError", "measured", "test_logits", "train"]

ACCELERATIONS: Final = ("auto", "none", "native", "graphs", "compile")

_SAVE_SECONDS: Final = 30.0


class PausedError(RuntimeError):
    """The deadline passed before the last epoch; a checkpoint is kept and the same call goes on from it."""


def train(
    recipe: Recipe,
    run_dir: str | os.PathLike[str] | None = None,
    *,
    dataset: Dataset | None = None,
    device: str | torch.device = "auto",
    threads: int | None = None,
    progress: bool | Progress | None = None,
    checkpoint_every: int | None = None,
    tensorboard: bool = False,
    deadline: float | None = None,
    acceleration: str = "auto",
    trained: str | os.PathLike[str] | None = None,
) -> RunResult:
    """Train one recipe, or go on where it was killed, or return it if it is finished.

    The last epoch's weights are evaluated; the test split never chooses anything. The last batch of an
    epoch may be smaller than the others; it is trained on like them.

    Args:
        recipe: what to train.
        run_dir: folder for recipe.json, metrics.jsonl, environment.json, checkpoints, model.safetensors and
            evaluation.json (written last: it marks a finished run). None keeps nothing.
        dataset: the data that `recipe.dataset` names, if they are at hand already; the tail is cut here.
        device: "auto" takes CUDA where there is one, else the CPU.
        threads: CPU threads while training; None leaves torch's number. Another number can round otherwise.
        progress: True draws a progress bar; a function is called after each epoch as
            ``progress(epoch, epochs, loss, test_error)``, the error being the last one measured or None.
        checkpoint_every: epochs between checkpoints; None saves every 30 seconds or so.
        tensorboard: also write TensorBoard events into `run_dir`.
        deadline: a ``time.time()``; the first epoch that ends after it and is not the last ends the call with
            a checkpoint. Needs `run_dir`.
        acceleration: "graphs" replays captured CUDA graphs, bit for bit what "none" computes; "compile" also
            fuses the network by ``torch.compile``, which rounds otherwise and takes up to a minute at the
            start; "native" runs C++ kernels on the CPU, which round otherwise and come from a checkout by
            ``make native``; "auto" takes graphs where they apply (CUDA, SGD, a network without dropout) and a
            result file shows them faster on that kind of GPU, and native kernels where they are built and
            apply (CPU under Linux, fp32, a CIFAR ResNet).
        trained: folder of a finished run of ``recipe.method.training``, on the same data: its network is
            taken in place of training one, for a method that differs in what it does afterwards.

    Returns:
        The finished run. Several calls may train at a time on one GPU, each in a thread of its own: every
        call works on its own stream.

    Raises:
        ValueError: an unknown data set, model or device, a setting out of range, or a folder that holds
            another recipe or a run on other data.
        DivergedError: the loss became infinite or NaN.
        PausedError: the deadline passed.
        RunFolderError: `run_dir` cannot be written, is in use, or has only damaged checkpoints.
    """
    if not isinstance(recipe, Recipe):
        raise TypeError(
            f"recipe must be a Recipe, got {_checks.describe(recipe)}; longtail.recipes makes them"
        )
    recipe.method.refuse_synthesis(f"a training by epochs on {recipe.dataset!r}")
    if recipe.method.is_tuned:
        raise ValueError(
            f"method {recipe.method.label!r} chooses by held-out predictions, which this training does not "
            "make; give posthoc_logit_adjusted, or compare it on a table or on features"
        )
    if threads is not None:
        threads = _checks.integer("threads", threads, low=1, remedy="leave it out for torch's own number")
    if checkpoint_every is not None:
        remedy = "it counts epochs; leave it out for one every 30 seconds"
        checkpoint_every = _checks.integer("checkpoint_every", checkpoint_every, low=1, remedy=remedy)
    if tensorboard and run_dir is None:
        raise ValueError("tensorboard=True needs a place for its events; give run_dir")
    if deadline is not None and run_dir is None:
        raise ValueError("deadline needs a place for the checkpoint; give run_dir")
    if deadline is not None:
        deadline = time.monotonic() + deadline - time.time()  # the clock may be set meanwhile
    _checks.choice("acceleration", acceleration, ACCELERATIONS)
    target = select_device(device)
    folder = None if run_dir is None else RunFolder(Path(run_dir))
    with contextlib.ExitStack() as stack:
        if folder is not None:
            stack.enter_context(locked(folder.path))
        done = load_run(folder.path) if folder is not None and folder.finished(recipe) else None
        if threads is not None and threads != (before := torch.get_num_threads()):
            torch.set_num_threads(threads)
            stack.callback(torch.set_num_threads, before)
        if target.type == "cuda":
            stack.enter_context(exact_cudnn())
            stack.enter_context(torch.cuda.stream(torch.cuda.Stream(target)))  # type: ignore[no-untyped-call]
        data = TrainingData(recipe, dataset, target)
        if folder is not None:
            _refuse_other_data(folder.path, data)
        if done is not None:
            return done
        run = _Run(recipe, folder, data, target, acceleration)
        if trained is not None:
            run.take(Path(trained))
        reports: list[Progress] = []
        if progress is True:
            reports.append(stack.enter_context(progress_bar(f"{recipe.dataset} {recipe.method.label}")))
        elif progress:
            reports.append(progress)
        if tensorboard and folder is not None:
            reports.append(stack.enter_context(tensorboard_log(folder.path, len(run.history) + 1)))
        try:
            return run.finish(reports, checkpoint_every, deadline)
        finally:
            with CAPTURE:  # data and graphs go now: the garbage collector may come amid another's capture
                run.epochs = None


def seconds_a_step(
    recipe: Recipe, dataset: Dataset, device: str = "auto", threads: int | None = None
) -> float:
    """Return how long a training step takes, by three of them, for an estimate before long jobs."""
    target, before = select_device(device), torch.get_num_threads()
    few = recipe.replace(method=recipe.method.plain)
    try:
        torch.set_num_threads(threads or before)
        run = _Run(few, None, TrainingData(few, dataset, target), target, "none")
        inputs, targets = next(iter(run.data.batches(1)))
        stop = torch.zeros((), device=target)
        run._step(inputs, targets, 0.0, stop)
        started = time.perf_counter()
        for _ in range(3):
            float(run._step(inputs, targets, 0.0, stop))  # waits for the device
        return (time.perf_counter() - started) / 3
    finally:
        torch.set_num_threads(before)


def _refuse_other_data(folder: Path, data: TrainingData) -> None:
    file = folder / "environment.json"
    if file.exists() and (other := data.other_than(environment_of(folder))):
        raise ValueError(
            f"run folder {folder} holds a run on other data ({', '.join(other)} differ); choose another "
            "folder (--out), or delete this one to start anew"
        )


def test_logits(run: RunResult, data: TrainingData, device: torch.device, acceleration: str) -> Tensor:
    """Return what a finished run's network says of the test split, computed as the run did."""
    model = run.model.to(device)
    if data.images:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kernels = _native("auto", run.recipe, model, device) if acceleration == "native" else None
    with exact_cudnn(), _running(kernels, model):
        return _logits(model, data, autocast(run.recipe.precision, device))


def measured(logits: Tensor, data: TrainingData, recipe: Recipe) -> Evaluation:
    """Evaluate the logits of the test split, adjusted as the recipe's method says."""
    return _evaluated(_decided(logits, data, recipe), data, recipe)


def _evaluated(decided: npt.NDArray[Any], data: TrainingData, recipe: Recipe) -> Evaluation:
    targets = data.test_targets.cpu().numpy()
    found: Evaluation = evaluate(
        decided, targets, data.counts, activation=recipe.activation, groups=data.test_groups
    )
    return found


def _decided(logits: Tensor, data: TrainingData, recipe: Recipe) -> npt.NDArray[Any]:
    return recipe.method.adjust(logits.float().cpu().numpy(), data.counts, epochs=recipe.epochs)


class _Run:
    """The state that training changes: network, optimizer, history; and its way to and from the disk."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder | None,
        data: TrainingData,
        device: torch.device,
        acceleration: str = "auto",
    ) -> None:
        self.started, self.earlier_seconds = time.perf_counter(), 0.0
        self.recipe, self.folder, self.data, self.device = recipe, folder, data, device
        self.model = _build(recipe, data.shape).to(device)
        if data.images:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parameters = list(self.model.parameters())
        self.optimizer = _optimizer(recipe, self.model)
        self.criterion = self._criterion(1)
        self.part: tuple[Tensor, Tensor] | None = None
        if (rule := recipe.method.reweighting) is not None:
            self.part = data.balanced_part(dict(rule.settings)["per_class"])
        self.one = torch.ones((), device=device)
        self.steps = math.ceil(len(data) / recipe.batch_size)
        capture = _captures(acceleration, recipe, self.model, device)
        self.kernels = _native(acceleration, recipe, self.model, device)
        self.acceleration = (
            "compile"
            if acceleration == "compile"
            else "graphs"
            if capture
            else "native"
            if self.kernels is not None
            else "none"
        )
        compiled = acceleration == "compile"
        self.forward = torch.compile(self.model, dynamic=False) if compiled else self.model
        on_device = device.type == "cuda"
        self.epochs = DeviceEpochs(self._step, data, self.steps, capture=capture) if on_device else None
        self.history: list[EpochMetrics] = []
        if folder is not None:
            folder.claim(recipe)
            self._resume(folder)

    def finish(
        self, reports: Sequence[Progress], checkpoint_every: int | None, deadline: float | None = None
    ) -> RunResult:
        """Train the epochs that are left, evaluate, write the results."""
        recipe, folder = self.recipe, self.folder
        if folder is not None:
            about = (
                environment(self.device)
                | self.data.about
                | {
                    "subset_sha256": self.data.subset_sha256,
                    "acceleration": self.acceleration,
                }
            )
            folder.write_environment(about)
            folder.write_metrics(self.history)
        saved = time.perf_counter()
        error = next((m.test_error for m in reversed(self.history) if m.test_error is not None), None)
        for epoch in range(len(self.history) + 1, recipe.epochs + 1):
            loss = self._train_epoch(epoch)
            error_now = None
            if epoch % recipe.eval_every == 0 or epoch == recipe.epochs:
                wrong = self._test_logits().argmax(1) != self.data.test_targets
                error_now = error = wrong.double().mean().item()
            rate = learning_rate_at(recipe, epoch * self.steps - 1, self.steps)
            self.history.append(EpochMetrics(epoch, loss, rate, error_now))
            if folder is not None:
                folder.append_metrics(self.history[-1])
                idle = time.perf_counter() - saved
                if idle > _SAVE_SECONDS if checkpoint_every is None else epoch % checkpoint_every == 0:
                    self._save(folder)
                    saved = time.perf_counter()
            for report in reports:
                report(epoch, recipe.epochs, loss, error)
            if (
                folder is not None
                and deadline is not None
                and time.monotonic() >= deadline
                and epoch < recipe.epochs
            ):
                self._save(folder)
                raise PausedError(
                    f"time was up after epoch {epoch} of {recipe.epochs}; the same command goes on from there"
                )

        if recipe.method.refit is not None:
            self._refit(recipe.method.refit)
        logits = self._test_logits()
        if not bool(logits.isfinite().all()):
            raise self._diverged("output of the trained network", recipe.epochs, self.steps)
        decided = _decided(logits, self.data, recipe)
        evaluation = _evaluated(decided, self.data, recipe)
        if folder is not None:
            folder.write_model(self.model, self.data.shape)
            folder.write_metrics(self.history)
            folder.write_environment(about | {"seconds": self._seconds()})
            targets = self.data.test_targets.cpu().numpy()
            Predictions.of(decided, targets, self.data.test_groups).write(folder.path)
            folder.finish(evaluation, ["model.safetensors", PREDICTIONS])
        path = None if folder is None else folder.path
        model = self.model.to("cpu").eval()
        return RunResult(recipe, evaluation, tuple(self.history), self._seconds(), path, model)

    def take(self, folder: Path) -> None:
        """Take over what another run has trained, where this one differs only in what comes afterwards."""
        other = load_run(folder)
        method = self.recipe.method
        if method.training == method:
            raise ValueError(
                f"trained={str(folder)!r} is for methods that decide or refit after training, and "
                f"{method.label!r} does neither; leave it out"
            )
        if other.recipe.method != method.training or other.recipe.replace(method=method) != self.recipe:
            raise ValueError(
                f"trained={str(folder)!r} holds recipe {other.recipe.short_hash}, which is not what this one "
                "trains; give the folder of a run of recipe.replace(method=recipe.method.training)"
            )
        _refuse_other_data(folder, self.data)
        self.model.load_state_dict(other.model.state_dict())
        self.history, self.earlier_seconds = list(other.history), other.seconds

    def _refit(self, rule: Rule) -> None:
        """Make the last layer anew, from the features of the training samples as they are."""
        head = self.model.head
        assert isinstance(head, nn.Linear)
        features: list[Tensor] = []
        hook = head.register_forward_pre_hook(lambda _, given: features.append(given[0].float()))
        self.model.eval()
        with torch.no_grad(), exact_cudnn(), self._precision():
            for inputs in self.data.plain_batches():
                self.model(inputs)
        hook.remove()
        seed = derive_seed(self.recipe.seed, 0, "refit")
        old = (head.weight.detach().float(), head.bias.detach().float())
        weight, bias = rule.of(REFITS)(torch.cat(features), self.data.targets, *old, seed=seed)
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.copy_(bias)

    def _criterion(self, epoch: int) -> nn.Module:
        """Return the loss that is in force in an epoch."""
        method = self.recipe.method.at(epoch, self.recipe.epochs)
        each = {"reduction": "none"} if method.reweighting is not None else {}
        return method.criterion(self.data.counts, **each).to(self.device)

    def _train_epoch(self, epoch: int) -> float:
        """Train once over the data and return the mean loss; the only wait for the device is at the end."""
        if self.recipe.method.schedule is not None:
            self.criterion = self._criterion(epoch)
        first = (epoch - 1) * self.steps
        rates = [learning_rate_at(self.recipe, first + step, self.steps) for step in range(self.steps)]
        self.model.train()
        seed = derive_seed(self.recipe.seed, epoch, "dropout")
        with seeded(self.model, seed, self.device), _running(self.kernels, self.model):
            if self.epochs is not None:
                losses, stopped = self.epochs.play(epoch, torch.tensor(rates))
            else:
                losses, stopped, stop = torch.zeros(self.steps), torch.zeros(self.steps), torch.zeros(())
                for step, (inputs, targets) in enumerate(self.data.batches(epoch)):
                    losses[step] = self._step(inputs, targets, rates[step], stop)
                    stopped[step] = stop
        values, bad = losses.double().cpu().numpy(), np.flatnonzero(stopped.cpu().numpy())
        if len(bad):
            raise self._diverged("loss or its gradient", epoch, int(bad[0]) + 1)
        sizes = np.full(self.steps, self.recipe.batch_size)
        sizes[-1] = len(self.data) - sizes[:-1].sum()
        return float(np.average(values, weights=sizes))

    def _step(self, inputs: Tensor, targets: Tensor, rate: float | Tensor, stop: Tensor) -> Tensor:
        """Make one update and return the loss; if it or its gradient is not finite, raise `stop` instead."""
        for parameter in self.parameters:
            parameter.grad = None
        if self.part is None:
            with self._precision():
                loss = self.criterion(self.forward(inputs), targets)
        else:
            loss = self._reweighed(inputs, targets)
        loss.backward()
        value: Tensor = loss.detach()
        # The guard of a gradient scaler: one kernel sets the flag to 1 where any value is not finite, and the
        # fused optimizers skip an update on the device while it is. The flag stays up once raised, so nobody
        # has to look at a loss before the next step starts.
        checked = [value, *(p.grad for p in self.parameters if p.grad is not None)]
        torch._amp_foreach_non_finite_check_and_unscale_(checked, stop, self.one)
        self.optimizer.found_inf = stop  # type: ignore[attr-defined]
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return value

    def _reweighed(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return a batch's loss, each sample weighed by what the balanced part gains from it."""
        rule = self.recipe.method.reweighting
        assert rule is not None
        assert self.part is not None
        with self._precision():
            weigh = rule.of(REWEIGHTINGS)
            weights = weigh(self.model, self.criterion, (inputs, targets), self.part)
            losses: Tensor = self.criterion(self.forward(inputs), targets)
            weighed: Tensor = (weights.detach() * losses).sum()
            return weighed

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        return autocast(self.recipe.precision, self.device)

    def _test_logits(self) -> Tensor:
        with _running(self.kernels, self.model):
            return _logits(self.model, self.data, self._precision())

    def _seconds(self) -> float:
        return self.earlier_seconds + time.perf_counter() - self.started

    def _diverged(self, what: str, epoch: int, step: int) -> DivergedError:
        recipe = self.recipe
        return DivergedError(
            f"the {what} is not finite at step {step} of {self.steps} in epoch {epoch} of {recipe.epochs}; "
            "training stopped before that update, nothing damaged was saved; lower learning_rate "
            f"(now {recipe.learning_rate:g}) or raise warmup_epochs (now {recipe.warmup_epochs})",
            epoch=epoch,
            step=step,
        )

    def _save(self, folder: RunFolder) -> None:
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{name}.{key}"] = value
        extra = {"history": [asdict(m) for m in self.history], "seconds": self._seconds()}
        epoch, owner = len(self.history), self.recipe.hash
        checkpoint.save(folder.path / "checkpoints", tensors, epoch=epoch, recipe_hash=owner, extra=extra)

    def _resume(self, folder: RunFolder) -> None:
        found = checkpoint.load_latest(folder.path / "checkpoints", self.recipe.hash)
        if found is None:
            return
        named = {k.removeprefix("model."): t for k, t in found.tensors.items() if k.startswith("model.")}
        self.model.load_state_dict(named)
        for name, parameter in self.model.named_parameters():
            prefix = f"optimizer.{name}."
            for key in (k for k in found.tensors if k.startswith(prefix)):
                saved = found.tensors[key].to(self.device)
                # fused kernels want the state laid out in memory as its parameter is
                like = parameter.detach() if saved.shape == parameter.shape else saved
                state = torch.empty_like(like, dtype=saved.dtype).copy_(saved)
                self.optimizer.state[parameter][key.removeprefix(prefix)] = state
        self.history = [EpochMetrics(**m) for m in found.extra["history"]]
        self.earlier_seconds = float(found.extra["seconds"])


def _logits(
    model: nn.Module, data: TrainingData, precision: contextlib.AbstractContextManager[Any]
) -> Tensor:
    model.eval()
    with torch.inference_mode(), precision:
        parts: list[Tensor] = [model(inputs) for inputs in data.test_batches()]
        return torch.cat(parts)


def _build(recipe: Recipe, shape: dict[str, int]) -> nn.Module:
    with DRAWS, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(recipe.seed, 0, "weights"))
        model = models.build(recipe.model, **shape)
        if recipe.method.cosine:
            model = with_cosine_head(model, recipe.method.cosine)
    if recipe.uses_prior_bias:
        head = model.head
        assert isinstance(head, nn.Module)
        init_prior_bias_(head)
    return model


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    exempt = "head" if recipe.uses_prior_bias else "none"
    groups = parameter_groups(model, weight_decay=recipe.weight_decay, no_decay=exempt)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=recipe.learning_rate, fused=True)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, fused=True)


def _captures(acceleration: str, recipe: Recipe, model: nn.Module, device: torch.device) -> bool:
    """Whether steps are captured as CUDA graphs; refuses where they were asked for and cannot be."""
    why = None
    if device.type != "cuda":
        why = f"the device is {device}"
    elif recipe.optimizer != "sgd":
        why = f"the optimizer is {recipe.optimizer!r}"
    elif recipe.method.schedule is not None:
        why = "the method has a schedule, which changes the loss on the way"
    elif recipe.method.mixing is not None or recipe.method.reweighting is not None:
        why = "the method mixes or weighs the samples of a batch"
    elif has_dropout(model):
        why = "the network has dropout, whose random numbers would differ"
    if acceleration == "graphs" and why is not None:
        raise ValueError(
            "acceleration='graphs' needs CUDA, SGD, no dropout, and a method without schedule, mixing and "
            f"reweighting, but {why}; use 'auto'"
        )
    if acceleration == "none" or why is not None:
        return False
    return acceleration != "auto" or _measured.gpu(torch.cuda.get_device_name(device)).graphs


def _native(acceleration: str, recipe: Recipe, model: nn.Module, device: torch.device) -> Accelerator | None:
    """Return the registered CPU kernels where they run; refuses where they were asked for and cannot."""
    if acceleration not in ("auto", "native"):
        return None
    why: str | None
    if recipe.method.reweighting is not None:
        why = "does not run a method that weighs the samples of a batch"
    elif "native" in ACCELERATORS:
        why = ACCELERATORS["native"].applies(recipe, model, device)
        if why is None:
            return ACCELERATORS["native"]
    else:
        why = "needs kernels that are not installed; run `make native` in a checkout of longtail"
    if acceleration == "native":
        raise ValueError(f"acceleration='native' {why}; use 'auto'")
    return None


def _running(kernels: Accelerator | None, model: nn.Module) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if kernels is None else kernels.running(model)
