"""What commands share: consoles, formats, writing files, failing in one line."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

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
    "speak_for",
    "tell_place",
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


def tell_place(text: str, *, error: bool = False) -> None:
    """Print lines that name files: as they are, since a path that is broken into lines cannot be copied."""
    (error_console if error else console).print(escape(text), soft_wrap=True)


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


# what a message offers in Python alone, and what stands for it on the command line
_PHRASES = {
    r"with root= or the environment variable": "by the environment variable",
    r", or give verify=False for an excerpt": "",
    r"get it with longtail\.datasets\.download\('(\w+)'\)": r"get it by longtail data download \1",
    r"get it with longtail\.datasets\.download\('(\w+)', '([^']*)'\)": (
        r"get it by longtail data download \1 --data '\2'"
    ),
    r"\bon_error='skip'": "--skip-unreadable",
}
_OF_FOLDERS = re.compile(r"^root is\b")  # that of a data set, where --root is that of pictures
_OF_VOLUMES = re.compile(r"; try volume=\S+ to \S+|; a volume N = 1 / \(1 - beta\) goes to volume=")
# arguments whose option has another name
_OTHERWISE = {
    "groups": "group",
    "imbalance_factor": "imbalance",
    "learners": "learner",
    "losses": "loss",
    "methods": "method",
    "schemes": "scheme",
}
_spoken: dict[str, tuple[str, str]] = {}  # an argument: its option, and what says no to it


def speak_for(commands: Iterable[Any]) -> None:
    """Let messages name the options of these commands, which their user has before them."""
    _spoken.clear()
    for parameter in (p for command in commands for p in command.params):
        if parameter.param_type_name == "option":
            option = max(parameter.opts, key=len)
            _spoken[parameter.name] = option, (parameter.secondary_opts or [f"no {option}"])[0]
    _spoken.update({name: _spoken[other] for name, other in _OTHERWISE.items() if other in _spoken})


def as_options(message: str) -> str:
    """Write the arguments that a message names as the command line's options.

    ``name=value`` becomes ``--name value``; a bare name becomes the option where it can be no word of the
    language: with ``_`` in it, or in front of "must". A recipe's field without an option of its own becomes
    ``--set name=value`` where there is that. What is quoted is the user's and stays as it is.
    Control characters become visible.
    """
    for argument, option in _PHRASES.items():
        message = re.sub(argument, option, message)
    if "data" in _spoken:
        message = _OF_FOLDERS.sub("--data is", message)
    if "volume" not in _spoken:
        message = _OF_VOLUMES.sub("", message)  # the beta before it says the same
    return harmless(_ARGUMENT.sub(_option, message))


_ARGUMENT = re.compile(
    r"(?<!\w)'[^']*'|\"[^\"]*\"|(?<![\w./:-])(?P<name>[a-z]\w*)"
    r"(?:=(?P<value>'[^']*'|[\w./+-]*[\w/+-])?(?![=(\[])|(?P<bare>\b(?! must\b)(?=(?P<now> \(now))?)|)"
    r"(?![\w.(])"
)


def _fields() -> Collection[str]:
    """What a recipe has, where one was read or written so far."""
    recipe = sys.modules.get("longtail.training.recipe")
    return (
        () if recipe is None else recipe.ImageRecipe.model_fields.keys() | recipe.Recipe.model_fields.keys()
    )


def _option(found: re.Match[str]) -> str:
    name, value = found["name"], found["value"]
    if found["bare"] is not None and "_" not in (name or ""):
        return found[0]
    if name not in _spoken:
        given = found["bare"] is None or found["now"] is not None
        return f"--set {found[0]}" if given and "set" in _spoken and name in _fields() else found[0]
    option, no = _spoken[name]
    if value in ("True", "False"):
        return option if value == "True" else no
    return option if value is None else f"{option} {value}"


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
