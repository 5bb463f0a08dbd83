"""The seam below forwarders: messages to neighbours, and which neighbours there are.

Two implementations stand beside this file: `zenoh.py` (the real one, made by `open_adjacency`) and
`memory.py` (its in-memory twin).

A link is *up* while both ends hear each other. While it is up, messages arrive complete and in
order, except those that overflow (`LinkStats`). Whatever breaks that takes the link down, at both
ends, before it is up again: so what an end told before is told anew, and neither end believes that
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
    """Who hears what happens on the links. All calls come on the event loop, one at a time.

    What a call raises is logged, and goes no further.
    """

    def up(self, neighbour: SiteId, cost_s: float) -> None:
        """Messages go to and fro from now on; `cost_s` is the one-way delay, in seconds."""
        ...

    def down(self, neighbour: SiteId) -> None:
        """The link is gone, and what was on its way may be lost. Always after an `up`."""
        ...

    def cost(self, neighbour: SiteId, cost_s: float) -> None:
        """The smoothed one-way delay in seconds, while the link is up. Tells small changes too."""
        ...

    def frames(self, neighbour: SiteId, messages: list[bytes]) -> None:
        """Messages in the order in which they were sent; only while the link is up."""
        ...


@dataclass(frozen=True, slots=True)
class LinkStats:
    """What happened on a link since this end started."""

    up: bool
    cost_s: float
    downs: int
    """How often it went down."""
    messages_in: int
    messages_out: int
    dropped_in: int
    """Messages from the neighbour that were not handed on: too many waited here."""
    dropped_out: int
    """Messages to the neighbour that were not sent: too many waited, or the link went down."""
    malformed: int
    """What came under the neighbour's name and could not be read."""


class Adjacency(Protocol):
    """This site's links. Used on the event loop that opened it."""

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where it accepts connections, with the ports that were taken for 0."""
        ...

    def send(self, neighbour: SiteId, message: bytes) -> bool:
        """Send a message over the link; what is sent in one turn of the event loop goes together.

        Returns at once, and whether the link is up: otherwise nothing is sent. Where more waits
        than the link carries, the oldest messages are dropped and counted.
        Raises `InvalidInput` above `MOST_MESSAGE_BYTES`.
        """
        ...

    def stats(self) -> dict[SiteId, LinkStats]:
        """Per neighbour that is configured or was heard."""
        ...

    async def close(self) -> None:
        """Leave; neighbours notice at once. Calls no one any more. Closing twice is harmless."""
        ...
