"""From run folders to comparisons, advice, tables and figures; the page itself is in test_page.py."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import longtail
from folders import unseal
from longtail import recipes
from longtail.compare import ComparisonTable, Outcome, advice, compare, runs
from longtail.compare.answer import answer
from longtail.counts import ClassCounts
from longtail.evaluation import Evaluation, evaluate
from longtail.report import tables
from longtail.report.blocks import PANELS, Chart, Panel, Spec, Table, Text
from longtail.report.page import explorer_page, report_page

TINY = recipes.digits(epochs=2, warmup_epochs=1, eval_every=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ComparisonTable:
    """Real runs: one loss, two weightings, two seeds."""
    out = tmp_path_factory.mktemp("runs")
    return compare(
        TINY, losses=["softmax"], schemes=["none", "effective"], seeds=2, out=out, jobs=1, device="cpu"
    )


def made(
    recipe: recipes.Recipe, error: float, counts: Sequence[int] = (200, 5), folder: str = "nowhere"
) -> Outcome:
    """A run with a chosen error in every class: 1000 test samples, the first so many of each class wrong."""
    size = len(counts)
    targets = np.arange(1000) % size
    wrong = np.arange(1000) < round(1000 * error)
    evaluation = evaluate(np.where(wrong, (targets + 1) % size, targets), targets, counts)
    return Outcome(recipe, evaluation, 1.0, None, Path(folder))


def several(errors: dict[str, list[float]], **changes: object) -> list[Outcome]:
    return [
        made(TINY.replace(scheme=scheme, seed=seed, **changes), error)
        for scheme, values in errors.items()
        for seed, error in enumerate(values)
    ]


# ---- run folders


def test_folders_give_back_what_compare_returned(trained: ComparisonTable) -> None:
    found, left_out = runs.find_runs([trained.folder])
    (again,) = runs.comparisons(found)
    assert left_out == []
    assert again.folder == trained.folder
    assert again.to_dict() == trained.to_dict()
    assert again.title == "digits, imbalance 50"
    assert [line.epoch for line in found[0].history] == [1, 2]
    assert [line.test_error is None for line in found[0].history] == [True, False]


def test_what_is_no_finished_run_is_named_and_the_rest_reported(
    trained: ComparisonTable, tmp_path: Path
) -> None:
    source = trained.folder / "softmax-none" / "seed0"
    for name in ("good", "again", "unfinished", "cut", "nan", "shape", "fields", "ownerless", "strange"):
        shutil.copytree(source, tmp_path / name)
    for name in ("nan", "shape", "fields", "strange", "ownerless"):  # nothing but what it says tells
        unseal(tmp_path / name)
    (tmp_path / "unfinished" / "evaluation.json").unlink()
    (tmp_path / "ownerless" / "recipe.json").unlink()
    (tmp_path / "strange" / "recipe.json").write_text("[]")
    stored = json.loads((source / "evaluation.json").read_text())
    spoilt = {
        "cut": json.dumps(stored)[:100],
        "nan": json.dumps(stored | {"error": float("nan")}),
        "shape": json.dumps(stored | {"confusion": [[1]]}),
        "fields": json.dumps({"error": 0.1}),
    }
    for name, text in spoilt.items():
        (tmp_path / name / "evaluation.json").write_text(text)
    found, left_out = runs.find_runs([tmp_path])
    assert len(found) == 1
    why = {left.folder.name: left.why for left in left_out}
    first = found[0].folder.name
    assert {first, *why} == {"good", "again", *spoilt, "unfinished", "ownerless", "strange"}
    other = ({"good", "again"} - {first}).pop()
    assert why[other] == f"the same settings and seed as {tmp_path / first}"
    assert why["unfinished"].startswith("unfinished: 2 of 2 epochs")
    assert why["nan"] == "damaged: evaluation.json holds a value that is no finite number"
    assert why["shape"] == "damaged: evaluation.json has a confusion matrix of another shape"
    assert "a recipe must be a JSON object" in why["strange"]
    for name in ("cut", "fields", "ownerless"):
        assert why[name].startswith("damaged: ")
    page = report_page(runs.comparisons(found), left_out=left_out)
    assert "8 runs are not counted above" in page


@pytest.mark.parametrize(
    ("place", "message"),
    [("nowhere", "'nowhere' is not a folder"), (".", r"no runs found in '\.'; longtail compare")],
)
def test_folders_without_runs(
    place: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        runs.find_runs([place])


def test_evaluations_of_earlier_versions_are_read(trained: ComparisonTable, tmp_path: Path) -> None:
    shutil.copytree(trained.folder, tmp_path / "old")
    for file in (tmp_path / "old").rglob("evaluation.json"):
        values = json.loads(file.read_text())
        del values["reliability"]
        file.write_text(json.dumps(values))
        unseal(file.parent)
    found, left_out = runs.find_runs([tmp_path])
    assert left_out == []
    page = report_page(runs.comparisons(found))
    assert "Calibration chart: n/a" in page
    assert trained.verdict in page


def test_rows_say_in_what_they_differ_and_meet_their_own_baseline() -> None:
    outcomes = [
        *several({"none": [0.3, 0.3], "effective": [0.2, 0.21]}, loss="softmax"),
        *several({"effective": [0.25, 0.26]}, loss="softmax", beta=0.9),
        *several({"none": [0.4, 0.4], "effective": [0.1, 0.12]}, loss="focal", gamma=1.0),
        *several({"none": [0.5, 0.5], "effective": [0.3, 0.32]}, loss="focal", gamma=2.0),
    ]
    (one,) = runs.comparisons(outcomes[::-1])
    assert [(row.loss, row.weights) for row in one.rows] == [
        ("softmax", "none"),
        ("softmax", "effective beta=0.9"),
        ("softmax", "effective beta=0.99"),
        ("focal", "none gamma=1"),
        ("focal", "none gamma=2"),
        ("focal", "effective beta=0.99 gamma=1"),
        ("focal", "effective beta=0.99 gamma=2"),
    ]
    means = [None if (d := row["error"].difference) is None else round(d.mean, 3) for row in one.rows]
    assert means == [None, -0.045, -0.095, None, None, -0.29, -0.19]
    assert one.tests == 4
    assert "focal, effective beta=0.99 gamma=1 weights, 11.0 %" in one.verdict


def test_what_a_mean_divides_by_makes_no_other_baseline() -> None:
    """Without weights it is the samples, whatever it is called."""
    plain = several({"none": [0.3, 0.3]}, loss="softmax")
    for own in ([], several({"none": [0.5, 0.5]}, loss="softmax", normalizer="weights")):
        weighed = several({"effective": [0.2, 0.21]}, loss="softmax", normalizer="weights")
        (one,) = runs.comparisons([*plain, *own, *weighed])
        difference = one.rows[-1]["error"].difference
        assert difference is not None
        assert difference.mean == pytest.approx(-0.295 if own else -0.095)  # its own, where there is one


def test_a_beta_without_effect_makes_no_new_method(tmp_path: Path) -> None:
    for name, beta in (("a", 0.9), ("b", 0.99)):
        outcome = made(TINY.replace(scheme="none", beta=beta), 0.3)
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.json").write_text(outcome.recipe.to_json())
        assert outcome.evaluation is not None
        (tmp_path / name / "evaluation.json").write_text(json.dumps(outcome.evaluation.to_dict()))
    found, left_out = runs.find_runs([tmp_path])
    assert [len(found), len(left_out)] == [1, 1]


def test_other_counts_are_another_training_set() -> None:
    outcomes = [made(TINY, 0.3), made(TINY.replace(seed=1), 0.3, (100, 5))]
    assert [c.title for c in runs.comparisons(outcomes)] == ["digits, imbalance 50"] * 2


# ---- evaluations


def test_natural_error_weighs_by_the_training_counts() -> None:
    targets = np.repeat([0, 1, 2], 10)
    predicted = np.where(np.arange(30) % 10 < np.repeat([1, 5, 8], 10), (targets + 1) % 3, targets)
    result = evaluate(predicted, targets, [90, 9, 1])
    assert result.natural_error == pytest.approx((90 * 0.1 + 9 * 0.5 + 1 * 0.8) / 100)
    assert result.balanced_error == pytest.approx((0.1 + 0.5 + 0.8) / 3)
    partly = evaluate([0, 1], [0, 0], [0, 5])  # the only tested class has no training samples
    assert partly.natural_error == partly.balanced_error == 0.5


def test_reliability_bins_make_the_calibration_error(rng: np.random.Generator) -> None:
    scores, targets = rng.normal(size=(400, 4)) * 2, rng.integers(0, 4, 400)
    result = evaluate(scores, targets, [9, 9, 9, 9])
    assert result.reliability is not None
    total = sum(n for n, _, _ in result.reliability)
    assert total == 400
    gap = sum(n * abs(accuracy - confidence) for n, confidence, accuracy in result.reliability) / total
    assert gap == pytest.approx(result.expected_calibration_error)
    confidences = [confidence for _, confidence, _ in result.reliability]
    assert confidences == sorted(confidences)
    assert Evaluation.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    assert evaluate([0, 1], [0, 1], [1, 1]).reliability is None


# ---- advice


def test_advice_names_a_proven_winner() -> None:
    (one,) = runs.comparisons(several({"none": [0.30, 0.31, 0.29], "effective": [0.2, 0.21, 0.19]}))
    balanced, natural = advice.advise(one)
    assert balanced.finding.startswith(
        "Use softmax with effective weights: 20.0 %, -10.0 [-10.0, -10.0] points"
    )
    assert balanced.code == (
        "criterion = longtail.ClassBalancedLoss(longtail.class_counts(labels), "
        'loss="softmax", scheme="effective", beta=0.99)'
    )
    assert (balanced.prior, natural.prior) == ("balanced", "natural")


def test_advice_keeps_the_plain_loss_where_chance_may_explain_the_gain() -> None:
    (one,) = runs.comparisons(several({"none": [0.30, 0.31, 0.29], "effective": [0.2, 0.36, 0.28]}))
    balanced = advice.advise(one)[0]
    assert "may be chance: keep plain softmax, the simplest" in balanced.finding
    assert balanced.code == "criterion = torch.nn.CrossEntropyLoss()"
    (single,) = runs.comparisons(several({"none": [0.30], "effective": [0.1]}))
    assert "rests on one run" in advice.advise(single)[0].finding
    (alone,) = runs.comparisons(several({"effective": [0.1, 0.2]}))
    assert "No run without re-weighting says whether it helped" in advice.advise(alone)[0].finding
    (plain,) = runs.comparisons(several({"none": [0.1, 0.2], "inverse": [0.3, 0.3]}))
    assert advice.advise(plain)[0].finding == "Plain softmax has the lowest mean error, 15.0 %."


@pytest.mark.parametrize(("focal", "kept"), [([0.29, 0.31, 0.28], "softmax"), ([0.1, 0.11, 0.09], "focal")])
def test_another_loss_is_kept_only_where_it_beats_the_usual_one(focal: list[float], kept: str) -> None:
    errors = {
        "softmax": {"none": [0.30, 0.31, 0.29], "effective": [0.05, 0.5, 0.1]},
        "focal": {"none": focal},
    }
    outcomes = []
    for loss, schemes in errors.items():
        for scheme, values in schemes.items():
            for seed, error in enumerate(values):
                outcomes.append(made(TINY.replace(loss=loss, scheme=scheme, seed=seed), error))
    (one,) = runs.comparisons(outcomes)
    row = one.plainest("balanced_error")
    assert row is not None
    assert (row.loss, row.is_plain) == (kept, True)
    assert answer(one)[0] == f"Use: {kept} without re-weighting."


def test_the_two_priors_can_disagree() -> None:
    def run(scheme: str, seed: int, head: float, tail: float) -> Outcome:
        targets = np.repeat([0, 1], 500)
        wrong = np.concatenate([np.arange(500) < 500 * head, np.arange(500) < 500 * tail])
        evaluation = evaluate(np.where(wrong, 1 - targets, targets), targets, [200, 5])
        return Outcome(TINY.replace(scheme=scheme, seed=seed), evaluation, 1.0, None, Path("nowhere"))

    outcomes = [run("none", s, 0.01, 0.6 + s / 100) for s in range(4)]
    outcomes += [run("effective", s, 0.1, 0.3 + s / 100) for s in range(4)]
    (one,) = runs.comparisons(outcomes)
    balanced, natural = advice.advise(one)
    assert 'scheme="effective"' in balanced.code
    assert natural.code == "criterion = torch.nn.CrossEntropyLoss()"
    values = one.rows[1]["natural_error"].values
    assert values[0] == pytest.approx((200 * 0.1 + 5 * 0.3) / 205)


# ---- tables


def test_exports_hold_the_numbers_of_the_comparison(trained: ComparisonTable) -> None:
    sheet = tables.method_sheet(trained)
    narrow = tables.method_sheet(trained, "table")
    assert [[cell.text for cell in row[:6]] for row in sheet.rows] == [
        [cell.text for cell in row[:6]] for row in narrow.rows
    ]
    rows = list(csv.DictReader(io.StringIO(tables.methods_csv(trained))))
    for row, source in zip(rows, trained.rows, strict=True):
        summary = source["few_error"].summary
        assert summary is not None
        assert float(row["few_error_mean"]) == pytest.approx(summary.mean, rel=1e-5)
    d = trained.rows[1]["error"].difference
    assert d is not None
    assert float(rows[1]["difference_to_none_low"]) == pytest.approx(d.low, rel=1e-5)
    assert rows[0]["difference_to_none_low"] == ""
    classes = tables.class_sheet(trained)
    lines = list(csv.reader(io.StringIO(classes.csv())))
    assert lines[0] == ["class", "training samples", "softmax none", "softmax effective"]
    first = [o.evaluation.per_class_error[0] for o in trained.rows[0].outcomes if o.evaluation]
    assert float(lines[1][2]) == pytest.approx(100 * np.mean(first))
    assert lines[1][:2] == ["0", "124"]


def test_latex_is_escaped_and_empty_groups_are_not_numbers() -> None:
    (one,) = runs.comparisons(several({"none": [0.3, 0.31], "inverse_sqrt": [0.2, 0.22]}))
    text = tables.method_sheet(one).latex("50 % & more_of_it")
    assert r"\caption{50 \% \& more\_of\_it}" in text
    assert r"inverse\_sqrt (best)" in text
    assert " & n/a & " in text  # counts 200 and 5 leave no medium-shot class
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({line.count(" & ") for line in body}) == 1
    assert text.count(r"\begin{") == text.count(r"\end{") == 2


# ---- the page as text


PLOTLY = (files("longtail.report") / "assets" / "plotly-cartesian.min.js").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """What a browser would make of a page: its elements, and the text of the scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.count: dict[str, int] = {}
        self.handlers: list[str] = []
        self.texts: list[str] = []
        self.feed(text.replace(PLOTLY, ""))  # a second of parsing that tells nothing

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


