"""A job's rounds: several sites train one model, and one site merges the results.

(McMahan et al. 2017, arXiv:1602.05629.) A round goes on with the sites that are left when others
fail, and with another aggregator when that fails. It is merged once no site works on it, once
it has enough models, or once it is due and has half of them. Who is at work for it still is
*overdue*, and what such a visit makes is merged in the next round, in which it counts the less the
more rounds it is behind (Nguyen et al. 2022, "Federated learning with buffered asynchronous
aggregation", arXiv:2106.06639).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import NamedTuple

import msgspec

from daitn.control.jobs.failing import count_failure, note_failure
from daitn.control.jobs.job import (
    Contribution,
    GroupInProgress,
    Job,
    ModelCandidate,
    RoundInProgress,
    moments_of,
)
from daitn.control.jobs.measuring import contribution, deviates
from daitn.control.jobs.suspecting import objected, suspect, with_suspects_apart
from daitn.objects.access import narrowed
from daitn.objects.compression import Compression
from daitn.objects.decisions import Round
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import Digest, SiteId, VisitId
from daitn.objects.jobs import Checkpoint, JobState
from daitn.objects.lineage import Entry, Merge, Visit, rounds_behind
from daitn.objects.merging import MOST_BEHIND, MOST_MERGED, Algorithm, MergeRule, OuterStep
from daitn.objects.messages import MergeWork, VisitWork
from daitn.objects.models import ModelRef
from daitn.objects.secure_sum import LEAST_MEMBERS

__all__ = [
    "are_enough",
    "begin",
    "candidate_of",
    "close",
    "contribute",
    "due_at_s",
    "fail_to_merge",
    "give_up_aggregator",
    "give_up_models",
    "go_on",
    "has_own",
    "is_awaited",
    "leave_out",
    "merge_works",
    "only_model",
    "set_aside",
    "take_part",
    "without_own",
]

_LATE_TIMES = 2.0
"""Multiple of its expected time, at the pace of others, that a site may take. Visits of one site to
one data set differ by less, unless other work begins there."""
_LEAST_ROUND_S = 5.0
"""Minimum time before a round is due: a lost report is repeated after up to five seconds."""

_OF_HOLDER = ("InvalidInput", "NotFound", "Unreachable")
"""Errors about a model as a whole, its size or how it travels, which are its holder's."""
_OF_AGGREGATOR = ("NotFound", "Refused", "StorageFull", "Unreachable")
"""Errors in merging that do not come of the merged models."""
_OF_SUM = "training.secure_aggregation"
"""Field of errors of a secure sum for which too few members are left: who asks them in vain is not
to blame."""
_OF_MODEL = re.compile(r"models\[(\d{1,4})\]")


def begin(job: Job, planned: Round) -> tuple[tuple[SiteId, VisitWork], ...]:
    """Begin a round; returns the work of its sites."""
    planned = with_suspects_apart(job, _with_algorithm(job, planned))
    base = next(c for c in job.checkpoints if c.model.manifest == planned.start)
    works = [(stop, job.visit_work(stop, base, planned.algorithm)) for stop in planned.visits]
    if _remembers(job) is not planned.rule.outer:
        job.moments = None
    job.round = RoundInProgress(
        base=base,
        algorithm=planned.algorithm,
        rule=planned.rule,
        aggregators=list(planned.aggregators),
        stops={work.visit: stop for stop, work in works},
        then={
            work.visit: chain[1:] for (_, work), chain in zip(works, planned.chains, strict=True)
        },
        groups=[
            GroupInProgress(
                visits=frozenset(works[k][1].visit for k in group.visits),
                aggregators=list(group.aggregators),
            )
            for group in planned.groups
        ],
        enough=planned.enough,
        within_s=planned.within_s,
        began_at_s=job.at_s,
        prices_usd_per_hour={
            stop.site: stop.price_usd_per_hour for chain in planned.chains for stop in chain
        },
    )
    return tuple((stop.site, work) for stop, work in works)


