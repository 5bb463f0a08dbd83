"""`daitn center`, `daitn node` and `daitn up`: the processes of a network."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from daitn.center.config import LIVE as CENTER_LIVE
from daitn.center.config import CenterConfig
from daitn.cli.embedded import EmbeddedNetwork
from daitn.cli.founding import live_roster
from daitn.cli.interrupts import interrupts, retried, until
from daitn.cli.logs import LogFormat, LogFormatOption, start_logging
from daitn.cli.network import read_center, read_node
from daitn.cli.protection import protection
from daitn.cli.reloading import ReadFile, Reloading
from daitn.cli.session import ConfigOption, complain, errors, run, screen
from daitn.cli.starting import LIFELINE
from daitn.files.atomic import private_files
from daitn.files.live_changes import taken_over
from daitn.files.lock import FolderLock
from daitn.files.state_folder import CenterState, ProcessState
from daitn.identity.certificates import Issuer, fall_back, keep, requested
from daitn.identity.keys import SigningKey
from daitn.node.config import NodeConfig, ReadNodeConfig
from daitn.node.config.live import LIVE as NODE_LIVE
from daitn.oam.monitoring.exposition import MetricsServer
from daitn.oam.monitoring.traces import Traces
from daitn.objects.default_addresses import METRICS
from daitn.objects.errors import DaitnError
from daitn.tools import clock
from daitn.tools.certificates import CertificateRenewal, certified, is_due
from daitn.tools.fabric.identity import Identity
from daitn.tools.fabric.protocol import Carrier, Fabric
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import ZenohFabric, open_zenoh
from daitn.tools.monitoring.metrics import Sample
from daitn.tools.monitoring.tracing import Tracer
from daitn.tools.roster import LiveRoster

if TYPE_CHECKING:
    from daitn.tools.journal.leadership import LeadershipTurn

__all__ = ["center", "node", "up"]

log = logging.getLogger(__name__)

CENTER_AGAIN_S = 1.0
"""Interval between a node's attempts to reach a control centre that it needs."""

VerboseOption = Annotated[bool, typer.Option(help="Log more.")]


def center(
    config: ConfigOption = None,
    verbose: VerboseOption = False,
    log_format: LogFormatOption = LogFormat.TEXT,
) -> None:
    """Run a control centre.

    Example: daitn center -c network.yaml
    """
    with private_files():
        run(_run_center(config, partial(start_logging, log_format, verbose=verbose)))


def node(
    config: Annotated[Path, typer.Option("-c", "--config", help="Node or network file (YAML).")],
    site: Annotated[str, typer.Option(help="Which node of a network file.")] = "",
    verbose: VerboseOption = False,
    log_format: LogFormatOption = LogFormat.TEXT,
) -> None:
    """Run a site's node.

    Example: daitn node -c node.yaml
    """
    logs = partial(start_logging, log_format, verbose=verbose)
    with private_files():
        run(_run_node(config, site, logs), _fast_loop())


def up(
    config: Annotated[Path, typer.Option("-c", "--config", help="Network file (YAML).")],
    log_format: LogFormatOption = LogFormat.TEXT,
) -> None:
    """Run a whole network on this machine, from one file, until Ctrl-C.

    If a process ends, the command that restarts it is printed; the others continue.

    Example: daitn up -c network.yaml
    """
    with private_files():
        run(_up(config, log_format))


class _Service(Protocol):
    def measured(self) -> Iterable[Sample]: ...
    async def start(self) -> None: ...
    def reconfigure(self, config: Any) -> None: ...
    async def drain(self) -> None: ...
    async def close(self) -> None: ...


