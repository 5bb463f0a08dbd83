"""Routers without a centre, other than AATS: nearest, random walk, flooding, oracle."""

from __future__ import annotations

import heapq
import random

from daitn.sim.steered.plain import LOCAL, Flight, PlainNetwork, SimulatedServer

__all__ = ["Flooding", "NearestRouter", "Omniscient", "RandomWalk"]


class _Router:
    """Defaults for what most routers do not need."""

    def __init__(self, network: PlainNetwork) -> None:
        self.network = network
        topics = {q.topic for q in network.scenario.queries}
        self.capable = {topic: network.scenario.capable(topic) for topic in topics}

    def begins(self, flight: Flight) -> float:
        return 0.0

    def ended(self, flight: Flight) -> None:
        pass

    def lost(self, flight: Flight) -> None:
        pass

    def learned(self, site: str) -> None:
        pass


class NearestRouter(_Router):
    """Anycast: forward towards the nearest capable site by the local link-state view."""

    def onwards(self, flight: Flight) -> tuple[str, ...]:
        targets = self.capable[flight.query.topic]
        next_hop = self.network.graph.next_hops(self.network.views[flight.here], targets).get(
            flight.here
        )
        return () if next_hop is None else (next_hop[1],)


class RandomWalk(_Router):
    """Forward to a random neighbour over a link not known to be down, until a capable site."""

    def __init__(self, network: PlainNetwork) -> None:
        super().__init__(network)
        self._rng = random.Random(0)  # noqa: S311 - replayable

    def onwards(self, flight: Flight) -> tuple[str, ...]:
        here = flight.here
        if here in self.capable[flight.query.topic]:
            return (LOCAL,)
        view = self.network.views[here]
        up = [n for n in self.network.graph.neighbours[here] if frozenset((here, n)) not in view]
        return (self._rng.choice(up),) if up else ()


class Flooding(_Router):
    """Forward to all neighbours, once at each site; all capable sites serve it."""

    def __init__(self, network: PlainNetwork) -> None:
        super().__init__(network)
        self._seen: set[tuple[int, int, str]] = set()

    def onwards(self, flight: Flight) -> tuple[str, ...]:
        here, query = flight.here, flight.query
        if (query.number, flight.attempt, here) in self._seen:
            return ()
        self._seen.add((query.number, flight.attempt, here))
        served = (LOCAL,) if here in self.capable[query.topic] else ()
        # Neighbours that already have it receive it too, and ignore it.
        neighbours = self.network.graph.neighbours[here]
        fresh = [n for n in neighbours if (query.number, flight.attempt, n) not in self._seen]
        self.network.counts["QUERY"] += len(neighbours) - len(fresh)
        return (*fresh, *served)


class Omniscient(_Router):
    """Chooses the earliest end for the query at hand, with full knowledge of the present.

    It knows every queue, the duration of everything in it, everything in flight, and every link at
    this instant, and resends lost queries at once. It does not know future failures, nor what a
    query costs later ones.
    """

    def __init__(self, network: PlainNetwork) -> None:
        super().__init__(network)
        self._coming: dict[str, dict[Flight, float]] = {site: {} for site in network.servers}

    def begins(self, flight: Flight) -> float:
        network, query = self.network, flight.query
        best_s, best_arrives_s = float("inf"), 0.0
        for site in sorted(self.capable[query.topic]):
            next_hop = network.graph.next_hops(network.down, frozenset((site,))).get(query.source)
            if next_hop is None:
                continue
            arrives_s = network.now_s + next_hop[0]
            end_s = self._end_s(site, flight, arrives_s) + next_hop[0]
            if end_s < best_s:
                best_s, best_arrives_s, flight.target = end_s, arrives_s, site
        if flight.target:
            self._coming[flight.target][flight] = best_arrives_s
        return 0.0

    def onwards(self, flight: Flight) -> tuple[str, ...]:
        if flight.here == flight.target:
            self._coming[flight.target].pop(flight, None)
            return (LOCAL,)
        targets = frozenset((flight.target,)) if flight.target else frozenset[str]()
        next_hop = self.network.graph.next_hops(self.network.down, targets).get(flight.here)
        return () if next_hop is None else (next_hop[1],)

    def lost(self, flight: Flight) -> None:
        if flight.target:
            self._coming[flight.target].pop(flight, None)
            self.network.set_out(flight.query, 0)

    def _end_s(self, site: str, flight: Flight, arrives_s: float) -> float:
        server = self.network.servers[site]
        free_s = _free_s(server, self.network.now_s)
        before = sorted(self._coming[site].items(), key=lambda coming: coming[1])
        for other in server.waiting:
            heapq.heapreplace(free_s, free_s[0] + server.service_s(other.query))
        for other, other_s in before:
            if other_s <= arrives_s:
                begins_s = max(free_s[0], other_s)
                heapq.heapreplace(free_s, begins_s + server.service_s(other.query))
        return max(free_s[0], arrives_s) + server.service_s(flight.query)


def _free_s(server: SimulatedServer, now_s: float) -> list[float]:
    """When each slot becomes free, as a heap."""
    free_s = [*server.serving.values()]
    free_s += [now_s] * (server.facility.slots - len(free_s))
    heapq.heapify(free_s)
    return free_s
