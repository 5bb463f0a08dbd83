"""`daitn get`: list what the network has."""

from __future__ import annotations

import enum
from typing import Annotated

import typer
from rich.console import RenderableType

from daitn.cli.queries import (
    facilities_table,
    latest_queries,
    models_table,
    queries_table,
)
from daitn.cli.session import (
    DEFAULT_CENTER,
    CenterOption,
    JsonOption,
    connect,
    print_json,
    run,
    screen,
    wide,
)
from daitn.cli.tables import (
    plain_table,
    route_words,
    state_words,
)
from daitn.cli.tokens import network_facts
from daitn.objects.identifiers import JobId
from daitn.objects.jobs import JobView
from daitn.objects.requests import EVERYTHING, JobList, JobQuery, ModelList, NetworkFacts
from daitn.objects.wire import to_json
from daitn.topology.qrrt.served import ServedModels
from daitn.topology.snapshot import NodeList, SiteState

__all__ = ["OriginOption", "get"]


class Listing(enum.StrEnum):
    """What can be listed."""

    JOBS = "jobs"
    NODES = "nodes"
    DATASETS = "datasets"
    MODELS = "models"
    VERIFIERS = "verifiers"
    FACILITIES = "facilities"
    QUERIES = "queries"
    CENTERS = "centers"


class Look(enum.StrEnum):
    """How a list is displayed."""

    TABLE = "table"
    WIDE = "wide"


_LISTED = 20

OriginOption = Annotated[
    str, typer.Option("--site", help="For jobs of models that travel on their own: their home.")
]


def get(
    kind: Annotated[Listing, typer.Argument(help="What to list.")],
    site: OriginOption = "",
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="For queries: how many of the latest to list.")
    ] = _LISTED,
    owner: Annotated[
        str | None,
        typer.Option(
            "--owner",
            help="For queries: only those of this owner of an API key, or of this site that used "
            "its pass.",
        ),
    ] = None,
    probes: Annotated[
        bool,
        typer.Option(
            "--probes", help="For queries: include those with which verifiers examine models."
        ),
    ] = False,
    look: Annotated[
        Look,
        typer.Option("-o", "--output", help="`wide` shows more columns and does not wrap lines."),
    ] = Look.TABLE,
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """List what the network has.

    Examples:

      daitn get jobs

      daitn get jobs --site home

      daitn get queries --owner ada --limit 5 -o wide

      daitn get datasets --json
    """
    if site and kind is not Listing.JOBS:
        raise typer.BadParameter("--site applies to jobs only")
    if kind is not Listing.QUERIES and (owner is not None or probes or limit != _LISTED):
        raise typer.BadParameter("only queries have --limit, --owner and --probes")
    if kind is Listing.QUERIES:
        queries = run(latest_queries(center, limit, owner, probes))
        values: object = queries
        table = queries_table(queries, look is Look.WIDE)
    else:
        values, table = run(_listed(kind, center, site))
    if as_json:
        print_json(to_json(values))
    else:
        (wide if look is Look.WIDE else screen).print(table)


async def _listed(kind: Listing, center: str, site: str) -> tuple[object, RenderableType]:
    if kind is Listing.JOBS:
        jobs = (await _ask_jobs(center, site, "")).jobs
        return jobs, _jobs_table(jobs)
    if kind is Listing.MODELS:
        async with connect(center) as session:
            models = (await session.ask("models", EVERYTHING, ModelList)).models
            served = await session.ask("served", EVERYTHING, ServedModels)
        return {"trained": models, "deployed": served.models}, models_table(models, served)
    if kind is Listing.CENTERS:
        async with connect(center) as session:
            facts = await network_facts(session)
        return facts.replicas, _centers_table(facts)
    if kind is Listing.FACILITIES:
        async with connect(center) as session:
            served = await session.ask("served", EVERYTHING, ServedModels)
        sites = tuple(s for s in await _sites(center) if s.descriptor.facility is not None)
        return sites, facilities_table(sites, served)
    sites = await _sites(center)
    if kind is Listing.NODES:
        return sites, _nodes_table(sites)
    if kind is Listing.DATASETS:
        datasets = tuple(d for s in sites for d in s.descriptor.datasets)
        return datasets, _datasets_table(sites)
    verifiers = tuple(
        {"site": s.descriptor.site, "alive": s.alive, "tests": s.descriptor.verifier.tests}
        for s in sites
        if s.descriptor.verifier
    )
    return verifiers, _verifiers_table(sites)


