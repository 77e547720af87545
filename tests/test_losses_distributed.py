"""One optimizer step means one loss, however its batch is cut: over accumulation steps or processes.

Run as a script, this file starts the processes of the distributed test: ``WORLD_SIZE STORE RESULT``.
"""

import multiprocessing
import os
import sys
from multiprocessing import connection
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from longtail import ClassBalancedLoss

COUNTS = [900, 90, 30, 5]
OPTIONS = {
    "softmax": {"loss": "softmax"},
    "sigmoid": {"loss": "sigmoid"},
    "focal": {"loss": "focal", "gamma": 0.5},
    "softmax_focal": {"loss": "softmax_focal", "gamma": 2.0},
    "smoothed": {"loss": "softmax", "label_smoothing": 0.1},
    "callable": {"loss": nn.CrossEntropyLoss(reduction="none")},
}
TARGETS = ("index", "ignored", "soft")
CASES = [(o, n, t) for o in OPTIONS for n in ("samples", "weights") for t in TARGETS]
SIZES = {1: (12,), 2: (5, 7), 3: (4, 4, 4)}  # uneven over processes


def data(kind):
    generator = torch.Generator().manual_seed(7)
    input = torch.randn(12, 6, generator=generator, dtype=torch.float64)
    target = torch.randint(4, (12,), generator=generator)
    if kind == "ignored":
        target[[0, 1, 2, 3, 7]] = -100  # all of the first of three parts
    if kind == "soft":
        target = torch.randn(12, 4, generator=generator, dtype=torch.float64).softmax(1)
    return input, target


def model():
    layer = nn.Linear(6, 4).double()
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 1, 24).reshape(4, 6).sin())
        layer.bias.copy_(torch.linspace(-1, 1, 4))
    return layer


def criterion_of(name, normalizer):
    return ClassBalancedLoss(COUNTS, normalizer=normalizer, **OPTIONS[name])


def gradient(layer):
    return torch.cat([p.grad.reshape(-1) for p in layer.parameters()]).numpy()


def gradient_in_parts(case, parts, *, globally=True):
    """Gradient of the batch in some parts, with the global denominator or as a mean of means."""
    name, normalizer, kind = case
    criterion, layer, (input, target) = criterion_of(name, normalizer), model(), data(kind)
    total = sum(criterion.count(t) for t in target.split(SIZES[parts]))
    for x, t in zip(input.split(SIZES[parts]), target.split(SIZES[parts]), strict=True):
        loss = criterion(layer(x), t, denominator=total) if globally else criterion(layer(x), t) / parts
        loss.backward()
    return gradient(layer)


def whole_gradient(case):
    name, normalizer, kind = case
    layer, (input, target) = model(), data(kind)
    criterion_of(name, normalizer)(layer(input), target).backward()
    return gradient(layer)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_three_accumulated_batches_of_4_are_one_of_12(case):
    np.testing.assert_allclose(gradient_in_parts(case, 3), whole_gradient(case), rtol=1e-7, atol=1e-7)


def test_a_mean_of_means_is_something_else():
    for case in (
        ("softmax", "samples", "ignored"),
        ("softmax", "weights", "index"),
        ("focal", "weights", "soft"),
    ):
        assert abs(gradient_in_parts(case, 3, globally=False) - whole_gradient(case)).max() > 1e-3


def test_peers_12_a_mean_summed_over_three_steps_is_three_times_too_large():
    case = ("softmax", "samples", "index")
    summed = 3 * gradient_in_parts(case, 3, globally=False)
    np.testing.assert_allclose(summed, 3 * whole_gradient(case), rtol=1e-9)
    np.testing.assert_allclose(gradient_in_parts(case, 3), whole_gradient(case), rtol=1e-7)


@pytest.mark.skipif(not dist.is_available(), reason="torch was built without torch.distributed")
def test_two_processes_give_the_gradient_of_one(tmp_path, finish):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    store, result = tmp_path / "store", tmp_path / "gradients.npz"
    command = [sys.executable, __file__, "2", str(store), str(result)]
    done = finish(command, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    with np.load(result) as gradients:
        assert set(gradients) == {"-".join(case) for case in CASES}
        for case in CASES:
            expected = whole_gradient(case)
            np.testing.assert_allclose(gradients["-".join(case)], expected, 1e-7, 1e-7, err_msg=str(case))


def one_process(rank, world, store, result):
    dist.init_process_group("gloo", init_method=Path(store).as_uri(), rank=rank, world_size=world)
    gradients = {}
    for name, normalizer, kind in CASES:
        criterion, layer = criterion_of(name, normalizer), DistributedDataParallel(model())
        input, target = (x.split(SIZES[world])[rank] for x in data(kind))
        total = criterion.count(target)
        dist.all_reduce(total)
        criterion(layer(input), target, denominator=total / world).backward()
        gradients["-".join((name, normalizer, kind))] = gradient(layer)
    if rank == 0:
        np.savez(result, **gradients)
    dist.barrier()
    dist.destroy_process_group()


def all_processes(world, store, result):
    # from fresh processes: one that was forked from a process with threads may wait for them for ever
    context = multiprocessing.get_context("spawn")
    left = [context.Process(target=one_process, args=(rank, world, store, result)) for rank in range(world)]
    for process in left:
        process.start()
    failed = []
    while left and not failed:  # no clock ends this: one rank that fails does, for the others wait for it
        connection.wait([process.sentinel for process in left])
        ended = [process for process in left if process.exitcode is not None]
        failed = [process.exitcode for process in ended if process.exitcode]
        left = [process for process in left if process not in ended]
    for process in left:
        process.kill()
    sys.exit(f"exit codes {failed}" if failed else 0)


if __name__ == "__main__":
    all_processes(int(sys.argv[1]), sys.argv[2], sys.argv[3])
