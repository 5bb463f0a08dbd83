"""What was sent to a neighbour, and what to send next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

import msgspec

from daitn.steering.routes.offers import far_apart
from daitn.steering.wire.offers import INFINITE, RouteEntry, Update

__all__ = ["EXPIRY_S", "REFRESH_S", "Peer"]

GAP_S = 0.01
"""Changes within this time are sent together."""
DEFER_S = 1.0
"""Maximum time by which a change that can wait is deferred."""
REFRESH_S = 30.0
"""Everything is sent this often, to repair any error."""
EXPIRY_S = 3.5 * REFRESH_S
"""Validity of a neighbour's routes after it last sent them all."""
MOVED = 0.05
"""Relative changes of distance below this wait for the refresh."""


class Urgency(IntEnum):
    """How soon a neighbour must learn about a change."""

    NONE = 0
    LATER = 1
    NOW = 2


@dataclass(slots=True)
class Peer:
    """A neighbour, since the link to it came up."""

    received_whole_s: float
    """When it last sent all its routes, or the link came up."""
    send_whole_s: float
    """When to send it all routes."""
    domain: str | None = None
    """Its site's domain; `None` means that of this site."""
    synced: bool = False
    """Whether it has sent all its routes since the link came up."""
    sent_s: float = -INFINITE
    sent: dict[str, RouteEntry] = field(default_factory=dict)
    """The latest entries sent to it, by origin."""
    pending: set[str] = field(default_factory=set)
    """Origins that may have changed."""
    requested: set[str] = field(default_factory=set)
    """Origins that it requested: it lacks what it was sent about them."""
    awaited: set[str] = field(default_factory=set)
    """Origins for which it awaits a later sequence number."""
    deferred: set[str] = field(default_factory=set)
    """Origins with a change that can wait until `deferred_until_s`."""
    deferred_until_s: float = INFINITE

    def due_s(self) -> float:
        due_s = min(self.send_whole_s, self.deferred_until_s)
        return min(due_s, self.sent_s + GAP_S) if self.pending else due_s

    def received_whole(self, now_s: float) -> None:
        """It sent all its routes. What was sent to it before it knew of the link was lost."""
        self.received_whole_s = now_s
        if not self.synced:
            self.synced, self.send_whole_s = True, now_s
            self.sent.clear()

    def resend(self, origin: str) -> None:
        """It asked for a route that it was sent before."""
        self.requested.add(origin)
        self.pending.add(origin)

    def await_seqno(self, origin: str) -> None:
        """It must learn about a later sequence number at once."""
        self.awaited.add(origin)
        self.pending.add(origin)

    def update(
        self,
        known: Callable[[str], RouteEntry | None],
        reaches: Callable[[str], bool],
        origins: Iterable[str],
        now_s: float,
    ) -> Update | None:
        """The update to send now, if any.

        `known` gives what the neighbour should know of an origin, `reaches` whether it has another
        route to it, `origins` all there are. What it should no longer know is retracted.
        """
        whole = now_s >= self.send_whole_s
        entries: list[RouteEntry] = []
        waiting = self.deferred - self.pending
        self.deferred.clear()
        for origin in sorted({*origins, *self.sent} if whole else self.pending):
            entry, requested = known(origin), origin in self.requested
            before = self.sent.get(origin)
            urgency = (
                Urgency.NOW if whole or requested else self._urgency(origin, before, entry, reaches)
            )
            if urgency is Urgency.NOW:
                entries += self._record(origin, entry, again=requested)
            elif urgency is Urgency.LATER:
                waiting.add(origin)
        if waiting and not whole:
            if entries or now_s >= self.deferred_until_s:
                for origin in sorted(waiting):
                    entries += self._record(origin, known(origin))
            else:
                self.deferred = waiting
        self.pending.clear()
        self.requested.clear()
        self.awaited.clear()
        self.deferred_until_s = (
            min(self.deferred_until_s, now_s + DEFER_S) if self.deferred else INFINITE
        )
        if whole:
            entries = [entry for entry in entries if entry.distance_s < INFINITE]
            self.send_whole_s = now_s + REFRESH_S
        elif not entries:
            return None
        self.sent_s = now_s
        return Update(tuple(entries), whole=whole)

    def _record(
        self, origin: str, entry: RouteEntry | None, *, again: bool = False
    ) -> Iterator[RouteEntry]:
        """The entry in the form to send it, recorded as sent. `again`: repeat known offers."""
        before = self.sent.pop(origin, None)
        if entry is not None:
            self.sent[origin] = entry
            yield _without_known_offers(None if again else before, entry)
        elif before is not None:
            yield RouteEntry(origin, before.seqno, INFINITE, before.edition)

    def _urgency(
        self,
        origin: str,
        before: RouteEntry | None,
        entry: RouteEntry | None,
        reaches: Callable[[str], bool],
    ) -> Urgency:
        """A neighbour that relies on a route that is gone or longer must know now. Harmless changes
        can wait (RFC 8966, section 3.7.2): sequence numbers that nobody requested, shorter
        distances, and the gain or loss of one of several routes."""
        if before is None or entry is None:
            if before is entry:
                return Urgency.NONE
            waits = reaches(origin) and origin not in self.awaited
            return Urgency.LATER if waits else Urgency.NOW
        if not _same_offers(before, entry):
            return Urgency.NOW
        moved = far_apart(before.distance_s, entry.distance_s, share=MOVED, least=0.0)
        if before.seqno != entry.seqno:
            return Urgency.NOW if origin in self.awaited else Urgency.LATER
        if moved:
            return Urgency.NOW if entry.distance_s > before.distance_s else Urgency.LATER
        return Urgency.NONE


def _same_offers(before: RouteEntry, entry: RouteEntry) -> bool:
    return before.edition == entry.edition and before.offers == entry.offers


def _without_known_offers(before: RouteEntry | None, entry: RouteEntry) -> RouteEntry:
    if before is None or not _same_offers(before, entry):
        return entry
    return msgspec.structs.replace(entry, offers=None)
