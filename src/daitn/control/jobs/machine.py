"""The job state machine: one entry point, a literal table, events in and commands out.

::

    submitted ──> planning ──> visiting ──> verifying ──> reached
        │          │   ^  │  └───> merging ──> │     │
        │          │   │  └──> preparing ──> │     └────> planning (replan from what was measured)
        v          v   │                     v
    infeasible  exhausted   waiting <────────┘            cancelled, failed from anywhere

The job's state follows from its events alone: replaying them gives the same job, and `Recovered`
then gives the commands that resume it. (Pattern: event sourcing; a worker's pure state machine as
in dask.distributed.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from daitn.control.jobs import overdue, rounds, valuing
from daitn.control.jobs.commands import (
    Assess,
    ChooseVerifiers,
    Command,
    ComputeRoute,
    Settle,
    StartWork,
    StopWork,
)
from daitn.control.jobs.ending import why_exhausted
from daitn.control.jobs.failing import note_cut_off, note_failure, note_loss, reason_of, stall_of
from daitn.control.jobs.job import (
    MAX_FAILURES,
    MAX_WITHOUT_PROGRESS,
    Job,
    ModelCandidate,
)
from daitn.control.jobs.measuring import close_candidate, made_candidate, measured
from daitn.control.jobs.outstanding import (
    drop,
    is_under_way,
    open_objectives,
    start,
    stop_all,
    stop_stage,
    take_outcome,
)
from daitn.objects.decisions import Round
from daitn.objects.descriptors import ANY
from daitn.objects.errors import ErrorReport, IllegalTransition
from daitn.objects.identifiers import ObjectiveName, SiteId, VisitId
from daitn.objects.jobs import (
    ActionFailed,
    Assessed,
    CancelRequested,
    CandidateLost,
    DeadlinePassed,
    Decided,
    JobEvent,
    JobState,
    Planned,
    Recovered,
    Reported,
    RoundDue,
    SiteLost,
    Submitted,
    ValueAsked,
    VerifiersChosen,
    Woke,
    WorkStalled,
)
from daitn.objects.lineage import Verification
from daitn.objects.messages import MergeWork, VisitWork, WorkOutcome, WorkState

__all__ = ["RETRY_AT_MOST_S", "decisions", "handle", "replay", "submit"]

Commands = tuple[Command, ...]
RETRY_AFTER_S = 5.0
RETRY_AT_MOST_S = 300.0
"""A waiting job retries on its own, first after `RETRY_AFTER_S`, then after twice as long each time
up to `RETRY_AT_MOST_S`: events normally wake it, so this covers what was missed."""
WAITS_AT_MOST_S = 7 * 86_400.0
"""A job ends after waiting this long with nothing measured in between: a site that is offline over
a weekend comes back, and a forgotten job does not linger."""


def submit(event: Submitted, now_s: float) -> tuple[Job, Commands]:
    """Create a job from its first event."""
    job = Job(
        id=event.job,
        intent=event.intent,
        needs=event.needs,
        start=event.start,
        insist=event.insist,
        submitted_at_s=now_s,
        order=event.order,
    )
    return job, (Assess(),)


def handle(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Process one event and return the resulting commands.

    Raises `IllegalTransition`, with the job's history, for an event its state does not accept.
    """
    handler = _TABLE[job.state].get(type(event))
    if handler is None:
        raise IllegalTransition(
            f"job {job.id} is {job.state} and cannot take {type(event).__name__}; "
            f"so far: {' '.join(job.history)}",
            fix="this is a defect of the control centre; report it with the job's events",
        )
    before = job.state
    job.at_s = now_s
    late = overdue.take(job, event)
    commands = (*(late or ()), *handler(job, event, now_s))
    if late is not None and job.state is JobState.VISITING and job.round is not None:
        commands = (*commands, *_after_visits(job))
    if job.without_progress >= MAX_WITHOUT_PROGRESS and not job.state.final:
        stops = tuple(command for command in commands if isinstance(command, StopWork))
        commands = (*stops, *stop_all(job), *_give_up(job, now_s))
    job.history.append(f"{before}+{type(event).__name__}->{job.state}")
    return commands


