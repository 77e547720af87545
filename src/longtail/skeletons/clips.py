"""Skeleton clips, JHMDB and SHREC'17: read, smoothed, brought to one length and centred.

One function prepares clips for training and for prediction, so that a network always sees what it learned
from.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from longtail.datasets import Dataset, Split
from longtail.datasets.fetch import data_root
from longtail.extend import integer
from longtail.skeletons.files import MIN_FRAMES, Clips, read_compact, read_jhmdb, read_shrec, read_source

FRAMES: Final = 32


def prepare(
    poses: npt.NDArray[np.floating], lengths: npt.ArrayLike, frames: int = FRAMES
) -> npt.NDArray[np.float32]:
    """Smooth, resample and centre many clips of any lengths at once.

    Three steps for every coordinate of every joint:

    1. a median of three neighbouring frames, against single outliers; the first and the last frame stay;
    2. linear interpolation to ``frames`` frames at equal distances, of which the first and the last fall on
       the clip's own first and last frame ("align corners");
    3. the mean over all frames and joints of the clip is subtracted, one number for each coordinate, so
       that where the person stands is gone while every movement, that of the whole body too, is kept.

    Args:
        poses: Finite, of shape (frames of all clips, J, D), the clips one after the other.
        lengths: Frames of every clip, integers of shape (N,), each at least 3.
        frames: Frames of every clip of the result, at least 2.

    Returns:
        float32 of shape (N, frames, J, D).

    Raises:
        ValueError: The shapes do not agree, or a clip has fewer than 3 frames.

    Example:
        >>> poses = np.arange(8, dtype=np.float32).reshape(8, 1, 1)
        >>> prepare(poses, [3, 5], frames=3)[..., 0, 0]
        array([[-1.,  0.,  1.],
               [-2.,  0.,  2.]], dtype=float32)

    Source:
        The steps of Yang et al., "Make skeleton-based action recognition model smaller, faster and better",
        2019. Deviations: their median filter takes 0 beyond the ends, so that the result depends on where
        the origin lies; their interpolation is a cubic spline.
    """
    frames = integer("frames", frames, low=2)
    sizes = np.asarray(lengths)
    if poses.ndim != 3 or sizes.ndim != 1 or not sizes.size or len(poses) != sizes.sum():
        raise ValueError(
            f"poses has shape {poses.shape} and lengths shape {sizes.shape} with sum {sizes.sum()}; give "
            "(frames of all clips, J, D), and the frames of every clip"
        )
    if sizes.min() < MIN_FRAMES:
        raise ValueError(
            f"lengths holds {sizes.min()} for clip {sizes.argmin()}; leave out clips of fewer than "
            f"{MIN_FRAMES} frames"
        )
    last = np.cumsum(sizes) - 1
    first = last - sizes + 1
    smooth = np.array(poses, np.float32)
    low, high = np.minimum(smooth[:-1], smooth[1:]), np.maximum(smooth[:-1], smooth[1:])
    # the median of a, b, c is max(min(a, b), min(max(a, b), c))
    smooth[1:-1] = np.maximum(low[:-1], np.minimum(high[:-1], smooth[2:]))
    smooth[first], smooth[last] = poses[first], poses[last]

    place = np.linspace(0, 1, frames) * (sizes[:, np.newaxis] - 1)
    before = np.minimum(place.astype(np.int64), sizes[:, np.newaxis] - 2)
    part = (place - before).astype(np.float32)[..., np.newaxis, np.newaxis]
    start = smooth[first[:, np.newaxis] + before]
    clips: npt.NDArray[np.float32] = start + part * (smooth[first[:, np.newaxis] + before + 1] - start)
    clips -= clips.mean((1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
    return clips


def jhmdb(root: str | os.PathLike[str] | None = None, *, classes: int = 21, split: int = 1) -> Dataset:
    """Load JHMDB: 2-D skeletons of 15 joints of people in films, 928 clips of 21 actions.

    Args:
        root: The folder with ``jhmdb21.npz`` (for 14 classes ``jhmdb14.npz`` comes first), or with the
            official ``joint_positions`` and ``splits``, perhaps in a folder ``JHMDB``. If None, the
            environment variable ``LONGTAIL_DATA``, else ``longtail`` in the user's cache folder
            (``$XDG_CACHE_HOME`` or ``~/.cache``). What an npz holds is what is loaded, complete or not.
        classes: 21, or the 14 whose name is one word, which is what DD-Net's authors publish.
        split: 1, 2 or 3.

    Returns:
        Prepared clips (see `prepare`), float32 of shape (N, 32, 15, 2), in units of the person's size.

    Raises:
        FileNotFoundError: The data set is not there, or a clip that a split names.
        ValueError: A file is damaged, a class has no training clips, or ``classes`` or ``split`` is none of
            those above.

    Example:
        >>> jhmdb().train.inputs.shape  # doctest: +SKIP
        (660, 32, 15, 2)
        >>> jhmdb("no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: root is no/such/folder, which is not there; ...

    Source:
        Jhuang et al., "Towards understanding action recognition", ICCV 2013; http://jhmdb.is.tue.mpg.de.
        The joints are the files' ``pos_world``: pixels from the frame's centre, divided by frame height
        and the person's scale.
    """
    if classes not in (14, 21):
        raise ValueError(f"classes must be 14 or 21, got {classes!r}")
    if split not in (1, 2, 3):
        raise ValueError(f"split must be 1, 2 or 3, got {split!r}")
    files = ("jhmdb14.npz", "jhmdb21.npz") if classes == 14 else ("jhmdb21.npz",)
    path, clips = _find(root, "JHMDB", files, ("joint_positions", "splits"))
    if classes == 14:
        clips = _one_word(clips)
    _expect(path, clips, classes, (15, 2))
    return _dataset(f"jhmdb{classes}-{split}", path, clips, split)


def shrec(root: str | os.PathLike[str] | None = None, *, gestures: int = 14) -> Dataset:
    """Load SHREC'17: 3-D skeletons of 22 joints of a hand, 1960 training and 840 test clips.

    Args:
        root: The folder with ``shrec17.npz``, or with the official ``train_gestures.txt``,
            ``test_gestures.txt`` and ``gesture_1`` to ``gesture_14``, perhaps in a folder
            ``HandGestureDataset_SHREC2017``; None as in `jhmdb`.
        gestures: 14, or 28 where one finger and the whole hand count as two.

    Returns:
        Prepared clips (see `prepare`), float32 of shape (N, 32, 22, 3), in metres.

    Raises:
        FileNotFoundError: The data set is not there, or a clip that a list names.
        ValueError: A file is damaged, a class has no training clips, or ``gestures`` is neither 14 nor 28.

    Example:
        >>> shrec().train.inputs.shape  # doctest: +SKIP
        (1960, 32, 22, 3)
        >>> shrec("no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: root is no/such/folder, which is not there; ...

    Source:
        De Smedt et al., "SHREC'17 track: 3D hand gesture recognition using a depth and skeletal dataset",
        2017.
    """
    if gestures not in (14, 28):
        raise ValueError(f"gestures must be 14 or 28, got {gestures!r}")
    lists = ("train_gestures.txt", "test_gestures.txt")
    path, clips = _find(root, "HandGestureDataset_SHREC2017", ("shrec17.npz",), lists)
    _expect(path, clips, 28, (22, 3))
    if gestures == 14:
        if clips.coarse_labels is None or clips.coarse_label_names is None:
            raise ValueError(f"{path} has no 'coarse_labels'; convert it again with: longtail data skeletons")
        clips = replace(clips, labels=clips.coarse_labels[clips.labels], label_names=clips.coarse_label_names)
    return _dataset(f"shrec{gestures}", path, clips, 1)


def convert(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> Clips:
    """Write a skeleton data set in the compact form that `jhmdb` and `shrec` read in a moment.

    Args:
        source: A folder in JHMDB's or SHREC'17's official layout; an npz with ``poses, lengths, labels,
            label_names, is_test``; an npz with one split as ``train_poses, train_lengths, train_labels``,
            the same for ``test_``, and ``label_names``; or a folder of such splits of the same clips,
            ``split1.npz`` and so on. Pickles are not read.
        out: The file to write; the loaders look for ``jhmdb14.npz``, ``jhmdb21.npz`` and ``shrec17.npz``.

    Returns:
        What was written; its attributes are the arrays of the file.

    Raises:
        FileNotFoundError: The source is not there, or a clip that it names.
        ValueError: A file of the source is damaged, or ``out`` is no .npz; the message names file and field.

    Example:
        >>> convert("no/such/folder", "jhmdb21.npz")
        Traceback (most recent call last):
        FileNotFoundError: no/such/folder is not there; ...
    """
    target = Path(out)
    if target.suffix != ".npz":
        raise ValueError(f"out is {str(out)!r}, which is not an .npz; the loaders look for that")
    clips = read_source(Path(source))
    clips.save(target)
    return clips


def _find(
    root: str | os.PathLike[str] | None, title: str, files: tuple[str, ...], official: tuple[str, ...]
) -> tuple[Path, Clips]:
    """Read the first form that is there: a compact file, then the official layout."""
    start, origin = data_root(root)
    for file in files:
        if (start / file).is_file():
            return start / file, read_compact(start / file)
    read = read_jhmdb if title == "JHMDB" else read_shrec
    for folder in (start, start / title):
        if all((folder / name).exists() for name in official):
            return folder, read(folder)
    state = f"has no {files[0]}, and no {' and '.join(official)}" if start.is_dir() else "is not there"
    raise FileNotFoundError(
        f"{origin} is {start}, which {state}; unpack the official files there, or make {files[0]} of them "
        "with longtail data skeletons, or name another folder with root= or the environment variable "
        "LONGTAIL_DATA"
    )


def _expect(path: Path, clips: Clips, classes: int, shape: tuple[int, int]) -> None:
    if clips.poses.shape[1:] != shape:
        raise ValueError(
            f"{path}: 'poses' has {clips.poses.shape[1:]} joints and coordinates, not {shape}"
            "; convert it again with: longtail data skeletons"
        )
    if len(clips.label_names) != classes:
        raise ValueError(
            f"{path}: 'label_names' has {len(clips.label_names)} classes, not {classes}"
            "; convert it again with: longtail data skeletons"
        )


def _one_word(clips: Clips) -> Clips:
    """The clips of the classes whose name is one word."""
    kept = np.array(["_" not in name for name in clips.label_names])
    rows = kept[clips.labels]
    return replace(
        clips,
        poses=clips.poses[np.repeat(rows, clips.lengths)],
        lengths=clips.lengths[rows],
        labels=(np.cumsum(kept) - 1)[clips.labels[rows]],
        label_names=clips.label_names[kept],
        is_test=clips.is_test[rows],
    )


def _dataset(name: str, path: Path, clips: Clips, split: int) -> Dataset:
    if split > clips.is_test.shape[1]:
        raise ValueError(
            f"{path}: 'is_test' has {clips.is_test.shape[1]} splits, not a split {split}"
            "; give a split that it has, from 1"
        )
    in_test = clips.is_test[:, split - 1]
    names = tuple(str(x) for x in clips.label_names)
    for part, rows in (("training", ~in_test), ("test", in_test)):
        counts = np.bincount(clips.labels[rows], minlength=len(names))
        if not counts.all():
            raise ValueError(
                f"{path}: 'labels' has no {part} clip of class {names[int(np.argmin(counts))]!r} in split "
                f"{split}; add some, every class needs them"
            )
    inputs = prepare(clips.poses, clips.lengths)
    return Dataset(
        name=name,
        train=Split(inputs[~in_test], clips.labels[~in_test]),
        test=Split(inputs[in_test], clips.labels[in_test]),
        class_names=names,
        kind="skeletons",
    )
