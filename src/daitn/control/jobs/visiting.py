"""The visiting stage: reactions to sites' reports, their losses and the end of a round."""

from __future__ import annotations

from daitn.control.jobs import meeting, rounds
from daitn.control.jobs.commands import Commands
from daitn.control.jobs.failing import (
    count_failure,
    drop_lost,
    drop_stalled,
    note_cut_off,
    note_failure,
    reason_of,
)
from daitn.control.jobs.job import Job
from daitn.control.jobs.measuring import deviates, made_candidate
from daitn.control.jobs.outstanding import start, take_outcome
from daitn.control.jobs.stages import fail, plan, verify, wait
from daitn.control.jobs.suspecting import objected
from daitn.objects.decisions import Round
from daitn.objects.identifiers import VisitId
from daitn.objects.jobs import JobEvent, JobState, Reported, SiteLost
from daitn.objects.messages import MergeWork, VisitWork, WorkOutcome, WorkState

__all__ = [
    "after_visits",
    "begin_round",
    "lose_round",
    "on_lost",
    "on_reported",
    "on_round_due",
    "on_stalled",
]


def begin_round(job: Job, planned: Round) -> Commands:
    """Have a round's sites train its model."""
    works = rounds.begin(job, planned)
    job.state = JobState.VISITING
    sites = ", ".join(site for site, _ in works) or "sites that are late"
    sought = "; the others wait until it is known who spoiled a model" if job.suspects else ""
    job.detail = f"round {job.rounds + 1}: training at {sites}{sought}"
    starts = tuple(start(job, site, work) for site, work in works)
    return starts if rounds.is_awaited(job) else (*starts, *after_visits(job))


def on_reported(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Take the result of a visit, for its round or to be measured."""
    assert isinstance(event, Reported)
    outcome = take_outcome(job, event)
    if outcome is None:
        return ()
    if outcome.state is not WorkState.DONE:
        return _take_failure(job, outcome, now_s)
    assert outcome.entry is not None
    assert outcome.model is not None
    if job.round is not None:
        rounds.contribute(job, outcome.entry, outcome.model)
        return after_visits(job, outcome.visit)
    job.lineage.append(outcome.entry)
    job.candidate = made_candidate(job, outcome.entry, outcome.model)
    for made in job.candidate.visits:
        if job.stop is not None and (error := deviates(job.stop, made)):
            count_failure(job, outcome.site, error, for_good=True)
            return plan(job)
    return meeting.begin(job) or verify(job)


def _take_failure(job: Job, outcome: WorkOutcome, now_s: float) -> Commands:
    error = reason_of(outcome)
    if error.field == "own" and rounds.has_own(job, outcome.visit):
        note_failure(job, outcome.site, error)
        return (start(job, *rounds.without_own(job, outcome.visit)),)
    # What one site lacks, as a recipe, others may have.
    of_intent = error.field.startswith("model.") and error.code == "InvalidInput"
    if of_intent and not job.made and objected(job, job.objections, outcome.site, error):
        now = job.round
        others = now is not None and (now.made or now.latest or any(now.then.values()) or job.late)
        if not job.outstanding and not others:
            return fail(job, error, now_s)
    at_once = error.code in ("InvalidInput", "NotFound", "Refused", "StorageFull")
    count_failure(job, outcome.site, error, for_good=at_once)
    if error.code == "Unreachable":
        base = job.round.base if job.round else job.base
        note_cut_off(job, outcome.site, base.model.holders if base else ())
        if job.round is None:
            return wait(job, f"{outcome.site} cannot get the model: {error.problem}", now_s)
    return after_visits(job, outcome.visit)


def after_visits(job: Job, *ended: VisitId) -> Commands:
    """Continue the round's chains whose visits have ended. Merge its models once it waits for no
    other, or plan if none was made."""
    now = job.round
    if now is None:
        return plan(job)
    works = [work for visit in ended for work in rounds.go_on(job, visit)]
    if commands := tuple(start(job, site, work) for site, work in works):
        return commands
    if rounds.is_awaited(job):
        job.state = JobState.VISITING
        return ()
    rounds.close(job)
    if not rounds.are_enough(job):
        return lose_round(job)
    only = rounds.only_model(job)
    if only is not None:
        entry = next(one for one in job.lineage if one.digest == only.entry)
        job.candidate = rounds.candidate_of(job, entry, only.model)
        return verify(job)
    job.state = JobState.MERGING
    starts = tuple(
        start(job, site, work, now.prices_usd_per_hour.get(site, 0.0))
        for site, work in rounds.merge_works(job)
    )
    merging = [o.site for o in job.outstanding.values() if isinstance(o.work, MergeWork)]
    if not merging:
        error = rounds.give_up_models(job)
        return fail(job, error, job.at_s) if error else lose_round(job)
    job.detail = f"merging {len(now.made)} models at {', '.join(merging)}"
    return starts


def lose_round(job: Job) -> Commands:
    """Replan after a round without any model."""
    job.without_progress += 1
    return plan(job)


def on_round_due(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Continue with the models that the round has."""
    if job.round is None:
        return ()
    job.round.due = True
    return after_visits(job)


def on_lost(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Continue without a site that left. Its visit may continue if the site comes back."""
    assert isinstance(event, SiteLost)
    given = [o.work for o in job.outstanding.values() if o.site == event.site]
    stops = drop_lost(job, event)
    if not stops:
        return ()
    for work in given:
        if isinstance(work, VisitWork):
            job.interrupted[event.site] = work
    goes_on = "the round goes on" if job.round else "continuing from the last verified checkpoint"
    job.detail = f"{event.site} was lost; {goes_on}"
    return (*stops, *after_visits(job, *(stop.visit for stop in stops)))


def on_stalled(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Continue without a site that makes no progress."""
    stops = drop_stalled(job, event)
    return (*stops, *after_visits(job, *(stop.visit for stop in stops))) if stops else ()
