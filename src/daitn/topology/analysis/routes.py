"""Counts the possible choices and orders of a route's stops."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

from daitn.objects.randomness import Rng
from daitn.topology.analysis.treewidth import Neighbours

__all__ = ["CountedBy", "RouteCount", "count_routes"]

_EXACT_STEPS = 200_000
"""Partial routes examined before giving up an exact count: about 0.2 s."""
_PROBES = 2000
"""Random routes per estimate."""


class CountedBy(enum.StrEnum):
    """How reliable a count of routes is."""

    EXACT = "exact"
    AT_LEAST = "at least"
    """Counting stopped early: there are more."""
    ESTIMATE = "estimate"
    """Unbiased, from random probes."""


class RouteCount(msgspec.Struct, frozen=True, kw_only=True):
    """Number of routes: sequences of distinct sites, each of which reaches the next."""

    count: float
    by: CountedBy
    stops: int
    """Maximum number of sites in a route."""
    standard_error: float = 0.0
    """Set for an estimate."""


def count_routes(
    neighbours: Neighbours,
    *,
    stops: int,
    rng: Rng | None = None,
) -> RouteCount:
    """Count the simple routes of 1 to `stops` nodes.

    A route counts once per direction, and so does each of its prefixes. The count is exact if it
    takes few steps; beyond that it is an estimate if there is an `rng`, else a lower bound.
    """
    count, complete = _walked(neighbours, stops)
    if complete:
        return RouteCount(count=count, by=CountedBy.EXACT, stops=stops)
    if rng is None:
        return RouteCount(count=count, by=CountedBy.AT_LEAST, stops=stops)
    probes = [_probe(neighbours, stops, rng) for _ in range(_PROBES)]
    mean = sum(probes) / _PROBES
    variance = sum((probe - mean) ** 2 for probe in probes) / (_PROBES - 1)
    return RouteCount(
        count=mean,
        by=CountedBy.ESTIMATE,
        stops=stops,
        standard_error=(variance / _PROBES) ** 0.5,
    )


def _walked(neighbours: Neighbours, stops: int) -> tuple[int, bool]:
    """Number of routes found depth first, and whether the count is complete."""
    count = steps = 0
    stack: list[tuple[int, ...]] = [(node,) for node in sorted(neighbours)]
    if stops < 1:
        return 0, True
    while stack:
        steps += 1
        if steps > _EXACT_STEPS:
            return count, False
        route = stack.pop()
        count += 1
        if len(route) < stops:
            stack += [(*route, node) for node in neighbours[route[-1]] if node not in route]
    return count, True


def _probe(neighbours: Neighbours, stops: int, rng: Rng) -> float:
    """One unbiased estimate: walk at random, and weight what is found by the choices available.

    Source: Knuth, "Estimating the efficiency of backtrack programs", Mathematics of Computation
    29(129), 1975.
    """
    total, weight = 0.0, 1.0
    route: list[int] = []
    choices: Sequence[int] = sorted(neighbours)
    while choices and len(route) < stops:
        weight *= len(choices)
        node = choices[int(rng.random() * len(choices))]
        route.append(node)
        total += weight
        choices = sorted(neighbours[node] - set(route))
    return total
