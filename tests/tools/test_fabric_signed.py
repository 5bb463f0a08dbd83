"""What a signed fabric refuses: strangers, the wrong role, forgeries, and what was heard before."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from daitn.identity.envelopes import Envelope, Purpose, check_envelope, enclose
from daitn.identity.keys import SigningKey, check_raw_signature
from daitn.objects.descriptors import Role
from daitn.objects.errors import (
    Corrupt,
    DaitnError,
    ErrorReport,
    NotFound,
    Refused,
    StorageFull,
    Unreachable,
)
from daitn.objects.identifiers import SiteId
from daitn.objects.roster import Kind, Member
from daitn.objects.wire import canonical, decode, encode
from daitn.tools.fabric import keys, signed
from daitn.tools.fabric.caller import caller
from daitn.tools.fabric.protocol import Carrier
from daitn.tools.fabric.signed import FRESH_S, SignedFabric
from tests.scenes.waiting import PATIENCE_S, until

from .fabrics import CarrierNetwork, Heard, InMemory, OverZenoh, asked

EAST = SiteId("east")
ECHO = keys.site_do(EAST, "describe")
SENSED = keys.site_sensed(EAST)
NOW_S = 1_700_000_000.0
"""It stands still: a pause makes no message late."""


class Members:
    """A network named `net`, and the members of it."""

    def __init__(self, carriers: CarrierNetwork) -> None:
        self._carriers = carriers
        self.current: dict[str, Member] = {}
        self.keys: dict[str, SigningKey] = {}
        self._sessions = 0

    def key(self, name: str, kind: Kind | None, *roles: Role) -> SigningKey:
        """The key of a member; of a stranger without a kind."""
        key = self.keys[name] = SigningKey.generate()
        if kind is not None:
            self.current[key.public] = Member(
                name=name, kind=kind, public_key=key.public, until_s=math.inf, roles=roles
            )
        return key

    async def carrier(self) -> Carrier:
        self._sessions += 1
        return await self._carriers.open(f"session {self._sessions}")

    async def open(
        self, name: str, kind: Kind | None, *roles: Role, network: str = "net"
    ) -> SignedFabric:
        key = self.key(name, kind, *roles)
        return SignedFabric(
            await self.carrier(), key, network, lambda: self.current, wall_s=lambda: NOW_S
        )


@pytest.fixture(params=["memory", pytest.param("zenoh", marks=pytest.mark.processes)])
async def members(request: pytest.FixtureRequest) -> AsyncIterator[Members]:
    carriers: CarrierNetwork = InMemory() if request.param == "memory" else OverZenoh()
    yield Members(carriers)
    await carriers.close()


async def echo(key: str, payload: bytes) -> bytes:
    return payload


async def who(key: str, payload: bytes) -> bytes:
    member = caller()
    assert member is not None
    return f"{member.kind} {member.name}".encode()


async def test_a_handler_learns_who_asks_and_a_subscriber_who_speaks(members: Members) -> None:
    center, east = await members.open("c", Kind.CENTER), await members.open("east", Kind.SITE)
    await east.serve(ECHO, who)
    assert await asked(center, ECHO) == b"center c"
    heard: set[str] = set()

    async def message(key: str, payload: bytes) -> None:
        member = caller()
        assert member is not None
        heard.add(member.name)

    await center.subscribe(keys.ALL_SENSED, message)
    async with asyncio.timeout(PATIENCE_S):
        while not heard:
            await east.publish(SENSED, b"")
            await asyncio.sleep(0.005)
    assert heard == {"east"}
    assert caller() is None


@pytest.mark.parametrize("kind", [None, Kind.OWNER, Kind.SITE])
async def test_who_may_not_ask_is_refused(members: Members, kind: Kind | None) -> None:
    done = []

    async def work(key: str, payload: bytes) -> bytes:
        done.append(payload)
        return b""

    east, rogue = await members.open("east", Kind.SITE), await members.open("rogue", kind)
    center = await members.open("c", Kind.CENTER)
    await east.serve(keys.site_do(EAST, "work"), work)
    await asked(center, keys.site_do(EAST, "work"), b"true")
    with pytest.raises(Refused, match="not a member" if kind is None else "may not do this"):
        await asked(rogue, keys.site_do(EAST, "work"), b"false")
    assert done == [b"true"]


async def test_an_unsigned_request_is_refused(members: Members) -> None:
    east, stranger = await members.open("east", Kind.SITE), await members.carrier()
    await east.serve(ECHO, echo)
    with pytest.raises(Refused, match="only signed messages"):
        await asked(stranger, ECHO, b"hello")


@pytest.mark.parametrize("kind", [None, Kind.OWNER, Kind.SITE])
async def test_a_rival_under_a_site_key_is_not_listened_to(
    members: Members, kind: Kind | None
) -> None:
    center = await members.open("c", Kind.CENTER)
    rival = await members.open("rival", kind, Role.VERIFIER)
    plain = await members.carrier()

    async def lies(key: str, payload: bytes) -> bytes:
        return b"lie"

    await rival.serve(ECHO, lies)
    await plain.serve(ECHO, lies)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with pytest.raises(Unreachable) as caught:
                await center.request(ECHO, b"", timeout_s=20)
            if "no authorised process answered" in caught.value.problem:
                break
    east = await members.open("east", Kind.SITE)
    await east.serve(ECHO, echo)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(Unreachable):
                assert await center.request(ECHO, b"truth", timeout_s=20) == b"truth"
                break


async def test_a_rival_for_the_centre_is_not_listened_to(members: Members) -> None:
    owner = await members.open("acme", Kind.OWNER)
    rival = await members.open("center", Kind.SITE, *Role)
    center = await members.open("c", Kind.CENTER)

    async def lies(key: str, payload: bytes) -> bytes:
        return b"lie"

    await rival.serve(keys.center_do("jobs"), lies)
    await center.serve(keys.center_do("jobs"), echo)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(Unreachable):
                assert await owner.request(keys.center_do("jobs"), b"t", timeout_s=20) == b"t"
                break


async def test_an_answer_answers_one_request_only(members: Members) -> None:
    """Whoever hears an answer of the true site cannot give it to somebody else's question."""
    east_key = members.key("east", Kind.SITE)
    other = enclose(members.key("x", Kind.CENTER), "net", ECHO, Purpose.REQUEST, b"?", 0.0)
    old = enclose(east_key, "net", ECHO, Purpose.ANSWER, b"yes", NOW_S, other.signature)

    async def repeats(key: str, payload: bytes) -> bytes:
        return encode(old)

    center, rival = await members.open("c", Kind.CENTER), await members.carrier()
    await rival.serve(ECHO, repeats)
    with pytest.raises(Unreachable, match="another request"):
        await asked(center, ECHO)


