"""Fixtures for the tests of the bridges."""

import sys

import pytest


@pytest.fixture(autouse=True)
def one_torch_thread():
    """Small networks on many threads mostly wait."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
