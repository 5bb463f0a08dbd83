"""`daitn demo`: prepare the data, start the network, train, compare, deploy, query, report."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.panel import Panel
from rich.table import Table

from daitn.cli.dashboard import dashboard_url
from daitn.cli.data import medquad_path
from daitn.cli.demo.asking import (
    BASE_ANSWER_WITHIN_S,
    ask_plainly,
    ask_streams,
    base_streams,
    examined,
)
from daitn.cli.demo.base import Base, base_sentence, bring, check_base, target_above
from daitn.cli.demo.expected import choices, expected_routes, sentence
from daitn.cli.demo.report import BaseReport, DemoReport, make_report
from daitn.cli.demo.scenario import (
    BASE_PLACES,
    BASELINES,
    PLACES,
    TOPICS,
    write_base_intent,
    write_scenario,
)
from daitn.cli.embedded import EmbeddedNetwork
from daitn.cli.interrupts import interrupts
from daitn.cli.protection import protection
from daitn.cli.report import facts_of
from daitn.cli.session import ExitCode, connect, print_json, run, screen
from daitn.cli.tables import job_table, plain_table
from daitn.learning.corpora.split import MOST_ITEMS
from daitn.oam.pictures.network import network_picture
from daitn.oam.pictures.queries import StreamServed, queries_picture
from daitn.oam.report.page import page
from daitn.oam.words import size
from daitn.objects.errors import InvalidInput, WorkFailed
from daitn.objects.identifiers import JobId
from daitn.objects.jobs import Decided, JobView
from daitn.objects.requests import EVERYTHING, DecisionList, JobList, JobQuery
from daitn.objects.wire import to_json
from daitn.topology.qrrt.served import ServedModels
from daitn.topology.snapshot import NodeList

__all__ = ["MARK", "demo", "demo_folder"]

MARK = ".daitn-demo"
"""A file in a folder that a demo made, and may empty."""
_LOADED_WITHIN_S = 1800.0
"""Time for a facility to fetch a large model from the disk of another process, and to load it."""
_EXAMINED_WITHIN_S = 900.0


def demo(
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            help="Folder for report, picture and model: new, empty, or of an earlier demo, whose "
            "content is replaced.",
        ),
    ] = (Path("out/demo")),
    baselines: Annotated[
        bool,
        typer.Option(
            help="Also train by stated routes: sites by size with one and with two epochs each, "
            "a ring with 500 examples a visit, the general sites only, the specialist only. Five "
            "more trainings, one after the other, each about once or twice as long as the planned "
            "one."
        ),
    ] = False,
    base: Annotated[
        Path | None,
        typer.Option(
            "--base",
            help="Train adapters on this pretrained model, a folder in `transformers` format, "
            "instead of a small model from scratch. Each target is its accuracy before training "
            "plus a third of the distance to 1.",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="With --base: time limit for training; by default 10 minutes to 6 hours, "
            "depending on the size of the model and the speed of this machine.",
            min=1.0,
            max=10_000.0,
        ),
    ] = None,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve",
            help="Print the address of the dashboard once the network runs, and keep it running "
            "at the end, until Ctrl-C.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Run the paper's healthcare scenario on this machine: train at nine institutes, deploy, query.

    Two verifiers measure, two facilities host, one gateway routes the queries. Fifteen processes
    over real Zenoh sessions; takes a few minutes on two cores, and with --base as long as --minutes
    says. The exit code is 0 if the planned route reached both targets, whatever the baselines did.

    Examples:

      daitn demo -o out/demo --serve

      daitn demo --base SmolLM2-135M-Instruct/ -o out/mine
    """
    if base is not None and baselines:
        raise typer.BadParameter("--base and --baselines do not go together")
    if minutes is not None and base is None:
        raise typer.BadParameter("--minutes goes with --base")
    report = run(_demo(out, base, minutes, baselines, serve, as_json))
    if as_json:
        print_json(to_json(report))
    raise typer.Exit(ExitCode.DONE if report.reached else ExitCode.NOT_REACHED)


