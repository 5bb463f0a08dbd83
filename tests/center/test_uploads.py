"""What owners bring to a control centre is bounded, and does not stay for nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from daitn.center.uploads import UNNEEDED_S, Uploads
from daitn.objects.errors import Refused
from daitn.objects.identifiers import Digest
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.releases import Releases

KIB = 1 << 10


def bounded(folder: Path, store: DiskBlobStore, most_bytes: int) -> Uploads:
    return Uploads(store, Releases(folder / "releases", store), most_bytes)


def test_an_owner_fills_its_own_room_only(tmp_path: Path) -> None:
    uploads = bounded(tmp_path, DiskBlobStore(tmp_path), most_bytes=1000 * KIB)
    first = uploads.write("curious", bytes(600 * KIB))
    assert uploads.write("curious", bytes(600 * KIB)) == first, "the same again takes no more room"
    with pytest.raises(Refused, match="curious has") as raised:
        uploads.write("curious", b"x" * 401 * KIB)
    assert "stored_bytes" in raised.value.fix
    uploads.write("acme", b"x" * 980 * KIB)


def test_a_disk_is_not_filled_with_blobs_of_a_byte(tmp_path: Path) -> None:
    """Each takes a file, and its bytes hardly count."""
    uploads = bounded(tmp_path, DiskBlobStore(tmp_path), most_bytes=1000 * KIB)
    with pytest.raises(Refused):
        _ = [uploads.write("curious", number.to_bytes(2)) for number in range(1000)]
    assert len(list(tmp_path.glob("blobs/*/*"))) < 100


def test_what_is_being_written_counts_while_others_are_deleted(tmp_path: Path) -> None:
    class Slow(DiskBlobStore):
        """Whose disk is at work as models are cleaned up."""

        def write(self, data: bytes, expected: Digest | None = None) -> Digest:
            uploads.clean_up(frozenset(), 0.0)
            return super().write(data, expected)

    uploads = bounded(tmp_path, Slow(tmp_path), most_bytes=1000 * KIB)
    uploads.write("curious", bytes(900 * KIB))
    with pytest.raises(Refused):
        uploads.write("curious", b"x" * 900 * KIB)


def test_what_no_job_needs_is_deleted_after_a_day_and_makes_room(tmp_path: Path) -> None:
    store = DiskBlobStore(tmp_path / "store")
    uploads = bounded(tmp_path, store, most_bytes=10_000 * KIB)
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "weights").write_bytes(b"w" * 500)
    model, _ = DiskBlobStore(tmp_path / "own").pack("classifier", parts)
    own = DiskBlobStore(tmp_path / "own")
    needed = [uploads.write("acme", own.read(one)) for one in (model, *_chunks(own, model))]
    idle = uploads.write("acme", b"x" * 9000 * KIB)
    uploads.clean_up(frozenset({model}), 0.0)
    with pytest.raises(Refused):
        uploads.write("acme", b"y" * 9000 * KIB)
    uploads.clean_up(frozenset({model}), UNNEEDED_S)
    assert not store.has(idle)
    assert all(map(store.has, needed))
    uploads.write("acme", b"y" * 9000 * KIB)


def _chunks(store: DiskBlobStore, model: Digest) -> list[Digest]:
    return [chunk for part in store.manifest(model).parts for chunk in part.chunks]
