"""Image files over the transformers Trainer: one loss however a batch is cut, killed runs, many processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from accelerate import debug_launcher
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed, trainer
from transformers.utils import logging

import longtail.training.finetune as finetune_module
import longtail.training.predictions as predictions_module
from folders import flip, unseal, write_photos, write_tiny
from longtail import ClassBalancedLoss, cli, evaluate, recipes
from longtail.adapters.transformers import TrainerMetrics, step_denominator, trainer_loss
from longtail.cli.train import _what_to_train
from longtail.compare.runs import comparisons, find_runs
from longtail.datasets.images import EvalTransform, ImageList, TorchDataset, load_images
from longtail.evaluation import paired_on_test
from longtail.methods import REFITS, Method, Rule, get
from longtail.models.image_classifiers import build_classifier, head_of
from longtail.predict import Classifier
from longtail.sampling import ClassAwareSampler
from longtail.training import DivergedError, RunFolderError, evaluate_run, load_run
from longtail.training.data import derive_seed
from longtail.training.evaluate import held_out
from longtail.training.finetune import ImagesChangedError, _Metrics, evaluate_images, finetune, image_outputs
from longtail.training.predictions import Predictions
from test_layouts import trainers_step
from test_layouts import whole_gradient as gradient_of_labels
from test_losses_distributed import COUNTS, OPTIONS, gradient, model, whole_gradient
from test_losses_distributed import data as batch_of_12

ARGUMENTS = {"workers": 0, "arguments": {"logging_steps": 1}}
CURVE = {"rtol": 1e-6, "atol": 1e-6}  # of losses, however the batch is cut, in float32


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("images") / "photos")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A configuration without weights, and without batch norm."""
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny")


def recipe_of(tiny, **changes):
    given = {"size": 32, "batch_size": 12, "epochs": 3, "learning_rate": 0.05, "warmup_epochs": 0, "seed": 1}
    return recipes.images("photos", tiny, **{**given, **changes})


@pytest.fixture(scope="module")
def whole(photos, tiny, tmp_path_factory):
    """A run that nothing interrupted."""
    return finetune(recipe_of(tiny), photos, tmp_path_factory.mktemp("runs") / "whole", **ARGUMENTS)


def curve(run_or_folder):
    folder = getattr(run_or_folder, "run_dir", run_or_folder)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return np.array([json.loads(line)["loss"] for line in lines])


# ---- one loss however a batch is cut, in a Trainer of your own


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = model()

    def forward(self, x):
        return {"logits": self.layer(x)}


class Rows(torch.utils.data.Dataset):
    def __init__(self, kind):
        self.input, self.target = batch_of_12(kind)

    def __len__(self):
        return 12

    def __getitem__(self, i):
        return {"x": self.input[i], "labels": self.target[i]}


def trainers_gradient(case, parts, folder):
    """What a step of SGD with rate 1 takes from the parameters: the Trainer's own gradient."""
    name, _, kind = case
    network = Wrapped()
    before = nn.utils.parameters_to_vector(network.parameters()).detach().clone()
    arguments = TrainingArguments(
        folder,
        max_steps=1,
        per_device_train_batch_size=12 // parts,
        gradient_accumulation_steps=parts,
        train_sampling_strategy="sequential",
        max_grad_norm=0.0,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        label_names=["labels"],
        dataloader_pin_memory=False,
        logging_strategy="no",
        log_level="error",
    )
    sgd = torch.optim.SGD(network.parameters(), lr=1.0)
    Trainer(
        network,
        arguments,
        train_dataset=Rows(kind),
        compute_loss_func=trainer_loss(ClassBalancedLoss(COUNTS, **OPTIONS[name])),
        optimizers=(sgd, torch.optim.lr_scheduler.ConstantLR(sgd, 1.0)),
    ).train()
    return (before - nn.utils.parameters_to_vector(network.parameters()).detach()).numpy()


@pytest.mark.parametrize("kind", ["index", "ignored", "soft"])
def test_a_trainers_three_accumulated_batches_of_4_are_one_of_12(kind, tmp_path):
    # of "soft" targets, floats of the logits' shape, the Trainer counts every entry, as of multi-hot ones
    names = tuple(OPTIONS) if kind == "index" else ("focal",)
    for name in names:
        for parts in (1, 3) if name == "focal" else (3,):
            found = trainers_gradient((name, "samples", kind), parts, tmp_path)
            expected = whole_gradient((name, "samples", kind))
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6, err_msg=f"{name} {parts}")


@pytest.mark.parametrize("backend", ["torch", "fused"])
@pytest.mark.parametrize("name", ["softmax", "sigmoid", "focal", "softmax_focal"])
def test_the_trainer_may_scale_the_loss_in_place(name, backend):
    # it multiplies by the number of processes, in place: no saved output may be needed by the backward pass
    criterion = ClassBalancedLoss(COUNTS, **OPTIONS[name], backend=backend)
    input, target = batch_of_12("index")
    layer = model()
    loss = trainer_loss(criterion)({"logits": layer(input)}, target, num_items_in_batch=torch.tensor(24))
    loss *= 2
    loss.backward()
    np.testing.assert_allclose(gradient(layer), whole_gradient((name, "samples", "index")), rtol=1e-6)


def test_data_parallel_counts_are_undone():
    # there the Trainer hands over the count once for each device, and multiplies by the number of devices
    input, target = batch_of_12("index")
    compute_loss = trainer_loss(ClassBalancedLoss(COUNTS))
    counts = torch.tensor(12).unsqueeze(0).expand(4, -1)
    parallel = 4 * compute_loss((model()(input),), target, num_items_in_batch=counts)
    torch.testing.assert_close(parallel, compute_loss(model()(input), target))


