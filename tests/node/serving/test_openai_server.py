"""A facility before servers that speak OpenAI's API: good, slow, failing and lying ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web

from daitn.node.config import UpstreamConfig
from daitn.node.serving import server as door_bounds
from daitn.node.serving.backends import openai_server as bounds
from daitn.objects.deployments import Api, DeploymentState, ModelPolicy
from daitn.tools.fabric.memory import MemoryNetwork
from tests.node.serving.scene import CHAT, HEADERS, Site
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.passing_time import PassingTime
from tests.scenes.waiting import until

pytestmark = pytest.mark.processes

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
BODY = json.dumps({"model": "doctor", "messages": HELLO}).encode()
STREAM = json.dumps({"model": "doctor", "messages": HELLO, "stream": True}).encode()


def doctor(url: str, **changes: Any) -> UpstreamConfig:
    plain = {"name": "doctor", "url": url, "model": "in-house-7b", "apis": tuple(Api), **changes}
    return UpstreamConfig(**plain)


@asynccontextmanager
async def before(
    url: str, folder: Path, max_answer_bytes: int = 1 << 26, **changes: Any
) -> AsyncIterator[Site]:
    """A facility before the server at `url`."""
    site = Site(
        MemoryNetwork(),
        folder,
        upstreams=(doctor(url, **changes),),
        max_answer_bytes=max_answer_bytes,
        hosts=False,
        recipes=(),
    )
    await site.start()
    try:
        yield site
    finally:
        await site.close()


@pytest.fixture
async def site(server: OpenAiServer, tmp_path: Path) -> AsyncIterator[Site]:
    async with before(server.url, tmp_path, slots=1, queue=1) as site:
        yield site


async def test_every_api_answers_openais_own_client(site: Site, server: OpenAiServer) -> None:
    async with site.client() as client:
        chat = await client.chat.completions.create(model="doctor", messages=HELLO)
        stream = await client.chat.completions.create(
            model="doctor", messages=HELLO, stream=True, logprobs=True
        )
        chunks = [chunk async for chunk in stream]
        plain = await client.completions.create(model="doctor", prompt="hello", max_tokens=3)
        vectors = await client.embeddings.create(model="doctor", input=["a", "bc"])
        models = [model.id async for model in client.models.list()]
    said = "The quick brown fox jumps over the lazy dog."
    assert chat.choices[0].message.content == said
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said
    assert chunks[0].choices[0].logprobs is not None
    assert plain.choices[0].text == said
    assert [len(v.embedding) for v in vectors.data] == [2, 2]
    assert models == ["doctor"]
    # What the server calls its model stays here, and it hears nothing of the network.
    assert {chat.model, plain.model, vectors.model, *(c.model for c in chunks)} == {"doctor"}
    seen = server.control()["last"]
    assert {each["body"]["model"] for each in seen[-4:]} == {"in-house-7b"}
    assert seen[-2]["body"]["max_tokens"] == 3
    assert not [name for each in seen for name in each["headers"] if "daitn" in name.lower()]


async def test_the_servers_key_is_added_here(
    server: OpenAiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.control(key="secret")
    monkeypatch.setenv("DOCTOR_KEY", "secret")
    async with before(server.url, tmp_path, key_env="DOCTOR_KEY") as site:
        assert (await site.ask("doctor")).startswith("The quick")
        monkeypatch.setenv("DOCTOR_KEY", "wrong")
        with pytest.raises(openai.InternalServerError, match="401") as refused:
            await site.ask("doctor")
    assert refused.value.code == "upstream_misconfigured"


async def test_an_answer_tells_what_a_gateway_cannot_see(site: Site, server: OpenAiServer) -> None:
    server.control(first_token_s=0.2, slots=0)
    first = asyncio.create_task(site.post(CHAT, STREAM))
    await until(lambda: server.control()["in_flight"] == 1)
    second = asyncio.create_task(site.post(CHAT, BODY))
    await until(lambda: site.reading.waiting == 1)
    server.control(slots=1)
    assert float((await first)[2]["daitn-first-token-s"]) >= 0.2
    assert float((await second)[2]["daitn-waited-s"]) > 0.0


async def test_who_goes_away_is_not_answered_any_more(site: Site, server: OpenAiServer) -> None:
    server.control(huge=True, per_token_s=0.01)
    async with site.client() as client:
        stream = await client.chat.completions.create(model="doctor", messages=HELLO, stream=True)
        await anext(aiter(stream))
        await stream.close()
        await until(lambda: server.control()["cancelled"] == 1)
        server.control(hang=True)
        waiting = asyncio.create_task(
            client.chat.completions.create(model="doctor", messages=HELLO)
        )
        await until(lambda: server.control()["in_flight"] == 1)
        waiting.cancel()
        await until(lambda: server.control()["cancelled"] == 2)
    await until(lambda: site.reading.in_flight == 0)
    assert (await site.told_anew()).error_share == 0.0


async def test_a_full_queue_turns_away_at_once_and_others_come_in_order(
    site: Site, server: OpenAiServer
) -> None:
    server.control(hang=True)
    served = asyncio.create_task(site.post(CHAT, BODY))
    await until(lambda: server.control()["in_flight"] == 1)
    waiting = asyncio.create_task(site.post(CHAT, BODY))
    # A change of load is told without being asked for.
    await until(lambda: site.reading.waiting == 1)
    assert (site.reading.in_flight, site.reading.waiting) == (1, 1)
    with pytest.raises(openai.RateLimitError) as full:
        await site.ask("doctor")
    assert full.value.code == "facility_full"
    assert int(full.value.response.headers["retry-after"]) >= 1
    # Who waits and goes leaves the place to another.
    waiting.cancel()
    await until(lambda: site.reading.waiting == 0)
    server.control(hang=False)
    next_one = asyncio.create_task(site.post(CHAT, BODY))
    await until(lambda: site.reading.waiting == 1)
    served.cancel()
    assert (await next_one)[0] == 200
    assert server.control()["most_in_flight"] == 1


@pytest.mark.parametrize(
    "fault", [{"fail": 1.0}, {"reset": True}, {"garbage": True}, {"cut_after": 0}]
)
@pytest.mark.parametrize("body", [BODY, STREAM])
async def test_a_server_that_fails_before_it_says_anything_is_a_clean_error(
    site: Site, server: OpenAiServer, fault: dict[str, Any], body: bytes
) -> None:
    if "cut_after" in fault and body is STREAM:
        fault = {"cut_after": 0, "reset": True}
    server.control(**fault)
    status, said, _ = await site.post(CHAT, body)
    error = json.loads(said)["error"]
    code = "upstream_refused" if "fail" in fault else "upstream_failed"
    assert (status, error["code"], error["type"]) == (502, code, "server_error")
    await until(lambda: site.reading.error_share > 0.0)
    server.control(fail=0.0, reset=False, garbage=False, cut_after=-1)
    assert (await site.post(CHAT, body))[0] == 200


@pytest.mark.parametrize("fault", [{"cut_after": 3}, {"huge": True}])
async def test_a_stream_that_breaks_is_not_taken_for_whole(
    server: OpenAiServer, tmp_path: Path, fault: dict[str, Any]
) -> None:
    async with before(server.url, tmp_path, 1 << 16) as site, aiohttp.ClientSession() as session:
        server.control(pauses_after=1, **fault)
        asking = session.post(f"{site.url}{CHAT}", data=STREAM, headers=HEADERS)
        async with asking as answer:
            assert await answer.content.readuntil(b"\n\n")
            server.control(pauses_after=-1)
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        await until(lambda: site.reading.error_share > 0.0)
        await until(lambda: server.control()["in_flight"] == 0)


async def test_a_server_that_falls_silent_is_given_up(
    site: Site, server: OpenAiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "SILENT_TIMEOUT_S", 0.3)
    monkeypatch.setattr(bounds, "WHOLE_TIMEOUT_S", 0.3)
    server.control(hang=True)
    assert (await site.post(CHAT, BODY))[0] == 502
    assert (await site.post(CHAT, STREAM))[0] == 502
    server.control(hang=False, per_token_s=3600.0)
    monkeypatch.setattr(bounds, "SILENT_TIMEOUT_S", 1000.0)
    time_ = PassingTime()
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout()) as session,
        session.post(f"{site.url}{CHAT}", data=STREAM, headers=HEADERS) as answer,
    ):
        assert answer.status == 200
        assert await answer.content.readany()
        time_.passes(1000.0)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    await until(lambda: server.control()["in_flight"] == 0)


async def test_a_server_that_dies_is_told_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bounds, "PROBE_DOWN_S", 0.05)
    caplog.set_level("INFO")
    with OpenAiServer() as server:
        async with before(server.url, tmp_path) as site:
            assert site.state("doctor") is DeploymentState.READY
            changes = site.changes
            server.kill()
            assert (await site.post(CHAT, BODY))[0] == 502
            await until(lambda: site.state("doctor") is DeploymentState.FAILED)
            assert site.changes > changes
            status, _, headers = await site.post(CHAT, BODY)
            assert (status, headers["retry-after"]) == (503, "1")
            server.start()
            await until(lambda: site.state("doctor") is DeploymentState.READY)
            assert (await site.post(CHAT, BODY))[0] == 200
            assert (await site.told_anew()).error_share == 0.0
    told = [text for text in caplog.messages if text.startswith("upstream server doctor at")]
    assert [text.rpartition(": ")[2] for text in told] == [
        "it gets queries",
        "it gets no queries",
        "it gets queries",
    ]
    assert "does not answer" in told[1]


async def test_a_server_that_is_not_there_at_first_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "PROBE_DOWN_S", 0.05)
    server = OpenAiServer()
    server.start()
    server.kill()
    async with before(server.url, tmp_path) as site:
        assert site.state("doctor") is DeploymentState.FAILED
        with server:
            await until(lambda: site.state("doctor") is DeploymentState.READY)


Answers = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def odd_server(answer: Answers) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/v1/{rest:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    await runner.cleanup()


async def test_a_server_that_refuses_to_count_is_asked_without(tmp_path: Path) -> None:
    asked = []

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        if request.method == "GET":
            return web.json_response({"data": []})
        asked.append("stream_options" in body)
        if asked[-1]:
            unknown = {"type": "extra_forbidden", "loc": ["body", "stream_options"]}
            return web.json_response({"detail": [unknown]}, status=422)
        piece = {"delta": {"content": "well"}, "index": 0, "finish_reason": "stop"}
        event = json.dumps({"id": "x", "object": "chat.completion.chunk", "choices": [piece]})
        said = f"data: {event}\n\ndata: [DONE]\n\n"
        return web.Response(text=said, content_type="text/event-stream")

    own = json.dumps({**json.loads(STREAM), "stream_options": {"my_own": 1}}).encode()
    async with odd_server(answer) as url, before(url, tmp_path) as site:
        assert (await site.post(CHAT, own))[0] == 422
        assert asked == [True]
        for _ in range(2):
            status, said, _ = await site.post(CHAT, STREAM)
            assert (status, b"well" in said) == (200, True)
    assert asked == [True, True, False, False]


async def test_what_a_server_says_without_being_asked_to_count_is_its_answer(
    tmp_path: Path,
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        if request.method == "GET":
            return web.json_response({"data": []})
        if "stream_options" in body:
            return web.json_response({"detail": "no stream_options here"}, status=422)
        return web.json_response({"detail": "come back later"}, status=429)

    async with odd_server(answer) as url, before(url, tmp_path) as site:
        status, said, _ = await site.post(CHAT, STREAM)
        assert (status, json.loads(said)["error"]["code"]) == (429, "facility_full")


@pytest.mark.parametrize(
    ("status", "body", "kind", "seen"),
    [
        (200, b"{}", "application/json", (502, "upstream_failed")),
        (200, b'{"choices": 1}', "application/json", (502, "upstream_failed")),
        (200, b'{"error": {"message": "no"}}', "application/json", (502, "upstream_refused")),
        (200, b"[" * 100_000, "application/json", (502, "upstream_failed")),
        (200, b"\xff\xfe", "text/event-stream", (502, "upstream_failed")),
        (302, b"", "text/html", (502, "upstream_misconfigured")),
        (404, b'{"error": {"code": "x"}}', "application/json", (502, "upstream_misconfigured")),
        (503, b'{"error": {"code": "x"}}', "application/json", (503, "unavailable")),
        (429, b"", "text/html", (429, "facility_full")),
        (400, b'{"error": {"code": "too_hot"}}', "application/json", (400, "too_hot")),
        (400, b"<html>too hot</html>", "text/html", (400, "invalid_request")),
    ],
)
async def test_whatever_a_server_answers_an_asker_gets_openais_errors(
    tmp_path: Path, status: int, body: bytes, kind: str, seen: tuple[int, str]
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers={"content-type": kind})

    async with odd_server(answer) as url, before(url, tmp_path) as site:
        got, said, _ = await site.post(CHAT, BODY)
        assert (got, json.loads(said)["error"]["code"]) == seen


async def test_the_name_of_the_model_is_replaced_wherever_the_bytes_are_cut(
    tmp_path: Path,
) -> None:
    text = 'he said "model": "in-house-7b" to me'
    choice = {
        "index": 0,
        "delta": {"content": text, "model": "in-house-7b"},
        "model": "in-house-7b",
    }
    plain = {"object": "chat.completion.chunk", "model": "in-house-7b", "choices": [choice]}
    event = b"data: %s\n\n" % json.dumps(plain).encode()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for position in range(0, len(event), 7):
            await response.write(event[position : position + 7])
            await asyncio.sleep(0)
        await response.write(b'data: {"\\u006dodel":null}\n\ndata: [DONE]')
        return response

    async with odd_server(answer) as url, before(url, tmp_path) as site:
        _, said, _ = await site.post(CHAT, STREAM)
    first, second, done, end = said.split(b"\n\n")
    # Only the answer's own field is replaced.
    assert json.loads(first.removeprefix(b"data: ")) == {**plain, "model": "doctor"}
    assert json.loads(second.removeprefix(b"data: ")) == {**plain, "choices": [], "model": "doctor"}
    assert (done, end) == (b"data: [DONE]", b"")


async def test_only_who_shows_a_pass_and_may_ask_comes_in(
    server: OpenAiServer, tmp_path: Path
) -> None:
    policy = ModelPolicy(askers=("ada", "bob"))
    async with before(server.url, tmp_path, policy=policy, apis=(Api.CHAT,)) as site:
        for headers in ({}, {**HEADERS, "daitn-pass": "forged"}):
            status, said, _ = await site.post(CHAT, BODY, headers)
            assert (status, json.loads(said)["error"]["code"]) == (401, "not_admitted")
        status, said, _ = await site.post(CHAT, BODY, {**HEADERS, "daitn-owner": "eve"})
        assert (status, json.loads(said)["error"]["code"]) == (403, "not_allowed")
        assert (await site.post(CHAT, BODY))[0] == 200
        async with site.client() as client:
            with pytest.raises(openai.BadRequestError, match="does not answer embeddings"):
                await client.embeddings.create(model="doctor", input="a")
            with pytest.raises(openai.NotFoundError, match="no model nurse"):
                await client.chat.completions.create(model="nurse", messages=HELLO)
            with pytest.raises(openai.NotFoundError, match="nothing is served at"):
                await client.moderations.create(input="a")
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{site.url}/healthz") as health,
            session.get(f"{site.url}{CHAT}", headers=HEADERS) as wrong,
        ):
            assert (health.status, wrong.status) == (200, 405)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", "body"),
        (b"\xff{", "body"),
        (b"[]", "body"),
        (b'{"model": "doctor"', "body"),
        (b"[" * 100_000, "body"),
        (b'{"model": 7}', "model"),
        (b'{"messages": []}', "model"),
        (b'{"model": ""}', "model"),
        (b'{"model": "doctor", "stream": "yes"}', "stream"),
    ],
)
async def test_a_malformed_request_is_told_by_its_field(
    site: Site, server: OpenAiServer, body: bytes, param: str
) -> None:
    asked = server.control()["requests"]
    status, said, _ = await site.post(CHAT, body)
    error = json.loads(said)["error"]
    assert (status, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert server.control()["requests"] == asked


async def test_a_body_without_end_is_not_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_bounds, "MAX_BODY_BYTES", 1 << 20)

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * (1 << 16)

    assert (await site.post(CHAT, b"x" * (2 << 20)))[0] == 413
    url = f"{site.url}{CHAT}"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=parts(), headers=HEADERS) as answer,
    ):
        assert answer.status == 413
