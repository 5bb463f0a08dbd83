"""A job with several models that travel at the same time, presented as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

import msgspec

from daitn.control.jobs.job import Job
from daitn.control.jobs.machine import decisions
from daitn.control.jobs.view import view
from daitn.objects.errors import InvalidInput
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import (
    Decided,
    JobEvent,
    JobState,
    JobView,
    Reported,
    WorkNeeds,
)
from daitn.objects.lineage import Entry, Origin, SignedStatement
from daitn.objects.merging import Algorithm

__all__ = ["check_walks", "decisions_of", "statements_of", "view_of"]

_ENDS = (
    JobState.REACHED,
    JobState.EXHAUSTED,
    JobState.FAILED,
    JobState.INFEASIBLE,
    JobState.CANCELLED,
)
"""Final states in order of precedence, if the models ended in several."""


def check_walks(intent: TrainingIntent, needs: WorkNeeds) -> None:
    """Raise `InvalidInput` for a job whose recipe does not support this, whose models could not be
    averaged when they meet, or would have nothing to spend."""
    walkers, examples = intent.training.travelling, intent.budget.examples
    if examples is not None and examples < walkers:
        raise InvalidInput(
            f"{examples} examples are too few for {walkers} models that travel",
            field="budget.examples",
            fix="raise it, or lower training.walkers",
        )
    algorithm = intent.training.algorithm
    if not needs.trains_by(algorithm):
        raise InvalidInput(
            f"the recipe {intent.model.recipe} does not train by {algorithm}",
            field="training.algorithm",
            fix="use the algorithm sequential",
        )
    if algorithm is Algorithm.GOSSIP and not (needs.merges and needs.merges_fresh):
        raise InvalidInput(
            f"models of {intent.model.recipe} that were trained separately from the start cannot "
            f"be averaged",
            field="training.algorithm",
            fix="use the algorithm sequential",
        )


def view_of(jobs: Sequence[Job], now_s: float) -> tuple[JobView, Job]:
    """The combined view, showing the best of its models: its results, model and position. Spending
    is the sum."""
    if len(jobs) == 1:
        return view(jobs[0], now_s), jobs[0]
    best = min(jobs, key=_shortfall)
    state = _state(jobs)
    like = best if best.state is state else next(job for job in jobs if job.state is state)
    views = [view(job, now_s) for job in jobs]
    shown, typical = views[jobs.index(best)], views[jobs.index(like)]
    moved = {
        entry.digest: entry.fact.bytes_in
        for job in jobs
        for entry in job.lineage
        if not isinstance(entry.fact, Origin)
    }
    open_ = sum(not job.state.final for job in jobs)
    ended = [job.ended_at_s for job in jobs if job.ended_at_s is not None]
    whole = msgspec.structs.replace(
        shown,
        state=state,
        sentence=state.sentence,
        detail=typical.detail
        if state.final
        else f"{typical.detail} ({open_} of {len(jobs)} travel)",
        error=typical.error,
        route=tuple(visit for one in views for visit in one.route),
        working=tuple(sorted({site for one in views for site in one.working})),
        setbacks=tuple(
            sorted((one for each in views for one in each.setbacks), key=attrgetter("at_s"))
        ),
        excluded=tuple(sorted(set.intersection(*(set(one.excluded) for one in views)))),
        seconds=max(one.seconds for one in views),
        bytes_moved=sum(moved.values()),
        cost_usd=sum(one.cost_usd for one in views),
        examples=sum(one.examples for one in views),
        ended_at_s=None if open_ else max(ended, default=None),
    )
    return whole, best


def _shortfall(job: Job) -> float:
    return job.shortfall(job.best) if job.best is not None else float("inf")


def _state(jobs: Sequence[Job]) -> JobState:
    """Reached as soon as one has; otherwise the state of the best that has not ended."""
    states = {job.state for job in jobs}
    if JobState.REACHED in states:
        return JobState.REACHED
    running = [job for job in jobs if not job.state.final]
    if running:
        return min(running, key=_shortfall).state
    return next(state for state in _ENDS if state in states)


def statements_of(
    events: Iterable[JobEvent], lineage: Iterable[Entry]
) -> tuple[SignedStatement, ...]:
    """Statements on a lineage that sites signed for outsiders, from a job's stored events."""
    signed = {
        one.outcome.entry.digest: one.statement
        for one in events
        if isinstance(one, Reported) and one.outcome.entry is not None and one.statement
    }
    made = [entry.digest for entry in lineage]
    return tuple(SignedStatement(entry=d, signed=signed[d]) for d in made if d in signed)


def decisions_of(histories: Iterable[Iterable[tuple[JobEvent, float]]]) -> tuple[Decided, ...]:
    """Every route decision in the stored events of a job's models, oldest first."""
    made = sorted((one for each in histories for one in decisions(each)), key=lambda one: one.at_s)
    return tuple(
        msgspec.structs.replace(one, number=number) for number, one in enumerate(made, start=1)
    )
