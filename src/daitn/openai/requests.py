"""Requests of OpenAI's API, as read by gateways and facilities.

Most of a request concerns the model alone. A gateway reads a few fields, and passes the others on
byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from daitn.objects.bounds import Share
from daitn.objects.identifiers import Word
from daitn.openai.errors import DECODE_ERRORS, from_decode_error
from daitn.openai.http import BOM

__all__ = [
    "NOTHING",
    "ChatMessage",
    "Document",
    "GenerationRequest",
    "MessagePart",
    "ModelFields",
    "Prompt",
    "QueryFields",
    "RankingFields",
    "StreamOptions",
    "Tool",
    "raw_fields",
    "read_generation",
    "read_model_fields",
    "read_query",
    "read_ranking",
    "reader",
    "rewritten",
    "text_of_document",
]

T = TypeVar("T")

Bound = Annotated[int, msgspec.Meta(ge=-1, le=2**31)]
"""Bound on an answer, in tokens; for LM Studio and llama.cpp, -1 means none."""
Temperature = Annotated[float, msgspec.Meta(ge=0.0, le=2.0)]
Prompt = str | list[str | int | list[int]]
"""One text or several; each may be given as tokens."""
_PositiveCount = Annotated[int, msgspec.Meta(ge=1, le=2**20)]
_Penalty = Annotated[float, msgspec.Meta(ge=-2.0, le=2.0)]
_Bias = Annotated[float, msgspec.Meta(ge=-100.0, le=100.0)]
_StopText = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


NOTHING = msgspec.Raw(b"null")


class MessagePart(msgspec.Struct):
    """A part of a message; only text parts have `text`."""

    text: str | None = None
    type: str = "text"
    image_url: msgspec.Raw = NOTHING


class _Stated(msgspec.Struct):
    role: str
    content: str | list[MessagePart] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content or () if part.text)


class ChatMessage(_Stated):
    """One turn of a chat."""

    tool_calls: msgspec.Raw = NOTHING
    function_call: msgspec.Raw = NOTHING


class Document(msgspec.Struct):
    """A document to be ranked, or the query; a model may read further fields."""

    text: str | None = None
    content: list[MessagePart] = []
    """As in vLLM."""
    image: msgspec.Raw = NOTHING
    """As in Jina's API."""


def text_of_document(document: str | Document) -> str:
    """The text of a document."""
    if isinstance(document, str):
        return document
    texts = [document.text, *(part.text for part in document.content)]
    return "\n".join(text for text in texts if text)


class ModelFields(msgspec.Struct):
    """The fields that name the model."""

    model: Annotated[Word, msgspec.Meta(min_length=1)]
    """Part of what the gateway records and tells the network: a name like all others there."""
    stream: bool | None = None
    stream_options: Any = None
    n: Any = None
    prompt: Any = None

    @property
    def choices(self) -> int:
        """Number of choices in the answer: `n` for each prompt."""
        each = self.n if isinstance(self.n, int) and self.n > 0 else 1
        prompts = self.prompt if isinstance(self.prompt, list) else []
        return each * max(1, sum(isinstance(prompt, (str, list)) for prompt in prompts))

    @property
    def include_usage(self) -> bool:
        """Whether a stream should end with its token counts."""
        options = self.stream_options
        return isinstance(options, dict) and options.get("include_usage") is True


class QueryFields(ModelFields):
    """The fields that determine a query's route. Raw fields are for the model to judge."""

    messages: Annotated[list[ChatMessage], msgspec.Meta(min_length=1)] | None = None
    prompt: Prompt | None = None
    input: Prompt | None = None
    max_tokens: Bound | None = None
    max_completion_tokens: Bound | None = None
    temperature: float | None = None
    seed: int | None = None
    logprobs: bool | int | None = None
    tools: msgspec.Raw = NOTHING
    functions: msgspec.Raw = NOTHING
    response_format: msgspec.Raw = NOTHING
    modalities: msgspec.Raw = NOTHING

    @property
    def most_tokens(self) -> int | None:
        """Maximum tokens of the answer; `None` means the request states no bound."""
        stated = (self.max_completion_tokens, self.max_tokens)
        return next((bound for bound in stated if bound is not None and bound > 0), None)


class RankingFields(QueryFields):
    """The fields of a request to rank documents."""

    query: str | Document | None = None
    documents: list[str | Document] = []
    top_n: Annotated[int, msgspec.Meta(ge=1)] | None = None

    @property
    def choices(self) -> int:
        """Number of documents that the answer can name."""
        return len(self.documents)


class StreamOptions(msgspec.Struct):
    """What a stream reports besides its text; gateways and facilities see to it."""

    include_usage: bool = False


class CalledFunction(msgspec.Struct):
    """An assistant's call of a function."""

    name: str
    arguments: str = "{}"


class Call(msgspec.Struct):
    """A tool call by an assistant."""

    function: CalledFunction
    id: str = ""


class Turn(_Stated):
    """One turn of a chat, with its calls of tools."""

    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None


class OfferedFunction(msgspec.Struct, omit_defaults=True):
    """A function that a model may call."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(msgspec.Struct, kw_only=True):
    """A tool that a model may call."""

    type: Literal["function"] = "function"
    function: OfferedFunction


class GenerationRequest(msgspec.Struct):
    """The fields that a model placed by the network reads, narrower than OpenAI's."""

    messages: Annotated[list[Turn], msgspec.Meta(max_length=10_000)] = []
    prompt: str | list[str] = ""
    input: str | list[str] = ""
    max_tokens: _PositiveCount | None = None
    max_completion_tokens: _PositiveCount | None = None
    temperature: Temperature | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    logprobs: bool | int | None = None
    stream_options: StreamOptions | None = None
    stop: _StopText | Annotated[list[_StopText], msgspec.Meta(max_length=4)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=-1, le=2**31)] | None = None
    min_p: Share | None = None
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(gt=0.0, le=100.0)] | None = None
    logit_bias: Annotated[dict[str, _Bias], msgspec.Meta(max_length=1024)] | None = None
    min_tokens: Annotated[int, msgspec.Meta(ge=0, le=2**20)] | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], msgspec.Meta(max_length=1024)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    encoding_format: Literal["float", "base64"] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end the answer; they are not part of it."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


def reader(kind: type[T]) -> Callable[[bytes], T]:
    """A decoder that raises `ApiError` (400) naming the bad field."""
    decode = msgspec.json.Decoder(kind).decode

    def read(body: bytes) -> T:
        try:
            return decode(body.removeprefix(BOM))
        except DECODE_ERRORS as error:
            raise from_decode_error(error, body=body) from None

    return read


read_model_fields = reader(ModelFields)
read_query = reader(QueryFields)
read_ranking = reader(RankingFields)
read_generation = reader(GenerationRequest)
raw_fields = reader(dict[str, msgspec.Raw])
"""Fields of a request, as they arrived."""

_ENCODER = msgspec.json.Encoder()


def rewritten(raw: Mapping[str, msgspec.Raw], changes: Mapping[str, object]) -> bytes:
    """The request with some fields replaced and all others unchanged, byte for byte."""
    return _ENCODER.encode({**raw, **changes})
