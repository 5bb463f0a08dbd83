"""What the API tells, and to whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from daitn.cli.answering import answering_url
from daitn.client import AsyncClient
from daitn.control.queries.engine import Qirce
from daitn.identity.keys import SigningKey
from daitn.identity.orders import sign_order
from daitn.node.gateway.query_log import QueryLog
from daitn.oam.api import access_control
from daitn.oam.api.pagination import cursor_of
from daitn.oam.api.reading_requests import _unknown
from daitn.objects.cordons import Cordon, CordonChange, CordonQuestion, CordonReport
from daitn.objects.deployments import Api
from daitn.objects.descriptors import Role
from daitn.objects.errors import NotFound, Unreachable
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import QueryRecord, QueryStatus, Strategy
from daitn.objects.requests import ExplainQuery, QueriesWanted, QueryList, SubmitIntent
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.fabric.caller import caller, check_owner
from daitn.tools.journal.leadership import LeadershipTurn, Term
from tests.scenes.control_room import Room, intent, room
from tests.scenes.ports import free_port
from tests.scenes.waiting import until

JSON = {"content-type": "application/json"}


@pytest.fixture
async def clinics(tmp_path: Path) -> AsyncIterator[Room]:
    async with room(tmp_path) as made:
        yield made


_NO_PLACES = (
    *((of, key) for of in ("sites", "jobs") for key in ("\0", "a b", "gate:3")),
    *(("ledger", key) for key in ("east", "-1", "1.5", "\u00b2", "\u0663")),
    *(("queries", key) for key in ("east", "nan x", "inf x", "3.5", "1e999 x")),
    *(("history", key) for key in ("east", "1", "0badcafe-", "0badcafe--1")),
)
"""Lists, and where no page of them ended: other lists' cursors, or invented ones."""


async def got(http: aiohttp.ClientSession, path: str, **query: Any) -> Any:
    async with http.get(f"/api/v1/{path}", params=query) as reply:
        told = await reply.json()
        assert reply.status == 200, told
        return told


async def test_an_address_that_nobody_stated_is_the_same_after_a_restart(tmp_path: Path) -> None:
    """Also of the second control centre of a machine, for which the usual port was taken."""
    async with (
        room(tmp_path / "first", listen=None) as first,
        room(tmp_path / "second", listen=None) as second,
    ):
        address = second.url
        assert address != first.url
        await second.restart()
        assert second.url == address


async def refused(http: aiohttp.ClientSession, path: str, **query: Any) -> tuple[int, Any]:
    async with http.get(f"/api/v1/{path}", params=query) as reply:
        assert reply.headers["content-type"] == "application/problem+json"
        return reply.status, await reply.json()


async def posted(
    http: aiohttp.ClientSession, path: str, body: Any = None, **headers: str
) -> tuple[int, Any]:
    data = b"" if body is None else msgspec.json.encode(body)
    async with http.post(f"/api/v1/{path}", data=data, headers=JSON | headers) as reply:
        return reply.status, await reply.json()


async def submitted(clinics: Room, name: str, owner: str = "ann") -> Any:
    wanted = intent(name, owner)
    body = SubmitIntent(intent=wanted, order=clinics.order(wanted), insist=True)
    status, told = await posted(clinics.http(owner), "jobs", body)
    assert status == 201, told
    return told


async def test_who_leads_no_more_keeps_nobody_from_the_one_that_leads(clinics: Room) -> None:
    """Not with an answer, a page or a refusal."""
    term = Term(7)
    clinics.center.center._turn = LeadershipTurn(term, tuple)
    http = clinics.http("ann")
    paths = ("/api/v1/session", "/api/v1/network", "/api/v1/nowhere", "/", "/readyz")
    for path in paths:
        async with http.get(path) as reply:
            told = await reply.json()
            assert (reply.status, told["type"]) == (503, "urn:daitn:problem:Unreachable"), path
    with pytest.raises(Unreachable):
        await answering_url(f"{clinics.url},http://127.0.0.1:{free_port()}")
    async with http.get("/healthz") as reply:
        assert reply.status == 200
    term.renew(clock.elapsed_s())
    assert await answering_url(f"{clinics.url},http://127.0.0.1:{free_port()}") == clinics.url


