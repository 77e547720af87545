"""A comparison, computed once. Terminal, files, figures and page only show it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from longtail.compare.columns import GROUPS, Column, as_csv, columns, every_column, named, usual_metric
from longtail.compare.outcome import ORIGIN, Outcome
from longtail.compare.row import Floats, Measure, Row, Setting, known_means
from longtail.evaluation import (
    Evaluation,
    MultiLabelEvaluation,
    PairedDifference,
    TestDifference,
    bonferroni,
    paired_difference,
    paired_on_test,
    summarize,
)
from longtail.evaluation.intervals import in_groups_text
from longtail.evaluation.statistics import signed
from longtail.losses.forms import MANY_LABELS
from longtail.training.predictions import Predictions
from longtail.training.recipe import Recipe
from longtail.weights import SCHEMES

CONFIDENCE = 0.95
LOSSES = ("softmax", "sigmoid", "focal")
DATA = ("dataset", "imbalance_factor", "profile")
# what a recipe says of its method, which says it itself
_OF_METHOD = frozenset(
    ("method", "loss", "scheme", "beta", "gamma", "normalizer", "label_smoothing", "prior_bias", "sampling")
)
_INTERVAL_CLASSES = 300
_ALIKE = 0.1  # half the summed differences of class shares up to which they count as the same


@dataclass(frozen=True)
class ClassChange:
    """The difference of two methods class by class, over the seeds that both have.

    Attributes:
        mean: shape (C,); NaN where it does not apply.
        low: lower ends of the intervals, NaN where n/a; None where there are too many classes for so many.
        high: upper ends.
        doubts: what the intervals hold, as `ComparisonTable.doubts`; "" without intervals.
    """

    mean: Floats
    low: Floats | None = None
    high: Floats | None = None
    doubts: str = ""


@dataclass(frozen=True)
class ComparisonTable:
    """All methods side by side. It is computed when it is made.

    Attributes:
        recipe: what the methods share; its method and seed are those of the first.
        rows: one a method.
        failures: the runs that did not finish.
        folder: where everything was written.
        tests: the number of differences that are tested, which the marks are corrected for.
    """

    recipe: Recipe
    rows: tuple[Row, ...]
    failures: tuple[Outcome, ...]
    folder: Path
    tests: int = field(init=False)

    def __post_init__(self) -> None:
        rows = _told_apart(self.rows)
        places = [_baseline(rows, row) for row in rows]
        tests = sum(place is not None for place in places)
        measured = []
        for row, place in zip(rows, places, strict=True):
            measures = self._measures(row, None if place is None else rows[place], tests)
            measured.append(replace(row, baseline=place, measures=measures))
        best = self.lowest(rows=measured)
        rows = [replace(row, best=row is best and row[self.metric].better) for row in measured]
        object.__setattr__(self, "tests", tests)
        object.__setattr__(self, "rows", tuple(rows))

    @property
    def metric(self) -> str:
        """The column that decides."""
        return self.recipe.metric

    @property
    def many_labels(self) -> bool:
        """Whether a sample may have several labels or none."""
        return self.recipe.many_labels

    @property
    def decides(self) -> Column:
        """The column that decides, with all that is known of it."""
        return named(self.metric, self.many_labels)

    @property
    def unit(self) -> str:
        """What runs of a method differ in: "seed", or "fold" of one data set."""
        return "fold" if self.recipe.folds else "seed"

    @property
    def test_to_train(self) -> float:
        """Test over training samples of a fold, by which intervals are corrected; 0 for seeds."""
        return 1 / (self.recipe.folds - 1) if self.recipe.folds else 0.0

    @property
    def shown(self) -> tuple[Row, ...]:
        """The rows with a finished run."""
        return tuple(row for row in self.rows if row.outcomes)

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """All finished runs."""
        return tuple(outcome for row in self.rows for outcome in row.outcomes)

    def baseline(self, row: Row) -> Row | None:
        """Return the row of the same loss without balancing, if it is another with seeds."""
        return None if row.baseline is None else self.rows[row.baseline]

    def lowest(self, column: str | None = None, rows: Sequence[Row] | None = None) -> Row | None:
        """Return the row (of all, or of some) with the best mean of a column; None where none has it.

        Args:
            column: the lowest error, or the highest score; default: `metric`.
            rows: to choose from.
        """
        rows = self.rows if rows is None else rows
        found = self.decides if column is None else named(column, self.many_labels)
        sign = 1 if found.lower_is_better else -1
        ranked = [(sign * s.mean, i) for i, r in enumerate(rows) if (s := r[found.name].summary) is not None]
        return rows[min(ranked)[1]] if ranked else None

    def plainest(self, column: str) -> Row | None:
        """Return the row that does not balance and is kept where none that does is better.

        It is the one with the best mean; but the usual loss of the same network goes before another loss that
        may be better by chance alone.
        """
        rows = [row for row in self.shown if row.is_plain]
        best, usual = self.lowest(column, rows), "sigmoid" if self.many_labels else "softmax"
        for row in rows:
            if best is not None and row.loss == usual != best.loss and row.recipe.model == best.recipe.model:
                d = self.paired(best, row, column)
                return best if d is not None and d.significant else row
        return best

    @cached_property
    def best(self) -> Row | None:
        """The row of the lowest mean error."""
        return self.lowest()

    @property
    def winner(self) -> Row | None:
        """The row of the lowest mean error, if it significantly beats its baseline."""
        return next((row for row in self.rows if row.best), None)

    def surest(self, column: str) -> Row | None:
        """Return the best row that significantly beats its baseline, if no plain row is better."""
        plain = self.lowest(column, [row for row in self.shown if row.is_plain])
        found = self.lowest(column, [row for row in self.shown if row[column].better])
        if found is None or plain is None:
            return found
        return found if self.lowest(column, [plain, found]) is found else None

    @cached_property
    def rival(self) -> Row | None:
        """What the best row is shown beside: its baseline, or else the next best, first of its own loss."""
        best = self.best
        if best is None or (baseline := self.baseline(best)) is not None:
            return None if best is None else baseline
        rest = [row for row in self.shown if row is not best]
        return self.lowest(rows=[row for row in rest if row.loss == best.loss] or rest)

    def paired(self, one: Row, other: Row, column: str) -> PairedDifference | None:
        """Return one row minus another over the seeds that both have; None where it does not apply.

        Its interval holds the doubt over the test samples, too, where the runs kept their predictions.
        """
        found = _paired(one, other, column, CONFIDENCE, self.test_to_train)
        return _total(found, self.on_test(one, other, column))

    def on_test(
        self, one: Row, other: Row, column: str, confidence: float = CONFIDENCE
    ) -> TestDifference | None:
        """Return one row minus another with the doubt of the test samples, over the seeds that both have.

        None where it does not apply: for what is no error, for folds, whose test sets differ and are in the
        spread already, and where a run kept no predictions or was tested on other samples.
        """
        if self.many_labels:
            return self._drawn_on_test(one, other, column, confidence)
        tested = self._tested(one, other)
        return None if tested is None else self._on_test(tested, column, confidence)

    def _drawn_on_test(self, one: Row, other: Row, column: str, confidence: float) -> TestDifference | None:
        """Of many labels, by the samples drawn anew that the runs kept."""
        said = self._said_alike(one, other) if column == "macro_average_precision" else None
        if said is None:
            return None
        seeds, first, second = said
        draws = [[p.drawn for p in runs if p.drawn is not None] for runs in (first, second)]
        if min(map(len, draws)) < len(seeds):
            return None
        truth, groups = first[0].labels, first[0].groups
        if not all(_same(groups, p.groups) for p in (*first, *second)):
            return None
        means = [_values(row, column) for row in (one, other)]
        difference = float(np.mean([means[0][s] - means[1][s] for s in seeds]))
        ours, theirs = (np.mean(runs, axis=0) for runs in draws)
        return TestDifference.of_draws(difference, ours - theirs, len(truth), confidence)

    def _tested(self, one: Row, other: Row) -> _Tested | None:
        """What two rows say of the same test samples; None where `on_test` says nothing."""
        said = None if self.many_labels else self._said_alike(one, other)
        if said is None:
            return None
        _, first, second = said
        ours, theirs = (np.stack([p.predicted for p in runs]) for runs in (first, second))
        return _Tested(ours, theirs, first[0].labels, first[0].groups)

    def _said_alike(
        self, one: Row, other: Row
    ) -> tuple[list[int], list[Predictions], list[Predictions]] | None:
        """The seeds of both, and what each said of the same test samples; None where a run kept nothing."""
        seeds = [s for s in one.seeds if s in other.seeds]
        if not seeds or self.recipe.folds:
            return None
        found = []
        for row in (one, other):
            kept = {o.recipe.seed: o.decided for o in row.outcomes if o.recipe.seed in seeds}
            found.append([p for seed in seeds if (p := kept[seed]) is not None])
        first, second = found
        if min(map(len, found)) < len(seeds):
            return None
        if not all(np.array_equal(first[0].labels, p.labels) for p in (*first, *second)):
            return None
        return seeds, first, second

    def _on_test(self, tested: _Tested, column: str, confidence: float = CONFIDENCE) -> TestDifference | None:
        weights = self._weights(column)
        if weights is None or not weights[np.unique(tested.truth)].any():
            return None
        return paired_on_test(
            tested.one,
            tested.other,
            tested.truth,
            groups=tested.groups,
            weights=weights,
            confidence=confidence,
        )

    @cached_property
    def doubts(self) -> str:
        """What the intervals of differences rest on.

        "both", seeds and test samples; "seeds" alone, of runs that kept no predictions; "some" of each;
        "test samples", of one seed; "folds", in which test samples differ as well.
        """
        if self.recipe.folds:
            return "folds"
        measures = [m for row in self.shown if (m := row[self.metric]).difference is not None]
        on_test = [m for m in measures if m.on_test is not None]
        if not on_test:
            return "seeds"
        if all(m.difference is None or m.difference.sd is None for m in measures):
            return "test samples"
        return "both" if len(on_test) == len(measures) else "some"

    @property
    def has_test_doubt(self) -> bool:
        """Whether the doubt over test samples is known of what decides: it is of means of errors."""
        return (
            self.metric == usual_metric(True) if self.many_labels else self._weights(self.metric) is not None
        )

    def _weights(self, column: str) -> Floats | None:
        """What each class weighs in an error; None for what is no mean of the classes' errors."""
        sizes = self.single.test_counts
        counts = np.asarray(self.class_counts, dtype=np.float64)
        if column == "balanced_error":
            return np.ones(len(counts))
        if column == "natural_error":
            return counts
        if sizes is None or column not in ("error", *(f"{g}_error" for g in GROUPS)):
            return None
        many, few = self.evaluation.thresholds
        of = {"error": counts >= 0, "many_error": counts > many, "few_error": counts < few}
        here = of.get(column, (counts >= few) & (counts <= many))
        return np.asarray(sizes, dtype=np.float64) * here

    def _measures(self, row: Row, baseline: Row | None, tests: int) -> dict[str, Measure]:
        found, ratio = {}, self.test_to_train
        tested = None if baseline is None else self._tested(row, baseline)
        for column in (c for c in every_column(self.many_labels) if c.measured):
            name = column.name
            values = _values(row, name)
            if not values:
                found[name] = Measure()
                continue
            difference, total, on_test, better = None, None, None, False
            if baseline is not None:
                difference = _paired(row, baseline, name, CONFIDENCE, ratio)
                if self.many_labels:
                    on_test = self._drawn_on_test(row, baseline, name, CONFIDENCE)
                elif tested is not None:
                    on_test = self._on_test(tested, name)
                total = _total(difference, on_test)
                sure = bonferroni(CONFIDENCE, tests)
                corrected = _total(
                    _paired(row, baseline, name, sure, ratio), None if on_test is None else on_test.at(sure)
                )
                better = corrected is not None and corrected.significant and column.is_better(corrected.mean)
            numbers = tuple(values.values())
            summary = summarize(numbers, CONFIDENCE, test_to_train=ratio)
            found[name] = Measure(numbers, summary, difference, better, on_test, total)
        return found

    @cached_property
    def step(self) -> tuple[Row, Row] | None:
        """The best row and its rival: first what does not balance, if only one does not; None without."""
        best, rival = self.best, self.rival
        if best is None or rival is None:
            return None
        return (best, rival) if best.is_plain and not rival.is_plain else (rival, best)

    @cached_property
    def test_prior(self) -> str:
        """What shares the classes have in the test set: "balanced", "as in training" or "other"."""
        tested = self.single.test_counts
        if tested is None and self.single.confusion is not None:
            tested = tuple(map(sum, self.single.confusion))
        if tested is None:
            return "other"
        test, train = np.asarray(tested, float), np.asarray(self.class_counts, float)
        if test.min() == test.max():
            return "balanced"
        apart = 0.5 * np.abs(test / test.sum() - train / train.sum()).sum()
        return "as in training" if apart <= _ALIKE else "other"

    @cached_property
    def change(self) -> ClassChange | None:
        """The second of `step` minus the first, class by class; None without a rival."""
        rival, best = self.step or (None, None)
        if best is None or rival is None:
            return None
        seeds = sorted(set(best.seeds) & set(rival.seeds))
        classes = len(self.class_counts)
        if not seeds:
            return ClassChange(np.full(classes, math.nan))
        ours, theirs = best.values_by_class(seeds), rival.values_by_class(seeds)
        if self.many_labels:
            return self._change_of_labels(ours, theirs)
        mean = (ours - theirs).mean(axis=0)
        tested = self._tested(best, rival)
        on_test = None if tested is None else self._on_test(tested, "balanced_error")
        if classes > _INTERVAL_CLASSES or (len(seeds) < 2 and on_test is None):
            return ClassChange(mean)
        sides: list[Floats] = []  # how far the ends lie from the mean, for each source of doubt
        if len(seeds) > 1:
            half = [
                math.nan if np.isnan(m) else m - (_paired_low(a, b, self.test_to_train))
                for m, a, b in zip(mean, ours.T, theirs.T, strict=True)
            ]
            sides.append(np.asarray([half, half]))
        if on_test is not None:
            ends = np.asarray([side or (math.nan, math.nan) for side in on_test.per_class_interval]).T
            sides.append(np.maximum([mean - ends[0], ends[1] - mean], 0))
        below, above = np.sqrt(np.sum(np.square(sides), axis=0))
        doubts = "folds" if self.recipe.folds else "seeds" if on_test is None else "both"
        low, high = np.maximum(mean - below, -1), np.minimum(mean + above, 1)
        return ClassChange(mean, low, high, "test samples" if len(seeds) < 2 else doubts)

    def _change_of_labels(self, ours: Floats, theirs: Floats) -> ClassChange:
        """The same of labels, each over the runs whose test part has a positive of it."""
        apart = ours - theirs
        if apart.shape[1] > _INTERVAL_CLASSES:
            return ClassChange(known_means(apart)[0])
        found: list[tuple[float, ...]] = []
        for one, other in zip(ours.T, theirs.T, strict=True):
            here = ~np.isnan(one - other)
            if not here.any():
                found.append((math.nan, math.nan, math.nan))
                continue
            d = paired_difference(one[here], other[here], CONFIDENCE, test_to_train=self.test_to_train)
            ends = (math.nan if end is None else end for end in (d.low, d.high))
            found.append((d.mean, *ends))
        mean, low, high = np.asarray(found, dtype=float).T
        if len(ours) < 2:
            return ClassChange(mean)
        return ClassChange(mean, low, high, "folds" if self.recipe.folds else "seeds")

    # ---- the data behind it

    @cached_property
    def evaluation(self) -> Evaluation | MultiLabelEvaluation:
        """The first finished run's, for what all of them share: counts, groups and test set.

        Of folds, the test set is that of all folds of one repeat, and its groups are theirs.
        """
        runs = self.shown[0].outcomes
        runs = tuple(o for o in runs if o.recipe.seed < self.recipe.folds) or runs[:1]
        if self.many_labels:
            return _of_one_repeat([o.found for o in runs])
        first = runs[0].result
        said = [p for o in runs if (p := o.decided) is not None]
        known = [(r.test_counts, r.confusion) for r in (o.result for o in runs)]
        counts = [n for n, _ in known if n is not None]
        tables = [t for _, t in known if t is not None]
        if len(runs) > 1 and len(counts) == len(runs):
            first = replace(
                first,
                num_samples=int(np.sum(counts)),
                test_counts=tuple(np.sum(counts, axis=0).tolist()),
                confusion=_summed(tables) if len(tables) == len(runs) else None,
                units=None,  # they were those of the first fold alone
                macro_f1_ends=None,
                num_groups=None,
            )
        groups = [p.groups for p in said if p.groups is not None]
        known_already = len(runs) == 1 and first.num_groups is not None
        if known_already or len(groups) < len(runs) or 0 < len(counts) < len(runs):
            return first
        # a group is never in two folds
        apart = [g + np.int64(i) * (1 + max(int(g.max()) for g in groups)) for i, g in enumerate(groups)]
        decided, labels = (np.concatenate([getattr(p, x) for p in said]) for x in ("predicted", "labels"))
        return first.in_groups(decided, labels, np.concatenate(apart))

    def corrected(self, before: str = " ") -> str:
        """Say that there was more than one test, if so."""
        return f"{before}after correction for {self.tests} tests" if self.tests > 1 else ""

    def tested(self, samples: int) -> str:
        """Say on how much the methods were tested: the samples, and their groups where there are some."""
        return f"{samples:,} test samples{in_groups_text(self.evaluation.num_groups)}"

    @property
    def single(self) -> Evaluation:
        """The same of one class a sample."""
        assert isinstance(self.evaluation, Evaluation)
        return self.evaluation

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Training samples of every class."""
        return self.evaluation.class_counts

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The names that the first run with names has; the numbers of the classes where none has."""
        size = len(self.class_counts)
        named = (o.class_names for o in self.outcomes if len(o.class_names) == size)
        return next(named, tuple(map(str, range(size))))

    @cached_property
    def order(self) -> npt.NDArray[np.int64]:
        """The classes from head to tail."""
        return np.argsort(-np.asarray(self.class_counts), kind="stable")

    @property
    def title(self) -> str:
        """The name of the training set."""
        factor = self.recipe.imbalance_factor
        return self.recipe.dataset + ("" if factor is None else f", imbalance {factor:g}")

    @cached_property
    def verdict(self) -> str:
        """What was found, and never more than the intervals allow."""
        return _verdict(self)

    # ---- as files

    def to_dict(self) -> dict[str, object]:
        """Return everything that was measured, as JSON knows it."""
        return {
            **({} if self.metric == usual_metric() else {"metric": self.metric}),
            "recipe": self.recipe.to_dict(),
            "rows": [_row_to_dict(row, self.metric) for row in self.rows],
            "verdict": self.verdict,
            "comparisons": self.tests,
            "failures": [{"folder": str(o.folder), "why": o.failure} for o in self.failures],
        }

    def to_csv(self) -> str:
        """Return one line a run, with its provenance."""
        names = [column.name for column in columns("runs", many_labels=self.many_labels)]
        settings = ["dataset", "imbalance_factor", "loss", "scheme", "beta", "gamma", "seed"]
        if any("method" in o.recipe.to_dict() for o in self.outcomes):  # loss and scheme do not say all
            settings.insert(0, "method")
        if len({o.recipe.model for o in self.outcomes}) > 1 or self.recipe.folds:
            settings.insert(0, "model")
        lines: list[list[object]] = [[*settings, *names, "seconds", "recipe_hash", *ORIGIN]]
        for o in self.outcomes:
            values = [o.value(name) for name in names]
            lines.append(
                [
                    *(o.recipe.method.label if n == "method" else getattr(o.recipe, n) for n in settings),
                    *("" if v is None else f"{v:.6g}" for v in values),
                    *(f"{o.seconds:.2f}", o.recipe.short_hash),
                    *o.origin.values(),
                ]
            )
        return as_csv(lines)


