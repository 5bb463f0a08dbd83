"""An agent, a model that travels on its own: what it carries beside its weights.

It carries the events of its training job, from which every site can derive the job's state (see
`daitn.control.jobs`), so it needs no control centre to know what to do next.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from daitn.objects.identifiers import JobId, SiteId
from daitn.objects.jobs import JobEvent

__all__ = ["Agent", "AgentReport", "DatedFact", "ReportReply"]


class DatedFact(msgspec.Struct, frozen=True, array_like=True):
    """An event and the time it was recorded, in seconds since the epoch."""

    at_s: float
    event: JobEvent


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """The payload of a model's packet: a MessagePack map."""

    job: JobId
    home: SiteId
    """The owner's site."""
    epoch: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)] = 0
    """How often the origin sent it out again after a loss."""
    facts: Annotated[tuple[DatedFact, ...], msgspec.Meta(max_length=100_000)]
    choices: Annotated[tuple[SiteId, ...], msgspec.Meta(max_length=1024)] = ()
    """Other sites with data it might go to, as advertised where it was; none has refused it. The
    next site compares itself with these."""

    def stage(self) -> tuple[int, int]:
        """Grows during a job's migration: each site that takes over adds a fact."""
        return self.epoch, len(self.facts)


class AgentReport(msgspec.Struct, frozen=True, kw_only=True):
    """The payload with which a site reports a migration's progress to the origin."""

    site: SiteId
    agent: Agent | None
    """None: no news, but it is still running."""
    job: JobId
    epoch: int
    facts: int
    """How many facts the site's copy of the migration holds."""

    def stage(self) -> tuple[int, int]:
        """Stage of the site's copy; see `Agent.stage`."""
        return self.epoch, self.facts


class ReportReply(enum.StrEnum):
    """The origin's answer to a report."""

    YES = "yes"
    STALE = "stale"
    """A later one is in progress, or the job is over: drop this one."""
