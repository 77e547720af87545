"""Definitions straight from the paper's formulas, in 80 digits (mpmath) or plain float64.

Nothing here imports longtail: the tests compare the library with these, and so do the benchmarks.
"""

from fractions import Fraction

import mpmath
import numpy as np

mpmath.mp.dps = 80


def exact(x):
    """A number of any precision as an mpmath number, without rounding it to float64 first."""
    if isinstance(x, Fraction):
        return mpmath.mpf(x.numerator) / x.denominator
    return mpmath.mpf(int(x)) if isinstance(x, (int, np.integer)) else mpmath.mpf(float(x))


def beta_of(volume):
    """Section 3.2: beta = (N - 1) / N."""
    return mpmath.mpf(1) if volume == np.inf else (exact(volume) - 1) / exact(volume)


def effective_number(n, beta=None, volume=None):
    """E_n = (1 - beta^n) / (1 - beta), with the limits 1 (beta = 0, n > 0) and n (beta = 1)."""
    n, b = exact(n), beta_of(volume) if beta is None else exact(beta)
    if n == 0:
        return mpmath.mpf(0)
    if b == 1:
        return n
    if b == 0:
        return mpmath.mpf(1)
    # 1 - beta^n loses as many digits as n * (1 - beta) is small: work with that many more
    with mpmath.workdps(80 + max(0, -int(mpmath.floor(mpmath.log10(n * (1 - b)))))):
        return (1 - b**n) / (1 - b)


def class_weights(counts, scheme, beta=None, volume=None, normalize="classes"):
    """Section 4: alpha_i proportional to 1 / E_{n_i}, summing to the number of non-empty classes.

    ``normalize="samples"``: the mean over the samples is 1. None: raw. Empty classes weigh 0.
    """
    sizes = {
        "none": lambda n: mpmath.mpf(1),
        "inverse": exact,
        "inverse_sqrt": lambda n: mpmath.sqrt(exact(n)),
        "effective": lambda n: effective_number(n, beta, volume),
    }[scheme]
    raw = [mpmath.mpf(0) if n == 0 else 1 / sizes(n) for n in counts]
    if normalize is None:
        return raw
    if normalize == "classes":
        scale = sum(n > 0 for n in counts) / sum(raw)
    else:
        n = [exact(x) for x in counts]
        scale = sum(n) / sum(a * w for a, w in zip(n, raw, strict=True))
    return [w * scale for w in raw]


def relative_error(got, want):
    """The largest relative error of an array against mpmath numbers; 0 must be met exactly."""
    worst = mpmath.mpf(0)
    for g, w in zip(np.asarray(got, dtype=np.float64).ravel().tolist(), want, strict=True):
        if w == 0:
            worst = max(worst, mpmath.mpf(0) if g == 0 else mpmath.inf)
        else:
            worst = max(worst, abs(mpmath.mpf(g) - w) / abs(w))
    return float(worst)


def expected_distinct(n, volume):
    """The same number by another road: prototypes seen in n uniform draws from N, added one by one."""
    seen = 0.0
    for _ in range(n):
        seen += 1.0 - seen / volume
    return seen


def naive_class_weights(counts, beta):
    """The line that everyone copies, in float64: fine away from its cancellations."""
    raw = (1.0 - beta) / (1.0 - np.power(beta, np.asarray(counts, dtype=np.float64)))
    return raw / raw.sum() * len(raw)
