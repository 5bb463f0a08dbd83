"""Main memory of this machine, or of the container that this process runs in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from daitn.objects.errors import StorageFull

__all__ = [
    "CACHE_SHARE",
    "LEAST_CACHE_TOKENS",
    "PROCESS_BYTES",
    "Loading",
    "free_bytes",
    "own_bytes",
    "total_bytes",
]

PROCESS_BYTES = 300 << 20
"""Memory of a process beside its model: 280 MB with transformers, 150 MB with PyTorch alone, 130 MB
with llama.cpp."""
CACHE_SHARE = 0.5
"""Share of the memory left beside the weights that a model uses to cache conversations."""
LEAST_CACHE_TOKENS = 512
"""With less room than for a short conversation, a model is not worth loading."""

_CGROUP = Path("/sys/fs/cgroup")


def total_bytes() -> int:
    """The total memory."""
    total = int(psutil.virtual_memory().total)
    limit = _limit()
    return total if limit is None else min(total, limit)


def free_bytes() -> int:
    """Memory available without evicting anything except file caches."""
    free = int(psutil.virtual_memory().available)
    limit = _limit()
    if limit is None:
        return free
    try:
        used = int((_CGROUP / "memory.current").read_text())
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return free
    read = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return max(0, min(free, limit - used + read))


def own_bytes() -> int:
    """Memory of this process that is not shared with others."""
    used = psutil.Process().memory_info()
    return int(used.rss - used.shared)


class Loading:
    """Memory reserved for models being loaded: it looks free until they have it."""

    def __init__(self) -> None:
        self._taken_bytes = 0

    @contextmanager
    def of(self, name: str, needed_bytes: int, *, field: str, fix: str) -> Iterator[None]:
        """Reserve the memory for loading a model. Raises `StorageFull` with `field` and `fix` if
        there is too little."""
        free = free_bytes() - self._taken_bytes
        if needed_bytes > free:
            raise StorageFull(
                f"{name} needs {needed_bytes} bytes of memory, but {max(0, free)} are free",
                field=field,
                fix=fix,
            )
        self._taken_bytes += needed_bytes
        try:
            yield
        finally:
            self._taken_bytes -= needed_bytes


def _limit() -> int | None:
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
    except OSError:
        return None
    return int(limit) if limit.isdigit() else None
