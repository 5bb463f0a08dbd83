"""Carries out a job's commands for the control centre."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial

from daitn.center.experience import Experience
from daitn.center.metrics import CenterMetrics
from daitn.center.thinking import Thinking
from daitn.center.tracing import decision_span, job_ended
from daitn.control.feasibility import assess
from daitn.control.jobs.commands import (
    Assess,
    ChooseVerifiers,
    Command,
    ComputeRoute,
    Settle,
    StartWork,
    StopWork,
)
from daitn.control.jobs.job import Job
from daitn.control.jobs.outstanding import asked_about
from daitn.control.jobs.question import first_question, route_question
from daitn.control.jobs.valuing import to_be_valued
from daitn.control.jobs.why_exhausted import unvisited
from daitn.control.route.engine import Mtrce
from daitn.control.route.next_site import NOWHERE
from daitn.control.route.question import RouteQuestion
from daitn.control.route.selection import VisitOrRound, next_step
from daitn.control.route.transfers import transfer_s
from daitn.objects.access import allows
from daitn.objects.decisions import Assessment
from daitn.objects.descriptors import ANY
from daitn.objects.errors import Corrupt, DaitnError, ErrorReport, Unreachable, Unserved, WorkFailed
from daitn.objects.identifiers import (
    CENTER_SITE,
    JobId,
    ObjectiveName,
    OwnerId,
    SiteId,
    VisitId,
)
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import (
    Assessed,
    JobEvent,
    Planned,
    Reported,
    ValueAsked,
    VerifierAssignment,
    VerifiersChosen,
    WorkNeeds,
)
from daitn.objects.messages import CancelWork, WorkOutcome, WorkState, WorkStatus
from daitn.objects.quorum import ONE
from daitn.objects.value import MOST_MEASURED, VALUED_WITHIN_S
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.monitoring.tracing import OFF, Tracer
from daitn.topology.cuts import Cuts
from daitn.topology.passing import left_out_for_now
from daitn.topology.snapshot import Drrt, MsDrrt

__all__ = ["JobExecutor"]

log = logging.getLogger(__name__)

START_TIMEOUT_S = 5.0
_MEASURING_S = 1.0
"""Assumed duration of a measurement, for weighing a verifier's queue before the job's first one."""
START_ATTEMPTS = 3
"""A site that leaves this many requests unanswered counts as failed."""


class JobExecutor:
    """Turns commands into decisions of the pure core and into requests to sites."""

    def __init__(
        self,
        fabric: Fabric,
        snapshot: Callable[[], Drrt],
        not_back: Callable[[], tuple[SiteId, ...]],
        feed: Callable[[JobId, JobEvent], None],
        on_status: Callable[[JobId, VisitId, WorkStatus], None],
        is_taken: Callable[[VisitId], bool],
        settle: Callable[[Job], None],
        experience: Experience,
        metrics: CenterMetrics,
        tracer: Tracer = OFF,
    ) -> None:
        """`on_status` receives a site's status of its work; `is_taken` says whether it received
        any."""
        self._thinking = Thinking("jobs")
        self.asked = Thinking("asked")
        """For callers that wait: jobs have their own thread."""
        self._fabric = fabric
        self._on_status = on_status
        self._turns: defaultdict[SiteId, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._is_taken = is_taken
        self._snapshot = snapshot
        self._cuts, self._cutting = Cuts(), threading.Lock()
        self._not_back = not_back
        self._feed = feed
        self._settle = settle
        self._experience = experience
        self._metrics = metrics
        self._tracer = tracer

    def close(self) -> None:
        """Stop deciding."""
        self._thinking.close()
        self.asked.close()

    async def carry_out(self, job: Job, command: Command) -> None:
        """Carry out one command and feed its result back as an event."""
        match command:
            case Assess():
                with self._traced(job, "assess"):
                    assessment = await self._assess(job.intent, job.needs, self._thinking)
                self._feed(job.id, Assessed(assessment))
            case ComputeRoute():
                with self._traced(job, "route"):
                    planned = await self._route(job)
                if planned is not None:
                    self._feed(job.id, planned)
            case ChooseVerifiers(objectives):
                with self._traced(job, "verifiers"):
                    chosen = await self._verifiers(job, objectives)
                self._feed(job.id, VerifiersChosen(chosen))
            case StartWork():
                await self._start(job, command)
            case StopWork(site, visit):
                await self._stop(site, CancelWork(visit=visit))
            case Settle():
                job_ended(self._tracer, job)
                self._settle(job)
                topology = await self._cut(job.intent, job.needs, self._thinking)
                await self._experience.learn(job, topology, clock.now_s())
                self.value_if_wanted(job)

    def value_if_wanted(self, job: Job) -> None:
        """Have the value of an ended job's data measured, if its intent requests that."""
        if to_be_valued(job):
            self._feed(job.id, ValueAsked(coalitions=MOST_MEASURED, within_s=VALUED_WITHIN_S))

    async def assess(self, intent: TrainingIntent, needs: WorkNeeds) -> Assessment:
        """T-FAM's assessment of an intent on the current topology."""
        return await self._assess(intent, needs, self.asked)

    async def _assess(
        self, intent: TrainingIntent, needs: WorkNeeds, thinking: Thinking
    ) -> Assessment:
        def prepared() -> Callable[[], Assessment]:
            snapshot, now_s = self._snapshot(), clock.now_s()
            tried = Cuts()  # Nobody asks again for changes of an intent.

            def cut(changed: TrainingIntent) -> MsDrrt:
                return _cut(tried, snapshot, changed, needs, now_s)

            def assessed() -> Assessment:
                topology = self._cut_once(snapshot, intent, needs, now_s)
                question = first_question(intent, needs, topology, now_s)
                return assess(self._with_experience(question, needs), cut)

            return assessed

        with self._timed("assess"):
            return await thinking.of(prepared)

    def _traced(self, job: Job, name: str) -> AbstractContextManager[object]:
        return decision_span(self._tracer, job, name) or nullcontext()

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        began_s = time.monotonic()
        yield
        self._metrics.decisions[kind].observe(time.monotonic() - began_s)

    def _with_experience(self, question: RouteQuestion, needs: WorkNeeds) -> RouteQuestion:
        recipe = question.intent.model.recipe
        return replace(
            question,
            experience=self._experience.of(recipe, needs),
            begun=question.experience,
            past_jobs=self._experience.count(recipe),
        )

    async def cut(self, intent: TrainingIntent, needs: WorkNeeds) -> MsDrrt:
        """The MS-DRRT of an intent on the current topology. Runs in a thread, since it takes half a
        second at 10,000 sites."""
        return await self._cut(intent, needs, self.asked)

    async def _cut(self, intent: TrainingIntent, needs: WorkNeeds, thinking: Thinking) -> MsDrrt:
        def prepared() -> Callable[[], MsDrrt]:
            snapshot, now_s = self._snapshot(), clock.now_s()
            return lambda: self._cut_once(snapshot, intent, needs, now_s)

        return await thinking.of(prepared)

    def _cut_once(
        self, snapshot: Drrt, intent: TrainingIntent, needs: WorkNeeds, now_s: float
    ) -> MsDrrt:
        """In one thread at a time, since each cut builds on the previous one."""
        with self._cutting:
            return _cut(self._cuts, snapshot, intent, needs, now_s)

    async def _route(self, job: Job) -> Planned | None:
        """The next visits of a job; none if it has ended before its turn came."""
        away, not_back = "", tuple[SiteId, ...]()

        def prepared() -> Callable[[], tuple[RouteQuestion, VisitOrRound] | None]:
            nonlocal away, not_back
            if job.state.final:
                return lambda: None
            now_s, snapshot = clock.now_s(), self._snapshot()
            # Sites that join during planning are missing in the plan.
            away, not_back = _holders_away(job, snapshot), self._not_back()
            asked = self._with_experience(route_question(job, NOWHERE, now_s), job.needs)

            def planned() -> tuple[RouteQuestion, VisitOrRound]:
                topology = self._cut_once(snapshot, asked.intent, job.needs, now_s)
                question = replace(asked, topology=topology)
                return question, next_step(question)

            return planned

        with self._timed("route"):
            found = await self._thinking.of(prepared)
        if found is None:
            return None
        question, step = found
        if away:
            return Planned(route=None, decision=step.decision, waiting_for=away)
        if step.route is not None or step.round is not None:
            return Planned(route=step.route, round=step.round, decision=step.decision)
        away = _sites_away(job, question.topology, not_back)
        why = step.why or step.waits
        return Planned(
            route=None,
            decision=step.decision,
            waiting_for="" if step.why else away,
            why=why or await self._thinking.of(lambda: partial(Mtrce().why_none, question)),
            unvisited=unvisited(job, question.topology, step.decision),
        )

    async def _verifiers(
        self, job: Job, objectives: tuple[ObjectiveName, ...]
    ) -> tuple[VerifierAssignment, ...]:
        chosen: list[VerifierAssignment] = []
        with self._timed("verifiers"):
            topology = await self._cut(job.intent, job.needs, self._thinking)
            for objective in objectives:
                chosen.append(_assigned(job, topology, objective, chosen, clock.now_s()))
        return tuple(chosen)

    async def _start(self, job: Job, command: StartWork) -> None:
        key = keys.site_do(command.site, "work")
        work, gone = encode(command.work), False
        for attempt in range(START_ATTEMPTS):
            try:
                # One request at a time, so that a site accepts work in the order of the requests.
                async with self._turns[command.site]:
                    if command.work.visit not in job.outstanding:
                        return  # The site has been told to stop it.
                    answer = await self._fabric.request(key, work, timeout_s=START_TIMEOUT_S)
                self._note_status(job.id, command, answer)
                return
            except Unreachable as error:
                gone = isinstance(error, Unserved)
                log.warning("%s did not accept %s: %s", command.site, command.work.visit, error)
                await asyncio.sleep(0.2 * attempt)
            except DaitnError as error:
                self._feed(job.id, Reported(_refused(job, command, error)))
                return
        if gone and self._is_taken(command.work.visit):
            return  # The site is about to be lost, which `Membership` notices, or to be back.
        silent = WorkFailed(f"{command.site} does not accept work", fix="see the site's log")
        self._feed(job.id, Reported(_refused(job, command, silent)))

    def _note_status(self, job: JobId, command: StartWork, answer: bytes) -> None:
        try:
            self._on_status(job, command.work.visit, decode(answer, WorkStatus))
        except Corrupt as error:
            log.warning("the work status from %s cannot be read: %s", command.site, error.problem)

    async def _stop(self, site: SiteId, cancel: CancelWork) -> None:
        try:
            # Behind a start that is on its way: a site does not remember what it has to stop.
            async with self._turns[site]:
                await self._fabric.request(
                    keys.site_do(site, "stop"), encode(cancel), timeout_s=START_TIMEOUT_S
                )
        except DaitnError as error:
            log.info("%s did not confirm that it stops %s: %s", site, cancel.visit, error.problem)


