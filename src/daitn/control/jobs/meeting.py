"""Averaging a travelling model with weights that another model of its job left at the site.

Gossip learning (Ormandi, Hegedus and Jelasity 2013, doi:10.1002/cpe.2858): models walk from site to
site, learn at each, and are averaged with the one that was there before. There are no rounds and
nobody in the middle. Which visits are behind a model, its lineage tells, so each counts for what it
has learned and the other has not: no visit counts twice, however often they have met. (Hegedus,
Danner and Jelasity 2019, doi:10.1007/978-3-030-22496-7_5, whose models carry no lineage, count all
that is behind each. It was tried, and learned more slowly; see `benchmarks/gossip.py`.)

The model is averaged after it has learned at the site and before it is measured, so that what is
measured, and goes on, is not what one site alone made of it last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from daitn.control.jobs.commands import Commands
from daitn.control.jobs.failing import note_failure, reason_of
from daitn.control.jobs.job import Job
from daitn.control.jobs.outstanding import start
from daitn.control.jobs.stages import fail, plan, verify
from daitn.objects.access import narrowed
from daitn.objects.decisions import Route
from daitn.objects.descriptors import ANY
from daitn.objects.identifiers import Digest
from daitn.objects.jobs import JobState, LeftModel
from daitn.objects.lineage import Entry, Merge, Visit, descent, released, shares_of
from daitn.objects.merging import GOSSIP_RULE, Algorithm
from daitn.objects.messages import WorkOutcome, WorkState
from daitn.objects.wire import encode

__all__ = ["begin", "lose", "take", "unknown"]

MOST_LINEAGE_BYTES = 512 << 10
"""Bound on the lineage that a walker takes from another: everything it carries must fit into a
packet of 4 MiB."""


def unknown(job: Job, left: LeftModel, route: Route) -> LeftModel | None:
    """What a model left, without the lineage that the job has; none if meeting it at the first stop
    of a route gains nothing: it is this walker's own, everything it learned is known, it would
    restrict the model further, or its lineage is too large."""
    base = next((one for one in job.checkpoints if one.model.manifest == route.start), None)
    before = base.release_to if base is not None else (ANY,)
    bound = narrowed(before, route.visits[0].release_to)
    if left.walker == job.walker or _binds(left.entries, left.model.manifest, bound):
        return None
    known = {entry.digest for entry in job.lineage}
    entries = tuple(entry for entry in left.entries if entry.digest not in known)
    if not any(isinstance(entry.fact, Visit) for entry in entries):
        return None
    if len(encode(entries)) > MOST_LINEAGE_BYTES:
        return None
    return msgspec.structs.replace(left, entries=entries)


def _binds(entries: Sequence[Entry], model: Digest, release_to: tuple[str, ...]) -> bool:
    """Whether a model of these entries may travel less far than another one."""
    further = released(descent(entries, model))
    return set(narrowed(release_to, further)) != set(release_to)


def begin(job: Job) -> Commands:
    """Have the candidate averaged with the model left at its site; none if that would restrict it
    further, or is not another model of the job."""
    candidate, left = job.candidate, job.meets
    assert candidate is not None
    assert candidate.made_at is not None
    if left is None or not _suits(job, left):
        job.meets = None
        return ()
    job.lineage += left.entries
    models = candidate.model, left.model
    shares = shares_of(job.lineage, *(model.manifest for model in models))
    assert shares is not None
    work = job.merge_work(
        candidate.model,
        models,
        shares,
        GOSSIP_RULE,
        (*candidate.parents, left.entries[-1].digest),
        None,
    )
    job.state = JobState.MERGING
    job.detail = f"averaging with what another model left at {candidate.made_at}"
    price_usd_per_hour = job.stop.price_usd_per_hour if job.stop else 0.0
    return (start(job, candidate.made_at, work, price_usd_per_hour),)


def _suits(job: Job, left: LeftModel) -> bool:
    candidate = job.candidate
    assert candidate is not None
    last = left.entries[-1].fact
    of_job = all(each.fact.job == job.id for each in left.entries)
    if left.job != job.id or not of_job or not isinstance(last, Visit | Merge):
        return False
    entries = (*job.lineage, *left.entries)
    shares = shares_of(entries, candidate.model.manifest, left.model.manifest)
    if last.model_out != left.model.manifest or shares is None:
        return False
    return not _binds(entries, left.model.manifest, candidate.release_to)


def take(job: Job, outcome: WorkOutcome, now_s: float) -> Commands:
    """Have the average measured; or, if averaging failed, the result of the visit."""
    assert job.candidate is not None
    job.meets = None
    if outcome.state is WorkState.DONE:
        assert outcome.entry is not None
        assert outcome.model is not None
        job.lineage.append(outcome.entry)
        fact = outcome.entry.fact
        assert isinstance(fact, Merge)
        job.candidate = replace(
            job.candidate,
            model=outcome.model,
            parents=(outcome.entry.digest,),
            algorithm=Algorithm.GOSSIP,
            merged=fact,
        )
        return verify(job)
    error = reason_of(outcome)
    if (error.code, error.field) == ("InvalidInput", "training.algorithm"):
        return fail(job, error, now_s)
    note_failure(job, outcome.site, error)
    return verify(job)


def lose(job: Job) -> Commands:
    """Replan: the site has left, and the visit's result with it."""
    return plan(job)
