"""Your own data: tables and features as problems, folds and their statistics, learners, the command line."""

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import longtail
from folders import unseal
from longtail import Problem, cli
from longtail.cli.train import _set_rule
from longtail.compare import (
    LEARNERS,
    TABLES,
    ComparisonTable,
    Learner,
    Outcome,
    Row,
    compare,
    estimate,
    left_out,
    running,
    trials,
)
from longtail.compare.advice import advise
from longtail.compare.answer import ESTIMATORS, answer, code_for, thin_classes
from longtail.compare.folds import fold
from longtail.compare.learners import fit, learner
from longtail.compare.trials import run_training, undone
from longtail.datasets import Dataset, Split
from longtail.evaluation import (
    evaluate,
    fit_sets,
    paired_difference,
    paired_on_test,
    summarize,
    wilson_interval,
)
from longtail.methods import Method, Rule
from longtail.methods import get as method
from longtail.report.tables import legend, method_sheet, reading, terminal_table
from longtail.sources import frames
from longtail.sources.frames import read_frame
from longtail.training import evaluate_run, load_run
from longtail.training.evaluate import held_out
from longtail.training.recipe import Recipe

SIZES = (60, 24, 6)


def table(seed: int = 0, sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(sizes)), sizes)
    x = rng.normal(size=(len(y), 3)) + 1.5 * np.eye(3)[y % 3]
    x[::17, 0] = np.nan
    towns = np.array(["Oslo", "Rome", "Bern"], dtype=object)[rng.integers(0, 3, len(y))]
    return {
        "a": x[:, 0],
        "b": x[:, 1],
        "c": x[:, 2],
        "town": towns,
        "kind": np.array(["fine", "bent", "cracked"])[y % 3],
    }


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem.from_table(table(), "kind", name="parts")


@pytest.fixture(scope="module")
def compared(problem: Problem, tmp_path_factory: pytest.TempPathFactory) -> ComparisonTable:
    out = tmp_path_factory.mktemp("parts")
    return longtail.compare(problem, learners="logistic_regression", repeats=2, out=out, jobs=1)


# ---- reading


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


CSV = "row,age,town,seen,code,always,class_code,churn\n" + "".join(
    f"{i},{20 + i % 7 / 2},{'NA' if i == 3 else ['Rome', 'Oslo'][i % 2]},2024-0{1 + i % 9}-02,00{i % 4},x,"
    f"{'ABC'[i % 3]},{['yes', 'no', 'maybe'][i % 3]}\n"
    for i in range(24)
)


def test_a_table_is_read_as_it_is(tmp_path):
    found = Problem.from_table(write(tmp_path / "train.csv", CSV), "churn")
    assert found.name == "train"
    assert found.class_names == ("maybe", "no", "yes")
    kinds = {"age": "number", "town": "category", "seen": "date", "code": "category"}
    assert dict(found.columns) == kinds
    assert found.inputs[0].tolist()[0] == 20
    assert np.isnan(found.inputs[3, 1])  # a missing category
    assert found.inputs[0, 2] == (np.datetime64("2024-01-02") - np.datetime64("1970-01-01")).astype(int)
    assert [note.split("'")[1] for note in found.notes] == ["row", "always", "class_code"]
    assert "is an identifier" in found.notes[0]
    assert "has one value" in found.notes[1]
    assert "repeats the label" in found.notes[2]


def test_drop_and_keep_overrule(tmp_path):
    path = write(tmp_path / "train.csv", CSV)
    found = Problem.from_table(path, "churn", drop=["age"], keep=["row", "class_code"])
    assert dict(found.columns).keys() == {"row", "town", "seen", "code", "class_code"}


def test_files_and_frames_make_the_same_problem(tmp_path):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    text = "a,b,town,kind\n" + "".join(
        f"{i % 5}.5,{i % 3},{'xyz'[i % 4 % 3]},{'pq'[i % 2]}\n" for i in range(20)
    )
    path = write(tmp_path / "t.csv", text)
    frame = pandas.read_csv(path)
    frame.to_parquet(tmp_path / "t.parquet")
    tsv = write(tmp_path / "t.tsv", text.replace(",", "\t"))
    first = Problem.from_table(path, "kind")
    for source in (frame, polars.read_csv(path), tmp_path / "t.parquet", tsv, frame.to_dict("list")):
        other = Problem.from_table(source, "kind")
        assert np.array_equal(first.inputs, other.inputs)
        assert (first.columns, first.class_names) == (other.columns, other.class_names)
        assert np.array_equal(first.targets, other.targets)


def test_classes_are_those_that_weights_counts(tmp_path):
    for text in (
        "y,x\n10,1\n2,0\n10,0\n2,1\n",
        "y,x\n2.0,1\n10.0,1\n2.0,0\n10,1\n",
        "y,x\n010,1\n02,1\n010,2\n02,3\n",
    ):
        path = write(tmp_path / "t.csv", text)
        counts = longtail.class_counts(str(path), label="y")
        found = Problem.from_table(path, "y")
        assert found.class_names == tuple(map(str, counts))
        assert found.class_counts.tolist() == list(counts.values())


ABOUT = ("environment.json", "manifest.json")


def counted_in_groups(outcome: Any, groups: Any) -> None:
    """A run's own evaluation counts groups, read anew as well, and from folders of an earlier version."""
    found, said = outcome.result, outcome.predictions
    scores = said.logits.astype(np.float64)
    single = evaluate(scores, said.labels, found.class_counts, activation=found.activation)
    assert found.num_groups == len(np.unique(groups))
    sizes = [
        np.unique(groups[said.labels == c], return_counts=True)[1] for c in range(len(found.class_counts))
    ]
    assert found.units == pytest.approx([s.sum() ** 2 / max(1, (s**2).sum()) for s in sizes])
    assert found.per_class_interval == tuple(
        wilson_interval(e * n, n) for e, n in zip(found.per_class_error, found.units, strict=True)
    )
    assert found.macro_f1_ends == single.in_groups(said.predicted, said.labels, said.groups).macro_f1_ends
    for name in ("error", "per_class_error", "macro_f1", "confusion", "test_counts", "few_error"):
        assert getattr(found, name) == getattr(single, name), name
    assert found.log_loss == pytest.approx(single.log_loss, abs=1e-6)  # of scores that were rounded
    assert evaluate_run(outcome.folder) == found
    file = outcome.folder / "evaluation.json"
    sealed = {path: path.read_bytes() for path in (file, *(outcome.folder / n for n in ABOUT))}
    try:
        unseal(outcome.folder)
        before = {name: None for name in ("units", "macro_f1_ends")}
        now = json.loads(file.read_text())
        file.write_text(json.dumps({n: v for n, v in (now | before).items() if n != "num_groups"}))
        assert evaluate_run(outcome.folder) == found  # the predictions know the groups
        kept = (outcome.folder / "predictions.npz").read_bytes()
        sealed[outcome.folder / "predictions.npz"] = kept
        replace(said, groups=None).write(outcome.folder)
        old = evaluate_run(outcome.folder)
        assert (old.num_groups, old.units, old.units_text) == (None, None, "the test samples")
        assert old.per_class_interval == single.per_class_interval
    finally:
        for path, content in sealed.items():
            path.write_bytes(content)


@pytest.mark.parametrize("kind", ["csv", "parquet", "frame"])
def test_a_table_larger_than_memory_lies_in_a_file_and_gives_the_same(kind, tmp_path, monkeypatch, rng):
    pandas = pytest.importorskip("pandas")
    train, test = (pandas.DataFrame(table(seed)) for seed in (0, 1))
    order = rng.permutation(len(train))
    for frame in (train, test):  # what is left out stands between what is not
        frame.insert(1, "id", np.char.add("r", order.astype(str)).astype(object))
        frame.insert(3, "always", "x")
    given: list[Any] = [train, test]
    if kind == "parquet":
        given = [tmp_path / "train.parquet", tmp_path / "test.parquet"]
        train.to_parquet(given[0])
        test.to_parquet(given[1])
    if kind == "csv":
        given = [tmp_path / "train.csv", tmp_path / "test.csv"]
        train.to_csv(given[0], index=False)
        test.to_csv(given[1], index=False)
    (tmp_path / "room").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "room"))
    options = {"learners": "logistic_regression", "jobs": 2}
    methods = ["plain", "inverse", "oversampling", "tuned_adjustment"]
    held = Problem.from_table(given[0], "kind", test=given[1], name="t")
    cut = Problem.from_table(given[0], "kind", name="t")
    assert [name for name, _ in held.columns] == ["a", "b", "c", "town"]
    assert not isinstance(held.inputs, np.memmap)
    for found, told in ((held.inputs, train), (held.test[0], test), (cut.inputs, train)):
        assert np.allclose(found[:, :3], told[["a", "b", "c"]], rtol=1e-12, equal_nan=True)
        assert np.array_equal(np.array(["Bern", "Oslo", "Rome"])[found[:, 3].astype(int)], told["town"])
    monkeypatch.setattr(frames, "_IN_MEMORY", 100)
    monkeypatch.setattr(trials, "_CHUNK", 7)
    for whole, extra in ((held, {"test": given[1]}), (cut, {})):
        mapped = Problem.from_table(given[0], "kind", name="t", **extra)
        assert isinstance(mapped.inputs, np.memmap)
        assert np.array_equal(mapped.inputs, whole.inputs, equal_nan=True)
        assert mapped.about == whole.about  # so runs of the one are runs of the other
        assert mapped.notes == whole.notes
        if kind == "csv":
            out = tmp_path / str(bool(extra))
            one = compare(whole, methods, repeats=1, out=out / "whole", **options)
            other = compare(mapped, methods, repeats=1, out=out / "mapped", **options)
            assert [r["balanced_error"].values for r in one.rows] == [
                r["balanced_error"].values for r in other.rows
            ]
            del other
        assert list((tmp_path / "room").iterdir())
        del mapped
        gc.collect()
        assert not list((tmp_path / "room").iterdir())  # the files go with the problem


