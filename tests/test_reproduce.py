"""The paper's grids: the cells, the results file, and short real runs of the whole path on tiny images."""

from __future__ import annotations

import csv
import importlib.util
import os
import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longtail import class_weights, recipes
from longtail.datasets import Dataset, Split, cifar10, long_tail_counts
from longtail.paper.reproduce import jobs_for, reproduce
from longtail.paper.results import add_rows, columns_of, read_rows
from longtail.paper.settings import FILTERS, RIVALS, TABLES, Setting, cifar, measure, rivals, skeletons
from longtail.paper.tables import sheet
from longtail.training import learning_rate_at, paper_cifar
from longtail.training.files import locked

ROOT = Path(__file__).resolve().parents[1]
COLUMNS, SKELETON_COLUMNS = columns_of("table2"), columns_of("ddnet")


def of(table: str, dataset: str, factor: int, loss: str, gamma: float | None, beta: float) -> Setting:
    gammas = None if gamma is None else [gamma]
    (found,) = cifar(
        table, datasets=[dataset], imbalances=[factor], losses=[loss], betas=[beta], gammas=gammas
    )
    return found


def clips_of(classes: int, filters: int, loss: str, beta: float, factor: int) -> Setting:
    found = skeletons(datasets=[f"jhmdb{classes}"], imbalances=[factor], losses=[loss], filters=[filters])
    (one,) = [setting for setting in found if setting.beta == beta]
    return one


def row(setting: Setting, seed: int, value: float, precision: str = "fp32", split: int = 0) -> dict[str, str]:
    """What measure() reads of a results file's row."""
    recipe = setting.recipes[split].replace(seed=seed, precision=precision)
    about = {"recipe_hash": recipe.short_hash, "seed": str(seed), "precision": precision}
    return about | {f"{setting.fields[0]}_percent": str(value)}


PLAIN = of("table2", "cifar10", 10, "softmax", None, 0.0)
BALANCED = of("table2", "cifar10", 10, "focal", 1.0, 0.9999)


SHORT = [PLAIN.with_epochs(4), BALANCED.with_epochs(4)]


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    """Ten classes of 10 training and 2 test images, each class of its own colour."""
    rng = np.random.default_rng(0)

    def split(each: int) -> Split:
        targets = np.repeat(np.arange(10), each)
        colours = rng.integers(0, 256, (10, 3), dtype=np.uint8) if each == 10 else rng.integers(0, 9, (10, 3))
        images = np.broadcast_to(colours[targets][:, :, None, None], (10 * each, 3, 32, 32)).astype(np.uint8)
        return Split(np.ascontiguousarray(images), targets)

    return Dataset("cifar10", split(10), split(2), tuple("abcdefghij"))


def test_the_published_errors_are_the_papers() -> None:
    for table, place, error in (
        ("table2", ("cifar10", 100, "softmax", None, 0.0), 29.64),
        ("table2", ("cifar10", 100, "focal", 1.0, 0.9999), 25.43),
        ("table2", ("cifar100", 100, "softmax", None, 0.9999), 66.01),
        ("fig9", ("cifar20", 200, "sigmoid", None, 0.99), 54.82),
    ):
        assert of(table, *place).published == {"error": error}


def test_every_published_cifar_error_is_in_a_grid() -> None:
    found = {s.recipe.hash for table in TABLES for s in cifar(table) if s.published}
    names = ("dataset", "imbalance_factor", "loss", "gamma", "beta")
    lines = {
        tuple(line[name] if name != "gamma" or not line[name] else f"{float(line[name]):g}" for name in names)
        for table in ("table2", "fig9", "fig10")
        for line in csv.DictReader((files("longtail") / "paper" / f"{table}.csv").read_text().splitlines())
    }
    assert len(found) == len(lines)


def test_the_grid_is_complete_and_the_most_telling_come_first() -> None:
    grid = cifar("fig8")
    assert len({s.recipe.hash for s in grid}) == len(grid) == 5 * 5 * 5 + 5
    assert grid[:4] == [
        of("fig8", "cifar10", 100, "softmax", None, 0.0),
        of("fig8", "cifar10", 100, "softmax", None, 0.9999),
        of("fig8", "cifar10", 100, "sigmoid", None, 0.0),
        of("fig8", "cifar10", 100, "sigmoid", None, 0.9999),
    ]


