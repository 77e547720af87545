"""The paper's Table 3, large ResNets on iNaturalist and ImageNet, for whoever has data and machines."""

from __future__ import annotations

import csv
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from longtail import _checks
from longtail.datasets.images import ImageList, TorchDataset, TrainTransform, load_images
from longtail.evaluation import Summary, summarize
from longtail.reproduce import add_row, fp32_last, read_rows
from longtail.training.recipe import LARGE, RESNETS, ImageRecipe, paper_large

_PROVENANCE = (
    *("recipe_hash", "subset_sha256", "epochs", "precision", "device", "processes", "longtail", "torch"),
    *("numpy", "commit", "seconds"),
)
COLUMNS = (
    *("dataset", "network", "input_size", "loss", "beta", "gamma", "seed"),
    *("top1_error_percent", "top5_error_percent", *_PROVENANCE),
)
SIZES = (224, 320)
_SHORT = {"inat2017": "inaturalist2017", "inat2018": "inaturalist2018", "imagenet": "ilsvrc2012"}
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


@dataclass(frozen=True)
class LargeCell:
    """One row of the table.

    Attributes:
        dataset: "inaturalist2017" | "inaturalist2018" | "ilsvrc2012".
        network: "resnet50" | "resnet101" | "resnet152".
        size: 224 | 320.
        loss: "softmax", plain, or "focal", class-balanced with beta 0.999 and gamma 0.5.
        top1: published error in percent.
        top5: published error in percent.
    """

    dataset: str
    network: str
    size: int
    loss: str
    top1: float
    top5: float

    def __str__(self) -> str:
        method = "plain softmax" if self.loss == "softmax" else "class-balanced focal"
        return f"{self.dataset} {self.network} {self.size} {method}"


def large_cells(
    *,
    datasets: Sequence[str] | None = None,
    networks: Sequence[str] | None = None,
    sizes: Sequence[int] | None = None,
    losses: Sequence[str] | None = None,
) -> list[LargeCell]:
    """Return the rows of Table 3 with the published errors.

    Args:
        datasets: to take only some; "inat2017", "inat2018" and "imagenet" are understood, too.
        networks: likewise.
        sizes: likewise; the paper has plain softmax at 224 alone.
        losses: likewise.

    Raises:
        ValueError: a name or size that the table does not have, or no row at all.

    Example:
        >>> [(str(cell), cell.top1) for cell in large_cells(datasets=["inat2018"], networks=["resnet50"])][:1]
        [('inaturalist2018 resnet50 224 plain softmax', 42.86)]
    """
    known = [dataset_name(name) for name in datasets or LARGE]
    for what, given, options in (("network", networks, RESNETS), ("loss", losses, ("softmax", "focal"))):
        for value in given or ():
            _checks.choice(what, value, options)
    for size in sizes or ():
        if size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(map(str, SIZES))}, got {size!r}")
    text = (files("longtail") / "paper" / "table3.csv").read_text(encoding="utf-8")
    found = [
        LargeCell(
            row["dataset"],
            row["network"],
            int(row["input_size"]),
            row["loss"],
            float(row["top1_error_percent"]),
            float(row["top5_error_percent"]),
        )
        for row in csv.DictReader(text.splitlines())
    ]
    chosen = [
        cell
        for cell in found
        if cell.dataset in known
        and cell.network in (networks or RESNETS)
        and cell.size in (sizes or SIZES)
        and cell.loss in (losses or ("softmax", "focal"))
    ]
    if not chosen:
        raise ValueError("Table 3 has no such row: plain softmax is there at 224 alone; change loss or size")
    return chosen


def dataset_name(name: str) -> str:
    """Return a data set's full name.

    Raises:
        ValueError: the table has no such data set.
    """
    return _checks.choice("dataset", _SHORT.get(name, name), LARGE)


def recipe_of(cell: LargeCell, *, seed: int = 0, precision: str = "fp32", epochs: int | None = None) -> Any:
    """Return a row's recipe; with other epochs for a trial, the schedule shrinks with them.

    Raises:
        ValueError: fewer epochs than the schedule needs.
    """
    recipe = paper_large(cell.dataset, cell.network, cell.size, cell.loss, seed=seed, precision=precision)
    return recipe if epochs is None else recipe.with_epochs(epochs)


