"""What the report page shows of a paper: its table, and grids of errors, published beside measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from longtail.paper.settings import Grid, MeasuredSetting
from longtail.paper.tables import sheet
from longtail.report.blocks import Block, Chart, Fold, Panel, Spec, Table, Text
from longtail.report.charts import Part, inert

_STILL: Final = {"fixedrange": True, "showgrid": False, "showline": False, "zeroline": False, "tickangle": 0}


def page_section(measured: Sequence[MeasuredSetting]) -> Panel | None:
    """Return what the report page shows of a paper's table; None where there is none."""
    if not measured or measured[0].setting.table == "gtsrb":  # no paper has such a table
        return None
    done = sum(m.summary() is not None for m in measured)
    skeletons = measured[0].setting.table == "ddnet"
    source = "Yang et al., DD-Net, 2019" if skeletons else "Cui et al., CVPR 2019"
    about = (
        f"{done} of {len(measured)} cells were run. Published: {source}. Nothing is filled in: a cell "
        "without a number was not published, or not run."
    )
    if measured[0].setting.table == "rivals":
        about = about.replace(source, "the methods' papers or their re-runs, whose recipes differ from ours")
        skeletons = True  # a table alone: the grid is of losses and beta
    names = [] if skeletons else list(dict.fromkeys(m.setting.dataset for m in measured))
    grids = [
        _grid(i, name, [m for m in measured if m.setting.dataset == name]) for i, name in enumerate(names)
    ]
    table: list[Block] = [Table(sheet(measured), "Published and measured")]
    if grids:
        plain = "to softmax without weights, over the seeds that both have, with its 95 % interval"
        table.append(Text(f"vs plain: {plain}."))
    folded = Fold(f"All {len(measured)} cells as a table", table, is_open=not grids)
    return Panel("The paper beside what was measured", [Text(about), *grids, folded])


def _grid(place: int, dataset: str, measured: Sequence[MeasuredSetting]) -> Chart:
    """Draw one data set's errors: one column an imbalance factor, one row a loss and beta."""
    grid = Grid.of(measured)
    factors, labels = [str(f) for f in grid.factors], [inert(f"{m}, β={b:g}") for m, b in grid.rows]
    columns = _axis(factors) | {"side": "top", "range": [-0.5, len(factors) - 0.5]}
    rows = _axis(labels) | {"range": [len(labels) - 0.5, -0.5]}
    notes: list[Part] = []
    frames: list[Part] = []
    layout: Part = {"height": 90 + 19 * len(labels), "shapes": frames, "annotations": notes, "yaxis": rows}
    halves = [("x", "published", [0, 0.485]), ("x2", "measured", [0.515, 1])]
    if all(c.published() is None for c in measured):
        halves = [("x", "measured", [0, 1])]
    traces = []
    for axis, kind, ends in halves:
        layout[axis.replace("x", "xaxis")] = {**columns, "domain": ends, "title": f"{kind}, by imbalance"}
        traces.append(_half(axis, kind, grid, labels, notes, frames))
    label = (
        f"Test error in %, {dataset}: published (left) and measured (right); the lowest of each column is "
        "framed"
    )
    return Chart(f"grid-{place}", label, Spec(traces, layout), wide=True)


def _half(
    axis: str,
    kind: str,
    grid: Grid,
    labels: list[str],
    notes: list[Part],
    frames: list[Part],
) -> Part:
    """Return one side's colours, which compare within a column; add its numbers and frames."""
    values = [
        [None if c is None else c.published() if kind == "published" else c.mean() for c in row]
        for row in grid.cells
    ]
    known = [[v for v in column if v is not None] for column in zip(*values, strict=True)]
    tints: list[list[float | None]] = []
    texts: list[list[str]] = []
    for y, row in enumerate(values):
        tints.append([_tint(value, column) for value, column in zip(row, known, strict=True)])
        texts.append([])
        for x, (value, column) in enumerate(zip(row, known, strict=True)):
            best = value is not None and len(column) > 1 and value == min(column)
            if value is None:
                absent = (
                    "–" if grid.cells[y][x] is None else "not run" if kind == "measured" else "not published"
                )
                text, said, colour = absent.replace("not published", "–"), absent, "@dim"
            else:
                text, said = f"<b>{value:.1f}</b>" if best else f"{value:.1f}", f"{value:.2f} %"
                colour = "#000" if (tints[y][x] or 0) > 0.55 else "#fff"
            texts[y].append(f"{labels[y]}, imbalance {grid.factors[x]}: {said}")
            at = {"xref": axis, "yref": "y"}
            font = {"size": 10, "color": colour}
            notes.append({**at, "x": x, "y": y, "text": text, "showarrow": False, "font": font})
            if best:
                ends = {"x0": x - 0.5, "x1": x + 0.5, "y0": y - 0.5, "y1": y + 0.5}
                frames.append({**at, **ends, "type": "rect", "line": {"color": "#D55E00", "width": 3}})
    return {
        **{"z": tints, "x": list(range(len(grid.factors))), "y": list(range(len(labels)))},
        **{"xaxis": axis, "yaxis": "y", "type": "heatmap", "xgap": 2, "ygap": 1},
        **{"colorscale": "Cividis", "showscale": False, "text": texts, "hoverinfo": "text"},
    }


def _axis(ticks: Sequence[str]) -> Part:
    return {**_STILL, "tickvals": list(range(len(ticks))), "ticktext": ticks}


def _tint(value: float | None, known: list[float]) -> float | None:
    if value is None:
        return None
    low, high = min(known), max(known)
    return (value - low) / (high - low) if high > low else 0.5
