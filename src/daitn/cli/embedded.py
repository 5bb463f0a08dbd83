"""Embedded mode: a whole network as child processes on one machine."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from daitn.cli.founding import found_network, remember_network
from daitn.cli.identity import network_identity, person_identity, tls_folder
from daitn.cli.logs import LOG_FORMAT, LogFormat
from daitn.cli.network import read_network
from daitn.cli.session import Session
from daitn.cli.starting import RunningProcess, Starter
from daitn.files.atomic import replace_file
from daitn.files.state_folder import CenterState, ProcessState
from daitn.identity.network import persons_certificates
from daitn.oam.monitoring.targets import read_targets
from daitn.objects.descriptors import LeftOut, NodeDescriptor
from daitn.objects.errors import Unreachable, WorkFailed
from daitn.objects.identifiers import CENTER_SITE, SiteId
from daitn.objects.requests import EVERYTHING
from daitn.tools.fabric import keys
from daitn.tools.fabric.identity import Identity
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import open_zenoh
from daitn.topology.snapshot import NodeList

__all__ = ["EmbeddedNetwork"]

READY_WITHIN_S = 180.0
ATTEMPT_S = 1.0
STOP_WITHIN_S = 10.0
"""In addition to the time for queries in progress, which each node's file sets."""
_TAIL_LINES = 12