def test_a_file_larger_than_what_is_held_of_it_is_read(tmp_path, monkeypatch, rng):
    rows = 60_000
    words = np.array([f"a text of more than twelve letters, {i}" for i in range(5)])
    columns = {f"w{i}": words[rng.integers(0, 5, rows)] for i in range(12)}
    columns |= {"x": rng.random(rows).round(6), "kind": np.array(["b", "a"])[rng.integers(0, 2, rows)]}
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame(columns).to_csv(tmp_path / "t.csv", index=False)  # 28 MB
    monkeypatch.setattr(frames, "_SORTER", 48 << 20)  # without files it fails
    monkeypatch.setattr(frames, "_PER_CORE", 0)
    opened = frames._opened

    def with_a_full_disk(stack: Any) -> Any:
        database = opened(stack)
        database.execute("SET max_temp_directory_size = '1MB'")
        return database

    with monkeypatch.context() as patch:
        patch.setattr(frames, "_opened", with_a_full_disk)
        with pytest.raises(OSError, match=r"needs more room than .* set TMPDIR to a folder on a larger disk"):
            read_frame(tmp_path / "t.csv", label="kind")
    read = read_frame(tmp_path / "t.csv", label="kind")
    assert [c.name for c in read.columns] == [*columns][:-1]
    for column in read.columns[:-1]:
        assert np.array_equal(np.array(column.categories)[column.values.astype(int)], columns[column.name])
    assert np.array_equal(read.columns[-1].values, columns["x"])
    assert np.array_equal(read.labels, columns["kind"])


def test_models_of_a_large_table_learn_as_many_at_a_time_as_memory_holds(problem, tmp_path, monkeypatch):
    size = problem.inputs.nbytes
    monkeypatch.setattr("joblib.cpu_count", lambda: 4)
    monkeypatch.setattr(trials, "memory_there", lambda: 7.0 * size)
    with pytest.warns(
        UserWarning, match="2 models learn at a time, not 4: each may hold .* jobs=4 overrules"
    ):
        assert trials.jobs_for(problem, None, 9) == 2
    assert trials.jobs_for(problem, None, 2) == 2  # as many as are left
    assert trials.jobs_for(problem, 3, 9) == 3
    monkeypatch.setattr(trials, "memory_there", lambda: 1.5 * size)
    with pytest.warns(UserWarning, match="1 model learns at a time, not 2"):
        assert trials.jobs_for(problem, None, 2) == 1
    options = {"learners": "logistic_regression", "repeats": 1, "out": tmp_path / "runs"}
    before = compare(problem, ["plain"], jobs=1, **options)
    monkeypatch.setattr(trials, "memory_there", lambda: 0.9 * size)
    for jobs in (None, 1):
        with pytest.raises(ValueError, match="leave columns out by drop=NAME, or give fewer rows"):
            compare(problem, ["plain", "inverse"], jobs=jobs, **options)
    again = compare(problem, ["plain"], **options)  # what is finished needs no memory
    assert again.rows[0]["error"].values == before.rows[0]["error"].values


def test_a_disk_without_room_for_a_large_table_is_told_before_it_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "_IN_MEMORY", 100)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    told = r"the table takes .* GiB, and .* set TMPDIR to a folder on a larger"
    with pytest.raises(OSError, match=told):
        frames.matrix(1 << 40, 1000)
    assert not list(tmp_path.iterdir())
    if hasattr(os, "posix_fallocate"):  # room that is there now may be gone when the file is written
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 62))
        with pytest.raises(OSError, match=told):
            frames.matrix(1 << 40, 1000)
        assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_leaves_the_matrix_to_the_process_that_made_it(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = (
        "import os, sys, tempfile; from longtail.sources import frames; frames._IN_MEMORY = 100;"
        "made = frames.matrix(100, 3); child = os.fork();"
        "sys.exit(0) if child == 0 else os.waitpid(child, 0);"
        "assert len(os.listdir(tempfile.gettempdir())) == 1; del made;"
        "assert not os.listdir(tempfile.gettempdir())"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"TMPDIR": str(tmp_path)})


@pytest.mark.parametrize("kind", ["mapping", "csv", "parquet"])
def test_labels_in_two_forms_of_unicode_are_one_class(kind, tmp_path, rng):
    pandas = pytest.importorskip("pandas")
    written = np.array(["a", "e\u0301", "\u00e9"])[rng.integers(0, 3, 60)]
    given: Any = {"x": rng.random(60), "kind": written}
    if kind != "mapping":
        path = tmp_path / f"t.{kind}"
        frame = pandas.DataFrame(given)
        frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
        given = path
    found = Problem.from_table(given, "kind")
    assert found.class_names == ("a", "\u00e9")
    assert found.class_counts.tolist() == [(written == "a").sum(), (written != "a").sum()]
    given = {"x": rng.random(60), "kind": np.array(["e\u0301", "\u00e9"])[rng.integers(0, 2, 60)]}
    if kind != "mapping":
        frame = pandas.DataFrame(given)
        frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
        given = path
    with pytest.raises(ValueError, match="has one value, '\u00e9'; there is nothing to learn"):
        Problem.from_table(given, "kind")


def test_groups_of_a_test_set_count_in_its_intervals(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 2)) + (np.arange(120) % 3 == 0)[:, np.newaxis]
    rows = [(f"g{i // 4}", f"{x[i, 0]},{x[i, 1]}", "ab"[i % 3 == 0]) for i in range(120)]
    head = "who,x,z,y\n"
    train = write(tmp_path / "train.csv", head + "".join(f"{g},{x},{y}\n" for g, x, y in rows))
    tested = [(f"t{i // 8}" if i else "g0", x, y) for i, (_, x, y) in enumerate(rows[:80])]
    test = write(tmp_path / "test.csv", head + "".join(f"{g},{x},{y}\n" for g, x, y in tested))
    found = Problem.from_table(train, "y", groups="who", test=test)
    assert [name for name, _ in found.columns] == ["x", "z"]
    names = np.unique([g for g, _, _ in tested], return_inverse=True)[1]
    assert np.array_equal(found.test_groups, names)
    assert "1 group is in both training and test, such as 'g0': test errors look" in " ".join(found.notes)
    given = {"groups": found.groups, "test": found.test, "test_groups": found.test_groups}
    features = Problem.from_features(found.inputs, found.targets, **given)
    np.savez(
        tmp_path / "f.npz",
        **{"X": found.inputs, "y": found.targets, "groups": found.groups},
        **{"groups_test": [g for g, _, _ in tested]},
        **{"X_test": found.test[0], "y_test": found.test[1]},
    )
    assert np.array_equal(Problem.from_features(tmp_path / "f.npz").test_groups, names)
    truth = found.test[1]
    sizes = [np.bincount(names[truth == c]) for c in range(2)]
    expected = [s.sum() ** 2 / (s**2).sum() for s in sizes]
    for problem, options in (
        (found, {"learners": "logistic_regression"}),
        (features, {"seeds": 2}),
    ):
        made = compare(problem, ["plain", "inverse"], out=tmp_path / problem.kind, jobs=1, **options)
        assert made.evaluation.units == pytest.approx(expected)
        for outcome in made.outcomes:
            counted_in_groups(outcome, names)
        first = made.rows[0].outcomes[0].result
        low, high = (f"{100 * end:.0f}" for end in first.per_class_interval[1])
        assert f" in {expected[1]:.3g} independent groups, {low} to {high} %)" in " ".join(
            thin_classes(made, made.rows[0])
        )
        if problem.kind == "features":
            np.save(tmp_path / "one.npy", found.inputs[0])
            place = made.rows[0].outcomes[0].folder
            monkeypatch.setattr(
                "sys.argv", ["longtail", "predict", str(place), str(tmp_path / "one.npy"), "--sets", "0.8"]
            )
            with pytest.raises(SystemExit):
                cli.main()
            out = " ".join(capsys.readouterr().out.split())
            assert f"limits from the run's 80 test samples in {len(set(names))} groups" in out
            parts = (Split(found.inputs, found.targets), Split(*found.test))
            anew = evaluate_run(place, Dataset(made.recipe.dataset, *parts, problem.class_names, "vectors"))
            assert (anew.num_groups, anew.units) == (first.num_groups, first.units)
            held = held_out(place)
            rule = fit_sets(held.logits, held.labels, alpha=0.2, counts=held.counts, groups=names)
            assert rule.limits == pytest.approx(_set_rule(place, 0.8, None)[0].limits)
        difference = made.rows[1]["balanced_error"].on_test
        said = [[o.decided.predicted for o in row.outcomes] for row in made.rows]
        by_groups = paired_on_test(said[1], said[0], truth, groups=names)
        assert difference.standard_error == pytest.approx(by_groups.standard_error)
        many = len(set(names))
        assert f"80 test samples in {many} groups" in legend(made)
        told = " ".join([made.verdict, *answer(made)])  # one run proves nothing, and says no interval
        assert told.count("80 test samples") == told.count(f"80 test samples in {many} groups")
        assert by_groups.standard_error != pytest.approx(
            paired_on_test(said[1], said[0], truth).standard_error
        )
    without = write(tmp_path / "without.csv", "x,z,y\n1,1,a\n2,1,b\n")
    assert Problem.from_table(train, "y", groups="who", test=without).test_groups is None
    with pytest.raises(ValueError, match="test_groups must be one a sample, 80, got 2"):
        Problem.from_features(found.inputs, found.targets, test=found.test, test_groups=[1, 2])
    with pytest.raises(ValueError, match="test_groups is given without a test set"):
        Problem.from_features(found.inputs, found.targets, test_groups=names)


