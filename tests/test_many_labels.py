"""Many labels a sample: problems of tables and features, learners, what decides, and the command line."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, log_loss
from sklearn.multioutput import MultiOutputClassifier
from sklearn.preprocessing import StandardScaler

import longtail
from longtail import ClassBalancedLoss, Problem, cli
from longtail.adapters.sklearn import ClassBalancedClassifier, PriorAdjustedClassifier
from longtail.compare import LABEL_HEADS, LABELS, ComparisonTable, compare, heads
from longtail.compare.answer import answer, code_for
from longtail.compare.folds import fold, inner_folds
from longtail.compare.learners import fit_labels, learner
from longtail.compare.many_labels import INNER, LEFT_OUT, check, judge, label_counts, read, strata
from longtail.compare.running import prepare
from longtail.compare.runs import comparisons, find_runs
from longtail.datasets import Dataset, Split
from longtail.evaluation import MultiLabelEvaluation, TestDifference, tune_thresholds
from longtail.evaluation.multi_label import evaluate_multi_label
from longtail.methods import Method, Rule
from longtail.methods import get as method
from longtail.predict import Classifier, Prediction
from longtail.report.page import report_page
from longtail.report.tables import class_sheet, legend, reading
from longtail.training import evaluate_run, recipes
from longtail.training.evaluate import held_out
from longtail.training.folder import load_run
from longtail.training.predictions import Predictions

NAMES = ("rust", "dent", "crack")


def made(rows: int = 150, seed: int = 0, labels: int = 3) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 5))
    return x, (x[:, :labels] + rng.normal(size=(rows, labels)) > [0.4, 1.2, 1.7][:labels]).astype(np.int64)


def columns(x: Any, y: Any, separator: str | None = None) -> dict[str, Any]:
    found = {f"x{i}": x[:, i] for i in range(x.shape[1])}
    if separator is None:
        return found | {name: y[:, i] for i, name in enumerate(NAMES)}
    return found | {"tags": [separator.join(np.array(NAMES)[row == 1]) for row in y]}


def written(path: Path, table: dict[str, Any]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([table, *zip(*table.values(), strict=True)])
    return path


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> ComparisonTable:
    problem = Problem.from_table(columns(*made(), "|"), "tags", separator="|", name="parts")
    methods = ["plain", "inverse:weighting=positive", "effective:beta=0.9"]
    return longtail.compare(problem, methods, repeats=1, out=tmp_path_factory.mktemp("parts"), jobs=1)


@pytest.fixture(scope="module")
def by_heads(tmp_path_factory: pytest.TempPathFactory) -> ComparisonTable:
    x, y = made(240)
    y[::7, 1] = LEFT_OUT
    problem = Problem.from_features(x[:160], y[:160], test=(x[160:], y[160:]), name="heads")
    methods = [*LABEL_HEADS, "logit_adjusted", "posthoc_logit_adjusted", "inverse:weighting=class"]
    return longtail.compare(problem, methods, seeds=2, out=tmp_path_factory.mktemp("heads"), jobs=1)


# ---- reading


def test_separators_columns_and_rows_make_one_problem(tmp_path):
    x, y = made()
    order = np.argsort(NAMES)  # the house's order of text: sorted
    one = Problem.from_table(columns(x, y, "|"), "tags", separator="|")
    assert one.class_names == tuple(sorted(NAMES))
    with pytest.warns(UserWarning, match="samples of the labels have no label"):
        counted = longtail.class_counts(columns(x, y, "|")["tags"], separator="|")
    assert (one.class_names, one.class_counts.tolist()) == (tuple(counted), list(counted.values()))
    assert one.many_labels
    assert np.array_equal(one.targets, y[:, order])
    two = Problem.from_table(columns(x, y), labels=["rust", "dent", "crack"])
    assert two.class_names == NAMES  # in the order asked for
    features = Problem.from_features(x, y)
    assert features.class_names == ("0", "1", "2")
    for other in (two, features):
        assert np.array_equal(other.targets, y)
    path, tagged = written(tmp_path / "a.csv", columns(x, y)), written(tmp_path / "b.csv", columns(x, y, ";"))
    from_file = Problem.from_table(path, labels="rust,[dc]*")
    assert from_file.class_names == tuple(longtail.class_counts(str(path), labels="rust,[dc]*"))
    assert from_file.columns == one.columns == Problem.from_table(tagged, "tags", separator=";").columns
    assert np.array_equal(Problem.from_table(tagged, "tags", separator=";").targets, y[:, order])
    np.savez(tmp_path / "f.npz", X=x, y=y, class_names=NAMES)
    assert Problem.from_features(tmp_path / "f.npz").class_names == NAMES


def test_frames_sparse_rows_and_parquet_are_read(tmp_path):
    pandas = pytest.importorskip("pandas")
    x, y = made()
    frame = pandas.DataFrame(y, columns=NAMES)
    found = Problem.from_features(x, frame)
    assert found.class_names == NAMES
    assert np.array_equal(Problem.from_features(x, sparse.csr_matrix(y)).targets, found.targets)
    assert np.array_equal(Problem.from_features(x, torch.from_numpy(y).float()).targets, found.targets)
    table = pandas.DataFrame(columns(x, y.astype(bool)))
    table.to_parquet(tmp_path / "t.parquet")
    assert np.array_equal(Problem.from_table(tmp_path / "t.parquet", labels=NAMES).targets, y)
    assert np.array_equal(Problem.from_table(table, labels=NAMES).targets, y)


def test_what_is_not_known_is_left_out(tmp_path):
    x, y = made()
    told = y.astype(float)
    told[:20, 0], told[20:30, 1] = np.nan, -100
    found = Problem.from_features(x, told)
    assert (found.targets == LEFT_OUT).sum(axis=0).tolist() == [20, 10, 0]
    assert found.class_counts.tolist() == (told == 1).sum(axis=0).tolist()
    assert any("30 of 450 labels are not known" in note for note in found.notes)
    table = columns(x, y)
    table["rust"] = ["" if i < 20 else str(bool(v)) for i, v in enumerate(y[:, 0])]
    table["dent"] = ["NA" if 20 <= i < 30 else v for i, v in enumerate(y[:, 1])]
    path = written(tmp_path / "t.csv", table)
    assert np.array_equal(Problem.from_table(path, labels=NAMES).targets, found.targets)


def test_a_label_of_one_row_is_left_out_and_its_row_stays():
    x, y = made()
    table = columns(x, y, "|")
    table["tags"][3] = "once|rust"
    found = Problem.from_table(table, "tags", separator="|")
    assert (found.class_names, len(found.targets)) == (tuple(sorted(NAMES)), 150)
    assert found.targets[3].tolist() == [0, 0, 1]
    assert found.notes[0] == "left out: 1 of 4 labels with one row, 'once'; their rows stay"
    together = np.arange(150) // 3
    grouped = Problem.from_table(table | {"g": together}, "tags", separator="|", groups="g")
    assert "or all rows in one group" in grouped.notes[0]


def test_a_test_table_has_the_labels_of_the_training_table():
    x, y = made()
    table = columns(x, y, "|")
    test = columns(x[:10], y[:10], "|") | {"tags": ["rust", "", "crack|dent", *["dent"] * 7]}
    found = Problem.from_table(table, "tags", separator="|", test=test)
    assert found.test[1].tolist() == [[0, 0, 1], [0, 0, 0], [1, 1, 0], *[[0, 1, 0]] * 7]
    with pytest.raises(ValueError, match="labels without a training row: 'hole'; take them out"):
        Problem.from_table(table, "tags", separator="|", test=test | {"tags": ["hole|rust"] * 10})
    several = (
        Problem.from_table(columns(x, y), labels=["is*", "*"][1:], drop=(), test=None) if False else None
    )
    assert several is None
    tested = Problem.from_table(columns(x, y), labels="rust,d*", test=columns(x[:9], y[:9]))
    assert np.array_equal(tested.test[1], y[:9, :2])


def test_columns_that_repeat_a_label_are_left_out():
    x, y = made()
    table = columns(x, y, "|") | {
        "rusty": np.where(y[:, 0] == 1, "yes", "no"),
        "same": columns(x, y, ";")["tags"],
    }
    found = Problem.from_table(table, "tags", separator="|")
    assert [name for name, _ in found.columns] == [f"x{i}" for i in range(5)]
    assert [n for n in found.notes if "repeats label 'rust'" in n and "rusty" in n]
    assert [n for n in found.notes if "'same' repeats the label" in n]
    kept = Problem.from_table(table, "tags", separator="|", keep=["rusty"])
    assert "rusty" in dict(kept.columns)


def features(y: Any) -> Any:
    return Problem.from_features(made(len(y))[0], y)


X, Y = made()
ONE_HOT = np.eye(3, dtype=int)[np.arange(150) % 3]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda: features(np.where(Y == 1, 2, 0)),
            r"labels must be 0 and 1, got 2, first in row 0, label '0'; write 1",
        ),
        (
            lambda: features(np.where(Y == 1, 1, -1)),
            r"labels must be 0 and 1, got -1, .*0 where it is not, NaN where",
        ),
        (
            lambda: features(Y * 0.7),
            r"labels must be 0 and 1, got 0\.7, .*look like probabilities, so cut them: labels >= 0\.5",
        ),
        (lambda: features(np.where(Y == 1, np.inf, 0)), r"labels must be 0 and 1, got inf"),
        (lambda: features(np.where([1, 0, 0], np.nan, Y)), r"labels '0' of the features are known in no row"),
        (lambda: features(np.where([0, 0, 1], 0, Y)), r"labels '2' of the features have no positive row"),
        (lambda: features(np.where([0, 0, 1], 1, Y)), r"labels '2' of the features have no negative row"),
        (
            lambda: features(Y * ([1, 1, 0] | (np.arange(150) == 0)[:, None])),
            r"'2' .*one positive row, and cannot",
        ),
        (
            lambda: features(np.where((np.arange(150) == 5)[:, None], -100, Y)),
            r"in 1 rows no label is known, .* row 5",
        ),
        (lambda: features(Y[:, :1]), r"labels has shape \(150, 1\), one column: give it as labels\[:, 0\]"),
        (
            lambda: features([["rust"], ["rust", "dent"]] * 75),
            r"labels are rows of different lengths; .*MultiLabelB",
        ),
        (lambda: features([["rust", "dent"]] * 150), r"must be 0 and 1, got .*MultiLabelBinarizer"),
        (lambda: Problem.from_features(X[:9], Y), r"labels must be one a sample, 9 as features has, got 150"),
        (lambda: Problem.from_features(X, Y, test=(X, Y[:, :2])), r"test labels have 2 columns and labels 3"),
        (
            lambda: Problem.from_features(X, Y, test=(X, Y[:, 0])),
            r"test labels must be rows of 0 and 1, .* \(150,\)",
        ),
        (
            lambda: Problem.from_features(X, ONE_HOT.argmax(1), test=(X, Y)),
            r"test labels must be one a sample",
        ),
        (
            lambda: tagged("tags", separator="/"),
            r"separator must be what parts several labels, got '/', which is in no row of 'tags'",
        ),
        (lambda: tagged("tags", separator=""), r"separator must be text such as '\|'"),
        (lambda: tagged(separator="|"), r"separator needs the column of the labels; give label='NAME'"),
        (lambda: tagged(), r"label needs the column of the labels; give label='NAME', or labels='A,B'"),
        (
            lambda: tagged("tags", labels="x0,x1"),
            r"labels='x0,x1' and label are given; leave one of them out",
        ),
        (lambda: tagged(labels="a,b", separator="|"), r"labels='a,b' and separator are given; leave one"),
        (lambda: tagged(labels="rust"), r"labels: 'rust' is no column"),
        (lambda: tagged(labels="x0,x1"), r"labels must be 0 and 1, got -?[\d.]+, first in row 0, label 'x0'"),
        (lambda: tagged(labels="x0,tags"), r"labels: column 'tags' of the table holds '.*'; write 1 or 0"),
        (
            lambda: tagged("tags", separator="|", drop=["tags"]),
            r"drop='tags' is the column of label= or groups=",
        ),
        (
            lambda: tagged("tags", separator="|", groups="tags"),
            r"groups='tags' is a label; name another column",
        ),
    ],
)
def test_bad_labels_are_told_in_one_line(wrong, message):
    with pytest.raises(ValueError, match=message) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def tagged(*label: str, **options: Any) -> Problem:
    return Problem.from_table(columns(X, Y, "|"), *label, **options)


def test_several_columns_are_named_by_labels():
    with pytest.raises(TypeError, match=r"one column, got \['a', 'b'\]; several are labels=\['a', 'b'\]"):
        tagged(["a", "b"])  # type: ignore[arg-type]


def test_one_hot_rows_are_many_labels_and_say_so():
    found = features(ONE_HOT)
    assert found.many_labels
    assert (
        "every row has exactly one label: if they exclude one another, compare them as classes"
        in found.notes[0]
    )
    assert not features(np.where(np.arange(150)[:, None] == 0, 1, ONE_HOT)).notes


def test_too_many_labels_are_refused_before_anything_starts():
    wide = np.zeros((4, 1_001), dtype=np.int64)
    with pytest.raises(
        ValueError, match=r"are 1,001, and a comparison on a table takes at most 1,000; leave out the"
    ):
        check(wide, list(map(str, range(1_001))), kind="table", source="t", groups=None, tested=False)


# ---- folds


def test_folds_are_stratified_by_the_rarest_label():
    rng = np.random.default_rng(0)
    alone = np.repeat(np.arange(4), [100, 40, 10, 5])
    y = np.eye(4, dtype=np.int64)[rng.permutation(alone)]
    y[:, 0] |= rng.random(len(y)) < 0.5  # a frequent label beside the others
    assert np.array_equal(strata(y)[y[:, 3] == 1], np.full(5, 3))
    for run in range(5):
        train, test = fold(strata(y), None, 5, run)
        assert y[test].sum(axis=0)[1:].tolist() == [8, 2, 1]
        assert (y[train].sum(axis=0) > 0).all()
    assert strata(np.zeros((2, 3), dtype=np.int64)).tolist() == [3, 3]


def test_groups_stay_together_and_thin_labels_are_named():
    x, y = made()
    y[:, 2] = 0
    y[[0, 1, 149], 2] = 1
    groups = np.arange(150) // 2
    problem = Problem.from_features(x, y, groups=groups)
    assert any("'2' has too few positives to be in every fold" in note for note in problem.notes)
    train, test = fold(problem.strata, problem.groups, 5, 0)
    assert not set(groups[train]) & set(groups[test])
    y[149, 2] = 0
    with pytest.raises(ValueError, match="'2' of the features have all positive rows in one group"):
        Problem.from_features(x, y, groups=groups)
    with pytest.raises(ValueError, match="folds must be at most 75, the groups, got 76; lower it"):
        problem.folds(76)


# ---- learners


@pytest.mark.parametrize(
    ("named", "model"),
    [
        ("plain", LogisticRegression(max_iter=1000)),
        (
            "inverse:weighting=positive",
            ClassBalancedClassifier(LogisticRegression(max_iter=1000), scheme="inverse"),
        ),
        (
            "effective:beta=0.9:weighting=positive",
            ClassBalancedClassifier(LogisticRegression(max_iter=1000), scheme="effective", beta=0.9),
        ),
        ("posthoc_logit_adjusted", PriorAdjustedClassifier(LogisticRegression(max_iter=1000))),
    ],
)
def test_a_table_is_learned_as_scikit_learn_does(named, model):
    """The answer's line of code gives the probabilities that were compared."""
    x, y = made()
    x = StandardScaler().fit_transform(x)
    one = method(named, loss="sigmoid")
    kinds = ["number"] * 5
    say = fit_labels(learner("logistic_regression"), kinds, x, y, one.training, 0)
    ours = one.adjust(say(x[:20]), label_counts(y))
    theirs = np.stack([p[:, 1] for p in MultiOutputClassifier(model).fit(x, y).predict_proba(x[:20])], axis=1)
    assert np.allclose(1 / (1 + np.exp(-ours)), theirs, atol=2e-4)


