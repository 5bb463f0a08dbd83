"""A small HTTP/1.1 client: it sends whole bodies and streams responses.

The pool reuses connections, the most recently used first. An exception tells what a status cannot:
whether the caller should try another server.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohappyeyeballs

from daitn.identity.tls import trusting
from daitn.tools.http.client_connection import (
    ClientConnection,
    ClientResponse,
    ConnectError,
    Pool,
    StaleConnection,
)
from daitn.tools.http.framing import header_lines

__all__ = ["Address", "HttpClient", "read_address"]

_SECOND_ADDRESS_AFTER_S = 0.25
"""Between attempts on a host with several addresses, as RFC 8305 recommends."""

_REQUEST_TIMEOUT = 408
"""The server did not get the whole request, so it may be repeated."""


class Address(NamedTuple):
    """A server and the path prefix of its API."""

    host: str
    port: int
    tls: bool
    host_header: str
    """Value of the header `host`."""
    prefix: str
    """Prefix of every path, without a trailing slash."""


def read_address(url: str) -> Address:
    """Parse an `http://` or `https://` URL with host, port and path prefix. Raises `ValueError`."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not an HTTP address")
    if not url.isascii() or any(character <= " " for character in url):
        raise ValueError(f"{url!r} contains characters that no HTTP address has")
    port = parts.port or (443 if tls else 80)
    host_header = parts.netloc.rpartition("@")[2]
    return Address(parts.hostname, port, tls, host_header, parts.path.rstrip("/"))


class HttpClient:
    """Sends requests to any number of servers. Times are seconds."""

    def __init__(self, *, connect_timeout_s: float, keepalive_s: float, tls: str = "") -> None:
        """`keepalive_s`: how long the pool keeps an idle connection. `tls`: folder with the
        certificate of a private authority to trust beside the public ones; empty means none. Raises
        `InvalidInput` for a folder without one."""
        self._connect_timeout_s = connect_timeout_s
        self._tls = tls
        if tls:
            trusting(tls)
        self._pool = Pool(keepalive_s)

    def close(self) -> None:
        """Close every connection; responses in progress fail with `ConnectionBroken`."""
        for connection in tuple(self._pool.open):
            connection.abort()

    async def request(
        self,
        method: str,
        address: Address,
        path: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        silence_timeout_s: float,
    ) -> ClientResponse:
        """Send a request and wait for the head of its response; read the body from the returned
        object, then close it.

        `path` starts with a slash and holds printable ASCII only. A pooled connection that the
        server has closed, or gives up as idle (408, RFC 9110, 15.5.9), is stale; the request then
        goes out over a new one.

        Raises `ConnectError`, `ServerTimeout` if nothing arrives for `silence_timeout_s` or the
        server takes nothing of the request, `ConnectionBroken`, and `ValueError` for malformed
        headers.
        """
        lines = header_lines(headers)
        head = (
            f"{method} {address.prefix}{path} HTTP/1.1\r\nhost: {address.host_header}\r\n"
            f"accept-encoding: identity\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
        )
        message = head.encode("utf-8", "surrogateescape") + body
        pooled = self._pool.take(address[:3])
        if pooled is not None:
            try:
                response = await pooled.send(message, silence_timeout_s)
                if response.status != _REQUEST_TIMEOUT:
                    return response
                response.close()
            except StaleConnection:
                pass  # The server usually closed it before the request arrived.
        connection = await self._connect(address)
        return await connection.send(message, silence_timeout_s)

    async def _connect(self, address: Address) -> ClientConnection:
        """Raises `ConnectError`."""
        loop = asyncio.get_running_loop()
        host, port, tls, *_ = address
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                sock = await aiohappyeyeballs.start_connection(
                    found, happy_eyeballs_delay=_SECOND_ADDRESS_AFTER_S, interleave=1
                )
                _, connection = await loop.create_connection(
                    lambda: ClientConnection(self._pool, address[:3]),
                    sock=sock,
                    ssl=trusting(self._tls) if tls else None,
                    server_hostname=host if tls else None,
                )
        except TimeoutError:
            raise ConnectError("the server did not answer in time") from None
        except (OSError, UnicodeError) as error:
            refused = isinstance(error, ConnectionRefusedError)
            raise ConnectError(str(error), refused=refused) from None
        return connection
