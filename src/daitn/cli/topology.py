"""`daitn topology`: show, export and analyse the live topologies."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType

from daitn.cli import topology_query
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
from daitn.cli.train import read_intent
from daitn.files.output import write_output
from daitn.objects.requests import EVERYTHING, AssessIntent
from daitn.objects.wire import to_json
from daitn.tools import real_topologies
from daitn.topology.analysis import Analysis, RouteCount, Shape, analyse_graph
from daitn.topology.export import AgedReading, RelevantView, TopologyView
from daitn.topology.graphml import relevant_to_graphml, to_graphml
from daitn.topology.qrrt.export import QrrtView, qrrt_to_graphml

__all__ = ["app"]

app = typer.Typer(
    help="The live topologies for training (DRRT) and queries (QRRT).", no_args_is_help=True
)

IntentOption = Annotated[
    Path | None,
    typer.Option("--intent", help="Show only the part for this training intent (MS-DRRT)."),
]


class Format(enum.StrEnum):
    """How a topology is written."""

    JSON = "json"
    GRAPHML = "graphml"


@app.command()
def show(
    intent: IntentOption = None, center: CenterOption = DEFAULT_CENTER, as_json: JsonOption = False
) -> None:
    """Show sites and measured reachability, or the part that matters to one intent.

    Examples:

      daitn topology show

      daitn topology show --intent intent.yaml
    """
    view = run(_view(center, intent))
    if as_json:
        print_json(to_json(view))
    elif isinstance(view, RelevantView):
        screen.print(_relevant_table(view))
    else:
        screen.print(_topology_table(view))


app.command("query")(topology_query.query)


@app.command()
def export(
    out: Annotated[Path, typer.Option("-o", "--out", help="File.")],
    form: Annotated[Format, typer.Option("--format", help="Format.")] = Format.GRAPHML,
    intent: IntentOption = None,
    queries: Annotated[
        bool, typer.Option("--queries", help="Export the query topology (QRRT) instead.")
    ] = False,
    center: CenterOption = DEFAULT_CENTER,
) -> None:
    """Write a topology to a file: GraphML for graph tools, or JSON.

    Examples:

      daitn topology export -o drrt.graphml

      daitn topology export --queries -o qrrt.graphml
    """
    if queries and intent is not None:
        raise typer.BadParameter(
            "a training intent cuts the DRRT; see `daitn topology query` for a query's cut",
            param_hint="--queries",
        )

    async def work() -> None:
        view = await (_qrrt(center) if queries else _view(center, intent))
        text = to_json(view) if form is Format.JSON else _graphml(view)
        write_output(out, f"{text}\n".encode())

    run(work())
    screen.print(f"wrote {out}")


def _graphml(view: TopologyView | RelevantView | QrrtView) -> str:
    if isinstance(view, QrrtView):
        return qrrt_to_graphml(view)
    return relevant_to_graphml(view) if isinstance(view, RelevantView) else to_graphml(view)


@app.command()
def analyze(
    real: Annotated[
        str, typer.Option(help="Analyse a real network of topohub, e.g. topozoo/Abilene.")
    ] = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Show in numbers how the topology differs from a simple cycle (paper, section III).

    Examples:

      daitn topology analyze

      daitn topology analyze --real topozoo/Abilene
    """
    analysis = run(_analysis(center, real))
    if as_json:
        print_json(to_json(analysis))
    else:
        screen.print(_analysis_table(analysis))


async def _view(center: str, intent: Path | None) -> TopologyView | RelevantView:
    wanted = read_intent(intent) if intent else None
    async with connect(center) as session:
        if wanted is not None:
            return await session.ask("relevant", AssessIntent(intent=wanted), RelevantView)
        return await session.ask("topology", EVERYTHING, TopologyView)


async def _qrrt(center: str) -> QrrtView:
    async with connect(center) as session:
        return await session.ask("qrrt", EVERYTHING, QrrtView)


async def _analysis(center: str, real: str) -> Analysis:
    if real:
        return analyse_graph(real_topologies.from_topohub(real), name=real)
    async with connect(center) as session:
        return await session.ask("analysis", EVERYTHING, Analysis)


def _topology_table(view: TopologyView) -> RenderableType:
    sites = [
        (
            site.site,
            "alive" if site.alive else "lost",
            ", ".join(site.descriptor.roles),
            _aged(site.queue, 1, ""),
            _aged(site.cpu_share, 100, "%"),
        )
        for site in view.sites
    ]
    links = [
        (
            link.source,
            link.target,
            _aged(link.rtt_s, 1e3, "ms"),
            _aged(link.throughput_bps, 1e-6, "MB/s"),
            _aged(link.loss, 100, "%"),
        )
        for link in view.links
    ]
    return Group(
        plain_table(
            f"DRRT version {view.version}", ("site", "state", "roles", "queue", "cpu"), sites
        ),
        plain_table("reachability", ("from", "to", "rtt", "throughput", "loss"), links),
    )


def _relevant_table(view: RelevantView) -> RenderableType:
    names = sorted(view.verifiers)
    options = [
        (
            option.id,
            option.dataset.samples,
            *(f"{option.fit[n]:.2f} / {option.coverage[n]:.2f}" for n in names),
        )
        for option in view.options
    ]
    verifiers = [(n, ", ".join(v.site for v in view.verifiers[n]) or "nobody") for n in names]
    rejected = [(r.candidate, r.filter, r.reason) for r in view.rejections]
    columns = ("data set", "samples", *(f"{name} fit / labels" for name in names))
    return Group(
        plain_table(f"MS-DRRT of DRRT version {view.topology.version}", columns, options),
        plain_table("verifiers", ("objective", "sites"), verifiers),
        plain_table("rejected", ("candidate", "filter", "reason"), rejected),
    )


def _analysis_table(analysis: Analysis) -> RenderableType:
    layers = [(layer.layer, layer.nodes, layer.edges) for layer in analysis.layers]
    here = _measures(analysis.shape, analysis.routes)
    cycle = _measures(analysis.cycle, analysis.cycle_routes)
    rows = [(name, value, cycle[name]) for name, value in here.items()]
    return Group(
        plain_table(analysis.name, ("layer", "nodes", "edges"), layers),
        f"{analysis.inter_layer_edges} edges between layers",
        plain_table("", ("", "this topology", "a simple cycle of the same size"), rows),
    )


def _measures(shape: Shape, routes: RouteCount) -> dict[str, str]:
    degree = shape.degree
    exact = "" if shape.diameter_exact else "at least "
    return {
        "nodes": f"{shape.nodes}",
        "edges": f"{shape.edges}",
        "components": f"{shape.components}",
        "cyclomatic number": f"{shape.cyclomatic_number}",
        "degree, least / median / most": f"{degree.least} / {degree.median:g} / {degree.most}",
        "degree, Gini coefficient": f"{degree.gini:.3f}",
        "diameter in hops": f"{exact}{shape.diameter_hops}",
        "treewidth at most": f"{shape.treewidth_at_most}",
        f"routes of up to {routes.stops} stops": f"{routes.count:.4g} ({routes.by})",
        "is a simple cycle": "yes" if shape.is_simple_cycle else "no",
    }


def _aged(reading: AgedReading | None, scale: float, unit: str) -> str:
    if reading is None:
        return "-"
    return f"{reading.value * scale:.3g} {unit} ({reading.age_s:.0f} s ago)".replace("  ", " ")
