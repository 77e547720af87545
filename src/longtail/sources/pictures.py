"""Tables that name image files and their labels: HAM10000, APTOS, Hugging Face's metadata.csv."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks
from longtail.sources import folders, tables
from longtail.sources.listing import TESTS, Listing, names_array, notice_twice

Flags = npt.NDArray[np.bool_]

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
_IMAGES = (
    *(
        "image",
        "file_name",
        "filename",
        "image_path",
        "filepath",
        "path",
        "file",
        "image_id",
        "id_code",
        "img",
    ),
    *("image_name", "image index", "id"),
)
# a column that says which rows are for testing
_SPLITS = ("split", "data_split", "set", "subset", "partition", "phase")
_LABELS = ("label", "labels", "class", "target", "diagnosis", "dx", "category", "species", "kind")


def is_table(source: object) -> bool:
    """Whether a source is a table of files and labels."""
    return isinstance(source, (str, os.PathLike)) and os.fspath(source).lower().endswith(SUFFIXES)


def read(path: Path, image: str | None, label: str | None, root: Path | None) -> Listing:
    """Read a table whose rows name an image and its class.

    Names may have their folder and ending or not; they are looked for below ``root``, by default the table's
    folder, which is walked through once.

    Raises:
        FileNotFoundError: no such table, or images that it names are not there.
        ValueError: no such column, a missing label, a name that two images have.
    """
    if not path.is_file():
        raise FileNotFoundError(f"table {path} is not there; check the path")
    start = path.parent if root is None else root
    if not start.is_dir():
        raise FileNotFoundError(f"root {start} is not there; check the path")
    columns = tables.columns_of(str(path), label or image or "")
    image = _column("image", image, columns, _IMAGES, path)
    label = _column("label", label, [name for name in columns if name.strip() != image], _LABELS, path)
    names, labels = tables.read_pairs(str(path), image, label)
    known = _arrays.label_order(set(labels))
    place = {name: i for i, name in enumerate(known)}
    files = _found(names, start, path)
    targets = np.array([place[name] for name in labels], np.int64)
    listed = names_array(files), targets
    made = Listing(start, tuple(map(str, known)), listed, None, str(path))
    notice_twice(path.name, listed)
    return made


def parts(path: Path, image: str | None, label: str | None) -> tuple[Flags, Flags] | None:
    """Return which rows of a table its column `split`, or one called alike, has for training and for testing.

    Of several words for rows that are not trained on, the first of `TESTS` is taken, as of folders; a warning
    says what takes no part, as rows of other words and of none. A column such as `is_test` of 0 and 1 says
    it, too. None without a column that has both parts.

    Raises:
        ValueError: a column `split` of 0 and 1.
    """
    columns = tables.columns_of(str(path), label or image or "")
    image = _column("image", image, columns, _IMAGES, path)
    names = [name.strip() for name in columns if name.strip() not in (image, label)]
    said = {
        name: np.array(
            [str(word).strip().lower() for word in tables.read_pairs(str(path), image, name, blank=True)[1]]
        )
        for name in names
        if name.lower() in _SPLITS or tables.PARTS.fullmatch(name.lower())
    }
    for name in (name for name in said if name.lower() in _SPLITS):
        words = {*said[name].tolist()}
        tests = [word for word in TESTS if word in words]
        if not tests or not words & {*tables.TRAIN}:
            continue
        if rest := sorted(words - {*tables.TRAIN, tests[0]}):
            left = int(np.isin(said[name], rest).sum())
            _checks.warn(
                f"{path.name}: {left:,} images whose {name!r} is {_checks.shorten(rest)} take no part; "
                f"those of {tests[0]!r} are tested on"
            )
        return np.isin(said[name], tables.TRAIN), said[name] == tests[0]
    for name, words_of in said.items():
        named, no_yes = tables.PARTS.fullmatch(name.lower()), tuple(np.unique(words_of).tolist())
        if named is None or no_yes not in tables.YES:
            continue
        if named[0] == "split":
            raise ValueError(
                f"column {name!r} of {path} holds {no_yes[0]!r} and {no_yes[1]!r}, which may say what is for "
                "training; write train and test there, or rename the column if it says something else"
            )
        yes = words_of == no_yes[1]
        return (yes, ~yes) if "train" in named[0] else (~yes, yes)
    return None


def column(path: Path, image: str | None, name: str) -> npt.NDArray[np.str_]:
    """Return another column of a table that `read` has read, as texts, in the order of its rows.

    Raises:
        ValueError: no such column, or a value is missing.
    """
    columns = tables.columns_of(str(path), name)
    _checks.column("groups", name, [column.strip() for column in columns], str(path))
    image = _column("image", image, columns, _IMAGES, path)
    return np.array([str(value) for value in tables.read_pairs(str(path), image, name)[1]])


def _column(what: str, given: str | None, columns: Sequence[str], usual: Sequence[str], path: Path) -> str:
    if given is not None:
        return given
    known = {name.strip().lower(): name for name in columns}
    for name in usual:
        if name in known:
            return known[name].strip()
    if what == "label" and len(columns) == 1:
        return columns[0].strip()
    raise ValueError(
        f"{path} has no column that is known for its {what}s; name it by {what}='...', one of "
        f"{_checks.shorten(columns, 20)}"
    )


def _found(names: Sequence[str], start: Path, path: Path) -> list[str]:
    """Return the file of each name, from ``start``."""
    here = folders.walk(start)
    below, dead = list(here.files()), set(here.links(images=True))
    whole = {file.replace(os.sep, "/"): file for file in below}
    short: dict[str, list[str]] = {}
    for file in below:
        base = os.path.basename(file)
        for key in dict.fromkeys((base, os.path.splitext(base)[0])):
            short.setdefault(key, []).append(file)
    found, gone = [], []
    for name in names:
        plain = name.strip().replace("\\", "/").removeprefix("./")
        hits = [whole[plain]] if plain in whole else short.get(plain.rpartition("/")[2], [])
        hits = [file for file in hits if file not in dead] or hits
        if len(hits) > 1:
            with_folder = [file for file in hits if file.replace(os.sep, "/").endswith("/" + plain)]
            hits = with_folder if len(with_folder) == 1 else hits
        if len(hits) > 1:
            raise ValueError(
                f"{path} names {name!r}, which {len(hits)} images below {start} are called, such as "
                f"{hits[0]!r} and {hits[1]!r}; write their folders into the table"
            )
        if hits:
            found.append(hits[0])
        else:
            gone.append(name)
    if gone:
        raise FileNotFoundError(
            f"{len(gone)} of the {len(names)} images that {path} names are not below {start}, such as "
            f"{gone[0]!r}; say where they are by root='...', or take these rows out of the table"
        )
    return found


def in_folder(folder: Path) -> Path | None:
    """Return a folder's metadata.csv, as Hugging Face has it, if it names labels."""
    path = folder / "metadata.csv"
    if not path.is_file():
        return None
    with contextlib.suppress(ValueError):
        columns = tables.columns_of(str(path), "file_name")
        if any(name.strip().lower() in _LABELS for name in columns):
            return path
    return None
