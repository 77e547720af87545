"""The published methods, one row each; a package of your own adds one by ``CATALOGUE.register``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from longtail._registry import Registry
from longtail.methods.method import Method, Rule
from longtail.weights import DEFAULT_BETA

__all__ = ["CATALOGUE", "get", "grid"]

CATALOGUE: Final = Registry[Method]("method")

_CUI = "Cui et al. (CVPR 2019)"

for _row in (
    Method("plain", source="no balancing"),
    Method("inverse", weight=Rule("inverse"), source=f"weights 1/n: a baseline of {_CUI}, section 5"),
    Method("inverse_sqrt", weight=Rule("inverse_sqrt"), source="weights 1/sqrt(n): Mahajan et al. (2018)"),
    Method("effective", weight=Rule("effective"), source=f"class-balanced loss: {_CUI}, equation 12"),
    Method(
        "deferred_effective",
        weight=Rule("effective"),
        schedule=Rule("deferred"),
        source="CB-DRW: Cao et al. (NeurIPS 2019), section 3.3",
    ),
    Method(
        "logit_adjusted",
        offset=Rule("log_prior"),
        source="Menon et al. (ICLR 2021), equation 10; balanced softmax at tau 1",
    ),
    Method(
        "balanced_softmax",
        offset=Rule("log_prior"),
        source="Ren et al. (NeurIPS 2020), equation 4: logit_adjusted at tau 1",
    ),
    Method(
        "posthoc_logit_adjusted",
        adjustment=Rule("logit"),
        source="Menon et al. (ICLR 2021), equation 9: plain training, adjusted afterwards",
    ),
    Method(
        "complementary",
        weight=Rule("effective"),
        offset=Rule("log_weighted_prior"),
        source="of this house: any weight, one target",
    ),
    Method(
        "vs",
        offset=Rule("log_prior", tau=1.0),
        scale=Rule("class_dependent_temperature"),
        source="vector scaling: Kini et al. (NeurIPS 2021), equation 2",
    ),
    Method("cdt", scale=Rule("class_dependent_temperature"), source="Ye et al. (2020), equation 7"),
    Method("class_aware", sampling=Rule("inverse"), source="class-aware sampling: Shen et al. (ECCV 2016)"),
    Method(
        "sqrt_sampling", sampling=Rule("inverse_sqrt"), source="square-root sampling: Mahajan et al. (2018)"
    ),
    Method(
        "progressive_sampling",
        sampling=Rule("progressive"),
        source="Kang et al. (ICLR 2020), equation 2",
    ),
    Method(
        "deferred_sampling",
        sampling=Rule("inverse"),
        schedule=Rule("deferred"),
        source="DRS: Cao et al. (NeurIPS 2019), section 4.3",
    ),
):
    CATALOGUE.register(_row.name, _row)


def get(name: str, **settings: Any) -> Method:
    """Return a method of the catalogue, with some settings of your own.

    Args:
        name: one of ``longtail.methods.NAMES``.
        **settings: fields of `Method`, such as ``loss="focal"``, or settings of its rules, such as
            ``beta=0.99``.

    Returns:
        The method.

    Raises:
        ValueError: no such method or setting, or a value out of range.

    Example:
        >>> get("effective", beta=0.99, loss="focal").weight
        Rule('effective', beta=0.99)
    """
    return CATALOGUE[name].with_settings(**settings)


def grid(
    losses: Iterable[str],
    schemes: Iterable[str],
    *,
    beta: float = float(DEFAULT_BETA),
    gamma: float = 2.0,
) -> tuple[Method, ...]:
    """Return every loss with every weighting, losses outermost: the paper's two axes.

    Args:
        losses: names of loss forms, such as "softmax".
        schemes: names of weight rules, such as "effective".
        beta: of the schemes that take one.
        gamma: of the focal losses.

    Returns:
        One method a pair.

    Raises:
        ValueError: an unknown loss or scheme, or a number out of range.

    Example:
        >>> [method.label for method in grid(["softmax"], ["none", "inverse"])]
        ['softmax none', 'softmax inverse']
    """
    schemes = list(schemes)
    weights = [Rule(scheme, beta=beta) if scheme == "effective" else Rule(scheme) for scheme in schemes]
    return tuple(Method(loss=loss, weight=weight, gamma=gamma) for loss in losses for weight in weights)
