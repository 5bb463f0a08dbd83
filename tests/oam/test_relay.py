"""Requests of the fabric that come by HTTP: passed on as they were signed, or in a token's name."""

from __future__ import annotations

import asyncio
import inspect
import re
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daitn.client import AsyncClient
from daitn.client.carrier import HttpCarrier
from daitn.identity.certificates import requested
from daitn.identity.envelopes import Purpose, enclose
from daitn.identity.keys import SigningKey
from daitn.identity.network import NetworkFolder
from daitn.oam.api import commanding, reading
from daitn.objects.errors import InvalidInput, NotFound, Refused, Unreachable, Unserved
from daitn.objects.identifiers import JobId, SiteId
from daitn.objects.jobs import JobView
from daitn.objects.messages import CertificateQuestion, RosterAnswer, RosterQuestion
from daitn.objects.models import CHUNK_BYTES
from daitn.objects.requests import (
    AssessIntent,
    JobList,
    JobQuery,
    NetworkFacts,
    SubmitIntent,
)
from daitn.objects.roster import Kind, Member
from daitn.objects.steering import Steer
from daitn.objects.value import ValueQuestion
from daitn.objects.wire import decode, encode
from daitn.tools.fabric import keys
from daitn.tools.fabric.authority import CENTER_READING, CENTER_VERBS, READING, SITE_VERBS
from daitn.tools.fabric.caller import caller
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.fabric.signed import SignedFabric
from daitn.topology.snapshot import NodeList
from tests.scenes.control_room import NETWORK, Room, intent, room
from tests.scenes.waiting import PATIENCE_S, until

ALL = encode(JobQuery(job=JobId("")))
NETWORK_KEY = keys.center_do("network")


@pytest.fixture
async def clinics(tmp_path: Path) -> AsyncIterator[Room]:
    async with room(tmp_path) as made:
        await made.site("east")
        await until(lambda: made.center.center.snapshot().alive())
        yield made


def signing(clinics: Room, name: str, client: AsyncClient) -> SignedFabric:
    """The fabric through a client, as a person speaks on it."""
    return SignedFabric(HttpCarrier(client), clinics.key(name), NETWORK, clinics.roster.members)


async def ask(fabric: Fabric, key: str, payload: bytes = ALL) -> bytes:
    return await fabric.request(key, payload, timeout_s=PATIENCE_S)


async def test_what_a_member_signed_is_answered_as_over_the_fabric(clinics: Room) -> None:
    async with AsyncClient(clinics.url, clinics.token("ann")) as client:
        fabric = signing(clinics, "ann", client)
        assert decode(await ask(fabric, NETWORK_KEY), NetworkFacts).network == NETWORK
        wanted = SubmitIntent(intent=intent(), insist=True, order=clinics.order(intent()))
        job = decode(await ask(fabric, keys.center_do("submit"), encode(wanted)), JobView).job
        assert (await client.job(job)).owner == "ann"
        with pytest.raises(NotFound):
            await ask(fabric, keys.center_do("cancel"), encode(JobQuery(job=JobId("none-1"))))
        with pytest.raises(Refused, match="may not do this"):
            await ask(fabric, keys.center_do("steer"), encode(Steer()))
        with pytest.raises(Unserved, match="nobody serves daitn/site/west"):
            await ask(fabric, keys.site_do(SiteId("west"), "describe"), b"")
        digest = await ask(fabric, keys.center_do("store"), bytes(CHUNK_BYTES))
        assert len(digest) > 20
        with pytest.raises(InvalidInput, match="at most"):
            await ask(fabric, keys.center_do("store"), bytes(CHUNK_BYTES + 1))
    async with AsyncClient(clinics.url, clinics.token("bob")) as client:
        with pytest.raises(NotFound, match=f"there is no job {job} of bob"):
            await ask(
                signing(clinics, "bob", client), keys.center_do("jobs"), encode(JobQuery(job=job))
            )


