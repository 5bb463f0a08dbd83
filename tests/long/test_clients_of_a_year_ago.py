"""The official clients as they were a year ago, each in a folder of its own, and what llm-comply
asks of an API. Skipped where no package index can be reached."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from daitn.node.gateway import Gateway
from daitn.objects.abilities import Abilities, Reads, Says
from tests.node.gateway.odd_world import Odd, World, opened_world, scene
from tests.node.gateway.scene import deployment
from tests.scenes.packages import installed
from tests.scenes.raw_server import chunked, event, piece, response, whole

pytestmark = [
    pytest.mark.processes,
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(900),
]

_ANTHROPIC = """
import anthropic, sys
client = anthropic.Anthropic(base_url=sys.argv[1], api_key="none", max_retries=0)
ask = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
tools = [{"name": "weather", "input_schema": {"type": "object"}}]
message = client.messages.create(**ask, temperature=0.5, top_k=3)
assert message.content[0].text == "fine", message
assert message.usage.input_tokens == 5
with client.messages.stream(**ask, tools=tools) as stream:
    assert "".join(stream.text_stream) == "fine"
    assert stream.get_final_message().usage.input_tokens == 5
assert client.messages.count_tokens(model="m", messages=ask["messages"]).input_tokens > 0
assert [model.id for model in client.models.list()] == ["auto", "m"]
try:
    client.messages.create(**{**ask, "model": "nobody"})
except anthropic.NotFoundError as error:
    assert error.body["error"]["type"] == "not_found_error"
else:
    raise AssertionError("nobody answered")
"""
_OPENAI = """
import openai, sys
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
ask = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
assert client.chat.completions.create(**ask).choices[0].message.content == "fine"
stream = client.chat.completions.create(**ask, stream=True)
assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "fine"
assert client.responses.create(model="m", input="hi").output_text == "fine"
with client.responses.stream(model="m", input="hi") as stream:
    assert stream.get_final_response().output_text == "fine"
assert [model.id for model in client.models.list()] == ["auto", "m"]
try:
    client.chat.completions.create(**{**ask, "model": "nobody"})
except openai.NotFoundError as error:
    assert error.code == "model_not_found"
else:
    raise AssertionError("nobody answered")
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with opened_world(tmp_path_factory.mktemp("clients")) as world:
        yield world


async def python(folder: Path, *arguments: str) -> str:
    """Run Python with a folder's packages; the output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={"PYTHONPATH": str(folder), "PATH": ""},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


async def gateway_of(world: World) -> Gateway:
    """A gateway before a server that knows what is expected of it."""

    async def behave(head: bytes, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        writer.write(_answer(body))
        await writer.drain()
        return True

    world.tell(Odd(b""))
    world.servers["odd"].behave = behave
    network, gateway = await scene(world, "whole", alone=True)
    sees = Abilities(reads=(Reads.TEXT, Reads.IMAGE), says=(Says.TEXT,), tools=True)
    url = f"{world.sites['odd'].url}/v1"
    network.facility("odd", url, deployment("m", abilities=sees))
    return gateway


def _answer(body: dict[str, Any]) -> bytes:
    counts = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    message: dict[str, Any] = {"role": "assistant", "content": "fine"}
    reason = "stop"
    asked_of_tools = body.get("tools") and body["messages"][-1]["role"] == "user"
    if asked_of_tools and "weather" in json.dumps(body["messages"][-1]).lower():
        name = body["tools"][0]["function"]["name"]
        called = {"name": name, "arguments": '{"location": "Paris"}'}
        call = {"index": 0, "id": "call_1", "type": "function", "function": called}
        message, reason = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
    if body.get("stream"):
        pieces = [piece(delta=message), piece(reason=reason)]
        if body.get("stream_options"):
            pieces.append(event({"choices": [], "usage": counts}))
        return chunked(*pieces, b"data: [DONE]\n\n")
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
    return response(whole(choices=[choice]))


@pytest.mark.parametrize(
    ("package", "program"), [("anthropic==0.72.0", _ANTHROPIC), ("openai==2.8.0", _OPENAI)]
)
async def test_a_client_of_a_year_ago_is_answered(
    world: World, tmp_path: Path, package: str, program: str
) -> None:
    gateway = await gateway_of(world)
    await asyncio.to_thread(installed, tmp_path, package)

    await python(tmp_path, "-c", program, gateway.descriptor().endpoint)


@pytest.mark.parametrize(
    ("form", "headers"),
    [("anthropic", ("-H", "anthropic-version:2023-06-01")), ("open-responses", ())],
)
async def test_an_api_complies_with_its_specification(
    world: World, tmp_path: Path, form: str, headers: tuple[str, ...]
) -> None:
    gateway = await gateway_of(world)
    await asyncio.to_thread(installed, tmp_path, "llm-comply==0.5.0")

    main = "import sys; from llm_comply.cli import main; sys.exit(main())"
    base = f"{gateway.descriptor().endpoint}/v1"
    said = await python(
        tmp_path, "-c", main, "-u", base, "-k", "none", "-m", "m", "--format", form, "-v", *headers
    )
    assert "passed!" in said, said
