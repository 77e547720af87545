"""The command line, run for real; its options are a snapshot, so that growth is a decision."""

from __future__ import annotations

import _thread
import csv
import importlib.metadata
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image

import longtail
from longtail import cli, recipes
from longtail.cli import app, terminal
from longtail.cli.compare import _kind, _own_or_known
from longtail.cli.train import _what_to_train

OPTIONS = {
    "weights": [
        "source",
        "label",
        "labels",
        "separator",
        "header",
        "missing_as_class",
        "order",
        "beta",
        "normalize",
        "format",
        "rows",
        "explore",
        "out",
        "force",
    ],
    "audit": [
        "source",
        "label",
        "test",
        "drop",
        "header",
        "missing_as_class",
        "group",
        "groups_from",
        "group_scope",
        "features",
        "similarity",
        "seeds",
        "recall",
        "jobs",
        "out",
        "force",
        "format",
    ],
    "methods": ["name", "format"],
    "compare": [
        *("dataset", "label", "labels", "separator", "group", "groups_from"),
        *("image", "root", "test", "drop", "keep"),
        *("learner", "metric", "folds", "repeats", "imbalance", "loss"),
        *("scheme", "method", "beta", "volume", "features", "gamma"),
        *("epochs", "skip_unreadable", "seeds", "data", "jobs", "device", "out"),
    ],
    "embed": [
        "data",
        "out",
        "model",
        "text",
        "label",
        "group",
        "test",
        "image",
        "root",
        "groups_from",
        "pooling",
        "size",
        "skip_unreadable",
        "batch_size",
        "workers",
        "device",
        "cache",
    ],
    "train": [
        *("recipe", "out", "model", "method", "loss", "scheme"),
        *("beta", "gamma", "epochs", "batch_size", "learning_rate", "size"),
        *("seed", "set", "lora", "freeze_backbone", "label", "image"),
        *("root", "group", "groups_from", "device_batch", "skip_unreadable", "device", "tensorboard"),
    ],
    "evaluate": ["run", "data", "unlabelled", "probabilities", "thresholds", "curves", "format"],
    "predict": ["run", "sample", "top", "sets", "prior", "data", "format"],
    "verify": ["runs", "format"],
    "report": ["runs", "out", "format", "table", "group", "force"],
    "reproduce": [
        "table",
        "dataset",
        "imbalance",
        "loss",
        "beta",
        "gamma",
        "filters",
        "method",
        "fast",
        "domain",
        "seeds",
        "jobs",
        "budget",
        "data",
        "device",
        "precision",
        "epochs",
        "results",
        "show",
        "network",
        "size",
        "device_batch",
        "processes",
        "dry_run",
    ],
    "figures": ["source", "figure", "label", "results", "format", "out", "force"],
    "data download": ["name", "data", "url"],
    "data skeletons": ["source", "out"],
}


def _options(application: typer.Typer) -> dict[str, list[str]]:
    commands = typer.main.get_command(application).commands  # type: ignore[attr-defined]
    for name in [name for name, command in commands.items() if hasattr(command, "commands")]:
        commands |= {f"{name} {inner}": command for inner, command in commands.pop(name).commands.items()}
    return {name: [p.name for p in command.params] for name, command in commands.items()}


def test_options_are_the_snapshot() -> None:
    assert _options(app) == OPTIONS


def test_the_snapshot_can_fail() -> None:
    other = typer.Typer()
    other.command(name="weights")(lambda source: None)
    other.command(name="new")(lambda: None)
    assert _options(other) != OPTIONS


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("command", "message", "told"),
    [
        (
            "weights",
            "give header=False, or label='2'; missing_as_class=True",
            "give --no-header, or --label '2'; --missing-as-class",
        ),
        (
            "weights",
            "beta must be in [0, 1], got 2; a volume N = 1 / (1 - beta) goes to volume=",
            "--beta must be in [0, 1], got 2",
        ),
        (
            "train",
            "batch_size=3, lower learning_rate (now 0.1)",
            "--batch-size 3, lower --learning-rate (now 0.1)",
        ),
        ("train", "leave out lora=True or on_error='skip'", "leave out --lora or --skip-unreadable"),
        ("train", "root=, or label=COLUMN", "--root, or --label COLUMN"),
        (
            "compare",
            "groups must be one a sample; out=a/b.c holds",
            "--group must be one a sample; --out a/b.c holds",
        ),
        ("compare", "imbalance_factor 9 leaves; learners must", "--imbalance 9 leaves; --learner must"),
        ("audit", "groups_from has no parentheses", "--groups-from has no parentheses"),
        # what is the user's, a word of the language, or Python that the command line cannot mean
        (
            "train",
            "the file 'label=2' of a test has batch_sizes",
            "the file 'label=2' of a test has batch_sizes",
        ),
        (
            "train",
            "f(label=[1]), root.label, model.safetensors",
            "f(label=[1]), root.label, model.safetensors",
        ),
        ("compare", "batch_size=3", "batch_size=3"),
    ],
)
def test_messages_name_the_options_of_the_command_that_runs(command: str, message: str, told: str) -> None:
    terminal.speak_for([COMMANDS[command]])
    assert terminal.as_options(message) == told


