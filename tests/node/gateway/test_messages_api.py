"""Anthropic's Messages API, as its own client and plain HTTP see it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anthropic
import pytest
import pytest_asyncio

from daitn.node.config import KeyConfig
from daitn.node.gateway import Gateway
from daitn.objects.queries import QueryStatus
from tests.node.gateway.odd_world import MODES, Odd, World, opened_world, scene
from tests.node.gateway.scene import Network, deployment
from tests.scenes.plain_http import plain_http
from tests.scenes.raw_server import chunked, event, piece, response, whole
from tests.scenes.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]

DONE = b"data: [DONE]\n\n"
ASK: Any = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
ALONE: Any = {"extra_body": {"daitn": {"hedge": False}}}
WEATHER: Any = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
PICTURE = "iVBORw0KGgo="


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with opened_world(tmp_path_factory.mktemp("messages")) as world:
        yield world


def client(gateway: Gateway, key: str = "none") -> anthropic.AsyncAnthropic:
    """Anthropic's own client; it does not retry, so that tests see what the gateway does."""
    return anthropic.AsyncAnthropic(
        base_url=gateway.descriptor().endpoint,
        api_key=key,
        max_retries=0,
        http_client=plain_http(),
    )


def says(message: dict[str, Any], reason: str = "stop", **choice: Any) -> Odd:
    """A server whose whole answer is this message, and whose stream has it in one piece."""
    said = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    return Odd(
        chunked(piece(delta=message) + piece(reason=reason, **choice) + DONE),
        response(whole(choices=[{**said, **choice}])),
        keeps=True,
    )


async def lone(world: World, odd: Odd) -> tuple[Network, Gateway]:
    """A gateway that knows the odd server alone."""
    world.tell(odd)
    world.servers["odd"].requests.clear()
    return await scene(world, "whole", alone=True)


def sent(world: World) -> dict[str, Any]:
    """What the server was asked last."""
    return world.servers["odd"].requests[-1][1]


@pytest.mark.parametrize("mode", MODES)
async def test_it_is_answered_in_every_way_in_which_a_chat_is(world: World, mode: str) -> None:
    failing = b'{"error": {"message": "down"}}'
    world.tell(Odd(response(failing, status=500)))
    _, gateway = await scene(world, mode)
    wishes: dict[str, Any] = {"hedge": mode == "hedged"}
    named = {**ASK}
    if mode in ("cascade", "ensemble"):
        named["model"] = "auto"
        wishes |= {"strategy": mode, "topic": "medicine"}
    if mode == "cascade":
        wishes |= {"min_accuracy": 0.9, "escalate_below": 0.0}
    if mode == "packet":
        wishes |= {"autonomous": True, "deadline_s": 60.0}
    before = len(gateway.queries(1 << 20))

    async with client(gateway).messages.stream(**named, extra_body={"daitn": wishes}) as stream:
        streamed = await stream.get_final_message()
    answered = await client(gateway).messages.create(**named, extra_body={"daitn": wishes})

    for message in (streamed, answered):
        assert [getattr(block, "text", None) for block in message.content] == ["fine"]
        assert message.stop_reason == "end_turn"
        assert message.usage.output_tokens == 2
        assert message.usage.input_tokens == 5
    await until(lambda: len(gateway.queries(1 << 20)) == before + 2)
    for record in gateway.queries(2):
        assert record.status is QueryStatus.ANSWERED
        assert record.tokens_out >= 2


