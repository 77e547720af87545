"""What counts alone say of a tail, a test set and groups: short formulas, each with its source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from longtail import _checks
from longtail.counts import ClassCounts
from longtail.effective import effective_number
from longtail.sources.counted import needs

BETAS: Final = (0.9, 0.99, 0.999, 0.9999)
THIN: Final = 5  # test samples below which a class is named
_ALIKE: Final = 1.01  # as in class_weights: what differs by less does nothing
_Z: Final = 1.959963984540054  # of 95 %

Numbers = npt.NDArray[np.float64]


# ---- the tail


def gini(counts: npt.ArrayLike) -> float:
    """Return the Gini coefficient of class sizes: 0 where all are equal, (C - 1) / C where one has all.

    Args:
        counts: shape (C,), classes without samples included.

    Source: Yang et al., "A survey on long-tailed visual recognition", IJCV 2022, section 3.
    """
    sizes = np.sort(np.asarray(counts, np.float64))
    total, number = sizes.sum(), len(sizes)
    if not total:
        return math.nan
    return float(2 * (np.arange(1, number + 1) * sizes).sum() / (number * total) - (number + 1) / number)


@dataclass(frozen=True)
class EffectiveShare:
    """What a weighting leaves of the sample.

    Attributes:
        scheme: "none", "inverse", "inverse_sqrt" or "effective".
        beta: of "effective", else None.
        share: Kish's effective sample size over the sample's size, in (0, 1]: with 0.25 the mean of the
            weighted loss is as uncertain as that of a quarter of the samples.
        does_nothing: whether all classes weigh alike within 1 %.
        is_inverse: whether the weights are those of "inverse" within 1 %.
    """

    scheme: str
    beta: float | None
    share: float
    does_nothing: bool = False
    is_inverse: bool = False

    @property
    def name(self) -> str:
        """The scheme, with its beta."""
        return self.scheme if self.beta is None else f"{self.scheme} beta={self.beta!r}"


def effective_shares(counts: npt.ArrayLike, betas: Sequence[float] = BETAS) -> tuple[EffectiveShare, ...]:
    """Return the effective share of every weighting: (sum n w)^2 / (sum n w^2 * sum n).

    Args:
        counts: samples of each class, at least one above 0; empty classes take no part.
        betas: of the effective number.

    Source: Kish, "Survey Sampling", Wiley 1965, section 11.7.
    """
    n = np.asarray(counts, np.float64)
    n = n[n > 0]
    even = bool(n.max() <= _ALIKE * n.min())
    shares = []
    for scheme, beta in (("none", None), ("inverse_sqrt", None), *(("effective", b) for b in betas),
                         ("inverse", None)):  # fmt: skip
        size = {"none": np.ones_like(n), "inverse": n, "inverse_sqrt": np.sqrt(n)}.get(scheme)
        if size is None:
            size = np.asarray(effective_number(n, beta))
        w = size.min() / size
        share = float((n * w).sum() ** 2 / ((n * w * w).sum() * n.sum()))
        nothing = scheme != "none" and not even and bool(size.max() <= _ALIKE * size.min())
        ratio = w * n
        same = scheme == "effective" and not even and bool(ratio.max() <= _ALIKE * ratio.min())
        shares.append(EffectiveShare(scheme, beta, share, nothing, same))
    return tuple(shares)


# ---- the test set


@dataclass(frozen=True)
class TestSet:
    """What a test set can and cannot show.

    One model's balanced error is the mean over classes of 1 - recall. With m_c test samples and recall r_c
    its standard error is sqrt(sum r_c (1 - r_c) / m_c) / C. The difference of two models has sqrt(2) times
    that, where they err independently, and the mean over S seeds the S-th part of the variance, where seeds
    do, too; the paired t interval over seeds then reaches t(S - 1) times the root of it to both sides. Both
    assumptions flatter the test set if anything: seeds are tested on the same samples.

    Attributes:
        counts: test samples by class.
        empty: classes without a test sample: nothing can be said of them, and they are left out below.
        thin: classes with 1 to 4 test samples.
        error_margin: half of the 95 % interval of one model's balanced error, a share; None without samples.
        visible: the smallest difference of two models' balanced errors, a share, that the 95 % interval over
            `seeds` seeds tells from 0.
        visible_by_group: the same if the samples of a group stand and fall together; None without groups.
        seeds: runs of each model.
        recall: what is assumed of every class, or was given.
    """

    __test__ = False  # no test, whatever pytest thinks of its name

    counts: ClassCounts
    empty: tuple[str, ...]
    thin: tuple[str, ...]
    error_margin: float | None
    visible: float | None
    visible_by_group: float | None
    seeds: int
    recall: float | tuple[float, ...]


def resolution(
    counts: ClassCounts,
    *,
    seeds: int = 3,
    recall: float | Sequence[float] = 0.8,
    groups: npt.ArrayLike | None = None,
) -> TestSet:
    """Return what a test set of these class sizes can show; see `TestSet` for the formula.

    Args:
        counts: test samples by class.
        seeds: runs of each model, at least 1; with one, the interval is the normal one of a single run.
        recall: assumed share of right answers, of every class or one number a class.
        groups: distinct groups of each class, where samples come in groups.

    Raises:
        ValueError: seeds or a recall out of range, or another number of recalls than classes.
    """
    seeds = _checks.integer("seeds", seeds, low=1)
    values = [recall] * len(counts) if isinstance(recall, (int, float)) else list(recall)
    if len(values) != len(counts):
        raise ValueError(f"recall must be one number or {len(counts)}, one a class, got {len(values)}")
    r = np.array([_checks.number("recall", value, low=0, high=1) for value in values])
    m = np.asarray(counts.counts, np.float64)
    names = tuple(map(str, counts.names))

    def error(units: Numbers) -> float | None:
        known = m > 0
        if not known.any():
            return None
        return float(np.sqrt((r * (1 - r))[known] / units[known] @ np.ones(known.sum())) / known.sum())

    def visible(single: float | None) -> float | None:
        if single is None:
            return None
        reach = _Z if seeds == 1 else float(_special().stdtrit(seeds - 1, 0.975))
        return reach * math.sqrt(2 / seeds) * single

    single = error(m)
    return TestSet(
        counts,
        tuple(name for name, size in zip(names, m, strict=True) if size == 0),
        tuple(name for name, size in zip(names, m, strict=True) if 0 < size < THIN),
        None if single is None else _Z * single,
        visible(single),
        None if groups is None else visible(error(np.asarray(groups, np.float64))),
        seeds,
        recall if isinstance(recall, (int, float)) else tuple(values),
    )


# ---- groups


@dataclass(frozen=True)
class ClassGroups:
    """The groups of one class: its tracks, patients, sources.

    Attributes:
        name: the class.
        samples: of the training part.
        groups: distinct ones among them.
        once: how many were seen once.
        new: the probability that the next sample is of a group not seen yet, once / samples; None where
            samples do not come one by one, see `why`.
        low: lower end of its 95 % interval.
        high: upper end.
        why: why there is no `new`: no samples, one group, or samples that come in batches.
        test_groups: distinct groups of its test samples; None without a test part.
    """

    name: str
    samples: int
    groups: int
    once: int
    new: float | None
    low: float | None
    high: float | None
    why: str = ""
    test_groups: int | None = None

    @property
    def coverage(self) -> float | None:
        """Good and Turing's coverage: the probability that the next sample is of a group seen already."""
        return None if self.new is None else 1 - self.new


