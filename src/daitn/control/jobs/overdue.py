"""Late visits, for which their round did not wait: their results join the next merge."""

from __future__ import annotations

from daitn.control.jobs import rounds
from daitn.control.jobs.commands import StopWork
from daitn.control.jobs.failing import count_failure, note_loss, reason_of, stall_of
from daitn.control.jobs.job import Job
from daitn.control.jobs.outstanding import drop_overdue, take_outcome
from daitn.objects.jobs import JobEvent, Reported, SiteLost, WorkStalled
from daitn.objects.messages import WorkOutcome, WorkState

__all__ = ["take"]


def take(job: Job, event: JobEvent) -> tuple[StopWork, ...] | None:
    """Process an event about overdue visits, in any state of the job; none if it has no other
    effect."""
    match event:
        case Reported(outcome) if outcome.visit in job.overdue:
            taken = take_outcome(job, event)
            if taken is None:
                return None
            _take_outcome(job, taken)
            return ()
        case SiteLost(site):
            lost = [visit for visit, stop in job.overdue.items() if stop.site == site]
            if not lost:
                return None
            note_loss(job, site, awaited=False)
            return drop_overdue(job, lost)
        case WorkStalled(site=site, visit=visit) if visit in job.overdue:
            count_failure(job, event.site, stall_of(event), awaited=False)
            return drop_overdue(job, [visit])
    return None


def _take_outcome(job: Job, outcome: WorkOutcome) -> None:
    if outcome.state is not WorkState.DONE:
        del job.overdue[outcome.visit]
        count_failure(job, outcome.site, reason_of(outcome), awaited=False)
        return
    assert outcome.entry is not None
    assert outcome.model is not None
    rounds.contribute(job, outcome.entry, outcome.model)
