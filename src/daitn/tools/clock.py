"""The time of this process: seconds since the Unix epoch that never go back and never leap.

The wall clock is read once, and what has passed since is counted. So a clock that is set meanwhile
makes no deadline shorter or longer, and what is said later is taken for newer. What others check
against their own wall clocks, as passes are, goes by `wall_s`.
"""

from __future__ import annotations

import time

__all__ = ["elapsed_s", "not_before", "now_s", "wall_s"]

_COUNTED = getattr(time, "CLOCK_BOOTTIME", None)
"""Goes on while the machine sleeps, where there is such a clock."""


def wall_s() -> float:
    """What the wall clock shows; it may be set at any time, to any."""
    return time.time()  # noqa: TID251 - all others ask here


def elapsed_s() -> float:
    """Seconds since some moment that is the same for the whole process."""
    return time.monotonic() if _COUNTED is None else time.clock_gettime(_COUNTED)


_epoch_s = wall_s() - elapsed_s()


def now_s() -> float:
    """The time."""
    return _epoch_s + elapsed_s()


def not_before(at_s: float) -> None:
    """It is this late at least: something of an earlier life of the process is of then."""
    global _epoch_s
    _epoch_s = max(_epoch_s, at_s - elapsed_s())
