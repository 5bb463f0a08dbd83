"""The fetcher's side of model mobility: several holders at once, every chunk checked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from daitn.objects.errors import Corrupt, DaitnError, NotFound, StorageFull, Unreachable
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.messages import ChunkRequest
from daitn.objects.models import Manifest, ModelRef
from daitn.objects.wire import encode
from daitn.tools.fabric.keys import site_do
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.mobility import metrics
from daitn.tools.mobility.exchange import WINDOW, Exchange, FetchChunk
from daitn.tools.mobility.manifests import MAX_MANIFEST_BYTES, chunk_sizes, declared
from daitn.tools.mobility.protocol import BlobStore, Moved
from daitn.tools.monitoring.metrics import Sample

__all__ = ["ChunkTransport"]

Prefer = Callable[[Sequence[SiteId]], Sequence[SiteId]]
"""Orders holders, the best reachable first."""
OnTransfer = Callable[[SiteId, int, float], None]
"""Receives (source, bytes, seconds) when a fetch ends: seconds with requests outstanding."""
Watch = Callable[[int, int], None]

STALL_S: Final = 10.0
"""A holder that delivers nothing for this long has failed once; next time it gets twice as long. A
link of 0.1 MB/s delivers a chunk within it."""


@dataclass(frozen=True)
class _Stored:
    size_bytes: int


@dataclass(frozen=True)
class _Missing:
    problem: str


@dataclass(frozen=True)
class _Corrupted:
    problem: str


@dataclass(frozen=True)
class _Stalled:
    problem: str


_Outcome = _Stored | _Missing | _Corrupted | _Stalled


class _Fetch:
    """The fetch of one model, and the callers who await it."""

    def __init__(self, model: ModelRef, exchange: Exchange) -> None:
        self.model = model
        self.exchange = exchange
        self.watches: dict[object, Watch] = {}
        self.task: asyncio.Task[Moved] | None = None
        self.progress: tuple[int, int] | None = None
        self.accounted = False

    def tell(self, done_bytes: int, total_bytes: int) -> None:
        self.progress = (done_bytes, total_bytes)
        for watch in tuple(self.watches.values()):
            watch(done_bytes, total_bytes)


class ChunkTransport:
    """A `ModelTransport` over the fabric."""

    def __init__(
        self,
        fabric: Fabric,
        site: SiteId,
        store: BlobStore,
        *,
        prefer: Prefer | None = None,
        on_transfer: OnTransfer | None = None,
        stall_s: float = STALL_S,
    ) -> None:
        self._fabric = fabric
        self._site = site
        self._store = store
        self._prefer = prefer
        self._on_transfer = on_transfer
        self._stall_s = stall_s
        self._fetches: dict[tuple[Digest, int], _Fetch] = {}
        """By manifest and declared size: each declaration is checked."""
        self._received_bytes = self._hits = self._misses = 0
        self._ended: Counter[str] = Counter()

    async def fetch(self, model: ModelRef, watch: Watch) -> Moved:
        """See `ModelTransport`.

        Concurrent callers for the same model share the work, which continues until the last of them
        is cancelled; the bytes are accounted to the first of those who stay.
        """
        began_s = _now_s()
        fetch = self._joined(model)
        caller = object()
        fetch.watches[caller] = watch
        if fetch.progress is not None:
            watch(*fetch.progress)
        assert fetch.task is not None
        try:
            moved = await asyncio.shield(fetch.task)
            if fetch.accounted:
                return Moved(bytes_in=0, seconds=_now_s() - began_s, sources={})
            fetch.accounted = True
            return moved
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is None or current.cancelling():
                raise
            raise Unreachable("the transport was closed during the fetch", field="model") from None
        finally:
            del fetch.watches[caller]
            if not fetch.watches:
                await self._end(fetch)

    def measured(self) -> Iterator[Sample]:
        """See `Measured`."""
        yield metrics.RECEIVED.at(self._received_bytes)
        yield metrics.CACHE_HITS.at(self._hits)
        yield metrics.CACHE_MISSES.at(self._misses)
        yield from metrics.FETCHES.by(self._ended, metrics.OUTCOMES)

    async def close(self) -> None:
        """Stop every fetch; keeps what arrived."""
        for fetch in tuple(self._fetches.values()):
            await self._end(fetch)

    def _joined(self, model: ModelRef) -> _Fetch:
        fetch = self._fetches.get(_key(model))
        if fetch is not None and fetch.task is not None and not fetch.task.done():
            return fetch
        holders: Sequence[SiteId] = [site for site in model.holders if site != self._site]
        if self._prefer is not None:
            holders = self._prefer(holders)
        fetch = _Fetch(model, Exchange(holders, timeout_s=self._stall_s))
        fetch.task = asyncio.create_task(self._run(fetch), name=f"fetch {model.manifest}")
        self._fetches[_key(model)] = fetch
        return fetch

    async def _end(self, fetch: _Fetch) -> None:
        assert fetch.task is not None
        if self._fetches.get(_key(fetch.model)) is fetch:
            del self._fetches[_key(fetch.model)]
        fetch.task.cancel()
        await asyncio.gather(fetch.task, return_exceptions=True)

    async def _run(self, fetch: _Fetch) -> Moved:
        began_s = _now_s()
        try:
            manifest = declared(await self._manifest(fetch), fetch.model)
            await self._chunks(fetch, manifest)
        except BaseException as error:
            ended = isinstance(error, asyncio.CancelledError)
            self._ended["cancelled" if ended else "failed"] += 1
            raise
        finally:
            self._report(fetch.exchange)
        self._ended["done"] += 1
        sources = {
            str(site): source.bytes_in
            for site, source in fetch.exchange.sources.items()
            if source.bytes_in
        }
        return Moved(bytes_in=sum(sources.values()), seconds=_now_s() - began_s, sources=sources)

    async def _manifest(self, fetch: _Fetch) -> Manifest:
        digest = fetch.model.manifest
        try:
            return await asyncio.to_thread(self._store.manifest, digest)
        except NotFound:
            pass
        except Corrupt:
            # Keep bytes that match their digest but are not a valid manifest: nobody has others.
            if self._store.has(digest):
                raise
        await self._collect(fetch, {digest: None}, lambda size_bytes: None)
        return await asyncio.to_thread(self._store.manifest, digest)

    async def _chunks(self, fetch: _Fetch, manifest: Manifest) -> None:
        sizes = chunk_sizes(manifest)
        missing = await asyncio.to_thread(self._missing, sizes)
        self._hits += len(sizes) - len(missing)
        self._misses += len(missing)
        total_bytes = sum(sizes.values())
        done_bytes = total_bytes - sum(missing.values())
        fetch.tell(done_bytes, total_bytes)

        def kept(size_bytes: int) -> None:
            nonlocal done_bytes
            done_bytes += size_bytes
            fetch.tell(done_bytes, total_bytes)

        await self._collect(fetch, missing, kept)

    def _missing(self, sizes: Mapping[Digest, int]) -> dict[Digest, int]:
        return {digest: size for digest, size in sizes.items() if not self._store.has(digest)}

    async def _collect(
        self,
        fetch: _Fetch,
        sizes: Mapping[Digest, int] | Mapping[Digest, None],
        kept: Callable[[int], None],
    ) -> None:
        """Fetch blobs of these sizes. Raises `Unreachable`, and what the store raises."""
        exchange = fetch.exchange
        exchange.add(sizes)
        tasks: dict[asyncio.Task[_Outcome], FetchChunk] = {}
        try:
            while not exchange.done:
                if (digest := exchange.hopeless()) is not None:
                    raise _unreachable(digest, fetch)
                now_s = _now_s()
                for ask in exchange.asks(now_s):
                    timeout_s = exchange.sources[ask.site].timeout_s * WINDOW
                    getting = self._get(ask, sizes[ask.digest], timeout_s)
                    tasks[asyncio.create_task(getting, name=f"chunk {ask}")] = ask
                _cancel(tasks, exchange.abandoned())
                for task in await _some(tasks, exchange.wake_at_s(now_s) - now_s):
                    _settle(exchange, tasks.pop(task), task.result(), kept)
                _cancel(tasks, exchange.abandoned())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _get(self, ask: FetchChunk, size_bytes: int | None, timeout_s: float) -> _Outcome:
        try:
            kept = await self._fabric.request_bulk(
                site_do(ask.site, "chunk"),
                encode(ChunkRequest(digest=ask.digest)),
                timeout_s=timeout_s,
                take=partial(self._keep, ask.digest, size_bytes),
            )
        except (NotFound, Corrupt) as error:
            return _Missing(error.problem)
        except DaitnError as error:
            return _Stalled(error.problem)
        if isinstance(kept, StorageFull):
            raise kept
        return kept

    def _keep(
        self, digest: Digest, size_bytes: int | None, data: bytes
    ) -> _Stored | _Corrupted | StorageFull:
        """Store what arrived; the error of a full disk is returned, since a holder may raise the
        same one."""
        if size_bytes is None and len(data) > MAX_MANIFEST_BYTES:
            return _Corrupted(f"sent a manifest of {len(data)} bytes")
        if size_bytes is not None and len(data) != size_bytes:
            return _Corrupted(f"sent {len(data)} bytes for a chunk of {size_bytes}")
        try:
            self._store.write(data, digest)
        except Corrupt:
            return _Corrupted("sent bytes that are not the chunk")
        except StorageFull as error:
            return error
        return _Stored(len(data))

    def _report(self, exchange: Exchange) -> None:
        self._received_bytes += sum(source.bytes_in for source in exchange.sources.values())
        if self._on_transfer is None:
            return
        for site, source in exchange.sources.items():
            if source.bytes_in and source.busy_s > 0:
                self._on_transfer(site, source.bytes_in, source.busy_s)


def _settle(
    exchange: Exchange, ask: FetchChunk, outcome: _Outcome, kept: Callable[[int], None]
) -> None:
    now_s = _now_s()
    match outcome:
        case _Stored(size_bytes):
            if exchange.arrived(ask, size_bytes, now_s):
                kept(size_bytes)
        case _Missing(problem):
            exchange.lacks(ask, problem, now_s)
        case _Corrupted(problem):
            exchange.wrong(ask, problem, now_s)
        case _Stalled(problem):
            exchange.silent(ask, problem, now_s)


async def _some(
    tasks: Iterable[asyncio.Task[_Outcome]], timeout_s: float
) -> list[asyncio.Task[_Outcome]]:
    """Finished tasks, after waiting for the first of them for at most `timeout_s`."""
    waited = list(tasks)
    if not waited:
        await asyncio.sleep(max(timeout_s, 0.0))
        return []
    done, _ = await asyncio.wait(
        waited, timeout=max(timeout_s, 0.0), return_when=asyncio.FIRST_COMPLETED
    )
    return [task for task in waited if task in done]


def _cancel(
    tasks: dict[asyncio.Task[_Outcome], FetchChunk], abandoned: Sequence[FetchChunk]
) -> None:
    if not abandoned:
        return
    unwanted = set(abandoned)
    for task, ask in tuple(tasks.items()):
        if ask in unwanted:
            task.cancel()
            del tasks[task]


def _key(model: ModelRef) -> tuple[Digest, int]:
    return model.manifest, model.size_bytes


def _unreachable(digest: Digest, fetch: _Fetch) -> Unreachable:
    what = "the manifest" if digest == fetch.model.manifest else f"chunk {digest}"
    tried = "; ".join(
        f"{site}: {source.problem or 'was not asked'}"
        for site, source in fetch.exchange.sources.items()
    )
    return Unreachable(
        f"{what} of model {fetch.model.manifest} is not available from any holder; "
        f"tried {tried or 'nobody, because no other site holds it'}",
        field="model",
        fix="bring one of these holders back; chunks that have arrived are kept",
    )


def _now_s() -> float:
    return asyncio.get_running_loop().time()
