"""What computing costs: one price in plans, in budgets and in the ledger."""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.jobs.machine import replay
from daitn.control.route.costs import costs
from daitn.control.route.engine import Mtrce
from daitn.objects.intents import Budget, Preference
from daitn.objects.jobs import JobEvent, Reported
from daitn.objects.lineage import Merge, Verification, Visit
from daitn.objects.merging import Algorithm

from .jobs.prices import HOURS_USD, MEASURING_USD, is_believed, limit, run
from .jobs.test_rounds import RoundsWorld
from .jobs.world import World
from .route_world import general, intent, question, topology

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


def checks(facts: list[tuple[JobEvent, float]]) -> Iterator[tuple[str, Merge | Verification]]:
    """Merges and measurements that were reported, with the names of their entries."""
    for event, _ in facts:
        if isinstance(event, Reported) and event.outcome.entry is not None:
            match event.outcome.entry.fact:
                case Merge() as fact if is_believed(fact):
                    yield f"merge/{fact.visit}", fact
                case Verification() as fact if is_believed(fact):
                    yield f"measurement/{fact.visit}", fact


def visits(facts: list[tuple[JobEvent, float]]) -> Iterator[tuple[Visit, float]]:
    """Those that were reported, with when."""
    for event, at_s in facts:
        if isinstance(event, Reported) and event.outcome.entry is not None:
            fact = event.outcome.entry.fact
            if isinstance(fact, Visit) and is_believed(fact):
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
    paid = {entry.cause: Decimal(-entry.on(["owner/acme"])) / 10**6 for entry in world.job.entries}
    amounts = {
        cause.removeprefix("visit/"): usd
        for cause, usd in paid.items()
        if cause.startswith("visit/")
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
    for cause, fact in checks(world.facts):
        hour = MEASURING_USD if isinstance(fact, Verification) else HOURS_USD[fact.site]
        whole = Decimal(repr(hour)) * Decimal(repr(fact.seconds)) / 3600
        assert 0 <= paid[cause] <= whole + rounding
        if cost_usd is None and fact.seconds < 1.0:  # Each takes a second at least here.
            assert abs(paid[cause] - whole) <= rounding
    together = sum(paid.values(), Decimal(0))
    assert abs(together - Decimal(world.job.spent_usd)) <= rounding * (1 + len(paid))
    if cost_usd is not None:
        assert world.job.spent_usd <= cost_usd * (1 + 1e-12)
    assert replay(world.facts).entries == world.job.entries