def _with_algorithm(job: Job, planned: Round) -> Round:
    """The round with its algorithm and rule, which are missing in events of earlier versions."""
    stated = job.intent.training
    if planned.algorithm is not Algorithm.AUTO or stated.rule is None:
        return planned
    return msgspec.structs.replace(planned, algorithm=stated.algorithm, rule=stated.rule)


def contribute(job: Job, entry: Entry, model: ModelRef) -> None:
    """Take a site's result, late or not. A site whose data has stricter rules than published is
    not asked again: they would restrict all others. A model that was there may be an accident."""
    now, visit = job.round, entry.fact
    assert isinstance(visit, Visit)
    job.lineage.append(entry)
    late = job.overdue.pop(visit.visit, None)
    stop = late or (now.stops[visit.visit] if now else None)
    assert stop is not None
    made = contribution(job, stop, visit, entry, model)
    error = deviates(stop, made)
    if error or (error := _known(job, made)):
        for_good = error.code == "Refused"
        count_failure(job, visit.site, error, for_good=for_good, awaited=late is None)
    elif late is not None:
        job.late.append(made)
    else:
        assert now is not None
        now.latest[visit.visit] = replace(made, before=now.latest.get(visit.visit))
        now.took_s[visit.visit] = job.at_s - now.began_at_s


def _known(job: Job, made: Contribution) -> ErrorReport | None:
    """What is wrong with a model that the round has already; none if it has not."""
    known = {made.visit.model_in, *(one.visit.model_out for one in job.unmerged)}
    if job.round is not None:
        known.add(job.round.base.model.manifest)
    if made.visit.model_out not in known:
        return None
    return ErrorReport(code="WorkFailed", problem="it returned a model that was there")


def go_on(job: Job, visit: VisitId) -> tuple[tuple[SiteId, VisitWork], ...]:
    """The work after a visit that has ended, for whatever reason: the next visit of its chain,
    which starts from its result, or from its start model. A chain's last model is merged."""
    now = job.round
    assert now is not None
    latest = now.latest.pop(visit, None)
    if rest := now.then.pop(visit, ()):
        stop = rest[0]
        work = job.visit_work(stop, now.base, now.algorithm, latest)
        now.stops[work.visit], now.then[work.visit] = stop, rest[1:]
        if latest is not None:
            now.latest[work.visit] = latest
        return ((stop.site, work),)
    if latest is not None:
        now.made.append(latest)
    return ()


def due_at_s(job: Job) -> float | None:
    """When the current round should wait no longer, in seconds since the epoch; none if it waits
    indefinitely.

    Before half of its sites have reported, when the plan says. Afterwards, at `_LATE_TIMES` times
    what the slowest remaining site is expected to take at the pace of those that reported: a recipe
    that is slower than its estimate is so at all sites.
    """
    now = job.round
    if now is None or now.due or now.within_s is None or job.state is not JobState.VISITING:
        return None
    left = [stop.expected_s for visit, stop in now.stops.items() if _is_open(job, visit)]
    if not left:
        return None
    within_s = now.within_s
    if 2 * len(now.took_s) >= len(now.stops):
        paces = [took_s / now.stops[visit].expected_s for visit, took_s in now.took_s.items()]
        within_s = min(within_s, _LATE_TIMES * median(paces) * max(left))
    return now.began_at_s + max(within_s, _LEAST_ROUND_S)


def is_awaited(job: Job) -> bool:
    """Whether the round waits for more models."""
    now = job.round
    assert now is not None
    gathered = len(now.made) + len(_usable(job))
    at_work = any(_is_open(job, visit) for visit in now.stops)
    if gathered < _least_models(now):
        return at_work or bool(job.overdue)
    enough = now.enough or math.inf
    if now.due:
        enough = min(enough, math.ceil(len(now.stops) / 2))
    return at_work and gathered < enough


def close(job: Job) -> None:
    """Wait for no other model: working sites are overdue, and late models join this round."""
    now = job.round
    assert now is not None
    now.made += _usable(job)
    job.late.clear()
    job.overdue.update({visit: stop for visit, stop in now.stops.items() if _is_open(job, visit)})


