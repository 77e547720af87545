"""Heads on features, many at once, against the same heads one after another.

    python benchmarks/heads.py
    python benchmarks/heads.py --memory 4   # of a file of 4 GiB, which a large disk must hold

Ten methods share every batch; the other side trains each by `longtail.training.train`. Both do the same few
epochs, in one thread, whose processor time is taken. Ours trains once what does the same: the plain method is
also what is adjusted after training, and deferred weights until they act, in the last of five epochs. Beside
the ratio stands what a whole comparison takes, 10 methods, 5 seeds, 30 epochs, in seconds of one core. The
results are results/benchmarks/heads.json and heads-memory.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from core import RESULTS, Row, provenance, put_in_page, row

from longtail import Problem
from longtail.compare import heads
from longtail.compare.running import prepare
from longtail.training import train

METHODS = (
    *("plain", "inverse", "inverse_sqrt", "effective", "deferred_effective"),
    *("logit_adjusted", "posthoc_logit_adjusted", "complementary", "vs", "cdt"),
)
ROUNDS, EPOCHS, SEEDS = 3, 5, 5
# name: training samples, features, classes
CASES = {"50,000 x 384, 100 classes": (50_000, 384, 100), "2,478 x 1280, 10 classes": (2_478, 1280, 10)}


def made(samples: int, width: int, classes: int) -> Problem:
    """Features of classes that overlap, with a test set."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(samples) % classes)
    centres = 0.3 * rng.normal(size=(classes, width))
    x = (rng.normal(size=(samples, width)) + centres[y]).astype(np.float32)
    return Problem.from_features(x, y, test=(x[:1000], y[:1000]), name="made")


def measure(case: str, shape: tuple[int, int, int]) -> Row:
    """Measure both ways in turns."""
    problem = made(*shape)
    recipes = [
        r.replace(warmup_epochs=0, epochs=EPOCHS, eval_every=EPOCHS)
        for r in prepare(problem, METHODS, seeds=1)[0]
    ]
    data, cpu = heads._Data(problem, recipes[0]), torch.device("cpu")
    whole = data.dataset
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(ROUNDS + 1):
        started = time.process_time()
        together = heads._Together(data, recipes, cpu).finish()
        between = time.process_time()
        alone = [
            train(r.replace(method=r.method.training), None, dataset=whole, device="cpu") for r in recipes
        ]
        ended = time.process_time()
        if turn:  # the first is for the caches
            times[0].append(between - started)
            times[1].append(ended - between)
    apart = max(
        float((one.model.state_dict()[name] - value).abs().max() / value.abs().max())
        for one, (other, _, _) in zip(alone, together, strict=True)
        for name, value in other.state_dict().items()
    )
    seconds = float(np.median(times[0])) * SEEDS * 30 / EPOCHS
    figures = row(f"10 methods, {case}", "one after another", *times, 1 / 5)
    return figures | {"largest_difference": apart, "core_seconds_of_a_comparison": seconds}


def write_features(path: Path, gib: float, width: int = 1024, classes: int = 100) -> int:
    """Write an .npz of random features, part by part; return how many rows it has."""
    rows = int(gib * 2**30) // (4 * width)
    rng = np.random.default_rng(0)
    x = np.lib.format.open_memmap(path.with_suffix(".npy"), "w+", np.float32, (rows, width))
    for start in range(0, rows, 1 << 14):
        x[start : start + (1 << 14)] = rng.standard_normal((min(1 << 14, rows - start), width), np.float32)
    x.flush()
    y, tested = np.arange(rows) % classes, 10 * classes
    np.savez(path, X=x, y=y, X_test=np.array(x[:tested]), y_test=y[:tested])
    path.with_suffix(".npy").unlink()
    return rows


def peak(path: Path, place: Path, into: multiprocessing.Queue[dict[str, float]]) -> None:
    """Read the file and train two heads for an epoch; tell the most memory that was this process's own."""
    most, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            text = Path("/proc/self/status").read_text()
            most.append(int(text.partition("RssAnon:")[2].split()[0]) * 1024)

    watcher = threading.Thread(target=watch)
    watcher.start()
    time.sleep(0.2)
    before, started = most[-1], time.perf_counter()
    problem = Problem.from_features(path)
    recipes = [
        r.replace(warmup_epochs=0, epochs=1, eval_every=1)
        for r in prepare(problem, ["plain", "logit_adjusted"], seeds=1)[0]
    ]
    outcomes = heads.run_heads(problem, recipes, [place / r.method.slug for r in recipes], "cpu", 1)
    over.set()
    watcher.join()
    assert not any(o.failure for o in outcomes), outcomes
    into.put({"imports": before, "peak": max(most), "seconds": time.perf_counter() - started})


def memory(gib: float) -> None:
    """Measure a file of features that is larger than what is held in memory."""
    about = provenance()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "features.npz")
        rows = write_features(path, gib)
        size = os.path.getsize(path)
        context = multiprocessing.get_context("spawn")
        into = context.Queue()
        child = context.Process(target=peak, args=(path, Path(folder), into))
        child.start()
        found = into.get()
        child.join()
    figures = {"file_bytes": size, "rows_of_features": rows, "bytes": found}
    (RESULTS / "heads-memory.json").write_text(
        json.dumps({"name": "heads-memory"} | about | figures, indent=2) + "\n"
    )
    print(
        f"{size / 2**30:.1f} GiB of features: {found['peak'] / 2**20:.0f} MiB of memory, "
        f"{found['imports'] / 2**20:.0f} of them after the imports; {found['seconds']:.0f} s"
    )


def main() -> None:
    """Measure, and write the result file and the page's table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", type=float, metavar="GIB", help="measure memory on such a file instead")
    if (gib := parser.parse_args().memory) is not None:
        memory(gib)
        return
    torch.set_num_threads(1)
    about = provenance()
    rows = [measure(case, shape) for case, shape in CASES.items()]
    result = {"name": "heads"} | about | {"rows": rows}
    (RESULTS / "heads.json").write_text(json.dumps(result, indent=2) + "\n")
    lines = [
        f"{result['device']}, {torch.get_num_threads()} threads, {result['date'][:10]}, commit "
        f"{(result['commit'] or '?')[:10]}, load {result['load_average_before']} before:",
        "",
        "| | time ratio (quartiles) | asked | core seconds of 5 seeds, 30 epochs | weights apart |",
        "|---|---|---|---|---|",
    ]
    for r in rows:
        low, high = r["ratio_quartiles"]
        lines.append(
            f"| {r['case']} | {r['ratio']:.2f} ({low:.2f} to {high:.2f}) | 0.2, "
            f"{'met' if r['passed'] else '**missed**'} | {r['core_seconds_of_a_comparison']:.0f} | "
            f"{r['largest_difference']:.0e} |"
        )
    put_in_page("heads", lines)


if __name__ == "__main__":
    main()
