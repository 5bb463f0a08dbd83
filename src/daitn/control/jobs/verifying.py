"""The verification stage: reactions to verifiers' reports and losses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from daitn.control.jobs.commands import ChooseVerifiers, Commands
from daitn.control.jobs.failing import (
    drop_lost,
    note_cut_off,
    note_failure,
    note_problem,
    reason_of,
    stall_of,
)
from daitn.control.jobs.job import MAX_FAILURES, Job, ModelCandidate
from daitn.control.jobs.measuring import close_candidate, measured
from daitn.control.jobs.outstanding import (
    asked_about,
    drop,
    is_under_way,
    measuring,
    open_objectives,
    start,
    stop_all,
    stop_measuring,
    stop_stage,
    take_outcome,
)
from daitn.control.jobs.stages import end, fail, plan, wait
from daitn.objects.errors import ErrorReport, WorkFailed
from daitn.objects.identifiers import ObjectiveName, SiteId
from daitn.objects.jobs import (
    CandidateLost,
    JobEvent,
    JobState,
    Reported,
    VerifierAssignment,
    VerifiersChosen,
    WorkStalled,
)
from daitn.objects.lineage import Verification
from daitn.objects.messages import WorkOutcome, WorkState
from daitn.objects.quorum import ONE

__all__ = ["on_candidate_lost", "on_chosen", "on_lost", "on_reported", "on_stalled"]


class _Assigned(NamedTuple):
    """A verifier assigned to measure."""

    objective: ObjectiveName
    site: SiteId
    price_usd_per_hour: float


def on_chosen(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Have the chosen verifiers measure; wait or replan if there are none."""
    assert isinstance(event, VerifiersChosen)
    candidate = job.candidate
    assert candidate is not None
    assigned = _still_open(job, event.assignments)
    missing = _missing(job, event, assigned)
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
        return (*stops, *wait(job, _why_missing(job, missing), now_s))
    return tuple(
        start(
            job,
            one.site,
            job.verify_work(one.objective, candidate.model, candidate.parents),
            one.price_usd_per_hour,
        )
        for one in assigned
    )


def _still_open(job: Job, assignments: Sequence[VerifierAssignment]) -> tuple[_Assigned, ...]:
    """The assignments that are still needed: no verifier measures the same thing twice."""
    wanted = Counter(open_objectives(job))
    asked = {objective: set(asked_about(job, objective)) for objective in wanted}
    found = []
    for one in assignments:
        name, site = one.objective, one.site
        if site is not None and wanted[name] and site not in asked[name]:
            wanted[name] -= 1
            asked[name].add(site)
            found.append(_Assigned(name, site, one.price_usd_per_hour))
    return tuple(found)


def _missing(
    job: Job, event: VerifiersChosen, assigned: Sequence[_Assigned]
) -> tuple[ObjectiveName, ...]:
    """Objectives that too few verifiers can measure now, or on which they do not agree."""
    assert job.candidate is not None
    still_open, new = open_objectives(job), Counter(one.objective for one in assigned)
    found = []
    for name in dict.fromkeys(one.objective for one in event.assignments if one.site is None):
        at_work = len(measuring(job, name)) + new[name]
        received = len(job.candidate.received.get(name, ()))
        if name in still_open and not (at_work and received + at_work >= job.intent.quorum.quorum):
            found.append(name)
    return tuple(found)


def _why_missing(job: Job, missing: Sequence[ObjectiveName]) -> str:
    assert job.candidate is not None
    quorum, received = job.intent.quorum.quorum, job.candidate.received
    if not any(received.get(name) for name in missing):
        enough = "no verifier is" if quorum == 1 else f"fewer than {quorum} verifiers are"
        more = "" if quorum == 1 else "; another owner's, or a lower quorum, would help"
        return f"{enough} connected for {', '.join(missing)}{more}"
    disagreeing = (
        f"{name} ({', '.join(f'{fact.site}: {fact.value:.3f}' for fact in received[name])})"
        for name in missing
        if received.get(name)
    )
    return (
        f"no {quorum} verifiers agree, and no other owner's is connected, for "
        f"{', '.join(disagreeing)}; another one would help"
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
    before = len(job.disagreements)
    objective = measured(job, job.candidate, fact, outcome.entry.digest)
    job.detail = "; ".join(map(str, job.disagreements[before:])) or job.detail
    if objective not in job.candidate.measured:
        return () if measuring(job, objective) else (ChooseVerifiers(open_objectives(job)),)
    stops = stop_measuring(job, objective)
    if len(job.candidate.measured) < len(job.intent.objectives):
        return stops
    checkpoint = close_candidate(job)
    if all(checkpoint.values[ObjectiveName(o.name)] >= o.at_least for o in job.intent.objectives):
        return (*stops, *end(job, JobState.REACHED, "", now_s))
    job.detail = "; ".join(map(str, job.disagreements[before:]))
    return (*stops, *plan(job))


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
    if _is_of_model(error) and job.checkpoints and job.intent.quorum == ONE:
        # The verifier has done its part: a visit that diverged must not end the job.
        detail = f"{outcome.site} says that {error.problem}"
        return _without_candidate(job, detail, now_s, "cannot be measured")
    return _count_verifier_failure(job, outcome.site, error, now_s)


def _is_of_model(error: ErrorReport) -> bool:
    """Whether it is the model that cannot be measured, by any verifier."""
    return (error.code, error.field) == (WorkFailed.__name__, "model")


def on_stalled(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Reassign the measurement of a verifier without progress."""
    assert isinstance(event, WorkStalled)
    if not is_under_way(job, event):
        return ()
    error = stall_of(event)
    stops = drop(job, event.site)
    note_failure(job, event.site, error)
    return (*stops, *_count_verifier_failure(job, event.site, error, now_s))


def on_lost(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Reassign the measurement of a verifier that left."""
    stops = drop_lost(job, event)
    return (*stops, ChooseVerifiers(open_objectives(job))) if stops else ()


def _count_verifier_failure(job: Job, site: SiteId, error: ErrorReport, now_s: float) -> Commands:
    job.verifier_failures[site] = job.verifier_failures.get(site, 0) + 1
    if job.verifier_failures[site] >= MAX_FAILURES and job.intent.quorum == ONE:
        return (*stop_all(job), *fail(job, error, now_s))
    return (ChooseVerifiers(open_objectives(job)),)


def on_candidate_lost(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Continue from the last verified checkpoint: the candidate has no holder any more."""
    assert isinstance(event, CandidateLost)
    return _without_candidate(job, event.detail, now_s)


def _without_candidate(
    job: Job, detail: str, now_s: float, what: str = "was lost before it was measured"
) -> Commands:
    """Continue from the last verified checkpoint. `what` is wrong with the model."""
    made_at = job.candidate.made_at if job.candidate else None
    if made_at is not None:
        job.failures[made_at] = job.failures.get(made_at, 0) + 1
        note_problem(job, made_at, f"its model {what}: {detail}")
    job.without_progress += 1
    job.candidate = None
    job.detail = f"the last model {what}; continuing from the last verified checkpoint"
    stops = stop_stage(job)
    if job.start is not None and not job.checkpoints:
        return (*stops, *wait(job, f"the owner's weights are unavailable: {detail}", now_s))
    return (*stops, *plan(job))


def _holders(candidate: ModelCandidate) -> str:
    return " or ".join(candidate.model.holders) or "anybody"
