"""The settings of the papers' tables with their published figures, and what was measured beside them.

Errors are those of Cui et al. (CVPR 2019), accuracies on skeletons those of Yang et al. (DD-Net, 2019); the
grid on traffic signs is the house's own.
"""

from __future__ import annotations

import csv
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any, TypeVar

from longtail import recipes
from longtail.evaluation import PairedDifference, Summary, paired_difference, summarize
from longtail.extend import choice
from longtail.methods import CATALOGUE, Method
from longtail.paper.recipes import LARGE, paper_cifar, paper_large
from longtail.training.recipes import RESNETS, Recipe

T = TypeVar("T", str, int, float)

TABLES = {
    "table2": ("cifar10", "cifar100"),
    "fig8": ("cifar10",),
    "fig9": ("cifar20",),
    "fig10": ("cifar100",),
}
IMBALANCES = (100, 50, 200, 20, 10, 1)
LOSSES = ("softmax", "sigmoid", "focal")
BETAS = (0.0, 0.9999, 0.999, 0.99, 0.9)
GAMMAS = (1.0, 2.0, 0.5)

SPLITS = (1, 2, 3)
FILTERS = (64, 32, 16)
SKELETON_LOSSES = ("softmax", "focal")
SKELETON_BETAS = (0.0, 1.0, 0.9, 0.99, 0.5)
TAIL_CLASSES, TAIL_FILTERS, TAIL_FACTOR = 14, 16, 10
# Table 3 of Yang et al. (2019): mean of the three splits of 21 classes, whole training sets, by filters
ACCURACIES = {64: 77.2, 32: 73.7}

# of the paper's four; with 90 images or more in every class, 0.9 (N = 10) leaves all weights equal
SIGN_BETAS = (0.99, 0.999, 0.9999)
SIGN_GAMMA = 0.5  # the paper's for natural long tails

SIZES = (224, 320)
_SHORT = {"inat2017": "inaturalist2017", "inat2018": "inaturalist2018", "imagenet": "ilsvrc2012"}

# errors on CIFAR-10 and CIFAR-100 at imbalance 100, ResNet-32, as the papers and their re-runs list them
RIVALS: dict[str, tuple[float, float]] = {
    "plain": (29.64, 61.68),  # Cui et al. (CVPR 2019), Table 2
    "deferred_effective": (24.57, 61.94),  # a re-run, with focal in place of softmax
    "ldam_drw": (22.97, 57.96),  # Cao et al. (NeurIPS 2019)
    "balanced_softmax": (22.46, 57.01),  # a re-run
    "posthoc_logit_adjusted": (21.36, 55.65),  # a re-run: post-hoc re-scaling of cross-entropy
    "logit_adjusted": (19.08, 56.11),  # Menon et al. (ICLR 2021), the best variant of each
    "mislas": (17.5, 53.0),  # Zhong et al. (CVPR 2021)
}
RIVAL_BETA = 0.9999  # on CIFAR, as Cao et al. have it

_FIELDS = {
    "ddnet": ("accuracy",),
    "gtsrb": ("error", "balanced_error"),
    "table3": ("top1_error", "top5_error"),
}


