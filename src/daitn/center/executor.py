"""Carries out a job's commands for the control centre."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

from daitn.center.experience import Experience
from daitn.center.metrics import CenterMetrics
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
from daitn.control.jobs.question import first_question, route_question
from daitn.control.jobs.valuing import to_be_valued
from daitn.control.jobs.why_exhausted import unvisited
from daitn.control.route.costs import transfer_s
from daitn.control.route.engine import Mtrce
from daitn.control.route.next_site import NOWHERE
from daitn.control.route.question import RouteQuestion
from daitn.control.route.selection import VisitOrRound, next_step
from daitn.objects.access import allows
from daitn.objects.decisions import Assessment
from daitn.objects.descriptors import ANY
from daitn.objects.errors import Corrupt, DaitnError, ErrorReport, Unreachable, WorkFailed
from daitn.objects.identifiers import CENTER_SITE, JobId, ObjectiveName, SiteId, VisitId
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
from daitn.objects.value import MOST_MEASURED, VALUED_WITHIN_S
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.monitoring.tracing import OFF, Tracer
from daitn.topology.relevance import relevant_to
from daitn.topology.snapshot import Drrt, MsDrrt

__all__ = ["JobExecutor"]

log = logging.getLogger(__name__)

START_TIMEOUT_S = 5.0
_AWAY = frozenset({"alive", "verifier-alive"})
_CORDONED = frozenset({"cordoned", "verifier-cordoned"})
_PASSING = _AWAY | _CORDONED | {"hours", "verifier-hours", "pinned"}
"""Filters that a site fails for a time."""
_MEASURING_S = 1.0
"""For weighing a verifier's queue before the job's first measurement."""
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
        settle: Callable[[Job], None],
        experience: Experience,
        metrics: CenterMetrics,
        tracer: Tracer = OFF,
    ) -> None:
        """`on_status` receives a site's status of the work that it was given."""
        self._fabric = fabric
        self._on_status = on_status
        self._turns: defaultdict[SiteId, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._snapshot = snapshot
        self._not_back = not_back
        self._feed = feed
        self._settle = settle
        self._experience = experience
        self._metrics = metrics
        self._tracer = tracer

    async def carry_out(self, job: Job, command: Command) -> None:
        """Carry out one command and feed its result back as an event."""
        match command:
            case Assess():
                with self._traced(job, "assess"):
                    assessment = await self.assess(job.intent, job.needs)
                self._feed(job.id, Assessed(assessment))
            case ComputeRoute():
                with self._traced(job, "route"):
                    planned = await self._route(job)
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
                topology = await self.cut(job.intent, job.needs)
                await self._experience.learn(job, topology, clock.now_s())
                self.value_if_wanted(job)

    def value_if_wanted(self, job: Job) -> None:
        """Have the value of an ended job's data measured, if its intent asks for that."""
        if to_be_valued(job):
            self._feed(job.id, ValueAsked(coalitions=MOST_MEASURED, within_s=VALUED_WITHIN_S))

    async def assess(self, intent: TrainingIntent, needs: WorkNeeds) -> Assessment:
        """T-FAM's assessment of an intent on the current topology."""
        snapshot, now_s = self._snapshot(), clock.now_s()

        def cut(changed: TrainingIntent) -> MsDrrt:
            return _cut(snapshot, changed, needs, now_s)

        def assessed() -> Assessment:
            question = first_question(intent, needs, cut(intent), now_s)
            return assess(self._with_experience(question, needs), cut)

        with self._timed("assess"):
            return await asyncio.to_thread(assessed)

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
        """The MS-DRRT of an intent on the topology of this moment. It takes a while, in a thread:
        half a second at 10,000 sites."""
        return await asyncio.to_thread(_cut, self._snapshot(), intent, needs, clock.now_s())

    async def _route(self, job: Job) -> Planned:
        now_s, snapshot = clock.now_s(), self._snapshot()
        asked = self._with_experience(route_question(job, NOWHERE, now_s), job.needs)

        def planned() -> tuple[RouteQuestion, VisitOrRound]:
            topology = _cut(snapshot, asked.intent, job.needs, now_s)
            question = replace(asked, topology=topology)
            return question, next_step(question)

        away = _holders_away(job, snapshot)
        with self._timed("route"):
            question, step = await asyncio.to_thread(planned)
        if away:
            return Planned(route=None, decision=step.decision, waiting_for=away)
        if step.route is not None or step.round is not None:
            return Planned(route=step.route, round=step.round, decision=step.decision)
        away = _sites_away(job, question.topology, self._not_back())
        why = step.why or step.waits
        return Planned(
            route=None,
            decision=step.decision,
            waiting_for="" if step.why else away,
            why=why or await asyncio.to_thread(Mtrce().why_none, question),
            unvisited=unvisited(job, question.topology, step.decision),
        )

    async def _verifiers(
        self, job: Job, objectives: tuple[ObjectiveName, ...]
    ) -> tuple[VerifierAssignment, ...]:
        chosen: list[VerifierAssignment] = []
        with self._timed("verifiers"):
            topology = await self.cut(job.intent, job.needs)
            for objective in objectives:
                busy = Counter(given.site for given in chosen)
                chosen.append(_assigned(job, topology, objective, busy, clock.now_s()))
        return tuple(chosen)

    async def _start(self, job: Job, command: StartWork) -> None:
        key = keys.site_do(command.site, "work")
        work = encode(command.work)
        for attempt in range(START_ATTEMPTS):
            if command.work.visit not in job.outstanding:
                return
            try:
                # One request at a time, so that a site accepts work in the order of the requests.
                async with self._turns[command.site]:
                    answer = await self._fabric.request(key, work, timeout_s=START_TIMEOUT_S)
                self._note_status(job.id, command, answer)
                return
            except Unreachable as error:
                log.warning("%s did not accept %s: %s", command.site, command.work.visit, error)
                await asyncio.sleep(0.2 * attempt)
            except DaitnError as error:
                self._feed(job.id, Reported(_refused(job, command, error)))
                return
        silent = WorkFailed(f"{command.site} does not accept work", fix="see the site's log")
        self._feed(job.id, Reported(_refused(job, command, silent)))

    def _note_status(self, job: JobId, command: StartWork, answer: bytes) -> None:
        try:
            self._on_status(job, command.work.visit, decode(answer, WorkStatus))
        except Corrupt as error:
            log.warning("the work status from %s cannot be read: %s", command.site, error.problem)

    async def _stop(self, site: SiteId, cancel: CancelWork) -> None:
        try:
            await self._fabric.request(
                keys.site_do(site, "stop"), encode(cancel), timeout_s=START_TIMEOUT_S
            )
        except DaitnError as error:
            log.info("%s did not confirm that it stops %s: %s", site, cancel.visit, error.problem)


def _cut(snapshot: Drrt, intent: TrainingIntent, needs: WorkNeeds, now_s: float) -> MsDrrt:
    return relevant_to(
        snapshot,
        intent,
        data_schema=needs.data_schema,
        test_schema=needs.test_schema,
        now_s=now_s,
        memory_bytes=needs.memory_bytes,
        labels=needs.labels,
        labels_field=needs.labels_field,
        private=needs.private,
    )


def _assigned(
    job: Job,
    topology: MsDrrt,
    objective: ObjectiveName,
    busy: Counter[SiteId | None],
    now_s: float,
) -> VerifierAssignment:
    """The verifier of an objective with the fewest failures for the job, then the one that is
    expected to be done first, from the link to it and its load.

    Eligible verifiers are in a jurisdiction into which the model may travel and have neither failed
    to fetch it nor refused it; those not known to be cut off from its holders come first.
    """
    sites = topology.snapshot.sites
    release_to = job.candidate.release_to if job.candidate else (ANY,)
    barred = job.candidate.unreached | job.candidate.refused if job.candidate else frozenset()
    model = job.candidate.model if job.candidate else None
    holders = model.holders if model else ()
    allowed = [
        option.site
        for option in topology.verifiers.get(objective, ())
        if allows(release_to, sites[option.site].descriptor.jurisdiction)
        and option.site not in barred
    ]

    def burden(site: SiteId) -> tuple[bool, int, float, str]:
        load = sites[site].load
        queue = load.queue.value if load else 0.0
        failed = job.verifier_failures.get(site, 0) + job.losses.get(site, 0)
        cut_off = bool(holders) and all((site, holder) in job.cut_off for holder in holders)
        size_bytes = model.size_bytes if model else 0
        fetch_s = transfer_s(topology.snapshot, holders, site, size_bytes, now_s)
        return (
            cut_off,
            failed,
            (busy[site] + queue) * (job.verify_s or _MEASURING_S) + fetch_s,
            site,
        )

    return VerifierAssignment(objective=objective, site=min(allowed, key=burden, default=None))


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
    reasons: dict[str, set[str]] = {}
    for rejection in topology.rejections:
        reasons.setdefault(rejection.candidate, set()).add(rejection.filter)
    passing = {
        candidate.split("/")[0]: filters - {"pinned"}
        for candidate, filters in reasons.items()
        if filters - {"pinned"} and filters <= _PASSING
    }
    away = sorted(site for site, filters in passing.items() if filters & _AWAY)
    cordoned = sorted(site for site in passing.keys() - away if passing[site] & _CORDONED)
    closed = sorted(passing.keys() - {*away, *cordoned})
    waits = (
        ("sites that are away", away),
        ("sites that are cordoned", cordoned),
        ("sites outside of their hours", closed),
    )
    return "; ".join(f"{what}: {', '.join(sites)}" for what, sites in waits if sites)


def _refused(job: Job, command: StartWork, error: DaitnError) -> WorkOutcome:
    return WorkOutcome(
        visit=command.work.visit,
        job=job.id,
        site=command.site,
        state=WorkState.FAILED,
        error=ErrorReport.of(error),
    )
