"""The twin keeps the promises of the real one."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from daitn.objects.errors import InvalidInput
from daitn.tools.adjacency.memory import MemoryLinks
from daitn.tools.adjacency.protocol import MOST_MESSAGE_BYTES
from tests.scenes.waiting import until

from .scene import A, B, Heard


async def test_messages_of_a_turn_go_together_in_order_and_take_their_time() -> None:
    links, at_a, at_b = MemoryLinks(), Heard(), Heard()
    a = links.open(A, at_a)
    links.open(B, at_b)
    assert not a.send(B, b"lost")
    links.join(A, B, cost_s=0.05)
    await until(lambda: at_a.is_up(B) and at_b.is_up(A))
    assert at_a.costs_s == {B: 0.05}
    sent_s = time.monotonic()
    for number in range(10):
        assert a.send(B, b"%d" % number)
    await until(lambda: at_b.messages)
    assert time.monotonic() - sent_s >= 0.045
    assert at_b.messages == [(A, b"%d" % number) for number in range(10)]
    assert at_b.turns == [10]
    with pytest.raises(InvalidInput, match="too large"):
        a.send(B, bytes(MOST_MESSAGE_BYTES + 1))


async def test_a_cut_loses_what_is_on_its_way_before_it_is_noticed() -> None:
    links, at_a, at_b = MemoryLinks(notice_s=0.05), Heard(), Heard()
    a, b = links.open(A, at_a), links.open(B, at_b)
    links.join(A, B, cost_s=5.0)
    await until(lambda: at_a.is_up(B) and at_b.is_up(A))
    a.send(B, b"on its way")
    await asyncio.sleep(0)
    links.cut(A, B)
    assert a.send(B, b"not noticed yet")
    await until(lambda: not at_a.is_up(B) and not at_b.is_up(A))
    assert not b.send(A, b"noticed")
    links.join(A, B)
    await until(lambda: at_a.is_up(B) and at_b.is_up(A))
    a.send(B, b"after")
    await until(lambda: at_b.messages)
    assert at_b.messages == [(A, b"after")]
    assert at_a.links == [("up", B), ("down", B), ("up", B)]
    assert a.stats()[B].downs == 1


async def test_a_link_loses_the_share_that_it_is_told_to() -> None:
    links, at_b = MemoryLinks(rng=random.Random(1)), Heard()
    a = links.open(A, Heard())
    links.open(B, at_b)
    links.join(A, B, loss=0.5)
    await until(lambda: at_b.is_up(A))
    for _ in range(1000):
        a.send(B, b"")
    await asyncio.sleep(0.05)
    assert 400 < len(at_b.messages) < 600


async def test_one_that_leaves_is_down_and_may_come_again() -> None:
    links, at_a = MemoryLinks(), Heard()
    links.open(A, at_a)
    for _ in range(2):
        b = links.open(B, Heard())
        with pytest.raises(InvalidInput, match="open already"):
            links.open(B, Heard())
        links.join(A, B)
        await until(lambda: at_a.is_up(B))
        await b.close()
        await until(lambda: not at_a.is_up(B))
