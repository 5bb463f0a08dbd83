"""Spending of keys shared by several gateways at the others, as summed by a control centre."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import msgspec

from daitn.objects.usage import MOST_ROWS, KeyRow, KeySpent

__all__ = ["KeyReport", "SharedKeys"]

MOST_KEYS = 10_000
"""Limit on keys with remembered reports."""
_FRESH = 2.0
"""A report is fresh for this many intervals between statements."""


class KeyReport(msgspec.Struct, frozen=True):
    """A control centre's report on a key."""

    own: KeySpent
    """Spent here by then."""
    others: KeySpent
    """Spent at all other gateways, as reported by them."""
    at_s: float
    """On a monotonic clock."""


class SharedKeys:
    """The keys used here lately, and reports about them. All methods belong to the event loop."""

    def __init__(self, every_s: float, now_s: Callable[[], float]) -> None:
        """`every_s`: interval between statements. `now_s`: a monotonic clock."""
        self._fresh_s, self._now_s = _FRESH * every_s, now_s
        self._reports: dict[str, KeyReport] = {}
        self._used: dict[str, None] = {}
        """Keys used since the last statement."""
        self.hurry = asyncio.Event()
        """Set when a statement should be sent at once."""

    def report_on(self, key: str) -> tuple[KeyReport | None, bool]:
        """The report on a key used here, and whether it is fresh; a new one is requested soon, and
        at once if it is not."""
        found = self._reports.get(key)
        fresh = found is not None and self._now_s() - found.at_s <= self._fresh_s
        if not fresh and key not in self._used:
            self.hurry.set()
        self.mark_used(key)
        return found, fresh

    def mark_used(self, key: str) -> None:
        """Report the spending of a key."""
        if len(self._used) < MOST_KEYS:
            self._used[key] = None

    @property
    def is_stated(self) -> bool:
        return not self._used

    def begin(self, spent: Callable[[str], KeySpent]) -> tuple[KeyRow, ...]:
        """For the keys used here, what was spent here, to be reported; see `acknowledge`."""
        self.hurry.clear()
        return tuple(KeyRow(key, spent(key)) for key in list(self._used)[:MOST_ROWS])

    def acknowledge(
        self,
        stated: Iterable[KeyRow],
        others: Iterable[KeyRow],
        spent: Callable[[str], KeySpent],
    ) -> None:
        """A control centre has the statement, and reports what the same keys spent elsewhere;
        earlier versions report nothing. `spent`: spending at this gateway so far."""
        elsewhere, now_s = {row.key: row.spent for row in others}, self._now_s()
        for row in stated:
            if spent(row.key).total == row.spent.total:
                self._used.pop(row.key, None)
            if row.key in elsewhere:
                self._reports.pop(row.key, None)
                self._reports[row.key] = KeyReport(row.spent, elsewhere[row.key], now_s)
        for key in list(self._reports)[: max(0, len(self._reports) - MOST_KEYS)]:
            del self._reports[key]