async def test_the_network_says_who_asks(clinics: Room) -> None:
    told = await got(clinics.http("ann"), "network")
    assert (told["network"], told["center"], told["api"]) == ("clinics", "center", clinics.url)
    assert told["you"]["member"] == "ann"
    assert told["you"]["role"] == "owner"
    reader = clinics.http(authorization=f"Bearer {clinics.token('root', reads_only=True)}")
    you = (await got(reader, "network"))["you"]
    assert (you["kind"], you["role"]) == ("operator", "viewer")


async def test_sites_come_page_by_page_and_no_page_moves_when_others_join(clinics: Room) -> None:
    for name in ("delta", "alpha", "echo", "bravo"):
        await clinics.site(name)
    http = clinics.http("ann")
    await until(lambda: len(clinics.center.center.snapshot().alive()) == 4)
    first = await got(http, "sites", limit=2)
    assert [one["descriptor"]["site"] for one in first["items"]] == ["alpha", "bravo"]
    await clinics.site("aardvark")
    await clinics.site("charlie")
    await until(lambda: len(clinics.center.center.snapshot().alive()) == 6)
    second = await got(http, "sites", limit=2, cursor=first["next"])
    assert [one["descriptor"]["site"] for one in second["items"]] == ["charlie", "delta"]
    third = await got(http, "sites", limit=2, cursor=second["next"])
    assert [one["descriptor"]["site"] for one in third["items"]] == ["echo"]
    assert third["next"] is None
    assert (await got(http, "sites/echo"))["descriptor"]["owner"] == "echo"
    await clinics.lose("echo")
    await until(lambda: len(clinics.center.center.snapshot().alive()) == 5)
    lost = await got(http, "sites", alive="false")
    assert [one["descriptor"]["site"] for one in lost["items"]] == ["echo"]
    assert (await got(http, "sites", role="gateway"))["items"] == []


async def test_an_owner_sees_and_stops_its_own_jobs_alone(clinics: Room) -> None:
    await clinics.site("east")
    await until(lambda: clinics.center.center.snapshot().alive())
    mine = (await submitted(clinics, "mine", "ann"))["job"]
    theirs = (await submitted(clinics, "theirs", "bob"))["job"]
    ann, root = clinics.http("ann"), clinics.http("root")
    assert [one["job"] for one in (await got(ann, "jobs"))["items"]] == [mine]
    assert [one["job"] for one in (await got(root, "jobs"))["items"]] == [theirs, mine]
    page = await got(root, "jobs", limit=1)
    assert [one["job"] for one in page["items"]] == [theirs]
    rest = await got(root, "jobs", limit=1, cursor=page["next"])
    assert [one["job"] for one in rest["items"]] == [mine]
    assert rest["next"] is None
    for path in ("", "/intent", "/decisions", "/lineage", "/relevant", "/report"):
        status, problem = await refused(ann, f"jobs/{theirs}{path}")
        assert status == 404, "as if there were none"
        assert problem["field"] == "job", path
    assert (await posted(ann, f"jobs/{theirs}/cancel"))[0] == 404
    reader = clinics.http(authorization=f"Bearer {clinics.token('ann', reads_only=True)}")
    status, problem = await posted(reader, f"jobs/{mine}/cancel")
    assert (status, "viewer" in problem["detail"]) == (403, True)
    status, cancelled = await posted(ann, f"jobs/{mine}/cancel")
    assert (status, cancelled["state"]) == (200, "cancelled")
    assert (await got(ann, f"jobs/{mine}"))["state"] == "cancelled"
    assert (await got(ann, f"jobs/{mine}/intent"))["name"] == "mine"
    relevant = await got(ann, f"jobs/{mine}/relevant")
    assert [one["site"] for one in relevant["options"]] == ["east"]
    assert (await got(ann, "jobs", state="cancelled"))["items"][0]["job"] == mine


