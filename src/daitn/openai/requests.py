"""Requests of OpenAI's API, as gateways and facilities read them.

Most of a request concerns the model alone. A gateway reads a few fields, and passes the others on
byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from daitn.openai.errors import DECODE_ERRORS, from_decode_error
from daitn.openai.http import BOM

__all__ = [
    "GenerationRequest",
    "Message",
    "ModelFields",
    "Prompt",
    "Query",
    "StreamOptions",
    "raw_fields",
    "read_generation",
    "read_model_fields",
    "read_query",
    "rewritten",
]

T = TypeVar("T")

Count = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
Temperature = Annotated[float, msgspec.Meta(ge=0.0, le=2.0)]
Prompt = str | list[str | int | list[int]]
"""One text or several; each may be given as tokens."""
_PositiveCount = Annotated[int, msgspec.Meta(ge=1, le=2**20)]
_StopText = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


class Part(msgspec.Struct):
    """A part of a message; only text parts have `text`."""

    text: str | None = None


class Message(msgspec.Struct):
    """One turn of a chat."""

    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content or () if part.text)


class ModelFields(msgspec.Struct):
    """The fields that name the model."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    stream: bool | None = None
    n: Any = None
    prompt: Any = None

    @property
    def choices(self) -> int:
        """Choices that the answer has: `n` for each prompt."""
        each = self.n if isinstance(self.n, int) and self.n > 0 else 1
        prompts = self.prompt if isinstance(self.prompt, list) else []
        return each * max(1, sum(isinstance(prompt, (str, list)) for prompt in prompts))


class Query(ModelFields):
    """The fields that decide a query's route."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)] | None = None
    prompt: Prompt | None = None
    input: Prompt | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Temperature | None = None
    seed: int | None = None
    logprobs: bool | int | None = None
    stream_options: Any = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream shall end with its token counts."""
        options = self.stream_options
        return isinstance(options, dict) and options.get("include_usage") is True


class StreamOptions(msgspec.Struct):
    """What a stream reports besides its text."""

    include_usage: bool = False


class ResponseFormat(msgspec.Struct):
    """The form of the answer."""

    type: str = "text"


class GenerationRequest(msgspec.Struct):
    """The fields that a model placed by the network reads, narrower than OpenAI's."""

    messages: Annotated[list[Message], msgspec.Meta(max_length=10_000)] = []
    prompt: str | list[str] = ""
    input: str | list[str] = ""
    max_tokens: _PositiveCount | None = None
    max_completion_tokens: _PositiveCount | None = None
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
        """Texts that end the answer; they are not part of it."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


def _reader(kind: type[T]) -> Callable[[bytes], T]:
    """A decoder that raises `ApiError` (400) that names the bad field."""
    decode = msgspec.json.Decoder(kind).decode

    def read(body: bytes) -> T:
        try:
            return decode(body.removeprefix(BOM))
        except DECODE_ERRORS as error:
            raise from_decode_error(error, body=body) from None

    return read


read_model_fields = _reader(ModelFields)
read_query = _reader(Query)
read_generation = _reader(GenerationRequest)
raw_fields = _reader(dict[str, msgspec.Raw])
"""Fields of a request, as they arrived."""

_ENCODER = msgspec.json.Encoder()


def rewritten(raw: Mapping[str, msgspec.Raw], changes: Mapping[str, object]) -> bytes:
    """The request with some fields replaced and all others byte for byte."""
    return _ENCODER.encode({**raw, **changes})
