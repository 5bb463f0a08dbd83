"""A fair lock: the first to join is next, even if others were ready before."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Turns"]


class Turns:
    """A queue: of those ready, the one that joined first is next, whichever began to wait first.

    None waits for one that joined earlier but is not ready: a slow fetch delays only itself.
    """

    def __init__(self) -> None:
        self._places = itertools.count()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._taken = False

    def join(self) -> int:
        """Take the next place in the order."""
        return next(self._places)

    @asynccontextmanager
    async def turn(self, place: int) -> AsyncIterator[None]:
        """Wait for the turn and hold it."""
        if self._taken:
            ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (place, ready))
            try:
                await ready
            except asyncio.CancelledError:
                if ready.done() and not ready.cancelled():
                    self._pass_on()  # The turn arrived in the same moment.
                raise
        self._taken = True
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """Pass the turn to the next in order. It stays taken, so that none cuts in."""
        while self._waiting:
            _, ready = heapq.heappop(self._waiting)
            if not ready.done():
                ready.set_result(None)
                return
        self._taken = False
