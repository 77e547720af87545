"""longtail audit: what is wrong with your data, and what its test set can show, before anyone trains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from longtail.cli.terminal import (
    Format,
    console,
    error_console,
    examples,
    may_write,
    print_csv,
    print_json,
    tell_place,
    write,
)

if TYPE_CHECKING:
    from longtail.auditing import Audit

_MARKS = {
    "problem": "[bold red]problem[/]",
    "look": "[yellow]look[/]",
    "fine": "[green]fine[/]",
    "note": "[dim]note[/]",
}


def audit(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder of images; a table with --label; an .npz file of features; a data set's name.",
        ),
    ],
    label: Annotated[str | None, typer.Option(help="The label column of a table.")] = None,
    test: Annotated[
        str | None, typer.Option(metavar="TABLE", help="The test part, where it is a table of its own.")
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Of a table, in which rows are not compared; repeatable."),
    ] = None,
    header: Annotated[
        bool, typer.Option("--header/--no-header", help="Without one, --label 3 is the third column.")
    ] = True,
    missing_as_class: Annotated[
        bool, typer.Option("--missing-as-class", help="Rows without a label are the class 'missing'.")
    ] = False,
    group: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column that names the patient, track, source.")
    ] = None,
    groups_from: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX", help="Finds the group in an image's path: what its parentheses match, or all."
        ),
    ] = None,
    group_scope: Annotated[
        str, typer.Option(help="auto | all | class: whether a group's name means the same in all classes.")
    ] = "auto",
    features: Annotated[
        Path | None, typer.Option(metavar="FILE", help="As longtail embed writes: find pairs by cosine, too.")
    ] = None,
    similarity: Annotated[
        float, typer.Option(help="From which on two samples are a pair to look at.")
    ] = 0.98,
    seeds: Annotated[int, typer.Option(help="Runs of each method, for what the test set can show.")] = 3,
    recall: Annotated[float, typer.Option(help="Assumed of every class, for the same.")] = 0.8,
    jobs: Annotated[int | None, typer.Option(help="Threads that read; default: one a core.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write a page with pictures.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a page that exists.")] = False,
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.table,
) -> None:
    """Look at data before you train: the tail, duplicates, leaks, groups, what the test set can show."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    import longtail

    if out is not None:
        may_write(out, force)
    columns = TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=error_console, transient=True, disable=not error_console.is_terminal)
    with bar:
        task = bar.add_task("reading", total=None)
        found = longtail.audit(
            source,
            label=label,
            test=test,
            drop=drop or (),
            header=header,
            missing_as_class=missing_as_class,
            group=group,
            groups_from=groups_from,
            group_scope=group_scope,
            features=features,
            similarity=similarity,
            seeds=seeds,
            recall=recall,
            jobs=jobs,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if format is Format.json:
        print_json(found.to_dict())
    elif format is Format.csv:
        print_csv(found.class_rows())
    else:
        _print(found)
    if out is not None:
        from longtail.report.audit import audit_page

        write(out, audit_page(found))
        tell_place(f"page {out}", error=True)


def _print(found: Audit) -> None:
    from rich import box

    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in found.findings:
        text = f"[bold]{escape(finding.title)}[/]\n{escape(finding.text)}"
        if finding.todo:
            text += f"\n[dim]→ {escape(finding.todo)}[/]"
        table.add_row(_MARKS[finding.level], text)
    console.print(table)
    head, *rows = found.class_rows()
    order = sorted(rows, key=lambda row: -int(row[1]))
    hidden = len(order) - 20
    shown = order if hidden <= 0 else [*order[:10], *order[-10:]]
    classes = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for i, name in enumerate(head):
        classes.add_column(name, justify="right" if i else "left", no_wrap=bool(i))
    for place, row in enumerate(shown):
        if hidden > 0 and place == 10:
            classes.add_row(f"... {hidden} more")
        classes.add_row(*(escape(str(cell)) for cell in row))
    console.print(classes)


def add(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        epilog=examples(
            "longtail audit photos/ --out audit.html",
            "longtail audit train.csv --label species --group customer",
        )
    )(audit)
