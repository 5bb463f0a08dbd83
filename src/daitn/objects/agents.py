"""A model under way by itself: what it carries beside its weights.

It carries the facts of its training job, from which the job's state follows at every site (see
`daitn.control.jobs`), so that it needs no control centre to know what to do next.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from daitn.objects.identifiers import JobId, SiteId
from daitn.objects.jobs import JobEvent

__all__ = ["Agent", "AgentReport", "DatedFact", "ReportReply"]


class DatedFact(msgspec.Struct, frozen=True, array_like=True):
    """A fact, and when it was taken in, in seconds since the epoch."""

    at_s: float
    event: JobEvent


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """The payload of a model's packet: a MessagePack map."""

    job: JobId
    home: SiteId
    """Where its owner is."""
    epoch: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)] = 0
    """How often it was sent out anew from home because it was lost."""
    facts: Annotated[tuple[DatedFact, ...], msgspec.Meta(max_length=100_000)]
    choices: Annotated[tuple[SiteId, ...], msgspec.Meta(max_length=1024)] = ()
    """Sites with data to which it might go instead, as heard where it was; none of them refused it.
    Where it arrives, it is compared with these."""

    def stage(self) -> tuple[int, int]:
        """Later journeys of a job are larger: whoever takes one over adds a fact."""
        return self.epoch, len(self.facts)


class AgentReport(msgspec.Struct, frozen=True, kw_only=True):
    """The payload with which a site tells home how a journey is."""

    site: SiteId
    agent: Agent | None
    """None: nothing new, but it goes on."""
    job: JobId
    epoch: int
    facts: int
    """How many facts the journey has that the site has."""

    def stage(self) -> tuple[int, int]:
        """Of the journey that the site has; see `Agent.stage`."""
        return self.epoch, self.facts


class ReportReply(enum.StrEnum):
    """What home says to a note."""

    YES = "yes"
    STALE = "stale"
    """A later one is under way, or the job is over: drop it."""
