"""The deployment optimiser's problem: capacitated facility location, with its costs.

Cost per second: the seconds that queries travel and wait, weighted by their rate, plus hosting,
plus the cost of moves, spread over the time a placement is expected to last. The cost of one model
depends on its own places alone; models share nothing but the facilities' memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daitn.objects.identifiers import SiteId
from daitn.topology.arrays import Flags, Floats

__all__ = ["PlacementProblem", "cost_of", "costs_of_model"]


UNSERVED_S = 30.0
"""An unanswered query counts as one that takes this long."""
USD_IN_S = 1e4
"""Seconds of waiting worth one US dollar: 0.36 USD per hour of somebody's waiting."""
_WAIT_MOST_S = UNSERVED_S / 2
"""A late answer is better than none: an answered query counts as waiting no longer than this."""
_BUSY_WELL, _BUSY_MOST = 0.7, 0.95
"""Utilisations. Up to the first, queries go to the nearest replica, as in routing while waits are
short; the rest goes up to the second. Beyond it no formula gives the wait."""
_ROUNDING = 1e-9
"""Tolerance for sums of sizes, as a share of a facility's memory."""


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
    """m x f: queries per second that one replica can answer there; 0 where it cannot be placed."""
    size: Floats
    """m: bytes."""
    memory: Floats
    """f: bytes for these models, including those placed there now."""
    price: Floats
    """f: USD per hour of hosting one model."""
    standing: Flags
    """m x f: current placement."""
    fixed: Flags
    """m x f: places to keep at any cost."""
    move_s: Floats
    """m x f: seconds of work to move the model there."""
    horizon_s: float = 600.0
    """How long a placement is expected to last; a move must pay off within it."""

    def room(self, placed: Flags) -> Floats:
        """f: bytes left; negative if memory does not suffice."""
        left: Floats = self.memory * (1 + _ROUNDING) - self.size @ placed
        return left


def cost_of(problem: PlacementProblem, placed: Flags) -> float:
    """Cost in seconds per second; infinite if memory does not suffice."""
    if (problem.room(placed) < 0.0).any():
        return float("inf")
    models = range(len(problem.models))
    return float(sum(costs_of_model(problem, m, placed[m][None, :])[0] for m in models))


def costs_of_model(problem: PlacementProblem, model: int, places: Floats | Flags) -> Floats:
    """Cost of one model for many sets of places at once (n x f), ignoring memory.

    Each gateway's queries go to the nearest replicas with capacity, the busiest gateway's first, as
    routing roughly does; at each replica they wait as in an M/M/1 queue.
    """
    places = np.asarray(places, np.bool_)
    hosting = places @ problem.price / 3600 * USD_IN_S
    new = places & ~problem.standing[model]
    moving = new @ problem.move_s[model] / problem.horizon_s
    total: Floats = hosting + moving + _answering(problem, model, places)
    return total


def _answering(problem: PlacementProblem, model: int, places: Flags) -> Floats:
    """Seconds per second that queries travel, wait, or go unanswered."""
    near = np.flatnonzero(problem.rate[model] > 0)
    rate = np.where(places[:, near], problem.rate[model, near], 0.0)
    demand = problem.demand[:, model]
    gateways = [int(g) for g in np.argsort(-demand, kind="stable") if demand[g] > 0]
    unserved = np.repeat(demand[gateways, None], len(places), axis=1)
    load, travelling = np.zeros_like(rate), np.zeros(len(places))
    for most in (_BUSY_WELL, _BUSY_MOST):
        rows = np.flatnonzero(unserved.any(axis=0))
        left = rate[rows] * most - load[rows]
        for at, gateway in enumerate(gateways):
            away_s = problem.travel_s[gateway, near]
            order = np.argsort(away_s, kind="stable")
            free = left[:, order]
            before = np.cumsum(free, axis=1) - free
            taken = np.minimum(free, np.maximum(unserved[at, rows, None] - before, 0.0))
            left[:, order] = free - taken
            travelling[rows] += taken @ away_s[order]
            unserved[at, rows] = np.maximum(unserved[at, rows] - taken.sum(axis=1), 0.0)
        load[rows] = rate[rows] * most - left
    busy = load > 0
    waiting = np.divide(load, rate - load, out=np.zeros_like(load), where=busy)
    waiting = np.minimum(waiting, load * _WAIT_MOST_S)
    result: Floats = travelling + waiting.sum(axis=1) + unserved.sum(axis=0) * UNSERVED_S
    return result