def replay(events: Iterable[tuple[JobEvent, float]]) -> Job:
    """Rebuild a job from its stored events, each with the time at which it was recorded."""
    *_, (job, _) = _replayed(events)
    return job


def decisions(events: Iterable[tuple[JobEvent, float]]) -> tuple[Decided, ...]:
    """Every route decision in a job's stored events."""
    found: list[Decided] = []
    for job, (event, at_s) in _replayed(events):
        if isinstance(event, Planned):
            decided = Decided(
                number=len(found) + 1,
                at_s=at_s,
                decision=event.decision,
                route=event.route,
                round=event.round,
                waiting_for=event.waiting_for,
                why=event.why,
                visits_before=len(job.made),
            )
            found.append(decided)
    return tuple(found)


def _replayed(
    events: Iterable[tuple[JobEvent, float]],
) -> Iterator[tuple[Job, tuple[JobEvent, float]]]:
    """The job after each of its events, with that event."""
    stream = iter(events)
    first, at_s = next(stream)
    assert isinstance(first, Submitted)
    job, _ = submit(first, at_s)
    yield job, (first, at_s)
    for event, at_s in stream:
        handle(job, event, at_s)
        yield job, (event, at_s)


def _on_assessed(job: Job, event: JobEvent, now_s: float) -> Commands:
    assert isinstance(event, Assessed)
    job.assessment = event.assessment
    if not (event.assessment.feasible or job.insist):
        return _end(job, JobState.INFEASIBLE, "; ".join(event.assessment.reasons), now_s)
    if job.start is None:
        return _plan(job)
    return _verify_start(job, now_s)


def _on_planned(job: Job, event: JobEvent, now_s: float) -> Commands:
    assert isinstance(event, Planned)
    job.decision = event.decision
    job.planned = event.route
    if event.round is not None:
        return _begin_round(job, event.round)
    if event.here is not None:
        job.met[event.here.site] = event.here
    if event.route is None:
        if event.waiting_for:
            return _wait(job, event.waiting_for, now_s)
        return _end(
            job, JobState.EXHAUSTED, why_exhausted(job, now_s, event.why, event.unvisited), now_s
        )
    stop = event.route.visits[0]
    base = next((c for c in job.checkpoints if c.model.manifest == event.route.start), None)
    if base is not None and job.intent.training.secure_aggregation:
        return _fail(job, _NO_ROUND, now_s)
    job.stop, job.base = stop, base
    job.state = JobState.VISITING if base else JobState.PREPARING
    job.detail = f"{'training' if base else 'making the fresh model'} at {stop.site}"
    return (start(job, stop.site, job.visit_work(stop, base)),)


def _begin_round(job: Job, planned: Round) -> Commands:
    works = rounds.begin(job, planned)
    job.state = JobState.VISITING
    sites = ", ".join(site for site, _ in works) or "sites that are late"
    job.detail = f"round {job.rounds + 1}: training at {sites}"
    starts = tuple(start(job, site, work) for site, work in works)
    return starts if rounds.is_awaited(job) else (*starts, *_after_visits(job))


def _on_visit_reported(job: Job, event: JobEvent, now_s: float) -> Commands:
    assert isinstance(event, Reported)
    outcome = take_outcome(job, event)
    if outcome is None:
        return ()
    if outcome.state is not WorkState.DONE:
        return _on_visit_failed(job, outcome, now_s)
    assert outcome.entry is not None
    assert outcome.model is not None
    job.lineage.append(outcome.entry)
    if job.round is not None:
        if useless := rounds.contribute(job, outcome.entry, outcome.model):
            job.failures[outcome.site] = MAX_FAILURES
            note_failure(job, outcome.site, ErrorReport(code="WorkFailed", problem=useless))
        return _after_visits(job, outcome.visit)
    job.candidate = made_candidate(job, outcome.entry, outcome.model)
    return _verify(job)


