"""What holds for all tests."""

import os

import pytest
from hypothesis import settings

# The processors are for other tests and for the processes that tests start: libraries that compute
# here do it on one thread, and none of it spins while it waits. Read when they are loaded.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

# How long an example takes says more about what else runs on the machine than about the code.
settings.register_profile("daitn", deadline=None)
settings.load_profile("daitn")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that take longest come first: no processor waits for another one's last test."""
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    names = ("slow", "xdist_group", "processes")
    found = (rank for rank, name in enumerate(names) if item.get_closest_marker(name))
    return next(found, len(names))
