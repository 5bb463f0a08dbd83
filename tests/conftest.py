"""What holds for all tests."""

import os
import tempfile
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

# Networks that tests found are known to none of the user's commands, nor the user's to the tests.
os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="daitn-tests-")

# The processors are for other tests and for the processes that tests start: libraries that compute
# here do it on one thread, and none of it spins while it waits. Read when they are loaded.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

# Test workers state the width of their runner's terminal, at which commands would break lines.
os.environ.pop("COLUMNS", None)

# How long an example takes says more about what else runs on the machine than about the code.
settings.register_profile("daitn", deadline=None)
settings.load_profile("daitn")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest come first: no processor waits for another one's last file."""
    ranks: dict[Path, int] = {}
    for item in items:
        ranks[item.path] = min(_rank(item), ranks.get(item.path, _rank(item)))
    items.sort(key=lambda item: ranks[item.path])


def _rank(item: pytest.Item) -> int:
    names = ("slow", "processes")
    found = (rank for rank, name in enumerate(names) if item.get_closest_marker(name))
    return next(found, len(names))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as processors: tests wait for other processes, and for time to pass."""
    return max(1, (psutil.cpu_count() or 1) * 3 // 2)
