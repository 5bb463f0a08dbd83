"""Which sites train in the next round of a job, and which of them merges.

All eligible data sets take part whose owners' rules let the merged model travel to all of them, the
largest first. The models are merged at one of these sites, the one at which they, and from which
the verifiers, have what they need soonest: no server in the middle, and nobody sees an update that
does not train itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from daitn.control.route import pace
from daitn.control.route.chains import alike, chains
from daitn.control.route.costs import NEVER_S, Costs, costs, overhead_s, to_verifiers_s
from daitn.control.route.priors import guessed
from daitn.control.route.question import RouteQuestion, RouteStart
from daitn.control.route.task import jurisdiction_of
from daitn.control.route.transfers import between_s, transfer_s
from daitn.control.route.trees import groups, most_members
from daitn.objects.access import allows, narrowed
from daitn.objects.compression import Compression
from daitn.objects.decisions import Decision, Group, PlannedVisit, Round, Scored
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.intents import Budget
from daitn.objects.lineage import MOST_VISITS
from daitn.objects.merging import AT_ONCE, Algorithm, MergeRule
from daitn.objects.orders import allowed_examples
from daitn.objects.secure_sum import LEAST_MEMBERS
from daitn.topology.arrays import Floats
from daitn.topology.snapshot import DataOption

__all__ = ["Members", "NextRound", "members", "next_round"]

_STALLED_AFTER = 10
"""Rounds without a smaller shortfall after which a job without a budget ends."""
_STALLED_AFTER_WITH_BUDGET = 30
"""The same for a job with a budget, which may be practically unlimited."""
_BUFFER = 0.5
"""Share of the sites whose updates `fedbuff` merges at once: the faster half sets its pace."""
_CAUTION = -1.0
"""Standard deviations by which a round's sites may be slower than expected, see `costs`."""
_MOST_WORK = 10.0
"""Multiple of a typical site's examples that one trains in a round. A site states its own number:
without a bound, one could have the round wait, and spend its budget, as long as it likes."""
_MOST_WEIGHT = 3.0
"""Multiple of a typical site's examples as which one counts. One liar of ten thus has a quarter of
the weight (Portnoy and Hendler 2020, "Towards federated learning with Byzantine-robust client
weighting", arXiv:2004.04986)."""
_SLOW_LINK = 0.25
"""Share of a visit's time for the transfer of its update from which compression pays: in 8 bits it
takes a quarter of the time, with no observed loss of accuracy."""
_MOST_AGGREGATORS = 256
"""Maximum number of sites considered as aggregators."""
_EXPLAINED = 20


class NextRound(NamedTuple):
    """The next round, or why there is none."""

    round: Round | None
    decision: Decision
    why: str = ""
    """If there is no round: the reason, if it is permanent."""
    waits: str = ""
    """If there is no round: the reason, if more sites would change it."""
    seconds: float = NEVER_S
    """Expected seconds from assigning the work until the merged model is measured."""


class Members(NamedTuple):
    """Possible members of rounds from the latest checkpoint, whatever the algorithm."""

    options: Sequence[DataOption]
    """Data sets that are not busy."""
    late: Sequence[DataOption]
    """Data sets that are busy."""
    priced: Costs
    cautious: Costs
    """Cautious costs, rather too high."""
    merging: Sequence[tuple[SiteId, float]]
    """The aggregator candidates, with the seconds of the models' transfers to each; soonest
    first."""
    alike: Sequence[bool]
    """Of each option, whether it has about the same labels as most."""


def members(question: RouteQuestion) -> Members:
    """The possible members now: the slowest part of planning a round."""
    start = question.checkpoints[0]
    everybody = _moderate(_members(question, start), question.intent.training.epochs)
    options = [option for option in everybody if option.id not in question.busy]
    return Members(
        options=options,
        late=[option for option in everybody if option.id in question.busy],
        priced=costs(question, options),
        cautious=costs(question, options, hope=_CAUTION),
        merging=_aggregators(question, start, [option.site for option in everybody]),
        alike=alike([option.dataset.labels for option in options]),
    )


