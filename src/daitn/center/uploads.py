"""What owners bring to a control centre's store: so much each, and no longer than it is needed."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final

from daitn.objects.errors import Refused
from daitn.objects.identifiers import Digest
from daitn.tools.mobility.manifests import digest_of
from daitn.tools.mobility.protocol import BlobStore

__all__ = ["UNNEEDED_S", "Uploads"]

UNNEEDED_S: Final = 86400.0
"""Weights that no job, model or deployment needs stay for a day: an upload may take hours before
its intent is submitted."""
_FILE_BYTES: Final = 16 << 10
"""What each blob counts in addition: a file, of a manifest two, and its digest in memory. Else very
many small ones would fill a disk."""


class Uploads:
    """Which owner has brought which blobs since this process started."""

    def __init__(self, store: BlobStore, most_bytes: int) -> None:
        """`most_bytes`: of one owner."""
        self._store = store
        self._most_bytes = most_bytes
        self._sizes: dict[str, dict[Digest, int]] = {}
        self._lock = threading.Lock()
        self._bytes: dict[str, int] = {}
        self._writing: list[Digest] = []

    def allow(self, most_bytes: int) -> None:
        """Let each owner have as much from now on; what is here stays."""
        self._most_bytes = most_bytes

    def write(self, owner: str, data: bytes) -> Digest:
        """Store a blob of an owner, on any thread. Raises `Refused` if it would have too much
        here, and `StorageFull`. What it brought before counts once."""
        digest, size = digest_of(data), len(data) + _FILE_BYTES
        with self._lock:
            sizes = self._sizes.setdefault(owner, {})
            taken_bytes = self._bytes.get(owner, 0)
            if digest not in sizes:
                if taken_bytes + size > self._most_bytes:
                    raise _too_much(owner, taken_bytes, self._most_bytes)
                sizes[digest] = size
                self._bytes[owner] = taken_bytes + size
            self._writing.append(digest)
        try:
            return self._store.write(data, digest)
        finally:
            with self._lock:
                self._writing.remove(digest)

    def brought(self, owner: str, digests: Iterable[Digest]) -> tuple[Digest, ...]:
        """Those of the blobs that this owner has brought and that are here; they stay for another
        day."""
        with self._lock:
            sizes = self._sizes.get(owner, {})
            known = [digest for digest in digests if digest in sizes]
        return tuple(digest for digest in known if self._store.renew(digest))

    def clean_up(self, needed: frozenset[Digest], now_s: float) -> int:
        """Delete what is not of the `needed` models, and was not for a day. Returns the bytes."""
        freed_bytes = self._store.retain(needed, now_s, UNNEEDED_S)
        for owner, sizes in tuple(self._sizes.items()):
            gone = [digest for digest in tuple(sizes) if not self._store.has(digest)]
            with self._lock:  # What is being written is not there yet, and counts.
                for digest in gone:
                    if digest not in self._writing and not self._store.has(digest):
                        self._bytes[owner] -= sizes.pop(digest)
        return freed_bytes


def _too_much(owner: str, taken_bytes: int, most_bytes: int) -> Refused:
    return Refused(
        f"{owner} has {taken_bytes >> 20} MiB of weights here, and may have {most_bytes >> 20} MiB",
        field="payload",
        fix="submit the intents that they are for: what no job needs is deleted after a day. Or "
        "ask the operator to raise stored_bytes in the control centre's file",
    )
