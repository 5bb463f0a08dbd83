"""Links between sessions in this process: what they carry, and that they carry it directly."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import pytest
import zenoh

from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import SiteId
from daitn.tools.adjacency.framing import Hello
from daitn.tools.adjacency.protocol import MOST_MESSAGE_BYTES
from daitn.tools.adjacency.sending import FrameSender
from daitn.tools.adjacency.settings import AdjacencySettings
from daitn.tools.adjacency.zenoh import ZenohAdjacency, open_adjacency
from tests.scenes.certificates import certified_member
from tests.scenes.ports import free_port
from tests.scenes.relay import Relay
from tests.scenes.turns import LongestTurn
from tests.scenes.waiting import PATIENCE_S, until

from .scene import LOOPBACK, NEVER_S, SILENT_S, A, B, C, Heard, adjacent

_EXPIRES_S = 10.0
"""How long Zenoh keeps a connection on which nothing arrives."""


def through(relay: Relay) -> tuple[str, ...]:
    return (f"tcp/127.0.0.1:{relay.port}",)


def behind(relay: Relay) -> str:
    return f"tcp/127.0.0.1:{relay.target}"


async def test_messages_of_a_turn_go_together_and_in_order() -> None:
    at_a, at_b = Heard(), Heard()
    async with adjacent(A, at_a, {B: ()}) as a, adjacent(B, at_b, {A: a.endpoints}) as b:
        await until(lambda: at_a.is_up(B) and at_b.is_up(A))
        sent = [b"%d" % number for number in range(5000)]
        for message in sent:
            assert a.send(B, message)
            assert b.send(A, message)
        await until(lambda: len(at_a.messages) == len(at_b.messages) == len(sent))
        assert [message for _, message in at_a.messages] == sent
        assert [message for _, message in at_b.messages] == sent
        assert len(at_b.turns) < 100
        assert a.stats()[B].messages_out == b.stats()[A].messages_in == len(sent)


async def test_large_messages_pass_and_too_large_ones_are_refused() -> None:
    at_a, at_b = Heard(), Heard()
    async with adjacent(A, at_a, {B: ()}) as a, adjacent(B, at_b, {A: a.endpoints}):
        await until(lambda: at_a.is_up(B))
        large = bytes(range(256)) * (5 << 12)
        for message in (b"before", large, b"after"):
            a.send(B, message)
        await until(lambda: len(at_b.messages) == 3)
        assert at_b.messages == [(A, b"before"), (A, large), (A, b"after")]
        with pytest.raises(InvalidInput, match="too large"):
            a.send(B, bytes(MOST_MESSAGE_BYTES + 1))


async def test_both_ends_may_connect() -> None:
    at_a, at_b = Heard(), Heard()
    with Relay() as to_a, Relay() as to_b:
        async with (
            adjacent(A, at_a, {B: through(to_b)}, listen=behind(to_a)) as a,
            adjacent(B, at_b, {A: through(to_a)}, listen=behind(to_b)),
        ):
            await until(lambda: at_a.is_up(B) and at_b.is_up(A))
            a.send(B, b"once")
            await until(lambda: at_b.messages)
            await asyncio.sleep(1.0)
            assert at_b.messages == [(A, b"once")]


async def test_sites_of_a_local_network_find_each_other() -> None:
    group, other = (f"224.0.0.225:{free_port()}" for _ in range(2))
    at = {site: Heard() for site in (A, B, C)}
    async with adjacent(A, at[A], scout=group) as a, adjacent(C, at[C], scout=other):
        async with adjacent(B, at[B], scout=group):
            await until(lambda: at[A].is_up(B) and at[B].is_up(A))
            a.send(B, b"found")
            await until(lambda: at[B].messages == [(A, b"found")])
            assert not at[C].links, "another group"
        await until(lambda: not at[A].is_up(B))
        async with adjacent(B, at[B], scout=group):
            await until(lambda: at[A].is_up(B) and at[B].is_up(A))


async def test_members_find_each_other_and_nobody_else(tmp_path: Path) -> None:
    """Links over TLS: a revoked neighbour loses its link, a stranger never has one."""
    group = f"224.0.0.225:{free_port()}"
    at = {site: Heard() for site in (A, B, C)}
    authorities = {A: "ours", B: "ours", C: "other"}
    members = {
        site: certified_member(tmp_path / site, tmp_path / authority, name=site).public_key
        for site, authority in authorities.items()
    }
    roster = set(members.values())

    def joined(site: SiteId) -> AbstractAsyncContextManager[ZenohAdjacency]:
        return adjacent(
            site,
            at[site],
            listen="tls/127.0.0.1:0",
            scout=group,
            tls=str(tmp_path / site),
            listed=roster.__contains__,
        )

    async with joined(A) as a, joined(B), joined(C):
        await until(lambda: at[A].is_up(B) and at[B].is_up(A))
        a.send(B, b"found")
        await until(lambda: at[B].messages == [(A, b"found")])
        roster.remove(members[B])
        await until(lambda: not at[A].is_up(B))
        assert not at[C].links, "another authority"


@pytest.mark.parametrize("group", ["192.0.2.1:7448", "224.0.0.225", "224.0.0.225:70000"])
async def test_a_bad_group_to_scout_at_is_refused(group: str) -> None:
    with pytest.raises(InvalidInput, match="multicast") as refused:
        async with adjacent(A, Heard(), scout=group):
            pass
    assert refused.value.field == "scout"


async def test_nothing_goes_to_one_who_is_not_up() -> None:
    async with adjacent(A, Heard(), {B: ()}) as a:
        assert not a.send(B, b"lost")
        assert not a.send(C, b"lost")


async def test_messages_do_not_pass_through_a_site_between() -> None:
    at_a, at_b, at_c = Heard(), Heard(), Heard()
    async with (
        adjacent(C, at_c, {B: (), A: ()}) as c,
        adjacent(B, at_b, {A: (), C: c.endpoints}) as b,
        adjacent(A, at_a, {B: b.endpoints, C: ()}) as a,
    ):
        await until(lambda: at_b.is_up(A) and at_b.is_up(C) and at_a.is_up(B))
        await asyncio.sleep(0.5)
        # On what the adjacency itself uses: its hellos would have made a link.
        a._session.put("daitn/adjacent/c/from/a", b"around")
        await asyncio.sleep(0.5)
        assert at_a.links == [("up", B)]
        assert at_c.links == [("up", B)]
        assert c.stats()[A].malformed == 0


async def test_a_broken_link_of_a_triangle_is_down_and_not_gone_around() -> None:
    at_a, at_b, at_c = Heard(), Heard(), Heard()
    with Relay() as relay:
        async with (
            adjacent(C, at_c, {A: (), B: ()}, listen=behind(relay)) as c,
            adjacent(B, at_b, {A: (), C: c.endpoints}) as b,
            adjacent(A, at_a, {B: b.endpoints, C: through(relay)}),
        ):
            pairs = [(at_a, B), (at_a, C), (at_b, A), (at_b, C), (at_c, A), (at_c, B)]
            await until(lambda: all(heard.is_up(site) for heard, site in pairs))
            relay.cut()
            await until(lambda: not at_a.is_up(C) and not at_c.is_up(A))
            await asyncio.sleep(1.0)
            assert not at_a.is_up(C)
            assert not at_c.is_up(A)
            assert at_b.is_up(A)
            assert at_b.is_up(C)
            relay.mend()
            await until(lambda: at_a.is_up(C) and at_c.is_up(A))
            assert at_b.links.count(("down", A)) == at_b.links.count(("down", C)) == 0


@pytest.mark.parametrize("silent", [False, True])
async def test_a_broken_link_is_noticed_at_both_ends_and_comes_back(silent: bool) -> None:
    at_a, at_b, dead_s = Heard(), Heard(), SILENT_S if silent else NEVER_S
    with Relay() as relay:
        async with (
            adjacent(B, at_b, {A: ()}, listen=behind(relay), dead_s=dead_s) as b,
            adjacent(A, at_a, {B: through(relay)}, dead_s=dead_s) as a,
        ):
            await until(lambda: at_a.is_up(B) and at_b.is_up(A))
            if silent:
                relay.silent = True
            else:
                relay.cut()
            await until(lambda: not at_a.is_up(B) and not at_b.is_up(A))
            assert not a.send(B, b"lost")
            relay.mend()
            await until(lambda: at_a.is_up(B) and at_b.is_up(A))
            a.send(B, b"after")
            await until(lambda: at_b.messages)
            assert at_b.messages == [(A, b"after")]
            assert at_a.links[-3:] == [("up", B), ("down", B), ("up", B)]
            assert b.stats()[A].up


@pytest.mark.long
async def test_connections_that_died_do_not_hold_up_the_others() -> None:
    """Zenoh gives them up after 10 s, with much in them that nobody has acknowledged."""
    at_a = Heard()
    lost = [SiteId(f"lost-{number}") for number in range(3)]
    async with AsyncExitStack() as stack:
        relays = {site: stack.enter_context(Relay()) for site in lost}
        for site, relay in relays.items():
            await stack.enter_async_context(
                adjacent(site, Heard(), {A: ()}, listen=behind(relay), dead_s=SILENT_S)
            )
        c = await stack.enter_async_context(adjacent(C, Heard(), {A: ()}, dead_s=SILENT_S))
        ways = {site: through(relay) for site, relay in relays.items()} | {C: c.endpoints}
        a = await stack.enter_async_context(adjacent(A, at_a, ways, dead_s=SILENT_S))
        await until(lambda: all(at_a.is_up(site) for site in ways))
        for site, relay in relays.items():
            relay.silent = True
            for _ in range(15):
                a.send(site, bytes(1 << 20))
        await asyncio.sleep(_EXPIRES_S + 2 * SILENT_S)
        assert ("down", C) not in at_a.links
        assert all(("down", site) in at_a.links for site in lost)


async def test_the_cost_follows_the_delay() -> None:
    at_a, at_b = Heard(), Heard()
    with Relay() as relay:
        async with (
            adjacent(B, at_b, {A: ()}, listen=behind(relay)),
            adjacent(A, at_a, {B: through(relay)}),
        ):
            await until(lambda: at_a.is_up(B) and at_b.is_up(A))
            near_s = at_a.costs_s[B]
            relay.delay_s = 0.03
            await until(lambda: 0.03 < at_a.costs_s[B] < 0.3 and 0.03 < at_b.costs_s[A] < 0.3)
            assert near_s < at_a.costs_s[B]


async def test_a_busy_loop_does_not_take_its_neighbours_for_dead_nor_is_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daitn.tools.adjacency.zenoh._STUCK_S", NEVER_S)
    at_a, at_b = Heard(), Heard()
    async with (
        adjacent(A, at_a, {B: ()}, dead_s=SILENT_S) as a,
        adjacent(B, at_b, {A: a.endpoints}, dead_s=SILENT_S),
    ):
        await until(lambda: at_a.is_up(B) and at_b.is_up(A))
        time.sleep(SILENT_S + 1)  # noqa: ASYNC251 - that is the point
        a.send(B, b"after")
        await until(lambda: at_b.messages or not at_b.is_up(A))
        assert at_a.links == [("up", B)]
        assert at_b.links == [("up", A)]


async def test_a_thread_that_is_slow_to_say_hello_does_not_take_the_link_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it says of the time before the link was up comes before what the loop says of it."""
    at_a, at_b, put = Heard(), Heard(), FrameSender.hello
    both_up, held = threading.Event(), list[Hello]()

    def slow(sender: FrameSender, hello: Hello) -> None:
        if hello.nonces.receiver or threading.current_thread() is threading.main_thread():
            put(sender, hello)
        else:
            held.append(hello)
            both_up.wait(0.3)
            put(sender, hello)
            held.remove(hello)

    monkeypatch.setattr(FrameSender, "hello", slow)
    async with adjacent(A, at_a, {B: ()}) as a:
        await until(lambda: held)
        async with adjacent(B, at_b, {A: a.endpoints}):
            await until(lambda: at_a.is_up(B) and at_b.is_up(A))
            both_up.set()
            await until(lambda: not held)
            a.send(B, b"after")
            await until(lambda: at_b.messages or not at_b.is_up(A))
            assert at_a.links == [("up", B)]
            assert at_b.links == [("up", A)]


