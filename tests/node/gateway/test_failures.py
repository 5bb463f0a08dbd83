"""What follows from a failure: what the client gets, who else is asked, what is noted, and when."""

from __future__ import annotations

import asyncio
import email.utils
import gzip
import json
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio

from daitn.identity.passes import PassBook
from daitn.node.forwarder.query_client import PacketQueryClient
from daitn.node.gateway import upstream
from daitn.node.serving import server
from daitn.node.serving.backends import openai_server as backend
from daitn.objects.deployments import DeploymentState
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import QueryStatus
from daitn.steering.wire.packet import MOST_PAYLOAD_BYTES
from daitn.tools.throttled import ThrottledLog
from tests.node.gateway.odd_world import Odd, World, ask, opened_world, scene
from tests.node.gateway.scene import DEADLINE_S, client, deadlines_pass, deployment, stuck
from tests.scenes.raw_server import chunked, event, piece, response, whole
from tests.scenes.waiting import until

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]

HELLO: Any = [{"role": "user", "content": "hi"}]
SINGLE = ("whole", "stream", "relay", "relayed stream")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with opened_world(tmp_path_factory.mktemp("failures")) as world:
        yield world


@pytest.fixture(autouse=True)
def not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment whose operator is needed is offered again at once."""
    monkeypatch.setattr(backend, "HELD_S", 0.0)


def error(message: str = "no", **said: Any) -> bytes:
    return json.dumps({"error": {"message": message, **said}}).encode()


def refuses(status: int, body: bytes = b"", **headers: str) -> Odd:
    return Odd(response(body, status, **headers), keeps=True)


async def ready(world: World) -> None:
    """Wait until the odd facility offers its models."""
    await until(lambda: world.sites["odd"].state("m") is DeploymentState.READY)


TOO_LONG = "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens"
CONTEXT_ERRORS = {
    "vLLM's context": (400, error(TOO_LONG, type="BadRequestError", code=400)),
    "OpenAI's context": (400, error("too long", code="context_length_exceeded")),
    "llama.cpp's context": (
        400,
        error(
            "the request exceeds the available context size",
            type="exceed_context_size_error",
            code=400,
        ),
    ),
    "TGI's context": (
        422,
        b'{"error": "`inputs` must have less than 1024 tokens. Given: 3000", "error_type": "x"}',
    ),
    "SGLang's context": (
        400,
        b'{"object": "error", "message": "The input is longer than the model\'s context length."}',
    ),
    "Anthropic's context": (
        400,
        b'{"type": "error", "error": {"type": "invalid_request_error", "message": '
        b'"prompt is too long: 9000 tokens > 4096 maximum"}}',
    ),
    "TEI's context": (413, b'{"error": "`inputs` must have less than 512 tokens. Given: 600"}'),
    "Ollama's context": (500, b'{"error": "the input length exceeds the context length"}'),
}
UNSUITED_ERRORS = {
    **CONTEXT_ERRORS,
    "Ollama's tools": (
        400,
        b'{"error": "registry.ollama.ai/library/x:latest does not support tools"}',
    ),
    "vLLM's tools": (
        400,
        b'{"object": "error", "message": "tool choice requires --enable-auto-tool-choice"}',
    ),
    "llama.cpp's images": (400, error("image input is not supported - hint: provide the mmproj")),
    "vLLM's images": (400, error("m is not a multimodal model")),
    "logprobs": (
        400,
        error("Requested sample logprobs of 30, which is greater than max allowed: 20"),
    ),
    "FastAPI's detail": (400, b'{"detail": "response_format is not supported"}'),
    "too large": (413, b"<html>413 Request Entity Too Large</html>"),
    "another type": (415, b""),
    "not implemented": (501, error("This server does not support embeddings")),
    "legal reasons": (451, error("not here")),
    "a teapot": (418, b""),
}


@pytest.mark.parametrize("mode", [*SINGLE, "hedged", "cascade", "ensemble", "packet"])
@pytest.mark.parametrize("said", UNSUITED_ERRORS.values(), ids=UNSUITED_ERRORS)
async def test_what_one_deployment_cannot_answer_another_may(
    world: World, said: tuple[int, bytes], mode: str
) -> None:
    world.tell(refuses(*said))

    asked = await ask(*await scene(world, mode), mode)

    assert (asked.status, asked.text) == (200, "fine")
    assert not asked.failed


@pytest.mark.parametrize("mode", SINGLE)
@pytest.mark.parametrize("said", UNSUITED_ERRORS.values(), ids=UNSUITED_ERRORS)
async def test_where_none_can_answer_the_client_is_told_why(
    world: World, said: tuple[int, bytes], mode: str
) -> None:
    world.tell(refuses(*said))

    asked = await ask(*await scene(world, mode, alone=True), mode)

    too_long = asked.error["code"] == "context_length_exceeded"
    assert asked.status == (400 if said[0] == 501 or too_long else said[0])
    assert too_long == (said in CONTEXT_ERRORS.values())
    assert asked.error["type"] is not None
    assert "Retry-After" not in asked.headers
    assert (asked.record.status, asked.record.attempts) == (QueryStatus.REFUSED, 1)
    assert not asked.failed


@pytest.mark.parametrize(
    ("words", "max_tokens", "param", "told"),
    [
        (900, 5, "messages", "the context length of the models that may answer is 80 at most"),
        (20, 70, "max_tokens", "an answer of up to 70 exceed the context length"),
    ],
)
async def test_what_exceeds_every_context_is_named_as_openai_does(
    world: World, words: int, max_tokens: int, param: str, told: str
) -> None:
    network, gateway = await scene(world, "whole", alone=True)
    network.facility("odd", world.servers["odd"].url, deployment("m", context_tokens=80))
    network.facility("well", world.servers["well"].url, deployment("m", context_tokens=60))
    said = [{"role": "user", "content": "word " * words}]

    asked = await ask(network, gateway, "whole", messages=said, max_tokens=max_tokens)

    assert (asked.status, asked.error["code"]) == (400, "context_length_exceeded")
    assert asked.error["param"] == param
    assert told in asked.error["message"]
    assert {one["filter"] for one in asked.error["daitn"]["reasons"]} == {"context"}
    assert bool(asked.error["daitn"]["relaxations"]) == (param == "max_tokens")
    assert asked.record.status is QueryStatus.REFUSED


@pytest.mark.parametrize("mode", SINGLE)
@pytest.mark.parametrize(
    "said",
    [
        (400, error("messages[0] has no role", param="messages")),
        (422, error("temperature: too hot")),
        (500, error("Failed to parse messages: Missing 'text'", type="server_error", code=500)),
        (400, b""),
    ],
)
async def test_a_bad_request_is_asked_once(
    world: World, said: tuple[int, bytes], mode: str
) -> None:
    world.tell(refuses(*said))
    before = len(world.servers["odd"].requests)

    asked = await ask(*await scene(world, mode), mode)

    assert asked.status == (400 if said[0] == 500 else said[0])
    assert len(world.servers["odd"].requests) == before + 1
    assert (asked.record.status, asked.record.attempts) == (QueryStatus.REFUSED, 1)
    assert not asked.failed


PERMANENT = {
    "key": (401, error("bad key", code="invalid_api_key")),
    "bill": (402, b""),
    "forbidden": (403, error("no")),
    "model": (404, error("The model `x` does not exist", code="model_not_found")),
    "path": (404, b"<html>"),
    "method": (405, b""),
    "gone": (410, b""),
    "moved": (307, b""),
    "quota": (429, error("You exceeded your current quota", code="insufficient_quota")),
}


@pytest.mark.parametrize("mode", SINGLE)
@pytest.mark.parametrize("said", PERMANENT.values(), ids=PERMANENT)
async def test_what_needs_its_operator_is_no_passing_trouble(
    world: World, said: tuple[int, bytes], mode: str
) -> None:
    await ready(world)
    world.tell(refuses(*said))

    alone = await ask(*await scene(world, mode, alone=True), mode)
    await ready(world)
    beside = await ask(*await scene(world, mode), mode)

    assert (alone.status, alone.error["code"]) == (502, "misconfigured")
    assert "Retry-After" not in alone.headers
    assert alone.headers["x-should-retry"] == "false"
    assert str(said[0]) in alone.error["message"]
    assert (alone.record.status, alone.failed) == (QueryStatus.FAILED, set())
    assert beside.text == "fine"
    assert beside.failed == {"odd"}


@pytest.mark.parametrize("mode", ["cascade", "ensemble"])
async def test_who_refuses_what_others_answer_is_unwell(world: World, mode: str) -> None:
    world.tell(refuses(500, error("CUDA out of memory")))

    asked = await ask(*await scene(world, mode), mode)

    assert asked.text == "fine"
    assert asked.failed == {"odd"}


async def test_a_deployment_whose_key_is_bad_is_not_offered(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await ready(world)
    upstreams = world.sites["odd"].facility._upstreams
    for behind in upstreams.values():
        behind._problems._logged.clear()
    monkeypatch.setattr(backend, "HELD_S", 1e9)
    world.tell(refuses(401, error("bad key")))

    await ask(*await scene(world, "whole", alone=True), "whole")

    state = world.sites["odd"].state("m")
    for behind in upstreams.values():
        behind._held_until_s = 0.0
    await ready(world)
    assert state is DeploymentState.FAILED
    assert "(misconfigured) answered 401" in caplog.text


FULL_HINTS = [
    ({"retry_after": "37"}, b"", 37),
    ({"retry_after_ms": "37000", "retry_after": "99"}, b"", 37),
    ({"retry_after": "at a date"}, b"", 10_000),
    ({"x_ratelimit_reset_requests": "6m0s", "x_ratelimit_remaining_requests": "0"}, b"", 360),
    ({}, error("Rate limit reached. Please try again in 6m0s."), 360),
    ({"content_encoding": "gzip"}, gzip.compress(error("Please try again in 6m0s."), mtime=0), 360),
    ({"x_ratelimit_reset": "in milliseconds"}, b"", 10_000),
    ({"ratelimit": '"default";r=0;t=77'}, b"", 77),
    (
        {},
        error(
            "You exceeded your current quota, please check your plan and billing details.",
            code=429,
            status="RESOURCE_EXHAUSTED",
            details=[{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37s"}],
        ),
        37,
    ),
    ({}, error("slow down", retry_after=12), 12),
    ({}, error("slow down"), 1),
    ({"retry_after": "soon"}, b"", 1),
]


@pytest.mark.parametrize("mode", ["whole", "relayed stream"])
@pytest.mark.parametrize(("headers", "body", "told_s"), FULL_HINTS)
async def test_the_servers_hint_is_passed_on(
    world: World, headers: dict[str, str], body: bytes, told_s: float, mode: str
) -> None:
    if headers.get("retry_after") == "at a date":
        headers = {"retry_after": email.utils.formatdate(time.time() + told_s, usegmt=True)}
    if headers.get("x_ratelimit_reset") == "in milliseconds":
        headers = {"x_ratelimit_reset": str(int((time.time() + told_s) * 1e3))}
    world.tell(refuses(429, body, **headers))

    asked = await ask(*await scene(world, mode, alone=True), mode)

    assert (asked.status, asked.error["code"]) == (503, "overloaded")
    hint_s = float(asked.headers["Retry-After"])
    assert told_s - 60 < hint_s <= told_s + 1 if told_s > 1000 else hint_s == told_s
    assert not asked.failed


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ((400, error(TOO_LONG)), (400, "context_length_exceeded")),
        ((400, error("tools are not supported")), (400, "unsupported")),
        ((401, error("bad key")), (502, "misconfigured")),
        ((422, error("too hot")), (400, "invalid_request")),
        ((500, error("boom")), (503, "unavailable")),
    ],
)
async def test_a_packet_says_whose_fault_it_was(
    world: World, said: tuple[int, bytes], told: tuple[int, str]
) -> None:
    await ready(world)
    world.tell(refuses(*said))

    asked = await ask(*await scene(world, "packet", alone=True), "packet")

    assert (asked.status, asked.error["code"]) == told
    assert ("Retry-After" in asked.headers) == (told[0] == 503)


async def test_a_packet_brings_the_hint_back(world: World) -> None:
    world.tell(refuses(429, retry_after="37"))

    asked = await ask(*await scene(world, "packet", alone=True), "packet")

    assert (asked.status, asked.error["code"]) == (503, "overloaded")
    assert asked.headers["Retry-After"] == "37"


async def test_a_server_that_is_not_ready_says_for_how_long(world: World) -> None:
    world.tell(refuses(503, error("loading"), retry_after="41"))

    asked = await ask(*await scene(world, "whole", alone=True), "whole")

    assert (asked.status, asked.error["code"]) == (503, "unavailable")
    assert asked.headers["Retry-After"] == "41"
    await ready(world)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_within_a_200_follows_the_same_table(world: World, stream: bool) -> None:
    said = {"error": {"message": TOO_LONG, "type": "BadRequestError", "code": 400}}
    world.tell(Odd(chunked(event(said)), response(json.dumps(said).encode())))

    alone = await ask(*await scene(world, "whole", alone=True), "whole", stream=stream)
    beside = await ask(*await scene(world, "whole"), "whole", stream=stream)

    assert (alone.status, alone.error["message"]) == (400, TOO_LONG)
    assert alone.error["code"] == "context_length_exceeded"
    assert beside.text == "fine"
    assert not beside.failed


SLOW = {"message": "slow down,\n\x1b[1mplease" + "!" * 900, "type": "rate_limit_error", "code": 429}


def begun(later: bytes) -> Odd:
    """A stream that says something, and later this."""
    return Odd((chunked(piece("odd"), ends=False), chunked(later).partition(b"\r\n\r\n")[2]))


@pytest.mark.parametrize("mode", ["stream", "relayed stream"])
async def test_the_servers_own_words_end_a_stream(world: World, mode: str) -> None:
    world.tell(begun(event({"error": SLOW})))

    asked = await ask(*await scene(world, mode, alone=True), mode)

    told = asked.error["message"]
    assert asked.error["code"] == "broken_off"
    assert "slow down, \\x1b[1mplease!!!" in told
    assert "rate_limit_error, 429" in told
    assert len(told) < 1000


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", ["overloaded_error", "rate_limit_error", "server_error"])
async def test_the_servers_own_words_come_where_nothing_was_said(
    world: World, kind: str, stream: bool
) -> None:
    said = {"type": "error", "error": {"type": kind, "message": "Overloaded, friend"}}
    world.tell(Odd(chunked(event(said)), response(json.dumps(said).encode())))

    asked = await ask(*await scene(world, "whole", alone=True), "whole", stream=stream)

    assert asked.status == 503
    assert f"Overloaded, friend ({kind})" in asked.error["message"]


@pytest.mark.parametrize("later", [True, False])
async def test_what_is_its_operators_business_is_not_told(world: World, later: bool) -> None:
    said = event({"error": {"message": "Incorrect API key provided: sk-123", "code": 401}})
    world.tell(begun(said) if later else Odd(chunked(said)))

    asked = await ask(*await scene(world, "stream", alone=True), "stream")

    assert "sk-123" not in asked.body.decode()
    await ready(world)


async def test_a_query_has_one_record_whatever_its_client_does(world: World) -> None:
    """Its deadline ends a stream whose client does not read any more, and then the client goes."""
    going = asyncio.Event()

    async def endless(head: bytes, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        writer.write(chunked(piece("x" * 60_000), ends=False))
        while not going.is_set():
            part = piece("x" * 60_000)
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            await writer.drain()
            await asyncio.sleep(0)
        return False

    world.servers["odd"].behave = endless
    network, gateway = await scene(world, "whole", alone=True)
    # Asked directly: the facilities here have a small bound.
    network.facility("odd", world.servers["odd"].url, deployment("m"))
    before = len(gateway.queries(1 << 20))
    host, port = gateway.descriptor().endpoint.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port), limit=1024)
    wishes = {"deadline_s": DEADLINE_S}
    query = {"model": "m", "messages": HELLO, "stream": True, "daitn": wishes}
    body = json.dumps(query).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s"
        % (len(body), body)
    )
    await until(lambda: stuck(gateway))
    deadlines_pass(gateway)
    await until(lambda: len(gateway.queries(1 << 20)) > before)
    writer.transport.abort()
    await until(lambda: gateway._health(ready=False)[1]["in_flight"] == 0)
    going.set()

    (record,) = gateway.queries(len(gateway.queries(1 << 20)) - before)
    assert record.http_status == 504


async def test_an_idle_connections_408_is_answered_over_a_new_one(world: World) -> None:
    served: list[int] = []

    async def behave(head: bytes, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        served.append(1)
        if len(served) == 2:
            writer.write(response(b"", 408, connection="close"))
            return False
        writer.write(response(whole("odd")))
        return True

    world.servers["odd"].behave = behave
    network, gateway = await scene(world, "whole", alone=True)
    await ask(network, gateway, "whole")

    asked = await ask(network, gateway, "whole")

    assert asked.text == "odd"
    assert not asked.failed


async def test_a_query_too_large_for_a_packet_is_told_so(world: World) -> None:
    network, _ = await scene(world, "packet", alone=True)
    packets = PacketQueryClient(world.runtimes["gw"], world.key, {}, "")
    gateway = await network.gateway("wide", packets=packets, max_body_bytes=1 << 23)

    asked = await ask(network, gateway, "packet", pad="x" * MOST_PAYLOAD_BYTES)

    assert (asked.status, asked.error["param"]) == (413, "body")
    assert f"{MOST_PAYLOAD_BYTES} bytes" in asked.error["message"]


BODIES = {
    b"": ("body", "is empty"),
    b"\xef\xbb\xbf": ("body", "is empty"),
    b'{"model": "m"': ("body", "is not valid JSON: expecting ',' delimiter at line 1, column 14"),
    b'{"model": "m", "messages": [{"role": "user", "content": "\\ud83d"}]}': (
        "messages[0].content",
        "has half of a surrogate pair",
    ),
    b'{"model": "m\\ude00", "messages": []}': ("model", "has half of a surrogate pair"),
    b'{"model": "m", "messages": [{"role": "user", "content": "\xff"}]}': (
        "body",
        "is not UTF-8 at byte 57",
    ),
    b'{"model": "m", "temperature": NaN}': ("body", "it has no NaN"),
    b"[" * 100_000: ("body", "is nested too deeply"),
}


@pytest.mark.parametrize("body", BODIES, ids=[why for _, why in BODIES.values()])
async def test_a_body_that_cannot_be_read_is_told_to_a_person(world: World, body: bytes) -> None:
    _, gateway = await scene(world, "whole", alone=True)
    param, why = BODIES[body]

    url = f"{gateway.descriptor().endpoint}/v1/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, data=body) as answer:
        told = (await answer.json())["error"]

    assert (answer.status, told["param"]) == (400, param)
    assert why in told["message"]


async def test_what_other_programs_send_is_read(world: World) -> None:
    world.tell(Odd(response(whole("odd"))))
    _, gateway = await scene(world, "whole", alone=True)
    content: Any = [{"type": "text", "text": "hi"}, {"type": "text", "text": None}]
    plain = {"model": "m", "messages": [{"role": "user", "content": content}]}
    body = b"\xef\xbb\xbf" + json.dumps(plain).encode()

    url = f"{gateway.descriptor().endpoint}/v1/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, data=body) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "fields",
    [{"max_tokens": -1}, {"max_tokens": 0}, {"max_completion_tokens": -1}, {"temperature": 3.5}],
)
async def test_bounds_are_the_models_to_judge(world: World, fields: dict[str, Any]) -> None:
    world.tell(Odd(response(whole("odd"))))

    asked = await ask(*await scene(world, "whole", alone=True), "whole", **fields)

    assert asked.text == "odd"
    sent = world.servers["odd"].requests[-1][1]
    assert {name: sent[name] for name in fields} == fields


async def test_a_coding_that_nobody_knows_is_415(world: World) -> None:
    asked_headers = {"content-encoding": "br"}
    _, gateway = await scene(world, "whole", alone=True)

    async with client(gateway) as asking:
        with pytest.raises(openai.APIStatusError) as unknown:
            await asking.chat.completions.create(
                model="m", messages=HELLO, extra_headers=asked_headers
            )

    assert unknown.value.status_code == 415
    assert unknown.value.param == "content-encoding"


@pytest.mark.parametrize(
    ("ahead_s", "named"),
    [
        (-300.0, "the clock of gw is about 300 s behind that of odd"),
        (300.0, "the clock of gw is about 300 s ahead of that of odd"),
    ],
)
async def test_a_clock_that_is_wrong_is_named_to_all(
    world: World,
    ahead_s: float,
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    network, gateway = await scene(world, "clocks", alone=True)
    monkeypatch.setattr(gateway._upstream, "_not_admitted", ThrottledLog(upstream.log))
    site = world.sites["odd"]
    book = PassBook(SiteId("odd"), lambda holder: network.keys[holder].public)
    admit: Any = site.facility._server._handler
    admit = admit.__self__
    monkeypatch.setattr(admit, "_admit", book.holder)
    monkeypatch.setattr(admit, "_problems", ThrottledLog(server.log))
    wrong = SimpleNamespace(wall_s=lambda: time.time() + ahead_s)
    monkeypatch.setattr(upstream, "clock", wrong)

    asked = await ask(network, gateway, "whole")

    assert (asked.status, asked.error["code"]) == (502, "misconfigured")
    assert named in asked.error["message"]
    assert "Retry-After" not in asked.headers
    assert not asked.failed
    told = [record for record in caplog.records if named in record.getMessage()]
    assert {record.name for record in told} == {upstream.__name__, server.__name__}
