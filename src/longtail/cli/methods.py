"""longtail methods: the ways of balancing that there are."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape

from longtail.cli.terminal import console, examples, print_csv, print_json


class MethodsFormat(StrEnum):
    """How the catalogue is printed."""

    table = "table"
    markdown = "markdown"
    csv = "csv"
    json = "json"


def methods(
    name: Annotated[str | None, typer.Argument(help="Only this one, with its settings.")] = None,
    format: Annotated[MethodsFormat, typer.Option(help="How to print.")] = MethodsFormat.table,
) -> None:
    """List the ways of balancing: what each computes, where it is from, what goes wrong with it."""
    from rich.table import Table

    from longtail.methods import ABOUT, CATALOGUE, About, get, needs

    chosen = [get(entry) for entry in ([name] if name else CATALOGUE.names)]
    told = [(method, ABOUT.get(method.name.partition(":")[0], About("", "", ""))) for method in chosen]
    if format is MethodsFormat.json:
        texts = (
            {"formula": a.formula, "needs": needs(m), "usual": a.usual, "pitfall": a.pitfall} for m, a in told
        )
        print_json([{**method.to_dict(), **text} for method, text in zip(chosen, texts, strict=True)])
        return
    head = ("name", "formula", "needs", "usual setting", "source", "pitfall")
    lines = [(m.name, a.formula, needs(m), a.usual, m.source, a.pitfall) for m, a in told]
    if format is MethodsFormat.csv:
        print_csv([head, *lines])
        return
    if format is MethodsFormat.markdown:
        rows_of = ((f"`{first}`", *(cell.replace("|", "\\|") for cell in rest)) for first, *rest in lines)
        for row in (head, ("---",) * len(head), *rows_of):
            print(f"| {' | '.join(row)} |")  # noqa: T201
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("what it computes")
    table.add_column("source")
    for method, a in told:
        table.add_row(*map(escape, (method.name, a.formula, method.source)))
    console.print(table)
    if name:
        settings = ", ".join(f"{key} {value}" for key, value in method.settings.items())
        console.print(
            escape(f"\nneeds: {needs(method)}\nusual: {a.usual}\npitfall: {a.pitfall}\nsettings: {settings}")
        )


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "longtail methods",
            "longtail methods effective:beta=0.99",
        )
    )(methods)
