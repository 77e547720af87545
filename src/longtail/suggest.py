"""Which beta? A table of what each does to the counts at hand, and a reason; never a bare number.

Counts alone do not say. The rule that once stood here, the largest beta whose weighted sample keeps an
effective share of at least `SHARE` (Kish 1965), was fitted to Figures 9 and 10 of Cui et al. (CVPR 2019), and
it was to stay a suggestion only while its mean regret on other domains, balanced error over the best beta of
the grid, was at most `REGRET` points. `longtail reproduce beta` measured more (docs/choosing-beta.md): the
share is now a warning, and held-out errors decide.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks
from longtail.evaluation import PairedDifference, Summary, paired_difference, summarize
from longtail.evaluation.statistics import bonferroni
from longtail.weights import class_weights

__all__ = ["BETAS", "REGRET", "SHARE", "BetaAdvice", "BetaRow", "effective_share", "suggest_beta"]

BETAS: Final = (0.9, 0.99, 0.999, 0.9999)  # the paper's
SHARE: Final = 0.6
REGRET: Final = 1.0

_PLAIN, _ADJUSTED = ("plain", "none"), "logit_adjusted"


def effective_share(counts: object, weights: object) -> float:
    """Return how much of a sample is left once it is weighted, in (0, 1]: (sum n w)^2 / (sum n w^2 sum n).

    Args:
        counts: training samples per class, as for `longtail.class_weights`.
        weights: one a class, of any scale, in the order of the counts, or by the names of the counts.

    Raises:
        ValueError: weights of another length, negative, or all zero where there are samples.

    Example:
        >>> effective_share([90, 10], [1.0, 1.0])
        1.0
        >>> round(effective_share([90, 10], [1 / 90, 1 / 10]), 2)
        0.36

    Source: Kish, "Survey Sampling", 1965: the effective sample size of unequal weights.
    """
    _arrays.refuse_weights("counts", counts)
    n = np.asarray(_arrays.unwrap("counts", counts)[0], dtype=np.float64)
    w = _arrays.align("weights", weights, counts, remedy="give one for each class of counts")
    w = np.asarray(_arrays.unwrap("weights", w)[0], dtype=np.float64)
    if n.shape != w.shape:
        raise ValueError(f"weights must be one a class, {n.shape[0]}, got shape {w.shape}; check their order")
    if not (np.isfinite(w).all() and (w >= 0).all() and (n * w).sum() > 0):
        raise ValueError(f"weights must be >= 0 and not all zero, got {_checks.describe(w)}; check them")
    w = w / w.max()
    return float((n * w).sum() ** 2 / ((n * w * w).sum() * n.sum()))


@dataclass(frozen=True)
class BetaRow:
    """What one beta does.

    Attributes:
        beta: in [0, 1]; 0 is no weights.
        ratio: largest over smallest weight.
        share: how much of the sample the weights leave, in (0, 1], see `effective_share`.
        error: of the evaluations with it; None without.
        versus_plain: paired difference to the evaluations without weights; None without.
    """

    beta: float
    ratio: float
    share: float
    error: Summary | None = None
    versus_plain: PairedDifference | None = None


@dataclass(frozen=True)
class BetaAdvice:
    """A table and a reason.

    Attributes:
        rows: one a beta, no weights first.
        beta: what is suggested; None where nothing is.
        answer: "beta" | "no weights" | "not known from counts" | "not distinguishable" | "logit adjustment
            instead".
        reason: in plain words.
    """

    rows: tuple[BetaRow, ...]
    beta: float | None
    answer: str
    reason: str

    def __str__(self) -> str:
        measured = any(row.error is not None for row in self.rows)
        head = f"{'beta':>8} {'weights 1 to':>12} {'share left':>10}"
        lines = [head + (f" {'error %':>8} {'vs plain':>8}" if measured else "")]
        for row in self.rows:
            text = f"{row.beta:>8g} {row.ratio:>12.4g} {row.share:>10.2f}"
            if measured:
                text += f" {_percent(row.error, '8.1f')} {_percent(row.versus_plain, '+8.1f')}"
            lines.append(text.rstrip() + ("  <" if row.beta == self.beta else ""))
        return "\n".join([*lines, self.reason])


def suggest_beta(
    counts: object,
    evaluations: Mapping[Any, Sequence[float] | npt.ArrayLike] | None = None,
    *,
    betas: Sequence[float] = BETAS,
    test_to_train: float = 0.0,
    confidence: float = 0.95,
) -> BetaAdvice:
    """Say which beta of the effective number to take, with the table behind it.

    Without evaluations it suggests none: over six domains no rule of counts alone found the best beta. It
    shows what each does, and warns of those that leave little of the sample. With evaluations, by them: a
    beta is suggested if its balanced error is below that without weights by more than chance explains, after
    a correction for the number of betas. Where logit adjustment gains, too, it is the answer unless that beta
    is surely better: it has nothing to choose.

    Args:
        counts: training samples per class, as for `longtail.class_weights`.
        evaluations: balanced errors in [0, 1] of seeds or folds, *never on the test set*, by what was
            trained: a beta, "plain" for no weights (needed), and "logit_adjusted" if you have it. All in the
            order of the same seeds.
        betas: which to look at; those with evaluations come in any case.
        test_to_train: for folds, 1 / (K - 1), as in `longtail.evaluation.paired_difference`.
        confidence: of all intervals together.

    Returns:
        The advice; print it.

    Raises:
        TypeError: `evaluations` is no mapping.
        ValueError: counts or betas out of range, no "plain" among the evaluations, errors of another number.

    Example:
        >>> print(suggest_beta([5000, 500, 50]))
            beta weights 1 to share left
               0            1       1.00
             0.9        1.005       1.00
            0.99        2.532       0.98
           0.999        20.36       0.33
          0.9999        78.89       0.09
        Counts alone do not say which beta. On held-out data, compare no weights, two or three of these and
        logit adjustment, and give their errors as evaluations.
        Mind: beta 0.999, 0.9999 leave less than 0.6 of the sample's worth (Kish): few samples weigh much.

    Source: the grid is that of Cui et al. (CVPR 2019), Figures 8 to 10; what rules of counts cost is in
    docs/choosing-beta.md.
    """
    confidence = _checks.number("confidence", confidence, low=0.0, high=1.0, open_low=True, open_high=True)
    _arrays.refuse_weights("counts", counts)
    n = np.asarray(_arrays.unwrap("counts", counts)[0], dtype=np.float64)
    wanted = [_checks.number("beta", beta, low=0.0, high=1.0) for beta in betas]
    measured, adjusted = _sorted(evaluations)
    grid = sorted({0.0, *wanted, *measured})
    if len(grid) < 2:
        raise ValueError("betas must name one beta above 0 at least, got none; leave it out for the paper's")
    plain = measured.get(0.0)
    each = bonferroni(confidence, max(1, len(measured) - 1))
    rows = tuple(_row(n, beta, measured.get(beta), plain, each, test_to_train) for beta in grid)
    if plain is not None:
        return _by_evaluations(rows, measured, adjusted, each, test_to_train)
    return _by_counts(rows)


def _row(
    n: npt.NDArray[np.float64],
    beta: float,
    errors: Sequence[float] | None,
    plain: Sequence[float] | None,
    confidence: float,
    test_to_train: float,
) -> BetaRow:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a beta does nothing is what the table shows
        weights = class_weights(n, "effective", beta=beta)
    seen = weights[n > 0]
    error = versus = None
    if errors is not None:
        error = summarize(errors, test_to_train=test_to_train)
        if plain is not None and beta > 0:
            versus = paired_difference(errors, plain, confidence, test_to_train=test_to_train)
    return BetaRow(beta, float(seen.max() / seen.min()), effective_share(n, weights), error, versus)


def _by_counts(rows: tuple[BetaRow, ...]) -> BetaAdvice:
    if all(row.ratio < 1.01 for row in rows):
        reason = f"Every beta up to {rows[-1].beta:g} weighs all classes alike, so it does nothing."
        return BetaAdvice(rows, None, "no weights", reason)
    reason = (
        "Counts alone do not say which beta. On held-out data, compare no weights, two or three of these "
        "and\nlogit adjustment, and give their errors as evaluations."
    )
    if torn := [f"{row.beta:g}" for row in rows if row.share < SHARE]:
        verb = "leave" if len(torn) > 1 else "leaves"
        reason += (
            f"\nMind: beta {', '.join(torn)} {verb} less than {SHARE:g} of the sample's worth (Kish): few "
            "samples weigh much."
        )
    return BetaAdvice(rows, None, "not known from counts", reason)


def _by_evaluations(
    rows: tuple[BetaRow, ...],
    measured: Mapping[float, Sequence[float]],
    adjusted: Sequence[float] | None,
    confidence: float,
    test_to_train: float,
) -> BetaAdvice:
    plain = measured[0.0]
    tried = [row for row in rows if row.versus_plain is not None and row.error is not None]
    best = min(tried, key=lambda row: (row.error.mean if row.error else math.inf, row.beta), default=None)
    gained = best is not None and _gains(best.versus_plain)
    if adjusted is not None:
        over_plain = paired_difference(adjusted, plain, confidence, test_to_train=test_to_train)
        if _gains(over_plain) and not _beaten(best, measured, adjusted, confidence, test_to_train):
            against = ""
            if best is not None and best.error is not None:
                against = f", the best beta, {best.beta:g}, {100 * best.error.mean:.1f} %"
            reason = (
                f"Logit adjustment instead: it has {100 * summarize(adjusted).mean:.1f} %{against}. Its gain "
                f"over no weights, {_told(over_plain)}, is more than\nchance explains, and it has no beta to "
                "choose."
            )
            return BetaAdvice(rows, None, "logit adjustment instead", reason)
    if best is None or not gained:
        said = "no beta was tried" if best is None else f"the best, {best.beta:g}: {_told(best.versus_plain)}"
        reason = f"Not distinguishable from no weights ({said}); more seeds or more held-out data would tell."
        return BetaAdvice(rows, None, "not distinguishable", reason)
    reason = (
        f"beta {best.beta:g} has the lowest error; its gain over no weights, {_told(best.versus_plain)}, is "
        "more than chance explains."
    )
    alike = [row.beta for row in tried if row is not best and _gains(row.versus_plain)]
    if alike:
        reason += f" So do {', '.join(f'{beta:g}' for beta in alike)}: the choice among them is not sure."
    return BetaAdvice(rows, best.beta, "beta", reason)


def _sorted(
    evaluations: Mapping[Any, Any] | None,
) -> tuple[dict[float, Sequence[float]], Sequence[float] | None]:
    """Return the errors by beta, no weights at 0, and those of logit adjustment."""
    if evaluations is None:
        return {}, None
    if not isinstance(evaluations, Mapping):
        raise TypeError(
            f"evaluations must map a beta to its errors, got {_checks.describe(evaluations)}; "
            'write {"plain": [...], 0.99: [...]}'
        )
    found: dict[float, Sequence[float]] = {}
    adjusted = None
    for key, errors in evaluations.items():
        values = np.asarray(errors, dtype=np.float64)
        if values.ndim != 1 or not len(values) or not ((values >= 0) & (values <= 1)).all():
            raise ValueError(
                f"evaluations[{key!r}] must be errors in [0, 1], one a seed or fold, got "
                f"{_checks.describe(values)}; divide percentages by 100"
            )
        if key == _ADJUSTED:
            adjusted = values.tolist()
        elif key in _PLAIN:
            found[0.0] = values.tolist()
        elif isinstance(key, str):
            raise ValueError(
                f"evaluations must have a beta, 'plain' or '{_ADJUSTED}' as keys, got {key!r}; rename it"
            )
        else:
            found[_checks.number("a key of evaluations", key, low=0.0, high=1.0)] = values.tolist()
    if 0.0 not in found:
        raise ValueError("evaluations have nothing without weights; add 'plain' with the same seeds")
    sizes = {len(errors) for errors in (*found.values(), *([adjusted] if adjusted is not None else []))}
    if len(sizes) > 1:
        raise ValueError(
            f"evaluations must be of the same seeds, got {sorted(sizes)} errors; leave out what is not in all"
        )
    return found, adjusted


def _beaten(
    best: BetaRow | None,
    measured: Mapping[float, Sequence[float]],
    adjusted: Sequence[float],
    confidence: float,
    test_to_train: float,
) -> bool:
    """Whether the best beta errs less than logit adjustment, by more than chance explains."""
    if best is None:
        return False
    ours = measured[best.beta]
    return _gains(paired_difference(ours, adjusted, confidence, test_to_train=test_to_train))


def _gains(difference: PairedDifference | None) -> bool:
    return difference is not None and difference.significant and difference.mean < 0


def _told(difference: PairedDifference | None) -> str:
    if difference is None:
        return "not measured"
    if difference.low is None or difference.high is None:
        return f"{100 * difference.mean:+.1f} points from one run"
    return f"{100 * difference.mean:+.1f} points [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


def _percent(value: Summary | PairedDifference | None, form: str) -> str:
    return " " * int(form.strip("+").partition(".")[0]) if value is None else f"{100 * value.mean:{form}}"