async def test_a_site_hears_who_signed_and_not_who_passed_it_on(clinics: Room) -> None:
    heard: list[str] = []

    async def on_cordon(key: str, payload: bytes) -> bytes:
        member = caller()
        heard.append(f"{member.kind} {member.name}" if member else "")
        return payload

    await clinics.sites["east"].fabric.serve(keys.site_do(SiteId("east"), "cordon"), on_cordon)
    async with AsyncClient(clinics.url, clinics.token("ann")) as client:
        fabric = signing(clinics, "ann", client)
        assert await ask(fabric, keys.site_do(SiteId("east"), "cordon"), b"x") == b"x"

        async def taken() -> bytes:
            return await fabric.request_bulk(
                keys.site_do(SiteId("east"), "cordon"), b"y", timeout_s=PATIENCE_S, take=bytes
            )

        assert await taken() == b"y"
        assert heard == ["owner ann"] * 2
        with pytest.raises(Refused, match="not a request of the signed-in member"):
            await ask(signing(clinics, "bob", client), NETWORK_KEY)
        publication = enclose(
            clinics.key("ann"), NETWORK, NETWORK_KEY, Purpose.PUBLICATION, ALL, time.time()
        )
        with pytest.raises(Refused, match="not a request"):
            await client.relay(encode(publication), NETWORK_KEY)
        with pytest.raises(NotFound, match="no request can be made"):
            await client.relay(ALL, "daitn/center/advice")
        with pytest.raises(NotFound, match="no request can be made"):
            await client.relay(ALL, "daitn/site/*/do/cordon")
        for refused in (fabric.subscribe, fabric.watch):
            with pytest.raises(InvalidInput, match="accepts only requests"):
                await refused("daitn/**", None)  # type: ignore[arg-type]


async def test_a_token_alone_gets_no_certificate(clinics: Room, tmp_path: Path) -> None:
    """It would open the fabric for as long as the membership lasts, for a token of minutes."""
    question = encode(CertificateQuestion(request=requested(tmp_path / "tls")))
    key = keys.center_do("certify")
    async with AsyncClient(clinics.url, clinics.token("ann")) as client:
        with pytest.raises(Refused, match="the request is unsigned"):
            await ask(HttpCarrier(client), key, question)


async def test_a_token_alone_asks_what_it_may(clinics: Room) -> None:
    async with AsyncClient(clinics.url, clinics.token("ann")) as client:
        carrier = HttpCarrier(client)
        nodes = decode(await ask(carrier, keys.center_do("nodes")), NodeList).nodes
        assert [node.descriptor.site for node in nodes] == ["east"]
        wanted = encode(SubmitIntent(intent=intent(), insist=True, order=clinics.order(intent())))
        assert decode(await ask(carrier, keys.center_do("submit"), wanted), JobView).owner == "ann"
        with pytest.raises(Refused, match="owner ann may not ask for steer"):
            await ask(carrier, keys.center_do("steer"), encode(Steer()))
    async with AsyncClient(clinics.url, clinics.token("ann", reads_only=True)) as client:
        carrier = HttpCarrier(client)
        assert len(decode(await ask(carrier, keys.center_do("jobs")), JobList).jobs) == 1
        assessing = encode(AssessIntent(intent=intent()))
        assert await ask(carrier, keys.center_do("assess"), assessing)
        (job,) = decode(await ask(carrier, keys.center_do("jobs")), JobList).jobs
        value = keys.center_do("value")
        assert await ask(carrier, value, encode(ValueQuestion(job=job.job)))
        measuring = encode(ValueQuestion(job=job.job, measure=True))
        with pytest.raises(Refused, match="to fetch a model's weights is to take the model along"):
            await ask(carrier, keys.site_do(SiteId("east"), "chunk"))
        for key, question in (
            (keys.center_do("submit"), wanted),
            (keys.site_do(SiteId("east"), "cordon"), b""),
            (value, measuring),
        ):
            with pytest.raises(Refused, match="read-only"):
                await ask(carrier, key, question)
    async with AsyncClient(clinics.url, clinics.token("root", reads_only=True)) as client:
        steer = keys.center_do("steer")
        assert await ask(HttpCarrier(client), steer, encode(Steer()))
        with pytest.raises(Refused, match="read-only"):
            await ask(HttpCarrier(client), steer, encode(Steer(reset=True)))
        at_site = keys.site_do(SiteId("east"), "steer")
        with pytest.raises(Refused, match="steer changes something, but the token is read-only"):
            await ask(HttpCarrier(client), at_site, encode(Steer(reset=True)))
        with pytest.raises(Unreachable, match="nobody serves"):
            await ask(HttpCarrier(client), at_site, encode(Steer()))
    async with AsyncClient(clinics.url) as client:
        with pytest.raises(Refused, match="not signed in"):
            await ask(HttpCarrier(client), NETWORK_KEY)


