"""Some of the sites of `benchmarks.aats_reconvergence`, in one process.

Each line of its input is a JSON array, a command with its arguments; each is answered by a line. A
signal ends the process:

::

    open SITE LISTEN NEIGHBOURS   a site with its own Zenoh session and forwarder core
    close SITE                    which its neighbours notice
    events                        what happened since the last call, and the number of summaries

Times are seconds of the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from daitn.node.forwarder.offers import home
from daitn.node.forwarder.runtime import ForwarderRuntime, NotServed
from daitn.objects.identifiers import SiteId
from daitn.steering.wire.intent import PacketIntent
from daitn.steering.wire.packet import Packet
from daitn.steering.wire.replies import Reason, Refusal
from daitn.tools.adjacency.settings import AdjacencySettings
from daitn.tools.adjacency.zenoh import ZenohAdjacency, open_adjacency

HELLO_S = 0.25
DEAD_S = 5.0
COSTS_S = 0.001, 0.01

Event = tuple[str, float, str, str, str | None]
"""`down`, when, site, neighbour, None; or `way`, when, site, origin, next hop if there is one."""


def cost_of(site: str, neighbour: str) -> float:
    """What a link costs, whatever is measured: with many sites in a process on few cores, that is
    how busy these are, and every change of it is told on."""
    return random.Random(" ".join(sorted((site, neighbour)))).uniform(*COSTS_S)


class Nothing:
    """Serves nothing."""

    async def serve(self, packet: Packet, intent: PacketIntent) -> bytes:
        raise NotServed(Refusal(Reason.FAILED, "this site serves nothing"))


class Watched(ForwarderRuntime):
    """Writes down when its links go down, and when its next hop towards an origin changes."""

    def __init__(self, site: SiteId, events: list[Event]) -> None:
        super().__init__(site, Nothing())
        self._events = events
        self._ways: dict[str, str | None] = {}
        self._version = -1

    def up(self, neighbour: SiteId, cost_s: float) -> None:
        super().up(neighbour, cost_of(self.core.site, neighbour))
        self._note()

    def down(self, neighbour: SiteId) -> None:
        self._events.append(("down", time.monotonic(), self.core.site, neighbour, None))
        super().down(neighbour)
        self._note()

    def cost(self, neighbour: SiteId, cost_s: float) -> None:
        pass

    def frames(self, neighbour: SiteId, messages: list[bytes]) -> None:
        super().frames(neighbour, messages)
        self._note()

    def _tick(self) -> None:
        super()._tick()
        self._note()

    def _note(self) -> None:
        routes = self.core.routes
        if routes.version == self._version:
            return
        self._version = routes.version
        # `routes_to` would sort all ways to all origins, which takes as long as what is measured.
        ways = {origin: known.selected for origin, known in routes._origins.items()}
        if ways != self._ways:
            at_s = time.monotonic()
            for origin in ways.keys() | self._ways.keys():
                via = ways.get(origin)
                if via != self._ways.get(origin):
                    self._events.append(("way", at_s, self.core.site, origin, via))
            self._ways = ways


class Sites:
    """All sites of this process."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._running: dict[str, tuple[Watched, ZenohAdjacency]] = {}
        self._summaries = 0
        """Of sites that were closed."""

    async def open(self, site: str, listen: str, neighbours: dict[str, list[str]]) -> None:
        settings = AdjacencySettings(
            site=SiteId(site),
            listen=(listen,),
            neighbours={SiteId(name): tuple(at) for name, at in neighbours.items()},
            hello_s=HELLO_S,
            dead_s=DEAD_S,
        )
        runtime = Watched(settings.site, self._events)
        runtime.offer((home(settings.site),))
        links = await open_adjacency(settings, runtime)
        runtime.join(links)
        self._running[site] = runtime, links

    async def close(self, site: str) -> None:
        runtime, links = self._running.pop(site)
        self._summaries += runtime.counts["summaries"]
        await links.close()
        await runtime.close()

    async def events(self) -> dict[str, Any]:
        told = [*self._events]
        self._events.clear()
        now = sum(runtime.counts["summaries"] for runtime, _ in self._running.values())
        return {"events": told, "summaries": self._summaries + now}


async def main() -> None:
    sites = Sites()
    do: dict[str, Callable[..., Awaitable[Any]]] = {
        "open": sites.open,
        "close": sites.close,
        "events": sites.events,
    }
    while line := await asyncio.to_thread(sys.stdin.readline):
        command, *told = json.loads(line)
        print(json.dumps(await do[command](*told)), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
