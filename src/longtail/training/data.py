"""Samples on the device: shuffled, augmented and scaled batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longtail import _checks, datasets
from longtail._random import derive_seed, generator
from longtail.datasets import Dataset
from longtail.datasets.kinds import KINDS
from longtail.methods import MIXINGS
from longtail.training.augment import Samples
from longtail.training.recipe import Recipe
from longtail.training.registries import AUGMENTATIONS

__all__ = ["TrainingData", "derive_seed", "generator", "scale"]

_CHUNK: Final = 1024  # samples gathered at once: few calls for small sets, little memory for large ones


def scale(inputs: Tensor, recipe: Recipe) -> Tensor:
    """Return what a network sees of its inputs, float32: integers become ``x / input_scale - 1``."""
    if inputs.is_floating_point() or recipe.input_scale is None:
        return inputs.float()
    return inputs.float().div_(recipe.input_scale).sub_(1)


def _sha256(*arrays: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class TrainingData:
    """One run's samples, held on the device in their own type, and handed out batch by batch."""

    def __init__(self, recipe: Recipe, dataset: Dataset | None, device: torch.device) -> None:
        if dataset is not None and dataset.name != recipe.dataset:
            raise ValueError(
                f"dataset is {dataset.name!r}, but recipe.dataset is {recipe.dataset!r}; make them agree"
            )
        if dataset is None:
            _checks.choice("dataset", recipe.dataset, datasets.DATASETS.names)
        data = datasets.load(recipe.dataset) if dataset is None else dataset
        self.subset_sha256: str | None = None
        if recipe.imbalance_factor is not None:
            seed = recipe.seed if recipe.subset_seed is None else recipe.subset_seed
            data, kept = data.long_tailed(
                recipe.imbalance_factor, profile=recipe.profile, seed=seed, max_count=recipe.max_count
            )
            self.subset_sha256 = datasets.subset_sha256(kept)
        self.recipe, self.counts, self.images = recipe, data.class_counts, data.kind == "images"
        dtype, shape = data.train.inputs.dtype.name, data.train.inputs.shape[1:]
        assert data.kind is not None
        self.shape = {name: int(shape[axis]) for name, axis in KINDS[data.kind].network.items()}
        self.shape["num_classes"] = data.num_classes
        # what a prediction has to know of the data, and what tells them from others
        self.about: dict[str, object] = {
            "inputs": {"kind": data.kind, "shape": list(shape), "dtype": dtype},
            "class_names": list(data.class_names),
            "class_counts": self.counts.tolist(),
            "train_sha256": _sha256(data.train.inputs, data.train.targets.astype("<i8")),
            "test_sha256": _sha256(data.test.inputs, data.test.targets.astype("<i8")),
        }
        if data.arguments is not None:
            self.about["arguments"] = dict(data.arguments)
        augmentation = AUGMENTATIONS[recipe.augmentation]
        if augmentation.kind not in (None, data.kind):
            raise ValueError(
                f"augmentation={recipe.augmentation!r} needs {augmentation.kind}, got {data.kind} of shape "
                f"{data.train.inputs.shape}; give augmentation='none'"
            )
        self.samples: Samples = augmentation.make(_tensor(data.train.inputs), self.images, device)
        # as they are, for what a method does after training
        method = recipe.method
        afterwards = method.refit is not None or method.reweighting is not None
        self._plain = _tensor(data.train.inputs) if afterwards else None
        self.tested = Samples(_tensor(data.test.inputs), self.images, device)
        self.targets = torch.from_numpy(data.train.targets.astype(np.int64)).to(device)
        self.test_targets = torch.from_numpy(data.test.targets.astype(np.int64)).to(device)
        self.test_groups = data.test.groups
        self.sampler = None
        if recipe.method.sampling is not None:
            order = derive_seed(recipe.seed, 0, "order")
            self.sampler = recipe.method.sampler(data.train.targets, epochs=recipe.epochs, seed=order)

    def __len__(self) -> int:
        return len(self.targets)

    def other_than(self, about: Mapping[str, object]) -> list[str]:
        """Name what differs from the data that a run's environment tells of; earlier versions told less."""
        told = {key: value for key, value in self.about.items() if key != "arguments"}  # a folder may move
        return [key for key, value in told.items() if key in about and about[key] != value]

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the epoch's inputs and targets, shuffled and augmented; the last batch may be smaller."""
        batch, device, n = self.recipe.batch_size, self.targets.device, len(self)
        draws = [drawn.to(device) for drawn in self.draw(epoch)]
        chunk = max(1, _CHUNK // batch) * batch
        for start in range(0, n, chunk):
            inputs, targets = self.gather([drawn[start : start + chunk] for drawn in draws])
            yield from zip(torch.split(inputs, batch), torch.split(targets, batch), strict=True)

    def draw(self, epoch: int) -> list[Tensor]:
        """Return the epoch's random numbers, on the CPU, each tensor of shape (N, ...).

        The first is the order of the samples; the others are what the augmentation wants of the sample that
        comes at that place. Where samples are mixed, the share that each keeps comes before all that, and the
        same of its partner behind.
        """
        if self.sampler is None:
            order = torch.randperm(len(self), generator=generator(self.recipe.seed, epoch, "order"))
        else:
            order = torch.from_numpy(self.sampler.order(epoch - 1))
        drawn = [order, *self.samples.draw(generator(self.recipe.seed, epoch, "augmentation"))]
        if (mixing := self.recipe.method.mixing) is None:
            return drawn
        seed = self.recipe.seed
        random = np.random.default_rng(derive_seed(seed, epoch, "mixing"))
        share = torch.from_numpy(mixing.of(MIXINGS)(random, len(self)).astype(np.float32))
        partner = torch.randperm(len(self), generator=generator(seed, epoch, "partner"))
        return [share, *drawn, *(of[partner] for of in drawn)]

    def gather(self, draws: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return inputs and targets for some rows of what `draw` gave, moved to the device.

        Where samples are mixed, targets are shares of the classes, (n, C) in float32.
        """
        if self.recipe.method.mixing is None:
            rows, *drawn = draws
            return scale(self.samples.gather(rows, drawn), self.recipe), self.targets[rows]
        share, *both = draws
        half = len(both) // 2
        inputs, targets = zip(*(self._alone(part) for part in (both[:half], both[half:])), strict=True)
        keep = share.view(-1, *(1,) * (inputs[0].ndim - 1))
        return keep * inputs[0] + (1 - keep) * inputs[1], share[:, None] * targets[0] + (
            1 - share[:, None]
        ) * targets[1]

    def _alone(self, draws: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        rows, *drawn = draws
        targets = torch.nn.functional.one_hot(self.targets[rows], len(self.counts)).float()
        return scale(self.samples.gather(rows, drawn), self.recipe), targets

    def balanced_part(self, per_class: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of a part of the training set: as many of each class, chosen by the seed.

        As many as the smallest class has, if that is fewer. They are training samples, as Ren et al. take
        them: a part from elsewhere would be more data than other methods see.
        """
        assert self._plain is not None
        targets = self.targets.cpu()
        key = torch.rand(len(targets), generator=generator(self.recipe.seed, 0, "balanced part"))
        order = torch.argsort(key)
        each = min(per_class, int(self.counts[self.counts > 0].min()))
        rows = torch.cat([order[targets[order] == c][:each] for c in range(len(self.counts))])
        samples = Samples(self._plain[rows], self.images, self.targets.device)
        return scale(samples.planes(samples.inputs), self.recipe), self.targets[rows.to(self.targets.device)]

    def test_batches(self) -> Iterator[Tensor]:
        """Yield the test inputs in order."""
        return self._in_order(self.tested)

    def plain_batches(self) -> Iterator[Tensor]:
        """Yield the training inputs in order, without augmentation; for methods that need them."""
        assert self._plain is not None
        return self._in_order(Samples(self._plain, self.images, self.targets.device))

    def _in_order(self, samples: Samples) -> Iterator[Tensor]:
        for part in torch.split(samples.inputs, _CHUNK):
            yield scale(samples.planes(part), self.recipe)


def _tensor(inputs: npt.NDArray[Any]) -> Tensor:
    # torch warns of arrays that nobody may write to, such as memory maps shared between processes
    return torch.from_numpy(np.require(inputs, requirements=["C", "W"]))
