"""Speed of the core against what people would otherwise use, as ratios of interleaved runs.

    python benchmarks/core.py                 # everything, a few minutes
    python benchmarks/core.py import losses   # some of: import, weights, folders, losses, training

Both sides of a ratio alternate in one run, so that a busy machine slows both; a ratio is the median over the
rounds, with its quartiles. Each benchmark writes results/benchmarks/NAME.json, and the table in
docs/benchmark-tables.md is made from those files.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

import longtail
from longtail import models, recipes
from longtail.functional import class_balanced_cross_entropy
from longtail.training import train

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "results" / "benchmarks", ROOT / "docs" / "benchmark-tables.md"
DEFAULT_THREADS = torch.get_num_threads()
Row = dict[str, Any]


def row(
    case: str, other: str, ours: list[float], theirs: list[float], limit: float | None, **more: Any
) -> Row:
    """Describe one comparison: times of both sides in seconds, round by round, and ours / theirs."""
    low, ratio, high = statistics.quantiles([a / b for a, b in zip(ours, theirs, strict=True)], n=4)
    figures = {
        "case": case,
        "compared_with": other,
        "rounds": len(ours),
        "seconds": {"ours": statistics.median(ours), "other": statistics.median(theirs)},
        "ratio": ratio,
        "ratio_quartiles": [low, high],
        "limit": limit,
        "passed": None if limit is None else ratio <= limit,
    }
    print(f"{case:46} / {other:42} {ratio:6.3f} [{low:.3f}, {high:.3f}]  limit {limit}", flush=True)
    return figures | more


def interleave(
    ours: Callable[[], object], other: Callable[[], object], rounds: int, slice_seconds: float = 0.01
) -> tuple[list[float], list[float]]:
    """Time two calls in turns, each repeated for about `slice_seconds` a turn; the order alternates."""
    calls, times = (ours, other), ([], [])
    for call in calls * 3:
        call()
    start = time.perf_counter()
    ours()
    repeat = max(1, round(slice_seconds / (time.perf_counter() - start)))
    for turn in range(rounds):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            start = time.perf_counter()
            for _ in range(repeat):
                calls[side]()
            times[side].append((time.perf_counter() - start) / repeat)
    return times


@contextlib.contextmanager
def thread_counts() -> Iterator[list[int]]:
    """Give the thread counts to measure with, and restore torch's own number afterwards."""
    try:
        yield sorted({1, DEFAULT_THREADS})
    finally:
        torch.set_num_threads(DEFAULT_THREADS)


def bench_import() -> list[Row]:
    """Import in fresh interpreters, timed inside them."""
    weights = "import longtail; longtail.class_weights([900, 90, 10])"
    statements = ("import numpy", "import longtail", weights)
    times: dict[str, list[float]] = {s: [] for s in statements}
    for turn in range(16):
        for statement in statements if turn % 2 else reversed(statements):
            code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
            output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
            if turn:  # the first turn fills the disk cache
                times[statement].append(float(output.stdout))
    numpy = times[statements[0]]
    return [row(s, "import numpy", times[s], numpy, 1.3) for s in statements[1:]]


def bench_weights() -> list[Row]:
    """Weights of a million classes against the formula as it is usually typed."""
    beta = 0.999
    counts = np.maximum(1, 1e6 * np.exp(-np.random.default_rng(0).exponential(3, 1_000_000)))

    def naive(n: np.ndarray) -> np.ndarray:
        w = (1 - beta) / (1 - beta**n)
        return w / w.sum() * len(w)

    rows = []
    for dtype in (np.int64, np.float64):
        n = counts.astype(dtype)
        np.testing.assert_allclose(longtail.class_weights(n, beta=beta), naive(n), rtol=1e-9)
        times = interleave(lambda n=n: longtail.class_weights(n, beta=beta), lambda n=n: naive(n), 31)
        rows.append(row(f"class_weights, 1e6 classes, {dtype.__name__}", "naive NumPy line", *times, 3.0))
    return rows