def next_round(
    question: RouteQuestion,
    algorithm: Algorithm,
    rule: MergeRule,
    part: float = 1.0,
    among: Members | None = None,
) -> NextRound:
    """The round from the latest checkpoint, which may be a model still to be made.

    `part`: of what the intent says that each site trains in a round; `among`: the question's
    members, where they are known.
    """
    intent, start = question.intent, question.checkpoints[0]
    after = _STALLED_AFTER if intent.budget == Budget() else _STALLED_AFTER_WITH_BUDGET
    if _stalled(question.shortfalls, after):
        return _none(question, why=f"{after} rounds brought the targets no nearer")
    among = among or members(question)
    options, late = among.options, len(among.late)
    secure = intent.training.secure_aggregation
    needed = max(rule.least_models or 1, LEAST_MEMBERS if secure else 1)

    def count(sites: Iterable[SiteId]) -> int:
        """Models, with late ones; of a secure sum, which has no late ones, sites."""
        return len(set(sites)) if secure else late + sum(1 for _ in sites)

    if (available := count(option.site for option in options)) < needed:
        return _none(question, waits=f"{algorithm} needs {needed} sites, {available} can take part")
    stops, within, seconds = _stops(question, among, algorithm, part)
    if count(stop.site for stop in stops) < needed:
        return _none(question, why="the budget does not allow another round")
    taking_part = {stop.site for stop in stops} | {option.site for option in among.late}
    idle = {option.site for option in options} - taking_part
    merging = [one for one in among.merging if one[0] not in idle]
    found = Round(
        start=start.model or Digest(""),
        visits=stops,
        aggregators=tuple(site for site, _ in merging),
        algorithm=algorithm,
        rule=rule,
    )
    if algorithm is Algorithm.FEDSEQ:
        found = _in_chains(found, options)
    if algorithm not in AT_ONCE and not secure:
        buffered = algorithm is Algorithm.FEDBUFF
        found = msgspec.structs.replace(
            found,
            groups=_groups(question, start, stops, merging[0][0], rule),
            visits=_compressed(question, start, stops, merging[0][0]),
            enough=max(needed, math.ceil(_BUFFER * (len(stops) + late))) if buffered else 0,
            within_s=within,
        )
    entries = len(stops) + late + len(found.groups) + 1
    if question.behind + entries > MOST_VISITS:
        return _none(question, why=f"no site checks a lineage of over {MOST_VISITS} entries")
    return NextRound(found, _decision(question, found, merging), seconds=seconds + merging[0][1])


def _members(question: RouteQuestion, start: RouteStart) -> list[DataOption]:
    """Ids of data sets that take part; the rules of busy ones restrict all others."""
    release_to, members = start.release_to, list[DataOption]()
    places = set[str]()
    options = question.topology.options
    busy = question.busy
    for option in sorted(options, key=lambda one: (one.id not in busy, -one.dataset.samples)):
        if option.site in question.excluded or not _reaches(question, start, option.site):
            continue
        within = narrowed(release_to, option.dataset.policy.release_to)
        wider = places | {jurisdiction_of(question, option.site)}
        if all(allows(within, place) for place in wider) and _is_measured(question, within):
            release_to, places = within, wider
            members.append(option)
    most = most_members(question.intent.training.rules.values())
    return sorted(members[:most], key=lambda option: option.id)


def _moderate(options: Sequence[DataOption], epochs: float) -> list[DataOption]:
    """Those that have records, and demand no more work than a round gives a site at most: it would
    be taken from the others."""
    sites = [option.site for option in options]
    typical = pace.usual([float(option.dataset.samples) for option in options], sites)
    most = _MOST_WORK * max(1.0, epochs) * typical
    return [one for one in options if one.dataset.samples and one.dataset.least_examples <= most]


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
    question: RouteQuestion, among: Members, algorithm: Algorithm, part: float
) -> tuple[tuple[PlannedVisit, ...], float | None, float]:
    """The round's visits, the seconds after which it no longer waits, and its expected seconds.

    Where the budget does not allow all examples, all visits are shortened by the same factor; if it
    allows none, there are no visits. The expected time leaves out transfers to and from an
    aggregator.
    """
    intent, options, priced = question.intent, among.options, among.priced
    if not options:
        return (), None, 0.0
    wanted, parts = _wanted(question, options, priced, algorithm, part)
    left = allowed_examples(intent) - question.spent.examples
    share = min(1.0, left / max(1.0, sum(wanted)))
    amounts = [int(share * n + 1e-9) for n in wanted]
    train_s = _spread_s(priced.start_s[0]) + priced.wait_s + priced.example_s * amounts
    members = [k for k, option in enumerate(options) if _trains(option, amounts[k])]
    counts = _counts(amounts, parts, intent.training.epochs, options)
    stops = tuple(
        PlannedVisit(
            site=option.site,
            dataset=option.dataset.name,
            examples=examples,
            expected_s=float(min(priced.visit_s[k] + train_s[k], NEVER_S)),
            expected_cost_usd=float(priced.price_usd[k] * examples),
            expected={},
            release_to=option.dataset.policy.release_to,
            stands_for=counts[k] if counts[k] != examples else 0,
            alike=among.alike[k],
            computing_usd=float(priced.computing_usd[k] * examples),
            price_usd_per_hour=option.compute.price_usd_per_hour,
            owner=option.owner,
        )
        for k, option, examples in ((k, options[k], amounts[k]) for k in members)
    )
    fixed_s = priced.visit_s[members].min(initial=NEVER_S) + _started_s(question)
    within = pace.within_s(amounts, [one.site for one in options], priced, among.cautious)
    return stops, within, min(float(train_s[members].max(initial=0.0) + fixed_s), within)


