"""A pretrained language model at a facility, asked by OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest
import pytest_asyncio

from daitn.objects.identifiers import SiteId
from daitn.tools.fabric.memory import MemoryNetwork
from tests.node.gateway.scene import Network
from tests.node.serving.scene import CHAT, HEADERS, Holder, Site
from tests.scenes.tiny_llama import write_folder
from tests.scenes.waiting import PATIENCE_S

pytest.importorskip("torch")
pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]

TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
]
HI: list[Any] = [{"role": "user", "content": "hi"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A facility with one model that reads 256 tokens, for all tests."""
    from daitn.learning.causal_lm.importing import import_pretrained

    folder, network = tmp_path_factory.mktemp("llama"), MemoryNetwork()
    write_folder(folder / "folder")
    (folder / "parts").mkdir()
    config = import_pretrained(folder / "folder", folder / "parts")
    holder = Holder(network, folder)
    await holder.start()
    site = await Site(
        network, folder, recipes=("causal-lm",), admit=lambda shown, now_s: SiteId("gw")
    ).start()
    model = holder.packed("causal-lm", folder / "parts")
    await site.ready("llama", model, recipe="causal-lm", config=config)
    yield site
    await site.close()
    await holder.close()


async def test_its_descriptor_says_what_it_reads_and_promises(site: Site) -> None:
    deployed = site.deployed("llama")
    assert deployed is not None
    assert deployed.context_tokens == 256
    assert not deployed.deterministic


async def test_a_conversation_is_read_whole_and_answered_to_the_end_of_the_context(
    site: Site,
) -> None:
    turns: list[Any] = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": [{"type": "text", "text": "more"}]},
    ]
    async with site.client() as client:
        answer = await client.chat.completions.create(model="llama", messages=turns, temperature=0)
        without = await client.chat.completions.create(
            model="llama", messages=turns[1:], temperature=0, max_tokens=9
        )
    assert answer.usage is not None
    assert without.usage is not None
    assert answer.usage.prompt_tokens > without.usage.prompt_tokens
    assert answer.usage.total_tokens == 256
    assert answer.choices[0].finish_reason == "length"
    assert not (answer.choices[0].message.content or "").startswith(
        without.choices[0].message.content or "?"
    )


async def test_answers_at_the_same_time_are_those_of_one_at_a_time(site: Site) -> None:
    texts = [f"{word} " * 9 for word in ("rest", "water", "help", "fever")]
    alone = [await site.ask("llama", text, temperature=0, max_tokens=12) for text in texts]
    together = await asyncio.gather(
        *(site.ask("llama", text, temperature=0, max_tokens=12) for text in texts)
    )
    assert together == alone


async def test_prompts_that_are_too_long_are_refused_by_their_length(site: Site) -> None:
    async with site.client() as client:
        with pytest.raises(openai.BadRequestError, match="256 tokens") as chat:
            await client.chat.completions.create(
                model="llama", messages=[{"role": "user", "content": "fever " * 300}]
            )
        with pytest.raises(openai.BadRequestError) as plain:
            await client.completions.create(model="llama", prompt="fever " * 3000)
        with pytest.raises(openai.BadRequestError) as text:
            await client.embeddings.create(model="llama", input="fever " * 3000)
    for error, param in ((chat, "messages"), (plain, "prompt"), (text, "input")):
        assert error.value.code == "context_length_exceeded"
        assert error.value.param == param
    assert await site.ask("llama", "hi", max_tokens=3)


@pytest.mark.parametrize("stream", [False, True])
async def test_likely_tokens_are_named(site: Site, stream: bool) -> None:
    body = {"model": "llama", "messages": HI, "logprobs": True, "top_logprobs": 2}
    body |= {"temperature": 0, "max_tokens": 5, "stream": stream}
    status, said, _ = await site.post(CHAT, json.dumps(body).encode())
    assert status == 200
    events = said.split(b"data: ")[1:-1] if stream else [said]
    choices = [json.loads(event)["choices"][0] for event in events]
    tokens = [t for choice in choices for t in (choice["logprobs"] or {}).get("content", ())]
    assert len(tokens) == 5
    for token in tokens:
        best = token["top_logprobs"]
        assert len(best) == 2
        assert best[0]["logprob"] == token["logprob"] >= best[1]["logprob"]
    async with site.client() as client:
        plain = await client.completions.create(
            model="llama", prompt="rest", logprobs=3, max_tokens=4, temperature=0
        )
    told = plain.choices[0].logprobs
    assert told is not None
    assert [len(best) for best in told.top_logprobs or ()] == [3] * 4


async def test_calls_of_tools_reach_the_client_as_such(site: Site) -> None:
    async with site.client() as client:
        answer = await client.chat.completions.create(
            model="llama",
            messages=HI,
            tools=TOOLS,
            max_tokens=4,
        )
        with pytest.raises(openai.BadRequestError, match="tool_choice"):
            await client.chat.completions.create(
                model="llama",
                messages=HI,
                tools=TOOLS,
                tool_choice="required",
            )
    assert answer.choices[0].message.role == "assistant"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("response_format", {"type": "json_object"}),
        ("reasoning_effort", "high"),
        ("modalities", ["text", "audio"]),
        ("dimensions", 8),
        ("echo", True),
        ("functions", [{}]),
        ("anything", 1),
    ],
)
async def test_what_it_does_not_honour_is_refused_by_name(
    site: Site, field: str, value: object
) -> None:
    body = {"model": "llama", "messages": HI, field: value}
    status, said, _ = await site.post(CHAT, json.dumps(body).encode())
    error = json.loads(said)["error"]
    assert (status, error["code"], error["param"]) == (400, "unsupported", field)


