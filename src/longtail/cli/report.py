"""longtail report: a page or tables on finished runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import Progress, TaskID

from longtail import _checks
from longtail.cli.terminal import console, error_console, examples, may_write, tell_place, write

if TYPE_CHECKING:
    from longtail.compare import ComparisonTable


class ReportFormat(StrEnum):
    """What a report is written as."""

    html = "html"
    markdown = "markdown"
    csv = "csv"
    latex = "latex"


class ReportTable(StrEnum):
    """Which table is exported."""

    methods = "methods"
    classes = "classes"


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold some at any depth.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File; default: report.html, other formats are printed."),
    ] = None,
    format: Annotated[
        ReportFormat, typer.Option(help="The page, or a table for a paper.")
    ] = ReportFormat.html,
    table: Annotated[ReportTable, typer.Option(help="Which table is exported.")] = ReportTable.methods,
    group: Annotated[bool, typer.Option("--group", help="Several training sets: a section each.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """One page on finished runs: how long the tail is, whether it helped, how sure, what to use."""
    from longtail.compare.runs import comparisons, find_runs
    from longtail.report.page import report_page

    with Progress(transient=True, console=error_console) as bar:
        task = bar.add_task("reading runs", total=None, start=False)
        found, left_out = find_runs(runs, progress=lambda done, total: _show(bar, task, done, total))
    compared = comparisons(found)
    for left in left_out:
        error_console.print(f"[yellow]left out[/]: {escape(f'{left.folder}: {left.why}')}")
    if not compared:
        places = ", ".join(map(str, runs))
        raise ValueError(f"no finished run in {places}; finish one of those left out first")
    if len(compared) > 1 and not group:
        sets = "; ".join(f"{c.title} ({len(c.outcomes)} runs)" for c in compared)
        raise ValueError(
            f"runs were trained on {len(compared)} different sets: {sets}; their errors cannot be compared. "
            "Give the folders of one, or --group for a section each"
        )
    target = out or (Path("report.html") if format is ReportFormat.html else None)
    if target is not None:
        may_write(target, force)
    is_page = format is ReportFormat.html
    text = (
        report_page(compared, left_out=left_out)
        if is_page
        else _checks.printable(_export(compared, format, table))
    )
    if target is None:
        print(text, end="")  # noqa: T201
        return
    write(target, text)
    for one in compared if is_page else ():
        console.print(escape(f"{one.title}: {one.verdict}"))
    tell_place(f"{'page' if is_page else 'table'} {target}")


def _show(bar: Progress, task: TaskID, done: int, total: int) -> None:
    if done == 0:
        bar.start_task(task)
    if done % 50 == 0 or done == total:
        bar.update(task, completed=done, total=total)


def _export(compared: list[ComparisonTable], format: ReportFormat, table: ReportTable) -> str:
    from longtail.report import tables

    parts: list[str] = []
    for one in compared:
        if table is ReportTable.methods and format is ReportFormat.csv:
            text = tables.methods_csv(one)
            parts.append(text if not parts else text.partition("\n")[2])  # one head for all
            continue
        sheet = tables.method_sheet(one) if table is ReportTable.methods else tables.class_sheet(one)
        heading = (
            f"{one.title}: {'average precision of the labels' if one.many_labels else 'test error'} in %"
        )
        if format is ReportFormat.latex:
            parts.append(sheet.latex(heading))
        elif format is ReportFormat.csv:
            parts.append(sheet.csv())
        else:
            notes = f"\n{one.verdict}\n\n{tables.legend(one)}\n"
            text = f"# {tables.plain(heading)}\n\n{sheet.markdown()}"
            parts.append(text + notes if table is ReportTable.methods else text)
    return "\n".join(parts) if format is not ReportFormat.csv else "".join(parts)


def add(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        epilog=examples(
            "longtail report runs/photos",
            "longtail report runs/ --group --out all.html",
            "longtail report runs/photos --format latex --table classes",
        )
    )(report)
