"""What a facility learns of the model behind a server that tells more than OpenAI's API does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from daitn.node.config import UpstreamConfig
from daitn.node.serving.backends import openai_server
from daitn.node.serving.backends.openai_server import OpenAiBackend
from daitn.objects.abilities import Abilities, Reads, Says
from daitn.objects.deployments import Api, DeploymentDescriptor, DeploymentState
from daitn.objects.identifiers import OwnerId
from tests.scenes.waiting import until

Told = dict[str, Any]
"""Path to what is answered there: JSON, or a function of the request's body."""


def models(**told: Any) -> Told:
    return {"object": "list", "data": [{"id": "in-house", "object": "model", **told}]}


@asynccontextmanager
async def serving(told: Told) -> AsyncIterator[tuple[str, list[str]]]:
    """A server's URL, and the paths that it was asked for."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(f"{request.method} {request.path}")
        found = told.get(request.path)
        if found is None:
            return web.json_response({"error": "nothing here"}, status=404)
        return web.json_response(found(await request.json()) if callable(found) else found)

    app = web.Application()
    app.add_routes([web.route("*", "/{rest:.*}", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", asked
    await runner.cleanup()


async def described(told: Told, **stated: Any) -> DeploymentDescriptor:
    async with serving(told) as (url, _):
        backend = OpenAiBackend(
            UpstreamConfig(name="doctor", url=url, model="in-house", **stated),
            OwnerId("me"),
            lambda: None,
            max_answer_bytes=1 << 26,
        )
        await backend.start()
        found = backend.descriptor
        await backend.close()
    assert found.state is DeploymentState.READY
    return found


def counted(per_character: float) -> Callable[[Any], Any]:
    """A tokenizer with that rate."""
    return lambda body: {
        "tokens": [7] * round(per_character * len(body.get("content") or body.get("prompt")))
    }


VLLM: Told = {
    "/v1/models": models(owned_by="vllm", max_model_len=32768),
    "/version": {"version": "0.33.0"},
    "/tokenize": counted(0.8),
}
PROPS = {
    "default_generation_settings": {"n_ctx": 8192, "params": {"seed": 1}},
    "modalities": {"vision": True, "audio": False},
    "chat_template_caps": {"supports_tools": False},
    "total_slots": 4,
}
LLAMA_CPP: Told = {
    "/v1/models": models(owned_by="llamacpp", meta={"n_ctx_train": 131072}),
    "/props": PROPS,
    "/tokenize": counted(0.7),
}
SHOWN = {
    "capabilities": ["completion", "tools", "vision"],
    "parameters": 'stop "<|end|>"\nnum_ctx 16384',
    "model_info": {"general.architecture": "qwen", "qwen.context_length": 131072},
}
OLLAMA: Told = {
    "/v1/models": models(owned_by="library"),
    "/api/version": {"version": "0.40.12"},
    "/api/show": lambda body: SHOWN if body == {"model": "in-house"} else {},
}


async def test_vllm_tells_its_context_and_counts_tokens() -> None:
    found = await described(VLLM)
    assert found.context_tokens == 32768
    assert found.abilities == Abilities(json_schema=True)
    assert found.tokens_per_character == pytest.approx((0.8, 0.8, 0.8, 0.8), abs=0.03)


async def test_llama_cpp_tells_what_its_model_reads() -> None:
    found = await described(LLAMA_CPP)
    assert found.context_tokens == 8192
    assert found.abilities == Abilities(
        reads=(Reads.TEXT, Reads.IMAGE), tools=False, json_schema=True
    )
    assert found.tokens_per_character == pytest.approx((0.7, 0.7, 0.7, 0.7), abs=0.03)


async def test_ollama_tells_what_its_model_can_do() -> None:
    found = await described(OLLAMA)
    assert found.context_tokens == 16384
    assert found.abilities == Abilities(
        reads=(Reads.TEXT, Reads.IMAGE), tools=True, json_schema=True
    )
    assert found.tokens_per_character == ()


@pytest.mark.parametrize(
    ("told", "tokens"),
    [
        ({"/api/show": {**SHOWN, "parameters": ""}}, 4096),
        ({"/api/show": {"model_info": {"x.context_length": 2048}}}, 2048),
        ({"/api/show": {**SHOWN, "parameters": "num_ctx many"}}, 4096),
        ({"/api/ps": {"models": [{"name": "in-house", "context_length": 65536}]}}, 65536),
        ({"/api/ps": {"models": [{"name": "other", "context_length": 65536}]}}, 16384),
    ],
)
async def test_ollama_runs_a_model_with_less_context_than_it_has(told: Told, tokens: int) -> None:
    assert (await described({**OLLAMA, **told})).context_tokens == tokens


async def test_what_the_file_states_counts_before_what_the_server_tells() -> None:
    found = await described(
        LLAMA_CPP,
        context_tokens=2000,
        reads=(Reads.TEXT, Reads.AUDIO),
        says=(Says.TEXT, Says.AUDIO),
        tools=True,
        json_schema=False,
        languages=("en", "fr"),
    )
    assert found.context_tokens == 2000
    assert found.abilities == Abilities(
        reads=(Reads.TEXT, Reads.AUDIO),
        says=(Says.TEXT, Says.AUDIO),
        tools=True,
        json_schema=False,
        languages=("en", "fr"),
    )


@pytest.mark.parametrize(
    "told",
    [
        {"/v1/models": models()},
        {"/v1/models": []},
        {},
        {"/v1/models": models(owned_by="vllm", max_model_len="long")},
        {"/v1/models": models(owned_by="vllm", max_model_len=-1)},
        {"/v1/models": models(owned_by="llamacpp"), "/props": {"modalities": 7}},
        {**OLLAMA, "/api/show": "nothing"},
        {**VLLM, "/v1/models": models(owned_by="vllm"), "/tokenize": {"tokens": []}},
        {**VLLM, "/v1/models": models(owned_by="vllm"), "/tokenize": {"error": "no"}},
    ],
)
async def test_a_server_that_tells_nothing_serves_text(told: Told) -> None:
    found = await described(told)
    assert (found.context_tokens, found.tokens_per_character) == (4096, ())
    assert (found.abilities.reads, found.abilities.says) == ((Reads.TEXT,), (Says.TEXT,))
    assert found.abilities.tools is None


def ranked(body: Any) -> Any:
    return {
        "results": [{"index": at, "relevance_score": 0.5} for at in range(len(body["documents"]))]
    }


@pytest.mark.parametrize(
    "told",
    [
        {**VLLM, "/rerank": ranked},
        {**LLAMA_CPP, "/rerank": ranked},
        {"/v1/models": models(owned_by="infinity", capabilities=["rerank"])},
    ],
)
async def test_a_server_that_ranks_does_nothing_else(told: Told) -> None:
    found = await described(told)
    assert (found.apis, found.abilities.says) == ((Api.RERANK,), (Says.SCORE,))
    stated = await described(told, apis=(Api.EMBEDDINGS, Api.RERANK))
    assert stated.apis == (Api.EMBEDDINGS, Api.RERANK)
    assert stated.abilities.says == (Says.SCORE, Says.VECTOR)


@pytest.mark.parametrize(
    "told",
    [
        VLLM,
        {**VLLM, "/rerank": {"error": {"code": 501}}},
        {**LLAMA_CPP, "/rerank": {"results": []}},
        {**LLAMA_CPP, "/rerank": {"results": None}},
        {"/v1/models": models(owned_by="infinity", capabilities=["embed"])},
        {"/v1/models": models(owned_by="else", capabilities=["rerank"]), "/rerank": ranked},
    ],
)
async def test_a_server_that_does_not_rank_chats(told: Told) -> None:
    assert (await described(told)).apis == (Api.CHAT,)


async def test_a_server_of_embeddings_says_vectors() -> None:
    found = await described({}, apis=(Api.EMBEDDINGS,))
    assert found.abilities.says == (Says.VECTOR,)


async def test_only_a_server_that_is_known_is_asked_for_more_than_its_models() -> None:
    async with serving({"/v1/models": models()}) as (url, asked):
        backend = OpenAiBackend(
            UpstreamConfig(name="doctor", url=url),
            OwnerId("me"),
            lambda: None,
            max_answer_bytes=1 << 26,
        )
        await backend.start()
        await backend.close()
    assert asked == ["GET /v1/models", "GET /api/version"]


async def test_a_longer_context_is_told_at_the_next_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_server, "PROBE_UP_S", 0.02)
    told: Told = {"/v1/models": models(owned_by="vllm", max_model_len=4096)}
    changes: list[int] = []
    async with serving(told) as (url, _):
        upstream = UpstreamConfig(name="doctor", url=url, model="in-house")
        backend = OpenAiBackend(
            upstream, OwnerId("me"), lambda: changes.append(1), max_answer_bytes=1 << 26
        )
        await backend.start()
        told["/v1/models"] = models(owned_by="vllm", max_model_len=8192)
        await until(lambda: backend.descriptor.context_tokens == 8192)
        await backend.close()
    assert len(changes) == 2
