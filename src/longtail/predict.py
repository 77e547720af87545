"""One clip, one image or a stream of frames in, classes out, from the folder of a finished run."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from longtail import _checks
from longtail.datasets.decoding import EvalTransform
from longtail.datasets.skeleton_files import MIN_FRAMES, check_clip, read_clip, read_npy
from longtail.datasets.skeletons import prepare
from longtail.models import DDNet
from longtail.models.inference import SingleClip
from longtail.training.data import scale
from longtail.training.folder import environment_of, load_run
from longtail.training.recipe import ImageRecipe
from longtail.training.trainers import logits_of

__all__ = ["Classifier", "Prediction", "StreamClassifier"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network says of one sample.

    Attributes:
        class_names: in the order of the probabilities.
        probabilities: float64 of shape (C,). They sum to 1 for a run with a softmax loss; a sigmoid or focal
            loss asks of each class alone whether it is there, and then they need not.
    """

    class_names: tuple[str, ...]
    probabilities: npt.NDArray[np.float64]

    @property
    def best(self) -> str:
        """The name of the most probable class."""
        return self.class_names[int(self.probabilities.argmax())]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the k most probable classes and their probabilities, or all if there are fewer than k."""
        k = _checks.integer("k", k, low=1)
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.class_names[i], float(self.probabilities[i])) for i in order]


class Classifier:
    """The network of a finished run, on the CPU, for one sample at a time.

    A clip is prepared as the data sets prepare theirs (`longtail.datasets.skeletons.prepare`), so the network
    sees what it was trained on.

    Args:
        run_dir: the folder of a finished run.

    Attributes:
        class_names: one for each class.
        kind: what it takes: ``"skeletons"``, ``"images"`` or ``"vectors"``.
        shape: of one input of the network; of a clip, (frames, J, D).

    Raises:
        ValueError: the folder holds no finished run, or one that does not say what its classes are.
    """

    def __init__(self, run_dir: str | os.PathLike[str]) -> None:
        run = load_run(run_dir)
        about = environment_of(run_dir)
        if "class_names" not in about or "inputs" not in about:
            raise ValueError(
                f"{Path(run_dir) / 'environment.json'} has no 'class_names' or no 'inputs', so the run is "
                "of an earlier version; train it again"
            )
        inputs = about["inputs"]
        self.class_names: tuple[str, ...] = tuple(about["class_names"])
        self.kind: str = inputs["kind"]
        self.shape: tuple[int, ...] = tuple(inputs["shape"])
        self._dtype: str = inputs["dtype"]
        self._recipe = run.recipe
        self._middle: EvalTransform | None = None
        if isinstance(run.recipe, ImageRecipe):
            self._middle = EvalTransform(run.recipe.size, run.recipe.mean, run.recipe.std)
        self._network = SingleClip(run.model) if isinstance(run.model, DDNet) else run.model

    def __call__(self, sample: str | os.PathLike[str] | npt.ArrayLike) -> Prediction:
        """Classify one sample.

        Args:
            sample: a clip, numbers of shape (T, J, D) with at least 3 frames, in the units of the training
                data; for a run on image files, a Pillow image of any size; for a run on anything else, an
                array of the shape and dtype of its inputs. Or a file of it: an image; .npy; for a clip also
                .npz with one clip as ``poses``, JHMDB's ``joint_positions.mat`` or SHREC'17's
                ``skeletons_world.txt``.

        Raises:
            FileNotFoundError: the file is not there.
            ValueError: it is none of these, has another shape, or holds NaN or infinity.
        """
        if self._middle is not None:
            return self._classify_image(sample)
        if not isinstance(sample, str | os.PathLike):
            return self.classify(sample, "sample")
        path = Path(sample)
        read = read_clip if self.kind == "skeletons" else read_npy
        return self.classify(read(path), str(path))

    def classify(self, sample: npt.ArrayLike, where: str) -> Prediction:
        """Classify an array; errors name it as `where`."""
        array = np.asarray(sample)
        if self.kind == "skeletons":
            clip = check_clip(array, where, "poses")
            self._expect(clip.shape[1:], self.shape[1:], f"{where}: 'poses'", "joints and coordinates")
            inputs: npt.NDArray[Any] = prepare(clip, [len(clip)], frames=self.shape[0])
        else:
            self._expect(array.shape, self.shape, where, "shape")
            self._expect(array.dtype.name, self._dtype, where, "dtype")
            inputs = array[np.newaxis]
        with torch.inference_mode():
            if isinstance(self._network, SingleClip):
                logits = torch.from_numpy(self._network(inputs[0])).double()
            else:
                logits = self._network(scale(torch.from_numpy(inputs), self._recipe))[0].double()
        return self._prediction(logits)

    def _classify_image(self, sample: Any) -> Prediction:
        from PIL import Image

        network: Any = self._network
        assert self._middle is not None
        try:
            if isinstance(sample, Image.Image):
                pixels = self._middle(sample)
            else:
                with Image.open(sample) as image:
                    pixels = self._middle(image)
        except FileNotFoundError:
            raise
        except (OSError, AttributeError) as error:  # what Pillow raises on broken files, and on arrays
            what = repr(str(sample)) if isinstance(sample, (str, os.PathLike)) else _checks.describe(sample)
            raise ValueError(
                f"{what} is no image that can be read ({error}); the run was trained on image files"
            ) from error
        with torch.inference_mode():
            logits = logits_of(network(pixel_values=torch.from_numpy(pixels)[None]))[0].double()
        return self._prediction(logits)

    def _prediction(self, logits: torch.Tensor) -> Prediction:
        alone = self._recipe.activation == "sigmoid"
        return Prediction(self.class_names, (logits.sigmoid() if alone else logits.softmax(0)).numpy())

    def _expect(self, found: object, wanted: object, where: str, what: str) -> None:
        if found != wanted:
            raise ValueError(
                f"{where} has {what} {found}, but the run was trained on {self.kind} of {wanted}"
            )


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
        self._frames: deque[npt.NDArray[Any]] = deque(
            maxlen=_checks.integer("window", frames, low=MIN_FRAMES)
        )

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
