"""The paper's figures, in Okabe and Ito's palette for the colour-blind."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from longtail import class_weights, effective_number
from longtail.compare import ComparisonTable, Outcome, Row
from longtail.datasets import long_tail_counts
from longtail.extend import short
from longtail.paper.settings import Grid, MeasuredSetting, Setting, of_run
from longtail.report.charts import COLOURS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

Floats = npt.NDArray[np.float64]
Look = dict[str, Any]  # keywords of matplotlib
PALETTE = ("#000000", "#D55E00", "#56B4E9", "#009E73", "#E69F00", "#0072B2", "#CC79A7")
NUMBERS = (1, 3, 4, 5, 6, 7, 8, 9, 10)
_DASHES = ("-", "--", ":", "-.")
_SHAPES = ("o", "s", "D", "^", "v", "P", "X")
BETAS = (0.0, 0.9, 0.99, 0.999, 0.9999)
FACTORS = (1, 10, 20, 50, 100, 200)


def draw_tail(counts: npt.ArrayLike, name: str = "training set") -> Figure:
    """Draw the training samples of every class from head to tail, with the weights that follow (Figure 1).

    Args:
        counts: training samples of each class.
        name: of the data, for the title.
    """
    counts = np.sort(np.asarray(counts, dtype=float))[::-1]
    rank = np.arange(1, len(counts) + 1)
    figure, axes = _axes()
    axes.fill_between(rank, np.maximum(counts, 0.5), 0.5, step="mid", color="#BBBBBB", linewidth=0)
    axes.step(rank, np.maximum(counts, 0.5), where="mid", color="#555555", linewidth=0.8)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5)
    axes.set_ylabel("training samples")
    factor = counts[0] / counts[counts > 0][-1]
    axes.set_title(f"{name}: {len(counts):,} classes, imbalance factor {short(factor)}", fontsize=9)
    right = axes.twinx()
    labels = {"none": "none", "inverse": "1/n", "effective": "effective, β = 0.999"}
    for dash, (scheme, label) in zip(_DASHES, labels.items(), strict=False):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where the term does nothing the picture shows it
            weight = class_weights(counts, scheme, beta=0.999)
        weight = np.where(weight > 0, weight, np.nan)
        right.plot(rank, weight, color=COLOURS[scheme], linestyle=dash, linewidth=1.5, label=label)
    right.set_yscale("log")
    right.set_ylabel("class weight (mean 1)")
    right.spines["top"].set_visible(False)
    lines, small = right.get_legend_handles_labels(), {"fontsize": 7, "title_fontsize": 7, "frameon": False}
    figure.legend(*lines, loc="outside lower center", ncols=3, title="class weights", **small)
    _head_to_tail(axes, len(counts))
    return figure


def draw_weight_term(betas: Sequence[float] = BETAS, largest: float = 1e5) -> Figure:
    """Draw the class-balanced term 1 / E_n against n for several betas, both axes logarithmic (Figure 3)."""
    n = np.logspace(0, np.log10(largest), 200)
    figure, axes = _axes()
    for place, beta in enumerate((*betas, 1.0) if 1.0 not in betas else betas):
        label = "β → 1 (1/n)" if beta == 1.0 else f"β = {beta:g}"
        axes.plot(n, 1 / effective_number(n, beta), label=label, **_line(place))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("samples n of the class")
    axes.set_ylabel("class-balanced term (1 − β) / (1 − βⁿ)")
    axes.set_title("The class-balanced term", fontsize=9)
    axes.legend(frameon=False, fontsize=7)
    return figure


def draw_imbalances(
    num_classes: int, max_count: int, factors: Sequence[float] = FACTORS, name: str = ""
) -> Figure:
    """Draw the training samples of every class for several imbalance factors (Figure 4)."""
    figure, axes = _axes()
    rank = np.arange(1, num_classes + 1)
    for place, factor in enumerate(f for f in factors if f <= max_count):  # steeper ones leave empty classes
        counts = long_tail_counts(num_classes, max_count, factor)
        axes.plot(rank, counts, label=f"{factor:g}", **_line(place, num_classes))
    axes.set_yscale("log")
    axes.set_ylabel("training samples")
    axes.set_title(f"{name or 'A long tail'}: {num_classes} classes of at most {max_count:,}", fontsize=9)
    axes.legend(frameon=False, fontsize=7, title="imbalance factor", title_fontsize=7)
    _head_to_tail(axes, num_classes)
    return figure


def draw_error_against_beta(compared: Sequence[MeasuredSetting]) -> Figure:
    """Draw the error with and without the class-balanced term against beta (Figure 5).

    One panel a data set and imbalance factor; a loss's plain error is the level line of its colour.
    Filled marks and full lines are measured, mean with standard deviation; hollow marks and thin lines are
    published. A beta that was neither is a gap.

    Args:
        compared: settings of the paper's grids, with what was published and what was measured.

    Raises:
        ValueError: no cell has a number.
    """
    known = _with_numbers(compared)
    if not known:
        raise ValueError(
            "no cell was published or measured, so there is nothing to draw"
            "; run longtail reproduce for some cells first"
        )
    names = list(dict.fromkeys(c.setting.dataset for c in known))
    found = {(c.setting.dataset, c.setting.imbalance_factor) for c in known if c.setting.beta > 0}
    panels = sorted(found, key=lambda panel: (names.index(panel[0]), -panel[1]))
    if not panels:
        raise ValueError(
            "no cell with effective weights has a number, so there is no error against beta"
            "; run longtail reproduce with --beta 0.9999 first"
        )
    methods = list(dict.fromkeys(c.setting.method for c in known))
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = _figure(max(4.4, 3.2 * columns), 2.8 * rows + 0.6)
    for number, (dataset, factor) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        here = [c for c in known if (c.setting.dataset, c.setting.imbalance_factor) == (dataset, factor)]
        betas = sorted({c.setting.beta for c in here} - {0.0})
        for place, method in enumerate(methods):
            colour, shape = PALETTE[place % len(PALETTE)], _SHAPES[place % len(_SHAPES)]
            mine = {c.setting.beta: c for c in here if c.setting.method == method}
            for published in (True, False):
                look: Look = {"color": colour, "linewidth": 0.7 if published else 1.6}
                fill: Look = {"marker": shape, "markersize": 5}
                fill["markerfacecolor"] = "white" if published else colour
                plain, *line = (_value(mine.get(beta), published) for beta in (0.0, *betas))
                if not np.isnan(plain):
                    axes.axhline(plain, linestyle=":", **look)
                spread = None if published else [_spread(mine.get(beta)) for beta in betas]
                aside = 0.06 * (place - (len(methods) - 1) / 2)  # side by side, not on top
                axes.errorbar(np.arange(len(betas)) + aside, line, yerr=spread, capsize=2, **look, **fill)
        axes.set_xticks(range(len(betas)), [f"{beta:g}" for beta in betas])
        axes.set_xlim(-0.5, len(betas) - 0.5)
        axes.set_xlabel("β")
        axes.set_ylabel("test error, %")
        axes.set_title(f"{dataset}, imbalance {factor}", fontsize=9)
        _tidy(axes)
    handles = [
        _key(label=method, color=PALETTE[i % len(PALETTE)], marker=_SHAPES[i % len(_SHAPES)], linewidth=1.6)
        for i, method in enumerate(methods)
    ]
    if any(c.published() is not None for c in known):
        hollow = {"marker": "o", "markerfacecolor": "white", "linewidth": 0.7}
        handles.append(_key(label="published", color="#777777", **hollow))
    handles.append(_key(label="measured", color="#777777", marker="o", linewidth=1.6))
    handles.append(_key(label="plain loss", color="#777777", linestyle=":"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2 + columns, frameon=False, fontsize=7)
    return figure


def draw_effective_numbers(
    counts: npt.ArrayLike, betas: Sequence[float] = (0.9, 0.99, 0.999, 0.9999), name: str = "training set"
) -> Figure:
    """Draw the effective number of every class for several betas, logarithmic in the number (Figure 6)."""
    counts = np.sort(np.asarray(counts, dtype=float))[::-1]
    rank = np.arange(1, len(counts) + 1)
    figure, axes = _axes()
    for place, beta in enumerate(betas):
        number = effective_number(counts, beta)
        number, look = np.where(number > 0, number, np.nan), _line(place + 1, len(counts))
        axes.plot(rank, number, label=f"β = {beta:g}", **look)
    filled = np.where(counts > 0, counts, np.nan)
    axes.plot(rank, filled, color="black", linewidth=1.2, label="β → 1 (samples n)")
    axes.set_yscale("log")
    axes.set_ylabel("effective number of samples")
    axes.set_title(name, fontsize=9)
    axes.legend(frameon=False, fontsize=7)
    _head_to_tail(axes, len(counts))
    return figure


def draw_curves(comparison: ComparisonTable, rows: Sequence[Row] | None = None) -> Figure:
    """Draw the test error during training, mean over seeds (Figure 7).

    Args:
        comparison: finished runs with a history.
        rows: some of its methods; default: the best, its baseline, and up to five others.

    Raises:
        ValueError: no run kept a history.
    """
    if rows is None:
        best = comparison.best
        first = [r for r in (comparison.baseline(best) if best else None, best) if r is not None]
        rows = [*first, *(r for r in comparison.shown if r not in first)][: len(PALETTE)]
    figure, axes = _axes()
    for place, row in enumerate(rows):
        curve = row.curve
        if curve is not None and curve.tested:
            mean = [100 * error for error in curve.error]
            label = f"{row.loss} {row.weights}"
            axes.plot(curve.tested, mean, label=label, **_line(place, len(curve.tested)))
    if not axes.lines:
        raise ValueError("no run kept a history of its test error; train with a smaller eval_every")
    axes.set_xlabel("epoch")
    axes.set_ylabel("test error, %")
    seeds = sorted({len(row.outcomes) for row in rows})
    text = "one seed" if seeds == [1] else f"mean of {'-'.join(map(str, seeds))} seeds"
    axes.set_title(f"{comparison.title}: {text}", fontsize=9)
    axes.legend(frameon=False, fontsize=7)
    return figure


def draw_grid(compared: Sequence[MeasuredSetting]) -> Figure:
    """Draw one data set's grid of errors, published and measured, as a coloured table (Figures 8 to 10).

    One row a loss and beta, one column an imbalance factor, the lowest of each column framed and bold.
    Colours compare within a column. A cell without a number says "–" (not published) or "not run".

    Args:
        compared: the cells of one data set.

    Raises:
        ValueError: the cells are of several data sets.
    """
    names = list(dict.fromkeys(c.setting.dataset for c in compared))
    if len(names) != 1:
        raise ValueError(f"compared has cells of {len(names)} data sets, got {names}; draw one at a time")
    grid = Grid.of(compared)
    factors, rows = grid.factors, grid.rows
    halves = [True, False] if any(c.published() is not None for c in compared) else [False]
    figure = _figure(1.4 + len(halves) * max(1.5, 0.55 * len(factors)), 0.9 + 0.22 * len(rows))
    for half, published in enumerate(halves):
        axes = figure.add_subplot(1, len(halves), half + 1)
        values = np.array([[_value(cell, published) for cell in row] for row in grid.cells])
        low, span = _column_range(values)
        axes.imshow((values - low) / span, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        for (i, j), value in np.ndenumerate(values):
            best = value == low[j] and (~np.isnan(values[:, j])).sum() > 1
            text = f"{value:.1f}"
            look: Look = {"fontsize": 6.5, "fontweight": "bold" if best else "normal"}
            look["color"] = "white" if (value - low[j]) / span[j] < 0.55 else "black"
            if np.isnan(value):
                absent = published or grid.cells[i][j] is None
                text, look = "–" if absent else "not run", {"fontsize": 5.5, "color": "#666666"}
            # inside its cell anyway: measuring every text would take longer than all the rest
            axes.text(j, i, text, ha="center", va="center", **look).set_in_layout(False)
            if best:
                axes.add_patch(_frame(j, i))
        axes.set_xticks(range(len(factors)), [str(f) for f in factors], fontsize=7)
        labels = [] if half else [f"{m}, β = {b:g}" for m, b in rows]
        axes.set_yticks(range(len(rows)), labels, fontsize=6.5)
        axes.tick_params(length=0, labelbottom=False, labeltop=True)
        axes.set_title("published" if published else "measured", fontsize=8)
        axes.spines[:].set_visible(False)
        for edge in np.flatnonzero([rows[i][0] != rows[i - 1][0] for i in range(1, len(rows))]):
            axes.axhline(edge + 0.5, color="white", linewidth=2)
    figure.suptitle(f"{names[0]}: test error in %, by imbalance factor", fontsize=9)
    return figure


CIFAR = {"cifar10": (10, 5000), "cifar20": (20, 2500), "cifar100": (100, 500)}
GRIDS = {8: "cifar10", 9: "cifar20", 10: "cifar100"}
OF_TABLES = {"table2": (4, 5, 6, 8, 10), "fig8": (5, 8), "fig9": (5, 9), "fig10": (5, 10)}


def draw_papers(compared: Sequence[MeasuredSetting], numbers: Sequence[int]) -> Iterator[tuple[str, Figure]]:
    """Draw the paper's figures on long-tailed CIFAR, with what was measured beside what was published.

    Args:
        compared: the cells of the data sets to show; Figures 4 and 6 need no more than their names.
        numbers: any of 3, 4, 5, 6, 8, 9, 10; 8 to 10 belong to one data set each.

    Yields:
        A name for the file, and the figure; none where no cell has a number to draw.
    """
    known = _with_numbers(compared)
    names = [name for name in CIFAR if any(c.setting.dataset == name for c in compared)]
    for number in numbers:
        if number == 3:
            yield "figure3", draw_weight_term()
        elif number == 4:
            for name in names:
                yield f"figure4-{name}", draw_imbalances(*CIFAR[name], name=name)
        elif number == 5:
            if any(c.setting.beta > 0 for c in known):
                yield "figure5", draw_error_against_beta(compared)
        elif number == 6:
            for name in names:
                counts = long_tail_counts(*CIFAR[name], 50)
                yield f"figure6-{name}", draw_effective_numbers(counts, name=f"{name}, imbalance 50")
        elif any(c.setting.dataset == GRIDS.get(number) for c in known):
            cells = [c for c in compared if c.setting.dataset == GRIDS[number]]
            yield f"figure{number}-{GRIDS[number]}", draw_grid(cells)


def draw_counts(
    counts: Sequence[int] | npt.NDArray[np.number], numbers: Sequence[int], name: str
) -> Iterator[tuple[str, Figure]]:
    """Draw Figures 1, 3, 4 and 6 for some class counts; yields names and figures as :func:`draw_papers`."""
    filled = np.asarray(counts)[np.asarray(counts) > 0]
    for number in numbers:
        if number == 1:
            yield "figure1", draw_tail(counts, name)
        elif number == 3:
            yield "figure3", draw_weight_term(largest=max(10.0, float(filled.max())))
        elif number == 4:
            yield "figure4", draw_imbalances(len(counts), int(filled.max()), name=name)
        elif number == 6:
            yield "figure6", draw_effective_numbers(counts, name=name)


def draw_runs(
    comparison: ComparisonTable, numbers: Sequence[int], *, some: bool = False
) -> Iterator[tuple[str, Figure]]:
    """Draw the paper's figures for some runs; yields names and figures as :func:`draw_papers`.

    Figures 8 to 10 are the grid of the runs' own data set, whichever of the three is asked for.

    Args:
        comparison: the runs.
        numbers: of the figures.
        some: leave out Figure 5 where no beta was trained, and 7 without a history, in place of an error.

    Raises:
        ValueError: so.
    """
    yield from draw_counts(comparison.class_counts, numbers, comparison.title)
    cells = measured_runs(comparison.outcomes)
    with contextlib.suppress(*[ValueError] * some):
        if 5 in numbers:
            yield "figure5", draw_error_against_beta(cells)
    with contextlib.suppress(*[ValueError] * some):
        if 7 in numbers:
            yield "figure7", draw_curves(comparison)
    if {8, 9, 10} & set(numbers) and cells:
        number = next((n for n, name in GRIDS.items() if name == comparison.recipe.dataset), "s8-10")
        yield f"figure{number}-{comparison.recipe.dataset}", draw_grid(cells)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _axes() -> tuple[Figure, Any]:
    figure = _figure(4.4, 3.1)
    axes = figure.add_subplot()
    _tidy(axes)
    return figure, axes


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _line(place: int, points: int = 200) -> Look:
    """Colour, dash and mark of one line: any one of the three tells the lines apart."""
    colour, dash, shape = (kind[place % len(kind)] for kind in (PALETTE, _DASHES, _SHAPES))
    marks = {"marker": shape, "markevery": max(1, points // 8), "markersize": 4}
    return {"color": colour, "linestyle": dash, "linewidth": 1.4, **marks}


def _head_to_tail(axes: Any, classes: int) -> None:
    axes.set_xlabel("class, head to tail (rank)")
    if classes > 1000:
        axes.set_xscale("log")


def _key(**look: Any) -> Artist:
    from matplotlib.lines import Line2D

    return Line2D([], [], markersize=5, **look)


def _frame(column: int, row: int) -> Patch:
    from matplotlib.patches import Rectangle

    corner = (column - 0.5, row - 0.5)
    return Rectangle(corner, 1, 1, fill=False, edgecolor="#D55E00", linewidth=1.8, zorder=3)


def _value(compared: MeasuredSetting | None, published: bool) -> float:
    value = None if compared is None else compared.published() if published else compared.mean()
    return np.nan if value is None else value


def _spread(compared: MeasuredSetting | None) -> float:
    summary = None if compared is None else compared.summary()
    return 0.0 if summary is None or summary.sd is None else summary.sd


def _with_numbers(compared: Sequence[MeasuredSetting]) -> list[MeasuredSetting]:
    return [c for c in compared if c.published() is not None or c.summary() is not None]


def _column_range(values: Floats) -> tuple[Floats, Floats]:
    """Lowest value and span of every column, so that colours compare what stands in one column."""
    filled = np.where(np.isnan(values), np.inf, values)
    low = filled.min(axis=0)
    high = np.where(np.isnan(values), -np.inf, values).max(axis=0)
    empty = np.isinf(low)
    span = np.where(empty | (high == low), 1.0, high - low)
    return np.where(empty, 0.0, low), span


def measured_runs(outcomes: Sequence[Outcome]) -> list[MeasuredSetting]:
    """Turn runs with and without effective weights into settings as those of the paper's grids.

    The published error stands beside a setting only where all of its runs followed the paper's recipe.
    """
    found: dict[tuple[object, ...], list[tuple[Setting, float]]] = {}
    for outcome in outcomes:
        setting = of_run(outcome.recipe)
        if outcome.recipe.scheme in ("none", "effective") and outcome.evaluation is not None:
            about = setting.dataset, setting.imbalance_factor, setting.method, setting.beta
            found.setdefault(about, []).append((setting, 100.0 * outcome.result.error))
    return [
        MeasuredSetting(
            min((setting for setting, _ in runs), key=lambda setting: len(setting.published)),
            {"error": {i: error for i, (_, error) in enumerate(runs)}},
        )
        for runs in found.values()
    ]
