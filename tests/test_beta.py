"""Beta across domains: what is drawn, what is run and kept, and what the rows say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longtail import recipes
from longtail.paper import beta
from longtail.paper.results import columns_of, read_rows

ROOT = Path(__file__).parents[1]
DIGITS = recipes.digits(imbalance_factor=100.0, epochs=2, warmup_epochs=1, eval_every=2)


def cell(epochs: int = 2) -> beta.Cell:
    return beta.Cell("digits", "digits", "small_cnn", 100.0, lambda _: (DIGITS.with_epochs(epochs), None))


def row(domain: str, loss: str, method: str, run: int, error: float, counts: str = "5000 500 50") -> dict:
    about = {"domain": domain, "data": "some", "network": "net", "imbalance_factor": "100", "folds": "0"}
    return about | {
        "loss": loss,
        "method": method,
        "run": str(run),
        "balanced_error_percent": str(error),
        "class_counts": counts,
    }


# errors of two runs by beta: 0.99 is the best, 20 %
ERRORS = {
    "0": (30, 32),
    "0.9": (30, 31),
    "0.99": (19, 21),
    "0.999": (24, 20),
    "0.9999": (40, 42),
    "1": (50, 52),
}
ROWS = [
    *(row("digits", "softmax", name, run, e) for name, both in ERRORS.items() for run, e in enumerate(both)),
    *(row("digits", "softmax", "logit_adjusted", run, e) for run, e in enumerate((18, 19))),
    *(row("pixels", "softmax", name, 0, 50.0 if name != "1" else 44.0) for name in ERRORS),
]


def test_regret_is_against_the_best_beta_in_hindsight_and_domains_count_alike() -> None:
    measured = beta.measure_beta(ROWS)
    assert [(m.key[0], m.best, m.mean(m.best)) for m in measured] == [("digits", 0.99, 20), ("pixels", 1, 44)]
    assert beta.by_domain(measured, "no weights") == {"digits": 11, "pixels": 6}
    assert beta.by_domain(measured, "β = 0.999") == {"digits": 2, "pixels": 6}
    assert beta.by_domain(measured, "Kish share 0.6") == {"digits": 0, "pixels": 6}  # it takes 0.99
    assert beta.by_domain(measured, "N = 5 x smallest class") == {"digits": 0, "pixels": 6}  # N = 250
    assert beta.by_domain(measured, "logit adjustment in the loss") == {"digits": -1.5}
    assert beta.by_domain(measured, "logit adjustment after training") == {}
    regrets, bests, settings = beta.beta_tables(measured)
    assert "| no weights | +8.50 | +11.0 | +6.0 | +11.0 |" in regrets
    assert "| logit adjustment in the loss | -1.50 | -1.5 | - | -1.5 |" in regrets
    # two runs say nothing that is sure, so every beta is as good but 0.99 itself
    assert bests.splitlines()[2].startswith(
        "| digits | softmax | 1 | 2 | 31.0 | 0.99 | 20.0 | -11.0 [-11.0, -11.0]"
    )
    assert settings.splitlines()[3] == (
        "| some | net | 100 | 50 | softmax | 1 | 50.0 | 1 | 44.0 | -6.0 | 0.99 | 6.0 | - | - |"
    )


def test_a_setting_that_lacks_a_beta_says_nothing() -> None:
    assert beta.measure_beta([r for r in ROWS if r["method"] != "0.9"]) == []


def test_a_rule_chooses_anew_for_the_counts_of_each_run() -> None:
    rows = [dict(r, class_counts="40 40") if r["run"] == "1" else r for r in ROWS[:12]]
    (one,) = beta.measure_beta(rows)
    # equal classes: every beta does nothing, so the second run has no weights
    assert one.regret_of(beta.kish) == pytest.approx((19 + 32) / 2 - 20)


def test_the_rules_of_counts() -> None:
    assert beta.kish([5000, 500, 50]) == 0.99
    assert beta.kish([100, 100]) == 0.0
    assert beta.kish([1000] + 40 * [1]) == 0.0  # of weights that do anything each leaves less
    assert [beta.five_smallest([1000, n]) for n in (1, 15, 150, 900)] == [0.9, 0.99, 0.999, 0.9999]


def test_tracks_are_drawn_whole_and_the_natural_head_stays() -> None:
    sizes = {0: 5, 1: 30, 2: 10}
    y = np.repeat([*sizes], [10 * n for n in sizes.values()])
    tracks = np.repeat([f"{c}/{t}" for c, n in sizes.items() for t in range(n)], 10)
    drawn = [beta.draw_tracks(y, tracks, None, seed) for seed in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    assert np.bincount(y[drawn[0]]).tolist() == [40, 240, 80]
    assert set(np.unique(tracks[drawn[0]], return_counts=True)[1]) == {10}
    cut = beta.draw_tracks(y, tracks, 100.0, 0)
    assert np.bincount(y[cut]).tolist() == [2, 240, 24]
    assert set(cut) <= set(drawn[0])
    assert len(np.unique(tracks[cut][y[cut] == 2])) == 3  # two whole tracks and four frames of a third


def test_frames_of_a_track_are_spread_and_few_are_all_kept() -> None:
    tracks = np.repeat(["a", "b"], [30, 3])
    rows = beta._frames(tracks)
    assert rows.tolist() == [0, 3, 6, 10, 13, 16, 19, 23, 26, 29, 30, 31, 32]
    assert np.array_equal(beta._frames(tracks[rows]), np.arange(13))  # a file that was cut so gives the same


def test_the_grid_of_each_domain() -> None:
    labels = [m.label for m in beta.methods_of("digits", ("softmax", "focal"))]
    assert len(labels) == 14
    assert "effective:beta=0.9999:loss=focal:gamma=1" in labels
    assert [beta._name(m) for m in beta.methods_of("tables", ("softmax", "focal"))] == [
        *("0", "0.9", "0.99", "0.999", "0.9999", "1", "posthoc_logit_adjusted")
    ]


def test_a_run_is_kept_and_the_same_call_goes_on(tmp_path: Path) -> None:
    results, said = tmp_path / "beta.csv", []
    options = {"losses": ("softmax",), "runs": tmp_path / "runs", "device": "cpu", "progress": said.append}
    assert beta.reproduce_beta([cell()], results, seeds=1, **options) == 0
    assert beta.reproduce_beta([cell()], results, seeds=1, **options) == 0  # nothing is missing
    assert len(said) == 1
    assert beta.reproduce_beta([cell()], results, seeds=2, **options) == 0
    rows = read_rows(results, "beta")
    assert tuple(rows[0]) == columns_of("beta")
    assert len(rows) == 2 * 8 == len({r["recipe_hash"] for r in rows})
    assert {(r["run"], r["class_counts"].split()[0], r["device"]) for r in rows} == {
        (run, "124", "cpu") for run in "01"
    }
    assert len({r["subset_sha256"] for r in rows}) == 2  # paired: one tail a run
    (one,) = beta.measure_beta(rows)
    assert one.runs == [0, 1]
    assert one.adjusted.keys() == set(beta.ADJUSTED)


def test_a_training_that_fails_is_counted_and_the_others_are_kept(tmp_path: Path) -> None:
    broken = DIGITS.replace(learning_rate=1e30)
    bad = beta.Cell("digits", "digits", "small_cnn", 50.0, lambda _: (broken, None))
    said: list[str] = []
    with pytest.raises(RuntimeError, match="all 8 runs failed"):
        beta.reproduce_beta(
            [bad],
            tmp_path / "beta.csv",
            seeds=1,
            losses=("softmax",),
            runs=tmp_path / "runs",
            device="cpu",
            progress=said.append,
        )


def test_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"examples/efficientnet_features.py cifar10 --data"):
        beta.cells(["features"], tmp_path)
    with pytest.raises(FileNotFoundError, match=r"yeast.npz is not there; put X, y and label_names"):
        beta.cells(["tables"], tmp_path)
    with pytest.raises(ValueError, match="domain 'tables' needs a folder"):
        beta.cells(["tables"], None)


def test_tables_run_whole_repetitions_of_folds(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [60, 20, 8])
    for name in beta.TABLES:
        x = random.normal(size=(88, 3)).astype(np.float32) + y[:, None]
        np.savez(tmp_path / f"{name}.npz", X=x, y=y, label_names=np.array(["a", "b", "c"]))
    chosen = [c for c in beta.cells(["tables"], tmp_path) if c.slug == "yeast-logistic_regression"]
    results = tmp_path / "beta.csv"
    assert beta.reproduce_beta(chosen, results, seeds=3, runs=tmp_path / "runs") == 0
    rows = read_rows(results, "beta")
    assert {r["run"] for r in rows} == set("01234")
    assert {r["class_counts"] for r in rows} == {"48 16 6"}  # of four folds of five
    assert {r["folds"] for r in rows} == {"5"}


def test_features_are_cut_from_the_first_of_each_class(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    y = np.tile(np.arange(10), 1300)
    x = random.normal(size=(len(y), 4)).astype(np.float16)
    np.savez(tmp_path / "cifar10-features.npz", X=x, y=y, X_test=x[:50], y_test=y[:50])
    found = beta.cells(["features"], tmp_path, [200])
    assert [c.slug for c in found] == ["cifar10-features-linear-200", "cifar10-features-mlp-200"]
    problem, _ = found[0].make(0)
    assert problem.class_counts.tolist() == [1250] * 10
    assert np.array_equal(problem.inputs, x[:12_500])
