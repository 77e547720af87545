"""longtail verify: which file of which run is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from longtail import _checks
from longtail.cli.terminal import Format, console, examples, print_csv, print_json

if TYPE_CHECKING:
    from longtail.training.manifest import FileCheck


def verify(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, or folders that hold some at any depth."),
    ],
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.table,
) -> None:
    """Check every file of a run, or of all runs of a comparison; name those that are damaged."""
    from longtail.training.verify import verify_run

    below = {place: _runs(place) for place in runs}
    found = {run: verify_run(run) for run in dict.fromkeys(run for some in below.values() for run in some)}
    rows = [(run, one) for run, checks in found.items() for one in checks]
    bad = [(run, one) for run, one in rows if not one.ok]
    if format is Format.json:
        print_json([{"run": str(run), "file": one.name, "damage": one.damage} for run, one in rows])
    elif format is Format.csv:
        print_csv([("run", "file", "damage"), *((run, one.name, one.damage or "") for run, one in rows)])
    else:
        for run, one in bad:
            console.print(escape(f"{run / one.name} {one.damage}"), soft_wrap=True)
        for place, some in below.items():
            _print_whole(place, {run: found[run] for run in some})
    if bad:
        failed = list(dict.fromkeys(str(run) for run, _ in bad))
        where = (
            f" in {len(failed)} of {len(found)} runs ({_checks.shorten(failed)})" if len(found) > 1 else ""
        )
        raise ValueError(
            f"{len(bad)} of {len(rows)} files are damaged{where}, the first is "
            f"{bad[0][0] / bad[0][1].name}; put back a copy, or delete that run's folder and train again"
        )


def _runs(place: Path) -> list[Path]:
    """The runs of a folder: itself, or those below it."""
    from longtail.compare.runs import runs_below
    from longtail.training.manifest import MANIFEST

    marks = ("recipe.json", "evaluation.json", MANIFEST)
    return sorted(runs_below(place, marks)) or [place]  # which verify_run refuses


def _print_whole(place: Path, found: dict[Path, list[FileCheck]]) -> None:
    """Say of a run, or in one line of the runs below a folder, that it is whole."""
    whole = {run: checks for run, checks in found.items() if all(one.ok for one in checks)}
    if [*found] == [place]:
        for run, checks in whole.items():
            console.print(escape(f"{run} is whole: {len(checks)} files"), soft_wrap=True)
        return
    from longtail.training.manifest import MANIFEST

    left = [run for run in whole if not any((run / name).exists() for name in ("evaluation.json", MANIFEST))]
    for run in left:
        console.print(escape(f"{run} is not finished; the command that began it goes on"), soft_wrap=True)
    whole = {run: checks for run, checks in whole.items() if run not in left}
    files = sum(map(len, whole.values()))
    text = f"{place}: {len(whole)} of {len(found)} runs are whole, {files:,} files"
    console.print(escape(text), soft_wrap=True)


def add(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog=examples("longtail verify runs/photos", "longtail verify runs/"))(verify)