async def test_a_report_is_a_page_that_can_do_nothing(clinics: Room) -> None:
    """What others wrote stands in it, on the dashboard's own address."""
    await clinics.site("east")
    await until(lambda: clinics.center.center.snapshot().alive())
    job = (await submitted(clinics, "mine", "ann"))["job"]
    async with clinics.http("ann").get(f"/api/v1/jobs/{job}/report") as reply:
        assert (reply.status, reply.content_type, reply.charset) == (200, "text/html", "utf-8")
        said = {part.strip() for part in reply.headers["content-security-policy"].split(";")}
        assert {"default-src 'none'", "sandbox"} <= said
        page = await reply.text()
    assert job in page
    assert "no model was measured" in page
    async with AsyncClient(clinics.url, clinics.token("ann")) as ann:
        assert (await ann.report(job)).startswith("<!doctype html>")
        with pytest.raises(NotFound) as raised:
            await ann.report("nobody-1")
    assert raised.value.field == "job"


async def test_an_order_handed_in_again_is_the_same_job(clinics: Room) -> None:
    await clinics.site("east")
    await until(lambda: clinics.center.center.snapshot().alive())
    wanted = intent()
    body = SubmitIntent(intent=wanted, order=clinics.order(wanted), insist=True)
    ann = clinics.http("ann")
    first, second = [await posted(ann, "jobs", body) for _ in range(2)]
    assert first[1]["job"] == second[1]["job"]
    other = SubmitIntent(intent=intent("other"), order=body.order)
    assert (await posted(ann, "jobs", other))[0] == 403
    assert (await posted(clinics.http("bob"), "jobs", body))[0] == 403


async def test_an_intent_is_assessed_and_bad_ones_name_the_field(clinics: Room) -> None:
    await clinics.site("east")
    await until(lambda: clinics.center.center.snapshot().alive())
    reader = clinics.http(authorization=f"Bearer {clinics.token('ann', reads_only=True)}")
    status, told = await posted(reader, "assessments", {"intent": intent()})
    assert status == 200
    assert "feasible" in told
    plain = msgspec.to_builtins(intent())
    plain["objectives"][0]["at_least"] = "much"
    status, told = await posted(reader, "assessments", {"intent": plain})
    assert (status, told["field"]) == (422, "intent.objectives[0].at_least")
    plain = msgspec.to_builtins(intent(model={"recipe": "nothing"}))
    status, told = await posted(reader, "assessments", {"intent": plain})
    assert (status, told["field"]) == (404, "model.recipe")


async def test_gateways_answer_whoever_signed_the_token(clinics: Room) -> None:
    """The record of a query is shown to its owner and to operators, as the gateway decides."""
    record = QueryRecord(
        id="door:1",
        asked_at_s=5.0,
        owner="ann",
        api=Api.CHAT,
        model_wanted="auto",
        topic="",
        status=QueryStatus.ANSWERED,
        http_status=200,
        strategy=Strategy.SINGLE,
    )

    async def on_queries(key: str, payload: bytes) -> bytes:
        assert decode(payload, QueriesWanted).limit == 8, "one more tells whether there are more"
        member = caller()
        assert member is not None
        shown = (record,) if member.name in ("ann", "root") else ()
        return encode(QueryList(queries=shown))

    async def on_explain(key: str, payload: bytes) -> bytes:
        assert decode(payload, ExplainQuery).query == "door:1"
        check_owner("ann", "query door:1")
        raise NotFound("it is too old", field="id")

    door = await clinics.site("door", Role.GATEWAY)
    handlers = {"queries": on_queries, "explain": on_explain}
    await door.answers(clinics.roster.grants(), handlers)
    await until(lambda: clinics.center.center.snapshot().alive())
    for name, ids in (("ann", ["door:1"]), ("bob", []), ("root", ["door:1"])):
        found = await got(clinics.http(name), "queries", limit=7)
        assert [one["id"] for one in found["items"]] == ids
    assert (await refused(clinics.http("ann"), "queries/door/1"))[0] == 404
    assert (await refused(clinics.http("bob"), "queries/door/1"))[0] == 403
    assert (await refused(clinics.http("ann"), "queries/nowhere/1"))[0] == 404


