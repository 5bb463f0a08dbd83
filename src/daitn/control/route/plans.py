"""Plans of the search as routes that people read and filters and scorers judge."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from daitn.control.route.knowledge import Floats
from daitn.control.route.problem import Problem
from daitn.control.route.question import RouteQuestion, narrowed
from daitn.control.route.search import Plan, walk
from daitn.objects.decisions import PlannedVisit, Route
from daitn.objects.identifiers import SiteId
from daitn.objects.intents import Preference
from daitn.topology.snapshot import DataOption, MsDrrt

__all__ = ["PlannedRoute", "RouteContext", "Travel", "planned_routes", "stop_names"]

_GAIN_UNCERTAINTY = 0.25
"""Standard deviation of a predicted gain, as a share of it: what the robustness term assumes."""


@dataclass(frozen=True)
class Travel:
    """A visit with the jurisdictions that the model may go to before it and after it."""

    site: SiteId
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class PlannedRoute:
    """A candidate of the route policy."""

    id: str
    """For people: `ghr:4000 > gard:2000`."""
    route: Route
    seconds: float
    cost_usd: float
    examples: int
    closed: float
    """Share in [0, 1] of what the objectives miss at the start that it is expected to close."""
    holds: float
    """Probability in [0, 1] that every objective is measured to hold at its end."""
    travels: tuple[Travel, ...]
    """One per visit."""


@dataclass(frozen=True)
class RouteContext:
    """What the route policy looks at: the question, and the routes that were found for it."""

    question: RouteQuestion
    routes: tuple[PlannedRoute, ...]

    @property
    def preferences(self) -> tuple[Preference, ...]:
        return self.question.intent.preferences

    @property
    def snapshot_version(self) -> int:
        return self.question.snapshot_version

    @property
    def now_s(self) -> float:
        return self.question.now_s


def stop_names(topology: MsDrrt) -> dict[str, str]:
    """Option id to how a route calls it: its site, or `site/dataset` where there are several."""
    sites = Counter(option.site for option in topology.options)
    return {
        option.id: option.site if sites[option.site] == 1 else option.id
        for option in topology.options
    }


def planned_routes(
    question: RouteQuestion, task: Problem, plans: tuple[Plan, ...]
) -> tuple[PlannedRoute, ...]:
    """The plans, followed once more for what is expected at each stop."""
    if not plans:
        return ()
    walked = walk(task, plans)
    names = stop_names(question.topology)
    visits: list[list[PlannedVisit]] = [[] for _ in plans]
    last = [(0.0, 0.0)] * len(plans)
    for depth, (states, rows) in enumerate(walked.trace):
        for at, k in enumerate(rows):
            option, examples = walked.plans[k].steps[depth]
            now = (float(states.seconds[at]), float(states.cost_usd[at]))
            visits[k].append(_stop(task, option, examples, now, last[k], states.expected[at]))
            last[k] = now
    return tuple(
        _route(question, task, names, plan, tuple(visits[k]), walked.states.expected[k], last[k])
        for k, plan in enumerate(walked.plans)
    )


def _stop(
    task: Problem,
    option: int,
    examples: float,
    now: tuple[float, float],
    last: tuple[float, float],
    expected: Floats,
) -> PlannedVisit:
    names = task.knowledge.prior.objectives
    chosen = task.knowledge.prior.options[option]
    return PlannedVisit(
        site=chosen.site,
        dataset=chosen.dataset.name,
        examples=int(examples),
        expected_s=now[0] - last[0],
        expected_cost_usd=now[1] - last[1],
        expected={name: float(expected[o]) for o, name in enumerate(names)},
        release_to=chosen.dataset.policy.release_to,
    )


def _route(
    question: RouteQuestion,
    task: Problem,
    names: dict[str, str],
    plan: Plan,
    visits: tuple[PlannedVisit, ...],
    expected: Floats,
    spent: tuple[float, float],
) -> PlannedRoute:
    start = question.checkpoints[plan.start]
    options = [task.knowledge.prior.options[option] for option, _ in plan.steps]
    stops = [
        f"{names[option.id]}:{visit.examples}"
        for option, visit in zip(options, visits, strict=True)
    ]
    back = [] if plan.start == 0 else [f"back to {(start.model or 'the start')[:8]}"]
    before = task.starts.expected[plan.start]
    return PlannedRoute(
        id=" > ".join([*back, *stops]),
        route=Route(
            start=start.model, visits=visits, reaches=bool((expected >= task.targets).all())
        ),
        seconds=spent[0],
        cost_usd=spent[1],
        examples=sum(visit.examples for visit in visits),
        closed=_closed(task, before, expected),
        holds=_holds(task, before, expected),
        travels=_travels(start.release_to, options),
    )


def _closed(task: Problem, before: Floats, expected: Floats) -> float:
    missed = float(np.maximum(0.0, task.targets - before).sum())
    left = float(np.maximum(0.0, task.targets - expected).sum())
    return max(0.0, 1.0 - left / missed) if missed > 0.0 else 1.0


def _holds(task: Problem, before: Floats, expected: Floats) -> float:
    """All objectives above target, each with a Gaussian error of measuring and of predicting."""
    spread = np.hypot(task.errors, _GAIN_UNCERTAINTY * (expected - before))
    sigmas = (expected - task.targets) / np.maximum(spread, 1e-9)
    return float(np.prod([0.5 * math.erfc(-float(sigma) / math.sqrt(2.0)) for sigma in sigmas]))


def _travels(release_to: tuple[str, ...], options: list[DataOption]) -> tuple[Travel, ...]:
    travels: list[Travel] = []
    for option in options:
        after = narrowed(release_to, option.dataset.policy.release_to)
        travels.append(Travel(option.site, release_to, after))
        release_to = after
    return tuple(travels)
