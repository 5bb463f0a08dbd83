"""How many retries a gateway allows itself, so that failures do not multiply load.

Shared by all queries of the gateway. Time is of any clock that never goes back, one for all calls.
"""

from __future__ import annotations

__all__ = ["RetryBudget"]

SHARE = 0.2
LEAST_PER_S = 10
WINDOW_S = 10
"""Retries may be a fifth of the queries of the last ten seconds, plus ten per second: the defaults
of Finagle's retry budget."""


class RetryBudget:
    """Counts queries and retries of the last `WINDOW_S` seconds, second by second."""

    def __init__(self) -> None:
        self._queries = [0] * WINDOW_S
        self._spent = [0] * WINDOW_S
        self._second = 0

    def deposit(self, now_s: float) -> None:
        """Count a query."""
        self._queries[self._slot(now_s)] += 1

    def spend(self, now_s: float) -> bool:
        """Take one retry, if one is left."""
        slot = self._slot(now_s)
        if sum(self._spent) >= SHARE * sum(self._queries) + LEAST_PER_S * WINDOW_S:
            return False
        self._spent[slot] += 1
        return True

    def _slot(self, now_s: float) -> int:
        second = int(now_s)
        for passed in range(self._second + 1, min(second, self._second + WINDOW_S) + 1):
            self._queries[passed % WINDOW_S] = self._spent[passed % WINDOW_S] = 0
        if second - self._second > WINDOW_S:
            self._queries, self._spent = [0] * WINDOW_S, [0] * WINDOW_S
        self._second = second
        return second % WINDOW_S
