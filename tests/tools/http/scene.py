"""Servers that say exactly what a test writes, and clients that send it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from daitn.tools.http import Address, HttpClient, HttpServer, Reply, Request, read_address
from tests.scenes.waiting import PATIENCE_S

__all__ = ["Talk", "client", "exchange", "server", "talking"]

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def talking(talk: Talk) -> AsyncIterator[Address]:
    """A server that handles each connection so, and closes it then."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield read_address(f"http://127.0.0.1:{port}")
    finally:
        listening.close()


@asynccontextmanager
async def client(keepalive_s: float = 30.0, tls: str = "") -> AsyncIterator[HttpClient]:
    client = HttpClient(connect_timeout_s=3.0, keepalive_s=keepalive_s, tls=tls)
    yield client
    client.close()
    await asyncio.sleep(0)


@asynccontextmanager
async def server(handler: Callable[[Request], Awaitable[Reply]]) -> AsyncIterator[HttpServer]:
    server = HttpServer("127.0.0.1:0", "listen", handler)
    await server.start()
    yield server
    await server.close()


async def exchange(server: HttpServer, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Send these bytes over one connection; all that comes until the server closes it."""
    at = urlsplit(server.endpoint)
    assert at.hostname is not None
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    for part in parts:
        writer.write(part)
        await asyncio.sleep(pause_s)
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read()
    finally:
        writer.close()
