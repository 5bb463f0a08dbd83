"""Responses of OpenAI's API, made of a model's pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from daitn.objects.deployments import Api
from daitn.openai.http import as_event

__all__ = ["Asked", "Spoken", "embeddings", "ending", "event", "used", "whole"]

_KINDS = {
    (Api.CHAT, False): "chat.completion",
    (Api.CHAT, True): "chat.completion.chunk",
    (Api.COMPLETIONS, False): "text_completion",
    (Api.COMPLETIONS, True): "text_completion",
}


class Asked(Protocol):
    """What a response repeats of its request."""

    @property
    def api(self) -> Api: ...
    @property
    def model(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def created_s(self) -> int: ...


class Spoken(Protocol):
    """A piece of an answer."""

    @property
    def text(self) -> str: ...
    @property
    def logprob(self) -> float: ...
    @property
    def tokens(self) -> int: ...


def event(query: Asked, piece: Spoken, first: bool, logprobs: bool) -> bytes:
    """One piece of a streamed answer."""
    said: dict[str, Any] = {"text": piece.text}
    if query.api is Api.CHAT:
        role = {"role": "assistant"} if first else {}
        said = {"delta": {**role, "content": piece.text}}
    return _event(query, {**said, "logprobs": _logprobs(query, [piece], logprobs)}, None)


def ending(query: Asked, reason: str) -> bytes:
    """The last piece of a streamed answer, without text."""
    said: dict[str, Any] = {"delta": {}} if query.api is Api.CHAT else {"text": ""}
    return _event(query, {**said, "logprobs": None}, reason)


def used(query: Asked, tokens_in: int, tokens_out: int) -> bytes:
    """What a streamed answer took, for who asked to be told."""
    told = {"choices": [], "usage": _usage(tokens_in, tokens_out)}
    return as_event(msgspec.json.encode({**_head(query, streamed=True), **told}))


def whole(
    query: Asked, pieces: Sequence[Spoken], tokens_in: int, reason: str, logprobs: bool
) -> bytes:
    """An answer in one."""
    text = "".join(piece.text for piece in pieces)
    said: dict[str, Any] = {"text": text}
    if query.api is Api.CHAT:
        said = {"message": {"role": "assistant", "content": text}}
    tokens_out = sum(piece.tokens for piece in pieces)
    told = _logprobs(query, pieces, logprobs)
    choice = {"index": 0, **said, "logprobs": told, "finish_reason": reason}
    return msgspec.json.encode(
        {
            **_head(query, streamed=False),
            "choices": [choice],
            "usage": _usage(tokens_in, tokens_out),
        }
    )


def embeddings(query: Asked, vectors: list[list[float]], tokens_in: int) -> bytes:
    """A vector per text."""
    data = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens_in, "total_tokens": tokens_in}
    return msgspec.json.encode(
        {"object": "list", "data": data, "model": query.model, "usage": usage}
    )


def _event(query: Asked, choice: dict[str, Any], reason: str | None) -> bytes:
    said = {"index": 0, **choice, "finish_reason": reason}
    plain = {**_head(query, streamed=True), "choices": [said]}
    return as_event(msgspec.json.encode(plain))


def _head(query: Asked, streamed: bool) -> dict[str, Any]:
    return {
        "id": query.id,
        "object": _KINDS[query.api, streamed],
        "created": query.created_s,
        "model": query.model,
    }


def _usage(tokens_in: int, tokens_out: int) -> dict[str, int]:
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }


def _logprobs(query: Asked, pieces: Sequence[Spoken], wanted: bool) -> dict[str, Any] | None:
    if not wanted:
        return None
    if query.api is Api.COMPLETIONS:
        return {
            "tokens": [piece.text for piece in pieces],
            "token_logprobs": [piece.logprob for piece in pieces],
        }
    told: list[dict[str, Any]] = [
        {"token": piece.text, "logprob": piece.logprob, "bytes": None, "top_logprobs": []}
        for piece in pieces
    ]
    return {"content": told}
