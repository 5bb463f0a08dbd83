"""Requests of OpenAI's API, as far as somebody between asker and model reads them.

All of a request is a model's business; who passes it on reads a few fields, and leaves the others
as they are, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, TypeVar

import msgspec

from daitn.openai.errors import NOT_READ, fault

__all__ = [
    "Addressed",
    "GenerationRequest",
    "Message",
    "Prompt",
    "Query",
    "StreamOptions",
    "raw_fields",
    "read_addressed",
    "read_generation",
    "read_query",
    "rewritten",
]

T = TypeVar("T")

Count = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
Temperature = Annotated[float, msgspec.Meta(ge=0.0, le=2.0)]
Prompt = str | list[str | int | list[int]]
"""A text or several, of which each may be given as tokens."""
_LeastCount = Annotated[int, msgspec.Meta(ge=1, le=2**20)]
_StopText = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


class Part(msgspec.Struct):
    """Of a message; those that are no text have none."""

    text: str = ""


class Message(msgspec.Struct):
    """One turn of a chat."""

    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content or () if part.text)


class Addressed(msgspec.Struct):
    """Who is asked."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    stream: bool | None = None


class Query(Addressed):
    """What a route depends on."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)] | None = None
    prompt: Prompt | None = None
    input: Prompt | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Temperature | None = None
    seed: int | None = None
    logprobs: bool | int | None = None


class StreamOptions(msgspec.Struct):
    """What a stream tells beside its text."""

    include_usage: bool = False


class ResponseFormat(msgspec.Struct):
    """The form that an answer has to have."""

    type: str = "text"


class GenerationRequest(msgspec.Struct):
    """What a model that the network placed heeds. It is narrower than the API."""

    messages: Annotated[list[Message], msgspec.Meta(max_length=10_000)] = []
    prompt: str | list[str] = ""
    input: str | list[str] = ""
    max_tokens: _LeastCount | None = None
    max_completion_tokens: _LeastCount | None = None
    temperature: Temperature | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    logprobs: bool | int | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stop: _StopText | Annotated[list[_StopText], msgspec.Meta(max_length=4)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] | None = None
    tools: list[msgspec.Raw] | None = None
    response_format: ResponseFormat | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts before which the answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


def _reader(kind: type[T]) -> Callable[[bytes], T]:
    """Raises `ApiError` (400) that names the field that is wrong."""
    decode = msgspec.json.Decoder(kind).decode

    def read(body: bytes) -> T:
        try:
            return decode(body)
        except NOT_READ as error:
            raise fault(error) from None

    return read


read_addressed = _reader(Addressed)
read_query = _reader(Query)
read_generation = _reader(GenerationRequest)
raw_fields = _reader(dict[str, msgspec.Raw])
"""A request field by field, as it came."""

_ENCODER = msgspec.json.Encoder()


def rewritten(raw: Mapping[str, msgspec.Raw], changes: Mapping[str, object]) -> bytes:
    """The request with some fields replaced, and all others byte for byte."""
    return _ENCODER.encode({**raw, **changes})