class _Stop:
    """Asks a process to stop: SIGINT or SIGTERM once means stop; twice, stop at once."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.hurried = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled)
        if os.environ.get(LIFELINE):
            loop.add_reader(sys.stdin, self._orphaned)

    def _signalled(self) -> None:
        (self.hurried if self.requested.is_set() else self.requested).set()

    def _orphaned(self) -> None:
        """Whether the parent is gone, so that nobody waits for this process."""
        asyncio.get_running_loop().remove_reader(sys.stdin)
        self.requested.set()
        self.hurried.set()


async def _run_center(path: Path | None, start_logs: Callable[..., None]) -> None:
    # Imported here, because it would delay the start of every other command by half a second.
    from daitn.center.database_owner import claim_database
    from daitn.center.service import ControlCenter
    from daitn.cli.replicas import take_turns
    from daitn.oam.operated import Operated

    file = ReadFile(path, partial(read_center, path))
    config = file.read()
    start_logs(kind=_kind(config), site=_site(config))
    settings = FabricSettings(
        mode="router", listen=config.listen, tls=config.tls, fenced=not config.insecure
    )
    name = f"control centre at {config.listen[0]}"
    roster = live_roster(config)
    member = _identity(roster, config.state)
    stop = _Stop()

    async def serve(
        turn: LeadershipTurn | None, ending: asyncio.Event, hurried: asyncio.Event
    ) -> None:
        center, identity = config, member
        if turn is not None and member is not None:
            center = _changed_meanwhile(file, config)
            identity = replace(member, epoch=turn.term.speaking)
        if roster is not None:
            _certify_self(center, roster)

        def make(carrier: Carrier, tracer: Tracer) -> Operated:
            signed = _signed(carrier, identity)
            served = ControlCenter(center, signed, roster, identity, tracer, turn)
            return Operated(served, center, roster)

        await _serve(
            name, center, settings, make, roster, identity, file, stopping=ending, hurried=hurried
        )

    with FolderLock(Path(config.state)):
        if config.replica:
            await take_turns(config, stop.requested, lambda turn, end: serve(turn, end, end))
        else:
            if config.database.startswith("postgresql"):
                from daitn.tools.journal.leadership import check_alone

                await asyncio.to_thread(check_alone, config.database)
            if config.database:
                await asyncio.to_thread(claim_database, config)
            await serve(None, stop.requested, stop.hurried)


def _changed_meanwhile(file: ReadFile[CenterConfig], config: CenterConfig) -> CenterConfig:
    """The settings from now on, from a file that may have changed while its process was a
    standby."""
    try:
        return taken_over(config, file.read(), CENTER_LIVE)[0]
    except DaitnError as error:
        log.error("what has changed in its file does not hold: %s", error)
        return config


async def _run_node(path: Path, site: str, start_logs: Callable[..., None]) -> None:
    from daitn.node.node import Node

    file = ReadFile(path, partial(read_node, path, site))
    node = file.read()
    start_logs(kind=_kind(node), site=_site(node))
    # The control centre relays everything for a site that nobody can connect to.
    relayed = bool(node.center) and not node.listen
    settings = FabricSettings(
        mode="client" if relayed else "peer",
        listen=node.listen,
        connect=node.center,
        tls=node.tls,
    )
    roster = live_roster(node)
    identity = _identity(roster, node.state)

    def make(carrier: Carrier, tracer: Tracer) -> Node:
        orders = identity.orders() if identity else None
        return Node(node, _signed(carrier, identity), roster, orders, tracer)

    stop = _Stop()
    with FolderLock(Path(node.state)):
        await _serve(
            f"site {node.site}",
            node,
            settings,
            make,
            roster,
            identity,
            file,
            stopping=stop.requested,
            hurried=stop.hurried,
        )


async def _serve(
    name: str,
    config: CenterConfig | NodeConfig,
    settings: FabricSettings,
    make: Callable[[ZenohFabric, Tracer], _Service],
    roster: LiveRoster | None,
    identity: Identity | None,
    file: ReadFile[Any],
    *,
    stopping: asyncio.Event,
    hurried: asyncio.Event,
) -> None:
    """Start the service, run until `stopping`, finish what is in progress unless `hurried`, and
    clean up.

    `file`: where `config` comes from.
    """
    if roster is not None:
        fall_back(Path(config.tls), clock.wall_s())
    # A client cannot work alone, so it waits for its control centre.
    carrier = await retried(lambda: open_zenoh(settings), CENTER_AGAIN_S, stopping)
    if carrier is None:
        return
    try:
        traces = Traces(config.traces, kind=_kind(config), site=_site(config))
        service = make(carrier, traces.tracer)
        metrics = _metrics(config, service, carrier)
        secured = _Secured(carrier, config, roster, identity) if roster and identity else None
        try:
            if secured is not None:
                await secured.start()
            await until(stopping, service.start())
            await metrics.start()
            if not stopping.is_set():
                live = CENTER_LIVE if isinstance(config, CenterConfig) else NODE_LIVE
                state = Path(config.state)
                reloading = Reloading(file, state, config, live, service.reconfigure)
                reloading.start()
                log.info("%s is ready", name)
                await stopping.wait()
                await reloading.close()
                await until(hurried, service.drain())
        finally:
            await metrics.close()
            await service.close()
            await traces.close()
            if secured is not None:
                await secured.close()
    finally:
        await carrier.close()


def _metrics(
    config: CenterConfig | NodeConfig, service: _Service, carrier: ZenohFabric
) -> MetricsServer:
    """The process's samples for Prometheus."""
    return MetricsServer(
        config.metrics,
        (service.measured, carrier.metrics.measured),
        kind=_kind(config),
        site=_site(config),
        state=Path(config.state),
        tls=config.tls,
        usual=METRICS[_kind(config)],
    )


