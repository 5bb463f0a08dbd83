"""Owners' uploads to a control centre's store: bounded per owner, and deleted when no longer
needed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import Final

from daitn.objects.digests import digest_of
from daitn.objects.errors import InvalidInput, Refused
from daitn.objects.identifiers import Digest
from daitn.objects.models import CHUNK_BYTES
from daitn.objects.moments import DAY_S
from daitn.objects.requests import Blobs
from daitn.objects.roster import Kind
from daitn.objects.wire import decode, encode, is_whole
from daitn.tools.fabric.caller import caller, caller_name
from daitn.tools.mobility.manifests import read_manifest
from daitn.tools.mobility.protocol import BlobStore
from daitn.tools.mobility.releases import Releases

__all__ = ["UNNEEDED_S", "Uploads"]

UNNEEDED_S: Final = DAY_S
"""Weights that no job, model or deployment needs stay for a day: an upload may take hours before
its intent is submitted."""
_FILE_BYTES: Final = 16 << 10
"""Additional size counted per blob: a file (two for a manifest), and its digest in memory.
Otherwise very many small ones would fill a disk."""


class Uploads:
    """The blobs that each owner has uploaded since this process started."""

    def __init__(self, store: BlobStore, releases: Releases, most_bytes: int) -> None:
        """`releases`: who may fetch what was uploaded. `most_bytes`: limit per owner."""
        self._store = store
        self._releases = releases
        self._most_bytes = most_bytes
        self._sizes: dict[str, dict[Digest, int]] = {}
        self._lock = threading.Lock()
        self._bytes: dict[str, int] = {}
        self._writing: list[Digest] = []

    def allow(self, most_bytes: int) -> None:
        """Set the limit per owner from now on; stored blobs stay."""
        self._most_bytes = most_bytes

    def write(self, owner: str, data: bytes) -> Digest:
        """Store a blob of an owner, on any thread. Raises `Refused` if it would exceed the limit,
        and `StorageFull`. A repeated upload counts once."""
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
        """The blobs among these that this owner has uploaded and that are still here; they stay for
        another day."""
        with self._lock:
            sizes = self._sizes.get(owner, {})
            known = [digest for digest in digests if digest in sizes]
        return tuple(digest for digest in known if self._store.renew(digest))

    async def on_store(self, key: str, payload: bytes) -> bytes:
        """one chunk -> its digest: an owner uploads weights, at most 1 MiB at a time."""
        if len(payload) > CHUNK_BYTES:
            raise InvalidInput(
                f"a chunk has at most {CHUNK_BYTES} bytes, this one {len(payload)}",
                field="payload",
                fix="split it",
            )
        owner = caller()
        digest = await asyncio.to_thread(self.write, caller_name(), payload)
        if owner is not None and owner.kind is Kind.OWNER and is_whole(read_manifest, payload):
            self._releases.record(digest, owner.name)
        return digest.encode()

    async def on_stored(self, key: str, payload: bytes) -> bytes:
        """`Blobs` -> `Blobs`: which of these weights the calling owner has stored."""
        asked = decode(payload, Blobs).digests
        brought = await asyncio.to_thread(self.brought, caller_name(), asked)
        return encode(Blobs(digests=brought))

    def clean_up(self, needed: frozenset[Digest], now_s: float) -> int:
        """Delete what belongs to none of the `needed` models, and has not for a day. Returns the
        bytes."""
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
        fix="submit the intents that need them (weights that no job needs are deleted after a "
        "day), or ask the operator to raise stored_bytes in the control centre's file",
    )