def test_trainer_loss_refuses_what_the_trainer_cannot_count():
    for options in ({"normalizer": "weights"}, {"reduction": "sum"}, {"ignore_index": 255}):
        (name,) = options
        with pytest.raises(ValueError, match=f"criterion has {name}=.* pass {name}="):
            trainer_loss(ClassBalancedLoss(COUNTS, **options))
    compute_loss = trainer_loss(ClassBalancedLoss([5, 3, 2]))
    with pytest.raises(
        ValueError, match=r"logits have shape \(2, 4\), but the loss has the counts of 3 classes"
    ):
        compute_loss({"logits": torch.zeros(2, 4)}, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="the batch has no 'labels'"):
        compute_loss({"logits": torch.zeros(2, 3)}, None)
    with pytest.raises(ValueError, match="needs the targets of the step's batches"):
        step_denominator(ClassBalancedLoss([5, 3, 2]))


def test_metrics_leave_skipped_images_out():
    metrics = TrainerMetrics([200, 50, 5])
    scores = np.eye(3)[[0, 1, 0, 2]] * 4
    found = metrics((scores, np.array([0, 1, 2, -100])))
    assert found["error"] == pytest.approx(1 / 3)
    assert (found["many_error"], found["medium_error"], found["few_error"]) == (0, 0, 1)
    assert "top5_error" not in found  # three classes have none
    assert metrics.last.num_samples == 3
    assert metrics(((scores, "hidden states"), np.array([0, 1, 0, 2])))["error"] == 0


