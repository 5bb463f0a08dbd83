"""Events: what changes reaches every reader in order, once, and a reader that returns misses
nothing or is told so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from msgspec.structs import replace

from daitn.client import AsyncClient
from daitn.oam.api import events
from daitn.oam.api.answers import PastKind
from daitn.oam.api.events import EVENT_KINDS, EventLog
from daitn.objects.cordons import Cordon
from daitn.objects.requests import SubmitIntent
from tests.scenes.control_room import Room, intent, room
from tests.scenes.waiting import PATIENCE_S, until

from .test_api import got, posted


@pytest.fixture
async def clinics(tmp_path: Path) -> AsyncIterator[Room]:
    async with room(tmp_path) as made:
        yield made


class Reading:
    """A reader of events."""

    def __init__(self, http: aiohttp.ClientSession, after: str = "") -> None:
        self._http = http
        self._after = after
        self.seen: list[tuple[str, str, Any]] = []
        """Kind, id and data."""

    async def __aenter__(self) -> Reading:
        headers = {"last-event-id": self._after} if self._after else {}
        self._reply = await self._http.get("/api/v1/events", headers=headers)
        assert self._reply.status == 200
        assert self._reply.headers["content-type"] == "text/event-stream"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._reply.close()

    async def until(self, kind: str, holds: Any = lambda data: True) -> tuple[str, Any]:
        """Read up to an event; returns its id and data."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                event: dict[str, str] = {}
                while line := (await self._reply.content.readline()).decode().rstrip("\n"):
                    name, _, value = line.partition(": ")
                    event[name] = value
                if "event" not in event:
                    continue
                data = json.loads(event["data"])
                self.seen.append((event["event"], event["id"], data))
                if event["event"] == kind and holds(data):
                    return event["id"], data


async def submitted(clinics: Room, name: str, owner: str) -> str:
    wanted = intent(name, owner)
    body = SubmitIntent(intent=wanted, order=clinics.order(wanted), insist=True)
    _, told = await posted(clinics.http(owner), "jobs", body)
    job: str = told["job"]
    return job


async def test_readers_see_sites_come_and_go_and_their_own_jobs(clinics: Room) -> None:
    await clinics.site("east")
    await until(lambda: clinics.center.center.snapshot().alive())
    async with clinics.http("ann").get("/api/v1/map") as reply:
        shown = await reply.json()
    async with (
        Reading(clinics.http("ann"), shown["event"]) as ann,
        Reading(clinics.http("root"), shown["event"]) as root,
    ):
        await clinics.site("west")
        for reader in (ann, root):
            _, news = await reader.until("site")
            assert (news["site"], news["state"]) == ("west", "alive")
            _, delta = await reader.until("map")
            assert delta["added"]["name"] == ["west"]
        theirs = await submitted(clinics, "theirs", "bob")
        mine = await submitted(clinics, "mine", "ann")
        await ann.until("job", lambda data: data["job"] == mine)
        await root.until("job", lambda data: data["job"] == theirs)
        await clinics.lose("west")
        for reader in (ann, root):
            _, news = await reader.until("site")
            assert (news["site"], news["state"]) == ("west", "lost")
    assert theirs not in {data.get("job") for _, _, data in ann.seen}


async def test_what_happened_is_told_page_by_page_to_whom_it_concerns(clinics: Room) -> None:
    await clinics.site("east")
    await until(lambda: clinics.center.center.snapshot().alive())
    theirs = await submitted(clinics, "theirs", "bob")
    mine = await submitted(clinics, "mine", "ann")
    for name, jobs in (("ann", {mine}), ("bob", {theirs}), ("root", {mine, theirs})):
        whole = await got(clinics.http(name), "history")
        assert {one["data"]["job"] for one in whole["items"] if one["kind"] == "job"} == jobs
        times = [one["at_s"] for one in whole["items"]]
        assert times == sorted(times, reverse=True)
        parts, cursor = [], ""
        while cursor is not None:
            query = {"limit": 1, **({"cursor": cursor} if cursor else {})}
            part = await got(clinics.http(name), "history", **query)
            parts += part["items"]
            cursor = part["next"]
        assert parts[-len(whole["items"]) :] == whole["items"], "others may have come before them"


def test_all_that_is_kept_as_history_is_found_by_its_kind() -> None:
    """Changes of the map, and that events are missing, mean nothing by themselves."""
    assert {*PastKind} == EVENT_KINDS.keys() - {"map", "reset"}


async def test_events_of_one_kind_are_found_behind_many_of_another(clinics: Room) -> None:
    api = clinics.center.api
    assert api is not None
    api.log.put("site", {"site": "east", "state": "lost"})
    for number in range(50):
        api.log.put("deployment", {"name": f"n{number}"})
    found = await got(clinics.http("root"), "history", limit=10, kind="site")
    assert [one["data"]["site"] for one in found["items"]][-1] == "east"
    assert {one["kind"] for one in found["items"]} == {"site"}
    assert found["next"] is None


async def test_readers_see_sites_taken_out_of_service_and_back(clinics: Room) -> None:
    east = await clinics.site("east")
    await until(lambda: clinics.center.center.snapshot().alive())
    async with clinics.http("ann").get("/api/v1/map") as reply:
        shown = await reply.json()
    cordon = Cordon(by="root", since_s=1.0, reason="new disks")
    async with Reading(clinics.http("ann"), shown["event"]) as reader:
        for change, state, detail in (
            ({"cordon": cordon}, "cordoned", "by root: new disks"),
            ({"cordon": replace(cordon, draining=True)}, "draining", "by root: new disks"),
            ({}, "in service", ""),
        ):
            await east.describes_anew(**change)
            _, news = await reader.until("site")
            assert (news["site"], news["state"], news["detail"]) == ("east", state, detail)


