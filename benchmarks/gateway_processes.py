"""Processes that `benchmarks.gateway` measures: `... ROLE URL ROWS`.

Each listens on a free port of 127.0.0.1 and prints it. `upstream` gives the same answer to every
request, as fast as Python can, and of a stream only the first piece; `bare` is a reverse proxy in
front of `URL`, Starlette and aiohttp on uvicorn; `gateway` is DA-ITN's, with `ROWS` deployments in
its topology that are all at `URL`.
"""

from __future__ import annotations

import asyncio
import random
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import aiohttp
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from daitn.identity.keys import SigningKey
from daitn.node.config import GatewayConfig
from daitn.node.gateway import Gateway
from daitn.objects.deployments import (
    Api,
    DeploymentDescriptor,
    DeploymentState,
    FacilityDescriptor,
    Runtime,
)
from daitn.objects.descriptors import NodeDescriptor, Role
from daitn.objects.errors import Refused
from daitn.objects.findings import Finding
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.readings import LinkReading, Reading
from daitn.topology.qrrt.observation import Observation
from daitn.topology.qrrt.paths import paths_from
from daitn.topology.qrrt.snapshot import Paths, Qrrt
from daitn.topology.qrrt.state import QrrtState

ANSWER = (
    b'{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"B"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":1,"total_tokens":11}}'
)
EVENT = (
    b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index"'
    b':0,"delta":{"role":"assistant","content":"B"},"finish_reason":null}]}\n\n'
)
BEGUN = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    b"%x\r\n%s\r\n" % (len(EVENT), EVENT)
)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
ORIGIN = SiteId("gw")
DEPLOYMENTS_PER_SITE = 10
PATHS_LAST_S = 0.25
"""As long as a node's own feed keeps them."""


class Upstream(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._got = b""

    def data_received(self, data: bytes) -> None:
        self._got += data
        while (end := self._got.find(b"\r\n\r\n")) >= 0:
            head = self._got[:end].lower() + b"\r\n"
            size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self._got) < end + 4 + size:
                return
            body, self._got = self._got[end + 4 :][:size], self._got[end + 4 + size :]
            begins = b'"stream":true' in body.replace(b" ", b"")
            self._transport.write(BEGUN if begins else HEAD % len(ANSWER) + ANSWER)


async def upstream() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def bare(url: str) -> None:
    sessions: list[aiohttp.ClientSession] = []

    @asynccontextmanager
    async def living(app: Starlette) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        ) as session:
            sessions.append(session)
            yield

    async def proxied(request: Request) -> Response:
        async with sessions[0].post(
            url + request.url.path,
            data=await request.body(),
            headers={"content-type": "application/json"},
        ) as answer:
            return Response(
                await answer.read(), answer.status, media_type=answer.headers["content-type"]
            )

    app = Starlette(
        routes=[Route("/v1/chat/completions", proxied, methods=["POST"])], lifespan=living
    )
    bound = socket.create_server(("127.0.0.1", 0))
    print(bound.getsockname()[1], flush=True)
    settings = uvicorn.Config(
        app, loop="uvloop", http="httptools", log_level="error", access_log=False
    )
    uvicorn.Server(settings).run([bound])


class View:
    """A topology that changes with every query, as a node's does."""

    def __init__(self, state: QrrtState) -> None:
        self._state = state
        self._known: tuple[object, Paths] | None = None
        self._until_s = 0.0

    def snapshot(self) -> Qrrt:
        return self._state.snapshot()

    def paths(self, snapshot: Qrrt) -> Paths:
        now_s = time.time()
        if self._known is None or self._known[0] is not snapshot.rows or now_s > self._until_s:
            self._known = snapshot.rows, paths_from(snapshot, ORIGIN, now_s)
            self._until_s = now_s + PATHS_LAST_S if snapshot.links else float("inf")
        return self._known[1]

    def observe(self, site: SiteId, name: str, seen: Observation) -> None:
        self._state.observe(site, name, seen, time.time())

    def unreachable(self, site: SiteId) -> None:
        raise AssertionError(f"{site} cannot be reached")


def topology(url: str, rows: int) -> QrrtState:
    """Sites of ten deployments each, with links and accuracies."""
    state, rng, now_s = QrrtState(), random.Random(rows), time.time()
    for number in range(-(-rows // DEPLOYMENTS_PER_SITE)):
        site = SiteId(f"site-{number}")
        models = tuple(
            DeploymentDescriptor(
                name=f"model-{place}",
                owner=OwnerId("owner"),
                runtime=Runtime.OPENAI,
                apis=(Api.CHAT,),
                state=DeploymentState.READY,
                slots=8,
                price_usd_per_1k_out=rng.uniform(0.1, 1.0),
            )
            for place in range(DEPLOYMENTS_PER_SITE)
        )
        facility = FacilityDescriptor(endpoint=url, hosts=False, memory_bytes=0, deployments=models)
        node = NodeDescriptor(
            site=site,
            owner=OwnerId("provider"),
            roles=(Role.FACILITY,),
            jurisdiction="US",
            public_key="",
            started_at_s=1.0,
            version=1,
            software="daitn",
            facility=facility,
        )
        state.described(node, now_s)
        state.came(site, now_s)
        rtt = Reading(rng.uniform(0.001, 0.02), now_s, ORIGIN)
        state.absorb_link(LinkReading(source=ORIGIN, target=site, rtt_s=rtt), now_s)
        for model in models:
            state.absorb_finding(found(site, model.name, rng.uniform(0.6, 0.95), now_s), now_s)
    return state


def found(site: SiteId, name: str, value: float, now_s: float) -> Finding:
    return Finding(
        verifier=SiteId("mpvu"),
        site=site,
        deployment=name,
        manifest=None,
        topic="medicine",
        metric="accuracy",
        value=value,
        standard_error=0.01,
        items=1000,
        at_s=now_s,
    )


def nobody(shown: str, now_s: float) -> SiteId:
    raise Refused("no gateway is known here", field="daitn-pass")


def serving_gateway(url: str, rows: int) -> Gateway:
    """Not started yet; of so many deployments, all at one URL."""
    return Gateway(
        ORIGIN,
        GatewayConfig(listen="127.0.0.1:0", max_in_flight=10_000),
        View(topology(url, rows)),
        SigningKey.generate(),
        nobody,
        lambda text: ("medicine", 1.0),
    )


async def gateway(url: str, rows: int) -> None:
    serving = serving_gateway(url, rows)
    await serving.start()
    print(serving.descriptor().endpoint.rpartition(":")[2], flush=True)
    await asyncio.Event().wait()


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    role, url, rows = sys.argv[1:4]
    if role == "upstream":
        uvloop.run(upstream())
    elif role == "bare":
        bare(url)
    else:
        uvloop.run(gateway(url, int(rows)))


if __name__ == "__main__":
    main()