def test_metrics_of_batches_are_those_of_the_whole():
    metrics, at_once = TrainerMetrics([200, 50, 5]), TrainerMetrics([200, 50, 5])
    scores, labels = torch.randn(30, 3, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
    labels[20:] = -100  # the last batch has nothing that could be read
    expected = at_once((scores.numpy(), labels.numpy()))
    for _ in range(2):  # the second time begins anew
        with pytest.raises(ValueError, match="rows; find where training diverged"):
            metrics((scores * torch.nan, labels), compute_result=False)
        assert metrics((scores[:10], labels[:10]), compute_result=False) == {}
        assert metrics((scores[10:20], labels[10:20]), compute_result=False) == {}
        assert metrics((scores[20:], labels[20:]), compute_result=True) == expected
        assert metrics.last == at_once.last


# ---- a run


def test_accumulated_batches_give_the_same_curve(whole, photos, tiny, tmp_path):
    options = {**ARGUMENTS, "workers": 2, "tensorboard": True, "progress": True}
    parts = finetune(recipe_of(tiny), photos, tmp_path / "run", device_batch=4, **options)
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    assert len(curve(whole)) == 3
    np.testing.assert_allclose(curve(parts), curve(whole), **CURVE)
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["accumulated"] == 3
    assert parts.evaluation.error == whole.evaluation.error


def test_a_run_is_read_by_evaluate_report_predict_and_transformers(whole, photos, monkeypatch, capsys):
    read = load_run(whole.run_dir)
    assert (read.recipe, read.evaluation, read.history) == (whole.recipe, whole.evaluation, whole.history)
    assert evaluate_run(whole.run_dir, device="cpu") == whole.evaluation
    train, test = load_images(photos)
    with pytest.raises(ValueError, match="have other names or labels than the run's"):
        evaluate_images(read, data=(train, test.select(range(5))), device="cpu")
    assert whole.evaluation.class_counts == (24, 9, 5)
    assert whole.evaluation.num_samples == 7
    (found,), left_out = find_runs([whole.run_dir])
    assert found.recipe == whole.recipe
    assert left_out == []
    again = build_classifier(str(whole.run_dir), load_images(photos)[0].class_names)
    assert again.config.id2label == {0: "class0", 1: "class1", 2: "class2"}
    for one, other in zip(again.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)
    classify = Classifier(whole.run_dir)
    (_, test), found = load_images(photos), []
    for i in range(len(test)):
        prediction = classify(test.name(i))
        found.append(prediction.best == test.class_names[test.targets[i]])
        assert classify(test.open(i)).top(3) == prediction.top(3)
    assert np.mean(found) == pytest.approx(1 - whole.evaluation.error)
    with pytest.raises(
        ValueError, match=r"config\.json' is no image that can be read .*; the run was trained on image"
    ):
        classify(str(whole.run_dir / "config.json"))
    monkeypatch.setattr(sys, "argv", ["longtail", "train", str(whole.run_dir / "recipe.json"), "--out"])
    sys.argv.append(str(whole.run_dir))
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    assert "run folder" in capsys.readouterr().out
    finished = finetune(whole.recipe, photos, whole.run_dir)  # returned, not trained again
    assert finished.evaluation == whole.evaluation
    assert logging.is_progress_bar_enabled()  # the caller's setting is left as it was


def test_a_run_keeps_what_it_said_of_each_test_image(whole, photos, tmp_path):
    said = Predictions.read(whole.run_dir)
    _, test = load_images(photos)
    outputs, truth = (torch.cat(part).numpy() for part in zip(*image_outputs(whole), strict=True))
    assert np.array_equal(said.labels, test.targets)
    assert np.array_equal(said.labels, truth)
    np.testing.assert_allclose(said.logits, outputs, rtol=1e-5, atol=1e-6)
    assert np.array_equal(said.predicted, said.logits.argmax(axis=1))
    assert said.groups is None
    again = evaluate(said.logits, said.labels, whole.evaluation.class_counts)
    assert again == whole.evaluation
    assert "predictions.npz" in json.loads((whole.run_dir / "manifest.json").read_text())["files"]
    elsewhere = shutil.copytree(whole.run_dir, tmp_path / "run")  # where no images are
    unseal(elsewhere)
    about = json.loads((elsewhere / "environment.json").read_text())
    (elsewhere / "environment.json").write_text(json.dumps(about | {"source": str(tmp_path / "gone")}))
    assert np.array_equal(held_out(elsewhere).logits, said.logits.astype(np.float64))
    (elsewhere / "predictions.npz").unlink()
    with pytest.raises(FileNotFoundError, match="gone is not there"):
        held_out(elsewhere, device="cpu")


def test_what_cannot_be_read_is_no_part_of_it_and_groups_are(photos, tiny, tmp_path, monkeypatch):
    broken = shutil.copytree(photos, tmp_path / "photos")
    train, test = load_images(broken)
    test = replace(test, groups=np.array(["c", "b", "b", "a", "a", "c", "d"]))
    bad = Path(test.name(3))
    bad.write_bytes(bad.read_bytes()[:300])
    monkeypatch.setattr(ImageList, "checked", lambda self, on_error="raise": self)  # it breaks later
    options = {**ARGUMENTS, "on_error": "skip"}
    with pytest.warns(UserWarning, match="skipped: image .*cannot be read"):
        run = finetune(recipe_of(tiny, epochs=1), (train, test), tmp_path / "run", **options)
    said = Predictions.read(tmp_path / "run")
    assert run.evaluation.num_samples == 6
    assert np.array_equal(said.labels, np.delete(test.targets, 3))
    assert said.logits.shape == (6, 3)
    assert said.groups.tolist() == [2, 1, 1, 0, 2, 3]
    counts = run.evaluation.class_counts
    assert evaluate(said.logits, said.labels, counts, groups=said.groups) == run.evaluation
    assert (run.evaluation.num_groups, run.evaluation.units) == (4, (1.8, 1.0, 2.0))
    with pytest.warns(UserWarning, match="skipped"):
        again = evaluate_images(load_run(tmp_path / "run"), data=(train, replace(test, groups=None)))
    assert again == run.evaluation  # the run knows the groups
    with pytest.warns(UserWarning, match="skipped"):
        held = held_out(tmp_path / "run", broken, device="cpu")
    assert held.groups.tolist() == said.groups.tolist()


def test_runs_of_several_seeds_differ_by_seeds_and_test_images(photos, tiny, tmp_path):
    for seed in (1, 2):
        for method in ("plain", "effective"):
            recipe = recipe_of(tiny, epochs=1, seed=seed, method=get(method))
            finetune(recipe, photos, tmp_path / method / str(seed), **ARGUMENTS)
    found, left_out = find_runs([tmp_path])
    assert not left_out
    (table,) = comparisons(found)
    assert table.doubts == "both"
    measure = next(row for row in table.rows if not row.is_plain)["error"]
    ours, theirs = ([o.decided.predicted for o in row.outcomes] for row in reversed(table.rows))
    tested = paired_on_test(ours, theirs, load_images(photos)[1].targets, weights=[3, 2, 2])
    assert measure.on_test.standard_error == pytest.approx(tested.standard_error)
    low, high = np.clip([measure.difference.low, measure.difference.high], -1, 1)  # as a difference can be
    assert measure.total.high - measure.total.low >= high - low


def test_images_count_once_in_whatever_order_batches_bring_them(monkeypatch):
    rng = np.random.default_rng(0)
    truth, scores = rng.integers(0, 3, 50), rng.normal(size=(50, 3)).astype(np.float32)
    order = np.concatenate([rng.permutation(50), [3, 3, 7]])  # a sampler that pads
    unread = (truth == 1) & (scores[:, 0] > 1)
    assert unread.any()
    labels = np.where(unread, -100, truth)
    images = ImageList(truth, ("a", "b", "c"), None, np.full(50, b"x.jpg"), groups=np.arange(50) % 7)
    for most in (1 << 24, 149):
        monkeypatch.setattr(predictions_module, "_MOST", most)
        metrics = _Metrics([30, 20, 10], "softmax", images, keep=True)
        for _ in range(2):  # the second evaluation begins anew
            parts = np.array_split(order, 6)
            for i, part in enumerate(parts):
                given = torch.from_numpy(scores[part]), (labels[part], torch.from_numpy(part))
                metrics(given, compute_result=i == len(parts) - 1)
        said = metrics.said.result()
        assert metrics.said.seen.all()
        assert np.array_equal(said.labels, truth[~unread])
        assert np.array_equal(said.predicted, scores[~unread].argmax(axis=1))
        assert np.array_equal(said.groups, (np.arange(50) % 7)[~unread])
        assert metrics.last == evaluate(scores[~unread], truth[~unread], [30, 20, 10])
        if most == 149:  # one score too many
            assert said.logits is None
        else:
            assert np.array_equal(said.logits, scores[~unread])


class Failing(nn.Module):
    """A network that fails at its n-th forward pass, as a machine would."""

    def __init__(self, network, at):
        super().__init__()
        self.network, self.at = network, at

    def forward(self, pixel_values):
        self.at -= 1
        if self.at < 0:
            raise RuntimeError("the machine went down")
        return self.network(pixel_values=pixel_values)


def fails_at(step, tiny, photos, folder, **changes):
    names = load_images(photos)[0].class_names
    set_seed(0)
    options = {"workers": 0, "arguments": {"logging_steps": 1, "save_strategy": "steps", "save_steps": 2}}
    recipe = recipe_of(tiny, augmentation="crop_flip", sampling="inverse", eval_every=3, **changes)
    network = Failing(build_classifier(tiny, names), step)
    return finetune(recipe, photos, folder, model=network, **options)


def paused(tiny, photos, folder):
    """A run with checkpoints after steps 6 and 8, stopped at the ninth."""
    with pytest.raises(RuntimeError, match="the machine went down"):
        fails_at(8, tiny, photos, folder)
    return folder


@pytest.fixture(scope="module")
def expected(tiny, photos, tmp_path_factory):
    return fails_at(99, tiny, photos, tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture(scope="module")
def stopped(tiny, photos, tmp_path_factory):
    return paused(tiny, photos, tmp_path_factory.mktemp("runs") / "stopped")


def same_end(run, expected):
    np.testing.assert_array_equal(curve(run), curve(expected))
    assert run.evaluation == expected.evaluation
    for one, other in zip(run.model.state_dict().values(), expected.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_run_that_died_within_an_epoch_goes_on_from_its_last_whole_checkpoint(
    stopped, expected, tiny, photos, tmp_path
):
    # 3 updates an epoch, a checkpoint every 2
    run = shutil.copytree(stopped, tmp_path / "run")
    checkpoints = run / "checkpoints"
    assert sorted(p.name for p in checkpoints.iterdir()) == ["checkpoint-6", "checkpoint-8"]
    cut = checkpoints / "checkpoint-8" / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-40])  # as a kill in the middle of writing leaves it
    with pytest.warns(UserWarning, match=r"checkpoint-8 cannot be used .*trying the one before"):
        resumed = fails_at(99, tiny, photos, run)
    same_end(resumed, expected)
    assert fails_at(99, tiny, photos, run).evaluation == resumed.evaluation  # read, not trained
    with pytest.raises(ValueError, match=r"is on a network of your own; give that as load_run\(model=\)"):
        load_run(run)
    for name in ("optimizer.pt", "trainer_state.json"):
        for checkpoint in checkpoints.iterdir():
            (checkpoint / name).write_bytes((checkpoint / name).read_bytes()[:100])
        (run / "evaluation.json").unlink(missing_ok=True)
        with (
            pytest.warns(UserWarning, match="cannot be used"),
            pytest.raises(RunFolderError, match=r"none of the 2 checkpoints in .* can be used; delete that"),
        ):
            fails_at(99, tiny, photos, run)


DAMAGES = [
    *(("model.safetensors", -30), ("optimizer.pt", 700), ("rng_state.pth", 900), ("scheduler.pt", 400)),
    *(("trainer_state.json", 40), ("manifest.json", 30), ("optimizer.pt", None), ("scheduler.pt", None)),
    *(("rng_state.pth", None), ("model.safetensors", None)),
]


def test_a_damaged_checkpoint_is_refused_in_one_line_and_the_one_before_is_taken(
    stopped, expected, tiny, photos, tmp_path, recwarn
):
    for number, (name, at) in enumerate(DAMAGES):  # at None the file is missing
        run = shutil.copytree(stopped, tmp_path / str(number)) / "checkpoints"
        file = run / "checkpoint-8" / name
        file.unlink() if at is None else flip(file, at)
        found = finetune_module._last_checkpoint(run, sealed=True)
        assert Path(found).name == "checkpoint-6"
        said = [str(one.message) for one in recwarn.list if "set aside" in str(one.message)]
        assert len(said) == number + 1
        assert f"checkpoint-8 cannot be used ({name} " in said[-1]
        assert "\n" not in said[-1]
        assert sorted(p.name for p in run.iterdir()) == ["checkpoint-6", "set-aside-8"]
    resumed = fails_at(99, tiny, photos, tmp_path / "0")
    same_end(resumed, expected)
    names = sorted(p.name for p in (tmp_path / "0" / "checkpoints").iterdir())
    assert names == ["checkpoint-8", "checkpoint-9"]  # what was set aside is gone: that step was passed again


@pytest.mark.parametrize("first", ["trainer_state.json", "optimizer.pt", "manifest.json"])
def test_an_unfinished_first_checkpoint_is_set_aside_and_training_starts_anew(
    first, stopped, expected, tiny, photos, tmp_path
):
    run = shutil.copytree(stopped, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "checkpoint-8")
    for name in {"manifest.json", first}:  # the manifest is the last that is written
        (run / "checkpoints" / "checkpoint-6" / name).unlink()
    with pytest.warns(
        UserWarning,
        match=r"checkpoint-6 cannot be used \(it was not written to its end\); "
        r"it is set aside as set-aside-6, training starts anew",
    ):
        found = finetune_module._last_checkpoint(run / "checkpoints", sealed=True)
    assert found is None
    if first == "manifest.json":
        same_end(fails_at(99, tiny, photos, run), expected)


def test_the_newest_checkpoint_is_that_of_most_steps_and_durations_add_up(
    stopped, expected, tiny, photos, tmp_path, monkeypatch
):
    run = shutil.copytree(stopped, tmp_path / "run")
    for step, clock in ((6, 3e9), (8, 1e9)):  # the clock was set back in between
        for path in (run / "checkpoints" / f"checkpoint-{step}").rglob("*"):
            os.utime(path, (clock, clock))
        os.utime(run / "checkpoints" / f"checkpoint-{step}", (clock, clock))
    about = json.loads((run / "environment.json").read_text())
    assert about["seconds"] > 0  # known up to the last checkpoint
    (run / "environment.json").write_text(json.dumps(about | {"seconds": 1000.0}))
    monkeypatch.setattr(finetune_module.time, "time", lambda: -1e9)
    kept = []
    real = finetune_module._remove
    monkeypatch.setattr(finetune_module, "_remove", lambda path: kept.append(path.name) or real(path))
    resumed = fails_at(99, tiny, photos, run)
    assert kept == ["checkpoint-6"]
    assert 1000 < resumed.seconds < 2000
    assert load_run(run, model=Failing(build_classifier(tiny, "abc"), 0)).seconds == resumed.seconds
    same_end(resumed, expected)


def test_a_checkpoint_half_removed_is_removed(stopped, tmp_path):
    run = shutil.copytree(stopped, tmp_path / "run") / "checkpoints"
    (run / "checkpoint-6" / "manifest.json").unlink()  # the first that goes
    assert finetune_module._last_checkpoint(run, sealed=True) == str(run / "checkpoint-8")
    assert [p.name for p in run.iterdir()] == ["checkpoint-8"]


def test_checkpoints_of_earlier_versions_are_checked_by_their_own_checksums_and_sealed(
    stopped, tiny, photos, tmp_path
):
    run = shutil.copytree(stopped, tmp_path / "run") / "checkpoints"
    for checkpoint in run.iterdir():
        (checkpoint / "manifest.json").unlink()
    file = run / "checkpoint-8" / "optimizer.pt"
    flip(file, file.read_bytes().index(b"data/0") + 3000 if file.stat().st_size > 20_000 else 300)
    (run / "checkpoint-8" / "scheduler.pt").unlink()
    with pytest.warns(UserWarning, match="checkpoint-8 cannot be used .*trying the one before"):
        found = finetune_module._last_checkpoint(run, sealed=False)
    assert (Path(found) / "manifest.json").exists()
    assert Path(found).name == "checkpoint-6"
    assert finetune_module._last_checkpoint(run, sealed=True) == found


def test_a_finished_network_that_is_gone_headless_or_of_another_shape_is_refused(
    whole, photos, tmp_path, monkeypatch, capsys
):
    picture = next((photos / "val").rglob("*.jpg"))
    for number, change in enumerate(("gone", "headless", "shape", "config", "flip")):
        run = shutil.copytree(whole.run_dir, tmp_path / str(number))
        weights = run / "model.safetensors"
        if change != "flip":
            unseal(run)  # what tells is the network alone
        tensors = load_file(weights)
        if change == "gone":
            weights.unlink()
        elif change == "headless":
            save_file({k: v for k, v in tensors.items() if "classifier" not in k}, weights, {"format": "pt"})
        elif change == "shape":
            tensors["classifier.weight"] = torch.zeros(4, 16)
            save_file(tensors, weights, {"format": "pt"})
        elif change == "config":
            (run / "config.json").write_text((run / "config.json").read_text().replace("16", "32"))
        else:
            flip(weights, -5)
        for command in (["evaluate", run], ["predict", run, picture]):
            monkeypatch.setattr(sys, "argv", ["longtail", *map(str, command)])
            with pytest.raises(SystemExit) as stop:
                cli.main()
            assert stop.value.code == 2
            out, said = capsys.readouterr()
            assert out == ""
            assert said.count("\n") == 1
            assert "is damaged (" in said
            assert "weights" in said or "safetensors" in said


def test_a_link_in_a_run_folder_is_replaced_not_followed(photos, tiny, tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run").mkdir()
    recipe = recipe_of(tiny, epochs=1)
    (tmp_path / "run" / "recipe.json").write_text(recipe.to_json())
    for name in ("config.json", "model.safetensors", "metrics.jsonl", "manifest.json", "environment.json"):
        (tmp_path / "run" / name).symlink_to(tmp_path / "precious") if name != "environment.json" else None
    run = finetune(recipe, photos, tmp_path / "run", **ARGUMENTS)
    assert (tmp_path / "precious").read_text() == "mine"
    assert load_run(tmp_path / "run").evaluation == run.evaluation


def test_sigmoid_losses_start_at_the_prior_and_only_weights_are_decayed(photos, tiny, tmp_path):
    from longtail.training.finetune import _optimizer

    for loss, prior in (("softmax", False), ("focal", True)):
        recipe = recipe_of(tiny, loss=loss, weight_decay=0.1)
        network = build_classifier(tiny, ["a", "b", "c"])
        decayed, spared = _optimizer(recipe, network).param_groups
        names = {id(p): name for name, p in network.named_parameters()}
        assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
        exempt = {names[id(p)] for p in spared["params"]}
        assert ("classifier.bias" in exempt) == prior
        norms = {name for name, m in network.named_modules() if isinstance(m, nn.LayerNorm)}
        assert exempt - {"classifier.bias"} == {f"{n}.{p}" for n in norms for p in ("weight", "bias")} & {
            *names.values()
        }
    run = finetune(
        recipe_of(tiny, loss="focal", epochs=1, learning_rate=1e-9), photos, tmp_path / "run", **ARGUMENTS
    )
    torch.testing.assert_close(head_of(run.model).bias.detach(), torch.full((3,), -np.log(2.0)).float())


def test_resnets_are_those_of_the_paper():
    with torch.device("meta"):
        sizes = {
            name: sum(p.numel() for p in build_classifier(name, range(1000)).parameters())
            for name in ("resnet50", "resnet101", "resnet152")
        }
    assert sizes == {
        "resnet50": 25_557_032,
        "resnet101": 44_549_160,
        "resnet152": 60_192_808,
    }  # torchvision's
    network = build_classifier("resnet50", ["cat", "lynx"])
    blocks = [m.layer for m in network.modules() if type(m).__name__ == "ResNetBottleNeckLayer"]
    assert len(blocks) == 16
    assert all((block[-1].normalization.weight == 0).all() for block in blocks)
    assert [block[1].convolution.stride for block in blocks if block[1].convolution.stride != (1, 1)] == [
        (2, 2)
    ] * 3
    assert (head_of(network).bias == 0).all() or head_of(network).bias.abs().max() < 0.03


def test_a_model_with_weights_keeps_them_and_gets_a_head_for_the_classes(whole):
    network = build_classifier(str(whole.run_dir), ["cat", "dog", "lynx", "puma"])
    assert head_of(network).weight.shape[0] == 4
    trained = dict(whole.model.named_parameters())
    for name, parameter in network.named_parameters():
        if not name.startswith("classifier"):
            assert torch.equal(parameter, trained[name])


def test_an_infinite_loss_stops_the_run_before_it_is_saved(photos, tiny, tmp_path):
    with pytest.raises(
        DivergedError, match=r"loss is not finite at step \d of 3 in epoch .* lower learning_rate"
    ):
        finetune(recipe_of(tiny, learning_rate=1e30), photos, tmp_path / "run", **ARGUMENTS)
    for file in (tmp_path / "run").rglob("model.safetensors"):
        raise AssertionError(f"{file} was saved")


def test_a_long_tail_is_cut_and_unreadable_images_are_skipped_if_so_chosen(photos, tiny, tmp_path):
    broken = shutil.copytree(photos, tmp_path / "photos")
    bad = broken / "train" / "class0" / "3.jpg"
    bad.write_bytes(bad.read_bytes()[:300])
    with pytest.raises(OSError, match=r"3\.jpg cannot be read"):
        finetune(recipe_of(tiny), broken, tmp_path / "run", **ARGUMENTS)
    with pytest.warns(UserWarning, match=r"1 of 38 images are left out.*3\.jpg"):
        run = finetune(recipe_of(tiny, epochs=1), broken, tmp_path / "run", on_error="skip", **ARGUMENTS)
    assert run.evaluation.class_counts == (23, 9, 5)
    tail = finetune(
        recipe_of(tiny, epochs=1, batch_size=4, imbalance_factor=5), photos, tmp_path / "tail", **ARGUMENTS
    )
    assert tail.evaluation.class_counts == (5, 2, 1)


# ---- what is refused, before hours are spent


def test_bad_input_is_refused_at_once(photos, tiny, tmp_path, monkeypatch):
    train, test = load_images(photos)

    def refused(error, message, recipe=None, data=photos, folder="run", **options):
        with pytest.raises(error, match=message):
            finetune(recipe or recipe_of(tiny), data, tmp_path / folder, **{**ARGUMENTS, **options})
        assert not (tmp_path / folder / "checkpoints").exists()

    four = build_classifier(tiny, ["a", "b", "c", "d"])
    refused(ValueError, "head Linear has 4 outputs, but the data have 3 classes", model=four)
    refused(ValueError, "has no Linear or Conv layer, so no head", model=nn.Identity())
    refused(ValueError, "has no config.json", recipe_of(str(photos)))
    refused(ValueError, r"batch_size=39 is more than the 38 training images", recipe_of(tiny, batch_size=39))
    refused(ValueError, r"device_batch=5 does not divide the 12 samples", device_batch=5)
    refused(ValueError, r"arguments must not have 'max_steps'", arguments={"max_steps": 3})
    refused(ValueError, "normalizer must be 'samples'", recipe_of(tiny, normalizer="weights"))
    refused(TypeError, "recipe must be an ImageRecipe", recipes.digits())
    refused(FileNotFoundError, "image folder nowhere is not there", data="nowhere")
    refused(ValueError, "device must be", device="tpu")
    with monkeypatch.context() as two:
        two.setattr(torch.cuda, "device_count", lambda: 2)
        refused(ValueError, "device is 'cuda:1', .* CUDA_VISIBLE_DEVICES=1 in", device="cuda:1")
    renamed = ImageList(test.targets, ("x", "y", "z"), test.root, test.files)
    refused(ValueError, r"test images other 3 \('x', 'y', 'z'\); load them together", data=(train, renamed))
    unseen = train.select(np.flatnonzero(train.targets != 2))
    refused(ValueError, r"1 classes of the test images have no training image: 'class2'", data=(unseen, test))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="choose a folder that can be made and written"):
        finetune(recipe_of(tiny), photos, tmp_path / "file" / "run")
    with pytest.raises(ValueError, match="augmentation must be 'none' or 'crop_flip' for image files"):
        recipe_of(tiny, augmentation="shift")
    with pytest.raises(ValueError, match=r"std must be above 0"):
        recipe_of(tiny, std=(0.0, 0.1, 0.1))


def test_a_folder_of_another_recipe_or_other_images_is_refused(whole, photos, tiny, tmp_path):
    with pytest.raises(ValueError, match="they differ in seed"):
        finetune(recipe_of(tiny, seed=2), photos, whole.run_dir)
    (folder := tmp_path / "run").mkdir()
    for name in ("recipe.json", "environment.json"):
        shutil.copy(whole.run_dir / name, folder)
    train, test = load_images(photos)
    with pytest.raises(ImagesChangedError, match="began with other images"):
        finetune(whole.recipe, (train.select(range(1, len(train))), test), folder)


def test_a_model_that_the_hub_does_not_give_is_one_line(photos, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # no minute of retries
    with pytest.raises(
        ValueError, match=r"^model 'nobody/nothing' is no folder with a model.*one of resnet50"
    ) as e:
        finetune(recipe_of("nobody/nothing"), photos, tmp_path / "run")
    assert "\n" not in str(e.value)


# ---- many processes


EPOCHS = 5


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")
def test_two_processes_are_one_and_survive_a_killed_rank(photos, tiny, tmp_path, finish):
    """One launch: loops of one's own, then a run until a rank dies.

    The run goes on in this process alone, and its whole curve is that of a run which never was elsewhere.
    """
    folder = tmp_path / "run"
    # forked from a process of its own: children of one that has computed with threads may be stuck
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    done = finish([sys.executable, __file__, str(photos), tiny, str(tmp_path)], env=environment)
    assert done.returncode != 0
    assert "ProcessExitedException: process 1 terminated with signal SIGKILL" in done.stderr, done.stderr
    assert not (folder / "evaluation.json").exists()
    assert json.loads((folder / "environment.json").read_text())["processes"] == 2
    before = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert 1 <= len(before) < EPOCHS

    recipe = recipe_of(tiny, epochs=EPOCHS)
    resumed = finetune(recipe, photos, folder, **ARGUMENTS)
    expected = finetune(recipe, photos, tmp_path / "one", **ARGUMENTS)
    np.testing.assert_allclose(curve(resumed), curve(expected), rtol=1e-5, atol=1e-6)
    # 7 test images on two processes are four each, one of them twice: it must not count twice
    assert [m["test_error"] for m in before] == [m.test_error for m in expected.history[: len(before)]]
    assert resumed.evaluation.error == expected.evaluation.error

    recipe = recipe_of(tiny, epochs=1, method=get("crt"))
    refitted = finetune(recipe, in_groups(photos), tmp_path / "one_refitted", **ARGUMENTS)
    said, once = (Predictions.read(tmp_path / name) for name in ("refitted", "one_refitted"))
    assert np.array_equal(said.labels, load_images(photos)[1].targets)
    np.testing.assert_allclose(said.logits, once.logits, rtol=1e-4, atol=1e-5)
    found = load_run(tmp_path / "refitted").evaluation
    assert (found.num_samples, found.num_groups) == (7, 4)
    assert found.units == refitted.evaluation.units
    for name, tensor in load_run(tmp_path / "refitted").model.state_dict().items():
        torch.testing.assert_close(tensor, refitted.model.state_dict()[name], rtol=1e-4, atol=1e-5)

    order = ClassAwareSampler(np.arange(24) % 3, "inverse", seed=5)
    for epoch, rows in enumerate(json.loads((tmp_path / "seen.json").read_text())):
        assert sorted(rows) == sorted(order.order(epoch).tolist())
    with np.load(tmp_path / "gradients.npz") as gradients:
        assert set(gradients) == {*OPTIONS, "tokens", "pixels"}
        for name, found in gradients.items():
            dense = name in ("tokens", "pixels")
            expected = (
                gradient_of_labels(name == "pixels") if dense else whole_gradient((name, "samples", "index"))
            )
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6, err_msg=name)


def in_groups(photos):
    """The pictures, those of the test set in groups."""
    train, test = load_images(photos)
    return train, replace(test, groups=np.array(list("abbaacd")))


def one_process(photos, tiny, folder):
    """Accelerate's dispatching loader, a loop of one's own that accumulates, a run from the command line."""
    from accelerate import Accelerator
    from accelerate.data_loader import prepare_data_loader

    torch.set_num_threads(1)  # this process was forked
    rank = str(torch.distributed.get_rank())
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank}  # as torchrun and accelerate launch set them
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=3)
    loader = torch.utils.data.DataLoader(
        torch.arange(24), batch_size=4, sampler=ClassAwareSampler(np.arange(24) % 3, "inverse", seed=5)
    )
    dispatching = prepare_data_loader(loader, put_on_device=True, dispatch_batches=True)
    seen = []
    for epoch in range(2):
        dispatching.set_epoch(epoch)
        seen.append(accelerator.gather(torch.cat(list(dispatching))).tolist())

    gradients = {}
    for name, options in OPTIONS.items():
        criterion, network = ClassBalancedLoss(COUNTS, **options), accelerator.prepare(model())
        input, target = (x.split(6)[accelerator.process_index] for x in batch_of_12("index"))
        targets = target.split(2)
        total = step_denominator(criterion, *targets) / accelerator.gradient_accumulation_steps
        for x, t in zip(input.split(2), targets, strict=True):
            with accelerator.accumulate(network):
                accelerator.backward(criterion(network(x), t, denominator=total))
        gradients[name] = gradient(network)
    for name in ("tokens", "pixels"):  # the Trainer counts their labels over both processes
        gradients[name], _ = trainers_step(name == "pixels", 6, folder / name)
    if accelerator.is_main_process:
        (folder / "seen.json").write_text(json.dumps(seen))
        np.savez(folder / "gradients.npz", **gradients)

    recipe = recipe_of(tiny, epochs=1, method=get("crt"))
    refitted = finetune(recipe, in_groups(photos), folder / "refitted", **ARGUMENTS)
    assert refitted.evaluation.num_groups == 4  # in every process
    sys.argv = [
        "longtail",
        "train",
        photos,
        "--model",
        tiny,
        "--size",
        "32",
        "--batch-size",
        "12",
        "--seed",
        "1",
    ]
    sys.argv += ["--epochs", str(EPOCHS), "--learning-rate", "0.05", "--set", "warmup_epochs=0"]
    sys.argv += ["--out", str(folder / "run")]

    class Death(TrainerCallback):
        """Kill rank 1 once a checkpoint of the second epoch or later is on disk."""

        def on_step_end(self, *_, **__):
            found = (folder / "run").glob("checkpoints/checkpoint-*/trainer_state.json")
            if any(int(state.parent.name.rpartition("-")[2]) >= 6 for state in found):
                os.kill(os.getpid(), signal.SIGKILL)

    if accelerator.process_index == 1:
        trainer.DEFAULT_CALLBACKS.append(Death)
    cli.main()


