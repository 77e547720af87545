"""How sure is that? Seeds, tests, calibration and training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from longtail.compare import CONFIDENCE, ComparisonTable
from longtail.report.blocks import Block, Chart, Panel, Side, Spec, Text
from longtail.report.charts import Part, looks, numbers

_CURVE_POINTS = 400


def panel(table: ComparisonTable) -> Panel:
    """Show what the result rests on."""
    found = facts(table)
    if table.many_labels:
        charts: list[Block] = [_losses(table)] if any(row.curve for row in table.shown) else []
        return Panel("How sure is that?", [Text(found), *charts], "How sure is that?", found)
    charts = [
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
    text = f"{each} {table.unit}{'' if each == '1' else 's'} a method ({', '.join(map(str, seeds))})."
    if sizes[-1] == 1:
        return f"{text} One run a method shows no spread: no difference here is proof of anything."
    if table.tests:
        text += (
            f" Each method is paired with the same loss without re-weighting, {table.unit} by {table.unit}; "
            f"intervals are {100 * CONFIDENCE:.0f} % and uncorrected, marks (*) hold after Bonferroni's "
            f"correction for {table.tests} {'test' if table.tests == 1 else 'tests'}."
        )
    if sizes[-1] < 5:
        text += " Fewer than five seeds give wide intervals."
    return text


def _reliability(table: ComparisonTable) -> Chart:
    ideal = {"x": [0, 1], "y": [0, 1], "type": "scatter", "mode": "lines", "name": "as right as sure"}
    traces: list[Part] = [ideal | {"line": {"color": "@dim", "dash": "dot"}, "hoverinfo": "skip"}]
    for row, look in zip(table.shown, looks(table), strict=True):
        if not row.reliability:
            continue
        _, confidence, accuracy = zip(*row.reliability, strict=True)
        texts = [
            f"{n:,} samples: confidence {100 * c:.1f} %, accuracy {100 * a:.1f} %"
            for n, c, a in row.reliability
        ]
        line = look.line(numbers(confidence), numbers(accuracy), text=texts, hoverinfo="text+name")
        traces.append(line)
    axes = {
        f"{axis}axis": {"title": t, "range": [0, 1.02]}
        for axis, t in (("x", "confidence"), ("y", "accuracy"))
    }
    label = (
        "Calibration: accuracy against confidence, all seeds together; on the diagonal a model is as right "
        "as it is sure"
    )
    return Chart("reliability", label, Spec(traces, {"height": 380, **axes}, "n/a for the methods shown."))


def _errors(table: ComparisonTable) -> Block:
    curves = [row.curve for row in table.shown]
    if all(c is None or len(c.tested) < 2 for c in curves) and any(curves):
        text = "Test error during training: n/a, it was measured once, after the last epoch."
        return Text(text, "dim")
    lines = [None if c is None else (c.tested, c.error) for c in curves]
    axis = {"title": "test error, %", "rangemode": "tozero"}
    label = "Test error during training, mean over seeds; it chose nothing, the last epoch counts"
    return Chart("curve-error", label, _curves(table, lines, 100, axis))


def _losses(table: ComparisonTable) -> Chart:
    lines = [None if (c := row.curve) is None else (c.epochs, c.loss) for row in table.shown]
    label = "Training loss, mean over seeds; different losses have different scales"
    return Chart("curve-loss", label, _curves(table, lines, 1, {"title": "training loss"}))


def _curves(
    table: ComparisonTable,
    lines: Sequence[tuple[Sequence[int], Sequence[float]] | None],
    scale: float,
    axis: Mapping[str, str],
) -> Spec:
    traces = []
    for look, line in zip(looks(table), lines, strict=True):
        if line is None or not line[0]:
            continue
        epochs, values = line
        step = -(-len(epochs) // _CURVE_POINTS)
        kept = [*range(0, len(epochs) - 1, step), len(epochs) - 1]
        x, y = [epochs[k] for k in kept], numbers((values[k] for k in kept), scale)
        traces.append(look.line(x, y, marks=len(kept) <= 40, size=6))
    layout = {"showlegend": True, "xaxis": {"title": "epoch"}, "yaxis": axis}
    return Spec(traces, layout, "n/a: these runs kept no history.")
