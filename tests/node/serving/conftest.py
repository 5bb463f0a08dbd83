from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from daitn.tools.fabric.memory import MemoryNetwork
from tests.node.serving.scene import Holder
from tests.scenes.openai_server import OpenAiServer, Settings
from tests.scenes.recipes import installed_talker


@pytest.fixture(scope="session")
def started() -> Iterator[OpenAiServer]:
    with OpenAiServer() as server:
        yield server


@pytest.fixture
def server(started: OpenAiServer) -> OpenAiServer:
    """A server that behaves, until a test tells it otherwise."""
    started.control(**msgspec.to_builtins(Settings(port=started.port)))
    return started


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with installed_talker(tmp_path_factory.mktemp("site") / "packages"):
        yield


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork()


@pytest.fixture
async def holder(network: MemoryNetwork, tmp_path: Path) -> AsyncIterator[Holder]:
    holder = Holder(network, tmp_path)
    await holder.start()
    yield holder
    await holder.close()
