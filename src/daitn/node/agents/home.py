"""The home of agents: their owner's site sends them out, receives them, restarts lost ones."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from daitn.control.jobs.job import Job
from daitn.control.jobs.walkers import check_walks, decisions_of, view_of
from daitn.control.route.next_site import check_travels
from daitn.identity.signing import check_lineage, check_model
from daitn.node.agents.accounts import TravelReports
from daitn.node.agents.guard import AgentGuard
from daitn.node.agents.host import AgentHost
from daitn.node.agents.itinerary import Itinerary
from daitn.node.agents.store import AgentStore
from daitn.node.forwarder.runtime import ForwarderRuntime
from daitn.node.training.bounds import check_size
from daitn.objects.agents import (
    Agent,
    AgentName,
    AgentReport,
    DatedFact,
    ReportReply,
    agent_name,
)
from daitn.objects.decisions import Assessment
from daitn.objects.errors import Corrupt, DaitnError, ErrorReport, InvalidInput, NotFound, Refused
from daitn.objects.identifiers import (
    Digest,
    JobId,
    ObjectiveName,
    OwnerId,
    SiteId,
    checked_name,
)
from daitn.objects.jobs import (
    ActionFailed,
    Assessed,
    CancelRequested,
    JobState,
    JobView,
    SiteLost,
    Submitted,
    WorkNeeds,
)
from daitn.objects.lineage import Lineage, ancestry
from daitn.objects.merging import MOST_WALKERS
from daitn.objects.messages import RecipeQuestion
from daitn.objects.models import ModelRef
from daitn.objects.orders import SignedOrder, same_order
from daitn.objects.requests import (
    AssessIntent,
    DecisionList,
    JobList,
    JobQuery,
    SubmitIntent,
    TrainedModel,
)
from daitn.objects.wire import decode, encode
from daitn.steering.wire.intent import PacketIntent
from daitn.steering.wire.packet import Packet, PacketKind
from daitn.tools.fabric import keys
from daitn.tools.fabric.caller import check_owner, visible
from daitn.tools.fabric.protocol import Fabric, Handler
from daitn.tools.fabric.turns import RequestRates
from daitn.tools.mobility.protocol import ModelTransport
from daitn.tools.mobility.releases import Release
from daitn.tools.tasks import Tasks

__all__ = ["AgentHome"]

log = logging.getLogger(__name__)

LOST_S = 30.0
"""An agent without news for this long is lost: hosts report on it every few seconds."""
CHECK_EVERY_S = 1.0
OPEN_JOBS = 32
"""Jobs of one owner that may be open at one home at the same time."""


class AgentHome:
    """See the module. It is a `Service` for the capability `home`."""

    def __init__(
        self,
        site: SiteId,
        fabric: Fabric,
        runtime: ForwarderRuntime,
        store: AgentStore,
        host: AgentHost,
        transport: ModelTransport,
        needs: Callable[[RecipeQuestion], Awaitable[WorkNeeds]],
        guard: AgentGuard | None = None,
        note: Release | None = None,
        accounts: TravelReports | None = None,
    ) -> None:
        """`guard` checks orders, and what arrives; none on a fabric without signatures. `note` is
        told of the models that are kept here. `accounts` reports what they used; none: nobody
        does."""
        self._note = note
        self._accounts = accounts
        self._guard = guard
        self._site = site
        self._fabric = fabric
        self._runtime = runtime
        self._store = store
        self._host = host
        self._transport = transport
        self._needs = needs
        self._open: dict[AgentName, Agent] = {}
        """Agents that have not ended; periodic work looks at these alone."""
        self._models: dict[AgentName, frozenset[Digest]] = {}
        """Weights that each agent needs, ended or not."""
        self._reported_at_s: dict[AgentName, float] = {}
        self._whereabouts: dict[AgentName, tuple[tuple[int, int], SiteId]] = {}
        """The latest reported stage of each agent, and the site that reported it."""
        self._backed_up: dict[AgentName, set[Digest]] = {}
        self._to_back_up: dict[AgentName, Agent] = {}
        """Agents whose weights may not be backed up here yet."""
        self._reached: set[JobId] = set()
        """Jobs of which a model came home that reached the targets: no other needs to go on."""
        self._naming: set[JobId] = set()
        """Ids of jobs that are being assessed and are not stored yet."""
        self._turns = RequestRates()
        self._tasks = Tasks()

    def start(self) -> None:
        """Await reports on the agents under way."""
        for agent in self._store.all():
            try:
                self._index(Itinerary.of(agent))
            except Corrupt as error:
                log.error("an agent of this home cannot be read and is ignored: %s", error)
        self._to_back_up = dict(self._open)
        self._reported_at_s = dict.fromkeys(self._open, time.monotonic())
        self._tasks.repeat(self._watch, "agents")
        self._tasks.repeat(self._back_up_all, "agents' weights")
        if self._accounts is not None:
            self._accounts.start()

    async def close(self) -> None:
        if self._accounts is not None:
            await self._accounts.close()
        await self._tasks.close()

    def models(self) -> frozenset[Digest]:
        """Weights that returned or are backed up here."""
        return frozenset().union(*self._models.values())

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

    async def serve(self, packet: Packet, intent: PacketIntent) -> bytes:
        """See `Service`."""
        if packet.kind is PacketKind.MODEL:
            agent = decode(packet.payload, Agent)
            await self._arrived(packet, agent)
            return b""
        report = decode(packet.payload, AgentReport)
        return encode(await self._report(packet, report))

    # Reports

    async def _report(self, packet: Packet, report: AgentReport) -> ReportReply:
        known = self._open.get(report.name)
        if known is None:
            self._get(report.job, report.walker)
            return ReportReply.STALE
        if report.epoch < known.epoch:
            return ReportReply.STALE
        itinerary = self._reported(packet, report, known)
        stage, at = self._whereabouts.get(report.name, (report.stage(), report.site))
        if report.site != at and report.stage() <= stage:
            return ReportReply.STALE
        self._whereabouts[report.name] = report.stage(), report.site
        self._reported_at_s[report.name] = time.monotonic()
        if itinerary is None or itinerary.agent.stage() < known.stage():
            return ReportReply.YES
        # An agent that ended elsewhere is not home yet: its weights have yet to arrive.
        if not itinerary.job.state.final:
            await self._update(itinerary.agent)
        return ReportReply.YES

    def _reported(self, packet: Packet, report: AgentReport, known: Agent) -> Itinerary | None:
        """The agent of a report, if there is something new of it.

        Raises `Refused` or `Corrupt` unless the site that reports sent it, and has this agent.
        """
        agent = report.agent
        if agent is None:
            self._check_repeated(packet, report, known)
            return None
        told = (agent.name, agent.home, agent.stage(), _first(agent))
        if told != (report.name, self._site, report.stage(), _first(known)):
            raise Corrupt(f"the report on {report.job} is about another agent", field="agent")
        if agent.epoch > known.epoch:
            raise Corrupt(f"{report.job} was not sent out so often", field="epoch")
        itinerary = Itinerary.of(agent)
        if self._guard is not None:
            self._guard.check_models(itinerary)
            self._guard.check_sender(packet, agent, report.site)
        return itinerary

    def _check_repeated(self, packet: Packet, report: AgentReport, known: Agent) -> None:
        """Raise unless a report without an agent says what its site said before."""
        seen = self._whereabouts.get(report.name)
        if seen is None and report.stage() <= known.stage():
            seen = report.stage(), report.site  # This home has restarted.
        if seen is None or report.stage() > seen[0]:
            raise Refused(f"nothing is known here of {report.job} at that stage", field="agent")
        if self._guard is None:
            return
        if report.name not in self._whereabouts:
            self._guard.check_sender(packet, known, report.site)
        elif self._guard.signer(packet) != report.site:
            raise Refused(f"{report.site} did not send this report", field="site")

    async def _arrived(self, packet: Packet, agent: Agent) -> None:
        """Accept an agent that returned for good; of several copies, the first."""
        if not self._awaits(agent):
            return
        itinerary = Itinerary.of(agent)
        known = self._open[agent.name]
        if _first(agent) != _first(known):
            raise Corrupt(f"{agent.job} returns as another job", field="facts")
        if self._guard is not None:
            self._guard.check_models(itinerary)
            self._guard.check_sender(packet, agent)
        lineage = Lineage(job=agent.job, entries=tuple(itinerary.job.lineage))
        check_lineage(lineage)
        if itinerary.job.best is not None:
            best = itinerary.job.best.model
            check_model(ancestry(lineage, best.manifest), best.manifest)
            await self._fetch(agent, best)
        if not self._awaits(agent):
            return  # Cancelled or restarted meanwhile.
        await self._update(agent)
        log.info("%s returned home: %s", agent.name, itinerary.job.state)

    async def _cancel(self, job: JobId) -> None:
        """End all models of a job that are under way."""
        for agent in self._walkers(self._get(job)):
            itinerary = Itinerary.of(agent)
            if not itinerary.job.state.final:
                itinerary.take(CancelRequested(), self._runtime.now_s())
                ended = msgspec.structs.replace(itinerary.agent, epoch=agent.epoch + 1)
                await self._update(ended)

    async def _cancel_safely(self, job: JobId) -> None:
        """What cannot be ended now ends by itself: nothing else waits for it."""
        try:
            await self._cancel(job)
        except Exception:
            log.exception("ending the other models of %s failed", job)

    def _awaits(self, agent: Agent) -> bool:
        known = self._open.get(agent.name)
        if known is None:
            self._get(agent.job, agent.walker)
            return False
        return known.epoch == agent.epoch

    async def _fetch(self, agent: Agent, model: ModelRef) -> None:
        """Fetch one of an agent's models. Raises `DaitnError`."""
        check_size(_first(agent).needs.size_bytes, model)
        if self._note is not None:
            release_to = Itinerary.of(agent).may_travel_to(model)
            self._note(model.manifest, _first(agent).intent.owner, release_to)
        await self._transport.fetch(model, lambda done, total: None)

    async def _update(self, agent: Agent) -> None:
        self._store.put(agent)
        self._index(Itinerary.of(agent))
        if agent.name in self._open:
            self._to_back_up[agent.name] = agent
        shown = self._view(agent)
        try:
            await self._fabric.publish(keys.site_event(self._site, agent.job), encode(shown))
        except DaitnError as error:
            log.debug("the state of %s was not published: %s", agent.job, error)

    def _index(self, itinerary: Itinerary) -> None:
        name = itinerary.agent.name
        if self._accounts is not None:
            job = itinerary.job
            self._accounts.note(itinerary.agent, len(job.entries), ended=job.state.final)
        self._models[name] = frozenset(model.manifest for model in itinerary.models())
        if itinerary.job.state.final:
            for of in (
                self._open,
                self._to_back_up,
                self._reported_at_s,
                self._whereabouts,
                self._backed_up,
            ):
                of.pop(name, None)
            if itinerary.job.state is JobState.REACHED:
                self._reached.add(itinerary.job.id)
        else:
            self._open[name] = itinerary.agent

    async def _watch(self) -> None:
        await asyncio.sleep(CHECK_EVERY_S)
        for job in tuple(self._reached):
            if any(agent.job == job for agent in self._open.values()):
                await self._cancel_safely(job)
            self._reached.discard(job)
        now_s = time.monotonic()
        for name in tuple(self._open):
            silent_s = now_s - self._reported_at_s.setdefault(name, now_s)
            agent = self._open.get(name)  # It may have ended since this round began.
            if silent_s > LOST_S and agent is not None:
                await self._restart_safely(agent)

    async def _back_up_all(self) -> None:
        """Copy the measured weights of agents under way: a host may be lost with its copy."""
        await asyncio.sleep(CHECK_EVERY_S)
        for agent in tuple(self._to_back_up.values()):
            try:
                await self._back_up(agent)
                if self._to_back_up.get(agent.name) is agent:
                    del self._to_back_up[agent.name]
            except DaitnError as error:
                log.debug("weights of %s are not backed up yet: %s", agent.name, error)
            except Exception:
                log.exception("backing up weights of %s failed", agent.name)

    async def _back_up(self, agent: Agent) -> None:
        if agent.name not in self._open:
            return
        backed_up = self._backed_up.setdefault(agent.name, set())
        for model in Itinerary.of(agent).measured_models():
            if model.manifest not in backed_up:
                await self._fetch(agent, model)
                backed_up.add(model.manifest)

    async def _restart_safely(self, agent: Agent) -> None:
        try:
            await self._restart(agent)
        except Exception:
            log.exception("restarting the agent of %s failed", agent.name)
            self._reported_at_s[agent.name] = time.monotonic()

    async def _restart(self, agent: Agent) -> None:
        """Restart a lost agent from its last reported facts, without the site that lost it."""
        itinerary = Itinerary.of(agent)
        try:
            if self._guard is not None:
                self._guard.check_models(itinerary)
        except DaitnError as error:  # A site that made its models may be revoked.
            log.warning("%s cannot go on: %s", agent.name, error)
            itinerary.take(ActionFailed(ErrorReport.of(error)), self._runtime.now_s())
            await self._update(msgspec.structs.replace(itinerary.agent, epoch=agent.epoch + 1))
            return
        log.warning("%s is lost and is restarted", agent.name)
        for outstanding in tuple(itinerary.job.outstanding.values()):
            itinerary.take(SiteLost(outstanding.site), self._runtime.now_s())
        await self._send_out(msgspec.structs.replace(itinerary.agent, epoch=agent.epoch + 1))

    async def _send_out(self, agent: Agent) -> None:
        await self._update(agent)
        self._reported_at_s[agent.name] = time.monotonic()
        self._host.send_out(agent)

    # Owners

    async def _on_submit(self, key: str, payload: bytes) -> bytes:
        """`SubmitIntent` -> `JobView`: start a job here; the same order again is the same job."""
        request = decode(payload, SubmitIntent)
        name = checked_name(request.intent.name, "name")
        check_owner(request.intent.owner, f"an intent of {request.intent.owner}")
        if self._guard is not None:
            self._guard.orders.check(request.order, request.intent, request.start)
        if (known := self._ordered(request.order)) is not None:
            return encode(self._view(known))
        self._check_quota(request.intent.owner)
        if request.intent.training.rule is not None:
            raise InvalidInput(
                "a model that travels by itself is at one site at a time",
                field="training.algorithm",
                fix="take the algorithm sequential or gossip, or train without --autonomous",
            )
        if request.start is not None:
            raise InvalidInput(
                "a model that travels by itself starts without weights",
                field="model.start",
                fix="leave it out, or train without --autonomous",
            )
        if request.intent.training.credits_usd is not msgspec.UNSET:
            raise InvalidInput(
                "nobody holds what is set aside for a model that travels by itself",
                field="training.credits_usd",
                fix="leave it out, or train without --autonomous",
            )
        agent = await self._submitted(name, request)
        if (known := self._ordered(request.order)) is not None:
            return encode(self._view(known))
        agents = _walking(agent)
        self._put_all(agents)
        for one in agents:
            await self._send_out(one)
        return encode(self._view(agent))

    def _put_all(self, agents: Sequence[Agent]) -> None:
        """Have all on disk before the first one sets out, or none."""
        try:
            for one in agents:
                self._store.put(one)
        except DaitnError:
            for one in agents:
                self._store.drop(one)
            raise

    def _check_quota(self, owner: OwnerId) -> None:
        """Raise `Refused` if the owner has as many models under way as it may."""
        open_ = len({one.job for one in self._open.values() if _first(one).intent.owner == owner})
        if open_ >= OPEN_JOBS:
            raise Refused(
                f"{owner} has {open_} open jobs here, which is the most",
                field="owner",
                fix="wait for one to end, or cancel one",
            )

    def _ordered(self, order: SignedOrder | None) -> Agent | None:
        """The agent that an order has sent out, if it has."""
        agents = self._store.all()
        return next((one for one in agents if same_order(_first(one).order, order)), None)

    async def _submitted(self, name: str, request: SubmitIntent) -> Agent:
        model = request.intent.model
        check_travels(request.intent)
        needs = await self._needs(RecipeQuestion(recipe=model.recipe, config=model.config))
        now_s = self._runtime.now_s()
        check_walks(request.intent, needs)
        taken = self._store.names()
        number = 1
        # Jobs of two homes meet at hosts, so a number alone is not unique.
        while (job := JobId(f"{name}-{self._site}-{number}")) in taken | self._naming:
            number += 1
        self._naming.add(job)
        # The last model's name is the longest.
        checked_name(agent_name(job, request.intent.training.travelling - 1), "name")
        first = Submitted(
            job=job, intent=request.intent, needs=needs, insist=request.insist, order=request.order
        )
        itinerary = Itinerary.of(Agent(job=job, home=self._site, facts=(DatedFact(now_s, first),)))
        try:
            itinerary.take(Assessed(await self._assess(itinerary, now_s)), now_s)
        finally:
            # The caller stores the job before it awaits anything.
            self._naming.discard(job)
        return itinerary.agent

    async def _assess(self, itinerary: Itinerary, now_s: float) -> Assessment:
        """Assess by what is advertised here: is there data that may reach the targets, and a
        verifier for each objective?"""
        step = await itinerary.decide(itinerary.local_view(self._runtime.core.routes), now_s)
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
        return Assessment(
            feasible=not reasons,
            reasons=tuple(reasons),
            rejections=(*topology.rejections, *step.decision.rejections),
            relaxations=(),
            route=route,
            snapshot_version=topology.snapshot.version,
        )

    async def _on_assess(self, key: str, payload: bytes) -> bytes:
        """`AssessIntent` -> `Assessment`: say whether an intent is feasible, and start nothing."""
        intent = decode(payload, AssessIntent).intent
        check_owner(intent.owner, f"an intent of {intent.owner}")
        agent = await self._submitted(
            checked_name(intent.name, "name"), SubmitIntent(intent=intent)
        )
        return encode(Itinerary.of(agent).job.assessment)

    async def _on_jobs(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `JobList`: one job whose home this is, or all of them with an empty id."""
        query = decode(payload, JobQuery)
        if query.job:
            found: tuple[Agent, ...] = (self._own(query.job),)
        else:
            each = {one.job: one for one in self._store.all()}.values()
            found = tuple(one for one in each if visible(_first(one).intent.owner))
        return encode(JobList(jobs=tuple(map(self._view, found))))

    async def _on_decisions(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `DecisionList`: every decision on a job's route, a list of `Decided`."""
        agent = self._own(decode(payload, JobQuery).job)
        histories = (
            [(fact.event, fact.at_s) for fact in one.facts] for one in self._walkers(agent)
        )
        return encode(DecisionList(decisions=decisions_of(histories)))

    async def _on_lineage(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `TrainedModel`: a job's best model with its lineage."""
        agent = self._own(decode(payload, JobQuery).job)
        shown, job = self._shown(agent)
        if shown.model is None:
            raise NotFound(f"{agent.job} has no measured model yet", field="job")
        lineage = Lineage(job=agent.job, entries=tuple(job.lineage))
        return encode(TrainedModel(job=shown, lineage=lineage))

    async def _on_cancel(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `JobView`: stop a job."""
        agent = self._own(decode(payload, JobQuery).job)
        await self._cancel(agent.job)
        return encode(self._view(self._get(agent.job)))

    def _walkers(self, agent: Agent) -> tuple[Agent, ...]:
        """The models that travel for an agent's job, without any that the disk lost."""
        walkers = range(_first(agent).intent.training.travelling)
        found = (
            agent if walker == agent.walker else self._find(agent.job, walker) for walker in walkers
        )
        return tuple(one for one in found if one is not None)

    def _view(self, agent: Agent) -> JobView:
        return self._shown(agent)[0]

    def _shown(self, agent: Agent) -> tuple[JobView, Job]:
        """An agent's job, and the one of its models that is the best."""
        jobs = [Itinerary.of(one).job for one in self._walkers(agent)]
        shown, best = view_of(jobs, self._runtime.now_s())
        if shown.model is None or shown.state is not JobState.REACHED:
            return shown, best
        holders = tuple(dict.fromkeys((self._site, *shown.model.holders)))
        model = msgspec.structs.replace(shown.model, holders=holders)
        return msgspec.structs.replace(shown, model=model), best

    def _own(self, job: JobId) -> Agent:
        """An agent that the caller may see and command. Raises `NotFound`, `Refused`."""
        agent = self._get(job)
        check_owner(_first(agent).intent.owner, f"job {job}")
        return agent

    def _get(self, job: JobId, walker: int | None = None) -> Agent:
        """An agent of a job: this one, or the first that is here. Raises `NotFound`."""
        walkers = range(MOST_WALKERS) if walker is None else (walker,)
        for number in walkers:
            if (agent := self._find(job, number)) is not None:
                return agent
        raise NotFound(
            f"{self._site} is not the home of {job}",
            field="job",
            fix="ask the site where it was submitted",
        )

    def _find(self, job: JobId, walker: int) -> Agent | None:
        return self._open.get(agent_name(job, walker)) or self._store.get(job, walker)


def _walking(first: Agent) -> tuple[Agent, ...]:
    """All models that travel for a job, given the first as it sets out."""
    dated, *rest = first.facts
    submitted = _first(first)

    def walker(number: int) -> Agent:
        fact = DatedFact(dated.at_s, msgspec.structs.replace(submitted, walker=number))
        return msgspec.structs.replace(first, walker=number, facts=(fact, *rest))

    return tuple(map(walker, range(submitted.intent.training.travelling)))


def _first(agent: Agent) -> Submitted:
    """How the agent's job began. Raises `Corrupt` if its facts do not say so."""
    first = agent.facts[0].event if agent.facts else None
    if not isinstance(first, Submitted):
        raise Corrupt(f"the facts of {agent.job} do not begin with its submission", field="facts")
    return first
