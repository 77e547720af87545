"""The comparison on real digits: tiny grids, real runs, and its statistics against hand-made outcomes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from folders import unseal
from longtail import datasets, methods, recipes
from longtail.compare import COLUMNS, ComparisonTable, Outcome, Row, advice, answer, compare, prepare, runs
from longtail.evaluation import class_curves, evaluate, macro_curves
from longtail.report import tables
from longtail.report.blocks import Chart, Text
from longtail.report.figures import draw_comparison
from longtail.report.panels import classes, probabilities
from longtail.report.tables import markdown, method_sheet, terminal_table

TINY = recipes.digits(epochs=6, warmup_epochs=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ComparisonTable:
    folder = tmp_path_factory.mktemp("compare")
    return compare(
        TINY, losses=["softmax"], schemes=["none", "effective"], seeds=2, out=folder, jobs=1, device="cpu"
    )


def test_every_method_and_seed_is_there_once(tiny: ComparisonTable) -> None:
    assert [(row.loss, row.weights, row.seeds) for row in tiny.rows] == [
        ("softmax", "none", (0, 1)),
        ("softmax", "effective", (0, 1)),
    ]
    assert not tiny.failures


def test_files_say_what_the_object_says(tiny: ComparisonTable) -> None:
    stored = json.loads((tiny.folder / "compare.json").read_text())
    assert stored == json.loads(json.dumps(tiny.to_dict()))
    rows = list(csv.DictReader((tiny.folder / "compare.csv").read_text().splitlines()))
    errors = {(r["scheme"], int(r["seed"])): float(r["error"]) for r in rows}
    for row in tiny.rows:
        for outcome in row.outcomes:
            assert outcome.evaluation is not None
            assert errors[row.weights, outcome.recipe.seed] == pytest.approx(
                outcome.evaluation.error, abs=1e-6
            )
    for r in rows:
        assert all(
            r[name] for name in ("recipe_hash", "subset_sha256", "device", "torch", "numpy", "seconds")
        )
    # the same seed draws the same tail for every method, another seed another one
    drawn = {(r["scheme"], r["seed"]): r["subset_sha256"] for r in rows}
    assert drawn["none", "0"] == drawn["effective", "0"] != drawn["none", "1"]


def test_a_second_call_trains_nothing_and_says_the_same(tiny: ComparisonTable) -> None:
    before = {p: p.stat().st_mtime_ns for p in tiny.folder.rglob("model.safetensors")}
    again = compare(
        TINY,
        losses=["softmax"],
        schemes=["none", "effective"],
        seeds=2,
        out=tiny.folder,
        jobs=1,
        device="cpu",
    )
    assert before
    assert before == {p: p.stat().st_mtime_ns for p in tiny.folder.rglob("model.safetensors")}
    assert again.to_dict() == tiny.to_dict()


def test_processes_and_one_process_agree(tiny: ComparisonTable, tmp_path: Path) -> None:
    other = compare(TINY, losses=["softmax"], schemes=["none"], seeds=2, out=tmp_path, jobs=2, device="cpu")
    mine, theirs = tiny.rows[0]["error"].values, other.rows[0]["error"].values
    assert mine == pytest.approx(theirs, abs=0.02)  # thread counts differ, so sums may round differently


def test_a_failing_run_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "softmax-none").mkdir()
    (tmp_path / "softmax-none" / "seed0").write_text("in the way")
    result = compare(TINY, losses=["softmax"], schemes=["none", "inverse"], seeds=1, out=tmp_path, jobs=1)
    assert [o.recipe.scheme for o in result.failures] == ["none"]
    assert "seed0" in str(result.failures[0].failure)
    assert result.rows[0].outcomes == ()
    assert result.rows[1].seeds == (0,)
    assert cells(result)[0][2] == "n/a"
    assert "no run without re-weighting" in result.verdict


def test_another_recipes_folder_is_refused_before_training(tiny: ComparisonTable) -> None:
    with pytest.raises(ValueError, match=r"out=.* holds runs of another recipe; choose another folder"):
        compare(
            TINY.replace(epochs=7), losses=["softmax"], schemes=["none"], seeds=1, out=tiny.folder, jobs=1
        )


def test_runs_on_other_data_are_refused_and_never_shown(tmp_path: Path) -> None:
    digits = datasets.load("digits")
    mine = replace(digits, name="mine")
    recipe = TINY.replace(dataset="mine")

    def compared(dataset: datasets.Dataset) -> ComparisonTable:
        return compare(
            recipe, losses=["softmax"], schemes=["none"], seeds=1, dataset=dataset, out=tmp_path, jobs=1
        )

    assert not compared(mine).failures
    grown = datasets.Split(mine.test.inputs[1:], mine.test.targets[1:])
    told = r"all 1 runs failed, .*holds a run on other data \(test_sha256 differ\); choose another folder"
    with pytest.raises(RuntimeError, match=told):
        compared(replace(mine, test=grown))
    assert compared(mine).rows[0].seeds == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"losses": ["hinge"]}, r"losses must be one of .*got 'hinge'"),
        ({"schemes": ["efective"]}, r"schemes must be one of .*did you mean 'effective'"),
        ({"schemes": []}, r"schemes must name at least one"),
        ({"losses": ["softmax", "softmax"]}, r"losses must name at least one, each once"),
        ({"losses": "softmax"}, r"losses must be a list of names, got 'softmax'"),
        (
            {"methods": ["plain"], "losses": ["softmax"]},
            r"methods= is given beside losses= or schemes=; leave one",
        ),
        ({"methods": "plain"}, r"methods must be a list, got 'plain'"),
        ({"methods": []}, r"methods must name at least one"),
        (
            {"methods": ["plain", methods.Method()]},
            r"methods must name at least one, each once, got \['plain'",
        ),
        ({"methods": ["plane"]}, r"method must be one of .*did you mean 'plain'"),
        ({"methods": [3]}, r"method must be a Method, got int 3"),
        ({"seeds": 0}, r"seeds must be in \[1, inf\], got 0; five seeds"),
        ({"seeds": [1, 1]}, r"seeds must name at least one, each once"),
        ({"jobs": 0}, r"jobs must be in \[1, inf\], got 0"),
        ({"out": __file__}, r"out=.* cannot be made a folder"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError, OSError), match=message):
        compare(TINY, **{"out": tmp_path, "seeds": 1, **arguments})  # type: ignore[arg-type]


def _made(errors: dict[tuple[str, str], list[float]]) -> ComparisonTable:
    """A comparison with chosen errors: 1000 predictions of two classes, the first so many of them wrong."""
    rows = []
    for (loss, scheme), values in errors.items():
        outcomes = []
        for seed, error in enumerate(values):
            targets = np.arange(1000) % 2
            wrong = np.arange(1000) < round(1000 * error)
            evaluation = evaluate(np.where(wrong, 1 - targets, targets), targets, [200, 5])
            recipe = TINY.replace(loss=loss, scheme=scheme, seed=seed)
            outcomes.append(Outcome(recipe, evaluation, 1.0, None, Path("nowhere")))
        rows.append(Row(outcomes[0].recipe, tuple(outcomes)))
    return ComparisonTable(TINY, tuple(rows), (), Path("nowhere"))


def cells(table: ComparisonTable) -> list[list[str]]:
    return [[cell.text for cell in row] for row in method_sheet(table, "table").rows]


def test_a_clear_gain_is_marked_best_with_its_interval() -> None:
    base, ours = [0.30, 0.32, 0.31, 0.29, 0.30], [0.20, 0.21, 0.21, 0.20, 0.19]
    made = _made({("softmax", "none"): base, ("softmax", "effective"): ours})
    assert made.winner is made.rows[1]
    t = stats.ttest_rel(ours, base).confidence_interval(0.95)
    d = made.rows[1]["error"].difference
    assert d is not None
    assert (d.low, d.high) == pytest.approx((t.low, t.high))
    assert made.verdict.startswith("Best: softmax, effective weights, 20.2 %, 10.2 points below")
    texts = cells(made)[1]
    assert texts[1] == "effective (best)"
    assert texts[-1].endswith("]*")


def test_a_gain_within_the_noise_is_not_marked() -> None:
    base, ours = [0.30, 0.32, 0.25, 0.29, 0.30], [0.29, 0.33, 0.22, 0.28, 0.30]
    made = _made({("softmax", "none"): base, ("softmax", "effective"): ours})
    assert made.winner is None
    assert "no method is marked best" in made.verdict
    assert "best" not in method_sheet(made, "table").markdown()
    assert "*" not in method_sheet(made, "table").markdown()


def test_the_correction_counts_every_tested_method() -> None:
    base = [0.300, 0.320, 0.310, 0.290, 0.305]
    ours = [0.290, 0.304, 0.301, 0.270, 0.301]  # significant alone, and among nine not
    one = _made({("softmax", "none"): base, ("softmax", "effective"): ours})
    assert one.winner is one.rows[1]
    others = {("softmax", s): [0.5, 0.51, 0.5, 0.52, 0.5] for s in ("inverse", "inverse_sqrt")}
    for loss in ("sigmoid", "focal"):
        others |= {
            (loss, s): [0.5, 0.51, 0.5, 0.52, 0.5] for s in ("none", "inverse", "inverse_sqrt", "effective")
        }
    nine = _made({("softmax", "none"): base, ("softmax", "effective"): ours, **others})
    assert nine.tests == 9
    p = stats.ttest_rel(ours, base).pvalue
    assert 0.05 / 9 < p < 0.05
    assert nine.winner is None


def test_worse_is_never_called_better() -> None:
    made = _made({("softmax", "none"): [0.2, 0.21, 0.2], ("softmax", "inverse"): [0.3, 0.31, 0.3]})
    assert made.winner is None
    assert not made.rows[1]["error"].better
    assert made.verdict == (
        "No: softmax without re-weighting has the lowest mean error, 20.3 %. The best that balances, softmax "
        "inverse, costs 10.0 points [+10.0, +10.0]."
    )


def test_one_seed_proves_nothing() -> None:
    made = _made({("softmax", "none"): [0.3], ("softmax", "inverse"): [0.1]})
    assert made.winner is None
    assert "a single run proves nothing" in made.verdict
    assert cells(made)[1][-1] == "-20.0"


def test_pairs_are_made_over_common_seeds_only() -> None:
    made = _made({("softmax", "none"): [0.3, 0.3, 0.3], ("softmax", "inverse"): [0.2, 0.2, 0.2]})
    lost = replace(made, rows=(made.rows[0], Row(made.rows[1].recipe, made.rows[1].outcomes[1:])))
    d = lost.rows[1]["error"].difference
    assert d is not None
    assert d.n == 2


def test_pairs_are_aligned_by_seed_whatever_the_order_of_the_runs() -> None:
    base, gain = [0.10, 0.35, 0.20, 0.45, 0.30], [0.010, 0.020, 0.015, 0.012, 0.018]
    made = _made(
        {("softmax", "none"): base, ("softmax", "inverse"): [b - g for b, g in zip(base, gain, strict=True)]}
    )
    shuffled = [made.rows[1].outcomes[seed] for seed in (3, 0, 4, 2, 1)]
    for rows in (made.rows, (made.rows[0], Row(made.rows[1].recipe, tuple(shuffled)))):
        d = replace(made, rows=rows).rows[1]["error"].difference
        assert d is not None
        assert d.mean == pytest.approx(-0.015)
        assert d.sd == pytest.approx(np.std(gain, ddof=1))  # 0.15 where seeds are mixed up
        change = replace(made, rows=rows).change
        assert change is not None
        assert change.low is not None
        assert change.high is not None
        assert np.nanmax(change.high - change.low) < 0.05


def test_every_column_is_compared_and_corrected_alike() -> None:
    base, ours = [0.30, 0.32, 0.31, 0.29, 0.30], [0.20, 0.21, 0.21, 0.20, 0.19]
    made = _made({("softmax", "none"): base, ("softmax", "effective"): ours})
    for column in (c for c in COLUMNS if c.measured):
        measure = made.rows[1][column.name]
        if measure.summary is None:
            assert column.name not in ("error", "balanced_error", "macro_f1", "many_error", "few_error")
            continue
        theirs = made.rows[0][column.name].values
        d = measure.difference
        assert d is not None
        assert d.mean == pytest.approx(np.mean(measure.values) - np.mean(theirs))
        assert measure.better
        assert (d.mean > 0) == (column.name == "macro_f1")  # of which more is better
    assert made.rows[0].baseline is None
    assert made.rows[1].baseline == 0


def test_the_change_of_a_class_is_from_plain_to_balanced(tiny: ComparisonTable, tmp_path: Path) -> None:
    change = tiny.change
    assert tiny.step is not None
    assert change is not None
    rival, best = tiny.step
    assert {tiny.rows.index(rival), tiny.rows.index(best)} == {
        tiny.rows.index(row) for row in (tiny.best, tiny.rival) if row is not None
    }
    assert rival.is_plain
    assert not best.is_plain
    ours, theirs = (
        np.array([o.result.per_class_error for o in row.outcomes], dtype=float) for row in (best, rival)
    )
    np.testing.assert_allclose(change.mean, (ours - theirs).mean(axis=0))
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    varied = np.ptp(ours - theirs, axis=0) > 0  # where both seeds agree, scipy has no interval
    np.testing.assert_allclose(best.by_class.mean, ours.mean(axis=0))

    # both doubts: the seeds' t interval, and Agresti and Min's of the test samples, one end at a time
    said = [[o.decided for o in row.outcomes] for row in (best, rival)]
    truth = said[0][0].labels  # type: ignore[union-attr]
    wrong = [np.mean([p.predicted != truth for p in row], axis=0) for row in said]  # type: ignore[union-attr]
    for c in range(10):
        gap = (wrong[0] - wrong[1])[truth == c]
        middle, n = gap.sum() / (len(gap) + 2), len(gap) + 2
        half = 1.959964 * np.sqrt((((gap**2).sum() + 1) / n - middle**2) / n)
        mean = change.mean[c]
        seeds = mean - expected.low[c] if varied[c] else 0.0
        low, high = mean - np.hypot(seeds, mean - middle + half), mean + np.hypot(seeds, middle + half - mean)
        assert change.low is not None
        assert change.high is not None
        assert (change.low[c], change.high[c]) == pytest.approx((max(low, -1), min(high, 1)), abs=1e-5)
    assert change.doubts == "both"
    shutil.copytree(tiny.folder, tmp_path / "old")
    for place in (tmp_path / "old").rglob("predictions.npz"):
        unseal(place.parent)
        place.unlink()
    (old,) = runs.comparisons(runs.find_runs([tmp_path / "old"])[0])
    assert old.change is not None
    assert old.change.low is not None
    assert old.change.doubts == "seeds"
    np.testing.assert_allclose(old.change.low[varied], np.maximum(expected.low[varied], -1))
    for table, words in ((tiny, "seeds and test samples together"), (old, "seeds alone: the runs kept no")):
        (chart,) = [b for b in classes.panel(table).blocks if isinstance(b, Chart) and b.name == "change"]
        assert f"95 % intervals over {words}" in chart.label


def test_the_best_is_set_beside_the_best_plain_method_and_its_cost() -> None:
    made = _made(
        {
            ("softmax", "none"): [0.20, 0.21, 0.19],
            ("focal", "none"): [0.30, 0.31, 0.29],
            ("focal", "inverse"): [0.18, 0.20, 0.16],
        }
    )
    # 12 points against focal's own plain loss are 2 against the best plain one
    assert "12.0 points below the same loss" in made.verdict
    assert "Against the best plain method, softmax without re-weighting: 2.0 points better [" in made.verdict
    assert "which may be chance" in made.verdict


def test_a_sure_method_is_recommended_where_the_best_mean_may_be_chance() -> None:
    made = _made(
        {
            ("softmax", "none"): [0.30, 0.32, 0.31, 0.29, 0.30],
            ("softmax", "inverse"): [0.02, 0.35, 0.02, 0.30, 0.04],
            ("softmax", "effective"): [0.20, 0.221, 0.211, 0.19, 0.20],
        }
    )
    assert made.winner is None
    assert made.best is not None
    assert made.best.scheme == "inverse"
    (sure,) = (row for row in made.rows if row["error"].better)
    assert made.surest("error") is sure
    first, how = answer.answer(made)[:2]
    assert first.startswith(f"Use: {sure.in_words}.")
    assert first.endswith("has the better mean, and is less sure to help.")
    assert "more than chance" in how
    told = advice.advise(made)[0].finding
    assert "may be chance. Use softmax effective" in told
    # where a plain method is better than it, it is not recommended
    worse = {
        ("softmax", "none"): [0.10, 0.11, 0.10],
        ("focal", "none"): [0.40, 0.41, 0.40],
        ("focal", "inverse"): [0.30, 0.31, 0.30],
    }
    assert _made(worse).surest("error") is None


@pytest.mark.parametrize(
    ("tested", "prior"),
    [([20, 20, 20], "balanced"), ([200, 20, 2], "as in training"), ([2, 20, 200], "other")],
)
def test_the_prior_of_the_test_data_is_found_out(tested: list[int], prior: str) -> None:
    targets = np.repeat([0, 1, 2], tested)
    result = evaluate(np.zeros_like(targets), targets, [1000, 100, 10])
    recipe = recipes.digits(scheme="none")
    (table,) = runs.comparisons([Outcome(recipe, result, 1.0, None, Path("nowhere"))])
    assert table.test_prior == prior


def test_any_list_of_methods_is_compared(tmp_path: Path) -> None:
    mine = methods.Method(loss="softmax", weight=methods.Rule("effective", beta=0.9))
    chosen = [
        "plain",
        "inverse",
        mine,
        mine.replace(weight=methods.Rule("effective", beta=0.99)),
        "class_aware",
    ]
    table = compare(TINY, chosen, seeds=1, out=tmp_path, jobs=1, device="cpu")
    assert not table.failures
    assert [row.weights for row in table.rows] == [
        "none",
        "inverse",
        "effective beta=0.9",
        "effective beta=0.99",
        "class_aware",
    ]
    assert [row.baseline for row in table.rows] == [None, 0, 0, 0, 0]
    assert table.tests == 4
    folders = {path.parent.parent.name for path in tmp_path.glob("*/seed0/recipe.json")}
    assert {"plain", "inverse", "class_aware"} < folders
    assert len(folders) == 5  # two differ in beta alone
    assert [cells[1] for cells in cells(table)] == [row.weights for row in table.rows]
    again = compare(TINY, chosen, seeds=1, out=tmp_path, jobs=1, device="cpu")
    assert again.to_dict() == table.to_dict()


def test_a_method_has_its_line_of_code() -> None:
    import longtail

    labels = [0] * 9 + [1]
    for method in methods.grid(["softmax", "focal"], ["inverse", "effective"], beta=0.9, gamma=1.0):
        names = {"longtail": longtail, "labels": labels}
        exec(methods.code(method), names)
        loss = names["criterion"]
        assert (loss.loss, loss.scheme) == (method.loss, method.weight.name)  # type: ignore[attr-defined]
    names = {"longtail": longtail}
    exec(methods.code(methods.get("class_aware")), names)
    assert names["method"] == methods.get("class_aware")


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("plain", "criterion"),
        ("plain:loss=focal", "criterion"),
        ("plain:label_smoothing=0.1", "criterion"),
        ("plain:label_smoothing=0.1:smooth_to=prior", "criterion"),
        ("inverse", "criterion"),
        ("logit_adjusted", "criterion"),
        ("ldam", "criterion"),
        ("deferred_effective", "criterion"),
        ("class_aware", "sampler"),
        ("deferred_sampling", "sampler"),
        ("posthoc_logit_adjusted", "logits"),
    ],
)
def test_the_code_of_an_answer_makes_what_a_loop_needs(name: str, made: str) -> None:
    import longtail

    recipe = TINY.replace(method=methods.get(name))
    line = answer.code_for(Row(recipe, ()))
    logits, target = torch.randn(10, 2), torch.tensor([0] * 9 + [1])
    names = {
        "longtail": longtail,
        "torch": torch,
        "logits": logits,
        "labels": target,
        "epoch": 9,
        "epochs": 10,
    }
    for step in line.split("; in each epoch "):
        exec(step, names)
    if made == "criterion":
        wanted = recipe.method.at(9, 10).criterion([9, 1])(logits, target)
        assert torch.allclose(names["criterion"](logits, target), wanted)  # type: ignore[operator]
    elif made == "sampler":
        assert len([*names["sampler"]]) == 10  # type: ignore[misc]
    else:
        assert not torch.equal(names["logits"], logits)  # type: ignore[arg-type]


def test_empty_groups_are_not_applicable() -> None:
    made = _made({("softmax", "none"): [0.3, 0.3]})
    assert cells(made)[0][4] == "n/a"  # counts 200 and 5 leave no medium-shot class


def test_the_table_fits_eighty_columns(tiny: ComparisonTable) -> None:
    from rich.console import Console

    rows = {(loss, s): [0.3, 0.35] for loss in ("softmax", "softmax_focal") for s in ("none", "inverse_sqrt")}
    for comparison in (tiny, _made(rows)):
        console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(terminal_table(comparison))
        console.file.close()
        text = console.export_text()
        assert "…" not in text
        assert "medium" in text


def test_markdown_escapes_bars() -> None:
    assert markdown(["a"], [["x|y"]]) == "| a |\n| --- |\n| x\\|y |\n"


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_picture_is_drawn(tiny: ComparisonTable, tmp_path: Path, ending: str) -> None:
    path = draw_comparison(tiny, tmp_path / f"picture.{ending}")
    assert path.stat().st_size > 5000


def test_nothing_to_draw_is_an_error(tiny: ComparisonTable) -> None:
    with pytest.raises(ValueError, match="no finished run to draw"):
        draw_comparison(replace(tiny, rows=()), "never.png")
    assert replace(tiny, rows=()).verdict == "No run finished, so there is nothing to compare."


DASK = """
import sys
import joblib
from distributed import Client, LocalCluster
from longtail import datasets, methods, recipes
from longtail.compare import compare