async def _demo(
    out: Path,
    folder: Path | None,
    minutes: float | None,
    with_baselines: bool,
    serve: bool,
    quiet: bool,
) -> DemoReport:
    from daitn.learning.corpora.prepare import prepare

    began = time.perf_counter()
    if folder is not None:
        check_base(folder, out)
    demo_folder(out)
    base = None
    if folder is not None:
        _say(quiet, f"importing {folder}")
        base = await bring(folder, out, minutes)
        _say(quiet, base_sentence(base))
    prepared = prepare(out / "data", medquad_path(), base.items if base else MOST_ITEMS)
    scenario = write_scenario(out, (out / "data").resolve(), prepared, base)
    network = EmbeddedNetwork(scenario, out / "logs")
    _say(quiet, f"data: {prepared.source}; starting {len(network.nodes) + 1} processes")
    try:
        with screen.status("starting") as status:
            await network.start(
                lambda site, done, of: status.update(f"starting: {done}/{of} sites are connected")
            )
        _say(quiet, await protection(network.center, network.nodes))
        if serve:
            _say(quiet, f"dashboard: {await dashboard_url(network.endpoint)}")
        measured = await _measured(network, out, base, quiet) if base else {}
        options = ["-o", str(out / "model"), *(["--insist"] if base else ())]
        job = await _train(network, out, "healthcare", options, quiet)
        made = await _decisions(network, job)
        expected, chosen = expected_routes(made[0]) if made else (), choices(made)
        for line in (sentence(expected), *chosen):
            _say(quiet, line)
        others = tuple(
            [
                (name, await _train(network, out, intent, ["--insist"], quiet))
                for name, intent in (BASELINES.items() if with_baselines else ())
            ]
        )
        jobs = (job, *(view for _, view in others))
        if base is None:
            queries, compared = await _deploy_and_ask(network, out, jobs, quiet), None
        else:
            queries, compared = await _ask_both(network, out, base, job, measured, quiet)
        async with connect(network.endpoint) as session:
            sites = await session.ask("nodes", EVERYTHING, NodeList)
            facts = await facts_of(session, job.job)
        total_s = time.perf_counter() - began
        report = make_report(
            job, expected, chosen, others, queries, prepared.source, total_s, compared
        )
        (out / "report.json").write_text(to_json(report) + "\n")
        _draw(out, job, others, sites, prepared.source)
        (out / "queries.svg").write_text(queries_picture(queries))
        (out / "report.html").write_text(page(facts), encoding="utf-8")
        if not quiet:
            _show(job, report, out)
        if serve:
            await _kept(quiet)
    finally:
        network.stop()
    return report


