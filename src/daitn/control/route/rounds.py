"""Which sites train in the next round of a job, and which of them merges.

All eligible data sets take part whose owners' rules let the merged model travel to all of them, the
largest first. The models are merged at one of these sites, the one at which they, and from which
the verifiers, have what they need soonest: no server in the middle, and nobody sees an update that
does not train itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from daitn.control.route import pace
from daitn.control.route.chains import chains
from daitn.control.route.costs import NEVER_S, costs, overhead_s, transfer_s
from daitn.control.route.priors import guessed
from daitn.control.route.question import RouteQuestion, RouteStart
from daitn.control.route.task import jurisdiction_of
from daitn.control.route.trees import groups, most_members
from daitn.objects.access import allows, narrowed
from daitn.objects.compression import Compression
from daitn.objects.decisions import Decision, Group, PlannedVisit, Round, Scored
from daitn.objects.identifiers import SiteId
from daitn.objects.intents import Budget
from daitn.objects.lineage import MOST_VISITS
from daitn.objects.merging import AT_ONCE, Algorithm, MergeRule
from daitn.topology.snapshot import DataOption

__all__ = ["NextRound", "next_round"]

_PATIENCE = 10
"""Rounds without a smaller shortfall after which a job without a budget ends."""
_PATIENCE_WITH_BUDGET = 30
"""The same of a job with a budget, which may be all but endless."""
_BUFFER = 0.5
"""Share of the sites whose updates `fedbuff` merges at once: the faster half sets its pace."""
_CAUTION = -1.0
"""By so many standard deviations slower than expected a round's sites may be, see `costs`."""
_SLOW_LINK = 0.25
"""Share of what a visit takes from which on the way of its update is worth shortening: in 8 bits it
is a quarter as long, and no accuracy was seen to be lost by it."""
_MOST_AGGREGATORS = 256
"""Sites that are considered."""
_TOLD = 20


class NextRound(NamedTuple):
    """The next round, or why there is none."""

    round: Round | None
    decision: Decision
    why: str = ""
    """Without a round, where it is for good."""
    waits: str = ""
    """Without a round, where more sites would change it."""


def next_round(
    question: RouteQuestion,
    shortfalls: Sequence[float],
    behind: int = 0,
    busy: frozenset[str] = frozenset(),
) -> NextRound:
    """The round from the latest checkpoint, which must exist.

    `shortfalls`: of the job's checkpoints, oldest first, before any training and after each round.
    `behind`: entries of the lineage that made it. `busy`: data sets, by id, that train for an
    earlier round still, or whose late models this one merges.
    """
    intent, start = question.intent, question.checkpoints[0]
    assert start.model is not None
    patience = _PATIENCE if intent.budget == Budget() else _PATIENCE_WITH_BUDGET
    if _stalled(shortfalls, patience):
        return _none(question, why=f"{patience} rounds brought the targets no nearer")
    members = _members(question, start, busy)
    options = [option for option in members if option.id not in busy]
    rule = intent.training.rule
    needed = (rule.least_models if rule else None) or 1
    if len(members) < needed:
        name = intent.training.algorithm
        return _none(question, waits=f"{name} needs {needed} sites, {len(members)} can take part")
    stops, within = _stops(question, options) if options else ((), None)
    late = len(members) - len(options)
    if len(stops) + late < needed:
        return _none(question, why="the budget does not allow another round")
    if behind + len(stops) + 1 > MOST_VISITS:
        return _none(question, why=f"no site checks a lineage of over {MOST_VISITS} entries")
    merging = _aggregators(question, start, [option.site for option in members])
    algorithm = intent.training.algorithm
    assert rule is not None
    found = Round(start=start.model, visits=stops, aggregators=tuple(site for site, _ in merging))
    if algorithm is Algorithm.FEDSEQ:
        found = _in_chains(found, options)
    if algorithm not in AT_ONCE and not intent.training.secure_aggregation:
        buffered = algorithm is Algorithm.FEDBUFF
        found = msgspec.structs.replace(
            found,
            groups=_groups(question, start, stops, merging[0][0], rule),
            visits=_compressed(question, start, stops, merging[0][0]),
            enough=max(needed, math.ceil(_BUFFER * (len(stops) + late))) if buffered else 0,
            within_s=within,
        )
    return NextRound(found, _decision(question, found, merging))


