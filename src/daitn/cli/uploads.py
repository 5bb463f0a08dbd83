"""Uploads of an owner's weights to a control centre, which holds them for the first site."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from daitn.cli.session import Session, errors
from daitn.objects.digests import digest_of
from daitn.objects.errors import InvalidInput, Unreachable
from daitn.objects.identifiers import CENTER_SITE, Digest
from daitn.objects.models import CHUNK_BYTES, Manifest, ModelRef
from daitn.objects.requests import Blobs
from daitn.objects.wire import canonical
from daitn.tools.fabric import keys
from daitn.tools.mobility.manifests import chunk_sizes
from daitn.tools.mobility.parts import cut
from daitn.tools.mobility.transport import Watch

__all__ = ["upload"]

"""Receives the bytes that the control centre has, and those of the whole model."""

_AT_ONCE: Final = 4
_TIMEOUT_S: Final = 120.0
"""For a chunk among `_AT_ONCE`: a link of 0.04 MB/s delivers all of them within it."""
_ASKED_AT_ONCE: Final = 8192


class _Place(NamedTuple):
    """The position of a chunk in a file."""

    path: Path
    offset: int


async def upload(
    session: Session,
    recipe: str,
    folder: Path,
    *,
    leave_out: frozenset[str] = frozenset(),
    quiet: bool = False,
) -> ModelRef:
    """Upload a folder of parts to the control centre, without its files in `leave_out`.

    What the centre has of this owner is not sent again, so a second call goes on where a first one
    ended. Shows progress unless `quiet`. Raises `InvalidInput` for a folder that is not a model or
    changes meanwhile, and `Unreachable`.
    """
    manifest = await asyncio.to_thread(cut, recipe, folder, digest_of, leave_out)
    encoded = canonical(manifest)
    digest = digest_of(encoded)
    try:
        with _progress(folder.name, quiet) as watch:
            await _upload_chunks(session, folder, manifest, watch)
        await _store(session, encoded, digest, folder)
    except Unreachable as error:
        raise Unreachable(
            f"the upload of {folder} was cut off: {error.problem}",
            field="model.start",
            fix="repeat the command; chunks that have arrived are not sent again",
        ) from None
    return ModelRef(manifest=digest, size_bytes=manifest.size_bytes, holders=(CENTER_SITE,))


async def _upload_chunks(session: Session, folder: Path, manifest: Manifest, watch: Watch) -> None:
    sizes = chunk_sizes(manifest)
    places = _places(folder, manifest)
    stored = await _stored(session, tuple(sizes))
    missing = [digest for digest in sizes if digest not in stored]
    total_bytes = sum(sizes.values())
    done_bytes = total_bytes - sum(sizes[digest] for digest in missing)
    watch(done_bytes, total_bytes)
    left = iter(missing)

    async def send() -> None:
        nonlocal done_bytes
        for digest in left:
            data = await asyncio.to_thread(_read, places[digest])
            await _store(session, data, digest, folder)
            done_bytes += len(data)
            watch(done_bytes, total_bytes)

    senders = [asyncio.create_task(send()) for _ in range(_AT_ONCE)]
    try:
        await asyncio.gather(*senders)
    finally:
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)


async def _stored(session: Session, digests: tuple[Digest, ...]) -> frozenset[Digest]:
    """Those of the blobs that the control centre already has from this owner."""
    stored: set[Digest] = set()
    for n in range(0, len(digests), _ASKED_AT_ONCE):
        wanted = Blobs(digests=digests[n : n + _ASKED_AT_ONCE])
        stored.update((await session.ask("stored", wanted, Blobs)).digests)
    return frozenset(stored)


async def _store(session: Session, data: bytes, expected: Digest, folder: Path) -> None:
    if digest_of(data) != expected:
        raise InvalidInput(
            f"{folder} changed while it was uploaded",
            field="model.start",
            fix="repeat the command once nothing writes there",
        )
    await session.fabric.request(keys.center_do("store"), data, timeout_s=_TIMEOUT_S)


def _places(folder: Path, manifest: Manifest) -> dict[Digest, _Place]:
    return {
        digest: _Place(folder / part.name, n * CHUNK_BYTES)
        for part in manifest.parts
        for n, digest in enumerate(part.chunks)
    }


def _read(place: _Place) -> bytes:
    with place.path.open("rb") as file:
        file.seek(place.offset)
        return file.read(CHUNK_BYTES)


@contextmanager
def _progress(name: str, quiet: bool) -> Iterator[Watch]:
    columns = (
        TextColumn("uploading {task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=errors, transient=True, disable=quiet) as bars:
        task = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