def test_a_field_of_a_recipe_is_named_as_set_takes_it() -> None:
    message = "lora_rank=4 is too much; raise warmup_epochs (now 0); warmup_epochs, profile"
    terminal.speak_for([COMMANDS["train"]])
    assert terminal.as_options(message) == (
        "--set lora_rank=4 is too much; raise --set warmup_epochs (now 0); warmup_epochs, profile"
    )
    terminal.speak_for([COMMANDS["compare"]])
    assert terminal.as_options(message) == message


@pytest.mark.parametrize("name", [name for name in OPTIONS if not name.startswith("data ")])
def test_every_option_is_named_where_python_names_its_argument(name: str) -> None:
    command = COMMANDS[name]
    terminal.speak_for([command])
    for parameter in command.params:
        if parameter.param_type_name == "option":
            told = terminal.as_options(f"{parameter.name}=3 is odd; leave it out")
            assert told == f"{max(parameter.opts, key=len)} 3 is odd; leave it out"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("weights 5,3 --beta 2", "error: --beta must be in [0, 1], got 2.0"),
        ("compare digits --seeds 0", "error: --seeds must be in [1, inf], got 0"),
        ("compare digits --imbalance 1e9", "error: --imbalance 1000000000.0 leaves class 9 without samples"),
    ],
)
def test_a_mistake_is_told_in_options(arguments: str, message: str, run: Run) -> None:
    done = run(*arguments.split())
    assert done.returncode == 2
    assert message in done.stderr
    assert "volume=" not in done.stderr


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process (a fresh one spends seconds on imports), in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, columns: int = 80) -> Done:
        for console in (terminal.console, terminal.error_console):
            monkeypatch.setattr(console, "width", columns)
        monkeypatch.setattr(sys, "argv", ["longtail", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return Done(int(stop.value.code or 0), *capsys.readouterr())

    return call


def test_the_installed_command_runs(tmp_path: Path, finish: Any) -> None:
    command = [sys.executable, "-m", "longtail", "weights", "3,-1"]
    done = finish(command, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "counts must be finite and >= 0, got -1.0 at position 1" in " ".join(done.stderr.split())
    scripts = importlib.metadata.entry_points(group="console_scripts", name="longtail")
    assert [script.value for script in scripts] == ["longtail.__main__:main"]


def test_weights_as_json_are_the_librarys(run: Run) -> None:
    done = run("weights", "5000,500,50", "--beta", "0.999", "--format", "json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [row["weight_0.999"] for row in answer["weights"]] == longtail.class_weights(
        [5000, 500, 50]
    ).tolist()
    assert answer["imbalance_factor"] == 100
    assert answer["samples"] == 5550


def test_weights_have_a_column_of_its_own_for_every_beta(run: Run) -> None:
    betas = ["0.9999999", "0.99999999", "0.999", "0.9990", "1"]
    options = [text for beta in betas for text in ("--beta", beta)]
    done = run("weights", "100000000, 50,", *options, "--format", "csv")
    rows = list(csv.reader(io.StringIO(done.stdout)))
    kept = ["0.9999999", "0.99999999", "0.999", "1"]
    wanted = [longtail.class_weights([1e8, 50], beta=float(beta)).tolist() for beta in kept]
    assert [name for name in rows[0] if "weight" in name] == [f"weight_{beta}" for beta in kept]
    assert [[float(row[at]) for row in rows[1:]] for at in (3, 5, 7, 9)] == wanted
    shown = run("weights", "5,3", *options, columns=200).stdout
    assert all(f" {beta} " in shown.replace("\n", " ") for beta in kept)


def test_weights_of_a_csv_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("file,species\n1,[cat]\n2,[cat]\n3,lynx\n")
    done = run("weights", "train.csv", "--label", "species", "--format", "csv", "--normalize", "none")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(r["class"], r["count"]) for r in rows] == [("[cat]", "2"), ("lynx", "1")]
    assert float(rows[0]["weight_0.9"]) == longtail.class_weights([2, 1], beta=0.9, normalize=None)[0]
    shown = run("weights", "train.csv", "--label", "species")
    assert "[cat]" in shown.stdout  # brackets are text, not markup
    assert "imbalance factor 2" in shown.stdout


def test_weights_of_a_parquet_file_a_folder_and_annotations_are_those_of_their_counts(
    run: Run, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"species": ["lynx", "cat", "cat"]}), tmp_path / "a, b.parquet")
    for name in ("cat/1.jpg", "cat/2.jpg", "lynx/1.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "lynx"}]
    annotations = [{"category_id": i} for i in (1, 2, 1)]
    text = json.dumps({"annotations": annotations, "categories": categories})
    (tmp_path / "train.json").write_text(text)
    answers = [
        json.loads(run("weights", *source, "--format", "json").stdout)
        for source in (["a, b.parquet", "--label", "species"], ["photos"], ["train.json"])
    ]
    assert answers[0] == answers[1] == answers[2]
    assert [(row["class"], row["count"]) for row in answers[0]["weights"]] == [("cat", 2), ("lynx", 1)]
    several = run("weights", "./a*.parquet", "--label", "species", "--format", "json")
    assert json.loads(several.stdout) == answers[0]


def test_weights_without_duckdb_say_which_extra(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)  # type: ignore[arg-type]
    pq.write_table(pa.table({"species": ["lynx"]}), tmp_path / "train.parquet")
    done = run("weights", "train.parquet", "--label", "species", columns=400)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: a Parquet file needs duckdb; pip install 'longtail[counts]'\n"


def test_weights_table_keeps_its_digits_within_80_columns(run: Run) -> None:
    shown = run("weights", "5000,500,50").stdout
    assert "…" not in shown
    assert all(text in shown for text in ("0.9999", "0.03411", "48.79", "2.557"))


def test_weights_table_shows_head_and_tail_and_the_warning(run: Run) -> None:
    done = run("weights", ",".join(str(900_000 - i) for i in range(100)), "--rows", "6", "--beta", "0.99")
    assert "... 94 more" in done.stdout
    assert "900,000" in done.stdout
    flat = run("weights", "900000,700000,60000", "--beta", "0.9999")
    assert "note: --beta 0.9999 does nothing" in flat.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["weights", "nowhere.csv"], r"source 'nowhere.csv' is no file and no folder; check the path"),
        (["weights", "3,-1"], r"counts must be finite and >= 0, got -1.0 at position 1"),
        (["weights", "3,1", "--beta", "1.5"], r"beta must be in [0, 1], got 1.5"),
        (["weights", "3,1", "--normalize", "sum"], r"normalize must be one of 'classes', 'samples'"),
        (["weights", "5000,,50"], r"counts must be numbers, got '' in '5000,,50'; two commas have no number"),
        (
            ["weights", "12,345,000,3"],
            r"counts '12,345,000' may be one number or 3; write 12345000, or 12,345,0",
        ),
        (["weights", "5 000,3"], r"counts '5 000' may be one number or 2; write 5000, or 5,0"),
        (
            ["weights", "5.000,30"],
            r"count '5.000' has a point that may be decimal or part thousands; write 5000",
        ),
        (["compare", "cifar11"], r"dataset must be one of"),
        (
            ["compare", "nope"],
            r"'shrec28', a folder of images, a table, features or a recipe's .json file, got 'nope'",
        ),
        (["compare", "--imbalance", "1e9"], r"--imbalance 1000000000.0 leaves class 9 without samples"),
        (
            ["train", "nope"],
            r"'shrec28', a folder or a list of images, hf:NAME or a recipe's .json file, got",
        ),
        (["compare", "--beta", "2"], r"beta"),
        (["compare", "--seeds", "0"], r"seeds must be in [1, inf], got 0"),
        (["compare", "--loss", "hinge"], r"--loss must be one of"),
        (["train", "nowhere.json"], r"recipe 'nowhere.json' is not a file"),
        (["train", "digits", "--set", "epochs"], r"--set needs FIELD=VALUE, got 'epochs'"),
        (["train", "digits", "--set", "epoch=3"], r"epochs"),
        (
            ["train", "digits", "--epochs", "3", "--set", "epochs=4"],
            r"epochs is given twice, by --epochs and",
        ),
        (["train", "cifar10", "--epochs", "2"], r"got 2; the recipe's 2 milestones need room"),
        (["reproduce", "ddnet", "--beta", "0.9"], r"--beta does not belong to ddnet; leave it out"),
        (["train", "digits", "--device", "tpu"], r"device must be"),
        (["evaluate", "nowhere"], r"holds no finished run"),
        (["reproduce", "ddnet", "--domain", "digits"], r"--domain does not belong to ddnet; leave it out"),
        (["reproduce", "beta", "--epochs", "2"], r"--epochs does not belong to beta; leave it out"),
        (["reproduce", "beta", "--domain", "digit"], r"--domain must be one of 'digits', "),
        (["compare", "digits", "--data", "here"], r"--data is 'here', but 'digits' is built in"),
        (
            ["compare", "cifar10", "--data", "/dev"],
            "; get it by longtail data download cifar10 --data '/dev', or",
        ),
        (
            ["reproduce", "beta", "--domain", "pixels"],
            r"domain 'pixels' needs a folder with its data; give --data",
        ),
        (["reproduce", "table2", "--fast"], r"--fast does not belong to table2; leave it out"),
        (["reproduce", "table4"], r"table must be one of 'table2'"),
        (["reproduce", "fig9", "--dataset", "cifar10"], r"dataset must be one of 'cifar20', got 'cifar10'"),
        (
            ["reproduce", "fig9", "--imbalance", "30"],
            r"imbalance must be one of 100, 50, 200, 20, 10, 1, got 30",
        ),
        (
            ["reproduce", "fig9", "--filters", "16"],
            r"--filters belongs to ddnet, got it with 'fig9'; leave it out",
        ),
        (["reproduce", "fig9", "--network", "resnet50"], r"--network does not belong to fig9; leave it out"),
        (["reproduce", "table3"], r"table3 needs the data set's folder; give --data"),
        (["reproduce", "table3", "--budget", "3"], r"--budget does not belong to table3; leave it out"),
        (["reproduce", "table3", "--data", "nowhere"], r"data folder nowhere is not there"),
        (["reproduce", "table3", "--data", ".", "--dataset", "inat2018"], r"train2018.json is not there"),
        (["reproduce", "table3", "--data", ".", "--dataset", "inat"], r"dataset must be one of"),
        (["train", "."], r". has no class folders with images"),
        (["train", "digits", "--device-batch", "3"], r"--device-batch and --skip-unreadable are for images"),
        (["train", "digits", "--size", "32"], r"unknown recipe field 'size'"),
        (["train", "lists_train.txt"], r"has no partner"),
        (["train", "./photos"], r"image folder photos is not there; check the path"),
        (["reproduce", "ddnet", "--filters", "8"], r"filters must be one of 64, 32, 16, got 8"),
        (["reproduce", "fig9", "--budget", "0"], r"budget must be in (0, inf], got 0"),
        (["report", "nowhere"], r"'nowhere' is not a folder; give a run's folder"),
        (["report", "."], r"no runs found in '.'; longtail compare and longtail train make some"),
        (["weights", "5,3", "--explore", "--out", "."], r"'.' is a folder; give a file's name"),
        (["figures", "--figure", "2"], r"figure must be one of 1, 3, 4, 5, 6, 7, 8, 9, 10, got 2"),
        (
            ["figures", "--figure", "7"],
            r"figure 7 cannot be drawn of the paper's data sets; give run folders",
        ),
        (["figures", "5,3", "--format", "jpg"], r"format must be one of 'png', 'svg', 'pdf', got 'jpg'"),
        (["figures", "--results", "none.csv"], r"results file 'none.csv' is not there"),
        (["figures", "5,3", "--results", "x.csv"], r"--results belongs to the paper's data sets"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(run: Run, arguments: list[str], message: str) -> None:
    done = run(*arguments, columns=400)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert message in last
    assert last.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_path_is_told_whole_and_as_it_is(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "a folder [red] with a name that is longer than any line of this terminal"
    folder.mkdir()
    done = run("weights", "5,3", "--explore", "-o", str(folder / "explorer.html"), columns=40)
    assert done.returncode == 0, done.stderr
    assert f"page {folder / 'explorer.html'}\n" in done.stdout


def test_epochs_move_the_schedule_but_not_what_is_set_beside_them() -> None:
    def chosen(*arguments: Any) -> tuple[Any, ...]:
        recipe, _ = _what_to_train(*arguments)
        return recipe.epochs, recipe.schedule, recipe.milestones, recipe.warmup_epochs

    assert chosen("cifar10", 20, {}) == (20, "step", (16, 18), 1)
    assert chosen("cifar10", 20, {"milestones": [10, 15]}) == (20, "step", (10, 15), 1)
    assert chosen("cifar10", 2, {"schedule": "cosine", "warmup_epochs": 0}) == (2, "cosine", (), 0)


def test_a_known_name_is_the_data_set_and_a_path_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cat/0.png", "cat/1.png", "lynx/0.png", "lynx/1.png"):
        Path("digits", name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(Path("digits", name))
    own, recipe = _own_or_known("digits")
    assert (own, recipe) == (None, recipes.digits())
    own, recipe = _own_or_known("./digits")
    assert (own.name, recipe.dataset) == ("digits-folder", "digits-folder")


def test_pictures_of_tables_lists_and_saved_data_sets_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"{kind}{i}.png" for kind in ("cat", "lynx") for i in range(4)]
    Path("shots").mkdir()
    for i, name in enumerate(names):
        Image.new("RGB", (9, 9), (20 * i, 0, 0)).save(Path("shots", name))
    lines = [f"{name},{name[:-5]},{i // 2}" for i, name in enumerate(names)]
    Path("t.csv").write_text("shot,animal,film\n" + "\n".join(lines) + "\n")
    train = [n for i, n in enumerate(names) if i % 3]
    Path("l_train.txt").write_text("".join(f"shots/{n} {int(n[0] == 'l')}\n" for n in train))
    Path("l_test.txt").write_text("".join(f"shots/{n} {int(n[0] == 'l')}\n" for n in names[::3]))
    datasets = pytest.importorskip("datasets")
    rows = {"shot": [str(Path("shots", n)) for n in names], "animal": [n[:-5] for n in names]}
    datasets.Dataset.from_dict(rows).cast_column("shot", datasets.Image()).save_to_disk("saved")
    asked = {"image": "shot", "label": "animal"}
    for source, columns, sizes in (
        ("t.csv", asked | {"root": Path("shots")}, (6, 2)),
        ("saved", asked, (6, 2)),
        ("l_train.txt", {"root": Path(".")}, (5, 3)),
        ("l_train.txt", {}, (5, 3)),
    ):
        own, recipe = _own_or_known(source, **columns)
        assert (len(own.train), len(own.test)) == sizes, source
        assert recipe.dataset == own.name == Path(source).stem
    for name, told, kind in (
        ("t.csv", {}, "table"),
        ("t.csv", {"told": ["image"]}, "pictures"),
        ("t.csv", {"features": "m"}, "pictures"),
        ("t.parquet", {}, "features"),
        ("t.parquet", {"label": "animal"}, "table"),
        ("saved", {"label": "animal"}, "pictures"),
        ("hf:cats", {}, "pictures"),
        ("./nosuch", {}, "pictures"),
        ("digits", {}, "known"),
    ):
        assert _kind(name, told.get("label"), told.get("features"), told.get("told", [])) == kind, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("t.csv", "name the column of the class by --label, columns of 0 and 1 by --labels A,B"),
        ("t.csv --label y --seeds 3", "--seeds 3 is given for 3 folds; leave it out: give --repeats N"),
        ("t.csv --label y --data there", "--data is for the data sets that longtail knows"),
        ("photos --group film", "--group 'film' belongs to a Hugging Face data set or a table"),
        ("photos --groups-from (", "--groups-from must be a regular expression, got '('"),
        ("photos --groups-from film", "--groups-from 'film' finds nothing in 'cat/0.png'"),
        ("t.csv --label y --groups-from a", "--groups-from is for pictures, whose paths it reads"),
        (
            "photos --groups-from a --group b",
            "--group is given beside --groups-from; leave one of the two out",
        ),
        ("digits --group a", "--group is for a table or for pictures; leave it out for 'digits'"),
        ("photos --test t.csv", "--test is for a table, with --label"),
        ("photos --image shot", "--image 'shot' belongs to a Hugging Face data set or a table"),
        ("cifar10 --data nosuch", "--data is nosuch, which is not there; get it by longtail data download"),
        ("./nosuch --seeds 1", "image folder nosuch is not there"),
    ],
)
def test_options_that_do_not_fit_the_data_are_one_line(
    run: Run, tmp_path: Path, arguments: str, message: str
) -> None:
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(6)))
    for name in ("cat/0.png", "cat/1.png", "lynx/0.png", "lynx/1.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "photos" / name)
    done = run("compare", *arguments.split(), columns=400)
    assert done.returncode == 2
    assert message in done.stderr
    assert len([line for line in done.stderr.splitlines() if "rror" in line]) <= 1


def test_a_download_says_what_to_do_next(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "d" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(b"")  # what is there is kept
    done = run("data", "download", "cifar10", "--data", "d", columns=400)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "next: longtail compare cifar10 --data d")
    done = run("data", "download", "cifar11", columns=400)
    assert (done.returncode, "did you mean 'cifar10'" in done.stderr) == (2, True)


def test_unwritable_output_is_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("compare", "--out", "file/run", "--seeds", "1", "--epochs", "6", columns=400)
    assert done.returncode == 2
    assert "--out 'file/run' cannot be made a folder" in done.stderr


def test_train_then_evaluate_agree(run: Run, tmp_path: Path) -> None:
    done = run("train", "digits", "--epochs", "3", "--out", "run")  # fewer than the recipe's warm-up
    assert done.returncode == 0, done.stderr
    assert "run folder run" in done.stdout
    again = run("evaluate", "run", "--format", "json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == json.loads((tmp_path / "run" / "evaluation.json").read_text())
    rows = list(csv.DictReader(io.StringIO(run("evaluate", "run", "--format", "csv").stdout)))
    assert [int(r["count"]) for r in rows] == json.loads(again.stdout)["class_counts"]
    # the recipe's file is a recipe: it names the same run
    more = run("train", "run/recipe.json", "--out", "run")
    assert more.returncode == 0, more.stderr


def test_reproduce_shows_the_paper_beside_what_was_not_run(run: Run) -> None:
    done = run("reproduce", "fig10", "--imbalance", "100", "--loss", "softmax", "--show")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith((" cifar100", "cifar100"))]
    assert [line[:5] for line in lines][:2] == [
        ["cifar100", "100", "softmax", "0", "61.68"],
        ["cifar100", "100", "softmax", "0.9999", "66.01"],
    ]
    assert all(line[5:] == ["not", "run", "0"] for line in lines)
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_rivals_are_set_beside_the_plain_run_they_began_from(run: Run, tmp_path: Path) -> None:
    results = Path(__file__).parent.parent / "results"
    for name in ("table2.csv", "rivals.csv"):  # both have a plain run of seed 0, of one recipe
        (tmp_path / name).write_bytes((results / name).read_bytes())
    chosen = [
        "--dataset",
        "cifar10",
        "--method",
        "posthoc_logit_adjusted",
        "--show",
        "--results",
        "rivals.csv",
    ]
    rows = (tmp_path / "rivals.csv").read_text().splitlines(keepends=True)
    found = {row["method"]: float(row["error_percent"]) for row in csv.DictReader(rows)}
    (line,) = [x for x in run("reproduce", "rivals", *chosen).stdout.splitlines() if "posthoc" in x]
    assert line.split()[-1] == f"{found['posthoc_logit_adjusted'] - found['plain']:.2f}"
    (tmp_path / "rivals.csv").write_text("".join(x for x in rows if ",plain," not in x))
    (line,) = [x for x in run("reproduce", "rivals", *chosen).stdout.splitlines() if "posthoc" in x]
    assert line.split()[-1] == f"{found['posthoc_logit_adjusted'] - 27.84:.2f}"  # Table 2's


def test_compare_ends_with_table_picture_and_files(run: Run, tmp_path: Path) -> None:
    arguments = [
        "--loss",
        "softmax",
        "--scheme",
        "none",
        "--scheme",
        "inverse",
        "--seeds",
        "2",
        "--epochs",
        "6",
    ]
    done = run("compare", *arguments, "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert "4/4" in done.stderr
    folder = next((tmp_path / "runs").iterdir())
    assert {"compare.csv", "compare.json", "compare.md", "compare.png", "compare.html"} <= {
        p.name for p in folder.iterdir()
    }
    text = (folder / "compare.md").read_text()
    verdict = json.loads((folder / "compare.json").read_text())["verdict"]
    assert verdict in text
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_an_interrupt_says_that_the_command_goes_on(run: Run, tmp_path: Path) -> None:
    def interrupt() -> None:
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            time.sleep(0.05)
        _thread.interrupt_main()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's & had switched off
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        done = run("train", "digits", "--epochs", "50000", "--out", "run", columns=400)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.returncode == 130
    text = "stopped; finished runs and checkpoints are kept, the same command goes on from them\n"
    assert done.stderr.endswith(text)


def test_report_of_real_runs_and_what_it_refuses(run: Run, tmp_path: Path) -> None:
    quick = ["--set", "epochs=2", "--set", "warmup_epochs=1"]
    for seed in ("0", "1"):
        done = run("train", "digits", *quick, "--set", f"seed={seed}", "--out", f"runs/{seed}")
        assert done.returncode == 0, done.stderr
    done = run("report", "runs", columns=400)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "page report.html"
    verdict = done.stdout.splitlines()[0].removeprefix("digits, imbalance 50: ")
    assert verdict.startswith("Lowest mean error: softmax, effective weights")
    page = (tmp_path / "report.html").read_text()
    assert verdict in page

    again = run("report", "runs", columns=400)
    assert again.returncode == 2
    assert "'report.html' exists; give another name, or --force to replace it" in again.stderr
    assert run("report", "runs", "--force", "-o", "report.html").returncode == 0

    (tmp_path / "runs" / "1" / "evaluation.json").unlink()
    partly = run("report", "runs", "--format", "csv", columns=400)
    assert "left out: runs/1: unfinished: 2 of 2 epochs" in partly.stderr
    (row,) = csv.DictReader(io.StringIO(partly.stdout))
    assert (row["loss"], row["weights"], row["seeds"]) == ("softmax", "effective", "1")
    alone = run("report", "runs/1", columns=400)
    assert alone.returncode == 2
    assert "no finished run in runs/1" in alone.stderr

    flat = run("train", "digits", *quick, "--set", "imbalance_factor=5", "--out", "runs/flat")
    assert flat.returncode == 0, flat.stderr
    mixed = run("report", "runs", columns=400)
    assert mixed.returncode == 2
    assert "runs were trained on 2 different sets: digits, imbalance 50 (1 runs)" in mixed.stderr
    both = run("report", "runs", "--group", "--format", "markdown")
    assert [line for line in both.stdout.splitlines() if line.startswith("# ")] == [
        "# digits, imbalance 50: test error in %",
        "# digits, imbalance 5: test error in %",
    ]
    latex = run("report", "runs/0", "--format", "latex", "--table", "classes", "--out", "table.tex")
    assert latex.stdout == "table table.tex\n"
    assert (tmp_path / "table.tex").read_text().count(r"\\") == 1 + 10
    drawn = run("figures", "runs/0", "--figure", "7", "--format", "svg")
    assert drawn.stdout == "figure figures/figure7.svg\n"
    assert run("figures", "runs/0", "--figure", "7", "--format", "svg").returncode == 2


def test_explorer_of_a_file_opens_only_where_there_is_a_screen(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import webbrowser

    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    (tmp_path / "train.csv").write_text("species\n<b>cat</b>\n<b>cat</b>\nlynx\n")
    done = run("weights", "train.csv", "--label", "species", "--explore")
    assert (done.returncode, done.stdout) == (0, "page explorer.html\n")
    page = (tmp_path / "explorer.html").read_text()
    assert "&lt;b&gt;cat&lt;/b&gt;" in page
    assert "<b>cat" not in page
    assert opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    assert run("weights", "9,3", "--explore", "-o", "other.html").returncode == 0
    assert opened == [(tmp_path / "other.html").as_uri()]


def test_reproduce_writes_page_and_figures_beside_the_results(run: Run, tmp_path: Path) -> None:
    done = run("reproduce", "fig10", "--imbalance", "100", "--loss", "softmax", "--show")
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "results").iterdir()} == {
        "fig10.html",
        "fig10-figure5.png",
        "fig10-figure10-cifar100.png",
    }
    page = (tmp_path / "results" / "fig10.html").read_text()
    assert "0 of 5 cells were run" in page
    assert "66.01" in page

    # runs of the table's cells get a section, in whichever seed and precision; others do not
    def finished(**changes: object) -> None:
        counts = longtail.datasets.long_tail_counts(100, 500, 100)
        evaluation = longtail.evaluate([0] * 100, list(range(100)), counts)
        recipe = longtail.recipes.paper_cifar(
            "cifar100", 100.0, "softmax", scheme="none", beta=0.0, **changes
        )
        folder = tmp_path / "runs" / "reproduce" / recipe.short_hash
        folder.mkdir(parents=True)
        (folder / "recipe.json").write_text(recipe.to_json())
        (folder / "evaluation.json").write_text(json.dumps(evaluation.to_dict()))

    finished(seed=3, precision="bf16")
    finished(weight_decay=0.1)
    assert run("reproduce", "fig10", "--imbalance", "100", "--loss", "softmax", "--show").returncode == 0
    page = (tmp_path / "results" / "fig10.html").read_text()
    assert "cifar100, imbalance 100" in page
    assert "1 seed a method (3)" in page
    assert "weight_decay=0.1" not in page


def test_nothing_starts_before_everything_is_checked(run: Run) -> None:
    for arguments in (["--loss", "hinge"], ["--seeds", "0"], ["--device", "gpu"]):
        done = run("compare", *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")


def test_a_mistyped_count_is_named(run: Run) -> None:
    done = run("weights", "5000,x,3", columns=200)
    assert done.returncode == 2
    assert "counts must be numbers, got 'x' in '5000,x,3'" in done.stderr


def test_default_betas_that_do_nothing_get_one_note(run: Run) -> None:
    done = run("weights", "900000,700000,60000", columns=500)
    assert done.stderr.count("note: ") == 1
    assert "4 of these betas do nothing here" in done.stderr


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"longtail {longtail.__version__}\n"


def test_numbers_have_no_needless_exponent(run: Run) -> None:
    done = run("weights", "900000,700000,1", "--beta", "0.9999")
    assert "imbalance factor 900000" in done.stdout
    assert "e+" not in done.stdout
    assert "10000" in done.stdout


def _commands_of(application: typer.Typer) -> Iterator[tuple[str, Any]]:
    for name, command in typer.main.get_command(application).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        yield from ((f"{name} {n}", c) for n, c in inner.items()) if inner else [(name, command)]


@pytest.mark.parametrize(
    ("name", "command"), list(_commands_of(app)), ids=lambda x: x if isinstance(x, str) else ""
)
def test_help_has_examples_whose_options_exist(name: str, command: Any, run: Run) -> None:
    shown = [run(*name.split(), flag) for flag in ("-h", "--help")]
    assert shown[0].returncode == 0
    assert shown[0].stdout == shown[1].stdout
    lines = [line for line in command.epilog.split("\n\n") if line.startswith(f"longtail {name}")]
    assert 1 <= len(lines) <= 4
    text = " ".join(shown[0].stdout.split())
    for line in lines:
        assert line in text
        arguments = shlex.split(line)[1 + len(name.split()) :]
        command.make_context(name, arguments)  # an unknown option, or a value that is none, would end this


def test_the_defaults_that_help_tells_are_those_of_the_recipes(run: Run) -> None:
    text = " ".join(run("train", "-h", columns=400).stdout.replace("│", " ").split())
    digits, images = recipes.digits(), recipes.images("photos", "resnet50")
    for name in ("beta", "epochs", "learning_rate"):
        assert f"digits {getattr(digits, name):g}, images {getattr(images, name):g}." in text
    assert (digits.loss, digits.scheme, images.size, images.seed) == ("softmax", "effective", 224, 0)
    assert (digits.gamma, images.gamma, digits.batch_size, images.batch_size) == (2, 2, 64, 64)
    assert {recipes.default(f"cifar{n}").batch_size for n in (10, 100)} == {128}
    assert "default: 224." in text
    assert "default: 2." in text
    assert "all processes; default: 64, of CIFAR 128." in text


def test_a_shell_completes_commands_and_options(finish: Any) -> None:
    for words, wanted in (("longtail ev", "evaluate"), ("longtail compare --learn", "--learner")):
        at = str(len(words.split()) - 1)
        asked = {"_LONGTAIL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": at}
        code = "import sys; sys.argv = ['longtail']; from longtail.__main__ import main; main()"
        done = finish([sys.executable, "-c", code], env={**os.environ, **asked})
        assert done.stdout.split() == [wanted]


def test_what_messages_say_to_install_needs_no_index() -> None:
    """An installed longtail answers for itself: pip asks no index for it, whose longtail is another's."""
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "longtail[counts]"]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert "longtail[counts]" in done.stdout, done.stderr
    assert done.returncode == 0, done.stderr
