"""longtail data: fetch data sets, and bring them into forms that load fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from longtail.cli.terminal import console, error_console, examples

__all__ = ["add", "group"]

group = typer.Typer(no_args_is_help=True, help="Fetch data sets; bring them into forms that load fast.")


def download(
    name: Annotated[str, typer.Argument(help="cifar10 | cifar100 | cifar20.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder to put it in; default: $LONGTAIL_DATA, else in the user's cache."),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Another address of the same archive.")] = None,
) -> None:
    """Download a data set, check and unpack it; interrupted, the same command goes on."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from longtail.datasets.cifar import download as fetch

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    seen = error_console.is_terminal  # a pipe would get an empty line
    with Progress(*columns, console=error_console, transient=True, disable=not seen) as bar:
        task = bar.add_task(name, total=None)
        folder = fetch(
            name, data, url=url, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    where = "" if data is None else f" --data {data}"
    console.print(f"{folder}\nnext: longtail compare {name}{where}", soft_wrap=True, markup=False)


def add(app: typer.Typer) -> None:
    """Add the group; applications put commands of their own into it."""
    group.command(epilog=examples("longtail data download cifar10"))(download)
    app.add_typer(group, name="data")
