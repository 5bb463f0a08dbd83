"""Reads and rewrites responses of OpenAI's API."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from daitn.objects.deployments import Api
from daitn.openai.errors import DECODE_ERRORS
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
    "read_outline",
    "read_usage",
    "text_of",
    "with_logprobs",
    "without_logprobs",
]


_NOTHING = msgspec.Raw(b"null")
Count = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
"""No context in use is longer. Owners are charged by these counts."""


class Usage(msgspec.Struct):
    """Token counts, as the deployment reported them."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0


class _WithUsage(msgspec.Struct):
    usage: msgspec.Raw = _NOTHING

    @property
    def counts(self) -> Usage | None:
        """The token counts; none if they are missing or impossible."""
        try:
            return _USAGE.decode(self.usage)
        except DECODE_ERRORS:
            return None


class Outline(_WithUsage):
    """Whether a response holds an answer, and its token counts."""

    choices: list[msgspec.Raw] = []
    data: list[msgspec.Raw] = []
    """Of embeddings."""


class Token(msgspec.Struct):
    """One token of a chat's answer."""

    logprob: float = -math.inf


class Logprobs(msgspec.Struct):
    """Log-probabilities of an answer's tokens."""

    content: list[Token] | None = None
    """Of a chat."""
    token_logprobs: list[float | None] | None = None
    """Of a completion."""


class ChatContent(msgspec.Struct):
    """A chat's answer, or a piece of it."""

    content: str | None = None


class Choice(msgspec.Struct):
    """One answer."""

    text: str | None = None
    """Of a completion."""
    message: ChatContent | None = None
    """Of a chat."""
    delta: ChatContent | None = None
    """Of a chat that streams."""
    logprobs: Logprobs | None = None


class _WithChoices(msgspec.Struct):
    choices: list[Choice] = []


_USAGE: msgspec.json.Decoder[Usage | None] = msgspec.json.Decoder(Usage | None)
_WITH_USAGE = msgspec.json.Decoder(_WithUsage)
_OUTLINE = msgspec.json.Decoder(Outline)
_CHOICES = msgspec.json.Decoder(_WithChoices)


class NotJson(Exception):
    """The body is not a JSON object."""


def read_usage(body: bytes) -> Usage | None:
    """Read the token counts; none if they are missing or impossible. Raises `NotJson`, also for a
    body that is not UTF-8."""
    try:
        body.decode()  # Values that are not read would pass.
        return _WITH_USAGE.decode(body).counts
    except DECODE_ERRORS:
        raise NotJson from None


def read_outline(body: bytes) -> Outline:
    """Read the outline of a response; an empty one if the body is not a response in UTF-8."""
    try:
        body.decode()
        return _OUTLINE.decode(body)
    except DECODE_ERRORS:
        return Outline()


def with_logprobs(api: Api) -> dict[str, object]:
    """Request fields that ask a deployment for log-probabilities."""
    return {"logprobs": True if api is Api.CHAT else 1}


def confidence(body: bytes) -> float | None:
    """The model's confidence in its first answer, in [0, 1]; none without log-probabilities.

    The geometric mean of the token probabilities, that is exp of the mean log-probability: the
    length-normalised score of Murray and Chiang, "Correcting length bias in neural machine
    translation", WMT 2018.
    """
    answer = _first(body)
    if answer is None or answer.logprobs is None:
        return None
    logprobs = answer.logprobs
    chat = [token.logprob for token in logprobs.content or ()]
    values = chat or [value for value in logprobs.token_logprobs or () if value is not None]
    if not values:
        return None
    mean = sum(values) / len(values)
    return math.exp(min(mean, 0.0)) if not math.isnan(mean) else None


def text_of(body: bytes) -> str | None:
    """The text of the first answer; none if the response has none."""
    answer = _first(body)
    if answer is None:
        return None
    return answer.text if answer.message is None else answer.message.content


def without_logprobs(body: bytes) -> bytes:
    """The answer without its log-probabilities."""
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
    """The choices of a response; none if the body is not a response."""
    try:
        return _CHOICES.decode(body).choices
    except DECODE_ERRORS:
        return None


def _first(body: bytes) -> Choice | None:
    choices = answers(body)
    return choices[0] if choices else None


def model_object(name: str, owner: str) -> dict[str, object]:
    """A model in OpenAI's form. `created` is 0: it is unknown for models of other servers."""
    return {"id": name, "object": "model", "created": 0, "owned_by": owner or "daitn"}


def model_list(owners: Mapping[str, str]) -> dict[str, object]:
    """Models, by name, with their owners."""
    data = [model_object(name, owner) for name, owner in owners.items()]
    return {"object": "list", "data": data}
