"""What a recipe can do beyond training: answer with a model.

A recipe that offers `apis` and `open` besides the methods of `Recipe` can be hosted. Like those,
these run in their own process, and may not reach the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from daitn.learning.recipe import Config
from daitn.objects.deployments import Api

__all__ = ["Answering", "Generator", "Message", "Piece", "Question"]


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: str
    content: str


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question to a model. A bare prompt is one message with the role `user`."""

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float
    """0: always the likeliest token, and so the same answer from the same weights."""
    seed: int
    top_p: float = 1.0
    """Draw only from the likeliest tokens that together have this much of the probability."""


class Piece(msgspec.Struct, frozen=True):
    """A piece of an answer, of one token or more."""

    text: str
    logprob: float
    """Natural logarithm of its probability under the model."""
    tokens: int = 1


class Generator(Protocol):
    """A loaded model that answers."""

    most_tokens: int
    """Answers are cut at this length."""

    def length(self, question: Question) -> int:
        """Length of the question in tokens."""
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


@runtime_checkable
class Answering(Protocol):
    """The part of a recipe that lets its models answer."""

    apis: tuple[Api, ...]

    def open(self, model: Path, config: Config) -> Generator:
        """Load the model in the folder `model`. Raises as `Recipe.evaluate` does."""
        ...
