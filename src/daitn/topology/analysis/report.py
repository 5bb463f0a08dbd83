"""Compares one topology with a simple cycle of the same size."""

from __future__ import annotations

from typing import Any

import msgspec
import rustworkx as rx

from daitn.objects.randomness import Rng
from daitn.topology.analysis.routes import RouteCount, count_routes
from daitn.topology.analysis.shape import Shape, neighbours_of, shape_of
from daitn.topology.layers import Coupling, Layer, layered
from daitn.topology.snapshot import Drrt

__all__ = ["Analysis", "LayerSize", "analyse", "analyse_graph"]

_STOPS = 4


class LayerSize(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of a topology."""

    layer: str
    nodes: int
    edges: int
    """Edges within the layer."""


class Analysis(msgspec.Struct, frozen=True, kw_only=True):
    """Measures of a topology, beside those of a simple cycle with as many nodes."""

    name: str
    layers: tuple[LayerSize, ...]
    inter_layer_edges: int
    shape: Shape
    routes: RouteCount
    """For a layered topology, through the sites that can train; otherwise through all nodes."""
    cycle: Shape
    cycle_routes: RouteCount
    """On a simple cycle with as many nodes as `routes` ranges over."""


def analyse(snapshot: Drrt, *, stops: int = _STOPS, rng: Rng | None = None) -> Analysis:
    """Measure the live part of a DRRT. `stops` is the maximum length of a counted route."""
    graph = layered(snapshot)
    trainable = _trainable(graph)
    around = neighbours_of(graph)
    between = {node: around[node] & trainable for node in sorted(trainable)}
    return Analysis(
        name=f"DRRT version {snapshot.version}",
        layers=tuple(_size(graph, layer) for layer in Layer),
        inter_layer_edges=sum(edge is not Coupling.LINK for edge in graph.edges()),
        shape=shape_of(graph),
        routes=count_routes(between, stops=stops, rng=rng),
        cycle=shape_of(_cycle(graph.num_nodes())),
        cycle_routes=_cycle_routes(len(trainable), stops),
    )


def analyse_graph(
    graph: rx.PyGraph[Any, Any] | rx.PyDiGraph[Any, Any],
    *,
    name: str,
    stops: int = _STOPS,
    rng: Rng | None = None,
) -> Analysis:
    """Measure any graph as a topology of one layer."""
    shape = shape_of(graph)
    return Analysis(
        name=name,
        layers=(LayerSize(layer=Layer.REACHABILITY, nodes=shape.nodes, edges=shape.edges),),
        inter_layer_edges=0,
        shape=shape,
        routes=count_routes(neighbours_of(graph), stops=stops, rng=rng),
        cycle=shape_of(_cycle(shape.nodes)),
        cycle_routes=_cycle_routes(shape.nodes, stops),
    )


def _trainable(graph: rx.PyGraph[Any, Coupling]) -> frozenset[int]:
    """Nodes of the reachability layer whose site has data that may be trained on."""
    sites = {
        graph[one].site
        for one, other, coupling in graph.weighted_edge_list()
        if coupling is Coupling.TRAINS
    }
    return frozenset(
        index
        for index in graph.node_indices()
        if graph[index].layer is Layer.REACHABILITY and graph[index].site in sites
    )


def _size(graph: rx.PyGraph[Any, Coupling], layer: Layer) -> LayerSize:
    inside = [
        (one, other)
        for one, other in graph.edge_list()
        if graph[one].layer is layer and graph[other].layer is layer
    ]
    count = sum(node.layer is layer for node in graph.nodes())
    return LayerSize(layer=layer, nodes=count, edges=len(inside))


def _cycle(nodes: int) -> rx.PyGraph[Any, Any]:
    """A simple cycle; one or two nodes give a path, which has no cycle."""
    return rx.generators.cycle_graph(nodes, multigraph=False) if nodes else rx.PyGraph()


def _cycle_routes(nodes: int, stops: int) -> RouteCount:
    return count_routes(neighbours_of(_cycle(nodes)), stops=stops)
