"""While a candidate is measured: what follows from verifiers' reports and losses."""

from __future__ import annotations

from daitn.control.jobs.commands import ChooseVerifiers, Commands
from daitn.control.jobs.failing import drop_lost, note_cut_off, note_failure, reason_of, stall_of
from daitn.control.jobs.job import MAX_FAILURES, Job, ModelCandidate
from daitn.control.jobs.measuring import close_candidate, measured
from daitn.control.jobs.outstanding import (
    drop,
    is_under_way,
    open_objectives,
    start,
    stop_all,
    stop_stage,
    take_outcome,
)
from daitn.control.jobs.stages import end, fail, plan, wait
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import ObjectiveName, SiteId
from daitn.objects.jobs import (
    CandidateLost,
    JobEvent,
    JobState,
    Reported,
    VerifiersChosen,
    WorkStalled,
)
from daitn.objects.lineage import Verification
from daitn.objects.messages import WorkOutcome, WorkState

__all__ = ["on_candidate_lost", "on_chosen", "on_lost", "on_reported", "on_stalled"]


def on_chosen(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Have the chosen verifiers measure; wait or replan where none can."""
    assert isinstance(event, VerifiersChosen)
    candidate = job.candidate
    assert candidate is not None
    still_open = open_objectives(job)
    missing = [a.objective for a in event.assignments if a.site is None]
    missing = [objective for objective in missing if objective in still_open]
    if missing:
        if candidate.refused:
            refusing = ", ".join(sorted(candidate.refused))
            candidate.refused.clear()
            stops = stop_stage(job)
            return (*stops, *wait(job, f"a test set's policy at {refusing} refuses now", now_s))
        unreached = sorted(candidate.unreached)
        if unreached:
            detail = f"{', '.join(unreached)} cannot fetch it from {_holders(candidate)}"
            return _without_candidate(job, detail, now_s)
        stops = stop_stage(job)
        return (*stops, *wait(job, f"no verifier is connected for {', '.join(missing)}", now_s))
    return tuple(
        start(
            job,
            assigned.site,
            job.verify_work(assigned.objective, candidate.model, candidate.parents),
        )
        for assigned in event.assignments
        if assigned.site is not None and assigned.objective in still_open
    )


def on_reported(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Take a measurement. The last one makes a checkpoint, or ends the job."""
    assert isinstance(event, Reported)
    outcome = take_outcome(job, event)
    if outcome is None:
        return ()
    assert job.candidate is not None
    if outcome.state is not WorkState.DONE:
        return _take_failure(job, outcome, now_s)
    assert outcome.entry is not None
    fact = outcome.entry.fact
    assert isinstance(fact, Verification)
    job.lineage.append(outcome.entry)
    measured(job, job.candidate, fact, outcome.entry.digest)
    if len(job.candidate.measured) < len(job.intent.objectives):
        return ()
    checkpoint = close_candidate(job)
    if all(checkpoint.values[ObjectiveName(o.name)] >= o.at_least for o in job.intent.objectives):
        return end(job, JobState.REACHED, "", now_s)
    job.detail = ""
    return plan(job)


def _take_failure(job: Job, outcome: WorkOutcome, now_s: float) -> Commands:
    assert job.candidate is not None
    error = reason_of(outcome)
    note_failure(job, outcome.site, error)
    if error.code == "Unreachable":
        job.candidate.unreached.add(outcome.site)
        note_cut_off(job, outcome.site, job.candidate.model.holders)
        return (ChooseVerifiers(open_objectives(job)),)
    if error.code == "Refused" and outcome.site not in job.candidate.refused:
        job.candidate.refused.add(outcome.site)
        return (ChooseVerifiers(open_objectives(job)),)
    return _count_verifier_failure(job, outcome.site, error, now_s)


def on_stalled(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Have another verifier measure what one makes no progress with."""
    assert isinstance(event, WorkStalled)
    if not is_under_way(job, event):
        return ()
    error = stall_of(event)
    stops = drop(job, event.site)
    note_failure(job, event.site, error)
    return (*stops, *_count_verifier_failure(job, event.site, error, now_s))


def on_lost(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Have another verifier measure what one that left was to measure."""
    stops = drop_lost(job, event)
    return (*stops, ChooseVerifiers(open_objectives(job))) if stops else ()


def _count_verifier_failure(job: Job, site: SiteId, error: ErrorReport, now_s: float) -> Commands:
    job.verifier_failures[site] = job.verifier_failures.get(site, 0) + 1
    if job.verifier_failures[site] >= MAX_FAILURES:
        return (*stop_all(job), *fail(job, error, now_s))
    return (ChooseVerifiers(open_objectives(job)),)


def on_candidate_lost(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Continue from the last verified checkpoint: nobody holds the candidate any more."""
    assert isinstance(event, CandidateLost)
    return _without_candidate(job, event.detail, now_s)


def _without_candidate(job: Job, detail: str, now_s: float) -> Commands:
    """Continue from the last verified checkpoint."""
    made_at = job.candidate.made_at if job.candidate else None
    if made_at is not None:
        job.failures[made_at] = job.failures.get(made_at, 0) + 1
        job.problems[made_at] = f"its model was lost before it was measured: {detail}"
    job.without_progress += 1
    job.candidate = None
    job.detail = "the unverified model was lost; continuing from the last verified checkpoint"
    stops = stop_stage(job)
    if job.start is not None and not job.checkpoints:
        return (*stops, *wait(job, f"the owner's weights are unavailable: {detail}", now_s))
    return (*stops, *plan(job))


def _holders(candidate: ModelCandidate) -> str:
    return " or ".join(candidate.model.holders) or "anybody"
