"""One connection of the HTTP client, and the response that arrives over it."""

from __future__ import annotations

import asyncio
from typing import cast

import httptools

from daitn.tools.http.content_coding import BadCoding, Decoder
from daitn.tools.http.framing import (
    HIGH_WATER,
    MAX_HEAD_BYTES,
    OVERHEAD_PER_BODY_BYTE,
    read_headers,
)

__all__ = [
    "ClientConnection",
    "ClientResponse",
    "ConnectError",
    "ConnectionBroken",
    "HttpError",
    "Pool",
    "ServerTimeout",
    "StaleConnection",
]

Key = tuple[str, int, bool]
"""Host, port, and whether the connection uses TLS: connections with equal keys are
interchangeable."""

_STATUSES_WITHOUT_BODY = frozenset({204, 304})
ANSWER_TIMEOUT_S = 3600.0
"""No response takes longer, however steadily it trickles."""
RELEASE_S = 1.0
"""Time limit for the rest of an abandoned response. A healthy server ends it at once, and its
connection is kept."""
WRITE_TIMEOUT_S = 10.0
"""A server that reads nothing of a request for this long hangs. TCP resends a lost segment within 3
s, then within 7 s (RFC 6298)."""


class HttpError(Exception):
    """A request got no response, or an incomplete one."""