def test_a_grid_can_be_narrowed() -> None:
    found = cifar("table2", datasets=["cifar10"], imbalances=[100], losses=["softmax"], betas=[0, 0.9999])
    assert [str(setting) for setting in found] == [
        "cifar10 imbalance 100 softmax beta 0",
        "cifar10 imbalance 100 softmax beta 0.9999",
    ]
    assert {(s.gamma, s.beta) for s in cifar("fig9", losses=["focal"], betas=[0.9], gammas=[2, 0.5])} == {
        (2.0, 0.9),
        (0.5, 0.9),
    }
    assert len(cifar("fig8", gammas=[1])) == len(cifar("fig8")) - len(
        cifar("fig8", gammas=[2, 0.5], losses=["focal"])
    )
    for wrong, message in (
        ({"betas": [0.5]}, "beta must be one of 0, 0.9999, 0.999, 0.99, 0.9, got 0.5"),
        ({"gammas": [3]}, "gamma must be one of 1, 2, 0.5, got 3"),
        ({"losses": ["softmax"], "gammas": [1]}, "gamma belongs to the focal loss, got loss softmax"),
        ({"imbalances": [30]}, "imbalance must be one of 100, 50, 200, 20, 10, 1, got 30"),
    ):
        with pytest.raises(ValueError, match=message):
            cifar("table2", **wrong)


def test_jobs_follow_the_papers_recipe() -> None:
    plain, balanced = jobs_for([PLAIN, BALANCED], 1, Path("runs"))
    assert (plain.recipe.scheme, balanced.recipe.scheme) == ("none", "effective")
    assert balanced.recipe.beta == 0.9999
    assert balanced.recipe.gamma == 1.0
    assert balanced.recipe.uses_prior_bias
    assert not plain.recipe.uses_prior_bias
    assert plain.recipe.milestones == (160, 180)
    (trial,) = jobs_for([PLAIN.with_epochs(50)], 1, Path("runs"))
    assert trial.recipe == plain.recipe.replace(epochs=50, milestones=(40, 45), warmup_epochs=1)


def test_all_settings_run_once_before_any_runs_twice() -> None:
    order = [(job.setting, job.recipe.seed) for job in jobs_for([PLAIN, BALANCED], 2, Path("runs"))]
    assert order == [(PLAIN, 0), (BALANCED, 0), (PLAIN, 1), (BALANCED, 1)]


def test_a_grid_runs_resumes_and_skips(tiny: Dataset, tmp_path: Path) -> None:
    results = tmp_path / "results" / "table2.csv"
    jobs = jobs_for(SHORT, 1, tmp_path / "runs")
    # a budget that is over before the first run begins, and one that pauses it with a checkpoint
    none = reproduce(jobs, results, data=tiny, budget_minutes=1e-9, device="cpu")
    assert [r.state for r in none] == ["waiting", "waiting"]
    assert read_rows(results, "table2") == []
    once = reproduce(jobs, results, data=tiny, budget_minutes=0.003, device="cpu")
    assert [r.state for r in once] == ["paused", "waiting"]
    assert "after epoch" in once[0].why
    seen: list[tuple[int, int]] = []
    done = reproduce(jobs, results, data=tiny, device="cpu", progress=lambda k, n, r: seen.append((k, n)))
    assert [(r.state, r.why) for r in done] == [("done", ""), ("done", "")]
    assert seen == [(1, 2), (2, 2)]
    rows = read_rows(results, "table2")
    assert [(one["loss"], one["gamma"], one["beta"], one["seed"]) for one in rows] == [
        ("softmax", "", "0", "0"),
        ("focal", "1", "0.9999", "0"),
    ]
    for one in rows:
        assert len(one["per_class_error_percent"].split()) == 10
        assert all(one[name] for name in COLUMNS if name not in ("gamma", "commit", "longtail"))
    assert rows[0]["subset_sha256"] == rows[1]["subset_sha256"]
    before = results.read_bytes()
    assert reproduce(jobs, results, data=tiny, device="cpu") == []
    assert results.read_bytes() == before

    # the run folders hold it all: a file that is lost is written again, without training and data
    results.unlink()
    assert reproduce(jobs, results, data=tmp_path / "nowhere", device="cpu") == []
    assert results.read_bytes() == before

    shown = measure([*SHORT, cifar("fig8")[0]], rows)
    assert shown[0].published() == 13.61
    summary = shown[0].summary()
    assert summary is not None
    assert summary.mean == float(rows[0]["error_percent"])
    assert shown[0].difference() == pytest.approx(summary.mean - 13.61)
    assert shown[2].summary() is None
    assert all(m.summary() is None for m in measure([PLAIN], rows))  # 4 epochs are not the paper's 200


