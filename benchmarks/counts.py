"""Counting a label column of 100 million rows of Parquet: time and peak memory against pandas.

    python benchmarks/counts.py                    # some minutes, 2 GB of disk, 10 GB of memory for pandas
    python benchmarks/counts.py --rows 10000000    # a trial; writes nothing

Each call runs in a new interpreter, timed inside it after its imports; both sides take turns, and the peak is
that of the whole interpreter (Linux). Writes results/benchmarks/counts.json and the table of
docs/benchmark-tables.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from core import RESULTS, provenance, put_in_page, row

CLASSES, GROUP, ROUNDS = 8142, 1_000_000, 5  # as many classes as iNaturalist 2018 has
MEGABYTES, RATIO = 500, 1.0  # limits: peak memory, and time over that of pandas
LABELS = {"integers": "class_id", "text": "species"}
TIMED = """
import json, re, sys, time
{imports}
start = time.perf_counter()
{call}
seconds = time.perf_counter() - start
# of this process alone; getrusage would tell the peak of the one that started it
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1e3
total = int(sum(counted.values()))
json.dump({{"seconds": seconds, "megabytes": peak, "classes": len(counted), "total": total}}, sys.stdout)
"""
SIDES = {
    "ours": (
        "import duckdb\nfrom longtail import class_counts",
        "counted = class_counts({path!r}, label={label!r})",
    ),
    "pandas": (
        "import pandas, pyarrow.parquet",
        "counted = pandas.read_parquet({path!r}, columns=[{label!r}])[{label!r}].value_counts().to_dict()",
    ),
}


def write_rows(path: Path, rows: int) -> None:
    """Write a file name, a class number and a species a row; the classes are as long-tailed as 1 / rank."""
    draw = np.random.default_rng(0)
    share = 1 / np.arange(1, CLASSES + 1)
    names = pa.array([f"species {i:05}" for i in range(CLASSES)])
    schema = pa.schema({"file": pa.int64(), "class_id": pa.int64(), "species": pa.string()})
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, GROUP):
            size = min(GROUP, rows - start)
            labels = np.searchsorted(np.cumsum(share / share.sum()), draw.random(size)).clip(max=CLASSES - 1)
            columns = [np.arange(start, start + size), labels, names.take(pa.array(labels))]
            writer.write_table(pa.table(columns, schema=schema))


def run(side: str, path: Path, label: str) -> dict[str, Any]:
    """Count once in a new interpreter."""
    imports, call = SIDES[side]
    code = TIMED.format(imports=imports, call=call.format(path=str(path), label=label))
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def measure(path: Path, kind: str, rows: int) -> dict[str, Any]:
    """Let both sides take turns on one column."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for turn in range(ROUNDS + 1):
        for side in SIDES if turn % 2 else reversed(SIDES):
            outcome = run(side, path, LABELS[kind])
            if turn:  # the first turn fills the disk cache
                found[side].append(outcome)
    answers = {(o["classes"], o["total"]) for outcomes in found.values() for o in outcomes}
    if len(answers) != 1 or answers.pop()[1] != rows:
        raise SystemExit(f"the two sides count differently: {answers}")
    seconds = {side: [o["seconds"] for o in outcomes] for side, outcomes in found.items()}
    peaks = {side: max(o["megabytes"] for o in outcomes) for side, outcomes in found.items()}
    case = f"class_counts, {rows // 1_000_000} million rows, {kind}"
    figures = row(case, "pandas read_parquet + value_counts", seconds["ours"], seconds["pandas"], RATIO)
    print(f"peak memory {peaks['ours']:.0f} MB, pandas {peaks['pandas']:.0f} MB", flush=True)
    memory = {"limit": MEGABYTES, "passed": peaks["ours"] <= MEGABYTES}
    return figures | {"peak_megabytes": {"ours": peaks["ours"], "other": peaks["pandas"]} | memory}


def write_page(result: dict[str, Any]) -> None:
    """Put the figures into the page's table."""
    lines = [
        "| labels | time ratio to pandas (quartiles) | limit | | peak, MB | limit | | pandas' peak, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in result["rows"]:
        (low, high), peak = r["ratio_quartiles"], r["peak_megabytes"]
        met = ["met" if passed else "**missed**" for passed in (r["passed"], peak["passed"])]
        lines.append(
            f"| {r['case'].split(', ')[-1]} | {r['ratio']:.2f} ({low:.2f} to {high:.2f}) | {r['limit']} "
            f"| {met[0]} | {peak['ours']:.0f} | {peak['limit']} | {met[1]} | {peak['other']:,.0f} |"
        )
    v, seconds = result["versions"], [r["seconds"]["ours"] for r in result["rows"]]
    note = (
        f"{result['date'][:10]}, {result['device']}, {result['cores']} cores, load "
        f"{result['load_average_before']} before, DuckDB {v['duckdb']}, pandas {v['pandas']}, pyarrow "
        f"{v['pyarrow']}; ours took {' and '.join(f'{s:.1f}' for s in seconds)} s."
    )
    put_in_page("counts", [*lines, "", note])


def main() -> None:
    """Write the file, measure both columns, keep the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000_000)
    rows = parser.parse_args().rows
    about = provenance()
    about["versions"] |= {name: version(name) for name in ("duckdb", "pandas", "pyarrow")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.parquet"
        write_rows(path, rows)
        about["file_megabytes"] = round(path.stat().st_size / 1e6)
        result = {"name": "counts"} | about | {"rows": [measure(path, kind, rows) for kind in LABELS]}
    if rows == 100_000_000:
        (RESULTS / "counts.json").write_text(json.dumps(result, indent=2) + "\n")
        write_page(result)


if __name__ == "__main__":
    main()
