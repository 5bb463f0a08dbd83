"""When something is to be done about which object."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["Timers"]

KeyT = TypeVar("KeyT")
QUEUES = 3
LEAST_ALARMS = 1024


class Timers(Generic[KeyT]):
    """Times with keys, the earliest first.

    A forwarder sets a few per object, and nearly all for one of a few terms: how long an answer is
    waited for, how long it is kept. Those of one term come in the order of their times, for which a
    queue will do; what fits the end of none goes to a heap.
    """

    def __init__(self, stands: Callable[[float, KeyT], bool]) -> None:
        """`stands` tells whether an alarm still counts. Others are dropped now and then."""
        self._stands = stands
        self._queues: tuple[deque[tuple[float, KeyT]], ...] = tuple(deque() for _ in range(QUEUES))
        self._others: list[tuple[float, KeyT]] = []
        self._most = LEAST_ALARMS
        self.kept = 0
        """How many are kept, those that do not count any more among them."""

    def put(self, at_s: float, key: KeyT) -> None:
        """One more."""
        self.kept += 1
        if self.kept > self._most:
            self._tidy()
        for queue in self._queues:
            if not queue or queue[-1][0] <= at_s:
                queue.append((at_s, key))
                return
        heapq.heappush(self._others, (at_s, key))

    def next_s(self) -> float:
        """When the next one may be due."""
        return min(
            (line[0][0] for line in (*self._queues, self._others) if line), default=float("inf")
        )

    def due(self, now_s: float) -> Iterator[KeyT]:
        """The keys whose time has come, each once, unless it does not count any more."""
        for queue in self._queues:
            while queue and queue[0][0] <= now_s:
                yield from self._taken(queue.popleft())
        while self._others and self._others[0][0] <= now_s:
            yield from self._taken(heapq.heappop(self._others))

    def _taken(self, alarm: tuple[float, KeyT]) -> Iterator[KeyT]:
        self.kept -= 1
        if self._stands(*alarm):
            yield alarm[1]

    def _tidy(self) -> None:
        """Most objects are answered long before they are given up."""
        for line in (*self._queues, self._others):
            left = [alarm for alarm in line if self._stands(*alarm)]
            line.clear()
            line.extend(left)
        heapq.heapify(self._others)
        self.kept = sum(map(len, self._queues)) + len(self._others)
        self._most = max(LEAST_ALARMS, 4 * self.kept)