def _members(question: RouteQuestion, start: RouteStart, busy: frozenset[str]) -> list[DataOption]:
    """Data sets that take part, by id; the rules of those that are busy bind all others."""
    release_to, members = start.release_to, list[DataOption]()
    places = set[str]()
    options = question.topology.options
    for option in sorted(options, key=lambda one: (one.id not in busy, -one.dataset.samples)):
        if option.site in question.excluded or not _reaches(question, start, option.site):
            continue
        within = narrowed(release_to, option.dataset.policy.release_to)
        there = places | {jurisdiction_of(question, option.site)}
        if all(allows(within, place) for place in there) and _is_measured(question, within):
            release_to, places = within, there
            members.append(option)
    most = most_members(question.intent.training.rule)
    return sorted(members[:most], key=lambda option: option.id)


def _reaches(question: RouteQuestion, start: RouteStart, site: SiteId) -> bool:
    """Whether a site is not known to be cut off from all holders of the model."""
    return site in start.holders or any(
        (site, holder) not in question.cut_off for holder in start.holders
    )


def _is_measured(question: RouteQuestion, release_to: tuple[str, ...]) -> bool:
    """Whether each objective has a verifier to which the merged model may travel."""
    return all(
        any(allows(release_to, jurisdiction_of(question, unit.site)) for unit in units)
        for units in question.topology.verifiers.values()
    )


def _stops(
    question: RouteQuestion, options: Sequence[DataOption]
) -> tuple[tuple[PlannedVisit, ...], float]:
    """The visits, shortened alike where the budget does not allow all; none if it allows none. And
    the seconds after which nobody is waited for."""
    intent, priced = question.intent, costs(question, options)
    wanted = [
        max(intent.training.epochs * option.dataset.samples, float(option.dataset.least_examples))
        for option in options
    ]
    parts = [1.0] * len(options)
    if intent.training.algorithm is not Algorithm.FEDBUFF:
        evened = pace.evened(wanted, priced)
        least = [float(option.dataset.least_examples) for option in options]
        parts = [max(n, m) / all_ for n, m, all_ in zip(evened, least, wanted, strict=True)]
    wanted = [n * part for n, part in zip(wanted, parts, strict=True)]
    budget, spent = intent.budget, question.spent
    usd = sum(float(each) * n for each, n in zip(priced.price_usd, wanted, strict=True))
    affordable = 1.0
    if budget.cost_usd is not None and usd > 0.0:
        affordable = min(1.0, (budget.cost_usd - spent.cost_usd) / usd)
    wanted = [
        n * affordable if price > 0.0 else n
        for n, price in zip(wanted, priced.price_usd, strict=True)
    ]
    share = 1.0
    if budget.examples is not None:
        share = min(1.0, (budget.examples - spent.examples) / max(1.0, sum(wanted)))
    amounts = [int(share * n + 1e-9) for n in wanted]
    seconds = priced.start_s[0] + priced.visit_s + priced.wait_s
    stops = tuple(
        PlannedVisit(
            site=option.site,
            dataset=option.dataset.name,
            examples=examples,
            expected_s=float(min(seconds[k] + priced.example_s[k] * examples, NEVER_S)),
            expected_cost_usd=float(priced.price_usd[k] * examples),
            expected={},
            release_to=option.dataset.policy.release_to,
            stands_for=int(examples / parts[k] + 0.5) if parts[k] < 1.0 else 0,
        )
        for k, (option, examples) in enumerate(zip(options, amounts, strict=True))
        if examples >= max(1, option.dataset.least_examples)
    )
    return stops, pace.within_s(amounts, priced, costs(question, options, hope=_CAUTION))


