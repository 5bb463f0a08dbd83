"""What only processes show: how they die, freeze and come back."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.scenes.ports import free_port
from tests.scenes.waiting import until

from .scene import SILENT_S, A, B, Heard, adjacent, echoed, running

pytestmark = pytest.mark.processes


async def test_a_killed_process_is_down_and_a_restarted_one_is_up_again() -> None:
    heard, listen = Heard(), f"tcp/127.0.0.1:{free_port()}"
    async with adjacent(A, heard, {B: (listen,)}) as a:
        for run in range(2):
            async with running(B, {A: ()}, listen) as process:
                await echoed(a, heard, B, b"%d" % run)
                await process.kill()
                await until(lambda: not heard.is_up(B))
        assert heard.links == [("up", B), ("down", B)] * 2


async def test_a_frozen_process_is_down_and_up_again_when_it_goes_on() -> None:
    heard = Heard()
    async with (
        adjacent(A, heard, {B: ()}, dead_s=SILENT_S) as a,
        running(B, {A: a.endpoints}) as process,
    ):
        await echoed(a, heard, B, b"before")
        process.signal(signal.SIGSTOP)
        await until(lambda: not heard.is_up(B))
        process.signal(signal.SIGCONT)
        await echoed(a, heard, B, b"after")
        assert heard.links == [("up", B), ("down", B), ("up", B)]


async def test_one_that_restarts_while_it_is_not_missed_is_down_and_then_up() -> None:
    """Only the nonce, or Zenoh, can tell."""
    heard, listen = Heard(), f"tcp/127.0.0.1:{free_port()}"
    async with adjacent(A, heard, {B: (listen,)}) as a:
        for run in range(2):
            async with running(B, {A: ()}, listen):
                await echoed(a, heard, B, b"%d" % run)
        await until(lambda: not heard.is_up(B))
        assert heard.links == [("up", B), ("down", B)] * 2


async def test_nothing_is_lost_or_out_of_order_in_a_long_run() -> None:
    """Of what fits the queues (11 MB) while the link is up, however slowly they are emptied."""
    heard = Heard()
    async with adjacent(A, heard, {B: ()}) as a, running(B, {A: a.endpoints}):
        await until(lambda: heard.is_up(B))
        sent = 0
        for _ in range(100):
            for _ in range(100):
                a.send(B, sent.to_bytes(4, "big") + bytes(sent % 2000))
                sent += 1
            await asyncio.sleep(0)
        await until(lambda: len(heard.messages) == sent or not heard.is_up(B))
        numbers = [int.from_bytes(message[:4], "big") for _, message in heard.messages]
        assert heard.links == [("up", B)]
        assert numbers == list(range(sent))
