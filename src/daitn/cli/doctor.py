"""`daitn doctor`: what is wrong with a file, this machine or a network, each with its fix."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from daitn import __version__
from daitn.center.config import LIVE as CENTER_LIVE
from daitn.center.config import CenterConfig
from daitn.cli.exposure import check_alone, check_encrypted
from daitn.cli.network import read_center, read_network, read_node
from daitn.cli.reloading import RUNNING, Running
from daitn.cli.session import (
    DEFAULT_CENTER,
    ExitCode,
    JsonOption,
    Session,
    carrier,
    connect,
    print_json,
    run,
    screen,
)
from daitn.cli.tables import plain_table
from daitn.files.live_changes import taken_over
from daitn.files.yaml_file import read_yaml
from daitn.node.config import NodeConfig, ReadNodeConfig
from daitn.node.config.live import LIVE as NODE_LIVE
from daitn.oam.doctor.diagnoses import Diagnosis, Level, fine, problem, told, warning
from daitn.oam.doctor.machine import (
    check_accelerators,
    check_disk,
    check_ports,
    check_sandboxes,
)
from daitn.oam.doctor.network import (
    check_clocks,
    check_endpoints,
    check_roster,
    check_sites,
    check_ways,
)
from daitn.oam.doctor.state import check_membership, check_state, kept_roster, running
from daitn.objects.cordons import CordonQuestion, CordonReport
from daitn.objects.errors import DaitnError
from daitn.objects.identifiers import JobId, SiteId
from daitn.objects.messages import RosterAnswer, RosterQuestion
from daitn.objects.requests import JobQuery
from daitn.objects.wire import decode, encode, to_json
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.topology.export import TopologyView
from daitn.topology.snapshot import NodeList

__all__ = ["doctor"]

Config = CenterConfig | NodeConfig

_ORDER: Final = (Level.PROBLEM, Level.WARNING, Level.OK)
_ASK_S: Final = 10.0


def doctor(
    config: Annotated[
        Path | None,
        typer.Option("-c", "--config", help="A centre's, node's or network's file to examine."),
    ] = None,
    site: Annotated[str, typer.Option("--site", help="This node of a network file only.")] = "",
    center: Annotated[
        str,
        typer.Option(
            "--center",
            envvar="DAITN_CENTER",
            help=f"Endpoint of the control centre; without it, the file's, or {DEFAULT_CENTER}.",
        ),
    ] = "",
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not connect: examine file and machine alone.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also show what is in order.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong with a file, this machine or a running network, and what to do.

    It exits with 1 if there is a problem, and with 0 if there are warnings at most.

    Example: daitn doctor -c node.yaml
    Example: daitn doctor --center tls/center.example.org:7447 --json
    """
    findings = run(_examined(config, site, center, offline))
    findings.sort(key=lambda finding: _ORDER.index(finding.level))
    if as_json:
        print_json(to_json(findings))
    else:
        _show(findings, everything)
    if any(finding.level is Level.PROBLEM for finding in findings):
        raise typer.Exit(ExitCode.NOT_REACHED)


def _show(findings: Sequence[Diagnosis], everything: bool) -> None:
    shown = [f for f in findings if everything or f.level is not Level.OK]
    if shown:
        rows = [(f.level, f.check, f.subject, f.what, f.fix) for f in shown]
        screen.print(plain_table("", ("", "check", "of", "found", "what to do"), rows))
    counts = [sum(f.level is level for f in findings) for level in _ORDER]
    screen.print(f"{counts[0]} problems, {counts[1]} warnings, {counts[2]} checks in order")


async def _examined(path: Path | None, site: str, center: str, offline: bool) -> list[Diagnosis]:
    findings: list[Diagnosis] = []
    configs: tuple[Config, ...] = ()
    if path is not None:
        try:
            configs = _configs(path, site)
        except DaitnError as error:
            return [told("file", str(path), error)]
        for config in configs:
            findings += await _of_process(config)
    if configs:
        findings.append(check_accelerators("this machine"))
    else:
        findings.append(check_disk("this machine", Path.cwd()))
    if not offline:
        findings += await _of_network(center or _endpoint(configs), configs)
    return findings


def _configs(path: Path, site: str) -> tuple[Config, ...]:
    """The processes of a file. Raises `DaitnError`."""
    plain = read_yaml(path, "file")
    if isinstance(plain, dict) and "nodes" in plain:
        if site:
            return (read_node(path, site),)
        center, nodes = read_network(path)
        return (center, *nodes)
    if isinstance(plain, dict) and "site" in plain:
        return (read_node(path, site),)
    return (read_center(path),)


