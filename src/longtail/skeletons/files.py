"""Skeleton clips on disk: our compact npz form, the official layouts it is converted from, single clips.

A reader makes sure of everything that later steps rely on, and an error names the file and the field. No
file is ever unpickled.
"""

import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from longtail.extend import shorten
from longtail.sources.arrays import check_headers

MIN_FRAMES: Final = 3  # the fast motion is the difference of frames two apart

_AGAIN: Final = "convert it again from its source with: longtail data skeletons"
_BROKEN: Final = (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error)
_GESTURES: Final = (
    *("grab", "tap", "expand", "pinch", "rotation clockwise", "rotation counter-clockwise"),
    *(f"swipe {way}" for way in ("right", "left", "up", "down", "x", "+", "v")),
    "shake",
)
Arrays = Mapping[str, npt.NDArray[Any]]
Poses = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Clips:
    """Every clip of one data set, one after the other; the fields are the arrays of the compact npz form.

    Attributes:
        poses: float32 of shape (frames of all clips, J, D).
        lengths: frames of every clip, int64 of shape (N,).
        labels: class of every clip, int64 of shape (N,).
        label_names: text of shape (C,).
        is_test: whether a clip is in the test set, bool of shape (N, splits).
        coarse_labels: group of every class, int64 of shape (C,); absent where classes have no groups.
        coarse_label_names: text of shape (groups,); absent likewise.
    """

    poses: Poses
    lengths: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    label_names: npt.NDArray[np.str_]
    is_test: npt.NDArray[np.bool_]
    coarse_labels: npt.NDArray[np.int64] | None = None
    coarse_label_names: npt.NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def save(self, path: Path) -> None:
        """Write the compact form; a reader finds all of it or nothing."""
        fields = {name: value for name, value in vars(self).items() if value is not None}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **fields)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def read_source(source: Path) -> Clips:
    """Read clips in any known form: an official layout, a folder of split files, or an npz."""
    if source.is_dir():
        if (source / "joint_positions").is_dir():
            return read_jhmdb(source)
        if (source / "train_gestures.txt").is_file():
            return read_shrec(source)
        if splits := sorted(source.glob("split[0-9].npz")):
            return _merged(splits)
        raise ValueError(
            f"{source} has no joint_positions (JHMDB), no train_gestures.txt (SHREC'17) and no split1.npz; "
            "give the folder that holds one of them"
        )
    if not source.is_file():
        raise FileNotFoundError(f"{source} is not there; give a folder in an official layout, or an npz file")
    return _merged([source]) if "train_poses" in _npz(source) else read_compact(source)


