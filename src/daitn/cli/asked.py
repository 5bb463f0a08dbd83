"""How models, facilities and queries are looked up and shown."""

from __future__ import annotations

import time

from rich.console import RenderableType

from daitn.cli.session import ANSWER_TIMEOUT_S, Session, connect
from daitn.cli.tables import plain_table, size
from daitn.objects.descriptors import ModelDescriptor
from daitn.objects.errors import DaitnError
from daitn.objects.identifiers import JobId, SiteId, checked_name
from daitn.objects.queries import QueryRecord
from daitn.objects.requests import (
    ExplainQuery,
    JobQuery,
    QueriesWanted,
    QueryExplained,
    QueryList,
)
from daitn.objects.wire import decode, encode
from daitn.tools.fabric import keys
from daitn.topology.qrrt.served import ServedModel, ServedModels
from daitn.topology.snapshot import NodeList, SiteState

__all__ = [
    "explained_query",
    "facilities_table",
    "latest_queries",
    "models_table",
    "queries_table",
    "query_table",
]

_LISTED = 100


async def latest_queries(center: str) -> tuple[QueryRecord, ...]:
    """The latest queries of every gateway that is there, newest first."""
    async with connect(center) as session:
        nodes = (await session.ask("nodes", JobQuery(job=JobId("")), NodeList)).nodes
        found: list[QueryRecord] = []
        for node in nodes:
            if node.alive and node.descriptor.gateway is not None:
                found += await _queries_of(session, node.descriptor.site)
    return tuple(sorted(found, key=lambda query: -query.asked_at_s)[:_LISTED])


async def explained_query(center: str, query: str) -> QueryExplained:
    """A query and the decision on it. Raises `NotFound` where its gateway does not know it."""
    site = SiteId(checked_name(query.partition(":")[0], "query"))
    async with connect(center) as session:
        answer = await session.fabric.request(
            keys.site_do(site, "explain"),
            encode(ExplainQuery(query=query)),
            timeout_s=ANSWER_TIMEOUT_S,
        )
    return decode(answer, QueryExplained)


async def _queries_of(session: Session, site: SiteId) -> tuple[QueryRecord, ...]:
    try:
        answer = await session.fabric.request(
            keys.site_do(site, "queries"),
            encode(QueriesWanted(limit=_LISTED)),
            timeout_s=ANSWER_TIMEOUT_S,
        )
    except DaitnError:
        return ()  # A gateway that is just leaving must not hide the others'.
    return decode(answer, QueryList).queries


def models_table(models: tuple[ModelDescriptor, ...], served: ServedModels) -> RenderableType:
    """Trained models and where they answer, then models of other servers."""
    names = {model.manifest: model for model in models}
    rows = [_deployed_row(model) for model in served.models]
    placed = {model.name for model in served.models}
    rows += [
        (
            model.name,
            "-",
            "trained",
            ", ".join(f"{name} {value:.3f}" for name, value in model.measured.items()),
            "",
            "",
            size(model.size_bytes),
        )
        for model in names.values()
        if model.name not in placed
    ]
    columns = ("model", "facility", "state", "accuracy", "first token", "USD/1k out", "load")
    return plain_table("", columns, rows)


def _deployed_row(model: ServedModel) -> tuple[str, ...]:
    state = "degraded" if model.degraded else model.state if model.there else "away"
    known = [
        f"{a.topic} {a.value:.3f}±{a.standard_error:.3f} ({a.trust}, {_age(a.at_s)})"
        for a in model.accuracy
    ]
    return (
        model.name,
        model.site,
        state,
        ", ".join(known) or "-",
        f"{1e3 * model.first_token_s:.0f} ms" if model.measured else "-",
        f"{model.price_usd_per_1k_out:g}",
        f"{model.in_flight}/{model.slots}",
    )


def facilities_table(sites: tuple[SiteState, ...], served: ServedModels) -> RenderableType:
    """Facilities and what answers there."""
    rows = []
    for site in sites:
        facility = site.descriptor.facility
        assert facility is not None
        models = [m for m in served.models if m.site == site.descriptor.site]
        rows.append(
            (
                site.descriptor.site,
                "alive" if site.alive else "lost",
                site.descriptor.owner,
                site.descriptor.jurisdiction,
                facility.endpoint,
                "yes" if facility.hosts else "no",
                size(facility.memory_bytes),
                ", ".join(f"{m.name} {m.in_flight}/{m.slots}" for m in models) or "-",
            )
        )
    columns = ("facility", "state", "owner", "law", "endpoint", "hosts", "memory", "models")
    return plain_table("", columns, rows)


def queries_table(queries: tuple[QueryRecord, ...]) -> RenderableType:
    """Queries, one a line."""
    columns = ("query", "asked", "wanted", "topic", "status", "answered by", "ms", "USD", "why not")
    rows = [
        (
            query.id,
            _age(query.asked_at_s),
            query.model_wanted,
            query.topic or "-",
            query.status,
            f"{query.deployment}@{query.site}" if query.deployment else "-",
            f"{1e3 * query.seconds:.1f}",
            f"{query.cost_usd:.2g}",
            query.reason,
        )
        for query in queries
    ]
    return plain_table("", columns, rows)


def query_table(query: QueryRecord) -> RenderableType:
    """One query: what was wanted, and how it went."""
    rows = [
        ("wanted", query.model_wanted),
        ("topic", query.topic or "-"),
        ("status", f"{query.status} ({query.http_status}) {query.reason}"),
        ("answered by", f"{query.deployment}@{query.site}" if query.deployment else "-"),
        ("path", " > ".join(query.path) or "-"),
        ("strategy", query.strategy),
        ("attempts", query.attempts),
        ("seconds", f"{query.seconds:.4f}, {1e3 * query.overhead_s:.2f} ms of them here"),
        ("tokens", f"{query.tokens_in} in, {query.tokens_out} out, {query.cost_usd:.3g} USD"),
    ]
    return plain_table(query.id, ("", ""), rows)


def _age(at_s: float) -> str:
    age_s = max(0.0, time.time() - at_s)
    for unit, seconds in (("d", 86_400), ("h", 3600), ("min", 60)):
        if age_s >= seconds:
            return f"{age_s / seconds:.0f} {unit} ago"
    return f"{age_s:.0f} s ago"
