"""The applications in the package: the library works without them, and with them their names are there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import longtail
from longtail import datasets, models, recipes, training

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
import sys
from longtail.cli import main
sys.argv = ["longtail", *{arguments!r}]
main()
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ABSENT + script], capture_output=True, text=True, check=False
    )


def test_the_library_works_without_the_applications() -> None:
    done = run("import longtail.models\n" + LIBRARY)
    assert done.returncode == 0, done.stderr
    networks = "small_cnn, strided_cnn, resnet20, resnet32, resnet44, resnet56, resnet110"
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


@pytest.mark.parametrize("arguments", [["compare", "digits", "--help"], ["--help"], ["data", "--help"]])
def test_the_commands_work_without_the_applications(arguments: list[str]) -> None:
    done = run(COMMANDS.format(arguments=arguments))
    assert done.returncode == 0, done.stderr
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
