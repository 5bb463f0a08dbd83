"""The next-site policy: the question that a model travelling on its own asks MTRCE.

It knows less than a control centre. It knows the descriptors that sites announce where it is, and
those of sites it visited; of others only what routes advertise: a topic, the number of examples, a
price, a place, an owner and a distance. Nobody measures links for it. Until it arrives, it assumes
that whatever only the site itself can tell meets the intent; then it checks the site's own
descriptor against the intent, with the same filters as a control centre
(`daitn.topology.data_filters`). So every requirement is either met or refused, and one engine and
one value model serve both kinds of travel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
from immutables import Map

from daitn.control.route.costs import USUAL_SPEED_FLOPS
from daitn.control.route.question import RouteQuestion
from daitn.objects.decisions import Route
from daitn.objects.descriptors import (
    ANY,
    ComputeDescriptor,
    DataPolicy,
    DatasetDescriptor,
    NodeDescriptor,
    Role,
    TestSetDescriptor,
    VerifierDescriptor,
)
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.intents import Quantity, TrainingIntent
from daitn.objects.jobs import WorkNeeds
from daitn.objects.lineage import LineageFact, Verification
from daitn.objects.quorum import ONE
from daitn.objects.readings import LinkReading, Reading
from daitn.topology.inbound import LINK_QUANTITIES
from daitn.topology.passing import left_out_for_now
from daitn.topology.relevance import relevant_to
from daitn.topology.snapshot import Drrt, MsDrrt, SiteState

__all__ = [
    "AUTONOMOUS_FIX",
    "NOWHERE",
    "DataProspect",
    "KnownVerifier",
    "LocalView",
    "MeasuredModel",
    "check_travels",
    "local_question",
    "measured_in",
    "remembered",
    "topic_at",
    "waits_for",
]

AUTONOMOUS_FIX = "leave it out, or train without --autonomous"
"""For what a model that travels on its own cannot have."""
_FIRST_ITEMS = 200
"""Assumed size of an unused test set: a standard error of 0.03."""
_ONE_WAY = 2.0
"""Factor from a one-way delay to a round trip: links are advertised alike in both directions."""

NOWHERE = MsDrrt(snapshot=Drrt(0, 0.0), options=(), verifiers={}, rejections=())
"""Placeholder topology of a question that is asked before the topology is cut."""


@dataclass(frozen=True, slots=True)
class DataProspect:
    """Advertised data."""

    site: SiteId
    topic: str
    examples: int
    price_usd_per_1k: float
    delay_s: float
    jurisdiction: str
    owner: str = ""

    @property
    def id(self) -> str:
        return f"{self.site}/{self.topic}"


@dataclass(frozen=True, slots=True)
class KnownVerifier:
    """An advertised verifier."""

    site: SiteId
    topic: str
    jurisdiction: str


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """What a verification of the job revealed about its test set."""

    site: SiteId
    topic: str
    metric: str
    value: float
    items: int
    by_label: Mapping[str, float]


@dataclass(frozen=True)
class LocalView:
    """Everything a model knows about the network at its current site."""

    site: SiteId
    prospects: tuple[DataProspect, ...]
    verifiers: tuple[KnownVerifier, ...]
    visited: Mapping[SiteId, NodeDescriptor] = field(default_factory=dict)
    """Sites as the model found them; the current site as it is now."""
    announced: Mapping[SiteId, NodeDescriptor] = field(default_factory=dict)
    """Sites as they describe themselves now to the current site."""
    measured: tuple[MeasuredModel, ...] = ()
    """Oldest first."""
    version: int = 0


def check_travels(intent: TrainingIntent) -> None:
    """Raise `InvalidInput` for an intent that a model cannot satisfy on its own."""
    for index, requirement in enumerate(intent.requirements):
        if requirement.quantity in LINK_QUANTITIES:
            raise InvalidInput(
                f"{requirement} is required, but without a control centre nobody measures the "
                "links between sites",
                field=f"requirements[{index}]",
                fix=AUTONOMOUS_FIX,
            )
    if intent.quorum != ONE:
        raise InvalidInput(
            "a model that travels on its own is measured by one verifier",
            field="verification",
            fix=AUTONOMOUS_FIX,
        )
    if intent.model.start or intent.route:
        raise InvalidInput(
            "a model that travels on its own starts fresh and finds its own route",
            field="model.start" if intent.model.start else "route",
            fix=AUTONOMOUS_FIX,
        )

    if intent.training.rule is not None:
        raise InvalidInput(
            "a model that travels on its own is at one site at a time",
            field="training.algorithm",
            fix="use the algorithm sequential or gossip, or train without --autonomous",
        )
    if intent.training.credits_usd is not msgspec.UNSET:
        raise InvalidInput(
            "credits cannot be set aside for a model that travels by itself",
            field="training.credits_usd",
            fix=AUTONOMOUS_FIX,
        )


def measured_in(facts: Iterable[LineageFact]) -> tuple[MeasuredModel, ...]:
    """What a job's verifications revealed about their test sets."""
    return tuple(
        MeasuredModel(fact.site, fact.topic, fact.metric, fact.value, fact.items, fact.by_label)
        for fact in facts
        if isinstance(fact, Verification)
    )