def read_clip(path: Path) -> Poses:
    """Read one clip of shape (T, J, D): .npy, an npz with one clip, JHMDB's .mat or SHREC'17's .txt."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; give a clip as .npy, .npz, .mat or .txt")
    if path.suffix == ".mat":
        return _mat(path)
    if path.suffix == ".txt":
        return _text(path)
    if path.suffix == ".npy":
        from longtail.predict import read_npy

        return check_clip(read_npy(path), str(path), "clip")
    if path.suffix == ".npz":
        fields = _npz(path)
        if "poses" not in fields or np.size(fields.get("lengths", 0)) != 1:
            held = f"{np.size(fields['lengths'])} clips" if "poses" in fields else "no 'poses'"
            raise ValueError(f"{path} has {held}; give an npz whose 'poses' are one clip, (T, J, D)")
        return check_clip(fields["poses"], str(path), "poses")
    raise ValueError(f"{path} is of no known kind; give a clip as .npy, .npz, .mat or .txt")


def check_clip(clip: npt.ArrayLike, where: str, field: str) -> Poses:
    """Return one clip as float32 of shape (T, J, D), or say what is wrong with it."""
    poses = np.asarray(clip)
    if poses.dtype.kind not in "fiu" or poses.ndim != 3 or 0 in poses.shape[1:]:
        raise ValueError(
            f"{where}: {field!r} has shape {poses.shape} and dtype {poses.dtype}; "
            "give numbers of shape (frames, joints, coordinates)"
        )
    if len(poses) < MIN_FRAMES:
        raise _too_short(where, field, len(poses))
    known = np.isfinite(poses).all(-1)
    if not known.all():
        frame, joint = np.argwhere(~known)[0]
        raise ValueError(
            f"{where}: {field!r} is not finite at frame {frame}, joint {joint}; fill in missing joints first"
        )
    return poses.astype(np.float32)


def _too_short(where: str, field: str, frames: int) -> ValueError:
    return ValueError(
        f"{where}: {field!r} has {frames} frame{'s' * (frames != 1)}, and the motion over two frames needs "
        f"{MIN_FRAMES}; leave the clip out"
    )


# the compact npz form, and the form in which DD-Net's authors publish one split


def read_compact(path: Path) -> Clips:
    """Read our own npz form."""
    fields = _npz(path)
    for name in ("poses", "lengths", "labels", "label_names", "is_test"):
        _field(path, fields, name)
    return _checked(path, **{name: fields[name] for name in Clips.__dataclass_fields__ if name in fields})


def _merged(paths: list[Path]) -> Clips:
    """One file for each split, all of the same clips: the place of a clip is found by its content."""
    first: Clips | None = None
    places: dict[tuple[bytes, int, int], int] = {}
    columns = []
    for path in paths:
        fields = _npz(path)
        whole = {
            name: np.concatenate([_field(path, fields, f"{part}_{name}") for part in ("train", "test")])
            for name in ("poses", "lengths", "labels")
        }
        in_test = np.arange(len(whole["labels"])) >= len(fields["train_labels"])
        names = _field(path, fields, "label_names")
        clips = _checked(path, **whole, label_names=names, is_test=in_test[:, np.newaxis])
        keys = _keys(clips)
        if first is None:
            first, places = clips, {key: place for place, key in enumerate(keys)}
        if places.keys() != set(keys) or clips.label_names.tolist() != first.label_names.tolist():
            raise ValueError(
                f"{path}: 'poses' and 'labels' are not the clips of {paths[0].name}; convert them one by one"
            )
        column = np.empty(len(first), bool)
        column[[places[key] for key in keys]] = in_test
        columns.append(column)
    assert first is not None
    return replace(first, is_test=np.stack(columns, axis=1))


def _keys(clips: Clips) -> list[tuple[bytes, int, int]]:
    """Content, label and a number that tells equal clips apart."""
    ends = np.cumsum(clips.lengths)
    seen: Counter[tuple[bytes, int]] = Counter()
    keys = []
    for start, end, label in zip(ends - clips.lengths, ends, clips.labels.tolist(), strict=True):
        key = clips.poses[start:end].tobytes(), label
        keys.append((*key, seen[key]))
        seen[key] += 1
    return keys


def _checked(path: Path, **fields: npt.NDArray[Any]) -> Clips:
    """Make the fields agree with each other and be of the right types."""

    def wrong(name: str, what: str) -> ValueError:
        return ValueError(f"{path}: {name!r} {what}; {_AGAIN}")

    poses, lengths, labels, names = (fields[n] for n in ("poses", "lengths", "labels", "label_names"))
    for name in ("lengths", "labels", "coarse_labels"):
        if name in fields and (fields[name].ndim != 1 or fields[name].dtype.kind not in "iu"):
            raise wrong(name, f"has shape {fields[name].shape} and dtype {fields[name].dtype}, not integers")
    for name in ("label_names", "coarse_label_names"):
        texts = fields.get(name, names)
        if texts.ndim != 1 or texts.dtype.kind != "U" or len(set(texts.tolist())) != len(texts):
            raise wrong(name, "is not a list of different names")
    if not len(lengths):
        raise wrong("lengths", "is empty")
    if lengths.min() < MIN_FRAMES:
        raise _too_short(f"{path}, clip {lengths.argmin()}", "poses", int(lengths.min()))
    if poses.ndim != 3 or poses.dtype.kind != "f" or len(poses) != lengths.sum():
        raise wrong(
            "poses", f"has shape {poses.shape} and dtype {poses.dtype}, not ({lengths.sum()}, J, D) of floats"
        )
    known = np.isfinite(poses).all((1, 2))
    if not known.all():
        ends = np.cumsum(lengths)
        clip = int(np.searchsorted(ends, np.argmin(known), side="right"))
        check_clip(poses[ends[clip] - lengths[clip] : ends[clip]], f"{path}, clip {clip}", "poses")
    if labels.shape != lengths.shape:
        raise wrong("labels", f"has {len(labels)} entries for {len(lengths)} clips")
    if labels.min() < 0 or labels.max() >= len(names):
        raise wrong("labels", f"is from {labels.min()} to {labels.max()} for {len(names)} 'label_names'")
    is_test = fields["is_test"]
    if is_test.dtype != bool or is_test.ndim != 2 or len(is_test) != len(labels) or not is_test.shape[1]:
        raise wrong(
            "is_test",
            f"has shape {is_test.shape} and dtype {is_test.dtype}, not bool of ({len(labels)}, splits)",
        )
    if ("coarse_labels" in fields) != ("coarse_label_names" in fields):
        raise wrong("coarse_labels", "and 'coarse_label_names' belong together, one of them is missing")
    if "coarse_labels" in fields:
        coarse, groups = fields["coarse_labels"], len(fields["coarse_label_names"])
        if len(coarse) != len(names) or coarse.min() < 0 or coarse.max() >= groups:
            raise wrong("coarse_labels", f"does not give each of {len(names)} classes one of {groups} groups")
    kinds = {"poses": np.float32, "lengths": np.int64, "labels": np.int64, "coarse_labels": np.int64}
    typed = {name: value.astype(kinds.get(name, value.dtype)) for name, value in fields.items()}
    return Clips(**typed)


def _field(path: Path, fields: Arrays, name: str) -> npt.NDArray[Any]:
    if name not in fields:
        raise ValueError(f"{path} has no {name!r}, only {shorten(fields)}; {_AGAIN}")
    return fields[name]


def _npz(path: Path) -> Arrays:
    try:
        check_headers(path)
        with path.open("rb") as stream:  # NumPy leaves open what it opened itself and could not read
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it is one array")
            return {name: file[name] for name in file.files}
    except _BROKEN as error:
        raise ValueError(f"{path} is no npz file of plain arrays ({error}); {_AGAIN}") from None


# JHMDB


def read_jhmdb(root: Path) -> Clips:
    """Read the official layout: ``joint_positions`` and ``splits``."""
    clips, labels, rows = [], [], []
    folders = (p for p in (root / "joint_positions").iterdir() if p.is_dir())
    actions = sorted(p.name for p in folders if not p.name.startswith("."))
    for label, action in enumerate(actions):
        listed = [_jhmdb_split(root / "splits" / f"{action}_test_split{k}.txt") for k in (1, 2, 3)]
        for k, split in enumerate(listed[1:], start=2):
            if odd := sorted(split.keys() ^ listed[0].keys()):
                raise ValueError(
                    f"{root / 'splits' / f'{action}_test_split{k}.txt'}: clip {odd[0]!r} is not in both this "
                    "file and that of split 1; take both from the same download"
                )
        for name in listed[0]:
            path = root / "joint_positions" / action / name / "joint_positions.mat"
            if not path.is_file():
                raise FileNotFoundError(
                    f"{root / 'splits' / f'{action}_test_split1.txt'} names the clip {name!r}, but {path} is "
                    "not there; unpack joint_positions again"
                )
            clips.append(_mat(path))
            labels.append(label)
            rows.append([split[name] for split in listed])
    return _clips(root / "joint_positions", clips, labels, actions, rows)


def _jhmdb_split(path: Path) -> dict[str, bool]:
    """Whether each clip is a test clip, in the order of the file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; unpack the splits beside joint_positions")
    found: dict[str, bool] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        name, _, part = line.strip().rpartition(" ")
        if not line.strip():
            continue
        if part not in ("1", "2") or not name:
            raise ValueError(
                f"{path}, line {number}: {line!r} is not a clip and 1 (train) or 2 (test)"
                "; unpack the splits again"
            )
        found[name.strip().removesuffix(".avi")] = part == "2"
    if not found:
        raise ValueError(f"{path} lists no clips, so the class is empty; unpack the splits again")
    return found


