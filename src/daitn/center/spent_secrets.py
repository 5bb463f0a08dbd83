"""Used one-time secrets and ended sessions: neither is accepted again.

It is in the journal before anybody gets an answer, and stays there until it would have expired:
what is over stays over when the control centre restarts, or another one takes its place.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Final

from daitn.objects.wire import decode, encode
from daitn.tools.fabric.turns import TooOften
from daitn.tools.journal.protocol import Journal

__all__ = ["MOST_SPENT", "SpentSecrets"]

MOST_SPENT: Final = 10_000
"""Limit on what is remembered at the same time."""
_KIND: Final = "spent"
_DIGITS: Final = 2
"""Of the digest, that name a record: the journal has at most 256 of them, each rewritten alone."""


class SpentSecrets:
    """Remembers them, in the journal and in memory, by their digests."""

    def __init__(self, journal: Journal, wall_s: Callable[[], float]) -> None:
        self._journal = journal
        self._wall_s = wall_s
        self._until_s: dict[str, dict[str, float]] = {}
        """Times of expiry, by record and digest."""

    def start(self) -> None:
        """Load what is stored. Raises `Corrupt`: nobody is let in by mistake."""
        stored = self._journal.all(_KIND)
        self._until_s = {name: decode(text, dict[str, float]) for name, text in stored.items()}

    def __contains__(self, secret: str) -> bool:
        digest = _digest(secret)
        return digest in self._until_s.get(digest[:_DIGITS], {})

    def __len__(self) -> int:
        return sum(map(len, self._until_s.values()))

    def add(self, secret: str, until_s: float) -> None:
        """Spend it: it counts at once, and is stored on return. `until_s`: when it would expire
        anyway. Raises `StorageFull` and `Unreachable` if it would be forgotten at the next start,
        and `TooOften` if there are very many."""
        if len(self) >= MOST_SPENT:
            self._until_s = {name: self._valid(known) for name, known in self._until_s.items()}
        if len(self) >= MOST_SPENT:
            first_s = min(until_s for known in self._until_s.values() for until_s in known.values())
            raise TooOften("opening and closing sessions", math.ceil(first_s - self._wall_s()))
        digest = _digest(secret)
        name = digest[:_DIGITS]
        self._until_s[name] = {**self._valid(self._until_s.get(name, {})), digest: until_s}
        self._journal.put(_KIND, name, encode(self._until_s[name]))

    def _valid(self, known: Mapping[str, float]) -> dict[str, float]:
        now_s = self._wall_s()
        return {digest: until_s for digest, until_s in known.items() if until_s > now_s}


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
