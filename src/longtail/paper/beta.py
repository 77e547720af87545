"""longtail reproduce beta: how beta should be chosen, over six domains. Design first, rows after it.

Committed before the first row was computed; nothing below was changed by what came out. Known before: an
earlier run of this study, whose rows were lost, found the Kish rule 6.57 points worse than the best beta and
logit adjustment 2.0 points better; and one seed of four digits trainings was looked at, to time them.

**Question.** Cui et al. (CVPR 2019, Figure 8) show one grid, without seeds, on one data set. Which beta is
best elsewhere, does a rule from class counts alone find it, and is it worth looking for beside logit
adjustment?

**Grid.** No weights, beta 0.9, 0.99, 0.999, 0.9999, and 1 (inverse frequency), with softmax and with the
paper's focal loss at gamma 1, its middle. Beside the softmax grid stands logit adjustment with tau 1, in the
loss and after training (Menon et al., ICLR 2021). Learners of tables have neither a focal loss nor an offset
in the loss: they get softmax and the adjustment after training.

**Domains**, and their settings (each imbalance and network is one):

- digits: 8x8 digits, a small CNN; imbalance 10, 50, 100 (the largest class has 124 samples).
- features: CIFAR-10 as EfficientNet-Lite0 (ImageNet) sees it, a linear head and one hidden layer; imbalance
  10, 50, 100, 200; 1,000 samples in the largest class, drawn from the first 1,250 of each class.
- pixels: CIFAR-10 at 16x16 pixels, a small CNN from scratch; imbalance 10 and 100, 1,000 samples in the
  largest class.
- signs: GTSRB by track, the same features and heads; 10 frames of a track. A run trains on four fifths of the
  tracks of each class: as they are (about 11), and cut to imbalance 50 and 100 by whole tracks. The test is
  the official one, other tracks.
- skeletons: JHMDB of 14 classes, DD-Net with 16 filters; imbalance 10; a run is one of the three splits.
- tables: yeast, page-blocks and shuttle as they are, logistic regression and boosted trees, five folds.

A run is a seed (subset, first weights, order) or a fold, the same for all methods: all differences are
paired. At least 10 runs where they are cheap. No setting of any training was chosen on these data after the
first row; recipes are the library's defaults. The error is the balanced error on the test part.

**Measures.** The regret of a choice in a setting is its mean error less that of the best beta of the grid for
that setting, network and loss, in points: the best in hindsight. A domain's regret is the mean over its
settings, the regret of a rule the mean over the domains: six equal voices. Logit adjustment is set against
the best beta of the softmax grid; where it is better, its number is negative.

**Rules that are tried.** Every fixed beta. The house's rule as it stands in `longtail.suggest` (Kish): the
largest of the paper's four beta whose weighted sample keeps an effective share of at least 0.6, or no
weights where that beta does nothing. The older advice of the documentation: the beta of the grid whose
N = 1 / (1 - beta) is nearest, in ratio, to five times the smallest class.

**What disproves them.** A mean regret above 1 point demotes the Kish rule to a warning: `suggest_beta` then
suggests nothing from counts alone. A fixed beta may be called a default if its mean regret is at most 1
point. "Logit adjustment instead of a search for beta" stands unless its mean over the domains is above 0.
The rule for the conclusion is applied to whatever domains have rows; a domain without any is named.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from longtail import class_weights, datasets, recipes
from longtail.compare import Outcome, Problem, compare
from longtail.datasets import Dataset, Split
from longtail.evaluation import PairedDifference, bonferroni, interval_text, paired_difference
from longtail.extend import choice, integer
from longtail.methods import Method, get
from longtail.paper.results import add_rows, read_rows
from longtail.report import tables
from longtail.suggest import BETAS as SUGGESTED
from longtail.suggest import SHARE, effective_share
from longtail.training.recipes import Recipe

Integers = npt.NDArray[np.int64]
Key = tuple[str, str, str, str]  # domain, data, network, imbalance

Made = tuple[Recipe | Problem, Dataset | None]

BETAS: Final = (0.0, 0.9, 0.99, 0.999, 0.9999, 1.0)
GAMMA: Final = 1.0
DOMAINS: Final = ("digits", "features", "pixels", "signs", "skeletons", "tables")
ADJUSTED: Final = {"logit_adjusted": "in the loss", "posthoc_logit_adjusted": "after training"}
TABLES: Final = ("yeast", "page-blocks", "shuttle")
LARGEST, POOL = 1000, 1250  # of CIFAR-10: samples of the largest class, and of each class to draw from
FRAMES, TRACKS = 10, 0.8  # of signs: of a track, and the share of a class's tracks that train
SIMULTANEOUS: Final = bonferroni(0.95, len(BETAS) - 1)


@dataclass(frozen=True)
class Cell:
    """One setting: what is trained for each run.

    Attributes:
        domain: one of `DOMAINS`.
        data: what recipes call the data.
        network: as recipes name it.
        imbalance: largest over smallest class; None as the data are.
        make: returns problem or recipe, and the data set where the library has none, of a run.
    """

    domain: str
    data: str
    network: str
    imbalance: float | None
    make: Callable[[int], Made]

    @property
    def slug(self) -> str:
        """For folders."""
        factor = "" if self.imbalance is None else f"-{self.imbalance:g}"
        return f"{self.data}-{self.network}{factor}"


# ---- what is run


def methods_of(domain: str, losses: Sequence[str]) -> list[Method]:
    """Return the grid of a domain."""
    chosen = []
    for loss in losses:
        if loss == "focal" and domain == "tables":
            continue
        more = {"loss": "focal", "gamma": GAMMA} if loss == "focal" else {}
        chosen += [get("plain", **more), *(get("effective", beta=beta, **more) for beta in BETAS[1:])]
        if loss == "softmax":
            chosen += [get(name) for name in ADJUSTED if domain != "tables" or name != "logit_adjusted"]
    return chosen


def cells(domains: Sequence[str], root: Path | None, imbalances: Sequence[int] | None = None) -> list[Cell]:
    """Return the settings of some domains.

    Args:
        domains: of `DOMAINS`.
        root: the folder with the data; digits need none.
        imbalances: to take only some.

    Raises:
        ValueError: no such domain, or one that needs a folder.
        FileNotFoundError: its data are not there.
    """
    makers: dict[str, Callable[[Path], Iterator[Cell]]] = {
        "digits": _digits,
        "features": _features,
        "pixels": _pixels,
        "signs": _signs,
        "skeletons": _skeletons,
        "tables": _tables,
    }
    found = []
    for domain in domains:
        choice("domain", domain, DOMAINS)
        if root is None and domain != "digits":
            raise ValueError(
                f"domain {domain!r} needs a folder with its data; give --data, or --domain digits alone"
            )
        found += list(makers[domain](root or Path()))
    if imbalances is not None:
        found = [cell for cell in found if cell.imbalance in imbalances]
    return found


def reproduce_beta(
    chosen: Sequence[Cell],
    results: Path,
    *,
    seeds: int = 10,
    losses: Sequence[str] = ("softmax", "focal"),
    runs: Path = Path("runs") / "reproduce-beta",
    jobs: int = 1,
    device: str = "auto",
    progress: Callable[[str], None] | None = None,
) -> int:
    """Run what the results file lacks, one run of every setting before any second; a row a method and run.

    Args:
        chosen: from `cells`.
        results: the CSV file.
        seeds: runs of each setting; of tables, whole repetitions of five folds.
        losses: "softmax", "focal".
        runs: folder for the run folders.
        jobs: runs at a time.
        device: "auto" | "cpu" | "cuda".
        progress: called with a line as each run of a setting ends.

    Returns:
        How many trainings failed.

    Raises:
        ValueError: a results file of another layout, or `seeds` below 1.
    """
    integer("seeds", seeds, low=1)
    failed = 0
    for seed in range(seeds):
        for cell in chosen:
            chosen_methods = methods_of(cell.domain, losses)
            if not chosen_methods or (cell.domain == "tables" and seed % 5):
                continue
            there = _there(read_rows(results, "beta"), cell)
            wanted = range(seed, seed + 5) if cell.domain == "tables" else (seed,)
            if all((_name(m), m.loss, str(run)) in there for m in chosen_methods for run in wanted):
                continue
            made, data = cell.make(seed)
            options: dict[str, Any] = {"seeds": [seed], "dataset": data, "device": device}
            if isinstance(made, Problem):
                options |= {"learners": [cell.network]}
            if cell.domain == "tables":
                options = {"learners": [cell.network], "folds": 5, "repeats": seed // 5 + 1}
            found = compare(made, chosen_methods, out=runs / cell.slug, jobs=jobs, **options)
            failed += len(found.failures)
            outcomes = [o for row in found.rows for o in row.outcomes]
            add_rows(results, "beta", [_row(cell, o, seed) for o in outcomes])
            if progress is not None:
                progress(f"{cell.slug} run {seed}: {len(outcomes)} trainings, {len(found.failures)} failed")
                for failure in found.failures[:1]:
                    progress(f"  {failure.failure}")
    return failed


def _name(method: Method) -> str:
    """The method as the rows name it: its beta, or the adjustment's name."""
    if method.weight.name == "effective":
        return f"{dict(method.weight.settings)['beta']:g}"
    return "0" if (method.name or "plain").partition(":")[0] == "plain" else method.name.partition(":")[0]