NASTY = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "<!--",
    "]]>",
    "\u2028",
    "${1}",
    "{{7*7}}",
]


@settings(max_examples=10)
@given(st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=20)), min_size=2, max_size=6, unique=True))
def test_class_names_are_inert(names: list[str]) -> None:
    page = explorer_page(ClassCounts(names, list(range(len(names), 0, -1))))
    tags = Tags(page)
    assert tags.count["script"] == 3  # the data, Plotly, ours
    assert "img" not in tags.count
    assert tags.handlers == []
    (data,) = [text for text in tags.texts if text.startswith('{"sets"')]
    assert json.loads(data)["sets"]["set0"]["names"] == names


def test_the_page_says_what_compare_says(trained: ComparisonTable) -> None:
    page = Tags(report_page([trained]))
    text = " ".join(" ".join(page.texts).split())
    assert trained.verdict in text
    for row in tables.method_sheet(trained, "table").rows:
        assert " ".join(cell.text for cell in row if cell.text) in text
    assert "5 medium" not in text
    assert "500 test samples, balanced: 50 a class" in text


def test_a_panel_from_elsewhere_joins_the_page(trained: ComparisonTable) -> None:
    def toy(table: ComparisonTable) -> Panel:
        spec = Spec([{"x": [1], "y": [len(table.rows)], "type": "bar"}])
        return Panel("A panel of mine", [Text("<seen>"), Chart("toy", "Toys", spec)], "Mine?", "Yes, mine.")

    PANELS.register("toy", toy)
    try:
        page = report_page([trained])
    finally:
        PANELS.unregister("toy")
    text = " ".join(" ".join(Tags(page).texts).split())
    assert text.index("The runs") < text.index("A panel of mine") < text.index("<seen>")
    assert "Mine? Yes, mine." in text
    data = json.loads(next(t for t in Tags(page).texts if t.startswith('{"sets"')))
    assert data["sets"]["set0"]["charts"]["toy"]["data"] == [{"x": [1], "y": [2], "type": "bar"}]
    assert 'data-chart="toy"' in page
    assert "A panel of mine" not in report_page([trained])


