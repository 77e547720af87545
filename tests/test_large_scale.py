"""Table 3: presets, official layouts in miniature from real photographs, and what a wrong folder says."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from PIL import Image
from sklearn.datasets import load_sample_images
from transformers import ResNetConfig

from longtail.paper import large_scale
from longtail.paper.large_scale import Published, load_official, plan
from longtail.paper.results import read_rows
from longtail.paper.settings import large, measure
from longtail.paper.tables import plan_table, table
from longtail.training import learning_rate_at

ROOT = Path(__file__).parents[1]
CLASSES, TRAIN, TEST = 6, (10, 5, 4, 3, 2, 2), 2
SMALL = Published(CLASSES, sum(TRAIN), CLASSES * TEST, 5.0)
TRIAL = {"batch_size": 8, "epochs": 1, "schedule": "constant", "milestones": (), "warmup_epochs": 0}


def photo(path, number):
    picture = load_sample_images().images[number % 2]
    y, x = 7 * number % 300, 11 * number % 500
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture[y : y + 96, x : x + 128]).save(path, quality=90)


def inaturalist(root, year):
    """The official layout: train_val_images/SUPERCATEGORY/NAME/ID.jpg, and COCO's kind of annotations."""
    number = 0
    for part, sizes in ((f"train{year}", TRAIN), (f"val{year}", (TEST,) * CLASSES)):
        content = {"info": {"year": year}, "images": [], "annotations": [], "categories": []}
        for c, n in enumerate(sizes):
            content["categories"].append({"id": c, "name": f"Genus species{c}", "supercategory": "Aves"})
            for _ in range(n):
                file = f"train_val_images/Aves/Genus species{c}/{number}.jpg"
                photo(root / file, number)
                content["images"].append({"id": number, "file_name": file})
                content["annotations"].append({"id": number, "image_id": number, "category_id": c})
                number += 1
        (root / f"{part}.json").write_text(json.dumps(content))


