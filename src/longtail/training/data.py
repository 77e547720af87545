"""Samples on the device: shuffled, augmented and scaled batch by batch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from longtail import _checks, datasets
from longtail.datasets import Dataset
from longtail.training.recipe import Recipe

__all__ = [
    "TrainingData",
    "change_view",
    "crop",
    "derive_seed",
    "generator",
    "keep_frames",
    "play",
    "scale",
]

_PAD: Final = {"none": 0, "shift": 1, "crop_flip": 4}
_KINDS: Final = {"shift": "images", "crop_flip": "images", "temporal": "skeletons", "skeleton": "skeletons"}
_CHUNK: Final = 1024  # samples gathered at once: few calls for small sets, little memory for large ones
_SHORTEST: Final = 0.9  # of a clip's frames are left by temporal augmentation
_TURN, _STRETCH, _BODY = math.radians(15), 0.2, 0.05  # at most, at most, standard deviation


def derive_seed(seed: int, epoch: int, purpose: str) -> int:
    """Return the seed of one random stream: a 63-bit hash that is the same on every machine and version."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, epoch: int, purpose: str) -> torch.Generator:
    """Return a CPU generator for one random stream, the same whatever device trains."""
    return torch.Generator().manual_seed(derive_seed(seed, epoch, purpose))


def crop(images: Tensor, rows: Tensor, shifts: Tensor, size: Sequence[int], flips: Tensor | None) -> Tensor:
    """Cut one window out of each image, and mirror some.

    Args:
        images: padded images, any dtype, of shape (N, H + 2 pad, W + 2 pad, C).
        rows: which images, int64 of shape (n,).
        shifts: top and left corner of each window, int64 of shape (2, n), in 0 .. 2 pad.
        size: H and W.
        flips: which windows to mirror left to right, bool of shape (n,); None for none.

    Returns:
        Shape (n, C, H, W), channels last in memory.
    """
    # a view of every window of every image: one gather copies whole windows, not single pixels
    windows = images.unfold(1, size[0], 1).unfold(2, size[1], 1)[rows, shifts[0], shifts[1]]
    if flips is None:
        return windows
    return torch.where(flips[:, None, None, None], windows.flip(3), windows)


