"""Where models stand best, given what is asked where: a capacitated facility location problem.

Cost per second: seconds that queries travel and wait, weighted by how many come, plus hosting, plus
what moving costs, spread over the time for which a placement is expected to hold. Greedy additions
and local search (add, drop, move); see Korupolu, Plaxton and Rajaraman, "Analysis of a local search
heuristic for facility location problems", Journal of Algorithms 2000. An exhaustive search over
small cases stands beside it in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from daitn.objects.identifiers import SiteId
from daitn.objects.placement import PlacementView, PlannedPlace

__all__ = ["PlacementProblem", "cost_of", "improved", "planned"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

UNSERVED_S = 30.0
"""What a query that nobody can answer counts: as one that takes so long."""
USD_IN_S = 1e4
"""Seconds of waiting that a US dollar is worth: 0.36 USD per hour that somebody waits."""
_BUSY_MOST = 0.95
"""Utilisation beyond which waiting is not told by a formula any more."""
_THOROUGHLY_TRIED, _MOST_TRIED = 5_000, 30_000
"""Placements of which the best of all neighbours is taken, and those that are looked at: from
then on the first better one is good enough. All of them take about a second."""


@dataclass(frozen=True)
class PlacementProblem:
    """Arrays: m models, f facilities, g gateways."""

    models: tuple[str, ...]
    facilities: tuple[SiteId, ...]
    demand: Floats
    """g x m: queries per second."""
    travel_s: Floats
    """g x f: round trip."""
    rate: Floats
    """m x f: queries per second that one replica there can answer; 0 where it cannot stand."""
    size: Floats
    """m: bytes."""
    memory: Floats
    """f: bytes for these models, those that stand there included."""
    price: Floats
    """f: USD per hour of hosting one model."""
    standing: Flags
    """m x f: where models stand now."""
    fixed: Flags
    """m x f: where they are to stand whatever it costs."""
    move_s: Floats
    """m x f: seconds of work that it takes to bring the model there."""
    horizon_s: float = 600.0
    """For how long a placement is expected to hold: a move has to pay for itself in it."""


def cost_of(problem: PlacementProblem, placed: Flags) -> float:
    """Seconds per second; infinite where memory does not suffice."""
    return _Costs(problem).of(placed)


def improved(problem: PlacementProblem) -> Flags:
    """A placement that no single addition, removal, move or displacement makes better."""
    costs = _Costs(problem)
    placed = (problem.standing & (problem.rate > 0)) | problem.fixed
    cost, tried = costs.of(placed), 0
    while tried < _MOST_TRIED:
        best, best_cost = placed, cost
        for changed in _neighbours(problem, placed):
            tried += 1
            changed_cost = costs.of(changed)
            if changed_cost < best_cost - 1e-9:
                best, best_cost = changed, changed_cost
                if tried > _THOROUGHLY_TRIED:
                    break
            if tried >= _MOST_TRIED:
                break
        if best is placed:
            break
        placed, cost = best, best_cost
    return placed


class _Costs:
    """Costs of placements of one problem. What a model's queries cost depends on its own places
    alone, and is worked out once for each set of them."""

    def __init__(self, problem: PlacementProblem) -> None:
        self._problem = problem
        self._served: dict[tuple[int, bytes], float] = {}

    def of(self, placed: Flags) -> float:
        problem = self._problem
        if (problem.size @ placed > problem.memory + 1e-9).any():
            return float("inf")
        waiting = sum(self._served_s(model, placed[model]) for model in range(len(placed)))
        hosting = float((placed * problem.price).sum()) / 3600 * USD_IN_S
        moved = placed & ~problem.standing
        moving = float((problem.move_s * moved).sum()) / problem.horizon_s
        return waiting + hosting + moving

    def _served_s(self, model: int, places: Flags) -> float:
        key = model, places.tobytes()
        known = self._served.get(key)
        if known is None:
            known = self._served[key] = _served_s(self._problem, model, places)
        return known


def planned(problem: PlacementProblem) -> PlacementView:
    """What to change, each change with what it alone is worth."""
    target = improved(problem)
    now, then = cost_of(problem, problem.standing), cost_of(problem, target)
    changes = []
    for model, site in zip(*np.nonzero(target != problem.standing), strict=True):
        without = target.copy()
        without[model, site] = problem.standing[model, site]
        gain = cost_of(problem, without) - then
        add = bool(target[model, site])
        name, where = problem.models[model], problem.facilities[site]
        asked = float(problem.demand[:, model].sum())
        why = (
            f"{asked:.2g} queries/s for {name} are answered sooner with it at {where}"
            if add
            else f"what is asked of {name} is answered as well without it at {where}"
        )
        changes.append(PlannedPlace(name=name, site=where, add=add, gain=gain, why=why))
    return PlacementView(changes=tuple(changes), cost_now=now, cost_then=then)


def _neighbours(problem: PlacementProblem, placed: Flags) -> Iterator[Flags]:
    models, facilities = placed.shape
    room = problem.memory - problem.size @ placed
    for model, site in product(range(models), range(facilities)):
        if placed[model, site]:
            if not problem.fixed[model, site]:
                yield _changed(placed, (model, site, False))
        elif problem.rate[model, site] > 0:
            yield _changed(placed, (model, site, True))
            for other in np.flatnonzero(placed[model] & ~problem.fixed[model]):
                yield _changed(placed, (model, site, True), (model, int(other), False))
            if room[site] < problem.size[model]:
                yield from _displacing(problem, placed, model, site)


def _displacing(problem: PlacementProblem, placed: Flags, model: int, site: int) -> Iterator[Flags]:
    """A model comes to a full facility, and one of those there goes, away or elsewhere."""
    for other in np.flatnonzero(placed[:, site] & ~problem.fixed[:, site]):
        gone = (int(other), site, False)
        yield _changed(placed, (model, site, True), gone)
        for place in np.flatnonzero(~placed[other] & (problem.rate[other] > 0)):
            yield _changed(placed, (model, site, True), gone, (int(other), int(place), True))


def _changed(placed: Flags, *changes: tuple[int, int, bool]) -> Flags:
    changed = placed.copy()
    for model, site, there in changes:
        changed[model, site] = there
    return changed


def _served_s(problem: PlacementProblem, model: int, places: Flags) -> float:
    """Seconds per second that queries for one model travel and wait.

    Each gateway's queries go to the nearest replica with room, as routing does on the whole;
    waiting is that of an M/M/1 queue at each replica.
    """
    demand = problem.demand[:, model]
    left = np.where(places, problem.rate[model] * _BUSY_MOST, 0.0)
    load = np.zeros(len(left))
    cost = 0.0
    for gateway in np.argsort(-demand):
        queries = float(demand[gateway])
        for site in np.argsort(problem.travel_s[gateway], kind="stable"):
            if queries <= 0:
                break
            taken = min(queries, float(left[site]))
            if taken > 0:
                cost += taken * float(problem.travel_s[gateway, site])
                left[site] -= taken
                load[site] += taken
                queries -= taken
        cost += queries * UNSERVED_S
    rates = problem.rate[model]
    busy = load > 0
    return cost + float((load[busy] / (rates[busy] - load[busy])).sum())