# ---- methods


def test_a_schedule_acts_from_its_epoch(photos, tiny, tmp_path):
    late = Method(weight=Rule("inverse"), sampling=Rule("inverse"), schedule=Rule("deferred", start=0.5))
    run = finetune(recipe_of(tiny, method=late), photos, tmp_path / "late", **ARGUMENTS)
    plain = finetune(recipe_of(tiny, scheme="none"), photos, tmp_path / "plain", **ARGUMENTS)
    ours, theirs = curve(run), curve(plain)
    assert np.array_equal(ours[:2], theirs[:2])
    assert ours[2] != theirs[2]
    assert load_run(tmp_path / "late").recipe.method == late


@pytest.fixture(scope="module")
def plain(photos, tiny, tmp_path_factory):
    """What the methods share that decide or refit after training: one training, and its features."""
    run = finetune(recipe_of(tiny, scheme="none"), photos, tmp_path_factory.mktemp("runs") / "p", **ARGUMENTS)
    outputs = []
    for part in load_images(photos):
        rows = TorchDataset(part, EvalTransform(32, run.recipe.mean, run.recipe.std))
        pixels = torch.stack([torch.as_tensor(rows[i]["pixel_values"]) for i in range(len(part))])
        with torch.no_grad():
            features = run.model.base_model(pixel_values=pixels).pooler_output
        outputs.append((features, torch.as_tensor(part.targets)))
    return run, *outputs


