"""What computing costs: one price in plans, in budgets and in the ledger."""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.jobs.machine import replay
from daitn.control.route.costs import costs
from daitn.control.route.engine import Mtrce
from daitn.objects.decisions import PlannedVisit, Round, Route
from daitn.objects.identifiers import SiteId
from daitn.objects.intents import Budget, Preference
from daitn.objects.jobs import JobEvent, Planned, Reported
from daitn.objects.lineage import LineageFact, Visit
from daitn.objects.merging import Algorithm
from daitn.objects.messages import Work

from .jobs.test_rounds import RoundsWorld
from .jobs.world import DECISION, World
from .route_world import general, intent, question, topology

T = TypeVar("T", Route, Round)

ALL_LABELS = dict.fromkeys(("information", "treatment", "inheritance", "outlook", "research"), 400)


# Plans


def test_a_plan_counts_computing_by_the_time_that_it_expects() -> None:
    """A billion operations at 1e11 a second, for 36 USD an hour: a ten-thousandth of a dollar."""
    options = (general("a", ALL_LABELS, price=0.5, hour=36.0), general("b", ALL_LABELS, price=0.5))
    asked = question(intent(broad=0.7), topology(options))
    priced = costs(asked, topology(options).options)
    slower = priced.example_s / 0.01
    assert priced.computing_usd == pytest.approx([1e-4 * slower[0], 0.0])
    assert priced.price_usd == pytest.approx([5e-4 + 1e-4 * slower[0], 5e-4])


def test_of_sites_that_are_alike_the_one_with_cheaper_computing_is_chosen() -> None:
    for dear, cheap in (("a", "b"), ("b", "a")):
        options = (general(dear, ALL_LABELS, hour=90.0), general(cheap, ALL_LABELS, hour=9.0))
        frugal = (Preference(scorer="cost", weight=20.0),)
        wanted = msgspec.structs.replace(intent(broad=0.7), preferences=frugal)
        route, _ = Mtrce().plan(question(wanted, topology(options)))
        assert route is not None
        first = route.visits[0]
        assert first.site == cheap
        assert first.price_usd_per_hour == 9.0
        assert first.computing_usd == first.expected_cost_usd > 0.0


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.floats(0.001, 5.0))
def test_no_route_costs_more_than_the_budget_has_left(seed: int, cost_usd: float) -> None:
    rng = random.Random(seed)
    options = [
        general(
            f"s{k}",
            {label: rng.randint(50, 900) for label in ALL_LABELS},
            price=rng.choice([0.0, 0.2]),
            hour=rng.choice([0.0, 3.0, 300.0]),
            speed=rng.choice([2e10, 4e11]),
        )
        for k in range(rng.randint(1, 5))
    ]
    asked = question(intent(broad=0.7, budget=Budget(cost_usd=cost_usd)), topology(options))
    route, _ = Mtrce().plan(asked)
    by_id = {option.site: option for option in options}
    for stop in route.visits if route else ():
        option = by_id[stop.site]
        data = option.dataset.price_usd_per_1k * stop.examples / 1000
        assert stop.expected_cost_usd == pytest.approx(data + stop.computing_usd)
        assert (stop.computing_usd > 0.0) == (option.compute.price_usd_per_hour > 0.0)
    if route:
        assert sum(s.expected_cost_usd for s in route.visits) <= cost_usd * (1 + 1e-9)


# The ledger

HOURS_USD = {"general": 7.25, "specialist": 0.0, "third": 3600.0}


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


def run(world: World, rng: random.Random) -> None:
    """As it goes where the planner keeps to the budget, and visits take what they take."""
    job, plain_plan, plain_fact = world.job, world.planned, world.fact
    cost_usd = job.intent.budget.cost_usd

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
            took_s = rng.choice([0.25, 2.0, 40.0, 1e18, -1.0, float("nan")])
            found = msgspec.structs.replace(found, seconds=took_s)
        return found

    world.planned, world.fact = planned, fact  # type: ignore[method-assign]
    world.run()


def visits(facts: list[tuple[JobEvent, float]]) -> Iterator[tuple[Visit, float]]:
    """Those that were reported, with when."""
    for event, at_s in facts:
        if isinstance(event, Reported) and event.outcome.entry is not None:
            fact = event.outcome.entry.fact
            if isinstance(fact, Visit):
                yield fact, at_s


@settings(max_examples=60, deadline=None)
@given(
    st.randoms(use_true_random=False),
    st.sampled_from([None, Algorithm.FEDAVG, Algorithm.FEDSEQ]),
    st.one_of(st.none(), st.floats(0.6, 12.0)),
)
def test_visits_are_paid_by_their_time_and_no_job_beyond_its_budget(
    rng: random.Random, algorithm: Algorithm | None, cost_usd: float | None
) -> None:
    """Against a recount from the reports alone. Of its own time a site may say what it likes."""
    world = World() if algorithm is None else RoundsWorld(algorithm)
    limit(world, cost_usd)
    run(world, rng)
    amounts = {
        entry.cause.removeprefix("visit/"): Decimal(-entry.on(["owner/acme"])) / 10**6
        for entry in world.job.entries
        if entry.cause.startswith("visit/")
    }
    made = list(visits(world.facts))
    assert {visit.visit for visit, _ in made} == amounts.keys()
    rounding = Decimal("0.0000005")
    for visit, at_s in made:
        passed_s = at_s - world.facts[0][1]
        seconds = max(0.0, min(passed_s, visit.seconds)) if visit.seconds == visit.seconds else 0.0
        data = Decimal("0.5")
        whole = data + Decimal(repr(HOURS_USD[visit.site])) * Decimal(repr(seconds)) / 3600
        assert data - rounding <= amounts[visit.visit] <= whole + rounding
        if cost_usd is None:
            assert abs(amounts[visit.visit] - whole) <= rounding
    together = sum(amounts.values(), Decimal(0))
    assert abs(together - Decimal(world.job.spent_usd)) <= rounding * (1 + len(amounts))
    if cost_usd is not None:
        assert world.job.spent_usd <= cost_usd * (1 + 1e-12)
    assert replay(world.facts).entries == world.job.entries