def rows_of(outcomes: Sequence[Outcome]) -> tuple[Row, ...]:
    """Sort runs into rows: losses outermost, what does not balance first, beside it the weightings."""
    rows: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        rows.setdefault(_key(outcome.recipe), []).append(outcome)
    losses = (*LOSSES, "softmax_focal", *MANY_LABELS)
    made = _told_apart(
        [Row(runs[0].recipe, tuple(sorted(runs, key=lambda o: o.recipe.seed))) for runs in rows.values()]
    )
    return tuple(sorted(made, key=lambda r: (losses.index(r.loss), _rank(r.scheme), _ordered(r.settings))))


def identity(recipe: Recipe) -> str:
    """Return what decides a run's result, as text: a beta without effect makes no other run."""
    data = {name: getattr(recipe, name) for name in ("seed", *DATA)}
    return f"{data} {_key(recipe)}"


# ---- how it is computed


def _summed(tables: Sequence[tuple[tuple[int, ...], ...]]) -> tuple[tuple[int, ...], ...]:
    return tuple(map(tuple, np.sum(np.asarray(tables), axis=0).tolist()))


class _Tested(NamedTuple):
    """Decided classes of two rows, (runs, N) each, with the true ones and the groups, (N,)."""

    one: npt.NDArray[np.int64]
    other: npt.NDArray[np.int64]
    truth: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64] | None


