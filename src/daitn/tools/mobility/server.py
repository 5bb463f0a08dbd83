"""The holder's side of model mobility."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.messages import ChunkRequest
from daitn.objects.wire import decode
from daitn.tools.fabric.caller import caller
from daitn.tools.fabric.keys import site_do
from daitn.tools.fabric.protocol import Fabric, Registration
from daitn.tools.mobility.metrics import SENT, SENT_CHUNKS
from daitn.tools.mobility.protocol import BlobStore
from daitn.tools.mobility.releases import Releases
from daitn.tools.monitoring.metrics import Sample

__all__ = ["ChunkServer"]


class ChunkServer:
    """Serves chunks and manifests held here.

    Receivers check what they get, and ask again for what was wrong. So every second time that a
    chunk is asked for it is checked here, and dropped if the disk changed it.
    """

    def __init__(
        self, fabric: Fabric, site: SiteId, store: BlobStore, releases: Releases | None = None
    ) -> None:
        """`releases`: which members may have what; `None` means everybody may have everything."""
        self._fabric = fabric
        self._key = site_do(site, "chunk")
        self._store = store
        self._releases = releases
        self._served: Registration | None = None
        self._unchecked: set[Digest] = set()
        """The latest blobs sent without a check."""
        self._counting = threading.Lock()
        self._sent = self._sent_bytes = 0

    async def start(self) -> None:
        """Start serving."""
        self._served = await self._fabric.serve_bulk(self._key, self._answer)

    async def close(self) -> None:
        """Stop serving. Closing twice is harmless."""
        served, self._served = self._served, None
        if served is not None:
            await served.close()

    def measured(self) -> Iterator[Sample]:
        """See `Measured`."""
        yield SENT_CHUNKS.at(self._sent)
        yield SENT.at(self._sent_bytes)

    def _answer(self, key: str, payload: bytes) -> bytes:
        """Raises `Refused`, and `NotFound` and `Corrupt` like the store, at the requester."""
        digest = decode(payload, ChunkRequest).digest
        member = caller()
        if member is not None and self._releases is not None:
            self._releases.check(digest, member)
        checked = digest in self._unchecked
        data = self._store.read(digest, checked=checked)
        (self._unchecked.discard if checked else self._unchecked.add)(digest)
        with self._counting:  # Several threads answer.
            self._sent += 1
            self._sent_bytes += len(data)
        return data