def _there(rows: Sequence[Mapping[str, str]], cell: Cell) -> set[tuple[str, str, str]]:
    key = (cell.domain, cell.data, cell.network, _factor(cell))
    return {(row["method"], row["loss"], row["run"]) for row in rows if _key(row) == key}


def _factor(cell: Cell) -> str:
    return "" if cell.imbalance is None else f"{cell.imbalance:g}"


def _key(row: Mapping[str, str]) -> Key:
    return row["domain"], row["data"], row["network"], row["imbalance_factor"]


def _row(cell: Cell, outcome: Outcome, seed: int) -> dict[str, object]:
    found = outcome.result
    folds = outcome.recipe.folds
    counts: Sequence[int] = found.class_counts
    if folds:  # an evaluation of a fold knows the whole table
        counts = [round(n * (1 - 1 / folds)) for n in counts]
    return {
        "domain": cell.domain,
        "data": cell.data,
        "network": cell.network,
        "imbalance_factor": _factor(cell),
        "loss": outcome.recipe.loss,
        "method": _name(outcome.recipe.method),
        "run": outcome.recipe.seed if folds else seed,
        "folds": folds,
        "balanced_error_percent": f"{100 * found.balanced_error:.3f}",
        "error_percent": f"{100 * found.error:.3f}",
        "class_counts": " ".join(str(n) for n in counts),
        "recipe_hash": outcome.recipe.short_hash,
        "epochs": outcome.recipe.epochs,
        "seconds": f"{outcome.seconds:.2f}",
        **outcome.origin,
    }