def _cut(
    cuts: Cuts, snapshot: Drrt, intent: TrainingIntent, needs: WorkNeeds, now_s: float
) -> MsDrrt:
    return cuts.relevant_to(snapshot, intent, needs, now_s=now_s)


def _assigned(
    job: Job,
    topology: MsDrrt,
    objective: ObjectiveName,
    chosen: Sequence[VerifierAssignment],
    now_s: float,
) -> VerifierAssignment:
    """The verifier of an objective with the fewest failures for the job, then the one expected to
    finish first, by its link and load, besides those already `chosen`; the cheapest first if the
    intent prefers cost to time.

    Eligible verifiers are in a jurisdiction into which the model may travel, have neither failed
    to fetch it nor refused it, do not measure the objective already and were not contradicted by
    others too often; those not known to be cut off from its holders come first. An owner has one
    voice: none is of the owner of one that could not measure the model, or, in a quorum, of any
    other one.
    """
    busy = Counter(given.site for given in chosen)
    sites = topology.snapshot.sites
    release_to = job.candidate.release_to if job.candidate else (ANY,)
    barred = {given.site for given in chosen if given.site and given.objective == objective}
    spoken = set(job.candidate.unable) if job.candidate else set()
    if job.intent.quorum != ONE:
        spoken |= {*barred, *asked_about(job, objective)}
        barred |= {*spoken, *job.barred}
    owners = _owners(topology, spoken)
    barred |= job.candidate.asked_in_vain if job.candidate else set()
    model = job.candidate.model if job.candidate else None
    holders = model.holders if model else ()
    allowed = [
        option.site
        for option in topology.verifiers.get(objective, ())
        if allows(release_to, sites[option.site].descriptor.jurisdiction)
        and option.site not in barred
        and sites[option.site].descriptor.owner not in owners
    ]

    thrifty = job.intent.weighs("cost") > job.intent.weighs("time")

    def burden(site: SiteId) -> tuple[bool, int, float, float, float, str]:
        load = sites[site].load
        queue = load.queue.value if load else 0.0
        failed = job.verifier_failures.get(site, 0) + job.losses.get(site, 0)
        cut_off = bool(holders) and all((site, holder) in job.cut_off for holder in holders)
        size_bytes = model.size_bytes if model else 0
        fetch_s = transfer_s(topology.snapshot, holders, site, size_bytes, now_s)
        takes_s = (busy[site] + queue) * (job.verify_s or _MEASURING_S) + fetch_s
        price = sites[site].descriptor.measuring_usd_per_hour
        return cut_off, failed, price if thrifty else 0.0, takes_s, price, site

    least = min(allowed, key=burden, default=None)
    return VerifierAssignment(
        objective=objective,
        site=least,
        price_usd_per_hour=sites[least].descriptor.measuring_usd_per_hour if least else 0.0,
    )


def _owners(topology: MsDrrt, named: Iterable[SiteId]) -> set[OwnerId]:
    """The owners of sites, as far as they are known."""
    sites = topology.snapshot.sites
    return {sites[site].descriptor.owner for site in named if site in sites}


def _holders_away(job: Job, snapshot: Drrt) -> str:
    """The holders of the best model, if none of them is connected."""
    sites = snapshot.sites
    holders = job.best.model.holders if job.best else ()
    if not holders or any(
        site == CENTER_SITE or (site in sites and sites[site].alive) for site in holders
    ):
        return ""
    return f"a site that holds the model: {', '.join(holders)}"


def _sites_away(job: Job, topology: MsDrrt, not_back: tuple[SiteId, ...]) -> str:
    """Absent sites whose return may give a job without a route one."""
    if job.intent.route and len(job.made) >= len(job.intent.route):
        return ""
    if not_back:
        return f"sites that are not back yet: {', '.join(not_back)}"
    return left_out_for_now(topology.rejections)


def _refused(job: Job, command: StartWork, error: DaitnError) -> WorkOutcome:
    return WorkOutcome(
        visit=command.work.visit,
        job=job.id,
        site=command.site,
        state=WorkState.FAILED,
        error=ErrorReport.of(error),
    )
