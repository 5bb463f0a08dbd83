"""An HTTP server in the node's event loop. It has no routes: one handler takes every request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from ipaddress import ip_address
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import uvicorn

from daitn.identity.tls import serving
from daitn.objects.addresses import is_encrypted, is_unspecified
from daitn.objects.errors import InvalidInput
from daitn.tools.http.client import read_address
from daitn.tools.http.exchange import CLOSE
from daitn.tools.http.server_connection import KEEPALIVE_S, Handler, ServerConnection

__all__ = ["HttpServer", "bind", "check_published", "check_served", "served"]

log = logging.getLogger(__name__)

_BACKLOG = 1024
_SHUTDOWN_TIMEOUT_S = 2
"""Requests still running this long after `close` are cut off; gateways then query another
facility."""
_LOOKED_AT_S = 0.05
"""Interval at which `drain` checks for requests in progress."""
_NAME = re.compile(r"[^\s/:?#@\[\]]+")

_ANY_PORT = "127.0.0.1:0"
T = TypeVar("T")


async def served(stated: str | None, usual: str, serve: Callable[[str], Awaitable[T]]) -> T:
    """The result of `serve` at a stated address; without one, at the usual address, or at any free
    port here.

    Several processes on one machine must not fail because the usual port is taken. Raises what
    `serve` does.
    """
    if stated is not None:
        return await serve(stated)
    try:
        return await serve(usual)
    except InvalidInput as error:
        log.info("%s; another port is taken", error.problem)
        return await serve(_ANY_PORT)


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The node handles signals."""
        yield

    def drain(self) -> None:
        """Close each connection with its next response."""
        self.config.encoded_headers.append(CLOSE)  # Of all responses, within a second.
        self.server_state.default_headers = [*self.server_state.default_headers, CLOSE]
        for connection in self._connections:
            connection.drain()

    @property
    def busy(self) -> bool:
        """Whether any response is in progress."""
        return any(connection.busy for connection in self._connections)

    @property
    def _connections(self) -> list[ServerConnection]:
        return [cast(ServerConnection, one) for one in self.server_state.connections]


class HttpServer:
    """Serves `handler`, and cancels it when its client disconnects."""

    def __init__(
        self,
        listen: str,
        field: str,
        handler: Handler,
        tls: str = "",
        *,
        advertise: str = "",
        anywhere: bool = False,
        write_timeout_s: float | None = None,
    ) -> None:
        """`listen`: `host:port`, or `https://host:port` with TLS; port 0 picks a free one. `field`
        names the setting in errors. `tls`: folder with the server's certificate. `advertise`: the
        URL for others, if it differs from `listen`. `anywhere`: whether it may listen at all
        addresses without one, and is then published with this machine's name. `write_timeout_s`:
        see `ServerConnection`."""
        self._listen = listen
        self._field = field
        self._handler = handler
        self._tls = tls
        self._connection = partial(ServerConnection, write_timeout_s=write_timeout_s)
        self._advertise = advertise
        self._anywhere = anywhere
        self._server: _Uvicorn | None = None
        self._serving: asyncio.Task[None] | None = None
        self.endpoint = ""
        """`http://host:port` or `https://host:port`, once it listens."""
        self.published = ""
        """Likewise for others: never an address that nobody can connect to."""

    async def start(self) -> None:
        """Listen. Raises `InvalidInput` with the field for an address that it, or others, cannot
        use."""
        encrypted = self._listen.startswith("https://")
        host, port = _place(self._field, self._listen)
        advertised = _checked(self._advertise, self._field)
        tls: dict[str, Any] = {}
        if encrypted:
            context = serving(self._tls)
            tls["ssl_context_factory"] = lambda *_: context
        try:
            sockets = await bind(host, port)
        except OSError as error:
            problem = f"cannot listen on {self._listen}: {error.strerror}"
            raise _invalid(self._field, problem) from None
        bound_host, bound_port = sockets[0].getsockname()[:2]
        everywhere = ip_address(bound_host).is_unspecified
        if everywhere and not (advertised or self._anywhere):
            for one in sockets:
                one.close()
            raise _unpublishable(self._field, host, bound_port)
        self._server = _Uvicorn(self._config(tls))
        self._serving = asyncio.create_task(self._server.serve(sockets), name="http")
        scheme = "https" if encrypted else "http"
        in_url = f"[{host}]" if ":" in host else host
        self.endpoint = f"{scheme}://{in_url}:{bound_port}"
        own_name = f"{scheme}://{socket.gethostname()}:{bound_port}"
        self.published = advertised or (own_name if everywhere else self.endpoint)

    async def drain(self, timeout_s: float) -> None:
        """Return when nothing is in progress, or after `timeout_s`.

        From now on each response closes its connection; requests are answered until `close`.
        """
        if self._server is None:
            return
        self._server.drain()
        until_s = asyncio.get_running_loop().time() + timeout_s
        while self._server.busy and asyncio.get_running_loop().time() < until_s:  # noqa: ASYNC110
            await asyncio.sleep(_LOOKED_AT_S)

    async def close(self) -> None:
        """Stop serving. Closing twice is harmless."""
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
        """One protocol and no middleware; `ServerConnection` logs failures."""
        config = uvicorn.Config(
            self._handler,  # `ServerConnection` takes it as its handler.
            http=cast(type[asyncio.Protocol], self._connection),
            ws="none",
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            log_level="critical",
            backlog=_BACKLOG,
            timeout_keep_alive=int(KEEPALIVE_S),
            timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
            **tls,
        )
        config.load()
        return config


