"""One run of a comparison, and what its folder says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

from longtail.evaluation import Evaluation
from longtail.training.recipe import Recipe

__all__ = ["Epoch", "Outcome", "Provenance"]


@dataclass(frozen=True)
class Provenance:
    """What a run was made with, from its environment.json; "" where that says nothing.

    Attributes:
        subset_sha256: of the training samples.
        device: name of the GPU, or "cpu".
        longtail: version.
        torch: version.
        numpy: version.
        commit: of longtail.
    """

    subset_sha256: str = ""
    device: str = ""
    longtail: str = ""
    torch: str = ""
    numpy: str = ""
    commit: str = ""


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
    evaluation: Evaluation | None
    seconds: float
    failure: str | None
    folder: Path

    @property
    def result(self) -> Evaluation:
        """The evaluation of a run that finished."""
        assert self.evaluation is not None
        return self.evaluation

    @cached_property
    def environment(self) -> Mapping[str, object]:
        """The run's environment.json; empty where there is none."""
        try:
            found = json.loads((self.folder / "environment.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @cached_property
    def provenance(self) -> Provenance:
        """What the run was made with."""
        known = ((f.name, self.environment.get(f.name)) for f in fields(Provenance))
        return Provenance(**{name: str(value) for name, value in known if value})

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
                row = json.loads(line)
                read.append(Epoch(int(row["epoch"]), float(row["loss"]), row["test_error"]))
            except (ValueError, KeyError, TypeError):  # a kill can cut the last line short
                continue
        return tuple(read)
