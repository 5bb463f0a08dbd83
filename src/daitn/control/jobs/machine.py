"""The job state machine: one entry point, a literal table, events in and commands out.

::

    submitted ──> planning ──> visiting ──> verifying ──> reached
        │          │   ^  │  └───> merging ──> │     │     (a round, or what met at a site)
        │          │   │  └──> preparing ──> │     └────> planning (replan from what was measured)
        v          v   │                     v
    infeasible  exhausted   waiting <────────┘            cancelled, failed from anywhere

An exhausted, cancelled or failed job that is resumed goes on in planning, from its best checkpoint.

The job's state follows from its events alone: replaying them gives the same job, and `Recovered`
then gives the commands that resume it. (Pattern: event sourcing; a worker's pure state machine as
in dask.distributed.)

Here are the tables and what any state takes. What follows from an event stands in the module of its
stage: `planning`, `visiting`, `merging`, `meeting`, `verifying`, and after the end `valuing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from daitn.control.accounting.training import credits_cause, pool_divided, pool_held
from daitn.control.jobs import merging, overdue, planning, valuing, verifying, visiting
from daitn.control.jobs.commands import (
    Assess,
    ChooseVerifiers,
    Command,
    Commands,
    ComputeRoute,
    StartWork,
    StopWork,
)
from daitn.control.jobs.job import MAX_WITHOUT_PROGRESS, Job
from daitn.control.jobs.outstanding import open_objectives, stop_all
from daitn.control.jobs.resuming import RESUMED, with_what_is_left
from daitn.control.jobs.stages import end, fail
from daitn.control.jobs.why_exhausted import why_exhausted
from daitn.objects.errors import ErrorReport, IllegalTransition
from daitn.objects.identifiers import OwnerId
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
    ResumeAsked,
    RoundDue,
    SiteLost,
    Submitted,
    ValueAsked,
    VerifiersChosen,
    Woke,
    WorkStalled,
)

__all__ = ["conclude", "decisions", "handle", "replay", "replayed", "submit"]


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
        walker=event.walker,
        release_to=event.release_to,
    )
    if job.pool_usd:
        job.entries.append(pool_held(job.intent.owner, job.id, job.pool_usd, now_s))
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
        commands = (*commands, *visiting.after_visits(job))
    if job.without_progress >= MAX_WITHOUT_PROGRESS and not job.state.final:
        stops = tuple(command for command in commands if isinstance(command, StopWork))
        commands = (*stops, *stop_all(job), *_give_up(job, now_s))
    if job.pool_usd and job.state.final and not job.open:
        _divide_pool(job)
    job.history.append(f"{before}+{type(event).__name__}->{job.state}")
    return commands


def replay(events: Iterable[tuple[JobEvent, float]]) -> Job:
    """Rebuild a job from its stored events, each with the time at which it was recorded."""
    return replayed(events)[0]


def replayed(events: Iterable[tuple[JobEvent, float]]) -> tuple[Job, Commands]:
    """Likewise, with the commands that followed from the last event."""
    *_, (job, commands, _) = _replayed(events)
    return job, commands


def conclude(job: Job, state: JobState, detail: str) -> Commands:
    """End a job as it is known to have ended, whatever it is by its events."""
    job.valuing = None
    return end(job, state, detail, job.at_s)


def decisions(events: Iterable[tuple[JobEvent, float]]) -> tuple[Decided, ...]:
    """Every route decision in a job's stored events."""
    found: list[Decided] = []
    for job, _, (event, at_s) in _replayed(events):
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
) -> Iterator[tuple[Job, Commands, tuple[JobEvent, float]]]:
    """The job after each of its events, with the resulting commands."""
    stream = iter(events)
    first, at_s = next(stream)
    assert isinstance(first, Submitted)
    job, commands = submit(first, at_s)
    yield job, commands, (first, at_s)
    for event, at_s in stream:
        commands = handle(job, event, at_s)
        yield job, commands, (event, at_s)


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
    assert isinstance(event, CancelRequested)
    who = "its owner" if event.by == job.intent.owner else event.by
    detail = f"{who} cancelled it" if who else ""
    return (*stop_all(job), *end(job, JobState.CANCELLED, detail, now_s))


