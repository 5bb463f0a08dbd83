"""An MCP server of the official SDK, over HTTP without sessions, or over standard input."""

from __future__ import annotations

import functools
import hmac
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

from daitn import __version__
from daitn.cli.mcp.tools import INSTRUCTIONS, Tools
from daitn.objects.errors import DaitnError

__all__ = ["PATH", "made", "serve_http", "serve_stdio"]

PATH = "/mcp"
_LOOPBACK = "127.0.0.1"


def made(center: str, *, writes: bool) -> MCPServer:
    """The server of a control centre. `writes`: whether assistants may change anything."""
    server = MCPServer("daitn", instructions=INSTRUCTIONS, version=__version__, log_level="WARNING")
    tools = Tools(center)
    for tool in tools.reading:
        reading = ToolAnnotations(read_only_hint=True, open_world_hint=False)
        server.tool(annotations=reading, structured_output=False)(_told(tool))
    for tool in tools.writing if writes else ():
        writing = ToolAnnotations(read_only_hint=False, destructive_hint=True)
        server.tool(annotations=writing, structured_output=False)(_told(tool))
    return server


def _told(tool: Callable[..., Awaitable[str]]) -> Callable[..., Awaitable[str]]:
    """The tool, whose errors are sentences for the assistant."""

    @functools.wraps(tool)
    async def called(*args: Any, **named: Any) -> str:
        try:
            return await tool(*args, **named)
        except DaitnError as error:
            raise ToolError(str(error)) from None

    return called


async def serve_stdio(server: MCPServer) -> None:
    """Answer on standard output until standard input ends."""
    await server.run_stdio_async()


async def serve_http(
    server: MCPServer, port: int, token: str, ready: Callable[[str], None]
) -> None:
    """Answer at a port of this machine, 0: a free one, whoever shows the token, until a signal
    comes. Calls `ready` with the address. Raises `OSError`."""
    app = server.streamable_http_app(
        streamable_http_path=PATH, json_response=True, stateless_http=True, host=_LOOPBACK
    )
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((_LOOPBACK, port))
        listening.listen(128)
        config = uvicorn.Config(_Guarded(app, token), log_level="warning", lifespan="on")
        ready(f"http://{_LOOPBACK}:{listening.getsockname()[1]}{PATH}")
        await uvicorn.Server(config).serve(sockets=[listening])


class _Guarded:
    """An ASGI application that answers only who shows a token: other users of the machine, and
    pages in its browsers, reach its ports, too."""

    def __init__(self, app: Any, token: str) -> None:
        self._app = app
        self._token = f"Bearer {token}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            shown = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(shown, self._token):
                headers = [(b"www-authenticate", b"Bearer"), (b"content-type", b"text/plain")]
                await send({"type": "http.response.start", "status": 401, "headers": headers})
                said = b"show the token that `daitn mcp` printed: `authorization: Bearer TOKEN`\n"
                await send({"type": "http.response.body", "body": said})
                return
        await self._app(scope, receive, send)
