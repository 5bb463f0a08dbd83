"""When a node started, later each time: who hears of two starts takes the later for the newer."""

from __future__ import annotations

import math
from pathlib import Path

from daitn.objects.errors import StorageFull
from daitn.tools.files.atomic import replace_file

__all__ = ["started_at_s"]

_NAME = "started"
_LEAST_S = 0.001


def started_at_s(state: Path, now_s: float) -> float:
    """`now_s`, or just after the start before where the clock has gone back since.

    Raises `StorageFull` where it cannot be kept.
    """
    path = state / _NAME
    try:
        before_s = float(path.read_text())
    except (OSError, ValueError):
        before_s = -math.inf
    at_s = max(now_s, before_s + _LEAST_S) if math.isfinite(before_s) else now_s
    try:
        replace_file(path, repr(at_s).encode())
    except OSError as error:
        raise StorageFull(
            f"{path} cannot be written: {error.strerror}",
            fix="free room in the site's state folder, and check that it may be written",
        ) from None
    return at_s
