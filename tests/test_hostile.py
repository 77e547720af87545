"""Names and files that somebody else chose: one line, nothing steered, nothing run, nothing touched."""

import csv
import io
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from longtail import ClassBalancedLoss, _checks, cli, evaluate, recipes
from longtail.cli import terminal
from longtail.compare.columns import as_csv
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
