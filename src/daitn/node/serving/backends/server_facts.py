"""What servers of OpenAI's API report about their models, each in its own way.

vLLM tells the context in `/v1/models`, llama.cpp what its model reads in `/props`, Ollama in
`/api/show`. The first two also count tokens, and rank if their model does. Infinity says what its
models do in `/v1/models`. Nothing of this is standard: whatever is missing or
malformed is unknown, and no other server is asked for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import msgspec

from daitn.objects.abilities import Reads, Says
from daitn.objects.tokens import Rates, measured_rates, samples

__all__ = ["NO_FACTS", "Fetch", "ListedModel", "ServerFacts", "listed_model", "server_facts"]

OLLAMA_CONTEXT_TOKENS = 4096
"""Ollama's context for a model whose file sets no `num_ctx`; it silently cuts longer prompts."""

Fetch = Callable[[str, str, object], Awaitable[bytes | None]]
"""(method, path below the server's root, JSON body or none) -> body; `None` means no answer of
status 200."""


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A server's statements about one model; `None` means it makes none."""

    context_tokens: int | None = None
    reads: tuple[Reads, ...] | None = None
    says: tuple[Says, ...] | None = None
    tools: bool | None = None
    json_schema: bool | None = None
    ranks: bool = False
    """Whether it supports the API `rerank`, and hence no other."""
    repeats: bool = False
    """Whether whole answers repeat the beginning of an answer given by the client."""
    rates: Rates | None = None
    """Tokens per character, by its own tokenizer."""


NO_FACTS = ServerFacts()


class ListedModel(msgspec.Struct, frozen=True):
    """A model in a server's list."""

    id: str = ""
    owned_by: str = ""
    max_model_len: int | None = None
    capabilities: list[str] = []
    """As reported by Infinity."""


class _Models(msgspec.Struct, frozen=True):
    data: list[ListedModel] = []


class _Version(msgspec.Struct, frozen=True):
    version: str


class _Settings(msgspec.Struct, frozen=True):
    n_ctx: int = 0


class _Modalities(msgspec.Struct, frozen=True):
    vision: bool = False
    audio: bool = False


class _Template(msgspec.Struct, frozen=True):
    supports_tools: bool | None = None


class _Props(msgspec.Struct, frozen=True):
    default_generation_settings: _Settings = _Settings()
    modalities: _Modalities = _Modalities()
    chat_template_caps: _Template = _Template()


class _Shown(msgspec.Struct, frozen=True):
    capabilities: list[str] = []
    parameters: str = ""
    model_info: dict[str, msgspec.Raw] = {}


class _Running(msgspec.Struct, frozen=True):
    name: str = ""
    model: str = ""
    context_length: int = 0


class _AllRunning(msgspec.Struct, frozen=True):
    models: list[_Running] = []


class _Ranked(msgspec.Struct, frozen=True):
    results: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1)]


class _Counted(msgspec.Struct, frozen=True):
    tokens: list[msgspec.Raw] = []
    count: int | None = None


T = TypeVar("T")


def listed_model(body: bytes, name: str) -> ListedModel | None:
    """The model called `name` in an answer of `/v1/models`, or else the only one."""
    models = _read(body, _Models)
    if models is None:
        return None
    named = [model for model in models.data if model.id == name]
    found = named or models.data
    return found[0] if len(found) == 1 or named else None


async def server_facts(fetch: Fetch, name: str, listed: ListedModel | None) -> ServerFacts:
    """Ask a server about the model that it calls `name`."""
    owner = "" if listed is None else listed.owned_by
    if owner == "vllm":
        return await _of_vllm(fetch, name)
    if owner == "llamacpp":
        return await _of_llama_cpp(fetch, name)
    if owner == "infinity" and listed is not None:
        return ServerFacts(ranks="rerank" in listed.capabilities)
    if _read(await fetch("GET", "/api/version", None), _Version) is not None:
        return await _of_ollama(fetch, name)
    return NO_FACTS


async def _of_vllm(fetch: Fetch, name: str) -> ServerFacts:
    rates = None
    if _read(await fetch("GET", "/version", None), _Version) is not None:
        rates = await _rates(fetch, lambda text: {"model": name, "prompt": text})
    return ServerFacts(json_schema=True, ranks=await _ranks(fetch, name), rates=rates)


async def _of_llama_cpp(fetch: Fetch, name: str) -> ServerFacts:
    props = _read(await fetch("GET", "/props", None), _Props)
    if props is None:
        return NO_FACTS
    also = [
        reads
        for reads, does in (
            (Reads.IMAGE, props.modalities.vision),
            (Reads.AUDIO, props.modalities.audio),
        )
        if does
    ]
    return ServerFacts(
        context_tokens=props.default_generation_settings.n_ctx or None,
        reads=(Reads.TEXT, *also),
        tools=props.chat_template_caps.supports_tools,
        json_schema=True,
        ranks=await _ranks(fetch, name),
        repeats=True,
        rates=await _rates(fetch, lambda text: {"content": text}),
    )


async def _of_ollama(fetch: Fetch, name: str) -> ServerFacts:
    shown = _read(await fetch("POST", "/api/show", {"model": name}), _Shown)
    if shown is None:
        return NO_FACTS
    able = shown.capabilities
    reads, says = None, None
    if able:
        also = (("vision", Reads.IMAGE), ("audio", Reads.AUDIO))
        reads = (Reads.TEXT, *(each for word, each in also if word in able))
        spoken = (("completion", Says.TEXT), ("embedding", Says.VECTOR))
        says = tuple(each for word, each in spoken if word in able) or None
    return ServerFacts(
        context_tokens=await _ollama_context(fetch, name, shown),
        reads=reads,
        says=says,
        tools="tools" in able if able else None,
        json_schema=True,
    )


async def _ollama_context(fetch: Fetch, name: str, shown: _Shown) -> int:
    """The context with which Ollama runs the model, or will."""
    running = _read(await fetch("GET", "/api/ps", None), _AllRunning)
    for model in () if running is None else running.models:
        if model.context_length > 0 and name in (model.name, model.model):
            return model.context_length
    stated = [line.split() for line in shown.parameters.splitlines()]
    set_to = [int(words[1]) for words in stated if words[:1] == ["num_ctx"] and _is_count(words)]
    most = [
        length
        for key, raw in shown.model_info.items()
        if key.endswith(".context_length") and (length := _read(bytes(raw), int))
    ]
    return min([*(set_to or [OLLAMA_CONTEXT_TOKENS]), *most])


async def _ranks(fetch: Fetch, name: str) -> bool:
    """Whether the server ranks a document: no server reports it in another way."""
    question = {"model": name, "query": "a", "documents": ["a"]}
    return _read(await fetch("POST", "/rerank", question), _Ranked) is not None


def _is_count(words: list[str]) -> bool:
    return len(words) == 2 and words[1].isascii() and words[1].isdigit() and int(words[1]) > 0


async def _rates(fetch: Fetch, question: Callable[[str], object]) -> Rates | None:
    counts = []
    for text in samples():
        counted = _read(await fetch("POST", "/tokenize", question(text)), _Counted)
        count = 0 if counted is None else counted.count or len(counted.tokens)
        if count <= 0:
            return None
        counts.append(count)
    return measured_rates(counts)


def _read(body: bytes | None, kind: type[T]) -> T | None:
    if body is None:
        return None
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
