"""The deployment optimiser's question: a capacitated facility location problem, and its costs.

Cost per second: seconds that queries travel and wait, weighted by how many come, plus hosting, plus
what moving costs, spread over the time for which a placement is expected to hold. What one model
costs depends on its own places alone; models share nothing but the facilities' memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daitn.objects.identifiers import SiteId

__all__ = ["Flags", "Floats", "PlacementProblem", "cost_of", "costs_of_model"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

UNSERVED_S = 30.0
"""What a query that nobody can answer counts: as one that takes so long."""
USD_IN_S = 1e4
"""Seconds of waiting that a US dollar is worth: 0.36 USD per hour that somebody waits."""
_WAIT_MOST_S = UNSERVED_S / 2
"""A late answer is better than none: what is answered at all counts as no longer than this."""
_BUSY_WELL, _BUSY_MOST = 0.7, 0.95
"""Utilisations: up to the first the nearest replica is used, as routing does while nobody waits
long; up to the second, what nobody could take so. Beyond, waiting is not told by a formula."""
_ROUNDING = 1e-9
"""Share of a facility's memory that sums of sizes may be off by."""


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

    def room(self, placed: Flags) -> Floats:
        """f: bytes left; negative where memory does not suffice."""
        left: Floats = self.memory * (1 + _ROUNDING) - self.size @ placed
        return left


def cost_of(problem: PlacementProblem, placed: Flags) -> float:
    """Seconds per second; infinite where memory does not suffice."""
    if (problem.room(placed) < 0.0).any():
        return float("inf")
    models = range(len(problem.models))
    return float(sum(costs_of_model(problem, m, placed[m][None, :])[0] for m in models))


def costs_of_model(problem: PlacementProblem, model: int, places: Floats | Flags) -> Floats:
    """What one model costs, for many sets of its places at once (n x f), memory aside.

    Each gateway's queries go to the nearest replicas with room, those of the busiest gateway first,
    as routing does on the whole; at each replica they wait as in an M/M/1 queue.
    """
    places = np.asarray(places, np.bool_)
    hosting = places @ problem.price / 3600 * USD_IN_S
    new = places & ~problem.standing[model]
    moving = new @ problem.move_s[model] / problem.horizon_s
    total: Floats = hosting + moving + _answering(problem, model, places)
    return total


def _answering(problem: PlacementProblem, model: int, places: Flags) -> Floats:
    """Seconds per second that queries travel, wait, or are not answered."""
    near = np.flatnonzero(problem.rate[model] > 0)
    rate = np.where(places[:, near], problem.rate[model, near], 0.0)
    demand = problem.demand[:, model]
    gateways = [int(g) for g in np.argsort(-demand, kind="stable") if demand[g] > 0]
    asked = np.repeat(demand[gateways, None], len(places), axis=1)
    load, travelling = np.zeros_like(rate), np.zeros(len(places))
    for most in (_BUSY_WELL, _BUSY_MOST):
        rows = np.flatnonzero(asked.any(axis=0))
        left = rate[rows] * most - load[rows]
        for at, gateway in enumerate(gateways):
            away_s = problem.travel_s[gateway, near]
            order = np.argsort(away_s, kind="stable")
            there = left[:, order]
            before = np.cumsum(there, axis=1) - there
            taken = np.minimum(there, np.maximum(asked[at, rows, None] - before, 0.0))
            left[:, order] = there - taken
            travelling[rows] += taken @ away_s[order]
            asked[at, rows] = np.maximum(asked[at, rows] - taken.sum(axis=1), 0.0)
        load[rows] = rate[rows] * most - left
    busy = load > 0
    waiting = np.divide(load, rate - load, out=np.zeros_like(load), where=busy)
    waiting = np.minimum(waiting, load * _WAIT_MOST_S)
    result: Floats = travelling + waiting.sum(axis=1) + asked.sum(axis=0) * UNSERVED_S
    return result
