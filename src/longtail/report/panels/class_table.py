"""All classes as a table that can be sorted and searched."""

from __future__ import annotations

from typing import Any

from longtail.compare import ComparisonTable
from longtail.report.blocks import Classes, Heading, Panel
from longtail.report.charts import numbers


def panel(table: ComparisonTable) -> Panel:
    """Show every class with its weight at the explorer's N, and its error with and without the best."""
    best, rival, order = table.best, table.rival, table.order
    columns: list[dict[str, Any]] = [
        {"title": f"error %, {row.name}", "values": numbers(row.class_errors.mean[order], 100)}
        for row in (rival, best)
        if row is not None
    ]
    if table.change is not None:
        changes = numbers(table.change.mean[order], 100)
        columns.append({"title": "change, points", "values": changes, "signed": True})
    return Panel("", [Heading("All classes"), Classes()], data={"columns": columns})
