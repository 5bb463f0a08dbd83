"""One connection of the HTTP client, and the answer that comes over it."""

from __future__ import annotations

import asyncio
from typing import cast

import httptools

from daitn.node.http.framing import BODY_PAYS, HIGH_WATER, MOST_HEAD, read_headers

__all__ = [
    "BrokenOff",
    "ClientConnection",
    "FellSilent",
    "HttpAnswer",
    "HttpFailed",
    "NotReached",
    "Pool",
    "Stale",
]

Key = tuple[str, int, bool]
"""Host, port, and whether TLS is spoken: what connections are alike in."""

_NO_BODY = frozenset({204, 304})
WRITE_TIMEOUT_S = 10.0
"""A server that takes nothing of a request for so long has hung; a lost segment is sent again
within 3 s, and then within 7 s (RFC 6298)."""


class HttpFailed(Exception):
    """A request was not answered, or not to the end."""


class NotReached(HttpFailed):
    """There was no connection. `refused`: the machine is there, and nobody listens."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class FellSilent(HttpFailed):
    """Nothing came for as long as was allowed."""


class BrokenOff(HttpFailed):
    """The connection was lost, or what came is no HTTP."""


class Stale(BrokenOff):
    """The connection was lost before anything of the answer came."""


class HttpAnswer:
    """An answer whose body is read piece by piece, by one reader."""

    __slots__ = (
        "_connection",
        "_done",
        "_failure",
        "_pieces",
        "_size",
        "_waiter",
        "headers",
        "status",
    )

    def __init__(self, connection: ClientConnection) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """By name in lower case."""
        self._connection = connection
        self._pieces: list[bytes] = []
        self._size = 0
        self._done = False
        self._failure: HttpFailed | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def begun(self) -> None:
        """Until the head is there. Raises `HttpFailed`."""
        while not self.status:
            if self._failure is not None:
                raise self._failure
            await self._change()

    async def piece(self) -> bytes:
        """All that came since; empty at the end. Raises `HttpFailed`."""
        while not self._pieces:
            if self._failure is not None:
                raise self._failure
            if self._done:
                return b""
            await self._change()
        pieces = self._pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces, self._size = [], 0
        if not self._done:
            self._connection.resume()
        return piece

    def close(self) -> None:
        """What has not come yet is not wanted. Closing twice is harmless."""
        if not self._done and self._failure is None:
            self._connection.abort()

    async def _change(self) -> None:
        """Whoever gives up waiting gives up the answer."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        except BaseException:
            self.close()
            raise

    def begin(self, status: int, headers: dict[str, str]) -> None:
        self.status, self.headers = status, headers
        self._wake()

    def put(self, piece: bytes) -> bool:
        """Whether more is there now than anybody should hold."""
        self._pieces.append(piece)
        self._size += len(piece)
        self._wake()
        return self._size > HIGH_WATER

    def end(self, failure: HttpFailed | None = None) -> None:
        self._done, self._failure = failure is None, failure
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Pool:
    """The connections of one client."""

    def __init__(self, keep_s: float) -> None:
        """`keep_s`: for so long an unused one is kept."""
        self.keep_s = keep_s
        self.open: set[ClientConnection] = set()
        self._idle: dict[Key, list[ClientConnection]] = {}

    def take(self, key: Key) -> ClientConnection | None:
        """The one that was used last, if one is free."""
        idle = self._idle.get(key)
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
        return None

    def put(self, connection: ClientConnection) -> None:
        """It is free."""
        self._idle.setdefault(connection.key, []).append(connection)

    def lost(self, connection: ClientConnection) -> None:
        self.open.discard(connection)
        idle = self._idle.get(connection.key)
        if idle is not None:
            if connection in idle:
                idle.remove(connection)
            if not idle:
                del self._idle[connection.key]


