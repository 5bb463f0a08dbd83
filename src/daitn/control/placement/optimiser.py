"""The model deployment optimiser: which placements to change, and why."""

from __future__ import annotations

import numpy as np

from daitn.control.placement.problem import PlacementProblem, cost_of, costs_of_model
from daitn.control.placement.search import improved
from daitn.objects.placement import PlacementView, PlannedPlace
from daitn.topology.arrays import Flags

__all__ = ["planned"]


def planned(problem: PlacementProblem) -> PlacementView:
    """The changes to make, each with its own gain."""
    target = improved(problem)
    changes = [
        _change(problem, target, int(model), int(site))
        for model, site in np.argwhere(target != problem.standing)
    ]
    return PlacementView(
        changes=tuple(changes),
        cost_now=cost_of(problem, problem.standing),
        cost_then=cost_of(problem, target),
    )


def _change(problem: PlacementProblem, target: Flags, model: int, site: int) -> PlannedPlace:
    add = bool(target[model, site])
    without = target[model].copy()
    without[site] = not add
    costs = costs_of_model(problem, model, np.stack([target[model], without]))
    return PlannedPlace(
        name=problem.models[model],
        site=problem.facilities[site],
        add=add,
        gain=float(costs[1] - costs[0]),
        why=_why(problem, target, model, site, float(costs[1] - costs[0])),
    )


def _why(problem: PlacementProblem, target: Flags, model: int, site: int, gain: float) -> str:
    name, where = problem.models[model], problem.facilities[site]
    per_s = float(problem.demand[:, model].sum())
    if target[model, site]:
        return (
            f"{per_s:.2g} queries/s for {name} wait {gain:.2g} s less per second with it at {where}"
        )
    if gain < 0:
        come = np.flatnonzero(target[:, site] & ~problem.standing[:, site])
        others = ", ".join(problem.models[other] for other in come) or "others"
        return f"{name} makes room at {where} for {others}, where it does more"
    return f"{per_s:.2g} queries/s for {name} are answered as well without what it costs at {where}"
