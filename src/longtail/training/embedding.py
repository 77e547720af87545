"""Features of images or text by a pretrained model: each sample once, whatever is killed meanwhile.

Rows are kept in a cache under the hash of what is in the model's files and in the sample. Whoever computes
holds the model's lock, so that a second process waits and then finds them there.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longtail import _checks
from longtail.datasets.features import Features
from longtail.datasets.images import ImageList, UnreadableImageError, list_images, tell_shared, with_groups
from longtail.sources.arrays import check_headers
from longtail.training.backbones import ImageBackbone, image_backbone, text_backbone
from longtail.training.device import exact_cudnn, select_device
from longtail.training.files import write_atomic
from longtail.training.progress import counted
from longtail.training.texts import Texts, read_texts, tfidf

__all__ = ["embed"]

_EVERY: Final = 20.0  # seconds of work that a kill may cost
_AHEAD: Final = 2  # batches that are decoded while one is computed
_FEW: Final = 100  # images that are decoded without threads

Rows = dict[bytes, npt.NDArray[np.float32]]
Report = Callable[[int, int], None]
Pixels = npt.NDArray[np.float32] | None
Compute = Callable[[Iterable[Sequence[bytes]]], Iterator[tuple[list[bytes], Tensor]]]
Images = tuple[ImageList, ImageList | None]


def embed(
    source: Any,
    model: str | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    text: str | None = None,
    label: str | None = None,
    groups: str | None = None,
    test: Any = None,
    image: str | None = None,
    root: str | os.PathLike[str] | None = None,
    groups_from: str | None = None,
    pooling: str = "auto",
    size: int | None = None,
    batch_size: int = 32,
    device: str | torch.device = "auto",
    workers: int | None = None,
    on_error: str = "raise",
    cache: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Features:
    r"""Make features of images, or of a table's text, by a pretrained model of the transformers library.

    A row is computed once for each content of an image file or text and of the model's files, and kept in the
    cache: a run that was killed goes on, other folders with the same pictures share them, and of two
    processes one waits for the other.

    Text becomes the mean over its tokens, without those that pad a batch. Without a model it becomes TF-IDF,
    and beyond 256 words its truncated SVD to 256 numbers; words are counted in the training rows alone. In a
    table without a test set those are all rows, also those that folds hold out later; labels play no part.

    Args:
        source: where the images are, as for `longtail.datasets.images.load_images`; or training images and
            test images or None. With `text` a table: a .csv, .tsv or Parquet file, a data frame, or a mapping
            from names to columns. A source without a test set is not divided.
        model: a folder that ``save_pretrained`` wrote, or a name of the Hugging Face hub; weights as
            safetensors only. None is TF-IDF, for text alone.
        out: an .npz file to write, too.
        text: the column of the texts; None makes features of images.
        label: of a table or a Hugging Face data set, the column of the class.
        groups: of the same, a column whose equal values belong together, such as a customer.
        test: of a table of texts, another one with the same columns, which is then the test set.
        image: of a table or data set of images, their column; None takes the one of a usual name.
        root: of a table or a list of images, the folder below which they lie; None is the file's own.
        groups_from: a regular expression that finds an image's group in its path below the source's root:
            its parentheses, joined by "/", or all that it matches. ``r"(\w+/\d+)_"`` takes class and track
            of "stop/0004_17.jpg".
        pooling: "auto" takes what the model gives for an image as a whole: image features (CLIP, SigLIP), or
            its pooler's output where its weights have a pooler, or else the mean over tokens or places;
            "pooler", "mean" and "first" (the first token, CLS) ask for one.
        size: None prepares images as the model's own processor does; a number prepares them at that height
            and width, as `longtail.datasets.images.EvalTransform`.
        batch_size: images or texts that are computed at a time.
        device: "auto" takes CUDA where there is one, else the CPU.
        workers: threads that decode; None takes the cores, at most 8; 0 decodes in turn.
        on_error: "raise" refuses an image that cannot be read, or a row without text; "skip" leaves it out,
            with one warning.
        cache: the folder that keeps rows; None takes ``longtail/features`` in the user's cache folder.
        progress: show how far it is: a bar, or where nobody looks, a line every half minute.

    Returns:
        Features in float32, in the order of the images, with their paths, or of the rows.

    Raises:
        FileNotFoundError: images that are not there.
        UnreadableImageError: an image cannot be read, or no image of a class can.
        ValueError: no such model, none with safe weights, none that takes images or has an image processor,
            or a tokenizer; a path without a group; no such column, a label that is no class; features that
            are not finite; an unknown device.
        OSError: the cache or `out` cannot be written.
        ModuleNotFoundError: transformers is not installed, or without a model scikit-learn.

    Example:
        >>> embed("no/such/folder", "google/vit-base-patch16-224")
        Traceback (most recent call last):
        FileNotFoundError: image folder no/such/folder is not there; check the path
    """
    _checks.choice("on_error", on_error, ("raise", "skip"))
    _checks.integer("batch_size", batch_size, low=1)
    _fits(
        text, label, {"test": test},
        {"groups_from": groups_from, "size": size, "pooling": None if pooling == "auto" else pooling,
         "image": image, "root": root},
    )  # fmt: skip
    if groups is not None and groups_from is not None:
        raise ValueError("groups= is given beside groups_from=; leave one of the two out")
    may_write(out)
    target = select_device(device)
    if text is not None and label is not None:
        train = read_texts(source, text, label, groups=groups, on_error=on_error)
        tested = None
        if test is not None:
            tested = read_texts(test, text, label, groups=groups, on_error=on_error, like=train)
        rows, about = _of_texts(train, tested, model, batch_size, target, cache, progress)
        features = _table(train, tested, rows, {"text": text, **about})
    elif model is None:
        raise ValueError("model= is missing; name an image model, or text=COLUMN of a table")
    else:
        threads = min(8, os.cpu_count() or 1)
        threads = threads if workers is None else _checks.integer("workers", workers, low=0)
        columns: dict[str, Any] = {"image": image, "label": label, "root": root, "groups": groups}
        if not (isinstance(source, tuple) and isinstance(source[0], ImageList)):
            source = list_images(source, **columns, groups_from=groups_from)
        elif told := [name for name, value in columns.items() if value is not None]:
            raise ValueError(f"{told[0]}= is for images that are not listed yet; leave it out")
        else:
            train, test = source
            if groups_from is not None:
                grouped = with_groups([train] if test is None else [train, test], groups_from)
                source = grouped[0], None if test is None else grouped[1]
            if source[1] is not None:
                tell_shared(source[0].groups, source[1].groups)
        found, about = _of_images(
            source, model, pooling, size, batch_size, target, threads, on_error, cache, progress
        )
        features = _features(found, about)
    if out is not None:
        features.save(out)
    return features


def _of_images(
    source: Images,
    model: str,
    pooling: str,
    size: int | None,
    batch_size: int,
    device: torch.device,
    threads: int,
    on_error: str,
    cache: str | os.PathLike[str] | None,
    progress: bool,
) -> tuple[list[tuple[ImageList, npt.NDArray[np.float32]]], dict[str, Any]]:
    """Return the images of each part with their features, and what made them."""
    train, test = source
    backbone = image_backbone(model, pooling=pooling, size=size)
    # what is wrong is said before anything long starts
    train, test = train.checked(on_error), test and test.checked(on_error)
    parts = [images for images in (train, test) if images is not None]
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(threads)) if threads else None
        keys = [_keys(images, pool) for images in parts]
        first = {
            key: (images, i) for images, part in zip(parts, keys, strict=True) for i, key in enumerate(part)
        }
        report = stack.enter_context(counted(f"images by {Path(model).name}")) if progress else None
        store = _Store(_cache(cache) / backbone.digest[:32])
        work = _Images(backbone, device, first, on_error, pool if len(first) >= _FEW else None)
        rows = store.filled([*first], work.features, batch_size, report)
    found = []
    for images, part in zip(parts, keys, strict=True):
        kept = np.flatnonzero([key in rows for key in part])
        if len(kept) < len(part):
            images = _left(images, kept, work.bad)
        found.append((images, np.stack([rows[part[i]] for i in kept])))
    return found, {"model": model, "pooling": backbone.pooling, "model_sha256": backbone.digest}


def _of_texts(
    train: Texts,
    test: Texts | None,
    model: str | None,
    batch_size: int,
    device: torch.device,
    cache: str | os.PathLike[str] | None,
    progress: bool,
) -> tuple[list[npt.NDArray[np.float32]], dict[str, Any]]:
    """Return the features of each part's texts, and what made them."""
    if model is None:
        rows, how = tfidf(train, test)
        return rows, {"model": "TF-IDF", "pooling": how}
    backbone = text_backbone(model)
    parts = [part.texts for part in (train, test) if part is not None]
    keys = [[hashlib.sha256(t.encode("utf-8", "surrogatepass")).digest() for t in part] for part in parts]
    texts = {k: t for part, own in zip(parts, keys, strict=True) for t, k in zip(part, own, strict=True)}

    def compute(batches: Iterable[Sequence[bytes]]) -> Iterator[tuple[list[bytes], Tensor]]:
        backbone.model.to(device)
        for batch in batches:
            features = backbone.features([texts[key] for key in batch], device)
            if not features.isfinite().all():
                raise ValueError(f"model {model!r} gives NaN or infinite features; give another model")
            yield [*batch], features

    with ExitStack() as stack:
        report = stack.enter_context(counted(f"texts by {Path(model).name}")) if progress else None
        store = _Store(_cache(cache) / backbone.digest[:32])
        order = sorted(texts, key=lambda key: len(texts[key]))  # like beside like: little is padded
        found = store.filled(order, compute, batch_size, report)
    about = {"model": model, "pooling": "mean over tokens", "model_sha256": backbone.digest}
    return [np.stack([found[key] for key in part]) for part in keys], {**about, "tokens": backbone.longest}


