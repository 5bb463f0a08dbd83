"""One connection of the HTTP server: uvicorn's, with limits that uvicorn lacks.

uvicorn limits neither the size of a head, nor the time that it takes, nor the time that a client
takes to read. It leaves parts of RFC 9112 unchecked, drops the body of an upgrade request, closes
while the client is still sending or once it has sent all, and lets a handler run on after its
client has disconnected.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import socket
import sys
import termios
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, cast

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from daitn.tools.http.exchange import Reply, Request, Response, Scope
from daitn.tools.http.framing import (
    MAX_HEAD_BYTES,
    OVERHEAD_PER_BODY_BYTE,
    BadRequest,
    check_head,
)

__all__ = ["KEEPALIVE_S", "WRITE_TIMEOUT_S", "Handler", "ServerConnection"]

log = logging.getLogger(__name__)

KEEPALIVE_S = 75.0
"""How long an idle connection stays open. Clients drop idle connections earlier, so that the client
side closes first."""
HEAD_TIMEOUT_S = 10.0
"""Time limit for a head from its first byte, and for a connection to send that."""
BODY_TIMEOUT_S = 120.0
"""Time limit for a body: 10 MB at 0.1 MB/s."""
WRITE_TIMEOUT_S = 30.0
"""A client that reads less than `WRITE_LEAST_BYTES` of the pending data in this time has hung."""
WRITE_LEAST_BYTES = 1 << 14
"""Or all of the rest. 500 bytes a second: a tenth of the slowest mobile networks."""
MOST_CONNECTIONS = 4096
"""Connections of one server. Beyond them, the one that has been idle or incomplete longest is
closed."""
_DRAIN_S = 2.0
"""How long input is read and discarded after a response that ends the connection: closing at once
would destroy the response for a client that is still sending."""

_FIRST_LOOK_S = 0.02
"""Time after a client's end of input until the first check whether the client is still there; the
intervals double."""

Handler = Callable[[Request], Awaitable[Reply]]


class ServerConnection(HttpToolsProtocol):
    """Answers one request after the other, and cancels the handler of a client that disconnects."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        write_timeout_s: float | None = None,
    ) -> None:
        """`config.app`: the `Handler`. `write_timeout_s`: instead of `WRITE_TIMEOUT_S`."""
        super().__init__(config, server_state, app_state, _loop)
        self._handler = cast(Handler, config.app)
        self.app = self._answer
        self._task: asyncio.Task[Any] | None = None
        self._answered: RequestResponseCycle | None = None
        """The request that `_task` answers; `cycle` is the latest one."""
        self._receiving_body = False
        """Whether the latest request's body is still arriving."""
        self._fault: tuple[int, str] | None = None
        """Status and problem of malformed input; nothing after it is read."""
        self._overhead_left = MAX_HEAD_BYTES
        """Bytes that may still arrive outside a body."""
        self._idle_since_s = self.loop.time()
        """When the last request ended."""
        self._head_since_s: float | None = self._idle_since_s
        """When the head that is arriving began; none while none is. The first one is awaited."""
        self._body_since_s = 0.0
        self._write_timeout_s = write_timeout_s or WRITE_TIMEOUT_S
        self._unsent = 0
        """Pending bytes when the client last read its share of them; 0 means it reads all."""
        self._taken_at_s = 0.0
        """Time of that."""
        self._ended = False
        """Whether the client has sent everything."""
        self._look: asyncio.TimerHandle | None = None
        """The next check whether a client that has sent everything is still there."""
        self._timer = self.loop.call_later(self._check_interval_s(), self._check_times)

    @property
    def busy(self) -> bool:
        """Whether a response is still to be made or sent."""
        return self._answering or self._wrapped.get_write_buffer_size() > 0

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def drain(self) -> None:
        """Close after the response in progress, and tell the client if still possible."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def complete(self, scope: Scope) -> bool:
        return not self._receiving_body or scope is not self.scope

    def cork(self) -> None:
        self._wrapped.cork()

    def close(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not subclass asyncio's.
        self._wrapped = _Transport(cast(asyncio.Transport, transport), self._drain_input)
        super().connection_made(cast(asyncio.Transport, self._wrapped))
        if len(self.connections) > MOST_CONNECTIONS:
            waiting = (one for one in self.connections if isinstance(one, ServerConnection))
            idle = [one for one in waiting if one is not self and one._task is None]
            if idle:
                min(idle, key=lambda one: one._idle_since_s).abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._wrapped.end()
        self._timer.cancel()
        if self._look is not None:
            self._look.cancel()
        self.pipeline.clear()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._fault is not None or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._overhead_left -= len(data)
        try:
            while data:
                try:
                    self.parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as upgrade:
                    data = self._without_upgrade() + data[upgrade.args[0] :]
        except (httptools.HttpParserError, ValueError) as error:
            # An error raised in a callback is the context of the parser's error.
            refused = error.__context__ if isinstance(error.__context__, BadRequest) else error
            self._malformed(getattr(refused, "status", 400), str(refused))
        else:
            if self._overhead_left < 0:
                status = 400 if self._receiving_body else 431
                self._malformed(status, "head or padding is too long")

    def eof_received(self) -> bool:  # type: ignore[override] # asyncio's may; uvicorn's does not.
        """A client that has sent everything still gets its answers; true keeps the connection open.

        A client that has left looks the same at first. But its machine refuses whatever is sent
        there, so the answer's first bytes are sent ahead, one by one.
        """
        self._ended = True
        if not self._answering or self.transport.is_closing() or self.scheme == "https":
            return False  # TLS has no half-open connections.
        if not self._receiving_body:
            self.cycle.keep_alive = False
        elif self._fault is None:
            self._malformed(400, "the request ends in the middle of its body")
        if self._look is None and not self.transport.is_closing():
            self._look_for_client(_FIRST_LOOK_S)
        return True

    def _look_for_client(self, interval_s: float) -> None:
        """Abort once the client's machine has refused something."""
        if self._wrapped.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.abort()
            return
        self._send_ahead()
        self._look = self.loop.call_later(interval_s, self._look_for_client, 2 * interval_s)

    def _send_ahead(self) -> None:
        """Send a byte early, unless others still await the client."""
        cycle = self._answered
        if cycle is None or self._wrapped.get_write_buffer_size():
            return
        if not cycle.response_started:
            self._wrapped.begin(b"HTTP/1.1 ")  # As all responses do.
        elif cycle.chunked_encoding and not cycle.response_complete:
            self._wrapped.lead(b"0")  # A chunk's size may have leading zeros.

    def _without_upgrade(self) -> bytes:
        """Read an upgrade request as a plain one: this server speaks HTTP/1 only. llhttp leaves
        the body to the requested protocol, so a new parser gets the head without `upgrade`. Raises
        `ValueError`."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            raise ValueError("CONNECT is not supported")
        headers = [line for line in self.headers if line[0] != b"upgrade"]
        lines = b"".join([b"%b: %b\r\n" % line for line in headers])
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # As uvicorn does.
        return b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, lines)

    def on_message_begin(self) -> None:
        self._head_since_s = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._head_since_s = None
        self._body_since_s = self.loop.time()
        version = self.parser.get_http_version()
        check_head(version, self.headers)
        self.expect_100_continue &= version == "1.1"
        super().on_headers_complete()
        self._receiving_body = True

    def on_body(self, body: bytes) -> None:
        self._overhead_left += OVERHEAD_PER_BODY_BYTE * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._overhead_left = MAX_HEAD_BYTES
        if not self.parser.should_upgrade():
            self._receiving_body = False
            super().on_message_complete()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application of this connection."""
        self._task, self._answered = asyncio.current_task(), send.__self__
        request = Request(scope, receive, send, self)
        try:
            if self._fault is not None and not request.complete:
                self._reject(*self._fault)
                return
            reply = await self._handler(request)
            if not isinstance(reply, Response):
                await reply.end()
            elif request.response_started:
                self.abort()  # A stream that failed midway: its client sees that it is incomplete.
            else:
                await request.respond(reply)
        except (ConnectionError, asyncio.CancelledError):
            # The client disconnected, or the server closes. Swallow the cancellation: uvicorn would
            # log it as a defect.
            if not self.transport.is_closing():
                self.abort()
        except Exception:
            log.exception("request to %s failed", request.path)
            if request.response_started:
                self.abort()
            else:
                await request.respond(Response(status=500))
        finally:
            self._task = self._answered = None
            self._idle_since_s = self.loop.time()

    def _malformed(self, status: int, problem: str) -> None:
        """Reject malformed input, after the requests before it."""
        self._fault = (status, problem)
        if self.cycle is None or self.cycle.response_complete:
            self._reject(status, problem)
        elif not self._receiving_body:
            self.cycle.keep_alive = False
        elif self._task is not None and self._answered is self.cycle:
            if self.cycle.response_started:
                self.abort()
            else:
                self._reject(status, problem)
            self._task.cancel()
        # Otherwise `_answer` rejects it when its turn comes.

    def _reject(self, status: int, problem: str) -> None:
        body = f"{problem}\n".encode()
        lines = f"content-type: text/plain\r\ncontent-length: {len(body)}\r\n"
        phrase = HTTPStatus(status).phrase
        head = f"HTTP/1.1 {status} {phrase}\r\n{lines}connection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _drain_input(self) -> bool:
        """Whether the client may still be sending; if so, read and discard it."""
        if self._ended or (self._fault is None and not self._receiving_body):
            return False
        self.flow.resume_reading()
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent, self._taken_at_s = self._wrapped.unsent(), self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unsent = 0

    def _check_times(self) -> None:
        """Close a connection that has been idle, or slow with a head, a body or an answer, for too
        long.

        Each connection has one timer.
        """
        now_s = self.loop.time()
        if self._receiving_body and now_s - self._body_since_s >= BODY_TIMEOUT_S:
            if self._fault is None and not self.transport.is_closing():
                self._malformed(408, "the body took too long")
        elif self._task is None and (
            now_s - self._idle_since_s >= KEEPALIVE_S
            or (self._head_since_s is not None and now_s - self._head_since_s >= HEAD_TIMEOUT_S)
        ):
            self.transport.close()
        if self._takes_too_little(now_s):
            self.abort()
        self._timer = self.loop.call_later(self._check_interval_s(), self._check_times)

    def _takes_too_little(self, now_s: float) -> bool:
        """Whether the client has hung. Pending data grows only while it reads enough."""
        unsent = self._wrapped.unsent()
        if not unsent or (self._task is not None and not self.flow.write_paused):
            self._unsent = 0
        elif not self._unsent or unsent <= self._unsent - WRITE_LEAST_BYTES:
            self._unsent, self._taken_at_s = unsent, now_s
        return self._unsent > 0 and now_s - self._taken_at_s >= self._write_timeout_s

    def _check_interval_s(self) -> float:
        return min(KEEPALIVE_S, HEAD_TIMEOUT_S, BODY_TIMEOUT_S, self._write_timeout_s)


