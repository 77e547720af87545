"""Features of photographs by models of transformers: the plain way's numbers, each computed once, kills."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.image_processing_backends import PilBackend
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import longtail
from longtail import cli
from longtail.datasets.features import Features
from longtail.datasets.images import UnreadableImageError, list_images
from longtail.training import backbones, embedding
from longtail.training.backbones import image_backbone
from longtail.training.embedding import embed

SIZE = 32
PROCESSOR = ViTImageProcessorPil(size={"height": SIZE, "width": SIZE})


def vit(**changes):
    given = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return transformers.ViTConfig(**{**given, "image_size": SIZE, "patch_size": 8, **changes})


def saved(model, folder, processor: PilBackend | None = PROCESSOR):
    with backbones.quiet(transformers):
        model.save_pretrained(folder)
        if processor is not None:
            processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Tiny random models, one for each way of pooling."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    clip = transformers.CLIPConfig(
        text_config={**text, "vocab_size": 50, "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 1},
        vision_config={**text, "image_size": SIZE, "patch_size": 8},
        projection_dim=12,
    )
    convnext = transformers.ConvNextConfig(depths=[1, 1], hidden_sizes=[8, 16], num_stages=2, patch_size=4)
    mae = transformers.ViTMAEConfig(
        **text, image_size=SIZE, patch_size=8, mask_ratio=0.75, decoder_num_hidden_layers=1
    )
    made = {
        "pooler output": transformers.ViTModel(vit()),
        "mean over tokens": transformers.ViTForImageClassification(vit(num_labels=5)),  # has no pooler
        "image features": transformers.CLIPModel(clip),
        "pooled": transformers.ConvNextModel(convnext),
        "classifier": transformers.ConvNextForImageClassification(convnext),
        "masked": transformers.ViTMAEModel(mae),
    }
    return {name: saved(model, root / name.replace(" ", "-")) for name, model in made.items()}


def write_photos(root, train=(7, 4), test=(2, 2), mode="RGB"):
    rng = np.random.default_rng(1)
    for part, sizes in (("train", train), ("test", test)):
        for name, n in zip(("cat", "lynx"), sizes, strict=True):
            folder = Path(root, part, name)
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
                Image.fromarray(pixels).convert(mode).save(folder / f"{part}{i // 2}_{i}.png")
    return Path(root)


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "longtail" / "features"


def test_images_of_tables_and_data_sets_bring_their_groups(models, photos, tmp_path):
    from longtail import Problem

    folder = photos / "train"
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    lines = [f"{name},{name.split('/')[0]},film{i // 2}" for i, name in enumerate(names)]
    (tmp_path / "t.csv").write_text("shot,animal,film\n" + "\n".join(lines) + "\n")
    columns = {"image": "shot", "label": "animal", "groups": "film"}
    plain = embed(folder, models["pooled"])
    table = embed(tmp_path / "t.csv", models["pooled"], root=folder, **columns)
    datasets = pytest.importorskip("datasets")
    rows = {"shot": [str(folder / n) for n in names], "animal": [n.split("/")[0] for n in names]}
    rows["film"] = [f"film{i // 2}" for i in range(len(names))]
    made = datasets.Dataset.from_dict(rows).cast_column("shot", datasets.Image())
    made.save_to_disk(tmp_path / "saved")
    saved_rows = embed(tmp_path / "saved", models["pooled"], **columns)
    for other in (table, saved_rows):
        np.testing.assert_array_equal(other.X, plain.X)
        assert other.y.tolist() == plain.y.tolist()
        assert other.groups.tolist() == rows["film"]
    assert plain.groups is None
    problem = Problem.from_images(tmp_path / "t.csv", models["pooled"], root=folder, **columns)
    assert (problem.name, problem.class_names) == ("t", ("cat", "lynx"))
    assert problem.groups.tolist() == np.unique(rows["film"], return_inverse=True)[1].tolist()
    # what is skipped takes its group along
    (folder / names[1]).write_bytes(b"broken")
    with pytest.warns(UserWarning, match="1 of 11 images"):
        left = embed(tmp_path / "t.csv", models["pooled"], root=folder, on_error="skip", **columns)
    assert left.groups.tolist() == rows["film"][:1] + rows["film"][2:]
    for wrong, message in (
        ({"groups": "reel"}, "groups='reel' is no column of .*'film'"),
        ({"groups_from": "x"}, "groups= is given beside groups_from="),
    ):
        with pytest.raises(ValueError, match=message):
            embed(tmp_path / "t.csv", models["pooled"], root=folder, **columns | wrong)
    with pytest.raises(ValueError, match="pooling is for features of pictures"):
        Problem.from_images(tmp_path / "t.csv", root=folder, pooling="mean", **columns)


def plainly(folder, images, how):
    """What a few lines of transformers give."""
    with backbones.quiet(transformers):
        model = transformers.AutoModel.from_pretrained(folder).eval()
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
    opened = [Image.open(images.name(i)).convert("RGB") for i in range(len(images))]
    pixels = processor(images=opened, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        if how == "image features":
            return model.get_image_features(pixel_values=pixels).pooler_output.numpy()
        output = model(pixel_values=pixels)
        if how == "pooler output":
            return output.pooler_output.flatten(1).numpy()
        if how == "first token":
            return output.last_hidden_state[:, 0].numpy()
        hidden = output.last_hidden_state
        return (hidden.mean(1) if hidden.ndim == 3 else hidden.mean((2, 3))).numpy()


# ---- the numbers


@pytest.mark.parametrize(
    ("model", "pooling", "how"),
    [
        ("pooler output", "auto", "pooler output"),
        ("pooler output", "mean", "mean over tokens"),
        ("pooler output", "first", "first token"),
        ("mean over tokens", "auto", "mean over tokens"),
        ("image features", "auto", "image features"),
        ("pooled", "auto", "pooler output"),
        ("pooled", "mean", "mean over places"),
        ("classifier", "auto", "pooler output"),
    ],
)
def test_features_are_the_plain_ways(model, pooling, how, models, photos):
    features = embed(photos, models[model], pooling=pooling, batch_size=3)
    train, test = list_images(photos)
    assert features.about["pooling"] == how
    assert features.X.dtype == np.float32
    for made, images in ((features.X, train), (features.X_test, test)):
        np.testing.assert_allclose(made, plainly(models[model], images, how), rtol=1e-4, atol=1e-5)
    assert len(np.unique(features.X.round(4), axis=0)) == len(train)


def test_a_masked_autoencoder_sees_the_whole_image(models, photos):
    one, two = (embed(photos, models["masked"], cache=photos / f".{i}").X for i in range(2))
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_a_model_that_draws_random_numbers_is_refused(models, monkeypatch):
    monkeypatch.setattr(transformers.ConvNextModel, "eval", lambda self: self.train())
    plain = transformers.ConvNextModel.forward

    def forward(self, pixel_values, **more):
        return plain(self, pixel_values + torch.randn_like(pixel_values), **more)

    monkeypatch.setattr(transformers.ConvNextModel, "forward", forward)
    with pytest.raises(ValueError, match="draws random numbers"):
        image_backbone(models["pooled"])


def test_a_pooler_that_the_weights_lack_is_never_drawn_at_random(models, photos):
    one, two = (embed(photos, models["mean over tokens"], cache=photos / f".{i}").X for i in range(2))
    np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match="has no weights for its pooler; give pooling='mean'"):
        image_backbone(models["mean over tokens"], pooling="pooler")


def test_the_file_holds_parts_names_paths_and_groups(models, photos, tmp_path):
    path = tmp_path / "f.npz"
    made = embed(photos, models["pooled"], out=path, groups_from=r"(\w+)/(\w+)_")
    loaded = Features.load(path)
    np.testing.assert_array_equal(loaded.X, made.X)
    assert loaded.class_names == ("cat", "lynx")
    assert loaded.y.tolist() == [0] * 7 + [1] * 4
    assert loaded.y_test.tolist() == [0, 0, 1, 1]
    assert loaded.paths[0] == "train/cat/train0_0.png"
    assert loaded.groups[[0, 1, 2, 7]].tolist() == ["cat/train0", "cat/train0", "cat/train1", "lynx/train0"]
    assert loaded.groups_test.tolist() == ["cat/test0"] * 2 + ["lynx/test0"] * 2
    assert set(loaded.about) == {"model", "pooling", "model_sha256"}


def test_a_folder_without_a_test_set_is_not_divided(models, tmp_path):
    inside = write_photos(tmp_path / "photos") / "train"
    features = embed(inside, models["pooled"])
    assert len(features) == 11
    assert features.X_test is None


def test_groups_in_both_parts_are_told(models, photos):
    with pytest.warns(UserWarning, match="2 groups are in both training and test, such as 'cat'"):
        embed(photos, models["pooled"], groups_from="cat|lynx")


def test_exif_and_grey_and_large_jpegs(models, tmp_path):
    """Turned by EXIF, they are the same as turned before; a large JPEG is decoded smaller, and close."""
    root = tmp_path / "photos"
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    large = coarse.resize((800, 600), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
    large.save(root / "a" / "0.png")
    large.save(root / "a" / "1.jpg", quality=98)
    large.transpose(Image.Transpose.ROTATE_90).save(root / "a" / "2.png", exif=exif)
    large.convert("L").save(root / "b" / "0.png")
    large.convert("L").convert("RGB").save(root / "b" / "1.png")
    X = embed(root, models["pooler output"]).X
    np.testing.assert_allclose(X[2], X[0], atol=1e-6)
    np.testing.assert_allclose(X[4], X[3], atol=1e-6)
    far = np.abs(X[3] - X[0]).max()
    assert np.abs(X[1] - X[0]).max() < 0.1 * far


def test_size_prepares_as_the_evaluation_transform(models, photos, tmp_path):
    from longtail.datasets.images import EvalTransform

    train, _ = list_images(photos)
    backbone = image_backbone(models["pooled"], size=48)
    assert backbone.processor == EvalTransform(48, (0.5,) * 3, (0.5,) * 3)  # the processor's mean
    with train.open(0) as image:
        assert backbone.prepare(image).shape == (3, 48, 48)
    config = transformers.ConvNextConfig(depths=[1], hidden_sizes=[8], num_stages=1)
    bare = saved(transformers.ConvNextModel(config), tmp_path / "bare", None)
    with pytest.raises(ValueError, match=r"has no image processor .*; give size=, such as 224"):
        image_backbone(bare)
    assert image_backbone(bare, size=48).processor == EvalTransform(48)


# ---- once


def counting(monkeypatch):
    """Count what goes through networks."""
    seen = []
    plain = backbones.ImageBackbone.features

    def features(self, batch, device):
        seen.append(len(batch))
        return plain(self, batch, device)

    monkeypatch.setattr(backbones.ImageBackbone, "features", features)
    return seen


def test_a_row_is_computed_once_for_a_content(models, photos, monkeypatch, tmp_path, own_cache):
    seen = counting(monkeypatch)
    same = photos / "train" / "cat" / "copy.png"
    same.write_bytes((photos / "train" / "cat" / "train0_0.png").read_bytes())
    first = embed(photos, models["pooled"], batch_size=4)
    assert seen == [4, 4, 4, 3]  # 16 images, two of one content
    np.testing.assert_array_equal(first.X[0], first.X[list(first.paths).index("train/cat/copy.png")])
    os.rename(photos, tmp_path / "moved")
    again = embed(tmp_path / "moved", models["pooled"], batch_size=4)
    assert len(seen) == 4
    np.testing.assert_array_equal(first.X, again.X)
    Image.new("RGB", (40, 40), "red").save(tmp_path / "moved" / "train" / "lynx" / "new.png")
    embed(tmp_path / "moved", models["pooled"], batch_size=4)
    assert sum(seen) == 16
    embed(tmp_path / "moved", models["pooled"], pooling="mean")  # other features
    assert sum(seen) == 32
    assert len([*own_cache.iterdir()]) == 2


def test_other_weights_in_the_same_folder_make_other_features(models, photos, tmp_path):
    folder = saved(transformers.ConvNextModel.from_pretrained(models["pooled"]), tmp_path / "model")
    before = embed(photos, folder).X
    weights = load_file(Path(folder, "model.safetensors"))
    save_file(
        {name: 2 * w for name, w in weights.items()}, Path(folder, "model.safetensors"), {"format": "pt"}
    )
    assert not np.allclose(embed(photos, folder).X, before)


def test_what_fails_halfway_keeps_what_is_done(models, photos, monkeypatch):
    whole = embed(photos, models["pooled"], batch_size=2, cache=photos / ".whole", workers=0)
    plain = backbones.ImageBackbone.features
    left = iter([True, True, True])

    def until(self, batch, device):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return plain(self, batch, device)

    monkeypatch.setattr(backbones.ImageBackbone, "features", until)
    with pytest.raises(KeyboardInterrupt):
        embed(photos, models["pooled"], batch_size=2, workers=0)
    monkeypatch.setattr(backbones.ImageBackbone, "features", plain)
    seen = counting(monkeypatch)
    again = embed(photos, models["pooled"], batch_size=2, workers=0)
    assert sum(seen) == 15 - 6
    np.testing.assert_array_equal(again.X, whole.X)
    np.testing.assert_array_equal(again.X_test, whole.X_test)


def test_a_damaged_file_of_the_cache_is_made_again(models, photos, own_cache):
    before = embed(photos, models["pooled"])
    (path,) = own_cache.glob("*/*.npz")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="cannot be read .*computed again"):
        again = embed(photos, models["pooled"])
    np.testing.assert_array_equal(before.X, again.X)


def slowly(out, *arguments):
    """Make features by the command line in a process of its own, which says each batch."""
    torch.set_num_threads(1)
    plain, embedding._EVERY = backbones.ImageBackbone.features, 0.0

    def features(self, batch, device):
        time.sleep(0.3)
        out.send(len(batch))
        return plain(self, batch, device)

    backbones.ImageBackbone.features = features
    sys.argv = ["longtail", "embed", *map(str, arguments)]
    cli.main()


def test_a_kill_costs_little_and_changes_nothing(models, photos, tmp_path, own_cache, monkeypatch):
    """One process is at work, another waits; the first is killed, and the second goes on from there."""
    whole = embed(photos, models["pooled"], batch_size=2, cache=tmp_path / "other")
    fresh = multiprocessing.get_context("spawn")  # a forked one may be stuck
    said, out = fresh.Pipe(duplex=False)
    options = ("--model", models["pooled"], "-o", tmp_path / "f.npz", "--batch-size", "2")
    process = fresh.Process(target=slowly, args=(out, photos, *options))
    process.start()
    assert [said.recv() for _ in range(3)] == [2, 2, 2]
    seen = counting(monkeypatch)

    def kill_while_another_waits():
        with ThreadPoolExecutor(1) as other:
            waiting = other.submit(embed, photos, models["pooled"], batch_size=2)
            assert said.recv() == 2
            time.sleep(0.1)
            process.kill()
            process.join()
            return waiting.result()

    with pytest.warns(UserWarning, match="waiting for it"):
        features = kill_while_another_waits()
    assert not (tmp_path / "f.npz").exists()
    assert 0 < sum(seen) <= 15 - 2 * 2
    kept = sum(len(np.load(path)["keys"]) for path in own_cache.glob("*/*.npz"))
    assert kept == 15  # none twice
    np.testing.assert_array_equal(features.X, whole.X)
    np.testing.assert_array_equal(features.X_test, whole.X_test)


# ---- bad images, bad models, bad options


def break_one(photos, at=200):
    path = photos / "train" / "cat" / "train1_2.png"
    content = path.read_bytes()
    # the header and the end are right, so that only decoding finds it
    path.write_bytes(content[:at] + bytes(len(content) - at - 20) + content[-20:])
    return path


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_decoded_is_named_or_left_out(workers, models, photos, monkeypatch):
    monkeypatch.setattr(embedding, "_FEW", 0)
    whole = embed(photos, models["pooled"])
    path = break_one(photos)
    with pytest.raises(UnreadableImageError, match=r"train1_2.png cannot be read"):
        embed(photos, models["pooled"], workers=workers)
    with pytest.warns(
        UserWarning, match="1 of 11 images are left out, they cannot be read: image .*train1_2"
    ):
        less = embed(photos, models["pooled"], on_error="skip", workers=workers)
    assert len(less) == 10
    assert path.relative_to(photos).as_posix() not in less.paths
    np.testing.assert_array_equal(less.X, np.delete(whole.X, 2, 0))
    path.write_bytes(b"no image")  # found before
    with pytest.warns(UserWarning, match="left out"):
        assert len(embed(photos, models["pooled"], on_error="skip")) == 10


def test_a_class_without_a_readable_image_is_an_error(models, tmp_path):
    photos = write_photos(tmp_path / "photos", train=(4, 1))
    path = photos / "train" / "lynx" / "train0_0.png"
    path.write_bytes(path.read_bytes()[:200] + bytes(500) + path.read_bytes()[-20:])
    with pytest.raises(UnreadableImageError, match="class 'lynx' has no readable image"):
        embed(photos, models["pooled"], on_error="skip")


def without_weights(folder):
    Path(folder, "model.safetensors").unlink()


def pickled(folder):
    without_weights(folder)
    Path(folder, "pytorch_model.bin").write_bytes(b"\x80\x04.")


def cut_short(folder):
    path = Path(folder, "model.safetensors")
    path.write_bytes(path.read_bytes()[:-100])


def lacking(folder):
    path = Path(folder, "model.safetensors")
    weights = load_file(path)
    save_file({n: w for n, w in weights.items() if "encoder" not in n}, path, {"format": "pt"})


def not_finite(folder):
    path = Path(folder, "model.safetensors")
    save_file({n: w * float("nan") for n, w in load_file(path).items()}, path, {"format": "pt"})


def without_config(folder):
    Path(folder, "config.json").unlink()


def without_processor(folder):
    Path(folder, "preprocessor_config.json").unlink()


def of_text(folder):
    saved(transformers.BertModel(transformers.BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1,
          num_attention_heads=2, intermediate_size=16)), folder)  # fmt: skip


def strange_config(folder):
    Path(folder, "config.json").write_text(json.dumps({"model_type": "unheard-of"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_weights, "has no weights (no .safetensors beside its config.json)"),
        (pickled, "has its weights only in pytorch_model.bin, which runs code when it is read"),
        (cut_short, "cannot be loaded: "),
        (lacking, "lacks 16 of its tensors, first layers.0.attention."),
        (not_finite, "gives NaN or infinite features of "),
        (without_config, "has no config.json"),
        (without_processor, "has no image processor"),
        (of_text, "(BertModel) takes no images"),
        (strange_config, "cannot be loaded: "),
    ],
)
def test_a_bad_model_is_one_line(damage, message, models, photos, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "model"
    saved(transformers.ViTModel(vit()), folder)
    damage(folder)
    error = refused(monkeypatch, capsys, photos, "--model", str(folder), "-o", str(tmp_path / "f.npz"))
    assert message in error
    assert "longtail" not in error.replace(str(tmp_path), "")
    assert not (tmp_path / "f.npz").exists()


def refused(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["longtail", "embed", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert len(captured.err.strip().splitlines()) == 1, captured.err
    return captured.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model", "./nowhere"], "model folder './nowhere' is not there; check the path"),
        (["--model", "nobody/nothing"], "and the Hugging Face hub did not give it ("),
        (["--groups-from", "(x"], "--groups-from must be a regular expression, got '(x'"),
        (["--groups-from", "(dog)"], "--groups-from '(dog)' finds nothing in 'train/cat/train0_0.png'"),
        (["--pooling", "max"], "pooling must be one of 'auto', 'pooler', 'mean', 'first', got 'max'"),
        (["--pooling", "first"], "has no tokens to take the first of; give --pooling 'mean'"),
        (["--size", "0"], "size must be in [1, inf], got 0"),
        (["--device", "tpu"], "device must be 'auto'"),
        (["-o", "f.csv"], "out must end in .npz, got 'f.csv'"),
        (["-o", "mine.npz"], "--out 'mine.npz' is there and was not made by this"),
    ],
)
def test_bad_options_are_one_line(more, message, models, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    np.savez("mine.npz", X=np.ones(3))
    given = {"--model": models["pooled"], "-o": "f.npz"} | dict(zip(more[::2], more[1::2], strict=True))
    assert message in refused(monkeypatch, capsys, photos, *(x for pair in given.items() for x in pair))
    assert np.load("mine.npz")["X"].tolist() == [1, 1, 1]


def test_the_command_says_what_it_made_and_may_be_repeated(models, photos, tmp_path, monkeypatch, capsys):
    out = tmp_path / "f.npz"
    arguments = ["longtail", "embed", str(photos), "--model", models["pooled"], "-o", str(out)]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", [*arguments, "--groups-from", r"(\w+/\w+)_"])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
        said = capsys.readouterr().out
        assert (
            "11 rows to train on and 4 to test, 16 features each (pooler output), 2 classes, 6 groups" in said
        )
        assert f"longtail compare {out}" in said
    assert longtail.embed is embed


def test_a_cache_that_cannot_be_written_is_named(models, photos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write features into .*give another cache folder"):
        embed(photos, models["pooled"], cache=tmp_path / "file")