def _of_one_repeat(found: Sequence[Evaluation | MultiLabelEvaluation]) -> MultiLabelEvaluation:
    """The first of some folds, with the test samples of all."""
    every = [one for one in found if isinstance(one, MultiLabelEvaluation)]
    positives = np.sum([one.positives for one in every], axis=0)
    samples = sum(one.num_samples for one in every)
    groups = [one.num_groups for one in every if one.num_groups is not None]
    return replace(
        every[0],
        num_samples=samples,
        positives=tuple(positives.tolist()),
        num_groups=sum(groups) if len(groups) == len(every) else None,  # a group is never in two folds
    )


def _same(one: npt.NDArray[np.int64] | None, other: npt.NDArray[np.int64] | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)


def _total(seeds: PairedDifference | None, test: TestDifference | None) -> PairedDifference | None:
    """Widen the interval over seeds by the doubt of the test samples; its p-value is then unknown."""
    if seeds is None or test is None or (both := test.with_seeds(seeds)) is None:
        return seeds
    return replace(seeds, low=max(both.low, -1.0), high=min(both.high, 1.0), p_value=None)


def _values(row: Row, column: str) -> dict[int, float]:
    """A column by seed; empty where it does not apply."""
    values = {o.recipe.seed: o.value(column) for o in row.outcomes}
    found = {seed: v for seed, v in values.items() if v is not None}
    return found if len(found) == len(values) else {}


