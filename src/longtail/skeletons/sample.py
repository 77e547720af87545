"""A single clip for a trained network, prepared as its training clips were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from longtail.predict import Arrays, Trained
from longtail.skeletons.clips import prepare
from longtail.skeletons.ddnet import DDNet
from longtail.skeletons.files import check_clip, read_clip
from longtail.skeletons.single_clip import SingleClip


class Clips(Arrays):
    """Clips of any length, in the units of the training data."""

    def __init__(self, trained: Trained) -> None:
        super().__init__(trained)
        self._quick = SingleClip(trained.model) if isinstance(trained.model, DDNet) else None

    def read(self, path: Path) -> npt.NDArray[Any]:
        """Read a clip from a file."""
        return read_clip(path)

    def logits(self, sample: npt.NDArray[Any], where: str) -> torch.Tensor:
        """Return the logits of shape (C,); errors name the clip as `where`."""
        frames, *joints = self.trained.shape
        clip = check_clip(sample, where, "poses")
        self.trained.expect(clip.shape[1:], tuple(joints), f"{where}: 'poses'", "joints and coordinates")
        inputs = prepare(clip, [len(clip)], frames=frames)
        if self._quick is not None:
            return torch.from_numpy(self._quick(inputs[0]))
        return super().logits(inputs[0], where)
