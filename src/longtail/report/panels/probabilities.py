"""Can I trust the probabilities of rare classes?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from longtail.compare import GROUPS, ComparisonTable, Row
from longtail.evaluation import class_curves, macro_curves
from longtail.evaluation.probabilities import reliability_gap
from longtail.report.blocks import Block, Chart, Panel, Side, Spec, Table, Text
from longtail.report.charts import GROUP_COLOURS, Part, looks, numbers
from longtail.report.tables import Cell, Sheet, percent

_ENOUGH = 30  # samples taken for the rare classes below which nothing is said of them
_MOST = 20_000_000  # scores that are sorted for the curves
_CLOSE = 0.05  # confidence and accuracy this near are called near
Bins = Sequence[tuple[int, float, float]]


def panel(table: ComparisonTable) -> Panel | None:
    """Show log-loss, Brier score and calibration by group; None where no run kept them."""
    rows = [] if table.many_labels else [row for row in table.shown if row.group_reliability]
    if not rows:
        return None
    found = facts(table)
    shown = [row for row in (table.best, table.rival) if row is not None and row.group_reliability]
    charts = [_chart(f"trust-{i}", row) for i, row in enumerate(shown)]
    blocks: list[Block] = [
        Text(found),
        Table(_sheet(rows), "Probabilities of all methods"),
        Text(_READING, "dim"),
    ]
    curves = _curves(table, shown)
    charts += [curves] if isinstance(curves, Chart) else []
    if charts:
        blocks.append(Side(charts))
    if isinstance(curves, str):
        blocks.append(Text(curves, "dim"))
    return Panel(_TITLE, blocks, _TITLE, found)


_TITLE = "Can I trust the probabilities of rare classes?"
_READING = (
    "Log-loss and Brier score: lower is better. The other columns are calibration errors in points, over the "
    "samples that a method takes for classes of that group: how far its confidence is from its accuracy, on "
    "average. All are measured on the test set as it is; with other class shares they change."
)


def facts(table: ComparisonTable) -> str:
    """Say how sure the best method is of rare classes, and how right."""
    best = table.best
    if best is None or not best.group_reliability:
        return "n/a: the method with the lowest error gives no probabilities."
    name = next(
        (g for g, bins in zip(reversed(GROUPS), reversed(best.group_reliability), strict=True) if bins), None
    )
    if name is None:
        return "n/a: no test sample was taken for any class."
    samples, confidence, accuracy = _total(best.group_reliability[GROUPS.index(name)])
    if samples < _ENOUGH:
        return f"n/a: only {samples} test samples were taken for {name}-shot classes, too few to say."
    told = (
        f"where {best.short_name} decides for a {name}-shot class, its mean confidence is "
        f"{100 * confidence:.0f} % and it is right in {100 * accuracy:.0f} % of {samples:,} cases"
    )
    if abs(confidence - accuracy) <= _CLOSE:
        return f"On average yes: {told}."
    word = "too sure" if confidence > accuracy else "less sure than it could be"
    return f"No: {told}, so it is {word}. Calibrate on held-out data before you rely on them."


def _sheet(rows: Sequence[Row]) -> Sheet:
    lines = []
    for row in rows:
        groups = [reliability_gap(bins) for bins in row.group_reliability]
        scores = [_mean(row, name) for name in ("log_loss", "brier_score")]
        cells = [Cell("n/a") if v is None else Cell(f"{v:.3f}", v) for v in scores]
        lines.append(
            [Cell(row.name), *cells, percent(reliability_gap(row.reliability)), *map(percent, groups)]
        )
    return Sheet(["method", "log-loss", "Brier", "all samples", *(f"{g}-shot" for g in GROUPS)], lines)


def _mean(row: Row, name: str) -> float | None:
    values = [getattr(o.result, name) for o in row.outcomes]
    return None if any(v is None for v in values) else float(sum(values) / len(values))


def _total(bins: Bins) -> tuple[int, float, float]:
    samples = sum(n for n, _, _ in bins)
    if not samples:
        return 0, 0.0, 0.0
    return samples, sum(n * c for n, c, _ in bins) / samples, sum(n * a for n, _, a in bins) / samples


def _curves(table: ComparisonTable, rows: Sequence[Row]) -> Chart | str | None:
    """Draw precision by recall of the classes against the rest, mean of all and of the few-shot ones.

    Where that cannot be done, say why.
    """
    if not rows:
        return None
    counts = np.asarray(table.class_counts)
    runs = [o for row in rows for o in row.outcomes]
    said = [p for o in runs if (p := o.decided) is not None and p.scored]
    left_out = "Curves of precision by recall are left out"
    instead = "longtail evaluate RUN --curves has those of a run"
    if without := len(runs) - len(said):
        return (
            f"{left_out}: {without} of {len(runs)} runs kept no scores, as early versions kept none and this "
            f"one keeps up to 16 million a run; {instead}."
        )
    if (scores := sum(len(p.labels) for p in said) * len(counts)) > _MOST:
        return f"{left_out}: they need {scores:,} scores, and a page sorts up to {_MOST:,}; {instead}."
    _, few = table.evaluation.thresholds
    parts = {"all classes": counts >= 0, "few-shot": counts < few}
    traces: list[Part] = []
    styles = {id(row): look for row, look in zip(table.shown, looks(table), strict=True)}
    for row in rows:
        kept = [p for o in row.outcomes if (p := o.predictions) is not None and p.logits is not None]
        if len(kept) < len(row.outcomes):
            return None
        each = [class_curves(p.logits, p.labels, activation=row.recipe.activation) for p in kept]
        for name, here in parts.items():
            means = [macro_curves([k for k, mine in zip(one, here, strict=True) if mine]) for one in each]
            if not any(m.classes for m in means) or (name == "few-shot" and here.all()):
                continue
            y = np.nanmean([m.precision for m in means if m.classes], axis=0)
            look = styles[id(row)]
            area = np.mean([m.average_precision for m in means if m.average_precision is not None])
            line = {"color": look.colour, "dash": "solid" if name == "few-shot" else "dot", "width": 2}
            traces.append(
                {
                    **{"x": numbers(means[0].grid), "y": numbers(y), "name": f"{look.name}, {name}"},
                    **{"type": "scatter", "mode": "lines", "line": line},
                    "hovertemplate": f"recall %{{x:.2f}}: precision %{{y:.2f}}<extra>{look.name}, {name}: "
                    f"area {area:.3f}</extra>",
                }
            )
    if not traces:
        return None
    axes = {
        f"{axis}axis": {"title": title, "range": [0, 1.02]}
        for axis, title in (("x", "recall"), ("y", "precision"))
    }
    label = (
        "Precision by recall, each class against the rest: mean of the few-shot classes and of all, over "
        f"{table.unit}s"
    )
    return Chart("precision", label, Spec(traces, {"height": 420, "showlegend": True, **axes}))


def _chart(name: str, row: Row) -> Chart:
    ideal = {"x": [0, 1], "y": [0, 1], "type": "scatter", "mode": "lines", "name": "as right as sure"}
    traces: list[Part] = [ideal | {"line": {"color": "@dim", "dash": "dot"}, "hoverinfo": "skip"}]
    for group, bins in zip(GROUPS, row.group_reliability, strict=True):
        if not bins:
            continue
        samples, confidence, accuracy = zip(*bins, strict=True)
        texts = [
            f"{n:,} samples: confidence {100 * c:.1f} %, accuracy {100 * a:.1f} %"
            for n, c, a in zip(samples, confidence, accuracy, strict=True)
        ]
        largest = max(samples)
        sizes = [5 + 9 * (n / largest) ** 0.5 for n in samples]
        traces.append(
            {
                **{"x": numbers(confidence), "y": numbers(accuracy), "name": f"{group}-shot", "text": texts},
                **{"type": "scatter", "mode": "lines+markers", "hoverinfo": "text+name"},
                "line": {"color": GROUP_COLOURS[group]},
                "marker": {"size": numbers(sizes), "color": GROUP_COLOURS[group]},
            }
        )
    axes = {
        f"{axis}axis": {"title": title, "range": [0, 1.02]}
        for axis, title in (("x", "confidence"), ("y", "accuracy"))
    }
    label = (
        f"{row.name}: accuracy against confidence by the group of the class decided for; larger dots, more "
        "samples"
    )
    return Chart(name, label, Spec(traces, {"height": 380, **axes}))