def ilsvrc(root):
    """ILSVRC's: ILSVRC/Data/CLS-LOC/train/nXXXXXXXX, a flat val and LOC_val_solution.csv."""
    data, lines = root / "ILSVRC" / "Data" / "CLS-LOC", ["ImageId,PredictionString"]
    for c, n in enumerate(TRAIN):
        for i in range(n):
            photo(data / "train" / f"n0000000{c}" / f"n0000000{c}_{i}.JPEG", 10 * c + i)
        for i in range(TEST):
            name = f"ILSVRC2012_val_{c * TEST + i:08d}"
            photo(data / "val" / f"{name}.JPEG", 50 * c + i)
            lines.append(f"{name},n0000000{c} 1 2 3 4")
    (root / "LOC_val_solution.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    root = tmp_path_factory.mktemp("official")
    for year in (2017, 2018):
        inaturalist(root / f"inaturalist{year}", year)
    ilsvrc(root / "ilsvrc2012")
    return root


def test_the_table_is_the_published_one():
    assert len(large()) == 27
    with (ROOT / "src" / "longtail" / "paper" / "table3.csv").open() as file:
        rows = list(csv.DictReader(file))
    for setting, row in zip(large(), rows, strict=True):
        recipe = setting.recipe
        assert (recipe.dataset, recipe.model, recipe.size) == (
            row["dataset"],
            row["network"],
            int(row["input_size"]),
        )
        errors = {name: float(row[f"{name}_percent"]) for name in ("top1_error", "top5_error")}
        assert setting.published == errors
        beta = recipe.beta if recipe.scheme == "effective" else 0.0
        assert (recipe.loss, beta) == (row["loss"], float(row["beta"]))
        assert row["gamma"] == ("" if recipe.loss == "softmax" else f"{recipe.gamma:g}")
        # per 256 images: 0.1 for softmax; for focal 0.2 on ImageNet, 0.4 on iNaturalist
        rate = 0.1 if recipe.loss == "softmax" else 0.2 if recipe.dataset == "ilsvrc2012" else 0.4
        assert recipe.learning_rate == pytest.approx(rate * 1024 / 256)
        assert (recipe.batch_size, recipe.momentum, recipe.weight_decay) == (1024, 0.9, 1e-4)
        rates = [
            learning_rate_at(recipe, epoch * 10, 10) / recipe.learning_rate
            for epoch in (5, 29, 30, 60, 80, 89)
        ]
        assert rates == pytest.approx([1, 1, 0.1, 0.01, 0.001, 0.001])
        assert recipe.mean == (
            (0.485, 0.456, 0.406) if recipe.dataset == "ilsvrc2012" else (0.466, 0.471, 0.380)
        )


def test_a_trial_keeps_the_schedules_shape():
    whole, trial = (large()[0].with_epochs(epochs).recipe for epochs in (None, 18))
    assert trial == whole.replace(epochs=18, milestones=(6, 12, 16), warmup_epochs=1)


@pytest.mark.parametrize("dataset", ["inaturalist2017", "inaturalist2018", "ilsvrc2012"])
def test_a_miniature_of_each_layout_runs_from_end_to_end(dataset, layouts, tmp_path):
    small = tmp_path / "net"
    ResNetConfig(
        depths=[1, 1], hidden_sizes=[8, 16], embedding_size=8, layer_type="bottleneck"
    ).save_pretrained(small)
    settings = large(datasets=[dataset], networks=["resnet50"], sizes=[224])
    results = tmp_path / "table3.csv"
    options = {"published": SMALL, "runs": tmp_path / "runs"}
    changes = {**TRIAL, "size": 32, "model": str(small)}
    if dataset == "ilsvrc2012":  # once the network that is meant
        changes.pop("model")
        settings = settings[1:]
    trial = [setting.replace(**changes) for setting in settings]
    trained = large_scale.reproduce_large(trial, layouts / dataset, results, **options)
    assert trained == len(trial)
    rows = read_rows(results, "table3")
    assert [(row["dataset"], row["loss"], row["epochs"]) for row in rows] == [
        (dataset, setting.recipe.loss, "1") for setting in trial
    ]
    assert all(0 <= float(row["top5_error_percent"]) <= float(row["top1_error_percent"]) for row in rows)
    assert large_scale.reproduce_large(trial, layouts / dataset, results, **options) == 0  # all is there
    assert measure(settings, rows)[0].summary() is None  # a trial is not the paper's 90 epochs
    (measured, *_) = measure(trial, rows)
    assert measured.summary().mean == float(rows[0]["top1_error_percent"])
    assert measured.summary("top5_error").mean == float(rows[0]["top5_error_percent"])
    assert table([measured]).row_count == 1
    (recipe, *_) = trial[0].replace(precision="bf16").recipes
    other = {"recipe_hash": recipe.short_hash, "precision": "bf16", "top1_error_percent": "99"}
    assert measure(trial, [*rows, rows[0] | other])[0] == measured  # a seed counts once


def test_a_wrong_folder_is_found_before_training(layouts, tmp_path):
    with pytest.raises(
        ValueError,
        match=r"is not inaturalist2018 as published: it has 6 classes, not 8,142; 26 training images, not "
        r"437,513; 12 validation images, not 24,426; 5\.0 as imbalance factor, not 500\.0",
    ):
        load_official("inat2018", layouts / "inaturalist2018")
    with pytest.raises(FileNotFoundError, match=r"train2018\.json is not there"):
        load_official("inaturalist2018", layouts / "inaturalist2017")
    with pytest.raises(FileNotFoundError, match="data folder nowhere is not there"):
        load_official("ilsvrc2012", "nowhere")
    with pytest.raises(ValueError, match="dataset must be one of 'inaturalist2017'"):
        load_official("cifar10", layouts)
    images = load_official("ilsvrc2012", layouts / "ilsvrc2012", published=SMALL)
    assert [len(part) for part in images] == [26, 12]
    with pytest.raises(ValueError, match="rows of 3; name one by --dataset"):
        large_scale.reproduce_large(large(), layouts, tmp_path / "table3.csv")
    for options, message in (
        ({"networks": ["resnet34"]}, "network must be one of"),
        ({"sizes": [256]}, "size must be one of 224, 320, got 256"),
        ({"sizes": [320], "losses": ["softmax"]}, "no such row"),
    ):
        with pytest.raises(ValueError, match=message):
            large(**options)


def test_the_plan_counts_what_it_can(layouts):
    images = load_official("inat2018", layouts / "inaturalist2018", published=SMALL)
    recipe = large(datasets=["inat2018"], networks=["resnet50"], losses=["focal"])[0].recipe
    recipe = recipe.replace(size=64, batch_size=8)
    found = plan(recipe, images, device="cpu", device_batch=4, processes=2)
    assert (found.steps, found.device_batch, found.accumulated, found.processes) == (3, 4, 1, 2)
    assert found.parameters == 25_557_032 - 2049 * (1000 - CLASSES)
    # what autograd keeps of an image: between the outputs of all convolutions once and thrice
    convolutions = sum(channels * (64 // stride) ** 2 for channels, stride in _outputs_of_resnet50())
    kept = (found.memory - 16 * found.parameters) / 4 / 4
    assert convolutions < kept < 3 * convolutions
    assert found.hours > 0
    assert found.cores > 0
    assert plan_table(found).row_count == 10


def _outputs_of_resnet50():
    yield 64, 2
    width, stride = 64, 4
    for blocks in (3, 4, 6, 3):
        for i in range(blocks):
            if i == 0:
                yield 4 * width, stride
            yield width, stride // 2 if i == 0 and stride > 4 else stride
            yield width, stride
            yield 4 * width, stride
        width, stride = 2 * width, 2 * stride
