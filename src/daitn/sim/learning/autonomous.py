"""A model that travels on its own as a policy among others: the same engine, with less knowledge.

It knows the descriptors of all available sites, as a site on a shared fabric does; or, where sites
are linked by forwarders alone, those of the sites that it visited, and otherwise the advertised
topic, amount, price, owner and place of each available data set. On arrival the site decides again,
as in a real network; if it refuses, the model goes to the next best one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from daitn.control.route.engine import Mtrce
from daitn.control.route.next_site import (
    DataProspect,
    KnownVerifier,
    LocalView,
    MeasuredModel,
    local_question,
    remembered,
)
from daitn.control.route.question import RouteQuestion
from daitn.objects.decisions import PlannedVisit, Route
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.identifiers import SiteId
from daitn.objects.jobs import WorkNeeds
from daitn.objects.randomness import Rng
from daitn.sim.learning.policy import VisitChosen

__all__ = ["AutonomousPolicy"]


@dataclass(frozen=True)
class AutonomousPolicy:
    """MTRCE with a travelling model's knowledge."""

    engine: Mtrce = field(default_factory=Mtrce)
    name: str = "autonomous"
    announced: bool = True
    """Whether it knows the descriptors of sites that it has not visited."""

    def next_visit(self, question: RouteQuestion, rng: Rng) -> VisitChosen | None:
        refused: tuple[SiteId, ...] = ()
        while (route := self._routed(question, rng, refused)) is not None:
            here = route.visits[0].site
            found = self._routed(question, rng, refused, here)
            visit = found.visits[0] if found else None
            if found and visit and visit.site == here and _admits(question, visit):
                return VisitChosen(found.start, here, visit.dataset, visit.examples)
            refused = (*refused, here)
        return None

    def _routed(
        self,
        question: RouteQuestion,
        rng: Rng,
        refused: tuple[SiteId, ...],
        arrived: SiteId | None = None,
    ) -> Route | None:
        needs = _needs(question)
        if needs is None:
            return None
        view = _view(question, arrived)
        if self.announced:
            view = replace(view, announced=_announced(question))
        next_question = replace(local_question(question, needs, view), later=refused, here=arrived)
        return self.engine.plan(next_question)[0]


def _admits(question: RouteQuestion, visit: PlannedVisit) -> bool:
    """Whether the site admits the model for the planned visit."""
    return any(
        (option.site, option.dataset.name) == (visit.site, visit.dataset)
        for option in question.topology.options
    )


def _view(question: RouteQuestion, arrived: SiteId | None) -> LocalView:
    sites = question.topology.snapshot.sites
    holders = [site for start in question.checkpoints for site in start.holders]
    visited = [SiteId(visit.option_id.partition("/")[0]) for visit in question.history]
    alive = [site for site in holders if sites[site].alive]
    here = arrived or (alive[0] if alive else SiteId(""))
    known = {*holders, *visited, *([arrived] if arrived else [])}
    met = {
        site: remembered(state.descriptor)
        for site, state in sites.items()
        if site in known and state.descriptor.datasets
    }
    return LocalView(
        site=here,
        prospects=tuple(
            prospect
            for _, state in sorted(sites.items())
            if state.alive
            for prospect in _prospects(question, here, state.descriptor)
        ),
        verifiers=tuple(
            KnownVerifier(
                choice.site, choice.test.topic, sites[choice.site].descriptor.jurisdiction
            )
            for choices in question.topology.verifiers.values()
            for choice in choices
        ),
        visited=met,
        measured=tuple(_measured(question)),
        version=question.snapshot_version,
    )


def _announced(question: RouteQuestion) -> dict[SiteId, NodeDescriptor]:
    sites = question.topology.snapshot.sites
    return {site: state.descriptor for site, state in sites.items() if state.alive}


def _prospects(
    question: RouteQuestion, here: SiteId, node: NodeDescriptor
) -> Iterator[DataProspect]:
    link = question.topology.snapshot.link(here, node.site)
    delay_s = link.rtt_s.value / 2.0 if link is not None and link.rtt_s is not None else 0.0
    for data in node.datasets:
        for topic in data.topics:
            yield DataProspect(
                site=node.site,
                topic=topic,
                examples=data.samples,
                price_usd_per_1k=data.price_usd_per_1k,
                delay_s=delay_s,
                jurisdiction=data.jurisdiction,
                owner=node.owner,
            )


def _measured(question: RouteQuestion) -> Iterator[MeasuredModel]:
    """What verifications revealed about test sets: items, labels, and the accuracy of guessing."""
    starts = question.checkpoints
    first: Mapping[str, float] = (
        question.history[0].before if question.history else starts[-1].values
    )
    for objective, name in zip(
        question.intent.objectives, question.intent.objective_names(), strict=True
    ):
        if name not in first:
            continue
        for choice in question.topology.verifiers.get(name, ()):
            yield MeasuredModel(
                site=choice.site,
                topic=objective.topic,
                metric=objective.metric,
                value=first[name],
                items=choice.test.items,
                by_label=dict.fromkeys(choice.test.labels, first[name]),
            )


def _needs(question: RouteQuestion) -> WorkNeeds | None:
    """The recipe's schemas, taken from some option and some test; none without them."""
    options = question.topology.options
    tests = [choice.test for found in question.topology.verifiers.values() for choice in found]
    if not options or not tests:
        return None
    return WorkNeeds(
        data_schema=options[0].dataset.data_schema,
        test_schema=tests[0].test_schema,
        parameters=1,
        flops_per_example=question.flops_per_example,
        memory_bytes=0,
        size_bytes=question.checkpoints[0].size_bytes,
    )