async def test_what_is_asked_reaches_the_model_as_a_chat(world: World) -> None:
    _, gateway = await lone(world, says({"content": "fine"}))
    picture = {"type": "base64", "media_type": "image/png", "data": PICTURE}

    await client(gateway).messages.create(
        model="m",
        max_tokens=50,
        system=[
            {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "Be kind."},
        ],
        messages=[
            {"role": "user", "content": "What is the weather?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "x"},
                    {"type": "text", "text": "I ask."},
                    {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Ö"}},
                    {"type": "tool_use", "id": "t2", "name": "weather", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "mild"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "t2",
                        "is_error": True,
                        "content": [{"type": "text", "text": "no city"}],
                    },
                    {"type": "text", "text": "And?"},
                ],
            },
            {"role": "user", "content": "Well?"},
        ],
        tools=[WEATHER],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        stop_sequences=["END"],
        metadata={"user_id": "u"},
        thinking={"type": "adaptive"},
        # The newest client has lost the first two, and older ones send them.
        extra_body={"temperature": 0.5, "top_k": 5, "seed": 7},
    )

    body = sent(world)
    assert body["messages"] == [
        {"role": "system", "content": "Be brief.\nBe kind."},
        {"role": "user", "content": "What is the weather?"},
        {
            "role": "assistant",
            "content": "I ask.",
            "tool_calls": [
                _call("t1", "weather", '{"city":"Ö"}'),
                _call("t2", "weather", "{}"),
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "mild"},
        {"role": "tool", "tool_call_id": "t2", "content": "Error: no city"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "And?"}, {"type": "text", "text": "Well?"}],
        },
    ]
    function = {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": WEATHER["input_schema"],
    }
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == "required"
    assert body["parallel_tool_calls"] is False
    assert body["stop"] == ["END"]
    assert (body["temperature"], body["top_k"], body["seed"]) == (0.5, 5, 7)
    assert not {"metadata", "thinking", "system", "reasoning_effort"} & body.keys()

    with pytest.raises(anthropic.BadRequestError, match="reads"):
        # The server reads text only: a picture is a need like that of a chat.
        await client(gateway).messages.create(
            **{
                **ASK,
                "messages": [{"role": "user", "content": [{"type": "image", "source": picture}]}],
            }
        )


