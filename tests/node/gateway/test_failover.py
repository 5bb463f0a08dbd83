"""Deployments that fail, hang, break off or are late, and askers that go away."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import aiohttp
import openai
import pytest

from daitn.node.gateway import Gateway
from daitn.objects.queries import QueryRecord, QueryStatus
from daitn.topology.qrrt import state
from tests.node.gateway.scene import (
    DEADLINE_S,
    DIGEST,
    Network,
    client,
    deadlines_pass,
    deployment,
)
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.waiting import until

Servers = tuple[OpenAiServer, ...]
UNHEDGED = {"hedge": False}
"""Else a machine that is slow asks a second replica, where a test tells of one."""
ASK: Any = {"messages": [{"role": "user", "content": "What helps?"}], "max_tokens": 20}
TEXT = "The quick brown fox jumps over the lazy dog."
pytestmark = pytest.mark.processes


def cheap_first(network: Network, *urls: str, **said: Any) -> None:
    """Replicas of one model at `mdf-0`, `mdf-1`, ...; they are preferred in this order."""
    for index, url in enumerate(urls):
        model = deployment("doctor", price_usd_per_1k_out=10.0**index, **said)
        network.facility(f"mdf-{index}", url, model)


async def said_by(gateway: Gateway, **asked: Any) -> tuple[str, str]:
    """The answer's text, and where it was given."""
    raw = await client(gateway).chat.completions.with_raw_response.create(
        model="doctor", **{**ASK, **asked}
    )
    return raw.parse().choices[0].message.content or "", raw.headers["daitn-facility"]


async def raw_stream(gateway: Gateway, **asked: Any) -> bytes:
    """Every byte of a streamed answer."""
    body = json.dumps({"model": "doctor", "stream": True, **ASK, **asked})
    url = f"{gateway.descriptor().endpoint}/v1/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, data=body) as answer:
        assert answer.status == 200
        return await answer.read()


async def ended(gateway: Gateway) -> QueryRecord:
    """The record of the only query, once it is there."""
    await until(lambda: gateway.queries(1))
    return gateway.queries(1)[0]


@pytest.mark.parametrize(
    "trouble",
    [{"fail": 1.0}, {"reset": True}, {"garbage": True}, {"cut_after": 0}],
    ids=["500", "reset", "garbage", "cut"],
)
async def test_the_next_replica_answers_where_one_fails(
    network: Network, servers: Servers, trouble: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "FIRST_PAUSE_S", 3600.0)
    servers[0].control(**trouble)
    cheap_first(network, servers[0].url, servers[1].url)
    gateway = await network.gateway()

    unhedged = {"extra_body": {"daitn": UNHEDGED}}
    assert await said_by(gateway, **unhedged) == (TEXT, "mdf-1")

    record = gateway.queries(1)[0]
    assert (record.status, record.attempts, record.site) == (QueryStatus.ANSWERED, 2, "mdf-1")
    failed = [(site, seen.failed) for site, _, seen in network.seen()]
    assert failed == [("mdf-0", True), ("mdf-1", False)]
    # It is left alone for a while after that.
    assert (await said_by(gateway, **unhedged))[1] == "mdf-1"
    assert gateway.queries(1)[0].attempts == 1


async def test_a_stream_that_ends_before_it_began_is_begun_elsewhere(
    network: Network, servers: Servers
) -> None:
    servers[0].control(cut_after=0)
    cheap_first(network, servers[0].url, servers[1].url)
    gateway = await network.gateway()

    assert b"dog." in await raw_stream(gateway)
    assert gateway.queries(1)[0].site == "mdf-1"


async def test_a_killed_facility_costs_no_query(network: Network, servers: Servers) -> None:
    # It says nothing until all have asked it.
    waiting = {"extra_body": {"daitn": UNHEDGED}}
    with OpenAiServer(hang=True) as killed:
        cheap_first(network, killed.url, servers[1].url)
        gateway = await network.gateway()
        asked = [asyncio.create_task(said_by(gateway, **waiting)) for _ in range(20)]
        await until(lambda: killed.control()["in_flight"] == 20)
        killed.kill()
        answers = await asyncio.gather(*asked)
        after = await said_by(gateway)

    assert answers == [(TEXT, "mdf-1")] * 20
    assert after == (TEXT, "mdf-1")