def bench_folders() -> list[Row]:
    """Count 200,000 files in 100 folders of classes, against a bare walk; processor time."""

    def walk() -> int:
        return sum(len(files) for _, _, files in os.walk(folder))

    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(200_000):
            place = Path(folder, f"class {number % 100:02}", f"{number:06}.jpg")
            place.parent.mkdir(exist_ok=True)
            place.touch()
        for turn in range(16):
            sides = [(lambda: longtail.class_counts(folder), ours), (walk, theirs)]
            for call, times in sides if turn % 2 else reversed(sides):
                start = time.process_time()
                call()
                if turn:  # the first turn fills the system's cache
                    times.append(time.process_time() - start)
        if sum(longtail.class_counts(folder).values()) != walk():
            raise SystemExit("the two sides count differently")
    return [row("class_counts, a folder of 200,000 files", "os.walk", ours, theirs, 1.2)]


def bench_losses() -> list[Row]:
    """Forward and backward, float32, index targets."""
    rows = []
    with thread_counts() as counts:
        for threads in counts:
            torch.set_num_threads(threads)
            for n, c in ((128, 10), (128, 1000), (1024, 8142)):
                rows += _losses(n, c, threads)
        torch.set_num_threads(1)
        rows += _offsets(1024, 8142)
    return rows


def _offsets(n: int, c: int) -> list[Row]:
    """Fused losses with an offset against the same without."""
    counts = np.maximum(1, np.round(5000 * 0.01 ** (np.arange(c) / (c - 1)))).astype(np.int64)
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(n, c, generator=draw).requires_grad_()
    target = torch.randint(0, c, (n,), generator=draw)

    def step(loss: str, offset: np.ndarray | None) -> Callable[[], None]:
        criterion = longtail.ClassBalancedLoss(counts, beta=0.999, loss=loss, backend="fused", offset=offset)

        def run() -> None:
            logits.grad = None
            criterion(logits, target).backward()

        return run

    prior = np.log(counts / counts.sum())
    return [
        row(
            f"{loss} with an offset ({n}, {c}), threads 1",
            "without",
            *interleave(step(loss, prior), step(loss, None), 21),
            1.05,
            threads=1,
        )
        for loss in ("softmax", "softmax_focal", "sigmoid", "focal")
    ]


def _losses(n: int, c: int, threads: int) -> list[Row]:
    from balanced_loss import Loss as BalancedLoss

    counts = np.maximum(1, np.round(5000 * 0.01 ** (np.arange(c) / (c - 1)))).astype(np.int64)
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(n, c, generator=draw).requires_grad_()
    target = torch.randint(0, c, (n,), generator=draw)
    softmax = longtail.ClassBalancedLoss(counts, beta=0.999, normalizer="weights")
    focal = longtail.ClassBalancedLoss(counts, beta=0.999, gamma=2.0, loss="focal")
    weight = softmax.weight
    peer = BalancedLoss("focal_loss", beta=0.999, fl_gamma=2.0, samples_per_class=counts, class_balanced=True)
    torch_module = torch.nn.CrossEntropyLoss(weight=weight)
    paper = longtail.ClassBalancedLoss(counts, beta=0.999)
    torch.testing.assert_close(softmax(logits, target), torch_module(logits, target))
    torch.testing.assert_close(focal(logits, target), peer(logits, target))

    def step(criterion: Callable[..., torch.Tensor], *arguments: Any, **options: Any) -> Callable[[], None]:
        def run() -> None:
            logits.grad = None
            criterion(logits, target, *arguments, **options).backward()

        return run

    # on busy cores a parallel region waits for whole scheduler slices, which makes any two losses equal
    judged = c <= 1000 and threads == 1
    rounds, limit_of_softmax = (41 if c <= 1000 else 11), (1.35 if c == 10 else 1.5)
    cross_entropy = "torch CrossEntropyLoss(weight)"
    pairs = [
        ("ClassBalancedLoss", step(paper), cross_entropy, step(torch_module), limit_of_softmax),
        (
            "ClassBalancedLoss, torch's mean",
            step(softmax),
            cross_entropy,
            step(torch_module),
            limit_of_softmax,
        ),
        (
            "class_balanced_cross_entropy",
            step(class_balanced_cross_entropy, weight),
            "F.cross_entropy(weight)",
            step(F.cross_entropy, weight=weight),
            limit_of_softmax,
        ),
        ("ClassBalancedLoss focal", step(focal), "balanced-loss focal", step(peer), 1.0),
    ]
    return [
        row(
            f"{name} ({n}, {c}), threads {threads}",
            other,
            *interleave(ours, theirs, rounds),
            limit if judged else None,
            threads=threads,
        )
        for name, ours, other, theirs, limit in pairs
    ]


