"""Encodes a model's output as responses of OpenAI's API."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

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


class TextToken(Protocol):
    """A token of an answer."""

    @property
    def text(self) -> str: ...
    @property
    def logprob(self) -> float: ...
    @property
    def whole(self) -> bool: ...
    @property
    def top(self) -> Sequence[TextToken]: ...


class CalledTool(Protocol):
    """A tool call in an answer."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def arguments(self) -> str: ...


class TextPiece(Protocol):
    """A piece of an answer."""

    @property
    def text(self) -> str: ...
    @property
    def logprob(self) -> float: ...
    @property
    def tokens(self) -> int: ...
    @property
    def each(self) -> Sequence[TextToken]: ...
    @property
    def calls(self) -> Sequence[CalledTool]: ...


def piece_event(
    query: RequestInfo, piece: TextPiece, first: bool, logprobs: bool, *, calls_before: int = 0
) -> bytes:
    """A piece of a streamed answer, as an event; `calls_before`: number of earlier tool calls."""
    choice: dict[str, Any] = {"text": piece.text}
    if query.api is Api.CHAT:
        delta: dict[str, Any] = {"role": "assistant"} if first else {}
        if piece.text or not piece.calls:
            delta["content"] = piece.text
        if piece.calls:
            calls = enumerate(piece.calls, calls_before)
            delta["tool_calls"] = [{"index": index, **_call(call)} for index, call in calls]
        choice = {"delta": delta}
    return _event(query, {**choice, "logprobs": _logprobs(query, [piece], logprobs)}, None)


def final_event(query: RequestInfo, reason: str) -> bytes:
    """The last event of a streamed answer that carries a choice."""
    choice: dict[str, Any] = {"delta": {}} if query.api is Api.CHAT else {"text": ""}
    return _event(query, {**choice, "logprobs": None}, reason)


def usage_event(query: RequestInfo, tokens_in: int, tokens_out: int) -> bytes:
    """Token counts of a streamed answer."""
    usage = {"choices": [], "usage": _usage(tokens_in, tokens_out)}
    return as_event(msgspec.json.encode({**_head(query, streamed=True), **usage}))


def completion(
    query: RequestInfo, pieces: Sequence[TextPiece], tokens_in: int, reason: str, logprobs: bool
) -> bytes:
    """A whole answer."""
    text = "".join(piece.text for piece in pieces)
    content: dict[str, Any] = {"text": text}
    if query.api is Api.CHAT:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if calls := [_call(call) for piece in pieces for call in piece.calls]:
            message |= {"content": text or None, "tool_calls": calls}
        content = {"message": message}
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


def embeddings(
    query: RequestInfo, vectors: list[list[float]], tokens_in: int, *, packed: bool = False
) -> bytes:
    """One vector per text; `packed`: in base64, of floats of four bytes, little-endian."""
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if packed else vector}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens_in, "total_tokens": tokens_in}
    return msgspec.json.encode(
        {"object": "list", "data": data, "model": query.model, "usage": usage}
    )


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _call(call: CalledTool) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


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
    if not enabled or not pieces:
        return None
    tokens: list[TextToken] = []
    for piece in pieces:
        # A piece with unknown tokens counts as one.
        tokens += piece.each or [_Token(piece.text, piece.logprob)]
    if query.api is Api.COMPLETIONS:
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [_likeliest(token) for token in tokens] if tokens[0].top else None,
        }
    content = [
        {**_scored(token), "top_logprobs": [_scored(one) for one in token.top]} for token in tokens
    ]
    return {"content": content}


def _likeliest(token: TextToken) -> dict[str, float]:
    return {one.text: one.logprob for one in token.top}


def _scored(token: TextToken) -> dict[str, Any]:
    read = list(token.text.encode()) if token.whole else None
    return {"token": token.text, "logprob": token.logprob, "bytes": read}


class _Token(NamedTuple):
    text: str
    logprob: float
    whole: bool = False
    top: tuple[TextToken, ...] = ()