async def test_one_that_leaves_says_so_and_nobody_is_told_after_the_end() -> None:
    at_a, at_b = Heard(), Heard()
    async with adjacent(A, at_a, {B: ()}) as a:
        async with adjacent(B, at_b, {A: a.endpoints}):
            await until(lambda: at_a.is_up(B) and at_b.is_up(A))
        await until(lambda: not at_a.is_up(B))
        assert at_b.links == [("up", A)]


async def test_a_stranger_is_ignored_unless_anybody_may_come(
    caplog: pytest.LogCaptureFixture,
) -> None:
    at_a, at_b, at_c = Heard(), Heard(), Heard()
    async with (
        adjacent(A, at_a, {B: ()}) as a,
        adjacent(C, at_c, anybody=True) as c,
        adjacent(B, at_b, {C: c.endpoints, A: ()}),
        adjacent(SiteId("d"), Heard(), {A: a.endpoints}),
    ):
        await until(lambda: at_c.is_up(B) and at_b.is_up(C))
        await until(lambda: "d is ignored" in caplog.text)
        assert at_a.links == []
        assert caplog.text.count("d is ignored") == 1


async def test_one_that_came_by_itself_is_forgotten_after_it_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daitn.tools.adjacency.zenoh._FORGET_S", 0.2)
    at_c = Heard()
    async with adjacent(C, at_c, anybody=True) as c:
        async with adjacent(B, Heard(), {C: c.endpoints}):
            await until(lambda: at_c.is_up(B))
            with monkeypatch.context() as silence:
                silence.setattr(FrameSender, "hello", lambda sender, hello: None)
                end, ticked_s = c._ends[B], c._ticked_s
                await until(lambda: c._ticked_s > ticked_s + 0.5)
                assert c._ends.get(B) is end, "it is late, and nobody was told that it is down"
        await until(lambda: not c.stats())
        assert at_c.links == [("up", B), ("down", B)]


