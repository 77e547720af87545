"""The measured rows of "Your own data": tables by learner, and features with a tail cut out of them.

python benchmarks/own_data.py table page-blocks.npz OUT --learner lightgbm
python benchmarks/own_data.py features cifar10-features.npz OUT --imbalance 100 --max-count 1000
python benchmarks/own_data.py features gtsrb-features.npz OUT --imbalance 0 --seeds 3

A table's file holds X, y and label_names; a file of features is one that longtail embed writes. Imbalance 0
takes its training samples as they are. SMOTE needs imbalanced-learn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from longtail import Problem, compare
from longtail.compare import TABLES
from longtail.compare.answer import answer
from longtail.report.tables import method_sheet, reading

HEADS = (
    *("plain", "inverse", "effective", "deferred_effective", "logit_adjusted", "posthoc_logit_adjusted"),
    *("crt", "class_aware", "tuned_adjustment", "smote"),
)


def main() -> None:
    """Compare, and write what results keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("table", "features"))
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--learner")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--imbalance", type=float, default=100.0)
    parser.add_argument("--max-count", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=None)
    given = parser.parse_args()
    name = given.file.stem
    if given.kind == "table":
        data = np.load(given.file)
        names = [f"x{i}" for i in range(data["X"].shape[1])]
        columns = dict(zip(names, data["X"].T, strict=True)) | {"kind": data["label_names"][data["y"]]}
        problem, methods = Problem.from_table(columns, "kind", name=name, keep=names), [*TABLES, "smote"]
    else:
        problem = Problem.from_features(given.file, name=name)
        methods = [*HEADS]
        if given.imbalance:
            problem = problem.long_tailed(given.imbalance, given.max_count)
    seeds = None if given.kind == "table" else given.seeds
    options = {"learners": given.learner, "repeats": given.repeats, "seeds": seeds}
    table = compare(problem, methods, out=given.out, jobs=given.jobs, **options)
    text = [f"# {table.title}\n", method_sheet(table).markdown(), *answer(table), reading(table), ""]
    (given.out / "compare.md").write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
