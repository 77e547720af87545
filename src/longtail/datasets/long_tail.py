"""Long-tailed profiles, the seeded subsets that follow them, and the in-memory data set they are cut from.

No random generator takes part: samples are ordered by a hash of (seed, index) in 64-bit integer arithmetic,
so a subset depends on neither the machine nor the version of any library.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks, _random
from longtail.datasets.kinds import KINDS
from longtail.labels import encode

_PROFILES = ("exponential", "step", "pareto")


def long_tail_counts(
    num_classes: int, max_count: int, imbalance_factor: float, profile: str = "exponential"
) -> npt.NDArray[np.int64]:
    """Size of every class in a long-tailed training set, largest first.

    Class i of C, with n = ``max_count`` and r = ``imbalance_factor``, gets, rounded down,

    - ``"exponential"``: ``n * (1/r)^(i / (C-1))``, the paper's profile;
    - ``"step"``: ``n`` in the first half of the classes (with the middle one), ``n / r`` in the others;
    - ``"pareto"``: ``n * (i+1)^(-a)`` with ``a = log r / log C``.

    Rounding down makes the factor of the result as large as asked or larger: 500 at factor 200 ends at 2,
    a true factor of 250.

    Args:
        num_classes: C, at least 1.
        max_count: Samples of class 0, from 1 to 2^53.
        imbalance_factor: Largest class over smallest class, from 1 (balanced) to ``max_count``.
        profile: ``"exponential"``, ``"step"`` or ``"pareto"``.

    Returns:
        int64 of shape (C,), never increasing; ``[max_count]`` for a single class.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of range, the profile is unknown, or a class would be left empty.

    Example:
        >>> long_tail_counts(10, 5000, 50).tolist()
        [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100]

    Source:
        Cui et al., CVPR 2019, section 5.1. Deviation: a product that is an integer up to float rounding
        counts as that integer, where plain truncation could lose one sample.
    """
    classes = _checks.integer("num_classes", num_classes, low=1)
    largest = _checks.integer("max_count", max_count, low=1, high=2**53, remedy="give the size of class 0")
    factor = _checks.number(
        "imbalance_factor",
        imbalance_factor,
        low=1,
        open_high=True,
        remedy="give the largest class size over the smallest, 1 for a balanced set",
    )
    _checks.choice("profile", profile, _PROFILES)

    index = np.arange(classes, dtype=np.float64)
    if classes == 1:
        return np.array([largest], dtype=np.int64)
    if profile == "exponential":
        sizes = largest * (1 / factor) ** (index / (classes - 1))
    elif profile == "step":
        sizes = np.where(index < classes / 2, largest, largest / factor)
    else:
        sizes = largest * (index + 1) ** (-math.log(factor) / math.log(classes))
    nearest = np.rint(sizes)
    counts = np.where(np.abs(sizes - nearest) <= 1e-13 * sizes, nearest, np.floor(sizes)).astype(np.int64)
    if counts[-1] < 1:
        raise ValueError(
            f"imbalance_factor {imbalance_factor!r} leaves class {classes - 1} without samples; the largest "
            f"that keeps it is max_count, {largest}"
        )
    return counts


def long_tail_subset(labels: npt.ArrayLike, counts: object, seed: int) -> npt.NDArray[np.int64]:
    """Choose ``counts[c]`` samples of every class c: the same ones everywhere, and nested.

    Every sample has one place in its class's order, given by seed and index; the first ``counts[c]`` are
    taken. Hence a steeper tail is a subset of a flatter one with the same seed.

    Args:
        labels: Integers of shape (N,), 0 .. C-1; a list, a NumPy array or a CPU tensor. Or text.
        counts: Integers of shape (C,), at least 0: how many samples of each class to take. Or a mapping or
            Series from class to count, as `evaluate` takes it; of a text label that it lacks, none are
            taken.
        seed: 0 to 2^64 - 1.

    Returns:
        Indices into ``labels``, int64, of shape (sum of counts,), ascending.

    Raises:
        TypeError: Labels, counts or seed are no integers.
        ValueError: A wrong shape, a label outside 0 .. C-1, a class with fewer samples than wanted, or a
            seed out of range.

    Example:
        >>> long_tail_subset([0, 1, 0, 1, 0, 1], [3, 1], seed=0).tolist()
        [0, 2, 4, 5]

    Source:
        The hash is the finaliser of splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
        generators", OOPSLA 2014.
    """
    labels, counts = _numbered(labels, counts)
    classes = _integers("labels", labels)
    named = _arrays.in_output_order("counts", counts)
    wanted = _integers("counts", list(named.values()) if isinstance(named, dict) else named)
    start = _checks.integer("seed", seed, low=0, remedy="give a whole number from 0 to 2**64 - 1")
    if start > _random.WORD:
        raise ValueError(f"seed must be below 2**64, got {seed}; give a whole number from 0 to 2**64 - 1")
    if wanted.min() < 0:
        raise ValueError(
            f"counts holds {wanted.min()} for class {wanted.argmin()}; give 0 or more for each class"
        )
    available = _class_sizes("labels", classes, len(wanted), f"counts has {len(wanted)} classes")
    if (available < wanted).any():
        short = int(np.argmax(available < wanted))
        raise ValueError(
            f"counts asks for {wanted[short]} samples of class {short}, but labels has {available[short]}; "
            f"ask for at most {available[short]}"
        )

    order = np.lexsort((_random.hashes(start, len(classes)), classes))
    ordered = classes[order]
    first = np.cumsum(available) - available
    rank = np.arange(len(classes)) - first[ordered]
    return np.sort(order[rank < wanted[ordered]]).astype(np.int64)


def hold_out(
    targets: npt.NDArray[np.int64], share: float, seed: int, groups: npt.NDArray[Any] | None = None
) -> npt.NDArray[np.int64]:
    """Choose samples to test on: about a share of every class, and of groups all samples or none.

    A class keeps at least one sample, or one group, to learn from; of a class that has only one, none is
    chosen. Groups come in an order of their own, given by the seed, those of the rarest classes first. At
    least one of each class is chosen, if it can be spared: where all go beyond the share, the one that does
    so least.

    Args:
        targets: Classes, int64 of shape (N,), 0 .. C-1.
        share: Between 0 and 1.
        seed: As in `long_tail_subset`.
        groups: One a sample, shape (N,), or None.

    Returns:
        Indices into ``targets``, int64, ascending.

    Raises:
        ValueError: No class can spare a sample, or a group.
    """
    sizes = np.bincount(targets)
    wanted = np.maximum(0, np.minimum(np.maximum(1, np.rint(share * sizes)), sizes - 1)).astype(np.int64)
    seed = _checks.integer("seed", seed, low=0, high=_random.WORD)
    if groups is None:
        if not wanted.any():
            raise ValueError("every class has one image, so that none can be held out; give test images")
        return long_tail_subset(targets, wanted, seed)
    _, codes = np.unique(groups, return_inverse=True)
    pairs, amounts = np.unique(np.stack([codes.reshape(-1), targets]), axis=1, return_counts=True)
    within: dict[int, list[tuple[int, int]]] = {}
    having: dict[int, list[int]] = {}
    for group, label, amount in zip(*pairs.tolist(), amounts.tolist(), strict=True):
        within.setdefault(group, []).append((label, amount))
        having.setdefault(label, []).append(group)
    places = _random.hashes(seed, len(within))
    held, left = np.zeros_like(wanted), np.bincount(pairs[1], minlength=len(sizes))
    chosen: set[int] = set()

    def beyond(group: int) -> float:
        """The largest share of what is wanted of a class, were this group chosen, too."""
        return float(max((held[c] + n) / max(1, wanted[c]) for c, n in within[group]))

    def spare(group: int) -> bool:
        return group not in chosen and all(left[c] > 1 for c, _ in within[group])

    def choose(group: int) -> None:
        chosen.add(group)
        for c, n in within[group]:
            held[c] += n
            left[c] -= 1

    for label in sorted(having, key=lambda c: (len(having[c]), c)):
        own = sorted(having[label], key=lambda g: (places[g], g))
        for group in own:
            if held[label] < wanted[label] and beyond(group) <= 1.25 and spare(group):
                choose(group)
        if not held[label] and (left_over := [g for g in own if spare(g)]):
            choose(min(left_over, key=beyond))
    if not chosen:
        raise ValueError(
            "groups: no group can be held out without a class losing its last one; give test images, or "
            "other groups"
        )
    return np.flatnonzero(np.isin(codes.reshape(-1), list(chosen))).astype(np.int64)


def subset_sha256(indices: npt.ArrayLike) -> str:
    """Fingerprint of a subset, to record beside results and compare across machines.

    Args:
        indices: Integers of shape (N,); their order counts.

    Returns:
        Hexadecimal SHA-256 of the indices as little-endian 64-bit integers.

    Raises:
        TypeError: The indices are no integers.
        ValueError: The indices are empty or not 1-D.

    Example:
        >>> subset_sha256([0, 1, 2, 4])[:16]
        '045487dc21a65255'
    """
    return hashlib.sha256(_integers("indices", indices).astype("<i8").tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and their classes.

    Args:
        inputs: Of shape (N, ...), any dtype.
        targets: Classes, integers of shape (N,), 0 or more.
        groups: One a sample, of any kind, shape (N,), or None: what belongs together, such as the pictures
            of a patient. Intervals of the test split count groups, not samples.

    Raises:
        TypeError: ``inputs`` is no array, or ``targets`` holds no integers.
        ValueError: The split is empty, the lengths differ or a target is negative.
    """

    inputs: npt.NDArray[Any]
    targets: npt.NDArray[Any]
    groups: npt.NDArray[Any] | None = None

    def __post_init__(self) -> None:
        for name in ("inputs", "targets"):
            if not isinstance(value := getattr(self, name), np.ndarray):
                raise TypeError(
                    f"{name} must be a NumPy array, got {_checks.describe(value)}; use numpy.asarray"
                )
        _integers("targets", self.targets)
        if self.inputs.ndim < 1 or len(self.inputs) != len(self.targets):
            raise ValueError(
                f"inputs has shape {self.inputs.shape} for {len(self.targets)} targets; give as many"
            )
        if self.targets.min() < 0:
            raise ValueError(f"targets holds {self.targets.min()}; number the classes from 0")
        if self.groups is not None:
            object.__setattr__(self, "groups", np.asarray(self.groups))
            if self.groups.shape != self.targets.shape:
                raise ValueError(
                    f"groups has shape {self.groups.shape} for {len(self.targets)} targets; give one a sample"
                )

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split of the same classes, in memory.

    Args:
        name: What to call it in tables and files.
        train: The training split.
        test: The test split; inputs shaped as the training split's.
        class_names: One name per class, in the order of the targets.
        kind: What an input is: ``"images"`` (N, C, H, W), ``"vectors"`` of any shape, or what an application
            adds, such as ``"skeletons"``; networks and augmentations belong to one kind. None becomes
            ``"images"`` for 4-D inputs and ``"vectors"`` for others.
        arguments: What `load_images` was given, where it was a path: a finished run finds its data by it.

    Raises:
        ValueError: Input shapes differ or do not fit the kind, class names are missing or repeated, or a
            target has no name.

    Example:
        >>> from longtail.datasets import load
        >>> tail, indices = load("digits").long_tailed(10)
        >>> tail.class_counts.tolist()
        [124, 96, 74, 57, 44, 34, 26, 20, 16, 12]
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    kind: str | None = None
    arguments: Mapping[str, str | float] | None = None

    def __post_init__(self) -> None:
        if not self.class_names or len(set(self.class_names)) != len(self.class_names):
            raise ValueError(f"class_names is {self.class_names!r}; give one name per class, each once")
        if self.train.inputs.shape[1:] != self.test.inputs.shape[1:]:
            raise ValueError(
                f"test inputs have shape {self.test.inputs.shape[1:]} per sample, train inputs "
                f"{self.train.inputs.shape[1:]}; shape both alike"
            )
        axes = self.train.inputs.ndim
        if self.kind is None:
            object.__setattr__(self, "kind", "images" if axes == 4 else "vectors")
        elif KINDS[self.kind].axes not in (None, axes):
            raise ValueError(
                f"kind={self.kind!r} needs inputs of shape {KINDS[self.kind].layout}, got "
                f"{self.train.inputs.shape}; shape them so, or give kind='vectors'"
            )
        for part, split in (("train", self.train), ("test", self.test)):
            _class_sizes(
                f"{part} targets", split.targets, self.num_classes, f"{self.num_classes} class_names"
            )

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.class_names)

    @property
    def class_counts(self) -> npt.NDArray[np.int64]:
        """Samples of every class in the training split, int64 of shape (C,)."""
        return np.bincount(self.train.targets, minlength=self.num_classes).astype(np.int64)

    def long_tailed(
        self,
        imbalance_factor: float,
        *,
        profile: str = "exponential",
        seed: int = 0,
        max_count: int | None = None,
    ) -> tuple["Dataset", npt.NDArray[np.int64]]:
        """Cut a long tail out of the training split; the test split stays as it is.

        Args:
            imbalance_factor: Largest class over smallest class, at least 1.
            profile: As in `long_tail_counts`; class 0 is the largest.
            seed: As in `long_tail_subset`.
            max_count: Samples of class 0; the size of the smallest training class if None.

        Returns:
            The data set, its name ending in ``-lt`` and the factor (for the exponential profile) or in the
            profile and the factor, and the indices kept of the training split, int64, ascending.

        Raises:
            TypeError: As in `long_tail_counts` and `long_tail_subset`.
            ValueError: As in `long_tail_counts` and `long_tail_subset`.
        """
        largest = int(self.class_counts.min()) if max_count is None else max_count
        counts = long_tail_counts(self.num_classes, largest, imbalance_factor, profile)
        kept = long_tail_subset(self.train.targets, counts, seed)
        suffix = "lt" if profile == "exponential" else profile
        tail = replace(
            self,
            name=f"{self.name}-{suffix}{imbalance_factor:g}",
            train=Split(
                self.train.inputs[kept],
                self.train.targets[kept],
                None if self.train.groups is None else self.train.groups[kept],
            ),
        )
        return tail, kept


