"""Handles the answer to a bulk request off the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["Taken"]

T = TypeVar("T")


class Taken(Generic[T]):
    """One answer: one thread processes it, or the request fails, whichever comes first."""

    def __init__(self, take: Callable[[bytes], T]) -> None:
        self._take = take
        self._outcome: Future[T] = Future()
        self._claim = threading.Lock()

    def take(self, read: Callable[[], bytes]) -> None:
        """Process the answer that `read` returns, on this thread; none if the request is over."""
        if not self._claimed():
            return
        try:
            outcome = self._take(read())
        except BaseException as error:
            self._outcome.set_exception(error)
        else:
            self._outcome.set_result(outcome)

    def fail(self, error: Exception) -> None:
        """End the request, unless its answer is being processed. Thread-safe."""
        if self._claimed():
            self._outcome.set_exception(error)

    async def outcome(self) -> T:
        """The result or error of `take`. When cancelled, waits for one that is running."""
        try:
            return await asyncio.wrap_future(self._outcome)
        except asyncio.CancelledError:
            if not self._outcome.cancel():
                await asyncio.gather(asyncio.wrap_future(self._outcome), return_exceptions=True)
            raise

    def _claimed(self) -> bool:
        return self._claim.acquire(blocking=False) and self._outcome.set_running_or_notify_cancel()
