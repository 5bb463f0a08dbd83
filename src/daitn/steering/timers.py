"""Timers of pending objects."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["Timers"]

KeyT = TypeVar("KeyT")
QUEUES = 3
LEAST_TIMERS = 1024


class Timers(Generic[KeyT]):
    """Keys by time, earliest first.

    A forwarder sets a few per object, nearly all of them for one of a few durations: how long to
    wait for an answer, how long to keep one. Timers of one duration arrive in order, so a queue
    holds them; those that fit the end of no queue go to a heap.
    """

    def __init__(self, is_current: Callable[[float, KeyT], bool]) -> None:
        """`is_current` says whether a timer still counts. Others are dropped now and then."""
        self._is_current = is_current
        self._queues: tuple[deque[tuple[float, KeyT]], ...] = tuple(deque() for _ in range(QUEUES))
        self._heap: list[tuple[float, KeyT]] = []
        self._most = LEAST_TIMERS
        self.kept = 0
        """Number of timers, including outdated ones."""

    def put(self, at_s: float, key: KeyT) -> None:
        """Add a timer."""
        self.kept += 1
        if self.kept > self._most:
            self._compact()
        for queue in self._queues:
            if not queue or queue[-1][0] <= at_s:
                queue.append((at_s, key))
                return
        heapq.heappush(self._heap, (at_s, key))

    def next_s(self) -> float:
        """When the next timer may fire."""
        return min(
            (line[0][0] for line in (*self._queues, self._heap) if line), default=float("inf")
        )

    def due(self, now_s: float) -> Iterator[KeyT]:
        """The keys whose time has come, each once, unless its timer is outdated."""
        for queue in self._queues:
            while queue and queue[0][0] <= now_s:
                yield from self._fired(queue.popleft())
        while self._heap and self._heap[0][0] <= now_s:
            yield from self._fired(heapq.heappop(self._heap))

    def _fired(self, timer: tuple[float, KeyT]) -> Iterator[KeyT]:
        self.kept -= 1
        if self._is_current(*timer):
            yield timer[1]

    def _compact(self) -> None:
        """Drop outdated timers: most objects are answered long before they time out."""
        for line in (*self._queues, self._heap):
            current = [timer for timer in line if self._is_current(*timer)]
            line.clear()
            line.extend(current)
        heapq.heapify(self._heap)
        self.kept = sum(map(len, self._queues)) + len(self._heap)
        self._most = max(LEAST_TIMERS, 4 * self.kept)