def _is_open(job: Job, visit: VisitId) -> bool:
    return visit in job.outstanding and visit not in job.overdue


def _usable(job: Job) -> list[Contribution]:
    """Late models that the round may merge: not too old, and from data without a newer one in
    it."""
    now = job.round
    assert now is not None
    visited = {(one.visit.site, one.visit.dataset) for last in now.made for one in last.chain}
    return [
        one
        for one in job.late
        if (one.visit.site, one.visit.dataset) not in visited
        and (rounds := _behind(job, now.base, one)) is not None
        and rounds <= MOST_BEHIND
    ]


def _behind(job: Job, base: Checkpoint, made: Contribution) -> int | None:
    return rounds_behind(job.lineage, base.model.manifest, made.chain[0].visit.model_in)


def merge_works(job: Job) -> tuple[tuple[SiteId, MergeWork], ...]:
    """The merges that can begin: of groups, or of the round once all groups are merged; none if no
    site is left to merge, or if others in progress come first."""
    now = job.round
    assert now is not None
    found = []
    for group in now.groups:
        models = _of_group(job, group)
        if group.merging in job.outstanding or (group.merged and group.of == models):
            continue
        group.merged, group.merging, group.of = None, None, models
        alone = len(models) == len(now.made) <= MOST_MERGED
        if len(models) > 1 and group.aggregators and not alone:
            pieces = [_Piece(one.model, one.share, one.entry, alike=one.alike) for one in models]
            every = tuple(range(len(pieces)))
            work = _merge_work(job, pieces, MergeRule(), every, part=True)
            group.merging = work.visit
            found.append((_idle(job, group.aggregators), work))
    merging = any(group.merging in job.outstanding for group in now.groups)
    if found or merging or not now.aggregators:
        return tuple(found)
    for one, _ in _pieces(job)[MOST_MERGED:]:
        if isinstance(one, Contribution):  # Of a group that nobody is left to merge.
            now.made.remove(one)
    last = _pieces(job)
    # A mean of many is shorter than a single update, and the aggregator is not to blame for its
    # sites.
    single = tuple(k for k, (one, _) in enumerate(last) if isinstance(one, Contribution))
    work = _merge_work(job, [piece for _, piece in last], now.rule, single)
    return ((_idle(job, now.aggregators), work),)


class _Piece(NamedTuple):
    """A model to merge: from a visit or a group."""

    model: ModelRef
    share: int
    entry: Digest
    start: Digest | None = None
    """The model from which it was trained; none means the round's base."""
    alike: bool = False
    """See `Contribution`."""


def _of_group(job: Job, group: GroupInProgress) -> tuple[Contribution, ...]:
    """The group's models from the round's base."""
    assert job.round is not None
    return tuple(one for one in job.round.made if one.visit.visit in group.visits)


def _pieces(job: Job) -> list[tuple[Contribution | GroupInProgress, _Piece]]:
    """The pieces of the round's last merge, each with its makers."""
    now = job.round
    assert now is not None
    found: list[tuple[Contribution | GroupInProgress, _Piece]] = []
    in_groups = set[Digest]()
    for group in now.groups:
        if group.merged is not None:
            entry, fact, model = group.merged
            found.append((group, _Piece(model, sum(fact.shares), entry)))
            in_groups |= {one.entry for one in group.of}
    for one in now.made:
        if one.entry not in in_groups:
            start = one.chain[0].visit.model_in
            is_alike = all(each.alike for each in one.chain)
            piece = _Piece(one.model, one.share, one.entry, start, is_alike)
            found.append((one, piece))
    return found


def _merge_work(
    job: Job,
    pieces: Sequence[_Piece],
    rule: MergeRule,
    single: tuple[int, ...],
    *,
    part: bool = False,
) -> MergeWork:
    """`single`: which of the pieces a single site made."""
    assert job.round is not None
    base, models = job.round.base.model, tuple(piece.model for piece in pieces)
    starts, behind = _starts(job, pieces)
    return job.merge_work(
        base,
        models,
        tuple(piece.share for piece in pieces),
        rule,
        tuple(piece.entry for piece in pieces),
        None if part else job.moments,
        part=part,
        starts=starts,
        behind=behind,
        screened=len(single) == len(pieces),
        single=single if len(single) < len(pieces) else (),
        alike=tuple(piece.alike for piece in pieces) if single else (),
    )


