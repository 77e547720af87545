"""What was measured right and faster, by kind of GPU: "auto" takes nothing else there.

measured.json is made from results/benchmarks/*cuda*.json by ``python benchmarks/gpu.py table``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Measured", "Table", "gpu", "table"]


@dataclass(frozen=True)
class Measured:
    """What pays on one kind of GPU.

    Attributes:
        fused: the loss forms whose fused path is at least as fast as the plain one in every case measured.
        graphs: whether training steps replayed as CUDA graphs are faster than plain ones.
    """

    fused: tuple[str, ...] = ()
    graphs: bool = False


Table = Mapping[str, Measured]
_NOTHING = Measured()


@functools.cache
def table() -> Table:
    """Return the packaged table: kinds of GPU by their name, as torch.cuda.get_device_name gives it."""
    text = Path(__file__).with_name("measured.json").read_text(encoding="utf-8")
    return {
        name: Measured(tuple(found["fused"]), found["graphs"]) for name, found in json.loads(text).items()
    }


def gpu(name: str, known: Table | None = None) -> Measured:
    """Return what pays on a kind of GPU; nothing does on one that was not measured."""
    return (table() if known is None else known).get(name, _NOTHING)
