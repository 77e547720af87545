"""One sample in, classes out, from the folder of a finished run."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from longtail import _checks
from longtail._registry import added
from longtail.adapters.transformers import logits_of
from longtail.counts import ClassCounts
from longtail.datasets.decoding import BROKEN, EvalTransform, opened
from longtail.datasets.kinds import KINDS
from longtail.evaluation import MultiLabelEvaluation
from longtail.sources.arrays import check_headers
from longtail.sources.folders import IMAGE_SUFFIXES
from longtail.training.data import scale
from longtail.training.folder import environment_of, load_run
from longtail.training.recipe import ImageRecipe, Recipe

__all__ = ["Arrays", "Classifier", "Prediction", "Trained", "read_npy"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network says of one sample.

    Attributes:
        class_names: in the order of the probabilities.
        probabilities: float64 of shape (C,). They sum to 1 for a run with a softmax loss; a sigmoid or focal
            loss asks of each class alone whether it is there, and then they need not.
        thresholds: for a run on many labels, the probability from which its evaluation gave each label,
            float64 of shape (C,); else None.
    """

    class_names: tuple[str, ...]
    probabilities: npt.NDArray[np.float64]
    thresholds: npt.NDArray[np.float64] | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """The labels that the sample gets, none or many: those whose probability reaches the threshold.

        Raises:
            ValueError: the run was not on many labels.
        """
        if self.thresholds is None:
            raise ValueError("the run has one class a sample, and gives no labels; take best")
        here = self.probabilities >= self.thresholds
        return tuple(name for name, given in zip(self.class_names, here, strict=True) if given)

    @property
    def best(self) -> str:
        """The name of the most probable class."""
        return self.class_names[int(self.probabilities.argmax())]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the k most probable classes and their probabilities, or all if there are fewer than k."""
        k = _checks.integer("k", k, low=1)
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.class_names[i], float(self.probabilities[i])) for i in order]


@dataclass(frozen=True)
class Trained:
    """What a network was trained on.

    Attributes:
        model: the network, on the CPU.
        recipe: of its run.
        kind: of its inputs.
        shape: of one input.
        dtype: of its inputs.
    """

    model: nn.Module
    recipe: Recipe
    kind: str
    shape: tuple[int, ...]
    dtype: str

    def expect(self, found: object, wanted: object, where: str, what: str) -> None:
        """Refuse a sample of another shape or dtype.

        Raises:
            ValueError: `found` is not what is `wanted`.
        """
        if found != wanted:
            raise ValueError(
                f"{where} has {what} {found}, but the run was trained on {self.kind} of {wanted}"
                f"; give a sample of that {what}, or the folder of another run"
            )


class Arrays:
    """Samples that a network takes as they are: images and vectors. Other kinds prepare theirs otherwise.

    Args:
        trained: the network and what it was trained on.
    """

    def __init__(self, trained: Trained) -> None:
        self.trained = trained

    @property
    def takes_pictures(self) -> bool:
        """Whether a picture's middle square is a sample, as in data made by `in_memory`."""
        shape = self.trained.shape
        square = len(shape) == 3 and shape[0] == 3 and shape[1] == shape[2]
        return self.trained.kind == "images" and square and self.trained.dtype == "uint8"

    def read(self, path: Path) -> npt.NDArray[Any]:
        """Read a sample from a file."""
        if path.suffix.lower() in IMAGE_SUFFIXES and self.takes_pictures:
            from PIL.Image import DecompressionBombError

            from longtail.datasets.images import middle_square

            try:
                with opened(path) as image:
                    return middle_square(image, self.trained.shape[1])
            except FileNotFoundError:
                raise FileNotFoundError(f"{path} is not there; give a picture, or an array as .npy") from None
            except (*BROKEN, DecompressionBombError) as error:
                raise ValueError(
                    f"{str(path)!r} is no image that can be read ({error}); give another picture"
                ) from error
        return read_npy(path)

    def logits(self, sample: npt.NDArray[Any], where: str) -> torch.Tensor:
        """Return the logits of shape (C,); errors name the sample as `where`."""
        trained = self.trained
        trained.expect(sample.shape, trained.shape, where, "shape")
        if trained.kind == "vectors" and sample.dtype.kind in "biuf":
            sample = sample.astype(trained.dtype)  # as features are brought to the run's type
        trained.expect(sample.dtype.name, trained.dtype, where, "dtype")
        if sample.dtype.kind == "f" and not np.isfinite(sample).all():
            raise ValueError(f"{where} holds NaN or infinity, of which no class follows; mend the sample")
        inputs = torch.tensor(sample[np.newaxis])
        logits: torch.Tensor = trained.model(scale(inputs, trained.recipe))[0]
        return logits