def _kind(config: CenterConfig | NodeConfig) -> str:
    return "center" if isinstance(config, CenterConfig) else "node"


def _site(config: CenterConfig | NodeConfig) -> str:
    return config.name if isinstance(config, CenterConfig) else config.site


class _Secured:
    """Keeps a process and its links within the roster."""

    def __init__(
        self,
        carrier: ZenohFabric,
        config: CenterConfig | NodeConfig,
        roster: LiveRoster,
        identity: Identity,
    ) -> None:
        self._carrier = carrier
        self._roster = roster
        self._leads = isinstance(config, CenterConfig)
        """Whether others request rosters and certificates from this process."""
        tls = Path(config.tls)
        self._guard = carrier.guarded(roster.lists, own=identity.key.public, brief=self._leads)
        signed = identity.signs(carrier)

        async def renew() -> None:
            if isinstance(config, CenterConfig):
                _certify_self(config, roster)
            else:
                await certified(tls, signed)

        self._renewal: CertificateRenewal | None = None
        if tls.is_dir():
            self._renewal = CertificateRenewal(tls, renew, self._guard.renew)

    async def start(self) -> None:
        # Rosters prove themselves, and reach processes that are not members yet.
        await self._roster.start(self._carrier, serves=self._leads)
        if self._renewal is not None:
            self._renewal.start()

    async def close(self) -> None:
        if self._renewal is not None:
            await self._renewal.close()
        await self._roster.close()
        await self._guard.close()


def _certify_self(config: CenterConfig, roster: LiveRoster) -> None:
    """Renew a control centre's own certificates, if it is an issuer and a member."""
    tls, key = Path(config.tls), SigningKey.at(Path(config.state) / ProcessState.KEY)
    member = roster.members().get(key.public)
    if member is not None and tls.is_dir() and is_due(tls):
        issuer = Issuer.center(tls, key)
        keep(tls, issuer.certify(requested(tls), member, 3600.0 * config.certificate_hours))


def _identity(roster: LiveRoster | None, state: str) -> Identity | None:
    """The identity of a process; none without a roster."""
    if roster is None:
        return None
    return Identity(SigningKey.at(Path(state) / ProcessState.KEY), roster.network, roster.members)


def _signed(carrier: Carrier, identity: Identity | None) -> Fabric:
    return identity.signs(carrier) if identity else carrier


async def _up(config: Path, log_format: LogFormat) -> None:
    logs = Path(read_center(config).state) / CenterState.LOGS
    network = EmbeddedNetwork(config, logs, log_format)
    try:
        with interrupts() as stopping:
            with screen.status("starting the network"):
                start = network.start(lambda name, done, of: screen.print(f"{done}/{of} {name}"))
                await until(stopping, start)
            for site, entries in network.left_out.items():
                missing = missing_files(next(one for one in network.nodes if one.site == site))
                for entry in entries:
                    why = missing.get(entry.field, entry.reason)
                    errors.print(
                        f"{site} starts without {entry.field} ({entry.name}): {why}",
                        style="yellow",
                        markup=False,
                        highlight=False,
                    )
            if not stopping.is_set():
                screen.print(await protection(network.center, network.nodes), highlight=False)
                screen.print(f"metrics: {network.targets}", highlight=False)
                screen.print(
                    f"ready; control centre at {network.endpoint}; `daitn dashboard` shows it; "
                    "Ctrl-C ends it"
                )
            while not stopping.is_set():
                for ended in network.ended():
                    if not network.runs:
                        raise ended
                    complain(ended)
                    screen.print("the rest of the network goes on")
                await asyncio.sleep(0.5)
    finally:
        network.stop()


def missing_files(node: NodeConfig) -> dict[str, str]:
    """Which of its files cannot be found, by the entry that names them, and why. For its own
    terminal: what it publishes names no path."""
    if not isinstance(node, ReadNodeConfig):
        return {}
    entries = (
        ("datasets", zip(node.dataset_positions, node.datasets, strict=True)),
        ("tests", zip(node.test_positions, node.tests, strict=True)),
    )
    return {
        f"{field}[{position}]": why
        for field, several in entries
        for position, entry in several
        if (why := _why_missing(entry.path))
    }


def _why_missing(path: str) -> str:
    """Why there is no such file for this user; empty if there is one."""
    try:
        Path(path).stat()
    except FileNotFoundError:
        return f"{path} does not exist"
    except (OSError, ValueError) as error:
        # A folder that this user may not enter, or a path that no file system has.
        return f"{path} cannot be found: {getattr(error, 'strerror', None) or error}"
    return ""


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop, if installed: it lets a gateway serve 1.5 times as many queries."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