async def test_whom_the_roster_does_not_have_is_told_so(members: Members) -> None:
    """Nobody tells a stranger anything: it looks at its own roster."""
    stranger = await members.open("x", None)
    with pytest.raises(Unreachable, match="the roster of net does not have this key") as told:
        await stranger.request(ECHO, b"?", timeout_s=5)
    assert "invitation" in told.value.fix
    with pytest.raises(Unreachable, match="does not have this key"):
        await stranger.request_bulk(ECHO, b"?", timeout_s=5, take=bytes)
    member = await members.open("c", Kind.CENTER)
    with pytest.raises(Unreachable, match=f"^nobody serves {ECHO}"):
        await member.request(ECHO, b"?", timeout_s=5)


async def heard_by(members: Members, *sent: tuple[str, bytes]) -> list[tuple[str, bytes]]:
    """What a control centre hears of raw messages, sent after a true one and before another."""
    center, plain = await members.open("c", Kind.CENTER), await members.carrier()
    north = await members.open("north", Kind.SITE)
    heard = Heard()
    await center.subscribe("daitn/site/**", heard.message)
    key = keys.site_sensed(SiteId("north"))
    async with asyncio.timeout(PATIENCE_S):
        while not heard.linked:
            await north.publish(key, b"probe")
            await asyncio.sleep(0.005)
    end = enclose(members.keys["north"], "net", key, Purpose.PUBLICATION, b"end", NOW_S)
    async with asyncio.timeout(PATIENCE_S):
        while not heard.items:
            await plain.publish(key, encode(end))
            await asyncio.sleep(0.005)
    assert heard.items == [(key, b"end")], "the same envelope counts once"
    for to, data in sent:
        await plain.publish(to, data)
    last = enclose(members.keys["north"], "net", key, Purpose.PUBLICATION, b"last", NOW_S)
    await plain.publish(key, encode(last))
    await until(lambda: heard.items[-1] == (key, b"last"))
    return heard.items[1:-1]


def envelope(
    key: SigningKey,
    to: str = SENSED,
    purpose: Purpose = Purpose.PUBLICATION,
    network: str = "net",
    late_s: float = 0.0,
) -> Envelope:
    return enclose(key, network, to, purpose, b"read", NOW_S - late_s)


