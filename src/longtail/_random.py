"""All that is random: streams that follow from a seed and a purpose, the same on every machine and version.

Nothing here draws from a global generator.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: splitmix64's increment
WORD = 2**64 - 1  # the largest seed that `hashes` takes


def derive_seed(seed: int, epoch: int, purpose: str) -> int:
    """Return the seed of one random stream: a 63-bit hash that is the same on every machine and version."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, epoch: int, purpose: str) -> torch.Generator:
    """Return a CPU generator for one random stream, the same whatever device trains."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, epoch, purpose))


def draws(*key: int) -> np.random.Generator:
    """Return NumPy's generator for one random stream, as those that draw crops of pictures want it."""
    return np.random.default_rng(key)


def words(seed: int, epoch: int) -> np.random.PCG64:
    """Return a source of random 64-bit words, a stream that NumPy never changes."""
    return np.random.PCG64(np.random.SeedSequence((seed, epoch)))


def uniform(bits: np.random.PCG64, size: int) -> npt.NDArray[np.float64]:
    """Return numbers in [0, 1), made of raw words."""
    return (bits.random_raw(size) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def hashes(seed: int, length: int) -> npt.NDArray[np.uint64]:
    """Return a hash of (seed, index) for every index below ``length``, without any generator.

    Source: splitmix64's outputs after a start that is itself a hash of the seed; Steele, Lea and Flood, "Fast
    splittable pseudorandom number generators", OOPSLA 2014.
    """
    start = int(_mix(np.array([(seed + _GOLDEN) & WORD], dtype=np.uint64))[0])
    # one element, not a scalar: NumPy warns when scalar uint64 arithmetic wraps around
    step, offset = np.array([_GOLDEN], dtype=np.uint64), np.array([start], dtype=np.uint64)
    return _mix(offset + np.arange(1, length + 1, dtype=np.uint64) * step)


def _mix(word: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64's finaliser, a bijection of 64-bit words."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))
