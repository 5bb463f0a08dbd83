"""A scenario: what each site serves, which queries arrive where and when, and what fails.

Drawn once from a seed, and replayed under every policy.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from daitn.sim.steered.graph import Graph, Link

__all__ = [
    "DEADLINE_S",
    "MIN_FIT",
    "TOPICS",
    "Outage",
    "Scenario",
    "SteeredFacility",
    "SteeredQuery",
    "Times",
]

TOPICS = ("medicine", "law", "cooking")
MIN_FIT = 0.7
"""Some of the drawn fits are below it: such a facility is not capable of that topic."""
FITS = (0.6, 0.95)
DEADLINE_S = 1.0
"""Misses are counted, but the answer is still awaited."""
SERVE_S = (0.1, 0.4)
"""Service times of the fastest and the slowest facility; each has two to six slots."""
LUCK_SIGMA = 0.5
HOT_TOPIC = 0.6
HOT_PLACE = 0.5
"""Shares of queries on the hot topic, and from around the hot spot."""
HOT_SITES = 8
"""One in this many sites is around the hot spot."""
HOT_FOR_S = 8.0
FEWEST, MOST, SITES_PER = 6, 12, 6
"""Number of facilities: one per this many sites, within bounds."""


@dataclass(frozen=True, slots=True)
class SteeredFacility:
    """What serves at one site."""

    slots: int
    serve_s: float
    """Mean, on any topic."""
    fits: Mapping[str, float]
    """By topic."""

    def capable(self, topic: str) -> bool:
        return self.fits[topic] >= MIN_FIT


@dataclass(frozen=True, slots=True)
class SteeredQuery:
    """One arrival."""

    number: int
    at_s: float
    source: str
    topic: str
    luck: float
    """Serving takes this many times the site's mean; 1 on average."""


@dataclass(frozen=True, slots=True)
class Outage:
    """Links that are down for a while, or all those of a site, which loses its state."""

    at_s: float
    until_s: float
    links: tuple[Link, ...]
    site: str = ""


@dataclass(frozen=True, slots=True)
class Times:
    """Schedule of a scenario, in virtual seconds."""

    rest_s: float = 4.0
    """No load: routes settle."""
    warm_s: float = 8.0
    """Counting starts here."""
    steady_s: float = 18.0
    failures: int = 4
    failure_every_s: float = 7.0
    failure_lasts_s: float = 5.0
    first_s: float = 3.0
    """Queries sent within this time after a failure are evaluated separately."""
    under_way_s: float = 0.3
    """As are those sent this long before it, which it affects in flight."""
    drain_s: float = 20.0
    """How long to wait for answers at the end."""

    @property
    def steady_until_s(self) -> float:
        return self.warm_s + self.steady_s

    @property
    def until_s(self) -> float:
        """The end of the load."""
        return self.steady_until_s + self.failures * self.failure_every_s


@dataclass(frozen=True, slots=True)
class Scenario:
    """The whole scenario."""

    graph: Graph
    facilities: Mapping[str, SteeredFacility]
    queries: tuple[SteeredQuery, ...]
    failures: tuple[Outage, ...]
    times: Times
    prefer: Mapping[str, float]
    """Weights that queries prefer; `None` means those of the policy."""
    centre: str
    """The site with the least total distance to the others. It never fails."""

    def capable(self, topic: str) -> frozenset[str]:
        """Sites that may answer a query on that topic."""
        return frozenset(s for s, f in self.facilities.items() if f.capable(topic))

    @staticmethod
    def drawn(
        graph: Graph,
        seed: int,
        utilisation: float,
        times: Times,
        prefer: Mapping[str, float] | None = None,
    ) -> Scenario:
        """`utilisation`: relative to the capacity for the hottest topics under ideal sharing."""
        rng = random.Random(f"{seed}:{len(graph.sites)}")  # noqa: S311 - replayable
        centre = min(graph.sites, key=lambda site: (graph.sum_s(site), site))
        facilities = _facilities(graph, rng)
        drawn = _failures(graph, facilities, centre, times, rng)
        queries = tuple(_queries(graph, facilities, utilisation, times, drawn, rng))
        return Scenario(graph, facilities, queries, drawn, times, dict(prefer or {}), centre)


