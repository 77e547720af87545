"""Images a second of the paper's CIFAR recipe: our loop against the loop of tutorials, in one run.

    python benchmarks/train_throughput.py                 # on the CPU, about five minutes on two cores;
                                                          # needs the kernels that `make native` builds
    python benchmarks/train_throughput.py --device cuda   # eager, graphs, compiled; one run and several;
                                                          # started again, it goes on

The plain script is fp32, channels first, with a DataLoader that pads, crops, mirrors and scales image by
image and `loss.item()` in each step; neither takes TF32 for fp32. Pixels are random: their values change no
speed. Writes results/benchmarks/train_throughput-DEVICE.json and the table of docs/benchmark-tables.md.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from core import RESULTS, ROOT, provenance, put_in_page
from torch.utils.data import DataLoader, Dataset

import longtail
from longtail import models, recipes
from longtail.datasets import Split
from longtail.training import train
from longtail.training.acceleration import ACCELERATORS

CASES = [("fp32", "none"), ("fp32", "graphs"), ("bf16", "none"), ("bf16", "graphs"), ("bf16", "compile")]
TARGETS = {"cpu_speed_up": 3.0, "cuda_images_per_second": 150_000}


class Images(Dataset[tuple[torch.Tensor, int]]):
    """The usual data set: each image is padded, cropped, mirrored and scaled when it is asked for."""

    def __init__(self, data: longtail.datasets.Dataset) -> None:
        self.inputs, self.targets = torch.from_numpy(data.train.inputs), data.train.targets.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        padded = F.pad(self.inputs[index], (4, 4, 4, 4))
        top, left = torch.randint(0, 9, (2,)).tolist()
        image = padded[:, top : top + 32, left : left + 32]
        image = image.flip(2) if torch.rand(()) < 0.5 else image
        return image.float() / 128.0 - 1.0, self.targets[index]


def random_cifar(images: int) -> longtail.datasets.Dataset:
    """Make a data set of CIFAR-10's shapes."""
    draw = np.random.default_rng(0)
    splits = [
        Split(draw.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), np.arange(n, dtype=np.int64) % 10)
        for n in (images, 128)
    ]
    return longtail.datasets.Dataset("cifar10", *splits, class_names=tuple("abcdefghij"))


def recipe_for(precision: str, epochs: int) -> recipes.Recipe:
    """Return the paper's recipe with a constant rate, evaluated once at the end."""
    return recipes.paper_cifar(
        imbalance_factor=None,
        precision=precision,
        epochs=epochs,
        eval_every=epochs,
        schedule="constant",
        milestones=(),
        warmup_epochs=0,
        learning_rate=1e-3,
    )


def stamps_of(
    data: longtail.datasets.Dataset,
    precision: str,
    epochs: int,
    device: str,
    acceleration: str,
    threads: int | None = None,
) -> list[float]:
    """Train and return the moments at which its epochs ended."""
    stamps: list[float] = []

    def report(*_: object) -> None:
        if device == "cuda":
            torch.cuda.current_stream().synchronize()
        stamps.append(time.time())

    recipe = recipe_for(precision, epochs)
    train(recipe, dataset=data, device=device, acceleration=acceleration, progress=report, threads=threads)
    return stamps


def together(
    runs: int, pool: Executor | None, *arguments: Any, skip: int = 4, images: int
) -> tuple[float, int]:
    """Return images a second of several runs together, while all of them train; and the epochs counted.

    The first `skip` epochs and the last one, which is evaluated, do not count: the fourth captures graphs.
    """
    if pool is None:
        found = [stamps_of(*arguments)]
    else:
        found = [task.result() for task in [pool.submit(stamps_of, *arguments) for _ in range(runs)]]
    begin, end = max(s[skip] for s in found), min(s[-2] for s in found)
    if end <= begin:
        raise RuntimeError("the runs did not overlap; give them more epochs")
    epochs = [moment for stamps in found for moment in stamps if begin < moment <= end]
    return len(epochs) * images / (end - begin), len(epochs)


