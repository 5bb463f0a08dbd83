"""The clients have what the API has, and do what it does."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest

from daitn.client import AsyncClient, Client, events
from daitn.client.transport import Transport, _error
from daitn.oam.api.openapi import described
from daitn.oam.api.pagination import cursor_of
from daitn.oam.api.routes import ROUTES, ApiRoute
from daitn.objects.errors import InvalidInput, NotFound, Refused, Unreachable
from daitn.objects.intents import TrainingIntent
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


async def test_a_job_starts_from_an_ended_job_of_its_owner_that_left_a_model(clinics: Room) -> None:
    """Whoever names another one hears which field is wrong and why, and of others' jobs nothing."""

    def from_job(name: str) -> TrainingIntent:
        return intent(model={"recipe": "classifier", "start": f"job:{name}"})

    async with AsyncClient(clinics.url, clinics.token("bob")) as bob:
        others = (await bob.submit(intent(owner="bob"), key=clinics.key("bob"), insist=True)).job
    async with AsyncClient(clinics.url, clinics.token("ann")) as ann:
        own = (await ann.submit(intent(), key=clinics.key("ann"), insist=True)).job
        for name, kind, why in (
            ("none-1", NotFound, "there is no job none-1 of ann"),
            (others, NotFound, f"there is no job {others} of ann"),
            (own, Refused, f"job {own} is "),
        ):
            for asked in (
                ann.assess(from_job(name)),
                ann.submit(from_job(name), key=clinics.key("ann")),
            ):
                with pytest.raises(kind, match=why) as raised:
                    await asked
                assert raised.value.field == "model.start"
        await ann.cancel(own)
        with pytest.raises(NotFound, match="left no verified model") as raised:
            await ann.assess(from_job(own))
        assert raised.value.field == "model.start"
        with pytest.raises(InvalidInput, match="the request names no weights") as brought:
            await ann.submit(
                intent(model={"recipe": "classifier", "start": "weights"}),
                key=clinics.key("ann"),
                insist=True,
            )
        assert brought.value.field == "start"


async def test_others_jobs_are_as_if_they_were_not(clinics: Room) -> None:
    async with AsyncClient(clinics.url, clinics.token("bob")) as bob:
        job = (await bob.submit(intent(owner="bob"), key=clinics.key("bob"), insist=True)).job
    async with AsyncClient(clinics.url, clinics.token("ann")) as ann:
        for name in (job, "none-1"):
            for asked in (
                ann.job(name),
                ann.intent(name),
                ann.decisions(name),
                ann.lineage(name),
                ann.value(name),
                ann.relevant(name),
                ann.report(name),
                ann.cancel(name),
                ann.resume(name),
                ann.measure(name),
            ):
                with pytest.raises(NotFound, match=f"there is no job {name} of ann"):
                    await asked
            with pytest.raises(NotFound, match=f"there is no job {name} of ann"):
                await ann.jobs(cursor=cursor_of(name))


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
        for name in (job, "none-1"):  # Nobody learns which names others use.
            with pytest.raises(NotFound, match=f"there is no job {name} of bob"):
                await bob.job(name)
    async with AsyncClient(clinics.url) as nobody:
        assert (await nobody.session()).you is None
        with pytest.raises(Refused, match="not signed in"):
            await nobody.network()
        assert (await nobody.openapi())["openapi"] == "3.1.0"


def followed(client: AsyncClient) -> tuple[list[str], asyncio.Task[None]]:
    """The kinds of a client's events as they come, and the task that waits for them."""
    seen: list[str] = []

    async def follow() -> None:
        async for event in client.events():
            seen.append(event.kind)

    return seen, asyncio.create_task(follow())


async def test_events_go_on_after_the_control_centre_was_away(clinics: Room) -> None:
    async with AsyncClient(clinics.url, clinics.token("ann")) as ann:
        seen, following = followed(ann)
        await until(lambda: clinics.readers() == 1)
        await clinics.restart()
        await until(lambda: "reset" in seen)
        following.cancel()


async def test_since_when_a_site_is_alive_is_unknown_after_a_restart_of_the_control_centre(
    clinics: Room,
) -> None:
    async with AsyncClient(clinics.url, clinics.token("ann")) as ann:
        assert (await ann.site("east")).since_s is not None
        await clinics.restart()
        await until(lambda: "east" in clinics.center.center.snapshot().alive())
        assert (await ann.site("east")).since_s is None, "it was there before"


async def test_events_go_on_although_nobody_answered_for_long(
    clinics: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(events, "_LONGEST_PAUSE_S", 0.01)
    tries = 0
    lines = Transport.lines

    def counted(self: Transport, path: str, **headers: str) -> AsyncIterator[str]:
        nonlocal tries
        tries += 1
        return lines(self, path, **headers)

    monkeypatch.setattr(Transport, "lines", counted)
    async with AsyncClient(clinics.url, clinics.token("ann")) as ann:
        seen, following = followed(ann)
        await until(lambda: clinics.readers() == 1)
        async with clinics.away():
            before = tries
            await until(lambda: tries >= before + 3 or following.done())
        await until(lambda: "reset" in seen or following.done())
        assert not following.done()
        following.cancel()


async def test_events_go_on_although_a_proxy_answers_for_the_control_centre(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "_FIRST_PAUSE_S", 0.0)
    event = b"event: retired\nid: 0badcafe-1\nat: 7.5\ndata: {}\n\n"
    statuses = iter((200, 502, 503, 504, 200))

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        status = next(statuses)
        body = event if status == 200 else b"<html>Bad Gateway</html>"
        head = f"HTTP/1.1 {status} -\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with AsyncClient(url) as client:
        told = client.events()
        assert [(await anext(told)).at_s for _ in range(2)] == [7.5, 7.5]
    server.close()


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_who_asks_a_proxy_before_nobody_is_told(status: int) -> None:
    error = _error(status, b"<html>Bad Gateway</html>")
    assert isinstance(error, Unreachable)
    assert str(status) in error.problem


async def test_who_asks_for_events_where_nobody_is_is_told() -> None:
    async with AsyncClient("http://127.0.0.1:1") as client:
        with pytest.raises(Unreachable):
            await anext(client.events())


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


def test_a_closed_client_says_that_it_is_closed(recwarn: pytest.WarningsRecorder) -> None:
    client = Client("http://127.0.0.1:1", "none")
    client.close()
    with pytest.raises(RuntimeError, match="this client is closed"):
        client.network()
    gc.collect()
    assert not [one for one in recwarn if "'AsyncClient.network' was never" in str(one.message)]
