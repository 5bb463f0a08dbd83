"""One member's requests do not crowd out those of others."""

from __future__ import annotations

import asyncio

import pytest

from daitn.objects.errors import Refused
from daitn.objects.roster import Kind, Member
from daitn.tools.fabric.caller import speaking
from daitn.tools.fabric.turns import RequestRates

CURIOUS, ACME = (
    Member(name=name, kind=Kind.OWNER, public_key=name, until_s=1e9) for name in ("curious", "acme")
)


async def _nothing(key: str, payload: bytes) -> bytes:
    return payload


async def _asked(turns: RequestRates, member: Member, verb: str, times: int) -> int:
    """How many of the requests were answered."""
    handler = turns.limited(verb, _nothing)
    answered = 0
    with speaking(member):
        for _ in range(times):
            try:
                await handler("key", b"")
            except Refused as error:
                assert "ask again in" in error.fix
            else:
                answered += 1
    return answered


async def test_a_minutes_requests_may_come_at_once_and_no_more() -> None:
    now_s = 100.0
    turns = RequestRates(60, now_s=lambda: now_s)
    assert await _asked(turns, CURIOUS, "assess", 300) == 60
    assert await _asked(turns, ACME, "assess", 10) == 10, "another's are not touched"
    now_s += 10.0
    assert await _asked(turns, CURIOUS, "assess", 300) == 10
    now_s += 1000.0
    assert await _asked(turns, CURIOUS, "submit", 300) == 20, "a submission counts as three"
    for verb in ("jobs", "topology"):
        assert await _asked(turns, CURIOUS, verb, 300) == 300


async def test_whoever_asks_once_does_not_wait_for_anothers_queue() -> None:
    """Each request takes the loop's next round; those of one member go two at a time."""
    ended: list[str] = []

    async def slow(key: str, payload: bytes) -> bytes:
        for _ in range(3):
            await asyncio.sleep(0)
        ended.append(key)
        return payload

    handler = RequestRates(1000).limited("assess", slow)

    async def ask(member: Member) -> None:
        with speaking(member):
            await handler(member.name, b"")

    await asyncio.gather(*(ask(CURIOUS) for _ in range(100)), ask(ACME))
    assert ended.index("acme") <= 2


async def test_a_failure_gives_the_turn_back() -> None:
    async def failing(key: str, payload: bytes) -> bytes:
        raise Refused("no", field="x")

    handler = RequestRates(1000).limited("assess", failing)
    with speaking(CURIOUS):
        for _ in range(5):
            with pytest.raises(Refused, match="no"):
                await handler("key", b"")
