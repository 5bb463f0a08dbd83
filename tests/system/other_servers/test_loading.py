"""A server that answers while it is not ready yet, as llama.cpp does while it loads its model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from aiohttp import web

from daitn.node.config import UpstreamConfig
from daitn.node.serving.backends import openai_server as bounds
from daitn.node.serving.backends.openai_server import OpenAiBackend
from daitn.objects.deployments import DeploymentState
from daitn.objects.identifiers import OwnerId

LOADING = {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}


@pytest.fixture
async def says() -> AsyncIterator[SimpleNamespace]:
    """What the server answers with; its `url`."""
    state = SimpleNamespace(status=503, url="")

    async def models(request: web.Request) -> web.Response:
        return web.json_response(LOADING, status=state.status)

    app = web.Application()
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    state.url = f"http://{host}:{port}/v1"
    yield state
    await runner.cleanup()


async def test_it_is_there_once_it_has_loaded(
    says: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "PROBE_DOWN_S", 0.05)
    changed = asyncio.Event()
    model = OpenAiBackend(
        UpstreamConfig(name="llama", url=says.url), OwnerId("acme"), changed.set, 1 << 26
    )
    states = []
    await model.start()
    try:
        states.append(model.descriptor.state)
        changed.clear()
        says.status = 404  # It knows no list of models; it is there.
        await asyncio.wait_for(changed.wait(), 10)
        states.append(model.descriptor.state)
    finally:
        await model.close()
    assert states == [DeploymentState.FAILED, DeploymentState.READY]
