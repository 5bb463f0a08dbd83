from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.oam.monitoring.scene import Watched
from tests.scenes.openai_server import OpenAiServer


@pytest.fixture(scope="package")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A network that answered queries and trained a model."""
    with OpenAiServer() as server:
        watched = Watched(tmp_path_factory.mktemp("network"), server)
        try:
            watched.ready()
            watched.train()
            yield watched
        finally:
            watched.network.processes.stop()
