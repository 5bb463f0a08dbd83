"""Placements fit, are near the best there is, hold still, and say why they change."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.placement.optimiser import planned
from daitn.control.placement.problem import PlacementProblem, cost_of, costs_of_model
from daitn.control.placement.search import improved
from daitn.objects.identifiers import SiteId

from .instances import least_cost, network, problem


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
    assert np.mean(np.array(ratios) < 1 + 1e-6) >= 0.9
    assert max(ratios) < 1.1


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


def test_where_there_is_no_room_one_goes_for_another_and_it_is_told() -> None:
    asked = PlacementProblem(
        models=("idle", "doctor"),
        facilities=(SiteId("near"), SiteId("far")),
        demand=np.array([[0.01, 9.0]]),
        travel_s=np.array([[0.001, 0.5]]),
        rate=np.full((2, 2), 50.0),
        size=np.array([2.0, 2.0]),
        memory=np.array([2.0, 2.0]),
        price=np.zeros(2),
        standing=np.array([[True, False], [False, True]]),
        fixed=np.zeros((2, 2), np.bool_),
        move_s=np.full((2, 2), 1.0),
    )
    changes = {(c.name, str(c.site), c.add): c for c in planned(asked).changes}
    assert changes.keys() == {
        ("idle", "near", False),
        ("idle", "far", True),
        ("doctor", "far", False),
        ("doctor", "near", True),
    }
    assert "makes room at near for doctor" in changes["idle", "near", False].why
    assert all(math.isfinite(change.gain) for change in changes.values())


def test_a_facility_that_shrank_lets_the_least_go() -> None:
    asked = problem(3, models=3, facilities=3)
    standing = asked.rate > 0
    shrunk = PlacementProblem(
        **{**vars(asked), "standing": standing, "memory": asked.size @ standing * 0.6}
    )
    assert cost_of(shrunk, standing) == math.inf
    assert math.isfinite(cost_of(shrunk, improved(shrunk)))


@given(st.integers(0, 10_000), st.data())
@settings(deadline=None, max_examples=40)
def test_costs_of_many_placements_are_those_of_each(seed: int, data: st.DataObject) -> None:
    """And more places never make queries wait longer: hosting and moving alone can cost more."""
    asked = problem(seed, models=1, facilities=4, gateways=3)
    free = PlacementProblem(**{**vars(asked), "price": np.zeros(4), "move_s": np.zeros((1, 4))})
    flags = st.lists(st.booleans(), min_size=4, max_size=4)
    places = np.array(data.draw(st.lists(flags, min_size=1, max_size=6)))
    costs = costs_of_model(free, 0, places)
    for row, cost in zip(places, costs, strict=True):
        assert cost == pytest.approx(costs_of_model(free, 0, row[None, :])[0])
    nowhere = costs_of_model(free, 0, np.zeros((1, 4), np.bool_))[0]
    assert nowhere == pytest.approx(30.0 * asked.demand.sum())
    assert (costs <= nowhere + 1e-9).all()


@pytest.mark.parametrize("seed", range(2))
def test_a_network_of_a_hundred_facilities_is_planned_and_stays_so(seed: int) -> None:
    asked = network(seed)
    placed = improved(asked)
    assert (asked.room(placed) >= 0).all()
    assert cost_of(asked, placed) < cost_of(asked, asked.standing)
    settled = PlacementProblem(**{**vars(asked), "standing": placed})
    assert planned(settled).cost_then <= cost_of(settled, placed) + 1e-9


def test_an_overloaded_facility_gets_a_replica_and_keeps_its_own() -> None:
    """Slow answers and a long queue: a late answer is better than none."""
    asked = PlacementProblem(
        models=("doctor",),
        facilities=(SiteId("east"), SiteId("west")),
        demand=np.array([[5.0]]),
        travel_s=np.array([[0.001, 0.001]]),
        rate=np.array([[0.1, 0.1]]),
        size=np.array([1.0]),
        memory=np.array([1.0, 1.0]),
        price=np.array([0.01, 0.01]),
        standing=np.array([[True, False]]),
        fixed=np.zeros((1, 2), np.bool_),
        move_s=np.array([[1.0, 1.0]]),
    )
    assert [(c.site, c.add) for c in planned(asked).changes] == [("west", True)]
