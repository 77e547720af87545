"""longtail data: data sets in forms that load fast."""

from __future__ import annotations

import typer

__all__ = ["add", "group"]

group = typer.Typer(no_args_is_help=True, help="Data sets in forms that load fast.")


def add(app: typer.Typer) -> None:
    """Add the group; applications put commands of their own into it."""
    app.add_typer(group, name="data")