def _paired(one: Row, other: Row, column: str, confidence: float, ratio: float) -> PairedDifference | None:
    ours, theirs = _values(one, column), _values(other, column)
    seeds = [seed for seed in ours if seed in theirs]
    if not seeds:
        return None
    pairs = [ours[s] for s in seeds], [theirs[s] for s in seeds]
    return paired_difference(*pairs, confidence, test_to_train=ratio)


def _paired_low(one: Floats, other: Floats, ratio: float) -> float:
    low = paired_difference(one, other, CONFIDENCE, test_to_train=ratio).low
    assert low is not None
    return low


def _baseline(rows: Sequence[Row], row: Row) -> int | None:
    """The place of the row that differs in nothing but that it does not balance."""
    if row.is_plain:
        return None
    around, plain = _surroundings(row.recipe), row.method.plain
    # without weights both normalizers divide by the samples
    for method in dict.fromkeys((plain, plain.replace(normalizer="samples"))):
        for i, other in enumerate(rows):
            if other.outcomes and other.method == method and _surroundings(other.recipe) == around:
                return i
    return None


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """Give each row the settings in which it differs from others that have the setting, too."""
    settings = [_settings(row.recipe) for row in rows]
    names = sorted({name for one in settings for name in one})
    telling = [n for n in names if len({one[n] for one in settings if n in one}) > 1]
    return [
        replace(row, settings=tuple((n, one[n]) for n in telling if n in one))
        for row, one in zip(rows, settings, strict=True)
    ]