def _call(id_: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


CALLS = [{"index": 0, **_call("t1", "weather", '{"city": "Oslo"}')}]


@pytest.mark.parametrize(
    ("odd", "thinking", "blocks", "reason"),
    [
        (says({"content": "fine"}), None, [("text", "fine")], "end_turn"),
        (says({"content": "fi"}, "length"), None, [("text", "fi")], "max_tokens"),
        (says({"content": "no"}, "content_filter"), None, [("text", "no")], "refusal"),
        (says({"refusal": "I must not."}), None, [("text", "I must not.")], "refusal"),
        (
            says({"content": "a"}, stop_reason="END"),
            None,
            [("text", "a")],
            "stop_sequence",
        ),
        (
            says({"content": "Let me see.", "tool_calls": CALLS}, "tool_calls"),
            None,
            [("text", "Let me see."), ("tool_use", {"city": "Oslo"})],
            "tool_use",
        ),
        (
            says({"content": None, "tool_calls": CALLS}, "stop"),
            None,
            [("tool_use", {"city": "Oslo"})],
            "tool_use",
        ),
        (
            says({"content": "42", "reasoning_content": "hm"}),
            {"type": "enabled", "budget_tokens": 6000},
            [("thinking", "hm"), ("text", "42")],
            "end_turn",
        ),
        (
            says({"content": "42", "reasoning": "hm"}),
            {"type": "adaptive"},
            [("thinking", "hm"), ("text", "42")],
            "end_turn",
        ),
        (says({"content": "42", "reasoning": "hm"}), None, [("text", "42")], "end_turn"),
    ],
)
async def test_what_a_model_says_becomes_blocks(
    world: World, odd: Odd, thinking: Any, blocks: list[tuple[str, Any]], reason: str
) -> None:
    _, gateway = await lone(world, odd)
    named = {**ASK, **ALONE} if thinking is None else {**ASK, **ALONE, "thinking": thinking}

    async with client(gateway).messages.stream(**named) as stream:
        streamed = await stream.get_final_message()
    answered = await client(gateway).messages.create(**named)

    for message in (streamed, answered):
        said = [
            (block.type, getattr(block, {"tool_use": "input"}.get(block.type, block.type)))
            for block in message.content
        ]
        assert said == blocks
        assert message.stop_reason == reason
        assert message.stop_sequence == ("END" if reason == "stop_sequence" else None)
        assert message.model == "m"
        assert message.id.startswith("msg_")
    if thinking is not None and thinking["type"] == "enabled":
        assert sent(world)["reasoning_effort"] == "medium"


USED: Any = {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}


@pytest.mark.parametrize(
    ("last", "goes_on"),
    [
        ({"role": "assistant", "content": "The"}, True),
        ({"role": "assistant", "content": [{"type": "text", "text": "I ask."}, USED]}, False),
        ({"role": "assistant", "content": [USED]}, False),
        ({"role": "user", "content": "Well?"}, False),
        ({"role": "user", "content": []}, False),
    ],
)
async def test_a_model_goes_on_with_what_an_assistant_began(
    world: World, last: dict[str, Any], goes_on: bool
) -> None:
    _, gateway = await lone(world, says({"content": "fine"}))

    await post(gateway, {**ASK, "messages": [*ASK["messages"], last]})

    assert (sent(world).get("continue_final_message") is True) == goes_on
    assert (sent(world).get("add_generation_prompt") is False) == goes_on


def _part(index: int, arguments: str, **call: Any) -> bytes:
    said = {"index": index, "function": {"arguments": arguments, **call.pop("function", {})}}
    return piece(delta={"tool_calls": [{**said, **call}]})


def _begins(index: int, id_: str, arguments: str = "") -> bytes:
    return _part(index, arguments, id=id_, function={"name": f"f{id_}"})


@pytest.mark.parametrize(
    "parts",
    [
        [_begins(0, "a"), _part(0, '{"x"'), _part(0, ": 1}"), _begins(1, "b", '{"y": 2}')],
        [_begins(0, "a"), _begins(1, "b"), _part(0, '{"x": 1}'), _part(1, '{"y": 2}')],
        [_begins(0, "a", "{"), _begins(1, "b", '{"y"'), _part(0, '"x": 1}'), _part(1, ": 2}")],
        [_begins(0, "a", '{"x": 1}'), _begins(0, "b", '{"y": 2}')],
        [_begins(0, "a", "{"), _begins(1, "b", '{"y": 2}'), _part(0, '"x": 1'), _part(0, "}")],
    ],
    ids=["in turn", "alternating", "cut alternating", "all numbered 0", "late end"],
)
async def test_calls_are_kept_apart(world: World, parts: list[bytes]) -> None:
    ends = [piece(reason="tool_calls"), DONE]
    _, gateway = await lone(world, Odd(chunked(*parts, *ends), keeps=True))

    async with client(gateway).messages.stream(**ASK, **ALONE) as stream:
        events = [event async for event in stream]
        message = await stream.get_final_message()

    called = [(b.id, b.name, b.input) for b in message.content if b.type == "tool_use"]
    assert called == [("a", "fa", {"x": 1}), ("b", "fb", {"y": 2})]
    open_ = None
    for said in events:
        if said.type == "content_block_start":
            assert open_ is None
            open_ = said.index
        elif said.type == "content_block_delta":
            assert said.index == open_
        elif said.type == "content_block_stop":
            assert said.index == open_
            open_ = None
    assert open_ is None


async def test_a_stream_has_the_events_that_the_api_names(world: World) -> None:
    counts = {"prompt_tokens": 9, "completion_tokens": 3}
    counts = {**counts, "prompt_tokens_details": {"cached_tokens": 4}}  # type: ignore[dict-item]
    parts = [
        piece("One "),
        b": still here\n\n",
        piece("two"),
        piece(reason="stop"),
        event({"choices": [], "usage": counts}),
    ]
    _, gateway = await lone(world, Odd(chunked(*parts, DONE), keeps=True))

    status, headers, body = await post(gateway, {**ASK, "stream": True})

    assert (status, headers["content-type"]) == (200, "text/event-stream")
    assert headers["daitn-facility"] == "odd"
    blocks = [block.split(b"\n") for block in body.removesuffix(b"\n\n").split(b"\n\n")]
    said = [json.loads(data.removeprefix(b"data: ")) for _, data in blocks]
    assert [name.decode() for name, _ in blocks] == [f"event: {one['type']}" for one in said]
    assert [one["type"] for one in said] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "ping",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert said[0]["message"]["usage"]["output_tokens"] == 0
    usage = said[-2]["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (5, 4)
    assert usage["output_tokens"] == 3
    assert sent(world)["stream_options"] == {"include_usage": True}


async def test_pieces_come_as_they_are_made(world: World) -> None:
    _, gateway = await lone(world, Odd(chunked(piece("One "), ends=False)))
    later = asyncio.Event()

    async def behave(head: bytes, body: Any, writer: asyncio.StreamWriter) -> bool:
        writer.write(chunked(piece("One "), ends=False))
        await later.wait()
        writer.write(chunked(piece(reason="stop"), DONE).partition(b"\r\n\r\n")[2])
        return True

    world.servers["odd"].behave = behave
    async with client(gateway).messages.stream(**ASK, **ALONE) as stream:
        texts = stream.text_stream
        assert await asyncio.wait_for(anext(texts), PATIENCE_S) == "One "
        later.set()
        assert [text async for text in texts] == []


async def test_a_stream_that_breaks_off_says_so(world: World) -> None:
    _, gateway = await lone(world, Odd(chunked(piece("One "), ends=False)))

    status, _, body = await post(gateway, {**ASK, "stream": True})

    assert status == 200
    *_, last = body.removesuffix(b"\n\n").split(b"\n\n")
    name, data = last.split(b"\n")
    assert name == b"event: error"
    error = json.loads(data.removeprefix(b"data: "))
    assert (error["type"], error["error"]["type"]) == ("error", "api_error")
    assert b"message_stop" not in body
    with pytest.raises(anthropic.APIStatusError, match="odd"):
        async with client(gateway).messages.stream(**ASK, **ALONE) as stream:
            await stream.get_final_message()


async def test_arguments_that_are_no_json_are_not_lost(world: World) -> None:
    calls = [{"index": 0, **_call("t1", "weather", '{"city": ')}]
    _, gateway = await lone(world, says({"tool_calls": calls}, "tool_calls"))

    message = await client(gateway).messages.create(**ASK, **ALONE)

    assert message.content[0].type == "tool_use"
    assert message.content[0].input == {"INVALID_JSON": '{"city": '}


async def test_tokens_are_counted(world: World) -> None:
    _, gateway = await lone(world, says({"content": "fine"}))
    ask = client(gateway).messages

    few = await ask.count_tokens(model="m", messages=ASK["messages"])
    more = await ask.count_tokens(
        model="m", messages=ASK["messages"], system="word " * 200, tools=[WEATHER]
    )

    assert 1 <= few.input_tokens < 20
    assert 250 < more.input_tokens < 400
    assert not world.servers["odd"].requests


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [{"type": "odd"}]}]}, "messages[0].content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
        "messages[0].content[0]",
    ),
    (
        {
            "messages": [
                {"role": "assistant", "content": [{"type": "tool_result", "tool_use_id": "x"}]}
            ]
        },
        "messages[0].content[0]",
    ),
    *(
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": kind, "source": {"type": where, **of}}]}
                ]
            },
            "messages[0].content[0].source: this network",
        )
        for kind, where, of in (
            ("document", "url", {"url": "https://x/y.pdf"}),
            ("document", "file", {"file_id": "f"}),
            ("image", "file", {"file_id": "f"}),
        )
    ),
    (
        {"messages": [{"role": "system", "content": [{"type": "redacted_thinking"}]}]},
        "messages[0].content[0]",
    ),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
    ({"tool_choice": {"type": "perhaps"}}, "tool_choice.type"),
    ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    ({"thinking": {"type": "much"}}, "thinking.type"),
    ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
    ({"container": "x"}, "container"),
    ({"inference_geo": "us"}, "inference_geo"),
    ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "edits[0]"),
    ({"stop_sequences": "END"}, "stop_sequences"),
    ({"temperature": "hot"}, "temperature"),
]


