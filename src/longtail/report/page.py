"""The report as one HTML file: panels made in Python, charts drawn by Plotly in the page, no network at all.

Every number of the results is computed in Python; the page only draws them. The beta explorer alone computes
in the page, from the counts, what :func:`longtail.class_weights` would.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from typing import Final

import numpy as np

from longtail.compare import ComparisonTable
from longtail.compare.runs import LeftOut
from longtail.counts import ClassCounts
from longtail.report.blocks import Block, Card, Chart, Classes, Fold, Heading, Panel, Side, Spec, Text
from longtail.report.charts import cut
from longtail.report.panels import PANELS
from longtail.report.panels.explorer import explore
from longtail.report.panels.tail import Tail, chart, facts
from longtail.weights import class_weights

__all__ = ["report_page"]


_GLOSSARY: Final = {
    "error": "Share of the test samples that a method gets wrong.",
    "balanced error": "The mean of the classes' errors: every class counts the same, however rare.",
    "natural prior": "The error to expect where new data have the class shares of the training set.",
    "many, medium, few": "Groups of classes by their training samples; the text names the limits.",
    "imbalance factor": "Training samples of the largest class over those of the smallest.",
    "plain, or no re-weighting": "The same network and loss, trained without any balancing.",
    "beta, N": "The setting of the effective number: N = 1 / (1 - beta). After N samples a class is full.",
    "seed": "One whole run with its own random numbers. Seeds differ by luck alone.",
    "fold": "One part of the data that tests while the others train.",
    "difference, paired": "Between two methods on the same seed or fold, so that luck cancels out.",
    "95 % interval": "Holds the true value in 95 of 100 such experiments. If 0 is inside, it may be chance.",
    "corrected": "With many tests, one looks good by chance. Bonferroni's correction demands more of each.",
    "calibration error": "How far confidence is from accuracy, on average: 0 where 80 % sure is 80 % right.",
    "macro-F1": "The mean over classes of F1, which falls with samples missed and with false alarms.",
}


@dataclass(frozen=True)
class Section:
    """One training set on the page: its panels by name."""

    id: str
    title: str
    panels: Mapping[str, Panel]
    brief: bool = True

    @property
    def data(self) -> dict[str, object]:
        """What the script needs: charts by name, and what the panels give."""
        charts: dict[str, object] = {}
        found: dict[str, object] = {"charts": charts}
        first: dict[int, str] = {}  # charts with the same choices hold them once
        for panel in self.panels.values():
            found |= panel.data
            for block in _all_blocks(panel.blocks):
                if isinstance(block, Chart) and block.choices:
                    name = first.setdefault(id(block.choices), block.name)
                    made = [_spec(spec) for spec in block.choices.values()] if name == block.name else name
                    chosen = list(block.choices).index(block.chosen)
                    charts[block.name] = {"choices": made, "chosen": chosen}
                elif isinstance(block, Chart) and block.spec is not None:
                    charts[block.name] = _spec(block.spec)
        return found


def report_page(
    comparisons: Sequence[ComparisonTable],
    *,
    left_out: Sequence[LeftOut] = (),
    first: Panel | None = None,
    title: str | None = None,
) -> str:
    """Return the report of some runs as one self-contained HTML file, to be written as UTF-8.

    Args:
        comparisons: one a training set, such as :func:`longtail.compare.runs.comparisons` makes.
        left_out: runs that are named but not counted.
        first: a panel to be shown above all of them, such as a published table.
        title: of the page; default: the first training set's name.

    Raises:
        ValueError: there is nothing to report: no finished run and no other panel.
    """
    shown = [c for c in comparisons if c.shown]
    if not shown and first is None:
        raise ValueError("no finished run to report; look at what was left out")
    failed = [LeftOut(o.folder, f"failed: {o.failure}") for c in comparisons for o in c.failures]
    names = ", ".join(dict.fromkeys(c.title for c in shown))
    sections = []
    for i, table in enumerate(shown):
        made = {name: PANELS[name](table) for name in PANELS.names}
        sections.append(Section(f"set{i}", table.title, {n: p for n, p in made.items() if p is not None}))
    return render(
        title or f"Long-tail report: {names if len(shown) < 4 else f'{len(shown)} training sets'}",
        sections,
        first=None if first is None else Section("first", first.title, {"first": first}),
        left_out=[*left_out, *failed],
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
    tail = Tail([str(counts.names[i]) for i in order], np.asarray(counts.counts, dtype=float)[order])
    panels = {
        "tail": Panel("The tail", [Text(facts(tail)), chart(tail)]),
        "explorer": explore(tail, volume),
        "classes": Panel("", [Heading("The classes"), Classes()]),
    }
    return render(title, [Section("set0", "", panels, brief=False)])


def render(
    title: str, sections: Sequence[Section], first: Section | None = None, left_out: Sequence[LeftOut] = ()
) -> str:
    from jinja2 import Environment, StrictUndefined

    assets = files("longtail.report") / "assets"
    style, script, library = (
        (assets / name).read_text(encoding="utf-8")
        for name in ("page.css", "page.js", "plotly-cartesian.min.js")
    )
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cut"] = cut
    template = environment.from_string((assets / "page.html").read_text(encoding="utf-8"))
    return template.render(
        title=title,
        first=first,
        sections=sections,
        left_out=left_out,
        style=style,
        scripts=[library, script],
        hashes=[_csp_hash(library), _csp_hash(script)],
        data=_inert_json({"sets": {s.id: s.data for s in (*sections, *([first] if first else []))}}),
        version=version("longtail"),
        date=datetime.now(UTC).date().isoformat(),
        glossary=_GLOSSARY if any(s.brief for s in sections) else {},
    )


def _all_blocks(blocks: Sequence[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Side | Card | Fold):
            yield from _all_blocks(block.blocks)


def _spec(spec: Spec) -> dict[str, object]:
    return {"data": list(spec.traces), "layout": dict(spec.layout), "note": spec.note}


def _csp_hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _inert_json(data: object) -> str:
    """JSON that no HTML parser reads as anything else: no tag can begin inside it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
