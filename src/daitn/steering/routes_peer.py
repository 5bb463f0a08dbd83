"""What a neighbour was told, and what it is to be told next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from daitn.steering.routes_offers import far_apart
from daitn.steering.wire.summaries import INFINITE, RouteEntry, Update

__all__ = ["EXPIRY_S", "REFRESH_S", "Peer"]

GAP_S = 0.05
"""What changes within this time goes out together."""
REFRESH_S = 30.0
"""All that is known is told so often, to heal whatever went wrong."""
EXPIRY_S = 3.5 * REFRESH_S
"""What was heard of a neighbour counts for so long after it last said all it knows."""
MOVED = 0.05
"""Distances that changed by a smaller share wait for the refresh."""


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

    def due_s(self) -> float:
        return min(self.whole_s, self.sent_s + GAP_S) if self.pending else self.whole_s

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

    def tell(
        self,
        known: Callable[[str], RouteEntry | None],
        origins: Iterable[str],
        now_s: float,
    ) -> Update | None:
        """What to tell it now. `known` says what it should know of an origin, `origins` which
        there are. What it should not know any more is retracted."""
        whole = now_s >= self.whole_s
        entries = []
        for origin in sorted({*origins, *self.told} if whole else self.pending):
            before, entry = self.told.get(origin), known(origin)
            asked = origin in self.asked
            if entry is not None:
                if whole or asked or before is None or _differs(before, entry):
                    self.told[origin] = entry
                    entries.append(_short(None if asked else before, entry))
            elif before is not None:
                del self.told[origin]
                if not whole:
                    entries.append(RouteEntry(origin, before.seqno, INFINITE, before.edition))
        self.pending.clear()
        self.asked.clear()
        if whole:
            self.whole_s = now_s + REFRESH_S
        elif not entries:
            return None
        self.sent_s = now_s
        return Update(tuple(entries), whole=whole)


def _differs(before: RouteEntry, entry: RouteEntry) -> bool:
    return (
        before.seqno != entry.seqno
        or far_apart(before.distance_s, entry.distance_s, share=MOVED, least=0.0)
        or not _same_offers(before, entry)
    )


def _same_offers(before: RouteEntry, entry: RouteEntry) -> bool:
    return before.edition == entry.edition and before.offers == entry.offers


def _short(before: RouteEntry | None, entry: RouteEntry) -> RouteEntry:
    if before is None or not _same_offers(before, entry):
        return entry
    return msgspec.structs.replace(entry, offers=None)
