"""The job service: facts are stored, then acted on; a restart takes every job up again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass
from functools import partial

import msgspec

from daitn.control.jobs.commands import Command, StartWork
from daitn.control.jobs.job import Job
from daitn.control.jobs.machine import decisions, handle, replay, submit
from daitn.control.jobs.view import SILENT_S, JobNews, view
from daitn.objects.errors import (
    DaitnError,
    ErrorReport,
    IllegalTransition,
    NotFound,
    Refused,
    StorageFull,
)
from daitn.objects.identifiers import JobId, SiteId, VisitId
from daitn.objects.jobs import (
    ActionFailed,
    CancelRequested,
    DeadlinePassed,
    Decided,
    JobEvent,
    JobState,
    JobView,
    Recovered,
    Reported,
    SiteLost,
    Submitted,
    Woke,
    WorkStalled,
)
from daitn.objects.messages import WorkOutcome, WorkState, WorkStatus
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.journal.protocol import Journal

__all__ = ["JobService"]

log = logging.getLogger(__name__)

STORAGE_AGAIN_S = 5.0
"""Pause of a job whose facts cannot be stored because the disk is full."""
HAND_IN_AGAIN_S = 15.0
"""How often a site is handed what it owes again: it starts what it lost, reports what it did."""
SILENT_AT_MOST_S = 5400.0
"""A site that says the same of its work for so long does not get on: sites end what does not get on
within an hour, so this is for those that do not."""
QUEUED_AT_MOST_S = 86_400.0
"""The same where work waits for other work at the site."""
UNREPORTED_AT_MOST_S = 300.0
"""A site that says that work is over, and whose report does not come or is not its own, has failed:
reports are repeated every few seconds."""
TICK_S = 0.1
"""How late a deadline or a retry may be noticed."""


class _Stored(msgspec.Struct, frozen=True):
    """A fact in the journal, with the time at which it was taken in."""

    event: JobEvent
    at_s: float


@dataclass
class _Said:
    """What a site said of its work, and since when it has said the same (monotonic)."""

    status: WorkStatus
    since_s: float
    told: bool = False
    """Whether it is in the log that it has long said the same."""


class JobService:
    """All jobs of one control centre. `act` carries a command out; `show` hears of changes."""

    def __init__(
        self,
        journal: Journal,
        act: Callable[[Job, Command], Awaitable[None]],
        show: Callable[[JobView], None],
    ) -> None:
        self._journal = journal
        self._act = act
        self._show = show
        self._jobs: dict[JobId, Job] = {}
        self._open: dict[JobId, Job] = {}
        """Those of them that have not ended: what is done again and again looks at these alone."""
        self._stored: dict[JobId, int] = {}
        self._descriptors: dict[VisitId, _Said] = {}
        self._acting: set[asyncio.Task[None]] = set()
        self._starting: set[VisitId] = set()
        """Work that a task is handing in."""
        self._untold: dict[tuple[Hashable, JobId], Callable[[Job], JobEvent | None]] = {}
        """What jobs do not know of yet, as it could not be stored."""
        self._retelling: asyncio.Task[None] | None = None
        self._ticking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Read every job back; nothing is done for them until `recover`."""
        for job in self._journal.jobs():
            try:
                self._restore(job)
            except Exception:
                # One job that cannot be read must not keep the others from being taken up.
                log.exception("job %s cannot be read back and is left aside", job)
        self._ticking = asyncio.create_task(self._tick())

    def recover(self) -> None:
        """Take up again what was under way, and first what was given to sites, in that order."""
        self._hand_in(lambda site: True)
        self._tell_each("recovered", lambda job: Recovered())

    async def close(self) -> None:
        own = (self._ticking, self._retelling)
        tasks = [*self._acting, *(task for task in own if task is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def submit(self, event: Submitted) -> JobView:
        """Take a new job. It is on disk when this returns. Raises `StorageFull`."""
        now_s = clock.now_s()
        job, commands = submit(event, now_s)
        self._journal.append(event.job, 0, [encode(_Stored(event, now_s))], now_s)
        self._know(job)
        self._stored[job.id] = 1
        self._carry_out(job, commands)
        return self._shown(job)

    def feed(self, id_: JobId, event: JobEvent) -> None:
        """Take a fact in: into the machine, onto the disk, then act on it."""
        job = self._jobs[id_]
        now_s = clock.now_s()
        try:
            commands = handle(job, event, now_s)
            stored = encode(_Stored(event, now_s))
            self._stored[id_] = self._journal.append(id_, self._stored[id_], [stored], now_s)
        except Exception:
            # What is not on disk did not happen: the machine goes back to what is.
            self._restore(id_)
            raise
        self._know(job)
        self._carry_out(job, commands)
        self._shown(job)

    def cancel(self, id_: JobId) -> JobView:
        job = self.get(id_)
        if job.state.final:
            raise Refused(
                f"job {id_} is {job.state} already",
                field="job",
                fix="there is nothing to cancel; see `daitn get jobs`",
            )
        self.feed(id_, CancelRequested())
        return self.view(id_)

    def reported(self, outcome: WorkOutcome) -> None:
        """A site reports. A job that is not known here is no error: the site may forget it."""
        if outcome.job not in self._jobs:
            return
        if outcome.state is not WorkState.DONE:
            why = outcome.error.problem if outcome.error else "it gives no reason"
            log.warning("%s did not do %s: %s", outcome.site, outcome.visit, why)
        self.feed(outcome.job, Reported(outcome))

    def told(self, id_: JobId, visit: VisitId, status: WorkStatus) -> None:
        """A site says how far it is with work that it was handed."""
        known = self._descriptors.get(visit)
        if known is not None and known.status == status:
            return
        self._descriptors[visit] = _Said(status, time.monotonic())
        if (known.status.ahead if known else 0) != status.ahead:
            self._show(self.view(id_))

    def lost(self, site: SiteId) -> None:
        """A site is gone: jobs that it worked for replan."""
        self._tell_each(
            ("lost", site), lambda job: SiteLost(site) if _works_for(site, job) else None
        )

    def came(self, site: SiteId) -> None:
        """A site is there, perhaps anew: what it owes is handed in again, which starts work that
        it lost and lets it report work that it finished; jobs that wait look again."""
        for what in [what for what in self._untold if what[0] == ("lost", site)]:
            del self._untold[what]  # It is there: nobody has to know any more.
        self._hand_in(lambda there: there == site)
        self._tell_each("woke", lambda job: Woke() if job.state is JobState.WAITING else None)

    def view(self, id_: JobId) -> JobView:
        """The job as it is now. Raises `NotFound`."""
        job, now_s = self.get(id_), time.monotonic()
        news = {
            visit: JobNews(said.status, now_s - said.since_s)
            for visit in job.outstanding
            if (said := self._descriptors.get(visit)) is not None
        }
        return view(job, clock.now_s(), news)

    def get(self, id_: JobId) -> Job:
        job = self._jobs.get(id_)
        if job is None:
            raise NotFound(f"there is no job {id_}", field="job", fix="see `daitn get jobs`")
        return job

    def decisions(self, id_: JobId) -> tuple[Decided, ...]:
        """Every decision on the job's route, from its facts. Raises `NotFound`."""
        return decisions((fact.event, fact.at_s) for fact in self._facts(self.get(id_).id))

    def all(self) -> tuple[Job, ...]:
        """Every job, oldest first."""
        return tuple(self._jobs.values())

    def unfinished(self) -> tuple[Job, ...]:
        return tuple(self._open.values())

    def new_id(self, name: str) -> JobId:
        """The next free id for an intent of this name."""
        number = 1
        while JobId(f"{name}-{number}") in self._jobs:
            number += 1
        return JobId(f"{name}-{number}")

    def _tell_each(self, what: Hashable, fact: Callable[[Job], JobEvent | None]) -> None:
        """Tell every unfinished job its fact; again later those that could not store it."""
        for job in self.unfinished():
            self._tell(job.id, what, fact)

    def _tell(self, id_: JobId, what: Hashable, fact: Callable[[Job], JobEvent | None]) -> None:
        job = self._open.get(id_)
        event = fact(job) if job is not None else None
        if event is None:
            return
        try:
            self.feed(id_, event)
        except IllegalTransition:
            log.exception("job %s takes no %s", id_, type(event).__name__)
        except Exception:
            log.exception("job %s does not know of %s yet", id_, type(event).__name__)
            self._untold[what, id_] = fact
            if self._retelling is None:
                self._retelling = asyncio.create_task(self._tell_again(), name="untold facts")

    async def _tell_again(self) -> None:
        try:
            while self._untold:
                await asyncio.sleep(STORAGE_AGAIN_S)
                untold, self._untold = self._untold, {}
                for (what, id_), fact in untold.items():
                    self._tell(id_, what, fact)
        finally:
            self._retelling = None

    def _restore(self, id_: JobId) -> None:
        stored = self._facts(id_)
        self._know(replay((fact.event, fact.at_s) for fact in stored))
        self._stored[id_] = len(stored)

    def _know(self, job: Job) -> None:
        self._jobs[job.id] = job
        if job.state.final:
            self._open.pop(job.id, None)
        else:
            self._open[job.id] = job

    def _facts(self, id_: JobId) -> list[_Stored]:
        stored = [decode(event, _Stored) for event in self._journal.events(id_)]
        return _in_order(stored, clock.now_s())

    def _carry_out(self, job: Job, commands: tuple[Command, ...]) -> None:
        for command in commands:
            if isinstance(command, StartWork):
                # Handed in again and again, and by one task at a time, however long that takes.
                visit = command.work.visit
                if visit in self._starting:
                    continue
                self._starting.add(visit)
                task = self._spawn(self._act_safely(job.id, job.state, command))
                task.add_done_callback(partial(self._started, visit))
            else:
                self._spawn(self._act_safely(job.id, job.state, command))

    def _started(self, visit: VisitId, ended: asyncio.Task[None]) -> None:
        self._starting.discard(visit)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)
        return task

    async def _act_safely(self, id_: JobId, state: JobState, command: Command) -> None:
        while self._jobs[id_].state is state:
            try:
                await self._act(self._jobs[id_], command)
                return
            except StorageFull as error:
                log.error("job %s pauses: %s", id_, error)
                await asyncio.sleep(STORAGE_AGAIN_S)
            except Exception as error:
                log.exception("job %s: %s failed", id_, type(command).__name__)
                self._fail(id_, ActionFailed(_report(error)))
                return

    def _fail(self, id_: JobId, failure: ActionFailed) -> None:
        self._tell(id_, "failed", lambda job: failure)

    def _shown(self, job: Job) -> JobView:
        shown = self.view(job.id)
        log.info("job %s is %s: %s", job.id, job.state, job.detail or job.state.sentence)
        self._show(shown)
        return shown

    def _hand_in(self, owed: Callable[[SiteId], bool]) -> None:
        """In the order in which it was given: who waits longest has the first turn."""
        given = [(o, job) for job in self.unfinished() for o in job.outstanding.values()]
        for o, job in sorted(given, key=lambda one: one[0].since_s):
            if owed(o.site):
                self._carry_out(job, (StartWork(o.site, o.work),))

    async def _tick(self) -> None:
        handed_in_s = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now_s = clock.now_s()
            if time.monotonic() - handed_in_s > HAND_IN_AGAIN_S:
                handed_in_s = time.monotonic()
                self._hand_in(lambda site: True)
                self._tell_stalls(handed_in_s)
            if any(_due(job, now_s) for job in self.unfinished()):
                try:
                    for job in self.unfinished():
                        event = _due(job, now_s)
                        if event is not None:
                            self.feed(job.id, event)
                except Exception:
                    log.exception("a job that is due cannot go on")
                    await asyncio.sleep(STORAGE_AGAIN_S)

    def _tell_stalls(self, now_s: float) -> None:
        """Give work up with which a site does not get on, whatever the site says to it."""
        outstanding = {v: o for job in self.unfinished() for v, o in job.outstanding.items()}
        self._descriptors = {v: said for v, said in self._descriptors.items() if v in outstanding}
        for visit, said in tuple(self._descriptors.items()):
            given, silent_s = outstanding[visit], now_s - said.since_s
            if silent_s >= SILENT_S and not said.told and not said.status.ahead:
                said.told = True
                log.warning("nothing new of %s from %s for %.0f s", visit, given.site, silent_s)
                self._show(self.view(given.work.job))
            if silent_s < _patience_s(said.status):
                continue
            log.warning("%s has not got on with %s for %.0f s", given.site, visit, silent_s)
            stalled = WorkStalled(site=given.site, visit=visit, silent_s=silent_s)
            self._tell_each(("stalled", visit), partial(_where_given, stalled))


def _in_order(stored: list[_Stored], now_s: float) -> list[_Stored]:
    """The facts, none after the one that follows it, nor after now.

    Each life of the control centre has a clock that goes on evenly. Where the wall clock was set
    back before the next one, what came before is moved back as far: so a job has as long as its
    budget says.
    """
    ordered: list[_Stored] = []
    later_s, moved_s = now_s, 0.0
    for fact in reversed(stored):
        moved_s = max(moved_s, fact.at_s - later_s)
        later_s = fact.at_s - moved_s
        ordered.append(_Stored(fact.event, later_s))
    return ordered[::-1]


def _due(job: Job, now_s: float) -> JobEvent | None:
    """What time alone brings about."""
    if job.deadline_at_s is not None and now_s >= job.deadline_at_s:
        return DeadlinePassed()
    if job.wake_at_s is not None and now_s >= job.wake_at_s:
        return Woke()
    return None


def _patience_s(status: WorkStatus) -> float:
    if status.state is not WorkState.RUNNING:
        return UNREPORTED_AT_MOST_S
    return QUEUED_AT_MOST_S if status.ahead else SILENT_AT_MOST_S


def _where_given(stalled: WorkStalled, job: Job) -> JobEvent | None:
    return stalled if stalled.visit in job.outstanding else None


def _works_for(site: SiteId, job: Job) -> bool:
    return any(o.site == site for o in job.outstanding.values())


def _report(error: Exception) -> ErrorReport:
    if isinstance(error, DaitnError):
        return ErrorReport.of(error)
    return ErrorReport(
        code="DaitnError",
        problem=f"internal error of the control centre: {type(error).__name__}",
        fix="see the control centre's log",
    )
