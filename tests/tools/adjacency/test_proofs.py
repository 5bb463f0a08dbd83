"""Links whose ends prove themselves: a neighbour is who the roster says, and nobody else speaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import zenoh

from daitn.identity.keys import SigningKey
from daitn.identity.links import LinkIdentity
from daitn.objects.identifiers import SiteId
from daitn.tools import clock
from daitn.tools.adjacency.settings import AdjacencySettings
from daitn.tools.adjacency.zenoh import ZenohAdjacency, open_adjacency
from tests.scenes.waiting import until

from .scene import LOOPBACK, NEVER_S, A, B, C, Heard

KEYS = {site: SigningKey.generate() for site in (A, B, C)}


class Roster:
    def __init__(self) -> None:
        self.known = {site: key.public for site, key in KEYS.items()}

    def identity(self, site: SiteId, key: SigningKey | None = None) -> LinkIdentity:
        return LinkIdentity(site, key or KEYS[site], "net", self.known.get, clock.now_s)


@asynccontextmanager
async def proven(
    site: SiteId,
    heard: Heard,
    neighbours: dict[SiteId, tuple[str, ...]],
    identity: LinkIdentity | None,
    *,
    anybody: bool = False,
) -> AsyncIterator[ZenohAdjacency]:
    settings = AdjacencySettings(
        site=site,
        listen=(LOOPBACK,),
        neighbours=neighbours,
        anybody=anybody,
        dead_s=NEVER_S,
    )
    opened = await open_adjacency(settings, heard, identity)
    try:
        yield opened
    finally:
        await opened.close()


async def test_neighbours_that_prove_themselves_are_linked() -> None:
    roster, at_a, at_b = Roster(), Heard(), Heard()
    async with (
        proven(A, at_a, {B: ()}, roster.identity(A)) as a,
        proven(B, at_b, {A: a.endpoints}, roster.identity(B)) as b,
    ):
        await until(lambda: at_a.is_up(B) and at_b.is_up(A))
        sent = [b"%d" % number for number in range(500)] + [bytes(3 << 20)]
        for message in sent:
            assert a.send(B, message)
            assert b.send(A, message)
        await until(lambda: len(at_a.messages) == len(at_b.messages) == len(sent))
        assert [message for _, message in at_a.messages] == sent
        assert at_a.links == [("up", B)]


@pytest.mark.parametrize("who", ["without a key", "a stranger", "another site"])
@pytest.mark.parametrize("anybody", [False, True])
async def test_whoever_takes_a_neighbours_name_is_not_heard(who: str, anybody: bool) -> None:
    """A neighbour was known by the name that it gave itself."""
    roster, at_a, at_b, at_c = Roster(), Heard(), Heard(), Heard()
    keys = {"a stranger": SigningKey.generate(), "another site": KEYS[C]}
    false = roster.identity(B, keys[who]) if who in keys else None
    neighbours: dict[SiteId, tuple[str, ...]] = {C: ()} if anybody else {B: (), C: ()}
    async with (
        proven(A, at_a, neighbours, roster.identity(A), anybody=anybody) as a,
        proven(B, at_b, {A: a.endpoints}, false),
        proven(C, at_c, {A: a.endpoints}, roster.identity(C)),
    ):
        await until(lambda: at_a.is_up(C) and at_c.is_up(A))
        await until(lambda: B in a.stats() and a.stats()[B].malformed >= 3)
        assert not at_a.is_up(B)
        assert not at_b.is_up(A)


async def test_a_connected_stranger_adds_nothing_to_a_link() -> None:
    """It hears what passes between others that it is connected to, and repeats or changes it."""
    roster, at_a, at_b = Roster(), Heard(), Heard()
    async with (
        proven(A, at_a, {B: ()}, roster.identity(A)) as a,
        proven(B, at_b, {A: a.endpoints}, roster.identity(B)) as b,
    ):
        config = zenoh.Config()
        config.insert_json5("mode", '"peer"')
        config.insert_json5("connect/endpoints", f'["{a.endpoints[0]}", "{b.endpoints[0]}"]')
        config.insert_json5("scouting/multicast/enabled", "false")
        spy = await asyncio.to_thread(zenoh.open, config)
        try:
            heard: list[bytes] = []
            spy.declare_subscriber(
                "daitn/adjacent/**", lambda sample: heard.append(bytes(sample.payload))
            )
            await until(lambda: at_a.is_up(B) and at_b.is_up(A))
            for n in range(20):
                a.send(B, b"%d" % n)
            await until(lambda: len(at_b.messages) == 20)
            for payload in [*heard, b"", b"\x02" + bytes(60), b"\x01" * 53]:
                spy.put("daitn/adjacent/b/from/a", payload[:-1] + b"\0")
                spy.put("daitn/adjacent/a/from/b", payload[:-16])
                spy.put("daitn/adjacent/b/from/a", payload)
                spy.put("daitn/adjacent/a/from/b", payload)
            await until(lambda: b.stats()[A].malformed >= 3)
            a.send(B, b"last")
            await until(lambda: at_b.messages[-1] == (A, b"last"))
            assert len(at_b.messages) == 21
            assert at_b.links == [("up", A)]
        finally:
            await asyncio.to_thread(spy.close)


async def test_a_neighbour_that_restarts_is_linked_again() -> None:
    roster, at_a = Roster(), Heard()
    async with proven(A, at_a, {B: ()}, roster.identity(A)) as a:
        for _ in range(2):
            at_b = Heard()
            async with proven(B, at_b, {A: a.endpoints}, roster.identity(B)) as b:
                await until(lambda at_b=at_b: at_a.is_up(B) and at_b.is_up(A))  # type: ignore[misc]
                b.send(A, b"hello")
                await until(lambda: bool(at_a.messages))
            await until(lambda: not at_a.is_up(B))
            at_a.messages.clear()


async def test_the_link_to_a_revoked_neighbour_goes_down() -> None:
    roster, at_a, at_b = Roster(), Heard(), Heard()
    async with (
        proven(A, at_a, {B: ()}, roster.identity(A)) as a,
        proven(B, at_b, {A: a.endpoints}, roster.identity(B)),
    ):
        await until(lambda: at_a.is_up(B) and at_b.is_up(A))
        public = roster.known.pop(B)
        await until(lambda: not at_a.is_up(B))
        assert not a.send(B, b"secret")
        roster.known[B] = public
        await until(lambda: at_a.is_up(B))
