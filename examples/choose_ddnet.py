"""How DD-Net's recipe was chosen: cross-validation inside one training set of JHMDB.

    python examples/choose_ddnet.py                  # 21 classes, split 1; the better part of an hour
    python examples/choose_ddnet.py --filters 16 --seeds 1 --jobs 8

Random folds would mislead: clips cut from one film would be on both sides, and a network that knows the film
by heart would win. The official splits keep films together. So the two folds are those training clips that
are test clips in another split: a film is never on both sides, and the split's own test clips are not used.

Prints, for each candidate, the accuracy on the held-out training clips: mean and standard deviation over
seeds. With `--output FILE` every run becomes a row of a CSV file, and started again it goes on from there.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
from pathlib import Path

import joblib
import numpy as np
import torch

from longtail import datasets, recipes
from longtail.datasets import Dataset, Split
from longtail.training import Recipe, train

CANDIDATES: tuple[dict[str, object], ...] = (
    {"epochs": 60, "augmentation": "none"},
    {"epochs": 60, "augmentation": "temporal"},
    {"epochs": 60},
    {"epochs": 60, "batch_size": 64},
    {"epochs": 60, "label_smoothing": 0.1},
    {"epochs": 120},
    {"epochs": 120, "scheme": "effective", "beta": 0.9},
    {"epochs": 120, "scheme": "inverse"},
)
COLUMNS = ("recipe_hash", "changes", "seed", "accuracy_percent", "device", "torch", "numpy", "commit")


def folds(classes: int, split: int) -> list[Dataset]:
    """Cut a split's training set in two ways, each with another split's test clips held out."""
    data = datasets.load(f"jhmdb{classes}-{split}")
    inputs, targets = data.train.inputs, data.train.targets
    parts = []
    for other in {1, 2, 3} - {split}:
        elsewhere = {clip.tobytes() for clip in datasets.load(f"jhmdb{classes}-{other}").test.inputs}
        held_out = np.array([clip.tobytes() in elsewhere for clip in inputs])
        parts.append(
            Dataset(
                data.name,
                train=Split(inputs[~held_out], targets[~held_out]),
                test=Split(inputs[held_out], targets[held_out]),
                class_names=data.class_names,
                kind="skeletons",
            )
        )
    return parts


def right(recipe: Recipe, part: Dataset) -> float:
    """Return how many held-out clips the recipe gets right."""
    torch.set_num_threads(1)
    return len(part.test.targets) * (1 - train(recipe, dataset=part).evaluation.error)


def commit() -> str:
    """Return the commit that this script belongs to, if there is one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, default=21, choices=(14, 21))
    parser.add_argument("--split", type=int, default=1, choices=(1, 2, 3))
    parser.add_argument("--filters", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()

    parts = folds(options.classes, options.split)
    clips = sum(len(part.test.targets) for part in parts)
    rows: list[dict[str, object]] = []
    if options.output and options.output.exists():
        with open(options.output, newline="") as file:
            rows = [dict(row) for row in csv.DictReader(file)]
    about = dict(zip(COLUMNS[4:], ("cpu", torch.__version__, np.__version__, commit()), strict=True))
    name = f"jhmdb{options.classes}-{options.split}"
    for changes in CANDIDATES:
        recipe = recipes.ddnet(name, options.filters, eval_every=1000, **changes)
        seeded = [recipe.replace(seed=seed) for seed in range(options.seeds)]
        done = {row["recipe_hash"]: float(str(row["accuracy_percent"])) for row in rows}
        todo = [r for r in seeded if r.hash not in done]
        scores = joblib.Parallel(n_jobs=options.jobs)(
            joblib.delayed(right)(r, p) for r in todo for p in parts
        )
        for i, r in enumerate(todo):
            done[r.hash] = round(100 * sum(scores[i * len(parts) : (i + 1) * len(parts)]) / clips, 2)
            rows.append(dict(zip(COLUMNS, (r.hash, changes, r.seed, done[r.hash]), strict=False)) | about)
        percents = [done[r.hash] for r in seeded]
        spread = f" +- {statistics.stdev(percents):.1f}" if len(percents) > 1 else ""
        print(f"{statistics.fmean(percents):.1f}{spread} %  {changes}", flush=True)
        if options.output:
            with open(options.output, "w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
