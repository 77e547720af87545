"""On which classes? Errors by group and by class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from longtail.compare import GROUPS, ComparisonTable
from longtail.evaluation import interval_text
from longtail.evaluation.intervals import in_independent_text, wilson_interval
from longtail.evaluation.statistics import signed
from longtail.report.blocks import Block, Chart, Choice, Classes, Heading, Panel, Spec, Table, Text
from longtail.report.charts import (
    Floats,
    Look,
    Part,
    averaged,
    class_axis,
    error_bars,
    inert,
    looks,
    numbers,
    points_of,
)
from longtail.report.panels.tail import Tail, count, tail_of
from longtail.report.tables import class_sheet

_NUMBERS = 400_000  # numbers of one kind in the page: some 2 MB
_LISTED = 400  # labels of many that are listed with every method
_BANDS = 300  # classes up to which bands and intervals can be seen
_DOUBTS = {
    "both": "seeds and test samples together",
    "seeds": "seeds alone: the runs kept no predictions",
    "test samples": "test samples alone, as there is one seed",
    "folds": "folds",
    "": "",
}


def panel(table: ComparisonTable) -> Panel:
    """Show where along the tail the methods differ."""
    found = facts(table)
    best, rival = table.best, table.rival
    names = [row.name for row in table.shown]
    blocks: list[Block] = [Text(found)]
    if len(names) > 1:
        blocks.append(Choice(names, [i for i, row in enumerate(table.shown) if row in (best, rival)]))
    blocks += [_groups(table), _classes(table)]
    if (dots := _dots(table)) is not None:
        blocks.append(dots)
    elif len(table.class_counts) > _BANDS:
        blocks.append(Text(f"Intervals of single classes are drawn up to {_BANDS} classes.", "dim"))
    if table.step is not None:
        before, after = table.step
        blocks.append(_change(table, f"from {before.name} to {after.name}"))
    title = f"On which {tail_of(table).words[1]}?"
    return Panel(title, blocks, title, found)


def _measure(table: ComparisonTable) -> tuple[str, str, str]:
    """What a class is measured by: the end of a column's name, an axis, and the beginning of a caption."""
    if table.many_labels:
        return "average_precision", "average precision, %", "Average precision"
    return "error", "test error, %", "Error"


