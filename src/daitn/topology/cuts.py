"""Incremental cuts of successive topologies: each costs what changed since the last.

Jobs ask for their MS-DRRT again and again, and between two times few sites have published anything
but their load and their links. So what follows from descriptors alone is kept per intent and data
set, and done again where a site's descriptor changed, it came or left, or other verifiers can
measure. The rest depends on the time or on readings and is looked at each time: opening hours, the
age of data, paths, links and queues.
"""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from daitn.objects.access import AccessRequest
from daitn.objects.decisions import Rejection
from daitn.objects.descriptors import ANY, DatasetDescriptor, NodeDescriptor
from daitn.objects.identifiers import ObjectiveName, SiteId
from daitn.objects.intents import Budget, Quantity, TrainingIntent
from daitn.objects.model_needs import ModelNeeds
from daitn.objects.quorum import ONE
from daitn.topology.data_filters import (
    DataCandidate,
    Wanted,
    lasting_rejections,
    path_rejections,
    requirement_rejection,
)
from daitn.topology.fit import label_coverage, pooled_labels, topics_fit
from daitn.topology.inbound import LINK_QUANTITIES, Inbound, InboundLinks, is_fresh
from daitn.topology.partitions import severed
from daitn.topology.relaxation import as_value
from daitn.topology.snapshot import DataOption, Drrt, MsDrrt, SiteState, VerifierOption
from daitn.topology.verifier_filters import Measurable, columns_measured, verifiers_for

__all__ = ["STALE_AFTER_S", "Cuts"]

STALE_AFTER_S = 900.0
"""Readings older than this are ignored. Delay, loss and throughput of Internet paths hold for
minutes up to hours; a quarter of an hour lies between. Source: Zhang, Duffield, Paxson and Shenker,
"On the constancy of Internet path properties", Internet Measurement Workshop 2001."""
_MOST_CACHED = 100_000
"""Limit on cached data sets of all intents together, some 60 MB; the most recently used intents
stay."""
_NOWHERE = Inbound()

Verifiers = dict[ObjectiveName, tuple[VerifierOption, ...]]
Places = dict[ObjectiveName, frozenset[tuple[SiteId, str]]]


@dataclass(slots=True)
class _Cached:
    """Cached results on a data set for one intent."""

    dataset: DatasetDescriptor
    descriptor: NodeDescriptor
    """Descriptor of its site."""
    alive: bool
    lasting: list[Rejection]
    required: dict[int, Rejection]
    """Rejection by requirements on descriptors."""
    linked: dict[int, tuple[float | None, Rejection | None]]
    """Rejection by requirements on links, with the reading behind it."""
    option: DataOption | None = None


@dataclass(slots=True)
class _Testers:
    """The sites that can measure an intent's model, according to descriptors."""

    known: tuple[SiteState, ...]
    """Every site with a verifier."""
    verifiers: Verifiers
    rejections: list[Rejection]
    places: Places
    tested: dict[ObjectiveName, dict[str, int]]
    columns: dict[ObjectiveName, frozenset[int]]


@dataclass(slots=True)
class _Intent:
    """Cache of one intent."""

    testers: _Testers | None = None
    kept: dict[tuple[SiteId, str], _Cached] = field(default_factory=dict)


