"""What every fabric promises, asked of all: in memory and over Zenoh, signed and not."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

import pytest

from daitn.objects import errors
from daitn.objects.errors import DaitnError, InvalidInput, Unreachable
from daitn.tools.fabric.protocol import Fabric
from tests.scenes.waiting import PATIENCE_S, until

from .fabrics import (
    CarrierNetwork,
    Heard,
    InMemory,
    Network,
    OverZenoh,
    Signed,
    asked,
    linked,
)

SUBCLASSES: list[type[DaitnError]] = [DaitnError, *errors.KINDS]


_PROCESSES = pytest.mark.processes


@pytest.fixture(params=["memory", pytest.param("zenoh", marks=_PROCESSES)])
async def carriers(request: pytest.FixtureRequest) -> AsyncIterator[CarrierNetwork]:
    made: CarrierNetwork = InMemory() if request.param == "memory" else OverZenoh()
    yield made
    await made.close()


@pytest.fixture(params=["plain", "signed"])
def network(request: pytest.FixtureRequest, carriers: CarrierNetwork) -> Network:
    return Signed(carriers) if request.param == "signed" else carriers


async def echo(key: str, payload: bytes) -> bytes:
    return payload


async def test_publications_of_one_publisher_arrive_once_and_in_order(network: Network) -> None:
    source, target = await network.open("a"), await network.open("b")
    heard = Heard()
    await target.subscribe("daitn/x", heard.message)
    await linked(lambda: source.publish("daitn/x", b"probe"), heard)
    for number in range(500):
        await source.publish("daitn/x", number.to_bytes(2, "big"))
    await until(lambda: len(heard.items) >= 500)
    assert [int.from_bytes(payload, "big") for _, payload in heard.items] == list(range(500))


async def test_a_subscription_handles_one_publication_at_a_time(network: Network) -> None:
    source, target = await network.open("a"), await network.open("b")
    heard, running, most = Heard(), 0, 0

    async def slow(key: str, payload: bytes) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        await heard.message(key, payload)

    await target.subscribe("daitn/x", slow)
    await linked(lambda: source.publish("daitn/x", b"probe"), heard)
    await asyncio.gather(*(source.publish("daitn/x", b"1") for _ in range(20)))
    await until(lambda: len(heard.items) == 20)
    assert most == 1


async def test_wildcards_choose_what_is_heard_also_of_oneself(network: Network) -> None:
    source, target = await network.open("a"), await network.open("b")
    one, any_, own = Heard(), Heard(), Heard()
    await target.subscribe("daitn/site/*/sensed", one.message)
    await target.subscribe("daitn/**", any_.message)
    await source.subscribe("daitn/**", own.message)
    await linked(lambda: source.publish("daitn/site/p/sensed", b"probe"), one, any_, own)
    for key in ("daitn/site/a/sensed", "daitn/site/a/b/sensed", "daitn", "other/site/a/sensed"):
        await source.publish(key, b"1")
    await source.publish("daitn/site/z/sensed", b"2")
    await until(lambda: all(heard.items[-1:] for heard in (one, any_, own)))
    await until(lambda: all(heard.items[-1][1] == b"2" for heard in (one, any_, own)))
    assert [key for key, _ in one.items] == ["daitn/site/a/sensed", "daitn/site/z/sensed"]
    all_of_daitn = ["daitn/site/a/sensed", "daitn/site/a/b/sensed", "daitn", "daitn/site/z/sensed"]
    assert [key for key, _ in any_.items] == all_of_daitn
    assert [key for key, _ in own.items] == all_of_daitn


async def test_a_closed_subscription_hears_nothing_more(network: Network) -> None:
    source, target = await network.open("a"), await network.open("b")
    stays, goes = Heard(), Heard()
    await target.subscribe("daitn/x", stays.message)
    registration = await target.subscribe("daitn/x", goes.message)
    await linked(lambda: source.publish("daitn/x", b"probe"), stays, goes)
    await registration.close()
    await registration.close()
    await source.publish("daitn/x", b"1")
    await until(lambda: stays.items)
    assert goes.items == []


async def test_a_failing_subscriber_hears_the_next_publication(network: Network) -> None:
    source, target = await network.open("a"), await network.open("b")
    heard = Heard()

    async def picky(key: str, payload: bytes) -> None:
        await heard.message(key, payload)
        if payload == b"bad":
            raise RuntimeError("cannot read it")

    await target.subscribe("daitn/x", picky)
    await linked(lambda: source.publish("daitn/x", b"probe"), heard)
    await source.publish("daitn/x", b"bad")
    await source.publish("daitn/x", b"good")
    await until(lambda: len(heard.items) == 2)


@pytest.mark.parametrize("size", [0, 1, 65_536, 1 << 20, 4 << 20])
async def test_payloads_come_back_as_they_went(network: Network, size: int) -> None:
    source, target = await network.open("a"), await network.open("b")
    await target.serve("daitn/echo", echo)
    payload = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert await asked(source, "daitn/echo", payload) == payload
    assert await source.request_bulk("daitn/echo", payload, timeout_s=20, take=bytes) == payload


async def test_the_handler_learns_which_key_of_its_pattern_was_asked(network: Network) -> None:
    source, target = await network.open("a"), await network.open("b")

    async def which(key: str, payload: bytes) -> bytes:
        return key.encode()

    await target.serve("daitn/do/*", which)
    assert await asked(source, "daitn/do/submit") == b"daitn/do/submit"
    assert await asked(target, "daitn/do/own") == b"daitn/do/own"
    with pytest.raises(Unreachable, match="nobody serves daitn/do/a/b"):
        await source.request("daitn/do/a/b", b"", timeout_s=20)


@pytest.mark.parametrize("kind", SUBCLASSES)
async def test_errors_cross_with_problem_field_and_fix(
    network: Network, kind: type[DaitnError]
) -> None:
    source, target = await network.open("a"), await network.open("b")

    async def fails(key: str, payload: bytes) -> bytes:
        raise kind("it broke", field="objectives[1].at_least", fix="mend it")

    await target.serve("daitn/fails", fails)
    with pytest.raises(DaitnError) as caught:
        await asked(source, "daitn/fails")
    error = caught.value
    # Who asks has reached this server, whatever the server itself did not reach.
    assert type(error) is (Unreachable if kind is errors.Unserved else kind)
    told = ("it broke", "objectives[1].at_least", "mend it")
    assert (error.problem, error.field, error.fix) == told


async def test_an_unforeseen_failure_is_logged_and_not_told(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = await network.open("a"), await network.open("b")

    async def bug(key: str, payload: bytes) -> bytes:
        raise ZeroDivisionError("the patient's name")

    await target.serve("daitn/bug", bug)
    with pytest.raises(DaitnError) as caught:
        await asked(source, "daitn/bug")
    assert type(caught.value) is DaitnError
    assert caught.value.problem == "internal error at daitn/bug"
    assert "patient" not in str(caught.value)
    assert "ZeroDivisionError: the patient's name" in caplog.text


async def test_nobody_and_silence_are_told_apart(network: Network) -> None:
    source, target = await network.open("a"), await network.open("b")
    with pytest.raises(Unreachable, match="nobody serves daitn/mute"):
        await source.request("daitn/mute", b"", timeout_s=20)

    async def mute(key: str, payload: bytes) -> bytes:
        if payload:
            await asyncio.Event().wait()
        return b""

    registration = await target.serve("daitn/mute", mute)
    await asked(source, "daitn/mute")
    with pytest.raises(Unreachable, match=r"no answer from daitn/mute within 0\.05 s"):
        await source.request("daitn/mute", b"wait", timeout_s=0.05)
    await registration.close()
    await registration.close()
    with pytest.raises(Unreachable, match="nobody serves daitn/mute"):
        await asyncio.wait_for(_ask_until_gone(source, "daitn/mute"), PATIENCE_S)


async def _ask_until_gone(fabric: Fabric, key: str) -> None:
    while True:
        await fabric.request(key, b"", timeout_s=20)


async def test_requests_are_answered_concurrently(network: Network) -> None:
    source, target = await network.open("a"), await network.open("b")
    everyone, waiting = asyncio.Event(), 0

    async def meets(key: str, payload: bytes) -> bytes:
        nonlocal waiting
        if not payload:
            return b""
        waiting += 1
        if waiting == 50:
            everyone.set()
        await everyone.wait()
        return payload

    await target.serve("daitn/meet", meets)
    await asked(source, "daitn/meet")
    payloads = [f"{number}".encode() for number in range(50)]
    answers = await asyncio.gather(
        *(source.request("daitn/meet", payload, timeout_s=20) for payload in payloads)
    )
    assert answers == payloads


async def test_a_cancelled_request_leaves_the_fabric_usable(network: Network) -> None:
    source, target = await network.open("a"), await network.open("b")
    started = asyncio.Event()

    async def mute(key: str, payload: bytes) -> bytes:
        if payload:
            started.set()
            await asyncio.Event().wait()
        return b"here"

    await target.serve("daitn/mute", mute)
    await asked(source, "daitn/mute")
    task = asyncio.create_task(source.request("daitn/mute", b"wait", timeout_s=60))
    await asyncio.wait_for(started.wait(), PATIENCE_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await source.request("daitn/mute", b"", timeout_s=20) == b"here"


async def test_a_bulk_answer_is_made_and_taken_on_threads(network: Network) -> None:
    source, target = await network.open("a"), await network.open("b")
    threads: set[int] = set()

    def give(key: str, payload: bytes) -> bytes:
        threads.add(threading.get_ident())
        return payload * 1000

    def take(answer: bytes) -> int:
        threads.add(threading.get_ident())
        return len(answer)

    await target.serve_bulk("daitn/bulk", give)
    await asked(source, "daitn/bulk")
    sizes = await asyncio.gather(
        *(
            source.request_bulk("daitn/bulk", b"x" * size, timeout_s=20, take=take)
            for size in range(50)
        )
    )
    assert sizes == [1000 * size for size in range(50)]
    assert threading.get_ident() not in threads


async def test_errors_of_either_end_of_a_bulk_request_reach_the_requester(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = await network.open("a"), await network.open("b")

    def give(key: str, payload: bytes) -> bytes:
        if payload == b"known":
            raise InvalidInput("it broke", field="digest", fix="mend it")
        if payload:
            raise ZeroDivisionError("the patient's name")
        return b""

    def take(answer: bytes) -> None:
        raise KeyError("taking failed")

    with pytest.raises(Unreachable, match="nobody serves daitn/bulk"):
        await source.request_bulk("daitn/bulk", b"", timeout_s=20, take=bytes)
    await target.serve_bulk("daitn/bulk", give)
    await asked(source, "daitn/bulk")
    with pytest.raises(InvalidInput, match="it broke") as known:
        await source.request_bulk("daitn/bulk", b"known", timeout_s=20, take=take)
    assert (known.value.field, known.value.fix) == ("digest", "mend it")
    with pytest.raises(DaitnError, match="internal error at daitn/bulk"):
        await source.request_bulk("daitn/bulk", b"bug", timeout_s=20, take=take)
    assert "ZeroDivisionError: the patient's name" in caplog.text
    with pytest.raises(KeyError, match="taking failed"):
        await source.request_bulk("daitn/bulk", b"", timeout_s=20, take=take)


async def test_a_bulk_request_that_nobody_answers_ends(network: Network) -> None:
    source, target = await network.open("a"), await network.open("b")
    started = asyncio.Event()

    async def mute(key: str, payload: bytes) -> bytes:
        if payload:
            started.set()
            await asyncio.Event().wait()
        return b""

    await target.serve("daitn/mute", mute)
    await asked(source, "daitn/mute")
    with pytest.raises(Unreachable, match=r"no answer from daitn/mute within 0\.05 s"):
        await source.request_bulk("daitn/mute", b"wait", timeout_s=0.05, take=bytes)
    started.clear()
    waits = asyncio.create_task(
        source.request_bulk("daitn/mute", b"wait", timeout_s=60, take=bytes)
    )
    await asyncio.wait_for(started.wait(), PATIENCE_S)
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    started.clear()
    waits = asyncio.create_task(
        source.request_bulk("daitn/mute", b"wait", timeout_s=60, take=bytes)
    )
    await asyncio.wait_for(started.wait(), PATIENCE_S)
    await source.close()
    with pytest.raises(Unreachable, match="closed"):
        await waits


async def test_who_cancels_a_bulk_request_waits_for_what_is_being_taken(network: Network) -> None:
    source, target = await network.open("a"), await network.open("b")
    loop, taking, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    taken: list[bytes] = []

    def take(answer: bytes) -> None:
        loop.call_soon_threadsafe(taking.set)
        go_on.wait()
        taken.append(answer)

    await target.serve("daitn/echo", echo)
    await asked(source, "daitn/echo")
    task = asyncio.create_task(source.request_bulk("daitn/echo", b"x", timeout_s=60, take=take))
    await asyncio.wait_for(taking.wait(), PATIENCE_S)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert taken == [b"x"]


async def test_tokens_are_seen_whenever_they_came_until_they_go(network: Network) -> None:
    watcher, target = await network.open("a"), await network.open("b")
    before, after = Heard(), Heard()
    await watcher.watch("daitn/alive/*", before.alive)
    # The registration is dropped on purpose: a token lasts until it is closed.
    await target.announce("daitn/alive/x")
    token = await target.announce("daitn/alive/y")
    await target.announce("daitn/other/z")
    await until(lambda: len(before.tokens) == 2)
    await watcher.watch("daitn/alive/*", after.alive)
    await until(lambda: len(after.tokens) == 2)
    await token.close()
    await token.close()
    await until(lambda: len(before.tokens) == len(after.tokens) == 3)
    for heard in (before, after):
        assert set(heard.tokens[:2]) == {("daitn/alive/x", True), ("daitn/alive/y", True)}
        assert heard.tokens[2] == ("daitn/alive/y", False)


async def test_a_closed_session_takes_its_tokens_and_services_along(network: Network) -> None:
    watcher, target = await network.open("a"), await network.open("b")
    heard = Heard()
    await watcher.watch("daitn/alive/*", heard.alive)
    await target.announce("daitn/alive/x")
    await target.serve("daitn/echo", echo)
    await asked(watcher, "daitn/echo")
    await until(lambda: heard.tokens == [("daitn/alive/x", True)])
    await target.close()
    await until(lambda: heard.tokens == [("daitn/alive/x", True), ("daitn/alive/x", False)])
    with pytest.raises(Unreachable, match="nobody serves daitn/echo"):
        await watcher.request("daitn/echo", b"", timeout_s=20)


async def test_a_token_is_there_as_long_as_one_session_shows_it(network: Network) -> None:
    watcher, first, second = [await network.open(name) for name in "abc"]
    heard = Heard()
    await watcher.watch("daitn/alive/*", heard.alive)
    one, two = await first.announce("daitn/alive/x"), await second.announce("daitn/alive/x")
    await second.announce("daitn/alive/second")
    await until(lambda: len(heard.tokens) == 2)
    await one.close()
    await first.announce("daitn/alive/first-is-done")
    await until(lambda: len(heard.tokens) == 3)
    assert all(alive for _, alive in heard.tokens)
    await two.close()
    await until(lambda: heard.tokens[3:] == [("daitn/alive/x", False)])


async def test_closing_twice_is_harmless_and_ends_what_waits(network: Network) -> None:
    source, target = await network.open("a"), await network.open("b")
    started = asyncio.Event()

    async def mute(key: str, payload: bytes) -> bytes:
        started.set()
        await asyncio.Event().wait()
        return b""

    await target.serve("daitn/mute", mute)
    waits = asyncio.create_task(asked(source, "daitn/mute"))
    await asyncio.wait_for(started.wait(), PATIENCE_S)
    await source.close()
    await source.close()
    with pytest.raises(Unreachable, match="closed"):
        await waits


async def test_a_closed_session_says_that_it_is_closed(network: Network) -> None:
    fabric, heard = await network.open("a"), Heard()
    token = await fabric.announce("daitn/alive/x")
    await fabric.close()
    await token.close()
    for use in (
        fabric.publish("daitn/x", b""),
        fabric.subscribe("daitn/x", heard.message),
        fabric.request("daitn/x", b"", timeout_s=1),
        fabric.request_bulk("daitn/x", b"", timeout_s=1, take=bytes),
        fabric.serve("daitn/x", echo),
        fabric.serve_bulk("daitn/x", lambda key, payload: payload),
        fabric.announce("daitn/x"),
        fabric.watch("daitn/x", heard.alive),
    ):
        with pytest.raises(Unreachable, match="closed"):
            await use


async def test_a_handler_may_close_its_own_session(network: Network) -> None:
    source, target = await network.open("a"), await network.open("b")
    ended = asyncio.Event()

    async def stop(key: str, payload: bytes) -> None:
        if payload == b"stop":
            await target.close()
            ended.set()
        else:
            await heard.message(key, payload)

    heard = Heard()
    await target.subscribe("daitn/x", stop)
    await linked(lambda: source.publish("daitn/x", b"probe"), heard)
    await source.publish("daitn/x", b"stop")
    await asyncio.wait_for(ended.wait(), PATIENCE_S)


async def test_malformed_keys_are_refused_before_anything_is_sent(network: Network) -> None:
    fabric, heard = await network.open("a"), Heard()
    for use in (
        fabric.publish("daitn/*", b""),
        fabric.request("daitn/**", b"", timeout_s=1),
        fabric.announce("daitn//x"),
        fabric.subscribe("daitn/x*", heard.message),
        fabric.serve("/daitn", echo),
        fabric.watch("daitn/**/**", heard.alive),
    ):
        with pytest.raises(InvalidInput):
            await use


async def test_the_first_answer_that_is_accepted_counts(carriers: CarrierNetwork) -> None:
    source, one, two, three = [await carriers.open(name) for name in "abcd"]

    async def fails(key: str, payload: bytes) -> bytes:
        raise InvalidInput("no")

    async def says_two(key: str, payload: bytes) -> bytes:
        return b"two"

    await one.serve("daitn/who", echo)
    await two.serve("daitn/who", says_two)
    await three.serve("daitn/who", fails)
    heard: set[bytes] = set()

    async def ask(wanted: bytes) -> bytes:
        def accepts(given: bytes) -> bool:
            heard.add(given)
            return given == wanted

        return await source.request("daitn/who", b"one", timeout_s=20, accepts=accepts)

    async with asyncio.timeout(PATIENCE_S):
        while heard < {b"one", b"two"}:
            with contextlib.suppress(Unreachable):
                await ask(b"neither")
    for wanted in (b"one", b"two"):
        assert await ask(wanted) == wanted
    with pytest.raises(Unreachable, match="nobody serves daitn/who"):
        await ask(b"neither")


def test_the_error_tree_is_flat() -> None:
    """An error that is not among the kinds would arrive as another."""
    public = {getattr(errors, name) for name in errors.__all__}
    assert set(SUBCLASSES) == {
        kind for kind in public if isinstance(kind, type) and issubclass(kind, Exception)
    }
