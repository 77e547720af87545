"""What an argument of a command stands for: counts, a recipe, a folder of images."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from longtail._checks import choice, refuse_thousands
from longtail.cli.terminal import error_console, harmless

if TYPE_CHECKING:
    from longtail.counts import ClassCounts
    from longtail.datasets.images import ImageList
    from longtail.training.recipe import Recipe

__all__ = ["are_images", "look_at_images", "read_counts", "recipe_for"]


_GROUPED = re.compile(r"(?<![0-9.])[1-9][0-9]{0,2}([, ])(?:[0-9]{3}\1)*0[0-9]{2}(?![0-9.])")  # 12,345,000


def read_counts(source: str, label: str | None, **options: Any) -> ClassCounts:
    """Return the counts of a list of numbers, or of whatever holds labels; options as of ``class_counts``."""
    from longtail.counts import class_counts

    numbers: dict[int, float] = {}
    # a comma ends a number, so that two of them hold an empty one between them
    for i, part in enumerate(re.split(r"\s*,\s*|\s+", source.strip().removesuffix(",").rstrip())):
        try:
            numbers[i] = float(part)
        except ValueError:
            if "," in source and "/" not in source and not Path(source).exists():
                remedy = "separate them by commas" if part else "two commas have no number between them"
                raise ValueError(f"counts must be numbers, got {part!r} in {source!r}; {remedy}") from None
            return class_counts(source, label=label, **options)
    if (found := _GROUPED.search(source)) is not None:
        parts = re.split("[, ]", found[0])
        raise ValueError(
            f"counts {found[0]!r} may be one number or {len(parts)}; write {''.join(parts)}, or "
            f"{','.join(str(int(part)) for part in parts)}"
        )
    refuse_thousands(re.split(r"[\s,]+", source))
    return class_counts(numbers)


def look_at_images(name: str, **options: Any) -> tuple[ImageList, ImageList]:
    """List a folder's, a list's or a table's images before torch is imported; print what they are.

    Raises:
        OSError: it is not there, or may not be read.
        ValueError: it holds no classes.
    """
    from longtail.datasets.images import list_images, parted
    from longtail.sources import pictures

    train, test = list_images(name, **options)
    line = f"{train.num_classes} classes"
    if test is None:
        train, test = parted(train)
        rest = f"{len(train):,} training and {len(test):,} test images"
        share = len(test) / (len(train) + len(test))
        whole = f"{100 * share:.0f} % is held out, groups whole"
        rest += f" ({'a fifth of each class is held out' if train.groups is None else whole})"
    else:
        rest = f"{len(train):,} training and {len(test):,} test images"
        files = [part.files for part in (train, test) if part.files is not None]
        if pictures.is_table(name):
            rest += " (as the table's column of parts says)"
        elif len(files) == 2:
            first, second = (Path(os.fsdecode(names[0])).parts[0] for names in files)
            rest += f" ({first}, {second})" * (first != second)
    if os.environ.get("RANK", "0") == "0":  # one voice for all processes
        error_console.print(escape(harmless(f"{line}, {rest}")), soft_wrap=True)
    return train, test


def recipe_for(name: str, *, also: str) -> Recipe:
    """Return the recipe of a file or of a data set's name; ``also`` is what else the message offers."""
    from longtail.datasets import DATASETS
    from longtail.training import recipes

    if name.endswith(".json"):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"recipe {name!r} is not a file; check the path")
        return recipes.Recipe.from_json(path.read_bytes())
    return recipes.default(choice("dataset", name, DATASETS.names, also=also))


def are_images(name: str) -> bool:
    """Whether an argument is a folder or a list of images, also one that is not there."""
    from longtail.datasets import DATASETS
    from longtail.sources import pictures

    path = Path(name)
    annotations = path.name.startswith("train20") and path.suffix == ".json"
    images = path.is_dir() or path.suffix == ".txt" or annotations
    images = images or pictures.is_table(name) or ("/" in name and path.suffix != ".json")
    return images and name not in DATASETS and not name.startswith("hf:")
