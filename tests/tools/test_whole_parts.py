"""Large parts are kept once, as files that are linked, and behave as chunks do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daitn.objects.digests import digest_of
from daitn.objects.errors import Corrupt, NotFound, StorageFull
from daitn.objects.identifiers import Digest
from daitn.objects.models import CHUNK_BYTES, Manifest, Part
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.whole import LEAST_CHUNKS

BASE = os.urandom(LEAST_CHUNKS * CHUNK_BYTES + 7)


class Packed:
    """A store with a model that has a large part and a small one."""

    def __init__(self, folder: Path) -> None:
        parts = folder / "parts"
        parts.mkdir()
        (parts / "base").write_bytes(BASE)
        (parts / "adapter").write_bytes(b"small")
        self.folder = folder / "store"
        self.store = DiskBlobStore(self.folder)
        self.digest, self.manifest = self.store.pack("r", parts)
        self.base = next(part for part in self.manifest.parts if part.name == "base")

    @property
    def whole(self) -> Path:
        (path,) = (self.folder / "parts").glob("*[!s]")
        return path

    def taken_bytes(self) -> int:
        return sum(p.stat().st_size for p in self.folder.rglob("*") if p.is_file())


@pytest.fixture
def packed(tmp_path: Path) -> Packed:
    return Packed(tmp_path)


def test_a_large_part_is_linked_and_takes_its_room_once(packed: Packed, tmp_path: Path) -> None:
    for name in ("once", "twice"):
        packed.store.unpack(packed.manifest, tmp_path / name, link=True)
        assert (tmp_path / name / "base").read_bytes() == BASE
        assert (tmp_path / name / "base").resolve() == packed.whole
        assert not (tmp_path / name / "adapter").is_symlink()
    assert packed.taken_bytes() < len(BASE) + (64 << 10)
    assert packed.store.complete(packed.digest)
    assert all(packed.store.has(chunk) for chunk in packed.base.chunks)
    read = b"".join(packed.store.read(chunk) for chunk in packed.base.chunks)
    assert read == BASE
    assert packed.store.write(BASE[:CHUNK_BYTES]) == packed.base.chunks[0]
    assert packed.taken_bytes() < len(BASE) + (64 << 10)


def test_who_wants_files_of_its_own_gets_them(packed: Packed, tmp_path: Path) -> None:
    packed.store.unpack(packed.manifest, tmp_path / "linked", link=True)
    packed.store.unpack(packed.manifest, tmp_path / "own")
    assert not (tmp_path / "own" / "base").is_symlink()
    assert (tmp_path / "own" / "base").read_bytes() == BASE


def test_what_training_leaves_as_it_is_is_neither_read_nor_written(
    packed: Packed, tmp_path: Path
) -> None:
    packed.store.unpack(packed.manifest, tmp_path / "in", link=True)
    out = tmp_path / "out"
    out.mkdir()
    (out / "adapter").write_bytes(b"other")
    digest, manifest = packed.store.pack("r", out, [packed.base])
    assert [part.name for part in manifest.parts] == ["adapter", "base"]
    assert manifest.parts[1] == packed.base
    packed.store.unpack(packed.store.manifest(digest), tmp_path / "next", link=True)
    assert (tmp_path / "next" / "base").read_bytes() == BASE
    assert packed.store.retain(frozenset({digest})) < len(BASE)
    assert packed.store.complete(digest)
    assert not packed.store.complete(packed.digest)


def test_a_part_that_no_model_needs_goes_with_its_last_model(
    packed: Packed, tmp_path: Path
) -> None:
    packed.store.unpack(packed.manifest, tmp_path / "in", link=True)
    nothing: frozenset[Digest] = frozenset()
    assert packed.store.retain(nothing, 0.0, 60.0) == 0
    packed.store.renew(packed.base.chunks[3])
    assert packed.store.retain(nothing, 60.0, 60.0) < len(BASE)
    assert packed.store.retain(nothing, 120.0, 60.0) == len(BASE)
    assert not any(packed.store.has(chunk) for chunk in packed.base.chunks)
    with pytest.raises(NotFound):
        packed.store.read(packed.base.chunks[0])


def test_a_store_opened_again_has_its_parts_and_no_leftovers(
    packed: Packed, tmp_path: Path
) -> None:
    packed.store.unpack(packed.manifest, tmp_path / "in", link=True)
    left = packed.folder / "parts" / "unlisted"
    left.write_bytes(b"a crash left this")
    again = DiskBlobStore(packed.folder)
    assert not left.exists()
    assert again.complete(packed.digest)
    again.unpack(packed.manifest, tmp_path / "again", link=True)
    assert (tmp_path / "again" / "base").read_bytes() == BASE


def test_a_part_that_the_disk_changed_loses_the_wrong_chunk_only(
    packed: Packed, tmp_path: Path
) -> None:
    packed.store.unpack(packed.manifest, tmp_path / "in", link=True)
    whole = packed.whole
    whole.chmod(0o644)
    with whole.open("r+b") as file:
        file.seek(2 * CHUNK_BYTES)
        file.write(bytes([BASE[2 * CHUNK_BYTES] ^ 1]))
    again = DiskBlobStore(packed.folder)
    with pytest.raises(Corrupt):
        again.unpack(packed.manifest, tmp_path / "again", link=True)
    lacking = [chunk for chunk in packed.base.chunks if not again.has(chunk)]
    assert lacking == [packed.base.chunks[2]]
    again.write(BASE[2 * CHUNK_BYTES : 3 * CHUNK_BYTES], lacking[0])
    again.unpack(packed.manifest, tmp_path / "mended", link=True)
    assert (tmp_path / "mended" / "base").read_bytes() == BASE


def test_a_good_chunk_beside_a_wrong_part_is_what_counts(packed: Packed, tmp_path: Path) -> None:
    packed.store.unpack(packed.manifest, tmp_path / "in", link=True)
    packed.whole.chmod(0o644)
    with packed.whole.open("r+b") as file:
        file.write(bytes([BASE[0] ^ 1]))
    again = DiskBlobStore(packed.folder)
    again.write(BASE[:CHUNK_BYTES], packed.base.chunks[0])
    again.unpack(packed.manifest, tmp_path / "again", link=True)
    assert (tmp_path / "again" / "base").read_bytes() == BASE


def test_a_start_deletes_what_is_there_twice_and_looks_for_nothing_else(
    packed: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = packed.folder / "blobs" / packed.base.chunks[1][:2] / packed.base.chunks[1][2:]
    packed.store.unpack(packed.manifest, tmp_path / "in", link=True)
    assert not twin.exists()
    twin.write_bytes(BASE[CHUNK_BYTES : 2 * CHUNK_BYTES])
    deleted = list[Path]()
    unlink = Path.unlink

    def noted(path: Path, missing_ok: bool = False) -> None:
        deleted.append(path)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", noted)
    again = DiskBlobStore(packed.folder)
    assert deleted == [twin]
    assert again.complete(packed.digest)


def test_a_part_larger_than_the_disk_is_refused_before_anything_is_written(
    packed: Packed, tmp_path: Path
) -> None:
    chunk, number = packed.store.write(b"0" * CHUNK_BYTES), 2**22
    part = Part(name="w", size_bytes=number * CHUNK_BYTES, chunks=(chunk,) * number)
    with pytest.raises(StorageFull, match="bytes are needed"):
        packed.store.unpack(Manifest(recipe="r", parts=(part,)), tmp_path / "out", link=True)
    assert list((packed.folder / "parts").iterdir()) == []
    assert digest_of(packed.store.read(chunk)) == chunk
