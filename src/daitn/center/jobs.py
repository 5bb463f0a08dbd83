"""The job service: stores each event, then acts on it; resumes every job after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import partial

import msgspec

from daitn.control.jobs.commands import Command, StartWork
from daitn.control.jobs.job import Job
from daitn.control.jobs.machine import decisions, handle, replay, submit
from daitn.control.jobs.rounds import due_at_s
from daitn.control.jobs.view import SILENT_S, JobNews, view
from daitn.objects.errors import (
    DaitnError,
    ErrorReport,
    IllegalTransition,
    NotFound,
    Refused,
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
    RoundDue,
    SiteLost,
    Submitted,
    ValueAsked,
    Woke,
    WorkStalled,
)
from daitn.objects.messages import WorkOutcome, WorkState, WorkStatus
from daitn.objects.orders import SignedOrder, same_order
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.journal.protocol import Journal, failed_storage
from daitn.tools.monitoring.log_ids import identified
from daitn.tools.tasks import Tasks

__all__ = ["JobService"]

log = logging.getLogger(__name__)

STORAGE_RETRY_S = 5.0
"""Pause of a job whose events cannot be stored because the disk is full."""
RESEND_EVERY_S = 15.0
"""How often a site gets its outstanding work again: it starts what it lost and reports what it
finished."""
SILENT_AT_MOST_S = 5400.0
"""Work whose status does not change for this long has stalled. Sites themselves end stalled work
within an hour, so this catches those that do not."""
QUEUED_AT_MOST_S = 86_400.0
"""The same for work that is queued at the site."""
UNREPORTED_AT_MOST_S = 300.0
"""A site whose status says that work has ended has failed if no valid report arrives for this long:
sites repeat reports every few seconds."""
TICK_S = 0.1
"""Maximum delay in noticing a deadline or a retry."""


class _StoredEvent(msgspec.Struct, frozen=True):
    """An event in the journal, with the time at which it was recorded."""

    event: JobEvent
    at_s: float


@dataclass
class _LastStatus:
    """The last status of work at a site, and since when it is unchanged (monotonic)."""

    status: WorkStatus
    since_s: float
    logged: bool = False
    """Whether the log mentions that it is unchanged for long."""


class JobService:
    """All jobs of one control centre. `act` carries out a command; `show` receives changes."""

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
        """Jobs for which there is something to do; periodic work looks at these alone."""
        self._unread: set[JobId] = set()
        """Jobs in the journal that cannot be read back; their ids are taken."""
        self._stored: dict[JobId, int] = {}
        self._unsure: set[JobId] = set()
        """Jobs that may not be as their events on disk say, as the journal failed."""
        self._statuses: dict[VisitId, _LastStatus] = {}
        self._tasks = Tasks()
        self._starting: set[VisitId] = set()
        """Work that a task is sending to its site."""
        self._postponed: dict[tuple[Hashable, JobId], Callable[[Job], JobEvent | None]] = {}
        """Events that jobs have not received because they could not be stored."""
        self._retrying = False
        self._resent_at_s = time.monotonic()

    def start(self) -> None:
        """Read every job back; `recover` resumes them."""
        for job in self._journal.jobs():
            try:
                self._restore(job)
            except Exception:
                # One job that cannot be read must not stop the others.
                self._unread.add(job)
                log.exception("job %s cannot be read back and is ignored", job)
        self._post_missing()
        self._tasks.repeat(self._tick, "jobs' deadlines")

    def _post_missing(self) -> None:
        """Post what facts cost that an earlier version stored."""
        posted = self._journal.posted()
        for job in self._jobs.values():
            if posted.get(job.id, 0) < len(job.entries):
                self._journal.post(job.entries)

    def recover(self) -> None:
        """Send outstanding work again in the order in which it was given, then resume every job."""
        self._resend(lambda site: True)
        self._feed_each("recovered", lambda job: Recovered())

    async def close(self) -> None:
        await self._tasks.close()

    def submit(self, event: Submitted) -> JobView:
        """Accept a new job. It is on disk when this returns. Raises `StorageFull`."""
        now_s = clock.now_s()
        job, commands = submit(event, now_s)
        stored = encode(_StoredEvent(event, now_s))
        try:
            self._journal.append(event.job, 0, [stored], now_s, job.entries)
        except DaitnError:
            self._unsure.add(job.id)
            raise
        self._index(job)
        self._stored[job.id] = 1
        self._carry_out(job, commands)
        return self._shown(job)

    def feed(self, id_: JobId, event: JobEvent) -> None:
        """Apply an event to the state machine, store it, then act on the commands."""
        with identified(job=id_):
            self._feed(self._jobs[id_], event)

    def _feed(self, job: Job, event: JobEvent) -> None:
        if job.id in self._unsure:
            self._go_on(job.id)
            job = self._jobs[job.id]
        id_, now_s, accounted = job.id, clock.now_s(), len(job.entries)
        seq = self._stored[id_]
        try:
            commands = handle(job, event, now_s)
            stored, entries = encode(_StoredEvent(event, now_s)), job.entries[accounted:]
            self._stored[id_] = self._journal.append(id_, seq, [stored], now_s, entries)
        except Exception:
            # An event that is not on disk did not happen: restore the job from those that are. A
            # journal that nobody reaches tells them later, and that it has stored this one.
            self._unsure.add(id_)
            with contextlib.suppress(DaitnError):
                self._restore(id_)
                if self._stored[id_] == seq:
                    self._unsure.discard(id_)
            raise
        self._index(job)
        self._carry_out(job, commands)
        self._shown(job)

    def _go_on(self, id_: JobId) -> None:
        """Go on with a job whose latest event may or may not be on disk, by those that are, as
        after a restart. Raises the `DaitnError` for which that cannot be told yet."""
        if stored := self._events(id_):
            self._rebuild(id_, stored)
        self._unsure.discard(id_)
        if id_ in self._open:
            self._feed(self._open[id_], Recovered())
        elif id_ in self._jobs:
            self._shown(self._jobs[id_])

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

    def value(self, id_: JobId, coalitions: int, within_s: float) -> None:
        """Have the value of a job's data measured. Raises `Refused` while it runs."""
        job = self.get(id_)
        if not job.state.final:
            raise Refused(
                f"job {id_} is {job.state}",
                field="job",
                fix="measure at its end: `daitn watch` says when that is",
            )
        self.feed(id_, ValueAsked(coalitions=coalitions, within_s=within_s))

    def reported(self, outcome: WorkOutcome) -> None:
        """A site reports. An unknown job is no error, so that the site can forget the work."""
        if outcome.job not in self._jobs:
            return
        if outcome.state is not WorkState.DONE:
            why = outcome.error.problem if outcome.error else "it gives no reason"
            log.warning("%s did not finish %s: %s", outcome.site, outcome.visit, why)
        self.feed(outcome.job, Reported(outcome))

    def status_received(self, id_: JobId, visit: VisitId, status: WorkStatus) -> None:
        """A site states its status of work that it was given."""
        last = self._statuses.get(visit)
        if last is not None and last.status == status:
            return
        self._statuses[visit] = _LastStatus(status, time.monotonic())
        if (last.status.ahead if last else 0) != status.ahead:
            self._show(self.view(id_))

    def lost(self, site: SiteId) -> None:
        """A site was lost: jobs that it worked for replan."""
        self._feed_each(
            ("lost", site), lambda job: SiteLost(site) if _works_for(site, job) else None
        )

    def joined(self, site: SiteId) -> None:
        """A site joined, perhaps after a restart.

        It gets its outstanding work again: it starts what it lost and reports what it finished.
        Jobs that wait try again.
        """
        for what in [what for what in self._postponed if what[0] == ("lost", site)]:
            del self._postponed[what]  # It is back, so its loss no longer matters.
        self._resend(lambda of: of == site)
        self._feed_each("woke", lambda job: Woke() if job.state is JobState.WAITING else None)

    def view(self, id_: JobId) -> JobView:
        """The current view of a job. Raises `NotFound`."""
        job, now_s = self.get(id_), time.monotonic()
        news = {
            visit: JobNews(last.status, now_s - last.since_s)
            for visit in job.outstanding
            if (last := self._statuses.get(visit)) is not None
        }
        return view(job, clock.now_s(), news)

    def get(self, id_: JobId) -> Job:
        job = self._jobs.get(id_)
        if job is None:
            raise NotFound(f"there is no job {id_}", field="job", fix="see `daitn get jobs`")
        return job

    def ordered(self, order: SignedOrder | None) -> JobView | None:
        """The job that an order has started, if it has."""
        found = (job.id for job in self._jobs.values() if same_order(job.order, order))
        return next(map(self.view, found), None)

    def decisions(self, id_: JobId) -> tuple[Decided, ...]:
        """Every decision on the job's route, from its events. Raises `NotFound`."""
        return decisions((one.event, one.at_s) for one in self._events(self.get(id_).id))

    def all(self) -> tuple[Job, ...]:
        """Every job, oldest first."""
        return tuple(self._jobs.values())

    def before(self, id_: JobId | None) -> Iterator[Job]:
        """Jobs older than one, newest first; none: every job. Raises `NotFound`."""
        newest_first = reversed(self._jobs.values())
        if id_ is None:
            return newest_first
        sought = self.get(id_)
        from_it_on = itertools.dropwhile(lambda job: job is not sought, newest_first)
        return itertools.islice(from_it_on, 1, None)

    def unfinished(self) -> tuple[Job, ...]:
        """Jobs for which there is something to do."""
        return tuple(self._open.values())

    def new_id(self, name: str) -> JobId:
        """The next free id for an intent of this name."""
        numbered = (JobId(f"{name}-{number}") for number in itertools.count(1))
        taken = (self._jobs, self._unread, self._unsure)
        return next(id_ for id_ in numbered if not any(id_ in ids for ids in taken))

    def _feed_each(self, what: Hashable, event_for: Callable[[Job], JobEvent | None]) -> None:
        """Feed every unfinished job the event that `event_for` returns, if any.

        Jobs that cannot store it get it again later.
        """
        for job in self.unfinished():
            self._feed_safely(job.id, what, event_for)

    def _feed_safely(
        self, id_: JobId, what: Hashable, event_for: Callable[[Job], JobEvent | None]
    ) -> None:
        job = self._open.get(id_)
        event = event_for(job) if job is not None else None
        if event is None:
            return
        try:
            self.feed(id_, event)
        except IllegalTransition:
            log.exception("job %s does not accept %s", id_, type(event).__name__)
        except Exception:
            log.exception("job %s could not store %s and gets it again", id_, type(event).__name__)
            self._postponed[what, id_] = event_for
            if not self._retrying:
                self._retrying = True
                self._tasks.spawn(self._retry_postponed(), "postponed events")

    async def _retry_postponed(self) -> None:
        try:
            while self._postponed:
                await asyncio.sleep(STORAGE_RETRY_S)
                postponed, self._postponed = self._postponed, {}
                for (what, id_), event_for in postponed.items():
                    self._feed_safely(id_, what, event_for)
        finally:
            self._retrying = False

    def _restore(self, id_: JobId) -> None:
        self._rebuild(id_, self._events(id_))

    def _rebuild(self, id_: JobId, stored: list[_StoredEvent]) -> None:
        self._index(replay((one.event, one.at_s) for one in stored))
        self._stored[id_] = len(stored)

    def _index(self, job: Job) -> None:
        self._jobs[job.id] = job
        if job.open:
            self._open[job.id] = job
        else:
            self._open.pop(job.id, None)

    def _events(self, id_: JobId) -> list[_StoredEvent]:
        stored = [decode(event, _StoredEvent) for event in self._journal.events(id_)]
        return _with_ordered_times(stored, clock.now_s())

    def _carry_out(self, job: Job, commands: tuple[Command, ...]) -> None:
        for command in commands:
            if isinstance(command, StartWork):
                # Work is sent repeatedly, but by one task at a time, however long that takes.
                visit = command.work.visit
                if visit in self._starting:
                    continue
                self._starting.add(visit)
                acting = self._act_safely(job.id, job.state, command)
                task = self._tasks.spawn(acting, f"{visit} of {job.id}")
                task.add_done_callback(partial(self._started, visit))
            else:
                self._tasks.spawn(self._act_safely(job.id, job.state, command), f"job {job.id}")

    def _started(self, visit: VisitId, ended: asyncio.Task[None]) -> None:
        self._starting.discard(visit)

    async def _act_safely(self, id_: JobId, state: JobState, command: Command) -> None:
        with identified(job=id_):
            await self._act_until_done(id_, state, command)

    async def _act_until_done(self, id_: JobId, state: JobState, command: Command) -> None:
        while self._jobs[id_].state is state:
            try:
                await self._act(self._jobs[id_], command)
                return
            except Exception as error:
                if failed_storage(error):
                    log.error("job %s pauses: %s", id_, error)
                    await asyncio.sleep(STORAGE_RETRY_S)
                    continue
                log.exception("job %s: %s failed", id_, type(command).__name__)
                self._fail(id_, ActionFailed(_report(error)))
                return

    def _fail(self, id_: JobId, failure: ActionFailed) -> None:
        self._feed_safely(id_, "failed", lambda job: failure)

    def _shown(self, job: Job) -> JobView:
        shown = self.view(job.id)
        log.info("job %s is %s: %s", job.id, job.state, job.detail or job.state.sentence)
        self._show(shown)
        return shown

    def _resend(self, to: Callable[[SiteId], bool]) -> None:
        """Send outstanding work again, in the order in which it was given."""
        given = [(o, job) for job in self.unfinished() for o in job.outstanding.values()]
        for o, job in sorted(given, key=lambda one: one[0].since_s):
            if to(o.site):
                self._carry_out(job, (StartWork(o.site, o.work),))

    async def _tick(self) -> None:
        await asyncio.sleep(TICK_S)
        now_s = time.monotonic()
        if now_s - self._resent_at_s > RESEND_EVERY_S:
            self._resent_at_s = now_s
            self._resend(lambda site: True)
            self._end_stalled(now_s)
        for id_ in tuple(self._unsure):
            with contextlib.suppress(DaitnError):
                self._go_on(id_)
        for job in self.unfinished():
            # What is due and cannot be stored comes again with the postponed events.
            if _due(job, clock.now_s()) and ("due", job.id) not in self._postponed:
                self._feed_safely(job.id, "due", lambda job: _due(job, clock.now_s()))

    def _end_stalled(self, now_s: float) -> None:
        """Give up work that makes no progress at its site."""
        outstanding = {v: o for job in self.unfinished() for v, o in job.outstanding.items()}
        self._statuses = {v: last for v, last in self._statuses.items() if v in outstanding}
        for visit, last in tuple(self._statuses.items()):
            given, silent_s = outstanding[visit], now_s - last.since_s
            if silent_s >= SILENT_S and not last.logged and not last.status.ahead:
                last.logged = True
                log.warning("no news of %s from %s for %.0f s", visit, given.site, silent_s)
                self._show(self.view(given.work.job))
            if silent_s < _stall_timeout_s(last.status):
                continue
            log.warning("%s made no progress with %s for %.0f s", given.site, visit, silent_s)
            stalled = WorkStalled(site=given.site, visit=visit, silent_s=silent_s)
            self._feed_each(("stalled", visit), partial(_if_outstanding, stalled))


