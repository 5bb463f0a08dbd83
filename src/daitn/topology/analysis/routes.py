"""Counts the possible choices and orders of a route's stops."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

import msgspec

from daitn.objects.identifiers import ObjectiveName, SiteId
from daitn.objects.randomness import Rng
from daitn.topology.analysis.treewidth import Neighbours
from daitn.topology.layers import usable
from daitn.topology.snapshot import MsDrrt

__all__ = ["CountedBy", "RouteCount", "count_routes", "feasible_routes"]

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
    covers: Mapping[int, frozenset[str]] | None = None,
    wanted: frozenset[str] = frozenset(),
    rng: Rng | None = None,
) -> RouteCount:
    """Count the simple routes of 1 to `stops` nodes that together cover everything in `wanted`.

    `covers` gives what each node covers. A route counts once per direction, and once for each of
    its prefixes that covers everything. The count is exact if it takes few steps; beyond that it is
    an estimate if there is an `rng`, else a lower bound.
    """
    given = covers or {}
    count, complete = _walked(neighbours, stops, given, wanted)
    if complete:
        return RouteCount(count=count, by=CountedBy.EXACT, stops=stops)
    if rng is None:
        return RouteCount(count=count, by=CountedBy.AT_LEAST, stops=stops)
    probes = [_probe(neighbours, stops, given, wanted, rng) for _ in range(_PROBES)]
    mean = sum(probes) / _PROBES
    variance = sum((probe - mean) ** 2 for probe in probes) / (_PROBES - 1)
    return RouteCount(
        count=mean,
        by=CountedBy.ESTIMATE,
        stops=stops,
        standard_error=(variance / _PROBES) ** 0.5,
    )


def feasible_routes(relevant: MsDrrt, *, stops: int, rng: Rng | None = None) -> RouteCount:
    """Routes over sites with usable data that visit, for each objective, the best-fitting data.

    Two sites may follow each other if either measured a link between them.
    """
    sites = sorted({option.site for option in relevant.options})
    position = {site: index for index, site in enumerate(sites)}
    around: list[set[int]] = [set() for _ in sites]
    for source, targets in relevant.snapshot.links.items():
        for target, link in targets.items():
            one, other = position.get(source), position.get(target)
            if one is not None and other is not None and one != other and usable(link):
                around[one].add(other)
                around[other].add(one)
    covers = {position[site]: found for site, found in _covered(relevant).items()}
    return count_routes(
        {index: frozenset(others) for index, others in enumerate(around)},
        stops=stops,
        covers=covers,
        wanted=frozenset(relevant.verifiers),
        rng=rng,
    )


def _covered(relevant: MsDrrt) -> dict[SiteId, frozenset[str]]:
    """Per site, the objectives for which no other site has better-fitting data."""
    best: dict[ObjectiveName, float] = {
        name: max((option.fit[name] for option in relevant.options), default=0.0)
        for name in relevant.verifiers
    }
    covered: dict[SiteId, set[str]] = {}
    for option in relevant.options:
        found = {name for name, fit in best.items() if 0.0 < fit <= option.fit[name]}
        covered.setdefault(option.site, set()).update(found)
    return {site: frozenset(found) for site, found in covered.items()}


def _walked(
    neighbours: Neighbours,
    stops: int,
    covers: Mapping[int, frozenset[str]],
    wanted: frozenset[str],
) -> tuple[int, bool]:
    """Number of routes found depth first, and whether the count is complete."""
    count = steps = 0
    stack: list[tuple[tuple[int, ...], frozenset[str]]] = [
        ((node,), wanted - covers.get(node, frozenset())) for node in sorted(neighbours)
    ]
    if stops < 1:
        return 0, True
    while stack:
        steps += 1
        if steps > _EXACT_STEPS:
            return count, False
        route, missing = stack.pop()
        count += not missing
        if len(route) < stops:
            stack += [
                ((*route, node), missing - covers.get(node, frozenset()))
                for node in neighbours[route[-1]]
                if node not in route
            ]
    return count, True


def _probe(
    neighbours: Neighbours,
    stops: int,
    covers: Mapping[int, frozenset[str]],
    wanted: frozenset[str],
    rng: Rng,
) -> float:
    """One unbiased estimate: walk at random, and weight what is found by the choices available.

    Source: Knuth, "Estimating the efficiency of backtrack programs", Mathematics of Computation
    29(129), 1975.
    """
    total, weight = 0.0, 1.0
    route: list[int] = []
    missing = wanted
    choices: Sequence[int] = sorted(neighbours)
    while choices and len(route) < stops:
        weight *= len(choices)
        node = choices[int(rng.random() * len(choices))]
        route.append(node)
        missing = missing - covers.get(node, frozenset())
        total += 0.0 if missing else weight
        choices = sorted(neighbours[node] - set(route))
    return total
