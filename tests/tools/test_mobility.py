"""Models arrive whole or not at all, whatever their holders do."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.objects.digests import digest_of
from daitn.objects.errors import Corrupt, InvalidInput, NotFound, StorageFull, Unreachable
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.messages import ChunkRequest
from daitn.objects.models import CHUNK_BYTES, Manifest, ModelRef, Part
from daitn.objects.wire import canonical, decode, encode
from daitn.tools.fabric.keys import site_do
from daitn.tools.fabric.memory import MemoryNetwork
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import open_zenoh
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.exchange import IN_FLIGHT, MOST_FAILURES, Exchange, FetchChunk
from daitn.tools.mobility.manifests import chunk_sizes
from daitn.tools.mobility.memory import MemoryBlobStore
from daitn.tools.mobility.protocol import BlobStore, Moved
from daitn.tools.mobility.server import ChunkServer
from daitn.tools.mobility.transport import ChunkTransport
from tests.scenes.waiting import PATIENCE_S, until

HERE = SiteId("here")
DATA = random.Random(7).randbytes(12 * CHUNK_BYTES + 321)

Answer = Callable[[bytes], bytes]


def ignore(done: int, total: int) -> None: ...


def packed(store: BlobStore, data: bytes = DATA) -> tuple[Digest, Manifest]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "weights.safetensors").write_bytes(data)
        (Path(folder) / "config.json").write_bytes(b"{}")
        return store.pack("classifier", Path(folder))


def unpacked(store: BlobStore, digest: Digest) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        store.unpack(store.manifest(digest), Path(folder))
        return (Path(folder) / "weights.safetensors").read_bytes()


class World:
    """Holders of one model, and a site that wants it."""

    def __init__(self, data: bytes = DATA) -> None:
        self.network = MemoryNetwork()
        self.fabric = self.network.open(HERE)
        self.source = MemoryBlobStore()
        self.digest, self.manifest = packed(self.source, data)
        self.store: BlobStore = MemoryBlobStore()
        self.requests: list[tuple[str, Digest]] = []
        self.holders: list[SiteId] = []

    async def holder(self, name: str, answer: Answer | None = None) -> MemoryBlobStore:
        """A site that holds the model; `answer` may change a chunk, or raise."""
        store = MemoryBlobStore()
        packed(store, b"".join(self.source.read(c) for c in self.manifest.parts[1].chunks))
        fabric = self.network.open(name)
        self.holders.append(SiteId(name))

        async def give(key: str, payload: bytes) -> bytes:
            digest = decode(payload, ChunkRequest).digest
            self.requests.append((name, digest))
            data = store.read(digest)
            return data if answer is None or digest == self.digest else answer(data)

        await fabric.serve(site_do(SiteId(name), "chunk"), give)
        return store

    async def silent_holder(self, name: str) -> None:
        """A site that hangs when it is asked for a chunk."""
        fabric = self.network.open(name)
        self.holders.append(SiteId(name))

        async def give(key: str, payload: bytes) -> bytes:
            digest = decode(payload, ChunkRequest).digest
            self.requests.append((name, digest))
            await asyncio.Event().wait()
            return b""

        await fabric.serve(site_do(SiteId(name), "chunk"), give)

    def transport(
        self,
        *,
        prefer: Callable[[Sequence[SiteId]], Sequence[SiteId]] | None = None,
        on_transfer: Callable[[SiteId, int, float], None] | None = None,
        stall_s: float = 5.0,
    ) -> ChunkTransport:
        return ChunkTransport(
            self.fabric,
            HERE,
            self.store,
            prefer=prefer,
            on_transfer=on_transfer,
            stall_s=stall_s,
        )

    def model(self) -> ModelRef:
        return ModelRef(
            manifest=self.digest,
            size_bytes=self.manifest.size_bytes,
            holders=tuple(self.holders),
        )

    def asked(self, name: str) -> list[Digest]:
        return [digest for holder, digest in self.requests if holder == name]

    @property
    def chunks(self) -> set[Digest]:
        return set(chunk_sizes(self.manifest))


@pytest.fixture
def world() -> World:
    return World()


async def test_a_model_is_fetched_from_one_holder(world: World) -> None:
    store = MemoryBlobStore()
    packed(store)
    server = ChunkServer(world.network.open("a"), SiteId("a"), store)
    await server.start()
    world.holders.append(SiteId("a"))
    seen: list[tuple[int, int]] = []
    heard: list[tuple[SiteId, int, float]] = []
    transport = world.transport(on_transfer=lambda *transfer: heard.append(transfer))
    moved = await transport.fetch(world.model(), lambda *progress: seen.append(progress))
    assert unpacked(world.store, world.digest) == DATA
    assert moved.bytes_in == world.manifest.size_bytes + len(canonical(world.manifest))
    assert moved.sources == {"a": moved.bytes_in}
    size = world.manifest.size_bytes
    assert seen[0] == (0, size)
    assert seen[-1] == (size, size)
    assert seen == sorted(seen)
    ((source, bytes_, seconds),) = heard
    assert (source, bytes_) == ("a", moved.bytes_in)
    assert 0 < seconds <= moved.seconds
    await server.close()
    with pytest.raises(Unreachable):
        await world.fabric.request(site_do(SiteId("a"), "chunk"), b"", timeout_s=1)


async def test_a_server_names_what_it_lacks_and_reads_no_other_file(world: World) -> None:
    server = ChunkServer(world.network.open("a"), SiteId("a"), MemoryBlobStore())
    await server.start()
    key = site_do(SiteId("a"), "chunk")
    for digest, error in (("0" * 64, NotFound), ("../../key", InvalidInput)):
        request = encode(ChunkRequest(digest=Digest(digest)))
        with pytest.raises(error):
            await world.fabric.request(key, request, timeout_s=5)
    with pytest.raises(Corrupt):
        await world.fabric.request(key, b"\xff", timeout_s=5)


async def test_a_chunk_that_was_wrong_is_checked_and_dropped_when_asked_for_again(
    world: World,
) -> None:
    store = MemoryBlobStore()
    packed(store)
    server = ChunkServer(world.network.open("a"), SiteId("a"), store)
    await server.start()
    world.holders.append(SiteId("a"))
    rotten = world.manifest.parts[1].chunks[3]
    store.damage(rotten)
    with pytest.raises(Unreachable, match=f"{rotten}.*a: blob {rotten} changed"):
        await world.transport().fetch(world.model(), ignore)
    assert not store.has(rotten)
    assert not world.store.has(rotten)
    store.write(world.source.read(rotten))
    await world.transport().fetch(world.model(), ignore)
    assert unpacked(world.store, world.digest) == DATA
    await server.close()


async def test_several_holders_share_the_work(world: World) -> None:
    for name in ("a", "b", "c"):
        await world.holder(name)
    moved = await world.transport().fetch(world.model(), ignore)
    assert unpacked(world.store, world.digest) == DATA
    assert len(moved.sources) > 1
    assert sum(moved.sources.values()) == moved.bytes_in


async def test_what_is_here_is_not_asked_for_again(world: World) -> None:
    await world.holder("a")
    here = set(sorted(world.chunks)[:5])
    for chunk in here:
        world.store.write(world.source.read(chunk))
    moved = await world.transport().fetch(world.model(), ignore)
    assert set(world.asked("a")) == world.chunks - here | {world.digest}
    assert len(world.asked("a")) == len(set(world.asked("a")))
    again = await world.transport().fetch(world.model(), ignore)
    assert (again.bytes_in, again.sources) == (0, {})
    missing_bytes = sum(len(world.source.read(c)) for c in world.chunks - here)
    assert moved.bytes_in == missing_bytes + len(canonical(world.manifest))


async def test_a_failed_fetch_goes_on_where_it_stopped(world: World) -> None:
    given = 0

    def a_few(data: bytes) -> bytes:
        nonlocal given
        given += 1
        if given > 4:
            raise NotFound("gone")
        return data

    await world.holder("a", a_few)
    with pytest.raises(Unreachable):
        await world.transport().fetch(world.model(), ignore)
    there = {chunk for chunk in world.chunks if world.store.has(chunk)}
    # The answers that were still on their way when the fetch failed are lost.
    assert 1 <= len(there) <= 4
    world.requests.clear()
    await world.holder("b")
    await world.transport().fetch(world.model(), ignore)
    assert not there & {digest for _, digest in world.requests}
    assert unpacked(world.store, world.digest) == DATA


async def test_a_liar_is_found_out_and_given_up(world: World) -> None:
    await world.holder("liar", lambda data: bytes(len(data)))
    await world.holder("honest")
    moved = await world.transport().fetch(world.model(), ignore)
    assert unpacked(world.store, world.digest) == DATA
    assert moved.sources.get("liar", 0) <= len(canonical(world.manifest))
    assert len(world.asked("liar")) <= MOST_FAILURES + 3


async def test_a_chunk_that_is_cut_short_is_not_taken(world: World) -> None:
    await world.holder("short", lambda data: data[:-1])
    with pytest.raises(Unreachable, match=r"short: sent .* bytes for a chunk of"):
        await world.transport().fetch(world.model(), ignore)
    assert not any(map(world.store.has, world.chunks))


async def test_a_dead_holder_is_replaced(world: World) -> None:
    await world.holder("a")
    world.holders.insert(0, SiteId("dead"))
    moved = await world.transport().fetch(world.model(), ignore)
    assert set(moved.sources) == {"a"}
    assert unpacked(world.store, world.digest) == DATA


async def test_a_holder_that_dies_in_the_middle_is_replaced(world: World) -> None:
    await world.holder("a")
    await world.holder("b")
    killed: list[asyncio.Task[None]] = []

    def watch(done: int, total: int) -> None:
        if done > total / 3 and not killed:
            killed.append(asyncio.create_task(world.network.kill("a")))

    moved = await world.transport().fetch(world.model(), watch)
    assert killed
    assert moved.sources["b"] > 0
    assert unpacked(world.store, world.digest) == DATA


async def test_a_frozen_holder_does_not_hold_the_others_back(world: World) -> None:
    await world.silent_holder("frozen")
    await world.holder("a")
    began_s = asyncio.get_running_loop().time()
    transport = world.transport(prefer=lambda holders: sorted(holders), stall_s=2 * PATIENCE_S)
    moved = await transport.fetch(world.model(), ignore)
    assert set(moved.sources) == {"a"}
    assert world.asked("frozen")
    assert asyncio.get_running_loop().time() - began_s < 2 * PATIENCE_S
    assert unpacked(world.store, world.digest) == DATA


async def test_nobody_answers_and_the_error_says_who_was_asked(world: World) -> None:
    await world.silent_holder("frozen")
    world.holders.append(SiteId("dead"))
    (await world.holder("empty")).lose(world.digest)
    with pytest.raises(Unreachable) as raised:
        await world.transport(stall_s=0.05).fetch(world.model(), ignore)
    said = str(raised.value)
    for expected in (
        world.digest,
        "frozen: sent nothing for",
        "dead: nobody serves",
        f"empty: blob {world.digest} is not here",
        "fix:",
    ):
        assert expected in said
    assert 0 < len(world.asked("frozen")) <= MOST_FAILURES


async def test_a_chunk_that_no_holder_has_is_named(world: World) -> None:
    lost = world.manifest.parts[1].chunks[3]
    for name in ("a", "b"):
        (await world.holder(name)).lose(lost)
    with pytest.raises(Unreachable, match=f"{lost}.*a: .*b: "):
        await world.transport().fetch(world.model(), ignore)


async def test_holders_of_different_halves_complete_each_other(world: World) -> None:
    a, b = await world.holder("a"), await world.holder("b")
    for n, chunk in enumerate(sorted(world.chunks)):
        (a if n % 2 else b).lose(chunk)
    await world.transport().fetch(world.model(), ignore)
    assert unpacked(world.store, world.digest) == DATA


async def test_a_model_that_only_this_site_holds_says_so(world: World) -> None:
    world.holders.append(HERE)
    with pytest.raises(Unreachable, match="no other site holds it"):
        await world.transport().fetch(world.model(), ignore)


async def test_a_rotten_holder_says_so_and_another_is_asked(world: World) -> None:
    rotten = await world.holder("a")
    await world.holder("b")
    for chunk in world.chunks:
        rotten.damage(chunk)
    moved = await world.transport().fetch(world.model(), ignore)
    assert moved.sources.get("a", 0) <= len(canonical(world.manifest))
    assert unpacked(world.store, world.digest) == DATA


async def test_a_hostile_manifest_is_refused_before_any_chunk_is_asked_for(world: World) -> None:
    evil = Manifest(
        recipe="r", parts=(Part(name="../x", size_bytes=1, chunks=(Digest("a" * 64),)),)
    )
    store = await world.holder("a")
    digest = store.write(canonical(evil))
    model = ModelRef(manifest=digest, size_bytes=1, holders=(SiteId("a"),))
    for _ in range(2):
        with pytest.raises(Corrupt, match="manifest"):
            await world.transport().fetch(model, ignore)
    assert world.asked("a") == [digest]


@pytest.mark.parametrize("claimed", [1, CHUNK_BYTES, 415 * CHUNK_BYTES - 1, -1, 2**62])
async def test_a_model_that_unpacks_to_more_than_declared_is_refused_before_any_chunk(
    world: World, claimed: int
) -> None:
    chunk = world.manifest.parts[1].chunks[0]
    bomb = Manifest(
        recipe="r", parts=(Part(name="w", size_bytes=415 * CHUNK_BYTES, chunks=(chunk,) * 415),)
    )
    store = await world.holder("a")
    digest = store.write(canonical(bomb))
    model = ModelRef(manifest=digest, size_bytes=claimed, holders=(SiteId("a"),))
    with pytest.raises(Corrupt) as raised:
        await world.transport().fetch(model, ignore)
    assert (raised.value.field, world.asked("a")) == ("model.size_bytes", [digest])
    assert raised.value.fix


async def test_callers_who_declare_different_sizes_do_not_share_a_fetch(world: World) -> None:
    await world.holder("a")
    transport, true = world.transport(), world.model()
    wrong = msgspec.structs.replace(true, size_bytes=true.size_bytes - 1)
    outcomes = await asyncio.gather(
        transport.fetch(true, ignore), transport.fetch(wrong, ignore), return_exceptions=True
    )
    assert isinstance(outcomes[0], Moved)
    assert isinstance(outcomes[1], Corrupt)


async def test_a_full_disk_ends_the_fetch(world: World) -> None:
    world.store = MemoryBlobStore(capacity_bytes=4 * CHUNK_BYTES)
    await world.holder("a")
    with pytest.raises(StorageFull, match="bytes are needed"):
        await world.transport().fetch(world.model(), ignore)


async def test_fetches_of_one_model_share_the_work(world: World) -> None:
    await world.holder("a")
    transport = world.transport()
    seen: list[list[tuple[int, int]]] = [[], []]

    def recorded(progress: list[tuple[int, int]]) -> Callable[[int, int], None]:
        return lambda done, total: progress.append((done, total))

    moved = await asyncio.gather(
        *(transport.fetch(world.model(), recorded(progress)) for progress in seen)
    )
    assert len(world.asked("a")) == len(world.chunks) + 1
    size_bytes = world.manifest.size_bytes + len(canonical(world.manifest))
    assert sorted(m.bytes_in for m in moved) == [0, size_bytes]
    whole = (world.manifest.size_bytes, world.manifest.size_bytes)
    assert [progress[-1] for progress in seen] == [whole, whole]


async def test_a_shared_fetch_ends_with_its_last_caller(world: World) -> None:
    await world.silent_holder("frozen")
    transport = world.transport()
    first, second = (asyncio.create_task(transport.fetch(world.model(), ignore)) for _ in range(2))
    await until(lambda: bool(world.requests))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert not second.done()
    await world.holder("a")
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert second.cancelled()
    # A dying fetch is not joined.
    model = msgspec.structs.replace(world.model(), holders=(SiteId("a"),))
    moved = await transport.fetch(model, ignore)
    assert moved.bytes_in > 0


async def test_closing_the_transport_ends_its_fetches(world: World) -> None:
    await world.silent_holder("frozen")
    transport = world.transport()
    fetch = asyncio.create_task(transport.fetch(world.model(), ignore))
    await until(lambda: bool(world.requests))
    await transport.close()
    with pytest.raises(Unreachable, match="closed"):
        await fetch


FAULTS = st.sampled_from(["fine", "fine", "wrong", "lost", "down"])


@settings(max_examples=40, deadline=None)
@given(
    plan=st.lists(st.lists(FAULTS, max_size=12), min_size=1, max_size=4),
    chunks=st.integers(0, 10),
)
def test_no_interleaving_of_faults_yields_a_wrong_model(plan: list[list[str]], chunks: int) -> None:
    data = random.Random(chunks).randbytes(chunks * CHUNK_BYTES + 17)
    asyncio.run(_faulty_fetch(World(data), plan, data))


async def _faulty_fetch(world: World, plan: list[list[str]], data: bytes) -> None:
    def answers(faults: list[str]) -> Answer:
        left = list(faults)

        def answer(chunk: bytes) -> bytes:
            match left.pop(0) if left else "fine":
                case "wrong":
                    return bytes([chunk[0] ^ 1]) + chunk[1:]
                case "lost":
                    raise NotFound("lost")
                case "down":
                    raise Unreachable("down")
            return chunk

        return answer

    for n, faults in enumerate(plan):
        await world.holder(f"h{n}", answers(faults))
    try:
        async with asyncio.timeout(30):
            await world.transport(stall_s=5.0).fetch(world.model(), ignore)
    except Unreachable as error:
        assert any(f in ("wrong", "lost", "down") for faults in plan for f in faults)
        assert all(site in str(error) for site in world.holders)
        assert not world.store.complete(world.digest)
    else:
        assert unpacked(world.store, world.digest) == data
    bad = sum(fault != "fine" for faults in plan for fault in faults)
    assert len(world.requests) <= len(world.chunks) + 1 + bad + IN_FLIGHT


class Simulated:
    """Holders with a delivery time and a fault per answer, on a clock of its own."""

    def __init__(self, takes_s: dict[str, float], faults: dict[str, list[str]]) -> None:
        self.takes_s = takes_s
        self.faults = faults
        self.asks = 0
        self.arrived: dict[Digest, str] = {}

    def run(self, chunks: list[Digest]) -> float:
        """Drive an exchange to its end; the time that it took."""
        exchange = Exchange([SiteId(site) for site in self.takes_s], timeout_s=10.0)
        exchange.add(chunks)
        now_s = 0.0
        due: dict[FetchChunk, float] = {}
        free_at_s = dict.fromkeys(self.takes_s, 0.0)
        while not exchange.done and exchange.hopeless() is None:
            for ask in exchange.asks(now_s):
                assert ask not in due, "asked twice"
                self.asks += 1
                start_s = max(now_s, free_at_s[ask.site])
                free_at_s[ask.site] = due[ask] = start_s + self.takes_s[ask.site]
            for ask in exchange.abandoned():
                due.pop(ask, None)
            wake_s = exchange.wake_at_s(now_s)
            if not due or min(due.values()) > wake_s:
                now_s = max(wake_s, now_s)
                continue
            first = min(due, key=lambda ask: (due[ask], ask))
            now_s = max(now_s, due.pop(first))
            self._answer(exchange, first, now_s)
            for gone in exchange.abandoned():
                due.pop(gone, None)
        return now_s

    def _answer(self, exchange: Exchange, ask: FetchChunk, now_s: float) -> None:
        faults = self.faults.get(ask.site, [])
        match faults.pop(0) if faults else "fine":
            case "wrong":
                exchange.wrong(ask, "wrong", now_s)
            case "lost":
                exchange.lacks(ask, "lost", now_s)
            case "down":
                exchange.silent(ask, "down", now_s)
            case _:
                exchange.arrived(ask, 1, now_s)
                self.arrived[ask.digest] = ask.site


def digests(count: int) -> list[Digest]:
    return [digest_of(str(n).encode()) for n in range(count)]


def test_a_slow_holder_does_not_hold_a_fast_one_back() -> None:
    both = Simulated({"slow": 4.0, "fast": 0.01}, {}).run(digests(200))
    alone = Simulated({"fast": 0.01}, {}).run(digests(200))
    assert both < 1.5 * alone


def test_holders_of_one_speed_share_evenly() -> None:
    simulated = Simulated({"a": 0.1, "b": 0.1}, {})
    took_s = simulated.run(digests(100))
    assert took_s == pytest.approx(5.0, rel=0.1)
    assert simulated.asks <= 105


def test_a_link_that_needs_longer_than_the_timeout_of_a_chunk_still_delivers() -> None:
    simulated = Simulated({"far": 15.0}, {})
    simulated.run(digests(5))
    assert set(simulated.arrived) == set(digests(5))


@settings(max_examples=200, deadline=None)
@given(
    holders=st.dictionaries(
        st.sampled_from("abcd"),
        st.tuples(
            st.sampled_from([0.001, 0.1, 3.0, 25.0, 1e6]),
            st.lists(st.sampled_from(["fine", "wrong", "lost", "down"]), max_size=20),
        ),
        min_size=1,
    ),
    count=st.integers(1, 40),
)
def test_every_exchange_ends_within_bounds(
    holders: dict[str, tuple[float, list[str]]], count: int
) -> None:
    bad = {site: sum(f != "fine" for f in faults) for site, (_, faults) in holders.items()}
    usable = [s for s, (takes_s, _) in holders.items() if takes_s < 10 and not bad[s]]
    simulated = Simulated(
        {site: takes_s for site, (takes_s, _) in holders.items()},
        {site: list(faults) for site, (_, faults) in holders.items()},
    )
    took_s = simulated.run(digests(count))
    if usable:
        assert set(simulated.arrived) == set(digests(count))
    assert simulated.asks <= len(holders) * (2 * count + 3 * MOST_FAILURES) + sum(bad.values())
    assert took_s < 1000 + 100 * count


@asynccontextmanager
async def joined(connect: tuple[str, ...] = ()) -> AsyncIterator[Fabric]:
    settings_ = FabricSettings(listen=("tcp/127.0.0.1:0",), connect=connect)
    fabric = await open_zenoh(settings_, connect_timeout_s=10 if connect else None)
    try:
        yield fabric
    finally:
        await fabric.close()


@pytest.mark.processes
async def test_a_model_crosses_real_sessions_onto_a_disk(tmp_path: Path) -> None:
    holder = DiskBlobStore(tmp_path / "holder")
    digest, manifest = packed(holder)
    model = ModelRef(
        manifest=digest, size_bytes=manifest.size_bytes, holders=(SiteId("dead"), SiteId("a"))
    )
    here = DiskBlobStore(tmp_path / "here")
    async with joined() as there:
        server = ChunkServer(there, SiteId("a"), holder)
        await server.start()
        async with joined(there.endpoints) as fabric:  # type: ignore[attr-defined]
            transport = ChunkTransport(fabric, HERE, here)
            moved: Moved = await transport.fetch(model, ignore)
            await transport.close()
        await server.close()
    assert set(moved.sources) == {"a"}
    assert unpacked(here, digest) == DATA
