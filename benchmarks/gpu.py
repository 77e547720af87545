"""What a CUDA machine is wanted for, in one resumable command: tests, speed, rivals, then cells of Table 2.

    python benchmarks/gpu.py --minutes 9            # whatever is missing; `make gpu` runs this
    python benchmarks/gpu.py --only cells           # one stage: tests | throughput | losses | fast | cells
    python benchmarks/gpu.py table                  # from the results: what "auto" may take on which GPU
    python benchmarks/gpu.py pack FOLDER OUT        # CIFAR-10: six lossless WebP pictures of 17 MB, and names
    python benchmarks/gpu.py unpack IN... FOLDER    # and back into the official binary layout

A stage whose result is finished is skipped (`--again` repeats it), as is a cell that has a row; what was
stopped goes on when called again. Results are written under results/ as they come, the output of the tests to
runs/cuda-tests.log. The loader compares every unpacked batch with the official checksums.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
COLUMNS = 20  # images in a row of a packed picture: WebP ends at 16,383 pixels
STAGES = {"tests": 4, "throughput": 4, "losses": 3, "fast": 2, "cells": 1}  # shares of the time that is left
FILES = {
    "tests": RESULTS / "benchmarks" / "cuda-tests.json",
    "throughput": RESULTS / "benchmarks" / "train_throughput-cuda.json",
    "losses": RESULTS / "benchmarks" / "loss-cuda.json",
}
TABLE = ROOT / "src" / "longtail" / "measured.json"
TESTS = ("losses", "losses_fused", "training", "weights")  # tests/test_*.py that have CUDA tests
NAMES = "batches.meta.txt"  # of CIFAR-10's classes
PAUSE = 20.0  # seconds that cells have to end an epoch and keep it before they are stopped


def pack(source: Path, out: Path) -> None:
    """Turn each batch of the binary layout into one picture, labels in its comment; copy the class names."""
    import numpy as np
    from PIL import Image

    out.mkdir(parents=True, exist_ok=True)
    files = sorted(source.rglob("*_batch*.bin"))
    if not files:
        raise SystemExit(f"{source} has no data_batch_*.bin; name the folder cifar-10-batches-bin")
    shutil.copy(files[0].with_name(NAMES), out)
    for path in files:
        records = np.fromfile(path, np.uint8).reshape(-1, 3073)
        tiles = records[:, 1:].reshape(-1, COLUMNS, 3, 32, 32).transpose(0, 3, 1, 4, 2)
        picture = Image.fromarray(tiles.reshape(len(records) // COLUMNS * 32, COLUMNS * 32, 3))
        target = out / f"{path.stem}.webp"
        picture.save(target, lossless=True, quality=75, method=4, xmp=records[:, 0].tobytes().hex().encode())
        print(f"{target}  {target.stat().st_size:,} bytes", flush=True)


def unpack(packed: list[Path], folder: Path) -> None:
    """Write the binary layout again, from some or all of the files; batches that are there already stay."""
    import numpy as np
    from PIL import Image

    target = folder / "cifar-10-batches-bin"
    target.mkdir(parents=True, exist_ok=True)
    for path in packed:
        if path.name == NAMES:
            shutil.copy(path, target)
            continue
        batch = target / f"{path.stem}.bin"
        if batch.exists():
            continue
        with Image.open(path) as picture:
            labels = np.frombuffer(bytes.fromhex(picture.info["xmp"].decode()), np.uint8)
            pixels = np.asarray(picture.convert("RGB")).reshape(-1, 32, COLUMNS, 32, 3)
        images = pixels.transpose(0, 2, 4, 1, 3).reshape(-1, 3072)
        partial = batch.with_suffix(".part")
        np.concatenate([labels[:, None], images], axis=1).tofile(partial)
        partial.replace(batch)


def most_wanted(runs: Path, precision: str) -> list[Any]:
    """Return the jobs of Table 2's CIFAR-10 half, the most telling first."""
    from longtail.paper.reproduce import jobs_for
    from longtail.paper.settings import Setting, cifar

    def telling(setting: Setting) -> bool:
        plain = setting.beta == 0.0 and setting.gamma in (None, 1.0)
        return plain or (setting.beta == 0.9999 and setting.gamma in (None, 1.0, 2.0))

    everything = cifar("table2", datasets=["cifar10"])
    first = [setting for setting in everything if telling(setting)]
    jobs = [
        *jobs_for([s for s in first if s.imbalance_factor == 100], 3, runs, precision=precision),
        *jobs_for([s for s in first if s.imbalance_factor != 100], 3, runs, precision=precision),
        *jobs_for(everything, 3, runs, precision=precision),
    ]
    return list({job.recipe.short_hash: job for job in jobs}.values())


