"""A host of agents: takes over travelling models, does their work, and sends them on.

A host has taken over an agent once the weights are here and the facts are on disk; only then does
the previous host forget it. So at least one site has both at any time.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import msgspec

from daitn.control.jobs.stages import RETRY_AT_MOST_S
from daitn.control.route.next_site import LocalView
from daitn.node.agents.guard import AgentGuard
from daitn.node.agents.itinerary import Itinerary, home_intent
from daitn.node.agents.store import AgentStore, LeftModels
from daitn.node.forwarder.runtime import ForwarderRuntime, NotServed, new_id
from daitn.node.training.work_queue import WorkResult
from daitn.objects.agents import Agent, AgentName, AgentReport, ReportReply
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import DaitnError, ErrorReport, IllegalTransition, StorageFull, WorkFailed
from daitn.objects.identifiers import Digest, SiteId, VisitId
from daitn.objects.jobs import (
    ActionFailed,
    CandidateLost,
    DeadlinePassed,
    JobEvent,
    JobState,
    Planned,
    Reported,
    VerifiersChosen,
    Woke,
)
from daitn.objects.messages import RecipeQuestion, VerifyWork, Work, WorkOutcome, WorkState
from daitn.objects.models import ModelRef
from daitn.objects.text import without_folders
from daitn.objects.wire import decode, encode
from daitn.steering.wire.intent import Capability, PacketIntent, encode_intent
from daitn.steering.wire.packet import MOST_HOPS, Action, Packet, PacketKind
from daitn.steering.wire.replies import Reason, Refusal, read_refusal
from daitn.tools.mobility.releases import Release
from daitn.tools.tasks import Tasks

__all__ = ["AgentHost"]

log = logging.getLogger(__name__)

RETRY_S = 0.5
"""Pause before a lost report is sent again."""
REPORT_EVERY_S = 5.0
REPORT_TIMEOUT_S = 10.0
FULL_S = 5.0
"""Pause before a full disk is tried again."""
MOST_FETCHES = 3
"""After this many failed fetches, unmeasured weights are given up."""
MOST_AVOIDED = 32
"""Limit on the sites that a packet avoids: each uses up a hop."""
LEG_TIMEOUT_S = 3600.0
"""Time for the next host to take over, which includes the transfer of weights."""


class AgentHost:
    """See the module. It is a `Service` for the capabilities `data` and `verify`."""

    def __init__(
        self,
        site: SiteId,
        runtime: ForwarderRuntime,
        store: AgentStore,
        prefetch: Callable[[ModelRef, RecipeQuestion], Awaitable[None]],
        perform: Callable[[Work], Awaitable[WorkResult]],
        descriptor: Callable[[], NodeDescriptor],
        guard: AgentGuard | None = None,
        note: Release | None = None,
        ended: Callable[[VisitId], None] = lambda _: None,
        left: LeftModels | None = None,
        announced: Callable[[], Iterable[NodeDescriptor]] = tuple,
    ) -> None:
        """`guard` checks and signs packets; `None` on a fabric without signatures. `note`: as in
        `AgentHome`. `ended` is called with work whose outcome is on disk. `left` stores what models
        of one job leave for each other; `None` stores nothing. `announced` gives the descriptors of
        the available sites that this one has received."""
        self._left = left
        self._announced = announced
        self._note = note
        self._ended = ended
        self._guard = guard
        self._site = site
        self._runtime = runtime
        self._store = store
        self._prefetch = prefetch
        self._perform = perform
        self._descriptor = descriptor
        self._tasks = Tasks()
        """One task per agent."""

    def resume(self) -> None:
        """After a start: continue with the agents on disk."""
        for agent in self._store.all():
            self._spawn(agent.name, partial(self._resumed, agent))

    async def close(self) -> None:
        """Stop; agents stay on disk."""
        await self._tasks.close()

    @property
    def hosted(self) -> int:
        """Number of agents here."""
        return len(self._store.all())

    def models(self) -> frozenset[Digest]:
        """Weights that agents here need."""
        needed = frozenset(
            model.manifest for agent in self._store.all() for model in Itinerary.of(agent).models()
        )
        if self._left is None:
            return needed
        self._left.forget_old(self._runtime.now_s())
        return needed | self._left.models()

    def send_out(self, agent: Agent) -> None:
        """Send an agent out, for the first time or again."""
        self._store.put(agent)
        self._spawn(agent.name, partial(self._resumed, agent))

    def view(self, itinerary: Itinerary, node: NodeDescriptor | None = None) -> LocalView:
        """See `Itinerary.local_view`."""
        return itinerary.local_view(self._runtime.core.routes, self._announced(), node)

    # Taking over

    async def serve(self, packet: Packet, intent: PacketIntent) -> bytes:
        """See `Service`: answers once the agent is taken over."""
        agent = decode(packet.payload, Agent)
        known = self._store.get(agent.job, agent.walker)
        if known is not None and known.stage() > agent.stage():
            return b""
        itinerary = Itinerary.of(agent)
        self._check(packet, itinerary)
        event = await self._arrival(itinerary, intent)
        for model in itinerary.models():
            await self._bring(itinerary, model)
        known = self._store.get(agent.job, agent.walker)
        if known is not None and known.stage() > agent.stage():
            return b""
        itinerary.agent = msgspec.structs.replace(itinerary.agent, choices=())
        itinerary.take(event, self._runtime.now_s())
        self._store.put(itinerary.agent)
        self._spawn(agent.name, partial(self._travel, itinerary))
        return b""

    def _check(self, packet: Packet, itinerary: Itinerary) -> None:
        """Raise `NotServed` unless a site that has the agent sent it, and its owner ordered it."""
        if self._guard is None:
            return
        try:
            self._guard.check_order(itinerary)
            self._guard.check_models(itinerary)
            self._guard.check_sender(packet, itinerary.agent)
        except DaitnError as error:
            raise NotServed(Refusal(Reason.FAILED, error.problem)) from None

    async def _bring(self, itinerary: Itinerary, model: ModelRef) -> None:
        """Fetch one of its models. Raises `DaitnError`."""
        wanted, owner = itinerary.job.intent.model, itinerary.job.intent.owner
        if self._note is not None:
            self._note(model.manifest, owner, itinerary.may_travel_to(model))
        # Its home has copies of everything measured, and facts name no home as a holder.
        holders = tuple(dict.fromkeys((*model.holders, itinerary.agent.home)))
        await self._prefetch(
            msgspec.structs.replace(model, holders=holders),
            RecipeQuestion(recipe=wanted.recipe, config=wanted.config),
        )

    async def _arrival(
        self, itinerary: Itinerary, intent: PacketIntent
    ) -> Planned | VerifiersChosen:
        """The event of its arrival for its job. Raises `NotServed` if it cannot be served here."""
        node = self._descriptor()
        if intent.capability == Capability.VERIFY:
            if itinerary.trained_at == self._site:
                raise NotServed(
                    Refusal(Reason.FAILED, "a site does not measure a model that it trained")
                )
            tests = node.verifier.tests if node.verifier else ()
            chosen = itinerary.verified_by(self._site, frozenset(test.topic for test in tests))
            if not chosen.assignments:
                raise NotServed(Refusal(Reason.FAILED, f"no test on {intent.subject} here"))
            return chosen
        if itinerary.job.state is not JobState.PLANNING:
            raise NotServed(
                Refusal(Reason.FAILED, f"a job that is {itinerary.job.state} does not train")
            )
        if self._learns_here(itinerary):
            raise NotServed(Refusal(Reason.FAILED, "another model of its job learns here now"))
        return await self._plan_here(itinerary, node)

    def _learns_here(self, itinerary: Itinerary) -> bool:
        """Whether another walker of its job learns here: this one learns more elsewhere
        meanwhile."""
        agent = itinerary.agent
        others = set(range(itinerary.job.intent.training.travelling)) - {agent.walker}
        others_models = (self._store.get(agent.job, walker) for walker in sorted(others))
        return any(one is not None and self._works_here(one) for one in others_models)

    def _works_here(self, agent: Agent) -> bool:
        """Whether an agent is trained or merged here, rather than waiting or travelling."""
        try:
            outstanding = Itinerary.of(agent).job.outstanding.values()
        except DaitnError:
            return False
        trains = (one for one in outstanding if not isinstance(one.work, VerifyWork))
        return any(one.site == self._site for one in trains)

    async def _plan_here(self, itinerary: Itinerary, node: NodeDescriptor) -> Planned:
        """The plan to train here. Raises `NotServed` if another possible site is better, now that
        this site is known."""
        view = self.view(itinerary, node)
        choices = {self._site, *itinerary.agent.choices}
        later = tuple(one.site for one in view.prospects if one.site not in choices)
        step = await itinerary.decide(view, self._runtime.now_s(), later, self._site)
        if step.route is not None and step.route.visits[0].site == self._site:
            left = self._left.get(itinerary.job.id) if self._left is not None else None
            return itinerary.planned(step, left)
        own = f"{self._site}/"
        found = step.question.topology.rejections
        reasons = [no.reason for no in found if no.candidate.startswith(own)]
        if not reasons and self._site in itinerary.job.excluded:
            reasons = [f"{self._site} failed this job too often"]
        if not reasons and step.route is not None:
            reasons = [f"a larger gain is expected at {step.route.visits[0].site}"]
        reason = "; ".join(reasons) or "no gain is expected from the data here"
        raise NotServed(Refusal(Reason.FAILED, reason[:500]))

    # Going on

    def _spawn(self, name: AgentName, work: Callable[[], Awaitable[None]]) -> None:
        self._tasks.anew(name, self._guarded(name, work), f"model {name}")

    async def _guarded(self, name: AgentName, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception:
            log.exception("the agent of %s is stuck", name)

    async def _resumed(self, agent: Agent) -> None:
        try:
            itinerary = Itinerary.of(agent)
        except DaitnError as error:
            log.error("the agent of %s cannot be read: %s", agent.job, error)
            return
        await self._travel(itinerary)

    async def _travel(self, itinerary: Itinerary) -> None:
        """Do the work for this site, then move on to where the rest can be done."""
        travelling = asyncio.current_task()
        assert travelling is not None
        reporting = asyncio.create_task(self._report_forever(itinerary, travelling))
        try:
            while not await self._step_safely(itinerary):
                pass
        finally:
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)
        self._store.drop(itinerary.agent)

    async def _step_safely(self, itinerary: Itinerary) -> bool:
        """Do the next step; a job whose host fails at it has failed, and reports that to its
        home."""
        try:
            return await self._step(itinerary)
        except Exception as error:
            log.exception("%s failed here", itinerary.job.id)
            if itinerary.job.state.final:
                await asyncio.sleep(itinerary.pause_s())
            else:
                failed = ErrorReport.of(_failure(self._site, error))
                await self._record(itinerary, ActionFailed(failed))
            return False

    async def _step(self, itinerary: Itinerary) -> bool:
        """Do the next step. Returns whether another host has taken over."""
        job, now_s = itinerary.job, self._runtime.now_s()
        if job.state.final:
            return await self._leave_or_pause(itinerary, home_intent(itinerary.agent.home), ())
        if job.deadline_at_s is not None and now_s >= job.deadline_at_s:
            await self._record(itinerary, DeadlinePassed())
        elif job.outstanding:
            await self._work(itinerary)
        elif job.state is JobState.VERIFYING and itinerary.open_objectives():
            return await self._to_verifier(itinerary)
        elif job.state is JobState.WAITING:
            wake_at_s = min(job.wake_at_s or now_s, job.deadline_at_s or math.inf)
            # Another site's clock, or this one's before it was set, may have been far ahead.
            await asyncio.sleep(min(max(0.0, wake_at_s - now_s), RETRY_AT_MOST_S))
            await self._record(itinerary, Woke())
        elif job.state is JobState.PLANNING:
            return await self._to_data(itinerary)
        else:
            raise IllegalTransition(f"a job that is {job.state} does not travel")
        return False

    async def _to_verifier(self, itinerary: Itinerary) -> bool:
        candidate = itinerary.job.candidate
        assert candidate is not None
        try:
            # The weights are here, unless their holder was lost.
            await self._bring(itinerary, candidate.model)
        except DaitnError as error:
            log.warning("the weights of %s are unavailable: %s", itinerary.job.id, error)
            itinerary.missed += 1
            if itinerary.missed < MOST_FETCHES:
                await asyncio.sleep(RETRY_S * 2.0**itinerary.missed)
            else:
                await self._record(itinerary, CandidateLost(without_folders(str(error))))
            return False
        avoided = (itinerary.trained_at,) if itinerary.trained_at else ()
        return await self._leave_or_pause(itinerary, itinerary.verify_intent(), avoided)

    async def _to_data(self, itinerary: Itinerary) -> bool:
        view = self.view(itinerary)
        later = tuple(itinerary.refused)
        step = await itinerary.decide_apart(view, self._runtime.now_s(), later)
        route = step.route
        if route is None:
            await self._record(itinerary, itinerary.unplanned(step))
            itinerary.refused.clear()
            return False
        site, intent = route.visits[0].site, itinerary.data_intent(step)
        choices = step.choices()
        nearest = reversed(view.prospects)
        offering = [one.site for one in nearest if one.topic == intent.subject]
        # After a refusal, forwarders choose among all sites that may be better than waiting.
        avoided = [at for at in offering if at != site and (not later or at not in choices)]
        moved = await self._leave(itinerary, intent, tuple(avoided), choices)
        if not moved:
            itinerary.refused[site] = itinerary.refusal
            await asyncio.sleep(RETRY_S)
        return moved

    async def _leave_or_pause(
        self, itinerary: Itinerary, intent: PacketIntent, avoided: tuple[str, ...]
    ) -> bool:
        moved = await self._leave(itinerary, intent, avoided)
        if not moved:
            await asyncio.sleep(itinerary.pause_s())
        return moved

    async def _leave(
        self,
        itinerary: Itinerary,
        intent: PacketIntent,
        avoided: tuple[str, ...],
        choices: tuple[SiteId, ...] = (),
    ) -> bool:
        """Move on to a site that serves `intent`, avoiding the sites in `avoided`.

        Returns whether that site took over.
        """
        packet = Packet(
            PacketKind.MODEL,
            new_id(),
            encode_intent(intent),
            encode(msgspec.structs.replace(itinerary.agent, choices=choices)),
            hop_limit=MOST_HOPS,
            deadline_ms=int(1000 * (self._runtime.now_s() + LEG_TIMEOUT_S)),
        )
        for site in [site for site in avoided if site != self._site][:MOST_AVOIDED]:
            packet = packet.stepped(site, int(1000 * self._runtime.now_s()), Action.TRIED, 0)
        back = await self._send(packet)
        if back.kind is PacketKind.ANSWER:
            return True
        refusal = read_refusal(back)
        itinerary.refusal = refusal.detail or refusal.reason.name.lower()
        log.info(
            "%s finds no %s:%s: %s %s",
            itinerary.job.id,
            intent.capability,
            intent.subject,
            refusal.reason.name,
            refusal.detail,
        )
        return False

    async def _record(self, itinerary: Itinerary, event: JobEvent) -> None:
        itinerary.take(event, self._runtime.now_s())
        while True:
            try:
                self._store.put(itinerary.agent)
                return
            except StorageFull as error:
                log.warning("the agent of %s waits: %s", itinerary.job.id, error)
                await asyncio.sleep(FULL_S)

    async def _work(self, itinerary: Itinerary) -> None:
        outstanding = next(iter(itinerary.job.outstanding.values()))
        work = outstanding.work
        if outstanding.site != self._site:
            raise IllegalTransition(f"the work of {outstanding.site} is not done here")
        outcome = WorkOutcome(
            visit=work.visit, job=work.job, site=self._site, state=WorkState.FAILED
        )
        statement = b""
        try:
            done = await self._perform(work)
            if self._guard is not None:
                statement = self._guard.stated(done.entry)
            outcome = msgspec.structs.replace(
                outcome, state=WorkState.DONE, entry=done.entry, model=done.model
            )
        except DaitnError as error:
            log.warning("%s failed: %s", work.visit, error)
            outcome = msgspec.structs.replace(outcome, error=ErrorReport.of(error))
        except Exception as error:
            log.exception("%s failed", work.visit)
            failed = ErrorReport.of(_failure(self._site, error))
            outcome = msgspec.structs.replace(outcome, error=failed)
        await self._record(itinerary, Reported(outcome, statement))
        self._ended(work.visit)
        if itinerary.job.state is JobState.VERIFYING and not isinstance(work, VerifyWork):
            self._leave_behind(itinerary)

    def _leave_behind(self, itinerary: Itinerary) -> None:
        """Store the result for the next walker of the job; without it, that walker fares no worse
        than a model that travels alone."""
        left = itinerary.leaves()
        if left is None or self._left is None:
            return
        try:
            self._left.put(left)
        except StorageFull as error:
            log.warning("%s leaves nothing here: %s", itinerary.agent.name, error)

    # Reports to the home

    async def _report_forever(self, itinerary: Itinerary, travelling: asyncio.Task[None]) -> None:
        """Report to the home; an agent that the home calls stale ends, and no other one of its
        name, which may have come here meanwhile."""
        reported: Agent | None = None
        while True:
            agent = itinerary.agent
            report = AgentReport(
                site=self._site,
                agent=agent if agent is not reported else None,
                job=agent.job,
                walker=agent.walker,
                epoch=agent.epoch,
                facts=len(agent.facts),
            )
            reply = await self._report(agent.home, report)
            if reply is ReportReply.STALE:
                log.info("another agent of %s is under way; this one ends", agent.name)
                self._store.drop(itinerary.agent)
                if not travelling.cancelling():  # A second time would interrupt its clean-up.
                    travelling.cancel()
                return
            reported = agent if reply is ReportReply.YES else None
            await asyncio.sleep(REPORT_EVERY_S if reported is itinerary.agent else RETRY_S)

    async def _report(self, home: SiteId, report: AgentReport) -> ReportReply | None:
        """The home's reply; none if it cannot be reached."""
        packet = Packet(
            PacketKind.QUERY,
            new_id(),
            encode_intent(home_intent(home)),
            encode(report),
            deadline_ms=int(1000 * (self._runtime.now_s() + REPORT_TIMEOUT_S)),
        )
        try:
            back = await self._send(packet)
            return decode(back.payload, ReportReply) if back.kind is PacketKind.ANSWER else None
        except DaitnError:
            return None
        except Exception:
            log.exception("reporting to %s failed", home)
            return None

    async def _send(self, packet: Packet) -> Packet:
        return await self._runtime.send(self._guard.sign(packet) if self._guard else packet)


def _failure(site: SiteId, error: Exception) -> DaitnError:
    if isinstance(error, DaitnError):
        return error
    return WorkFailed(
        f"{site} failed at this work: {type(error).__name__}", fix="see the site's log"
    )
