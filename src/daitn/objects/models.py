"""A model as an AI object: parts named by digest, cut into chunks that are named by digest."""

from __future__ import annotations

import msgspec

from daitn.objects.identifiers import Digest, SiteId

__all__ = ["CHUNK_BYTES", "Manifest", "ModelRef", "Part"]

CHUNK_BYTES = 1 << 20
"""Size of a chunk. Zenoh moves 1 MiB messages about four times as fast as one large message."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a model."""

    name: str
    size_bytes: int
    chunks: tuple[Digest, ...]
    """In order; all of `CHUNK_BYTES` but the last."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a model consists of. Its own digest names the model."""

    recipe: str
    parts: tuple[Part, ...]

    @property
    def size_bytes(self) -> int:
        return sum(part.size_bytes for part in self.parts)


class ModelRef(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model can be had."""

    manifest: Digest
    size_bytes: int
    holders: tuple[SiteId, ...]
    """Sites known to hold every chunk."""
