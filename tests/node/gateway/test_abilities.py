"""A query is put to models that read it, and that say what it needs."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import openai
import pytest

from daitn.node.gateway import Gateway
from daitn.objects.abilities import Abilities, Reads, Says
from daitn.objects.deployments import DeploymentDescriptor
from daitn.topology.qrrt.observation import PromptSize
from tests.node.gateway.scene import Network, client, deployment
from tests.scenes.openai_server import OpenAiServer

Servers = tuple[OpenAiServer, ...]
pytestmark = pytest.mark.processes

WEATHER: list[Any] = [{"role": "user", "content": "What will the weather be in Paris?"}]
RECORD: list[Any] = [{"role": "user", "content": '{"radius": 14.2, "texture": null}'}]
TABLE = Abilities(reads=(Reads.TABLE,), says=(Says.CLASS,), tools=False, json_schema=False)
SEES = Abilities(reads=(Reads.TEXT, Reads.IMAGE))
PLAIN = Abilities(tools=False, json_schema=False)
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
TOOLS: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}

MODES: dict[str, dict[str, Any]] = {
    "whole": {},
    "streamed": {"stream": True},
    "cascade": {"daitn": {"strategy": "cascade"}},
    "streamed cascade": {"stream": True, "daitn": {"strategy": "cascade"}},
    "ensemble": {"daitn": {"strategy": "ensemble"}},
}


def seeing(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, *parts]}]


async def post(gateway: Gateway, **fields: Any) -> tuple[int, str, dict[str, Any]]:
    """Status, the model that answered, and the error."""
    url = f"{gateway.descriptor().endpoint}/v1/chat/completions"
    body = json.dumps({"model": "auto", "messages": WEATHER, **fields}).encode()
    async with aiohttp.ClientSession() as session, session.post(url, data=body) as answer:
        text = await answer.text()
        error = {} if answer.status == 200 else json.loads(text)["error"]
        return answer.status, answer.headers.get("daitn-model", ""), error


@pytest.fixture
async def mixed(network: Network, servers: Servers) -> Gateway:
    """A table's model that is verified and free, and one that talks, which nobody measured."""
    table = deployment("tumours", abilities=TABLE)
    network.facility("clinic", servers[0].url, table)
    network.facility("dc", servers[1].url, deployment("talker", price_usd_per_1k_out=1.0))
    network.measured("tumours", "clinic", "medicine/breast", 0.99)
    return await network.gateway()


async def test_no_table_is_asked_about_the_weather(mixed: Gateway, servers: Servers) -> None:
    before = servers[0].control()["requests"]
    for mode, fields in MODES.items():
        assert (mode, *await post(mixed, **fields)) == (mode, 200, "talker", {})
    assert servers[0].control()["requests"] == before


async def test_a_record_is_put_to_the_model_that_is_best_at_it(mixed: Gateway) -> None:
    for mode, fields in MODES.items():
        wishes = {**fields.get("daitn", {}), "hedge": False}
        answered = await post(mixed, messages=RECORD, **{**fields, "daitn": wishes})
        assert (mode, *answered) == (mode, 200, "tumours", {})


async def test_a_model_that_is_named_says_what_it_reads(mixed: Gateway) -> None:
    status, _, error = await post(mixed, model="tumours")
    assert (status, error["code"], error["param"]) == (400, "infeasible", "messages")
    assert (await post(mixed, model="tumours", messages=RECORD))[:2] == (200, "tumours")


NEEDS: list[tuple[Abilities, dict[str, Any]]] = [
    (SEES, {"messages": seeing(PICTURE)}),
    (SEES, {"messages": seeing({"type": "input_image", "image_url": "data:x"})}),
    (Abilities(reads=(Reads.TEXT, Reads.AUDIO)), {"messages": seeing(SOUND)}),
    (Abilities(reads=(Reads.TEXT, Reads.VIDEO)), {"messages": seeing({"type": "video_url"})}),
    (Abilities(reads=(Reads.TEXT, Reads.FILE)), {"messages": seeing({"type": "file"})}),
    (Abilities(tools=True), {"tools": TOOLS}),
    (Abilities(tools=True), {"functions": [{"name": "weather"}]}),
    (
        Abilities(tools=True),
        {"messages": [*WEATHER, {"role": "tool", "tool_call_id": "1", "content": "sunny"}]},
    ),
    (Abilities(json_schema=True), {"response_format": SCHEMA}),
    (Abilities(json_schema=True), {"response_format": {"type": "json_object"}}),
    (Abilities(says=(Says.TEXT, Says.AUDIO)), {"modalities": ["text", "audio"]}),
    (Abilities(languages=("fr",)), {"daitn": {"language": "fr-CA"}}),
]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_query_needs_decides_who_is_asked(
    network: Network, servers: Servers, stream: bool
) -> None:
    plain = Abilities(tools=False, json_schema=False, languages=("en",))
    network.facility("near", servers[0].url, deployment("plain", abilities=plain))
    network.measured("plain", "near", "medicine", 0.99)
    gateway = await network.gateway()
    for able, fields in NEEDS:
        network.facility("far", servers[1].url, deployment("able", abilities=able))
        assert (able, *await post(gateway, stream=stream, **fields)) == (able, 200, "able", {})


