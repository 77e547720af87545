"""Finished runs and checkpoints are what was written, or are refused by name in one line."""

import json
import os
import shutil
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from folders import flip, unseal
from longtail import cli, recipes
from longtail.compare import Problem, compare
from longtail.compare.runs import find_runs
from longtail.predict import Classifier
from longtail.training import RunFolderError, evaluate_run, load_run, manifest, train, verify_run
from longtail.training.checkpoint import load_latest, save
from longtail.training.files import read_json

FILES = {
    *("recipe.json", "environment.json", "metrics.jsonl", "model.safetensors", "evaluation.json"),
    "predictions.npz",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(recipes.digits(epochs=2, warmup_epochs=0), folder, device="cpu", threads=1, checkpoint_every=1)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def command(monkeypatch, capsys):
    """Run longtail in this process: exit status, output, errors."""

    def running(*arguments):
        monkeypatch.setattr(sys, "argv", ["longtail", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, *capsys.readouterr()

    return running


def in_one_line(text, *parts):
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    for part in parts:
        assert part in text


def test_a_finished_run_lists_every_file_with_its_checksum(finished):
    listed = json.loads((finished / "manifest.json").read_text())["files"]
    assert set(listed) == FILES
    assert {name: one["bytes"] for name, one in listed.items()} == {
        name: (finished / name).stat().st_size for name in FILES
    }
    assert all(one.ok for one in verify_run(finished))
    assert {one.name for one in verify_run(finished)} >= {*FILES, "manifest.json"}
    assert sum(one.name.startswith("checkpoints/") for one in verify_run(finished)) == 2


def test_any_flipped_bit_of_any_file_is_refused_and_named(run, rng):
    for name in [*FILES, "manifest.json"]:
        size = (run / name).stat().st_size
        for at in {0, size - 1, *rng.integers(0, size, 12).tolist()}:
            bit = int(rng.integers(0, 8))
            flip(run / name, at, bit)
            with pytest.raises(ValueError, match=rf"is damaged \({name.replace('.', '[.]')} .*back a copy"):
                load_run(run)
            found, (left,) = find_runs([run])
            assert found == []
            assert left.why.startswith("damaged: ")
            assert [one.name for one in verify_run(run) if not one.ok] == [name]
            flip(run / name, at, bit)
    assert load_run(run).evaluation


@pytest.mark.parametrize("name", sorted(FILES - {"evaluation.json"} | {"manifest.json"}))
def test_a_file_that_is_gone_or_cut_short_is_named(run, name, command):
    data = (run / name).read_bytes()
    (run / name).write_bytes(data[: len(data) // 2])
    for verb in ("evaluate", "verify"):
        status, _, errors = command(verb, run)
        assert status == 2
        in_one_line(errors, name)
    (run / name).unlink()
    for verb in ("evaluate", "verify"):
        status, _, errors = command(verb, run)
        assert status == 2
        in_one_line(errors, name)


def test_verify_says_which_and_that_the_others_are_whole(run, finished, command):
    flip(run / "checkpoints" / "checkpoint-000002.safetensors", -3)
    status, out, errors = command("verify", finished, run)
    assert status == 2
    assert f"{finished} is whole: 9 files" in out
    assert "checkpoint-000002.safetensors cannot be used: its content does not match its checksum" in out
    in_one_line(errors, "1 of 18 files are damaged", "checkpoint-000002")
    status, out, errors = command("verify", finished, "--format", "json")
    assert (status, errors) == (0, "")
    assert {row["damage"] for row in json.loads(out)} == {None}
    for wrong, why in (("nowhere", "is not a folder"), (run / "checkpoints", "holds no run")):
        status, _, errors = command("verify", wrong)
        assert status == 2
        in_one_line(errors, why)


def test_verify_takes_all_runs_of_a_folder_and_names_those_that_fail(finished, tmp_path, command):
    places = [tmp_path / "all" / name / "seed0" for name in ("plain", "inverse", "effective", "ldam")]
    for place in places:
        shutil.copytree(finished, place)
    shutil.rmtree(places[3] / "checkpoints")
    files = 3 * 9 + 7
    status, out, errors = command("verify", tmp_path / "all")
    assert (status, out, errors) == (0, f"{tmp_path / 'all'}: 4 of 4 runs are whole, {files} files\n", "")
    flip(places[0] / "metrics.jsonl", -3)
    (places[1] / "recipe.json").unlink()
    (places[1] / "evaluation.json").unlink()  # the manifest says that there was a run
    for name in ("evaluation.json", "manifest.json"):
        (places[3] / name).unlink()
    status, out, errors = command("verify", tmp_path / "all", finished)
    assert status == 2
    assert f"{places[0] / 'metrics.jsonl'} does not match its checksum\n" in out
    assert f"{places[1] / 'recipe.json'} is missing\n" in out
    assert f"{places[3]} is not finished; the command that began it goes on\n" in out
    assert f"{tmp_path / 'all'}: 1 of 4 runs are whole, 9 files\n{finished} is whole: 9 files\n" in out
    in_one_line(errors, "3 of 36 files are damaged in 2 of 5 runs (", str(places[0]), str(places[1]))
    status, out, _ = command("verify", tmp_path / "all", "--format", "csv")
    told = [line.split(",") for line in out.splitlines()[1:]]
    assert {row[0] for row in told if row[2]} == {str(places[0]), str(places[1])}


def test_verify_names_the_runs_of_a_comparison_that_are_gone(tmp_path, command):
    short, out = recipes.digits(epochs=1, warmup_epochs=0), tmp_path / "out"
    asked = {"methods": ["plain", "effective"], "seeds": 2, "device": "cpu", "jobs": 1}
    compare(short, out=out, **asked)
    assert command("verify", tmp_path) == (0, f"{tmp_path}: 4 of 4 runs are whole, 28 files\n", "")
    shutil.rmtree(out / "effective" / "seed1")
    status, told, errors = command("verify", tmp_path)
    assert status == 2
    assert f"{out / 'compare.csv'} lists a run that is gone: softmax effective, seed 1\n" in told
    assert f"{tmp_path}: 3 of 4 runs are whole, 21 files\n" in told
    remedy = "start the same longtail compare again, which trains what is missing"
    in_one_line(
        errors, f"a run that compare.csv lists is gone from '{out}'", "'softmax effective, seed 1'", remedy
    )
    flip(out / "plain" / "seed0" / "metrics.jsonl", -3)
    in_one_line(
        command("verify", out)[2], "1 of 21 files are damaged in 1 of 3 runs", "put back a copy", remedy
    )
    flip(out / "plain" / "seed0" / "metrics.jsonl", -3)
    told = json.loads(command("verify", out, "--format", "json")[1])
    assert told[-1] | {"run": ""} == {
        **{"run": "", "file": "compare.csv"},
        "damage": "lists a run that is gone: softmax effective, seed 1",
    }
    compare(short, out=out, **asked)  # the remedy
    assert command("verify", out)[0] == 0
    (out / "plain" / "seed0" / "recipe.json").unlink()  # damaged, not gone
    assert "gone" not in command("verify", out)[2]
    for name in ("plain", "effective"):
        shutil.rmtree(out / name)
    in_one_line(command("verify", out)[2], "4 runs that compare.csv lists are gone")


def test_verify_names_the_folds_of_a_comparison_that_are_gone(tmp_path, command):
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{i % 7},{'ab'[i % 3 == 0]}\n" for i in range(60)))
    problem = Problem.from_table(tmp_path / "t.csv", "y")
    asked = {"learners": ["logistic_regression"], "folds": 2, "repeats": 1}
    compare(problem, ["plain", "inverse"], out=tmp_path / "out", jobs=1, **asked)
    assert command("verify", tmp_path / "out")[0] == 0
    shutil.rmtree(tmp_path / "out" / "inverse" / "fold1")
    in_one_line(command("verify", tmp_path / "out")[2], "inverse, fold 1'; start the same longtail compare")


def test_runs_of_earlier_versions_are_read_without_checksums(run, command):
    unseal(run)
    assert load_run(run).evaluation
    assert evaluate_run(run, device="cpu") == load_run(run).evaluation
    assert command("verify", run)[0] == 0
    assert len(find_runs([run])[0]) == 1
    flip(run / "model.safetensors", 5)  # in its header: all that is known of it
    assert not verify_run(run)[0].ok


def read_about(file):
    with safe_open(file, framework="pt") as opened:
        return opened.metadata()


def test_weights_of_another_shape_are_refused_in_a_folder_without_checksums_too(run):
    unseal(run)
    weights = load_file(run / "model.safetensors")
    about = read_about(run / "model.safetensors")
    for change in ("head.bias", None):
        other = {k: v for k, v in weights.items() if k != change}
        if change is None:
            other["head.bias"] = torch.zeros(11)
        save_file(other, run / "model.safetensors", metadata=about)
        with pytest.raises(ValueError, match=r"the run in .* is damaged .*head.bias.*train again"):
            load_run(run)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
def test_links_out_of_the_folder_are_refused(run, tmp_path):
    (tmp_path / "elsewhere").write_bytes((run / "model.safetensors").read_bytes())
    (run / "model.safetensors").unlink()
    (run / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"model.safetensors is a link out of the folder"):
        Classifier(run)
    (tmp_path / "alias").symlink_to(run)  # a folder may be reached through a link
    assert verify_run(tmp_path / "alias")[1].name
    (run / "model.safetensors").unlink()
    shutil.copy(tmp_path / "elsewhere", run / "model.safetensors")
    assert load_run(tmp_path / "alias").evaluation


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "manifest.json cannot be read"),
        ("{}", "manifest.json cannot be read"),
        ('{"format": 9, "files": {}, "sha256": ""}', "format 9, this version of longtail reads 1"),
        ('{"format": 1, "files": {"../x": {"bytes": 1, "sha256": "a"}}, "sha256": ""}', "its checksum"),
        ("\x00\xff", "manifest.json cannot be read"),
    ],
)
def test_manifests_by_hand(run, text, message):
    (run / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        load_run(run)


def test_a_manifest_by_hand_leads_nowhere(run, tmp_path):
    (tmp_path / "secret").write_text("x")
    for name in ("../secret", str(tmp_path / "secret"), "a\0b", "checkpoints"):
        entries = {name: {"bytes": 1, "sha256": "0"}}
        manifest.write_atomic(
            run / "manifest.json",
            json.dumps({"format": 1, "files": entries, "sha256": manifest._of_entries(entries)}).encode(),
        )
        with pytest.raises(ValueError, match=r"link out|is no file|cannot be read|is missing"):
            load_run(run)


def test_json_that_is_nested_100000_deep_is_one_line(run, command):
    unseal(run)
    deep = b"[" * 100_000 + b"]" * 100_000
    for name in ("environment.json", "evaluation.json", "recipe.json", "metrics.jsonl"):
        before = (run / name).read_bytes()
        (run / name).write_bytes(deep)
        status, _, errors = command("evaluate", run)
        assert status == 2
        in_one_line(errors, "damaged")
        find_runs([run])  # the others are read
        (run / name).write_bytes(before)
    (run / "model.safetensors").write_bytes((2**40).to_bytes(8, "little") + b"{}")  # a header of a terabyte
    status, _, errors = command("evaluate", run)
    assert status == 2
    in_one_line(errors, "damaged")


def test_hashes_are_taken_once_a_process_and_again_after_a_change(run, monkeypatch):
    taken = []
    real = manifest.hashlib.file_digest
    monkeypatch.setattr(manifest.hashlib, "file_digest", lambda *a: taken.append(1) or real(*a))
    load_run(run)
    load_run(run)
    assert len(taken) == len(FILES)
    flip(run / "model.safetensors", -1)  # of the same size
    os.utime(run / "model.safetensors", ns=(0, 0))
    with pytest.raises(ValueError, match=r"model.safetensors does not match its checksum"):
        load_run(run)


def test_large_files_of_a_report_are_compared_by_size(run, monkeypatch):
    monkeypatch.setattr("longtail.compare.runs._HASHED", 100)
    flip(run / "model.safetensors", -1)
    assert find_runs([run])[1] == []
    with (run / "model.safetensors").open("ab") as file:
        file.write(b"x")
    assert "model.safetensors has" in find_runs([run])[1][0].why


def test_predictions_of_a_report_are_checked_whole_however_large_they_are(run, monkeypatch):
    monkeypatch.setattr("longtail.compare.runs._HASHED", 100)
    file = run / "predictions.npz"
    flip(file, file.stat().st_size // 2)
    assert find_runs([run])[1][0].why == "damaged: predictions.npz does not match its checksum"


def test_the_newest_checkpoint_is_that_of_most_epochs_whatever_the_clock_says(tmp_path):
    for epoch, clock in ((999_999, 3e9), (1_000_000, 2e9), (1_000_001, 1e9)):
        path = save(tmp_path, {"w": torch.ones(1)}, epoch=epoch, recipe_hash="a" * 64)
        os.utime(path, (clock, clock))
    assert load_latest(tmp_path, "a" * 64).epoch == 1_000_001
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-1000000.safetensors",
        "checkpoint-1000001.safetensors",
    ]


def test_an_unfinished_runs_damaged_environment_is_said(run):
    (run / "evaluation.json").unlink()
    (run / "environment.json").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"environment.json is no JSON .*; put back a copy of it, or train"):
        train(recipes.digits(epochs=2, warmup_epochs=0), run, device="cpu", threads=1)


def test_a_folder_that_cannot_be_sealed_is_one_line(run, monkeypatch):
    with pytest.raises((RunFolderError, OSError)):
        manifest.seal(run / "nowhere", ["x"])
    assert read_json(run / "manifest.json")["format"] == 1
