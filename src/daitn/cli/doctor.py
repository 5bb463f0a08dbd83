"""`daitn doctor`: problems of a file, this machine or a network, each with its fix."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from daitn import __version__
from daitn.center.config import LIVE as CENTER_LIVE
from daitn.center.config import CenterConfig
from daitn.cli.answering import first_opened
from daitn.cli.exposure import check_alone, check_encrypted
from daitn.cli.identity import roster_file
from daitn.cli.network import read_center, read_network, read_node
from daitn.cli.reloading import Running
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
from daitn.cli.tokens import network_facts
from daitn.files.live_changes import taken_over
from daitn.files.state_folder import ProcessState
from daitn.files.yaml_file import read_yaml
from daitn.node.config import NodeConfig, ReadNodeConfig
from daitn.node.config.live import LIVE as NODE_LIVE
from daitn.node.config.live import NOTES
from daitn.oam.doctor.diagnoses import (
    Check,
    Diagnosis,
    Level,
    fine,
    problem,
    refused,
    skipped,
    warning,
)
from daitn.oam.doctor.link import CenterLink, check_links, check_listening, newest_roster
from daitn.oam.doctor.machine import (
    check_accelerators,
    check_disk,
    check_ports,
    check_sandboxes,
)
from daitn.oam.doctor.network import (
    check_clocks,
    check_endpoints,
    check_jobs,
    check_paths,
    check_replicas,
    check_served,
    check_sites,
)
from daitn.oam.doctor.state import check_data, check_membership, check_state, kept_roster, running
from daitn.objects.addresses import host_of, is_unspecified, is_url
from daitn.objects.cordons import CordonQuestion, CordonReport
from daitn.objects.errors import ClocksDiffer, DaitnError
from daitn.objects.identifiers import SiteId
from daitn.objects.requests import EVERYTHING
from daitn.objects.roster import Kind, SignedRoster
from daitn.objects.text import counted
from daitn.objects.wire import decode, encode_request, to_json
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.settings import check_endpoints as check_stated
from daitn.tools.http import check_published
from daitn.tools.journal.leadership import read_replicas
from daitn.topology.export import TopologyView
from daitn.topology.qrrt.served import ServedModels
from daitn.topology.snapshot import NodeList

__all__ = ["doctor"]

Config = CenterConfig | NodeConfig

_ORDER: Final = (Level.PROBLEM, Level.WARNING, Level.SKIPPED, Level.OK)
_ASK_S: Final = 10.0
_HERE: Final = "localhost"
_CENTER: Final = "--center"


def doctor(
    config: Annotated[
        Path | None,
        typer.Option("-c", "--config", help="A centre's, node's or network's file to examine."),
    ] = None,
    site: Annotated[str, typer.Option("--site", help="Only this node of a network file.")] = "",
    center: Annotated[
        str,
        typer.Option(
            "--center",
            help="Endpoint of the control centre; by default that of the file; without a file, "
            f"that of DAITN_CENTER, or {DEFAULT_CENTER}.",
        ),
    ] = "",
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not connect: examine only file and machine.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also show checks without problems.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Report problems of a file, this machine or a running network, and what to do.

    It connects as the sites of the file do. Anyone with the key of an operator or owner gets a
    report on the whole network too.

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
    counts = {level: sum(f.level is level for f in findings) for level in Level}
    named = ((Level.PROBLEM, "problem"), (Level.WARNING, "warning"), (Level.OK, "check"))
    summary = ", ".join(counted(counts[level], of) for level, of in named) + " in order"
    left = counts[Level.SKIPPED]
    screen.print(f"{summary}, {left} not looked at" if left else summary)


async def _examined(path: Path | None, site: str, center: str, offline: bool) -> list[Diagnosis]:
    findings: list[Diagnosis] = []
    configs: tuple[Config, ...] = ()
    if path is not None:
        try:
            configs = _configs(path, site)
        except DaitnError as error:
            return [refused(Check.FILE, str(path), error)]
        for config in configs:
            findings += await _of_process(config, path)
    if configs:
        findings.append(check_accelerators("this machine"))
    else:
        findings.append(check_disk("this machine", Path.cwd()))
    if not offline and path is not None:
        findings += await _of_centers(center, configs, path)
    elif not offline:
        usual = os.environ.get("DAITN_CENTER") or DEFAULT_CENTER
        findings += (await _of_network(center or usual))[0]
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
    """The control centre of a file; empty for one of sites without any."""
    for config in configs:
        if isinstance(config, CenterConfig):
            return ",".join(_centers(config))
        if config.center:
            return ",".join(config.center)
    return ""


def _centers(config: CenterConfig) -> list[str]:
    """Where a control centre listens; for several replicas, where each of them does."""
    listen = config.listen[:1]
    if config.replica:
        with contextlib.suppress(DaitnError):
            stated = read_replicas(config.database)
            listen = tuple(dict.fromkeys(one for each in stated for one in each.endpoints[:1]))
    reached = [one for one in listen if not is_unspecified(host_of(one))]
    return reached or [_connectable(config)]


def _connectable(config: CenterConfig) -> str:
    """Where a control centre that listens at all addresses is reached from its own machine, by a
    name that is in its certificate."""
    hosts: tuple[str, ...] = ()
    with contextlib.suppress(DaitnError):
        kept = kept_roster(config)
        members = kept.opened().members if kept else ()
        hosts = next(
            (m.hosts for m in members if (m.kind, m.name) == (Kind.CENTER, config.name)), ()
        )
    host = _HERE if _HERE in hosts or not hosts else hosts[0]
    host = f"[{host}]" if ":" in host else host
    protocol, _, address = config.listen[0].partition("/")
    return f"{protocol}/{host}:{address.rpartition(':')[2]}"


async def _of_process(config: Config, path: Path) -> list[Diagnosis]:
    subject = _subject(config)
    findings = [*_of_file(subject, config)]
    findings += check_state(subject, config)
    findings.append(check_disk(subject, Path(config.state)))
    findings += check_membership(subject, config, path, clock.wall_s())
    if running(config):
        findings.append(fine(Check.PROCESS, subject, "it runs"))
        findings += _of_running(subject, config)
    else:
        findings += await check_ports(subject, config)
    if isinstance(config, NodeConfig):
        findings += check_data(subject, config)
        findings += await check_sandboxes(subject, config)
    return findings


def _subject(config: Config) -> str:
    if isinstance(config, NodeConfig):
        return f"site {config.site}"
    return f"control centre {config.name}"


def _of_file(subject: str, config: Config) -> Iterator[Diagnosis]:
    try:
        (check_alone if config.insecure else check_encrypted)(config)
        for field, listen, advertise in _servers(config):
            check_published(f"{field}.listen", listen, advertise)
    except DaitnError as error:
        yield refused(Check.FILE, subject, error)
    if isinstance(config, CenterConfig) and config.api.oidc is not None:
        # Imported here, because it would delay every other examination.
        from daitn.oam.api.oidc import unreadable

        for found in unreadable(config.api.oidc):
            yield refused(Check.FILE, subject, found)
    for entry in config.left_out if isinstance(config, ReadNodeConfig) else ():
        yield problem(
            Check.FILE,
            subject,
            f"{entry.field} {entry.name} is left out: {entry.reason}",
            "correct the entry",
        )


def _servers(config: Config) -> Iterator[tuple[str, str, str]]:
    """The HTTP servers of a process that it tells others of: field, address, and their URL."""
    if isinstance(config, CenterConfig):
        if config.api.listen:
            yield "api", config.api.listen, config.api.advertise
        return
    for name, part in (("facility", config.facility), ("gateway", config.gateway)):
        if part is not None:
            yield name, part.listen, part.advertise


def _of_running(subject: str, config: Config) -> Iterator[Diagnosis]:
    """Whether a process runs with its file's current settings."""
    try:
        written = (Path(config.state) / ProcessState.RUNNING).read_bytes()
        running = msgspec.json.decode(written, type=Running)
        runs_with = msgspec.json.decode(running.config, type=type(config))
    except (OSError, msgspec.DecodeError):
        return  # It is about to start, or of another version.
    live = CENTER_LIVE if isinstance(config, CenterConfig) else NODE_LIVE
    _, changes = taken_over(runs_with, config, live, NOTES)
    if changes.waiting:
        yield warning(
            Check.RELOAD,
            subject,
            f"changed in its file, and not in force: {', '.join(changes.waiting)}",
            f"drain it: `daitn drain {config.site}`, and restart it"
            if isinstance(config, NodeConfig)
            else "restart it",
        )
    if changes.live:
        yield warning(
            Check.RELOAD,
            subject,
            f"changed in its file, and not taken over yet: {', '.join(changes.live)}",
            f"`kill -HUP {running.pid}`",
        )
    if not changes.waiting and not changes.live:
        yield fine(Check.RELOAD, subject, "it runs with what its file says")


