"""Outcomes and costs of a scenario's queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from daitn.sim.steered.graph import Link
from daitn.sim.steered.scenario import DEADLINE_S, Scenario, SteeredQuery

__all__ = ["Run", "SteeredOutcome", "after_failures", "figures", "in_steady_state"]

ROUTE_LASTS_S = 3.0
"""A path that exists for this long after a query starts would have been enough."""


@dataclass(frozen=True, slots=True)
class SteeredOutcome:
    """An answer."""

    site: str
    taken_s: float
    fit: float
    hops: int


@dataclass(frozen=True, slots=True)
class Run:
    """The outcome of a scenario under one policy."""

    outcomes: Mapping[int, SteeredOutcome]
    """By query; unanswered ones are missing."""
    counts: Counter[str]
    """Counted under load: what crossed links (`QUERY`, `ANSWER`, `control messages`, `control
    bytes`), and what was `served`."""


def in_steady_state(scenario: Scenario) -> tuple[SteeredQuery, ...]:
    """Queries sent while nothing failed; drops the last second, which may meet a failure."""
    times = scenario.times
    until_s = times.steady_until_s - 1.0
    return tuple(q for q in scenario.queries if times.warm_s <= q.at_s < until_s)


def after_failures(scenario: Scenario) -> tuple[SteeredQuery, ...]:
    """Queries sent in the first seconds after a failure, or in flight when it happened.

    Excludes those without a lasting path, and those from a site that failed while it waited.
    """
    times = scenario.times
    return tuple(
        query
        for query in scenario.queries
        for failure in scenario.failures
        if failure.at_s - times.under_way_s <= query.at_s < failure.at_s + times.first_s
        and query.source != failure.site
        and _had_a_route(scenario, query)
    )


def figures(scenario: Scenario, run: Run, queries: Sequence[SteeredQuery]) -> dict[str, float]:
    """Figures over some of a scenario's queries. Times are over the answered ones."""
    answered = [run.outcomes[q.number] for q in queries if q.number in run.outcomes]
    missing = [q for q in queries if q.number not in run.outcomes]
    seconds = np.array([outcome.taken_s for outcome in answered] or [np.nan], np.float64)
    every = max(1, len(queries))
    return {
        "queries": len(queries),
        "delivered": len(answered) / every,
        "in_time": sum(outcome.taken_s <= DEADLINE_S for outcome in answered) / every,
        "mean_s": float(seconds.mean()),
        "p99_s": float(np.quantile(seconds, 0.99)),
        "fit": float(np.mean([outcome.fit for outcome in answered] or [np.nan])),
        "hops": float(np.mean([float(outcome.hops) for outcome in answered] or [np.nan])),
        "lost": sum(_had_a_route(scenario, query) for query in missing),
    }


def _had_a_route(scenario: Scenario, query: SteeredQuery) -> bool:
    """Whether one capable site and a path to it existed all the time for long enough."""
    until_s = query.at_s + ROUTE_LASTS_S
    down: frozenset[Link] = frozenset()
    for failure in scenario.failures:
        if failure.at_s < until_s and failure.until_s > query.at_s:
            down |= frozenset(failure.links)
    return query.source in scenario.graph.next_hops(down, scenario.capable(query.topic))