def raw(endpoint: str) -> zenoh.Session:
    config = zenoh.Config()
    config.insert_json5("mode", '"peer"')
    config.insert_json5("scouting/multicast/enabled", "false")
    config.insert_json5("connect/endpoints", f'["{endpoint}"]')
    return zenoh.open(config)


async def test_malformed_frames_are_counted_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    at_a = Heard()
    async with adjacent(A, at_a, {B: ()}) as a:
        with caplog.at_level(logging.WARNING), raw(a.endpoints[0]) as session:
            end_s = time.monotonic() + PATIENCE_S
            while a.stats()[B].malformed < 10:
                assert time.monotonic() < end_s
                session.put("daitn/adjacent/a/from/b", b"\x02 nonsense")
                session.put("daitn/adjacent/a/from/b", b"")
                await asyncio.sleep(0.01)
        assert caplog.text.count("malformed") == 1
        assert at_a.links == []


async def test_a_flood_is_bounded_and_does_not_stop_the_loop() -> None:
    at_a, at_b, at_c = Heard(), Heard(), Heard()
    with Relay() as relay:
        async with (
            adjacent(B, at_b, {A: ()}, listen=behind(relay)),
            adjacent(C, at_c, {A: ()}) as c,
            adjacent(A, at_a, {B: through(relay), C: c.endpoints}) as a,
        ):
            await until(lambda: at_a.is_up(B) and at_a.is_up(C))
            relay.silent = True
            message = bytes(1 << 20)
            with LongestTurn() as turns:
                for number in range(100):
                    a.send(B, message)
                    a.send(C, b"%d" % number)
                    await turns.goes_by()
            waiting = a._ends[B].outbox
            assert waiting is not None
            assert waiting._bytes <= 16 << 20
            assert a.stats()[B].dropped_out > 40
            assert turns.longest_s < 2.0, "who waits for room on a stalled link does so for 10 s"
            # The stalled link does not hold up another one.
            await until(lambda: len(at_c.messages) == 100)
            relay.mend()
            await until(lambda: at_b.messages)


