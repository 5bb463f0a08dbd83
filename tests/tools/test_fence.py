"""Real sessions: through a control centre nobody takes its place, with whatever wildcard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from daitn.objects.errors import Unreachable
from daitn.objects.identifiers import JobId, SiteId
from daitn.tools.fabric import keys
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import ZenohFabric, open_zenoh
from tests.scenes.waiting import until

pytestmark = pytest.mark.processes

NORTH = SiteId("north")
ASKED = keys.center_do("jobs")


@pytest.fixture
async def fabrics() -> AsyncIterator[list[ZenohFabric]]:
    """A control centre and two others."""
    hub = await open_zenoh(FabricSettings(mode="router", listen=("tcp/127.0.0.1:0",), fenced=True))
    settings = FabricSettings(mode="client", connect=hub.endpoints)
    opened = [hub, await open_zenoh(settings), await open_zenoh(settings)]
    yield opened
    for fabric in reversed(opened):
        await fabric.close()


async def by_center(key: str, payload: bytes) -> bytes:
    return b"center"


@pytest.mark.parametrize(
    "served", [ASKED, "daitn/center/do/**", "daitn/*/do/jobs", "daitn/**", "**"]
)
async def test_nobody_hears_what_the_control_centre_is_asked(
    fabrics: list[ZenohFabric], served: str
) -> None:
    hub, rival, asker = fabrics
    heard: list[str] = []

    async def steals(key: str, payload: bytes) -> bytes:
        heard.append(key)
        return b"rival"

    await hub.serve(ASKED, by_center)
    await rival.serve(served, steals)
    await rival.serve(keys.site_do(NORTH, "describe"), by_center)
    await _served(asker, keys.site_do(NORTH, "describe"))  # So the one before has arrived too.
    for _ in range(20):
        assert await asker.request(ASKED, b"", timeout_s=10.0) == b"center"
        everybody = await asker.request(
            ASKED, b"", timeout_s=10.0, accepts=lambda answer: answer == b"center"
        )
        assert everybody == b"center"
    assert ASKED not in heard


async def test_what_sites_say_passes_and_what_only_the_control_centre_says_does_not(
    fabrics: list[ZenohFabric],
) -> None:
    _, site, hearer = fabrics
    heard: list[str] = []
    alive: list[str] = []

    async def hear(key: str, payload: bytes) -> None:
        heard.append(key)

    async def see(key: str, living: bool) -> None:
        alive.append(key)

    await hearer.subscribe("daitn/**", hear)
    await hearer.watch("daitn/alive/**", see)
    said = [
        keys.site_advert(NORTH),
        keys.site_sensed(NORTH),
        keys.site_serving(NORTH),
        keys.site_attested(NORTH),
        keys.site_demand(NORTH),
        keys.site_progress(NORTH, JobId("a-1")),
        keys.site_event(NORTH, JobId("a-north-1")),
        keys.ROSTER,
    ]
    await until(lambda: _said(site, keys.site_advert(NORTH), heard))
    heard.clear()
    await site.announce(keys.center_alive())
    await site.announce(keys.site_alive(NORTH, "0"))
    only_its_own = (
        keys.center_advice(),
        keys.job_event(JobId("a-1")),
        "daitn/site/center/advert",
        "daitn/other",
    )
    for key in (*only_its_own, *said):
        await site.publish(key, b"")
    await until(lambda: set(heard) >= set(said))
    assert [key for key in heard if key not in said] == []
    assert set(heard) == set(said)
    await until(lambda: alive)
    assert alive == [keys.site_alive(NORTH, "0")]


async def _served(asker: ZenohFabric, key: str) -> None:
    while True:
        try:
            await asker.request(key, b"", timeout_s=1.0)
        except Unreachable:
            await asyncio.sleep(0.02)
        else:
            return


_SENDING: set[asyncio.Task[None]] = set()


def _said(site: ZenohFabric, key: str, heard: list[str]) -> bool:
    """Say it until it is heard: subscriptions take a moment."""
    _SENDING.add(asyncio.ensure_future(site.publish(key, b"")))
    return bool(heard)