def fast_rivals(runs: Path, precision: str) -> list[Any]:
    """Return the jobs of the fast recipe: the methods with published errors, five seeds of each."""
    from longtail.paper.reproduce import jobs_for
    from longtail.paper.settings import RIVALS, rivals

    chosen = rivals(datasets=["cifar10"], methods=[*RIVALS], fast=True)
    jobs = jobs_for(chosen, 5, runs, precision=precision)
    return list({job.recipe.short_hash: job for job in jobs}.values())  # one method has two names


def measured(files: dict[str, Path]) -> dict[str, Any]:
    """Return what finished results show right and faster, by kind of GPU: longtail/measured.json.

    A fused loss counts if the CUDA tests pass there, no case failed or was left out for an error, and none
    takes longer than the plain path; graphs count if they train more images a second at both precisions.
    """
    found = {stage: json.loads(path.read_text()) for stage, path in files.items() if path.exists()}
    tests = found.get("tests", {})
    if not tests.get("finished") or tests["exit_status"] != 0:
        return {}
    gpu = tests["device"]
    losses, training = (found.get(stage, {}) for stage in ("losses", "throughput"))
    table: dict[str, Any] = {"fused": [], "graphs": False}
    if losses.get("finished") and losses["device"] == gpu and losses["cases"]:
        rows = [row for case in losses["cases"].values() for row in case]
        failed = {row["loss"] for row in rows if "failed" in row and row["name"] == "ours"}
        plain = [row for row in rows if "failed" not in row and row["name"] == "ours, torch"]
        slow = {row["loss"] for row in plain if row["times_ours"] < 1.0}
        skipped = any("do not fit" not in case["reason"] for case in losses["skipped"])
        table["fused"] = [] if skipped else sorted({row["loss"] for row in plain} - slow - failed)
    if training.get("finished") and training["device"] == gpu:
        rates = {row["case"]: row.get("images_per_second", 0.0) for row in training["rows"]}
        table["graphs"] = all(
            rates.get(f"{precision} graphs, 1 run", 0.0) > rates.get(f"{precision} none, 1 run", float("inf"))
            for precision in ("fp32", "bf16")
        )
    return {gpu: table} if table["fused"] or table["graphs"] else {}


def write_table() -> None:
    """Add what the results show of this kind of GPU to the packaged table; other kinds stay."""
    gpu = json.loads(FILES["tests"].read_text())["device"] if FILES["tests"].exists() else None
    others = {name: entry for name, entry in json.loads(TABLE.read_text()).items() if name != gpu}
    TABLE.write_text(json.dumps(others | measured(FILES), indent=2, sort_keys=True) + "\n")


def run_cells(name: str, deadline: float, precision: str, parallel: int, backend: str) -> None:
    """Train cells of a stage until a moment of time.time(); what is not finished keeps its checkpoint."""
    from joblib import parallel_config

    from longtail.paper.reproduce import reproduce

    def report(done: int, total: int, result: Any) -> None:
        if result.state != "waiting":
            print(f"[{done}/{total}] {result}", flush=True)

    jobs, file = (fast_rivals, "rivals.csv") if name == "fast" else (most_wanted, "table2.csv")
    with parallel_config(backend=backend):
        reproduce(
            jobs(ROOT / "runs" / "reproduce", precision),
            RESULTS / file,
            parallel=parallel,
            budget_minutes=(deadline - time.time()) / 60.0,
            device="cuda",
            progress=report,
        )


def run(command: list[str], seconds: float, **options: Any) -> int | None:
    """Run Python and return its exit status; None if its time was up and it was ended with its children."""
    with subprocess.Popen([sys.executable, *command], cwd=ROOT, process_group=0, **options) as process:
        try:
            return process.wait(seconds)
        except BaseException as reason:
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(reason, subprocess.TimeoutExpired):
                raise
            return None


