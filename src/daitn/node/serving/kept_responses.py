"""Responses that a facility stores for their owners, as files.

An owner finds its own only: a file's name follows from the owner and the id, and tells neither.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import NamedTuple

import msgspec
from blake3 import blake3

from daitn.files.items import ItemStore
from daitn.objects.errors import StorageFull
from daitn.openai.conversation import MAX_STORED_BYTES
from daitn.openai.errors import ApiError, bad_request
from daitn.tools import clock

__all__ = ["StoredResponses"]

log = logging.getLogger(__name__)

EXPIRY_INTERVAL_S = 60.0
_OWNER_DIGITS, _ID_DIGITS = 16, 40


class _Stored(msgspec.Struct, frozen=True):
    body: bytes


class _File(NamedTuple):
    size_bytes: int
    at_s: float
    """When it was written, by the wall clock."""


class StoredResponses:
    """Stores the newest within limits. If there is no room, the oldest of the owner with the most
    are deleted."""

    def __init__(self, folder: Path, most: int, most_bytes: int, lasts_s: float) -> None:
        """`most`: number of responses; 0 means existing ones are deleted, and none is stored."""
        self._store = ItemStore(folder, _Stored, private=True)
        self._most = most
        self._most_bytes = most_bytes
        self._lasts_s = lasts_s
        self._files: dict[str, dict[str, _File]] = {}
        """Per owner, by name, oldest first."""
        self._count = self._bytes = 0
        self._lock = asyncio.Lock()
        for name, size_bytes, at_s in sorted(self._store.written(), key=lambda one: one[2]):
            self._add(name, _File(size_bytes, at_s))
        self._make_room()

    @property
    def keeps(self) -> bool:
        return self._most > 0

    async def put(self, owner: str, id_: str, body: bytes) -> None:
        """Store a response; on disk when this returns. Stored responses never change.

        Raises `ApiError` for another one of the same id, and where there is no room.
        """
        # Written responses are counted even if nobody awaits them any more.
        await asyncio.shield(self._put(_name(owner, id_), body))

    async def _put(self, name: str, body: bytes) -> None:
        async with self._lock:
            known = await self._read(name)
            if known == body:
                return
            if known is not None:
                raise bad_request("another response has this id", "id", status=409)
            if not self.keeps or len(body) > min(self._most_bytes, MAX_STORED_BYTES):
                raise bad_request(
                    "the response exceeds the limit of this facility", "body", status=413
                )
            try:
                await asyncio.to_thread(self._store.put, name, _Stored(body))
            except StorageFull as error:
                log.warning("a response is not kept: %s", error.problem)
                raise ApiError(503, "unavailable", "there is no room", retry_after_s=1.0) from None
            self._add(name, _File(len(body), clock.wall_s()))
            self._make_room()
            if self._file(name) is None:
                raise bad_request(
                    "the response exceeds the limit of this facility", "body", status=413
                )

    async def get(self, owner: str, id_: str) -> bytes:
        """A response of an owner. Raises `ApiError` (404)."""
        async with self._lock:
            body = await self._read(_name(owner, id_))
        if body is None:
            raise _not_found(id_)
        return body

    async def delete(self, owner: str, id_: str) -> None:
        """Delete a response. Raises `ApiError` (404)."""
        name = _name(owner, id_)
        async with self._lock:
            if await self._read(name) is None:
                raise _not_found(id_)
            self._remove(name)

    async def expire(self) -> None:
        """Wait, then delete what is too old."""
        await asyncio.sleep(EXPIRY_INTERVAL_S)
        async with self._lock:
            self._make_room()

    async def _read(self, name: str) -> bytes | None:
        file = self._file(name)
        if file is None or self._is_old(file):
            return None
        found = await asyncio.to_thread(self._store.get, name)
        if found is None:  # The disk changed it.
            self._remove(name)
            return None
        return found.body

    def _file(self, name: str) -> _File | None:
        return self._files.get(_owner(name), {}).get(name)

    def _is_old(self, file: _File) -> bool:
        return clock.wall_s() - file.at_s > self._lasts_s

    def _add(self, name: str, file: _File) -> None:
        self._files.setdefault(_owner(name), {})[name] = file
        self._count += 1
        self._bytes += file.size_bytes

    def _remove(self, name: str) -> None:
        files = self._files[_owner(name)]
        self._bytes -= files.pop(name).size_bytes
        self._count -= 1
        if not files:
            del self._files[_owner(name)]
        self._store.forget(name)

    def _make_room(self) -> None:
        for files in [*self._files.values()]:
            for name in [name for name, file in files.items() if self._is_old(file)]:
                self._remove(name)
        while self._count > self._most or self._bytes > self._most_bytes:
            by_bytes = self._bytes > self._most_bytes
            most = max(self._files.values(), key=_bytes_of if by_bytes else len)
            self._remove(next(iter(most)))


def _bytes_of(files: dict[str, _File]) -> int:
    return sum(file.size_bytes for file in files.values())


def _name(owner: str, id_: str) -> str:
    whose = blake3(owner.encode()).hexdigest()
    return f"{whose[:_OWNER_DIGITS]}-{blake3(f'{whose}{id_}'.encode()).hexdigest()[:_ID_DIGITS]}"


def _owner(name: str) -> str:
    return name[:_OWNER_DIGITS]


def _not_found(id_: str) -> ApiError:
    return ApiError(404, "not_found", f"this facility has no response {id_[:100]} for you")