def _surroundings(recipe: Recipe) -> dict[str, Setting]:
    """Everything of a recipe but its method, its data and its seed."""
    fields = type(recipe).model_fields
    return {name: getattr(recipe, name) for name in fields if name not in (*_OF_METHOD, "seed", *DATA)}


def _key(recipe: Recipe) -> str:
    return repr(sorted({**_surroundings(recipe), "method": recipe.method.short_hash}.items()))


def _settings(recipe: Recipe) -> dict[str, Setting]:
    """Everything that can tell two rows of one loss and scheme apart."""
    method = recipe.method
    found = {
        name: getattr(method, name) for name in ("label_smoothing", "smooth_to", "normalizer", "prior_bias")
    }
    if method.is_focal:
        found["gamma"] = method.gamma
    of_rules = {key.removeprefix("weight."): v for key, v in method.settings.items() if "." in key}
    return {**_surroundings(recipe), **found, **of_rules}


def _ordered(settings: tuple[tuple[str, Setting], ...]) -> list[tuple[str, float, str]]:
    return [(n, float(v) if isinstance(v, int | float) else math.inf, str(v)) for n, v in settings]


def _rank(weighting: str) -> tuple[int, str]:
    return (SCHEMES.index(weighting), "") if weighting in SCHEMES else (len(SCHEMES), weighting)