async def test_only_what_its_sender_signed_for_here_and_now_is_heard(members: Members) -> None:
    east, west = members.key("east", Kind.SITE), members.key("west", Kind.SITE)
    stranger = members.key("stranger", None)
    good = envelope(east)
    forged = {
        "another site": envelope(west),
        "a stranger": envelope(stranger),
        "a stranger in its name": msgspec.structs.replace(envelope(stranger), sender=good.sender),
        "another network": envelope(east, network="other"),
        "another key": envelope(east, keys.site_advert(EAST)),
        "another purpose": envelope(east, purpose=Purpose.REQUEST),
        "the purpose changed": msgspec.structs.replace(
            envelope(east, purpose=Purpose.REQUEST), purpose=Purpose.PUBLICATION
        ),
        "other content": msgspec.structs.replace(good, payload=b"more"),
        "a later time": msgspec.structs.replace(good, at_ms=good.at_ms + 1),
        "another nonce": msgspec.structs.replace(good, nonce=bytes(12)),
        "about something": msgspec.structs.replace(good, about=bytes(64)),
        "too late": envelope(east, late_s=FRESH_S + 5),
        "too early": envelope(east, late_s=-FRESH_S - 5),
        "another version": msgspec.structs.replace(good, version=2),
    }
    sent = [(SENSED, encode(one)) for one in forged.values()]
    assert await heard_by(members, *sent, (SENSED, b"rubbish")) == []
    (heard,) = await heard_by(members, (SENSED, encode(good)), (SENSED, encode(good)))
    assert heard == (SENSED, b"read")


async def test_clocks_may_differ(members: Members) -> None:
    east = members.key("east", Kind.SITE)
    sent = [envelope(east, late_s=late_s) for late_s in (FRESH_S - 10, 10 - FRESH_S)]
    assert len(await heard_by(members, *((SENSED, encode(one)) for one in sent))) == 2


async def test_a_request_that_was_heard_is_worth_nothing(members: Members) -> None:
    east, plain = await members.open("east", Kind.SITE), await members.carrier()
    done = []

    async def retain(key: str, payload: bytes) -> bytes:
        done.append(payload)
        return b""

    key = keys.site_do(EAST, "retain")
    await east.serve(key, retain)
    center = members.key("c", Kind.CENTER)

    async def told(session: bytes) -> tuple[bytes, Envelope]:
        sent = encode(enclose(center, "net", key, Purpose.REQUEST, b"[]", NOW_S, session))
        return sent, decode(await asked(plain, key, sent), Envelope)

    _, given = await told(b"")
    assert given.purpose is Purpose.SESSION
    sent, given = await told(given.payload)
    assert given.purpose is Purpose.ANSWER
    given = decode(await asked(plain, key, sent), Envelope)
    assert given.purpose is Purpose.ERROR
    assert decode(given.payload, ErrorReport).problem == "it is a replay"
    assert done == [b"[]"]


async def test_a_request_is_worth_nothing_after_a_restart_either(members: Members) -> None:
    """What was taken is in memory: a new process took all of the last two minutes once more."""
    key, done = keys.site_do(EAST, "retain"), []

    async def retain(key: str, payload: bytes) -> bytes:
        done.append(payload)
        return b""

    crossed: list[bytes] = []
    center = await members.open("c", Kind.CENTER)
    carried = center._carrier.request

    async def overheard(key: str, payload: bytes, **options: Any) -> bytes:
        crossed.append(payload)
        return await carried(key, payload, **options)

    center._carrier.request = overheard  # type: ignore[method-assign]
    east = await members.open("east", Kind.SITE)
    await east.serve(key, retain)
    await asked(center, key, b"[]")
    await east.close()
    plain = await members.carrier()
    again = SignedFabric(
        await members.carrier(),
        members.keys["east"],
        "net",
        lambda: members.current,
        wall_s=lambda: NOW_S,
    )
    await again.serve(key, retain)
    for payload in crossed:
        given = decode(await asked(plain, key, payload), Envelope)
        assert given.purpose is Purpose.SESSION
    assert done == [b"[]"]
    await asked(center, key, b"anew")
    assert done == [b"[]", b"anew"]


async def test_whoever_has_run_for_a_while_is_asked_once(members: Members) -> None:
    clocks = iter([NOW_S - 3 * FRESH_S])
    east = SignedFabric(
        await members.carrier(),
        members.key("east", Kind.SITE),
        "net",
        lambda: members.current,
        wall_s=lambda: next(clocks, NOW_S),
    )
    await east.serve(ECHO, echo)
    plain, center = await members.carrier(), members.key("c", Kind.CENTER)
    sent = enclose(center, "net", ECHO, Purpose.REQUEST, b"hello", NOW_S)
    given = decode(await asked(plain, ECHO, encode(sent)), Envelope)
    assert given.purpose is Purpose.ANSWER


