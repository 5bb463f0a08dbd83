"""Answers in the form of OpenAI's API, made of a model's pieces."""

from __future__ import annotations

from typing import Any

import msgspec

from daitn.learning.answering.protocol import Piece
from daitn.node.serving.request import ServingRequest
from daitn.objects.deployments import Api

__all__ = ["DONE", "embeddings", "ending", "event", "used", "whole"]

DONE = b"data: [DONE]\n\n"
_KINDS = {
    (Api.CHAT, False): "chat.completion",
    (Api.CHAT, True): "chat.completion.chunk",
    (Api.COMPLETIONS, False): "text_completion",
    (Api.COMPLETIONS, True): "text_completion",
}


def event(query: ServingRequest, piece: Piece, first: bool, logprobs: bool) -> bytes:
    """One piece of a streamed answer."""
    said: dict[str, Any] = {"text": piece.text}
    if query.api is Api.CHAT:
        role = {"role": "assistant"} if first else {}
        said = {"delta": {**role, "content": piece.text}}
    return _event(query, {**said, "logprobs": _logprobs(query, [piece], logprobs)}, None)


def ending(query: ServingRequest, reason: str) -> bytes:
    """The last piece of a streamed answer, without text."""
    said: dict[str, Any] = {"delta": {}} if query.api is Api.CHAT else {"text": ""}
    return _event(query, {**said, "logprobs": None}, reason)


def used(query: ServingRequest, tokens_in: int, tokens_out: int) -> bytes:
    """What a streamed answer took, for who asked to be told."""
    told = {"choices": [], "usage": _usage(tokens_in, tokens_out)}
    return b"data: " + msgspec.json.encode({**_head(query, streamed=True), **told}) + b"\n\n"


def whole(
    query: ServingRequest, pieces: list[Piece], tokens_in: int, reason: str, logprobs: bool
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


def embeddings(query: ServingRequest, vectors: list[list[float]], tokens_in: int) -> bytes:
    """A vector per text."""
    data = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens_in, "total_tokens": tokens_in}
    return msgspec.json.encode(
        {"object": "list", "data": data, "model": query.model, "usage": usage}
    )


def _event(query: ServingRequest, choice: dict[str, Any], reason: str | None) -> bytes:
    said = {"index": 0, **choice, "finish_reason": reason}
    plain = {**_head(query, streamed=True), "choices": [said]}
    return b"data: " + msgspec.json.encode(plain) + b"\n\n"


def _head(query: ServingRequest, streamed: bool) -> dict[str, Any]:
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


def _logprobs(query: ServingRequest, pieces: list[Piece], wanted: bool) -> dict[str, Any] | None:
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
