"""The merging stage: reactions to aggregators' reports and losses."""

from __future__ import annotations

from daitn.control.jobs import meeting, rounds
from daitn.control.jobs.commands import Commands, StopWork
from daitn.control.jobs.failing import drop_lost, drop_stalled, note_failure, reason_of
from daitn.control.jobs.job import Job
from daitn.control.jobs.outstanding import stop_stage, take_outcome
from daitn.control.jobs.stages import verify
from daitn.control.jobs.suspecting import distrust, suspect_chain
from daitn.control.jobs.visiting import after_visits, lose_round
from daitn.objects.identifiers import SiteId
from daitn.objects.jobs import JobEvent, Reported, SiteLost, WorkStalled
from daitn.objects.messages import WorkState

__all__ = ["on_lost", "on_reported", "on_stalled"]


def on_reported(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Take a merged model, a group's or the round's, or merge again without the faulty one."""
    assert isinstance(event, Reported)
    outcome = take_outcome(job, event)
    if outcome is None:
        return ()
    if job.meets is not None:
        return meeting.take(job, outcome, now_s)
    if outcome.state is WorkState.DONE:
        assert outcome.entry is not None
        assert outcome.model is not None
        job.lineage.append(outcome.entry)
        if rounds.take_part(job, outcome.entry, outcome.model):
            return after_visits(job)
        job.candidate = rounds.candidate_of(job, outcome.entry, outcome.model)
        return verify(job)
    error = reason_of(outcome)
    if error.field == "moments" and job.moments is not None:
        # The last aggregator is gone, and the outer step's state with it: start over.
        job.moments = None
        note_failure(job, outcome.site, error)
        return after_visits(job)
    if rounds.set_aside(job, error):
        return (*stop_stage(job), *lose_round(job))
    makers = rounds.leave_out(job, outcome.visit, error)
    if makers is not None:
        if distrust(job, outcome.site, makers):
            suspect_chain(job, makers, error)
        else:
            note_failure(job, outcome.site, error)
    else:
        rounds.give_up_aggregator(job, outcome.visit, outcome.site)
        rounds.fail_to_merge(job, outcome.site, error)
    return after_visits(job)


def on_lost(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Reassign the merge of a site that left."""
    assert isinstance(event, SiteLost)
    return _without_aggregator(job, event.site, drop_lost(job, event))


def on_stalled(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Reassign the merge of a site without progress."""
    assert isinstance(event, WorkStalled)
    return _without_aggregator(job, event.site, drop_stalled(job, event))


def _without_aggregator(job: Job, site: SiteId, stops: tuple[StopWork, ...]) -> Commands:
    if not stops:
        return ()
    if job.meets is not None:
        return (*stops, *meeting.lose(job))
    for stop in stops:
        rounds.give_up_aggregator(job, stop.visit, site)
    return (*stops, *after_visits(job))