def _row_to_dict(row: Row, metric: str) -> dict[str, object]:
    d, on_test, total = row[metric].difference, row[metric].on_test, row[metric].total
    names = ("mean", "low", "high", "p_value", "confidence")
    test: dict[str, dict[str, float | None]] = {}
    if on_test is not None:
        test["difference_on_test"] = {
            "mean": on_test.difference,
            "standard_error": on_test.standard_error,
            **dict(zip(("low", "high"), on_test.interval, strict=True)),
            "samples": on_test.samples,
        }
    if on_test is not None and total is not None:
        test["difference_in_all"] = {"mean": total.mean, "low": total.low, "high": total.high}
    many = row.recipe.many_labels
    means = {c.name: row[c.name].summary for c in columns("json", many_labels=many)}
    means |= {
        c.name: s
        for c in columns("scores", many_labels=many)
        if row.recipe.folds and (s := row[c.name].summary)
    }
    return {
        "loss": row.loss,
        "scheme": row.scheme,
        "seeds": list(row.seeds),
        **{name: None if s is None else {"mean": s.mean, "sd": s.sd} for name, s in means.items()},
        "difference_to_none": None if d is None else {name: getattr(d, name) for name in names},
        **test,
        "significantly_better": row[metric].better,
        "best": row.best,
    }