def all_classes(table: ComparisonTable) -> Panel:
    """Show every class with its weight at the explorer's N, and its error with and without the best.

    Of many labels it is the average precision of each with every method, head to tail.
    """
    if table.many_labels:
        sheet = class_sheet(table)
        rows = sheet.rows
        blocks: list[Block] = [Heading("All labels")]
        if len(rows) > _LISTED:
            sheet = replace(sheet, rows=[*rows[: _LISTED // 2], *rows[-(_LISTED // 2) :]])
            blocks.append(
                Text(
                    f"The {_LISTED // 2} most frequent and the {_LISTED // 2} rarest of {len(rows):,} "
                    "labels; longtail report --table classes --format csv writes all.",
                    "dim",
                )
            )
        return Panel("", [*blocks, Table(sheet, "Average precision of every label, %")])
    order = table.order
    columns: list[Part] = [
        {"title": f"error %, {row.name}", "values": numbers(row.by_class.mean[order], 100)}
        for row in table.step or ((table.best,) if table.best else ())
    ]
    if table.change is not None:
        changes = numbers(table.change.mean[order], 100)
        columns.append({"title": "change, points", "values": changes, "signed": True})
    return Panel("", [Heading("All classes"), Classes()], data={"columns": columns})


def facts(table: ComparisonTable) -> str:
    """Say what changed in the head and in the tail."""
    if table.step is None:
        one = tail_of(table).words[0]
        return f"There is one method only, so nothing to compare {one} by {one}."
    rival, best = table.step
    parts = []
    for group in GROUPS:
        column = f"{group}_{_measure(table)[0]}"
        ours, theirs = best[column].summary, rival[column].summary
        if ours is None or theirs is None:
            parts.append(f"{group}-shot n/a")
            continue
        d = table.paired(best, rival, column)
        change = interval_text(d)
        if d is not None and d.mean == 0 and not d.sd:
            change = "no change"
        elif d is not None and d.significant:
            change += ", more than chance explains"
        parts.append(
            f"{group}-shot {100 * theirs.mean:.1f} → {100 * ours.mean:.1f} %{change and f' ({change})'}"
        )
    return f"From {rival.name} to {best.name}: " + "; ".join(parts) + "."


def _groups(table: ComparisonTable) -> Chart:
    traces = []
    for row, look in zip(table.shown, looks(table), strict=True):
        found = [row[f"{group}_{_measure(table)[0]}"].summary for group in GROUPS]
        x = [f"{g}-shot{'' if s else ': n/a'}" for g, s in zip(GROUPS, found, strict=True)]
        y = numbers((None if s is None else s.mean for s in found), 100)
        spread = error_bars((s.sd or 0.0) if s else 0.0 for s in found)
        shape = {"shape": look.pattern, "bgcolor": look.colour, "fgcolor": "@bg", "solidity": 0.25}
        marker, hover = {"color": look.colour, "pattern": shape}, "%{y:.1f} %<extra>%{fullData.name}</extra>"
        traces.append(look.trace(x, y, type="bar", error_y=spread, marker=marker, hovertemplate=hover))
    axes = {"xaxis": {"type": "category"}, "yaxis": {"title": _measure(table)[1], "rangemode": "tozero"}}
    label = (
        f"{_measure(table)[2]} of the many-, medium- and few-shot {tail_of(table).words[1]}: mean and "
        f"standard deviation over {table.unit}s; groups without any are n/a"
    )
    return Chart("groups", label, Spec(traces, {"barmode": "group", **axes}, "No method is chosen."))


def _classes(table: ComparisonTable) -> Chart:
    tail, rows = tail_of(table), table.shown
    points = points_of(len(tail.counts))
    all_rows = len(rows) * len(points) * 2 <= _NUMBERS
    traces: list[Part] = []
    for row, look in zip(rows, looks(table), strict=True):
        if not all_rows and row not in (table.best, table.rival):
            continue
        mean, sd = row.by_class.mean[table.order], row.by_class.sd
        if sd is not None and len(mean) <= _BANDS:
            traces += _band(look, mean, sd[table.order])
        y = averaged(100 * mean, points)
        texts = [
            f"{inert(tail.names[p])} (n = {count(tail.counts[p])}): {'n/a' if v is None else f'{v:.1f} %'}"
            for p, v in zip(points, y, strict=True)
        ]
        line = look.line([p + 1 for p in points], y, marks=len(tail.counts) <= 60, text=texts)
        traces.append(line | {"legendgroup": look.name, "connectgaps": False, "hoverinfo": "text+name"})
    axes = {
        "xaxis": class_axis(tail.names, tail.words[0]),
        "yaxis": {"title": _title(_measure(table)[1], tail), "range": [-2, 102]},
    }
    note = (
        "The numbers by class of these methods are not in the page (too many classes times methods); choose "
        "the best or its baseline."
    )
    label = (
        f"{_measure(table)[2]} of every {tail.words[0]}, head to tail: mean over {table.unit}s, bands of one "
        "standard deviation"
    )
    return Chart("classes", label, Spec(traces, {"height": 380, **axes}, note))


def _dots(table: ComparisonTable) -> Chart | None:
    """Draw what the test set knows of each class: k wrong of m, with Wilson's interval."""
    if table.many_labels:
        return None
    tail, sizes = tail_of(table), table.single.test_counts
    if sizes is None or len(sizes) > _BANDS:
        return None
    tested = np.asarray(sizes)[table.order]
    units = np.asarray(table.single.units or sizes)[table.order]
    grouped = table.single.units is not None
    traces: list[Part] = []
    methods = len(table.shown)
    for i, (row, look) in enumerate(zip(table.shown, looks(table), strict=True)):
        aside = 0.6 * ((i + 0.5) / methods - 0.5)  # so that intervals do not lie on one another
        mean = row.by_class.mean[table.order]
        ends = [
            None if np.isnan(error) or not m else wilson_interval(float(error) * m, float(m))
            for error, m in zip(mean, units, strict=True)
        ]
        texts = [
            f"{inert(name)}: n/a, no test sample"
            if end is None
            else f"{inert(name)}: {100 * error:.1f} % of {m:,} test samples"
            f"{in_independent_text(unit) if grouped else ''} "
            f"({100 * end.low:.0f} to {100 * end.high:.0f})"
            for name, error, m, unit, end in zip(tail.names, mean, tested, units, ends, strict=True)
        ]
        bars = error_bars(
            [0.0 if e is None else e.high - v for e, v in zip(ends, mean, strict=True)],
            [0.0 if e is None else v - e.low for e, v in zip(ends, mean, strict=True)],
            thickness=1,
        )
        places = [rank + aside for rank in range(1, len(mean) + 1)]
        marker = {"color": look.colour, "symbol": look.symbol, "size": 8}
        traces.append(
            look.trace(places, numbers(mean, 100), text=texts, hoverinfo="text+name", error_y=bars)
            | {"type": "scatter", "mode": "markers", "marker": marker}
        )
    thin = table.evaluation.thin_text
    label = (
        f"The same, with the 95 % interval that each class's own test {'groups' if grouped else 'samples'} "
        f"allow (Wilson); a class with few has a long one{f'. {thin}' if thin else ''}"
    )
    axes = {"xaxis": class_axis(tail.names), "yaxis": {"title": "test error, %", "range": [-2, 102]}}
    return Chart("dots", label, Spec(traces, {"height": 380, **axes}, "No method is chosen."))


def _band(look: Look, mean: Floats, sd: Floats) -> list[Part]:
    low, high = (
        look.trace(
            list(range(1, len(mean) + 1)), numbers(np.clip(mean + sign * sd, 0, 1), 100), line={"width": 0}
        )
        | {"type": "scatter", "mode": "lines", "hoverinfo": "skip"}
        | {"showlegend": False, "legendgroup": look.name}
        for sign in (-1, 1)
    )
    return [low, high | {"fill": "tonexty", "fillcolor": look.pale}]


def _change(table: ComparisonTable, direction: str) -> Chart:
    tail, change = tail_of(table), table.change
    assert change is not None
    points = points_of(len(tail.counts))
    mean = change.mean[table.order]

    def better(value: float) -> bool:
        return value >= 0 if table.many_labels else value <= 0

    y = averaged(100 * mean, points)
    texts = [
        f"{inert(tail.names[p])}: {'n/a' if v is None else f'{signed(v)} points'}"
        for p, v in zip(points, y, strict=True)
    ]
    trace: Part = {
        **{"x": [p + 1 for p in points], "y": y, "type": "bar" if len(mean) <= _BANDS else "scatter"},
        **{"mode": "lines", "line": {"color": "#0072B2", "width": 1}},
        "marker": {"color": ["#0072B2" if better(v or 0) else "#D55E00" for v in y]},
        **{"textposition": "none", "hoverinfo": "text"},
    }
    if change.low is not None and change.high is not None:
        low, high = change.low[table.order], change.high[table.order]
        trace["error_y"] = error_bars(np.nan_to_num(high - mean), np.nan_to_num(mean - low))
        texts = [
            text if np.isnan(a) else f"{text} ({signed(100 * a)} to {signed(100 * b)})"
            for text, a, b in zip(texts, low, high, strict=True)
        ]
    trace["text"] = texts
    what = "average precision" if table.many_labels else "error"
    axes = {
        "xaxis": class_axis(tail.names, tail.words[0]),
        "yaxis": {"title": _title(f"change of {what}, points", tail)},
    }
    doubts = "seeds alone" if table.many_labels and change.doubts == "seeds" else _DOUBTS[change.doubts]
    intervals = f", with 95 % intervals over {doubts}: hints, not corrected for their number"
    label = f"Change of every {tail.words[0]}'s {what} {direction}{intervals if change.doubts else ''}"
    return Chart("change", label, Spec([trace], {**axes, "showlegend": False}))


def _title(title: str, tail: Tail) -> str:
    thinned = len(points_of(len(tail.counts))) < len(tail.counts)
    return f"{title}, mean of neighbours" if thinned else title
