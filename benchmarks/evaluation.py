"""Prediction sets and label shift on frozen features with a long tail; writes one CSV row a measurement.

    python benchmarks/evaluation.py cifar10-features.npz -o results/evaluation.csv
    python benchmarks/evaluation.py --stream 10000000  # writes results/benchmarks/evaluator.json

The training part is cut to imbalance 100; a linear head is fitted to it. Held-out scores are out of fold, so
no sample of the tail is lost. Sets are tested on the balanced test set ("natural" rows weigh its classes as
the training does); label shift on the test set cut to imbalance 50, its classes in the reverse order.
A stream is of test samples of 10,000 classes, each batch a window of logits that were made once.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import time
import warnings
from pathlib import Path

import numpy as np
from core import RESULTS, provenance
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from longtail import adjust_logits, datasets, estimate_prior, prediction_sets
from longtail.evaluation import Evaluator
from longtail.evaluation.sets import METHODS

CLASSES, BATCH = 10_000, 1_000  # of a stream


def fitted(X, y):
    """Return the logits of a linear head as a function."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return (
            make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=60))
            .fit(X, y)
            .decision_function
        )


def measure(data, seed):
    """Yield (task, method, measure, value) of one seed."""
    X, y = data["X"].astype(np.float32), data["y"]
    new, truth = data["X_test"].astype(np.float32), data["y_test"]
    classes = int(y.max()) + 1
    counts = datasets.long_tail_counts(classes, int(np.bincount(y).max()), 100)
    kept = datasets.long_tail_subset(y, counts, seed=seed)
    X, y = X[kept], y[kept]
    held = np.empty((len(y), classes))
    for train, rest in StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y):
        held[rest] = fitted(X[train], y[train])(X[rest])
    logits = fitted(X, y)(new)

    for method in METHODS:
        found = prediction_sets(held, y, logits, method=method, counts=counts).evaluate(truth)
        for name in (
            *("marginal_coverage", "macro_coverage", "worst_coverage", "mean_size", "below_half"),
            *("natural_coverage", "natural_size"),
        ):
            yield "sets at 90 %", method, name, getattr(found, name)

    rng = np.random.default_rng(seed)
    sizes = datasets.long_tail_counts(classes, int(np.bincount(truth).max()), 50)[::-1]
    tilted = np.concatenate(
        [rng.choice(np.flatnonzero(truth == c), n, replace=False) for c, n in enumerate(sizes)]
    )
    z, t = logits[tilted], truth[tilted]
    shares = np.bincount(t, minlength=classes) / len(t)
    found = estimate_prior(z, counts, held_out_logits=held, held_out_labels=y, resamples=0)
    calibrated = found.calibration(z) - np.log(found.source_prior)
    decided = {
        "training prior": z,
        "uniform": adjust_logits(z, counts),
        "estimated prior": found.adjust(z),
        "true prior": calibrated + np.log(shares),
    }
    for name, values in decided.items():
        yield "label shift", name, "error", np.mean(values.argmax(1) != t)
    yield "label shift", "estimated prior", "L1 of the prior", np.abs(found.prior - shares).sum()
    yield "label shift", "estimated prior", "p-value of the test", found.p_value
    same = rng.choice(len(y), len(y) // 2, replace=False)
    rest = np.setdiff1d(np.arange(len(y)), same)
    again = estimate_prior(
        held[same], counts, held_out_logits=held[rest], held_out_labels=y[rest], resamples=0
    )
    yield "no shift", "estimated prior", "p-value of the test", again.p_value
    yield "no shift", "estimated prior", "L1 of the prior", np.abs(again.prior - counts / counts.sum()).sum()


def stream(samples):
    """Return what an evaluation of so many samples takes, and the memory beyond the first batch's."""
    about = provenance()
    rng = np.random.default_rng(0)
    counts = datasets.long_tail_counts(CLASSES, 5_000, 1_000)
    logits = rng.standard_normal((2 * BATCH, CLASSES), dtype=np.float32)
    targets = rng.integers(0, CLASSES, 2 * BATCH)
    logits[np.arange(2 * BATCH), targets] += 4
    evaluator, before = Evaluator(counts), _peak()
    started, cpu = time.perf_counter(), time.process_time()
    for start in range(0, samples, BATCH):
        first = int(rng.integers(0, BATCH))
        last = first + min(BATCH, samples - start)
        evaluator.add(logits[first:last], targets[first:last])
    found = evaluator.result()
    assert found.num_samples == samples
    return {"name": "evaluator", **about} | {
        **{"samples": samples, "classes": CLASSES, "batch": BATCH},
        **{"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - cpu},
        **{"bytes_before": before, "bytes_added_at_the_peak": _peak() - before},
        **{"bytes_of_all_logits": 4 * samples * CLASSES, "error": found.error},
    }


def _peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("features", type=Path, nargs="?", help=".npz with X, y, X_test, y_test")
    parser.add_argument("--stream", type=int, help="test samples of a stream, in place of features")
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    if given.stream:
        text = json.dumps(stream(given.stream), indent=2)
        print(text)
        (RESULTS / "evaluator.json").write_text(text + "\n")
        return
    with np.load(given.features, allow_pickle=False) as held:
        data = {name: held[name] for name in ("X", "y", "X_test", "y_test")}
    rows = [
        (given.features.stem, seed, *row[:3], f"{row[3]:.4f}")
        for seed in range(given.seeds)
        for row in measure(data, seed)
    ]
    for row in rows:
        print(*row, sep=",")
    if given.out is not None:
        with given.out.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(
                [("features", "seed", "task", "method", "measure", "value"), *rows]
            )


if __name__ == "__main__":
    main()
