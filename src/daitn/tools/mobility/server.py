"""A holder's side of model mobility."""

from __future__ import annotations

import asyncio

from daitn.objects.identifiers import SiteId
from daitn.objects.messages import ChunkRequest
from daitn.objects.wire import decode
from daitn.tools.fabric.keys import site_do
from daitn.tools.fabric.protocol import Fabric, Registration
from daitn.tools.mobility.protocol import BlobStore

__all__ = ["ChunkServer"]


class ChunkServer:
    """Gives out chunks and manifests that are held here, each checked as it is read."""

    def __init__(self, fabric: Fabric, site: SiteId, store: BlobStore) -> None:
        self._fabric = fabric
        self._key = site_do(site, "chunk")
        self._store = store
        self._served: Registration | None = None

    async def start(self) -> None:
        """Answer from now on."""
        self._served = await self._fabric.serve(self._key, self._answer)

    async def close(self) -> None:
        """Answer no more. Closing twice is harmless."""
        served, self._served = self._served, None
        if served is not None:
            await served.close()

    async def _answer(self, key: str, payload: bytes) -> bytes:
        """Raises `NotFound` and `Corrupt` at the asker, as the store does here."""
        digest = decode(payload, ChunkRequest).digest
        return await asyncio.to_thread(self._store.read, digest)
