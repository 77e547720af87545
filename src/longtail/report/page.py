"""The report as one HTML file: text and tables from here, charts by Plotly in the page, no network at all.

Every number of the results is computed in Python; the page only draws them. The beta explorer alone computes
in the page, from the counts, what :func:`longtail.class_weights` would.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import numpy as np

from longtail._checks import short
from longtail.compare import CONFIDENCE, GROUPS, Comparison, Outcome, Row
from longtail.counts import ClassCounts
from longtail.evaluation import Evaluation, PairedDifference, paired_difference
from longtail.report import advice, runs, tables
from longtail.weights import class_weights

__all__ = ["Published", "explorer_page", "report_page"]

_MATRIX_CLASSES = 100  # more are no picture any more
_MATRIX_NUMBERS = 400_000  # numbers of one kind in the page: some 2 MB
_INTERVAL_CLASSES = 300
_CURVE_POINTS = 400
_CONFUSIONS = 12


@dataclass(frozen=True)
class Published:
    """A published table beside what was measured.

    Attributes:
        source: who published it.
        table: one row a setting.
        done: how many settings were measured.
        grids: to be drawn, one a data set: its name as "dataset" and "cells", each with "imbalance",
            "method", "beta", "paper" and "measured", in percent.
    """

    source: str
    table: tables.Sheet
    done: int
    grids: Sequence[dict[str, Any]] = ()


def report_page(
    comparisons: Sequence[Comparison],
    *,
    left_out: Sequence[runs.LeftOut] = (),
    paper: Published | None = None,
    title: str | None = None,
) -> str:
    """Return the report of some runs as one self-contained HTML file, to be written as UTF-8.

    Args:
        comparisons: one a training set, such as :func:`longtail.report.runs.comparisons` makes.
        left_out: runs that are named but not counted.
        paper: a published table beside its measurement, shown first.
        title: of the page; default: the first training set's name.

    Raises:
        ValueError: there is nothing to report: no finished run and no published table.
    """
    shown = [c for c in comparisons if any(row.outcomes for row in c.rows)]
    if not shown and paper is None:
        raise ValueError("no finished run to report; look at what was left out")
    failed = [runs.LeftOut(o.folder, f"failed: {o.failure}") for c in comparisons for o in c.failures]
    groups = [_group(c, f"set{i}") for i, c in enumerate(shown)]
    names = ", ".join(dict.fromkeys(runs.title_of(c) for c in shown))
    return _render(
        title=title or f"Long-tail report: {names if len(shown) < 4 else f'{len(shown)} training sets'}",
        groups=groups,
        left_out=[*left_out, *failed],
        paper=paper,
    )


def explorer_page(counts: ClassCounts, *, title: str = "Beta explorer", volume: float = 1000.0) -> str:
    """Return the beta explorer for some counts alone, as one self-contained HTML file.

    Args:
        counts: training samples by class name.
        title: of the page.
        volume: where the slider starts.

    Raises:
        ValueError: no class has samples.
    """
    class_weights(counts, "none")  # refuses what cannot be weighed, before a page shows it
    order = np.argsort(-counts.counts, kind="stable")
    data = _tail_data([str(name) for name in counts.names], counts.counts, order, (100, 20)) | {
        "volume": volume
    }
    group = {
        "id": "set0",
        "title": "",
        "tail": _tail_facts(counts.counts, counts.names, (100, 20)),
        "data": data,
    }
    return _render(title=title, groups=[group | {"methods": []}], left_out=[], paper=None)


def _render(*, groups: list[dict[str, Any]], **values: Any) -> str:
    from jinja2 import Environment, StrictUndefined

    assets = files("longtail.report") / "assets"
    style, script, library = (
        (assets / name).read_text(encoding="utf-8")
        for name in ("page.css", "page.js", "plotly-cartesian.min.js")
    )
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((assets / "page.html").read_text(encoding="utf-8"))
    paper = values["paper"]
    data = {"sets": {g["id"]: g["data"] for g in groups}, "paper": paper.grids if paper else None}
    return template.render(
        groups=groups,
        style=style,
        scripts=[library, script],
        hashes=[_csp_hash(library), _csp_hash(script)],
        data=_inert_json(data),
        version=version("longtail"),
        **values,
    )


def _csp_hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _inert_json(data: Any) -> str:
    """JSON that no HTML parser reads as anything else: no tag can begin inside it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# ---- one training set


