"""What commands share: consoles, formats, writing files, failing in one line."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

from longtail import _checks

__all__ = [
    "Format",
    "as_options",
    "console",
    "error_console",
    "examples",
    "fail",
    "harmless",
    "may_write",
    "note",
    "open_page",
    "print_csv",
    "print_json",
    "write",
]


class SafeConsole(Console):
    """A console that a name in somebody's data cannot steer."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Yield what is printed, with control characters made visible."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else _checks.printable(text), style, control)


console = SafeConsole(highlight=False)
error_console = SafeConsole(stderr=True, highlight=False)


class Format(StrEnum):
    """How a table is printed."""

    table = "table"
    csv = "csv"
    json = "json"


def examples(*commands: str) -> str:
    """Write commands as the end of a command's help."""
    return "\n\n".join(["Examples:", *map(escape, commands)])


def print_csv(rows: Iterable[Sequence[object]]) -> None:
    """Print rows, the head first, as CSV."""
    csv.writer(sys.stdout, lineterminator="\n").writerows([*map(_checks.inert, row)] for row in rows)


def print_json(value: object) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2))  # noqa: T201


def may_write(path: Path, force: bool) -> None:
    """Ask before a file is replaced, and refuse where nobody can be asked."""
    if force or not path.exists():
        return
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder; give a file's name")
    if not (sys.stdin.isatty() and typer.confirm(f"{path} exists; replace it?")):
        raise ValueError(f"{str(path)!r} exists; give another name, or --force to replace it")


def write(path: Path, text: str) -> Path:
    """Write a file at once or not at all."""
    from longtail.training.files import write_atomic

    write_atomic(path, text.encode())
    return path


def open_page(path: Path) -> None:
    """Show a page in the browser, where there is a screen."""
    import webbrowser

    if sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(path.resolve().as_uri())


# what messages call an argument in Python, where the command line has an option
_OPTIONS = {
    r"\bheader=False\b": "--no-header",
    r"\bmissing_as_class=True\b": "--missing-as-class",
    r"\bon_error='skip'": "--skip-unreadable",
    r"\bgroups_from\b": "--groups-from",
    r"\bgroup_scope\b": "--group-scope",
    r"\btext=COLUMN\b": "--text COLUMN",
    r"; try volume=\S+ to \S+": "",  # the beta before it says the same
    r"\b(label|labels|separator|order|image|root)=(?=['\"])": r"--\1 ",
}


def as_options(message: str) -> str:
    """Write a message's remedies as options of the command line; control characters become visible."""
    for argument, option in _OPTIONS.items():
        message = re.sub(argument, option, message)
    return harmless(message)


def harmless(text: str) -> str:
    """Write line breaks, escapes and what else a terminal obeys as letters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def note(message: str) -> None:
    """Print a word on the data, or on what was done, on standard error."""
    error_console.print(
        f"[yellow]note[/]: {escape(_checks.in_one_line(as_options(message)))}", soft_wrap=True
    )


def fail(message: str) -> NoReturn:
    """End with one line on standard error and exit status 2."""
    error_console.print(f"[red]error[/]: {escape(_checks.in_one_line(as_options(message)))}", soft_wrap=True)
    raise SystemExit(2)
