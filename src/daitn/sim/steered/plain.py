"""A network that forwards queries as a router decides, under virtual time.

The same delays, failures and servers as in `daitn.sim.forwarders`. Both ends of a link notice its
failure after a while; what is on it is lost. A link-state protocol informs all other sites, at the
speed of the remaining links. Answers return by the shortest path as each site knows it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from daitn.sim.clock import Clock
from daitn.sim.steered.graph import Link
from daitn.sim.steered.measures import Run, SteeredOutcome
from daitn.sim.steered.scenario import Outage, Scenario, SteeredFacility, SteeredQuery

__all__ = ["ATTEMPTS", "DETECT_S", "LOCAL", "Flight", "PlainNetwork", "Router", "SimulatedServer"]

LOCAL = ""
"""Next hop of a query that is served locally."""
DETECT_S = 0.15
ATTEMPTS = 3
TIMEOUT_S = 4.0
"""After this time a source sends a query again, then after twice as long: like a forwarder that
expects half a second."""
MOST_HOPS = 64
LINK_STATE_BYTES = 100
"""Bytes of a link-state update in its packet: about what OSPF's take."""


@dataclass(eq=False)
class Flight:
    """One attempt at a query; with flooding, one copy of it."""

    query: SteeredQuery
    attempt: int
    here: str
    hops: int = 0
    target: str = ""
    plan: tuple[str, ...] = ()
    """The path, if its source computed one."""


class Router(Protocol):
    """A way to steer."""

    def begins(self, flight: Flight) -> float:
        """An attempt begins; returns the seconds until it is sent."""
        ...

    def onwards(self, flight: Flight) -> tuple[str, ...]:
        """The next sites from `flight.here`, and `LOCAL` to serve it; empty means it is lost."""
        ...

    def ended(self, flight: Flight) -> None:
        """Its answer arrived."""
        ...

    def lost(self, flight: Flight) -> None:
        """It is lost; a real router would learn this only by observation."""
        ...

    def learned(self, site: str) -> None:
        """The set of links that a site knows to be down has changed."""
        ...


@dataclass(eq=False)
class SimulatedServer:
    """A facility at work, first come, first served."""

    facility: SteeredFacility
    serving: dict[Flight, float] = field(default_factory=dict)
    """To the time it ends."""
    waiting: deque[Flight] = field(default_factory=deque)

    def service_s(self, query: SteeredQuery) -> float:
        return self.facility.serve_s * query.luck