def _endpoint(configs: Sequence[Config]) -> str:
    for config in configs:
        endpoints = config.listen if isinstance(config, CenterConfig) else config.center
        if endpoints:
            return endpoints[0]
    return DEFAULT_CENTER


async def _of_process(config: Config) -> list[Diagnosis]:
    subject = _subject(config)
    findings = [*_of_file(subject, config)]
    findings += check_state(subject, config)
    findings.append(check_disk(subject, Path(config.state)))
    findings += check_membership(subject, config, clock.wall_s())
    if running(config):
        findings.append(fine("process", subject, "it runs"))
        findings += _of_running(subject, config)
    else:
        findings += check_ports(subject, config)
    if isinstance(config, NodeConfig):
        findings += _of_data(subject, config)
        findings += await check_sandboxes(subject, config)
    return findings


def _subject(config: Config) -> str:
    if isinstance(config, NodeConfig):
        return f"site {config.site}"
    return f"control centre {config.name}"


def _of_file(subject: str, config: Config) -> Iterator[Diagnosis]:
    try:
        (check_alone if config.insecure else check_encrypted)(config)
    except DaitnError as error:
        yield told("file", subject, error)
    for entry in config.left_out if isinstance(config, ReadNodeConfig) else ():
        yield problem(
            "file",
            subject,
            f"{entry.field} {entry.name} is left out: {entry.reason}",
            "correct the entry",
        )


def _of_running(subject: str, config: Config) -> Iterator[Diagnosis]:
    """Whether a process runs with what its file says now."""
    try:
        told_ = msgspec.json.decode((Path(config.state) / RUNNING).read_bytes(), type=Running)
        runs_with = msgspec.json.decode(told_.config, type=type(config))
    except (OSError, msgspec.DecodeError):
        return  # It is about to start, or of another version.
    live = CENTER_LIVE if isinstance(config, CenterConfig) else NODE_LIVE
    _, changes = taken_over(runs_with, config, live)
    if changes.waiting:
        yield warning(
            "reload",
            subject,
            f"changed in its file, and not in force: {', '.join(changes.waiting)}",
            "restart it: `daitn drain` first, if it is a site",
        )
    if changes.live:
        yield warning(
            "reload",
            subject,
            f"changed in its file, and not taken over yet: {', '.join(changes.live)}",
            f"`kill -HUP {told_.pid}`",
        )
    if not changes.waiting and not changes.live:
        yield fine("reload", subject, "it runs with what its file says")


def _of_data(subject: str, config: NodeConfig) -> Iterator[Diagnosis]:
    """Whether what the node's file names is there for this user."""
    named = [(f"data set {dataset.name}", dataset.path) for dataset in config.datasets]
    named += [(f"test set {test.topic}", test.path) for test in config.tests]
    for what, path in named:
        if not os.access(path, os.R_OK):
            yield problem(
                "data",
                subject,
                f"{what}: {path} cannot be read",
                "correct the path, or give the user who runs the node the right to read it",
            )


async def _of_network(center: str, configs: Sequence[Config]) -> list[Diagnosis]:
    everything = JobQuery(job=JobId(""))
    findings: list[Diagnosis] = []
    try:
        async with connect(center) as session:
            findings.append(fine("center", center, "the control centre answers"))
            sites = (await session.ask("nodes", everything, NodeList)).nodes
            findings += check_sites(sites, __version__)
            alive = [site.descriptor for site in sites if site.alive]
            findings += await check_clocks(
                [node.site for node in alive], lambda name: _report(session, name), clock.wall_s
            )
            findings += check_ways(await session.ask("topology", everything, TopologyView))
            findings += await check_endpoints(alive)
        findings += await _rosters(center, configs)
    except DaitnError as error:
        check = "clock" if "clock" in error.problem else "center"
        findings.append(told(check, center, error))
    return findings


async def _report(session: Session, site: SiteId) -> CordonReport:
    key = keys.site_do(site, "cordon")
    payload = await session.fabric.request(key, encode(CordonQuestion()), timeout_s=_ASK_S)
    return decode(payload, CordonReport)


async def _rosters(center: str, configs: Sequence[Config]) -> list[Diagnosis]:
    rosters = [(_subject(c), kept_roster(c)) for c in configs if not c.insecure]
    known = [(subject, roster.version) for subject, roster in rosters if roster is not None]
    if not known:
        return []
    question = encode(RosterQuestion(version=max(version for _, version in known)))
    async with carrier(center) as fabric:  # Rosters prove themselves.
        reply = await fabric.request(keys.NEWER_ROSTER, question, timeout_s=_ASK_S)
    newest = decode(reply, RosterAnswer).version
    return [check_roster(subject, version, newest) for subject, version in known]
