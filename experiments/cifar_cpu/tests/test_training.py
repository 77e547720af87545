"""Training by the kernels, as `longtail.training.train` takes them."""

import subprocess
import sys

import pytest
import torch

from longtail.training import PausedError, digits, train
from longtail.training.evaluate import evaluate_run
from longtail.training.folder import environment_of
from longtail_cifar_cpu import build as building


def short(**changes):
    return digits(**{"epochs": 3, "warmup_epochs": 1, "eval_every": 1, **changes})


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def unbuilt(monkeypatch, tmp_path):
    """A machine on which nobody has run `make native`."""
    monkeypatch.setattr(building, "library", building.library.__wrapped__)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_native_kernels_change_nothing_but_rounding(tmp_path):
    # a small rate: at the recipe's 0.1, a rounding error grows hundredfold in an epoch, whoever made it
    recipe = short(model="resnet20", augmentation="crop_flip", learning_rate=1e-3)
    plain = train(recipe, acceleration="none")
    native = train(recipe, tmp_path, acceleration="native")
    assert environment_of(tmp_path)["acceleration"] == "native"
    assert not same(plain.model, native.model)
    assert [m.loss for m in native.history] == pytest.approx([m.loss for m in plain.history], rel=2e-3)
    assert native.evaluation.error == pytest.approx(plain.evaluation.error, abs=0.01)
    assert same(train(recipe).model, native.model)
    assert evaluate_run(tmp_path) == native.evaluation


def test_a_native_run_goes_on_to_the_same_bits(tmp_path):
    recipe = short(model="resnet20")
    whole = train(recipe)
    with pytest.raises(PausedError):
        train(recipe, tmp_path, deadline=0.0)
    assert same(train(recipe, tmp_path).model, whole.model)


def test_a_native_run_is_evaluated_without_the_kernels_too(tmp_path, request):
    run = train(short(model="resnet20", epochs=1, warmup_epochs=0), tmp_path, acceleration="native")
    request.getfixturevalue("unbuilt")
    assert evaluate_run(tmp_path).error == pytest.approx(run.evaluation.error, abs=0.01)


def test_native_kernels_are_refused_with_the_reason_where_they_cannot_be(monkeypatch):
    needs = r"acceleration='native' needs a CPU, fp32 and a CIFAR ResNet, but "
    with pytest.raises(ValueError, match=needs + "the model is 'small_cnn'; use 'auto'"):
        train(short(), acceleration="native")
    with pytest.raises(ValueError, match=needs + "the precision is 'bf16'"):
        train(short(model="resnet20", precision="bf16"), acceleration="native")
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ValueError, match=needs + "the system is darwin, not Linux"):
        train(short(model="resnet20"), acceleration="native")


def test_kernels_that_are_not_built_are_asked_for_or_done_without(unbuilt):
    recipe = short(model="resnet20", epochs=1, warmup_epochs=0)
    with pytest.raises(ValueError, match=r"needs its kernels, but they are not built .* run `make native`"):
        train(recipe, acceleration="native")
    assert same(train(recipe).model, train(recipe, acceleration="none").model)


def test_registering_is_light():
    script = """
import sys
from longtail.training.acceleration import ACCELERATORS
assert "native" in ACCELERATORS.names
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
