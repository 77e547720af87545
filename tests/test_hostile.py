"""Names and files that somebody else chose: one line, nothing steered, nothing run, nothing touched."""

import bz2
import csv
import gzip
import io
import json
import re
import shutil
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from folders import write_photos, write_tiny
from longtail import ClassBalancedLoss, _checks, cli, evaluate, recipes
from longtail.cli import terminal
from longtail.compare.columns import as_csv
from longtail.datasets.features import Features
from longtail.sources import tables
from longtail.training import load_run, train

NAMES = (
    *(
        "<script>alert(1)</script>",
        "\x1b[2J\x1b]0;owned\x07",
        "two\nlines\rback",
        "\\input{/etc/passwd}%$&#_",
    ),
    *(
        '=HYPERLINK("http://x","y")',
        "@SUM(A1)",
        "+1+cmd|' /C calc'!A0",
        "[red]marked[/red]",
        "\u202egnp.exe",
        "-5",
    ),
)


@pytest.fixture
def command(monkeypatch, capsys):
    def running(*arguments):
        monkeypatch.setattr(sys, "argv", ["longtail", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, *capsys.readouterr()

    return running


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A finished run on classes with such names."""
    from longtail.datasets import Dataset, Split

    draw = np.random.default_rng(0)
    n = len(NAMES)
    parts = [Split(draw.integers(0, 255, (k * n, 1, 8, 8), np.uint8), np.arange(k * n) % n) for k in (4, 2)]
    data = Dataset("<b>=data\x1b[2J</b>", *parts, NAMES, "images")
    folder = tmp_path_factory.mktemp("runs") / "=run <i>[red]"
    recipe = recipes.digits(dataset=data.name, imbalance_factor=None, epochs=1, warmup_epochs=0, batch_size=8)
    train(recipe, folder, dataset=data, device="cpu", threads=1)
    np.save(folder.parent / "sample.npy", parts[1].inputs[0])
    return folder


def harmless(text):
    assert not set(text) & {*map(chr, range(9)), *map(chr, range(11, 32)), "\x7f", "\u202e", "\u2028"}


def test_names_steer_no_terminal_and_make_no_formula(named, command):
    sample = named.parent / "sample.npy"
    status, out, _ = command("predict", named, sample, "--top", len(NAMES))
    assert status == 0
    harmless(out)
    assert "[red]marked[/red]" in out
    _, out, _ = command("predict", named, sample, "--top", len(NAMES), "--format", "csv")
    rows = list(csv.reader(io.StringIO(out)))[1:]
    assert len(rows) == len(NAMES)
    assert "-5" in {name for name, _ in rows}  # a number is a number
    assert not any(name[0] in "=+@" for name, _ in rows)
    _, out, _ = command("predict", named, sample, "--top", len(NAMES), "--format", "json")
    assert {row["class"] for row in json.loads(out)} == {*NAMES}
    for arguments in (["evaluate", named.parent / "\x1b[2J\nnowhere"], ["verify", "\x1b[31mno\nrun"]):
        status, out, errors = command(*arguments)
        assert status == 2
        harmless(errors)
        assert errors.count("\n") == 1
    _, out, errors = command("verify", named)
    harmless(out)


@pytest.mark.parametrize("format", ["html", "markdown", "csv", "latex"])
@pytest.mark.parametrize("table", ["methods", "classes"])
def test_names_are_inert_in_every_report(named, command, tmp_path, format, table):
    out = tmp_path / "report"
    status, said, errors = command("report", named, "--format", format, "--table", table, "--out", out)
    assert status == 0, errors
    harmless(said + errors)
    text = out.read_text(encoding="utf-8")
    if format == "html":  # a browser is steered by tags, not by control characters
        assert "<script>alert(1)" not in text
        return
    assert "\x1b" not in text
    assert "<script>alert(1)" not in text.replace("<\\/", "</") or format in ("csv", "latex")
    if format == "csv":
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        assert not any(cell[:1] in ("=", "+", "@") for cell in cells)
    if format == "latex":
        assert "\\input" not in text


def test_a_warning_is_one_line():
    text = cli._warning("a checkpoint in \x1b[2J\nnowhere", UserWarning, "file.py", 3)
    harmless(text)
    assert text.startswith("warning: a checkpoint in ")
    assert text.count("\n") == 1


def test_cells_that_are_no_formulas_stay():
    cells = ["a=b", "-1.5", "+3", "", 5, None, "=1", "-x", " =1", "\t=1"]
    assert [_checks.inert(cell) for cell in cells] == [*cells[:6], "'=1", "'-x", "' =1", "'\t=1"]
    assert as_csv([["=1", 2]]) == "'=1,2\n"
    assert terminal.SafeConsole is type(terminal.console)


def test_code_in_a_run_folder_is_not_run(named, tmp_path):
    pytest.importorskip("transformers")
    from longtail.models.image_classifiers import build_classifier, read_classifier

    folder = tmp_path / "model"
    folder.mkdir()
    ran = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    auto = {name: "evil.Evil" for name in ("AutoConfig", "AutoModelForImageClassification")}
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}))
    shutil.copy(named / "model.safetensors", folder / "model.safetensors")
    for read in (lambda: read_classifier(folder, "ab"), lambda: build_classifier(str(folder), "ab")):
        with pytest.raises(ValueError, match=r"(?s)trust_remote_code|no image classifier"):
            read()
    assert not ran.exists()


def test_recipes_by_hand_are_one_line(named, tmp_path, command):
    for number, text in enumerate(
        ("[" * 100_000, '{"epochs": 1e999}', '{"a\x1b[2J\\n": 1}', "{}x", '{"method": 3}')
    ):
        file = tmp_path / f"{number}.json"
        file.write_text(text)
        status, _, errors = command("train", file, "--out", tmp_path / "run")
        assert status == 2
        assert errors.count("\n") == 1
        harmless(errors)
    assert not (tmp_path / "run").exists()


DEEP = "[" * 100_000


@pytest.mark.parametrize("name", ["recipe.json", "environment.json", "evaluation.json", "manifest.json"])
def test_a_deep_file_of_a_run_is_one_line(named, tmp_path, command, name):
    folder = tmp_path / "run"
    shutil.copytree(named, folder)
    (folder / name).write_text(DEEP)
    for arguments in (
        ("evaluate", folder),
        ("predict", folder, named.parent / "sample.npy"),
        ("verify", folder),
        ("report", folder),
    ):
        status, _, errors = command(*arguments)
        assert status in (1, 2)
        assert "Traceback" not in errors
        harmless(errors)


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        ("a.jsonl", ("weights", "{}", "--label", "k")),
        ("a.json", ("weights", "{}", "--label", "k")),
        ("train2017.json", ("weights", "{}")),
        ("train2017.json", ("train", "{}", "--out", "run")),
        ("data/data.yaml", ("weights", "data")),
        ("data/dataset_info.json", ("weights", "data")),
        ("model/config.json", ("embed", "photos", "--model", "model", "--out", "x.npz")),
        ("model/config.json", ("train", "photos", "--model", "model", "--out", "run")),
        ("model/preprocessor_config.json", ("train", "photos", "--model", "model", "--out", "run")),
        ("run/recipe.json", ("train", "{}")),
    ],
)
def test_a_deep_file_is_one_line(tmp_path, monkeypatch, command, file, arguments):
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    if "photos" in arguments:
        write_photos(tmp_path / "photos")
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    if path.parent.name == "model":
        write_tiny(path.parent)
    path.write_text(DEEP)
    status, _, errors = command(*(a.format(file) for a in arguments))
    assert status == 2
    assert errors.count("error: ") == 1
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("error: ")
    assert re.search("; |: |must", errors.splitlines()[-1])
    assert "maximum recursion" not in errors


def test_a_deep_note_in_features_is_one_line(tmp_path):
    x, y = np.ones((8, 2), np.float32), np.arange(8) % 2
    np.savez(tmp_path / "a.npz", X=x, y=y, class_names=np.array(["a", "b"]), about=np.array(DEEP))
    with pytest.raises(ValueError, match=r"a\.npz: about is no JSON \(it is nested too deep\); check"):
        Features.load(tmp_path / "a.npz")


def lying(path, shape):
    """Write an .npy or .npz file whose header says a shape that is not there."""
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "<f8", "fortran_order": False, "shape": shape})
    content = array.getvalue() + bytes(64)
    if path.suffix == ".npy":
        path.write_bytes(content)
        return
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("X", "y", "poses", "keys"):
            archive.writestr(f"{name}.npy", content)


@pytest.mark.parametrize("shape", [(10**12,), (10**6, 10**6), (9,)])
def test_a_header_that_lies_about_its_size_is_one_line(named, tmp_path, command, shape):
    for name in ("a.npz", "a.npy"):
        lying(tmp_path / name, shape)
        for arguments in (
            ("weights", tmp_path / name),
            ("predict", named, tmp_path / name),
            *([("compare", tmp_path / name), ("audit", tmp_path / name)] if name == "a.npz" else []),
        ):
            status, _, errors = command(*arguments)
            assert status == 2, (arguments, errors)
            assert errors.strip().splitlines()[-1].startswith("error: ")
            assert "bytes, and 64 follow" in errors or "npz" in errors, (arguments, errors)


def test_little_memory_is_one_line(command, tmp_path):
    path, count = tmp_path / "a.npy", 10**12
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (count,)}
        )
        try:
            file.truncate(file.tell() + 8 * count)  # a hole, which takes no room on the disk
        except OSError:
            pytest.skip("the file system has no files of that size")
    status, _, errors = command("weights", path)
    assert status == 2
    assert errors.count("\n") == 1
    assert "error: there is not enough memory (Unable to allocate 7.28 TiB" in errors
    assert "; give less data" in errors


def test_packed_bombs_fill_no_disk(tmp_path, command, monkeypatch):
    bomb = "label\n" + ("a" * 1000 + "\n" + "b" * 1000 + "\n") * 2000
    with zipfile.ZipFile(tmp_path / "bomb.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.csv", bomb)
    with bz2.open(tmp_path / "bomb.csv.bz2", "wt") as file:
        file.write(bomb)
    monkeypatch.setattr(tables, "_BOMB_FROM", 1 << 20)
    for name in ("bomb.csv.zip", "bomb.csv.bz2"):
        status, _, errors = command("weights", tmp_path / name, "--label", "label")
        assert status == 2
        assert "unpacks to more than 200 times its size, as no table does; if it is one, unpack it" in errors
    monkeypatch.setattr(tables, "_BOMB_FROM", 1 << 40)
    assert command("weights", tmp_path / "bomb.csv.zip", "--label", "label")[0] == 0
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    status, _, errors = command("weights", tmp_path / "bomb.csv.zip", "--label", "label")
    assert status == 2
    assert "unpacks to more than 524,288 bytes, half of what is free in" in errors


def test_one_line_without_end_fills_no_memory(tmp_path, command, monkeypatch):
    monkeypatch.setattr(tables, "_LINE", 1 << 16)
    for name in ("a.csv.gz", "a.jsonl.gz"):
        with gzip.open(tmp_path / name, "wt") as file:
            file.write("[" * (1 << 17))
        status, _, errors = command("weights", tmp_path / name, "--label", "k")
        assert status == 2
        assert "has a line of 65,536 letters or more" in errors


def test_nothing_unpickles_but_the_restricted_reader():
    source = Path(cli.__file__).parents[1]
    users = {p.name for p in source.rglob("*.py") if "import pickle" in p.read_text()}
    assert users <= {"pickles.py"}
    assert not any("torch.load(" in p.read_text() for p in source.rglob("*.py"))
    assert not any("allow_pickle=True" in p.read_text() for p in source.rglob("*.py"))


def test_losses_and_evaluate_from_8_threads_are_those_of_one(rng):
    counts = [500, 50, 5]
    logits = rng.normal(size=(64, 3))
    targets = rng.integers(0, 3, 64)
    criterion = ClassBalancedLoss(counts, loss="focal")

    def work(_):
        z = torch.tensor(logits, requires_grad=True)
        loss = criterion(z, torch.tensor(targets))
        loss.backward()
        return loss.item(), z.grad.numpy().tobytes(), evaluate(logits, targets, counts).to_dict()

    expected = work(0)
    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(work, range(200)))


def test_a_run_is_read_from_8_threads(named):
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: load_run(named), range(16)))
    assert {run.evaluation for run in runs} == {runs[0].evaluation}