def _verdict(table: ComparisonTable) -> str:
    best, metric = table.best, table.decides
    if best is None or (summary := best[table.metric].summary) is None:
        return "No run finished, so there is nothing to compare."
    scale = 100 if metric.kind == "percent" else 1
    value = metric.text(summary.mean)
    lowest, title = f"{best.in_words}, {value}", metric.in_words
    d = best[table.metric].total
    leads = f"{'Lowest' if metric.lower_is_better else 'Highest'} mean {title}"
    if best.is_plain:
        text = f"{leads}: {best.plain_words}, {value}."
        if (told := _in_vain(table, best)) is not None:
            text = f"No: {best.plain_words} has the {leads[:1].lower()}{leads[1:]}, {value}. {told}"
    elif d is None:
        add = "" if any(row.is_plain for row in table.rows) else "; add the method plain"
        text = f"{leads}: {lowest}; there is no run without re-weighting to compare it with{add}."
    elif d.low is None or d.high is None:
        lead = leads.replace("mean ", "")
        alone = "run" if not table.recipe.folds else "fold"
        text = f"{lead}: {lowest}, {_points(d, metric)}; a single {alone} proves nothing."
    else:
        low, high = (signed(scale * x, 1 if scale == 100 else 3) for x in (d.low, d.high))
        interval = f"95 % interval {low} to {high}, {d.n} {table.unit}s"
        if (on_test := best[table.metric].on_test) is not None:
            interval += f" and {table.tested(on_test.samples)}"
        if best.best:
            tests = f"significant{table.corrected()}"
            return f"Best: {lowest}, {_points(d, metric)} ({interval}; {tests}).{_beside(table, best)}"
        text = (
            f"{leads}: {lowest}, {_points(d, metric)} ({interval});{table.corrected()} "
            f"that may be chance, so no method is marked best.{_beside(table, best)}"
        )
    others = [row.short_name for row in table.rows if row[table.metric].better]
    if others:
        text += f" Significantly better than their own baseline: {', '.join(others)}."
    return text


