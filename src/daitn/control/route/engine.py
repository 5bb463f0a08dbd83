"""MTRCE, the model training route compute engine (paper, section III): the policy over routes.

*Propose*: the obvious plans and what the search makes of the best of them; if none reaches the
targets within the budget, also routes beyond it that would, so the rejections show what is missing.
*Filter*: budget and release rules over the whole route. *Score*: the utility that the search used.
*Pick*: the best. Only a route's first visit is carried out; the verification after it triggers a
new decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np

from daitn.control.route.explanation import compared, experience_sentences, site_beliefs
from daitn.control.route.filters import FILTERS, MTRCE, in_time
from daitn.control.route.obvious_plans import epochs
from daitn.control.route.pinned import pinned_route
from daitn.control.route.plans import PlannedRoute, planned_routes
from daitn.control.route.question import RouteQuestion
from daitn.control.route.rollout import HORIZON, Plan, PlanOutcomes, play
from daitn.control.route.search import LOOKS, best_plans
from daitn.control.route.task import RouteTask, most_taught, route_task, worn_out
from daitn.objects.decisions import Decision, Route
from daitn.objects.intents import TrainingIntent
from daitn.policy.pipeline import weights_under
from daitn.topology.arrays import Flags

__all__ = ["Mtrce", "Planning"]

_WEIGHTS = {"time": 1.0, "cost": 1.0, "robustness": 1.0, "reach": 1.0}
_ELSEWHERE = 0.85
"""To lead away from the model's current site, a route must take at most this share of the effort:
what is advertised elsewhere is unverified and looks as good as possible. With 0.67, 0.85 and 0.95 a
model reached its targets in 34, 35 and 33 of 38 worlds, not a clear difference."""
_HOPES = ((0.0, 1.0), (1.0, 0.16), (2.0, 0.02))
"""Standard deviations by which visits are assumed to be quicker than expected, and the probability
of that. A deadline excludes a job only if the last of them excludes it too."""
_EXPLAINED_ROUTES = 8
"""Candidates listed in a decision."""


@dataclass(frozen=True)
class _Candidates:
    """Candidates, with the task and plans from which they come."""

    routes: tuple[PlannedRoute, ...] = ()
    task: RouteTask | None = None
    plans: PlanOutcomes | None = None


@dataclass(frozen=True)
class Planning:
    """The next route, and the candidates it was chosen from."""

    route: Route | None
    decision: Decision
    task: RouteTask | None
    """None if nothing was compared: no data, no verifier, or the targets hold."""
    effort: float
    """Effort of the route, see `PlanOutcomes.effort`; infinite without one."""


@dataclass(frozen=True)
class Mtrce:
    """Computes training routes. Pure: the same question gives the same route and decision."""

    weights: Mapping[str, float] = field(default_factory=lambda: _WEIGHTS)
    looks: int = LOOKS
    """Maximum number of plan changes that a decision tries; more never give a worse plan."""

    def plan(self, question: RouteQuestion) -> tuple[Route | None, Decision]:
        """The next route, and why; None if no visit is worthwhile; see `planned`."""
        found = self.planned(question)
        return found.route, found.decision

    def planned(self, question: RouteQuestion) -> Planning:
        """The next route, why, and what is expected of it; None if no visit is worthwhile.

        `None` means all targets hold as measured, nobody measures an objective, a pinned route is
        finished, no visit fits the budget and the rules, or a job without a budget makes no
        progress. A route that is not expected to reach all targets (`reaches`) is the best one
        left. Raises `InvalidInput` if a preference names an unknown weight.
        """
        found = self._routes(question, self._weights(question.intent))
        routes = sorted(found.routes, key=lambda route: route.id)
        rejections = tuple(
            no
            for route in routes
            for check in FILTERS
            if (no := check(question, route)) is not None
        )
        rejected = {no.candidate for no in rejections}
        passes = np.array([route.id not in rejected for route in routes], bool)
        scores = MTRCE.scores(routes, passes, ())
        best = routes[int(scores.argmax())] if passes.any() else None
        decision = MTRCE.decision(
            routes,
            scores,
            lambda row: routes[row].id,
            chosen=best.id if best else None,
            rejections=rejections,
            snapshot_version=question.snapshot_version,
            now_s=question.now_s,
        )
        explained = msgspec.structs.replace(
            _explained(decision, {one.id: one for one in routes}),
            compared=compared(found.plans) if found.plans else (),
            beliefs=site_beliefs(found.task) if found.task else (),
            experience=experience_sentences(question),
        )
        effort = _least(found.plans) if best and found.plans else np.inf
        return Planning(best.route if best else None, explained, found.task, effort)

    def why_none(self, question: RouteQuestion) -> str:
        """Why a job has no route any more, for its owner; empty if other reasons are reported."""
        names = question.intent.objective_names()
        topology = question.topology
        if (
            question.intent.route
            or not topology.options
            or not all(map(topology.verifiers.get, names))
        ):
            return ""
        task = route_task(question, self._weights(question.intent))
        if not task.open.any():
            return "every site with such data failed this job"
        beyond = [
            f"{name}: at most {most:.2f} of {target:g}"
            for name, most, target in zip(names, most_taught(task), task.targets, strict=True)
            if most < target
        ]
        if beyond:
            return f"the data that is allowed cannot teach enough, {', '.join(beyond)}"
        if worn_out(task):
            return (
                f"nothing was measured to come nearer to the targets in {task.stalled} visits, "
                "though every site was tried again"
            )
        return "no visit fits what is left of the budget and the rules of the data owners"

    def _routes(self, question: RouteQuestion, weights: Mapping[str, float]) -> _Candidates:
        intent = question.intent
        measurable = all(map(question.topology.verifiers.get, intent.objective_names()))
        if not measurable or not question.topology.options:
            return _Candidates()
        if not intent.route and question.holds:
            return _Candidates()
        usual = route_task(question, weights)
        if intent.route:
            return _Candidates(_pinned(question, weights), usual)
        if worn_out(usual):
            return _Candidates((), usual)
        within: tuple[PlannedRoute, ...] = ()
        for hope, luck in _hopes(question):
            task = route_task(question, weights, hope) if hope else usual
            outcome = best_plans(task, self.looks)
            found = _planned(question, task, outcome, luck)
            if (outcome.visits > 0).any():
                return _Candidates(found, task, outcome)
            within = within or found
        free = usual.unbounded()
        outcome = best_plans(free, 0 if within else self.looks)
        beyond = _planned(question, free, outcome)
        routes = {found.id: found for found in (*beyond, *within)}
        return _Candidates(tuple(routes.values()), usual, outcome)

    def _weights(self, intent: TrainingIntent) -> dict[str, float]:
        field = "preferences[{index}].scorer"
        return weights_under(MTRCE.name, self.weights, intent.preferences, field)


def _hopes(question: RouteQuestion) -> tuple[tuple[float, float], ...]:
    """Hopes and their probabilities: several only if a deadline meets estimated seconds."""
    guesses = question.verify_s is None or not question.history
    limited = question.intent.budget.duration_s is not None
    return _HOPES if guesses and limited else _HOPES[:1]


def _pinned(question: RouteQuestion, weights: Mapping[str, float]) -> tuple[PlannedRoute, ...]:
    """The pinned route with the expected seconds; if these are too many, with hoped-for ones."""
    found = [
        pinned_route(question, route_task(question, weights, hope).unbounded(), luck)
        for hope, luck in _hopes(question)
    ]
    fits = (one for one in found if all(in_time(question, route) for route in one))
    return next(fits, found[0])


def _planned(
    question: RouteQuestion, task: RouteTask, outcome: PlanOutcomes, luck: float = 1.0
) -> tuple[PlannedRoute, ...]:
    begun = _begun(question, task, outcome)
    return (
        planned_routes(question, task, begun, _EXPLAINED_ROUTES, luck) if begun is not None else ()
    )


def _begun(question: RouteQuestion, task: RouteTask, outcome: PlanOutcomes) -> PlanOutcomes | None:
    """The plans that can begin now, preferring those that begin at the model's site."""
    options = task.known.options
    now = np.array([option.site not in question.later for option in options], bool)
    here = now & np.array([option.site == question.here for option in options], bool)
    found = _beginning(task, outcome, now) if question.later else outcome
    stays = _beginning(task, outcome, here) if here.any() else None
    if found is None or stays is None:
        return found if stays is None else stays
    return stays if _least(stays) * _ELSEWHERE <= _least(found) else found


