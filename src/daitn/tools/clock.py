"""The time of this process: monotonic seconds since the Unix epoch, without jumps.

The wall clock is read once; after that, elapsed time is counted. So setting the machine's clock
moves no deadline, and later messages are always newer. Times that others check against their own
wall clocks, such as those of passes, use `wall_s`.
"""

from __future__ import annotations

import time

__all__ = ["elapsed_s", "not_before", "now_s", "wall_s"]

_BOOT_TIME = getattr(time, "CLOCK_BOOTTIME", None)
"""Keeps counting while the machine sleeps, if available."""


def wall_s() -> float:
    """The wall clock's time. It may be set to anything at any time."""
    return time.time()  # noqa: TID251 - all other modules ask here


def elapsed_s() -> float:
    """Seconds since an arbitrary moment that is fixed for the process."""
    return time.monotonic() if _BOOT_TIME is None else time.clock_gettime(_BOOT_TIME)


_epoch_s = wall_s() - elapsed_s()


def now_s() -> float:
    """The process's time."""
    return _epoch_s + elapsed_s()


def not_before(at_s: float) -> None:
    """Move the clock forward to at least `at_s`, a time recorded by an earlier run."""
    global _epoch_s
    _epoch_s = max(_epoch_s, at_s - elapsed_s())
