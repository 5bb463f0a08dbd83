"""A store of blobs on this disk, which are also kept where other processes find them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from daitn.objects.errors import Corrupt, NotFound
from daitn.objects.identifiers import Digest
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.leases import Leases
from daitn.tools.mobility.manifests import chunk_sizes

__all__ = ["CommonBlobs", "SharedBlobStore"]


class CommonBlobs(Protocol):
    """Blobs shared by several processes. Thread-safe."""

    def put(self, digest: Digest, data: bytes) -> None:
        """It is on disk when this returns."""
        ...

    def get(self, digest: Digest) -> bytes | None: ...
    def has(self, digest: Digest) -> bool: ...
    def digests(self) -> frozenset[Digest]: ...
    def drop(self, digest: Digest) -> None: ...


class SharedBlobStore(DiskBlobStore):
    """Writes also go to the common store before `write` returns; blobs found only there are copied
    here when read."""

    def __init__(self, folder: Path, common: CommonBlobs) -> None:
        super().__init__(folder)
        self._common = common
        self._common_leases = Leases()

    def has(self, digest: Digest) -> bool:
        return super().has(digest) or self._common.has(digest)

    def renew(self, digest: Digest) -> bool:
        self._common_leases.renew(digest)
        return super().renew(digest)

    def read(self, digest: Digest, *, checked: bool = True) -> bytes:
        try:
            return super().read(digest, checked=checked)
        except (NotFound, Corrupt):
            data = self._common.get(digest)
            if data is None:
                raise
        super().write(data, digest)
        return data

    def write(self, data: bytes, expected: Digest | None = None) -> Digest:
        digest = super().write(data, expected)
        self._common_leases.renew(digest)
        if not self._common.has(digest):
            self._common.put(digest, data)
        return digest

    def complete(self, digest: Digest) -> bool:
        try:
            chunks = chunk_sizes(self.manifest(digest))
        except (NotFound, Corrupt):
            return False
        return all(self.has(chunk) for chunk in chunks)

    def _keep_only(self, kept: set[Digest], now_s: float, grace_s: float) -> int:
        for digest in self._common_leases.ended(self._common.digests() - kept, now_s, grace_s):
            self._common.drop(digest)
        return super()._keep_only(kept, now_s, grace_s)

    def share(self) -> None:
        """Copy blobs that are only on this disk to the common store: from a time without one."""
        common = self._common.digests()
        for digest, _ in self._every():
            if digest not in common:
                try:
                    data = super().read(digest)
                except (NotFound, Corrupt):
                    continue  # It was deleted meanwhile, or is rotten; the others are not.
                self._common.put(digest, data)
