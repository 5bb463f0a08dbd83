"""What the planner expected of its route, and of the obvious ones, before the first visit."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from daitn.cli.tables import algorithm_words
from daitn.objects.jobs import Decided
from daitn.objects.text import counted

__all__ = ["ExpectedRoute", "choices", "expected_routes", "sentence"]

_WAY = re.compile(r" \(([^()]+)\)$")
"""The name of an obvious plan, at the end of a candidate's id."""
_CUT_SHORT = "..."
"""Marks the id of a route that lists only its first visits."""


class ExpectedRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One name to train."""

    name: str
    """`planned route`, or the obvious plan: `by size`, `ring` and so on."""
    seconds: float
    """Approximate, until the targets hold or the plan ends; scaled by the planned route's visits as
    the decision lists them."""
    chance: float
    """Probability of reaching all targets, in [0, 1]."""
    at_least: bool
    """The planned route lists only its first visits: it takes longer, as do the others."""


def expected_routes(made: Decided) -> tuple[ExpectedRoute, ...]:
    """The chosen route, then the best of each kind of obvious plan in the ranking.

    Empty if no route was chosen.
    """
    ranking = {scored.candidate: scored.terms for scored in made.decision.ranking}
    chosen = made.decision.chosen
    if made.route is None or chosen is None:
        return ()
    took_s = sum(visit.expected_s for visit in made.route.visits)
    cut_short = _CUT_SHORT in chosen
    routes = {"planned route": chosen}
    for candidate in ranking:
        found = _WAY.search(candidate)
        if found and candidate != chosen:
            routes.setdefault(found[1].partition(",")[0], candidate)
    return tuple(
        ExpectedRoute(
            name=name,
            seconds=took_s * ranking[chosen]["time"] / ranking[candidate]["time"],
            chance=ranking[candidate]["reach"],
            at_least=cut_short,
        )
        for name, candidate in routes.items()
    )


def choices(made: Sequence[Decided]) -> tuple[str, ...]:
    """The chosen algorithm, and why, at each change."""
    found: dict[int, str] = {}
    before = ""
    for one in made:
        routes = one.decision.algorithms
        if routes and routes[0].plan != before:
            before = routes[0].plan
            found[one.visits_before] = algorithm_words(routes)
    return tuple(f"after {counted(at, 'visit')}: {names}" for at, names in found.items())


def sentence(routes: Sequence[ExpectedRoute]) -> str:
    """For people: seconds, and the probability of reaching all targets."""
    if not routes:
        return "the planner had no expectation for any route"
    over = "over " if routes[0].at_least else ""
    chosen, *others = (f"{over}{one.seconds:.0f} s" for one in routes)
    parts = [f"{chosen} (chance {routes[0].chance:.0%})"]
    parts += [
        f"{one.name} {seconds} ({one.chance:.0%})"
        for one, seconds in zip(routes[1:], others, strict=True)
    ]
    return f"the planner expected {', '.join(parts)}"
