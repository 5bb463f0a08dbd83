"""Messages between a node and the process of a model that it hosts.

Commands and replies carry a number, because many are in progress at once.
"""

from __future__ import annotations

import msgspec

from daitn.learning.answering.protocol import Facts, Piece, Question, Room
from daitn.learning.child.frames import Ready
from daitn.objects.errors import ErrorReport

__all__ = [
    "Accepted",
    "AnsweringFailed",
    "Cancel",
    "Command",
    "Embed",
    "Embeddings",
    "Generate",
    "Generated",
    "GenerationEnded",
    "Load",
    "Loaded",
    "Reply",
    "Working",
]


class Load(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """Load the model; the first command. Answered by `Loaded`, or by `AnsweringFailed`."""

    number: int
    recipe: str
    model: str
    config: dict[str, object]
    room: Room


class Generate(msgspec.Struct, frozen=True, kw_only=True, tag="ask"):
    """Answered by `Accepted`, any number of `Generated`, and `GenerationEnded`."""

    number: int
    question: Question


class Embed(msgspec.Struct, frozen=True, kw_only=True, tag="embed"):
    """Answered by `Embeddings`."""

    number: int
    texts: tuple[str, ...]


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag="cancel"):
    """The answer is no longer wanted; not answered."""

    number: int


Command = Load | Generate | Embed | Cancel


class Loaded(msgspec.Struct, frozen=True, kw_only=True, tag="loaded"):
    """The model answers from now on."""

    facts: Facts


class Working(msgspec.Struct, frozen=True, kw_only=True, tag="working"):
    """Steps in progress that no other reply reports."""


class Accepted(msgspec.Struct, frozen=True, kw_only=True, tag="heard"):
    """The question was understood, and has this many tokens."""

    number: int
    tokens: int
    most_tokens: int
    """Maximum length of the answer."""


class Generated(msgspec.Struct, frozen=True, kw_only=True, tag="said"):
    """A piece of an answer."""

    number: int
    piece: Piece


class GenerationEnded(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """An answer has ended."""

    number: int


class Embeddings(msgspec.Struct, frozen=True, kw_only=True, tag="embedded"):
    """One vector per text."""

    number: int
    vectors: list[list[float]]


class AnsweringFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The command failed."""

    number: int
    error: ErrorReport


Reply = (
    Ready | Loaded | Working | Accepted | Generated | GenerationEnded | Embeddings | AnsweringFailed
)