async def test_whoever_leaves_the_roster_is_heard_no_more(members: Members) -> None:
    center, east = await members.open("c", Kind.CENTER), await members.open("east", Kind.SITE)
    await east.serve(ECHO, echo)
    await asked(center, ECHO)
    del members.current[members.keys["c"].public]
    with pytest.raises(Refused, match="not a member"):
        await asked(center, ECHO)


async def bulk(fabric: SignedFabric | Carrier, key: str, payload: bytes) -> bytes:
    return await fabric.request_bulk(key, payload, timeout_s=20, take=bytes)


CHUNK = keys.site_do(EAST, "chunk")


async def test_who_gives_chunks_learns_who_asks(members: Members) -> None:
    east, west = await members.open("east", Kind.SITE), await members.open("west", Kind.SITE)

    def give(key: str, payload: bytes) -> bytes:
        member = caller()
        assert member is not None
        return member.name.encode()

    await east.serve_bulk(CHUNK, give)
    await asked(west, CHUNK)
    assert await bulk(west, CHUNK, b"") == b"west"
    assert caller() is None


async def test_whoever_is_revoked_gets_no_more_chunks(members: Members) -> None:
    """Also where nothing else was heard since: the members are asked for each chunk."""
    east, west = await members.open("east", Kind.SITE), await members.open("west", Kind.SITE)
    await east.serve_bulk(CHUNK, lambda key, payload: payload)
    await asked(west, CHUNK)
    assert await bulk(west, CHUNK, b"1") == b"1"
    del members.current[members.keys["west"].public]
    with pytest.raises(Refused, match="not a member"):
        await bulk(west, CHUNK, b"2")


async def test_only_a_members_error_counts_in_a_bulk_transfer(members: Members) -> None:
    """Anybody could say that a holder has no such chunk, and it was not asked again."""

    def lacks(key: str, payload: bytes) -> bytes:
        raise NotFound("there is no such chunk")

    west = await members.open("west", Kind.SITE)
    for rival in (await members.carrier(), await members.open("rival", Kind.SITE)):
        served = await rival.serve_bulk(CHUNK, lacks)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with pytest.raises(Unreachable) as caught:
                    await bulk(west, CHUNK, b"")
                if "a rejected answer" in caught.value.problem:
                    break
        await served.close()
    east = await members.open("east", Kind.SITE)
    await east.serve_bulk(CHUNK, lacks)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await bulk(west, CHUNK, b"")
            except NotFound:
                break
            except Unreachable:
                continue


async def test_what_becomes_of_a_chunk_here_is_told_as_it_is(members: Members) -> None:
    east, west = await members.open("east", Kind.SITE), await members.open("west", Kind.SITE)
    await east.serve_bulk(CHUNK, lambda key, payload: payload)
    await asked(west, CHUNK)

    def full(data: bytes) -> bytes:
        raise StorageFull("no room")

    with pytest.raises(StorageFull):
        await west.request_bulk(CHUNK, b"", timeout_s=20, take=full)


async def test_memory_of_a_sender_is_bounded_and_forgets_nothing_that_may_return(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signed, "_MOST_SEEN", 100)
    key = SigningKey.generate()
    seen = signed._Seen()
    sent = [enclose(key, "net", SENSED, Purpose.PUBLICATION, b"", 1.0 + n) for n in range(500)]
    assert all(seen.take(one, 0) for one in sent)
    assert len(seen.times_ms) == 100
    assert not any(seen.take(one, 0) for one in sent)


@pytest.mark.parametrize("flood", [1000])
async def test_a_flood_of_forgeries_fills_no_log(
    flood: int, caplog: pytest.LogCaptureFixture
) -> None:
    members = Members(InMemory())
    stranger = members.key("stranger", None)
    sent = [(SENSED, encode(envelope(stranger))) for _ in range(flood)]
    assert await heard_by(members, *sent) == []
    assert sum("not a member" in record.message for record in caplog.records) == 1


async def test_nobody_makes_up_kinds_of_warnings_that_hide_those_about_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Keys, times and versions are the sender's choice, and a log tells 256 kinds apart."""
    members = Members(InMemory())
    west, south = members.key("west", Kind.SITE), members.key("south", Kind.SITE)
    own, made_up = keys.site_sensed(SiteId("west")), []
    for n in range(300):
        key = keys.site_sensed(SiteId(f"s{n}"))
        made_up += [
            (key, envelope(west, key)),
            (own, envelope(west, own, late_s=1000.0 + n)),
            (own, msgspec.structs.replace(envelope(west), version=2 + n)),
        ]
    sent = [*made_up, (SENSED, envelope(south))]
    assert await heard_by(members, *((key, encode(one)) for key, one in sent)) == []
    assert sum("site west" in message for message in caplog.messages) == 2
    assert sum("site south" in message for message in caplog.messages) == 1
    assert sum("has version" in message for message in caplog.messages) == 1


