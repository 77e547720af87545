"""Heads on features, many runs at once: methods of one seed share every batch and one matrix product.

Each run keeps its own weights, loss and, where its method samples, its own order; it ends with the numbers
that `longtail.training.train` gives for it alone, within rounding. What cannot be trained so (a batch that is
mixed or weighed anew, label smoothing) is trained alone. Runs on samples that are made up take as many steps
as the others.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from longtail import _checks
from longtail._random import derive_seed, generator
from longtail.adjust import tune_adjustment
from longtail.compare.folds import inner_folds
from longtail.compare.many_labels import INNER, judge, label_counts
from longtail.compare.outcome import Outcome
from longtail.compare.trials import WAIT, already, measures, memory_there, split
from longtail.counts import ClassCounts
from longtail.datasets import Dataset, Split, long_tail_counts, long_tail_subset, subset_sha256
from longtail.evaluation import Evaluation, MultiLabelEvaluation, evaluate
from longtail.evaluation.multi_label import LEFT_OUT
from longtail.head import init_prior_bias_
from longtail.methods import REFITS, SYNTHESES, Method, Rule
from longtail.models.heads import standardised
from longtail.training.device import DivergedError, exact_cudnn, select_device
from longtail.training.files import locked
from longtail.training.folder import EpochMetrics, RunFolder, environment
from longtail.training.loop import _build, train
from longtail.training.predictions import PREDICTIONS, Predictions
from longtail.training.recipe import Recipe, learning_rate_at

if TYPE_CHECKING:
    from longtail.compare.problem import Problem

__all__ = ["check_memory", "fits_together", "run_heads"]

Integers = npt.NDArray[np.int64]
_CHUNK = 4096  # rows that are tested at a time
_IN_MEMORY = 1 << 31  # bytes of features up to which they are held, standardised


def fits_together(recipe: Recipe) -> bool:
    """Whether a run can share its batches with others."""
    m = recipe.method
    alone = m.mixing is not None or m.reweighting is not None or m.label_smoothing > 0
    return not (alone or recipe.optimizer != "sgd" or (m.cosine and recipe.model != "linear"))


def check_memory(problem: Problem, recipes: Sequence[Recipe]) -> None:
    """Tell, before anything is trained, which methods need all features in memory that are read in parts.

    Raises:
        ValueError: a method that makes up samples; or more than the machine has.
    """
    assert problem.inputs is not None
    size = 4 * problem.inputs.size
    if size <= _IN_MEMORY:
        return
    told = f"{size / 2**30:.1f} GiB"
    if made_up := [r.method.label for r in recipes if r.method.synthesis is not None]:
        raise ValueError(
            f"method {made_up[0]!r} needs the features in memory, up to {_IN_MEMORY >> 30} GiB, and these "
            f"are {told}; leave it out, or give fewer rows"
        )
    whole = dict.fromkeys(r.method.label for r in recipes if r.method.refit or not fits_together(r))
    if not whole:
        return
    there = memory_there()
    peak = f"{', '.join(whole)} will hold all features at once, {2 * size / 2**30:.1f} GiB at the peak"
    if 2 * size > there:
        raise ValueError(f"{peak}, and this machine has {there / 2**30:.1f} GiB; leave these methods out")
    _checks.warn(f"{peak}; the other methods read them in parts")


def run_heads(
    problem: Problem,
    recipes: Sequence[Recipe],
    places: Sequence[Path],
    device: str = "auto",
    threads: int | None = None,
) -> list[Outcome]:
    """Run the methods of one seed or fold; what is finished already is read.

    All are trained if one is missing, so that a run that was killed ends with the same bits.

    Args:
        problem: the features.
        recipes: of one seed, one a method.
        places: their folders.
        device: "auto" | "cpu" | "cuda".
        threads: CPU threads; None leaves torch's number.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    about = problem.about
    found = already(recipes, places, about)
    if len(found) < len(places):
        data = _Data(problem, recipes[0])
        groups: dict[str, list[tuple[Recipe, Path]]] = {}
        for r, p in zip(recipes, places, strict=True):
            if fits_together(r):
                groups.setdefault(_order(r.method), []).append((r, p))
            elif p not in found:
                found[p] = _alone(data, r, p, device)
        for group in groups.values():
            if all(p in found for _, p in group):
                continue
            try:
                together = [r for r, _ in group]
                made = _Together(data, together, select_device(device)).finish()
                held_out = _held_out(data, together, select_device(device))
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                found |= {p: Outcome(r, None, 0.0, why, p) for r, p in group if p not in found}
                continue
            for (r, p), (model, history, seconds) in zip(group, made, strict=True):
                if p not in found:
                    held = held_out.get(r.method.replace(adjustment=None))
                    found[p] = _kept(data, r, p, model, history, seconds, about, held)
    return [found[p] for p in places]


