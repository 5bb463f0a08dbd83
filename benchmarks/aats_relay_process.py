"""One of the three processes of `benchmarks.aats_relay`: KIND ROLE and what it is told.

::

    raw|adjacency sink WINDOW                                  prints its endpoints
    raw|adjacency relay SINK                                   prints its endpoint
    raw|adjacency source WINDOW RELAY CREDITS SECONDS BYTES    prints what it measured, as JSON

The sink tells the source how many packets came, over a Zenoh session of their own, and the source
has at most WINDOW packets under way. Each runs until its input ends; then the sink prints how many
packets came, and the relay how many seconds of CPU it used.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import uvloop
import zenoh

from daitn.objects.identifiers import SiteId
from daitn.tools.adjacency.settings import AdjacencySettings
from daitn.tools.adjacency.zenoh import ZenohAdjacency, open_adjacency
from daitn.tools.fabric.opening import open_session
from daitn.tools.fabric.settings import FabricSettings

WARM_UP_S = 1.0
LOOPBACK = "tcp/127.0.0.1:0"
SOURCE, RELAY, SINK = SiteId("source"), SiteId("relay"), SiteId("sink")


def step(packet: bytes) -> tuple[SiteId, bytes]:
    """What a forwarder does with a packet: where it goes next, and as what. So far: as it is."""
    return SINK, packet


class Neighbours:
    """Hears nothing but messages."""

    def __init__(self, take: Callable[[list[bytes]], None]) -> None:
        self._take = take

    def up(self, neighbour: SiteId, cost_s: float) -> None:
        pass

    def down(self, neighbour: SiteId) -> None:
        pass

    def cost(self, neighbour: SiteId, cost_s: float) -> None:
        pass

    def frames(self, neighbour: SiteId, messages: list[bytes]) -> None:
        self._take(messages)


class Credits:
    """At the source: how many packets came. Waits, on any thread, until there is room for more."""

    def __init__(self, window: int) -> None:
        self.came = 0
        self._window = window
        self._news = threading.Event()

    def told(self, sample: zenoh.Sample) -> None:
        self.came = int(sample.payload.to_string())
        self._news.set()

    def room(self, sent: int) -> int:
        """How many more may be sent; waits where none may. 0: none came for a second."""
        while sent - self.came >= self._window:
            self._news.clear()
            if sent - self.came >= self._window and not self._news.wait(1.0):
                return 0
        return self._window - (sent - self.came)


async def session(stack: AsyncExitStack, *connect: str) -> tuple[zenoh.Session, str]:
    opened, endpoints = await open_session(
        FabricSettings(listen=(LOOPBACK,), connect=connect, direct=True), 10.0
    )
    stack.callback(opened.close)
    return opened, endpoints[0]


def subscribe(
    stack: AsyncExitStack, opened: zenoh.Session, key: str, heard: Callable[[zenoh.Sample], object]
) -> None:
    callback: zenoh.handlers.Callback[zenoh.Sample] = zenoh.handlers.Callback(heard, indirect=False)
    stack.callback(opened.declare_subscriber(key, callback).undeclare)


def publisher(opened: zenoh.Session, key: str) -> zenoh.Publisher:
    return opened.declare_publisher(key, congestion_control=zenoh.CongestionControl.BLOCK)


def matched(to: zenoh.Publisher) -> bool:
    status: Any = to.matching_status
    return bool(status.matching)


async def adjacent(
    stack: AsyncExitStack,
    site: SiteId,
    neighbours: dict[SiteId, tuple[str, ...]],
    take: Callable[[list[bytes]], None],
) -> ZenohAdjacency:
    settings = AdjacencySettings(site=site, listen=(LOOPBACK,), neighbours=neighbours)
    adjacency = await open_adjacency(settings, Neighbours(take))
    stack.push_async_callback(adjacency.close)
    return adjacency


def measured(send: Callable[[int], None], credit: Credits, seconds: float) -> None:
    """Keep the window full, and print how many came per second and how many were sent."""
    sent, began_s, came = 0, 0.0, 0
    warm_s = time.perf_counter() + WARM_UP_S
    while True:
        room = credit.room(sent)
        send(room)
        sent += room
        now_s = time.perf_counter()
        if not began_s and now_s > warm_s:
            began_s, came = now_s, credit.came
        if began_s and now_s - began_s > seconds:
            break
    rate = (credit.came - came) / (now_s - began_s)
    print(json.dumps({"packets_s": rate, "sent": sent}), flush=True)


async def ended() -> None:
    await asyncio.to_thread(sys.stdin.read)


async def until_linked(linked: Callable[[], bool]) -> None:
    while not linked():  # noqa: ASYNC110 - a benchmark starts once
        await asyncio.sleep(0.02)


async def sink(stack: AsyncExitStack, kind: str, window: int) -> None:
    credit_session, credit_endpoint = await session(stack)
    credit = credit_session.declare_publisher("benchmark/credits", express=True)
    counted = told = 0

    def take(count: int) -> None:
        nonlocal counted, told
        counted += count
        if counted - told >= window // 16:
            told = counted
            credit.put(str(counted))

    if kind == "raw":
        raw, endpoint = await session(stack)
        subscribe(stack, raw, "benchmark/sink", lambda _: take(1))
    else:
        adjacency = await adjacent(stack, SINK, {RELAY: ()}, lambda messages: take(len(messages)))
        endpoint = adjacency.endpoints[0]
    print(endpoint, credit_endpoint, flush=True)
    await ended()
    print(counted, flush=True)


async def relay(stack: AsyncExitStack, kind: str, to: str) -> None:
    if kind == "raw":
        raw, endpoint = await session(stack, to)
        on = publisher(raw, "benchmark/sink")
        subscribe(stack, raw, "benchmark/relay", lambda sample: on.put(sample.payload))
        await until_linked(lambda: matched(on))
    else:

        def take(messages: list[bytes]) -> None:
            for message in messages:
                adjacency.send(*step(message))

        adjacency = await adjacent(stack, RELAY, {SINK: (to,), SOURCE: ()}, take)
        await until_linked(lambda: adjacency.stats()[SINK].up)
        endpoint = adjacency.endpoints[0]
    began_s = time.process_time()
    print(endpoint, flush=True)
    await ended()
    print(time.process_time() - began_s, flush=True)


async def source(
    stack: AsyncExitStack,
    kind: str,
    window: int,
    to: str,
    credits_from: str,
    seconds: float,
    size: int,
) -> None:
    credit, packet = Credits(window), bytes(size)
    credit_session, _ = await session(stack, credits_from)
    subscribe(stack, credit_session, "benchmark/credits", credit.told)
    if kind == "raw":
        raw, _ = await session(stack, to)
        out = publisher(raw, "benchmark/relay")
        await until_linked(lambda: matched(out))

        def put(count: int) -> None:
            for _ in range(count):
                out.put(packet)

    else:
        adjacency = await adjacent(stack, SOURCE, {RELAY: (to,)}, lambda messages: None)
        await until_linked(lambda: adjacency.stats()[RELAY].up)
        loop = asyncio.get_running_loop()

        def put(count: int) -> None:
            asyncio.run_coroutine_threadsafe(burst(adjacency, packet, count), loop).result()

    await asyncio.to_thread(measured, put, credit, seconds)
    await ended()


async def burst(adjacency: ZenohAdjacency, packet: bytes, count: int) -> None:
    for _ in range(count):
        adjacency.send(RELAY, packet)


async def main(kind: str, role: str, *told: str) -> None:
    async with AsyncExitStack() as stack:
        if role == "sink":
            await sink(stack, kind, int(told[0]))
        elif role == "relay":
            await relay(stack, kind, told[0])
        else:
            window, to, credits_from, seconds, size = told
            await source(stack, kind, int(window), to, credits_from, float(seconds), int(size))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
