"""Fixtures of all tests. Every random number in a test follows from the test's name."""

import importlib.util
import os
import sys
import zlib

import numpy as np
import pytest
from hypothesis import settings

# the same examples on every run and machine; no timing, since machines differ
settings.register_profile("house", max_examples=50, derandomize=True, deadline=None, database=None)
settings.load_profile("house")


def pytest_addoption(parser):
    parser.addoption(
        "--backend",
        default="auto",
        choices=("auto", "torch", "fused"),
        help="where the losses' battery takes the plain path, the fused one (with TRITON_INTERPRET=1 the "
        "kernels) wherever it applies, or either as users get it",
    )


@pytest.fixture
def seed(request):
    """The crc32 of the test's name: its own, and the same on every machine."""
    return zlib.crc32(request.node.nodeid.split("/")[-1].encode())


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


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