class PlainNetwork:
    """Runs one scenario under one router."""

    def __init__(self, scenario: Scenario, make: Callable[[PlainNetwork], Router]) -> None:
        self.clock = Clock()
        self.scenario, self.graph = scenario, scenario.graph
        self.down: frozenset[Link] = frozenset()
        """Links that are down, known or not."""
        self.views = dict.fromkeys(self.graph.sites, self.down)
        """Links that each site knows to be down."""
        self.servers = {site: SimulatedServer(f) for site, f in scenario.facilities.items()}
        self.counts: Counter[str] = Counter()
        self.outcomes: dict[int, SteeredOutcome] = {}
        self._viewed_s = dict.fromkeys(self.graph.sites, -1.0)
        self._sessions: Counter[Link] = Counter()
        self.router = make(self)

    @property
    def now_s(self) -> float:
        return self.clock.now_s

    def run(self) -> Run:
        """Run the whole scenario."""
        times = self.scenario.times
        for query in self.scenario.queries:
            self.clock.at(query.at_s, lambda q=query: self.set_out(q, 0))  # type: ignore[misc]
        for failure in self.scenario.failures:
            self.clock.at(failure.at_s, lambda f=failure: self._fail(f))  # type: ignore[misc]
            self.clock.at(failure.until_s, lambda f=failure: self._mend(f))  # type: ignore[misc]
        self.clock.at(times.warm_s, self.counts.clear)
        counts: Counter[str] = Counter()
        self.clock.at(times.until_s, lambda: counts.update(self.counts))
        end_s = times.until_s + times.drain_s
        while self.clock.step() and self.now_s < end_s:
            pass
        return Run(self.outcomes, counts)

    # Queries

    def set_out(self, query: SteeredQuery, attempt: int) -> None:
        """Send a query from its source, for the first time or again."""
        if query.number in self.outcomes or attempt >= ATTEMPTS:
            return
        flight = Flight(query, attempt, query.source)
        after_s = self.router.begins(flight)
        self.clock.after(after_s, lambda: self.go_on(flight))
        again_s = TIMEOUT_S * 2.0**attempt
        self.clock.after(again_s, lambda: self.set_out(query, attempt + 1))

    def go_on(self, flight: Flight) -> None:
        """Forward it from its current site."""
        onwards = self.router.onwards(flight) if flight.hops < MOST_HOPS else ()
        if not onwards:
            self.router.lost(flight)
        for neighbour in onwards:
            copy = flight
            if len(onwards) > 1:
                copy = Flight(flight.query, flight.attempt, flight.here, flight.hops, flight.target)
            if neighbour == LOCAL:
                self._serve(copy)
            else:
                self._pass_on(copy, neighbour)

    def _pass_on(self, flight: Flight, neighbour: str) -> None:
        def arrive() -> None:
            flight.here, flight.hops = neighbour, flight.hops + 1
            self.go_on(flight)

        self.counts["QUERY"] += 1
        self.cross(flight.here, neighbour, arrive, lambda: self.router.lost(flight))

    def cross(
        self, here: str, neighbour: str, arrive: Callable[[], None], lost: Callable[[], None]
    ) -> None:
        """Send something over a link; it arrives if the link stays up."""
        link = frozenset((here, neighbour))
        session = self._sessions[link]

        def land() -> None:
            up = link not in self.down and self._sessions[link] == session
            (arrive if up else lost)()

        if link in self.down:
            lost()
        else:
            self.clock.after(self.graph.links[link], land)

    def _serve(self, flight: Flight) -> None:
        server = self.servers[flight.here]
        self.counts["served"] += 1
        server.waiting.append(flight)
        self._begin(flight.here, server)

    def _begin(self, site: str, server: SimulatedServer) -> None:
        while server.waiting and len(server.serving) < server.facility.slots:
            flight = server.waiting.popleft()
            seconds = server.service_s(flight.query)
            server.serving[flight] = self.now_s + seconds
            self.clock.after(seconds, lambda f=flight: self._served(site, server, f))  # type: ignore[misc]

    def _served(self, site: str, server: SimulatedServer, flight: Flight) -> None:
        if self.servers[site] is server:
            del server.serving[flight]
            self._begin(site, server)
            self._go_back(flight, site, site)

    def _go_back(self, flight: Flight, here: str, by: str) -> None:
        source = flight.query.source
        if here == source:
            self._answered(flight, by)
            return
        next_hop = self.graph.next_hops(self.views[here], frozenset((source,))).get(here)
        if next_hop is None:
            self.router.lost(flight)
            return
        self.counts["ANSWER"] += 1
        neighbour = next_hop[1]
        self.cross(
            here,
            neighbour,
            lambda: self._go_back(flight, neighbour, by),
            lambda: self.router.lost(flight),
        )

    def _answered(self, flight: Flight, by: str) -> None:
        query = flight.query
        self.router.ended(flight)
        if query.number not in self.outcomes:
            taken_s = self.now_s - query.at_s
            fit = self.servers[by].facility.fits[query.topic]
            self.outcomes[query.number] = SteeredOutcome(by, taken_s, fit, flight.hops)

    def control(self, messages: int, size: int) -> None:
        """Count control messages of this size that cross one link each."""
        self.counts["control messages"] += messages
        self.counts["control bytes"] += messages * size

    # Failures

    def _fail(self, failure: Outage) -> None:
        self.down |= frozenset(failure.links)
        self._sessions.update(failure.links)
        server = self.servers.get(failure.site)
        if server is not None:
            self.servers[failure.site] = SimulatedServer(server.facility)
            for flight in (*server.serving, *server.waiting):
                self.router.lost(flight)
        self._flood(failure, DETECT_S)

    def _mend(self, failure: Outage) -> None:
        self.down -= frozenset(failure.links)
        self._flood(failure, 0.0)

    def _flood(self, failure: Outage, after_s: float) -> None:
        """Every site learns of it eventually, from the nearest reachable end."""
        down, at_s = self.down, self.now_s
        ends = frozenset(site for link in failure.links for site in link)
        for site, (far_s, _) in self.graph.next_hops(down, ends).items():
            self.clock.after(after_s + far_s, lambda s=site: self._learn(s, down, at_s))  # type: ignore[misc]
        self.control(2 * len(self.graph.links), LINK_STATE_BYTES)

    def _learn(self, site: str, down: frozenset[Link], at_s: float) -> None:
        if at_s > self._viewed_s[site]:
            self.views[site], self._viewed_s[site] = down, at_s
            self.router.learned(site)