def _least(outcome: PlanOutcomes) -> float:
    return float(outcome.effort[outcome.allowed > 0].min(initial=np.inf))


def _beginning(task: RouteTask, outcome: PlanOutcomes, first: Flags) -> PlanOutcomes | None:
    """The plans that begin at one of the `first` options.

    If none does, the best plan preceded by a visit to each of them; none if none of them is open.
    """
    plans = tuple(
        plan
        for plan, visits in zip(outcome.plans, outcome.allowed, strict=True)
        if visits and first[plan.stops[0][0]]
    )
    if not plans and len(outcome.plans):
        best = outcome.plans[int(outcome.order()[0])]
        plans = tuple(
            Plan(best.start, ((int(o), epochs(task, int(o), 1.0)), *best.stops)[:HORIZON])
            for o in np.flatnonzero(first & task.open)
        )
    return play(task, plans) if plans else None


def _explained(decision: Decision, named: Mapping[str, PlannedRoute]) -> Decision:
    """The decision with the expected values at the end of each route, and its seconds."""
    ranking = tuple(
        msgspec.structs.replace(
            scored,
            expected=named[scored.candidate].route.visits[-1].expected,
            expected_s=named[scored.candidate].seconds,
        )
        for scored in decision.ranking
    )
    return msgspec.structs.replace(decision, ranking=ranking)
