"""`daitn center`, `daitn node` and `daitn up`: the processes of a network."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from daitn.cli.embedded import Embedded
from daitn.cli.network import read_center, read_node
from daitn.cli.session import errors, run, screen
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import open_zenoh

__all__ = ["center", "node", "up"]

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


async def _run_center(config: Path | None) -> None:
    # Imported here, because every other command would start half a second later.
    from daitn.center.service import ControlCenter

    settings = read_center(config)
    fabric = await open_zenoh(FabricSettings(mode="router", listen=settings.listen))
    service = ControlCenter(settings, fabric)
    await _until_told(
        service.start, service.close, fabric.close, f"control centre at {settings.listen[0]}"
    )


async def _run_node(path: Path, site: str) -> None:
    from daitn.terminal.node import Node

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
            starting = asyncio.ensure_future(
                network.start(lambda name, done, of: screen.print(f"{done}/{of} {name}"))
            )
            stopping = asyncio.ensure_future(told.wait())
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                return
            starting.result()
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