class EmbeddedNetwork:
    """A control centre and its nodes as child processes, each with a log file."""

    def __init__(self, config: Path, logs: Path, log_format: LogFormat = LogFormat.TEXT) -> None:
        self._config = config
        self._logs = logs
        self._log_format = log_format
        self.center, self.nodes = read_network(config)
        self._starter = Starter(logs)
        self._processes: dict[str, RunningProcess] = {}
        self.left_out: dict[SiteId, tuple[LeftOut, ...]] = {}
        """Entries of their files that sites left out, once started."""

    @property
    def endpoint(self) -> str:
        """The control centre's endpoint for owners."""
        return self.center.listen[0]

    async def start(self, progress: Callable[[str, int, int], None]) -> None:
        """Start everything; return when the control centre answers and knows every node.

        First it makes the network's roster, or brings it up to date. Calls `progress(what, done,
        of)` as it proceeds. Raises `WorkFailed` with the end of its log when a process ends early.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        found_network(self.center, self.nodes)
        for name in (CENTER_SITE, *(node_.site for node_ in self.nodes)):
            self.launch(name)
        sites = {node_.site for node_ in self.nodes}
        waiting, unknown = set(sites), set(sites)
        fabric = await self._connected()
        try:

            async def on_alive(key: str, alive: bool) -> None:
                if alive:
                    waiting.discard(keys.site_of(key))
                    progress(keys.site_of(key), len(self.nodes) - len(waiting), len(self.nodes))

            await fabric.watch(keys.ALL_SITES_ALIVE, on_alive)
            async with asyncio.timeout(READY_WITHIN_S):
                while waiting:
                    self.check()
                    await asyncio.sleep(0.05)
                # The control centre relays what nodes publish before it serves anybody itself.
                while unknown := sites - (known := await _known(fabric)).keys():
                    self.check()
                    await asyncio.sleep(0.05)
                await self._write_targets()
                # Not before: something else that listens at this endpoint may have accepted us.
                remember_network(self.center, self.nodes)
                self.left_out = {site: known[site].left_out for site in sorted(sites)}
        except TimeoutError:
            late = ", ".join(sorted(waiting | unknown))
            raise WorkFailed(
                f"not ready after {READY_WITHIN_S:g} s: {late}", fix=f"see {self._logs}"
            ) from None
        finally:
            await fabric.close()

    @property
    def targets(self) -> Path:
        """A file with the addresses of all processes' metrics, for Prometheus' `file_sd`."""
        return Path(self.center.state) / CenterState.ALL_TARGETS

    async def _write_targets(self) -> None:
        files = [
            Path(state) / ProcessState.TARGETS
            for metrics, state in (
                (self.center.metrics, self.center.state),
                *((node_.metrics, node_.state) for node_ in self.nodes),
            )
            if metrics.listen != ""
        ]
        while not all(file.exists() for file in files):  # Each is written when its process is up.
            self.check()
            await asyncio.sleep(0.05)
        found = [target for file in files for target in read_targets(file)]
        replace_file(self.targets, msgspec.json.encode(found))

    def _state(self, name: str) -> Path:
        states = {node_.site: node_.state for node_ in self.nodes}
        return Path(states.get(SiteId(name), self.center.state))

    async def _connected(self) -> Fabric:
        """A session with the control centre, once it listens.

        Attempts are short, so that an early exit of a process, or an interrupt, is noticed between
        them.
        """
        settings = FabricSettings(mode="client", connect=(self.endpoint,), tls=self._certificates())
        began_s = time.monotonic()
        while True:
            self.check()
            try:
                carrier = await open_zenoh(settings, connect_timeout_s=ATTEMPT_S)
            except Unreachable:
                if time.monotonic() - began_s > READY_WITHIN_S:
                    raise
            else:
                identity = self._identity()
                return identity.signs(carrier) if identity else carrier

    def _certificates(self) -> str:
        """The folder of the certificates that belong to `_identity`."""
        if self.center.insecure:
            return ""
        roster = Path(self.center.roster)
        own = network_identity(roster) is not None
        return str(persons_certificates(roster.parent)) if own else tls_folder(self.endpoint)

    def _identity(self) -> Identity | None:
        """The identity with which it queries its own processes; none if they need no signature."""
        if self.center.insecure:
            return None
        return network_identity(Path(self.center.roster)) or person_identity(self.endpoint)

    def launch(self, name: str) -> None:
        """Start the control centre (`center`) or a site's node, for the first time or again."""
        (self._state(name) / ProcessState.TARGETS).unlink(missing_ok=True)
        log = self._logs / f"{name}.log"
        variables = {LOG_FORMAT: self._log_format}
        self._processes[name] = self._starter.start(self._command(name), log, variables)

    def check(self) -> None:
        """Raise `WorkFailed` if a process has ended."""
        for ended in self.ended():
            raise ended

    def ended(self) -> list[WorkFailed]:
        """Errors of the processes that have ended since the last call.

        Each of these processes can be started again on its own.
        """
        states = {name: process.poll() for name, process in self._processes.items()}
        gone = {name: code for name, code in states.items() if code is not None}
        for name in gone:
            del self._processes[name]
        return [self._end_of(name, code) for name, code in gone.items()]

    @property
    def runs(self) -> bool:
        """Whether any process is left."""
        return bool(self._processes)

    def _end_of(self, name: str, status: int) -> WorkFailed:
        log = self._logs / f"{name}.log"
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
        how = f"was killed by signal {-status}" if status < 0 else f"ended with {status}"
        again = " ".join(("daitn", *self._command(name)))
        return WorkFailed(f"{name} {how}:\n{tail}", fix=f"see {log}; start it again with: {again}")

    def _command(self, name: str) -> list[str]:
        if name == CENTER_SITE:
            return ["center", "-c", str(self._config)]
        return ["node", "-c", str(self._config), "--site", name]

    def started(self, name: str) -> bool:
        """Whether it was launched and not killed since."""
        return name in self._processes

    def pid(self, name: str) -> int:
        """Process id of the control centre (`center`) or of a site's node."""
        return self._processes[name].pid

    def kill(self, name: str) -> None:
        """Kill one process at once, as a crash would."""
        self._processes[name].kill()
        self._processes.pop(name).wait()

    def stop(self) -> None:
        """Ask all processes to end, and kill those that do not."""
        for process in self._processes.values():
            process.terminate()
        drain_s = max((node_.drain_s for node_ in self.nodes), default=0.0)
        for process in self._processes.values():
            try:
                process.wait(drain_s + STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        self._starter.close()


async def _known(fabric: Fabric) -> dict[SiteId, NodeDescriptor]:
    """Descriptors of the sites that the control centre knows; none while it does not answer."""
    try:
        found = await Session(fabric).ask("nodes", EVERYTHING, NodeList)
    except Unreachable:
        return {}
    return {state.descriptor.site: state.descriptor for state in found.nodes if state.alive}
