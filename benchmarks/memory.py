"""Memory that a comparison takes on data larger than it: features of a file, and a table of text or Parquet.

    python benchmarks/memory.py features 4         # GiB of features
    python benchmarks/memory.py table 4            # GiB of the table's matrix, 8 bytes a value
    python benchmarks/memory.py table 4 --parquet
    python benchmarks/memory.py table 4 --numbers  # no categories, whose encoding copies the rows

The file is made first, on a disk that must hold it, and a few times more while a table is read. What counts
is the process's own memory (RssAnon), as pages of a file that is mapped go when others need the room.
The results are results/benchmarks/heads-memory.json, and table-memory.json with the names of the options.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from core import RESULTS, provenance

Into = multiprocessing.Queue  # of what a child measured


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


def write_table(path: Path, gib: float, categories: int, width: int = 40) -> int:
    """Write a table of numbers, categories and a day, of four classes; return its rows."""
    import duckdb

    rows = int(gib * 2**30) // (8 * width)
    numbers = [f"round(10 * random(), 3) AS x{i}" for i in range(width - 1 - categories)]
    texts = [f"'kind ' || (20 * random())::INT AS t{i}" for i in range(categories)]
    day = "DATE '2020-01-01' + (1000 * random())::INT AS day"
    label = "CASE WHEN x0 < 0.1 THEN 'd' WHEN x0 < 0.4 THEN 'c' WHEN x0 < 1 THEN 'b' ELSE 'a' END AS y"
    inner = f"SELECT {', '.join([*numbers, *texts, day])} FROM range({rows})"
    how = "FORMAT parquet" if path.suffix == ".parquet" else "FORMAT csv, HEADER"
    database = duckdb.connect(config={"memory_limit": "2GB", "threads": 1})
    database.execute(f"COPY (SELECT *, {label} FROM ({inner})) TO '{path}' ({how})")
    return rows


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """Tell the memory that is this process's own before, the most of it inside, and the seconds."""
    found: dict[str, float] = {}
    most, over = [_own()], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            most.append(_own())

    watcher, started = threading.Thread(target=watch), time.perf_counter()
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()
    found |= {"before": most[0], "peak": max(most), "seconds": time.perf_counter() - started}


def _own() -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.partition("RssAnon:")[2].split()[0]) * 1024


def of_features(path: Path, place: Path, into: Into[Any]) -> None:
    """Read the file and train two heads for an epoch."""
    from longtail import Problem
    from longtail.compare import heads
    from longtail.compare.running import prepare

    with watched() as found:
        problem = Problem.from_features(path)
        recipes = [
            r.replace(warmup_epochs=0, epochs=1, eval_every=1)
            for r in prepare(problem, ["plain", "logit_adjusted"], seeds=1)[0]
        ]
        outcomes = heads.run_heads(problem, recipes, [place / r.method.slug for r in recipes], "cpu", 1)
    assert not any(o.failure for o in outcomes), outcomes
    into.put({"bytes": found})


def of_table(path: Path, place: Path, into: Into[Any]) -> None:
    """Read the table, then train one model on one fold of five; two rounds of boosting hold what all hold."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    from longtail import Problem
    from longtail.compare.learners import Learner, ordinal
    from longtail.compare.running import prepare
    from longtail.compare.trials import run_training, versions

    with watched() as read:
        problem = Problem.from_table(path, "y")
    assert problem.inputs is not None
    (recipe,) = prepare(problem, ["plain"], folds=5, repeats=1)[0]

    def two_rounds(seed: int, categories: int) -> HistGradientBoostingClassifier:
        return HistGradientBoostingClassifier(max_iter=2, categorical_features=list(range(categories)))

    how = Learner(two_rounds, ordinal)
    with watched() as trained:
        (outcome,) = run_training(problem, how, [recipe], [place / "run"], versions())
    assert outcome.failure is None, outcome.failure
    into.put({"matrix_bytes": problem.inputs.nbytes, "reading": read, "one_training": trained})


def main() -> None:
    """Make the file, measure in a process of its own, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("features", "table"))
    parser.add_argument("gib", type=float)
    parser.add_argument("--parquet", action="store_true", help="the table's file, in place of text")
    parser.add_argument("--numbers", action="store_true", help="a table without categories")
    given = parser.parse_args()
    if given.kind == "features" and (given.parquet or given.numbers):
        parser.error("--parquet and --numbers are of a table; leave them out")
    about = provenance()
    of, name = (of_features, "heads-memory") if given.kind == "features" else (of_table, "table-memory")
    name += "-parquet" * given.parquet + "-numbers" * given.numbers
    with tempfile.TemporaryDirectory() as folder:
        if given.kind == "features":
            path = Path(folder, "features.npz")
            rows = write_features(path, given.gib)
        else:
            path = Path(folder, "table.parquet" if given.parquet else "table.csv")
            rows = write_table(path, given.gib, 0 if given.numbers else 3)
        size = os.path.getsize(path)
        context = multiprocessing.get_context("spawn")
        into = context.Queue()
        child = context.Process(target=of, args=(path, Path(folder), into))
        child.start()
        found = into.get()
        child.join()
    figures = {"file_bytes": size, "rows_of_data": rows} | found
    (RESULTS / f"{name}.json").write_text(json.dumps({"name": name} | about | figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