@dataclass(frozen=True)
class Setting:
    """One row of a table, to be run over seeds.

    Attributes:
        table: "table2" | "fig8" | "fig9" | "fig10" | "table3" | "ddnet" | "gtsrb" | "rivals".
        recipes: what is trained, with seed 0; of several, DD-Net's splits, a seed counts by their mean.
        published: in percent, by the name of what is measured, such as "error"; empty where nothing is.
        plain: the same without weights, over which a gain is measured; empty where that has no meaning.
    """

    table: str
    recipes: tuple[Recipe, ...]
    published: Mapping[str, float] = field(default_factory=dict, hash=False)
    plain: tuple[Recipe, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The recipe, or that of the first split."""
        return self.recipes[0]

    @property
    def dataset(self) -> str:
        """The data set, without its split where all splits are meant."""
        name = self.recipe.dataset
        return name if len(self.recipes) == 1 else name.partition("-")[0]

    @property
    def imbalance_factor(self) -> int:
        """Largest over smallest class; 1 for a training set as it is."""
        return round(self.recipe.imbalance_factor or 1)

    @property
    def gamma(self) -> float | None:
        """Of the focal loss; None for the others."""
        return self.recipe.gamma if "focal" in self.recipe.loss else None

    @property
    def method(self) -> str:
        """The loss, with its gamma where it has one; of the rivals, the method's name."""
        if self.table == "rivals":
            return self.recipe.method.name or "plain"
        return self.recipe.loss + ("" if self.gamma is None else f" γ={self.gamma:g}")

    @property
    def beta(self) -> float:
        """Of the effective number; 0 for the plain loss."""
        return self.recipe.beta if self.recipe.scheme == "effective" else 0.0

    @property
    def weights(self) -> str:
        """The weighting, as tables name it; at beta 1 the effective number is the count."""
        if self.recipe.scheme == "none":
            return "none"
        return "inverse" if self.recipe.scheme == "inverse" or self.beta == 1.0 else f"beta {self.beta:g}"

    @property
    def fields(self) -> tuple[str, ...]:
        """What is measured of it."""
        return _FIELDS.get(self.table, ("error",))

    def with_epochs(self, epochs: int | None) -> Setting:
        """Return the setting trained for fewer epochs, for a trial; None changes nothing.

        Raises:
            ValueError: no room for the schedule.
        """
        if epochs is None:
            return self
        return self._each(lambda recipe: recipe.with_epochs(epochs))

    def replace(self, **changes: object) -> Setting:
        """Return the setting with some fields of its recipes changed.

        Raises:
            ValueError: as the recipe.
        """
        return self._each(lambda recipe: recipe.replace(**changes))

    def _each(self, change: Callable[[Recipe], Recipe]) -> Setting:
        recipes, plain = (tuple(map(change, each)) for each in (self.recipes, self.plain))
        return replace(self, recipes=recipes, plain=plain)

    def __str__(self) -> str:
        recipe = self.recipe
        if self.table == "rivals":
            return f"{self.dataset} imbalance {self.imbalance_factor} {self.method}"
        tail = "" if recipe.imbalance_factor is None else f" imbalance {self.imbalance_factor}"
        network = f" {recipe.model}" if self.table in ("ddnet", "table3") else ""
        size = f" {size}" if (size := getattr(recipe, "size", None)) else ""
        gamma = "" if self.gamma is None else f" gamma {self.gamma:g}"
        weights = "inverse" if recipe.scheme == "inverse" else f"beta {self.beta:g}"
        return f"{self.dataset}{tail}{network}{size} {recipe.loss}{gamma} {weights}"


@dataclass(frozen=True)
class MeasuredSetting:
    """A setting beside what was measured, in percent.

    Attributes:
        setting: what was run.
        values: of each of its fields, by seed.
        plain: the same without weights.
    """

    setting: Setting
    values: Mapping[str, Mapping[int, float]]
    plain: Mapping[str, Mapping[int, float]] = field(default_factory=dict)

    def summary(self, name: str | None = None) -> Summary | None:
        """Return mean and spread over the seeds; None where it was not run.

        Args:
            name: one of the setting's fields; None for the first.
        """
        values = self.values.get(name or self.setting.fields[0])
        return summarize([values[seed] for seed in sorted(values)]) if values else None

    def published(self, name: str | None = None) -> float | None:
        """Return what was published of a field; None where nothing was."""
        return self.setting.published.get(name or self.setting.fields[0])

    def mean(self, name: str | None = None) -> float | None:
        """Return what was measured of a field; None where it was not run."""
        return None if (summary := self.summary(name)) is None else summary.mean

    def difference(self, name: str | None = None) -> float | None:
        """Return the measured mean minus what was published, in points."""
        mean, published = self.mean(name), self.published(name)
        return None if mean is None or published is None else mean - published

    def gain(self, name: str | None = None) -> PairedDifference | None:
        """Return measured minus plain, paired by the seeds that both have; None where they share none."""
        name = name or self.setting.fields[0]
        ours, plain = self.values.get(name, {}), self.plain.get(name, {})
        both = sorted(ours.keys() & plain.keys())
        return paired_difference([ours[s] for s in both], [plain[s] for s in both]) if both else None


@dataclass(frozen=True)
class Grid:
    """One data set's errors: a row for each loss and beta, a column for each imbalance factor.

    Attributes:
        factors: of the columns, falling.
        rows: loss with its gamma, and beta.
        cells: by row and column; None where the grid has no such setting.
    """

    factors: tuple[int, ...]
    rows: tuple[tuple[str, float], ...]
    cells: tuple[tuple[MeasuredSetting | None, ...], ...]

    @classmethod
    def of(cls, measured: Sequence[MeasuredSetting]) -> Grid:
        """Put the settings of one data set in their places."""
        found = {(m.setting.method, m.setting.beta, m.setting.imbalance_factor): m for m in measured}
        factors = tuple(sorted({factor for *_, factor in found}, reverse=True))
        betas = sorted({beta for _, beta, _ in found})
        rows = itertools.product(dict.fromkeys(method for method, *_ in found), betas)
        kept = tuple(row for row in rows if any((*row, f) in found for f in factors))
        return cls(factors, kept, tuple(tuple(found.get((*row, f)) for f in factors) for row in kept))


def measure(settings: Iterable[Setting], rows: Sequence[Mapping[str, str]]) -> list[MeasuredSetting]:
    """Set what was measured beside settings.

    Args:
        settings: of any tables.
        rows: from `longtail.paper.results.read_rows`. A seed counts once a setting, by its fp32 run where it
            has one, and where a setting has several recipes, once all of them were run.
    """
    found = {row["recipe_hash"]: row for row in rows}
    runs = sorted({(row["precision"] == "fp32", row["precision"], int(row["seed"])) for row in rows})

    def values(of: Sequence[Recipe], fields: Sequence[str]) -> dict[str, dict[int, float]]:
        known: dict[str, dict[int, float]] = {name: {} for name in fields}
        for _, precision, seed in runs:
            hashes = [recipe.replace(seed=seed, precision=precision).short_hash for recipe in of]
            if not of or not all(h in found for h in hashes):
                continue
            for name in fields:
                texts = [found[h][f"{name}_percent"] for h in hashes]
                if all(texts):
                    known[name][seed] = sum(map(float, texts)) / len(texts)
        return known

    return [MeasuredSetting(s, values(s.recipes, s.fields), values(s.plain, s.fields)) for s in settings]


# ---- the tables


def cifar(
    table: str,
    *,
    datasets: Sequence[str] | None = None,
    imbalances: Sequence[int] | None = None,
    losses: Sequence[str] | None = None,
    betas: Sequence[float] | None = None,
    gammas: Sequence[float] | None = None,
) -> list[Setting]:
    """Return the settings of a table on long-tailed CIFAR, the most telling first.

    Imbalance 100 comes first; within an imbalance factor the plain losses and beta 0.9999, then the other
    betas. On balanced data (imbalance 1) all betas weigh alike, so only the plain losses are there.

    Args:
        table: "table2" | "fig8" | "fig9" | "fig10"; Table 2's class-balanced row is the best setting of the
            grids in Figures 8 and 10, so it has their settings.
        datasets: of the table's, to take only some.
        imbalances: any of 200, 100, 50, 20, 10, 1.
        losses: any of "softmax", "sigmoid", "focal".
        betas: any of 0 (the plain losses), 0.9, 0.99, 0.999, 0.9999.
        gammas: of the focal loss, any of 0.5, 1, 2.

    Raises:
        ValueError: a name or number that the table does not have.

    Example:
        >>> str(cifar("fig9", losses=["focal"])[0])
        'cifar20 imbalance 100 focal gamma 1 beta 0'
    """
    choice("table", table, TABLES, also=", 'table3', 'rivals', 'ddnet', 'gtsrb', 'beta'")
    chosen, kinds = _some("dataset", datasets, TABLES[table]), _some("loss", losses, LOSSES)
    factors = _some("imbalance", imbalances, IMBALANCES)
    some_betas, some_gammas = _some("beta", betas, BETAS), _some("gamma", gammas, GAMMAS)
    if gammas and "focal" not in kinds:
        raise ValueError(
            f"gamma belongs to the focal loss, got loss {', '.join(kinds)}; leave one of them out"
        )
    exponents = [gamma for gamma in GAMMAS if gamma in some_gammas]
    variants = [(loss, gamma) for loss in kinds for gamma in (exponents if loss == "focal" else (None,))]
    return [
        _cifar(table, dataset, factor, loss, gamma, beta)
        for part, factor in itertools.product((BETAS[:2], BETAS[2:]), factors)
        for dataset, (loss, gamma), beta in itertools.product(chosen, variants, part)
        if beta in some_betas and (factor != 1 or beta == 0.0)
    ]


def rivals(
    *,
    datasets: Sequence[str] | None = None,
    imbalances: Sequence[int] | None = None,
    methods: Sequence[str] | None = None,
    fast: bool = False,
) -> list[Setting]:
    """Return the catalogue's methods with the recipe of Table 2, those with published errors first.

    Args:
        datasets: "cifar10", "cifar100", to take only some.
        imbalances: any of 200, 100, 50, 20, 10; None for 100, of which errors are published.
        methods: names of `longtail.methods.NAMES`, to take only some. The effective number has beta 0.9999,
            as Cao et al. have it on CIFAR.
        fast: with `longtail.recipes.fast_cifar` in place of Table 2's recipe; nothing published compares.

    Raises:
        ValueError: a name or number that the table does not have.

    Example:
        >>> rivals(methods=["logit_adjusted"])[0].published
        {'error': 19.08}
    """
    chosen = _some("dataset", datasets, TABLES["table2"])
    factors = _some("imbalance", imbalances or (100,), IMBALANCES[:-1])
    names = [*RIVALS, *(name for name in CATALOGUE.names if name not in RIVALS)]
    # smote is of features and tables, and so are held-out predictions to tune by
    known = [n for n in names if not (m := CATALOGUE[n]).synthesis and not m.is_tuned and not m.many_labels]
    settings = []
    for dataset, factor, name in itertools.product(chosen, factors, _some("method", methods, known)):
        plain = _cifar_recipe(dataset, factor, "softmax", None, 0.0)
        if fast:
            plain = recipes.fast_cifar(dataset, float(factor), method=CATALOGUE["plain"])
        recipe = plain if name == "plain" else plain.replace(method=_rival(name))
        published = {}
        if factor == 100 and name in RIVALS and not fast:
            published = {"error": RIVALS[name][dataset == "cifar100"]}
        over = () if name == "plain" else (plain,)
        settings.append(Setting("rivals", (recipe,), published, over))
    return settings


def _rival(name: str) -> Method:
    method = CATALOGUE[name]
    if method.weight.name == "effective":
        return method.with_settings(name=method.name, beta=RIVAL_BETA)
    return method


def skeletons(
    *,
    datasets: Sequence[str] | None = None,
    imbalances: Sequence[int] | None = None,
    losses: Sequence[str] | None = None,
    filters: Sequence[int] | None = None,
) -> list[Setting]:
    """Return the settings of DD-Net on JHMDB: whole training sets, widest network first, then the long tail.

    The long tail is cut from the 14-class training sets, which are complete; those of 21 classes lack clips
    in seven classes, so that a tail would start at 11 clips.

    Args:
        datasets: "jhmdb14", "jhmdb21", to take only some.
        imbalances: 1 (whole training sets), 10.
        losses: "softmax", "focal".
        filters: any of 64, 32, 16.

    Raises:
        ValueError: a name or number that the grid does not have.

    Example:
        >>> str(skeletons(filters=[64])[0])
        'jhmdb14 ddnet64 softmax beta 0'
    """
    chosen, kinds = _some("dataset", datasets, ("jhmdb14", "jhmdb21")), _some("loss", losses, SKELETON_LOSSES)
    factors, widths = _some("imbalance", imbalances, (1, TAIL_FACTOR)), _some("filters", filters, FILTERS)
    whole = itertools.product(FILTERS, (14, 21), ("softmax",), (0.0,), (1,))
    tail = itertools.product(
        (TAIL_FILTERS,), (TAIL_CLASSES,), SKELETON_LOSSES, SKELETON_BETAS, (TAIL_FACTOR,)
    )
    return [
        _skeletons(width, classes, loss, beta, factor)
        for width, classes, loss, beta, factor in (*whole, *tail)
        if f"jhmdb{classes}" in chosen and factor in factors and loss in kinds and width in widths
    ]


def signs(*, losses: Sequence[str] | None = None) -> list[Setting]:
    """Return the settings on GTSRB: plain, inverse frequency, and class-balanced at three beta.

    Args:
        losses: "softmax", "focal", to take only some.

    Raises:
        ValueError: a loss that the grid does not have.

    Example:
        >>> str(signs()[0])
        'gtsrb softmax beta 0'
    """
    kinds = _some("loss", losses, ("softmax", "focal"))
    plain = recipes.gtsrb(loss="softmax", scheme="none")
    chosen = [recipes.gtsrb(loss="softmax", scheme="inverse")]
    chosen += [recipes.gtsrb(loss="softmax", beta=beta) for beta in SIGN_BETAS]
    chosen += [recipes.gtsrb(loss="focal", beta=beta, gamma=SIGN_GAMMA) for beta in SIGN_BETAS]
    found = [Setting("gtsrb", (plain,)), *(Setting("gtsrb", (one,), plain=(plain,)) for one in chosen)]
    return [setting for setting in found if setting.recipe.loss in kinds]


def large(
    *,
    datasets: Sequence[str] | None = None,
    networks: Sequence[str] | None = None,
    sizes: Sequence[int] | None = None,
    losses: Sequence[str] | None = None,
) -> list[Setting]:
    """Return the settings of Table 3: plain softmax, and class-balanced focal with beta 0.999, gamma 0.5.

    Args:
        datasets: to take only some; "inat2017", "inat2018" and "imagenet" are understood, too.
        networks: likewise.
        sizes: likewise; the paper has plain softmax at 224 alone.
        losses: likewise.

    Raises:
        ValueError: a name or size that the table does not have, or no setting at all.

    Example:
        >>> first = large(datasets=["inat2018"], networks=["resnet50"])[0]
        >>> str(first), first.published["top1_error"]
        ('inaturalist2018 resnet50 224 softmax beta 0', 42.86)
    """
    known = [dataset_name(name) for name in datasets or LARGE]
    some_networks, kinds = _some("network", networks, RESNETS), _some("loss", losses, ("softmax", "focal"))
    some_sizes = _some("size", sizes, SIZES)
    chosen = [
        Setting(
            "table3",
            (paper_large(row["dataset"], row["network"], int(row["input_size"]), row["loss"]),),
            {name: float(row[f"{name}_percent"]) for name in _FIELDS["table3"]},
        )
        for row in _csv("table3")
        if row["dataset"] in known and row["network"] in some_networks
        if int(row["input_size"]) in some_sizes and row["loss"] in kinds
    ]
    if not chosen:
        raise ValueError("Table 3 has no such row: plain softmax is there at 224 alone; change loss or size")
    return chosen


def dataset_name(name: str) -> str:
    """Return the full name of a data set of Table 3.

    Raises:
        ValueError: the table has no such data set.
    """
    return choice("dataset", _SHORT.get(name, name), LARGE)


def of_run(recipe: Recipe) -> Setting:
    """Return the setting of a run on any data, the published error beside it where it followed the paper."""
    setting = Setting("runs", (recipe,))
    if recipe.dataset not in ("cifar10", "cifar20", "cifar100"):
        return setting
    names = ("scheme", "beta", "gamma", "seed", "precision")
    alike: dict[str, Any] = {name: getattr(recipe, name) for name in names}
    if recipe != paper_cifar(recipe.dataset, recipe.imbalance_factor, recipe.loss, **alike):
        return setting
    key = setting.dataset, setting.imbalance_factor, recipe.loss, setting.gamma, setting.beta
    return replace(setting, published=_errors().get(key, {}))


def _cifar(table: str, dataset: str, factor: int, loss: str, gamma: float | None, beta: float) -> Setting:
    published = _errors().get((dataset, factor, loss, gamma, beta), {})
    recipe, plain = (
        _cifar_recipe(dataset, factor, *which) for which in ((loss, gamma, beta), ("softmax", None, 0.0))
    )
    return Setting(table, (recipe,), published, () if recipe == plain else (plain,))


@functools.cache
def _cifar_recipe(dataset: str, factor: int, loss: str, gamma: float | None, beta: float) -> Recipe:
    scheme = "none" if beta == 0.0 else "effective"
    gamma = 1.0 if gamma is None else gamma
    return paper_cifar(dataset, float(factor), loss, scheme=scheme, beta=beta, gamma=gamma)


def _skeletons(width: int, classes: int, loss: str, beta: float, factor: int) -> Setting:
    def made(beta: float) -> tuple[Recipe, ...]:
        scheme = "none" if beta == 0.0 else "effective"
        names = [f"jhmdb{classes}-{split}" for split in SPLITS]
        found: list[Recipe] = [recipes.ddnet(n, width, loss=loss, scheme=scheme, beta=beta) for n in names]
        if factor != 1:
            # a third of the clips makes a third of the updates in an epoch: twice the epochs
            found = [r.replace(imbalance_factor=float(factor), epochs=2 * r.epochs) for r in found]
        return tuple(found)

    known = (classes, loss, beta, factor) == (21, "softmax", 0.0, 1) and width in ACCURACIES
    published = {"accuracy": ACCURACIES[width]} if known else {}
    return Setting("ddnet", made(beta), published, made(0.0) if beta else ())


@functools.cache
def _errors() -> dict[tuple[str, int, str, float | None, float], dict[str, float]]:
    """The published errors on CIFAR by data set, imbalance factor, loss, gamma and beta."""
    errors: dict[tuple[str, int, str, float | None, float], dict[str, float]] = {}
    for row in (row for name in ("table2", "fig9", "fig10") for row in _csv(name)):
        gamma = float(row["gamma"]) if row["gamma"] else None
        key = row["dataset"], int(row["imbalance_factor"]), row["loss"], gamma, float(row["beta"])
        errors.setdefault(key, {"error": float(row["error_percent"])})
    return errors


def _csv(name: str) -> list[dict[str, str]]:
    text = (files("longtail") / "paper" / f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _some(name: str, given: Sequence[T] | None, options: Sequence[T]) -> list[T]:
    """Return those of a table's names or numbers that are asked for; all where none are."""
    for value in given or ():
        if isinstance(options[0], str):
            choice(name, value, map(str, options))
        elif value not in options:
            raise ValueError(f"{name} must be one of {', '.join(f'{o:g}' for o in options)}, got {value!r}")
    return list(given or options)
