"""The loss in Keras 3, torch backend: the numbers of the torch losses, and what Keras asks of a loss."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
import torch

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "torch":
    pytest.skip("KERAS_BACKEND is another one", allow_module_level=True)

import longtail  # noqa: E402
from longtail.adapters.keras import ClassBalancedLoss  # noqa: E402
from test_house import complaints  # noqa: E402

# Keras's own: its variables do not know NumPy 2's copy=
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

COUNTS = [900, 90, 30, 5]
LOSSES = ("softmax", "sigmoid", "focal", "softmax_focal")


def of_torch(logits, labels, counts=COUNTS, **options):
    return longtail.ClassBalancedLoss(counts, **options)(logits, torch.as_tensor(labels))


def both(logits, labels, counts=COUNTS, **options):
    """Our loss by Keras and by torch, each with its gradient."""
    found = []
    for loss in (ClassBalancedLoss(counts, **options), None):
        z = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
        value = of_torch(z, labels, counts, **options) if loss is None else loss(labels, z)
        value.backward()
        found.append((value.detach(), z.grad))
    return found


def network(outputs=4, inputs=3, **options):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.layers.Input((inputs,)), keras.layers.Dense(outputs, **options)])


# ---- the numbers


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_are_those_of_the_torch_losses(name, smoothing, rng):
    logits, index = 3 * rng.normal(size=(64, 4)), rng.integers(0, 4, 64)
    hot = np.eye(4, dtype=np.float32)[index]
    labels = [index, hot, rng.dirichlet(np.ones(4), 64).astype(np.float32)]
    if name in ("sigmoid", "focal"):
        labels.append((rng.random((64, 4)) < 0.3).astype(np.float32))
    for y in labels:
        ours, wanted = both(logits, y, loss=name, gamma=0.5, label_smoothing=smoothing)
        torch.testing.assert_close(ours[0], wanted[0], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(ours[1], wanted[1], rtol=2e-6, atol=1e-7)
    column = ClassBalancedLoss(COUNTS, loss=name)(index[:, None], logits.astype(np.float32))
    assert float(column) == float(ClassBalancedLoss(COUNTS, loss=name)(index, logits.astype(np.float32)))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_output_is_binary(name, smoothing, rng):
    logits, y = 3 * rng.normal(size=(64, 1)), rng.integers(0, 2, 64)
    options = {"counts": [900, 100], "loss": name, "gamma": 0.5, "label_smoothing": smoothing}
    for labels in (y, y[:, None], y.astype(bool), rng.random(64).astype(np.float32)):
        ours, wanted = both(logits, labels, **options)
        torch.testing.assert_close(ours[0], wanted[0], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(ours[1], wanted[1], rtol=2e-6, atol=1e-7)
    if name == "softmax" and not smoothing:  # the same as two outputs
        pair = np.concatenate([np.zeros((64, 1)), logits], 1).astype(np.float32)
        assert float(ours[0] * 0 + ClassBalancedLoss([900, 100])(y, pair)) == pytest.approx(
            float(ClassBalancedLoss([900, 100])(y, logits.astype(np.float32))), rel=1e-6
        )


@pytest.mark.parametrize("name", LOSSES)
def test_large_logits_have_finite_values_and_gradients(name):
    z = torch.tensor([[-1e4, 0, 1e4, 3], [1e4, -1e4, 0, 0], [-20, 0, 0, 0]], requires_grad=True)
    for labels in ([0, 1, 0], np.eye(4, dtype=np.float32)[[0, 1, 0]]):
        loss = ClassBalancedLoss(COUNTS, loss=name, gamma=0.5, reduction="none")(labels, z)
        (gradient,) = torch.autograd.grad(loss.sum(), z)
        assert torch.isfinite(loss).all()
        assert torch.isfinite(gradient).all()
        assert (gradient[:, 0].abs()[[0, 2]] > 1e-3).all()  # of the class that was missed
    z = torch.tensor([[-20.0]], requires_grad=True)
    keras.losses.BinaryFocalCrossentropy(from_logits=True)(np.ones((1, 1)), z).backward()
    assert abs(z.grad.item()) < 1e-6  # the reason for this class: Keras clips, where it is -1 here


@pytest.mark.parametrize("policy", ["bfloat16", "floatx"])
def test_class_indices_beyond_256_under_bfloat16(policy, rng):
    counts, y = np.arange(400, 0, -1), np.array([257, 259, 301, 399])
    before = keras.config.dtype_policy()
    try:
        if policy == "floatx":
            keras.config.set_floatx("bfloat16")
        else:
            keras.config.set_dtype_policy("bfloat16")
        model = network(400)
        model.compile("sgd", ClassBalancedLoss(counts, reduction="sum"))
        x = rng.normal(size=(4, 3)).astype(np.float32)
        logits = torch.as_tensor(model(x)).detach()
        logits = logits.bfloat16()
        found = model.evaluate(x, y, verbose=0)
        assert found == pytest.approx(float(of_torch(logits, y, counts, reduction="sum")), rel=1e-2)
        assert float(model.loss(y, logits)) == pytest.approx(
            float(of_torch(logits, y, counts, reduction="sum")), rel=1e-6
        )
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy(before)


# ---- in a model


def test_the_mean_is_over_what_is_not_ignored_and_not_masked(rng):
    logits = rng.normal(size=(3, 5, 4)).astype(np.float32)
    y = rng.integers(0, 4, (3, 5))
    y[0, :2] = 255
    own = rng.random((3, 5)).astype(np.float32)
    loss = ClassBalancedLoss(COUNTS, ignore_class=255)
    each = of_torch(torch.from_numpy(logits).movedim(-1, 1), y, ignore_index=255, reduction="none").numpy()
    assert float(loss(y, logits)) == pytest.approx(each.sum() / 13, rel=1e-6)
    assert float(loss(y, logits, own)) == pytest.approx((each * own).sum() / 13, rel=1e-6)
    rows = np.array([1.0, 0.0, 2.0], np.float32)  # one a sequence, though 3 is no length of it
    assert float(loss(y, logits, rows)) == pytest.approx((each * rows[:, None]).sum() / 13, rel=1e-6)
    square = loss(y[:, :3], logits[:, :3], rows)
    assert float(square) == pytest.approx((each[:, :3] * rows[:, None]).sum() / 7, rel=1e-6)
    masked = torch.from_numpy(logits)
    masked._keras_mask = torch.ones(3, 5, dtype=torch.bool)
    masked._keras_mask[:2, 0] = False
    each[:2, 0] = 0
    assert float(loss(y, masked)) == pytest.approx(each.sum() / 12, rel=1e-6)
    binary = ClassBalancedLoss([3, 1], ignore_class=-1)
    z, t = logits[0, :, :1], np.array([1, 0, -1, 1, -1])
    kept = of_torch(torch.from_numpy(z[t >= 0]), t[t >= 0], [3, 1])
    assert float(binary(t, z)) == pytest.approx(float(kept), rel=1e-6)


def test_fit_weighs_classes_and_samples_in_models_of_several_outputs(rng):
    x = keras.layers.Input((3,))
    outputs = {"kind": keras.layers.Dense(4, name="kind")(x), "sick": keras.layers.Dense(1, name="sick")(x)}
    model = keras.Model(x, outputs)
    losses = {"kind": ClassBalancedLoss(COUNTS), "sick": ClassBalancedLoss([90, 10], loss="focal")}
    model.compile(keras.optimizers.SGD(0.0), loss=losses, loss_weights={"kind": 1.0, "sick": 0.5})
    inputs = rng.normal(size=(8, 3)).astype(np.float32)
    y = {"kind": rng.integers(0, 4, 8), "sick": rng.integers(0, 2, 8)}
    own = {"kind": rng.random(8).astype(np.float32), "sick": np.ones(8, np.float32)}
    found = model.fit(inputs, y, sample_weight=own, batch_size=8, verbose=0).history
    logits = {name: torch.as_tensor(z).detach() for name, z in model(inputs).items()}
    kind = of_torch(logits["kind"], y["kind"], reduction="none") * torch.from_numpy(own["kind"])
    sick = of_torch(logits["sick"], y["sick"], [90, 10], loss="focal")
    assert found["kind_loss"] == pytest.approx([float(kind.mean())], rel=1e-5)
    assert found["sick_loss"] == pytest.approx([float(sick)], rel=1e-5)
    assert found["loss"] == pytest.approx([float(kind.mean() + 0.5 * sick)], rel=1e-5)


LOAD = """
import sys, numpy as np, keras
import longtail.adapters.keras
model = keras.saving.load_model(sys.argv[1])
data = np.load(sys.argv[2])
print(repr(model.evaluate(data["x"], data["y"], verbose=0)), model.loss.get_config())
"""


def test_a_saved_model_is_loaded_in_a_fresh_process(tmp_path, rng, finish):
    model = network()
    counts = longtail.ClassCounts("abcd", COUNTS)
    loss = ClassBalancedLoss(
        counts, loss="focal", gamma=0.5, beta={"a": 0.9, "b": 0.99, "c": 0.9, "d": 0}, label_smoothing=0.1
    )
    model.compile("sgd", loss)
    x, y = rng.normal(size=(8, 3)).astype(np.float32), rng.integers(0, 4, 8)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    model.save(tmp_path / "model.keras")
    command = [sys.executable, "-c", LOAD, str(tmp_path / "model.keras"), str(tmp_path / "data.npz")]
    path = os.pathsep.join(filter(None, sys.path))
    done = finish(command, env=os.environ | {"KERAS_BACKEND": "torch", "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{model.evaluate(x, y, verbose=0)!r} {loss.get_config()}\n"
    default = ClassBalancedLoss(torch.tensor(COUNTS))
    again = ClassBalancedLoss.from_config(default.get_config())
    assert "beta" not in default.get_config()
    assert again.weight.tolist() == default.weight.tolist() == longtail.class_weights(COUNTS).tolist()


JAX = """
import sys, numpy as np, keras
from longtail.adapters.keras import ClassBalancedLoss
import jax
assert keras.backend.backend() == "jax"
data = np.load(sys.argv[1])
for labels in (data["index"], data["hot"]):
    for name in ("softmax", "sigmoid", "focal", "softmax_focal"):
        loss = ClassBalancedLoss([900, 90, 30, 5], loss=name, gamma=0.5)
        print(float(loss(labels, data["logits"])))
        assert np.isfinite(jax.grad(lambda z: loss(labels, z))(1e3 * data["logits"])).all()
