"""Spending of keys at all gateways that accept them, as reported by these."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import add

import msgspec

from daitn.objects.identifiers import SiteId
from daitn.objects.usage import KeyRow, KeySpent
from daitn.objects.wire import decode, encode
from daitn.tools.journal.protocol import Journal

__all__ = ["KeySums"]

_KIND = "keys-spent"
MOST_KEYS = 10_000
"""Maximum number of keys of one gateway."""


class _Stated(msgspec.Struct, frozen=True):
    keys: dict[str, KeySpent]


class KeySums:
    """For each gateway, what it has reported for each unexpired key."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._stated: dict[SiteId, dict[str, KeySpent]] = {}

    def start(self) -> None:
        """Load the reported counts."""
        stored = self._journal.all(_KIND).items()
        self._stated = {SiteId(site): decode(one, _Stated).keys for site, one in stored}

    def take(self, site: SiteId, rows: Iterable[KeyRow], wall_s: float) -> tuple[KeyRow, ...]:
        """Take a gateway's report: each key's spending since it knows the key. Returns what all
        others have reported for the same keys. Both are on disk then. Raises `StorageFull`."""
        known = self._stated.get(site, {})
        now = {key: one for key, one in known.items() if one.until_s > wall_s}
        rows = tuple(rows)
        for row in rows:
            before = now.pop(row.key, KeySpent())  # Of a statement that comes late, it is more.
            now[row.key] = row.spent if row.spent.total >= before.total else before
        for key in list(now)[: max(0, len(now) - MOST_KEYS)]:
            del now[key]
        if any(known.get(row.key) != now.get(row.key) for row in rows):
            self._journal.put(_KIND, site, encode(_Stated(now)))
            self._stated[site] = now
        return tuple(KeyRow(row.key, self._elsewhere(site, row.key, wall_s)) for row in rows)

    def _elsewhere(self, site: SiteId, key: str, wall_s: float) -> KeySpent:
        others = (keys for other, keys in self._stated.items() if other != site)
        found = (keys[key].at(wall_s) for keys in others if key in keys)
        return reduce(add, found, KeySpent().at(wall_s))
