"""From signed measurements to a checkpoint."""

from __future__ import annotations

from daitn.control.jobs.job import Job, ModelCandidate
from daitn.objects.access import narrowed
from daitn.objects.descriptors import ANY
from daitn.objects.identifiers import Digest, ObjectiveName
from daitn.objects.jobs import Checkpoint, VisitView
from daitn.objects.lineage import Entry, Verification, Visit
from daitn.objects.models import ModelRef

__all__ = ["close_candidate", "made_candidate", "measured"]


def made_candidate(job: Job, entry: Entry, model: ModelRef) -> ModelCandidate:
    """The candidate of a finished visit; its cost counts as spent whatever becomes of it."""
    visit = entry.fact if isinstance(entry.fact, Visit) else None
    cost_usd = 0.0
    release_to = job.base.release_to if job.base else (ANY,)
    if visit is not None and job.stop is not None:
        cost_usd = job.stop.expected_cost_usd * visit.examples / job.stop.examples
        release_to = narrowed(release_to, job.stop.release_to)
        job.spent_usd += cost_usd
        job.spent_examples += visit.examples
    return ModelCandidate(
        model=model,
        base=job.base,
        visit=visit,
        cost_usd=cost_usd,
        release_to=release_to,
        parents=(entry.digest,),
        made_at=entry.fact.site,
    )


def measured(job: Job, candidate: ModelCandidate, fact: Verification, entry: Digest) -> None:
    """Record one signed measurement; its verifier now holds the model too."""
    for objective in job.intent.objectives:
        if (objective.topic, objective.metric) == (fact.topic, fact.metric):
            candidate.measured[ObjectiveName(objective.name)] = fact
    candidate.entries.append(entry)
    holders = candidate.model.holders
    if fact.site not in holders:
        candidate.model = ModelRef(
            manifest=candidate.model.manifest,
            size_bytes=candidate.model.size_bytes,
            holders=(*holders, fact.site),
        )


def close_candidate(job: Job) -> Checkpoint:
    """Turn the fully measured candidate into a checkpoint, and record its visit."""
    candidate = job.candidate
    assert candidate is not None
    values = {name: fact.value for name, fact in candidate.measured.items()}
    verifications = candidate.measured.values()
    job.verify_s = max(fact.seconds for fact in verifications)
    job.waits, job.stuck_since_s, job.without_progress = 0, None, 0
    path = candidate.base.visits if candidate.base else ()
    if candidate.visit is not None:
        path = (*path, len(job.made))
        job.made.append(_made_visit(candidate, values))
    checkpoint = Checkpoint(
        model=candidate.model,
        values=values,
        standard_error={n: fact.standard_error for n, fact in candidate.measured.items()},
        entries=tuple(candidate.entries),
        release_to=candidate.release_to,
        visits=path,
        by_label={n: fact.by_label for n, fact in candidate.measured.items() if fact.by_label},
    )
    job.checkpoints.append(checkpoint)
    if job.best is checkpoint:
        job.verifications = dict(candidate.measured)
    job.candidate = None
    return checkpoint


def _made_visit(candidate: ModelCandidate, values: dict[ObjectiveName, float]) -> VisitView:
    visit, base = candidate.visit, candidate.base
    assert visit is not None
    assert base is not None
    verifications = {fact.visit: fact for fact in candidate.measured.values()}
    return VisitView(
        site=visit.site,
        dataset=visit.dataset,
        work=visit.examples,
        seconds=visit.seconds,
        transfer_s=visit.transfer_s,
        overhead_s=visit.overhead_s,
        verify_s=max(fact.seconds + fact.transfer_s for fact in candidate.measured.values()),
        bytes_in=visit.bytes_in + sum(fact.bytes_in for fact in verifications.values()),
        cost_usd=candidate.cost_usd,
        loss=visit.loss,
        values={str(name): value for name, value in values.items()},
        gains={str(name): value - base.values[name] for name, value in values.items()},
        model=candidate.model.manifest,
    )