# ---- the domains


def _always(made: Recipe | Problem, data: Dataset | None = None) -> Callable[[int], Made]:
    return lambda _: (made, data)


def _digits(_: Path) -> Iterator[Cell]:
    for factor in (10.0, 50.0, 100.0):
        recipe = recipes.digits(imbalance_factor=factor, eval_every=100)
        yield Cell("digits", "digits", recipe.model, factor, _always(recipe))


def _features(root: Path) -> Iterator[Cell]:
    x, y, x_test, y_test = _arrays(root, "cifar10", ("X", "y", "X_test", "y_test"))
    pool = np.sort(np.concatenate([np.flatnonzero(y == label)[:POOL] for label in np.unique(y)]))
    problem = Problem.from_features(x[pool], y[pool], test=(x_test, y_test), name="cifar10-features")
    for network in ("linear", "mlp"):
        for factor in (10.0, 50.0, 100.0, 200.0):
            cut = problem.long_tailed(factor, LARGEST)
            yield Cell("features", problem.name, network, factor, _always(cut))


def _pixels(root: Path) -> Iterator[Cell]:
    whole = datasets.cifar10(root)
    parts = []
    for part in (whole.train, whole.test):
        small = part.inputs.reshape(-1, 3, 16, 2, 16, 2).mean((3, 5)).round().astype(np.uint8)
        parts.append(Split(small, part.targets))
    data = Dataset("cifar10-16px", parts[0], parts[1], whole.class_names, kind="images")
    for factor in (10.0, 100.0):
        recipe = recipes.small_images(
            data.name,
            model="small_cnn",
            imbalance_factor=factor,
            max_count=LARGEST,
            eval_every=30,
            metric="balanced_error",
        )
        yield Cell("pixels", data.name, recipe.model, factor, _always(recipe, data))


def _signs(root: Path) -> Iterator[Cell]:
    names = ("X", "y", "groups", "X_test", "y_test", "groups_test")
    x, y, tracks, x_test, y_test, test_tracks = _arrays(root, "gtsrb", names)
    tested = _frames(test_tracks)
    test = (x_test[tested], y_test[tested])
    rows = _frames(tracks)

    def made(factor: float | None, seed: int) -> Made:
        name = "gtsrb-tracks" if factor is None else f"gtsrb-tracks-{factor:g}"
        kept = rows[draw_tracks(y[rows], tracks[rows], factor, seed)]
        return Problem.from_features(x[kept], y[kept], test=test, name=name), None

    for network in ("linear", "mlp"):
        for factor in (None, 50.0, 100.0):
            name = "gtsrb-tracks" if factor is None else f"gtsrb-tracks-{factor:g}"
            yield Cell("signs", name, network, factor, partial(made, factor))


