"""A job's question to MTRCE: its checkpoints and experience in the route engine's terms."""

from __future__ import annotations

import msgspec

from daitn.control.jobs.job import Job
from daitn.control.route.question import (
    Believed,
    PastVisit,
    RouteQuestion,
    RouteStart,
    Spent,
)
from daitn.objects.identifiers import ObjectiveName
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import Checkpoint, VisitView, WorkNeeds
from daitn.objects.lineage import descent
from daitn.objects.merging import Algorithm
from daitn.topology.snapshot import MsDrrt

__all__ = ["first_question", "route_question", "starts"]


def first_question(
    intent: TrainingIntent, needs: WorkNeeds, topology: MsDrrt, now_s: float
) -> RouteQuestion:
    """The question of a job that has not begun: what T-FAM assesses."""
    return RouteQuestion(
        intent=intent,
        topology=topology,
        flops_per_example=needs.flops_per_example,
        checkpoints=(_fresh(needs),),
        experience=_experience(needs),
        merges=needs.merges,
        unfit=_unfit(needs),
        now_s=now_s,
    )


def route_question(job: Job, topology: MsDrrt, now_s: float) -> RouteQuestion:
    """The model's location, the measurements so far, and the spending."""
    found = starts(job)
    continued = {position for start in found for position in start.visits}
    return RouteQuestion(
        intent=msgspec.structs.replace(job.intent, budget=job.budget),
        topology=topology,
        flops_per_example=job.needs.flops_per_example,
        checkpoints=tuple(_checkpoint(job, start) for start in found) or (_fresh(job.needs),),
        history=tuple(_visit(job, visit, i not in continued) for i, visit in enumerate(job.made)),
        spent=Spent(
            duration_s=now_s - job.began_at_s,
            # Overdue work counts as spent, and the result of a visit must be measured.
            cost_usd=job.spent_usd
            + job.check_usd
            + sum(stop.expected_cost_usd for stop in job.overdue.values()),
            examples=job.spent_examples + sum(stop.examples for stop in job.overdue.values()),
        ),
        verify_s=job.verify_s,
        insisted=job.insist,
        experience=_experience(job.needs),
        cut_off=frozenset(job.cut_off),
        excluded=job.excluded,
        merges=_can_merge(job),
        busy=job.busy,
        unfit=frozenset(job.unfit) | _unfit(job.needs),
        shortfalls=tuple(map(job.shortfall, job.checkpoints)),
        behind=len(descent(job.lineage, job.latest.model.manifest)) if job.latest else 0,
        now_s=now_s,
    )


def _can_merge(job: Job) -> bool:
    """Whether the latest model can be trained by several sites and merged. A fresh model is made by
    the first visit of a route, which some recipes also need to train."""
    if not job.needs.merges or job.latest is None:
        return False
    return job.needs.merges_fresh or job.start is not None or bool(job.latest.visits)


def _unfit(needs: WorkNeeds) -> frozenset[Algorithm]:
    return frozenset(one for one in Algorithm if not needs.trains_by(one))


def _experience(needs: WorkNeeds) -> dict[str, Believed]:
    """The recipe's report about its visits; the control centre adds earlier jobs' lessons."""
    return {name: Believed(mean, sd) for name, (mean, sd) in needs.learning.items()}


def starts(job: Job) -> tuple[Checkpoint, ...]:
    """The models from which a route may continue.

    The latest, the best, and per release rule not covered by these, the best with that rule.
    """
    found = [one for one in (job.latest, job.best) if one is not None]
    for release_to in dict.fromkeys(one.release_to for one in job.checkpoints):
        alike = [one for one in job.checkpoints if one.release_to == release_to]
        if all(one.release_to != release_to for one in found):
            found.append(min(reversed(alike), key=job.shortfall))
    return tuple({one.model.manifest: one for one in found}.values())


def _fresh(needs: WorkNeeds) -> RouteStart:
    return RouteStart(model=None, size_bytes=needs.size_bytes)


def _checkpoint(job: Job, start: Checkpoint) -> RouteStart:
    return RouteStart(
        model=start.model.manifest,
        size_bytes=start.model.size_bytes,
        holders=start.model.holders,
        values={str(name): value for name, value in start.values.items()},
        visits=tuple(_visit(job, job.made[position], False) for position in start.visits),
        release_to=start.release_to,
    )


def _visit(job: Job, made: VisitView, abandoned: bool) -> PastVisit:
    before = {name: made.values[name] - gain for name, gain in made.gains.items()}
    measured = next((c for c in job.checkpoints if c.model.manifest == made.model), None)
    errors = measured.standard_error if measured else {}
    by_label = measured.by_label if measured else {}
    return PastVisit(
        option_id=f"{made.site}/{made.dataset}",
        examples=made.work,
        seconds=made.seconds,
        before=before,
        after=made.values,
        standard_error={name: errors.get(ObjectiveName(name), 0.0) for name in made.values},
        by_label={str(name): labels for name, labels in by_label.items()},
        transfer_s=made.transfer_s,
        overhead_s=made.overhead_s,
        verify_s=made.verify_s,
        abandoned=abandoned,
        round=made.round,
        algorithm=made.algorithm,
    )