def _on_resume(job: Job, event: JobEvent, now_s: float) -> Commands:
    """Continue from the best checkpoint, the only one kept of an ended job, with the rest of the
    budget; whatever failed gets another chance."""
    assert job.ended_at_s is not None
    job.detail = with_what_is_left(job)
    job.idle_s += now_s - job.ended_at_s
    job.ended_at_s = job.error = job.valuing = job.stuck_since_s = None
    job.without_progress = job.waits = 0
    for counted in (job.failures, job.verifier_failures, job.losses, job.problems, job.cut_off):
        counted.clear()
    for doubted in (job.suspects, job.apart, job.once_excused):
        doubted.clear()
    for claimed in (job.distrusted, job.objections, job.barren, job.unconfirmed):
        claimed.clear()
    if (best := job.best) is not None:
        job.checkpoints.remove(best)
        job.checkpoints.append(best)
        job.resumed_from = best.model.manifest
    if job.assessment is None:
        job.state = JobState.SUBMITTED
        return (Assess(),)
    return planning.on_woke(job, event, now_s)


def _on_deadline(job: Job, event: JobEvent, now_s: float) -> Commands:
    stops = stop_all(job)
    over = "its time (budget.duration_s) is up"
    return (*stops, *end(job, JobState.EXHAUSTED, why_exhausted(job, now_s, over), now_s))


def _on_action_failed(job: Job, event: JobEvent, now_s: float) -> Commands:
    assert isinstance(event, ActionFailed)
    return (*stop_all(job), *fail(job, event.error, now_s))


def _late(job: Job, event: JobEvent, now_s: float) -> Commands:
    """An answer, report or loss that arrives after the job has moved on."""
    return ()


def _give_up(job: Job, now_s: float) -> Commands:
    last = f"; the last failure: {job.error.problem}" if job.error else ""
    problem = f"{job.without_progress} consecutive pieces of work gave no measured model{last}"
    return fail(job, ErrorReport(code="WorkFailed", problem=problem), now_s)


def _divide_pool(job: Job) -> None:
    """Divide the pool once: after the end, and after the measurements that follow it."""
    cause = credits_cause(job.id)
    if valuing.to_be_valued(job) or any(one.cause.startswith(cause) for one in job.entries):
        return
    found = valuing.value_of(job, OwnerId)
    owner, usd = job.intent.owner, job.pool_usd
    job.entries.extend(pool_divided(owner, job.id, usd, found.credits, job.at_s))


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

_STOPPED: dict[type, Handler] = {**_ENDED, ResumeAsked: _on_resume}

_VISITING: dict[type, Handler] = {
    Reported: visiting.on_reported,
    SiteLost: visiting.on_lost,
    WorkStalled: visiting.on_stalled,
}

_TABLE: dict[JobState, dict[type, Handler]] = {
    JobState.SUBMITTED: {**_ALWAYS, Assessed: planning.on_assessed},
    JobState.PLANNING: {**_ALWAYS, Planned: planning.on_planned},
    JobState.PREPARING: {**_ALWAYS, **_VISITING},
    JobState.VISITING: {**_ALWAYS, **_VISITING, RoundDue: visiting.on_round_due},
    JobState.MERGING: {
        **_ALWAYS,
        Reported: merging.on_reported,
        SiteLost: merging.on_lost,
        WorkStalled: merging.on_stalled,
    },
    JobState.VERIFYING: {
        **_ALWAYS,
        VerifiersChosen: verifying.on_chosen,
        Reported: verifying.on_reported,
        SiteLost: verifying.on_lost,
        WorkStalled: verifying.on_stalled,
        CandidateLost: verifying.on_candidate_lost,
    },
    JobState.WAITING: {**_ALWAYS, Woke: planning.on_woke},
    JobState.REACHED: _ENDED,
    JobState.INFEASIBLE: _ENDED,
    **dict.fromkeys(RESUMED, _STOPPED),
}
