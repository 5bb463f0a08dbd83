"""Connections close at once, also those whose other end is gone."""

from __future__ import annotations

import os
import socket
import struct

import pytest
import zenoh

from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import open_zenoh
from tests.scenes.ports import free_port
from tests.scenes.waiting import until

pytestmark = pytest.mark.processes


def lingering() -> int:
    """How many sockets of this process wait when they are closed."""
    return sum(map(waits, map(int, os.listdir("/dev/fd"))))


def waits(descriptor: int) -> bool:
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:  # It is no socket.
        return False
    try:
        return all(struct.unpack("ii", found.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)))
    finally:
        found.detach()


async def test_no_connection_waits_when_it_is_closed() -> None:
    """Neither one that was accepted nor one that was made, nor one that comes later."""
    center = await open_zenoh(FabricSettings(mode="router", listen=("tcp/127.0.0.1:0",)))
    settings = FabricSettings(mode="client", connect=center.endpoints)
    for _ in range(2):
        member = await open_zenoh(settings)
        assert len(member._opened.session.info.links()) == 1
        await until(lambda: not lingering())
        await member.close()
    await center.close()


def test_zenoh_lets_connections_wait() -> None:
    """Once this fails, `NoLinger` may go."""
    at = f"tcp/127.0.0.1:{free_port()}"
    here, there = zenoh.Config(), zenoh.Config()
    here.insert_json5("listen/endpoints", f'["{at}"]')
    there.insert_json5("connect/endpoints", f'["{at}"]')
    for config in (here, there):
        config.insert_json5("scouting/multicast/enabled", "false")
    with zenoh.open(here), zenoh.open(there):
        assert lingering() >= 2