class ConnectError(HttpError):
    """No connection could be opened. `refused`: the machine answered that nothing listens on the
    port."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class ServerTimeout(HttpError):
    """The server sent nothing, or read nothing of the request, for too long."""


class ConnectionBroken(HttpError):
    """The connection was lost, or the server sent malformed HTTP."""


class StaleConnection(ConnectionBroken):
    """The connection was lost before any byte of the response arrived."""


class ClientResponse:
    """A response whose body one reader streams."""

    __slots__ = (
        "_connection",
        "_done",
        "_failure",
        "_pieces",
        "_released",
        "_size",
        "_waiter",
        "headers",
        "status",
    )

    def __init__(self, connection: ClientConnection) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """Names are in lower case."""
        self._connection = connection
        self._pieces: list[bytes] = []
        self._size = 0
        self._done = False
        self._released = False
        self._failure: HttpError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def wait_for_head(self) -> None:
        """Wait for the head. Raises `HttpError`."""
        while not self.status:
            if self._failure is not None:
                raise self._failure
            await self._wait_for_event()

    async def read_chunk(self) -> bytes:
        """Everything that arrived since the last call; empty at the end. Raises `HttpError`."""
        while not self._pieces:
            if self._failure is not None:
                raise self._failure
            if self._done:
                return b""
            await self._wait_for_event()
        pieces = self._pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces, self._size = [], 0
        if not self._done:
            self._connection.resume()
        return piece

    def close(self) -> None:
        """Discard the rest. Closing twice is harmless."""
        if not self._done and self._failure is None:
            self._connection.abort()

    def release(self) -> None:
        """Read no more: what matters has arrived. The connection is kept if the response ends
        soon."""
        if not self._done and self._failure is None:
            self._released = True
            self._pieces, self._size = [], 0
            self._connection.end_soon()

    async def _wait_for_event(self) -> None:
        """Wait for the next event. A cancelled reader abandons the response."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        except BaseException:
            self.close()
            raise

    def set_head(self, status: int, headers: dict[str, str]) -> None:
        self.status, self.headers = status, headers
        self._wake()

    def feed(self, piece: bytes) -> bool:
        """Add a piece of the body. True if the reader has fallen behind `HIGH_WATER`."""
        if self._released:
            return False
        self._pieces.append(piece)
        self._size += len(piece)
        self._wake()
        return self._size > HIGH_WATER

    def finish(self, failure: HttpError | None = None) -> None:
        self._done, self._failure = failure is None, failure
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Pool:
    """The connections of one client."""

    def __init__(self, keepalive_s: float) -> None:
        """`keepalive_s`: how long an idle connection stays open."""
        self.keepalive_s = keepalive_s
        self.open: set[ClientConnection] = set()
        self._idle: dict[Key, list[ClientConnection]] = {}

    def take(self, key: Key) -> ClientConnection | None:
        """The most recently used idle connection, if any."""
        idle = self._idle.get(key)
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
        return None

    def put(self, connection: ClientConnection) -> None:
        """Return an idle connection."""
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
    """Carries one request at a time, and returns to its pool after each complete response."""

    def __init__(self, pool: Pool, key: Key) -> None:
        self.key = key
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._raw_headers: list[tuple[bytes, bytes]] = []
        self._response: ClientResponse | None = None
        self._reading = True
        self._keepalive = False
        self._until_eof = False
        self._decoder: Decoder | None = None
        """Decodes the body, if the response names a coding."""
        self._overhead_left = MAX_HEAD_BYTES
        """Bytes that may still arrive outside a body."""
        self._response_started = False
        """Whether any byte of the response arrived."""
        self._active_at_s = 0.0
        self._ends_at_s = 0.0
        """When the response must be complete."""
        self._silence_timeout_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        """Bytes still to send at the last check."""
        self._write_timer: asyncio.TimerHandle | None = None

    @property
    def usable(self) -> bool:
        return not self._transport.is_closing()

    async def send(self, message: bytes, silence_timeout_s: float) -> ClientResponse:
        """Send a whole request and wait for the head of its response. Raises `HttpError`."""
        if not self.usable:
            raise StaleConnection("the connection was lost")
        response = self._response = ClientResponse(self)
        self._response_started = False
        self._silence_timeout_s = silence_timeout_s
        self._active_at_s = self._loop.time()
        self._ends_at_s = self._active_at_s + ANSWER_TIMEOUT_S
        self._schedule_check(self._active_at_s + silence_timeout_s)
        self._transport.write(message)
        await response.wait_for_head()
        return response

    def resume(self) -> None:
        """Continue reading: the reader has caught up."""
        if not self._reading:
            self._reading = True
            self._active_at_s = self._loop.time()
            self._transport.resume_reading()

    def end_soon(self) -> None:
        """The reader has left: the response ends within `RELEASE_S`, or the connection is
        closed."""
        self._ends_at_s = min(self._ends_at_s, self._loop.time() + RELEASE_S)
        self._schedule_check(self._ends_at_s)
        self.resume()

    def abort(self) -> None:
        """Close at once; a response in progress fails."""
        self._fail(ConnectionBroken("the caller closed it"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not subclass asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._pool.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._until_eof and exc is None and self._response is not None:
            self._complete()
        failure = ConnectionBroken if self._response_started else StaleConnection
        self._fail(failure(f"the connection was lost{'' if exc is None else f': {exc}'}"))
        self._pool.lost(self)
        self.resume_writing()
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        self._unsent = self._transport.get_write_buffer_size()
        self._write_timer = self._loop.call_later(WRITE_TIMEOUT_S, self._check_writing)

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
            self._active_at_s = self._loop.time()

    def data_received(self, data: bytes) -> None:
        if self._response is None:
            self._transport.abort()  # Nothing was requested.
            return
        self._response_started = True
        if self._response.status:  # A head that trickles is silence.
            self._active_at_s = self._loop.time()
        self._overhead_left -= len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(ConnectionBroken(f"malformed HTTP: {error}"))
        if self._overhead_left < 0:
            self._fail(ConnectionBroken("head or padding is too long"))

    def on_message_begin(self) -> None:
        self._raw_headers = []
        if self._response is None:
            self._transport.abort()  # More responses than requests.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._raw_headers.append((name, value))

    def on_headers_complete(self) -> None:
        status, response = self._parser.get_status_code(), self._response
        if status < 200 or response is None:  # An interim response; the final one follows.
            return
        headers = read_headers(self._raw_headers)
        framed = "content-length" in headers or "transfer-encoding" in headers
        self._until_eof = not framed and status not in _STATUSES_WITHOUT_BODY
        self._keepalive = self._parser.should_keep_alive() and not self._until_eof
        self._active_at_s = self._loop.time()
        self._decoder = None
        if "content-encoding" in headers and not self._decode_as(headers["content-encoding"]):
            return
        response.set_head(status, headers)

    def _decode_as(self, coding: str) -> bool:
        """Decode the body from now on; false for an unknown coding."""
        try:
            self._decoder = Decoder(coding) or None
        except BadCoding as bad:
            self._fail(ConnectionBroken(f"its body cannot be read: {bad}"))
        return self._response is not None

    def on_body(self, body: bytes) -> None:
        self._overhead_left += OVERHEAD_PER_BODY_BYTE * len(body)
        if self._decoder is not None and self._response is not None:
            try:
                body = self._decoder.feed(body)
            except BadCoding as bad:
                self._fail(ConnectionBroken(f"its body cannot be read: {bad}"))
            if not body:
                return
        if self._response is not None and self._response.feed(body) and self._reading:
            self._reading = False
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._response is not None and self._response.status:
            self._complete()

    def _complete(self) -> None:
        """The response is complete; the connection may be reused."""
        assert self._response is not None
        if self._decoder is not None:
            try:
                self._decoder.finish()
            except BadCoding as bad:
                self._fail(ConnectionBroken(f"its body cannot be read: {bad}"))
                return
        self._response.finish()
        self._response = None
        self._until_eof = False
        self._overhead_left = MAX_HEAD_BYTES
        self.resume()
        if not self._keepalive or self._transport.get_write_buffer_size():
            self._transport.abort()
        elif not self._transport.is_closing():
            self._pool.put(self)

    def _fail(self, failure: HttpError) -> None:
        if self._response is not None:
            self._response.finish(failure)
            self._response = None
        self._transport.abort()

    def _schedule_check(self, at_s: float) -> None:
        """Run `_check_timeouts` at this time or earlier."""
        if self._timer is not None:
            if self._timer.when() <= at_s:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at_s, self._check_timeouts)

    def _check_timeouts(self) -> None:
        """Close an idle connection, or fail a silent one.

        Each connection has one timer, which traffic extends: most requests end long before a timer
        of their own would fire.
        """
        self._timer = None
        now_s = self._loop.time()
        if self._response is not None and (not self._reading or self._write_timer is not None):
            self._active_at_s = now_s  # The reader is slow, or the request is still being sent.
        until_s = self._active_at_s + (
            self._pool.keepalive_s if self._response is None else self._silence_timeout_s
        )
        if self._response is not None:
            until_s = min(until_s, self._ends_at_s)
        if until_s > now_s:
            self._schedule_check(until_s)
        elif self._response is None:
            self._transport.close()
        elif now_s >= self._ends_at_s:
            self._fail(ServerTimeout("the answer took too long"))
        else:
            self._fail(ServerTimeout("the server was silent for too long"))

    def _check_writing(self) -> None:
        """Fail unless the server read something of the request since the last check."""
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._unsent = unsent
            self._write_timer = self._loop.call_later(WRITE_TIMEOUT_S, self._check_writing)
        else:
            self._write_timer = None
            self._fail(ServerTimeout("the server takes nothing of the request"))
