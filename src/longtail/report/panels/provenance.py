"""The runs, and with what they were made."""

from __future__ import annotations

from typing import Final

from longtail.compare import Column, ComparisonTable, Outcome
from longtail.compare.columns import named
from longtail.report.blocks import Code, Fold, Panel, Table
from longtail.report.tables import Cell, Sheet, percent

_MADE: Final = {"device": None, "torch": None, "commit": 10}  # letters of them


def panel(table: ComparisonTable) -> Panel:
    """Show every run with device, versions and commit, and the recipe that all share."""
    lines = [
        [
            *(Cell(str(o.folder)), Cell(row.name), Cell(str(o.recipe.seed), float(o.recipe.seed))),
            *(_value(o, table), Cell(o.recipe.short_hash)),
            *(Cell(o.origin[name][:length] or "n/a") for name, length in _MADE.items()),
        ]
        for row in table.shown
        for o in row.outcomes
    ]
    head = ["folder", "method", "seed", _column(table).title, "recipe", *_MADE]
    recipe = "The recipe that the methods share (loss, weighting and seed are those of the first run)"
    blocks = [
        Fold(f"{len(lines)} runs, with what they were made", [Table(Sheet(head, lines), "Runs")]),
        Fold(recipe, [Code(table.recipe.to_json())]),
    ]
    return Panel("The runs", blocks)


def _column(table: ComparisonTable) -> Column:
    """What a run is told by: its error, or of many labels what decides."""
    return table.decides if table.many_labels else named("error")


def _value(outcome: Outcome, table: ComparisonTable) -> Cell:
    column = _column(table)
    value = outcome.value(column.name)
    if value is None or column.kind == "percent":
        return percent(value)
    return Cell(column.text(value), value)
