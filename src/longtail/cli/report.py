"""longtail report and figures: pages, tables and pictures of finished runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from longtail.cli.sources import read_counts
from longtail.cli.terminal import console, error_console, may_write, write


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
    from longtail.report.page import report_page
    from longtail.report.runs import comparisons, find_runs, title_of

    found, left_out = find_runs(runs)
    compared = comparisons(found)
    for left in left_out:
        error_console.print(f"[yellow]left out[/]: {escape(f'{left.folder}: {left.why}')}")
    if not compared:
        raise ValueError(
            f"no finished run in {', '.join(map(str, runs))}; finish one of those left out first"
        )
    if len(compared) > 1 and not group:
        sets = "; ".join(f"{title_of(c)} ({sum(len(r.outcomes) for r in c.rows)} runs)" for c in compared)
        raise ValueError(
            f"runs were trained on {len(compared)} different sets: {sets}; their errors cannot be compared. "
            "Give the folders of one, or --group for a section each"
        )
    target = out or (Path("report.html") if format is ReportFormat.html else None)
    if target is not None:
        may_write(target, force)
    text = (
        report_page(compared, left_out=left_out)
        if format is ReportFormat.html
        else _export(compared, format, table)
    )
    if target is None:
        print(text, end="")  # noqa: T201
        return
    write(target, text)
    if format is ReportFormat.html:
        for one in compared:
            console.print(escape(f"{title_of(one)}: {one.verdict()}"))
    console.print(f"{'page' if format is ReportFormat.html else 'table'} {target}")


def figures(
    source: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUNS_OR_COUNTS]...", help="Run folders, or counts; without: the paper's data sets."
        ),
    ] = None,
    figure: Annotated[
        list[int] | None,
        typer.Option(help="Of the paper: 1 3 4 5 6 7 8 9 10; repeatable; default: all that apply."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="The label column of a counts file.")] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Results files of longtail reproduce, drawn beside the paper; repeatable."),
    ] = None,
    format: Annotated[list[str] | None, typer.Option(help="png | svg | pdf; default png and svg.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder.")] = Path("figures"),
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """The paper's figures, of any runs or counts, or of its own data sets beside what was measured."""
    from longtail._checks import choice
    from longtail.report import figures as drawing

    numbers = figure or list(drawing.NUMBERS)
    formats = [choice("format", name, ("png", "svg", "pdf")) for name in format or ("png", "svg")]
    for number in numbers:
        if number not in drawing.NUMBERS:
            raise ValueError(f"figure must be one of {', '.join(map(str, drawing.NUMBERS))}, got {number}")
    if results and source:
        raise ValueError("--results belongs to the paper's data sets; leave the run folders or counts out")
    if source:
        drawn = _figures_of(source, label, numbers)
    else:
        drawn = drawing.draw_papers(_paper_cells(results or []), numbers)
    written = []
    for name, picture in drawn:
        for ending in formats:
            may_write(out / f"{name}.{ending}", force)
        written += drawing.save(picture, out / name, formats)
    if not written:
        what = "these counts" if source else "the paper's data sets"
        raise ValueError(f"figure {', '.join(map(str, numbers))} cannot be drawn of {what}; give run folders")
    console.print("\n".join(f"figure {path}" for path in written))


def _export(compared: list[Any], format: ReportFormat, table: ReportTable) -> str:
    from longtail.report import tables
    from longtail.report.runs import class_names, title_of

    parts: list[str] = []
    for one in compared:
        outcomes = [outcome for row in one.rows for outcome in row.outcomes]
        size = len(outcomes[0].evaluation.class_counts)
        if table is ReportTable.methods and format is ReportFormat.csv:
            text = tables.methods_csv(one)
            parts.append(text if not parts else text.partition("\n")[2])  # one head for all
            continue
        sheet = (
            tables.method_table(one)
            if table is ReportTable.methods
            else tables.class_table(one, class_names(outcomes, size))
        )
        heading = f"{title_of(one)}: test error in %"
        if format is ReportFormat.latex:
            parts.append(sheet.latex(heading))
        elif format is ReportFormat.csv:
            parts.append(sheet.csv())
        else:
            notes = f"\n{one.verdict()}\n\n{tables.legend(outcomes[0].evaluation.thresholds)}\n"
            parts.append(f"# {heading}\n\n{sheet.markdown()}{notes if table is ReportTable.methods else ''}")
    return "\n".join(parts) if format is not ReportFormat.csv else "".join(parts)


def _figures_of(source: list[str], label: str | None, numbers: list[int]) -> Any:
    from longtail.report import figures as drawing
    from longtail.report.runs import comparisons, find_runs

    if not all(Path(place).is_dir() for place in source):
        if len(source) > 1:
            raise ValueError(
                f"{source[0]!r} is not the only source; give run folders, or one list or file of counts"
            )
        name = Path(source[0]).stem if Path(source[0]).is_file() else "training set"
        return drawing.draw_counts(read_counts(source[0], label).counts, numbers, name)
    compared = comparisons(find_runs(source)[0])
    if len(compared) != 1:
        raise ValueError(f"runs were trained on {len(compared)} different sets; give the folders of one")
    return drawing.draw_runs(compared[0], numbers)


def _paper_cells(results: list[Path]) -> Any:
    from longtail.paper.tables import cells
    from longtail.reproduce import compare_with_paper, read_rows

    for path in results:
        if not path.is_file():
            raise ValueError(f"results file {str(path)!r} is not there; longtail reproduce writes one")
    rows = [row for path in results for row in read_rows(path)]
    return compare_with_paper([*cells("fig8"), *cells("fig9"), *cells("fig10")], rows)


def add(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(report)
    app.command()(figures)
