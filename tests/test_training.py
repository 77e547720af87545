import contextlib
import dataclasses
import gc
import itertools
import json
import math
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from folders import unseal
from longtail import _registry, datasets, models
from longtail._registry import Registry
from longtail.datasets import Dataset, Split
from longtail.models import SmallCNN
from longtail.training import (
    DivergedError,
    PausedError,
    RunFolderError,
    derive_seed,
    digits,
    load_run,
    loop,
    train,
)
from longtail.training.augment import crop
from longtail.training.data import TrainingData
from longtail.training.device import exact_cudnn as _exact_cudnn
from longtail.training.evaluate import evaluate_run
from longtail.training.folder import environment_of
from longtail.training.graphs import DeviceEpochs
from longtail.training.loop import _Run

CPU = torch.device("cpu")


def short(**changes):
    return digits(**{"epochs": 3, "warmup_epochs": 1, "eval_every": 1, **changes})


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Killed(Exception):
    """Raised from the progress callback to stop a run between two epochs."""


def killer(at):
    def report(epoch, epochs, loss, error):
        if epoch == at:
            raise Killed

    return report


# --- the network


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 7), (3, 32)])
def test_small_cnn_takes_any_image_of_7x7_or_more(channels, size):
    model = models.build("small_cnn", in_channels=channels, num_classes=5)
    assert isinstance(model, SmallCNN)
    assert model(torch.randn(4, channels, size, size)).shape == (4, 5)
    assert [m for m in model.modules() if isinstance(m, nn.Linear)][-1] is model.head


def test_the_fast_network_takes_33_million_multiplications_an_image():
    model = models.build("fast_cnn", in_channels=3, num_classes=10)
    with FlopCounterMode(display=False) as counter:
        logits = model(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 10)
    # each of torch's "flops" of a product is half of a multiplication and an addition
    assert counter.get_total_flops() == 2 * 2 * 32_736_512
    assert [m for m in model.modules() if isinstance(m, nn.Linear)][-1] is model.head


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 9), (4, 40)])
def test_the_fast_network_takes_any_image_of_8x8_or_more(channels, size):
    model = models.build("fast_cnn", in_channels=channels, num_classes=5)
    assert model(torch.randn(4, channels, size, size)).shape == (4, 5)


def test_an_unknown_network_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"model must be one of 'small_cnn'.*, got 'smal_cnn'; did you mean"):
        models.build("smal_cnn", in_channels=1, num_classes=10)
    with pytest.raises(ValueError, match="num_classes must be in"):
        models.build("small_cnn", in_channels=1, num_classes=0)


# --- the data


@pytest.mark.parametrize("mirror", [False, True])
def test_one_gather_crops_and_flips_as_image_by_image(mirror):
    generator = torch.Generator().manual_seed(derive_seed(0, 0, "crop"))
    images = torch.randint(0, 256, (7, 3, 6, 5), generator=generator, dtype=torch.uint8)
    rows = torch.randint(0, 7, (20,), generator=generator)
    shifts = torch.randint(0, 5, (2, 20), generator=generator)
    flips = torch.randint(0, 2, (20,), generator=generator).bool() if mirror else None
    padded = nn.functional.pad(images, (2, 2, 2, 2))

    result = crop(padded.permute(0, 2, 3, 1).contiguous(), rows, shifts, (6, 5), flips)

    assert result.is_contiguous(memory_format=torch.channels_last)
    for i in range(20):
        top, left = shifts[:, i].tolist()
        expected = padded[rows[i], :, top : top + 6, left : left + 5]
        assert torch.equal(result[i], expected.flip(2) if mirror and flips[i] else expected)


