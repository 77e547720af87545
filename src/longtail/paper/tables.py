"""Published figures, and the cells of the grids behind them.

Errors are those of Cui et al. (CVPR 2019), accuracies on skeletons those of Yang et al. (DD-Net, 2019); the
grid on traffic signs is the house's own.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from longtail import _checks

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
LONG_TAIL = (14, 16, 10)  # classes, filters, imbalance factor

# of the paper's four; with 90 images or more in every class, 0.9 (N = 10) leaves all weights equal
SIGN_BETAS = (0.99, 0.999, 0.9999)
SIGN_GAMMA = 0.5  # the paper's for natural long tails


@dataclass(frozen=True)
class Cell:
    """One setting of a table, to be run over seeds.

    Attributes:
        dataset: "cifar10" | "cifar20" | "cifar100".
        imbalance_factor: largest over smallest class.
        loss: "softmax" | "sigmoid" | "focal".
        gamma: of the focal loss; None for the others.
        beta: 0 is the plain loss.
    """

    dataset: str
    imbalance_factor: int
    loss: str
    gamma: float | None
    beta: float

    def __str__(self) -> str:
        gamma = "" if self.gamma is None else f" gamma {self.gamma:g}"
        return f"{self.dataset} imbalance {self.imbalance_factor} {self.loss}{gamma} beta {self.beta:g}"


def published() -> dict[Cell, float]:
    """Return the published error, in percent, of every cell that has one (Table 2, Figures 9 and 10)."""
    errors: dict[Cell, float] = {}
    for name in ("table2", "fig9", "fig10"):
        text = (files("longtail") / "paper" / f"{name}.csv").read_text(encoding="utf-8")
        for row in csv.DictReader(text.splitlines()):
            gamma = float(row["gamma"]) if row["gamma"] else None
            cell = Cell(row["dataset"], int(row["imbalance_factor"]), row["loss"], gamma, float(row["beta"]))
            errors.setdefault(cell, float(row["error_percent"]))
    return errors


def cells(
    table: str,
    *,
    datasets: Sequence[str] | None = None,
    imbalances: Sequence[int] | None = None,
    losses: Sequence[str] | None = None,
    betas: Sequence[float] | None = None,
    gammas: Sequence[float] | None = None,
) -> list[Cell]:
    """Return a table's cells, the most telling first.

    Imbalance 100 comes first; within an imbalance factor the plain losses and beta 0.9999, then the other
    betas. On balanced data (imbalance 1) all betas weigh alike, so only the plain losses are there.

    Args:
        table: "table2" | "fig8" | "fig9" | "fig10"; Table 2's class-balanced row is the best cell of the
            grids in Figures 8 and 10, so it has their cells.
        datasets: of the table's, to take only some.
        imbalances: any of 200, 100, 50, 20, 10, 1.
        losses: any of "softmax", "sigmoid", "focal".
        betas: any of 0 (the plain losses), 0.9, 0.99, 0.999, 0.9999.
        gammas: of the focal loss, any of 0.5, 1, 2.

    Raises:
        ValueError: a name or number that the table does not have.

    Example:
        >>> str(cells("fig9", losses=["focal"])[0])
        'cifar20 imbalance 100 focal gamma 1 beta 0'
    """
    _checks.choice("table", table, TABLES, also=", 'table3', 'ddnet', 'gtsrb'")
    chosen = [_checks.choice("dataset", d, TABLES[table]) for d in (datasets or TABLES[table])]
    kinds = [_checks.choice("loss", loss, LOSSES) for loss in (losses or LOSSES)]
    factors = list(imbalances or IMBALANCES)
    _known("imbalance", factors, IMBALANCES)
    _known("beta", betas, BETAS)
    _known("gamma", gammas, GAMMAS)
    if gammas and "focal" not in kinds:
        raise ValueError(
            f"gamma belongs to the focal loss, got loss {', '.join(kinds)}; leave one of them out"
        )
    exponents = [gamma for gamma in GAMMAS if not gammas or gamma in gammas]
    variants: list[tuple[str, float | None]] = [
        (loss, gamma) for loss in kinds for gamma in (exponents if loss == "focal" else (None,))
    ]
    found = []
    for (first, some), factor in itertools.product(enumerate((BETAS[:2], BETAS[2:])), factors):
        for dataset, (loss, gamma), beta in itertools.product(chosen, variants, some):
            if factor != 1 or (first == 0 and beta == 0.0):
                found.append(Cell(dataset, factor, loss, gamma, beta))
    return [cell for cell in found if not betas or cell.beta in betas]


def _known(name: str, values: Sequence[float] | None, options: Sequence[float]) -> None:
    for value in values or ():
        if value not in options:
            raise ValueError(f"{name} must be one of {', '.join(f'{o:g}' for o in options)}, got {value!r}")


@dataclass(frozen=True)
class SkeletonCell:
    """One setting of DD-Net on JHMDB, to be run over seeds.

    Attributes:
        classes: 14 | 21.
        split: 1 | 2 | 3; None stands for all three.
        filters: 16 | 32 | 64.
        loss: "softmax" | "focal" (with gamma 1).
        beta: 0 is the plain loss; 1, where the effective number is the count, is the inverse frequency.
        imbalance_factor: largest over smallest class; 1 is the whole training set as it is.
    """

    classes: int
    split: int | None
    filters: int
    loss: str
    beta: float
    imbalance_factor: int

    def __str__(self) -> str:
        split = "" if self.split is None else f" split {self.split}"
        tail = "" if self.imbalance_factor == 1 else f" imbalance {self.imbalance_factor}"
        name = f"jhmdb{self.classes}{split}{tail} filters {self.filters}"
        return f"{name} {self.loss} beta {self.beta:g}"


# Table 3 of Yang et al. (2019): mean of the three splits, whole training sets
ACCURACIES = {
    SkeletonCell(21, None, 64, "softmax", 0.0, 1): 77.2,
    SkeletonCell(21, None, 32, "softmax", 0.0, 1): 73.7,
}


def skeleton_cells(
    *,
    datasets: Sequence[str] | None = None,
    imbalances: Sequence[int] | None = None,
    losses: Sequence[str] | None = None,
    filters: Sequence[int] | None = None,
) -> list[SkeletonCell]:
    """Return the cells of DD-Net's grid: whole training sets, widest network first, then the long tail.

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
        >>> str(skeleton_cells(filters=[64])[0])
        'jhmdb14 split 1 filters 64 softmax beta 0'
    """
    for name in datasets or ():
        _checks.choice("dataset", name, ("jhmdb14", "jhmdb21"))
    for name in losses or ():
        _checks.choice("loss", name, SKELETON_LOSSES)
    tail_classes, tail_filters, factor = LONG_TAIL
    _known("imbalance", imbalances, (1, factor))
    _known("filters", filters, FILTERS)
    whole = itertools.product((14, 21), SPLITS, FILTERS, ("softmax",), (0.0,), (1,))
    tail = itertools.product(
        (tail_classes,), SPLITS, (tail_filters,), SKELETON_LOSSES, SKELETON_BETAS, (factor,)
    )
    found = [SkeletonCell(*setting) for setting in (*whole, *tail)]
    found.sort(key=lambda c: (c.imbalance_factor, -c.filters))  # stable
    return [
        c
        for c in found
        if (not datasets or f"jhmdb{c.classes}" in datasets)
        and (not imbalances or c.imbalance_factor in imbalances)
        and (not losses or c.loss in losses)
        and (not filters or c.filters in filters)
    ]


@dataclass(frozen=True)
class SignCell:
    """One setting on the traffic signs of GTSRB, to be run over seeds.

    Attributes:
        loss: "softmax" | "focal".
        scheme: "none" | "inverse" | "effective".
        beta: of the effective number; None for the other schemes.
        gamma: of the focal loss; None for softmax.
    """

    loss: str
    scheme: str
    beta: float | None = None
    gamma: float | None = None

    @property
    def weights(self) -> str:
        """The weighting, as tables name it."""
        return self.scheme if self.beta is None else f"beta {self.beta:g}"

    def __str__(self) -> str:
        return f"gtsrb {self.loss} {self.weights}"


def sign_cells(*, losses: Sequence[str] | None = None) -> list[SignCell]:
    """Return the cells on GTSRB: plain, inverse frequency, and class-balanced at three beta.

    Args:
        losses: "softmax", "focal", to take only some.

    Raises:
        ValueError: a loss that the grid does not have.

    Example:
        >>> str(sign_cells()[0])
        'gtsrb softmax none'
    """
    for name in losses or ():
        _checks.choice("loss", name, ("softmax", "focal"))
    found = [SignCell("softmax", "none"), SignCell("softmax", "inverse")]
    found += [SignCell("softmax", "effective", beta) for beta in SIGN_BETAS]
    found += [SignCell("focal", "effective", beta, SIGN_GAMMA) for beta in SIGN_BETAS]
    return [cell for cell in found if not losses or cell.loss in losses]
