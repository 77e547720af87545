"""The tail: training samples of every class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longtail._checks import short
from longtail.compare import GROUPS, ComparisonTable
from longtail.evaluation import Evaluation, MultiLabelEvaluation
from longtail.evaluation.intervals import THIN, in_groups_text
from longtail.report.blocks import Chart, Panel, Spec, Text
from longtail.report.charts import GROUP_COLOURS, class_axis, inert, log_axis, points_of


@dataclass(frozen=True)
class Tail:
    """A training set's classes from head to tail.

    Attributes:
        names: one a class.
        counts: training samples, falling.
        thresholds: of the shot groups.
        samples: how many there are of many labels a sample, 0 where that is not known; None of one class.
    """

    names: Sequence[str]
    counts: npt.NDArray[np.float64]
    thresholds: tuple[int, int] = (100, 20)
    samples: int | None = None

    @property
    def words(self) -> tuple[str, str, str]:
        """What a class, several, and their samples are called."""
        one = self.samples is None
        return ("class", "classes", "training samples") if one else ("label", "labels", "positives")


def tail_of(table: ComparisonTable) -> Tail:
    """Return the classes of a comparison from head to tail."""
    names, order = table.class_names, table.order
    counts = np.asarray(table.class_counts, dtype=float)[order]
    samples = None
    if table.many_labels:
        told = table.outcomes[0].environment.get("num_samples")
        samples = told if isinstance(told, int) else 0
    return Tail([names[i] for i in order], counts, table.evaluation.thresholds, samples)


def panel(table: ComparisonTable) -> Panel:
    """Show how long the tail is."""
    tail = tail_of(table)
    asked, real = table.recipe.imbalance_factor, tail.counts[0] / tail.counts[tail.counts > 0][-1]
    about = f"Test set: {_test_set(table.evaluation)}"
    if asked is not None and abs(real - asked) > 0.05 * asked:
        about += (
            f" The tail was cut for an imbalance of {asked:g}; whole samples make it {short(float(real))}."
        )
    return Panel("The tail", [Text(about), chart(tail)], "How long is the tail?", facts(tail))


def chart(tail: Tail) -> Chart:
    """Return the bars of the classes, or a line of very many."""
    many, few = tail.thresholds
    counts = tail.counts
    names = {
        "many": f"many-shot (> {many})",
        "medium": f"medium-shot ({few} to {many})",
        "few": f"few-shot (< {few})",
    }
    of_class = np.where(counts > many, "many", np.where(counts < few, "few", "medium"))
    traces = []
    for group in GROUPS:
        at = [i for i in points_of(len(counts)) if of_class[i] == group]
        if not at:
            continue
        colour = GROUP_COLOURS[group]
        bars = {"type": "bar", "textposition": "none", "marker": {"color": colour}}
        line = {"type": "scatter", "mode": "lines", "line": {"color": colour, "width": 3, "shape": "hv"}}
        points = {"x": [i + 1 for i in at], "y": [float(counts[i]) or None for i in at], "name": names[group]}
        texts = {"text": [f"{inert(tail.names[i])}: {count(counts[i])}" for i in at], "hoverinfo": "text"}
        traces.append({**points, **texts, **(bars if len(counts) <= 300 else line)})
    one, _, what = tail.words
    axes = {"xaxis": class_axis(tail.names, one), "yaxis": log_axis(what, counts)}
    label = f"{what.capitalize()} of every {one}, from head to tail (log scale)"
    return Chart("counts", label, Spec(traces, {**axes, "bargap": 0.15}))


def facts(tail: Tail) -> str:
    """Say how long the tail is."""
    many, few = tail.thresholds
    counts = tail.counts
    filled = counts[counts > 0]
    rarest = tail.names[int(np.argmax(counts == filled[-1]))]
    rare = np.sort(counts)[: len(counts) // 2].sum() / counts.sum()
    sizes = [int((counts > many).sum()), int(((counts >= few) & (counts <= many)).sum())]
    _, classes, what = tail.words
    rows = f" in {count(tail.samples)} samples" if tail.samples else ""
    text = (
        f"{len(counts):,} {classes}, {count(counts.sum())} {what}{rows}, from {count(filled[0])} "
        f"({tail.names[0]}) down to {count(filled[-1])} ({rarest}): imbalance factor "
        f"{short(float(filled[0] / filled[-1]))}. The rarer half of the {classes} holds "
        f"{100 * rare:.1f} % of the {what.split()[-1]}. {sizes[0]:,} many-shot (> {many}), {sizes[1]:,} "
        f"medium-shot ({few} to {many}) and {len(counts) - sum(sizes):,} few-shot (< {few}) {classes}."
    )
    empty = len(counts) - len(filled)
    return text + (f" {empty:,} of the few-shot classes have no sample at all and weigh 0." if empty else "")


def count(value: float) -> str:
    """Write a number of samples."""
    return f"{float(value):,.10g}"


def _test_set(evaluation: Evaluation | MultiLabelEvaluation) -> str:
    total = f"{evaluation.num_samples:,} test samples{in_groups_text(evaluation.num_groups)}"
    if isinstance(evaluation, MultiLabelEvaluation):
        bare = sum(n < THIN for n in evaluation.positives)
        which = f"{bare} of {len(evaluation.positives)} labels have fewer than {THIN} positives"
        return f"{total}; {which if bare else f'each label has at least {THIN} positives'} among them."
    if evaluation.confusion is None:
        return f"{total}; how they spread over the classes is not kept beyond 1000 classes."
    sizes = [sum(row) for row in evaluation.confusion]
    if thin := evaluation.thin_text:
        total += f", {thin}"
    if min(sizes) == max(sizes):
        return f"{total}, balanced: {sizes[0]} a class."
    return f"{total}, not balanced: {min(sizes)} to {max(sizes)} a class, so error and balanced error differ."