@pytest.mark.parametrize(("changes", "named"), REFUSED, ids=[named for _, named in REFUSED])
async def test_what_cannot_be_asked_is_refused_by_name(
    world: World, changes: dict[str, Any], named: str
) -> None:
    _, gateway = await lone(world, says({"content": "fine"}))

    status, _, body = await post(gateway, {**ASK, **changes})

    error = json.loads(body)
    assert (status, error["type"]) == (400, "error")
    assert error["error"]["type"] == "invalid_request_error"
    assert named in error["error"]["message"]
    assert not world.servers["odd"].requests


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"model": "m"}', b"\xff{}"])
async def test_bodies_of_no_request_are_refused(world: World, body: bytes) -> None:
    _, gateway = await lone(world, says({"content": "fine"}))

    status, _, answer = await post(gateway, body)

    assert status == 400
    assert json.loads(answer)["error"]["type"] == "invalid_request_error"


async def test_errors_are_those_of_the_api(world: World) -> None:
    _, gateway = await lone(world, says({"content": "fine"}))
    ask = client(gateway)

    with pytest.raises(anthropic.NotFoundError) as unknown:
        await ask.messages.create(**{**ASK, "model": "nobody"})
    with pytest.raises(anthropic.BadRequestError) as infeasible:
        await ask.messages.create(**ASK, extra_body={"daitn": {"min_accuracy": 0.99}})
    with pytest.raises(anthropic.NotFoundError):
        await ask.messages.batches.list()
    with pytest.raises(anthropic.BadRequestError, match="2023-06-01"):
        await ask.messages.create(**ASK, extra_headers={"anthropic-version": "2023-01-01"})

    assert unknown.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    assert unknown.value.request_id
    assert infeasible.value.body["error"]["daitn"]["reasons"]  # type: ignore[index]
    url = f"{gateway.descriptor().endpoint}/v1/messages"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 405
        assert (await answer.json())["type"] == "error"