def _mat(path: Path) -> Poses:
    """JHMDB's joints relative to the frame's centre and the person's scale."""
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "JHMDB's .mat files need scipy; install it with: pip install 'longtail[train]'", name=error.name
        ) from error
    try:
        found = loadmat(path, variable_names=["pos_world"])
    except Exception as error:  # SciPy's reader fails in many ways on a damaged file
        raise ValueError(f"{path} is no MATLAB file ({error}); unpack joint_positions again") from None
    if "pos_world" not in found:
        raise ValueError(f"{path} has no 'pos_world'; give JHMDB's joint_positions.mat")
    poses = np.asarray(found["pos_world"])
    if poses.ndim != 3 or poses.shape[:2] != (2, 15):
        raise ValueError(
            f"{path}: 'pos_world' has shape {poses.shape}, JHMDB has (2, 15 joints, frames)"
            "; unpack joint_positions again"
        )
    return check_clip(poses.transpose(2, 1, 0), str(path), "pos_world")


# SHREC'17


def read_shrec(root: Path) -> Clips:
    """Read the official layout: the two lists of gestures, and one text file for each clip."""
    clips, fine, coarse, rows = [], [], [], []
    for part in ("train", "test"):
        for where, (gesture, finger, subject, essai, label14, label28, _) in _gestures(
            root / f"{part}_gestures.txt"
        ):
            clip = root / f"gesture_{gesture}/finger_{finger}/subject_{subject}/essai_{essai}"
            path = clip / "skeletons_world.txt"
            if not path.is_file():
                raise FileNotFoundError(f"{where} names the clip {path}, which is not there; unpack it again")
            clips.append(_text(path))
            fine.append(label28 - 1)
            coarse.append((label14 - 1, finger))
            rows.append([part == "test"])
    kinds = dict(zip(fine, coarse, strict=True))
    if len(kinds) != 28 or any(kinds[f] != c for f, c in zip(fine, coarse, strict=True)):
        raise ValueError(
            f"{root}: '28_labels' of the gesture lists has {len(kinds)} classes, or one of two gestures or "
            "fingers; SHREC'17 has 28, each one gesture with one finger or the whole hand"
        )
    names = [f"{_GESTURES[kinds[i][0]]}, {'finger' if kinds[i][1] == 1 else 'hand'}" for i in range(28)]
    clips_28 = _clips(root, clips, fine, names, rows)
    groups = np.array([kinds[i][0] for i in range(28)], np.int64)
    return replace(clips_28, coarse_labels=groups, coarse_label_names=np.array(_GESTURES))


