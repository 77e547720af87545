"""A small network from scratch on photographs of traffic signs, plain and logit-adjusted, over the Trainer.

    pip install ".[images]"
    python examples/finetune_signs.py FOLDER --out runs/signs --results results/finetune-gtsrb

FOLDER holds train/CLASS/TRACK_FRAME.jpg and test/CLASS/TRACK_FRAME.jpg (GTSRB at 32 x 32 pixels). A track is
30 frames of one sign; five of each are trained on. Tracks are the groups of the test set, so the intervals
count tracks. Killed and started again, it goes on.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import ResNetConfig

from longtail import recipes
from longtail.compare.runs import comparisons, find_runs
from longtail.datasets.images import load_images
from longtail.methods import get
from longtail.report import tables
from longtail.training.finetune import finetune

METHODS, SEEDS, FRAMES = ("plain", "logit_adjusted"), (0, 1, 2), (0, 7, 14, 21, 28)


def signs(folder):
    """Return training images, five frames of each track, and all test images with their tracks."""
    train, test = load_images(folder)
    frames = np.asarray([int(Path(train.name(i)).stem[-5:]) for i in range(len(train))])
    tracks = [f"{c}/{Path(test.name(i)).stem[:5]}" for i, c in enumerate(test.targets)]
    return train.select(np.flatnonzero(np.isin(frames, FRAMES))), replace(test, groups=np.asarray(tracks))


def main() -> None:
    """Train what is not trained yet, and print and write the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/signs"))
    parser.add_argument("--results", type=Path, help="folder for compare.csv and compare.json")
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()
    network = given.out / "network"
    ResNetConfig(
        embedding_size=16, hidden_sizes=[32, 64, 128], depths=[1, 1, 1], layer_type="basic"
    ).save_pretrained(network)
    data = signs(given.folder)
    for seed in SEEDS:
        for method in METHODS:
            recipe = recipes.images(
                "gtsrb-tracks",
                str(network),
                **{"method": get(method), "seed": seed, "size": 32, "flip": False},
                **{"learning_rate": 0.1, "epochs": given.epochs, "eval_every": given.epochs},
            ).replace(metric="balanced_error")
            run = finetune(recipe, data, given.out / method / f"seed{seed}", workers=0, device="cpu")
            print(method, seed, run.evaluation, f"{run.seconds:.0f} s", flush=True)
    (table,) = comparisons(find_runs([given.out / method for method in METHODS])[0])
    print(tables.reading(table), table.verdict, sep="\n")
    if given.results is not None:
        given.results.mkdir(parents=True, exist_ok=True)
        (given.results / "compare.csv").write_text(table.to_csv())
        text = json.dumps(table.to_dict(), indent=2)
        (given.results / "compare.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