def _after_visits(job: Job, *ended: VisitId) -> Commands:
    """Go on with the round's chains in which visits have ended. Merge its models once it waits for
    no other, or plan if none was made."""
    now = job.round
    if now is None:
        return _plan(job)
    works = [work for visit in ended for work in rounds.go_on(job, visit)]
    if commands := tuple(start(job, site, work) for site, work in works):
        return commands
    if rounds.is_awaited(job):
        job.state = JobState.VISITING
        return ()
    rounds.close(job)
    if not rounds.are_enough(job):
        return _lose_round(job)
    only = rounds.only_model(job)
    if only is not None:
        entry = next(one for one in job.lineage if one.digest == only.entry)
        job.candidate = rounds.candidate_of(job, entry, only.model)
        return _verify(job)
    job.state = JobState.MERGING
    starts = tuple(start(job, *found) for found in rounds.merge_works(job))
    merging = [o.site for o in job.outstanding.values() if isinstance(o.work, MergeWork)]
    if not merging:
        return _lose_round(job)
    job.detail = f"merging {len(now.made)} models at {', '.join(merging)}"
    return starts


def _on_round_due(job: Job, event: JobEvent, now_s: float) -> Commands:
    if job.round is None:
        return ()
    job.round.due = True
    return _after_visits(job)


def _lose_round(job: Job) -> Commands:
    job.without_progress += 1
    return _plan(job)


def _on_merge_reported(job: Job, event: JobEvent, now_s: float) -> Commands:
    assert isinstance(event, Reported)
    outcome = take_outcome(job, event)
    if outcome is None:
        return ()
    if outcome.state is WorkState.DONE:
        assert outcome.entry is not None
        assert outcome.model is not None
        job.lineage.append(outcome.entry)
        if rounds.take_part(job, outcome.entry, outcome.model):
            return _after_visits(job)
        job.candidate = rounds.candidate_of(job, outcome.entry, outcome.model)
        return _verify(job)
    error = reason_of(outcome)
    if error.field == "moments":  # Who merged last is away: the outer step begins anew.
        job.moments = None
        note_failure(job, outcome.site, error)
        return _after_visits(job)
    if rounds.set_aside(job, error):
        return (*stop_stage(job), *_lose_round(job))
    made_at = rounds.leave_out(job, outcome.visit, error)
    if made_at is None:
        rounds.give_up_aggregator(job, outcome.visit, outcome.site)
    blamed = made_at or outcome.site
    job.failures[blamed] = job.failures.get(blamed, 0) + 1
    note_failure(job, blamed, error)
    return _after_visits(job)


def _on_aggregator_lost(job: Job, event: JobEvent, now_s: float) -> Commands:
    assert isinstance(event, SiteLost)
    stops = drop(job, event.site)
    if not stops:
        return ()
    note_loss(job, event.site)
    for stop in stops:
        rounds.give_up_aggregator(job, stop.visit, event.site)
    return (*stops, *_after_visits(job))


def _on_merge_stalled(job: Job, event: JobEvent, now_s: float) -> Commands:
    assert isinstance(event, WorkStalled)
    if not is_under_way(job, event):
        return ()
    job.failures[event.site] = job.failures.get(event.site, 0) + 1
    stops = drop(job, event.site)
    for stop in stops:
        rounds.give_up_aggregator(job, stop.visit, event.site)
    note_failure(job, event.site, stall_of(event))
    return (*stops, *_after_visits(job))


