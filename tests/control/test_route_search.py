"""The route search beside an exhaustive one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.route.search import best_plans, walk

from .exhaustive import least_effort
from .instances import small_problem

QUANTA = (1_000.0, 4_000.0, 16_000.0)
WORST = 2.0
"""Effort of the search's route over the least, at most; see benchmarks/route.py for the spread."""


def found_effort(seed: int, sites: int) -> float:
    asked = small_problem(seed, sites, QUANTA)
    plans = best_plans(asked)
    if not plans:
        return np.inf
    walked = walk(asked, plans)
    reached = np.all(walked.states.expected[0] >= asked.aims)
    return float(walked.rank[0]) if reached else np.inf


def test_most_routes_are_the_best_there_is() -> None:
    ratios = []
    for seed in range(60):
        least = least_effort(small_problem(seed, 3, QUANTA), depth=4)
        if np.isfinite(least):
            ratios.append(found_effort(seed, 3) / least)
    assert len(ratios) > 20
    assert np.mean(np.array(ratios) <= 1.0 + 1e-9) >= 0.9
    assert max(ratios) <= WORST


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1_000, 1_000_000), st.integers(1, 3))
def test_a_route_is_found_near_the_best_one(seed: int, sites: int) -> None:
    least = least_effort(small_problem(seed, sites, QUANTA), depth=4)
    if np.isfinite(least):
        assert found_effort(seed, sites) <= WORST * least


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 1_000_000), st.integers(1, 9))
def test_no_visit_of_a_plan_is_for_nothing(seed: int, sites: int) -> None:
    asked = small_problem(seed, sites, QUANTA)
    plans = best_plans(asked)
    walked = walk(asked, plans)
    assert walked.valid.all()
    assert [len(plan.steps) for plan in walked.plans] == [len(plan.steps) for plan in plans]
    values = {row: asked.starts.expected[plan.start] for row, plan in enumerate(plans)}
    for states, rows in walked.trace:
        for at, row in enumerate(rows):
            missing = values[row] < asked.aims
            assert (states.expected[at] > values[row])[missing].any()
            values[row] = states.expected[at]
