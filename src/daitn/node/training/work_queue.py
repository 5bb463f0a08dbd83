"""Where work for a site is accepted, done and reported, whatever its kind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from daitn.node.training.work_log import LoggedWork, WorkLog
from daitn.objects.errors import (
    Corrupt,
    DaitnError,
    ErrorReport,
    InvalidInput,
    Refused,
    StorageFull,
)
from daitn.objects.identifiers import Digest, SiteId, VisitId
from daitn.objects.lineage import Entry
from daitn.objects.messages import Work, WorkOutcome, WorkProgress, WorkState, WorkStatus
from daitn.objects.models import ModelRef

__all__ = ["WorkQueue", "WorkResult"]

log = logging.getLogger(__name__)

FETCHING = "fetching"
"""The phase of work before it has its turn."""
REPORT_AGAIN_S = (0.2, 1.0, 5.0)
"""Pauses between attempts to report; the last one repeats until the control centre answers."""


@dataclass(frozen=True)
class WorkResult:
    """What a piece of work gave."""

    entry: Entry
    model: ModelRef | None


class WorkQueue:
    """Takes each piece of work once, however often it is handed in, and reports until heard.

    `perform` does a piece of work; `report` hands an outcome to the control centre and raises
    `DaitnError` when it was not heard.
    """

    def __init__(
        self,
        site: SiteId,
        work_log: WorkLog,
        perform: Callable[[Work], Awaitable[WorkResult]],
        report: Callable[[WorkOutcome], Awaitable[None]],
    ) -> None:
        self._site = site
        self._log = work_log
        self._perform = perform
        self._report = report
        self._running: dict[VisitId, asyncio.Task[None]] = {}
        """In the order in which it was accepted."""
        self._progress: dict[VisitId, WorkProgress] = {}
        """The latest of what is running."""
        self._reporting: dict[VisitId, asyncio.Task[None]] = {}

    @property
    def queue(self) -> int:
        """Work accepted and not finished."""
        return len(self._running)

    def heard(self, progress: WorkProgress) -> None:
        """Work that is running got on."""
        if progress.visit in self._running:
            self._progress[progress.visit] = progress

    def models(self) -> frozenset[Digest]:
        """Models that work here still needs, or that nobody has heard of yet."""
        self._log.forget_reported()
        return self._log.models()

    def resume(self) -> None:
        """After a start: report what was finished and not heard; forget what was cut off."""
        for logged in self._log.all():
            if logged.outcome is None:
                self._log.forget(logged.work.visit)
            elif not logged.reported:
                self._send(logged)

    def start(self, work: Work) -> WorkStatus:
        """Accept work. Raises `StorageFull` where it cannot be noted."""
        logged = self._log.get(work.visit)
        if logged is None:
            self._log.put(LoggedWork(work=work))
            self._begin(work)
        elif logged.work != work:
            raise InvalidInput(
                f"{work.visit} names other work here",
                field="visit",
                fix="this is a defect of the control centre; report it",
            )
        elif logged.outcome is not None:
            self._send(logged)
        elif work.visit not in self._running:
            self._begin(work)
        return self.status(work.visit)

    def status(self, visit: VisitId) -> WorkStatus:
        logged = self._log.get(visit)
        if logged is None:
            return WorkStatus(state=WorkState.UNKNOWN)
        if logged.outcome is None:
            return self._going(visit)
        return WorkStatus(state=logged.outcome.state, outcome=logged.outcome)

    def _going(self, visit: VisitId) -> WorkStatus:
        """How far running work is. What trains or measures has its turn; what does not yet, waits
        for what was accepted before it."""
        progress = self._progress.get(visit)
        if progress is None:
            return WorkStatus(state=WorkState.RUNNING, ahead=self._before(visit))
        fetching = progress.phase == FETCHING
        return WorkStatus(
            state=WorkState.RUNNING,
            phase=progress.phase,
            done=progress.done,
            total=progress.total,
            ahead=self._before(visit) if fetching else 0,
        )

    def _before(self, visit: VisitId) -> int:
        """How much of what is running was accepted before this."""
        accepted = list(self._running)
        return accepted.index(visit) if visit in accepted else 0

    async def stop(self, visit: VisitId) -> None:
        """Stop work and forget it; its report is owed to nobody."""
        tasks = [self._running.pop(visit, None), self._reporting.pop(visit, None)]
        stopped = [task for task in tasks if task is not None]
        for task in stopped:
            task.cancel()
        await asyncio.gather(*stopped, return_exceptions=True)
        self._progress.pop(visit, None)
        self._log.forget(visit)

    async def close(self) -> None:
        """Stop everything. What was not finished is lost, what was not heard is kept."""
        tasks = [*self._running.values(), *self._reporting.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, work: Work) -> None:
        task = asyncio.create_task(self._do(work), name=f"work {work.visit}")
        self._running[work.visit] = task
        task.add_done_callback(lambda ended: self._ended(work.visit, ended))

    def _ended(self, visit: VisitId, ended: asyncio.Task[None]) -> None:
        if self._running.get(visit) is ended:
            del self._running[visit]
            self._progress.pop(visit, None)

    async def _do(self, work: Work) -> None:
        logged = LoggedWork(work=work, outcome=await self._outcome(work))
        self._log_outcome(logged)
        self._send(logged)

    def _log_outcome(self, logged: LoggedWork) -> None:
        """Keep what can be kept: the report goes out all the same."""
        try:
            self._log.put(logged)
        except StorageFull as error:
            log.warning("the outcome of %s is not on disk: %s", logged.work.visit, error)

    async def _outcome(self, work: Work) -> WorkOutcome:
        try:
            done = await self._perform(work)
        except DaitnError as error:
            log.warning("%s failed: %s", work.visit, error)
            return self._failed(work, ErrorReport.of(error))
        except Exception as error:
            log.exception("%s failed", work.visit)
            problem = f"{type(error).__name__}: {error}"
            return self._failed(work, ErrorReport(code="WorkFailed", problem=problem))
        return WorkOutcome(
            visit=work.visit,
            job=work.job,
            site=self._site,
            state=WorkState.DONE,
            entry=done.entry,
            model=done.model,
        )

    def _failed(self, work: Work, error: ErrorReport) -> WorkOutcome:
        return WorkOutcome(
            visit=work.visit, job=work.job, site=self._site, state=WorkState.FAILED, error=error
        )

    def _send(self, logged: LoggedWork) -> None:
        """Report until it is heard; once, however often the same work is handed in again."""
        visit = logged.work.visit
        if visit in self._reporting:
            return
        task = asyncio.create_task(self._send_until_heard(logged), name=f"report {visit}")
        self._reporting[visit] = task
        task.add_done_callback(lambda ended: self._heard_of(visit, ended))

    def _heard_of(self, visit: VisitId, ended: asyncio.Task[None]) -> None:
        if self._reporting.get(visit) is ended:
            del self._reporting[visit]

    async def _send_until_heard(self, logged: LoggedWork) -> None:
        assert logged.outcome is not None
        attempt = 0
        while True:
            try:
                await self._report(logged.outcome)
                break
            except (Refused, Corrupt) as error:
                log.error("the report of %s is not accepted: %s", logged.work.visit, error)
                break
            except DaitnError as error:
                log.info("%s is not reported yet: %s", logged.work.visit, error.problem)
            await asyncio.sleep(REPORT_AGAIN_S[min(attempt, len(REPORT_AGAIN_S) - 1)])
            attempt += 1
        if self._log.get(logged.work.visit) is not None:
            self._log_outcome(LoggedWork(work=logged.work, outcome=logged.outcome, reported=True))
