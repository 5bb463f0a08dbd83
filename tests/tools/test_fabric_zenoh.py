"""What only real processes can show: deaths, start order, and ways around a dead centre."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from daitn.objects.errors import InvalidInput, Unreachable
from daitn.objects.identifiers import SiteId
from daitn.tools.fabric import keys
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import open_zenoh
from tests.scenes.ports import free_port
from tests.scenes.turns import LongestTurn
from tests.scenes.waiting import PATIENCE_S, until

from .fabrics import LOOPBACK, Heard, asked

pytestmark = pytest.mark.processes

A, B, CENTER = SiteId("a"), SiteId("b"), SiteId("center")


class Process:
    """`fabric_process.py`, running."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.endpoint = ""

    @classmethod
    async def start(cls, name: str, settings: FabricSettings) -> Process:
        script = Path(__file__).with_name("fabric_process.py")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(script),
            name,
            msgspec.json.encode(settings).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        started = cls(process)
        started.endpoint = await started._line()
        return started

    async def ask(self, key: str, payload: str) -> str:
        assert self._process.stdin
        self._process.stdin.write(f"{key} {payload}\n".encode())
        return await self._line()

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def end(self) -> int:
        """Let it close its session and leave by itself."""
        assert self._process.stdin
        self._process.stdin.close()
        return await asyncio.wait_for(self._process.wait(), PATIENCE_S)

    async def _line(self) -> str:
        assert self._process.stdout
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE_S)
        return line.decode().strip()


@asynccontextmanager
async def running(name: str, settings: FabricSettings) -> AsyncIterator[Process]:
    process = await Process.start(name, settings)
    try:
        yield process
    finally:
        await process.kill()


def router(endpoint: str = LOOPBACK) -> FabricSettings:
    return FabricSettings(mode="router", listen=(endpoint,))


def peer(*known: str) -> FabricSettings:
    return FabricSettings(mode="peer", listen=(LOOPBACK,), connect=known)


def free_endpoint() -> str:
    return f"tcp/127.0.0.1:{free_port()}"


async def answered(process: Process, key: str) -> None:
    """Ask until `key` is known to be served."""
    end_s = time.monotonic() + PATIENCE_S
    while await process.ask(key, "hello") != "got hello":
        assert time.monotonic() < end_s, f"{key} is not heard of"


async def test_a_killed_process_is_noticed() -> None:
    center = await open_zenoh(router())
    heard = Heard()
    await center.watch(keys.ALL_SITES_ALIVE, heard.alive)
    async with running("a", peer(*center.endpoints)) as process:
        await until(lambda: heard.tokens == [(keys.site_alive(A, "1"), True)])
        await process.kill()
        await until(lambda: heard.tokens[1:] == [(keys.site_alive(A, "1"), False)])
    with pytest.raises(Unreachable, match="nobody serves"):
        await center.request(keys.site_echo(A), b"", timeout_s=5)
    await center.close()


async def test_sites_reach_each_other_directly_while_the_centre_is_dead() -> None:
    async with (
        running(CENTER, router()) as center,
        running(A, peer(center.endpoint)) as a,
        running(B, peer(center.endpoint)),
    ):
        await answered(a, keys.site_echo(B))
        await answered(a, keys.site_echo(CENTER))
        await center.kill()
        await answered(a, keys.site_echo(B))
        assert (await a.ask(keys.site_echo(CENTER), "hello")).startswith("Unserved nobody")


async def test_the_death_of_the_centre_does_not_look_like_the_death_of_a_site() -> None:
    heard = Heard()
    async with running(CENTER, router()) as center:
        watcher = await open_zenoh(peer(center.endpoint), connect_timeout_s=PATIENCE_S)
        await watcher.watch(keys.ALL_SITES_ALIVE, heard.alive)
        async with running(B, peer(center.endpoint)):
            await until(lambda: len(heard.tokens) == 2)
            await until(lambda: len(watcher._session.info.peers_zid()) == 1)
            await center.kill()
            await until(lambda: (keys.site_alive(CENTER, "1"), False) in heard.tokens)
            assert await watcher.request(keys.site_echo(B), b"x", timeout_s=PATIENCE_S) == b"x"
            assert (keys.site_alive(B, "1"), False) not in heard.tokens
        await watcher.close()


