from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from tests.node.gateway.scene import Network
from tests.scenes.openai_server import OpenAiServer, Settings


@pytest.fixture(scope="session")
def started() -> Iterator[tuple[OpenAiServer, ...]]:
    servers = tuple(OpenAiServer() for _ in range(3))
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def servers(started: tuple[OpenAiServer, ...]) -> tuple[OpenAiServer, ...]:
    """Three servers that behave, until a test tells them otherwise."""
    for server in started:
        server.control(**msgspec.to_builtins(Settings(port=server.port)))
    return started


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    network = Network()
    yield network
    await network.close()