def _with_ordered_times(stored: list[_StoredEvent], now_s: float) -> list[_StoredEvent]:
    """The events with times that never decrease and do not exceed `now_s`.

    The clock is steady within each run of the control centre. If the wall clock was set back
    between two runs, the times of earlier events move back as far, so that a job keeps its time
    budget.
    """
    ordered: list[_StoredEvent] = []
    later_s, moved_s = now_s, 0.0
    for one in reversed(stored):
        moved_s = max(moved_s, one.at_s - later_s)
        later_s = one.at_s - moved_s
        ordered.append(_StoredEvent(one.event, later_s))
    return ordered[::-1]


def _due(job: Job, now_s: float) -> JobEvent | None:
    """The event that is due by time alone, if any."""
    if job.valuing is not None:
        return DeadlinePassed() if now_s >= job.valuing.deadline_at_s else None
    if job.deadline_at_s is not None and now_s >= job.deadline_at_s:
        return DeadlinePassed()
    if job.wake_at_s is not None and now_s >= job.wake_at_s:
        return Woke()
    round_due_at_s = due_at_s(job)
    if round_due_at_s is not None and now_s >= round_due_at_s:
        return RoundDue()
    return None


def _stall_timeout_s(status: WorkStatus) -> float:
    if status.state is not WorkState.RUNNING:
        return UNREPORTED_AT_MOST_S
    return QUEUED_AT_MOST_S if status.ahead else SILENT_AT_MOST_S


def _if_outstanding(stalled: WorkStalled, job: Job) -> JobEvent | None:
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
