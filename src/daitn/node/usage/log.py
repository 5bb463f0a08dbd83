"""Counts that outlive the process: a file with all of them, and logs of later changes. Each record
reaches the kernel at once, so killing the process loses none. A power failure may lose the last
moments, which were not reported to anybody."""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from daitn.files.atomic import NO_FILE, closed, make_folder, replace_file
from daitn.files.failed_writes import STATE_FIX
from daitn.objects.errors import Corrupt, StorageFull
from daitn.objects.wire import decode, encode

__all__ = ["CountLog"]

log = logging.getLogger(__name__)

State = TypeVar("State")
Record = TypeVar("Record")

_HEAD = struct.Struct(">II")
_LONGEST = 1 << 16


class _SavedState(msgspec.Struct, frozen=True):
    generation: int
    state: msgspec.Raw


class CountLog(Generic[State, Record]):
    """A state and the records since, in a folder that belongs to one process.

    A log belongs to a generation. The state of generation g holds all records of earlier logs; a
    state is written while records go to its log already, so logs of all generations from g on
    count. What a crash left half written of a record is ignored, and never written after.
    """

    def __init__(self, folder: Path, state: type[State], record: type[Record]) -> None:
        self._folder = folder
        self._state, self._record = state, record
        self._file = NO_FILE
        self._full = False
        """Whether a record could not be written since the last begin."""
        self._generation = 0
        make_folder(folder)

    def read(self) -> tuple[State | None, list[Record]]:
        """The state, if there is one, and the records since. Raises `Corrupt`."""
        path = self._folder / "counts"
        saved = decode(path.read_bytes(), _SavedState) if path.exists() else None
        since = saved.generation if saved else 0
        records: list[Record] = []
        for generation in self._generations():
            self._generation = max(self._generation, generation)
            if generation >= since:
                records += self._records(self._path(generation))
        self._generation = max(self._generation, since)
        return (decode(bytes(saved.state), self._state) if saved else None), records

    def append(self, record: Record) -> None:
        """Add a record. If the disk has no room for it, it and those after it are in the next state
        at least: nothing is written after half a record."""
        if self._file == NO_FILE and not self._full:
            self.begin()
        if self._full:
            return
        body = encode(record)
        data = _HEAD.pack(len(body), zlib.crc32(body)) + body
        try:
            if os.write(self._file, data) != len(data):
                self._fail("it is full")
        except OSError as error:
            self._fail(error.strerror)

    def begin(self) -> int:
        """Begin the next log. Returns its generation, for `keep` with the current state."""
        self.close()
        self._generation += 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            self._file = os.open(self._path(self._generation), flags, 0o600)
            self._full = False
        except OSError as error:
            self._fail(error.strerror)
        return self._generation

    def _fail(self, why: str | None) -> None:
        if not self._full:
            log.warning("%s takes no counts until it can be written: %s", self._folder, why)
        self._full = True

    def keep(self, state: State, generation: int) -> None:
        """Store the state as it was when that generation began; on disk when this returns. Raises
        `StorageFull`."""
        saved = _SavedState(generation, msgspec.Raw(encode(state)))
        try:
            replace_file(self._folder / "counts", encode(saved), private=True)
        except OSError as error:
            raise StorageFull(
                f"{self._folder} cannot be written: {error.strerror}",
                fix=STATE_FIX,
            ) from None
        for earlier in self._generations():
            if earlier < generation:
                self._path(earlier).unlink(missing_ok=True)

    def close(self) -> None:
        self._file = closed(self._file)

    def _path(self, generation: int) -> Path:
        return self._folder / f"log.{generation}"

    def _generations(self) -> list[int]:
        found = (path.name.removeprefix("log.") for path in self._folder.glob("log.*"))
        return sorted(int(name) for name in found if name.isdecimal())

    def _records(self, path: Path) -> Iterator[Record]:
        data, at = path.read_bytes(), 0
        while at + _HEAD.size <= len(data):
            length, check = _HEAD.unpack_from(data, at)
            body = data[at + _HEAD.size : at + _HEAD.size + length]
            if length > _LONGEST or len(body) < length or zlib.crc32(body) != check:
                break
            try:
                yield decode(body, self._record)
            except Corrupt as error:
                log.warning("%s: %s", path, error.problem)
            at += _HEAD.size + length