def test_the_test_set_of_folds_is_all_of_one_repeat(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 3 // 2
    problem = Problem.from_features(x, y, groups=np.arange(60) // 2)
    made = compare(problem, ["plain"], folds=4, repeats=2, out=tmp_path, jobs=1)
    shared = made.evaluation
    assert (shared.num_samples, shared.test_counts, shared.num_groups) == (60, (40, 20), 30)
    runs = made.rows[0].outcomes[:4]
    said = [o.predictions for o in runs]
    assert sum(o.result.num_groups for o in runs) == 30
    for outcome, p in zip(runs, said, strict=True):
        counted_in_groups(outcome, p.groups)
    every = {name: np.concatenate([getattr(p, name) for p in said]) for name in ("predicted", "labels")}
    most = max(int(p.groups.max()) for p in said)
    groups = np.concatenate([p.groups + i * (1 + most) for i, p in enumerate(said)])
    whole = evaluate(every["predicted"], every["labels"], [40, 20], groups=groups)
    assert shared.macro_f1_interval == whole.macro_f1_interval
    assert shared.macro_f1_interval != runs[0].result.macro_f1_interval
    assert np.sum(shared.confusion, axis=1).tolist() == [40, 20]
    sizes = [np.bincount(np.arange(60)[y == c] // 2) for c in range(2)]
    assert shared.units == pytest.approx([s.sum() ** 2 / (s**2).sum() for s in sizes])


def test_a_run_of_a_table_is_evaluated_and_says_how_its_model_is_made(compared, monkeypatch, capsys):
    def command(*arguments: object) -> tuple[str, str]:
        monkeypatch.setattr("sys.argv", ["longtail", *map(str, arguments)])
        with pytest.raises(SystemExit):
            cli.main()
        found = capsys.readouterr()
        return found.out, " ".join(found.err.split())

    rows = {row.short_name: row.outcomes[0] for row in compared.rows}
    out, err = command("evaluate", rows["inverse"].folder)
    assert not err
    assert "95 % intervals from the test samples: balanced error" in out
    told = [line.split() for line in out.splitlines()[-5:-1]]
    assert [line[:2] for line in told if line] == [["fine", "60"], ["bent", "24"], ["cracked", "6"]]
    assert out.endswith("training samples: those of all 5 folds together, which decide the shot groups\n")
    worst = compared.class_names[rows["inverse"].result.worst_class]
    assert f"worst class {worst} " in " ".join(out.split())
    assert json.loads(command("evaluate", rows["plain"].folder, "--format", "json")[0]) == json.loads(
        (rows["plain"].folder / "evaluation.json").read_text()
    )
    _, err = command("evaluate", rows["plain"].folder, "--data", "x.csv")
    assert "--data 'x.csv' is given for a run on a table or on features" in err
    assert err.endswith("kept of its test samples; leave it out")
    for name in ("plain", "inverse", "tuned_adjustment"):
        _, err = command("predict", rows[name].folder, "x.npy")
        row = next(row for row in compared.rows if row.short_name == name)
        assert f"is of a table, and keeps no model; fit it anew on your rows by {code_for(row)}, then" in err
    with pytest.raises(ValueError, match=r"is of a table, by the learner 'logistic_regression', of which no"):
        load_run(rows["plain"].folder)
    damaged = rows["plain"].folder / "predictions.npz"
    content = damaged.read_bytes()
    try:
        damaged.write_bytes(content[:-1])
        for verb in ("evaluate", "predict"):
            _, err = command(verb, rows["plain"].folder, *["x.npy"] * (verb == "predict"))
            assert "damaged" in err
            assert "put back a copy" in err
    finally:
        damaged.write_bytes(content)


def test_a_test_table_is_read_as_the_training_table(tmp_path):
    train = write(tmp_path / "train.csv", "x,town,y\n1,7,a\n2,Rome,b\n3,7,a\n2,Rome,b\n")
    test = write(tmp_path / "test.csv", "y,town,x\nb,7,5\na,9,\n")
    found = Problem.from_table(train, "y", test=test, keep=["town"])
    assert found.columns == (("x", "number"), ("town", "category"))
    x, y = found.test
    assert y.tolist() == [1, 0]
    assert x[0].tolist() == [5, 0]
    assert np.isnan(x[1, 0])
    assert x[1, 1] == 2  # a town that training has not seen
    table = compare(found, ["plain"], learners="logistic_regression", out=tmp_path / "out", jobs=1)
    assert table.rows[0].outcomes[0].result.num_samples == 2
    assert table.recipe.folds == 0


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("x,y\n1,a\n2,a\n", {}, "label 'y' of .* has one value, 'a'"),
        ("x,y\n" + "".join(f"1,{i}.5\n" for i in range(30)), {}, "is continuous: 30 values"),
        ("x,y\n" + "".join(f"1,id{i}\n" for i in range(30)), {}, "looks like an identifier: 30 values in 30"),
        ("x,y\n1,a\n2,\n3,b\n", {}, "line 3 of .* has an empty field"),
        ("x,y\n1,a\n2,NA\n3,b\n", {}, "label 'y' is missing .NA. in 1 rows"),
        ("x,y\n1,a\n2,b\n3,b\n", {}, "'a' has one sample, and cannot be both learned and tested"),
        ("x,y\n1,a\n2,b\n3,b\n1,a\n", {"label": "z"}, "label='z' is no column of .*'x', 'y'"),
        ("x,y\n1,a\n2,b\n3,b\n1,a\n", {"drop": ["w"]}, "drop='w' is no column of .*; it has 'x', 'y'"),
        ("x,y\n1,a\n2,b\n3,b\n1,a\n", {"groups": "g"}, "groups='g' is no column of .*; it has 'x', 'y'"),
        ("x,y\n1,a\n2,b\n3,b\n1,a\n", {"drop": ["x"]}, "has no column to learn 'y' from"),
        ("x,y\ninf,a\n2,b\n3,b\n1,a\n", {}, "column 'x' of .* holds 1 infinite values"),
        ("x,x,y\n1,1,a\n2,2,b\n", {}, "are named twice: 'x'"),
        (
            "x,y\n" + "".join(f"{i if i else 'red'},{'ab'[i % 2]}\n" for i in range(90)),
            {},
            "column 'x' of .* holds numbers and 1 other values such as 'red'; .*keep='x'",
        ),
        ("x,g,y\n1,u,a\n2,u,a\n3,v,b\n1,w,b\n", {"groups": "g"}, "'a' has all their samples in one group"),
    ],
)
def test_bad_tables_are_one_line(tmp_path, text, options, message):
    path = write(tmp_path / "t.csv", text)
    with pytest.raises((ValueError, TypeError), match=message) as error:
        Problem.from_table(path, options.pop("label", "y"), **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"x": [1, "a", 2.0, 3], "y": list("abab")},
            "column 'x' of the table mixes the types float, int, str",
        ),
        ({"x": [[1], [2], [3], [4]], "y": list("abab")}, "column 'x' must be one value a row|holds lists"),
        ({"x": [1, 2, 3], "y": list("abab")}, "columns differ in length"),
        ({"x": [1, 2, 3, 4], "y": ["a", None, "b", "a"]}, "labels are missing"),
        ({"x": [1, 2, 3, 4], "y": [1.0, np.nan, 2.0, 1.0]}, "labels are NaN"),
        (3, "a table must be a path, a data frame or a mapping"),
    ],
)
def test_bad_frames_are_one_line(columns, message):
    if isinstance(columns, dict) and isinstance(columns["x"][1], str):
        columns["x"] = np.array(columns["x"], dtype=object)
    with pytest.raises((ValueError, TypeError), match=message):
        Problem.from_table(columns, "y")


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("z,y\n1,a\n", "lacks columns of the training table: 'x'"),
        ("x,z,y\n1,1,a\n", "has columns that the training table has not: 'z'"),
        ("x,y\n1,c\n", "classes without a training sample: 'c'"),
        ("x,y\nred,a\n", "holds a number in the training table and a category in"),
        ("x,w\n1,a\n", "label='y' is no column"),
    ],
)
def test_bad_test_tables_are_one_line(tmp_path, test, message):
    train = write(tmp_path / "train.csv", "x,y\n1,a\n2,b\n3,b\n1,a\n")
    with pytest.raises(ValueError, match=message):
        Problem.from_table(train, "y", test=write(tmp_path / "test.csv", test))


# ---- folds


def test_folds_are_stratified_repeated_and_cover_all():
    y = np.repeat([0, 1, 2], [50, 20, 5])
    for repeat in range(3):
        tests = [fold(y, None, 5, 5 * repeat + k)[1] for k in range(5)]
        assert np.array_equal(np.sort(np.concatenate(tests)), np.arange(75))
        assert all(np.bincount(y[t]).tolist() == [10, 4, 1] for t in tests)
    assert not np.array_equal(fold(y, None, 5, 0)[1], fold(y, None, 5, 5)[1])


def test_groups_are_never_split():
    rng = np.random.default_rng(0)
    y, groups = rng.integers(0, 3, 90), rng.integers(0, 20, 90)
    for run in range(10):
        train, test = fold(y, groups, 5, run)
        assert not set(groups[train]) & set(groups[test])
        assert len(train) + len(test) == 90


def test_the_number_of_folds_is_that_of_the_smallest_class():
    assert Problem.from_table(table(sizes=(20, 9, 3)), "kind").folds() == 3
    two = Problem.from_table(table(sizes=(20, 9, 2)), "kind")
    assert two.folds() == 2
    assert any("class 'cracked' has two samples: each fold learns it from one" in note for note in two.notes)
    with pytest.raises(
        ValueError, match=r"folds must be at most 2, the samples of the smallest class 'cracked'"
    ):
        two.folds(3)


# ---- statistics


def test_the_corrected_interval_is_nadeaus_and_bengios(rng):
    a, b = rng.normal(size=(2, 25))
    d = paired_difference(a, b, 0.9, test_to_train=1 / 4)
    t = np.mean(a - b) / np.sqrt((1 / 25 + 1 / 4) * np.var(a - b, ddof=1))
    half = stats.t.ppf(0.95, 24) * np.sqrt((1 / 25 + 1 / 4) * np.var(a - b, ddof=1))
    assert d.p_value == pytest.approx(2 * stats.t.sf(abs(t), 24), rel=1e-9)
    assert (d.low, d.high) == pytest.approx((np.mean(a - b) - half, np.mean(a - b) + half))
    assert summarize(a, test_to_train=0.25).low < summarize(a).low
    with pytest.raises(ValueError, match="test_to_train must be in"):
        paired_difference(a, b, test_to_train=-1)


