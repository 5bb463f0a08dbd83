"""Cordons: what an operator says of a site that is to get nothing new.

The site itself keeps its cordon and publishes it in its signed descriptor. So it holds with and
without a control centre, and outlives the restart of either.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from daitn.objects.identifiers import SiteId, Word
from daitn.objects.text import Line

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
    reason: Reason = ""
    draining: bool = False
    """Models that a control centre placed here answer on until they are ready elsewhere."""

    def __str__(self) -> str:
        state = "is drained" if self.draining else "is cordoned"
        who = f" by {self.by}" if self.by else ""
        return f"{state}{who}{': ' if self.reason else ''}{self.reason}"


class CordonQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Changes a site's cordon, or asks how it stands."""

    change: CordonChange = CordonChange.NOTHING
    reason: Reason = ""


class CordonReport(msgspec.Struct, frozen=True, kw_only=True):
    """A site's cordon, and what is still under way at the site."""

    site: SiteId
    cordon: Cordon | None
    clock_s: float = 0.0
    """The site's clock as it answered, in seconds since the epoch; 0: not told."""
    visits: int = 0
    """Visits, merges and measurements that are accepted and not reported."""
    queries: int = 0
    """At its gateway and at its facility."""
    packets: int = 0
    """Objects that are served here or were sent from here, without an answer."""
    agents: int = 0
    """Models that travel by themselves and are here."""
    deployments: tuple[str, ...] = ()
    """Models that a control centre placed here."""

    @property
    def left(self) -> tuple[str, ...]:
        """What is still under way, in words; empty: the site is safe to stop."""
        counts = {
            "visits": self.visits,
            "queries": self.queries,
            "packets": self.packets,
            "travelling models": self.agents,
        }
        counted = [f"{count} {what}" for what, count in counts.items() if count]
        return (*counted, *(f"deployment {name}" for name in self.deployments))
