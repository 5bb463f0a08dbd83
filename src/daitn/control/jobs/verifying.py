"""The verification stage: reactions to verifiers' reports and losses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from daitn.control.jobs.commands import ChooseVerifiers, Commands
from daitn.control.jobs.failing import (
    count_failure,
    count_verifiers,
    drop_lost,
    forgive,
    note_cut_off,
    note_failure,
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
from daitn.control.jobs.suspecting import distrust, makers_of, objected, suspect
from daitn.objects.errors import ErrorReport
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


_WITNESSES = 2
"""Verifiers that must say that a model cannot be measured, if there are as many."""


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
    claimed = candidate.unreached or candidate.unable
    if missing and not (claimed and (assigned or _at_work(job))):  # Others may tell who is right.
        return _without_verifier(job, missing, now_s)
    return tuple(
        start(
            job,
            one.site,
            job.verify_work(one.objective, candidate.model, candidate.parents),
            one.price_usd_per_hour,
        )
        for one in assigned
    )


def _without_verifier(job: Job, missing: Sequence[ObjectiveName], now_s: float) -> Commands:
    """Wait for a verifier, or continue without a model that nobody can measure."""
    candidate = job.candidate
    assert candidate is not None
    if candidate.refused:
        refusing = ", ".join(sorted(candidate.refused))
        candidate.refused.clear()
        return (
            *stop_stage(job),
            *wait(job, f"a test set's policy at {refusing} refuses now", now_s),
        )
    unreached = sorted(candidate.unreached)
    if candidate.unable and job.intent.quorum == ONE:
        return _without_unmeasured(job, now_s)
    if unreached and not (candidate.received or candidate.unable):
        detail = f"{', '.join(unreached)} cannot fetch it from {_holders(candidate)}"
        return _without_unfetched(job, detail, now_s)
    why = _why_missing(job, missing)
    if unreached:  # Somebody could fetch it, so its maker is not to blame.
        why += f"; {', '.join(unreached)} cannot fetch the model, as others can"
        count_verifiers(job, unreached)
        candidate.unreached.clear()
    return (*stop_stage(job), *wait(job, why, now_s))


def _at_work(job: Job) -> bool:
    """Whether any verifier still measures the candidate."""
    return any(measuring(job, objective) for objective in job.intent.objective_names())


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
    without = sorted(job.candidate.unable)
    barred = sorted(job.barred) if job.intent.quorum != ONE else []
    told = f"; {', '.join(without)} cannot measure it" if without else ""
    told += f"; not asked again: {', '.join(barred)}" if barred else ""
    if not any(received.get(name) for name in missing):
        enough = "no verifier is" if quorum == 1 else f"fewer than {quorum} verifiers are"
        more = "" if quorum == 1 else "; another owner's, or a lower quorum, would help"
        return f"{enough} connected for {', '.join(missing)}{more}{told}"
    disagreeing = (
        f"{name} ({', '.join(f'{fact.site}: {fact.value:.3f}' for fact in received[name])})"
        for name in missing
        if received.get(name)
    )
    return (
        f"no {quorum} verifiers agree, and no other owner's is connected, for "
        f"{', '.join(disagreeing)}; another one would help{told}"
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
    job.unconfirmed.pop(outcome.site, None)
    before = len(job.disagreements)
    objective = measured(job, job.candidate, fact, outcome.entry.digest)
    job.detail = "; ".join(map(str, job.disagreements[before:])) or job.detail
    if objective not in job.candidate.measured:
        return () if measuring(job, objective) else (ChooseVerifiers(open_objectives(job)),)
    stops = stop_measuring(job, objective)
    if len(job.candidate.measured) < len(job.intent.objectives):
        return stops if _at_work(job) else (*stops, ChooseVerifiers(open_objectives(job)))
    checkpoint = close_candidate(job)
    if all(checkpoint.values[ObjectiveName(o.name)] >= o.at_least for o in job.intent.objectives):
        return (*stops, *end(job, JobState.REACHED, "", now_s))
    job.detail = "; ".join(map(str, job.disagreements[before:]))
    return (*stops, *plan(job))


def _take_failure(job: Job, outcome: WorkOutcome, now_s: float) -> Commands:
    candidate, site = job.candidate, outcome.site
    assert candidate is not None
    error = reason_of(outcome)
    note_failure(job, site, error)
    if error.code == "Unreachable":
        candidate.unreached.add(site)
        note_cut_off(job, site, candidate.model.holders)
        return (ChooseVerifiers(open_objectives(job)),)
    if error.code == "Refused" and site not in candidate.refused:
        candidate.refused.add(site)
        return (ChooseVerifiers(open_objectives(job)),)
    return _count_failure(job, site, error, now_s)


def _count_failure(job: Job, site: SiteId, error: ErrorReport, now_s: float) -> Commands:
    """A verifier may fail once; then, whether it or the model is at fault, others tell."""
    candidate = job.candidate
    assert candidate is not None
    if site not in candidate.failed and not _is_of_model(error):
        candidate.failed.add(site)
        count_verifiers(job, [site])
    else:
        candidate.unable[site] = error
    if len(candidate.unable) >= max(_WITNESSES, job.intent.quorum.quorum):
        return _without_unmeasured(job, now_s)
    return (ChooseVerifiers(open_objectives(job)),)


def _is_of_model(error: ErrorReport) -> bool:
    """Whether the verifier says that it is the model that cannot be measured."""
    of_model = error.field == "model" or error.field.startswith("model.")
    return of_model and error.code not in ("NotFound", "Refused")


def on_stalled(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Reassign the measurement of a verifier without progress."""
    assert isinstance(event, WorkStalled)
    if not is_under_way(job, event):
        return ()
    error = stall_of(event)
    stops = drop(job, event.site)
    note_failure(job, event.site, error)
    return (*stops, *_count_failure(job, event.site, error, now_s))