def test_the_naive_test_is_far_too_sure_and_the_corrected_one_is_not():
    """Two learners of equal merit: nearest mean by one feature or by another that is as good."""
    rng, naive, corrected, trials = np.random.default_rng(0), 0, 0, 150
    for _ in range(trials):
        y = np.repeat([0, 1], 30)
        x = rng.normal(size=(60, 2)) + 0.7 * y[:, None]
        errors = []
        for run in range(25):
            train, test = fold(y, None, 5, run)
            middle = (x[train][y[train] == 0].mean(0) + x[train][y[train] == 1].mean(0)) / 2
            errors.append(((x[test] > middle) != y[test][:, None]).mean(0))
        one, other = np.array(errors).T
        naive += paired_difference(one, other).significant
        corrected += paired_difference(one, other, test_to_train=1 / 4).significant
    assert naive / trials > 0.25  # it promises 0.05
    assert corrected / trials < 0.1


# ---- comparing


def test_every_method_is_run_on_the_same_folds(compared, problem):
    assert [row.method.name for row in compared.rows] == list(TABLES)
    assert not compared.failures
    for row in compared.rows:
        assert row.seeds == tuple(range(10))
    assert compared.metric == "balanced_error"
    plain, adjusted = compared.rows[0], compared.rows[6]
    mine, theirs = plain["balanced_error"].values, adjusted["balanced_error"].values
    d = paired_difference(theirs, mine, test_to_train=1 / 4)
    assert adjusted["balanced_error"].difference == d
    assert "folds" in compared.verdict
    for run in range(10):
        counts = np.sum(plain.outcomes[run].result.confusion, axis=1)
        assert (
            counts.tolist() == np.bincount(problem.targets[fold(problem.targets, None, 5, run)[1]]).tolist()
        )


def test_scores_out_of_fold_are_kept_and_decide(compared, problem):
    place = compared.rows[0].outcomes[3].folder
    with np.load(place / "scores.npz") as kept:
        scores, rows, inner, inside = (kept[n] for n in ("test", "rows", "held_out", "held_out_rows"))
    train, test = fold(problem.targets, None, 5, 3)
    assert np.array_equal(rows, test)
    assert np.array_equal(np.sort(inside), np.arange(len(train)))
    counts = np.bincount(problem.targets[train])
    tau = longtail.tune_adjustment(inner, problem.targets[train][inside], counts).tau
    for name, t in (("plain", 0.0), ("posthoc_logit_adjusted", 1.0), ("tuned_adjustment", tau)):
        decided = longtail.adjust_logits(scores, counts, tau=t).argmax(1)
        row = next(r for r in compared.rows if r.method.name == name)
        confusion = np.zeros((3, 3), dtype=int)
        np.add.at(confusion, (problem.targets[test], decided), 1)
        assert np.array_equal(confusion, row.outcomes[3].result.confusion)


def test_log_losses_and_average_precision_are_scikit_learns(compared, problem):
    row = compared.rows[0]
    with np.load(row.outcomes[4].folder / "scores.npz") as kept:
        p, truth = np.exp(kept["test"]), problem.targets[kept["rows"]]
    p /= p.sum(1, keepdims=True)
    weight = 1 / np.bincount(truth)[truth]
    onehot = np.eye(3)[truth]
    assert row["log_loss"].values[4] == pytest.approx(log_loss(truth, p))
    assert row["balanced_log_loss"].values[4] == pytest.approx(log_loss(truth, p, sample_weight=weight))
    assert row["average_precision"].values[4] == pytest.approx(
        average_precision_score(onehot, p, average="macro")
    )
    again = compared.to_dict()["rows"][0]
    assert again["balanced_log_loss"]["mean"] == row["balanced_log_loss"].summary.mean
    assert "balanced log-loss" in method_sheet(compared).head


def test_a_second_call_and_a_third_after_a_kill_say_the_same(compared, problem, tmp_path):
    options = {"learners": "logistic_regression", "repeats": 2, "out": compared.folder, "jobs": 1}
    before = {p: p.stat().st_mtime_ns for p in compared.folder.rglob("scores.npz")}
    assert compare(problem, **options).to_dict() == compared.to_dict()
    assert before == {p: p.stat().st_mtime_ns for p in compared.folder.rglob("scores.npz")}
    # what kills at several moments leave: no scores, scores without a decision, a decision missing
    texts = {p: p.read_bytes() for p in compared.folder.rglob("evaluation.json")}
    for name in ("plain/fold1/scores.npz", "plain/fold1/evaluation.json", "plain/fold2/evaluation.json"):
        (compared.folder / name).unlink()
    (compared.folder / "tuned_adjustment/fold4/evaluation.json").unlink()
    (compared.folder / "inverse/fold0/environment.json").unlink()
    assert compare(problem, **options).to_dict() == compared.to_dict()
    assert texts == {p: p.read_bytes() for p in compared.folder.rglob("evaluation.json")}
    other = Problem.from_table(table(seed=1), "kind", name="parts")
    with pytest.raises(RuntimeError, match=r"holds a run on other data \(train_sha256 differ\)"):
        compare(other, ["plain"], **options)


