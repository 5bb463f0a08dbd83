"""Export of a topology for people and other programs: JSON-able values; see `graphml` for GraphML.

The order is fixed by names, so two exports of one snapshot are equal.
"""

from __future__ import annotations

import msgspec

from daitn.objects.decisions import Rejection
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.identifiers import ObjectiveName, SiteId
from daitn.objects.readings import LinkReading, Reading
from daitn.topology.layers import Coupling, Layer, couplings, nodes
from daitn.topology.snapshot import DataOption, Drrt, MsDrrt, VerifierOption

__all__ = [
    "AgedReading",
    "CouplingView",
    "LinkView",
    "NodeView",
    "RelevantView",
    "SiteView",
    "TopologyView",
    "export",
    "export_relevant",
]


class AgedReading(msgspec.Struct, frozen=True, kw_only=True):
    """A reading with its age when the snapshot was taken."""

    value: float
    age_s: float
    origin: SiteId

    @classmethod
    def of(cls, reading: Reading | None, at_s: float) -> AgedReading | None:
        """None if there is no reading."""
        if reading is None:
            return None
        return cls(value=reading.value, age_s=reading.age_s(at_s), origin=reading.origin)


class SiteView(msgspec.Struct, frozen=True, kw_only=True):
    """A site, its descriptor, and its load."""

    site: SiteId
    alive: bool
    changed_at_s: float
    descriptor: NodeDescriptor
    queue: AgedReading | None
    cpu_share: AgedReading | None
    disk_free_bytes: AgedReading | None


class LinkView(msgspec.Struct, frozen=True, kw_only=True):
    """What `source` measured of its link to `target`."""

    source: SiteId
    target: SiteId
    rtt_s: AgedReading | None
    throughput_bps: AgedReading | None
    loss: AgedReading | None


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the multi-layer graph."""

    id: str
    layer: Layer
    site: SiteId
    dataset: str
    """Name of the data set; empty in the other layers."""


class CouplingView(msgspec.Struct, frozen=True, kw_only=True):
    """An edge between two layers, by the ids of its nodes."""

    source: str
    target: str
    coupling: Coupling


class TopologyView(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the DRRT, including lost sites."""

    version: int
    at_s: float
    sites: tuple[SiteView, ...]
    links: tuple[LinkView, ...]
    nodes: tuple[NodeView, ...]
    couplings: tuple[CouplingView, ...]


class RelevantView(msgspec.Struct, frozen=True, kw_only=True):
    """One MS-DRRT: what can serve the model, and why everything else cannot."""

    topology: TopologyView
    options: tuple[DataOption, ...]
    verifiers: dict[ObjectiveName, tuple[VerifierOption, ...]]
    rejections: tuple[Rejection, ...]


def export(snapshot: Drrt) -> TopologyView:
    """The whole topology, by site."""
    return TopologyView(
        version=snapshot.version,
        at_s=snapshot.at_s,
        sites=tuple(_site(snapshot, site) for site in sorted(snapshot.sites)),
        links=tuple(
            _link(link, snapshot.at_s)
            for _, targets in sorted(snapshot.links.items())
            for _, link in sorted(targets.items())
        ),
        nodes=tuple(
            NodeView(id=node.id, layer=node.layer, site=node.site, dataset=node.dataset)
            for node in nodes(snapshot)
        ),
        couplings=tuple(
            CouplingView(source=edge.source, target=edge.target, coupling=edge.coupling)
            for edge in couplings(snapshot)
        ),
    )


def export_relevant(relevant: MsDrrt) -> RelevantView:
    """The topology cut for one model, with all reasons."""
    return RelevantView(
        topology=export(relevant.snapshot),
        options=relevant.options,
        verifiers=dict(sorted(relevant.verifiers.items())),
        rejections=relevant.rejections,
    )


def _site(snapshot: Drrt, site: SiteId) -> SiteView:
    state = snapshot.sites[site]
    load = state.load
    return SiteView(
        site=site,
        alive=state.alive,
        changed_at_s=state.changed_at_s,
        descriptor=state.descriptor,
        queue=AgedReading.of(load.queue, snapshot.at_s) if load else None,
        cpu_share=AgedReading.of(load.cpu_share, snapshot.at_s) if load else None,
        disk_free_bytes=AgedReading.of(load.disk_free_bytes, snapshot.at_s) if load else None,
    )


def _link(link: LinkReading, at_s: float) -> LinkView:
    return LinkView(
        source=link.source,
        target=link.target,
        rtt_s=AgedReading.of(link.rtt_s, at_s),
        throughput_bps=AgedReading.of(link.throughput_bps, at_s),
        loss=AgedReading.of(link.loss, at_s),
    )
