"""A QS-QRRT for people and other programs: JSON-able values, and GraphML for graph tools."""

from __future__ import annotations

import math

import msgspec

from daitn.objects.decisions import Rejection
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import QueryIntent, Trust
from daitn.topology.graphml import Attributes, graphml
from daitn.topology.qrrt.accuracy import TRUSTED
from daitn.topology.qrrt.filters import FILTERS, failing, passing, rejection
from daitn.topology.qrrt.relevance import QsQrrt

__all__ = ["QueryCut", "QueryOption", "export_query", "query_to_graphml"]

_TRUST = {number: trust for trust, number in TRUSTED.items()}


class QueryOption(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment, as one query sees it."""

    deployment: str
    """`name@site`"""
    model: str
    site: SiteId
    path: tuple[SiteId, ...]
    """From the gateway's site to the facility's; empty: there is none."""
    may_answer: bool
    rejections: tuple[Rejection, ...]
    accuracy: float | None
    """On the query's topic: what counts for the query, or else what is claimed."""
    trust: Trust | None
    accuracy_age_s: float | None
    """None for what is claimed, too."""
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


def export_query(cut: QsQrrt) -> QueryCut:
    """Every row of the cut, with its expectations, and every reason against it."""
    passes, fails = passing(cut), failing(cut)
    options = []
    for at in range(len(passes)):
        failed = (f for f, fail in zip(FILTERS, fails, strict=True) if fail[at])
        reasons = tuple(rejection(cut, filter_, at) for filter_ in failed)
        options.append(_option(cut, at, bool(passes[at]), reasons))
    return QueryCut(
        version=cut.snapshot.version,
        at_s=cut.now_s,
        intent=cut.intent,
        options=tuple(options),
    )


def query_to_graphml(cut: QueryCut) -> str:
    """Layers: the gateway, sites on the way, deployments at facilities, models."""
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


def _option(cut: QsQrrt, at: int, passes: bool, rejections: tuple[Rejection, ...]) -> QueryOption:
    row = int(cut.numbers[at])
    deployed = cut.snapshot.rows[row]
    known = cut.accuracy(cut.intent.wishes.trust)
    if not known.trust[at]:
        known = cut.accuracy(Trust.CLAIMED)
    trust, measured_at_s = _TRUST.get(int(known.trust[at])), float(known.at_s[at])
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
    """JSON knows no infinity: what never comes takes a year."""
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