def _order(method: Method) -> str:
    """What decides the order of the samples."""
    rules = (None, None) if method.sampling is None else (method.sampling, method.schedule)
    return repr((*rules, method.synthesis))


class _Data:
    """One run's samples: features where they are, and which of them train and test."""

    def __init__(self, problem: Problem, recipe: Recipe) -> None:
        assert problem.inputs is not None
        assert problem.targets is not None
        self.problem, self.classes = problem, len(problem.class_names)
        self.strata = problem.strata
        self.rows: Integers = np.arange(len(problem.targets))
        self.subset_sha256: str | None = None
        self.test_groups: Any = None
        x, y, unit = problem.inputs, problem.targets, recipe.model == "linear"
        if recipe.folds:
            self.rows, tested = split(problem, recipe)
            assert tested is not None
            self.test = (_Rows(x, unit, tested), y[tested])
            if problem.groups is not None:
                self.test_groups = problem.groups[tested]
        else:
            assert problem.test is not None
            self.test = (_Rows(problem.test[0], unit), problem.test[1])
            self.test_groups = problem.test_groups
        if recipe.imbalance_factor is not None:
            largest = int(problem.class_counts.min()) if recipe.max_count is None else recipe.max_count
            counts = long_tail_counts(self.classes, largest, recipe.imbalance_factor, recipe.profile)
            seed = recipe.seed if recipe.subset_seed is None else recipe.subset_seed
            self.rows = long_tail_subset(y, counts, seed)
            self.subset_sha256 = subset_sha256(self.rows)
        self.inputs, self.targets = _Rows(x, unit, self.rows), y[self.rows]
        self.strata = self.strata[self.rows]
        self.counts = self._counted()
        self.groups = None if problem.groups is None else problem.groups[self.rows]

    def _counted(self) -> Any:
        """Samples of each class; of many labels what losses weigh by."""
        if self.problem.many_labels:
            return label_counts(self.targets)
        return np.bincount(self.targets, minlength=self.classes)

    def part(self, inside: Integers) -> _Data:
        """Return these data with some of the training samples alone, by their places."""
        data = copy.copy(self)
        data.rows, data.targets = self.rows[inside], self.targets[inside]
        data.inputs, data.strata = _Rows(self.inputs.x, self.inputs.unit, data.rows), self.strata[inside]
        data.counts = data._counted()
        return data

    def made_up(self, rule: Rule, seed: int) -> tuple[Tensor, Integers]:
        """Return standardised features and targets with new samples behind."""
        if self.inputs.ready is None:
            raise ValueError(
                f"{rule.name} needs the features in memory, up to {_IN_MEMORY >> 30} GiB; leave it out"
            )
        x, y = rule.of(SYNTHESES)(self.inputs.all(), self.targets, seed=derive_seed(seed, 0, "synthesis"))
        return standardised(torch.from_numpy(x), self.inputs.unit), y

    @property
    def dataset(self) -> Dataset:
        """All of it as a data set, for a run alone."""
        x, y = self.inputs.all(), self.targets
        parts = Split(x, y), Split(self.test[0].all(), self.test[1])
        return Dataset(self.problem.name, *parts, self.problem.class_names, "vectors")