def _fits(
    text: str | None, label: str | None, of_tables: Mapping[str, object], of_images: Mapping[str, object]
) -> None:
    """Refuse options of images beside text, and of text beside images."""
    if text is not None and label is None:
        raise ValueError("text= is given without label=; name the columns of the texts and their classes")
    wrong, place = (
        (of_tables, "tables of texts, with text=") if text is None else (of_images, "images, not for text")
    )
    for name, value in wrong.items():
        if value is not None:
            raise ValueError(f"{name}= is for {place}; leave it out")


def may_write(out: str | os.PathLike[str] | None) -> None:
    """Refuse to replace a file that no earlier run of this made, and what is no .npz file's name.

    Raises:
        ValueError: another file is there.
    """
    if out is None:
        return
    path = Path(out)
    if path.suffix != ".npz":
        raise ValueError(f"out must end in .npz, got {str(path)!r}; name the file of features")
    if path.is_dir():
        raise ValueError(f"out={str(path)!r} is a folder; give a file's name")
    if path.exists():
        try:
            with zipfile.ZipFile(path) as file:
                ours = {"X.npy", "y.npy", "about.npy"} <= {*file.namelist()}
        except (OSError, zipfile.BadZipFile):
            ours = False
        if not ours:
            raise ValueError(f"out={str(path)!r} is there and was not made by this; give another name")


