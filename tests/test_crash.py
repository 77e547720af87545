"""Runs that end at a change to a file, or on a full disk, and what the next start makes of them.

A few points here; ``make campaign`` tries all of them, two processes, random kills and damaged files.
"""

import json
import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
CAMPAIGN = Path(__file__).parent / "campaign"
sys.path.insert(0, str(CAMPAIGN))

from harness import build_shim, same_end


@pytest.fixture
def crashed(tmp_path, finish):
    def crashing(*options):
        shim = build_shim(tmp_path)
        if shim is None:
            pytest.skip("needs Linux and a C compiler")
        environment = os.environ | {"LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        work = tmp_path / "work"
        done = finish([sys.executable, CAMPAIGN / "crash.py", work, *map(str, options)], env=environment)
        assert done.returncode == 0, done.stderr
        return work, [json.loads(line) for line in done.stdout.splitlines()]

    return crashing


@pytest.mark.parametrize("kind", ["images", "refit"])
def test_a_run_over_the_trainer_ends_alike_wherever_it_was_crashed(crashed, kind):
    work, lines = crashed("--kind", kind, "--points", 3)
    assert len(lines) == 3
    assert {line["wrong"] for line in lines} == {None}
    assert {line["at"] > 1 for line in lines} == {True, False}
    assert max(line["steps"] for line in lines) >= 4  # what was kept was gone on from
    weights = work / f"{kind}-whole" / "model.safetensors"  # a difference is seen
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert "other bits in" in same_end(work / "crashed", work / f"{kind}-whole")
    assert "damaged" in same_end(work / f"{kind}-whole", work / "crashed")


def test_a_full_disk_is_said_whichever_library_wrote(crashed):
    """At points where safetensors, torch.save and we ourselves write."""
    _, lines = crashed("--kind", "images", "--points", 8, "--full")
    assert {line["wrong"] for line in lines} == {None}
