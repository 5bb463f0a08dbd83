"""Sites that are adjacent, in this process or one of their own, and what they heard."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from daitn.objects.identifiers import SiteId
from daitn.tools.adjacency.protocol import Adjacency
from daitn.tools.adjacency.settings import AdjacencySettings
from daitn.tools.adjacency.zenoh import ZenohAdjacency, open_adjacency
from tests.scenes.waiting import PATIENCE_S

LOOPBACK = "tcp/127.0.0.1:0"
A, B, C = SiteId("a"), SiteId("b"), SiteId("c")
NEVER_S = 600.0
"""How long a silence has to be to count as a death, where a test is not about silence. On a busy
machine a living site is silent for longer than 0.15 s, the default, and what is under way is lost.
"""
SILENT_S = 3.0
"""Likewise, where a test waits for it: a machine that is slow to wake a thread is no silence."""


class Heard:
    """Keeps all that it is told."""

    def __init__(self) -> None:
        self.links: list[tuple[str, SiteId]] = []
        self.costs_s: dict[SiteId, float] = {}
        self.messages: list[tuple[SiteId, bytes]] = []
        self.turns: list[int] = []
        """How many messages came at a time."""

    def up(self, neighbour: SiteId, cost_s: float) -> None:
        self.links.append(("up", neighbour))
        self.costs_s[neighbour] = cost_s

    def down(self, neighbour: SiteId) -> None:
        self.links.append(("down", neighbour))

    def cost(self, neighbour: SiteId, cost_s: float) -> None:
        assert self.is_up(neighbour)
        self.costs_s[neighbour] = cost_s

    def frames(self, neighbour: SiteId, messages: list[bytes]) -> None:
        assert self.is_up(neighbour)
        self.messages += [(neighbour, message) for message in messages]
        self.turns.append(len(messages))

    def is_up(self, neighbour: SiteId) -> bool:
        last = [what for what, who in self.links if who == neighbour][-1:]
        return last == ["up"]


@asynccontextmanager
async def adjacent(
    site: SiteId,
    heard: Heard,
    neighbours: Mapping[SiteId, tuple[str, ...]] | None = None,
    *,
    listen: str = LOOPBACK,
    anybody: bool = False,
    scout: str = "",
    dead_s: float = NEVER_S,
    tls: str = "",
    listed: Callable[[str], bool] | None = None,
) -> AsyncIterator[ZenohAdjacency]:
    settings = AdjacencySettings(
        site=site,
        listen=(listen,),
        neighbours=neighbours or {},
        anybody=anybody,
        scout=scout,
        dead_s=dead_s,
        tls=tls,
        listed=listed,
    )
    opened = await open_adjacency(settings, heard)
    try:
        yield opened
    finally:
        await opened.close()


class Process:
    """A site in a process of its own; see `site_process.py`."""

    def __init__(self, process: asyncio.subprocess.Process, endpoint: str) -> None:
        self._process = process
        self.endpoint = endpoint

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def running(
    site: SiteId,
    neighbours: Mapping[SiteId, tuple[str, ...]],
    listen: str = LOOPBACK,
    dead_s: float = NEVER_S,
) -> AsyncIterator[Process]:
    """A site that sends every message back."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("site_process.py")),
        site,
        listen,
        json.dumps(dict(neighbours)),
        str(dead_s),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
    started = Process(process, line.decode().strip())
    try:
        yield started
    finally:
        await started.kill()


async def echoed(adjacency: Adjacency, heard: Heard, neighbour: SiteId, message: bytes) -> None:
    """Send until the message comes back."""
    end_s = time.monotonic() + PATIENCE_S
    while (neighbour, message) not in heard.messages:
        assert time.monotonic() < end_s, "no echo"
        adjacency.send(neighbour, message)
        await asyncio.sleep(0.05)
