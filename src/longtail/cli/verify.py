"""longtail verify: which file of which run is damaged, and which run of a comparison is gone."""

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
    """Check every file of a run, or of all runs of a comparison; name those that are damaged or gone."""
    from longtail.compare.runs import TABLE, gone
    from longtail.training.verify import verify_run

    missing = {place: gone(place) for place in runs}
    lost = {folder: names for some in missing.values() for folder, names in some.items()}
    below = {place: _runs(place, bool(missing[place])) for place in runs}
    found = {run: verify_run(run) for run in dict.fromkeys(run for some in below.values() for run in some)}
    rows = [(run, one) for run, checks in found.items() for one in checks]
    bad = [(run, one) for run, one in rows if not one.ok]
    lines = [(str(run), one.name, one.damage) for run, one in rows] + _gone_lines(lost, TABLE)
    if format is Format.json:
        print_json([{"run": run, "file": file, "damage": damage} for run, file, damage in lines])
    elif format is Format.csv:
        print_csv([("run", "file", "damage"), *((run, file, damage or "") for run, file, damage in lines)])
    else:
        for run, one in bad:
            console.print(escape(f"{run / one.name} {one.damage}"), soft_wrap=True)
        for folder, file, why in _gone_lines(lost, TABLE):
            console.print(escape(f"{Path(folder) / file} {why}"), soft_wrap=True)
        for place, some in below.items():
            _print_whole(place, {run: found[run] for run in some}, sum(map(len, missing[place].values())))
    again = _again(lost, TABLE)
    if bad:
        failed = list(dict.fromkeys(str(run) for run, _ in bad))
        where = (
            f" in {len(failed)} of {len(found)} runs ({_checks.shorten(failed)})" if len(found) > 1 else ""
        )
        raise ValueError(
            f"{len(bad)} of {len(rows)} files are damaged{where}, the first is "
            f"{bad[0][0] / bad[0][1].name}; put back a copy, or delete that run's folder and train again"
            f"{'; ' * bool(again)}{again}"
        )
    if again:
        raise ValueError(again)


def _gone_lines(lost: dict[Path, list[str]], table: str) -> list[tuple[str, str, str | None]]:
    """A line for each run that a comparison's table lists and that is gone: folder, table, and what it is."""
    return [
        (str(folder), table, f"lists a run that is gone: {name}")
        for folder, some in lost.items()
        for name in some
    ]


def _again(lost: dict[Path, list[str]], table: str) -> str:
    """Say which runs are gone, and what brings them back; nothing where none is."""
    if not lost:
        return ""
    names = [name for some in lost.values() for name in some]
    which = f"{len(names)} runs that {table} lists are" if len(names) > 1 else f"a run that {table} lists is"
    return (
        f"{which} gone from {_checks.shorten(map(str, lost))}: {_checks.shorten(names)}; start the same "
        "longtail compare again, which trains what is missing"
    )


def _runs(place: Path, compared: bool) -> list[Path]:
    """The runs of a folder: itself, or those below it; of a comparison there may be none left."""
    from longtail.compare.runs import runs_below
    from longtail.training.manifest import MANIFEST

    marks = ("recipe.json", "evaluation.json", MANIFEST)
    return sorted(runs_below(place, marks)) or [place] * (not compared)  # which verify_run refuses


def _print_whole(place: Path, found: dict[Path, list[FileCheck]], lost: int) -> None:
    """Say of a run, or in one line of the runs below a folder, that it is whole; ``lost`` others are gone."""
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
    text = f"{place}: {len(whole)} of {len(found) + lost} runs are whole, {files:,} files"
    console.print(escape(text), soft_wrap=True)


def add(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog=examples("longtail verify runs/photos", "longtail verify runs/"))(verify)