async def test_a_late_replica_is_overtaken_and_told_to_stop(
    network: Network, servers: Servers
) -> None:
    servers[0].control(hang=True)
    before = servers[0].control()["cancelled"]
    cheap_first(network, servers[0].url, servers[1].url)
    gateway = await network.gateway()

    streamed = await raw_stream(gateway)

    assert b"dog." in streamed
    record = gateway.queries(1)[0]
    assert (record.site, record.attempts, record.hedged) == ("mdf-1", 2, True)
    await until(lambda: servers[0].control()["cancelled"] > before)
    # The topology hears that the late one takes at least as long as it was waited for.
    late = [seen for site, _, seen in network.seen() if site == "mdf-0"]
    assert len(late) == 1
    assert not late[0].failed
    assert late[0].first_token_s is not None
    assert late[0].first_token_s > 0.04


async def test_without_hedging_and_with_a_deadline_a_hanging_replica_is_a_504(
    network: Network, servers: Servers
) -> None:
    servers[0].control(hang=True)
    before = servers[0].control()["cancelled"]
    cheap_first(network, servers[0].url, servers[1].url)
    gateway = await network.gateway()

    wishes = {"hedge": False, "deadline_s": DEADLINE_S}
    asking = asyncio.create_task(said_by(gateway, extra_body={"daitn": wishes}))
    await until(lambda: servers[0].control()["in_flight"])
    deadlines_pass(gateway)
    with pytest.raises(openai.InternalServerError) as late:
        await asking

    assert (late.value.status_code, late.value.code) == (504, "deadline")
    assert gateway.queries(1)[0].status is QueryStatus.FAILED
    await until(lambda: servers[0].control()["cancelled"] > before)


async def test_a_deadline_ends_a_stream_with_an_error(network: Network, servers: Servers) -> None:
    servers[0].control(text="one two", per_token_s=3600)
    cheap_first(network, servers[0].url)
    gateway = await network.gateway()

    body = {"model": "doctor", "stream": True, **ASK, "daitn": {"deadline_s": DEADLINE_S}}
    url = f"{gateway.descriptor().endpoint}/v1/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
        begun = await answer.content.readuntil(b'"content":"one "')
        deadlines_pass(gateway)
        streamed = begun + await answer.read()

    assert b'"content":"one "' in begun
    last = streamed.strip().rpartition(b"\n\n")[2]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "deadline"


async def test_a_deterministic_answer_goes_on_at_a_replica_byte_by_byte(
    network: Network, servers: Servers
) -> None:
    cheap_first(network, servers[0].url, servers[1].url, deterministic=True, manifest=DIGEST)
    gateway = await network.gateway()
    whole = await raw_stream(gateway, temperature=0, daitn=UNHEDGED)
    assert gateway.queries(1)[0].site == "mdf-0"

    servers[0].control(cut_after=4)
    assert await raw_stream(gateway, temperature=0, daitn=UNHEDGED) == whole

    record = gateway.queries(1)[0]
    assert (record.status, record.site, record.attempts) == (QueryStatus.ANSWERED, "mdf-1", 2)
    again = servers[1].control()["last"][-1]
    first = servers[0].control()["last"][-1]
    for header in ("daitn-query", "daitn-asked-at"):
        assert again["headers"][header] == first["headers"][header]


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ({"deterministic": True, "manifest": DIGEST}, {"temperature": 1}),
        ({"deterministic": True}, {"temperature": 0}),
        ({"manifest": DIGEST}, {"temperature": 0}),
    ],
    ids=["sampled", "unknown weights", "not deterministic"],
)
async def test_other_answers_that_break_off_end_with_an_error(
    network: Network, servers: Servers, said: dict[str, Any], asked: dict[str, Any]
) -> None:
    servers[0].control(cut_after=4)
    cheap_first(network, servers[0].url, servers[1].url, **said)
    gateway = await network.gateway()

    stream = await client(gateway).chat.completions.create(
        model="doctor", stream=True, extra_body={"daitn": UNHEDGED}, **ASK, **asked
    )
    chunks, got = aiter(stream), []
    for _ in range(4):
        got.append((await anext(chunks)).choices[0].delta.content)
    with pytest.raises(openai.APIError) as broken:
        await anext(chunks)

    assert got == ["The ", "quick ", "brown ", "fox "]
    assert broken.value.code == "broken_off"
    record = gateway.queries(1)[0]
    assert (record.status, record.site) == (QueryStatus.FAILED, "mdf-0")