def test_an_epoch_holds_every_sample_once_and_the_rest_in_a_smaller_batch():
    recipe = short(augmentation="none", batch_size=50)
    data = TrainingData(recipe, None, CPU)
    batches = list(data.batches(1))
    assert {len(t) for _, t in batches[:-1]} == {50}
    assert len(batches[-1][1]) == len(data) % 50 > 0
    inputs = torch.cat([x for x, _ in batches])
    targets = torch.cat([t for _, t in batches])
    tail, _ = datasets.load("digits").long_tailed(50)
    expected = torch.from_numpy(tail.train.inputs).float() / 8 - 1

    def rows(images, labels):
        return sorted(
            (*image.flatten().tolist(), int(label)) for image, label in zip(images, labels, strict=True)
        )

    assert rows(inputs, targets) == rows(expected, tail.train.targets)
    again = torch.cat([t for _, t in data.batches(1)])
    other = torch.cat([t for _, t in data.batches(2)])
    assert torch.equal(targets, again)
    assert not torch.equal(targets, other)


def test_batches_do_not_depend_on_how_many_images_are_gathered_at_once(monkeypatch):
    data = TrainingData(short(augmentation="crop_flip"), None, CPU)
    whole = list(data.batches(1))
    monkeypatch.setattr("longtail.training.data._CHUNK", 1)
    for (x, t), (y, u) in zip(whole, data.batches(1), strict=True):
        assert torch.equal(x, y)
        assert torch.equal(t, u)


@pytest.mark.parametrize("kind", ["images", "skeletons"])
def test_float_inputs_are_taken_as_they_are(kind):
    inputs = np.random.default_rng(0).normal(size=(6, 1, 8, 8))
    inputs.setflags(write=False)  # as memory maps are, of which torch would warn
    split = Split(inputs, np.arange(6) % 2)
    data = TrainingData(
        short(dataset="mine", imbalance_factor=None, augmentation="none"),
        Dataset("mine", split, split, ("a", "b"), kind),
        CPU,
    )
    assert torch.equal(torch.cat(list(data.test_batches())), torch.tensor(inputs).float())
    assert data.subset_sha256 is None


def test_every_corner_and_both_mirrors_of_a_crop_are_drawn():
    data = TrainingData(short(dataset="digits", augmentation="crop_flip", imbalance_factor=None), None, CPU)
    drawn = [data.draw(epoch) for epoch in (1, 2, 3)]
    shifts = torch.cat([shift for _, shift, _ in drawn])
    flips = torch.cat([flip for _, _, flip in drawn])
    found = {(*shift, flip) for shift, flip in zip(shifts.tolist(), flips.tolist(), strict=True)}
    assert found == set(itertools.product(range(9), range(9), (False, True)))
    assert abs(flips.double().mean() - 0.5) < 0.03  # four standard deviations


# --- the loop


def test_seeds_are_the_same_on_every_machine():
    assert derive_seed(0, 1, "order") == 7059649363489870664
    assert len({derive_seed(s, e, p) for s in range(5) for e in range(5) for p in ("order", "weights")}) == 50


def test_equal_recipes_end_with_equal_bits_and_leave_the_callers_generators_alone():
    torch.manual_seed(3)
    np_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    one, two, other = train(short()), train(short()), train(short(seed=1))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == np_state).all()  # noqa: NPY002
    assert same(one.model, two.model)
    assert one.history == two.history
    assert one.evaluation == two.evaluation
    assert not same(one.model, other.model)


