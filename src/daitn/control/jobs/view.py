"""A job as people and scripts see it."""

from __future__ import annotations

import itertools

from daitn.control.jobs.job import Job
from daitn.objects.identifiers import ObjectiveName, SiteId
from daitn.objects.jobs import JobView, ObjectiveView
from daitn.objects.lineage import Origin

__all__ = ["algorithm", "view"]


def algorithm(sites: tuple[SiteId, ...]) -> str:
    """`cyclic` for a route that comes back to a site that it left, `sequential` for any other."""
    stays = [site for site, _ in itertools.groupby(sites)]
    return "sequential" if len(set(stays)) == len(stays) else "cyclic"


def view(job: Job, now_s: float) -> JobView:
    """The job at `now_s`."""
    best = job.best
    ended_at_s = now_s if job.ended_at_s is None else job.ended_at_s
    return JobView(
        job=job.id,
        name=job.intent.name,
        owner=job.intent.owner,
        recipe=job.intent.model.recipe,
        state=job.state,
        sentence=job.state.sentence,
        detail=job.detail,
        algorithm=algorithm(tuple(made.site for made in job.made)),
        objectives=_objectives(job),
        route=tuple(job.made),
        planned=job.planned,
        working=tuple(sorted({o.site for o in job.outstanding.values()})),
        excluded=job.excluded,
        untrained={str(n): v for n, v in job.checkpoints[0].values.items()}
        if job.checkpoints
        else {},
        seconds=ended_at_s - job.submitted_at_s,
        bytes_moved=_bytes_moved(job),
        cost_usd=job.spent_usd,
        examples=job.spent_examples,
        model=best.model if best else None,
        assessment=job.assessment,
        decision=job.decision,
        error=job.error,
        submitted_at_s=job.submitted_at_s,
        ended_at_s=job.ended_at_s,
        needs=job.needs,
    )


def _objectives(job: Job) -> tuple[ObjectiveView, ...]:
    shown = []
    for objective in job.intent.objectives:
        fact = job.verifications.get(ObjectiveName(objective.name))
        shown.append(
            ObjectiveView(
                name=objective.name,
                metric=objective.metric,
                topic=objective.topic,
                target=objective.at_least,
                reached=fact.value if fact else None,
                standard_error=fact.standard_error if fact else None,
                items=fact.items if fact else None,
                verifier=fact.site if fact else None,
            )
        )
    return tuple(shown)


def _untrained(job: Job) -> dict[str, float]:
    first = job.checkpoints[0].values if job.checkpoints else {}
    return {str(name): value for name, value in first.items()}


def _bytes_moved(job: Job) -> int:
    """Bytes that travelled to sites and verifiers, of all facts on record."""
    facts = [entry.fact for entry in job.lineage]
    return sum(fact.bytes_in for fact in facts if not isinstance(fact, Origin))