"""


def test_jax_gives_the_same_numbers(tmp_path, rng, finish):
    pytest.importorskip("jax")
    index = rng.integers(0, 4, 64)
    hot, logits = np.eye(4, dtype=np.float32)[index], 3 * rng.normal(size=(64, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", index=index, hot=hot, logits=logits)
    path = os.pathsep.join(filter(None, sys.path))
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    done = finish([sys.executable, "-c", JAX, str(tmp_path / "data.npz")], env=environment)
    assert done.returncode == 0, done.stderr
    options = [{"loss": name, "gamma": 0.5} for name in LOSSES]
    wanted = [float(of_torch(torch.from_numpy(logits), y, **o)) for y in (index, hot) for o in options]
    assert [float(line) for line in done.stdout.split()] == pytest.approx(wanted, rel=1e-6)


def test_probabilities_are_refused_unless_named(rng):
    x, y = rng.normal(size=(8, 3)).astype(np.float32), rng.integers(0, 4, 8)
    for activation, options in (("softmax", {}), ("sigmoid", {"loss": "focal"})):
        model = network(activation=activation)
        model.compile("sgd", ClassBalancedLoss(COUNTS, **options))
        with pytest.raises(ValueError, match=r"comes out of an activation.*or pass from_logits=False"):
            model.fit(x, y, verbose=0)
        plain = network()
        plain.set_weights(model.get_weights())
        wanted = of_torch(torch.as_tensor(plain(x)).detach(), y, **options)
        found = ClassBalancedLoss(COUNTS, from_logits=False, **options)(y, model(x).detach())
        assert float(found) == pytest.approx(float(wanted), rel=1e-5)
    one = ClassBalancedLoss([9, 1], from_logits=False)(y[:, None] > 1, np.full((8, 1), 0.25, np.float32))
    wanted = of_torch(torch.full((8, 1), float(np.log(1 / 3))), (y > 1).astype(float), [9, 1])
    assert float(one) == pytest.approx(float(wanted), rel=1e-6)


@pytest.mark.parametrize(
    ("labels", "shape", "options", "message"),
    [
        ([0, 4], (2, 4), {}, r"whole numbers in 0\.\.3, got 4 \(1 such\); count the model's outputs"),
        ([0, 255], (2, 4), {}, "or name void labels by ignore_class="),
        ([0, -1], (2, 4), {"ignore_class": 255}, r"in 0\.\.3 or ignore_class=255, got -1"),
        ([0.0, 0.5], (2, 4), {}, r"whole numbers in 0\.\.3, got 0\.5"),
        ([1, 2], (2, 1), {"class_counts": [9, 1]}, r"in \[0, 1\], got 2"),
        ([0, 1], (2, 3), {}, r"must have 4 outputs, one a class of class_counts, got shape \(2, 3\)"),
        ([0, 1], (2, 3), {"class_counts": [9, 1]}, "must have 2 outputs.*, or one, got"),
        ([0, 1, 2], (2, 4), {}, r"y_true must have shape \(2,\) \(class indices\) or \(2, 4\)"),
        (np.zeros((2, 3)), (2, 4), {}, r"got \(2, 3\)"),
        (np.eye(4)[:2], (2, 4), {"ignore_class": 1}, "ignore_class=1 is for class indices"),
    ],
)
def test_bad_calls_are_refused(labels, shape, options, message):
    loss = ClassBalancedLoss(**{"class_counts": COUNTS, **options})
    with pytest.raises(ValueError, match=message):
        loss(np.asarray(labels), np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "softmx"}, "did you mean 'softmax'"),
        ({"gamma": -1}, "gamma must be in"),
        ({"beta": 2}, r"beta must be in \[0, 1\]"),
        ({"beta": 0.9, "volume": 10}, "both given"),
        ({"class_counts": [5, -1]}, "class_counts must be finite and >= 0"),
        ({"label_smoothing": 1}, r"label_smoothing must be in \[0, 1\)"),
        ({"scheme": "powr"}, "did you mean 'power'"),
        ({"max_weight": 0}, r"max_weight must be in \(0, inf\]"),
        ({"weight": [1, 2, 3, 4], "scheme": "inverse"}, "weight is given beside scheme"),
        ({"weight": [1, 2]}, r"weight must be one number for each of class_counts, got shape \(2,\)"),
        ({"weight": [1, -2, 3, 4]}, "weight must be finite, >= 0, and above 0 for one class, got -2 to 4"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ClassBalancedLoss(**{"class_counts": COUNTS, **options})


def test_counts_or_weights_are_wanted():
    with pytest.raises(TypeError, match=r"class_counts is missing; give .* or weight="):
        ClassBalancedLoss()


def test_it_is_documented_and_typed():
    assert complaints(ClassBalancedLoss) == []
    assert longtail.adapters.keras.ClassBalancedLoss is ClassBalancedLoss


def test_a_missing_backend_is_told(finish):
    script = "import sys; sys.modules['tensorflow'] = None; import longtail.adapters.keras"
    done = finish([sys.executable, "-c", script], env=os.environ | {"KERAS_BACKEND": "tensorflow"})
    assert (
        "tensorflow, which is not installed; set the environment variable KERAS_BACKEND to torch"
        in done.stderr
    )


def test_one_class_and_weights_are_refused():
    """A softmax over one output is always 1: a loss of 0, and no gradient."""
    for given in ({}, {"loss": "sigmoid"}, {"loss": "softmax", "scheme": "none"}):
        with pytest.raises(ValueError, match=r"class_counts has one class, .* give both classes' counts"):
            ClassBalancedLoss([100], **given)
    assert (
        float(ClassBalancedLoss([100], loss="sigmoid", scheme="none")(np.ones((2, 1)), np.zeros((2, 1))))
        > 0.6
    )
    with pytest.raises(TypeError, match="got ClassWeights, which are weights already"):
        ClassBalancedLoss(longtail.class_weights(longtail.class_counts([0, 1]), "none"))
