"""Duplicates: exact ones by digests, probable ones by distance; time and memory grow with the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from longtail.auditing.samples import SIDE, Content, Look, UnreadableImageError
from longtail.sources.counted import needs

CHUNK: Final = 256  # samples that a thread takes at a time
BLOCK: Final = 4096  # vectors compared at a time
_AXES: Final = 12  # by which near vectors are found
_NEAR: Final = 5  # pairs kept of each sample
_TRIES: Final = (8, 64, 512)  # neighbours looked at, more where all of them are near

Progress = Callable[[int, int], None]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Seen:
    """What a look at all samples leaves.

    Attributes:
        fine: the number of each sample's fine digest; -1 where it could not be read.
        coarse: likewise of the coarse one.
        small: small pictures, uint8 of shape (N, 8, 8, 3), or None.
        unreadable: why, by index.
    """

    fine: Indices
    coarse: Indices
    small: npt.NDArray[np.uint8] | None
    unreadable: dict[int, str]


def look(content: Content, number: int, jobs: int, progress: Progress | None = None) -> Seen:
    """Look at every sample once, in threads: decoding and digests release Python's lock."""
    joblib = needs("joblib", "an audit needs", "train")
    digests = np.zeros((2, number), "V16")
    small = np.zeros((number, SIDE, SIDE, 3), np.uint8) if content.pictures else None
    unreadable: dict[int, str] = {}

    def some(start: int) -> Iterator[tuple[int, Look | str]]:
        def one(index: int) -> Look | str:
            try:
                return content.look(index)
            except UnreadableImageError as error:
                return str(error)

        return iter([(index, one(index)) for index in range(start, min(start + CHUNK, number))])

    chunks = (joblib.delayed(some)(start) for start in range(0, number, CHUNK))
    done = 0
    for found in joblib.Parallel(jobs, prefer="threads", return_as="generator", pre_dispatch="2*n_jobs")(
        chunks
    ):
        for index, seen in found:
            done += 1
            if isinstance(seen, str):
                unreadable[index] = seen
                continue
            digests[0, index], digests[1, index] = seen.fine, seen.coarse
            if small is not None and seen.small is not None:
                small[index] = seen.small
        if progress is not None:
            progress(done, number)
    numbers = [np.unique(of_kind, return_inverse=True)[1].reshape(-1).astype(np.int64) for of_kind in digests]
    bad = list(unreadable)
    for of_kind in numbers:
        of_kind[bad] = -1
    return Seen(numbers[0], numbers[1], small, unreadable)


def alike(numbers: Indices) -> list[Indices]:
    """Return the places of every number that stands more than once, those of -1 left out."""
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-2))
    groups = (g for g in np.split(order, starts[1:]) if len(g) > 1 and numbers[g[0]] >= 0)
    return sorted(groups, key=lambda g: int(g[0]))


def near_pairs(
    vectors: Callable[[Any], npt.NDArray[np.float32]], places: Indices, similarity: float, jobs: int
) -> tuple[Indices, npt.NDArray[np.float64]]:
    """Return pairs of samples that are alike, and how much.

    Two vectors are as alike as 1 - d^2 / 2, d their distance: their cosine where both have length 1. All
    pairs are found up to the five nearest of each sample: a tree over the twelve axes of most variance gives
    candidates, among which no pair can be missing since leaving axes out only brings vectors nearer.

    Args:
        vectors: gives those of some places.
        places: of the samples compared.
        similarity: at which two are alike.
        jobs: threads.

    Returns:
        Pairs of places, the smaller first, of shape (P, 2), and their similarities, most alike first.
    """
    empty = np.empty((0, 2), np.int64), np.empty(0)
    if len(places) < 2:
        return empty
    spatial = needs("scipy.spatial", "probable duplicates need", "report")
    blocks = [places[i : i + BLOCK] for i in range(0, len(places), BLOCK)]
    first = vectors(blocks[0])
    width = first.shape[1]
    total, square = np.zeros(width), np.zeros((width, width))
    for block in blocks:
        v = vectors(block).astype(np.float64)
        total += v.sum(0)
        square += v.T @ v
    mean = total / len(places)
    axes = np.linalg.eigh(square / len(places) - np.outer(mean, mean))[1][:, -min(_AXES, width) :]
    projected = np.concatenate([(vectors(block) - mean) @ axes for block in blocks])
    tree = spatial.cKDTree(projected)
    reach = np.sqrt(2 - 2 * similarity) + 1e-6
    found: list[Indices] = []
    values: list[npt.NDArray[np.float64]] = []
    for start in range(0, len(places), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(places)))
        for tries in _TRIES:
            k = min(tries, len(places))
            near = tree.query(projected[rows], k, distance_upper_bound=reach, workers=jobs)[1].reshape(
                len(rows), k
            )
            full = near[:, -1] < len(places)
            last = k == len(places) or tries == _TRIES[-1]
            take = np.ones(len(rows), bool) if last else ~full
            pairs, alikes = _verified(vectors, places, rows[take], near[take], similarity)
            found.append(pairs)
            values.append(alikes)
            rows = rows[~take]
            if not len(rows):
                break
    pairs, alikes = np.concatenate(found), np.concatenate(values)
    pairs.sort(axis=1)
    pairs, chosen = np.unique(pairs, axis=0, return_index=True)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -alikes[chosen]))
    return pairs[order], alikes[chosen][order]


def _verified(
    vectors: Callable[[Any], npt.NDArray[np.float32]],
    places: Indices,
    rows: Indices,
    near: Indices,
    similarity: float,
) -> tuple[Indices, npt.NDArray[np.float64]]:
    """Keep the nearest five of each row's candidates, by the whole vectors."""
    at = np.repeat(np.arange(len(rows)), near.shape[1])
    other = near.reshape(-1)
    good = (other < len(places)) & (other != rows[at])
    at, other = at[good], other[good]
    value = np.empty(len(at))
    for start in range(0, len(at), BLOCK):
        part = slice(start, start + BLOCK)
        a, b = vectors(places[rows[at[part]]]), vectors(places[other[part]])
        value[part] = 1 - ((a - b).astype(np.float64) ** 2).sum(1) / 2
    keep = value >= similarity - 1e-6
    at, other, value = at[keep], other[keep], value[keep]
    order = np.lexsort((other, -value, at))
    at, other, value = at[order], other[order], value[order]
    starts = np.flatnonzero(np.diff(at, prepend=-1))
    rank = np.arange(len(at)) - np.repeat(starts, np.diff(np.append(starts, len(at))))
    best = rank < _NEAR
    pairs = np.stack([places[rows[at[best]]], places[other[best]]], axis=1)
    return pairs.astype(np.int64), np.minimum(value[best], 1.0)
