"""Random questions to the deployment optimiser, and their best answers."""

from __future__ import annotations

import itertools

import numpy as np

from daitn.control.placement.problem import PlacementProblem, cost_of
from daitn.objects.identifiers import SiteId

__all__ = ["least_cost", "network", "problem"]


def problem(seed: int, models: int = 2, facilities: int = 3, gateways: int = 2) -> PlacementProblem:
    """Crowded, and asked more than can be answered at times; what stands fits."""
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


def network(seed: int, models: int = 50, facilities: int = 100) -> PlacementProblem:
    """Twenty gateways, each of which asks ten models; two replicas of each stand anywhere."""
    asked = problem(seed, models, facilities, 20)
    rng = np.random.default_rng(seed)
    demand, standing = np.zeros_like(asked.demand), np.zeros_like(asked.standing)
    for rates in demand:
        rates[rng.choice(models, 10, replace=False)] = rng.uniform(0.2, 4, 10)
    for model, places in enumerate(standing):
        places[rng.choice(np.flatnonzero(asked.rate[model] > 0), 2, replace=False)] = True
    memory = np.maximum(rng.uniform(2, 6, facilities), asked.size @ standing)
    changed = {"demand": demand, "standing": standing, "memory": memory}
    return PlacementProblem(**{**vars(asked), **changed})


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
