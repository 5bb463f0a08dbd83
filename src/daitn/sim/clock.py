"""Virtual time: jumps straight to the next event."""

from __future__ import annotations

import heapq
from collections.abc import Callable

__all__ = ["Clock"]


class Clock:
    """Runs actions in order of time; actions at the same time in the order they were scheduled."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._number = 0
        self._ahead: list[tuple[float, int, Callable[[], None]]] = []

    @property
    def now_s(self) -> float:
        """Seconds since the world began; never decreases."""
        return self._now_s

    def at(self, at_s: float, action: Callable[[], None]) -> None:
        """Schedule an action. Raises `ValueError` for a time that has passed or is not a number."""
        if not at_s >= self._now_s:
            raise ValueError(f"it is {self._now_s} s, nothing can be scheduled at {at_s} s")
        self._number += 1
        heapq.heappush(self._ahead, (at_s, self._number, action))

    def after(self, after_s: float, action: Callable[[], None]) -> None:
        """Schedule an action `after_s` from now."""
        self.at(self._now_s + after_s, action)

    def step(self) -> bool:
        """Run the next action. False if there is none."""
        if not self._ahead:
            return False
        self._now_s, _, action = heapq.heappop(self._ahead)
        action()
        return True