def _group(comparison: Comparison, identifier: str) -> dict[str, Any]:
    rows = [row for row in comparison.rows if row.outcomes]
    outcomes = [o for row in rows for o in row.outcomes]
    evaluation = _of(outcomes[0])
    counts = np.asarray(evaluation.class_counts)
    order = np.argsort(-counts, kind="stable")
    names = runs.class_names(outcomes, len(counts))
    best = comparison.best
    assert best is not None
    other = comparison.baseline(best) or _rival(comparison, best)
    effective = [row for row in rows if row.scheme == "effective"]
    lead = best if best in effective else (effective[0] if effective else None)
    beta = lead.outcomes[0].recipe.beta if lead else 0.999
    data = _tail_data(names, counts, order, evaluation.thresholds) | {
        "volume": 1e300 if beta == 1.0 else 1.0 / (1.0 - beta),
        "methods": _methods(comparison, rows, order, {rows.index(r) for r in (best, other) if r}),
        "best": rows.index(best),
        "other": rows.index(other) if other else None,
        "change": _change_by_class(best, other, order) if other else None,
        "confidence": CONFIDENCE,
    }
    return {
        "id": identifier,
        "title": runs.title_of(comparison),
        "tail": _tail_facts(counts, names, evaluation.thresholds),
        "test_set": _test_set(evaluation),
        "weights": _weights_fact(counts, beta),
        "verdict": comparison.verdict(),
        "groups_fact": _groups_fact(comparison, best, other),
        "sure": _sure(comparison, rows),
        "results": tables.method_table(comparison),
        "legend": tables.legend(evaluation.thresholds),
        "advice": advice.advise(comparison),
        "methods": [_name(row) for row in rows],
        "confusions": _confusions(best, other, names),
        "has_matrix": evaluation.confusion is not None and len(counts) <= _MATRIX_CLASSES,
        "has_reliability": any(_of(o).reliability for o in outcomes),
        "best": _name(best),
        "other": _name(other) if other else None,
        "other_is_baseline": comparison.baseline(best) is not None,
        "recipe": comparison.recipe,
        "provenance": _provenance(rows),
        "data": data,
    }


def _rival(comparison: Comparison, best: Row) -> Row | None:
    """What a best row without a baseline is shown beside: the next best, of its own loss if there is one."""
    rest = [row for row in comparison.rows if row is not best and row.outcomes]
    return comparison.lowest(rows=[row for row in rest if row.loss == best.loss] or rest)


def _tail_data(
    names: Sequence[str],
    counts: np.ndarray[Any, Any],
    order: np.ndarray[Any, Any],
    thresholds: tuple[int, int],
) -> dict[str, Any]:
    return {
        "names": [names[i] for i in order],
        "counts": counts[order].tolist(),
        "thresholds": list(thresholds),
        "methods": [],
    }


