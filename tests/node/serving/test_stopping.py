"""A facility that stops: its queries, its gateways, and what it says of itself."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from daitn.objects.deployments import DeploymentState
from tests.node.serving.scene import CHAT, Site
from tests.node.serving.test_openai_server import BODY, STREAM, before
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.waiting import until

pytestmark = pytest.mark.processes


async def health(site: Site, path: str) -> tuple[int, list[str]]:
    """Status and problems."""
    async with aiohttp.ClientSession() as session, session.get(f"{site.url}{path}") as answer:
        return answer.status, (await answer.json())["problems"]


@pytest.mark.parametrize("body", [BODY, STREAM])
async def test_queries_in_progress_and_queued_are_finished(
    server: OpenAiServer, tmp_path: Path, body: bytes
) -> None:
    server.control(slots=0)
    async with before(server.url, tmp_path, slots=1, queue=2) as site:
        assert await health(site, "/readyz") == (200, [])
        queries = [asyncio.create_task(site.post(CHAT, body)) for _ in range(2)]
        await until(lambda: server.control()["in_flight"])
        draining = asyncio.create_task(site.facility.drain(60.0))
        await until(lambda: site.state("doctor") is DeploymentState.DRAINING)
        assert site.changes
        assert await health(site, "/readyz") == (503, ["the facility is stopping"])
        assert await health(site, "/healthz") == (200, [])
        assert not draining.done()
        server.control(slots=9)
        # Who has not heard that it stops is answered, too.
        late = await site.post(CHAT, body)
        await draining
        for status, said, headers in (late, *[await query for query in queries]):
            assert (status, headers["connection"]) == (200, "close")
            assert b"fox" in said


async def test_draining_ends_in_the_time_that_it_has(server: OpenAiServer, tmp_path: Path) -> None:
    server.control(hang=True)
    async with before(server.url, tmp_path) as site:
        query = asyncio.create_task(site.post(CHAT, BODY))
        await until(lambda: server.control()["in_flight"])
        await site.facility.drain(0.1)
        assert not query.done()
    with pytest.raises(aiohttp.ClientError):
        await query


async def test_a_facility_whose_deployments_failed_is_not_well(tmp_path: Path) -> None:
    server = OpenAiServer()
    server.start()
    async with before(server.url, tmp_path) as site:
        await until(lambda: site.state("doctor") is DeploymentState.READY)
        server.stop()
        status, said, _ = await site.post(CHAT, BODY)
        assert (status, bool(json.loads(said)["error"])) == (502, True)
        await until(lambda: site.state("doctor") is not DeploymentState.READY)
        for path in ("/healthz", "/readyz", "//readyz/"):
            assert await health(site, path) == (503, ["all deployments have failed"])
