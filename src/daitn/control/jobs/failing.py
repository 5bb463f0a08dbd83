"""How a job records work that failed."""

from __future__ import annotations

from collections.abc import Iterable

from daitn.control.jobs.commands import StopWork
from daitn.control.jobs.job import MAX_FAILURES, Job
from daitn.control.jobs.outstanding import drop, is_under_way
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import SiteId
from daitn.objects.jobs import JobEvent, Setback, SiteLost, WorkStalled
from daitn.objects.messages import WorkOutcome, WorkState

__all__ = [
    "count_failure",
    "count_verifiers",
    "drop_lost",
    "drop_stalled",
    "forgive",
    "note_cut_off",
    "note_failure",
    "note_loss",
    "note_problem",
    "reason_of",
    "stall_of",
]

MOST_SETBACKS = 50
"""Setbacks that a job remembers; the oldest are forgotten."""
_MOST_REASON = 500
"""Characters of a reason: a site may give any."""


def note_problem(job: Job, site: SiteId, problem: str) -> None:
    """Record what went wrong at a site, and that it did."""
    job.problems[site] = problem
    reason = problem[:_MOST_REASON]
    before = job.setbacks.pop((site, reason), None)
    times = 1 if before is None else before.times + 1
    job.setbacks[site, reason] = Setback(site=site, reason=reason, times=times, at_s=job.at_s)
    if len(job.setbacks) > MOST_SETBACKS:
        del job.setbacks[next(iter(job.setbacks))]


def note_failure(job: Job, site: SiteId, error: ErrorReport, *, awaited: bool = True) -> None:
    """Record a site's failed work, even if the job had not waited for it."""
    job.error = error
    note_problem(job, site, error.problem)
    _count(job, awaited)


def count_failure(
    job: Job, site: SiteId, error: ErrorReport, *, for_good: bool = False, awaited: bool = True
) -> None:
    """Record a failure that counts against its site. `for_good`: the job goes elsewhere at once;
    `awaited`: as in `note_failure`."""
    # Added, so that forgiving another failure does not undo it.
    job.failures[site] = job.failures.get(site, 0) + (MAX_FAILURES if for_good else 1)
    note_failure(job, site, error, awaited=awaited)


def count_verifiers(job: Job, verifiers: Iterable[SiteId]) -> None:
    """Count a failure against each of these verifiers."""
    for site in verifiers:
        job.verifier_failures[site] = job.verifier_failures.get(site, 0) + 1


def forgive(job: Job, site: SiteId) -> None:
    """Take back a failure that did not come of its site."""
    job.failures[site] = job.failures.get(site, 0) - 1
    if job.failures[site] <= 0:
        del job.failures[site]
    job.problems.pop(site, None)


def drop_lost(job: Job, event: JobEvent) -> tuple[StopWork, ...]:
    """Stop expecting work from a lost site, and record the loss. None if nothing was expected."""
    assert isinstance(event, SiteLost)
    stops = drop(job, event.site)
    if stops:
        note_loss(job, event.site)
    return stops


def drop_stalled(job: Job, event: JobEvent) -> tuple[StopWork, ...]:
    """Stop expecting work from a site without progress, and count it as a failure. None if that
    work is not awaited."""
    assert isinstance(event, WorkStalled)
    if not is_under_way(job, event):
        return ()
    stops = drop(job, event.site)
    count_failure(job, event.site, stall_of(event))
    return stops


def note_loss(job: Job, site: SiteId, *, awaited: bool = True) -> None:
    """Record that a site was lost during its work, even if the job had not waited for it."""
    job.losses[site] = job.losses.get(site, 0) + 1
    note_problem(job, site, "it was lost during work")
    _count(job, awaited)


def _count(job: Job, awaited: bool) -> None:
    if job.round is None and awaited:  # A round that leads to no model counts as a whole.
        job.without_progress += 1


def note_cut_off(job: Job, site: SiteId, holders: tuple[SiteId, ...]) -> None:
    """Record that a site could not fetch a model from any of its holders."""
    job.cut_off |= {(site, holder) for holder in holders if holder != site}
    problem = (
        f"it cannot fetch the model from {' or '.join(holders) or 'anybody'}: they do not answer, "
        "or neither can connect to the other; with `listen: []` in its file the control centre "
        "relays"
    )
    note_problem(job, site, problem)


def reason_of(outcome: WorkOutcome) -> ErrorReport:
    """Why work failed; a site that gives no reason has still failed."""
    if outcome.error is not None:
        return outcome.error
    what = {
        WorkState.CANCELLED: "stopped the work",
        WorkState.UNKNOWN: "does not know the work it was given",
    }.get(outcome.state, f"reports that the work is {outcome.state}")
    problem = f"{outcome.site} {what} and gives no reason"
    return ErrorReport(code="WorkFailed", problem=problem, fix="see the site's log")


def stall_of(event: WorkStalled) -> ErrorReport:
    """The error of a site that makes no progress."""
    problem = f"{event.site} has made no progress for {event.silent_s:.0f} s"
    if event.took_s:
        problem = f"{event.site} has not finished after {event.took_s:.0f} s"
    return ErrorReport(code="WorkFailed", problem=problem, fix="see the site's log")
