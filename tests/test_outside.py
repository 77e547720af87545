"""What another package adds from one file and its entry points, in a process of its own, as users have it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

OUTSIDE = Path(__file__).with_name("outside")

EVERYTHING = """
import json, sys
import numpy as np
from longtail import methods, recipes
from longtail.training import load_run, train

method = methods.get("toy")
assert "toy" in methods.NAMES and methods.Method.from_dict(method.to_dict()) == method
found = {"slug": method.slug, "label": method.label}
found["weight"] = method.criterion([64, 27, 8]).weight.tolist()
found["acts"] = [method.at(epoch, 4).sampling is not None for epoch in (1, 2, 3, 4)]
sampler = method.sampler([0] * 6 + [1] * 3 + [2], epochs=4)
found["drawn"] = []
for epoch in range(4):
    sampler.set_epoch(epoch)
    found["drawn"].append(list(sampler).count(9))
logits = np.array([[5.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
found["decided"] = method.adjust(logits, [64, 27, 8]).argmax(1).tolist()

result = train(recipes.digits(epochs=6, warmup_epochs=1, method=method), sys.argv[1])
found["recipe"] = load_run(sys.argv[1]).recipe.method.name
found["smallest"] = int(np.argmin(result.evaluation.class_counts))
found["errors"] = result.evaluation.per_class_error
print(json.dumps(found))
"""

STRIPES = """
import sys
from longtail.compare.runs import comparisons, find_runs
from longtail.datasets import NAMES
from longtail.report.page import report_page
from longtail.training import default, train

assert "toy_stripes" in NAMES
counts = train(default("toy_stripes"), sys.argv[1]).evaluation.class_counts
page = report_page(comparisons(find_runs([sys.argv[1]])[0]))
print(list(counts), "A toy's panel" in page.replace("&#39;", "'"), "1 method compared" in page)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Another package is installed: its file, and its metadata beside it."""
    place, about = tmp_path / "site", tmp_path / "site" / "toybox-1.0.dist-info"
    about.mkdir(parents=True)
    shutil.copy(OUTSIDE / "toybox.py", place)
    shutil.copy(OUTSIDE / "entry_points.txt", about)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toybox\nVersion: 1.0\n")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(place), *filter(None, sys.path)])}


def test_a_toy_of_each_kind_from_one_file(environment: dict[str, str], tmp_path: Path, finish: Any) -> None:
    done = finish([sys.executable, "-c", EVERYTHING, str(tmp_path / "run")], env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["weight"] == pytest.approx([2 / 4, 2 / 3, 2 / 2])
    assert found["acts"] == [False, False, True, True]
    assert found["drawn"][:2] == [1, 1]  # the only sample of its class
    assert set(found["drawn"][2:]) <= {6, 7}  # 10 * 1 / (1/6 + 1/3 + 1)
    assert found["decided"] == [2, 2]
    assert found["recipe"] == "toy"
    errors = found["errors"]  # the adjustment sends every image to the smallest class
    assert errors.pop(found["smallest"]) == 0
    assert set(errors) == {1}


def test_its_adapter_is_among_ours(environment: dict[str, str], finish: Any) -> None:
    code = (
        "import sys; from longtail import adapters; print(adapters.toy().weigh([0, 0, 0, 1]).tolist())\n"
        "assert not {'sklearn', 'torch', 'transformers'} & set(sys.modules)"
    )
    done = finish([sys.executable, "-c", code], env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])
    done = finish([sys.executable, "-c", "from longtail import adapters; adapters.toy"])
    assert "module 'longtail.adapters' has no attribute 'toy'" in done.stderr


def test_its_command_and_its_method_in_the_shell(environment: dict[str, str], finish: Any) -> None:
    shell = [sys.executable, "-m", "longtail"]
    done = finish([*shell, "toy", "--name", "tail"], env=environment)
    assert (done.returncode, done.stdout) == (0, "hello tail\n")
    assert "Greet." in finish([*shell, "--help"], env=environment).stdout


def test_its_data_set_and_its_panel(environment: dict[str, str], tmp_path: Path, finish: Any) -> None:
    done = finish([sys.executable, "-c", STRIPES, str(tmp_path / "run")], env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[30, 9, 3] True True"


def test_without_it_the_names_are_unknown(finish: Any) -> None:
    code = "from longtail import methods; methods.get('toy')"
    done = finish([sys.executable, "-c", code])
    assert "method must be one of 'plain'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("broken", "raise RuntimeError('half installed')", "RuntimeError: half installed"),
        (
            "twin",
            "def register():\n    from longtail.methods import CATALOGUE, Method\n"
            "    CATALOGUE.register('toy', Method('other', loss='focal'))\n\ndef add(app):\n    1 / 0\n",
            "method 'toy' is registered already",
        ),
    ],
)
def test_a_package_that_fails_is_named_and_takes_nothing_down(
    environment: dict[str, str], tmp_path: Path, finish: Any, name: str, code: str, told: str
) -> None:
    about = tmp_path / "site" / f"{name}-1.0.dist-info"
    about.mkdir()
    (tmp_path / "site" / f"{name}.py").write_text(code)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    points = (OUTSIDE / "entry_points.txt").read_text().replace("toybox", name)
    (about / "entry_points.txt").write_text(points)
    script = "from longtail import methods; print(methods.get('effective').label, 'toy' in methods.NAMES)"
    done = finish([sys.executable, "-c", script], env=environment)
    assert done.stdout == "effective True\n", done.stderr
    assert f"entry point '{name}' of {name} under 'longtail.applications'" in done.stderr
    assert told in done.stderr
    done = finish([sys.executable, "-m", "longtail", "toy"], env=environment)
    assert (done.returncode, done.stdout) == (0, "hello world\n")
    assert f"entry point '{name}' of {name} under 'longtail.commands'" in done.stderr