def test_threads_do_not_disturb_each_other(monkeypatch):
    monkeypatch.setitem(models.NETWORKS._entries, "dropout_net", models.Network(dropout_net))
    recipes = [short(seed=seed, model=model) for seed in (0, 1) for model in ("small_cnn", "dropout_net")]
    alone = [train(recipe) for recipe in recipes]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(train, recipes))
    for one, two in zip(alone, together, strict=True):
        assert same(one.model, two.model)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_loop_is_a_plain_loop(optimizer):
    recipe = short(loss="sigmoid", optimizer=optimizer, learning_rate=0.01)
    run = _Run(recipe, None, TrainingData(recipe, None, CPU), CPU)
    plain = _Run(recipe, None, TrainingData(recipe, None, CPU), CPU)
    model = plain.model
    groups = [
        {"params": [p for name, p in model.named_parameters() if name != "head.bias"], "weight_decay": 5e-4},
        {"params": [model.head.bias], "weight_decay": 0.0},
    ]
    if optimizer == "adam":
        updater = torch.optim.Adam(groups, foreach=False)
    else:
        updater = torch.optim.SGD(groups, momentum=0.9, foreach=False)
    rates = [0.01 * step / run.steps for step in range(run.steps)]
    rates += [0.005 * (1 + math.cos(math.pi * step / (2 * run.steps))) for step in range(2 * run.steps)]
    losses = []
    for step, (x, y) in enumerate(batch for epoch in (1, 2, 3) for batch in plain.data.batches(epoch)):
        for group in updater.param_groups:
            group["lr"] = rates[step]
        updater.zero_grad()
        loss = plain.criterion(model(x), y)
        loss.backward()
        updater.step()
        losses.append(loss.item() * len(y))
    result = run.finish([], None)
    for name, expected in model.state_dict().items():
        torch.testing.assert_close(result.model.state_dict()[name], expected, rtol=1e-3, atol=1e-5)
    last_epoch = sum(losses[-run.steps :]) / len(plain.data)
    assert result.history[-1].loss == pytest.approx(last_epoch, rel=1e-4)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid", "focal", "softmax_focal"])
def test_the_prior_bias_is_set_and_undecayed_for_sigmoid_and_focal_alone(loss):
    recipe = short(loss=loss)
    run = _Run(recipe, None, TrainingData(recipe, None, CPU), CPU)
    bias = run.model.head.bias
    undecayed = [p for g in run.optimizer.param_groups if g["weight_decay"] == 0 for p in g["params"]]
    if loss in ("sigmoid", "focal"):
        torch.testing.assert_close(bias, torch.full((10,), -math.log(9)))
        assert [id(p) for p in undecayed] == [id(bias)]
    else:
        assert bias.std() > 0
        assert undecayed == []


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_loss_that_is_not_finite_stops_before_the_update(optimizer):
    recipe = short(learning_rate=1e30, warmup_epochs=0, optimizer=optimizer)
    run = _Run(recipe, None, TrainingData(recipe, None, CPU), CPU)
    message = r"not finite at step 2 of \d+ in epoch 1 of 3; .*lower learning_rate \(now 1e\+30\)"
    with pytest.raises(DivergedError, match=message) as caught:
        run.finish([], None)
    assert (caught.value.epoch, caught.value.step) == (1, 2)
    assert all(bool(torch.isfinite(p).all()) for p in run.model.parameters())


def test_a_gradient_that_is_not_finite_stops_too():
    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * math.inf

    recipe = short()
    run = _Run(recipe, None, TrainingData(recipe, None, CPU), CPU)
    criterion, before = run.criterion, [p.detach().clone() for p in run.model.parameters()]
    run.criterion = lambda logits, targets: criterion(Steep.apply(logits), targets)
    with pytest.raises(DivergedError, match="step 1 of"):
        run.finish([], None)
    assert all(torch.equal(p, q) for p, q in zip(run.model.parameters(), before, strict=True))


def test_bf16_learns_too():
    result = train(short(precision="bf16", epochs=10, imbalance_factor=2.0))
    assert result.history[-1].loss < result.history[0].loss
    assert result.evaluation.error < 0.6