def _on_visit_failed(job: Job, outcome: WorkOutcome, now_s: float) -> Commands:
    error = reason_of(outcome)
    if error.field == "own" and rounds.has_own(job, outcome.visit):
        note_failure(job, outcome.site, error)
        return (start(job, *rounds.without_own(job, outcome.visit)),)
    if error.field.startswith("model.") and error.code in ("InvalidInput", "NotFound"):
        return (*stop_all(job), *_fail(job, error, now_s))
    at_once = error.code in ("InvalidInput", "NotFound", "Refused", "StorageFull")
    job.failures[outcome.site] = MAX_FAILURES if at_once else job.failures.get(outcome.site, 0) + 1
    note_failure(job, outcome.site, error)
    if error.code == "Unreachable":
        base = job.round.base if job.round else job.base
        note_cut_off(job, outcome.site, base.model.holders if base else ())
        if job.round is None:
            return _wait(job, f"{outcome.site} cannot get the model: {error.problem}", now_s)
    return _after_visits(job, outcome.visit)


def _on_visitor_lost(job: Job, event: JobEvent, now_s: float) -> Commands:
    assert isinstance(event, SiteLost)
    given = [o.work for o in job.outstanding.values() if o.site == event.site]
    stops = drop(job, event.site)
    if not stops:
        return ()
    for work in given:
        if isinstance(work, VisitWork):
            job.interrupted[event.site] = work
    note_loss(job, event.site)
    goes_on = "the round goes on" if job.round else "continuing from the last verified checkpoint"
    job.detail = f"{event.site} was lost; {goes_on}"
    return (*stops, *_after_visits(job, *(stop.visit for stop in stops)))


def _on_visit_stalled(job: Job, event: JobEvent, now_s: float) -> Commands:
    assert isinstance(event, WorkStalled)
    if not is_under_way(job, event):
        return ()
    job.failures[event.site] = job.failures.get(event.site, 0) + 1
    stops = drop(job, event.site)
    note_failure(job, event.site, stall_of(event))
    return (*stops, *_after_visits(job, *(stop.visit for stop in stops)))


def _on_verifiers_chosen(job: Job, event: JobEvent, now_s: float) -> Commands:
    assert isinstance(event, VerifiersChosen)
    assert job.candidate is not None
    still_open = open_objectives(job)
    missing = [a.objective for a in event.assignments if a.site is None]
    missing = [objective for objective in missing if objective in still_open]
    if missing:
        if job.candidate.refused:
            refusing = ", ".join(sorted(job.candidate.refused))
            job.candidate.refused.clear()
            stops = stop_stage(job)
            return (*stops, *_wait(job, f"a test set's policy at {refusing} refuses now", now_s))
        unreached = sorted(job.candidate.unreached)
        if unreached:
            detail = f"{', '.join(unreached)} cannot fetch it from {_holders(job.candidate)}"
            return _without_candidate(job, detail, now_s)
        stops = stop_stage(job)
        return (*stops, *_wait(job, f"no verifier is connected for {', '.join(missing)}", now_s))
    return tuple(
        start(job, assigned.site, job.verify_work(assigned.objective, job.candidate))
        for assigned in event.assignments
        if assigned.site is not None and assigned.objective in still_open
    )


def _on_verification_reported(job: Job, event: JobEvent, now_s: float) -> Commands:
    assert isinstance(event, Reported)
    outcome = take_outcome(job, event)
    if outcome is None:
        return ()
    assert job.candidate is not None
    if outcome.state is not WorkState.DONE:
        return _on_verification_failed(job, outcome, now_s)
    assert outcome.entry is not None
    fact = outcome.entry.fact
    assert isinstance(fact, Verification)
    job.lineage.append(outcome.entry)
    measured(job, job.candidate, fact, outcome.entry.digest)
    if len(job.candidate.measured) < len(job.intent.objectives):
        return ()
    checkpoint = close_candidate(job)
    if all(checkpoint.values[ObjectiveName(o.name)] >= o.at_least for o in job.intent.objectives):
        return _end(job, JobState.REACHED, "", now_s)
    job.detail = ""
    return _plan(job)


