"""Requests as passed by the HTTP server to its handler, and their responses, over ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol
from urllib.parse import parse_qsl

from daitn.tools.http.framing import read_headers

__all__ = [
    "CLOSE",
    "BodyTooLarge",
    "Connection",
    "Reply",
    "Request",
    "Response",
    "Scope",
    "Stream",
    "StreamTranslation",
]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

CLOSE = (b"connection", b"close")


class BodyTooLarge(Exception):
    """A request body exceeds the limit."""


class Connection(Protocol):
    """The parts of a connection that a request uses beyond ASGI."""

    def complete(self, scope: Scope) -> bool:
        """Whether the request has arrived completely."""
        ...

    def cork(self) -> None:
        """Hold the next write back, and send it together with the one after it."""
        ...

    def close(self) -> None:
        """Close once everything written is sent."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class StreamTranslation(Protocol):
    """Translates a stream."""

    def begin(self, headers: Mapping[str, str]) -> None:
        """The stream begins, with these headers."""
        ...

    async def events(self, events: bytes) -> bytes:
        """The events to send instead of the next ones."""
        ...


class Request:
    """One request, whose body is still to be read."""

    __slots__ = (
        "_added",
        "_headers",
        "_receive",
        "_scope",
        "connection",
        "method",
        "path",
        "raw_headers",
        "response_started",
        "send",
        "translation",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, connection: Connection) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        """Decoded, without the query string."""
        self.raw_headers: Headers = scope["headers"]
        """Names are in lower case."""
        self.send = send
        self.connection = connection
        self.response_started = False
        """Whether the head of the response has been sent."""
        self.translation: StreamTranslation | None = None
        """Translation of a stream before it is sent."""
        self._scope = scope
        self._receive = receive
        self._headers: dict[str, str] | None = None
        self._added: Headers = []

    @property
    def headers(self) -> dict[str, str]:
        """By name in lower case; the first of repeated headers counts."""
        if self._headers is None:
            self._headers = read_headers(self.raw_headers)
        return self._headers

    @property
    def hides_slash(self) -> bool:
        """Whether a part of the path holds a slash of its own, which `path` does not tell apart."""
        raw: bytes = self._scope["raw_path"]
        return b"%2f" in raw.lower()

    @property
    def query(self) -> dict[str, str]:
        """The query string's fields; the last of repeated ones counts."""
        return dict(parse_qsl(self._scope["query_string"].decode("latin-1")))

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """All fields of the query string in their order: also empty and repeated ones."""
        text = self._scope["query_string"].decode("latin-1")
        return parse_qsl(text, keep_blank_values=True)

    @property
    def complete(self) -> bool:
        """Whether the request has arrived completely."""
        return self.connection.complete(self._scope)

    @property
    def accepts_chunks(self) -> bool:
        """Whether the client understands chunked responses."""
        return bool(self._scope["http_version"] != "1.0")

    async def body(self, max_bytes: int) -> bytes:
        """Read the whole body. Raises `BodyTooLarge` for more than `max_bytes`, and
        `ConnectionError`."""
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > max_bytes:
            raise BodyTooLarge
        pieces, size, more = [], 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError("the client disconnected")
            pieces.append(message["body"])
            size += len(pieces[-1])
            if size > max_bytes:
                raise BodyTooLarge
            more = message["more_body"]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def add_header(self, name: str, value: str) -> None:
        """Add a header to the later response."""
        self._added += _encoded({name: value})

    async def respond(self, response: Response) -> None:
        """Send a whole response. Raises `ValueError` for malformed headers."""
        headers = _encoded(response.headers)
        if response.status != 204:  # RFC 9110, 8.6.
            headers.append((b"content-length", b"%d" % len(response.body)))
        await self.start_response(response.status, headers)
        await self.send({"type": "http.response.body", "body": response.body})

    def stream(self, headers: Mapping[str, str], status: int = 200) -> Stream:
        """Make a streamed response. Raises `ValueError` for malformed headers."""
        if self.translation is not None:
            self.translation.begin(headers)
        return Stream(self, status, _encoded(headers))

    async def start_response(self, status: int, headers: Headers) -> None:
        """Send the head of the response."""
        self.response_started = True
        headers += self._added
        if not self.complete:
            headers.append(CLOSE)
        if self.method != "HEAD":  # A response to HEAD has no body to wait for.
            self.connection.cork()
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    def abort(self) -> None:
        """Close the connection at once, so that the client sees an incomplete response."""
        self.connection.abort()


class Response:
    """A response sent whole."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self, body: bytes = b"", status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self.body = body
        self.status = status
        self.headers: dict[str, str] = dict(headers or {})


class Stream:
    """A response sent piece by piece; its head is sent with the first piece.

    HTTP/1.0 has no chunks: such a client gets all pieces together at the end.
    """

    __slots__ = ("_buffered", "_ended", "_headers", "_request", "status")

    def __init__(self, request: Request, status: int, headers: Headers) -> None:
        self.status = status
        self._request = request
        self._headers = headers
        self._buffered: list[bytes] | None = None if request.accepts_chunks else []
        self._ended = False

    async def write(self, data: bytes) -> None:
        """Send, and wait while the client is slow."""
        if self._request.translation is not None:
            data = await self._request.translation.events(data)
        if self._buffered is not None:
            self._buffered.append(data)
        elif data:
            await self._send(data, more=True)

    async def end(self, *, close: bool = False) -> None:
        """End the response. `close`: close the connection too. Ending twice is harmless."""
        if self._ended:
            return
        self._ended = True
        data = b"".join(self._buffered or ())
        if self._buffered is not None:
            self._headers.append((b"content-length", b"%d" % len(data)))
        await self._send(data, more=False)
        if close:
            self._request.connection.close()

    async def _send(self, data: bytes, *, more: bool) -> None:
        if not self._request.response_started:
            await self._request.start_response(self.status, self._headers)
        await self._request.send({"type": "http.response.body", "body": data, "more_body": more})


Reply = Response | Stream


def _encoded(headers: Mapping[str, str]) -> Headers:
    """Raises `ValueError` for a value that contains a line end."""
    if not headers:
        return []
    lines = "\n".join(headers.values())
    if lines.count("\n") != len(headers) - 1 or "\r" in lines or "\0" in lines:
        raise ValueError("a header value contains a line end")
    names = "\n".join(headers).encode("latin-1").split(b"\n")
    return list(zip(names, lines.encode("utf-8", "surrogateescape").split(b"\n"), strict=True))
