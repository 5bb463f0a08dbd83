"""Virtual time: what happens next happens at once."""

from __future__ import annotations

import heapq
from collections.abc import Callable

__all__ = ["Clock"]


class Clock:
    """Runs actions in the order of their times; those of one time in the order of their setting."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._number = 0
        self._ahead: list[tuple[float, int, Callable[[], None]]] = []

    @property
    def now_s(self) -> float:
        """Seconds since the world began; never goes back."""
        return self._now_s

    def at(self, at_s: float, action: Callable[[], None]) -> None:
        """Do it then. Raises `ValueError` for a time that has passed, or is none."""
        if not at_s >= self._now_s:
            raise ValueError(f"it is {self._now_s} s, nothing can be done at {at_s} s any more")
        self._number += 1
        heapq.heappush(self._ahead, (at_s, self._number, action))

    def after(self, after_s: float, action: Callable[[], None]) -> None:
        """Do it `after_s` from now."""
        self.at(self._now_s + after_s, action)

    def step(self) -> bool:
        """Do what comes next. False: nothing does."""
        if not self._ahead:
            return False
        self._now_s, _, action = heapq.heappop(self._ahead)
        action()
        return True