async def test_start_order_and_restarts_of_the_centre_do_not_matter() -> None:
    endpoint, heard = free_endpoint(), Heard()
    site = await open_zenoh(peer(endpoint))
    await site.announce(keys.site_alive(A, "1"))
    await site.watch(keys.ALL_SITES_ALIVE, heard.alive)
    for _ in range(2):
        async with running(CENTER, router(endpoint)):
            await until(lambda: heard.tokens[-1] == (keys.site_alive(CENTER, "1"), True))
            assert await asked(site, keys.site_echo(CENTER), b"x") == b"x"
        await until(lambda: heard.tokens[-1] == (keys.site_alive(CENTER, "1"), False))
    await site.close()


async def test_a_process_closes_its_session_and_ends() -> None:
    async with (
        running(CENTER, router()) as center,
        running(A, peer(center.endpoint)) as a,
    ):
        await answered(a, keys.site_echo(CENTER))
        assert await a.end() == 0
        assert await center.end() == 0


@pytest.mark.parametrize("mode", ["client", "peer"])
async def test_an_absent_centre_is_named_with_what_to_do(mode: str) -> None:
    endpoint = free_endpoint()
    listen = [LOOPBACK] if mode == "peer" else []
    settings = msgspec.convert(
        {"mode": mode, "listen": listen, "connect": [endpoint]}, FabricSettings
    )
    with pytest.raises(Unreachable, match=f"cannot reach the control centre at {endpoint}") as told:
        await open_zenoh(settings, connect_timeout_s=0.3)
    assert told.value.field == "connect"
    assert "check that it is running" in told.value.fix


async def test_a_client_gets_answers_from_sites_and_centre() -> None:
    async with running(CENTER, router()) as center, running(A, peer(center.endpoint)):
        settings = FabricSettings(mode="client", connect=(center.endpoint,))
        client = await open_zenoh(settings, connect_timeout_s=PATIENCE_S)
        assert await asked(client, keys.site_echo(CENTER), b"x") == b"x"
        assert await asked(client, keys.site_echo(A), b"x") == b"x"
        await client.close()


async def test_a_client_finds_a_restarted_centre_again() -> None:
    endpoint = free_endpoint()
    settings = FabricSettings(mode="client", connect=(endpoint,))
    async with running(CENTER, router(endpoint)):
        client = await open_zenoh(settings, connect_timeout_s=PATIENCE_S)
        assert await asked(client, keys.site_echo(CENTER), b"x") == b"x"
    async with running(CENTER, router(endpoint)):
        assert await asked(client, keys.site_echo(CENTER), b"x") == b"x"
    await client.close()


async def test_a_taken_port_is_named() -> None:
    first = await open_zenoh(router())
    with pytest.raises(InvalidInput, match="cannot listen on") as caught:
        await open_zenoh(router(*first.endpoints))
    assert first.endpoints[0] in caught.value.problem
    assert caught.value.field == "listen"
    await first.close()


async def test_a_stalled_peer_does_not_stop_the_loop() -> None:
    center = await open_zenoh(router())
    async with running(A, peer(*center.endpoints)) as process:
        await asked(center, keys.site_echo(A))
        process._process.send_signal(19)  # SIGSTOP: its side of the link no longer drains
        payload = bytes(8 << 20)
        sends = [
            asyncio.create_task(center.request(keys.site_echo(A), payload, timeout_s=0.5))
            for _ in range(8)
        ]
        with LongestTurn() as turns:
            await turns.until(lambda: all(send.done() for send in sends))
        for send in sends:
            with pytest.raises(Unreachable, match="no answer"):
                await send
        # A send that blocked would do so until the link is given up, for 10 s.
        assert turns.longest_s < 2.0
        await process.kill()
    await center.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"connect": ["control:7447"]},
        {"connect": ["tcp/control"]},
        {"connect": ["tcp/control:70000"]},
        {"connect": ["tcp/control:0"]},
        {"mode": "client"},
        {"mode": "client", "listen": ["tcp/[::]:0"], "connect": ["tcp/[::1]:1"]},
        {"mode": "peer"},
        {"mode": "router", "lissten": ["tcp/[::]:0"]},
    ],
)
def test_malformed_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises((msgspec.ValidationError, InvalidInput)):
        msgspec.convert(settings, FabricSettings)