async def _of_centers(named: str, configs: Sequence[Config], path: Path) -> list[Diagnosis]:
    """The control centre of a file, or the one that the command line names, as its sites see it,
    and as people do."""
    if named and not is_url(named):
        try:
            check_stated(_CENTER, connect=tuple(named.split(",")), tls="any")
        except DaitnError as error:
            return [refused(Check.CENTER, named, error)]
    main = named or _endpoint(configs)
    links = list(_center_links("" if is_url(named) else named, configs))
    centers = [one for one in (main, *(link.center for link in links)) if one and not is_url(one)]
    listening = [await check_listening(one) for one in dict.fromkeys(centers)]
    findings = [found for found in listening if found.level is Level.PROBLEM]
    silent = {found.subject for found in findings}
    theirs = None
    if main and main not in silent:
        found, theirs = await _of_people(main, configs)
        findings += found
    rosters = {main: theirs} if theirs else {}
    answering = [link for link in links if link.center not in silent]
    return findings + await check_links(answering, path, rosters, first_opened)


def _center_links(named: str, configs: Sequence[Config]) -> Iterator[CenterLink]:
    """The sites of a file with a roster and a control centre. Only people connect to its API."""
    for config in configs:
        if not isinstance(config, NodeConfig) or config.insecure:
            continue
        if center := named or ",".join(config.center):
            yield CenterLink(_subject(config), config, center)


