"""Filters and scorers of the route policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from daitn.control.route.plans import PlannedRoute
from daitn.control.route.question import RouteQuestion
from daitn.control.route.task import jurisdiction_of
from daitn.objects.access import allows
from daitn.objects.decisions import Rejection
from daitn.objects.identifiers import SiteId
from daitn.objects.orders import allowed_examples
from daitn.objects.text import counted, figure
from daitn.policy.pipeline import Policy
from daitn.topology.arrays import Flags, Floats
from daitn.topology.relaxation import as_value

__all__ = ["FILTERS", "MTRCE", "in_time"]

Routes = Sequence[PlannedRoute]


def _duration(question: RouteQuestion, route: PlannedRoute) -> Rejection | None:
    budget, spent = question.intent.budget, question.spent
    return _over(
        route, "duration", budget.duration_s, spent.duration_s, route.seconds, "duration_s", "s"
    )


def in_time(question: RouteQuestion, route: PlannedRoute) -> bool:
    """Whether a route is expected to end before the deadline."""
    return _duration(question, route) is None


def _cost(question: RouteQuestion, route: PlannedRoute) -> Rejection | None:
    budget, spent = question.intent.budget, question.spent
    return _over(route, "cost", budget.cost_usd, spent.cost_usd, route.cost_usd, "cost_usd", "USD")


def _examples(question: RouteQuestion, route: PlannedRoute) -> Rejection | None:
    most, spent = allowed_examples(question.intent), question.spent
    return _over(route, "examples", most, spent.examples, route.examples, "examples", "examples")


def _over(
    route: PlannedRoute,
    name: str,
    limit: float | None,
    spent: float,
    takes: float,
    field: str,
    unit: str,
) -> Rejection | None:
    needed = spent + takes
    if limit is None or needed <= limit:
        return None
    already = f", on top of {figure(spent)} already spent" if spent else ""
    return Rejection(
        candidate=route.id,
        filter=name,
        reason=f"is expected to take {counted(route.visits, 'visit')} and {figure(takes)} {unit} "
        f"of the job's {figure(limit)}{already}",
        field=f"budget.{field}",
        shortfall=needed - limit,
        unit=unit,
        relax_to=as_value(math.ceil(needed)),
    )


def _least(question: RouteQuestion, route: PlannedRoute) -> Rejection | None:
    """The data owners' rules on the length of a visit; only a pinned route can break them."""
    least = {
        (option.site, option.dataset.name): option.dataset.least_examples
        for option in question.topology.options
    }
    for at, visit in enumerate(route.route.visits):
        minimum = least.get((visit.site, visit.dataset), 1)
        if visit.examples < minimum:
            return Rejection(
                candidate=route.id,
                filter="least examples",
                reason=f"trains on {visit.examples} examples at {visit.site}, whose data owner "
                f"demands {minimum}",
                field=f"route[{at}].examples",
                shortfall=float(minimum - visit.examples),
                unit="examples",
                relax_to=as_value(minimum),
            )
    return None


def _release(question: RouteQuestion, route: PlannedRoute) -> Rejection | None:
    """The data owners' rules on where a model that learned from their data may travel."""
    for travel in route.travels:
        if not allows(travel.before, jurisdiction_of(question, travel.site)):
            return _withheld(route, travel.before, f"go to {travel.site}")
        for name in question.intent.objective_names():
            places: list[SiteId] = [v.site for v in question.topology.verifiers.get(name, ())]
            if not any(allows(travel.after, jurisdiction_of(question, at)) for at in places):
                return _withheld(route, travel.after, f"be measured on {name} after {travel.site}")
    return None


def _withheld(route: PlannedRoute, allowed: tuple[str, ...], what: str) -> Rejection:
    places = ", ".join(allowed) or "nowhere"
    return Rejection(
        candidate=route.id,
        filter="release",
        reason=f"may not {what}: what it learned from before is released to {places}",
        field="",
    )


def _utility(routes: Routes, passes: Flags) -> Floats:
    return np.array([route.utility for route in routes], float)


def _reach(routes: Routes, passes: Flags) -> Floats:
    return np.array([route.holds for route in routes], float)


def _time(routes: Routes, passes: Flags) -> Floats:
    return _relative([route.seconds for route in routes])


def _cheap(routes: Routes, passes: Flags) -> Floats:
    return _relative([route.cost_usd for route in routes])


def _relative(values: list[float]) -> Floats:
    """1 for the least of all candidates, one half for twice as much."""
    least = min(values, default=0.0)
    return np.array([least / value if value > 0.0 else 1.0 for value in values], float)


FILTERS: tuple[Callable[[RouteQuestion, PlannedRoute], Rejection | None], ...] = (
    _duration,
    _cost,
    _examples,
    _least,
    _release,
)
MTRCE: Final = Policy[Routes](
    name="mtrce",
    scorers={"utility": _utility, "reach": _reach, "time": _time, "cost": _cheap},
    # Search and choice use only the utility; the other terms are only displayed.
    weights={"utility": 1.0, "reach": 0.0, "time": 0.0, "cost": 0.0},
)
