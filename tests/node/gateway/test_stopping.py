"""A gateway that stops, is full, or is left by its clients: what it says, and what it records."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from typing import Any

import aiohttp
import pytest

from daitn.identity.keys import SigningKey
from daitn.identity.passes import sign_pass
from daitn.node.forwarder.query_client import PacketAnswer
from daitn.node.forwarder.query_service import PacketQuestion, PacketReply
from daitn.node.gateway import Gateway
from daitn.node.gateway import gateway as gateway_module
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import QueryIntent, QueryStatus
from daitn.openai.http import DONE
from daitn.tools.http import server_connection
from tests.node.gateway.scene import DEADLINE_S, Network, deadlines_pass, deployment, stuck
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.passing_time import PassingTime
from tests.scenes.raw_server import RawServer, chunked, piece
from tests.scenes.waiting import until

Servers = tuple[OpenAiServer, ...]
CHAT = "/v1/chat/completions"
QUERY = {"model": "doctor", "messages": [{"role": "user", "content": "What helps?"}]}
TEXT = "The quick brown fox jumps over the lazy dog."
pytestmark = pytest.mark.processes


async def asked(
    gateway: Gateway, headers: dict[str, str] | None = None, **body: Any
) -> tuple[int, str, str]:
    """Status, body and header `connection` of a query's answer."""
    url = gateway.descriptor().endpoint + CHAT
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json={**QUERY, **body}, headers=headers) as answer,
    ):
        connection = answer.headers.get("connection", "")
        return answer.status, (await answer.read()).decode(), connection


async def health(gateway: Gateway, path: str) -> tuple[int, list[str]]:
    """Status and problems."""
    url = gateway.descriptor().endpoint + path
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, (await answer.json())["problems"]


