"""A small HTTP/1.1 client: requests whose bodies are at hand, answers that are read as they come.

Connections are kept and used again, the latest first. What cannot be told apart by status is told
apart by exception, so that who asks knows whether to try elsewhere.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohappyeyeballs

from daitn.identity.tls import trusting
from daitn.node.http.client_connection import (
    ClientConnection,
    HttpAnswer,
    NotReached,
    Pool,
    Stale,
)
from daitn.node.http.framing import header_lines

__all__ = ["Address", "HttpClient", "read_address"]

_SECOND_ADDRESS_AFTER_S = 0.25
"""Of a host with several addresses, as RFC 8305 recommends."""


class Address(NamedTuple):
    """Where requests go."""

    host: str
    port: int
    tls: bool
    named: str
    """As the header `host` says it."""
    prefix: str
    """Of every path; without a slash at its end."""


def read_address(url: str) -> Address:
    """`http://` or `https://`, host, port and beginning of paths. Raises `ValueError`."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no HTTP address")
    if not url.isascii() or any(character <= " " for character in url):
        raise ValueError(f"{url!r} has characters that no address has")
    port = parts.port or (443 if tls else 80)
    named = parts.netloc.rpartition("@")[2]
    return Address(parts.hostname, port, tls, named, parts.path.rstrip("/"))


class HttpClient:
    """Asks many servers; `close()` drops all connections. Times are seconds."""

    def __init__(self, *, connect_within_s: float, keep_s: float, tls: str = "") -> None:
        """`keep_s`: for so long an unused connection is kept. `tls`: folder with the certificate
        of an authority that is trusted beside the public ones; empty: none. Raises
        `InvalidInput` where it holds none."""
        self._connect_within_s = connect_within_s
        self._tls = tls
        if tls:
            trusting(tls)
        self._pool = Pool(keep_s)

    def close(self) -> None:
        """Drop every connection; answers under way break off."""
        for connection in tuple(self._pool.open):
            connection.abort()

    async def ask(
        self,
        method: str,
        address: Address,
        path: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        silent_s: float,
    ) -> HttpAnswer:
        """Send a request; the head of its answer is there, the rest is read from what is returned.
        Whoever gets it closes it. `path` begins with a slash and has no characters but ASCII's
        printable ones.

        A kept connection that ends without a word is stale; the request is sent over a new one.

        Raises `NotReached`, `FellSilent` where nothing comes for `silent_s` or nothing of the
        request is taken, `BrokenOff`, and `ValueError` for headers that are none.
        """
        lines = header_lines(headers)
        head = (
            f"{method} {address.prefix}{path} HTTP/1.1\r\nhost: {address.named}\r\n"
            f"content-length: {len(body)}\r\n{lines}\r\n"
        )
        message = head.encode("utf-8", "surrogateescape") + body
        kept = self._pool.take(address[:3])
        if kept is not None:
            try:
                return await kept.ask(message, silent_s)
            except Stale:
                pass  # As a rule the server closed it before the request was there.
        connection = await self._connected(address)
        return await connection.ask(message, silent_s)

    async def _connected(self, address: Address) -> ClientConnection:
        """Raises `NotReached`."""
        loop = asyncio.get_running_loop()
        host, port, tls, *_ = address
        try:
            async with asyncio.timeout(self._connect_within_s):
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
            raise NotReached("it does not answer in time") from None
        except (OSError, UnicodeError) as error:
            refused = isinstance(error, ConnectionRefusedError)
            raise NotReached(str(error), refused=refused) from None
        return connection