def test_a_finished_run_that_was_edited_or_damaged_is_refused_and_the_others_go_on(tmp_path):
    problem = Problem.from_table(table(), "kind", name="parts")
    options = {"learners": "logistic_regression", "folds": 2, "repeats": 1, "out": tmp_path, "jobs": 1}
    methods = ["plain", "posthoc_logit_adjusted"]
    whole = compare(problem, methods, **options)
    folder = tmp_path / "plain" / "fold1"
    result = json.loads((folder / "evaluation.json").read_text())
    better = json.dumps(result | {"balanced_error": result["balanced_error"] / 2}).encode()
    for name, content, why in (
        ("evaluation.json", better, "evaluation.json .*(bytes instead of|does not match its checksum)"),
        ("environment.json", b"[" * 100_000, "nested too deep"),
        ("manifest.json", None, "manifest.json is missing"),
        ("manifest.json", b"{}", "manifest.json cannot be read"),
    ):
        before = (folder / name).read_bytes()
        (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
        found = compare(problem, methods, **options)
        (failed,) = found.failures
        assert failed.folder == folder
        assert re.search(f"the run in .*fold1 is damaged .*{why}.*; put back a copy", failed.failure)
        assert [row.seeds for row in found.rows] == [(0,), (0, 1)]
        (folder / name).write_bytes(before)
    assert compare(problem, methods, **options).to_dict() == whole.to_dict()
    # scores are made again, and come out as they were
    kept = folder / "scores.npz"
    kept.write_bytes(kept.read_bytes()[:-30])
    (folder / "evaluation.json").unlink()
    with pytest.warns(UserWarning, match=r"scores\.npz cannot be read .*; what it held is computed again"):
        assert compare(problem, methods, **options).to_dict() == whole.to_dict()


def test_nothing_is_chosen_by_the_test_set(tmp_path):
    """The same training data, and test labels that would make any peeking choose otherwise."""
    train, test = table(), table(seed=5, sizes=(30, 30, 30))
    decided = []
    for name, labels in (("honest", test["kind"]), ("turned", np.roll(np.asarray(test["kind"]), 41))):
        problem = Problem.from_table(train, "kind", test={**test, "kind": labels})
        made = compare(problem, TABLES, learners="logistic_regression", out=tmp_path / name, jobs=1)
        assert not made.failures
        decided.append([np.sum(row.outcomes[0].result.confusion, axis=0).tolist() for row in made.rows])
        with np.load(tmp_path / name / "plain" / "seed0" / "scores.npz") as kept:
            decided[-1].append(kept["test"].tolist())
            decided[-1].append(kept["held_out"].tolist())
    assert decided[0] == decided[1]


def test_held_out_scores_do_not_know_their_own_labels(problem, tmp_path):
    """Every score is of a model that was trained without the sample: turning its label changes nothing."""
    recipe = Recipe(
        dataset="p", model="logistic_regression", epochs=1, folds=5, seed=2, method=method("tuned_adjustment")
    )
    seen, looked = [], []

    def spy(how: Any, kinds: Any, x: Any, y: Any, m: Any, seed: int, classes: int) -> Any:
        seen.append(x.copy())
        said = fit(how, kinds, x, y, m, seed, classes)

        def checked(asked: Any) -> Any:
            trained = {row.tobytes() for row in x}
            known = [row.tobytes() in trained for row in asked]
            looked.append(all(known))  # whether the fit holds on its own rows; no score is of these
            assert all(known) or not any(known)
            return said(asked)

        return checked

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("longtail.compare.trials.fit", spy)
        (done,) = run_training(problem, learner("logistic_regression"), [recipe], [tmp_path / "run"], {})
    assert done.failure is None
    assert (len(seen), looked) == (1 + 5, [False, True] + 5 * [False])
    held = {row.tobytes() for row in problem.inputs[fold(problem.targets, None, 5, 2)[1]]}
    assert not any(row.tobytes() in held for x in seen for row in x)


@pytest.mark.parametrize(
    "name", ["logistic_regression", "hist_gradient_boosting", "lightgbm", "xgboost", "catboost"]
)
def test_learners_know_categories_missing_values_and_a_class_that_a_fold_lacks(name):
    if LEARNERS[name].module != "sklearn":
        pytest.importorskip(LEARNERS[name].module)
    found = Problem.from_table(table(sizes=(150, 60, 60)), "kind")
    kinds = [kind for _, kind in found.columns]
    x, y = found.inputs, found.targets
    lacking = found.class_names.index("bent")
    inside = (y != lacking) & (np.arange(len(y)) % 3 != 0)
    asked = x[~inside].copy()
    asked[0, 3] = 3.0  # a town that training has not seen
    for m in (method("inverse"), method("class_aware")):
        scores = fit(learner(name), kinds, x[inside], y[inside], m, 0, 3)(asked)
        assert scores.shape == (len(asked), 3)
        assert np.isfinite(scores).all()
        assert (scores[:, lacking] <= np.log(1e-6) + 1e-9).all()
        assert (scores.argmax(1) == y[~inside])[y[~inside] != lacking].mean() > 0.6


def test_smote_of_a_table_by_every_kind_of_learner(problem, tmp_path):
    pytest.importorskip("imblearn")
    made = compare(
        problem,
        ["plain", "smote"],
        learners=["logistic_regression", "hist_gradient_boosting"],
        repeats=1,
        out=tmp_path,
        jobs=1,
    )
    assert not made.failures
    errors = [row["balanced_error"].summary.mean for row in made.rows]
    assert errors[1] < errors[0]
    assert "imblearn.over_sampling.SMOTE()" in code_for(made.rows[3])
    learned: list[Any] = []
    how = Learner(lambda *_, seen=learned: Recorder(seen), lambda _: FunctionTransformer())
    kinds = [kind for _, kind in problem.columns]
    fit(how, kinds, problem.inputs, problem.targets, method("smote"), 0, 3)
    assert np.bincount(learned[0]).tolist() == [60] * 3


@pytest.mark.parametrize(
    ("smallest", "sampler"),
    [(8, "SMOTE()"), (5, "SMOTE(k_neighbors=4)"), (2, "SMOTE(k_neighbors=1)"), (1, "func=longtail.methods")],
)
def test_the_code_of_smote_runs_on_the_data_it_was_said_of(smallest, sampler, tmp_path, rng):
    imblearn = pytest.importorskip("imblearn")
    y = np.repeat(["a", "b", "c"], [30, 15, smallest])
    columns = {f"x{i}": rng.normal(size=len(y)) + (y == "c") for i in range(2)}
    table = {**columns, "y": y}
    made = compare(
        Problem.from_table(table, "y", name="few", test=table if smallest == 1 else None),
        ["plain", "smote"],
        learners="logistic_regression",
        repeats=1,
        out=tmp_path,
        jobs=1,
    )
    assert not made.failures
    said = code_for(made.rows[1])
    assert sampler in said
    known = {"imblearn": imblearn, "longtail": longtail, "X": np.column_stack(list(columns.values())), "y": y}
    importlib.import_module("imblearn.pipeline")
    importlib.import_module("imblearn.over_sampling")
    fitted = eval(said, known | {"StandardScaler": StandardScaler, "LogisticRegression": LogisticRegression})
    assert fitted.predict(known["X"]).shape == y.shape


class Recorder:
    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    def fit(self, x: Any, y: Any, sample_weight: Any = None) -> None:
        self.seen.append(y)


def test_weights_and_sampling_reach_the_learner():
    found = Problem.from_table(table(sizes=(200, 20, 6)), "kind")
    kinds = [kind for _, kind in found.columns]
    said = {}
    for m in (
        method("plain"),
        method("inverse"),
        method("class_aware"),
        Method(weight=Rule("effective", beta=0.0)),
    ):
        say = fit(learner("logistic_regression"), kinds, found.inputs, found.targets, m, 0, 3)
        said[m.label] = np.exp(say(found.inputs)).mean(0)
    assert said["plain"] == pytest.approx(found.class_counts / found.class_counts.sum(), abs=0.02)
    assert said["softmax effective"] == pytest.approx(said["plain"])  # beta 0 weighs nothing
    sizes = {"oversampling": 3 * 200, "undersampling": 3 * 6}
    for name, size in sizes.items():
        learned: list[Any] = []
        how = Learner(lambda *_, seen=learned: Recorder(seen), lambda _: FunctionTransformer())
        fit(how, kinds, found.inputs, found.targets, method(name), 0, 3)
        assert np.bincount(learned[0]).tolist() == [size // 3] * 3
    small = found.class_names.index("cracked")
    assert said["inverse"][small] > 3 * said["plain"][small]
    assert said["class_aware"][small] > 3 * said["plain"][small]


def test_page_and_terminal_say_alike_what_the_columns_hold(compared):
    said = "balanced: mean ± standard deviation over folds, test folds. many / medium / few: "
    assert legend(compared).startswith(said)
    assert reading(compared).strip().startswith(said)


def test_methods_that_need_epochs_are_named_and_left_out(problem, tmp_path):
    names = [text.partition(" ")[0] for text in left_out(problem)]
    assert {"deferred_effective", "logit_adjusted", "ldam_drw"} <= set(names)
    made = compare(
        problem, ["plain", "ldam", "vs"], learners="logistic_regression", repeats=1, out=tmp_path, jobs=1
    )
    assert [row.method.name for row in made.rows] == ["plain"]
    with pytest.raises(
        ValueError,
        match=r"methods must be those that a table's learner can do, .*.ldam needs a rule of margin",
    ):
        compare(problem, ["ldam"], out=tmp_path)
    with pytest.raises(ValueError, match="chooses by held-out predictions"):
        compare(longtail.recipes.digits(), ["tuned_adjustment"], out=tmp_path)


def test_several_learners_stand_in_one_table(problem, tmp_path):
    names = ["logistic_regression", "hist_gradient_boosting"]
    made = compare(problem, ["plain", "inverse"], learners=names, folds=2, repeats=1, out=tmp_path, jobs=1)
    assert [row.short_name for row in made.rows] == [f"{m}, {n}" for n in names for m in ("plain", "inverse")]
    assert [row.baseline for row in made.rows] == [None, 0, None, 2]
    from longtail.compare.runs import comparisons, find_runs

    outcomes, missing = find_runs([tmp_path])
    (again,) = comparisons(outcomes)
    assert not missing
    values = [sorted((r.recipe.model, r["balanced_error"].values) for r in t.rows) for t in (again, made)]
    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "acuracy"}, "metric must be one of .*'balanced_error'"),
        (
            {"learners": "hist_gradient_bosting"},
            "learner must be one of .*did you mean 'hist_gradient_boosting'",
        ),
        ({"folds": 1}, "folds must be in"),
        ({"folds": 7}, "folds must be at most 6"),
        ({"repeats": 0}, "repeats must be in"),
        ({"losses": ["focal"]}, "losses= and schemes= are axes of a training by epochs; give methods="),
        ({"methods": ["plain", "plain"]}, "methods must name at least one, each once"),
    ],
)
def test_bad_arguments(problem, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        compare(problem, out=tmp_path, **options)


def test_a_score_can_decide(problem, tmp_path):
    made = compare(
        problem,
        ["plain", "inverse"],
        learners="logistic_regression",
        metric="macro_f1",
        repeats=1,
        out=tmp_path,
        jobs=1,
    )
    values = [row["macro_f1"].summary.mean for row in made.rows]
    assert made.best is made.rows[int(np.argmax(values))]
    assert "Highest mean macro F1" in made.verdict or "Best" in made.verdict


# ---- the answer


def test_the_answer_names_method_doubt_cost_code_and_thin_classes(problem, tmp_path):
    def made(scale: float) -> ComparisonTable:
        rows = []
        for name, error in (("plain", 0.4), ("inverse", 0.4 - scale)):
            outcomes = []
            for run in range(10):
                y = np.repeat([0, 1, 2], [100, 20, 10])
                wrong = np.arange(130) % 10 < round(10 * (error if name == "plain" else error + run % 2 / 10))
                evaluation = longtail.evaluate(np.where(wrong, (y + 1) % 3, y), y, [400, 80, 40])
                recipe = Recipe(
                    dataset="p", model="lightgbm", epochs=1, folds=5, seed=run, metric="balanced_error"
                ).replace(method=method(name))
                outcomes.append(Outcome(recipe, evaluation, 1.0, None, tmp_path))
            rows.append(Row(outcomes[0].recipe, tuple(outcomes)))
        return ComparisonTable(rows[0].recipe, tuple(rows), (), tmp_path)

    use, sure, cost, code, more = answer(made(0.3))
    assert use == "Use: inverse."
    assert "against plain, 10 folds; more than chance." in sure
    assert "the error goes from 40.0 % to 15.0 %" in cost
    assert code == 'Code: ClassBalancedClassifier(LGBMClassifier(reg_lambda=1.0), scheme="inverse").fit(X, y)'
    assert more.startswith("More data would help most for: 2 (")
    use, sure, code, _ = answer(made(0.0))
    assert use == "Use: plain lightgbm."
    assert "by more than chance" in sure
    assert code == "Code: LGBMClassifier(reg_lambda=1.0).fit(X, y)"


# ---- the command line


OWN = "from longtail.methods import Method, Rule\nmine = Method(weight=Rule('inverse_sqrt'))\nother = 3\n"


def test_an_answer_without_a_plain_run_says_what_is_missing(problem, tmp_path):
    options = {"learners": "logistic_regression", "repeats": 1, "jobs": 1}
    alone = compare(problem, ["inverse"], out=tmp_path / "alone", **options)
    told = "without a plain run to compare with; add the method plain."
    assert f"How sure: not at all, {told}" in answer(alone)
    assert alone.verdict.endswith(
        "there is no run without re-weighting to compare it with; add the method plain."
    )
    (tmp_path / "failed" / "plain").mkdir(parents=True)
    for run in range(5):
        (tmp_path / "failed" / "plain" / f"fold{run}").write_text("in the way")
    failed = compare(problem, ["plain", "inverse"], out=tmp_path / "failed", **options)
    assert len(failed.failures) == 5
    assert "How sure: not at all, as the plain runs failed, with which the others are compared." in answer(
        failed
    )
    assert failed.verdict.endswith("there is no run without re-weighting to compare it with.")


def test_several_betas_and_a_method_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "own_methods.py", OWN)
    write(tmp_path / "parts.csv", lines_of(table()))
    arguments = ["compare", "parts.csv", "--label", "kind", "--learner", "logistic_regression", "--jobs", 1]
    arguments += ["--repeats", 1, "--out", "out", "--method", "plain", "--method", "effective"]
    more = ["--beta", 0.9, "--volume", 100, "--method", "own_methods:mine"]
    assert run(monkeypatch, *arguments, *more) == 0
    done = capsys.readouterr()
    names = [row["scheme"] for row in json.loads((tmp_path / "out" / "compare.json").read_text())["rows"]]
    assert names == ["none", "effective:beta=0.9", "effective:beta=0.99", "mine"]
    assert "Use: " in done.out
    assert "20/20 runs" in done.err  # a line where nobody looks
    for bad, message in (("own_methods:other", "is a int"), ("nowhere:mine", "cannot be imported")):
        assert run(monkeypatch, *arguments, "--method", bad) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
    assert run(monkeypatch, *arguments, "--epochs", 3) == 2
    sys.modules.pop("own_methods", None)


