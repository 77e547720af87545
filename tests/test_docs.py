"""README and docs are run: python blocks, `longtail` commands line by line, tables against their data."""

from __future__ import annotations

import csv
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
from collections import defaultdict
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import longtail
from longtail import cli, datasets
from longtail.paper.results import read_rows
from longtail.paper.settings import measure, signs, skeletons
from longtail.paper.tables import sheet

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# commands that are not run here, each with the reason
NOT_RUN = {
    "make demo": "the main job; takes a minute, and test_cli.py runs its command on a smaller grid",
    "make test": "runs this test",
    "make bench": "measures speed for minutes",
    "make wheel": "builds and installs, which needs a network for the build",
    "make lowest": "installs old versions from the network",
    "longtail compare": "what make demo runs",
    ".venv/bin/pre-commit install": "writes into the repository's .git",
    ".venv/bin/python -m pytest -k focal": "runs this suite's tests",
}


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def _commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in _blocks(page, "sh"):
            for line in block.splitlines():
                command = line.split("  #")[0].strip()
                if command:
                    found.append((page.name, command))
    return found


# Lightning's own, of torch and of machines with more cores than its loader has workers
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:.*does not have many workers")
@pytest.mark.parametrize("page", [p for p in PAGES if _blocks(p, "python")], ids=lambda p: p.name)
def test_python_blocks_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registries_stay: None
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in _blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_longtail_commands_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # what these show needs nothing of a page, so once is enough for all pages
    earlier = [p.name for p in PAGES[: PAGES.index(page)]]
    shared = ("compare", "reproduce", "weights")
    alone = {c for name, c in _commands() if name in earlier and c.split()[1] in shared}
    commands = [c for name, c in _commands() if name == page.name and c not in {*NOT_RUN, *alone}]
    if not commands:
        pytest.skip(f"{page.name} has no command to run")
    monkeypatch.chdir(tmp_path)
    _make_data()
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "longtail", (
            f"{page.name} shows {command!r}: run it here or give the reason in NOT_RUN"
        )
        monkeypatch.setattr(sys, "argv", [program, *arguments, *_quick(arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code, capsys.readouterr().err


def test_the_site_is_built_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
    )
    assert built.returncode == 0, built.stderr
    shown = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert {f"{page.parent.name}.md" for page in tmp_path.glob("*/index.html")} >= shown - {"index.md"}
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert not [name for name in sorted(shown) if name not in navigation], (
        "give the page a place in mkdocs.yml"
    )
    reference = (tmp_path / "reference" / "adjust" / "index.html").read_text(encoding="utf-8")
    assert "log(prior it saw)" in reference


def test_the_reference_names_every_public_name() -> None:
    pages = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "docs" / "reference").glob("*.md"))
    named = re.findall(r"^::: (\S+)$", pages, re.MULTILINE)
    assert len(named) == len(set(named))
    for name in longtail.__all__:
        assert any(f"{known}.".startswith(f"longtail.{name}.") for known in named), (
            f"docs/reference lacks {name}"
        )


def _make_data() -> None:
    """What the commands of the pages read, in the working directory."""
    Path("train.csv").write_text("file,species\na.jpg,cat\nb.jpg,cat\nc.jpg,lynx\n")
    pq.write_table(pa.table({"species": ["cat", "cat", "lynx"]}), "train.parquet")
    annotations = [{"category_id": i} for i in (1, 2)]
    categories = [{"id": i, "name": f"species {i}", "supercategory": "Aves"} for i in (1, 2)]
    Path("train2018.json").write_text(json.dumps({"annotations": annotations, "categories": categories}))
    for number in range(24):  # the folder of photographs that a user has
        place = Path("photos", "train", "cat" if number < 20 else "lynx", f"{number}.png")
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), 10 * number, np.uint8)).save(place)
    Image.fromarray(np.full((40, 40, 3), 10, np.uint8)).save("image.png")
    numbers = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    rows = [f"{x[0]:.3f},{i % 9},{'no' if i < 45 else 'yes'}" for i, x in enumerate(numbers)]
    Path("customers.csv").write_text("\n".join(["spend,household,churn", *rows]) + "\n")
    defects = [[i % 2, i % 3 == 0] for i in range(60)]
    parts = [
        f"{x[0]:.3f},{i // 5},{a},{int(b)},{'|'.join(['rust'] * a + ['dent'] * b)}"
        for i, (x, (a, b)) in enumerate(zip(numbers, defects, strict=True))
    ]
    Path("parts.csv").write_text("\n".join(["size,batch,is_rust,is_dent,defects", *parts]) + "\n")
    np.savez(
        "features.npz",
        X=numbers,
        y=np.arange(60) // 45,
        X_test=numbers[::3],
        y_test=np.arange(0, 60, 3) // 45,
    )
    np.save("image.npy", datasets.load("digits").test.inputs[0])
    np.save("images.npy", datasets.load("digits").test.inputs[:60])


