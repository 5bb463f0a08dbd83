"""Which sites train in the next round of a job, and which of them merges.

All eligible data sets take part whose owners' rules let the merged model travel to all of them, the
largest first. The models are merged at one of these sites, the one at which they, and from which
the verifiers, have what they need soonest: no server in the middle, and nobody sees an update that
does not train itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from daitn.control.route.costs import NEVER_S, Costs, costs, overhead_s, transfer_s
from daitn.control.route.priors import guessed
from daitn.control.route.question import RouteQuestion, RouteStart
from daitn.control.route.task import jurisdiction_of
from daitn.control.route.value_model import Floats
from daitn.objects.access import allows, narrowed
from daitn.objects.decisions import Decision, PlannedVisit, Round, Scored
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.intents import Budget
from daitn.objects.lineage import MOST_VISITS
from daitn.objects.merging import MOST_MERGED, Algorithm, MergeRule
from daitn.topology.snapshot import DataOption

__all__ = ["Members", "NextRound", "members", "next_round"]

_PATIENCE = 10
"""Rounds without a smaller shortfall after which a job without a budget ends."""
_PATIENCE_WITH_BUDGET = 30
"""The same of a job with a budget, which may be all but endless."""
_TOLD = 20


class NextRound(NamedTuple):
    """The next round, or why there is none."""

    round: Round | None
    decision: Decision
    why: str = ""
    """Without a round, where it is for good."""
    waits: str = ""
    """Without a round, where more sites would change it."""
    seconds: float = NEVER_S
    """Expected, from giving the work until the merged model is measured."""


class Members(NamedTuple):
    """Who can take part in rounds from the latest checkpoint, whatever the algorithm."""

    options: Sequence[DataOption]
    priced: Costs
    merging: Sequence[tuple[SiteId, float]]
    """Their sites, with the seconds that the models' ways take where one merges; soonest first."""


def members(question: RouteQuestion) -> Members:
    """Who can take part now: takes the longest of what a round is planned by."""
    start = question.checkpoints[0]
    options = _members(question, start)
    merging = _aggregators(question, start, [option.site for option in options])
    return Members(options, costs(question, options), merging)


def next_round(
    question: RouteQuestion,
    algorithm: Algorithm,
    rule: MergeRule,
    part: float = 1.0,
    among: Members | None = None,
) -> NextRound:
    """The round from the latest checkpoint, which may be a model that is still to be made.

    `part`: of what the intent says that each site trains in a round; `among`: the question's
    members, where they are known.
    """
    intent, start = question.intent, question.checkpoints[0]
    patience = _PATIENCE if intent.budget == Budget() else _PATIENCE_WITH_BUDGET
    if _stalled(question.shortfalls, patience):
        return _none(question, why=f"{patience} rounds brought the targets no nearer")
    options, priced, merging = among or members(question)
    needed = rule.least_models or 1
    if len(options) < needed:
        return _none(
            question, waits=f"{algorithm} needs {needed} sites, {len(options)} can take part"
        )
    stops, seconds = _stops(question, options, priced, part)
    if len(stops) < needed:
        return _none(question, why="the budget does not allow another round")
    if question.behind + len(stops) + 1 > MOST_VISITS:
        return _none(question, why=f"no site checks a lineage of over {MOST_VISITS} entries")
    training = {stop.site for stop in stops}
    merging = [one for one in merging if one[0] in training]
    found = Round(
        start=start.model or Digest(""),
        visits=stops,
        aggregators=tuple(site for site, _ in merging),
        algorithm=algorithm,
        rule=rule,
    )
    return NextRound(found, _decision(question, found, merging), seconds=seconds + merging[0][1])


def _members(question: RouteQuestion, start: RouteStart) -> list[DataOption]:
    """Data sets that take part, by id."""
    release_to, members = start.release_to, list[DataOption]()
    places = set[str]()
    for option in sorted(question.topology.options, key=lambda one: -one.dataset.samples):
        if option.site in question.excluded or not _reaches(question, start, option.site):
            continue
        within = narrowed(release_to, option.dataset.policy.release_to)
        there = places | {jurisdiction_of(question, option.site)}
        if all(allows(within, place) for place in there) and _is_measured(question, within):
            release_to, places = within, there
            members.append(option)
    return sorted(members[:MOST_MERGED], key=lambda option: option.id)


def _reaches(question: RouteQuestion, start: RouteStart, site: SiteId) -> bool:
    """Whether a site is not known to be cut off from all holders of the model."""
    return (
        not start.holders
        or site in start.holders
        or any((site, holder) not in question.cut_off for holder in start.holders)
    )


def _is_measured(question: RouteQuestion, release_to: tuple[str, ...]) -> bool:
    """Whether each objective has a verifier to which the merged model may travel."""
    return all(
        any(allows(release_to, jurisdiction_of(question, unit.site)) for unit in units)
        for units in question.topology.verifiers.values()
    )


def _stops(
    question: RouteQuestion, options: Sequence[DataOption], priced: Costs, part: float
) -> tuple[tuple[PlannedVisit, ...], float]:
    """The visits, shortened alike where the budget does not allow all; none if it allows none. And
    the seconds of a round, without what the models' ways to and from an aggregator take."""
    intent = question.intent
    wanted = [
        max(
            part * intent.training.epochs * option.dataset.samples,
            float(option.dataset.least_examples),
        )
        for option in options
    ]
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
    train_s = _spread_s(priced.start_s[0]) + priced.wait_s + priced.example_s * amounts
    started_s = overhead_s(question.history)
    if started_s is None:
        started_s = guessed("overhead", question.experience, 0.0)
    members = [k for k, option in enumerate(options) if _trains(option, amounts[k])]
    stops = tuple(
        PlannedVisit(
            site=option.site,
            dataset=option.dataset.name,
            examples=examples,
            expected_s=float(min(priced.visit_s[k] + train_s[k], NEVER_S)),
            expected_cost_usd=float(priced.price_usd[k] * examples),
            expected={},
            release_to=option.dataset.policy.release_to,
        )
        for k, option, examples in ((k, options[k], amounts[k]) for k in members)
    )
    fixed_s = priced.visit_s[members].min(initial=NEVER_S) + started_s
    return stops, float(train_s[members].max(initial=0.0) + fixed_s)


def _trains(option: DataOption, examples: int) -> bool:
    return examples >= max(1, option.dataset.least_examples)


def _spread_s(alone: Floats) -> Floats:
    """Seconds until each site has the model, when all fetch it at once: who has it serves them over
    one line, which is no faster than the fastest of these `alone` found it."""
    fetching = alone > 0.0
    least = fetching.sum() * alone[fetching].min(initial=NEVER_S) if fetching.any() else 0.0
    shared: Floats = np.where(fetching, np.maximum(alone, least), 0.0)
    return shared


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

    seconds = {site: takes_s(site) for site in dict.fromkeys(sites)}
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
    return f"{len({stop.site for stop in found.visits})} sites, merged at {aggregator}"


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