# ---- what is computed once


@dataclass(eq=False)
class _Images:
    """Decodes and computes images by their keys."""

    backbone: ImageBackbone
    device: torch.device
    places: dict[bytes, tuple[ImageList, int]]
    on_error: str
    pool: ThreadPoolExecutor | None
    bad: list[UnreadableImageError] = field(default_factory=list)

    def features(self, batches: Iterable[Sequence[bytes]]) -> Iterator[tuple[list[bytes], Tensor]]:
        """Yield the keys of each batch that could be read, and their features."""
        model = self.backbone.model.to(self.device)
        if self.device.type == "cpu":
            model.to(memory_format=torch.channels_last)
        for keys, pixels in self.decoded(iter(batches)):
            good = [i for i, x in enumerate(pixels) if x is not None]
            batch = [x for x in pixels if x is not None]
            if batch:
                features = self.backbone.features(batch, self.device)
                finite = features.isfinite().all(1).tolist()
                if not all(finite):
                    name = self.name(keys[good[finite.index(False)]])
                    raise ValueError(
                        f"model {self.backbone.name!r} gives NaN or infinite features of {name}; give "
                        "another model, or leave that image out"
                    )
                yield [keys[i] for i in good], features

    def decoded(self, batches: Iterator[Sequence[bytes]]) -> Iterator[tuple[Sequence[bytes], list[Pixels]]]:
        """Yield batches with their pixels; threads are at the next ones while one is computed."""
        if self.pool is None:
            for keys in batches:
                yield keys, [self.pixels(key) for key in keys]
            return
        waiting: deque[tuple[Sequence[bytes], list[Future[Pixels]]]] = deque()
        for keys in chain(batches, repeat(())):
            if keys:
                waiting.append((keys, [self.pool.submit(self.pixels, key) for key in keys]))
            if not waiting:
                return
            if not keys or len(waiting) > _AHEAD:
                first, futures = waiting.popleft()
                yield first, [future.result() for future in futures]

    def pixels(self, key: bytes) -> Pixels:
        images, index = self.places[key]
        try:
            return images.decode(
                index, lambda image, _: self.backbone.prepare(image), np.random.default_rng(0)
            )
        except UnreadableImageError as error:
            if self.on_error == "raise":
                raise
            self.bad.append(error)
            return None

    def name(self, key: bytes) -> str:
        images, index = self.places[key]
        return images.name(index)


