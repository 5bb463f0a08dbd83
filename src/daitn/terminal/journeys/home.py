"""Where models set out and come home: their owner's site, which sends out anew what was lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from daitn.control.jobs.machine import decisions
from daitn.control.jobs.view import view
from daitn.control.route.next_site import check_travels
from daitn.identity.signing import check_lineage
from daitn.objects.decisions import Assessment
from daitn.objects.errors import Corrupt, DaitnError, InvalidInput, NotFound
from daitn.objects.identifiers import Digest, JobId, ObjectiveName, SiteId, checked_name
from daitn.objects.jobs import (
    Assessed,
    CancelRequested,
    JobState,
    JobView,
    SiteLost,
    Submitted,
    WorkNeeds,
)
from daitn.objects.journeys import Dated, Heard, Journey, Note
from daitn.objects.lineage import Lineage
from daitn.objects.messages import RecipeQuestion
from daitn.objects.requests import (
    AssessIntent,
    DecisionList,
    JobList,
    JobQuery,
    SubmitIntent,
    Trained,
)
from daitn.objects.wire import decode, encode
from daitn.steering.wire.packet import Kind, Packet
from daitn.steering.wire.want import Want
from daitn.terminal.forwarder.post import Post
from daitn.terminal.journeys.going import Going
from daitn.terminal.journeys.luggage import Luggage
from daitn.terminal.journeys.station import Station
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric, Handler
from daitn.tools.mobility.protocol import ModelTransport

__all__ = ["Home"]

log = logging.getLogger(__name__)

LOST_S = 30.0
"""A model of which nothing was heard for so long is lost: sites tell of it every few seconds."""
LOOKED_EVERY_S = 1.0


class Home:
    """See the module. It is a `Service` for the capability `home`."""

    def __init__(
        self,
        site: SiteId,
        fabric: Fabric,
        post: Post,
        luggage: Luggage,
        station: Station,
        transport: ModelTransport,
        needs: Callable[[RecipeQuestion], Awaitable[WorkNeeds]],
    ) -> None:
        self._site = site
        self._fabric = fabric
        self._post = post
        self._luggage = luggage
        self._station = station
        self._transport = transport
        self._needs = needs
        self._heard_s: dict[JobId, float] = {}
        self._at: dict[JobId, tuple[tuple[int, int], SiteId]] = {}
        """Its latest stage of which was heard, and where."""
        self._backed_up: set[Digest] = set()
        self._news: dict[JobId, Journey] = {}
        """Journeys of which weights may not be kept here yet."""
        self._naming: set[JobId] = set()
        """Ids of jobs that are being assessed, and not kept yet."""
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def start(self) -> None:
        """Wait for news of those that are under way."""
        now_s = time.monotonic()
        self._news = {journey.job: journey for journey in self._luggage.all()}
        self._heard_s = dict.fromkeys(self._news, now_s)
        self._tasks = (
            asyncio.create_task(self._watch(), name="journeys"),
            asyncio.create_task(self._back_up_for_ever(), name="journeys' weights"),
        )

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def models(self) -> frozenset[Digest]:
        """Weights that came home, or of which a copy is kept here."""
        return frozenset(
            model.manifest
            for journey in self._luggage.all()
            for model in Going.of(journey).models()
        )

    def handlers(self) -> dict[str, Handler]:
        """The verbs of a control centre that a home knows too, for its own models."""
        return {
            "submit": self._on_submit,
            "assess": self._on_assess,
            "jobs": self._on_jobs,
            "decisions": self._on_decisions,
            "lineage": self._on_lineage,
            "cancel": self._on_cancel,
        }

    async def serve(self, packet: Packet, want: Want) -> bytes:
        """See `Service`."""
        if packet.kind is Kind.MODEL:
            journey = decode(packet.payload, Journey)
            await self._arrived(journey)
            return b""
        note = decode(packet.payload, Note)
        return encode(await self._note(note))

    # News

    async def _note(self, note: Note) -> Heard:
        known = self._get(note.job)
        if note.epoch < known.epoch or Going.of(known).job.state.final:
            return Heard.STALE
        stage, at = self._at.get(note.job, (note.stage(), note.site))
        if note.site != at and note.stage() <= stage:
            return Heard.STALE
        self._at[note.job] = note.stage(), note.site
        self._heard_s[note.job] = time.monotonic()
        journey = note.journey
        if journey is None or journey.stage() < known.stage():
            return Heard.YES
        if (journey.job, journey.home, journey.epoch) != (note.job, self._site, note.epoch):
            raise Corrupt(f"the note on {note.job} is about another journey", field="journey")
        # What has ended is not home yet: its weights are still to come.
        if not Going.of(journey).job.state.final:
            await self._learn(journey)
        return Heard.YES

    async def _arrived(self, journey: Journey) -> None:
        """It came home, for good. Of several copies, the first that does."""
        if not self._awaits(journey):
            return
        going = Going.of(journey)
        check_lineage(Lineage(job=journey.job, entries=tuple(going.job.lineage)))
        if going.job.best is not None:
            await self._transport.fetch(going.job.best.model, lambda done, total: None)
        if not self._awaits(journey):
            return  # Cancelled, or sent out anew, meanwhile.
        await self._learn(journey)
        log.info("%s came home: %s", journey.job, going.job.state)

    def _awaits(self, journey: Journey) -> bool:
        known = self._get(journey.job)
        return known.epoch <= journey.epoch and not Going.of(known).job.state.final

    async def _learn(self, journey: Journey) -> None:
        self._luggage.put(journey)
        self._news[journey.job] = journey
        shown = self._view(journey)
        try:
            await self._fabric.publish(keys.job_event(journey.job), encode(shown))
        except DaitnError as error:
            log.debug("news of %s are not heard: %s", journey.job, error)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOKED_EVERY_S)
            now_s = time.monotonic()
            for journey in self._luggage.all():
                silent_s = now_s - self._heard_s.setdefault(journey.job, now_s)
                if silent_s > LOST_S:
                    await self._look_after(journey)

    async def _back_up_for_ever(self) -> None:
        """Keep the measured weights of models under way here too: they may be lost with a site."""
        while True:
            await asyncio.sleep(LOOKED_EVERY_S)
            for journey in tuple(self._news.values()):
                try:
                    await self._back_up(journey)
                    if self._news[journey.job] is journey:
                        del self._news[journey.job]
                except DaitnError as error:
                    log.debug("weights of %s are not backed up: %s", journey.job, error)
                except Exception:
                    log.exception("weights of %s are not backed up", journey.job)

    async def _back_up(self, journey: Journey) -> None:
        going = Going.of(journey)
        if going.job.state.final:
            return
        for model in going.measured_models():
            if model.manifest not in self._backed_up:
                await self._transport.fetch(model, lambda done, total: None)
                self._backed_up.add(model.manifest)

    async def _look_after(self, journey: Journey) -> None:
        try:
            if not Going.of(journey).job.state.final:
                await self._send_anew(journey)
        except Exception:
            log.exception("the model of %s is not sent out anew", journey.job)
            self._heard_s[journey.job] = time.monotonic()

    async def _send_anew(self, journey: Journey) -> None:
        """From what was last heard of it, without the site where it was lost."""
        going = Going.of(journey)
        log.warning("%s is lost; it sets out anew", journey.job)
        for outstanding in tuple(going.job.outstanding.values()):
            going.take(SiteLost(outstanding.site), self._post.now_s())
        await self._send_out(msgspec.structs.replace(going.journey, epoch=journey.epoch + 1))

    async def _send_out(self, journey: Journey) -> None:
        await self._learn(journey)
        self._heard_s[journey.job] = time.monotonic()
        self._station.send_out(journey)

    # Owners

    async def _on_submit(self, key: str, payload: bytes) -> bytes:
        wanted = decode(payload, SubmitIntent)
        name = checked_name(wanted.intent.name, "name")
        if wanted.start is not None:
            raise InvalidInput(
                "a model that travels by itself starts fresh",
                field="model.start",
                fix="leave it out, or train without --autonomous",
            )
        journey = await self._submitted(name, wanted)
        await self._send_out(journey)
        return encode(self._view(journey))

    async def _submitted(self, name: str, wanted: SubmitIntent) -> Journey:
        model = wanted.intent.model
        check_travels(wanted.intent)
        needs = await self._needs(RecipeQuestion(recipe=model.recipe, config=model.config))
        now_s = self._post.now_s()
        taken = {journey.job for journey in self._luggage.all()}
        number = 1
        # Jobs of two homes meet at stations, so a number alone would not do.
        while (job := JobId(f"{name}-{self._site}-{number}")) in taken | self._naming:
            number += 1
        self._naming.add(job)
        checked_name(job, "name")
        first = Submitted(job=job, intent=wanted.intent, needs=needs, insist=wanted.insist)
        going = Going.of(Journey(job=job, home=self._site, facts=(Dated(now_s, first),)))
        try:
            going.take(Assessed(await self._assess(going, now_s)), now_s)
        finally:
            # Whoever submits it keeps it before anything else happens here.
            self._naming.discard(job)
        return going.journey

    async def _assess(self, going: Going, now_s: float) -> Assessment:
        """By what is heard here: whether there is data that may bring the targets, and somebody to
        measure each objective."""
        heading = await going.decide(going.heard(self._post.core.routes), now_s)
        topology, route = heading.question.topology, heading.route
        reasons = [
            f"nobody is heard of who measures {objective.name} (on {objective.topic})"
            for objective in going.job.intent.objectives
            if not topology.verifiers.get(ObjectiveName(objective.name))
        ]
        if not topology.options:
            reasons.append("no data is heard of that the model may learn from")
        elif route is None and not reasons:
            reasons.append(heading.why or "no visit is expected to bring the targets nearer")
        return Assessment(
            feasible=not reasons,
            reasons=tuple(reasons),
            rejections=(*topology.rejections, *heading.decision.rejections),
            relaxations=(),
            route=route,
            snapshot_version=topology.snapshot.version,
        )

    async def _on_assess(self, key: str, payload: bytes) -> bytes:
        intent = decode(payload, AssessIntent).intent
        journey = await self._submitted(
            checked_name(intent.name, "name"), SubmitIntent(intent=intent)
        )
        return encode(Going.of(journey).job.assessment)

    async def _on_jobs(self, key: str, payload: bytes) -> bytes:
        query = decode(payload, JobQuery)
        found = (self._get(query.job),) if query.job else self._luggage.all()
        return encode(JobList(jobs=tuple(self._view(journey) for journey in found)))

    async def _on_decisions(self, key: str, payload: bytes) -> bytes:
        journey = self._get(decode(payload, JobQuery).job)
        made = decisions((fact.event, fact.at_s) for fact in journey.facts)
        return encode(DecisionList(decisions=made))

    async def _on_lineage(self, key: str, payload: bytes) -> bytes:
        journey = self._get(decode(payload, JobQuery).job)
        shown = self._view(journey)
        if shown.model is None:
            raise NotFound(f"{journey.job} has no measured model yet", field="job")
        lineage = Lineage(job=journey.job, entries=tuple(Going.of(journey).job.lineage))
        known = {entry.fact.site: entry.public_key for entry in lineage.entries}
        return encode(Trained(job=shown, lineage=lineage, keys=known))

    async def _on_cancel(self, key: str, payload: bytes) -> bytes:
        journey = self._get(decode(payload, JobQuery).job)
        going = Going.of(journey)
        if not going.job.state.final:
            going.take(CancelRequested(), self._post.now_s())
            await self._learn(msgspec.structs.replace(going.journey, epoch=journey.epoch + 1))
        return encode(self._view(self._get(journey.job)))

    def _view(self, journey: Journey) -> JobView:
        going = Going.of(journey)
        shown = view(going.job, self._post.now_s())
        if shown.model is None or going.job.state is not JobState.REACHED:
            return shown
        holders = tuple(dict.fromkeys((self._site, *shown.model.holders)))
        return msgspec.structs.replace(
            shown, model=msgspec.structs.replace(shown.model, holders=holders)
        )

    def _get(self, job: JobId) -> Journey:
        journey = self._luggage.get(job)
        if journey is None:
            raise NotFound(
                f"{self._site} is not the home of {job}",
                field="job",
                fix="ask the site where it set out",
            )
        return journey