def plain_script(data: longtail.datasets.Dataset, device: str, workers: int) -> Callable[[], None]:
    """Return the training loop of tutorials, one epoch a call."""
    loader = DataLoader(
        Images(data), 128, shuffle=True, num_workers=workers, persistent_workers=workers > 0, drop_last=False
    )
    model = models.build("resnet32", in_channels=3, num_classes=10).to(device)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=2e-4)

    def epoch() -> None:
        model.train()
        total = 0.0
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs.to(device)), targets.to(device))
            loss.backward()
            optimizer.step()
            total += loss.item()

    return epoch


def bytes_per_image(itemsize: int) -> float:
    """Return the least traffic of one training step, in bytes an image.

    Counted are the activations alone, each pass once: forward reads a convolution's input and writes its
    output, and batch norm, which needs the whole batch's statistics first, reads it again and writes the
    activation; backward reads the activation's gradient and the output twice (sums, gradient), writes
    the output's gradient, reads it for the input's and for the weight's gradient, reads the input and writes
    its gradient. Weights, masks and shortcuts are left out, so the bound is an upper one.
    """
    model, total = models.build("resnet32", in_channels=3, num_classes=10), 0.0

    def count(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        x, y = inputs[0].numel(), output.numel()
        total += (x + 3 * y) + (4 * y + 3 * y + 2 * x)

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    model(torch.zeros(1, 3, 32, 32))
    return total * itemsize


def copy_bandwidth() -> float:
    """Return bytes a second of a large copy on the GPU, read and written."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda").random_()
    target, times = torch.empty_like(source), []
    for _ in range(12):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return 2 * source.numel() / statistics.median(times[2:])


def on_cpu(rounds: int, images: int) -> Iterator[dict[str, Any]]:
    """Compare with the plain script, taking turns."""
    if "native" not in ACCELERATORS:
        raise SystemExit("the kernels that are compared are not installed; run `make native`")
    data, cores = random_cifar(images), torch.get_num_threads()
    epoch = plain_script(data, "cpu", workers=0)

    def plain() -> float:
        start = time.perf_counter()
        epoch()
        return images / (time.perf_counter() - start)

    def alone(acceleration: str) -> float:
        stamps = stamps_of(data, "fp32", 4, "cpu", acceleration)
        return images / statistics.median(b - a for a, b in pairwise(stamps[:-1]))

    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        arguments = (data, "fp32", 6, "cpu", "native", 1)
        ours: dict[str, Callable[[], float]] = {
            f"native, {cores} threads": lambda: alone("native"),
            f"none, {cores} threads": lambda: alone("none"),
            f"native, {cores} runs of 1 thread together": lambda: together(
                cores, pool, *arguments, skip=1, images=images
            )[0],
        }
        rates: dict[str, list[float]] = {name: [] for name in ("plain", *ours)}
        for turn in range(rounds + 1):
            order = [("plain", plain), *ours.items()]
            for name, measure in order if turn % 2 == 0 else reversed(order):
                rate = measure()
                if turn:  # the first one warms up: starts processes
                    rates[name].append(rate)
    for name in ours:
        ratios = [a / b for a, b in zip(rates[name], rates["plain"], strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4)
        yield {
            "case": f"train, fp32, {name}",
            "compared_with": f"plain fp32 DataLoader script, {cores} threads",
            "images_per_second": {
                "ours": statistics.median(rates[name]),
                "other": statistics.median(rates["plain"]),
            },
            "speed_up": ratio,
            "speed_up_quartiles": [low, high],
        } | (
            {"target": TARGETS["cpu_speed_up"], "passed": ratio >= TARGETS["cpu_speed_up"]}
            if name == f"native, {cores} threads"
            else {}
        )


def on_cuda(images: int, done: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Measure what is not done: every form of our loop beside the plain script and the traffic bound.

    Of one run and of several; compilation comes last, since its tuning would disturb the captures of others.
    """
    data = random_cifar(images)
    torch.backends.cudnn.allow_tf32 = False  # as in ours

    def bound() -> dict[str, Any]:
        bandwidth, traffic = copy_bandwidth(), bytes_per_image(2)
        figures = {"copy_bytes_per_second": bandwidth, "bytes_per_image_bf16": traffic}
        return figures | {"images_per_second": bandwidth / traffic}

    def plain(workers: int) -> dict[str, Any]:
        epoch = plain_script(data, "cuda", workers)
        epoch()
        start = time.perf_counter()
        epoch()
        torch.cuda.synchronize()
        return {"images_per_second": images / (time.perf_counter() - start)}

    def alone(precision: str, acceleration: str) -> dict[str, Any]:
        length = 16 if acceleration == "none" else 32
        rate, epochs = together(1, None, data, precision, length, "cuda", acceleration, images=images)
        return {"images_per_second": rate, "epochs": epochs}

    def several(runs: int, pool: Executor) -> dict[str, Any]:
        with pool:
            rate, epochs = together(runs, pool, data, "bf16", 48, "cuda", "graphs", images=images)
        return {"images_per_second": rate, "epochs": epochs}

    def judged(runs: int) -> dict[str, Any]:
        row, target = several(runs, ThreadPoolExecutor(runs)), TARGETS["cuda_images_per_second"]
        return row | {"target": target, "passed": row["images_per_second"] >= target}

    def processes() -> dict[str, Any]:
        return several(4, ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")))

    cases = {"bound": bound} | {
        f"plain fp32 DataLoader script, {n} workers": functools.partial(plain, n) for n in (0, 8)
    }
    single = {f"{' '.join(case)}, 1 run": functools.partial(alone, *case) for case in CASES}
    cases |= {name: measure for name, measure in single.items() if "compile" not in name}
    cases |= {f"bf16 graphs, {n} runs in threads": functools.partial(judged, n) for n in (2, 4, 8)}
    for case, measure in (cases | {"bf16 graphs, 4 runs in processes": processes} | single).items():
        try:
            figures = done.get(case) or measure()
        except Exception as error:  # the other cases can still be measured
            figures = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
        yield {"case": case} | figures


def write_page() -> None:
    """Put the tables between their marks in docs/benchmark-tables.md."""
    lines: list[str] = []
    for device in ("cpu", "cuda"):
        path = RESULTS / f"train_throughput-{device}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        lines += [
            "",
            "| ResNet-32, batches of 128 | images a second | times the plain script (quartiles) | asked |",
        ]
        lines.append("|---|---|---|---|")
        for r in (r for r in result["rows"] if "failed" not in r):
            rate = r["images_per_second"]
            cells = [
                r["case"].removeprefix("train, "),
                f"{rate['ours'] if isinstance(rate, dict) else rate:,.0f}",
            ]
            ratio = (
                "{:.2f} ({:.2f} to {:.2f})".format(r["speed_up"], *r["speed_up_quartiles"])
                if "speed_up" in r
                else ""
            )
            asked = "" if "target" not in r else f"{r['target']:g}, {'met' if r['passed'] else '**missed**'}"
            lines.append(f"| {' | '.join([*cells, ratio, asked])} |")
        if device == "cpu":
            other = result["rows"][0]["images_per_second"]["other"]
            lines.append(f"| {result['rows'][0]['compared_with']} | {other:,.0f} | 1 | |")
        v = result["versions"]
        lines += [
            "",
            f"{result['date'][:10]}, {result['device']}, {result['cores']} cores, load "
            f"{result['load_average_before']} before, torch {v['torch']}, commit "
            f"{(result['commit'] or 'unknown')[:10]}.",
        ]
    if not (RESULTS / "train_throughput-cuda.json").exists():
        lines += ["", "**No figure of a GPU exists yet.** `--device cuda` adds them here."]
    put_in_page("throughput", lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=5, help="on the CPU")
    chosen = parser.parse_args()
    about = provenance()
    if chosen.device == "cuda":
        about["device"] = torch.cuda.get_device_name()
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"train_throughput-{chosen.device}.json"
    done: dict[str, dict[str, Any]] = {}
    if path.exists():
        old = json.loads(path.read_text())
        same = all(old.get(k) == about[k] for k in ("commit", "device")) and not about["uncommitted_changes"]
        if same and not old.get("finished", True):
            done = {row["case"]: row for row in old["rows"] if "failed" not in row}
    rows: list[dict[str, Any]] = []

    def keep(finished: bool) -> None:
        result = {"name": path.stem} | about | {"finished": finished, "rows": rows}
        path.write_text(json.dumps(result, indent=2) + "\n")

    for row in on_cuda(12_406, done) if chosen.device == "cuda" else on_cpu(chosen.rounds, 768):
        rows.append(row)
        print(json.dumps(row), flush=True)
        keep(finished=False)
    keep(finished=True)
    write_page()
    print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