class Classifier:
    """The network of a finished run, on the CPU, for one sample at a time.

    A sample is prepared as the data sets prepare theirs, so the network sees what it was trained on.

    Args:
        run_dir: the folder of a finished run.

    Attributes:
        class_names: one for each class.
        kind: what it takes: ``"images"``, ``"vectors"``, or a kind that an application adds, such as
            ``"skeletons"``.
        shape: of one input of the network; of a clip, (frames, J, D).
        thresholds: for a run on many labels, as of a `Prediction`; else None.

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
        self._recipe, self._network = run.recipe, run.model
        self._counts: Any = about.get("trained_counts", run.evaluation.class_counts)  # the former of a fold
        self.thresholds: npt.NDArray[np.float64] | None = None
        if isinstance(run.evaluation, MultiLabelEvaluation):
            self.thresholds = np.asarray(run.evaluation.threshold, dtype=np.float64)
            self._counts = ClassCounts(self.class_names, about["label_counts"], about["label_samples"])
        self._middle: EvalTransform | None = None
        if isinstance(run.recipe, ImageRecipe):
            self._middle = EvalTransform(run.recipe.size, run.recipe.mean, run.recipe.std)
        else:
            trained = Trained(run.model, run.recipe, self.kind, self.shape, inputs["dtype"])
            self._samples: Arrays = (KINDS[self.kind].sample or Arrays)(trained)

    def __call__(self, sample: str | os.PathLike[str] | npt.ArrayLike) -> Prediction:
        """Classify one sample.

        Args:
            sample: for a run on image files, a Pillow image of any size; for a run on clips, numbers of shape
                (T, J, D) with at least 3 frames, in the units of the training data; for a run on anything
                else, an array of the shape and dtype of its inputs. Or a file of it: an image, whose middle
                square is taken where the run's pictures were made so; .npy; for a
                clip also .npz with one clip as ``poses``, JHMDB's ``joint_positions.mat`` or SHREC'17's
                ``skeletons_world.txt``.

        Raises:
            FileNotFoundError: the file is not there.
            ValueError: it is none of these, has another shape, or holds NaN or infinity.
        """
        return self.decide(self.logits(sample))

    def classify(self, sample: npt.ArrayLike, where: str) -> Prediction:
        """Classify an array; errors name it as `where`."""
        return self.decide(self._logits(sample, where))

    def logits(self, sample: str | os.PathLike[str] | npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return what the run's method decides by, shape (C,), of a sample as it is called with."""
        if self._middle is not None:
            return self._image_logits(sample)
        if not isinstance(sample, str | os.PathLike):
            return self._logits(sample, "sample")
        return self._logits(self._samples.read(Path(sample)), str(Path(sample)))

    def many_logits(self, path: str | os.PathLike[str]) -> npt.NDArray[np.float64]:
        """Return `logits` of many samples, shape (N, C).

        Args:
            path: for a run on pictures, a folder of them at any depth; else, and of arrays of pictures, .npy
                or .npz (``X``) of samples, one in each row.

        Raises:
            FileNotFoundError: nothing is there.
            ValueError: no samples, or not what the run was trained on.
        """
        place = Path(path)
        if self._middle is not None:
            if not place.is_dir():
                raise ValueError(
                    f"{place} is no folder; the run was trained on image files: give their folder"
                )
            return np.stack([self._image_logits(file) for file in _pictures(place)])
        if self._samples.takes_pictures and place.is_dir():
            return np.stack([self._logits(self._samples.read(file), str(file)) for file in _pictures(place)])
        rows = _read_rows(place)
        return np.stack([self._logits(row, f"row {i} of {place}") for i, row in enumerate(rows)])

    def _logits(self, sample: npt.ArrayLike, where: str) -> npt.NDArray[np.float64]:
        with torch.inference_mode():
            return self._adjusted(self._samples.logits(np.asarray(sample), where).double())

    def _image_logits(self, sample: Any) -> npt.NDArray[np.float64]:
        from PIL import Image

        assert self._middle is not None
        try:
            if isinstance(sample, Image.Image):
                pixels = self._middle(sample)
            else:
                with opened(sample) as image:
                    pixels = self._middle(image)
        except FileNotFoundError:
            raise
        except (
            *BROKEN,
            Image.DecompressionBombError,
            AttributeError,
        ) as error:  # what Pillow raises on broken files, and on arrays
            what = repr(str(sample)) if isinstance(sample, (str, os.PathLike)) else _checks.describe(sample)
            raise ValueError(
                f"{what} is no image that can be read ({error}); the run was trained on image files"
            ) from error
        with torch.inference_mode():
            logits = logits_of(self._network(pixel_values=torch.from_numpy(pixels)[None]))[0].double()
        return self._adjusted(logits)

    def _adjusted(self, logits: torch.Tensor) -> npt.NDArray[np.float64]:
        method, epochs = self._recipe.method, self._recipe.epochs
        decided: npt.NDArray[np.float64] = method.adjust(logits.numpy()[None], self._counts, epochs=epochs)[0]
        return decided

    def decide(self, decided: npt.NDArray[np.float64]) -> Prediction:
        """Return the prediction of `logits`."""
        logits, alone = torch.from_numpy(decided), self._recipe.activation == "sigmoid"
        probabilities = (logits.sigmoid() if alone else logits.softmax(0)).numpy()
        return Prediction(self.class_names, probabilities, self.thresholds)


def _pictures(folder: Path) -> list[Path]:
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise ValueError(f"{folder} has no image; give a folder of pictures")
    return files


def read_npy(path: Path) -> npt.NDArray[Any]:
    """Read one array of numbers."""
    try:
        check_headers(path)
        with path.open("rb") as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there; give an array as .npy") from None
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is no array of numbers ({error}); save it with numpy.save") from None


def _read_rows(path: Path) -> npt.NDArray[Any]:
    if path.suffix == ".npz":
        try:
            check_headers(path)
            with np.load(path, allow_pickle=False) as held:
                if "X" not in held.files:
                    raise ValueError(f"it holds {_checks.shorten(held.files)}, but no X")
                rows: npt.NDArray[Any] = held["X"]
        except FileNotFoundError:
            raise FileNotFoundError(f"{path} is not there; give samples as .npy, or .npz with X") from None
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} holds no samples ({error}); save them as X by numpy.savez") from None
    else:
        rows = read_npy(path)
    if not rows.ndim or not len(rows):
        raise ValueError(f"{path} has shape {rows.shape}, no sample in its rows; give at least one")
    return rows


def __getattr__(name: str) -> Any:
    return added(__name__, name)