def test_rivals_share_the_run_that_they_decide_after(tiny: Dataset, tmp_path: Path) -> None:
    names = ["plain", "posthoc_logit_adjusted", "logit_adjusted"]
    chosen = [
        s.with_epochs(4).replace(imbalance_factor=10.0) for s in rivals(datasets=["cifar10"], methods=names)
    ]
    assert [s.published for s in chosen] == [{"error": 29.64}, {"error": 21.36}, {"error": 19.08}]
    jobs, results = jobs_for(chosen[1:], 1, tmp_path / "runs"), tmp_path / "rivals.csv"
    assert [(r.state, r.why) for r in reproduce(jobs, results, data=tiny, device="cpu")] == [("done", "")] * 2
    # plain was trained on the way, and now only gets its row
    alone = jobs_for(chosen[:1], 1, tmp_path / "runs")
    assert reproduce(alone, results, data=tmp_path / "nowhere", device="cpu") == []
    rows = {row["method"]: row for row in read_rows(results, "rivals")}
    assert rows.keys() == set(names)
    measured = measure(chosen, list(rows.values()))
    gain = measured[1].gain()
    assert gain is not None
    assert gain.mean == pytest.approx(
        float(rows["posthoc_logit_adjusted"]["error_percent"]) - float(rows["plain"]["error_percent"])
    )
    # the plain row is Table 2's, and a beta is that of CIFAR
    assert rivals(methods=["plain"])[0].recipe == cifar("table2", losses=["softmax"], betas=[0])[0].recipe
    (late,) = rivals(datasets=["cifar10"], methods=["deferred_effective"])
    assert dict(late.recipe.method.weight.settings) == {"beta": 0.9999}
    for name in ("smote", "tuned_adjustment", "asymmetric"):
        with pytest.raises(ValueError, match="method must be one of"):
            rivals(methods=[name])


def test_the_fast_recipe_trains_the_rivals(tiny: Dataset, tmp_path: Path) -> None:
    fast = rivals(datasets=["cifar10"], methods=["plain", "logit_adjusted", "ldam_drw"], fast=True)
    recipe = fast[1].recipe
    assert recipe == recipes.fast_cifar("cifar10", 100.0)
    assert recipe.epochs * sum(long_tail_counts(10, 5000, 100)) == pytest.approx(250_000, rel=0.01)
    assert [s.published for s in fast] == [{}, {}, {}]  # those errors are of another network
    assert fast[1].plain == (fast[0].recipe,)
    chosen = [s.with_epochs(2).replace(imbalance_factor=10.0) for s in fast]
    results = tmp_path / "rivals.csv"
    done = reproduce(jobs_for(chosen, 1, tmp_path / "runs"), results, data=tiny, device="cpu")
    assert [(r.state, r.why) for r in done] == [("done", "")] * 3
    assert {row["method"] for row in read_rows(results, "rivals")} == {"plain", "logit_adjusted", "ldam_drw"}
    assert not {s.recipe.hash for s in fast} & {s.recipe.hash for s in rivals()}


def test_the_gpu_command_has_a_stage_of_the_fast_recipe() -> None:
    gpu = from_file("benchmarks/gpu.py")
    assert list(gpu.STAGES) == ["tests", "throughput", "losses", "fast", "cells"]
    jobs = gpu.fast_rivals(Path("runs"), "bf16")
    assert {job.recipe.model for job in jobs} == {"fast_cnn"}
    assert {job.recipe.precision for job in jobs} == {"bf16"}
    assert (
        len({job.recipe.hash for job in jobs}) == len(jobs) == 5 * (len(RIVALS) - 1)
    )  # of two names for one method
    assert not gpu.finished("fast")


