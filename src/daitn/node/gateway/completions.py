"""Answers in OpenAI's API: what a gateway reads of them, and how it rewrites them."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from daitn.objects.deployments import Api

__all__ = [
    "NotJson",
    "Usage",
    "as_events",
    "confidence",
    "read_usage",
    "text_of",
    "with_logprobs",
    "without_logprobs",
]


class Usage(msgspec.Struct):
    """Tokens, as the deployment counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Told(msgspec.Struct):
    usage: Usage | None = None


class _Token(msgspec.Struct):
    logprob: float = -math.inf


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None
    """Of a chat."""
    token_logprobs: list[float | None] | None = None
    """Of a completion."""


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    message: _Message | None = None
    logprobs: _Logprobs | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] = []


_TOLD = msgspec.json.Decoder(_Told)
_ANSWER = msgspec.json.Decoder(_Answer)
_FAULTS = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


class NotJson(Exception):
    """What a deployment answers is no JSON object."""


def read_usage(body: bytes) -> Usage | None:
    """None where the body does not tell, or tells nonsense. Raises `NotJson`."""
    try:
        usage = _TOLD.decode(body).usage
    except msgspec.ValidationError as error:
        if " - at " in str(error):  # An object, of which something within is wrong.
            return None
        raise NotJson from None
    except _FAULTS:
        raise NotJson from None
    if usage is None or usage.prompt_tokens < 0 or usage.completion_tokens < 0:
        return None
    return usage


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
    answer = _read(body)
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
    answer = _read(body)
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
    return b"data: " + msgspec.json.encode(answer) + b"\n\ndata: [DONE]\n\n"


def _read(body: bytes) -> _Choice | None:
    try:
        choices = _ANSWER.decode(body).choices
    except _FAULTS:
        return None
    return choices[0] if choices else None
