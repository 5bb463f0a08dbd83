"""What a job asks MTRCE: its checkpoints and its experience, in the route engine's terms."""

from __future__ import annotations

from daitn.control.jobs.job import Job
from daitn.control.route.question import Checkpoint, RouteQuestion, Spent, VisitMade, narrowed
from daitn.objects.descriptors import ANY
from daitn.objects.identifiers import ObjectiveName
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import Checkpoint as VerifiedModel
from daitn.objects.jobs import MadeVisit, WorkNeeds
from daitn.topology.snapshot import MsDrrt

__all__ = ["first_question", "route_question"]


def first_question(
    intent: TrainingIntent, needs: WorkNeeds, topology: MsDrrt, now_s: float
) -> RouteQuestion:
    """The question of a job that has not begun: what T-FAM assesses."""
    return RouteQuestion(
        intent=intent,
        topology=topology,
        flops_per_example=needs.flops_per_example,
        checkpoints=(Checkpoint(model=None, size_bytes=needs.size_bytes),),
        now_s=now_s,
    )


def route_question(job: Job, topology: MsDrrt, now_s: float) -> RouteQuestion:
    """Where the model stands, what was measured and what is spent."""
    made = job.made
    latest, best = job.latest, job.best
    starts: tuple[VerifiedModel, ...] = ()
    if latest is not None and best is not None:
        starts = (latest,) if latest is best else (latest, best)
    kept = {position for start in starts for position in start.visits}
    if not starts:
        return first_question(job.intent, job.needs, topology, now_s)
    return RouteQuestion(
        intent=job.intent,
        topology=topology,
        flops_per_example=job.needs.flops_per_example,
        checkpoints=tuple(_checkpoint(job, start, topology) for start in starts),
        history=tuple(_visit(job, visit, i not in kept) for i, visit in enumerate(made)),
        spent=Spent(
            duration_s=now_s - job.submitted_at_s,
            cost_usd=sum(visit.cost_usd for visit in made),
            examples=sum(visit.work for visit in made),
        ),
        verify_s=made[-1].verify_s if made else 0.0,
        excluded=job.excluded,
        now_s=now_s,
    )


def _checkpoint(job: Job, start: VerifiedModel, topology: MsDrrt) -> Checkpoint:
    visits = tuple(_visit(job, job.made[position], False) for position in start.visits)
    release_to: tuple[str, ...] = (ANY,)
    for position in start.visits:
        release_to = narrowed(release_to, _release_to(job.made[position], topology))
    return Checkpoint(
        model=start.model.manifest,
        size_bytes=start.model.size_bytes,
        holders=start.model.holders,
        values={str(name): value for name, value in start.values.items()},
        visits=visits,
        release_to=release_to,
    )


def _release_to(made: MadeVisit, topology: MsDrrt) -> tuple[str, ...]:
    """Where a model that learned there may go; the policy outlives the site's presence."""
    state = topology.snapshot.sites.get(made.site)
    for dataset in state.descriptor.datasets if state else ():
        if dataset.name == made.dataset:
            return dataset.policy.release_to
    return (ANY,)


def _visit(job: Job, made: MadeVisit, abandoned: bool) -> VisitMade:
    before = {name: made.values[name] - gain for name, gain in made.gains.items()}
    errors = next((c.standard_error for c in job.checkpoints if c.model.manifest == made.model), {})
    return VisitMade(
        option_id=f"{made.site}/{made.dataset}",
        examples=made.work,
        seconds=made.seconds,
        before=before,
        after=made.values,
        standard_error={name: errors.get(ObjectiveName(name), 0.0) for name in made.values},
        abandoned=abandoned,
    )