class ClientConnection(asyncio.Protocol):
    """Carries one request at a time; goes back to its pool when an answer has ended."""

    def __init__(self, pool: Pool, key: Key) -> None:
        self.key = key
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._raw: list[tuple[bytes, bytes]] = []
        self._answer: HttpAnswer | None = None
        self._reading = True
        self._keeps = False
        self._until_eof = False
        self._spare = MOST_HEAD
        """Bytes that may come and are not of a body."""
        self._heard = False
        """Whether anything of the answer came."""
        self._heard_s = 0.0
        self._silent_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        """Bytes of the request, when it was last looked whether the server takes them."""
        self._write_timer: asyncio.TimerHandle | None = None

    @property
    def usable(self) -> bool:
        return not self._transport.is_closing()

    async def ask(self, message: bytes, silent_s: float) -> HttpAnswer:
        """Send a whole request and wait for the head of its answer. Raises `HttpFailed`."""
        answer = self._answer = HttpAnswer(self)
        self._heard = False
        self._silent_s = silent_s
        self._heard_s = self._loop.time()
        self._look_at(self._heard_s + silent_s)
        self._transport.write(message)
        await answer.begun()
        return answer

    def resume(self) -> None:
        """What came was taken."""
        if not self._reading:
            self._reading = True
            self._heard_s = self._loop.time()
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once; an answer under way breaks off."""
        self._fail(BrokenOff("it was given up"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._pool.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._until_eof and exc is None and self._answer is not None:
            self._ended()
        failure = BrokenOff if self._heard else Stale
        self._fail(failure(f"the connection was lost{'' if exc is None else f': {exc}'}"))
        self._pool.lost(self)
        self.resume_writing()
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        self._unsent = self._transport.get_write_buffer_size()
        self._write_timer = self._loop.call_later(WRITE_TIMEOUT_S, self._look_at_writing)

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
            self._heard_s = self._loop.time()

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self._transport.abort()  # It says something that nobody asked for.
            return
        self._heard = True
        self._heard_s = self._loop.time()
        self._spare -= len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(BrokenOff(f"what it says is no HTTP: {error}"))
        if self._spare < 0:
            self._fail(BrokenOff("its head or its padding is too long"))

    def on_message_begin(self) -> None:
        self._raw = []
        if self._answer is None:
            self._transport.abort()  # One answer more than was asked for.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._raw.append((name, value))

    def on_headers_complete(self) -> None:
        status, answer = self._parser.get_status_code(), self._answer
        if status < 200 or answer is None:  # Provisional: the answer follows.
            return
        headers = read_headers(self._raw)
        framed = "content-length" in headers or "transfer-encoding" in headers
        self._until_eof = not framed and status not in _NO_BODY
        self._keeps = self._parser.should_keep_alive() and not self._until_eof
        answer.begin(status, headers)

    def on_body(self, body: bytes) -> None:
        self._spare += BODY_PAYS * len(body)
        if self._answer is not None and self._answer.put(body) and self._reading:
            self._reading = False
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._answer is not None and self._answer.status:
            self._ended()

    def _ended(self) -> None:
        """The answer is whole; the connection may be used again."""
        assert self._answer is not None
        self._answer.end()
        self._answer = None
        self._until_eof = False
        self._spare = MOST_HEAD
        self.resume()
        if not self._keeps or self._transport.get_write_buffer_size():
            self._transport.abort()
        elif not self._transport.is_closing():
            self._pool.put(self)

    def _fail(self, failure: HttpFailed) -> None:
        if self._answer is not None:
            self._answer.end(failure)
            self._answer = None
        self._transport.abort()

    def _look_at(self, at_s: float) -> None:
        """Let `_look` come no later than this."""
        if self._timer is not None:
            if self._timer.when() <= at_s:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at_s, self._look)

    def _look(self) -> None:
        """One timer per connection, which goes on while things happen: most requests end long
        before theirs would have come."""
        self._timer = None
        now_s = self._loop.time()
        if self._answer is not None and (not self._reading or self._write_timer is not None):
            self._heard_s = now_s  # Who reads is slow, or the request is still on its way.
        until_s = self._heard_s + (self._pool.keep_s if self._answer is None else self._silent_s)
        if until_s > now_s:
            self._look_at(until_s)
        elif self._answer is None:
            self._transport.close()
        else:
            self._fail(FellSilent("nothing came for too long"))

    def _look_at_writing(self) -> None:
        """Go on while the server takes something of the request."""
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._unsent = unsent
            self._write_timer = self._loop.call_later(WRITE_TIMEOUT_S, self._look_at_writing)
        else:
            self._write_timer = None
            self._fail(FellSilent("it takes nothing of the request"))
