"""One method of a comparison, over its seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from functools import cached_property

import numpy as np
import numpy.typing as npt

from longtail.compare.outcome import Outcome
from longtail.evaluation import PairedDifference, Summary, TestDifference
from longtail.methods import Method
from longtail.training.recipe import Recipe

Setting = str | int | float | bool | None
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """One column of one row.

    Attributes:
        values: seed by seed; empty where the column does not apply.
        summary: mean and spread; None where it does not apply.
        difference: to the row's baseline, paired by seed; None without one.
        better: whether it beats the baseline after Bonferroni's correction for all tests.
        on_test: the same difference with the doubt of the test samples; None where the runs do not share a
            test set, or kept no predictions.
        total: the difference with both doubts where both are known, else `difference`.
    """

    values: tuple[float, ...] = ()
    summary: Summary | None = None
    difference: PairedDifference | None = None
    better: bool = False
    on_test: TestDifference | None = None
    total: PairedDifference | None = None

    @property
    def sure(self) -> bool:
        """Whether there is an interval of the difference: of one run there is none."""
        return self.total is not None and self.total.low is not None


@dataclass(frozen=True)
class ClassMeans:
    """The error of every class, or the average precision of every label, over the seeds; NaN where n/a.

    Attributes:
        mean: shape (C,).
        sd: shape (C,); None for one seed.
    """

    mean: Floats
    sd: Floats | None


@dataclass(frozen=True)
class Curve:
    """Training by epoch, the mean over the seeds that have the epoch.

    Attributes:
        epochs: from 1.
        loss: one an epoch.
        tested: epochs with a test error.
        error: one a tested epoch.
    """

    epochs: tuple[int, ...]
    loss: tuple[float, ...]
    tested: tuple[int, ...]
    error: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """One method over its seeds. A `ComparisonTable` fills in what stands below the first two.

    Attributes:
        recipe: what its runs share; the seed is that of the first.
        outcomes: its finished runs, by seed.
        settings: what tells it from other rows of the same loss and weighting.
        measures: one a column that is measured.
        baseline: the place of the row of the same loss without balancing, if it is another with seeds.
        best: whether it has the lowest mean error and beats its baseline.
    """

    recipe: Recipe
    outcomes: tuple[Outcome, ...]
    settings: tuple[tuple[str, Setting], ...] = ()
    measures: Mapping[str, Measure] = field(default_factory=dict)
    baseline: int | None = None
    best: bool = False

    def __getitem__(self, column: str) -> Measure:
        return self.measures[column]

    @property
    def method(self) -> Method:
        """What it does against the tail."""
        return self.recipe.method

    @property
    def loss(self) -> str:
        """The loss form."""
        return self.method.loss

    @property
    def scheme(self) -> str:
        """The weighting, or the name of a method that has one; "none" where nothing balances."""
        name = [part for part in self.method.name.split(":") if not part.startswith("loss=")]
        if self.is_plain:
            return "none"
        return ":".join(name).replace(":weighting=", " ") or self.method.balancing

    @property
    def weights(self) -> str:
        """The scheme with the settings that tell it apart, as tables name it."""
        return " ".join([self.scheme, *(f"{name}={_plain(v)}" for name, v in self.settings)])

    @property
    def name(self) -> str:
        """Loss and weighting."""
        return f"{self.loss} · {self.weights}"

    @property
    def short_name(self) -> str:
        """The method's own name with its settings as words; loss and weighting where it has none."""
        if not self.method.name:
            return f"{self.loss} {self.weights}"
        name = self.method.name
        for part in (":loss=", ":weighting=", ":"):
            name = name.replace(part, " ")
        return ", ".join([name, *self._around])

    @property
    def in_words(self) -> str:
        """The method as a sentence names it."""
        return self.short_name if self.method.name else f"{self.loss}, {self.weights} weights"

    @property
    def plain_words(self) -> str:
        """How a sentence names it where nothing in it balances."""
        return " ".join([f"{self.loss} without re-weighting", *self._around])

    @property
    def _around(self) -> list[str]:
        """The settings that tell it apart and are none of the method's: the learner above all."""
        fields = type(self.recipe).model_fields.keys() - {f.name for f in fields_of(Method)}
        told = [(n, v) for n, v in self.settings if n in fields and n not in ("beta", "scheme")]
        return [str(v) if n == "model" else f"{n}={_plain(v)}" for n, v in told]

    @property
    def is_plain(self) -> bool:
        """Whether nothing in it balances."""
        return not self.method.balances

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that finished."""
        return tuple(outcome.recipe.seed for outcome in self.outcomes)

    @cached_property
    def by_class(self) -> ClassMeans:
        """The error of every class; of many labels the average precision of each."""
        found = self.values_by_class(self.seeds)
        if self.recipe.many_labels:  # a fold without a label says nothing of it; the others do
            return ClassMeans(*known_means(found))
        return ClassMeans(found.mean(axis=0), found.std(axis=0, ddof=1) if len(found) > 1 else None)

    def values_by_class(self, seeds: Sequence[int]) -> Floats:
        """Return the same in some seeds, shape (seeds, C); NaN where it does not apply."""
        of_seed = {o.recipe.seed: o.by_class for o in self.outcomes}
        return np.asarray([[math.nan if e is None else e for e in of_seed[seed]] for seed in seeds])

    @cached_property
    def confusion(self) -> npt.NDArray[np.int64] | None:
        """Test samples of each true class (rows) taken for each class, all seeds together."""
        found = [o.result.confusion for o in self.outcomes]
        if any(table is None for table in found):
            return None
        total: npt.NDArray[np.int64] = np.sum(np.asarray(found, dtype=np.int64), axis=0)
        return total

    @cached_property
    def reliability(self) -> tuple[tuple[int, float, float], ...]:
        """Samples, mean confidence and accuracy in bins of confidence, all seeds together; or empty."""
        return _pooled([o.result.reliability for o in self.outcomes])

    @cached_property
    def group_reliability(self) -> tuple[tuple[tuple[int, float, float], ...], ...]:
        """The same of the samples taken for a many-, medium-, few-shot class; or empty."""
        found = [o.result.group_reliability for o in self.outcomes]
        if not found or any(groups is None for groups in found):
            return ()
        return tuple(_pooled([groups[i] for groups in found if groups is not None]) for i in range(3))

    @cached_property
    def curve(self) -> Curve | None:
        """Training loss and test error by epoch; None where no run kept a history."""
        losses: dict[int, list[float]] = {}
        errors: dict[int, list[float]] = {}
        for line in (line for outcome in self.outcomes for line in outcome.history):
            losses.setdefault(line.epoch, []).append(line.loss)
            if line.test_error is not None:
                errors.setdefault(line.epoch, []).append(line.test_error)
        if not losses:
            return None
        epochs, tested = sorted(losses), sorted(errors)
        return Curve(
            tuple(epochs),
            tuple(float(np.mean(losses[e])) for e in epochs),
            tuple(tested),
            tuple(float(np.mean(errors[e])) for e in tested),
        )


def known_means(found: Floats) -> tuple[Floats, Floats | None]:
    """Return mean and deviation of each column, NaN left out; the deviation is None for one row."""
    known = ~np.isnan(found)
    number = known.sum(axis=0)
    mean = np.where(number > 0, np.nansum(found, axis=0) / np.maximum(number, 1), math.nan)
    squares = np.where(known, (found - mean) ** 2, 0).sum(axis=0)
    sd = np.where(number > 1, np.sqrt(squares / np.maximum(number - 1, 1)), math.nan)
    return mean, sd if len(found) > 1 else None


def _pooled(
    found: Sequence[tuple[tuple[int, float, float], ...] | None],
) -> tuple[tuple[int, float, float], ...]:
    if any(bins is None for bins in found):
        return ()
    pooled: dict[int, list[float]] = {}
    for samples, confidence, accuracy in (b for bins in found for b in bins or ()):
        # bins are told apart by where their mean lies: 15 equal ones, an edge belonging to the lower
        place = pooled.setdefault(max(0, int(np.ceil(confidence * 15 - 1e-9)) - 1), [0.0, 0.0, 0.0])
        place[0] += samples
        place[1] += samples * confidence
        place[2] += samples * accuracy
    return tuple((int(n), c / n, r / n) for _, (n, c, r) in sorted(pooled.items()))


def _plain(value: Setting) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