def test_a_failing_cell_is_reported_and_the_rest_goes_on(tiny: Dataset, tmp_path: Path) -> None:
    jobs = jobs_for(SHORT, 1, tmp_path / "runs")
    jobs[0].folder.parent.mkdir()
    jobs[0].folder.write_text("in the way")
    first, second = reproduce(jobs, tmp_path / "r.csv", data=tiny, device="cpu")
    assert first.state == "failed"
    assert "RunFolderError" in first.why
    assert second.state == "done"


def test_a_run_of_another_process_is_waiting_not_failed(tiny: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    jobs = jobs_for(SHORT, 1, tmp_path / "runs")
    with locked(jobs[0].folder):
        first, second = reproduce(jobs, tmp_path / "r.csv", data=tiny, device="cpu")
    assert (first.state, first.why) == ("waiting", "another process runs it")
    assert second.state == "done"
    (rest,) = reproduce(jobs, tmp_path / "r.csv", data=tiny, device="cpu")
    assert (rest.job, rest.state) == (jobs[0], "done")


def test_missing_data_fail_each_run_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = jobs_for(SHORT[:1], 1, tmp_path / "runs")
    (only,) = reproduce(jobs, tmp_path / "r.csv", data=tmp_path / "none")
    assert only.state == "failed"
    assert only.why.startswith(f"FileNotFoundError: root is {tmp_path / 'none'}, which is not there")
    monkeypatch.setenv("LONGTAIL_DATA", str(tmp_path / "absent"))
    (only,) = reproduce(jobs, tmp_path / "r.csv")
    assert only.why.startswith(f"FileNotFoundError: LONGTAIL_DATA is {tmp_path / 'absent'}, which is not")


# DD-Net on skeletons


@pytest.fixture
def clips() -> Dataset:
    """Fourteen classes of 10 training clips and one test clip, each class at its own speed."""
    rng = np.random.default_rng(0)

    def split(each: int) -> Split:
        targets = np.repeat(np.arange(14), each)
        time = np.linspace(0, 1, 32)[None, :, None, None] * (1 + targets[:, None, None, None])
        phase = rng.uniform(0, 6, (len(targets), 1, 15, 2))
        return Split(np.sin(time + phase).astype(np.float32), targets)

    return Dataset("jhmdb14-1", split(10), split(1), tuple("abcdefghijklmn"), kind="skeletons")


def test_the_skeleton_grid_is_the_issues_and_the_widest_come_first() -> None:
    grid = skeletons()
    every = [recipe.hash for setting in grid for recipe in setting.recipes]
    assert len(set(every)) == len(every) == 2 * 3 * 3 + 3 * 2 * 5
    assert [r.dataset for s in grid[:2] for r in s.recipes] == [
        f"jhmdb{classes}-{split}" for classes in (14, 21) for split in (1, 2, 3)
    ]
    assert {s.recipe.model for s in grid[:2]} == {"ddnet64"}
    assert {s.beta for s in skeletons(imbalances=[10], losses=["focal"])} == {0.0, 0.5, 0.9, 0.99, 1.0}
    assert {s.dataset for s in skeletons(datasets=["jhmdb21"])} == {"jhmdb21"}
    published = {width: clips_of(21, width, "softmax", 0.0, 1).published for width in FILTERS}
    assert published == {64: {"accuracy": 77.2}, 32: {"accuracy": 73.7}, 16: {}}
    assert sum(bool(setting.published) for setting in grid) == 2


def test_skeleton_jobs_follow_the_recipe() -> None:
    whole = jobs_for([clips_of(21, 64, "softmax", 0.0, 1)], 1, Path("runs"))[2]
    inverse = jobs_for([clips_of(14, 16, "focal", 1.0, 10)], 1, Path("runs"))[0]
    assert (whole.recipe.dataset, whole.recipe.model) == ("jhmdb21-3", "ddnet64")
    assert (whole.recipe.scheme, whole.recipe.imbalance_factor) == ("none", None)
    assert (inverse.recipe.scheme, inverse.recipe.beta, inverse.recipe.gamma) == ("effective", 1.0, 1.0)
    assert inverse.recipe.imbalance_factor == 10
    assert (whole.recipe.learning_rate, whole.recipe.final_learning_rate) == (1e-3, 1e-5)
    assert whole.recipe.epochs <= 600
    # beta 1 weighs by the inverse of the counts: no scheme of its own is needed
    weights = class_weights([25, 5, 2], beta=inverse.recipe.beta)
    np.testing.assert_allclose(weights, class_weights([25, 5, 2], "inverse"), rtol=1e-12)


def test_a_skeleton_grid_runs_and_is_shown(clips: Dataset, tmp_path: Path) -> None:
    results = tmp_path / "ddnet.csv"
    full = [clips_of(14, 16, "softmax", 0.0, 1), clips_of(14, 16, "focal", 1.0, 10)]
    todo = [setting.with_epochs(2) for setting in full]
    jobs = [job for job in jobs_for(todo, 1, tmp_path / "runs") if job.recipe.dataset == "jhmdb14-1"]
    done = reproduce(jobs, results, data=clips, device="cpu")
    assert [(r.state, r.why) for r in done] == [("done", ""), ("done", "")]
    rows = read_rows(results, "ddnet")
    settings = [tuple(one[name] for name in SKELETON_COLUMNS[:8]) for one in rows]
    assert settings == [
        ("jhmdb", "14", "1", "16", "0", "softmax", "0", "1"),
        ("jhmdb", "14", "1", "16", "0", "focal", "1", "10"),
    ]
    assert done[0].error_percent is not None
    assert float(rows[0]["accuracy_percent"]) == pytest.approx(100 - done[0].error_percent, abs=0.01)
    assert (rows[0]["subset_sha256"], len(rows[1]["subset_sha256"])) == ("", 64)
    assert reproduce(jobs, results, data=clips, device="cpu") == []
    # a seed counts once all its splits are there
    assert all(m.summary() is None for m in measure(todo, rows))
    others = [row(todo[0], 0, 50, split=1), row(todo[0], 0, float(rows[0]["accuracy_percent"]), split=2)]
    first, second = measure(todo, [*rows, *others])
    mean = (2 * float(rows[0]["accuracy_percent"]) + 50) / 3
    summary = first.summary()
    assert summary is not None
    assert (summary.n, second.summary()) == (1, None)
    assert summary.mean == pytest.approx(mean)
    assert [cell.text for cell in sheet([first]).rows[0]] == [
        *("jhmdb14", "16", "softmax", "none", "-", f"{mean:.1f}", "1", ""),
    ]
    assert measure(full, [*rows, *others])[0].summary() is None  # 2 epochs are not the recipe's


def test_weights_are_compared_with_none_by_seed_and_wide_networks_with_the_paper() -> None:
    tail = [clips_of(14, 16, "focal", beta, 10) for beta in (0.0, 0.9)]
    wide = clips_of(21, 64, "softmax", 0.0, 1)
    accuracy = [(tail[0], (50, 60, 70)), (tail[1], (55, 63, 74)), (wide, (78, 79, 80))]
    rows = [
        row(setting, seed, value + split - 1, split=split)
        for setting, values in accuracy
        for seed, value in enumerate(values)
        for split in (0, 1, 2)
    ]
    none, weighted, paper = measure([*tail, wide], rows)
    assert none.gain() is None
    gain = weighted.gain()
    assert gain is not None
    assert (gain.mean, gain.n) == (4, 3)
    summary = weighted.summary()
    assert summary is not None
    assert summary.mean == 64
    assert paper.difference() == pytest.approx(79 - 77.2)
    assert [line[-1].text[:4] for line in sheet([none, weighted, paper]).rows] == ["", "+4.0", "+1.8"]

    # a seed counts once, by its fp32 runs; splits of two precisions make no mean
    doubled = [
        row(setting, seed, 1, "bf16", split)
        for setting, values in accuracy
        for seed in range(len(values))
        for split in (0, 1)
    ]
    assert measure([*tail, wide], [*rows, *rows, *doubled]) == [none, weighted, paper]
    (mixed,) = measure([wide], [*doubled, *(row(wide, seed, 80, split=2) for seed in range(3))])
    assert mixed.summary() is None


@pytest.mark.parametrize("order", [1, -1])
def test_a_seed_counts_once_and_by_its_fp32_run(order: int) -> None:
    rows = [row(PLAIN, 0, 30), row(PLAIN, 0, 40, "bf16"), row(PLAIN, 1, 20, "bf16"), row(PLAIN, 0, 30)]
    (only,) = measure([PLAIN], rows[::order])
    summary = only.summary()
    assert summary is not None
    assert (summary.n, summary.mean) == (2, 25)
    assert only.gain() is None


def test_a_gain_is_paired_by_seed() -> None:
    steeper = of("table2", "cifar10", 50, "softmax", None, 0.0)
    rows = [row(PLAIN, 0, 27), row(PLAIN, 1, 31), row(steeper, 2, 5)]
    rows += [row(BALANCED, 0, 25), row(BALANCED, 2, 90)]
    plain, balanced = measure([PLAIN, BALANCED], rows)
    assert plain.gain() is None
    summary, gain = balanced.summary(), balanced.gain()
    assert summary is not None
    assert summary.mean == 57.5
    assert gain is not None
    assert (gain.mean, gain.n) == (-2, 1)
    rows.append(row(BALANCED, 1, 25))
    (balanced,) = measure([BALANCED], rows)
    gain = balanced.gain()
    assert gain is not None
    assert (gain.mean, gain.n) == (-4, 2)
    text = sheet([balanced]).rows[0][-1].text
    assert re.fullmatch(r"-4\.00 \[-29\.41, \+21\.41\]", text)  # 2 / sqrt(2) sqrt(2) t(0.975, 1), by hand
    assert sheet(measure([PLAIN], [])).rows[0][-1].text == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"datasets": ["cifar10"]}, "dataset must be one of 'jhmdb14', 'jhmdb21', got 'cifar10'"),
        ({"imbalances": [50]}, "imbalance must be one of 1, 10, got 50"),
        ({"filters": [8]}, "filters must be one of 64, 32, 16, got 8"),
        ({"losses": ["sigmoid"]}, "loss must be one of 'softmax', 'focal', got 'sigmoid'"),
    ],
)
def test_what_the_skeleton_grid_does_not_have_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        skeletons(**arguments)


