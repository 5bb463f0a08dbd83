"""A small HTTP server in the node's event loop, without routes: one handler takes everything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from daitn.objects.errors import InvalidInput

__all__ = ["HttpServer"]

KEPT_ALIVE_S = 75.0
"""Idle connections of clients; longer than clients keep theirs, so that they close first."""
_BACKLOG = 1024
_CLOSE_WITHIN_S = 2.0
"""What is under way at the end has so long; gateways ask elsewhere."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class HttpServer:
    """Serves `handler`; a handler is cancelled when its client goes away."""

    def __init__(self, listen: str, field: str, handler: Handler) -> None:
        """`listen`: `host:port`, port 0 takes a free one. `field` names it in errors."""
        self._listen = listen
        self._field = field
        self._handler = handler
        self._runner: web.ServerRunner | None = None
        self.endpoint = ""
        """`http://host:port`, once it listens."""

    async def start(self) -> None:
        """Listen. Raises `InvalidInput` naming the field where it cannot."""
        host, _, port = self._listen.rpartition(":")
        if not (host and port.isdecimal() and int(port) < 65536):
            raise self._bad(f"{self._listen!r} is no address")
        server = web.Server(
            self._handler,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=KEPT_ALIVE_S,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=_CLOSE_WITHIN_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host.strip("[]"), int(port), backlog=_BACKLOG)
        try:
            await site.start()
        except OSError as error:
            await self.close()
            raise self._bad(f"cannot listen on {self._listen}: {error.strerror}") from None
        self.endpoint = f"http://{host}:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        """Answer no more. Closing twice is harmless."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def _bad(self, problem: str) -> InvalidInput:
        return InvalidInput(
            problem,
            field=self._field,
            fix="write a free address of this machine like 127.0.0.1:7480; port 0 takes any",
        )
