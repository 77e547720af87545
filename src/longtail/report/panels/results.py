"""Did it help? All methods, and their differences to the same loss without balancing."""

from __future__ import annotations

from collections.abc import Iterable

from longtail.compare import ComparisonTable
from longtail.report.blocks import Chart, Panel, Side, Spec, Table, Text
from longtail.report.charts import COLOURS, Part, error_bars, inert, looks, numbers
from longtail.report.tables import legend, method_sheet


def panel(table: ComparisonTable) -> Panel:
    """Show the verdict and what it rests on."""
    blocks = [
        Text(table.verdict, "verdict"),
        Table(method_sheet(table), "Results of all methods"),
        Text(legend(table), "dim"),
        Side([_errors(table), _differences(table)]),
    ]
    return Panel("Did it help?", blocks, "Did it help?", table.verdict)


def _errors(table: ComparisonTable) -> Chart:
    styles = looks(table)
    names, metric = [style.name for style in styles], table.decides
    what = _axis(table)
    summaries = [s for row in table.shown if (s := row[table.metric].summary)]
    texts = [
        f"{name}: {metric.text(s.mean)}{'' if s.sd is None else f' ± {metric.text(s.sd)}'}"
        for name, s in zip(names, summaries, strict=True)
    ]
    marks = {"size": 11, "color": [s.colour for s in styles], "symbol": [s.symbol for s in styles]}
    spread = error_bars((metric.scale * (s.sd or 0.0) / 100 for s in summaries), thickness=1.5)
    found = (s.mean for s in summaries)
    means = _marks(found, metric.scale, names, texts, name="mean ± sd", marker=marks, error_x=spread)
    dots = [
        (name, seed, value)
        for name, row in zip(names, table.shown, strict=True)
        for seed, value in zip(row.seeds, row[table.metric].values, strict=True)
    ]
    at, on = [value for _, _, value in dots], [name for name, _, _ in dots]
    texts = [f"{table.unit} {seed}: {metric.text(value)}" for _, seed, value in dots]
    circles = {"size": 5, "symbol": "circle-open", "color": "@fg", "opacity": 0.6}
    seeds = _marks(at, metric.scale, on, texts, name=f"one {table.unit}", marker=circles)
    label = (
        f"{what.removesuffix(', %').capitalize()} of every method: mean and standard deviation over "
        f"{table.unit}s; each {table.unit} is a dot"
    )
    layout = _layout(what, 90 + 30 * len(names))
    return Chart("errors", label, Spec([means, seeds], layout))


def _differences(table: ComparisonTable) -> Chart:
    label = (
        "Paired difference to the same loss without re-weighting, with its 95 % interval; "
        f"{'left' if table.decides.lower_is_better else 'right'} of 0 is better; filled: significant after "
        "correction"
    )
    metric = table.decides
    rows = [
        (inert(row.name), d, row[table.metric].better)
        for row in table.shown
        if (d := row[table.metric].total)
    ]
    if not rows:
        note = "n/a: no method has a run of the same loss without re-weighting beside it."
        return Chart("differences", label, Spec(note=note))
    texts = [
        f"{name}: {metric.scale * d.mean:.{metric.digits}f}{' points' if metric.scale == 100 else ''}, {d.n} "
        f"{table.unit}s{', significant after correction' if b else ''}"
        for name, d, b in rows
    ]
    marks = {
        **{"size": 11, "line": {"width": 2}},
        "color": [COLOURS["effective"] if better else "@fg" for _, _, better in rows],
        "symbol": ["circle" if better else "circle-open" for _, _, better in rows],
    }
    interval = error_bars(
        (0.0 if d.high is None else metric.scale * (d.high - d.mean) / 100 for _, d, _ in rows),
        (0.0 if d.low is None else metric.scale * (d.mean - d.low) / 100 for _, d, _ in rows),
    )
    at, on = (d.mean for _, d, _ in rows), [name for name, _, _ in rows]
    points = _marks(at, metric.scale, on, texts, marker=marks, error_x=interval)
    zero = {"type": "line", "x0": 0, "x1": 0, "y0": 0, "y1": 1, "yref": "paper"}
    unit = ", points" if metric.scale == 100 else ""
    layout = _layout(
        f"change of {_axis(table).removesuffix(', %').removeprefix('test ')}{unit}", 90 + 34 * len(rows)
    )
    layout["shapes"] = [zero | {"line": {"color": "@fg", "width": 1, "dash": "dot"}}]
    return Chart("differences", label, Spec([points], layout))


def _axis(table: ComparisonTable) -> str:
    """What decides, as an axis."""
    what = "test error" if table.metric == "error" else table.decides.in_words
    return f"{what}, %" if table.decides.kind == "percent" else what


def _marks(values: Iterable[float], scale: int, names: list[str], texts: list[str], **more: object) -> Part:
    drawn = {"type": "scatter", "mode": "markers", "text": texts, "hoverinfo": "text"}
    return {"x": numbers(values, scale), "y": names, **drawn, **more}


def _layout(title: str, height: int) -> Part:
    return {
        "height": height,
        "xaxis": {"title": title},
        "yaxis": {"autorange": "reversed", "type": "category"},
    }
