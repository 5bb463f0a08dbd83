"""Encodes a model's output as responses of OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from daitn.objects.deployments import Api
from daitn.openai.http import as_event

__all__ = [
    "RequestInfo",
    "TextPiece",
    "completion",
    "embeddings",
    "final_event",
    "piece_event",
    "usage_event",
]

_OBJECT_TYPES = {
    (Api.CHAT, False): "chat.completion",
    (Api.CHAT, True): "chat.completion.chunk",
    (Api.COMPLETIONS, False): "text_completion",
    (Api.COMPLETIONS, True): "text_completion",
}


class RequestInfo(Protocol):
    """What a response repeats from its request."""

    @property
    def api(self) -> Api: ...
    @property
    def model(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def created_s(self) -> int: ...


class TextPiece(Protocol):
    """A piece of an answer."""

    @property
    def text(self) -> str: ...
    @property
    def logprob(self) -> float: ...
    @property
    def tokens(self) -> int: ...


def piece_event(query: RequestInfo, piece: TextPiece, first: bool, logprobs: bool) -> bytes:
    """A piece of a streamed answer, as an event."""
    choice: dict[str, Any] = {"text": piece.text}
    if query.api is Api.CHAT:
        role = {"role": "assistant"} if first else {}
        choice = {"delta": {**role, "content": piece.text}}
    return _event(query, {**choice, "logprobs": _logprobs(query, [piece], logprobs)}, None)


def final_event(query: RequestInfo, reason: str) -> bytes:
    """The last event of a streamed answer that carries a choice."""
    choice: dict[str, Any] = {"delta": {}} if query.api is Api.CHAT else {"text": ""}
    return _event(query, {**choice, "logprobs": None}, reason)


def usage_event(query: RequestInfo, tokens_in: int, tokens_out: int) -> bytes:
    """Token counts of a streamed answer, for clients that set `include_usage`."""
    usage = {"choices": [], "usage": _usage(tokens_in, tokens_out)}
    return as_event(msgspec.json.encode({**_head(query, streamed=True), **usage}))


def completion(
    query: RequestInfo, pieces: Sequence[TextPiece], tokens_in: int, reason: str, logprobs: bool
) -> bytes:
    """A whole answer."""
    text = "".join(piece.text for piece in pieces)
    content: dict[str, Any] = {"text": text}
    if query.api is Api.CHAT:
        content = {"message": {"role": "assistant", "content": text}}
    tokens_out = sum(piece.tokens for piece in pieces)
    choice = {
        "index": 0,
        **content,
        "logprobs": _logprobs(query, pieces, logprobs),
        "finish_reason": reason,
    }
    return msgspec.json.encode(
        {
            **_head(query, streamed=False),
            "choices": [choice],
            "usage": _usage(tokens_in, tokens_out),
        }
    )


def embeddings(query: RequestInfo, vectors: list[list[float]], tokens_in: int) -> bytes:
    """One vector per text."""
    data = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens_in, "total_tokens": tokens_in}
    return msgspec.json.encode(
        {"object": "list", "data": data, "model": query.model, "usage": usage}
    )


def _event(query: RequestInfo, choice: dict[str, Any], reason: str | None) -> bytes:
    indexed = {"index": 0, **choice, "finish_reason": reason}
    return as_event(msgspec.json.encode({**_head(query, streamed=True), "choices": [indexed]}))


def _head(query: RequestInfo, streamed: bool) -> dict[str, Any]:
    return {
        "id": query.id,
        "object": _OBJECT_TYPES[query.api, streamed],
        "created": query.created_s,
        "model": query.model,
    }


def _usage(tokens_in: int, tokens_out: int) -> dict[str, int]:
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }


def _logprobs(
    query: RequestInfo, pieces: Sequence[TextPiece], enabled: bool
) -> dict[str, Any] | None:
    if not enabled:
        return None
    if query.api is Api.COMPLETIONS:
        return {
            "tokens": [piece.text for piece in pieces],
            "token_logprobs": [piece.logprob for piece in pieces],
        }
    tokens: list[dict[str, Any]] = [
        {"token": piece.text, "logprob": piece.logprob, "bytes": None, "top_logprobs": []}
        for piece in pieces
    ]
    return {"content": tokens}