@pytest.mark.parametrize(
    "name", ["posthoc_logit_adjusted", "crt", "label_aware_smoothing", "tau_norm", "ncm"]
)
def test_what_comes_after_training_is_that_of_the_plain_run(plain, photos, tiny, tmp_path, name):
    run, (features, targets), (tested, truth) = plain
    method = get(name)
    found = finetune(recipe_of(tiny, method=method), photos, tmp_path / "run", **ARGUMENTS)
    head = head_of(run.model)
    weight, bias = head.weight.detach(), head.bias.detach()
    if method.refit is not None:
        seed = derive_seed(1, 0, "refit")
        weight, bias = method.refit.of(REFITS)(features, targets, weight, bias, seed=seed)
        torch.testing.assert_close(head_of(found.model).weight, weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(head_of(found.model).bias, bias, rtol=1e-4, atol=1e-5)
    body = run.model.base_model.state_dict()
    assert all(
        torch.equal(body[name], tensor) for name, tensor in found.model.base_model.state_dict().items()
    )
    assert found.history == run.history  # whose errors are of the training alone
    counts = run.evaluation.class_counts
    logits = (tested @ weight.T + bias).numpy()
    expected = evaluate(method.adjust(logits, counts), truth.numpy(), counts)
    assert found.evaluation.confusion == expected.confusion
    assert found.evaluation.log_loss == pytest.approx(expected.log_loss, rel=1e-4)
    if name in ("posthoc_logit_adjusted", "ncm"):
        assert found.evaluation.log_loss != pytest.approx(run.evaluation.log_loss, rel=1e-3)

    again = evaluate_run(tmp_path / "run")
    assert again.confusion == found.evaluation.confusion
    assert again.log_loss == pytest.approx(found.evaluation.log_loss, rel=1e-6)
    first = load_images(photos)[1]
    told = Classifier(tmp_path / "run").logits(photos / os.fsdecode(first.files[0]))
    np.testing.assert_allclose(told, method.adjust(logits, counts)[0], rtol=1e-3, atol=1e-4)


def test_a_run_that_ended_before_its_refit_is_refitted(photos, tiny, tmp_path, monkeypatch):
    recipe = recipe_of(tiny, epochs=1, method=get("crt").replace(adjustment=Rule("logit")))
    whole = finetune(recipe, photos, tmp_path / "whole", **ARGUMENTS)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetune_module._ImageRun, "_refit", stop)
        with pytest.raises(KeyboardInterrupt):
            finetune(recipe, photos, tmp_path / "run", **ARGUMENTS)
    assert not (tmp_path / "run" / "evaluation.json").exists()
    finetune(recipe, photos, tmp_path / "run", **ARGUMENTS)
    for name in ("model.safetensors", "metrics.jsonl", "evaluation.json", "predictions.npz"):
        assert (tmp_path / "run" / name).read_bytes() == (whole.run_dir / name).read_bytes()