def _on_verification_failed(job: Job, outcome: WorkOutcome, now_s: float) -> Commands:
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


def _on_verification_stalled(job: Job, event: JobEvent, now_s: float) -> Commands:
    assert isinstance(event, WorkStalled)
    if not is_under_way(job, event):
        return ()
    error = stall_of(event)
    stops = drop(job, event.site)
    note_failure(job, event.site, error)
    return (*stops, *_count_verifier_failure(job, event.site, error, now_s))


def _count_verifier_failure(job: Job, site: SiteId, error: ErrorReport, now_s: float) -> Commands:
    job.verifier_failures[site] = job.verifier_failures.get(site, 0) + 1
    if job.verifier_failures[site] >= MAX_FAILURES:
        return (*stop_all(job), *_fail(job, error, now_s))
    return (ChooseVerifiers(open_objectives(job)),)


def _on_candidate_lost(job: Job, event: JobEvent, now_s: float) -> Commands:
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
        return (*stops, *_wait(job, f"the owner's weights are unavailable: {detail}", now_s))
    return (*stops, *_plan(job))


def _on_verifier_lost(job: Job, event: JobEvent, now_s: float) -> Commands:
    assert isinstance(event, SiteLost)
    stops = drop(job, event.site)
    if not stops:
        return ()
    note_loss(job, event.site)
    return (*stops, ChooseVerifiers(open_objectives(job)))


def _on_woke(job: Job, event: JobEvent, now_s: float) -> Commands:
    job.wake_at_s = None
    if job.candidate is not None:
        return _verify(job)
    if job.start is not None and not job.checkpoints:
        return _verify_start(job, now_s)
    return _plan(job)


def _on_recovered(job: Job, event: JobEvent, now_s: float) -> Commands:
    again: list[Command] = [StartWork(o.site, o.work) for o in job.outstanding.values()]
    if job.state is JobState.SUBMITTED:
        again.append(Assess())
    elif job.state is JobState.PLANNING:
        again.append(ComputeRoute())
    elif job.state is JobState.VERIFYING and open_objectives(job):
        again.append(ChooseVerifiers(open_objectives(job)))
    return tuple(again)


def _on_cancel(job: Job, event: JobEvent, now_s: float) -> Commands:
    return (*stop_all(job), *_end(job, JobState.CANCELLED, "", now_s))


def _on_deadline(job: Job, event: JobEvent, now_s: float) -> Commands:
    stops = stop_all(job)
    over = "its time (budget.duration_s) is up"
    return (*stops, *_end(job, JobState.EXHAUSTED, why_exhausted(job, now_s, over), now_s))


def _on_action_failed(job: Job, event: JobEvent, now_s: float) -> Commands:
    assert isinstance(event, ActionFailed)
    return (*stop_all(job), *_fail(job, event.error, now_s))


def _late(job: Job, event: JobEvent, now_s: float) -> Commands:
    """An answer, report or loss that arrives after the job has moved on."""
    return ()


def _plan(job: Job) -> Commands:
    job.state = JobState.PLANNING
    job.candidate = None
    job.stop = None
    job.round = None
    return (ComputeRoute(),)


def _verify(job: Job) -> Commands:
    job.state = JobState.VERIFYING
    job.detail = "measuring"
    return (ChooseVerifiers(open_objectives(job)),)


def _verify_start(job: Job, now_s: float) -> Commands:
    assert job.start is not None
    job.candidate = ModelCandidate(
        model=job.start, base=None, visits=(), release_to=(ANY,), parents=()
    )
    return _verify(job)


