"""The loss forms by name. A new one is a formula, and an entry here.

This file needs no torch, so that a recipe and the command line can name a loss without it.
"""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from longtail._registry import Registry


@dataclass(frozen=True)
class Form:
    """A form of the loss.

    Attributes:
        name: what recipes and the command line call it.
        activation: what makes probabilities of the logits that it trains.
        formula: a function of a checked batch, and of gamma where it takes one, that returns the weighted
            loss of each sample (:mod:`longtail.losses.softmax` has examples); or where to find it.
        takes_gamma: whether it is a focal loss.
        fused: whether :mod:`longtail.losses.fast` knows it.
        settings: its own numbers by name, with what they are by default; the formula takes them by name.
        takes_counts: whether the formula takes ``counts`` and ``num_samples``, too; it then does what class
            weights do, which are all 1.
    """

    name: str
    activation: Literal["softmax", "sigmoid"]
    formula: Callable[..., Any] | str
    takes_gamma: bool = False
    fused: bool = False
    settings: Mapping[str, float] = field(default_factory=dict, hash=False)
    takes_counts: bool = False

    def load(self) -> Callable[..., Any]:
        """Return the formula, imported."""
        if isinstance(self.formula, str):
            found: Callable[..., Any] = pkgutil.resolve_name(self.formula)
            return found
        return self.formula


SOFTMAX = Form("softmax", "softmax", "longtail.losses.softmax:cross_entropy", fused=True)
SIGMOID = Form("sigmoid", "sigmoid", "longtail.losses.sigmoid:cross_entropy", fused=True)
FOCAL = Form("focal", "sigmoid", "longtail.losses.sigmoid:focal", takes_gamma=True, fused=True)
SOFTMAX_FOCAL = Form(
    "softmax_focal", "softmax", "longtail.losses.softmax:focal", takes_gamma=True, fused=True
)

ASYMMETRIC = Form(
    "asymmetric",
    "sigmoid",
    "longtail.losses.sigmoid:asymmetric",
    settings={"gamma_neg": 4.0, "gamma_pos": 1.0, "clip": 0.05},
)
DISTRIBUTION_BALANCED = Form(
    "distribution_balanced",
    "sigmoid",
    "longtail.losses.sigmoid:distribution_balanced",
    takes_gamma=True,
    settings={
        **{"map_alpha": 0.1, "map_beta": 10.0, "map_mu": 0.2},
        **{"neg_scale": 2.0, "init_bias": 0.05, "focal_balance": 2.0},
    },
    takes_counts=True,
)

FORMS = Registry[Form]("loss")
for _form in (SOFTMAX, SIGMOID, FOCAL, SOFTMAX_FOCAL):
    FORMS.register(_form.name, _form)

# for many labels alone: of one class a sample, recipes do not take them
MANY_LABELS = {form.name: form for form in (ASYMMETRIC, DISTRIBUTION_BALANCED)}
# what weighs in a sigmoid loss: see longtail.losses.functional
WEIGHTINGS = ("sample", "class", "positive")


def form_of(loss: str) -> Form:
    """Return a form by its name, also one for many labels alone."""
    return MANY_LABELS.get(loss) or FORMS[loss]


def smoothing_limit(activation: str, span: float, classes: int) -> float:
    """Return from which label smoothing on the class of the largest offset can no longer be predicted.

    Where a sample is of class k for certain, cross-entropy is least with probability h = 1 - e + e / C for k
    and l = e / C for the others, so that the logits without the offset are log h - a_k and log l - a_j (their
    log-odds, for a sigmoid). k stays the largest if h / l (the ratio of the odds) is above exp(a_k - a_j).

    Args:
        activation: "softmax" | "sigmoid".
        span: of the offset: its largest value less its smallest.
        classes: C.
    """
    over = math.expm1(min(span, 700.0)) / classes
    if activation == "softmax":
        return 1.0 / (1.0 + over)
    return 2.0 / (1.0 + math.sqrt(1.0 + 4.0 * over * (classes - 1) / classes))
