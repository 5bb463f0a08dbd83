"""The seams of model mobility: a store of chunks, and a transport that gets them from holders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from daitn.objects.identifiers import Digest
from daitn.objects.models import Manifest, ModelRef, Part

__all__ = ["BlobStore", "ModelTransport", "Moved"]


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a fetch."""

    bytes_in: int
    """Bytes transferred, without chunks that were already here."""
    seconds: float
    sources: dict[str, int]
    """Bytes per holder."""


class BlobStore(Protocol):
    """Chunks and manifests by digest, on one site. Survives a crash at any point."""

    def has(self, digest: Digest) -> bool: ...

    def renew(self, digest: Digest) -> bool:
        """Whether it is here; it then stays as long as if it had just been stored."""
        ...

    def read(self, digest: Digest, *, checked: bool = True) -> bytes:
        """Raises `NotFound`; raises `Corrupt` and drops the blob if the disk changed it.

        Unless `checked`, the bytes may be wrong: for those who check them themselves.
        """
        ...

    def write(self, data: bytes, expected: Digest | None = None) -> Digest:
        """Store `data` (idempotent, atomic).

        Raises `StorageFull`, and `Corrupt` if `data` does not match `expected`; nothing is stored
        then.
        """
        ...

    def pack(
        self, recipe: str, folder: Path, carried: Sequence[Part] = ()
    ) -> tuple[Digest, Manifest]:
        """Cut a folder's files into chunks, and store them with the manifest that names them.

        `carried`: further parts of the model, from one that is here. What it returns survives a
        power cut. Raises `InvalidInput` for a folder that is not a model, and `StorageFull`.
        """
        ...

    def unpack(self, manifest: Manifest, folder: Path, *, link: bool = False) -> None:
        """Write a model's parts to an empty folder, all of them or none.

        With `link`, large ones may be links to files of the store, only to be read, which are there
        as long as the model is retained. Raises `NotFound` or `Corrupt` for a chunk that has to be
        fetched again, and `StorageFull`.
        """
        ...

    def manifest(self, digest: Digest) -> Manifest:
        """Raises `NotFound`; `Corrupt` for bytes that are not a well-formed manifest."""
        ...

    def complete(self, digest: Digest) -> bool:
        """Whether the manifest and all of its chunks are here."""
        ...

    def retain(self, manifests: frozenset[Digest], now_s: float = 0.0, grace_s: float = 0.0) -> int:
        """Drop every blob that none of these models needs; returns bytes freed.

        A blob stays until calls over `grace_s` agree on it, by the clock of `now_s`. Include
        models that are being fetched, and let no `pack` run meanwhile.
        """
        ...


class ModelTransport(Protocol):
    """Moves models between sites, directly, chunk by chunk."""

    async def fetch(self, model: ModelRef, watch: Callable[[int, int], None]) -> Moved:
        """Fetch every missing chunk from the model's holders, several at once.

        Discards a wrong chunk and requests it from another holder; keeps what arrived before a
        failure, so the next call continues from there. `watch(done, total)` in bytes. Raises
        `Corrupt` before any chunk is requested if the parts do not have the declared size,
        `Unreachable` when no holder can supply a chunk, and `StorageFull`.
        """
        ...

    async def close(self) -> None: ...
