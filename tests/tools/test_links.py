"""Real sessions with certificates: whoever is no member has no link for long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zenoh

from daitn.identity.certificates import CERTIFICATE, MEMBERSHIP
from daitn.objects.errors import Unreachable, Unserved
from daitn.tools.fabric import links
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import ZenohFabric, open_zenoh
from tests.scenes.certificates import certified_member
from tests.scenes.waiting import PATIENCE_S, until

pytestmark = pytest.mark.processes


@pytest.fixture
def members(tmp_path: Path) -> dict[str, str]:
    """Public keys of who has certificates of the network."""
    return {
        name: certified_member(tmp_path / name, tmp_path / "authority", name=name).public_key
        for name in ("hub", "north", "south")
    }


@asynccontextmanager
async def hub(
    folder: Path, roster: set[str], *, brief: bool = False, listen: str = "tls/127.0.0.1:0"
) -> AsyncIterator[ZenohFabric]:
    settings = FabricSettings(mode="router", listen=(listen,), tls=str(folder / "hub"))
    fabric = await open_zenoh(settings)
    guard = fabric.guarded(roster.__contains__, brief=brief)
    try:
        yield fabric
    finally:
        await guard.close()
        await fabric.close()


async def client(
    folder: Path, name: str, at: ZenohFabric, *, within_s: float = PATIENCE_S
) -> ZenohFabric:
    settings = FabricSettings(
        mode="client",
        connect=(at.endpoints[0].replace("[::]", "127.0.0.1"),),
        tls=str(folder / name),
    )
    return await open_zenoh(settings, connect_timeout_s=within_s)


class Heard:
    """What is heard at a key."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def take(self, key: str, payload: bytes) -> None:
        self.event.set()


async def echo(key: str, payload: bytes) -> bytes:
    return payload


async def answered(fabric: ZenohFabric) -> bool | None:
    """Whether an answer comes. Who has no link hears at once that nobody serves: only that counts
    as no answer. `None`: it was on its way on a link that ended, or is late."""
    try:
        return await fabric.request("daitn/echo", b"x", timeout_s=10.0) == b"x"
    except Unreachable as error:
        return False if isinstance(error, Unserved) else None


async def answers(fabric: ZenohFabric) -> bool:
    """Whether an answer comes, however long it takes."""
    return await fabric.request("daitn/echo", b"x", timeout_s=PATIENCE_S) == b"x"


async def until_answering(answering: bool, fabric: ZenohFabric) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await answered(fabric) is not answering:  # noqa: ASYNC110 - nothing tells.
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("listen", ["tls/127.0.0.1:0", "tls/[::]:0"])
async def test_the_links_of_a_revoked_member_end_and_others_stay(
    tmp_path: Path, members: dict[str, str], listen: str
) -> None:
    roster = set(members.values())
    async with hub(tmp_path, roster, listen=listen) as center:
        await center.serve("daitn/echo", echo)
        north, south = [await client(tmp_path, name, center) for name in ("north", "south")]
        try:
            await until_answering(True, north)
            await until_answering(True, south)
            heard = Heard()
            await south.subscribe("daitn/news", heard.take)
            roster.remove(members["north"])
            await until_answering(False, north)
            # It connects again and again, for milliseconds.
            asked = [(await answered(north), await answers(south)) for _ in range(20)]
            assert all(others for _, others in asked)
            assert sum(its is False for its, _ in asked) > len(asked) / 2
            await center.publish("daitn/news", b"still here")
            async with asyncio.timeout(PATIENCE_S):
                await heard.event.wait()
            roster.add(members["north"])
            await until_answering(True, north)
        finally:
            await north.close()
            await south.close()


def links_made(fabric: ZenohFabric) -> list[bool]:
    """Filled with an entry for each new link of a session."""
    made: list[bool] = []

    def happened(event: zenoh.LinkEvent) -> None:
        if event.kind == zenoh.SampleKind.PUT:
            made.append(True)

    fabric._listener = fabric._session.info.declare_link_events_listener(happened)  # type: ignore[attr-defined]
    return made


