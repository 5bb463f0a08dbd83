"""What owners ask of a home: the control centre's verbs, for agents that it sends out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from daitn.control.jobs.quota import check_quota
from daitn.control.jobs.resuming import check_running
from daitn.control.jobs.walkers import check_walks, decisions_of, statements_of
from daitn.control.route.next_site import AUTONOMOUS_FIX, LocalView, check_travels
from daitn.node.agents.guard import AgentGuard
from daitn.node.agents.home_agents import HomeAgents
from daitn.node.agents.itinerary import Itinerary, submission
from daitn.node.forwarder.runtime import ForwarderRuntime
from daitn.objects.agents import Agent, DatedFact, agent_name
from daitn.objects.decisions import Assessment, nearest
from daitn.objects.errors import InvalidInput, NotFound
from daitn.objects.identifiers import JobId, ObjectiveName, OwnerId, checked_name
from daitn.objects.intents import MOST_JOB_NAME
from daitn.objects.jobs import Assessed, JobView, Submitted, WorkNeeds
from daitn.objects.lineage import Lineage
from daitn.objects.messages import RecipeQuestion
from daitn.objects.requests import (
    AssessIntent,
    DecisionList,
    JobList,
    JobQuery,
    SubmitIntent,
    TrainedModel,
)
from daitn.objects.wire import decode, encode
from daitn.tools.fabric.caller import caller_name, check_owner, visible
from daitn.tools.fabric.protocol import Handler
from daitn.tools.fabric.turns import RequestRates

__all__ = ["HomeRequests"]

OPEN_JOBS: Final = 32
"""Jobs of one owner that may be open at one home at the same time."""


class HomeRequests:
    """See the module."""

    def __init__(
        self,
        agents: HomeAgents,
        runtime: ForwarderRuntime,
        needs: Callable[[RecipeQuestion], Awaitable[WorkNeeds]],
        guard: AgentGuard | None,
        view: Callable[[Itinerary], LocalView],
        send_out: Callable[[Sequence[Agent]], Awaitable[None]],
        cancel: Callable[[JobId, str], Awaitable[None]],
    ) -> None:
        """`guard`: see `AgentHome`. `view`: what an agent knows here. `send_out` stores all agents
        of a new job, or none, and sends them out; `cancel` ends those of a job for whoever
        asked."""
        self._agents = agents
        self._runtime = runtime
        self._needs = needs
        self._guard = guard
        self._view = view
        self._send_out = send_out
        self._cancel = cancel
        self._naming: set[JobId] = set()
        """Ids of jobs that are being assessed and are not stored yet."""
        self._turns = RequestRates()

    def handlers(self) -> dict[str, Handler]:
        """The control centre's verbs that a home offers for its own agents."""
        handlers: dict[str, Handler] = {
            "submit": self._on_submit,
            "assess": self._on_assess,
            "jobs": self._on_jobs,
            "decisions": self._on_decisions,
            "lineage": self._on_lineage,
            "cancel": self._on_cancel,
        }
        return {verb: self._turns.limited(verb, on) for verb, on in handlers.items()}

    async def _on_submit(self, key: str, payload: bytes) -> bytes:
        """`SubmitIntent` -> `JobView`: start a job here; resubmitting the same order gives the same
        job."""
        request = decode(payload, SubmitIntent)
        name = checked_name(request.intent.name, "name", MOST_JOB_NAME)
        check_owner(request.intent.owner, f"an intent of {request.intent.owner}")
        if self._guard is not None:
            self._guard.orders.check(request.order, request.intent, request.start)
        if (known := self._agents.ordered(request.order)) is not None:
            return encode(self._agents.view(known))
        self._check_quota(request.intent.owner)
        if request.start is not None:
            raise InvalidInput(
                "a model that travels by itself starts without weights",
                field="model.start",
                fix=AUTONOMOUS_FIX,
            )
        agent = await self._submitted(name, request)
        if (known := self._agents.ordered(request.order)) is not None:
            return encode(self._agents.view(known))
        self._check_quota(request.intent.owner)  # Others were submitted meanwhile.
        await self._send_out(_walking(agent))
        return encode(self._agents.view(self._agents.get(agent.job)))

    def _check_quota(self, owner: OwnerId) -> None:
        check_quota(owner, self._agents.jobs_open(owner), OPEN_JOBS, "here")

    async def _submitted(self, name: str, request: SubmitIntent) -> Agent:
        model = request.intent.model
        check_travels(request.intent)
        needs = await self._needs(RecipeQuestion(recipe=model.recipe, config=model.config))
        now_s = self._runtime.now_s()
        check_walks(request.intent, needs)
        taken = self._agents.store.names()
        number = 1
        # Jobs of two homes meet at hosts, so a number alone is not unique.
        while (job := JobId(f"{name}-{self._agents.site}-{number}")) in taken | self._naming:
            number += 1
        # The last model's name is the longest.
        checked_name(agent_name(job, request.intent.training.travelling - 1), "name")
        first = Submitted(
            job=job, intent=request.intent, needs=needs, insist=request.insist, order=request.order
        )
        facts = (DatedFact(now_s, first),)
        itinerary = Itinerary.of(Agent(job=job, home=self._agents.site, facts=facts))
        self._naming.add(job)
        try:
            itinerary.take(Assessed(await self._assess(itinerary, now_s)), now_s)
        finally:
            # The caller stores the job before it awaits anything.
            self._naming.discard(job)
        return itinerary.agent

    async def _assess(self, itinerary: Itinerary, now_s: float) -> Assessment:
        """Assess by what is advertised here: whether data can reach the targets, and each objective
        has a verifier."""
        step = await itinerary.decide(self._view(itinerary), now_s)
        topology, route = step.question.topology, step.route
        reasons = [
            f"no known verifier measures {objective.name} (on {objective.topic})"
            for objective in itinerary.job.intent.objectives
            if not topology.verifiers.get(ObjectiveName(objective.name))
        ]
        if not topology.options:
            reasons.append("no advertised data may be used to train the model")
        elif route is None and not reasons:
            reasons.append(step.why or "no visit is expected to bring the targets nearer")
        rejections = (*topology.rejections, *step.decision.rejections)
        shown = nearest(rejections)
        return Assessment(
            feasible=not reasons,
            reasons=tuple(reasons),
            rejections=shown,
            relaxations=(),
            route=route,
            snapshot_version=topology.snapshot.version,
            rejections_more=len(rejections) - len(shown),
        )

    async def _on_assess(self, key: str, payload: bytes) -> bytes:
        """`AssessIntent` -> `Assessment`: check whether an intent is feasible, without starting
        anything."""
        intent = decode(payload, AssessIntent).intent
        check_owner(intent.owner, f"an intent of {intent.owner}")
        agent = await self._submitted(
            checked_name(intent.name, "name", MOST_JOB_NAME), SubmitIntent(intent=intent)
        )
        return encode(Itinerary.of(agent).job.assessment)

    async def _on_jobs(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `JobList`: one job with this home, or all of them with an empty id."""
        query = decode(payload, JobQuery)
        if query.job:
            return encode(JobList(jobs=(self._agents.view(self._own(query.job)),)))
        # It reads and follows all agents that this home has ever had.
        return encode(JobList(jobs=await asyncio.to_thread(self._visible)))

    def _visible(self) -> tuple[JobView, ...]:
        each = {one.job: one for one in self._agents.store.all()}.values()
        found = (one for one in each if visible(submission(one).intent.owner))
        return tuple(map(self._agents.view, found))

    async def _on_decisions(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `DecisionList`: every decision on a job's route, a list of `Decided`."""
        agent = self._own(decode(payload, JobQuery).job)
        histories = (
            [(fact.event, fact.at_s) for fact in one.facts] for one in self._agents.walkers(agent)
        )
        return encode(DecisionList(decisions=decisions_of(histories)))

    async def _on_lineage(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `TrainedModel`: a job's best model with its lineage."""
        agent = self._own(decode(payload, JobQuery).job)
        shown, job = self._agents.shown(agent)
        if shown.model is None:
            raise NotFound(f"{agent.job} has no measured model yet", field="job")
        lineage = Lineage(job=agent.job, entries=tuple(job.lineage))
        events = (fact.event for one in self._agents.walkers(agent) for fact in one.facts)
        statements = statements_of(events, job.lineage)
        return encode(TrainedModel(job=shown, lineage=lineage, statements=statements))

    async def _on_cancel(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `JobView`: stop a job."""
        agent = self._own(decode(payload, JobQuery).job)
        check_running(agent.job, self._agents.view(agent).state)
        await self._cancel(agent.job, caller_name())
        return encode(self._agents.view(self._agents.get(agent.job)))

    def _own(self, job: JobId) -> Agent:
        """An agent that the caller may see and command. Raises `NotFound`, for another owner's
        agent as well."""
        agent = self._agents.get(job)
        if not visible(submission(agent).intent.owner):
            raise self._agents.not_home(job)
        return agent


def _walking(first: Agent) -> tuple[Agent, ...]:
    """All models that travel for a job, given the first one at its start."""
    dated, *rest = first.facts
    submitted = submission(first)

    def walker(number: int) -> Agent:
        fact = DatedFact(dated.at_s, msgspec.structs.replace(submitted, walker=number))
        return msgspec.structs.replace(first, walker=number, facts=(fact, *rest))

    return tuple(map(walker, range(submitted.intent.training.travelling)))