def _tail_facts(counts: np.ndarray[Any, Any], names: Sequence[Any], thresholds: tuple[int, int]) -> str:
    many, few = thresholds
    filled = counts[counts > 0]
    head, tail = int(np.argmax(counts)), int(np.argmin(np.where(counts > 0, counts, np.inf)))
    rare = np.sort(counts)[: len(counts) // 2].sum() / counts.sum()
    sizes = [int((counts > many).sum()), int(((counts >= few) & (counts <= many)).sum())]
    text = (
        f"{len(counts):,} classes, {_count(counts.sum())} training samples, from {_count(filled.max())} "
        f"({names[head]}) down to {_count(filled.min())} ({names[tail]}): imbalance factor "
        f"{short(float(filled.max() / filled.min()))}. The rarer half of the classes holds "
        f"{100 * rare:.1f} % of the samples. {sizes[0]:,} many-shot (> {many}), {sizes[1]:,} medium-shot "
        f"({few} to {many}) and {len(counts) - sum(sizes):,} few-shot (< {few}) classes."
    )
    empty = int((counts == 0).sum())
    return text + (f" {empty:,} of the few-shot classes have no sample at all and weigh 0." if empty else "")


def _test_set(evaluation: Evaluation) -> str:
    total = f"{evaluation.num_samples:,} test samples"
    if evaluation.confusion is None:
        return f"{total}; how they spread over the classes is not kept beyond 1000 classes."
    sizes = [sum(row) for row in evaluation.confusion]
    if min(sizes) == max(sizes):
        return f"{total}, balanced: {sizes[0]} a class."
    return f"{total}, not balanced: {min(sizes)} to {max(sizes)} a class, so error and balanced error differ."


def _weights_fact(counts: np.ndarray[Any, Any], beta: float) -> str:
    filled = counts[counts > 0]
    ends = [float(filled.max()), float(filled.min())]
    if ends[0] == ends[1]:
        return "All classes are of one size: no weighting changes anything."
    weight = class_weights(ends, volume=np.inf if beta == 1.0 else 1.0 / (1.0 - beta), normalize=None)
    volume = "infinite" if beta == 1.0 else short(1.0 / (1.0 - beta))
    return (
        f"Effective numbers with beta {beta:g} (volume N = {volume}) weigh the rarest class "
        f"{short(float(weight[1] / weight[0]))} times the most frequent; 1/n would weigh it "
        f"{short(ends[0] / ends[1])} times, no re-weighting once."
    )


def _groups_fact(comparison: Comparison, best: Row, other: Row | None) -> str:
    if other is None:
        return "There is one method only, so nothing to compare class by class."
    parts = []
    for group in GROUPS:
        ours, theirs = best.summary(f"{group}_error"), other.summary(f"{group}_error")
        if ours is None or theirs is None:
            parts.append(f"{group}-shot n/a")
            continue
        d = advice.paired(best, other, f"{group}_error")
        change = tables.interval_text(d)
        if d is not None and d.mean == 0 and not d.sd:
            change = "no change"
        elif d is not None and d.significant:
            change += ", an interval without 0"
        parts.append(
            f"{group}-shot {100 * theirs.mean:.1f} → {100 * ours.mean:.1f} %{change and f' ({change})'}"
        )
    return f"From {_name(other)} to {_name(best)}: " + "; ".join(parts) + "."


def _sure(comparison: Comparison, rows: Sequence[Row]) -> str:
    seeds = sorted({seed for row in rows for seed in row.seeds})
    numbers = sorted({len(row.seeds) for row in rows})
    each = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    text = f"{each} {'seed' if each == '1' else 'seeds'} a method ({', '.join(map(str, seeds))})."
    if numbers[-1] == 1:
        return f"{text} One run a method shows no spread: no difference here is proof of anything."
    tested = comparison.comparisons
    if tested:
        text += (
            f" Each method is paired with the same loss without re-weighting, seed by seed; intervals are "
            f"{100 * CONFIDENCE:.0f} % and uncorrected, marks (*) hold after Bonferroni's correction for "
            f"{tested} {'test' if tested == 1 else 'tests'}."
        )
    if numbers[-1] < 5:
        text += " Fewer than five seeds give wide intervals."
    return text


def _methods(
    comparison: Comparison, rows: Sequence[Row], order: np.ndarray[Any, Any], telling: set[int]
) -> list[dict[str, Any]]:
    classes = len(order)
    all_classes = len(rows) * classes * 2 <= _MATRIX_NUMBERS
    all_matrices = len(rows) * classes * classes <= _MATRIX_NUMBERS
    made = []
    for i, row in enumerate(rows):
        d = comparison.difference(row)
        summary = row.summary()
        assert summary is not None
        entry: dict[str, Any] = {
            "name": _name(row),
            "loss": row.loss,
            "weights": row.weights,
            "error": _mean_sd(summary)
            | {"seeds": list(row.seeds), "values": _plain(row.values("error") or [])},
            "groups": {g: _mean_sd(s) if (s := row.summary(f"{g}_error")) else None for g in GROUPS},
            "difference": None if d is None else _difference(d) | {"better": comparison.beats_none(row)},
            "curve": _curve(row),
            "reliability": _reliability(row),
            "classes": None,
            "matrix": None,
        }
        if all_classes or i in telling:
            mean, sd = _by_class(row)
            entry["classes"] = {"mean": _plain(mean[order]), "sd": None if sd is None else _plain(sd[order])}
        if (
            classes <= _MATRIX_CLASSES
            and (all_matrices or i in telling)
            and (table := _matrix(row)) is not None
        ):
            entry["matrix"] = table[np.ix_(order, order)].tolist()
        made.append(entry)
    return made


def _by_class(row: Row) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Mean and deviation over seeds of every class's error; NaN where it does not apply."""
    errors = np.asarray([[np.nan if e is None else e for e in _of(o).per_class_error] for o in row.outcomes])
    return errors.mean(axis=0), errors.std(axis=0, ddof=1) if len(errors) > 1 else None


def _matrix(row: Row) -> np.ndarray[Any, Any] | None:
    found = [_of(o).confusion for o in row.outcomes]
    if any(table is None for table in found):
        return None
    total: np.ndarray[Any, Any] = np.sum(np.asarray(found, dtype=np.int64), axis=0)
    return total


def _change_by_class(best: Row, other: Row, order: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Best minus other, class by class, with intervals where that many tests are still quick."""
    shared = sorted(set(best.seeds) & set(other.seeds))
    ours, theirs = (
        np.asarray(
            [
                [np.nan if e is None else e for e in _of(o).per_class_error]
                for o in row.outcomes
                if o.recipe.seed in shared
            ]
        ).reshape(-1, len(order))[:, order]
        for row in (best, other)
    )
    mean = (ours - theirs).mean(axis=0) if shared else np.full(len(order), np.nan)
    low = high = None
    if len(shared) > 1 and len(order) <= _INTERVAL_CLASSES:
        pairs = [
            None if np.isnan(a).any() or np.isnan(b).any() else paired_difference(a, b, CONFIDENCE)
            for a, b in zip(ours.T, theirs.T, strict=True)
        ]
        low = [None if d is None else _number(d.low) for d in pairs]
        high = [None if d is None else _number(d.high) for d in pairs]
    return {"mean": _plain(mean), "low": low, "high": high, "seeds": len(shared)}


def _curve(row: Row) -> dict[str, Any] | None:
    """Training loss and test error by epoch, the mean over the seeds that have the epoch."""
    losses: dict[int, list[float]] = {}
    errors: dict[int, list[float]] = {}
    for outcome in row.outcomes:
        for line in runs.history(outcome):
            losses.setdefault(line.epoch, []).append(line.loss)
            if line.test_error is not None:
                errors.setdefault(line.epoch, []).append(line.test_error)
    if not losses:
        return None
    step = -(-len(losses) // _CURVE_POINTS)
    epochs = sorted(losses)
    epochs = [*epochs[:-1:step], epochs[-1]]
    tested = sorted(errors)
    return {
        "epochs": epochs,
        "loss": [_number(float(np.mean(losses[e]))) for e in epochs],
        "tested": tested,
        "error": [_number(float(np.mean(errors[e]))) for e in tested],
    }


def _reliability(row: Row) -> list[list[float | None]] | None:
    """Bins of confidence pooled over the seeds: samples, mean confidence, accuracy."""
    found = [_of(o).reliability for o in row.outcomes]
    if any(not bins for bins in found):
        return None
    pooled: dict[int, list[float]] = {}
    for bins in found:
        for samples, confidence, accuracy in bins or ():
            # bins are told apart by where their mean lies: 15 equal ones, an edge belonging to the lower
            place = pooled.setdefault(max(0, int(np.ceil(confidence * 15 - 1e-9)) - 1), [0.0, 0.0, 0.0])
            place[0] += samples
            place[1] += samples * confidence
            place[2] += samples * accuracy
    return [[int(n), _number(c / n), _number(r / n)] for _, (n, c, r) in sorted(pooled.items())]


def _confusions(best: Row, other: Row | None, names: Sequence[str]) -> tables.Sheet | None:
    """The most frequent mistakes of the best method, and how often the other makes them."""
    ours = _matrix(best)
    theirs = _matrix(other) if other else None
    if ours is None:
        return None
    wrong = ours.copy()
    np.fill_diagonal(wrong, 0)
    places = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]
    lines = []
    for true, said in zip(*np.unravel_index(places, wrong.shape), strict=True):
        if wrong[true, said] == 0:
            break
        cells = [tables.Cell(names[true]), tables.Cell(names[said])]
        for table in (ours, theirs):
            if table is not None:
                share = 100 * table[true, said] / table[true].sum()
                cells.append(tables.Cell(f"{table[true, said]} ({share:.1f} %)", float(share)))
        lines.append(cells)
    head = ["true class", "taken for", _name(best), *([_name(other)] if other and theirs is not None else [])]
    return tables.Sheet(head, lines)


def _provenance(rows: Sequence[Row]) -> tables.Sheet:
    lines = []
    for row in rows:
        for outcome in row.outcomes:
            made = runs.origin(outcome)
            lines.append(
                [
                    tables.Cell(str(outcome.folder)),
                    tables.Cell(_name(row)),
                    tables.Cell(str(outcome.recipe.seed), float(outcome.recipe.seed)),
                    tables.percent(_of(outcome).error),
                    tables.Cell(outcome.recipe.short_hash),
                    tables.Cell(str(made.get("device") or "n/a")),
                    tables.Cell(str(made.get("torch") or "n/a")),
                    tables.Cell(str(made.get("commit") or "n/a")[:10]),
                ]
            )
    return tables.Sheet(["folder", "method", "seed", "error %", "recipe", "device", "torch", "commit"], lines)


# ---- numbers for the page


def _of(outcome: Outcome) -> Evaluation:
    assert outcome.evaluation is not None
    return outcome.evaluation


def _name(row: Row) -> str:
    return f"{row.loss} · {row.weights}"


def _mean_sd(summary: Any) -> dict[str, float | None]:
    return {"mean": _number(summary.mean), "sd": _number(summary.sd)}


def _difference(d: PairedDifference) -> dict[str, Any]:
    return {"mean": _number(d.mean), "low": _number(d.low), "high": _number(d.high), "n": d.n}


def _count(value: Any) -> str:
    return f"{float(value):,.10g}"


def _number(value: float | None) -> float | None:
    """Six digits: more than a picture shows; None where a number does not apply."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.6g}")


def _plain(values: Any) -> list[float | None]:
    return [_number(float(value)) for value in values]
