"""Turns at something that one can have at a time: first come, first served."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Turns"]


class Turns:
    """Of those that wait, the one that came first is next, whoever was ready to wait first.

    Nobody waits for who came earlier and is not ready: a slow fetch holds up none but itself.
    """

    def __init__(self) -> None:
        self._came = itertools.count()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._taken = False

    def come(self) -> int:
        """A place in the order."""
        return next(self._came)

    @asynccontextmanager
    async def turn(self, place: int) -> AsyncIterator[None]:
        """Wait for the turn, and have it."""
        if self._taken:
            ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (place, ready))
            try:
                await ready
            except asyncio.CancelledError:
                if ready.done() and not ready.cancelled():
                    self._pass_on()  # It was given the turn in that moment.
                raise
        self._taken = True
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """The turn stays taken for the next one, so that nobody comes between."""
        while self._waiting:
            _, ready = heapq.heappop(self._waiting)
            if not ready.done():
                ready.set_result(None)
                return
        self._taken = False