_COSTS = (
    ("natural_error", "error under the training shares"),
    ("expected_calibration_error", "calibration error"),
)


def _in_vain(table: ComparisonTable, plain: Row) -> str | None:
    """Say what the best method that balances costs where no balancing is better."""
    best = table.lowest(rows=[row for row in table.shown if not row.is_plain])
    if best is None or (d := table.paired(best, plain, table.metric)) is None:
        return None
    metric = table.decides
    sure = "" if d.significant or d.low is None else ", which may be chance"
    return f"The best that balances, {best.short_name}, costs {_size(d, metric)} {_ends(d, metric)}{sure}."


def _beside(table: ComparisonTable, best: Row) -> str:
    """Set the best beside the best method without balancing, whatever its loss, and say what it costs."""
    plain = table.lowest(rows=[row for row in table.shown if row.is_plain])
    if plain is None:
        return ""
    text, metric = "", table.decides
    if plain is not table.baseline(best) and (d := table.paired(best, plain, table.metric)) is not None:
        side = "better" if metric.is_better(d.mean) else "worse"
        sure = "" if d.significant else ", which may be chance"
        size = f"{_size(d, metric)} {side} {_ends(d, metric)}"
        text = f" Against the best plain method, {plain.plain_words}: {size}{sure}."
    costs = []
    of_labels = (("log_loss", "log-loss"), ("macro_f1", "macro-F1"))
    for column, name in of_labels if table.many_labels else _COSTS:
        ours, theirs, of = best[column].summary, plain[column].summary, named(column, table.many_labels)
        if column == table.metric or ours is None or theirs is None:
            continue
        if (ours.mean - theirs.mean) * (1 if of.lower_is_better else -1) > 0.0005:
            ends = [of.text(s.mean) for s in (ours, theirs)]
            costs.append(f"{name} {ends[0].removesuffix(' %')} in place of {ends[1]}")
    return f"{text} It costs: {', '.join(costs)}." if costs else text


def _size(d: PairedDifference, metric: Column) -> str:
    return f"{abs(100 * d.mean):.1f} points" if metric.kind == "percent" else f"{abs(d.mean):.3f}"


def _ends(d: PairedDifference, metric: Column) -> str:
    scale, digits = (100, 1) if metric.kind == "percent" else (1, 3)
    if d.low is None or d.high is None:
        return "from one run"
    return f"[{signed(scale * d.low, digits)}, {signed(scale * d.high, digits)}]"


def _points(d: PairedDifference, metric: Column) -> str:
    side = "below" if d.mean < 0 else "above"
    return f"{_size(d, metric)} {side} the same loss without re-weighting"