async def test_what_a_former_leader_had_in_hand_does_nothing_once_another_one_was_heard(
    members: Members,
) -> None:
    """Two control centres with one key. The former one is stopped after it looked whether it leads,
    so it sends what it had in hand when it wakes up."""
    key = members.key("center", Kind.CENTER)

    async def leads(epoch: int) -> SignedFabric:
        carrier = await members.carrier()
        return SignedFabric(
            carrier,
            key,
            "net",
            lambda: members.current,
            wall_s=lambda: NOW_S,
            epoch=lambda: epoch,
        )

    done: list[bytes] = []

    async def work(key: str, payload: bytes) -> bytes:
        done.append(payload)
        return b""

    async def advised(key: str, payload: bytes) -> None:
        done.append(payload)

    east = await members.open("east", Kind.SITE, Role.FORWARDER)
    await east.serve(keys.site_do(EAST, "work"), work)
    await east.subscribe(keys.center_advice(), advised)
    former, leader = await leads(7), await leads(9)
    await asked(former, keys.site_do(EAST, "work"), b"first")
    assert done == [b"first"]
    await asked(leader, keys.site_do(EAST, "work"), b"second")
    with pytest.raises(Refused, match="as leader of epoch 7, but the current epoch is 9"):
        await asked(former, keys.site_do(EAST, "work"), b"in hand")
    async with asyncio.timeout(PATIENCE_S):
        while done[-1] != b"new":
            await former.publish(keys.center_advice(), b"old")
            await leader.publish(keys.center_advice(), b"new")
            await asyncio.sleep(0.005)
    assert set(done) == {b"first", b"second", b"new"}

    async def old(key: str, payload: bytes) -> bytes:
        return b"old"

    for verb in ("jobs", "report"):
        await former.serve(keys.center_do(verb), old)
    ann = await members.open("ann", Kind.OWNER)
    assert await asked(ann, keys.center_do("jobs")) == b"old"  # It has not heard of another one.
    with pytest.raises(Unreachable, match="as leader of epoch 7, but the current epoch is 9"):
        await asked(east, keys.center_do("report"))


async def test_who_leads_no_more_says_nothing(members: Members) -> None:
    over = Unreachable("this control centre is no longer the leader")

    def epoch() -> int:
        raise over

    key = members.key("center", Kind.CENTER)
    center = SignedFabric(
        await members.carrier(),
        key,
        "net",
        lambda: members.current,
        wall_s=lambda: NOW_S,
        epoch=epoch,
    )
    heard: list[bytes] = []

    async def hears(key: str, payload: bytes) -> bytes:
        heard.append(payload)
        return b""

    east = await members.open("east", Kind.SITE)
    await east.serve(keys.site_do(EAST, "work"), hears)
    await center.serve(keys.center_do("report"), hears)
    with pytest.raises(Unreachable, match="no longer the leader"):
        await center.request(keys.site_do(EAST, "work"), b"x", timeout_s=5)
    with pytest.raises(Unreachable, match="no longer the leader"):
        await center.publish(keys.center_advice(), b"x")
    with pytest.raises(DaitnError):
        await east.request(keys.center_do("report"), b"told", timeout_s=5)
    assert not heard
    stranger = await members.carrier()
    with pytest.raises(Unreachable, match="no longer the leader"):
        await stranger.request(keys.center_do("report"), b"unsigned", timeout_s=5)


async def test_a_message_of_a_control_centre_that_is_alone_is_signed_as_it_was(
    members: Members,
) -> None:
    """So members that know of no leaders go on to take it."""
    key = members.key("center", Kind.CENTER)
    alone = enclose(key, "net", "daitn/k", Purpose.REQUEST, b"x", 1.0)
    form = (b"daitn message 1\0", "net", "daitn/k", Purpose.REQUEST, key.public_raw, 1000)
    signed = form[0] + canonical((*form[1:], alone.nonce, b"", blake3(b"x").digest()))
    check_raw_signature(key.public_raw, alone.signature, signed)
    led = enclose(key, "net", "daitn/k", Purpose.REQUEST, b"x", 1.0, epoch=3)
    check_envelope(led, "net", "daitn/k")
    for other in (0, 2, 4):
        with pytest.raises(Corrupt):
            check_envelope(msgspec.structs.replace(led, epoch=other), "net", "daitn/k")
