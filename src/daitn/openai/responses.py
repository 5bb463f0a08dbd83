"""Responses of OpenAI's API: what is read of them, and how they are rewritten."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from daitn.objects.deployments import Api
from daitn.openai.errors import NOT_READ
from daitn.openai.http import DONE, as_event

__all__ = [
    "NotJson",
    "Outline",
    "Usage",
    "answers",
    "as_events",
    "confidence",
    "model_list",
    "model_object",
    "outline",
    "read_usage",
    "text_of",
    "with_logprobs",
    "without_logprobs",
]


class Usage(msgspec.Struct):
    """Tokens, as the deployment counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Counted(msgspec.Struct):
    usage: Usage | None = None


class Outline(_Counted):
    """Whether there is an answer, and what it took."""

    choices: list[msgspec.Raw] = []
    data: list[msgspec.Raw] = []
    """Of embeddings."""


class Token(msgspec.Struct):
    """One token of a chat's answer."""

    logprob: float = -math.inf


class Logprobs(msgspec.Struct):
    """How sure a model is of its tokens."""

    content: list[Token] | None = None
    """Of a chat."""
    token_logprobs: list[float | None] | None = None
    """Of a completion."""


class Said(msgspec.Struct):
    """A chat's answer, or a piece of it."""

    content: str | None = None


class Choice(msgspec.Struct):
    """One answer."""

    text: str | None = None
    """Of a completion."""
    message: Said | None = None
    """Of a chat."""
    delta: Said | None = None
    """Of a chat that streams."""
    logprobs: Logprobs | None = None


class _Answer(msgspec.Struct):
    choices: list[Choice] = []


_COUNTED = msgspec.json.Decoder(_Counted)
_OUTLINE = msgspec.json.Decoder(Outline)
_ANSWER = msgspec.json.Decoder(_Answer)


class NotJson(Exception):
    """What a deployment answers is no JSON object."""


def read_usage(body: bytes) -> Usage | None:
    """None where the body does not tell, or tells nonsense. Raises `NotJson`."""
    try:
        usage = _COUNTED.decode(body).usage
    except msgspec.ValidationError as error:
        if " - at " in str(error):  # An object, of which something within is wrong.
            return None
        raise NotJson from None
    except NOT_READ:
        raise NotJson from None
    if usage is None or usage.prompt_tokens < 0 or usage.completion_tokens < 0:
        return None
    return usage


def outline(body: bytes) -> Outline:
    """An empty one where the body is no response."""
    try:
        return _OUTLINE.decode(body)
    except NOT_READ:
        return Outline()


def with_logprobs(api: Api) -> dict[str, object]:
    """Fields of a request that make a deployment tell how sure it is."""
    asked: object = True if api is Api.CHAT else 1
    return {"logprobs": asked}


def confidence(body: bytes) -> float | None:
    """How sure a model is of its first answer, in [0, 1]; none where it does not tell.

    The geometric mean of the probabilities of its tokens, that is exp of the mean log-probability:
    the length-normalised score of Murray and Chiang, "Correcting length bias in neural machine
    translation", WMT 2018.
    """
    answer = _first(body)
    if answer is None or answer.logprobs is None:
        return None
    told = answer.logprobs
    chat = [token.logprob for token in told.content or ()]
    values = chat or [value for value in told.token_logprobs or () if value is not None]
    if not values:
        return None
    mean = sum(values) / len(values)
    return math.exp(min(mean, 0.0)) if not math.isnan(mean) else None


def text_of(body: bytes) -> str | None:
    """The text of the first answer; none where there is none."""
    answer = _first(body)
    if answer is None:
        return None
    return answer.text if answer.message is None else answer.message.content


def without_logprobs(body: bytes) -> bytes:
    """The same answer as if log-probabilities had not been asked for."""
    answer = msgspec.json.decode(body)
    for choice in answer.get("choices", ()):
        if "logprobs" in choice:
            choice["logprobs"] = None
    return msgspec.json.encode(answer)


def as_events(body: bytes, api: Api) -> bytes:
    """A whole answer as a stream of one piece."""
    answer: dict[str, Any] = msgspec.json.decode(body)
    answer.pop("usage", None)
    if api is Api.CHAT:
        answer["object"] = "chat.completion.chunk"
        for choice in answer.get("choices", ()):
            choice["delta"] = choice.pop("message", {})
    return as_event(msgspec.json.encode(answer)) + DONE


def answers(body: bytes) -> list[Choice] | None:
    """None where the body is no response."""
    try:
        return _ANSWER.decode(body).choices
    except NOT_READ:
        return None


def _first(body: bytes) -> Choice | None:
    choices = answers(body)
    return choices[0] if choices else None


def model_object(name: str, owner: str) -> dict[str, object]:
    """`created` is not known of models of other servers."""
    return {"id": name, "object": "model", "created": 0, "owned_by": owner or "daitn"}


def model_list(owners: Mapping[str, str]) -> dict[str, object]:
    """Of models with their owners."""
    data = [model_object(name, owner) for name, owner in owners.items()]
    return {"object": "list", "data": data}
