"""The prototype experiment: see README.md beside this file, which was there first.

python experiments/prototypes/run.py --features gtsrb-features.npz --signs FOLDER/gtsrb --clips jhmdb14.npz
python experiments/prototypes/run.py --show
"""

import argparse
import csv
import itertools
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import nn

import longtail
from longtail import adjust_logits, class_weights
from longtail.evaluation import PairedDifference, evaluate, paired_difference
from longtail.models.small_cnn import StridedCNN

HERE = Path(__file__).parent
ROWS = HERE / "rows.csv"
COLUMNS = (
    *("condition", "network", "method", "split", "swapped", "balanced_error"),
    *("classes", "train_samples", "test_samples", "seconds", "longtail", "torch", "numpy", "commit"),
)
METHODS = ("plain", "1/n", "1/tracks", "true effective", "adjusted by n", "adjusted by tracks")
SPLITS, TEST_TRACKS, TRACKS = 5, 6, 18
CLIPS_HEAD, CLIPS_TAIL, REPEATS = 20, 4, 5
# tracks and frames of a track, of head and tail
CONDITIONS = {"A": ((12, 5), (2, 30)), "B": ((6, 30), (6, 2)), "C": ((12, 30), (2, 5))}


@dataclass(frozen=True)
class Draw:
    """One run's rows.

    Attributes:
        train: rows that train.
        test: rows that test.
        tracks: prototypes of each class.
    """

    train: np.ndarray
    test: np.ndarray
    tracks: np.ndarray


@dataclass(frozen=True)
class Data:
    """Samples of the classes of one experiment.

    Attributes:
        inputs: one a sample.
        y: classes from 0.
        groups: prototypes, numbered over all classes.
    """

    inputs: np.ndarray
    y: np.ndarray
    groups: np.ndarray


