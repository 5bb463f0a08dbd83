"""An agent, a model that travels on its own: its contents beside the weights.

It carries the events of its training job, from which every site can derive the job's state (see
`daitn.control.jobs`), so it needs no control centre to know what to do next.
"""

from __future__ import annotations

import enum
from typing import Annotated, NewType

import msgspec

from daitn.objects.bounds import Count
from daitn.objects.identifiers import JobId, SiteId
from daitn.objects.jobs import JobEvent, Walker
from daitn.objects.moments import Moment

__all__ = [
    "Agent",
    "AgentName",
    "AgentReport",
    "DatedFact",
    "ReportReply",
    "TravelReceipt",
    "agent_name",
]

AgentName = NewType("AgentName", str)


def agent_name(job: JobId, walker: int) -> AgentName:
    """The name of one of a job's models. The first one has the job's name, which ends in a hyphen
    and a number, so that no other job has the name of a walker."""
    return AgentName(f"{job}.{walker}" if walker else job)


Epoch = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]


class DatedFact(msgspec.Struct, frozen=True, array_like=True):
    """An event and the time it was recorded, in seconds since the epoch."""

    at_s: Moment
    """When it was recorded, in seconds since the Unix epoch."""
    event: JobEvent
    """One of the events in `objects/jobs.py`; its `type` says which, for instance `submitted`."""


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """The payload of a model's packet: a MessagePack map."""

    job: JobId
    """The job's id, `<name>-<home>-<number>`, counted by its home."""
    walker: Walker = 0
    """Which of the models that travel for the job this is, from 0."""
    home: SiteId
    """The site where its owner is."""
    epoch: Epoch = 0
    """How often the home restarted it after a loss."""
    facts: Annotated[tuple[DatedFact, ...], msgspec.Meta(max_length=100_000)]
    """The job's facts, oldest first."""
    choices: Annotated[tuple[SiteId, ...], msgspec.Meta(max_length=1024)] = ()
    """For a leg to data: alternative sites that have not refused it, as known at the previous host.
    The receiving site compares itself with these."""

    @property
    def name(self) -> AgentName:
        """Unique name."""
        return agent_name(self.job, self.walker)

    def stage(self) -> tuple[int, int]:
        """Later stages of a job are larger: taking a model over adds a fact."""
        return self.epoch, len(self.facts)


class AgentReport(msgspec.Struct, frozen=True, kw_only=True):
    """The payload with which a site reports a travelling model's progress to its home."""

    site: SiteId
    """The reporting site."""
    agent: Agent | None
    """Absent means nothing new since the last report, but the model is still there."""
    job: JobId
    """The job's id."""
    epoch: Epoch
    """Epoch of the site's model."""
    facts: Count
    """Number of facts of that model."""
    walker: Walker = 0
    """Which of the job's models it is."""

    @property
    def name(self) -> AgentName:
        """See `Agent.name`."""
        return agent_name(self.job, self.walker)

    def stage(self) -> tuple[int, int]:
        """Stage of the site's model; see `Agent.stage`."""
        return self.epoch, self.facts


class ReportReply(enum.StrEnum):
    """The home's answer to a report."""

    YES = "yes"
    STALE = "stale"
    """A later stage is in progress, or the job has ended: drop this one."""


class TravelReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a control centre has posted for a travelling model."""

    entries: Count
    """Number of entries that follow from the facts sent to it."""
