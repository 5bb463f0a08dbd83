"""What a recipe can do besides training: answer with a model.

A recipe that offers `apis` and `open` besides the methods of `Recipe` can be hosted. Like those,
these run in their own process, and may not reach the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec

from daitn.learning.recipe import Config
from daitn.objects.deployments import ANY_CONTEXT, Api
from daitn.objects.errors import InvalidInput

__all__ = [
    "SAMPLING",
    "TEMPLATE",
    "TOOLS",
    "Answering",
    "Describing",
    "Facts",
    "Generator",
    "Hosting",
    "Message",
    "Piece",
    "Question",
    "Room",
    "Token",
    "ToolCall",
    "only_message",
]

SAMPLING = (
    "frequency_penalty",
    "logit_bias",
    "min_p",
    "min_tokens",
    "presence_penalty",
    "repetition_penalty",
    "top_k",
    "top_logprobs",
)
"""Fields of a request on how tokens are drawn; see `Facts.honours`."""
TOOLS = ("parallel_tool_calls", "tool_choice", "tools")
"""Fields of a request on tools."""
TEMPLATE = ("add_generation_prompt", "continue_final_message")
"""Fields of a request on the use of a chat template."""


class ToolCall(msgspec.Struct, frozen=True):
    """A tool call by a model."""

    id: str
    name: str
    arguments: str
    """A JSON object, as text."""


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: str
    content: str
    calls: tuple[ToolCall, ...] = ()
    """Calls of an assistant's turn."""
    call_id: str = ""
    """For a tool's turn: the call that it answers."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question to a model. A bare prompt is one message with the role `user`."""

    messages: tuple[Message, ...]
    max_tokens: int | None
    """Maximum length of the answer; `None` means as long as the model can. The model itself gets a
    number."""
    temperature: float
    """0 means always the likeliest token, hence the same answer from the same weights."""
    seed: int
    top_p: float = 1.0
    """Draw only from the likeliest tokens that together have this much of the probability."""
    top_k: int = 0
    """Draw only from this many of the likeliest tokens; 0 means from all."""
    min_p: float = 0.0
    """Draw only from tokens with this share of the likeliest one's probability."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's score for each of its earlier occurrences."""
    presence_penalty: float = 0.0
    """Subtracted from the score of each token that has occurred."""
    repetition_penalty: float = 1.0
    """Positive scores of tokens that have occurred are divided by it, negative ones multiplied."""
    logit_bias: dict[int, float] = {}
    """Added to the scores of tokens."""
    min_tokens: int = 0
    """The answer does not end before."""
    top_logprobs: int | None = None
    """How many of the likeliest tokens each piece names; `None` means not even its own."""
    continues: bool = False
    """The only message is not a question but a text to continue."""
    tools: tuple[dict[str, Any], ...] = ()
    """Tools available to the model, as in OpenAI's API."""
    continues_answer: bool = False
    """The last message is the beginning of the answer."""


class Token(msgspec.Struct, frozen=True):
    """A token of an answer."""

    text: str
    logprob: float
    whole: bool = True
    """Whether it is the text, rather than the name of a special token or of a part of a
    character."""
    top: tuple[Token, ...] = ()
    """The likeliest tokens at its position."""


class Piece(msgspec.Struct, frozen=True):
    """A piece of an answer, of one or more tokens."""

    text: str
    logprob: float
    """Natural logarithm of its probability under the model."""
    tokens: int = 1
    each: tuple[Token, ...] = ()
    """Its tokens, if requested (`Question.top_logprobs`)."""
    calls: tuple[ToolCall, ...] = ()
    """Tool calls."""


class Generator(Protocol):
    """A loaded model that answers."""

    most_tokens: int
    """Limit on the length of answers."""

    def length(self, question: Question) -> int:
        """Length of the question in tokens. Raises like `answer`."""
        ...

    def answer(self, question: Question) -> Iterator[Piece | None]:
        """The answer, piece by piece; none for a step without one. Steps are short, because answers
        take turns, and each is a sign of life. Closed if the rest is not wanted.

        Raises `InvalidInput` for a question that cannot be answered.
        """
        ...

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector of length 1 per text."""
        ...


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded model's facts."""

    context_tokens: int = ANY_CONTEXT
    """Tokens of question and answer together. Longer questions are refused beforehand."""
    reads_in_parts: bool = False
    """Whether questions of some form may be longer, because it reads their parts one by one:
    gateways then do not exclude it by length."""
    deterministic: bool = True
    """At temperature 0, the same weights give the same answer, piece by piece, whatever else they
    answer concurrently."""
    honours: tuple[str, ...] = ()
    """Fields of requests that it supports beyond those that every model does. Others are
    refused."""
    runs_on: str = ""
    """How it computes, for the log."""


@runtime_checkable
class Describing(Protocol):
    """The part of a generator that states more than the usual facts."""

    facts: Facts


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """Resources of a model."""

    memory_bytes: int = 0
    """Main memory in total; 0 means what is free."""
    slots: int = 1
    """Questions that it gets concurrently."""
    context_tokens: int = 0
    """Maximum tokens of question and answer together, if the model supports more; 0 means no
    bound."""


@runtime_checkable
class Answering(Protocol):
    """The part of a recipe that lets its models answer."""

    apis: tuple[Api, ...]

    def open(self, model: Path, config: Config) -> Generator:
        """Load the model in the folder `model`. Raises like `Recipe.evaluate`."""
        ...


@runtime_checkable
class Hosting(Answering, Protocol):
    """An `Answering` recipe that fits its models into the available resources."""

    def host(self, model: Path, config: Config, room: Room) -> Generator:
        """Like `open`. Also raises `StorageFull` for a model that does not fit."""
        ...


def only_message(question: Question) -> str:
    """The text of a question of one message, for models that do not support conversations.

    Raises `InvalidInput` for any other.
    """
    match question.messages:
        case (Message(role="user", content=text),) if text.strip():
            return text
    raise InvalidInput(
        "this model reads one message, but no conversation or system prompt",
        field="messages",
        fix="send one message with the role user",
    )
