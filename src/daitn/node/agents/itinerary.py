"""An agent's next step, derived from its facts alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import msgspec

from daitn.control.jobs import meeting
from daitn.control.jobs.job import Job
from daitn.control.jobs.machine import handle
from daitn.control.jobs.question import route_question, starts
from daitn.control.jobs.travelling import job_of
from daitn.control.jobs.why_exhausted import unvisited
from daitn.control.route.engine import Mtrce
from daitn.control.route.next_site import (
    NOWHERE,
    DataProspect,
    KnownVerifier,
    LocalView,
    local_question,
    measured_in,
    remembered,
    topic_at,
    waits_for,
)
from daitn.control.route.question import RouteQuestion
from daitn.objects.agents import Agent, DatedFact
from daitn.objects.decisions import Decision, Route
from daitn.objects.descriptors import ANY, NodeDescriptor
from daitn.objects.errors import Corrupt
from daitn.objects.identifiers import Digest, ObjectiveName, SiteId
from daitn.objects.intents import Quantity
from daitn.objects.jobs import (
    JobEvent,
    LeftModel,
    Planned,
    Submitted,
    VerifierAssignment,
    VerifiersChosen,
)
from daitn.objects.lineage import Lineage, ancestry, descent, released
from daitn.objects.messages import VerifyWork
from daitn.objects.models import ModelRef
from daitn.steering.routes.names import site_of
from daitn.steering.routes.table import RouteTable
from daitn.steering.wire.intent import Capability, PacketIntent

__all__ = ["Itinerary", "NextStep", "home_intent", "prospects", "submission"]

_MTRCE = Mtrce()
_MOST_CHOICES = 256
"""Alternatives that an agent carries to its next host."""
_PAUSE_S, _PAUSE_MOST_S = 0.5, 20.0


@dataclass(frozen=True)
class NextStep:
    """MTRCE's answer to an agent, with the question."""

    question: RouteQuestion
    view: LocalView
    route: Route | None
    decision: Decision
    why: str = ""
    """Why there is no route."""

    def choices(self) -> tuple[SiteId, ...]:
        """Sites at which the route could have begun."""
        closed = {*self.question.excluded, *self.question.later}
        sites = {option.site for option in self.question.topology.options} - closed
        return tuple(sorted(sites))[:_MOST_CHOICES]


