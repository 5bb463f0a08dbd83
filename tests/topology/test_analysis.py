"""Shape and routes of topologies, against networkx, brute force and graphs known by heart."""

from __future__ import annotations

import math
import random
from itertools import pairwise, permutations
from typing import Any

import msgspec
import networkx as nx
import pytest
import rustworkx as rx
from hypothesis import given
from hypothesis import strategies as st

from daitn.topology.analysis import (
    Analysis,
    DegreeSpread,
    analyse,
    analyse_graph,
    count_routes,
    shape_of,
)
from daitn.topology.analysis.routes import CountedBy
from daitn.topology.analysis.shape import neighbours_of

from .medicine import drrt, link, nodes

Graph = rx.PyGraph[Any, Any]


@st.composite
def graphs(draw: st.DrawFn, most: int = 8) -> Graph:
    size = draw(st.integers(1, most))
    graph: Graph = rx.PyGraph()
    graph.add_nodes_from(range(size))
    ends = st.integers(0, size - 1)
    for one, other in draw(st.lists(st.tuples(ends, ends), max_size=2 * size)):
        graph.add_edge(one, other, None)
    return graph


def plain(graph: Graph) -> nx.Graph:
    known = nx.Graph()
    known.add_nodes_from(graph.node_indices())
    known.add_edges_from((one, other) for one, other in graph.edge_list() if one != other)
    return known


@given(graphs())
def test_the_shape_is_what_networkx_says(graph: Graph) -> None:
    shape, known = shape_of(graph), plain(graph)
    assert shape.cyclomatic_number == len(nx.cycle_basis(known))
    assert shape.components == nx.number_connected_components(known)
    assert (shape.nodes, shape.edges) == (known.number_of_nodes(), known.number_of_edges())
    parts = [known.subgraph(part) for part in nx.connected_components(known)]
    assert (shape.diameter_hops, shape.diameter_exact) == (max(map(nx.diameter, parts)), True)
    degrees = [degree for _, degree in known.degree()]
    assert (shape.degree.least, shape.degree.most) == (min(degrees), max(degrees))
    mean = sum(degrees) / len(degrees)
    spread = sum(abs(a - b) for a in degrees for b in degrees) / len(degrees) ** 2
    assert shape.degree.gini == pytest.approx(spread / (2 * mean) if mean else 0.0)


def exact_treewidth(known: nx.Graph) -> int:
    """Over every order of elimination; for small graphs."""
    best: int = known.number_of_nodes() - 1
    for order in permutations(known.nodes):
        left, width = known.copy(), 0
        for node in order:
            around = list(left.neighbors(node))
            width = max(width, len(around))
            left.remove_node(node)
            left.add_edges_from((a, b) for a in around for b in around if a != b)
        best = min(best, width)
    return best


@given(graphs(most=5))
def test_the_treewidth_bound_is_one(graph: Graph) -> None:
    assert exact_treewidth(plain(graph)) <= shape_of(graph).treewidth_at_most < graph.num_nodes()


@pytest.mark.parametrize(
    ("graph", "treewidth"),
    [
        (rx.generators.path_graph(9), 1),
        (rx.generators.binomial_tree_graph(4), 1),
        (rx.generators.cycle_graph(9), 2),
        (rx.generators.complete_graph(7), 6),
        (rx.generators.grid_graph(3, 3), 3),
        (rx.generators.complete_graph(1), 0),
    ],
)
def test_known_treewidths_are_found(graph: Graph, treewidth: int) -> None:
    assert shape_of(graph).treewidth_at_most == treewidth


@given(graphs())
def test_a_simple_cycle_is_recognised(graph: Graph) -> None:
    known = plain(graph)
    is_one = known.number_of_nodes() >= 3 and nx.is_isomorphic(
        known, nx.cycle_graph(known.number_of_nodes())
    )
    assert shape_of(graph).is_simple_cycle == is_one


def test_cycles_are_simple_cycles_and_two_of_them_are_none() -> None:
    cycle = rx.generators.cycle_graph(5)
    assert shape_of(cycle).is_simple_cycle
    assert shape_of(cycle).cyclomatic_number == 1
    two = rx.PyGraph[Any, Any]()
    two.add_nodes_from(range(6))
    two.add_edges_from([(a, b, None) for a, b in ((0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3))])
    assert not shape_of(two).is_simple_cycle


