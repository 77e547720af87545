"""Heads on features, many at once, against the same heads one after another.

    python benchmarks/heads.py

Ten methods share every batch; the other side trains each by `longtail.training.train`. Both do the same few
epochs, in one thread, whose processor time is taken. Ours trains once what does the same: the plain method is
also what is adjusted after training, and deferred weights until they act, in the last of five epochs. Beside
the ratio stands what a whole comparison takes, 10 methods, 5 seeds, 30 epochs, in seconds of one core. Then
whole comparisons by `longtail.compare` on all cores, in seconds of the clock, against a loop that gives each
head all cores in turn. The results are results/benchmarks/heads.json; memory is memory.py's.
"""

from __future__ import annotations

import json
import os
import tempfile
import time

import numpy as np
import torch
from core import RESULTS, Row, provenance, put_in_page, row

from longtail import Problem
from longtail.compare import compare, heads
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


def measure_cores(case: str, shape: tuple[int, int, int], cores: int) -> Row:
    """Measure a whole comparison on all cores in seconds of the clock, against all cores for each head."""
    problem = made(*shape)
    recipes = prepare(problem, METHODS, seeds=1)[0]
    whole = heads._Data(problem, recipes[0]).dataset
    torch.set_num_threads(cores)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            table = compare(problem, METHODS, seeds=SEEDS, out=folder, jobs=cores)
            times[0].append(time.perf_counter() - started)
        assert not table.failures, table.failures
        started = time.perf_counter()
        for r in recipes:
            train(r.replace(method=r.method.training), None, dataset=whole, device="cpu")
        times[1].append((time.perf_counter() - started) * SEEDS)  # each seed is the same work
    what = f"10 methods, {case}, {SEEDS} seeds, {recipes[0].epochs} epochs, {cores} cores"
    return row(what, "one after another, all cores for each", *times, 1 / 5)


def main() -> None:
    """Measure, and write the result file and the page's table."""
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(1)
    about = provenance()
    rows = [measure(case, shape) for case, shape in CASES.items()]
    wholes = [measure_cores(case, shape, cores) for case, shape in CASES.items()]
    result = {"name": "heads"} | about | {"rows": [*rows, *wholes]}
    (RESULTS / "heads.json").write_text(json.dumps(result, indent=2) + "\n")
    lines = [
        f"{result['device']}, {result['date'][:10]}, commit "
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
    lines += [
        "",
        f"A whole comparison on {cores} cores, in seconds of the clock:",
        "",
        "| | together | one after another | time ratio (quartiles) | asked |",
        "|---|---|---|---|---|",
    ]
    for r in wholes:
        low, high = r["ratio_quartiles"]
        lines.append(
            f"| {r['case']} | {r['seconds']['ours']:.0f} | {r['seconds']['other']:.0f} | {r['ratio']:.2f} "
            f"({low:.2f} to {high:.2f}) | 0.2, {'met' if r['passed'] else '**missed**'} |"
        )
    put_in_page("heads", lines)


if __name__ == "__main__":
    main()
