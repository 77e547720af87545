"""On a GPU "auto" takes only what a result file of that kind of GPU shows right and faster."""

import copy
import importlib.util
import json
from pathlib import Path

import pytest
import torch

from longtail import _measured, recipes
from longtail._measured import Measured
from longtail.losses import fast
from longtail.losses.fast import Setting, fused
from longtail.models import build
from longtail.training import loop

ROOT = Path(__file__).parents[1]
TABLE = {"Good": Measured(("focal", "softmax"), graphs=True), "Half": Measured(("focal",))}
SOFTMAX = Setting("softmax", 0.0, 0.0, -100, name="softmax")
FOCAL = Setting("sigmoid", 2.0, 0.0, -100, name="focal")
LARGE = fast.SOFTMAX_FROM


@pytest.mark.parametrize(
    ("setting", "elements", "dimensions", "place", "gpu", "pays"),
    [
        (SOFTMAX, LARGE, 2, "cuda", "Good", True),
        (SOFTMAX, 1, 4, "cuda", "Good", True),
        (SOFTMAX, LARGE, 2, "cuda", "Half", False),
        (FOCAL, LARGE, 2, "cuda", "Half", True),
        (FOCAL._replace(gamma=0.0, name="sigmoid"), LARGE, 2, "cuda", "Good", False),
        (FOCAL, LARGE, 2, "cuda", "Never seen", False),
        (FOCAL, LARGE, 2, "cuda", "", False),
        (SOFTMAX, LARGE, 2, "cpu", "", True),
        (SOFTMAX, LARGE - 1, 2, "cpu", "", False),
        (SOFTMAX, LARGE, 4, "cpu", "", False),
        (SOFTMAX._replace(gamma=2.0, name="softmax_focal"), 1, 4, "cpu", "", True),
        (FOCAL, 1, 2, "cpu", "", True),
        (FOCAL, LARGE, 2, "mps", "", False),
    ],
)
def test_the_fused_path_is_taken_where_it_was_measured(setting, elements, dimensions, place, gpu, pays):
    assert fast.pays(setting, elements, dimensions, place, gpu, TABLE) is pays


def test_nothing_is_taken_on_a_gpu_that_was_not_measured():
    assert _measured.gpu("Never seen", TABLE) == Measured(fused=(), graphs=False)
    assert _measured.gpu("Never seen") == Measured()


@pytest.mark.parametrize("acceleration", loop.ACCELERATIONS)
@pytest.mark.parametrize("gpu", [*TABLE, "Never seen"])
def test_graphs_are_taken_where_they_were_measured_or_asked_for(acceleration, gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: gpu)
    monkeypatch.setattr(_measured, "table", lambda: TABLE)
    recipe = recipes.digits()
    model = build(recipe.model, in_channels=1, num_classes=10)
    taken = loop._captures(acceleration, recipe, model, torch.device("cuda"))
    wanted = acceleration in ("graphs", "compile") or (acceleration == "auto" and gpu == "Good")
    assert taken is wanted or acceleration == "native"


@pytest.mark.parametrize("gpu", ["Good", "Never seen"])
def test_the_kind_of_gpu_is_asked_for_once(gpu, monkeypatch):
    asked = []

    def name(device):
        asked.append(device)
        return gpu

    monkeypatch.setattr(torch.cuda, "get_device_name", name)
    monkeypatch.setattr(_measured, "table", lambda: TABLE)
    fused.gpu_name.cache_clear()
    try:
        assert [fused.gpu_name(torch.device("cuda", 7)) for _ in range(3)] == [gpu] * 3
    finally:
        fused.gpu_name.cache_clear()
    assert len(asked) == 1


# ---- the table


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks" / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(loss, name, times_ours=1.0):
    return {"loss": loss, "name": name, "times_ours": times_ours}


RESULTS = {
    "tests": {"finished": True, "exit_status": 0, "device": "Some GPU"},
    "losses": {
        "finished": True,
        "device": "Some GPU",
        "skipped": [{"case": "large", "reason": "14 matrices of 9.9 GiB do not fit"}],
        "cases": {
            "small": [row("softmax", "ours"), row("softmax", "ours, torch", 0.9)],
            "large": [
                *(row("softmax", "ours"), row("softmax", "ours, torch", 2.0)),
                *(row("focal", "ours"), row("focal", "ours, torch", 3.0), row("focal", "kornia", 0.5)),
            ],
        },
    },
    "throughput": {
        "finished": True,
        "device": "Some GPU",
        "rows": [
            {"case": f"{precision} {way}, 1 run", "images_per_second": rate}
            for precision in ("fp32", "bf16")
            for way, rate in (("none", 100.0), ("graphs", 150.0))
        ],
    },
}


def change(path, value):
    changed = copy.deepcopy(RESULTS)
    *parents, last = path
    place = changed
    for key in parents:
        place = place[key]
    place[last] = value
    return changed


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (RESULTS, {"Some GPU": {"fused": ["focal"], "graphs": True}}),
        ({}, {}),
        (change(["tests", "exit_status"], 1), {}),
        (change(["tests", "finished"], False), {}),
        (change(["tests", "device"], "Another GPU"), {}),
        (change(["losses", "finished"], False), {"Some GPU": {"fused": [], "graphs": True}}),
        (
            change(["losses", "skipped"], [{"case": "x", "reason": "RuntimeError: no"}]),
            {"Some GPU": {"fused": [], "graphs": True}},
        ),
        (
            change(["losses", "cases", "large", 2], {"loss": "focal", "name": "ours", "failed": "NaN"}),
            {"Some GPU": {"fused": [], "graphs": True}},
        ),
        (
            change(["losses", "cases", "small", 1, "times_ours"], 1.1),
            {"Some GPU": {"fused": ["focal", "softmax"], "graphs": True}},
        ),
        (
            change(["throughput", "rows", 3], {"case": "bf16 graphs, 1 run", "failed": "no"}),
            {"Some GPU": {"fused": ["focal"], "graphs": False}},
        ),
        (
            change(["throughput", "device"], "Another GPU"),
            {"Some GPU": {"fused": ["focal"], "graphs": False}},
        ),
    ],
)
def test_the_table_says_what_the_results_show(results, expected, benchmark, tmp_path):
    files = {stage: tmp_path / f"{stage}.json" for stage in RESULTS}
    for stage, content in results.items():
        files[stage].write_text(json.dumps(content))
    assert benchmark.measured(files) == expected


def test_every_gpu_of_the_packaged_table_has_its_results(benchmark):
    known = json.loads((ROOT / "src" / "longtail" / "measured.json").read_text())
    shown = benchmark.measured(benchmark.FILES)
    assert {name: known.get(name) for name in shown} == shown
    assert _measured.table() == {n: Measured(tuple(e["fused"]), e["graphs"]) for n, e in known.items()}
    assert bool(known) <= any(ROOT.joinpath("results", "benchmarks").glob("*cuda*.json"))
