"""The job service: stores each event, then acts on it; resumes every job after a restart.

Jobs with something left to do are in memory. Of an ended job only an outline is (`ended_jobs`); the
rest is rebuilt from its events on request.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from functools import partial

from daitn.center.ended_jobs import EndedJobs, models_of
from daitn.center.stored_events import StoredEvent, stored_events, unreadable
from daitn.center.work_watch import WorkWatch
from daitn.control.jobs.commands import Command, Commands, Settle, StartWork, StopWork
from daitn.control.jobs.job import Job
from daitn.control.jobs.machine import conclude, decisions, handle, replayed, submit
from daitn.control.jobs.resuming import check_running, refusal
from daitn.control.jobs.rounds import due_at_s
from daitn.control.jobs.view import view
from daitn.control.jobs.walkers import statements_of
from daitn.objects.errors import (
    Corrupt,
    DaitnError,
    ErrorReport,
    IllegalTransition,
    NotFound,
    Refused,
    Unreachable,
)
from daitn.objects.identifiers import Digest, JobId, OwnerId, SiteId, VisitId
from daitn.objects.jobs import (
    ActionFailed,
    CancelRequested,
    Checkpoint,
    DeadlinePassed,
    Decided,
    JobEvent,
    JobState,
    JobSummary,
    JobView,
    Recovered,
    Reported,
    ResumeAsked,
    RoundDue,
    SiteLost,
    Submitted,
    ValueAsked,
    Woke,
    WorkStalled,
)
from daitn.objects.lineage import SignedStatement
from daitn.objects.messages import WorkOutcome, WorkState, WorkStatus
from daitn.objects.models import ModelRef
from daitn.objects.orders import SignedOrder
from daitn.objects.wire import encode
from daitn.tools import clock
from daitn.tools.fabric.caller import caller_name
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
TICK_S = 0.1
"""Maximum delay in noticing a deadline or a retry."""
MOST_ENDED = 64
"""Limit on ended jobs in memory, most recently used."""


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
        self._known: dict[JobId, None] = {}
        """All jobs, oldest first."""
        self._of_order: dict[Digest, JobId] = {}
        """The job that an order started."""
        self._jobs: dict[JobId, Job] = {}
        """Jobs in memory."""
        self._ended = EndedJobs(journal)
        self._settling: set[JobId] = set()
        """Ended jobs that are being finalised."""
        self._open: dict[JobId, Job] = {}
        """Jobs with something left to do; only these are examined periodically."""
        self.unreadable: dict[JobId, Corrupt] = {}
        """Jobs found to be unreadable in the journal. Their ids stay taken."""
        self._stored: dict[JobId, int] = {}
        self._away_until_s = 0.0
        """Nothing that can wait is written or read before (monotonic): the database did not answer
        just now. Each attempt takes as long as it is silent, and the event loop waits."""
        self._unsure: set[JobId] = set()
        """Jobs that may differ from their stored events, because the journal failed."""
        self._watch = WorkWatch()
        self._unsent: dict[JobId, tuple[StopWork, ...]] = {}
        """For jobs read from the journal: sites that may not have been told to stop."""
        self._tasks = Tasks()
        self._starting: set[VisitId] = set()
        """Work that a task is sending to its site."""
        self._postponed: dict[tuple[Hashable, JobId], Callable[[Job], JobEvent | None]] = {}
        """Events that jobs have not received because they could not be stored."""
        self._retrying = False
        self._resent_at_s = time.monotonic()

    def start(self) -> None:
        """Load jobs, except ended ones with a stored outline; `recover` resumes them. Finalising
        those from `unsettled` may have been interrupted."""
        facts = self._journal.counts()
        self._ended.start(facts)
        for job in facts:
            try:
                self._restore_unless_ended(job)
            except Corrupt as error:
                # One job that cannot be read must not stop the others.
                self._set_aside(job, error)
            except Exception as error:
                if failed_storage(error):
                    raise
                log.exception("job %s cannot be read back", job)
                self._set_aside(job, unreadable(job, f"its events contradict each other: {error}"))
        self._post_missing()
        self._tasks.repeat(self._tick, "jobs' deadlines")

    def _restore_unless_ended(self, id_: JobId) -> None:
        outline = self._ended.get(id_)
        if outline is not None:
            self._note(id_, outline.order)
            return
        left = self._rebuild(id_, self._events(id_))
        if stops := tuple(one for one in left if isinstance(one, StopWork)):
            self._unsent[id_] = stops

    def _set_aside(self, id_: JobId, error: Corrupt) -> None:
        if id_ not in self.unreadable:
            self.unreadable[id_] = error
            log.error("%s", error)

    def _post_missing(self) -> None:
        """Post the costs of facts stored by an earlier version."""
        posted = self._journal.posted()
        for id_ in self._known:
            outline = self._ended.get(id_)
            entries = outline.entries if outline else len(self._jobs[id_].entries)
            if posted.get(id_, 0) < entries:
                try:
                    lacking = self.get(id_).entries
                except Corrupt:  # It is set aside.
                    continue
                self._journal.post(lacking)

    def unsettled(self) -> tuple[Job, ...]:
        """Ended jobs in memory without a stored outline."""
        ended = (job for job in self._jobs.values() if job.state.final)
        return tuple(job for job in ended if self._ended.get(job.id) is None)

    def settled(self, jobs: Iterable[Job]) -> None:
        """These ended jobs are finalised: outlines are stored for those with nothing left to do."""
        here = (job for job in jobs if self._jobs.get(job.id) is job)
        done = [job for job in here if not job.open and job.id not in self._unsure]
        self._ended.put((job, self._stored[job.id]) for job in done)
        self._forget_ended()

    def _forget_ended(self) -> None:
        """Drop all but the latest ended jobs from memory."""
        ended = [id_ for id_ in self._jobs if self._ended.get(id_) and id_ not in self._unsure]
        for id_ in ended[: max(0, len(ended) - MOST_ENDED)]:
            del self._jobs[id_], self._stored[id_]

    def awaited(self) -> set[SiteId]:
        """Sites that must be contacted once all jobs are loaded: see `recover`."""
        working = {o.site for job in self.unfinished() for o in job.outstanding.values()}
        return working | {one.site for stops in self._unsent.values() for one in stops}

    def recover(self) -> None:
        """Tell sites to stop that may not have been told, resend outstanding work in its original
        order, then resume every job."""
        unsent, self._unsent = self._unsent, {}
        for id_, stops in unsent.items():
            self._carry_out(self.get(id_), stops)
        self._resend(lambda site: True)
        self._feed_each("recovered", lambda job: Recovered())

    async def close(self) -> None:
        await self._tasks.close()

    def submit(self, event: Submitted) -> JobView:
        """Accept a new job. It is on disk when this returns. Raises `StorageFull`."""
        now_s = clock.now_s()
        job, commands = submit(event, now_s)
        stored = encode(StoredEvent(event, now_s))
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
            self._feed(self.get(id_), event)

    def _feed(self, job: Job, event: JobEvent) -> None:
        job = self._as_stored(job.id)
        id_, now_s, accounted = job.id, clock.now_s(), len(job.entries)
        seq = self._stored[id_]
        try:
            commands = handle(job, event, now_s)
            stored, entries = encode(StoredEvent(event, now_s)), job.entries[accounted:]
            self._stored[id_] = self._journal.append(id_, seq, [stored], now_s, entries)
        except Exception:
            # An event that is not on disk did not happen: restore the job from its stored events.
            # If the journal cannot be reached, it tells them later, including whether it has stored
            # this one.
            self._unsure.add(id_)
            with contextlib.suppress(DaitnError):
                self._restore(id_)
                if self._stored[id_] == seq:
                    self._unsure.discard(id_)
            raise
        self._index(job)
        self._carry_out(job, commands)
        self._shown(job)
        if not job.open and id_ not in self._settling:
            self.settled([job])

    def _go_on(self, id_: JobId) -> None:
        """Continue a job whose latest event may or may not be on disk, from the stored events, as
        after a restart. Raises the `DaitnError` that keeps this unknown."""
        left: Commands = ()
        if stored := self._events(id_):
            left = self._rebuild(id_, stored)
        self._unsure.discard(id_)
        if id_ in self._known:  # What `Recovered` does not say again: sites to stop, its end.
            again = tuple(one for one in left if isinstance(one, StopWork | Settle))
            self._carry_out(self.get(id_), again)
        if id_ in self._open:
            self._feed(self._open[id_], Recovered())
        elif id_ in self._known:
            self._shown(self.get(id_))

    def _as_stored(self, id_: JobId) -> Job:
        """A job that somebody wants changed, as its stored events say."""
        if id_ in self._unsure:
            self._go_on(id_)
        return self.get(id_)

    def cancel(self, id_: JobId) -> JobView:
        check_running(id_, self._as_stored(id_).state)
        self.feed(id_, CancelRequested(by=caller_name()))
        return self.view(id_)

    def resume(self, id_: JobId) -> JobView:
        """Resume an ended job from its best model, with the rest of its budget. Raises `Refused`
        for one that has not ended, or would end again at once."""
        job = self._as_stored(id_)
        if job.open:
            why, fix = f"is {job.state}", "it goes on by itself; `daitn watch` follows it"
            if job.state.final:
                why, fix = "is having the value of its data measured", "wait until that has ended"
            raise Refused(f"job {id_} {why}", field="job", fix=fix)
        if (why_not := refusal(job)) is not None:
            raise why_not
        self.feed(id_, ResumeAsked())
        return self.view(id_)

    def value(self, id_: JobId, coalitions: int, within_s: float) -> None:
        """Have the value of a job's data measured. Raises `Refused` while it is running."""
        job = self._as_stored(id_)
        if not job.state.final:
            raise Refused(
                f"job {id_} is {job.state}",
                field="job",
                fix="measure after it has ended: `daitn watch` follows it to its end",
            )
        self.feed(id_, ValueAsked(coalitions=coalitions, within_s=within_s))

    def reported(self, outcome: WorkOutcome, statement: bytes = b"") -> None:
        """Process a site's report. An unknown job is not an error, so that the site can forget the
        work.

        `statement`: its entry, as it signed it for others.
        """
        if outcome.job not in self._known:
            return
        if outcome.state is not WorkState.DONE:
            why = outcome.error.problem if outcome.error else "it gives no reason"
            log.warning("%s did not finish %s: %s", outcome.site, outcome.visit, why)
        self.feed(outcome.job, Reported(outcome, statement))

    def status_received(self, id_: JobId, visit: VisitId, status: WorkStatus) -> None:
        """Process a site's status of its work."""
        if self._watch.received(visit, status, time.monotonic()):
            self._show(self.view(id_))

    def is_taken(self, visit: VisitId) -> bool:
        """Whether a site has taken this outstanding work, as far as this process knows."""
        return self._watch.has(visit)

    def lost(self, site: SiteId) -> None:
        """A site was lost: jobs for which it worked replan."""
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
        job = self.get(id_)
        return view(job, clock.now_s(), self._watch.news(job.outstanding, time.monotonic()))

    def has(self, id_: JobId) -> bool:
        """Whether there is such a job."""
        return id_ in self._known

    def get(self, id_: JobId) -> Job:
        job = self._jobs.get(id_)
        if job is not None:
            return job
        if id_ in self.unreadable:
            raise self.unreadable[id_]
        if id_ not in self._known:
            raise NotFound(f"there is no job {id_}", field="job", fix="see `daitn get jobs`")
        self._forget_ended()
        try:
            self._restore(id_)
        except Corrupt as error:
            self._set_aside(id_, error)
            raise
        return self._jobs[id_]

    def ordered(self, order: SignedOrder | None) -> JobView | None:
        """The job that an order has started, if any. Raises the `DaitnError` for which that is
        still unknown."""
        for id_ in sorted(self._unsure - self._known.keys()):  # They may be on disk.
            self._go_on(id_)
        found = self._of_order.get(order.digest) if order else None
        return None if found is None else self.view(found)

    def left(self, model: ModelRef | None, owner: OwnerId) -> Checkpoint | None:
        """The result of an owner's ended job, if its best model is this one."""
        if model is None:
            return None
        here = {job.id for job in self._jobs.values() if job.intent.owner == owner and not job.open}
        kept = self._ended.that_left(model.manifest, owner)
        best = (self.get(id_).best for id_ in sorted(here | kept))
        return next((one for one in best if one and one.model.manifest == model.manifest), None)

    def decisions(self, id_: JobId) -> tuple[Decided, ...]:
        """Every decision on the job's route, from its events. Raises `NotFound`."""
        return decisions((one.event, one.at_s) for one in self._events(self.get(id_).id))

    def statements(self, id_: JobId) -> tuple[SignedStatement, ...]:
        """Statements on the job's lineage that sites signed for outsiders, from its events. Raises
        `NotFound`."""
        return statements_of((one.event for one in self._events(id_)), self.get(id_).lineage)

    def owner(self, id_: JobId) -> OwnerId:
        """The owner of a job. Raises `NotFound`."""
        outline = self._ended.get(id_)
        return outline.owner if outline else self.get(id_).intent.owner

    def state(self, id_: JobId) -> JobState:
        """The state of a job. Raises `NotFound`."""
        outline = self._ended.get(id_)
        return outline.state if outline else self.get(id_).state

    def summary(self, id_: JobId) -> JobSummary:
        """A job's entry in a list. Raises `NotFound`."""
        outline = self._ended.get(id_)
        return outline.summary if outline else JobSummary.of(self.view(id_))

    def states(self) -> Counter[JobState]:
        """Number of jobs by state."""
        here = (job.state for job in self._jobs.values() if self._ended.get(job.id) is None)
        return Counter(here) + self._ended.states()

    def models(self) -> set[Digest]:
        """Models that any job still needs."""
        here = (job for job in self._jobs.values() if self._ended.get(job.id) is None)
        return self._ended.models().union(*map(models_of, here))

    def before(self, id_: JobId | None) -> Iterator[JobId]:
        """Jobs older than one, newest first; none means every job. Raises `NotFound`."""
        newest_first = reversed(self._known)
        if id_ is None:
            return newest_first
        if id_ not in self._known:
            self.get(id_)
        from_it_on = itertools.dropwhile(lambda job: job != id_, newest_first)
        return itertools.islice(from_it_on, 1, None)

    def unfinished(self) -> tuple[Job, ...]:
        """Jobs with something left to do."""
        return tuple(self._open.values())

    def new_id(self, name: str) -> JobId:
        """The next free id for an intent of this name."""
        numbered = (JobId(f"{name}-{number}") for number in itertools.count(1))
        taken = (self._known, self.unreadable, self._unsure)
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
        if self._is_away():
            self._postpone(id_, what, event_for)
            return
        try:
            self.feed(id_, event)
        except IllegalTransition:
            log.exception("job %s does not accept %s", id_, type(event).__name__)
        except Exception as error:
            again = "job %s could not store %s and gets it again: %s"
            foreseen = failed_storage(error)
            log.error(again, id_, type(event).__name__, error, exc_info=not foreseen)
            self._note_away(error)
            self._postpone(id_, what, event_for)

    def _is_away(self) -> bool:
        return time.monotonic() < self._away_until_s

    def _note_away(self, error: Exception) -> None:
        if isinstance(error, Unreachable):
            self._away_until_s = time.monotonic() + STORAGE_RETRY_S

    def _postpone(
        self, id_: JobId, what: Hashable, event_for: Callable[[Job], JobEvent | None]
    ) -> None:
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

    def _rebuild(self, id_: JobId, stored: list[StoredEvent]) -> Commands:
        """Rebuild a job. Returns what followed from its latest event."""
        job, commands = replayed((one.event, one.at_s) for one in stored)
        outline = self._ended.get(id_)
        if outline is not None and outline.facts == len(stored) and job.state is not outline.state:
            # It ended by the rules of its time: those of today read its events differently.
            log.warning(
                "job %s has ended %s, but is %s by its events", id_, outline.state, job.state
            )
            commands = conclude(job, outline.state, outline.summary.detail)
        self._index(job)
        self._stored[id_] = len(stored)
        return commands

    def _note(self, id_: JobId, order: Digest) -> None:
        self._known[id_] = None
        if order:
            self._of_order.setdefault(order, id_)

    def _index(self, job: Job) -> None:
        if job.id not in self._known:
            self._note(job.id, job.order.digest if job.order else Digest(""))
        self._jobs[job.id] = job
        if job.open:
            self._open[job.id] = job
            self._ended.drop(job.id)
        else:
            self._open.pop(job.id, None)

    def _events(self, id_: JobId) -> list[StoredEvent]:
        return stored_events(self._journal, id_, clock.now_s())

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
                if isinstance(command, Settle):
                    self._settling.add(job.id)
                self._tasks.spawn(self._act_safely(job.id, job.state, command), f"job {job.id}")

    def _started(self, visit: VisitId, ended: asyncio.Task[None]) -> None:
        self._starting.discard(visit)

    async def _act_safely(self, id_: JobId, state: JobState, command: Command) -> None:
        with identified(job=id_):
            done = await self._act_until_done(id_, state, command)
            if isinstance(command, Settle):
                self._settling.discard(id_)
                if done:
                    self.settled([self.get(id_)])

    async def _act_until_done(self, id_: JobId, state: JobState, command: Command) -> bool:
        """Act while that is still due. Returns whether it was done."""
        while _is_due(job := self.get(id_), state, command):
            try:
                await self._act(job, command)
                return True
            except Exception as error:
                if failed_storage(error):
                    log.error("job %s pauses: %s", id_, error)
                    await asyncio.sleep(STORAGE_RETRY_S)
                    continue
                log.exception("job %s: %s failed", id_, type(command).__name__)
                self._fail(id_, ActionFailed(_report(error)))
                return False
        return False

    def _fail(self, id_: JobId, failure: ActionFailed) -> None:
        self._feed_safely(id_, "failed", lambda job: failure)

    def _shown(self, job: Job) -> JobView:
        shown = self.view(job.id)
        log.info("job %s is %s: %s", job.id, job.state, job.detail or job.state.sentence)
        self._show(shown)
        return shown

    def _resend(self, to: Callable[[SiteId], bool]) -> None:
        """Resend outstanding work, in its original order."""
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
            if self._is_away():
                break
            try:
                self._go_on(id_)
            except DaitnError as error:
                self._note_away(error)
        for job in self.unfinished():
            # A due event that cannot be stored comes again with the postponed events.
            if _due(job, clock.now_s()) and ("due", job.id) not in self._postponed:
                self._feed_safely(job.id, "due", lambda job: _due(job, clock.now_s()))

    def _end_stalled(self, now_s: float) -> None:
        """Give up work without progress at its site."""
        outstanding = {v: o for job in self.unfinished() for v, o in job.outstanding.items()}
        for visit in self._watch.silent(outstanding, now_s):
            self._show(self.view(outstanding[visit].work.job))
        expected_s = {visit: o.expected_s for visit, o in outstanding.items()}
        for visit, (silent_s, took_s) in self._watch.stalled(now_s, expected_s).items():
            site = outstanding[visit].site
            stalled = WorkStalled(site=site, visit=visit, silent_s=silent_s, took_s=took_s)
            what = "did not finish %s within" if took_s else "made no progress with %s for"
            log.warning(f"%s {what} %.0f s", site, visit, took_s or silent_s)
            self._feed_each(("stalled", visit), partial(_if_outstanding, stalled))


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


def _if_outstanding(stalled: WorkStalled, job: Job) -> JobEvent | None:
    return stalled if stalled.visit in job.outstanding else None


def _works_for(site: SiteId, job: Job) -> bool:
    return any(o.site == site for o in job.outstanding.values())


def _is_due(job: Job, state: JobState, command: Command) -> bool:
    """Whether to carry out a command that a job issued in `state`. Stopping work, and starting work
    that the job still awaits, remain due after the job has moved on to another state."""
    match command:
        case StopWork():
            return True
        case StartWork():
            return command.work.visit in job.outstanding
    return job.state is state


def _report(error: Exception) -> ErrorReport:
    if isinstance(error, DaitnError):
        return ErrorReport.of(error)
    return ErrorReport(
        code="DaitnError",
        problem=f"internal error of the control centre: {type(error).__name__}",
        fix="see the control centre's log",
    )
