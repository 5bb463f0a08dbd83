"""What any sensible policy may choose from, by rules and budgets alone."""

from __future__ import annotations

import math

from daitn.control.route.question import RouteQuestion, RouteStart
from daitn.objects.access import allows, narrowed
from daitn.objects.identifiers import SiteId
from daitn.sim.learning.policy import VisitChosen
from daitn.topology.snapshot import DataOption

__all__ = ["admissible", "affordable", "latest", "link_s", "one_epoch", "taken", "visit_s"]

_DEFAULT_BPS = 5e6
"""For a link without measurements: 40 Mbit/s."""


def latest(question: RouteQuestion) -> RouteStart:
    """The current model, from which the route continues."""
    return question.checkpoints[0]


def admissible(question: RouteQuestion) -> tuple[DataOption, ...]:
    """Data sets where the latest model may be trained and then measured; by id."""
    start = latest(question)
    return tuple(
        option
        for option in question.topology.options
        if option.site not in question.excluded
        and _may_go(question, start.release_to, option.site)
        and _measurable(question, narrowed(start.release_to, option.dataset.policy.release_to))
        and affordable(question, option, 1) >= 1
    )


def affordable(question: RouteQuestion, option: DataOption, examples: int) -> int:
    """As many of the examples as the budget still allows."""
    budget, spent = question.intent.budget, question.spent
    most = float(examples)
    if budget.examples is not None:
        most = min(most, budget.examples - spent.examples)
    price = option.dataset.price_usd_per_1k
    if budget.cost_usd is not None and price > 0.0:
        most = min(most, (budget.cost_usd - spent.cost_usd) / price * 1000.0)
    return max(0, math.floor(most + 1e-6))


def taken(question: RouteQuestion, option: DataOption, examples: int) -> VisitChosen:
    """A visit of the latest model."""
    return VisitChosen(
        start=latest(question).model,
        site=option.site,
        dataset=option.dataset.name,
        examples=max(1, affordable(question, option, examples)),
    )


def one_epoch(option: DataOption) -> int:
    """Every record advertised by the site, once."""
    return max(1, option.dataset.samples)


def visit_s(question: RouteQuestion, option: DataOption, examples: int) -> float:
    """Seconds of transfer and training, from descriptors and links."""
    training_s = examples * question.flops_per_example / max(option.compute.speed_flops, 1e6)
    return link_s(question, option.site) + training_s


def link_s(question: RouteQuestion, target: SiteId) -> float:
    """Seconds until the latest model is at a site."""
    start = latest(question)
    if not start.holders or target in start.holders:
        return 0.0
    found = []
    for holder in start.holders:
        link = question.topology.snapshot.link(holder, target)
        bps = link.throughput_bps.value if link and link.throughput_bps else _DEFAULT_BPS
        found.append(start.size_bytes / bps)
    return min(found)


def _may_go(question: RouteQuestion, release_to: tuple[str, ...], site: SiteId) -> bool:
    return allows(release_to, question.topology.snapshot.sites[site].descriptor.jurisdiction)


def _measurable(question: RouteQuestion, release_to: tuple[str, ...]) -> bool:
    return all(
        any(_may_go(question, release_to, unit.site) for unit in units)
        for units in question.topology.verifiers.values()
    )
