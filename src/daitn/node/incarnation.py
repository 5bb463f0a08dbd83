"""When a node started, later each time: who hears of two starts takes the later for the newer.

The time is marked again and again while the node runs. After a start, everything that it says is of
later than all that it said before, though the wall clock may have been set back by hours.
"""

from __future__ import annotations

import math
from pathlib import Path

from daitn.files.atomic import replace_file
from daitn.objects.errors import StorageFull

__all__ = ["MARKED_EVERY_S", "mark", "started_at_s"]

_NAME = "started"
MARKED_EVERY_S = 60.0


def started_at_s(state: Path, now_s: float) -> float:
    """`now_s`, or after all of the life before where the clock has gone back since.

    Raises `StorageFull` where it cannot be kept.
    """
    try:
        before_s = float((state / _NAME).read_text())
    except (OSError, ValueError):
        before_s = -math.inf
    went_back = math.isfinite(before_s) and now_s <= before_s
    # The last mark is no older than that.
    at_s = before_s + MARKED_EVERY_S if went_back else now_s
    mark(state, at_s)
    return at_s


def mark(state: Path, now_s: float) -> None:
    """It is this late. Raises `StorageFull` where that cannot be kept."""
    path = state / _NAME
    try:
        replace_file(path, repr(now_s).encode())
    except OSError as error:
        raise StorageFull(
            f"{path} cannot be written: {error.strerror}",
            fix="free room in the site's state folder, and check that it may be written",
        ) from None
