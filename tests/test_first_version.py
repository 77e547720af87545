"""What the first version trained is trained still: runs of commit 9a802dc, before methods had a room.

The weights are compared to the bit on the processor and torch that made them; elsewhere kernels add in
another order, and the losses are compared as near as that allows.
"""

import hashlib
import json
import platform
from pathlib import Path

import pytest
import torch

from longtail import recipes
from longtail.training import train

KNOWN = json.loads((Path(__file__).parent / "data" / "first_version_runs.json").read_text())


def processor():
    """What chooses the kernels: the first processor's family, model, stepping and instructions, as a hash."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().partition("\n\n")[0].splitlines() if info.exists() else [platform.processor()]
    wanted = ("vendor_id", "cpu family", "model", "stepping", "flags")
    kept = sorted(line for line in lines if line.split("\t")[0].strip() in wanted)
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()


def same_machine():
    return (processor(), torch.__version__) == (KNOWN["processor"], KNOWN["torch"])


def bits(model):
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("known", KNOWN["runs"], ids=lambda known: json.dumps(known["changes"]))
def test_a_run_of_the_first_version(known):
    recipe = recipes.digits(**known["changes"])
    assert recipe.hash == known["recipe"]
    run = train(recipe, device="cpu", threads=1)
    if same_machine():
        assert bits(run.model) == known["weights"]
        assert [m.loss for m in run.history] == known["losses"]
        assert run.evaluation.error == known["error"]
    else:
        rough = {"bf16": 0.1}.get(recipe.precision, 0.01)
        assert [m.loss for m in run.history] == pytest.approx(known["losses"], rel=rough)
