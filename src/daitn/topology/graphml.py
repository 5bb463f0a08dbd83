"""GraphML of a topology, for graph tools: one directed graph, the layer in an attribute.

Format: Brandes, Eiglsperger, Lerner and Pich, "Graph markup language (GraphML)", in Handbook of
Graph Drawing and Visualization, 2013. Uses the core attribute types only, no extension.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree

from daitn.objects.descriptors import NodeDescriptor
from daitn.topology.export import (
    AgedReading,
    LinkView,
    NodeView,
    RelevantView,
    SiteView,
    TopologyView,
)
from daitn.topology.layers import Coupling, Layer, node_id

__all__ = ["Attributes", "graphml", "relevant_to_graphml", "to_graphml"]

Value = str | bool | int | float
Attributes = dict[str, Value]

_TYPES: dict[type, str] = {str: "string", bool: "boolean", int: "long", float: "double"}
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_graphml(view: TopologyView) -> str:
    """Nodes of all layers, measured links with their ages, and the edges between layers."""
    return _written(view, {})


def relevant_to_graphml(view: RelevantView) -> str:
    """The same for an MS-DRRT: data and verifiers are marked relevant or rejected, with reasons."""
    kept = {
        *(node_id(Layer.DATA, option.site, option.dataset.name) for option in view.options),
        *(
            node_id(Layer.VERIFIER, option.site)
            for options in view.verifiers.values()
            for option in options
        ),
    }
    reasons: dict[str, list[str]] = {}
    for rejection in view.rejections:
        site, _, dataset = rejection.candidate.partition("/")
        layer = Layer.DATA if dataset else Layer.VERIFIER
        words = f"{rejection.filter}: {rejection.reason}"
        reasons.setdefault(f"{layer}:{site}" + (f"/{dataset}" if dataset else ""), []).append(words)
    marks: dict[str, Attributes] = {
        node.id: {"relevant": node.id in kept, "rejected": "; ".join(reasons.get(node.id, ()))}
        for node in view.topology.nodes
        if node.layer in (Layer.DATA, Layer.VERIFIER)
    }
    return _written(view.topology, marks)


def _written(view: TopologyView, marks: Mapping[str, Attributes]) -> str:
    sites = {site.site: site for site in view.sites}
    vertices = {
        node.id: {**_node(node, sites[node.site]), **marks.get(node.id, {})} for node in view.nodes
    }
    edges: list[tuple[str, str, Attributes]] = [
        (edge.source, edge.target, {"coupling": str(edge.coupling)}) for edge in view.couplings
    ]
    edges += [
        (
            node_id(Layer.REACHABILITY, link.source),
            node_id(Layer.REACHABILITY, link.target),
            _link(link),
        )
        for link in view.links
    ]
    return graphml(f"drrt-{view.version}", vertices, edges)


def graphml(
    name: str, vertices: Mapping[str, Attributes], edges: list[tuple[str, str, Attributes]]
) -> str:
    """A directed graph with attributes as a GraphML document."""
    root = ElementTree.Element("graphml", xmlns="http://graphml.graphdrawing.org/xmlns")
    keys = {
        "node": _declare(root, "node", list(vertices.values())),
        "edge": _declare(root, "edge", [attributes for _, _, attributes in edges]),
    }
    graph = ElementTree.SubElement(root, "graph", id=_clean(name), edgedefault="directed")
    for vertex, attributes in vertices.items():
        element = ElementTree.SubElement(graph, "node", id=_clean(vertex))
        _fill(element, attributes, keys["node"])
    for source, target, attributes in edges:
        ends = {"source": _clean(source), "target": _clean(target)}
        _fill(ElementTree.SubElement(graph, "edge", ends), attributes, keys["edge"])
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _declare(root: ElementTree.Element, domain: str, rows: list[Attributes]) -> dict[str, str]:
    """Declare each attribute with its type; returns the attributes' keys by name."""
    kinds = {name: type(value) for row in rows for name, value in row.items()}
    keys = {}
    for name, kind in sorted(kinds.items()):
        keys[name] = f"{domain}-{name}"
        declared = {"id": keys[name], "for": domain, "attr.name": name, "attr.type": _TYPES[kind]}
        ElementTree.SubElement(root, "key", declared)
    return keys


def _fill(element: ElementTree.Element, attributes: Attributes, keys: Mapping[str, str]) -> None:
    for name, value in sorted(attributes.items()):
        data = ElementTree.SubElement(element, "data", key=keys[name])
        data.text = str(value).lower() if isinstance(value, bool) else _clean(str(value))


def _clean(text: str) -> str:
    """Replace characters that XML cannot hold with the replacement character."""
    return _NOT_IN_XML.sub("\ufffd", text)


def _node(node: NodeView, site: SiteView) -> Attributes:
    attributes: Attributes = {"layer": str(node.layer), "site": node.site, "alive": site.alive}
    descriptor = site.descriptor
    match node.layer:
        case Layer.DATA:
            return attributes | _dataset(descriptor, node.dataset)
        case Layer.COMPUTE:
            return attributes | _compute(descriptor)
        case Layer.VERIFIER:
            tests = descriptor.verifier.tests if descriptor.verifier else ()
            return attributes | {"topics": " ".join(sorted({test.topic for test in tests}))}
        case Layer.REACHABILITY:
            attributes |= {"owner": descriptor.owner, "jurisdiction": descriptor.jurisdiction}
            return attributes | _aged("queue", site.queue) | _aged("cpu_share", site.cpu_share)


def _dataset(descriptor: NodeDescriptor, name: str) -> Attributes:
    dataset = next(dataset for dataset in descriptor.datasets if dataset.name == name)
    return {
        "dataset": dataset.name,
        "topics": " ".join(dataset.topics),
        "samples": dataset.samples,
        "quality": float(dataset.quality),
        "price_usd_per_1k": float(dataset.price_usd_per_1k),
        "jurisdiction": dataset.jurisdiction,
    }


def _compute(descriptor: NodeDescriptor) -> Attributes:
    compute = descriptor.compute
    assert compute is not None, "a node of the compute layer"
    return {
        "device": compute.device,
        "memory_bytes": compute.memory_bytes,
        "speed_flops": float(compute.speed_flops),
        "recipes": " ".join(sorted(compute.recipes)),
        "price_usd_per_hour": float(compute.price_usd_per_hour),
    }


def _link(link: LinkView) -> Attributes:
    return (
        {"coupling": str(Coupling.LINK)}
        | _aged("rtt_s", link.rtt_s)
        | _aged("throughput_bps", link.throughput_bps)
        | _aged("loss", link.loss)
    )


def _aged(name: str, reading: AgedReading | None) -> Attributes:
    if reading is None:
        return {}
    return {name: float(reading.value), f"{name}_age_s": float(reading.age_s)}
