"""Waiting for what others do, of which no event tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["PATIENCE_S", "until", "wait_until"]

PATIENCE_S = 150.0
"""After this a test gives up. It says nothing of how soon a thing has to happen, so it is long: a
machine that has other work is no failure."""
T = TypeVar("T")
_NEVER = "it never came to that"


def wait_until(holds: Callable[[], T | None]) -> T:
    """Wait for a condition, in a test without an event loop; what met it, so that nobody looks a
    second time at what may be gone by then.

    Looking takes at most a third of the time: what is waited for needs the processors, too.
    """
    end_s = time.monotonic() + PATIENCE_S
    while True:
        looked_s = time.monotonic()
        if found := holds():
            return found
        now_s = time.monotonic()
        assert now_s < end_s, _NEVER
        time.sleep(max(0.05, 2.0 * (now_s - looked_s)))


async def until(holds: Callable[[], object]) -> None:
    """Wait for a condition, in an event loop."""
    end_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end_s, _NEVER
        await asyncio.sleep(0.005)