class Cuts:
    """Makes cuts. The same snapshot and intent give the same cut, regardless of earlier ones.

    Not for several threads at a time.
    """

    def __init__(self) -> None:
        self._intents: OrderedDict[bytes, _Intent] = OrderedDict()
        self._inbound = InboundLinks()

    def relevant_to(
        self,
        snapshot: Drrt,
        intent: TrainingIntent,
        needs: ModelNeeds,
        *,
        now_s: float,
        stale_after_s: float = STALE_AFTER_S,
    ) -> MsDrrt:
        """Cut the topology for `intent`, see `relevance.relevant_to`."""
        known = self._intent(intent, (needs, stale_after_s))
        sites = sorted(snapshot.sites.items())
        request = AccessRequest(intent.owner, intent.model.recipe, intent.purpose, measures=True)
        measured = Measurable(needs, request, now_s, compared=intent.quorum != ONE)
        testers = _testers(known, snapshot, sites, intent, measured)
        wanted = Wanted(
            intent=intent,
            needs=needs,
            now_s=now_s,
            stale_after_s=stale_after_s,
            places=testers.places,
            columns=testers.columns,
            severed=lambda one, other: severed(snapshot, one, other, now_s, stale_after_s),
        )
        inbound: Mapping[SiteId, Inbound] = {}
        if any(one.quantity in LINK_QUANTITIES for one in intent.requirements):
            inbound = self._inbound.at(snapshot, now_s, stale_after_s)
        options, rejections = _data(known, testers, sites, inbound, wanted)
        options.sort(key=lambda option: option.id)
        rejections = [*testers.rejections, *rejections]
        rejections.extend(_pinned_rejections(snapshot, intent, options, rejections))
        self._make_room()
        return MsDrrt(
            snapshot=snapshot,
            options=tuple(options),
            verifiers=dict(testers.verifiers),
            rejections=tuple(rejections),
        )

    def _intent(self, intent: TrainingIntent, terms: tuple[object, ...]) -> _Intent:
        """No filter looks at the name of an intent, at the targets of its objectives, or at its
        budget, except whether it may spend money at all."""
        objectives = tuple(msgspec.structs.replace(o, at_least=0.0) for o in intent.objectives)
        budget = Budget(cost_usd=0.0) if intent.budget.cost_usd == 0.0 else Budget()
        alike = msgspec.structs.replace(intent, name="", budget=budget, objectives=objectives)
        key = msgspec.msgpack.encode((alike, terms))
        known = self._intents.setdefault(key, _Intent())
        self._intents.move_to_end(key)
        return known

    def _make_room(self) -> None:
        kept = sum(len(known.kept) for known in self._intents.values())
        while kept > _MOST_CACHED and len(self._intents) > 1:
            _, oldest = self._intents.popitem(last=False)
            kept -= len(oldest.kept)


def _testers(
    known: _Intent,
    snapshot: Drrt,
    sites: Sequence[tuple[SiteId, SiteState]],
    intent: TrainingIntent,
    measured: Measurable,
) -> _Testers:
    """From the cache, or recomputed: all data sets are then checked again, too."""
    testing = [(site, state) for site, state in sites if state.descriptor.verifier is not None]
    before = known.testers
    if before is not None and _unchanged(before.known, [state for _, state in testing]):
        return before
    verifiers: Verifiers = {}
    rejections: list[Rejection] = []
    for index, name in enumerate(intent.objective_names()):
        verifiers[name], refused = verifiers_for(testing, intent, index, measured)
        rejections.extend(refused)
    places = _places(snapshot, verifiers)
    tested = {name: pooled_labels(v.test for v in found) for name, found in verifiers.items()}
    columns = {
        name: columns_measured(verifiers[name], objective.metric)
        for name, objective in zip(intent.objective_names(), intent.objectives, strict=True)
    }
    if before is None or (before.places, before.tested, before.columns) != (
        places,
        tested,
        columns,
    ):
        known.kept.clear()
    states = tuple(state for _, state in testing)
    known.testers = _Testers(states, verifiers, rejections, places, tested, columns)
    return known.testers


def _unchanged(before: Sequence[SiteState], now: Sequence[SiteState]) -> bool:
    return len(before) == len(now) and all(
        one.descriptor is other.descriptor
        and one.alive == other.alive
        and not _tests_by_hours(other.descriptor)
        for one, other in zip(before, now, strict=True)
    )


def _tests_by_hours(node: NodeDescriptor) -> bool:
    tests = node.verifier.tests if node.verifier is not None else ()
    return any(ANY not in test.policy.hours for test in tests)


def _places(snapshot: Drrt, verifiers: Verifiers) -> Places:
    """Per objective, the site and jurisdiction of each verifier that can measure it."""
    return {
        name: frozenset(
            (option.site, snapshot.sites[option.site].descriptor.jurisdiction) for option in found
        )
        for name, found in verifiers.items()
    }


def _data(
    known: _Intent,
    testers: _Testers,
    sites: Sequence[tuple[SiteId, SiteState]],
    inbound: Mapping[SiteId, Inbound],
    wanted: Wanted,
) -> tuple[list[DataOption], list[Rejection]]:
    """The data sets that pass, and why the others do not. Forgets those that are gone."""
    options: list[DataOption] = []
    rejections: list[Rejection] = []
    kept = known.kept
    known.kept = {}
    for site, state in sites:
        descriptor = state.descriptor
        datasets = descriptor.datasets
        if len(datasets) > 1:
            datasets = tuple(sorted(datasets, key=lambda dataset: dataset.name))
        for dataset in datasets:
            candidate = DataCandidate(state, dataset, inbound.get(site, _NOWHERE))
            found = kept.get((site, dataset.name))
            if (
                found is None
                or found.dataset is not dataset
                or found.descriptor is not descriptor
                or found.alive != state.alive
                or ANY not in dataset.policy.hours
            ):
                found = _evaluated(candidate, wanted)
            known.kept[site, dataset.name] = found
            failures = [*found.lasting, *path_rejections(candidate, wanted)]
            if wanted.intent.requirements:
                failures += _required(found, candidate, wanted)
            rejections += failures
            if not failures:
                options.append(_option(found, candidate, wanted, testers))
    return options, rejections


