"""Weights that an owner brings are sent once, several at a time, and go on where they ended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daitn.cli.session import Session
from daitn.cli.uploads import upload
from daitn.objects.errors import InvalidInput, Unreachable
from daitn.objects.identifiers import Digest
from daitn.objects.models import CHUNK_BYTES, Manifest
from daitn.objects.requests import Blobs
from daitn.objects.wire import decode, encode
from daitn.tools.fabric import keys
from daitn.tools.fabric.memory import MemoryNetwork
from daitn.tools.mobility.memory import MemoryBlobStore

CHUNKS = 12


class Center:
    """A control centre's store, which goes away after a number of blobs."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.store = MemoryBlobStore()
        self.sent: list[Digest] = []
        self.goes_after: int | None = None

    async def session(self) -> Session:
        fabric = self.network.open("center")
        await fabric.serve(keys.center_do("store"), self._on_store)
        await fabric.serve(keys.center_do("stored"), self._on_stored)
        return Session(self.network.open("owner"))

    async def _on_store(self, key: str, payload: bytes) -> bytes:
        if self.goes_after is not None and len(self.sent) >= self.goes_after:
            raise Unreachable("the control centre went away", field="center")
        digest = self.store.write(payload)
        self.sent.append(digest)
        return digest.encode()

    async def _on_stored(self, key: str, payload: bytes) -> bytes:
        asked = decode(payload, Blobs).digests
        return encode(Blobs(digests=tuple(d for d in asked if self.store.has(d))))


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "base.safetensors").write_bytes(os.urandom(CHUNKS * CHUNK_BYTES - 5))
    (folder / "README.md").write_text("not a part")
    return folder


async def test_what_arrived_before_is_not_sent_again(parts: Path, tmp_path: Path) -> None:
    center = Center()
    session = await center.session()
    center.goes_after = 7
    with pytest.raises(Unreachable, match="cut off") as cut_off:
        await upload(session, "r", parts, leave_out=frozenset({"README.md"}), quiet=True)
    assert "again" in cut_off.value.fix
    center.goes_after = None
    model = await upload(session, "r", parts, leave_out=frozenset({"README.md"}), quiet=True)
    assert len(center.sent) == len(set(center.sent)) == CHUNKS + 1
    manifest: Manifest = center.store.manifest(model.manifest)
    assert [part.name for part in manifest.parts] == ["base.safetensors"]
    center.store.unpack(manifest, tmp_path / "out")
    there = (tmp_path / "out" / "base.safetensors").read_bytes()
    assert there == (parts / "base.safetensors").read_bytes()
    assert model.size_bytes == len(there)


async def test_a_file_that_changes_meanwhile_is_told(
    parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    center = Center()
    session = await center.session()
    ask = session.ask

    async def changed(*asked: object) -> object:
        (parts / "base.safetensors").write_bytes(bytes(CHUNKS * CHUNK_BYTES - 5))
        return await ask(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr(session, "ask", changed)
    with pytest.raises(InvalidInput, match="changed while"):
        await upload(session, "r", parts, quiet=True)


async def test_a_folder_of_folders_is_no_model(parts: Path) -> None:
    (parts / "more").mkdir()
    with pytest.raises(InvalidInput, match="plain file"):
        await upload(await Center().session(), "r", parts, quiet=True)