async def test_a_site_is_taken_out_of_service_and_back_by_whom_it_lets(clinics: Room) -> None:
    """The site decides, and hears in whose name the control centre asks."""
    asked: list[tuple[str, CordonQuestion]] = []

    async def on_cordon(key: str, payload: bytes) -> bytes:
        check_owner("ann", "the site east")
        member = caller()
        assert member is not None
        asked.append((member.name, decode(payload, CordonQuestion)))
        cordon = Cordon(by=member.name, since_s=1.0, reason="new disks", draining=True)
        return encode(CordonReport(site=SiteId("east"), cordon=cordon, visits=2))

    east = await clinics.site("east")
    await east.answers(clinics.roster.grants(), {"cordon": on_cordon})
    await until(lambda: clinics.center.center.snapshot().alive())
    drain = CordonQuestion(change=CordonChange.DRAIN, reason="new disks")
    for name in ("ann", "root"):
        status, told = await posted(clinics.http(name), "sites/east/cordon", drain)
        assert (status, told["cordon"]["by"], told["visits"]) == (200, name, 2)
        assert asked.pop() == (name, drain)
        assert (await got(clinics.http(name), "sites/east/cordon"))["visits"] == 2
        assert asked.pop() == (name, CordonQuestion())
    assert (await posted(clinics.http("bob"), "sites/east/cordon", drain))[0] == 403
    reader = clinics.http(authorization=f"Bearer {clinics.token('root', reads_only=True)}")
    assert (await posted(reader, "sites/east/cordon", drain))[0] == 403
    assert (await posted(clinics.http("root"), "sites/nowhere/cordon", drain))[0] == 404
    misspelt = {"change": "drain", "raeson": "new disks"}
    status, told = await posted(clinics.http("root"), "sites/east/cordon", misspelt)
    assert (status, told["field"]) == (422, "raeson")
    status, told = await posted(clinics.http("root"), "sites/east/cordon", {"change": "stop"})
    assert (status, told["field"]) == (422, "change")
    assert not asked


async def test_who_cancelled_a_job_is_told(clinics: Room) -> None:
    """Also where an operator did, who is not its owner."""
    await clinics.site("east")
    await until(lambda: clinics.center.center.snapshot().alive())
    for name, told in (("ann", "its owner cancelled it"), ("root", "root cancelled it")):
        job = await submitted(clinics, f"qa-{name}")
        status, ended = await posted(clinics.http(name), f"jobs/{job['job']}/cancel")
        assert (status, ended["state"], ended["detail"]) == (200, "cancelled", told)


async def test_queries_of_all_gateways_come_page_by_page(clinics: Room) -> None:
    """By when they were asked, whenever they ended; two at the same moment are two."""
    plain: dict[str, object] = {"owner": "ann", "api": "chat", "model_wanted": "", "topic": ""}
    plain |= {"status": "answered", "http_status": 200, "strategy": "single"}
    times = {"door": [1.0, 5.0, 3.0, 3.0], "gate": [3.0, 9.0, 2.0]}
    for name, asked_at_s in times.items():
        log = QueryLog(Qirce())
        for number, at_s in enumerate(asked_at_s):
            one = {**plain, "id": f"{name}:{number}", "asked_at_s": at_s}
            log.record_query(msgspec.convert(one, QueryRecord))

        async def on_queries(key: str, payload: bytes, log: QueryLog = log) -> bytes:
            asked = decode(payload, QueriesWanted)
            return encode(QueryList(queries=log.latest(asked.limit, before=asked.before)))

        site = await clinics.site(name, Role.GATEWAY)
        await site.answers(clinics.roster.grants(), {"queries": on_queries})
    await until(lambda: len(clinics.center.center.snapshot().alive()) == 2)
    http, cursor, seen = clinics.http("ann"), "", list[str]()
    while cursor is not None:
        page = await got(http, "queries", limit=2, **({"cursor": cursor} if cursor else {}))
        seen += [one["id"] for one in page["items"]]
        cursor = page["next"]
    assert seen == ["gate:1", "door:1", "gate:0", "door:3", "door:2", "gate:2", "door:0"]
    of_door = await got(http, "queries", gateway="door", limit=3)
    assert [one["id"] for one in of_door["items"]] == ["door:1", "door:3", "door:2"]