def _evaluated(candidate: DataCandidate, wanted: Wanted) -> _Cached:
    required = {
        index: rejection
        for index, requirement in enumerate(wanted.intent.requirements)
        if requirement.quantity not in _CHANGING
        and (rejection := requirement_rejection(candidate, wanted, index)) is not None
    }
    return _Cached(
        candidate.dataset,
        candidate.state.descriptor,
        candidate.state.alive,
        lasting_rejections(candidate, wanted),
        required,
        {},
    )


_CHANGING = frozenset({*LINK_QUANTITIES, Quantity.AGE_S})
"""Quantities that change without a new descriptor."""


def _required(found: _Cached, candidate: DataCandidate, wanted: Wanted) -> Iterator[Rejection]:
    for index, requirement in enumerate(wanted.intent.requirements):
        quantity = requirement.quantity
        if quantity not in _CHANGING:
            rejection = found.required.get(index)
        elif quantity in LINK_QUANTITIES:
            rejection = _linked(found, candidate, wanted, index, quantity)
        else:
            rejection = requirement_rejection(candidate, wanted, index)
        if rejection is not None:
            yield rejection


def _linked(
    found: _Cached, candidate: DataCandidate, wanted: Wanted, index: int, quantity: Quantity
) -> Rejection | None:
    inbound = candidate.inbound
    reading = inbound.rtt_s if quantity is Quantity.RTT_S else inbound.throughput_bps
    if reading is None:  # The reason tells how old the newest reading is.
        return requirement_rejection(candidate, wanted, index)
    value, rejection = found.linked.get(index, (None, None))
    if value != reading.value:
        rejection = requirement_rejection(candidate, wanted, index)
        found.linked[index] = (reading.value, rejection)
    return rejection


def _option(
    found: _Cached, candidate: DataCandidate, wanted: Wanted, testers: _Testers
) -> DataOption:
    queue = _queue(candidate.state, wanted)
    if found.option is None:
        dataset, compute = candidate.dataset, candidate.state.descriptor.compute
        assert compute is not None, "the compute filter passed"
        found.option = DataOption(
            site=candidate.state.descriptor.site,
            dataset=dataset,
            compute=compute,
            fit={
                ObjectiveName(objective.name): topics_fit(dataset.topics, objective.topic)
                for objective in wanted.intent.objectives
            },
            coverage={
                name: label_coverage(dataset.labels, items) if wanted.places[name] else 0.0
                for name, items in testers.tested.items()
            },
            queue=queue,
            owner=candidate.state.descriptor.owner,
        )
    elif found.option.queue != queue:
        found.option = msgspec.structs.replace(found.option, queue=queue)
    return found.option


def _queue(state: SiteState, wanted: Wanted) -> int:
    load = state.load
    if load is None or not is_fresh(load.queue, wanted.now_s, wanted.stale_after_s):
        return 0
    return max(0, int(load.queue.value))


def _pinned_rejections(
    snapshot: Drrt,
    intent: TrainingIntent,
    options: list[DataOption],
    rejections: list[Rejection],
) -> Iterator[Rejection]:
    """Sites of a pinned route at which the model cannot be trained."""
    usable = sorted({option.site for option in options})
    for index, visit in enumerate(intent.route):
        if visit.site in usable:
            continue
        near = difflib.get_close_matches(visit.site, usable, n=1)
        yield Rejection(
            candidate=visit.site,
            filter="pinned",
            reason=f"the stated route visits {visit.site}, "
            + _absence(snapshot.sites.get(visit.site), rejections),
            field=f"route[{index}].site",
            relax_to=as_value(near[0]) if near else "",
        )


def _absence(state: SiteState | None, rejections: list[Rejection]) -> str:
    if state is None:
        return "which is not in the network"
    if not state.alive:
        return "which is not connected now"
    if not state.descriptor.datasets:
        return "which holds no data set"
    at = f"{state.descriptor.site}/"
    reasons = [f"{r.candidate}: {r.reason}" for r in rejections if r.candidate.startswith(at)]
    return f"none of whose data sets can be used: {'; '.join(reasons)}"
