"""The clients have what the API has, and do what it does."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest

from daitn.client import AsyncClient, Client
from daitn.oam.api.openapi import described
from daitn.oam.api.routes import ROUTES, ApiRoute
from daitn.objects.errors import NotFound, Refused, Unreachable
from tests.scenes.control_room import Room, intent, room
from tests.scenes.waiting import PATIENCE_S, until

FOR_BROWSERS = {"sign_in", "sign_out", "oidc_begin", "oidc_end"}
ROUTES_BY_ID = {route.id: route for route in ROUTES if route.id not in FOR_BROWSERS}


@pytest.fixture
async def clinics(tmp_path: Path) -> AsyncIterator[Room]:
    async with room(tmp_path) as made:
        await made.site("east")
        await until(lambda: made.center.center.snapshot().alive())
        yield made


def test_every_route_has_a_method_of_its_name_with_its_parameters() -> None:
    assert len(ROUTES_BY_ID) == len(ROUTES) - len(FOR_BROWSERS), "names are unique"
    operations = {
        operation["operationId"]: operation
        for methods in described()["paths"].values()
        for operation in methods.values()
    }
    assert set(operations) - FOR_BROWSERS == set(ROUTES_BY_ID)
    for name, route in ROUTES_BY_ID.items():
        for client in (Client, AsyncClient):
            taken = set(inspect.signature(getattr(client, name)).parameters) - {"self"}
            said = {
                parameter["name"]
                for parameter in operations[name]["parameters"]
                if parameter["in"] in ("path", "query")
            }
            assert said <= taken, (name, client)
            assert taken - said <= _of_body(route), (name, client)
            if name != "events":
                hints = get_type_hints(getattr(client, name), include_extras=True)
                assert hints["return"] == route.answer, (name, client)


def _of_body(route: ApiRoute) -> set[str]:
    """What a method takes for a body: the fields of an intent's wrapper, or the body itself."""
    if route.id == "events":
        return {"after"}
    if route.body is None:
        return set()
    if not issubclass(route.body, msgspec.Struct):
        return {"payload"}
    return {*route.body.__struct_fields__, "key", "intent", "how", "change"}


async def test_a_program_submits_follows_and_stops_a_job(clinics: Room) -> None:
    async with AsyncClient(clinics.url, clinics.token("ann")) as ann:
        start = (await ann.map()).event
        job = (await ann.submit(intent(), key=clinics.key("ann"), insist=True)).job
        assert (await ann.intent(job)) == intent()
        async with asyncio.timeout(PATIENCE_S):
            async for event in ann.events(start):
                if event.kind == "job" and event.data.job == job:
                    break
        assert (await ann.cancel(job)).state == "cancelled"
        assert [one.job for one in (await ann.jobs()).items] == [job]
        assert (await ann.assess(intent())).feasible in (True, False)
        with pytest.raises(NotFound) as raised:
            await ann.job("no such job?")
        assert raised.value.field == "job"
        assert (await ann.sites(role=None)).items[0].descriptor.site == "east"
    async with AsyncClient(clinics.url, clinics.token("bob")) as bob:
        with pytest.raises(Refused, match="not yours"):
            await bob.job(job)
    async with AsyncClient(clinics.url) as nobody:
        assert (await nobody.session()).you is None
        with pytest.raises(Refused, match="not signed in"):
            await nobody.network()
        assert (await nobody.openapi())["openapi"] == "3.1.0"


async def test_events_go_on_after_the_control_centre_was_away(clinics: Room) -> None:
    async with AsyncClient(clinics.url, clinics.token("ann")) as ann:
        seen: list[str] = []

        async def follow() -> None:
            async for event in ann.events():
                seen.append(event.kind)

        following = asyncio.create_task(follow())
        await until(lambda: clinics.readers() == 1)
        await clinics.restart()
        await until(lambda: "reset" in seen)
        following.cancel()


async def test_a_change_whose_answer_is_lost_is_made_once(clinics: Room) -> None:
    """A connection that breaks after the request: it is sent again with its key."""
    keys: list[bytes] = []

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        keys.extend(line for line in head.split(b"\r\n") if line.startswith(b"idempotency-key"))
        writer.close()

    server = await asyncio.start_server(half, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with AsyncClient(url) as client:
        with pytest.raises(Unreachable):
            await client.cancel("tumour-1")
    server.close()
    assert len(keys) == 2
    assert keys[0] == keys[1]


async def test_the_client_without_await_does_the_same(clinics: Room) -> None:
    def program() -> Any:
        with Client(clinics.url + "/#token=x", clinics.token("root")) as root:
            told = root.network()
            first = next(root.events("gone-1"))
            with pytest.raises(NotFound):
                root.retire("nothing")
            return told.you.member, first.kind

    assert await asyncio.to_thread(program) == ("root", "reset")
    assert "daitn client" not in {thread.name for thread in threading.enumerate()}
