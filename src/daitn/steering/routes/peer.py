"""What a neighbour was told, and what it is to be told next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

import msgspec

from daitn.steering.routes.offers import far_apart
from daitn.steering.wire.summaries import INFINITE, RouteEntry, Update

__all__ = ["EXPIRY_S", "REFRESH_S", "Peer"]

GAP_S = 0.01
"""What changes within this time goes out together."""
LATER_S = 1.0
"""Likewise what can wait, from when the first of it changed."""
REFRESH_S = 30.0
"""All that is known is told so often, to heal whatever went wrong."""
EXPIRY_S = 3.5 * REFRESH_S
"""What was heard of a neighbour counts for so long after it last said all it knows."""
MOVED = 0.05
"""Distances that changed by a smaller share wait for the refresh."""


class PendingNews(IntEnum):
    """How soon a neighbour is to hear of a change."""

    NONE = 0
    LATER = 1
    NOW = 2


@dataclass(slots=True)
class Peer:
    """A neighbour, from when the link to it came up."""

    heard_s: float
    """When it last said all it knows, or the link came up."""
    whole_s: float
    """When it is to be told everything."""
    domain: str | None = None
    """Of its site; None: the same as here."""
    greeted: bool = False
    """Whether it said all it knows since the link came up."""
    sent_s: float = -INFINITE
    told: dict[str, RouteEntry] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    """Origins of which something may have changed."""
    asked: set[str] = field(default_factory=set)
    """Those that it asked for: it does not have what it was told of them."""
    awaited: set[str] = field(default_factory=set)
    """Those of which it waits for a later number."""
    later: set[str] = field(default_factory=set)
    """Origins of which something changed that can wait ..."""
    later_s: float = INFINITE
    """... until then."""

    def due_s(self) -> float:
        due_s = min(self.whole_s, self.later_s)
        return min(due_s, self.sent_s + GAP_S) if self.pending else due_s

    def greet(self, now_s: float) -> None:
        """It said all it knows. What it was told before it knew of the link was lost: again."""
        self.heard_s = now_s
        if not self.greeted:
            self.greeted, self.whole_s = True, now_s
            self.told.clear()

    def repeat(self, origin: str) -> None:
        """It asked for what it should know."""
        self.asked.add(origin)
        self.pending.add(origin)

    def await_number(self, origin: str) -> None:
        """It is to hear of a later number of an origin at once."""
        self.awaited.add(origin)
        self.pending.add(origin)

    def tell(
        self,
        known: Callable[[str], RouteEntry | None],
        reaches: Callable[[str], bool],
        origins: Iterable[str],
        now_s: float,
    ) -> Update | None:
        """What to tell it now. `known` says what it should know of an origin, `reaches` whether it
        said that it reaches it otherwise, `origins` which there are. What it should not know any
        more is retracted."""
        whole = now_s >= self.whole_s
        entries: list[RouteEntry] = []
        waiting = self.later - self.pending
        self.later.clear()
        for origin in sorted({*origins, *self.told} if whole else self.pending):
            entry, asked = known(origin), origin in self.asked
            before = self.told.get(origin)
            news = PendingNews.NOW if whole or asked else self._news(origin, before, entry, reaches)
            if news is PendingNews.NOW:
                entries += self._said(origin, entry, again=asked)
            elif news is PendingNews.LATER:
                waiting.add(origin)
        if waiting and not whole:
            if entries or now_s >= self.later_s:
                for origin in sorted(waiting):
                    entries += self._said(origin, known(origin))
            else:
                self.later = waiting
        self.pending.clear()
        self.asked.clear()
        self.awaited.clear()
        self.later_s = min(self.later_s, now_s + LATER_S) if self.later else INFINITE
        if whole:
            entries = [entry for entry in entries if entry.distance_s < INFINITE]
            self.whole_s = now_s + REFRESH_S
        elif not entries:
            return None
        self.sent_s = now_s
        return Update(tuple(entries), whole=whole)

    def _said(
        self, origin: str, entry: RouteEntry | None, *, again: bool = False
    ) -> Iterator[RouteEntry]:
        """How it is said, from when on it is told. `again`: it does not have what it was told."""
        before = self.told.pop(origin, None)
        if entry is not None:
            self.told[origin] = entry
            yield _short(None if again else before, entry)
        elif before is not None:
            yield RouteEntry(origin, before.seqno, INFINITE, before.edition)

    def _news(
        self,
        origin: str,
        before: RouteEntry | None,
        entry: RouteEntry | None,
        reaches: Callable[[str], bool],
    ) -> PendingNews:
        """What can wait harms nobody who does not know it yet (RFC 8966, section 3.7.2): later
        numbers that nobody asked for, smaller distances, and one way more or less for who has
        another. Who believes in a way that is gone or too far must know."""
        if before is None or entry is None:
            if before is entry:
                return PendingNews.NONE
            waits = reaches(origin) and origin not in self.awaited
            return PendingNews.LATER if waits else PendingNews.NOW
        if not _same_offers(before, entry):
            return PendingNews.NOW
        moved = far_apart(before.distance_s, entry.distance_s, share=MOVED, least=0.0)
        if before.seqno != entry.seqno:
            return PendingNews.NOW if origin in self.awaited else PendingNews.LATER
        if moved:
            return PendingNews.NOW if entry.distance_s > before.distance_s else PendingNews.LATER
        return PendingNews.NONE


def _same_offers(before: RouteEntry, entry: RouteEntry) -> bool:
    return before.edition == entry.edition and before.offers == entry.offers


def _short(before: RouteEntry | None, entry: RouteEntry) -> RouteEntry:
    if before is None or not _same_offers(before, entry):
        return entry
    return msgspec.structs.replace(entry, offers=None)