def test_the_page_asks_for_nothing_from_outside(trained: ComparisonTable) -> None:
    page = report_page([trained])
    head = page[: page.index("<style>")]
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', head)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe-eval" not in policy[1]
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 2
    assert not re.search(r'(src|href)="(?!data:|#)', page[: page.index("<script>")])


def test_ten_thousand_classes_stay_below_five_megabytes(rng: np.random.Generator) -> None:
    counts = longtail.datasets.long_tail_counts(10_000, 5000, 500)
    targets = np.arange(20_000) % 10_000
    outcomes = []
    for scheme in ("none", "inverse", "inverse_sqrt", "effective"):
        for loss in ("softmax", "sigmoid", "focal"):
            predicted = np.where(rng.random(20_000) < 0.4, rng.integers(0, 10_000, 20_000), targets)
            evaluation = evaluate(predicted, targets, counts)
            outcomes.append(
                Outcome(TINY.replace(loss=loss, scheme=scheme), evaluation, 1.0, None, Path("nowhere"))
            )
    page = report_page(runs.comparisons(outcomes))
    assert len(page.encode()) < 5e6
    assert "not kept beyond 1000 classes" in page


def test_nothing_to_report_is_an_error(trained: ComparisonTable) -> None:
    failed = Outcome(TINY, None, 0.0, "OSError: disk full", Path("somewhere"))
    with pytest.raises(ValueError, match="no finished run to report"):
        report_page([ComparisonTable(TINY, (), (failed,), Path("somewhere"))])
    both = ComparisonTable(trained.recipe, trained.rows, (failed,), trained.folder)
    assert "failed: OSError: disk full" in report_page([both])