class _Rows:
    """Some rows of features: in memory and standardised once, or of many gigabytes read batch by batch."""

    def __init__(self, x: npt.NDArray[Any], unit: bool, rows: Integers | None = None) -> None:
        self.x, self.unit, self.rows = x, unit, np.arange(len(x)) if rows is None else rows
        fits = 4 * len(self.rows) * x.shape[1] <= _IN_MEMORY
        self.ready = standardised(torch.from_numpy(np.array(x[self.rows])), unit) if fits else None

    def __len__(self) -> int:
        return len(self.rows)

    def all(self) -> npt.NDArray[Any]:
        return np.asarray(self.x[self.rows])

    def get(self, rows: Tensor) -> Tensor:
        if self.ready is not None:
            return self.ready.index_select(0, rows)
        return standardised(torch.from_numpy(np.asarray(self.x[self.rows[rows.numpy()]])), self.unit)


@dataclass
class _Vectors:
    """What the losses of some runs hold for each class, (M, C)."""

    weight: Tensor
    offset: Tensor
    scale: Tensor
    margin: Tensor


class _Together:
    """Runs with one order: their layers stand side by side in one tensor each.

    Runs that do the same, or have done the same so far, are one lane: the plain run is also that of what is
    decided after training, and of deferred weights until they act.
    """

    def __init__(self, data: _Data, recipes: Sequence[Recipe], device: torch.device) -> None:
        self.started = time.perf_counter()
        self.data, self.recipes, self.device = data, recipes, device
        self.recipe = recipes[0]
        shape = {"in_channels": data.inputs.x.shape[1], "num_classes": data.classes}
        self.models = [_build(r, shape) for r in recipes]
        self.many_labels = data.problem.many_labels
        if self.many_labels:
            for r, model in zip(recipes, self.models, strict=True):
                _start_at_shares(model, r, data.counts)
        zeros = torch.zeros(data.classes)  # of a head without a bias, even if none has one
        self.values = {
            name: torch.stack([m.state_dict().get(name, zeros) for m in self.models]).to(device)
            for name in dict.fromkeys((*(n for m in self.models for n in m.state_dict()), "head.bias"))
        }
        self.momenta = {name: torch.zeros_like(value) for name, value in self.values.items()}
        self.lane_of: list[int] = []
        self.rows: Callable[[Tensor], Tensor] = data.inputs.get
        targets = data.targets
        if (rule := self.recipe.method.synthesis) is not None:
            made_up, targets = data.made_up(rule, self.recipe.seed)
            self.rows = partial(made_up.index_select, 0)
        self.targets = torch.from_numpy(targets).to(device)
        self.steps = math.ceil(len(data.inputs) / self.recipe.batch_size)
        self.sampler = None
        if self.recipe.method.sampling is not None:
            seed = derive_seed(self.recipe.seed, 0, "order")
            self.sampler = self.recipe.method.sampler(data.targets, epochs=self.recipe.epochs, seed=seed)

    def finish(self) -> list[tuple[nn.Module, list[EpochMetrics], float]]:
        """Train, and return each run's network, its history, and its share of the seconds."""
        recipe = self.recipe
        histories: list[list[EpochMetrics]] = [[] for _ in self.recipes]
        with torch.no_grad(), exact_cudnn():
            for epoch in range(1, recipe.epochs + 1):
                if epoch == 1 or any(r.method.schedule is not None for r in self.recipes):
                    self._take_lanes(epoch)
                losses = self._epoch(epoch)
                rate = learning_rate_at(recipe, epoch * self.steps - 1, self.steps)
                for history, lane in zip(histories, self.lane_of, strict=True):
                    history.append(EpochMetrics(epoch, losses[lane], rate, None))
        share = (time.perf_counter() - self.started) / len(self.recipes)
        made = []
        for model, history, lane in zip(self.models, histories, self.lane_of, strict=True):
            model.load_state_dict({name: self.values[name][lane].cpu() for name in model.state_dict()})
            made.append((model.eval(), history, share))
        return made

    def _take_lanes(self, epoch: int) -> None:
        """Part the runs by what they do in this epoch, and take the losses of each lane."""
        now = [replace(r.method.at(epoch, r.epochs).training, schedule=None) for r in self.recipes]
        before = self.lane_of or [-1] * len(now)
        distinct = list(dict.fromkeys(zip(before, now, strict=True)))
        lanes = [distinct.index(pair) for pair in zip(before, now, strict=True)]
        first = [lanes.index(lane) for lane in range(len(distinct))]
        if lanes != self.lane_of:
            at = torch.tensor([before[run] for run in first] if self.lane_of else first)
            for tensors in (self.values, self.momenta):
                tensors |= {name: value[at.to(self.device)] for name, value in tensors.items()}
            self.lane_of = lanes
        has_bias = ["head.bias" in self.models[run].state_dict() for run in first]
        self.mask = torch.tensor(has_bias, device=self.device).float()[:, None]
        self._losses_of([now[run] for run in first])

    def _losses_of(self, methods: list[Method]) -> None:
        device, counts = self.device, self.data.counts
        self.bias_decay = torch.full((len(methods), 1), self.recipe.weight_decay, device=device)
        self.bias_decay[[i for i, m in enumerate(methods) if m.uses_prior_bias]] = 0.0
        self.cosine = torch.tensor([m.cosine for m in methods], device=device)[:, None, None]
        self.has_cosine = any(m.cosine for m in methods)
        self.sigmoid = torch.tensor([m.activation == "sigmoid" for m in methods], device=device)
        self.has_sigmoid = any(m.activation == "sigmoid" for m in methods)
        self.by_weights = [i for i, m in enumerate(methods) if m.normalizer == "weights"]
        criteria = [m.criterion(counts).to(device) for m in methods]
        closed = {i for i, m in enumerate(methods) if m.loss in ("softmax", "sigmoid")}
        if self.many_labels:  # whose sums over weights are left to the loss
            closed -= set(self.by_weights)
        self.open = {i: c for i, c in enumerate(criteria) if i not in closed}
        self.methods = methods
        size = len(methods), self.data.classes
        vectors = [torch.zeros(size, device=device), torch.ones(size, device=device)]
        self.vectors = _Vectors(torch.ones_like(vectors[0]), vectors[0], vectors[1], vectors[0].clone())
        for i, criterion in enumerate(criteria):
            self.vectors.weight[i] = criterion.weight
            for name in ("offset", "scale", "margin"):
                if (value := getattr(criterion, name)) is not None:
                    getattr(self.vectors, name)[i] = value
        plain = {"scale": 1.0, "offset": 0.0, "margin": 0.0}
        self.acts = {n: bool((getattr(self.vectors, n) != usual).any()) for n, usual in plain.items()}
        self.weight_by_class = self.vectors.weight.T.contiguous()  # (C, M), of which rows are taken

    def _epoch(self, epoch: int) -> list[float]:
        batch, recipe = self.recipe.batch_size, self.recipe
        if self.sampler is None:
            draws = generator(recipe.seed, epoch, "order")
            # of samples that are made up, too, an epoch takes as many as there were
            order = torch.randperm(len(self.targets), generator=draws)[: len(self.data.inputs)]
        else:
            order = torch.from_numpy(self.sampler.order(epoch - 1))
        total = torch.zeros(len(self.vectors.weight), dtype=torch.float64, device=self.device)
        first, targets = (epoch - 1) * self.steps, self.targets[order.to(self.device)]
        parts = zip(torch.split(order, batch), torch.split(targets, batch), strict=True)
        for step, (rows, y) in enumerate(parts):
            x = self.rows(rows).to(self.device)
            loss = self._step(x, y, learning_rate_at(recipe, first + step, self.steps))
            total.add_(loss, alpha=len(rows))
        if not bool(total.isfinite().all()):
            raise DivergedError(
                f"the loss is not finite in epoch {epoch} of {recipe.epochs}; lower learning_rate (now "
                f"{recipe.learning_rate:g})",
                epoch=epoch,
                step=1,
            )
        return (total / len(order)).tolist()

    def _step(self, x: Tensor, y: Tensor, rate: float) -> Tensor:
        """Make one update of every lane, and return their losses."""
        values, momenta, (lanes, classes) = self.values, self.momenta, self.vectors.weight.shape
        head, bias = values["head.weight"], values["head.bias"]
        hidden = None
        if "hidden.weight" in values:
            width = values["hidden.weight"].shape[1]
            before = x @ values["hidden.weight"].flatten(0, 1).T + values["hidden.bias"].flatten()
            hidden = before.view(len(x), lanes, width).relu()
            logits = torch.einsum("bmh,mch->bmc", hidden, head) + bias
        elif self.has_cosine:
            units, directions = normalize(x, dim=-1), normalize(head, dim=-1)
            cosines = (units @ directions.flatten(0, 1).T).view(len(x), lanes, classes)
            plain = (x @ head.flatten(0, 1).T).view(len(x), lanes, classes)
            cosine = self.cosine[:, 0]
            logits = torch.where(cosine > 0, cosine * cosines, plain) + bias
        else:
            flat = torch.addmm(bias.flatten(), x, head.flatten(0, 1).T)
            logits = flat.view(len(x), lanes, classes)
        losses, slopes = (self._slopes_of_labels if self.many_labels else self._slopes)(logits, y)
        side, keep = slopes.flatten(1), self.recipe.momentum
        momenta["head.bias"].mul_(keep).addcmul_(side.sum(0).view_as(bias), self.mask)
        if hidden is not None:
            momenta["head.weight"].mul_(keep).add_(torch.einsum("bmc,bmh->mch", slopes, hidden))
            back = torch.einsum("bmc,mch->bmh", slopes, head) * (hidden > 0)
            momenta["hidden.weight"].flatten(0, 1).addmm_(back.flatten(1).T, x, beta=keep)
            momenta["hidden.bias"].mul_(keep).add_(back.sum(0))
        elif self.has_cosine:
            along = self.cosine * (side.T @ units).view_as(head)
            radial = (along * directions).sum(-1, keepdim=True) * directions
            turned = (along - radial) / head.norm(dim=-1, keepdim=True)
            gradient = torch.where(self.cosine > 0, turned, (side.T @ x).view_as(head))
            momenta["head.weight"].mul_(keep).add_(gradient)
        else:
            momenta["head.weight"].flatten(0, 1).addmm_(side.T, x, beta=keep)
        for name, value in values.items():
            if name == "head.bias":
                momenta[name].addcmul_(value, self.bias_decay)
            elif self.recipe.weight_decay:
                momenta[name].add_(value, alpha=self.recipe.weight_decay)
            value.sub_(momenta[name], alpha=rate)
        return losses

    def _slopes(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return each lane's mean loss (M) and its derivative by the logits (B, M, C), overwriting them."""
        v, (batch, lanes, _) = self.vectors, logits.shape
        own = y[:, None, None].expand(batch, lanes, 1)
        bare = {i: logits[:, i].clone() for i in self.open}
        z = logits
        if self.acts["scale"]:
            z.mul_(v.scale)
        if self.acts["offset"]:
            z.add_(v.offset)
        if self.acts["margin"]:
            z.scatter_add_(2, own, -v.margin[:, y].T[..., None])
        weight = self.weight_by_class.index_select(0, y)  # (B, M)
        share = weight / batch
        for i in self.by_weights:
            share[:, i] = weight[:, i] / weight[:, i].sum().clamp(min=torch.finfo(weight.dtype).tiny)
        slope = z.softmax(-1)
        likely = slope.gather(2, own)
        each = likely.log().neg_()[..., 0]
        if float(likely.min()) < 1e-30:  # beyond the exponential's range
            each = z.logsumexp(-1) - z.gather(2, own)[..., 0]
        slope.scatter_add_(2, own, torch.full_like(likely, -1.0))
        if self.has_sigmoid:
            sigmoid, onehot = self.sigmoid, torch.zeros_like(z).scatter_(2, own, 1.0)
            margin = torch.where(onehot.bool(), -z, z)
            each = torch.where(sigmoid, -torch.nn.functional.logsigmoid(-margin).sum(-1), each)
            slope = torch.where(sigmoid[:, None], z.sigmoid() - onehot, slope)
        losses = (share * each).sum(0)
        slopes = slope.mul_(share[..., None])
        if self.acts["scale"]:
            slopes.mul_(v.scale)
        return self._with_open(bare, y, losses, slopes)

    def _slopes_of_labels(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same of many labels: the mean over samples of the sums over their labels.

        A sample counts by the share of its labels that is known, as in `longtail.ClassBalancedLoss`.
        """
        v, known = self.vectors, y != LEFT_OUT
        there = (known & (y == 1)).to(logits.dtype)
        bare = {i: logits[:, i].detach().clone() for i in self.open}
        z = logits + v.offset if self.acts["offset"] else logits
        terms = known[:, None] / known.to(z.dtype).mean(1).sum()
        weights = torch.ones_like(z)
        for i, method in enumerate(self.methods):
            weight = v.weight[i]
            if not method.weighs:
                continue
            if method.weighting == "sample":
                number = there.sum(1, keepdim=True)
                mean = there @ weight[:, None] / number.clamp(min=1)
                weights[:, i] = torch.where(number > 0, mean, torch.ones_like(mean))
            else:
                everywhere = method.weighting == "class"
                weights[:, i] = weight if everywhere else torch.where(there > 0, weight, 1.0)
        scaled = weights.mul_(terms)
        losses = (scaled * softplus(torch.where(there[:, None] > 0, -z, z))).sum((0, 2))
        return self._with_open(bare, y.to(z.dtype), losses, scaled * (z.sigmoid() - there[:, None]))

    def _with_open(
        self, bare: dict[int, Tensor], y: Tensor, losses: Tensor, slopes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fill in the losses that have no formula here."""
        for i, criterion in self.open.items():
            with torch.enable_grad():
                leaf = bare[i].requires_grad_()
                loss = criterion(leaf, y)
                (slopes[:, i],) = torch.autograd.grad(loss, leaf)
            losses[i] = loss.detach()
        return losses, slopes


def _alone(data: _Data, recipe: Recipe, place: Path, device: str) -> Outcome:
    try:
        tail = {"imbalance_factor": None, "max_count": None}  # it is cut already
        result = train(recipe.replace(**tail), None, dataset=data.dataset, device=device)
        return _kept(
            data, recipe, place, result.model, list(result.history), result.seconds, data.problem.about
        )
    except Exception as error:
        return Outcome(recipe, None, 0.0, f"{type(error).__name__}: {error}", place)


def _kept(
    data: _Data,
    recipe: Recipe,
    place: Path,
    model: nn.Module,
    history: list[EpochMetrics],
    seconds: float,
    about: dict[str, object],
    held_out: tuple[npt.NDArray[Any], Integers] | None = None,
) -> Outcome:
    """Refit, decide, evaluate and write one run."""
    started, method = time.perf_counter(), recipe.method
    try:
        with locked(place, wait=WAIT), torch.no_grad():
            if method.refit is not None and fits_together(recipe):
                _refit(data, recipe, model)
            logits = _say(model, data.test[0])
            inner, decides = held_out if method.is_tuned else None, method
            chosen: dict[str, object] = {}  # kept for who reads the run back
            evaluation: Evaluation | MultiLabelEvaluation
            if inner is not None and method.adjustment == Rule("tuned_logit"):
                prior = method.prior(data.counts, epochs=recipe.epochs)
                tau = tune_adjustment(*inner, prior, activation=method.activation).tau
                chosen["tau"] = tau
                decides = method.replace(adjustment=Rule("logit", tau=tau))
            if data.problem.many_labels:
                assert held_out is not None
                chosen = {"label_counts": data.counts.counts.tolist(), "label_samples": len(data.targets)}
                evaluation, more, said = judge(
                    method,
                    logits.double().numpy(),
                    data.test[1],
                    data.targets,
                    held_out,
                    data.problem.class_counts,
                    data.test_groups,
                    drawn=not recipe.folds,
                    epochs=recipe.epochs,
                )
            else:
                decided = decides.adjust(logits.numpy(), data.counts, epochs=recipe.epochs, held_out=inner)
                said = Predictions.of(decided, data.test[1], data.test_groups)
                counts = data.counts
                if recipe.folds:  # the shot groups are those of all folds together, or each has others
                    counts = data.problem.class_counts
                    chosen["trained_counts"] = data.counts.tolist()
                evaluation = evaluate(
                    decided, data.test[1], counts, activation=recipe.activation, groups=said.groups
                )
                more = measures(decided, data.test[1]) if recipe.activation == "softmax" else {}
            folder = RunFolder(place)
            folder.claim(recipe)
            folder.write_model(model, {"in_channels": data.inputs.x.shape[1], "num_classes": data.classes})
            error = evaluation.error if isinstance(evaluation, Evaluation) else None
            folder.write_metrics([*history[:-1], _tested(history[-1], error)])
            seconds += time.perf_counter() - started
            made_with = environment(torch.device("cpu")) | {"subset_sha256": data.subset_sha256}
            folder.write_environment(made_with | chosen | about | {"seconds": seconds, "measures": more})
            said.write(place)
            folder.finish(evaluation, ["model.safetensors", PREDICTIONS])  # last: the run is finished
    except Exception as error:
        return Outcome(recipe, None, seconds, f"{type(error).__name__}: {error}", place)
    return Outcome(recipe, evaluation, seconds, None, place)


def _held_out(
    data: _Data, recipes: Sequence[Recipe], device: torch.device
) -> dict[Method, tuple[npt.NDArray[Any], Integers]]:
    """Return, for each training that asks for them, out-of-fold logits and labels.

    They are of the training samples alone, by heads trained on the others. A tuned adjustment asks, and of
    many labels each method, whose thresholds they choose.
    """
    many = data.problem.many_labels
    asked = {r.method.replace(adjustment=None): r for r in recipes if many or r.method.is_tuned}
    if not asked:
        return {}
    trained = [r.replace(method=method) for method, r in asked.items()]
    logits: list[list[Tensor]] = [[] for _ in trained]
    rows = []
    for inside, outside in inner_folds(data.strata, data.groups, INNER if many else None):
        part = data.part(inside)
        for i, (model, _, _) in enumerate(_Together(part, trained, device).finish()):
            with torch.no_grad():
                if trained[i].method.refit is not None:
                    _refit(part, trained[i], model)
                logits[i].append(_say(model, _Rows(data.inputs.x, data.inputs.unit, data.rows[outside])))
        rows.append(outside)
    labels = data.targets[np.concatenate(rows)]
    return {r.method: (torch.cat(said).numpy(), labels) for r, said in zip(trained, logits, strict=True)}


def _start_at_shares(model: nn.Module, recipe: Recipe, counts: ClassCounts) -> None:
    """Let each label's bias start at its share; of an offset, which says the same, at one half."""
    if recipe.uses_prior_bias:
        shares = (counts.counts + 0.5) / (float(counts.num_samples or 0) + 1)
        half = np.full(len(counts), 0.5)
        assert isinstance(model.head, nn.Module)
        init_prior_bias_(model.head, half if recipe.method.offset is not None else shares)


def _tested(last: EpochMetrics, error: float | None) -> EpochMetrics:
    return EpochMetrics(last.epoch, last.loss, last.learning_rate, error)


def _refit(data: _Data, recipe: Recipe, model: nn.Module) -> None:
    """Make the last layer anew, from the features that it sees."""
    head, rule = model.head, recipe.method.refit
    assert isinstance(head, nn.Linear)
    assert rule is not None
    seen: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    _say(model, data.inputs)
    hook.remove()
    old = head.weight.detach(), head.bias.detach()
    seed = derive_seed(recipe.seed, 0, "refit")
    weight, bias = rule.of(REFITS)(torch.cat(seen), torch.from_numpy(data.targets), *old, seed=seed)
    head.weight.copy_(weight)
    head.bias.copy_(bias)


def _say(model: nn.Module, rows: _Rows) -> Tensor:
    parts = np.array_split(rows.rows, max(1, -(-len(rows) // _CHUNK)))
    return torch.cat([model(torch.from_numpy(np.array(rows.x[part]))).float() for part in parts])
