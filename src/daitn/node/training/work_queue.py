"""Accepts, runs and reports a site's work of any kind."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from daitn.node.disclosure import whole
from daitn.node.training.begun import BegunVisits
from daitn.node.training.metrics import WorkMetrics
from daitn.node.training.tracing import work_span
from daitn.node.training.work_log import LoggedWork, WorkLog
from daitn.objects.errors import (
    Corrupt,
    DaitnError,
    ErrorReport,
    InvalidInput,
    Refused,
    StorageFull,
    WorkFailed,
)
from daitn.objects.identifiers import Digest, SiteId, VisitId
from daitn.objects.lineage import Entry
from daitn.objects.messages import Work, WorkOutcome, WorkProgress, WorkState, WorkStatus
from daitn.objects.models import ModelRef
from daitn.objects.wire import canonical
from daitn.tools.monitoring.log_ids import identified
from daitn.tools.monitoring.metrics import Sample
from daitn.tools.monitoring.tracing import OFF, Tracer

__all__ = ["WorkQueue", "WorkResult"]

log = logging.getLogger(__name__)

FETCHING = "fetching"
"""The phase of work that waits for its turn."""
REPORT_PAUSES_S = (0.2, 1.0, 5.0)
"""Pauses between attempts to report; the last one repeats until the control centre answers."""


@dataclass(frozen=True)
class WorkResult:
    """The result of a piece of work."""

    entry: Entry
    model: ModelRef | None


def _nothing() -> None:
    pass


class WorkQueue:
    """Does each piece of work once, however often it is submitted, and reports until acknowledged.

    `perform` does a piece of work; `report` sends an outcome to the control centre and raises
    `DaitnError` if it was not acknowledged.
    """

    def __init__(
        self,
        site: SiteId,
        work_log: WorkLog,
        perform: Callable[[Work], Awaitable[WorkResult]],
        report: Callable[[WorkOutcome], Awaitable[None]],
        begun: BegunVisits | None = None,
        tracer: Tracer = OFF,
        changed: Callable[[], None] = _nothing,
    ) -> None:
        """`begun`: visits that `perform` can resume; `None` means interrupted work is lost.
        `changed` is called when the queue has changed, at the end of work before its report."""
        self._site = site
        self._log = work_log
        self._perform = perform
        self._report = report
        self._begun = begun
        self._tracer = tracer
        self._changed = changed
        self._running: dict[VisitId, asyncio.Task[None]] = {}
        """In order of acceptance."""
        self._progress: dict[VisitId, WorkProgress] = {}
        """The latest progress of each running piece of work."""
        self._reporting: dict[VisitId, asyncio.Task[None]] = {}
        self._metrics = WorkMetrics()

    @property
    def queue(self) -> int:
        """Number of accepted pieces of work that are not finished."""
        return len(self._running)

    def measured(self) -> Iterator[Sample]:
        """See `Measured`."""
        return self._metrics.measured(len(self._running), len(self._reporting))

    @property
    def unfinished(self) -> int:
        """Likewise, plus finished work that is not reported."""
        return len(self._running) + len(self._reporting)

    def knows(self, visit: VisitId) -> bool:
        """Whether a piece of work was accepted here before."""
        return self._log.get(visit) is not None

    def progressed(self, progress: WorkProgress) -> None:
        """Note the progress of running work."""
        if progress.visit in self._running:
            self._progress[progress.visit] = progress

    def models(self) -> frozenset[Digest]:
        """Models that work here still needs, or that are not reported yet."""
        self._log.forget_reported()
        self._forget_interrupted()
        return self._log.models()

    def resume(self) -> None:
        """After a start: report finished work that is unreported; forget interrupted work, unless
        it can be resumed. It resumes only when it is submitted again, since another site may have
        taken it over."""
        self._forget_interrupted()
        for logged in self._log.all():
            if logged.outcome is not None and not logged.reported:
                self._start_report(logged)

    def _forget_interrupted(self) -> None:
        if self._begun is not None:
            self._begun.forget_old()
        for logged in self._log.all():
            visit = logged.work.visit
            if logged.outcome is not None or visit in self._running:
                continue
            if self._begun is None or self._begun.get(visit) is None:
                self._log.forget(visit)

    def start(self, work: Work) -> WorkStatus:
        """Accept work. Raises `StorageFull` if it cannot be logged."""
        logged = self._log.get(work.visit)
        if logged is None:
            self._log.put(LoggedWork(work=work))
            self._spawn(work)
        elif logged.work != work and canonical(logged.work) != canonical(work):  # NaN is not NaN.
            raise InvalidInput(
                f"{work.visit} is already the id of other work here",
                field="visit",
                fix="this is a defect of the control centre; report it",
            )
        elif logged.outcome is not None:
            self._start_report(logged)
        elif work.visit not in self._running:
            self._spawn(work)
        return self.status(work.visit)

    def status(self, visit: VisitId) -> WorkStatus:
        logged = self._log.get(visit)
        if logged is None or (logged.outcome is None and visit not in self._running):
            return WorkStatus(state=WorkState.UNKNOWN)
        if logged.outcome is None:
            return self._running_status(visit)
        return WorkStatus(state=logged.outcome.state, outcome=logged.outcome)

    def _running_status(self, visit: VisitId) -> WorkStatus:
        """Status of running work; until it trains or measures, it queues behind earlier work."""
        progress = self._progress.get(visit)
        if progress is None:
            return WorkStatus(state=WorkState.RUNNING, ahead=self._ahead(visit))
        fetching = progress.phase == FETCHING
        return WorkStatus(
            state=WorkState.RUNNING,
            phase=progress.phase,
            done=progress.done,
            total=progress.total,
            ahead=self._ahead(visit) if fetching else 0,
        )

    def _ahead(self, visit: VisitId) -> int:
        """How many running pieces of work were accepted before this one."""
        accepted = list(self._running)
        return accepted.index(visit) if visit in accepted else 0

    async def stop(self, visit: VisitId) -> None:
        """Stop work and forget it; its report is not expected."""
        tasks = [self._running.pop(visit, None), self._reporting.pop(visit, None)]
        stopped = [task for task in tasks if task is not None]
        for task in stopped:
            task.cancel()
        await asyncio.gather(*stopped, return_exceptions=True)
        self._progress.pop(visit, None)
        self._log.forget(visit)
        if self._begun is not None:
            self._begun.forget(visit)
        if stopped:
            self._changed()

    async def close(self) -> None:
        """Stop everything. Work without a savepoint is lost; unreported outcomes stay in the
        log."""
        self._changed = _nothing  # A site that leaves is not free.
        tasks = [*self._running.values(), *self._reporting.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: Work) -> None:
        task = asyncio.create_task(self._run(work), name=f"work {work.visit}")
        self._running[work.visit] = task
        task.add_done_callback(lambda ended: self._work_ended(work.visit, ended))
        self._changed()

    def _work_ended(self, visit: VisitId, ended: asyncio.Task[None]) -> None:
        if self._running.get(visit) is ended:
            del self._running[visit]
            self._progress.pop(visit, None)
            self._changed()

    async def _run(self, work: Work) -> None:
        with identified(job=work.job, visit=work.visit):
            await self._do(work)

    async def _do(self, work: Work) -> None:
        began_s = time.monotonic()
        span = work_span(self._tracer, self._site, work)
        try:
            outcome = await self._outcome(work)
        except asyncio.CancelledError:
            if span is not None:
                span.end("cancelled")
            raise
        self._metrics.ended(work, outcome, time.monotonic() - began_s)
        if span is not None:
            span.end("" if outcome.error is None else outcome.error.code)
        logged = LoggedWork(work=work, outcome=outcome)
        self._log_outcome(logged)
        if self._begun is not None:
            self._begun.forget(work.visit)
        ended = asyncio.current_task()
        assert ended is not None
        self._work_ended(work.visit, ended)
        self._start_report(logged)

    def _log_outcome(self, logged: LoggedWork) -> None:
        """Log the outcome if there is room; the report is sent either way."""
        try:
            self._log.put(logged)
        except StorageFull as error:
            log.warning("the outcome of %s is not on disk: %s", logged.work.visit, error)

    async def _outcome(self, work: Work) -> WorkOutcome:
        try:
            result = await self._perform(work)
        except DaitnError as error:
            log.warning("%s failed: %s", work.visit, whole(error))
            return self._failed(work, ErrorReport.of(error))
        except Exception as error:
            log.exception("%s failed", work.visit)
            failed = WorkFailed(
                f"the site failed at this work: {type(error).__name__}",
                fix="see the site's log",
            )
            return self._failed(work, ErrorReport.of(failed))
        return WorkOutcome(
            visit=work.visit,
            job=work.job,
            site=self._site,
            state=WorkState.DONE,
            entry=result.entry,
            model=result.model,
        )

    def _failed(self, work: Work, error: ErrorReport) -> WorkOutcome:
        return WorkOutcome(
            visit=work.visit, job=work.job, site=self._site, state=WorkState.FAILED, error=error
        )

    def _start_report(self, logged: LoggedWork) -> None:
        """Report until acknowledged, with one task however often the work is submitted."""
        visit = logged.work.visit
        if visit in self._reporting:
            return
        task = asyncio.create_task(self._report_until_acknowledged(logged), name=f"report {visit}")
        self._reporting[visit] = task
        task.add_done_callback(lambda ended: self._report_ended(visit, ended))

    def _report_ended(self, visit: VisitId, ended: asyncio.Task[None]) -> None:
        if self._reporting.get(visit) is ended:
            del self._reporting[visit]

    async def _report_until_acknowledged(self, logged: LoggedWork) -> None:
        assert logged.outcome is not None
        attempt = 0
        while True:
            try:
                await self._report(logged.outcome)
                break
            except (Refused, Corrupt) as error:
                log.error("the report of %s was rejected: %s", logged.work.visit, error)
                break
            except DaitnError as error:
                log.info("%s is not reported yet: %s", logged.work.visit, error.problem)
            await asyncio.sleep(REPORT_PAUSES_S[min(attempt, len(REPORT_PAUSES_S) - 1)])
            attempt += 1
        if self._log.get(logged.work.visit) is not None:
            self._log_outcome(LoggedWork(work=logged.work, outcome=logged.outcome, reported=True))
