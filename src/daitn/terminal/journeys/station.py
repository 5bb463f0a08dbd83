"""A site on the way of models that travel by themselves: it takes them over, does what they came
for, and lets them go on.

A model is taken over once its weights are here and its journey is on disk; only then does the site
that it came from forget it. So at every moment one site at least has both.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine

import msgspec

from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import DaitnError, ErrorReport, IllegalTransition, StorageFull
from daitn.objects.identifiers import Digest, JobId, SiteId
from daitn.objects.jobs import (
    CandidateLost,
    DeadlinePassed,
    JobEvent,
    JobState,
    Planned,
    Reported,
    VerifiersChosen,
    Woke,
)
from daitn.objects.journeys import Heard, Journey, Note
from daitn.objects.messages import Work, WorkOutcome, WorkState
from daitn.objects.models import ModelRef
from daitn.objects.wire import decode, encode
from daitn.steering.wire.packet import MOST_HOPS, Action, Kind, Packet
from daitn.steering.wire.replies import Reason, Refusal, read_refusal
from daitn.steering.wire.want import Capability, Want, encode_want
from daitn.terminal.desk import Done
from daitn.terminal.forwarder.post import NotServed, Post, new_id
from daitn.terminal.journeys.going import Going, home_want
from daitn.terminal.journeys.luggage import Luggage

__all__ = ["Station"]

log = logging.getLogger(__name__)

RETRY_S = 0.5
"""Before a note that was not heard is sent again."""
NOTE_EVERY_S = 5.0
NOTE_TIMEOUT_S = 10.0
FULL_S = 5.0
"""Until a full disk is looked at again."""
MOST_FETCHES = 3
"""After that many in vain, weights that are not measured yet are given up."""
MOST_SPARED = 32
"""Sites that a packet is told not to try: each uses up a hop."""
LEG_TIMEOUT_S = 3600.0
"""For a model to be taken over at its next stop: as long as its weights take there."""


class Station:
    """See the module. It is a `Service` for the capabilities `data` and `verify`."""

    def __init__(
        self,
        site: SiteId,
        post: Post,
        luggage: Luggage,
        bring: Callable[[ModelRef], Awaitable[None]],
        perform: Callable[[Work], Awaitable[Done]],
        descriptor: Callable[[], NodeDescriptor],
    ) -> None:
        self._site = site
        self._post = post
        self._luggage = luggage
        self._bring = bring
        self._perform = perform
        self._descriptor = descriptor
        self._going: dict[JobId, asyncio.Task[None]] = {}

    def resume(self) -> None:
        """After a start: take on what was here."""
        for journey in self._luggage.all():
            self._begin(journey.job, self._resumed(journey))

    async def close(self) -> None:
        """Stop; what is here stays on disk."""
        for task in self._going.values():
            task.cancel()
        await asyncio.gather(*self._going.values(), return_exceptions=True)

    def models(self) -> frozenset[Digest]:
        """Weights that the journeys here need."""
        return frozenset(
            model.manifest
            for journey in self._luggage.all()
            for model in Going.of(journey).models()
        )

    def send_out(self, journey: Journey) -> None:
        """A journey begins here, or begins anew."""
        self._luggage.put(journey)
        self._begin(journey.job, self._resumed(journey))

    # Taking over

    async def serve(self, packet: Packet, want: Want) -> bytes:
        """See `Service`: answered once the model is taken over."""
        journey = decode(packet.payload, Journey)
        known = self._luggage.get(journey.job)
        if known is not None and known.stage() > journey.stage():
            return b""
        going = Going.of(journey)
        event = await self._arrival(going, want)
        for model in going.models():
            await self._bring(model)
        known = self._luggage.get(journey.job)
        if known is not None and known.stage() > journey.stage():
            return b""
        going.journey = msgspec.structs.replace(going.journey, choices=())
        going.take(event, self._post.now_s())
        self._luggage.put(going.journey)
        self._begin(journey.job, self._travel(going))
        return b""

    async def _arrival(self, going: Going, want: Want) -> Planned | VerifiersChosen:
        """What its arrival means for its job. Raises `NotServed` where it came in vain."""
        node = self._descriptor()
        if want.capability == Capability.VERIFY:
            if going.trained_at == self._site:
                raise NotServed(Refusal(Reason.FAILED, "who trained a model does not measure it"))
            tests = node.verifier.tests if node.verifier else ()
            chosen = going.verified_by(self._site, frozenset(test.topic for test in tests))
            if not chosen.assignments:
                raise NotServed(Refusal(Reason.FAILED, f"nothing on {want.subject} is tested here"))
            return chosen
        if going.job.state is not JobState.PLANNING:
            raise NotServed(
                Refusal(Reason.FAILED, f"a job that is {going.job.state} learns nothing")
            )
        return await self._to_learn(going, node)

    async def _to_learn(self, going: Going, node: NodeDescriptor) -> Planned:
        """That it learns here: no site that it might go to instead is better, now that this site
        is known. Raises `NotServed`."""
        heard = going.heard(self._post.core.routes, node)
        choices = {self._site, *going.journey.choices}
        later = tuple(one.site for one in heard.prospects if one.site not in choices)
        heading = await going.decide(heard, self._post.now_s(), later, self._site)
        if heading.route is not None and heading.route.visits[0].site == self._site:
            return going.planned(heading)
        own = f"{self._site}/"
        found = heading.question.topology.rejections
        reasons = [no.reason for no in found if no.candidate.startswith(own)]
        if not reasons and self._site in going.job.excluded:
            reasons = [f"{self._site} failed this job too often"]
        if not reasons and heading.route is not None:
            reasons = [f"{heading.route.visits[0].site} is expected to teach it more"]
        reason = "; ".join(reasons) or "no gain is expected of the data here"
        raise NotServed(Refusal(Reason.FAILED, reason[:500]))

    # Going on

    def _begin(self, job: JobId, work: Coroutine[None, None, None]) -> None:
        before = self._going.pop(job, None)
        if before is not None:
            before.cancel()
        task = self._going[job] = asyncio.create_task(self._guarded(job, work), name=f"model {job}")
        task.add_done_callback(lambda ended: self._ended(job, ended))

    def _ended(self, job: JobId, ended: asyncio.Task[None]) -> None:
        if self._going.get(job) is ended:
            del self._going[job]

    async def _guarded(self, job: JobId, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception:
            log.exception("the model of %s does not go on", job)

    async def _resumed(self, journey: Journey) -> None:
        try:
            going = Going.of(journey)
        except DaitnError as error:
            log.error("the journey of %s cannot be read: %s", journey.job, error)
            return
        await self._travel(going)

    async def _travel(self, going: Going) -> None:
        """Do what is to be done here, then go on to where the rest can be done."""
        noting = asyncio.create_task(self._note_for_ever(going))
        try:
            while not await self._on(going):
                pass
        finally:
            noting.cancel()
            await asyncio.gather(noting, return_exceptions=True)
        self._luggage.drop(going.journey)

    async def _on(self, going: Going) -> bool:
        """One thing more. Returns whether the model is taken over elsewhere."""
        job, now_s = going.job, self._post.now_s()
        if job.state.final:
            return await self._leave_or_rest(going, home_want(going.journey.home), ())
        if job.deadline_at_s is not None and now_s >= job.deadline_at_s:
            await self._take(going, DeadlinePassed())
        elif job.outstanding:
            await self._work(going)
        elif job.state is JobState.VERIFYING and going.open_objectives():
            return await self._to_verifier(going)
        elif job.state is JobState.WAITING:
            wake_at_s = min(job.wake_at_s or now_s, job.deadline_at_s or math.inf)
            await asyncio.sleep(max(0.0, wake_at_s - now_s))
            await self._take(going, Woke())
        elif job.state is JobState.PLANNING:
            return await self._to_data(going)
        else:
            raise IllegalTransition(f"a job that is {job.state} does not travel")
        return False

    async def _to_verifier(self, going: Going) -> bool:
        candidate = going.job.candidate
        assert candidate is not None
        try:
            # They are here, unless the site that had them was lost.
            await self._bring(candidate.model)
        except DaitnError as error:
            log.warning("the weights of %s are away: %s", going.job.id, error)
            going.missed += 1
            if going.missed < MOST_FETCHES:
                await asyncio.sleep(RETRY_S * 2.0**going.missed)
            else:
                await self._take(going, CandidateLost(str(error)))
            return False
        spared = (going.trained_at,) if going.trained_at else ()
        return await self._leave_or_rest(going, going.verify_want(), spared)

    async def _to_data(self, going: Going) -> bool:
        heard = going.heard(self._post.core.routes)
        later = tuple(going.refused)
        heading = await going.decide(heard, self._post.now_s(), later)
        route = heading.route
        if route is None:
            await self._take(going, going.unplanned(heading))
            going.refused.clear()
            return False
        site, want = route.visits[0].site, going.data_want(heading)
        choices = heading.choices()
        nearest = reversed(heard.prospects)
        offering = [one.site for one in nearest if one.topic == want.subject]
        # Once one refused it, forwarders choose among all that may be better than to wait.
        spared = [at for at in offering if at != site and (not later or at not in choices)]
        taken = await self._leave(going, want, tuple(spared), choices)
        if not taken:
            going.refused[site] = going.refusal
            await asyncio.sleep(RETRY_S)
        return taken

    async def _leave_or_rest(self, going: Going, want: Want, spared: tuple[str, ...]) -> bool:
        taken = await self._leave(going, want, spared)
        if not taken:
            await asyncio.sleep(going.pause_s())
        return taken

    async def _leave(
        self,
        going: Going,
        want: Want,
        spared: tuple[str, ...],
        choices: tuple[SiteId, ...] = (),
    ) -> bool:
        """Go on to who does what is wanted; sites in `spared` are not tried.

        Returns whether it was taken over.
        """
        packet = Packet(
            Kind.MODEL,
            new_id(),
            encode_want(want),
            encode(msgspec.structs.replace(going.journey, choices=choices)),
            hop_limit=MOST_HOPS,
            deadline_ms=int(1000 * (self._post.now_s() + LEG_TIMEOUT_S)),
        )
        for site in [site for site in spared if site != self._site][:MOST_SPARED]:
            packet = packet.stepped(site, int(1000 * self._post.now_s()), Action.TRIED, 0)
        back = await self._post.send(packet)
        if back.kind is Kind.ANSWER:
            return True
        refusal = read_refusal(back)
        going.refusal = refusal.detail or refusal.reason.name.lower()
        log.info(
            "%s finds no %s:%s: %s %s",
            going.job.id, want.capability, want.subject, refusal.reason.name, refusal.detail,
        )  # fmt: skip
        return False

    async def _take(self, going: Going, event: JobEvent) -> None:
        going.take(event, self._post.now_s())
        while True:
            try:
                self._luggage.put(going.journey)
                return
            except StorageFull as error:
                log.warning("the journey of %s waits: %s", going.job.id, error)
                await asyncio.sleep(FULL_S)

    async def _work(self, going: Going) -> None:
        outstanding = next(iter(going.job.outstanding.values()))
        work = outstanding.work
        if outstanding.site != self._site:
            raise IllegalTransition(f"the work of {outstanding.site} is not done here")
        outcome = WorkOutcome(
            visit=work.visit, job=work.job, site=self._site, state=WorkState.FAILED
        )
        try:
            done = await self._perform(work)
            outcome = msgspec.structs.replace(
                outcome, state=WorkState.DONE, entry=done.entry, model=done.model
            )
        except DaitnError as error:
            log.warning("%s failed: %s", work.visit, error)
            outcome = msgspec.structs.replace(outcome, error=ErrorReport.of(error))
        await self._take(going, Reported(outcome))

    # Telling home

    async def _note_for_ever(self, going: Going) -> None:
        """Tell home how it is; a journey of which home says that it is stale ends."""
        told: Journey | None = None
        while True:
            journey = going.journey
            note = Note(
                site=self._site,
                journey=journey if journey is not told else None,
                job=journey.job,
                epoch=journey.epoch,
                facts=len(journey.facts),
            )
            heard = await self._note(journey.home, note)
            if heard is Heard.STALE:
                log.info("another journey of %s is under way; this one ends", journey.job)
                self._luggage.drop(going.journey)
                if (travelling := self._going.pop(journey.job, None)) is not None:
                    travelling.cancel()
                return
            if heard is Heard.YES:
                told = journey
            await asyncio.sleep(NOTE_EVERY_S if told is going.journey else RETRY_S)

    async def _note(self, home: SiteId, note: Note) -> Heard | None:
        """What home says; none: it is not reached."""
        packet = Packet(
            Kind.QUERY,
            new_id(),
            encode_want(home_want(home)),
            encode(note),
            deadline_ms=int(1000 * (self._post.now_s() + NOTE_TIMEOUT_S)),
        )
        back = await self._post.send(packet)
        try:
            return decode(back.payload, Heard) if back.kind is Kind.ANSWER else None
        except DaitnError:
            return None
