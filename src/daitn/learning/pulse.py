"""Signs of life of a worker: it reports progress, or it uses the CPU."""

from __future__ import annotations

import psutil

__all__ = ["MOST_SILENT_S", "STALL_S", "Pulse", "processor_s"]

STALL_S = 60.0
"""How long a worker may neither report progress nor use a processor: a minute covers a cold disk
and a machine short of memory."""
_MOST_EVERY_S = 5.0
"""Finding the children of a process requires a scan of all processes."""
_BUSY = 0.01
"""Minimum share of one processor that counts as work. A process that is stopped, or waits for a
lock that is never released, uses none; one that shares a loaded machine gets far more."""
MOST_SILENT_S = 3600.0
"""A worker that uses a processor but reports nothing for this long is in an endless loop: the
longest step without a report measures a model on a whole test set."""


class Pulse:
    """The pulse of one command. Times are seconds on a clock of the caller's."""

    def __init__(
        self, now_s: float, used_s: float, *, stall_s: float, silent_s: float = MOST_SILENT_S
    ) -> None:
        """`used_s`: processor time so far; `stall_s`: how long there may be no sign of life;
        `silent_s`: how long there may be no report of progress, while it uses a processor."""
        self._stall_s = stall_s
        self._most_silent_s = silent_s
        self.every_s = min(_MOST_EVERY_S, stall_s / 4.0)
        """How often to call `check`."""
        self._checked_s = now_s
        self._used_s = used_s
        self._idle_s = 0.0
        self._silent_s = 0.0

    def progressed(self) -> None:
        """The worker reported progress."""
        self._idle_s = self._silent_s = 0.0

    def check(self, now_s: float, used_s: float) -> str:
        """Why to kill the worker; empty if it is alive.

        A long gap between two checks counts as short: the node itself was held up, and has not yet
        read what its worker reported meanwhile.
        """
        passed_s = min(now_s - self._checked_s, 2.0 * self.every_s)
        busy = used_s - self._used_s >= _BUSY * passed_s
        self._checked_s, self._used_s = now_s, used_s
        self._idle_s = 0.0 if busy else self._idle_s + passed_s
        self._silent_s += passed_s
        if self._idle_s >= self._stall_s:
            return f"made no progress and used no processor for {self._idle_s:.0f} s"
        if self._silent_s >= self._most_silent_s:
            return f"reported no progress for {self._silent_s:.0f} s"
        return ""


def processor_s(pid: int, *, below: int = 0) -> float:
    """Processor time in seconds that a process and its descendants have used; 0 if it is gone.

    `below`: count only descendants this many generations below, without processes that merely watch
    others; or the lowest there are, while they prepare those below.
    """
    try:
        elders = [psutil.Process(pid)]
        for _ in range(below):
            elders = [child for elder in elders for child in elder.children()] or elders
        family = [m for elder in elders for m in (elder, *elder.children(recursive=True))]
    except psutil.Error:
        return 0.0
    used_s = 0.0
    for member in family:
        try:
            times = member.cpu_times()
        except psutil.Error:
            continue
        used_s += times.user + times.system
    return used_s
