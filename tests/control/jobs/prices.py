"""A world in which computing has a price, and visits take longer or less long than expected."""

from __future__ import annotations

import random
from typing import TypeVar

import msgspec

from daitn.objects.decisions import PlannedVisit, Round, Route
from daitn.objects.identifiers import ObjectiveName, SiteId
from daitn.objects.jobs import Planned, VerifierAssignment
from daitn.objects.lineage import LineageFact, Merge, Verification, Visit
from daitn.objects.messages import Work
from tests.control.jobs.world import DECISION, World

__all__ = ["HOURS_USD", "MEASURING_USD", "limit", "run"]

T = TypeVar("T", Route, Round)

HOURS_USD = {"general": 7.25, "specialist": 0.0, "third": 3600.0}
MEASURING_USD = 360.0
"""Of an hour of any verifier."""


def priced(planned: T, rng: random.Random) -> T:
    """A plan of visits whose computing has a price, and is expected to take this or that time."""

    def one(stop: PlannedVisit) -> PlannedVisit:
        computing_usd = HOURS_USD[stop.site] * rng.choice([0.5, 2.0, 10.0]) / 3600
        return msgspec.structs.replace(
            stop,
            expected_cost_usd=stop.expected_cost_usd + computing_usd,
            computing_usd=computing_usd,
            price_usd_per_hour=HOURS_USD[stop.site],
        )

    found = msgspec.structs.replace(planned, visits=tuple(map(one, planned.visits)))
    if isinstance(found, Round):
        then = tuple(tuple(map(one, rest)) for rest in found.then)
        found = msgspec.structs.replace(found, then=then)
    return found


def stops(planned: Route | Round) -> list[PlannedVisit]:
    if isinstance(planned, Route):
        return list(planned.visits[:1])
    return [stop for chain in planned.chains for stop in chain]


def limit(world: World, cost_usd: float | None) -> None:
    """Give a job a budget in USD before it begins."""
    budget = msgspec.structs.replace(world.job.intent.budget, cost_usd=cost_usd)
    world.job.intent = msgspec.structs.replace(world.job.intent, budget=budget)
    submitted, at_s = world.facts[0]
    world.facts[0] = (msgspec.structs.replace(submitted, intent=world.job.intent), at_s)


def is_believed(fact: Visit | Merge | Verification) -> bool:
    """Whether a report's time is one: of others, nothing is believed, and nothing is paid."""
    return 0.0 <= fact.seconds <= 1e14


def run(world: World, rng: random.Random) -> None:
    """As it goes where the planner keeps to the budget, and visits take what they take."""
    job, plain_plan, plain_fact = world.job, world.planned, world.fact
    plain_verifier = world.verifier
    cost_usd = job.intent.budget.cost_usd
    nonsense = [-1.0, float("nan")]

    def planned() -> Planned:
        found = plain_plan()
        if found.route:
            found = msgspec.structs.replace(found, route=priced(found.route, rng))
        if found.round:
            found = msgspec.structs.replace(found, round=priced(found.round, rng))
        way = found.route or found.round
        usd = (
            sum(stop.expected_cost_usd for stop in (*stops(way), *job.overdue.values()))
            if way
            else 0
        )
        if cost_usd is not None and job.spent_usd + usd > cost_usd:
            return Planned(route=None, decision=DECISION)
        return found

    def fact(site: SiteId, work: Work) -> LineageFact:
        found = plain_fact(site, work)
        if isinstance(found, Visit):
            took_s = rng.choice([0.25, 2.0, 40.0, 1e13, *nonsense])
            if not is_believed(taken := msgspec.structs.replace(found, seconds=took_s)):
                nonsense.clear()  # Once: who says it again and again is not visited any more.
            found = taken
        elif isinstance(found, Merge | Verification):
            found = msgspec.structs.replace(found, seconds=rng.choice([0.25, 0.5, 1e6]))
        return found

    def verifier(objective: ObjectiveName) -> VerifierAssignment:
        found = plain_verifier(objective)
        return msgspec.structs.replace(found, price_usd_per_hour=MEASURING_USD)

    world.planned, world.fact = planned, fact  # type: ignore[method-assign]
    world.verifier = verifier  # type: ignore[method-assign]
    world.run()