def _wait(job: Job, detail: str, now_s: float) -> Commands:
    if job.stuck_since_s is None:
        job.stuck_since_s = now_s
    if now_s - job.stuck_since_s >= WAITS_AT_MOST_S:
        why = f"it waited {WAITS_AT_MOST_S / 86_400:.0f} days without success: {detail}"
        return _end(job, JobState.EXHAUSTED, why_exhausted(job, now_s, why), now_s)
    job.state = JobState.WAITING
    job.detail = detail
    job.wake_at_s = now_s + min(RETRY_AFTER_S * 2.0 ** min(job.waits, 10), RETRY_AT_MOST_S)
    job.waits += 1
    return ()


def _end(job: Job, state: JobState, detail: str, now_s: float) -> Commands:
    job.state = state
    job.wake_at_s = None
    job.detail = detail
    job.ended_at_s = now_s
    job.candidate = None
    job.round = None
    job.moments = None
    job.late.clear()
    job.own.clear()
    return (*stop_all(job), Settle())


def _fail(job: Job, error: ErrorReport, now_s: float) -> Commands:
    job.error = error
    return _end(job, JobState.FAILED, error.problem, now_s)


def _give_up(job: Job, now_s: float) -> Commands:
    last = f"; the last failure: {job.error.problem}" if job.error else ""
    problem = f"{job.without_progress} consecutive pieces of work gave no measured model{last}"
    return _fail(job, ErrorReport(code="WorkFailed", problem=problem), now_s)


def _holders(candidate: ModelCandidate) -> str:
    return " or ".join(candidate.model.holders) or "anybody"


_NO_ROUND = ErrorReport(
    code="InvalidInput",
    problem="a fresh model of this recipe cannot be merged, and a first visit would show a site's",
    field="training.secure_aggregation",
    fix="state model.start, or leave out training.secure_aggregation",
)
Handler = Callable[[Job, JobEvent, float], Commands]

_ALWAYS: dict[type, Handler] = {
    ActionFailed: _on_action_failed,
    CancelRequested: _on_cancel,
    DeadlinePassed: _on_deadline,
    RoundDue: _late,
    Recovered: _on_recovered,
    Assessed: _late,
    Planned: _late,
    VerifiersChosen: _late,
    Reported: _late,
    SiteLost: _late,
    WorkStalled: _late,
}
_ENDED: dict[type, Handler] = {
    ActionFailed: _late,
    Assessed: _late,
    Planned: _late,
    RoundDue: _late,
    VerifiersChosen: _late,
    Recovered: _late,
    ValueAsked: valuing.on_asked,
    Reported: valuing.on_reported,
    SiteLost: valuing.on_lost,
    WorkStalled: valuing.on_stalled,
    DeadlinePassed: valuing.on_deadline,
}

_VISITING: dict[type, Handler] = {
    Reported: _on_visit_reported,
    SiteLost: _on_visitor_lost,
    WorkStalled: _on_visit_stalled,
}

_TABLE: dict[JobState, dict[type, Handler]] = {
    JobState.SUBMITTED: {**_ALWAYS, Assessed: _on_assessed},
    JobState.PLANNING: {**_ALWAYS, Planned: _on_planned},
    JobState.PREPARING: {**_ALWAYS, **_VISITING},
    JobState.VISITING: {**_ALWAYS, **_VISITING, RoundDue: _on_round_due},
    JobState.MERGING: {
        **_ALWAYS,
        Reported: _on_merge_reported,
        SiteLost: _on_aggregator_lost,
        WorkStalled: _on_merge_stalled,
    },
    JobState.VERIFYING: {
        **_ALWAYS,
        VerifiersChosen: _on_verifiers_chosen,
        Reported: _on_verification_reported,
        SiteLost: _on_verifier_lost,
        WorkStalled: _on_verification_stalled,
        CandidateLost: _on_candidate_lost,
    },
    JobState.WAITING: {**_ALWAYS, Woke: _on_woke},
    JobState.REACHED: _ENDED,
    JobState.EXHAUSTED: _ENDED,
    JobState.INFEASIBLE: _ENDED,
    JobState.CANCELLED: _ENDED,
    JobState.FAILED: _ENDED,
}
