"""Reads and rewrites responses of OpenAI's API."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from daitn.objects.deployments import Api
from daitn.openai.errors import DECODE_ERRORS
from daitn.openai.events import EventCutter, read_event
from daitn.openai.requests import NOTHING

__all__ = [
    "NotJson",
    "Usage",
    "answers",
    "confidence",
    "model_list",
    "model_object",
    "read_usage",
    "text_of",
    "usage_of",
    "with_counts",
    "with_logprobs",
    "without_counts",
    "without_logprobs",
]


_USAGE = b'"usage"'
_MAX_COUNT = 10_000_000
"""No context in use is longer. Owners are charged by these counts."""


class Usage(msgspec.Struct):
    """Token counts, as the deployment reported them; `None` means it did not, or the count is
    impossible."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Counts(msgspec.Struct):
    """The content of `usage`, each count separately: a bad one does not affect the others."""

    prompt_tokens: Any = None
    completion_tokens: Any = None
    total_tokens: Any = None


class _WithUsage(msgspec.Struct):
    usage: msgspec.Raw = NOTHING


class _Counting(_WithUsage):
    choices: list[msgspec.Raw] | None = None


class TokenLogprob(msgspec.Struct):
    """One token of a chat's answer."""

    logprob: float | None = None


class Logprobs(msgspec.Struct):
    """Log-probabilities of an answer's tokens."""

    content: list[TokenLogprob] | None = None
    """Content of a chat."""
    token_logprobs: list[float | None] | None = None
    """Log probabilities of a completion."""


class ContentPart(msgspec.Struct):
    """A part of a chat's answer; only text parts have `text`."""

    text: str = ""


class ChatContent(msgspec.Struct):
    """A chat's answer, or a piece of it."""

    content: str | list[ContentPart] | None = None

    @property
    def text(self) -> str | None:
        """The text; none if it is not text."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content


class Choice(msgspec.Struct):
    """One answer."""

    text: str | None = None
    """Text of a completion."""
    message: ChatContent | None = None
    """Message of a chat."""
    delta: ChatContent | None = None
    """Delta of a streamed chat."""
    logprobs: msgspec.Raw = NOTHING


class _WithChoices(msgspec.Struct):
    choices: list[Choice] = []


_COUNTS = msgspec.json.Decoder(_Counts)
_LOGPROBS: msgspec.json.Decoder[Logprobs | None] = msgspec.json.Decoder(Logprobs | None)
_WITH_USAGE = msgspec.json.Decoder(_WithUsage)
_CHOICES = msgspec.json.Decoder(_WithChoices)
_COUNTING = msgspec.json.Decoder(_Counting)
_OPTIONS: msgspec.json.Decoder[dict[str, msgspec.Raw] | None] = msgspec.json.Decoder(
    dict[str, msgspec.Raw] | None
)


class NotJson(Exception):
    """The body is not a JSON object."""


def read_usage(body: bytes) -> Usage | None:
    """Read the token counts; none if they are missing or impossible. Raises `NotJson`, also for a
    body that is not UTF-8."""
    try:
        body.decode()  # Values that are not read would pass.
        return usage_of(_WITH_USAGE.decode(body).usage)
    except DECODE_ERRORS:
        raise NotJson from None


def usage_of(usage: msgspec.Raw, *, writes: bool = True) -> Usage | None:
    """The token counts in a field `usage`; none if all are missing or impossible. `writes`: whether
    the answer consists of tokens, so that not all of them were read."""
    try:
        counts = _COUNTS.decode(usage)
    except DECODE_ERRORS:
        return None
    tokens_in, tokens_out = _count(counts.prompt_tokens), _count(counts.completion_tokens)
    total = _count(counts.total_tokens)
    if tokens_in is not None and tokens_out is None and total is not None and total >= tokens_in:
        tokens_out = total - tokens_in
    if tokens_in is None and not writes:
        tokens_in = total
    return None if tokens_in is None and tokens_out is None else Usage(tokens_in, tokens_out)


def _count(value: Any) -> int | None:
    possible = type(value) is int and 0 <= value <= _MAX_COUNT
    return value if possible else None


def with_counts(raw: Mapping[str, msgspec.Raw]) -> dict[str, object]:
    """Changes to a request for a stream, after which it ends with its token counts. Options that
    are none stay: the model refuses them."""
    try:
        options = _OPTIONS.decode(raw.get("stream_options", NOTHING))
    except DECODE_ERRORS:
        return {}
    return {"stream_options": {**(options or {}), "include_usage": True}}


def without_counts(events: bytes) -> bytes:
    """Whole events of a stream, without those that hold only token counts."""
    if _USAGE not in events:
        return events
    blocks = EventCutter().feed(events)
    return b"".join(block for block in blocks if not _only_counts(block))


def _only_counts(block: bytes) -> bool:
    event = read_event(block)
    if event is None or _USAGE not in event.data:
        return False
    try:
        piece = _COUNTING.decode(event.data)
    except DECODE_ERRORS:
        return False
    return bytes(piece.usage) != bytes(NOTHING) and not piece.choices


def with_logprobs(api: Api) -> dict[str, object]:
    """Request fields that request log-probabilities."""
    return {"logprobs": True if api is Api.CHAT else 1}


def confidence(body: bytes) -> float | None:
    """The model's confidence in its first answer, in [0, 1]; none without log-probabilities.

    The geometric mean of the token probabilities, that is exp of the mean log-probability: the
    length-normalised score of Murray and Chiang, "Correcting length bias in neural machine
    translation", WMT 2018.
    """
    answer = _first(body)
    try:
        logprobs = None if answer is None else _LOGPROBS.decode(answer.logprobs)
    except DECODE_ERRORS:
        return None
    if logprobs is None:
        return None
    logprobs_seen = (
        [token.logprob for token in logprobs.content or ()] or logprobs.token_logprobs or ()
    )
    values = [value for value in logprobs_seen if value is not None]
    if not values:
        return None
    mean = sum(values) / len(values)
    return math.exp(min(mean, 0.0)) if not math.isnan(mean) else None


def text_of(body: bytes) -> str | None:
    """The text of the first answer; none if the response has none."""
    answer = _first(body)
    if answer is None:
        return None
    return answer.text if answer.message is None else answer.message.text


def without_logprobs(body: bytes) -> bytes:
    """The answer without its log-probabilities."""
    answer = msgspec.json.decode(body)
    for choice in answer.get("choices", ()):
        if "logprobs" in choice:
            choice["logprobs"] = None
    return msgspec.json.encode(answer)


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