class _Transport:
    """A transport that reads all its input before it closes, and sends the head of a response
    together with its body: a system call and a packet for each cost more than all the rest of
    uvicorn."""

    def __init__(self, transport: asyncio.Transport, drain_input: Callable[[], bool]) -> None:
        self._transport = transport
        self._drain_input = drain_input
        self._head = b""
        self._begun = 0
        """Bytes of the next write that were sent ahead."""
        self.write: Callable[[bytes], None] = transport.write
        self.is_closing: Callable[[], bool] = transport.is_closing
        self.get_extra_info = transport.get_extra_info
        self.get_write_buffer_size = transport.get_write_buffer_size
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def unsent(self) -> int:
        """Bytes not yet taken by the client's machine; 0 once all are in this machine's kernel.

        The kernel asks for more only when much of what it holds is gone: megabytes, that a slow
        client takes minutes for. So its bytes count too, where it tells their number.
        """
        unsent = self._transport.get_write_buffer_size()
        held = bytearray(4)
        if unsent:
            with contextlib.suppress(OSError):
                sock = self._transport.get_extra_info("socket")
                fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, held)
        return unsent + int.from_bytes(held, sys.byteorder)

    def cork(self) -> None:
        self.write = self._hold

    def _hold(self, head: bytes) -> None:
        self._head = head
        self.write = self._flush

    def _flush(self, data: bytes) -> None:
        self.write = self._transport.write
        self._transport.write((self._head + data)[self._begun :])
        self._head, self._begun = b"", 0

    def begin(self, start: bytes) -> None:
        """Send one more byte of `start`, the beginning of the next write."""
        if not self._head and self._begun < len(start):
            self._transport.write(start[self._begun : self._begun + 1])
            self._begun += 1
            self.write = self._flush

    def lead(self, byte: bytes) -> None:
        """Send a byte before the next write."""
        if not self._head:
            self._transport.write(byte)

    def close(self) -> None:
        if self.is_closing():
            return
        if not self._transport.can_write_eof() or not self._drain_input():
            self._transport.close()
            return
        self.end()
        self._transport.write_eof()
        asyncio.get_running_loop().call_later(_DRAIN_S, self._transport.close)

    def abort(self) -> None:
        self.end()
        self._transport.abort()

    def end(self) -> None:
        """Drop anything that uvicorn still writes."""
        self.write, self.is_closing = _discard, _always_closing


def _discard(data: bytes) -> None:
    """Ignore a write after the end."""


def _always_closing() -> bool:
    return True
