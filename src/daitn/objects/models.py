"""A model as an AI object: parts and their chunks, all named by digest."""

from __future__ import annotations

import msgspec

from daitn.objects.bounds import Count
from daitn.objects.identifiers import Digest, SiteId, Word

__all__ = ["CHUNK_BYTES", "CONFIG_FIX", "DO_NOT_USE", "Manifest", "ModelRef", "Part"]

DO_NOT_USE = "do not use this model; ask its owner where it comes from"
"""What to do about a model that does not match its lineage or manifest."""
CONFIG_FIX = "use the configuration with which the model was created"
"""For weights that do not have the shape of the configuration."""
CHUNK_BYTES = 1 << 20
"""Zenoh moves 1 MiB messages about four times as fast as one large message."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a model."""

    name: Word
    size_bytes: Count
    chunks: tuple[Digest, ...]
    """In order; all but the last have `CHUNK_BYTES`."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of a model. Its own digest names the model."""

    recipe: Word
    parts: tuple[Part, ...]

    @property
    def size_bytes(self) -> int:
        return sum(part.size_bytes for part in self.parts)


class ModelRef(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model can be fetched."""

    manifest: Digest
    size_bytes: Count
    holders: tuple[SiteId, ...]
    """Sites known to hold every chunk."""