def test_the_library_in_the_page_is_the_recorded_one() -> None:
    assets = files("longtail.report") / "assets"
    about = (assets / "README.md").read_text(encoding="utf-8")
    library = (assets / "plotly-cartesian.min.js").read_bytes()
    assert hashlib.sha256(library).hexdigest() in about
    version = re.search(rb"plotly\.js \(cartesian - minified\) v([\d.]+)", library)
    assert version is not None
    assert f"| {version[1].decode()} |" in about
    assert "MIT License" in (assets / "plotly-LICENSE.txt").read_text()
    assert b"</script" not in library.lower()
    assert b"new Function" not in library


def probabilities_of(scores: float, seeds: int = 2) -> ComparisonTable:
    """Runs whose logits are made `scores` times as large: too sure above 1."""
    rng = np.random.default_rng(3)
    targets = np.repeat([0, 1, 2], 200)
    logits = rng.normal(size=(600, 3))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    drawn = (rng.random((600, 1)) > chances.cumsum(1)).sum(1)  # truth follows the probabilities
    outcomes = [
        Outcome(
            recipes.digits(scheme="none", seed=seed),
            evaluate(scores * logits, drawn, [500, 60, 5]),
            1.0,
            None,
            Path("nowhere"),
        )
        for seed in range(seeds)
    ]
    assert len(targets) == len(drawn)
    (made,) = runs.comparisons(outcomes)
    return made


