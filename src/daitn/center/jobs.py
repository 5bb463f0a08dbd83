"""The job service: facts are stored, then acted on; a restart takes every job up again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from daitn.control.jobs.commands import Command
from daitn.control.jobs.job import Job
from daitn.control.jobs.machine import handle, replay, submit
from daitn.control.jobs.view import view
from daitn.objects.errors import DaitnError, ErrorReport, NotFound, Refused, StorageFull
from daitn.objects.identifiers import JobId, SiteId
from daitn.objects.jobs import (
    ActionFailed,
    CancelRequested,
    DeadlinePassed,
    JobEvent,
    JobState,
    JobView,
    Recovered,
    Reported,
    SiteLost,
    Submitted,
    Woke,
)
from daitn.objects.messages import WorkOutcome
from daitn.objects.wire import decode, encode
from daitn.tools.store.journal import Journal

__all__ = ["JobService"]

log = logging.getLogger(__name__)

STORAGE_AGAIN_S = 5.0
"""Pause of a job whose facts cannot be stored because the disk is full."""
TICK_S = 0.1
"""How late a deadline or a retry may be noticed."""


class _Stored(msgspec.Struct, frozen=True):
    """A fact in the journal, with the time at which it was taken in."""

    event: JobEvent
    at_s: float


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
        self._stored: dict[JobId, int] = {}
        self._acting: set[asyncio.Task[None]] = set()
        self._ticking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Read every job back; nothing is done for them until `recover`."""
        for job in self._journal.jobs():
            self._restore(job)
        self._ticking = asyncio.create_task(self._tick())

    def recover(self) -> None:
        """Take up again what was under way."""
        for job in self.unfinished():
            self.feed(job.id, Recovered())

    async def close(self) -> None:
        tasks = [*self._acting, *([self._ticking] if self._ticking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def submit(self, event: Submitted) -> JobView:
        """Take a new job. It is on disk when this returns. Raises `StorageFull`."""
        now_s = time.time()
        job, commands = submit(event, now_s)
        self._journal.append(event.job, 0, [encode(_Stored(event, now_s))], now_s)
        self._jobs[job.id] = job
        self._stored[job.id] = 1
        self._carry_out(job, commands)
        return self._shown(job)

    def feed(self, id_: JobId, event: JobEvent) -> None:
        """Take a fact in: into the machine, onto the disk, then act on it."""
        job = self._jobs[id_]
        now_s = time.time()
        commands = handle(job, event, now_s)
        try:
            stored = encode(_Stored(event, now_s))
            self._stored[id_] = self._journal.append(id_, self._stored[id_], [stored], now_s)
        except DaitnError:
            # What is not on disk did not happen: the machine goes back to what is.
            self._restore(id_)
            raise
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
        return view(self.get(id_), time.time())

    def reported(self, outcome: WorkOutcome) -> None:
        """A site reports. A job that is not known here is no error: the site may forget it."""
        if outcome.job in self._jobs:
            self.feed(outcome.job, Reported(outcome))

    def lost(self, site: SiteId) -> None:
        """A site is gone: jobs that it worked for replan."""
        for job in self.unfinished():
            if any(o.site == site for o in job.outstanding.values()):
                self.feed(job.id, SiteLost(site))

    def wake(self) -> None:
        """The network changed: jobs that wait look again."""
        for job in self.unfinished():
            if job.state is JobState.WAITING:
                self.feed(job.id, Woke())

    def get(self, id_: JobId) -> Job:
        job = self._jobs.get(id_)
        if job is None:
            raise NotFound(f"there is no job {id_}", field="job", fix="see `daitn get jobs`")
        return job

    def all(self) -> tuple[Job, ...]:
        """Every job, oldest first."""
        return tuple(self._jobs.values())

    def unfinished(self) -> tuple[Job, ...]:
        return tuple(job for job in self._jobs.values() if not job.state.final)

    def new_id(self, name: str) -> JobId:
        """The next free id for an intent of this name."""
        number = 1
        while JobId(f"{name}-{number}") in self._jobs:
            number += 1
        return JobId(f"{name}-{number}")

    def _restore(self, id_: JobId) -> None:
        events = self._journal.events(id_)
        stored = [decode(event, _Stored) for event in events]
        self._jobs[id_] = replay((fact.event, fact.at_s) for fact in stored)
        self._stored[id_] = len(events)

    def _carry_out(self, job: Job, commands: tuple[Command, ...]) -> None:
        for command in commands:
            task = asyncio.create_task(self._act_safely(job, command))
            self._acting.add(task)
            task.add_done_callback(self._acting.discard)

    async def _act_safely(self, job: Job, command: Command) -> None:
        state = job.state
        while self._jobs[job.id].state is state:
            try:
                await self._act(self._jobs[job.id], command)
                return
            except StorageFull as error:
                log.error("job %s pauses: %s", job.id, error)
                await asyncio.sleep(STORAGE_AGAIN_S)
            except Exception as error:
                log.exception("job %s: %s failed", job.id, type(command).__name__)
                if not job.state.final:
                    self.feed(job.id, ActionFailed(_report(error)))
                return

    def _shown(self, job: Job) -> JobView:
        shown = view(job, time.time())
        log.info("job %s is %s: %s", job.id, job.state, job.detail or job.state.sentence)
        self._show(shown)
        return shown

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now_s = time.time()
            for job in self.unfinished():
                try:
                    if job.deadline_at_s is not None and now_s >= job.deadline_at_s:
                        self.feed(job.id, DeadlinePassed())
                    elif job.wake_at_s is not None and now_s >= job.wake_at_s:
                        self.feed(job.id, Woke())
                except DaitnError as error:
                    log.error("job %s: %s", job.id, error)


def _report(error: Exception) -> ErrorReport:
    if isinstance(error, DaitnError):
        return ErrorReport.of(error)
    return ErrorReport(
        code="DaitnError",
        problem=f"internal error of the control centre: {type(error).__name__}",
        fix="see the control centre's log",
    )