async def _of_people(
    center: str, configs: Sequence[Config]
) -> tuple[list[Diagnosis], SignedRoster | None]:
    """The network of a file as its operators and owners see it, if this user is one; and the
    control centre's roster, if it was asked for it."""
    secured = not all(config.insecure for config in configs)
    try:
        if secured and not is_url(center) and not _is_known(center):
            left = skipped(
                Check.NETWORK,
                center,
                "its sites, clocks, versions and links are not looked at: no operator's or owner's "
                "key is known here",
                f"`daitn doctor --center {center}` where one is known, or with its folder in "
                "DAITN_NETWORK",
            )
            return [left], None
    except DaitnError as error:
        return [refused(Check.CENTER, center, error)], None
    return await _of_network(center, secured=secured)


def _is_known(center: str) -> bool:
    """Whether this user has a folder of the network there. Raises `NotFound` if DAITN_NETWORK names
    no such folder."""
    try:
        return roster_file(center) is not None
    except OSError:
        return False  # That of another user, who called `sudo`.


async def _of_network(
    center: str, *, secured: bool = False
) -> tuple[list[Diagnosis], SignedRoster | None]:
    """What people may see of a network, and its roster if it is `secured`."""
    findings: list[Diagnosis] = []
    try:
        async with connect(center) as session:
            findings.append(fine(Check.CENTER, center, "the control centre answers"))
            facts = await network_facts(session)
            findings += check_replicas(facts.replicas)
            findings += check_jobs(facts.unreadable_jobs)
            sites = (await session.ask("nodes", EVERYTHING, NodeList)).nodes
            findings += check_sites(sites, __version__)
            alive = [site.descriptor for site in sites if site.alive]
            findings += await check_clocks(
                [node.site for node in alive], lambda name: _report(session, name), clock.wall_s
            )
            findings += check_paths(await session.ask("topology", EVERYTHING, TopologyView))
            findings += await check_endpoints(alive)
            findings += check_served((await session.ask("served", EVERYTHING, ServedModels)).models)
        if secured:
            async with carrier(center) as fabric:  # Rosters prove themselves.
                return findings, await newest_roster(fabric)
    except DaitnError as error:
        check = Check.CLOCK if isinstance(error, ClocksDiffer) else Check.CENTER
        findings.append(refused(check, center, error))
    return findings, None


async def _report(session: Session, site: SiteId) -> CordonReport:
    key = keys.site_do(site, "cordon")
    payload = await session.fabric.request(key, encode_request(CordonQuestion()), timeout_s=_ASK_S)
    return decode(payload, CordonReport)
