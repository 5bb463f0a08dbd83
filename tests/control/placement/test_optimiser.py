from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.placement.optimiser import PlacementProblem, cost_of, improved, planned
from daitn.objects.identifiers import SiteId


def problem(seed: int, models: int = 2, facilities: int = 3, gateways: int = 2) -> PlacementProblem:
    rng = np.random.default_rng(seed)
    size = rng.uniform(1, 3, models)
    standing = rng.random((models, facilities)) < 0.3
    memory = np.maximum(rng.uniform(2, 6, facilities), size @ standing)
    return PlacementProblem(
        models=tuple(f"m{n}" for n in range(models)),
        facilities=tuple(SiteId(f"f{n}") for n in range(facilities)),
        demand=rng.uniform(0, 8, (gateways, models)),
        travel_s=rng.uniform(0.001, 0.2, (gateways, facilities)),
        rate=rng.uniform(5, 20, (models, facilities)) * (rng.random((models, facilities)) < 0.9),
        size=size,
        memory=memory,
        price=rng.uniform(0, 0.5, facilities),
        standing=standing,
        fixed=np.zeros((models, facilities), np.bool_),
        move_s=np.repeat(size[:, None], facilities, axis=1),
    )


def least_cost(asked: PlacementProblem) -> float:
    """By trying every placement."""
    shape = asked.standing.shape
    allowed = asked.rate > 0
    costs = []
    for bits in itertools.product((False, True), repeat=asked.standing.size):
        placed = np.array(bits).reshape(shape)
        if not (placed & ~allowed).any():
            costs.append(cost_of(asked, placed))
    return min(costs)


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=60)
def test_a_placement_fits_and_is_no_worse_than_today(seed: int) -> None:
    asked = problem(seed, models=3, facilities=4)
    placed = improved(asked)
    assert (asked.size @ placed <= asked.memory + 1e-9).all()
    assert not (placed & (asked.rate <= 0)).any()
    today = asked.standing & (asked.rate > 0)
    assert cost_of(asked, placed) <= cost_of(asked, today) + 1e-9


def test_it_is_near_the_best_placement_there_is() -> None:
    ratios = []
    for seed in range(40):
        asked = problem(seed)
        ratios.append(cost_of(asked, improved(asked)) / least_cost(asked))
    assert min(ratios) >= 1 - 1e-9
    assert np.mean(np.array(ratios) < 1 + 1e-6) >= 0.8
    assert max(ratios) < 1.5


def test_what_an_operator_pinned_stays() -> None:
    asked = problem(1)
    fixed = np.zeros_like(asked.fixed)
    fixed[0, int(np.argmax(asked.rate[0]))] = True
    pinned = PlacementProblem(**{**vars(asked), "fixed": fixed, "memory": asked.memory + 10})
    assert improved(pinned)[fixed].all()


def test_demand_draws_a_replica_near_and_its_end_lets_it_go() -> None:
    quiet = PlacementProblem(
        models=("doctor",),
        facilities=(SiteId("east"), SiteId("west")),
        demand=np.array([[0.0], [5.0]]),
        travel_s=np.array([[0.001, 0.3], [0.3, 0.001]]),
        rate=np.array([[50.0, 50.0]]),
        size=np.array([1.0]),
        memory=np.array([10.0, 10.0]),
        price=np.array([0.05, 0.05]),
        standing=np.array([[True, False]]),
        fixed=np.zeros((1, 2), np.bool_),
        move_s=np.array([[1.0, 1.0]]),
    )
    changes = {(c.site, c.add) for c in planned(quiet).changes}
    assert changes == {("west", True), ("east", False)}
    both = PlacementProblem(**{**vars(quiet), "demand": np.array([[8.0], [8.0]])})
    view = planned(both)
    assert [(c.site, c.add) for c in view.changes] == [("west", True)]
    assert view.cost_then < view.cost_now
    assert "doctor" in view.changes[0].why
    settled = PlacementProblem(**{**vars(both), "standing": np.array([[True, True]])})
    assert planned(settled).changes == ()


def test_noise_moves_nothing() -> None:
    """A move has to pay for itself within the horizon."""
    asked = PlacementProblem(
        models=("doctor",),
        facilities=(SiteId("east"), SiteId("west")),
        demand=np.array([[0.5]]),
        travel_s=np.array([[0.020, 0.019]]),
        rate=np.array([[50.0, 50.0]]),
        size=np.array([1.0]),
        memory=np.array([10.0, 10.0]),
        price=np.zeros(2),
        standing=np.array([[True, False]]),
        fixed=np.zeros((1, 2), np.bool_),
        move_s=np.array([[10.0, 10.0]]),
    )
    assert planned(asked).changes == ()


@pytest.mark.parametrize("seed", range(3))
def test_a_larger_network_is_planned(seed: int) -> None:
    asked = problem(seed, models=6, facilities=10, gateways=4)
    placed = improved(asked)
    assert np.isfinite(cost_of(asked, placed))