def remembered(node: NodeDescriptor) -> NodeDescriptor:
    """What a model remembers of a site it visited."""
    datasets = tuple(msgspec.structs.replace(data, sketch=None) for data in node.datasets)
    return msgspec.structs.replace(
        node, datasets=datasets, verifier=None, facility=None, gateway=None
    )


def local_question(question: RouteQuestion, needs: WorkNeeds, view: LocalView) -> RouteQuestion:
    """The question of a model at `view.site`; replaces the topology of `question`."""
    intent = question.intent
    topology = relevant_to(
        _snapshot(question, needs, view),
        intent,
        needs,
        now_s=question.now_s,
    )
    return replace(question, topology=topology)


def topic_at(question: RouteQuestion, view: LocalView, route: Route) -> str:
    """The topic under which the data of a route's first visit is advertised."""
    visit = route.visits[0]
    option = next(o for o in question.topology.options if o.id == f"{visit.site}/{visit.dataset}")
    topics = [one.topic for one in view.prospects if one.site == visit.site]
    return next((topic for topic in topics if topic in option.dataset.topics), visit.dataset)


def waits_for(question: RouteQuestion, view: LocalView) -> str:
    """What a model without a route waits for.

    Empty if waiting is pointless, because nothing more will come from what is advertised.
    """
    verifiers, options = question.topology.verifiers, question.topology.options
    untested = [o for o in question.intent.objective_names() if not verifiers.get(o)]
    if untested:
        return f"no known verifier measures {', '.join(untested)}"
    advertised = {one.site for one in view.prospects}
    away = sorted(set(view.visited) - advertised - {view.site} - set(question.excluded))
    if away:
        return f"sites that are not advertised now: {', '.join(away)}"
    if not advertised and not options:
        return "no data is advertised"
    if closed := left_out_for_now(question.topology.rejections, question.excluded):
        return closed
    refused = sorted(set(question.later) - set(question.excluded))
    return f"sites that refuse it now: {', '.join(refused)}" if refused else ""


def _snapshot(question: RouteQuestion, needs: WorkNeeds, view: LocalView) -> Drrt:
    advertised: dict[SiteId, list[DataProspect]] = {}
    for prospect in view.prospects:
        advertised.setdefault(prospect.site, []).append(prospect)
    assumed = _assumed_compute(question, needs, view)
    states = {}
    for site in sorted({*advertised, *view.visited}):
        node = _node(question, needs, view, site, advertised.get(site, []), assumed)
        alive = site in advertised or site == view.site
        states[site] = SiteState(descriptor=node, alive=alive, changed_at_s=question.now_s)
    for site, verifier in _verifiers(question, needs, view).items():
        known = states.get(site)
        node = known.descriptor if known else _stranger(site, _place(view, site))
        announced = view.announced.get(site)
        stated = node.verifier or (announced.verifier if announced else None)
        node = msgspec.structs.replace(node, verifier=stated or verifier)
        states[site] = SiteState(descriptor=node, alive=True, changed_at_s=question.now_s)
    return Drrt(
        version=view.version,
        at_s=question.now_s,
        sites=Map(states),
        links=_links(question, view),
    )


def _node(
    question: RouteQuestion,
    needs: WorkNeeds,
    view: LocalView,
    site: SiteId,
    advertised: list[DataProspect],
    assumed: ComputeDescriptor,
) -> NodeDescriptor:
    """A site as it announces itself; else a visited site, updated with data advertised since; else
    a site as advertised."""
    visited = view.visited.get(site)
    if visited is not None and site == view.site:
        return visited
    if site in view.announced:
        return view.announced[site]
    fresh_at_s = question.now_s - _assumed(question.intent, Quantity.AGE_S, 0.0)
    # The data may have been renewed since; the model checks on arrival.
    found = [
        msgspec.structs.replace(data, fresh_at_s=max(data.fresh_at_s, fresh_at_s))
        for data in (visited.datasets if visited else ())
    ]
    known = {name for data in found for name in (data.name, *data.topics)}
    found += [
        _assumed_dataset(question, needs, one, fresh_at_s)
        for one in advertised
        if one.topic not in known
    ]
    if visited is not None:
        return msgspec.structs.replace(visited, datasets=tuple(found))
    stranger = _stranger(site, advertised[0].jurisdiction, advertised[0].owner)
    return msgspec.structs.replace(stranger, datasets=tuple(found), compute=assumed)


