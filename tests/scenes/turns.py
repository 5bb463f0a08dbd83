"""How long an event loop is held up, by a clock that stands still while its process does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from types import TracebackType

__all__ = ["LongestTurn"]

_TICK_S = 0.005


class LongestTurn:
    """The longest turn of the loop, in seconds of a thread beside it: a process that gets no
    processor counts for neither."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._ticks = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick)

    async def goes_by(self) -> None:
        """Give the loop a turn."""
        before = self._ticks
        await asyncio.sleep(_TICK_S)
        self.longest_s = max(self.longest_s, _TICK_S * (self._ticks - before))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Give it turns until a condition holds."""
        while not holds():
            await self.goes_by()

    def _tick(self) -> None:
        while not self._ended.is_set():
            time.sleep(_TICK_S)
            self._ticks += 1

    def __enter__(self) -> LongestTurn:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
