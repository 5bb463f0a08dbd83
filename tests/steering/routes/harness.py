"""A network of route tables under a virtual clock.

Links have delays and keep order, their two ends notice at different times that they came up or went
down, sites restart.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from random import Random

import rustworkx as rx

from daitn.steering.routes.names import site_of
from daitn.steering.routes.origin import HOP_S
from daitn.steering.routes.table import AggregationLimits, RouteTable
from daitn.steering.wire.offers import (
    Offer,
    Summary,
    Update,
    decode_summary,
    encode_summary,
)

Watch = Callable[["Network", str], None]


class Network:
    """Run it by `run`; `watch` is called after whatever changed a decision at a site."""

    def __init__(
        self,
        rng: Random,
        *,
        limits: AggregationLimits | None = None,
        most_delay_s: float = 0.5,
        most_skew_s: float = 1.0,
        watch: Watch | None = None,
    ) -> None:
        self.rng, self.limits, self.watch = rng, limits, watch
        self.most_delay_s, self.most_skew_s = most_delay_s, most_skew_s
        self.now_s = 0.0
        self.tables: dict[str, RouteTable] = {}
        self.domains: dict[str, str] = {}
        self.offers: dict[str, tuple[Offer, ...]] = {}
        self.ever: dict[str, list[Offer]] = {}
        """All that a site offered at any time."""
        self.links: dict[frozenset[str], int] = {}
        """Links that are up, and how often they came up."""
        self.sent: Counter[str] = Counter()
        self.observed: Callable[[str, str, Summary], None] = lambda at, to, summary: None
        self._ends: dict[tuple[str, str], int] = {}
        """What the first knows of its link to the second."""
        self._ups = 0
        self._arrived_s: dict[tuple[str, str], float] = {}
        self._noticed_s: dict[tuple[str, str], float] = {}
        self._lives: Counter[tuple[str, str]] = Counter()
        """How often an end of a link restarted, so that it notices nothing of earlier."""
        self._wake_s: dict[str, float] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    # What happens

    def add(self, site: str, offers: tuple[Offer, ...] = (), domain: str = "") -> None:
        self.domains[site] = domain
        self.tables[site] = RouteTable(site, self.now_s, self.limits, domain)
        self.offer(site, offers)

    def offer(self, site: str, offers: tuple[Offer, ...]) -> None:
        self.offers[site] = offers
        self.ever.setdefault(site, []).extend(offers)
        self.tables[site].offer(offers, self.now_s)
        self._poll(site)

    def connect(self, a: str, b: str, cost_s: float, back_s: float | None = None) -> None:
        self._ups += 1
        session = self.links[frozenset((a, b))] = self._ups
        for here, there, cost in ((a, b, cost_s), (b, a, cost_s if back_s is None else back_s)):
            self._notice(here, there, self._came_up(here, there, cost, session))

    def _came_up(self, here: str, there: str, cost_s: float, session: int) -> Callable[[], None]:
        def up() -> None:
            self._ends[here, there] = session
            self.tables[here].link_up(there, cost_s, self.now_s, self.domains[there])
            self._poll(here)

        return up

    def disconnect(self, a: str, b: str, *, noticed: bool = False) -> None:
        """With `noticed`, both ends know at once."""
        if self.links.pop(frozenset((a, b)), None) is None:
            return
        for here, there in ((a, b), (b, a)):
            self._notice(here, there, self._went_down(here, there), at_once=noticed)

    def _went_down(self, here: str, there: str) -> Callable[[], None]:
        def down() -> None:
            self._ends.pop((here, there), None)
            self.tables[here].link_down(there, self.now_s)
            self._poll(here)

        return down

    def cost(self, a: str, b: str, cost_s: float) -> None:
        self.tables[a].link_cost(b, cost_s, self.now_s)
        self._poll(a)

    def restart(self, site: str) -> list[str]:
        """Its neighbours notice, then it is up again and knows nothing. They are returned."""
        neighbours = sorted(next(iter(link - {site})) for link in self.links if site in link)
        for neighbour in neighbours:
            self.disconnect(site, neighbour)
        for here, there in sorted(self._noticed_s):
            if site in (here, there):
                self._noticed_s[here, there] = self.now_s
                self._lives[here, there] += 1
                self._went_down(here, there)()
        self.tables[site] = RouteTable(site, 0.0, self.limits, self.domains[site])
        self.offer(site, self.offers[site])
        return neighbours

    def switch(self, site: str, domain: str) -> None:
        """A site changes its domain; its neighbours notice later."""
        self.domains[site] = domain
        self.tables[site].set_domain(domain, self.now_s)
        for link in self.links:
            for neighbour in link - {site} if site in link else ():
                self._notice(neighbour, site, self._moved(neighbour, site, domain))
        self._poll(site)

    def _moved(self, here: str, there: str, domain: str) -> Callable[[], None]:
        def moved() -> None:
            self.tables[here].link_domain(there, domain)
            self._poll(here)

        return moved

    # How it happens

    def run(self, for_s: float) -> None:
        until_s = self.now_s + for_s
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, happen = heapq.heappop(self._events)
            happen()
        self.now_s = until_s

    def _at(self, at_s: float, happen: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (at_s, self._number, happen))

    def _notice(
        self, here: str, there: str, happen: Callable[[], None], *, at_once: bool = False
    ) -> None:
        """In the order in which it happened, but later."""
        at_s = self.now_s + (0.0 if at_once else self.rng.uniform(0.0, self.most_skew_s))
        at_s = self._noticed_s[here, there] = max(at_s, self._noticed_s.get((here, there), 0.0))
        life = self._lives[here, there]
        self._at(at_s, lambda: happen() if self._lives[here, there] == life else None)

    def _poll(self, site: str) -> None:
        table = self.tables[site]
        for neighbour, summary in table.due(self.now_s):
            self._send(site, neighbour, summary)
        if self.watch is not None:
            self.watch(self, site)
        wake_s = table.next_due_s()
        assert wake_s > self.now_s, "due did not do what was due"
        if not self.now_s < self._wake_s.get(site, 0.0) <= wake_s:
            self._wake_s[site] = wake_s
            self._at(wake_s, lambda: self._wake(site))

    def _wake(self, site: str) -> None:
        if self.now_s >= self.tables[site].next_due_s():
            self._poll(site)
        elif self.now_s >= self._wake_s[site]:
            wake_s = self._wake_s[site] = self.tables[site].next_due_s()
            self._at(wake_s, lambda: self._wake(site))

    def _send(self, site: str, neighbour: str, summary: Summary) -> None:
        self.observed(site, neighbour, summary)
        whole = isinstance(summary, Update) and summary.whole
        kind = "request" if not isinstance(summary, Update) else "whole" if whole else "changes"
        self.sent[kind] += 1
        session, wire = self._ends[site, neighbour], encode_summary(summary)
        self.sent["bytes"] += len(wire)
        at_s = self.now_s + self.rng.uniform(0.0, self.most_delay_s)
        at_s = max(at_s, self._arrived_s.get((site, neighbour), 0.0))
        self._arrived_s[site, neighbour] = at_s

        def arrive() -> None:
            alive = self.links.get(frozenset((site, neighbour))) == session
            if alive and self._ends.get((neighbour, site), 0) <= session:
                self.tables[neighbour].receive(site, decode_summary(wire), self.now_s)
                self._poll(neighbour)

        self._at(at_s, arrive)

    def messages(self) -> int:
        return self.sent["whole"] + self.sent["changes"] + self.sent["request"]


def no_loops() -> Watch:
    """Fails where what a site changed last made a loop of feasible ways, selected or not."""
    seen: dict[str, tuple[RouteTable, int]] = {}

    def watch(network: Network, site: str) -> None:
        table = network.tables[site]
        if seen.get(site) == (table, table.version):
            return
        seen[site] = table, table.version
        for origin in {*network.tables, *table.origins()}:
            ahead = [via.neighbour for via in table.routes_to(origin)]
            passed: set[str] = set()
            while ahead:
                at = ahead.pop()
                assert at != site, f"{origin} is looked for in a circle through {site}"
                if at != site_of(origin) and at not in passed:
                    passed.add(at)
                    ahead += [via.neighbour for via in network.tables[at].routes_to(origin)]

    return watch


def shortest_s(network: Network) -> dict[str, dict[str, float]]:
    """Site to origin to distance, by Dijkstra over the link costs that the tables took over."""
    graph: rx.PyDiGraph[str, float] = rx.PyDiGraph()
    nodes = {site: graph.add_node(site) for site in network.tables}
    for site, table in network.tables.items():
        for neighbour, cost_s in table._costs_s.items():
            graph.add_edge(nodes[site], nodes[neighbour], cost_s + HOP_S)
    lengths = {
        site: rx.dijkstra_shortest_path_lengths(graph, node, lambda cost_s: cost_s)
        for site, node in nodes.items()
    }
    return {
        site: {origin: lengths[site][node] for origin, node in nodes.items()
               if node in lengths[site] and origin != site}
        for site in nodes
    }  # fmt: skip


def assert_converged(network: Network, *, within_s: float = 1e-4) -> None:
    """Each site reaches what is connected, by the shortest path."""
    for site, far_s in shortest_s(network).items():
        table = network.tables[site]
        assert set(table.origins()) == far_s.keys(), f"at {site}"
        for origin, distance_s in far_s.items():
            told_s = table.routes_to(origin)[0].distance_s
            assert abs(told_s - distance_s) <= within_s, f"{site} to {origin}"
        for origin, offers in network.offers.items():
            for offer in offers:
                assert (origin, offer) in table.offering(offer.key) or origin not in {
                    site,
                    *far_s,
                }, f"{origin} at {site}"


def random_links(rng: Random, sites: list[str], degree: float) -> list[tuple[str, str]]:
    """A random tree and further links, so that sites have about that many neighbours."""
    tree = [(sites[rng.randrange(at)], sites[at]) for at in range(1, len(sites))]
    links = {frozenset(link) for link in tree}
    most = len(sites) * (len(sites) - 1) // 2
    while len(links) < min(most, int(degree * len(sites) / 2)):
        links.add(frozenset(rng.sample(sites, 2)))
    pairs = sorted(sorted(link) for link in links)
    return [(a, b) for a, b in pairs]


def home(site: str) -> Offer:
    return Offer(f"home:{site}")
