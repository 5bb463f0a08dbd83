"""Random networks of domains, and what their sites should know in the end."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import rustworkx as rx

from daitn.steering.routes.names import domain_of, site_of
from daitn.steering.routes.origin import HOP_S
from daitn.steering.routes.table import AggregationLimits
from daitn.steering.wire.offers import Offer

from ..routes.harness import Network, Watch, random_links
from ..routes.test_routes import offers_of

DOMAINS = ("west", "east", "north", "")


def build(
    seed: int, size: int, *, limits: AggregationLimits | None = None, watch: Watch | None = None
) -> Network:
    """A random network, its sites in random domains or none: few domains are of one piece."""
    rng = Random(seed)
    network = Network(rng, limits=limits, watch=watch)
    sites = [f"s{number:02}" for number in range(size)]
    for site in sites:
        network.add(site, offers_of(site, rng), rng.choice(DOMAINS))
    for a, b in random_links(rng, sites, 3.0):
        network.connect(a, b, rng.uniform(0.0, 0.3), rng.uniform(0.0, 0.3))
    return network


def crosses(network: Network, a: str, b: str) -> bool:
    return network.domains[a] != network.domains[b]


def _links(network: Network) -> Iterator[tuple[str, str, float]]:
    for site, table in network.tables.items():
        for neighbour, cost_s in table._costs_s.items():
            yield site, neighbour, cost_s + HOP_S


def _distances_s(links: list[tuple[str, str, float]], end: str) -> dict[str, float]:
    """From each site to `end`, by Dijkstra."""
    graph: rx.PyDiGraph[str, float] = rx.PyDiGraph()
    names = sorted({name for a, b, _ in links for name in (a, b)} | {end})
    nodes = {name: graph.add_node(name) for name in names}
    for a, b, cost_s in links:
        graph.add_edge(nodes[b], nodes[a], cost_s)
    found = rx.dijkstra_shortest_path_lengths(graph, nodes[end], lambda cost_s: cost_s)
    return {end: 0.0} | {graph[node]: length for node, length in found.items()}


def inside_s(network: Network, end: str) -> dict[str, float]:
    """To a site, from those that reach it without leaving its domain."""
    links = [
        (a, b, cost_s)
        for a, b, cost_s in _links(network)
        if network.domains[a] == network.domains[b] == network.domains[end]
    ]
    return _distances_s(links, end)


def outside_s(network: Network, border: str) -> dict[str, float]:
    """To a border site, from those that do not reach it inside, by none that does."""
    inner = inside_s(network, border).keys() - {border}
    links = [
        (a, b, cost_s)
        for a, b, cost_s in _links(network)
        if not {a, b} & inner and (border not in (a, b) or crosses(network, a, b))
    ]
    return _distances_s(links, border)


def assert_converged(network: Network, *, within_s: float = 1e-4) -> None:
    """Each site reaches the sites of its domain, and of other domains what these offer."""
    for site, table in network.tables.items():
        inside, outside = dict[str, float](), dict[str, float]()
        for end in network.tables.keys() - {site}:
            if site in (far_s := inside_s(network, end)):
                inside[end] = far_s[site]
            elif site in (far_s := outside_s(network, end)) and _within(network, end):
                outside[end] = far_s[site]
        by_site: dict[str, list[str]] = {}
        for origin in table.origins():
            by_site.setdefault(site_of(origin), []).append(origin)
        assert by_site.keys() == {*inside, *outside}, f"at {site} in {network.domains[site]}"
        for end, origins in by_site.items():
            named = {network.domains[end]} if end in outside else {None}
            assert {domain_of(origin) for origin in origins} == named
            for origin in origins:
                told_s = table.routes_to(origin)[0].distance_s
                assert abs(told_s - (outside | inside)[end]) <= within_s, f"{site} to {origin}"
                _assert_offers(network, origin, table.offered(origin))
        for end in outside:
            told = [_terms(offer) for origin in by_site[end] for offer in table.offered(origin)]
            assert sorted(told) == sorted(_terms(offer) for _, offer in _within(network, end))


def _within(network: Network, border: str) -> list[tuple[float, Offer]]:
    """What is offered in the domain of a border site, and how far from it."""
    return [
        (far_s[border], offer)
        for site in network.tables
        if border in (far_s := inside_s(network, site))
        for offer in network.offers[site]
        if not offer.key.startswith("home:")
    ]


def _terms(offer: Offer) -> tuple[object, ...]:
    return offer.key, offer.owner, offer.fit, offer.trust, offer.price_usd


def _assert_offers(network: Network, origin: str, offers: tuple[Offer, ...]) -> None:
    """Each is one of a site there, with the way inside and back."""
    if domain_of(origin) is None:
        assert offers == network.offers[origin]
        return
    real = {_terms(offer): (s, offer.serve_s) for s, offer in _within(network, site_of(origin))}
    for offer in offers:
        distance_s, serve_s = real[_terms(offer)]
        expected_s = serve_s + 2.0 * distance_s
        # Small changes of a way make no new edition.
        assert abs(offer.serve_s - expected_s) <= 0.25 * expected_s + 0.011
