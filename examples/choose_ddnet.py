"""How DD-Net's recipe was chosen: cross-validation inside one training set of JHMDB.

    python examples/choose_ddnet.py                  # 21 classes, split 1; minutes
    python examples/choose_ddnet.py --split 2 --filters 16

Random folds would mislead: clips cut from one film would be on both sides, and a network that knows the film
by heart would win. The official splits keep films together. So the two folds are those training clips that
are test clips in another split: a film is never on both sides, and the split's own test clips are not used.

Prints the accuracy on the held-out training clips for each candidate.
"""

from __future__ import annotations

import argparse

import numpy as np

from longtail import datasets, recipes
from longtail.datasets import Dataset, Split
from longtail.training import train

CANDIDATES = (
    {"augmentation": "none"},
    {"augmentation": "temporal"},
    {"augmentation": "skeleton"},
    {"augmentation": "skeleton", "batch_size": 64},
    {"augmentation": "skeleton", "label_smoothing": 0.1},
)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--classes", type=int, default=21, choices=(14, 21))
parser.add_argument("--split", type=int, default=1, choices=(1, 2, 3))
parser.add_argument("--filters", type=int, default=32)
options = parser.parse_args()

names = {split: f"jhmdb{options.classes}-{split}" for split in (1, 2, 3)}
data = datasets.load(names[options.split])
inputs, targets = data.train.inputs, data.train.targets
folds = []
for split in {1, 2, 3} - {options.split}:
    elsewhere = {clip.tobytes() for clip in datasets.load(names[split]).test.inputs}
    folds.append(np.array([clip.tobytes() in elsewhere for clip in inputs]))

for changes in CANDIDATES:
    recipe = recipes.ddnet(data.name, options.filters, **changes)
    right = 0.0
    for held_out in folds:
        part = Dataset(
            data.name,
            train=Split(inputs[~held_out], targets[~held_out]),
            test=Split(inputs[held_out], targets[held_out]),
            class_names=data.class_names,
            kind="skeletons",
        )
        right += held_out.sum() * (1 - train(recipe, dataset=part).evaluation.error)
    print(f"{100 * right / np.sum(folds):.1f} %  {changes}", flush=True)
