"""The agents of a home, as they were last reported."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from daitn.control.jobs.job import Job
from daitn.control.jobs.walkers import view_of
from daitn.node.agents.itinerary import Itinerary, submission
from daitn.node.agents.store import AgentStore
from daitn.objects.agents import Agent, AgentName, agent_name
from daitn.objects.errors import NotFound
from daitn.objects.identifiers import Digest, JobId, OwnerId, SiteId
from daitn.objects.jobs import JobState, JobView
from daitn.objects.merging import MOST_WALKERS
from daitn.objects.orders import SignedOrder

__all__ = ["HomeAgents"]


class HomeAgents:
    """See the module. A job has one agent for each of its models."""

    def __init__(self, site: SiteId, store: AgentStore, now_s: Callable[[], float]) -> None:
        self.site = site
        self.store = store
        self.open: dict[AgentName, Agent] = {}
        """Those that have not ended."""
        self._now_s = now_s
        self._of_order: dict[Digest, JobId] = {}

    def jobs_open(self, owner: OwnerId) -> int:
        """How many jobs of an owner have not ended."""
        return len({one.job for one in self.open.values() if submission(one).intent.owner == owner})

    def note_order(self, agent: Agent) -> None:
        """Remember the order under which an agent was sent out."""
        if (order := submission(agent).order) is not None:
            self._of_order[order.digest] = agent.job

    def ordered(self, order: SignedOrder | None) -> Agent | None:
        """An agent that was sent out under an order, if there is one."""
        job = None if order is None else self._of_order.get(order.digest)
        return None if job is None else self.get(job)

    def walkers(self, agent: Agent) -> tuple[Agent, ...]:
        """The models that travel for an agent's job, except any lost by the disk."""
        walkers = range(submission(agent).intent.training.travelling)
        found = (
            agent if walker == agent.walker else self._find(agent.job, walker) for walker in walkers
        )
        return tuple(one for one in found if one is not None)

    def view(self, agent: Agent) -> JobView:
        return self.shown(agent)[0]

    def shown(self, agent: Agent) -> tuple[JobView, Job]:
        """An agent's job, and the best of its models."""
        jobs = [Itinerary.of(one).job for one in self.walkers(agent)]
        shown, best = view_of(jobs, self._now_s())
        if shown.model is None or shown.state is not JobState.REACHED:
            return shown, best
        holders = tuple(dict.fromkeys((self.site, *shown.model.holders)))
        model = msgspec.structs.replace(shown.model, holders=holders)
        return msgspec.structs.replace(shown, model=model), best

    def get(self, job: JobId, walker: int | None = None) -> Agent:
        """An agent of a job: this one, or the first one here. Raises `NotFound`."""
        walkers = range(MOST_WALKERS) if walker is None else (walker,)
        for number in walkers:
            if (agent := self._find(job, number)) is not None:
                return agent
        raise self.not_home(job)

    def not_home(self, job: JobId) -> NotFound:
        return NotFound(
            f"{self.site} is not the home of a job {job} of yours",
            field="job",
            fix="ask the site where it was submitted, with its owner's key",
        )

    def _find(self, job: JobId, walker: int) -> Agent | None:
        return self.open.get(agent_name(job, walker)) or self.store.get(job, walker)
