"""An HTTP server in the node's event loop, without routes: one handler takes everything."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from daitn.identity.tls import serving
from daitn.node.http.server_connection import KEPT_ALIVE_S, Handler, ServerConnection
from daitn.objects.errors import InvalidInput

__all__ = ["HttpServer"]

_BACKLOG = 1024
_CLOSE_WITHIN_S = 2
"""What is under way at the end has so long; gateways ask elsewhere."""


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the node's business."""
        yield


class HttpServer:
    """Serves `handler`; a handler is cancelled when its client goes away."""

    def __init__(self, listen: str, field: str, handler: Handler, tls: str = "") -> None:
        """`listen`: `host:port`, or with TLS `https://host:port`; port 0 takes a free one. `field`
        names it in errors. `tls`: folder with the certificate to show."""
        self._listen = listen
        self._field = field
        self._handler = handler
        self._tls = tls
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self.endpoint = ""
        """`http://host:port` or `https://host:port`, once it listens."""

    async def start(self) -> None:
        """Listen. Raises `InvalidInput` naming the field where it cannot."""
        address = self._listen.removeprefix("https://")
        encrypted = address != self._listen
        host, _, port = address.rpartition(":")
        if not (host and port.isdecimal() and int(port) < 65536):
            raise self._bad(f"{self._listen!r} is no address")
        tls: dict[str, Any] = {}
        if encrypted:
            context = serving(self._tls)
            tls["ssl_context_factory"] = lambda *_: context
        try:
            sockets = await _listening(host.strip("[]"), int(port))
        except OSError as error:
            raise self._bad(f"cannot listen on {self._listen}: {error.strerror}") from None
        self._server = _Uvicorn(self._config(tls))
        self._serving = asyncio.create_task(self._server.serve(sockets), name="http")
        scheme = "https" if encrypted else "http"
        self.endpoint = f"{scheme}://{host}:{sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Answer no more. Closing twice is harmless."""
        server, serving = self._server, self._serving
        self._server = self._serving = None
        if server is None or serving is None:
            return
        server.should_exit = True
        await serving
        for connection in tuple(server.server_state.connections):
            connection.transport.abort()
        await asyncio.gather(*server.server_state.tasks)

    def _config(self, tls: dict[str, Any]) -> uvicorn.Config:
        """One protocol and no middleware; what goes wrong is told by `ServerConnection`."""
        return uvicorn.Config(
            self._handler,  # Of which each connection makes its app.
            http=ServerConnection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            log_level="critical",
            backlog=_BACKLOG,
            timeout_keep_alive=int(KEPT_ALIVE_S),
            timeout_graceful_shutdown=_CLOSE_WITHIN_S,
            **tls,
        )

    def _bad(self, problem: str) -> InvalidInput:
        return InvalidInput(
            problem,
            field=self._field,
            fix="write a free address of this machine like 127.0.0.1:7480; port 0 takes any",
        )


async def _listening(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of the host, all at one port. Raises `OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    sockets: list[socket.socket] = []
    try:
        for family, at in dict.fromkeys((family, at) for family, *_, at in found):
            if sockets:
                at = (at[0], sockets[0].getsockname()[1], *at[2:])
            sockets.append(socket.create_server(at, family=family, backlog=_BACKLOG))
    except OSError:
        for bound in sockets:
            bound.close()
        raise
    return sockets