async def test_the_map_has_all_sites_and_links_and_is_sent_once(clinics: Room) -> None:
    east, west = await clinics.site("east"), await clinics.site("west", Role.GATEWAY)
    snapshot = clinics.center.center.snapshot
    await until(lambda: len(snapshot().alive()) == 2)
    await east.senses(0.25, west=0.0123)
    await west.senses(0.5, east=0.2)
    await until(lambda: len(snapshot().links) == 2)
    http = clinics.http("ann")
    async with http.get("/api/v1/map") as reply:
        shown, tag = await reply.json(), reply.headers["etag"]
    sites = shown["sites"]
    assert sites["name"] == ["east", "west"]
    assert sites["load"] == [0.25, 0.5]
    assert sites["state"] == [1, 1]
    roles = [
        {name for bit, name in enumerate(shown["role_names"]) if mask >> bit & 1}
        for mask in sites["roles"]
    ]
    assert roles == [{"data", "compute", "verifier"}, {"gateway"}]
    assert sorted(shown["links"]) == [[0, 1, 0.0123, None], [1, 0, 0.2, None]]
    async with http.get("/api/v1/map", headers={"if-none-match": tag}) as reply:
        assert reply.status == 304


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("jobs?limit=0", 400, "limit"),
        ("jobs?limit=many", 400, "limit"),
        ("jobs?limits=3", 400, "limits"),
        ("jobs?state=bored", 400, "state"),
        ("sites?cursor=!", 400, "cursor"),
        *((f"{of}?cursor={cursor_of(key)}", 400, "cursor") for of, key in _NO_PLACES),
        ("history?kind=map", 400, "kind"),
        ("jobs?owner=", 400, "owner"),
        ("sites?limit=", 400, "limit"),
        ("sites?limits=", 400, "limits"),
        ("sites?limit=1&limit=2", 400, "limit"),
        ("map?limit=3", 400, "limit"),
        ("events?since=3", 400, "since"),
        ("sites/nowhere", 404, "site"),
        ("jobs/none", 404, "job"),
        ("deployments/none", 404, "name"),
        ("nothing", 404, None),
        ("sites%2Feast", 404, None),
        ("jobs%2fnone", 404, None),
        ("jobs/%00", 404, "job"),
        ("jobs/%E2%80%AE", 404, "job"),
    ],
)
async def test_bad_requests_name_the_field(
    clinics: Room, path: str, status: int, field: str | None
) -> None:
    found, problem = await refused(clinics.http("ann"), path)
    assert found == problem["status"] == status
    assert problem.get("field") == field
    assert problem["fix"]


@pytest.mark.parametrize("which", ["site=", "site", "site=east&site=west", "site=&site=east"])
async def test_who_retires_at_one_facility_never_retires_at_all(clinics: Room, which: str) -> None:
    async with clinics.http("root").delete(f"/api/v1/deployments/doctor?{which}") as reply:
        problem = await reply.json()
    assert (reply.status, problem["field"]) == (400, "site")


async def test_prometheus_is_told_what_is_asked(clinics: Room) -> None:
    http = clinics.http("ann")
    await got(http, "network")
    await got(http, "network")
    await refused(http, "sites/nowhere")
    told = {
        (sample.metric.name, *sample.labels): sample.value
        for sample in clinics.center.measured()
        if sample.metric.name.startswith("daitn_api")
    }
    assert told["daitn_api_requests_total", "network", "200"] == 2
    assert told["daitn_api_requests_total", "site", "404"] == 1
    assert told["daitn_api_event_readers",] == 0


async def test_a_wrong_method_says_which_are_right(clinics: Room) -> None:
    async with clinics.http("ann").put("/api/v1/jobs") as reply:
        assert (reply.status, reply.headers["allow"]) == (405, "GET, POST, HEAD")


