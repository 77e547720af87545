"""The command line on a finished run and on a comparison: sets, estimated priors, one run of many."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import folders
import longtail
from longtail import cli, datasets
from longtail.compare import compare
from longtail.compare.runs import one_run
from longtail.evaluation import (
    check_probabilities,
    class_curves,
    macro_curves,
    read_evaluation,
    tune_thresholds,
)
from longtail.training import train
from longtail.training.evaluate import evaluate_run, held_out


def run(capsys, monkeypatch, *arguments):
    """Exit status, standard output and standard error of a command."""
    monkeypatch.setattr("sys.argv", ["longtail", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out = capsys.readouterr()
    return stop.value.code or 0, " ".join(out.out.split()), " ".join(out.err.split())


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    recipe = longtail.recipes.digits().with_epochs(3)
    compare(recipe, ["plain", "balanced_softmax"], seeds=1, out=folder / "all", jobs=1)
    test = datasets.load("digits").test
    np.save(folder / "one.npy", test.inputs[0])
    few = np.concatenate(
        [
            np.flatnonzero(np.asarray(test.targets) == c)[:n]
            for c, n in enumerate([40, 30, 20, 10, 5, 5, 5, 5, 5, 5])
        ]
    )
    np.save(folder / "many.npy", test.inputs[few])
    np.savez(folder / "many.npz", X=test.inputs[few])
    np.savez(folder / "wrong.npz", Y=test.inputs[few])
    np.save(folder / "other.npy", np.zeros((3, 5), np.float32))
    return folder


def test_the_best_run_of_a_comparison_is_taken_and_said(compared, capsys, monkeypatch):
    found = one_run(compared / "all")
    assert found.parent.parent == compared / "all"
    assert one_run(found) == found
    errors = {
        p: json.loads((p / "evaluation.json").read_text())["balanced_error"]
        for p in (compared / "all").glob("*/seed0")
    }
    assert errors[found] == min(errors.values())
    code, out, err = run(capsys, monkeypatch, "evaluate", compared / "all")
    assert (code, "is of a comparison; its run" in err) == (0, True)
    assert "95 % intervals from the test samples: balanced error" in out
    assert "95 % interval" in out
    code, out, _ = run(capsys, monkeypatch, "evaluate", found, "--format", "csv")
    assert "class,count,error,error_low,error_high,test_samples" in out
    (compared / "nothing").mkdir()
    with pytest.raises(ValueError, match="no runs found"):
        one_run(compared / "nothing")


def test_sets_of_a_run(compared, capsys, monkeypatch):
    code, out, _ = run(
        capsys, monkeypatch, "predict", compared / "all", compared / "one.npy", "--sets", "0.9"
    )
    assert code == 0
    assert "90 % set: " in out
    assert "limits from the run's 500 test samples" in out
    _, out, _ = run(
        capsys,
        monkeypatch,
        "predict",
        compared / "all",
        compared / "one.npy",
        "--sets",
        "0.9",
        "--format",
        "json",
    )
    rows = json.loads(out)
    assert [r["in_set"] for r in rows] == sorted((r["in_set"] for r in rows), reverse=True)
    smaller = run(
        capsys,
        monkeypatch,
        "predict",
        compared / "all",
        compared / "one.npy",
        "--sets",
        "0.3",
        "--format",
        "csv",
    )
    assert smaller[1].count("true") < sum(r["in_set"] for r in rows)
    code, _, err = run(capsys, monkeypatch, "predict", compared / "all", compared / "one.npy", "--sets", "90")
    assert (code, "--sets must be in (0, 1), got 90.0; 0.9 is customary" in err) == (2, True)


def test_estimated_priors_of_a_run(compared, capsys, monkeypatch):
    found = one_run(compared / "all")
    predict = ("predict", found, compared / "one.npy", "--prior", "estimated", "--format", "json")
    code, _, err = run(capsys, monkeypatch, *predict)
    assert code == 2
    assert "has no estimated prior; longtail evaluate" in err
    code, out, _ = run(capsys, monkeypatch, "evaluate", found, "--unlabelled", compared / "many.npy")
    assert code == 0
    assert "of these samples %" in out
    assert "kept in" in out
    code, out, _ = run(capsys, monkeypatch, *predict)
    assert code == 0
    other = run(capsys, monkeypatch, "predict", found, compared / "one.npy", "--format", "json")[1]
    assert json.loads(out)[0]["probability"] != json.loads(other)[0]["probability"]
    again = run(
        capsys, monkeypatch, "evaluate", found, "--unlabelled", compared / "many.npz", "--format", "json"
    )[1]
    assert json.loads(again) == json.loads((found / "prior.json").read_text())
    assert sum(json.loads(again)["prior"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("evaluate", "{run}", "--unlabelled", "{at}/other.npy"),
            "has shape (5,), but the run was trained on images",
        ),
        (("evaluate", "{run}", "--unlabelled", "{at}/wrong.npz"), "it holds 'Y', but no X"),
        (("evaluate", "{run}", "--unlabelled", "{at}/absent.npz"), "is not there; give samples as .npy"),
        (("predict", "{run}", "{at}/one.npy", "--prior", "estimate"), "did you mean 'estimated'?"),
        (
            ("predict", "{run}", "{at}/one.npy", "--prior", "estimated", "--sets", "0.9"),
            "--sets and --prior do not go together",
        ),
    ],
)
def test_errors(compared, capsys, monkeypatch, arguments, message):
    given = [a.format(run=one_run(compared / "all"), at=compared) for a in arguments]
    code, _, err = run(capsys, monkeypatch, *given)
    assert code == 2
    assert message in err


def test_a_comparison_whose_runs_all_failed_raises(tmp_path):
    recipe = longtail.recipes.digits(learning_rate=1e30).with_epochs(3)
    with pytest.raises(RuntimeError, match=r"all 1 runs failed, the first in .*DivergedError"):
        compare(recipe, ["plain"], seeds=1, out=tmp_path / "out", jobs=1)
    assert (tmp_path / "out" / "compare.json").is_file()


def asked(capsys, monkeypatch, *arguments):
    """Standard output as it is."""
    monkeypatch.setattr("sys.argv", ["longtail", "evaluate", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out = capsys.readouterr()
    assert not stop.value.code, out.err
    return out.out


def test_probabilities_thresholds_and_curves_of_a_run(compared, capsys, monkeypatch):
    place = compared / "all" / "plain" / "seed0"
    held = held_out(place)
    found = json.loads(asked(capsys, monkeypatch, place, "--probabilities", "--format", "json"))
    ours = check_probabilities(held.logits, held.labels, held.class_counts)
    assert {name: e["log_loss"] for name, e in found.items()} == {n: e.log_loss for n, e in ours.items()}
    table = asked(capsys, monkeypatch, place, "--probabilities")
    assert f"{ours['temperature'].log_loss:.3f}" in table
    assert "temperature, adjusted" in table  # nothing is cut at 80 columns

    shares = np.exp(held.logits - held.logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    hot = np.eye(10)[held.labels]
    for rule, options in (
        ("f1", {"by": "f1"}),
        ("precision=0.8", {"by": "precision", "floor": 0.8}),
        ("cost=1:10", {"by": "cost", "cost": (1, 10)}),
    ):
        told = json.loads(asked(capsys, monkeypatch, place, "--thresholds", rule, "--format", "json"))
        tuned = tune_thresholds(shares, hot, activation="identity", **options)
        assert [c["threshold"] for c in told["classes"]] == pytest.approx(list(tuned.thresholds), abs=1e-12)
        assert [c["f1"] for c in told["classes"]] == list(tuned.f1)
        assert told["macro_f1"] == tuned.macro_f1
        assert [c.get("cost") for c in told["classes"]] == list(tuned.cost or [None] * 10)
        assert [c.get("plain_cost") for c in told["classes"]] == list(tuned.plain_cost or [None] * 10)
    shown = asked(capsys, monkeypatch, place, "--thresholds", "cost=1:10")
    assert "at 0.5" in shown.splitlines()[1]
    assert f"{tuned.plain_cost[0]:.3f}" in shown
    assert "decided by thresholds that others chose" in " ".join(
        asked(capsys, monkeypatch, place, "--thresholds", "f1").split()
    )

    curves = class_curves(held.logits, held.labels)
    told = json.loads(asked(capsys, monkeypatch, place, "--curves", "--format", "json"))
    assert told["macro"]["all"]["average_precision"] == macro_curves(curves).average_precision
    few = [k for k, n in zip(curves, held.class_counts, strict=True) if n < 20]
    assert told["macro"]["few-shot"]["roc_auc"] == macro_curves(few).roc_auc
    lines = asked(capsys, monkeypatch, place, "--curves", "--format", "csv").splitlines()
    assert len(lines) == 1 + sum(len(k.thresholds) for k in curves)
    assert "mean of few-shot" in asked(capsys, monkeypatch, place, "--curves")


@pytest.mark.parametrize("name", ["effective:beta=0.99", "inverse_sqrt", "posthoc_logit_adjusted:tau=0.5"])
def test_a_run_answers_for_the_shares_that_its_method_made_it_see(tmp_path, capsys, monkeypatch, name):
    """Half of the prior is still in the decisions of some methods: the other half is then adjusted."""
    method = longtail.methods.get(name)
    train(longtail.recipes.digits(method=method).with_epochs(2), tmp_path / "run", device="cpu")
    held = held_out(tmp_path / "run")
    n = np.asarray(held.class_counts, dtype=float)
    seen = n**0.5 if "0.5" in name or "sqrt" in name else n / (1 - 0.99**n)
    np.testing.assert_allclose(np.array(held.counts) / sum(held.counts), seen / seen.sum(), rtol=1e-6)
    found = json.loads(asked(capsys, monkeypatch, tmp_path / "run", "--probabilities", "--format", "json"))
    moved = held.logits - np.log(seen)
    right = moved[np.arange(len(moved)), held.labels] - np.log(np.exp(moved).sum(1))
    assert found["adjusted"]["log_loss"] == pytest.approx(-right.mean(), rel=1e-5)


def test_kept_predictions_are_what_the_network_says(compared):
    place = compared / "all" / "plain" / "seed0"
    kept, again = held_out(place), held_out(place, datasets.load("digits"), device="cpu")
    np.testing.assert_allclose(kept.logits, again.logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(kept.labels, again.labels)
    assert (kept.counts, kept.class_counts) == (again.counts, again.class_counts)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--thresholds", "recall"], "--thresholds must be f1, precision=FLOOR such as precision=0.9"),
        (["--thresholds", "precision=2"], "--thresholds precision must be in (0, 1], got 2"),
        (["--thresholds", "cost=1"], "cost=ALARM:MISS such as cost=1:10; got 'cost=1'"),
        (["--thresholds", "cost=0:1"], "--thresholds cost must be in (0, inf), got 0"),
        (["--curves", "--probabilities"], "--probabilities and --curves are asked for together; give one"),
    ],
)
def test_errors_of_what_is_asked_of_scores(arguments, told, compared, capsys, monkeypatch):
    code, _, err = run(capsys, monkeypatch, "evaluate", compared / "all" / "plain" / "seed0", *arguments)
    assert code == 2
    assert told in err


def test_sigmoid_runs_have_curves_and_no_temperature(tmp_path, capsys, monkeypatch):
    recipe = longtail.recipes.digits().with_epochs(2).replace(loss="sigmoid")
    train(recipe, tmp_path / "run", device="cpu")
    code, _, err = run(capsys, monkeypatch, "evaluate", tmp_path / "run", "--probabilities")
    assert code == 2
    assert "use --thresholds or --curves" in err
    assert "mean of all" in asked(capsys, monkeypatch, tmp_path / "run", "--curves")


def test_a_method_that_balances_has_nothing_to_adjust_and_keeps_its_groups(compared, capsys, monkeypatch):
    place = compared / "all" / "balanced_softmax" / "seed0"
    found = json.loads(asked(capsys, monkeypatch, place, "--probabilities", "--format", "json"))
    assert found["adjusted"]["log_loss"] == pytest.approx(found["as they are"]["log_loss"])
    assert (
        found["adjusted"]["group_sizes"] == json.loads((place / "evaluation.json").read_text())["group_sizes"]
    )


def test_groups_of_a_test_split_count(tmp_path):
    digits = datasets.load("digits")
    groups = [f"writer {i // 7}" for i in range(len(digits.test))]
    grouped = replace(digits, test=datasets.Split(digits.test.inputs, digits.test.targets, groups))
    recipe = longtail.recipes.digits().with_epochs(1)
    plain = train(recipe, None, dataset=digits).evaluation
    found = train(recipe, tmp_path / "run", dataset=grouped).evaluation
    assert found.per_class_error == plain.per_class_error
    expected = longtail.evaluate(
        held_out(tmp_path / "run").logits, digits.test.targets, plain.class_counts, groups=groups
    )
    assert found.units == expected.units != plain.units
    assert found.per_class_interval == expected.per_class_interval
    assert len({*held_out(tmp_path / "run").groups.tolist()}) == len({*groups})
    with pytest.raises(ValueError, match=r"groups has shape \(2,\) for 500 targets; give one a sample"):
        datasets.Split(digits.test.inputs, digits.test.targets, ["a", "b"])


def test_a_run_on_pictures_finds_them_by_what_they_were_listed_with(tmp_path, capsys, monkeypatch):
    root = folders.write_photos(tmp_path / "all", (30, 20, 20), (1, 1, 1), size=24) / "train"
    monkeypatch.chdir(tmp_path)
    asked = ("compare", root, "--groups-from", r"([^/]+/\d*)\d\.jpg", "--seeds", 2, "--epochs", 1)
    more = ("--method", "plain", "--method", "inverse", "--jobs", 1, "--out", "here")
    code, out, err = run(capsys, monkeypatch, *asked, *more)
    assert code == 0, err
    assert "over seeds and 30 test samples in 3 groups together" in out
    assert "40 training and 30 test images (43 % is held out, groups whole)" in err
    folder = tmp_path / "here/plain/seed0"
    stored = read_evaluation(json.loads((folder / "evaluation.json").read_text()))
    assert evaluate_run(folder) == stored
    assert evaluate_run(folder, root) == stored
    assert stored.units != stored.test_counts
    lists = [f"{p.relative_to(root)},{p.parent.name},film{p.stem[:-1]}" for p in sorted(root.rglob("*.jpg"))]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/t.csv").write_text("\n".join(["file,kind,film", *lists, ""]))
    shutil.copytree(root, tmp_path / "in/shots")
    asked = (
        "compare",
        "in/t.csv",
        "--image",
        "file",
        "--label",
        "kind",
        "--root",
        "in/shots",
        "--group",
        "film",
    )
    code, _, err = run(capsys, monkeypatch, *asked, "--seeds", 1, "--epochs", 1, *more[:2], "--out", "table")
    assert code == 0, err
    once = evaluate_run(tmp_path / "table/plain/seed0")
    shutil.move(tmp_path / "in", tmp_path / "away")  # the table and, beside it, the pictures
    assert evaluate_run(tmp_path / "table/plain/seed0", tmp_path / "away/t.csv") == once
    moved = shutil.copytree(root, tmp_path / "moved")
    shutil.rmtree(root)
    assert evaluate_run(folder, moved) == stored
