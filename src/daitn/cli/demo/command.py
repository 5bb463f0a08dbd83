"""`daitn demo`: prepare the data, start the network, train, compare, deploy, query, report."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.panel import Panel
from rich.table import Table

from daitn.cli.data import medquad_path
from daitn.cli.demo.asking import StreamServed, ask_streams
from daitn.cli.demo.expected import ExpectedWay, expected_ways, sentence
from daitn.cli.demo.pictures.network import network_picture
from daitn.cli.demo.pictures.queries import queries_picture
from daitn.cli.demo.report import DemoReport, make_report
from daitn.cli.demo.scenario import BASELINES, PLACES, write_scenario
from daitn.cli.embedded import EmbeddedNetwork
from daitn.cli.protection import protection
from daitn.cli.session import ExitCode, connect, print_json, run, screen
from daitn.cli.tables import job_table, plain_table, size
from daitn.objects.errors import WorkFailed
from daitn.objects.identifiers import JobId
from daitn.objects.jobs import JobView
from daitn.objects.requests import DecisionList, JobList, JobQuery
from daitn.objects.wire import to_json
from daitn.topology.snapshot import NodeList

__all__ = ["demo"]


def demo(
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", help="Folder of report, picture and model; its content is replaced."
        ),
    ] = (Path("out/demo")),
    baselines: Annotated[
        bool,
        typer.Option(
            help="Also train by stated routes: sites by size with one and with two epochs each, "
            "a ring with 500 examples a visit, the general sites only, the specialist only. Five "
            "more trainings one after the other, each about as long as the planned one or twice."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Run the paper's healthcare scenario on this machine: train at nine institutes, deploy, query.

    Two verifiers measure, two facilities host, one gateway routes the queries. Fifteen processes
    over real Zenoh sessions; takes a few minutes on two cores. The exit code is 0 if the planned
    route reached both targets, whatever the baselines did.

    Example: daitn demo -o out/demo
    """
    report = run(_demo(out, baselines, as_json))
    if as_json:
        print_json(to_json(report))
    raise typer.Exit(ExitCode.DONE if report.reached else ExitCode.NOT_REACHED)


async def _demo(out: Path, with_baselines: bool, quiet: bool) -> DemoReport:
    from daitn.learning.corpora.prepare import prepare

    began = time.perf_counter()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    prepared = prepare(out / "data", medquad_path())
    network = EmbeddedNetwork(write_scenario(out, (out / "data").resolve(), prepared), out / "logs")
    _say(quiet, f"data: {prepared.source}; starting {len(network.nodes) + 1} processes")
    try:
        with screen.status("starting") as status:
            await network.start(
                lambda site, done, of: status.update(f"starting: {done}/{of} sites are connected")
            )
        _say(quiet, await protection(network.center, network.nodes))
        job = await _train(network, out, "healthcare", ["-o", str(out / "model")], quiet)
        expected = await _expected(network, job)
        _say(quiet, sentence(expected))
        others = tuple(
            [
                (name, await _train(network, out, intent, ["--insist"], quiet))
                for name, intent in (BASELINES.items() if with_baselines else ())
            ]
        )
        queries = await _deploy_and_ask(network, out, (job, *(view for _, view in others)), quiet)
        async with connect(network.endpoint) as session:
            sites = await session.ask("nodes", JobQuery(job=JobId("")), NodeList)
    finally:
        network.stop()
    report = make_report(
        job, expected, others, queries, prepared.source, time.perf_counter() - began
    )
    (out / "report.json").write_text(to_json(report) + "\n")
    trainers = [s for s in sites.nodes if s.descriptor.datasets or s.descriptor.verifier]
    picture = network_picture(job, trainers, others, prepared.source)
    (out / "network.svg").write_text(picture)
    (out / "queries.svg").write_text(queries_picture(queries))
    if not quiet:
        _show(job, report, out)
    return report


async def _train(
    network: EmbeddedNetwork, out: Path, intent: str, options: list[str], quiet: bool
) -> JobView:
    """Act as the model owner: run one more process, which submits the intent and watches."""
    _say(quiet, f"training by {intent}.yaml")
    words = ["train", "-f", str(out / f"{intent}.yaml"), "--watch", *options]
    await _run(network, out, words, quiet)
    async with connect(network.endpoint) as session:
        jobs = await session.ask("jobs", JobQuery(job=JobId(f"{intent}-1")), JobList)
    return jobs.jobs[0]