class Held:
    """Packets that arrive when they are let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.under_way = 0

    async def ask(self, intent: QueryIntent, question: PacketQuestion) -> tuple[PacketAnswer, ...]:
        self.under_way += 1
        await self.go.wait()
        message = {"role": "assistant", "content": TEXT}
        body = json.dumps({"choices": [{"index": 0, "message": message}]}).encode()
        reply = PacketReply("mdf", "doctor", body)
        return (PacketAnswer(object_id="1", path=("gw", "mdf"), answered=reply),)


KINDS = ("whole", "stream", "packet", "relayed")


async def under_way(
    kind: str, network: Network, gateway: Gateway, server: OpenAiServer, held: Held
) -> asyncio.Task[tuple[int, str, str]]:
    """A query in progress, which the server or the packets hold."""
    headers: dict[str, str] = {}
    body: dict[str, Any] = {"stream": kind != "whole"}
    if kind == "packet":
        body["daitn"] = {"autonomous": True}
    if kind == "relayed":
        key = network.keys[SiteId("other")] = SigningKey.generate()
        headers["daitn-pass"] = sign_pass(SiteId("other"), SiteId("gw"), time.time(), key)
    query = asyncio.create_task(asked(gateway, headers, **body))
    await until(lambda: held.under_way or server.control()["in_flight"])
    return query


@pytest.mark.parametrize("kind", KINDS)
async def test_a_gateway_that_stops_finishes_its_queries_and_takes_no_new_ones(
    network: Network, servers: Servers, kind: str
) -> None:
    servers[0].control(slots=0)
    network.facility("mdf", servers[0].url, deployment("doctor"))
    gateway, held = await network.gateway(), Held()
    gateway._packets = held
    query = await under_way(kind, network, gateway, servers[0], held)
    draining = asyncio.create_task(gateway.drain(60.0))
    await until(lambda: gateway._draining)

    status, said, connection = await asked(gateway)
    assert (status, connection) == (503, "close")
    assert "stopping" in said
    assert await health(gateway, "/readyz") == (503, ["the gateway is stopping"])
    assert (await health(gateway, "/healthz"))[0] == 200
    assert not draining.done()

    held.go.set()
    servers[0].control(slots=9)
    await draining
    status, said, connection = await query
    assert (status, connection) == (200, "close")
    assert "fox" in said
    refused, answered = gateway.queries(9)  # The latest first.
    assert (refused.status, answered.status) == (QueryStatus.FAILED, QueryStatus.ANSWERED)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_takes_too_long_for_a_gateway_that_stops_ends_with_an_error(
    network: Network, servers: Servers, kind: str
) -> None:
    servers[0].control(slots=0)
    network.facility("mdf", servers[0].url, deployment("doctor"))
    gateway, held = await network.gateway(), Held()
    gateway._packets = held
    query = await under_way(kind, network, gateway, servers[0], held)
    await gateway.drain(0.0)
    await gateway.close()

    status, said, _ = await query
    assert (status, json.loads(said)["error"]["code"]) == (503, "unavailable")
    (record,) = gateway.queries(9)
    assert (record.status, record.http_status) == (QueryStatus.FAILED, 503)


@pytest.mark.parametrize("relayed", [False, True])
async def test_a_stream_that_has_begun_is_told_why_it_ends(
    network: Network, servers: Servers, relayed: bool
) -> None:
    servers[0].control(per_token_s=3600.0)
    network.facility("mdf", servers[0].url, deployment("doctor"))
    gateway = await network.gateway()
    headers = {}
    if relayed:
        key = network.keys[SiteId("other")] = SigningKey.generate()
        headers["daitn-pass"] = sign_pass(SiteId("other"), SiteId("gw"), time.time(), key)
    url = gateway.descriptor().endpoint + CHAT
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json={**QUERY, "stream": True}, headers=headers) as answer,
    ):
        assert b"The " in await answer.content.readany()
        await gateway.drain(0.0)
        await gateway.close()
        if relayed:  # The relaying gateway lets others go on with the answer.
            with pytest.raises(aiohttp.ClientError):
                await answer.read()
        else:
            last = (await answer.read()).strip().rpartition(b"data: ")[2]
            assert json.loads(last)["error"]["code"] == "unavailable"
    assert len(gateway.queries(9)) == 1


async def test_a_gateway_is_not_ready_without_deployments_or_when_full(
    network: Network, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await network.gateway(max_in_flight=1)
    assert await health(gateway, "/readyz") == (503, ["no deployment is available"])
    assert await health(gateway, "/healthz") == (200, [])
    servers[0].control(slots=0)
    network.facility("mdf", servers[0].url, deployment("doctor"))
    assert await health(gateway, "/readyz") == (200, [])
    query = asyncio.create_task(asked(gateway))
    await until(lambda: gateway._in_flight)

    status, problems = await health(gateway, "/readyz")
    assert (status, len(problems)) == (503, 1)
    assert "full" in problems[0]
    assert await health(gateway, "/healthz") == (200, [])
    monkeypatch.setattr(gateway_module, "STUCK_AFTER_S", 0.0)
    status, problems = await health(gateway, "/healthz")
    assert status == 503
    assert "none ended" in problems[0]

    servers[0].control(slots=9)
    assert (await query)[0] == 200
    assert await health(gateway, "/readyz") == (200, [])


def deaf(gateway: Gateway, buffer: int = 4096, **body: Any) -> socket.socket:
    """A client that asks and reads nothing, though `buffer` bytes may wait for it."""
    host, port = gateway.descriptor().endpoint.removeprefix("http://").split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.connect((host, int(port)))
    said = json.dumps({**QUERY, **body}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(said)}\r\n\r\n"
    client.sendall(head.encode() + said)
    return client


async def test_clients_that_read_nothing_keep_nobody_out(
    network: Network, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_connection, "WRITE_TIMEOUT_S", 0.2)
    servers[0].control(huge=True, text="x" * 100_000, slots=0)
    network.facility("mdf", servers[0].url, deployment("doctor"))
    gateway = await network.gateway(max_in_flight=3)
    clients = [deaf(gateway, stream=True) for _ in range(3)]
    await until(lambda: gateway._in_flight == 3)
    servers[0].control(slots=9)
    await until(lambda: gateway._in_flight == 0)
    servers[0].control(huge=False, text=TEXT)
    assert (await asked(gateway))[0] == 200
    records = gateway.queries(9)
    assert [one.status for one in records[1:]] == [QueryStatus.ABANDONED] * 3
    for client in clients:
        client.close()


async def test_a_query_that_ends_while_its_client_reads_nothing_counts_once(
    network: Network, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_connection, "WRITE_TIMEOUT_S", 1000.0)
    time_ = PassingTime()
    servers[0].control(huge=True, text="x" * 100_000)
    network.facility("mdf", servers[0].url, deployment("doctor"))
    gateway = await network.gateway()
    counted = []
    monkeypatch.setattr(
        gateway._demand, "count", lambda *arguments: counted.append(arguments), raising=True
    )
    client = deaf(gateway, stream=True, daitn={"deadline_s": DEADLINE_S})
    await until(lambda: stuck(gateway))
    deadlines_pass(gateway)
    await until(lambda: gateway.queries(1))
    time_.passes(1000.0)
    await until(lambda: not gateway._in_flight)
    client.close()
    (record,) = gateway.queries(9)
    assert (record.status, record.http_status) == (QueryStatus.FAILED, 504)
    assert len(counted) == 1


async def test_an_answer_whose_end_waits_for_its_client_is_answered_when_its_deadline_passes(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_connection, "WRITE_TIMEOUT_S", 1000.0)
    time_ = PassingTime()
    large, end = piece("x" * 30_000_000), piece(reason="stop") + DONE
    whole, ends = chunked(large, end), asyncio.Event()
    cut = whole.index(large) + len(large) + len(b"\r\n")

    async def behave(head: bytes, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        writer.write(whole[:cut])
        await ends.wait()
        writer.write(whole[cut:])
        return True

    server = await RawServer(behave).start()
    network.facility("mdf", server.url, deployment("doctor"))
    gateway = await network.gateway()
    client = deaf(gateway, 1 << 20, stream=True, daitn={"deadline_s": DEADLINE_S})
    await until(lambda: stuck(gateway))
    ends.set()
    await until(network.seen)  # It has the end, too.
    time_.passes(DEADLINE_S + 1.0)
    await asyncio.sleep(0.01)
    client.setblocking(False)
    answer, loop = bytearray(), asyncio.get_running_loop()
    while not answer.endswith(b"\r\n0\r\n\r\n"):
        part = await loop.sock_recv(client, 1 << 20)
        assert part
        answer += part
    client.close()
    await server.close()

    assert answer.count(DONE) == 1
    assert b'"error"' not in answer
    (record,) = gateway.queries(9)
    assert (record.status, record.http_status) == (QueryStatus.ANSWERED, 200)