def brute_force(known: nx.Graph, stops: int) -> int:
    return sum(
        all(known.has_edge(a, b) for a, b in pairwise(route))
        for length in range(1, stops + 1)
        for route in permutations(known.nodes, length)
    )


@given(graphs(most=6), st.integers(0, 4))
def test_routes_are_counted_as_by_brute_force(graph: Graph, stops: int) -> None:
    found = count_routes(neighbours_of(graph), stops=stops)
    assert found.by is CountedBy.EXACT
    assert found.count == brute_force(plain(graph), stops)


def test_too_many_routes_are_estimated_or_bounded_and_said_to_be() -> None:
    around = neighbours_of(rx.generators.complete_graph(40))
    exact = sum(math.perm(40, length) for length in range(1, 6))
    bound = count_routes(around, stops=5)
    assert bound.by is CountedBy.AT_LEAST
    assert 0 < bound.count < exact
    guess = count_routes(around, stops=5, rng=random.Random(3))
    assert guess.by is CountedBy.ESTIMATE
    assert guess.count == pytest.approx(exact)


def test_an_estimate_on_an_uneven_graph_is_as_good_as_its_error_says() -> None:
    graph = rx.undirected_gnp_random_graph(120, 0.1, seed=5)
    known = plain(graph)
    routes: list[tuple[int, ...]] = [(node,) for node in known.nodes]
    exact = len(routes)
    for _ in range(3):
        routes = [
            (*route, after)
            for route in routes
            for after in known.neighbors(route[-1])
            if after not in route
        ]
        exact += len(routes)
    guess = count_routes(neighbours_of(graph), stops=4, rng=random.Random(7))
    assert guess.by is CountedBy.ESTIMATE
    assert 0 < guess.standard_error < 0.05 * exact
    assert abs(guess.count - exact) < 4 * guess.standard_error


def ring_of_nine_with_chords() -> Analysis:
    sites = [node.site for node in nodes()[:9]]
    ring = [link(a, b, rtt_s=0.01) for a, b in zip(sites, sites[1:] + sites[:1], strict=True)]
    chords = [link(sites[0], sites[4], rtt_s=0.02), link(sites[2], sites[7], rtt_s=0.02)]
    return analyse(drrt(nodes(), [*ring, *chords]))


def test_a_training_topology_is_no_simple_cycle() -> None:
    found = ring_of_nine_with_chords()
    assert not found.shape.is_simple_cycle
    assert found.cycle.is_simple_cycle
    assert found.cycle.nodes == found.shape.nodes == 9 * 3 + 2 * 2
    assert {layer.layer: (layer.nodes, layer.edges) for layer in found.layers} == {
        "data": (9, 0),
        "compute": (9, 0),
        "verifier": (2, 0),
        "reachability": (11, 11),
    }
    # At their sites: 9 data sets, 9 compute, 2 verifiers; trained beside: 9; measured by the
    # unit for all of medicine: 9, by the one for neurology: 1.
    assert found.inter_layer_edges == 20 + 9 + 10
    assert found.shape.cyclomatic_number > found.cycle.cyclomatic_number == 1
    assert found.shape.treewidth_at_most > found.cycle.treewidth_at_most == 2
    assert found.routes.count > found.cycle_routes.count == 9 * (1 + 2 + 2 + 2)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Analysis) == found


def test_what_is_lost_or_loses_everything_is_no_part_of_the_shape() -> None:
    links = [link("cdc", "gard", rtt_s=0.01), link("ghr", "gard", rtt_s=0.01, loss=1.0)]
    found = analyse(drrt(nodes(), links, lost=["ninds"]))
    sizes = {layer.layer: (layer.nodes, layer.edges) for layer in found.layers}
    assert sizes["reachability"] == (10, 1)
    assert sizes["data"] == (8, 0)


def test_an_empty_topology_has_a_shape() -> None:
    found = analyse(drrt([]))
    assert (found.shape.nodes, found.shape.cyclomatic_number, found.routes.count) == (0, 0, 0)
    assert found.shape.degree == DegreeSpread(least=0, median=0.0, most=0, gini=0.0)


def test_a_graph_of_any_kind_is_compared_with_a_cycle() -> None:
    found = analyse_graph(rx.generators.directed_cycle_graph(6), name="ring")
    assert found.shape == found.cycle
    assert found.routes == found.cycle_routes