def run_tests(seconds: float) -> int | None:
    """Run every test that is marked cuda and keep the verdict."""
    import torch

    log = ROOT / "runs" / "cuda-tests.log"
    log.parent.mkdir(exist_ok=True)
    command = ["-m", "pytest", "-m", "cuda", "-v", *(f"tests/test_{name}.py" for name in TESTS)]
    if importlib.util.find_spec("xdist"):
        command += ["-p", "xdist.plugin", "-n", str(min(12, os.cpu_count() or 1))]
    # whatever else is installed there may warn, and warnings are errors
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as stream:
        status = run(command, seconds, stdout=stream, stderr=subprocess.STDOUT, env=environment)
    lines = log.read_text().splitlines()
    print("\n".join(lines[-40:]), flush=True)
    verdict = {
        "name": "cuda-tests",
        "finished": status in (0, 1),  # else interrupted, or none was run
        "exit_status": status,
        "summary": lines[-1] if lines else "",
        "failures": [line for line in lines if line.startswith(("FAILED", "ERROR"))],
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "command": command,
    }
    FILES["tests"].write_text(json.dumps(verdict, indent=2) + "\n")
    return status


def finished(stage: str) -> bool:
    """Whether a stage's result is there and whole."""
    file = FILES.get(stage)
    return file is not None and file.exists() and bool(json.loads(file.read_text()).get("finished"))


def run_stage(name: str, seconds: float, chosen: argparse.Namespace) -> int | None:
    """Run a stage as a process of its own, so that one that fails or hangs costs only its own time."""
    if name == "tests":
        return run_tests(seconds)
    if name in ("fast", "cells"):
        backend = "loky" if chosen.processes else "threading"
        options = [name, str(time.time() + seconds - PAUSE), chosen.precision, str(chosen.jobs), backend]
        return run(["benchmarks/gpu.py", "train", *options], seconds)
    script = {"throughput": "train_throughput.py", "losses": "loss.py"}[name]
    return run([f"benchmarks/{script}", "--device", "cuda"], seconds)


def main() -> None:
    """Parse, then pack, unpack, train, or run what is missing."""
    if sys.argv[1:2] == ["pack"]:
        return pack(Path(sys.argv[2]), Path(sys.argv[3]))
    if sys.argv[1:2] == ["unpack"]:
        return unpack([Path(name) for name in sys.argv[2:-1]], Path(sys.argv[-1]))
    if sys.argv[1:2] == ["table"]:
        return write_table()
    if sys.argv[1:2] == ["train"]:  # the stages "fast" and "cells", within their processes
        name, deadline, precision, jobs, backend = sys.argv[2:]
        return run_cells(name, float(deadline), precision, int(jobs), backend)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--only", choices=STAGES, action="append")
    parser.add_argument("--again", action="store_true", help="repeat stages that have a result")
    parser.add_argument("--data", type=Path, help="folder with CIFAR-10; default: $LONGTAIL_DATA")
    parser.add_argument("--precision", default="bf16", help="of fast and cells; default: bf16")
    parser.add_argument("--jobs", type=int, default=4, help="runs of fast and cells at a time")
    parser.add_argument("--processes", action="store_true", help="these in processes, not threads of one")
    chosen = parser.parse_args()
    sys.path.insert(0, str(ROOT / "src"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), os.getenv("PYTHONPATH")]))
    if chosen.data:
        os.environ["LONGTAIL_DATA"] = str(chosen.data.resolve())
    import torch

    from longtail.datasets import cifar10

    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; this command is for a machine with one")
    wanted = [name for name in STAGES if name in (chosen.only or STAGES)]
    if {"fast", "cells"} & set(wanted):
        try:
            cifar10()
        except (OSError, ValueError) as error:
            raise SystemExit(f"fast and cells need CIFAR-10: {error}; or leave them out by --only") from None
    end_of_all = time.monotonic() + 60.0 * chosen.minutes
    FILES["tests"].parent.mkdir(parents=True, exist_ok=True)
    left = [name for name in wanted if chosen.again or not finished(name)]
    while left:
        start, name = time.monotonic(), left[0]
        seconds = (end_of_all - start) * STAGES[name] / sum(STAGES[n] for n in left)
        status = run_stage(name, seconds, chosen) if seconds > 2 * PAUSE else None
        how = "out of time, what it has is kept," if status is None else f"exit status {status}"
        print(f"{name}: {how} after {time.monotonic() - start:.0f} s", flush=True)
        left = left[1:]
    return write_table()


if __name__ == "__main__":
    main()
