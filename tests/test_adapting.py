"""LIFT's recipe on a tiny random ViT: what is trained, where the head starts, what the finished run holds."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")

import transformers
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from longtail import cli, methods, recipes
from longtail.datasets.decoding import IMAGENET_MEAN, IMAGENET_STD
from longtail.datasets.images import EvalTransform, TorchDataset, list_images
from longtail.models.cosine import CosineLinear
from longtail.predict import Classifier
from longtail.training import adapting, evaluate_run, load_run
from longtail.training.finetune import finetune
from longtail.training.folder import environment_of
from longtail.training.recipe import ImageRecipe, Recipe

SIZE, COUNTS = 32, (16, 8, 4)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A random ViT as a trained one is given: a folder with weights and an image processor."""
    folder = tmp_path_factory.mktemp("vit")
    config = transformers.ViTConfig(
        hidden_size=192, num_hidden_layers=2, num_attention_heads=3, intermediate_size=768,
        image_size=SIZE, patch_size=8, num_labels=7,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    size = {"height": SIZE, "width": SIZE}
    ViTImageProcessorPil(size=size, image_mean=MEAN, image_std=STD).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes that differ in colour, with much noise."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for part, counts in (("train", COUNTS), ("val", (4, 4, 4))):
        for c, n in enumerate(counts):
            folder = root / part / f"class{c}"
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 250, (40, 40, 3), dtype=np.uint8)
                pixels[..., c] += 5
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def recipe_of(vit, **changes):
    given = {"epochs": 2, "batch_size": 8, "method": methods.get("logit_adjusted"), "lora": True}
    return recipes.images("photos", vit, **{**given, **changes})


@pytest.fixture(scope="module")
def run(vit, photos, tmp_path_factory):
    return finetune(recipe_of(vit), photos, tmp_path_factory.mktemp("runs") / "run", workers=0)


# ---- the recipe


def test_the_recipe_is_lifts_and_prepares_images_as_the_model_wants(vit):
    recipe = recipes.images("photos", vit, lora=True, method=methods.get("logit_adjusted"), batch_size=128)
    assert recipe.method.name == "logit_adjusted"
    assert recipe.method.cosine == 25
    assert recipe.head_start == "class_means"
    assert (recipe.size, recipe.mean, recipe.std) == (SIZE, MEAN, STD)
    assert (recipe.epochs, recipe.learning_rate, recipe.weight_decay) == (10, 0.01, 5e-4)
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert again.hash == recipe.hash
    frozen = recipes.images("photos", vit, freeze_backbone=True)
    assert (frozen.method.cosine, frozen.head_start, frozen.lora) == (25, "class_means", False)
    assert recipes.images("photos", vit, lora=True, freeze_backbone=True) == recipes.images(
        "photos", vit, lora=True
    )
    assert recipes.images("photos", vit, lora=True, loss="focal").head_start == "random"


