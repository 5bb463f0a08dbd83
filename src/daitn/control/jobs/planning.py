"""The planning stage, between pieces of work: reactions to T-FAM's and MTRCE's answers, and to
wake-ups."""

from __future__ import annotations

from daitn.control.jobs.commands import Commands
from daitn.control.jobs.job import Job, ModelCandidate
from daitn.control.jobs.outstanding import start
from daitn.control.jobs.stages import end, fail, plan, verify, wait
from daitn.control.jobs.visiting import begin_round
from daitn.control.jobs.why_exhausted import why_exhausted
from daitn.objects.errors import ErrorReport
from daitn.objects.jobs import Assessed, JobEvent, JobState, Planned

__all__ = ["on_assessed", "on_planned", "on_woke"]

_NO_ROUND = ErrorReport(
    code="InvalidInput",
    problem="a fresh model of this recipe cannot be merged, and a first visit would reveal one "
    "site's model",
    field="training.secure_aggregation",
    fix="state model.start, or leave out training.secure_aggregation",
)


def on_assessed(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Plan, or have the owner's weights measured first; end if no route can suffice."""
    assert isinstance(event, Assessed)
    job.assessment = event.assessment
    if not (event.assessment.feasible or job.insist):
        return end(job, JobState.INFEASIBLE, "; ".join(event.assessment.reasons), now_s)
    if job.start is None:
        return plan(job)
    return _verify_start(job)


def on_planned(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Begin the first visit of a route, or a round; if there is none, wait or end."""
    assert isinstance(event, Planned)
    job.decision = event.decision
    job.planned = event.route
    if event.round is not None:
        return begin_round(job, event.round)
    if event.here is not None:
        job.met[event.here.site] = event.here
    if event.route is None:
        if event.waiting_for:
            return wait(job, event.waiting_for, now_s)
        if job.objections and not job.made:  # Nobody is left who might see it otherwise.
            return fail(job, list(job.objections.values())[-1], now_s)
        return end(
            job, JobState.EXHAUSTED, why_exhausted(job, now_s, event.why, event.unvisited), now_s
        )
    stop = event.route.visits[0]
    base = next((c for c in job.checkpoints if c.model.manifest == event.route.start), None)
    if base is not None and job.intent.training.secure_aggregation:
        return fail(job, _NO_ROUND, now_s)
    job.stop, job.base, job.meets = stop, base, event.meets
    job.state = JobState.VISITING if base else JobState.PREPARING
    job.detail = f"{'training' if base else 'making the fresh model'} at {stop.site}"
    return (start(job, stop.site, job.visit_work(stop, base)),)


def on_woke(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Retry what the job waits for."""
    job.wake_at_s = None
    if job.candidate is not None:
        return verify(job)
    if job.start is not None and not job.checkpoints:
        return _verify_start(job)
    return plan(job)


def _verify_start(job: Job) -> Commands:
    """Have the owner's weights measured."""
    assert job.start is not None
    job.candidate = ModelCandidate(
        model=job.start, base=None, visits=(), release_to=job.release_to, parents=()
    )
    return verify(job)
