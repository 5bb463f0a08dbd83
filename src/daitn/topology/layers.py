"""The DRRT as a multi-layer graph: its layers and the edges that couple them.

Each node is in one layer: data sets, compute, verification units, and, in the reachability layer
with measured links as its edges, the sites themselves. Edges between layers connect what belongs or
fits together. Terms: Kivelä et al., "Multilayer networks", Journal of Complex Networks 2014.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

import rustworkx as rx

from daitn.objects.access import allows
from daitn.objects.descriptors import covers_topic
from daitn.objects.identifiers import SiteId
from daitn.objects.readings import LinkReading
from daitn.topology.snapshot import Drrt, SiteState

__all__ = [
    "Coupling",
    "Layer",
    "LayerEdge",
    "LayerNode",
    "couplings",
    "layered",
    "node_id",
    "nodes",
    "usable",
]


class Layer(enum.StrEnum):
    """Layer of a node."""

    DATA = "data"
    COMPUTE = "compute"
    VERIFIER = "verifier"
    REACHABILITY = "reachability"


class Coupling(enum.StrEnum):
    """Meaning of an edge."""

    LINK = "link"
    """Measured between two sites; the only edge within a layer."""
    AT = "at"
    """A data set, compute or a verification unit is at a site."""
    TRAINS = "trains"
    """The compute beside the data has a recipe installed that the data's policy allows."""
    MEASURES = "measures"
    """A test set and a data set, if one's topic covers the other's."""


@dataclass(frozen=True)
class LayerNode:
    """A node of the multi-layer graph; `id` is unique over all layers."""

    id: str
    layer: Layer
    site: SiteId
    dataset: str = ""
    """Name of the data set; empty in the other layers."""


@dataclass(frozen=True)
class LayerEdge:
    """An edge of the multi-layer graph, by the ids of its ends."""

    source: str
    target: str
    coupling: Coupling


def nodes(snapshot: Drrt) -> Iterator[LayerNode]:
    """All nodes of all known sites, by site."""
    for site, state in sorted(snapshot.sites.items()):
        yield LayerNode(node_id(Layer.REACHABILITY, site), Layer.REACHABILITY, site)
        for name in sorted(dataset.name for dataset in state.descriptor.datasets):
            yield LayerNode(node_id(Layer.DATA, site, name), Layer.DATA, site, name)
        if state.descriptor.compute is not None:
            yield LayerNode(node_id(Layer.COMPUTE, site), Layer.COMPUTE, site)
        if state.descriptor.verifier is not None:
            yield LayerNode(node_id(Layer.VERIFIER, site), Layer.VERIFIER, site)


def couplings(snapshot: Drrt) -> Iterator[LayerEdge]:
    """The edges between layers, by site."""
    testers = [
        (node_id(Layer.VERIFIER, site), {test.topic for test in state.descriptor.verifier.tests})
        for site, state in sorted(snapshot.sites.items())
        if state.descriptor.verifier is not None
    ]
    for site, state in sorted(snapshot.sites.items()):
        yield from _at_site(site, state)
        for dataset in sorted(state.descriptor.datasets, key=lambda dataset: dataset.name):
            for tester, tested in testers:
                if any(
                    covers_topic(topic, test) or covers_topic(test, topic)
                    for topic in dataset.topics
                    for test in tested
                ):
                    source = node_id(Layer.DATA, site, dataset.name)
                    yield LayerEdge(source, tester, Coupling.MEASURES)


def usable(link: LinkReading) -> bool:
    """Whether the link ever carried anything and does not lose everything now."""
    seen = link.rtt_s is not None or link.throughput_bps is not None
    return seen and not (link.loss is not None and link.loss.value >= 1.0)


def layered(snapshot: Drrt) -> rx.PyGraph[LayerNode, Coupling]:
    """The multi-layer graph of all live sites.

    A link counts once, whichever of its ends measured it.
    """
    graph: rx.PyGraph[LayerNode, Coupling] = rx.PyGraph(multigraph=False)
    alive = set(snapshot.alive())
    index = {node.id: graph.add_node(node) for node in nodes(snapshot) if node.site in alive}
    for edge in couplings(snapshot):
        if edge.source in index and edge.target in index:
            graph.add_edge(index[edge.source], index[edge.target], edge.coupling)
    for source, targets in sorted(snapshot.links.items()):
        for target, link in sorted(targets.items()):
            if source != target and source in alive and target in alive and usable(link):
                ends = node_id(Layer.REACHABILITY, source), node_id(Layer.REACHABILITY, target)
                graph.add_edge(index[ends[0]], index[ends[1]], Coupling.LINK)
    return graph


def _at_site(site: SiteId, state: SiteState) -> Iterator[LayerEdge]:
    descriptor, here = state.descriptor, node_id(Layer.REACHABILITY, site)
    compute = descriptor.compute
    for dataset in sorted(descriptor.datasets, key=lambda dataset: dataset.name):
        data = node_id(Layer.DATA, site, dataset.name)
        yield LayerEdge(data, here, Coupling.AT)
        if compute and any(allows(dataset.policy.recipes, name) for name in compute.recipes):
            yield LayerEdge(data, node_id(Layer.COMPUTE, site), Coupling.TRAINS)
    if compute is not None:
        yield LayerEdge(node_id(Layer.COMPUTE, site), here, Coupling.AT)
    if descriptor.verifier is not None:
        yield LayerEdge(node_id(Layer.VERIFIER, site), here, Coupling.AT)


def node_id(layer: Layer, site: SiteId, name: str = "") -> str:
    """Id of a node; `name` is the data set's."""
    return f"{layer}:{site}/{name}" if layer is Layer.DATA else f"{layer}:{site}"
