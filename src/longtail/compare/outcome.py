"""One run of a comparison, and what its folder says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from longtail.evaluation import Evaluation, MultiLabelEvaluation
from longtail.training.files import parse_json, read_json
from longtail.training.predictions import Predictions
from longtail.training.recipe import Recipe

# what a run was made with, as its environment.json names it
ORIGIN: Final = ("subset_sha256", "device", "longtail", "torch", "numpy", "commit")


@dataclass(frozen=True)
class Epoch:
    """One line of a run's history, as :class:`longtail.training.folder.EpochMetrics`, read without torch.

    Attributes:
        epoch: from 1.
        loss: mean over the epoch's samples.
        test_error: None where it was not measured.
    """

    epoch: int
    loss: float
    test_error: float | None


@dataclass(frozen=True)
class Outcome:
    """One run of a comparison.

    Attributes:
        recipe: what was trained.
        evaluation: None where the run failed.
        seconds: of training and evaluation.
        failure: why it failed, in one line, or None.
        folder: where its files are.
    """

    recipe: Recipe
    evaluation: Evaluation | MultiLabelEvaluation | None
    seconds: float
    failure: str | None
    folder: Path

    @property
    def found(self) -> Evaluation | MultiLabelEvaluation:
        """The evaluation of a run that finished."""
        assert self.evaluation is not None
        return self.evaluation

    @property
    def result(self) -> Evaluation:
        """The same of one class a sample."""
        assert isinstance(self.evaluation, Evaluation)
        return self.evaluation

    def value(self, column: str) -> float | None:
        """Return what the run has for a column; None where it does not apply."""
        found = getattr(self.found, column, None)
        if found is None and isinstance(kept := self.environment.get("measures"), dict):
            found = kept.get(column)
        return None if found is None else float(found)

    @cached_property
    def environment(self) -> Mapping[str, object]:
        """The run's environment.json; empty where there is none."""
        try:
            found = read_json(self.folder / "environment.json")
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def predictions(self) -> Predictions | None:
        """What it said of each test sample, read anew; None where it kept nothing that can be read."""
        return self._said(scores=True)

    @cached_property
    def decided(self) -> Predictions | None:
        """The same without the scores, kept: a comparison asks for those of all its runs."""
        return self._said(scores=False)

    def _said(self, scores: bool) -> Predictions | None:
        try:
            return Predictions.read(self.folder, scores=scores)
        except ValueError:  # who finds runs checks their files and names what is damaged
            return None

    @property
    def origin(self) -> dict[str, str]:
        """What the run was made with, by the names of ORIGIN; "" where its environment.json says nothing."""
        return {name: str(self.environment.get(name) or "") for name in ORIGIN}

    @property
    def by_class(self) -> tuple[float | None, ...]:
        """The error of each class; of many labels the average precision of each."""
        found = self.found
        if isinstance(found, MultiLabelEvaluation):
            return found.per_class_average_precision
        return found.per_class_error

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; empty where they are not known."""
        names = self.environment.get("class_names")
        return tuple(map(str, names)) if isinstance(names, list) else ()

    @cached_property
    def history(self) -> tuple[Epoch, ...]:
        """The run's metrics.jsonl; lines that are no metrics, and a missing file, count as nothing."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return ()
        read = []
        for line in lines:
            try:
                row = parse_json(line, "metrics.jsonl")
                read.append(Epoch(int(row["epoch"]), float(row["loss"]), row["test_error"]))
            except (ValueError, KeyError, TypeError):  # a kill can cut the last line short
                continue
        return tuple(read)