def test_weights_of_samples_are_the_means_of_their_labels():
    x, y = made()
    x = StandardScaler().fit_transform(x)
    one = method("effective", beta=0.9, loss="sigmoid")
    say = fit_labels(learner("logistic_regression"), ["number"] * 5, x, y, one, 0)
    weight = longtail.class_weights(longtail.class_counts(y), scheme="effective", beta=0.9).weights
    samples = np.where(y.any(axis=1), y @ weight / y.sum(axis=1).clip(1), 1)
    samples /= samples.mean()
    theirs = MultiOutputClassifier(LogisticRegression(max_iter=1000)).fit(x, y, sample_weight=samples)
    shares = np.stack([p[:, 1] for p in theirs.predict_proba(x[:20])], axis=1)
    assert np.allclose(1 / (1 + np.exp(-say(x[:20]))), shares, atol=2e-4)


def test_a_label_learns_of_its_known_rows_alone():
    x, y = made()
    told = y.copy()
    told[::2, 1] = LEFT_OUT
    told[:, 2] = 0  # of one value here: it keeps it
    say = fit_labels(
        learner("logistic_regression"), ["number"] * 5, x, told, method("plain", loss="sigmoid"), 0
    )
    half = fit_labels(
        learner("logistic_regression"), ["number"] * 5, x, y, method("plain", loss="sigmoid"), 0
    )
    assert np.allclose(say(x)[:, 0], half(x)[:, 0])
    assert not np.allclose(say(x)[:, 1], half(x)[:, 1])
    scaled = StandardScaler().fit(x)
    alone = LogisticRegression(max_iter=1000).fit(scaled.transform(x)[1::2], y[1::2, 1])
    assert np.allclose(say(x)[:, 1], alone.decision_function(scaled.transform(x)), atol=1e-3)
    assert np.ptp(say(x)[:, 2]) == 0
    assert say(x)[0, 2] < -10


