"""One connection of the HTTP server."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import cast
from urllib.parse import unquote

import httptools

from daitn.node.http.exchange import BodyBroken, Reply, Request, Response
from daitn.node.http.framing import BODY_PAYS, MOST_HEAD, header_lines
from daitn.tools import clock

__all__ = ["KEPT_ALIVE_S", "Handler", "ServerConnection"]

log = logging.getLogger(__name__)

KEPT_ALIVE_S = 75.0
"""Idle connections of clients; longer than clients keep theirs, so that they close first. A
request's head must be there within it, too."""
_LINGER_S = 2.0
"""For so long what still comes is read and thrown away after an answer that ends a connection:
closing at once would take the answer from who is still sending."""
_REASONS = {status.value: status.phrase for status in HTTPStatus}

Handler = Callable[[Request], Awaitable[Reply]]


class ServerConnection(asyncio.Protocol):
    """Answers one request after the other; the handler of one whose client is gone is cancelled."""

    def __init__(self, handler: Handler, there: set[ServerConnection]) -> None:
        """`there`: every connection that is open."""
        self._handler = handler
        self._there = there
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._raw: list[tuple[bytes, bytes]] = []
        self._coming: Request | None = None
        """Whose body is still coming."""
        self._queued: deque[Request] = deque()
        """Sent before the one before them was answered."""
        self._task: asyncio.Task[None] | None = None
        self._reading = True
        self._ignores = False
        self._stopping = False
        self._spare = MOST_HEAD
        """Bytes that may come and are not of a body."""
        self._drained: asyncio.Future[None] | None = None
        self._free_s = self._loop.time()
        """Since when nothing is asked."""
        self._timer = self._loop.call_later(KEPT_ALIVE_S, self._look)

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The request that is being answered."""
        return self._task

    def stop(self) -> None:
        """Answer what is under way, and no more."""
        self._stopping = True
        self._queued.clear()
        if self._task is None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._there.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._there.discard(self)
        self._timer.cancel()
        self._queued.clear()
        self.resume_writing()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._ignores:
            return
        self._spare -= len(data)
        try:
            while data:
                data = self._parsed(data)
        except (httptools.HttpParserError, ValueError) as error:
            self._malformed(400, str(error))
        if self._spare < 0 and not self._ignores:
            self._malformed(431, "its head or its padding is too long")

    def _parsed(self, data: bytes) -> bytes:
        """What is to be parsed after it. Raises `HttpParserError` and `ValueError`."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            # Nothing but HTTP/1.1 is spoken here. llhttp leaves the body to whoever speaks what was
            # asked for, so the request is read again as if that had not been.
            if self._parser.get_method() == b"CONNECT":
                raise ValueError("this is no proxy") from None
            kept = [line for line in self._raw if line[0].lower() != b"upgrade"]
            lines = b"".join([b"%b: %b\r\n" % line for line in kept])
            head = b"%b %b HTTP/1.1\r\n%b\r\n" % (self._parser.get_method(), self._target, lines)
            self._parser = httptools.HttpRequestParser(self)
            return head + data[error.args[0] :]
        return b""

    def on_message_begin(self) -> None:
        self._target, self._raw = b"", []

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._coming is None:  # What comes after a body in chunks says nothing that matters.
            self._raw.append((name, value))

    def on_headers_complete(self) -> None:
        if self._parser.should_upgrade():
            return
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise ValueError(f"HTTP/{version} is not spoken here")
        request = self._coming = Request(
            self,
            self._parser.get_method().decode("latin-1"),
            _path(self._target),
            self._raw,
            chunks=version == "1.1",
            keeps=self._parser.should_keep_alive(),
        )
        if self._task is None:
            self._begin(request)
        else:
            self._queued.append(request)
            self.pause()

    def on_body(self, body: bytes) -> None:
        self._spare += BODY_PAYS * len(body)
        assert self._coming is not None
        self._coming.put(body)

    def on_message_complete(self) -> None:
        self._spare = MOST_HEAD
        if self._coming is not None:
            self._coming.end()
            self._coming = None

    def pause_writing(self) -> None:
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    def pause(self) -> None:
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    def provisional(self) -> None:
        self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def begin(self, request: Request, status: int, headers: Mapping[str, str]) -> bool:
        if not request.chunks:
            request.keeps = False  # An older client takes the end of the connection for the end.
        chunks = request.chunks and request.method != "HEAD"
        framing = "transfer-encoding: chunked\r\n" if chunks else ""
        self._transport.write(self._head(request, status, headers, framing))
        return chunks

    async def send(self, data: bytes) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("who asked has gone")
        self._transport.write(data)
        if self._drained is not None:
            await self._drained

    def abort(self) -> None:
        self._transport.abort()

    def _begin(self, request: Request) -> None:
        self._task = self._loop.create_task(self._serve(request))

    async def _serve(self, request: Request) -> None:
        try:
            reply = await self._handler(request)
            if isinstance(reply, Response):
                self._answer(request, reply)
            else:
                await reply.end()
            if self._drained is not None:
                await self._drained
        except ConnectionError:
            self._transport.abort()  # Who asked has gone.
        except asyncio.CancelledError:
            self._transport.abort()
            raise
        except Exception:
            log.exception("a request to %s failed", request.path)
            self._failed(request)
        self._answered(request)

    def _answer(self, request: Request, reply: Response) -> None:
        framing = f"content-length: {len(reply.body)}\r\n"
        head = self._head(request, reply.status, reply.headers, framing)
        if not self._transport.is_closing():
            self._transport.write(head if request.method == "HEAD" else head + reply.body)

    def _failed(self, request: Request) -> None:
        if request.begun:
            self._transport.abort()
        else:
            self._answer(request, Response(status=500))

    def _head(
        self, request: Request, status: int, headers: Mapping[str, str], framing: str
    ) -> bytes:
        lines = header_lines(headers)
        request.begun = True
        request.keeps = request.keeps and request.whole and not self._stopping
        close = "" if request.keeps else "connection: close\r\n"
        begin = f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n"
        head = f"{begin}{lines}{framing}{close}date: {_date(int(clock.wall_s()))}\r\n\r\n"
        return head.encode("utf-8", "surrogateescape")

    def _answered(self, request: Request) -> None:
        """Go on with the next request, or close."""
        self._task = None
        self._free_s = self._loop.time()
        if self._transport.is_closing():
            return
        if not (request.keeps and request.whole) or self._stopping:
            self._close(abruptly=request.whole)
        elif self._queued:
            self._begin(self._queued.popleft())
        elif self._ignores:
            self._close(abruptly=False)
        else:
            self.resume()

    def _close(self, *, abruptly: bool) -> None:
        """`abruptly`: nothing more is expected to come."""
        if abruptly or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._ignores = True
        self._transport.write_eof()
        self.resume()
        self._loop.call_later(_LINGER_S, self._transport.close)

    def _malformed(self, status: int, problem: str) -> None:
        """Requests before this one are answered still."""
        self._ignores = True
        if self._coming is not None:
            self._coming.end(BodyBroken(problem))
            self._coming = None
        elif self._task is None:
            body = f"{problem}\n".encode()
            lines = f"content-type: text/plain\r\ncontent-length: {len(body)}\r\n"
            head = f"HTTP/1.1 {status} {_REASONS[status]}\r\n{lines}connection: close\r\n\r\n"
            self._transport.write(head.encode() + body)
            self._close(abruptly=False)

    def _look(self) -> None:
        """Close what has been idle, or slow with a head, for too long; one timer per connection."""
        idle_s = 0.0 if self._task is not None else self._loop.time() - self._free_s
        if idle_s >= KEPT_ALIVE_S:
            self._transport.close()
        else:
            self._timer = self._loop.call_later(KEPT_ALIVE_S - idle_s, self._look)


def _path(target: bytes) -> str:
    """Without the query; an absolute URL's too."""
    if not target.startswith(b"/"):
        try:
            target = httptools.parse_url(target).path or b"/"
        except httptools.HttpParserInvalidURLError:
            return target.decode("latin-1")
    path = target.partition(b"?")[0].decode("latin-1")
    return unquote(path) if "%" in path else path


@lru_cache(maxsize=2)
def _date(now_s: int) -> str:
    return formatdate(now_s, usegmt=True)