if __name__ == "__main__":
    # a process of its own, which pickles cross; a second would spend ten seconds on imports
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        with joblib.parallel_config(backend="dask"):
            recipe = recipes.digits(epochs=6, warmup_epochs=1)
            result = compare(recipe, losses=["softmax"], schemes=["none"], seeds=2, out=sys.argv[1])
    print([(row.weights, row.seeds) for row in result.rows], len(result.failures))
"""


def test_a_dask_cluster_runs_the_grid(tmp_path: Path, finish: Any) -> None:
    pytest.importorskip("distributed")
    script = tmp_path / "on_dask.py"
    script.write_text(DASK)
    command = [sys.executable, str(script), str(tmp_path / "runs")]
    limits = {f"DASK_DISTRIBUTED__COMM__TIMEOUTS__{name}": "1 day" for name in ("CONNECT", "TCP")}
    done = finish(command, env=os.environ | limits)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[('none', (0, 1))] 0"


def test_methods_that_differ_afterwards_share_a_run(tmp_path, monkeypatch):
    named = ["plain", "ncm", "posthoc_logit_adjusted", "logit_adjusted"]
    recipe = recipes.digits(epochs=2, warmup_epochs=0)
    done = []
    table = compare(
        recipe, named, seeds=2, out=tmp_path / "a", jobs=1, progress=lambda d, n, o: done.append(o.recipe)
    )
    assert [row.method.name for row in table.rows] == named
    assert [r.method.name for r in done[:4]] == ["plain", "logit_adjusted"] * 2  # what is shared comes first
    alone = compare(recipe, ["ncm"], seeds=2, out=tmp_path / "b", jobs=1)
    assert alone.rows[0]["error"].values == table.rows[1]["error"].values
    head, *lines = (tmp_path / "a" / "compare.csv").read_text().splitlines()
    assert head.startswith("method,dataset,")
    assert sum(line.startswith("ncm,") for line in lines) == 2


def test_a_named_method_takes_the_recipes_numbers():
    recipe = recipes.digits(gamma=0.5)
    of = {r.method.name: r for r in prepare(recipe, ["effective", "effective:beta=0.9:loss=focal"])[0]}
    assert of["effective"].beta == recipe.beta == 0.99
    assert (of["effective:beta=0.9:loss=focal"].beta, of["effective:beta=0.9:loss=focal"].gamma) == (0.9, 0.5)
    assert of["effective"].hash == recipe.replace(loss="softmax", scheme="effective").hash


def test_differences_hold_the_doubt_over_test_samples_too(tiny: ComparisonTable) -> None:
    plain, weighed = tiny.rows
    measure = weighed["error"]
    kept = [[o.predictions for o in row.outcomes] for row in (weighed, plain)]
    assert all(p is not None and p.logits is not None and p.logits.shape == (500, 10) for p in kept[0])
    for row, runs_ in zip((weighed, plain), kept, strict=True):
        for outcome, p in zip(row.outcomes, runs_, strict=True):
            assert p is not None
            assert (p.predicted != p.labels).mean() == outcome.result.error
    ours, theirs = (np.stack([p.predicted for p in r if p is not None]) for r in kept)
    truth = kept[0][0].labels  # type: ignore[union-attr]
    gaps = (ours != truth).mean(0) - (theirs != truth).mean(0)
    assert measure.on_test is not None
    assert measure.on_test.difference == pytest.approx(gaps.mean())
    assert measure.difference is not None
    assert measure.difference.mean == pytest.approx(gaps.mean())
    d, total = measure.difference, measure.total
    assert total is not None
    assert None not in (d.low, d.high, total.low, total.high)
    seeds, test = d.high - d.low, np.diff(measure.on_test.interval)[0]  # type: ignore[operator]
    assert total.high - total.low == pytest.approx(np.hypot(seeds, test))  # type: ignore[operator]
    for name in ("balanced_error", "natural_error", "many_error", "few_error"):
        pair = weighed[name]
        assert pair.on_test is not None
        assert pair.difference is not None
        assert pair.on_test.difference == pytest.approx(pair.difference.mean)
    assert weighed["macro_f1"].on_test is None
    assert tiny.doubts == "both"
    text = f"[{100 * total.low:+.1f}, {100 * total.high:+.1f}]"  # type: ignore[operator]
    assert text in cells(tiny)[1][-1]
    wide = method_sheet(tiny)
    at = list(wide.head).index("test samples alone")
    assert f"[{100 * measure.on_test.interval.low:+.1f}, " in wide.rows[1][at].text
    assert "over seeds and 500 test samples together" in tables.reading(tiny)
    assert "over seeds and 500 test samples together" in tables.legend(tiny)


def test_a_folder_of_before_has_intervals_over_seeds_alone_and_says_so(
    tiny: ComparisonTable, tmp_path: Path
) -> None:
    shutil.copytree(tiny.folder, tmp_path / "old")
    for place in (tmp_path / "old").rglob("predictions.npz"):
        unseal(place.parent)
        place.unlink()
    found, left = runs.find_runs([tmp_path / "old"])
    assert not left
    (old,) = runs.comparisons(found)
    assert old.doubts == "seeds"
    assert old.rows[1]["error"].total == tiny.rows[1]["error"].difference
    assert "test samples alone" not in method_sheet(old).head
    assert "over seeds alone: no run kept predictions" in tables.reading(old)


def test_damaged_predictions_are_named_and_never_read(tiny: ComparisonTable, tmp_path: Path) -> None:
    shutil.copytree(tiny.folder, tmp_path / "new")
    first = sorted((tmp_path / "new").rglob("predictions.npz"))[0]
    first.write_bytes(first.read_bytes()[:-9])
    _, left = runs.find_runs([tmp_path / "new"])
    assert [one.folder for one in left] == [first.parent]
    assert "predictions.npz has" in left[0].why


def test_the_page_draws_precision_by_recall_of_the_rare_classes(
    tiny: ComparisonTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def curves_of(table: ComparisonTable) -> list[Any]:
        panel = probabilities.panel(table)
        assert panel is not None
        blocks = [b for block in panel.blocks for b in getattr(block, "blocks", [block])]
        told = [b.text for b in blocks if isinstance(b, Text) and "left out" in b.text]
        return [b for b in blocks if isinstance(b, Chart) and b.name == "precision"] + told

    (chart,) = curves_of(tiny)
    assert chart.spec is not None
    few = np.asarray(tiny.class_counts) < tiny.evaluation.thresholds[1]
    best = tiny.best
    assert best is not None
    means = []
    for outcome in best.outcomes:
        p = outcome.predictions
        assert p is not None
        mine = class_curves(p.logits, p.labels)
        means.append(macro_curves([k for k, here in zip(mine, few, strict=True) if here]).precision)
    (drawn,) = [t for t in chart.spec.traces if t["name"] == f"{best.name}, few-shot"]
    np.testing.assert_allclose(np.asarray(drawn["y"], float), np.mean(means, axis=0), rtol=1e-5)
    assert len(chart.spec.traces) == 4
    shutil.copytree(tiny.folder, tmp_path / "old")
    for place in (tmp_path / "old").rglob("predictions.npz"):
        unseal(place.parent)
        place.unlink()
    (old,) = runs.comparisons(runs.find_runs([tmp_path / "old"])[0])
    (told,) = curves_of(old)
    assert told.startswith("Curves of precision by recall are left out: 4 of 4 runs kept no scores")
    monkeypatch.setattr(probabilities, "_MOST", 4 * 500 * 10 - 1)
    (told,) = curves_of(tiny)
    assert "they need 20,000 scores, and a page sorts up to 19,999" in told