def test_probabilities_of_rare_classes_are_told_by_what_they_are() -> None:
    from longtail.report.panels import probabilities

    assert probabilities.facts(probabilities_of(1.0)).startswith(
        "On average yes: where softmax none decides for a few"
    )
    assert "so it is too sure. Calibrate" in probabilities.facts(probabilities_of(4.0))
    assert "less sure than it could be" in probabilities.facts(probabilities_of(0.3))
    made = probabilities.panel(probabilities_of(4.0))
    assert made is not None
    (sheet,) = (block.sheet for block in made.blocks if isinstance(block, Table))
    (line,) = sheet.rows
    table = probabilities_of(4.0)
    found = table.rows[0].outcomes[0].result
    assert line[1].value == pytest.approx(found.log_loss)
    assert line[3].value == pytest.approx(100 * (found.expected_calibration_error or 0))
    # the groups' errors, by hand from the bins of one seed: both seeds are alike
    few = found.group_reliability[2] if found.group_reliability else ()
    assert line[6].value == pytest.approx(
        100 * sum(n * abs(c - a) for n, c, a in few) / sum(n for n, _, _ in few)
    )
    # hard predictions have no probabilities, and the page no panel
    hard = evaluate(np.array([0, 1, 2]), np.array([0, 1, 1]), [500, 60, 5])
    (other,) = runs.comparisons([Outcome(recipes.digits(scheme="none"), hard, 1.0, None, Path("x"))])
    assert probabilities.panel(other) is None


def test_names_are_cut_in_the_middle_and_told_whole() -> None:
    from longtail.report.charts import cut

    assert cut("abcdefghij", 10) == "abcdefghij"
    assert cut("left lateral malleolus fracture, closed", 15) == "left la… closed"
    assert len(cut("x" * 99, 14)) == 14


def test_what_every_method_saw_is_said(tmp_path: Path) -> None:
    recipe = recipes.digits(epochs=2, warmup_epochs=0, imbalance_factor=10.0)
    names = ["plain", "class_aware", "posthoc_logit_adjusted"]
    table = compare(recipe, names, seeds=1, out=tmp_path, jobs=1)
    text = tables.reading(table)
    assert f"Every method saw 2 epochs of {sum(table.class_counts):,} samples." in text
    assert "Without a training of their own, from a run of another row: posthoc_logit_adjusted." in text
