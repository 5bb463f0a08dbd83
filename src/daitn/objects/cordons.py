"""Cordons: an operator's mark on a site that gets nothing new.

The site itself keeps its cordon and publishes it in its signed descriptor. So it holds with and
without a control centre, and outlives the restart of either.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from daitn.objects.identifiers import SiteId, Word
from daitn.objects.text import Line, counted

__all__ = ["Cordon", "CordonChange", "CordonQuestion", "CordonReport"]

Reason = Annotated[Line, msgspec.Meta(max_length=300)]


class CordonChange(enum.StrEnum):
    """What a `CordonQuestion` changes."""

    NOTHING = "nothing"
    CORDON = "cordon"
    DRAIN = "drain"
    UNCORDON = "uncordon"


class Cordon(msgspec.Struct, frozen=True, kw_only=True):
    """A site gets no new visits, deployments, packets and queries."""

    by: Word
    """The member who asked; empty in a network without a roster."""
    since_s: float
    """When it began, seconds since the epoch."""
    reason: Reason = ""
    """The reason given."""
    draining: bool = False
    """Whether it is being drained: models that a control centre placed here keep answering until
    they are ready elsewhere."""

    @property
    def word(self) -> str:
        """What the site is, in a word."""
        return "draining" if self.draining else "cordoned"

    def __str__(self) -> str:
        state = "is drained" if self.draining else "is cordoned"
        who = f" by {self.by}" if self.by else ""
        return f"{state}{who}{': ' if self.reason else ''}{self.reason}"


class CordonQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Changes a site's cordon, or asks for its state."""

    change: CordonChange = CordonChange.NOTHING
    reason: Reason = ""


class CordonReport(msgspec.Struct, frozen=True, kw_only=True):
    """A site's cordon, and the work still in progress there."""

    site: SiteId
    cordon: Cordon | None
    clock_s: float = 0.0
    """The site's clock when it answered, in seconds since the epoch; 0 means not reported."""
    visits: int = 0
    """Visits, merges and measurements that are accepted but not reported."""
    queries: int = 0
    """At its gateway and at its facility."""
    packets: int = 0
    """Objects served here or sent from here that have no answer yet."""
    agents: int = 0
    """Models that travel on their own and are here."""
    deployments: tuple[str, ...] = ()
    """Models that a control centre placed here."""

    @property
    def left(self) -> tuple[str, ...]:
        """The work still in progress, in words; empty means the site is safe to stop."""
        counts = {
            "visit": self.visits,
            "query": self.queries,
            "packet": self.packets,
            "travelling model": self.agents,
        }
        work = (counted(count, what) for what, count in counts.items() if count)
        return (*work, *(f"deployment {name}" for name in self.deployments))
