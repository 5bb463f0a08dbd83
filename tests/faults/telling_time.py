"""A process that tells how far its clocks are ahead of the true time: at once, and when its
standard input ends."""

from __future__ import annotations

import json
import sys
import time

from daitn.tools import clock

__all__ = ["main"]


def main() -> None:
    """Tell it."""
    _tell()
    sys.stdin.read()
    _tell()


def _tell() -> None:
    true_s = time.clock_gettime(time.CLOCK_REALTIME)
    wall_s = clock.wall_s() - true_s
    print(json.dumps([wall_s, clock.now_s() - true_s]), flush=True)
