"""One connection of the HTTP server: uvicorn's, with the bounds that it lacks.

uvicorn bounds neither a head nor the time until it is there, drops the body of a request that asks
for an upgrade, closes in the face of who is still sending, and lets a handler go on whose client
has gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, cast

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from daitn.node.http.exchange import Reply, Request, Response, Scope
from daitn.node.http.framing import BODY_PAYS, MOST_HEAD

__all__ = ["KEPT_ALIVE_S", "Handler", "ServerConnection"]

log = logging.getLogger(__name__)

KEPT_ALIVE_S = 75.0
"""Idle connections of clients; longer than clients keep theirs, so that they close first. A
request's head must be there within it, too."""
_LINGER_S = 2.0
"""For so long what still comes is read and thrown away after an answer that ends a connection:
closing at once would take the answer from who is still sending."""

Handler = Callable[[Request], Awaitable[Reply]]


class ServerConnection(HttpToolsProtocol):
    """Answers one request after the other; the handler of one whose client is gone is cancelled."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """`config.app`: the `Handler`."""
        super().__init__(config, server_state, app_state, _loop)
        self._handler = cast(Handler, config.app)
        self.app = self._answer
        self._task: asyncio.Task[Any] | None = None
        self._answering: Scope | None = None
        self._coming = False
        """Whether the body of the latest request is."""
        self._fault: tuple[int, str] | None = None
        """Status and problem of what came last; nothing after it is read."""
        self._spare = MOST_HEAD
        """Bytes that may come and are not of a body."""
        self._free_s = self.loop.time()
        """Since when nothing is asked."""
        self._timer = self.loop.call_later(KEPT_ALIVE_S, self._look)

    def whole(self, scope: Scope) -> bool:
        return not self._coming or scope is not self.scope

    def cork(self) -> None:
        self._line.cork()

    def close(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._line = _Line(cast(asyncio.Transport, transport), self._lingers)
        super().connection_made(cast(asyncio.Transport, self._line))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._line.end()
        self._timer.cancel()
        self.pipeline.clear()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._fault is not None or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._spare -= len(data)
        try:
            while data:
                try:
                    self.parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as upgrade:
                    data = self._not_upgraded() + data[upgrade.args[0] :]
        except (httptools.HttpParserError, ValueError) as error:
            self._malformed(400, str(error))
        else:
            if self._spare < 0:
                status = 400 if self._coming else 431
                self._malformed(status, "its head or its padding is too long")

    def _not_upgraded(self) -> bytes:
        """Nothing but HTTP/1.1 is spoken here. llhttp leaves the body to whoever speaks what was
        asked for, so the request is read again, with this head. Raises `ValueError`."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise ValueError("this is no proxy")
        kept = [line for line in self.headers if line[0] != b"upgrade"]
        lines = b"".join([b"%b: %b\r\n" % line for line in kept])
        self.parser = httptools.HttpRequestParser(self)
        return b"%b %b HTTP/1.1\r\n%b\r\n" % (method, self.url, lines)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise ValueError(f"HTTP/{version} is not spoken here")
        super().on_headers_complete()
        self._coming = True

    def on_body(self, body: bytes) -> None:
        self._spare += BODY_PAYS * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._spare = MOST_HEAD
        if not self.parser.should_upgrade():
            self._coming = False
            super().on_message_complete()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application of this connection."""
        self._task, self._answering = asyncio.current_task(), scope
        request = Request(scope, receive, send, self)
        try:
            if self._fault is not None and not request.whole:
                self._refuse(*self._fault)
                return
            reply = await self._handler(request)
            if isinstance(reply, Response):
                await request.respond(reply)
            else:
                await reply.end()
        except (ConnectionError, asyncio.CancelledError):
            # Who asked has gone, or the server closes. The task ends here; uvicorn would take a
            # cancellation for a defect.
            if not self.transport.is_closing():
                self.abort()
        except Exception:
            log.exception("a request to %s failed", request.path)
            if request.begun:
                self.abort()
            else:
                await request.respond(Response(status=500))
        finally:
            self._task = self._answering = None
            self._free_s = self.loop.time()

    def _malformed(self, status: int, problem: str) -> None:
        """Requests before this one are answered still."""
        self._fault = (status, problem)
        if self.cycle is None or self.cycle.response_complete:
            self._refuse(status, problem)
        elif not self._coming:
            self.cycle.keep_alive = False
        elif self._task is not None and self._answering is self.scope:
            if self.cycle.response_started:
                self.abort()
            else:
                self._refuse(status, problem)
            self._task.cancel()
        # Otherwise its turn comes, and then it is refused.

    def _refuse(self, status: int, problem: str) -> None:
        body = f"{problem}\n".encode()
        lines = f"content-type: text/plain\r\ncontent-length: {len(body)}\r\n"
        phrase = HTTPStatus(status).phrase
        head = f"HTTP/1.1 {status} {phrase}\r\n{lines}connection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _lingers(self) -> bool:
        """Whether more may come of what was asked; it is thrown away then."""
        if self._fault is None and not self._coming:
            return False
        self.flow.resume_reading()
        return True

    def _look(self) -> None:
        """Close what has been idle, or slow with a head, for too long; one timer per connection."""
        idle_s = 0.0 if self._task is not None else self.loop.time() - self._free_s
        if idle_s >= KEPT_ALIVE_S:
            self.transport.close()
        else:
            self._timer = self.loop.call_later(KEPT_ALIVE_S - idle_s, self._look)


class _Line:
    """A transport that closes only when the other end has sent what it is sending, and that sends
    an answer's head with its body: a system call and a packet of its own for each cost more than
    all the rest of uvicorn."""

    def __init__(self, transport: asyncio.Transport, lingers: Callable[[], bool]) -> None:
        self._transport = transport
        self._lingers = lingers
        self._head = b""
        self.write: Callable[[bytes], None] = transport.write
        self.is_closing: Callable[[], bool] = transport.is_closing
        self.get_extra_info = transport.get_extra_info
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def cork(self) -> None:
        self.write = self._hold

    def _hold(self, head: bytes) -> None:
        self._head = head
        self.write = self._flush

    def _flush(self, data: bytes) -> None:
        self.write = self._transport.write
        self._transport.write(self._head + data)

    def close(self) -> None:
        if self.is_closing():
            return
        if not self._transport.can_write_eof() or not self._lingers():
            self._transport.close()
            return
        self.end()
        self._transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER_S, self._transport.close)

    def abort(self) -> None:
        self.end()
        self._transport.abort()

    def end(self) -> None:
        """Nothing more is sent, whatever uvicorn still says."""
        self.write, self.is_closing = _dropped, _yes


def _dropped(data: bytes) -> None:
    """After the end."""


def _yes() -> bool:
    return True
