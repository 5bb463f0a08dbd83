"""What a node and its answering worker say to each other.

Commands and what is said of them carry a number, because many are under way at once.
"""

from __future__ import annotations

import msgspec

from daitn.learning.answering.protocol import Piece, Question
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
    "LoadModel",
    "Reply",
    "UnloadModel",
]


class LoadModel(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """Load a model under a name of the node's; answered by `GenerationEnded`."""

    number: int
    name: str
    recipe: str
    model: str
    config: dict[str, object]


class UnloadModel(msgspec.Struct, frozen=True, kw_only=True, tag="unload"):
    """Forget a model; not answered."""

    name: str


class Generate(msgspec.Struct, frozen=True, kw_only=True, tag="ask"):
    """Answered by `Accepted`, any number of `Generated`, and `GenerationEnded`."""

    number: int
    name: str
    question: Question


class Embed(msgspec.Struct, frozen=True, kw_only=True, tag="embed"):
    """Answered by `Embeddings`."""

    number: int
    name: str
    texts: tuple[str, ...]


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag="cancel"):
    """Nobody wants the answer any more; not answered."""

    number: int


Command = LoadModel | UnloadModel | Generate | Embed | Cancel


class Accepted(msgspec.Struct, frozen=True, kw_only=True, tag="heard"):
    """The question was understood, and has so many tokens."""

    number: int
    tokens: int
    most_tokens: int
    """The answer will have no more."""


class Generated(msgspec.Struct, frozen=True, kw_only=True, tag="said"):
    """A piece of an answer."""

    number: int
    piece: Piece


class GenerationEnded(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """The command was carried out; an answer has ended."""

    number: int


class Embeddings(msgspec.Struct, frozen=True, kw_only=True, tag="embedded"):
    """A vector per text."""

    number: int
    vectors: list[list[float]]


class AnsweringFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The command was not carried out."""

    number: int
    error: ErrorReport


Reply = Ready | Accepted | Generated | GenerationEnded | Embeddings | AnsweringFailed
