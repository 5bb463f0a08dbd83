"""Faults that the in-memory network injects, and the mailbox that both fabrics share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import TypeVar

import pytest

from daitn.objects.errors import InvalidInput, Unreachable
from daitn.tools.fabric.delivery import PUBLICATIONS_BYTES, Mailbox
from daitn.tools.fabric.memory import MemoryNetwork
from tests.scenes.waiting import until

from .fabrics import Heard

Item = TypeVar("Item")


async def echo(key: str, payload: bytes) -> bytes:
    return payload


def put_all(mailbox: Mailbox[Item], items: Iterable[Item]) -> None:
    for item in items:
        mailbox.put(item)


async def test_a_cut_parts_two_sessions_and_no_others() -> None:
    network = MemoryNetwork()
    a, b, c = (network.open(name) for name in "abc")
    of_a, of_c = Heard(), Heard()
    await a.watch("alive/*", of_a.alive)
    await c.watch("alive/*", of_c.alive)
    await a.subscribe("x", of_a.message)
    await b.announce("alive/b")
    await b.serve("echo", echo)
    await until(lambda: of_a.tokens)
    network.cut("b", "a")
    await b.publish("x", b"lost")
    with pytest.raises(Unreachable, match="nobody serves"):
        await a.request("echo", b"", timeout_s=5)
    assert await c.request("echo", b"x", timeout_s=5) == b"x"
    network.mend("a", "b")
    await b.publish("x", b"heard")
    assert await a.request("echo", b"x", timeout_s=5) == b"x"
    await until(lambda: len(of_a.tokens) == 3)
    assert of_a.tokens == [("alive/b", True), ("alive/b", False), ("alive/b", True)]
    assert of_a.items == [("x", b"heard")]
    assert of_c.tokens == [("alive/b", True)]


async def test_an_answer_does_not_cross_a_link_that_was_cut_meanwhile() -> None:
    network = MemoryNetwork()
    a, b = network.open("a"), network.open("b")

    async def cuts(key: str, payload: bytes) -> bytes:
        network.cut("a", "b")
        return b"done"

    await b.serve("do", cuts)
    with pytest.raises(Unreachable, match="no answer from do within"):
        await a.request("do", b"", timeout_s=0.05)


async def test_a_killed_session_is_gone_at_once_and_may_come_back() -> None:
    network = MemoryNetwork()
    a, b, heard = network.open("a"), network.open("b"), Heard()
    started = asyncio.Event()

    async def mute(key: str, payload: bytes) -> bytes:
        started.set()
        await asyncio.Event().wait()
        return b""

    await a.watch("alive/*", heard.alive)
    await b.announce("alive/b")
    await b.serve("do", mute)
    asking = asyncio.create_task(a.request("do", b"", timeout_s=60))
    await started.wait()
    await network.kill("b")
    with pytest.raises(Unreachable, match="nobody serves"):
        await asking
    await until(lambda: heard.tokens == [("alive/b", True), ("alive/b", False)])
    await (again := network.open("b")).announce("alive/b")
    await until(lambda: heard.tokens[2:] == [("alive/b", True)])
    await again.serve("do", echo)
    assert await a.request("do", b"x", timeout_s=5) == b"x"


async def test_a_name_is_open_once() -> None:
    network = MemoryNetwork()
    network.open("a")
    with pytest.raises(InvalidInput, match="'a' is open already"):
        network.open("a")


async def test_a_delay_holds_both_ways_and_keeps_the_order() -> None:
    network = MemoryNetwork()
    loop = asyncio.get_running_loop()
    a, b = network.open("a"), network.open("b")
    said_s: list[float] = []
    heard: list[tuple[int, float]] = []

    async def hears(key: str, payload: bytes) -> None:
        heard.append((payload[0], loop.time()))

    network.delay("a", "b", 0.01)
    await b.serve("echo", echo)
    await b.subscribe("x", hears)
    asked_s = loop.time()
    await a.request("echo", b"", timeout_s=5)
    assert loop.time() - asked_s >= 0.02
    for number in range(100):
        said_s.append(loop.time())
        await a.publish("x", bytes([number]))
    await until(lambda: len(heard) == 100)
    assert [number for number, _ in heard] == list(range(100))
    assert all(at_s >= said_s[number] + 0.01 for number, at_s in heard)


async def test_a_slow_owner_loses_the_oldest_items_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    taken: list[int] = []

    async def take(item: int) -> None:
        taken.append(item)

    mailbox = Mailbox("slow", take, bound=10)
    flood = threading.Thread(target=put_all, args=(mailbox, range(100)))
    flood.start()
    flood.join()
    await until(lambda: len(taken) == 10)
    assert taken == list(range(90, 100))
    assert "dropped the 90 oldest" in caplog.text
    mailbox.put(100)
    await until(lambda: taken[-1] == 100)
    await mailbox.close()


async def test_a_slow_owner_loses_the_oldest_items_where_they_are_large(
    caplog: pytest.LogCaptureFixture,
) -> None:
    taken: list[int] = []

    async def take(item: bytes) -> None:
        taken.append(len(item))

    mailbox = Mailbox("large", take, bound=100, most_bytes=1000, size=len)
    put_all(mailbox, (bytes(size) for size in (400, 300, 200, 100, 500)))
    await until(lambda: len(taken) == 3)
    assert taken == [200, 100, 500]
    assert "dropped the 2 oldest" in caplog.text
    put_all(mailbox, (bytes(size) for size in (900, 100, 5000)))
    await until(lambda: taken[3:] == [5000])
    put_all(mailbox, (bytes(size) for size in (900, 100)))
    await until(lambda: taken[4:] == [900, 100])
    await mailbox.close()


async def test_what_is_published_waits_within_a_bound_of_bytes() -> None:
    network = MemoryNetwork()
    a, b = network.open("a"), network.open("b")
    heard, go_on = Heard(), asyncio.Event()

    async def slowly(key: str, payload: bytes) -> None:
        await heard.message(key, payload)
        await go_on.wait()

    await b.subscribe("x", slowly)
    large = bytes(PUBLICATIONS_BYTES // 8)
    await a.publish("x", bytes([0]) + large)
    await until(lambda: heard.items)
    for number in range(1, 20):
        await a.publish("x", bytes([number]) + large)
    go_on.set()
    await until(lambda: heard.items[-1][1][0] == 19)
    assert [payload[0] for _, payload in heard.items] == [0, *range(13, 20)]


async def test_an_unbounded_mailbox_keeps_everything_from_every_thread() -> None:
    taken: list[tuple[int, int]] = []

    async def take(item: tuple[int, int]) -> None:
        taken.append(item)

    mailbox = Mailbox("all", take, bound=None)
    threads = [
        threading.Thread(target=put_all, args=(mailbox, [(t, number) for number in range(500)]))
        for t in range(4)
    ]
    for thread in threads:
        thread.start()
    await until(lambda: len(taken) == 2000)
    for thread in threads:
        thread.join()
    for t in range(4):
        assert [number for source, number in taken if source == t] == list(range(500))
    await mailbox.close()


async def test_items_that_come_after_the_end_are_ignored() -> None:
    taken: list[int] = []

    async def take(item: int) -> None:
        taken.append(item)

    mailbox = Mailbox("closed", take, bound=None)
    await mailbox.close()
    mailbox.put(1)
    await asyncio.sleep(0)
    assert taken == []


def test_a_thread_may_outlive_the_loop() -> None:
    async def make() -> Mailbox[int]:
        async def take(item: int) -> None: ...

        return Mailbox("late", take, bound=None)

    asyncio.run(make()).put(1)
