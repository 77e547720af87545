"""Published errors of Cui et al. (CVPR 2019), and the cells of the grids behind them."""

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

    Raises:
        ValueError: a name or factor that the table does not have.

    Example:
        >>> str(cells("fig9", losses=["focal"])[0])
        'cifar20 imbalance 100 focal gamma 1 beta 0'
    """
    _checks.choice("table", table, TABLES)
    chosen = [_checks.choice("dataset", d, TABLES[table]) for d in (datasets or TABLES[table])]
    kinds = [_checks.choice("loss", loss, LOSSES) for loss in (losses or LOSSES)]
    factors = list(imbalances or IMBALANCES)
    for factor in factors:
        if factor not in IMBALANCES:
            raise ValueError(f"imbalance must be one of {', '.join(map(str, IMBALANCES))}, got {factor!r}")
    variants: list[tuple[str, float | None]] = [
        (loss, gamma) for loss in kinds for gamma in (GAMMAS if loss == "focal" else (None,))
    ]
    found = []
    for (first, betas), factor in itertools.product(enumerate((BETAS[:2], BETAS[2:])), factors):
        for dataset, (loss, gamma), beta in itertools.product(chosen, variants, betas):
            if factor != 1 or (first == 0 and beta == 0.0):
                found.append(Cell(dataset, factor, loss, gamma, beta))
    return found
