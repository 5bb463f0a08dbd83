"""The route search beside all plans there are."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.route.engine import Mtrce
from daitn.control.route.obvious_plans import amounts, obvious_plans
from daitn.control.route.rollout import Stop, play
from daitn.control.route.search import best_plans
from daitn.control.route.task import RouteTask, route_task
from daitn.objects.intents import Budget

from .exhaustive import best_of_all
from .instances import instance

PLENTY = 5_000
"""Looks of a search that is not short of them."""


def asked(seed: int, sites: int) -> RouteTask:
    return route_task(instance(seed, sites), Mtrce().weights)


def some_stops(given: RouteTask) -> list[Stop]:
    """A quarter of an epoch, one, and four at every option."""
    return [(k, n) for k in range(len(given.known.options)) for n in amounts(given, k)[1:6:2]]


def ratios(seeds: range, most_sites: int) -> list[float]:
    """Effort of the search's plan over the least of all plans of up to three visits."""
    found = []
    for seed in seeds:
        given = asked(seed, random.Random(seed).randint(2, most_sites))
        least, reached = best_of_all(given, some_stops(given), depth=3)
        outcome = best_plans(given, PLENTY)
        assert (outcome.visits > 0).any() or not reached
        found.append(float(outcome.effort.min()) / least)
    return found


def test_plans_are_as_good_as_the_best_of_all() -> None:
    """Often better: the search looks further than three visits and has more amounts."""
    found = ratios(range(16), 3)
    assert np.mean(np.maximum(found, 1.0)) <= 1.01
    assert np.mean(found) <= 1.0


@pytest.mark.long
def test_plans_are_as_good_as_the_best_of_all_in_many_networks() -> None:
    found = ratios(range(1_000, 1_120), 4)
    assert np.mean(np.maximum(found, 1.0)) <= 1.01
    assert np.mean(found) <= 1.0


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 1_000_000), st.integers(1, 8))
def test_no_plan_is_worse_than_the_obvious_ways(seed: int, sites: int) -> None:
    given = asked(seed, sites)
    obvious = play(given, tuple(obvious_plans(given)))
    assert best_plans(given).effort.min() <= obvious.effort.min() * (1.0 + 1e-9)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    st.integers(0, 1_000_000),
    st.integers(1, 8),
    st.lists(st.integers(0, 1_200), min_size=2, max_size=3),
)
def test_more_looks_never_find_a_worse_plan(seed: int, sites: int, looks: list[int]) -> None:
    given = asked(seed, sites)
    efforts = [float(best_plans(given, count).effort.min()) for count in sorted(looks)]
    for fewer, more in pairwise(efforts):
        assert more <= fewer * (1.0 + 1e-9)


@pytest.mark.parametrize("seed", [9, 13, 20, 34, 56])
def test_looks_that_end_within_a_round_do_not_find_more(seed: int) -> None:
    """A part of a round once found what the whole round passed over."""
    given = limited(seed)
    efforts = [float(best_plans(given, n).effort.min()) for n in (0, 30, 100, 250, 400, 1_000)]
    for fewer, more in pairwise(efforts):
        assert more <= fewer * (1.0 + 1e-9)


def limited(seed: int) -> RouteTask:
    """A random network of up to seven sites and a random budget."""
    rng = random.Random(seed)
    base = instance(seed, rng.randint(1, 7))
    budget = Budget(
        duration_s=rng.uniform(30, 400),
        cost_usd=rng.choice([None, rng.uniform(0, 3)]),
        examples=rng.choice([None, None, rng.randint(300, 20_000)]),
    )
    wanted = msgspec.structs.replace(base.intent, budget=budget)
    return route_task(replace(base, intent=wanted), Mtrce().weights)


def test_the_same_task_gives_the_same_plans() -> None:
    one, other = best_plans(asked(5, 5)), best_plans(asked(5, 5))
    assert one.plans == other.plans
    np.testing.assert_array_equal(one.effort, other.effort)