def _groups(
    question: RouteQuestion,
    start: RouteStart,
    stops: Sequence[PlannedVisit],
    at: SiteId,
    rule: MergeRule,
) -> tuple[Group, ...]:
    def takes_s(source: SiteId, target: SiteId) -> float:
        snapshot, size = question.topology.snapshot, start.size_bytes
        return transfer_s(snapshot, (source,), target, size, question.now_s)

    def place_of(site: SiteId) -> str:
        return jurisdiction_of(question, site)

    sites = [stop.site for stop in stops]
    merging_s = overhead_s(question.history) or guessed("overhead", question.experience, 0.0)
    return groups(sites, at, rule, takes_s, place_of, merging_s) if sites else ()


def _compressed(
    question: RouteQuestion, start: RouteStart, stops: Sequence[PlannedVisit], aggregator: SiteId
) -> tuple[PlannedVisit, ...]:
    """The visits, whose updates travel as the intent says, or in 8 bits where they take long."""
    wish, found = question.intent.training.compression, []
    for stop in stops:
        takes_s = transfer_s(
            question.topology.snapshot, (stop.site,), aggregator, start.size_bytes, question.now_s
        )
        form = Compression.INT8 if takes_s > _SLOW_LINK * stop.expected_s else Compression.NONE
        if wish is not Compression.AUTO:
            form = wish
        found.append(msgspec.structs.replace(stop, compression=form))
    return tuple(found)


def _in_chains(found: Round, options: Sequence[DataOption]) -> Round:
    """The round with its visits in chains."""
    labels = {(one.site, one.dataset.name): one.dataset.labels for one in options}
    members = chains([labels[stop.site, stop.dataset] for stop in found.visits])
    stops = [[found.visits[member] for member in chain] for chain in members]
    return msgspec.structs.replace(
        found,
        visits=tuple(first for first, *_ in stops),
        then=tuple(tuple(rest) for _, *rest in stops),
    )


def _aggregators(
    question: RouteQuestion, start: RouteStart, sites: Sequence[SiteId]
) -> list[tuple[SiteId, float]]:
    """Sites that take part, with the seconds until one that merges has all models and a verifier of
    each objective the result; soonest first."""
    snapshot, size, now_s = question.topology.snapshot, start.size_bytes, question.now_s

    def takes_s(site: SiteId) -> float:
        gathered = sum(transfer_s(snapshot, (other,), site, size, now_s) for other in sites)
        spread = [
            min(transfer_s(snapshot, (site,), unit.site, size, now_s) for unit in units)
            for units in question.topology.verifiers.values()
            if units
        ]
        return gathered + max(spread, default=0.0)

    seconds = {site: takes_s(site) for site in list(dict.fromkeys(sites))[:_MOST_AGGREGATORS]}
    return sorted(seconds.items(), key=lambda one: (one[1], one[0]))


def _stalled(shortfalls: Sequence[float], patience: int) -> bool:
    earlier, late = shortfalls[:-patience], shortfalls[-patience:]
    return bool(earlier) and min(late) >= min(earlier)


def _decision(
    question: RouteQuestion, found: Round, merging: Sequence[tuple[SiteId, float]]
) -> Decision:
    least = merging[0][1]
    ranking = tuple(
        Scored(
            candidate=_named(found, site),
            score=(1.0 + least) / (1.0 + seconds),
            terms={"time": (1.0 + least) / (1.0 + seconds)},
        )
        for site, seconds in merging[:_TOLD]
    )
    return _decided(question, _named(found, found.aggregators[0]), ranking)


def _named(found: Round, aggregator: SiteId) -> str:
    sites = {stop.site for chain in found.chains for stop in chain}
    chained = f" in {len(found.visits)} chains" if found.then else ""
    grouped = f" in {len(found.groups)} groups and the rest" if found.groups else ""
    return f"{len(sites)} sites{chained}{grouped}, merged at {aggregator}"


def _none(question: RouteQuestion, *, why: str = "", waits: str = "") -> NextRound:
    return NextRound(None, _decided(question, None, ()), why, waits)


def _decided(question: RouteQuestion, chosen: str | None, ranking: tuple[Scored, ...]) -> Decision:
    return Decision(
        policy="rounds",
        chosen=chosen,
        ranking=ranking,
        rejections=question.topology.rejections,
        snapshot_version=question.snapshot_version,
        at_s=question.now_s,
    )
