"""Odd things that owners, sites and old records say: a decision comes, and it is a number."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import pytest

from daitn.control.feasibility import assess
from daitn.control.route.costs import example_s
from daitn.control.route.engine import Mtrce
from daitn.control.route.experience import Lesson, PastJob, pooled
from daitn.control.route.question import Believed, RouteQuestion
from daitn.objects.decisions import Route
from daitn.objects.descriptors import DatasetDescriptor
from daitn.objects.identifiers import SiteId
from daitn.objects.intents import Budget
from daitn.objects.wire import decode, encode

from .route_world import general, healthcare, intent, question, topology

ASKED = question(intent(broad=0.8, expert=0.9), topology(healthcare()))


def planned(asked: RouteQuestion) -> Route:
    route, decision = Mtrce().plan(asked)
    assert route is not None
    numbers = [value for stop in route.visits for value in stop.expected.values()]
    numbers += [term for scored in decision.ranking for term in scored.terms.values()]
    assert all(map(math.isfinite, (*numbers, route.chance)))
    return route


@pytest.mark.parametrize(
    "changes",
    [
        {"price_usd_per_1k": math.nan},
        {"price_usd_per_1k": math.inf},
        {"price_usd_per_1k": -1.0},
        {"quality": math.nan},
        {"quality": 1.5},
        {"samples": -1},
        {"labels": {"information": -5}},
    ],
    ids=str,
)
def test_a_descriptor_with_an_impossible_number_is_not_read(changes: dict[str, object]) -> None:
    odd = msgspec.structs.replace(healthcare()[0].dataset, **changes)
    with pytest.raises(Exception, match="Expected"):
        decode(encode(odd), DatasetDescriptor)


def test_sites_of_a_few_records_are_planned_for() -> None:
    few = topology(general(f"t{n}", {"information": n}) for n in (1, 3, 5, 8))
    assert planned(question(intent(broad=0.6), few)).visits


@pytest.mark.parametrize("speed", [1.0, 15e3, 1e6, 1e9, 1e15, 1e30])
def test_a_site_is_as_fast_as_it_says(speed: float) -> None:
    site = general("one", {"information": 500}, speed=speed)
    assert example_s(1e4, (), [site]) == pytest.approx(1e4 / speed)


@pytest.mark.parametrize("speed", [0.0, 5e-324])
def test_a_site_without_a_speed_is_planned_for(speed: float) -> None:
    site = general("one", {"information": 500}, speed=speed)
    assert planned(question(intent(broad=0.6), topology([site]))).visits


def test_empty_sites_are_planned_for() -> None:
    assert planned(question(intent(broad=0.6), topology([general("none", {})]))).visits


@pytest.mark.parametrize("budget", [Budget(duration_s=5e-324), Budget(cost_usd=5e-324)], ids=str)
def test_a_budget_of_next_to_nothing_is_assessed(budget: Budget) -> None:
    priced = topology(general(f"g{n}", {"information": 500}, price=1.0) for n in range(3))
    said = assess(question(intent(broad=0.6, budget=budget), priced), lambda wanted: priced)
    assert not said.feasible


@pytest.mark.parametrize(
    "odd",
    [
        Believed(math.nan, 1.0),
        Believed(1e9, 1e-300),
        Believed(5.0, 0.0),
        Believed(5.0, math.inf),
        Believed(5.0, -1.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("key", ["tau", "level:ghr/pairs", "foo:x"])
def test_absurd_experience_moves_no_decision_out_of_bounds(key: str, odd: Believed) -> None:
    planned(replace(ASKED, experience={key: odd}))


def test_lessons_that_nobody_knows_or_that_are_no_numbers_are_left_aside() -> None:
    past = [
        PastJob(recipe="r", parameters=1, lessons={"foo:x": Lesson(1.0, 1.0)}),
        PastJob(recipe="r", parameters=1, lessons={"tau": Lesson(math.nan, 1.0)}),
        PastJob(recipe="r", parameters=1, lessons={"tau": Lesson(6.0, 0.0)}),
        PastJob(recipe="r", parameters=1, lessons={"warm": Lesson(1.0, 1e-200)}),
    ]
    taught = pooled(past, "r", 1, {"tau": Believed(5.0, 0.0)})
    assert set(taught) == {"tau", "warm"}
    assert taught["tau"] == Believed(5.0, 0.0)
    assert math.isfinite(taught["warm"].mean)
    assert taught["warm"].sd > 0.0


def test_without_money_left_free_sites_teach_as_without_a_limit() -> None:
    short = intent(broad=0.8, expert=0.9, budget=Budget(duration_s=20.0))
    free = replace(ASKED, intent=short)
    broke = replace(
        ASKED, intent=msgspec.structs.replace(short, budget=Budget(duration_s=20.0, cost_usd=0.0))
    )
    assert planned(broke).visits == planned(free).visits


def test_an_end_without_any_site_left_blames_the_sites_and_not_the_data() -> None:
    sites = tuple(SiteId(option.site) for option in healthcare())
    excluded = replace(ASKED, excluded=sites)
    assert Mtrce().plan(excluded)[0] is None
    assert "failed" in Mtrce().why_none(excluded)


def test_topics_in_another_order_are_the_same_field() -> None:
    def dataset(site: str, *topics: str) -> tuple[object, ...]:
        option = general(site, {"information": 500, "treatment": 300})
        data = msgspec.structs.replace(option.dataset, topics=topics)
        return (msgspec.structs.replace(option, dataset=data),)

    def chance(*topics: str) -> float:
        options = (*dataset("a", "medicine", "health"), *dataset("b", *topics))
        asked = question(
            intent(broad=0.8, budget=Budget(duration_s=200.0)),
            topology(options),  # type: ignore[arg-type]
        )
        return planned(asked).chance

    assert chance("health", "medicine", "health") == chance("medicine", "health")
