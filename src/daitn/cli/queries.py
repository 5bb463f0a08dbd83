"""Look up and display models, facilities and queries."""

from __future__ import annotations

import msgspec
from rich.console import RenderableType

from daitn.cli.option_names import naming_options
from daitn.cli.session import ANSWER_TIMEOUT_S, Session, connect
from daitn.cli.tables import age, plain_table, standing, state_words
from daitn.identity.signing import check_attestation
from daitn.oam.words import size
from daitn.objects.descriptors import ModelDescriptor, NodeDescriptor, Role
from daitn.objects.errors import DaitnError
from daitn.objects.findings import Attestation, Finding
from daitn.objects.identifiers import SiteId, checked_name
from daitn.objects.queries import QueryRecord, Trust
from daitn.objects.requests import (
    EVERYTHING,
    ExplainQuery,
    QueriesWanted,
    QueryExplained,
    QueryList,
)
from daitn.objects.wire import decode, encode_checked
from daitn.tools.fabric import keys
from daitn.topology.qrrt.served import KnownAccuracy, ServedModel, ServedModels
from daitn.topology.qrrt.state import ASSUMED_PER_TOKEN_S
from daitn.topology.snapshot import NodeList, SiteState

__all__ = [
    "accuracies",
    "explained_query",
    "facilities_table",
    "findings",
    "first_token",
    "latest_queries",
    "load",
    "models_table",
    "queries_table",
    "query_table",
    "rate",
]

_AT_ONCE_S = 1e-6
"""Tokens that follow each other sooner came together."""


async def latest_queries(
    center: str, limit: int, owner: str | None, probes: bool
) -> tuple[QueryRecord, ...]:
    """The latest queries of every connected gateway, newest first.

    Those of one owner, or of all; without an owner, those of verification units only with `probes`.
    """
    async with connect(center) as session:
        nodes = (await session.ask("nodes", EVERYTHING, NodeList)).nodes
        units = (n.descriptor.site for n in nodes if Role.VERIFIER in n.descriptor.roles)
        wanted = QueriesWanted(limit=limit, owner=owner, without=() if probes else tuple(units))
        found: list[QueryRecord] = []
        for node in nodes:
            if node.alive and node.descriptor.gateway is not None:
                found += await _queries_of(session, node.descriptor.site, wanted)
    return tuple(sorted(found, key=lambda query: -query.asked_at_s)[:limit])


async def explained_query(center: str, query: str) -> QueryExplained:
    """A query and its decision. Raises `NotFound` if its gateway does not know it."""
    site = SiteId(checked_name(query.partition(":")[0], "query"))
    async with connect(center) as session:
        question = ExplainQuery(query=query)
        return await session.ask_site(site, "explain", question, QueryExplained, "query")


async def findings(session: Session, sites: tuple[SiteState, ...]) -> tuple[Finding, ...]:
    """The latest findings of the verification units among these sites on deployed models."""
    found: list[Finding] = []
    for site in sites:
        if site.alive and Role.VERIFIER in site.descriptor.roles:
            found += await _findings_of(session, site.descriptor)
    return tuple(found)


async def _findings_of(session: Session, unit: NodeDescriptor) -> list[Finding]:
    try:
        answer = await session.fabric.request(
            keys.site_do(unit.site, "attested"), b"", timeout_s=ANSWER_TIMEOUT_S
        )
        found = []
        for received in map(bytes, decode(answer, tuple[msgspec.Raw, ...])):
            attestation = decode(received, Attestation)
            check_attestation(attestation, unit.public_key, received)
            found.append(attestation.finding)
    except DaitnError:
        return []  # A unit that is just leaving must not hide the others'.
    return found


async def _queries_of(
    session: Session, site: SiteId, wanted: QueriesWanted
) -> tuple[QueryRecord, ...]:
    with naming_options(wanted):
        payload = encode_checked(wanted)
    try:
        answer = await session.fabric.request(
            keys.site_do(site, "queries"), payload, timeout_s=ANSWER_TIMEOUT_S
        )
    except DaitnError:
        return ()  # A gateway that is just leaving must not hide the others'.
    return decode(answer, QueryList).queries


def models_table(models: tuple[ModelDescriptor, ...], served: ServedModels) -> RenderableType:
    """Trained models and their deployments, then models of other servers."""
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
    return (
        model.name,
        model.site,
        standing(model),
        accuracies(model),
        first_token(model),
        f"{model.price_usd_per_1k_out:g}",
        load(model),
    )


def accuracies(model: ServedModel) -> str:
    """Accuracy per topic, with its trust and age."""
    return ", ".join(_accuracy(known) for known in model.accuracy) or "-"


def _accuracy(known: KnownAccuracy) -> str:
    if known.trust is Trust.CLAIMED:
        return f"{known.topic} {known.value:.3f} (claimed)"
    error = f"±{known.standard_error:.3f}"
    return f"{known.topic} {known.value:.3f}{error} ({known.trust}, {age(known.at_s)})"


def load(model: ServedModel) -> str:
    """Queries there, out of the number it answers concurrently."""
    return f"{model.in_flight}/{model.slots}"


def first_token(model: ServedModel) -> str:
    """Measured time from taking a slot to the first piece of an answer."""
    return f"{1e3 * model.first_token_s:.1f} ms" if model.measured else "-"


def rate(model: ServedModel) -> str:
    """Measured tokens per second of one answer, where they come one by one."""
    measured = model.per_token_s > _AT_ONCE_S and model.per_token_s != ASSUMED_PER_TOKEN_S
    return f"{1 / model.per_token_s:.1f}" if measured else "-"


def facilities_table(sites: tuple[SiteState, ...], served: ServedModels) -> RenderableType:
    """Facilities and their deployments, one model per line."""
    rows: list[tuple[str, ...]] = []
    for site in sites:
        facility = site.descriptor.facility
        assert facility is not None
        of_site: tuple[str, ...] = (
            site.descriptor.site,
            state_words(site),
            site.descriptor.owner,
            site.descriptor.jurisdiction,
            "yes" if facility.hosts else "no",
            size(facility.memory_bytes),
        )
        models = [m for m in served.models if m.site == site.descriptor.site]
        if not models:
            rows.append((*of_site, "-", "", "", ""))
        for model in models:
            rows.append((*of_site, model.name, load(model), first_token(model), rate(model)))
            of_site = ("",) * len(of_site)
    of_model = ("model", "load", "first token", "tokens/s")
    columns = ("facility", "state", "owner", "law", "hosts", "memory", *of_model)
    return plain_table("", columns, rows)


def queries_table(queries: tuple[QueryRecord, ...], wide: bool) -> RenderableType:
    """Queries, one per line; `wide` shows every available column."""
    columns = ["query", "asked", "wanted", "status", "answered by", "ms", "USD"]
    more = ["owner", "topic", "strategy", "attempts", "tokens in", "tokens out", "path"]
    rows = []
    for query in queries:
        row: list[object] = [
            query.id,
            age(query.asked_at_s),
            query.model_wanted,
            query.status,
            f"{query.deployment}@{query.site}" if query.deployment else "-",
            f"{1e3 * query.seconds:.1f}",
            f"{query.cost_usd:.2g}",
        ]
        if wide:
            row += [
                query.owner or "-",
                query.topic or "-",
                query.strategy,
                query.attempts,
                query.tokens_in,
                query.tokens_out,
                " > ".join(query.path) or "-",
            ]
        rows.append((*row, query.reason))
    return plain_table("", (*columns, *(more if wide else ()), "why not"), rows)


def query_table(query: QueryRecord) -> RenderableType:
    """One query: what was requested, and how it was served."""
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
