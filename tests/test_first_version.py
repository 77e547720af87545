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


def same_machine():
    info = Path("/proc/cpuinfo")
    names = info.read_text().splitlines() if info.exists() else [platform.processor()]
    processor = next((n.split(":")[1].strip() for n in names if n.startswith("model name")), "")
    here = (processor, torch.__version__, torch.backends.cpu.get_cpu_capability())
    return here == (KNOWN["processor"], KNOWN["torch"], KNOWN["capability"])


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
        rough = {"bf16": 0.05}.get(recipe.precision, 1e-3)
        assert [m.loss for m in run.history] == pytest.approx(known["losses"], rel=rough)
