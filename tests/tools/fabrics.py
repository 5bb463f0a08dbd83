"""Networks of either kind to test against, and waiting for what a network takes time to do."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from daitn.identity.keys import SigningKey
from daitn.objects.errors import Unreachable, Unserved
from daitn.objects.roster import Kind, Member
from daitn.tools.fabric.memory import MemoryFabric, MemoryNetwork
from daitn.tools.fabric.protocol import Carrier, Fabric
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.signed import SignedFabric
from daitn.tools.fabric.zenoh import ZenohFabric, open_zenoh
from tests.scenes.waiting import PATIENCE_S

LOOPBACK = "tcp/127.0.0.1:0"


class Network(Protocol):
    async def open(self, name: str) -> Fabric: ...

    async def close(self) -> None: ...


class CarrierNetwork(Protocol):
    async def open(self, name: str) -> Carrier: ...

    async def close(self) -> None: ...


class Signed:
    """Every session over `carriers` signs as a member of its own; all may do everything."""

    def __init__(self, carriers: CarrierNetwork) -> None:
        self._carriers = carriers
        self._members: dict[str, Member] = {}

    async def open(self, name: str) -> Fabric:
        key = SigningKey.generate()
        self._members[key.public] = Member(
            name=name, kind=Kind.SITE, public_key=key.public, until_s=math.inf
        )
        carrier = await self._carriers.open(name)
        return SignedFabric(
            carrier, key, "test", lambda: self._members, allowed=lambda member, purpose, key: True
        )

    async def close(self) -> None:
        await self._carriers.close()


class InMemory:
    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self._opened: list[MemoryFabric] = []

    async def open(self, name: str) -> Carrier:
        self._opened.append(self.network.open(name))
        return self._opened[-1]

    async def close(self) -> None:
        for fabric in self._opened:
            await fabric.close()


class OverZenoh:
    """The first session is a router, the others are peers that know it."""

    def __init__(self) -> None:
        self._opened: list[ZenohFabric] = []

    async def open(self, name: str) -> Carrier:
        if self._opened:
            known = self._opened[0].endpoints
            settings = FabricSettings(mode="peer", listen=(LOOPBACK,), connect=known)
        else:
            settings = FabricSettings(mode="router", listen=(LOOPBACK,))
        self._opened.append(await open_zenoh(settings, connect_timeout_s=PATIENCE_S))
        return self._opened[-1]

    async def close(self) -> None:
        for fabric in reversed(self._opened):
            await fabric.close()


async def asked(fabric: Fabric, key: str, payload: bytes = b"") -> bytes:
    """Ask once `key` is known to be served: the news of it takes its time."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await fabric.request(key, payload, timeout_s=PATIENCE_S)
        except Unreachable as error:
            if not isinstance(error, Unserved) or time.monotonic() > end_s:
                raise
        await asyncio.sleep(0.005)


class Heard:
    """What one subscription or watch heard."""

    def __init__(self) -> None:
        self.items: list[tuple[str, bytes]] = []
        self.tokens: list[tuple[str, bool]] = []

    async def message(self, key: str, payload: bytes) -> None:
        if payload != b"probe":
            self.items.append((key, payload))
        else:
            self.linked = True

    linked = False

    async def alive(self, key: str, alive: bool) -> None:
        self.tokens.append((key, alive))


async def linked(publish: Callable[[], Awaitable[None]], *heard: Heard) -> None:
    """Publish probes until all subscriptions hear them."""
    end_s = time.monotonic() + PATIENCE_S
    while not all(each.linked for each in heard):
        assert time.monotonic() < end_s, "the subscription was never heard of"
        await publish()
        await asyncio.sleep(0.005)