def draw_signs(data: Data, condition: str, split: int, swapped: bool) -> Draw:
    """Choose tracks and frames; the split alone decides which tracks test."""
    random = np.random.default_rng([split, 1])
    classes = int(data.y.max()) + 1
    head = np.zeros(classes, dtype=bool)
    head[random.permutation(classes)[: classes // 2]] = True
    train, test, tracks = [], [], np.zeros(classes, dtype=np.int64)
    for label in range(classes):
        own = random.permutation(np.unique(data.groups[data.y == label]))
        test.append(np.flatnonzero(np.isin(data.groups, own[:TEST_TRACKS])))
        count, frames = CONDITIONS[condition][0 if head[label] != swapped else 1]
        tracks[label] = count
        for track in own[TEST_TRACKS : TEST_TRACKS + count]:
            rows = np.flatnonzero(data.groups == track)
            # spread over the track, so that few frames are not all from far away
            train.append(rows[np.linspace(0, len(rows) - 1, min(frames, len(rows))).round().astype(int)])
    return Draw(np.concatenate(train), np.concatenate(test), tracks)


def draw_clips(data: Data, tested: np.ndarray, split: int, swapped: bool) -> Draw:
    """Choose clips of the training part, some of them several times."""
    random = np.random.default_rng([split, 2])
    classes = int(data.y.max()) + 1
    head = np.zeros(classes, dtype=bool)
    head[random.permutation(classes)[: classes // 2]] = True
    train, tracks = [], np.zeros(classes, dtype=np.int64)
    for label in range(classes):
        own = random.permutation(np.flatnonzero((data.y == label) & ~tested))
        is_head = head[label] != swapped
        tracks[label] = CLIPS_HEAD if is_head else CLIPS_TAIL
        train.append(own[:CLIPS_HEAD] if is_head else np.repeat(own[:CLIPS_TAIL], REPEATS))
    return Draw(np.concatenate(train), np.flatnonzero(tested), tracks)


def weights_of(method: str, n: np.ndarray, tracks: np.ndarray) -> np.ndarray:
    """Return a weight a class; the count-weighted mean is 1, so that regularisation stays what it is."""
    if method == "1/n":
        return class_weights(n, "inverse", normalize="samples")
    if method == "1/tracks":
        raw = 1.0 / tracks
        return raw * n.sum() / (raw * n).sum()
    if method == "true effective":
        return class_weights(n, "effective", volume=tracks.astype(float), normalize="samples")
    return np.ones(len(n))


def linear(data: Data, draw: Draw, weight: np.ndarray) -> np.ndarray:
    """Return the test logits of a linear head."""
    x, y = data.inputs[draw.train].astype(np.float64), data.y[draw.train]
    mean, scale = x.mean(0), x.std(0) + 1e-6
    model = LogisticRegression(C=1.0, max_iter=2000).fit((x - mean) / scale, y, sample_weight=weight[y])
    return model.decision_function((data.inputs[draw.test] - mean) / scale)


def network(data: Data, draw: Draw, weight: np.ndarray, seed: int) -> np.ndarray:
    """Return the test logits of a small network from scratch."""
    inputs = torch.from_numpy(data.inputs).permute(0, 3, 1, 2).float() / 128 - 1
    x, y = inputs[draw.train], torch.from_numpy(data.y[draw.train])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = StridedCNN(3, len(weight))
    criterion = nn.CrossEntropyLoss(torch.from_numpy(weight).float(), reduction="none")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    epochs, batch = 40, 64
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(y) // batch))
    order = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(y), generator=order).split(batch):
            optimizer.zero_grad()
            criterion(model(x[rows]), y[rows]).mean().backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.inference_mode():
        return model(inputs[draw.test]).double().numpy()


def measured(data: Data, draw: Draw, kind: str, seed: int) -> Iterator[tuple[str, float, float]]:
    """Yield (method, balanced error, seconds); a method that is another one by construction is left out."""
    n = np.bincount(data.y[draw.train], minlength=len(draw.tracks))
    truth, done = data.y[draw.test], []
    for method in METHODS[:4]:
        weight = weights_of(method, n, draw.tracks)
        if any(np.allclose(weight, other, rtol=1e-9) for other in done):
            continue
        done.append(weight)
        start = time.perf_counter()
        logits = linear(data, draw, weight) if kind == "linear" else network(data, draw, weight, seed)
        seconds = time.perf_counter() - start
        yield method, evaluate(logits, truth, n).balanced_error, seconds
        if method == "plain":
            for name, counts in (("adjusted by n", n), ("adjusted by tracks", draw.tracks)):
                if len(set(counts.tolist())) > 1:
                    adjusted = adjust_logits(logits, counts)
                    yield name, evaluate(adjusted, truth, n).balanced_error, 0.0


def many_tracks(y: np.ndarray, tracks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows of classes with enough tracks, their classes from 0, and their tracks numbered."""
    kept = [c for c in np.unique(y) if len(np.unique(tracks[y == c])) >= TRACKS]
    rows = np.flatnonzero(np.isin(y, kept))
    names = np.array([f"{c}/{t}" for c, t in zip(y[rows], tracks[rows], strict=True)])
    return rows, np.searchsorted(kept, y[rows]), np.unique(names, return_inverse=True)[1]


def features_of(path: Path) -> Data:
    """Read features of the training signs."""
    with np.load(path) as file:
        x, y, groups = file["X"], file["y"], file["groups"]
    rows, labels, tracks = many_tracks(y, groups)
    return Data(x[rows].astype(np.float32), labels, tracks)


def pixels_of(folder: Path) -> Data:
    """Read the training signs themselves."""
    files = sorted((folder / "train").glob("*/*.jpg"))
    y = np.array([int(f.parent.name) for f in files])
    rows, labels, tracks = many_tracks(y, np.array([f.stem.split("_")[0] for f in files]))
    return Data(np.stack([np.asarray(Image.open(files[i]).convert("RGB")) for i in rows]), labels, tracks)


def clips_of(path: Path) -> tuple[Data, np.ndarray]:
    """Read clips as distances between joints at 8 moments, over the clip's mean distance."""
    with np.load(path) as file:
        poses, lengths, labels, tested = (file[k] for k in ("poses", "lengths", "labels", "is_test"))
    pairs = np.triu_indices(poses.shape[1], 1)
    inputs = []
    for clip in np.split(poses, np.cumsum(lengths)[:-1]):
        chosen = clip[np.linspace(0, len(clip) - 1, 8).round().astype(int)]
        distance = np.linalg.norm(chosen[:, pairs[0]] - chosen[:, pairs[1]], axis=-1)
        inputs.append((distance / distance.mean()).ravel())
    return Data(np.array(inputs, dtype=np.float32), labels, np.arange(len(labels))), tested[:, 0]


def rows_there() -> list[dict[str, str]]:
    """Return what was run before."""
    return list(csv.DictReader(ROWS.open())) if ROWS.exists() else []


def run(arguments: argparse.Namespace) -> None:
    """Run what is missing, a row each."""
    torch.set_num_threads(1)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False
    ).stdout.strip()
    versions = {"longtail": longtail.__version__, "torch": torch.__version__, "numpy": np.__version__}
    signs = {"linear": features_of(arguments.features), "cnn": pixels_of(arguments.signs)}
    clips, tested = clips_of(arguments.clips)
    done = {(r["condition"], r["network"], r["split"], r["swapped"]) for r in rows_there()}
    cells = [*itertools.product("ABC", ("linear",)), ("D", "linear"), *itertools.product("ABC", ("cnn",))]
    for (condition, kind), split, swapped in itertools.product(cells, range(SPLITS), (False, True)):
        if (condition, kind, str(split), str(int(swapped))) in done:
            continue
        data = clips if condition == "D" else signs[kind]
        draw = (
            draw_clips(data, tested, split, swapped)
            if condition == "D"
            else draw_signs(data, condition, split, swapped)
        )
        about = {"condition": condition, "network": kind, "split": split, "swapped": int(swapped)}
        about |= {"classes": len(draw.tracks), "train_samples": len(draw.train), "commit": commit, **versions}
        about |= {"test_samples": len(draw.test)}
        found = [
            {**about, "method": method, "balanced_error": f"{error:.6f}", "seconds": f"{seconds:.2f}"}
            for method, error, seconds in measured(data, draw, kind, 1000 * split + int(swapped))
        ]
        new = not ROWS.exists()
        with ROWS.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerows(found)
        print(
            condition,
            kind,
            split,
            int(swapped),
            {r["method"]: r["balanced_error"] for r in found},
            flush=True,
        )


def differences() -> dict[tuple[str, str, str], tuple[float, PairedDifference | None]]:
    """Return mean error in %, and the paired difference to plain, by condition, network and method."""
    errors: dict[tuple[str, str, str], dict[tuple[str, str], float]] = {}
    for row in rows_there():
        key = row["condition"], row["network"], row["method"]
        errors.setdefault(key, {})[row["split"], row["swapped"]] = float(row["balanced_error"])
    found = {}
    for (condition, kind, method), values in errors.items():
        plain = errors[condition, kind, "plain"]
        runs = sorted(values)
        # half as many tracks test as train at most; the runs of D share their test clips
        against = None
        if method != "plain":
            ours, theirs = [values[r] for r in runs], [plain[r] for r in runs]
            against = paired_difference(ours, theirs, test_to_train=TEST_TRACKS / 12)
        found[condition, kind, method] = float(np.mean(list(values.values()))), against
    return found


def show() -> None:
    """Print the table as Markdown."""
    found = differences()
    print("| condition | network | plain, error % |", " | ".join(METHODS[1:]), "|")
    print("|---" * (len(METHODS) + 2) + "|")
    for condition, kind in dict.fromkeys((c, k) for c, k, _ in found):
        cells = [f"{100 * found[condition, kind, 'plain'][0]:.1f}"]
        for method in METHODS[1:]:
            _, d = found.get((condition, kind, method), (0.0, None))
            if d is None:
                cells.append("same")
                continue
            ends = "" if d.low is None else f" [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
            cells.append(f"{100 * d.mean:+.1f}{ends}")
        print(f"| {condition} | {kind} |", " | ".join(cells), "|")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--features", type=Path, help="from examples/efficientnet_features.py gtsrb")
    parser.add_argument("--signs", type=Path, help="folder of GTSRB with train/CLASS/TRACK_FRAME.jpg")
    parser.add_argument("--clips", type=Path, help="from `longtail data skeletons`")
    parser.add_argument("--show", action="store_true", help="print what was measured")
    chosen = parser.parse_args()
    if not chosen.show:
        missing = [f"--{name}" for name in ("features", "signs", "clips") if getattr(chosen, name) is None]
        if missing:
            parser.error(f"{', '.join(missing)} missing")
        run(chosen)
    show()