async def test_what_changes_nothing_is_no_fault(site: Site) -> None:
    plain = await site.ask("llama", "hi", temperature=0, max_tokens=9)
    said = await site.ask(
        "llama",
        "hi",
        temperature=0,
        max_tokens=9,
        n=1,
        frequency_penalty=0,
        presence_penalty=0.0,
        logit_bias={},
        response_format={"type": "text"},
        user="ada",
        metadata={"a": "b"},
        tool_choice="auto",
        parallel_tool_calls=True,
    )
    assert said == plain
    long = {"temperature": 0, "max_tokens": 90}
    penalised = await site.ask("llama", "hi", presence_penalty=2, **long)
    assert penalised != await site.ask("llama", "hi", **long)


async def test_without_a_seed_each_query_draws_by_its_own(site: Site) -> None:
    body = json.dumps({"model": "llama", "messages": HI, "max_tokens": 40}).encode()

    async def said(query: str) -> str:
        _, told, _ = await site.post(CHAT, body, {**HEADERS, "daitn-query": query})
        text: str = json.loads(told)["choices"][0]["message"]["content"]
        return text

    assert await said("gate:8") == await said("gate:8") != await said("gate:9")


async def test_pictures_are_refused_where_they_stand(site: Site) -> None:
    parts = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": "x"}}]
    body = {"model": "llama", "messages": [{"role": "user", "content": parts}]}
    status, said, _ = await site.post(CHAT, json.dumps(body).encode())
    error = json.loads(said)["error"]
    assert (status, error["param"]) == (400, "messages[0].content[1]")
    assert "image_url" in error["message"]


async def test_places_of_texts_come_in_the_form_that_is_asked_for(site: Site) -> None:
    async with site.client() as client:
        usual = await client.embeddings.create(model="llama", input=["fever", "water"])
        plain = await client.embeddings.create(
            model="llama", input=["fever", "water"], encoding_format="float"
        )
    for one, other in zip(usual.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert len(one.embedding) == 32


async def test_a_client_that_goes_ends_its_answer(site: Site) -> None:
    async with site.client() as client:
        stream = await client.chat.completions.create(
            model="llama", messages=HI, stream=True, temperature=0
        )
        async for _ in stream:
            break
        await stream.close()
    async with asyncio.timeout(PATIENCE_S):
        while (await site.told_anew()).in_flight:
            pass
    assert await site.ask("llama", "hi", max_tokens=3)


async def test_anthropics_client_asks_it_through_a_gateway(site: Site) -> None:
    network, deployed = Network(), site.deployed("llama")
    assert deployed is not None
    network.facility("mdf", f"{site.url}/v1", deployed)
    gateway = await network.gateway()
    client = anthropic.AsyncAnthropic(
        base_url=gateway.descriptor().endpoint, api_key="none", max_retries=0
    )
    tools: Any = [{"name": "weather", "input_schema": {"type": "object"}}]
    try:
        async with client.messages.stream(
            model="llama", max_tokens=9, system="be brief", messages=HI, tools=tools
        ) as stream:
            streamed = await stream.get_final_message()
        with pytest.raises(anthropic.BadRequestError, match=r"thinking: .* does not honour"):
            await client.messages.create(
                model="llama",
                max_tokens=9,
                messages=HI,
                thinking={"type": "enabled", "budget_tokens": 5000},
            )
        with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long|by context"):
            await client.messages.create(
                model="llama", max_tokens=9, messages=[{"role": "user", "content": "hi " * 300}]
            )
    finally:
        await network.close()

    assert streamed.stop_reason == "max_tokens"
    assert streamed.usage.output_tokens == 9
    assert streamed.usage.input_tokens > 9


@pytest.mark.parametrize(
    ("tool", "field"),
    [
        ({"type": "function", "function": "f"}, "tools[0].function"),
        ({"type": "function", "function": None}, "tools[0].function"),
        ({"type": "function"}, "tools[0]"),
        ({"type": "function", "function": {}}, "tools[0].function"),
        ({"type": "function", "function": {"name": 3}}, "tools[0].function.name"),
        ({"type": "function", "function": {"name": "f", "parameters": []}}, "parameters"),
        ({"type": "custom", "function": {"name": "f"}}, "tools[0].type"),
        ({"name": "f"}, "tools[0]"),
        ([], "tools[0]"),
    ],
)
async def test_malformed_tools_are_the_clients_fault_and_nobody_elses(
    site: Site, tool: object, field: str
) -> None:
    body = {"model": "llama", "messages": HI, "tools": [tool], "max_tokens": 2}
    status, said, _ = await site.post(CHAT, json.dumps(body).encode())
    assert status == 400, said
    assert field in json.loads(said)["error"]["param"]
    assert await site.ask("llama", "hi", max_tokens=2)


async def test_an_answer_that_has_begun_is_gone_on_with(site: Site) -> None:
    begun: list[Any] = [*HI, {"role": "assistant", "content": "rest and water"}]
    body = {"model": "llama", "messages": begun, "max_tokens": 3, "temperature": 0}
    body |= {"continue_final_message": True, "add_generation_prompt": False}
    status, said, _ = await site.post(CHAT, json.dumps(body).encode())
    assert status == 200, said
    fresh, _, _ = await site.post(CHAT, json.dumps({**body, "messages": HI}).encode())
    assert fresh == 400


async def test_roles_that_the_template_does_not_know_are_named(site: Site) -> None:
    for role, status in (("system", 200), ("developer", 200), ("judge", 400)):
        body = {"model": "llama", "messages": [{"role": role, "content": "be"}], "max_tokens": 2}
        told, said, _ = await site.post(CHAT, json.dumps(body).encode())
        assert told == status, (role, said)