@dataclass(frozen=True)
class _Store:
    """Rows of one model under their keys: files that are written once, each whole or not there."""

    folder: Path

    def filled(
        self,
        keys: Sequence[bytes],
        compute: Compute,
        batch_size: int,
        report: Report | None,
    ) -> Rows:
        """Return the rows of all keys that can be computed; what is not there is, under the lock."""
        rows = self.read(set(keys))
        if rows.keys() >= set(keys):
            return rows
        with self.locked():
            rows = self.read(set(keys))  # another process may have worked meanwhile
            # the same batches whatever is there already, or a run that goes on would round otherwise
            cuts = (keys[start : start + batch_size] for start in range(0, len(keys), batch_size))
            missing = ([key for key in cut if key not in rows] for cut in cuts)
            batches = [batch for batch in missing if batch]
            done, fresh, written = len(rows), dict[bytes, npt.NDArray[np.float32]](), time.monotonic()
            try:
                with torch.inference_mode(), exact_cudnn():
                    for read, features in compute(batches):
                        fresh |= dict(zip(read, features.cpu().numpy(), strict=True))
                        if report is not None:
                            report(done + len(fresh), len(keys))
                        if time.monotonic() - written > _EVERY:
                            self.write(fresh)
                            rows, done, fresh = rows | fresh, done + len(fresh), {}
                            written = time.monotonic()
            finally:
                self.write(fresh)
        return rows | fresh

    def read(self, wanted: set[bytes]) -> Rows:
        """Return what is there of the wanted rows; a damaged file is removed, its rows are computed again."""
        rows: Rows = {}
        for path in sorted(self.folder.glob("*.npz")):
            try:
                check_headers(path)
                with path.open("rb") as file:
                    arrays = np.load(file, allow_pickle=False)
                    keys = [key.tobytes() for key in arrays["keys"]]
                    here = [i for i, key in enumerate(keys) if key in wanted]
                    if here:
                        found = arrays["rows"]
                        rows |= {keys[i]: found[i] for i in here}
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                _checks.warn(f"cached features {path} cannot be read ({error}); they are computed again")
                path.unlink(missing_ok=True)
        return rows

    def write(self, rows: Rows) -> None:
        if not rows:
            return
        content = io.BytesIO()
        keys = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)
        np.savez(content, keys=keys, rows=np.stack([*rows.values()]))
        number = sum(1 for _ in self.folder.glob("*.npz"))
        while (path := self.folder / f"{number:06}.npz").exists():
            number += 1
        write_atomic(path, content.getvalue())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold this model's rows; wait for another process that does, and say so."""
        from filelock import FileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                _checks.warn(f"another process makes features by this model ({self.folder}); waiting for it")
                lock.acquire(poll_interval=0.2)
        except OSError as error:
            raise OSError(
                f"cannot write features into {self.folder}: {error.strerror or error}; give another "
                "cache folder"
            ) from error
        try:
            yield
        finally:
            lock.release()


def _cache(folder: str | os.PathLike[str] | None) -> Path:
    return _checks.cache_folder() / "features" if folder is None else _checks.folder("cache", folder)


def _keys(images: ImageList, pool: ThreadPoolExecutor | None) -> list[bytes]:
    """Hash what is in each image's file."""

    def key(index: int) -> bytes:
        return hashlib.sha256(images.read(index)).digest()

    return [*(pool.map if pool is not None and images.files is not None else map)(key, range(len(images)))]


# ---- what goes into the file


def _left(images: ImageList, kept: npt.NDArray[Any], bad: Sequence[UnreadableImageError]) -> ImageList:
    """Return the images that could be read; a class that lost all of them is an error."""
    left = images.select(kept)
    lost = np.flatnonzero((left.class_counts.counts == 0) & (images.class_counts.counts > 0))
    if len(lost):
        raise UnreadableImageError(
            f"class {images.class_names[lost[0]]!r} has no readable image: {bad[0]}"
            "; replace its images, or remove its folder"
        )
    _checks.warn(
        f"{len(images) - len(left)} of {len(images)} images are left out, they cannot be read: {bad[0]}"
    )
    return left


def _features(
    parts: Sequence[tuple[ImageList, npt.NDArray[np.float32]]],
    about: dict[str, Any],
) -> Features:
    made: dict[str, Any] = {}
    for end, (images, rows) in zip(("", "_test"), parts, strict=False):
        paths = np.array([images.path(i) for i in range(len(images))])
        made |= {f"X{end}": rows, f"y{end}": images.targets, f"paths{end}": paths}
        made[f"groups{end}"] = images.groups
    return Features(**made, class_names=parts[0][0].class_names, about=about)


def _table(
    train: Texts, test: Texts | None, rows: Sequence[npt.NDArray[np.float32]], about: dict[str, Any]
) -> Features:
    tested: dict[str, Any] = {}
    if test is not None:
        tested = {"X_test": rows[1], "y_test": test.labels, "groups_test": test.groups}
        tell_shared(train.groups, test.groups)
    return Features(rows[0], train.labels, train.class_names, groups=train.groups, **tested, about=about)
