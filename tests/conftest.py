"""Fixtures of all tests. Every random number in a test follows from the test's name."""

import contextlib
import gc
import importlib.util
import multiprocessing
import os
import signal
import subprocess
import sys
import uuid
import zlib

import numpy as np
import pytest
from hypothesis import settings

# the same examples on every run and machine; no timing, since machines differ
settings.register_profile("house", max_examples=50, derandomize=True, deadline=None, database=None)
settings.load_profile("house")

# the workers of a data loader: a fork of a process that has computed with threads may crash or hang
multiprocessing.set_start_method("forkserver")
multiprocessing.set_forkserver_preload(["torch", "longtail.datasets.images"])


def pytest_addoption(parser):
    parser.addoption(
        "--backend",
        default="auto",
        choices=("auto", "torch", "fused"),
        help="where the losses' battery takes the plain path, the fused one (with TRITON_INTERPRET=1 the "
        "kernels) wherever it applies, or either as users get it",
    )
    parser.addoption(
        "--one-in",
        type=int,
        default=1,
        metavar="N",
        help="take one test of N, and of each file the same ones on every run and machine",
    )


def pytest_collection_modifyitems(config, items):
    one_in = config.getoption("--one-in")
    if one_in > 1:
        kept = [item for item in items if zlib.crc32(item.nodeid.split("/")[-1].encode()) % one_in == 0]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept


@pytest.fixture
def seed(request):
    """The crc32 of the test's name: its own, and the same on every machine."""
    return zlib.crc32(request.node.nodeid.split("/")[-1].encode())


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


@pytest.fixture
def start():
    """Start a process. With the test it ends, and all that came of it, sessions of their own or not.

    No clock ends it before: on a machine that does other work everything takes longer, and a process that
    hangs is for the limit of whoever runs the tests.
    """
    mark, jobs = uuid.uuid4().hex, []

    def starting(command, env=None, **options):
        environment = {**(os.environ if env is None else env), "LONGTAIL_TEST": mark}
        jobs.append(subprocess.Popen(command, env=environment, **options))
        return jobs[-1]

    yield starting
    while jobs and (left := _marked(mark)):
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        for job in jobs:
            job.communicate()  # closes its pipes


def _marked(mark):
    """The processes that live and were started with a mark, or by one that was."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("LONGTAIL_TEST") == mark:
                found.append(process)
    return found


@pytest.fixture
def finish(start):
    """Run a process to its end, and return its exit status and texts."""

    def finishing(command, **options):
        job = start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        texts = job.communicate()
        return subprocess.CompletedProcess(command, job.returncode, *texts)

    return finishing


@pytest.fixture(scope="module")
def one_thread():
    """Threads only wait for one another on tensors as small as those of tests."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _has_cuda():
    """Whether tests may use a CUDA device; Triton's interpreter runs kernels on the CPU."""
    if importlib.util.find_spec("torch") is None or os.environ.get("TRITON_INTERPRET") == "1":
        return False
    import torch

    return torch.cuda.is_available()


def pytest_generate_tests(metafunc):
    """Run a test that takes ``device`` on the CPU, and where there is one on a CUDA device."""
    if "device" in metafunc.fixturenames:
        cuda = [pytest.param("cuda", marks=pytest.mark.cuda)] if _has_cuda() else []
        metafunc.parametrize("device", ["cpu", *cuda])


def pytest_report_header():
    return "CUDA: " + ("yes" if _has_cuda() else "no device, so the CUDA halves of tests are not collected")


@pytest.fixture(autouse=True)
def _seed_torch(seed):
    """Seed torch's global generator, where a test has imported torch: layers draw their weights from it."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)


@pytest.fixture
def registries_stay():
    """Take away again what a test registers: other tests of this process would find it."""
    from longtail._registry import Registry, load_applications

    load_applications()
    known = [entry for entry in gc.get_objects() if type(entry) is Registry]
    before = [(registry, dict(registry._entries)) for registry in known]
    yield
    for registry, entries in before:
        registry._entries.clear()
        registry._entries.update(entries)