async def test_what_the_loop_does_not_get_to_is_bounded_too() -> None:
    at_a, at_b = Heard(), Heard()
    async with adjacent(A, at_a, {B: ()}) as a, adjacent(B, at_b, {A: a.endpoints}) as b:
        await until(lambda: at_a.is_up(B) and at_b.is_up(A))
        end = b._ends[A]
        end.work = lambda: False  # type: ignore[method-assign]
        for _ in range(60):
            a.send(B, bytes(1 << 20))
            await asyncio.sleep(0.005)
        await until(lambda: b.stats()[A].dropped_in > 0)
        assert end._inbox._bytes <= 16 << 20
        del end.work
        a.send(B, b"last")
        await until(lambda: at_b.messages[-1:] == [(A, b"last")])
        assert at_b.links == [("up", A)], "what was dropped here is no fault of the link"


@pytest.mark.parametrize(
    "changes",
    [
        {"site": "*"},
        {"neighbours": {"a/b": ()}},
        {"neighbours": {"a": ()}},
        {"dead_s": 0.06},
        {"listen": ("nowhere",)},
    ],
)
async def test_malformed_settings_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        await _open(**{"site": "a", "listen": (LOOPBACK,), **changes})


async def _open(**settings: object) -> ZenohAdjacency:
    return await open_adjacency(AdjacencySettings(**settings), Heard())  # type: ignore[arg-type]
