"""Work that a job has assigned and awaits: `Job.outstanding`."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import msgspec

from daitn.control.accounting.training import of_merge, of_verification, price_of_time
from daitn.control.jobs.commands import StartWork, StopWork
from daitn.control.jobs.job import Job, Outstanding
from daitn.control.jobs.reports import mismatch
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import ObjectiveName, SiteId, VisitId
from daitn.objects.jobs import Reported, WorkStalled
from daitn.objects.lineage import Merge, Verification
from daitn.objects.messages import VerifyWork, VisitWork, Work, WorkOutcome, WorkState

__all__ = [
    "asked_about",
    "drop",
    "drop_overdue",
    "is_under_way",
    "measuring",
    "open_objectives",
    "start",
    "stop_all",
    "stop_measuring",
    "stop_stage",
    "take_outcome",
]


def is_under_way(job: Job, event: WorkStalled) -> bool:
    """Whether the stalled work is still awaited at that site."""
    given = job.outstanding.get(event.visit)
    return given is not None and given.site == event.site


def start(job: Job, site: SiteId, work: Work, price_usd_per_hour: float = 0.0) -> StartWork:
    """Assign work to a site, at a price if no plan states one."""
    expected_s = _expected_s(job, work)
    job.outstanding[work.visit] = Outstanding(site, work, job.at_s, price_usd_per_hour, expected_s)
    return StartWork(site, work)


def _expected_s(job: Job, work: Work) -> float:
    if isinstance(work, VerifyWork):
        return job.verify_s or 0.0
    stop = job.round.stops.get(work.visit) if job.round else job.stop
    return stop.expected_s if stop and isinstance(work, VisitWork) else 0.0


def stop_all(job: Job) -> tuple[StopWork, ...]:
    """Await nothing more, and tell all sites to stop."""
    stops = tuple(StopWork(o.site, visit) for visit, o in job.outstanding.items())
    job.outstanding.clear()
    job.overdue.clear()
    return stops


def stop_stage(job: Job) -> tuple[StopWork, ...]:
    """Like `stop_all`, except for overdue visits: the job continues and awaits them."""
    return _stopped(job, [visit for visit in job.outstanding if visit not in job.overdue])


def drop(job: Job, site: SiteId) -> tuple[StopWork, ...]:
    """Expect nothing more from a site except overdue work, and tell it to stop in case it is still
    connected."""
    return _stopped(
        job,
        [v for v, o in job.outstanding.items() if o.site == site and v not in job.overdue],
    )


def drop_overdue(job: Job, visits: Iterable[VisitId]) -> tuple[StopWork, ...]:
    """Stop expecting these overdue visits."""
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
    wrong = mismatch(given, outcome, job.at_s)
    if not wrong:
        if outcome.state is WorkState.DONE:
            _finished(job, given, outcome)
        return _held_by_maker(outcome)
    problem = f"the report of {outcome.site} is not about what it was asked for: {wrong}"
    error = ErrorReport(code="WorkFailed", problem=problem)
    return msgspec.structs.replace(outcome, state=WorkState.FAILED, error=error)


def _held_by_maker(outcome: WorkOutcome) -> WorkOutcome:
    """The outcome with who made its model as its only holder, whoever the report names: if it
    cannot be fetched, the site is to blame and no link to others."""
    if outcome.model is None:
        return outcome
    model = msgspec.structs.replace(outcome.model, holders=(outcome.site,))
    return msgspec.structs.replace(outcome, model=model)


def _finished(job: Job, given: Outstanding, outcome: WorkOutcome) -> None:
    """The site did its work, so it is connected and was able to fetch its model."""
    assert outcome.entry is not None
    match outcome.entry.fact:  # Of a visit, its plan states the price: see `measuring`.
        case Merge() as merge:
            usd = _pay(job, given, merge.seconds)
            job.entries.append(of_merge(job.intent.owner, merge, usd, job.at_s))
        case Verification() as measured:
            usd = _pay(job, given, measured.seconds)
            job.entries.append(of_verification(job.intent.owner, measured, usd, job.at_s))
    job.losses.pop(given.site, None)
    for model in given.work.models:
        if len(model.holders) == 1:
            job.cut_off.discard((given.site, model.holders[0]))


def _pay(job: Job, given: Outstanding, seconds: float) -> Fraction:
    """The cost of merging or measuring, which counts as spent."""
    longest_s = max(0.0, job.at_s - given.since_s)
    usd = price_of_time(given.price_usd_per_hour, seconds, longest_s, job.left_usd)
    job.spent_usd += float(usd)
    job.checked_usd += float(usd)
    return usd


def open_objectives(job: Job) -> tuple[ObjectiveName, ...]:
    """Unmeasured objectives, each as often as verifiers are still needed. If all verifiers of the
    intent have answered and too few agree, one more is needed."""
    assert job.candidate is not None
    found: list[ObjectiveName] = []
    for name in job.intent.objective_names():
        if name not in job.candidate.measured:
            at_work = len(measuring(job, name))
            asked = at_work + len(job.candidate.received.get(name, ()))
            found += [name] * max(job.intent.quorum.of - asked, 0 if at_work else 1)
    return tuple(found)


def asked_about(job: Job, objective: ObjectiveName) -> frozenset[SiteId]:
    """Verifiers that have measured an objective of the candidate, or are measuring it."""
    received = job.candidate.received.get(objective, ()) if job.candidate else ()
    at_work = (job.outstanding[visit].site for visit in measuring(job, objective))
    return frozenset((*(fact.site for fact in received), *at_work))


def measuring(job: Job, objective: ObjectiveName) -> tuple[VisitId, ...]:
    """The outstanding measurements of an objective."""
    wanted = job.intent.objective(objective)
    return tuple(
        visit
        for visit, o in job.outstanding.items()
        if isinstance(o.work, VerifyWork)
        and (o.work.topic, o.work.metric) == (wanted.topic, wanted.metric)
    )


def stop_measuring(job: Job, objective: ObjectiveName) -> tuple[StopWork, ...]:
    """Await no more measurements of an objective."""
    return _stopped(job, measuring(job, objective))
