"""Of several control centres that take turns, commands find the one that answers."""

from __future__ import annotations

import asyncio
import socket

import pytest

from daitn.cli import answering
from daitn.cli.answering import answering_url, first_opened
from daitn.objects.errors import Unreachable
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import open_zenoh
from tests.scenes.ports import free_port
from tests.scenes.waiting import PATIENCE_S

KEY = "daitn/center/do/network"


async def leads(key: str, payload: bytes) -> bytes:
    return b"leads"


@pytest.mark.processes
async def test_one_that_is_away_and_one_that_stands_still_are_left_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as still:  # The kernel takes its connections.
        leader = await open_zenoh(FabricSettings(mode="router", listen=("tcp/127.0.0.1:0",)))
        served = await leader.serve(KEY, leads)
        named = (
            f"tcp/127.0.0.1:{free_port()}",
            f"tcp/127.0.0.1:{still.getsockname()[1]}",
            leader.endpoints[0],
        )
        found = await first_opened(FabricSettings(mode="client", connect=named))
        async with asyncio.timeout(PATIENCE_S):
            assert await found.request(KEY, b"", timeout_s=10) == b"leads"
        await found.close()
        await served.close()
        await leader.close()


async def test_a_name_that_no_host_has_is_named() -> None:
    named = (f"tcp/{'a' * 64}.example:7447", "tcp/center..example:7447")
    with pytest.raises(Unreachable, match="cannot reach the control centre at tcp"):
        await first_opened(FabricSettings(mode="client", connect=named))


async def test_where_none_is_there_the_endpoint_is_named() -> None:
    named = tuple(f"tcp/127.0.0.1:{free_port()}" for _ in range(2))
    with pytest.raises(Unreachable, match="cannot reach the control centre at tcp/127"):
        await first_opened(FabricSettings(mode="client", connect=named))
    urls = ",".join(f"http://127.0.0.1:{free_port()}" for _ in range(2))
    with pytest.raises(Unreachable):
        await answering_url(urls)


@pytest.mark.processes
async def test_a_command_waits_for_a_control_centre_that_is_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answering, "_LISTENS_WITHIN_S", PATIENCE_S)
    named = f"tcp/127.0.0.1:{free_port()}"
    opening = asyncio.create_task(first_opened(FabricSettings(mode="client", connect=(named,))))
    await asyncio.sleep(0.5)  # It has tried by then.
    leader = await open_zenoh(FabricSettings(mode="router", listen=(named,)))
    found = await opening
    await found.close()
    await leader.close()


@pytest.mark.processes
async def test_the_error_names_a_control_centre_that_accepts_connections_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answering, "_BUSY_WITHIN_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as still:
        named = f"tcp/127.0.0.1:{still.getsockname()[1]}"
        with pytest.raises(
            Unreachable, match=f"cannot reach the control centre at {named}"
        ) as told:
            await first_opened(FabricSettings(mode="client", connect=(named,)))
    assert told.value.field == "--center (DAITN_CENTER)"