@pytest.mark.parametrize(
    ("exceeded", "told"),
    [
        (
            {"message": "the prompt has 9 tokens", "code": "context_length_exceeded"},
            "prompt is too long: the prompt has 9 tokens",
        ),
        (
            {"message": "this model's maximum context length is 3 tokens; shorten it"},
            "prompt is too long: 4 tokens > 3 maximum",
        ),
        (
            {
                "message": "This model's maximum context length is 4096 tokens. However, you "
                "requested 9000 tokens (8000 in the messages, 1000 in the completion).",
                "code": 400,
            },
            "prompt is too long: 8000 tokens > 4096 maximum",
        ),
        (
            {
                "message": "request (9000 tokens) exceeds the available context size (4096 tokens)",
                "type": "exceed_context_size_error",
                "code": 400,
            },
            "prompt is too long: 9000 tokens > 4096 maximum",
        ),
        (
            {"message": "`inputs` must have less than 1024 tokens. Given: 3000"},
            "prompt is too long: 3000 tokens > 1024 maximum",
        ),
        (
            {
                "message": "'max_tokens' is too large: 100. This model's maximum context length is "
                "50 tokens and your request has 10 input tokens (100 > 50 - 10).",
                "code": 400,
            },
            "input length and `max_tokens` exceed context limit: 10 + 100 > 50, decrease input "
            "length or `max_tokens` and try again",
        ),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_model_too_small_for_the_prompt_is_said_in_known_words(
    world: World, exceeded: dict[str, Any], told: str, stream: bool
) -> None:
    refused = response(json.dumps({"error": exceeded}).encode(), status=400)
    _, gateway = await lone(world, Odd(refused, keeps=True))

    with pytest.raises(anthropic.BadRequestError) as refusal:
        await client(gateway).messages.create(**ASK, **ALONE, stream=stream)

    assert refusal.value.body["error"]["message"] == told  # type: ignore[index]


@pytest.mark.parametrize(
    ("words", "max_tokens", "told"),
    [
        (900, 5, r"prompt is too long: \d+ tokens > 80 maximum"),
        (20, 70, r"input length and `max_tokens` exceed context limit: \d+ \+ 70 > 80, decrease"),
    ],
)
async def test_a_network_too_small_for_the_prompt_is_said_in_known_words(
    world: World, words: int, max_tokens: int, told: str
) -> None:
    network, gateway = await lone(world, says({"content": "fine"}))
    network.facility("odd", world.servers["odd"].url, deployment("m", context_tokens=80))
    said: Any = [{"role": "user", "content": "word " * words}]

    with pytest.raises(anthropic.BadRequestError, match=told):
        await client(gateway).messages.create(
            model="m", max_tokens=max_tokens, messages=said, **ALONE
        )


async def test_a_field_that_the_model_refuses_has_its_own_name(world: World) -> None:
    refused = {"message": "stop: too many", "param": "stop", "code": "invalid_request"}
    odd = response(json.dumps({"error": refused}).encode(), status=400)
    _, gateway = await lone(world, Odd(odd, keeps=True))

    with pytest.raises(anthropic.BadRequestError) as told:
        await client(gateway).messages.create(**{**ASK, "stop_sequences": ["a"] * 9}, **ALONE)

    assert "stop_sequences" in told.value.body["error"]["message"]  # type: ignore[index]


async def test_a_full_gateway_says_when_to_come_back(world: World) -> None:
    network, _ = await lone(world, says({"content": "fine"}))
    full = await network.gateway("full", max_in_flight=1)
    begun = asyncio.Event()

    async def behave(head: bytes, body: Any, writer: asyncio.StreamWriter) -> bool:
        begun.set()
        await asyncio.Event().wait()
        return False

    world.servers["odd"].behave = behave
    first = asyncio.create_task(client(full).messages.create(**ASK, **ALONE))
    async with asyncio.timeout(PATIENCE_S):
        await begun.wait()
    with pytest.raises(anthropic.APIStatusError) as shed:
        await client(full).messages.create(**ASK)
    first.cancel()

    assert shed.value.status_code == 529
    assert shed.value.body["error"]["type"] == "overloaded_error"  # type: ignore[index]
    assert float(shed.value.response.headers["retry-after"]) >= 1


async def test_keys_come_in_either_header(world: World) -> None:
    network, _ = await lone(world, says({"content": "fine"}))
    digest = hashlib.sha256(b"secret").hexdigest()
    keys = (KeyConfig(owner="ann", sha256=digest, per_s=1e-9, burst=3),)
    keyed = await network.gateway("keyed", keys=keys)

    await client(keyed, "secret").messages.create(**ASK, **ALONE)
    bearer = anthropic.AsyncAnthropic(
        base_url=keyed.descriptor().endpoint, auth_token="secret", max_retries=0
    )
    await bearer.messages.create(**ASK, **ALONE)
    models = await bearer.models.list()
    with pytest.raises(anthropic.AuthenticationError) as unknown:
        await client(keyed, "wrong").messages.create(**ASK)
    with pytest.raises(anthropic.RateLimitError) as over:
        await client(keyed, "secret").messages.create(**ASK)

    assert [model.id for model in models.data] == ["auto", "m"]
    assert unknown.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
    assert over.value.body["error"]["type"] == "rate_limit_error"  # type: ignore[index]
    assert int(over.value.response.headers["retry-after"]) > 1
    assert [record.owner for record in keyed.queries(2)] == ["ann", "ann"]


async def post(gateway: Gateway, body: Any) -> tuple[int, dict[str, str], bytes]:
    """A plain request: status, headers and body."""
    url = f"{gateway.descriptor().endpoint}/v1/messages"
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with aiohttp.ClientSession() as session, session.post(url, data=data) as answer:
        named = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, named, await answer.read()
