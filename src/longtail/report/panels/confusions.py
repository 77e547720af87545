"""Which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from longtail.compare import ComparisonTable
from longtail.report.blocks import Block, Chart, Heading, Panel, Side, Spec, Table, Text
from longtail.report.charts import Part, cut, inert
from longtail.report.panels.tail import tail_of
from longtail.report.tables import Cell, Sheet

_CLASSES = 100  # more are no picture any more
_NUMBERS = 400_000
_MISTAKES = 12


def panel(table: ComparisonTable) -> Panel | None:
    """Show the confusion matrices side by side, and the most frequent mistakes; None of many labels."""
    if table.many_labels:
        return None
    if table.single.confusion is None:
        return Panel("", [Text("Confusions: n/a, they are not kept beyond 1000 classes.", "dim")])
    blocks: list[Block] = []
    if len(table.class_counts) <= _CLASSES:
        blocks += [Heading("Confusions"), _matrices(table)]
    sheet = _mistakes(table)
    if sheet.rows:
        label = "Most frequent mistakes, in test samples of all seeds and share of the true class"
        blocks += [Heading("The most frequent mistakes"), Table(sheet, label)]
    return Panel("", blocks)


def _matrices(table: ComparisonTable) -> Side:
    names, order = tail_of(table).names, table.order
    few = len(table.shown) * len(names) ** 2 <= _NUMBERS
    choices = {
        row.name: _matrix(row.confusion[np.ix_(order, order)], names)
        for row in table.shown
        if row.confusion is not None and (few or row in (table.best, table.rival))
    }
    label = "Share of each true class (rows) taken for each class (columns), all seeds together"
    return Side(
        [
            Chart(f"matrix-{side}", label, choices=choices, chosen=row.name)
            for side, row in (("best", table.best), ("other", table.rival))
            if row is not None and row.name in choices
        ]
    )


def _matrix(counts: npt.NDArray[np.int64], names: Sequence[str]) -> Spec:
    size = len(names)
    ranks = list(range(1, size + 1))
    totals = counts.sum(axis=1, keepdims=True)
    share = np.where(totals > 0, 100 * counts / np.maximum(totals, 1), np.nan)
    shown = [[None if np.isnan(v) else float(f"{v:.3g}") for v in row] for row in share]
    ticks = {"tickvals": ranks, "ticktext": [inert(cut(n, 12)) for n in names]} if size <= 30 else {}
    gap = 1 if size <= 30 else 0
    trace = {
        **{
            "z": shown,
            "x": ranks,
            "y": ranks,
            "type": "heatmap",
            "xgap": gap,
            "ygap": gap,
            "hoverinfo": "text",
        },
        **{"colorscale": "Cividis", "zmin": 0, "zmax": 100},
        "colorbar": {"title": {"text": "%"}, "thickness": 12},
        "counts": counts.tolist(),  # the script makes texts of them: each would be as long as forty numbers
        "names": [inert(name) for name in names],
    }
    layout: Part = {
        "height": 440,
        "xaxis": {"title": "taken for", **ticks},
        "yaxis": {"title": "true class", "autorange": "reversed", **ticks},
    }
    if size <= 12:
        layout["annotations"] = [_number(x + 1, y + 1, v) for (y, x), v in np.ndenumerate(share)]
    return Spec([trace], layout)


def _number(x: int, y: int, share: float) -> Part:
    text = "n/a" if np.isnan(share) else f"{share:.0f}" if share >= 0.5 else ""
    font = {"size": 10, "color": "#000" if share > 55 else "#fff"}
    return {"x": x, "y": y, "text": text, "showarrow": False, "font": font}


def _mistakes(table: ComparisonTable) -> Sheet:
    """The most frequent mistakes of the best method, and how often its rival makes them."""
    shown = [(row.name, row.confusion) for row in (table.best, table.rival) if row is not None]
    known = [(name, confusion) for name, confusion in shown if confusion is not None]
    wrong = known[0][1].copy()
    np.fill_diagonal(wrong, 0)
    lines = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[:_MISTAKES]:
        true, said = np.unravel_index(place, wrong.shape)
        if wrong[true, said] == 0:
            break
        cells = [Cell(table.class_names[true]), Cell(table.class_names[said])]
        for _, confusion in known:
            share = float(100 * confusion[true, said] / confusion[true].sum())
            cells.append(Cell(f"{confusion[true, said]} ({share:.1f} %)", share))
        lines.append(cells)
    return Sheet(["true class", "taken for", *(name for name, _ in known)], lines)