def _quick(arguments: list[str]) -> list[str]:
    """Options that make a command do less of the same."""
    if arguments[:2] == ["compare", "customers.csv"]:
        return ["--repeats", "1", "--jobs", "1"]
    if arguments[:2] == ["compare", "parts.csv"]:
        return ["--repeats", "1", "--folds", "2", "--method", "plain", "--jobs", "1"]
    if arguments[:2] == ["compare", "features.npz"]:
        return ["--seeds", "1", "--jobs", "1"]
    if arguments[:2] == ["train", "digits"]:
        return ["--epochs", "6"]
    if arguments[:2] == ["train", "./photos"]:
        return ["--size", "32", "--batch-size", "8", "--epochs", "1"]
    if arguments[:2] == ["reproduce", "table2"]:
        return ["--dataset", "cifar10"]
    if arguments[0] == "figures" and "--format" not in arguments:  # test_report.py draws them in each format
        return ["--format", "png"]
    return []


def test_the_list_of_exceptions_is_current() -> None:
    shown = {command for _, command in _commands()}
    assert set(NOT_RUN) <= shown
    assert len(NOT_RUN) <= 8


def test_the_two_commands_and_their_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "lint", "bench", "gpu"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_links_point_to_files() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_example_runs_and_stays_short(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = ROOT / "examples" / "train_digits_lt.py"
    assert len(script.read_text().splitlines()) < 150
    monkeypatch.setattr(sys, "argv", [str(script), "--epochs", "2", "--seeds", "1"])
    runpy.run_path(str(script), run_name="__main__")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["none", "effective"]


def test_the_table_of_best_volumes_is_the_papers_grids() -> None:
    text = (ROOT / "docs" / "choosing-beta.md").read_text(encoding="utf-8")
    largest = {"cifar20": (20, 2500), "cifar100": (100, 500)}
    rows = []
    for name in ("fig9", "fig10"):
        errors: dict[tuple[str, int], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
        grid = (files("longtail") / "paper" / f"{name}.csv").read_text().splitlines()
        for row in csv.DictReader(grid):
            errors[row["dataset"], int(row["imbalance_factor"])][float(row["beta"])].append(
                float(row["error_percent"])
            )
        for (dataset, factor), by_beta in errors.items():
            means = {beta: sum(values) / len(values) for beta, values in by_beta.items()}
            assert {len(values) for values in by_beta.values()} == {5}
            best = min(means, key=means.__getitem__)
            volume = round(1 / (1 - best))
            classes, top = largest[dataset]
            smallest = int(datasets.long_tail_counts(classes, top, factor)[-1])
            rows.append(
                f"| {dataset} | {factor} | {smallest} | {means[0.0]:.2f} | {means[best]:.2f} | {volume} "
                f"| {volume / smallest:.0f} |"
            )
            if smallest <= 25:
                assert means[0.9999] > means[0.0]  # what the page says of the popular default
    assert len(rows) == 10
    for row in rows:
        assert row in text, f"docs/choosing-beta.md lacks the row {row}"


def test_result_tables_are_the_result_files() -> None:
    shown = {
        "README.md": {"main-job": 13},
        "docs/honest-results.md": {"main-job": 13, "compare-digits": 14},
    }
    for page, source, length in ((p, s, n) for p, sources in shown.items() for s, n in sources.items()):
        table = (ROOT / "results" / source / "compare.md").read_text(encoding="utf-8")
        text = (ROOT / page).read_text(encoding="utf-8")
        lines = [line for line in table.splitlines() if line.startswith("|")]
        assert len(lines) == length
        for line in lines:
            assert line in text, f"{page} lacks the measured row {line}"


def test_the_answer_for_a_table_is_the_result_file() -> None:
    lines = (
        (ROOT / "results" / "table-page-blocks-lightgbm" / "compare.md")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    text = (ROOT / "docs" / "your-own-data.md").read_text(encoding="utf-8")
    answer = [
        line for line in lines if re.match(r"(Use|How sure|Cost|Code|More data would help most for): ", line)
    ]
    assert len(answer) == 5
    assert "\n".join(answer) in text
    plain, best = (
        next(row.split("|") for row in lines if f"| {name} |" in row)
        for name in ("none", "tuned_adjustment (best)")
    )
    balanced = [row[3].split("±")[0].strip() for row in (plain, best)]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"the balanced error from {' to '.join(balanced)} %" in readme
    assert f"over all rows from {' to '.join(row[4].strip() for row in (plain, best))} %" in readme


def test_the_skeleton_table_is_the_result_file() -> None:
    rows = read_rows(ROOT / "results" / "ddnet.csv", "ddnet")
    table = sheet(measure(skeletons(), rows)).markdown().splitlines()
    text = (ROOT / "docs" / "skeletons.md").read_text(encoding="utf-8")
    for line in table:
        assert line in text, f"docs/skeletons.md lacks the measured row {line}"


def test_the_page_of_beta_has_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    results = str(ROOT / "results" / "beta.csv")
    cli.app(["reproduce", "beta", "--show", "--results", results], standalone_mode=False)
    printed = capsys.readouterr().out.strip().split("\n\n")
    assert len(printed) == 3
    text = (ROOT / "docs" / "choosing-beta.md").read_text(encoding="utf-8")
    for table in printed:
        assert table in text, "docs/choosing-beta.md lacks a table of `longtail reproduce beta --show`"


def test_the_table_of_signs_is_the_result_file() -> None:
    measured = measure(signs(), read_rows(ROOT / "results" / "gtsrb.csv", "gtsrb"))
    assert {len(row.values["error"]) for row in measured} == {3}
    text = (ROOT / "docs" / "images.md").read_text(encoding="utf-8")
    for line in sheet(measured).markdown().splitlines():
        assert line in text, f"docs/images.md lacks the measured row {line}"


def test_the_table_of_methods_is_that_of_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    cli.app(["methods", "--format", "markdown"], standalone_mode=False)
    table = capsys.readouterr().out
    assert table in (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")


def test_the_methods_on_real_data_are_the_result_files() -> None:
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    for data in ("digits", "gtsrb", "jhmdb"):
        for line in (ROOT / "results" / f"methods-{data}" / "compare.md").read_text().splitlines():
            if line.startswith("|"):
                assert line in text


def _evaluated() -> dict[tuple[str, str, str], float]:
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    with (ROOT / "results" / "evaluation.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            values[row["task"], row["method"], row["measure"]].append(float(row["value"]))
    return {key: sum(three) / len(three) for key, three in values.items()}


def test_sets_and_label_shift_are_the_result_file_and_reach_their_targets() -> None:
    text = " ".join((ROOT / "docs" / "probabilities.md").read_text(encoding="utf-8").split())
    mean = _evaluated()
    shown = ("worst_coverage", "macro_coverage", "mean_size", "natural_coverage", "natural_size")
    for method in ("marginal", "interpolated", "class", "prevalence", "adjusted"):
        cells = [mean["sets at 90 %", method, name] for name in shown]
        assert f"| {method} | " + " | ".join(f"{x:.2f}" for x in cells) + " |" in text
    for name in ("training prior", "uniform", "estimated prior", "true prior"):
        assert f"{name} {100 * mean['label shift', name, 'error']:.1f} %" in text
    best = {name: mean["sets at 90 %", "adjusted", name] for name in shown}
    assert best["worst_coverage"] >= 0.7
    assert best["mean_size"] <= 1.6
    assert abs(best["natural_coverage"] - 0.9) <= 0.02
    error = {key[1]: value for key, value in mean.items() if key[0] == "label shift" and key[2] == "error"}
    assert error["estimated prior"] <= error["true prior"] + 0.04
    assert error["estimated prior"] <= error["uniform"] + 0.01
    assert mean["label shift", "estimated prior", "L1 of the prior"] <= 0.25


def test_the_lines_for_fastai_train_and_predict(rng: np.random.Generator) -> None:
    fastai = pytest.importorskip("fastai.basics")
    text = (ROOT / "docs" / "in-your-trainer.md").read_text(encoding="utf-8")
    part = text[text.index("## fastai") : text.index("## Keras")]
    lines = textwrap.dedent("\n".join(line for line in part.splitlines() if line.startswith("    ")))
    x = torch.from_numpy(rng.normal(size=(12, 5)).astype(np.float32))
    y = torch.tensor([0, 0, 0, 1, 0, 0, 2, 0, 0, 1, 0, 2])
    model, counts = torch.nn.Linear(5, 3), [900, 90, 10]
    before = longtail.ClassBalancedLoss(counts)(model(x), y).item()
    rows = list(zip(x, y, strict=True))
    known = {
        "ClassBalancedLoss": longtail.ClassBalancedLoss,
        "Learner": fastai.Learner,
        "dls": fastai.DataLoaders.from_dsets(rows, rows, bs=12, device="cpu", shuffle=False),
        "model": model,
        "counts": counts,
    }
    exec(lines, known)
    learner = known["learner"]
    assert learner.validate()[0] == pytest.approx(before, rel=1e-5)
    learner.fit(2)
    assert learner.validate()[0] < before
    shares, _, decided = learner.get_preds(with_decoded=True)
    torch.testing.assert_close(shares, model(x).softmax(-1).detach())
    assert decided.tolist() == shares.argmax(1).tolist()