def groups_per_class(
    names: Sequence[str],
    sizes: Sequence[npt.NDArray[np.int64]],
    test_groups: Sequence[int] | None = None,
) -> tuple[ClassGroups, ...]:
    """Return what the sizes of each class's groups say of its next sample.

    The estimate takes samples as drawn one by one. Where group sizes differ far less than such draws would
    make them, over all classes together, samples come in batches, as with 30 frames of every track, and no
    probability is given. The test compares with Poisson draws that left at least one sample a group: lower
    tail of the chi-square test below 0.001.

    Args:
        names: of the classes.
        sizes: samples of each group, all above 0, an array a class.
        test_groups: groups of each class's test samples.

    Source: Good, "The population frequencies of species and the estimation of population parameters",
        Biometrika 1953; the interval is Esty's, "A normal limit law for a nonparametric estimator of the
        coverage of a random sample", Annals of Statistics 1983.
    """
    batches = _come_in_batches(sizes)
    found = []
    for c, (name, m) in enumerate(zip(names, sizes, strict=True)):
        n, once, twice = int(m.sum()), int((m == 1).sum()), int((m == 2).sum())
        why = "no samples" if n == 0 else "one group" if len(m) == 1 < n else batches
        new = low = high = None
        if not why:
            new = once / n
            half = _Z * math.sqrt(once * (1 - new) + 2 * twice) / n
            low, high = max(0.0, new - half), min(1.0, new + half)
        tests = None if test_groups is None else test_groups[c]
        found.append(ClassGroups(name, n, len(m), once, new, low, high, why, tests))
    return tuple(found)


def _come_in_batches(sizes: Sequence[npt.NDArray[np.int64]]) -> str:
    """Say that group sizes are far more even than draws one by one would leave them, or nothing."""
    statistic, freedom = 0.0, 0
    for m in sizes:
        if len(m) < 2 or m.max() == 1:
            continue
        mean = float(m.mean())
        # the rate of a Poisson variable whose mean above 0 this is, and that variable's variance
        rate = mean + float(_special().lambertw(-mean * math.exp(-mean)).real)
        statistic += float(((m - mean) ** 2).sum()) / (mean * (1 + rate - mean))
        freedom += len(m) - 1
    if not freedom or _special().chdtr(freedom, statistic) >= 0.001:
        return ""
    typical = float(np.median(np.concatenate(list(sizes))))
    return f"samples come in batches of about {typical:g}"


def _special() -> Any:
    return needs("scipy.special", "an audit needs", "report")
