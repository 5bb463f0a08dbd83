"""An event loop whose clock leaps to the next timer, so that what depends on times is certain."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

__all__ = ["LeapingLoop"]


class _Leaping(selectors.DefaultSelector):
    """Waits for no time: it passes at once."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0.0)
        if not ready and timeout:
            self.now_s += timeout
        return ready


class LeapingLoop(asyncio.SelectorEventLoop):
    """For what waits for timers alone."""

    def __init__(self) -> None:
        self._leaping: Any = _Leaping()
        super().__init__(self._leaping)

    def time(self) -> float:
        return float(self._leaping.now_s)