def test_the_digits_recipe_learns_the_digits():
    result = train(digits(imbalance_factor=1, epochs=20))
    assert result.evaluation.error < 0.06
    assert result.history[-1].test_error == result.evaluation.error
    assert [m.test_error is not None for m in result.history] == [(e % 10) == 0 for e in range(1, 21)]


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        ({"dataset": "digit"}, {}, "got 'digit'; did you mean 'digits'"),
        ({"model": "resnet0"}, {}, "model must be one of"),
        ({}, {"device": "tpu9"}, "device must be 'auto', 'cpu', 'cuda'"),
        ({}, {"device": "mps"}, "device must be 'auto', 'cpu', 'cuda'"),
        ({}, {"device": "cuda:99"}, "device 'cuda:99' is not there"),
        ({}, {"threads": 0}, r"threads must be in \[1, inf\], got 0; leave it out"),
        ({}, {"checkpoint_every": 0}, r"checkpoint_every must be in \[1, inf\], got 0; it counts epochs"),
        ({}, {"tensorboard": True}, "give run_dir"),
        (
            {"dataset": "mine"},
            {"dataset": datasets.load("digits")},
            "dataset is 'digits', but recipe.dataset is 'mine'",
        ),
    ],
)
def test_bad_arguments_are_named(recipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        train(short(**recipe), **arguments)


def test_augmentation_needs_images():
    split = Split(np.zeros((4, 3)), np.array([0, 1, 0, 1]))
    data = Dataset("flat", split, split, ("a", "b"))
    with pytest.raises(ValueError, match=r"augmentation='shift' needs images, got vectors of shape \(4, 3\)"):
        train(short(dataset="flat", imbalance_factor=None), dataset=data)


def test_the_number_of_threads_is_put_back():
    before = torch.get_num_threads()
    train(short(epochs=2), threads=before + 1)
    assert torch.get_num_threads() == before


# --- the run folder


def test_a_run_folder_holds_everything_and_is_read_back(tmp_path):
    recipe = short()
    result = train(recipe, tmp_path / "a" / "run", tensorboard=True, checkpoint_every=1)
    folder = result.run_dir
    names = {p.name for p in folder.iterdir() if not p.name.startswith((".", "events"))}
    assert names == {
        "recipe.json",
        "environment.json",
        "metrics.jsonl",
        "evaluation.json",
        "model.safetensors",
        "manifest.json",
        "predictions.npz",
        "checkpoints",
    }
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert lines[0].keys() == {"epoch", "loss", "learning_rate", "test_error"}
    about = json.loads((folder / "environment.json").read_text())
    assert about["torch"] == torch.__version__
    _, kept = datasets.load("digits").long_tailed(50, seed=0)
    assert about["subset_sha256"] == datasets.subset_sha256(kept)
    assert about["seconds"] > 0
    assert about["class_names"] == list("0123456789")
    assert about["inputs"] == {"kind": "images", "shape": [1, 8, 8], "dtype": "uint8"}

    back = load_run(folder)
    assert (back.recipe, back.history, back.evaluation) == (recipe, result.history, result.evaluation)
    assert same(back.model, result.model)
    assert not back.model.training
    assert same(train(recipe).model, result.model)  # a folder changes nothing


def test_a_run_on_data_of_your_own_is_evaluated_on_them_alone(tmp_path):
    draw = np.random.default_rng(0)
    train_part, test = (
        Split(draw.integers(0, 255, (n, 1, 8, 8), np.uint8), np.arange(n) % 2) for n in (40, 10)
    )
    mine = Dataset("mine", train_part, test, ("a", "b"), "images")
    run = train(short(dataset="mine", imbalance_factor=None), tmp_path, dataset=mine)
    assert evaluate_run(tmp_path, mine) == run.evaluation
    with pytest.raises(
        ValueError, match=r"'mine', which is none of longtail's own .* give the folder of its im"
    ):
        evaluate_run(tmp_path)
    with pytest.raises(ValueError, match=r"\(test_sha256 differ\); give those"):
        evaluate_run(tmp_path, dataclasses.replace(mine, test=train_part))
    fewer = Split(train_part.inputs[1:], train_part.targets[1:])
    with pytest.raises(ValueError, match=r"\(class_counts, train_sha256 differ\); give those"):
        evaluate_run(tmp_path, dataclasses.replace(mine, train=fewer))
    unseal(tmp_path, without=("test_sha256", "train_sha256", "class_names", "class_counts"))
    assert evaluate_run(tmp_path, mine) == run.evaluation  # an earlier version's run knows less
    with pytest.raises(ValueError, match=r"\(class_counts differ\); give those"):
        evaluate_run(tmp_path, dataclasses.replace(mine, train=fewer))


def test_a_run_paused_or_finished_on_other_data_is_refused(tmp_path):
    draw = np.random.default_rng(0)
    train_part, test = (
        Split(draw.integers(0, 255, (n, 1, 8, 8), np.uint8), np.arange(n) % 2) for n in (40, 10)
    )
    mine = Dataset("mine", train_part, test, ("a", "b"), "images")
    changed = Split(train_part.inputs.copy(), train_part.targets)
    changed.inputs[7, 0, 0, 0] ^= 1
    others = {
        "train_sha256": dataclasses.replace(mine, train=changed),
        "test_sha256": dataclasses.replace(mine, test=Split(test.inputs[::-1], test.targets)),
        "class_names": dataclasses.replace(mine, class_names=("a", "c")),
        "class_counts, train_sha256": dataclasses.replace(
            mine, train=Split(train_part.inputs[1:], train_part.targets[1:])
        ),
    }

    def refused():
        before = (tmp_path / "environment.json").read_bytes()
        for what, other in others.items():
            message = rf"other data \({what} differ\); choose another folder \(--out\), or delete this one"
            with pytest.raises(ValueError, match=message):
                train(recipe, tmp_path, dataset=other)
        assert (tmp_path / "environment.json").read_bytes() == before

    recipe = short(dataset="mine", imbalance_factor=None)
    with pytest.raises(Killed):
        train(recipe, tmp_path, dataset=mine, checkpoint_every=1, progress=killer(2))
    refused()
    run = train(recipe, tmp_path, dataset=mine)
    refused()
    assert train(recipe, tmp_path, dataset=mine).evaluation == run.evaluation
    # an earlier version's run knows less
    unseal(tmp_path, without=("train_sha256", "class_counts"))
    assert train(recipe, tmp_path, dataset=others["train_sha256"]).evaluation == run.evaluation


def test_a_finished_run_is_returned_without_training(tmp_path):
    first = train(short(), tmp_path)
    again = train(short(), tmp_path, progress=killer(1))
    assert again.history == first.history
    assert again.evaluation == first.evaluation


@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "adam", "learning_rate": 1e-3}, {"model": "dropout_net"}]
)
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, monkeypatch, changes):
    monkeypatch.setitem(models.NETWORKS._entries, "dropout_net", models.Network(dropout_net))
    recipe = short(epochs=5, **changes)
    whole = train(recipe, tmp_path / "whole")
    for at in (1, 4):
        with pytest.raises(Killed):
            train(recipe, tmp_path / "parts", checkpoint_every=2, progress=killer(at))
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 5, "lo')  # a line cut short
    parts = train(recipe, tmp_path / "parts", checkpoint_every=2)
    assert same(whole.model, parts.model)
    for name in ("metrics.jsonl", "evaluation.json", "model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_a_damaged_checkpoint_costs_epochs_but_changes_nothing(tmp_path):
    recipe = short(epochs=4)
    with pytest.raises(Killed):
        train(recipe, tmp_path, checkpoint_every=1, progress=killer(3))
    newest = tmp_path / "checkpoints" / "checkpoint-000003.safetensors"
    newest.write_bytes(newest.read_bytes()[:-9])
    with pytest.warns(UserWarning, match=r"checkpoint-000003\.safetensors cannot be used"):
        resumed = train(recipe, tmp_path)
    assert same(resumed.model, train(recipe).model)


def test_another_recipes_folder_is_refused_with_both_names_and_the_difference(tmp_path):
    train(short(), tmp_path)
    other = short(beta=0.9)
    message = (
        f"holds recipe {short().short_hash}, this run is recipe {other.short_hash} \\(they differ in beta\\)"
    )
    with pytest.raises(ValueError, match=message):
        train(other, tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(
        ValueError, match=r"has no recipe\.json, but holds 'thesis.tex'; choose a new or empty"
    ):
        train(short(), tmp_path)
    (tmp_path / "recipe.json").write_text('{"eggs": 3}')
    with pytest.raises(ValueError, match="is not a recipe that this version reads"):
        train(short(), tmp_path)


def test_a_mistake_in_the_recipe_does_not_claim_the_folder(tmp_path):
    with pytest.raises(ValueError, match="model must be one of"):
        train(short(model="tiny"), tmp_path / "run")
    train(short(epochs=2), tmp_path / "run")


def test_a_file_in_place_of_the_run_folder_is_a_clear_error(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(
        RunFolderError, match=r"as a run folder.*choose a folder that can be made and written"
    ):
        train(short(), tmp_path / "run")


def test_reading_back_says_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="holds no finished run"):
        load_run(tmp_path)
    train(short(epochs=2), tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"is damaged .*delete the folder and train again"):
        load_run(tmp_path)


def test_the_progress_bar_shows_loss_and_error(capsys):
    train(short(), progress=True)
    shown = capsys.readouterr().err
    assert "loss" in shown
    assert "error" in shown


# One process imports everything and forks a child per attempt, so that many kills cost little. A child is
# killed by its own clock, which counts what it computes: other work on the machine moves no kill.
KILLS = """
import os, random, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from longtail.training import digits, train
recipe, folder = digits(epochs=30, warmup_epochs=1, eval_every=3), Path(sys.argv[1])
train(recipe.replace(epochs=2))

def soon(*_):
    if moment is not None and signal.getitimer(signal.ITIMER_PROF)[0] == 0:
        signal.setitimer(signal.ITIMER_PROF, moment)

def child():
    pid = os.fork()
    if pid == 0:
        train(recipe, folder, checkpoint_every=1, progress=soon)
        os._exit(0)
    return pid

moments, kills = random.Random(20), 0
while True:
    moment = moments.uniform(0.001, 0.03) if kills < 7 else None
    status = os.waitpid(child(), 0)[1]
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
    assert os.WTERMSIG(status) == signal.SIGPROF
    kills += 1
print(kills)
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_run_killed_at_random_moments_ends_with_the_same_bits(tmp_path, finish):
    done = finish([sys.executable, "-c", KILLS, tmp_path / "killed"])
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    train(digits(epochs=30, warmup_epochs=1, eval_every=3), tmp_path / "whole", threads=1)
    killed, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("killed", "whole"))
    assert killed.keys() == whole.keys()
    for name, tensor in whole.items():
        assert tensor.numpy().tobytes() == killed[name].numpy().tobytes()
    assert (tmp_path / "killed" / "metrics.jsonl").read_bytes() == (
        tmp_path / "whole" / "metrics.jsonl"
    ).read_bytes()


@pytest.fixture
def driven(monkeypatch):
    """A function that makes runs drive their epochs as on a GPU, and a list of references to their data."""
    initialise, data = _Run.__init__, []

    def driving(self, *arguments):
        initialise(self, *arguments)
        self.epochs = DeviceEpochs(self._step, self.data, self.steps, capture=False)
        data.append(weakref.ref(self.data))

    return lambda: monkeypatch.setattr(_Run, "__init__", driving), data


@pytest.mark.parametrize("augmentation", ["none", "shift", "crop_flip"])
def test_epochs_driven_by_device_tensors_train_as_the_plain_loop(augmentation, driven):
    recipe = short(augmentation=augmentation, loss="focal")
    plain = train(recipe)
    driven[0]()
    result = train(recipe)
    # learning rates are float32 on a device and Python's float64 on the host, nothing else differs
    for ours, theirs in zip(result.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert [m.loss for m in result.history] == pytest.approx([m.loss for m in plain.history], 1e-5)


def test_a_finished_run_leaves_no_memory_to_the_garbage_collector(driven):
    drive, data = driven
    recipe = short(epochs=1, warmup_epochs=0)
    train(recipe)  # torch imports some of itself in a process's first step, and keeps the frames of that
    drive()
    gc.disable()
    try:
        result = train(recipe)
        assert [reference() for reference in data] == [None]
    finally:
        gc.enable()
    assert result.history


def test_cudnn_is_exact_while_any_thread_trains():
    cudnn = torch.backends.cudnn
    new = hasattr(cudnn, "conv")

    def settings():
        return cudnn.deterministic, cudnn.benchmark, cudnn.conv.fp32_precision if new else cudnn.allow_tf32

    before, exact = settings(), (True, False, "ieee" if new else False)
    with contextlib.ExitStack() as other:
        with _exact_cudnn():
            other.enter_context(_exact_cudnn())
            assert settings() == exact
        assert settings() == exact
    assert settings() == before != exact


def test_graphs_are_refused_with_the_reason_where_they_cannot_be():
    with pytest.raises(ValueError, match=r"acceleration='graphs' needs CUDA, .* but the device is cpu"):
        train(short(), device="cpu", acceleration="graphs")
    with pytest.raises(ValueError, match=r"acceleration must be one of 'auto', .*, got 'fast'"):
        train(short(), acceleration="fast")


class Doubling:
    """A toy accelerator: it doubles the logits of the networks that it takes."""

    def applies(self, recipe, model, device):
        return None if isinstance(model, SmallCNN) else f"needs a SmallCNN, but the model is {recipe.model!r}"

    @contextlib.contextmanager
    def running(self, model):
        handle = model.register_forward_hook(lambda _module, _input, output: 2 * output)
        yield
        handle.remove()


@pytest.fixture
def accelerators(monkeypatch):
    """The registry of accelerators, with nothing in it."""
    empty = Registry("acceleration")
    monkeypatch.setattr(loop, "ACCELERATORS", empty)
    monkeypatch.setattr(_registry, "load_applications", lambda: None)
    return empty


def test_an_accelerator_from_elsewhere_trains_and_evaluates(accelerators, tmp_path):
    plain = train(short(), tmp_path / "plain")
    assert environment_of(tmp_path / "plain")["acceleration"] == "none"
    accelerators.register("native", Doubling())
    ours = train(short(), tmp_path / "ours")
    assert environment_of(tmp_path / "ours")["acceleration"] == "native"
    assert not same(plain.model, ours.model)
    assert same(train(short(), acceleration="native").model, ours.model)
    assert same(train(short(), acceleration="none").model, plain.model)
    assert not ours.model._forward_hooks
    assert evaluate_run(tmp_path / "ours") == ours.evaluation
    assert evaluate_run(tmp_path / "plain") == plain.evaluation
    accelerators.unregister("native")
    alone = evaluate_run(tmp_path / "ours")  # by torch: the logits are half of what they were
    assert alone.error == ours.evaluation.error
    assert alone != ours.evaluation


def test_an_accelerator_that_is_missing_or_unfit_is_refused_with_the_remedy(accelerators):
    recipe = short(model="strided_cnn", epochs=1, warmup_epochs=0)
    message = r"acceleration='native' needs kernels .* not installed; run `make native` .*; use 'auto'$"
    with pytest.raises(ValueError, match=message):
        train(recipe, acceleration="native")
    plain = train(recipe)
    accelerators.register("native", Doubling())
    message = r"acceleration='native' needs a SmallCNN, but the model is 'strided_cnn'; use 'auto'$"
    with pytest.raises(ValueError, match=message):
        train(recipe, acceleration="native")
    assert same(train(recipe).model, plain.model)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("model", ["small_cnn", "resnet20"])
def test_replayed_graphs_compute_what_eager_steps_compute(model):
    recipe = short(model=model, augmentation="crop_flip", loss="focal")
    eager = train(recipe, device="cuda", acceleration="none")
    captured = train(recipe, device="cuda", acceleration="graphs")
    assert same(eager.model, captured.model)
    assert eager.history == captured.history
    cpu = train(recipe, device="cpu", acceleration="none")
    start, end = cpu.history[0].loss, captured.history[0].loss
    assert end == pytest.approx(start, rel=0.02)


@pytest.mark.cuda
@needs_cuda
def test_both_batch_sizes_of_an_epoch_are_captured():
    recipe = short(epochs=8)
    device = torch.device("cuda")
    with torch.cuda.stream(torch.cuda.Stream(device)):
        run = _Run(recipe, None, TrainingData(recipe, None, device), device, "graphs")
        run.finish([], None)
    assert len(run.data) % recipe.batch_size
    assert run.epochs.captured == 2


@pytest.mark.cuda
@needs_cuda
def test_a_step_on_the_device_never_waits_for_it():
    recipe = short(epochs=8)
    device = torch.device("cuda")
    with torch.cuda.stream(torch.cuda.Stream(device)):
        run = _Run(recipe, None, TrainingData(recipe, None, device), device, "none")
        run._train_epoch(1)  # libraries set themselves up
        for place in (run.epochs._first, run.epochs._step):
            place.zero_()
        run.epochs._play_step(recipe.batch_size)
        torch.cuda.set_sync_debug_mode("error")
        try:
            run.epochs._play_step(recipe.batch_size)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
@needs_cuda
def test_threads_that_share_a_gpu_train_as_one_alone():
    recipes = [short(seed=seed, epochs=6) for seed in range(4)]
    alone = [train(recipe, device="cuda") for recipe in recipes]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda recipe: train(recipe, device="cuda"), recipes))
    for one, other in zip(alone, together, strict=True):
        assert same(one.model, other.model)


@pytest.mark.cuda
@needs_cuda
def test_cuda_resumes_with_the_same_bits_and_guards_like_the_cpu(tmp_path):
    whole = train(short(epochs=4), device="cuda")
    with pytest.raises(Killed):
        train(short(epochs=4), tmp_path, device="cuda", checkpoint_every=1, progress=killer(2))
    resumed = train(short(epochs=4), tmp_path, device="cuda")
    assert same(resumed.model, whole.model)
    assert evaluate_run(tmp_path, device="cuda") == resumed.evaluation
    with pytest.raises(DivergedError, match="step 2 of"):
        train(short(learning_rate=1e30, warmup_epochs=0), device="cuda")


def dropout_net(in_channels, num_classes):
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(64 * in_channels, 16), nn.ReLU())
    net.head = nn.Linear(16, num_classes)
    return net


def test_a_deadline_keeps_a_checkpoint_and_the_next_call_goes_on(tmp_path):
    whole = train(short(), tmp_path / "whole")
    epochs = []
    with pytest.raises(PausedError, match=r"time was up after epoch 1 of \d+; the same command goes on"):
        train(short(), tmp_path / "run", deadline=0.0, progress=lambda epoch, *_: epochs.append(epoch))
    train(short(), tmp_path / "run", progress=lambda epoch, *_: epochs.append(epoch))
    assert epochs == list(range(1, short().epochs + 1))
    for name in ("metrics.jsonl", "evaluation.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert whole.evaluation == load_run(tmp_path / "run").evaluation


def test_a_deadline_needs_a_folder():
    with pytest.raises(ValueError, match=r"deadline needs a place for the checkpoint; give run_dir"):
        train(short(), deadline=1.0)