def test_recipes_without_adapters_stay_as_they_were(vit):
    # with both given, nothing is asked of the hub
    recipe = recipes.images("photos", "nobody/nothing", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert recipe.replace(model="m").short_hash == "697f8eba51c7"
    recipe = recipes.images("photos", vit)
    assert recipe.size == 224
    assert not {"lora", "lora_rank", "freeze_backbone", "head_start"} & recipe.to_dict().keys()
    assert recipe.replace(lora=True).hash != recipe.hash


@pytest.mark.parametrize("frozen", [False, True])
def test_images_are_normalised_as_the_model_was_trained(frozen, vit, run, tmp_path):
    """By its image processor, or by the recipe of the run that left it; what is given goes first."""
    changes = {"freeze_backbone": frozen}
    recipe = recipes.images("photos", vit, **changes)
    assert (recipe.mean, recipe.std, recipe.size) == (MEAN, STD, SIZE if frozen else 224)
    recipe = recipes.images("photos", vit, **changes, std=IMAGENET_STD, size=64)
    assert (recipe.mean, recipe.std, recipe.size) == (MEAN, IMAGENET_STD, 64)
    recipe = recipes.images("photos", str(run.run_dir), **changes)
    assert (recipe.mean, recipe.std, recipe.size) == (MEAN, STD, SIZE if frozen else 224)
    config = tmp_path / "preprocessor_config.json"
    config.write_text('{"do_normalize": false, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    recipe = recipes.images("photos", str(tmp_path), **changes)
    assert (recipe.mean, recipe.std) == ((0, 0, 0), (1, 1, 1))
    config.unlink()
    assert recipes.images("photos", str(tmp_path), **changes).mean == IMAGENET_MEAN


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": False, "lora_rank": 8}, "lora_rank=8 belongs to lora=True"),
        ({"model": "resnet50"}, "'resnet50' starts from scratch"),
        ({"lora_rank": 0}, "'lora_rank': must be greater than or equal to 1"),
        ({"head_start": "zeros"}, "'head_start': must be 'random' or 'class_means'"),
        ({"method": methods.get("plain"), "head_start": "class_means"}, "belongs to a cosine head"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message, vit):
    with pytest.raises(ValueError, match=message):
        ImageRecipe(**{"dataset": "photos", "model": vit, "epochs": 2, "lora": True, **changes})


# ---- what is trained


def classifier(vit, rank):
    model = transformers.ViTForImageClassification.from_pretrained(vit)
    adapting.with_cosine_classifier(model, 25.0)
    return adapting.train_little(model, lora_rank=rank, seed=1)


@pytest.mark.parametrize("rank", [4, None])
def test_less_than_a_hundredth_is_trained(rank, vit):
    model = classifier(vit, rank)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    trained, whole = adapting.trained_share(model)
    adapters = 0 if rank is None else 2 * 2 * 2 * rank * 192  # layers, query and value, A and B
    assert trained == 7 * 192 + adapters
    assert trained < 0.01 * whole
    rest = names - {"classifier.weight"}
    assert all("lora_" in name and ("q_proj" in name or "v_proj" in name) for name in rest)
    assert len(rest) == (0 if rank is None else 8)


def test_adapters_start_as_nothing_and_are_merged_exactly(vit):
    plain = transformers.ViTForImageClassification.from_pretrained(vit).eval()
    model, pixels = classifier(vit, 4).eval(), torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(model.vit(pixels)[0], plain.vit(pixels)[0])
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_()
        adapted = model(pixels).logits
        assert not torch.allclose(model.vit(pixels)[0], plain.vit(pixels)[0], atol=1e-2)
        merged = adapting.merge_adapters(model)
        torch.testing.assert_close(merged(pixels).logits, adapted, atol=1e-3, rtol=1e-3)
    assert not any("lora" in name for name in merged.state_dict())
    assert merged.state_dict().keys() == plain.state_dict().keys() - {"classifier.bias"}


def test_a_frozen_batch_norm_sees_no_more():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    adapting.train_little(model, lora_rank=None, seed=0)
    before = model[1].running_mean.clone()
    x = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(model.train()(x), model.eval()(x))
    torch.testing.assert_close(model[1].running_mean, before)


def test_the_head_starts_as_the_nearest_class_mean(vit, photos):
    """Against a few lines of NumPy on features of the untouched network."""
    train, test = list_images(photos)
    loaders = [DataLoader(TorchDataset(x, EvalTransform(SIZE, MEAN, STD)), 8) for x in (train, test)]
    plain = transformers.ViTForImageClassification.from_pretrained(vit).eval()
    with torch.no_grad():
        features = [
            np.concatenate([plain.vit(b["pixel_values"])[0][:, 0].double().numpy() for b in loader])
            for loader in loaders
        ]
    directions = [f / np.linalg.norm(f, axis=1, keepdims=True) for f in features]
    means = np.stack([directions[0][train.targets == c].sum(0) for c in range(3)])
    cosines = directions[1] @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T

    model = transformers.ViTForImageClassification.from_pretrained(
        vit, num_labels=3, ignore_mismatched_sizes=True
    )
    adapting.with_cosine_classifier(model, 25.0)
    adapting.train_little(model, lora_rank=4, seed=1)
    adapting.start_at_class_means(model.train(), loaders[0], torch.device("cpu"))
    assert model.training
    with torch.no_grad():
        logits = torch.cat([model.eval()(b["pixel_values"]).logits for b in loaders[1]])
    np.testing.assert_allclose(logits.numpy(), 25 * cosines, atol=1e-3)
    assert (logits.argmax(1).numpy() == cosines.argmax(1)).all()
    assert len(set(cosines.argmax(1).tolist())) > 1


# ---- the run


def test_the_run_is_read_evaluated_and_predicts_alike(run, photos, tmp_path):
    about = environment_of(run.run_dir)
    assert about["trained_parameters"] < 0.01 * about["parameters"]
    read = load_run(run.run_dir)
    assert isinstance(read.model.classifier, CosineLinear)
    pixels = torch.randn(3, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(read.model(pixels).logits, run.model(pixels).logits, atol=1e-4, rtol=1e-4)
        # as anyone reads it, without longtail: the same decisions
        theirs = transformers.AutoModelForImageClassification.from_pretrained(run.run_dir).eval()
        assert (theirs(pixels).logits.argmax(1) == read.model(pixels).logits.argmax(1)).all()
    assert not any("lora" in name for name in load_file(run.run_dir / "model.safetensors"))
    assert evaluate_run(run.run_dir, photos).confusion == run.evaluation.confusion
    assert len(Classifier(run.run_dir)(photos / "val" / "class0" / "0.png").probabilities) == 3


def test_only_what_is_trained_differs_from_what_was_given(run, vit):
    given, ended = (load_file(Path(folder, "model.safetensors")) for folder in (vit, run.run_dir))
    changed = {name for name, w in given.items() if not torch.equal(w, ended[name])}
    assert {name.split(".")[-2] for name in changed} == {"query", "value", "classifier"}


@pytest.mark.parametrize("lora", [True, False])
def test_a_killed_run_goes_on_to_the_same_end(lora, run, vit, photos, tmp_path, monkeypatch):
    """Also without adapters: transformers writes a ViT's tensors under names its Trainer does not find."""

    class Stop(Exception):
        pass

    recipe = recipe_of(vit, lora=lora, **({} if lora else {"size": SIZE, "mean": MEAN, "std": STD}))
    if not lora:
        run = finetune(recipe, photos, tmp_path / "whole", workers=0)
    from longtail.training import finetune as module

    saved = module._ImageRun.saved

    def stop_after_first(self, *arguments):
        saved(self, *arguments)
        raise Stop

    monkeypatch.setattr(module._ImageRun, "saved", stop_after_first)
    with pytest.raises(Stop):
        finetune(recipe, photos, tmp_path / "run", workers=0)
    monkeypatch.setattr(module._ImageRun, "saved", saved)
    monkeypatch.setattr(adapting, "start_at_class_means", None)  # not a second time
    again = finetune(recipe, photos, tmp_path / "run", workers=0)
    losses = [[epoch.loss for epoch in one.history] for one in (run, again)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert losses[0][1] > 0.1  # there is something to learn
    ended = load_file(again.run_dir / "model.safetensors")
    for name, w in load_file(run.run_dir / "model.safetensors").items():
        torch.testing.assert_close(ended[name], w, rtol=1e-5, atol=1e-6)


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["longtail", "train", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code


def test_the_command_trains_a_head_on_a_frozen_network(vit, photos, tmp_path, monkeypatch, capsys):
    options = ("--model", vit, "--method", "logit_adjusted", "--epochs", "1", "--batch-size", "8")
    assert not command(monkeypatch, photos, *options, "--freeze-backbone", "--out", tmp_path / "run")
    recipe = load_run(tmp_path / "run").recipe
    assert (recipe.freeze_backbone, recipe.method.cosine, recipe.epochs) == (True, 25, 1)
    assert "trained 576 of 931,200 parameters (0.06%)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lora", "--model", "resnet50"), "'resnet50' starts from scratch"),
        (("--lora", "--model", "nobody/nothing"), "the Hugging Face hub did not give it"),
        (("--lora", "--model", "{empty}"), "has no weights (no .safetensors), and frozen random ones"),
        (("--lora", "--model", "{resnet}"), "has no attention for LoRA's adapters"),
    ],
)
def test_bad_input_is_one_line(options, message, photos, vit, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    transformers.ViTConfig.from_pretrained(vit).save_pretrained(tmp_path / "empty")
    small = transformers.ResNetConfig(depths=[1, 1], hidden_sizes=[8, 8], embedding_size=8)
    transformers.ResNetForImageClassification(small).save_pretrained(tmp_path / "resnet")
    capsys.readouterr()
    places = {name: tmp_path / name for name in ("empty", "resnet")}
    filled = [o.format(**places) for o in options]
    assert command(monkeypatch, photos, *filled, "--batch-size", "8", "--out", tmp_path / "run") == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "recipe.json").exists()
