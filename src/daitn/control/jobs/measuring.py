"""From signed measurements to a checkpoint."""

from __future__ import annotations

from daitn.control.jobs.job import Candidate, Job
from daitn.objects.identifiers import Digest, ObjectiveName
from daitn.objects.jobs import Checkpoint, MadeVisit
from daitn.objects.lineage import Verification
from daitn.objects.models import ModelRef

__all__ = ["close_candidate", "measured"]


def measured(job: Job, candidate: Candidate, fact: Verification, entry: Digest) -> None:
    """Note one signed measurement; its verifier now holds the model too."""
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


def close_candidate(job: Job, now_s: float) -> Checkpoint:
    """Every objective is measured: the candidate becomes a checkpoint, its visit is on record."""
    candidate = job.candidate
    assert candidate is not None
    values = {name: fact.value for name, fact in candidate.measured.items()}
    path = candidate.base.visits if candidate.base else ()
    if candidate.visit is not None:
        path = (*path, len(job.made))
        job.made.append(_made_visit(candidate, values, now_s))
    checkpoint = Checkpoint(
        model=candidate.model,
        values=values,
        standard_error={n: fact.standard_error for n, fact in candidate.measured.items()},
        entries=tuple(candidate.entries),
        visits=path,
    )
    job.checkpoints.append(checkpoint)
    if job.best is checkpoint:
        job.verifications = dict(candidate.measured)
    job.candidate = None
    return checkpoint


def _made_visit(
    candidate: Candidate, values: dict[ObjectiveName, float], now_s: float
) -> MadeVisit:
    visit, base = candidate.visit, candidate.base
    assert visit is not None
    assert base is not None
    verifications = {fact.visit: fact for fact in candidate.measured.values()}
    return MadeVisit(
        site=visit.site,
        dataset=visit.dataset,
        work=visit.examples,
        seconds=visit.seconds,
        transfer_s=visit.transfer_s,
        overhead_s=visit.overhead_s,
        verify_s=now_s - candidate.made_at_s,
        bytes_in=visit.bytes_in + sum(fact.bytes_in for fact in verifications.values()),
        cost_usd=candidate.cost_usd,
        loss=visit.loss,
        values={str(name): value for name, value in values.items()},
        gains={str(name): value - base.values[name] for name, value in values.items()},
        model=candidate.model.manifest,
    )