def test_a_long_job_is_estimated_before_it_starts():
    recipe = longtail.recipes.digits()
    assert estimate(recipe, None, 10, 1, "cpu") is None
    assert estimate(recipe, None, 10_000, 1, "cpu") > 60


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["longtail", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def lines_of(columns: dict[str, Any]) -> str:
    rows = zip(*columns.values(), strict=True)
    return "\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n"


def test_the_command_line_compares_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "parts.csv", lines_of({"id": range(90), **table()}))
    arguments = ("compare", "parts.csv", "--label", "kind", "--learner", "logistic_regression", "--jobs", 1)
    assert run(monkeypatch, *arguments, "--repeats", 1, "--out", "out") == 0
    done = capsys.readouterr()
    assert "left out: 'id' is an identifier" in done.err.replace("\n", " ")
    assert "left out, as no learner of tables has it: plain:loss=focal," in done.err.replace("\n", " ")
    assert ", ldam_drw\n" in done.err
    assert "8 methods, 5 folds x 1: 40 runs" in done.err
    assert "tuned_adjustment" in done.out
    stored = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert stored["metric"] == "balanced_error"
    assert len((tmp_path / "out" / "compare.csv").read_text().splitlines()) == 41
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "balanced" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["t.csv"], "is a table; name the column of the class by --label"),
        (["t.csv", "--label", "z"], "--label 'z' is no column"),
        (["nothing.csv", "--label", "y"], "is no file"),
        (["digits", "--group", "g"], "--group is for a table"),
        (["digits", "--learner", "lightgbm"], "--learner and --folds are for tables and features"),
        (["t.csv", "--label", "y", "--imbalance", "9"], "--imbalance is for data sets that longtail knows"),
        (["t.csv", "--label", "y", "--learner", "svm"], "learner must be one of"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.csv", "x,y\n1,a\n2,b\n3,b\n1,a\n")
    assert run(monkeypatch, "compare", *arguments) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_a_killed_comparison_goes_on_with_the_same_result(tmp_path, compared, monkeypatch):
    path = write(tmp_path / "parts.csv", lines_of(table()))
    command = [sys.executable, "-m", "longtail", "compare", str(path), "--label", "kind", "--repeats", "2"]
    command += ["--learner", "logistic_regression", "--jobs", "1", "--out", str(tmp_path / "out")]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while child.poll() is None and len(list(tmp_path.rglob("evaluation.json"))) < 3:
        time.sleep(0.02)
    if child.poll() is None:
        os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert run(monkeypatch, *command[3:]) == 0
    mine = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert mine["rows"] == json.loads(json.dumps(compared.to_dict()))["rows"]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_code_of_the_answer_makes_the_estimator_that_was_compared(name):
    module = pytest.importorskip(LEARNERS[name].module)
    import sklearn.ensemble
    import sklearn.linear_model

    known = {**vars(sklearn.ensemble), **vars(sklearn.linear_model), **vars(module)}
    told = eval(ESTIMATORS[name], known).get_params()
    compared = LEARNERS[name].model(0, 0).get_params()
    # one run is repeated, in one thread and without a word, and these data have no categories
    ours = {"random_state", "random_seed", "categorical_features", "n_jobs", "thread_count"}
    ours |= {"verbose", "deterministic", "force_col_wise", "allow_writing_files"}
    assert {k: v for k, v in compared.items() if k not in ours} == {
        k: v for k, v in told.items() if k not in ours
    }


def test_a_thin_class_does_not_undo_boosting():
    """Without L2, leaves of the eight rows grow until the large class is wrong in training, too."""
    pytest.importorskip("lightgbm")
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1, 2, 3], [8000, 1500, 60, 8])
    x = (rng.normal(size=(len(y), 4)) + 3 * rng.normal(size=(4, 4))[y]).round(1)
    for name in ("lightgbm", "hist_gradient_boosting"):
        model = LEARNERS[name].model(0, 0).fit(x, y)
        assert np.mean(model.predict(x) != y) < 0.01, name


def test_a_plain_training_that_undid_itself_is_told(tmp_path):
    from sklearn.ensemble import HistGradientBoostingClassifier

    rng = np.random.default_rng(1)
    y = np.repeat([0, 1, 2, 3], [4000, 750, 60, 8])
    x = (rng.normal(size=(len(y), 4)) + 3 * rng.normal(size=(4, 4))[y]).round(1)
    columns = {**{f"x{i}": x[:, i] for i in range(4)}, "kind": np.array(list("abcd"))[y]}
    problem = Problem.from_table(columns, "kind")

    def unbound(seed, categories):
        return HistGradientBoostingClassifier(early_stopping=False, random_state=seed)

    LEARNERS.register("unbound", Learner(unbound, LEARNERS["hist_gradient_boosting"].prepare))
    try:
        told = {}
        for name in ("unbound", "hist_gradient_boosting"):
            options = {"learners": name, "folds": 2, "repeats": 1, "jobs": 1}
            made = compare(problem, ["plain", "inverse"], out=tmp_path / name, **options)
            again = compare(problem, ["plain", "inverse"], out=tmp_path / name, **options)
            told[name] = [line for line in answer(made) if line.startswith("Beware: ")]
            assert told[name] == [line for line in answer(again) if line.startswith("Beware: ")]
    finally:
        LEARNERS.unregister("unbound")
    assert len(told["unbound"]) == 1
    assert "plain unbound does not fit its own training rows in " in told["unbound"][0]
    assert told["hist_gradient_boosting"] == []