def _assumed_dataset(
    question: RouteQuestion, needs: WorkNeeds, one: DataProspect, fresh_at_s: float
) -> DatasetDescriptor:
    return DatasetDescriptor(
        name=one.topic,
        site=one.site,
        data_schema=needs.data_schema,
        modality="",
        topics=(one.topic,),
        samples=one.examples,
        labels={},
        quality=_assumed(question.intent, Quantity.QUALITY, 1.0),
        fresh_at_s=fresh_at_s,
        price_usd_per_1k=one.price_usd_per_1k,
        jurisdiction=one.jurisdiction,
        policy=DataPolicy(recipes=(ANY,)),
    )


def _stranger(site: SiteId, jurisdiction: str, owner: str = "") -> NodeDescriptor:
    return NodeDescriptor(
        site=site,
        owner=OwnerId(owner),
        roles=(Role.DATA, Role.COMPUTE),
        jurisdiction=jurisdiction,
        public_key="",
        started_at_s=0.0,
        version=0,
        software="",
    )


def _place(view: LocalView, site: SiteId) -> str:
    """A verifier's jurisdiction; empty for one that measured before and is not advertised now."""
    return next((one.jurisdiction for one in view.verifiers if one.site == site), "")


def _assumed(intent: TrainingIntent, quantity: Quantity, usual: float) -> float:
    """For what no site advertises, assume the usual, or what the intent requires."""
    for requirement in intent.requirements:
        if requirement.quantity is quantity and requirement.at_least is not None:
            usual = max(usual, requirement.at_least)
    for requirement in intent.requirements:
        if requirement.quantity is quantity and requirement.at_most is not None:
            usual = min(usual, requirement.at_most)
    return usual


def _assumed_compute(
    question: RouteQuestion, needs: WorkNeeds, view: LocalView
) -> ComputeDescriptor:
    """Assume that other sites are as fast as the visited ones, by the geometric mean."""
    speeds = [
        node.compute.speed_flops
        for node in view.visited.values()
        if node.compute is not None and node.compute.speed_flops > 0
    ]
    usual = float(np.exp(np.mean(np.log(speeds)))) if speeds else USUAL_SPEED_FLOPS
    memory = _assumed(question.intent, Quantity.MEMORY_BYTES, float(needs.memory_bytes))
    return ComputeDescriptor(
        device="",
        memory_bytes=int(np.ceil(memory)),
        speed_flops=_assumed(question.intent, Quantity.SPEED_FLOPS, usual),
        recipes=(question.intent.model.recipe,),
    )


def _verifiers(
    question: RouteQuestion, needs: WorkNeeds, view: LocalView
) -> dict[SiteId, VerifierDescriptor]:
    """The advertised verifiers, and those that measured before, since they may come back."""
    tests: dict[SiteId, list[TestSetDescriptor]] = {}
    for objective in question.intent.objectives:
        measured = [
            one
            for one in view.measured
            if (one.topic, one.metric) == (objective.topic, objective.metric)
        ]
        sites = {one.site for one in view.verifiers if one.topic == objective.topic}
        for site in sorted(sites | {one.site for one in measured}):
            last = next((one for one in reversed(measured) if one.site == site), None)
            test = _test(needs, objective.topic, objective.metric, measured[:1], last)
            tests.setdefault(site, []).append(test)
    recipes = (question.intent.model.recipe,)
    return {
        site: VerifierDescriptor(tests=tuple(found), recipes=recipes)
        for site, found in tests.items()
    }


def _test(
    needs: WorkNeeds,
    topic: str,
    metric: str,
    first: list[MeasuredModel],
    last: MeasuredModel | None,
) -> TestSetDescriptor:
    items = last.items if last else _FIRST_ITEMS
    labels = sorted(last.by_label) if last else []
    return TestSetDescriptor(
        topic=topic,
        test_schema=needs.test_schema,
        metrics=(metric,),
        items=items,
        chance=_chance(first[0]) if first else 0.0,
        labels={label: max(1, round(items / len(labels))) for label in labels},
    )


def _chance(untrained: MeasuredModel) -> float:
    """Accuracy of guessing, from the measurement of a fresh model.

    The mean over labels, since a fresh model may well give the same answer to every item.
    """
    by_label = list(untrained.by_label.values())
    return float(np.mean(by_label)) if by_label else untrained.value


def _links(question: RouteQuestion, view: LocalView) -> Map[SiteId, Map[SiteId, LinkReading]]:
    """The advertised distances, and the model's transfer rates so far."""
    rates = [
        question.checkpoints[0].size_bytes / visit.transfer_s
        for visit in question.history
        if visit.transfer_s > 0
    ]
    now_s, here = question.now_s, view.site
    usual = Reading(float(np.median(rates)), now_s, here) if rates else None
    links = {
        one.site: LinkReading(
            source=here,
            target=one.site,
            rtt_s=Reading(_ONE_WAY * one.delay_s, now_s, here),
            throughput_bps=usual,
        )
        for one in view.prospects
        if one.site != here
    }
    return Map({here: Map(links)})