def _numbered(labels: Any, counts: Any) -> tuple[Any, Any]:
    """Return text labels as class indices, and counts by name as one for each class of the labels."""
    named = isinstance(counts, Mapping) or _arrays.is_series(counts)
    given = dict(counts.items()) if named else {}
    first = next(iter(labels), None) if hasattr(labels, "__iter__") else None
    if isinstance(first, str):
        names, codes = encode(labels)
        if not named:
            return codes, counts
        if unknown := [name for name, count in given.items() if name not in names and count]:
            raise ValueError(
                f"counts asks for samples of {_checks.shorten(unknown)}, which labels lacks; labels holds "
                f"{_checks.shorten(names)}"
            )
        return codes, [given.get(name, 0) for name in names]
    return labels, counts


def _integers(name: str, values: object) -> npt.NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name} has shape {array.shape}; give a 1-D array with at least one element")
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"{name} must hold integers, got {array.dtype}; number the classes from 0 as integers"
        )
    if array.dtype.itemsize == 8 and array.dtype.kind == "u" and array.max() > 2**63 - 1:
        raise ValueError(f"{name} holds {array.max()}; give values below 2**63")
    return array.astype(np.int64)


def _class_sizes(
    name: str, classes: npt.NDArray[Any], num_classes: int, reason: str
) -> npt.NDArray[np.int64]:
    for value in (classes.min(), classes.max()):
        if not 0 <= value < num_classes:
            raise ValueError(f"{name} holds {value}, but {reason}; number the classes 0 to {num_classes - 1}")
    return np.bincount(classes, minlength=num_classes).astype(np.int64)
