"""Large parts stored as whole files, for direct use.

::

    parts/<id>          a part, its chunks one after the other
    parts/<id>.chunks   their digests; written last, so a part without it is none

A language model of 8 billion weights has 16 GB that no visit changes. Assembled anew from its
chunks, each visit would read, hash and write all of that. So the chunks of such a part move into
one file at its first use, which is linked from then on, and a chunk is read out of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Set
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from daitn.files.atomic import make_folder, put_in_place, replace_file
from daitn.objects.digests import digest_of
from daitn.objects.identifiers import Digest
from daitn.objects.models import CHUNK_BYTES, Part
from daitn.objects.wire import canonical

__all__ = ["LEAST_CHUNKS", "WholeParts"]

LEAST_CHUNKS: Final = 16
"""Minimum size of a part worth keeping whole: smaller ones are copied in milliseconds."""
_CHUNKS = ".chunks"
_PARTIAL = ".partial"


class _Place(NamedTuple):
    part: Digest
    offset: int


class WholeParts:
    """The parts in one folder, and the position of each chunk in them. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        """Raises `OSError` if the folder cannot be created or read."""
        make_folder(folder)
        self._folder = folder
        self._lock = threading.Lock()
        self._chunks: dict[Digest, tuple[Digest, ...]] = {}
        self._places: dict[Digest, _Place] = {}
        self._checked: set[Digest] = set()
        for path in sorted(folder.iterdir()):
            if path.suffix != _CHUNKS:
                self._adopt(path)
        self._place()

    def __contains__(self, chunk: Digest) -> bool:
        return chunk in self._places

    def read(self, chunk: Digest) -> bytes | None:
        """A chunk's bytes, as read from the disk; none if it is in no part."""
        place = self._places.get(chunk)
        if place is None:
            return None
        try:
            with (self._folder / place.part).open("rb") as file:
                file.seek(place.offset)
                return file.read(CHUNK_BYTES)
        except FileNotFoundError:
            return None

    def find(self, part: Part) -> Path | None:
        """The file of a part; none if it is not stored whole."""
        name = _name(part)
        return self._folder / name if name in self._chunks else None

    def first_wrong(self, part: Part) -> Digest | None:
        """The first chunk of a part that the disk has changed since an earlier process wrote it."""
        name = _name(part)
        if name not in self._chunks or name in self._checked:
            return None
        for digest in part.chunks:
            if digest_of(self.read(digest) or b"") != digest:
                return digest
        self._checked.add(name)
        return None

    def add(self, part: Part, write: Callable[[Path], None]) -> Path:
        """Store a part, which `write` writes; on disk when this returns."""
        name = _name(part)
        path = self._folder / name
        with self._lock:
            if name not in self._chunks:
                partial = path.with_name(name + _PARTIAL)
                partial.unlink(missing_ok=True)
                try:
                    write(partial)
                    partial.chmod(0o444)
                    put_in_place(partial, path)
                except BaseException:
                    partial.unlink(missing_ok=True)
                    raise
                replace_file(path.with_name(name + _CHUNKS), canonical(part.chunks))
                self._chunks[name] = part.chunks
                self._checked.add(name)
                self._place()
        return path

    def split(self, chunk: Digest, place: Callable[[Digest, bytes], None]) -> None:
        """Give up the part that contains a chunk, if any; `place` gets its intact chunks."""
        with self._lock:
            if chunk not in self._places:
                return
            part = self._places[chunk].part
            for digest in self._chunks[part]:
                data = self.read(digest)
                if data is not None and digest_of(data) == digest:
                    place(digest, data)
            self._drop(part)

    def holder(self, chunk: Digest) -> Digest | None:
        """The part that contains a chunk."""
        place = self._places.get(chunk)
        return None if place is None else place.part

    def unneeded(self, kept: Set[Digest]) -> list[Digest]:
        """The parts without any chunk in `kept`."""
        return [part for part, chunks in self._chunks.items() if kept.isdisjoint(chunks)]

    def drop(self, part: Digest) -> int:
        """Delete a part, if it is there; returns the bytes freed."""
        with self._lock:
            return self._drop(part) if part in self._chunks else 0

    def _adopt(self, path: Path) -> None:
        """Adopt the files of an earlier process."""
        listed = path.with_name(path.name + _CHUNKS)
        try:
            chunks = msgspec.msgpack.decode(listed.read_bytes(), type=tuple[Digest, ...])
        except (OSError, msgspec.DecodeError):
            chunks = ()
        if chunks and digest_of(canonical(chunks)) == path.name:
            self._chunks[Digest(path.name)] = chunks
        else:
            path.unlink()

    def _place(self) -> None:
        self._places = {
            digest: _Place(part, n * CHUNK_BYTES)
            for part, chunks in self._chunks.items()
            for n, digest in enumerate(chunks)
        }

    def _drop(self, part: Digest) -> int:
        del self._chunks[part]
        self._checked.discard(part)
        self._place()
        path = self._folder / part
        size_bytes = path.stat().st_size
        path.with_name(path.name + _CHUNKS).unlink(missing_ok=True)
        path.unlink()
        return size_bytes


def _name(part: Part) -> Digest:
    return digest_of(canonical(part.chunks))
