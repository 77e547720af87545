"""Fixtures of all tests. Every random number in a test follows from the test's name."""

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


@pytest.fixture(autouse=True)
def _seed_torch(seed):
    """Seed torch's global generator, where a test has imported torch: layers draw their weights from it."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)
