"""Figures with matplotlib, drawn without a display, in Okabe and Ito's palette for the colour-blind."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longtail.compare.columns import named
from longtail.report.charts import COLOURS, OTHERS
from longtail.weights import class_weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from longtail.compare import ComparisonTable, Row
    from longtail.evaluation import Evaluation

__all__ = ["save"]

MARKERS = {"none": "o", "inverse": "^", "inverse_sqrt": "s", "effective": "D"}
LINES = 6  # more in one panel cannot be told apart
NAMES = {"none": "no re-weighting", "inverse_sqrt": "inverse sqrt"}


def save(figure: Figure, stem: str | os.PathLike[str], formats: Iterable[str] = ("png", "svg")) -> list[Path]:
    """Write a figure in some formats, the same bytes every time, and return the paths.

    Args:
        figure: of matplotlib, laid out or not.
        stem: the file's path without its ending; the folder is made if need be.
        formats: any of "png", "svg", "pdf".
    """
    import matplotlib

    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for ending in formats:
        path = stem.with_name(f"{stem.name}.{ending}")
        dateless = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(ending)
        with matplotlib.rc_context({"svg.hashsalt": "longtail"}):
            figure.savefig(path, dpi=150, metadata=dateless)
        paths.append(path)
        figure.set_layout_engine("none")  # laid out once is enough
    return paths


def _telling(rows: Sequence[Row]) -> Sequence[Row]:
    """Of many methods those that tell the most: plain ones and the best of the others, in their order."""

    def place(row: Row) -> float:
        summary = row[row.recipe.metric].summary
        falls = named(row.recipe.metric, row.recipe.many_labels).lower_is_better
        return math.inf if summary is None else summary.mean if falls else -summary.mean

    ranked = sorted(rows, key=lambda row: (not row.is_plain, place(row)))
    chosen = ranked[:LINES]
    return [row for row in rows if row in chosen]


def draw_comparison(comparison: ComparisonTable, path: str | os.PathLike[str]) -> Path:
    """Draw class counts, class weights and per-class errors, head to tail, one column of errors a loss.

    Args:
        comparison: what :func:`longtail.compare.compare` returned, with at least one finished run.
        path: the picture's file; the ending chooses the format (.png, .svg, .pdf).

    Returns:
        The path.

    Raises:
        ValueError: no run finished.

    Source: after Figures 1 and 3 of Cui et al. (CVPR 2019).
    """
    from matplotlib.figure import Figure

    if not comparison.shown:
        raise ValueError("comparison has no finished run to draw; look at its failures")
    counts = np.asarray(comparison.class_counts)
    order = comparison.order
    x = np.arange(len(counts))
    many = comparison.many_labels
    losses = [""] if many else list(dict.fromkeys(row.loss for row in comparison.rows))

    def of(loss: str) -> list[Row]:
        return [row for row in comparison.shown if many or row.loss == loss]

    shown = [row for loss in losses for row in _telling(of(loss))]
    weightings = dict.fromkeys(row.short_name if many else row.weights for row in shown)
    colours = {w: COLOURS.get(w, OTHERS[i % len(OTHERS)]) for i, w in enumerate(weightings)}

    size = (12, 5.2) if many else (3.4 * (1 + len(losses)), 5.2)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(2, 1 + len(losses))
    top = figure.add_subplot(grid[:, 0] if many else grid[0, 0])
    top.bar(x, counts[order], color="#BBBBBB", edgecolor="#555555", linewidth=0.6)
    top.set_yscale("log")
    top.set_ylim(bottom=counts[counts > 0].min() / 2)
    top.set_ylabel("positives" if many else "training samples")
    top.set_title(f"{comparison.recipe.dataset}: the training set")
    if not many:
        _draw_weights(comparison, figure.add_subplot(grid[1, 0], sharex=top))

    first = None
    for column, loss in enumerate(losses, start=1):
        axes = figure.add_subplot(grid[:, column], sharex=top, sharey=first)
        first = first or axes
        of_loss = of(loss)
        drawn = _telling(of_loss)
        for row in drawn:
            errors, colour = row.by_class, colours[row.short_name if many else row.weights]
            mean = 100 * errors.mean[order]
            label = row.short_name if many else NAMES.get(row.weights, row.weights)
            marker = MARKERS.get(row.weights, "P")
            axes.plot(x, mean, color=colour, marker=marker, markersize=4, label=label)
            if errors.sd is not None and row.weights in ("none", "effective"):
                spread = 100 * errors.sd[order]
                axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
        axes.set_ylim(0, 100)
        some = "" if len(drawn) == len(of_loss) else f"\nplain and the best {LINES - 1} of {len(of_loss)}"
        title = "average precision by label" if many else f"{loss}: test error by class"
        axes.set_title(f"{title}{some}", fontsize=None if not some else 10)
        axes.set_ylabel("average precision, %" if many else "error, %" if column == 1 else "")
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        if column == 1:
            axes.legend(fontsize=7, frameon=False, loc="upper right" if many else "upper left")
    for axes in figure.axes:
        axes.set_xlabel("label, head to tail" if many else "class, head to tail")
        axes.spines[["top", "right"]].set_visible(False)
        if len(counts) <= 30:
            axes.set_xticks(x, [str(i) for i in order])
    seeds = len(comparison.rows[0].outcomes)
    unit = comparison.unit
    about = f"Mean of {seeds} {unit}s; bands are one standard deviation" if seeds > 1 else f"One {unit}"
    figure.suptitle(about, fontsize=9)
    figure.savefig(path, dpi=150)
    return Path(path)


def _draw_weights(comparison: ComparisonTable, below: Axes) -> None:
    """Draw what each weighting makes of the counts."""
    counts = np.asarray(comparison.class_counts)
    recipes = [row.recipe for row in comparison.rows]
    weighed = dict.fromkeys((r.scheme, r.beta if r.scheme == "effective" else 0.0) for r in recipes)
    for scheme, beta in weighed:
        weight = class_weights(counts, scheme, beta=beta)
        label = f"{scheme} (beta {beta:g})" if scheme == "effective" else NAMES.get(scheme, scheme)
        values = weight[comparison.order]
        marks: dict[str, Any] = {"color": COLOURS[scheme], "marker": MARKERS[scheme], "markersize": 4}
        below.plot(np.arange(len(counts)), values, label=label, **marks)
    below.set_yscale("log")
    below.set_ylabel("class weight (mean 1)")
    below.set_title("what each scheme makes of it")
    below.legend(fontsize=7, frameon=False)


def draw_confusion(
    evaluations: Sequence[Evaluation], class_names: Sequence[str], path: str | os.PathLike[str]
) -> Path:
    """Draw which classes are taken for which: the share of each true class, all runs counted together.

    Args:
        evaluations: runs on the same classes, one or more.
        class_names: C names, in the order of the classes.
        path: the picture's file; the ending chooses the format (.png, .svg, .pdf).

    Returns:
        The path.

    Raises:
        ValueError: no evaluation, one without a confusion matrix, or another number of names.
    """
    from matplotlib.figure import Figure

    tables = [np.asarray(e.confusion) for e in evaluations if e.confusion is not None]
    if not tables or len(tables) < len(evaluations):
        raise ValueError("evaluations must be one or more with a confusion matrix; it ends at 1000 classes")
    if len(class_names) != len(tables[0]):
        raise ValueError(f"class_names must be {len(tables[0])} names, got {len(class_names)}")
    counts = np.sum(tables, axis=0)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = 2 + 0.32 * len(share)
    figure = Figure(figsize=(size + 0.6, size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for true, predicted in zip(*np.nonzero(share >= 0.5), strict=True):
        value = share[true, predicted]
        colour = "white" if value > 60 else "black"
        axes.text(predicted, true, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(share)), class_names, rotation=90)
    axes.set_yticks(range(len(share)), class_names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    runs = f"{len(tables)} runs" if len(tables) > 1 else "one run"
    axes.set_title(f"% of each true class, {runs}", fontsize=9)
    figure.colorbar(image, ax=axes, shrink=0.8)
    figure.savefig(path, dpi=150)
    return Path(path)