async def test_who_asks_too_often_is_told_when_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at once; the next one in three hours, however long the first ones take."""
    per_s = 1e-4
    monkeypatch.setattr(access_control, "_BURST_S", 2.0 / per_s)
    async with room(tmp_path, requests_per_s=per_s) as clinics:
        http = clinics.http("ann")
        for _ in range(2):
            await got(http, "network")
        async with http.get("/api/v1/network") as reply:
            assert reply.status == 429
            assert int(reply.headers["retry-after"]) >= 1
        await got(clinics.http("bob"), "network")


async def test_a_request_sent_again_with_its_key_does_nothing_twice(tmp_path: Path) -> None:
    """Without a roster, nothing else tells that two submissions are one."""
    async with room(tmp_path, insecure=True) as clinics:
        await clinics.site("east")
        await until(lambda: clinics.center.center.snapshot().alive())
        http, body = clinics.http(), {"intent": intent(), "insist": True}
        key = {"idempotency-key": "5f0c"}
        first = await posted(http, "jobs", body, **key)
        again = await posted(http, "jobs", body, **key)
        assert first[0] == 201
        assert first == again
        third = {"idempotency-key": "5f0e"}
        pair = [posted(http, "jobs", {"intent": intent("twice")}, **third) for _ in range(2)]
        one, other = await asyncio.gather(*pair)
        assert one == other
        assert one[0] == 201, "sent at the same time, both get the one answer"
        other = await posted(http, "jobs", {"intent": intent("other")}, **key)
        assert (other[0], other[1]["field"]) == (422, "idempotency-key")
        fresh = await posted(http, "jobs", body, **{"idempotency-key": "5f0d"})
        assert fresh[1]["job"] != first[1]["job"]
        assert len((await got(http, "jobs"))["items"]) == 3
        bad = {"intent": intent(model={"recipe": "nothing"})}
        assert (await posted(http, "jobs", bad, **{"idempotency-key": "5f10"}))[0] == 404
        assert (await posted(http, "jobs", body, **{"idempotency-key": "5f10"}))[0] == 201


async def test_an_answer_sent_again_is_readable_for_whoever_sends_again(tmp_path: Path) -> None:
    """Who repeats a request may be another program than the one that got it compressed first."""
    async with room(tmp_path, insecure=True) as clinics:
        await clinics.site("east")
        await until(lambda: clinics.center.center.snapshot().alive())
        http, key = clinics.http(), {"idempotency-key": "5f12"}
        objectives = [
            {"name": f"o{n}", "topic": f"of nobody/{n}", "at_least": 0.5} for n in range(40)
        ]
        body = msgspec.json.encode({"intent": intent(objectives=objectives)})
        answers = []
        for takes in ("gzip", "identity", "gzip"):
            headers = JSON | key | {"accept-encoding": takes}
            async with http.post("/api/v1/assessments", data=body, headers=headers) as reply:
                assert reply.status == 200
                answers.append((reply.headers.get("content-encoding"), await reply.json()))
        assert [coding for coding, _ in answers] == ["gzip", None, "gzip"]
        assert answers[0][1] == answers[1][1] == answers[2][1]


async def test_what_a_client_asked_for_is_done_although_it_left(tmp_path: Path) -> None:
    async with room(tmp_path, insecure=True) as clinics:
        east = await clinics.site("east")
        await until(lambda: clinics.center.center.snapshot().alive())
        http, body, key = clinics.http(), {"intent": intent(), "insist": True}, "5f11"
        east.answering.clear()
        asking = asyncio.create_task(posted(http, "jobs", body, **{"idempotency-key": key}))
        await until(lambda: east.asked)
        asking.cancel()
        east.answering.set()
        status, told = await posted(http, "jobs", body, **{"idempotency-key": key})
        assert status == 201
        assert [one["job"] for one in (await got(http, "jobs"))["items"]] == [told["job"]]


def test_a_misspelt_field_is_found_however_deep() -> None:
    """Messages between processes ignore it: later releases may add some."""
    wanted = intent()
    read = SubmitIntent(intent=wanted, order=sign_order(wanted, "n", 1.0, SigningKey.generate()))
    plain = msgspec.json.decode(msgspec.json.encode(read))
    assert [*_unknown(plain, read)] == []
    plain["order"]["singature"] = ""
    plain["insits"] = True
    plain["intent"]["objectives"][0]["atleast"] = 0.5
    misspelt = ["intent.objectives[0].atleast", "order.singature", "insits"]
    assert sorted(_unknown(plain, read)) == sorted(misspelt)
