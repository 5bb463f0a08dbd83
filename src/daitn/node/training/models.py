"""The models of a site's work: fetched, unpacked for its duration, packed, and kept for a while."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from daitn.objects.access import narrowed
from daitn.objects.descriptors import ANY
from daitn.objects.errors import Corrupt, NotFound, WorkFailed
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.lineage import descent, released
from daitn.objects.messages import Work
from daitn.objects.models import Manifest, ModelRef, Part
from daitn.tools.mobility.protocol import BlobStore, ModelTransport, Moved
from daitn.tools.mobility.releases import Releases

__all__ = ["WorkModels", "summed"]

RECENT_S = 600.0
"""Minimum time for which a model made or fetched here stays, even if nobody requests it."""
GRACE_S = 1800.0
"""Time for which a model stays after the control centre first leaves it out: a centre that lost its
memory, or obeys another, cannot empty a store before somebody notices."""


class WorkModels:
    """The store as used by a site's work."""

    def __init__(
        self,
        site: SiteId,
        store: BlobStore,
        transport: ModelTransport,
        releases: Releases | None,
    ) -> None:
        """`releases` learns where models may go."""
        self._site = site
        self._store = store
        self._transport = transport
        self._releases = releases
        self._packing = asyncio.Lock()
        self._touched_at_s: dict[Digest, float] = {}
        self._prefetched: dict[Digest, Moved] = {}

    async def prefetch(self, model: ModelRef) -> None:
        """Fetch a model ahead of its work; the transfer is charged to that work. Raises like
        `ModelTransport.fetch`."""
        moved = await self._transport.fetch(model, lambda done, total: None)
        self._touched_at_s[model.manifest] = time.monotonic()
        if moved.bytes_in:
            self._prefetched[model.manifest] = moved

    async def fetch(
        self, work: Work, model: ModelRef, folder: Path, watch: Callable[[int, int], None]
    ) -> Moved:
        """Write a model's parts to a folder, which is created. Calls `watch(done, total)`, in
        bytes, before and during the transfer.

        Raises as `ModelTransport.fetch` does.
        """
        self.record(work, model.manifest)
        watch(0, model.size_bytes)
        folder.mkdir()
        self._touched_at_s[model.manifest] = time.monotonic()
        moved = await self._transport.fetch(model, watch)
        if (prefetched := self._prefetched.pop(model.manifest, None)) is not None:
            moved = summed(prefetched, moved)
        try:
            await asyncio.to_thread(self._unpack, model, folder)
        except (Corrupt, NotFound):
            # The disk lost a chunk. The store has dropped it, so a second fetch restores it.
            shutil.rmtree(folder)
            again = await self._transport.fetch(model, lambda done, total: None)
            folder.mkdir()
            await asyncio.to_thread(self._unpack, model, folder)
            moved = summed(moved, again)
        return moved

    def _unpack(self, model: ModelRef, folder: Path) -> None:
        self._store.unpack(self._store.manifest(model.manifest), folder, link=True)

    async def carried(self, model: ModelRef, names: Sequence[str]) -> tuple[Part, ...]:
        """The parts that work left unchanged, by their names. Raises `WorkFailed` for an unknown
        name."""
        if not names:
            return ()
        manifest = await asyncio.to_thread(self._store.manifest, model.manifest)
        parts = {part.name: part for part in manifest.parts}
        if unknown := sorted(set(names) - parts.keys()):
            raise WorkFailed(
                f"the recipe kept {unknown[0]}, which is not a part of the model",
                fix="correct the recipe",
            )
        return tuple(parts[name] for name in sorted(set(names)))

    async def pack(
        self,
        work: Work,
        folder: Path,
        release_to: tuple[str, ...] = (ANY,),
        carried: tuple[Part, ...] = (),
    ) -> tuple[ModelRef, Manifest]:
        """Store the result of work in a folder, with the parts that it left unchanged."""
        async with self._packing:
            digest, manifest = await asyncio.to_thread(
                self._store.pack, work.recipe, folder, carried
            )
            self._touched_at_s[digest] = time.monotonic()
        self.record(work, digest, release_to)
        ref = ModelRef(manifest=digest, size_bytes=manifest.size_bytes, holders=(self._site,))
        return ref, manifest

    def record(self, work: Work, model: Digest, release_to: tuple[str, ...] = (ANY,)) -> None:
        """Record where a model may go, given what it has learned from: for a start model, its own
        descent; for a result, that of all its inputs."""
        if self._releases is not None:
            given = model in {each.manifest for each in work.models}
            entries = descent(work.lineage, model) if given else work.lineage
            self._releases.record(model, work.owner, narrowed(release_to, released(entries)))

    async def retain(self, needed: Callable[[], frozenset[Digest]]) -> int:
        """Delete every model except needed and recent ones; returns the bytes freed.

        The caller may not know yet of a model that was just made or fetched here.
        """
        async with self._packing:
            now_s = time.monotonic()
            recent = {m for m, at_s in self._touched_at_s.items() if now_s - at_s < RECENT_S}
            self._touched_at_s = {model: self._touched_at_s[model] for model in recent}
            kept = needed() | recent
            freed_bytes = await asyncio.to_thread(self._store.retain, kept, now_s, GRACE_S)
        if self._releases is not None:
            await asyncio.to_thread(self._releases.clean_up, now_s)
        return freed_bytes


def summed(one: Moved, other: Moved) -> Moved:
    """The sum of two transfers."""
    return Moved(
        bytes_in=one.bytes_in + other.bytes_in,
        seconds=one.seconds + other.seconds,
        sources={**one.sources, **other.sources},
    )