@pytest.mark.parametrize("name", [*LABEL_HEADS, "inverse:weighting=class", "logit_adjusted"])
def test_heads_have_the_slopes_of_the_loss(name):
    x, y = made(40)
    y[::3, 0] = LEFT_OUT
    problem = Problem.from_features(x, np.vstack([y]), name="made")
    shared, _ = prepare(problem, ["plain", *{name: 0}] if name != "plain" else [name], repeats=1)
    recipes = [one.replace(seed=0) for one in shared]
    data = heads._Data(problem, recipes[0])
    together = heads._Together(data, recipes, torch.device("cpu"))
    together._take_lanes(1)
    logits = torch.randn(7, len(together.methods), 3, generator=torch.Generator().manual_seed(0))
    target = together.targets[:7]
    losses, slopes = together._slopes_of_labels(logits, target)
    place = together.lane_of[-1]
    criterion = recipes[-1].method.criterion(label_counts(data.targets))
    leaf = logits[:, place].clone().requires_grad_()
    loss = criterion(leaf, target.float())
    (wanted,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(losses[place], loss.detach())
    torch.testing.assert_close(slopes[:, place], wanted)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_head_ends_as_a_plain_loop_does(kind):
    x, y = made(60)
    problem = Problem.from_features(x, y, test=(x[:20], y[:20]))
    shared, _ = prepare(problem, ["inverse:weighting=positive"], seeds=1, learners=kind)
    recipe = shared[0].replace(seed=3).with_epochs(3)
    data = heads._Data(problem, recipe)
    together = heads._Together(data, [recipe], torch.device("cpu"))
    model = heads._build(recipe, {"in_channels": 5, "num_classes": 3})
    heads._start_at_shares(model, recipe, data.counts)
    assert torch.allclose(model.head.bias.sigmoid(), torch.tensor((y.sum(0) + 0.5) / 61).float(), atol=1e-6)
    criterion = ClassBalancedLoss(
        longtail.class_counts(y), loss="sigmoid", scheme="inverse", weighting="positive"
    )
    optimizer = torch.optim.SGD(
        [
            {"params": [p for p in model.parameters() if p is not model.head.bias]},
            {"params": [model.head.bias], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    for epoch in range(1, 4):
        order = torch.randperm(60, generator=heads.generator(3, epoch, "order"))
        for group in optimizer.param_groups:
            group["lr"] = heads.learning_rate_at(recipe, epoch - 1, 1)
        optimizer.zero_grad()
        criterion(model(torch.from_numpy(x[order])), torch.from_numpy(y[order]).float()).backward()
        optimizer.step()
    ((mine, _, _),) = together.finish()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_counts_of_labels_that_are_known_in_part_are_raised():
    truth = np.array([[1, 0], [1, 1], [LEFT_OUT, 0], [LEFT_OUT, 0], [0, 0], [LEFT_OUT, 0]])
    counts = label_counts(truth)
    assert (counts.counts.tolist(), counts.num_samples) == ([4, 1], 6)
    assert label_counts(np.array([[1, 0], [LEFT_OUT, 0], [LEFT_OUT, 1]])).counts.tolist() == [3, 1]


# ---- which methods


def test_the_log_odds_of_each_label_are_the_offset_and_the_shift():
    counts = longtail.class_counts(Y)
    odds = np.log(counts.counts / (150 - counts.counts))
    offset = method("logit_adjusted", loss="sigmoid", tau=0.5).criterion(counts).offset
    assert offset is not None
    assert np.allclose(offset, 0.5 * odds)
    shift = method("posthoc_logit_adjusted", loss="sigmoid").adjust(np.zeros((1, 3)), counts)
    assert np.allclose(shift, -odds)
    with pytest.raises(
        ValueError, match=r"offset 'log_weighted_prior' of method .* is for one class a sample"
    ):
        method("complementary", loss="sigmoid").criterion(counts)


def test_weighting_is_a_part_of_a_method():
    one, other = method("inverse", loss="sigmoid"), method("inverse:weighting=positive:loss=sigmoid")
    assert one != other
    assert Method.from_dict(json.loads(json.dumps(other.to_dict()))) == other
    assert method("plain:weighting=class") == method("plain")  # nothing weighs
    assert "weighting" not in one.parts()
    counts = longtail.class_counts(Y)
    ours = other.criterion(counts)
    assert np.allclose(ours.weight, longtail.positive_weights(counts, scheme="inverse").weights)
    code = longtail.methods.code(other)
    made_so = eval(code.removeprefix("criterion = "), {"longtail": longtail, "labels": Y})
    assert torch.equal(made_so.weight, ours.weight)
    assert made_so.weighting == "positive"
    with pytest.raises(ValueError, match="weighting must be one of"):
        method("inverse:weighting=all")


@pytest.mark.parametrize("name", ["asymmetric", "inverse:weighting=positive:loss=sigmoid"])
def test_methods_of_many_labels_are_refused_for_one_class(name, tmp_path):
    classes = Problem.from_features(X, np.arange(150) % 3)
    for data in (classes, recipes.digits()):
        with pytest.raises(ValueError, match=r"is for many labels a sample, and these data have one class"):
            compare(data, [name], out=tmp_path)


@pytest.mark.parametrize(
    ("kind", "name", "why"),
    [
        *(
            ("features", name, why)
            for name, why in {
                "ldam": "a margin",
                "crt": "a last layer",
                "class_aware": "draws by",
                "mixup": "mixed samples",
                "smote": "new samples",
                "ncm": "a last layer",
                "vs": "a temperature",
                "tuned_adjustment": "one tau",
                "complementary": "offset 'log_weighted_prior'",
                "plain:loss=softmax": "loss 'softmax', which decides for one class",
                "plain:label_smoothing=0.1": "label smoothing",
            }.items()
        ),
        ("table", "asymmetric", "the loss 'asymmetric', in a training by epochs"),
        ("table", "deferred_effective", "a rule of schedule"),
        ("table", "inverse:weighting=class", "a weight of a whole label"),
    ],
)
def test_methods_without_a_form_for_many_labels_are_refused_by_name(kind, name, why):
    problem = features(Y) if kind == "features" else tagged("tags", separator="|")
    with pytest.raises(
        ValueError, match=rf"methods must have a form for many labels on .*\({re.escape(why)}.*has none"
    ) as caught:
        prepare(problem, ["plain", name])
    assert "; plain, inverse, inverse_sqrt, effective" in str(caught.value)
    assert ("asymmetric, distribution_balanced have one" in str(caught.value)) == (kind == "features")


@pytest.mark.parametrize("metric", ["balanced_error", "error", "nonsense"])
def test_metrics_of_one_class_are_refused(metric):
    with pytest.raises(ValueError, match=r"metric.*(macro_average_precision|many labels)"):
        prepare(features(Y), ["plain"], metric=metric)
    with pytest.raises(
        ValueError, match="metric='micro_f1' is for many labels a sample, and these data have one"
    ):
        prepare(Problem.from_features(X, np.arange(150) % 3), ["plain"], metric="micro_f1")


# ---- what decides


def test_a_run_is_judged_as_scikit_learn_judges(compared):
    assert not compared.failures
    assert compared.metric == "macro_average_precision"
    problem = Problem.from_table(columns(*made(), "|"), "tags", separator="|")
    for outcome in (o for row in compared.rows for o in row.outcomes):
        _, test = fold(problem.strata, None, 5, outcome.recipe.seed)
        said = Predictions.read(outcome.folder)
        assert np.array_equal(said.labels, problem.targets[test])
        shares = 1 / (1 + np.exp(-said.logits.astype(np.float64)))
        with np.load(outcome.folder / "predictions.npz") as file:
            assert {"labels", "predicted", "logits"} == set(file.files)
        truth = said.labels
        assert outcome.value("macro_average_precision") == pytest.approx(
            average_precision_score(truth, shares, average="macro"), abs=1e-6
        )
        assert outcome.value("macro_f1") == pytest.approx(
            f1_score(truth, said.predicted, average="macro", zero_division=0)
        )
        assert outcome.value("micro_f1") == pytest.approx(f1_score(truth, said.predicted, average="micro"))
        at_half = f1_score(truth, shares >= 0.5, average="macro", zero_division=0)
        assert outcome.value("macro_f1_at_half") == pytest.approx(at_half)
        assert outcome.value("log_loss") == pytest.approx(log_loss(truth.ravel(), shares.ravel()), abs=1e-6)


def test_thresholds_come_from_training_rows_that_were_held_out(compared):
    """They are made again here, from a training inside the training rows."""
    problem = Problem.from_table(columns(*made(), "|"), "tags", separator="|")
    outcome = compared.rows[0].outcomes[2]
    train, _ = fold(problem.strata, None, 5, 2)
    x, y = problem.inputs[train], problem.targets[train]
    held = np.full(y.shape, np.nan)
    for inside, outside in inner_folds(problem.strata[train], None, INNER):
        kinds = [kind for _, kind in problem.columns]
        say = fit_labels(
            learner("logistic_regression"), kinds, x[inside], y[inside], outcome.recipe.method, 2
        )
        held[outside] = say(x[outside])
    assert not np.isnan(held).any()
    wanted = tune_thresholds(held, y, folds=2, activation="sigmoid").thresholds
    assert outcome.evaluation.threshold == pytest.approx(tuple(wanted))


def test_no_test_label_changes_a_threshold():
    rng = np.random.default_rng(0)
    logits, inner = rng.normal(size=(40, 3)), (rng.normal(size=(150, 3)) + Y, Y)
    given = method("plain", loss="sigmoid"), logits
    one, measures, _ = judge(*given, Y[:40], Y, inner, Y.sum(0), None)
    other, others, _ = judge(*given, 1 - Y[:40], Y, inner, Y.sum(0), None)
    assert one.threshold == other.threshold
    assert one.macro_f1 != other.macro_f1
    assert measures["log_loss"] != others["log_loss"]


def test_a_label_without_a_positive_in_a_test_part_is_not_applicable(tmp_path):
    x, y = made()
    y[:, 2] = 0
    y[[0, 50], 2] = 1
    problem = Problem.from_features(x, y)
    table = compare(problem, ["plain", "inverse:weighting=positive"], repeats=1, out=tmp_path, jobs=1)
    missing = [o.by_class[2] is None for o in table.rows[0].outcomes]
    assert sum(missing) == 3
    row = table.rows[0]
    known = [o.by_class[2] for o in row.outcomes if o.by_class[2] is not None]
    assert row.by_class.mean[2] == pytest.approx(np.mean(known))
    assert table.change.mean[2] == pytest.approx(
        np.mean(
            [
                b - a
                for a, b in zip(
                    known,
                    [o.by_class[2] for o in table.rows[1].outcomes if o.by_class[2] is not None],
                    strict=True,
                )
            ]
        )
        * (1 if table.step[0] is row else -1)
    )
    for outcome in row.outcomes:
        there = [v for v in outcome.by_class if v is not None]
        assert outcome.value("macro_average_precision") == pytest.approx(np.mean(there))


def test_the_doubt_of_the_test_samples_is_a_bootstrap(by_heads):
    assert not by_heads.failures
    plain, other = by_heads.rows[0], by_heads.rows[4]
    found = by_heads.on_test(other, plain, "macro_average_precision")
    assert found.samples == 80
    said = [[Predictions.read(o.folder) for o in row.outcomes] for row in (other, plain)]
    truth = said[0][0].labels

    def areas(p: Any, weight: Any) -> float:
        each = []
        for c in range(3):
            rows = np.flatnonzero(truth[:, c] != LEFT_OUT)
            rows = rows[np.argsort(-p.logits[rows, c])]
            here, taken = weight[rows] * (truth[rows, c] == 1), np.cumsum(weight[rows])
            if here.sum():
                each.append((here * np.cumsum(here) / np.maximum(taken, 1)).sum() / here.sum())
        return float(np.mean(each))

    one = said[0][0]
    known = truth[:, 0] != LEFT_OUT
    first = average_precision_score(truth[known, 0], one.logits[known, 0])
    assert (one.drawn.shape, first) == ((200,), pytest.approx(by_heads.rows[4].outcomes[0].by_class[0]))
    rng = np.random.default_rng(7)
    draws = []
    for weight in rng.multinomial(80, np.full(80, 1 / 80), size=300):
        ours, theirs = (np.mean([areas(p, weight) for p in runs]) for runs in said)
        draws.append(ours - theirs)
    assert found.standard_error == pytest.approx(np.std(draws, ddof=1), rel=0.2)
    means = [np.mean([o.value("macro_average_precision") for o in row.outcomes]) for row in (other, plain)]
    assert found.difference == pytest.approx(means[0] - means[1])
    total, seeds = other["macro_average_precision"].total, other["macro_average_precision"].difference
    assert total.high - total.low > seeds.high - seeds.low
    assert by_heads.doubts == "both"
    assert other["macro_f1"].on_test is None
    same = TestDifference.of_draws(0.0, np.zeros(5), 9)
    assert (same.standard_error, same.samples) == (0.0, 9)


def test_a_shift_of_a_label_changes_no_ranking(by_heads):
    rows = {row.short_name: row for row in by_heads.rows}
    plain, shifted = rows["plain"], rows["posthoc_logit_adjusted"]
    assert plain["macro_average_precision"].values == pytest.approx(shifted["macro_average_precision"].values)
    assert plain["macro_f1"].values == pytest.approx(shifted["macro_f1"].values)
    assert shifted["macro_f1_at_half"].summary.mean != plain["macro_f1_at_half"].summary.mean
    assert "posthoc_logit_adjusted: shifts whole labels" in reading(by_heads)


def test_asymmetric_losses_have_the_sigmoid_loss_as_their_plain_one(by_heads):
    rows = {row.short_name: row for row in by_heads.rows}
    for name in ("asymmetric", "distribution_balanced"):
        assert by_heads.baseline(rows[name]) is rows["plain"]
    assert rows["plain focal"].is_plain


# ---- what is shown, and read back


def test_the_answer_and_the_table_speak_of_labels(compared):
    lines = answer(compared)
    assert lines[0].startswith("Use: ")
    assert any("MultiOutputClassifier(" in line for line in lines)
    assert any(line.startswith("Decide: longtail.evaluation.tune_thresholds") for line in lines)
    assert lines[-1].startswith("Least is known of: crack (")
    text = "\n".join([*lines, compared.verdict, reading(compared)])
    assert "class" not in text.replace("Classifier", "").replace("class_", "")
    assert "positive is better" in text
    sheet = class_sheet(compared)
    assert sheet.head[:2] == ["label", "positives"]
    assert [row[0].text for row in sheet.rows] == ["rust", "dent", "crack"]
    mean = np.nanmean([o.by_class[1] for o in compared.rows[0].outcomes])  # dent, in the order of the names
    assert sheet.rows[1][2].value == pytest.approx(100 * mean)


def test_the_page_leaves_out_what_is_for_one_class(compared, by_heads):
    page = report_page([compared, by_heads])
    for word in (
        "Confusions",
        "beta explorer",
        "Brier",
        "balanced error goes",
        "n/a: these runs kept no history",
    ):
        assert word not in page.partition("glossary")[0].replace("The words", ""), word
    assert "On which labels?" in page
    assert "Average precision of every label" in page
    assert "What should I use?" in page
    assert "All labels" in page


def test_runs_are_found_again_and_say_the_same(compared, by_heads, tmp_path):
    for table in (compared, by_heads):
        found, left_out = find_runs([table.folder])
        assert not left_out
        (again,) = comparisons(found)
        assert again.many_labels
        by_method = {row.method: row for row in again.rows}
        for row in table.rows:
            ours, theirs = row["macro_average_precision"], by_method[row.method]["macro_average_precision"]
            assert (ours.values, ours.total) == (theirs.values, theirs.total)
    damaged = compared.rows[0].outcomes[0].folder / "evaluation.json"
    values = json.loads(damaged.read_text())
    before = damaged.read_text()
    try:
        damaged.write_text(json.dumps(values | {"macro_f1": "high"}))
        assert any("damaged" in out.why for out in find_runs([compared.folder])[1])
    finally:
        damaged.write_text(before)


def test_a_head_is_loaded_and_predicts(by_heads):
    rows = {row.short_name: row for row in by_heads.rows}
    x, _ = made(240)
    for name in ("plain", "posthoc_logit_adjusted"):
        folder = rows[name].outcomes[0].folder
        assert load_run(folder).evaluation == rows[name].outcomes[0].evaluation
        classify = Classifier(folder)
        kept = Predictions.read(folder)
        ours = 1 / (1 + np.exp(-kept.logits[:3].astype(np.float64)))
        assert np.allclose([classify(row).probabilities for row in x[160:163]], ours, atol=0.02)
        given = [classify(row).given for row in x[160:200]]
        assert given == [
            tuple(n for n, d in zip("012", row, strict=True) if d) for row in kept.predicted[:40]
        ]
    with pytest.raises(
        ValueError,
        match=r"has many labels a sample, which this does not take; longtail evaluate .* shows its",
    ):
        held_out(folder)
    with pytest.raises(ValueError, match="has one class a sample, and gives no labels; take best"):
        Prediction(("a", "b"), np.array([0.4, 0.6])).given  # noqa: B018


def test_a_run_is_evaluated_with_the_comparisons_numbers_and_its_intervals(compared, by_heads):
    for table in (compared, by_heads):
        for outcome in (row.outcomes[0] for row in table.rows):
            found, said = evaluate_run(outcome.folder), Predictions.read(outcome.folder)
            ends = ("macro_average_precision_interval", "macro_f1_interval")
            assert replace(found, **dict.fromkeys(ends)) == outcome.evaluation
            options = {"activation": "sigmoid", "threshold": outcome.evaluation.threshold}
            again = longtail.evaluate(said.logits.astype(float), said.labels, found.class_counts, **options)
            assert [getattr(found, name) for name in ends] == [getattr(again, name) for name in ends]
            assert found.macro_f1_interval.low <= found.macro_f1 <= found.macro_f1_interval.high
    parts = Split(np.zeros((4, 5)), np.arange(4) % 2), Split(np.zeros((4, 5)), np.arange(4) % 2)
    with pytest.raises(ValueError, match=r"data='heads' is given for a run .*; leave it out"):
        evaluate_run(outcome.folder, Dataset("heads", *parts, ("a", "b"), "vectors"))


def test_groups_are_the_units_of_a_runs_intervals(tmp_path):
    x, y = made(240)
    groups = np.arange(240) // 4  # four copies of each sample: nothing more is known than of one
    given = {"groups": groups[:160], "test_groups": groups[160:]}
    problem = Problem.from_features(
        x[:160], y[:160], test=(x[groups[160:] * 4], y[groups[160:] * 4]), **given
    )
    table = compare(problem, ["plain", "effective"], seeds=1, out=tmp_path / "given", jobs=1)
    outcome = table.rows[0].outcomes[0]
    assert "one seed" in (told := legend(table))
    assert "80 test samples in 20 groups" in told
    assert (outcome.evaluation.num_groups, table.evaluation.num_groups) == (20, 20)
    found, said = evaluate_run(outcome.folder), outcome.predictions
    assert (found.num_groups, found.units_text) == (20, "20 groups of test samples")
    assert str(found).endswith("80 samples in 20 groups")
    once = evaluate_multi_label(said.logits[::4].astype(float), said.labels[::4], found.class_counts)
    assert found.macro_average_precision_interval == pytest.approx(once.macro_average_precision_interval)
    without = found.with_intervals(said.logits, said.predicted, said.labels)
    assert np.diff(without.macro_f1_interval) < 0.7 * np.diff(found.macro_f1_interval)
    for name, wrong in (("scores", said.logits[1:]), ("decisions", said.predicted[:, 1:])):
        with pytest.raises(
            ValueError, match=rf"{name} must be those of the test samples, of shape \(80, 3\)"
        ):
            found.with_intervals(
                *({"scores": said.logits, "decisions": said.predicted} | {name: wrong}).values(), said.labels
            )
    old = {n: v for n, v in found.to_dict().items() if n != "num_groups"}
    assert replace(MultiLabelEvaluation.from_dict(old), num_groups=20) == found
    in_folds = compare(
        Problem.from_features(x, y, groups=groups),
        ["plain"],
        folds=3,
        repeats=1,
        out=tmp_path / "folds",
        jobs=1,
    )
    assert in_folds.evaluation.num_groups == 60
    assert "240 test samples in 60 groups; each label has" in report_page([in_folds])


def test_a_second_call_reads_what_is_there(compared):
    problem = Problem.from_table(columns(*made(), "|"), "tags", separator="|", name="parts")
    methods = [row.method for row in compared.rows]
    again = compare(problem, methods, repeats=1, out=compared.folder, jobs=1)
    assert again.to_dict() == compared.to_dict()
    x, y = made(seed=1)
    other = Problem.from_table(columns(x, y, "|"), "tags", separator="|", name="parts")
    with pytest.raises(RuntimeError, match="on other data"):
        compare(other, methods, repeats=1, out=compared.folder, jobs=1)


# ---- the command line


def command(capsys: Any, monkeypatch: Any, *arguments: object) -> tuple[str, str]:
    """What a command prints, on both streams."""
    monkeypatch.setattr("sys.argv", ["longtail", *map(str, arguments)])
    with pytest.raises(SystemExit):
        cli.main()
    found = capsys.readouterr()
    return found.out, " ".join(found.err.split())


def test_evaluate_shows_every_label(compared, by_heads, capsys, monkeypatch):
    outcome = compared.rows[1].outcomes[0]
    found = outcome.evaluation
    out, err = command(capsys, monkeypatch, "evaluate", outcome.folder)
    assert not err
    assert max(map(len, out.splitlines())) <= 80
    order = np.argsort([-n for n in found.class_counts], kind="stable")
    lines = [line.split() for line in out.splitlines() if line.split()[:1] and line.split()[0] in NAMES]
    assert [line[0] for line in lines] == [compared.class_names[c] for c in order]
    for line, c in zip(lines, order, strict=True):
        columns = (found.per_class_average_precision, found.per_class_f1, found.per_class_precision)
        numbers = [*(x[c] for x in columns), found.per_class_recall[c], found.threshold[c]]
        assert line[1:3] == [str(found.class_counts[c]), str(found.positives[c])]
        assert line[3:] == ["n/a" if x is None else f"{x:.3f}" for x in numbers]
    text = " ".join(out.split())
    assert text.endswith("; train: those of all 5 folds together, which decide the shot groups")
    assert "of all" not in command(capsys, monkeypatch, "evaluate", by_heads.outcomes[0].folder)[0]
    assert f"macro average precision {found.macro_average_precision:.3f}, many" in text
    assert "95 % intervals from the test samples: macro average precision 0." in text
    assert f"log-loss of a label {outcome.value('log_loss'):.3f}, macro-F1 at 0.5 0." in text
    rows = command(capsys, monkeypatch, "evaluate", outcome.folder, "--format", "csv")[0].splitlines()
    assert rows[0].startswith("label,positives,test_positives,average_precision,f1,")
    assert [float(row.split(",")[-1]) for row in rows[1:]] == [found.threshold[c] for c in order]
    told = json.loads(command(capsys, monkeypatch, "evaluate", outcome.folder, "--format", "json")[0])
    assert MultiLabelEvaluation.from_dict(told) == evaluate_run(outcome.folder)


def test_predict_gives_labels_at_the_runs_thresholds(compared, by_heads, capsys, monkeypatch, tmp_path):
    folder, (x, _) = by_heads.rows[0].outcomes[0].folder, made(240)
    classify = Classifier(folder)
    at = next(i for i in range(160, 240) if len(classify(x[i]).given) == 1)
    np.save(tmp_path / "one.npy", x[at])
    answer = classify(x[at])
    out, _ = command(capsys, monkeypatch, "predict", folder, tmp_path / "one.npy", "--format", "json")
    rows = json.loads(out)
    assert (rows[0]["label"], rows[0]["given"]) == (answer.given[0], True)
    assert {r["label"]: r["probability"] for r in rows} == dict(answer.top(3))
    assert all(r["given"] == (r["probability"] >= r["threshold"]) for r in rows)
    out, _ = command(capsys, monkeypatch, "predict", folder, tmp_path / "one.npy", "--top", "1")
    assert "1 of 3 labels given: each whose probability reaches its threshold" in " ".join(out.split())
    assert out.count(" %") == 2  # probability and threshold of that label alone
    out, _ = command(capsys, monkeypatch, "predict", folder, tmp_path / "one.npy", "--format", "csv")
    assert out.splitlines()[0] == "label,probability,threshold,given"
    for option, value in (("--sets", "0.9"), ("--prior", "estimated")):
        _, err = command(capsys, monkeypatch, "predict", folder, tmp_path / "one.npy", option, value)
        assert f"{option} is for one class a sample" in err
        assert err.endswith(
            "leave it out: without it predict gives each label from the threshold that the run chose"
        )
    for option in (["--curves"], ["--probabilities"], ["--thresholds", "f1"], ["--unlabelled", "x.npy"]):
        _, err = command(capsys, monkeypatch, "evaluate", folder, *option)
        assert f"{option[0]} is for one class a sample" in err
        assert err.endswith(f"longtail evaluate {folder} without it shows what is known of each label")
    place = compared.rows[1].outcomes[0].folder
    _, err = command(capsys, monkeypatch, "predict", place, tmp_path / "one.npy")
    assert f"keeps no model; fit it anew on your rows by {code_for(compared.rows[1])}, then its" in err
    assert err.endswith("evaluate shows the thresholds from which the run gave each label")


def run(*arguments: str) -> None:
    cli.app(["compare", *arguments, "--jobs", "1", "--out", "out"], standalone_mode=False)


@pytest.mark.parametrize("kind", ["labels", "features"])
def test_the_command_takes_many_labels(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x, y = made(90)
    few = ["--method", "plain", "--method", "inverse:weighting=positive", "--repeats", "1", "--folds", "2"]
    if kind == "features":
        np.savez("f.npz", X=x, y=y)
        run("f.npz", *few)
    else:
        run(str(written(tmp_path / "t.csv", columns(x, y))), "--labels", "rust,[dc]*", *few)
    shown = capsys.readouterr()
    assert "3 labels" in shown.err
    assert "mAP %" in shown.out
    assert max(map(len, shown.out.splitlines()[:12])) <= 80
    assert {"compare.csv", "compare.html", "compare.json", "compare.md", "compare.png"} <= {
        path.name for path in Path("out").iterdir()
    }
    head = Path("out/compare.csv").read_text().splitlines()[0].split(",")
    assert {"macro_average_precision", "macro_f1", "micro_f1", "log_loss", "few_average_precision"} <= set(
        head
    )
    assert json.loads(Path("out/compare.json").read_text())["metric"] == "macro_average_precision"
    cli.app(["report", "out", "--format", "csv"], standalone_mode=False)
    assert "macro_average_precision_mean" in capsys.readouterr().out
    cli.app(["report", "out", "--format", "markdown"], standalone_mode=False)
    assert ": average precision of the labels in %\n" in capsys.readouterr().out
    cli.app(["report", "out", "--format", "markdown", "--table", "classes"], standalone_mode=False)
    assert "| label | positives |" in capsys.readouterr().out


def test_the_command_names_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = str(written(tmp_path / "t.csv", columns(*made(), "|")))
    shares, cubes = "shares.npz", "cubes.npz"
    np.savez(shares, X=np.ones((4, 2)), y=np.full((4, 2), 0.5))
    np.savez(cubes, X=np.ones((4, 2, 2)), y=[0, 1, 0, 1])
    for arguments, message in (
        ([path], "columns of 0 and 1 by --labels A,B"),
        (
            [path, "--label", "tags", "--separator", ";"],
            "--separator must be what parts several labels, got ';', which is in no row",
        ),
        ([path, "--labels", "a,b", "--separator", ";"], "leave one of them out"),
        ([path, "--separator", "|"], "--label"),
        (["digits", "--separator", "|"], "--separator is for a table"),
        ([path, "--label", "tags", "--separator", "|", "--metric", "error"], "for one class a sample"),
        (
            [path, "--label", "tags", "--separator", "|", "--method", "ldam"],
            "--method must have a form for many labels",
        ),
        ([path, "--labels", "x0,x1"], "--labels must be 0 and 1, got"),
        ([shares], "y must be 0 and 1, got 0.5, first in row 0"),
        ([cubes], "X must be numbers of shape (N, D)"),
        (["away.csv"], "source 'away.csv' is no file; give a .csv"),
    ):
        with pytest.raises((ValueError, TypeError, SystemExit)) as caught:
            run(*arguments)
        text = (
            str(caught.value) if isinstance(caught.value, ValueError | TypeError) else capsys.readouterr().err
        )
        from longtail.cli.terminal import as_options

        assert message in as_options(text), arguments
    assert not Path("out").exists()


def test_the_usual_methods_have_a_form():
    assert len(prepare(features(Y))[0]) == len(LABEL_HEADS)
    assert len(prepare(tagged("tags", separator="|"))[0]) == len(LABELS)
    assert read("labels", Y)[1] == ("0", "1", "2")
    assert Rule("none") == method("asymmetric").weight
