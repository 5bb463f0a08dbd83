"""An MCP server of the official SDK, over HTTP without sessions, or over standard input."""

from __future__ import annotations

import functools
import hmac
import inspect
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

from daitn import __version__
from daitn.cli.mcp.tools import INSTRUCTIONS, Tools
from daitn.objects.default_addresses import MCP_PORT
from daitn.objects.errors import DaitnError, InvalidInput

__all__ = ["PATH", "listening", "made", "serve_http", "serve_stdio"]

PATH = "/mcp"
_LOOPBACK = "127.0.0.1"


def made(center: str, *, writes: bool) -> MCPServer:
    """The server of a control centre. `writes`: whether assistants may change anything."""
    server = MCPServer("daitn", instructions=INSTRUCTIONS, version=__version__, log_level="WARNING")
    tools = Tools(center)
    for tool in tools.reading:
        reading = ToolAnnotations(read_only_hint=True, open_world_hint=False)
        server.tool(annotations=reading, structured_output=False)(_reporting(tool))
    for tool in tools.writing if writes else ():
        writing = ToolAnnotations(read_only_hint=False, destructive_hint=True)
        server.tool(annotations=writing, structured_output=False)(_reporting(tool))
    return server


def _reporting(tool: Callable[..., Awaitable[str]]) -> Callable[..., Awaitable[str]]:
    """The tool, with errors turned into sentences for the assistant."""

    @functools.wraps(tool)
    async def called(*args: Any, **named: Any) -> str:
        try:
            return await tool(*args, **named)
        except DaitnError as error:
            raise ToolError(str(error)) from None

    # As assistants read it, without the source's indentation.
    called.__doc__ = inspect.getdoc(tool)
    return called


async def serve_stdio(server: MCPServer) -> None:
    """Answer on standard output until standard input ends."""
    await server.run_stdio_async()


async def serve_http(
    server: MCPServer, port: int | None, token: str, ready: Callable[[str], None]
) -> None:
    """Serve callers with the token, until a signal arrives. Calls `ready` with the address. `port`,
    and raises: see `listening`."""
    app = server.streamable_http_app(
        streamable_http_path=PATH, json_response=True, stateless_http=True, host=_LOOPBACK
    )
    with listening(port) as door:
        config = uvicorn.Config(_Guarded(app, token), log_level="warning", lifespan="on")
        ready(f"http://{_LOOPBACK}:{door.getsockname()[1]}{PATH}")
        await uvicorn.Server(config).serve(sockets=[door])


def listening(port: int | None) -> socket.socket:
    """A socket at a port of this machine, where 0 means any free one; without a port, at the usual
    one, or at a free one if that is taken. Raises `InvalidInput` for a port that is taken."""
    try:
        return socket.create_server((_LOOPBACK, MCP_PORT if port is None else port))
    except OSError as error:
        if port is None:
            return socket.create_server((_LOOPBACK, 0))
        raise InvalidInput(
            f"cannot listen on {_LOOPBACK}:{port}: {error.strerror}",
            field="--port",
            fix="name a free port, or 0 for any",
        ) from None


class _Guarded:
    """An ASGI application that answers only callers with the token: other users of the machine, and
    pages in its browsers, can reach its ports too."""

    def __init__(self, app: Any, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            shown = dict(scope["headers"]).get(b"authorization", b"")
            scheme, _, token = shown.partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
                headers = [(b"www-authenticate", b"Bearer"), (b"content-type", b"text/plain")]
                await send({"type": "http.response.start", "status": 401, "headers": headers})
                refusal = (
                    b"show the token that `daitn mcp` printed: `authorization: Bearer TOKEN`\n"
                )
                await send({"type": "http.response.body", "body": refusal})
                return
        await self._app(scope, receive, send)