def _facilities(graph: Graph, rng: random.Random) -> dict[str, SteeredFacility]:
    number = min(MOST, max(FEWEST, len(graph.sites) // SITES_PER))
    number = min(number, len(graph.sites))
    found = {}
    for at, site in enumerate(sorted(rng.sample(graph.sites, number))):
        slower = (SERVE_S[1] / SERVE_S[0]) ** rng.random()
        fits = {topic: rng.uniform(*FITS) for topic in TOPICS}
        fits[TOPICS[at % len(TOPICS)]] = rng.uniform(0.8, FITS[1])
        found[site] = SteeredFacility(rng.randint(2, 6), SERVE_S[0] * slower, fits)
    return found


def _failures(
    graph: Graph,
    facilities: Mapping[str, SteeredFacility],
    centre: str,
    times: Times,
    rng: random.Random,
) -> tuple[Outage, ...]:
    """In turn: a link, a facility, two links, a busy transit site."""
    busy = sorted(graph.sites, key=lambda site: (-len(graph.neighbours[site]), site))
    passing = [site for site in busy[: max(4, len(busy) // 4)] if site not in facilities]
    kinds = itertools.cycle(("link", "facility", "links", "site"))
    failures = []
    for number, kind in zip(range(times.failures), kinds, strict=False):
        at_s = times.steady_until_s + number * times.failure_every_s
        site, links = "", rng.sample(sorted(graph.links, key=sorted), 2 if kind == "links" else 1)
        among = sorted(facilities) if kind == "facility" else passing
        sites = [site for site in among if site != centre]
        if kind in ("facility", "site") and sites:
            site = rng.choice(sites)
            links = [frozenset((site, neighbour)) for neighbour in sorted(graph.neighbours[site])]
        failures.append(Outage(at_s, at_s + times.failure_lasts_s, tuple(links), site))
    return tuple(failures)


def _queries(
    graph: Graph,
    facilities: Mapping[str, SteeredFacility],
    utilisation: float,
    times: Times,
    failures: tuple[Outage, ...],
    rng: random.Random,
) -> Iterator[SteeredQuery]:
    per_s = utilisation * _bearable_per_s(facilities)
    at_s, hot_until_s, number = times.rest_s, 0.0, 0
    topic, places = "", [""]
    while (at_s := at_s + rng.expovariate(per_s)) < times.until_s:
        if at_s >= hot_until_s:
            hot_until_s, topic = at_s + HOT_FOR_S, rng.choice(TOPICS)
            places = graph.about(rng.choice(graph.sites), max(1, len(graph.sites) // HOT_SITES))
        source = rng.choice(places if rng.random() < HOT_PLACE else graph.sites)
        others = [t for t in TOPICS if t != topic]
        subject = topic if rng.random() < HOT_TOPIC else rng.choice(others)
        luck = math.exp(rng.gauss(-(LUCK_SIGMA**2) / 2, LUCK_SIGMA))
        if not _down(source, at_s, failures):
            yield SteeredQuery(number, at_s, source, subject, luck)
            number += 1


def _down(site: str, at_s: float, failures: tuple[Outage, ...]) -> bool:
    return any(f.site == site and f.at_s <= at_s <= f.until_s for f in failures)


def _bearable_per_s(facilities: Mapping[str, SteeredFacility]) -> float:
    """The highest rate that can be served, whichever topic is hot.

    By max-flow min-cut: for every set of topics, the demand cannot exceed the capacity of the
    facilities that serve at least one of them.
    """
    cold = (1.0 - HOT_TOPIC) / (len(TOPICS) - 1)
    most = math.inf
    for size in range(1, len(TOPICS) + 1):
        for topics in itertools.combinations(TOPICS, size):
            share = HOT_TOPIC + (size - 1) * cold
            able = (f for f in facilities.values() if any(f.capable(t) for t in topics))
            most = min(most, sum(f.slots / f.serve_s for f in able) / share)
    return most
