"""What a model reads and says, and what a query needs of the model that answers it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec

from daitn.objects.identifiers import Word

__all__ = ["Abilities", "Need", "Reads", "Says", "knows_language", "mask_of", "needs_in"]


class Reads(enum.StrEnum):
    """What a model can be given."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    FILE = "file"
    """A document, such as a PDF."""
    TABLE = "table"
    """One record: a JSON object of columns and numbers."""


class Says(enum.StrEnum):
    """What a model answers with."""

    TEXT = "text"
    """Free text."""
    CLASS = "class"
    """One of the classes that it was trained on."""
    VECTOR = "vector"
    """An embedding."""
    AUDIO = "audio"
    SCORE = "score"
    """How much each of some documents has to do with a question."""


class Need(enum.StrEnum):
    """What a query can need of a model. In offers of forwarders, the first is bit 0."""

    CHAT = "chat"
    """The API of chats."""
    COMPLETIONS = "completions"
    """The API of completions."""
    EMBEDDINGS = "embeddings"
    """The API of embeddings."""
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
    """The API of rankings."""


_BITS = {need: 1 << bit for bit, need in enumerate(Need)}


def mask_of(needs: Iterable[Need]) -> int:
    """Needs as bits."""
    return sum(_BITS[need] for need in set(needs))


def needs_in(mask: int) -> tuple[Need, ...]:
    """The needs of some bits."""
    return tuple(need for need, bit in _BITS.items() if mask & bit)


class Abilities(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model reads and says."""

    reads: Annotated[tuple[Reads, ...], msgspec.Meta(max_length=8)] = (Reads.TEXT,)
    says: Annotated[tuple[Says, ...], msgspec.Meta(max_length=8)] = (Says.TEXT,)
    tools: bool | None = None
    """Whether it calls tools. None: unknown, so it may be asked to."""
    json_schema: bool | None = None
    """Whether its answers can be held to a JSON schema. None: unknown, so it may be asked to."""
    languages: Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)] = ()
    """ISO 639 codes of the languages that it knows; empty: any."""

    def meets(self, need: Need) -> bool:
        """Whether a query that needs this may be put to the model. An API is not its concern."""
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
        """Whether it knows a language, whatever the region (`de-CH`); an empty one is any."""
        return knows_language(self.languages, language)


def knows_language(languages: Sequence[str], language: str) -> bool:
    """Whether a language is among some, whatever the region; an empty one is any, and so are no
    languages."""
    wanted = _primary(language)
    return not wanted or not languages or wanted in map(_primary, languages)


def _primary(language: str) -> str:
    return language.partition("-")[0].lower()