ADD_MANY = """
import sys
from pathlib import Path
from longtail.paper.results import add_rows, columns_of

for i in range(20):
    for recipe_hash in (f"p{sys.argv[2]}-{i}", f"shared-{i}"):
        row = {name: "1" for name in columns_of("table2")} | {"recipe_hash": recipe_hash}
        add_rows(Path(sys.argv[1]), "table2", [row])
"""


def test_two_processes_lose_and_double_no_row(tmp_path: Path, start: Any) -> None:
    path = tmp_path / "results.csv"
    workers = [start([sys.executable, "-c", ADD_MANY, str(path), str(k)]) for k in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    hashes = [one["recipe_hash"] for one in read_rows(path, "table2")]
    assert len(hashes) == len(set(hashes)) == 60


def test_a_results_file_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("dataset,error\ncifar10,30\n")
    with pytest.raises(
        ValueError, match=r"results\.csv has other columns than this version writes .*move it away"
    ):
        reproduce(jobs_for([PLAIN], 1, tmp_path), path)
    path.write_text(",".join(COLUMNS) + "\ncifar10,10\n")
    with pytest.raises(ValueError, match=r"broken row in line 2; repair or delete"):
        read_rows(path, "table2")


def test_a_results_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    for name in "ab":
        one = dict.fromkeys(COLUMNS, "1") | {"recipe_hash": name, "per_class_error_percent": "4.20 1"}
        add_rows(path, "table2", [one])
    text = path.read_text()
    assert len(read_rows(path, "table2")) == 2
    rows = [text.index("\n") + 1, text.index("\n", text.index("\n") + 1) + 1]
    for end in set(range(1, len(text))) - set(rows):  # a file of fewer whole rows is a results file
        path.write_text(text[:end])
        with pytest.raises(ValueError, match=r"other columns|broken row in line|cut short in its last line"):
            read_rows(path, "table2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parallel": 0}, r"jobs must be in \[1, inf\], got 0"),
        ({"budget_minutes": -1}, r"budget must be in \(0, inf\], got -1"),
    ],
)
def test_bad_options(tmp_path: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reproduce([], tmp_path / "r.csv", **arguments)  # type: ignore[arg-type]


def test_too_few_epochs_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"epochs must be in \[3, inf\], got 2; the recipe's 2 milestones need room"
    ):
        PLAIN.with_epochs(2)


