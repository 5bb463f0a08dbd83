"""A model's inputs and outputs, and what a query needs of the model that answers it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec

from daitn.objects.identifiers import Word

__all__ = ["Abilities", "Need", "Reads", "Says", "knows_language", "mask_of", "needs_in"]


class Reads(enum.StrEnum):
    """Kinds of input of a model."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    FILE = "file"
    """A document, such as a PDF."""
    TABLE = "table"
    """One record: a JSON object of columns and numbers."""


class Says(enum.StrEnum):
    """Kinds of output of a model."""

    TEXT = "text"
    """Free text."""
    CLASS = "class"
    """One of the classes that it was trained on."""
    VECTOR = "vector"
    """An embedding."""
    AUDIO = "audio"
    SCORE = "score"
    """How relevant each of some documents is to a question."""


class Need(enum.StrEnum):
    """What a query may need of a model. In offers of forwarders, the first is bit 0."""

    CHAT = "chat"
    """The chat API."""
    COMPLETIONS = "completions"
    """The completions API."""
    EMBEDDINGS = "embeddings"
    """The embeddings API."""
    TEXT = "text"
    """It reads text."""
    RECORD = "record"
    """It reads a JSON object of numbers: as a table's record, or as text."""
    IMAGE = "image"
    """It reads images."""
    AUDIO = "audio"
    """It reads audio."""
    VIDEO = "video"
    """It reads video."""
    FILE = "file"
    """It reads documents."""
    TALK = "talk"
    """It answers in free text."""
    VOICE = "voice"
    """It answers with audio."""
    TOOLS = "tools"
    """It calls tools."""
    JSON = "json"
    """It answers with JSON of a given schema."""
    RERANK = "rerank"
    """The rerank API."""


_BITS = {need: 1 << bit for bit, need in enumerate(Need)}


def mask_of(needs: Iterable[Need]) -> int:
    """The bits of some needs."""
    return sum(_BITS[need] for need in set(needs))


def needs_in(mask: int) -> tuple[Need, ...]:
    """The needs of some bits."""
    return tuple(need for need, bit in _BITS.items() if mask & bit)


class Abilities(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model reads and says."""

    reads: Annotated[tuple[Reads, ...], msgspec.Meta(max_length=8)] = (Reads.TEXT,)
    """Kinds of input."""
    says: Annotated[tuple[Says, ...], msgspec.Meta(max_length=8)] = (Says.TEXT,)
    """Kinds of output."""
    tools: bool | None = None
    """Whether it calls tools. Absent means unknown, hence assumed possible."""
    json_schema: bool | None = None
    """Whether its answers can be constrained to a JSON schema. Absent means unknown, hence assumed
    possible."""
    languages: Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)] = ()
    """ISO 639 codes of the languages that it supports; empty means any."""

    def meets(self, need: Need) -> bool:
        """Whether a query with these needs can be put to the model, regardless of the API."""
        match need:
            case Need.CHAT | Need.COMPLETIONS | Need.EMBEDDINGS | Need.RERANK:
                return True
            case Need.RECORD:
                return Reads.TABLE in self.reads or Reads.TEXT in self.reads
            case Need.TALK:
                return Says.TEXT in self.says
            case Need.VOICE:
                return Says.AUDIO in self.says
            case Need.TOOLS:
                return self.tools is not False
            case Need.JSON:
                return self.json_schema is not False
            case _:
                return Reads(need.value) in self.reads

    def speaks(self, language: str) -> bool:
        """Whether it supports a language, whatever the region (`de-CH`); an empty one means any."""
        return knows_language(self.languages, language)


def knows_language(languages: Sequence[str], language: str) -> bool:
    """Whether a language is among some, whatever the region; an empty one means any, and so does an
    empty list."""
    wanted = _primary(language)
    return not wanted or not languages or wanted in map(_primary, languages)


def _primary(language: str) -> str:
    return language.partition("-")[0].lower()