def draw_tracks(
    y: npt.ArrayLike, tracks: npt.ArrayLike, imbalance: float | None, seed: int
) -> npt.NDArray[np.int64]:
    """Return the places of the samples that train: whole tracks, the last one of a class cut.

    Args:
        y: classes, integers of shape (N,).
        tracks: one a sample.
        imbalance: of an exponential profile, largest over smallest class; a class that has fewer keeps what
            it has. None takes four fifths of each class's tracks.
        seed: which tracks.
    """
    labels, names = np.asarray(y), np.asarray(tracks)
    random = np.random.default_rng([seed, 23])
    classes, sizes = np.unique(labels, return_counts=True)
    order = classes[np.argsort(-sizes, kind="stable")]  # the natural head stays the head
    drawn = {}
    for label in classes:
        own = random.permutation(np.unique(names[labels == label]))
        own = own[: max(1, round(TRACKS * len(own)))]
        drawn[label] = np.concatenate([np.flatnonzero((names == track) & (labels == label)) for track in own])
    if imbalance is not None:
        largest = len(drawn[order[0]])
        for place, label in enumerate(order):
            wanted = largest * imbalance ** (-place / max(1, len(order) - 1))
            drawn[label] = drawn[label][: max(1, round(wanted))]
    return np.sort(np.concatenate([drawn[label] for label in classes]))


def _frames(tracks: npt.NDArray[Any]) -> Integers:
    """Return the rows of `FRAMES` frames of every track, spread over it."""
    kept = []
    for track in np.unique(tracks):
        rows = np.flatnonzero(tracks == track)
        kept.append(
            rows[np.unique(np.linspace(0, len(rows) - 1, min(FRAMES, len(rows))).round().astype(int))]
        )
    return np.sort(np.concatenate(kept)).astype(np.int64)


def _skeletons(root: Path) -> Iterator[Cell]:
    loaded: dict[str, Dataset] = {}

    def made(seed: int) -> Made:
        name = f"jhmdb14-{seed % 3 + 1}"
        if name not in loaded:
            loaded[name] = datasets.load(name, root)
        recipe = recipes.default(name).replace(
            model="ddnet16", imbalance_factor=10.0, epochs=120, eval_every=120, metric="balanced_error"
        )
        return recipe, loaded[name]

    yield Cell("skeletons", "jhmdb14", "ddnet16", 10.0, made)


def _tables(root: Path) -> Iterator[Cell]:
    for name in TABLES:
        path = root / f"{name}.npz"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there; put X, y and label_names of that table into it")
        with np.load(path, allow_pickle=False) as file:
            x, y, names = file["X"], file["y"], file["label_names"]
        columns = {f"x{i}": x[:, i] for i in range(x.shape[1])}
        keep = list(columns)
        table = {**columns, "label": np.char.add("class ", names.astype(str))[y]}
        problem = Problem.from_table(table, "label", keep=keep, name=name)
        for network in ("logistic_regression", "hist_gradient_boosting"):
            yield Cell("tables", name, network, None, _always(problem))


def _arrays(root: Path, name: str, fields: Sequence[str]) -> list[npt.NDArray[Any]]:
    path = root / f"{name}-features.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there; make it: python examples/efficientnet_features.py {name} --data {root} "
            f"-o {path}"
        )
    with np.load(path, allow_pickle=False) as file:
        return [file[field] for field in fields]


# ---- what it says


