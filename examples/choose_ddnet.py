"""How DD-Net's recipe was chosen: three-fold cross-validation inside a training set, no test clip used.

    python examples/choose_ddnet.py                             # JHMDB, 21 classes, split 1; about 20 minutes
    python examples/choose_ddnet.py jhmdb14-2 --epochs 20

Prints the accuracy on held-out training clips, mean of the folds, for each candidate.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.model_selection import StratifiedKFold

from longtail import datasets, recipes
from longtail.datasets import Dataset, Split
from longtail.training import train

CANDIDATES = (
    {"augmentation": "none"},
    {"augmentation": "temporal"},
    {"augmentation": "temporal", "batch_size": 64},
    {"augmentation": "temporal", "label_smoothing": 0.1},
)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("dataset", nargs="?", default="jhmdb21-1")
parser.add_argument("--filters", type=int, default=32)
parser.add_argument("--epochs", type=int, default=100)
options = parser.parse_args()

data = datasets.load(options.dataset)
inputs, targets = data.train.inputs, data.train.targets
folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(inputs, targets))
for changes in CANDIDATES:
    recipe = recipes.ddnet(options.dataset, options.filters, epochs=options.epochs, eval_every=options.epochs)
    accuracies = []
    for fold, (kept, held_out) in enumerate(folds):
        part = Dataset(
            options.dataset,
            train=Split(inputs[kept], targets[kept]),
            test=Split(inputs[held_out], targets[held_out]),
            class_names=data.class_names,
            kind="skeletons",
        )
        evaluation = train(recipe.replace(seed=fold, **changes), dataset=part).evaluation
        accuracies.append(100 * (1 - evaluation.error))
    print(f"{np.mean(accuracies):.1f} %  {changes}", flush=True)