async def test_a_replica_that_answers_otherwise_is_not_mixed_in(
    network: Network, servers: Servers
) -> None:
    servers[0].control(cut_after=4)
    servers[1].control(text="The quick red fox jumps over the lazy dog.")
    cheap_first(network, servers[0].url, servers[1].url, deterministic=True, manifest=DIGEST)
    gateway = await network.gateway()

    streamed = await raw_stream(gateway, temperature=0, daitn=UNHEDGED)

    assert b"jumps" not in streamed
    assert b'"error"' in streamed


async def test_the_deployment_is_told_when_the_asker_goes(
    network: Network, servers: Servers
) -> None:
    servers[0].control(text="one two", per_token_s=3600)
    before = servers[0].control()["cancelled"]
    cheap_first(network, servers[0].url)
    gateway = await network.gateway()

    stream = await client(gateway).chat.completions.create(model="doctor", stream=True, **ASK)
    await anext(aiter(stream))
    await stream.close()

    assert (await ended(gateway)).status is QueryStatus.ABANDONED
    await until(lambda: servers[0].control()["cancelled"] > before)
    servers[0].control(per_token_s=0.0)
    assert (await said_by(gateway))[0] == "one two"


async def test_a_full_replica_has_not_failed(network: Network, servers: Servers) -> None:
    async def full(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"error": {"message": "full", "code": "facility_full"}}'
        writer.write(
            b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\nconnection: close\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(full, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    cheap_first(network, url, servers[1].url)
    network.facility("mdf-2", url, deployment("lawyer"))
    gateway = await network.gateway()

    assert (await said_by(gateway))[1] == "mdf-1"
    assert all(not seen.failed for _, _, seen in network.seen())
    with pytest.raises(openai.InternalServerError) as nowhere:
        await client(gateway).chat.completions.create(model="lawyer", **ASK)

    assert nowhere.value.code == "overloaded"
    assert nowhere.value.response.headers["retry-after"] == "7"
    assert gateway.queries(1)[0].status is QueryStatus.SHED
    server.close()


async def test_a_request_that_no_deployment_would_take_is_not_tried_twice(
    network: Network, servers: Servers
) -> None:
    async def picky(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"error": {"message": "too hot", "param": "top_k", "code": "x", "type": "y"}}'
        writer.write(
            b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: %d\r\n"
            b"content-type: application/json\r\n\r\n" % len(body) + body
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(picky, "127.0.0.1", 0)
    cheap_first(network, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", servers[1].url)
    gateway = await network.gateway()

    with pytest.raises(openai.BadRequestError) as refused:
        await said_by(gateway, extra_body={"daitn": UNHEDGED})

    assert refused.value.param == "top_k"
    record = gateway.queries(1)[0]
    assert (record.status, record.attempts) == (QueryStatus.REFUSED, 1)
    assert not any(seen.failed for _, _, seen in network.seen())
    server.close()


async def test_retries_stay_within_a_budget(network: Network, servers: Servers) -> None:
    """Of 150 queries at once that all fail first, the budget lets a hundred and a fifth retry."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    cheap_first(network, f"http://127.0.0.1:{port}", servers[1].url)
    gateway = await network.gateway()
    constraints = {"hedge": False, "prefer": {"cost": 1.0, "latency": 0.0, "accuracy": 0.0}}
    view = network.views["gw"]
    view.observe = lambda site, name, seen: None  # type: ignore[method-assign]

    async def tried() -> bool:
        try:
            await said_by(gateway, extra_body={"daitn": constraints})
        except openai.InternalServerError as error:
            assert error.code == "unavailable"
            return False
        return True

    answered = sum(await asyncio.gather(*(tried() for _ in range(150))))

    assert 100 <= answered <= 130


async def test_a_site_that_cannot_be_reached_is_told_to_the_topology(
    network: Network, servers: Servers
) -> None:
    cheap_first(network, "http://[100::1]:9", servers[1].url)
    gateway = await network.gateway()

    # A hedge would have the answer before the connection is given up.
    answered = await said_by(gateway, extra_body={"daitn": {"hedge": False}})

    assert answered == (TEXT, "mdf-1")
    assert network.views["gw"].broken == {"mdf-0"}
