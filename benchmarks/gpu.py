"""What a CUDA machine is wanted for, in one resumable command: tests, speed, then cells of Table 2.

    python benchmarks/gpu.py --minutes 9            # whatever is missing; `make gpu` runs this
    python benchmarks/gpu.py --only cells           # one stage: tests | throughput | losses | cells
    python benchmarks/gpu.py pack FOLDER OUT        # CIFAR-10 in six lossless WebP pictures of 17 MB
    python benchmarks/gpu.py unpack IN... FOLDER    # and back into the official binary layout

A stage whose result file is there is skipped (`--again` repeats it); a cell is skipped once it has a row, so
calling again goes on. Results are written under results/ as they come. The loader compares every unpacked
batch with the official checksums.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
COLUMNS = 20  # images in a row of a packed picture: WebP ends at 16,383 pixels
STAGES = {
    "tests": (RESULTS / "benchmarks" / "cuda-tests.json", 240),
    "throughput": (RESULTS / "benchmarks" / "train_throughput-cuda.json", 200),
    "losses": (RESULTS / "benchmarks" / "loss-cuda.json", 200),
}


def pack(source: Path, out: Path) -> None:
    """Turn each batch of the binary layout into one picture, with its labels in the file's comment."""
    import numpy as np
    from PIL import Image

    out.mkdir(parents=True, exist_ok=True)
    files = sorted(source.rglob("*_batch*.bin"))
    if not files:
        raise SystemExit(f"{source} has no data_batch_*.bin; name the folder cifar-10-batches-bin")
    for path in files:
        records = np.fromfile(path, np.uint8).reshape(-1, 3073)
        tiles = records[:, 1:].reshape(-1, COLUMNS, 3, 32, 32).transpose(0, 3, 1, 4, 2)
        picture = Image.fromarray(tiles.reshape(len(records) // COLUMNS * 32, COLUMNS * 32, 3))
        target = out / f"{path.stem}.webp"
        picture.save(target, lossless=True, quality=75, method=4, xmp=records[:, 0].tobytes().hex().encode())
        print(f"{target}  {target.stat().st_size:,} bytes", flush=True)


def unpack(pictures: list[Path], folder: Path) -> None:
    """Write the binary layout again; batches that are there already stay."""
    import numpy as np
    from PIL import Image

    target = folder / "cifar-10-batches-bin"
    target.mkdir(parents=True, exist_ok=True)
    for path in pictures:
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
    from longtail.paper.tables import cells
    from longtail.reproduce import jobs_for

    def telling(cell: Any) -> bool:
        plain = cell.beta == 0.0 and cell.gamma in (None, 1.0)
        return plain or (cell.beta == 0.9999 and cell.gamma in (None, 1.0, 2.0))

    everything = cells("table2", datasets=["cifar10"])
    first = [cell for cell in everything if telling(cell)]
    jobs = [
        *jobs_for([c for c in first if c.imbalance_factor == 100], 3, runs, precision=precision),
        *jobs_for([c for c in first if c.imbalance_factor != 100], 3, runs, precision=precision),
        *jobs_for(everything, 3, runs, precision=precision),
    ]
    return list({job.recipe.short_hash: job for job in jobs}.values())


def run_cells(minutes: float, data: Path | None, precision: str, parallel: int) -> None:
    """Train cells until the time is up; a run that is not finished keeps its checkpoint."""
    from longtail.reproduce import reproduce

    def report(done: int, total: int, result: Any) -> None:
        if result.state != "waiting":
            print(f"[{done}/{total}] {result}", flush=True)

    reproduce(
        most_wanted(ROOT / "runs" / "reproduce", precision),
        RESULTS / "table2.csv",
        data=data,
        parallel=parallel,
        budget_minutes=minutes,
        device="cuda",
        progress=report,
    )


def run_tests(out: Path, limit: float) -> None:
    """Run every test that is marked cuda and keep the verdict."""
    import torch

    log = out.with_suffix(".xml")
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-q", "--no-header", f"--junitxml={log}"]
    done = subprocess.run(command, cwd=ROOT, timeout=limit, check=False, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    print("\n".join(lines[-40:]), flush=True)
    log.unlink(missing_ok=True)
    verdict = {"name": "cuda-tests", "exit_status": done.returncode, "summary": lines[-1] if lines else ""}
    about = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "command": command[2:6]}
    failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    out.write_text(json.dumps(verdict | about | {"failures": failures}, indent=2) + "\n")


def run_stage(name: str, again: bool, deadline: float) -> None:
    """Run a stage as a process of its own, so that one that fails or hangs costs only its own time."""
    out, limit = STAGES[name]
    left = min(limit, deadline - time.monotonic())
    if (out.exists() and not again) or left < 20:
        print(f"{name}: {'done before' if out.exists() and not again else 'no time left'}", flush=True)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    start, scripts = time.monotonic(), ROOT / "benchmarks"
    try:
        if name == "tests":
            run_tests(out, left)
        else:
            script = {"throughput": "train_throughput.py", "losses": "loss.py"}[name]
            command = [sys.executable, str(scripts / script), "--device", "cuda"]
            subprocess.run(command, cwd=ROOT, timeout=left, check=False)
    except subprocess.TimeoutExpired:
        print(f"{name}: stopped after {left:.0f} s; what it measured before is kept", flush=True)
    print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)


def main() -> None:
    """Parse, then pack, unpack, or run what is missing."""
    if sys.argv[1:2] == ["pack"]:
        return pack(Path(sys.argv[2]), Path(sys.argv[3]))
    if sys.argv[1:2] == ["unpack"]:
        return unpack([Path(name) for name in sys.argv[2:-1]], Path(sys.argv[-1]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--only", choices=(*STAGES, "cells"), action="append")
    parser.add_argument("--again", action="store_true", help="repeat stages that have a result")
    parser.add_argument("--data", type=Path, help="default: $LONGTAIL_DATA")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--jobs", type=int, default=4, help="cells at a time")
    chosen = parser.parse_args()
    sys.path.insert(0, str(ROOT / "src"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), os.getenv("PYTHONPATH")]))
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; this command is for a machine with one")
    deadline = time.monotonic() + 60.0 * chosen.minutes
    for name in STAGES:
        if not chosen.only or name in chosen.only:
            run_stage(name, chosen.again, deadline)
    left = (deadline - time.monotonic()) / 60.0 - 0.3
    if (not chosen.only or "cells" in chosen.only) and left > 0.2:
        run_cells(left, chosen.data, chosen.precision, chosen.jobs)
    return None


if __name__ == "__main__":
    main()