def check_served(field: str, listen: str, advertise: str = "", *, tls: str) -> None:
    """Check the addresses in a file, as `HttpServer` does before it binds. Raises `InvalidInput`
    with the field."""
    _place(field, listen)
    _checked(advertise, field)
    if is_encrypted(listen) and not tls:
        raise InvalidInput(
            f"there is no certificate for {listen!r}", field=field, fix="leave https:// out"
        )


def check_published(field: str, listen: str, advertise: str = "") -> None:
    """Raise `InvalidInput` for an address that `HttpServer` could not give to others."""
    host, port = _place(field, listen)
    if not advertise and is_unspecified(host):
        raise _unpublishable(field, host, port)


def _place(field: str, listen: str) -> tuple[str, int]:
    """Host and port to listen at. Raises `InvalidInput` for anything else."""
    host, _, port = listen.removeprefix("https://").rpartition(":")
    if not (_is_host(host) and port.isascii() and port.isdecimal() and int(port) < 65536):
        raise _invalid(field, f"{listen!r} is not an address")
    return host.strip("[]"), int(port)


def _is_host(text: str) -> bool:
    """Whether a text is a name or an IP address; one of IPv6 may have brackets."""
    try:
        return bool(ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        return _NAME.fullmatch(text) is not None


def _invalid(field: str, problem: str) -> InvalidInput:
    fix = "name a free address of this machine, for instance 127.0.0.1:0"
    return InvalidInput(problem, field=field, fix=fix)


def _unpublishable(field: str, host: str, port: int) -> InvalidInput:
    return InvalidInput(
        f"others cannot connect to {host}",
        field=_advertise_field(field),
        fix="state the URL at which others reach it, for instance "
        f"http://{socket.gethostname()}:{port}",
    )


def _advertise_field(field: str) -> str:
    return field.replace("listen", "advertise")


def _checked(advertise: str, field: str) -> str:
    """The URL, without a trailing slash. Raises `InvalidInput` if nobody can connect to it."""
    if not advertise:
        return ""
    try:
        address, parts = read_address(advertise), urlsplit(advertise)
        usable = parts.port != 0 and not (parts.query or parts.fragment or "@" in parts.netloc)
        usable = usable and not is_unspecified(address.host)
    except ValueError:
        usable = False
    if usable:
        return advertise.rstrip("/")
    raise InvalidInput(
        f"others cannot connect to {advertise!r}",
        field=_advertise_field(field),
        fix="state the URL at which others reach the server, for instance https://ai.example.org",
    )


async def bind(host: str, port: int) -> list[socket.socket]:
    """Listen with a socket for each address of the host, all to one port. Raises `OSError`."""
    resolved = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    sockets: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((family, address) for family, *_, address in resolved):
            if sockets:
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            sockets.append(socket.create_server(address, family=family, backlog=_BACKLOG))
    except OSError:
        for bound in sockets:
            bound.close()
        raise
    return sockets
