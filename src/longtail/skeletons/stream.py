"""The last frames of a stream, classified again with every new one."""

from __future__ import annotations

import os
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail.extend import integer
from longtail.predict import Classifier, Prediction
from longtail.skeletons.files import MIN_FRAMES


class StreamClassifier:
    """Classifies the last frames of a stream, again with every new frame.

    Args:
        run_dir: the folder of a finished run on skeletons.
        window: frames to look back, at least 3. They are brought to the number that the network was trained
            on, so choose about as many as a training clip has at the stream's rate; that number if None.

    Attributes:
        class_names: one for each class.

    Raises:
        ValueError: as `Classifier`; the run is not on skeletons; or the window is too short.
    """

    def __init__(self, run_dir: str | os.PathLike[str], window: int | None = None) -> None:
        self._classifier = Classifier(run_dir)
        self.class_names = self._classifier.class_names
        if self._classifier.kind != "skeletons":
            raise ValueError(f"{run_dir} was trained on {self._classifier.kind}; a stream needs skeletons")
        frames = self._classifier.shape[0] if window is None else window
        self._frames: deque[npt.NDArray[Any]] = deque(maxlen=integer("window", frames, low=MIN_FRAMES))

    def push(self, frame: npt.ArrayLike) -> Prediction | None:
        """Take the next frame.

        Args:
            frame: joint positions of shape (J, D), in the units of the training data.

        Returns:
            What the window shows now; None until it is full.

        Raises:
            ValueError: the frame has another shape, or holds NaN or infinity; the window stays as it was.
        """
        pose = np.array(frame)
        if pose.shape != self._classifier.shape[1:] or not np.isfinite(pose).all():
            raise ValueError(
                f"frame has shape {pose.shape} or holds NaN or infinity; give finite numbers of shape "
                f"{self._classifier.shape[1:]}, or leave the frame out"
            )
        self._frames.append(pose)
        if len(self._frames) < (self._frames.maxlen or 0):
            return None
        return self._classifier.classify(np.stack(self._frames), "frames")

    def clear(self) -> None:
        """Forget all frames, as at a cut."""
        self._frames.clear()