PEOPLES = {verb for verb, kinds in CENTER_VERBS.items() if kinds & {Kind.OWNER, Kind.OPERATOR}}


async def test_a_member_has_so_many_requests_under_way(clinics: Room) -> None:
    clinics.sites["east"].answering.clear()
    http = clinics.http("ann")
    assessing = encode(AssessIntent(intent=intent()))
    target = f"/api/v1/relay?key={keys.center_do('assess')}"
    waiting = [asyncio.create_task(http.post(target, data=assessing)) for _ in range(33)]
    done, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result().status for task in done] == [429]
    clinics.sites["east"].answering.set()
    assert len(await asyncio.gather(*others)) == 32


@pytest.mark.parametrize(("stated", "told"), [("", "missing"), ("?key=", "empty")])
async def test_a_request_that_names_no_key_is_told_so(
    clinics: Room, stated: str, told: str
) -> None:
    reply = await clinics.http("ann").post(f"/api/v1/relay{stated}", data=b"")
    assert reply.status == 400
    problem = await reply.json()
    assert told in problem["detail"]
    assert problem["field"] == "key"


def test_every_request_of_people_has_a_route_of_its_own() -> None:
    """But for those of commands alone, and one of whose answer a page at a time is asked."""
    source = "".join(map(inspect.getsource, (reading, commanding)))
    assert PEOPLES - set(re.findall(r'\.(?:ask|read)\("(\w+)"', source)) == {
        *("certify", "store", "stored", "nodes")
    }


def test_every_request_of_people_is_known_to_read_or_to_change() -> None:
    """A new verb is one for which a token for reading is not enough, unless it is listed."""
    assert {
        *("submit", "cancel", "resume", "store", "deploy", "retire", "steer", "value", "certify")
    } == PEOPLES - CENTER_READING
    assert PEOPLES >= CENTER_READING
    assert set(SITE_VERBS) > READING


async def test_rosters_come_and_go(clinics: Room, tmp_path: Path) -> None:
    """As where an owner's key was just made: the control centre hears of it before it is asked."""
    shutil.copytree(tmp_path / "network", tmp_path / "elsewhere")
    network = NetworkFolder(tmp_path / "elsewhere")
    key = SigningKey.generate()
    member = Member(
        name="eve", kind=Kind.OWNER, public_key=key.public, until_s=time.time() + 1000.0
    )
    network.admit(member, now_s=time.time())
    async with AsyncClient(clinics.url, clinics.token("root")) as client:
        carrier = HttpCarrier(client)
        question = encode(RosterQuestion(version=0))
        before = decode(await ask(carrier, keys.NEWER_ROSTER, question), RosterAnswer)
        assert before.newer is not None
        await carrier.publish(keys.ROSTER, encode(network.file().signed))
        after = decode(await ask(carrier, keys.NEWER_ROSTER, question), RosterAnswer)
        assert after.version == before.version + 1
        assert clinics.roster.member(Kind.OWNER, "eve") is not None
        with pytest.raises(InvalidInput, match="publishes"):
            await carrier.publish(keys.center_advice(), b"")


async def test_who_asks_too_often_waits(tmp_path: Path) -> None:
    async with (
        room(tmp_path, requests_per_s=5.0) as made,
        AsyncClient(made.url, made.token("ann")) as client,
    ):
        carrier = HttpCarrier(client)
        told = await asyncio.gather(*(ask(carrier, NETWORK_KEY) for _ in range(25)))
        assert len(told) == 25