def demo_folder(out: Path) -> None:
    """Make an empty folder, or empty that of an earlier demo. Raises `InvalidInput` for any other
    one with files, and `OSError`."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / MARK).exists() and any(out.iterdir()):
        raise InvalidInput(
            f"{out} has files that no demo made, and would be emptied",
            field="--out",
            fix="name a new or empty folder",
        )
    for path in out.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARK:
            path.unlink()
    (out / MARK).touch()


def _draw(
    out: Path, job: JobView, others: Sequence[tuple[str, JobView]], sites: NodeList, source: str
) -> None:
    trainers = [s for s in sites.nodes if s.descriptor.datasets or s.descriptor.verifier]
    (out / "network.svg").write_text(network_picture(job, trainers, tuple(others), source))


async def _kept(quiet: bool) -> None:
    """Wait until Ctrl-C, which ends the demo as if it had not waited."""
    with interrupts() as stopping:
        _say(quiet, "the network stays as it is; Ctrl-C ends it")
        await stopping.wait()


async def _measured(
    network: EmbeddedNetwork, out: Path, base: Base, quiet: bool
) -> dict[str, float]:
    """Have the verifiers measure the base, and write the intent whose targets follow from it."""
    job = await _train(network, out, "base", ["--insist"], quiet)
    measured = {one.name: one.reached for one in job.objectives if one.reached is not None}
    if len(measured) < len(TOPICS):
        raise WorkFailed(
            f"the base was not measured: {job.detail or job.sentence}", fix=f"see {out / 'logs'}"
        )
    targets = {name: target_above(value) for name, value in measured.items()}
    write_base_intent(out, "healthcare", base, targets, base.within_s)
    for name, value in measured.items():
        _say(quiet, f"{name}: the base measures {value:.3f}, so the target is {targets[name]:.3f}")
    return measured


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


async def _decisions(network: EmbeddedNetwork, job: JobView) -> tuple[Decided, ...]:
    """The decisions of the job."""
    async with connect(network.endpoint) as session:
        made = await session.ask("decisions", JobQuery(job=job.job), DecisionList)
    return made.decisions


async def _deploy_and_ask(
    network: EmbeddedNetwork, out: Path, jobs: tuple[JobView, ...], quiet: bool
) -> tuple[StreamServed, ...]:
    """Deploy every trained model, and query all of them as one network."""
    trained = {view.job for view in jobs if view.model is not None}
    places = [place for place in PLACES if place[0] in trained]
    await _deploy(network, out, places, ["--wait"], quiet)
    tests = out / "data" / "tests"
    return await ask_streams(_gateway(network, quiet), tests, [job for job, _, _ in places])


async def _ask_both(
    network: EmbeddedNetwork,
    out: Path,
    base: Base,
    job: JobView,
    measured: dict[str, float],
    quiet: bool,
) -> tuple[tuple[StreamServed, ...], BaseReport]:
    """Deploy the base and the trained model; ask both, and have the verifiers ask both."""
    places = [place for place in BASE_PLACES if place[0] != job.job or job.model is not None]
    await _deploy(network, out, places, [], quiet)
    names = [name for name, _, _ in places]
    endpoint, tests = _gateway(network, quiet), out / "data" / "tests"
    all_of_them = [name for name, _, _ in BASE_PLACES]
    labels = dict(zip(all_of_them, ("as it was", "trained"), strict=True))
    what = {name: labels[name] for name in names}
    streams = base_streams(what, base.items)
    queries = await ask_streams(
        endpoint, tests, names, streams, _LOADED_WITHIN_S, BASE_ANSWER_WITHIN_S
    )
    answered = await ask_plainly(endpoint, tests, names)
    _say(quiet, "waiting for what the verifiers find by asking both")
    async with connect(network.endpoint) as session:
        found = await examined(
            lambda: session.ask("served", EVERYTHING, ServedModels),
            names,
            tuple(TOPICS.values()),
            _EXAMINED_WITHIN_S,
        )
    return queries, BaseReport(base=base, measured=measured, asked=found, answers=answered)


async def _deploy(
    network: EmbeddedNetwork,
    out: Path,
    places: Sequence[tuple[str, tuple[str, ...], float]],
    options: list[str],
    quiet: bool,
) -> None:
    for job, sites, price in places:
        _say(quiet, f"deploying {job} at {', '.join(sites)}")
        to = [word for site in sites for word in ("--to", site)]
        await _run(network, out, ["deploy", job, *to, "--price-out", str(price), *options], quiet)


def _gateway(network: EmbeddedNetwork, quiet: bool) -> str:
    """Its address."""
    gateway = next(node.gateway for node in network.nodes if node.gateway is not None)
    _say(quiet, f"asking through the gateway at http://{gateway.listen}")
    return f"http://{gateway.listen}"


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
    if report.base is not None:
        screen.print(_before_and_after(job, report.base))
        screen.print(_spoken(report.base))
    rows = [
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
    screen.print(plain_table("asked", columns, rows))
    screen.print(
        Panel.fit(
            f"{report.means}\nData: {report.data_source}. {size(report.bytes_moved)} moved, "
            f"{report.seconds:.0f} s for the job, {report.total_seconds:.0f} s in all.\n"
            f"Report: {out / 'report.html'}, {out / 'report.json'}   "
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


def _before_and_after(job: JobView, report: BaseReport) -> Table:
    """Each test: the verifiers' measurements, and their results from querying."""
    before, after = (name for name, _, _ in BASE_PLACES)
    rows = [
        (
            one.name,
            *(_number(value) for value in (report.measured.get(one.name), one.reached)),
            f"{one.target:.3f}",
            *(
                _number(report.asked.get(name, {}).get(TOPICS[one.name]))
                for name in (before, after)
            ),
        )
        for one in job.objectives
    ]
    columns = ("", "base", "trained", "target", "base, asked", "trained, asked")
    return plain_table("accuracy; target: the base's, and a third of what it lacks", columns, rows)


def _spoken(report: BaseReport) -> Table:
    names = [name for name, _, _ in BASE_PLACES]
    rows = [
        (one.question, *(one.answers.get(name, "-") or "(nothing)" for name in names))
        for one in report.answers
    ]
    return plain_table("in plain words", ("question", "as it was", "trained"), rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _mark(value: float, passes: bool) -> str:
    return f"{value:.3f} {'pass' if passes else 'fail'}"
