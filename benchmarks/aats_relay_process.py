"""One of the three processes of `benchmarks.aats_relay`: KIND ROLE and further arguments.

::

    raw|adjacency|forwarder sink                                  prints its endpoint
    raw|adjacency|forwarder relay SINK                            prints its endpoint
    raw|adjacency|forwarder source WINDOW RELAY SECONDS BYTES     prints its results as JSON

The source sends queries, each with a unique id, and the sink answers each; answers return through
the relay. The source has at most WINDOW outstanding queries. Source and sink only insert ids into
prepared bytes, so that the relay is what is measured. Each runs until its input ends; then the
relay prints how many seconds of CPU time it has used since it was ready.
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

from daitn.node.forwarder.runtime import ForwarderRuntime, NotServed
from daitn.objects.identifiers import SiteId
from daitn.steering.settings import ForwarderSettings
from daitn.steering.wire.intent import Capability, PacketIntent, encode_intent
from daitn.steering.wire.offers import Greeting, Offer, RouteEntry, Update, encode_summary
from daitn.steering.wire.packet import Action, Packet, PacketKind, encode_packet
from daitn.steering.wire.replies import Reason, Refusal, answer_to
from daitn.tools.adjacency.protocol import Neighbours
from daitn.tools.adjacency.settings import AdjacencySettings
from daitn.tools.adjacency.zenoh import ZenohAdjacency, open_adjacency
from daitn.tools.fabric.opening import open_session
from daitn.tools.fabric.settings import FabricSettings

WARM_UP_S = 1.0
LOOPBACK = "tcp/127.0.0.1:0"
SOURCE, RELAY, SINK = SiteId("source"), SiteId("relay"), SiteId("sink")
OFFER = Offer(f"{Capability.ANSWER}:medicine", 0.9, 2, 0.01, amount=1_000_000)
# One owner sends all, and answers are kept for copies that come late: at this rate, more than the
# usual bounds allow.
SETTINGS = ForwarderSettings(owner_per_s=1e6, owner_burst=1e6, most_objects=1_000_000, kept_s=1.0)
GREETING = encode_summary(Greeting())
ID = slice(8, 24)
"""Where a packet has its id."""


def query_of(size: int) -> bytes:
    """A query with `size` bytes of payload, as its source sends it on, in wire form."""
    intent = encode_intent(PacketIntent(Capability.ANSWER, "medicine", owner="ana"))
    packet = Packet(PacketKind.QUERY, bytes(16), intent, bytes(size))
    return encode_packet(packet.stepped(SOURCE, int(time.time() * 1000), Action.FORWARDED, 0))


def answer_of(size: int) -> bytes:
    """The answer to it, in wire form."""
    packet = Packet(PacketKind.QUERY, bytes(16), b"").stepped(SOURCE, 0, Action.FORWARDED, 0)
    return encode_packet(answer_to(packet, bytes(size)).stepped(SINK, 0, Action.DELIVERED, 0))


class Heard:
    """Takes messages from one neighbour; summaries among them are left out."""

    def __init__(self, take: Callable[[list[bytes]], None], up: Callable[[SiteId], None]) -> None:
        self._take = take
        self._up = up

    def up(self, neighbour: SiteId, cost_s: float) -> None:
        self._up(neighbour)

    def down(self, neighbour: SiteId) -> None:
        pass

    def cost(self, neighbour: SiteId, cost_s: float) -> None:
        pass

    def frames(self, neighbour: SiteId, messages: list[bytes]) -> None:
        self._take([message for message in messages if message[0] == 0xDA])


class PassOn:
    """A relay that decides nothing: what comes from one neighbour goes to the other."""

    links: ZenohAdjacency

    def up(self, neighbour: SiteId, cost_s: float) -> None:
        pass

    def down(self, neighbour: SiteId) -> None:
        pass

    def cost(self, neighbour: SiteId, cost_s: float) -> None:
        pass

    def frames(self, neighbour: SiteId, messages: list[bytes]) -> None:
        to = SINK if neighbour == SOURCE else SOURCE
        for message in messages:
            self.links.send(to, message)


class Nothing:
    """Serves nothing."""

    async def serve(self, packet: Packet, intent: PacketIntent) -> bytes:
        raise NotServed(Refusal(Reason.FAILED, "a relay serves nothing"))


class Credits:
    """At the source: how many answers came. Waits, on any thread, until there is room for more."""

    def __init__(self, window: int) -> None:
        self.came = 0
        self._window = window
        self._told = 0
        self._news = threading.Event()

    def add(self, count: int) -> None:
        self.came += count
        if self.came - self._told >= self._window // 16:
            self._told = self.came
            self._news.set()

    def room(self, sent: int) -> int:
        """How many more may be sent; waits where none may. 0: none came for a second."""
        while sent - self.came >= self._window:
            self._news.clear()
            if sent - self.came >= self._window and not self._news.wait(1.0):
                return 0
        return self._window - (sent - self.came)


async def session(stack: AsyncExitStack, *connect: str) -> tuple[zenoh.Session, str]:
    opened = await open_session(
        FabricSettings(listen=(LOOPBACK,), connect=connect, direct=True), 10.0
    )
    stack.callback(opened.session.close)
    return opened.session, opened.endpoints[0]


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
    heard: Neighbours,
) -> ZenohAdjacency:
    settings = AdjacencySettings(site=site, listen=(LOOPBACK,), neighbours=neighbours)
    adjacency = await open_adjacency(settings, heard)
    stack.push_async_callback(adjacency.close)
    return adjacency


def measured(send: Callable[[int, int], None], credit: Credits, seconds: float) -> None:
    """Keep the window full, and print how many queries were answered per second."""
    sent, began_s, came = 0, 0.0, 0
    warm_s = time.perf_counter() + WARM_UP_S
    while True:
        room = credit.room(sent)
        send(sent, room)
        sent += room
        now_s = time.perf_counter()
        if not began_s and now_s > warm_s:
            began_s, came = now_s, credit.came
        if began_s and now_s - began_s > seconds:
            break
    rate = (credit.came - came) / (now_s - began_s)
    while credit.came < sent and time.perf_counter() < now_s + 2.0:
        time.sleep(0.05)
    print(json.dumps({"answered_s": rate, "sent": sent, "came": credit.came}), flush=True)


async def ended() -> None:
    await asyncio.to_thread(sys.stdin.read)


async def until(ready: Callable[[], object]) -> None:
    while not ready():  # noqa: ASYNC110 - a benchmark starts once
        await asyncio.sleep(0.02)


async def sink(stack: AsyncExitStack, kind: str) -> None:
    answers: dict[int, tuple[bytes, bytes]] = {}

    def answer(query: bytes) -> bytes:
        """As long as the query, so that both ways are alike."""
        found = answers.get(len(query))
        if found is None:
            size = len(query) - len(answer_of(0))
            whole = answer_of(size)
            found = answers[len(query)] = whole[: ID.start], whole[ID.stop :]
        return found[0] + query[ID] + found[1]

    if kind == "raw":
        raw, endpoint = await session(stack)
        out = publisher(raw, "benchmark/back")
        subscribe(
            stack, raw, "benchmark/sink", lambda sample: out.put(answer(bytes(sample.payload)))
        )
    else:
        summary = encode_summary(Update((RouteEntry(SINK, 1, 0.0, 1, (OFFER,)),), whole=True))

        def take(messages: list[bytes]) -> None:
            for message in messages:
                adjacency.send(RELAY, answer(message))

        def tell(neighbour: SiteId) -> None:
            adjacency.send(neighbour, GREETING)
            adjacency.send(neighbour, summary)

        heard = Heard(take, tell)
        adjacency = await adjacent(stack, SINK, {RELAY: ()}, heard)
        endpoint = adjacency.endpoints[0]
    print(endpoint, flush=True)
    await ended()


async def relay(stack: AsyncExitStack, kind: str, to: str) -> None:
    neighbours: dict[SiteId, tuple[str, ...]] = {SINK: (to,), SOURCE: ()}
    if kind == "raw":
        raw, endpoint = await session(stack, to)
        on, back = publisher(raw, "benchmark/sink"), publisher(raw, "benchmark/source")
        subscribe(stack, raw, "benchmark/relay", lambda sample: on.put(sample.payload))
        subscribe(stack, raw, "benchmark/back", lambda sample: back.put(sample.payload))
        await until(lambda: matched(on))
    elif kind == "adjacency":
        passing = PassOn()
        passing.links = links = await adjacent(stack, RELAY, neighbours, passing)
        endpoint = links.endpoints[0]
        await until(lambda: links.stats()[SINK].up)
    else:
        runtime = ForwarderRuntime(RELAY, Nothing(), SETTINGS)
        links = await adjacent(stack, RELAY, neighbours, runtime)
        runtime.join(links)
        stack.push_async_callback(runtime.close)
        endpoint = links.endpoints[0]
        await until(lambda: runtime.core.routes.offering(OFFER.key))
    began_s = time.process_time()
    print(endpoint, flush=True)
    await ended()
    print(time.process_time() - began_s, flush=True)


async def source(
    stack: AsyncExitStack, kind: str, window: int, to: str, seconds: float, size: int
) -> None:
    credit, query = Credits(window), query_of(size)
    head, tail = query[: ID.start], query[ID.stop :]

    def queries(first: int, count: int) -> list[bytes]:
        return [head + i.to_bytes(16, "big") + tail for i in range(first, first + count)]

    if kind == "raw":
        raw, _ = await session(stack, to)
        out = publisher(raw, "benchmark/relay")
        subscribe(stack, raw, "benchmark/source", lambda _: credit.add(1))
        await until(lambda: matched(out))

        def put(first: int, count: int) -> None:
            for wire in queries(first, count):
                out.put(wire)

    else:

        def greet(neighbour: SiteId) -> None:
            adjacency.send(neighbour, GREETING)

        heard = Heard(lambda messages: credit.add(len(messages)), greet)
        adjacency = await adjacent(stack, SOURCE, {RELAY: (to,)}, heard)
        await until(lambda: adjacency.stats()[RELAY].up)
        loop = asyncio.get_running_loop()

        async def burst(wires: list[bytes]) -> None:
            for wire in wires:
                adjacency.send(RELAY, wire)

        def put(first: int, count: int) -> None:
            asyncio.run_coroutine_threadsafe(burst(queries(first, count)), loop).result()

    await asyncio.to_thread(measured, put, credit, seconds)
    await ended()


async def main(kind: str, role: str, *told: str) -> None:
    async with AsyncExitStack() as stack:
        if role == "sink":
            await sink(stack, kind)
        elif role == "relay":
            await relay(stack, kind, told[0])
        else:
            window, to, seconds, size = told
            await source(stack, kind, int(window), to, float(seconds), int(size))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