async def test_where_nobody_can_the_error_names_the_field(
    network: Network, servers: Servers
) -> None:
    network.facility("near", servers[0].url, deployment("plain", abilities=PLAIN))
    gateway = await network.gateway()
    lacking: dict[str, dict[str, Any]] = {
        "messages": {"messages": seeing(PICTURE)},
        "tools": {"tools": TOOLS},
        "response_format": {"response_format": SCHEMA},
        "modalities": {"modalities": ["audio"]},
    }
    for param, fields in lacking.items():
        status, _, error = await post(gateway, **fields)
        assert (status, error["code"], error["param"]) == (400, "infeasible", param)


NO_NEEDS: list[dict[str, Any]] = [
    {"tools": []},
    {"tools": None},
    {"response_format": {"type": "text"}},
    {"modalities": ["text"]},
    {"messages": [*WEATHER, {"role": "assistant", "content": "Hm.", "tool_calls": None}]},
    {"messages": seeing({"type": "text", "text": "It is blue."})},
    {"messages": [{"role": "user", "content": '{"city": "Paris"}'}]},
    {"messages": [{"role": "user", "content": "{}"}]},
]


async def test_what_is_not_needed_keeps_nobody_away(
    mixed: Gateway, network: Network, servers: Servers
) -> None:
    network.facility("dc", servers[1].url, deployment("talker", abilities=PLAIN))
    for fields in NO_NEEDS:
        assert (await post(mixed, **fields))[:2] == (200, "talker"), fields


async def test_completions_and_embeddings_are_for_those_that_read_text(
    mixed: Gateway, servers: Servers
) -> None:
    before = servers[0].control()["requests"]
    async with client(mixed) as asking:
        said = await asking.completions.create(model="auto", prompt="The weather in Paris is")
        vectors = await asking.embeddings.create(model="auto", input=["weather"])
    assert said.choices[0].text
    assert vectors.data
    assert servers[0].control()["requests"] == before


def sized(context_tokens: int, **said: Any) -> DeploymentDescriptor:
    return deployment("m", context_tokens=context_tokens, **said)


LONG: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "天" * 6000}]},
    {"messages": [{"role": "user", "content": "а" * 9000}]},
    {"messages": [{"role": "user", "content": "word " * 4000}]},
    {"tools": [{"type": "function", "function": {"name": "f", "description": "d " * 20000}}]},
    {
        "messages": [
            *WEATHER,
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "f", "arguments": "x" * 20000},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "done"},
        ]
    },
    {"messages": seeing(*[PICTURE] * 5)},
]
"""A Chinese, a Russian and an English prompt; tools; calls of tools; pictures."""


async def test_a_long_prompt_is_put_to_a_model_that_holds_it(
    network: Network, servers: Servers
) -> None:
    before = servers[0].control()["requests"]
    network.facility("near", servers[0].url, sized(4096, abilities=SEES))
    network.facility("far", servers[1].url, sized(32768, abilities=SEES, price_usd_per_1k_out=9.0))
    gateway = await network.gateway()
    for number, fields in enumerate(LONG):
        assert (number, (await post(gateway, model="m", **fields))[0]) == (number, 200)
    assert servers[0].control()["requests"] == before


async def test_a_models_own_tokenizer_counts(network: Network, servers: Servers) -> None:
    """9,000 letters are 2,250 usual tokens, and 4,500 of a model whose tokens are short."""
    letters: Any = [{"role": "user", "content": "letter " * 1300}]
    short = deployment("short", tokens_per_character=(0.5, 0.5, 1.0, 2.0))
    network.facility("near", servers[0].url, short)
    gateway = await network.gateway()
    async with client(gateway) as asking:
        with pytest.raises(openai.BadRequestError, match="context"):
            await asking.chat.completions.create(model="short", messages=letters)
    network.facility("far", servers[1].url, deployment("usual"))
    async with client(gateway) as asking:
        assert await asking.chat.completions.create(model="usual", messages=letters)


async def test_what_answers_report_teaches_how_long_prompts_are(
    network: Network, servers: Servers
) -> None:
    network.facility("near", servers[0].url, deployment("m"))
    gateway = await network.gateway()
    for fields in ({}, {"messages": seeing(PICTURE)}):
        network.facility("near", servers[0].url, deployment("m", abilities=SEES))
        assert (await post(gateway, model="m", **fields))[0] == 200
    text, picture = (seen.prompt for _, _, seen in network.seen())
    assert text == PromptSize((34, 0, 0, 0), 3), "7 tokens, of which 4 are a message's marks"
    assert picture is None
