"""A small HTTP server in the node's event loop, without routes: one handler takes everything."""

from __future__ import annotations

import asyncio

from daitn.identity.tls import serving
from daitn.node.http.server_connection import Handler, ServerConnection
from daitn.objects.errors import InvalidInput

__all__ = ["HttpServer"]

_BACKLOG = 1024
_HANDSHAKE_WITHIN_S = 10.0
_CLOSE_WITHIN_S = 2.0
"""What is under way at the end has so long; gateways ask elsewhere."""


class HttpServer:
    """Serves `handler`; a handler is cancelled when its client goes away."""

    def __init__(self, listen: str, field: str, handler: Handler, tls: str = "") -> None:
        """`listen`: `host:port`, or with TLS `https://host:port`; port 0 takes a free one. `field`
        names it in errors. `tls`: folder with the certificate to show."""
        self._listen = listen
        self._field = field
        self._handler = handler
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._there: set[ServerConnection] = set()
        self.endpoint = ""
        """`http://host:port` or `https://host:port`, once it listens."""

    async def start(self) -> None:
        """Listen. Raises `InvalidInput` naming the field where it cannot."""
        address = self._listen.removeprefix("https://")
        encrypted = address != self._listen
        host, _, port = address.rpartition(":")
        if not (host and port.isdecimal() and int(port) < 65536):
            raise self._bad(f"{self._listen!r} is no address")
        context = serving(self._tls) if encrypted else None
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: ServerConnection(self._handler, self._there),
                host.strip("[]"),
                int(port),
                backlog=_BACKLOG,
                ssl=context,
                ssl_handshake_timeout=_HANDSHAKE_WITHIN_S if encrypted else None,
            )
        except OSError as error:
            raise self._bad(f"cannot listen on {self._listen}: {error.strerror}") from None
        scheme = "https" if encrypted else "http"
        self.endpoint = f"{scheme}://{host}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Answer no more. Closing twice is harmless."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for connection in tuple(self._there):
            connection.stop()
        tasks = [connection.task for connection in self._there if connection.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_CLOSE_WITHIN_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for connection in tuple(self._there):
            connection.abort()

    def _bad(self, problem: str) -> InvalidInput:
        return InvalidInput(
            problem,
            field=self._field,
            fix="write a free address of this machine like 127.0.0.1:7480; port 0 takes any",
        )
