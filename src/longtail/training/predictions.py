"""What a run said of each test sample, kept beside its evaluation; no torch.

Two runs on one test set are compared sample by sample with it. A folder of an earlier version has none.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from longtail.evaluation.reading import group_numbers
from longtail.sources.arrays import check_headers
from longtail.training.files import write_atomic

__all__ = ["PREDICTIONS", "Collected", "Predictions", "groups_of"]

PREDICTIONS: Final = "predictions.npz"
_MOST = 1 << 24  # scores up to which they are kept: 64 MB

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a run said of its test samples, in their order.

    Attributes:
        labels: true classes, int64 of shape (N,); of many labels 0, 1 and -100 where not known, (N, C).
        predicted: decided classes, int64 of shape (N,); of many labels 0 and 1, (N, C).
        logits: what decided, float32 of shape (N, C); None beyond 16 million scores.
        groups: a number for the group of each sample, shape (N,); None where none was given.
        scored: whether there are logits, also where they were not read.
        drawn: of many labels on a given test set, macro average precision over samples or groups drawn anew,
            the same draws in every run on that set; else None.
    """

    labels: Integers
    predicted: Integers
    logits: npt.NDArray[np.float32] | None = None
    groups: Integers | None = None
    scored: bool = False
    drawn: npt.NDArray[np.float64] | None = None

    @classmethod
    def of(cls, logits: npt.NDArray[Any], labels: npt.NDArray[Any], groups: Any = None) -> Predictions:
        """Take the class of the highest of the logits, as an evaluation does."""
        predicted = logits.argmax(axis=1).astype(np.int64)
        return cls(np.asarray(labels, np.int64), predicted, *_with_scores(logits, groups))

    @classmethod
    def of_labels(
        cls, logits: npt.NDArray[Any], truth: Integers, given: npt.NDArray[np.bool_], groups: Any, drawn: Any
    ) -> Predictions:
        """Take the labels that were given, of many a sample."""
        return cls(truth, given.astype(np.int64), *_with_scores(logits, groups), drawn)

    def write(self, folder: Path) -> None:
        """Write predictions.npz into a run's folder.

        Raises:
            RunFolderError: it cannot be written.
        """
        parts: dict[str, Any] = {
            "labels": self.labels.astype(np.int32 if self.labels.ndim == 1 else np.int8),
            "predicted": self.predicted.astype(np.int32 if self.labels.ndim == 1 else np.int8),
            "logits": self.logits,
            "groups": self.groups,
            "drawn": self.drawn,
        }
        buffer = io.BytesIO()
        np.savez(buffer, **{name: part for name, part in parts.items() if part is not None})
        write_atomic(folder / PREDICTIONS, buffer.getvalue())

    @classmethod
    def read(cls, folder: Path, *, scores: bool = True) -> Predictions | None:
        """Read a run's file; None where there is none.

        Args:
            folder: of the run.
            scores: False leaves the logits where they are: those of many runs would fill the memory.

        Raises:
            ValueError: the file is damaged.
        """
        path = folder / PREDICTIONS
        if not path.is_file():
            return None
        try:
            check_headers(path)
            with np.load(path, allow_pickle=False) as file:
                scored = "logits" in file.files
                held = {name: file[name] for name in file.files if scores or name != "logits"}
            labels, predicted = held["labels"].astype(np.int64), held["predicted"].astype(np.int64)
            groups = held["groups"].astype(np.int64) if "groups" in held else None
        except Exception as error:  # zipfile and NumPy raise many kinds for a damaged file
            raise ValueError(
                f"{path} is damaged ({error}); put back a copy, or delete the folder and run again"
            ) from error
        return cls(labels, predicted, held.get("logits"), groups, scored, held.get("drawn"))


def groups_of(folder: Path | None, labels: npt.NDArray[Any]) -> Integers | None:
    """Return the groups of a run's test samples, where it kept some; None of other samples than these.

    Args:
        folder: of the run.
        labels: true classes of the test samples, shape (N,).

    Raises:
        ValueError: the file is damaged.
    """
    said = None if folder is None else Predictions.read(folder, scores=False)
    return None if said is None or not np.array_equal(said.labels, labels) else said.groups


def _with_scores(logits: npt.NDArray[Any], groups: Any) -> tuple[Any, Integers | None, bool]:
    kept = logits.astype(np.float32) if logits.size <= _MOST else None
    return kept, None if groups is None else group_numbers(groups, len(logits)), kept is not None


class Collected:
    """Predictions that come by batches, in any order; the memory is that of what is kept.

    Args:
        labels: true classes of all test samples, shape (N,).
        groups: one a sample, or None.

    Attributes:
        seen: which samples have come, shape (N,).
    """

    def __init__(self, labels: npt.NDArray[Any], groups: Any = None) -> None:
        self._labels, self._groups = labels, groups
        self.seen = np.zeros(len(labels), dtype=np.bool_)
        self._predicted = np.zeros(len(labels), dtype=np.int32)
        self._known = np.zeros(len(labels), dtype=np.bool_)
        self._logits: npt.NDArray[np.float32] | None = None

    def first_time(self, places: Integers) -> npt.NDArray[np.bool_]:
        """Say which of some samples come for the first time, and take note of them."""
        new = np.zeros(len(places), dtype=np.bool_)
        new[np.unique(places, return_index=True)[1]] = True
        new &= ~self.seen[places]
        self.seen[places] = True
        return new

    def add(self, places: Integers, logits: npt.NDArray[Any]) -> None:
        """Keep what was said of the samples at some places; others, which could not be read, are left out."""
        if self._logits is None and len(self.seen) * logits.shape[1] <= _MOST:
            self._logits = np.zeros((len(self.seen), logits.shape[1]), dtype=np.float32)
        if self._logits is not None:
            self._logits[places] = logits
        self._predicted[places] = logits.argmax(axis=1)
        self._known[places] = True

    def result(self) -> Predictions:
        """Return what was kept, in the order of the samples."""
        rows = np.flatnonzero(self._known)
        groups = None if self._groups is None else group_numbers(np.asarray(self._groups)[rows], len(rows))
        logits = self._logits
        return Predictions(
            self._labels[rows].astype(np.int64),
            self._predicted[rows].astype(np.int64),
            logits if logits is None or len(rows) == len(logits) else logits[rows],
            groups,
            logits is not None,
        )
