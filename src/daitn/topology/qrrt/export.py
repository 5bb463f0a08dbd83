"""Export of QRRT and QS-QRRT: JSON-able values, and GraphML for graph tools.

The order is fixed by names, so two exports of one snapshot are equal.
"""

from __future__ import annotations

import math

import msgspec

from daitn.objects.decisions import Rejection
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.messages import DemandRate
from daitn.objects.queries import QueryIntent, Trust
from daitn.objects.readings import LinkReading
from daitn.topology.export import AgedReading
from daitn.topology.graphml import Attributes, graphml
from daitn.topology.qrrt.filters import FILTERS, failing, passing, rejection
from daitn.topology.qrrt.relevance import QsQrrt
from daitn.topology.qrrt.served import TRUST_OF, ServedModel, served_models
from daitn.topology.qrrt.snapshot import Qrrt, deployment_id

__all__ = [
    "FacilityView",
    "GatewayView",
    "QrrtView",
    "QueryCut",
    "QueryOption",
    "ReachabilityView",
    "export_qrrt",
    "export_query",
    "qrrt_to_graphml",
    "query_to_graphml",
]


class QueryOption(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment, as one query sees it."""

    deployment: str
    """`name@site`"""
    model: str
    site: SiteId
    path: tuple[SiteId, ...]
    """From the gateway's site to the facility's; empty means no path."""
    may_answer: bool
    rejections: tuple[Rejection, ...]
    accuracy: float | None
    """On the query's topic, with the trust the query requires; else the claim."""
    trust: Trust | None
    accuracy_age_s: float | None
    """None for a claim, too."""
    load: int
    wait_s: float
    first_token_s: float
    seconds: float
    cost_usd: float


class QueryCut(msgspec.Struct, frozen=True, kw_only=True):
    """The QS-QRRT of a query at one gateway."""

    version: int
    at_s: float
    intent: QueryIntent
    options: tuple[QueryOption, ...]
    """By model, then site."""


class GatewayView(msgspec.Struct, frozen=True, kw_only=True):
    """An entry point for queries."""

    site: SiteId
    owner: OwnerId
    jurisdiction: str
    endpoint: str
    demand: tuple[DemandRate, ...]
    """Demand there."""


class FacilityView(msgspec.Struct, frozen=True, kw_only=True):
    """A facility that hosts deployments."""

    site: SiteId
    alive: bool
    owner: OwnerId
    jurisdiction: str
    endpoint: str
    hosts: bool
    memory_bytes: int
    price_usd_per_hour: float
    keeps_queries: bool


class ReachabilityView(msgspec.Struct, frozen=True, kw_only=True):
    """Measurement by `source` of its link to `target`."""

    source: SiteId
    target: SiteId
    rtt_s: AgedReading | None
    loss: AgedReading | None


class QrrtView(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the QRRT, including recently lost facilities."""

    version: int
    at_s: float
    gateways: tuple[GatewayView, ...]
    facilities: tuple[FacilityView, ...]
    deployments: tuple[ServedModel, ...]
    """By model, then facility."""
    reachability: tuple[ReachabilityView, ...]
    """Links among gateways and facilities."""


def export_qrrt(snapshot: Qrrt, now_s: float) -> QrrtView:
    """The whole topology: gateways, facilities, deployments, and the links between them."""
    gateways = _gateways(snapshot)
    facilities = _facilities(snapshot)
    ends = {gateway.site for gateway in gateways} | {facility.site for facility in facilities}
    return QrrtView(
        version=snapshot.version,
        at_s=now_s,
        gateways=gateways,
        facilities=facilities,
        deployments=served_models(snapshot).models,
        reachability=tuple(
            _reachability(link, now_s)
            for source, targets in sorted(snapshot.links.items())
            for target, link in sorted(targets.items())
            if source in ends and target in ends
        ),
    )


def qrrt_to_graphml(view: QrrtView) -> str:
    """Layers: gateways, sites, facilities, deployments, models."""
    vertices: dict[str, Attributes] = {}
    edges: list[tuple[str, str, Attributes]] = []
    for gateway in view.gateways:
        demand = {"queries_per_s": math.fsum(rate.per_s for rate in gateway.demand)}
        at = _placed(vertices, gateway)
        vertices[f"gateway:{gateway.site}"] = {"layer": "query", "site": gateway.site, **demand}
        edges.append((f"gateway:{gateway.site}", at, {"coupling": "at"}))
    for facility in view.facilities:
        at = _placed(vertices, facility)
        vertices[f"facility:{facility.site}"] = _facility_attributes(facility)
        edges.append((at, f"facility:{facility.site}", {"coupling": "at"}))
    for served in view.deployments:
        model = f"model:{served.name}"
        deployed = f"deployment:{deployment_id(served.name, served.site)}"
        vertices.setdefault(model, {"layer": "model"})
        vertices[deployed] = _served_attributes(served)
        edges.append((f"facility:{served.site}", deployed, {"coupling": "at"}))
        edges.append((deployed, model, {"coupling": "serves"}))
    for link in view.reachability:
        edges.append((f"site:{link.source}", f"site:{link.target}", _link_attributes(link)))
    return graphml(f"qrrt-{view.version}", vertices, edges)


def export_query(cut: QsQrrt) -> QueryCut:
    """Every row of the cut, with its estimates and every reason against it."""
    passes, fails = passing(cut), failing(cut)
    options = []
    for at in range(len(passes)):
        failed = (f for f, fail in zip(FILTERS, fails, strict=True) if fail[at])
        reasons = tuple(rejection(cut, filter_, at) for filter_ in failed)
        options.append(_option(cut, at, bool(passes[at]), reasons))
    options.sort(key=lambda option: (option.model, option.site))
    return QueryCut(
        version=cut.snapshot.version,
        at_s=cut.now_s,
        intent=cut.intent,
        options=tuple(options),
    )


def query_to_graphml(cut: QueryCut) -> str:
    """Layers: the gateway, sites on the path, deployments at facilities, models."""
    origin = f"gateway:{cut.intent.origin}"
    vertices: dict[str, Attributes] = {origin: {"layer": "query", "topic": cut.intent.topic}}
    edges: list[tuple[str, str, Attributes]] = []
    linked: set[tuple[str, str]] = set()
    for option in cut.options:
        model, deployed = f"model:{option.model}", f"deployment:{option.deployment}"
        vertices.setdefault(model, {"layer": "model"})
        vertices[deployed] = _attributes(option)
        edges.append((deployed, model, {"coupling": "serves"}))
        at = origin
        for site in option.path[1:]:
            here = f"site:{site}"
            if here not in vertices:
                vertices[here] = {"layer": "reachability", "site": site}
            if (at, here) not in linked:
                linked.add((at, here))
                edges.append((at, here, {"coupling": "link"}))
            at = here
        if option.path:
            edges.append((at, deployed, {"coupling": "at"}))
    return graphml(f"qs-qrrt-{cut.version}", vertices, edges)


def _gateways(snapshot: Qrrt) -> tuple[GatewayView, ...]:
    return tuple(
        GatewayView(
            site=site,
            owner=node.owner,
            jurisdiction=node.jurisdiction,
            endpoint=node.gateway.endpoint,
            demand=snapshot.demand[site].rates if site in snapshot.demand else (),
        )
        for site, node in sorted(snapshot.nodes.items())
        if node.gateway is not None
    )


def _facilities(snapshot: Qrrt) -> tuple[FacilityView, ...]:
    """Live facilities, and lost ones whose deployments are still known."""
    known = {row.site: (row.facility, row.provider, row.jurisdiction) for row in snapshot.rows}
    for site, node in snapshot.nodes.items():
        if node.facility is not None:
            known[site] = (node.facility, node.owner, node.jurisdiction)
    return tuple(
        FacilityView(
            site=site,
            alive=site in snapshot.nodes,
            owner=owner,
            jurisdiction=jurisdiction,
            endpoint=facility.endpoint,
            hosts=facility.hosts,
            memory_bytes=facility.memory_bytes,
            price_usd_per_hour=facility.price_usd_per_hour,
            keeps_queries=facility.keeps_queries,
        )
        for site, (facility, owner, jurisdiction) in sorted(known.items())
    )


def _reachability(link: LinkReading, now_s: float) -> ReachabilityView:
    return ReachabilityView(
        source=link.source,
        target=link.target,
        rtt_s=AgedReading.of(link.rtt_s, now_s),
        loss=AgedReading.of(link.loss, now_s),
    )


def _placed(vertices: dict[str, Attributes], part: GatewayView | FacilityView) -> str:
    """The node in the reachability layer for a gateway's or facility's site."""
    at = f"site:{part.site}"
    vertices[at] = {
        "layer": "reachability",
        "site": part.site,
        "owner": part.owner,
        "jurisdiction": part.jurisdiction,
    }
    return at


def _facility_attributes(facility: FacilityView) -> Attributes:
    return {
        "layer": "facility",
        "site": facility.site,
        "alive": facility.alive,
        "hosts": facility.hosts,
        "memory_bytes": facility.memory_bytes,
        "price_usd_per_hour": float(facility.price_usd_per_hour),
        "keeps_queries": facility.keeps_queries,
    }


def _served_attributes(served: ServedModel) -> Attributes:
    return {
        "layer": "deployment",
        "site": served.site,
        "state": str(served.state),
        "available": served.available,
        "degraded": served.degraded,
        "load": served.in_flight,
        "slots": served.slots,
        "first_token_s": served.first_token_s,
        "per_token_s": served.per_token_s,
        "error_share": served.error_share,
        "price_usd_per_1k_in": float(served.price_usd_per_1k_in),
        "price_usd_per_1k_out": float(served.price_usd_per_1k_out),
        "accuracy": " ".join(f"{a.topic}={a.value:.3f}/{a.trust}" for a in served.accuracy),
    }


def _link_attributes(link: ReachabilityView) -> Attributes:
    attributes: Attributes = {"coupling": "link"}
    for name, reading in (("rtt_s", link.rtt_s), ("loss", link.loss)):
        if reading is not None:
            attributes |= {name: float(reading.value), f"{name}_age_s": float(reading.age_s)}
    return attributes


def _option(cut: QsQrrt, at: int, passes: bool, rejections: tuple[Rejection, ...]) -> QueryOption:
    row = int(cut.numbers[at])
    deployed = cut.snapshot.rows[row]
    known = cut.accuracy(cut.intent.constraints.trust)
    if not known.trust[at]:
        known = cut.accuracy(Trust.CLAIMED)
    trust, measured_at_s = TRUST_OF.get(int(known.trust[at])), float(known.at_s[at])
    return QueryOption(
        deployment=deployed.id,
        model=deployed.name,
        site=deployed.site,
        path=_path(cut, at, row),
        may_answer=passes,
        rejections=rejections,
        accuracy=None if trust is None else float(known.value[at]),
        trust=trust,
        accuracy_age_s=max(0.0, cut.now_s - measured_at_s) if measured_at_s else None,
        load=int(cut.load[at]),
        wait_s=_finite(float(cut.wait_s[at])),
        first_token_s=_finite(float(cut.first_token_s[at])),
        seconds=_finite(float(cut.seconds[at])),
        cost_usd=float(cut.cost_usd[at]),
    )


def _path(cut: QsQrrt, at: int, row: int) -> tuple[SiteId, ...]:
    if not math.isfinite(cut.rtt_s[at]):
        return ()
    relay = int(cut.paths.relay[row])
    between = (cut.paths.relays[relay],) if relay >= 0 else ()
    sites = (cut.intent.origin, *between, cut.snapshot.rows[row].site)
    return tuple(dict.fromkeys(sites))


def _finite(seconds: float) -> float:
    """JSON has no infinity: an answer that never comes is shown as a year."""
    return seconds if math.isfinite(seconds) else 31_536_000.0


def _attributes(option: QueryOption) -> Attributes:
    attributes: Attributes = {
        "layer": "deployment",
        "site": option.site,
        "relevant": option.may_answer,
        "rejected": "; ".join(f"{no.filter}: {no.reason}" for no in option.rejections),
        "seconds": option.seconds,
        "cost_usd": option.cost_usd,
        "load": option.load,
    }
    if option.accuracy is not None:
        attributes |= {"accuracy": option.accuracy, "trust": str(option.trust)}
    return attributes
