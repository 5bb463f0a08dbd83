"""MTRCE, the model training route compute engine (paper, section III): the policy over routes.

*Propose*: the search's best routes within the budget and, where none of them reaches the
targets, those beyond it that would, so that the rejections say what is missing. *Filter*: budget
and release rules over the whole route. *Score*: reach, time, cost, robustness. *Pick*: the best.
Only a route's first visit is carried out; the verification after it asks again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from daitn.control.route.checks import FILTERS, SCORERS
from daitn.control.route.pinned import pinned_route
from daitn.control.route.plans import PlannedRoute, RouteContext, planned_routes
from daitn.control.route.problem import Limits, Problem, problem
from daitn.control.route.question import RouteQuestion
from daitn.control.route.search import best_plans
from daitn.control.route.shortlist import shortlist
from daitn.objects.decisions import Decision, Route
from daitn.objects.intents import TrainingIntent
from daitn.policy.pipeline import Policy, Rng

__all__ = ["Mtrce"]

_WEIGHTS = {"time": 1.0, "cost": 1.0, "robustness": 1.0}
_REACH_OVER_OTHERS = 4.0
"""Reach weighs this many times all the others together, so that no saving outweighs a target,
unless the owner states a weight for `reach`."""


@dataclass(frozen=True)
class Mtrce:
    """Computes training routes. Pure: the same question gives the same route and decision."""

    weights: Mapping[str, float] = field(default_factory=lambda: _WEIGHTS)
    hope: float = 0.0
    """Standard deviations by which all that was never measured is taken better than usual."""

    def plan(self, question: RouteQuestion, rng: Rng) -> tuple[Route | None, Decision]:
        """The route to go on with, and why; None where no visit is worth making.

        None: all targets hold as measured, nobody measures an objective, a pinned route is at its
        end, or no visit within budget and release rules is expected to gain more than noise. A
        route that does not reach all targets (`reaches`) is the best that is left. Raises
        `InvalidInput` if a preference names no scorer.
        """
        weights = self._weights(question.intent)
        routes = self._routes(question, weights)
        decision = self._policy(weights).decide(RouteContext(question, routes), rng)
        chosen = next((found for found in routes if found.id == decision.chosen), None)
        return (chosen.route if chosen else None), decision

    def _routes(
        self, question: RouteQuestion, weights: Mapping[str, float]
    ) -> tuple[PlannedRoute, ...]:
        intent = question.intent
        if intent.route:
            return pinned_route(question)
        measurable = all(map(question.topology.verifiers.get, intent.objective_names()))
        if _holds(question) or not measurable or not question.topology.options:
            return ()
        task = problem(question, weights, shortlist(question), self.hope)
        routes = planned_routes(question, task, best_plans(task))
        if any(found.route.reaches for found in routes):
            return routes
        free = _unbounded(task)
        beyond = planned_routes(question, free, best_plans(free))
        return (*routes, *(found for found in beyond if found.route.reaches))

    def _weights(self, intent: TrainingIntent) -> dict[str, float]:
        stated = {preference.scorer: preference.weight for preference in intent.preferences}
        weights = {**self.weights, **stated}
        others = sum(weight for name, weight in weights.items() if name != "reach")
        return {"reach": _REACH_OVER_OTHERS * max(1.0, others), **weights}

    def _policy(self, weights: Mapping[str, float]) -> Policy[RouteContext, PlannedRoute]:
        return Policy(
            name="mtrce",
            propose=lambda context: context.routes,
            identify=lambda found: found.id,
            filters=FILTERS,
            scorers=SCORERS,
            weights=weights,
        )


def _holds(question: RouteQuestion) -> bool:
    """Whether the latest model is measured to reach every target."""
    latest = question.checkpoints[0].values
    return all(latest.get(o.name, -1.0) >= o.at_least for o in question.intent.objectives)


def _unbounded(task: Problem) -> Problem:
    """The same without limits and release rules."""
    starts = replace(task.starts, allowed=np.ones_like(task.starts.allowed))
    release = np.ones_like(task.release)
    return replace(task, limits=Limits(), starts=starts, release=release)
