"""Did it help? All methods, and their differences to the same loss without balancing."""

from __future__ import annotations

from longtail.compare import ComparisonTable
from longtail.report.blocks import Chart, Panel, Side, Spec, Table, Text
from longtail.report.charts import COLOURS, inert, looks, numbers
from longtail.report.tables import legend, method_sheet


def panel(table: ComparisonTable) -> Panel:
    """Show the verdict and what it rests on."""
    blocks = [
        Text(table.verdict, "verdict"),
        Table(method_sheet(table), "Results of all methods"),
        Text(legend(table.evaluation.thresholds), "dim"),
        Side([_errors(table), _differences(table)]),
    ]
    return Panel("Did it help?", blocks, "Did it help?", table.verdict)


def _errors(table: ComparisonTable) -> Chart:
    rows, styles = table.shown, looks(table)
    names = [inert(row.name) for row in rows]
    summaries = [s for row in rows if (s := row["error"].summary)]
    means = {
        "x": numbers((s.mean for s in summaries), 100),
        "y": names,
        "type": "scatter",
        "mode": "markers",
        "name": "mean ± sd",
        "error_x": {
            "type": "data",
            "array": numbers((s.sd or 0.0 for s in summaries), 100),
            "color": "@dim",
            "thickness": 1.5,
        },
        "marker": {
            "size": 11,
            "color": [style.colour for style in styles],
            "symbol": [style.symbol for style in styles],
        },
        "text": [
            f"{name}: {100 * s.mean:.1f}{'' if s.sd is None else f' ± {100 * s.sd:.1f}'} %"
            for name, s in zip(names, summaries, strict=True)
        ],
        "hoverinfo": "text",
    }
    dots = [
        (name, seed, value)
        for name, row in zip(names, rows, strict=True)
        for seed, value in zip(row.seeds, row["error"].values, strict=True)
    ]
    seeds = {
        "x": numbers((value for _, _, value in dots), 100),
        "y": [name for name, _, _ in dots],
        "type": "scatter",
        "mode": "markers",
        "name": "one seed",
        "marker": {"size": 5, "symbol": "circle-open", "color": "@fg", "opacity": 0.6},
        "text": [f"seed {seed}: {100 * value:.1f} %" for _, seed, value in dots],
        "hoverinfo": "text",
    }
    layout = {
        "height": 90 + 30 * len(rows),
        "xaxis": {"title": "test error, %"},
        "yaxis": {"autorange": "reversed", "type": "category"},
    }
    label = "Test error of every method: mean and standard deviation over seeds; each seed is a dot"
    return Chart("errors", label, Spec([means, seeds], layout))


def _differences(table: ComparisonTable) -> Chart:
    label = (
        "Paired difference to the same loss without re-weighting, with its 95 % interval; left of 0 is "
        "better; filled: significant after correction"
    )
    rows = [
        (inert(row.name), d, row["error"].better) for row in table.shown if (d := row["error"].difference)
    ]
    if not rows:
        note = "n/a: no method has a run of the same loss without re-weighting beside it."
        return Chart("differences", label, Spec(note=note))
    better = [significant for _, _, significant in rows]
    points = {
        "x": numbers((d.mean for _, d, _ in rows), 100),
        "y": [name for name, _, _ in rows],
        "type": "scatter",
        "mode": "markers",
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": numbers((0.0 if d.high is None else d.high - d.mean for _, d, _ in rows), 100),
            "arrayminus": numbers((0.0 if d.low is None else d.mean - d.low for _, d, _ in rows), 100),
            "color": "@dim",
            "thickness": 2,
        },
        "marker": {
            "size": 11,
            "color": [COLOURS["effective"] if b else "@fg" for b in better],
            "symbol": ["circle" if b else "circle-open" for b in better],
            "line": {"width": 2},
        },
        "text": [
            f"{name}: {100 * d.mean:.1f} points, {d.n} seeds{', significant after correction' if b else ''}"
            for name, d, b in rows
        ],
        "hoverinfo": "text",
    }
    zero = {"type": "line", "x0": 0, "x1": 0, "y0": 0, "y1": 1, "yref": "paper"}
    layout = {
        "height": 90 + 34 * len(rows),
        "shapes": [zero | {"line": {"color": "@fg", "width": 1, "dash": "dot"}}],
        "xaxis": {"title": "change of test error, points"},
        "yaxis": {"autorange": "reversed", "type": "category"},
    }
    return Chart("differences", label, Spec([points], layout))