# --- what stands beside the package: the readable twin, the packed pictures


def from_file(path: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readable_twin_has_the_recipes_schedule_and_augmentation() -> None:
    twin, recipe = from_file("examples/train_cifar_lt.py"), paper_cifar()
    for step in range(0, 200 * 97, 13):
        assert twin.learning_rate(step / 97, 200) == pytest.approx(learning_rate_at(recipe, step, 97), 1e-9)
    torch.manual_seed(0)
    images = torch.arange(1, 3 * 32 * 32 + 1).reshape(1, 3, 32, 32).expand(60, -1, -1, -1)
    padded = torch.nn.functional.pad(images[:1], (4, 4, 4, 4))
    windows = [padded[:, :, top : top + 32, left : left + 32] for top in range(9) for left in range(9)]
    possible = {tuple(image.flatten().tolist()) for w in windows for image in (w, w.flip(3))}
    made = twin.augment(images)
    assert {tuple(image.flatten().tolist()) for image in made} <= possible
    assert len({tuple(image.flatten().tolist()) for image in made}) > 30


def test_the_readable_twin_trains_as_long_as_it_is_told(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    twin = from_file("examples/train_cifar_lt.py")
    assert len((ROOT / "examples" / "train_cifar_lt.py").read_text().splitlines()) < 150
    monkeypatch.setattr("longtail.datasets.load", lambda name, root: tiny)
    monkeypatch.setattr(
        sys, "argv", ["twin", "--imbalance", "5", "--epochs", "2", "--loss", "focal", "--device", "cpu"]
    )
    twin.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["epoch", "epoch"]
    assert lines[2].startswith("error ")


def test_packed_batches_come_back_byte_for_byte(tmp_path: Path) -> None:
    gpu = from_file("benchmarks/gpu.py")
    records = np.random.default_rng(0).integers(0, 256, (40, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    (tmp_path / "there").mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        records.tofile(tmp_path / "there" / f"{name}.bin")
    (tmp_path / "there" / "batches.meta.txt").write_text("\n".join("abcdefghij"))
    gpu.pack(tmp_path / "there", tmp_path / "packed")
    gpu.unpack(sorted((tmp_path / "packed").iterdir()), tmp_path / "back")
    folder = tmp_path / "back" / "cifar-10-batches-bin"
    assert (folder / "data_batch_1.bin").read_bytes() == records.tobytes()
    assert cifar10(folder, verify=False).class_names == tuple("abcdefghij")


def test_a_stage_that_is_out_of_time_ends_with_all_it_started() -> None:
    gpu = from_file("benchmarks/gpu.py")
    read, write = os.pipe()
    late = f"import os, time; time.sleep(3600); os.write({write}, b'x')"
    child = f"subprocess.Popen([sys.executable, '-c', {late!r}], pass_fds=[{write}])"
    command = f"import subprocess, sys, time; {child}; time.sleep(3600)"
    assert gpu.run(["-c", command], 3.0, pass_fds=[write]) is None
    assert gpu.run(["-c", "raise SystemExit(3)"], 3600.0) == 3
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b""


@pytest.mark.parametrize("text", [None, "{}", '{"finished": false}', '{"finished": true}'])
def test_a_stage_is_done_once_its_result_says_so(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = from_file("benchmarks/gpu.py")
    monkeypatch.setitem(gpu.FILES, "losses", tmp_path / "loss.json")
    if text is not None:
        (tmp_path / "loss.json").write_text(text)
    assert gpu.finished("losses") == (text == '{"finished": true}')
    assert not gpu.finished("cells")


def test_the_gpu_command_asks_for_the_most_telling_cells_first() -> None:
    jobs = from_file("benchmarks/gpu.py").most_wanted(Path("runs"), "bf16")
    assert (
        len({job.recipe.hash for job in jobs}) == len(jobs) == 3 * len(cifar("table2", datasets=["cifar10"]))
    )
    assert {job.setting.imbalance_factor for job in jobs[:21]} == {100}
    assert {(str(job.setting), job.recipe.seed) for job in jobs[:21]} == {
        (f"cifar10 imbalance 100 {loss} beta {beta}", seed)
        for seed in range(3)
        for loss, beta in [
            *(("softmax", "0"), ("sigmoid", "0"), ("focal gamma 1", "0")),
            *(("softmax", "0.9999"), ("sigmoid", "0.9999")),
            *(("focal gamma 1", "0.9999"), ("focal gamma 2", "0.9999")),
        ]
    }
