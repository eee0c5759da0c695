import os

import pytest


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """A few images need no further processes, which take seconds to start; test_pool.py tests those."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
