"""OpenAI's Responses API, as its own client and plain HTTP see it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio

from daitn.node.gateway import Gateway
from daitn.objects.abilities import Abilities, Reads
from daitn.objects.queries import QueryStatus
from tests.node.gateway.odd_world import MODES, Odd, World, opened_world, scene
from tests.node.gateway.scene import client, deployment
from tests.node.gateway.test_messages_api import ALONE, CALLS, lone, says, sent
from tests.scenes.raw_server import chunked, piece, response, whole
from tests.scenes.waiting import until

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]

ASK: Any = {"model": "m", "input": "hi"}
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with opened_world(tmp_path_factory.mktemp("responses")) as world:
        yield world


@pytest.mark.parametrize("mode", MODES)
async def test_it_is_answered_in_every_way_in_which_a_chat_is(world: World, mode: str) -> None:
    world.tell(Odd(response(b'{"error": {"message": "down"}}', status=500)))
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

    ask = client(gateway).responses
    async with ask.stream(**named, extra_body={"daitn": wishes}) as stream:
        streamed = await stream.get_final_response()
    answered = await ask.create(**named, extra_body={"daitn": wishes})

    for answer in (streamed, answered):
        assert answer.output_text == "fine"
        assert answer.status == "completed"
        assert answer.usage is not None
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 2)
    await until(lambda: len(gateway.queries(1 << 20)) == before + 2)
    assert {record.status for record in gateway.queries(2)} == {QueryStatus.ANSWERED}


async def test_what_is_asked_reaches_the_model_as_a_chat(world: World) -> None:
    _, gateway = await lone(world, says({"content": "fine"}))

    said: list[Any] = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "type": "reasoning",
            "id": "rs_2",
            "summary": [{"type": "summary_text", "text": "so"}],
            "content": [{"type": "reasoning_text", "text": "hm"}, {"type": "of tomorrow"}],
            "encrypted_content": "gAAAA",
        },
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I ask.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "t1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "t1", "output": "mild"},
    ]

    await client(gateway).responses.create(
        model="m",
        instructions="Be brief.",
        input=said,
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "weather"},
        max_output_tokens=50,
        temperature=0.5,
        parallel_tool_calls=False,
        store=False,
        metadata={"a": "b"},
        text={
            "format": {
                "type": "json_schema",
                "name": "x",
                "description": "What is known.",
                "schema": {"type": "object"},
            },
        },
        extra_body={"seed": 7},
    )

    body = sent(world)
    function = {"name": "weather", "arguments": "{}"}
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
        {
            "role": "assistant",
            "content": "I ask.",
            "tool_calls": [{"id": "t1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "mild"},
    ]
    assert body["tools"][0]["function"]["name"] == "weather"
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (50, 0.5, 7)
    assert body["parallel_tool_calls"] is False
    assert body["response_format"]["json_schema"]["name"] == "x"
    assert body["response_format"]["json_schema"]["description"] == "What is known."
    assert not {"store", "metadata", "input", "instructions", "text"} & body.keys()


async def test_the_results_of_tools_come_before_what_else_they_showed(world: World) -> None:
    network, gateway = await lone(world, says({"content": "fine"}))
    seeing = Abilities(reads=(Reads.TEXT, Reads.IMAGE), tools=True)
    network.facility("odd", world.servers["odd"].url, deployment("m", abilities=seeing))
    shown: Any = [
        {"type": "input_text", "text": "a map"},
        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="},
    ]
    calls: Any = [
        {"type": "function_call", "call_id": id_, "name": "look", "arguments": "{}"}
        for id_ in ("t1", "t2")
    ]

    await client(gateway).responses.create(
        model="m",
        input=[
            {"role": "user", "content": "Look."},
            *calls,
            {"type": "function_call_output", "call_id": "t1", "output": shown},
            {"role": "user", "content": "And?"},
            {"type": "function_call_output", "call_id": "t2", "output": "none"},
        ],
    )

    roles = [message["role"] for message in sent(world)["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "user", "user"]
    *_, first, second, picture, text = sent(world)["messages"]
    assert (first["content"], second["content"]) == ("a map", "none")
    assert picture["content"][0]["type"] == "image_url"
    assert text["content"] == "And?"


TOKENS = [
    {
        "token": token,
        "logprob": -0.5,
        "bytes": [*token.encode()],
        "top_logprobs": [{"token": token, "logprob": -0.5, "bytes": [*token.encode()]}],
    }
    for token in ("fi", "ne")
]
INCLUDED = "message.output_text.logprobs"


@pytest.mark.parametrize(
    ("asked", "sent_"),
    [
        ({"include": [INCLUDED]}, {"logprobs": True}),
        ({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"include": [INCLUDED], "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"include": ["reasoning.encrypted_content"], "top_logprobs": 0}, {}),
    ],
)
async def test_what_tokens_are_likely_is_told_where_it_is_asked(
    world: World, asked: Any, sent_: dict[str, Any]
) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "fine"}}
    whole_ = whole(choices=[{**choice, "finish_reason": "stop", "logprobs": {"content": TOKENS}}])
    parts = [piece(one["token"], logprobs={"content": [one]}) for one in TOKENS]  # type: ignore[arg-type]
    ended = chunked(*parts, piece(reason="stop"), b"data: [DONE]\n\n")
    _, gateway = await lone(world, Odd(ended, response(whole_), keeps=True))

    answered: Any = await client(gateway).responses.create(**ASK, **ALONE, **asked)
    body = sent(world)
    async with client(gateway).responses.stream(**ASK, **ALONE, **asked) as stream:
        events: Any = [event async for event in stream]
        streamed: Any = await stream.get_final_response()

    assert {name: body[name] for name in ("logprobs", "top_logprobs") if name in body} == sent_
    if not sent_:
        return
    for answer in (answered, streamed):
        (part,) = answer.output[0].content
        assert [one.token for one in part.logprobs] == ["fi", "ne"]
        assert part.logprobs[0].top_logprobs[0].logprob == -0.5
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert [delta.logprobs[0].token for delta in deltas] == ["fi", "ne"]
    assert answered.top_logprobs == asked.get("top_logprobs", 0)


@pytest.mark.parametrize(
    ("odd", "said", "status"),
    [
        (says({"content": "fine"}), [("message", "fine")], "completed"),
        (says({"content": "fi"}, "length"), [("message", "fi")], "incomplete"),
        (
            says({"content": "See.", "tool_calls": CALLS}, "tool_calls"),
            [("message", "See."), ("function_call", '{"city": "Oslo"}')],
            "completed",
        ),
        (
            says({"content": "42", "reasoning_content": "hm"}),
            [("reasoning", "hm"), ("message", "42")],
            "completed",
        ),
    ],
)
async def test_what_a_model_says_becomes_items(
    world: World, odd: Odd, said: list[tuple[str, str]], status: str
) -> None:
    _, gateway = await lone(world, odd)
    ask = client(gateway).responses

    stream = await ask.create(**ASK, **ALONE, stream=True)
    events = [event async for event in stream]
    answered = await ask.create(**ASK, **ALONE)

    final = events[-1]
    assert final.type in ("response.completed", "response.incomplete")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    for answer in (final.response, answered):
        items = [
            (item.type, item.arguments if item.type == "function_call" else item.content[0].text)
            for item in answer.output
        ]
        assert items == said
        assert answer.status == status
        assert answer.id.startswith("resp_")
        assert answer.model == "m"
    deltas = [event.delta for event in events if event.type.endswith(".delta")]
    assert deltas == [text for _, text in said]


async def test_a_stream_that_breaks_off_says_so(world: World) -> None:
    _, gateway = await lone(world, Odd(chunked(piece("One "), ends=False)))

    stream = await client(gateway).responses.create(**ASK, **ALONE, stream=True)
    last = [event async for event in stream][-1]

    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.message


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": "x"}, "x"]}, "input[1]"),
        ({"input": [{"content": [{"type": "video"}]}]}, "input[0].content[0].type"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "x"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": "hot"}, "temperature"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_name(
    world: World, changes: dict[str, Any], named: str
) -> None:
    _, gateway = await lone(world, says({"content": "fine"}))

    with pytest.raises(openai.BadRequestError) as refused:
        await client(gateway).responses.create(**ASK, extra_body=changes)

    assert refused.value.param == named
    assert not world.servers["odd"].requests


async def test_errors_are_openais(world: World) -> None:
    _, gateway = await lone(world, says({"content": "fine"}))

    with pytest.raises(openai.NotFoundError) as unknown:
        await client(gateway).responses.create(model="nobody", input="hi")

    assert unknown.value.code == "model_not_found"
    assert (await get(gateway))[0] == 405


async def get(gateway: Gateway) -> tuple[int, Any]:
    url = f"{gateway.descriptor().endpoint}/v1/responses"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, json.loads(await answer.read())