@dataclass
class Itinerary:
    """A travelling agent: its facts, and the job derived from them."""

    agent: Agent
    job: Job
    refusals: int = 0
    """Refusals since it arrived at its current site."""
    refused: dict[SiteId, str] = field(default_factory=dict)
    """Planned sites that have refused it since then, with the reasons."""
    refusal: str = ""
    """The reason of the last refusal."""
    missed: int = 0
    """Failed fetches of the weights to be measured, since then."""

    @classmethod
    def of(cls, agent: Agent) -> Itinerary:
        """Derive the job. Raises `Corrupt`, see `job_of`."""
        return cls(agent, job_of(agent))

    def take(self, event: JobEvent, now_s: float) -> None:
        """Apply one more fact."""
        handle(self.job, event, now_s)
        facts = (*self.agent.facts, DatedFact(now_s, event))
        self.agent = msgspec.structs.replace(self.agent, facts=facts)

    def open_objectives(self) -> tuple[ObjectiveName, ...]:
        """Objectives of the candidate that are neither measured nor being measured."""
        candidate = self.job.candidate
        if candidate is None:
            return ()
        busy = {
            (o.work.topic, o.work.metric)
            for o in self.job.outstanding.values()
            if isinstance(o.work, VerifyWork)
        }
        return tuple(
            ObjectiveName(o.name)
            for o in self.job.intent.objectives
            if o.name not in candidate.measured and (o.topic, o.metric) not in busy
        )

    def pause_s(self) -> float:
        """Count a refusal; returns how long to wait before the next try."""
        self.refusals += 1
        return min(_PAUSE_MOST_S, _PAUSE_S * 2.0 ** min(self.refusals, 10))

    def models(self) -> tuple[ModelRef, ...]:
        """Models that it needs: the one to measure or to continue from, and the best one."""
        job = self.job
        found = [job.candidate.model] if job.candidate else []
        found += self.measured_models()
        return tuple({model.manifest: model for model in found}.values())

    def may_travel_to(self, model: ModelRef) -> tuple[str, ...]:
        """Jurisdictions into which one of its models may travel; `*` means all."""
        return released(descent(self.job.lineage, model.manifest))

    def measured_models(self) -> tuple[ModelRef, ...]:
        """Measured models from which the job may continue."""
        return tuple(one.model for one in starts(self.job))

    def local_view(
        self,
        routes: RouteTable,
        announced: Iterable[NodeDescriptor] = (),
        node: NodeDescriptor | None = None,
    ) -> LocalView:
        """The agent's knowledge at a site. `announced`: available sites as this one received their
        descriptors; `node`: descriptor of the site where it has arrived."""
        visited = {**self.job.met, **({node.site: remembered(node)} if node else {})}
        topics = {objective.topic for objective in self.job.intent.objectives}
        return LocalView(
            site=SiteId(routes.site),
            prospects=prospects(routes),
            verifiers=tuple(
                one for topic in sorted(topics) for one in _known_verifiers(routes, topic)
            ),
            visited=visited,
            announced={other.site: other for other in announced},
            measured=measured_in(entry.fact for entry in self.job.lineage),
            version=routes.version,
        )

    async def decide(
        self,
        view: LocalView,
        now_s: float,
        later: tuple[SiteId, ...] = (),
        arrived: SiteId | None = None,
    ) -> NextStep:
        """Decide where to go next. The search runs in a thread, on the facts at the time of the
        call."""
        posed = replace(route_question(self.job, NOWHERE, now_s), later=later, here=arrived)
        needs = self.job.needs

        def decided() -> NextStep:
            question = local_question(posed, needs, view)
            route, decision = _MTRCE.plan(question)
            why = "" if route else _MTRCE.why_none(question)
            return NextStep(question, view, route, decision, why)

        return await asyncio.to_thread(decided)

    async def decide_apart(
        self, view: LocalView, now_s: float, later: tuple[SiteId, ...] = ()
    ) -> NextStep:
        """Like `decide`; but a model that has not learned yet leaves the best sites to the earlier
        models of its job, which decide alike and begin there."""
        step = await self.decide(view, now_s, later)
        for _ in range(0 if self.job.made else self.job.walker):
            if step.route is None:
                break
            later = (*later, step.route.visits[0].site)
            apart = await self.decide(view, now_s, later)
            if apart.route is None:
                break
            step = apart
        return step

    def release_to(self, start: Digest | None) -> tuple[str, ...]:
        """Jurisdictions into which the start model of a route may travel."""
        found = (one.release_to for one in self.job.checkpoints if one.model.manifest == start)
        return next(found, (ANY,))

    @property
    def trained_at(self) -> SiteId | None:
        """The site that made the model to be measured."""
        candidate = self.job.candidate
        return candidate.visits[0].visit.site if candidate and candidate.visits else None

    def data_intent(self, step: NextStep) -> PacketIntent:
        """The intent of an agent that seeks the data of a route's first visit."""
        route = step.route
        assert route is not None
        return PacketIntent(
            Capability.DATA,
            topic_at(step.question, step.view, route),
            owner=self.job.intent.owner,
            trust=0,
            jurisdictions=self._data_jurisdictions(self.release_to(route.start)),
            examples=route.visits[0].examples,
        )

    def verify_intent(self) -> PacketIntent:
        """The intent of an agent whose model is to be measured."""
        candidate = self.job.candidate
        assert candidate is not None
        objective = self.job.intent.objective(self.open_objectives()[0])
        return PacketIntent(
            Capability.VERIFY,
            objective.topic,
            owner=self.job.intent.owner,
            trust=0,
            jurisdictions=() if ANY in candidate.release_to else candidate.release_to,
        )

    def _data_jurisdictions(self, release_to: tuple[str, ...]) -> tuple[str, ...]:
        """Jurisdictions where the owner allows training and into which the model may travel."""
        wanted = [
            requirement.one_of
            for requirement in self.job.intent.requirements
            if requirement.quantity is Quantity.JURISDICTION and requirement.one_of
        ]
        allowed = [*wanted, *([] if ANY in release_to else [release_to])]
        if not allowed:
            return ()
        return tuple(j for j in allowed[0] if all(j in others for others in allowed))

    def planned(self, step: NextStep, left: LeftModel | None = None) -> Planned:
        """The fact that the model is trained at its current site, including a model that was `left`
        there."""
        met = step.view.visited[step.view.site]
        known = self.job.met.get(met.site) == met
        return Planned(
            route=step.route,
            decision=step.decision,
            here=None if known else met,
            meets=meeting.unknown(self.job, left, step.route) if left and step.route else None,
        )

    def leaves(self) -> LeftModel | None:
        """What it leaves where it has learned, for other models of its job; `None` means there are
        no others, or it has not learned."""
        job, candidate = self.job, self.job.candidate
        if job.intent.training.travelling == 1 or candidate is None or not candidate.visits:
            return None
        lineage = Lineage(job=job.id, entries=tuple(job.lineage))
        return LeftModel(
            job=job.id,
            walker=job.walker,
            at_s=job.at_s,
            model=candidate.model,
            entries=ancestry(lineage, candidate.model.manifest).entries,
        )

    def unplanned(self, step: NextStep) -> Planned:
        """The fact that there is no next site, for now or permanently."""
        waiting = waits_for(step.question, step.view)
        refused = step.question.later
        if refused and waiting.startswith("sites that refuse"):
            waiting += "".join(f"; {self.refused.get(site, '')}" for site in refused[:1])
        return Planned(
            route=None,
            decision=step.decision,
            waiting_for=waiting,
            why=step.why,
            unvisited=unvisited(self.job, step.question.topology, step.decision),
        )

    def verified_by(self, site: SiteId, topics: frozenset[str]) -> VerifiersChosen:
        """The fact that its host measures every objective that it can."""
        named = [(name, self.job.intent.objective(name)) for name in self.open_objectives()]
        return VerifiersChosen(
            tuple(
                VerifierAssignment(objective=name, site=site)
                for name, objective in named
                if objective.topic in topics
            )
        )


