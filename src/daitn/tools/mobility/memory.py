"""The blob store's in-memory twin, with faults on demand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from daitn.objects.digests import digest_of
from daitn.objects.errors import Corrupt, NotFound, StorageFull
from daitn.objects.identifiers import Digest
from daitn.objects.models import Manifest, Part
from daitn.objects.wire import canonical
from daitn.tools.mobility.leases import Leases
from daitn.tools.mobility.manifests import (
    checked_digest,
    chunk_sizes,
    read_manifest,
    with_chunks,
    wrong_bytes,
)
from daitn.tools.mobility.parts import assemble, cut

__all__ = ["MemoryBlobStore"]


class MemoryBlobStore:
    """A `BlobStore` that lives only as long as its process."""

    def __init__(self, *, capacity_bytes: int | None = None) -> None:
        """`capacity_bytes`: size of the simulated disk; none for unlimited."""
        self._blobs: dict[Digest, bytes] = {}
        self._capacity_bytes = capacity_bytes
        self._leases = Leases()

    def damage(self, digest: Digest) -> None:
        """Change a blob as a failing disk would."""
        data = self._blobs[digest]
        self._blobs[digest] = bytes([data[0] ^ 1]) + data[1:]

    def lose(self, digest: Digest) -> None:
        """Delete a blob."""
        del self._blobs[digest]

    def has(self, digest: Digest) -> bool:
        return checked_digest(digest) in self._blobs

    def renew(self, digest: Digest) -> bool:
        self._leases.renew(digest)
        return self.has(digest)

    def read(self, digest: Digest, *, checked: bool = True) -> bytes:
        data = self._blobs.get(checked_digest(digest))
        if data is None:
            raise NotFound(f"blob {digest} is not here", fix="fetch the model again")
        if checked and digest_of(data) != digest:
            self._blobs.pop(digest, None)
            raise Corrupt(
                f"blob {digest} changed in memory; it was dropped", fix="fetch the model again"
            )
        return data

    def write(self, data: bytes, expected: Digest | None = None) -> Digest:
        digest = digest_of(data)
        if expected is not None and digest != expected:
            raise wrong_bytes(expected, digest)
        self._leases.renew(digest)
        if self._blobs.get(digest) != data:
            self._check_room(len(data))
            self._blobs[digest] = bytes(data)
        return digest

    def pack(
        self, recipe: str, folder: Path, carried: Sequence[Part] = ()
    ) -> tuple[Digest, Manifest]:
        manifest = cut(recipe, folder, self.write, carried=carried)
        return self.write(canonical(manifest)), manifest

    def unpack(self, manifest: Manifest, folder: Path, *, link: bool = False) -> None:
        assemble(manifest, folder, self.read)

    def manifest(self, digest: Digest) -> Manifest:
        return read_manifest(self.read(digest))

    def complete(self, digest: Digest) -> bool:
        try:
            sizes = chunk_sizes(self.manifest(digest))
        except (NotFound, Corrupt):
            return False
        return all(len(self._blobs.get(chunk, b"")) == size for chunk, size in sizes.items())

    def retain(self, manifests: frozenset[Digest], now_s: float = 0.0, grace_s: float = 0.0) -> int:
        kept = with_chunks(manifests, self.manifest)
        unneeded = [digest for digest in self._blobs if digest not in kept]
        dropped = self._leases.ended(unneeded, now_s, grace_s)
        return sum(len(self._blobs.pop(digest)) for digest in dropped)

    def _check_room(self, needed_bytes: int) -> None:
        if self._capacity_bytes is None:
            return
        free_bytes = self._capacity_bytes - sum(map(len, self._blobs.values()))
        if needed_bytes > free_bytes:
            raise StorageFull(
                f"{needed_bytes} bytes are needed and {free_bytes} are free in memory",
                fix="give the store more capacity",
            )
