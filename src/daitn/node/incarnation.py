"""The start time of a node, which increases with each start: readers take the later as the newer.

A running node writes the time to disk now and then. So after a restart all its messages have later
times than before, even if the wall clock was set back by hours.
"""

from __future__ import annotations

import math
from pathlib import Path

from daitn.files.atomic import replace_file
from daitn.files.failed_writes import STATE_FIX
from daitn.files.state_folder import NodeState
from daitn.objects.errors import StorageFull

__all__ = ["MARKED_EVERY_S", "mark", "started_at_s"]

MARKED_EVERY_S = 60.0


def started_at_s(state: Path, now_s: float) -> float:
    """`now_s`, or a time after the previous run if the clock has been set back since.

    Raises `StorageFull` if it cannot be written.
    """
    try:
        before_s = float((state / NodeState.STARTED).read_text())
    except (OSError, ValueError):
        before_s = -math.inf
    went_back = math.isfinite(before_s) and now_s <= before_s
    # The previous run ended at most `MARKED_EVERY_S` after its last mark.
    at_s = before_s + MARKED_EVERY_S if went_back else now_s
    mark(state, at_s)
    return at_s


def mark(state: Path, now_s: float) -> None:
    """Write the time to disk. Raises `StorageFull` if that fails."""
    path = state / NodeState.STARTED
    try:
        replace_file(path, repr(now_s).encode())
    except OSError as error:
        raise StorageFull(
            f"{path} cannot be written: {error.strerror}",
            fix=STATE_FIX,
        ) from None
