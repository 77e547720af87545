"""The applications in the package: the library works without them, and with them their names are there."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import longtail
from longtail import datasets, models, recipes, training
from longtail.datasets.kinds import KINDS, Kind
from longtail.extend import Registry
from longtail.predict import Arrays, Classifier
from longtail.training.augment import Samples
from longtail.training.registries import AUGMENTATIONS, DEFAULTS, Augmentation

ABSENT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("longtail.paper", "longtail.skeletons")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
LIBRARY = """
import longtail
from longtail.training import Recipe, train

assert longtail.datasets.NAMES == ("digits", "cifar10", "cifar20", "cifar100", "gtsrb")
assert longtail.datasets.load("digits").num_classes == 10
recipe = longtail.recipes.default("digits")
assert recipe == longtail.recipes.digits()
train(recipe.with_epochs(1), device="cpu")
names = ((longtail.recipes, "paper_cifar"), (longtail.training, "ddnet"), (longtail.models, "DDNet"))
for module, name in names:
    try:
        getattr(module, name)
    except AttributeError as error:
        print(error)
for call in (
    lambda: recipe.replace(augmentation="skeleton"),
    lambda: longtail.models.build("ddnet16", joints=5, in_channels=2, num_classes=3),
    lambda: longtail.models.build("resnet20", joints=5, in_channels=2, num_classes=3),
    lambda: longtail.recipes.default("cifar10"),
):
    try:
        call()
    except ValueError as error:
        print(error)
"""
COMMANDS = """
from longtail.cli import app
for arguments in (["--help"], ["compare", "digits", "--help"], ["data", "--help"]):
    app(arguments, standalone_mode=False)
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ABSENT + script], capture_output=True, text=True, check=False
    )


def test_the_library_works_without_the_applications() -> None:
    done = run("import longtail.models\n" + LIBRARY)
    assert done.returncode == 0, done.stderr
    networks = "small_cnn, strided_cnn, fast_cnn, linear, mlp, "
    networks += "resnet20, resnet32, resnet44, resnet56, resnet110"
    expected = [
        "module 'longtail.training.recipes' has no attribute 'paper_cifar'",
        "module 'longtail.training' has no attribute 'ddnet'",
        "module 'longtail.models' has no attribute 'DDNet'",
        "recipe field 'augmentation': must be 'none', 'shift' or 'crop_flip', got 'skeleton'; the default is "
        "'none'",
        "model must be one of " + ", ".join(map(repr, networks.split(", "))) + ", got 'ddnet16'",
        "model 'resnet20' is not for inputs of joints, in_channels; no network that is installed is",
        "dataset must be one of 'digits', 'gtsrb', got 'cifar10'",
    ]
    assert done.stdout.splitlines() == expected


def test_the_commands_work_without_the_applications() -> None:
    done = run(COMMANDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage") == 3
    assert "reproduce" not in done.stdout


def test_the_names_of_the_applications_are_where_they_were() -> None:
    assert recipes.paper_cifar is training.paper_cifar
    assert recipes.paper_large("ilsvrc2012").dataset == "ilsvrc2012"
    assert recipes.ddnet is training.ddnet
    assert recipes.default("jhmdb21-2") == recipes.ddnet("jhmdb21-2")
    assert {"jhmdb14-1", "shrec28", "cifar10"} <= set(datasets.NAMES)
    assert datasets.jhmdb.__name__ == "jhmdb"
    assert datasets.shrec.__name__ == "shrec"
    assert isinstance(models.build("ddnet16", joints=5, in_channels=2, num_classes=3), models.DDNet)
    text = recipes.ddnet().to_json()
    assert longtail.recipes.Recipe.from_json(text) == recipes.ddnet()


def test_the_applications_register_without_what_only_training_needs() -> None:
    script = """
import sys
import longtail
assert "jhmdb14-1" in longtail.datasets.NAMES
print(sorted({"torch", "pydantic", "sklearn", "scipy", "rich", "typer", "matplotlib"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


# ---- another package brings data of a kind of its own


class Shifted(Samples):
    """Curves that begin later: an augmentation of one file."""

    def draw(self, generator: torch.Generator) -> Sequence[torch.Tensor]:
        return (torch.randint(0, 3, (len(self.inputs),), generator=generator),)

    def gather(self, rows: torch.Tensor, drawn: Sequence[torch.Tensor]) -> torch.Tensor:
        places = (torch.arange(self.inputs.shape[2]) - drawn[0][:, None]).clamp(min=0)
        return self.inputs[rows].gather(2, places[:, None].expand(-1, self.inputs.shape[1], -1))


class Centred(Arrays):
    """Curves as they are measured, whatever their level."""

    def logits(self, sample: Any, where: str) -> torch.Tensor:
        return super().logits((sample - sample.mean()).astype(self.trained.dtype), where)


def network(channels: int, length: int, num_classes: int) -> torch.nn.Module:
    layers = {"flat": torch.nn.Flatten(), "head": torch.nn.Linear(channels * length, num_classes)}
    return torch.nn.Sequential(OrderedDict(layers))


def curves(root: object = None) -> datasets.Dataset:
    level = np.arange(24) % 3
    slopes = np.linspace(-1, 1, 8) * (level[:, None, None] - 1)
    split = datasets.Split(np.repeat(slopes, 2, axis=1).astype(np.float32), level)
    return datasets.Dataset("curves", split, split, ("falls", "stays", "rises"), kind="curves")


@pytest.fixture
def brought() -> Iterator[None]:
    entries: list[tuple[Registry[Any], str, Any]] = [
        (KINDS, "curves", Kind("(N, C, T)", 3, {"channels": 0, "length": 1}, Centred)),
        (datasets.DATASETS, "curves", datasets.Source(curves)),
        (models.NETWORKS, "lines", models.Network(network, "curves", ("channels", "length"))),
        (AUGMENTATIONS, "later", Augmentation(Shifted, "curves")),
        (DEFAULTS, "curves", lambda: recipes.Recipe(dataset="curves", model="lines", epochs=20)),
    ]
    for registry, name, entry in entries:
        registry.register(name, entry)
    yield
    for registry, name, _ in entries:
        registry.unregister(name)


@pytest.mark.usefixtures("brought")
def test_another_package_brings_a_kind_of_data(tmp_path: Path) -> None:
    recipe = recipes.default("curves").replace(augmentation="later", scheme="none")
    run = training.train(recipe, tmp_path / "run", device="cpu", threads=1)
    assert run.evaluation.error == 0
    assert training.evaluate_run(tmp_path / "run") == run.evaluation
    rising = np.repeat(np.linspace(4, 6, 8)[None], 2, axis=0)  # far from the level of the training data
    assert Classifier(tmp_path / "run")(rising).best == "rises"
    with pytest.raises(ValueError, match=r"augmentation='later' needs curves, got images of shape"):
        training.train(recipes.digits(augmentation="later"), device="cpu")
    with pytest.raises(ValueError, match="model 'small_cnn' is not for curves; choose one of lines"):
        training.train(recipe.replace(model="small_cnn"), device="cpu")
    with pytest.raises(ValueError, match=r"kind='curves' needs inputs of shape \(N, C, T\)"):
        datasets.Dataset("x", *[datasets.Split(np.zeros((2, 3)), np.array([0, 1]))] * 2, ("a", "b"), "curves")
