"""From signed measurements to a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from daitn.control.accounting.training import of_visit, price_of_visit
from daitn.control.agreeing import Consensus, agreed
from daitn.control.jobs.failing import count_verifiers, note_problem
from daitn.control.jobs.job import Contribution, Job, ModelCandidate
from daitn.control.jobs.suspecting import clear
from daitn.objects.access import narrowed
from daitn.objects.decisions import PlannedVisit
from daitn.objects.descriptors import ANY
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import Digest, ObjectiveName
from daitn.objects.jobs import Checkpoint, VisitView
from daitn.objects.lineage import Entry, Verification, Visit
from daitn.objects.models import ModelRef
from daitn.objects.quorum import Disagreement

__all__ = ["close_candidate", "contribution", "deviates", "made_candidate", "measured"]


def made_candidate(job: Job, entry: Entry, model: ModelRef) -> ModelCandidate:
    """The candidate of a finished visit; its cost counts as spent in any case."""
    fact = entry.fact
    release_to = job.base.release_to if job.base else (ANY,)
    visits: tuple[Contribution, ...] = ()
    if isinstance(fact, Visit) and job.stop is not None:
        visits = (contribution(job, job.stop, fact, entry, model),)
        release_to = narrowed(release_to, visits[0].release_to)
    return ModelCandidate(
        model=model,
        base=job.base,
        visits=visits,
        release_to=release_to,
        parents=(entry.digest,),
        made_at=fact.site,
    )


def contribution(
    job: Job, stop: PlannedVisit, visit: Visit, entry: Entry, model: ModelRef
) -> Contribution:
    """The result of a finished visit; its cost counts as spent in any case. The stricter one of the
    published and the signed rules of its data applies."""
    usd = price_of_visit(stop, visit, max(0.0, job.at_s - job.began_at_s), job.left_usd)
    job.spent_usd += float(usd)
    job.spent_examples += visit.examples
    job.entries.append(of_visit(job.intent.owner, visit, usd, job.at_s))
    release_to = narrowed(stop.release_to, visit.release_to)
    return Contribution(visit, entry.digest, model, float(usd), release_to, stop.alike)


def deviates(stop: PlannedVisit, made: Contribution) -> ErrorReport | None:
    """How a visit's signed terms are stricter than those that its plan is based on; none if they
    are not."""
    if set(made.release_to) == set(stop.release_to):
        return None
    problem = "its data may not travel as far as it published"
    return ErrorReport(code="Refused", problem=problem, field="release_to")


def measured(
    job: Job, candidate: ModelCandidate, fact: Verification, entry: Digest
) -> ObjectiveName:
    """Record one signed measurement; its verifier now holds the model too. Once enough verifiers
    agree on its objective, the objective is measured, and the verifiers that contradict them are
    named."""
    name = next(
        ObjectiveName(objective.name)
        for objective in job.intent.objectives
        if (objective.topic, objective.metric) == (fact.topic, fact.metric)
    )
    received = candidate.received.setdefault(name, [])
    received.append(fact)
    found = agreed(received)
    if len(found.agreeing) >= job.intent.quorum.quorum:
        candidate.measured[name] = found.fact
        for other in found.others:
            _contradicted(job, name, other, found)
    candidate.entries.append(entry)
    holders = candidate.model.holders
    if fact.site not in holders:
        candidate.model = ModelRef(
            manifest=candidate.model.manifest,
            size_bytes=candidate.model.size_bytes,
            holders=(*holders, fact.site),
        )
    return name


def _contradicted(job: Job, objective: ObjectiveName, fact: Verification, found: Consensus) -> None:
    disagreement = Disagreement(
        site=fact.site,
        objective=objective,
        value=fact.value,
        items=fact.items,
        agreed=found.fact.value,
        others=len(found.agreeing),
        at_s=job.at_s,
    )
    job.disagreements.append(disagreement)
    note_problem(job, fact.site, str(disagreement))


def close_candidate(job: Job) -> Checkpoint:
    """Turn the fully measured candidate into a checkpoint, and record its visit."""
    candidate = job.candidate
    assert candidate is not None
    values = {name: fact.value for name, fact in candidate.measured.items()}
    verifications = candidate.measured.values()
    job.verify_s = _believed_s(job, max(fact.seconds for fact in verifications))
    job.check_usd, job.checked_usd = job.checked_usd, 0.0
    job.waits, job.stuck_since_s, job.without_progress = 0, None, 0
    path = candidate.base.visits if candidate.base else ()
    path = (*path, *range(len(job.made), len(job.made) + len(candidate.visits)))
    job.made.extend(_made_visits(job, candidate, values))
    checkpoint = Checkpoint(
        model=candidate.model,
        values=values,
        standard_error={n: fact.standard_error for n, fact in candidate.measured.items()},
        entries=tuple(candidate.entries),
        release_to=candidate.release_to,
        visits=path,
        by_label={n: fact.by_label for n, fact in candidate.measured.items() if fact.by_label},
    )
    clear(job, candidate)
    count_verifiers(job, candidate.asked_in_vain - candidate.refused)
    if not job.checkpoints:
        job.untrained = values
    job.checkpoints.append(checkpoint)
    if job.best is checkpoint:
        job.verifications = dict(candidate.measured)
    job.candidate = None
    return checkpoint


def _believed_s(job: Job, stated_s: float) -> float:
    """Duration as stated by a site, at most that of the job."""
    return min(stated_s, job.at_s - job.submitted_at_s)


def _made_visits(
    job: Job, candidate: ModelCandidate, values: dict[ObjectiveName, float]
) -> Iterator[VisitView]:
    """In a round, the first visit carries the bytes of merging and measuring."""
    base = candidate.base
    verifications = {fact.visit: fact for fact in candidate.measured.values()}
    common_bytes = sum(fact.bytes_in for fact in verifications.values())
    verify_s = max(fact.seconds + fact.transfer_s for fact in verifications.values())
    merges = [*candidate.parts, *([candidate.merged] if candidate.merged else [])]
    common_bytes += sum(merge.bytes_in for merge in merges)
    for one in candidate.visits:
        assert base is not None
        visit = one.visit
        yield VisitView(
            site=visit.site,
            dataset=visit.dataset,
            work=visit.examples,
            seconds=_believed_s(job, visit.seconds),
            transfer_s=_believed_s(job, visit.transfer_s),
            overhead_s=_believed_s(job, visit.overhead_s),
            verify_s=_believed_s(job, verify_s),
            bytes_in=visit.bytes_in + common_bytes,
            cost_usd=one.cost_usd,
            loss=visit.loss,
            privacy=visit.privacy,
            values={str(name): value for name, value in values.items()},
            gains={str(name): value - base.values[name] for name, value in values.items()},
            model=candidate.model.manifest,
            round=candidate.round,
            algorithm=candidate.algorithm,
        )
        common_bytes = 0
