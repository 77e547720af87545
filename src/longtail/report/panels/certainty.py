"""How sure is that? Seeds, tests, calibration and training curves."""

from __future__ import annotations

from typing import Any

from longtail.compare import CONFIDENCE, ComparisonTable
from longtail.report.blocks import Block, Chart, Panel, Side, Spec, Text
from longtail.report.charts import inert, looks, numbers

_CURVE_POINTS = 400


def panel(table: ComparisonTable) -> Panel:
    """Show what the result rests on."""
    found = facts(table)
    charts: list[Block] = [
        _reliability(table)
        if any(row.reliability for row in table.shown)
        else Text(
            "Calibration chart: n/a, these runs were made by a version that kept the calibration error alone "
            "(it is in the table above).",
            "dim",
        ),
        _errors(table),
        _losses(table),
    ]
    return Panel("How sure is that?", [Text(found), Side(charts)], "How sure is that?", found)


def facts(table: ComparisonTable) -> str:
    """Say how many seeds and tests there were."""
    seeds = sorted({seed for row in table.shown for seed in row.seeds})
    sizes = sorted({len(row.seeds) for row in table.shown})
    each = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    text = f"{each} {'seed' if each == '1' else 'seeds'} a method ({', '.join(map(str, seeds))})."
    if sizes[-1] == 1:
        return f"{text} One run a method shows no spread: no difference here is proof of anything."
    if table.tests:
        text += (
            f" Each method is paired with the same loss without re-weighting, seed by seed; intervals are "
            f"{100 * CONFIDENCE:.0f} % and uncorrected, marks (*) hold after Bonferroni's correction for "
            f"{table.tests} {'test' if table.tests == 1 else 'tests'}."
        )
    if sizes[-1] < 5:
        text += " Fewer than five seeds give wide intervals."
    return text


def _reliability(table: ComparisonTable) -> Chart:
    ideal = {
        "x": [0, 1],
        "y": [0, 1],
        "type": "scatter",
        "mode": "lines",
        "line": {"color": "@dim", "dash": "dot"},
        "name": "as right as sure",
        "hoverinfo": "skip",
    }
    traces: list[dict[str, Any]] = [ideal]
    for i, (row, look) in enumerate(zip(table.shown, looks(table), strict=True)):
        if not row.reliability:
            continue
        samples, confidence, accuracy = zip(*row.reliability, strict=True)
        traces.append(
            {
                "row": i,
                "x": numbers(confidence),
                "y": numbers(accuracy),
                "name": inert(row.name),
                "type": "scatter",
                "mode": "lines+markers",
                "line": {"color": look.colour, "dash": look.dash},
                "marker": {"symbol": look.symbol, "size": 7},
                "text": [
                    f"{n:,} samples: confidence {100 * c:.1f} %, accuracy {100 * a:.1f} %"
                    for n, c, a in zip(samples, confidence, accuracy, strict=True)
                ],
                "hoverinfo": "text+name",
            }
        )
    layout = {
        "height": 380,
        "xaxis": {"title": "confidence", "range": [0, 1.02]},
        "yaxis": {"title": "accuracy", "range": [0, 1.02]},
    }
    label = (
        "Calibration: accuracy against confidence, all seeds together; on the diagonal a model is as right "
        "as it is sure"
    )
    return Chart("reliability", label, Spec(traces, layout, "n/a for the methods shown."))


def _errors(table: ComparisonTable) -> Chart:
    lines = [None if (c := row.curve) is None else (c.tested, c.error) for row in table.shown]
    axis = {"title": "test error, %", "rangemode": "tozero"}
    label = "Test error during training, mean over seeds; it chose nothing, the last epoch counts"
    return Chart("curve-error", label, _curves(table, lines, 100, axis))


def _losses(table: ComparisonTable) -> Chart:
    lines = [None if (c := row.curve) is None else (c.epochs, c.loss) for row in table.shown]
    label = "Training loss, mean over seeds; different losses have different scales"
    return Chart("curve-loss", label, _curves(table, lines, 1, {"title": "training loss"}))


def _curves(
    table: ComparisonTable,
    lines: list[tuple[tuple[int, ...], tuple[float, ...]] | None],
    scale: float,
    axis: dict[str, Any],
) -> Spec:
    traces = []
    for i, (row, look, line) in enumerate(zip(table.shown, looks(table), lines, strict=True)):
        if line is None or not line[0]:
            continue
        epochs, values = line
        step = -(-len(epochs) // _CURVE_POINTS)
        kept = [*range(0, len(epochs) - 1, step), len(epochs) - 1]
        traces.append(
            {
                "row": i,
                "x": [epochs[k] for k in kept],
                "y": numbers((values[k] for k in kept), scale),
                "name": inert(row.name),
                "type": "scatter",
                "mode": "lines" if len(kept) > 40 else "lines+markers",
                "line": {"color": look.colour, "dash": look.dash, "width": 2},
                "marker": {"symbol": look.symbol, "size": 6},
            }
        )
    layout = {"showlegend": True, "xaxis": {"title": "epoch"}, "yaxis": axis}
    return Spec(traces, layout, "n/a: these runs kept no history.")