def on_lost(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Reassign the measurement of a verifier that left."""
    stops = drop_lost(job, event)
    return (*stops, ChooseVerifiers(open_objectives(job))) if stops else ()


def on_candidate_lost(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Continue from the last verified checkpoint: the candidate has no holder any more."""
    assert isinstance(event, CandidateLost)
    return _without_unfetched(job, event.detail, now_s)


def _without_unfetched(job: Job, detail: str, now_s: float) -> Commands:
    """Continue without a model that its holder does not hand out, or go on waiting for a verifier
    that can fetch none."""
    candidate = job.candidate
    assert candidate is not None
    what = "was lost before it was measured"
    made_at, verifiers = candidate.made_at, candidate.unreached
    if made_at is not None:
        if why := _unconfirmed(job, verifiers, made_at, detail):
            return _wait_for_another(job, why, now_s)
        problem = f"its model {what}: {detail}"
        count_failure(job, made_at, ErrorReport(code="WorkFailed", problem=problem), awaited=False)
    if job.start is not None and not job.checkpoints:
        stops = _drop_candidate(job, what)
        return (*stops, *wait(job, f"the owner's weights are unavailable: {detail}", now_s))
    return (*_drop_candidate(job, what), *plan(job))


def _without_unmeasured(job: Job, now_s: float) -> Commands:
    """Continue without a model that no verifier can measure: none of these is to blame for it."""
    candidate = job.candidate
    assert candidate is not None
    verifiers, error = sorted(candidate.unable), next(iter(candidate.unable.values()))
    say = "says" if len(verifiers) == 1 else "say"
    detail = f"{', '.join(verifiers)} {say} that {error.problem}"
    made_at, makers = candidate.made_at, makers_of(job, candidate)
    # The only verifier fails before it has measured anything, and not for the model.
    alone = not job.checkpoints and job.intent.quorum == ONE and not _is_of_model(error)
    if made_at is None or alone:
        return (*stop_all(job), *fail(job, error, now_s))
    if len(makers) == 1 and (why := _unconfirmed(job, verifiers, made_at, detail)):
        return _wait_for_another(job, why, now_s)
    if not candidate.visits and objected(job, job.barren, made_at, error):
        return (*stop_all(job), *fail(job, error, now_s))
    for site in candidate.failed:
        job.verifier_failures[site] = max(0, job.verifier_failures.get(site, 0) - 1)
    if candidate.merged is not None:
        distrust(job, made_at, ())
    problem = f"its model cannot be measured: {detail}"
    suspect(job, makers, msgspec.structs.replace(error, problem=problem))
    return (*_drop_candidate(job, "cannot be measured"), *plan(job))


def _unconfirmed(job: Job, verifiers: Collection[SiteId], maker: SiteId, detail: str) -> str:
    """Why a model that its only verifier cannot measure does not count against its maker: that
    verifier could not measure another one's, either. Each verifier is excused once; empty if the
    maker is to blame."""
    if len(verifiers) != 1:
        return ""
    (verifier,) = verifiers
    claims = job.unconfirmed.setdefault(verifier, [])
    if not claims or set(claims) == {maker} or verifier in job.once_excused:
        claims.append(maker)
        return ""
    job.once_excused.add(verifier)
    makers = " and ".join(sorted({*claims, maker}))
    for site in claims:
        forgive(job, site)
        job.barren.pop(site, None)
    claims.clear()
    job.verifier_failures[verifier] = MAX_FAILURES
    return f"{verifier} could measure no model of {makers}: {detail}; another verifier would help"


def _wait_for_another(job: Job, why: str, now_s: float) -> Commands:
    return (*_drop_candidate(job, "was not measured"), *wait(job, why, now_s))


def _drop_candidate(job: Job, what: str) -> Commands:
    """Go back to the last verified checkpoint. `what` is wrong with the model."""
    job.without_progress += 1
    job.candidate = None
    job.detail = f"the last model {what}; continuing from the last verified checkpoint"
    return stop_stage(job)


def _holders(candidate: ModelCandidate) -> str:
    return " or ".join(candidate.model.holders) or "anybody"