async def _expected(network: EmbeddedNetwork, job: JobView) -> tuple[ExpectedWay, ...]:
    """What the first decision on the job's route expected."""
    async with connect(network.endpoint) as session:
        made = await session.ask("decisions", JobQuery(job=job.job), DecisionList)
    return expected_ways(made.decisions[0]) if made.decisions else ()


async def _deploy_and_ask(
    network: EmbeddedNetwork, out: Path, jobs: tuple[JobView, ...], quiet: bool
) -> tuple[StreamServed, ...]:
    """Deploy every trained model, and query all of them as one network."""
    trained = {view.job for view in jobs if view.model is not None}
    places = [place for place in PLACES if place[0] in trained]
    for job, sites, price in places:
        _say(quiet, f"deploying {job} at {', '.join(sites)}")
        to = [word for site in sites for word in ("--to", site)]
        await _run(network, out, ["deploy", job, *to, "--price-out", str(price), "--wait"], quiet)
    gateway = next(node.gateway for node in network.nodes if node.gateway is not None)
    _say(quiet, f"asking through the gateway at http://{gateway.listen}")
    tests = out / "data" / "tests"
    return await ask_streams(f"http://{gateway.listen}", tests, [job for job, _, _ in places])


async def _run(network: EmbeddedNetwork, out: Path, words: list[str], quiet: bool) -> int:
    """Act as an owner: run one more process with the command line. Raises `WorkFailed`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "daitn.cli.app", *words, "--center", network.endpoint),
        stdout=subprocess.DEVNULL if quiet else None,
    )
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    if code not in (0, 1):
        raise WorkFailed(f"daitn {' '.join(words)} ended with {code}", fix=f"see {out / 'logs'}")
    return code


def _say(quiet: bool, line: str) -> None:
    if not quiet:
        screen.print(line, highlight=False)


def _show(job: JobView, report: DemoReport, out: Path) -> None:
    screen.print(job_table(job))
    screen.print(_compared(report))
    asked = [
        (
            served.name,
            f"{served.answered}/{served.queries}",
            f"{served.accuracy:.3f}",
            ", ".join(f"{where} {count}" for where, count in served.where.items()),
            f"{served.p50_ms:.1f}",
            f"{served.overhead_p50_ms:.2f}",
            f"{served.cost_usd:.5f}",
            served.decision,
        )
        for served in report.queries
    ]
    columns = ("", "answered", "right", "where", "p50 ms", "gateway ms", "USD", "last decision")
    screen.print(plain_table("asked", columns, asked))
    screen.print(
        Panel.fit(
            f"{report.means}\nData: {report.data_source}. {size(report.bytes_moved)} moved, "
            f"{report.seconds:.0f} s for the job, {report.total_seconds:.0f} s in all.\n"
            f"Report: {out / 'report.json'}   "
            f"Pictures: {out / 'network.svg'}, {out / 'queries.svg'}   "
            f"Model: {out / 'model'}"
        )
    )


def _compared(report: DemoReport) -> Table:
    """One line per way to train; the planned route last."""
    names = [objective.name for objective in report.objectives]
    planned = [(o.reached or 0.0, (o.reached or 0.0) >= o.target) for o in report.objectives]
    rows = [
        (
            b.name,
            "yes" if b.holds else "no",
            *(_mark(b.reached.get(name, 0.0), b.passes[name]) for name in names),
            f"{b.examples:,}",
            len(b.route),
            f"{b.bytes_moved / 1e6:.1f}",
            f"{b.seconds:.1f}",
        )
        for b in report.baselines
    ]
    rows.append(
        (
            "planned route",
            "yes" if report.reached else "no",
            *(_mark(*one) for one in planned),
            f"{report.examples:,}",
            len(report.route),
            f"{report.bytes_moved / 1e6:.1f}",
            f"{report.seconds:.1f}",
        )
    )
    columns = ("", "reached", *names, "examples", "visits", "MB moved", "seconds")
    return plain_table("compared", columns, rows)


def _mark(value: float, passes: bool) -> str:
    return f"{value:.3f} {'pass' if passes else 'fail'}"
