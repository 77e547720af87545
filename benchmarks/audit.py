"""The audit of 100,000 image files: time, peak memory, and whether planted duplicates are found.

    python benchmarks/audit.py                   # some minutes; needs CIFAR-10 in LONGTAIL_DATA
    python benchmarks/audit.py --images 5000     # a trial; writes nothing

The files are CIFAR-10's pictures, then the same mirrored, as PNG. Into the test part go copies of training
pictures: 1 % as they are, 1 % saved as JPEG of quality 75, 1 % at three quarters of the size. A quarter, a
half and all of them are audited in new interpreters; the peak is that of the whole interpreter (Linux). Every
exact duplicate that is reported is compared pixel by pixel. Writes results/benchmarks/audit.json and the
table of docs/benchmark-tables.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from core import RESULTS, provenance, put_in_page
from PIL import Image

from longtail import datasets

TIMED = """
import json, re, sys, time
import joblib, scipy.spatial, PIL.Image, longtail
longtail.audit
start = time.perf_counter()
found = longtail.audit(sys.argv[1])
seconds, cpu = time.perf_counter() - start, time.process_time()
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1e3
exact = [[s.name for s in d.samples] for d in found.exact_duplicates]
pairs = [[p.first.name, p.second.name] for p in found.probable_duplicates]
json.dump({"seconds": seconds, "cpu_seconds": cpu, "megabytes": peak, "exact": exact, "pairs": pairs,
           "total": found.probable_total}, sys.stdout)
"""


def write_files(root: Path, number: int) -> dict[str, set[tuple[str, str]]]:
    """Write the pictures, and say which pairs were planted in what way."""
    data = datasets.load("cifar10")
    inputs = np.concatenate([data.train.inputs, data.test.inputs])
    labels = np.concatenate([data.train.targets, data.test.targets])
    each = number // 100
    planted: dict[str, set[tuple[str, str]]] = {"as it is": set(), "JPEG": set(), "smaller": set()}
    kinds = list(planted)
    for part in ("train", "test"):
        for c in range(10):
            (root / part / str(c)).mkdir(parents=True)
    originals = number - 3 * each
    for i in range(originals):
        k, mirrored = i % len(inputs), i // len(inputs)
        pixels = inputs[k].transpose(1, 2, 0)
        image = Image.fromarray(np.ascontiguousarray(pixels[:, ::-1] if mirrored else pixels))
        name = f"train/{labels[k]}/{i:06}.png"
        image.save(root / name)
        if i >= 3 * each:
            continue
        kind = kinds[i % 3]
        copy = f"test/{labels[k]}/{i:06}.{'jpg' if kind == 'JPEG' else 'png'}"
        if kind == "as it is":
            shutil.copy(root / name, root / copy)
        elif kind == "JPEG":
            image.save(root / copy, quality=75)
        else:
            image.resize((24, 24), Image.Resampling.BILINEAR).save(root / copy)
        planted[kind].add((name, copy))
    return planted


def measure(number: int) -> dict[str, Any]:
    """Write so many pictures, audit them in a new interpreter, and compare with what was planted."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        planted = write_files(root, number)
        done = subprocess.run(
            [sys.executable, "-c", TIMED, folder], check=True, capture_output=True, text=True
        )
        found = json.loads(done.stdout)
        false = sum(
            len({np.asarray(Image.open(root / name).convert("RGB")).tobytes() for name in names}) > 1
            for names in found["exact"]
        )
    pairs = {tuple(pair) for pair in found["pairs"]}
    # a pair may name another picture with the same pixels in place of the one that was copied
    exact = {frozenset((a, b)) for names in found["exact"] for a in names for b in names if a != b}
    share = {
        kind: sum(pair in pairs or frozenset(pair) in exact for pair in of_kind) / len(of_kind)
        for kind, of_kind in planted.items()
    }
    figures = {
        "images": number,
        **{name: found[name] for name in ("seconds", "cpu_seconds", "megabytes")},
        "found": share,
        "false_exact": false,
        "pairs_to_look_at": found["total"],
    }
    print(figures, flush=True)
    return figures


def write_page(result: dict[str, Any]) -> None:
    """Put the figures into the page's table."""
    head = "images | seconds | processors' | peak, MB | copies found | JPEG | smaller | false exact | pairs"
    lines = [f"| {head} |", "|" + "---|" * 9]
    for r in result["rows"]:
        cells = [f"{r['images']:,}", *(f"{r[name]:.0f}" for name in ("seconds", "cpu_seconds", "megabytes"))]
        cells += [f"{100 * share:.1f} %" for share in r["found"].values()]
        lines.append(f"| {' | '.join([*cells, str(r['false_exact']), format(r['pairs_to_look_at'], ',')])} |")
    v = result["versions"]
    note = (
        f"{result['date'][:10]}, {result['device']}, {result['cores']} cores, load "
        f"{result['load_average_before']} before, Pillow {v['pillow']}, SciPy {v['scipy']}."
    )
    put_in_page("audit", [*lines, "", note])


def main() -> None:
    """Measure three sizes, keep the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100_000)
    number = parser.parse_args().images
    about = provenance()
    about["versions"] |= {name: version(name) for name in ("pillow", "scipy")}
    result = {"name": "audit"} | about | {"rows": [measure(number // part) for part in (4, 2, 1)]}
    if number == 100_000:
        (RESULTS / "audit.json").write_text(json.dumps(result, indent=2) + "\n")
        write_page(result)


if __name__ == "__main__":
    main()
