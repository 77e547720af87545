"""longtail verify: which file of a run is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from longtail.cli.terminal import Format, console, examples, print_csv, print_json


def verify(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.table,
) -> None:
    """Check every file of a run; name those that are damaged."""
    from longtail.training.verify import verify_run

    rows = [(run, one) for run in runs for one in verify_run(run)]
    bad = [(run, one) for run, one in rows if not one.ok]
    if format is Format.json:
        print_json([{"run": str(run), "file": one.name, "damage": one.damage} for run, one in rows])
    elif format is Format.csv:
        print_csv([("run", "file", "damage"), *((run, one.name, one.damage or "") for run, one in rows)])
    else:
        for run, one in bad:
            console.print(escape(f"{run / one.name} {one.damage}"), soft_wrap=True)
        whole = [run for run in runs if run not in {run for run, _ in bad}]
        for run in whole:
            count = sum(one == run for one, _ in rows)
            console.print(escape(f"{run} is whole: {count} files"), soft_wrap=True)
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(rows)} files are damaged, the first is {bad[0][0] / bad[0][1].name}; put "
            "back a copy, or delete that run's folder and train again"
        )


def add(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog=examples("longtail verify runs/photos"))(verify)
