"""Run folders that the first version wrote (commit 9a802dc): they open for ever, and stopped runs go on."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from folders import write_photos, write_tiny
from longtail import recipes
from longtail.compare.runs import find_runs
from longtail.predict import Classifier
from longtail.training import evaluate_run, load_run, manifest, train, verify_run

FOLDERS = Path(__file__).parent / "data" / "first_version_folders"
ROUGH = {"rtol": 0.01, "atol": 0.01}  # another processor adds in another order


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(FOLDERS, tmp_path / "runs"))


def losses(run):
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_in_memory_is_read_evaluated_and_reported(folder):
    run = folder / "digits-finished"
    read = load_run(run)
    assert read.recipe == recipes.digits(epochs=2, warmup_epochs=0)
    assert [one.loss for one in read.history] == losses(run)
    assert abs(evaluate_run(run, device="cpu").error - read.evaluation.error) < 0.01
    assert Classifier(run).class_names == tuple("0123456789")
    assert all(one.ok for one in verify_run(run))
    assert [one.recipe for one in find_runs([run])[0]] == [read.recipe]
    again = train(read.recipe, run, device="cpu", threads=1)
    assert again.evaluation == read.evaluation
    assert not (run / "manifest.json").exists()  # it was read, not written


def test_a_run_in_memory_goes_on(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # its checkpoint is whole
        run = train(recipes.digits(epochs=2, warmup_epochs=0), folder / "digits-stopped", threads=1)
    assert losses(run.run_dir)[0] == losses(FOLDERS / "digits-stopped")[0]
    np.testing.assert_allclose(losses(run.run_dir), losses(FOLDERS / "digits-finished"), **ROUGH)
    assert manifest.check(run.run_dir)


def test_a_run_over_the_trainer_is_read_and_goes_on(folder, monkeypatch):
    pytest.importorskip("transformers")
    from longtail.training.finetune import finetune

    monkeypatch.chdir(folder)
    write_photos("photos", counts=(18, 12, 8))
    write_tiny("tiny")
    finished, stopped = folder / "photos-finished", folder / "photos-stopped"
    before = load_run(finished)
    assert evaluate_run(finished, device="cpu").per_class_error == before.evaluation.per_class_error
    assert Classifier(finished)(next(Path("photos/val").rglob("*.jpg"))).best in before.model.config.label2id
    steps = {"logging_steps": 1, "save_strategy": "steps", "save_steps": 2}
    run = finetune(before.recipe, "photos", stopped, workers=0, device="cpu", arguments=steps)
    assert run.seconds > json.loads((FOLDERS / "photos-stopped" / "environment.json").read_text())["seconds"]
    np.testing.assert_allclose(losses(stopped), losses(finished), rtol=1e-4)
    for one, other in zip(run.model.parameters(), before.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert sorted(p.name for p in (stopped / "checkpoints").iterdir()) == ["checkpoint-4", "checkpoint-6"]
    assert all(one.ok for one in verify_run(stopped))
