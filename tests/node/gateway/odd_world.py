"""Facilities before servers of raw bytes, and every way in which a gateway asks them.

`odd` is asked first, `well` is in order, and `slow` is in order too, but late when it is told to.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from daitn.identity.keys import SigningKey
from daitn.node.config import UpstreamConfig
from daitn.node.forwarder.offers import home
from daitn.node.forwarder.query_client import PacketQueryClient
from daitn.node.forwarder.query_service import QueryService
from daitn.node.forwarder.runtime import ForwarderRuntime, NotServed
from daitn.node.gateway import Gateway
from daitn.objects.deployments import Api
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import QueryRecord
from daitn.openai.answers import StreamReader
from daitn.steering.wire.intent import PacketIntent
from daitn.steering.wire.offers import Offer
from daitn.steering.wire.packet import Packet
from daitn.steering.wire.replies import Reason, Refusal
from daitn.tools.adjacency.memory import MemoryLinks
from daitn.tools.fabric.memory import MemoryNetwork
from daitn.topology.qrrt.state import QrrtState
from tests.node.gateway.scene import Network, deployment
from tests.node.gateway.test_relay import near
from tests.node.serving.scene import Site
from tests.scenes.raw_server import RawServer, chunked, event, piece, ranking, response, whole
from tests.scenes.waiting import until

__all__ = ["BOUND", "MODES", "Asked", "Odd", "World", "ask", "opened_world", "scene"]

BOUND = 1 << 20
"""Largest answer of the facilities here."""
PAUSE_S = 0.02
MODES = ("whole", "stream", "hedged", "cascade", "ensemble", "packet", "relay", "relayed stream")
_ANSWERS = {"odd": "odd", "well": "fine", "slow": "fine"}


OFFERS = {
    "odd": Offer("model:m", fit=0.9, trust=2),
    "well": Offer("model:m", fit=0.5, trust=2),
}


@dataclass(frozen=True)
class Odd:
    """What an odd server sends. `stream` is what it says where a stream is wanted, in parts between
    which it pauses, and `whole` where none is; none: the same. `keeps`: whether the connection
    stays open."""

    stream: bytes | tuple[bytes, ...]
    whole: bytes | None = None
    keeps: bool = False


@dataclass
class World:
    """What lives as long as the module; gateways and their topology are made for each test."""

    servers: dict[str, RawServer]
    sites: dict[str, Site]
    runtimes: dict[str, ForwarderRuntime]
    key: SigningKey
    keeps: bool = False
    """Whether facilities keep queries, and responses."""
    scenes: dict[tuple[str, bool], tuple[Network, Gateway]] = field(default_factory=dict)
    """Gateways that were opened, by the mode in which they ask."""

    async def offer(self, offers: Mapping[str, Offer]) -> None:
        """Offer the model as a packet finds it, at these sites only."""
        for name in OFFERS:
            own = (offers[name],) if name in offers else ()
            self.runtimes[name].offer((home(SiteId(name)), *own))
        known = self.runtimes["gw"].core.routes
        await until(lambda: len(known.offering("model:m")) == len(offers))

    def tell(self, odd: Odd) -> None:
        """Tell the odd server what to send."""

        async def behave(head: bytes, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
            said = odd.stream if body.get("stream") or odd.whole is None else odd.whole
            for position, part in enumerate([said] if isinstance(said, bytes) else said):
                if position:
                    await asyncio.sleep(PAUSE_S)
                writer.write(part)
                await writer.drain()
            return odd.keeps

        self.servers["odd"].behave = behave


def _well(late: asyncio.Event | None = None) -> Any:
    async def behave(head: bytes, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        if late is not None:
            await late.wait()
        if b"/rerank" in head:
            writer.write(response(ranking(*(0.5 for _ in body["documents"]))))
        elif body.get("stream"):
            counts = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
            wanted = (counts,) if body.get("stream_options") else ()
            writer.write(chunked(piece("fine"), piece(reason="stop"), *wanted, b"data: [DONE]\n\n"))
        else:
            writer.write(response(whole("fine")))
        await writer.drain()
        return True

    return behave


@asynccontextmanager
async def opened_world(folder: Path, *, keeps: bool = False) -> AsyncIterator[World]:
    """Open it; once per module. `keeps`: whether facilities keep queries."""
    memory, key = MemoryNetwork(), SigningKey.generate()
    async with AsyncExitStack() as stack:
        servers, sites = dict[str, RawServer](), dict[str, Site]()
        for name in _ANSWERS:
            server = servers[name] = await RawServer(_well()).start()
            stack.push_async_callback(server.close)
            upstreams = tuple(
                UpstreamConfig(name=model, url=server.url, apis=tuple(Api), slots=100)
                for model in ("m", f"of-{name}")
            )
            site = sites[name] = Site(
                memory,
                folder,
                site=name,
                recipes=(),
                hosts=False,
                upstreams=upstreams,
                max_answer_bytes=BOUND,
                keeps_queries=keeps,
                admit=lambda shown, now_s: SiteId("gw"),
            )
            await site.start()
            stack.push_async_callback(site.close)
        runtimes = await _forwarders(stack, sites, key)
        world = World(servers, sites, runtimes, key, keeps)
        try:
            yield world
        finally:
            await asyncio.gather(*(network.close() for network, _ in world.scenes.values()))


async def _forwarders(
    stack: AsyncExitStack, sites: dict[str, Site], key: SigningKey
) -> dict[str, ForwarderRuntime]:
    links, runtimes = MemoryLinks(), {"gw": ForwarderRuntime(SiteId("gw"), _Nobody())}
    for name, offer in OFFERS.items():
        service = QueryService(
            SiteId(name),
            SigningKey.generate(),
            lambda name=name: sites[name].url,  # type: ignore[misc]
            lambda offer=offer: (("m", offer),),  # type: ignore[misc]
            lambda site: None,
        )
        stack.push_async_callback(service.close)
        runtimes[name] = ForwarderRuntime(SiteId(name), service)
    for name, runtime in runtimes.items():
        runtime.offer((home(SiteId(name)),))
        runtime.join(links.open(SiteId(name), runtime))
        stack.push_async_callback(runtime.close)
    links.join(SiteId("gw"), SiteId("odd"), cost_s=0.001)
    links.join(SiteId("gw"), SiteId("well"), cost_s=0.02)
    return runtimes


class _Nobody:
    async def serve(self, packet: Packet, intent: PacketIntent) -> bytes:
        raise NotServed(Refusal(Reason.FAILED, "nothing is served here"))


@dataclass
class Asked:
    """What a client got, and what the gateway noted."""

    status: int
    headers: dict[str, str]
    body: bytes
    network: Network
    records: tuple[QueryRecord, ...]
    """Those that the gateway made meanwhile."""

    @property
    def record(self) -> QueryRecord:
        """The only one."""
        (record,) = self.records
        return record

    @property
    def failed(self) -> set[str]:
        """Sites of which the gateway told that they failed."""
        return {
            site
            for view in self.network.views.values()
            for site, _, seen in view.seen
            if seen.failed
        }

    @property
    def events(self) -> list[Any]:
        """Of a stream: its events, without `[DONE]`, which must be the last if nothing failed."""
        blocks = [block for block in self.body.split(b"\n\n") if block.startswith(b"data:")]
        return [json.loads(block[5:]) for block in blocks if block != b"data: [DONE]"]

    @property
    def error(self) -> dict[str, Any]:
        """The error, whether it is the answer or its last event."""
        last = self.events[-1] if self.body.startswith(b"data:") else json.loads(self.body)
        error: dict[str, Any] = last["error"]
        return error

    @property
    def text(self) -> str:
        if not self.body.startswith(b"data:"):
            said = json.loads(self.body)["choices"][0]["message"]["content"]
            return said if isinstance(said, str) else "".join(part["text"] for part in said)
        StreamReader(1 << 30, "").feed(self.body)
        assert self.body.count(b"[DONE]") == 1
        assert self.body.endswith(b"data: [DONE]\n\n")
        choices = [choice for event in self.events for choice in event["choices"]]
        return "".join(choice["delta"].get("content") or "" for choice in choices)


async def scene(world: World, mode: str, *, alone: bool = False) -> tuple[Network, Gateway]:
    """A topology of which nothing is known yet, in which `odd` comes first in this mode, and a
    gateway. `alone`: no other has the model."""
    if (mode, alone) not in world.scenes:
        network = Network()
        if "relay" in mode:
            await network.gateway("hub")
        packets = PacketQueryClient(world.runtimes["gw"], world.key, {}, "")
        world.scenes[mode, alone] = network, await network.gateway("gw", packets=packets)
    network, gateway = world.scenes[mode, alone]
    if mode == "packet":
        await world.offer({"odd": OFFERS["odd"]} if alone else OFFERS)
    _forget(network)
    _describe(network, world, mode, alone=alone)
    return network, gateway


def _forget(network: Network) -> None:
    network.state = QrrtState()
    for gateway in network.gateways:
        network.describe_gateway(gateway)
    for view in network.views.values():
        view.state, view.seen, view.broken = network.state, [], frozenset()


def _describe(network: Network, world: World, mode: str, *, alone: bool) -> None:
    urls = {name: f"{site.url}/v1" for name, site in world.sites.items()}
    names = {"odd": "m", "well": "m"}
    if mode in ("cascade", "ensemble"):
        names = {name: f"of-{name}" for name in ("odd", "well", "slow")}
    if mode == "cascade":
        del names["slow"]
    if mode == "hedged":
        names = {"slow": "m", "odd": "m"}
    if alone:
        names = {"odd": names["odd"]}
    for price, (name, model) in enumerate(names.items()):
        offered = deployment(model, price_usd_per_1k_out=10.0**price)
        network.facility(name, urls[name], offered, keeps=world.keeps)
    if mode == "cascade":
        network.measured("of-odd", "odd", "medicine", 0.6)
        network.measured("of-well", "well", "medicine", 0.95)
    if "relay" in mode:
        near(network, "gw", "hub")
        near(network, "hub", "odd")
        network.views["gw"].broken = frozenset({SiteId("odd")})


async def ask(
    network: Network, gateway: Gateway, mode: str, api: Api = Api.CHAT, **changes: Any
) -> Asked:
    """Ask in this mode."""
    wishes: dict[str, Any] = changes.pop("daitn", {})
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    if api is Api.RERANK:
        body = {"model": "m", "query": "tin?", "documents": ["Tin is a metal.", {"text": "Ice"}]}
    if "stream" in mode:
        body["stream"] = True
    if mode in ("cascade", "ensemble"):
        body["model"] = "auto"
        wishes = {"strategy": mode, "topic": "medicine", **wishes}
    if mode == "cascade":
        wishes = {"min_accuracy": 0.9, "escalate_below": 0.0, **wishes}
    if mode == "packet":
        wishes = {"autonomous": True, "deadline_s": 60.0, **wishes}
    if mode != "hedged":
        wishes = {"hedge": False, **wishes}
    coding = changes.pop("coding", "")
    headers = {"content-encoding": coding} if coding else {}
    data = _coded(json.dumps({**body, "daitn": wishes, **changes}).encode(), coding)
    url = f"{gateway.descriptor().endpoint}/v1{api.path}"
    before = len(gateway.queries(1 << 20))
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=data, headers=headers) as answer,
    ):
        told = answer.status, dict(answer.headers), await answer.read()
    await until(lambda: len(gateway.queries(1 << 20)) > before)
    made = len(gateway.queries(1 << 20)) - before
    return Asked(*told, network, gateway.queries(made))


def _coded(data: bytes, coding: str) -> bytes:
    for name in coding.split(", "):
        if name.endswith("gzip"):
            data = gzip.compress(data)
        elif name == "deflate":
            data = zlib.compress(data)
    return data
