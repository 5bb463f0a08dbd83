"""What a recipe can do beyond training: answer with a model.

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
"""Fields of a request that concern how tokens are drawn; see `Facts.honours`."""
TOOLS = ("parallel_tool_calls", "tool_choice", "tools")
"""Fields of a request that concern tools."""
TEMPLATE = ("add_generation_prompt", "continue_final_message")
"""Fields of a request that concern how a chat template is used."""


class ToolCall(msgspec.Struct, frozen=True):
    """A tool that a model asks for."""

    id: str
    name: str
    arguments: str
    """A JSON object, as text."""


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: str
    content: str
    calls: tuple[ToolCall, ...] = ()
    """Of an assistant's turn."""
    call_id: str = ""
    """Of a tool's turn: the call that it answers."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question to a model. A bare prompt is one message with the role `user`."""

    messages: tuple[Message, ...]
    max_tokens: int | None
    """Maximum length of the answer; none: as long as the model can. The model is asked with a
    number."""
    temperature: float
    """0: always the likeliest token, and so the same answer from the same weights."""
    seed: int
    top_p: float = 1.0
    """Draw only from the likeliest tokens that together have this much of the probability."""
    top_k: int = 0
    """Draw only from so many of the likeliest tokens; 0: from all."""
    min_p: float = 0.0
    """Draw only from tokens that have this share of the likeliest one's probability."""
    frequency_penalty: float = 0.0
    """Taken from a token's score for each time that it was said."""
    presence_penalty: float = 0.0
    """Taken from the score of each token that was said."""
    repetition_penalty: float = 1.0
    """Positive scores of tokens that were said are divided by it, negative ones multiplied."""
    logit_bias: dict[int, float] = {}
    """Added to the scores of tokens."""
    min_tokens: int = 0
    """The answer does not end before."""
    top_logprobs: int | None = None
    """How many of the likeliest tokens each piece names; none: not even its own."""
    continues: bool = False
    """The one message is no question but a text to go on with."""
    tools: tuple[dict[str, Any], ...] = ()
    """What the model may ask for, as OpenAI's API describes it."""
    continues_answer: bool = False
    """The last message is the beginning of the answer."""


class Token(msgspec.Struct, frozen=True):
    """A token of an answer."""

    text: str
    logprob: float
    whole: bool = True
    """Whether it is the text, rather than the name of a special token or of a part of
    a character."""
    top: tuple[Token, ...] = ()
    """The likeliest tokens in its place."""


class Piece(msgspec.Struct, frozen=True):
    """A piece of an answer, of one token or more."""

    text: str
    logprob: float
    """Natural logarithm of its probability under the model."""
    tokens: int = 1
    each: tuple[Token, ...] = ()
    """Its tokens, if they were asked for (`Question.top_logprobs`)."""
    calls: tuple[ToolCall, ...] = ()
    """Tools that it asks for."""


class Generator(Protocol):
    """A loaded model that answers."""

    most_tokens: int
    """Answers are cut at this length."""

    def length(self, question: Question) -> int:
        """Length of the question in tokens. Raises as `answer` does."""
        ...

    def answer(self, question: Question) -> Iterator[Piece | None]:
        """The answer, piece by piece; none where a step gave no piece of it. Steps are short,
        because answers take turns, and each is a sign of life. Closed if nobody wants the rest.

        Raises `InvalidInput` for a question that cannot be answered.
        """
        ...

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector of length 1 per text."""
        ...


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a loaded model says of itself."""

    context_tokens: int = ANY_CONTEXT
    """Tokens of question and answer together. Longer questions are refused before it is asked."""
    reads_in_parts: bool = False
    """Questions of some form may be longer, as it reads their parts one by one: gateways leave it
    out for no length."""
    deterministic: bool = True
    """At temperature 0, the same weights give the same answer, piece by piece, whatever else they
    answer meanwhile."""
    honours: tuple[str, ...] = ()
    """Fields of requests that it honours beyond those that every model does. Others are refused."""
    runs_on: str = ""
    """How it computes, for the log."""


@runtime_checkable
class Describing(Protocol):
    """The part of a generator that says more than the usual of itself."""

    facts: Facts


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is given."""

    memory_bytes: int = 0
    """Of main memory, in all; 0: what is free."""
    slots: int = 1
    """Questions that it is asked at the same time."""
    context_tokens: int = 0
    """The most tokens of question and answer together, where the model takes more; 0: no bound."""


@runtime_checkable
class Answering(Protocol):
    """The part of a recipe that lets its models answer."""

    apis: tuple[Api, ...]

    def open(self, model: Path, config: Config) -> Generator:
        """Load the model in the folder `model`. Raises as `Recipe.evaluate` does."""
        ...


@runtime_checkable
class Hosting(Answering, Protocol):
    """An `Answering` recipe that fits its models into the room that there is."""

    def host(self, model: Path, config: Config, room: Room) -> Generator:
        """As `open`. Raises also `StorageFull` for a model that does not fit."""
        ...


def only_message(question: Question) -> str:
    """The text of a question of one message, for models that read no conversation.

    Raises `InvalidInput` for any other.
    """
    match question.messages:
        case (Message(role="user", content=text),) if text.strip():
            return text
    raise InvalidInput(
        "this model reads one message, and no conversation and no instructions of a system",
        field="messages",
        fix="send one message of the role user",
    )
