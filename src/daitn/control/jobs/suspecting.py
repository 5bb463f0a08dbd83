"""Whom a fault is counted against: only a site that alone can have caused it.

Several sites make a chain's model, or a merged one. If it is faulty, none of them is blamed yet:
sites of a chain train apart from then on, and of the makers of a merged model half train in the
next round, then half of these, until one is left (adaptive group testing: Dorfman 1943,
doi:10.1214/aoms/1177731363). A site that takes part in a model that can be measured is suspected no
more. An aggregator is not blamed for what it was given; another one merges from then on.

Likewise, of a piece of work that one site fails at and another one does, the first is at fault; if
nobody can do it, who made what they were given is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from daitn.control.jobs.failing import count_failure, note_problem
from daitn.control.jobs.job import Job, ModelCandidate
from daitn.objects.decisions import PlannedVisit, Round
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import SiteId
from daitn.objects.lineage import Verification, left_by
from daitn.objects.merging import Algorithm
from daitn.objects.quorum import voice_of
from daitn.objects.secure_sum import LEAST_MEMBERS

__all__ = [
    "clear",
    "distrust",
    "makers_of",
    "objected",
    "suspect",
    "suspect_chain",
    "with_suspects_apart",
]

_ENOUGH_OBJECTIONS = 2
"""Owners whose sites must say so before what a model's owner wants counts as impossible: one may
lie."""
_NAMED = 8
"""Limit on sites named in an error."""


def makers_of(job: Job, candidate: ModelCandidate) -> set[SiteId]:
    """The sites of which any may have spoiled a candidate since its checkpoint."""
    makers = {one.visit.site for one in candidate.visits}
    if candidate.merged is not None and candidate.algorithm is Algorithm.GOSSIP:
        met = candidate.merged.models
        facts = [one.fact for one in job.lineage if not isinstance(one.fact, Verification)]
        makers |= {fact.site for fact in facts if left_by(fact) in met}
    return makers or ({candidate.made_at} if candidate.made_at else set())


def suspect(job: Job, makers: set[SiteId], error: ErrorReport) -> SiteId | None:
    """Take note of a fault that one of these sites caused. It counts against the only one that can
    have, who is returned."""
    job.suspects = (job.suspects & makers) or makers
    if len(job.suspects) > 1:
        _note_several(job, job.suspects, error)
        return None
    (site,) = job.suspects
    count_failure(job, site, error, awaited=False)
    return site


def suspect_chain(job: Job, makers: tuple[SiteId, ...], error: ErrorReport) -> None:
    """Take note of a fault of a chain's model: it counts against a chain's only site."""
    if len(makers) == 1:
        count_failure(job, makers[0], error)
    elif makers:
        job.apart.update(makers)
        _note_several(job, makers, error)


def _note_several(job: Job, makers: Collection[SiteId], error: ErrorReport) -> None:
    few = len(makers) <= _NAMED
    names = ", ".join(sorted(makers)) if few else f"{len(makers)} sites"
    job.error = msgspec.structs.replace(error, problem=f"of {names} together: {error.problem}")
    for site in sorted(makers) if few else ():
        note_problem(job, site, f"made with others, {error.problem}")


def distrust(job: Job, aggregator: SiteId, makers: Collection[SiteId]) -> bool:
    """Have others than this site merge from the next round on. `makers`: whose model it rejects;
    returns whether no site of its owner has rejected one of theirs before."""
    owner = voice_of(aggregator, job.owners)
    rejected = {
        site
        for one, found in job.distrusted.items()
        if voice_of(one, job.owners) == owner
        for site in found
    }
    job.distrusted.setdefault(aggregator, set()).update(makers)
    return rejected.isdisjoint(makers)


def clear(job: Job, candidate: ModelCandidate) -> None:
    """The makers of a model that was measured are suspected no more."""
    job.suspects -= makers_of(job, candidate)


def with_suspects_apart(job: Job, planned: Round) -> Round:
    """The round as it tells most about who is at fault, if something was."""
    if not (job.apart or job.suspects or job.distrusted):
        return planned
    chains: list[tuple[PlannedVisit, ...]] = []
    rest: list[tuple[PlannedVisit, ...]] = []  # Behind, since groups number the visits.
    for chain in planned.chains:
        sites = {stop.site for stop in chain}
        if len(chain) > 1 and sites & (job.apart | job.suspects):
            chains.append(chain[:1])
            rest += [(stop,) for stop in chain[1:]]
        else:
            chains.append(chain)
    chains += rest
    groups = tuple(
        msgspec.structs.replace(group, aggregators=_trusted_first(job, group.aggregators))
        for group in planned.groups
    )
    if tested := _tested(job, planned, [stop.site for chain in chains for stop in chain]):
        chains, groups = [chain for chain in chains if chain[0].site in tested], ()
    return msgspec.structs.replace(
        planned,
        visits=tuple(chain[0] for chain in chains),
        then=tuple(chain[1:] for chain in chains),
        groups=groups,
        aggregators=_trusted_first(job, planned.aggregators),
    )


def _trusted_first(job: Job, aggregators: Sequence[SiteId]) -> tuple[SiteId, ...]:
    return tuple(sorted(aggregators, key=lambda site: site in job.distrusted))


def _tested(job: Job, planned: Round, sites: list[SiteId]) -> set[SiteId]:
    """The sites of a round that is to tell which suspect is at fault: half of these, and others
    only if the way of merging needs more models."""
    suspects = [site for site in dict.fromkeys(sites) if site in job.suspects]
    if not suspects:
        return set()
    half = max(1, len(suspects) // 2)
    least = LEAST_MEMBERS if job.intent.training.secure_aggregation else 1
    least = max(least, planned.rule.least_models or 1)
    others = [site for site in dict.fromkeys(sites) if site not in job.suspects]
    return set([*suspects[:half], *others, *suspects[half:]][: max(half, least)])


def objected(job: Job, against: dict[SiteId, ErrorReport], site: SiteId, why: ErrorReport) -> bool:
    """Take note in `against`, one of the job's, that by this site what the owner wants is
    impossible; returns whether the sites of enough owners say so."""
    against[site] = why
    return len({voice_of(one, job.owners) for one in against}) >= _ENOUGH_OBJECTIONS