def _starts(job: Job, pieces: Sequence[_Piece]) -> tuple[tuple[ModelRef, ...], tuple[int, ...]]:
    """The model from which each was trained, and how many rounds it is behind; empty if none is."""
    assert job.round is not None
    base = job.round.base.model.manifest
    starts = [piece.start or base for piece in pieces]
    behind = tuple(rounds_behind(job.lineage, base, start) or 0 for start in starts)
    if not any(behind):
        return (), ()
    known = {checkpoint.model.manifest: checkpoint.model for checkpoint in job.checkpoints}
    return tuple(known[start] for start in starts), behind


def _idle(job: Job, sites: Sequence[SiteId]) -> SiteId:
    """The best one that is not training; the best one if all are."""
    busy = {stop.site for stop in job.overdue.values()}
    return next((site for site in sites if site not in busy), sites[0])


def take_part(job: Job, entry: Entry, model: ModelRef) -> bool:
    """Take the merged model of a group; returns whether it is one."""
    fact = entry.fact
    if not (isinstance(fact, Merge) and fact.part):
        return False
    group = _group_of(job, fact.visit)
    if group is not None:
        group.merged, group.merging = (entry.digest, fact, model), None
    return True


def _group_of(job: Job, merging: VisitId) -> GroupInProgress | None:
    groups = job.round.groups if job.round else []
    return next((group for group in groups if group.merging == merging), None)


def leave_out(job: Job, merging: VisitId, error: ErrorReport) -> tuple[SiteId, ...] | None:
    """Continue without the model that an aggregator rejects; returns who may be at fault. A group's
    merged model is merged again by another site."""
    now = job.round
    assert now is not None
    named = _OF_MODEL.fullmatch(error.field)
    if named is None:
        return None
    number, group = int(named.group(1)), _group_of(job, merging)
    merged: list[Contribution | GroupInProgress] = (
        list(group.of) if group is not None else [one for one, _ in _pieces(job)]
    )
    if number >= len(merged):
        return None
    now.unable.clear()  # It may have been the reason.
    one = merged[number]
    withheld = error.code in _OF_HOLDER
    if isinstance(one, Contribution):
        now.made.remove(one)
        makers = one.chain[-1:] if withheld else one.chain
        return tuple(dict.fromkeys(each.visit.site for each in makers))
    assert one.merged is not None
    site = one.merged[1].site
    one.merged = None
    one.aggregators.remove(site)
    return (site,) if withheld else ()


def set_aside(job: Job, error: ErrorReport) -> bool:
    """Whether a merge failed because the recipe does not merge by the rule of an algorithm chosen
    by the network: it is not chosen again, and no site is to blame."""
    assert job.round is not None
    of_rule = (error.code, error.field) == ("InvalidInput", "training.algorithm")
    if not of_rule or job.intent.training.algorithm is not Algorithm.ADAPTIVE:
        return False
    job.unfit.add(job.round.algorithm)
    return True


def give_up_aggregator(job: Job, merging: VisitId, site: SiteId) -> None:
    """Have another site merge."""
    assert job.round is not None
    group = _group_of(job, merging)
    of = job.round.aggregators if group is None else group.aggregators
    if site in of:
        of.remove(site)
    if group is not None:
        group.merging = None


def fail_to_merge(job: Job, site: SiteId, error: ErrorReport) -> None:
    """Take note that a site failed to merge. That counts against it if another site can, or if it
    has nothing to do with what was to be merged."""
    assert job.round is not None
    if error.code in _OF_AGGREGATOR and error.field != _OF_SUM:
        count_failure(job, site, error)
    else:
        job.round.unable[site] = error
        note_failure(job, site, error)