def _gestures(path: Path) -> Iterator[tuple[str, list[int]]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; unpack SHREC'17 again")
    highest = (14, 2, None, None, 14, 28, None)
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        words = line.split()
        known = len(words) == 7 and all(word.isdecimal() for word in words)
        if not known or any(not 1 <= int(w) <= (h or 10**9) for w, h in zip(words, highest, strict=True)):
            raise ValueError(
                f"{path}, line {number}: {line!r} is not gesture (1 to 14), finger (1, 2), subject, essai, "
                "14_labels (1 to 14), 28_labels (1 to 28), size"
                "; unpack the data set again"
            )
        yield f"{path}, line {number},", [int(word) for word in words]


def _text(path: Path) -> Poses:
    """A line for each frame: 22 joints, each as x, y, z in metres."""
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    widths = np.array([len(line.split()) for line in lines], int)
    if (widths != 66).any():
        odd = int(np.argmax(widths != 66))
        raise ValueError(
            f"{path}, frame {odd}: 'skeletons_world' has {widths[odd]} numbers, SHREC'17 has 22 joints x 3"
            "; unpack the data set again"
        )
    try:
        numbers = np.array(" ".join(lines).split(), np.float32)
    except ValueError as error:
        raise ValueError(
            f"{path}: 'skeletons_world' is not all numbers ({error}); unpack the data set again"
        ) from None
    return check_clip(numbers.reshape(-1, 22, 3), str(path), "skeletons_world")


def _clips(
    path: Path,
    clips: list[Poses],
    labels: list[int],
    names: list[str],
    is_test: list[list[bool]],
) -> Clips:
    if not clips:
        raise ValueError(f"{path} holds no clips; unpack it again")
    return _checked(
        path,
        poses=np.concatenate(clips),
        lengths=np.array([len(clip) for clip in clips], np.int64),
        labels=np.array(labels, np.int64),
        label_names=np.array(names),
        is_test=np.array(is_test, bool),
    )
