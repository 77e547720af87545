"""The beta explorer, the one part of the page that computes."""

from __future__ import annotations

import math

import numpy as np

from longtail._checks import short
from longtail.compare import ComparisonTable
from longtail.report.blocks import Chart, Explorer, Panel, Side, Spec
from longtail.report.charts import COLOURS, Part, class_axis, log_axis, points_of
from longtail.report.panels.tail import Tail, tail_of
from longtail.weights import class_weights


def panel(table: ComparisonTable) -> Panel | None:
    """Show the weights that follow from the counts, and start where the runs were.

    None of many labels, where it is positives that weigh.
    """
    if table.many_labels:
        return None
    betas = [row.recipe.beta for row in table.shown if row.recipe.scheme == "effective"]
    best = table.best
    beta = best.recipe.beta if best and best.recipe.scheme == "effective" else [*betas, 0.999][0]
    tail = tail_of(table)
    return explore(tail, math.inf if beta == 1.0 else 1.0 / (1.0 - beta), facts(tail, beta))


def explore(tail: Tail, volume: float, answer: str = "") -> Panel:
    """Return the explorer of some classes, starting at a volume."""
    ranks = [i + 1 for i in points_of(len(tail.names))]
    mode = "lines" if len(tail.names) > 60 else "lines+markers"

    def line(explored: str, name: str, colour: str, dash: str, width: float = 2) -> Part:
        drawn = {"type": "scatter", "mode": "lines" if width < 2 else mode, "hoverinfo": "text+name"}
        look = {"color": colour, "dash": dash, "width": width}
        return {"explored": explored, "x": ranks, "name": name, "line": look, **drawn}  # y is the script's

    sizes = [
        line("counts", "samples n", "@dim", "dot"),
        line("effective", "effective number E", COLOURS["effective"], "solid"),
    ]
    weights = [
        line("none", "none", "@fg", "dot", 1.5),
        line("inverse", "1/n", COLOURS["inverse"], "dash", 1.5),
        line("inverse_sqrt", "1/√n", COLOURS["inverse_sqrt"], "dashdot", 1.5),
        line("weights", "effective, chosen N", COLOURS["effective"], "solid", 3),
    ]
    label = "Effective number of samples of every class at the chosen N, beside the counts"
    beside = "Class weights at the chosen N, beside the usual alternatives"
    axis = class_axis(tail.names)
    charts = [
        Chart(name, text, Spec(lines, {"xaxis": axis, "yaxis": log_axis(title), "uirevision": "keep"}))
        for name, text, lines, title in (
            ("effective", label, sizes, "samples"),
            ("weights", beside, weights, "class weight"),
        )
    ]
    data = {
        **{"names": list(tail.names), "counts": tail.counts.tolist()},
        **{"thresholds": list(tail.thresholds), "volume": min(volume, 1e300)},
    }
    return Panel(
        "The weights: beta explorer", [Explorer(), Side(charts)], "What do the weights do?", answer, data
    )


def facts(tail: Tail, beta: float) -> str:
    """Say what the weights of one beta do."""
    filled = tail.counts[tail.counts > 0]
    head, last = float(filled[0]), float(filled[-1])
    if head == last:
        return "All classes are of one size: no weighting changes anything."
    weight = class_weights([head, last], volume=np.inf if beta == 1.0 else 1.0 / (1.0 - beta), normalize=None)
    volume = "infinite" if beta == 1.0 else short(1.0 / (1.0 - beta))
    return (
        f"Effective numbers with beta {beta:g} (volume N = {volume}) weigh the rarest class "
        f"{short(float(weight[1] / weight[0]))} times as much as the most frequent. Inverse frequency "
        f"would weigh it {short(head / last)} times as much."
    )
