"""The page of an audit: its findings, and pictures of what it asks people to look at."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np

from longtail._checks import short
from longtail.auditing import Audit, Duplicate, Pair, Sample
from longtail.auditing.findings import harmless
from longtail.report.blocks import Block, Fold, Panel, Picture, Pictures, Side, Table, Text
from longtail.report.page import Section, render
from longtail.report.panels.tail import Tail, chart, facts
from longtail.report.tables import Cell, Sheet

__all__ = ["audit_page"]

_SHOWN = 60  # groups of pictures of one kind: some 10 kB each
_OF_ONE = 6  # pictures of one group
_LEVELS = {"problem": "Problem: ", "look": "Look: ", "fine": "", "note": ""}


def audit_page(audit: Audit, *, title: str | None = None) -> str:
    """Return an audit as one self-contained HTML file, to be written as UTF-8.

    Args:
        audit: what `longtail.audit` found.
        title: of the page; default: the source's name.
    """
    counts = np.asarray(audit.counts.counts, dtype=float)
    order = np.argsort(-counts, kind="stable")
    tail = Tail([harmless(audit.counts.names[int(i)]) for i in order], counts[order])
    said = [
        Text(f"{finding.text} {finding.todo}".strip(), lead=f"{_LEVELS[finding.level]}{finding.title}.",
             style="verdict" if finding.level == "problem" else "")
        for finding in audit.findings
    ]  # fmt: skip
    said.append(Text("The audit only reads: nothing it found reaches a weight, a loss or a run.", "dim"))
    conflicts = [d for d in audit.exact_duplicates if d.is_conflict]
    leaks = [d for d in audit.exact_duplicates if d.is_leak and not d.is_conflict]
    others = [d for d in audit.exact_duplicates if not d.is_leak and not d.is_conflict]
    panels = {
        "findings": Panel("What was found", said),
        "tail": Panel("The tail", [Text(facts(tail)), chart(tail)]),
        "weightings": Panel("What weightings leave of the sample", [_shares(audit)]),
        "conflicts": _shown("Labels that disagree", conflicts, audit),
        "leaks": _shown("In training and test", leaks, audit),
        "others": _shown("Exact duplicates within a part", others, audit),
        "pairs": _pairs(audit),
        "groups": _groups(audit),
        "classes": Panel("Every class", [_classes(audit)]),
    }
    shown = {name: panel for name, panel in panels.items() if panel is not None}
    return render(title or f"Audit: {harmless(audit.source)}", [Section("audit", "", shown, brief=False)])


def _shown(title: str, found: Sequence[Duplicate], audit: Audit) -> Panel | None:
    if not found:
        return None
    blocks = [
        Pictures(
            [_picture(sample, audit) for sample in d.samples[:_OF_ONE]],
            f"{len(d.samples)} samples, the same {d.kind}",
            d.is_conflict,
        )
        for d in found[:_SHOWN]
    ]
    hidden = len(found) - _SHOWN
    return Panel(
        title,
        _folded(blocks, f"{hidden:,} more are not shown; --format json names them." if hidden > 0 else ""),
    )


def _folded(blocks: Sequence[Block], more: str, at_once: int = 12) -> list[Block]:
    """Show some at once, and the rest at a click."""
    rest = blocks[at_once:]
    shown: list[Block] = [Side(blocks[:at_once])]
    shown += [Fold(f"{len(rest)} more", [Side(rest)])] if rest else []
    return shown + ([Text(more, "dim")] if more else [])


def _pairs(audit: Audit) -> Panel | None:
    pairs = audit.probable_duplicates
    if not pairs:
        return None
    about = (
        "These look alike. Some are copies that were saved anew or resized, some are neighbours in a film, "
        "some only look alike: none is counted as a duplicate. Pairs across training and test come first."
    )
    blocks = [
        Pictures([_picture(p.first, audit), _picture(p.second, audit)], _alike(p), p.is_conflict)
        for p in pairs[:_SHOWN]
    ]
    hidden = audit.probable_total - _SHOWN
    more = f"{hidden:,} more pairs are not shown; --format json names them." if hidden > 0 else ""
    return Panel("Probable duplicates: pairs to look at", [Text(about), *_folded(blocks, more)])


def _alike(pair: Pair) -> str:
    text = f"{pair.similarity:.3f} alike by {pair.by}"
    text += ", across training and test" if pair.is_leak else ""
    return text + (", under different labels" if pair.is_conflict else "")


def _picture(sample: Sample, audit: Audit) -> Picture:
    source = text = ""
    content = None if audit.samples is None else audit.samples.content
    if content is not None:
        image = content.picture(sample.index)
        if image is not None:
            file = io.BytesIO()
            image.save(file, "JPEG", quality=85)
            source = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
        else:
            text = content.text(sample.index)[:300]
    return Picture(harmless(sample.name), f"{harmless(sample.label)}, {sample.part}", source, harmless(text))


def _shares(audit: Audit) -> Table:
    rows = []
    for share in audit.effective_shares:
        says = (
            "does nothing here" if share.does_nothing else "is inverse frequency" if share.is_inverse else ""
        )
        rows.append([Cell(share.name), Cell(f"{100 * share.share:.3g}", 100 * share.share), Cell(says)])
    return Table(
        Sheet(["weighting", "effective share, %", "what it does"], rows), "Effective share of every weighting"
    )


def _groups(audit: Audit) -> Panel | None:
    groups = audit.groups
    if groups is None:
        return None
    blocks: list[Block] = []
    if groups.shared:
        parts = list(dict.fromkeys(part for group in groups.shared for part in group.samples))
        rows = [
            [Cell(harmless(g.name)), *(Cell(str(g.samples.get(p, 0)), g.samples.get(p, 0)) for p in parts)]
            for g in groups.shared[:500]
        ]
        blocks.append(Table(Sheet(["group in both parts", *parts], rows), "Groups in both parts"))
    rows = []
    for c in groups.per_class:
        new = (
            "n/a"
            if c.new is None
            else f"{100 * c.new:.1f} [{100 * (c.low or 0):.1f}, {100 * (c.high or 0):.1f}]"
        )
        rows.append([Cell(harmless(c.name)), Cell(str(c.samples), c.samples), Cell(str(c.groups), c.groups),
                     Cell(str(c.once), c.once), Cell(new, c.new), Cell(c.why)])  # fmt: skip
    head = ["class", "training samples", "distinct groups", "seen once", "next is new, %", "why not"]
    blocks.append(Table(Sheet(head, rows), "Groups of every class"))
    return Panel("Groups", blocks)


def _classes(audit: Audit) -> Table:
    head, *rows = audit.class_rows()
    cells = [[Cell(row[0]), *(Cell(text, _number(text)) for text in row[1:])] for row in rows]
    return Table(Sheet(head, cells), f"Every class; imbalance factor {short(audit.imbalance_factor)}")


def _number(text: str) -> float | None:
    try:
        return float(text.removesuffix(" %"))
    except ValueError:
        return None
