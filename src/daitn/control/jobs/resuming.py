"""Whether a job can be cancelled or resumed, and with what budget: determined beforehand."""

from __future__ import annotations

from daitn.control.jobs.job import Job
from daitn.control.jobs.why_exhausted import larger_budget, limits
from daitn.objects.errors import Refused
from daitn.objects.identifiers import JobId
from daitn.objects.jobs import JobState
from daitn.objects.text import figure

__all__ = ["RESUMED", "check_running", "refusal", "with_what_is_left"]

RESUMED = frozenset((JobState.EXHAUSTED, JobState.CANCELLED, JobState.FAILED))
"""States in which a job can be resumed."""
_USED_UP = 1.0 - 1e-9
"""Share of a limit below which the rest is a rounding error."""


def check_running(job: JobId, state: JobState) -> None:
    """Raise `Refused` if there is nothing left to cancel."""
    if state.final:
        raise Refused(
            f"job {job} is already {state}",
            field="job",
            fix="there is nothing to cancel; see `daitn get jobs`",
        )


def refusal(job: Job) -> Refused | None:
    """Why an ended job cannot be resumed, with what to do instead; none if it can."""
    why, fix = f"is {job.state}", "change its intent, and submit that: `daitn train`"
    if job.state in RESUMED:
        why, fix = _nothing_left(job)
    return Refused(f"job {job.id} {why}", field="job", fix=fix) if why else None


def with_what_is_left(job: Job) -> str:
    """The budget left of a resumed job, and what to do if that is too little."""
    assert job.ended_at_s is not None
    left = [
        f"{figure(max(0.0, most - used))} of {figure(most)} left of budget.{name}"
        for name, used, most in limits(job, job.ended_at_s)
    ]
    words = f"resumed, {', '.join(left)}" if left else "resumed"
    if job.state is JobState.EXHAUSTED:
        larger = ", or ".join(larger_budget(job, job.ended_at_s))
        words += f"; if that is too little: {_another(job, larger)}" if larger else ""
    return words


def _nothing_left(job: Job) -> tuple[str, str]:
    """Why it would be exhausted at once, and what to do instead; empty if it would not."""
    if job.pool_usd:
        return "has divided what it set aside for the owners of data", _another(job)
    route = job.intent.route
    if route and job.best is not None and len(job.best.visits) >= len(route):
        return "has made every visit of its route", _another(job, "a longer route")
    # With costs used up, there may still be free data.
    assert job.ended_at_s is not None
    for name, used, most in limits(job, job.ended_at_s):
        if used >= most * _USED_UP and name != "cost_usd":
            why = f"has used up its budget.{name}, {figure(most)}"
            return why, _another(job, f"a larger budget.{name}")
    return "", ""


def _another(job: Job, changed: str = "") -> str:
    """How another job can build on what this one learned."""
    stated = [f"model.start: job:{job.id}"] if job.best else []
    stated += [changed] if changed else []
    return f"state {' and '.join(stated)} in its intent, and submit that: `daitn train`"
