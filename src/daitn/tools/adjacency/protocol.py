"""The seam below forwarders: messages to neighbours, and which neighbours exist.

The two implementations are beside this file: `zenoh.py` (the real one, made by `open_adjacency`)
and `memory.py` (its in-memory twin).

A link is *up* while both ends receive each other. While it is up, messages arrive complete and in
order, except those that overflow (`LinkStats`). Anything that breaks this takes the link down, at
both ends, before it is up again: so each end repeats what it advertised, and neither assumes that
the other still knows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from daitn.objects.identifiers import SiteId

__all__ = ["MOST_MESSAGE_BYTES", "Adjacency", "LinkStats", "Neighbours"]

MOST_MESSAGE_BYTES = 8 << 20
"""A packet has at most 4 MiB of payload, a summary 4 MiB."""


class Neighbours(Protocol):
    """Receives link events. All calls come on the event loop, one at a time.

    An exception in a call is logged, and goes no further.
    """

    def up(self, neighbour: SiteId, cost_s: float) -> None:
        """The link is up in both directions; `cost_s` is the one-way delay, in seconds."""
        ...

    def down(self, neighbour: SiteId) -> None:
        """The link is down, and messages in transit may be lost. Always follows an `up`."""
        ...

    def cost(self, neighbour: SiteId, cost_s: float) -> None:
        """Smoothed one-way delay in seconds, while the link is up. Reports small changes too."""
        ...

    def frames(self, neighbour: SiteId, messages: list[bytes]) -> None:
        """Messages in the order in which they were sent; only while the link is up."""
        ...


@dataclass(frozen=True, slots=True)
class LinkStats:
    """Statistics of a link since this end started."""

    up: bool
    cost_s: float
    downs: int
    """How often it went down."""
    messages_in: int
    messages_out: int
    dropped_in: int
    """Messages from the neighbour that were dropped here: too many were waiting."""
    dropped_out: int
    """Messages to the neighbour that were not sent: too many were waiting, or the link went
    down."""
    malformed: int
    """Messages under the neighbour's name that could not be decoded."""


class Adjacency(Protocol):
    """This site's links. Used on the event loop that opened it."""

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where it accepts connections, with the actual ports in place of 0."""
        ...

    def send(self, neighbour: SiteId, message: bytes) -> bool:
        """Send a message over the link; messages of one turn of the event loop go together.

        Returns at once, and whether the link is up: otherwise nothing is sent. If more is waiting
        than the link carries, the oldest messages are dropped and counted. Raises `InvalidInput`
        above `MOST_MESSAGE_BYTES`.
        """
        ...

    def stats(self) -> dict[SiteId, LinkStats]:
        """Statistics for each neighbour that is configured or sent something."""
        ...

    async def close(self) -> None:
        """Leave; neighbours notice at once. Makes no further calls. Closing twice is harmless."""
        ...
