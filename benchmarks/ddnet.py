"""Speed of the skeleton path: preparing clips, their features, training, answering one clip on one core.

    python benchmarks/ddnet.py                 # everything, some minutes
    python benchmarks/ddnet.py preprocessing   # some of: preprocessing, features, training, latency

Clips are those of jhmdb21.npz in the folder that LONGTAIL_DATA names, or random ones where it is absent; the
result says which. Each part writes results/benchmarks/ddnet-PART.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from core import RESULTS, interleave, provenance, row
from scipy.signal import medfilt

from longtail import recipes
from longtail.datasets import Dataset, Split
from longtail.datasets.fetch import data_root
from longtail.models import joint_collection_distances, two_scale_motion
from longtail.predict import Classifier, StreamClassifier
from longtail.skeletons.clips import prepare
from longtail.skeletons.files import read_compact
from longtail.skeletons.single_clip import SingleClip
from longtail.training import Recipe, load_run, train

Rows = list[dict[str, Any]]


def clips() -> tuple[np.ndarray, np.ndarray, str]:
    """Poses of all clips one after the other, the clips' lengths, and where they are from."""
    path = data_root(None)[0] / "jhmdb21.npz"
    if path.is_file():
        found = read_compact(path)
        return found.poses, found.lengths, f"{path.name}, {len(found)} clips"
    draw = np.random.default_rng(0)
    lengths = draw.integers(15, 41, 804)
    return draw.normal(size=(lengths.sum(), 15, 2)).astype(np.float32), lengths, "804 random clips"


def bench_preprocessing() -> Rows:
    """The whole data set at once against a loop over clips, joints and coordinates, DD-Net's authors' way.

    The loop interpolates with numpy.interp, which is quicker than the authors' spline.
    """
    poses, lengths, source = clips()
    ends = np.cumsum(lengths)

    def loop() -> np.ndarray:
        out = np.empty((len(lengths), 32, *poses.shape[1:]), np.float32)
        for n, (start, end) in enumerate(zip(ends - lengths, ends, strict=True)):
            clip, times = poses[start:end], np.arange(end - start)
            for joint in range(poses.shape[1]):
                for axis in range(poses.shape[2]):
                    line = clip[:, joint, axis]
                    line = medfilt(np.concatenate([line[:1], line, line[-1:]]), 3)[1:-1]
                    out[n, :, joint, axis] = np.interp(np.linspace(0, times[-1], 32), times, line)
            out[n] -= out[n].mean((0, 1))
        return out

    np.testing.assert_allclose(prepare(poses, lengths), loop(), atol=1e-5)
    times = interleave(lambda: prepare(poses, lengths), loop, 7)
    figures = row(f"prepare, {source}", "loop over joints, scipy medfilt", *times, 1 / 20)
    return [figures | {"speed_up": 1 / figures["ratio"]}]


def bench_features() -> Rows:
    """From the poses of all clips to distances and motions, on one core."""
    torch.set_num_threads(1)
    poses, lengths, source = clips()
    stages: dict[str, Callable[[], object]] = {
        "prepare": lambda: prepare(poses, lengths),
        "distances and motions": lambda: (joint_collection_distances(ready), two_scale_motion(ready)),
    }
    ready = torch.from_numpy(prepare(poses, lengths))
    rows = []
    for case, figures in milliseconds(stages, turns=3, slice_calls=5).items():
        rows.append({"case": f"{case}, {source}"} | figures)
    return rows


def bench_training() -> Rows:
    """One run of each class set's recipe at 64 filters on two threads: wall and CPU seconds."""
    draw = np.random.default_rng(0)
    poses = draw.normal(size=(809 * 40, 15, 2)).astype(np.float32)  # time does not depend on what clips show
    inputs = prepare(poses, [40] * 809)
    rows = []
    for classes, clips_trained, clips_tested in ((14, 433, 176), (21, 536, 268)):
        name, both = f"jhmdb{classes}-1", clips_trained + clips_tested
        targets = np.arange(both) % classes
        data = Dataset(
            name,
            Split(inputs[:clips_trained], targets[:clips_trained]),
            Split(inputs[clips_trained:both], targets[clips_trained:]),
            tuple(map(str, range(classes))),
            kind="skeletons",
        )
        recipe = recipes.ddnet(name, 64)
        wall, cpu = time.perf_counter(), time.process_time()
        train(recipe, dataset=data, threads=2)
        figures = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        case = f"ddnet64, {clips_trained} clips of {classes} classes, {recipe.epochs} epochs"
        print(f"{case}, 2 threads: {figures}", flush=True)
        rows.append({"case": case, "threads": 2, "limit": 120} | figures)
    return rows


def bench_latency() -> Rows:
    """Batch 1, one thread: the network as trained and as it predicts; from a clip or frame to the answer."""
    rows = []
    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    frames = draw.normal(size=(64, 15, 2)).astype(np.float32)
    split = Split(prepare(np.tile(frames[:40], (64, 1, 1)), [40] * 64), np.arange(64) % 21)
    data = Dataset("clips", split, split, tuple(map(str, range(21))), kind="skeletons")
    for filters in (16, 32, 64):
        with tempfile.TemporaryDirectory() as folder:
            model = f"ddnet{filters}"
            train(
                Recipe(dataset="clips", model=model, scheme="none", epochs=1), folder, dataset=data, threads=1
            )
            network, stream = load_run(folder).model, StreamClassifier(folder, window=40)
            classify = Classifier(folder)
        quick, clip = SingleClip(network), torch.from_numpy(split.inputs[:1])
        for frame in frames[:40]:
            stream.push(frame)
        calls: dict[str, Callable[[], object]] = {
            "network as trained": lambda network=network, clip=clip: network(clip),
            "network as it predicts": lambda quick=quick: quick(split.inputs[0]),
            "clip in, answer out": lambda classify=classify: classify(frames[:40]),
            "frame in, answer out": lambda stream=stream: stream.push(frames[0]),
        }
        with torch.inference_mode():
            print(f"{filters} filters")
            rows += [
                {"filters": filters, "case": case} | found for case, found in milliseconds(calls).items()
            ]
    return rows


def milliseconds(
    calls: dict[str, Callable[[], object]], turns: int = 60, slice_calls: int = 20
) -> dict[str, dict[str, Any]]:
    """Time single calls, in slices of each in turns, so that whatever else the machine does slows all."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            call()  # brings the caches back
            for _ in range(slice_calls):
                start = time.perf_counter()
                call()
                times[name].append(1e3 * (time.perf_counter() - start))
    found = {}
    for name, values in times.items():
        deciles = statistics.quantiles(values, n=10)
        low, middle, high = deciles[0], deciles[4], deciles[8]
        found[name] = {"milliseconds": middle, "deciles": deciles}
        print(f"{name:22} {middle:.3f} ms, a tenth of the calls below {low:.3f} and above {high:.3f}")
    return found


PARTS: dict[str, Callable[[], Rows]] = {
    "preprocessing": bench_preprocessing,
    "features": bench_features,
    "training": bench_training,
    "latency": bench_latency,
}


def main(names: list[str]) -> None:
    """Run the named parts, or all."""
    if unknown := set(names) - set(PARTS):
        raise SystemExit(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in names or PARTS:
        result = {"name": f"ddnet-{name}"} | provenance() | {"rows": PARTS[name]()}
        Path(RESULTS / f"ddnet-{name}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
