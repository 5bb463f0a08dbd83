"""A request as the HTTP server hands it to its handler, and what goes back, over ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol

from daitn.node.http.framing import read_headers

__all__ = ["BodyTooLarge", "Line", "Reply", "Request", "Response", "Scope", "Stream"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_CLOSE = (b"connection", b"close")


class BodyTooLarge(Exception):
    """A request's body has more bytes than are taken."""


class Line(Protocol):
    """What a request needs of its connection beyond ASGI."""

    def whole(self, scope: Scope) -> bool:
        """Whether all of the request came."""
        ...

    def cork(self) -> None:
        """What is written next goes out together with what is written after it."""
        ...

    def close(self) -> None:
        """Close when all that was written is sent."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Request:
    """One request; its body is still to be read."""

    __slots__ = (
        "_headers",
        "_receive",
        "_scope",
        "begun",
        "line",
        "method",
        "path",
        "raw_headers",
        "send",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, line: Line) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        """Decoded, without the query."""
        self.raw_headers: Headers = scope["headers"]
        """Names are in lower case."""
        self.send = send
        self.line = line
        self.begun = False
        """Whether the head of its answer is on its way."""
        self._scope = scope
        self._receive = receive
        self._headers: dict[str, str] | None = None

    @property
    def headers(self) -> dict[str, str]:
        """By name in lower case; of several of a name the first."""
        if self._headers is None:
            self._headers = read_headers(self.raw_headers)
        return self._headers

    @property
    def whole(self) -> bool:
        """Whether all of it is there."""
        return self.line.whole(self._scope)

    @property
    def chunks(self) -> bool:
        """Whether who asks reads answers in chunks."""
        return bool(self._scope["http_version"] != "1.0")

    async def body(self, most: int) -> bytes:
        """All of it. Raises `BodyTooLarge` and `ConnectionError`."""
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > most:
            raise BodyTooLarge
        pieces, size, more = [], 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError("who asked has gone")
            pieces.append(message["body"])
            size += len(pieces[-1])
            if size > most:
                raise BodyTooLarge
            more = message["more_body"]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def respond(self, response: Response) -> None:
        """Send the answer. Raises `ValueError` for headers that are none."""
        headers = _encoded(response.headers)
        headers.append((b"content-length", b"%d" % len(response.body)))
        await self.begin(response.status, headers)
        await self.send({"type": "http.response.body", "body": response.body})

    def stream(self, headers: Mapping[str, str], status: int = 200) -> Stream:
        """An answer whose end is not there yet. Raises `ValueError` for headers that are none."""
        return Stream(self, status, _encoded(headers))

    async def begin(self, status: int, headers: Headers) -> None:
        """Send the head of the answer."""
        self.begun = True
        if not self.whole:
            headers.append(_CLOSE)
        if self.method != "HEAD":  # After which nothing is written.
            self.line.cork()
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    def abort(self) -> None:
        """Close the connection at once, so that nobody takes a stream for whole."""
        self.line.abort()


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
    """An answer that is sent piece by piece; its head goes out with the first.

    A client of HTTP/1.0 knows no chunks: it gets all pieces together at the end.
    """

    __slots__ = ("_ended", "_headers", "_held", "_request", "status")

    def __init__(self, request: Request, status: int, headers: Headers) -> None:
        self.status = status
        self._request = request
        self._headers = headers
        self._held: list[bytes] | None = None if request.chunks else []
        self._ended = False

    async def write(self, data: bytes) -> None:
        """Send, and wait while who asked is slow."""
        if self._held is not None:
            self._held.append(data)
        elif data:
            await self._send(data, more=True)

    async def end(self, *, close: bool = False) -> None:
        """All was said. `close`: the connection is not to be used again. Ending twice is
        harmless."""
        if self._ended:
            return
        self._ended = True
        data = b"".join(self._held or ())
        if self._held is not None:
            self._headers.append((b"content-length", b"%d" % len(data)))
        await self._send(data, more=False)
        if close:
            self._request.line.close()

    async def _send(self, data: bytes, *, more: bool) -> None:
        if not self._request.begun:
            await self._request.begin(self.status, self._headers)
        await self._request.send({"type": "http.response.body", "body": data, "more_body": more})


Reply = Response | Stream


def _encoded(headers: Mapping[str, str]) -> Headers:
    """Raises `ValueError` where one would add lines of its own."""
    if not headers:
        return []
    lines = "\n".join(headers.values())
    if lines.count("\n") != len(headers) - 1 or "\r" in lines or "\0" in lines:
        raise ValueError("a header's value has a line end in it")
    names = "\n".join(headers).encode("latin-1").split(b"\n")
    return list(zip(names, lines.encode("utf-8", "surrogateescape").split(b"\n"), strict=True))
