"""The seams of model mobility: a place that keeps chunks, and a way to get them from holders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from daitn.objects.identifiers import Digest
from daitn.objects.models import Manifest, ModelRef

__all__ = ["BlobStore", "ModelTransport", "Moved"]


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What a fetch took."""

    bytes_in: int
    """Bytes that travelled; chunks that were here already are not in it."""
    seconds: float
    sources: dict[str, int]
    """Bytes per holder."""


class BlobStore(Protocol):
    """Chunks and manifests by digest, on one site. Survives a crash at any point."""

    def has(self, digest: Digest) -> bool: ...

    def read(self, digest: Digest) -> bytes:
        """Raises `NotFound`; raises `Corrupt` and forgets the blob if the disk changed it."""
        ...

    def write(self, data: bytes, expected: Digest | None = None) -> Digest:
        """Keep `data` (idempotent, atomic).

        Raises `StorageFull`, and `Corrupt` when `data` is not what `expected` names; nothing is
        kept then.
        """
        ...

    def pack(self, recipe: str, folder: Path) -> tuple[Digest, Manifest]:
        """Cut every file of a folder into chunks, keep them and the manifest, which names them.

        What it returns survives a power cut. Raises `InvalidInput` for a folder that is no
        model, `StorageFull`.
        """
        ...

    def unpack(self, manifest: Manifest, folder: Path) -> None:
        """Write a model's parts into an empty folder, all of them or none.

        Raises `NotFound` or `Corrupt` for a chunk that has to be fetched again, `StorageFull`.
        """
        ...

    def manifest(self, digest: Digest) -> Manifest:
        """Raises `NotFound`; `Corrupt` for bytes that are no well-formed manifest."""
        ...

    def complete(self, digest: Digest) -> bool:
        """Whether the manifest and all of its chunks are here."""
        ...

    def retain(self, manifests: frozenset[Digest]) -> int:
        """Drop every blob that none of these models needs; returns bytes freed.

        Name the models that are being fetched too, and let no `pack` run meanwhile.
        """
        ...


class ModelTransport(Protocol):
    """Moves models between sites, directly, chunk by chunk."""

    async def fetch(self, model: ModelRef, watch: Callable[[int, int], None]) -> Moved:
        """Bring every missing chunk here from the model's holders, several at once.

        A wrong chunk is thrown away and asked of another holder; what arrived before a failure
        is kept, so that the next call goes on from there. `watch(done, total)` in bytes.
        Raises `Unreachable` when a chunk cannot be had from any holder, `StorageFull`.
        """
        ...

    async def close(self) -> None: ...
