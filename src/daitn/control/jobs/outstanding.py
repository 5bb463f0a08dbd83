"""What a job has given sites to do and waits for: `Job.outstanding`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from daitn.control.accounting.training import of_merge, of_verification
from daitn.control.jobs.commands import StartWork, StopWork
from daitn.control.jobs.job import Job, Outstanding
from daitn.control.jobs.reports import mismatch
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import ObjectiveName, SiteId, VisitId
from daitn.objects.jobs import Reported, WorkStalled
from daitn.objects.lineage import Merge, Verification
from daitn.objects.messages import VerifyWork, Work, WorkOutcome, WorkState

__all__ = [
    "drop",
    "drop_overdue",
    "is_under_way",
    "open_objectives",
    "start",
    "stop_all",
    "stop_stage",
    "take_outcome",
]


def is_under_way(job: Job, event: WorkStalled) -> bool:
    """Whether the work that stalled is still waited for, there."""
    given = job.outstanding.get(event.visit)
    return given is not None and given.site == event.site


def start(job: Job, site: SiteId, work: Work) -> StartWork:
    """Give a site work to do."""
    job.outstanding[work.visit] = Outstanding(site, work, job.at_s)
    return StartWork(site, work)


def stop_all(job: Job) -> tuple[StopWork, ...]:
    """Wait for nothing more, and tell all sites to stop."""
    stops = tuple(StopWork(o.site, visit) for visit, o in job.outstanding.items())
    job.outstanding.clear()
    job.overdue.clear()
    return stops


def stop_stage(job: Job) -> tuple[StopWork, ...]:
    """As `stop_all`, but for visits that are overdue: the job goes on, and waits for them."""
    return _stopped(job, [visit for visit in job.outstanding if visit not in job.overdue])


def drop(job: Job, site: SiteId) -> tuple[StopWork, ...]:
    """Expect nothing more from a site but what is overdue, and tell it to stop in case it is still
    connected."""
    return _stopped(
        job,
        [v for v, o in job.outstanding.items() if o.site == site and v not in job.overdue],
    )


def drop_overdue(job: Job, visits: Iterable[VisitId]) -> tuple[StopWork, ...]:
    """Expect nothing more of these visits, which are overdue."""
    lost = [visit for visit in visits if job.overdue.pop(visit, None) is not None]
    return _stopped(job, lost)


def _stopped(job: Job, visits: Iterable[VisitId]) -> tuple[StopWork, ...]:
    return tuple(StopWork(job.outstanding.pop(visit).site, visit) for visit in visits)


def take_outcome(job: Job, event: Reported) -> WorkOutcome | None:
    """The outcome of outstanding work; none for a late or repeated report.

    A report about something other than the given work counts as a failure.
    """
    outcome = event.outcome
    given = job.outstanding.get(outcome.visit)
    if given is None or given.site != outcome.site:
        return None
    del job.outstanding[outcome.visit]
    wrong = mismatch(given, outcome)
    if not wrong:
        if outcome.state is WorkState.DONE:
            _finished(job, given, outcome)
        return outcome
    problem = f"the report of {outcome.site} is not about what it was asked for: {wrong}"
    error = ErrorReport(code="WorkFailed", problem=problem)
    return msgspec.structs.replace(outcome, state=WorkState.FAILED, error=error)


def _finished(job: Job, given: Outstanding, outcome: WorkOutcome) -> None:
    """The site did its work, so it is connected and was able to fetch its model."""
    assert outcome.entry is not None
    match outcome.entry.fact:  # Of a visit, its plan states the price: see `measuring`.
        case Merge() as merge:
            job.entries.append(of_merge(job.intent.owner, merge, job.at_s))
        case Verification() as measured:
            job.entries.append(of_verification(job.intent.owner, measured, job.at_s))
    job.losses.pop(given.site, None)
    for model in given.work.models:
        if len(model.holders) == 1:
            job.cut_off.discard((given.site, model.holders[0]))


def open_objectives(job: Job) -> tuple[ObjectiveName, ...]:
    """Objectives that are neither measured nor being measured."""
    assert job.candidate is not None
    busy = {
        (o.work.topic, o.work.metric)
        for o in job.outstanding.values()
        if isinstance(o.work, VerifyWork)
    }
    return tuple(
        ObjectiveName(o.name)
        for o in job.intent.objectives
        if o.name not in job.candidate.measured and (o.topic, o.metric) not in busy
    )