@given(st.integers(0, 10_000))
def test_a_fit_is_not_called_undone(seed):
    """Probabilities that are right on average never gain from the shares; sure and wrong ones do."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(4, 0.7), size=800).clip(1e-6)
    shares /= shares.sum(axis=1, keepdims=True)
    truth = (rng.random(800)[:, None] > shares.cumsum(axis=1)[:, :-1]).sum(axis=1)
    assert not undone(np.log(shares), truth)
    wrong = np.full((800, 4), np.log(1e-6))
    wrong[np.arange(800), np.where(np.arange(800) % 20, truth, (truth + 1) % 4)] = 0.0
    assert undone(wrong, truth)


# ---- what people bring


def test_decimal_commas_between_semicolons_are_numbers(tmp_path, rng):
    x, z, y = rng.normal(size=60).round(3), rng.uniform(1e3, 9e6, 60).round(2), list("ab") * 30
    text = "x;z;y\n" + "".join(
        f"{a};{b:,.2f};{c}\n".replace(",", "_").replace(".", ",").replace("_", ".")
        for a, b, c in zip(x, z, y, strict=True)
    )
    found = Problem.from_table(write(tmp_path / "t.csv", text), "y")
    assert found.columns == (("x", "number"), ("z", "number"))
    np.testing.assert_allclose(found.inputs, np.column_stack([x, z]))


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ("1,250 980 12,000 3,400", None),  # thousands, as far as anyone can tell
        ("765 573,628 1 2", None),
        ("1.100 12,000 1 2", None),
        ("0.123 1,5 1 2", None),
        ("1,250 980 12,00 3,400", [1.25, 980, 12, 3.4]),
        ("1.100,500 1,250 1 2", [1100.5, 1.25, 1, 2]),
        ("-0,123 1,250 1 2", [-0.123, 1.25, 1, 2]),
        ("1234,567 1,250 1.100 2", [1234.567, 1.25, 1100, 2]),
        ("1.234.567 1,250 1 2", [1234567, 1.25, 1, 2]),
        ("1.100 2.5 1 2", [1.1, 2.5, 1, 2]),
    ],
)
@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_comma_is_decimal_where_a_value_proves_it(written, values, separator, tmp_path):
    rows = [f"{x}{separator}{'ab'[i % 2]}\n" for i, x in enumerate(written.split() * 2)]
    read = read_frame(write(tmp_path / "t.csv", f"x{separator}y\n" + "".join(rows)), label="y")
    (column,) = read.columns
    if values is None:
        assert column.kind == "category"
        assert column.categories == tuple(sorted({*written.split()}))
    else:
        assert column.kind == "number"
        assert column.values.tolist() == values * 2


def test_points_part_thousands_beside_decimal_commas(tmp_path, recwarn):
    def read(text, **options):
        return {
            c.name: c.values.tolist() for c in read_frame(write(tmp_path / "t.csv", text), **options).columns
        }

    mixed = "n;m;y\n1.100;{};a\n12;{};b\n2.350;{};a\n"
    proven = read(mixed.format("1,5", "0,25", "3"), label="y")  # its neighbour has decimal commas
    assert proven == {"n": [1100, 12, 2350], "m": [1.5, 0.25, 3]}
    assert read("y;n;m\na;1.100;1,5\nb;2.350;NA\na;NA;2,5\n", label="y")["n"][:2] == [1100, 2350]
    assert read("n;m;y\n1.1;1,5;a\n12;2,5;b\n", label="y")["n"] == [1.1, 12]
    assert not recwarn.list
    assert read(mixed.format("1.5", "0.25", "3"), label="y")["n"] == [1.1, 12, 2.35]
    said = "column 'n' of .*t.csv': 1.100 is read as 1.1 and may be 1100, since .*; write 1100 if it is that"
    assert re.search(said, str(recwarn.pop(UserWarning).message))
    for n in ("1.100 2.350 3.000", "1.100 12 2.35", "0.125 12 1.125", "1.100 12 1234.000"):
        rows = "".join(f"{x};{'ab'[i % 2]}\n" for i, x in enumerate(n.split()))
        assert read("n;y\n" + rows, label="y")["n"] == [float(x) for x in n.split()]
    assert read("n,y\n1.100,a\n12,b\n", label="y")["n"] == [1.1, 12]
    assert not recwarn.list


def test_a_test_table_has_the_decimal_mark_of_training(tmp_path):
    def table(name, *values, separator=";"):
        rows = [f"{x}{separator}{'ab'[i >= len(values)]}\n" for i, x in enumerate(values * 2)]
        return write(tmp_path / name, f"p{separator}y\n" + "".join(rows))

    for values, numbers in [
        (("1.100", "2.101", "3"), [1100, 2101, 3]),
        (("1,100", "2,101", "3"), [1.1, 2.101, 3]),
    ]:
        found = Problem.from_table(table("a", "1.100,0", "2.101,1"), "y", test=table("b", *values))
        assert found.inputs[:, 0].tolist() == [1100, 2101.1] * 2
        assert found.test[0][:, 0].tolist() == numbers * 2
    points = table("a", "1.5", "2"), table("b", "1.100", "2")  # those of training are decimal
    assert Problem.from_table(points[0], "y", test=points[1]).test[0][:2, 0].tolist() == [1.1, 2]
    commas, points = ("1.100,0", "2.101,1"), ("1.100", "2.5")
    for train, test, said in [
        (commas, points, "commas .* and points"),
        (points, commas, "points .* and commas"),
    ]:
        with pytest.raises(ValueError, match=rf"column 'p' has decimal {said} in .*; write both alike"):
            Problem.from_table(table("a", *train), "y", test=table("b", *test))
    for separator, written in ((";", commas), (",", ("1100.0", "2101.1"))):  # each proves its own mark
        one = Problem.from_table(table("a", "1", "2"), "y", test=table("b", *written, separator=separator))
        assert one.test[0][:, 0].tolist() == [1100, 2101.1] * 2
    plain = table("b", "1100.0", "2101.1", separator=",")
    assert Problem.from_table(table("a", *commas), "y", test=plain).test[0][0].tolist() == [1100]


def test_text_that_looks_like_amounts_or_days_is_named(tmp_path):
    rows = "".join(
        f'"{i:,}.5",{i % 40} %,{i % 28 + 1:02}.02.2020,{i % 2},{i % 30:03}\n' for i in range(1000, 1100)
    )
    found = Problem.from_table(write(tmp_path / "t.csv", "price,share,day,y,code\n" + rows), "y")
    left, kept = found.notes
    assert "'price' is text in which every row has another value, such as '1,000.5' (keep='price'" in left
    assert kept.startswith("'share' ('0 %'), 'day' ('01.02.2020') are text and taken as categories")
    assert kept.endswith("keep='share' and so on if categories are meant")
    assert ("code", "category") in found.columns  # digits with zeros in front are codes
    rows = "".join(f"{'-' if i % 9 == 3 else i / 2},{i % 7},{'ab'[i % 2]}\n" for i in range(40))
    (note,) = Problem.from_table(write(tmp_path / "d.csv", "x,z,y\n" + rows), "y").notes
    assert note.startswith("'x' ('-') is text and taken as categories")
    assert note.endswith("keep='x' if categories are meant")
    assert Problem.from_table(tmp_path / "d.csv", "y", keep=["x"]).notes == ()


@pytest.mark.parametrize("kind", ["pandas", "polars", "parquet", "pyarrow"])
def test_a_column_of_lists_is_many_labels(kind, tmp_path, rng):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    tags = [["dent"] * (i % 3 == 0) + ["rust"] * (i % 2) for i in range(60)]
    columns = {"x": rng.normal(size=60), "tags": tags, "more": [[1, 2]] * 60}
    frame = polars.DataFrame(columns)
    source = {"pandas": pandas.DataFrame(columns), "polars": frame, "pyarrow": frame.to_arrow()}.get(kind)
    if source is None:
        frame.write_parquet(source := tmp_path / "t.parquet")
    found = Problem.from_table(source, "tags", drop=["more"])
    assert found.many_labels
    assert found.class_names == ("dent", "rust")
    assert found.targets.tolist() == [["dent" in row, "rust" in row] for row in tags]
    turned = Problem.from_table(source, "tags", drop=["more"], test=frame[::-1])
    assert turned.test[1].tolist() == found.targets[::-1].tolist()
    with pytest.raises(
        TypeError, match=r"column 'more' of .* holds .*; give one value a row, or .*drop='more'"
    ):
        Problem.from_table(source, "tags")
    with pytest.raises(ValueError, match=r"separator='|' is for text, and 'tags' of .* holds lists"):
        Problem.from_table(source, "tags", separator="|", drop=["more"])


def test_what_stands_in_another_order_of_rows_is_refused(rng):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"x": rng.normal(size=40), "y": list("ab") * 20, "g": [i // 2 for i in range(40)]},
        [f"row {i}" for i in range(40)],
    )
    other = frame.sample(frac=1, random_state=0)
    with pytest.raises(ValueError, match="column 'x' and column 'y' have the same rows in another order"):
        Problem.from_table({"x": frame.x, "y": other.y}, "y")
    with pytest.raises(ValueError, match="features and labels have the same rows in another order"):
        Problem.from_features(frame[["x"]], other.y)
    with pytest.raises(ValueError, match="features and groups have the same rows in another order"):
        Problem.from_features(frame[["x"]], frame.y, groups=other.g)
    whole = Problem.from_table(other, "y", groups="g")  # a frame's rows are one order
    assert whole.inputs[:, 0].tolist() == other.x.tolist()
    apart = Problem.from_features(frame[["x"]], other.y.reset_index(drop=True))  # by position, as everywhere
    assert apart.targets.tolist() == [int(y == "b") for y in other.y]


def test_groups_that_are_missing_are_no_group(rng):
    x, y = rng.normal(size=(40, 2)), list("ab") * 20
    for missing in (None, float("nan")):
        with pytest.raises(ValueError, match=r"groups are missing .* for 10 of 40 samples"):
            Problem.from_features(x, y, groups=[missing] * 10 + [*range(30)])
    halves = np.arange(40) // 2
    (note,) = Problem.from_features(x, y, groups=halves * 1.0, test=(x, y), test_groups=halves).notes
    assert note.startswith("20 groups are in both training and test, such as '0'")


@pytest.mark.parametrize(
    ("label", "options", "message"),
    [
        (0, {}, "label must be the name of one column, got int 0; names are text here: label='0'"),
        (np.zeros(40), {}, "label must be the name of one column, got ndarray.*; put it into the table"),
        ("y", {"groups": np.zeros(40)}, r"groups must be the name of a column, got ndarray.*table\.assign"),
    ],
)
def test_columns_are_given_by_name(label, options, message):
    with pytest.raises(TypeError, match=message) as error:
        Problem.from_table({"x": range(40), "y": list("ab") * 20}, label, **options)
    assert len(str(error.value)) < 300


def test_times_with_a_zone_are_times(rng):
    pandas = pytest.importorskip("pandas")
    days = pandas.date_range("2020-01-01", periods=40, tz="Europe/Oslo")
    found = Problem.from_table(pandas.DataFrame({"day": days, "y": list("ab") * 20}), "y")
    assert found.columns == (("day", "date"),)
    assert found.inputs[0, 0] == pytest.approx(18262 - 1 / 24)  # an hour before midnight in Greenwich


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.feather", "t.xlsx", "away.csv"])
def test_files_that_are_no_tables_are_told_by_their_endings(name, tmp_path):
    if name != "away.csv":
        write(tmp_path / name, '{"x": 1, "y": "a"}\n' * 4)
    with pytest.raises(
        ValueError, match=r"give a \.csv, \.tsv, \.tab or \.data file, also packed .*\.pq file"
    ):
        Problem.from_table(tmp_path / name, "y")


def test_a_problem_is_told_in_a_line(problem):
    assert repr(problem) == "Problem('parts', table: 90 rows, 4 columns, 3 classes)"


def test_the_page_of_a_table_offers_no_training_of_its_recipe(compared):
    from longtail.report.page import report_page

    page = report_page([compared])
    advice = page.rpartition("What should I use?")[2]
    assert "longtail train" not in advice
    assert "Run to keep" not in page  # there is no model in it
    assert advice.count("Runs of a table keep no model: the line above fits it to all rows.") == 2
    # the lines are for the stack of the table
    assert "ClassBalancedLoss" not in advice
    for one in advise(compared):
        assert "(LogisticRegression(max_iter=1000)" in one.code or one.code.startswith("LogisticRegression(")
        assert one.folder is None
    assert "lain softmax" not in advice


def test_plain_runs_alone_are_not_told_as_one_run(tmp_path, rng):
    problem = Problem.from_table({"x": rng.normal(size=60), "y": ["a"] * 20 + ["b"] * 40}, "y")
    options = {"learners": "logistic_regression", "folds": 2, "repeats": 1, "out": tmp_path, "jobs": 1}
    how = answer(longtail.compare(problem, ["plain"], **options))[1]
    assert how == (
        "How sure: not at all, as plain is compared with no method that balances; add one, such as effective."
    )


@pytest.mark.parametrize("metric", ["balanced_error", "macro_f1", "rare_average_precision"])
def test_one_run_of_a_table_is_told_as_one(metric, tmp_path, rng):
    from longtail.report.page import report_page

    y = np.repeat([0, 1], [300, 30])
    x = rng.normal(size=(330, 2)) + 2 * y[:, np.newaxis]
    rows = {"a": x[:, 0], "b": x[:, 1], "y": y}
    problem = Problem.from_table(rows, "y", test=rows)
    made = longtail.compare(
        problem, ["plain", "inverse"], learners="logistic_regression", metric=metric, out=tmp_path, jobs=1
    )
    how = answer(made)[1]
    assert how.startswith("How sure: not at all, with one run only")
    assert how.endswith("folds, which are cut where no test set is given, say more.")
    assert ("Over 330 test samples alone inverse differs from plain by -" in how) == (
        metric == "balanced_error"
    )
    text = " ".join(reading(made).split())
    assert "kept no predictions" not in text
    assert "epoch" not in text
    if metric == "balanced_error":
        assert "with its 95 % interval over the 330 test samples alone, and without a mark" in text
    else:
        assert "is better, without an interval and a mark, as there is one run of each." in text
    assert "more seeds" not in report_page([made])
    shown = [column.header for column in terminal_table(made).columns]
    assert "few" not in shown  # of the groups those that have classes
    assert "med." in shown


def test_the_average_precision_of_the_rare_class_is_told(tmp_path, rng):
    y = np.repeat([0, 1], [300, 30])
    columns = {"a": rng.normal(size=330) + y, "y": y}
    problem = Problem.from_table(columns, "y", test=columns)
    named = {"learners": "logistic_regression", "out": tmp_path, "jobs": 1}
    made = longtail.compare(problem, ["plain"], metric="rare_average_precision", **named)
    model = LogisticRegression(max_iter=1000).fit(StandardScaler().fit_transform(columns["a"][:, None]), y)
    scores = model.decision_function(StandardScaler().fit_transform(columns["a"][:, None]))
    (row,) = made.rows
    assert row["rare_average_precision"].summary.mean == pytest.approx(average_precision_score(y, scores))
    both = [average_precision_score(y == c, scores * (2 * c - 1)) for c in (0, 1)]
    assert row["average_precision"].summary.mean == pytest.approx(np.mean(both))
    assert "precision by recall of each class, mean over the classes; rare AP: that of the rarer" in legend(
        made
    )
    with pytest.raises(
        ValueError, match=r"metric must be one of .*, got 'few_error': no class is in that group"
    ):
        longtail.compare(problem, ["plain"], metric="few_error", **named)
    three = Problem.from_table({"a": rng.normal(size=90), "y": [0, 1, 2] * 30}, "y")
    with pytest.raises(ValueError, match=r"got 'rare_average_precision': it is of two classes"):
        longtail.compare(three, ["plain"], metric="rare_average_precision", **named)


def test_figures_of_a_comparison_are_those_that_apply(compared, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "figures", compared.folder, "-o", tmp_path, "--format", "png") == 0
    assert "figure1.png" in capsys.readouterr().out
    assert not (tmp_path / "figure7.png").exists()  # learners of tables have no epochs
    assert run(monkeypatch, "figures", compared.folder, "-o", tmp_path, "--figure", "7") == 2
    assert "no run kept a history" in capsys.readouterr().err


def test_a_setting_of_a_method_stays_as_it_was_written(tmp_path, monkeypatch, capsys):
    path = write(tmp_path / "t.csv", "x,y\n" + "1,a\n2,b\n3,a\n" * 10)
    twice = ["--method", "effective:beta=0.5"] * 2
    assert run(monkeypatch, "compare", path, "--label", "y", *twice) == 2
    assert ": effective:beta=0.5, effective:beta=0.5 do the same" in capsys.readouterr().err


def test_a_second_process_waits_for_the_first_and_takes_what_it_made(problem, tmp_path):
    from longtail.training.files import locked

    recipes, _ = running.prepare(problem, ["plain"], learners="logistic_regression", repeats=1)
    held, released = threading.Event(), threading.Event()

    def first() -> None:
        with locked(tmp_path / "run"):
            held.set()
            released.wait(60)

    other = threading.Thread(target=first)
    other.start()
    held.wait(60)
    threading.Timer(0.3, released.set).start()
    (outcome,) = run_training(problem, learner("logistic_regression"), recipes, [tmp_path / "run"], {})
    other.join()
    assert released.is_set()
    assert outcome.failure is None


@pytest.mark.parametrize("given", ["digits", {"x": [1, 2]}])
def test_compare_says_how_data_become_a_problem(given):
    with pytest.raises(TypeError, match=r"recipe must be a Problem or a Recipe, got .*; Problem\.from_"):
        longtail.compare(given, ["plain"])


def test_a_setting_that_is_given_twice_is_refused():
    with pytest.raises(ValueError, match="method 'effective': beta is given twice"):
        method("effective:beta=0.9:beta=0.99")


def test_the_panel_of_the_report_page_of_the_docs_works(compared):
    text = (Path(__file__).parents[1] / "docs" / "report.md").read_text()
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "PANELS.register" in b)
    names: dict[str, Any] = {}
    exec(block.replace('PANELS.register("mine", panel)', ""), names)
    assert names["panel"](compared).title == "My view"


@pytest.mark.parametrize("kind", ["csv", "parquet", "frame"])
def test_the_index_of_pandas_is_no_input(kind, tmp_path, rng):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"x": rng.normal(size=60), "y": ["a", "b"] * 30})
    table.index = [*range(30)] * 2  # as of two tables that were put together
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        table.to_parquet(path)
        left = "__index_level_0__"
    else:
        table.to_csv(path)
        left = "column 1" if kind == "csv" else "Unnamed: 0"
    source = pandas.read_csv(path) if kind == "frame" else path
    found = Problem.from_table(source, "y")
    assert [name for name, _ in found.columns] == ["x"]
    assert found.notes[0].startswith(f"left out: {left!r} is the numbering of rows that pandas writes")
    assert len(Problem.from_table(source, "y", keep=[left]).columns) == 2
    plain = table.reset_index(drop=True)
    assert Problem.from_table(plain, "y", test=source).test[0].shape == (60, 1)


def test_the_index_of_pandas_is_no_feature(tmp_path, rng):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"f0": rng.normal(size=60), "y": [0, 1] * 30})
    table.index = [*range(30)] * 2
    table.to_parquet(tmp_path / "f.parquet")
    assert Problem.from_features(tmp_path / "f.parquet").inputs.shape == (60, 1)
    table.assign(patient=[*range(30)] * 2, f1=table.f0 / 2, f2=table.f0 / 3).to_parquet(
        tmp_path / "g.parquet"
    )
    with pytest.warns(UserWarning, match="whole numbers in 'patient', .*call groups what belongs together"):
        assert Problem.from_features(tmp_path / "g.parquet").inputs.shape == (60, 4)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("split", ["train", "test"]),
        ("Set", ["Training", "Validation"]),
        ("is_test", [0, 1]),
        ("is_train", [True, False]),
    ],
)
def test_a_column_that_says_what_is_for_testing_is_no_input(name, values, tmp_path, rng):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"x": rng.normal(size=60), "y": ["a"] * 20 + ["b"] * 40})
    table[name] = values * 30
    table.to_csv(tmp_path / "t.csv", index=False)
    for source in (table, tmp_path / "t.csv"):
        with pytest.raises(ValueError, match=f"column '{name}' of .*for testing .*; .*test=.*drop='{name}'"):
            Problem.from_table(source, "y")
    assert [n for n, _ in Problem.from_table(table, "y", drop=[name]).columns] == ["x"]
    assert len(Problem.from_table(table, "y", keep=[name]).columns) == 2
    table.assign(y=[0] * 20 + [1] * 40).to_parquet(tmp_path / "f.parquet")
    with pytest.raises(ValueError, match=f"column '{name}' of .* is no feature; .*X_test"):
        Problem.from_features(tmp_path / "f.parquet")


def test_columns_that_only_look_like_parts_are_inputs(rng):
    columns = {"test": [0, 1] * 30, "way": ["train", "bus"] * 30, "stage": ["dev", "eval"] * 30}
    columns["split"] = ["banana", "ice"] * 30
    found = Problem.from_table({**columns, "y": ["a"] * 20 + ["b"] * 40}, "y")
    assert [name for name, _ in found.columns] == ["test", "way", "stage", "split"]


def test_only_the_first_column_without_a_name_numbers_rows(tmp_path, rng):
    rows = [f"{i},{x:.4f},{i % 7},{'ab'[i % 3 > 0]}" for i, x in enumerate(rng.normal(size=60))]
    for name, header in (("column 3", ",x,,y"), ("Unnamed: 2", "Unnamed: 0.1,x,Unnamed: 2,y")):
        (tmp_path / "t.csv").write_text("\n".join([header, *rows]))
        found = Problem.from_table(tmp_path / "t.csv", "y")
        assert [column for column, _ in found.columns] == ["x", name]
    rows = [row.replace(",", ",3,", 1) for row in [f"{i % 20},{row}" for i, row in enumerate(rows)]]
    (tmp_path / "t.csv").write_text("\n".join([",,,x,z,y", *rows]))
    found = Problem.from_table(tmp_path / "t.csv", "y")
    assert [column for column, _ in found.columns] == ["x", "z"]  # an index of levels has them all first


@pytest.mark.parametrize("kind", ["pandas", "polars", "parquet"])
def test_days_as_text_are_days_in_every_table(kind, tmp_path):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    days = [f"2024-01-{d:02}" for d in range(1, 31)] * 2
    columns = {"day": days, "time": [f"{d} 12:00" for d in days], "y": ["a"] * 20 + ["b"] * 40}
    table = pandas.DataFrame(columns) if kind != "polars" else polars.DataFrame(columns)
    table.to_csv(tmp_path / "t.csv", index=False) if kind == "pandas" else None
    if kind == "parquet":
        table.to_parquet(tmp_path / "t.parquet")
        table = tmp_path / "t.parquet"
    found = Problem.from_table(table, "y")
    assert found.columns == (("day", "date"), ("time", "date")), found.notes
    np.testing.assert_allclose(found.inputs[:2], [[19723, 19723.5], [19724, 19724.5]])
    if kind == "pandas":  # as the same table in a file
        np.testing.assert_array_equal(found.inputs, Problem.from_table(tmp_path / "t.csv", "y").inputs)
    for odd in (["n/k", *days[1:]], [f"{day}-07" for day in days]):  # no seven o'clock: a day and a number
        assert Problem.from_table({**columns, "day": odd}, "y").columns[0] == ("day", "category")


def test_labels_that_are_written_otherwise_in_the_test_table_are_told(tmp_path):
    columns = {"x": [i / 4 for i in range(20)], "y": ["0", "1"] * 10}
    other = {**columns, "y": ["no", "yes"] * 10}
    with pytest.raises(
        ValueError, match=r"training sample: 'no', 'yes'; those of training are '0', '1': write them"
    ):
        Problem.from_table(columns, "y", test=other)
    path = write(tmp_path / "t.csv", "x,kind\n1,a\n2,\n3,b\n")
    with pytest.raises(ValueError, match=r"label 'kind': line 3 of .* has an empty field"):
        Problem.from_table(path, "kind")