def load_official(
    dataset: str, data: str | os.PathLike[str], *, published: Published | None = None
) -> tuple[ImageList, ImageList]:
    """List a data set's official images, and compare their numbers with the published ones.

    Args:
        dataset: as in `LargeCell`.
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


@dataclass(frozen=True)
class Measured:
    """A row of the table beside what was measured, in percent.

    Attributes:
        cell: the row, with the published errors.
        top1: over seeds; None where it was not run.
        top5: over seeds.
    """

    cell: LargeCell
    top1: Summary | None
    top5: Summary | None


def compare_large(
    cells: Sequence[LargeCell], rows: Sequence[dict[str, str]], *, epochs: int | None = None
) -> list[Measured]:
    """Set measured rows beside the published ones.

    A seed counts once, by its fp32 run where it has one; rows of another number of epochs are left out.
    """
    found: dict[tuple[str, str, int, str], dict[int, tuple[float, float | None]]] = {}
    for row in fp32_last(rows):
        if int(row["epochs"]) == (90 if epochs is None else epochs):
            key = (row["dataset"], row["network"], int(row["input_size"]), row["loss"])
            top5 = float(row["top5_error_percent"]) if row["top5_error_percent"] else None
            found.setdefault(key, {})[int(row["seed"])] = float(row["top1_error_percent"]), top5
    compared = []
    for cell in cells:
        ours = list(found.get((cell.dataset, cell.network, cell.size, cell.loss), {}).values())
        fives = [five for _, five in ours if five is not None]
        compared.append(
            Measured(
                cell,
                summarize([one for one, _ in ours]) if ours else None,
                summarize(fives) if fives else None,
            )
        )
    return compared


def reproduce_large(
    cells: Sequence[LargeCell],
    data: str | os.PathLike[str],
    results: str | os.PathLike[str],
    *,
    seeds: int = 1,
    runs: str | os.PathLike[str] = "runs/reproduce",
    device: str = "auto",
    device_batch: int | None = None,
    precision: str = "fp32",
    epochs: int | None = None,
    progress: bool = False,
    published: Published | None = None,
    changes: Mapping[str, Any] | None = None,
) -> int:
    """Train the rows that the results file lacks, one after the other, and add a line for each.

    Under torchrun every process calls it; killed and called again, it goes on.

    Args:
        cells: of one data set.
        data: its folder.
        results: the CSV file; rows of other runs in it are kept.
        seeds: runs of each row, seeds 0, 1, ...
        runs: folder for the run folders.
        device: "auto" | "cpu" | "cuda".
        device_batch: as in `longtail.training.finetune`.
        precision: "fp32" | "bf16".
        epochs: for a trial, fewer than 90: the schedule shrinks with them.
        progress: draw bars.
        published: as in `load_official`, to try a small copy of a layout.
        changes: fields of the recipes to set otherwise, likewise.

    Returns:
        How many runs were trained.

    Raises:
        ValueError: cells of several data sets, a folder of other images, or an option out of range.
        FileNotFoundError: a file is missing; it is named.
    """
    from longtail.training.finetune import finetune
    from longtail.training.folder import environment_of

    names = {cell.dataset for cell in cells}
    if len(names) != 1:
        raise ValueError(
            f"--data is the folder of one data set, got rows of {len(names)}; name one by --dataset"
        )
    _checks.integer("seeds", seeds, low=1)
    images = load_official(names.pop(), data, published=published)
    finished = {row["recipe_hash"] for row in read_rows(Path(results), COLUMNS)}
    trained = 0
    for seed in range(seeds):
        for cell in cells:
            recipe = recipe_of(cell, seed=seed, precision=precision, epochs=epochs).replace(**(changes or {}))
            if recipe.short_hash in finished:
                continue
            folder = Path(runs) / recipe.short_hash
            run = finetune(
                recipe, images, folder, device=device, device_batch=device_batch, progress=progress
            )
            trained += 1
            if os.environ.get("RANK", "0") != "0":
                continue
            about = environment_of(folder)
            top5 = run.evaluation.top5_error
            known = {
                "dataset": cell.dataset,
                "network": recipe.model,
                "input_size": recipe.size,
                "loss": cell.loss,
                "beta": "0" if recipe.scheme == "none" else f"{recipe.beta:g}",
                "gamma": f"{recipe.gamma:g}" if cell.loss == "focal" else "",
                "seed": seed,
                "top1_error_percent": f"{100 * run.evaluation.error:.2f}",
                "top5_error_percent": "" if top5 is None else f"{100 * top5:.2f}",
                "recipe_hash": recipe.short_hash,
                "epochs": recipe.epochs,
                "precision": recipe.precision,
                "seconds": f"{run.seconds:.1f}",
            }
            row = {name: known.get(name, about.get(name)) for name in COLUMNS}
            add_row(Path(results), {name: "" if value is None else value for name, value in row.items()})
    return trained


def _sizes(recipe: ImageRecipe, class_names: Sequence[str]) -> tuple[int, int]:
    """Parameters, and bytes that the network keeps of one image for the backward pass."""
    import torch

    from longtail.models.image_classifiers import build_classifier

    with torch.device("meta"):
        model = build_classifier(recipe.model, class_names).train()
        inputs = torch.empty(2, 3, recipe.size, recipe.size)  # batch norm refuses one
    own = {id(t) for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        if id(tensor) not in own and tensor.ndim and tensor.shape[0] == 2:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(pixel_values=inputs).logits.sum()
    total = sum(t.untyped_storage().nbytes() for t in kept.values()) // 2
    del output
    return sum(p.numel() for p in model.parameters()), total


def _seconds_per_image(recipe: ImageRecipe, class_names: Sequence[str], device: Any, batch: int) -> float:
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
