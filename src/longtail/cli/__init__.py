"""The command line: parse, call, print. A file for each command; it adds itself by ``add(app)``."""

from __future__ import annotations

import warnings
from typing import Annotated

import typer

from longtail import _checks
from longtail._registry import add_installed
from longtail.cli import audit, compare, data, embed, methods, report, train, verify, weights
from longtail.cli.terminal import as_options, console, error_console, fail, speak_for

__all__ = ["app", "main"]

COMMANDS = "longtail.commands"

app = typer.Typer(
    help="Class-balanced training for long-tailed data.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 2."""
    warnings.formatwarning = _warning
    try:
        app()
    except ModuleNotFoundError as error:
        bare = str(error) == f"No module named {error.name!r}"  # other texts name the remedy already
        extra = "report" if error.name in ("jinja2", "matplotlib", "pydantic", "scipy") else "train"
        fail(f"this command needs {error.name}; pip install 'longtail[{extra}]'" if bare else str(error))
    except (ValueError, TypeError, OSError, ArithmeticError, RuntimeError, ImportError) as error:
        fail(str(error))
    except MemoryError as error:
        told = f" ({error})" if str(error) else ""
        fail(f"there is not enough memory{told}; give less data, or close other programs")
    except SystemExit as end:
        if end.code == 130:  # what typer makes of an interrupt
            text = "stopped; finished runs and checkpoints are kept, the same command goes on from them"
            error_console.print(text, soft_wrap=True)
        raise


def _warning(message: Warning | str, category: type[Warning], *place: object, **more: object) -> str:
    """Write a warning in one line, without the line of code that gave it."""
    return f"warning: {_checks.in_one_line(as_options(str(message)))}\n"


def _print_version(wanted: bool) -> None:
    if wanted:
        import longtail

        console.print(f"longtail {longtail.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Class-balanced training for long-tailed data."""
    called: object = getattr(context.command, "commands", {}).get(context.invoked_subcommand)
    speak_for([] if called is None else getattr(called, "commands", {"": called}).values())


for command in (weights, audit, methods, compare, embed, train, verify, report, data):
    command.add(app)
add_installed(COMMANDS, app)  # of applications, and of other people's packages