@dataclass(frozen=True)
class Measured:
    """One setting with one loss.

    Attributes:
        key: domain, data, network, imbalance factor ("" as the data are).
        loss: "softmax" | "focal".
        errors: of each beta, 0 being no weights, balanced errors in points by run.
        adjusted: the same of logit adjustment, by its name; of softmax alone.
        counts: training samples of the classes by run.
        folds: 0 where runs are seeds.
    """

    key: Key
    loss: str
    errors: Mapping[float, Mapping[int, float]]
    adjusted: Mapping[str, Mapping[int, float]]
    counts: Mapping[int, tuple[int, ...]]
    folds: int

    @property
    def runs(self) -> list[int]:
        """Those that every beta has."""
        return sorted(set.intersection(*(set(found) for found in self.errors.values())))

    def mean(self, beta: float) -> float:
        """Mean error of a beta, in points."""
        return float(np.mean([self.errors[beta][run] for run in self.runs]))

    @property
    def best(self) -> float:
        """The beta with the lowest mean error, in hindsight; the smallest of equal ones."""
        return min(BETAS, key=lambda beta: (self.mean(beta), beta))

    def regret(self, beta: float) -> float:
        """Points that a beta loses to the best."""
        return self.mean(beta) - self.mean(self.best)

    def regret_of(self, rule: Callable[[Sequence[int]], float]) -> float:
        """Points that a rule of counts loses to the best, its choice made anew for each run."""
        found = [self.errors[rule(self.counts[run])][run] for run in self.runs]
        return float(np.mean(found)) - self.mean(self.best)

    def over_best(self, name: str) -> float | None:
        """Points of an adjustment over the best beta; negative where it is better; None where not run."""
        found = self.adjusted.get(name, {})
        runs = [run for run in self.runs if run in found]
        if not runs:
            return None
        return float(np.mean([found[run] - self.errors[self.best][run] for run in runs]))

    def versus(self, beta: float, other: float, confidence: float) -> PairedDifference:
        """Paired difference of two betas, in points."""
        first, second = ([self.errors[b][run] for run in self.runs] for b in (beta, other))
        share = 1 / (self.folds - 1) if self.folds else 0.0
        return paired_difference(first, second, confidence, test_to_train=share)


def measure_beta(rows: Sequence[Mapping[str, str]]) -> list[Measured]:
    """Set the rows of results/beta.csv together; a setting that lacks a beta is left out."""
    groups: dict[tuple[Key, str], list[Mapping[str, str]]] = {}
    for row in rows:
        groups.setdefault((_key(row), row["loss"]), []).append(row)
    found = []
    for (key, loss), mine in groups.items():
        errors: dict[float, dict[int, float]] = {beta: {} for beta in BETAS}
        adjusted: dict[str, dict[int, float]] = {}
        for row in mine:
            run, error = int(row["run"]), float(row["balanced_error_percent"])
            if row["method"] in ADJUSTED:
                adjusted.setdefault(row["method"], {})[run] = error
            else:
                errors[float(row["method"])][run] = error
        counts = {int(row["run"]): tuple(map(int, row["class_counts"].split())) for row in mine}
        one = Measured(key, loss, errors, adjusted, counts, int(mine[0]["folds"]))
        if one.runs:
            found.append(one)
    order = {domain: i for i, domain in enumerate(DOMAINS)}
    return sorted(found, key=lambda m: (order[m.key[0]], m.loss != "softmax"))


def kish(counts: Sequence[int]) -> float:
    """Return the beta that the house's rule takes, 0 for no weights: as it stood when this was designed."""
    n = np.asarray(counts, dtype=np.float64)
    kept = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a beta does nothing
        for beta in sorted(SUGGESTED):
            w = class_weights(n, "effective", beta=beta)
            if effective_share(n, w) >= SHARE:
                kept = beta if w[n > 0].max() / w[n > 0].min() >= 1.01 else 0.0
    return kept


def five_smallest(counts: Sequence[int]) -> float:
    """Return the beta of the grid whose N is nearest, in ratio, to five times the smallest class."""
    wanted = 5 * min(n for n in counts if n > 0)
    return min(SUGGESTED, key=lambda beta: (abs(np.log((1 - beta) * wanted)), beta))


def _fixed(beta: float) -> Callable[[Measured], float | None]:
    return lambda m: m.regret(beta)


def _adjusted(name: str) -> Callable[[Measured], float | None]:
    return lambda m: m.over_best(name)


RULES: Final[dict[str, Callable[[Measured], float | None]]] = {
    "no weights": _fixed(0.0),
    **{f"β = {beta:g}": _fixed(beta) for beta in BETAS[1:]},
    "Kish share 0.6": lambda m: m.regret_of(kish),
    "N = 5 x smallest class": lambda m: m.regret_of(five_smallest),
    **{f"logit adjustment {where}": _adjusted(name) for name, where in ADJUSTED.items()},
}


