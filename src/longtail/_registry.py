"""Things by name, open to the package's own applications and to other people's packages."""

from __future__ import annotations

import functools
import importlib.util
import pkgutil
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from longtail import _checks

__all__ = ["NAMES", "Registry", "add_installed", "added", "later", "load_applications"]

T = TypeVar("T")

APPLICATIONS = "longtail.applications"
_LOADING = threading.RLock()  # two threads would register everything twice


class Registry(Generic[T]):
    """A dictionary of named things, of which applications bring some when first they are needed.

    Args:
        argument: what a name is called in messages, such as "dataset".

    Example:
        >>> colours = Registry[int]("colour")
        >>> colours.register("red", 1)
        >>> colours["red"]
        1
    """

    def __init__(self, argument: str) -> None:
        self.argument = argument
        self._entries: dict[str, T] = {}

    def register(self, name: str, entry: T) -> None:
        """Add one thing.

        Raises:
            ValueError: the name is taken by another thing.
        """
        if name in self._entries and self._entries[name] is not entry:
            raise ValueError(f"{self.argument} {name!r} is registered already; choose another name")
        self._entries[name] = entry

    def unregister(self, name: str) -> None:
        """Take one thing away again, for tests."""
        self._entries.pop(name, None)

    def __getitem__(self, name: str) -> T:
        """Return a thing by its name.

        Raises:
            ValueError: no such name; the message lists those that there are.
        """
        if name not in self._entries:
            load_applications()
        return self._entries[_checks.choice(self.argument, name, tuple(self._entries))]

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """All names: those of the library first, then those of the applications."""
        load_applications()
        return tuple(self._entries)


# public names that applications add to modules: "longtail.recipes.mine" -> "my_package.recipes:mine"
NAMES = Registry[str]("name")


def added(module: str, name: str) -> Any:
    """Return a name that an application adds to a module, for the module's ``__getattr__``.

    Raises:
        AttributeError: none does.
    """
    place = f"{module}.{name}"
    if name.startswith("_") or _is_file(module, place) or place not in NAMES:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    return pkgutil.resolve_name(NAMES[place])


def _is_file(package: str, place: str) -> bool:
    """Whether a file of it is asked for: applications, which import the package, must wait for it."""
    return hasattr(sys.modules[package], "__path__") and importlib.util.find_spec(place) is not None


def later(place: str, **options: Any) -> Callable[..., Any]:
    """Return a function that imports another one, ``"module:name"``, when it is called, and calls it.

    Example:
        >>> later("math:sqrt")(16.0)
        4.0
    """

    def call(*args: object, **given: object) -> Any:
        return pkgutil.resolve_name(place)(*args, **options, **given)

    return call


def load_applications() -> None:
    """Import what is installed under the entry points "longtail.applications", and let it register."""
    with _LOADING:
        _load_once()


@functools.cache
def _load_once() -> None:
    add_installed(APPLICATIONS)


def add_installed(group: str, *arguments: object) -> None:
    """Call what the entry points of a group name; one that fails is told of, and the others go on."""
    for point in installed(group):
        try:
            point.load()(*arguments)
        except Exception as error:  # another package's mistake must not take this one down
            whose = point.dist.name if point.dist is not None else point.module
            text = f"{type(error).__name__}: {error}"
            warnings.warn(
                f"entry point {point.name!r} of {whose} under {group!r} ({point.value}) failed: {text}; "
                "update that package, or uninstall it",
                stacklevel=2,
            )


def installed(group: str) -> list[EntryPoint]:
    """Return the entry points of a group whose module is there, by name; one that is not is passed over."""
    found = []
    for point in sorted(entry_points(group=group), key=lambda p: p.name):
        try:
            there = importlib.util.find_spec(point.module) is not None
        except ModuleNotFoundError:  # a parent package is not there
            there = False
        if there:
            found.append(point)
        elif not point.module.startswith("longtail."):
            warnings.warn(
                f"{group}: {point.value} of the entry point {point.name} is not there", stacklevel=2
            )
    return found
