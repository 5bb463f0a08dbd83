"""`daitn center`, `daitn node` and `daitn up`: the processes of a network."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from daitn.center.service import ControlCenter
from daitn.cli.network import read_center, read_network, read_node
from daitn.cli.session import errors, run, screen
from daitn.objects.errors import WorkFailed
from daitn.objects.identifiers import CENTER_SITE
from daitn.terminal.node import Node
from daitn.tools.fabric import keys
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import open_zenoh

__all__ = ["Embedded", "center", "node", "up"]

READY_WITHIN_S = 180.0
STOP_WITHIN_S = 10.0

ConfigOption = Annotated[
    Path | None, typer.Option("-c", "--config", help="Centre, node or network file (YAML).")
]


def center(config: ConfigOption = None, verbose: bool = False) -> None:
    """Run a control centre.

    Example: daitn center -c network.yaml
    """
    _log(verbose)
    run(_run_center(config))


def node(
    config: Annotated[Path, typer.Option("-c", "--config", help="Node or network file (YAML).")],
    site: Annotated[str, typer.Option(help="Which node of a network file.")] = "",
    verbose: bool = False,
) -> None:
    """Run a site's node.

    Example: daitn node -c node.yaml
    """
    _log(verbose)
    run(_run_node(config, site))


def up(
    config: Annotated[Path, typer.Option("-c", "--config", help="Network file (YAML).")],
) -> None:
    """Run a whole network on this machine, from one file, until Ctrl-C.

    Example: daitn up -c network.yaml
    """
    run(_up(config))


class Embedded:
    """A control centre and its nodes as child processes, each with a log file."""

    def __init__(self, config: Path, logs: Path) -> None:
        self._config = config
        self._logs = logs
        self.center, self.nodes = read_network(config)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def endpoint(self) -> str:
        """Where owners reach the control centre."""
        return self.center.listen[0]

    async def start(self, told: Callable[[str, int, int], None]) -> None:
        """Start all; return when every node is there. `told(what, done, of)` follows it.

        Raises `WorkFailed` with the end of its log when a process ends early.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        for name in (CENTER_SITE, *(node_.site for node_ in self.nodes)):
            self.launch(name)
        waiting = {node_.site for node_ in self.nodes}
        settings = FabricSettings(mode="client", connect=(self.endpoint,))
        fabric = await open_zenoh(settings, connect_timeout_s=READY_WITHIN_S)
        try:

            async def on_alive(key: str, alive: bool) -> None:
                if alive:
                    waiting.discard(keys.site_of(key))
                    told(keys.site_of(key), len(self.nodes) - len(waiting), len(self.nodes))

            await fabric.watch(keys.ALL_SITES_ALIVE, on_alive)
            async with asyncio.timeout(READY_WITHIN_S):
                while waiting:
                    self.check()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            late = ", ".join(sorted(waiting))
            raise WorkFailed(
                f"not ready after {READY_WITHIN_S:g} s: {late}", fix=f"see {self._logs}"
            ) from None
        finally:
            await fabric.close()

    def launch(self, name: str) -> None:
        """Start the control centre (`center`) or a site's node, for the first time or again."""
        arguments = ["node", "-c", str(self._config), "--site", name]
        if name == CENTER_SITE:
            arguments = ["center", "-c", str(self._config)]
        with (self._logs / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "daitn.cli.app", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise `WorkFailed` if a process has ended."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                log = self._logs / f"{name}.log"
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
                raise WorkFailed(
                    f"{name} ended with {process.returncode}:\n{tail}", fix=f"see {log}"
                )

    def kill(self, name: str) -> None:
        """Kill one process at once, as a crash would."""
        self._processes[name].kill()
        self._processes.pop(name).wait()

    def stop(self) -> None:
        """Ask all to end, and make those end that do not."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()


async def _run_center(config: Path | None) -> None:
    settings = read_center(config)
    fabric = await open_zenoh(FabricSettings(mode="router", listen=settings.listen))
    service = ControlCenter(settings, fabric)
    await _until_told(
        service.start, service.close, fabric.close, f"control centre at {settings.listen[0]}"
    )


async def _run_node(path: Path, site: str) -> None:
    config = read_node(path, site)
    settings = FabricSettings(mode="peer", listen=config.listen, connect=config.center)
    fabric = await open_zenoh(settings)
    service = Node(config, fabric)
    await _until_told(service.start, service.close, fabric.close, f"site {config.site}")


async def _until_told(
    start: Callable[[], Awaitable[None]],
    close: Callable[[], Awaitable[None]],
    close_fabric: Callable[[], Awaitable[None]],
    name: str,
) -> None:
    """Start, run until SIGINT or SIGTERM, and take everything back."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    try:
        starting = asyncio.ensure_future(start())
        stopping = asyncio.ensure_future(told.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            errors.print(f"{name} is ready", highlight=False)
            await stopping
        starting.cancel()
    finally:
        await close()
        await close_fabric()


async def _up(config: Path) -> None:
    network = Embedded(config, Path(read_center(config).state) / "logs")
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    try:
        with screen.status("starting the network"):
            await network.start(lambda name, done, of: screen.print(f"{done}/{of} {name}"))
        screen.print(f"ready; control centre at {network.endpoint}; Ctrl-C ends it")
        while not told.is_set():
            network.check()
            await asyncio.sleep(0.5)
    finally:
        network.stop()


def _log(verbose: bool) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
