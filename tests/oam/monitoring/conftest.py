from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.oam.monitoring.scene import Watched
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.otlp_collector import OtlpCollector


@pytest.fixture(scope="package")
def collector() -> Iterator[OtlpCollector]:
    with OtlpCollector() as collector:
        yield collector


@pytest.fixture(scope="package")
def watched(
    tmp_path_factory: pytest.TempPathFactory, collector: OtlpCollector
) -> Iterator[Watched]:
    """A network that answered queries and trained a model."""
    with ExitStack() as stack:
        server = stack.enter_context(OpenAiServer())
        traces = {"endpoint": collector.url, "ratio": 0.0}
        watched = Watched(tmp_path_factory.mktemp("network"), server, traces=traces)
        stack.callback(watched.network.processes.stop)
        watched.ready()
        watched.train()
        yield watched
