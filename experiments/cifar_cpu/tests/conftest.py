"""As in the library's own tests: every random number follows from the test's name."""

import zlib

import pytest
import torch
from hypothesis import settings

settings.register_profile("house", max_examples=50, derandomize=True, deadline=None, database=None)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def _seed_torch(request):
    torch.manual_seed(zlib.crc32(request.node.nodeid.split("/")[-1].encode()))
