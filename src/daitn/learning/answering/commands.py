"""Messages between a node and its answering worker.

Commands and replies carry a number, because many are in progress at once.
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
    """Load a model under a name that the node chooses; answered by `GenerationEnded`."""

    number: int
    name: str
    recipe: str
    model: str
    config: dict[str, object]


class UnloadModel(msgspec.Struct, frozen=True, kw_only=True, tag="unload"):
    """Drop a model; not answered."""

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
    """The answer is no longer wanted; not answered."""

    number: int


Command = LoadModel | UnloadModel | Generate | Embed | Cancel


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
    """The command was carried out, or an answer has ended."""

    number: int


class Embeddings(msgspec.Struct, frozen=True, kw_only=True, tag="embedded"):
    """One vector per text."""

    number: int
    vectors: list[list[float]]


class AnsweringFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The command failed."""

    number: int
    error: ErrorReport


Reply = Ready | Accepted | Generated | GenerationEnded | Embeddings | AnsweringFailed
