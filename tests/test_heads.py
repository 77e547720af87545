"""Heads on features: many runs at once end as each would alone, within rounding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import longtail
from folders import unseal
from longtail import Problem, methods
from longtail.compare import MAIN, compare, few_neighbours, heads, running
from longtail.compare.folds import fold
from longtail.compare.running import prepare
from longtail.compare.runs import comparisons, find_runs, one_run
from longtail.datasets import Dataset, Split
from longtail.evaluation import evaluate
from longtail.predict import Classifier
from longtail.sources.arrays import read_arrays
from longtail.training.loop import load_run, train
from longtail.training.predictions import Predictions
from longtail.training.recipe import Recipe

SIZES = (60, 25, 8)
KINDS = ("plain", "inverse:loss=focal", "logit_adjusted", "deferred_effective", "ldam_drw", "class_aware")
MORE = ("effective:normalizer=weights", "plain:loss=sigmoid", "vs", "crt", "ncm", "plain:loss=softmax_focal")


def features(sizes=SIZES, seed=0, dimensions=12):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(sizes)), sizes)
    centres = np.random.default_rng(99).normal(size=(len(sizes), dimensions))
    return (rng.normal(size=(len(y), dimensions)) + centres[y]).astype(np.float32), y


@pytest.fixture(scope="module")
def problem():
    return Problem.from_features(*features(), test=features((20, 20, 20), seed=1), name="made")


@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_many_at_once_end_as_each_alone(problem, model):
    shared, _ = prepare(problem, [*KINDS, *MORE, "deferred_sampling"], learners=model, seeds=1)
    recipes = [r.with_epochs(6).replace(seed=3) for r in shared]
    together = [r for r in recipes if heads.fits_together(r)]
    assert len(together) == len(recipes) - (model == "mlp")  # a cosine head behind a hidden layer
    data = heads._Data(problem, recipes[0])
    groups = {}
    for r in together:
        groups.setdefault(heads._order(r.method), []).append(r)
    assert len(groups) == 3
    for group in groups.values():
        for recipe, (mine, history, _) in zip(
            group, heads._Together(data, group, torch.device("cpu")).finish(), strict=True
        ):
            alone = train(
                recipe.replace(method=recipe.method.training), None, dataset=data.dataset, device="cpu"
            )
            for name, value in alone.model.state_dict().items():
                torch.testing.assert_close(
                    mine.state_dict()[name], value, rtol=2e-4, atol=2e-5, msg=recipe.method.label
                )
            for one, other in zip(history, alone.history, strict=True):
                assert one.loss == pytest.approx(other.loss, rel=1e-4), recipe.method.label
                assert one.learning_rate == other.learning_rate


def test_runs_are_one_lane_for_as_long_as_they_do_the_same(problem):
    names = ("plain", "crt", "deferred_effective", "inverse", "posthoc_logit_adjusted")
    recipes = [r.with_epochs(5) for r in prepare(problem, names, seeds=1)[0]]
    made = heads._Together(heads._Data(problem, recipes[0]), recipes, torch.device("cpu"))
    lanes, seen = [], made._take_lanes
    made._take_lanes = lambda epoch: (seen(epoch), lanes.append(tuple(made.lane_of)))
    runs = made.finish()
    assert lanes == [(0, 0, 0, 1, 0)] * 4 + [(0, 0, 1, 2, 0)]
    states = [model.state_dict()["head.weight"] for model, _, _ in runs]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    states[1].zero_()  # each run has a network of its own
    assert states[0].any()
    far, y = torch.tensor([[0.0, 1e4, -1e4], [3.0, 1.0, 2.0]]), torch.tensor([0, 2])
    losses, slopes = made._slopes(far[:, None].expand(2, 3, 3).clone(), y)
    wanted = torch.autograd.functional.jacobian(lambda z: torch.nn.functional.cross_entropy(z, y), far)
    assert losses[0].item() == pytest.approx((1e4 + np.log(1 + np.exp(1) + np.exp(-1))) / 2, rel=1e-6)
    torch.testing.assert_close(slopes[:, 0], wanted)


def test_every_method_is_kept_and_read_back(problem, tmp_path):
    table = compare(problem, [*MAIN, "mixup"], seeds=2, out=tmp_path, jobs=1)
    assert not table.failures
    assert [row.seeds for row in table.rows] == [(0, 1)] * (len(MAIN) + 1)
    assert table.metric == "balanced_error"
    for row in table.rows:
        for outcome in row.outcomes:
            run = load_run(outcome.folder)
            with torch.no_grad():
                logits = run.model(torch.from_numpy(problem.test[0])).numpy()
            decided = row.method.adjust(logits, problem.class_counts, epochs=outcome.recipe.epochs)
            again = evaluate(decided, problem.test[1], problem.class_counts)
            assert again.confusion == outcome.result.confusion
    assert table.rows[0]["balanced_error"].summary.mean < 0.5
    # what a kill leaves: the others stay, and what is missing comes out as it was
    before = table.to_dict()
    for name in ("plain/seed0/evaluation.json", "logit_adjusted/seed1/environment.json"):
        (tmp_path / name).unlink()
    assert compare(problem, [*MAIN, "mixup"], seeds=2, out=tmp_path, jobs=1).to_dict() == before


def test_a_finished_run_that_was_edited_or_damaged_is_refused_and_the_others_go_on(problem, tmp_path):
    whole = compare(problem, ["plain", "logit_adjusted"], seeds=2, out=tmp_path, jobs=1)
    folder = tmp_path / "plain" / "seed1"
    for name in ("evaluation.json", "model.safetensors", "metrics.jsonl"):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(before[:-2] + b" \n")
        found = compare(problem, ["plain", "logit_adjusted"], seeds=2, out=tmp_path, jobs=1)
        (failed,) = found.failures
        assert failed.folder == folder
        assert f"is damaged ({name} does not match its checksum); put back a copy" in failed.failure
        assert [row.seeds for row in found.rows] == [(0,), (0, 1)]
        (folder / name).write_bytes(before)
    assert (
        compare(problem, ["plain", "logit_adjusted"], seeds=2, out=tmp_path, jobs=1).to_dict()
        == whole.to_dict()
    )


def test_folds_and_groups_of_features(tmp_path):
    x, y = features()
    groups = np.arange(len(y)) // 2
    problem = Problem.from_features(x, y, groups=groups, name="grouped")
    table = compare(problem, ["plain", "logit_adjusted"], folds=3, repeats=1, out=tmp_path, jobs=1)
    assert table.recipe.folds == 3
    assert [row.seeds for row in table.rows] == [(0, 1, 2)] * 2
    assert sum(o.result.num_samples for o in table.rows[0].outcomes) == len(y)


def test_folds_share_the_counts_of_all_of_them(tmp_path):
    x, y = features((31, 14, 8))
    problem = Problem.from_features(x, y, name="uneven")
    chosen = ["plain", "posthoc_logit_adjusted"]
    table = compare(problem, chosen, folds=5, repeats=1, out=tmp_path, jobs=1)
    outcomes = [o for row in table.rows for o in row.outcomes]
    assert {o.result.class_counts for o in outcomes} == {(31, 14, 8)}  # which decide the shot groups
    trained = {tuple(o.environment["trained_counts"]) for o in outcomes}
    assert len(trained) > 1
    assert all(sum(counts) < len(y) for counts in trained)
    last = table.rows[1].outcomes[-1]
    inside, outside = fold(y, None, 5, 4)
    decided = np.stack([Classifier(last.folder).logits(row) for row in x[outside]])
    np.testing.assert_allclose(decided, Predictions.read(last.folder).logits, rtol=1e-4, atol=1e-5)
    assert last.environment["trained_counts"] == np.bincount(y[inside]).tolist()

    for o in outcomes:  # as an earlier version left them: each fold's evaluation has its own counts
        unseal(o.folder)
        place = o.folder / "evaluation.json"
        own = json.loads(place.read_text()) | {"class_counts": o.environment["trained_counts"]}
        place.write_text(json.dumps(own))
    found, left_out = find_runs([tmp_path])
    assert not left_out
    assert len({o.result.class_counts for o in found}) > 1
    (again,) = comparisons(found)
    assert [row.seeds for row in again.rows] == [(0, 1, 2, 3, 4)] * 2
    assert one_run(tmp_path).name == "fold0"


def test_a_tail_is_cut_for_each_seed(problem, tmp_path):
    tail = problem.long_tailed(4, 8)
    table = compare(tail, ["plain"], seeds=2, out=tmp_path, jobs=1)
    assert table.class_counts == (8, 4, 2)
    drawn = {o.environment["subset_sha256"] for o in table.rows[0].outcomes}
    assert len(drawn) == 2
    with pytest.raises(ValueError, match="has 8"):
        problem.long_tailed(1, 20)


def test_files_of_features(tmp_path, monkeypatch):
    x, y = features()
    names = np.array(["oak", "ash", "elm"])
    np.savez(tmp_path / "f.npz", X=x, y=y, class_names=names, X_test=x[::3], y_test=y[::3])
    found = Problem.from_features(tmp_path / "f.npz")
    assert found.class_names == ("oak", "ash", "elm")
    assert np.array_equal(found.inputs, x)
    assert np.array_equal(found.test[1], y[::3])
    monkeypatch.setattr("longtail.sources.arrays._MAPPED", 100)
    mapped = read_arrays(str(tmp_path / "f.npz"))
    assert isinstance(mapped["X"].base if mapped["X"].base is not None else mapped["X"], np.memmap)
    assert all(np.array_equal(mapped[n], a) for n, a in {"X": x, "y": y, "X_test": x[::3]}.items())
    np.savez_compressed(tmp_path / "c.npz", X=x, y=y)
    assert np.array_equal(read_arrays(str(tmp_path / "c.npz"))["X"], x)
    # read batch by batch, a file larger than memory gives the same numbers
    problem = Problem.from_features(tmp_path / "f.npz")
    whole = compare(problem, ["plain", "crt"], seeds=1, out=tmp_path / "a", jobs=1)
    monkeypatch.setattr(heads, "_IN_MEMORY", 100)
    parts = compare(problem, ["plain", "crt"], seeds=1, out=tmp_path / "b", jobs=1)
    for one, other in zip(whole.rows, parts.rows, strict=True):
        assert one["error"].values == other["error"].values
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(x, columns=[f"f{i}" for i in range(x.shape[1])]).assign(y=names[y])
    frame.to_parquet(tmp_path / "f.parquet")
    read = Problem.from_features(tmp_path / "f.parquet")
    assert read.class_names == ("ash", "elm", "oak")
    assert np.array_equal(read.inputs, x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (np.where(np.arange(12) == 3, np.nan, x), y), "hold NaN or infinity, first in row 0"),
        (lambda x, y: (np.where(np.arange(len(x))[:, None] == 5, np.inf, x), y), "first in row 5"),
        (lambda x, y: (x, y[1:]), "labels must be one a sample, 93 as features has, got 92"),
        (lambda x, y: (x[:, 0], y), "must be numbers of shape"),
        (lambda x, y: (x, np.arange(len(x))), "looks like an identifier"),
        (lambda x, y: (x, np.zeros(len(x))), "has one value"),
        (lambda x, y: (x, np.where(np.arange(len(x)) == 0, 9, y)), "'9' has one sample"),
        (lambda x, y: (x, x[:, 0]), "is continuous"),
        (lambda x, y: (x, None), "labels are missing"),
    ],
)
def test_bad_features_are_one_line(change, message):
    with pytest.raises((ValueError, TypeError), match=message) as error:
        Problem.from_features(*change(*features()))
    assert "\n" not in str(error.value)


def test_groups_that_hold_a_class_are_refused():
    x, y = features()
    with pytest.raises(ValueError, match="'2' has all their samples in one group"):
        Problem.from_features(x, y, groups=np.where(y == 2, 0, np.arange(len(y))))
    with pytest.raises(ValueError, match="classes without a training sample: '7'"):
        Problem.from_features(x, y, test=(x[:3], [0, 1, 7]))
    with pytest.raises(ValueError, match="learner of features must be one of 'linear', 'mlp'"):
        compare(Problem.from_features(x, y), learners="lightgbm")
    assert methods.get("plain") == methods.Method()


# ---- what balances before or after the training


def test_a_tuned_head_chooses_by_heads_that_were_trained_inside(tmp_path):
    x, y = features((200, 40, 12), dimensions=4)
    test = features((20, 20, 20), seed=1, dimensions=4)
    names = ["plain", "tuned_adjustment", "posthoc_logit_adjusted", "tau_norm"]
    problem = Problem.from_features(x, y, test=test, name="made")
    table = compare(problem, names, seeds=1, out=tmp_path / "a", jobs=1)
    assert not table.failures
    recipe = table.rows[0].recipe.replace(seed=0)
    held, labels = [], []
    for run in range(5):
        inside, outside = fold(y, None, 5, run)
        parts = Split(x[inside], y[inside]), Split(x[outside], y[outside])
        alone = train(recipe, None, dataset=Dataset("made", *parts, ("a", "b", "c"), "vectors"), device="cpu")
        with torch.no_grad():
            held.append(alone.model(torch.from_numpy(x[outside])).numpy())
        labels.append(y[outside])
    tau = longtail.tune_adjustment(np.concatenate(held), np.concatenate(labels), np.bincount(y)).tau
    with torch.no_grad():
        logits = load_run(table.rows[0].outcomes[0].folder).model(torch.from_numpy(test[0])).numpy()
    wanted = longtail.adjust_logits(logits, np.bincount(y), tau=tau).argmax(1)
    confusion = np.zeros((3, 3), dtype=int)
    np.add.at(confusion, (test[1], wanted), 1)
    assert np.array_equal(confusion, table.rows[1].outcomes[0].result.confusion)
    assert tau > 0
    # whoever reads the run back decides as it did
    place = table.rows[1].outcomes[0].folder
    back = load_run(place).recipe.method
    assert back.name == "tuned_adjustment"
    assert np.array_equal(back.adjust(logits, np.bincount(y)).argmax(1), wanted)
    said = Classifier(place).logits(test[0][0])
    assert said.argmax() == wanted[0]
    # test labels that would make any peeking choose otherwise
    turned = Problem.from_features(x, y, test=(test[0], np.roll(test[1], 20)), name="made")
    again = compare(turned, names, seeds=1, out=tmp_path / "b", jobs=1)
    for one, other in zip(table.rows, again.rows, strict=True):
        decided = [np.sum(r.outcomes[0].result.confusion, axis=0).tolist() for r in (one, other)]
        assert decided[0] == decided[1]


def test_made_up_features_take_as_many_steps_and_balance(tmp_path):
    pytest.importorskip("imblearn")
    x, y = features((200, 40, 3), dimensions=4)
    test = features((40, 40, 40), seed=1, dimensions=4)
    problem = Problem.from_features(x, y, test=test, name="made")
    table = compare(problem, ["plain", "smote"], seeds=2, out=tmp_path, jobs=1)
    assert not table.failures
    plain, smote = (row["balanced_error"].summary.mean for row in table.rows)
    assert smote < plain - 0.05
    data = heads._Data(problem, table.rows[1].recipe)
    made = heads._Together(data, [table.rows[1].recipe], torch.device("cpu"))
    assert np.bincount(made.targets).tolist() == [200] * 3
    assert made.steps == -(-243 // 128)
    before = table.to_dict()
    (tmp_path / "smote/seed1/evaluation.json").unlink()
    assert compare(problem, ["plain", "smote"], seeds=2, out=tmp_path, jobs=1).to_dict() == before
    assert few_neighbours(problem, ["smote"]) == [
        "smote: '2 (3)' has no 5 neighbours among the training samples; the new samples lie between fewer, "
        "those of a class of one are copies"
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (methods.get("mixup").replace(adjustment=methods.Rule("tuned_logit")), "beside a tuned adjustment"),
        (methods.get("smote").replace(label_smoothing=0.1), "'smote' mixes, .* beside smote; leave one out"),
    ],
)
def test_what_does_not_go_together_is_one_line(problem, tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        compare(problem, [name], out=tmp_path)


def test_what_holds_all_features_is_told_before_it_starts(problem, monkeypatch):
    monkeypatch.setattr(heads, "_IN_MEMORY", 100)
    monkeypatch.setattr("longtail.compare.running._LARGE", 100)
    prepare(problem, ["plain", "inverse"])
    with pytest.warns(UserWarning, match="crt, mixup.* will hold all features at once, .* GiB at the peak"):
        prepare(problem, ["plain", "crt", "mixup"])
    with pytest.raises(
        ValueError, match="method 'smote' needs the features in memory, up to 0 GiB, and these"
    ):
        heads.check_memory(
            problem, [Recipe(dataset="x", model="linear", epochs=1, method=methods.get("smote"))]
        )
    monkeypatch.setattr("os.sysconf", lambda _: 10)
    with pytest.raises(ValueError, match=r"crt will hold .*, and this machine has 0.0 GiB; leave"):
        prepare(problem, ["plain", "crt"])


def test_features_larger_than_memory_are_not_made_up(problem, tmp_path, monkeypatch):
    pytest.importorskip("imblearn")
    monkeypatch.setattr(heads, "_IN_MEMORY", 100)
    with pytest.raises(RuntimeError, match="smote needs the features in memory"):
        compare(problem, ["smote"], seeds=1, out=tmp_path, jobs=1)


def test_the_methods_of_a_seed_are_cut_into_parts_where_there_is_work_for_them(rng):
    names = [*("plain", "inverse", "inverse_sqrt", "effective", "deferred_effective", "logit_adjusted")]
    names += ["posthoc_logit_adjusted", "complementary", "vs", "cdt"]
    x, y = rng.normal(size=(400, 384)).astype(np.float32), np.arange(400) % 100

    def cut(methods, width):
        problem = Problem.from_features(x[:, :width], y, test=(x[:, :width], y))
        group = [(r, Path(r.method.slug)) for r in prepare(problem, methods, seeds=1)[0]]
        parts = running._in_parts(problem, group)
        assert sorted(str(p) for part in parts for _, p in part) == sorted(str(p) for _, p in group)
        return [{r.method.name for r, _ in part} for part in parts]

    assert len(cut(names, 64)) == 1
    # what begins alike shares its training, and the parts are about as long
    one, other = cut(names, 384)
    alike = {"plain", "deferred_effective", "posthoc_logit_adjusted"}
    assert alike in (one & alike, other & alike)
    assert sorted((len(one), len(other))) == [4, 6]
    # a tuned adjustment trains four fifths of the plain head five times more
    parts = cut([*names, "tuned_adjustment"], 384)
    assert sorted(map(len, parts)) == [3, 4, 4]
    assert alike | {"tuned_adjustment"} in parts
    assert cut(["plain", "posthoc_logit_adjusted"], 384) == [{"plain", "posthoc_logit_adjusted"}]


def test_heads_in_parts_end_as_those_that_are_not_cut(problem, tmp_path, monkeypatch):
    named = [*KINDS, "crt", "tuned_adjustment", "mixup"]
    whole = compare(problem, named, seeds=2, out=tmp_path / "whole", jobs=1)
    monkeypatch.setattr(running, "_PART", 1)
    told = []
    parts = compare(
        problem, named, seeds=2, out=tmp_path / "parts", jobs=2, progress=lambda *done: told.append(done[:2])
    )
    assert told == [(i + 1, 2 * len(named)) for i in range(2 * len(named))]
    for one, other in zip(whole.rows, parts.rows, strict=True):
        assert one.method == other.method
        assert len(other.outcomes) == 2
        for mine, theirs in zip(one.outcomes, other.outcomes, strict=True):
            weights, others = (load_file(o.folder / "model.safetensors") for o in (mine, theirs))
            for name, value in weights.items():
                assert torch.allclose(value, others[name], rtol=1e-4, atol=1e-5)


def test_methods_without_a_bias_are_trained_without_any_beside_them(problem, tmp_path):
    (alone,) = compare(problem, ["ldam_drw"], seeds=1, out=tmp_path / "alone", jobs=1).rows
    beside = compare(problem, ["plain", "ldam_drw"], seeds=1, out=tmp_path / "beside", jobs=1).rows[1]
    assert alone["error"].values == beside["error"].values
