"""How a job enters a stage that several others lead to: planning, verifying, waiting, its end."""

from __future__ import annotations

from daitn.control.jobs.commands import ChooseVerifiers, Commands, ComputeRoute, Settle
from daitn.control.jobs.job import Job
from daitn.control.jobs.outstanding import open_objectives, stop_all
from daitn.control.jobs.why_exhausted import why_exhausted
from daitn.objects.errors import ErrorReport
from daitn.objects.jobs import JobState
from daitn.objects.moments import DAY_S

__all__ = ["RETRY_AT_MOST_S", "WAITS_AT_MOST_S", "end", "fail", "plan", "verify", "wait"]

RETRY_AFTER_S = 5.0
RETRY_AT_MOST_S = 300.0
"""A waiting job retries on its own, first after `RETRY_AFTER_S`, then after twice as long each time
up to `RETRY_AT_MOST_S`: events normally wake it, so this covers what was missed."""
WAITS_AT_MOST_S = 7 * DAY_S
"""A job ends after waiting this long with nothing measured in between: a site that is offline over
a weekend comes back, and a forgotten job does not linger."""


def plan(job: Job) -> Commands:
    """Ask for a route from the latest checkpoint; unmeasured work in progress is given up."""
    job.state = JobState.PLANNING
    job.candidate = None
    job.stop = None
    job.meets = None
    job.round = None
    return (ComputeRoute(),)


def verify(job: Job) -> Commands:
    """Have the candidate measured."""
    job.state = JobState.VERIFYING
    job.detail = "measuring"
    return (ChooseVerifiers(open_objectives(job)),)


def wait(job: Job, detail: str, now_s: float) -> Commands:
    """Wait for what `detail` says, or end if that has taken too long."""
    if job.stuck_since_s is None:
        job.stuck_since_s = now_s
    if now_s - job.stuck_since_s >= WAITS_AT_MOST_S:
        why = f"it waited {WAITS_AT_MOST_S / DAY_S:.0f} days without success: {detail}"
        return end(job, JobState.EXHAUSTED, why_exhausted(job, now_s, why), now_s)
    job.state = JobState.WAITING
    job.detail = detail
    job.wake_at_s = now_s + min(RETRY_AFTER_S * 2.0 ** min(job.waits, 10), RETRY_AT_MOST_S)
    job.waits += 1
    return ()


def end(job: Job, state: JobState, detail: str, now_s: float) -> Commands:
    """End in a final state, and stop all work in progress."""
    job.state = state
    job.wake_at_s = None
    job.detail = detail
    job.ended_at_s = now_s
    job.candidate = None
    job.meets = None
    job.round = None
    job.moments = None
    job.late.clear()
    job.own.clear()
    return (*stop_all(job), Settle())


def fail(job: Job, error: ErrorReport, now_s: float) -> Commands:
    """End with an error, with nothing left to try."""
    job.error = error
    return end(job, JobState.FAILED, error.problem, now_s)