def home_intent(home: SiteId) -> PacketIntent:
    """The intent of a packet to an agent's home."""
    return PacketIntent(Capability.HOME, home, trust=0)


def prospects(routes: RouteTable) -> tuple[DataProspect, ...]:
    """Data that the route table of a site advertises."""
    prefix = f"{Capability.DATA}:"
    found = []
    for origin, offer in routes.offering(prefix):
        vias = routes.routes_to(origin)
        if vias or origin == routes.site:
            found.append(
                DataProspect(
                    site=SiteId(site_of(origin)),
                    topic=offer.key.removeprefix(prefix),
                    examples=offer.amount,
                    price_usd_per_1k=offer.price_usd,
                    delay_s=vias[0].distance_s if vias else 0.0,
                    jurisdiction=offer.jurisdiction,
                    owner=offer.owner,
                )
            )
    found.sort(key=lambda one: -one.delay_s)
    # If several origins lead to one site, the nearest counts.
    return tuple({one.id: one for one in found}.values())


def _known_verifiers(routes: RouteTable, topic: str) -> tuple[KnownVerifier, ...]:
    return tuple(
        KnownVerifier(SiteId(site_of(origin)), topic, offer.jurisdiction)
        for origin, offer in routes.offering(f"{Capability.VERIFY}:{topic}")
    )


def submission(agent: Agent) -> Submitted:
    """The first event of the agent's job. Raises `Corrupt` if its facts lack it."""
    first = agent.facts[0].event if agent.facts else None
    if not isinstance(first, Submitted):
        raise Corrupt(f"the facts of {agent.job} do not begin with its submission", field="facts")
    return first
