"""The paper's Table 3, large ResNets on iNaturalist and ImageNet, for whoever has data and machines."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from longtail.datasets.images import ImageList, TorchDataset, TrainTransform, load_images
from longtail.paper.reproduce import jobs_for, keep, missing
from longtail.paper.settings import Setting, dataset_name
from longtail.training.recipes import ImageRecipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_FLOAT = 4  # bytes


@dataclass(frozen=True)
class Published:
    """What the paper says of a data set.

    Attributes:
        classes: how many.
        train: training images.
        test: validation images, which the errors are of.
        imbalance_factor: largest over smallest class, to two decimals.
    """

    classes: int
    train: int
    test: int
    imbalance_factor: float


PUBLISHED = {
    "inaturalist2017": Published(5_089, 579_184, 95_986, 435.44),
    "inaturalist2018": Published(8_142, 437_513, 24_426, 500.0),
    "ilsvrc2012": Published(1_000, 1_281_167, 50_000, 1.78),
}


def load_official(
    dataset: str, data: str | os.PathLike[str], *, published: Published | None = None
) -> tuple[ImageList, ImageList]:
    """List a data set's official images, and compare their numbers with the published ones.

    Args:
        dataset: as in `longtail.paper.settings.large`.
        data: the folder with ``train2017.json`` or ``train2018.json`` and its partner, or ImageNet's.
        published: the numbers that the images must have; None takes the paper's. A small copy of a layout, to
            try things, has other ones: give its own.

    Raises:
        FileNotFoundError: a file is missing; it is named.
        ValueError: the folder holds other images.
    """
    expected = PUBLISHED[dataset_name(dataset)] if published is None else published
    folder = Path(data)
    if not folder.is_dir():
        raise FileNotFoundError(f"data folder {folder} is not there; check the path")
    year = dataset[-4:]
    train, test = load_images(folder / f"train{year}.json" if "inat" in dataset else folder)
    counts = train.class_counts
    found = Published(len(counts), len(train), len(test), round(counts.imbalance_factor, 2))
    differ = [
        f"{getattr(found, field):,} {what}, not {getattr(expected, field):,}"
        for field, what in (
            ("classes", "classes"),
            ("train", "training images"),
            ("test", "validation images"),
            ("imbalance_factor", "as imbalance factor"),
        )
        if getattr(found, field) != getattr(expected, field)
    ]
    if differ:
        raise ValueError(
            f"{folder} is not {dataset_name(dataset)} as published: it has {'; '.join(differ)}. Get what is "
            "missing, or name another --dataset"
        )
    return train, test


@dataclass(frozen=True)
class Plan:
    """What a run will take, before it takes it.

    Attributes:
        recipe: what is trained.
        steps: updates in an epoch.
        processes: that share an update.
        device_batch: samples that a process holds at a time.
        accumulated: batches of those a process adds up for an update.
        parameters: of the network.
        memory: bytes a process needs: weights, gradients and momentum (and DistributedDataParallel's copy of
            the gradients), and what the network keeps of a batch for the backward pass, counted by running it
            without data. The workspace of the kernels comes on top; bf16 needs about half of the activations.
        step_seconds: of one update on this device, from a few measured steps on random images.
        decode_seconds: of one training image on one core, measured on some of these images.
    """

    recipe: ImageRecipe
    steps: int
    processes: int
    device_batch: int
    accumulated: int
    parameters: int
    memory: int
    step_seconds: float
    decode_seconds: float

    @property
    def hours(self) -> float:
        """Of training on devices like this one, if decoding keeps up."""
        return self.step_seconds * self.steps * self.recipe.epochs / 3600

    @property
    def cores(self) -> float:
        """Cores that decode as fast as all processes train."""
        return self.decode_seconds * self.recipe.batch_size / self.step_seconds


def plan(
    recipe: ImageRecipe,
    images: tuple[ImageList, ImageList],
    *,
    device: str = "auto",
    device_batch: int | None = None,
    processes: int = 1,
) -> Plan:
    """Estimate memory and time of a run: a few seconds on the CPU, less on a GPU.

    Args:
        recipe: what would be trained.
        images: training and test images.
        device: "auto" | "cpu" | "cuda".
        device_batch: as in `longtail.training.finetune`; None takes at most 32.
        processes: that would share an update.

    Raises:
        ValueError: a batch that cannot be divided so.
    """
    from longtail.training.device import select_device
    from longtail.training.finetune import split_batch

    train, _ = images
    part = recipe.batch_size // processes
    batch = device_batch or next(b for b in range(min(32, part), 0, -1) if part % b == 0)
    batch, accumulated = split_batch(recipe, processes, batch)
    parameters, activations = _sizes(recipe, train.class_names)
    seconds = _seconds_per_image(recipe, train.class_names, select_device(device), batch)
    return Plan(
        recipe=recipe,
        steps=len(train) // recipe.batch_size,
        processes=processes,
        device_batch=batch,
        accumulated=accumulated,
        parameters=parameters,
        memory=parameters * _FLOAT * (4 if processes > 1 else 3) + activations * batch,
        step_seconds=seconds * batch * accumulated,
        decode_seconds=_seconds_to_decode(recipe, train),
    )


def reproduce_large(
    settings: Sequence[Setting],
    data: str | os.PathLike[str],
    results: str | os.PathLike[str],
    *,
    seeds: int = 1,
    runs: str | os.PathLike[str] = "runs/reproduce",
    device: str = "auto",
    device_batch: int | None = None,
    precision: str = "fp32",
    progress: bool = False,
    published: Published | None = None,
) -> int:
    """Train the rows of Table 3 that the results file lacks, and add a row for each; also under torchrun.

    Args:
        settings: from `longtail.paper.settings.large`, of one data set.
        data: its folder, in an official layout.
        results: the CSV file; rows of other runs in it are kept.
        seeds: runs of each, seeds 0, 1, ...
        runs: folder for the run folders.
        device: "auto" | "cpu" | "cuda".
        device_batch: as in `longtail.training.finetune`.
        precision: "fp32" | "bf16".
        progress: draw bars.
        published: as in `load_official`, to try a small copy of a layout.

    Returns:
        How many runs were trained.

    Raises:
        ValueError: settings of several data sets, a folder of other images, or an option out of range.
        FileNotFoundError: a file is missing; it is named.
    """
    from longtail.training.finetune import finetune

    names = {setting.dataset for setting in settings}
    if len(names) != 1:
        raise ValueError(
            f"--data is the folder of one data set, got rows of {len(names)}; name one by --dataset"
        )
    jobs = jobs_for(settings, seeds, runs, precision=precision)
    images = load_official(names.pop(), data, published=published)
    todo = missing(jobs, Path(results))
    for job in todo:
        assert isinstance(job.recipe, ImageRecipe)
        finetune(job.recipe, images, job.folder, device=device, device_batch=device_batch, progress=progress)
        if os.environ.get("RANK", "0") == "0":
            keep([job], Path(results))
    return len(todo)


def _sizes(recipe: ImageRecipe, class_names: Sequence[str]) -> tuple[int, int]:
    """Parameters, and bytes that the network keeps of one image for the backward pass."""
    import torch

    from longtail.models.image_classifiers import build_classifier

    with torch.device("meta"):
        model = build_classifier(recipe.model, class_names).train()
        inputs = torch.empty(2, 3, recipe.size, recipe.size)  # batch norm refuses one
    own = {id(t) for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in own and tensor.ndim and tensor.shape[0] == 2:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(pixel_values=inputs).logits.sum()
    total = sum(t.untyped_storage().nbytes() for t in kept.values()) // 2
    del output
    return sum(p.numel() for p in model.parameters()), total


def _seconds_per_image(
    recipe: ImageRecipe, class_names: Sequence[str], device: torch.device, batch: int
) -> float:
    """Median time of forward and backward, on random images; on the CPU of at most four at a time."""
    import torch

    from longtail.models.image_classifiers import build_classifier

    batch = batch if device.type == "cuda" else min(batch, 4)
    model = build_classifier(recipe.model, class_names).to(device).train()
    inputs = torch.randn(batch, 3, recipe.size, recipe.size, device=device)
    seconds = []
    for _ in range(4 if device.type == "cuda" else 3):
        started = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bf16"):
            output = model(pixel_values=inputs).logits.float().sum()
        output.backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:]) / batch


def _seconds_to_decode(recipe: ImageRecipe, train: ImageList, images: int = 24) -> float:
    """Median time of decoding and cropping some of the training images."""
    rows = TorchDataset(train, TrainTransform(recipe.size, recipe.mean, recipe.std))
    seconds = []
    for index in range(0, len(train), max(1, len(train) // images)):
        started = time.perf_counter()
        rows[index]
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