async def _ask_jobs(center: str, site: str, job: str) -> JobList:
    async with connect(center, site) as session:
        return await session.ask("jobs", JobQuery(job=JobId(job)), JobList)


async def _sites(center: str) -> tuple[SiteState, ...]:
    async with connect(center) as session:
        return (await session.ask("nodes", EVERYTHING, NodeList)).nodes


def _jobs_table(jobs: tuple[JobView, ...]) -> RenderableType:
    rows = [
        (
            job.job,
            _doing(job),
            ", ".join(
                f"{o.name} {'-' if o.reached is None else f'{o.reached:.3f}'}/{o.target:.2f}"
                for o in job.objectives
            ),
            route_words(job),
            f"{job.seconds:.0f}",
        )
        for job in jobs
    ]
    return plain_table("", ("job", "state", "reached/target", "route", "seconds"), rows)


def _doing(job: JobView) -> str:
    """Its state, with its queue position or silent sites."""
    if job.queued:
        return f"queued ({job.queued})"
    return f"{job.state} (nothing new from {job.silent})" if job.silent else job.state


def _nodes_table(sites: tuple[SiteState, ...]) -> RenderableType:
    rows = []
    for site in sites:
        node = site.descriptor
        speed = f"{node.compute.speed_flops / 1e9:.0f}" if node.compute else "-"
        load = "-" if site.load is None else f"{site.load.cpu_share.value:.0%}"
        rows.append(
            (
                node.site,
                state_words(site),
                ", ".join(node.roles),
                node.jurisdiction,
                speed,
                load,
                node.owner,
            )
        )
    columns = ("site", "state", "roles", "law", "GFLOP/s", "load", "owner")
    return plain_table("", columns, rows)


def _centers_table(facts: NetworkFacts) -> RenderableType:
    """Those that share a database; or the single one."""
    rows = [
        (
            one.replica,
            "leads" if one.leads else "silent" if one.is_silent else "stands by",
            f"{one.silent_s:.0f} s ago",
            ", ".join(one.endpoints),
            one.version,
        )
        for one in facts.replicas
    ]
    alone = [(facts.center, "leads, alone", "now", "", facts.version)]
    return plain_table("", ("centre", "state", "seen", "endpoints", "daitn"), rows or alone)


def _datasets_table(sites: tuple[SiteState, ...]) -> RenderableType:
    rows = [
        (
            f"{d.site}/{d.name}",
            "alive" if site.alive else "lost",
            d.data_schema,
            ", ".join(d.topics),
            d.samples,
            len(d.labels),
            f"{d.quality:.2f}",
            f"{d.price_usd_per_1k:g}",
            d.jurisdiction,
        )
        for site in sites
        for d in site.descriptor.datasets
    ]
    columns = (
        "data set",
        "site",
        "schema",
        "topics",
        "samples",
        "labels",
        "quality",
        "USD/1k",
        "law",
    )
    return plain_table("", columns, rows)


def _verifiers_table(sites: tuple[SiteState, ...]) -> RenderableType:
    rows = [
        (
            site.descriptor.site,
            "alive" if site.alive else "lost",
            test.topic,
            ", ".join(test.metrics),
            test.items,
            f"{test.chance:.2f}",
        )
        for site in sites
        if site.descriptor.verifier
        for test in site.descriptor.verifier.tests
    ]
    return plain_table("", ("site", "state", "topic", "metrics", "items", "chance"), rows)