async def test_who_returns_goes_on_where_it_was(clinics: Room) -> None:
    await clinics.site("east")
    await until(lambda: clinics.center.center.snapshot().alive())
    async with Reading(clinics.http("ann")) as reader:
        first = await submitted(clinics, "first", "ann")
        last, _ = await reader.until("job", lambda data: data["job"] == first)
    second = await submitted(clinics, "second", "ann")
    async with Reading(clinics.http("ann"), last) as again:
        await again.until("job", lambda data: data["job"] == second)
    assert "reset" not in {kind for kind, _, _ in again.seen}
    async with Reading(clinics.http("ann"), "0badcafe-1") as other:
        await other.until("reset")
    assert [kind for kind, _, _ in other.seen] == ["reset"]


async def test_a_reader_hears_that_the_server_lives_while_only_others_see_events(
    clinics: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_HEARTBEAT_S", 0.05)
    api = clinics.center.api
    assert api is not None

    async def others() -> None:
        while True:
            api.log.put("job", {}, owner="ann")
            await asyncio.sleep(0)

    async with clinics.http("bob").get("/api/v1/events") as reply:
        happening = asyncio.create_task(others())
        async with asyncio.timeout(PATIENCE_S):
            for start in (b"retry: ", b"id: ", b"\n", b"id: ", b"\n", b"id: ", b"\n"):
                assert (await reply.content.readline()).startswith(start)
        happening.cancel()


async def test_all_that_is_remembered_is_told_with_its_time(clinics: Room) -> None:
    api = clinics.center.api
    assert api is not None
    api.log.put("retired", {"name": "n"})
    (past,) = api.log.past(1, None, lambda owner: True)
    async with AsyncClient(clinics.url, clinics.token("ann")) as ann:
        event = await anext(ann.events("start"))
    assert (event.kind, event.id, event.at_s) == ("retired", past.id, past.at_s)


async def test_a_member_that_is_revoked_hears_no_more(clinics: Room) -> None:
    async with Reading(clinics.http("ann")) as reader:
        await clinics.site("east")
        await until(lambda: clinics.center.center.snapshot().alive())
        await submitted(clinics, "mine", "ann")
        await reader.until("job")
        clinics.revoke("ann")
        await submitted(clinics, "theirs", "bob")
        async with asyncio.timeout(PATIENCE_S):
            rest = await reader._reply.content.read()
    assert b"theirs" not in rest


def test_a_log_forgets_the_oldest_and_says_so() -> None:
    log = EventLog()
    log.put("job", {"n": 0})
    old = log.place(log.last)
    assert old is not None
    for number in range(10_000):
        log.put("job", {"n": number})
    assert log.after(old, lambda owner: True) is None
    place = log.place(log.last)
    assert place is not None
    assert log.after(place, lambda owner: True) == (b"", place)
    log.put("job", {"n": "new"}, owner="ann")
    assert log.after(place, lambda owner: owner is None) == (b"", place + 1)
    found = log.after(place, lambda owner: True)
    assert found is not None
    assert found[0].endswith(b'data: {"n":"new"}\n\n')
    for unknown in ("", "x", f"{log.name}-", f"{log.name}-99999", f"{log.name}--1", "other-1"):
        assert (log.place(unknown) is None) == bool(unknown)


async def test_a_slow_reader_keeps_nothing_and_is_told(clinics: Room) -> None:
    """It is a place in the log: when that is gone, it reads anew."""
    api = clinics.center.api
    assert api is not None
    async with Reading(clinics.http("root")) as reader:
        await until(lambda: api.readers == 1)
        for number in range(20_000):
            api.log.put("site", {"site": "s" * 100, "number": number})
        await reader.until("reset")
    await until(lambda: api.readers == 0)


async def test_what_happens_while_nobody_reads_is_told_later_with_its_time(clinics: Room) -> None:
    """However soon one change follows another. Sites that were there before come back unsaid."""
    told: list[tuple[str, str, str]] = []

    async def tell(client: AsyncClient) -> list[tuple[str, str, str]]:
        items = (await client.history()).items
        told[:] = [(e.data["site"], e.data["state"], e.data.get("detail", "")) for e in items]
        assert all(abs(e.at_s - e.data["at_s"]) < 0.1 for e in items)
        return told[::-1]

    center = clinics.center.center
    east = await clinics.site("east")
    await until(lambda: "east" in center.snapshot().alive())
    first, second = (Cordon(by="root", since_s=1.0, reason=reason) for reason in ("one", "two"))
    for cordon in (first, msgspec.UNSET, second, msgspec.UNSET):
        await east.describes_anew(cordon=cordon)
    await clinics.lose("east")
    await until(lambda: "east" not in center.snapshot().alive())
    async with AsyncClient(clinics.url, clinics.token("root")) as root:
        assert await tell(root) == [
            ("east", "alive", ""),
            ("east", "cordoned", "by root: one"),
            ("east", "in service", ""),
            ("east", "cordoned", "by root: two"),
            ("east", "in service", ""),
            ("east", "lost", ""),
        ]
    await clinics.site("east")
    await until(lambda: "east" in center.snapshot().alive())
    await clinics.restart()
    await clinics.site("west")
    center = clinics.center.center
    await until(lambda: {"east", "west"} <= set(center.snapshot().alive()))
    async with AsyncClient(clinics.url, clinics.token("root")) as root:
        assert await tell(root) == [("west", "alive", "")]
