"""Limits of a visit: most are checked from outside, which can name the exceeded limit; the kernel
enforces those for which a check would come too late."""

from __future__ import annotations

import math
import os
import resource
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from daitn.learning.gpus import has_gpu
from daitn.learning.sandbox.policy import Limits
from daitn.objects.errors import LimitExceeded

__all__ = ["LOOK_EVERY_S", "Watch", "exceeded", "hold"]

LOOK_EVERY_S = 0.05
"""A process that writes to fresh memory takes some 100 MB in this time (2 GB/s, measured)."""
_FILES_EVERY = 20
"""Number of checks of a process between two checks of its files."""
_MOST_FILES = 10_000
_OPEN_FILES = 1024
_PROCESSES = 1024
"""Including threads."""
_MEMORY_GRACE = 2
"""The kernel counts reserved memory, the watch counts used memory."""
_MEMORY_GRACE_BYTES = 1 << 30
"""Stacks of threads and the allocator's reserve."""

_WORDS = {
    "memory_bytes": "{:.0f} bytes of memory",
    "cpu_s": "{:g} s of processor time",
    "time_s": "{:g} s",
    "file_bytes": "{:.0f} bytes of files",
}


def exceeded(limits: Limits, name: str) -> LimitExceeded:
    """The error of a visit that exceeded the limit called `name`."""
    most = _WORDS[name].format(getattr(limits, name))
    return LimitExceeded(
        f"the recipe exceeded its limit of {most}",
        field=name,
        fix="ask for less at once; the site's limits are its estimate for the configuration and "
        f"`sandbox.{name}` of its file",
    )


def hold(limits: Limits, *, processes: bool) -> None:
    """Have the kernel permanently enforce them for this process. `processes`: including their
    number, which it counts for a whole user without a separate namespace.

    Not processor time: a process with that limit reads its own in steps of several milliseconds, by
    which a site's speed came out three times as high (measured). The watch needs no help there.
    """
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_NOFILE, _OPEN_FILES)
    if processes:
        _set(resource.RLIMIT_NPROC, _PROCESSES)
    if limits.file_bytes:
        _set(resource.RLIMIT_FSIZE, limits.file_bytes)
    # Drivers of GPUs reserve more memory than there is, so no limit fits.
    if limits.memory_bytes and not has_gpu():
        most = _MEMORY_GRACE * limits.memory_bytes + _MEMORY_GRACE_BYTES
        _set(resource.RLIMIT_DATA, _status(os.getpid()).get("VmData", 0) + most)


def _set(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(which, (most, most))


class Watch:
    """Checks one visit from outside."""

    def __init__(self, pid: int, limits: Limits, writable: Iterable[str]) -> None:
        """To be created before the visit begins: what it has by then is not counted."""
        self._pid = pid
        self._limits = limits
        self._writable = tuple(writable)
        self._began_s = time.monotonic()
        self._before_bytes = _memory_bytes(pid)
        self._before_files = _size_bytes(self._writable)
        self._looks = 0

    def look(self, *, at_files: bool = False) -> LimitExceeded | None:
        """The limit that the visit has exceeded."""
        self._looks += 1
        limits = self._limits
        if limits.memory_bytes:
            took = _memory_bytes(self._pid) - self._before_bytes
            if took > limits.memory_bytes:
                return exceeded(limits, "memory_bytes")
        if limits.cpu_s and _processor_s(self._pid) > limits.cpu_s:
            return exceeded(limits, "cpu_s")
        if limits.time_s and time.monotonic() - self._began_s > limits.time_s:
            return exceeded(limits, "time_s")
        if limits.file_bytes and (at_files or self._looks % _FILES_EVERY == 0):
            wrote = _size_bytes(self._writable) - self._before_files
            if wrote > limits.file_bytes:
                return exceeded(limits, "file_bytes")
        return None


def _status(pid: int) -> dict[str, int]:
    """The sizes in `/proc/<pid>/status`, in bytes; empty if the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if line.endswith(" kB"))
    return {name: int(size.split()[0]) << 10 for name, size in pairs}


def _memory_bytes(pid: int) -> int:
    """Memory without a backing file; libraries are shared."""
    sizes = _status(pid)
    return sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)


def _processor_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _size_bytes(folders: Iterable[str]) -> float:
    """Size of all files in these folders; more than any limit if there are too many to count."""
    total = 0
    for count, path in enumerate(_files(folders)):
        if count > _MOST_FILES:
            return math.inf
        try:
            total += path.lstat().st_size
        except OSError:
            continue
    return total


def _files(folders: Iterable[str]) -> Iterator[Path]:
    for folder in folders:
        for parent, below, names in os.walk(folder):
            yield from (Path(parent, name) for name in (*below, *names))