def keep_frames(clips: int, frames: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw which frames each clip keeps: 90 to 100 % of them, in a row or with gaps, half of the clips each.

    Args:
        clips: how many clips.
        frames: T, of every clip.
        draw: a CPU generator.

    Returns:
        The frames kept, int64 of shape (clips, T), rising along each row, of which only the first ones of a
        row count; and how many those are, int64 of shape (clips,).
    """
    kept = torch.randint(math.ceil(_SHORTEST * frames), frames + 1, (clips,), generator=draw)
    frame = torch.arange(frames)
    first = (torch.rand(clips, generator=draw) * (frames - kept + 1)).long()
    place = torch.rand(clips, frames, generator=draw).argsort(1).argsort(1)
    gaps = torch.where(place < kept[:, None], frame, frames - 1).sort(1).values
    row = torch.minimum(first[:, None] + frame, torch.tensor(frames - 1))
    return torch.where(torch.rand(clips, 1, generator=draw) < 0.5, row, gaps), kept


def play(clips: Tensor, frames: Tensor, kept: Tensor) -> Tensor:
    """Play the frames that each clip keeps at the speed that fills its length again.

    Args:
        clips: floating point, of shape (n, T, J, D).
        frames: as `keep_frames` returns them, int64 of shape (n, T).
        kept: int64 of shape (n,), 2 .. T.

    Returns:
        Shape (n, T, J, D): linear between kept frames, the first and last of them first and last.
    """
    length = clips.shape[1]
    place = torch.arange(length, device=clips.device) * (kept[:, None] - 1) / (length - 1)
    before = torch.minimum(place.long(), kept[:, None] - 2)
    clip = torch.arange(len(clips), device=clips.device)[:, None]
    start, end = (clips[clip, frames.gather(1, i)] for i in (before, before + 1))
    return torch.lerp(start, end, (place - before)[:, :, None, None].to(clips.dtype))


def change_view(clips: int, joints: int, dimensions: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw another view of each clip, and another body in it.

    The first coordinate of half of the clips is mirrored; all turn by up to 15 degrees in the plane of the
    first two coordinates; then each coordinate is stretched or shrunk by up to 20 %; each joint is moved for
    the whole clip.

    Args:
        clips: how many clips.
        joints: J.
        dimensions: D.
        draw: a CPU generator.

    Returns:
        The maps M, float of shape (clips, D, D), and moves m of shape (clips, J, D) with a standard deviation
        of 0.05: a clip X becomes X M + m s, with s the spread of the data set's coordinates.
    """
    maps = torch.eye(dimensions).repeat(clips, 1, 1)
    if dimensions > 1:
        angle = _TURN * (2 * torch.rand(clips, generator=draw) - 1)
        maps[:, 0, 0] = maps[:, 1, 1] = angle.cos()
        maps[:, 1, 0] = angle.sin()
        maps[:, 0, 1] = -angle.sin()
    maps[:, 0] *= 1.0 - 2 * torch.randint(0, 2, (clips, 1), generator=draw)
    maps *= 1 + _STRETCH * (2 * torch.rand(clips, 1, dimensions, generator=draw) - 1)
    return maps, _BODY * torch.randn(clips, joints, dimensions, generator=draw)


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
            _checks.choice("dataset", recipe.dataset, datasets.NAMES)
        data = datasets.load(recipe.dataset) if dataset is None else dataset
        self.subset_sha256: str | None = None
        if recipe.imbalance_factor is not None:
            seed = recipe.seed if recipe.subset_seed is None else recipe.subset_seed
            data, kept = data.long_tailed(recipe.imbalance_factor, profile=recipe.profile, seed=seed)
            self.subset_sha256 = datasets.subset_sha256(kept)
        self.recipe, self.counts = recipe, data.class_counts
        self.images, self.size = data.kind == "images", data.train.inputs.shape[2:]
        dtype, shape = data.train.inputs.dtype.name, data.train.inputs.shape[1:]
        self.shape = {"in_channels": int(shape[0]), "num_classes": data.num_classes}
        if data.kind == "skeletons":
            self.shape |= {"in_channels": int(shape[2]), "joints": int(shape[1])}
        # what a prediction has to know of the data, and what tells them from others
        self.about: dict[str, Any] = {
            "inputs": {"kind": data.kind, "shape": list(shape), "dtype": dtype},
            "class_names": list(data.class_names),
            "class_counts": self.counts.tolist(),
            "train_sha256": _sha256(data.train.inputs, data.train.targets.astype("<i8")),
            "test_sha256": _sha256(data.test.inputs, data.test.targets.astype("<i8")),
        }
        self.pad = _PAD.get(recipe.augmentation, 0)
        if (wanted := _KINDS.get(recipe.augmentation, data.kind)) != data.kind:
            raise ValueError(
                f"augmentation={recipe.augmentation!r} needs {wanted}, got {data.kind} of shape "
                f"{data.train.inputs.shape}; set augmentation='none'"
            )
        self.inputs = self._stored(data.train.inputs, self.pad).to(device)
        self.spread = self.inputs.std() if recipe.augmentation == "skeleton" else torch.ones(())
        self.targets = torch.from_numpy(data.train.targets.astype(np.int64)).to(device)
        self.test_inputs = self._stored(data.test.inputs, 0).to(device)
        self.test_targets = torch.from_numpy(data.test.targets.astype(np.int64)).to(device)
        self.sampler = None
        if recipe.method.sampling is not None:
            order = derive_seed(recipe.seed, 0, "order")
            self.sampler = recipe.method.sampler(data.train.targets, epochs=recipe.epochs, seed=order)

    def __len__(self) -> int:
        return len(self.targets)

    def other_than(self, about: Mapping[str, Any]) -> list[str]:
        """Name what differs from the data that a run's environment tells of; earlier versions told less."""
        return [key for key, value in self.about.items() if key in about and about[key] != value]

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
        comes at that place: corner and mirror of a crop; frames, how many, and the view of a clip.
        """
        n, draw = len(self), generator(self.recipe.seed, epoch, "augmentation")
        if self.sampler is None:
            drawn = [torch.randperm(n, generator=generator(self.recipe.seed, epoch, "order"))]
        else:
            drawn = [torch.from_numpy(self.sampler.order(epoch - 1))]
        if self.pad:
            drawn.append(torch.randint(0, 2 * self.pad + 1, (2, n), generator=draw).T)
        if self.recipe.augmentation == "crop_flip":
            drawn.append(torch.randint(0, 2, (n,), generator=draw).bool())
        if self.recipe.augmentation in ("temporal", "skeleton"):
            frames, joints, dimensions = self.inputs.shape[1:]
            drawn += keep_frames(n, frames, draw)
            if self.recipe.augmentation == "skeleton":
                drawn += change_view(n, joints, dimensions, draw)
        return drawn

    def gather(self, draws: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return inputs and targets for some rows of what `draw` gave, moved to the device."""
        rows, *drawn = draws
        if self.pad:
            shifts, *flips = drawn
            raw = crop(self.inputs, rows, shifts.T, self.size, flips[0] if flips else None)
        elif drawn:
            frames, kept, *view = drawn
            raw = play(self.inputs[rows], frames, kept)
            if view:
                raw = raw @ view[0][:, None] + view[1][:, None] * self.spread
        else:
            raw = self._planes(self.inputs[rows])
        return scale(raw, self.recipe), self.targets[rows]

    def test_batches(self) -> Iterator[Tensor]:
        """Yield the test inputs in order."""
        for part in torch.split(self.test_inputs, _CHUNK):
            yield scale(self._planes(part), self.recipe)

    def _stored(self, inputs: npt.NDArray[Any], pad: int) -> Tensor:
        # torch warns of arrays that nobody may write to, such as memory maps shared between processes
        tensor = torch.from_numpy(np.require(inputs, requirements=["C", "W"]))
        if not self.images:
            return tensor
        # channels last, so that a gather moves whole pixels and its result is channels-last already
        return nn.functional.pad(tensor, (pad,) * 4).permute(0, 2, 3, 1).contiguous()

    def _planes(self, stored: Tensor) -> Tensor:
        return stored.permute(0, 3, 1, 2) if self.images else stored