def give_up_models(job: Job) -> ErrorReport | None:
    """Suspect who made what no site can merge. Returns the error if it is the rule's, for whatever
    models."""
    now = job.round
    assert now is not None
    if not now.unable:
        return None
    error = list(now.unable.values())[-1]
    makers = {one.visit.site for last in now.made for one in last.chain}
    site = suspect(job, makers, error)
    of_rule = error.code == "InvalidInput" and error.field.startswith("training.")
    return error if site and of_rule and objected(job, job.objections, site, error) else None


def _blame_unable(job: Job, now: RoundInProgress) -> None:
    """Count what sites failed to merge, and another one could. Members of a secure sum may have
    been away, and are back."""
    for site, error in now.unable.items():
        if error.field != _OF_SUM:
            job.failures[site] = job.failures.get(site, 0) + 1


def candidate_of(job: Job, entry: Entry, model: ModelRef) -> ModelCandidate:
    """The candidate of a merged round, or of its only visit."""
    now, fact = job.round, entry.fact
    assert now is not None
    if isinstance(fact, Merge):
        if fact.moments:
            job.moments = moments_of(fact)
        _blame_unable(job, now)
    parts = [group.merged[1] for group in now.groups if group.merged]
    release_to = now.base.release_to
    visits = tuple(one for last in now.made for one in last.chain)
    for one in visits:
        release_to = narrowed(release_to, one.release_to)
        if job.intent.training.local.variates:
            job.own[one.visit.site, one.visit.dataset] = _held_by(one.model, fact.site)
    job.round = None
    return ModelCandidate(
        model=model,
        base=now.base,
        visits=visits,
        release_to=release_to,
        parents=(entry.digest,),
        made_at=fact.site,
        round=job.rounds + 1,
        algorithm=now.algorithm,
        merged=fact if isinstance(fact, Merge) else None,
        parts=tuple(parts),
    )


def only_model(job: Job) -> Contribution | None:
    """The model of a round that needs no merging: its only one, trained from its base."""
    now = job.round
    assert now is not None
    if not now.rule.leaves_update or len(now.made) != 1:
        return None
    only = now.made[0]
    whole = only.visit.compression is Compression.NONE
    return only if whole and only.chain[0].visit.model_in == now.base.model.manifest else None


def _held_by(model: ModelRef, site: SiteId) -> ModelRef:
    """A model that a site has fetched as well."""
    holders = tuple(dict.fromkeys((*model.holders, site)))
    return msgspec.structs.replace(model, holders=holders)


def without_own(job: Job, visit: VisitId) -> tuple[SiteId, VisitWork]:
    """The work of a stop again, without its own earlier result, which its site and all others have
    lost."""
    now = job.round
    assert now is not None
    stop = now.stops.pop(visit)
    job.own.pop((stop.site, stop.dataset), None)
    work = job.visit_work(stop, now.base, now.algorithm)
    now.stops[work.visit], now.then[work.visit] = stop, now.then.pop(visit)
    return stop.site, work


def has_own(job: Job, visit: VisitId) -> bool:
    """Whether a visit of the round was given its site's earlier result."""
    stop = job.round.stops.get(visit) if job.round else None
    return stop is not None and (stop.site, stop.dataset) in job.own


def are_enough(job: Job) -> bool:
    """Whether enough models were made for the rule to tolerate the possible liars."""
    assert job.round is not None
    made, secure = job.round.made, job.intent.training.secure_aggregation
    if secure and len({one.visit.site for one in made}) < LEAST_MEMBERS:
        return False
    return len(made) >= _least_models(job.round)


def _least_models(now: RoundInProgress) -> int:
    return now.rule.least_models or 1


def _remembers(job: Job) -> OuterStep | None:
    """The outer step of the latest model, if a merge made it; none otherwise."""
    latest = job.latest
    for entry in reversed(job.lineage):
        if isinstance(entry.fact, Merge):
            made_latest = latest is not None and entry.fact.model_out == latest.model.manifest
            return entry.fact.rule.outer if made_latest else None
    return None
