"""A request as the HTTP server hands it to its handler, and what goes back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from daitn.node.http.framing import HIGH_WATER, read_headers

__all__ = ["BodyBroken", "BodyTooLarge", "Line", "Reply", "Request", "Response", "Stream"]


class BodyTooLarge(Exception):
    """A request's body has more bytes than are taken."""


class BodyBroken(Exception):
    """A request's body is malformed."""


class Line(Protocol):
    """What a request needs of the connection that it came by."""

    def resume(self) -> None:
        """Let more of the request come."""
        ...

    def pause(self) -> None:
        """Let no more come for now."""
        ...

    def provisional(self) -> None:
        """Say that the body may come."""
        ...

    def begin(self, request: Request, status: int, headers: Mapping[str, str]) -> bool:
        """Send the head of an answer of unknown length; whether it goes out in chunks."""
        ...

    async def send(self, data: bytes) -> None:
        """Send, and wait while too much is on its way. Raises `ConnectionError`."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Request:
    """One request; its body is still to be read."""

    __slots__ = (
        "_fault",
        "_headers",
        "_line",
        "_most",
        "_pieces",
        "_size",
        "_waiter",
        "begun",
        "chunks",
        "keeps",
        "method",
        "path",
        "raw_headers",
        "whole",
    )

    def __init__(
        self,
        line: Line,
        method: str,
        path: str,
        raw_headers: list[tuple[bytes, bytes]],
        *,
        chunks: bool,
        keeps: bool,
    ) -> None:
        """`path`: decoded, without the query. `chunks`: who asks reads answers in chunks.
        `keeps`: the connection may be used again."""
        self.method = method
        self.path = path
        self.raw_headers = raw_headers
        self.chunks = chunks
        self.keeps = keeps
        self.whole = False
        """Whether all of it is there."""
        self.begun = False
        """Whether the head of its answer is on its way."""
        self._headers: dict[str, str] | None = None
        self._line = line
        self._pieces: list[bytes] = []
        self._size = 0
        self._most = HIGH_WATER
        self._fault: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def headers(self) -> dict[str, str]:
        """By name in lower case; of several of a name the first."""
        if self._headers is None:
            self._headers = read_headers(self.raw_headers)
        return self._headers

    async def body(self, most: int) -> bytes:
        """All of it. Raises `BodyTooLarge` and `BodyBroken`."""
        self._most = most
        if not self.whole and self._fault is None:
            declared = self.headers.get("content-length", "")
            if declared.isdecimal() and int(declared) > most:
                raise BodyTooLarge
            if self.headers.get("expect", "").lower() == "100-continue":
                self._line.provisional()
            self._line.resume()
        while not self.whole and self._fault is None and self._size <= most:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._size > most:
            raise BodyTooLarge
        if self._fault is not None:
            raise self._fault
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def stream(self, headers: Mapping[str, str], status: int = 200) -> Stream:
        """Begin an answer whose end is not there yet. Raises `ValueError` for headers that are
        none."""
        chunks = self._line.begin(self, status, headers)
        return Stream(self, self._line, status, chunks=chunks)

    def abort(self) -> None:
        """Close the connection at once, so that nobody takes a stream for whole."""
        self._line.abort()

    def put(self, piece: bytes) -> None:
        """More of the body came."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._most:
            self._line.pause()
            self._wake()

    def end(self, fault: Exception | None = None) -> None:
        """The body has ended, or will not."""
        self.whole, self._fault = fault is None, fault
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Response:
    """An answer that is sent whole."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self, body: bytes = b"", status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self.body = body
        self.status = status
        self.headers: dict[str, str] = dict(headers or {})


class Stream:
    """An answer that is sent piece by piece."""

    __slots__ = ("_chunks", "_ended", "_line", "_request", "status")

    def __init__(self, request: Request, line: Line, status: int, *, chunks: bool) -> None:
        self.status = status
        self._request = request
        self._line = line
        self._chunks = chunks
        self._ended = False

    async def write(self, data: bytes) -> None:
        """Send, and wait while who asked is slow. Raises `ConnectionError`."""
        if data and self._request.method != "HEAD":
            await self._line.send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunks else data)

    async def end(self, *, close: bool = False) -> None:
        """All was said. `close`: the connection is not to be used again. Ending twice is harmless.
        Raises `ConnectionError`."""
        if self._ended:
            return
        self._ended = True
        if close:
            self._request.keeps = False
        if self._chunks:
            await self._line.send(b"0\r\n\r\n")


Reply = Response | Stream
