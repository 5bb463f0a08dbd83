"""Turns plans of the search into routes for people to read and filters to judge."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from daitn.control.route.question import RouteQuestion
from daitn.control.route.rollout import Expected, Plan, PlanOutcomes, expected
from daitn.control.route.task import RouteTask
from daitn.objects.access import narrowed
from daitn.objects.decisions import PlannedVisit, Route
from daitn.objects.identifiers import SiteId
from daitn.topology.snapshot import DataOption, MsDrrt

__all__ = ["PlannedRoute", "Travel", "planned_routes", "stop_names"]

_LIKELY = 0.5
"""Share of the draws that must reach the targets for a route to be expected to."""
_SHOWN = 8
"""Maximum number of visits listed in a route."""


@dataclass(frozen=True)
class Travel:
    """A visit, with the jurisdictions open to the model before and after it."""

    site: SiteId
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class PlannedRoute:
    """A candidate of the route policy."""

    id: str
    """For people: `ghr:4000 > gard:2000`, with the obvious plan that it follows."""
    route: Route
    seconds: float
    """Mean seconds until all targets hold, or until the plan ends."""
    cost_usd: float
    examples: int
    visits: int
    """Number of visits over which these are spent; more than `route` lists if that is long; a
    mean."""
    holds: float
    """Probability in [0, 1] that every objective is measured to hold at its end."""
    utility: float
    """In (0, 1], 1 for the best candidate: the number by which routes are compared."""
    travels: tuple[Travel, ...]
    """One per visit."""


def stop_names(topology: MsDrrt) -> dict[str, str]:
    """Option id to its name in a route: the site, or `site/dataset` if the site has several."""
    sites = Counter(option.site for option in topology.options)
    return {
        option.id: option.site if sites[option.site] == 1 else option.id
        for option in topology.options
    }


def planned_routes(
    question: RouteQuestion,
    task: RouteTask,
    outcome: PlanOutcomes,
    most: int,
    luck: float = 1.0,
    whole: bool = False,
) -> tuple[PlannedRoute, ...]:
    """The `most` best feasible plans, best first, one for each sequence of stops.

    `luck`: the probability that visits take no longer than `task` assumes.

    Each route lists the first visits, or the `whole` plan even if targets hold before its end.
    """
    names = stop_names(question.topology)
    chosen: dict[str, _Chosen] = {}
    for k in outcome.order().tolist():
        if outcome.allowed[k] and len(chosen) < most:
            found = _chosen(question, task, outcome, k, names, whole)
            chosen.setdefault(found.id, found)
    plans, shown = [one.plan for one in chosen.values()], [one.shown for one in chosen.values()]
    least = float(outcome.effort.min(initial=np.inf))
    return tuple(
        _route(question, task, outcome, one, forecast, least, luck, whole)
        for one, forecast in zip(chosen.values(), expected(task, plans, shown), strict=True)
    )


@dataclass(frozen=True)
class _Chosen:
    """A plan that becomes a route."""

    id: str
    row: int
    """Among the outcomes."""
    plan: Plan
    shown: int
    """Visits that its route lists."""


def _chosen(
    question: RouteQuestion,
    task: RouteTask,
    outcome: PlanOutcomes,
    k: int,
    names: dict[str, str],
    whole: bool,
) -> _Chosen:
    plan, visits = outcome.plans[k], outcome.visits[k]
    length = int(outcome.allowed[k])
    usual = int(np.median(visits[visits > 0])) if (visits > 0).any() else length
    shown = length if whole else min(max(1, usual), length, _SHOWN)
    options = task.known.options
    words = [f"{names[options[option].id]}:{examples}" for option, examples in plan.stops[:shown]]
    start = question.checkpoints[plan.start]
    back = [] if plan.start == 0 else [f"back to {(start.model or 'the start')[:8]}"]
    more = ["..."] if shown < usual and not whole else []
    way = f" ({plan.found_by})" if plan.found_by and "changed" not in plan.found_by else ""
    return _Chosen(" > ".join([*back, *words, *more]) + way, k, plan, shown)


def _route(
    question: RouteQuestion,
    task: RouteTask,
    outcome: PlanOutcomes,
    chosen: _Chosen,
    forecast: Expected,
    least: float,
    luck: float,
    whole: bool,
) -> PlannedRoute:
    k, plan = chosen.row, chosen.plan
    visits, length = outcome.visits[k], int(outcome.allowed[k])
    shown = plan.stops[: chosen.shown]
    start = question.checkpoints[plan.start]
    stops = tuple(
        _stop(task, option, examples, forecast.seconds[i], forecast.cost_usd[i], forecast.values[i])
        for i, (option, examples) in enumerate(shown)
    )
    holds = luck * float(outcome.chance[k])
    return PlannedRoute(
        id=chosen.id,
        route=Route(start=start.model, visits=stops, reaches=holds >= _LIKELY, chance=holds),
        seconds=float(forecast.seconds.sum() if whole else outcome.seconds[k].mean()),
        cost_usd=float(forecast.cost_usd.sum() if whole else outcome.cost_usd[k].mean()),
        examples=sum(s.examples for s in stops) if whole else int(outcome.examples[k].mean()),
        visits=length if whole else round(float(np.where(visits > 0, visits, length).mean())),
        holds=holds,
        utility=least / float(outcome.effort[k]) if outcome.effort[k] > 0 else 1.0,
        travels=_travels(start.release_to, [task.known.options[option] for option, _ in shown]),
    )


def _stop(
    task: RouteTask,
    at: int,
    examples: int,
    seconds: float,
    cost_usd: float,
    values: np.ndarray,
) -> PlannedVisit:
    option = task.known.options[at]
    return PlannedVisit(
        site=option.site,
        dataset=option.dataset.name,
        examples=examples,
        expected_s=float(seconds),
        expected_cost_usd=float(cost_usd),
        expected={name: float(values[o]) for o, name in enumerate(task.known.objectives)},
        release_to=option.dataset.policy.release_to,
        computing_usd=float(task.costs.computing_usd[at] * examples),
        price_usd_per_hour=option.compute.price_usd_per_hour,
        owner=option.owner,
    )


def _travels(release_to: tuple[str, ...], options: list[DataOption]) -> tuple[Travel, ...]:
    travels: list[Travel] = []
    for option in options:
        after = narrowed(release_to, option.dataset.policy.release_to)
        travels.append(Travel(option.site, release_to, after))
        release_to = after
    return tuple(travels)
