"""Every measured row that is committed is still of its recipe: rebuilt from the row's columns, same hash."""

from __future__ import annotations

import ast
import csv
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from longtail import methods, recipes, suggest
from longtail.compare import Problem, prepare
from longtail.paper import beta
from longtail.paper.results import columns_of
from longtail.paper.settings import Setting, measure, rivals, signs, skeletons

RESULTS = Path(__file__).parents[1] / "results"
Row = Mapping[str, str]


def rows_of(name: str) -> list[dict[str, str]]:
    with (RESULTS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def of_cifar(row: Row) -> recipes.Recipe:
    return recipes.paper_cifar(
        row["dataset"],
        float(row["imbalance_factor"]),
        row["loss"],
        scheme="none" if row["beta"] == "0" else "effective",
        beta=float(row["beta"]),
        gamma=float(row["gamma"] or 1),
    )


def of_rivals(row: Row) -> recipes.Recipe:
    factor = int(row["imbalance_factor"])
    (setting,) = rivals(datasets=[row["dataset"]], imbalances=[factor], methods=[row["method"]])
    return setting.recipe


def of_clips(row: Row) -> recipes.Recipe:
    beta, factor = float(row["beta"]), float(row["imbalance_factor"])
    recipe = recipes.ddnet(
        f"jhmdb{row['classes']}-{row['split']}",
        int(row["filters"]),
        loss=row["loss"],
        scheme="none" if beta == 0 else "effective",
        beta=beta,
        imbalance_factor=None if factor == 1 else factor,
    )
    return recipe.replace(epochs=int(row["epochs"]))


def of_signs(row: Row) -> recipes.Recipe:
    numbers = {name: float(row[name]) for name in ("beta", "gamma") if row[name]}
    return recipes.gtsrb(loss=row["loss"], scheme=row["scheme"], **numbers)


def of_choice(row: Row) -> recipes.Recipe:
    return recipes.ddnet("jhmdb21-1", 32, eval_every=1000, **ast.literal_eval(row["changes"]))


def of_digits(row: Row) -> recipes.Recipe:
    numbers = {name: float(row[name]) for name in ("imbalance_factor", "beta", "gamma")}
    return recipes.digits(loss=row["loss"], scheme=row["scheme"], **numbers)


def of_methods(row: Row) -> recipes.Recipe:
    """A named method takes beta and gamma of the recipe, as `longtail compare` has it."""
    recipe = recipes.default(row["dataset"]).replace(imbalance_factor=float(row["imbalance_factor"]))
    return prepare(recipe, [row["method"]])[0][0]


def of_beta(row: Row) -> recipes.Recipe:
    """As `longtail reproduce beta` makes it, on a stand-in of features and tables."""
    more = {"loss": "focal", "gamma": beta.GAMMA} if row["loss"] == "focal" else {}
    name = row["method"]
    method = (
        methods.get(name)
        if name in beta.ADJUSTED
        else methods.get("plain", **more)
        if name == "0"
        else methods.get("effective", beta=float(name), **more)
    )
    factor = float(row["imbalance_factor"]) if row["imbalance_factor"] else None
    if row["domain"] == "digits":
        return recipes.digits(imbalance_factor=factor, eval_every=100, method=method)
    if row["domain"] == "pixels":
        start = recipes.small_images(row["data"], model="small_cnn", eval_every=30, metric="balanced_error")
        return start.replace(imbalance_factor=factor, max_count=beta.LARGEST, method=method)
    if row["domain"] == "skeletons":
        start = recipes.ddnet(f"jhmdb14-{int(row['run']) % 3 + 1}", 16, metric="balanced_error")
        return start.replace(imbalance_factor=factor, epochs=120, eval_every=120, method=method)
    x, y = np.arange(40.0)[:, None] % 7, np.arange(40) % 2
    if row["domain"] == "tables":
        problem = Problem.from_table({"x": x[:, 0], "label": y}, "label", name=row["data"])
        return prepare(problem, [method], learners=row["network"], folds=5)[0][0]
    problem = Problem.from_features(x, y, test=(x, y), name=row["data"])
    if row["domain"] == "features":
        problem = dataclasses.replace(problem, tail=(factor, beta.LARGEST))
    return prepare(problem, [method], learners=row["network"])[0][0]


def test_each_row_of_beta_is_of_its_recipe() -> None:
    rows = rows_of("beta.csv")
    assert tuple(rows[0]) == columns_of("beta")
    made: dict[tuple[str, ...], recipes.Recipe] = {}
    names = ("domain", "data", "network", "imbalance_factor", "loss", "method")
    for row in rows:
        key = (*(row[name] for name in names), str(int(row["run"]) % 3))
        recipe = made.setdefault(key, of_beta(row)).replace(seed=int(row["run"]))
        assert recipe.hash.startswith(row["recipe_hash"]), row
        assert len(row["recipe_hash"]) >= 12
        assert int(row["epochs"]) == recipe.epochs
        assert row["device"]
        assert len(row["commit"]) == 40


def test_the_rule_of_the_share_lost_what_its_file_says_it_may_not() -> None:
    """`suggest_beta` suggests nothing from counts alone because of these rows."""
    regret = beta.by_domain(beta.measure_beta(rows_of("beta.csv")), "Kish share 0.6")
    assert sum(regret.values()) / len(regret) > suggest.REGRET


OWN_DATA = (
    *("table-page-blocks-lightgbm", "table-page-blocks-logistic-regression"),
    *("table-page-blocks-hist-gradient-boosting", "table-yeast-hist-gradient-boosting"),
    *("table-yeast-lightgbm", "table-yeast-logistic-regression", "table-shuttle-logistic-regression"),
    *("table-shuttle-lightgbm", "table-shuttle-lightgbm-without-l2", "table-shuttle-hist-gradient-boosting"),
    *("features-cifar10", "features-cifar10-5000", "features-gtsrb"),
)


@pytest.mark.parametrize("name", OWN_DATA)
def test_each_row_of_own_data_is_of_the_recipe_beside_it(name: str) -> None:
    shared = recipes.Recipe(**json.loads((RESULTS / name / "compare.json").read_text())["recipe"])
    rows = rows_of(f"{name}/compare.csv")
    assert rows
    for row in rows:
        recipe = shared.replace(method=methods.get(row["method"]), seed=int(row["seed"]))
        assert recipe.hash.startswith(row["recipe_hash"]), (name, row)
        assert len(row["recipe_hash"]) >= 12


@pytest.mark.parametrize(
    ("name", "rebuild"),
    [
        ("table2.csv", of_cifar),
        ("ddnet.csv", of_clips),
        ("rivals.csv", of_rivals),
        ("gtsrb.csv", of_signs),
        ("choose-ddnet.csv", of_choice),
        ("compare-digits/compare.csv", of_digits),
        ("main-job/compare.csv", of_methods),
        ("methods-digits/compare.csv", of_methods),
        ("methods-gtsrb/compare.csv", of_methods),
        ("methods-jhmdb/compare.csv", of_methods),
    ],
)
def test_each_row_is_of_its_recipe(name: str, rebuild: Callable[[Row], recipes.Recipe]) -> None:
    rows = rows_of(name)
    assert rows
    for row in rows:
        recipe = rebuild(row).replace(seed=int(row["seed"]), precision=row.get("precision", "fp32"))
        assert recipe.hash.startswith(row["recipe_hash"]), (name, row)
        assert len(row["recipe_hash"]) >= 12
        assert int(row.get("epochs", recipe.epochs)) == recipe.epochs


def test_rows_over_the_trainer_are_of_their_recipe() -> None:
    rows = rows_of("finetune-gtsrb/compare.csv")
    assert [row["seed"] for row in rows] == ["0", "1", "2"] * 2
    for row in rows:
        recipe = recipes.images(
            row["dataset"],
            "runs/signs/network",
            **{"method": methods.get(row["method"].removeprefix("softmax none") or "plain")},
            **{"seed": int(row["seed"]), "size": 32, "flip": False},
            **{"learning_rate": 0.1, "epochs": 8, "eval_every": 8},
            **{name: recipes.ImageRecipe.model_fields[name].default for name in ("mean", "std")},
        ).replace(metric="balanced_error")
        assert recipe.hash.startswith(row["recipe_hash"])


def test_every_file_of_results_is_checked() -> None:
    tables = {path.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("*.csv")}
    assert tables == {
        *("table2.csv", "ddnet.csv", "gtsrb.csv", "choose-ddnet.csv", "compare-digits/compare.csv"),
        *("main-job/compare.csv", "beta.csv", "rivals.csv"),
        *(f"methods-{data}/compare.csv" for data in ("digits", "gtsrb", "jhmdb")),
        *(f"{name}/compare.csv" for name in OWN_DATA),
        "finetune-gtsrb/compare.csv",
        "evaluation.csv",  # of no recipe: benchmarks/evaluation.py makes it from features
    }


@pytest.mark.parametrize(("name", "settings"), [("ddnet", skeletons()), ("gtsrb", signs())])
def test_every_row_is_counted_by_the_table(name: str, settings: list[Setting]) -> None:
    rows = rows_of(f"{name}.csv")
    assert tuple(rows[0]) == columns_of(name)
    measured = measure(settings, rows)
    counted = sum(len(m.values[m.setting.fields[0]]) * len(m.setting.recipes) for m in measured)
    # 21 classes were trained for 60 epochs, too, before 120 were chosen
    assert counted == sum((row.get("classes"), row["epochs"]) != ("21", "60") for row in rows)


def test_the_page_has_the_figures_of_the_campaign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RESULTS.parent / "tests" / "campaign"))
    from harness import TOLD, table

    lines = (RESULTS / "campaign.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert {row["what"] for row in rows} <= TOLD.keys()
    assert all(row["tried"] >= row["wrong"] >= len(row["examples"]) // 3 for row in rows)
    wanted = ("seed", "commit", "longtail", "python", "torch", "numpy", "platform", "device", "cores", "date")
    assert all(row.get(name) not in (None, "") for row in rows for name in wanted)
    page = (RESULTS.parent / "docs" / "what-survives.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- campaign -->")[2].partition("<!-- end -->")[0]
    assert shown.strip().splitlines() == table(rows)
    assert table([*rows, rows[0]]) != table(rows)
