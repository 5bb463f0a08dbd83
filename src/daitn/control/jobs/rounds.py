"""A job's rounds: several sites train one model, and a site merges what they made of it.

(McMahan et al. 2017, arXiv:1602.05629.) A round goes on with the sites that are left when others
fail, and with another aggregator when that fails. It is merged once nobody is at work for it.
"""

from __future__ import annotations

import re

from daitn.control.jobs.job import Job, ModelCandidate, RoundInProgress
from daitn.control.jobs.measuring import contribution
from daitn.objects.access import narrowed
from daitn.objects.decisions import Round
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import SiteId, VisitId
from daitn.objects.lineage import Entry, Merge, Visit
from daitn.objects.merging import OuterStep
from daitn.objects.messages import MergeWork, VisitWork
from daitn.objects.models import ModelRef

__all__ = [
    "are_enough",
    "begin",
    "candidate_of",
    "contribute",
    "give_up_aggregator",
    "is_plain",
    "leave_out",
    "merge_work",
]

_OF_MODEL = re.compile(r"models\[(\d{1,4})\]")


def begin(job: Job, planned: Round) -> tuple[tuple[SiteId, VisitWork], ...]:
    """Begin a round; returns the work of its sites."""
    base = next(c for c in job.checkpoints if c.model.manifest == planned.start)
    works = [(stop, job.visit_work(stop, base)) for stop in planned.visits]
    if _remembers(job) is not planned.rule.outer:
        job.moments = None
    job.round = RoundInProgress(
        base=base,
        algorithm=planned.algorithm,
        rule=planned.rule,
        aggregators=list(planned.aggregators),
        stops={work.visit: stop for stop, work in works},
    )
    return tuple((stop.site, work) for stop, work in works)


def contribute(job: Job, entry: Entry, model: ModelRef) -> str:
    """Take what a site made. Returns why it is of no use to the round, if it is of none: data whose
    rules are stricter than those that were published would bind all others."""
    now, visit = job.round, entry.fact
    assert now is not None
    assert isinstance(visit, Visit)
    stop = now.stops[visit.visit]
    made = contribution(job, stop, visit, entry, model)
    if set(made.release_to) != set(stop.release_to):
        return "its data may not travel as far as it published"
    if visit.model_out in (now.base.model.manifest, *(one.visit.model_out for one in now.made)):
        return "it returned a model that was there"
    now.made.append(made)
    return ""


def merge_work(job: Job) -> tuple[SiteId, MergeWork] | None:
    """The work of the next aggregator; none where no site is left to merge."""
    now = job.round
    assert now is not None
    if not now.aggregators:
        return None
    models = tuple(one.model for one in now.made)
    work = MergeWork(
        visit=VisitId(job.next_visit_id()),
        job=job.id,
        recipe=job.intent.model.recipe,
        config=job.intent.model.config,
        seed=job.intent.model.seed + job.works,
        owner=job.intent.owner,
        base=now.base.model,
        trained=models,
        shares=tuple(one.visit.examples for one in now.made),
        rule=now.rule,
        previous=tuple(one.entry for one in now.made),
        moments=job.moments,
        purpose=job.intent.purpose,
        order=job.order,
        lineage=job.descent_of(now.base.model, *models),
    )
    return now.aggregators[0], work


def leave_out(job: Job, error: ErrorReport) -> SiteId | None:
    """Go on without the model that an aggregator complains of; returns who made it."""
    assert job.round is not None
    named = _OF_MODEL.fullmatch(error.field)
    number = int(named.group(1)) if named else len(job.round.made)
    if number >= len(job.round.made):
        return None
    return job.round.made.pop(number).visit.site


def give_up_aggregator(job: Job) -> None:
    """Have the next site merge."""
    assert job.round is not None
    del job.round.aggregators[:1]


def candidate_of(job: Job, entry: Entry, model: ModelRef) -> ModelCandidate:
    """The candidate of a round that was merged, or of its only visit."""
    now, fact = job.round, entry.fact
    assert now is not None
    if isinstance(fact, Merge) and fact.moments:
        job.moments = ModelRef(
            manifest=fact.moments, size_bytes=fact.moments_bytes, holders=(fact.site,)
        )
    release_to = now.base.release_to
    for one in now.made:
        release_to = narrowed(release_to, one.release_to)
    job.round = None
    return ModelCandidate(
        model=model,
        base=now.base,
        visits=tuple(now.made),
        release_to=release_to,
        parents=(entry.digest,),
        made_at=fact.site,
        round=job.rounds + 1,
        algorithm=now.algorithm,
        merged=fact if isinstance(fact, Merge) else None,
    )


def is_plain(job: Job) -> bool:
    """Whether a round with one model leaves that model."""
    assert job.round is not None
    rule = job.round.rule
    return (rule.outer, rule.rate) == (OuterStep.PLAIN, 1.0)


def are_enough(job: Job) -> bool:
    """Whether so many models were made that the rule tolerates those that may lie."""
    assert job.round is not None
    return len(job.round.made) >= (job.round.rule.least_models or 1)


def _remembers(job: Job) -> OuterStep | None:
    """The outer step of the latest model, if a merge made that; none otherwise."""
    latest = job.latest
    for entry in reversed(job.lineage):
        if isinstance(entry.fact, Merge):
            made_latest = latest is not None and entry.fact.model_out == latest.model.manifest
            return entry.fact.rule.outer if made_latest else None
    return None
