"""Measures of the shape of one undirected graph."""

from __future__ import annotations

import statistics
from typing import Any

import msgspec
import numpy as np
import rustworkx as rx

from daitn.topology.analysis.treewidth import Neighbours, treewidth_at_most

__all__ = ["DegreeSpread", "Shape", "gini", "neighbours_of", "shape_of"]

_ALL_PAIRS_NODES = 2000
"""Up to this size, the distances of all pairs fit in 32 MB and take under a second."""


class DegreeSpread(msgspec.Struct, frozen=True, kw_only=True):
    """How evenly the edges are spread over the nodes."""

    least: int
    median: float
    most: int
    gini: float
    """0 if all nodes have equally many edges, towards 1 if a few nodes have all of them."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Measures that distinguish graphs from each other and from a simple cycle."""

    nodes: int
    edges: int
    components: int
    cyclomatic_number: int
    """Independent cycles: edges - nodes + components. 1 in a simple cycle."""
    degree: DegreeSpread
    diameter_hops: int
    """Longest shortest path within a component."""
    diameter_exact: bool
    """False in a large graph, where the diameter is a lower bound."""
    treewidth_at_most: int
    """2 in a simple cycle."""
    is_simple_cycle: bool


def neighbours_of(graph: rx.PyGraph[Any, Any] | rx.PyDiGraph[Any, Any]) -> Neighbours:
    """Neighbours of each node, ignoring direction; parallel edges count once, loops not at all."""
    around: dict[int, set[int]] = {node: set() for node in graph.node_indices()}
    for one, other in graph.edge_list():
        if one != other:
            around[one].add(other)
            around[other].add(one)
    return {node: frozenset(others) for node, others in around.items()}


def shape_of(graph: rx.PyGraph[Any, Any] | rx.PyDiGraph[Any, Any]) -> Shape:
    """Measure a graph, ignoring directions, parallel edges and loops."""
    around = neighbours_of(graph)
    plain = _plain(around)
    nodes, edges = plain.num_nodes(), plain.num_edges()
    components = rx.number_connected_components(plain)
    degrees = [len(others) for others in around.values()]
    diameter_hops, diameter_exact = _diameter(plain)
    return Shape(
        nodes=nodes,
        edges=edges,
        components=components,
        cyclomatic_number=edges - nodes + components,
        degree=_spread(degrees),
        diameter_hops=diameter_hops,
        diameter_exact=diameter_exact,
        treewidth_at_most=treewidth_at_most(around),
        is_simple_cycle=components == 1 and nodes >= 3 and set(degrees) == {2},
    )


def gini(values: list[int]) -> float:
    """Gini coefficient: mean absolute difference of two values over twice their mean."""
    total = sum(values)
    if total == 0:
        return 0.0
    ranked = sum(rank * value for rank, value in enumerate(sorted(values), start=1))
    return 2.0 * ranked / (len(values) * total) - (len(values) + 1) / len(values)


def _spread(degrees: list[int]) -> DegreeSpread:
    if not degrees:
        return DegreeSpread(least=0, median=0.0, most=0, gini=0.0)
    return DegreeSpread(
        least=min(degrees),
        median=float(statistics.median(degrees)),
        most=max(degrees),
        gini=gini(degrees),
    )


def _plain(around: Neighbours) -> rx.PyGraph[int, None]:
    graph: rx.PyGraph[int, None] = rx.PyGraph(multigraph=False)
    index = dict(zip(around, graph.add_nodes_from(list(around)), strict=True))
    graph.add_edges_from(
        [
            (index[one], index[other], None)
            for one, others in around.items()
            for other in others
            if one < other
        ]
    )
    return graph


def _diameter(graph: rx.PyGraph[int, None]) -> tuple[int, bool]:
    """Diameter, and whether it is exact.

    A large graph gets the double sweep's lower bound, per component: from any node to the farthest,
    and from there to the farthest. Source: Magnien, Latapy and Habib, "Fast computation of
    empirically tight bounds for the diameter of massive graphs", JEA 13, 2009.
    """
    if graph.num_nodes() == 0:
        return 0, True
    if graph.num_nodes() <= _ALL_PAIRS_NODES:
        hops = rx.graph_distance_matrix(graph, null_value=0.0)
        return int(np.max(hops)), True
    longest = 0
    for component in rx.connected_components(graph):
        far, _ = _farthest(graph, min(component))
        longest = max(longest, _farthest(graph, far)[1])
    return longest, False


def _farthest(graph: rx.PyGraph[int, None], start: int) -> tuple[int, int]:
    lengths = rx.dijkstra_shortest_path_lengths(graph, start, lambda _: 1.0)
    far = max(lengths, key=lambda node: (lengths[node], -node), default=start)
    return far, int(lengths[far]) if far in lengths else 0