class Images(Dataset[tuple[torch.Tensor, int]]):
    """The usual data set: each image is padded, cropped at random and scaled when it is asked for."""

    def __init__(self, inputs: np.ndarray, targets: np.ndarray) -> None:
        self.inputs, self.targets = torch.from_numpy(inputs), targets.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        padded = F.pad(self.inputs[index], (1, 1, 1, 1))
        top, left = torch.randint(0, 3, (2,)).tolist()
        return padded[:, top : top + 8, left : left + 8].float() / 8.0 - 1.0, self.targets[index]


class NumPyImages(Images):
    """The same with NumPy."""

    def __init__(self, inputs: np.ndarray, targets: np.ndarray) -> None:
        super().__init__(inputs, targets)
        self.arrays, self.draw = inputs, np.random.default_rng(0)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        padded = np.pad(self.arrays[index], ((0, 0), (1, 1), (1, 1)))
        top, left = self.draw.integers(0, 3, 2)
        window = padded[:, top : top + 8, left : left + 8].astype(np.float32) / 8.0 - 1.0
        return torch.from_numpy(window), self.targets[index]


def plain_epoch(
    images: Dataset[Any], recipe: recipes.Recipe, counts: Any, workers: int
) -> Callable[[], float]:
    """Return the plain training loop of tutorials, one epoch a call."""
    loader = DataLoader(
        images, recipe.batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    model = models.build(recipe.model, in_channels=1, num_classes=10)
    weight = torch.as_tensor(longtail.class_weights(list(counts), beta=recipe.beta), dtype=torch.float32)
    criterion = torch.nn.CrossEntropyLoss(weight=weight)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )

    def epoch() -> float:
        model.train()
        total = 0.0
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs), targets)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(targets)
        return total / len(images)

    return epoch


def our_epochs(recipe: recipes.Recipe, data: Any) -> list[float]:
    """Seconds of each epoch inside `train`, but the first (set-up) and the last (evaluation)."""
    stamps: list[float] = []
    train(recipe, dataset=data, device="cpu", progress=lambda *_: stamps.append(time.perf_counter()))
    return np.diff(stamps)[:-1].tolist()


def bench_training() -> list[Row]:
    """Steady-state epochs of `longtail.training.train` against plain DataLoader loops over the same net."""
    whole, rows = longtail.datasets.digits(), []
    with thread_counts() as counts:
        for threads in counts:
            torch.set_num_threads(threads)
            for imbalance in (None, 50.0):
                rows += _training(whole, imbalance, threads)
    return rows


def _training(whole: Any, imbalance: float | None, threads: int) -> list[Row]:
    epochs = 4 if imbalance is None else 8
    recipe = recipes.digits(
        imbalance_factor=imbalance, epochs=epochs + 2, warmup_epochs=0, eval_every=epochs + 2
    )
    cut = whole if imbalance is None else whole.long_tailed(imbalance, seed=0)[0]
    inputs, targets = cut.train.inputs, cut.train.targets
    plain = {
        "plain DataLoader, torch": plain_epoch(Images(inputs, targets), recipe, cut.class_counts, 0),
        "plain DataLoader, NumPy": plain_epoch(NumPyImages(inputs, targets), recipe, cut.class_counts, 0),
        "plain DataLoader, torch, 2 workers": plain_epoch(
            Images(inputs, targets), recipe, cut.class_counts, 2
        ),
    }
    ours: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in plain}
    for turn in range(10):
        fast = our_epochs(recipe, whole)
        slow: dict[str, list[float]] = {name: [] for name in plain}
        for name, epoch in plain.items():
            for _ in range(epochs):
                start = time.perf_counter()
                epoch()
                slow[name].append(time.perf_counter() - start)
        if turn:  # the first turn starts the workers
            ours.append(statistics.median(fast))
            for name in plain:
                theirs[name].append(statistics.median(slow[name]))
    n = len(targets)
    return [
        row(
            f"train, digits, {n} images, threads {threads}",
            name,
            ours,
            times,
            0.2 if imbalance is None else None,
            threads=threads,
            samples_per_second={"ours": n / statistics.median(ours), "other": n / statistics.median(times)},
            speed_up=statistics.median([b / a for a, b in zip(ours, times, strict=True)]),
        )
        for name, times in theirs.items()
    ]


