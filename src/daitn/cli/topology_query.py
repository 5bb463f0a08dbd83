"""`daitn topology query`: the part of the live topology that matters to one query (QS-QRRT)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType

from daitn.cli.session import (
    DEFAULT_CENTER,
    CenterOption,
    JsonOption,
    connect,
    print_json,
    run,
    screen,
)
from daitn.cli.tables import plain_table
from daitn.files.output import write_output
from daitn.objects.deployments import Api
from daitn.objects.errors import NotFound
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import AUTO, QueryConstraints, QueryIntent, Trust
from daitn.objects.requests import EVERYTHING, CutQuery
from daitn.objects.wire import to_json
from daitn.topology.qrrt.export import QueryCut, query_to_graphml
from daitn.topology.snapshot import NodeList

__all__ = ["query"]


def query(
    model: Annotated[str, typer.Option(help="A model's name, or `auto`.")] = AUTO,
    topic: Annotated[str, typer.Option(help="What the query is about.")] = "",
    min_accuracy: Annotated[float | None, typer.Option(help="On the topic, 0 to 1.")] = None,
    trust: Annotated[Trust, typer.Option(help="Minimum trust in it.")] = Trust.WEIGHTS,
    max_cost: Annotated[float | None, typer.Option(help="USD.")] = None,
    jurisdiction: Annotated[
        list[str] | None, typer.Option(help="Where it may be answered; repeatable.")
    ] = None,
    gateway: Annotated[str, typer.Option(help="Site of the gateway; default: the first.")] = "",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Also write it here, as GraphML.")
    ] = None,
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Show what a gateway knows about every deployment for one query, without running the query.

    Example: daitn topology query --topic medicine/neurology --min-accuracy 0.9 -o cut.graphml
    """
    constraints = QueryConstraints(
        topic=topic,
        min_accuracy=min_accuracy,
        trust=trust,
        max_cost_usd=max_cost,
        jurisdictions=tuple(jurisdiction or ()),
    )
    intent = QueryIntent(
        origin=SiteId(gateway),
        owner="",
        api=Api.CHAT,
        model=model,
        topic=topic,
        tokens_in=64,
        tokens_out=64,
        constraints=constraints,
    )

    async def work() -> QueryCut:
        cut = await _cut(center, intent)
        if out is not None:
            write_output(out, query_to_graphml(cut).encode())
        return cut

    cut = run(work())
    if as_json:
        print_json(to_json(cut))
    else:
        screen.print(_table(cut))


async def _cut(center: str, intent: QueryIntent) -> QueryCut:
    async with connect(center) as session:
        nodes = (await session.ask("nodes", EVERYTHING, NodeList)).nodes
        gateways = [n.descriptor.site for n in nodes if n.alive and n.descriptor.gateway]
        site = intent.origin or next(iter(gateways), SiteId(""))
        if site not in gateways:
            raise NotFound(
                f"there is no gateway {site}".rstrip(),
                field="--gateway",
                fix=f"use one of: {', '.join(gateways) or 'none is connected'}",
            )
        return await session.ask_site(site, "cut", CutQuery(intent=intent), QueryCut, "--gateway")


def _table(cut: QueryCut) -> RenderableType:
    rows = [
        (
            "*" if option.may_answer else "",
            option.deployment,
            " > ".join(option.path) or "-",
            "-" if option.accuracy is None else f"{option.accuracy:.3f} ({option.trust})",
            f"{1e3 * option.first_token_s:.0f}",
            f"{1e3 * option.seconds:.0f}",
            f"{option.cost_usd:.2g}",
            option.load,
            "; ".join(no.reason for no in option.rejections),
        )
        for option in cut.options
    ]
    columns = ("", "deployment", "path", "accuracy", "first ms", "ms", "USD", "load", "why not")
    title = f"version {cut.version}, seen from {cut.intent.origin}"
    return plain_table(title, columns, rows)
