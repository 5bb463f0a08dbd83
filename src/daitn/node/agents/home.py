"""The home of agents: their owner's site sends them out, receives them, and restarts lost ones."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from daitn.identity.signing import check_lineage, check_model
from daitn.node.agents.accounts import TravelReports
from daitn.node.agents.guard import AgentGuard
from daitn.node.agents.home_agents import HomeAgents
from daitn.node.agents.home_requests import HomeRequests
from daitn.node.agents.host import AgentHost
from daitn.node.agents.itinerary import Itinerary, submission
from daitn.node.agents.store import AgentStore
from daitn.node.forwarder.runtime import ForwarderRuntime
from daitn.node.training.bounds import check_size
from daitn.objects.agents import Agent, AgentName, AgentReport, ReportReply
from daitn.objects.errors import Corrupt, DaitnError, ErrorReport, Refused
from daitn.objects.identifiers import Digest, JobId, SiteId
from daitn.objects.jobs import ActionFailed, CancelRequested, JobState, SiteLost, WorkNeeds
from daitn.objects.lineage import Lineage, ancestry
from daitn.objects.messages import RecipeQuestion
from daitn.objects.models import ModelRef
from daitn.objects.wire import decode, encode
from daitn.steering.wire.intent import PacketIntent
from daitn.steering.wire.packet import Packet, PacketKind
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric, Handler
from daitn.tools.mobility.protocol import ModelTransport
from daitn.tools.mobility.releases import Release
from daitn.tools.tasks import Tasks

__all__ = ["AgentHome"]

log = logging.getLogger(__name__)

LOST_S = 30.0
"""An agent without news for this long is lost: hosts report on it every few seconds."""
CHECK_EVERY_S = 1.0


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
        """`guard` checks orders and arrivals; `None` on a fabric without signatures. `note` is
        called with the models stored here. `accounts` reports their usage; `None` reports
        nothing."""
        self._note = note
        self._accounts = accounts
        self._guard = guard
        self._fabric = fabric
        self._runtime = runtime
        self._host = host
        self._transport = transport
        self._agents = HomeAgents(site, store, runtime.now_s)
        self._open = self._agents.open
        self._requests = HomeRequests(
            self._agents, runtime, needs, guard, host.view, self._send_out_all, self._cancel
        )
        self._models: dict[AgentName, frozenset[Digest]] = {}
        """Weights that each agent needs, ended or not."""
        self._reported_at_s: dict[AgentName, float] = {}
        self._whereabouts: dict[AgentName, tuple[tuple[int, int], SiteId]] = {}
        """The latest reported stage of each agent, with the reporting site."""
        self._backed_up: dict[AgentName, set[Digest]] = {}
        self._to_back_up: dict[AgentName, Agent] = {}
        """Agents whose weights may not be backed up here yet."""
        self._reached: set[JobId] = set()
        """Jobs with a model at home that reached the targets: the others need not continue."""
        self._tasks = Tasks()

    def start(self) -> None:
        """Await reports on travelling agents."""
        for agent in self._agents.store.all():
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
        """See `HomeRequests`."""
        return self._requests.handlers()

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
            self._agents.get(report.job, report.walker)
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
        # An agent that ended elsewhere is not home yet: its weights still have to arrive.
        if not itinerary.job.state.final:
            await self._update(itinerary.agent)
        return ReportReply.YES

    def _reported(self, packet: Packet, report: AgentReport, known: Agent) -> Itinerary | None:
        """The agent of a report, if the report is new.

        Raises `Refused` or `Corrupt` unless the site that reports sent it, and has this agent.
        """
        agent = report.agent
        if agent is None:
            self._check_repeated(packet, report, known)
            return None
        standing = (agent.name, agent.home, agent.stage(), submission(agent))
        if standing != (report.name, self._agents.site, report.stage(), submission(known)):
            raise Corrupt(f"the report on {report.job} is about another agent", field="agent")
        if agent.epoch > known.epoch:
            raise Corrupt(f"{report.job} was not sent out so often", field="epoch")
        itinerary = Itinerary.of(agent)
        if self._guard is not None:
            self._guard.check_models(itinerary)
            self._guard.check_sender(packet, agent, report.site)
        return itinerary

    def _check_repeated(self, packet: Packet, report: AgentReport, known: Agent) -> None:
        """Raise unless a report without an agent repeats its site's earlier report."""
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
        if submission(agent) != submission(known):
            raise Corrupt(f"{agent.job} has returned as another job", field="facts")
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

    async def _cancel(self, job: JobId, by: str) -> None:
        """End all travelling models of a job, as they are now: nothing is awaited meanwhile, or
        what is reported then would be overwritten. `by`: the member who asked; empty if unknown."""
        agents = self._agents.walkers(self._agents.get(job))
        for agent in agents:
            itinerary = Itinerary.of(agent)
            if not itinerary.job.state.final:
                itinerary.take(CancelRequested(by=by), self._runtime.now_s())
                self._keep(msgspec.structs.replace(itinerary.agent, epoch=agent.epoch + 1))
        await self._publish(agents[0])

    async def _cancel_safely(self, job: JobId) -> None:
        """Agents that cannot be cancelled now end on their own: nothing else waits for them."""
        try:
            await self._cancel(job, by="")
        except Exception:
            log.exception("ending the other models of %s failed", job)

    def _awaits(self, agent: Agent) -> bool:
        known = self._open.get(agent.name)
        if known is None:
            self._agents.get(agent.job, agent.walker)
            return False
        return known.epoch == agent.epoch

    async def _fetch(self, agent: Agent, model: ModelRef) -> None:
        """Fetch one of an agent's models. Raises `DaitnError`."""
        check_size(submission(agent).needs.size_bytes, model)
        if self._note is not None:
            release_to = Itinerary.of(agent).may_travel_to(model)
            self._note(model.manifest, submission(agent).intent.owner, release_to)
        await self._transport.fetch(model, lambda done, total: None)

    async def _update(self, agent: Agent) -> None:
        self._keep(agent)
        await self._publish(agent)

    def _keep(self, agent: Agent) -> None:
        self._agents.store.put(agent)
        self._kept(agent)

    def _kept(self, agent: Agent) -> None:
        self._index(Itinerary.of(agent))
        if agent.name in self._open:
            self._to_back_up[agent.name] = agent

    async def _publish(self, agent: Agent) -> None:
        """Publish the state of an agent's job."""
        shown = self._agents.view(self._agents.get(agent.job))
        try:
            await self._fabric.publish(keys.site_event(self._agents.site, agent.job), encode(shown))
        except DaitnError as error:
            log.debug("the state of %s was not published: %s", agent.job, error)

    def _index(self, itinerary: Itinerary) -> None:
        name = itinerary.agent.name
        self._agents.note_order(itinerary.agent)
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
        """Copy the measured weights of travelling agents: a host may be lost with its copy."""
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
        """Restart a lost agent from its last reported facts, avoiding the site that lost it."""
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
        again = msgspec.structs.replace(itinerary.agent, epoch=agent.epoch + 1)
        self._agents.store.put(again)
        await self._send_out((again,))

    async def _send_out(self, agents: Sequence[Agent]) -> None:
        """Send out agents that are on disk. Nothing is awaited before all of a job's are under way:
        a cancel meanwhile would find some that are not."""
        for one in agents:
            self._kept(one)
            self._reported_at_s[one.name] = time.monotonic()
            self._host.send_out(one)
        await self._publish(agents[0])

    async def _send_out_all(self, agents: Sequence[Agent]) -> None:
        """Send out all agents of a new job. They are on disk before the first one leaves, or none
        is."""
        try:
            for one in agents:
                self._agents.store.put(one)
        except DaitnError:
            for one in agents:
                self._agents.store.drop(one)
            raise
        await self._send_out(agents)