async def test_who_is_refused_connects_ever_less_says_so_once_and_comes_back(
    tmp_path: Path, members: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    roster = set(members.values())
    async with hub(tmp_path, roster) as center:
        await center.serve("daitn/echo", echo)
        north = await client(tmp_path, "north", center)
        guard = north.guarded(lambda key: True)
        try:
            await until_answering(True, north)
            made = links_made(north)
            roster.remove(members["north"])
            await until_answering(False, north)
            await until(lambda: "refuses links with this process" in caplog.text)
            await asyncio.sleep(2.0)
            # Without a pause they are some 400.
            assert len(made) <= 6
            assert caplog.text.count("refuses links with this process") == 1
            roster.add(members["north"])
            await until_answering(True, north)
        finally:
            await guard.close()
            await north.close()


async def test_who_knows_that_it_is_no_member_does_not_connect_until_it_is_one(
    tmp_path: Path, members: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    roster = set(members.values())
    async with hub(tmp_path, roster) as center:
        await center.serve("daitn/echo", echo)
        north = await client(tmp_path, "north", center)
        guard = north.guarded(roster.__contains__, own=members["north"])
        try:
            await until_answering(True, north)
            made = links_made(north)
            roster.remove(members["north"])
            await until_answering(False, north)
            await until(lambda: "no longer a member: it waits" in caplog.text)
            await asyncio.sleep(2 * links._CHECK_S)
            before = len(made)
            assert caplog.text.count("no longer a member: it waits") == 1
            await asyncio.sleep(2.0)
            assert len(made) == before
            roster.add(members["north"])
            await until_answering(True, north)
        finally:
            await guard.close()
            await north.close()


async def test_a_revoked_hub_is_left_and_an_unknown_one_is_not(
    tmp_path: Path, members: dict[str, str]
) -> None:
    """A process with an old roster may not know the control centre that has the newer one."""
    async with hub(tmp_path, set(members.values())) as center:
        await center.serve("daitn/echo", echo)
        north = await client(tmp_path, "north", center)
        roster: set[str] = set()
        guard = north.guarded(roster.__contains__)
        try:
            await until_answering(True, north)
            await asyncio.sleep(2 * links._CHECK_S)
            assert await answers(north)
            roster.add(members["hub"])
            await asyncio.sleep(2 * links._CHECK_S)
            assert await answers(north)
            roster.clear()
            await until_answering(False, north)
        finally:
            await guard.close()
            await north.close()


async def test_strangers_with_certificates_of_others_do_not_connect(
    tmp_path: Path, members: dict[str, str]
) -> None:
    stranger = certified_member(tmp_path / "stranger", tmp_path / "other-authority")
    async with hub(tmp_path, {*members.values(), stranger.public_key}) as center:
        with pytest.raises(Unreachable):
            await client(tmp_path, "stranger", center, within_s=5.0)


async def test_who_has_only_a_membership_stays_for_a_moment(
    tmp_path: Path, members: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "_ENTRY_S", 2.0)
    (tmp_path / "north" / CERTIFICATE).write_bytes((tmp_path / "north" / MEMBERSHIP).read_bytes())
    async with hub(tmp_path, set(members.values()), brief=True) as center:
        await center.serve("daitn/echo", echo)
        north, south = [await client(tmp_path, name, center) for name in ("north", "south")]
        try:
            await until_answering(True, north)
            await until_answering(True, south)
            await until_answering(False, north)
            assert await answers(south)
        finally:
            await north.close()
            await south.close()


async def test_new_certificates_count_from_the_next_link_on(
    tmp_path: Path, members: dict[str, str]
) -> None:
    async with hub(tmp_path, set(members.values()), brief=True) as center:
        await center.serve("daitn/echo", echo)
        ends_s = time.time() + 10.0  # Enough for a first link.
        certified_member(tmp_path / "north", tmp_path / "authority", name="north", lasts_s=10.0)
        north = await client(tmp_path, "north", center)
        guard = north.guarded(lambda key: True)
        try:
            await until_answering(True, north)
            await until(lambda: time.time() > ends_s + 1.0)
            assert await answers(north), "an open link outlives its certificate"
            guard.renew()
            await until_answering(False, north)
            certified_member(tmp_path / "north", tmp_path / "authority", name="north")
            await until_answering(True, north)
        finally:
            await guard.close()
            await north.close()