BENCHMARKS = {
    "import": bench_import,
    "weights": bench_weights,
    "folders": bench_folders,
    "losses": bench_losses,
    "training": bench_training,
}


def versions(*names: str) -> dict[str, str]:
    """Look up those distributions that are installed; a checkout need not be."""
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def provenance() -> dict[str, Any]:
    """Say what ran where; LONGTAIL_COMMIT names the commit of a copy without its history."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        except OSError:  # no git here
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    changed = git("status", "--porcelain", "--", "src", "benchmarks")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git("rev-parse", "HEAD") or os.environ.get("LONGTAIL_COMMIT") or None,
        "uncommitted_changes": None if changed is None else bool(changed),
        "versions": {"python": platform.python_version()}
        | versions("longtail", "torch", "numpy", "balanced-loss"),
        "device": cpu,
        "cores": os.cpu_count(),
        "default_threads": DEFAULT_THREADS,
        "load_average_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def put_in_page(name: str, lines: list[str]) -> None:
    """Put lines between the marks `name` table and `name` end of docs/benchmark-tables.md."""
    start, end = f"<!-- {name} table -->\n", f"<!-- {name} end -->\n"
    head, found, tail = PAGE.read_text().partition(start)
    _, closed, rest = tail.partition(end)
    if not (found and closed):
        raise SystemExit(f"{PAGE} lacks the lines {start.strip()!r} and, after it, {end.strip()!r}")
    body = "\n".join(lines).strip()
    PAGE.write_text(f"{head}{start}\n{body}\n\n{end}{rest}")


def write_page() -> None:
    """Put the figures of all result files into the page's table."""
    lines = ["| | against | time ratio (quartiles) | limit | |", "|---|---|---|---|---|"]
    notes, missed = [], []
    for name in BENCHMARKS:
        path = RESULTS / f"{name}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        for r in result["rows"]:
            low, high = r["ratio_quartiles"]
            verdict = {True: "met", False: "**missed**", None: ""}[r["passed"]]
            if r["passed"] is False:
                missed.append(
                    f"{r['case']} against {r['compared_with']} ({r['ratio']:.2f}, limit {r['limit']})"
                )
            faster = f", {r['speed_up']:.1f}x the speed" if "speed_up" in r else ""
            lines.append(
                f"| {r['case']} | {r['compared_with']} | {r['ratio']:.2f} ({low:.2f} to {high:.2f}){faster} "
                f"| {'-' if r['limit'] is None else r['limit']} | {verdict} |"
            )
        v = result["versions"]
        notes.append(
            f"- {name}: {result['date'][:10]}, {result['device']}, {result['cores']} cores, load "
            f"{result['load_average_before']} before, Python {v['python']}, torch {v['torch']}, "
            f"NumPy {v['numpy']}, commit {(result['commit'] or 'unknown')[:10]}"
        )
    verdict = "Missed: " + "; ".join(missed) + "." if missed else "Every limit is met."
    put_in_page("core", [*lines, "", verdict, "", *notes])


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all."""
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        raise SystemExit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in names or BENCHMARKS:
        about = provenance()
        result = {"name": name} | about | {"rows": BENCHMARKS[name]()}
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    write_page()


if __name__ == "__main__":
    main(sys.argv[1:])
