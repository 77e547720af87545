"""The paper's figures: of its own grids, of runs and of counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import longtail
from longtail import recipes
from longtail.compare import ComparisonTable, Outcome, compare
from longtail.evaluation import evaluate
from longtail.paper import figures
from longtail.paper.settings import MeasuredSetting, cifar, measure, of_run
from longtail.report.figures import save


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ComparisonTable:
    """Real runs: one loss, two weightings, two seeds."""
    recipe = recipes.digits(epochs=2, warmup_epochs=1, eval_every=2)
    out = tmp_path_factory.mktemp("runs")
    return compare(
        recipe, losses=["softmax"], schemes=["none", "effective"], seeds=2, out=out, jobs=1, device="cpu"
    )


def made(recipe: recipes.Recipe, error: float) -> Outcome:
    """A run with a chosen error in each of two classes."""
    targets = np.arange(1000) % 2
    wrong = np.arange(1000) < round(1000 * error)
    evaluation = evaluate(np.where(wrong, 1 - targets, targets), targets, [200, 5])
    return Outcome(recipe, evaluation, 1.0, None, Path("nowhere"))


def texts_of(figure: object) -> list[str]:
    from matplotlib.text import Text

    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]  # type: ignore[attr-defined]


def test_the_grid_shows_published_measured_and_not_run() -> None:
    grid = cifar("fig10", imbalances=[100, 50])
    recipes_run = [grid[0].recipe.replace(seed=seed) for seed in (0, 1)]
    rows = [
        {"recipe_hash": r.short_hash, "precision": "fp32", "seed": str(r.seed), "error_percent": error}
        for r, error in zip(recipes_run, ("60.00", "62.00"), strict=True)
    ]
    compared = measure(grid, rows)
    texts = texts_of(figures.draw_grid(compared))
    assert texts.count("61.7") >= 1  # published, softmax at imbalance 100
    assert texts.count("61.0") >= 1  # measured, the mean
    assert texts.count("not run") == len(grid) - 1
    with pytest.raises(ValueError, match="2 data sets"):
        figures.draw_grid(measure(cifar("table2"), []))


def test_error_against_beta_holds_every_published_number() -> None:
    compared = measure(cifar("fig10", imbalances=[100], losses=["softmax"]), [])
    figure = figures.draw_error_against_beta(compared)
    drawn = {round(float(y), 2) for line in figure.axes[0].get_lines() for y in line.get_ydata()}
    assert drawn >= {61.68, 66.01}
    with pytest.raises(ValueError, match="no cell was published or measured"):
        figures.draw_error_against_beta([MeasuredSetting(of_run(recipes.digits(beta=0.9)), {})])


def test_effective_numbers_and_the_term_are_the_librarys() -> None:
    counts = [5000, 500, 50]
    lines = figures.draw_effective_numbers(counts).axes[0].get_lines()
    np.testing.assert_array_equal(lines[2].get_ydata(), longtail.effective_number(counts, 0.999))
    term = figures.draw_weight_term(betas=[0.9]).axes[0].get_lines()[0]
    np.testing.assert_allclose(term.get_ydata(), 1 / longtail.effective_number(term.get_xdata(), 0.9))


def test_runs_and_counts_draw_every_figure_that_applies(trained: ComparisonTable, tmp_path: Path) -> None:
    names = [name for name, _ in figures.draw_runs(trained, figures.NUMBERS)]
    assert names == ["figure1", "figure3", "figure4", "figure6", "figure5", "figure7", "figures8-10-digits"]
    assert [name for name, _ in figures.draw_counts([9, 3, 0], figures.NUMBERS, "x")] == [
        "figure1",
        "figure3",
        "figure4",
        "figure6",
    ]
    drawn = dict(figures.draw_papers(measure(cifar("fig9"), []), figures.NUMBERS))
    assert list(drawn) == ["figure3", "figure4-cifar20", "figure5", "figure6-cifar20", "figure9-cifar20"]
    # nothing published, nothing measured: what needs a number is left out
    empty = measure(cifar("fig8", losses=["softmax"], betas=[0.9]), [])
    assert [name for name, _ in figures.draw_papers(empty, [4, 5, 8])] == ["figure4-cifar10"]
    again = dict(figures.draw_papers(measure(cifar("fig9"), []), [4]))
    first, second = (
        save(source["figure4-cifar20"], tmp_path / name, ["svg", "png"])
        for name, source in (("a", drawn), ("b", again))
    )
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_published_numbers_stand_beside_runs_of_the_papers_recipe_only() -> None:
    paper = recipes.paper_cifar("cifar10", 100.0, "softmax", scheme="none", beta=0.0)
    (alike,) = figures.measured_runs([made(paper, 0.3), made(paper.replace(seed=1), 0.28)])
    assert alike.published() == 29.64
    summary = alike.summary()
    assert summary is not None
    assert summary.n == 2
    (other,) = figures.measured_runs([made(paper.replace(weight_decay=5e-4), 0.3)])
    assert other.published() is None