def by_domain(measured: Sequence[Measured], rule: str) -> dict[str, float]:
    """Return a rule's mean points over the best beta in each domain where it can be used."""
    found: dict[str, list[float]] = {}
    for one in measured:
        points = RULES[rule](one)
        if points is not None:
            found.setdefault(one.key[0], []).append(points)
    return {domain: float(np.mean(points)) for domain, points in found.items()}


def beta_tables(measured: Sequence[Measured]) -> tuple[str, str, str]:
    """Return the page's tables in Markdown: regret of every rule, best beta of a domain, every setting.

    Args:
        measured: from `measure_beta`.
    """
    domains = [d for d in DOMAINS if any(m.key[0] == d for m in measured)]
    return _regrets(measured, domains), _bests(measured, domains), _settings(measured)


def _regrets(measured: Sequence[Measured], domains: Sequence[str]) -> str:
    lines = []
    for rule, points in RULES.items():
        each = by_domain(measured, rule)
        if not each:
            continue
        worst = max(p for one in measured if (p := points(one)) is not None)
        cells = [f"{each[d]:+.1f}" if d in each else "-" for d in domains]
        lines.append((rule, f"{np.mean(list(each.values())):+.2f}", *cells, f"{worst:+.1f}"))
    return _markdown(("choice", "mean", *domains, "worst setting"), lines)


def _bests(measured: Sequence[Measured], domains: Sequence[str]) -> str:
    lines = []
    for domain in domains:
        for loss in ("softmax", "focal"):
            mine = [m for m in measured if m.key[0] == domain and m.loss == loss]
            if not mine:
                continue
            mean = {beta: float(np.mean([m.mean(beta) for m in mine])) for beta in BETAS}
            best = min(BETAS, key=lambda beta: (mean[beta], beta))
            gain, alike = _against(mine, best, 0.0), []
            for beta in BETAS:
                difference = _against(mine, beta, best)
                surely_worse = difference.significant and difference.mean > 0
                if beta != best and difference.low is not None and not surely_worse:
                    alike.append(_beta(beta))
            told = "-" if best == 0 else _interval(gain)
            lines.append(
                (
                    *(domain, loss, str(len(mine)), _runs(mine), f"{mean[0.0]:.1f}"),
                    *(_beta(best), f"{mean[best]:.1f}", told, ", ".join(alike) or "-"),
                )
            )
    head = ("domain", "loss", "settings", "runs", "no weights, %", "best β", "%", "gain [95 %]", "as good")
    return _markdown(head, lines)


def _against(mine: Sequence[Measured], beta: float, other: float) -> PairedDifference:
    """Paired difference of two betas by run, each run the mean over the settings that have it in common."""
    runs = sorted(set.intersection(*(set(m.runs) for m in mine)))
    first, second = (
        [float(np.mean([m.errors[b][run] for m in mine])) for run in runs] for b in (beta, other)
    )
    folds = mine[0].folds
    return paired_difference(first, second, SIMULTANEOUS, test_to_train=1 / (folds - 1) if folds else 0.0)


def _settings(measured: Sequence[Measured]) -> str:
    lines = []
    for m in measured:
        _, data, network, factor = m.key
        gain = "-" if m.best == 0 else _interval(m.versus(m.best, 0.0, SIMULTANEOUS))
        adjusted = [m.over_best(name) for name in ADJUSTED]
        smallest = min(n for n in m.counts[m.runs[0]] if n > 0)
        lines.append(
            (
                *(data, network, factor or "as it is", str(smallest), m.loss, str(len(m.runs))),
                *(f"{m.mean(0.0):.1f}", _beta(m.best), f"{m.mean(m.best):.1f}", gain),
                *(_beta(kish(m.counts[m.runs[0]])), f"{m.regret_of(kish):.1f}"),
                *("-" if points is None else f"{points:+.1f}" for points in adjusted),
            )
        )
    head = (
        *("data", "network", "imbalance", "smallest class", "loss", "runs", "no weights, %", "best β", "%"),
        *("gain [95 %]", "Kish takes", "its regret", "adjusted in the loss", "adjusted after"),
    )
    return _markdown(head, lines)


def _runs(mine: Sequence[Measured]) -> str:
    sizes = sorted({len(m.runs) for m in mine})
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"


def _beta(beta: float) -> str:
    return "none" if beta == 0 else f"{beta:g}"


def _interval(d: PairedDifference) -> str:
    return interval_text(d, scale=1)


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [[tables.Cell(text) for text in line] for line in lines]
    return tables.Sheet(head, rows).markdown().rstrip("\n")