@pytest.mark.parametrize("name", ["mixup", "mislas", "learning_to_reweight", "tuned_adjustment", "smote"])
def test_methods_that_files_do_not_take_are_refused(photos, tiny, tmp_path, name):
    with pytest.raises(
        ValueError, match=f"method '{name}' .*; give .* longtail embed, then longtail compare"
    ):
        finetune(recipe_of(tiny, method=get(name)), photos, tmp_path / "run", **ARGUMENTS)
    assert not (tmp_path / "run").exists()


if __name__ == "__main__":
    debug_launcher(one_process, (sys.argv[1], sys.argv[2], Path(sys.argv[3])), num_processes=2)


def test_a_run_on_a_table_of_images_finds_them_again(tmp_path, tiny, monkeypatch, capsys):
    folder = write_photos(tmp_path / "shots", (12, 6, 6), (1, 1, 1), size=24) / "train"
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    rows = [f"{f},{f.partition('/')[0]},{f.partition('/')[0]} {int(f[-5]) // 2}" for f in files]
    (tmp_path / "t.csv").write_text("\n".join(["file,kind,film", *rows, ""]))
    monkeypatch.chdir(tmp_path)
    asked = ["train", "t.csv", "--image", "file", "--label", "kind", "--group", "film", "--root", str(folder)]
    asked += ["--model", tiny, "--size", "32", "--epochs", "1", "--batch-size", "4", "--out", "run"]
    monkeypatch.setattr("sys.argv", ["longtail", *asked, "--device", "cpu"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code, capsys.readouterr().err
    stored = load_run("run").evaluation
    assert evaluate_run("run", device="cpu").error == stored.error
    films = load_images("t.csv", image="file", label="kind", groups="film", root=folder)[1].groups
    assert len({*Predictions.read(Path("run")).groups.tolist()}) == len({*films.tolist()})
    # the recipe beside it leads to the same images
    chosen, (train, test) = _what_to_train("run/recipe.json", None, {"seed": 1})
    assert (chosen.seed, test.groups.tolist()) == (1, films.tolist())
    assert len(train) + len(test) == len(files)