def _started_s(question: RouteQuestion) -> float:
    """Overhead of a piece of work, as measured or, before that, as estimated."""
    measured_s = overhead_s(question.history)
    return guessed("overhead", question.experience, 0.0) if measured_s is None else measured_s


def _wanted(
    question: RouteQuestion,
    options: Sequence[DataOption],
    priced: Costs,
    algorithm: Algorithm,
    part: float,
) -> tuple[list[float], list[float]]:
    """The examples of each site that it has time and money for, and which part of those that it
    counts for this is."""
    sites = [option.site for option in options]
    least = [float(option.dataset.least_examples) for option in options]
    whole = pace.bounded(
        [part * question.intent.training.epochs * option.dataset.samples for option in options],
        sites,
        _MOST_WORK,
    )
    whole = [max(n, m) for n, m in zip(whole, least, strict=True)]
    parts = [1.0] * len(options)
    if algorithm is not Algorithm.FEDBUFF:
        evened = pace.evened(whole, sites, priced)
        parts = [max(n, m) / all_ for n, m, all_ in zip(evened, least, whole, strict=True)]
    wanted = [n * share for n, share in zip(whole, parts, strict=True)]
    budget, spent = question.intent.budget, question.spent
    usd = sum(float(each) * n for each, n in zip(priced.price_usd, wanted, strict=True))
    affordable = 1.0
    if budget.cost_usd is not None and usd > 0.0:
        affordable = min(1.0, (budget.cost_usd - spent.cost_usd) / usd)
    priced_usd = zip(wanted, priced.price_usd, strict=True)
    return [n * affordable if price > 0.0 else n for n, price in priced_usd], parts


def _counts(
    amounts: Sequence[int], parts: Sequence[float], epochs: float, options: Sequence[DataOption]
) -> list[int]:
    """As how many examples each site's update counts: that of a slow site for all of which these
    are a part, but none for many more than a typical one."""
    whole = [
        max(n, min(int(n / part + 0.5), int(epochs * option.dataset.samples))) if part < 1.0 else n
        for n, part, option in zip(amounts, parts, options, strict=True)
    ]
    return [int(n) for n in pace.bounded(whole, [one.site for one in options], _MOST_WEIGHT)]


def _trains(option: DataOption, examples: int) -> bool:
    return examples >= max(1, option.dataset.least_examples)


def _spread_s(alone: Floats) -> Floats:
    """Seconds until each site has the model if all fetch it at once: its holder serves them over
    one line, which is no faster than the fastest of these `alone` found it."""
    fetching = alone > 0.0
    least = fetching.sum() * alone[fetching].min(initial=NEVER_S) if fetching.any() else 0.0
    shared: Floats = np.where(fetching, np.maximum(alone, least), 0.0)
    return shared


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
    return groups(sites, at, rule, takes_s, place_of, _started_s(question)) if sites else ()


def _compressed(
    question: RouteQuestion, start: RouteStart, stops: Sequence[PlannedVisit], aggregator: SiteId
) -> tuple[PlannedVisit, ...]:
    """The visits with their updates compressed as in the intent, or in 8 bits if transfers take
    long."""
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
    """Participating sites, with the seconds until each, as the aggregator, has all models and a
    verifier of each objective the result; soonest first."""
    snapshot, size, now_s = question.topology.snapshot, start.size_bytes, question.now_s
    merging = list(dict.fromkeys(sites))[:_MOST_AGGREGATORS]
    if not merging:
        return []
    row_of = {site: row for row, site in enumerate(dict.fromkeys(sites))}
    each_s = between_s(snapshot, tuple(row_of), merging, size, now_s)
    # Added one after the other, as a plain sum: equal aggregators stay equal.
    gathered = np.cumsum(each_s[[row_of[site] for site in sites]], axis=0)[-1]
    takes_s = gathered + to_verifiers_s(question, merging, size)
    seconds = dict(zip(merging, takes_s.tolist(), strict=True))
    return sorted(seconds.items(), key=lambda one: (one[1], one[0]))


def _stalled(shortfalls: Sequence[float], after: int) -> bool:
    earlier, late = shortfalls[:-after], shortfalls[-after:]
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
        for site, seconds in merging[:_EXPLAINED]
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
