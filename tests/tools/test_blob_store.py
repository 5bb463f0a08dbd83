"""Both blob stores keep what they are given, notice what changed, and write no half model."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.objects.digests import digest_of
from daitn.objects.errors import Corrupt, InvalidInput, NotFound, StorageFull
from daitn.objects.identifiers import Digest
from daitn.objects.models import CHUNK_BYTES, Manifest, Part
from daitn.objects.wire import canonical
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.manifests import MAX_MANIFEST_BYTES
from daitn.tools.mobility.memory import MemoryBlobStore
from daitn.tools.mobility.protocol import BlobStore

ABSENT = Digest("0" * 64)


class Kind:
    """One implementation, and how a fault of its disk is played."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder

    def open(self) -> BlobStore:
        return DiskBlobStore(self.folder) if self.name == "disk" else MemoryBlobStore()

    def rot(self, store: BlobStore, digest: Digest) -> None:
        if isinstance(store, MemoryBlobStore):
            store.damage(digest)
            return
        path = self.folder / "blobs" / digest[:2] / digest[2:]
        data = path.read_bytes()
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


@pytest.fixture(params=["disk", "memory"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    return Kind(request.param, tmp_path / "store")


@pytest.fixture
def store(kind: Kind) -> BlobStore:
    return kind.open()


def model_folder(folder: Path, parts: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in parts.items():
        (folder / name).write_bytes(data)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


PARTS = {"weights.safetensors": os.urandom(2 * CHUNK_BYTES + 5), "config.json": b"{}", "no": b""}


def test_a_model_larger_than_the_disk_is_refused_before_anything_is_written(
    store: BlobStore, tmp_path: Path
) -> None:
    chunk, number = store.write(b"0" * CHUNK_BYTES), 2**22
    part = Part(name="w", size_bytes=number * CHUNK_BYTES, chunks=(chunk,) * number)
    with pytest.raises(StorageFull, match="bytes are needed"):
        store.unpack(Manifest(recipe="r", parts=(part,)), tmp_path / "out")
    assert files(tmp_path / "out") == {}


def test_a_blob_is_read_as_it_was_written(store: BlobStore) -> None:
    digest = store.write(b"hello")
    assert digest == digest_of(b"hello") == store.write(b"hello", digest)
    assert store.has(digest)
    assert store.read(digest) == b"hello"


def test_an_absent_blob_is_not_found(store: BlobStore) -> None:
    assert not store.has(ABSENT)
    with pytest.raises(NotFound, match=ABSENT):
        store.read(ABSENT)
    assert not store.complete(ABSENT)


def test_bytes_that_are_not_what_is_expected_are_not_kept(store: BlobStore) -> None:
    with pytest.raises(Corrupt):
        store.write(b"other", digest_of(b"hello"))
    assert not store.has(digest_of(b"hello"))
    assert not store.has(digest_of(b"other"))


@pytest.mark.parametrize("digest", ["../../../etc/passwd", "", "ab", "A" * 64, "0" * 64 + "\n"])
def test_a_digest_from_the_network_reaches_no_other_file(store: BlobStore, digest: str) -> None:
    for use in (store.read, store.has, store.complete, store.manifest):
        with pytest.raises(InvalidInput, match="digest"):
            use(Digest(digest))


def test_a_rotten_blob_is_dropped_and_can_be_kept_again(kind: Kind, store: BlobStore) -> None:
    digest = store.write(b"precious")
    kind.rot(store, digest)
    with pytest.raises(Corrupt, match="changed"):
        store.read(digest)
    assert not store.has(digest)
    store.write(b"precious")
    assert store.read(digest) == b"precious"


def test_writing_replaces_a_rotten_copy(kind: Kind, store: BlobStore) -> None:
    digest = store.write(b"precious")
    kind.rot(store, digest)
    store.write(b"precious")
    assert store.read(digest) == b"precious"


def test_a_model_comes_back_as_it_was_packed(store: BlobStore, tmp_path: Path) -> None:
    digest, manifest = store.pack("classifier", model_folder(tmp_path / "in", PARTS))
    assert [part.name for part in manifest.parts] == sorted(PARTS)
    assert manifest.size_bytes == sum(map(len, PARTS.values()))
    assert store.manifest(digest) == manifest
    assert digest == digest_of(canonical(manifest))
    assert store.complete(digest)
    store.unpack(manifest, tmp_path / "out")
    assert files(tmp_path / "out") == PARTS


NAMES = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S"), exclude_characters="/\\"),
    min_size=1,
    max_size=20,
).filter(lambda name: name not in (".", ".."))
BODIES = st.builds(
    lambda seed, size: (seed * (size // max(1, len(seed)) + 1))[:size],
    st.binary(min_size=1, max_size=40),
    st.sampled_from([0, 1, 39, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES]),
)


@pytest.mark.parametrize("name", ["disk", "memory"])
@settings(max_examples=25, deadline=None)
@given(
    parts=st.lists(st.tuples(NAMES, BODIES), min_size=1, max_size=4, unique_by=lambda p: p[0])
    .map(dict)
    .filter(lambda parts: len({name.casefold() for name in parts}) == len(parts))
)
def test_any_folder_survives_packing(name: str, parts: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        store = Kind(name, folder / "store").open()
        digest, manifest = store.pack("any", model_folder(folder / "in", parts))
        assert store.pack("any", folder / "in") == (digest, manifest)
        store.unpack(store.manifest(digest), folder / "out")
        assert files(folder / "out") == parts


def test_a_folder_that_is_no_model_is_refused(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    nested = model_folder(tmp_path / "nested", {"a": b"1"})
    (nested / "inner").mkdir()
    linked = model_folder(tmp_path / "linked", {"a": b"1"})
    (linked / "secret").symlink_to("/etc/passwd")
    for folder in (tmp_path / "empty", nested, linked, tmp_path / "absent"):
        with pytest.raises(InvalidInput):
            store.pack("classifier", folder)


def test_a_model_is_not_unpacked_over_files(store: BlobStore, tmp_path: Path) -> None:
    _, manifest = store.pack("classifier", model_folder(tmp_path / "in", PARTS))
    used = model_folder(tmp_path / "used", {"mine": b"keep"})
    with pytest.raises(InvalidInput, match="not empty"):
        store.unpack(manifest, used)
    assert files(used) == {"mine": b"keep"}


def test_a_model_with_a_rotten_chunk_leaves_no_file(
    kind: Kind, store: BlobStore, tmp_path: Path
) -> None:
    digest, manifest = store.pack("classifier", model_folder(tmp_path / "in", PARTS))
    rotten = manifest.parts[-1].chunks[1]
    kind.rot(store, rotten)
    with pytest.raises(Corrupt, match=rotten):
        store.unpack(manifest, tmp_path / "out")
    assert files(tmp_path / "out") == {}
    assert not store.complete(digest)


CHUNK = Digest("a" * 64)


def manifest_of(*parts: Part) -> Manifest:
    return Manifest(recipe="classifier", parts=parts)


def part(name: str = "a", size_bytes: int = 1, chunks: tuple[Digest, ...] = (CHUNK,)) -> Part:
    return Part(name=name, size_bytes=size_bytes, chunks=chunks)


HOSTILE = {
    "parent": manifest_of(part("..")),
    "climbs": manifest_of(part("../../.ssh/authorized_keys")),
    "absolute": manifest_of(part("/etc/passwd")),
    "backslash": manifest_of(part("..\\evil")),
    "zero byte": manifest_of(part("a\0b")),
    "no name": manifest_of(part("")),
    "long name": manifest_of(part("a" * 256)),
    "same name": manifest_of(part("a"), part("A")),
    "no parts": manifest_of(),
    "negative": manifest_of(part(size_bytes=-1, chunks=())),
    "too few chunks": manifest_of(part(size_bytes=10 * CHUNK_BYTES)),
    "too many chunks": manifest_of(part(size_bytes=1, chunks=(CHUNK, CHUNK))),
    "bad digest": manifest_of(part(chunks=(Digest("../x"),))),
    "two sizes": manifest_of(part("a", 1), part("b", 2)),
}


@pytest.mark.parametrize("manifest", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_manifest_writes_nothing(
    store: BlobStore, tmp_path: Path, manifest: Manifest
) -> None:
    digest = store.write(canonical(manifest))
    with pytest.raises(Corrupt):
        store.manifest(digest)
    with pytest.raises(Corrupt):
        store.unpack(manifest, tmp_path / "deep" / "out")
    assert not [path for path in tmp_path.glob("deep/**/*") if path.is_file()]
    assert not store.complete(digest)


def test_a_chunk_of_another_size_than_stated_is_not_written(
    store: BlobStore, tmp_path: Path
) -> None:
    chunk = store.write(b"12345")
    with pytest.raises(Corrupt, match="5 bytes"):
        store.unpack(manifest_of(part("a", 4, (chunk,))), tmp_path / "out")
    assert files(tmp_path / "out") == {}


def test_a_huge_manifest_is_not_even_decoded(store: BlobStore) -> None:
    digest = store.write(b"\x90" * (MAX_MANIFEST_BYTES + 1))
    with pytest.raises(Corrupt, match="at most"):
        store.manifest(digest)


def test_retain_drops_all_that_no_named_model_needs(store: BlobStore, tmp_path: Path) -> None:
    shared, own, other = (bytes([n]) * CHUNK_BYTES for n in range(3))
    kept, kept_manifest = store.pack("r", model_folder(tmp_path / "a", {"w": shared + own}))
    gone, gone_manifest = store.pack("r", model_folder(tmp_path / "b", {"w": shared + other}))
    stray = store.write(b"stray")
    freed_bytes = store.retain(frozenset({kept, ABSENT}))
    assert freed_bytes == len(other) + len(canonical(gone_manifest)) + len(b"stray")
    assert store.complete(kept)
    assert not any(map(store.has, (gone, stray, digest_of(other))))
    store.unpack(kept_manifest, tmp_path / "out")
    assert files(tmp_path / "out") == {"w": shared + own}
    assert store.retain(frozenset({kept})) == 0


def test_a_model_stays_until_calls_agree_for_a_while(store: BlobStore, tmp_path: Path) -> None:
    one, _ = store.pack("r", model_folder(tmp_path / "a", {"w": b"one"}))
    two, _ = store.pack("r", model_folder(tmp_path / "b", {"w": b"two"}))
    nothing: frozenset[Digest] = frozenset()
    assert store.retain(nothing, 0.0, 100.0) == 0
    assert store.retain(nothing, 99.0, 100.0) == 0
    assert store.retain(frozenset({one}), 101.0, 100.0) > 0
    assert (store.complete(one), store.complete(two)) == (True, False)
    assert store.retain(nothing, 150.0, 100.0) == 0
    store.pack("r", tmp_path / "a")
    assert store.retain(nothing, 250.0, 100.0) == 0
    assert store.complete(one)
    assert store.retain(nothing, 350.0, 100.0) > 0
    assert not store.has(one)


def test_a_disk_store_opened_again_has_its_blobs_and_no_leftovers(tmp_path: Path) -> None:
    digest = DiskBlobStore(tmp_path).write(b"hello")
    (tmp_path / "partial" / "left-by-a-crash").write_bytes(b"half")
    store = DiskBlobStore(tmp_path)
    assert store.read(digest) == b"hello"
    assert not any((tmp_path / "partial").iterdir())


def test_a_blob_that_a_power_cut_emptied_is_kept_again(tmp_path: Path) -> None:
    store = DiskBlobStore(tmp_path)
    digest, manifest = store.pack("r", model_folder(tmp_path / "in", {"w": b"weights"}))
    chunk = manifest.parts[0].chunks[0]
    (tmp_path / "blobs" / chunk[:2] / chunk[2:]).write_bytes(b"")
    assert not store.complete(digest)
    store.write(b"weights")
    assert store.complete(digest)


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidInput, match="cannot keep models"):
        DiskBlobStore(tmp_path / "file")


@pytest.mark.processes
def test_a_killed_writer_leaves_whole_blobs_only(tmp_path: Path) -> None:
    program = (
        "import itertools, pathlib, sys\n"
        "from daitn.tools.mobility.disk import DiskBlobStore\n"
        "store = DiskBlobStore(pathlib.Path(sys.argv[1]))\n"
        "for n in itertools.count():\n"
        "    print(store.write(n.to_bytes(4, 'big') * 100_000), flush=True)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = [Digest(writer.stdout.readline().strip()) for _ in range(20)]
        writer.kill()
        acknowledged += [Digest(line.strip()) for line in writer.stdout if line.endswith("\n")]
    store = DiskBlobStore(tmp_path)
    for digest in acknowledged:
        assert len(store.read(digest)) == 400_000
    for path in (tmp_path / "blobs").glob("*/*"):
        store.read(Digest(path.parent.name + path.name))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def full_disk(request: pytest.FixtureRequest) -> BlobStore:
    return DiskBlobStore(request.getfixturevalue("small_disk") / "store")


def full_memory(request: pytest.FixtureRequest) -> BlobStore:
    return MemoryBlobStore(capacity_bytes=4 * CHUNK_BYTES)


@pytest.mark.parametrize("opened", [full_disk, full_memory])
def test_a_full_disk_is_told_with_numbers_and_keeps_what_is_there(
    request: pytest.FixtureRequest, opened: Callable[[pytest.FixtureRequest], BlobStore]
) -> None:
    store = opened(request)
    kept: list[Digest] = []

    def fill() -> None:
        for n in range(10):
            kept.append(store.write(bytes([n]) * CHUNK_BYTES))

    with pytest.raises(StorageFull, match=f"{CHUNK_BYTES} bytes are needed and .* are free") as e:
        fill()
    assert e.value.fix
    assert len(kept) in (3, 4)
    for n, digest in enumerate(kept):
        assert store.read(digest) == bytes([n]) * CHUNK_BYTES
    assert store.retain(frozenset()) == len(kept) * CHUNK_BYTES
    assert store.has(store.write(b"x" * CHUNK_BYTES))


def test_unpacking_onto_a_full_disk_leaves_no_file(small_disk: Path, tmp_path: Path) -> None:
    store = DiskBlobStore(tmp_path / "store")
    parts = {"a": b"1" * CHUNK_BYTES, "b": os.urandom(5 * CHUNK_BYTES)}
    _, manifest = store.pack("r", model_folder(tmp_path / "in", parts))
    with pytest.raises(StorageFull, match="are needed"):
        store.unpack(manifest, small_disk / "out")
    assert files(small_disk / "out") == {}


@pytest.mark.processes
def test_a_limit_on_file_size_is_a_full_disk_too(tmp_path: Path) -> None:
    program = (
        "import pathlib, resource, sys\n"
        "from daitn.objects.errors import StorageFull\n"
        "from daitn.tools.mobility.disk import DiskBlobStore\n"
        "store = DiskBlobStore(pathlib.Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "small = store.write(b's' * 1000)\n"
        "try:\n"
        "    store.write(b'x' * 1001)\n"
        "except StorageFull:\n"
        "    print(small)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    store = DiskBlobStore(tmp_path)
    assert store.read(Digest(ran.stdout.strip())) == b"s" * 1000
    assert len(list((tmp_path / "blobs").glob("*/*"))) == 1
